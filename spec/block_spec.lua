-- SPDX-License-Identifier: MIT
-- Devices that take string I/O (rep ins, rep outs) as blocks.

local luna = require "lunavisor"
local fake = require "spec.support.fake"
local helper = require "spec.support.helper"

local PORT = 0x3f8
local modes = { "real", "long", "user" }

-- Runs `count` elements of rep `instruction` on the memory at 0x2000; the block device is at PORT.
local function string_io(mode, instruction, count, device)
  local guest = helper.guest { mode = mode, source = ([[
    mov edi, 0x2000
    mov esi, 0x2000
    mov ecx, %d
    mov dx, 0x3f8
    rep %s
    out 0x10, al]]):format(count, instruction) }
  guest.vm:pio(PORT, 4, device)
  guest.vm:pio(0x10, 1, { write = function() guest.cpu:stop() end })
  return guest
end

local function pattern(length)
  local bytes = {}
  for i = 1, length do bytes[i] = string.char(i * 7 % 251) end
  return table.concat(bytes)
end

-- A device that gives the bytes of `text`, or collects them in device.text; it notes the calls.
local function blocks(text)
  local device = { calls = {}, at = 0, text = "" }
  function device:read_block(offset, size, count)
    assert.equal(0, offset)
    self.calls[#self.calls + 1] = count
    self.at = self.at + size * count
    return text:sub(self.at - size * count + 1, self.at)
  end
  function device:write_block(offset, size, data)
    assert.equal(0, offset)
    self.calls[#self.calls + 1] = #data / size
    self.text = self.text .. data
  end
  return device
end

local function sum(list)
  local total = 0
  for _, value in ipairs(list) do total = total + value end
  return total
end

helper.kvm("a device with blocks", function()
  for _, mode in ipairs(modes) do
    for suffix, size in pairs { b = 1, w = 2, d = 4 } do
      it(("reads rep ins%s in mode %s"):format(suffix, mode), function()
        local count = mode == "user" and 1500 or 20
        local device = blocks(pattern(size * count))
        local guest = string_io(mode, "ins" .. suffix, count, device)
        guest:stops "stopped"
        assert.equal(pattern(size * count) .. "\0", guest.ram:read(0x2000, size * count + 1))
        assert.equal(count, sum(device.calls))
        assert.equal("0x0", luna.hex(guest.cpu.rcx))
      end)

      it(("writes rep outs%s in mode %s"):format(suffix, mode), function()
        local device = blocks()
        local guest = string_io(mode, "outs" .. suffix, 20, device)
        guest.ram:write(0x2000, pattern(20 * size))
        guest:stops "stopped"
        assert.equal(pattern(20 * size), device.text)
        assert.equal(20, sum(device.calls))
      end)
    end
  end

  it("gets a KVM's batch in one call", function()
    local device, single = blocks(pattern(0x3000)), 0
    local guest = string_io("user", "insb", 0x3000, device)
    guest:stops "stopped"
    assert.equal(pattern(0x3000), guest.ram:read(0x2000, 0x3000))
    for _, count in ipairs(device.calls) do
      if count == 1 then single = single + 1 end
    end
    if single == 0x3000 then pending "this host's KVM does not batch rep insb" end
    assert.is_true(#device.calls <= 0x3000 / 256, #device.calls)
  end)

  it("gets single accesses too, where it has no other function", function()
    local device = blocks "\x44\x33\x22\x11"
    local guest = helper.guest { mode = "long", source = [[
      mov dx, 0x3f8
      in eax, dx
      out dx, ax
      hlt]] }
    guest.vm:pio(PORT, 4, device)
    guest:stops "hlt"
    assert.equal("0x11223344", luna.hex(guest.cpu.rax))
    assert.equal("\x44\x33", device.text)
    assert.same({ 1, 1 }, device.calls)
  end)

  it("gets single accesses by read and write, where it has them", function()
    local device = blocks()
    local log = {}
    function device.write(_, offset, size, value)
      log[#log + 1] = ("w %d %d %d"):format(offset, size, value)
    end
    function device.read() return 9 end
    local guest = helper.guest { source = "mov dx, 0x3f9\n in al, dx\n out dx, al\n hlt" }
    guest.vm:pio(PORT, 4, device)
    guest:stops "hlt"
    assert.same({ "w 1 1 9" }, log)
    assert.same({}, device.calls)
  end)

  it("may get the functions later, for single accesses", function()
    local device = { read = function() return 1 end }
    local guest = helper.guest { source = "mov dx, 0x3f8\n in ax, dx\n out dx, ax\n hlt" }
    guest.vm:pio(PORT, 4, device)
    device.read, device.read_block = nil, function() return "\x34\x12" end
    device.write_block = function(_, _, size, data) device.seen = { size, data } end
    guest:stops "hlt"
    assert.same({ 2, "\x34\x12" }, device.seen)
  end)

  it("may find its functions in a class", function()
    local class = blocks(pattern(8))
    local device = setmetatable({ calls = {}, at = 0 }, { __index = class })
    local guest = string_io("user", "insb", 8, device)
    guest:stops "stopped"
    assert.equal(pattern(8), guest.ram:read(0x2000, 8))
    assert.same({}, class.calls)
  end)

  it("may stop the run, with its block done", function()
    local device = blocks(pattern(64))
    local guest = string_io("user", "insb", 64, device)
    local read_block = device.read_block
    function device.read_block(...)
      guest.cpu:stop "enough"
      return read_block(...)
    end
    assert.equal("enough", guest:stops("stopped").value)
    device.read_block = read_block
    guest:stops "stopped"
    assert.equal(pattern(64), guest.ram:read(0x2000, 64))
    assert.equal(64, sum(device.calls))
  end)

  it("may close its trap, and yield", function()
    local device = blocks(pattern(8))
    local guest = helper.guest { mode = "user", source = "nop" }
    guest.vm:pio(0x10, 1, { write = function() guest.cpu:stop() end })
    local trap = guest.vm:pio(PORT + 4, 1, device)
    guest.ram:write(0x1000, helper.code([[
      mov edi, 0x2000
      mov ecx, 8
      mov dx, 0x3fc
      rep insb
      out 0x10, al]], 64, 0x1000))
    local read_block = device.read_block
    function device:read_block(...)
      coroutine.yield "asked"
      trap:close()
      return read_block(self, ...)
    end
    local run = coroutine.wrap(function() return guest:run() end)
    assert.equal("asked", run())
    local exit = run()
    if #device.calls == 1 and device.calls[1] < 8 then pending "this KVM does not batch insb" end
    assert.equal("stopped", exit.kind)
    assert.equal(pattern(8), guest.ram:read(0x2000, 8))
  end)

  it("is only for ports", function()
    local vm = helper.keep(luna.vm())
    helper.raises("vm:mmio: the device has neither a read nor a write function",
      function() vm:mmio(0x1000, 0x1000, blocks "") end)
    helper.raises("vm:pio: device.read_block: a function expected, got string",
      function() vm:pio(0x10, 1, { read_block = "no" }) end)
  end)
end)

-- KVM's batch of 8 elements, whatever the host's does.
describe("a block over the fake", function()
  local WRITE, READ = 1, 0 -- KVM_EXIT_IO_*
  local vm, cpu, trap

  -- The next exit: count elements of a size at port 0x10.
  local function batch(direction, size, count)
    fake.exit(2, { luna.u64(count, 0x100000 + size * 256 + direction), 0x1000 })
  end

  local function with(device)
    vm = helper.keep(luna.vm())
    cpu = helper.keep(vm:vcpu { mode = "real" })
    trap = vm:pio(0x10, 1, device)
  end

  before_each(fake.install)

  after_each(function()
    helper.clean()
    fake.remove()
  end)

  it("is one call with what is left", function()
    local device = blocks(pattern(16))
    with(device)
    batch(READ, 2, 8)
    assert.equal("hlt", cpu:run().kind)
    batch(WRITE, 2, 8)
    assert.equal("hlt", cpu:run().kind)
    assert.same({ 8, 8 }, device.calls)
    assert.equal(16, #device.text)
  end)

  it("comes again, whole, after an error", function()
    local device = blocks(pattern(8))
    local read_block = device.read_block
    function device.read_block() error "not yet" end
    with(device)
    batch(READ, 1, 8)
    helper.contains("not yet", helper.fails(cpu))
    helper.contains("not yet", helper.fails(cpu))
    device.read_block = read_block
    assert.equal("hlt", cpu:run().kind)
    assert.same({ 8 }, device.calls)
  end)

  it("of another length is an error that names both", function()
    local device = { read_block = function() return "abc" end }
    with(device)
    batch(READ, 2, 8)
    helper.contains("the device answered a block of 8 elements of 2 bytes at offset 0x0 with a "
      .. "string of 3 bytes: 16 expected", helper.fails(cpu))
    device.read_block = function() return nil end
    helper.contains("with nil: a string of 16 bytes expected", helper.fails(cpu))
    device.read_block = function() return 0x12 end
    helper.contains("with 0x12: a string of 16 bytes expected", helper.fails(cpu))
    device.read_block = function() return ("x"):rep(16) end
    assert.equal("hlt", cpu:run().kind)
  end)

  it("goes element by element to a device that has only the function for the other way", function()
    local device, reads = blocks(), 0
    function device.read()
      reads = reads + 1
      return 7
    end
    device.read_block = nil
    with(device)
    batch(READ, 1, 8)
    assert.equal("hlt", cpu:run().kind)
    assert.equal(8, reads)
  end)

  it("is the rest of a string after an element was answered by hand", function()
    local device = blocks(pattern(8))
    with(device)
    trap:close()
    batch(READ, 1, 8)
    local exit = cpu:run()
    assert.same({ "pio", 8 }, { exit.kind, exit.count })
    cpu:answer(1)
    assert.equal(7, cpu:run().count)
    cpu:answer(1)
    vm:pio(0x10, 1, device)
    assert.equal("hlt", cpu:run().kind)
    assert.same({ 6 }, device.calls)
  end)
end)
