/* SPDX-License-Identifier: MIT
 * Far jumps, calls and returns on the software CPU: to segments, through call gates, with a switch
 * of stacks and parameters, and back (SDM volume 2; volume 3, 5.8). */
#include "fixture/soft_system.h"

enum {
  TS = 10,
  NP = 11,
  SS = 12,
  GP = 13,
  END = SYSTEM_END,
  OWN = SYSTEM_FREE,
  GATE = SYSTEM_FREE + 16,
  POINTER = SYSTEM_DATA,
  TARGET = SYSTEM_DATA + 0x800,
  LIMIT = 0x6fff,
  IN_32 = 2,
  IN_64 = 4,
  BOTH = 6,
  JMP = 1,
  CALL = 2,
  EITHER = 3
};
#define FAR_AWAY UINT64_C(0x800000000000)

/* jmp far [rdi], call far [rdi]; then retf, retf 8 */
static const char *const jump_code = "\xff\x2f\x90", *const call_code = "\xff\x1f\x90";

static void put_pointer(const soft_system *system, unsigned selector, uint64_t offset) {
  system_put(system, POINTER, offset, 4);
  system_put(system, POINTER + 4, selector, 2);
  system_put(system, TARGET, 0xe6 | SYSTEM_AT_END << 8, 2);
}

static system_end transfer(const soft_system *system, unsigned ring, unsigned by,
                           unsigned selector) {
  struct kvm_regs regs = {.rdi = POINTER};
  put_pointer(system, selector, TARGET);
  return system_run_in(system, ring, regs, by == JMP ? jump_code : call_code, 2);
}

/* ---- Segments ---- */

static const struct {
  unsigned modes, ring, selector;
  unsigned access, flags; /* of OWN; flags with G have all pages */
  int vector;
  unsigned error;
} segments[] = {
    {BOTH, 0, SYSTEM_CODE_0, 0, 0, END, 0},
    {BOTH, 3, SYSTEM_CODE_3, 0, 0, END, 0},
    {BOTH, 3, SYSTEM_CODE_3 & ~3, 0, 0, END, 0},
    {BOTH, 0, 0, 0, 0, GP, 0},
    {BOTH, 0, 3, 0, 0, GP, 0},
    {BOTH, 0, 0x800, 0, 0, GP, 0x800},
    {BOTH, 0, SYSTEM_DATA_0, 0, 0, GP, SYSTEM_DATA_0},
    {BOTH, 0, SYSTEM_CODE_0 | 1, 0, 0, GP, SYSTEM_CODE_0},
    {BOTH, 0, SYSTEM_CODE_3, 0, 0, GP, SYSTEM_CODE_3 & ~3},
    {BOTH, 3, SYSTEM_CODE_0, 0, 0, GP, SYSTEM_CODE_0},
    {BOTH, 3, SYSTEM_CONFORMING, 0, 0, END, 0},
    {BOTH, 3, SYSTEM_CONFORMING | 3, 0, 0, END, 0},
    {BOTH, 0, SYSTEM_CONFORMING | 3, 0, 0, END, 0},
    {BOTH, 0, OWN, 0xff, 0xc, GP, OWN}, /* conforming, of an outer ring */
    {BOTH, 0, OWN, 0x1b, 0xc, NP, OWN},
    {BOTH, 3, OWN, 0x1b, 0xc, GP, OWN},
    {BOTH, 0, OWN, 0x82, 0, GP, OWN},
    {BOTH, 0, OWN, 0x8e, 0, GP, OWN},
    {BOTH, 0, OWN, 0x8b, 0, GP, OWN}, /* a busy task */
    {IN_64, 0, OWN, 0x89, 0, GP, OWN},
    {IN_64, 0, OWN, 0x85, 0, GP, OWN},
    {IN_64, 0, OWN, 0x84, 0, GP, OWN},
    {IN_32, 0, OWN, 0x9b, 4, END, 0},
    {IN_32, 0, OWN, 0x9b, 0, END, 0},
    {IN_64, 0, OWN, 0x9b, 4, END, 0},
    {IN_64, 0, OWN, 0x9b, 6, GP, OWN},
    {IN_64, 0, OWN, 0x9b, 2, END, 0},
};

static void to_segments(void) {
  for (system_mode mode = SYSTEM_32; mode <= SYSTEM_64; mode++) {
    soft_system system = system_open(mode);
    system_conform(&system);
    for (unsigned i = 0; i < sizeof segments / sizeof *segments * 2; i++) {
      unsigned by = i & 1 ? CALL : JMP, n = i / 2, ring = segments[n].ring;
      if (!(segments[n].modes >> mode & 1)) {
        continue;
      }
      test_note("mode %d, row %u, by %u", (int)mode, n, by);
      system_describe(&system, OWN, 0, LIMIT, segments[n].access, segments[n].flags);
      system_put(&system, SYSTEM_GDT + OWN + 8, 0, 8);
      system_end end = transfer(&system, ring, by, segments[n].selector);
      SYSTEM_CHECK(end, segments[n].vector, segments[n].error);
      if (end.vector == END) {
        CHECK_EQ(end.sregs.cs.selector, (segments[n].selector & ~3u) | ring);
        CHECK_EQ(end.regs.rsp, GUEST_STACK - (by == CALL ? 8 : 0));
        if (by == CALL) {
          CHECK_EQ(system_get(&system, end.regs.rsp, 4), GUEST_CODE + 2);
          CHECK_EQ(system_get(&system, end.regs.rsp + 4, 2), ring ? SYSTEM_CODE_3 : SYSTEM_CODE_0);
        }
      }
    }
    system_close(&system);
  }
}

static void beyond_the_limit_is_nothing(void) {
  soft_system system = system_open(SYSTEM_32);
  for (unsigned by = JMP; by <= CALL; by++) {
    system_describe(&system, OWN, 0, TARGET - 1, 0x9b, 4);
    system_end end = transfer(&system, 0, by, OWN);
    SYSTEM_CHECK(end, GP, 0);
    CHECK_EQ(end.frame[0], GUEST_CODE);
  }
  system_close(&system);
}

/* ---- Call gates ---- */

static const struct {
  unsigned modes, ring, by;
  unsigned selector; /* GATE's, with its RPL */
  unsigned gate;     /* byte 5 of it */
  unsigned code;     /* where it leads */
  unsigned access;   /* of OWN */
  int vector;
  unsigned error;
  unsigned cpl;
} gates[] = {
    {BOTH, 0, EITHER, GATE, 0x8c, SYSTEM_CODE_0, 0, END, 0, 0},
    {BOTH, 3, CALL, GATE, 0xec, SYSTEM_CODE_0, 0, END, 0, 0},
    {BOTH, 3, JMP, GATE, 0xec, SYSTEM_CODE_0, 0, GP, SYSTEM_CODE_0, 0},
    {BOTH, 3, EITHER, GATE, 0xec, SYSTEM_CODE_3, 0, END, 0, 3},
    {BOTH, 3, EITHER, GATE, 0xec, SYSTEM_CONFORMING, 0, END, 0, 3},
    {BOTH, 3, EITHER, GATE, 0x8c, SYSTEM_CODE_0, 0, GP, GATE, 0},
    {BOTH, 3, EITHER, GATE, 0xcc, SYSTEM_CODE_3, 0, GP, GATE, 0},
    {BOTH, 0, EITHER, GATE | 1, 0x8c, SYSTEM_CODE_0, 0, GP, GATE, 0},
    {BOTH, 0, EITHER, GATE, 0x0c, SYSTEM_CODE_0, 0, NP, GATE, 0},
    {BOTH, 3, EITHER, GATE, 0x0c, SYSTEM_CODE_0, 0, GP, GATE, 0},
    {BOTH, 0, EITHER, GATE, 0x8c, 0, 0, GP, 0, 0},
    {BOTH, 0, EITHER, GATE, 0x8c, 0x800, 0, GP, 0x800, 0},
    {BOTH, 0, EITHER, GATE, 0x8c, SYSTEM_DATA_0, 0, GP, SYSTEM_DATA_0, 0},
    {BOTH, 0, EITHER, GATE, 0x8c, SYSTEM_TR, 0, GP, SYSTEM_TR, 0},
    {BOTH, 0, EITHER, GATE, 0x8c, SYSTEM_CODE_3, 0, GP, SYSTEM_CODE_3 & ~3, 0},
    {BOTH, 0, EITHER, GATE, 0x8c, OWN, 0x1b, NP, OWN, 0},
    {BOTH, 3, CALL, GATE, 0xec, OWN | 3, 0x9b, END, 0, 0},
    {IN_32, 0, EITHER, GATE, 0x84, SYSTEM_CODE_0, 0, END, 0, 0},
    {IN_64, 0, EITHER, GATE, 0x84, SYSTEM_CODE_0, 0, GP, GATE, 0},
};

static void put_gate(const soft_system *system, unsigned selector, uint64_t offset, unsigned access,
                     unsigned count) {
  system_gate(system, SYSTEM_GDT + GATE, selector, offset, access, count);
}

/* The caller's RIP and CS, and of another ring the stack's pointer too. */
static void check_call(const soft_system *system, const system_end *end, unsigned ring,
                       size_t size) {
  bool switched = ring != end->sregs.ss.dpl;
  uint64_t sp = (switched ? SYSTEM_INNER : GUEST_STACK) - (switched ? 4 : 2) * size;
  CHECK_EQ(end->regs.rsp, sp);
  CHECK_EQ(system_get(system, sp, size), GUEST_CODE + 2);
  CHECK_EQ(system_get(system, sp + size, 2), ring ? SYSTEM_CODE_3 : SYSTEM_CODE_0);
  if (switched) {
    CHECK_EQ(system_get(system, sp + 2 * size, size), GUEST_STACK);
    CHECK_EQ(system_get(system, sp + 3 * size, 2), SYSTEM_DATA_3);
    CHECK_EQ(end->sregs.ss.selector, size == 8 ? 0 : SYSTEM_DATA_0);
  }
}

static void through_gates(void) {
  for (system_mode mode = SYSTEM_32; mode <= SYSTEM_64; mode++) {
    soft_system system = system_open(mode);
    system_conform(&system);
    for (unsigned i = 0; i < sizeof gates / sizeof *gates * 2; i++) {
      unsigned by = i & 1 ? CALL : JMP, n = i / 2;
      if (!(gates[n].modes >> mode & 1) || !(gates[n].by & by)) {
        continue;
      }
      test_note("mode %d, row %u, by %u", (int)mode, n, by);
      system_describe(&system, OWN, 0, 0xfffff, gates[n].access, system_code_flags(mode));
      put_gate(&system, gates[n].code, TARGET, gates[n].gate, 0);
      system_end end = transfer(&system, gates[n].ring, by, gates[n].selector);
      SYSTEM_CHECK(end, gates[n].vector, gates[n].error);
      if (end.vector == END) {
        CHECK_EQ(end.regs.rip, TARGET + 2);
        CHECK_EQ(end.sregs.cs.selector, (gates[n].code & ~3u) | gates[n].cpl);
        CHECK_EQ(end.sregs.ss.dpl, gates[n].cpl);
      }
      if (end.vector == END && by == CALL) {
        check_call(&system, &end, gates[n].ring, mode == SYSTEM_64 ? 8 : gates[n].gate & 8 ? 4 : 2);
      }
    }
    system_close(&system);
  }
}

/* Long mode: the upper half, 64-bit code alone, canonical offsets and stacks. */
static void gates_of_long_mode(void) {
  soft_system system = system_open(SYSTEM_64);
  system_conform(&system);
  put_gate(&system, SYSTEM_CODE_0, FAR_AWAY, 0xec, 0);
  SYSTEM_CHECK(transfer(&system, 3, CALL, GATE), GP, 0);
  put_gate(&system, SYSTEM_CODE_0, TARGET, 0xec, 0);
  system_put(&system, SYSTEM_GDT + GATE + 8, UINT64_C(0x10000000000), 8);
  SYSTEM_CHECK(transfer(&system, 3, CALL, GATE), GP, GATE);
  system_describe(&system, OWN, 0, 0xfffff, 0x9b, 0xc);
  put_gate(&system, OWN, TARGET, 0xec, 0);
  SYSTEM_CHECK(transfer(&system, 3, CALL, GATE), GP, OWN);
  put_gate(&system, SYSTEM_CODE_0, TARGET, 0xec, 0);
  system_put(&system, SYSTEM_TSS + 4, FAR_AWAY, 8);
  SYSTEM_CHECK(transfer(&system, 3, CALL, GATE), SS, 0);
  system_close(&system);
}

static void the_inner_stack_of_a_call(void) {
  static const struct {
    unsigned selector, access, limit;
    int vector;
    unsigned error;
  } rows[] = {
      {SYSTEM_DATA_0, 0, 9, END, 0},
      {SYSTEM_DATA_0, 0, 8, TS, SYSTEM_TR},
      {0, 0, 0x67, TS, 0},
      {SYSTEM_DATA_3, 0, 0x67, TS, SYSTEM_DATA_3 & ~3},
      {SYSTEM_CODE_0, 0, 0x67, TS, SYSTEM_CODE_0},
      {OWN, 0x13, 0x67, SS, OWN},
      {OWN, 0x97, 0x67, SS, OWN},
  };
  soft_system system = system_open(SYSTEM_32);
  system_conform(&system);
  put_gate(&system, SYSTEM_CODE_0, TARGET, 0xec, 0);
  for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
    test_note("row %u", i);
    struct kvm_sregs sregs = system.sregs;
    system_enter_ring(&system, &sregs, 3);
    sregs.tr.limit = rows[i].limit;
    system_describe(&system, OWN, 0, 0xfffff, rows[i].access, 4);
    system_put(&system, SYSTEM_TSS + 8, rows[i].selector, 4);
    put_pointer(&system, GATE, TARGET);
    struct kvm_regs regs = {.rdi = POINTER};
    SYSTEM_CHECK(system_run(&system, &sregs, regs, call_code, 2), rows[i].vector, rows[i].error);
  }
  system_close(&system);
}

/* Parameters go over to the inner stack, and RETF n takes them off both. */
static void parameters_go_with_a_call(void) {
  static const char code[] = "\x6a\x11\x6a\x22\xff\x1f"; /* push 0x11; push 0x22; call far [edi] */
  soft_system system = system_open(SYSTEM_32);
  put_pointer(&system, GATE, TARGET);
  put_gate(&system, SYSTEM_CODE_0, TARGET, 0xec, 2);
  system_end end = SYSTEM_RUN(&system, 3, ((struct kvm_regs){.rdi = POINTER}), code);
  SYSTEM_CHECK(end, END, 0);
  CHECK_EQ(end.regs.rsp, SYSTEM_INNER - 24);
  CHECK_EQ(system_get(&system, end.regs.rsp + 8, 8), 0x22 | UINT64_C(0x11) << 32);
  CHECK_EQ(system_get(&system, end.regs.rsp + 16, 4), GUEST_STACK - 8);
  system_put(&system, TARGET, 0x08ca, 3); /* retf 8 */
  system.sregs.ds.dpl = 0;
  end = SYSTEM_RUN(&system, 3, ((struct kvm_regs){.rdi = POINTER}), code);
  SYSTEM_CHECK(end, END, 0);
  CHECK_EQ(end.regs.rip, GUEST_CODE + 8);
  CHECK_EQ(end.regs.rsp, GUEST_STACK);
  CHECK_EQ(end.sregs.ss.selector, SYSTEM_DATA_3);
  system_close(&system);
}

/* ---- Returns ---- */

static const struct {
  unsigned modes, ring;
  unsigned cs, ss;
  unsigned access, flags;
  uint64_t rip;
  int vector;
  unsigned error;
} returns[] = {
    {BOTH, 0, SYSTEM_CODE_0, 0, 0, 0, TARGET, END, 0},
    {BOTH, 3, SYSTEM_CODE_3, 0, 0, 0, TARGET, END, 0},
    {BOTH, 0, SYSTEM_CODE_3, SYSTEM_DATA_3, 0, 0, TARGET, END, 0},
    {BOTH, 0, 0, 0, 0, 0, TARGET, GP, 0},
    {BOTH, 0, 0x800, 0, 0, 0, TARGET, GP, 0x800},
    {BOTH, 0, SYSTEM_DATA_0, 0, 0, 0, TARGET, GP, SYSTEM_DATA_0},
    {BOTH, 3, SYSTEM_CODE_0, 0, 0, 0, TARGET, GP, SYSTEM_CODE_0},
    {BOTH, 0, SYSTEM_CODE_0 | 3, SYSTEM_DATA_3, 0, 0, TARGET, GP, SYSTEM_CODE_0},
    {BOTH, 0, SYSTEM_CONFORMING, 0, 0, 0, TARGET, END, 0},
    {BOTH, 0, SYSTEM_CONFORMING | 3, SYSTEM_DATA_3, 0, 0, TARGET, END, 0},
    {BOTH, 0, OWN, 0, 0xff, 0xa, TARGET, GP, OWN},
    {BOTH, 0, OWN, 0, 0x1b, 0, TARGET, NP, OWN},
    {BOTH, 0, SYSTEM_CODE_3, 0, 0, 0, TARGET, GP, 0},
    {BOTH, 0, SYSTEM_CODE_3, SYSTEM_DATA_0, 0, 0, TARGET, GP, SYSTEM_DATA_0},
    {BOTH, 0, SYSTEM_CODE_3, SYSTEM_CODE_3, 0, 0, TARGET, GP, SYSTEM_CODE_3 & ~3},
    {BOTH, 0, SYSTEM_CODE_3, OWN | 3, 0x73, 4, TARGET, SS, OWN},
    {IN_32, 0, OWN, 0, 0x9b, 4, LIMIT + 1, GP, 0},
    {IN_64, 0, OWN, 0, 0x9b, 4, LIMIT + 1, GP, 0},
    {IN_64, 0, OWN, 0, 0x9b, 4, TARGET, END, 0},
    {IN_64, 0, OWN, 0, 0x9b, 6, TARGET, GP, OWN},
    {IN_64, 0, SYSTEM_CODE_0, 0, 0, 0, FAR_AWAY, GP, 0},
    {IN_64, 0, SYSTEM_CODE_3, SYSTEM_DATA_3, 0, 0, FAR_AWAY, GP, 0},
};

static void returns_and_their_segments(void) {
  for (system_mode mode = SYSTEM_32; mode <= SYSTEM_64; mode++) {
    soft_system system = system_open(mode);
    size_t size = mode == SYSTEM_64 ? 8 : 4;
    system_conform(&system);
    put_pointer(&system, 0, 0);
    for (unsigned i = 0; i < sizeof returns / sizeof *returns; i++) {
      if (!(returns[i].modes >> mode & 1)) {
        continue;
      }
      test_note("mode %d, row %u", (int)mode, i);
      const uint64_t frame[] = {returns[i].rip, returns[i].cs, GUEST_STACK, returns[i].ss};
      for (unsigned k = 0; k < 4; k++) {
        system_put(&system, POINTER + 0x400 + k * size, frame[k], size);
      }
      unsigned limit = returns[i].flags & 8 ? 0xfffff : LIMIT;
      system_describe(&system, OWN, 0, limit, returns[i].access, returns[i].flags);
      struct kvm_regs regs = {.rsp = POINTER + 0x400};
      system_end end =
          system_run_in(&system, returns[i].ring, regs, size == 8 ? "\x48\xcb" : "\xcb\x90", 2);
      SYSTEM_CHECK(end, returns[i].vector, returns[i].error);
      if (end.vector == END) {
        bool outer = (returns[i].cs & 3) > returns[i].ring;
        CHECK_EQ(end.sregs.cs.selector, returns[i].cs);
        CHECK_EQ(end.regs.rsp, outer ? GUEST_STACK : POINTER + 0x400 + 2 * size);
      }
    }
    system_close(&system);
  }
}

/* Real mode: jmp 0:0x10000, call 0:0x10000 and retf to it, with operands of 32 bits. */
static void real_mode_has_limits_too(void) {
  static const struct {
    const char *code;
    size_t size;
    int vector;
  } rows[] = {
      {"\x66\xea\x00\x00\x01\x00\x00\x00", 8, GP},
      {"\x66\x9a\x00\x00\x01\x00\x00\x00", 8, GP},
      {"\x66\x6a\x00\x66\x68\x00\x00\x01\x00\x66\xcb", 11, GP},
      {"\x66\x6a\x00\x66\x6a\x00\x66\x68\x00\x00\x01\x00\x66\xcf", 14, GP},
      {"\x66\xea\x00\x68\x00\x00\x00\x00", 8, END},
      {"\x66\x6a\x00\x66\x68\x00\x68\x00\x00\x66\xcb", 11, END},
  };
  soft_system system = system_open(SYSTEM_16);
  struct kvm_segment *all[] = {&system.sregs.cs, &system.sregs.ss, &system.sregs.ds,
                               &system.sregs.es};
  system.sregs.cr0 &= ~UINT64_C(1);
  for (unsigned i = 0; i < 4; i++) {
    *all[i] = (struct kvm_segment){.limit = 0xffff, .type = 3, .s = 1, .present = 1};
  }
  system.sregs.idt = (struct kvm_dtable){.base = POINTER, .limit = 0x3ff};
  system_put(&system, POINTER + GP * 4, system_handler(GP), 4);
  system_put(&system, TARGET, 0xe6 | SYSTEM_AT_END << 8, 2);
  for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
    test_note("row %u", i);
    struct kvm_regs regs = {.rdi = 0};
    system_end end = system_run(&system, &system.sregs, regs, rows[i].code, rows[i].size);
    CHECK_EQ(end.vector, rows[i].vector);
  }
  system_close(&system);
}

int main(void) {
  RUN(to_segments);
  RUN(beyond_the_limit_is_nothing);
  RUN(through_gates);
  RUN(gates_of_long_mode);
  RUN(the_inner_stack_of_a_call);
  RUN(parameters_go_with_a_call);
  RUN(returns_and_their_segments);
  RUN(real_mode_has_limits_too);
  return test_end();
}
