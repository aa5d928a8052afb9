/* SPDX-License-Identifier: MIT
 * ADD to XOR, CMP, TEST and MOV, one handler for each size and form of operands; INC, DEC, NEG,
 * NOT. */
#include "soft/execute/execute.h"

SOFT_INLINE uint64_t compute(const soft_cpu *cpu, soft_alu operation, uint64_t a, uint64_t b,
                             uint64_t *carries) {
  uint64_t result;
  switch (operation) {
    case SOFT_ADD:
      result = a + b;
      *carries = soft_carries(a, b, result);
      return result;
    case SOFT_ADC:
      result = a + b + (uint64_t)soft_cf(cpu);
      *carries = soft_carries(a, b, result);
      return result;
    case SOFT_SUB:
    case SOFT_CMP:
      result = a - b;
      *carries = soft_borrows(a, b, result);
      return result;
    case SOFT_SBB:
      result = a - b - (uint64_t)soft_cf(cpu);
      *carries = soft_borrows(a, b, result);
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

SOFT_INLINE bool has_memory(soft_form form) {
  return form != SOFT_REGISTER_REGISTER && form != SOFT_REGISTER_IMMEDIATE;
}

/* Of what is not memory. */
SOFT_INLINE uint64_t second(const soft_cpu *cpu, const soft_insn *insn, soft_form form, int bits) {
  return form == SOFT_REGISTER_IMMEDIATE || form == SOFT_MEMORY_IMMEDIATE
             ? soft_trim(insn->immediate, bits)
             : soft_get(cpu, insn->from, bits);
}

/* With accesses that the TLB does not serve, and LOCK. Flags change behind the store, which may
 * fault. */
SOFT_INLINE const soft_insn *alu_slow(soft_cpu *cpu, const soft_insn *insn, soft_alu operation,
                                      soft_form form, int bits) {
  bool keeps = operation == SOFT_CMP || operation == SOFT_TEST;
  bool loads = form == SOFT_REGISTER_MEMORY;
  uint64_t linear =
      soft_address(cpu, insn, (unsigned)bits / 8, keeps || loads ? SOFT_READ : SOFT_WRITE);
  uint64_t carries, result, a;
  if (operation == SOFT_MOV) {
    if (loads) {
      soft_put(cpu, insn->to, soft_load(cpu, linear, bits), bits);
    } else {
      soft_store(cpu, linear, second(cpu, insn, form, bits), bits);
    }
    SOFT_NEXT;
  }
  if (loads) {
    uint64_t b = soft_load(cpu, linear, bits);
    result = compute(cpu, operation, soft_get(cpu, insn->to, bits), b, &carries);
    if (!keeps) {
      soft_put(cpu, insn->to, result, bits);
    }
  } else {
    do {
      a = keeps ? soft_load(cpu, linear, bits) : soft_load_modify(cpu, linear, bits);
      result = compute(cpu, operation, a, second(cpu, insn, form, bits), &carries);
    } while (!keeps && !soft_exchange(cpu, insn, linear, a, soft_trim(result, bits), bits));
  }
  soft_set_result(cpu, result, carries, bits);
  SOFT_NEXT;
}

SOFT_INLINE const soft_insn *move(soft_cpu *cpu, const soft_insn *insn, soft_form form, int bits,
                                  void *host) {
  if (form == SOFT_MEMORY_REGISTER || form == SOFT_MEMORY_IMMEDIATE) {
    soft_poke(host, second(cpu, insn, form, bits), bits);
  } else {
    soft_put(cpu, insn->to, host ? soft_peek(host, bits) : second(cpu, insn, form, bits), bits);
  }
  SOFT_NEXT;
}

/* Calls nothing that returns, so that no register has to be saved. */
SOFT_INLINE const soft_insn *alu(soft_cpu *cpu, const soft_insn *insn, soft_alu operation,
                                 soft_form form, int bits, bool quiet, soft_handler slow) {
  bool keeps = operation == SOFT_CMP || operation == SOFT_TEST;
  bool stores = form == SOFT_MEMORY_REGISTER || form == SOFT_MEMORY_IMMEDIATE;
  uint64_t carries, result, a;
  uint8_t *host = NULL;
  if (has_memory(form)) {
    host = soft_quick(cpu, insn, (unsigned)bits / 8, stores && !keeps ? SOFT_WRITE : SOFT_READ);
    if (soft_unlikely(!host || (stores && insn->locked))) {
      return slow(cpu, insn);
    }
  }
  if (operation == SOFT_MOV) {
    return move(cpu, insn, form, bits, host);
  }
  a = stores ? soft_peek(host, bits) : soft_get(cpu, insn->to, bits);
  result =
      compute(cpu, operation, a,
              form == SOFT_REGISTER_MEMORY ? soft_peek(host, bits) : second(cpu, insn, form, bits),
              &carries);
  if (!keeps && stores) {
    soft_poke(host, result, bits);
  } else if (!keeps) {
    soft_put(cpu, insn->to, result, bits);
  }
  if (!quiet) {
    soft_set_result(cpu, result, carries, bits);
  }
  SOFT_NEXT;
}

#define ONE(operation, bits, form, suffix)                                                         \
  static const soft_insn *operation##_##bits##_##suffix(soft_cpu *cpu, const soft_insn *insn) {    \
    return alu(cpu, insn, operation, form, bits, false, NULL);                                     \
  }
#define ONE_MEMORY(operation, bits, form, suffix)                                                  \
  static SOFT_COLD const soft_insn *operation##_##bits##_##suffix##_slow(soft_cpu *cpu,            \
                                                                         const soft_insn *insn) {  \
    return alu_slow(cpu, insn, operation, form, bits);                                             \
  }                                                                                                \
  static const soft_insn *operation##_##bits##_##suffix(soft_cpu *cpu, const soft_insn *insn) {    \
    return alu(cpu, insn, operation, form, bits, false, operation##_##bits##_##suffix##_slow);     \
  }
#define FORMS(operation, bits)                                                                     \
  ONE(operation, bits, SOFT_REGISTER_REGISTER, rr)                                                 \
  ONE(operation, bits, SOFT_REGISTER_IMMEDIATE, ri)                                                \
  ONE_MEMORY(operation, bits, SOFT_REGISTER_MEMORY, rm)                                            \
  ONE_MEMORY(operation, bits, SOFT_MEMORY_REGISTER, mr)                                            \
  ONE_MEMORY(operation, bits, SOFT_MEMORY_IMMEDIATE, mi)
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

/* Where the flags that follow are nobody's. */
#define QUIET(operation, bits)                                                                     \
  static const soft_insn *operation##_##bits##_rr_quiet(soft_cpu *cpu, const soft_insn *insn) {    \
    return alu(cpu, insn, operation, SOFT_REGISTER_REGISTER, bits, true, NULL);                    \
  }                                                                                                \
  static const soft_insn *operation##_##bits##_ri_quiet(soft_cpu *cpu, const soft_insn *insn) {    \
    return alu(cpu, insn, operation, SOFT_REGISTER_IMMEDIATE, bits, true, NULL);                   \
  }
#define QUIET_SIZES(operation)                                                                     \
  QUIET(operation, 8) QUIET(operation, 16) QUIET(operation, 32) QUIET(operation, 64)

QUIET_SIZES(SOFT_ADD)
QUIET_SIZES(SOFT_OR)
QUIET_SIZES(SOFT_AND)
QUIET_SIZES(SOFT_SUB)
QUIET_SIZES(SOFT_XOR)

#define QUIET_ROW(operation, bits)                                                                 \
  { operation##_##bits##_rr_quiet, operation##_##bits##_ri_quiet }
#define QUIET_TABLE(operation)                                                                     \
  [operation] = {QUIET_ROW(operation, 8), QUIET_ROW(operation, 16), QUIET_ROW(operation, 32),      \
                 QUIET_ROW(operation, 64)}

const soft_handler soft_op_quiet[SOFT_ALUS][4][2] = {QUIET_TABLE(SOFT_ADD), QUIET_TABLE(SOFT_OR),
                                                     QUIET_TABLE(SOFT_AND), QUIET_TABLE(SOFT_SUB),
                                                     QUIET_TABLE(SOFT_XOR)};

/* CF stays. */
SOFT_INLINE const soft_insn *step_memory(soft_cpu *cpu, const soft_insn *insn, uint64_t by,
                                         int bits) {
  uint64_t linear, a, result;
  do {
    a = soft_read_to(cpu, insn, &linear, SOFT_WRITE, bits);
    result = soft_trim(a + by, bits);
  } while (!soft_exchange(cpu, insn, linear, a, result, bits));
  soft_set_step(cpu, a, result, by, bits);
  SOFT_NEXT;
}

SOFT_INLINE const soft_insn *step(soft_cpu *cpu, const soft_insn *insn, uint64_t by, int bits,
                                  soft_handler memory) {
  if (soft_unlikely(insn->to_kind != SOFT_REGISTER)) {
    return memory(cpu, insn);
  }
  uint64_t a = soft_get(cpu, insn->to, bits), result = soft_trim(a + by, bits);
  soft_put(cpu, insn->to, result, bits);
  soft_set_step(cpu, a, result, by, bits);
  SOFT_NEXT;
}

#define STEP(name, by, bits)                                                                       \
  static SOFT_COLD const soft_insn *name##_memory_##bits(soft_cpu *cpu, const soft_insn *insn) {   \
    return step_memory(cpu, insn, by, bits);                                                       \
  }                                                                                                \
  static const soft_insn *name##_##bits(soft_cpu *cpu, const soft_insn *insn) {                    \
    return step(cpu, insn, by, bits, name##_memory_##bits);                                        \
  }
#define STEP_SIZES(name, by)                                                                       \
  STEP(name, by, 8)                                                                                \
  STEP(name, by, 16)                                                                               \
  STEP(name, by, 32)                                                                               \
  STEP(name, by, 64)                                                                               \
  const soft_handler soft_op_##name[4] = {name##_8, name##_16, name##_32, name##_64};

STEP_SIZES(inc, 1)
STEP_SIZES(dec, ~UINT64_C(0))

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
