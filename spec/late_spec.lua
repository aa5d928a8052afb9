-- SPDX-License-Identifier: MIT
-- Run, see an exit, register the device or map the memory, run again: what has come since the exit
-- is asked, however the vCPU is run.

local luna = require "lunavisor"
local helper = require "spec.support.helper"

local SOURCE = [[
  out 0x10, al
  in al, 0x11
  mov [0x200000], al
  out 0x14, al
  call 0x300000
  hlt]]

-- Ways to run the vCPU of a guest up to the next exit.
local ways = {}

function ways.run(guest)
  return guest.cpu:run { timeout = 60 }
end

function ways.step(guest)
  local exit
  repeat exit = guest.cpu:step() until exit.kind ~= "debug"
  return exit
end

ways["vm:run"] = function(guest)
  return (guest.vm:run { timeout = 60 })
end

ways["vm:poll"] = function(guest)
  guest.vm:start()
  local exit
  local t = luna.clock()
  repeat exit = guest.vm:poll() until exit or luna.clock() - t > 60
  return exit
end


helper.kvm("an exit that is open", function()
  for name, go in pairs(ways) do
    it("is given to what comes after it, by " .. name, function()
      local guest = helper.guest { mode = "protected", source = SOURCE, size = "64K" }
      local said = {}
      local function device(who)
        return {
          write = function(_, offset) said[#said + 1] = who .. " w " .. offset end,
          read = function(_, offset) said[#said + 1] = who .. " r " .. offset return 7 end,
        }
      end
      assert.equal("pio", go(guest).kind)
      guest.vm:pio(0x10, 2, device "ports")
      assert.equal("fault", go(guest).kind)
      guest.vm:mmio(0x200000, 4, device "registers"):close()
      guest.vm.default:map(guest.ram, 0x200000, { size = 0x1000 })
      assert.equal("pio", go(guest).kind)
      local bell = assert(guest.vm:eventfd { port = 0x14, size = 1 })
      local exit = go(guest)
      assert.same({ "fault", "x" }, { exit.kind, exit.access })
      guest.ram:write(0x8000, "\xc3")
      guest.vm.default:map(guest.ram, 0x300000, { offset = 0x8000, size = 0x1000 })
      assert.equal("hlt", go(guest).kind)
      assert.same({ "ports w 0", "ports r 1" }, said)
      assert.same({ 7, 1 }, { guest.ram:u8(0), bell:read() })
    end)
  end

  it("is given to a handler that comes after it", function()
    for name, go in pairs(ways) do
      local guest = helper.guest { mode = "protected", source = "in al, 0x60\n hlt" }
      assert.equal("pio", go(guest).kind, name)
      guest.cpu:on("pio", function() return 0x2a end)
      assert.equal("hlt", go(guest).kind, name)
      assert.equal(luna.u64(0x2a), guest.cpu.rax)
    end
  end)

  it("is given back to handlers when its device is closed", function()
    local guest = helper.guest { source = "in al, 0x60\n hlt" }
    local trap = guest.vm:pio(0x60, 1, { read = function() error "not now" end })
    assert.is_false(pcall(guest.cpu.run, guest.cpu, { timeout = 60 }))
    trap:close()
    guest.cpu:on("pio", function() return 3 end)
    guest:stops "hlt"
    assert.equal(luna.u64(3), guest.cpu.rax)
  end)

  it("of an MSR is given to the device that comes", function()
    local guest = helper.guest { vm = { unknown_msrs = "exit" }, mode = "protected",
      source = "mov ecx, 0x4b564dff\n rdmsr\n hlt" }
    local exit = guest:stops "msr"
    assert.equal(0x4b564dff, exit.msr)
    guest.vm:msr(0x4b564dff, 1, { read = function() return luna.u64(9) end })
    guest:stops "hlt"
    assert.equal(luna.u64(9), guest.cpu.rax)
  end)

  it("is given to what another vCPU's handler has made meanwhile", function()
    local guest = helper.guest { mode = "protected", source = "in al, dx\n hlt" }
    local second = helper.keep(guest.vm:vcpu { mode = "protected", rip = 0x1000, rsp = 0x8000 })
    local asked = 0
    for _, cpu in ipairs { guest.cpu, second } do
      cpu.rdx = 0x60
      cpu:on("hlt", function() return "park" end)
      cpu:on("pio", function()
        local t = luna.clock()
        repeat until luna.clock() - t > 0.05 -- the other vCPU's exit waits by now
        guest.vm:pio(0x60, 1, { read = function() asked = asked + 1 return 5 end })
        return 4
      end)
    end
    assert.equal("parked", (guest.vm:run { timeout = 60 }).kind)
    assert.equal(1, asked)
    assert.equal(luna.u64(9), guest.cpu.rax + second.rax)
  end)
end)
