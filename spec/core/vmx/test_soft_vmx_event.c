/* SPDX-License-Identifier: MIT
 * Exceptions, interrupts and what comes between instructions, on a software CPU that follows
 * controls (SDM volume 3, 26.2, 26.4, 26.5.2 and 28.2). */
#include "fixture/soft_vmx.h"

enum {
  HARD = 3 << 8,
  SOFT = 6 << 8,
  ERROR = 1 << 11,
  STEP = 1 << 27,
  BAD = 0x40000000 /* no page is there */
};

#define VALID 0x80000000u

typedef struct row {
  const char *name;
  const char *code;
  unsigned size;
  uint32_t bitmap;
  uint32_t interruption; /* 0: it ends, or goes through the IDT: `vector` */
  uint32_t error;
  uint64_t qualification;
  uint32_t length;
  int vector;
} row;

#define ROW(name, code, ...)                                                                       \
  { name, code, sizeof(code) - 1, __VA_ARGS__ }

static const row rows[] = {
    ROW("div 0", "\xf7\xf1", 1 << 0, VALID | HARD | 0, 0, 0, 0, 0),
    ROW("ud2", "\x0f\x0b", 1 << 6, VALID | HARD | 6, 0, 0, 0, 0),
    ROW("ud2 of another bit", "\x0f\x0b", 1 << 13, 0, 0, 0, 0, 6),
    ROW("int3", "\xcc", 1 << 3, VALID | SOFT | 3, 0, 0, 1, 0),
    ROW("int 3", "\xcd\x03", 1 << 3, 0, 0, 0, 0, 13), /* the gate is ring 0's, the code ring 3's */
    ROW("int1", "\xf1", 1 << 1, VALID | 5 << 8 | 1, 0, 0, 1, 0),
    ROW("#GP by int 0x90", "\xcd\x90", 1 << 13, VALID | HARD | ERROR | 13, 0x90 * 8 + 2, 0, 2, 0),
    ROW("#GP by a selector", "\x8e\xd8", 1 << 13, VALID | HARD | ERROR | 13, 0x1000, 0, 0, 0),
    ROW("#PF of a write", "\x89\x03", 1 << 14, VALID | HARD | ERROR | 14, 6, BAD, 0, 0),
    ROW("int 0x40 to ring 3", "\xcd\x40", ~0u, 0, 0, 0, 0, 0x40),
};

/* In ring 3: RAX is 0x1000, RBX an address without memory, RCX 0. */
static void exceptions_exit_by_the_bitmap(void) {
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    const row *r = &rows[i];
    test_note("%s", r->name);
    soft_system system = system_open(SYSTEM_64);
    struct kvm_sregs sregs = system.sregs;
    struct kvm_regs regs = {.rax = 0x1000, .rbx = BAD};
    system_enter_ring(&system, &sregs, 3);
    sregs.cr2 = 0x1234;
    vmx_set(&system, (luna_controls){.exceptions = r->bitmap});
    if (!r->interruption) {
      system_end end = system_run(&system, &sregs, regs, r->code, r->size);
      CHECK_EQ(end.vector, r->vector);
    } else {
      vmx_end end = vmx_run(&system, &sregs, regs, r->code, r->size);
      CHECK_EQ(end.reason, 0);
      CHECK_EQ(end.exit.interruption, r->interruption);
      CHECK_EQ(end.exit.interruption_error, r->error);
      CHECK_EQ(end.exit.qualification, r->qualification);
      CHECK_EQ(end.exit.length, r->length);
      CHECK_EQ(end.regs.rip, GUEST_CODE);
      CHECK_EQ(end.sregs.cr2, 0x1234); /* a fault that exits does not write it */
      CHECK_EQ(end.sregs.cs.selector, SYSTEM_CODE_3);
    }
    system_close(&system);
  }
}

static void page_faults_exit_by_mask_and_match(void) {
  static const struct {
    uint32_t bitmap, mask, match;
    bool exits;
  } cases[] = {
      {1 << 14, 0, 0, true},  {0, 0, 0, false},       {1 << 14, 2, 2, true}, {1 << 14, 2, 0, false},
      {1 << 14, 1, 1, false}, {1 << 14, 0, 1, false}, {0, 1, 1, true},       {0, 0, 1, true},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    test_note("case %zu", i);
    soft_system system = system_open(SYSTEM_64);
    struct kvm_regs regs = {.rbx = BAD};
    vmx_set(&system, (luna_controls){.exceptions = cases[i].bitmap,
                                     .fault_mask = cases[i].mask,
                                     .fault_match = cases[i].match});
    if (cases[i].exits) { /* mov [rbx], eax: error code 2 */
      vmx_end end = vmx_run(&system, &system.sregs, regs, "\x89\x03", 2);
      CHECK_EQ(end.reason, 0);
      CHECK_EQ(end.exit.qualification, BAD);
    } else {
      system_end end = system_run(&system, &system.sregs, regs, "\x89\x03", 2);
      CHECK_EQ(end.vector, 14);
      CHECK_EQ(end.sregs.cr2, BAD);
    }
    system_close(&system);
  }
}

/* INT 0x21 of real mode without a table: what runners of old programs live on. */
static void an_interrupt_without_a_table_is_told_by_its_gp(void) {
  soft_system system = system_open(SYSTEM_16);
  struct kvm_sregs sregs = system.sregs;
  sregs.cr0 = 0x10;
  sregs.cs = sregs.ds = sregs.ss =
      (struct kvm_segment){.limit = 0xffff, .type = 3, .s = 1, .present = 1};
  sregs.cs.type = 11;
  sregs.idt.limit = 0;
  vmx_set(&system, (luna_controls){.exceptions = UINT32_MAX});
  vmx_end end = vmx_run(&system, &sregs, (struct kvm_regs){.rax = 0x4c00}, "\xcd\x21", 2);
  CHECK_EQ(end.reason, 0);
  CHECK_EQ(end.exit.interruption, VALID | HARD | 13); /* real mode has no error codes */
  CHECK_EQ(end.exit.vectoring, VALID | 4 << 8 | 0x21);
  CHECK_EQ(end.exit.length, 2);
  CHECK_EQ(end.regs.rip, GUEST_CODE);
  CHECK_EQ(vmx_skip(&system, &end).reason, VMX_NONE);
  system_close(&system);
}

static void what_fails_in_a_delivery_tells_of_the_event(void) {
  soft_system system = system_open(SYSTEM_64);
  struct kvm_sregs sregs = system.sregs;
  vmx_set(&system, (luna_controls){.exceptions = 1 << 11});
  system_interrupt_gate(&system, 6, SYSTEM_CODE_0, 0x0e, 0); /* not present */
  vmx_end end = vmx_run(&system, &sregs, (struct kvm_regs){0}, "\x0f\x0b", 2);
  CHECK_EQ(end.reason, 0);
  CHECK_EQ(end.exit.interruption, VALID | HARD | ERROR | 11);
  CHECK_EQ(end.exit.interruption_error, 6 * 8 + 3);
  CHECK_EQ(end.exit.vectoring, VALID | HARD | 6);
  vmx_set(&system, (luna_controls){.exceptions = 1 << 8});
  system_interrupt_gate(&system, 13, SYSTEM_CODE_0, 0x0e, 0);
  end = vmx_run(&system, &sregs, (struct kvm_regs){.rax = 0x1000}, "\x8e\xd8", 2);
  CHECK_EQ(end.reason, 0);
  CHECK_EQ(end.exit.interruption, VALID | HARD | ERROR | 8);
  CHECK_EQ(end.exit.vectoring, 0);
  system_close(&system);
}

static void debug_exceptions_leave_the_registers_alone(void) {
  soft_system system = system_open(SYSTEM_64);
  struct kvm_debugregs debugregs;
  vmx_set(&system, (luna_controls){.exceptions = 1 << 1});
  vmx_end end = vmx_run(&system, &system.sregs, (struct kvm_regs){.rflags = SYSTEM_ALL | 0x100},
                        "\x90\x90", 2);
  CHECK_EQ(end.reason, 0);
  CHECK_EQ(end.exit.interruption, VALID | HARD | 1);
  CHECK_EQ(end.exit.qualification, 1 << 14);
  CHECK_EQ(end.regs.rip, GUEST_CODE + 1);
  CHECK_EQ(guest_call(system.guest.cpu, KVM_GET_DEBUGREGS, &debugregs), 0);
  CHECK_EQ(debugregs.dr6, 0xffff0ff0);
  system_begin(&system, &system.sregs, (struct kvm_regs){0});
  debugregs = (struct kvm_debugregs){.db = {GUEST_CODE + 1}, .dr6 = 0xffff0ff0, .dr7 = 0x401};
  CHECK_EQ(guest_call(system.guest.cpu, KVM_SET_DEBUGREGS, &debugregs), 0);
  end = vmx_go(&system);
  CHECK_EQ(end.reason, 0);
  CHECK_EQ(end.exit.qualification, 1);
  CHECK_EQ(end.regs.rip, GUEST_CODE + 1);
  system_close(&system);
}

/* ---- Between instructions ---- */

static void the_trap_flag_exits_behind_each_instruction(void) {
  soft_system system = system_open(SYSTEM_64);
  vmx_set(&system, (luna_controls){.primary = STEP});
  vmx_end end = vmx_run(&system, &system.sregs, (struct kvm_regs){0},
                        "\x90\xff\xc0\xeb\x00\x0f\x0b", 7); /* nop; inc eax; jmp $+2; ud2 */
  static const uint64_t stops[] = {1, 3, 5};
  for (size_t i = 0; i < 3; i++) {
    CHECK_EQ(end.reason, 37);
    CHECK_EQ(end.regs.rip, GUEST_CODE + stops[i]);
    end = vmx_go(&system);
  }
  CHECK_EQ(end.reason, 37); /* before the handler's first instruction */
  CHECK_EQ(end.regs.rip, system_handler(6));
  CHECK_EQ(end.regs.rax, 1);
  system_close(&system);
}

static void the_trap_flag_counts_the_rounds_of_strings(void) {
  soft_system system = system_open(SYSTEM_64);
  struct kvm_regs regs = {.rcx = 2, .rdi = 0x6000};
  vmx_set(&system, (luna_controls){.primary = STEP});
  vmx_end end = vmx_run(&system, &system.sregs, regs, "\xf3\xaa", 2); /* rep stosb */
  CHECK_EQ(end.reason, 37);
  CHECK_EQ(end.regs.rcx, 1);
  CHECK_EQ(end.regs.rip, GUEST_CODE);
  end = vmx_go(&system);
  CHECK_EQ(end.reason, 37);
  CHECK_EQ(end.regs.rip, GUEST_CODE + 2);
  system_close(&system);
}

static void windows_for_nmis_open_behind_iret(void) {
  soft_system system = system_open(SYSTEM_64);
  struct kvm_vcpu_events events = {.nmi.masked = 1};
  vmx_set(&system, (luna_controls){.primary = 1 << 22});
  /* push rax for SS, RSP, flags, CS, RIP; iretq */
  system_put(&system, GUEST_STACK - 40, GUEST_CODE + 3, 8);
  system_put(&system, GUEST_STACK - 32, SYSTEM_CODE_0, 8);
  system_put(&system, GUEST_STACK - 24, SYSTEM_ALL, 8);
  system_put(&system, GUEST_STACK - 16, GUEST_STACK, 8);
  system_put(&system, GUEST_STACK - 8, SYSTEM_DATA_0, 8);
  memcpy(system.guest.ram + GUEST_CODE, "\x90\x48\xcf\x90", 4);
  system_begin(&system, &system.sregs, (struct kvm_regs){.rsp = GUEST_STACK - 40});
  CHECK_EQ(guest_call(system.guest.cpu, KVM_SET_VCPU_EVENTS, &events), 0);
  vmx_end end = vmx_go(&system);
  CHECK_EQ(end.reason, 8);
  CHECK_EQ(end.regs.rip, GUEST_CODE + 3);
  system_close(&system);
}

static void a_task_priority_below_its_threshold_exits(void) {
  soft_system system = system_open(SYSTEM_64);
  vmx_set(&system, (luna_controls){.primary = 1 << 21, .tpr_threshold = 4});
  struct kvm_sregs sregs = system.sregs;
  sregs.cr8 = 8;
  vmx_end end = vmx_run(&system, &sregs, (struct kvm_regs){.rax = 3}, "\x44\x0f\x22\xc0\x90", 5);
  CHECK_EQ(end.reason, 43); /* mov cr8, rax */
  CHECK_EQ(end.regs.rip, GUEST_CODE + 4);
  CHECK_EQ(vmx_go(&system).reason, 43); /* again, before the next instruction */
  end = vmx_run(&system, &sregs, (struct kvm_regs){.rax = 4}, "\x44\x0f\x22\xc0\x90", 5);
  CHECK_EQ(end.reason, VMX_NONE);
  system_close(&system);
}

static void task_switches_exit(void) {
  soft_system system = system_open(SYSTEM_32);
  struct kvm_vcpu_events events = {.exception = {.injected = 1, .nr = 6}};
  vmx_set(&system, (luna_controls){0});
  system_describe(&system, SYSTEM_FREE, SYSTEM_DATA, 0x67, 0x89, 0);
  vmx_end end = vmx_run(&system, &system.sregs, (struct kvm_regs){0}, "\xea\0\0\0\0\x50\0",
                        7); /* jmp SYSTEM_FREE:0 */
  CHECK_EQ(end.reason, 9);
  CHECK_EQ(end.exit.qualification, UINT64_C(2) << 30 | SYSTEM_FREE);
  CHECK_EQ(end.exit.length, 7);
  CHECK_EQ(end.regs.rip, GUEST_CODE);
  end = vmx_run(&system, &system.sregs, (struct kvm_regs){0}, "\x9a\0\0\0\0\x50\0", 7);
  CHECK_EQ(end.exit.qualification, SYSTEM_FREE);
  system_gate(&system, system_idt_at(&system, 6), SYSTEM_FREE, 0, 0x85, 0);
  memcpy(system.guest.ram + GUEST_CODE, "\x90", 1);
  system_begin(&system, &system.sregs, (struct kvm_regs){0});
  CHECK_EQ(guest_call(system.guest.cpu, KVM_SET_VCPU_EVENTS, &events), 0);
  end = vmx_go(&system);
  CHECK_EQ(end.reason, 9);
  CHECK_EQ(end.exit.qualification, UINT64_C(3) << 30 | SYSTEM_FREE);
  CHECK_EQ(end.exit.vectoring, VALID | HARD | 6);
  system_close(&system);
}

int main(void) {
  RUN(exceptions_exit_by_the_bitmap);
  RUN(page_faults_exit_by_mask_and_match);
  RUN(an_interrupt_without_a_table_is_told_by_its_gp);
  RUN(what_fails_in_a_delivery_tells_of_the_event);
  RUN(debug_exceptions_leave_the_registers_alone);
  RUN(the_trap_flag_exits_behind_each_instruction);
  RUN(the_trap_flag_counts_the_rounds_of_strings);
  RUN(windows_for_nmis_open_behind_iret);
  RUN(a_task_priority_below_its_threshold_exits);
  RUN(task_switches_exit);
  return test_end();
}
