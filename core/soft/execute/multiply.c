/* SPDX-License-Identifier: MIT
 * Multiplication and division. 64-bit division is the host's DIV: the compiler would call a library
 * that uses vector registers. */
#include "soft/execute/execute.h"

__extension__ typedef unsigned __int128 wide;
__extension__ typedef __int128 signed_wide;

/* CF and OF together, and the rest as the result gives it. */
SOFT_INLINE void set_overflow(soft_cpu *cpu, uint64_t low, bool overflow, int bits) {
  soft_set_result(cpu, low, 0, bits);
  cpu->carry = overflow ? UINT64_C(1) << 63 : 0;
}

/* The double-width result: AX for bytes, else RDX:RAX. */
SOFT_INLINE void put_double(soft_cpu *cpu, uint64_t low, uint64_t high, int bits) {
  if (bits == 8) {
    soft_set_gpr(cpu, RAX, high << 8 | low, 16);
  } else {
    soft_set_gpr(cpu, RAX, low, bits);
    soft_set_gpr(cpu, RDX, high, bits);
  }
}

SOFT_INLINE const soft_insn *mul(soft_cpu *cpu, const soft_insn *insn, int bits) {
  wide product = (wide)soft_from(cpu, insn, bits) * soft_gpr(cpu, RAX, bits);
  uint64_t low = soft_trim((uint64_t)product, bits);
  uint64_t high = soft_trim((uint64_t)(product >> bits), bits);
  put_double(cpu, low, high, bits);
  set_overflow(cpu, low, high != 0, bits);
  SOFT_NEXT;
}
SOFT_BY_SIZE(mul)

SOFT_INLINE const soft_insn *imul(soft_cpu *cpu, const soft_insn *insn, int bits) {
  int64_t a = soft_extend(soft_from(cpu, insn, bits), bits);
  signed_wide product = (signed_wide)a * soft_extend(soft_gpr(cpu, RAX, bits), bits);
  uint64_t low = soft_trim((uint64_t)product, bits);
  put_double(cpu, low, soft_trim((uint64_t)(product >> bits), bits), bits);
  set_overflow(cpu, low, product != soft_extend(low, bits), bits);
  SOFT_NEXT;
}
SOFT_BY_SIZE(imul)

SOFT_INLINE const soft_insn *imul_to(soft_cpu *cpu, const soft_insn *insn, int bits) {
  int64_t a = soft_extend(soft_from(cpu, insn, bits), bits);
  uint64_t other = insn->extra ? insn->immediate : soft_get(cpu, insn->to, bits);
  signed_wide product = (signed_wide)a * soft_extend(other, bits);
  uint64_t low = soft_trim((uint64_t)product, bits);
  soft_put(cpu, insn->to, low, bits);
  set_overflow(cpu, low, product != soft_extend(low, bits), bits);
  SOFT_NEXT;
}
SOFT_BY_SIZE(imul_to)

SOFT_INLINE const soft_insn *mulx(soft_cpu *cpu, const soft_insn *insn, int bits) {
  wide product = (wide)soft_from(cpu, insn, bits) * soft_gpr(cpu, RDX, bits);
  soft_put(cpu, insn->extra, soft_trim((uint64_t)product, bits), bits);
  soft_put(cpu, insn->to, soft_trim((uint64_t)(product >> bits), bits), bits);
  SOFT_NEXT;
}
SOFT_BY_SIZE(mulx)

__attribute__((noreturn)) static void divide_error(soft_cpu *cpu, const soft_insn *insn) {
  cpu->current = insn;
  soft_raise(cpu, VECTOR_DE);
}

/* 128 bits by 64, whose quotient fits. */
SOFT_INLINE uint64_t divide_128(uint64_t high, uint64_t low, uint64_t by, uint64_t *rest) {
  uint64_t quotient;
  __asm__("divq %4" : "=a"(quotient), "=d"(*rest) : "a"(low), "d"(high), "r"(by) : "cc");
  return quotient;
}

SOFT_INLINE void get_double(const soft_cpu *cpu, uint64_t *high, uint64_t *low, int bits) {
  if (bits == 8) {
    uint64_t ax = soft_gpr(cpu, RAX, 16);
    *high = ax >> 8;
    *low = ax & 0xff;
  } else {
    *high = soft_gpr(cpu, RDX, bits);
    *low = soft_gpr(cpu, RAX, bits);
  }
}

SOFT_INLINE const soft_insn *div(soft_cpu *cpu, const soft_insn *insn, int bits) {
  uint64_t by = soft_from(cpu, insn, bits), high, low, quotient, rest;
  get_double(cpu, &high, &low, bits);
  if (high >= by) { /* 0 too */
    divide_error(cpu, insn);
  }
  if (bits == 64) {
    quotient = divide_128(high, low, by, &rest);
  } else {
    uint64_t whole = high << bits | low;
    quotient = whole / by;
    rest = whole % by;
  }
  put_double(cpu, quotient, rest, bits);
  SOFT_NEXT;
}
SOFT_BY_SIZE(div)

/* By the amounts: the quotient is rounded towards zero and the rest has the dividend's sign. */
SOFT_INLINE const soft_insn *idiv(soft_cpu *cpu, const soft_insn *insn, int bits) {
  uint64_t by = soft_from(cpu, insn, bits), high, low, quotient, rest;
  get_double(cpu, &high, &low, bits);
  bool negative = soft_extend(high, bits) < 0, by_negative = soft_extend(by, bits) < 0;
  if (negative) {
    low = soft_trim(-low, bits);
    high = soft_trim(~high + (low == 0), bits);
  }
  uint64_t amount = by_negative ? soft_trim(-by, bits) : by;
  if (high >= amount) {
    divide_error(cpu, insn);
  }
  if (bits == 64) {
    quotient = divide_128(high, low, amount, &rest);
  } else {
    uint64_t whole = high << bits | low;
    quotient = whole / amount;
    rest = whole % amount;
  }
  uint64_t highest = UINT64_C(1) << (bits - 1);
  if (negative != by_negative ? quotient > highest : quotient >= highest) {
    divide_error(cpu, insn);
  }
  quotient = negative != by_negative ? -quotient : quotient;
  put_double(cpu, soft_trim(quotient, bits), soft_trim(negative ? -rest : rest, bits), bits);
  SOFT_NEXT;
}
SOFT_BY_SIZE(idiv)
