/* SPDX-License-Identifier: MIT
 * Two instructions in one handler: CMP, TEST or DEC of a register and the conditional jump behind
 * it, which the comparison itself answers. The flags are there for what follows. */
#include "soft/execute/branch.h"

/* The condition after CMP. */
SOFT_INLINE bool compared(const soft_cpu *cpu, unsigned condition, uint64_t a, uint64_t b,
                          int bits) {
  int64_t signed_a = soft_extend(a, bits), signed_b = soft_extend(b, bits);
  bool value;
  switch (condition >> 1) {
    case 1:
      value = a < b;
      break;
    case 2:
      value = a == b;
      break;
    case 3:
      value = a <= b;
      break;
    case 6:
      value = signed_a < signed_b;
      break;
    case 7:
      value = signed_a <= signed_b;
      break;
    default:
      return soft_condition(cpu, condition);
  }
  return value != (condition & 1);
}

SOFT_INLINE const soft_insn *pair(soft_cpu *cpu, const soft_insn *insn, soft_pair kind,
                                  bool immediate, int bits, unsigned condition) {
  uint64_t a = soft_get(cpu, insn->to, bits), result;
  bool taken;
  if (kind == SOFT_DEC_JUMP) {
    result = soft_trim(a - 1, bits);
    soft_put(cpu, insn->to, result, bits);
    soft_set_step(cpu, a, result, ~UINT64_C(0), bits);
    taken = soft_condition(cpu, condition);
  } else {
    uint64_t b = immediate ? soft_trim(insn->immediate, bits) : soft_get(cpu, insn->from, bits);
    bool compares = kind == SOFT_CMP_JUMP;
    result = compares ? a - b : a & b;
    soft_set_result(cpu, result, compares ? soft_borrows(a, b, result) : 0, bits);
    taken = compares ? compared(cpu, condition, a, b, bits) : soft_condition(cpu, condition);
  }
  return taken ? soft_branch(cpu, insn + 1) : soft_fall(cpu, insn + 1);
}

#define ONE(kind, bits, immediate, condition)                                                      \
  static const soft_insn *kind##_##bits##_##immediate##_##condition(soft_cpu *cpu,                 \
                                                                    const soft_insn *insn) {       \
    return pair(cpu, insn, kind, immediate, bits, condition);                                      \
  }
#define CONDITIONS(X, kind, bits, immediate)                                                       \
  X(kind, bits, immediate, 0)                                                                      \
  X(kind, bits, immediate, 1)                                                                      \
  X(kind, bits, immediate, 2)                                                                      \
  X(kind, bits, immediate, 3)                                                                      \
  X(kind, bits, immediate, 4)                                                                      \
  X(kind, bits, immediate, 5)                                                                      \
  X(kind, bits, immediate, 6)                                                                      \
  X(kind, bits, immediate, 7)                                                                      \
  X(kind, bits, immediate, 8)                                                                      \
  X(kind, bits, immediate, 9)                                                                      \
  X(kind, bits, immediate, 10)                                                                     \
  X(kind, bits, immediate, 11)                                                                     \
  X(kind, bits, immediate, 12)                                                                     \
  X(kind, bits, immediate, 13)                                                                     \
  X(kind, bits, immediate, 14)                                                                     \
  X(kind, bits, immediate, 15)
#define FORMS(kind, bits) CONDITIONS(ONE, kind, bits, 0) CONDITIONS(ONE, kind, bits, 1)

FORMS(SOFT_CMP_JUMP, 8)
FORMS(SOFT_CMP_JUMP, 32)
FORMS(SOFT_CMP_JUMP, 64)
FORMS(SOFT_TEST_JUMP, 8)
FORMS(SOFT_TEST_JUMP, 32)
FORMS(SOFT_TEST_JUMP, 64)
CONDITIONS(ONE, SOFT_DEC_JUMP, 8, 0)
CONDITIONS(ONE, SOFT_DEC_JUMP, 32, 0)
CONDITIONS(ONE, SOFT_DEC_JUMP, 64, 0)

#define NAME(kind, bits, immediate, condition) kind##_##bits##_##immediate##_##condition,
#define ROW(kind, bits)                                                                            \
  {                                                                                                \
    {CONDITIONS(NAME, kind, bits, 0)}, {                                                           \
      CONDITIONS(NAME, kind, bits, 1)                                                              \
    }                                                                                              \
  }
#define ROW_OF_ONE(kind, bits)                                                                     \
  {                                                                                                \
    { CONDITIONS(NAME, kind, bits, 0) }                                                            \
  }

const soft_handler soft_op_pair[SOFT_PAIRS][4][2][16] = {
    [SOFT_CMP_JUMP] =
        {[0] = ROW(SOFT_CMP_JUMP, 8), [2] = ROW(SOFT_CMP_JUMP, 32), [3] = ROW(SOFT_CMP_JUMP, 64)},
    [SOFT_TEST_JUMP] = {[0] = ROW(SOFT_TEST_JUMP, 8),
                        [2] = ROW(SOFT_TEST_JUMP, 32),
                        [3] = ROW(SOFT_TEST_JUMP, 64)},
    [SOFT_DEC_JUMP] = {[0] = ROW_OF_ONE(SOFT_DEC_JUMP, 8),
                       [2] = ROW_OF_ONE(SOFT_DEC_JUMP, 32),
                       [3] = ROW_OF_ONE(SOFT_DEC_JUMP, 64)}};
