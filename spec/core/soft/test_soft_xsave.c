/* SPDX-License-Identifier: MIT
 * FXSAVE, XSAVE, XSAVEC, XSAVES and their counterparts on the software CPU: what they write and
 * take, the headers, what is refused (SDM volume 1, chapter 13). */
#include "fixture/soft_system.h"

enum {
  AREA = SYSTEM_DATA,
  CR4_PKE = 1 << 22,
  CR4_OSXSAVE = 1 << 18,
  AT_MXCSR = 24,
  AT_XMM = 160,
  AT_BV = 512,
  AT_COMP = 520,
  AT_AVX = 576,
  X87 = 1,
  SSE = 2,
  AVX = 4,
  PKRU = 0x200,
  ALL = X87 | SSE | AVX | PKRU,
  FOREIGN = 0xaa /* what the area has before */
};
#define COMPACT (UINT64_C(1) << 63)

#define XSAVE "\x48\x0f\xae\x27"
#define XSAVEOPT "\x48\x0f\xae\x37"
#define XRSTOR "\x48\x0f\xae\x2f"
#define XSAVEC "\x48\x0f\xc7\x27"
#define XSAVES "\x48\x0f\xc7\x2f"
#define XRSTORS "\x48\x0f\xc7\x1f"
#define FXSAVE "\x48\x0f\xae\x07"
#define FXRSTOR "\x48\x0f\xae\x0f"

typedef struct image {
  uint8_t bytes[4096];
} image;

static unsigned pkru_at; /* in the standard area */

static soft_system begin(void) {
  soft_system system = system_open(SYSTEM_64);
  struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs[0].value = ALL};
  struct kvm_cpuid2 *table = calloc(1, sizeof *table + 64 * sizeof *table->entries);
  table->nent = 64;
  CHECK_EQ(guest_call(system.guest.kvm, KVM_GET_SUPPORTED_CPUID, table), 0);
  CHECK_EQ(guest_call(system.guest.cpu, KVM_SET_CPUID2, table), 0);
  CHECK_EQ(guest_call(system.guest.cpu, KVM_SET_XCRS, &xcrs), 0);
  for (uint32_t i = 0; i < table->nent; i++) {
    const struct kvm_cpuid_entry2 *entry = &table->entries[i];
    pkru_at = entry->function == 0xd && entry->index == 9 ? entry->ebx : pkru_at;
  }
  free(table);
  system.sregs.cr4 |= CR4_PKE;
  return system;
}

/* A state with these components in use. */
static image state_with(unsigned components) {
  image made = {{0x7f, 3}};
  uint32_t control = 0x1fa0, number = 0x55555550;
  uint64_t header = components;
  memcpy(made.bytes + AT_MXCSR, &(uint32_t){0x1f80}, 4);
  memcpy(made.bytes + 28, &(uint32_t){0xffff}, 4);
  memcpy(made.bytes + AT_BV, &header, sizeof header);
  if (components & X87) {
    made.bytes[0] = 0x7e; /* the control word */
    made.bytes[4] = 0x80; /* a register in use, ST(7) where TOP is 0 */
    memset(made.bytes + 32 + 7 * 16, 0x11, 10);
  }
  if (components & SSE) {
    memcpy(made.bytes + AT_MXCSR, &control, sizeof control);
    memset(made.bytes + AT_XMM, 0x22, 256);
  }
  if (components & AVX) {
    memset(made.bytes + AT_AVX, 0x33, 256);
  }
  if (components & PKRU) {
    memcpy(made.bytes + pkru_at, &number, sizeof number);
  }
  return made;
}

static void set_state(const soft_system *system, const image *from) {
  CHECK_EQ(guest_call(system->guest.cpu, KVM_SET_XSAVE, (void *)(uintptr_t)from), 0);
}

static image get_state(const soft_system *system) {
  image got;
  CHECK_EQ(guest_call(system->guest.cpu, KVM_GET_XSAVE, &got), 0);
  return got;
}

static uint64_t at(const image *of, unsigned offset, size_t size) {
  uint64_t value = 0;
  memcpy(&value, of->bytes + offset, size);
  return value;
}

/* Two states hold the same: components that are not in use are as at first. */
static void same_state(const image *got, const image *want) {
  uint64_t used = at(got, AT_BV, 8);
  bool x87 = used & X87, sse = used & SSE, avx = used & AVX, pkru = used & PKRU;
  CHECK_EQ(x87 ? at(got, 0, 2) : 0x37f, at(want, 0, 2));
  CHECK_EQ(x87 ? got->bytes[4] : 0, want->bytes[4]);
  CHECK_EQ(x87 ? at(got, 32 + 7 * 16, 8) : 0, at(want, 32 + 7 * 16, 8));
  CHECK_EQ(at(got, AT_MXCSR, 4), at(want, AT_MXCSR, 4));
  for (unsigned i = 0; i < 256; i += 8) {
    CHECK_EQ(sse ? at(got, AT_XMM + i, 8) : 0, at(want, AT_XMM + i, 8));
    CHECK_EQ(avx ? at(got, AT_AVX + i, 8) : 0, at(want, AT_AVX + i, 8));
  }
  CHECK_EQ(pkru ? at(got, pkru_at, 4) : 0, at(want, pkru_at, 4));
}

static system_end run(const soft_system *system, const char *code, uint64_t mask) {
  struct kvm_regs regs = {.rax = mask, .rdx = mask >> 32, .rdi = AREA};
  return system_run_in(system, 0, regs, code, 4);
}

static image memory_of(const soft_system *system) {
  image got;
  memcpy(got.bytes, system->guest.ram + AREA, sizeof got.bytes);
  return got;
}

static void wipe(const soft_system *system) {
  memset(system->guest.ram + AREA, FOREIGN, 4096);
  memset(system->guest.ram + AREA + AT_BV, 0, 64);
}

static const char *const savers[] = {XSAVE, XSAVEOPT, XSAVEC, XSAVES};

/* Every set of components, asked for in every way, comes back; what is asked for but not in use has
 * its initial state afterwards, and what is not asked for is left alone. */
static void what_is_saved_comes_back(void) {
  soft_system system = begin();
  for (unsigned how = 0; how < 4; how++) {
    for (unsigned bits = 0; bits < 256; bits++) {
      unsigned used = (bits & 7) | (bits & 8) << 6, asked = (bits >> 4 & 7) | (bits >> 4 & 8) << 6;
      test_note("way %u, in use 0x%x, asked for 0x%x", how, used, asked);
      image before = state_with(used), others = state_with(ALL);
      wipe(&system);
      set_state(&system, &before);
      SYSTEM_CHECK(run(&system, savers[how], asked | 0x1800), SYSTEM_END, 0);
      image memory = memory_of(&system);
      CHECK_EQ(at(&memory, AT_BV, 8) & ~(uint64_t)(used & asked), 0);
      CHECK_EQ(at(&memory, AT_COMP, 8), how > 1 ? COMPACT | asked : 0);
      set_state(&system, &others);
      SYSTEM_CHECK(run(&system, how == 3 ? XRSTORS : XRSTOR, asked), SYSTEM_END, 0);
      image after = get_state(&system), want = state_with((used & asked) | (ALL & ~asked));
      if (how < 2 && asked & AVX && !(asked & SSE)) { /* MXCSR goes with both */
        memcpy(want.bytes + AT_MXCSR, before.bytes + AT_MXCSR, 4);
      }
      same_state(&after, &want);
    }
  }
  system_close(&system);
}

/* The standard form leaves alone what is not asked for, XSTATE_BV's bits too. */
static void xsave_writes_what_is_asked_for(void) {
  soft_system system = begin();
  image before = state_with(ALL);
  set_state(&system, &before);
  wipe(&system);
  system_put(&system, AREA + AT_BV, X87 | AVX, 8);
  SYSTEM_CHECK(run(&system, XSAVE, SSE), SYSTEM_END, 0);
  image memory = memory_of(&system);
  CHECK_EQ(at(&memory, 0, 2), 0xaaaa);
  CHECK_EQ(at(&memory, AT_AVX, 8), UINT64_C(0xaaaaaaaaaaaaaaaa));
  CHECK_EQ(at(&memory, pkru_at, 4), 0xaaaaaaaa);
  CHECK_EQ(at(&memory, AT_XMM + 240, 8), UINT64_C(0x2222222222222222));
  CHECK_EQ(at(&memory, AT_MXCSR, 8), UINT64_C(0xffff00001fa0));
  CHECK_EQ(at(&memory, AT_BV, 8), ALL & ~PKRU);
  system_close(&system);
}

/* What is not in use is not written, nor has it a bit; PKRU follows what is asked for. */
static void xsavec_packs_and_leaves_out_what_is_initial(void) {
  static const struct {
    unsigned asked, used, bv, pkru;
  } rows[] = {
      {ALL, ALL, ALL, 832},
      {X87 | PKRU, ALL, X87 | PKRU, 576},
      {SSE | AVX | PKRU, PKRU, PKRU, 832},
      {AVX | PKRU, PKRU, PKRU, 832},
      {SSE | PKRU, SSE, SSE, 0},
  };
  soft_system system = begin();
  for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
    test_note("row %u", i);
    image before = state_with(rows[i].used);
    set_state(&system, &before);
    wipe(&system);
    SYSTEM_CHECK(run(&system, XSAVEC, rows[i].asked), SYSTEM_END, 0);
    image memory = memory_of(&system);
    CHECK_EQ(at(&memory, AT_BV, 8), rows[i].bv);
    CHECK_EQ(at(&memory, AT_COMP, 8), COMPACT | rows[i].asked);
    CHECK_EQ(at(&memory, AT_XMM, 8) == UINT64_C(0xaaaaaaaaaaaaaaaa), !(rows[i].bv & SSE));
    if (rows[i].pkru) {
      CHECK_EQ(at(&memory, rows[i].pkru, 8), 0x55555550);
    } else {
      CHECK_EQ(at(&memory, 576, 8), UINT64_C(0xaaaaaaaaaaaaaaaa));
    }
  }
  system_close(&system);
}

/* MXCSR that is not at first is a reason to write SSE's component. */
static void mxcsr_alone_is_sse(void) {
  soft_system system = begin();
  image before = state_with(0);
  memcpy(before.bytes + AT_MXCSR, &(uint32_t){0x1fc0}, 4);
  set_state(&system, &before);
  wipe(&system);
  SYSTEM_CHECK(run(&system, XSAVEC, ALL), SYSTEM_END, 0);
  image memory = memory_of(&system);
  CHECK_EQ(at(&memory, AT_BV, 8), SSE);
  CHECK_EQ(at(&memory, AT_MXCSR, 4), 0x1fc0);
  system_close(&system);
}

/* ---- What is refused ---- */

static void headers_are_checked(void) {
  static const struct {
    const char *code;
    unsigned where; /* in the area */
    uint64_t value;
    uint64_t comp; /* XCOMP_BV */
    bool right;
  } rows[] = {
      {XRSTOR, AT_BV, ALL, 0, true},
      {XRSTOR, AT_BV, 8, 0, false}, /* not in XCR0 */
      {XRSTOR, AT_BV, COMPACT, 0, false},
      {XRSTOR, AT_BV, X87, ALL, false}, /* XCOMP_BV without its bit 63 */
      {XRSTOR, AT_BV + 16, 1, 0, false},
      {XRSTOR, AT_BV + 24, 1, 0, true}, /* which the standard form does not look at */
      {XRSTOR, AT_BV + 16, 1, COMPACT | ALL, false},
      {XRSTOR, AT_BV + 56, UINT64_C(1) << 63, COMPACT | ALL, false},
      {XRSTOR, AT_BV, X87 | SSE, COMPACT | X87, false}, /* a component without a place */
      {XRSTOR, AT_BV, X87, COMPACT | X87 | 8, false},
      {XRSTOR, AT_BV, X87, COMPACT | X87, true},
      {XRSTORS, AT_BV, X87, COMPACT | X87, true},
      {XRSTORS, AT_BV, X87, 0, false},                 /* the compacted form alone */
      {XRSTORS, AT_BV, 0x100, COMPACT | 0x100, false}, /* IA32_XSS is 0 */
      {XRSTOR, AT_MXCSR, 0x10000, 0, false},
      {XRSTOR, AT_MXCSR, 0xffbf, 0, true},
  };
  soft_system system = begin();
  image before = state_with(X87 | SSE);
  for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
    test_note("row %u", i);
    set_state(&system, &before);
    memset(system.guest.ram + AREA, 0, 4096);
    system_put(&system, AREA + AT_COMP, rows[i].comp, 8);
    system_put(&system, AREA + rows[i].where, rows[i].value, 8);
    SYSTEM_CHECK(run(&system, rows[i].code, ALL), rows[i].right ? SYSTEM_END : 13, 0);
    if (!rows[i].right) {
      image after = get_state(&system);
      same_state(&after, &before);
    }
  }
  system_close(&system);
}

static void conditions_of_the_instructions(void) {
  static const struct {
    const char *code;
    unsigned ring, off;   /* of the area */
    uint64_t cr0, no_cr4; /* set, clear */
    int vector;
  } rows[] = {
      {XSAVE, 3, 0, 0, 0, SYSTEM_END},   {XSAVE, 0, 32, 0, 0, 13},
      {XSAVEC, 3, 8, 0, 0, 13},          {XSAVEC, 3, 0, 0, 0, SYSTEM_END},
      {XSAVES, 3, 0, 0, 0, 13},          {XSAVES, 0, 16, 0, 0, 13},
      {XRSTOR, 0, 32, 0, 0, 13},         {XRSTORS, 3, 0, 0, 0, 13},
      {XRSTORS, 0, 32, 0, 0, 13},        {FXSAVE, 3, 16, 0, 0, SYSTEM_END},
      {FXSAVE, 3, 8, 0, 0, 13},          {FXRSTOR, 0, 4, 0, 0, 13},
      {XSAVE, 0, 32, 8, 0, 7},           {XSAVE, 0, 0, 8, CR4_OSXSAVE, 6},
      {XSAVEC, 0, 0, 0, CR4_OSXSAVE, 6}, {XSAVES, 0, 0, 0, CR4_OSXSAVE, 6},
      {XRSTOR, 0, 0, 0, CR4_OSXSAVE, 6}, {XRSTORS, 0, 0, 0, CR4_OSXSAVE, 6},
      {XSAVE, 0, 0, 4, 0, SYSTEM_END},   {FXSAVE, 0, 0, 4, 0, 7},
      {FXRSTOR, 0, 0, 8, 0, 7},          {FXSAVE, 0, 0, 0, CR4_OSXSAVE, SYSTEM_END},
      {XSAVES, 3, 0, 0, CR4_OSXSAVE, 6}, {XRSTORS, 3, 0, 8, CR4_OSXSAVE, 6},
  };
  soft_system system = begin();
  for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
    test_note("row %u", i);
    struct kvm_sregs sregs = system.sregs;
    system_enter_ring(&system, &sregs, rows[i].ring);
    sregs.cr0 |= rows[i].cr0;
    sregs.cr4 &= ~rows[i].no_cr4;
    wipe(&system);
    struct kvm_regs regs = {.rax = ALL, .rdi = AREA + rows[i].off};
    system_put(&system, AREA + AT_COMP, rows[i].code[3] == '\x1f' ? COMPACT : 0, 8);
    SYSTEM_CHECK(system_run(&system, &sregs, regs, rows[i].code, 4), rows[i].vector, 0);
  }
  system_close(&system);
}

/* wrmsr of IA32_XSS: 0 is all that it may be, for there is no supervisor's component. */
static void xss_has_no_component(void) {
  soft_system system = begin();
  struct kvm_regs regs = {.rcx = 0xda0};
  SYSTEM_CHECK(SYSTEM_RUN(&system, 0, regs, "\x0f\x30"), SYSTEM_END, 0);
  regs.rax = 0x100;
  SYSTEM_CHECK(SYSTEM_RUN(&system, 0, regs, "\x0f\x30"), 13, 0);
  regs.rdx = 5;
  system_end end = SYSTEM_RUN(&system, 0, regs, "\x0f\x32");
  SYSTEM_CHECK(end, SYSTEM_END, 0);
  CHECK_EQ(end.regs.rax | end.regs.rdx, 0);
  system_close(&system);
}

static void xsetbv_and_xgetbv(void) {
  static const struct {
    const char *code;
    unsigned ring;
    uint64_t rcx, rax;
    int vector;
    uint64_t value; /* then of EAX */
  } rows[] = {
      {"\x0f\x01\xd1", 0, 0, 7, SYSTEM_END, 7},   {"\x0f\x01\xd1", 0, 0, ALL, SYSTEM_END, ALL},
      {"\x0f\x01\xd1", 0, 0, 6, 13, 6},           {"\x0f\x01\xd1", 0, 0, 5, 13, 5},
      {"\x0f\x01\xd1", 0, 0, 0x107, 13, 0x107},   {"\x0f\x01\xd1", 0, 1, 7, 13, 7},
      {"\x0f\x01\xd1", 3, 0, 7, 13, 7},           {"\x0f\x01\xd0", 3, 0, 9, SYSTEM_END, ALL},
      {"\x0f\x01\xd0", 3, 1, 9, SYSTEM_END, SSE}, {"\x0f\x01\xd0", 3, 2, 9, 13, 9},
  };
  soft_system system = begin();
  struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs[0].value = ALL};
  image state = state_with(SSE);
  for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
    test_note("row %u", i);
    CHECK_EQ(guest_call(system.guest.cpu, KVM_SET_XCRS, &xcrs), 0);
    set_state(&system, &state);
    struct kvm_regs regs = {.rax = rows[i].rax, .rcx = rows[i].rcx};
    system_end end = system_run_in(&system, rows[i].ring, regs, rows[i].code, 3);
    SYSTEM_CHECK(end, rows[i].vector, 0);
    CHECK_EQ(end.regs.rax, rows[i].value);
  }
  system_close(&system);
}

/* From one vCPU to another, and to its initial state where the component is not there. */
static void the_vcpu_s_state_carries_pkru(void) {
  static const char reads[] = "\x0f\x01\xee", writes[] = "\x0f\x01\xef";
  soft_system system = begin(), other = begin();
  SYSTEM_RUN(&system, 0, ((struct kvm_regs){.rax = 0x5550}), writes);
  image state = get_state(&system);
  CHECK_EQ(at(&state, pkru_at, 4), 0x5550);
  CHECK_EQ(at(&state, AT_BV, 8) & PKRU, PKRU);
  set_state(&other, &state);
  CHECK_EQ(SYSTEM_RUN(&other, 3, ((struct kvm_regs){.rdx = 0}), reads).regs.rax, 0x5550);
  state.bytes[AT_BV + 1] = 0;
  set_state(&other, &state);
  CHECK_EQ(SYSTEM_RUN(&other, 3, ((struct kvm_regs){.rdx = 0}), reads).regs.rax, 0);
  system_close(&other);
  system_close(&system);
}

/* x87's part of the image is loaded by the host's processor, whose XCR0 need not have PKRU. */
static void pkru_does_not_keep_x87_out(void) {
  soft_system system = begin();
  image state = state_with(PKRU);
  set_state(&system, &state);
  struct kvm_regs regs = {.rdi = AREA};
  SYSTEM_CHECK(SYSTEM_RUN(&system, 3, regs, "\xd9\xe8\xd9\x1f"), SYSTEM_END, 0); /* fld1; fstp */
  CHECK_EQ(system_get(&system, AREA, 4), 0x3f800000);
  image after = get_state(&system);
  CHECK_EQ(at(&after, pkru_at, 4), 0x55555550);
  system_close(&system);
}

static void fxsave_is_by_mode(void) {
  static const uint8_t code[][3] = {{0x0f, 0xae, 0x07}, {0x0f, 0xae, 0x0f}}; /* [edi], [rdi] */
  for (system_mode mode = SYSTEM_32; mode <= SYSTEM_64; mode++) {
    test_note("mode %d", (int)mode);
    soft_system system = system_open(mode);
    struct kvm_regs regs = {.rdi = AREA};
    image before = state_with(X87 | SSE | AVX), other = state_with(AVX);
    set_state(&system, &before);
    wipe(&system);
    memset(system.guest.ram + AREA, FOREIGN, 512);
    SYSTEM_CHECK(system_run_in(&system, 3, regs, code[0], 3), SYSTEM_END, 0);
    image memory = memory_of(&system);
    unsigned end = mode == SYSTEM_64 ? 416 : 288; /* all XMM registers, or eight */
    CHECK_EQ(at(&memory, 0, 2), 0x37e);
    CHECK_EQ(memory.bytes[4], 0x80);
    CHECK_EQ(at(&memory, AT_MXCSR, 8), UINT64_C(0xffff00001fa0));
    CHECK_EQ(at(&memory, end - 8, 8), UINT64_C(0x2222222222222222));
    CHECK_EQ(at(&memory, end, 8), UINT64_C(0xaaaaaaaaaaaaaaaa));
    CHECK_EQ(at(&memory, AT_AVX, 8), UINT64_C(0xaaaaaaaaaaaaaaaa));
    set_state(&system, &other);
    SYSTEM_CHECK(system_run_in(&system, 3, regs, code[1], 3), SYSTEM_END, 0);
    image after = get_state(&system), want = before;
    memset(want.bytes + end, 0, 416 - end);
    same_state(&after, &want);
    system_close(&system);
  }
}

/* The second page is not there: nothing is loaded, and the fault says where. */
static void an_area_over_a_missing_page(void) {
  soft_system system = begin();
  image before = state_with(ALL);
  for (unsigned i = 0; i < 2; i++) {
    set_state(&system, &before);
    struct kvm_regs regs = {.rax = ALL, .rdi = GUEST_SIZE - 640};
    memset(system.guest.ram + GUEST_SIZE - 640, 0, 640);
    system_put(&system, GUEST_SIZE - 640 + AT_BV, ALL, 8);
    system_end end = system_run_in(&system, 0, regs, i ? XRSTOR : XSAVE, 4);
    SYSTEM_CHECK(end, 14, i ? 0 : 2);
    CHECK(end.sregs.cr2 >= GUEST_SIZE && end.sregs.cr2 < GUEST_SIZE + 4096);
    image after = get_state(&system);
    same_state(&after, &before);
  }
  system_close(&system);
}

int main(void) {
  RUN(what_is_saved_comes_back);
  RUN(xsave_writes_what_is_asked_for);
  RUN(xsavec_packs_and_leaves_out_what_is_initial);
  RUN(mxcsr_alone_is_sse);
  RUN(headers_are_checked);
  RUN(conditions_of_the_instructions);
  RUN(xss_has_no_component);
  RUN(xsetbv_and_xgetbv);
  RUN(the_vcpu_s_state_carries_pkru);
  RUN(pkru_does_not_keep_x87_out);
  RUN(fxsave_is_by_mode);
  RUN(an_area_over_a_missing_page);
  return test_end();
}
