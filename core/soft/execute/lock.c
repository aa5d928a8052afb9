/* SPDX-License-Identifier: MIT
 * LOCK, XCHG, CMPXCHG and XADD: the host's own atomic operations on guest memory. */
#include "soft/execute/execute.h"

static bool exchange_if(void *host, uint64_t *old, uint64_t value, unsigned size) {
  bool done;
  switch (size) {
    case 1: {
      uint8_t was = (uint8_t)*old;
      done = __atomic_compare_exchange_n((uint8_t *)host, &was, (uint8_t)value, false,
                                         __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
      *old = was;
      return done;
    }
    case 2: {
      uint16_t was = (uint16_t)*old;
      done = __atomic_compare_exchange_n((uint16_t *)host, &was, (uint16_t)value, false,
                                         __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
      *old = was;
      return done;
    }
    case 4: {
      uint32_t was = (uint32_t)*old;
      done = __atomic_compare_exchange_n((uint32_t *)host, &was, (uint32_t)value, false,
                                         __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
      *old = was;
      return done;
    }
    default:
      return __atomic_compare_exchange_n((uint64_t *)host, old, value, false, __ATOMIC_SEQ_CST,
                                         __ATOMIC_SEQ_CST);
  }
}

bool soft_compare_exchange(soft_cpu *cpu, uint64_t linear, uint64_t *old, uint64_t value,
                           unsigned size) {
  void *host = soft_reach(cpu, linear, size, SOFT_WRITE);
  if (host) {
    return exchange_if(host, old, value, size);
  }
  soft_page_check(cpu, linear, size, SOFT_WRITE);
  uint64_t was = soft_load_slow(cpu, linear, size);
  bool equal = was == *old;
  soft_store_slow(cpu, linear, equal ? value : was, size);
  *old = was;
  return equal;
}

bool soft_exchange_locked(soft_cpu *cpu, uint64_t linear, uint64_t old, uint64_t value,
                          unsigned size) {
  uint64_t was = old;
  if (!soft_reach(cpu, linear, size, SOFT_WRITE)) {
    soft_store_slow(cpu, linear, value, size);
    return true;
  }
  return soft_compare_exchange(cpu, linear, &was, value, size);
}

/* Replaces memory; what was there. */
static uint64_t swap(soft_cpu *cpu, uint64_t linear, uint64_t value, unsigned size) {
  void *host = soft_reach(cpu, linear, size, SOFT_WRITE);
  if (!host) {
    soft_page_check(cpu, linear, size, SOFT_WRITE);
    uint64_t was = soft_load_slow(cpu, linear, size);
    soft_store_slow(cpu, linear, value, size);
    return was;
  }
  uint64_t was = soft_peek(host, (int)size * 8);
  while (!exchange_if(host, &was, value, size)) {
  }
  return was;
}

SOFT_INLINE const soft_insn *xchg(soft_cpu *cpu, const soft_insn *insn, int bits) {
  uint64_t b = soft_get(cpu, insn->from, bits), a;
  if (insn->to_kind == SOFT_REGISTER) {
    a = soft_get(cpu, insn->to, bits);
    soft_put(cpu, insn->to, b, bits);
  } else {
    uint64_t linear = soft_address(cpu, insn, (unsigned)bits / 8, SOFT_WRITE);
    a = swap(cpu, linear, b, (unsigned)bits / 8);
  }
  soft_put(cpu, insn->from, a, bits);
  SOFT_NEXT;
}
SOFT_BY_SIZE(xchg)

/* As CMP of the accumulator with what was there. A register that does not match keeps its upper
 * half. */
SOFT_INLINE const soft_insn *cmpxchg(soft_cpu *cpu, const soft_insn *insn, int bits) {
  uint64_t accumulator = soft_gpr(cpu, RAX, bits), was = accumulator;
  uint64_t value = soft_get(cpu, insn->from, bits);
  if (insn->to_kind == SOFT_REGISTER) {
    was = soft_get(cpu, insn->to, bits);
    if (was == accumulator) {
      soft_put(cpu, insn->to, value, bits);
    }
  } else {
    uint64_t linear = soft_address(cpu, insn, (unsigned)bits / 8, SOFT_WRITE);
    soft_compare_exchange(cpu, linear, &was, value, (unsigned)bits / 8);
  }
  uint64_t result = accumulator - was;
  soft_set_result(cpu, result, (~accumulator & was) | (~(accumulator ^ was) & result), bits);
  if (was != accumulator) {
    soft_set_gpr(cpu, RAX, was, bits);
  }
  SOFT_NEXT_BY_LOOP;
}
SOFT_BY_SIZE(cmpxchg)

SOFT_INLINE const soft_insn *xadd(soft_cpu *cpu, const soft_insn *insn, int bits) {
  uint64_t b = soft_get(cpu, insn->from, bits), linear, a;
  do {
    a = soft_read_to(cpu, insn, &linear, SOFT_WRITE, bits);
  } while (insn->to_kind == SOFT_MEMORY &&
           !soft_exchange(cpu, insn, linear, a, soft_trim(a + b, bits), bits));
  uint64_t sum = a + b;
  soft_set_result(cpu, sum, (a & b) | ((a | b) & ~sum), bits);
  soft_put(cpu, insn->from, a, bits);
  if (insn->to_kind == SOFT_REGISTER) {
    soft_put(cpu, insn->to, sum, bits);
  }
  SOFT_NEXT;
}
SOFT_BY_SIZE(xadd)

SOFT_OP(cmpxchg8b) {
  uint64_t linear = soft_address(cpu, insn, 8, SOFT_WRITE);
  uint64_t old = soft_gpr(cpu, RDX, 32) << 32 | soft_gpr(cpu, RAX, 32);
  uint64_t value = soft_gpr(cpu, RCX, 32) << 32 | soft_gpr(cpu, RBX, 32);
  bool equal = soft_compare_exchange(cpu, linear, &old, value, 8);
  soft_set_zf(cpu, equal);
  if (!equal) {
    soft_set_gpr(cpu, RAX, old, 32);
    soft_set_gpr(cpu, RDX, old >> 32, 32);
  }
  SOFT_NEXT_BY_LOOP;
}

/* The host's own instruction: the compiler would call a library for it. */
static bool exchange_16(void *host, uint64_t *low, uint64_t *high, uint64_t new_low,
                        uint64_t new_high) {
  bool equal;
  __asm__ volatile("lock cmpxchg16b %1"
                   : "=@ccz"(equal), "+m"(*(uint64_t(*)[2])host), "+a"(*low), "+d"(*high)
                   : "b"(new_low), "c"(new_high)
                   : "memory");
  return equal;
}

SOFT_OP(cmpxchg16b) {
  uint64_t linear = soft_address(cpu, insn, 16, SOFT_WRITE);
  if (linear & 15) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
  uint64_t low = cpu->r[RAX], high = cpu->r[RDX];
  void *host = soft_reach(cpu, linear, 16, SOFT_WRITE);
  bool equal;
  if (host) {
    equal = exchange_16(host, &low, &high, cpu->r[RBX], cpu->r[RCX]);
  } else {
    uint64_t was_low = soft_load_slow(cpu, linear, 8);
    uint64_t was_high = soft_load_slow(cpu, linear + 8, 8);
    equal = was_low == low && was_high == high;
    low = was_low;
    high = was_high;
    soft_store_slow(cpu, linear, equal ? cpu->r[RBX] : low, 8);
    soft_store_slow(cpu, linear + 8, equal ? cpu->r[RCX] : high, 8);
  }
  soft_set_zf(cpu, equal);
  if (!equal) {
    cpu->r[RAX] = low;
    cpu->r[RDX] = high;
  }
  SOFT_NEXT_BY_LOOP;
}
