/* SPDX-License-Identifier: MIT
 * Registers and the VMCS as the Hypervisor framework has them: fields, controls, events. */
#include "fixture/hvf_fixture.h"

/* A value that the register can have. */
static uint64_t sample(hv_x86_reg_t reg) {
  switch (reg) {
    case HV_X86_TPR:
      return 0x30;
    case HV_X86_XCR0:
      return 3;
    case HV_X86_DR4:
    case HV_X86_DR6:
      return 0xffff0ff1;
    case HV_X86_DR5:
    case HV_X86_DR7:
      return 0x401;
    default:
      return 0x1000u + (uint64_t)reg;
  }
}

static void registers_keep_what_is_written(void) {
  uint64_t value;
  BEGIN(0xf4);
  for (hv_x86_reg_t reg = HV_X86_RIP; reg < HV_X86_REGISTERS_MAX; reg++) {
    if (reg == HV_X86_CR1) {
      HV_IS(hv_vcpu_read_register(vcpu, reg, &value), HV_UNSUPPORTED);
      HV_IS(hv_vcpu_write_register(vcpu, reg, 0), HV_UNSUPPORTED);
      continue;
    }
    test_note("register %d", reg);
    set(reg, sample(reg));
    CHECK_EQ(get(reg), sample(reg));
  }
  CHECK_EQ(get(HV_X86_DR4), get(HV_X86_DR6));
  CHECK_EQ(get(HV_X86_DR5), get(HV_X86_DR7));
  HV_IS(hv_vcpu_read_register(vcpu, HV_X86_REGISTERS_MAX, &value), HV_BAD_ARGUMENT);
  HV_IS(hv_vcpu_read_register(vcpu, HV_X86_RAX, NULL), HV_BAD_ARGUMENT);
  HV_IS(hv_vcpu_write_register(vcpu, HV_X86_REGISTERS_MAX, 0), HV_BAD_ARGUMENT);
  HV_IS(hv_vcpu_write_register(vcpu, HV_X86_CS, 0x10000), HV_BAD_ARGUMENT);
  HV_IS(hv_vcpu_write_register(vcpu, HV_X86_TPR, 0x35), HV_BAD_ARGUMENT);
  HV_IS(hv_vcpu_write_register(vcpu, HV_X86_TPR, 0x100), HV_BAD_ARGUMENT);
  end();
}

static void registers_and_fields_are_the_same(void) {
  static const struct {
    hv_x86_reg_t reg;
    uint32_t field;
  } pairs[] = {{HV_X86_RIP, VMCS_GUEST_RIP},
               {HV_X86_RSP, VMCS_GUEST_RSP},
               {HV_X86_RFLAGS, VMCS_GUEST_RFLAGS},
               {HV_X86_CS, VMCS_GUEST_CS},
               {HV_X86_SS, VMCS_GUEST_SS},
               {HV_X86_DS, VMCS_GUEST_DS},
               {HV_X86_ES, VMCS_GUEST_ES},
               {HV_X86_FS, VMCS_GUEST_FS},
               {HV_X86_GS, VMCS_GUEST_GS},
               {HV_X86_LDTR, VMCS_GUEST_LDTR},
               {HV_X86_TR, VMCS_GUEST_TR},
               {HV_X86_LDT_BASE, VMCS_GUEST_LDTR_BASE},
               {HV_X86_TSS_BASE, VMCS_GUEST_TR_BASE},
               {HV_X86_LDT_LIMIT, VMCS_GUEST_LDTR_LIMIT},
               {HV_X86_TSS_LIMIT, VMCS_GUEST_TR_LIMIT},
               {HV_X86_LDT_AR, VMCS_GUEST_LDTR_AR},
               {HV_X86_TSS_AR, VMCS_GUEST_TR_AR},
               {HV_X86_GDT_BASE, VMCS_GUEST_GDTR_BASE},
               {HV_X86_GDT_LIMIT, VMCS_GUEST_GDTR_LIMIT},
               {HV_X86_IDT_BASE, VMCS_GUEST_IDTR_BASE},
               {HV_X86_IDT_LIMIT, VMCS_GUEST_IDTR_LIMIT},
               {HV_X86_CR0, VMCS_GUEST_CR0},
               {HV_X86_CR3, VMCS_GUEST_CR3},
               {HV_X86_CR4, VMCS_GUEST_CR4}};
  BEGIN(0xf4);
  for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
    test_note("register %d", pairs[i].reg);
    set_field(pairs[i].field, 0x80 + i);
    CHECK_EQ(get(pairs[i].reg), 0x80 + i);
    set(pairs[i].reg, 0x40 + i);
    CHECK_EQ(field(pairs[i].field), 0x40 + i);
  }
  end();
}

static void the_guest_has_what_is_written(void) {
  BEGIN(0x89, 0xd8, 0x8e, 0xc0, 0x26, 0x8b, 0x0e, 0x00, 0x00, 0xf4);
  /* mov ax, bx; mov es, ax; mov cx, [es:0]; hlt */
  set(HV_X86_RBX, 0x200);
  ram[0x2000] = 0x5a;
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RAX) & 0xffff, 0x200);
  CHECK_EQ(get(HV_X86_RCX) & 0xffff, 0x5a);
  CHECK_EQ(get(HV_X86_ES), 0x200);
  CHECK_EQ(field(VMCS_GUEST_ES_BASE), 0x2000);
  CHECK_EQ(field(VMCS_GUEST_ES_LIMIT), 0xffff);
  CHECK_EQ(field(VMCS_GUEST_ES_AR) & 0x9f, 0x93);
  end();
}

static void fields_are_checked(void) {
  uint64_t value;
  BEGIN(0xf4);
  HV_IS(hv_vmx_vcpu_read_vmcs(vcpu, VMCS_GUEST_RIP, NULL), HV_BAD_ARGUMENT);
  static const uint32_t none[] = {0x1,    0x400,    0x818,      0x1800,        0x6001,
                                  0x7000, VMCS_MAX, 0xffffffff, VMCS_CTRL_EPTP};
  for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
    test_note("field 0x%x", none[i]);
    HV_IS(hv_vmx_vcpu_read_vmcs(vcpu, none[i], &value), HV_BAD_ARGUMENT);
    HV_IS(hv_vmx_vcpu_write_vmcs(vcpu, none[i], 0), HV_BAD_ARGUMENT);
    HV_IS(hv_vmx_vcpu_get_cap_write_vmcs(vcpu, none[i], &value, &value), HV_BAD_ARGUMENT);
  }
  static const uint32_t absent[] = {VMCS_VPID,    VMCS_CTRL_IO_BITMAP_A, VMCS_HOST_RIP,
                                    VMCS_HOST_CS, VMCS_HOST_IA32_EFER,   VMCS_CTRL_MSR_BITMAPS};
  for (size_t i = 0; i < sizeof absent / sizeof *absent; i++) {
    test_note("field 0x%x", absent[i]);
    HV_IS(hv_vmx_vcpu_read_vmcs(vcpu, absent[i], &value), HV_UNSUPPORTED);
    HV_IS(hv_vmx_vcpu_write_vmcs(vcpu, absent[i], 0), HV_UNSUPPORTED);
    HV_IS(hv_vmx_vcpu_get_cap_write_vmcs(vcpu, absent[i], &value, &value), HV_UNSUPPORTED);
  }
  HV_IS(hv_vmx_vcpu_write_vmcs(vcpu, VMCS_RO_EXIT_REASON, 0), HV_DENIED);
  HV_IS(hv_vmx_vcpu_write_vmcs(vcpu, VMCS_GUEST_PHYSICAL_ADDRESS, 0), HV_DENIED);
  HV_IS(hv_vmx_vcpu_get_cap_write_vmcs(vcpu, VMCS_RO_EXIT_REASON, &value, &value), HV_UNSUPPORTED);
  HV_IS(hv_vmx_vcpu_get_cap_write_vmcs(vcpu, VMCS_GUEST_RIP, NULL, &value), HV_BAD_ARGUMENT);
  HV_IS(hv_vmx_vcpu_write_vmcs(vcpu, VMCS_GUEST_GDTR_LIMIT, 0x10000), HV_BAD_ARGUMENT);
  end();
}

/* As of VMWRITE (SDM Vol. 3, 31.3): 1 << 31 of an int comes with 32 more bits. */
static void bits_above_the_width_of_a_field_are_ignored(void) {
  const uint64_t above = UINT64_MAX << 32;
  static const uint32_t fields[] = {VMCS_CTRL_PIN_BASED,        VMCS_CTRL_CPU_BASED,
                                    VMCS_CTRL_VMENTRY_CONTROLS, VMCS_CTRL_EXC_BITMAP,
                                    VMCS_GUEST_CS_LIMIT,        VMCS_GUEST_INTERRUPTIBILITY,
                                    VMCS_CTRL_VMENTRY_EXC_ERROR};
  BEGIN(0xf4);
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
    const uint64_t before = field(fields[i]);
    test_note("field 0x%x", fields[i]);
    set_field(fields[i], before | above);
    CHECK_EQ(field(fields[i]), before);
  }
  set_field(VMCS_CTRL_CPU_BASED, above | field(VMCS_CTRL_CPU_BASED) | CPU_BASED_IRQ_WND);
  CHECK(field(VMCS_CTRL_CPU_BASED) & CPU_BASED_IRQ_WND);
  set_field(VMCS_CTRL_CPU_BASED, field(VMCS_CTRL_CPU_BASED) & ~(uint64_t)CPU_BASED_IRQ_WND);
  set_field(VMCS_GUEST_DS, 0xffff0028);
  CHECK_EQ(field(VMCS_GUEST_DS), 0x28);
  set_field(VMCS_GUEST_DS, UINT64_C(0x12345) << 16);
  CHECK_EQ(field(VMCS_GUEST_DS), 0);
  CHECK_EQ(run(), VMX_REASON_HLT);
  end();
}

static void what_kvm_cannot_follow_is_refused(void) {
  uint64_t must, may;
  BEGIN(0xf4);
  static const uint32_t zero[] = {VMCS_CTRL_VMEXIT_MSR_STORE_COUNT, VMCS_CTRL_VMEXIT_MSR_LOAD_COUNT,
                                  VMCS_CTRL_VMENTRY_MSR_LOAD_COUNT, VMCS_CTRL_XSS_EXITING_BITMAP,
                                  VMCS_GUEST_DEBUG_EXC};
  for (size_t i = 0; i < sizeof zero / sizeof *zero; i++) {
    set_field(zero[i], 0);
    HV_IS(hv_vmx_vcpu_write_vmcs(vcpu, zero[i], 1), HV_UNSUPPORTED);
    HV(hv_vmx_vcpu_get_cap_write_vmcs(vcpu, zero[i], &must, &may));
    CHECK_EQ(must | may, 0);
    CHECK_EQ(field(zero[i]), 0);
  }
  set_field(VMCS_GUEST_LINK_POINTER, UINT64_MAX);
  HV_IS(hv_vmx_vcpu_write_vmcs(vcpu, VMCS_GUEST_LINK_POINTER, 0), HV_UNSUPPORTED);
  set_field(VMCS_CTRL_CR0_SHADOW, 0x60000010);
  set_field(VMCS_CTRL_CR4_SHADOW, 0x2000);
  CHECK_EQ(field(VMCS_CTRL_CR0_SHADOW), 0x60000010);
  CHECK_EQ(field(VMCS_CTRL_CR4_SHADOW), 0x2000);
  end();
}

enum {
  NE = 0x20,
  VMXE = 0x2000,
  OSFXSR = 0x200
};

/* mov eax, cr0; mov ebx, cr4; hlt: what the guest reads */
static const uint8_t reads_cr[] = {0x0f, 0x20, 0xc0, 0x0f, 0x20, 0xe3, 0xf4};

static void check_guest_reads(uint64_t cr0, uint64_t cr4) {
  set(HV_X86_RIP, CODE);
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RAX) & NE, cr0);
  CHECK_EQ(get(HV_X86_RBX) & (VMXE | OSFXSR), cr4);
}

static void what_vmx_operation_demands_can_be_set(void) {
  begin_with(reads_cr, sizeof reads_cr, HV_VM_DEFAULT);
  set_field(VMCS_GUEST_CR0, 0x10 | NE);
  set_field(VMCS_GUEST_CR4, VMXE | OSFXSR);
  CHECK_EQ(field(VMCS_GUEST_CR4), VMXE | OSFXSR);
  CHECK_EQ(get(HV_X86_CR4), VMXE | OSFXSR);
  check_guest_reads(NE, OSFXSR | (follows() ? VMXE : 0)); /* no mask is set */
  CHECK_EQ(field(VMCS_GUEST_CR0), 0x10 | NE);
  CHECK_EQ(field(VMCS_GUEST_CR4), VMXE | OSFXSR);
  set(HV_X86_CR4, OSFXSR);
  CHECK_EQ(field(VMCS_GUEST_CR4), OSFXSR);
  check_guest_reads(NE, OSFXSR);
  end();
}

static void the_guest_reads_shadows_of_masked_bits(void) {
  begin_with(reads_cr, sizeof reads_cr, HV_VM_DEFAULT);
  set_field(VMCS_GUEST_CR0, 0x10 | NE);
  set_field(VMCS_GUEST_CR4, VMXE);
  set_field(VMCS_CTRL_CR4_MASK, VMXE);
  set_field(VMCS_CTRL_CR0_MASK, NE); /* its shadow is 0 */
  CHECK_EQ(field(VMCS_CTRL_CR0_MASK), NE);
  CHECK_EQ(field(VMCS_GUEST_CR0), 0x10 | NE);
  check_guest_reads(0, 0);
  CHECK_EQ(field(VMCS_GUEST_CR0), 0x10 | NE);
  CHECK_EQ(field(VMCS_GUEST_CR4), VMXE);
  set_field(VMCS_CTRL_CR0_SHADOW, NE);
  set_field(VMCS_GUEST_CR0, 0x10);
  check_guest_reads(NE, 0);
  CHECK_EQ(field(VMCS_GUEST_CR0), 0x10);
  set_field(VMCS_CTRL_CR0_MASK, 0);
  check_guest_reads(0, 0);
  uint64_t must, may;
  HV(hv_vmx_vcpu_get_cap_write_vmcs(vcpu, VMCS_CTRL_CR4_MASK, &must, &may));
  CHECK_EQ(must, 0);
  CHECK_EQ(may, UINT64_MAX);
  end();
}

static void controls_are_within_the_capability(void) {
  static const struct {
    uint32_t field;
    hv_vmx_capability_t capability, same;
  } controls[] = {
      {VMCS_CTRL_PIN_BASED, HV_VMX_CAP_PINBASED, HV_VMX_CAP_TRUE_PINBASED},
      {VMCS_CTRL_CPU_BASED, HV_VMX_CAP_PROCBASED, HV_VMX_CAP_TRUE_PROCBASED},
      {VMCS_CTRL_CPU_BASED2, HV_VMX_CAP_PROCBASED2, HV_VMX_CAP_PROCBASED2},
      {VMCS_CTRL_VMENTRY_CONTROLS, HV_VMX_CAP_ENTRY, HV_VMX_CAP_TRUE_ENTRY},
      {VMCS_CTRL_VMEXIT_CONTROLS, HV_VMX_CAP_EXIT, HV_VMX_CAP_TRUE_EXIT},
  };
  BEGIN(0xf4);
  for (size_t i = 0; i < sizeof controls / sizeof *controls; i++) {
    uint64_t bits, same, must, may;
    test_note("field 0x%x", controls[i].field);
    HV(hv_vmx_read_capability(controls[i].capability, &bits));
    HV(hv_vmx_read_capability(controls[i].same, &same));
    CHECK_EQ(bits, same);
    HV(hv_vmx_vcpu_get_cap_write_vmcs(vcpu, controls[i].field, &must, &may));
    CHECK_EQ(bits, may << 32 | must);
    CHECK_EQ(must & ~may, 0);
    CHECK_EQ(field(controls[i].field), must);
    set_field(controls[i].field, may);
    CHECK_EQ(field(controls[i].field), may);
    for (int bit = 0; bit < 32; bit++) {
      uint64_t one = UINT64_C(1) << bit;
      hv_return_t wanted = may & one ? HV_SUCCESS : HV_BAD_ARGUMENT;
      HV_IS(hv_vmx_vcpu_write_vmcs(vcpu, controls[i].field, must | one), wanted);
      wanted = must & one ? HV_BAD_ARGUMENT : HV_SUCCESS;
      HV_IS(hv_vmx_vcpu_write_vmcs(vcpu, controls[i].field, may & ~one), wanted);
    }
    set_field(controls[i].field, must);
  }
  CHECK_EQ(run(), VMX_REASON_HLT);
  end();
}

/* Bitmaps lie in the host's memory; the timer is where controls are followed. */
static void what_no_program_can_use_is_refused_in_words(void) {
  static const uint32_t bitmaps[] = {VMCS_CTRL_IO_BITMAP_A, VMCS_CTRL_IO_BITMAP_B,
                                     VMCS_CTRL_MSR_BITMAPS};
  uint64_t must, may;
  BEGIN(0xf4);
  for (size_t i = 0; i < sizeof bitmaps / sizeof *bitmaps; i++) {
    HV_IS(hv_vmx_vcpu_write_vmcs(vcpu, bitmaps[i], 0x1000), HV_UNSUPPORTED);
    CHECK_TEXT(hv_ext_error_message(), "host-physical address of a bitmap");
    HV_IS(hv_vmx_vcpu_get_cap_write_vmcs(vcpu, bitmaps[i], &must, &may), HV_UNSUPPORTED);
  }
  HV(hv_vmx_vcpu_get_cap_write_vmcs(vcpu, VMCS_CTRL_CPU_BASED, &must, &may));
  CHECK_EQ(may & CPU_BASED_IO_BITMAPS, 0);
  HV(hv_vmx_vcpu_get_cap_write_vmcs(vcpu, VMCS_CTRL_PIN_BASED, &must, &may));
  CHECK_EQ(!!(may & PIN_BASED_PREEMPTION_TIMER), follows());
  if (!follows()) {
    HV_IS(hv_vmx_vcpu_write_vmcs(vcpu, VMCS_CTRL_PIN_BASED, must | PIN_BASED_PREEMPTION_TIMER),
          HV_BAD_ARGUMENT);
    CHECK_TEXT(hv_ext_error_message(), "LUNA_ACCEL=soft");
  }
  end();
}

static void other_capabilities_are_told(void) {
  uint64_t value;
  HV(hv_vmx_read_capability(HV_VMX_CAP_BASIC, &value));
  CHECK(value & VMX_BASIC_TRUE_CTLS);
  HV(hv_vmx_read_capability(HV_VMX_CAP_CR0_FIXED0, &value));
  CHECK_EQ(value, 0x80000021);
  HV(hv_vmx_read_capability(HV_VMX_CAP_CR4_FIXED0, &value));
  CHECK_EQ(value, VMXE);
  HV(hv_vmx_read_capability(HV_VMX_CAP_CR4_FIXED1, &value));
  CHECK_EQ(value & 0x27ff, 0x27ff);
  HV(hv_vmx_read_capability(HV_VMX_CAP_MISC, &value));
  CHECK_EQ(value >> 16 & 0x1ff, 4);
  HV(hv_vmx_read_capability(HV_VMX_CAP_CR0_FIXED1, &value));
  CHECK_EQ(value & 0x80000021, 0x80000021);
  HV(hv_vmx_read_capability(HV_VMX_CAP_EPT_VPID_CAP, &value));
  CHECK_EQ(value & VMX_EPT_VPID_SUPPORT_EXONLY, 0);
  HV(hv_vmx_read_capability(HV_VMX_CAP_PREEMPTION_TIMER, &value));
  HV(hv_vmx_read_capability(HV_VMX_CAP_VMCS_ENUM, &value));
  CHECK_EQ(value, 0x36);
  HV_IS(hv_vmx_read_capability((hv_vmx_capability_t)17, &value), HV_BAD_ARGUMENT);
  HV_IS(hv_vmx_read_capability(HV_VMX_CAP_BASIC, NULL), HV_BAD_ARGUMENT);
}

static void long_mode_is_a_control_and_efer(void) {
  BEGIN(0xf4);
  uint64_t entry = field(VMCS_CTRL_VMENTRY_CONTROLS);
  set_field(VMCS_CTRL_VMENTRY_CONTROLS, entry | VMENTRY_GUEST_IA32E);
  CHECK_EQ(field(VMCS_GUEST_IA32_EFER), 0x400);
  set_field(VMCS_GUEST_IA32_EFER, 0);
  CHECK_EQ(field(VMCS_CTRL_VMENTRY_CONTROLS), entry);
  end();
}

/* ---- Events ---- */

static void blocking_is_seen_and_lifted(void) {
  BEGIN(0xfb, 0xe6, 0x10, 0xf4); /* sti; out 0x10, al; hlt */
  CHECK_EQ(run(), VMX_REASON_IO);
  set_field(VMCS_GUEST_INTERRUPTIBILITY, 1);
  CHECK_EQ(field(VMCS_GUEST_INTERRUPTIBILITY), 1);
  set_field(VMCS_GUEST_INTERRUPTIBILITY, 2);
  CHECK_EQ(field(VMCS_GUEST_INTERRUPTIBILITY), 2);
  set_field(VMCS_GUEST_INTERRUPTIBILITY, 0);
  CHECK_EQ(field(VMCS_GUEST_INTERRUPTIBILITY), 0);
  HV_IS(hv_vmx_vcpu_write_vmcs(vcpu, VMCS_GUEST_INTERRUPTIBILITY, 4), HV_BAD_ARGUMENT);
  CHECK_EQ(field(VMCS_GUEST_ACTIVITY_STATE), 0);
  set_field(VMCS_GUEST_ACTIVITY_STATE, 0);
  HV_IS(hv_vmx_vcpu_write_vmcs(vcpu, VMCS_GUEST_ACTIVITY_STATE, 1), HV_UNSUPPORTED);
  end();
}

static void the_monitor_trap_flag_steps(void) {
  BEGIN(0x40, 0x43, 0xf4); /* inc ax; inc bx; hlt */
  set(HV_X86_RAX, 0);
  uint64_t controls = field(VMCS_CTRL_CPU_BASED);
  set_field(VMCS_CTRL_CPU_BASED, controls | CPU_BASED_MTF);
  CHECK_EQ(run(), VMX_REASON_MTF);
  CHECK_EQ(get(HV_X86_RIP), CODE + 1);
  CHECK_EQ(run(), VMX_REASON_MTF);
  CHECK_EQ(get(HV_X86_RIP), CODE + 2);
  set_field(VMCS_CTRL_CPU_BASED, controls);
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RAX), 1);
  end();
}

/* The width of a field (SDM Vol. 3, 25.11.2). */
static unsigned width_of(uint32_t number) {
  static const unsigned widths[] = {16, 64, 32, 64};
  return widths[number >> 13 & 3];
}

/* Bit by bit: what the capability of a field does not have is refused, the rest is taken. */
static void what_a_write_accepts_is_told(void) {
  static const uint32_t fields[] = {VMCS_GUEST_GDTR_LIMIT,
                                    VMCS_GUEST_IDTR_LIMIT,
                                    VMCS_GUEST_CS_AR,
                                    VMCS_GUEST_TR_AR,
                                    VMCS_GUEST_ES_AR,
                                    VMCS_GUEST_CS,
                                    VMCS_GUEST_INTERRUPTIBILITY,
                                    VMCS_GUEST_ACTIVITY_STATE,
                                    VMCS_GUEST_DR7,
                                    VMCS_CTRL_VMENTRY_IRQ_INFO,
                                    VMCS_CTRL_TPR_THRESHOLD};
  BEGIN(0xf4);
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
    uint64_t must, may, before = field(fields[i]);
    HV(hv_vmx_vcpu_get_cap_write_vmcs(vcpu, fields[i], &must, &may));
    for (unsigned bit = 0; bit < width_of(fields[i]); bit++) {
      test_note("field 0x%x, bit %u", fields[i], bit);
      hv_return_t result = hv_vmx_vcpu_write_vmcs(vcpu, fields[i], UINT64_C(1) << bit);
      CHECK_EQ(result == HV_SUCCESS, may >> bit & 1);
    }
    set_field(fields[i], before);
  }
  CHECK_EQ(run(), VMX_REASON_HLT);
  end();
}

int main(void) {
  RUN_KVM(registers_keep_what_is_written);
  RUN_KVM(registers_and_fields_are_the_same);
  RUN_KVM(the_guest_has_what_is_written);
  RUN_KVM(fields_are_checked);
  RUN_KVM(bits_above_the_width_of_a_field_are_ignored);
  RUN_KVM(what_kvm_cannot_follow_is_refused);
  RUN_KVM(what_vmx_operation_demands_can_be_set);
  RUN_KVM(the_guest_reads_shadows_of_masked_bits);
  RUN_KVM(controls_are_within_the_capability);
  RUN_KVM(what_no_program_can_use_is_refused_in_words);
  RUN_KVM(other_capabilities_are_told);
  RUN_KVM(long_mode_is_a_control_and_efer);
  RUN_KVM(blocking_is_seen_and_lifted);
  RUN_KVM(the_monitor_trap_flag_steps);
  RUN_KVM(what_a_write_accepts_is_told);
  return test_end();
}
