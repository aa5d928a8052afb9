/* SPDX-License-Identifier: MIT
 * Two instructions in one handler: CMP, TEST or DEC of a register and the conditional jump behind
 * it, which the comparison itself answers. The flags are there for what follows, unless that writes
 * them all before anything can see them: then they are not worked out. */
#include "soft/execute/branch.h"

/* Whether the operands themselves tell the condition. */
SOFT_INLINE bool is_answered(soft_pair kind, unsigned condition) {
  unsigned what = condition >> 1;
  bool zero = what == 2, sign = what == 4, order = what == 3 || what >= 6;
  return zero || (kind == SOFT_CMP_JUMP    ? order || what == 1
                  : kind == SOFT_TEST_JUMP ? order || sign
                                           : sign);
}

SOFT_INLINE bool answer(soft_pair kind, unsigned condition, uint64_t a, uint64_t b, int bits) {
  bool value;
  if (kind == SOFT_TEST_JUMP) { /* the result is compared with 0 */
    a &= b;
    b = 0;
  }
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
    case 4:
      value = soft_extend(a - b, bits) < 0;
      break;
    case 6:
      value = soft_extend(a, bits) < soft_extend(b, bits);
      break;
    default:
      value = soft_extend(a, bits) <= soft_extend(b, bits);
      break;
  }
  return value != (condition & 1);
}

SOFT_INLINE void set_flags(soft_cpu *cpu, soft_pair kind, uint64_t a, uint64_t b, int bits) {
  if (kind == SOFT_DEC_JUMP) {
    soft_set_step(cpu, a, soft_trim(a - 1, bits), ~UINT64_C(0), bits);
  } else if (kind == SOFT_CMP_JUMP) {
    soft_set_result(cpu, a - b, soft_borrows(a, b, a - b), bits);
  } else {
    soft_set_result(cpu, a & b, 0, bits);
  }
}

SOFT_INLINE const soft_insn *pair(soft_cpu *cpu, const soft_insn *insn, soft_pair kind,
                                  bool immediate, int bits, unsigned condition) {
  uint64_t a = soft_get(cpu, insn->to, bits);
  uint64_t b = kind == SOFT_DEC_JUMP ? 1
               : immediate           ? soft_trim(insn->immediate, bits)
                                     : soft_get(cpu, insn->from, bits);
  if (kind == SOFT_DEC_JUMP) {
    soft_put(cpu, insn->to, a - 1, bits);
  }
  if (is_answered(kind, condition)) {
    if (answer(kind, condition, a, b, bits)) {
      uint64_t target = soft_target(cpu, insn + 1);
      if (soft_linked(cpu, insn + 1, target)) {
        const soft_block *block = insn[1].link;
        if (!block->insns[0].forgets) {
          set_flags(cpu, kind, a, b, bits);
        }
        SOFT_GO(soft_enter(cpu, block, target));
      }
      set_flags(cpu, kind, a, b, bits);
      return soft_branch_slow(cpu, insn + 1, 0);
    }
    set_flags(cpu, kind, a, b, bits);
    return soft_fall(cpu, insn + 1);
  }
  set_flags(cpu, kind, a, b, bits);
  return soft_condition(cpu, condition) ? soft_branch(cpu, insn + 1) : soft_fall(cpu, insn + 1);
}

#define ONE(kind, bits, immediate, condition)                                                      \
  static SOFT_HANDLER(kind##_##bits##_##immediate##_##condition) {                                 \
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
FORMS(SOFT_CMP_JUMP, 16)
FORMS(SOFT_CMP_JUMP, 32)
FORMS(SOFT_CMP_JUMP, 64)
FORMS(SOFT_TEST_JUMP, 8)
FORMS(SOFT_TEST_JUMP, 16)
FORMS(SOFT_TEST_JUMP, 32)
FORMS(SOFT_TEST_JUMP, 64)
CONDITIONS(ONE, SOFT_DEC_JUMP, 8, 0)
CONDITIONS(ONE, SOFT_DEC_JUMP, 16, 0)
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

#define ROWS(row, kind) [kind] = {row(kind, 8), row(kind, 16), row(kind, 32), row(kind, 64)}

const soft_handler soft_op_pair[SOFT_PAIRS][4][2][16] = {
    ROWS(ROW, SOFT_CMP_JUMP), ROWS(ROW, SOFT_TEST_JUMP), ROWS(ROW_OF_ONE, SOFT_DEC_JUMP)};
