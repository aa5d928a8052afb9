-- SPDX-License-Identifier: MIT
-- The framework's interrupt controllers from Lua.

local luna = require "lunavisor"
local hv = require "lunavisor.hv"
local helper = require "spec.support.helper"
local support = require "spec.support.hv"
local refused, register = support.refused, support.register
local u64 = luna.u64

local features = luna.probe().features or {}
local TPR, EOI, SVR, ISR, ICR, ICR_HIGH, LVT_TIMER = 0x80, 0xb0, 0xf0, 0x100, 0x300, 0x310, 0x320

local guest, vector = support.interruptible, support.vector

local function block(name, body)
  helper.kvm(name, function()
    if (features.split_irqchip or 0) == 0 then
      it("is in KVM", function() pending "this host's KVM has no split irqchip" end)
      return
    end
    body()
  end)
end

block("hv's interrupts", function()
  it("reach a vCPU by its local APIC", function()
    local id = guest(true)
    assert.is_true(hv.vm_lapic_set_intr(id, 0x41, hv.APIC_EDGE_TRIGGER))
    assert.equal(0x41, vector(id))
    assert.is_true(hv.vm_lapic_set_intr(id, 0x42, hv.APIC_LEVEL_TRIGGER))
    assert.equal(0x42, vector(id))
    assert.is_true(hv.vm_lapic_msi(0xfee00000, 0x43))
    assert.equal(0x43, vector(id))
    assert.is_true(hv.vm_send_ioapic_intr(0x44))
    assert.equal(0x44, vector(id))
    assert.is_true(hv.vm_lapic_msi(0xfee05000, 0x43)) -- nobody
  end)

  it("are refused where they are none", function()
    local id = guest(true)
    refused("bad_argument", "vector 15", hv.vm_lapic_set_intr(id, 15, hv.APIC_EDGE_TRIGGER))
    refused("bad_argument", "trigger 3", hv.vm_lapic_set_intr(id, 32, 3))
    refused("unsupported", "by themselves",
      hv.vm_lapic_set_intr(id, 32, hv.APIC_EDGE_TRIGGER_AEOI))
    refused("bad_argument", "no vCPU 3", hv.vm_lapic_set_intr(3, 32, 0))
    refused("bad_argument", "is no message", hv.vm_lapic_msi(0x1000, 0x41))
    refused("bad_argument", "is no message", hv.vm_lapic_msi(0xfee00000, 2 ^ 32))
  end)

  it("need VM_ACCEL_APIC", function()
    support.vm()
    local id = assert(hv.vcpu_create())
    for _, call in ipairs {
      { "vm_lapic_set_intr", id, 0x41, 0 }, { "vm_lapic_msi", 0xfee00000, 0x41 },
      { "vm_send_ioapic_intr", 0x41 }, { "vm_set_apic_bus_freq", 1e9 },
      { "vm_ioapic_assert_irq", 1 }, { "vm_ioapic_deassert_irq", 1 },
      { "vm_ioapic_pulse_irq", 1 }, { "vm_ioapic_read", 0xfec00000 },
      { "vm_ioapic_write", 0xfec00000, 0 }, { "vm_ioapic_get_state" },
      { "vm_ioapic_put_state", {} }, { "vcpu_apic_read", id, TPR },
      { "vcpu_apic_write", id, TPR, 0 }, { "vcpu_apic_get_state", id },
      { "vcpu_apic_put_state", id, {} }, { "vcpu_apic_ctrl", id, 0 },
      { "vcpu_apic_trigger_lvt", id, 1 }, { "vcpu_apic_lsc_invalidate", id },
      { "vcpu_exit_ioapic_eoi", id }, { "vcpu_exit_init_ap", id, 1 },
      { "vcpu_exit_apic_access_read", id }, { "vcpu_inject_extint", id },
      { "vm_atpic_assert_irq", 1 }, { "vm_atpic_deassert_irq", 1 }, { "vm_atpic_port_read", 0x20 },
      { "vm_atpic_port_write", 0x20, 0x11 }, { "vm_atpic_get_state", true },
      { "vm_atpic_put_state", {}, false },
    } do
      refused("unsupported", "made without VM_ACCEL_APIC",
        hv[call[1]]((table.unpack or unpack)(call, 2)))
    end
  end)
end)

block("hv's local APIC", function()
  it("has registers", function()
    local id = guest(true)
    assert.equal(0x1ff, hv.vcpu_apic_read(id, SVR))
    assert.same({ true, true }, { hv.vcpu_apic_write(id, TPR, 0x30) })
    assert.equal(0x30, hv.vcpu_apic_read(id, TPR))
    assert.same({ true, true }, { hv.vcpu_apic_write(id, 0x30, 0) }) -- read-only: nothing
    for _, offset in ipairs { 0x81, 0x400 } do
      refused("bad_argument", "no register at", hv.vcpu_apic_read(id, offset))
      refused("bad_argument", "no register at", hv.vcpu_apic_write(id, offset, 0))
    end
    refused("bad_argument", "32 bits", hv.vcpu_apic_write(id, TPR, 2 ^ 32))
  end)

  it("has a state that goes out and in", function()
    local id = guest(true)
    assert(hv.vcpu_apic_write(id, TPR, 0x50))
    assert(hv.vcpu_apic_write(id, LVT_TIMER, 0x67))
    local state = assert(hv.vcpu_apic_get_state(id))
    assert.same({ 0xfee00000, 0, 0x50, 0x1ff, 0x67, hv.BS_RUNNING, 8, 7 }, {
      state.apic_gpa, state.apic_id, state.tpr, state.svr, state.lvt[1], state.boot_state,
      #state.irr, #state.lvt,
    })
    state.tpr, state.lvt[1], state.irr[3] = 0x20, 0x68, 2 -- vector 0x41
    assert.is_true(hv.vcpu_apic_put_state(id, state))
    assert.equal(0x20, hv.vcpu_apic_read(id, TPR))
    assert.equal(0x41, vector(id))
    assert.equal(0x68, hv.vcpu_apic_get_state(id).lvt[1])
    state.svr = -1
    refused("bad_argument", "the local APIC's svr", hv.vcpu_apic_put_state(id, state))
    state.svr, state.tsc_deadline = 0x1ff, nil
    refused("bad_argument", "tsc_deadline", hv.vcpu_apic_put_state(id, state))
    state.tsc_deadline, state.boot_state = 0, 7
    refused("bad_argument", "boot_state", hv.vcpu_apic_put_state(id, state))
    assert.equal(0x20, hv.vcpu_apic_read(id, TPR))
  end)

  it("fires its timer's entry", function()
    local id = guest(true)
    assert.is_true(hv.vcpu_apic_trigger_lvt(id, hv.APIC_LVT_FLAVOR_TIMER)) -- masked
    assert(hv.vcpu_apic_write(id, LVT_TIMER, 0x67))
    assert.is_true(hv.vcpu_apic_trigger_lvt(id, hv.APIC_LVT_FLAVOR_TIMER))
    assert.equal(0x67, vector(id))
    refused("bad_argument", "no entry 2", hv.vcpu_apic_trigger_lvt(id, 2))
  end)

  it("sends itself interrupts by its ICR, and ends them", function()
    local id = guest(false)
    assert.same({ true, true }, { hv.vcpu_apic_write(id, ICR, 0x40055) }) -- to itself
    assert.equal(0x55, vector(id))
    local state = assert(hv.vcpu_apic_get_state(id)) -- not every KVM shows what is in service
    state.isr[3], state.tmr[3] = 2 ^ 21 + 1, 1
    assert(hv.vcpu_apic_put_state(id, state))
    assert.same({ true, true }, { hv.vcpu_apic_write(id, EOI, 0) })
    assert.equal(1, hv.vcpu_apic_read(id, ISR + 0x20))
    assert(hv.vcpu_apic_ctrl(id, hv.APIC_CTRL_IOAPIC_EOI))
    assert.same({ true, false }, { hv.vcpu_apic_write(id, EOI, 0) }) -- a level interrupt
    assert.equal(0x40, hv.vcpu_exit_ioapic_eoi(id))
    assert.same({ true, true }, { hv.vcpu_apic_write(id, EOI, 0) }) -- there is none
  end)

  it("starts another vCPU, and says so", function()
    local id, memory = guest(true)
    memory:write(0x9000, "\xe6\x61\xf4") -- out 0x61, al
    local other
    local owner = coroutine.create(function()
      other = assert(hv.vcpu_create())
      coroutine.yield()
      support.stops(other, hv.VMX_REASON_IO)
      coroutine.yield(register(other, hv.X86_CS) * 16 + register(other, hv.X86_RIP))
    end)
    assert(coroutine.resume(owner))
    assert.equal(1, other)
    assert(hv.vcpu_apic_write(id, ICR_HIGH, 0x1000000))
    assert.same({ true, false }, { hv.vcpu_apic_write(id, ICR, 0x4500) })
    assert.equal(hv.VM_EXITINFO_INIT_AP, hv.vcpu_exit_info(id))
    assert.same({ false, true, false }, hv.vcpu_exit_init_ap(id, 3))
    refused("error", "no such information", hv.vcpu_exit_startup_ap(id, 3))
    assert.same({ true, false }, { hv.vcpu_apic_write(id, ICR, 0x4609) })
    local reached, address = hv.vcpu_exit_startup_ap(id, 2)
    assert.same({ { false, true }, 0x9000 }, { reached, address })
    local _, start = assert(coroutine.resume(owner))
    assert.equal(0x9000, start)
  end)

  it("takes the controls that KVM has", function()
    local id = guest(true)
    assert.is_true(hv.vcpu_apic_ctrl(id, hv.APIC_CTRL_DEFAULT))
    refused("unsupported", "cannot do 0x4", hv.vcpu_apic_ctrl(id, hv.APIC_CTRL_NO_TIMER))
    refused("bad_argument", "no controls 0x10", hv.vcpu_apic_ctrl(id, 16))
    assert.is_true(hv.vcpu_apic_ctrl(id, hv.APIC_CTRL_IOAPIC_EOI))
    assert.equal(hv.APIC_CTRL_IOAPIC_EOI, hv.vcpu_apic_get_state(id).apic_controls)
  end)

  it("checks what the load-store cache is told", function()
    local id = guest(true)
    assert.is_true(hv.vcpu_apic_lsc_enter_r32(id, true, 0x1000, 3, 0, hv.X86_RAX))
    assert.is_true(hv.vcpu_apic_lsc_enter_imm32(id, 0x1000, 7, 0, 5))
    assert.is_true(hv.vcpu_apic_lsc_invalidate(id))
    refused("bad_argument", "has 16 bytes", hv.vcpu_apic_lsc_enter_imm32(id, 0, 16, 0, 0))
    refused("bad_argument", "has 0 bytes",
      hv.vcpu_apic_lsc_enter_r32(id, false, 0, 0, 0, hv.X86_RAX))
    refused("bad_argument", "no general one",
      hv.vcpu_apic_lsc_enter_r32(id, true, 0, 3, 0, hv.X86_CS))
  end)

  it("has an address, aligned, in each space", function()
    local id = guest(true)
    assert.is_true(hv.vmx_vcpu_set_apic_address(id, 0xfee00000))
    assert.is_true(hv.vmx_vcpu_set_apic_address_space(id, 0, 0xfee00000))
    refused("bad_argument", "multiple of 4096", hv.vmx_vcpu_set_apic_address(id, 0xfee00010))
    refused("bad_argument", "no space 2", hv.vmx_vcpu_set_apic_address_space(id, 2, 0xfee00000))
  end)

  -- DS is at the page of the local APIC.
  local AT_PAGE = "mov eax, [0xf0]\n mov [0x80], eax\n out 0x60, al\n hlt"

  local function accesses(id, code, qualification)
    support.stops(id, hv.VMX_REASON_APIC_ACCESS)
    assert.same({ code, qualification },
      { hv.vcpu_exit_info(id), support.read(id, hv.VMCS_RO_EXIT_QUALIFIC) })
  end

  it("tells the register that is read where KVM has none", function()
    local id, memory = guest(true, AT_PAGE)
    local asid = assert(hv.vm_space_create())
    assert(hv.vm_map_space(asid, memory, 0, memory.size, support.RWX))
    assert(hv.vcpu_set_space(id, asid))
    assert.is_true(hv.vmx_vcpu_set_apic_address_space(id, asid, 0x40000))
    support.write(id, hv.VMCS_GUEST_DS_BASE, 0x40000)
    refused("error", "no such information", hv.vcpu_exit_apic_access_read(id))
    accesses(id, hv.VM_EXITINFO_APIC_ACCESS_READ, SVR)
    assert.equal(0x1ff, hv.vcpu_exit_apic_access_read(id))
    assert(hv.vcpu_write_register(id, hv.X86_RAX, 0x30))
    support.pass(id)
    accesses(id, hv.VM_EXITINFO_VMX, TPR + 0x1000)
    assert(hv.vcpu_apic_write(id, TPR, hv.ext_vcpu_access(id).value))
    support.pass(id)
    support.stops(id, hv.VMX_REASON_IO)
    assert.equal(0x30, register(id, hv.X86_TPR))
    assert(hv.vcpu_set_space(id, 0))
  end)

  it("is a page of the program's without VM_ACCEL_APIC", function()
    local id = support.guest(AT_PAGE)
    assert.is_true(hv.vmx_vcpu_set_apic_address(id, 0x30000))
    assert.is_true(hv.vmx_vcpu_set_apic_address(id, 0x40000))
    support.write(id, hv.VMCS_GUEST_DS_BASE, 0x30000)
    support.stops(id, hv.VMX_REASON_EPT_VIOLATION)
    support.write(id, hv.VMCS_GUEST_DS_BASE, 0x40000)
    assert(hv.vcpu_write_register(id, hv.X86_RIP, 0x1000))
    accesses(id, hv.VM_EXITINFO_VMX, SVR)
    refused("unsupported", "made without VM_ACCEL_APIC", hv.vcpu_exit_apic_access_read(id))
  end)

  it("has a frequency before the first vCPU", function()
    support.vm(hv.VM_ACCEL_APIC)
    local ok, message, code = hv.vm_set_apic_bus_freq(5e8)
    if not ok then
      refused("unsupported", "", ok, message, code)
      return pending(message)
    end
    refused("bad_argument", "", hv.vm_set_apic_bus_freq(1e6))
    assert(hv.vcpu_create())
    refused("busy", "has vCPUs already", hv.vm_set_apic_bus_freq(5e8))
  end)
end)

block("hv's IOAPIC", function()
  local SELECT, WINDOW = 0xfec00000, 0xfec00010

  local function write(number, data)
    assert(hv.vm_ioapic_write(SELECT, number))
    assert(hv.vm_ioapic_write(WINDOW, data))
  end

  local function read(number)
    assert(hv.vm_ioapic_write(SELECT, number))
    return assert(hv.vm_ioapic_read(WINDOW))
  end

  it("has registers", function()
    support.vm(hv.VM_ACCEL_APIC)
    assert.same({ 0, 0x1f0011, 0, 0x10000 }, { read(0), read(1), read(2), read(0x10) })
    write(0, 0xff000000)
    write(0x12, 0xffffffff)
    write(0x13, 0xffffffff)
    assert.same({ 0xf000000, 0x1afff, 0xff000000, 0x13 },
      { read(0), read(0x12), read(0x13), hv.vm_ioapic_read(SELECT) })
    assert.same({ 0, 0 }, { read(0x50), hv.vm_ioapic_read(0xfec00020) })
    refused("bad_argument", "not at gpa 0xfec01000", hv.vm_ioapic_read(0xfec01000))
    refused("bad_argument", "not at gpa 0x10", hv.vm_ioapic_write(0x10, 0))
    refused("bad_argument", "32 bits", hv.vm_ioapic_write(WINDOW, 2 ^ 32))
  end)

  it("sends an edge once", function()
    local id = guest(true)
    write(0x10 + 2 * 5, 0x45)
    assert.is_true(hv.vm_ioapic_pulse_irq(5))
    assert.equal(0x45, vector(id))
    assert.is_true(hv.vm_ioapic_assert_irq(5))
    assert.is_true(hv.vm_ioapic_assert_irq(5))
    assert.equal(0x45, vector(id))
    assert.is_true(hv.vm_ioapic_deassert_irq(5))
    assert.is_true(hv.vcpu_run_until(id, support.seconds(0.05)))
    assert.equal(hv.VMX_REASON_VMX_TIMER_EXPIRED, support.read(id, hv.VMCS_RO_EXIT_REASON))
    refused("bad_argument", "no pin 32", hv.vm_ioapic_assert_irq(32))
  end)

  it("sends a level again after its end, while it lasts", function()
    local id = guest(true)
    write(0x10 + 2 * 30, 0x8046)
    assert.is_true(hv.vm_ioapic_assert_irq(30))
    assert.equal(0x46, vector(id))
    assert.equal(0x46, vector(id))
    assert.is_true(hv.vm_ioapic_deassert_irq(30))
    -- On a loaded host, nested KVM tells an end while its handler begins: one is on its way then.
    local more = 0
    helper.within(function()
      assert.is_true(hv.vcpu_run_until(id, support.seconds(0.1)))
      if support.read(id, hv.VMCS_RO_EXIT_REASON) == hv.VMX_REASON_IO then
        support.pass(id)
        more = more + 1
        return false
      end
      return read(0x10 + 2 * 30) == 0x8046
    end)
    assert.equal(hv.VMX_REASON_VMX_TIMER_EXPIRED, support.read(id, hv.VMCS_RO_EXIT_REASON))
    assert.is_true(more < 2, more)
  end)

  it("of the program's gets the ends of its level interrupts", function()
    local id = guest(true)
    assert(hv.vcpu_apic_ctrl(id, hv.APIC_CTRL_IOAPIC_EOI))
    refused("error", "no such information", hv.vcpu_exit_ioapic_eoi(id))
    assert.is_true(hv.vm_send_ioapic_intr(0x8047))
    -- On a loaded host, nested KVM tells the end of some while their handlers begin.
    local told = {}
    for _ = 1, 2 do
      assert(hv.vcpu_run_until(id, support.seconds(10)))
      local reason = support.read(id, hv.VMCS_RO_EXIT_REASON)
      if reason == hv.VMX_REASON_VIRTUALIZED_EOI then
        assert.equal(hv.VM_EXITINFO_IOAPIC_EOI, hv.vcpu_exit_info(id))
        told.ended = hv.vcpu_exit_ioapic_eoi(id)
      else
        assert.equal(hv.VMX_REASON_IO, reason)
        told.taken = support.register(id, hv.X86_RAX) % 256
        support.pass(id)
      end
    end
    assert.same({ taken = 0x47, ended = 0x47 }, told)
  end)

  it("has a state that goes out and in", function()
    support.vm(hv.VM_ACCEL_APIC)
    write(0x10, 0x8041)
    local state = assert(hv.vm_ioapic_get_state())
    assert.same({ 32, u64(0x8041), 0, 0x10 },
      { #state.rtbl, state.rtbl[1], state.irr, state.ioregsel })
    state.rtbl[2], state.irr, state.ioa_id = u64 "0xff00000000010042", 4, 0x3000000
    assert.is_true(hv.vm_ioapic_put_state(state))
    assert.same({ 0x10042, 0xff000000, 0x3000000 }, { read(0x12), read(0x13), read(0) })
    state.rtbl[7] = "x"
    refused("bad_argument", "32 entries", hv.vm_ioapic_put_state(state))
    assert.same({ 0x10042, 0x3000000 }, { read(0x12), read(0) })
    refused("bad_argument", "32 entries", hv.vm_ioapic_put_state {})
  end)
end)
