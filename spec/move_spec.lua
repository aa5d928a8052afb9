-- SPDX-License-Identifier: MIT
-- Moving a vCPU between spaces: what may be left behind, what is under way ends where it began, and
-- what is refused.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local spaces = require "spec.support.spaces"
local raises, hex = helper.raises, luna.hex
local u64 = luna.u64
local with_view, with_pages = spaces.with_view, spaces.with_pages

local BASE = 0xd0000000

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
    if not guest.view:find(guest.cpu.system) then -- seat_spec.lua is about that
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
  -- A guest with BASE in rbx, where .view has a page. Returns that, too.
  local function shadowed(source)
    local guest = with_view { mode = "long", source = source }
    guest.cpu.rbx = BASE
    local shadow = helper.keep(luna.buffer "4K")
    shadow:fill(0xee)
    assert(guest.view:map(shadow, BASE))
    return guest, shadow
  end

  it("of a port write lets the instruction end and the next be of the new space", function()
    local guest, old, new = with_pages { mode = "protected", source = [[
      out 0x10, al
      mov al, [0x200000]
      hlt]] }
    old:u8(0, 1)
    new:u8(0, 2)
    guest.vm:pio(0x10, 1, { write = function() guest.cpu:set_space(guest.view) end })
    guest:stops "hlt"
    assert.equal("0x2", hex(guest.cpu.rax))
    assert.equal(guest.view, guest.cpu.space)
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
    local guest, old, new = with_pages { mode = "protected", source = [[
      mov edi, 0x200000
      mov ecx, 5
      mov dx, 0x10
      rep insb
      mov al, [0x200000]
      hlt]] }
    new:u8(0, 0x77)
    local n = 0
    guest.vm:pio(0x10, 1, { read = function()
      n = n + 1
      if n == 5 then guest.cpu:set_space(guest.view) end
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
    local guest, shadow = shadowed [[
      movdqu xmm1, [rbx]
      movdqu [0x3000], xmm1
      movdqu [rbx], xmm1
      hlt]]
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
    local guest, shadow = shadowed [[
      movdqu [rbx], xmm1
      movdqu [rbx], xmm1
      hlt]]
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

-- ---- Several vCPUs, system areas ----

helper.kvm("two vCPUs", function()
  it("are in spaces of their own", function()
    local guest, one, two = with_pages { mode = "protected", source = [[
      again:
      mov eax, [0x200000]
      inc dword [0x200000]
      hlt
      jmp again]] }
    one:u32(0, 100)
    two:u32(0, 200)
    local other = helper.keep(guest.vm:vcpu { mode = "protected", rip = 0x1000, rsp = 0x7000 })
    other:set_space(guest.view)
    for i = 0, 2 do
      guest:stops "hlt"
      assert.equal("hlt", other:run({ timeout = 60 }).kind)
      assert.equal(hex(100 + i), hex(guest.cpu.rax))
      assert.equal(hex(200 + i), hex(other.rax))
    end
    guest.cpu:set_space(guest.view)
    other:set_space(0)
    guest:stops "hlt"
    assert.equal("hlt", other:run({ timeout = 60 }).kind)
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
