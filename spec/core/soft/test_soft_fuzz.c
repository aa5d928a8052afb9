/* SPDX-License-Identifier: MIT
 * Random instructions of ring 3 on the software CPU and on the host's processor: registers, defined
 * flags, vector state and memory come out the same, and both fault or none does. LUNA_FUZZ_SECONDS
 * is how long each kind goes on, LUNA_SEED where it begins. */
#include "fixture/soft_guest.h"
#include "fixture/soft_native.h"
#include "fixture/soft_random.h"

enum {
  MEMORY_PLACES = 64 /* where operands begin */
};

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

/* The operand of a MOV with an address of 64 bits. */
static bool put_offset(one *made, size_t size) {
  const uint8_t *opcode = made->bytes + size - 1;
  bool first = !memchr(made->bytes, 0x0f, size - 1); /* of the maps of opcodes */
  if (!first || (*opcode & 0xfc) != 0xa0) {
    return false;
  }
  uint64_t address = data_address();
  memcpy(made->bytes + size, &address, sizeof address);
  return true;
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
  if (made->all.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX) { /* what 62h begins */
    return true;
  }
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
    case ZYDIS_MNEMONIC_XTEST: /* the software CPU has no transactions */
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
  bool vex = pick(vectors ? 2 : 6) == 0;
  size_t size = vex ? make_vex(made) : make_legacy(made, vectors);
  if (vex || !put_offset(made, size)) {
    put_modrm(made->bytes + size);
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

/* ---- The test ---- */

static void fill_state(bool vectors) {
  for (int i = 0; i < 16; i++) {
    native->in.r[i] = i == 4 ? 0 : native_narrow ? (uint32_t)value() : value();
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
  fill_extended(native->in.xsave);
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
  uint64_t wrong = (regs->rflags ^ native->out.flags) & defined_flags(made, native->in.r[1]);
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
  if (!faulted && !is_undefined(made, native->in.r[1])) {
    compare(made, guest, &regs, vectors);
  }
  return faulted;
}

static void run(bool vectors) {
  static uint16_t tried[ZYDIS_MNEMONIC_MAX_VALUE + 1];
  uint64_t until = luna_clock() + (uint64_t)(oracle_seconds(native_narrow ? 3 : 13) * 1e9),
           count = 0, faults = 0;
  unsigned kinds = 0;
  uint64_t seed = test_seed();
  state = seed;
  memset(tried, 0, sizeof tried);
  soft_guest guest = guest_open(3);
  guest_map(&guest, NATIVE_BASE, 2 << 20);
  if (native_narrow) {
    guest_narrow(&guest);
  }
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
         !vectors        ? "integers"
         : native_narrow ? "vectors of 32-bit code"
                         : "vectors",
         count, kinds, faults);
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

/* In which registers 8 to 15 are not there, nor operands of 64 bits. */
static void vectors_of_32_bit_code_too(void) {
#ifdef __SANITIZE_THREAD__
  test_skip("as above");
#endif
  native_narrow_begin();
  ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32);
  ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
  ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
  run(true);
}

int main(void) {
  if (!native_begin()) {
    printf("0 passed, 0 failed, 1 skipped\n");
    return EXIT_SUCCESS;
  }
  make_decoder();
  RUN(integers_come_out_as_on_the_host);
  RUN(vectors_come_out_as_on_the_host);
  RUN(vectors_of_32_bit_code_too);
  return test_end();
}
