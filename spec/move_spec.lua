-- SPDX-License-Identifier: MIT
-- Moving a vCPU between spaces: its whole state goes along, what is under way ends where it began,
-- and numbers that are used again begin afresh.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local raises, hex = helper.raises, luna.hex
local u64 = luna.u64

local BASE = 0xd0000000

-- A guest with a second space, .view, that shows the same memory.
local function with_view(options)
  local guest = helper.guest(options)
  guest.view = assert(guest.vm:space())
  assert(guest.view:map(guest.ram, 0))
  return guest
end

-- A value of its own for each index and salt.
local function value(index, salt)
  return u64(0x10000000 * (index % 8) + 0x01010101 * (index % 16) + salt, 0x22220000 + 257 * index)
end

local general = { "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11",
  "r12", "r13", "r14", "r15" }

helper.kvm("a move keeps the registers", function()
  it("that are general, and the flags", function()
    local guest = with_view { mode = "long", source = [[
      cld
      stc
      hlt
      pushfq
      hlt
      jmp 0x1000]] }
    for round, space in ipairs { guest.view, guest.vm.default, guest.view } do
      guest.cpu.rip = 0x1000
      for i, name in ipairs(general) do guest.cpu[name] = value(i, round) end
      guest.cpu.rsp = 0x8000 + 0x100 * round
      guest.cpu.rflags = 0x802 -- OF
      guest:stops "hlt"
      guest.cpu:set_space(space)
      for i, name in ipairs(general) do
        if name ~= "rsp" then assert.equal(hex(value(i, round)), hex(guest.cpu[name]), name) end
      end
      guest:stops "hlt"
      for i, name in ipairs(general) do
        if name ~= "rsp" then assert.equal(hex(value(i, round)), hex(guest.cpu[name]), name) end
      end
      assert.equal(hex(0x7ff8 + 0x100 * round), hex(guest.cpu.rsp))
      -- CF and OF, as the guest pushed them.
      assert.equal("0x803", hex(guest.ram:u64(0x7ff8 + 0x100 * round)))
      assert.equal(space, guest.cpu.space)
    end
  end)

  it("that the script wrote before, and those that the guest then reads", function()
    local guest = with_view { mode = "long", source = "mov [0x3000], r9\n mov rax, cr2\n hlt" }
    guest.cpu.r9, guest.cpu.cr2 = u64 "0x1122334455667788", u64 "0x5566778899"
    guest.cpu:set_space(guest.view)
    guest.cpu:set_space(0)
    guest.cpu:set_space(guest.view)
    guest:stops "hlt"
    assert.equal("0x1122334455667788", hex(guest.ram:u64(0x3000)))
    assert.equal("0x5566778899", hex(guest.cpu.rax))
  end)

  it("of the segments, in all their fields", function()
    local guest = with_view { mode = "long", source = [[
      again:
      mov rax, [fs:0]
      mov rbx, [gs:8]
      hlt
      jmp again]] }
    guest.ram:u64(0x3000, u64 "0xaaaabbbbccccdddd")
    guest.ram:u64(0x4008, u64 "0x1111222233334444")
    guest.cpu.fs.base, guest.cpu.gs.base = 0x3000, 0x4000
    guest.cpu.es.selector, guest.cpu.ds.limit = 0x33, 0x12345
    guest.cpu.ldtr.base, guest.cpu.ldtr.limit = 0x5000, 0x77
    guest.cpu.ldtr.access = 0x82
    guest:stops "hlt"
    local before = {}
    local function each(fn)
      for _, name in ipairs { "cs", "ds", "es", "fs", "gs", "ss", "tr", "ldtr" } do
        for _, field in ipairs { "selector", "base", "limit", "access" } do
          fn(name .. "." .. field, hex(guest.cpu[name][field]))
        end
      end
      for _, name in ipairs { "gdtr", "idtr" } do
        for _, field in ipairs { "base", "limit" } do
          fn(name .. "." .. field, hex(guest.cpu[name][field]))
        end
      end
      for _, name in ipairs { "cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base" } do
        fn(name, hex(guest.cpu[name]))
      end
    end
    each(function(name, text) before[name] = text end)
    for _, space in ipairs { guest.view, guest.vm.default, guest.view } do
      guest.cpu:set_space(space)
      each(function(name, text) assert.equal(before[name], text, name) end)
      guest.cpu.rax, guest.cpu.rbx = 0, 0
      guest:stops "hlt"
      each(function(name, text) assert.equal(before[name], text, name) end)
      assert.equal("0xaaaabbbbccccdddd", hex(guest.cpu.rax))
      assert.equal("0x1111222233334444", hex(guest.cpu.rbx))
    end
  end)

  it("that control the processor", function()
    local guest = with_view { mode = "long", source = [[
      mov rax, cr4
      or eax, 0x80 ; PGE
      mov cr4, rax
      mov eax, 0x5000
      mov cr2, rax
      mov eax, 5
      mov cr8, rax
      mov ebx, 0x40000000
      mov cr3, rbx
      mov ecx, 0xc0000080
      rdmsr
      or eax, 1 ; SCE
      wrmsr
      hlt
      mov rax, cr4
      mov rbx, cr2
      mov rdx, cr8
      mov rsi, cr3
      hlt
      mov ecx, 0xc0000080
      rdmsr
      hlt]] }
    local cr3 = u64.tonumber(guest.cpu.cr3)
    -- A second root for the page tables of the library.
    local area = guest.vm.default
    local copy = helper.keep(luna.buffer "4K")
    assert(area:map(copy, 0x40000000))
    assert(guest.view:map(copy, 0x40000000))
    copy:write(0, area:read(cr3, 0x1000))
    guest:stops "hlt"
    guest.cpu:set_space(guest.view)
    guest:stops "hlt"
    assert.equal("0x80", hex(u64.band(guest.cpu.rax, 0x80)))
    assert.equal("0x5000", hex(guest.cpu.rbx))
    assert.equal("0x5", hex(guest.cpu.rdx))
    assert.equal("0x40000000", hex(guest.cpu.rsi))
    guest.cpu:set_space(0)
    guest:stops "hlt"
    assert.equal("0xd01", hex(guest.cpu.rax))
    assert.equal("0x40000000", hex(guest.cpu.cr3))
    assert.equal("0x5", hex(guest.cpu.cr8))
  end)

  it("CR8 that the script wrote, which counts at once", function()
    local guest = with_view { mode = "long", source = "again: mov rax, cr8\n hlt\n jmp again" }
    guest.cpu.cr8 = 5
    guest:stops "hlt"
    assert.equal("0x5", hex(guest.cpu.rax))
    guest.cpu:set_space(guest.view)
    guest.cpu.rax = 0
    guest:stops "hlt"
    assert.equal("0x5", hex(guest.cpu.rax))
  end)

  it("for debugging", function()
    local guest = with_view { mode = "long", source = [[
      mov eax, 0x11111000
      mov dr0, rax
      mov eax, 0x22222000
      mov dr1, rax
      mov eax, 0x33333000
      mov dr2, rax
      mov eax, 0x44444000
      mov dr3, rax
      mov eax, 0xffff0ff2
      mov dr6, rax
      mov eax, 0x00000700
      mov dr7, rax
      hlt
      again:
      mov r8, dr0
      mov r9, dr1
      mov r10, dr2
      mov r11, dr3
      mov r12, dr6
      mov r13, dr7
      hlt
      jmp again]] }
    guest:stops "hlt"
    local first
    for _, space in ipairs { guest.vm.default, guest.view, guest.vm.default, guest.view } do
      guest.cpu:set_space(space)
      guest:stops "hlt"
      local now = {}
      for i = 8, 13 do now[#now + 1] = hex(guest.cpu["r" .. i]) end
      first = first or now
      assert.same(first, now)
    end
    assert.same({ "0x11111000", "0x22222000", "0x33333000", "0x44444000", "0xffff0ff2", "0x700" },
      first)
  end)

  it("of x87 and SSE, as ring 3 sees them", function()
    local load, store = {}, {}
    for i = 0, 15 do
      load[#load + 1] = ("movdqu xmm%d, [0x3000 + %d]"):format(i, 16 * i)
      store[#store + 1] = ("movdqu [0x4000 + %d], xmm%d"):format(16 * i, i)
    end
    local guest = with_view { mode = "user", source = ([[
      %s
      fninit
      fld1
      fldpi
      mov dword [0x3f00], 0x5f80
      ldmxcsr [0x3f00]
      mov word [0x3f08], 0x27f
      fldcw [0x3f08]
      out 0x10, al
      again:
      %s
      fxsave64 [0x5000]
      out 0x10, al
      jmp again]]):format(table.concat(load, "\n"), table.concat(store, "\n")) }
    local text = {}
    for i = 0, 255 do text[i + 1] = string.char((i * 7 + 3) % 256) end
    text = table.concat(text)
    guest.ram:write(0x3000, text)
    guest:stops "pio"
    guest.cpu:answer()
    for _, space in ipairs { guest.view, guest.vm.default, guest.view } do
      guest.cpu:set_space(space)
      guest.ram:fill(0, 0x4000, 0x1200)
      guest:stops "pio"
      guest.cpu:answer()
      assert.equal(text, guest.ram:read(0x4000, 256))
      assert.equal(0x27f, guest.ram:u16(0x5000))                  -- FCW
      assert.equal(0x5f80, guest.ram:u32(0x5018))                 -- MXCSR
      assert.equal("0xc90fdaa22168c235", hex(guest.ram:u64(0x5020))) -- pi
      assert.equal("0x8000000000000000", hex(guest.ram:u64(0x5030))) -- 1
      assert.equal(text, guest.ram:read(0x50a0, 256))
    end
  end)

  it("of SSE, as ring 0 sees them", function()
    local guest = with_view { mode = "long", source = [[
      movdqu xmm3, [0x3000]
      movdqu xmm12, [0x3010]
      hlt
      again:
      movdqu [0x4000], xmm3
      movdqu [0x4010], xmm12
      fxsave [0x5000]
      hlt
      jmp again]] }
    local text = "0123456789abcdefFEDCBA9876543210"
    guest.ram:write(0x3000, text)
    guest:stops "hlt"
    for _, space in ipairs { guest.view, guest.vm.default, guest.view } do
      guest.cpu:set_space(space)
      guest.ram:fill(0, 0x4000, 0x2000)
      guest:stops "hlt"
      assert.equal(text, guest.ram:read(0x4000, 32))
      assert.equal(text:sub(1, 16), guest.ram:read(0x50a0 + 3 * 16, 16))
    end
  end)

  it("of AVX, where the guest may use it", function()
    local guest = with_view { mode = "user", source = [[
      xor ecx, ecx
      xgetbv
      out 0x10, al
      vmovdqu ymm5, [0x3000]
      out 0x10, al
      again:
      vmovdqu [0x4000], ymm5
      out 0x10, al
      jmp again]] }
    guest.cpu.cr4 = u64.bor(guest.cpu.cr4, 0x40000) -- OSXSAVE
    local exit = assert(guest:run())
    if exit.kind ~= "pio" or exit.value % 8 ~= 7 then
      pending "XCR0 of a guest does not enable AVX here"
      return
    end
    guest.cpu:answer()
    guest.ram:write(0x3000, "0123456789abcdefFEDCBA9876543210")
    if guest:run().kind ~= "pio" then
      pending "the guest cannot use AVX here"
      return
    end
    guest.cpu:answer()
    for _, space in ipairs { guest.view, guest.vm.default } do
      guest.cpu:set_space(space)
      guest.ram:fill(0, 0x4000, 32)
      guest:stops "pio"
      guest.cpu:answer()
      assert.equal("0123456789abcdefFEDCBA9876543210", guest.ram:read(0x4000, 32))
    end
  end)
end)

-- ---- MSRs ----

local msrs = {
  { "STAR", 0xc0000081, "0x23001000000000" },
  { "LSTAR", 0xc0000082, "0xffff800012345678" },
  { "CSTAR", 0xc0000083, "0x7fff00001000" },
  { "SFMASK", 0xc0000084, "0x47700" },
  { "KERNEL_GS_BASE", 0xc0000102, "0x7fff12345000" },
  { "SYSENTER_CS", 0x174, "0x10" },
  { "SYSENTER_ESP", 0x175, "0x7ffff000" },
  { "SYSENTER_EIP", 0x176, "0x1234567" },
  { "PAT", 0x277, "0x7040600070406" },
  { "TSC_AUX", 0xc0000103, "0x17" },
  { "MTRR_PHYSBASE0", 0x200, "0x80000006" },
  { "MTRR_PHYSMASK0", 0x201, "0x3f80000800" },
}

-- Writes the MSRs of a list at 0x3000 (number, low, high; until a number 0), and stores them at
-- 0x4000 over and over.
local msr_source = [[
  mov esi, 0x3000
  next:
  mov ecx, [rsi]
  jrcxz written
  mov eax, [rsi + 4]
  mov edx, [rsi + 8]
  wrmsr
  add esi, 12
  jmp next
  written:
  hlt
  mov esi, 0x3000
  mov edi, 0x4000
  more:
  mov ecx, [rsi]
  jrcxz written
  rdmsr
  mov [rdi], eax
  mov [rdi + 4], edx
  add esi, 12
  add edi, 8
  jmp more]]

local function msr_list(ram, list)
  for i, msr in ipairs(list) do
    local at = 0x3000 + 12 * (i - 1)
    ram:u32(at, msr[2])
    ram:u64(at + 4, u64(msr[3]))
    ram:u32(at + 12, 0)
  end
end

-- Which of them a guest can write here.
local function writable(list)
  local found = {}
  for _, msr in ipairs(list) do
    local guest = helper.guest { mode = "long", source = msr_source }
    msr_list(guest.ram, { msr })
    if guest:run().kind == "hlt" then
      guest:stops "hlt"
      if hex(guest.ram:u64(0x4000)) == msr[3] then found[#found + 1] = msr end
    end
    guest.vm:close()
    guest.ram:close()
  end
  return found
end

local function stored(ram, list)
  local values = {}
  for i, msr in ipairs(list) do values[msr[1]] = hex(ram:u64(0x4000 + 8 * (i - 1))) end
  return values
end

local function wanted(list)
  local values = {}
  for _, msr in ipairs(list) do values[msr[1]] = msr[3] end
  return values
end

helper.kvm("a move keeps the MSRs", function()
  it("that the guest wrote, both ways", function()
    local list = writable(msrs)
    assert.truthy(#list >= 8, "only " .. #list .. " can be written")
    local guest = with_view { mode = "long", source = msr_source }
    msr_list(guest.ram, list)
    guest:stops "hlt"
    for _, space in ipairs { guest.view, guest.vm.default, guest.view } do
      guest.cpu:set_space(space)
      guest.ram:fill(0, 0x4000, 0x1000)
      guest:stops "hlt"
      assert.same(wanted(list), stored(guest.ram, list))
    end
  end)

  it("that it wrote in the other space", function()
    local list = { { "LSTAR", 0xc0000082, "0x1000" }, { "PAT", 0x277, "0x7040600070400" } }
    local guest = with_view { mode = "long", source = msr_source }
    msr_list(guest.ram, list)
    guest:stops "hlt"
    guest.cpu:set_space(guest.view)
    guest:stops "hlt"
    list[1][3], list[2][3] = "0x2000", "0x7040600070406"
    msr_list(guest.ram, list)
    guest.cpu.rip = 0x1000
    guest:stops "hlt"
    guest.cpu:set_space(0)
    guest:stops "hlt"
    assert.same(wanted(list), stored(guest.ram, list))
  end)
end)

-- ---- Time ----

helper.kvm("the time-stamp counter", function()
  local tick = "again: rdtsc\n shl rdx, 32\n or rax, rdx\n out 0x10, al\n jmp again"

  local function read(guest)
    guest:stops "pio"
    guest.cpu:answer()
    return u64.tonumber(guest.cpu.rax)
  end

  for _, mode in ipairs { "long", "user" } do
    it("goes on over moves in mode " .. mode, function()
      local guest = with_view { mode = mode, source = tick }
      read(guest)
      local began, clock = read(guest), luna.clock()
      local deadline = clock + 0.05
      while luna.clock() < deadline do read(guest) end
      local rate = (read(guest) - began) / (luna.clock() - clock)
      local last
      began, clock = read(guest), luna.clock()
      last = began
      for i = 1, 60 do
        guest.cpu:set_space(i % 2 == 1 and guest.view or 0)
        local now = read(guest)
        assert.truthy(now > last, ("%.0f after %.0f"):format(now, last))
        last = now
      end
      local moved = (last - began) / (luna.clock() - clock)
      assert.truthy(moved > rate * 0.5 and moved < rate * 2,
        ("%.0f Hz with moves, %.0f Hz without"):format(moved, rate))
    end)
  end

  it("goes with the vCPU when the guest has set it", function()
    local guest = with_view { mode = "long", source = [[
      again:
      rdtsc
      shl rdx, 32
      or rax, rdx
      hlt
      mov ecx, 0x10
      mov edx, 0x100000
      xor eax, eax
      wrmsr
      jmp again]] }
    guest:stops "hlt"
    guest.cpu:set_space(guest.view)
    guest:stops "hlt"
    local set = u64.tonumber(guest.cpu.rax)
    if set < 2 ^ 52 then
      pending "a guest cannot set its time-stamp counter here"
      return
    end
    guest.cpu.rip = 0x1000
    guest.cpu:set_space(0)
    guest:stops "hlt"
    local now = u64.tonumber(guest.cpu.rax)
    assert.truthy(now > set and now < set + 2 ^ 36, ("%.0f after %.0f"):format(now, set))
  end)
end)

-- ---- Groups that are left behind ----

helper.kvm("a move without a group", function()
  local source = [[
    load:
    movdqu xmm7, [0x3000]
    mov ecx, 0xc0000082
    mov eax, [0x3010]
    xor edx, edx
    wrmsr
    mov rax, [0x3018]
    mov dr1, rax
    hlt
    store:
    movdqu [0x4000], xmm7
    mov ecx, 0xc0000082
    rdmsr
    mov [0x4010], eax
    mov rax, dr1
    mov [0x4018], rax
    hlt]]

  local function load(guest, text, lstar, dr1)
    guest.ram:write(0x3000, text)
    guest.ram:u32(0x3010, lstar)
    guest.ram:u64(0x3018, dr1)
    guest.cpu.rip = 0x1000
    guest:stops "hlt"
  end

  local function stores(guest)
    guest:stops "hlt"
    return { guest.ram:read(0x4000, 16), guest.ram:u32(0x4010), hex(guest.ram:u64(0x4018)) }
  end

  local one, other = ("1"):rep(16), ("2"):rep(16)

  local function prepared()
    local guest = with_view { mode = "long", source = source }
    load(guest, one, 0x1000, 0x11000)
    guest.cpu:set_space(guest.view) -- the first move takes everything
    load(guest, other, 0x2000, 0x22000)
    return guest
  end

  it("leaves nothing behind by default", function()
    local guest = prepared()
    guest.cpu:set_space(0)
    assert.same({ other, 0x2000, "0x22000" }, stores(guest))
  end)

  it("fpu = false leaves SSE behind", function()
    local guest = prepared()
    guest.cpu:set_space(0, { fpu = false })
    assert.same({ one, 0x2000, "0x22000" }, stores(guest))
  end)

  it("msrs = false leaves MSRs and debug registers behind", function()
    local guest = prepared()
    guest.cpu:set_space(0, { msrs = false })
    assert.same({ other, 0x1000, "0x11000" }, stores(guest))
  end)

  it("takes it after all the first time", function()
    local guest = with_view { mode = "long", source = source }
    load(guest, one, 0x1000, 0x11000)
    guest.cpu:set_space(guest.view, { fpu = false, msrs = false })
    assert.same({ one, 0x1000, "0x11000" }, stores(guest))
  end)

  it("takes it the first time of a vCPU with a number that was used before", function()
    local guest = prepared()
    guest.cpu:close()
    guest.cpu = helper.keep(guest.vm:vcpu { mode = "long", rip = 0x1000, rsp = 0x8000 })
    load(guest, ("3"):rep(16), 0x3000, 0x33000)
    if not guest.view:find(guest.cpu.system) then -- the test below is about that
      assert(guest.view:map(guest.vm.default:find(guest.cpu.system).buffer
        or helper.keep(luna.buffer "64K"), guest.cpu.system))
      guest.view:write(guest.cpu.system, guest.vm.default:read(guest.cpu.system, 0x10000))
    end
    guest.cpu:set_space(guest.view, { fpu = false, msrs = false })
    assert.same({ ("3"):rep(16), 0x3000, "0x33000" }, stores(guest))
  end)

  it("refuses other options", function()
    local guest = with_view { mode = "long", source = "hlt" }
    raises("cpu:set_space: unknown option 'xmm'; the options are fpu, msrs",
      function() guest.cpu:set_space(guest.view, { xmm = false }) end)
    assert.equal(0, guest.cpu.space.id)
  end)
end)

-- ---- Moves with an instruction under way ----

helper.kvm("a move from a handler", function()
  it("of a port write lets the instruction end and the next be of the new space", function()
    local guest = helper.guest { mode = "protected", source = [[
      out 0x10, al
      mov al, [0x200000]
      hlt]] }
    local view = assert(guest.vm:space())
    local old, new = helper.keep(luna.buffer "4K"), helper.keep(luna.buffer "4K")
    old:u8(0, 1)
    new:u8(0, 2)
    assert(view:map(guest.ram, 0))
    assert(guest.vm.default:map(old, 0x200000))
    assert(view:map(new, 0x200000))
    guest.vm:pio(0x10, 1, { write = function() guest.cpu:set_space(view) end })
    guest:stops "hlt"
    assert.equal("0x2", hex(guest.cpu.rax))
    assert.equal(view, guest.cpu.space)
  end)

  it("of a port read gives the value to the guest", function()
    local guest = with_view { mode = "protected", source = "in eax, 0x10\n mov ebx, eax\n hlt" }
    guest.vm:pio(0x10, 4, { read = function()
      guest.cpu:set_space(guest.view)
      return 0x12345678
    end })
    guest:stops "hlt"
    assert.same({ "0x12345678", 1 }, { hex(guest.cpu.rbx), guest.cpu.space.id })
  end)

  it("of rep insb lets all elements arrive in the old space", function()
    local guest = helper.guest { mode = "protected", source = [[
      mov edi, 0x200000
      mov ecx, 5
      mov dx, 0x10
      rep insb
      mov al, [0x200000]
      hlt]] }
    local view = assert(guest.vm:space())
    local old, new = helper.keep(luna.buffer "4K"), helper.keep(luna.buffer "4K")
    assert(view:map(guest.ram, 0))
    assert(guest.vm.default:map(old, 0x200000))
    assert(view:map(new, 0x200000))
    new:u8(0, 0x77)
    local n = 0
    guest.vm:pio(0x10, 1, { read = function()
      n = n + 1
      if n == 5 then guest.cpu:set_space(view) end
      return 0x40 + n
    end })
    guest:stops "hlt"
    assert.equal("ABCDE", old:read(0, 5))
    assert.equal("0x77", hex(u64.band(guest.cpu.rax, 0xff)))
  end)

  it("of a memory read gives the value and then shows the new space", function()
    local guest = helper.guest { mode = "protected", source = [[
      mov eax, [0xd0000004]
      mov ebx, [0xd0000004]
      hlt]] }
    local view = assert(guest.vm:space())
    local new = helper.keep(luna.buffer "4K")
    new:u32(4, 0x55667788)
    assert(view:map(guest.ram, 0))
    assert(view:map(new, BASE))
    local reads = 0
    guest.vm:mmio(BASE, 0x1000, { read = function()
      reads = reads + 1
      guest.cpu:set_space(view)
      return 0x11223344
    end })
    guest:stops "hlt"
    assert.same({ "0x11223344", "0x55667788", 1 },
      { hex(guest.cpu.rax), hex(guest.cpu.rbx), reads })
  end)

  it("between the halves of a MOVDQU leaves the second half in the old space", function()
    local guest = with_view { mode = "long", source = [[
      movdqu xmm1, [rbx]
      movdqu [0x3000], xmm1
      movdqu [rbx], xmm1
      hlt]] }
    guest.cpu.rbx = BASE
    local shadow = helper.keep(luna.buffer "4K")
    shadow:fill(0xee)
    assert(guest.view:map(shadow, BASE))
    local log = {}
    guest.vm:mmio(BASE, 0x1000, { read = function(_, offset, size)
      log[#log + 1] = ("r %d %d"):format(offset, size)
      if offset == 0 then guest.cpu:set_space(guest.view) end
      return offset == 0 and u64 "0x3837363534333231" or u64 "0x6867666564636261"
    end })
    guest:stops "hlt"
    assert.same({ "r 0 8", "r 8 8" }, log)
    assert.equal("12345678abcdefgh", guest.ram:read(0x3000, 16))
    -- The write is of the new space: memory.
    assert.equal("12345678abcdefgh", shadow:read(0, 16))
  end)

  it("between the halves of a MOVDQU write, too", function()
    local guest = with_view { mode = "long", source = [[
      movdqu [rbx], xmm1
      movdqu [rbx], xmm1
      hlt]] }
    guest.cpu.rbx = BASE
    local shadow = helper.keep(luna.buffer "4K")
    shadow:fill(0xee)
    assert(guest.view:map(shadow, BASE))
    local device = helper.recorder()
    local write = device.write
    function device.write(...)
      write(...)
      guest.cpu:set_space(guest.view)
    end
    guest.vm:mmio(BASE, 0x1000, device)
    guest:stops "hlt"
    assert.same({ "w 0 8 0x0", "w 8 8 0x0" }, device.log)
    assert.equal(("\0"):rep(16) .. ("\xee"):rep(16), shadow:read(0, 32))
  end)

  it("asks the fault handlers of the old space until the instruction ends", function()
    local guest = with_view { mode = "long", source = "movdqu xmm1, [rbx]\n mov al, [rbx]\n hlt" }
    guest.cpu.rbx = BASE
    local log = {}
    guest.vm.default:on_fault(BASE, 0x1000, function(cpu, fault)
      log[#log + 1] = ("old %x"):format(fault.gpa - BASE)
      cpu:set_space(guest.view)
      return "skip"
    end)
    guest.view:on_fault(BASE, 0x1000, function(_, fault)
      log[#log + 1] = ("new %x"):format(fault.gpa - BASE)
      return "skip"
    end)
    guest:stops "hlt"
    assert.same({ "old 0", "old 8", "new 0" }, log)
  end)

  it("may be taken back before it happens", function()
    local guest = with_view { mode = "protected", source = "out 0x10, al\n hlt" }
    guest.vm:pio(0x10, 1, { write = function()
      guest.cpu:set_space(guest.view)
      assert.equal(guest.view, guest.cpu.space)
      guest.cpu:set_space(0)
    end })
    guest:stops "hlt"
    assert.equal(0, guest.cpu.space.id)
    assert.is_true(guest.view:close())
  end)

  it("keeps what an instruction read into a system register", function()
    local guest = with_view { mode = "long", source = "mov es, [rbx]\n mov eax, es\n hlt" }
    guest.cpu.rbx = BASE
    guest.vm:mmio(BASE, 0x1000, { read = function()
      assert.equal("0x10", hex(guest.cpu.es.selector))
      guest.cpu:set_space(guest.view)
      return 0x1b
    end })
    guest:stops "hlt"
    assert.same({ "0x1b", "0x1b" }, { hex(guest.cpu.rax), hex(guest.cpu.es.selector) })
  end)

  it("with retry does the access in the new space", function()
    local guest = helper.guest { mode = "protected", source = [[
      mov eax, [0x200000]
      mov ebx, [0x200000]
      hlt]] }
    local view, extra = assert(guest.vm:space()), helper.keep(luna.buffer "4K")
    extra:u32(0, 0xabcdef01)
    assert(view:map(guest.ram, 0))
    assert(view:map(extra, 0x200000))
    local faults = 0
    guest.cpu:on("fault", function(cpu)
      faults = faults + 1
      cpu:set_space(view)
      return "retry"
    end)
    guest:stops "hlt"
    assert.same({ "0xabcdef01", "0xabcdef01", 1 },
      { hex(guest.cpu.rax), hex(guest.cpu.rbx), faults })
  end)
end)

-- ---- What is refused ----

helper.kvm("a move is refused", function()
  it("to a space that is not there", function()
    local guest = with_view { mode = "protected", source = "hlt" }
    local other = helper.keep(luna.vm())
    raises("there is no space 7 in this VM", function() guest.cpu:set_space(7) end)
    raises("cpu:set_space: the space belongs to another VM",
      function() guest.cpu:set_space(other.default) end)
    raises("cpu:set_space: space: a whole number from 0", function() guest.cpu:set_space(-1) end)
    raises("cpu:set_space: space: a whole number from 0", function() guest.cpu:set_space() end)
    assert.is_true(guest.view:close())
    raises("there is no space 1 in this VM", function() guest.cpu:set_space(1) end)
    raises("attempt to use a closed space", function() guest.cpu:set_space(guest.view) end)
    assert.equal(0, guest.cpu.space.id)
    guest:stops "hlt"
  end)

  it("to a closed space whose number another one has", function()
    local guest = with_view { mode = "protected", source = "hlt" }
    assert.is_true(guest.view:close())
    assert.equal(1, guest.vm:space().id)
    raises("attempt to use a closed space", function() guest.cpu:set_space(guest.view) end)
    raises("attempt to use a closed space", function()
      guest.vm:map_space(guest.view, guest.ram, 0x8000, 0, 0x1000, "rwx")
    end)
    assert.equal(0, guest.cpu.space.id)
  end)

  it("by a closed vCPU", function()
    local guest = with_view { mode = "protected", source = "hlt" }
    guest.cpu:close()
    raises("attempt to use a closed vcpu", function() guest.cpu:set_space(0) end)
  end)
end)

helper.kvm("a space", function()
  it("is busy while a vCPU is in it or about to move to it", function()
    local guest = with_view { mode = "protected", source = "out 0x10, al\n hlt" }
    local text = "cannot destroy space 1: 1 vCPU is in it; move it to another space first"
    local seen
    guest.vm:pio(0x10, 1, { write = function()
      guest.cpu:set_space(guest.view)
      seen = { guest.view:close() }
    end })
    guest:stops "hlt"
    assert.equal("busy", seen[3])
    helper.contains(text, seen[2])
    helper.refused("busy", text, guest.view:close())
    guest.cpu:set_space(0)
    assert.is_true(guest.view:close())
    assert.is_true(guest.view:close())
    raises("attempt to use a closed space", function() guest.view:map(guest.ram, 0) end)
  end)

  it("is free when its vCPU is closed", function()
    local guest = with_view { mode = "protected", source = "hlt" }
    guest.cpu:set_space(guest.view)
    guest:stops "hlt"
    guest.cpu:close()
    assert.is_true(guest.view:close())
    assert.equal(1, luna.live().space)
  end)

  it("0 lives as long as its VM", function()
    local vm = helper.keep(luna.vm())
    raises("cannot destroy space 0: it is the VM's default space",
      function() vm.default:close() end)
  end)

  it("has the lowest number that is free", function()
    local vm = helper.keep(luna.vm())
    local one, two, three = vm:space(), vm:space(), vm:space()
    assert.same({ 1, 2, 3 }, { one.id, two.id, three.id })
    one:close()
    three:close()
    assert.equal(1, vm:space().id)
    assert.equal(3, vm:space().id)
    assert.equal(4, vm:space().id)
    two:close()
    assert.equal(2, vm:space().id)
  end)

  it("begins empty when its number was used before", function()
    local guest = with_view { mode = "protected", source = "mov al, [0x3000]\n hlt" }
    guest.cpu:set_space(guest.view)
    guest:stops "hlt"
    guest.cpu:set_space(0)
    assert(guest.view:close())
    local again = guest.vm:space()
    assert.equal(1, again.id)
    assert.same({}, again:regions())
    guest.cpu.rip = 0x1000
    guest.cpu:set_space(again)
    assert.same({ 0x1000, "x" }, { guest:stops("fault").gpa, guest.cpu:run().access })
  end)
end)

-- ---- Numbers that are used again ----

helper.kvm("a vCPU with a number that was used before", function()
  local list = { msrs[1], msrs[2], msrs[4], msrs[5], msrs[6], msrs[7], msrs[8], msrs[9] }

  local dirt = [[
    movdqu xmm2, [0x5000]
    mov eax, 0x12345000
    mov dr0, rax
    mov dr3, rax
    mov eax, 0x700
    mov dr7, rax
    fninit
    jmp 0x1100]]
  local look = [[
    movdqu [0x5100], xmm2
    mov rax, dr0
    mov [0x5110], rax
    mov rax, dr3
    mov [0x5118], rax
    mov rax, dr6
    mov [0x5120], rax
    mov rax, dr7
    mov [0x5128], rax
    fxsave [0x5200]
    jmp 0x1100 + entry]]

  -- Everything that a vCPU in long mode begins with, as text.
  local function picture(vm, ram, cpu, entry)
    ram:fill(0, 0x4000, 0x2000)
    local parts = {}
    for name, register in pairs(cpu:regs()) do parts[#parts + 1] = name .. " " .. hex(register) end
    for _, name in ipairs { "cs", "ds", "es", "fs", "gs", "ss", "tr", "ldtr", "gdtr", "idtr" } do
      parts[#parts + 1] = tostring(cpu[name])
    end
    ram:write(0x1000, helper.code("entry equ " .. entry .. "\n" .. look, 64, 0x1000))
    assert.equal("hlt", cpu:run({ timeout = 10 }).kind)
    for name, text in pairs(stored(ram, list)) do parts[#parts + 1] = name .. " " .. text end
    parts[#parts + 1] = (ram:read(0x5100, 0x300):gsub(".", function(c)
      return ("%02x"):format(c:byte())
    end))
    table.sort(parts)
    assert(vm)
    return table.concat(parts, "\n")
  end

  for _, where in ipairs { "space 0", "another space" } do
    it("is as a new VM's first, after one that was in " .. where, function()
      local vm = helper.keep(luna.vm())
      local ram = helper.keep(luna.buffer "1M")
      assert(vm:map_space(0, ram, 0, ram.size, "rwx"))
      local view = assert(vm:space())
      assert(view:map(ram, 0))
      local code = helper.code(msr_source, 64, 0x1100)
      local entry = code:find("\xf4", 1, true) -- behind the hlt
      ram:write(0x1100, code)
      msr_list(ram, list)
      local fresh = helper.keep(vm:vcpu { mode = "long", rip = 0x1000, rsp = 0x8000 })
      local expected = picture(vm, ram, fresh, entry)
      ram:write(0x1000, helper.code(dirt, 64, 0x1000))
      ram:fill(0x5a, 0x5000, 16)
      if where ~= "space 0" then fresh:set_space(view) end
      fresh.rip = 0x1000
      for i, name in ipairs(general) do fresh[name] = value(i, 5) end
      fresh.rsp, fresh.cr8, fresh.cr2 = 0x7000, 7, 0x123
      fresh.fs.base, fresh.fs.selector = 0x7000, 0x33
      assert.equal("hlt", fresh:run({ timeout = 10 }).kind)
      local dirty = picture(vm, ram, fresh, entry)
      assert.not_equal(expected, dirty)
      fresh:close()
      local again = helper.keep(vm:vcpu { mode = "long", rip = 0x1000, rsp = 0x8000 })
      assert.equal(0, again.id)
      assert.equal(0, again.space.id)
      assert.equal(expected, picture(vm, ram, again, entry))
    end)
  end

  it("can be made where the last one set its time-stamp counter", function()
    local guest = with_view { mode = "long", source = [[
      mov ecx, 0x10
      xor eax, eax
      mov edx, 0x100000
      wrmsr
      mov ecx, 0x3b
      mov edx, 0x1000
      wrmsr
      hlt]] }
    assert.equal("hlt", guest:run().kind)
    guest.cpu:close()
    local again = helper.keep(guest.vm:vcpu { mode = "long", rip = 0x1000, rsp = 0x8000 })
    assert.equal(0, again.id)
    assert.equal("hlt", again:run({ timeout = 10 }).kind)
  end)

  it("moves with its system area to a space where the last one was", function()
    local guest = with_view { mode = "long", source = "nop\n hlt" }
    guest.cpu:set_space(guest.view)
    guest:stops "hlt"
    guest.cpu:close()
    guest.cpu = helper.keep(guest.vm:vcpu { mode = "long", rip = 0x1000, rsp = 0x8000 })
    guest.cpu:set_space(guest.view)
    assert.equal("hlt", guest:run().kind)
  end)

  it("is the lowest that is free", function()
    local vm = helper.keep(luna.vm())
    local one, two, three = vm:vcpu(), vm:vcpu(), vm:vcpu()
    assert.same({ 0, 1, 2 }, { one.id, two.id, three.id })
    two:close()
    assert.equal(1, vm:vcpu().id)
    one:close()
    assert.equal(0, vm:vcpu().id)
    assert.equal(3, vm:vcpu().id)
  end)

  it("does not go on with what the last one had under way", function()
    local guest = helper.guest { mode = "protected", source = "in al, 0x10\n hlt" }
    guest:stops "pio"
    guest.cpu:close()
    guest.ram:write(0x1000, "\xf4")
    local again = helper.keep(guest.vm:vcpu { mode = "protected", rip = 0x1000, rsp = 0x8000 })
    again.rax = 0x1122
    assert.equal("hlt", again:run({ timeout = 10 }).kind)
    assert.same({ "0x1001", "0x1122" }, { hex(again.rip), hex(again.rax) })
  end)
end)

-- ---- Several vCPUs, exceptions ----

helper.kvm("two vCPUs", function()
  it("are in spaces of their own", function()
    local guest = helper.guest { mode = "protected", source = [[
      again:
      mov eax, [0x200000]
      inc dword [0x200000]
      hlt
      jmp again]] }
    local view = assert(guest.vm:space())
    local one, two = helper.keep(luna.buffer "4K"), helper.keep(luna.buffer "4K")
    one:u32(0, 100)
    two:u32(0, 200)
    assert(view:map(guest.ram, 0))
    assert(guest.vm.default:map(one, 0x200000))
    assert(view:map(two, 0x200000))
    local other = helper.keep(guest.vm:vcpu { mode = "protected", rip = 0x1000, rsp = 0x7000 })
    other:set_space(view)
    for i = 0, 2 do
      guest:stops "hlt"
      assert.equal("hlt", other:run({ timeout = 10 }).kind)
      assert.equal(hex(100 + i), hex(guest.cpu.rax))
      assert.equal(hex(200 + i), hex(other.rax))
    end
    guest.cpu:set_space(view)
    other:set_space(0)
    guest:stops "hlt"
    assert.equal("hlt", other:run({ timeout = 10 }).kind)
    assert.same({ hex(203), hex(103) }, { hex(guest.cpu.rax), hex(other.rax) })
    assert.same({ 1, 0 }, { guest.cpu.space.id, other.space.id })
  end)
end)

helper.kvm("the system area", function()
  for _, mode in ipairs { "protected", "long", "user" } do
    it("follows in mode " .. mode .. ", so that exceptions can be read", function()
      local guest = with_view { mode = mode, source = "again: ud2\n jmp again" }
      for _, space in ipairs { guest.view, guest.vm.default, guest.view } do
        guest.cpu:set_space(space)
        guest.cpu.rip = 0x1000
        local exit = guest:stops "exception"
        assert.same({ "#UD", "0x1000" }, { exit.name, hex(exit.rip) })
        assert.equal(guest.cpu.system, space:find(guest.cpu.system).gpa)
      end
      guest.cpu:close()
      assert.is_nil(guest.view:find(0xfebf0000))
      assert.is_nil(guest.vm.default:find(0xfebf0000))
    end)
  end

  it("stays away from what is mapped there", function()
    local guest = with_view { mode = "protected", source = "hlt" }
    local mine = helper.keep(luna.buffer "4K")
    assert(guest.view:map(mine, guest.cpu.system + 0x3000))
    guest.cpu:set_space(guest.view)
    guest:stops "hlt"
    assert.equal(mine, guest.view:find(guest.cpu.system + 0x3000).buffer)
    assert.is_nil(guest.view:find(guest.cpu.system))
    guest.cpu:close()
    assert.equal(2, #guest.view:regions())
  end)

  it("goes with its vCPU in pieces, too", function()
    local guest = with_view { mode = "long", source = "hlt" }
    guest:stops "hlt"
    assert(guest.vm.default:protect(guest.cpu.system + 0xe000, 0x1000, "r-x"))
    guest.cpu:close()
    assert.equal(1, #guest.vm.default:regions())
  end)
end)

helper.kvm("an injected exception", function()
  it("goes along when the vCPU moves", function()
    local guest = with_view { mode = "user", source = "nop\n out 0x10, al" }
    guest.cpu:inject("#GP", 0x58)
    guest.cpu:set_space(guest.view)
    local exit = guest:stops "exception"
    assert.same({ "#GP", 0x58, "0x1000", 1 },
      { exit.name, exit.error_code, hex(exit.rip), guest.cpu.space.id })
    guest:stops "pio"
  end)

  it("goes along there and back, with its address", function()
    local guest = with_view { mode = "long", source = "nop\n hlt" }
    guest.cpu:inject("#PF", 2, u64 "0x7000123456")
    guest.cpu:set_space(guest.view)
    guest.cpu:set_space(0)
    local exit = guest:stops "exception"
    assert.same({ "#PF", 2, "0x7000123456" }, { exit.name, exit.error_code, hex(exit.address) })
    guest:stops "hlt"
  end)

  it("takes an open read back and arrives in the new space", function()
    local guest = with_view { mode = "user", source = "mov rax, [0x200000]\n out 0x10, al" }
    guest.cpu.rax = 0x1234
    guest.cpu:on("fault", function(cpu)
      cpu:set_space(guest.view)
      return { inject = "#PF", error_code = 4, address = 0x200000 }
    end)
    local exit = guest:stops "exception"
    assert.same({ "#PF", 4, "0x200000", "0x1000", "0x1234", 1 }, { exit.name, exit.error_code,
      hex(exit.address), hex(exit.rip), hex(guest.cpu.rax), guest.cpu.space.id })
  end)
end)
