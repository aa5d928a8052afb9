/* SPDX-License-Identifier: MIT
 * The checks of a VM entry as the SDM's chapter on VM entries lists them: what breaks a rule is an
 * entry failure whose reason hv_ext_error_message tells, and the guest is entered once that is
 * mended. What a field cannot hold at all is refused when it is written. */
#include "fixture/hvf_long.h"

enum {
  FAILURE = VMX_REASON_VMENTRY_GUEST
};

static const uint64_t failed = VMX_REASON_ENTRY_FAILURE | (uint64_t)FAILURE;

typedef enum mode {
  REAL,
  FLAT, /* 32-bit, without paging */
  LONG
} mode;

/* A field, a value that breaks a rule in that mode, and how the rule is told. */
typedef struct rule {
  mode mode;
  uint32_t field;
  uint64_t value;
  const char *text;
} rule;

#define HIGH UINT64_C(0x800000000000) /* not canonical with four levels of page tables */
#define HIGHEST UINT64_C(1) << 62     /* nor with five */

/* SDM Vol. 3, 27.3.1.1: control registers, debug registers, MSRs. */
static const rule registers[] = {
    {REAL, VMCS_GUEST_CR0, UINT64_C(0x100000030), "cr0 bit 32 is reserved"},
    {REAL, VMCS_GUEST_CR0, 0x80000030, "cr0 bit 31 (PG) is set while bit 0 (PE) is clear"},
    {REAL, VMCS_GUEST_CR4, 1 << 15, "cr4 bit 15 is reserved"},
    {REAL, VMCS_GUEST_CR4, UINT64_C(1) << 40, "cr4 bit 40 is reserved"},
    {FLAT, VMCS_GUEST_CR4, 1 << 17, "cr4 bit 17 (PCIDE) is"},
    {FLAT, VMCS_GUEST_CR3, UINT64_C(1) << 63, "cr3 bit 63 is set"},
    {LONG, VMCS_GUEST_CR3, UINT64_C(1) << 60 | 0x9000, "cr3 bit 60 is set"},
    {LONG, VMCS_GUEST_CR4, 0, "cr4 bit 5 (PAE) is clear"},
    {LONG, VMCS_GUEST_CR0, 0x31, "efer bit 10 (LMA) is set while cr0 bit 31 (PG) is clear"},
    {LONG, VMCS_GUEST_IA32_EFER, 0x100, "efer bit 10 (LMA) is clear while cr0.PG and efer.LME"},
    {LONG, VMCS_GUEST_IA32_EFER, 0x400, "efer bit 10 (LMA) is set while efer bit 8 (LME)"},
    {REAL, VMCS_GUEST_IA32_EFER, 0x400, "efer bit 10 (LMA) is set while cr0 bit 31 (PG)"},
    {LONG, VMCS_GUEST_IA32_EFER, 0x502, "efer bit 1 is reserved"},
};

/* 27.3.1.2: segments. */
static const rule segments[] = {
    {LONG, VMCS_GUEST_TR, 4, "tr.selector 0x4 bit 2 (TI) is set"},
    {LONG, VMCS_GUEST_LDTR, 4, "ldtr.selector 0x4 bit 2 (TI) is set"},
    {REAL, VMCS_GUEST_CS_BASE, UINT64_C(1) << 32, "cs.base 0x100000000 has more than 32 bits"},
    {REAL, VMCS_GUEST_SS_BASE, UINT64_C(1) << 32, "ss.base 0x100000000 has more than 32 bits"},
    {FLAT, VMCS_GUEST_DS_BASE, UINT64_C(1) << 32, "ds.base 0x100000000 has more than 32 bits"},
    {LONG, VMCS_GUEST_ES_BASE, UINT64_C(1) << 32, "es.base 0x100000000 has more than 32 bits"},
    {LONG, VMCS_GUEST_FS_BASE, HIGH, "fs.base 0x800000000000 is not canonical"},
    {LONG, VMCS_GUEST_GS_BASE, HIGH, "gs.base 0x800000000000 is not canonical"},
    {LONG, VMCS_GUEST_TR_BASE, HIGH, "tr.base 0x800000000000 is not canonical"},
    {LONG, VMCS_GUEST_LDTR_BASE, HIGH, "ldtr.base 0x800000000000 is not canonical"},
    {FLAT, VMCS_GUEST_CS_AR, 0xc091, "cs.access type 1 is no accessed code segment"},
    {FLAT, VMCS_GUEST_CS_AR, 0xc0f3, "cs.access DPL 3 is not 0, as type 3 has it"},
    {FLAT, VMCS_GUEST_CS_AR, 0xc09a, "cs.access type 10 is no accessed code segment"},
    {FLAT, VMCS_GUEST_CS_AR, 0xc08b, "cs.access bit 4 (S) must be 1"},
    {FLAT, VMCS_GUEST_CS_AR, 0xc01b, "cs.access bit 7 (P) is clear"},
    {FLAT, VMCS_GUEST_CS_AR, 0xc0fb, "cs.access DPL 3 does not go with ss.access DPL 0"},
    {FLAT, VMCS_GUEST_SS_AR, 0xc0f3, "cs.access DPL 0 does not go with ss.access DPL 3"},
    {LONG, VMCS_GUEST_CS_AR, 0xe09b, "cs.access bits 13 (L) and 14 (D) are both set"},
    {FLAT, VMCS_GUEST_CS_AR, 0x409b, "cs.access bit 15 (G) is clear"},
    {FLAT, VMCS_GUEST_CS_LIMIT, 0xfffff0ff, "cs.access bit 15 (G) is set"},
    {FLAT, VMCS_GUEST_SS_AR, 0xc091, "ss.access type 1 is no accessed writable data segment"},
    {REAL, VMCS_GUEST_SS_AR, 0xf3, "ss.access DPL 3"},
    {FLAT, VMCS_GUEST_DS_AR, 0x92, "ds.access type 2: bit 0 (accessed) is clear"},
    {FLAT, VMCS_GUEST_ES_AR, 0x99, "es.access type 9 is code that cannot be read"},
    {FLAT, VMCS_GUEST_FS_AR, 0x83, "fs.access bit 4 (S) must be 1"},
    {FLAT, VMCS_GUEST_GS_AR, 0x13, "gs.access bit 7 (P) is clear"},
    {LONG, VMCS_GUEST_TR_AR, 0x83, "tr.access type 3 is no busy TSS (11)"},
    {FLAT, VMCS_GUEST_TR_AR, 0x89, "tr.access type 9 is no busy TSS (11 or 3)"},
    {FLAT, VMCS_GUEST_TR_AR, 0x9b, "tr.access bit 4 (S) must be 0"},
    {FLAT, VMCS_GUEST_TR_AR, 0x1008b, "tr.access bit 16 (unusable) is set"},
    {FLAT, VMCS_GUEST_TR_LIMIT, 0x100000, "tr.access bit 15 (G) is clear"},
    {FLAT, VMCS_GUEST_LDTR_AR, 0x8b, "ldtr.access type 11 is no LDT (2)"},
    {FLAT, VMCS_GUEST_LDTR_AR, 2, "ldtr.access bit 7 (P) is clear"},
};

/* 27.3.1.3 to 27.3.1.5: descriptor tables, RIP and RFLAGS, what is no register. */
static const rule others[] = {
    {LONG, VMCS_GUEST_GDTR_BASE, HIGH, "gdtr.base 0x800000000000 is not canonical"},
    {LONG, VMCS_GUEST_IDTR_BASE, HIGH, "idtr.base 0x800000000000 is not canonical"},
    {LONG, VMCS_GUEST_RIP, HIGH, "rip 0x800000000000 is not canonical"},
    {FLAT, VMCS_GUEST_RIP, HIGH, "rip 0x800000000000 has more than 32 bits"},
    {LONG, VMCS_GUEST_RFLAGS, 0, "rflags bit 1 is clear"},
    {LONG, VMCS_GUEST_RFLAGS, 0x8002, "rflags bit 15 is reserved"},
    {LONG, VMCS_GUEST_RFLAGS, 0x22, "rflags bit 5 is reserved"},
    {LONG, VMCS_GUEST_RFLAGS, 0xa, "rflags bit 3 is reserved"},
    {LONG, VMCS_GUEST_RFLAGS, UINT64_C(1) << 22 | 2, "rflags bit 22 is reserved"},
    {LONG, VMCS_GUEST_RFLAGS, 0x20002, "rflags bit 17 (VM) is set in long mode"},
    {REAL, VMCS_GUEST_RFLAGS, 0x20002, "rflags bit 17 (VM) is set outside of protected mode"},
    {FLAT, VMCS_GUEST_RFLAGS, 0x20002, "cs must have base selector * 16"},
    {LONG, VMCS_GUEST_INTERRUPTIBILITY, 1, "interruptibility bit 0 (blocking by STI)"},
};

static void begin_mode(mode m) {
  static const uint8_t halt[] = {0xf4};
  if (m == LONG) {
    begin_long(halt, sizeof halt);
    return;
  }
  BEGIN(0xf4);
  if (m == FLAT) {
    set_field(VMCS_GUEST_CR0, 0x31);
    set_field(VMCS_GUEST_CS, 8);
    set_field(VMCS_GUEST_CS_LIMIT, 0xffffffff);
    set_field(VMCS_GUEST_CS_AR, 0xc09b);
  }
}

static void entry_fails(const char *text) {
  uint32_t status = 1;
  CHECK_EQ(run(), failed);
  CHECK_TEXT(hv_ext_error_message(), text);
  HV(hv_vcpu_vmx_status(vcpu, &status));
  CHECK_EQ(status, 0); /* the processor has come as far as the guest's state */
  CHECK_EQ(field(VMCS_RO_INSTR_ERROR), 0);
}

static void check_rules(const rule *rules, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const rule *r = &rules[i];
    begin_mode(r->mode);
    uint64_t before = field(r->field);
    test_note("field 0x%x: %s", r->field, r->text);
    set_field(r->field, r->value);
    entry_fails(r->text);
    entry_fails(r->text); /* as long as it is so */
    set_field(r->field, before);
    CHECK_EQ(run(), VMX_REASON_HLT);
    end();
  }
}

static void control_registers_are_checked(void) {
  check_rules(registers, sizeof registers / sizeof *registers);
}

static void segments_are_checked(void) {
  check_rules(segments, sizeof segments / sizeof *segments);
}

static void tables_flags_and_blocking_are_checked(void) {
  check_rules(others, sizeof others / sizeof *others);
}

static void blocking_by_both_is_none(void) {
  BEGIN(0xf4);
  set(HV_X86_RFLAGS, 0x202);
  set_field(VMCS_GUEST_INTERRUPTIBILITY, 3);
  if (field(VMCS_GUEST_INTERRUPTIBILITY) == 3) { /* KVM may keep one of them */
    entry_fails("interruptibility bits 0 (blocking by STI) and 1 (by MOV SS) are both set");
  }
  set_field(VMCS_GUEST_INTERRUPTIBILITY, 0);
  CHECK_EQ(run(), VMX_REASON_HLT);
  end();
}

/* 27.3.1.6, with PAE paging. */
static void pdptes_are_checked(void) {
  begin_mode(FLAT);
  store(0xd000, 0xe001);
  store(0xd008, 0xf021);
  store(0xe000, 0x83);
  set_field(VMCS_GUEST_CR3, 0xd000);
  set_field(VMCS_GUEST_CR4, 0x20);
  set_field(VMCS_GUEST_CR0, 0x80000031);
  entry_fails("PDPTE 1 at 0xd008 has reserved bit 5 set");
  CHECK_EQ(field(VMCS_RO_EXIT_QUALIFIC), 2); /* 27.8 */
  store(0xd008, 0);
  set_field(VMCS_GUEST_TR_AR, 0x10000);
  entry_fails("tr.access bit 16 (unusable) is set");
  CHECK_EQ(field(VMCS_RO_EXIT_QUALIFIC), 0);
  set_field(VMCS_GUEST_TR_AR, 0x8b);
  HV(hv_vcpu_interrupt(&vcpu, 1)); /* not every KVM has guests with such paging */
  CHECK_EQ(run(), VMX_REASON_IRQ);
  end();
}

/* In virtual-8086 mode everything follows from the selector. */
static void virtual_8086_segments_are_checked(void) {
  static const uint32_t order[] = {0, 1, 2, 3, 4, 5};
  begin_mode(FLAT);
  set(HV_X86_RFLAGS, 0x20002);
  for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
    set_field(VMCS_GUEST_ES + 2 * order[i], 0);
    set_field(VMCS_GUEST_ES_BASE + 2 * order[i], 0);
    set_field(VMCS_GUEST_ES_LIMIT + 2 * order[i], 0xffff);
    set_field(VMCS_GUEST_ES_AR + 2 * order[i], 0xf3);
  }
  set_field(VMCS_GUEST_GS_AR, 0xf2);
  entry_fails("gs.access must be 0xf3 with rflags.VM");
  set_field(VMCS_GUEST_GS_AR, 0xf3);
  set_field(VMCS_GUEST_FS_LIMIT, 0xfffff);
  entry_fails("fs must have base selector * 16 and limit 0xffff with rflags.VM");
  end();
}

/* As between the MOV to CR0 that leaves real mode and the far jump: 27.3.1.2, type 3. */
static void code_can_be_in_the_data_segment_of_real_mode(void) {
  begin_mode(FLAT);
  set_field(VMCS_GUEST_CS_AR, 0xc093);
  CHECK_EQ(run(), VMX_REASON_HLT);
  set_field(VMCS_GUEST_SS_AR, 0xc0f3);
  entry_fails("ss.access DPL 3 is not 0 while cs.access has type 3");
  end();
}

/* What the width of a field, or KVM's own rules for an MSR, leave no room for. */
static void what_cannot_be_held_is_refused_when_written(void) {
  static const struct {
    uint32_t field;
    uint64_t value;
  } cases[] = {{VMCS_GUEST_GDTR_LIMIT, 0x10000},
               {VMCS_GUEST_IDTR_LIMIT, 0x10000},
               {VMCS_GUEST_CS_AR, 0x20000},
               {VMCS_GUEST_DS_AR, 0x100},
               {VMCS_GUEST_SYSENTER_ESP, HIGHEST},
               {VMCS_GUEST_SYSENTER_EIP, HIGHEST},
               {VMCS_GUEST_IA32_PAT, 2},
               {VMCS_GUEST_INTERRUPTIBILITY, 0x20},
               {VMCS_CTRL_CR3_COUNT, 5}};
  BEGIN(0xf4);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    uint64_t before = field(cases[i].field);
    test_note("field 0x%x", cases[i].field);
    CHECK(hv_vmx_vcpu_write_vmcs(vcpu, cases[i].field, cases[i].value) != HV_SUCCESS);
    CHECK_EQ(field(cases[i].field), before);
  }
  CHECK_EQ(run(), VMX_REASON_HLT);
  end();
}

/* ---- 27.2.1.3: the event to inject ---- */

static void event_fails(uint32_t info, uint32_t code, const char *text) {
  uint32_t status = 0;
  set_field(VMCS_CTRL_VMENTRY_IRQ_INFO, IRQ_INFO_VALID | info);
  set_field(VMCS_CTRL_VMENTRY_EXC_ERROR, code);
  CHECK_EQ(run(), failed);
  CHECK_TEXT(hv_ext_error_message(), text);
  HV(hv_vcpu_vmx_status(vcpu, &status));
  CHECK_EQ(status, 0x40); /* ZF: VMfailValid */
  CHECK_EQ(field(VMCS_RO_INSTR_ERROR), 7);
}

static void error_codes_of_events_are_checked(void) {
  const uint32_t exception = IRQ_INFO_HARD_EXC, coded = IRQ_INFO_HARD_EXC | IRQ_INFO_ERROR_VALID;
  begin_mode(LONG);
  event_fails(exception | 13, 0, "injected without an error code");
  event_fails(exception | 8, 0, "injected without an error code");
  event_fails(coded | 6, 0, "injected with an error code");
  event_fails(IRQ_INFO_EXT_IRQ | IRQ_INFO_ERROR_VALID | 0x20, 0, "injected with an error code");
  event_fails(IRQ_INFO_NMI | IRQ_INFO_ERROR_VALID | 2, 0, "injected with an error code");
  event_fails(coded | 14, 0x10000, "0x10000 has more than 16 bits");
  set_field(VMCS_CTRL_VMENTRY_IRQ_INFO, 0);
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(field(VMCS_RO_INSTR_ERROR), 0);
  end();
  begin_mode(REAL);
  event_fails(coded | 13, 0, "with an error code, in real mode");
  set_field(VMCS_CTRL_VMENTRY_IRQ_INFO, 0);
  CHECK_EQ(run(), VMX_REASON_HLT);
  end();
}

/* Of an instruction: its length, which a processor needs (KVM's injection does not). */
static void lengths_of_events_are_checked(void) {
  const uint32_t info = IRQ_INFO_SOFT_IRQ | 0x21;
  begin_mode(REAL);
  if (follows()) {
    event_fails(info, 0, "is of an instruction, of 0 bytes and not 1 to 15");
    set_field(VMCS_CTRL_VMENTRY_INSTR_LEN, 16);
    event_fails(info, 0, "of 16 bytes");
    set_field(VMCS_CTRL_VMENTRY_INSTR_LEN, 15);
  }
  set_field(VMCS_CTRL_VMENTRY_IRQ_INFO, 0);
  CHECK_EQ(run(), VMX_REASON_HLT);
  end();
}

/* ---- 27.2.1.1 and 27.2.1.2: controls that go together ---- */

static void controls_fail(uint32_t number, uint64_t bit, uint32_t with, uint64_t needed,
                          const char *text) {
  uint32_t status = 0;
  begin_mode(LONG);
  set_field(number, field(number) | bit);
  CHECK_EQ(run(), failed);
  CHECK_TEXT(hv_ext_error_message(), text);
  HV(hv_vcpu_vmx_status(vcpu, &status));
  CHECK_EQ(status, 0x40);
  CHECK_EQ(field(VMCS_RO_INSTR_ERROR), 7);
  set_field(with, field(with) | needed);
  HV(hv_vcpu_run_until(vcpu, 1));
  CHECK_EQ(field(VMCS_RO_INSTR_ERROR), 0);
  end();
}

static void controls_that_go_together_are_checked(void) {
  controls_fail(VMCS_CTRL_CPU_BASED, CPU_BASED_VIRTUAL_NMI_WND, VMCS_CTRL_PIN_BASED,
                PIN_BASED_VIRTUAL_NMI, "NMI-window exiting is 1 while virtual NMIs");
  if (follows()) {
    controls_fail(VMCS_CTRL_VMEXIT_CONTROLS, VMEXIT_SAVE_VMX_TIMER, VMCS_CTRL_PIN_BASED,
                  PIN_BASED_PREEMPTION_TIMER, "while the timer is not activated");
  }
}

/* With virtualized APIC accesses it is an exit instead. */
static void the_threshold_is_not_above_the_priority(void) {
  begin_mode(LONG);
  if (follows()) {
    set_field(VMCS_CTRL_TPR_THRESHOLD, 5);
    set_field(VMCS_CTRL_CPU_BASED, field(VMCS_CTRL_CPU_BASED) | CPU_BASED_TPR_SHADOW);
    set(HV_X86_TPR, 0x40);
    CHECK_EQ(run(), failed);
    CHECK_TEXT(hv_ext_error_message(), "the TPR threshold is above the task priority");
    CHECK_EQ(field(VMCS_RO_INSTR_ERROR), 7);
    set_field(VMCS_CTRL_CPU_BASED2, field(VMCS_CTRL_CPU_BASED2) | CPU_BASED2_VIRTUAL_APIC);
    CHECK_EQ(run(), VMX_REASON_TPR_THRESHOLD);
    set(HV_X86_TPR, 0x50);
  }
  CHECK_EQ(run(), VMX_REASON_HLT);
  end();
}

/* ---- What waited ---- */

/* A write that the program has dealt with stays dealt with, and a read that it has answered. */
static void an_answer_survives_a_failed_entry(void) {
  BEGIN(0xe6, 0x10, 0xe4, 0x11, 0xf4); /* out 0x10, al; in al, 0x11; hlt */
  uint64_t ss = field(VMCS_GUEST_SS_AR);
  CHECK_EQ(run(), VMX_REASON_IO);
  skip();
  set_field(VMCS_GUEST_SS_AR, 0xf3);
  entry_fails("ss.access DPL 3");
  CHECK_EQ(get(HV_X86_RIP), CODE + 2);
  set_field(VMCS_GUEST_SS_AR, ss);
  CHECK_EQ(run(), VMX_REASON_IO);
  CHECK_EQ(get(HV_X86_RIP), CODE + 2);
  set(HV_X86_RAX, 0x5a);
  skip();
  set(HV_X86_RFLAGS, 0);
  entry_fails("rflags bit 1 is clear");
  CHECK_EQ(get(HV_X86_RIP), CODE + 4);
  CHECK_EQ(get(HV_X86_RAX) & 0xff, 0x5a);
  set(HV_X86_RFLAGS, 2);
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RAX) & 0xff, 0x5a);
  end();
}

/* ---- Anything ---- */

static uint64_t state = 88172645463325252u;

static uint64_t any(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

/* Fields of the guest's state, and controls that an entry looks at. */
static const uint32_t guest_fields[] = {VMCS_GUEST_CR0,
                                        VMCS_GUEST_CR3,
                                        VMCS_GUEST_CR4,
                                        VMCS_GUEST_IA32_EFER,
                                        VMCS_GUEST_RIP,
                                        VMCS_GUEST_RSP,
                                        VMCS_GUEST_RFLAGS,
                                        VMCS_GUEST_DR7,
                                        VMCS_GUEST_GDTR_BASE,
                                        VMCS_GUEST_IDTR_BASE,
                                        VMCS_GUEST_IDTR_LIMIT,
                                        VMCS_GUEST_INTERRUPTIBILITY,
                                        VMCS_CTRL_CR0_MASK,
                                        VMCS_CTRL_CR0_SHADOW,
                                        VMCS_CTRL_CR4_MASK,
                                        VMCS_CTRL_CR4_SHADOW,
                                        VMCS_CTRL_EXC_BITMAP,
                                        VMCS_CTRL_VMENTRY_IRQ_INFO,
                                        VMCS_CTRL_VMENTRY_CONTROLS};

static uint32_t any_field(void) {
  const uint64_t eight = VMCS_GUEST_TR - VMCS_GUEST_ES + 2;
  const size_t count = sizeof guest_fields / sizeof *guest_fields;
  const uint32_t rows[] = {VMCS_GUEST_ES, VMCS_GUEST_ES_LIMIT, VMCS_GUEST_ES_AR,
                           VMCS_GUEST_ES_BASE};
  return any() % 2 ? guest_fields[any() % count]
                   : rows[any() % 4] + ((uint32_t)(any() % eight) & ~1u);
}

/* A bit more or less, or anything of some width. */
static uint64_t any_value(uint64_t now) {
  return any() % 2 ? now ^ UINT64_C(1) << any() % 32 : any() >> (any() % 4 * 16);
}

/* A run with whatever was written returns with a reason, or with a sentence why it does not, in a
 * time that was given; and the guest goes on once it is what it was. */
static void any_state_is_entered_or_told_of(void) {
  for (int i = 0; i < 300; i++) {
    uint32_t fields[3];
    uint64_t values[3];
    begin_mode((mode)(i % 3));
    for (int k = 0; k < 3; k++) {
      fields[k] = any_field();
      values[k] = any_value(field(fields[k]));
      (void)hv_vmx_vcpu_write_vmcs(vcpu, fields[k], values[k]);
    }
    test_note("0x%x 0x%llx, 0x%x 0x%llx, 0x%x 0x%llx", fields[0], (unsigned long long)values[0],
              fields[1], (unsigned long long)values[1], fields[2], (unsigned long long)values[2]);
    hv_return_t result = hv_vcpu_run_until(vcpu, luna_clock() + 2000000);
    if (result == HV_SUCCESS) {
      CHECK(field(VMCS_RO_EXIT_REASON) != failed || strstr(hv_ext_error_message(), "vCPU"));
    } else {
      CHECK(result == HV_UNSUPPORTED || result == HV_ERROR);
      CHECK(strlen(hv_ext_error_message()) > 20);
    }
    end();
  }
}

int main(void) {
  RUN_KVM(control_registers_are_checked);
  RUN_KVM(segments_are_checked);
  RUN_KVM(tables_flags_and_blocking_are_checked);
  RUN_KVM(blocking_by_both_is_none);
  RUN_KVM(pdptes_are_checked);
  RUN_KVM(virtual_8086_segments_are_checked);
  RUN_KVM(code_can_be_in_the_data_segment_of_real_mode);
  RUN_KVM(what_cannot_be_held_is_refused_when_written);
  RUN_KVM(error_codes_of_events_are_checked);
  RUN_KVM(lengths_of_events_are_checked);
  RUN_KVM(controls_that_go_together_are_checked);
  RUN_KVM(the_threshold_is_not_above_the_priority);
  RUN_KVM(an_answer_survives_a_failed_entry);
  RUN_KVM(any_state_is_entered_or_told_of);
  return test_end();
}
