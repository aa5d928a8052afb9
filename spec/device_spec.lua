-- SPDX-License-Identifier: MIT
-- Devices and exit handlers: what they get, what they may do and say, and how their mistakes look.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local contains, hex = helper.contains, luna.hex

local BASE = 0xd0000000

-- Runs a guest that must fail with an error; returns the message.
local function fails(guest)
  local ok, message = pcall(guest.run, guest)
  assert.is_false(ok, "no error")
  return message
end

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

helper.kvm("a handler that yields", function()
  local function suspended(source, device)
    local guest = helper.guest { source = source or "in al, 0x10\n hlt" }
    guest.vm:pio(0x10, 1, device or { read = function() return coroutine.yield "asked" end })
    local routine = coroutine.create(function() return guest:run() end)
    local ok, what = coroutine.resume(routine)
    assert.is_true(ok, what)
    assert.equal("asked", what)
    return guest, routine
  end

  it("goes on when its coroutine is resumed", function()
    local guest, routine = suspended()
    local ok, exit = coroutine.resume(routine, 0x66)
    assert.is_true(ok, exit)
    assert.equal("hlt", exit.kind)
    assert.equal("0x66", hex(guest.cpu.rax))
    assert.equal("dead", coroutine.status(routine))
  end)

  it("keeps the vCPU from being run by others", function()
    local guest, routine = suspended()
    helper.raises("its coroutine is suspended", function() guest.cpu:run() end)
    assert.is_true(coroutine.resume(routine, 1))
    guest.cpu.rip = 0x1000
    local again = coroutine.wrap(function() return guest:run() end)
    assert.equal("asked", again())
    assert.equal("hlt", again(2).kind)
  end)

  it("lets the vCPU go when its coroutine is collected", function()
    local guest, routine = suspended()
    assert.equal("suspended", coroutine.status(routine))
    routine = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    local ok, what = coroutine.resume(coroutine.create(function() return guest:run() end))
    assert.is_true(ok, what)
    assert.equal("asked", what) -- the access is still open
  end)

  it("yields from a handler of an exit kind too", function()
    local guest = helper.guest { source = "in al, 0x10\n hlt" }
    guest.cpu:on("pio", function(_, exit) return coroutine.yield(exit.port) end)
    local run = coroutine.wrap(function() return guest:run() end)
    assert.equal(0x10, run())
    assert.equal("hlt", run(0x31).kind)
    assert.equal("0x31", hex(guest.cpu.rax))
  end)

  it("serves two vCPUs in turns", function()
    local order, runs, guests = {}, {}, {}
    for i = 1, 2 do
      guests[i] = helper.guest { source = "mov cx, 3\n again: out 0x10, al\n loop again\n hlt" }
      guests[i].vm:pio(0x10, 1, { write = function()
        order[#order + 1] = i
        coroutine.yield()
      end })
      runs[i] = coroutine.wrap(function() return guests[i]:run() end)
    end
    for _ = 1, 3 do
      assert.is_nil(runs[1]())
      assert.is_nil(runs[2]())
    end
    assert.equal("hlt", runs[1]().kind)
    assert.equal("hlt", runs[2]().kind)
    assert.same({ 1, 2, 1, 2, 1, 2 }, order)
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

helper.kvm("cpu:on", function()
  local function reader(verdict)
    local guest = helper.guest { mode = "long", source = "mov eax, [0x200000]\n hlt" }
    local seen = {}
    guest.cpu:on("fault", function(cpu, exit)
      assert.equal(guest.cpu, cpu)
      seen[#seen + 1] = exit.gpa
      if type(verdict) == "function" then return verdict(guest) end
      return verdict
    end)
    return guest, seen
  end

  local function writer(verdict)
    local guest = helper.guest { mode = "long", source = "mov [0x200000], eax\n hlt" }
    guest.cpu:on("fault", function() return verdict end)
    return guest
  end

  for _, verdict in ipairs { "stop", "nothing" } do
    it("ends the run with the open exit on " .. verdict, function()
      local guest, seen = reader(verdict == "stop" and "stop" or nil)
      assert.equal(0x200000, guest:stops("fault").gpa)
      assert.same({ 0x200000 }, seen)
      guest.cpu:answer(3)
      guest:stops "hlt"
      assert.equal("0x3", hex(guest.cpu.rax))
    end)
  end

  it("gives a value to a read", function()
    local guest = reader(0xdeadbeef)
    guest:stops "hlt"
    assert.equal("0xdeadbeef", hex(guest.cpu.rax))
  end)

  it("gives a u64 to a read", function()
    local guest = reader(luna.u64 "0x87654321")
    guest:stops "hlt"
    assert.equal("0x87654321", hex(guest.cpu.rax))
  end)

  it("gives all ones to a read on skip", function()
    reader("skip"):stops "hlt"
    local guest = reader "skip"
    guest:stops "hlt"
    assert.equal("0xffffffff", hex(guest.cpu.rax))
  end)

  for _, verdict in ipairs { "continue", "skip" } do
    it("drops a write on " .. verdict, function()
      writer(verdict):stops "hlt"
    end)
  end

  it("does the access again on retry", function()
    local memory = helper.keep(luna.buffer "4K")
    memory:u32(0, 0x600d)
    local guest, seen = reader(function(guest)
      assert(guest.vm:map_space(0, memory, 0, 0x200000, 0x1000, "rwx"))
      return "retry"
    end)
    guest:stops "hlt"
    assert.equal("0x600d", hex(guest.cpu.rax))
    assert.equal(1, #seen)
  end)

  it("refuses retry where nothing was mapped", function()
    contains("cannot retry the access to gpa 0x200000: no region of space 0 allows it",
      fails((reader "retry")))
  end)

  it("refuses retry of a port access", function()
    local guest = helper.guest { source = "out 0x10, al\n hlt" }
    guest.cpu:on("pio", function() return "retry" end)
    contains("\"retry\": that is for a fault exit", fails(guest))
  end)

  it("refuses continue for a read", function()
    contains('a handler answered fault (read of 4 bytes at gpa 0x200000, which no region allows) '
      .. 'at rip 0x', fails((reader "continue")))
    contains('a read needs a value, "skip" or "retry"', fails((reader "continue")))
  end)

  it("refuses continue for an execution", function()
    local guest = helper.guest { mode = "long", source = "jmp 0x200000" }
    guest.cpu:on("fault", function() return "continue" end)
    contains('map memory there and say "retry"', fails(guest))
    guest.cpu:on("fault", function() return "skip" end)
    contains("cannot answer the fetch at gpa 0x200000", fails(guest))
  end)

  it("refuses a value that does not fit", function()
    contains("the fault handler answered a read of 4 bytes", fails((reader(2 ^ 32))))
    contains("the fault handler answered a read of 4 bytes", fails((reader(-1))))
  end)

  for _, verdict in ipairs { "go on", "", true, false } do
    it(("refuses the verdict %q"):format(tostring(verdict)), function()
      contains(('a handler answered hlt at rip 0x1001 with %s: nil, "stop", "continue", "skip", '
        .. '"retry" or, for a read, a value expected'):format(tostring(verdict)),
        (function()
          local guest = helper.guest { source = "hlt" }
          guest.cpu:on("hlt", function() return verdict end)
          return fails(guest)
        end)())
    end)
  end

  it("refuses a value for a write and for what is no access", function()
    contains("or, for a read, a value expected", fails((writer(5))))
    local guest = helper.guest { source = "hlt" }
    guest.cpu:on("hlt", function() return 5 end)
    contains("a handler answered hlt at rip 0x1001 with 5", fails(guest))
  end)

  it("goes on after hlt on continue", function()
    local guest = helper.guest { source = "hlt\n hlt\n mov cl, 4\n out 0x10, al" }
    local count = 0
    guest.cpu:on("hlt", function()
      count = count + 1
      return "continue"
    end)
    guest:stops "pio"
    assert.equal(2, count)
    assert.equal("0x4", hex(guest.cpu.rcx))
  end)

  it("goes on after an exception when rip was moved", function()
    local guest = helper.guest { mode = "user", source = "ud2\n mov cl, 4\n out 0x10, al" }
    guest.cpu:on("exception", function(cpu, exit)
      cpu.rip = exit.rip + 2
      return "continue"
    end)
    guest:stops "pio"
    assert.equal("0x4", hex(guest.cpu.rcx))
  end)

  it("goes on after an interrupt on continue, until the handler has enough", function()
    local guest = helper.guest { source = "again: jmp again" }
    local count = 0
    guest.cpu:on("interrupted", function(cpu)
      count = count + 1
      if count == 3 then return "stop" end
      cpu:interrupt()
      return "continue"
    end)
    guest.cpu:interrupt()
    guest:stops "interrupted"
    assert.equal(3, count)
  end)

  it("comes after the devices", function()
    local guest = helper.guest { source = "out 0x10, al\n out 0x20, al\n hlt" }
    local device, ports = helper.recorder(), {}
    guest.vm:pio(0x10, 1, device)
    guest.cpu:on("pio", function(_, exit)
      ports[#ports + 1] = exit.port
      return "continue"
    end)
    guest:stops "hlt"
    assert.same({ 0x20 }, ports)
    assert.equal(1, #device.log)
  end)

  it("replaces the handler, and takes it away for nil", function()
    local guest = helper.guest { source = "hlt\n hlt\n hlt" }
    guest.cpu:on("hlt", function() error "the first" end)
    guest.cpu:on("hlt", function(cpu)
      cpu:stop "second"
      return "continue"
    end)
    assert.equal("second", guest:stops("stopped").value)
    guest.cpu:on("hlt", nil)
    guest:stops "hlt"
  end)

  it("stops on cpu:stop whatever the handler says", function()
    local guest = helper.guest { source = "out 0x10, al\n hlt" }
    guest.cpu:on("pio", function(cpu)
      cpu:stop(1)
      return "continue"
    end)
    assert.equal(1, guest:stops("stopped").value)
    guest:stops "hlt"
  end)

  it("stops on cpu:stop although the handler ends the run anyway", function()
    local guest = helper.guest { source = "hlt\n out 0x10, al\n hlt" }
    guest.vm:pio(0x10, 1, helper.recorder())
    guest.cpu:on("hlt", function(cpu) cpu:stop(2) end)
    assert.equal(2, guest:stops("stopped").value)
    guest.cpu:on("hlt", nil)
    guest:stops "hlt"
  end)

  it("refuses unknown kinds and what cannot be called", function()
    local guest = helper.guest { source = "hlt" }
    helper.raises('cpu:on: no exit kind "halt"; the kinds are exception, fail_entry, fault, hlt, ',
      function() guest.cpu:on("halt", function() end) end)
    helper.raises("cpu:on: no exit kind number", function() guest.cpu:on(5, function() end) end)
    helper.raises("cpu:on: handler: a function expected, got string",
      function() guest.cpu:on("hlt", "stop") end)
  end)
end)

helper.kvm("cpu:answer", function()
  it("needs an open exit", function()
    local guest = helper.guest { source = "hlt" }
    helper.raises("vCPU 0 has no open exit to answer", function() guest.cpu:answer(1) end)
    guest:stops "hlt"
    helper.raises("vCPU 0 has no open exit to answer", function() guest.cpu:answer() end)
    helper.raises("vCPU 0 has no open exit to answer", function() guest.cpu:retry() end)
  end)

  it("needs a value for a read, of its size", function()
    local guest = helper.guest { source = "in al, 0x10\n hlt" }
    guest:stops "pio"
    helper.raises("cpu:answer: the guest reads: a value expected",
      function() guest.cpu:answer() end)
    local ok, message = pcall(guest.cpu.answer, guest.cpu, 256)
    assert.is_false(ok)
    contains("cpu:answer answered a read of 1 byte", message)
    guest.cpu:answer(255)
    guest:stops "hlt"
    assert.equal("0xff", hex(guest.cpu.rax))
  end)

  it("lets go of a write", function()
    local guest = helper.guest { source = "out 0x10, al\n hlt" }
    guest:stops "pio"
    guest.cpu:answer()
    guest:stops "hlt"
  end)
end)
