-- SPDX-License-Identifier: MIT What an error in a device, handler or timer says: which device,
-- where its guest is, and the script's own frames; the library's with luna.debug(true).

local luna = require "lunavisor"
local helper = require "spec.support.helper"

local function machine(source)
  local guest = helper.guest { source = source }
  return guest, guest.vm
end

local ways = {
  ["cpu:run"] = function(guest)
    local exit = guest.cpu:run { timeout = 60 }
    return exit
  end,
  ["cpu:step"] = function(guest)
    local exit = guest.cpu:step(9)
    return exit
  end,
  ["vm:run"] = function(guest)
    local exit = guest.vm:run { timeout = 60 }
    return exit
  end,
}

local function line_after(text)
  return tonumber(text:match "trace_spec.lua:(%d+)")
end

for way, run in pairs(ways) do
  helper.kvm("an error under " .. way, function()
    local function fails(guest)
      local ok, message = pcall(run, guest)
      assert.is_false(ok)
      return message
    end

    it("names the device whose function has failed", function()
      local guest, vm = machine "nop\n out 0x61, al\n hlt"
      local trap = vm:pio(0x60, 4, { name = "keyboard", write = function() error "it burns" end })
      local line = debug.getinfo(1, "l").currentline - 1
      local message = fails(guest)
      assert.matches("trace_spec.lua:" .. line .. ": it burns\nstack traceback:\n", message)
      helper.contains(("\n\tin the device at port 0x60 (keyboard, given at %s), rip 0x100")
        :format(trap.where), message)
      assert.equal(line, line_after(trap.where))
    end)

    it("names the device that has given no value, and the one that has no function", function()
      local guest, vm = machine "in al, 0x60\n out 0x61, al\n hlt"
      local device = { read = function() return "x" end }
      vm:pio(0x60, 1, device)
      vm:pio(0x61, 1, { read = function() return 0 end })
      local message = fails(guest)
      helper.contains("the device answered a read of 1 byte at offset 0x0 with x", message)
      assert.matches("\nstack traceback:\n\tin the device at port 0x60 %(given at [^\n]*"
        .. "trace_spec.lua:%d+%), rip 0x1000\n", message)
      device.read = function() return 1 end
      message = fails(guest)
      helper.contains("the guest writes at offset 0x0 of a device that has no write", message)
      helper.contains("in the device at port 0x61 (given at ", message)
    end)

    it("has the script's frames only, unless the whole is wanted", function()
      local guest, vm = machine "out 0x60, al\n hlt"
      vm:pio(0x60, 1, { write = function() error "it burns" end })
      local message = fails(guest)
      assert.is_nil(message:find("lunavisor/vcpu/", 1, true))
      assert.is_nil(message:find("lunavisor/vm/", 1, true))
      helper.contains("trace_spec.lua:" .. debug.getinfo(run, "S").linedefined + 1, message)
      assert.is_false(luna.debug(true))
      message = fails(guest)
      assert.is_true(luna.debug(false))
      assert.matches("lunavisor/v%a+/%a+.lua:%d+: in function", message)
    end)

    it("names no device where a handler or a timer has failed", function()
      local guest, vm = machine "out 0x60, al\n hlt\n jmp $"
      vm:pio(0x60, 1, { write = function() end })
      guest.cpu:on("hlt", function() error "in the handler" end)
      local message = fails(guest)
      helper.contains("in the handler", message)
      assert.is_nil(message:find("in the device", 1, true))
      guest.cpu:on("hlt", function() return "continue" end)
      vm:timer(0, function() error "in the timer" end)
      message = fails(guest)
      helper.contains("in the timer", message)
      assert.is_nil(message:find("in the device", 1, true))
    end)
  end)
end
