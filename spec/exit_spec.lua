-- SPDX-License-Identifier: MIT
-- Exits of every kind, over the fake KVM: their fields, their texts, and that the vCPU runs on.

local luna = require "lunavisor"
local fake = require "spec.support.fake"
local helper = require "spec.support.helper"

local u64 = luna.u64

-- KVM_EXIT_* of <linux/kvm.h>
local reasons = {
  [0] = "unknown", "exception", "io", "hypercall", "debug", "hlt", "mmio", "irq_window_open",
  "shutdown", "fail_entry", "intr", "set_tpr", "tpr_access", "s390_sieic", "s390_reset", "dcr",
  "nmi", "internal_error", "osi", "papr_hcall", "s390_ucontrol", "watchdog", "s390_tsch", "epr",
  "system_event", "s390_stsi", "ioapic_eoi", "hyperv", "arm_nisv", "x86_rdmsr", "x86_wrmsr",
  "dirty_ring_full", "ap_reset_hold", "x86_bus_lock", "xen", "riscv_sbi", "riscv_csr", "notify",
  "loongarch_iocsr", "memory_fault", "tdx", "arm_sea",
}

-- The bytes of a KVM's port write of one byte, or of a memory access of four.
local ACCESS = { u64(1, 0x101), 0x1000, 4 }

local vm, cpu

local function begin(options)
  vm = helper.keep(luna.vm(options))
  cpu = helper.keep(vm:vcpu { mode = "real" })
end

local function exit_of(reason, words)
  fake.exit(reason, words)
  return assert(cpu:run { timeout = 60 })
end

local function halts()
  assert.equal("hlt", cpu:run({ timeout = 60 }).kind)
end

describe("over the fake", function()
  before_each(fake.install)

  after_each(function()
    helper.clean()
    fake.remove()
  end)

  describe("an exit", function()
    it("has a name and a text for every number that KVM knows", function()
      begin()
      cpu:on("signal", function() return "stop" end)
      -- What the core deals with, or needs more of the run page.
      local others = { intr = true, dirty_ring_full = true, irq_window_open = true }
      for reason = 0, #reasons do
        if not others[reasons[reason]] then
          local exit = exit_of(reason, ACCESS)
          assert.equal(reason, exit.reason)
          assert.equal(reasons[reason], exit.reason_name)
          local text = tostring(exit)
          assert.equal(exit.kind, text:match "^[%w_]+")
          assert.matches(" at rip 0x%x+", text)
          if exit.kind == "other" then helper.contains(exit.reason_name .. ": ", text) end
          if exit.access then cpu:answer(0) end
          halts()
        end
      end
    end)

    it("comes from vm:run too, and has its text while the vCPU is started, and closed", function()
      begin()
      local others = { intr = true, dirty_ring_full = true, irq_window_open = true }
      local seen = {}
      for reason = 0, 200 do
        if not others[reasons[reason] or ""] then
          fake.exit(reason, ACCESS)
          local exit, from = vm:run { timeout = 60 }
          assert.equal(cpu, from)
          assert.equal(reason, exit.reason)
          assert.equal(cpu, exit.cpu)
          seen[#seen + 1] = exit
          assert.equal("string", type(tostring(exit)))
          if exit.access then cpu:answer(0) end
          halts()
        end
      end
      assert(cpu:start())
      for _, exit in ipairs(seen) do assert.equal(exit.kind, tostring(exit):match "^[%w_]+") end
      cpu:close()
      for _, exit in ipairs(seen) do assert.equal(exit.kind, tostring(exit):match "^[%w_]+") end
    end)

    it("of an unknown number says so with what is on the run page", function()
      begin()
      local exit = exit_of(200, { 1, u64 "0xfedcba9876543210", 0, 4 })
      assert.equal("other", exit.kind)
      assert.equal(200, exit.reason)
      assert.is_nil(exit.reason_name)
      assert.equal(16, #exit.data)
      assert.equal("0xfedcba9876543210", luna.hex(exit.data[2]))
      helper.contains("other (KVM exit reason 200, unknown to this library, "
        .. "data 0x1 0xfedcba9876543210 0x0 0x4) at rip", tostring(exit))
      assert.is_nil(exit.access)
      halts()
    end)

    it("that has no kind goes to the handler of other", function()
      begin()
      local seen
      cpu:on("other", function(_, exit)
        seen = exit.reason_name
        return "continue"
      end)
      assert.equal("hlt", exit_of(33, {}).kind)
      assert.equal("x86_bus_lock", seen)
    end)
  end)

  describe("other", function()
    it("has the hardware's reason where KVM does not know it", function()
      begin()
      local exit = exit_of(0, { 0x80000021 })
      assert.equal("0x80000021", luna.hex(exit.value))
      helper.contains("unknown: the processor left the guest", tostring(exit))
    end)

    it("has the vector of an exception", function()
      begin()
      local exit = exit_of(1, { u64(0x18, 14) })
      assert.same({ 14, 0x18, "#PF" }, { exit.vector, exit.error_code, exit.name })
    end)

    it("says whether the guest that was too long away from events can go on", function()
      begin()
      assert.is_true(exit_of(37, { 0 }).context_valid)
      assert.is_false(exit_of(37, { 1 }).context_valid)
    end)
  end)

  describe("a system event", function()
    for type, name in ipairs { "shutdown", "reset", "crash", "wakeup", "suspend", "sev_term" } do
      it("can be " .. name, function()
        begin()
        local exit = exit_of(24, { u64(1, type), 0x77 })
        assert.same({ "system_event", type, name }, { exit.kind, exit.type, exit.name })
        assert.equal(1, #exit.data)
        helper.contains(("system_event (the guest asks for %s, data 0x77)"):format(name),
          tostring(exit))
        halts()
      end)
    end

    it("of an unknown type has its number", function()
      begin()
      helper.contains("the guest asks for type 99)", tostring(exit_of(24, { 99 })))
    end)
  end)

  it("the end of an interrupt has its vector", function()
    begin()
    local exit = exit_of(26, { 0x31 })
    assert.same({ "eoi", 0x31 }, { exit.kind, exit.vector })
    helper.contains("eoi (vector 0x31)", tostring(exit))
    halts()
  end)

  it("a task priority is lowered or accessed", function()
    begin()
    local lowered = exit_of(11, {})
    assert.same({ "tpr", 0 }, { lowered.kind, lowered.value })
    helper.contains("tpr (lowered to 0)", tostring(lowered))
    local written = exit_of(12, { 0x1234, 1 })
    assert.is_true(written.write)
    helper.contains("tpr (written by the instruction at 0x1234)", tostring(written))
    helper.contains("tpr (read by", tostring(exit_of(12, { 0x1234, 0 })))
    halts()
  end)

  describe("a hypercall", function()
    local CALL = { 12, 0x1000, 2, 0x10, 0, 0, 0, 0, 1 }

    it("has its number and arguments, and waits for an answer", function()
      begin { hypercalls = true }
      local exit = exit_of(3, CALL)
      assert.same({ "hypercall", 12, "map_gpa_range", true, 6 },
        { exit.kind, exit.number, exit.name, exit.long, #exit.arguments })
      assert.equal("0x1000", luna.hex(exit.arguments[1]))
      helper.contains("hypercall (number 12, map_gpa_range, data 0x1000 0x2 0x10)", tostring(exit))
      assert.equal("hypercall", cpu:run().kind)
      cpu:answer(u64 "0xfffffffffffffc18") -- -KVM_ENOSYS
      halts()
      assert.equal("0xfffffffffffffc18", luna.hex(cpu.rax))
    end)

    it("takes a handler's value", function()
      begin { hypercalls = true }
      cpu:on("hypercall", function(_, exit) return exit.number + 1 end)
      assert.equal("hlt", exit_of(3, CALL).kind)
      assert.equal("0xd", luna.hex(cpu.rax))
    end)

    it("is refused what is for memory", function()
      begin()
      cpu:on("hypercall", function() return "retry" end)
      local ok, message = pcall(exit_of, 3, CALL)
      assert.is_false(ok)
      helper.contains("cannot retry a hypercall", message)
      cpu:on("hypercall", function() return "skip" end)
      assert.equal("hlt", cpu:run().kind)
      assert.equal("0xffffffffffffffff", luna.hex(cpu.rax))
    end)
  end)

  it("an open exit is not replayed by an interruption", function()
    begin()
    local count = 0
    vm:pio(0x10, 1, { write = function()
      count = count + 1
      cpu:interrupt()
    end })
    fake.exit(2, { u64(1, 0x100101), 0x1000 })
    assert.equal("interrupted", cpu:run().kind)
    halts()
    assert.equal(1, count)
  end)
end)

helper.kvm("an exit", function()
  it("says what has happened, and cannot be set", function()
    local guest = helper.guest { source = "out 0x10, al\n in al, 0x10\n hlt" }
    for _ = 1, 2 do
      local exit = guest:stops "pio"
      helper.raises("an exit's value cannot be set: it says what has happened; return the answer "
        .. "from the handler, or call cpu:answer", function() exit.value = 7 end)
      helper.raises("set cpu.rip to go on elsewhere", function() exit.rip = 0x1000 end)
      helper.raises("an exit has no field 'reson'", function() return exit.reson end)
      helper.raises("an exit has no field 'answer' that can be set",
        function() exit.answer = 1 end)
      guest.cpu:answer(0)
    end
  end)
end)
