-- SPDX-License-Identifier: MIT
-- cpu:step in every mode.

local luna = require "lunavisor"
local helper = require "spec.support.helper"
local spaces = require "spec.support.spaces"
local hex, u64 = luna.hex, luna.u64

local PATIENCE = { timeout = 60 }

local function stepped(guest, count)
  local exit = assert(guest.cpu:step(count or 1, PATIENCE))
  return exit.kind .. " " .. hex(exit.rip)
end

for _, mode in ipairs { "real", "protected", "long", "user" } do
  helper.kvm("cpu:step in mode " .. mode, function()
    it("runs one instruction", function()
      local guest = helper.guest { mode = mode, source = "nop\n nop\n inc al\n nop\n" }
      guest.cpu.rax = 0x41
      assert.same({ "debug 0x1001", "debug 0x1002", "debug 0x1004" },
        { stepped(guest), stepped(guest), stepped(guest) })
      assert.equal(u64(0x42), guest.cpu.rax)
      helper.contains("debug (single step) at rip 0x1005", tostring(guest.cpu:step(1, PATIENCE)))
    end)

    it("runs several, through branches", function()
      local guest = helper.guest { mode = mode,
        source = "mov cl, 3\nagain: dec cl\n jnz again\n nop\n out 0x10, al" }
      assert.equal("debug 0x1004", stepped(guest, 2):gsub("0x1003", "0x1004"))
      local after = hex(guest.cpu.rip)
      assert.equal("debug " .. after, stepped(guest, 2))
      assert.equal("debug " .. after, stepped(guest, 2))
      guest:stops "pio"
    end)

    it("keeps the registers that were written, and shows no trap flag", function()
      local guest = helper.guest { mode = mode, source = "nop\n inc al\n nop\n out 0x10, al" }
      assert.equal("debug 0x1001", stepped(guest))
      guest.cpu.rax, guest.cpu.rbx = 0x10, 0x20
      assert.equal("debug 0x1003", stepped(guest))
      assert.same({ u64(0x11), u64(0x20) }, { guest.cpu.rax, guest.cpu.rbx })
      assert.equal(u64(0), u64.band(guest.cpu.rflags, 0x100))
      guest.cpu.rip = 0x1001
      assert.equal("debug 0x1003", stepped(guest))
      assert.equal(u64(0x12), guest.cpu.rax)
      assert.same({ 0x10, 0x12 }, { guest:stops("pio").port, guest.cpu.rax % 0x100 + 0 })
    end)

    it("finishes accesses that devices answer", function()
      local guest = helper.guest { mode = mode, source = "in al, 0x20\n out 0x20, al\n nop" }
      local device = helper.recorder { 0x33 }
      guest.vm:pio(0x20, 1, device)
      assert.equal("debug 0x1002", stepped(guest))
      assert.equal(u64(0x33), u64.band(guest.cpu.rax, 0xff))
      assert.equal("debug 0x1004", stepped(guest))
      assert.equal("debug 0x1005", stepped(guest))
      assert.same({ "r 0 1", "w 0 1 0x33" }, device.log)
    end)

    it("finishes accesses to memory that devices answer", function()
      local address = mode == "real" and "[0x9000]" or "[abs 0x9000]"
      local guest = helper.guest { mode = mode, size = "32K",
        source = "mov " .. address .. ", al\nread: mov al, " .. address .. "\nnop" }
      local device = helper.recorder { 0x44 }
      guest.vm:mmio(0x9000, 0x1000, device)
      local exit = assert(guest.cpu:step(2, PATIENCE))
      assert.equal("debug", exit.kind)
      assert.same({ "w 0 1 0x0", "r 0 1" }, device.log)
      assert.equal(u64(0x44), u64.band(guest.cpu.rax, 0xff))
      local rip = guest.cpu.rip
      stepped(guest)
      assert.equal(rip + 1, guest.cpu.rip)
    end)

    it("gives an exit that comes before, and goes on behind it", function()
      local guest = helper.guest { mode = mode, source = "nop\n out 0x30, al\n nop\n nop" }
      assert.equal("pio", assert(guest.cpu:step(4, PATIENCE)).kind)
      assert.equal("pio", assert(guest.cpu:step(1, PATIENCE)).kind)
      guest.cpu:answer()
      assert.equal("debug 0x1003", stepped(guest))
      assert.equal("debug 0x1004", stepped(guest))
    end)

    it("goes along to another space", function()
      local guest = spaces.with_view { mode = mode, source = "nop\n nop\n nop\n out 0x10, al" }
      assert.equal("debug 0x1001", stepped(guest))
      assert(guest.cpu:set_space(guest.view))
      assert.equal("debug 0x1002", stepped(guest))
      assert(guest.cpu:set_space(0))
      guest:stops "pio"
    end)

    it("leaves the guest to run freely afterwards", function()
      local guest = helper.guest { mode = mode,
        source = "nop\n mov cl, 200\nagain: dec cl\n jnz again\n out 0x10, al" }
      stepped(guest)
      local exits = guest.cpu.exits
      guest:stops "pio"
      assert.equal(exits + 1, guest.cpu.exits)
    end)
  end)
end

helper.kvm("cpu:step", function()
  for _, mode in ipairs { "real", "protected", "long" } do
    it("gives HLT as it is, once, in mode " .. mode, function()
      local guest = helper.guest { mode = mode, source = "nop\n hlt\n nop\n nop\n hlt" }
      assert.equal("hlt 0x1002", stepped(guest, 5))
      assert.equal("debug 0x1003", stepped(guest))
      assert.equal("debug 0x1004", stepped(guest))
      assert.equal("0x1005", hex(guest:stops("hlt").rip))
    end)
  end

  it("gives an exception of the instruction, without a trap flag", function()
    local guest = helper.guest { mode = "user", source = "nop\n ud2" }
    local exit = assert(guest.cpu:step(2, PATIENCE))
    assert.same({ "#UD", "0x1001" }, { exit.name, hex(exit.rip) })
    assert.equal(u64(0), u64.band(guest.cpu.rflags, 0x100))
  end)

  it("steps over a breakpoint and does not call cpu:on(\"debug\")", function()
    local guest = helper.guest { mode = "long", source = "nop\n nop\n nop\n out 0x10, al" }
    guest.cpu:on("debug", function() error "called" end)
    local bp = assert(guest.cpu:breakpoint(0x1001))
    assert.equal("debug 0x1003", stepped(guest, 3))
    assert.equal(0, bp.hits)
  end)

  it("takes a string instruction in steps of one element or more", function()
    local guest = helper.guest { mode = "long", rsp = 0x8000,
      source = "mov ecx, 4\n mov edi, 0x9000\n rep stosb\n nop\n out 0x10, al" }
    assert.equal("debug 0x100a", stepped(guest, 2))
    local most = 4
    repeat
      stepped(guest)
      most = most - 1
    until guest.cpu.rip ~= u64(0x100a) or most < 0
    assert.same({ u64(0x100c), u64(0) }, { guest.cpu.rip, guest.cpu.rcx })
  end)

  it("ends at a timeout and at an interrupt", function()
    local guest = helper.guest { mode = "long", source = "again: jmp again" }
    assert.equal("timeout", assert(guest.cpu:step(1e9, { timeout = 0.02 })).kind)
    guest.cpu:interrupt()
    assert.equal("interrupted", assert(guest.cpu:step(10, PATIENCE)).kind)
    assert.equal("debug 0x1000", stepped(guest))
  end)

  it("ends when a handler stops it", function()
    local guest = helper.guest { mode = "long", source = "nop\n out 0x20, al\n nop\n nop" }
    guest.vm:pio(0x20, 1, { write = function() guest.cpu:stop "enough" end })
    local exit = assert(guest.cpu:step(10, PATIENCE))
    assert.same({ "stopped", "enough" }, { exit.kind, exit.value })
  end)

  it("refuses what makes no sense", function()
    local cpu = helper.guest({ source = "nop" }).cpu
    helper.raises("cpu:step: count: a whole number from 1", function() cpu:step(0) end)
    helper.raises("unknown option 'count'", function() cpu:step(1, { count = 1 }) end)
    helper.raises("cpu:step: timeout", function() cpu:step(1, { timeout = -1 }) end)
    cpu:close()
    helper.raises("closed vcpu", function() cpu:step() end)
  end)

  it("may not be called by a handler of the same vCPU", function()
    local guest = helper.guest { mode = "long", source = "hlt" }
    guest.cpu:on("hlt", function(cpu)
      helper.raises("cpu:step: this vCPU is running", function() cpu:step() end)
    end)
    guest:stops "hlt"
  end)
end)
