-- SPDX-License-Identifier: MIT
-- cpu:trace, what luna.probe says of debugging, and debugging together with the rest.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local hex, u64 = luna.hex, luna.u64

local function trace(guest, options, stop_at)
  local list = {}
  options = options or {}
  options.timeout = options.timeout or 10
  local exit = assert(guest.cpu:trace(function(cpu, address)
    list[#list + 1] = hex(address)
    assert.equal(guest.cpu, cpu)
    if stop_at and address == u64(stop_at) then return "stop" end
  end, options))
  return table.concat(list, " "), exit
end

for _, mode in ipairs { "real", "protected", "long", "user" } do
  helper.kvm("cpu:trace in mode " .. mode, function()
    it("calls for every instruction until an exit", function()
      local guest = helper.guest { mode = mode,
        source = "mov cl, 2\nagain: dec cl\n jnz again\n out 0x10, al" }
      local list, exit = trace(guest)
      local round = " 0x1002 0x1004"
      assert.equal("0x1000" .. round .. round .. " 0x1006", list)
      assert.equal("pio", exit.kind)
    end)

    it("ends when the function says so, or after a number of instructions", function()
      local guest = helper.guest { mode = mode, source = "times 8 nop\n out 0x10, al" }
      local list, exit = trace(guest, nil, 0x1002)
      assert.equal("0x1000 0x1001 0x1002", list)
      assert.same({ "debug", "0x1002" }, { exit.kind, hex(exit.rip) })
      list, exit = trace(guest, { count = 3 })
      assert.equal("0x1002 0x1003 0x1004", list)
      assert.same({ "debug", "0x1005" }, { exit.kind, hex(exit.rip) })
      guest:stops "pio"
    end)
  end)
end

helper.kvm("cpu:trace", function()
  it("goes through devices", function()
    local guest = helper.guest { mode = "long", source = "in al, 0x20\n nop\n hlt" }
    guest.vm:pio(0x20, 1, helper.recorder { 7 })
    local list, exit = trace(guest)
    assert.same({ "0x1000 0x1002 0x1003", "hlt" }, { list, exit.kind })
    assert.equal(u64(7), u64.band(guest.cpu.rax, 0xff))
  end)

  it("gives linear addresses", function()
    local guest = helper.guest { mode = "real", source = "nop\n hlt" }
    guest.cpu.cs.base, guest.cpu.cs.selector = 0x800, 0x80
    guest.cpu.rip = 0x800
    assert.equal("0x1000 0x1001", (trace(guest)))
  end)

  it("lets the function change the way", function()
    local guest = helper.guest { mode = "long", source = "nop\n ud2\n nop\n hlt" }
    local exit = assert(guest.cpu:trace(function(cpu, address)
      if address == u64(0x1001) then cpu.rip = 0x1003 end
    end, { timeout = 60 }))
    assert.same({ "hlt", "0x1005" }, { exit.kind, hex(exit.rip) })
  end)

  it("raises what the function raises, and the guest can go on", function()
    local guest = helper.guest { mode = "long", source = "nop\n nop\n hlt" }
    local ok, message = pcall(guest.cpu.trace, guest.cpu, function() error "mine" end)
    assert.is_false(ok)
    helper.contains("mine", message)
    guest:stops "hlt"
  end)

  it("refuses what makes no sense", function()
    local cpu = helper.guest({ source = "nop" }).cpu
    helper.raises("cpu:trace: a function expected", function() cpu:trace(1) end)
    helper.raises("cpu:trace: count", function() cpu:trace(print, { count = 0 }) end)
    helper.raises("unknown option", function() cpu:trace(print, { size = 1 }) end)
  end)
end)

helper.kvm("luna.probe", function()
  it("says where breakpoints stop a guest", function()
    local features = luna.probe().features
    for _, name in ipairs { "hardware_breakpoints", "watchpoints", "software_breakpoints" } do
      assert.truthy(features[name] >= 0 and features[name] <= 7, name)
    end
    assert.truthy(features.hardware_breakpoints % 4 == 3 or features.software_breakpoints > 0)
  end)
end)

helper.kvm("debugging", function()
  it("works in a handler that yields", function()
    local guest = helper.guest { mode = "long", source = "nop\n nop\n hlt" }
    assert(guest.cpu:breakpoint(0x1001, function()
      coroutine.yield "at"
      return "continue"
    end))
    local run = coroutine.wrap(function() return guest:stops("hlt").kind end)
    assert.same({ "at", "hlt" }, { run(), run() })
  end)

  it("is not in the way of an exception that is injected", function()
    local guest = helper.guest { mode = "user", source = "nop\n nop\n out 0x10, al" }
    assert(guest.cpu:breakpoint(0x1001, function()
      return { inject = "#GP", error_code = 8 }
    end))
    local exit = guest:stops "exception"
    assert.same({ "#GP", 8, "0x1001" }, { exit.name, exit.error_code, hex(exit.rip) })
    guest:stops "pio"
  end)

  it("of one vCPU leaves another of the same VM alone", function()
    local guest = helper.guest { mode = "long", source = "nop\n nop\n hlt" }
    local other = helper.keep(guest.vm:vcpu { mode = "long", rip = 0x1000 })
    assert(guest.cpu:breakpoint(0x1001))
    guest:stops "debug"
    assert.equal("hlt", assert(other:run { timeout = 60 }).kind)
    guest:stops "hlt"
  end)

  it("keeps kicks: none is lost at a breakpoint that is got over", function()
    local guest = helper.guest { mode = "long", source = "here: nop\n jmp here" }
    local bp = assert(guest.cpu:breakpoint(0x1000, function(cpu)
      cpu:interrupt()
      return "continue"
    end))
    for i = 1, 20 do
      assert.equal("interrupted", guest:run().kind)
      assert.equal(i, bp.hits)
    end
  end)
end)
