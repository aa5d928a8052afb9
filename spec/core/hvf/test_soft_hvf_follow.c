/* SPDX-License-Identifier: MIT
 * The Hypervisor framework on the software CPU, which follows every control: what it offers, and
 * what the exit fields of the VMCS say. */
#include "fixture/hvf_long.h"

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

/* ---- The preemption timer ---- */

/* Of a jump to itself. */
static void begin_timer(uint64_t value) {
  BEGIN(0xeb, 0xfe);
  add_controls(VMCS_CTRL_PIN_BASED, PIN_BASED_PREEMPTION_TIMER);
  set_field(VMCS_GUEST_VMX_TIMER_VALUE, value);
}

/* Both clocks at one moment: the closest of several readings, as others come between two. */
static void read_clocks(uint64_t *time, uint64_t *ticks) {
  uint64_t least = UINT64_MAX;
  for (int i = 0; i < 100; i++) {
    uint64_t before = luna_clock(), counter = hv_tsc_clock(), apart = luna_clock() - before;
    if (apart < least) {
      least = apart;
      *time = before;
      *ticks = counter;
    }
  }
}

/* The count of so many nanoseconds, by what the capability and the counter say. */
static uint64_t timer_count(uint64_t ns) {
  uint64_t misc, begin = 0, first = 0, end = 0, last = 0;
  read_clocks(&begin, &first);
  while (luna_clock() - begin < 2000000) {
  }
  read_clocks(&end, &last);
  HV(hv_vmx_read_capability(HV_VMX_CAP_MISC, &misc));
  return ns / 1000 * (last - first) / ((end - begin) / 1000) >> (misc & 31);
}

static void the_timer_ends_a_run(void) {
  const uint64_t ms = 1000000, count = timer_count(5 * ms);
  begin_timer(count);
  for (int i = 0; i < 2; i++) { /* it begins anew with each entry */
    uint64_t begin = luna_clock();
    CHECK_EQ(run(), VMX_REASON_VMX_TIMER_EXPIRED);
    CHECK(luna_clock() - begin >= 5 * ms - ms / 10);
    CHECK_EQ(field(VMCS_GUEST_VMX_TIMER_VALUE), count);
    CHECK_EQ(field(VMCS_RO_VMEXIT_INSTR_LEN), 0);
  }
  HV(hv_vcpu_run_until(vcpu, luna_clock())); /* which comes before it */
  CHECK_EQ(field(VMCS_RO_EXIT_REASON), VMX_REASON_VMX_TIMER_EXPIRED);
  end();
}

static void a_timer_at_zero_lets_nothing_run(void) {
  begin_timer(0);
  ram[CODE] = 0xf4;
  CHECK_EQ(run(), VMX_REASON_VMX_TIMER_EXPIRED);
  CHECK_EQ(get(HV_X86_RIP), CODE);
  set_field(VMCS_CTRL_PIN_BASED,
            field(VMCS_CTRL_PIN_BASED) & ~(uint64_t)PIN_BASED_PREEMPTION_TIMER);
  CHECK_EQ(run(), VMX_REASON_HLT);
  end();
}

/* An event is injected before it (SDM Vol. 3, 27.7.4); one that is not accepted stays. */
static void a_timer_at_zero_lets_an_event_in(void) {
  static const uint32_t events[] = {IRQ_INFO_EXT_IRQ | 0x21, IRQ_INFO_NMI | 2,
                                    IRQ_INFO_HARD_EXC | 6, IRQ_INFO_SOFT_IRQ | 0x21};
  for (size_t i = 0; i < sizeof events / sizeof *events; i++) {
    const uint32_t vector = events[i] & 0xff, info = IRQ_INFO_VALID | events[i];
    begin_timer(0);
    memcpy(ram + vector * 4, "\x00\x20\x00\x00", 4);
    set_field(VMCS_GUEST_IDTR_LIMIT, 0x3ff);
    set(HV_X86_RFLAGS, 2);
    set_field(VMCS_CTRL_VMENTRY_INSTR_LEN, 2);
    set_field(VMCS_CTRL_VMENTRY_IRQ_INFO, info);
    if (i == 0) {
      CHECK_EQ(run(), VMX_REASON_VMX_TIMER_EXPIRED);
      CHECK_EQ(get(HV_X86_RIP), CODE);
      CHECK_EQ(field(VMCS_CTRL_VMENTRY_IRQ_INFO), info);
      set(HV_X86_RFLAGS, 0x202);
    }
    CHECK_EQ(run(), VMX_REASON_VMX_TIMER_EXPIRED);
    CHECK_EQ(get(HV_X86_RIP), 0x2000);
    CHECK_EQ(get(HV_X86_RSP), 0x8000 - 6);
    CHECK_EQ(field(VMCS_CTRL_VMENTRY_IRQ_INFO), 0);
    CHECK_EQ(run(), VMX_REASON_VMX_TIMER_EXPIRED);
    CHECK_EQ(get(HV_X86_RIP), 0x2000);
    end();
  }
}

static void what_is_left_of_the_timer_is_kept_where_asked(void) {
  const uint64_t count = timer_count(UINT64_C(1000000000));
  begin_timer(count);
  ram[CODE] = 0xf4;
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(field(VMCS_GUEST_VMX_TIMER_VALUE), count);
  set(HV_X86_RIP, CODE);
  add_controls(VMCS_CTRL_VMEXIT_CONTROLS, VMEXIT_SAVE_VMX_TIMER);
  CHECK_EQ(run(), VMX_REASON_HLT);
  const uint64_t left = field(VMCS_GUEST_VMX_TIMER_VALUE);
  CHECK(left > 0 && left < count);
  ram[CODE] = 0xeb;
  set(HV_X86_RIP, CODE);
  set_field(VMCS_GUEST_VMX_TIMER_VALUE, 1000);
  CHECK_EQ(run(), VMX_REASON_VMX_TIMER_EXPIRED);
  CHECK_EQ(field(VMCS_GUEST_VMX_TIMER_VALUE), 0);
  end();
}

/* ---- Writes ---- */

typedef struct writer {
  uint8_t code[12];
  uint8_t length;
  uint64_t gpa; /* of what it writes in the page at 0x4000, which can only be read */
} writer;

/* Of the page at 0x4000: RSP is 0x4800, RDI 0x4010, RSI 0x3000, RAX 0x10, RCX 2. */
static const writer writers[] = {
    {{0x50}, 1, 0x47f8},                                     /* push rax */
    {{0xe8, 0, 0, 0, 0}, 5, 0x47f8},                         /* call */
    {{0x87, 0x07}, 2, 0x4010},                               /* xchg [rdi], eax */
    {{0xf0, 0x0f, 0xc1, 0x07}, 4, 0x4010},                   /* lock xadd [rdi], eax */
    {{0x11, 0x47, 0x10}, 3, 0x4020},                         /* adc [rdi + 16], eax */
    {{0xaa}, 1, 0x4010},                                     /* stosb */
    {{0xf3, 0x48, 0xab}, 3, 0x4010},                         /* rep stosq */
    {{0xf3, 0xa4}, 2, 0x4010},                               /* rep movsb */
    {{0x0f, 0x11, 0x07}, 3, 0x4010},                         /* movups [rdi], xmm0 */
    {{0x0f, 0xae, 0x07}, 3, 0x4010},                         /* fxsave [rdi] */
    {{0x89, 0x04, 0x25, 0xfe, 0x3f, 0x00, 0x00}, 7, 0x4000}, /* mov [0x3ffe], eax */
    {{0x0f, 0x01, 0x07}, 3, 0x4010},                         /* sgdt [rdi] */
};

static void begin_writer(const writer *w) {
  static const hv_x86_reg_t regs[] = {HV_X86_RSP, HV_X86_RDI, HV_X86_RSI, HV_X86_RAX, HV_X86_RCX};
  static const uint64_t values[] = {0x4800, 0x4010, 0x3000, 0x10, 2};
  uint8_t code[16] = {0};
  memcpy(code, w->code, w->length);
  code[w->length] = 0xf4;
  begin_long(code, sizeof code);
  set_field(VMCS_GUEST_CR4, 0x220);
  for (size_t i = 0; i < sizeof regs / sizeof *regs; i++) {
    set(regs[i], values[i]);
  }
  memset(ram + 0x4000, 0x5a, 0x1000);
  HV(hv_vm_protect(0x4000, 0x1000, HV_MEMORY_READ | HV_MEMORY_EXEC));
  CHECK_EQ(run(), VMX_REASON_EPT_VIOLATION);
  CHECK_EQ(field(VMCS_GUEST_PHYSICAL_ADDRESS), w->gpa);
}

/* Whatever the instruction is, nothing of it has been done. */
static void writes_stand_at_their_instruction(void) {
  for (size_t i = 0; i < sizeof writers / sizeof *writers; i++) {
    const writer *w = &writers[i];
    test_note("the writer at gpa 0x%x, %u bytes: %u", (unsigned)w->gpa, w->length, (unsigned)i);
    begin_writer(w);
    CHECK_EQ(field(VMCS_RO_EXIT_QUALIFIC), 0x182 | 5 << 3);
    CHECK_EQ(field(VMCS_RO_GUEST_LIN_ADDR), w->gpa);
    CHECK_EQ(field(VMCS_RO_VMEXIT_INSTR_LEN), w->length);
    CHECK_EQ(get(HV_X86_RIP), LINEAR);
    CHECK_EQ(get(HV_X86_RSP), 0x4800);
    CHECK_EQ(get(HV_X86_RDI), 0x4010);
    CHECK_EQ(get(HV_X86_RCX), 2);
    CHECK_EQ(get(HV_X86_RAX), 0x10);
    CHECK_EQ(run(), VMX_REASON_EPT_VIOLATION);
    CHECK_EQ(get(HV_X86_RIP), LINEAR);
    skip();
    CHECK_EQ(run(), VMX_REASON_HLT);
    CHECK_EQ(get(HV_X86_RIP), LINEAR + w->length);
    CHECK_EQ(get(HV_X86_RSP), 0x4800);
    CHECK_EQ(get(HV_X86_RDI), 0x4010);
    CHECK_EQ(get(HV_X86_RCX), 2);
    CHECK_EQ(get(HV_X86_RAX), 0x10);
    CHECK_EQ(ram[0x4010] | ram[0x4000] << 8, 0x5a5a);
    end();
  }
}

/* It is done once where the page can be written by then. */
static void writes_are_done_when_the_page_allows_them(void) {
  for (size_t i = 0; i < sizeof writers / sizeof *writers; i++) {
    const writer *w = &writers[i];
    test_note("the writer at gpa 0x%x, %u bytes: %u", (unsigned)w->gpa, w->length, (unsigned)i);
    begin_writer(w);
    HV(hv_vm_protect(0x4000, 0x1000, RWX));
    CHECK_EQ(run(), VMX_REASON_HLT);
    CHECK_EQ(get(HV_X86_RIP), LINEAR + w->length);
    CHECK(ram[w->gpa] != 0x5a);
    end();
  }
}

/* Each iteration is one, and those before it are done. */
static void repeated_writes_come_one_by_one(void) {
  static const writer stos = {{0xf3, 0xaa}, 2, 0x4010};
  hv_ext_access access;
  begin_writer(&stos);
  HV(hv_ext_vcpu_access(vcpu, &access));
  CHECK_EQ(access.value, 0x10);
  CHECK_EQ(access.size, 1);
  HV(hv_ext_vcpu_complete(vcpu, 0));
  CHECK_EQ(run(), VMX_REASON_EPT_VIOLATION);
  CHECK_EQ(field(VMCS_GUEST_PHYSICAL_ADDRESS), 0x4011);
  CHECK_EQ(get(HV_X86_RIP), LINEAR);
  CHECK_EQ(get(HV_X86_RCX), 1);
  set(HV_X86_RCX, 0);
  skip();
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RDI), 0x4011);
  CHECK_EQ(ram[0x4010], 0x5a);
  end();
}

/* A frame that cannot be pushed: the event is told, and comes when it is delivered again. */
static void a_write_of_a_delivery_tells_the_event(void) {
  BEGIN(0xcd, 0x21, 0xf4);
  memcpy(ram + 0x21 * 4, "\x00\x20\x00\x00", 4);
  ram[0x2000] = 0xf4;
  set(HV_X86_RSP, 0x4800);
  HV(hv_vm_protect(0x4000, 0x1000, HV_MEMORY_READ | HV_MEMORY_EXEC));
  CHECK_EQ(run(), VMX_REASON_EPT_VIOLATION);
  CHECK_EQ(field(VMCS_RO_IDT_VECTOR_INFO), IRQ_INFO_VALID | IRQ_INFO_SOFT_IRQ | 0x21);
  CHECK_EQ(get(HV_X86_RIP), CODE);
  CHECK_EQ(get(HV_X86_RSP), 0x4800);
  HV(hv_vm_protect(0x4000, 0x1000, RWX));
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RIP), 0x2000);
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
  RUN_KVM(the_timer_ends_a_run);
  RUN_KVM(a_timer_at_zero_lets_nothing_run);
  RUN_KVM(a_timer_at_zero_lets_an_event_in);
  RUN_KVM(what_is_left_of_the_timer_is_kept_where_asked);
  RUN_KVM(writes_stand_at_their_instruction);
  RUN_KVM(writes_are_done_when_the_page_allows_them);
  RUN_KVM(repeated_writes_come_one_by_one);
  RUN_KVM(a_write_of_a_delivery_tells_the_event);
  return test_end();
}
