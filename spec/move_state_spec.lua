-- SPDX-License-Identifier: MIT
-- The state that a vCPU takes along when it moves: registers of all groups, MSRs and its time.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local state = require "spec.support.state"
local hex, u64 = luna.hex, luna.u64
local with_view = require("spec.support.spaces").with_view
local general, value = state.general, state.value
local msrs, msr_source, msr_list, stored =
  state.msrs, state.msr_source, state.msr_list, state.stored

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

  -- A value, and what the clock showed before and after the guest read it.
  local function sample(guest)
    local before = luna.clock()
    return { tsc = read(guest), before = before, after = luna.clock() }
  end

  -- The least and the greatest rate that two samples allow, however long this process had to wait.
  local function rates(first, last)
    local ticks = last.tsc - first.tsc
    return ticks / (last.after - first.before), ticks / (last.before - first.after)
  end

  for _, mode in ipairs { "long", "user" } do
    it("goes on over moves in mode " .. mode, function()
      local guest = with_view { mode = mode, source = tick }
      read(guest)
      local first = sample(guest)
      while luna.clock() < first.after + 0.05 do read(guest) end
      local slowest, fastest = rates(first, sample(guest))
      first = sample(guest)
      local last = first
      for i = 1, 60 do
        guest.cpu:set_space(i % 2 == 1 and guest.view or 0)
        local now = sample(guest)
        assert.truthy(now.tsc > last.tsc, ("%.0f after %.0f"):format(now.tsc, last.tsc))
        last = now
      end
      local low, high = rates(first, last)
      assert.truthy(high > slowest * 0.5 and low < fastest * 2,
        ("%.0f to %.0f Hz with moves, %.0f to %.0f Hz without"):format(low, high, slowest, fastest))
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
