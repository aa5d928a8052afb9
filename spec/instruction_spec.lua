-- SPDX-License-Identifier: MIT
-- Instructions that this host's KVM cannot emulate, and those that no processor has: exits that a
-- handler can finish itself.

local luna = require "lunavisor"
local helper = require "spec.support.helper"

local u64, hex = luna.u64, luna.hex

local _, _, reason = luna.disasm "\x90"
local missing = reason == "unsupported"

local function need_disassembler()
  if missing then pending "this build has no disassembler" end
end

-- A guest in ring 0 that begins with an instruction that KVM's emulator does not know, and its
-- exit. Where the processor runs the guest there is none.
local function guest_with(source, mode)
  local guest = helper.guest { mode = mode or "long", source = source }
  local exit = guest:run()
  if exit.kind ~= "instruction" then
    pending("this host's KVM runs it: " .. tostring(exit))
  end
  return guest, exit
end

local POPCNT = "popcnt eax, ecx\n hlt"

helper.kvm("an instruction that KVM cannot emulate", function()
  it("is an exit of its own kind", function()
    local guest, exit = guest_with(POPCNT)
    assert.same({ "instruction", 1, hex(0x1000) }, { exit.kind, exit.suberror, hex(exit.rip) })
    assert.equal("\xf3\x0f\xb8\xc1", exit.instruction:sub(1, 4))
    assert.equal("instruction (KVM cannot emulate it) at rip 0x1000: "
      .. (missing and "bytes f3 0f b8 c1 f4" .. (" 00"):rep(10) or "popcnt eax, ecx"),
      tostring(exit))
    assert.equal(exit.kind, guest:run().kind) -- and again, as nothing was changed
    guest.cpu.rip = guest.cpu.rip + 4
    local text = tostring(exit)
    guest:stops "hlt"
    guest.ram:fill(0)
    assert.equal(text, tostring(exit)) -- the exit has kept what was there
  end)

  local cases = {
    real = { 16, "popcnt ax, cx", "fldz" }, protected = { 32, "popcnt eax, ecx", "popcnt dx, ax" },
    long = { 64, "popcnt rax, rcx", "popcnt r8, r9" },
  }
  for mode, case in pairs(cases) do
    it("can be done by a handler and skipped in mode " .. mode, function()
      need_disassembler()
      local guest = guest_with(case[2] .. "\n" .. case[3] .. "\n hlt", mode)
      local seen = {}
      guest.cpu:on("instruction", function(cpu, exit)
        seen[#seen + 1] = luna.disasm(exit.instruction, { bits = case[1], count = 1 })[1].text
        cpu.rax = cpu.rax + 5
        return "skip"
      end)
      guest:stops "hlt"
      assert.same({ case[2], case[3] }, seen)
      assert.equal("0xa", hex(guest.cpu.rax))
    end)
  end

  it("is where the handler has set rip", function()
    local guest = guest_with("popcnt eax, ecx\n nop\n nop\n hlt\n popcnt eax, edx\n hlt")
    guest.cpu:on("instruction", function(cpu) -- skip leaves a rip that was set
      cpu.rip = 0x1007
      guest.cpu:on("instruction", function()
        cpu.rip = cpu.rip + 4
        return "continue"
      end)
      return "skip"
    end)
    guest:stops "hlt"
    assert.equal(hex(0x100c), hex(guest.cpu.rip))
  end)

  it("is executed again after a change of memory", function()
    local guest = guest_with(POPCNT)
    guest.cpu:on("instruction", function(cpu)
      cpu:write(cpu.rip, helper.code("mov eax, 7\n hlt", 64))
      return "retry"
    end)
    guest:stops "hlt"
    assert.equal("0x7", hex(guest.cpu.rax))
  end)

  it("can be an exception for the guest", function()
    local guest = guest_with(POPCNT)
    guest.cpu:on("instruction", function() return { inject = "#UD" } end)
    local exit = guest:stops "exception"
    assert.same({ "#UD", hex(0x1000) }, { exit.name, hex(exit.rip) })
  end)

  it("is given back where the handler says so", function()
    local guest = guest_with(POPCNT)
    local count = 0
    guest.cpu:on("instruction", function() count = count + 1 end)
    assert.equal("instruction", guest:run().kind)
    guest.cpu:on("instruction", function() count = count + 1 return "stop" end)
    assert.equal("instruction", guest:run().kind)
    assert.equal(2, count)
  end)

  it("leaves nothing behind when it is skipped", function()
    need_disassembler()
    -- KVM may have queued a #UD, which must not come now.
    local guest = guest_with("again: popcnt eax, ecx\n dec bl\n jnz again\n hlt")
    guest.cpu.rbx = 20
    local count = 0
    guest.cpu:on("instruction", function() count = count + 1 return "skip" end)
    guest:stops "hlt"
    assert.equal(20, count)
  end)
end)

helper.kvm("an exception", function()
  it("can be skipped: its instruction is not done", function()
    need_disassembler()
    for _, mode in ipairs { "protected", "long", "user" } do
      local guest = helper.guest { mode = mode, source = "ud2\n inc eax\n out 0x10, al" }
      guest.cpu:on("exception", function() return "skip" end)
      guest:stops "pio"
      assert.equal("0x1", hex(guest.cpu.rax))
    end
  end)

  it("can be retried", function()
    local guest = helper.guest { mode = "user", source = "mov rax, [rbx]\n out 0x10, al" }
    guest.ram:u64(0x4000, 77)
    guest.cpu.rbx = u64 "0x7fff00000000"
    guest.cpu:on("exception", function(cpu)
      cpu.rbx = 0x4000
      return "retry"
    end)
    guest:stops "pio"
    assert.equal(hex(77), hex(guest.cpu.rax))
  end)

  it("cannot be skipped where its instruction is done", function()
    local guest = helper.guest { mode = "user", source = "int3\n out 0x10, al" }
    guest.cpu:on("exception", function() return "skip" end)
    helper.contains('with "skip": that is for a pio, mmio, msr, fault or instruction exit or an '
      .. "exception that an instruction failed with", helper.fails(guest))
  end)

  it("says that hlt cannot be skipped or retried", function()
    local guest = helper.guest { source = "hlt" }
    guest.cpu:on("hlt", function() return "skip" end)
    helper.contains('answered hlt at rip 0x1001 with "skip": that is for a pio',
      helper.fails(guest))
  end)
end)
