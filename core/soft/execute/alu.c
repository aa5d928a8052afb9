/* SPDX-License-Identifier: MIT
 * ADD to XOR, CMP, TEST and MOV, one handler for each size and form of operands; INC, DEC, NEG,
 * NOT. */
#include "soft/execute/execute.h"

/* The carries out of each bit of a sum and of a difference. */
SOFT_INLINE uint64_t carries_of_sum(uint64_t a, uint64_t b, uint64_t sum) {
  return (a & b) | ((a | b) & ~sum);
}
SOFT_INLINE uint64_t borrows(uint64_t a, uint64_t b, uint64_t difference) {
  return (~a & b) | (~(a ^ b) & difference);
}

SOFT_INLINE uint64_t compute(const soft_cpu *cpu, soft_alu operation, uint64_t a, uint64_t b,
                             uint64_t *carries) {
  uint64_t result;
  switch (operation) {
    case SOFT_ADD:
      result = a + b;
      *carries = carries_of_sum(a, b, result);
      return result;
    case SOFT_ADC:
      result = a + b + (uint64_t)soft_cf(cpu);
      *carries = carries_of_sum(a, b, result);
      return result;
    case SOFT_SUB:
    case SOFT_CMP:
      result = a - b;
      *carries = borrows(a, b, result);
      return result;
    case SOFT_SBB:
      result = a - b - (uint64_t)soft_cf(cpu);
      *carries = borrows(a, b, result);
      return result;
    case SOFT_OR:
      *carries = 0;
      return a | b;
    case SOFT_XOR:
      *carries = 0;
      return a ^ b;
    default:
      *carries = 0;
      return a & b;
  }
}

SOFT_INLINE uint64_t second(soft_cpu *cpu, const soft_insn *insn, soft_form form, int bits) {
  switch (form) {
    case SOFT_REGISTER_REGISTER:
    case SOFT_MEMORY_REGISTER:
      return soft_get(cpu, insn->from, bits);
    case SOFT_REGISTER_MEMORY:
      return soft_load(cpu, soft_address(cpu, insn, (unsigned)bits / 8, SOFT_READ), bits);
    default:
      return soft_trim(insn->immediate, bits);
  }
}

SOFT_INLINE const soft_insn *move(soft_cpu *cpu, const soft_insn *insn, soft_form form, int bits) {
  uint64_t value = second(cpu, insn, form, bits);
  if (form == SOFT_MEMORY_REGISTER || form == SOFT_MEMORY_IMMEDIATE) {
    soft_store(cpu, soft_address(cpu, insn, (unsigned)bits / 8, SOFT_WRITE), value, bits);
  } else {
    soft_put(cpu, insn->to, value, bits);
  }
  SOFT_NEXT;
}

/* Flags change behind the store, which may fault. */
SOFT_INLINE const soft_insn *alu(soft_cpu *cpu, const soft_insn *insn, soft_alu operation,
                                 soft_form form, int bits) {
  if (operation == SOFT_MOV) {
    return move(cpu, insn, form, bits);
  }
  bool keeps = operation == SOFT_CMP || operation == SOFT_TEST;
  uint64_t carries, result;
  if (form == SOFT_MEMORY_REGISTER || form == SOFT_MEMORY_IMMEDIATE) {
    uint64_t linear = soft_address(cpu, insn, (unsigned)bits / 8, keeps ? SOFT_READ : SOFT_WRITE);
    uint64_t a;
    do {
      a = soft_load(cpu, linear, bits);
      result = compute(cpu, operation, a, second(cpu, insn, form, bits), &carries);
    } while (!keeps && !soft_exchange(cpu, insn, linear, a, soft_trim(result, bits), bits));
  } else {
    uint64_t a = soft_get(cpu, insn->to, bits);
    result = compute(cpu, operation, a, second(cpu, insn, form, bits), &carries);
    if (!keeps) {
      soft_put(cpu, insn->to, result, bits);
    }
  }
  soft_set_result(cpu, result, carries, bits);
  SOFT_NEXT;
}

#define ONE(operation, bits, form, suffix)                                                         \
  static const soft_insn *operation##_##bits##_##suffix(soft_cpu *cpu, const soft_insn *insn) {    \
    return alu(cpu, insn, operation, form, bits);                                                  \
  }
#define FORMS(operation, bits)                                                                     \
  ONE(operation, bits, SOFT_REGISTER_REGISTER, rr)                                                 \
  ONE(operation, bits, SOFT_REGISTER_IMMEDIATE, ri)                                                \
  ONE(operation, bits, SOFT_REGISTER_MEMORY, rm)                                                   \
  ONE(operation, bits, SOFT_MEMORY_REGISTER, mr)                                                   \
  ONE(operation, bits, SOFT_MEMORY_IMMEDIATE, mi)
#define SIZES(operation)                                                                           \
  FORMS(operation, 8) FORMS(operation, 16) FORMS(operation, 32) FORMS(operation, 64)

SIZES(SOFT_ADD)
SIZES(SOFT_OR)
SIZES(SOFT_ADC)
SIZES(SOFT_SBB)
SIZES(SOFT_AND)
SIZES(SOFT_SUB)
SIZES(SOFT_XOR)
SIZES(SOFT_CMP)
SIZES(SOFT_TEST)
SIZES(SOFT_MOV)

#define ROW(operation, bits)                                                                       \
  {                                                                                                \
    operation##_##bits##_rr, operation##_##bits##_ri, operation##_##bits##_rm,                     \
        operation##_##bits##_mr, operation##_##bits##_mi                                           \
  }
#define TABLE(operation)                                                                           \
  [operation] = {ROW(operation, 8), ROW(operation, 16), ROW(operation, 32), ROW(operation, 64)}

const soft_handler soft_op_alu[SOFT_ALUS][4][SOFT_FORMS] = {
    TABLE(SOFT_ADD), TABLE(SOFT_OR),  TABLE(SOFT_ADC), TABLE(SOFT_SBB),  TABLE(SOFT_AND),
    TABLE(SOFT_SUB), TABLE(SOFT_XOR), TABLE(SOFT_CMP), TABLE(SOFT_TEST), TABLE(SOFT_MOV)};

/* CF stays. */
SOFT_INLINE const soft_insn *step(soft_cpu *cpu, const soft_insn *insn, uint64_t by, int bits) {
  uint64_t linear, a, result;
  do {
    a = soft_read_to(cpu, insn, &linear, SOFT_WRITE, bits);
    result = soft_trim(a + by, bits);
  } while (!soft_exchange(cpu, insn, linear, a, result, bits));
  int cf = soft_cf(cpu);
  uint64_t highest = UINT64_C(1) << (bits - 1);
  soft_set_result(cpu, result, 0, bits);
  cpu->adjust = (uint32_t)(a ^ result) & 0x10 ? 8 : 0;
  soft_set_cf_of(cpu, cf, by == 1 ? result == highest : a == highest);
  SOFT_NEXT;
}

SOFT_INLINE const soft_insn *inc(soft_cpu *cpu, const soft_insn *insn, int bits) {
  return step(cpu, insn, 1, bits);
}
SOFT_BY_SIZE(inc)

SOFT_INLINE const soft_insn *dec(soft_cpu *cpu, const soft_insn *insn, int bits) {
  return step(cpu, insn, ~UINT64_C(0), bits);
}
SOFT_BY_SIZE(dec)

SOFT_INLINE const soft_insn *neg(soft_cpu *cpu, const soft_insn *insn, int bits) {
  uint64_t linear, a;
  do {
    a = soft_read_to(cpu, insn, &linear, SOFT_WRITE, bits);
  } while (!soft_exchange(cpu, insn, linear, a, soft_trim(-a, bits), bits));
  soft_set_result(cpu, -a, a | -a, bits);
  SOFT_NEXT;
}
SOFT_BY_SIZE(neg)

SOFT_INLINE const soft_insn * not(soft_cpu * cpu, const soft_insn *insn, int bits) {
  uint64_t linear, a;
  do {
    a = soft_read_to(cpu, insn, &linear, SOFT_WRITE, bits);
  } while (!soft_exchange(cpu, insn, linear, a, soft_trim(~a, bits), bits));
  SOFT_NEXT;
}
SOFT_BY_SIZE(not )
