/* SPDX-License-Identifier: MIT
 * Arithmetic flags are worked out only when something asks. What they follow from: the result (ZF,
 * and SF unless parity says otherwise), the carries with that out of the highest bit at bit 63 and
 * that into it at bit 62 (CF, OF), the low byte (PF), the carries of the low bits (AF). */
#ifndef SOFT_FLAGS_H
#define SOFT_FLAGS_H

#include "soft/cpu.h"

enum {
  SOFT_SIGN_FLIPPED = 256 /* in parity: SF is not the result's sign */
};

SOFT_INLINE uint64_t soft_trim(uint64_t value, int bits) {
  return bits == 64 ? value : value & ((UINT64_C(1) << bits) - 1);
}
SOFT_INLINE int64_t soft_extend(uint64_t value, int bits) {
  return (int64_t)(value << (64 - bits)) >> (64 - bits);
}

SOFT_INLINE int soft_cf(const soft_cpu *cpu) {
  return (int)(cpu->carry >> 63);
}
SOFT_INLINE int soft_of(const soft_cpu *cpu) {
  return (int)((cpu->carry ^ cpu->carry << 1) >> 63);
}
SOFT_INLINE int soft_zf(const soft_cpu *cpu) {
  return cpu->result == 0;
}
SOFT_INLINE int soft_sf(const soft_cpu *cpu) {
  return (int)((cpu->result >> 63 ^ cpu->parity >> 8) & 1);
}
SOFT_INLINE int soft_pf(const soft_cpu *cpu) {
  uint32_t folded = (cpu->parity ^ cpu->parity >> 4) & 15;
  return (0x9669 >> folded) & 1;
}
SOFT_INLINE int soft_af(const soft_cpu *cpu) {
  return (int)(cpu->adjust >> 3 & 1);
}

SOFT_INLINE int soft_condition(const soft_cpu *cpu, unsigned condition) {
  int value;
  switch (condition >> 1) {
    case 0:
      value = soft_of(cpu);
      break;
    case 1:
      value = soft_cf(cpu);
      break;
    case 2:
      value = soft_zf(cpu);
      break;
    case 3:
      value = soft_cf(cpu) | soft_zf(cpu);
      break;
    case 4:
      value = soft_sf(cpu);
      break;
    case 5:
      value = soft_pf(cpu);
      break;
    case 6:
      value = soft_sf(cpu) ^ soft_of(cpu);
      break;
    default:
      value = soft_zf(cpu) | (soft_sf(cpu) ^ soft_of(cpu));
      break;
  }
  return value ^ (int)(condition & 1);
}

/* SF, ZF and PF of a result; the carries out of each of its bits. */
SOFT_INLINE void soft_set_result(soft_cpu *cpu, uint64_t result, uint64_t carries, int bits) {
  cpu->result = (uint64_t)soft_extend(result, bits);
  cpu->carry = carries << (64 - bits);
  cpu->adjust = (uint32_t)carries;
  cpu->parity = (uint8_t)result;
}
/* The carries out of each bit of a sum and of a difference. */
SOFT_INLINE uint64_t soft_carries(uint64_t a, uint64_t b, uint64_t sum) {
  return (a & b) | ((a | b) & ~sum);
}
SOFT_INLINE uint64_t soft_borrows(uint64_t a, uint64_t b, uint64_t difference) {
  return (~a & b) | (~(a ^ b) & difference);
}
SOFT_INLINE void soft_set_cf_of(soft_cpu *cpu, int cf, int of) {
  cpu->carry = (uint64_t)cf << 63 | (uint64_t)(cf ^ of) << 62;
}
/* Of INC and DEC, which leave CF alone. */
SOFT_INLINE void soft_set_step(soft_cpu *cpu, uint64_t a, uint64_t result, uint64_t by, int bits) {
  uint64_t highest = UINT64_C(1) << (bits - 1), cf = cpu->carry >> 63;
  cpu->result = (uint64_t)soft_extend(result, bits);
  cpu->parity = (uint8_t)result;
  cpu->adjust = (uint32_t)((a ^ result) >> 1 & 8);
  cpu->carry = cf << 63 | (cf ^ ((by == 1 ? result : a) == highest)) << 62;
}
SOFT_INLINE void soft_set_cf(soft_cpu *cpu, int cf) {
  soft_set_cf_of(cpu, cf, soft_of(cpu));
}
SOFT_INLINE void soft_set_zf(soft_cpu *cpu, bool zf) {
  uint64_t flags = soft_flags(cpu);
  soft_set_flags(cpu, zf ? flags | FLAG_ZF : flags & ~(uint64_t)FLAG_ZF);
}

#endif
