/* SPDX-License-Identifier: MIT
 * Interrupt, trap and call gates on the software CPU: what each checks, which stack the handler
 * gets, what its frame has (SDM volume 2, INT n and CALL; volume 3, 5.8 and 6.12 to 6.14). */
#include "fixture/soft_system.h"

enum {
  TS = 10,
  NP = 11,
  SS = 12,
  GP = 13,
  INT = 0x40,
  END = SYSTEM_END,
  FLAG_IF = 0x200,
  FLAG_TF = 0x100,
  FLAG_NT = 0x4000,
  OWN = SYSTEM_FREE,       /* a row's segment */
  GATE = SYSTEM_FREE + 16, /* a call gate */
  LOCAL = 0x0c,
  BOTH = 6, /* bits of system_mode */
  IN_32 = 2,
  IN_64 = 4
};
#define FAR_AWAY UINT64_C(0x800000000000)

/* ---- INT n ---- */

typedef struct gate_row {
  unsigned modes;
  unsigned ring;
  unsigned access;   /* of the gate */
  unsigned selector; /* of the handler */
  unsigned code;     /* byte 5 of OWN's descriptor */
  int vector;
  unsigned error;
} gate_row;

static const gate_row gate_rows[] = {
    /* Gates by their type and DPL. */
    {BOTH, 0, 0xee, SYSTEM_CODE_0, 0, INT, 0},
    {BOTH, 3, 0xee, SYSTEM_CODE_0, 0, INT, 0},
    {BOTH, 3, 0xef, SYSTEM_CODE_0, 0, INT, 0},
    {BOTH, 0, 0x8e, SYSTEM_CODE_0, 0, INT, 0},
    {BOTH, 3, 0x8e, SYSTEM_CODE_0, 0, GP, INT * 8 + 2},
    {BOTH, 3, 0xce, SYSTEM_CODE_0, 0, GP, INT * 8 + 2},
    {BOTH, 0, 0x6e, SYSTEM_CODE_0, 0, NP, INT * 8 + 2},
    {BOTH, 3, 0x0e, SYSTEM_CODE_0, 0, GP, INT * 8 + 2}, /* its DPL before its presence */
    {BOTH, 0, 0x00, SYSTEM_CODE_0, 0, GP, INT * 8 + 2},
    {BOTH, 0, 0xec, SYSTEM_CODE_0, 0, GP, INT * 8 + 2},  /* a call gate */
    {BOTH, 0, 0xe9, SYSTEM_CODE_0, 0, GP, INT * 8 + 2},  /* a TSS */
    {BOTH, 0, 0xfb, SYSTEM_CODE_0, 0, GP, INT * 8 + 2},  /* a segment */
    {IN_64, 0, 0xe6, SYSTEM_CODE_0, 0, GP, INT * 8 + 2}, /* 16 bits */
    {IN_64, 0, 0xe5, SYSTEM_CODE_0, 0, GP, INT * 8 + 2}, /* a task gate */
    /* The handler's segment. */
    {BOTH, 0, 0xee, 0, 0, GP, 0},
    {BOTH, 0, 0xee, 3, 0, GP, 0},
    {BOTH, 0, 0xee, 0x800, 0, GP, 0x800},
    {BOTH, 0, 0xee, SYSTEM_DATA_0, 0, GP, SYSTEM_DATA_0},
    {BOTH, 0, 0xee, SYSTEM_LDTR, 0, GP, SYSTEM_LDTR},
    {BOTH, 0, 0xee, SYSTEM_CODE_3, 0, GP, SYSTEM_CODE_3 & ~3},
    {BOTH, 0, 0xee, OWN, 0x1b, NP, OWN},
    {BOTH, 0, 0xee, OWN, 0x7b, GP, OWN}, /* the DPL before its presence */
    {BOTH, 0, 0xee, OWN, 0x98, INT, 0},
    {BOTH, 0, 0xee, OWN | 3, 0x9b, INT, 0}, /* the RPL is nobody's */
    {BOTH, 3, 0xee, OWN, 0x9b, INT, 0},
    {BOTH, 3, 0xee, OWN, 0xfb, INT, 0},
    {BOTH, 3, 0xee, OWN, 0x9f, INT, 0},
    {BOTH, 3, 0xee, OWN, 0xff, INT, 0},
    {BOTH, 0, 0xee, OWN, 0xff, GP, OWN},
    {BOTH, 3, 0xee, LOCAL, 0xfb, INT, 0},
};

static unsigned ring_of(const gate_row *asked) {
  return asked->code & 4 || asked->code == 0xfb ? 3 : 0;
}

/* The frame of a handler that was reached, and what the gate did to the flags. */
static void check_frame(const gate_row *asked, const system_end *end, uint64_t flags) {
  unsigned ring = asked->ring == 3 ? ring_of(asked) : 0;
  bool wide = end->sregs.cs.l, switched = ring != asked->ring;
  CHECK_EQ(end->frame[0], GUEST_CODE + 2);
  CHECK_EQ(end->frame[1], asked->ring ? SYSTEM_CODE_3 : SYSTEM_CODE_0);
  CHECK_EQ(end->frame[2], flags);
  if (switched || wide) {
    CHECK_EQ(end->frame[3], GUEST_STACK);
    CHECK_EQ(end->frame[4], asked->ring ? SYSTEM_DATA_3 : SYSTEM_DATA_0);
  }
  CHECK_EQ(end->regs.rsp, (switched ? SYSTEM_INNER : GUEST_STACK) - (wide       ? 40
                                                                     : switched ? 20
                                                                                : 12));
  CHECK_EQ(end->sregs.cs.selector, (asked->selector & ~3u) | ring);
  CHECK_EQ(end->sregs.cs.dpl, asked->code ? asked->code >> 5 & 3 : 0);
  CHECK_EQ(end->sregs.ss.dpl, ring);
  CHECK_EQ(end->regs.rflags & (FLAG_TF | FLAG_NT), 0);
  CHECK_EQ(end->regs.rflags & FLAG_IF, asked->access & 1 ? FLAG_IF : 0);
}

static void gates_and_their_segments(void) {
  const uint64_t flags = SYSTEM_ALL | FLAG_IF | FLAG_NT;
  for (system_mode mode = SYSTEM_32; mode <= SYSTEM_64; mode++) {
    soft_system system = system_open(mode);
    for (unsigned i = 0; i < sizeof gate_rows / sizeof *gate_rows; i++) {
      const gate_row *row = &gate_rows[i];
      if (!(row->modes >> mode & 1)) {
        continue;
      }
      test_note("mode %d, row %u", (int)mode, i);
      unsigned flat = system_code_flags(mode);
      system_describe(&system, row->selector & 4 ? LOCAL : OWN, 0, 0xfffff, row->code, flat);
      system_interrupt_gate(&system, INT, row->selector, row->access, 0);
      struct kvm_regs regs = {.rflags = flags};
      system_end end = SYSTEM_RUN(&system, row->ring, regs, "\xcd\x40");
      SYSTEM_CHECK(end, row->vector, row->error);
      if (end.vector == INT) {
        check_frame(row, &end, flags);
      }
    }
    system_close(&system);
  }
}

/* A gate of 16 bits, in a system of 32: IP and a frame of words. */
static void gates_of_16_bits(void) {
  soft_system system = system_open(SYSTEM_32);
  system_gate(&system, system_idt_at(&system, INT), SYSTEM_CODE_0, 0xabcd0000 | system_handler(INT),
              0xe6, 0);
  system_end end = SYSTEM_RUN(&system, 3, ((struct kvm_regs){.rax = 0}), "\xcd\x40");
  CHECK_EQ(end.vector, INT);
  CHECK_EQ(end.regs.rsp, SYSTEM_INNER - 10);
  CHECK_EQ(system_get(&system, SYSTEM_INNER - 10, 8), (GUEST_CODE + 2) | SYSTEM_CODE_3 << 16 |
                                                          UINT64_C(0x3002) << 32 |
                                                          (uint64_t)GUEST_STACK << 48);
  CHECK_EQ(system_get(&system, SYSTEM_INNER - 2, 2), SYSTEM_DATA_3);
  system_close(&system);
}

/* A vector behind the table's end, and the last that is within. */
static void the_table_has_a_limit(void) {
  for (system_mode mode = SYSTEM_32; mode <= SYSTEM_64; mode++) {
    soft_system system = system_open(mode);
    unsigned size = mode == SYSTEM_64 ? 16 : 8;
    for (unsigned less = 0; less < 2; less++) {
      struct kvm_sregs sregs = system.sregs;
      sregs.idt.limit = (uint16_t)((INT + 1) * size - 1 - less);
      system_end end = system_run(&system, &sregs, (struct kvm_regs){.rax = 0}, "\xcd\x40", 2);
      SYSTEM_CHECK(end, less ? GP : INT, less ? INT * 8 + 2 : 0);
    }
    system_close(&system);
  }
}

/* Where the handler begins: within its segment, or canonical. */
static void the_handler_lies_within_its_segment(void) {
  soft_system system = system_open(SYSTEM_32);
  system_describe(&system, OWN, 0, 0x4fff, 0x9b, 4);
  system_gate(&system, system_idt_at(&system, INT), OWN, 0x5000, 0xee, 0);
  SYSTEM_CHECK(SYSTEM_RUN(&system, 0, ((struct kvm_regs){.rax = 0}), "\xcd\x40"), GP, 0);
  system_close(&system);
  system = system_open(SYSTEM_64);
  system_gate(&system, system_idt_at(&system, INT), SYSTEM_CODE_0, FAR_AWAY, 0xee, 0);
  system_end end = SYSTEM_RUN(&system, 0, ((struct kvm_regs){.rax = 0}), "\xcd\x40");
  SYSTEM_CHECK(end, GP, 0);
  CHECK_EQ(end.frame[0], GUEST_CODE);
  system_gate(&system, system_idt_at(&system, 6), SYSTEM_CODE_0, FAR_AWAY, 0xee, 0);
  end = SYSTEM_RUN(&system, 0, ((struct kvm_regs){.rax = 0}), "\x0f\x0b");
  SYSTEM_CHECK(end, GP, 1); /* EXT, for #UD was on its way */
  /* 32-bit code is none for a handler of long mode. */
  system_describe(&system, OWN, 0, 0xfffff, 0x9b, 0xc);
  system_interrupt_gate(&system, INT, OWN, 0xee, 0);
  SYSTEM_CHECK(SYSTEM_RUN(&system, 0, ((struct kvm_regs){.rax = 0}), "\xcd\x40"), GP, OWN);
  system_close(&system);
}

/* ---- The stack of ring 0 ---- */

/* Told of in the conforming segment, without a switch. */
static void the_stack_that_the_tss_has(void) {
  static const struct {
    unsigned selector, access; /* of SS0, and byte 5 of OWN */
    unsigned limit;            /* of the TSS */
    uint64_t esp;
    int vector;
    unsigned error;
  } rows[] = {
      {SYSTEM_DATA_0, 0, 0x67, SYSTEM_INNER, INT, 0},
      {SYSTEM_DATA_0, 0, 9, SYSTEM_INNER, INT, 0},
      {SYSTEM_DATA_0, 0, 8, SYSTEM_INNER, TS, SYSTEM_TR},
      {0, 0, 0x67, SYSTEM_INNER, TS, 0},
      {0x800, 0, 0x67, SYSTEM_INNER, TS, 0x800},
      {SYSTEM_DATA_3, 0, 0x67, SYSTEM_INNER, TS, SYSTEM_DATA_3 & ~3},
      {SYSTEM_DATA_0 | 3, 0, 0x67, SYSTEM_INNER, TS, SYSTEM_DATA_0},
      {SYSTEM_CODE_0, 0, 0x67, SYSTEM_INNER, TS, SYSTEM_CODE_0},
      {OWN, 0x91, 0x67, SYSTEM_INNER, TS, OWN},
      {OWN, 0x13, 0x67, SYSTEM_INNER, SS, OWN},
      {OWN, 0x93, 0x67, SYSTEM_INNER, INT, 0},
      {OWN, 0x93, 0x67, 20, INT, 0},
      {OWN, 0x93, 0x67, 0x100000 + 8, SS, OWN}, /* over its limit */
      {OWN, 0x97, 0x67, 0x100010, SS, OWN},     /* below it, expanding down */
  };
  soft_system system = system_open(SYSTEM_32);
  for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
    test_note("row %u", i);
    struct kvm_sregs sregs = system.sregs;
    system_enter_ring(&system, &sregs, 3);
    system_conform(&system);
    sregs.tr.limit = rows[i].limit;
    system_describe(&system, OWN, 0, 0xfffff, rows[i].access, 4);
    system_put(&system, SYSTEM_TSS + 4, rows[i].esp, 4);
    system_put(&system, SYSTEM_TSS + 8, rows[i].selector, 4);
    system_end end = system_run(&system, &sregs, (struct kvm_regs){.rax = 0}, "\xcd\x40", 2);
    SYSTEM_CHECK(end, rows[i].vector, rows[i].error);
  }
  system_close(&system);
}

static void stacks_of_long_mode(void) {
  static const struct {
    unsigned ist;
    unsigned limit;
    uint64_t sp; /* RSP0 and IST 1 */
    int vector;
    unsigned error;
    uint64_t lands; /* the stack pointer before the frame */
  } rows[] = {
      {0, 0x67, SYSTEM_INNER, INT, 0, SYSTEM_INNER},
      {0, 0x67, SYSTEM_INNER + 9, INT, 0, SYSTEM_INNER}, /* aligned to 16 bytes */
      {1, 0x67, SYSTEM_INNER + 15, INT, 0, SYSTEM_INNER},
      {0, 0xb, SYSTEM_INNER, INT, 0, SYSTEM_INNER},
      {0, 0xa, SYSTEM_INNER, TS, SYSTEM_TR, 0},
      {1, 0x2b, SYSTEM_INNER, INT, 0, SYSTEM_INNER},
      {1, 0x2a, SYSTEM_INNER, TS, SYSTEM_TR, 0},
      {0, 0x67, FAR_AWAY, SS, 0, 0},
      {1, 0x67, FAR_AWAY, SS, 0, 0},
  };
  soft_system system = system_open(SYSTEM_64);
  for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
    test_note("row %u", i);
    struct kvm_sregs sregs = system.sregs;
    system_enter_ring(&system, &sregs, 3);
    system_conform(&system);
    sregs.tr.limit = rows[i].limit;
    system_interrupt_gate(&system, INT, SYSTEM_CODE_0, 0xee, rows[i].ist);
    system_put(&system, SYSTEM_TSS + 4, rows[i].sp, 8);
    system_put(&system, SYSTEM_TSS + 0x24, rows[i].sp, 8);
    system_end end = system_run(&system, &sregs, (struct kvm_regs){.rax = 0}, "\xcd\x40", 2);
    SYSTEM_CHECK(end, rows[i].vector, rows[i].error);
    if (end.vector == INT) {
      CHECK_EQ(end.regs.rsp, rows[i].lands - 40);
      CHECK_EQ(end.sregs.ss.selector, 0);
    }
  }
  system_close(&system);
}

/* VM86: handlers of ring 0 alone, which find the program's segments on their stack and none in the
 * registers. */
static void out_of_vm86(void) {
  soft_system system = system_open(SYSTEM_32);
  for (unsigned i = 0; i < 3; i++) {
    static const unsigned codes[] = {0x9b, 0xfb, 0x9f};
    test_note("code 0x%x", codes[i]);
    system_describe(&system, OWN, 0, 0xfffff, codes[i], 0xc);
    system_interrupt_gate(&system, INT, OWN, 0xee, 0);
    struct kvm_sregs sregs = system.sregs;
    struct kvm_segment *all[] = {&sregs.cs, &sregs.ss, &sregs.ds, &sregs.es, &sregs.fs, &sregs.gs};
    for (unsigned k = 0; k < 6; k++) {
      *all[k] = (struct kvm_segment){.selector = (uint16_t)k,
                                     .base = k * 16,
                                     .limit = 0xffff,
                                     .type = 3,
                                     .dpl = 3,
                                     .s = 1,
                                     .present = 1};
    }
    struct kvm_regs regs = {.rflags = SYSTEM_ALL | 1 << 17};
    system_end end = system_run(&system, &sregs, regs, "\xcd\x40", 2);
    SYSTEM_CHECK(end, i ? GP : INT, i ? OWN : 0);
    if (!i) {
      CHECK_EQ(end.regs.rsp, SYSTEM_INNER - 36);
      for (unsigned k = 0; k < 4; k++) { /* ES, DS, FS, GS */
        static const uint8_t order[] = {3, 2, 4, 5};
        CHECK_EQ(system_get(&system, SYSTEM_INNER - 16 + k * 4, 4), order[k]);
      }
      CHECK_EQ(end.sregs.ds.unusable & end.sregs.es.unusable & end.sregs.gs.unusable, 1);
      CHECK_EQ(end.regs.rflags >> 17 & 1, 0);
    }
  }
  system_close(&system);
}

int main(void) {
  RUN(gates_and_their_segments);
  RUN(gates_of_16_bits);
  RUN(the_table_has_a_limit);
  RUN(the_handler_lies_within_its_segment);
  RUN(the_stack_that_the_tss_has);
  RUN(stacks_of_long_mode);
  RUN(out_of_vm86);
  return test_end();
}
