/* SPDX-License-Identifier: MIT
 * Random instructions of AVX-512 on the software CPU and on the host's processor: with masks,
 * broadcasts, embedded rounding, operands over the edges of the one page that is there. Registers,
 * opmasks, flags and memory come out the same, and both fault or none does; what an instruction
 * that faults leaves is the same too. LUNA_FUZZ_SECONDS is how long it goes on, LUNA_SEED where it
 * begins. */
#include "fixture/soft_evex.h"
#include "fixture/soft_guest.h"

enum {
  REJECTED = 100000
};

/* ---- Instructions ---- */

/* EVEX mostly; VEX's instructions of opmasks, and others, which clear the upper parts. */
static size_t make_prefixed(one *made) {
  static const uint8_t opmasks[] = {0x41, 0x42, 0x44, 0x45, 0x46, 0x47, 0x4a, 0x4b, 0x90,
                                    0x91, 0x92, 0x93, 0x98, 0x99, 0x30, 0x31, 0x32, 0x33};
  if (pick(6)) {
    return make_evex(made);
  }
  size_t size = make_vex(made);
  if (pick(2)) {
    made->bytes[size - 1] = opmasks[pick(sizeof opmasks)];
  }
  return size;
}

/* Where an operand of that many bytes begins: within the page, over its ends, beside it. */
static uint64_t target(unsigned size) {
  uint64_t page = EVEX_PAGE, at;
  switch (pick(6)) {
    case 0:
      at = page - pick(72);
      break;
    case 1:
    case 2:
      at = page + 4096 - pick(72);
      break;
    default:
      at = page + pick(EVEX_EDGE - 64);
      break;
  }
  return pick(3) ? at & ~(uint64_t)(size ? size - 1 : 0) : at;
}

/* ModRM: a register, or [base + disp8], [base + disp32]. */
static void put_modrm(uint8_t *at) {
  static const uint8_t bases[] = {0, 1, 2, 3, 5, 6, 7};
  unsigned mod = (unsigned)pick(4);
  if (mod == 3 || pick(3) == 0) {
    at[0] = (uint8_t)(0xc0 | pick(64));
  } else {
    at[0] = (uint8_t)((1 + pick(2)) << 6 | pick(8) << 3 | bases[pick(sizeof bases)]);
  }
}

static const ZydisDecodedOperand *memory_of(const one *made) {
  for (unsigned i = 0; i < made->all.operand_count; i++) {
    if (made->operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY) {
      return &made->operands[i];
    }
  }
  return NULL;
}

static bool names_the_stack(const one *made) {
  for (unsigned i = 0; i < made->all.operand_count; i++) {
    const ZydisDecodedOperand *operand = &made->operands[i];
    ZydisRegister r =
        operand->type == ZYDIS_OPERAND_TYPE_REGISTER ? operand->reg.value : ZYDIS_REGISTER_NONE;
    if (r == ZYDIS_REGISTER_ESP || r == ZYDIS_REGISTER_RSP || r == ZYDIS_REGISTER_SP) {
      return true;
    }
  }
  return false;
}

static bool is_wanted(const one *made) {
  switch (made->all.meta.isa_ext) {
    case ZYDIS_ISA_EXT_AVX512EVEX:
    case ZYDIS_ISA_EXT_AVX512VEX:
    case ZYDIS_ISA_EXT_AVX:
    case ZYDIS_ISA_EXT_AVX2:
    case ZYDIS_ISA_EXT_FMA:
    case ZYDIS_ISA_EXT_F16C:
      break;
    default:
      return false;
  }
  const ZydisDecodedOperand *memory = memory_of(made);
  bool legacy_mask = made->all.mnemonic == ZYDIS_MNEMONIC_VMASKMOVDQU;
  return !names_the_stack(made) && !legacy_mask &&
         !(memory && (memory->mem.index != ZYDIS_REGISTER_NONE ||
                      memory->mem.base < ZYDIS_REGISTER_EAX || memory->size > 512));
}

static bool make(one *made) {
  for (unsigned i = 0; i < sizeof made->bytes; i++) {
    made->bytes[i] = (uint8_t)pick(256);
  }
  size_t size = make_prefixed(made);
  put_modrm(made->bytes + size);
  return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, made->bytes, BYTES_MOST, &made->all,
                                             made->operands)) &&
         is_wanted(made);
}

/* A gather or a scatter, mostly one that is none of the three wrong kinds: without a mask, with
 * {z}, with its index for a destination. */
static bool make_spread(one *made) {
  static const uint8_t bases[] = {0, 1, 2, 3, 6, 7};
  for (unsigned i = 0; i < sizeof made->bytes; i++) {
    made->bytes[i] = (uint8_t)pick(256);
  }
  uint8_t *bytes = made->bytes;
  unsigned mask = pick(30) ? 1 + (unsigned)pick(7) : 0;
  bytes[0] = 0x62;
  bytes[1] = (uint8_t)((pick(8) << 5 & 0xc0) | 0x20 | pick(2) << 4 | 2);
  bytes[2] = (uint8_t)(pick(2) << 7 | 0x7d);
  bytes[3] = (uint8_t)(pick(3) << 5 | pick(2) << 3 | mask | (pick(30) ? 0 : 0x80));
  bytes[4] = (uint8_t)((pick(2) ? 0x90 : 0xa0) | pick(4));
  bytes[5] = (uint8_t)(pick(2) << 6 | pick(8) << 3 | 4);
  bytes[6] = (uint8_t)(pick(4) << 6 | pick(8) << 3 | bases[pick(sizeof bases)]);
  return ZYAN_SUCCESS(
      ZydisDecoderDecodeFull(&decoder, bytes, BYTES_MOST, &made->all, made->operands));
}

/* ---- The test ---- */

static void aim(const one *made) {
  const ZydisDecodedOperand *memory = memory_of(made);
  if (memory) {
    int base = ZydisRegisterGetId(memory->mem.base);
    uint64_t at = target(memory->size / 8u);
    uint64_t address = at - (uint64_t)memory->mem.disp.value;
    native->in.r[base] = native_narrow ? (uint32_t)address : address;
  }
}

/* Indices to both ends of the page; now and then out of it. */
static void aim_spread(const one *made) {
  const ZydisDecodedOperand *memory = memory_of(made);
  unsigned number = (unsigned)ZydisRegisterGetId(memory->mem.index), inside = pick(4) != 0;
  uint64_t scale = memory->mem.scale, base = EVEX_PAGE + (pick(2) ? 0 : 4096);
  bool wide = made->all.opcode & 1;
  native->in.r[ZydisRegisterGetId(memory->mem.base)] = base - (uint64_t)memory->mem.disp.value;
  for (unsigned i = 0; i < 64; i += wide ? 8 : 4) {
    uint64_t away = pick(200), index = away / scale;
    if (base != EVEX_PAGE) {
      index = -((8 + away + scale - 1) / scale);
    }
    if (!inside && pick(12) == 0) {
      index = -index - 1;
    }
    memcpy(evex_vector(native->in.xsave, number, i), &index, wide ? 8 : 4);
  }
  native->in.xsave[512] = EVEX_ALL;
}

static void fill_state(const one *made) {
  for (int i = 0; i < 16; i++) {
    native->in.r[i] = i == 4 ? 0 : native_narrow ? (uint32_t)value() : value();
  }
  native->in.flags = (test_random(&state) & FLAGS) | 0x202;
  evex_fill_page();
  evex_fill(native->in.xsave);
  const ZydisDecodedOperand *memory = memory_of(made);
  if (memory && memory->mem.type == ZYDIS_MEMOP_TYPE_VSIB) {
    aim_spread(made);
  } else {
    aim(made);
  }
}

/* Of a gather that faults: whether what is behind the last element is cleared already. */
static void forget_upper(const one *made, uint8_t *xsave) {
  const ZydisDecodedOperand *to = &made->operands[0], *index = &made->operands[2];
  if (to->type == ZYDIS_OPERAND_TYPE_REGISTER && index->mem.type == ZYDIS_MEMOP_TYPE_VSIB) {
    unsigned wide = made->all.avx.vector_length / 8u, size = index->size / 8u;
    unsigned count = wide / (made->all.opcode & 1 ? 8 : size);
    for (unsigned i = count * size; i < 64; i++) {
      *evex_vector(xsave, (unsigned)ZydisRegisterGetId(to->reg.value), i) = 0;
    }
  }
}

static void compare_state(const one *made, const soft_guest *guest, bool faulted) {
  uint8_t got[NATIVE_XSAVE];
  CHECK_EQ(guest_call(guest->cpu, KVM_GET_XSAVE, got), 0);
  if (faulted) {
    forget_upper(made, got);
    forget_upper(made, native->out.xsave);
  }
  evex_normalize(got);
  evex_normalize(native->out.xsave);
  for (unsigned i = 0; i < EVEX_AREA; i++) {
    if (got[i] != native->out.xsave[i]) {
      test_fail(
          __FILE__, __LINE__,
          "%s%s: byte %u of the extended state is 0x%x, not 0x%x (before 0x%x; k %" PRIx64 ")",
          text_of(made), faulted ? " (which faulted)" : "", i, got[i], native->out.xsave[i],
          native->in.xsave[i], evex_mask(native->in.xsave, (unsigned)made->all.avx.mask.reg & 7));
    }
  }
}

static void compare(const one *made, const soft_guest *guest, const struct kvm_regs *regs,
                    bool faulted) {
  uint64_t r[16];
  native_take(regs, r);
  const uint64_t *want = faulted ? native->in.r : native->out.r;
  for (int i = 0; i < 16; i++) {
    if (i != 4 && r[i] != want[i]) {
      test_fail(__FILE__, __LINE__, "%s: register %d is 0x%" PRIx64 ", not 0x%" PRIx64,
                text_of(made), i, r[i], want[i]);
    }
  }
  uint64_t flags = (faulted ? native->in.flags : native->out.flags) & defined_flags(made, 0);
  if (!faulted && (regs->rflags & defined_flags(made, 0)) != flags) {
    test_fail(__FILE__, __LINE__, "%s: flags are 0x%" PRIx64 ", not 0x%" PRIx64, text_of(made),
              (uint64_t)regs->rflags, flags);
  }
  const uint8_t *page = (const uint8_t *)(uintptr_t)EVEX_PAGE;
  const uint8_t *own = guest->ram + EVEX_RAM;
  for (unsigned i = 0; memcmp(own, page, 4096) != 0 && i < 4096; i++) {
    if (own[i] != page[i]) {
      test_fail(__FILE__, __LINE__, "%s: byte 0x%x of memory is 0x%x, not 0x%x", text_of(made), i,
                own[i], page[i]);
    }
  }
  compare_state(made, guest, faulted);
}

/* Changes nothing; the instruction behind it finds the state in the host's registers and the page
 * in the TLB: push rax; mov al, [page]; mov [page], al; pop rax; kmovq k0, k0. */
static size_t put_warm(uint8_t *code) {
  static const uint64_t page = EVEX_PAGE;
  size_t size = 0, wide = native_narrow ? 4 : 8;
  code[size++] = 0x50;
  for (unsigned opcode = 0xa0; opcode <= 0xa2; opcode += 2) {
    code[size++] = (uint8_t)opcode;
    memcpy(code + size, &page, wide);
    size += wide;
  }
  memcpy(code + size, "\x58\xc4\xe1\xf8\x90\xc0", 6);
  return size + 6;
}

/* One instruction on both; the signal that it raised. */
static int try(one *made, const soft_guest *guest) {
  uint8_t code[48];
  fill_state(made);
  memcpy(guest->ram + EVEX_RAM, (void *)(uintptr_t)EVEX_PAGE, 4096);
  int raised = native_run(made->bytes, made->all.length, true);
  size_t begin = pick(2) ? put_warm(code) : 0, size = begin + made->all.length;
  memcpy(code + begin, made->bytes, made->all.length);
  memcpy(code + size, "\x0f\x0b", 2); /* ud2 */
  CHECK_EQ(guest_call(guest->cpu, KVM_SET_XSAVE, native->in.xsave), 0);
  struct kvm_regs regs;
  native_give(&regs);
  CHECK_EQ(guest_run(guest, code, size + 2, &regs), KVM_EXIT_SHUTDOWN);
  bool faulted = regs.rip != GUEST_CODE + size;
  if (faulted != (raised != 0)) {
    const ZydisDecodedOperand *memory = memory_of(made);
    uint64_t at = memory ? native->in.r[ZydisRegisterGetId(memory->mem.base)] +
                               (uint64_t)memory->mem.disp.value
                         : 0;
    test_fail(__FILE__, __LINE__,
              "%s: it %s, and natively raised signal %d (operand at 0x%" PRIx64 ", k 0x%" PRIx64
              ")",
              text_of(made), faulted ? "faulted" : "did not fault", raised, at,
              evex_mask(native->in.xsave, (unsigned)made->all.avx.mask.reg & 7));
  }
  compare(made, guest, &regs, faulted);
  return raised;
}

static void run(bool (*make_one)(one *), double seconds, unsigned least) {
#ifdef __SANITIZE_THREAD__
  test_skip("the thread sanitizer's own handler comes before the oracle's");
#endif
  static uint32_t tried[ZYDIS_MNEMONIC_MAX_VALUE + 1];
  uint64_t count = 0, raised[65] = {0};
  unsigned kinds = 0;
  if (!evex_begin()) {
    test_skip("this host has no AVX-512");
  }
  uint64_t seed = test_seed();
  state = seed;
  memset(tried, 0, sizeof tried);
  soft_guest guest = guest_open(3);
  evex_open(&guest);
  if (native_narrow) {
    guest_narrow(&guest);
  }
  uint64_t until = luna_clock() + (uint64_t)(oracle_seconds(seconds) * 1e9);
  one made;
  while (luna_clock() < until) {
    test_note("seed 0x%" PRIx64 ", instruction %" PRIu64, seed, count);
    if (make_one(&made)) {
      count++;
      kinds += tried[made.all.mnemonic]++ == 0;
      raised[try(&made, &guest)]++;
    }
  }
  guest_close(&guest);
  printf("# seed 0x%" PRIx64 ": %" PRIu64 " instructions, %u kinds, %" PRIu64
         " page faults, %" PRIu64 " #XM, %" PRIu64 " #UD\n",
         seed, count, kinds, raised[SIGSEGV], raised[SIGFPE], raised[SIGILL]);
  CHECK(count > 1000 && kinds >= least && raised[SIGSEGV]);
}

static void avx512_comes_out_as_on_the_host(void) {
  run(make, 5, 300);
}

static void gathers_and_scatters_come_out_as_on_the_host(void) {
  run(make_spread, 1, 16);
}

static void code_of_32_bits_too(void) {
  native_narrow_begin();
  ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32);
  run(make, 2, 300);
}

/* Encodings that the decoder takes for none raise #UD on the host's processor too: registers alone,
 * with NOPs for what may follow. */
static void what_is_no_instruction_is_none(void) {
#ifdef __SANITIZE_THREAD__
  test_skip("the thread sanitizer's own handler comes before the oracle's");
#endif
  if (!evex_begin()) {
    test_skip("this host has no AVX-512");
  }
  state = test_seed();
  one made;
  for (unsigned i = 0; i < REJECTED; i++) {
    size_t size = make_evex(&made);
    made.bytes[size++] = (uint8_t)(0xc0 | pick(64));
    memset(made.bytes + size, 0x90, BYTES_MOST - size);
    if (ZYAN_SUCCESS(
            ZydisDecoderDecodeFull(&decoder, made.bytes, BYTES_MOST, &made.all, made.operands))) {
      continue;
    }
    evex_fill(native->in.xsave);
    int raised = native_run(made.bytes, BYTES_MOST, true);
    if (raised != SIGILL) {
      test_fail(__FILE__, __LINE__, "%02x %02x %02x %02x %02x %02x raises %d", made.bytes[0],
                made.bytes[1], made.bytes[2], made.bytes[3], made.bytes[4], made.bytes[5], raised);
    }
  }
}

int main(void) {
  if (!native_begin()) {
    printf("0 passed, 0 failed, 1 skipped\n");
    return EXIT_SUCCESS;
  }
  make_decoder();
  RUN(avx512_comes_out_as_on_the_host);
  RUN(gathers_and_scatters_come_out_as_on_the_host);
  RUN(what_is_no_instruction_is_none);
  RUN(code_of_32_bits_too);
  return test_end();
}
