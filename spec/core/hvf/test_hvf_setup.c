/* SPDX-License-Identifier: MIT
 * The VMCS through set-up code as programs for the Hypervisor framework have it: fields that they
 * write in any order, what of them is followed, and what is refused before the guest sees it. */
#include "fixture/hvf_long.h"

enum {
  NE = 0x20,
  ET = 0x10,
  NW_CD = 3 << 29,
  VMXE = 0x2000
};

static const uint64_t PG_NW_CD = UINT64_C(7) << 29;

static const uint32_t kept[] = {
    VMCS_CTRL_PF_ERROR_MASK, VMCS_CTRL_PF_ERROR_MATCH, VMCS_CTRL_CR3_COUNT,
    VMCS_CTRL_CR3_VALUE0,    VMCS_CTRL_CR3_VALUE1,     VMCS_CTRL_CR3_VALUE2,
    VMCS_CTRL_CR3_VALUE3,    VMCS_GUEST_PDPTE0,        VMCS_GUEST_PDPTE1,
    VMCS_GUEST_PDPTE2,       VMCS_GUEST_PDPTE3,        VMCS_CTRL_TPR_THRESHOLD,
    VMCS_CTRL_PLE_GAP,       VMCS_CTRL_PLE_WINDOW,     VMCS_GUEST_VMX_TIMER_VALUE};

static void refused_at_entry(void) {
  uint64_t rip = get(HV_X86_RIP);
  HV_IS(hv_vcpu_run_until(vcpu, HV_DEADLINE_FOREVER), HV_UNSUPPORTED);
  HV_IS(hv_vcpu_run(vcpu), HV_UNSUPPORTED); /* again, as long as it is so */
  CHECK_EQ(get(HV_X86_RIP), rip);
}

static void fields_are_kept_and_read_back(void) {
  uint64_t must, may;
  BEGIN(0xf4);
  for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
    test_note("field 0x%x", kept[i]);
    CHECK_EQ(field(kept[i]), 0);
    HV(hv_vmx_vcpu_get_cap_write_vmcs(vcpu, kept[i], &must, &may));
    CHECK_EQ(must, 0);
    set_field(kept[i], may & 4);
    CHECK_EQ(field(kept[i]), may & 4);
    if (may < UINT32_MAX) {
      HV_IS(hv_vmx_vcpu_write_vmcs(vcpu, kept[i], may + 1), HV_BAD_ARGUMENT);
    }
    CHECK_EQ(field(kept[i]), may & 4);
  }
  HV_IS(hv_vmx_vcpu_write_vmcs(vcpu, VMCS_CTRL_CR3_COUNT, 5), HV_BAD_ARGUMENT);
  set_field(VMCS_CTRL_PF_ERROR_MASK, 0);
  set_field(VMCS_CTRL_PF_ERROR_MATCH, 0);
  CHECK_EQ(run(), VMX_REASON_HLT);
  end();
}

static void exceptions_that_are_set_by_habit_are_taken(void) {
  uint64_t must, may;
  BEGIN(0xf4);
  HV(hv_vmx_vcpu_get_cap_write_vmcs(vcpu, VMCS_CTRL_EXC_BITMAP, &must, &may));
  CHECK_EQ(must, 0);
  CHECK_EQ(may, follows() ? UINT32_MAX : 0x64000); /* #MC, #AC, and #PF by mask and match */
  for (uint64_t bit = 1; bit >> 32 == 0; bit <<= 1) {
    HV_IS(hv_vmx_vcpu_write_vmcs(vcpu, VMCS_CTRL_EXC_BITMAP, bit),
          may & bit ? HV_SUCCESS : HV_UNSUPPORTED);
  }
  set_field(VMCS_CTRL_EXC_BITMAP, 0x60000);
  if (!follows()) {
    HV_IS(hv_vmx_vcpu_write_vmcs(vcpu, VMCS_CTRL_EXC_BITMAP, 0xffffffff), HV_UNSUPPORTED);
    CHECK(strstr(hv_ext_error_message(), "0xfff9bfff"));
    CHECK(strstr(hv_ext_error_message(), "LUNA_ACCEL=soft"));
  }
  CHECK_EQ(field(VMCS_CTRL_EXC_BITMAP), 0x60000);
  CHECK_EQ(run(), VMX_REASON_HLT);
  end();
}

static void page_faults_exit_by_bitmap_mask_and_match(void) {
  static const struct {
    uint64_t bitmap, mask, match;
    bool followed;
  } cases[] = {
      {0, 0, 0, true},        {0, 0, 1, false},
      {0, 1, 0, false},       {0, 1 << 10, 0, true}, /* a bit that no error code has */
      {1 << 14, 0, 0, false}, {1 << 14, 0, 0xffffffff, true},
      {1 << 14, 1, 1, false}, {1 << 14, 1, 3, true},
  };
  BEGIN(0xf4);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    test_note("case %zu", i);
    set_field(VMCS_CTRL_PF_ERROR_MATCH, cases[i].match);
    set_field(VMCS_CTRL_EXC_BITMAP, cases[i].bitmap);
    set_field(VMCS_CTRL_PF_ERROR_MASK, cases[i].mask);
    set(HV_X86_RIP, CODE);
    if (cases[i].followed || follows()) {
      CHECK_EQ(run(), VMX_REASON_HLT);
    } else {
      refused_at_entry();
      CHECK(strstr(hv_ext_error_message(), "page faults"));
    }
  }
  end();
}

/* mov eax, cr0; mov ebx, cr4; hlt */
#define READ_CR 0x0f, 0x20, 0xc0, 0x0f, 0x20, 0xe3, 0xf4

static void caching_is_the_program_s_where_it_is_masked(void) {
  BEGIN(READ_CR);
  set_field(VMCS_GUEST_CR0, ET | NE);
  set_field(VMCS_CTRL_CR0_MASK, NE | NW_CD | UINT64_C(0xffffffff00000000));
  set_field(VMCS_CTRL_CR0_SHADOW, NW_CD | ET);
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RAX) & (NE | PG_NW_CD), NW_CD);
  CHECK_EQ(field(VMCS_GUEST_CR0), ET | NE);
  CHECK_EQ(field(VMCS_CTRL_CR0_SHADOW), NW_CD | ET);
  end();
}

/* Loaders that begin in protected mode forget ET in the shadow. */
static void the_extension_type_is_what_the_shadow_says(void) {
  BEGIN(READ_CR);
  set_field(VMCS_CTRL_CR0_MASK, NE | ET | NW_CD);
  set_field(VMCS_GUEST_CR0, NE | ET);
  set_field(VMCS_CTRL_CR0_SHADOW, NE);
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(field(VMCS_GUEST_CR0), NE | ET);
  CHECK_EQ(field(VMCS_CTRL_CR0_SHADOW), NE);
  CHECK_EQ(get(HV_X86_RAX) & NE, NE);
  end();
}

static void other_masked_bits_are_as_the_guest_has_them(void) {
  BEGIN(0x0f, 0x20, 0xc0, 0x66, 0x83, 0xc8, 0x02, 0x0f, 0x22, 0xc0, 0xf4);
  /* mov eax, cr0; or eax, 2; mov cr0, eax; hlt */
  set_field(VMCS_CTRL_CR0_MASK, 2 | 1);
  set_field(VMCS_CTRL_CR0_SHADOW, 3);
  if (follows()) { /* the guest reads the shadow, and may write what it says */
    CHECK_EQ(run(), VMX_REASON_HLT);
    CHECK_EQ(get(HV_X86_RAX) & 3, 3);
    CHECK_EQ(field(VMCS_GUEST_CR0) & 3, 0);
    end();
    return;
  }
  refused_at_entry();
  CHECK(strstr(hv_ext_error_message(), "CR0"));
  set_field(VMCS_CTRL_CR0_SHADOW, 0);
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(field(VMCS_GUEST_CR0) & 3, 2);
  CHECK_EQ(field(VMCS_CTRL_CR0_SHADOW) & 3, 2); /* the guest has written it */
  set_field(VMCS_CTRL_PF_ERROR_MASK, 0);        /* which is no reason to refuse the next entry */
  set(HV_X86_RIP, CODE);
  CHECK_EQ(run(), VMX_REASON_HLT);
  set_field(VMCS_CTRL_CR4_MASK, VMXE | 1);
  set_field(VMCS_CTRL_CR4_SHADOW, 1);
  refused_at_entry();
  CHECK(strstr(hv_ext_error_message(), "CR4"));
  set_field(VMCS_CTRL_CR4_SHADOW, VMXE);
  set(HV_X86_RIP, CODE);
  CHECK_EQ(run(), VMX_REASON_HLT);
  end();
}

/* 32-bit code with PAE paging: the first gigabyte by two large pages, tables at 0xd000. */
static void begin_pae(void) {
  BEGIN(0xf4);
  store(0xd000, 0xe001);
  store(0xe000, 0x83);
  set_field(VMCS_GUEST_CS, 8);
  set_field(VMCS_GUEST_CS_LIMIT, 0xffffffff);
  set_field(VMCS_GUEST_CS_AR, 0xc09b);
  set_field(VMCS_GUEST_CR3, 0xd000);
  set_field(VMCS_GUEST_CR4, VMXE | 0x20);
  set_field(VMCS_GUEST_CR0, 0x80000031);
}

static void pdptes_are_those_in_memory(void) {
  begin_pae();
  set_field(VMCS_GUEST_PDPTE0, 0xf001);
  refused_at_entry();
  CHECK(strstr(hv_ext_error_message(), "PDPTE0"));
  CHECK_EQ(field(VMCS_GUEST_PDPTE0), 0xf001);
  set_field(VMCS_GUEST_PDPTE0, 0xe001);
  HV(hv_vcpu_interrupt(&vcpu, 1)); /* not every KVM has guests with such paging */
  CHECK_EQ(run(), VMX_REASON_IRQ);
  CHECK_EQ(field(VMCS_GUEST_PDPTE0), 0xe001);
  CHECK_EQ(field(VMCS_GUEST_PDPTE3), 0);
  store(0xd008, 0x7001);
  CHECK_EQ(field(VMCS_GUEST_PDPTE1), 0x7001);
  end();
}

/* ---- Programs ---- */

/* What they make of a capability: the bits that they want, as far as they may be, and those that
 * must. */
static uint64_t wanted(hv_vmx_capability_t capability, uint64_t bits) {
  uint64_t value;
  HV(hv_vmx_read_capability(capability, &value));
  CHECK_EQ((bits | (uint32_t)value) & ~(value >> 32), 0); /* nothing is left out */
  return (bits | (uint32_t)value) & value >> 32;
}

/* The control must have `ones` and can lack `zeros`. */
static void set_exact(uint32_t number, hv_vmx_capability_t capability, uint64_t ones,
                      uint64_t zeros) {
  uint64_t value;
  HV(hv_vmx_read_capability(capability, &value));
  CHECK_EQ(ones & ~(value >> 32), 0);
  CHECK_EQ(zeros & (uint32_t)value, 0);
  set_field(number, ones | (uint32_t)value);
  CHECK_EQ(field(number) & (ones | zeros), ones);
}

static void a_real_mode_segment(uint32_t selector, uint32_t limit, uint32_t rights, uint32_t base) {
  set_field(selector, 0);
  set_field(limit, 0xffff);
  set_field(rights, selector == VMCS_GUEST_CS ? 0x9b : 0x93);
  set_field(base, 0);
}

static void real_mode_segments(void) {
  for (uint32_t i = 0; i < 6; i++) {
    a_real_mode_segment(VMCS_GUEST_ES + 2 * i, VMCS_GUEST_ES_LIMIT + 2 * i,
                        VMCS_GUEST_ES_AR + 2 * i, VMCS_GUEST_ES_BASE + 2 * i);
  }
}

/* A DOS runner, but for the exceptions that it wants. */
static void a_dos_runner_sets_up(void) {
  BEGIN(0xf4);
  set_field(VMCS_CTRL_PIN_BASED, wanted(HV_VMX_CAP_PINBASED, 0));
  set_field(VMCS_CTRL_CPU_BASED,
            wanted(HV_VMX_CAP_PROCBASED, CPU_BASED_HLT | CPU_BASED_CR8_LOAD | CPU_BASED_CR8_STORE));
  set_field(VMCS_CTRL_CPU_BASED2, wanted(HV_VMX_CAP_PROCBASED2, 0));
  set_field(VMCS_CTRL_VMENTRY_CONTROLS, wanted(HV_VMX_CAP_ENTRY, 0));
  set_field(VMCS_CTRL_CR0_MASK, NW_CD);
  set_field(VMCS_CTRL_CR0_SHADOW, 0);
  set_field(VMCS_CTRL_CR4_MASK, 0);
  set_field(VMCS_CTRL_CR4_SHADOW, 0);
  real_mode_segments();
  set_field(VMCS_GUEST_LDTR, 0);
  set_field(VMCS_GUEST_LDTR_AR, 0x10000);
  set_field(VMCS_GUEST_TR, 0);
  set_field(VMCS_GUEST_TR_LIMIT, 0);
  set_field(VMCS_GUEST_TR_AR, 0x8b);
  set_field(VMCS_GUEST_GDTR_LIMIT, 0);
  set_field(VMCS_GUEST_IDTR_BASE, 0);
  set_field(VMCS_GUEST_IDTR_LIMIT, 0xffff);
  set_field(VMCS_GUEST_CR0, NE);
  set_field(VMCS_GUEST_CR3, 0);
  set_field(VMCS_GUEST_CR4, VMXE);
  set(HV_X86_RFLAGS, 2);
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(field(VMCS_GUEST_CR0) | ET, NE | ET); /* ET is 1 on some processors */
  CHECK_EQ(field(VMCS_GUEST_CR4), VMXE);
  end();
}

/* A VMM of BSD's descent: exact bits, masks from the fixed ones, a reset of every register. */
static void a_bsd_vmm_sets_up(void) {
  uint64_t fixed0, fixed1;
  BEGIN(0xf4);
  set_exact(VMCS_CTRL_PIN_BASED, HV_VMX_CAP_PINBASED,
            PIN_BASED_INTR | PIN_BASED_NMI | PIN_BASED_VIRTUAL_NMI, 0);
  set_exact(VMCS_CTRL_CPU_BASED, HV_VMX_CAP_PROCBASED,
            CPU_BASED_IRQ_WND | CPU_BASED_VIRTUAL_NMI_WND | CPU_BASED_SECONDARY_CTLS |
                CPU_BASED_MWAIT | CPU_BASED_MONITOR | CPU_BASED_UNCOND_IO | CPU_BASED_MSR_BITMAPS |
                CPU_BASED_HLT | CPU_BASED_CR8_LOAD | CPU_BASED_CR8_STORE,
            CPU_BASED_CR3_LOAD | CPU_BASED_CR3_STORE | CPU_BASED_IO_BITMAPS);
  set_exact(VMCS_CTRL_CPU_BASED2, HV_VMX_CAP_PROCBASED2, CPU_BASED2_EPT | CPU_BASED2_UNRESTRICTED,
            CPU_BASED2_INVPCID | CPU_BASED2_XSAVES_XRSTORS);
  set_exact(VMCS_CTRL_VMEXIT_CONTROLS, HV_VMX_CAP_EXIT, VMEXIT_HOST_IA32E | VMEXIT_LOAD_EFER,
            VMEXIT_SAVE_DBG_CONTROLS | VMEXIT_SAVE_EFER);
  set_exact(VMCS_CTRL_VMENTRY_CONTROLS, HV_VMX_CAP_ENTRY, VMENTRY_LOAD_EFER,
            VMENTRY_LOAD_DBG_CONTROLS | VMENTRY_SMM | VMENTRY_DEACTIVATE_DUAL_MONITOR);
  HV(hv_vmx_read_capability(HV_VMX_CAP_CR0_FIXED0, &fixed0));
  HV(hv_vmx_read_capability(HV_VMX_CAP_CR0_FIXED1, &fixed1));
  uint64_t ones = fixed0 & fixed1 & ~UINT64_C(0x80000001); /* an unrestricted guest */
  uint64_t zeros = ~fixed0 & ~fixed1;
  set_field(VMCS_CTRL_CR0_MASK, ones | zeros | NW_CD);
  set_field(VMCS_CTRL_CR0_SHADOW, NW_CD | ET);
  HV(hv_vmx_read_capability(HV_VMX_CAP_CR4_FIXED0, &fixed0));
  HV(hv_vmx_read_capability(HV_VMX_CAP_CR4_FIXED1, &fixed1));
  set_field(VMCS_CTRL_CR4_MASK, (fixed0 & fixed1) | (~fixed0 & ~fixed1));
  set_field(VMCS_CTRL_CR4_SHADOW, 0);
  set_field(VMCS_CTRL_EXC_BITMAP, 1 << 18);
  set_field(VMCS_GUEST_LINK_POINTER, UINT64_MAX);
  real_mode_segments();
  set_field(VMCS_GUEST_CR0, ones | ET);
  set_field(VMCS_GUEST_CR4, fixed0);
  set_field(VMCS_GUEST_IA32_EFER, 0);
  set_field(VMCS_GUEST_DR7, 0x400);
  set_field(VMCS_GUEST_DEBUG_EXC, 0);
  set_field(VMCS_CTRL_TPR_THRESHOLD, 0);
  set_field(VMCS_GUEST_INTERRUPTIBILITY, 0);
  set_field(VMCS_GUEST_ACTIVITY_STATE, 0);
  set_field(VMCS_CTRL_CPU_BASED, field(VMCS_CTRL_CPU_BASED) &
                                     ~(uint64_t)(CPU_BASED_IRQ_WND | CPU_BASED_VIRTUAL_NMI_WND));
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(field(VMCS_GUEST_CR0), ones | ET);
  CHECK_EQ(field(VMCS_GUEST_CR4), fixed0);
  CHECK_EQ(field(VMCS_CTRL_CR0_SHADOW), NW_CD | ET);
  end();
}

/* An emulator's accelerator: what the capabilities allow, PDPTEs at 0, protected mode by mask. */
static void an_emulator_sets_up(void) {
  BEGIN(READ_CR);
  set_field(VMCS_CTRL_PIN_BASED, wanted(HV_VMX_CAP_PINBASED, 0));
  set_field(VMCS_CTRL_CPU_BASED,
            wanted(HV_VMX_CAP_PROCBASED, CPU_BASED_HLT | CPU_BASED_MWAIT | CPU_BASED_TSC_OFFSET |
                                             CPU_BASED_SECONDARY_CTLS));
  set_field(VMCS_CTRL_CPU_BASED2, wanted(HV_VMX_CAP_PROCBASED2, 0));
  set_field(VMCS_CTRL_VMENTRY_CONTROLS, wanted(HV_VMX_CAP_ENTRY, 0));
  set_field(VMCS_CTRL_EXC_BITMAP, 0);
  set_field(VMCS_CTRL_TPR_THRESHOLD, 0);
  for (uint32_t i = 0; i < 4; i++) {
    set_field(VMCS_GUEST_PDPTE0 + 2 * i, 0);
  }
  set_field(VMCS_CTRL_CR0_MASK, PG_NW_CD | NE);
  set_field(VMCS_CTRL_CR0_SHADOW, 0x60000010);
  set_field(VMCS_GUEST_CR0, ET | NE);
  set_field(VMCS_CTRL_CR4_MASK, VMXE);
  set_field(VMCS_CTRL_CR4_SHADOW, 0);
  set_field(VMCS_GUEST_CR4, VMXE);
  real_mode_segments();
  HV(hv_vcpu_invalidate_tlb(vcpu));
  HV_IS(hv_vcpu_flush(vcpu), HV_UNSUPPORTED);
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RAX) & (PG_NW_CD | NE), NW_CD);
  CHECK_EQ(get(HV_X86_RBX) & VMXE, 0);
  end();
}

/* A unikernel's runner: long mode from the start. */
static void a_unikernel_runner_sets_up(void) {
  static const uint8_t code[] = {0x0f, 0x20, 0xe0, 0xf4}; /* mov rax, cr4; hlt */
  begin_long(code, sizeof code);
  set_field(VMCS_CTRL_PIN_BASED, wanted(HV_VMX_CAP_PINBASED, 0));
  set_field(VMCS_CTRL_CPU_BASED,
            wanted(HV_VMX_CAP_PROCBASED, CPU_BASED_HLT | CPU_BASED_CR8_LOAD | CPU_BASED_CR8_STORE));
  set_field(VMCS_CTRL_CPU_BASED2, wanted(HV_VMX_CAP_PROCBASED2, CPU_BASED2_RDTSCP));
  set_field(VMCS_CTRL_VMENTRY_CONTROLS, wanted(HV_VMX_CAP_ENTRY, VMENTRY_GUEST_IA32E));
  set_field(VMCS_CTRL_VMEXIT_CONTROLS, wanted(HV_VMX_CAP_EXIT, 0));
  set_field(VMCS_CTRL_EXC_BITMAP, 1 << 18);
  set_field(VMCS_CTRL_CR0_MASK, 0x60000000);
  set_field(VMCS_CTRL_CR0_SHADOW, 0);
  set_field(VMCS_CTRL_CR4_MASK, 0);
  set_field(VMCS_CTRL_CR4_SHADOW, 0);
  set_field(VMCS_GUEST_CR0, field(VMCS_GUEST_CR0) | NE);
  set_field(VMCS_GUEST_CR4, field(VMCS_GUEST_CR4) | VMXE);
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RAX) & VMXE, follows() ? VMXE : 0); /* no mask is set */
  CHECK_EQ(field(VMCS_GUEST_CR4) & VMXE, VMXE);
  end();
}

/* ---- Blocking ---- */

/* A program that has done an instruction's work lifts the blocking that was before it itself: the
 * field is as it was at the exit, whatever RIP is. */
static void blocking_does_not_end_where_rip_is_written(void) {
  static const struct {
    uint8_t code[6];
    uint64_t reason, blocking;
  } cases[] = {
      {{0xfb, 0xf4, 0xf4}, VMX_REASON_HLT, 1},                             /* sti; hlt */
      {{0x8e, 0xd0, 0xe4, 0x10, 0xf4}, VMX_REASON_IO, 2},                  /* mov ss, ax; in */
      {{0x8e, 0xd0, 0xa0, 0x00, 0x08, 0xf4}, VMX_REASON_EPT_VIOLATION, 2}, /* mov al, [0x800] */
      {{0x8e, 0xd0, 0xa2, 0x00, 0x08, 0xf4}, VMX_REASON_EPT_VIOLATION, 2}, /* mov [0x800], al */
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    test_note("case %zu", i);
    begin_with(cases[i].code, sizeof cases[i].code, HV_VM_DEFAULT);
    set_field(VMCS_GUEST_DS_BASE, 0x20000);
    CHECK_EQ(run(), cases[i].reason);
    const uint64_t blocking = field(VMCS_GUEST_INTERRUPTIBILITY);
    if (follows()) { /* KVM has ended it where it has done the instruction */
      CHECK_EQ(blocking, cases[i].blocking);
    }
    set(HV_X86_RAX, 0);
    CHECK_EQ(field(VMCS_GUEST_INTERRUPTIBILITY), blocking);
    skip();
    CHECK_EQ(field(VMCS_GUEST_INTERRUPTIBILITY), blocking);
    CHECK_EQ(run(), VMX_REASON_HLT);
    CHECK_EQ(field(VMCS_GUEST_INTERRUPTIBILITY), follows() ? blocking : 0);
    end();
  }
}

/* ---- All fields ---- */

/* What is above the width of a field is not written (SDM Vol. 3, 31.3, VMWRITE). */
static uint64_t width_of(uint32_t number) {
  static const uint64_t widths[] = {UINT16_MAX, UINT64_MAX, UINT32_MAX, UINT64_MAX};
  return widths[number >> 13 & 3];
}

/* A write is taken as the field's capability says; or the field is as it was. */
static void fields_take_what_their_capability_says(void) {
  uint64_t seed = 88172645463325252u;
  BEGIN(0xf4);
  for (uint32_t number = 0; number < VMCS_MAX; number++) {
    uint64_t before, after, must, may;
    hv_return_t readable = hv_vmx_vcpu_read_vmcs(vcpu, number, &before);
    hv_return_t writable = hv_vmx_vcpu_get_cap_write_vmcs(vcpu, number, &must, &may);
    for (int i = 0; i < 4; i++) {
      seed ^= seed << 13;
      seed ^= seed >> 7;
      seed ^= seed << 17;
      uint64_t value = i == 0 ? 0 : seed >> (i * 16 - 16);
      hv_return_t written = hv_vmx_vcpu_write_vmcs(vcpu, number, value);
      test_note("field 0x%x, 0x%llx, allowed 0x%llx", number, (unsigned long long)value,
                (unsigned long long)may);
      value &= width_of(number);
      if (writable != HV_SUCCESS || value & ~may || must & ~value) {
        CHECK(written != HV_SUCCESS);
      }
      CHECK_EQ(hv_vmx_vcpu_read_vmcs(vcpu, number, &after), readable);
      if (written != HV_SUCCESS && readable == HV_SUCCESS) {
        CHECK_EQ(after, before);
      }
      before = after;
    }
  }
  end();
}

int main(void) {
  RUN_KVM(fields_are_kept_and_read_back);
  RUN_KVM(exceptions_that_are_set_by_habit_are_taken);
  RUN_KVM(page_faults_exit_by_bitmap_mask_and_match);
  RUN_KVM(caching_is_the_program_s_where_it_is_masked);
  RUN_KVM(the_extension_type_is_what_the_shadow_says);
  RUN_KVM(other_masked_bits_are_as_the_guest_has_them);
  RUN_KVM(pdptes_are_those_in_memory);
  RUN_KVM(a_dos_runner_sets_up);
  RUN_KVM(a_bsd_vmm_sets_up);
  RUN_KVM(an_emulator_sets_up);
  RUN_KVM(a_unikernel_runner_sets_up);
  RUN_KVM(blocking_does_not_end_where_rip_is_written);
  RUN_KVM(fields_take_what_their_capability_says);
  return test_end();
}
