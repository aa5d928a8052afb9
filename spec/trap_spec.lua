-- SPDX-License-Identifier: MIT
-- Traps: which ports and addresses a device can have, and giving them back.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local raises = helper.raises

local device = { read = function() return 0 end, write = function() end }

helper.kvm("vm:pio", function()
  it("takes all ports, and no more", function()
    local vm = helper.keep(luna.vm())
    raises("cannot trap 0x2 bytes at port 0xffff: the last port is 0xffff",
      function() vm:pio(0xffff, 2, device) end)
    raises("cannot trap 0x1 bytes at port 0x10000", function() vm:pio(0x10000, 1, device) end)
    raises("the last port is 0xffff", function() vm:pio(1, 0x10000, device) end)
    local trap = vm:pio(0, 0x10000, device)
    raises("is trapped already", function() vm:pio(0xffff, 1, device) end)
    trap:close()
    assert.truthy(vm:pio(0xffff, 1, device))
  end)

  it("reaches the first and the last port", function()
    local guest = helper.guest { source = "out 0, al\n mov dx, 0xffff\n out dx, al\n hlt" }
    local recorder = helper.recorder()
    guest.vm:pio(0, 0x10000, recorder)
    guest:stops "hlt"
    assert.same({ "w 0 1 0x0", "w ffff 1 0x0" }, recorder.log)
  end)

  it("refuses a length of nothing and numbers that are no ports", function()
    local vm = helper.keep(luna.vm())
    raises("cannot trap 0 bytes at port 0x3f8", function() vm:pio(0x3f8, 0, device) end)
    raises("vm:pio: port: a whole number from 0", function() vm:pio(-1, 1, device) end)
    raises("vm:pio: port: a whole number from 0", function() vm:pio("0x3f8", 1, device) end)
    raises("vm:pio: length: a whole number from 0", function() vm:pio(0, 1.5, device) end)
    raises("vm:pio: length: a whole number from 0", function() vm:pio(0, device) end)
  end)

  it("refuses what is no device", function()
    local vm = helper.keep(luna.vm())
    raises("vm:pio: a device expected (a table with read and/or write, or memory), "
      .. "got function",
      function() vm:pio(0, 1, function() end) end)
    raises("vm:pio: a device expected (a table with read and/or write, or memory), got nil",
      function() vm:pio(0, 1) end)
    raises("vm:pio: the device has neither a read nor a write function",
      function() vm:pio(0, 1, {}) end)
    local class = require "lunavisor.device" "x" { width = 1, registers = { A = { at = 0 } } }
    raises("vm:pio: device x: this is the class, which has no read: x() makes a device",
      function() vm:pio(0, 1, class) end)
    raises("neither a read nor a write function, but wirte; did you mean 'write'?",
      function() vm:pio(0, 1, { name = "x", wirte = print }) end)
    raises("vm:pio: device.read: a function expected, got number",
      function() vm:pio(0, 1, { read = 0xff }) end)
    raises("vm:pio: device.write: a function expected, got string",
      function() vm:pio(0, 1, { read = device.read, write = "no" }) end)
    assert.truthy(vm:pio(0, 1, device))
    local cpu = assert(vm:vcpu())
    cpu:close()
    raises("got a vcpu", function() vm:pio(0x10, 1, cpu) end)
  end)
end)

helper.kvm("vm:mmio", function()
  it("ends with the guest's addresses", function()
    local vm = helper.keep(luna.vm())
    raises("cannot trap 0x1 bytes at gpa 0x10000000000000: the last gpa is 0x",
      function() vm:mmio(2 ^ 52, 1, device) end)
    local _, message = pcall(vm.mmio, vm, 2 ^ 52, 1, device)
    local last = tonumber(message:match "the last gpa is (0x%x+)")
    assert.truthy(vm:mmio(last, 1, device))
    raises("cannot trap 0x2 bytes", function() vm:mmio(last, 2, device) end)
  end)

  it("takes sizes with a unit, at any byte", function()
    local vm = helper.keep(luna.vm())
    local trap = vm:mmio(0xd0000001, "64K", device)
    assert.equal("trap 1 (mmio 0xd0000001..0xd0010000)", tostring(trap))
    raises("cannot trap 0 bytes at gpa 0x5", function() vm:mmio(5, 0, device) end)
    raises("vm:mmio: length: a number of bytes or a size", function() vm:mmio(5, "1kb", device) end)
    raises("vm:mmio: gpa: a whole number from 0", function() vm:mmio(0.5, 1, device) end)
    raises("vm:mmio: the device has neither", function() vm:mmio(5, 1, {}) end)
  end)
end)

for _, kind in ipairs { "pio", "mmio" } do
  helper.kvm("a trap of " .. kind, function()
    it("keeps others away from all its addresses", function()
      local vm = helper.keep(luna.vm())
      vm[kind](vm, 0x100, 0x10, device)
      local unit = kind == "pio" and "ports" or "gpa"
      for _, range in ipairs { { 0x100, 0x10 }, { 0xff, 2 }, { 0x10f, 1 }, { 0, 0x1000 },
        { 0x104, 4 } } do
        raises(("cannot trap %s 0x%x..0x%x: 0x100..0x10f is trapped already (trap 1); close that "
          .. "trap first"):format(unit, range[1], range[1] + range[2] - 1),
          function() vm[kind](vm, range[1], range[2], device) end)
      end
      assert.truthy(vm[kind](vm, 0xff, 1, device))
      assert.truthy(vm[kind](vm, 0x110, 1, device))
      local other = kind == "pio" and "mmio" or "pio"
      assert.truthy(vm[other](vm, 0x100, 0x10, device))
    end)

    it("gives its range back when it is closed, once", function()
      local vm = helper.keep(luna.vm())
      local trap = vm[kind](vm, 0x100, 0x10, device)
      local text = tostring(trap)
      trap:close()
      assert.equal((text:gsub("%)$", ", closed)")), tostring(trap))
      local second = vm[kind](vm, 0x108, 0x10, device)
      trap:close()
      raises("is trapped already", function() vm[kind](vm, 0x108, 1, device) end)
      second:close()
      assert.truthy(vm[kind](vm, 0x108, 1, device))
    end)

    it("may be closed after its VM", function()
      local vm = helper.keep(luna.vm())
      local trap = vm[kind](vm, 0x100, 0x10, device)
      vm:close()
      trap:close()
      trap:close()
      assert.has_error(function() vm[kind](vm, 0x100, 0x10, device) end)
    end)
  end)
end

helper.kvm("a trap", function()
  it("works without anybody who holds it", function()
    local guest = helper.guest { source = "out 0x10, al\n hlt" }
    local recorder = helper.recorder()
    guest.vm:pio(0x10, 1, recorder)
    collectgarbage()
    guest:stops "hlt"
    assert.same({ "w 0 1 0x0" }, recorder.log)
  end)

  it("comes in hundreds, each with its own device", function()
    local guest = helper.guest { source = [[
      mov dx, 0x1000
      again: out dx, al
      add dx, 16
      cmp dx, 0x1000 + 300 * 16
      jb again
      hlt]] }
    local seen = {}
    for i = 300, 1, -1 do
      guest.vm:pio(0x1000 + (i - 1) * 16, 16, { write = function() seen[#seen + 1] = i end })
    end
    guest:stops "hlt"
    assert.equal(300, #seen)
    for i = 1, 300 do assert.equal(i, seen[i]) end
  end)

  it("makes an access beside it an exit without a device", function()
    local guest = helper.guest { source = "out 0xf, al\n out 0x11, al\n hlt" }
    local recorder = helper.recorder()
    guest.vm:pio(0x10, 1, recorder)
    assert.equal(0xf, guest:stops("pio").port)
    guest.cpu:answer()
    assert.equal(0x11, guest:stops("pio").port)
    assert.same({}, recorder.log)
  end)
end)
