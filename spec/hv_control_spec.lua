-- SPDX-License-Identifier: MIT
-- VMX controls on an accelerator that follows them, from Lua: instruction, exit reason,
-- qualification, length and information.

local luna = require "lunavisor"
local hv = require "lunavisor.hv"
local helper = require "spec.support.helper"
local support = require "spec.support.hv"
local read, register = support.read, support.register

local function set(id, field, bits)
  support.write(id, field, luna.u64.bor(read(id, field), bits))
end

-- Of real mode; BX is 0x2000, DX 0x3f8, SI 0x2100, DI 0x2200.
local rows = {
  { "cpuid", reason = "CPUID" },
  { "rdtsc", reason = "RDTSC", control = "RDTSC" },
  { "rdpmc", reason = "RDPMC", control = "RDPMC" },
  { "invd", reason = "INVD" },
  { "wbinvd", reason = "WBINVD", further = "WBINVD" },
  { "pause", reason = "PAUSE", control = "PAUSE" },
  { "vmcall", reason = "VMCALL" },
  { "mov cr3, eax", reason = "MOV_CR", control = "CR3_LOAD", qualification = 3 },
  { "mov esi, cr3", reason = "MOV_CR", control = "CR3_STORE", qualification = 0x613 },
  { "mov dr1, edi", reason = "MOV_DR", control = "MOV_DR", qualification = 0x701 },
  { "invlpg [bx]", reason = "INVLPG", control = "INVLPG", qualification = 0x2000 },
  { "lidt [bx + 6]", reason = "GDTR_IDTR", further = "DESC_TABLE", qualification = 6,
    information = 0x31c18000 },
  { "in al, dx", reason = "IO", qualification = 0x3f80008 },
  { "out 0x80, ax", reason = "IO", qualification = 0x800041 },
  { "rep outsb", reason = "IO", qualification = 0x3f80030, information = 0x18000 },
  { "int3", reason = "EXC_NMI", bitmap = 8, interruption = 0x80000603 },
  { "into", reason = "EXC_NMI", bitmap = 0x10, interruption = 0x80000604, overflow = true },
  { "ud2", reason = "EXC_NMI", bitmap = 0x40, interruption = 0x80000306, fault = true },
}

helper.kvm("hv's controls", function()
  for _, row in ipairs(rows) do
    it(("make an exit of %s"):format(row[1]), function()
      if luna.capability "controls" == 0 then pending "KVM follows no controls" end
      local id = support.guest(row[1] .. "\n hlt")
      if row.control then set(id, hv.VMCS_CTRL_CPU_BASED, hv["CPU_BASED_" .. row.control]) end
      if row.further then set(id, hv.VMCS_CTRL_CPU_BASED2, hv["CPU_BASED2_" .. row.further]) end
      if row.bitmap then support.write(id, hv.VMCS_CTRL_EXC_BITMAP, row.bitmap) end
      for name, value in pairs { RBX = 0x2000, RDX = 0x3f8, RSI = 0x2100, RDI = 0x2200, RCX = 1,
        RFLAGS = row.overflow and 0x802 or 2 } do
        assert(hv.vcpu_write_register(id, hv["X86_" .. name], value))
      end
      support.stops(id, hv["VMX_REASON_" .. row.reason])
      assert.equal(0x1000, register(id, hv.X86_RIP))
      assert.equal(row.qualification or 0, read(id, hv.VMCS_RO_EXIT_QUALIFIC))
      assert.equal(row.information or 0, read(id, hv.VMCS_RO_VMX_INSTR_INFO))
      assert.equal(row.interruption or 0, read(id, hv.VMCS_RO_VMEXIT_IRQ_INFO))
      assert.equal(0, read(id, hv.VMCS_RO_IDT_VECTOR_INFO))
      if not row.fault then
        support.pass(id)
        support.stops(id, hv.VMX_REASON_HLT)
      end
    end)
  end

  it("tell of an interrupt that no table has", function()
    if luna.capability "controls" == 0 then pending "KVM follows no controls" end
    local id = support.guest "int 0x21\n hlt"
    support.write(id, hv.VMCS_CTRL_EXC_BITMAP, 0xffffffff)
    support.write(id, hv.VMCS_GUEST_IDTR_LIMIT, 0)
    support.stops(id, hv.VMX_REASON_EXC_NMI)
    assert.equal(0x80000421, read(id, hv.VMCS_RO_IDT_VECTOR_INFO))
    support.pass(id)
    support.stops(id, hv.VMX_REASON_HLT)
  end)

  it("are refused with the way to have them", function()
    if luna.capability "controls" == 1 then pending "they are followed" end
    local id = support.guest "hlt"
    local with = luna.u64.bor(read(id, hv.VMCS_CTRL_CPU_BASED), hv.CPU_BASED_RDTSC)
    support.refused("bad_argument", "LUNA_ACCEL=soft",
      hv.vmx_vcpu_write_vmcs(id, hv.VMCS_CTRL_CPU_BASED, with))
    support.refused("unsupported", "LUNA_ACCEL=soft",
      hv.vmx_vcpu_write_vmcs(id, hv.VMCS_CTRL_EXC_BITMAP, 2))
    local shadowing = luna.u64.bor(read(id, hv.VMCS_CTRL_CPU_BASED2), hv.CPU_BASED2_VMCS_SHADOW)
    support.refused("bad_argument", "LUNA_ACCEL=soft",
      hv.vmx_vcpu_write_vmcs(id, hv.VMCS_CTRL_CPU_BASED2, shadowing))
  end)
end)

helper.kvm("hv's shadow VMCS", function()
  local access = hv.SHADOW_VMCS_READ + hv.SHADOW_VMCS_WRITE

  it("has fields that the guest reads and writes without an exit", function()
    if luna.capability "shadow_vmcs" == 0 then pending "KVM has none" end
    local id = support.guest "vmread eax, esi\n vmwrite esi, edi\n vmread [bx], esi\n hlt"
    support.write(id, hv.VMCS_GUEST_CR0, 0x31) -- protected mode, of 16 bits
    support.write(id, hv.VMCS_GUEST_CR4, 0x2000)
    for name, value in pairs { RSI = hv.VMCS_RO_EXIT_QUALIFIC, RDI = 0x9898, RBX = 0x2000 } do
      assert(hv.vcpu_write_register(id, hv["X86_" .. name], value))
    end
    support.stops(id, hv.VMX_REASON_VMREAD)
    set(id, hv.VMCS_CTRL_CPU_BASED2, hv.CPU_BASED2_VMCS_SHADOW)
    support.stops(id, hv.VMX_REASON_VMREAD) -- the field is not the guest's yet
    assert.equal(0x60000400, read(id, hv.VMCS_RO_VMX_INSTR_INFO))
    assert.is_true(hv.vmx_vcpu_write_shadow_vmcs(id, hv.VMCS_RO_EXIT_QUALIFIC, 0x111))
    assert.is_true(hv.vmx_vcpu_set_shadow_access(id, hv.VMCS_RO_EXIT_QUALIFIC, access))
    support.stops(id, hv.VMX_REASON_HLT)
    assert.equal(0x111, register(id, hv.X86_RAX))
    assert.equal(luna.u64(0x9898), hv.vmx_vcpu_read_shadow_vmcs(id, hv.VMCS_RO_EXIT_QUALIFIC))
    assert.equal(0, read(id, hv.VMCS_RO_EXIT_QUALIFIC))
  end)

  it("keeps what its fields can hold", function()
    if luna.capability "shadow_vmcs" == 0 then pending "KVM has none" end
    support.vm()
    local id, wide = assert(hv.vcpu_create()), luna.u64 "0x8877665544332211"
    assert.is_true(hv.vmx_vcpu_write_shadow_vmcs(id, hv.VMCS_GUEST_RIP, wide))
    assert.equal(wide, hv.vmx_vcpu_read_shadow_vmcs(id, hv.VMCS_GUEST_RIP))
    assert.is_true(hv.vmx_vcpu_set_shadow_access(id, hv.VMCS_CTRL_EPTP, access))
    support.refused("bad_argument", "no field 0x801", hv.vmx_vcpu_read_shadow_vmcs(id, 0x801))
    assert.is_true(hv.vmx_vcpu_write_shadow_vmcs(id, hv.VMCS_GUEST_ES, 0x12345))
    assert.equal(luna.u64(0x2345), hv.vmx_vcpu_read_shadow_vmcs(id, hv.VMCS_GUEST_ES))
    support.refused("bad_argument", "0x4 is no access",
      hv.vmx_vcpu_set_shadow_access(id, hv.VMCS_GUEST_ES, 4))
  end)

  it("is KVM's own there", function()
    if luna.capability "shadow_vmcs" == 1 then pending "it is the program's" end
    support.vm()
    local id = assert(hv.vcpu_create())
    for _, result in ipairs {
      { hv.vmx_vcpu_read_shadow_vmcs(id, hv.VMCS_GUEST_ES) },
      { hv.vmx_vcpu_write_shadow_vmcs(id, hv.VMCS_GUEST_ES, 0) },
      { hv.vmx_vcpu_set_shadow_access(id, hv.VMCS_GUEST_ES, access) },
    } do
      support.refused("unsupported", "to itself; the software CPU (LUNA_ACCEL=soft)",
        result[1], result[2], result[3])
    end
  end)
end)
