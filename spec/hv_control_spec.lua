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
  end)
end)
