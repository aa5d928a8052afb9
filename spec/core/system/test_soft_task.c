/* SPDX-License-Identifier: MIT
 * Task switches on the software CPU: by JMP, CALL, task gates, interrupts and IRET; what is saved
 * and loaded, and each check of the new task's TSS and segments (SDM volume 3, 7.2 and 7.3). */
#include "fixture/soft_system.h"

enum {
  DB = 1,
  TS = 10,
  NP = 11,
  SS = 12,
  GP = 13,
  INT = 0x40,
  END = SYSTEM_END,
  NEXT = SYSTEM_TSS + 0x400, /* the other task's TSS */
  TASK = SYSTEM_FREE,        /* its descriptor */
  GATE = SYSTEM_FREE + 8,
  OWN = SYSTEM_FREE + 16,
  POINTER = SYSTEM_DATA,
  TARGET = SYSTEM_DATA + 0x800,
  NT = 0x4000,
  /* Fields of a TSS of 32 bits. */
  LINK = 0,
  CR3 = 0x1c,
  EIP = 0x20,
  EFLAGS = 0x24,
  EAX = 0x28,
  ESP = 0x38,
  ES = 0x48,
  CS = 0x4c,
  STACK = 0x50,
  DS = 0x54,
  FS = 0x58,
  GS = 0x5c,
  LDT = 0x60,
  TRAP = 0x64
};

/* The other task, in ring 3. */
static void refill(const soft_system *system) {
  static const struct {
    unsigned field, value;
  } fields[] = {{4, SYSTEM_INNER},
                {8, SYSTEM_DATA_0},
                {EIP, TARGET},
                {EFLAGS, SYSTEM_ALL},
                {EAX, 0x1111},
                {EAX + 4, 0x2222},
                {ESP, GUEST_STACK - 0x100},
                {ES, SYSTEM_DATA_3},
                {CS, SYSTEM_CODE_3},
                {STACK, SYSTEM_DATA_3},
                {DS, SYSTEM_DATA_3},
                {LDT, SYSTEM_LDTR},
                {0x66, 0x80}};
  system_fill(system);
  for (unsigned i = 0; i < sizeof fields / sizeof *fields; i++) {
    system_put(system, NEXT + fields[i].field, fields[i].value, fields[i].field == 0x66 ? 2 : 4);
  }
  system_describe(system, TASK, NEXT, 0x67, 0xe9, 0);
  system_gate(system, SYSTEM_GDT + GATE, TASK, 0, 0xe5, 0);
  system_gate(system, system_idt_at(system, INT), TASK, 0, 0xe5, 0);
  system_put(system, TARGET, 0xe6 | SYSTEM_AT_END << 8, 2);
}

/* jmp far [edi], call far [edi] */
static system_end transfer(const soft_system *system, unsigned ring, bool call, unsigned selector) {
  struct kvm_regs regs = {.rdi = POINTER, .rax = 0x77};
  system_put(system, POINTER + 4, selector, 2);
  return system_run_in(system, ring, regs, call ? "\xff\x1f" : "\xff\x2f", 2);
}

static bool is_busy(const soft_system *system, unsigned selector) {
  return system_get(system, SYSTEM_GDT + selector + 5, 1) & 2;
}

/* ---- What is saved and loaded ---- */

static void check_arrival(const soft_system *system, const system_end *end, bool nests) {
  CHECK_EQ(end->regs.rip, TARGET + 2);
  CHECK_EQ(end->regs.rax, 0x1111);
  CHECK_EQ(end->regs.rcx, 0x2222);
  CHECK_EQ(end->regs.rsp, GUEST_STACK - 0x100);
  CHECK_EQ(end->regs.rflags, SYSTEM_ALL | (nests ? NT : 0));
  CHECK_EQ(end->sregs.cs.selector, SYSTEM_CODE_3);
  CHECK_EQ(end->sregs.ss.dpl, 3);
  CHECK_EQ(end->sregs.ds.selector, SYSTEM_DATA_3);
  CHECK_EQ(end->sregs.fs.unusable, 1);
  CHECK_EQ(end->sregs.ldt.selector, SYSTEM_LDTR);
  CHECK_EQ(end->sregs.tr.selector, TASK);
  CHECK_EQ(end->sregs.tr.base, NEXT);
  CHECK_EQ(end->sregs.cr0 & 8, 8); /* TS */
  CHECK_EQ(is_busy(system, TASK), true);
  CHECK_EQ(is_busy(system, SYSTEM_TR), nests);
  CHECK_EQ(system_get(system, NEXT + LINK, 2), nests ? SYSTEM_TR : 0);
  CHECK_EQ(system_get(system, SYSTEM_TSS + EIP, 4), GUEST_CODE + 2);
  CHECK_EQ(system_get(system, SYSTEM_TSS + EAX, 4), 0x77);
  CHECK_EQ(system_get(system, SYSTEM_TSS + ESP, 4), GUEST_STACK);
  CHECK_EQ(system_get(system, SYSTEM_TSS + EFLAGS, 4), SYSTEM_ALL);
}

static void each_way_into_a_task(void) {
  soft_system system = system_open(SYSTEM_32);
  for (unsigned way = 0; way < 5; way++) {
    for (unsigned ring = 0; ring <= 3; ring += 3) {
      test_note("way %u, ring %u", way, ring);
      refill(&system);
      system_end end;
      if (way == 4) {
        end = SYSTEM_RUN(&system, ring, ((struct kvm_regs){.rax = 0x77}), "\xcd\x40");
      } else {
        end = transfer(&system, ring, way & 1, way & 2 ? GATE : TASK);
      }
      SYSTEM_CHECK(end, END, 0);
      check_arrival(&system, &end, way == 4 || way & 1);
      CHECK_EQ(system_get(&system, SYSTEM_TSS + CS, 2), ring ? SYSTEM_CODE_3 : SYSTEM_CODE_0);
    }
  }
  system_close(&system);
}

/* IRET with NT goes back by the link, and the task that it leaves is free again. */
static void iret_returns_from_a_nested_task(void) {
  soft_system system = system_open(SYSTEM_32);
  refill(&system);
  system_put(&system, TARGET, 0xcf90, 2); /* nop; iret */
  system_end end = SYSTEM_RUN(&system, 3, ((struct kvm_regs){.rax = 0x77, .rbx = 5}), "\xcd\x40");
  SYSTEM_CHECK(end, END, 0);
  CHECK_EQ(end.regs.rip, GUEST_CODE + 4);
  CHECK_EQ(end.regs.rax, 0x77);
  CHECK_EQ(end.regs.rbx, 5);
  CHECK_EQ(end.regs.rflags & NT, 0);
  CHECK_EQ(end.sregs.tr.selector, SYSTEM_TR);
  CHECK_EQ(is_busy(&system, TASK), false);
  CHECK_EQ(is_busy(&system, SYSTEM_TR), true);
  CHECK_EQ(system_get(&system, NEXT + EIP, 4), TARGET + 2);
  CHECK_EQ(system_get(&system, NEXT + EFLAGS, 4) & NT, 0);
  system_close(&system);
}

/* The link of an IRET: a busy TSS of the GDT. */
static void links_are_checked(void) {
  static const struct {
    unsigned link, access;
    int vector;
    unsigned error;
  } rows[] = {{TASK, 0x8b, END, 0},   {TASK, 0x89, TS, TASK}, {TASK, 0x0b, NP, TASK},
              {TASK, 0x82, TS, TASK}, {0, 0, TS, 0},          {TASK | 4, 0x8b, TS, TASK | 4},
              {0x800, 0, TS, 0x800}};
  soft_system system = system_open(SYSTEM_32);
  for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
    test_note("row %u", i);
    refill(&system);
    system_describe(&system, TASK, NEXT, 0x67, rows[i].access, 0);
    system_put(&system, SYSTEM_TSS + LINK, rows[i].link, 2);
    struct kvm_regs regs = {.rflags = SYSTEM_ALL | NT};
    SYSTEM_CHECK(SYSTEM_RUN(&system, 0, regs, "\xcf"), rows[i].vector, rows[i].error);
  }
  system_close(&system);
}

/* The error code of an exception that is a task goes on its stack, as wide as its TSS. */
static void an_exception_s_task_gets_its_error_code(void) {
  soft_system system = system_open(SYSTEM_32);
  refill(&system);
  system_gate(&system, system_idt_at(&system, GP), TASK, 0, 0x85, 0);
  system_end end = SYSTEM_RUN(&system, 3, ((struct kvm_regs){.rax = 0x802}), "\x8e\xd8");
  SYSTEM_CHECK(end, END, 0);
  CHECK_EQ(end.regs.rsp, GUEST_STACK - 0x104);
  CHECK_EQ(system_get(&system, end.regs.rsp, 4), 0x800);
  CHECK_EQ(system_get(&system, SYSTEM_TSS + EIP, 4), GUEST_CODE);
  system_close(&system);
}

/* ---- What is checked ---- */

/* Of the descriptor or the gate, in the old task. */
static void tasks_that_there_are_not(void) {
  static const struct {
    unsigned ring, selector;
    unsigned access, limit; /* of TASK */
    unsigned gate;          /* GATE's byte 5 */
    unsigned leads;         /* where it leads */
    int vector;
    unsigned error;
  } rows[] = {
      {3, TASK, 0xe9, 0x67, 0xe5, TASK, END, 0},
      {3, TASK, 0x89, 0x67, 0xe5, TASK, GP, TASK},
      {3, TASK, 0xc9, 0x67, 0xe5, TASK, GP, TASK},
      {0, TASK | 1, 0x89, 0x67, 0, TASK, GP, TASK},
      {3, TASK, 0x69, 0x67, 0xe5, TASK, NP, TASK},
      {3, TASK, 0xeb, 0x67, 0xe5, TASK, GP, TASK},
      {3, TASK, 0xe9, 0x66, 0xe5, TASK, TS, TASK},
      {3, GATE, 0x89, 0x67, 0xe5, TASK, END, 0},
      {3, GATE, 0x89, 0x67, 0x85, TASK, GP, GATE},
      {3, GATE, 0x89, 0x67, 0x65, TASK, NP, GATE},
      {3, GATE, 0x8b, 0x67, 0xe5, TASK, GP, TASK},
      {3, GATE, 0x09, 0x67, 0xe5, TASK, NP, TASK},
      {3, GATE, 0x82, 0x67, 0xe5, TASK, GP, TASK},
      {3, GATE, 0x89, 0x67, 0xe5, 0, GP, 0},
      {3, GATE, 0x89, 0x67, 0xe5, TASK | 4, GP, TASK | 4},
      {3, GATE, 0x89, 0x67, 0xe5, 0x800, GP, 0x800},
      {3, GATE, 0x89, 0x20, 0xe5, TASK, TS, TASK},
  };
  soft_system system = system_open(SYSTEM_32);
  for (unsigned i = 0; i < sizeof rows / sizeof *rows * 2; i++) {
    test_note("row %u, call %u", i / 2, i & 1);
    refill(&system);
    system_describe(&system, TASK, NEXT, rows[i / 2].limit, rows[i / 2].access, 0);
    system_gate(&system, SYSTEM_GDT + GATE, rows[i / 2].leads, 0, rows[i / 2].gate, 0);
    system_end end = transfer(&system, rows[i / 2].ring, i & 1, rows[i / 2].selector);
    SYSTEM_CHECK(end, rows[i / 2].vector, rows[i / 2].error);
    if (end.vector != END) {
      CHECK_EQ(end.sregs.tr.selector, SYSTEM_TR);
      CHECK_EQ(end.frame[0], GUEST_CODE);
    }
  }
  system_close(&system);
}

/* A TSS in the LDT is none. */
static void tasks_are_in_the_gdt(void) {
  soft_system system = system_open(SYSTEM_32);
  refill(&system);
  system_describe(&system, 0x0c, NEXT, 0x67, 0xe9, 0);
  SYSTEM_CHECK(transfer(&system, 3, false, 0x0c), GP, 0x0c);
  system_close(&system);
}

/* Of what the TSS names: it faults in the new task, before its first instruction. */
static void segments_of_the_new_task(void) {
  static const struct {
    unsigned field, value, access; /* of OWN */
    int vector;
    unsigned error;
  } rows[] = {
      {LDT, 0, 0, END, 0},
      {LDT, OWN, 0x82, END, 0},
      {LDT, OWN, 0x02, TS, OWN},
      {LDT, OWN, 0x92, TS, OWN},
      {LDT, OWN | 4, 0x82, TS, OWN | 4},
      {LDT, 0x800, 0, TS, 0x800},
      {CS, 0, 0, TS, 0},
      {CS, 0x803, 0, TS, 0x800},
      {CS, SYSTEM_DATA_3, 0, TS, SYSTEM_DATA_3 & ~3},
      {CS, SYSTEM_CODE_0 | 3, 0, TS, SYSTEM_CODE_0},
      {CS, OWN | 3, 0x7b, NP, OWN},
      {CS, OWN | 3, 0xfb, END, 0},
      {CS, OWN | 3, 0xdf, END, 0},
      {STACK, 0, 0, TS, 0},
      {STACK, 0x803, 0, TS, 0x800},
      {STACK, OWN | 3, 0x73, SS, OWN},
      {STACK, OWN, 0xf3, TS, OWN},
      {STACK, OWN | 3, 0x93, TS, OWN},
      {STACK, OWN | 3, 0xf1, TS, OWN},
      {STACK, OWN | 3, 0xfb, TS, OWN},
      {DS, 0, 0, END, 0},
      {DS, 0x803, 0, TS, 0x800},
      {DS, OWN | 3, 0x73, NP, OWN},
      {DS, OWN | 3, 0x93, TS, OWN},
      {DS, OWN | 3, 0xf9, TS, OWN},
      {DS, OWN | 3, 0xfb, END, 0},
      {ES, OWN | 3, 0x9e, END, 0},
      {FS, OWN | 3, 0x82, TS, OWN},
      {GS, OWN, 0x12, TS, OWN},
  };
  soft_system system = system_open(SYSTEM_32);
  for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
    test_note("row %u", i);
    refill(&system);
    system_describe(&system, OWN, 0, 0xfffff, rows[i].access, 0xc);
    system_put(&system, NEXT + rows[i].field, rows[i].value, 4);
    system_end end = transfer(&system, 3, false, TASK);
    SYSTEM_CHECK(end, rows[i].vector, rows[i].error);
    CHECK_EQ(end.sregs.tr.selector, TASK);
    if (end.vector != END) {
      CHECK_EQ(end.frame[0], TARGET);
    }
  }
  system_close(&system);
}

/* The T bit: #DB before the task's first instruction; the local breakpoints are the old task's. */
static void the_trap_bit(void) {
  soft_system system = system_open(SYSTEM_32);
  struct kvm_debugregs set = {.db = {TARGET, TARGET}, .dr6 = 0xffff0ff0, .dr7 = 0x709};
  refill(&system);
  system_put(&system, NEXT + TRAP, 1, 2);
  system_put(&system, POINTER + 4, TASK, 2);
  memcpy(system.guest.ram + GUEST_CODE, "\xff\x2f", 2);
  system_begin(&system, &system.sregs, (struct kvm_regs){.rdi = POINTER});
  CHECK_EQ(guest_call(system.guest.cpu, KVM_SET_DEBUGREGS, &set), 0);
  system_end end = system_go(&system);
  SYSTEM_CHECK(end, DB, 0);
  CHECK_EQ(end.frame[0], TARGET);
  CHECK_EQ(guest_call(system.guest.cpu, KVM_GET_DEBUGREGS, &set), 0);
  CHECK_EQ(set.dr6 & 0xe00f, 0x8000);
  CHECK_EQ(set.dr7, 0x608);
  system_close(&system);
}

/* A TSS of 16 bits: half of each register, four segments, and neither CR3 nor T. */
static void tasks_of_16_bits(void) {
  static const unsigned words[] = {0,
                                   0,
                                   0,
                                   0,
                                   0,
                                   0,
                                   0,
                                   TARGET,
                                   SYSTEM_ALL,
                                   0x1111,
                                   0x2222,
                                   0,
                                   0,
                                   0x7f00,
                                   0,
                                   0,
                                   0,
                                   SYSTEM_DATA_3,
                                   SYSTEM_CODE_3,
                                   SYSTEM_DATA_3,
                                   SYSTEM_DATA_3,
                                   0};
  soft_system system = system_open(SYSTEM_32);
  refill(&system);
  for (unsigned i = 0; i < sizeof words / sizeof *words; i++) {
    system_put(&system, NEXT + i * 2, words[i], 2);
  }
  system_describe(&system, TASK, NEXT, 0x2b, 0xe1, 0);
  system_end end = transfer(&system, 3, true, TASK);
  SYSTEM_CHECK(end, END, 0);
  CHECK_EQ(end.regs.rip, TARGET + 2);
  CHECK_EQ(end.regs.rax, 0x1111);
  CHECK_EQ(end.regs.rsp, 0x7f00);
  CHECK_EQ(end.regs.rflags, SYSTEM_ALL | NT);
  CHECK_EQ(end.sregs.ldt.unusable, 1);
  CHECK_EQ(end.sregs.fs.unusable, 1);
  system_describe(&system, TASK, NEXT, 0x2a, 0xe1, 0);
  SYSTEM_CHECK(transfer(&system, 3, true, TASK), TS, TASK);
  system_close(&system);
}

/* ---- CR3 ---- */

/* PAE: the pointers of the new CR3 are read, and one with reserved bits is #GP in the new task. */
static void the_new_task_s_tables(void) {
  enum {
    POINTERS = GUEST_TABLES + 0x5000
  };
  soft_system system = system_open(SYSTEM_32);
  refill(&system);
  struct kvm_sregs *sregs = &system.sregs;
  for (unsigned i = 0; i < 2; i++) { /* both of them: the same pages */
    system_put(&system, POINTERS + i * 32, (GUEST_TABLES + 0x2000) | 1, 8);
  }
  sregs->cr0 |= UINT64_C(0x80000000);
  sregs->cr4 |= 0x20;
  sregs->cr3 = POINTERS;
  system_put(&system, NEXT + CR3, POINTERS + 32, 4);
  system_end end = transfer(&system, 3, false, TASK);
  SYSTEM_CHECK(end, END, 0);
  CHECK_EQ(end.sregs.cr3, POINTERS + 32);
  refill(&system);
  system_put(&system, NEXT + CR3, POINTERS + 32, 4);
  system_put(&system, POINTERS + 40, 3, 8);
  end = transfer(&system, 3, false, TASK);
  SYSTEM_CHECK(end, GP, 0);
  CHECK_EQ(end.frame[0], TARGET);
  system_close(&system);
}

int main(void) {
  RUN(each_way_into_a_task);
  RUN(iret_returns_from_a_nested_task);
  RUN(links_are_checked);
  RUN(an_exception_s_task_gets_its_error_code);
  RUN(tasks_that_there_are_not);
  RUN(tasks_are_in_the_gdt);
  RUN(segments_of_the_new_task);
  RUN(the_trap_bit);
  RUN(tasks_of_16_bits);
  RUN(the_new_task_s_tables);
  return test_end();
}
