/* SPDX-License-Identifier: MIT
 * AVX-512 on the software CPU: what lets its instructions, XCR0, XSAVE's areas in both forms and
 * both widths of code, and what AVX's instructions do to its state. */
#include "fixture/soft_component.h"

#define COMPACT (UINT64_C(1) << 63)
#define XSETBV "\x0f\x01\xd1"
#define VPADDD "\x62\xf1\x75\x48\xfe\xc2"     /* vpaddd zmm0, zmm1, zmm2 */
#define VPADDD_128 "\x62\xf1\x75\x08\xfe\xc2" /* vpaddd xmm0, xmm1, xmm2 */
#define KMOVQ "\xc4\xe1\xf8\x90\xc9\x90"      /* kmovq k1, k1 */
#define GATHER "\x62\xf2\x7d\x49\x90\x04\x8f" /* vpgatherdd zmm0 {k1}, [rdi + zmm1 * 4] */
#define LOAD "\x62\xf1\x7e\xc9\x6f\x07"       /* vmovdqu32 zmm0 {k1} {z}, [rdi] */

/* ---- What lets it ---- */

static void conditions_of_the_instructions(void) {
  static const struct {
    const char *code;
    uint64_t xcr0, cr0, no_cr4;
    int vector;
  } rows[] = {
      {VPADDD, EVEX_ALL, 0, 0, SYSTEM_END},
      {VPADDD_128, EVEX_ALL, 0, 0, SYSTEM_END},
      {KMOVQ, EVEX_ALL, 0, 0, SYSTEM_END},
      {GATHER, EVEX_ALL, 0, 0, SYSTEM_END},
      {VPADDD, 7, 0, 0, UD},
      {VPADDD_128, 7, 0, 0, UD},
      {KMOVQ, 7, 0, 0, UD},
      {GATHER, 7, 0, 0, UD},
      {LOAD, 7, 0, 0, UD},
      {VPADDD, EVEX_ALL, 8, 0, NM},
      {KMOVQ, EVEX_ALL, 8, 0, NM},
      {GATHER, EVEX_ALL, 8, 0, NM},
      {LOAD, EVEX_ALL, 8, 0, NM},
      {VPADDD, 7, 8, 0, UD},
      {KMOVQ, 7, 8, 0, UD},
      {VPADDD, EVEX_ALL, 8, OSXSAVE, UD},
      {KMOVQ, EVEX_ALL, 0, OSXSAVE, UD},
      {VPADDD, EVEX_ALL, 4, 0, SYSTEM_END},                         /* CR0.EM */
      {"\x62\xf2\x7d\x48\x90\x04\x8f", EVEX_ALL, 0, 0, UD},         /* gather without a mask */
      {"\x62\xf2\x7d\xc9\x90\x04\x8f", EVEX_ALL, 0, 0, UD},         /* with {z} */
      {"\x62\xf2\x7d\x49\x90\x0c\x8f", EVEX_ALL, 0, 0, UD},         /* its index for result */
      {"\x62\xf2\x7d\x48\xa0\x04\x8f", EVEX_ALL, 0, 0, UD},         /* scatter without a mask */
      {"\x62\xf2\x7d\x49\xa0\x0c\x8f", EVEX_ALL, 0, 0, SYSTEM_END}, /* its index for data */
      {"\x62\xf1\x75\x68\xfe\xc2", EVEX_ALL, 0, 0, UD},             /* a length of 1024 bits */
      {"\x62\xf1\x75\xc8\xfe\xc2", EVEX_ALL, 0, 0, UD},             /* {z} without a mask */
      {"\x66\x62\xf1\x75\x48\xfe\xc2", EVEX_ALL, 0, 0, UD},         /* behind a prefix */
  };
  soft_system system = begin(SYSTEM_64);
  for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
    test_note("row %u", i);
    struct kvm_sregs sregs = system.sregs;
    struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs[0].value = rows[i].xcr0};
    image state = state_of(0);
    CHECK_EQ(guest_call(system.guest.cpu, KVM_SET_XCRS, &xcrs), 0);
    set_state(&system, &state);
    sregs.cr0 |= rows[i].cr0;
    sregs.cr4 &= ~rows[i].no_cr4;
    struct kvm_regs regs = {.rdi = SYSTEM_DATA};
    SYSTEM_CHECK(system_run(&system, &sregs, regs, rows[i].code, strlen(rows[i].code)),
                 rows[i].vector, 0);
  }
  system_close(&system);
}

/* VEX and EVEX are for protected mode: in the old ones their bytes are not even LES and BOUND. */
static void old_modes_have_none(void) {
  static const char *const codes[] = {VPADDD, KMOVQ, "\xc5\xfd\xfe\xc0\x90\x90"};
  soft_system system = begin(SYSTEM_16);
  for (unsigned i = 0; i < sizeof codes / sizeof *codes; i++) {
    for (unsigned old = 0; old < 2; old++) {
      struct kvm_sregs sregs = system.sregs;
      test_note("code %u, %s", i, old ? "real mode" : "protected mode");
      if (old) {
        sregs.cr0 &= ~UINT64_C(1);
        sregs.cs.selector = sregs.ss.selector = 0;
        for (unsigned vector = 0; vector < 32; vector++) { /* its own table */
          system_put(&system, SYSTEM_IDT + vector * 4, SYSTEM_HANDLERS + vector * 16, 4);
        }
      }
      struct kvm_regs regs = {.rdi = SYSTEM_DATA};
      system_end end = system_run(&system, &sregs, regs, codes[i], 6);
      CHECK_EQ(end.vector, old ? UD : SYSTEM_END);
      system_fill(&system);
    }
  }
  system_close(&system);
}

static void xcr0_s_rules(void) {
  static const struct {
    uint64_t value;
    bool right;
  } rows[] = {
      {EVEX_ALL, true}, {ALL, true},   {7, true},     {0x27, false},  {0x47, false},
      {0x87, false},    {0x67, false}, {0xa7, false}, {0xc7, false},  {0xe3, false},
      {0xe1, false},    {0xe6, false}, {0xe5, false}, {0x1e7, false}, {0x600e7, false},
  };
  soft_system system = begin(SYSTEM_64);
  for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
    test_note("XCR0 0x%" PRIx64, rows[i].value);
    struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs[0].value = rows[i].value};
    struct kvm_regs regs = {.rax = rows[i].value};
    SYSTEM_CHECK(SYSTEM_RUN(&system, 0, regs, XSETBV), rows[i].right ? SYSTEM_END : GP, 0);
    CHECK_EQ(guest_call(system.guest.cpu, KVM_SET_XCRS, &xcrs), rows[i].right ? 0 : -1);
  }
  system_close(&system);
}

/* What the vCPU's table does not offer is not there to be enabled. */
static void a_table_may_hide_it(void) {
  soft_system system = begin(SYSTEM_64);
  struct kvm_cpuid2 *table = calloc(1, sizeof *table + 64 * sizeof *table->entries);
  table->nent = 64;
  CHECK_EQ(guest_call(system.guest.kvm, KVM_GET_SUPPORTED_CPUID, table), 0);
  for (uint32_t i = 0; i < table->nent; i++) {
    if (table->entries[i].function == 0xd && table->entries[i].index == 0) {
      CHECK_EQ(table->entries[i].eax, ALL);
      table->entries[i].eax = 7;
    }
  }
  CHECK_EQ(guest_call(system.guest.cpu, KVM_SET_CPUID2, table), 0);
  free(table);
  struct kvm_regs regs = {.rax = 7};
  SYSTEM_CHECK(SYSTEM_RUN(&system, 0, regs, XSETBV), SYSTEM_END, 0);
  regs.rax = EVEX_ALL;
  SYSTEM_CHECK(SYSTEM_RUN(&system, 0, regs, XSETBV), GP, 0);
  SYSTEM_CHECK(SYSTEM_RUN(&system, 0, regs, VPADDD), UD, 0);
  system_close(&system);
}

/* ---- XSAVE's areas ---- */

static const char *const savers[] = {"\x48\x0f\xae\x27", "\x48\x0f\xae\x37", "\x48\x0f\xc7\x27",
                                     "\x48\x0f\xc7\x2f"};

static unsigned spread(unsigned bits) { /* SSE, AVX, the three, PKRU */
  return (bits & 3) << 1 | (bits >> 2 & 7) << 5 | (bits >> 5 & 1) << 9;
}

/* Where the area has it. */
static uint32_t place(unsigned component, unsigned layout, bool compact) {
  uint32_t at = 576;
  if (!compact || component < 2) {
    return components[component].at;
  }
  for (unsigned i = 2; i < component; i++) {
    at += layout >> i & 1 ? components[i].size : 0;
  }
  return at;
}

static void check_area(const soft_system *system, unsigned used, unsigned asked, bool compact) {
  const uint8_t *area = system->guest.ram + AREA;
  for (unsigned i = 1; i < COMPONENTS; i++) {
    if (!components[i].size || !(asked >> i & 1) || (compact && !(used >> i & 1))) {
      continue;
    }
    const uint8_t *at = area + place(i, asked, compact);
    uint8_t want = used >> i & 1 ? components[i].fill : 0;
    CHECK_EQ(at[0], want);
    CHECK_EQ(at[components[i].size - 1], want);
  }
}

static void check_state(const soft_system *system, unsigned used) {
  image got = get_state(system), want = state_with(used);
  for (unsigned i = 1; i < COMPONENTS; i++) {
    const uint8_t *at = got.bytes + components[i].at;
    CHECK(memcmp(at, want.bytes + components[i].at, components[i].size) == 0);
  }
}

/* Every set of components that is asked for, with others in use; then back. */
static void what_is_saved_comes_back(void) {
  soft_system system = begin(SYSTEM_64);
  for (unsigned bits = 0; bits < 64 * 64; bits++) {
    unsigned used = spread(bits & 63), asked = spread(bits >> 6), how = bits % 4;
    bool compact = how > 1;
    test_note("way %u, in use 0x%x, asked for 0x%x", how, used, asked);
    image before = state_with(used), others = state_with(ALL & ~X87);
    memset(system.guest.ram + AREA, 0xaa, 4096);
    memset(system.guest.ram + AREA + AT_BV, 0, 64);
    set_state(&system, &before);
    struct kvm_regs regs = {.rax = asked, .rdi = AREA};
    SYSTEM_CHECK(system_run_in(&system, 0, regs, savers[how], 4), SYSTEM_END, 0);
    CHECK_EQ(system_get(&system, AREA + AT_BV, 8), used & asked);
    CHECK_EQ(system_get(&system, AREA + AT_BV + 8, 8), compact ? COMPACT | asked : 0);
    check_area(&system, used, asked, compact);
    set_state(&system, &others);
    const char *back = how == 3 ? "\x48\x0f\xc7\x1f" : "\x48\x0f\xae\x2f";
    SYSTEM_CHECK(system_run_in(&system, 0, regs, back, 4), SYSTEM_END, 0);
    check_state(&system, (used & asked) | (ALL & ~X87 & ~asked));
  }
  system_close(&system);
}

/* 32-bit code reaches the first eight registers (SDM volume 1, 13.5). */
static void code_of_32_bits_reaches_eight_registers(void) {
  soft_system system = begin(SYSTEM_32);
  image before = state_with(EVEX_ALL & ~X87), gone = state_with(0);
  struct kvm_regs regs = {.rax = EVEX_ALL, .rdi = AREA};
  memset(system.guest.ram + AREA, 0xaa, 4096);
  memset(system.guest.ram + AREA + AT_BV, 0, 64);
  set_state(&system, &before);
  SYSTEM_CHECK(system_run_in(&system, 0, regs, savers[0] + 1, 3), SYSTEM_END, 0);
  const uint8_t *area = system.guest.ram + AREA;
  for (unsigned i = 1; i < 8; i++) {
    unsigned size = components[i].size, reach = i == 5 ? size : i == 7 ? 0 : size / 2;
    for (unsigned k = 0; k < size; k++) {
      CHECK_EQ(area[components[i].at + k], k < reach ? components[i].fill : 0xaa);
    }
  }
  memset(system.guest.ram + AREA, 0, 4096); /* all is as at first */
  for (unsigned round = 0; round < 2; round++) {
    set_state(&system, round ? &gone : &before);
    SYSTEM_CHECK(system_run_in(&system, 0, regs, "\x0f\xae\x2f", 3), SYSTEM_END, 0);
    image after = get_state(&system);
    for (unsigned i = 1; i < 8; i++) {
      unsigned size = components[i].size, reach = i == 5 ? size : i == 7 ? 0 : size / 2;
      for (unsigned k = 0; k < size; k++) {
        CHECK_EQ(after.bytes[components[i].at + k], k < reach || round ? 0 : components[i].fill);
      }
    }
  }
  system_close(&system);
}

/* AVX's instructions clear what AVX-512 has behind their registers, whether that is live or not. */
static void avx_clears_the_rest(void) {
  static const struct {
    const char *code;
    unsigned to;
  } rows[] = {
      {"\xc5\xf1\xfe\xc2\x90\x90", 0}, /* vpaddd xmm0, xmm1, xmm2 */
      {VPADDD_128, 0},
      {"\xc4\xe2\x65\x90\x14\x8f", 2}, /* vpgatherdd ymm2, [rdi + ymm1 * 4], ymm3 */
      {"\xc4\xe2\x65\x8c\x16\x90", 2}, /* vpmaskmovd ymm2, ymm3, [rsi] */
  };
  soft_system system = begin(SYSTEM_64);
  for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
    test_note("row %u", i);
    image before = state_of(0);
    for (unsigned k = 0; k < 8; k++) {
      set_element(&before, 3, k, 0); /* the mask */
    }
    set_state(&system, &before);
    struct kvm_regs regs = {.rdi = SYSTEM_DATA, .rsi = GUEST_SIZE - 4};
    SYSTEM_CHECK(system_run_in(&system, 3, regs, rows[i].code, 6), SYSTEM_END, 0);
    image after = get_state(&system);
    for (unsigned k = 8; k < 16; k++) {
      CHECK_EQ(element(&after, rows[i].to, k), 0);
      CHECK_EQ(element(&after, 5, k), 0x66666666);
    }
    CHECK_EQ(element(&after, 21, 15), 0x77777777);
  }
  system_close(&system);
}

int main(void) {
  if (!evex_begin()) {
    printf("0 passed, 0 failed, 1 skipped\n");
    return EXIT_SUCCESS;
  }
  RUN(conditions_of_the_instructions);
  RUN(old_modes_have_none);
  RUN(xcr0_s_rules);
  RUN(a_table_may_hide_it);
  RUN(what_is_saved_comes_back);
  RUN(code_of_32_bits_reaches_eight_registers);
  RUN(avx_clears_the_rest);
  return test_end();
}
