/* SPDX-License-Identifier: MIT
 * The Hypervisor framework on the software CPU, which follows every control: what it offers, and
 * what the exit fields of the VMCS say. */
#include "fixture/hvf_fixture.h"

enum {
  NE = 0x20,
  VMXE = 0x2000
};

static void add_controls(uint32_t number, uint32_t bits) {
  set_field(number, field(number) | bits);
}

static void capabilities_tell_of_what_is_followed(void) {
  const uint64_t processor = CPU_BASED_RDTSC | CPU_BASED_CR3_LOAD | CPU_BASED_MOV_DR |
                             CPU_BASED_PAUSE | CPU_BASED_TPR_SHADOW;
  const uint64_t further =
      CPU_BASED2_DESC_TABLE | CPU_BASED2_WBINVD | CPU_BASED2_RDRAND | CPU_BASED2_RDSEED;
  uint64_t before, value, must, may;
  HV(hv_vmx_read_capability(HV_VMX_CAP_PROCBASED, &before)); /* of the VM that would be made */
  BEGIN(0xf4);
  HV(hv_vmx_read_capability(HV_VMX_CAP_PROCBASED, &value));
  CHECK_EQ(value, before);
  CHECK_EQ(value >> 32 & processor, processor);
  HV(hv_vmx_vcpu_get_cap_write_vmcs(vcpu, VMCS_CTRL_CPU_BASED2, &must, &may));
  CHECK_EQ(may & further, further);
  HV(hv_vmx_vcpu_get_cap_write_vmcs(vcpu, VMCS_CTRL_EXC_BITMAP, &must, &may));
  CHECK_EQ(may, UINT32_MAX);
  end();
}

/* What runners of old programs do: no IDT, and all exceptions. */
static void an_interrupt_is_told_by_its_gp(void) {
  BEGIN(0xb4, 0x4c, 0xcd, 0x21, 0xf4); /* mov ah, 0x4c; int 0x21; hlt */
  set_field(VMCS_CTRL_EXC_BITMAP, UINT32_MAX);
  set_field(VMCS_GUEST_IDTR_LIMIT, 0);
  CHECK_EQ(run(), VMX_REASON_EXC_NMI);
  CHECK_EQ(field(VMCS_RO_VMEXIT_IRQ_INFO), IRQ_INFO_VALID | IRQ_INFO_HARD_EXC | 13);
  CHECK_EQ(field(VMCS_RO_IDT_VECTOR_INFO), IRQ_INFO_VALID | IRQ_INFO_SOFT_IRQ | 0x21);
  CHECK_EQ(field(VMCS_RO_IDT_VECTOR_ERROR), 0);
  CHECK_EQ(get(HV_X86_RIP), CODE + 2);
  CHECK_EQ(get(HV_X86_RAX) >> 8 & 0xff, 0x4c);
  skip();
  CHECK_EQ(run(), VMX_REASON_HLT);
  end();
}

/* The program that has provided what was missing delivers the interrupt again. */
static void the_event_that_was_under_way_can_be_delivered_again(void) {
  BEGIN(0xcd, 0x21, 0xf4);
  memcpy(ram + 0x21 * 4, "\x00\x20\x00\x00", 4);
  ram[0x2000] = 0xf4;
  set_field(VMCS_CTRL_EXC_BITMAP, 1 << 13);
  set_field(VMCS_GUEST_IDTR_LIMIT, 0);
  CHECK_EQ(run(), VMX_REASON_EXC_NMI);
  set_field(VMCS_GUEST_IDTR_LIMIT, 0x3ff);
  set_field(VMCS_CTRL_VMENTRY_IRQ_INFO, field(VMCS_RO_IDT_VECTOR_INFO));
  set_field(VMCS_CTRL_VMENTRY_INSTR_LEN, field(VMCS_RO_VMEXIT_INSTR_LEN));
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RIP), 0x2000);
  CHECK_EQ(ram[0x8000 - 6] | ram[0x8000 - 5] << 8, CODE + 2); /* where it returns to */
  CHECK_EQ(field(VMCS_CTRL_VMENTRY_IRQ_INFO), 0);
  end();
}

static void the_trap_flag_steps(void) {
  BEGIN(0x90, 0xcd, 0x21, 0xf4);
  memcpy(ram + 0x21 * 4, "\x00\x20\x00\x00", 4);
  ram[0x2000] = 0xf4;
  set_field(VMCS_GUEST_IDTR_LIMIT, 0x3ff);
  add_controls(VMCS_CTRL_CPU_BASED, CPU_BASED_MTF);
  CHECK_EQ(run(), VMX_REASON_MTF);
  CHECK_EQ(get(HV_X86_RIP), CODE + 1);
  CHECK_EQ(run(), VMX_REASON_MTF);
  CHECK_EQ(get(HV_X86_RIP), 0x2000);
  set_field(VMCS_CTRL_CPU_BASED, field(VMCS_CTRL_CPU_BASED) & ~(uint64_t)CPU_BASED_MTF);
  CHECK_EQ(run(), VMX_REASON_HLT);
  end();
}

static void control_registers_exit_with_their_qualification(void) {
  BEGIN(0x0f, 0x22, 0xe3, 0x0f, 0x20, 0xe0, 0xf4); /* mov cr4, ebx; mov eax, cr4; hlt */
  set_field(VMCS_GUEST_CR4, VMXE);
  set_field(VMCS_CTRL_CR4_MASK, VMXE | 0x20);
  set_field(VMCS_CTRL_CR4_SHADOW, 0x20);
  set(HV_X86_RBX, 0);
  CHECK_EQ(run(), VMX_REASON_MOV_CR);
  CHECK_EQ(field(VMCS_RO_EXIT_QUALIFIC), 4 | 3 << 8);
  CHECK_EQ(field(VMCS_RO_VMEXIT_INSTR_LEN), 3);
  set(HV_X86_RBX, 0x220); /* OSFXSR is the guest's own */
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RAX), 0x220);
  CHECK_EQ(field(VMCS_GUEST_CR4), VMXE | 0x200);
  CHECK_EQ(field(VMCS_CTRL_CR4_SHADOW), 0x20);
  end();
}

static void cpuid_exits_always(void) {
  BEGIN(0x0f, 0xa2, 0xf4);
  CHECK_EQ(run(), VMX_REASON_CPUID);
  CHECK_EQ(run(), VMX_REASON_CPUID); /* nobody has done it */
  set(HV_X86_RAX, 1);
  skip();
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RAX), 1);
  end();
}

static void the_window_for_interrupts_opens_behind_the_shadow(void) {
  BEGIN(0xfa, 0xfb, 0x90, 0x90, 0xf4); /* cli; sti; nop; nop; hlt */
  set(HV_X86_RFLAGS, 2);
  add_controls(VMCS_CTRL_CPU_BASED, CPU_BASED_IRQ_WND);
  CHECK_EQ(run(), VMX_REASON_IRQ_WND);
  CHECK_EQ(get(HV_X86_RIP), CODE + 3);
  end();
}

static void page_faults_have_their_address(void) {
  BEGIN(0xf4);
  HV(hv_vcpu_destroy(vcpu));
  HV(hv_vcpu_create(&vcpu, HV_VCPU_DEFAULT));
  uint32_t entry = 0x83; /* 4 MiB, without the next */
  memcpy(ram + 0x9000, &entry, sizeof entry);
  memcpy(ram + CODE, "\xa3\x00\x00\x40\x00\xf4", 6); /* mov [0x400000], eax; hlt */
  set_field(VMCS_GUEST_CR0, 0x80000011 | NE);
  set_field(VMCS_GUEST_CR3, 0x9000);
  set_field(VMCS_GUEST_CR4, VMXE | 0x10);
  set_field(VMCS_GUEST_CS, 8);
  set_field(VMCS_GUEST_CS_BASE, 0);
  set_field(VMCS_GUEST_CS_LIMIT, UINT32_MAX);
  set_field(VMCS_GUEST_CS_AR, 0xc09b);
  set_field(VMCS_GUEST_DS, 16);
  set_field(VMCS_GUEST_DS_LIMIT, UINT32_MAX);
  set_field(VMCS_GUEST_DS_AR, 0xc093);
  set_field(VMCS_GUEST_SS, 16);
  set_field(VMCS_GUEST_SS_LIMIT, UINT32_MAX);
  set_field(VMCS_GUEST_SS_AR, 0xc093);
  set_field(VMCS_GUEST_TR_AR, 0x8b);
  set(HV_X86_RIP, CODE);
  set(HV_X86_RFLAGS, 2);
  set_field(VMCS_CTRL_EXC_BITMAP, 1 << 14);
  set_field(VMCS_CTRL_PF_ERROR_MASK, 2);
  set_field(VMCS_CTRL_PF_ERROR_MATCH, 2);
  CHECK_EQ(run(), VMX_REASON_EXC_NMI);
  CHECK_EQ(field(VMCS_RO_VMEXIT_IRQ_INFO),
           IRQ_INFO_VALID | IRQ_INFO_ERROR_VALID | IRQ_INFO_HARD_EXC | 14);
  CHECK_EQ(field(VMCS_RO_VMEXIT_IRQ_ERROR), 2);
  CHECK_EQ(field(VMCS_RO_EXIT_QUALIFIC), 0x400000);
  CHECK_EQ(get(HV_X86_CR2), 0);
  end();
}

int main(void) {
  setenv("LUNA_ACCEL", "soft", 1);
  RUN_KVM(capabilities_tell_of_what_is_followed);
  RUN_KVM(an_interrupt_is_told_by_its_gp);
  RUN_KVM(the_event_that_was_under_way_can_be_delivered_again);
  RUN_KVM(the_trap_flag_steps);
  RUN_KVM(control_registers_exit_with_their_qualification);
  RUN_KVM(cpuid_exits_always);
  RUN_KVM(the_window_for_interrupts_opens_behind_the_shadow);
  RUN_KVM(page_faults_have_their_address);
  return test_end();
}
