/* SPDX-License-Identifier: MIT
 * Instructions in a row, of which decoding makes more than the sum: values that one hands to the
 * next, flags that nobody reads and are left out, a comparison and its jump in one. Random rows
 * come out as on the host's processor, whole and stepped; and whoever looks between two of them
 * sees what a processor has there. LUNA_FUZZ_SECONDS, LUNA_SEED. */
#include "fixture/soft_guest.h"
#include "fixture/soft_native.h"

#include <errno.h>
#include <signal.h>
#include <sys/time.h>

enum {
  FLAG_CF = 1,
  FLAG_PF = 1 << 2,
  FLAG_AF = 1 << 4,
  FLAG_ZF = 1 << 6,
  FLAG_SF = 1 << 7,
  FLAG_OF = 1 << 11,
  FLAGS = 0x8d5,
  MOST = 24, /* instructions of a row */
  PLACES = 16
};

typedef struct row {
  uint8_t bytes[MOST * 16];
  size_t size;
  unsigned count;
  unsigned usual; /* size of most */
  bool logic;     /* the last that writes flags leaves AF open */
} row;

static uint64_t state;

static unsigned pick(unsigned below) {
  return (unsigned)(test_random(&state) % below);
}

/* ---- Making rows ---- */

/* Few registers, so that most instructions are about the last one's; never the stack pointer. */
static unsigned pick_register(void) {
  static const uint8_t usual[] = {0, 1, 2, 3};
  unsigned any = pick(16);
  return pick(4) ? usual[pick(4)] : any == 4 ? 5 : any;
}

static void put(row *made, unsigned byte) {
  made->bytes[made->size++] = (uint8_t)byte;
}

static void put_32(row *made, uint32_t value) {
  memcpy(made->bytes + made->size, &value, sizeof value);
  made->size += sizeof value;
}

/* The prefixes of an operand size: 0 to 3 for 8 to 64 bits. */
static void put_prefixes(row *made, unsigned size, unsigned reg, unsigned rm) {
  if (size == 1) {
    put(made, 0x66);
  }
  unsigned rex = (size == 3 ? 8u : 0) | reg >> 3 << 2 | rm >> 3;
  if (rex || pick(4) == 0) { /* without REX, registers 4 to 7 of a byte are AH to BH */
    put(made, 0x40 | rex);
  }
}

static void put_modrm(row *made, unsigned reg, unsigned rm) {
  put(made, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

static void put_data(row *made, unsigned reg) {
  put(made, 4 | (reg & 7) << 3);
  put(made, 0x25);
  put_32(made, NATIVE_DATA + 4 * pick(PLACES));
}

static void put_immediate(row *made, unsigned size) {
  uint32_t value = (uint32_t)test_random(&state) >> pick(32);
  for (unsigned i = 0; i < (size == 3 ? 4 : 1u << size); i++) {
    put(made, value >> 8 * i);
  }
}

/* ADD to CMP; TEST is none of them. */
static void put_alu(row *made, unsigned operation, unsigned size) {
  unsigned reg = pick_register(), rm = pick_register(), form = pick(5), wide = size > 0;
  made->logic = operation == 1 || operation == 4 || operation == 6;
  switch (form) {
    case 0:
      put_prefixes(made, size, 0, rm);
      put(made, 0x80 | wide);
      put_modrm(made, operation, rm);
      put_immediate(made, size);
      break;
    case 1: /* from or to memory */
    case 2:
      put_prefixes(made, size, reg, 0);
      put(made, operation << 3 | wide | (form == 1 ? 2 : 0));
      put_data(made, reg);
      break;
    default:
      put_prefixes(made, size, reg, rm);
      put(made, operation << 3 | wide);
      put_modrm(made, reg, rm);
      break;
  }
}

static void put_test(row *made, unsigned size) {
  unsigned reg = pick_register(), rm = pick_register();
  put_prefixes(made, size, reg, rm);
  put(made, 0x84 | (size > 0));
  put_modrm(made, reg, rm);
  made->logic = true;
}

static void put_step(row *made, unsigned size) {
  unsigned rm = pick_register();
  put_prefixes(made, size, 0, rm);
  put(made, 0xfe | (size > 0));
  put_modrm(made, pick(2), rm);
  made->logic = false;
}

static void put_lea(row *made) {
  unsigned reg = pick_register(), base = pick_register(), index = pick_register();
  if (pick(4) == 0) {
    put(made, 0x66);
  }
  put(made, 0x40 | pick(2) << 3 | reg >> 3 << 2 | index >> 3 << 1 | base >> 3);
  put(made, 0x8d);
  put(made, 0x44 | (reg & 7) << 3);
  put(made, pick(4) << 6 | (index & 7) << 3 | (base & 7));
  put(made, pick(256));
}

static void put_move(row *made, unsigned size) {
  static const uint8_t opcodes[] = {0x8a, 0x88, 0x8a};
  unsigned reg = pick_register(), rm = pick_register(), form = pick(3);
  put_prefixes(made, size, reg, form == 2 ? rm : 0);
  put(made, opcodes[form] | (size > 0));
  if (form == 2) {
    put_modrm(made, reg, rm);
  } else {
    put_data(made, reg);
  }
}

/* MOVZX and MOVSX of bytes and words. */
static void put_extension(row *made) {
  unsigned reg = pick_register(), rm = pick_register();
  put_prefixes(made, 2 + pick(2), reg, rm);
  put(made, 0x0f);
  put(made, 0xb6 | pick(2) | pick(2) << 3);
  put_modrm(made, reg, rm);
}

/* SHL, SHR or SAR by one, whose flags but AF are defined. */
static void put_shift(row *made, unsigned size) {
  static const uint8_t kinds[] = {4, 5, 7};
  unsigned rm = pick_register();
  put_prefixes(made, size, 0, rm);
  put(made, 0xd0 | (size > 0));
  put_modrm(made, kinds[pick(3)], rm);
  made->logic = true;
}

static void put_one(row *made) {
  unsigned size = pick(4) ? made->usual : pick(4);
  switch (pick(12)) {
    case 0:
      put_test(made, size);
      break;
    case 1:
      put_step(made, size);
      break;
    case 2:
    case 3:
      put_lea(made);
      break;
    case 4:
    case 5:
      put_move(made, size);
      break;
    case 6:
      put_extension(made);
      break;
    case 7:
      put_shift(made, size);
      break;
    default:
      put_alu(made, pick(8), size);
      break;
  }
  made->count++;
}

/* Some instructions, a jump over others, and those. */
static void make(row *made) {
  memset(made, 0, sizeof *made);
  made->usual = pick(4) ? 2 + pick(2) : pick(2);
  for (unsigned left = 1 + pick(8); left; left--) {
    put_one(made);
  }
  bool logic = made->logic; /* where the jump is taken and nothing behind it writes flags */
  put(made, 0x70 | pick(16));
  size_t distance = made->size++;
  made->count++;
  for (unsigned left = 1 + pick(3); left; left--) {
    put_one(made);
  }
  made->bytes[distance] = (uint8_t)(made->size - distance - 1);
  for (unsigned left = pick(4); left; left--) {
    put_one(made);
  }
  made->logic |= logic;
}

/* ---- Rows ---- */

static void fill_state(void) {
  for (int i = 0; i < 16; i++) {
    native->in.r[i] = i == 4 ? 0 : test_random(&state) >> (pick(2) ? 0 : pick(64));
  }
  native->in.flags = (test_random(&state) & FLAGS) | 0x202;
  for (int i = 0; i < NATIVE_DATA_SIZE; i += 8) {
    uint64_t word = test_random(&state);
    memcpy((uint8_t *)(uintptr_t)NATIVE_DATA + i, &word, sizeof word);
  }
}

static uint8_t *data_of(const soft_guest *guest) {
  return guest->ram + (2 << 20) + (NATIVE_DATA & 0x1fffff);
}

static void compare(const row *made, const soft_guest *guest, const struct kvm_regs *regs,
                    const char *how) {
  uint64_t r[16];
  char text[3 * sizeof made->bytes + 1];
  for (size_t i = 0; i < made->size; i++) {
    snprintf(text + 3 * i, 4, "%02x ", made->bytes[i]);
  }
  native_take(regs, r);
  for (int i = 0; i < 16; i++) {
    if (i != 4 && r[i] != native->out.r[i]) {
      test_fail(__FILE__, __LINE__, "%s, %s: register %d is 0x%" PRIx64 ", not 0x%" PRIx64, text,
                how, i, r[i], native->out.r[i]);
    }
  }
  uint64_t mask = made->logic ? FLAGS & ~(uint64_t)FLAG_AF : FLAGS;
  if ((regs->rflags ^ native->out.flags) & mask) {
    test_fail(__FILE__, __LINE__, "%s, %s: flags are 0x%" PRIx64 ", not 0x%" PRIx64, text, how,
              (uint64_t)regs->rflags, native->out.flags);
  }
  CHECK_EQ(memcmp(data_of(guest), (void *)(uintptr_t)NATIVE_DATA, NATIVE_DATA_SIZE), 0);
}

/* Each instruction by itself, until UD2 finds no IDT. */
static void run_stepped(const soft_guest *guest, const row *made, struct kvm_regs *regs) {
  struct kvm_guest_debug debug = {.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP};
  CHECK_EQ(guest_call(guest->cpu, KVM_SET_GUEST_DEBUG, &debug), 0);
  regs->rip = GUEST_CODE;
  CHECK_EQ(guest_call(guest->cpu, KVM_SET_REGS, regs), 0);
  unsigned steps = 0;
  for (;;) {
    CHECK_EQ(guest_call(guest->cpu, KVM_RUN, NULL), 0);
    if (guest->run->exit_reason != KVM_EXIT_DEBUG) {
      break;
    }
    steps++;
  }
  CHECK_EQ(guest->run->exit_reason, KVM_EXIT_SHUTDOWN);
  CHECK(steps <= made->count);
  *regs = guest_regs(guest);
  debug.control = 0;
  CHECK_EQ(guest_call(guest->cpu, KVM_SET_GUEST_DEBUG, &debug), 0);
}

static void try(row *made, const soft_guest *guest) {
  static uint8_t before[NATIVE_DATA_SIZE];
  fill_state();
  memcpy(before, (void *)(uintptr_t)NATIVE_DATA, sizeof before);
  CHECK_EQ(native_run(made->bytes, made->size, false), 0);
  made->bytes[made->size] = 0x0f; /* ud2 */
  made->bytes[made->size + 1] = 0x0b;
  struct kvm_regs regs;
  for (int times = 0; times < 2; times++) { /* the second by the links of the first */
    native_give(&regs);
    memcpy(data_of(guest), before, sizeof before);
    CHECK_EQ(guest_run(guest, made->bytes, made->size + 2, &regs), KVM_EXIT_SHUTDOWN);
    CHECK_EQ(regs.rip, GUEST_CODE + made->size);
    compare(made, guest, &regs, "whole");
  }
  native_give(&regs);
  memcpy(data_of(guest), before, sizeof before);
  run_stepped(guest, made, &regs);
  compare(made, guest, &regs, "stepped");
}

static void rows_come_out_as_on_the_host(void) {
  const char *text = getenv("LUNA_FUZZ_SECONDS");
  double seconds = text && *text ? strtod(text, NULL) : 2;
  uint64_t until = luna_clock() + (uint64_t)(seconds * 1e9), count = 0;
  uint64_t seed = test_seed();
  state = seed;
  soft_guest guest = guest_open(3);
  guest_map(&guest, NATIVE_BASE, 2 << 20);
  while (luna_clock() < until) {
    row made;
    test_note("seed 0x%" PRIx64 ", row %" PRIu64, seed, count++);
    make(&made);
    try(&made, &guest);
  }
  guest_close(&guest);
  printf("# %" PRIu64 " rows\n", count);
}

/* mov eax, imm; add ecx, eax; xor edx, ecx; lea ebx, [rdx + rcx]; dec ecx; jnz over; inc edx; and
 * what may be there instead, of the same length. */
static const uint8_t changing[] = {0xb8, 1,    2,    3,    4,    0x01, 0xc1, 0x31, 0xca,
                                   0x8d, 0x1c, 0x0a, 0xff, 0xc9, 0x75, 0x02, 0xff, 0xc2};
static const struct {
  uint8_t at;
  uint8_t bytes[4];
} changes[] = {
    {1, {1, 9, 0xfe, 0x80}},        {4, {4, 0x7f, 0x80, 0xff}},     {5, {1, 0x29, 0x39, 0x85}},
    {6, {0xc1, 0xd1, 0xcb, 0xd8}},  {7, {0x31, 0x09, 0x21, 0x11}},  {11, {0x0a, 0x01, 0x13, 8}},
    {13, {0xc9, 0xc1, 0xcb, 0xca}}, {14, {0x75, 0x74, 0x7c, 0x72}}, {15, {2, 0, 2, 0}}};

/* One instruction of a block that is known changes: what was made of those around it does too. */
static void a_change_within_an_instruction_is_followed(void) {
  uint64_t seed = test_seed();
  state = seed;
  row made = {.size = sizeof changing, .count = 7};
  memcpy(made.bytes, changing, sizeof changing);
  soft_guest guest = guest_open(3);
  guest_map(&guest, NATIVE_BASE, 2 << 20);
  for (int i = 0; i < 2000; i++) {
    unsigned which = pick(sizeof changes / sizeof *changes);
    test_note("seed 0x%" PRIx64 ", change %d", seed, i);
    made.bytes[changes[which].at] = changes[which].bytes[pick(4)];
    made.logic = true;
    try(&made, &guest);
  }
  guest_close(&guest);
}

/* ---- Between two instructions ---- */

/* xor eax, ebx; dec ecx; jnz to the start; hlt */
static const uint8_t counting[] = {0x31, 0xd8, 0xff, 0xc9, 0x75, 0xfa, 0xf4};
enum {
  COUNTING_DEC = 2,
  COUNTING_JUMP = 4
};

/* The flags of DEC to this value, CF as it was. */
static uint64_t flags_of_dec(uint32_t value, uint64_t cf) {
  bool odd = __builtin_popcount(value & 0xff) & 1;
  return (cf & FLAG_CF) | (odd ? 0 : FLAG_PF) | ((value & 15) == 15 ? FLAG_AF : 0) |
         (value ? 0 : FLAG_ZF) | (value >> 31 ? FLAG_SF : 0) | (value == 0x7fffffff ? FLAG_OF : 0);
}

static struct kvm_run *stopped;

static void stop(int number) {
  (void)number;
  stopped->immediate_exit = 1;
}

/* Flags that the next block overwrites are left out on the way to it, but for whoever stops there.
 */
static void a_stop_between_two_rounds_finds_the_flags(void) {
  soft_guest guest = guest_open(0);
  struct kvm_regs regs = {.rip = GUEST_CODE, .rcx = 0x7fffffff, .rbx = 5, .rflags = 2};
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = stop;
  sigaction(SIGALRM, &action, NULL);
  stopped = guest.run;
  memcpy(guest.ram + GUEST_CODE, counting, sizeof counting);
  CHECK_EQ(guest_call(guest.cpu, KVM_SET_REGS, &regs), 0);
  for (int i = 0; i < 50; i++) {
    const struct itimerval once = {.it_value = {.tv_usec = 300 + i}};
    guest.run->immediate_exit = 0;
    setitimer(ITIMER_REAL, &once, NULL);
    CHECK_EQ(guest_call(guest.cpu, KVM_RUN, NULL), -1);
    CHECK_EQ(errno, EINTR);
    regs = guest_regs(&guest);
    if (regs.rip == GUEST_CODE) { /* XOR has cleared CF */
      CHECK_EQ(regs.rflags & FLAGS, flags_of_dec((uint32_t)regs.rcx, 0));
    } else {
      CHECK_EQ(regs.rip, GUEST_CODE + COUNTING_DEC);
    }
  }
  guest_close(&guest);
}

static void breakpoint(const soft_guest *guest, uint64_t at) {
  struct kvm_guest_debug debug = {.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP};
  debug.arch.debugreg[0] = at;
  debug.arch.debugreg[7] = 0x403;
  CHECK_EQ(guest_call(guest->cpu, KVM_SET_GUEST_DEBUG, &debug), 0);
}

static void a_breakpoint_on_the_jump_comes_between_the_two(void) {
  soft_guest guest = guest_open(0);
  struct kvm_regs regs = {.rcx = 3, .rflags = 2};
  CHECK_EQ(guest_run(&guest, counting, sizeof counting, &regs), KVM_EXIT_HLT);
  breakpoint(&guest, GUEST_CODE + COUNTING_JUMP);
  regs = (struct kvm_regs){.rcx = 2, .rflags = 2};
  CHECK_EQ(guest_run(&guest, counting, sizeof counting, &regs), KVM_EXIT_DEBUG);
  CHECK_EQ(regs.rip, GUEST_CODE + COUNTING_JUMP);
  CHECK_EQ(regs.rcx, 1);
  CHECK_EQ(regs.rflags & FLAGS, flags_of_dec(1, 0));
  guest_close(&guest);
}

/* cmp rax, rcx at the end of a page, jz in the next one, which is not there until the fault. */
static void a_pair_over_the_end_of_a_page_faults_at_its_jump(void) {
  static const uint8_t code[] = {0x48, 0x39, 0xc8, 0x74, 0x02, 0x0f, 0x0b, 0xf4};
  enum {
    LAST = (2 << 20) + 0x1ffffd
  };
  soft_guest guest = guest_open(0);
  struct kvm_regs regs = {.rip = LAST, .rflags = 2};
  memcpy(guest.ram + LAST, code, 3);
  CHECK_EQ(guest_call(guest.cpu, KVM_SET_REGS, &regs), 0);
  CHECK_EQ(guest_call(guest.cpu, KVM_RUN, NULL), 0);
  CHECK_EQ(guest.run->exit_reason, KVM_EXIT_SHUTDOWN);
  regs = guest_regs(&guest);
  CHECK_EQ(regs.rip, LAST + 3);
  CHECK_EQ(regs.rflags & FLAGS, FLAG_ZF | FLAG_PF);
  guest_map(&guest, 4 << 20, 0);
  memcpy(guest.ram, code + 3, sizeof code - 3);
  regs.rip = LAST;
  CHECK_EQ(guest_call(guest.cpu, KVM_SET_REGS, &regs), 0);
  CHECK_EQ(guest_call(guest.cpu, KVM_RUN, NULL), 0);
  CHECK_EQ(guest.run->exit_reason, KVM_EXIT_HLT);
  guest_close(&guest);
}

int main(void) {
  if (!native_begin()) {
    printf("0 passed, 0 failed, 1 skipped\n");
    return EXIT_SUCCESS;
  }
  RUN(rows_come_out_as_on_the_host);
  RUN(a_change_within_an_instruction_is_followed);
  RUN(a_stop_between_two_rounds_finds_the_flags);
  RUN(a_breakpoint_on_the_jump_comes_between_the_two);
  RUN(a_pair_over_the_end_of_a_page_faults_at_its_jump);
  return test_end();
}
