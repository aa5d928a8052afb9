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
      result = soft_load(cpu, linear, bits);
      soft_put(cpu, insn->to, result, bits);
    } else {
      result = second(cpu, insn, form, bits);
      soft_store(cpu, linear, result, bits);
    }
    SOFT_NEXT_WITH(result);
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
  SOFT_NEXT_WITH(soft_whole(result, bits));
}

/* Calls nothing that returns, so that no register has to be saved. */
SOFT_INLINE const soft_insn *alu(soft_cpu *cpu, const soft_insn *insn, uint64_t passed,
                                 soft_alu operation, soft_form form, soft_take take, int bits,
                                 bool quiet, soft_handler slow, bool short_address) {
  bool keeps = operation == SOFT_CMP || operation == SOFT_TEST;
  bool stores = form == SOFT_MEMORY_REGISTER || form == SOFT_MEMORY_IMMEDIATE;
  uint64_t carries, result, a = 0, b, linear;
  uint8_t *host = NULL;
  if (has_memory(form)) {
    soft_access access = stores && !keeps ? SOFT_WRITE : SOFT_READ;
    unsigned size = (unsigned)bits / 8;
    host = short_address            ? soft_quick_16(cpu, insn, size, access)
           : take == SOFT_TAKE_BASE ? soft_quick_from(cpu, insn, passed, size, access, &linear)
                                    : soft_quick(cpu, insn, size, access);
    if (soft_unlikely(!host || (stores && insn->locked))) {
      return slow(cpu, insn, 0);
    }
  }
  b = form == SOFT_REGISTER_MEMORY ? soft_peek(host, bits)
      : take == SOFT_TAKE_FROM     ? soft_trim(passed, bits)
                                   : second(cpu, insn, form, bits);
  if (operation == SOFT_MOV) {
    result = b;
  } else {
    a = stores                 ? soft_peek(host, bits)
        : take == SOFT_TAKE_TO ? soft_trim(passed, bits)
                               : soft_get(cpu, insn->to, bits);
    result = compute(cpu, operation, a, b, &carries);
  }
  if (!keeps && stores) {
    soft_poke(host, result, bits);
  } else if (!keeps) {
    soft_put(cpu, insn->to, result, bits);
  }
  if (!quiet && operation != SOFT_MOV) {
    soft_set_result(cpu, result, carries, bits);
  }
  SOFT_NEXT_WITH(soft_whole(result, bits));
}

#define ONE(operation, bits, form, suffix, take)                                                   \
  static SOFT_HANDLER(operation##_##bits##_##suffix##_##take) {                                    \
    return alu(cpu, insn, passed, operation, form, SOFT_TAKE_##take, bits, false, NULL, false);    \
  }
#define ONE_SLOW(operation, bits, form, suffix)                                                    \
  static SOFT_COLD SOFT_HANDLER(operation##_##bits##_##suffix##_slow) {                            \
    return alu_slow(cpu, insn, operation, form, bits);                                             \
  }
#define ONE_MEMORY(operation, bits, form, suffix, take)                                            \
  static SOFT_HANDLER(operation##_##bits##_##suffix##_##take) {                                    \
    return alu(cpu, insn, passed, operation, form, SOFT_TAKE_##take, bits, false,                  \
               operation##_##bits##_##suffix##_slow, false);                                       \
  }
#define FORMS(operation, bits)                                                                     \
  ONE(operation, bits, SOFT_REGISTER_REGISTER, rr, NONE)                                           \
  ONE(operation, bits, SOFT_REGISTER_REGISTER, rr, TO)                                             \
  ONE(operation, bits, SOFT_REGISTER_REGISTER, rr, FROM)                                           \
  ONE(operation, bits, SOFT_REGISTER_IMMEDIATE, ri, NONE)                                          \
  ONE(operation, bits, SOFT_REGISTER_IMMEDIATE, ri, TO)                                            \
  ONE_SLOW(operation, bits, SOFT_REGISTER_MEMORY, rm)                                              \
  ONE_MEMORY(operation, bits, SOFT_REGISTER_MEMORY, rm, NONE)                                      \
  ONE_MEMORY(operation, bits, SOFT_REGISTER_MEMORY, rm, BASE)                                      \
  ONE_SLOW(operation, bits, SOFT_MEMORY_REGISTER, mr)                                              \
  ONE_MEMORY(operation, bits, SOFT_MEMORY_REGISTER, mr, NONE)                                      \
  ONE_MEMORY(operation, bits, SOFT_MEMORY_REGISTER, mr, FROM)                                      \
  ONE_SLOW(operation, bits, SOFT_MEMORY_IMMEDIATE, mi)                                             \
  ONE_MEMORY(operation, bits, SOFT_MEMORY_IMMEDIATE, mi, NONE)
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

#define ROW(o, bits)                                                                               \
  {                                                                                                \
    [SOFT_REGISTER_REGISTER] = {o##_##bits##_rr_NONE, o##_##bits##_rr_TO, o##_##bits##_rr_FROM},   \
    [SOFT_REGISTER_IMMEDIATE] = {o##_##bits##_ri_NONE, o##_##bits##_ri_TO},                        \
    [SOFT_REGISTER_MEMORY] = {o##_##bits##_rm_NONE, [SOFT_TAKE_BASE] = o##_##bits##_rm_BASE},      \
    [SOFT_MEMORY_REGISTER] = {o##_##bits##_mr_NONE, [SOFT_TAKE_FROM] = o##_##bits##_mr_FROM},      \
    [SOFT_MEMORY_IMMEDIATE] = {                                                                    \
      o##_##bits##_mi_NONE                                                                         \
    }                                                                                              \
  }
#define TABLE(operation)                                                                           \
  [operation] = {ROW(operation, 8), ROW(operation, 16), ROW(operation, 32), ROW(operation, 64)}

const soft_handler soft_op_alu[SOFT_ALUS][4][SOFT_FORMS][SOFT_TAKES] = {
    TABLE(SOFT_ADD), TABLE(SOFT_OR),  TABLE(SOFT_ADC), TABLE(SOFT_SBB),  TABLE(SOFT_AND),
    TABLE(SOFT_SUB), TABLE(SOFT_XOR), TABLE(SOFT_CMP), TABLE(SOFT_TEST), TABLE(SOFT_MOV)};

/* Memory whose address is of 16 bits, by a segment. */
#define SHORT(operation, bits, form, suffix, take)                                                 \
  static SOFT_HANDLER(operation##_##bits##_##suffix##_##take##_short) {                            \
    return alu(cpu, insn, passed, operation, form, SOFT_TAKE_##take, bits, false,                  \
               operation##_##bits##_##suffix##_slow, true);                                        \
  }
#define SHORT_FORMS(operation, bits)                                                               \
  SHORT(operation, bits, SOFT_REGISTER_MEMORY, rm, NONE)                                           \
  SHORT(operation, bits, SOFT_MEMORY_REGISTER, mr, NONE)                                           \
  SHORT(operation, bits, SOFT_MEMORY_REGISTER, mr, FROM)                                           \
  SHORT(operation, bits, SOFT_MEMORY_IMMEDIATE, mi, NONE)
#define SHORT_SIZES(operation)                                                                     \
  SHORT_FORMS(operation, 8) SHORT_FORMS(operation, 16) SHORT_FORMS(operation, 32)

SHORT_SIZES(SOFT_ADD)
SHORT_SIZES(SOFT_OR)
SHORT_SIZES(SOFT_ADC)
SHORT_SIZES(SOFT_SBB)
SHORT_SIZES(SOFT_AND)
SHORT_SIZES(SOFT_SUB)
SHORT_SIZES(SOFT_XOR)
SHORT_SIZES(SOFT_CMP)
SHORT_SIZES(SOFT_TEST)
SHORT_SIZES(SOFT_MOV)

#define SHORT_ROW(o, bits)                                                                         \
  {                                                                                                \
    [SOFT_REGISTER_MEMORY] = {o##_##bits##_rm_NONE_short},                                         \
    [SOFT_MEMORY_REGISTER] = {o##_##bits##_mr_NONE_short, [SOFT_TAKE_FROM] =                       \
                                                              o##_##bits##_mr_FROM_short},         \
    [SOFT_MEMORY_IMMEDIATE] = {                                                                    \
      o##_##bits##_mi_NONE_short                                                                   \
    }                                                                                              \
  }
#define SHORT_TABLE(operation)                                                                     \
  [operation] = {SHORT_ROW(operation, 8), SHORT_ROW(operation, 16), SHORT_ROW(operation, 32)}

const soft_handler soft_op_alu_short[SOFT_ALUS][4][SOFT_FORMS][SOFT_TAKES] = {
    SHORT_TABLE(SOFT_ADD),  SHORT_TABLE(SOFT_OR),  SHORT_TABLE(SOFT_ADC), SHORT_TABLE(SOFT_SBB),
    SHORT_TABLE(SOFT_AND),  SHORT_TABLE(SOFT_SUB), SHORT_TABLE(SOFT_XOR), SHORT_TABLE(SOFT_CMP),
    SHORT_TABLE(SOFT_TEST), SHORT_TABLE(SOFT_MOV)};

/* Where the flags that follow are nobody's. */
#define QUIET(operation, bits, form, suffix, take)                                                 \
  static SOFT_HANDLER(operation##_##bits##_##suffix##_##take##_quiet) {                            \
    return alu(cpu, insn, passed, operation, form, SOFT_TAKE_##take, bits, true, NULL, false);     \
  }
#define QUIET_FORMS(operation, bits)                                                               \
  QUIET(operation, bits, SOFT_REGISTER_REGISTER, rr, NONE)                                         \
  QUIET(operation, bits, SOFT_REGISTER_REGISTER, rr, TO)                                           \
  QUIET(operation, bits, SOFT_REGISTER_REGISTER, rr, FROM)                                         \
  QUIET(operation, bits, SOFT_REGISTER_IMMEDIATE, ri, NONE)                                        \
  QUIET(operation, bits, SOFT_REGISTER_IMMEDIATE, ri, TO)
#define QUIET_SIZES(operation)                                                                     \
  QUIET_FORMS(operation, 8)                                                                        \
  QUIET_FORMS(operation, 16) QUIET_FORMS(operation, 32) QUIET_FORMS(operation, 64)

QUIET_SIZES(SOFT_ADD)
QUIET_SIZES(SOFT_OR)
QUIET_SIZES(SOFT_AND)
QUIET_SIZES(SOFT_SUB)
QUIET_SIZES(SOFT_XOR)

#define QUIET_ROW(o, bits)                                                                         \
  {                                                                                                \
    {o##_##bits##_rr_NONE_quiet, o##_##bits##_rr_TO_quiet, o##_##bits##_rr_FROM_quiet}, {          \
      o##_##bits##_ri_NONE_quiet, o##_##bits##_ri_TO_quiet                                         \
    }                                                                                              \
  }
#define QUIET_TABLE(operation)                                                                     \
  [operation] = {QUIET_ROW(operation, 8), QUIET_ROW(operation, 16), QUIET_ROW(operation, 32),      \
                 QUIET_ROW(operation, 64)}

const soft_handler soft_op_quiet[SOFT_ALUS][4][2][SOFT_TAKES] = {
    QUIET_TABLE(SOFT_ADD), QUIET_TABLE(SOFT_OR), QUIET_TABLE(SOFT_AND), QUIET_TABLE(SOFT_SUB),
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
    return memory(cpu, insn, 0);
  }
  uint64_t a = soft_get(cpu, insn->to, bits), result = soft_trim(a + by, bits);
  soft_put(cpu, insn->to, result, bits);
  soft_set_step(cpu, a, result, by, bits);
  SOFT_NEXT_WITH(result);
}

#define STEP(name, by, bits)                                                                       \
  static SOFT_COLD SOFT_HANDLER(name##_memory_##bits) {                                            \
    return step_memory(cpu, insn, by, bits);                                                       \
  }                                                                                                \
  static SOFT_HANDLER(name##_##bits) {                                                             \
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
