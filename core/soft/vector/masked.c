/* SPDX-License-Identifier: MIT
 * Masked moves of AVX and AVX2 whose operand is not whole in memory: element by element on the
 * parked state, for those that the mask leaves out are not looked at. */
#include "soft/execute/execute.h"
#include "soft/vector/stub.h"

enum {
  ELEMENTS = 8
};

/* Where an element of a register is in the image. */
static uint8_t *element(soft_cpu *cpu, unsigned number, unsigned which, unsigned size) {
  return soft_vector_at(cpu, number, which * size);
}

static bool is_wanted(soft_cpu *cpu, const soft_vector *vector, unsigned which) {
  return *(element(cpu, vector->mask, which, vector->element) + vector->element - 1) & 0x80;
}

/* Whether an end of the operand is in memory, and would not fault. */
static bool is_there(soft_cpu *cpu, uint64_t linear, soft_access access) {
  soft_rights rights = {access, cpu->cpl == 3, true};
  soft_walk walk;
  return soft_canonical(cpu, linear) && soft_translate(cpu, linear, rights, &walk) &&
         soft_host(cpu, walk.gpa, access == SOFT_WRITE);
}

static void begin(soft_cpu *cpu) {
  soft_park(cpu);
  soft_settle(cpu, SOFT_LIVE_SSE | SOFT_LIVE_AVX);
}

/* As processors do before they look for a page. */
static void check(soft_cpu *cpu, const soft_vector *vector, uint64_t linear) {
  unsigned size = vector->element;
  for (unsigned i = 0; i < vector->size / size; i++) {
    if (is_wanted(cpu, vector, i)) {
      soft_check_canonical(cpu, linear + i * size);
      soft_check_canonical(cpu, linear + i * size + size - 1);
    }
  }
}

static void load(soft_cpu *cpu, const soft_vector *vector, uint64_t linear) {
  uint64_t values[ELEMENTS] = {0};
  unsigned size = vector->element, count = vector->size / size;
  for (unsigned i = 0; i < count; i++) {
    if (is_wanted(cpu, vector, i)) {
      soft_load_bytes(cpu, linear + i * size, &values[i], size);
    }
  }
  for (unsigned i = 0; i < 32 / size; i++) {
    soft_poke(element(cpu, vector->data, i, size), i < count ? values[i] : 0, (int)size * 8);
  }
  soft_vector_clear_upper(cpu, vector->data);
  soft_vector_used(cpu, SOFT_LIVE_SSE | SOFT_LIVE_AVX);
}

static void store(soft_cpu *cpu, const soft_vector *vector, uint64_t linear) {
  unsigned size = vector->element, count = vector->size / size;
  for (unsigned i = 0; i < count; i++) {
    if (is_wanted(cpu, vector, i)) {
      soft_store_prepare(cpu, linear + i * size, size);
    }
  }
  for (unsigned i = 0; i < count; i++) {
    if (is_wanted(cpu, vector, i)) {
      soft_store_bytes(cpu, linear + i * size, element(cpu, vector->data, i, size), size);
    }
  }
}

static SOFT_HANDLER(masked) {
  const soft_vector *vector = insn->aux;
  bool writes = vector->access & SOFT_WRITE;
  soft_access access = writes ? SOFT_WRITE : SOFT_READ;
  cpu->current = insn;
  soft_vector_check(cpu, vector->kind);
  uint64_t linear = soft_address(cpu, insn, vector->size, access);
  if (soft_quick_at(cpu, linear, vector->size, access) ||
      (is_there(cpu, linear, access) && is_there(cpu, linear + vector->size - 1, access))) {
    return writes ? soft_op_vector_store(cpu, insn, 0) : soft_op_vector_load(cpu, insn, 0);
  }
  begin(cpu);
  check(cpu, vector, linear);
  if (writes) {
    store(cpu, vector, linear);
  } else {
    load(cpu, vector, linear);
  }
  SOFT_NEXT_BY_LOOP;
}

void soft_decode_masked(soft_insn *insn, soft_vector *vector, const soft_parsed *parsed) {
  const ZydisDecodedOperand *operands = parsed->operands;
  switch (parsed->all.mnemonic) {
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
      vector->element = 4;
      break;
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
      vector->element = 8;
      break;
    default:
      return;
  }
  bool writes = operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY;
  vector->mask = (uint8_t)ZydisRegisterGetId(operands[1].reg.value);
  vector->data = (uint8_t)ZydisRegisterGetId(operands[writes ? 2 : 0].reg.value);
  insn->run = masked;
}
