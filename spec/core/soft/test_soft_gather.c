/* SPDX-License-Identifier: MIT
 * Gathers of AVX2 on the software CPU: random ones against the host's processor, the faults that
 * they stop at, and encodings that are none. LUNA_SEED is where they begin. */
#include "fixture/soft_native.h"
#include "fixture/soft_system.h"

enum {
  ROUNDS = 20000,
  AT_XMM = 160,
  AT_BV = 512,
  AT_AVX = 576,
  UD = 6,
  NM = 7,
  PF = 14,
  OSXSAVE = 1 << 18
};

static uint64_t state;

static uint64_t pick(uint64_t below) {
  return test_random(&state) % below;
}

static uint64_t word(const uint8_t *xsave, unsigned number, unsigned which) {
  uint64_t value;
  memcpy(&value, xsave + (which < 2 ? AT_XMM : AT_AVX) + number * 16 + which % 2 * 8, 8);
  return value;
}

static void set_word(uint8_t *xsave, unsigned number, unsigned which, uint64_t value) {
  memcpy(xsave + (which < 2 ? AT_XMM : AT_AVX) + number * 16 + which % 2 * 8, &value, 8);
}

/* vpgather ymm1, [ymm2 * scale + disp], ymm3; in place of all of them, any. */
typedef struct form {
  unsigned opcode, wide, upper; /* VEX.W, VEX.L */
  unsigned to, index, mask, scale;
} form;

static size_t encode(uint8_t *code, const form *of, uint32_t displacement) {
  const uint8_t bytes[] = {
      0xc4,
      (uint8_t)((of->to < 8) << 7 | (of->index < 8) << 6 | 0x22),
      (uint8_t)(of->wide << 7 | (~of->mask & 15) << 3 | of->upper << 2 | 1),
      (uint8_t)of->opcode,
      (uint8_t)(4 | (of->to & 7) << 3),
      (uint8_t)(of->scale << 6 | (of->index & 7) << 3 | 5),
  };
  memcpy(code, bytes, sizeof bytes);
  memcpy(code + sizeof bytes, &displacement, 4);
  return sizeof bytes + 4;
}

static form random_form(void) {
  form made = {.opcode = 0x90 + (unsigned)pick(4),
               .wide = (unsigned)pick(2),
               .upper = (unsigned)pick(2),
               .to = (unsigned)pick(16),
               .scale = (unsigned)pick(4)};
  made.index = (made.to + 1 + (unsigned)pick(7)) % 16;
  made.mask = (made.to + 8 + (unsigned)pick(8)) % 16;
  return made;
}

/* Indices that stay within the data, some below its middle; half of the mask. */
static void fill(const form *of) {
  uint8_t *xsave = native->in.xsave;
  memset(xsave, 0, NATIVE_XSAVE);
  xsave[0] = 0x7f;
  xsave[1] = 3;
  xsave[25] = 0x1f;
  xsave[24] = 0x80;
  xsave[AT_BV] = 7;
  for (unsigned number = 0; number < 16; number++) {
    for (unsigned i = 0; i < 4; i++) {
      set_word(xsave, number, i, test_random(&state));
    }
  }
  for (unsigned i = 0; i < 4; i++) {
    uint64_t low = pick(24) - 12, high = pick(24) - 12;
    set_word(xsave, of->index, i, of->opcode & 1 ? low : (uint32_t)low | high << 32);
  }
  for (unsigned i = 0; i < NATIVE_DATA_SIZE; i += 8) {
    uint64_t value = test_random(&state);
    memcpy((uint8_t *)(uintptr_t)NATIVE_DATA + i, &value, sizeof value);
  }
}

static void gathers_come_out_as_on_the_host(void) {
  if (!__builtin_cpu_supports("avx2")) {
    test_skip("this host has no AVX2");
  }
  uint64_t seed = test_seed();
  state = seed;
  soft_guest guest = guest_open(3);
  guest_map(&guest, NATIVE_BASE, 2 << 20);
  for (unsigned i = 0; i < ROUNDS; i++) {
    uint8_t code[16], got[4096];
    form of = random_form();
    size_t size = encode(code, &of, NATIVE_DATA + 128);
    test_note("seed 0x%" PRIx64 ", round %u: opcode 0x%x, W %u, L %u", seed, i, of.opcode, of.wide,
              of.upper);
    fill(&of);
    CHECK_EQ(native_run(code, size, true), 0);
    memcpy(guest.ram + (2 << 20) + (NATIVE_DATA & 0x1fffff), (void *)(uintptr_t)NATIVE_DATA,
           NATIVE_DATA_SIZE);
    CHECK_EQ(guest_call(guest.cpu, KVM_SET_XSAVE, native->in.xsave), 0);
    struct kvm_regs regs = {.rflags = 2};
    memcpy(code + size, "\x0f\x0b", 2);
    CHECK_EQ(guest_run(&guest, code, size + 2, &regs), KVM_EXIT_SHUTDOWN);
    CHECK_EQ(regs.rip, GUEST_CODE + size);
    CHECK_EQ(guest_call(guest.cpu, KVM_GET_XSAVE, got), 0);
    for (unsigned number = 0; number < 16; number++) {
      for (unsigned k = 0; k < 4; k++) {
        bool upper = k > 1 && !(native->out.xsave[AT_BV] & 4);
        CHECK_EQ(word(got, number, k), upper ? 0 : word(native->out.xsave, number, k));
      }
    }
  }
  guest_close(&guest);
}

/* ---- Faults ---- */

/* vpgatherdd ymm0, [rdi + ymm1 * 4], ymm2 */
static const char gather[] = "\xc4\xe2\x6d\x90\x04\x8f";

/* The third element is where no page is: two are there, and the handler can go on. */
static void a_fault_in_the_middle_keeps_what_is_there(void) {
  uint8_t xsave[4096] = {0x7f, 3};
  soft_system system = system_open(SYSTEM_64);
  xsave[24] = 0x80;
  xsave[25] = 0x1f;
  xsave[AT_BV] = 7;
  for (unsigned i = 0; i < 4; i++) {
    set_word(xsave, 0, i, UINT64_C(0x7777777777777777));
    set_word(xsave, 1, i, (uint64_t)(2 * i + 1) << 32 | 2 * i);
    set_word(xsave, 2, i, i == 0 ? 0x80000000 : UINT64_C(0x8000000080000001)); /* one not */
  }
  CHECK_EQ(guest_call(system.guest.cpu, KVM_SET_XSAVE, xsave), 0);
  system_put(&system, GUEST_SIZE - 8, 0x1234, 8);
  struct kvm_regs regs = {.rdi = GUEST_SIZE - 8};
  system_end end = SYSTEM_RUN(&system, 3, regs, gather);
  SYSTEM_CHECK(end, PF, 4);
  CHECK_EQ(end.sregs.cr2, GUEST_SIZE);
  CHECK_EQ(end.frame[0], GUEST_CODE);
  CHECK_EQ(guest_call(system.guest.cpu, KVM_GET_XSAVE, xsave), 0);
  CHECK_EQ(word(xsave, 0, 0), UINT64_C(0x7777777700001234));
  CHECK_EQ(word(xsave, 0, 1), UINT64_C(0x7777777777777777));
  CHECK_EQ(word(xsave, 2, 0), 0);
  CHECK_EQ(word(xsave, 2, 1), ~UINT64_C(0));
  system_close(&system);
}

/* What the mask leaves out is not touched, wherever it would be. */
static void elements_without_a_bit_do_not_fault(void) {
  uint8_t xsave[4096] = {0x7f, 3};
  soft_system system = system_open(SYSTEM_64);
  xsave[24] = 0x80;
  xsave[25] = 0x1f;
  CHECK_EQ(guest_call(system.guest.cpu, KVM_SET_XSAVE, xsave), 0);
  struct kvm_regs regs = {.rdi = UINT64_C(1) << 62};
  SYSTEM_CHECK(SYSTEM_RUN(&system, 3, regs, gather), SYSTEM_END, 0);
  system_close(&system);
}

/* A device's elements are asked for one after the other. */
static void elements_may_be_a_device_s(void) {
  uint8_t xsave[4096] = {0x7f, 3};
  soft_system system = system_open(SYSTEM_64);
  struct kvm_run *run = system.guest.run;
  uint64_t *directory = (uint64_t *)(void *)(system.guest.ram + GUEST_TABLES + 0x2000);
  directory[2] = GUEST_SIZE | 0x87; /* where no memory is */
  xsave[24] = 0x80;
  xsave[25] = 0x1f;
  xsave[AT_BV] = 7;
  for (unsigned i = 0; i < 4; i++) {
    set_word(xsave, 1, i, (uint64_t)(2 * i + 1) << 32 | 2 * i);
    set_word(xsave, 2, i, i < 1 ? ~UINT64_C(0) : 0);
  }
  CHECK_EQ(guest_call(system.guest.cpu, KVM_SET_XSAVE, xsave), 0);
  memcpy(system.guest.ram + GUEST_CODE, gather, 6);
  system_put(&system, GUEST_CODE + 6, 0xe6 | SYSTEM_AT_END << 8, 2);
  system_begin(&system, &system.sregs, (struct kvm_regs){.rdi = GUEST_SIZE});
  for (unsigned i = 0; i < 2; i++) {
    CHECK_EQ(guest_call(system.guest.cpu, KVM_RUN, NULL), 0);
    CHECK_EQ(run->exit_reason, KVM_EXIT_MMIO);
    CHECK_EQ(run->mmio.phys_addr, GUEST_SIZE + i * 4);
    memset(run->mmio.data, (int)(0x11 * (i + 1)), 4);
  }
  SYSTEM_CHECK(system_go(&system), SYSTEM_END, 0);
  CHECK_EQ(guest_call(system.guest.cpu, KVM_GET_XSAVE, xsave), 0);
  CHECK_EQ(word(xsave, 0, 0), UINT64_C(0x2222222211111111));
  system_close(&system);
}

/* Masked moves about the end of what is there: half of the mask is set, either one. */
static void masks_say_what_is_moved(void) {
  static const struct {
    const char *code; /* with xmm1 or ymm1, the mask xmm2, at RDI */
    unsigned size;
    bool writes;
  } rows[] = {
      {"\xc4\xe2\x69\x2c\x0f", 16, false}, /* vmaskmovps xmm1, xmm2, [rdi] */
      {"\xc4\xe2\x6d\x2d\x0f", 32, false}, /* vmaskmovpd ymm1, ymm2, [rdi] */
      {"\xc4\xe2\x6d\x8c\x0f", 32, false}, /* vpmaskmovd ymm1, ymm2, [rdi] */
      {"\xc4\xe2\xe9\x8c\x0f", 16, false}, /* vpmaskmovq xmm1, xmm2, [rdi] */
      {"\xc4\xe2\x69\x2e\x0f", 16, true},  /* vmaskmovps [rdi], xmm2, xmm1 */
      {"\xc4\xe2\x6d\x2f\x0f", 32, true},  /* vmaskmovpd [rdi], ymm2, ymm1 */
      {"\xc4\xe2\x6d\x8e\x0f", 32, true},  /* vpmaskmovd [rdi], ymm2, ymm1 */
      {"\xc4\xe2\xe9\x8e\x0f", 16, true},  /* vpmaskmovq [rdi], xmm2, xmm1 */
  };
  soft_system system = system_open(SYSTEM_64);
  for (unsigned row = 0; row < 2 * sizeof rows / sizeof *rows; row++) {
    unsigned size = rows[row / 2].size, low = row % 2, words = size / 8;
    uint64_t at = GUEST_SIZE - size / 2;
    uint8_t xsave[4096] = {0x7f, 3};
    test_note("row %u, %s half", row / 2, low ? "first" : "second");
    xsave[24] = 0x80;
    xsave[25] = 0x1f;
    xsave[AT_BV] = 7;
    for (unsigned i = 0; i < 4; i++) {
      set_word(xsave, 1, i, 0x1111111111111111 * (i + 1));
      set_word(xsave, 2, i, (i < words / 2) == low && i < words ? ~UINT64_C(0) : 0);
    }
    CHECK_EQ(guest_call(system.guest.cpu, KVM_SET_XSAVE, xsave), 0);
    for (unsigned i = 0; i < words / 2; i++) {
      system_put(&system, at + i * 8, 0xaaaaaaaaaaaaaaaa, 8);
    }
    struct kvm_regs regs = {.rdi = at};
    system_end end = system_run_in(&system, 3, regs, rows[row / 2].code, 5);
    CHECK_EQ(guest_call(system.guest.cpu, KVM_GET_XSAVE, xsave), 0);
    if (!low) {
      SYSTEM_CHECK(end, PF, rows[row / 2].writes ? 6 : 4);
      CHECK_EQ(end.sregs.cr2, GUEST_SIZE);
      CHECK_EQ(word(xsave, 1, 0), 0x1111111111111111);
      CHECK_EQ(system_get(&system, at, 8), 0xaaaaaaaaaaaaaaaa);
      continue;
    }
    SYSTEM_CHECK(end, SYSTEM_END, 0);
    for (unsigned i = 0; i < 4; i++) {
      bool moved = i < words / 2, writes = rows[row / 2].writes;
      uint64_t own = 0x1111111111111111 * (i + 1);
      CHECK_EQ(word(xsave, 1, i), writes ? own : moved ? 0xaaaaaaaaaaaaaaaa : 0);
      if (moved) {
        CHECK_EQ(system_get(&system, at + i * 8, 8), writes ? own : 0xaaaaaaaaaaaaaaaa);
      }
    }
  }
  system_close(&system);
}

static void what_may_not_be_gathered(void) {
  static const struct {
    const char *code;
    uint64_t cr0, no_cr4;
    int vector;
  } rows[] = {
      {"\xc4\xe2\x6d\x90\x04\x8f", 0, 0, SYSTEM_END},
      {"\xc4\xe2\x7d\x90\x04\x8f", 0, 0, UD}, /* the mask is the destination */
      {"\xc4\xe2\x75\x90\x04\x8f", 0, 0, UD}, /* the mask is the index */
      {"\xc4\xe2\x6d\x90\x0c\x8f", 0, 0, UD}, /* the destination is the index */
      {"\xc4\xe2\x6d\x90\xc1\x90", 0, 0, UD}, /* a register for memory */
      {"\xc4\xe2\x6d\x90\x04\x8f", 8, 0, NM},
      {"\xc4\xe2\x6d\x90\x04\x8f", 8, OSXSAVE, UD},
  };
  soft_system system = system_open(SYSTEM_64);
  for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
    test_note("row %u", i);
    struct kvm_sregs sregs = system.sregs;
    sregs.cr0 |= rows[i].cr0;
    sregs.cr4 &= ~rows[i].no_cr4;
    struct kvm_regs regs = {.rdi = SYSTEM_DATA};
    SYSTEM_CHECK(system_run(&system, &sregs, regs, rows[i].code, 6), rows[i].vector, 0);
  }
  system_close(&system);
}

int main(void) {
  if (native_begin()) {
    RUN(gathers_come_out_as_on_the_host);
  }
  RUN(a_fault_in_the_middle_keeps_what_is_there);
  RUN(elements_without_a_bit_do_not_fault);
  RUN(elements_may_be_a_device_s);
  RUN(masks_say_what_is_moved);
  RUN(what_may_not_be_gathered);
  return test_end();
}
