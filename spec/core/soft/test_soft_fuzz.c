/* SPDX-License-Identifier: MIT
 * Random instructions of ring 3 on the software CPU and on the host's processor: registers, defined
 * flags, vector state and memory come out the same, and both fault or none does. LUNA_FUZZ_SECONDS
 * is how long each kind goes on, LUNA_SEED where it begins. */
#include "fixture/soft_guest.h"
#include "fixture/soft_native.h"

#include <Zydis/Zydis.h>

enum {
  FLAG_CF = 1,
  FLAG_ZF = 1 << 6,
  FLAG_OF = 1 << 11,
  FLAGS = 0x8d5, /* the arithmetic ones */
  FLAG_AF = 1 << 4,
  MEMORY_PLACES = 64, /* where operands begin */
  BYTES_MOST = 15
};

typedef struct one {
  uint8_t bytes[32];
  ZydisDecodedInstruction all;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
} one;

static uint64_t state;
static ZydisDecoder decoder;

static uint64_t pick(uint64_t below) {
  return test_random(&state) % below;
}

/* Edges more often than chance has them. */
static uint64_t value(void) {
  static const uint64_t edges[] = {0,          1,          2,          0x7f,       0x80,
                                   0xff,       0x100,      0x7fff,     0x8000,     0xffff,
                                   0x7fffffff, 0x80000000, 0xffffffff, 0x100000000};
  uint64_t edge = edges[pick(sizeof edges / sizeof *edges)];
  return pick(4) ? test_random(&state) : pick(2) ? edge : ~edge;
}

/* ---- Making instructions ---- */

/* An address within the data, aligned now and then. */
static uint32_t data_address(void) {
  return NATIVE_DATA + (uint32_t)pick(MEMORY_PLACES) * (pick(4) ? 1 : 16) % 128;
}

/* ModRM with a register, or an absolute address within the data. */
static void put_modrm(uint8_t *at) {
  if (pick(2)) {
    at[0] = (uint8_t)(0xc0 | pick(64));
    return;
  }
  uint32_t address = data_address();
  at[0] = (uint8_t)(4 | pick(8) << 3);
  at[1] = 0x25;
  memcpy(at + 2, &address, sizeof address);
}

static size_t put_prefixes(uint8_t *at, bool vectors) {
  static const uint8_t repeats[] = {0xf2, 0xf3};
  size_t size = 0;
  if (pick(vectors ? 3 : 5) == 0) {
    at[size++] = 0x66;
  }
  if (pick(vectors ? 3 : 8) == 0) {
    at[size++] = repeats[pick(2)];
  }
  if (pick(32) == 0) {
    at[size++] = 0xf0;
  }
  if (pick(2)) {
    at[size++] = (uint8_t)(0x40 | pick(16));
  }
  return size;
}

static void make_legacy(one *made, bool vectors) {
  size_t size = put_prefixes(made->bytes, vectors);
  unsigned map = vectors ? 1 + (unsigned)pick(4) : (unsigned)pick(3);
  if (vectors && map == 4) { /* x87 */
    made->bytes[size++] = (uint8_t)(0xd8 | pick(8));
  } else {
    if (map) {
      made->bytes[size++] = 0x0f;
    }
    if (map > 1) {
      made->bytes[size++] = map == 2 ? 0x38 : 0x3a;
    }
    made->bytes[size++] = (uint8_t)pick(256);
  }
  if (map == 0 && (made->bytes[size - 1] & 0xfc) == 0xa0) { /* MOV with an address of 64 bits */
    uint64_t address = data_address();
    memcpy(made->bytes + size, &address, sizeof address);
    return;
  }
  put_modrm(made->bytes + size);
}

static void make_vex(one *made) {
  size_t size = 0;
  if (pick(3) == 0) {
    made->bytes[size++] = 0xc5;
    made->bytes[size++] = (uint8_t)pick(256);
  } else {
    made->bytes[size++] = 0xc4;
    made->bytes[size++] = (uint8_t)(pick(8) << 5 | (1 + pick(3)));
    made->bytes[size++] = (uint8_t)pick(256);
  }
  made->bytes[size++] = (uint8_t)pick(256);
  put_modrm(made->bytes + size);
}

static bool is_integer(ZydisInstructionCategory category) {
  switch (category) {
    case ZYDIS_CATEGORY_BINARY:
    case ZYDIS_CATEGORY_LOGICAL:
    case ZYDIS_CATEGORY_SHIFT:
    case ZYDIS_CATEGORY_ROTATE:
    case ZYDIS_CATEGORY_BITBYTE:
    case ZYDIS_CATEGORY_DATAXFER:
    case ZYDIS_CATEGORY_CMOV:
    case ZYDIS_CATEGORY_SETCC:
    case ZYDIS_CATEGORY_FLAGOP:
    case ZYDIS_CATEGORY_CONVERT:
    case ZYDIS_CATEGORY_SEMAPHORE:
    case ZYDIS_CATEGORY_BMI1:
    case ZYDIS_CATEGORY_BMI2:
    case ZYDIS_CATEGORY_LZCNT:
    case ZYDIS_CATEGORY_ADOX_ADCX:
      return true;
    default:
      return false;
  }
}

static bool is_vector(const one *made) {
  switch (made->all.meta.isa_ext) {
    case ZYDIS_ISA_EXT_X87:
    case ZYDIS_ISA_EXT_MMX:
    case ZYDIS_ISA_EXT_SSE:
    case ZYDIS_ISA_EXT_SSE2:
    case ZYDIS_ISA_EXT_SSE3:
    case ZYDIS_ISA_EXT_SSSE3:
    case ZYDIS_ISA_EXT_SSE4:
    case ZYDIS_ISA_EXT_AVX:
    case ZYDIS_ISA_EXT_AVX2:
    case ZYDIS_ISA_EXT_FMA:
    case ZYDIS_ISA_EXT_F16C:
    case ZYDIS_ISA_EXT_AES:
    case ZYDIS_ISA_EXT_PCLMULQDQ:
    case ZYDIS_ISA_EXT_SHA:
      return true;
    default:
      return false;
  }
}

/* What would leave the test's own ground, or is not the same twice. */
static bool is_excluded(const one *made) {
  switch (made->all.mnemonic) {
    case ZYDIS_MNEMONIC_XLAT:
    case ZYDIS_MNEMONIC_MASKMOVQ: /* memory at RDI */
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
    case ZYDIS_MNEMONIC_PREFETCH:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FNSTENV: /* addresses of instructions */
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_SYSRET:
    case ZYDIS_MNEMONIC_STI:
    case ZYDIS_MNEMONIC_CLI:
      return true;
    default:
      return false;
  }
}

static bool has_bad_operand(const one *made) {
  bool memory = false, far_bit = false;
  for (unsigned i = 0; i < made->all.operand_count; i++) {
    const ZydisDecodedOperand *operand = &made->operands[i];
    if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY) {
      memory = true;
      bool outside = operand->mem.base != ZYDIS_REGISTER_NONE ||
                     (uint64_t)operand->mem.disp.value - NATIVE_DATA >= NATIVE_DATA_SIZE;
      bool away = outside && made->all.mnemonic != ZYDIS_MNEMONIC_LEA;
      if (away || operand->mem.index != ZYDIS_REGISTER_NONE || operand->size > 512) {
        return true;
      }
    }
    if (operand->type != ZYDIS_OPERAND_TYPE_REGISTER) {
      continue;
    }
    ZydisRegister r = operand->reg.value;
    bool segment = r >= ZYDIS_REGISTER_ES && r <= ZYDIS_REGISTER_GS;
    bool system = r >= ZYDIS_REGISTER_CR0 && r <= ZYDIS_REGISTER_DR15;
    bool stack = r == ZYDIS_REGISTER_SPL || r == ZYDIS_REGISTER_SP || r == ZYDIS_REGISTER_ESP ||
                 r == ZYDIS_REGISTER_RSP;
    if (segment || system || stack) {
      return true;
    }
    far_bit |= made->all.meta.category == ZYDIS_CATEGORY_BITBYTE && i == 1;
  }
  return memory && far_bit; /* BT: its register reaches far */
}

static bool make(one *made, bool vectors) {
  for (unsigned i = 0; i < sizeof made->bytes; i++) {
    made->bytes[i] = (uint8_t)pick(256);
  }
  if (pick(vectors ? 2 : 6) == 0) {
    make_vex(made);
  } else {
    make_legacy(made, vectors);
  }
  if (!ZYAN_SUCCESS(
          ZydisDecoderDecodeFull(&decoder, made->bytes, BYTES_MOST, &made->all, made->operands))) {
    return false;
  }
  bool wanted = vectors ? is_vector(made) : is_integer(made->all.meta.category) && !is_vector(made);
  return wanted && !is_excluded(made) && !has_bad_operand(made) &&
         !(made->all.attributes & ZYDIS_ATTRIB_HAS_SEGMENT) &&
         made->all.meta.isa_ext != ZYDIS_ISA_EXT_SSE4A;
}

/* ---- Comparing ---- */

static bool is_shift(const one *made) {
  return made->all.meta.category == ZYDIS_CATEGORY_SHIFT ||
         made->all.meta.category == ZYDIS_CATEGORY_ROTATE;
}

/* The flags that are defined after it; a shift's depend on its count. */
static uint64_t defined_flags(const one *made) {
  const ZydisAccessedFlags *flags = made->all.cpu_flags;
  uint64_t mask = FLAGS & ~(uint64_t)(flags ? flags->undefined : 0);
  if (made->all.mnemonic == ZYDIS_MNEMONIC_BSF || made->all.mnemonic == ZYDIS_MNEMONIC_BSR) {
    return FLAG_ZF;
  }
  if (!is_shift(made) || made->all.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY) {
    return mask;
  }
  const ZydisDecodedOperand *last = &made->operands[made->all.operand_count_visible - 1];
  unsigned size = made->operands[0].size;
  uint64_t count = last->type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? last->imm.value.u : native->in.r[1];
  count &= size == 64 ? 63 : 31;
  if (count == 0) {
    return FLAGS;
  }
  mask &= ~(uint64_t)(count == 1 ? FLAG_AF : FLAG_AF | FLAG_OF);
  return count >= size ? mask & ~(uint64_t)FLAG_CF : mask;
}

/* Results that the manual leaves open. */
static bool is_undefined(const one *made) {
  unsigned size = made->operands[0].size;
  switch (made->all.mnemonic) {
    case ZYDIS_MNEMONIC_BSWAP:
      return size == 16;
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD: {
      const ZydisDecodedOperand *last = &made->operands[2];
      uint64_t count =
          last->type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? last->imm.value.u : native->in.r[1];
      return size == 16 && (count & 31) > 16;
    }
    default:
      return false;
  }
}

/* Addresses of the last x87 instruction are the stub's; what is not in use is as at first. */
static void normalize(uint8_t *xsave) {
  uint64_t components;
  memcpy(&components, xsave + 512, sizeof components);
  if (!(components & 1)) {
    memset(xsave, 0, 24);
    memset(xsave + 32, 0, 128);
    xsave[0] = 0x7f;
    xsave[1] = 3;
  }
  memset(xsave + 5, 0, 19);
  memset(xsave + 28, 0, 4);
  for (unsigned i = 0; i < 8; i++) { /* 80 of 128 bits */
    memset(xsave + 32 + i * 16 + 10, 0, 6);
  }
  if (!(components & 2)) {
    memset(xsave + 160, 0, 256);
  }
  if (!(components & 4)) {
    memset(xsave + 576, 0, 256);
  }
  memset(xsave + 416, 0, 160);
}

static const char *text_of(const one *made) {
  static char text[128];
  ZydisFormatter formatter;
  ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
  ZydisFormatterFormatInstruction(&formatter, &made->all, made->operands,
                                  made->all.operand_count_visible, text, sizeof text, 0, NULL);
  return text;
}

/* ---- The test ---- */

static void fill_state(bool vectors) {
  for (int i = 0; i < 16; i++) {
    native->in.r[i] = i == 4 ? 0 : value();
  }
  if (pick(2)) { /* divisions whose quotient fits */
    native->in.r[2] = pick(2) ? 0 : (uint64_t)((int64_t)native->in.r[0] >> 63);
  }
  native->in.flags = (test_random(&state) & FLAGS) | 0x202;
  for (int i = 0; i < NATIVE_DATA_SIZE; i += 8) {
    uint64_t word = value();
    memcpy((uint8_t *)(uintptr_t)NATIVE_DATA + i, &word, sizeof word);
  }
  if (!vectors) {
    return;
  }
  uint8_t *xsave = native->in.xsave;
  memset(xsave, 0, NATIVE_XSAVE);
  for (int i = 32; i < 832; i += 8) {
    uint64_t word = value();
    if (i < 416 || i >= 576) {
      memcpy(xsave + i, &word, sizeof word);
    }
  }
  for (unsigned i = 0; i < 8; i++) {
    memset(xsave + 32 + i * 16 + 10, 0, 6);
  }
  uint16_t control = (uint16_t)(0x37f & ~0xf00) | (uint16_t)(pick(4) << 10 | (2 + pick(2)) << 8);
  uint32_t mxcsr =
      0x1f80 | (uint32_t)pick(4) << 13 | (uint32_t)pick(2) << 15 | (uint32_t)pick(2) << 6;
  if (pick(8) == 0) {
    mxcsr &= ~((uint32_t)pick(64) << 7); /* exceptions that are raised */
  }
  memcpy(xsave, &control, sizeof control);
  xsave[3] = (uint8_t)(pick(8) << 3); /* TOP */
  xsave[4] = (uint8_t)pick(256);      /* which registers are in use */
  memcpy(xsave + 24, &mxcsr, sizeof mxcsr);
  xsave[512] = 7;
}

static void compare(const one *made, const soft_guest *guest, const struct kvm_regs *regs,
                    bool vectors) {
  uint64_t r[16];
  native_take(regs, r);
  for (int i = 0; i < 16; i++) {
    if (i != 4 && r[i] != native->out.r[i]) {
      test_fail(__FILE__, __LINE__,
                "%s: register %d is 0x%" PRIx64 ", not 0x%" PRIx64 " (before 0x%" PRIx64 ")",
                text_of(made), i, r[i], native->out.r[i], native->in.r[i]);
    }
  }
  uint64_t wrong = (regs->rflags ^ native->out.flags) & defined_flags(made);
  if (wrong) {
    test_fail(__FILE__, __LINE__,
              "%s: flags are 0x%" PRIx64 ", not 0x%" PRIx64 " (before 0x%" PRIx64 "; rax 0x%" PRIx64
              " rcx 0x%" PRIx64 ")",
              text_of(made), (uint64_t)regs->rflags, native->out.flags, native->in.flags,
              native->in.r[0], native->in.r[1]);
  }
  const uint8_t *data = (const uint8_t *)(uintptr_t)NATIVE_DATA;
  const uint8_t *own = guest->ram + (2 << 20) + (NATIVE_DATA & 0x1fffff);
  for (int i = 0; i < NATIVE_DATA_SIZE; i++) {
    if (own[i] != data[i]) {
      test_fail(__FILE__, __LINE__, "%s: byte %d of memory is 0x%x, not 0x%x", text_of(made), i,
                own[i], data[i]);
    }
  }
  if (vectors) {
    uint8_t xsave[NATIVE_XSAVE];
    CHECK_EQ(guest_call(guest->cpu, KVM_GET_XSAVE, xsave), 0);
    normalize(xsave);
    normalize(native->out.xsave);
    for (int i = 0; i < 832; i++) {
      if (xsave[i] != native->out.xsave[i]) {
        test_fail(__FILE__, __LINE__, "%s: byte %d of the extended state is 0x%x, not 0x%x",
                  text_of(made), i, xsave[i], native->out.xsave[i]);
      }
    }
  }
}

/* One instruction on both; whether it faulted. */
static bool try(one *made, const soft_guest *guest, bool vectors) {
  static uint8_t before[NATIVE_DATA_SIZE];
  uint8_t *data = (uint8_t *)(uintptr_t)NATIVE_DATA;
  fill_state(vectors);
  memcpy(before, data, sizeof before);
  size_t size = made->all.length;
  int raised = native_run(made->bytes, size, vectors);
  made->bytes[size] = 0x0f; /* ud2 */
  made->bytes[size + 1] = 0x0b;
  memcpy(guest->ram + (2 << 20) + (NATIVE_DATA & 0x1fffff), before, sizeof before);
  if (vectors) {
    CHECK_EQ(guest_call(guest->cpu, KVM_SET_XSAVE, native->in.xsave), 0);
  }
  struct kvm_regs regs;
  native_give(&regs);
  CHECK_EQ(guest_run(guest, made->bytes, size + 2, &regs), KVM_EXIT_SHUTDOWN);
  bool faulted = regs.rip != GUEST_CODE + size;
  if (faulted != (raised != 0)) {
    test_fail(__FILE__, __LINE__, "%s: it %s, and natively raised signal %d", text_of(made),
              faulted ? "faulted" : "did not fault", raised);
  }
  if (!faulted && !is_undefined(made)) {
    compare(made, guest, &regs, vectors);
  }
  return faulted;
}

static double seconds(void) {
  const char *text = getenv("LUNA_FUZZ_SECONDS");
  return text && *text ? strtod(text, NULL) : 2;
}

static void run(bool vectors) {
  static uint16_t tried[ZYDIS_MNEMONIC_MAX_VALUE + 1];
  uint64_t until = luna_clock() + (uint64_t)(seconds() * 1e9), count = 0, faults = 0;
  unsigned kinds = 0;
  uint64_t seed = test_seed();
  state = seed;
  memset(tried, 0, sizeof tried);
  soft_guest guest = guest_open(3);
  guest_map(&guest, NATIVE_BASE, 2 << 20);
  one made;
  while (luna_clock() < until) {
    test_note("seed 0x%" PRIx64 ", instruction %" PRIu64, seed, count);
    if (make(&made, vectors)) {
      count++;
      kinds += tried[made.all.mnemonic]++ == 0;
      faults += try(&made, &guest, vectors);
    }
  }
  guest_close(&guest);
  printf("# %s: %" PRIu64 " instructions, %u kinds, %" PRIu64 " faults\n",
         vectors ? "vectors" : "integers", count, kinds, faults);
#ifndef __SANITIZE_THREAD__ /* a hundred times slower */
  CHECK(count > 1000 && kinds > (vectors ? 300u : 80u));
#endif
}

static void integers_come_out_as_on_the_host(void) {
  run(false);
}

static void vectors_come_out_as_on_the_host(void) {
#ifdef __SANITIZE_THREAD__
  test_skip(
      "the thread sanitizer's own handler comes before the oracle's, and dies of the state that "
      "an instruction leaves");
#endif
  run(true);
}

int main(void) {
  if (!native_begin()) {
    printf("0 passed, 0 failed, 1 skipped\n");
    return EXIT_SUCCESS;
  }
  ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  RUN(integers_come_out_as_on_the_host);
  RUN(vectors_come_out_as_on_the_host);
  return test_end();
}
