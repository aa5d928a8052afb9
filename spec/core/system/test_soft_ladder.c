/* SPDX-License-Identifier: MIT
 * What comes of an exception whose delivery fails, by the classes of both, up to the triple fault
 * (SDM volume 3, table 6-5), and which of several an instruction raises (6.9). */
#include "fixture/soft_system.h"

enum {
  DE = 0,
  UD = 6,
  NM = 7,
  DF = 8,
  TS = 10,
  NP = 11,
  SS = 12,
  GP = 13,
  PF = 14,
  AC = 17,
  INT = 0x40,
  AWAY = GUEST_SIZE,   /* no page is here */
  ABSENT = SYSTEM_FREE /* a segment that is not present */
};

/* What raises each: with EBX 0, ESI where no page is, EDX a selector outside the table. */
static const struct {
  int vector;
  const char *code;
} firsts[] = {
    {UD, "\x0f\x0b"}, {INT, "\xcd\x40"}, {DE, "\xf7\xf3"},
    {GP, "\x8e\xda"}, {NP, "\x8e\xd9"},  {PF, "\x8b\x06"},
};

/* How the delivery fails: by its gate, the gate's selector, the stack that its IST names. */
static const struct {
  int vector;
  unsigned selector, access, ist;
} seconds[] = {
    {NP, SYSTEM_CODE_0, 0x6e, 0}, {GP, SYSTEM_CODE_0, 0xec, 0}, {GP, SYSTEM_DATA_0, 0xee, 0},
    {GP, 0x800, 0xee, 0},         {NP, ABSENT, 0xee, 0},        {PF, SYSTEM_CODE_0, 0xee, 2},
    {SS, SYSTEM_CODE_0, 0xee, 3}, {TS, SYSTEM_CODE_0, 0xee, 7},
};
enum {
  FIRSTS = sizeof firsts / sizeof *firsts,
  SECONDS = sizeof seconds / sizeof *seconds
};

static void refill(const soft_system *system) {
  system_fill(system);
  system_put(system, SYSTEM_TSS + 0x2c, AWAY + 0x800, 8);             /* IST 2 */
  system_put(system, SYSTEM_TSS + 0x34, UINT64_C(0x800000000000), 8); /* IST 3 */
  system_describe(system, ABSENT, 0, 0xfffff, 0x1b, 0xa);
}

static void spoil(const soft_system *system, int vector, unsigned how) {
  system_interrupt_gate(system, (unsigned)vector, seconds[how].selector, seconds[how].access,
                        seconds[how].ist);
}

/* The TSS ends before IST 7. */
static system_end raise(const soft_system *system, const char *code) {
  struct kvm_regs regs = {.rsi = AWAY, .rdx = 0x800, .rcx = ABSENT};
  struct kvm_sregs sregs = system->sregs;
  sregs.tr.limit = 0x53;
  return system_run(system, &sregs, regs, code, 2);
}

static bool is_contributory(int vector) {
  return vector == DE || (vector >= TS && vector <= GP);
}

static bool makes_double(int one, int two) {
  return (is_contributory(one) && is_contributory(two)) ||
         (one == PF && (two == PF || is_contributory(two)));
}

/* Of the second: bit 0, EXT, but for INT n; a gate's has bit 1. */
static uint64_t error_of(int one, unsigned how) {
  bool outside = one != INT;
  switch (seconds[how].vector) {
    case PF:
      return 2;
    case SS:
      return outside;
    case TS:
      return SYSTEM_TR + outside;
    default:
      return seconds[how].access != 0xee ? (uint64_t)one * 8 + 2 + outside
                                         : seconds[how].selector + outside;
  }
}

static void the_second_by_both_classes(void) {
  soft_system system = system_open(SYSTEM_64);
  for (unsigned i = 0; i < FIRSTS; i++) {
    for (unsigned how = 0; how < SECONDS; how++) {
      int one = firsts[i].vector, two = seconds[how].vector;
      test_note("vector %d, then %d (row %u)", one, two, how);
      refill(&system);
      spoil(&system, one, how);
      system_end end = raise(&system, firsts[i].code);
      if (makes_double(one, two)) {
        SYSTEM_CHECK(end, DF, 0);
      } else {
        SYSTEM_CHECK(end, two, error_of(one, how));
      }
      CHECK_EQ(end.frame[0], GUEST_CODE);
    }
  }
  system_close(&system);
}

/* A double fault that cannot be delivered, whatever hinders it, shuts the processor down. */
static void the_third_is_the_last(void) {
  soft_system system = system_open(SYSTEM_64);
  for (unsigned how = 0; how < SECONDS; how++) {
    test_note("row %u", how);
    refill(&system);
    spoil(&system, GP, 0);
    spoil(&system, DF, how);
    CHECK_EQ(raise(&system, "\x8e\xda").vector, SYSTEM_SHUTDOWN);
  }
  system_close(&system);
}

/* Each in its turn: #UD, whose stack is not there; #PF, whose gate is not; then #DF. */
static void serial_ones_go_on(void) {
  soft_system system = system_open(SYSTEM_64);
  refill(&system);
  spoil(&system, UD, 5);
  spoil(&system, PF, 0);
  SYSTEM_CHECK(raise(&system, "\x0f\x0b"), DF, 0);
  refill(&system);
  spoil(&system, UD, 0);
  spoil(&system, NP, 2); /* contributory twice */
  SYSTEM_CHECK(raise(&system, "\x0f\x0b"), DF, 0);
  refill(&system);
  spoil(&system, DE, 5); /* contributory, then a page fault, is not */
  SYSTEM_CHECK(raise(&system, "\xf7\xf3"), PF, 2);
  system_close(&system);
}

/* ---- Which of several ---- */

enum {
  CR0_EM = 4,
  CR0_TS = 8,
  CR4_OSFXSR = 0x200
};

/* In ring 3. RSI is where no page is, RDI not canonical, RBX the last bytes of memory. */
static const struct {
  const char *code;
  size_t size;
  uint64_t cr0, no_cr4;
  int vector;
  uint64_t error;
} contests[] = {
    {"\xf4", 1, 0, 0, GP, 0},                       /* hlt */
    {"\x0f\x01\x16", 3, 0, 0, GP, 0},               /* lgdt [rsi]: the ring before the page */
    {"\x0f\x22\xd8", 3, 0, 0, GP, 0},               /* mov cr3, rax */
    {"\x0f\x22\xc8", 3, 0, 0, UD, 0},               /* mov cr1, rax */
    {"\xf0\x8b\x06", 3, 0, 0, UD, 0},               /* lock mov: before the page */
    {"\xf0\x01\x06", 3, 0, 0, PF, 6},               /* lock add [rsi], eax */
    {"\x01\x06", 2, 0, 0, PF, 6},                   /* add writes */
    {"\x39\x06", 2, 0, 0, PF, 4},                   /* cmp reads */
    {"\x8b\x07", 2, 0, 0, GP, 0},                   /* not canonical */
    {"\x55\x48\x89\xfc\x50", 5, 0, 0, SS, 0},       /* mov rsp, rdi; push rax */
    {"\x48\x89\xfd\x8b\x45\x00", 6, 0, 0, SS, 0},   /* mov rbp, rdi; mov eax, [rbp] */
    {"\x0f\x58\x06", 3, CR0_TS, 0, NM, 0},          /* addps xmm0, [rsi] */
    {"\x0f\x58\x06", 3, CR0_TS | CR0_EM, 0, UD, 0}, /* no SSE before not now */
    {"\x0f\x58\x06", 3, CR0_TS, CR4_OSFXSR, UD, 0}, /* the same */
    {"\x0f\x58\x46\x01", 4, 0, 0, GP, 0},           /* not aligned before the page */
    {"\x0f\x10\x46\x01", 4, 0, 0, PF, 4},           /* movups */
    {"\xdd\x06", 2, CR0_TS, 0, NM, 0},              /* fld qword [rsi] */
    {"\xdd\x06", 2, CR0_EM, 0, NM, 0},              /* an emulator's */
    {"\x0f\x6f\x06", 3, CR0_EM, 0, UD, 0},          /* movq mm0, [rsi] */
    {"\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x0f\x0b", 16, 0, 0, GP, 0},
    {"\xff\xe7", 2, 0, 0, GP, 0},     /* jmp rdi: at the jump */
    {"\xff\xe6", 2, 0, 0, PF, 0x14},  /* jmp rsi: at its target */
    {"\x8b\x43\xfe", 3, 0, 0, PF, 4}, /* over the end of memory */
    {"\x0f\x05", 2, 0, 0, UD, 0},     /* syscall without EFER.SCE */
    {"\x0f\x07", 2, 0, 0, UD, 0},     /* sysret: the bit before the ring */
    {"\x0f\x32", 2, 0, 0, GP, 0},     /* rdmsr */
    {"\x0f\x01\xf8", 3, 0, 0, GP, 0}, /* swapgs */
    {"\x06", 1, 0, 0, UD, 0},         /* push es */
    {"\xce", 1, 0, 0, UD, 0},         /* into */
};

static void which_of_several(void) {
  soft_system system = system_open(SYSTEM_64);
  for (unsigned i = 0; i < sizeof contests / sizeof *contests; i++) {
    test_note("row %u", i);
    struct kvm_sregs sregs = system.sregs;
    system_enter_ring(&system, &sregs, 3);
    sregs.efer |= 0x800; /* NX, which makes fetches tell so */
    sregs.cr0 |= contests[i].cr0;
    sregs.cr4 &= ~contests[i].no_cr4;
    struct kvm_regs regs = {.rsi = AWAY, .rdi = UINT64_C(1) << 63, .rbx = AWAY};
    system_end end = system_run(&system, &sregs, regs, contests[i].code, contests[i].size);
    SYSTEM_CHECK(end, contests[i].vector, contests[i].error);
  }
  system_close(&system);
}

int main(void) {
  RUN(the_second_by_both_classes);
  RUN(the_third_is_the_last);
  RUN(serial_ones_go_on);
  RUN(which_of_several);
  return test_end();
}
