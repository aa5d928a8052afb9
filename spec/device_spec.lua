-- SPDX-License-Identifier: MIT
-- Devices: what their functions get, what they may do and answer, and how their mistakes look.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local contains, fails, hex = helper.contains, helper.fails, luna.hex

local BASE = 0xd0000000

helper.kvm("a device", function()
  it("gets itself, the offset from its first port, the size and the value", function()
    local guest = helper.guest { source = "mov dx, 0x1007\n out dx, ax\n in al, dx\n hlt" }
    guest.cpu.rax = 0xbeef
    local device = {}
    local got = {}
    function device.write(...) got.write = { n = select("#", ...), ... } end
    function device.read(...)
      got.read = { n = select("#", ...), ... }
      return 1
    end
    guest.vm:pio(0x1000, 16, device)
    guest:stops "hlt"
    assert.equal(device, got.write[1])
    assert.same({ 7, 2, 0xbeef, n = 4 }, { got.write[2], got.write[3], got.write[4],
      n = got.write.n })
    assert.equal(device, got.read[1])
    assert.same({ 7, 1, n = 3 }, { got.read[2], got.read[3], n = got.read.n })
  end)

  it("may be anything that can be called", function()
    local guest = helper.guest { source = "in al, 0x10\n hlt" }
    guest.vm:pio(0x10, 1, {
      read = setmetatable({}, { __call = function(_, _, offset) return 0x40 + offset end }),
    })
    guest:stops "hlt"
    assert.equal("0x40", hex(guest.cpu.rax))
  end)

  it("may find its functions in a class", function()
    local guest = helper.guest { source = "out 0x10, al\n hlt" }
    local class = { __index = { write = function(self, _, _, value) self.value = value end } }
    local device = setmetatable({}, class)
    guest.vm:pio(0x10, 1, device)
    guest.cpu.rax = 5
    guest:stops "hlt"
    assert.equal(5, device.value)
  end)

  it("can have its functions replaced between runs", function()
    local guest = helper.guest { source = "again: out 0x10, al\n hlt\n jmp again" }
    local calls = {}
    local device = { write = function() calls[#calls + 1] = "first" end }
    guest.vm:pio(0x10, 1, device)
    guest:stops "hlt"
    function device.write() calls[#calls + 1] = "second" end
    guest:stops "hlt"
    assert.same({ "first", "second" }, calls)
  end)

  it("shares a VM with others, each with its own offsets", function()
    local guest = helper.guest { source = [[
      out 0x10, al
      out 0x13, al
      out 0x14, al
      out 0x1f, al
      out 0x10, al
      hlt]] }
    local one, other = helper.recorder(), helper.recorder()
    guest.vm:pio(0x10, 4, one)
    guest.vm:pio(0x14, 12, other)
    guest:stops "hlt"
    assert.same({ "w 0 1 0x0", "w 3 1 0x0", "w 0 1 0x0" }, one.log)
    assert.same({ "w 0 1 0x0", "w b 1 0x0" }, other.log)
  end)

  it("on addresses comes after memory", function()
    local guest = helper.guest { mode = "long", source = [[
      mov ebx, 0xd0000000
      again:
      mov [rbx], cl
      mov al, [rbx]
      inc ecx
      hlt
      jmp again]] }
    local device = helper.recorder { 0x77, 0x78 }
    guest.vm:mmio(BASE, 0x1000, device)
    guest:stops "hlt"
    assert.same({ "w 0 1 0x0", "r 0 1" }, device.log)
    local memory = helper.keep(luna.buffer "4K")
    assert(guest.vm:map_space(0, memory, 0, BASE, 0x1000, "rwx"))
    guest:stops "hlt"
    assert.equal(1, memory:u8(0))
    assert.equal("0x1", hex(guest.cpu.rax))
    assert.equal(2, #device.log)
    assert(guest.vm:unmap_space(0, BASE, 0x1000))
    guest:stops "hlt"
    assert.same({ "w 0 1 0x0", "r 0 1", "w 0 1 0x2", "r 0 1" }, device.log)
  end)

  it("gets the writes that read-only memory refuses", function()
    local guest = helper.guest { mode = "long", source = [[
      mov ebx, 0xd0000000
      mov byte [rbx + 5], 9
      mov al, [rbx + 5]
      hlt]] }
    local rom, device = helper.keep(luna.buffer "4K"), helper.recorder()
    rom:u8(5, 0x31)
    assert(guest.vm:map_space(0, rom, 0, BASE, 0x1000, "r-x"))
    guest.vm:mmio(BASE, 0x1000, device)
    guest:stops "hlt"
    assert.same({ "w 5 1 0x9" }, device.log)
    assert.equal("0x31", hex(guest.cpu.rax))
  end)
end)

helper.kvm("a handler", function()
  it("may map and unmap memory", function()
    local guest = helper.guest { mode = "long", source = [[
      mov ebx, 0xd0000000
      out 0x10, al
      mov byte [rbx], 7
      out 0x11, al
      mov byte [rbx], 8
      hlt]] }
    local memory = helper.keep(luna.buffer "4K")
    guest.vm:pio(0x10, 2, { write = function(_, offset)
      if offset == 0 then
        assert(guest.vm:map_space(0, memory, 0, BASE, 0x1000, "rwx"))
      else
        assert(guest.vm:unmap_space(0, BASE, 0x1000))
      end
    end })
    local exit = guest:stops "fault"
    assert.same({ BASE, 8 }, { exit.gpa, exit.value })
    assert.equal(7, memory:u8(0))
  end)

  it("may register a trap, which is there at once", function()
    local guest = helper.guest { source = "out 0x10, al\n out 0x11, al\n hlt" }
    local late = helper.recorder()
    guest.vm:pio(0x10, 1, { write = function() guest.vm:pio(0x11, 1, late) end })
    guest:stops "hlt"
    assert.same({ "w 0 1 0x0" }, late.log)
  end)

  it("may close its own trap", function()
    local guest = helper.guest { source = "out 0x10, al\n out 0x10, al\n hlt" }
    local trap, calls = nil, 0
    trap = guest.vm:pio(0x10, 1, { write = function()
      calls = calls + 1
      trap:close()
    end })
    assert.equal(0x10, guest:stops("pio").port)
    assert.equal(1, calls)
    guest.cpu:answer()
    guest:stops "hlt"
  end)

  it("may close its own trap in the middle of a string", function()
    local guest = helper.guest { mode = "user", source = [[
      mov esi, 0x2000
      mov ecx, 4
      mov edx, 0x10
      rep outsb
      out 0x11, al]] }
    guest.ram:write(0x2000, "abcd")
    local trap, got = nil, {}
    trap = guest.vm:pio(0x10, 1, { write = function(_, _, _, value)
      got[#got + 1] = string.char(value)
      if #got == 2 then trap:close() end
    end })
    local exit = guest:stops "pio"
    assert.same({ 0x10, ("c"):byte() }, { exit.port, exit.value })
    guest.cpu:answer()
    assert.equal(("d"):byte(), guest:stops("pio").value)
    guest.cpu:answer()
    assert.equal(0x11, guest:stops("pio").port)
    assert.same({ "a", "b" }, got)
  end)

  it("may give its range to another device", function()
    local guest = helper.guest { mode = "long", source = [[
      mov ebx, 0xd0000000
      mov [rbx + 8], al
      mov [rbx + 8], al
      hlt]] }
    local other, trap = helper.recorder(), nil
    trap = guest.vm:mmio(BASE, 0x10, { write = function()
      trap:close()
      guest.vm:mmio(BASE + 4, 8, other)
    end })
    guest:stops "hlt"
    assert.same({ "w 4 1 0x0" }, other.log)
  end)

  it("may write registers, which count as written after the instruction", function()
    local guest = helper.guest { source = [[
      out 0x10, al
      hlt
      elsewhere: mov cl, 9
      hlt]] }
    guest.vm:pio(0x10, 1, { write = function()
      guest.cpu.rip, guest.cpu.rbx = 0x1003, 0x55
    end })
    assert.equal("0x1006", hex(guest:stops("hlt").rip))
    assert.equal("0x9", hex(guest.cpu.rcx))
    assert.equal("0x55", hex(guest.cpu.rbx))
  end)

  it("may stop the run with a value", function()
    local guest = helper.guest { source = "out 0x10, al\n hlt" }
    local value = {}
    guest.vm:pio(0x10, 1, { write = function() guest.cpu:stop(value) end })
    local exit = guest:stops "stopped"
    assert.equal(value, exit.value)
    contains("stopped at rip 0x", tostring(exit))
    guest:stops "hlt" -- the write was done
  end)

  it("may not run the vCPU that it serves", function()
    local guest = helper.guest { source = "out 0x10, al\n hlt" }
    guest.vm:pio(0x10, 1, { write = function()
      helper.raises("cpu:run: this vCPU is running", function() guest.cpu:run() end)
    end })
    guest:stops "hlt"
  end)

  it("may run another vCPU", function()
    local guest = helper.guest { source = "in al, 0x10\n hlt" }
    local other = helper.guest { source = "mov cx, 0x21\n hlt" }
    guest.vm:pio(0x10, 1, { read = function()
      other:stops "hlt"
      return luna.u64.tonumber(other.cpu.rcx)
    end })
    guest:stops "hlt"
    assert.equal("0x21", hex(guest.cpu.rax))
  end)
end)

helper.kvm("an error in a handler", function()
  it("comes out of the run with its traceback, and the access stays open", function()
    local guest = helper.guest { source = "out 0x10, ax\n hlt" }
    guest.cpu.rax = 0x4321
    local line = debug.getinfo(1, "l").currentline + 1
    local device = { write = function() error "it burns" end }
    guest.vm:pio(0x10, 2, device)
    for _ = 1, 2 do
      local message = fails(guest)
      contains(("device_spec.lua:%d: it burns\nstack traceback:\n"):format(line), message)
      assert.matches(("\n%%s+[^\n]*device_spec.lua:%d:"):format(line), message)
      local _, tracebacks = message:gsub("stack traceback:", "")
      assert.equal(1, tracebacks)
    end
    local got
    function device.write(_, offset, size, value) got = { offset, size, value } end
    guest:stops "hlt"
    assert.same({ 0, 2, 0x4321 }, got)
  end)

  it("that is no text comes out as it is", function()
    local guest = helper.guest { source = "out 0x10, ax\n hlt" }
    local problem = {}
    guest.vm:pio(0x10, 2, { write = function() error(problem) end })
    assert.equal(problem, fails(guest))
  end)

  it("in the middle of a string delivers the same element again", function()
    local guest = helper.guest { mode = "user", source = [[
      mov esi, 0x2000
      mov ecx, 3
      mov edx, 0x10
      rep outsb
      out 0x11, al]] }
    guest.ram:write(0x2000, "abc")
    local got, broken = {}, true
    guest.vm:pio(0x10, 1, { write = function(_, _, _, value)
      if #got == 1 and broken then error "not now" end
      got[#got + 1] = string.char(value)
    end })
    contains("not now", fails(guest))
    broken = false
    guest:stops "pio"
    assert.same({ "a", "b", "c" }, got)
  end)

  it("in a handler of an exit kind leaves the exit open", function()
    local guest = helper.guest { mode = "long", source = "mov eax, [0x200000]\n hlt" }
    guest.cpu:on("fault", function() error "no idea" end)
    contains("no idea", fails(guest))
    guest.cpu:on("fault", function() return 12 end)
    guest:stops "hlt"
    assert.equal("0xc", hex(guest.cpu.rax))
  end)

  it("forgets what cpu:stop said before", function()
    local guest = helper.guest { source = "out 0x10, al\n hlt" }
    local broken = true
    guest.vm:pio(0x10, 1, { write = function()
      if not broken then return end
      guest.cpu:stop "because"
      error "after the stop"
    end })
    contains("after the stop", fails(guest))
    broken = false
    guest:stops "hlt"
  end)
end)

helper.kvm("a device without the function", function()
  it("for reads is an error that names it", function()
    local guest = helper.guest { source = "in al, 0x12\n hlt" }
    local device = setmetatable({ write = function() end }, { __tostring = function()
      return "the keyboard"
    end })
    guest.vm:pio(0x10, 4, device)
    contains("the guest reads at offset 0x2 of a device that has no read function (the keyboard)",
      fails(guest))
    function device.read() return 5 end
    guest:stops "hlt"
    assert.equal("0x5", hex(guest.cpu.rax))
  end)

  it("for writes is an error that names it", function()
    local guest = helper.guest { source = "out 0x10, al\n hlt" }
    guest.vm:pio(0x10, 4, { read = function() return 0 end })
    contains("the guest writes at offset 0x0 of a device that has no write function (table: 0x",
      fails(guest))
  end)
end)

helper.kvm("the value of a read", function()
  local bad = {
    { "nil", nil, "nil" },
    { "too large", 256, "0x100" },
    { "negative", -1, "0xffffffffffffffff" },
    { "fractional", 1.5, "1.5" },
    { "not a number", 0 / 0, "nan" },
    { "infinite", math.huge, "inf" },
    { "a string", "7", "7" },
    { "a table", {}, "table: 0x" },
    { "true", true, "true" },
    { "a large u64", luna.u64 "0x8000000000000000", "0x8000000000000000" },
  }
  for _, case in ipairs(bad) do
    local name, value, shown = case[1], case[2], case[3]
    it("is refused if it is " .. name, function()
      local guest = helper.guest { source = "in al, 0x13\n hlt" }
      guest.vm:pio(0x10, 4, { read = function() return value end })
      local message = fails(guest)
      contains("the device answered a read of 1 byte at offset 0x3 with ", message)
      contains(shown, message)
      contains(": an unsigned integer of that size expected", message)
      guest.vm:pio(0x80, 1, helper.recorder()) -- the VM is as usable as before
      contains("the device answered", fails(guest))
    end)
  end

  local sizes = {
    { "in al, dx", 0xff, 0x100 }, { "in ax, dx", 0xffff, 0x10000 },
    { "in eax, dx", 0xffffffff, 0x100000000 },
  }
  for i, case in ipairs(sizes) do
    local size = 2 ^ (i - 1)
    it(("has %d bytes for %q"):format(size, case[1]), function()
      local guest = helper.guest { source = "mov dx, 0x10\n" .. case[1] .. "\n hlt" }
      local value = case[3]
      guest.vm:pio(0x10, 4, { read = function() return value end })
      contains(("a read of %d byte%s at offset 0x0 with 0x%x"):format(size, size == 1 and "" or "s",
        case[3]), fails(guest))
      value = luna.u64(case[3])
      contains("unsigned integer of that size expected", fails(guest))
      value = luna.u64(case[2])
      guest:stops "hlt"
      assert.equal(hex(case[2]), hex(guest.cpu.rax))
    end)
  end

  it("of 8 bytes may be any 64-bit integer", function()
    local guest = helper.guest { mode = "long", source = [[
      mov ebx, 0xd0000000
      again: mov rax, [rbx]
      hlt
      jmp again]] }
    local value
    guest.vm:mmio(BASE, 8, { read = function() return value end })
    for _, case in ipairs { { 0, "0x0" }, { 2 ^ 53, "0x20000000000000" },
      { luna.u64 "0xfedcba9876543210", "0xfedcba9876543210" } } do
      value = case[1]
      guest:stops "hlt"
      assert.equal(case[2], hex(guest.cpu.rax))
    end
    value = 0.5
    contains("a read of 8 bytes at offset 0x0 with 0.5", fails(guest))
  end)
end)
