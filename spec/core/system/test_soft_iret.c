/* SPDX-License-Identifier: MIT
 * IRET on the software CPU: to the same and an outer ring, to 64-bit, compatibility and VM86 code,
 * with NT; what each frame is checked for, and which flags it sets (SDM volume 2, IRET). */
#include "fixture/soft_system.h"

enum {
  NP = 11,
  SS = 12,
  GP = 13,
  END = SYSTEM_END,
  OWN = SYSTEM_FREE,
  TARGET = SYSTEM_DATA + 0x800,
  STACK = SYSTEM_DATA + 0x400, /* the frame's stack pointer */
  LIMIT = 0x6fff,              /* of segments without pages */
  IN_32 = 2,
  IN_64 = 4,
  BOTH = 6
};
#define FAR_AWAY UINT64_C(0x800000000000)

typedef struct row {
  unsigned modes, ring;
  unsigned cs, ss;
  unsigned access, flags; /* of OWN, from LIMIT up if flags lack G */
  uint64_t rip;
  int vector;
  unsigned error;
  unsigned cpl; /* where it arrives */
} row;

static const row rows[] = {
    {BOTH, 0, SYSTEM_CODE_0, SYSTEM_DATA_0, 0, 0, TARGET, END, 0, 0},
    {BOTH, 0, SYSTEM_CODE_3, SYSTEM_DATA_3, 0, 0, TARGET, END, 0, 3},
    {BOTH, 3, SYSTEM_CODE_3, SYSTEM_DATA_3, 0, 0, TARGET, END, 0, 3},
    /* CS. */
    {BOTH, 0, 0, SYSTEM_DATA_0, 0, 0, TARGET, GP, 0, 0},
    {BOTH, 3, 3, SYSTEM_DATA_3, 0, 0, TARGET, GP, 0, 0},
    {BOTH, 0, 0x800, SYSTEM_DATA_0, 0, 0, TARGET, GP, 0x800, 0},
    {BOTH, 0, SYSTEM_DATA_0, SYSTEM_DATA_0, 0, 0, TARGET, GP, SYSTEM_DATA_0, 0},
    {BOTH, 0, SYSTEM_TR, SYSTEM_DATA_0, 0, 0, TARGET, GP, SYSTEM_TR, 0},
    {BOTH, 3, SYSTEM_CODE_0, SYSTEM_DATA_0, 0, 0, TARGET, GP, SYSTEM_CODE_0, 0},
    {BOTH, 3, SYSTEM_CODE_3 & ~3, SYSTEM_DATA_3, 0, 0, TARGET, GP, SYSTEM_CODE_3 & ~3, 0},
    {BOTH, 0, SYSTEM_CODE_0 | 3, SYSTEM_DATA_3, 0, 0, TARGET, GP, SYSTEM_CODE_0, 0},
    {BOTH, 0, SYSTEM_CODE_3 & ~3, SYSTEM_DATA_0, 0, 0, TARGET, GP, SYSTEM_CODE_3 & ~3, 0},
    {BOTH, 0, OWN, SYSTEM_DATA_0, 0x1b, 0, TARGET, NP, OWN, 0},
    {BOTH, 0, OWN | 3, SYSTEM_DATA_0, 0x1b, 0, TARGET, GP, OWN, 0},
    {BOTH, 0, SYSTEM_CONFORMING, SYSTEM_DATA_0, 0, 0, TARGET, END, 0, 0},
    {BOTH, 0, SYSTEM_CONFORMING | 3, SYSTEM_DATA_3, 0, 0, TARGET, END, 0, 3},
    {BOTH, 0, OWN, SYSTEM_DATA_0, 0xff, 0xa, TARGET, GP, OWN, 0}, /* its DPL over the RPL */
    /* SS of an outer ring. */
    {BOTH, 0, SYSTEM_CODE_3, 0, 0, 0, TARGET, GP, 0, 0},
    {BOTH, 0, SYSTEM_CODE_3, 3, 0, 0, TARGET, GP, 0, 0},
    {BOTH, 0, SYSTEM_CODE_3, 0x803, 0, 0, TARGET, GP, 0x800, 0},
    {BOTH, 0, SYSTEM_CODE_3, SYSTEM_DATA_0, 0, 0, TARGET, GP, SYSTEM_DATA_0, 0},
    {BOTH, 0, SYSTEM_CODE_3, SYSTEM_DATA_0 | 3, 0, 0, TARGET, GP, SYSTEM_DATA_0, 0},
    {BOTH, 0, SYSTEM_CODE_3, SYSTEM_DATA_3 & ~3, 0, 0, TARGET, GP, SYSTEM_DATA_3 & ~3, 0},
    {BOTH, 0, SYSTEM_CODE_3, SYSTEM_CODE_3, 0, 0, TARGET, GP, SYSTEM_CODE_3 & ~3, 0},
    {BOTH, 0, SYSTEM_CODE_3, OWN | 3, 0xf1, 4, TARGET, GP, OWN, 0},
    {BOTH, 0, SYSTEM_CODE_3, OWN | 3, 0x73, 4, TARGET, SS, OWN, 0},
    {BOTH, 0, SYSTEM_CODE_3, OWN | 3, 0xf3, 4, TARGET, END, 0, 3},
    /* Long mode's: a stack that is null below ring 3, and is taken each time. */
    {IN_64, 0, SYSTEM_CODE_0, 0, 0, 0, TARGET, END, 0, 0},
    {IN_64, 0, SYSTEM_CODE_0, SYSTEM_DATA_3, 0, 0, TARGET, GP, SYSTEM_DATA_3 & ~3, 0},
    {IN_64, 3, SYSTEM_CODE_3, 3, 0, 0, TARGET, GP, 0, 0},
    /* Where to. */
    {IN_32, 0, OWN, SYSTEM_DATA_0, 0x9b, 4, TARGET, END, 0, 0},
    {IN_32, 0, OWN, SYSTEM_DATA_0, 0x9b, 4, LIMIT + 1, GP, 0, 0},
    {IN_32, 0, OWN | 3, SYSTEM_DATA_3, 0xfb, 4, LIMIT + 1, GP, 0, 0},
    {IN_64, 0, SYSTEM_CODE_0, SYSTEM_DATA_0, 0, 0, FAR_AWAY, GP, 0, 0},
    {IN_64, 0, SYSTEM_CODE_3, SYSTEM_DATA_3, 0, 0, FAR_AWAY, GP, 0, 0},
    /* Compatibility mode; 64 bits and 32 at once are none. */
    {IN_64, 0, OWN | 3, SYSTEM_DATA_3, 0xfb, 4, TARGET, END, 0, 3},
    {IN_64, 0, OWN, SYSTEM_DATA_0, 0x9b, 4, TARGET, END, 0, 0},
    {IN_64, 0, OWN, SYSTEM_DATA_0, 0x9b, 4, LIMIT + 1, GP, 0, 0},
    {IN_64, 0, OWN, 0, 0x9b, 4, TARGET, GP, 0, 0},
    {IN_64, 0, OWN, SYSTEM_DATA_0, 0x9b, 6, TARGET, GP, OWN, 0},
};

static void put_frame(const soft_system *system, size_t size, const uint64_t *values, int count) {
  for (int i = 0; i < count; i++) {
    system_put(system, STACK + (unsigned)i * size, values[i], size);
  }
  system_put(system, TARGET, 0xe6 | SYSTEM_AT_END << 8, 2);
}

static system_end iret(const soft_system *system, const row *asked, uint64_t flags, uint64_t into) {
  size_t size = system->mode == SYSTEM_64 ? 8 : 4;
  const uint64_t frame[] = {asked->rip, asked->cs, into, GUEST_STACK + 0x100, asked->ss};
  put_frame(system, size, frame, 5);
  system_describe(system, OWN, 0, asked->flags & 8 ? 0xfffff : LIMIT, asked->access, asked->flags);
  struct kvm_regs regs = {.rsp = STACK, .rflags = flags};
  return system_run_in(system, asked->ring, regs, size == 8 ? "\x48\xcf" : "\xcf\x90", 2);
}

static void frames_and_their_segments(void) {
  for (system_mode mode = SYSTEM_32; mode <= SYSTEM_64; mode++) {
    soft_system system = system_open(mode);
    system_conform(&system);
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
      if (!(rows[i].modes >> mode & 1)) {
        continue;
      }
      test_note("mode %d, row %u", (int)mode, i);
      system_end end = iret(&system, &rows[i], SYSTEM_ALL, SYSTEM_ALL);
      SYSTEM_CHECK(end, rows[i].vector, rows[i].error);
      if (end.vector != END) {
        CHECK_EQ(end.frame[0], GUEST_CODE);
        continue;
      }
      bool takes = rows[i].cpl != rows[i].ring || mode == SYSTEM_64;
      CHECK_EQ(end.regs.rip, TARGET + 2);
      CHECK_EQ(end.sregs.cs.selector, rows[i].cs);
      CHECK_EQ(end.sregs.ss.dpl, rows[i].cpl);
      CHECK_EQ(end.sregs.ss.selector, takes          ? rows[i].ss
                                      : rows[i].ring ? SYSTEM_DATA_3
                                                     : SYSTEM_DATA_0);
      CHECK_EQ(end.regs.rsp, takes ? GUEST_STACK + 0x100 : STACK + 12);
      bool drops = rows[i].cpl > rows[i].ring; /* ring 0's data segments */
      CHECK_EQ(end.sregs.ds.unusable, drops);
    }
    system_close(&system);
  }
}

/* By ring and IOPL; the end's OUT faults without the right, and tells of the flags. */
static void flags_by_ring(void) {
  static const struct {
    unsigned ring;
    uint64_t before, image, after;
  } flags[] = {
      {0, 0x3002, 0x243dd7, 0x243dd7},                                    /* all but VM, VIF, VIP */
      {0, 0x3002, 0x180002, 0x180002},                                    /* VIF, VIP */
      {0, 0x243ed7, 0x000002, 0x000002}, {3, 0x3002, 0x240fd7, 0x243fd7}, /* IOPL stays */
      {3, 0x3202, 0x180002, 0x003002}, /* IF may go, VIF and VIP not */
      {3, 0x0202, 0x003002, 0x000202}, /* neither may */
      {3, 0x2002, 0x000202, 0x002002},
  };
  soft_system system = system_open(SYSTEM_32);
  for (unsigned i = 0; i < sizeof flags / sizeof *flags; i++) {
    test_note("row %u", i);
    row to = {.ring = flags[i].ring, .rip = TARGET};
    to.cs = to.ring ? SYSTEM_CODE_3 : SYSTEM_CODE_0;
    uint64_t single = ~UINT64_C(0x100); /* TF would stop it */
    system_end end = iret(&system, &to, flags[i].before & single, flags[i].image & single);
    uint64_t got = end.vector == GP ? end.frame[2] & ~UINT64_C(0x10000) : end.regs.rflags;
    CHECK_EQ(end.vector == GP ? end.frame[0] : end.regs.rip - 2, TARGET);
    CHECK_EQ(got, flags[i].after & single);
  }
  system_close(&system);
}

/* IRETD and IRETQ; 16 bits too. */
static void sizes_of_64_bit_code(void) {
  soft_system system = system_open(SYSTEM_64);
  static const struct {
    const char *code;
    size_t size;
  } sizes[] = {{"\xcf", 4}, {"\x48\xcf", 8}, {"\x66\xcf", 2}};
  for (unsigned i = 0; i < 3; i++) {
    test_note("size %zu", sizes[i].size);
    const uint64_t frame[] = {TARGET, SYSTEM_CODE_3, SYSTEM_ALL, GUEST_STACK, SYSTEM_DATA_3};
    put_frame(&system, sizes[i].size, frame, 5);
    struct kvm_regs regs = {.rsp = STACK};
    system_end end = system_run_in(&system, 0, regs, sizes[i].code, strlen(sizes[i].code));
    SYSTEM_CHECK(end, END, 0);
    CHECK_EQ(end.regs.rsp, GUEST_STACK);
    CHECK_EQ(end.regs.rip, TARGET + 2);
  }
  system_close(&system);
}

static void nested_tasks_have_no_place_in_long_mode(void) {
  soft_system system = system_open(SYSTEM_64);
  row to = {.cs = SYSTEM_CODE_0, .ss = SYSTEM_DATA_0, .rip = TARGET};
  SYSTEM_CHECK(iret(&system, &to, SYSTEM_ALL | 0x4000, SYSTEM_ALL), GP, 0);
  system_close(&system);
}

/* ---- VM86 ---- */

/* Nine elements; in VM86 the end's OUT goes by the TSS's map, which lets all. */
static system_end to_vm86(const soft_system *system, unsigned ring, uint64_t eip) {
  const uint64_t frame[] = {eip, 0x10, 0x23002, 0x7f0, 0x20, 0x30, 0x40, 0x50, 0x60};
  put_frame(system, 4, frame, 9);
  system_put(system, TARGET + 0x100, 0xe6 | SYSTEM_AT_END << 8, 2);
  struct kvm_regs regs = {.rsp = STACK};
  return system_run_in(system, ring, regs, "\xcf", 1);
}

static void to_vm86_from_ring_0_alone(void) {
  soft_system system = system_open(SYSTEM_32);
  system_put(&system, SYSTEM_TSS + 0x66, 0x68, 2);
  system_end end = to_vm86(&system, 0, TARGET);
  SYSTEM_CHECK(end, END, 0);
  CHECK_EQ(end.regs.rip, TARGET + 2);
  CHECK_EQ(end.regs.rflags, 0x23002);
  CHECK_EQ(end.regs.rsp, 0x7f0);
  const struct kvm_segment *all[] = {&end.sregs.cs, &end.sregs.ss, &end.sregs.es,
                                     &end.sregs.ds, &end.sregs.fs, &end.sregs.gs};
  for (unsigned i = 0; i < 6; i++) {
    CHECK_EQ(all[i]->selector, 0x10 + i * 0x10);
    CHECK_EQ(all[i]->base, 0x100 + i * 0x100);
    CHECK_EQ(all[i]->limit, 0xffff);
    CHECK_EQ(all[i]->dpl, 3);
  }
  SYSTEM_CHECK(to_vm86(&system, 0, 0x10000), GP, 0);
  /* In ring 3, VM is no flag of the frame: 0x10 is data. */
  SYSTEM_CHECK(to_vm86(&system, 3, TARGET), GP, SYSTEM_DATA_0);
  system_close(&system);
}

int main(void) {
  RUN(frames_and_their_segments);
  RUN(flags_by_ring);
  RUN(sizes_of_64_bit_code);
  RUN(nested_tasks_have_no_place_in_long_mode);
  RUN(to_vm86_from_ring_0_alone);
  return test_end();
}
