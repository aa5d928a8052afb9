/* SPDX-License-Identifier: MIT
 * Gathers of AVX2 and AVX-512, and scatters, element by element on the parked state: their
 * addresses are in a vector register, so that no stub could check them. What was moved before a
 * fault stays, as on processors. */
#include "soft/decode/decode.h"
#include "soft/execute/execute.h"
#include "soft/vector/vector.h"

enum {
  ELEMENTS = 16
};

typedef struct gather {
  uint8_t data, mask, index; /* registers */
  uint8_t count;             /* of the elements */
  uint8_t size;              /* bytes of each */
  uint8_t index_size;
  bool opmask; /* which the mask is; AVX2's is a vector */
  bool scatters;
} gather;

/* Where an element of a register is in the image. */
static uint8_t *element(soft_cpu *cpu, unsigned number, unsigned which, unsigned size) {
  return soft_vector_at(cpu, number, which * size);
}

static uint8_t *opmask_at(soft_cpu *cpu, const gather *what) {
  return cpu->xsave + soft_component_at(SOFT_AREA_OPMASK) + what->mask * sizeof(uint64_t);
}

static bool is_wanted(soft_cpu *cpu, const gather *what, unsigned which) {
  if (what->opmask) {
    return soft_peek(opmask_at(cpu, what), 64) >> which & 1;
  }
  return *(element(cpu, what->mask, which, what->size) + what->size - 1) & 0x80;
}

static soft_access access_of(const gather *what) {
  return what->scatters ? SOFT_WRITE : SOFT_READ;
}

static uint64_t address(soft_cpu *cpu, const soft_insn *insn, unsigned which) {
  const gather *what = insn->aux;
  uint64_t index =
      soft_peek(element(cpu, what->index, which, what->index_size), what->index_size * 8);
  if (what->index_size == 4) {
    index = (uint64_t)(int64_t)(int32_t)index;
  }
  return soft_place(cpu, insn, soft_offset(cpu, insn) + (index << insn->shift), what->size,
                    access_of(what));
}

/* Whether the element's access would not fault. */
static bool is_there(soft_cpu *cpu, uint64_t linear, const gather *what) {
  soft_rights rights = {access_of(what), cpu->cpl == 3, true};
  uint64_t last = linear + what->size - 1;
  soft_walk walk;
  return soft_canonical(cpu, linear) && soft_canonical(cpu, last) &&
         soft_translate(cpu, linear, rights, &walk) && soft_translate(cpu, last, rights, &walk);
}

/* The bits of the first `done` elements are gone; of all, the rest too. Of a vector, those of
 * elements that are still wanted are all ones. */
static void commit_mask(soft_cpu *cpu, const gather *what, unsigned done) {
  int bits = what->size * 8;
  if (what->opmask) {
    uint8_t *at = opmask_at(cpu, what);
    uint64_t left = done == what->count ? 0 : ~UINT64_C(0) << done;
    soft_poke(at, soft_peek(at, 64) & left, 64);
    return;
  }
  unsigned wide = what->count * (what->size > what->index_size ? what->size : what->index_size);
  unsigned end = done == what->count ? 0 : wide / what->size;
  for (unsigned i = 0; i < 32u / what->size; i++) {
    bool left = i >= done && i < end && is_wanted(cpu, what, i);
    soft_poke(element(cpu, what->mask, i, what->size), left ? ~0ull : 0, bits);
  }
}

static void clear_behind(soft_cpu *cpu, const gather *what) {
  unsigned end = what->opmask ? 64 : 32;
  for (unsigned i = what->count; i < end / what->size; i++) {
    soft_poke(element(cpu, what->data, i, what->size), 0, what->size * 8);
  }
}

/* The first `done` elements are there; of all, what is behind them is cleared. */
static void commit(soft_cpu *cpu, const gather *what, const uint64_t *values, unsigned done) {
  for (unsigned i = 0; !what->scatters && i < done; i++) {
    if (is_wanted(cpu, what, i)) {
      soft_poke(element(cpu, what->data, i, what->size), values[i], what->size * 8);
    }
  }
  if (!what->scatters && done == what->count) {
    clear_behind(cpu, what);
  }
  commit_mask(cpu, what, done);
}

static void move(soft_cpu *cpu, const gather *what, unsigned which, uint64_t linear,
                 uint64_t *value) {
  if (what->scatters) {
    soft_store_bytes(cpu, linear, element(cpu, what->data, which, what->size), what->size);
  } else {
    *value = 0;
    soft_load_bytes(cpu, linear, value, what->size);
  }
}

SOFT_OP(gather) {
  const gather *what = insn->aux;
  uint64_t values[ELEMENTS];
  uint64_t components = SOFT_LIVE_SSE | SOFT_LIVE_AVX | (what->opmask ? SOFT_LIVE_AVX512 : 0);
  cpu->current = insn;
  soft_vector_check(cpu, what->opmask ? SOFT_AVX512 : SOFT_AVX);
  soft_park(cpu);
  soft_settle(cpu, components);
  soft_vector_used(cpu, components);
  for (unsigned i = 0; i < what->count; i++) {
    if (!is_wanted(cpu, what, i)) {
      continue;
    }
    if (insn->form >= SOFT_SEGMENT_32) { /* a segment may have the address fault */
      commit(cpu, what, values, i);
    }
    uint64_t linear = address(cpu, insn, i);
    if (!soft_quick_at(cpu, linear, what->size, access_of(what)) && !is_there(cpu, linear, what)) {
      commit(cpu, what, values, i);
    }
    move(cpu, what, i, linear, &values[i]);
  }
  commit(cpu, what, values, what->count);
  if (!what->opmask) {
    soft_vector_clear_upper(cpu, what->data);
    soft_vector_clear_upper(cpu, what->mask);
  }
  SOFT_NEXT_BY_LOOP;
}

/* ---- Decoding ---- */

/* Bytes of an index and of an element; false for what is neither. */
static bool sizes_of(ZydisMnemonic mnemonic, gather *what) {
  static const struct {
    ZydisMnemonic gathers, scatters;
    uint8_t index, element;
  } rows[] = {
      {ZYDIS_MNEMONIC_VPGATHERDD, ZYDIS_MNEMONIC_VPSCATTERDD, 4, 4},
      {ZYDIS_MNEMONIC_VPGATHERDQ, ZYDIS_MNEMONIC_VPSCATTERDQ, 4, 8},
      {ZYDIS_MNEMONIC_VPGATHERQD, ZYDIS_MNEMONIC_VPSCATTERQD, 8, 4},
      {ZYDIS_MNEMONIC_VPGATHERQQ, ZYDIS_MNEMONIC_VPSCATTERQQ, 8, 8},
      {ZYDIS_MNEMONIC_VGATHERDPS, ZYDIS_MNEMONIC_VSCATTERDPS, 4, 4},
      {ZYDIS_MNEMONIC_VGATHERDPD, ZYDIS_MNEMONIC_VSCATTERDPD, 4, 8},
      {ZYDIS_MNEMONIC_VGATHERQPS, ZYDIS_MNEMONIC_VSCATTERQPS, 8, 4},
      {ZYDIS_MNEMONIC_VGATHERQPD, ZYDIS_MNEMONIC_VSCATTERQPD, 8, 8},
  };
  for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
    if (rows[i].gathers == mnemonic || rows[i].scatters == mnemonic) {
      what->index_size = rows[i].index;
      what->size = rows[i].element;
      what->scatters = rows[i].scatters == mnemonic;
      return true;
    }
  }
  return false;
}

static uint8_t number_of(ZydisRegister vector) {
  return (uint8_t)ZydisRegisterGetId(vector);
}

/* AVX2's three registers are three; AVX-512's gathers load to another than they take indices
 * from. */
static bool is_right(const gather *what) {
  if (what->opmask) {
    return what->mask && (what->scatters || what->data != what->index) && soft_has_avx512();
  }
  return what->data != what->index && what->data != what->mask && what->index != what->mask;
}

/* The mask is the last operand of AVX2's, and the second of AVX-512's. */
bool soft_decode_gather(soft_cpu *cpu, soft_insn *insn, const soft_parsed *parsed) {
  const ZydisDecodedOperand *operands = parsed->operands;
  gather what;
  if (!sizes_of(parsed->all.mnemonic, &what)) {
    return false;
  }
  what.opmask = parsed->all.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX;
  const ZydisDecodedOperand *memory = &operands[what.scatters ? 0 : what.opmask ? 2 : 1];
  what.data = number_of(operands[what.scatters ? 2 : 0].reg.value);
  what.index = number_of(memory->mem.index);
  what.mask = number_of(operands[what.opmask ? 1 : 2].reg.value);
  if (!is_right(&what)) {
    return false;
  }
  unsigned wide = parsed->all.avx.vector_length / 8u;
  what.count = (uint8_t)(wide / (what.size > what.index_size ? what.size : what.index_size));
  soft_set_memory(insn, parsed, memory);
  insn->index = R_ZERO;
  gather *kept = soft_arena_take(cpu, sizeof *kept);
  *kept = what;
  insn->aux = kept;
  insn->run = soft_op_gather;
  return true;
}
