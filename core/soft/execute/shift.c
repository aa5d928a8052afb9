/* SPDX-License-Identifier: MIT
 * Shifts and rotations. A count of 0 changes no flag; a 32-bit register's upper half is cleared all
 * the same. */
#include "soft/execute/execute.h"

SOFT_INLINE unsigned count_of(const soft_cpu *cpu, const soft_insn *insn, int bits) {
  uint64_t count = insn->from_kind == SOFT_IMMEDIATE ? insn->immediate : cpu->r[RCX];
  return (unsigned)count & (bits == 64 ? 63 : 31);
}

SOFT_INLINE int bit_of(uint64_t value, int number) {
  return (int)(value >> number & 1);
}

typedef enum shift {
  SHIFT_LEFT,
  SHIFT_RIGHT,
  SHIFT_ARITHMETIC,
  ROTATE_LEFT,
  ROTATE_RIGHT,
  CARRY_LEFT,
  CARRY_RIGHT
} shift;

typedef struct shifted {
  uint64_t value;
  int cf;
  int of;
} shifted;

SOFT_INLINE shifted shift_plain(uint64_t a, unsigned count, shift kind, int bits) {
  shifted to = {0};
  unsigned width = (unsigned)bits;
  switch (kind) {
    case SHIFT_LEFT:
      to.value = count < width ? soft_trim(a << count, bits) : 0;
      to.cf = count <= width ? bit_of(a, (int)(width - count)) : 0;
      to.of = to.cf ^ bit_of(to.value, bits - 1);
      break;
    case SHIFT_RIGHT:
      to.value = count < width ? a >> count : 0;
      to.cf = count <= width ? bit_of(a, (int)count - 1) : 0;
      to.of = bit_of(a, bits - 1);
      break;
    default: {
      int64_t wide = soft_extend(a, bits);
      to.value = soft_trim((uint64_t)(wide >> (count < 63 ? count : 63)), bits);
      to.cf = bit_of((uint64_t)(wide >> (count < 64 ? count - 1 : 63)), 0);
      break;
    }
  }
  return to;
}

SOFT_INLINE shifted rotate(uint64_t a, unsigned count, shift kind, int bits) {
  unsigned by = count % (unsigned)bits;
  shifted to;
  if (kind == ROTATE_LEFT) {
    to.value = by ? soft_trim(a << by | a >> ((unsigned)bits - by), bits) : a;
    to.cf = bit_of(to.value, 0);
    to.of = to.cf ^ bit_of(to.value, bits - 1);
  } else {
    to.value = by ? soft_trim(a >> by | a << ((unsigned)bits - by), bits) : a;
    to.cf = bit_of(to.value, bits - 1);
    to.of = to.cf ^ bit_of(to.value, bits - 2);
  }
  return to;
}

/* Through CF, one bit after the other: counts are small, and few programs do it. */
SOFT_INLINE shifted rotate_carry(uint64_t a, unsigned count, shift kind, int cf, int bits) {
  shifted to = {a, cf, 0};
  for (unsigned i = 0; i < count % ((unsigned)bits + 1); i++) {
    if (kind == CARRY_LEFT) {
      int out = bit_of(to.value, bits - 1);
      to.value = soft_trim(to.value << 1 | (uint64_t)to.cf, bits);
      to.cf = out;
    } else {
      int out = bit_of(to.value, 0);
      to.value = to.value >> 1 | (uint64_t)to.cf << (bits - 1);
      to.cf = out;
    }
  }
  to.of = kind == CARRY_LEFT ? to.cf ^ bit_of(to.value, bits - 1)
                             : bit_of(to.value, bits - 1) ^ bit_of(to.value, bits - 2);
  return to;
}

SOFT_INLINE const soft_insn *run_shift(soft_cpu *cpu, const soft_insn *insn, shift kind, int bits) {
  uint64_t linear, a;
  unsigned count;
  shifted to;
  do {
    a = soft_read_to(cpu, insn, &linear, SOFT_WRITE, bits);
    count = count_of(cpu, insn, bits);
    if (count == 0) {
      if (insn->to_kind == SOFT_REGISTER) {
        soft_put(cpu, insn->to, a, bits);
      }
      SOFT_NEXT;
    }
    to = kind <= SHIFT_ARITHMETIC ? shift_plain(a, count, kind, bits)
         : kind <= ROTATE_RIGHT   ? rotate(a, count, kind, bits)
                                  : rotate_carry(a, count, kind, soft_cf(cpu), bits);
  } while (!soft_exchange(cpu, insn, linear, a, to.value, bits));
  if (kind <= SHIFT_ARITHMETIC) {
    soft_set_result(cpu, to.value, 0, bits);
  }
  if (kind < CARRY_LEFT || count % ((unsigned)bits + 1)) {
    soft_set_cf_of(cpu, to.cf, to.of);
  }
  SOFT_NEXT;
}

#define SHIFT(name, kind)                                                                          \
  SOFT_INLINE const soft_insn *name(soft_cpu *cpu, const soft_insn *insn, int bits) {              \
    return run_shift(cpu, insn, kind, bits);                                                       \
  }                                                                                                \
  SOFT_BY_SIZE(name)

SHIFT(shl, SHIFT_LEFT)
SHIFT(shr, SHIFT_RIGHT)
SHIFT(sar, SHIFT_ARITHMETIC)
SHIFT(rol, ROTATE_LEFT)
SHIFT(ror, ROTATE_RIGHT)
SHIFT(rcl, CARRY_LEFT)
SHIFT(rcr, CARRY_RIGHT)

/* A 16-bit operand with a larger count is undefined. */
SOFT_INLINE const soft_insn *double_shift(soft_cpu *cpu, const soft_insn *insn, bool left,
                                          int bits) {
  uint64_t linear, a = soft_read_to(cpu, insn, &linear, SOFT_WRITE, bits);
  uint64_t b = soft_get(cpu, insn->from, bits);
  unsigned width = (unsigned)bits;
  unsigned count = (unsigned)(insn->extra ? cpu->r[RCX] : insn->immediate) & (bits == 64 ? 63 : 31);
  if (count == 0) {
    if (insn->to_kind == SOFT_REGISTER) {
      soft_put(cpu, insn->to, a, bits);
    }
    SOFT_NEXT;
  }
  if (count > width) {
    count -= width;
  }
  uint64_t result = count == width ? b
                    : left         ? soft_trim(a << count | b >> (width - count), bits)
                                   : soft_trim(a >> count | b << (width - count), bits);
  soft_write_to(cpu, insn, linear, result, bits);
  int cf = left ? bit_of(a, (int)(width - count)) : bit_of(a, (int)count - 1);
  soft_set_result(cpu, result, 0, bits);
  soft_set_cf_of(cpu, cf, bit_of(a ^ result, bits - 1));
  SOFT_NEXT;
}

SOFT_INLINE const soft_insn *shld(soft_cpu *cpu, const soft_insn *insn, int bits) {
  return double_shift(cpu, insn, true, bits);
}
SOFT_BY_SIZE(shld)

SOFT_INLINE const soft_insn *shrd(soft_cpu *cpu, const soft_insn *insn, int bits) {
  return double_shift(cpu, insn, false, bits);
}
SOFT_BY_SIZE(shrd)
