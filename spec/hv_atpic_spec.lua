-- SPDX-License-Identifier: MIT
-- The framework's PICs from Lua, and what its VMCS has for programs that are controllers.

local luna = require "lunavisor"
local hv = require "lunavisor.hv"
local helper = require "spec.support.helper"
local support = require "spec.support.hv"
local refused, vector, quiet = support.refused, support.vector, support.quiet

local split = (luna.probe().features or {}).split_irqchip or 0
local LINT0 = 0x350

local function out(port, value)
  assert.is_true(hv.vm_atpic_port_write(port, value))
end

local function read(port)
  return assert(hv.vm_atpic_port_read(port))
end

local function set(...)
  for _, line in ipairs { ... } do assert.is_true(hv.vm_atpic_assert_irq(line)) end
end

local function clear(line)
  assert.is_true(hv.vm_atpic_deassert_irq(line))
end

-- As firmware does it: vectors from 8 and 0x70, all lines open.
local function set_up(last)
  for _, chip in ipairs { { 0x20, 0x08, 4 }, { 0xa0, 0x70, 2 } } do
    out(chip[1], 0x11)
    for _, word in ipairs { chip[2], chip[3], last or 1, 0 } do out(chip[1] + 1, word) end
  end
end

local function guest(last)
  local id = support.interruptible(false)
  assert(hv.vcpu_apic_write(id, LINT0, 0x700))
  set_up(last)
  return id
end

local function finish(found)
  if found >= 0x70 then out(0xa0, 0x20) end
  out(0x20, 0x20)
end

helper.kvm("hv's PICs", function()
  if split == 0 then
    it("are in a VM with VM_ACCEL_APIC", function()
      pending "this host's KVM has no split irqchip"
    end)
    return
  end

  it("lead their lines to vCPU 0", function()
    local id = guest()
    set(1)
    assert.equal(9, vector(id))
    assert.equal(0, read(0x20)) -- IRR
    out(0x20, 0x0b)
    assert.equal(2, read(0x20)) -- ISR
    finish(9)
    assert.equal(0, read(0x20))
    quiet(id) -- an edge
    clear(1)
    set(12)
    assert.equal(0x74, vector(id))
    finish(0x74)
    quiet(id)
    for _, line in ipairs { 2, 16 } do
      refused("bad_argument", "no line " .. line, hv.vm_atpic_assert_irq(line))
      refused("bad_argument", "no line " .. line, hv.vm_atpic_deassert_irq(line))
    end
    refused("bad_argument", "negative", hv.vm_atpic_assert_irq(-1))
  end)

  it("have priorities", function()
    local id = guest()
    set(5)
    assert.equal(13, vector(id))
    set(6, 0, 8) -- below the one in service, above it, and the second chip's: at line 2
    assert.equal(8, vector(id))
    finish(8)
    assert.equal(0x70, vector(id))
    finish(0x70)
    quiet(id)
    finish(13)
    assert.equal(14, vector(id))
  end)

  it("hold lines up by masks", function()
    local id = guest()
    out(0x21, 0xff)
    assert.equal(0xff, read(0x21))
    set(3)
    clear(3) -- the edge is kept
    quiet(id)
    assert.equal(8, read(0x20))
    out(0x21, 0xf7)
    assert.equal(11, vector(id))
  end)

  it("send levels again", function()
    local id = guest()
    out(0x4d0, 0xff)
    out(0x4d1, 0xff)
    assert.same({ 0xf8, 0xde }, { read(0x4d0), read(0x4d1) }) -- 0 to 2, 8 and 13 are edges
    set(10)
    for _ = 1, 3 do
      assert.equal(0x72, vector(id))
      finish(0x72)
    end
    clear(10)
    local left = 0 -- one may be on its way to the guest
    assert(hv.vcpu_run_until(id, support.seconds(0.02)))
    while support.read(id, hv.VMCS_RO_EXIT_REASON) == hv.VMX_REASON_IO and left < 2 do
      support.pass(id)
      finish(0x72)
      left = left + 1
      assert(hv.vcpu_run_until(id, support.seconds(0.02)))
    end
    assert.truthy(left < 2)
  end)

  it("end interrupts by themselves", function()
    local id = guest(3) -- AEOI
    for _ = 1, 2 do
      set(4)
      clear(4)
      assert.equal(12, vector(id))
    end
    out(0x20, 0x0b)
    assert.equal(0, read(0x20))
    out(0x20, 0x80) -- and rotate
    set(4)
    assert.equal(12, vector(id))
    assert.equal(4, hv.vm_atpic_get_state(true).lowprio)
  end)

  it("rotate priorities", function()
    local id = guest()
    out(0x20, 0xc3) -- line 3 is the lowest: 4 the highest
    set(3, 4)
    assert.equal(12, vector(id))
    out(0x20, 0xa0) -- ends it, and makes it the lowest
    assert.equal(11, vector(id))
    out(0x20, 0x63) -- ends line 3 by its number
    clear(4)
    set(4, 5)
    assert.equal(13, vector(id)) -- behind the lowest is the highest
  end)

  it("can be polled, without a vCPU", function()
    support.vm(hv.VM_ACCEL_APIC)
    set(6)
    out(0x20, 0x0c)
    assert.equal(0, read(0x20)) -- not initialized
    clear(6)
    set_up()
    out(0x20, 0x0c)
    assert.equal(0, read(0x20)) -- nothing is there
    set(6)
    out(0x20, 0x0c)
    assert.equal(0x86, read(0x21))
    out(0x20, 0x0b)
    assert.equal("64", tostring(read(0x20))) -- it is in service
  end)

  it("let lower lines through in special mask mode", function()
    local id = guest()
    set(1)
    assert.equal(9, vector(id))
    set(7)
    quiet(id)
    out(0x21, 0x02)
    out(0x20, 0x68)
    assert.equal(15, vector(id))
  end)

  it("let the second chip interrupt itself in special fully nested mode", function()
    local id = guest(0x11)
    set(12)
    assert.equal(0x74, vector(id))
    set(9) -- above it
    assert.equal(0x71, vector(id))
  end)

  it("withdraw what is gone", function()
    local id = guest()
    out(0x4d0, 0x20)
    set(5)
    clear(5)
    quiet(id)
    set(9)
    out(0xa1, 0xff)
    quiet(id)
    assert.equal(0, read(0x20))
    out(0x20, 0x0c)
    assert.equal(0, read(0x20))
  end)

  it("give the vector of line 7 where they have nothing left", function()
    local id = guest()
    local state = assert(hv.vm_atpic_get_state(true))
    state.intr_raised = true
    assert.is_true(hv.vm_atpic_put_state(state, true))
    assert.equal(15, vector(id))
    assert.equal(0, hv.vm_atpic_get_state(true).service)
  end)

  it("are injected by the program", function()
    local id = guest()
    assert(hv.vcpu_apic_write(id, LINT0, 0x10700)) -- masked
    set(1)
    quiet(id)
    assert(hv.vcpu_apic_write(id, LINT0, 0x700))
    assert.equal(9, vector(id))
    finish(9)
    assert.is_true(hv.vcpu_inject_extint(id))
    refused("busy", "queued already", hv.vcpu_inject_extint(id))
    quiet(id) -- nothing is requested yet
    set(5)
    assert.equal(13, vector(id))
    assert.is_true(hv.vcpu_inject_extint(id)) -- it was used up
  end)

  it("do not hide hv.vcpu_interrupt", function()
    local id = guest()
    set(1)
    assert.is_true(hv.vcpu_interrupt { id })
    support.stops(id, hv.VMX_REASON_IRQ)
    assert.equal(9, vector(id))
  end)

  it("have a state that goes out and in", function()
    local id = guest()
    out(0x21, 0xfd)
    local state = assert(hv.vm_atpic_get_state(true))
    assert.same({ true, 8, 0xfd, 1, 7 },
      { state.ready, state.irq_base, state.mask, state.icw_num, state.lowprio })
    set(3)
    assert.equal(8, read(0x20))
    assert.is_true(hv.vm_atpic_put_state(state, true))
    assert.equal(0, read(0x20))
    state = assert(hv.vm_atpic_get_state(false))
    assert.equal(0x70, state.irq_base)
    state.irq_base = luna.u64(0x50)
    assert.is_true(hv.vm_atpic_put_state(state, false))
    out(0x21, 0xfb)
    set(9)
    assert.equal(0x51, vector(id))
  end)

  it("refuse what is no state", function()
    support.vm(hv.VM_ACCEL_APIC)
    for name, value in pairs { lowprio = 8, icw_num = 0, mask = 256, elc = "x", ready = 1 } do
      local state = hv.vm_atpic_get_state(false)
      state[name] = value
      refused("bad_argument", name .. " cannot be " .. value, hv.vm_atpic_put_state(state, false))
    end
    refused("bad_argument", "cannot be nil", hv.vm_atpic_put_state({}, true))
    assert.equal(7, hv.vm_atpic_get_state(false).lowprio)
    helper.raises("hv.vm_atpic_get_state: is_primary: true or false expected, got nil",
      function() hv.vm_atpic_get_state() end)
  end)

  it("have six ports of 8 bits", function()
    support.vm(hv.VM_ACCEL_APIC)
    for _, port in ipairs { 0, 0x22, 0x1f, 0xa2, 0x4d2 } do
      refused("bad_argument", ("no port 0x%x"):format(port), hv.vm_atpic_port_read(port))
      refused("bad_argument", ("no port 0x%x"):format(port), hv.vm_atpic_port_write(port, 0))
    end
    refused("bad_argument", "8 bits, not 0x100", hv.vm_atpic_port_write(0x21, 256))
  end)
end)

helper.kvm("hv's VMCS", function()
  local WINDOW, INFO = hv.CPU_BASED_IRQ_WND, hv.VMCS_CTRL_VMENTRY_IRQ_INFO

  -- A KVM that emulates looks for the window only now and then: the guest waits for it.
  it("has the interrupt window", function()
    local id, memory = support.guest "nop\n sti\n nop\n wait_for_it: jmp wait_for_it"
    memory:write(0x3000, "\xf4")
    memory:u32(0x21 * 4, 0x3000)
    local controls = support.read(id, hv.VMCS_CTRL_CPU_BASED)
    support.write(id, hv.VMCS_CTRL_CPU_BASED, controls + WINDOW)
    assert.equal(controls + WINDOW, support.read(id, hv.VMCS_CTRL_CPU_BASED))
    support.stops(id, hv.VMX_REASON_IRQ_WND)
    local rip = support.register(id, hv.X86_RIP)
    assert.truthy(rip >= 0x1002)
    support.stops(id, hv.VMX_REASON_IRQ_WND) -- it is open still
    assert.same({ rip, 0 }, { support.register(id, hv.X86_RIP),
      support.read(id, hv.VMCS_RO_VMEXIT_INSTR_LEN) })
    support.write(id, hv.VMCS_CTRL_CPU_BASED, controls)
    support.write(id, INFO, hv.IRQ_INFO_VALID + hv.IRQ_INFO_EXT_IRQ + 0x21)
    support.stops(id, hv.VMX_REASON_HLT)
    assert.equal(0x3000, support.register(id, hv.X86_RIP))
  end)

  it("has none where KVM has the local APIC", function()
    if split == 0 then pending "this host's KVM has no split irqchip" return end
    support.vm(hv.VM_ACCEL_APIC)
    local id = assert(hv.vcpu_create())
    local controls = support.read(id, hv.VMCS_CTRL_CPU_BASED)
    refused("bad_argument", "outside the capability",
      hv.vmx_vcpu_write_vmcs(id, hv.VMCS_CTRL_CPU_BASED, controls + WINDOW))
  end)

  it("tells what blocks events, and takes it", function()
    local id = support.guest "nop\n hlt"
    for _, value in ipairs { 1, 2, 8, 11, 0 } do
      support.write(id, hv.VMCS_GUEST_INTERRUPTIBILITY, value)
      assert.equal(value, support.read(id, hv.VMCS_GUEST_INTERRUPTIBILITY))
    end
    refused("bad_argument", "0xb are known",
      hv.vmx_vcpu_write_vmcs(id, hv.VMCS_GUEST_INTERRUPTIBILITY, 4))
  end)
end)
