/* SPDX-License-Identifier: MIT
 * What the files of handlers share: how a handler goes on, and how one is made for each size. */
#ifndef SOFT_EXECUTE_H
#define SOFT_EXECUTE_H

#include "soft/access.h"
#include "soft/flags.h"

/* A handler ends in a call of the next one, which has to become a jump: where the compiler does not
 * make it one, the handler returns to the loop instead. */
#if defined(__has_feature)
#define SOFT_HAS_FEATURE(name) __has_feature(name)
#else
#define SOFT_HAS_FEATURE(name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) ||                               \
    SOFT_HAS_FEATURE(address_sanitizer) || SOFT_HAS_FEATURE(thread_sanitizer) ||                   \
    SOFT_HAS_FEATURE(undefined_behavior_sanitizer)
#undef SOFT_SANITIZED
#define SOFT_SANITIZED 1 /* vector.c is told by the Makefile */
#endif
#if !defined(__OPTIMIZE__) || defined(SOFT_SANITIZED)
#define SOFT_GO(next) return (next)
/* With what it has put into its register, which the next handler may take (soft_take). */
#define SOFT_NEXT_WITH(result)                                                                     \
  do {                                                                                             \
    cpu->passed = (result);                                                                        \
    return insn + 1;                                                                               \
  } while (0)
#else
#define SOFT_GO(next)                                                                              \
  do {                                                                                             \
    const soft_insn *soft_next = (next);                                                           \
    return soft_next->run(cpu, soft_next, 0);                                                      \
  } while (0)
/* The address is hidden from the compiler, which else makes it twice. */
#define SOFT_NEXT_WITH(result)                                                                     \
  do {                                                                                             \
    const soft_insn *soft_next = insn + 1;                                                         \
    __asm__("" : "+r"(soft_next));                                                                 \
    return soft_next->run(cpu, soft_next, (result));                                               \
  } while (0)
#endif
#define SOFT_NEXT SOFT_NEXT_WITH(0)

/* For handlers that the compiler would not end in a jump: they give out the address of a local. */
#define SOFT_NEXT_BY_LOOP return insn + 1
/* The block ends here: what is behind has to be looked for. */
#define SOFT_END                                                                                   \
  do {                                                                                             \
    cpu->rip = soft_rip_after(cpu, insn);                                                          \
    return NULL;                                                                                   \
  } while (0)

#define SOFT_OP(name) SOFT_HANDLER(soft_op_##name)

/* `name` is a function with the size in bits as its third argument: makes the four handlers. */
#define SOFT_BY_SIZE(name)                                                                         \
  static SOFT_HANDLER(name##_8) {                                                                  \
    return name(cpu, insn, 8);                                                                     \
  }                                                                                                \
  static SOFT_HANDLER(name##_16) {                                                                 \
    return name(cpu, insn, 16);                                                                    \
  }                                                                                                \
  static SOFT_HANDLER(name##_32) {                                                                 \
    return name(cpu, insn, 32);                                                                    \
  }                                                                                                \
  static SOFT_HANDLER(name##_64) {                                                                 \
    return name(cpu, insn, 64);                                                                    \
  }                                                                                                \
  const soft_handler soft_op_##name[4] = {name##_8, name##_16, name##_32, name##_64};

/* The same with a fourth: the handler of name_slow, which goes the long way. */
#define SOFT_ONE_OR_SLOW(name, bits)                                                               \
  static SOFT_COLD SOFT_HANDLER(name##_slow_##bits) {                                              \
    return name##_slow(cpu, insn, bits);                                                           \
  }                                                                                                \
  static SOFT_HANDLER(name##_##bits) {                                                             \
    return name(cpu, insn, bits, name##_slow_##bits);                                              \
  }
#define SOFT_BY_SIZE_OR_SLOW(name)                                                                 \
  SOFT_ONE_OR_SLOW(name, 8)                                                                        \
  SOFT_ONE_OR_SLOW(name, 16)                                                                       \
  SOFT_ONE_OR_SLOW(name, 32)                                                                       \
  SOFT_ONE_OR_SLOW(name, 64)                                                                       \
  const soft_handler soft_op_##name[4] = {name##_8, name##_16, name##_32, name##_64};

/* lock.c: compares and exchanges memory by one access of the host; *old becomes what was there.
 * Memory that is not in one page is written as it comes. */
bool soft_compare_exchange(soft_cpu *cpu, uint64_t linear, uint64_t *old, uint64_t value,
                           unsigned size);
bool soft_exchange_locked(soft_cpu *cpu, uint64_t linear, uint64_t old, uint64_t value,
                          unsigned size);

/* Stores the result of a read-modify-write; false where it was LOCKed and another vCPU came in
 * between. */
SOFT_INLINE bool soft_exchange(soft_cpu *cpu, const soft_insn *insn, uint64_t linear, uint64_t old,
                               uint64_t value, int bits) {
  if (insn->to_kind == SOFT_REGISTER) {
    soft_put(cpu, insn->to, value, bits);
    return true;
  }
  if (soft_likely(!insn->locked)) {
    soft_store(cpu, linear, value, bits);
    return true;
  }
  return soft_exchange_locked(cpu, linear, old, value, (unsigned)bits / 8);
}

/* An instruction that CPUID does not show is none. */
SOFT_INLINE void soft_need(soft_cpu *cpu, const soft_insn *insn, bool there) {
  cpu->current = insn;
  if (!there) {
    soft_raise(cpu, VECTOR_UD);
  }
}

SOFT_INLINE void soft_need_ring_0(soft_cpu *cpu, const soft_insn *insn) {
  cpu->current = insn;
  if (cpu->cpl) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
}

#endif
