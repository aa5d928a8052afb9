/* SPDX-License-Identifier: MIT
 * Gathers of AVX2, element by element on the parked state: their addresses are in a vector
 * register, so that no stub could check them. What was loaded before a fault stays, as on
 * processors. */
#include "soft/decode/decode.h"
#include "soft/execute/execute.h"
#include "soft/vector/vector.h"

enum {
  ELEMENTS = 8
};

typedef struct gather {
  uint8_t to, mask, index; /* registers */
  uint8_t count;           /* of the elements */
  uint8_t size;            /* bytes of each */
  uint8_t index_size;
} gather;

/* Where an element of a register is in the image. */
static uint8_t *element(soft_cpu *cpu, unsigned number, unsigned which, unsigned size) {
  return soft_vector_at(cpu, number, which * size);
}

static bool is_wanted(soft_cpu *cpu, const gather *what, unsigned which) {
  return *(element(cpu, what->mask, which, what->size) + what->size - 1) & 0x80;
}

static uint64_t address(soft_cpu *cpu, const soft_insn *insn, unsigned which) {
  const gather *what = insn->aux;
  uint64_t index =
      soft_peek(element(cpu, what->index, which, what->index_size), what->index_size * 8);
  if (what->index_size == 4) {
    index = (uint64_t)(int64_t)(int32_t)index;
  }
  return soft_place(cpu, insn, soft_offset(cpu, insn) + (index << insn->shift), what->size,
                    SOFT_READ);
}

/* Whether the element's load would not fault. */
static bool is_readable(soft_cpu *cpu, uint64_t linear, unsigned size) {
  soft_rights rights = {SOFT_READ, cpu->cpl == 3, true};
  uint64_t last = linear + size - 1;
  soft_walk walk;
  return soft_canonical(cpu, linear) && soft_canonical(cpu, last) &&
         soft_translate(cpu, linear, rights, &walk) && soft_translate(cpu, last, rights, &walk);
}

/* The first `done` elements are there, and their bits of the mask gone; of all, the rest too. Those
 * of elements that are still wanted are all ones. */
static void commit(soft_cpu *cpu, const gather *what, const uint64_t *values, unsigned done) {
  int bits = what->size * 8;
  for (unsigned i = 0; i < done; i++) {
    if (is_wanted(cpu, what, i)) {
      soft_poke(element(cpu, what->to, i, what->size), values[i], bits);
    }
    soft_poke(element(cpu, what->mask, i, what->size), 0, bits);
  }
  unsigned wide = what->count * (what->size > what->index_size ? what->size : what->index_size);
  for (unsigned i = done; i < 32u / what->size; i++) {
    bool left = i < wide / what->size && is_wanted(cpu, what, i);
    soft_poke(element(cpu, what->mask, i, what->size), left ? ~0ull : 0, bits);
  }
  for (unsigned i = done; done == what->count && i < 32u / what->size; i++) {
    soft_poke(element(cpu, what->to, i, what->size), 0, bits);
    soft_poke(element(cpu, what->mask, i, what->size), 0, bits);
  }
}

SOFT_OP(gather) {
  const gather *what = insn->aux;
  uint64_t values[ELEMENTS];
  cpu->current = insn;
  soft_vector_check(cpu, SOFT_AVX);
  soft_park(cpu);
  soft_settle(cpu);
  soft_vector_used(cpu, SOFT_LIVE_SSE | SOFT_LIVE_AVX);
  for (unsigned i = 0; i < what->count; i++) {
    if (!is_wanted(cpu, what, i)) {
      continue;
    }
    uint64_t linear = address(cpu, insn, i);
    if (!soft_quick_at(cpu, linear, what->size, SOFT_READ) &&
        !is_readable(cpu, linear, what->size)) {
      commit(cpu, what, values, i);
    }
    values[i] = 0;
    soft_load_bytes(cpu, linear, &values[i], what->size);
  }
  commit(cpu, what, values, what->count);
  SOFT_NEXT_BY_LOOP;
}

/* ---- Decoding ---- */

/* Bytes of an index and of an element; false for what is no gather. */
static bool sizes_of(ZydisMnemonic mnemonic, gather *what) {
  static const struct {
    ZydisMnemonic mnemonic;
    uint8_t index, element;
  } rows[] = {
      {ZYDIS_MNEMONIC_VPGATHERDD, 4, 4}, {ZYDIS_MNEMONIC_VPGATHERDQ, 4, 8},
      {ZYDIS_MNEMONIC_VPGATHERQD, 8, 4}, {ZYDIS_MNEMONIC_VPGATHERQQ, 8, 8},
      {ZYDIS_MNEMONIC_VGATHERDPS, 4, 4}, {ZYDIS_MNEMONIC_VGATHERDPD, 4, 8},
      {ZYDIS_MNEMONIC_VGATHERQPS, 8, 4}, {ZYDIS_MNEMONIC_VGATHERQPD, 8, 8},
  };
  for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
    if (rows[i].mnemonic == mnemonic) {
      what->index_size = rows[i].index;
      what->size = rows[i].element;
      return true;
    }
  }
  return false;
}

static uint8_t number_of(ZydisRegister vector) {
  return (uint8_t)ZydisRegisterGetId(vector);
}

/* Its three registers are three. */
bool soft_decode_gather(soft_cpu *cpu, soft_insn *insn, const soft_parsed *parsed) {
  const ZydisDecodedOperand *operands = parsed->operands;
  gather what;
  if (parsed->all.encoding != ZYDIS_INSTRUCTION_ENCODING_VEX ||
      !sizes_of(parsed->all.mnemonic, &what)) {
    return false;
  }
  what.to = number_of(operands[0].reg.value);
  what.index = number_of(operands[1].mem.index);
  what.mask = number_of(operands[2].reg.value);
  if (what.to == what.index || what.to == what.mask || what.index == what.mask) {
    return false;
  }
  unsigned wide = parsed->all.raw.vex.L ? 32 : 16;
  what.count = (uint8_t)(wide / (what.size > what.index_size ? what.size : what.index_size));
  soft_set_memory(insn, parsed, &operands[1]);
  insn->index = R_ZERO;
  gather *kept = soft_arena_take(cpu, sizeof *kept);
  *kept = what;
  insn->aux = kept;
  insn->run = soft_op_gather;
  return true;
}
