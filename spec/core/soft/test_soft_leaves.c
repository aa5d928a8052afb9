/* SPDX-License-Identifier: MIT
 * Machine code that is left in its middle. Random rows of accesses to memory and sums, in 64, 32
 * and 16 bits: over the ends of pages and segments, to devices and to nothing. In blocks that are
 * hot they do what they do instruction by instruction, to the last flag, in memory, and in what a
 * device sees. LUNA_FUZZ_SECONDS, LUNA_SEED. */
#include "fixture/soft_guest.h"

enum {
  DATA = 0x2000, /* what addresses lead to; it is looked at */
  DATA_SIZE = 0x32000,
  TABLES_SIZE = 0x3000,
  BASE_16 = 0x2000, /* of data and stack in 16-bit code */
  DEVICE = 4 << 20,
  NOTHING = 6 << 20,
  MOST = 20, /* instructions of a row */
  EXITS = 64,
  TIMES = 4 /* a block has its machine code from the second on */
};

typedef struct row {
  uint8_t bytes[MOST * 16];
  size_t size;
  unsigned bits;
} row;

/* What there is to see of a run. */
typedef struct outcome {
  struct kvm_regs regs;
  uint32_t exits[EXITS][4]; /* address, length and whether it is a write, data */
  unsigned count;
  uint32_t last;
  uint8_t data[DATA_SIZE];
} outcome;

static uint64_t state;
static uint8_t before[DATA_SIZE];

static unsigned pick(unsigned below) {
  return (unsigned)(test_random(&state) % below);
}

static void put(row *made, unsigned byte) {
  made->bytes[made->size++] = (uint8_t)byte;
}

static void put_immediate(row *made, unsigned size) {
  for (unsigned i = 0; i < size; i++) {
    put(made, pick(256));
  }
}

/* A memory operand with a displacement of one byte, or a register. */
static void put_operand(row *made, unsigned reg, bool memory) {
  unsigned rm = pick(8);
  put(made, (memory ? 0x40u : 0xc0) | reg << 3 | rm);
  if (memory && rm == 4 && made->bits != 16) {
    put(made, pick(128)); /* SIB */
  }
  if (memory) {
    put(made, pick(32));
  }
}

/* Bytes of the operand, with its prefix. */
static unsigned put_size(row *made, bool wide) {
  unsigned usual = made->bits == 16 ? 2 : 4;
  if (wide && pick(4) == 0) {
    put(made, 0x66);
    return 6 - usual;
  }
  if (wide && made->bits == 64 && pick(2)) {
    put(made, 0x48);
    return 8;
  }
  return wide ? usual : 1;
}

static void put_alu(row *made, bool memory) {
  bool wide = pick(4) != 0;
  unsigned operation = pick(8), form = pick(3), size = put_size(made, wide);
  if (form == 0) {
    put(made, 0x80 | wide);
    put_operand(made, operation, memory);
    put_immediate(made, size < 4 ? size : 4);
  } else {
    put(made, operation << 3 | (form == 1 ? 2u : 0) | wide);
    put_operand(made, pick(8), memory);
  }
}

static void put_move(row *made) {
  bool wide = pick(4) != 0;
  unsigned size = put_size(made, wide), form = pick(3);
  if (form == 0) {
    put(made, 0xc6 | wide);
    put_operand(made, 0, true);
    put_immediate(made, size < 4 ? size : 4);
  } else {
    put(made, (form == 1 ? 0x8au : 0x88) | wide);
    put_operand(made, pick(8), pick(4) != 0);
  }
}

/* MOVZX and MOVSX, IMUL, INC and DEC, or TEST with a register. */
static void put_other(row *made) {
  unsigned size = put_size(made, true), kind = pick(6);
  if (kind < 3) {
    put(made, 0x0f);
    put(made, kind ? 0xb6 | pick(2) | pick(2) << 3 : 0xaf);
  } else {
    put(made, kind == 3 ? 0x85 : kind == 4 ? 0x69 : 0xff);
  }
  put_operand(made, kind == 5 ? pick(2) : pick(8), pick(2));
  if (kind == 4) {
    put_immediate(made, size < 4 ? size : 4);
  }
}

/* Shifts and rotations by one or a number, with a few of the counts that are none or too many. */
static void put_shift(row *made) {
  bool wide = pick(4) != 0, one = pick(4) == 0;
  put_size(made, wide);
  put(made, (one ? 0xd0u : 0xc0) | wide);
  put_operand(made, pick(8), pick(4) == 0);
  if (!one) {
    put(made, pick(8) ? 1 + pick(7) : pick(70));
  }
}

static void put_one(row *made) {
  switch (pick(12)) {
    case 0:
    case 1:
      put(made, 0x50 | pick(8));
      break;
    case 2:
      put(made, 0x58 | pick(8));
      break;
    case 3:
    case 4:
      put_move(made);
      break;
    case 5:
    case 6:
      put_other(made);
      break;
    case 7:
      put_shift(made);
      break;
    case 8: /* LEA */
      put_size(made, true);
      put(made, 0x8d);
      put_operand(made, pick(8), true);
      break;
    default:
      put_alu(made, pick(3) != 0);
      break;
  }
}

static void make(row *made, unsigned bits) {
  memset(made, 0, sizeof *made);
  made->bits = bits;
  for (unsigned left = 1 + pick(MOST); left; left--) {
    put_one(made);
  }
  put(made, 0x0f); /* ud2 */
  put(made, 0x0b);
}

/* ---- Running them ---- */

/* Places that are good, most of them, and the ends of what is. */
static uint64_t pick_address(unsigned bits) {
  uint64_t bad = pick(2) ? DEVICE : NOTHING;
  switch (pick(bits == 16 ? 12 : 24)) {
    case 0:
      return 0xffe8 + pick(24);
    case 1:
      return test_random(&state);
    case 2:
      return bad + pick(64);
    case 3:
    case 4:
      return 0x4fe0 + pick(40); /* in two pages */
    default:
      return 0x3000 + pick(0x3000) + (bits == 16 ? 0 : 0x1000);
  }
}

static struct kvm_regs pick_regs(unsigned bits) {
  struct kvm_regs regs = {.rip = GUEST_CODE, .rflags = (test_random(&state) & 0x8d5) | 2};
  uint64_t *r = (uint64_t *)&regs;
  for (int i = 0; i < 16; i++) {
    r[i] = bits == 64 ? pick_address(bits) : (uint32_t)pick_address(bits);
  }
  regs.rsp = pick(6) ? 0x4800 + 2 * pick(256) : 0x5000 - pick(8);
  return regs;
}

/* Segments of 16 or 32 bits, of which those of data have a limit. */
static void legacy_mode(const soft_guest *guest, unsigned bits, bool flat) {
  struct kvm_sregs sregs;
  CHECK_EQ(guest_call(guest->cpu, KVM_GET_SREGS, &sregs), 0);
  struct kvm_segment *all[] = {&sregs.cs, &sregs.ds, &sregs.es, &sregs.fs, &sregs.gs, &sregs.ss};
  for (int i = 0; i < 6; i++) {
    *all[i] = guest_segment(i ? 3 : 11, 0, i == 0);
    all[i]->l = 0;
    all[i]->db = bits == 32;
    all[i]->g = bits == 32;
    if (bits == 16) {
      all[i]->base = i ? BASE_16 : 0;
      all[i]->limit = 0xffff;
    } else if (i && !flat) {
      all[i]->limit = 0x5fff;
    }
  }
  sregs.cr0 = 0x11;
  sregs.cr4 = 0;
  sregs.efer = 0;
  CHECK_EQ(guest_call(guest->cpu, KVM_SET_SREGS, &sregs), 0);
}

/* A device answers by where it is asked. */
static void answer(struct kvm_run *run, outcome *seen) {
  uint32_t *exit = seen->exits[seen->count++];
  uint32_t value = (uint32_t)run->mmio.phys_addr * 0x9e3779b1u;
  exit[0] = (uint32_t)run->mmio.phys_addr;
  exit[1] = run->mmio.len << 1 | run->mmio.is_write;
  if (run->mmio.is_write) {
    memcpy(&exit[2], run->mmio.data, run->mmio.len);
  } else {
    memcpy(run->mmio.data, &value, sizeof value);
    memcpy(run->mmio.data + 4, &value, sizeof value);
  }
}

/* To an exception, for which there is no IDT. */
static void run(const soft_guest *guest, const row *made, const struct kvm_regs *regs, bool stepped,
                outcome *seen) {
  struct kvm_guest_debug debug = {.control =
                                      stepped ? KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP : 0};
  memset(seen, 0, sizeof *seen);
  memcpy(guest->ram + GUEST_CODE, made->bytes, made->size);
  memcpy(guest->ram + DATA, before, sizeof before);
  CHECK_EQ(guest_call(guest->cpu, KVM_SET_REGS, (void *)(uintptr_t)regs), 0);
  CHECK_EQ(guest_call(guest->cpu, KVM_SET_GUEST_DEBUG, &debug), 0);
  do {
    CHECK_EQ(guest_call(guest->cpu, KVM_RUN, NULL), 0);
    seen->last = guest->run->exit_reason;
    if (seen->last == KVM_EXIT_MMIO) {
      answer(guest->run, seen);
    }
  } while ((seen->last == KVM_EXIT_MMIO || seen->last == KVM_EXIT_DEBUG) && seen->count < EXITS);
  seen->regs = guest_regs(guest);
  seen->regs.rflags &= ~UINT64_C(0x10000); /* RF is as the exception came */
  memcpy(seen->data, guest->ram + DATA, sizeof seen->data);
}

static void compare(const row *made, const outcome *hot, const outcome *stepped, unsigned time) {
  char text[3 * sizeof made->bytes + 1];
  for (size_t i = 0; i < made->size; i++) {
    snprintf(text + 3 * i, 4, "%02x ", made->bytes[i]);
  }
  const uint64_t *a = (const uint64_t *)&hot->regs, *b = (const uint64_t *)&stepped->regs;
  for (size_t i = 0; i < sizeof hot->regs / sizeof *a; i++) {
    if (a[i] != b[i]) {
      test_fail(__FILE__, __LINE__, "%s, %u bits, time %u: %s %zu is 0x%" PRIx64 ", not 0x%" PRIx64,
                text, made->bits, time, i < 16 ? "register" : "RIP or RFLAGS", i, a[i], b[i]);
    }
  }
  if (memcmp(hot, stepped, sizeof *hot) != 0) {
    test_fail(__FILE__, __LINE__, "%s, %u bits, time %u: memory or exits differ (%u and %u)", text,
              made->bits, time, hot->count, stepped->count);
  }
}

static void set_slot(const soft_guest *guest, uint32_t slot, uint32_t at, uint32_t size,
                     uint32_t flags) {
  struct kvm_userspace_memory_region region = {.slot = slot,
                                               .guest_phys_addr = at,
                                               .memory_size = size,
                                               .userspace_addr = (uintptr_t)guest->ram + at,
                                               .flags = flags};
  CHECK_EQ(guest_call(guest->vm, KVM_SET_USER_MEMORY_REGION, &region), 0);
}

/* Nothing of it is memory but the data, and the code and the page tables, which nobody writes to:
 * all entries are accessed and dirty. */
static soft_guest open_guest(unsigned bits, bool flat) {
  soft_guest guest = guest_open(0);
  guest_map(&guest, DEVICE, DEVICE);
  if (bits != 64) {
    legacy_mode(&guest, bits, flat);
  }
  set_slot(&guest, 0, 0, 0, 0);
  set_slot(&guest, 1, GUEST_CODE, 0x1000, KVM_MEM_READONLY);
  set_slot(&guest, 2, DATA, DATA_SIZE, 0);
  uint64_t *tables = (uint64_t *)(void *)(guest.ram + GUEST_TABLES);
  for (unsigned i = 0; i < TABLES_SIZE / sizeof *tables; i++) {
    tables[i] |= tables[i] ? 0x60 : 0;
  }
  set_slot(&guest, 3, GUEST_TABLES, TABLES_SIZE, KVM_MEM_READONLY);
  return guest;
}

static void rows(unsigned bits, bool flat) {
  const char *text = getenv("LUNA_FUZZ_SECONDS");
  double seconds = text && *text ? strtod(text, NULL) : 2;
  uint64_t until = luna_clock() + (uint64_t)(seconds / 4 * 1e9), count = 0;
  uint64_t seed = test_seed();
  state = seed;
  for (size_t i = 0; i < sizeof before; i++) {
    before[i] = (uint8_t)(test_random(&state) >> 32);
  }
  soft_guest guest = open_guest(bits, flat);
  while (luna_clock() < until) {
    row made;
    test_note("seed 0x%" PRIx64 ", row %" PRIu64, seed, count++);
    make(&made, bits);
    for (unsigned time = 0; time < TIMES; time++) {
      struct kvm_regs regs = pick_regs(bits);
      static outcome stepped, hot;
      run(&guest, &made, &regs, true, &stepped);
      run(&guest, &made, &regs, false, &hot);
      compare(&made, &hot, &stepped, time);
    }
  }
  guest_close(&guest);
  printf("# %" PRIu64 " rows\n", count);
}

static void code_of_64_bits(void) {
  rows(64, true);
}

static void code_of_flat_segments(void) {
  rows(32, true);
}

static void code_of_segments_with_limits(void) {
  rows(32, false);
}

static void code_of_16_bits(void) {
  rows(16, false);
}

int main(void) {
  RUN(code_of_64_bits);
  RUN(code_of_flat_segments);
  RUN(code_of_segments_with_limits);
  RUN(code_of_16_bits);
  return test_end();
}
