/* SPDX-License-Identifier: MIT
 * Bits: tests, scans, counts; byte order; CRC32. */
#include "soft/execute/execute.h"

typedef enum bit_change {
  BIT_KEEP,
  BIT_SET,
  BIT_RESET,
  BIT_FLIP
} bit_change;

/* The bit's number from a register may lie outside the operand in memory: by words before or behind
 * it. */
SOFT_INLINE uint64_t bit_place(soft_cpu *cpu, const soft_insn *insn, uint64_t number,
                               soft_access access, int bits) {
  uint64_t offset = soft_offset(cpu, insn);
  if (insn->from_kind == SOFT_REGISTER) {
    int shift = bits == 64 ? 6 : bits == 32 ? 5 : 4;
    offset += (uint64_t)((soft_extend(number, bits) >> shift) * (bits / 8));
  }
  cpu->current = insn;
  return soft_place(cpu, insn, offset, (unsigned)bits / 8, access);
}

SOFT_INLINE uint64_t change_bit(uint64_t value, uint64_t bit, bit_change change) {
  switch (change) {
    case BIT_SET:
      return value | bit;
    case BIT_RESET:
      return value & ~bit;
    default:
      return value ^ bit;
  }
}

SOFT_INLINE const soft_insn *test_bit(soft_cpu *cpu, const soft_insn *insn, bit_change change,
                                      int bits) {
  uint64_t number =
      insn->from_kind == SOFT_IMMEDIATE ? insn->immediate : soft_get(cpu, insn->from, bits);
  unsigned which = (unsigned)number & (unsigned)(bits - 1);
  uint64_t linear = 0, value;
  if (insn->to_kind == SOFT_MEMORY) {
    linear = bit_place(cpu, insn, number, change == BIT_KEEP ? SOFT_READ : SOFT_WRITE, bits);
  }
  do {
    value = insn->to_kind != SOFT_MEMORY ? soft_get(cpu, insn->to, bits)
            : change == BIT_KEEP         ? soft_load(cpu, linear, bits)
                                         : soft_load_modify(cpu, linear, bits);
  } while (change != BIT_KEEP &&
           !soft_exchange(cpu, insn, linear, value, change_bit(value, UINT64_C(1) << which, change),
                          bits));
  soft_set_cf(cpu, (int)(value >> which & 1));
  SOFT_NEXT;
}

#define TEST_BIT(name, change)                                                                     \
  SOFT_INLINE const soft_insn *name(soft_cpu *cpu, const soft_insn *insn, int bits) {              \
    return test_bit(cpu, insn, change, bits);                                                      \
  }                                                                                                \
  SOFT_BY_SIZE(name)

TEST_BIT(bt, BIT_KEEP)
TEST_BIT(bts, BIT_SET)
TEST_BIT(btr, BIT_RESET)
TEST_BIT(btc, BIT_FLIP)

/* Of a zero the destination stays. */
SOFT_INLINE const soft_insn *bsf(soft_cpu *cpu, const soft_insn *insn, int bits) {
  uint64_t value = soft_from(cpu, insn, bits);
  if (value) {
    soft_put(cpu, insn->to, (uint64_t)__builtin_ctzll(value), bits);
  }
  soft_set_result(cpu, value, 0, bits);
  SOFT_NEXT;
}
SOFT_BY_SIZE(bsf)

SOFT_INLINE const soft_insn *bsr(soft_cpu *cpu, const soft_insn *insn, int bits) {
  uint64_t value = soft_from(cpu, insn, bits);
  if (value) {
    soft_put(cpu, insn->to, 63 - (uint64_t)__builtin_clzll(value), bits);
  }
  soft_set_result(cpu, value, 0, bits);
  SOFT_NEXT;
}
SOFT_BY_SIZE(bsr)

SOFT_INLINE const soft_insn *tzcnt(soft_cpu *cpu, const soft_insn *insn, int bits) {
  uint64_t value = soft_from(cpu, insn, bits);
  uint64_t count = value ? (uint64_t)__builtin_ctzll(value) : (uint64_t)bits;
  soft_put(cpu, insn->to, count, bits);
  soft_set_result(cpu, count, 0, bits);
  soft_set_cf_of(cpu, value == 0, 0);
  SOFT_NEXT;
}
SOFT_BY_SIZE(tzcnt)

SOFT_INLINE const soft_insn *lzcnt(soft_cpu *cpu, const soft_insn *insn, int bits) {
  uint64_t value = soft_from(cpu, insn, bits);
  uint64_t count =
      value ? (uint64_t)__builtin_clzll(value) - (uint64_t)(64 - bits) : (uint64_t)bits;
  soft_put(cpu, insn->to, count, bits);
  soft_set_result(cpu, count, 0, bits);
  soft_set_cf_of(cpu, value == 0, 0);
  SOFT_NEXT;
}
SOFT_BY_SIZE(lzcnt)

/* Without the builtin, which is a call where the compiler may not use POPCNT. */
SOFT_INLINE uint64_t ones(uint64_t value) {
  value -= value >> 1 & UINT64_C(0x5555555555555555);
  value = (value & UINT64_C(0x3333333333333333)) + (value >> 2 & UINT64_C(0x3333333333333333));
  value = (value + (value >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f);
  return value * UINT64_C(0x0101010101010101) >> 56;
}

/* All flags but ZF are cleared. */
SOFT_INLINE const soft_insn *popcnt(soft_cpu *cpu, const soft_insn *insn, int bits) {
  uint64_t value = soft_from(cpu, insn, bits);
  soft_put(cpu, insn->to, ones(value), bits);
  soft_set_result(cpu, value ? 1 : 0, 0, 64);
  cpu->parity = 1;
  SOFT_NEXT;
}
SOFT_BY_SIZE(popcnt)

SOFT_INLINE uint64_t turned(uint64_t value, int bits) {
  return __builtin_bswap64(value) >> (64 - bits);
}

/* Of 16 bits it is undefined, and 0 on processors. */
SOFT_INLINE const soft_insn *bswap(soft_cpu *cpu, const soft_insn *insn, int bits) {
  uint64_t value = soft_get(cpu, insn->to, bits);
  soft_put(cpu, insn->to, bits < 32 ? 0 : turned(value, bits), bits);
  SOFT_NEXT;
}
SOFT_BY_SIZE(bswap)

SOFT_INLINE const soft_insn *movbe(soft_cpu *cpu, const soft_insn *insn, int bits) {
  soft_to(cpu, insn, turned(soft_from(cpu, insn, bits), bits), bits);
  SOFT_NEXT;
}
SOFT_BY_SIZE(movbe)

/* CRC-32C, bit by bit. */
SOFT_INLINE const soft_insn *crc32(soft_cpu *cpu, const soft_insn *insn, int bits) {
  uint64_t value = soft_from(cpu, insn, bits);
  uint32_t crc = (uint32_t)soft_get(cpu, insn->to, 32);
  for (int i = 0; i < bits; i++) {
    crc ^= (uint32_t)(value >> i & 1);
    crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
  }
  soft_put(cpu, insn->to, crc, 32);
  SOFT_NEXT;
}
SOFT_BY_SIZE(crc32)
