/* SPDX-License-Identifier: MIT
 * Moves that change the width or depend on flags, addresses, and the stack. */
#include "soft/execute/execute.h"

/* Where the source is in the host, a register or memory; NULL where it has to be looked at. */
#define SOURCE(bits)                                                                               \
  (insn->from_kind == SOFT_REGISTER ? (uint8_t *)cpu->r + insn->from                               \
                                    : soft_quick(cpu, insn, (unsigned)(bits) / 8, SOFT_READ))

#define EXTEND(name, source, widened)                                                              \
  SOFT_INLINE const soft_insn *name##_slow(soft_cpu *cpu, const soft_insn *insn, int bits) {       \
    uint64_t from = soft_from(cpu, insn, source);                                                  \
    soft_put(cpu, insn->to, widened, bits);                                                        \
    SOFT_NEXT_WITH(soft_whole(widened, bits));                                                     \
  }                                                                                                \
  SOFT_INLINE const soft_insn *name(soft_cpu *cpu, const soft_insn *insn, int bits,                \
                                    soft_handler slow) {                                           \
    const void *host = SOURCE(source);                                                             \
    if (soft_unlikely(!host)) {                                                                    \
      return slow(cpu, insn, 0);                                                                   \
    }                                                                                              \
    uint64_t from = soft_peek(host, source);                                                       \
    soft_put(cpu, insn->to, widened, bits);                                                        \
    SOFT_NEXT_WITH(soft_whole(widened, bits));                                                     \
  }                                                                                                \
  SOFT_BY_SIZE_OR_SLOW(name)

EXTEND(movzx8, 8, from)
EXTEND(movzx16, 16, from)
EXTEND(movsx8, 8, (uint64_t)soft_extend(from, 8))
EXTEND(movsx16, 16, (uint64_t)soft_extend(from, 16))
EXTEND(movsx32, 32, (uint64_t)soft_extend(from, 32))

/* The source is read, and a 32-bit register's upper half cleared, in any case. */
SOFT_INLINE const soft_insn *cmov_slow(soft_cpu *cpu, const soft_insn *insn, int bits) {
  uint64_t value = soft_from(cpu, insn, bits);
  soft_put(cpu, insn->to,
           soft_condition(cpu, insn->condition) ? value : soft_get(cpu, insn->to, bits), bits);
  SOFT_NEXT;
}

SOFT_INLINE const soft_insn *cmov(soft_cpu *cpu, const soft_insn *insn, int bits,
                                  soft_handler slow) {
  const void *from = SOURCE(bits);
  if (soft_unlikely(!from)) {
    return slow(cpu, insn, 0);
  }
  bool moves = soft_condition(cpu, insn->condition);
  soft_put(cpu, insn->to, soft_peek(moves ? from : (uint8_t *)cpu->r + insn->to, bits), bits);
  SOFT_NEXT;
}
SOFT_BY_SIZE_OR_SLOW(cmov)

SOFT_OP(setcc) {
  soft_to(cpu, insn, (uint64_t)soft_condition(cpu, insn->condition), 8);
  SOFT_NEXT;
}

SOFT_INLINE const soft_insn *lea(soft_cpu *cpu, const soft_insn *insn, uint64_t passed, int bits,
                                 soft_take take) {
  uint64_t base = take == SOFT_TAKE_BASE ? passed : cpu->r[insn->base];
  uint64_t index = take == SOFT_TAKE_INDEX ? passed : cpu->r[insn->index];
  uint64_t offset = base + (index << insn->shift) + (uint64_t)insn->displacement;
  if (soft_unlikely(insn->address_size * 8 < bits)) {
    offset = soft_trim(offset, insn->address_size * 8);
  }
  soft_put(cpu, insn->to, offset, bits);
  SOFT_NEXT_WITH(soft_whole(offset, bits));
}

#define LEA(bits, take)                                                                            \
  static SOFT_HANDLER(lea_##bits##_##take) {                                                       \
    return lea(cpu, insn, passed, bits, SOFT_TAKE_##take);                                         \
  }
#define LEA_TAKES(bits) LEA(bits, NONE) LEA(bits, BASE) LEA(bits, INDEX)
LEA_TAKES(16)
LEA_TAKES(32)
LEA_TAKES(64)

#define LEA_ROW(bits)                                                                              \
  {                                                                                                \
    [SOFT_TAKE_NONE] = lea_##bits##_NONE, [SOFT_TAKE_BASE] = lea_##bits##_BASE,                    \
    [SOFT_TAKE_INDEX] = lea_##bits##_INDEX                                                         \
  }
const soft_handler soft_op_lea_takes[4][SOFT_TAKES] = {
    [1] = LEA_ROW(16), [2] = LEA_ROW(32), [3] = LEA_ROW(64)};

SOFT_INLINE const soft_insn *push_slow(soft_cpu *cpu, const soft_insn *insn, int bits) {
  uint64_t value = soft_from(cpu, insn, bits), sp = cpu->r[RSP];
  cpu->current = insn;
  if (bits == 64) {
    soft_store(cpu, soft_stack(cpu, sp - 8, 8, SOFT_WRITE), value, 64);
    cpu->r[RSP] = sp - 8;
  } else {
    sp -= (unsigned)bits / 8;
    soft_store(cpu, soft_stack(cpu, sp, (unsigned)bits / 8, SOFT_WRITE), value, bits);
    soft_set_stack(cpu, sp);
  }
  SOFT_NEXT;
}

/* Of a register or an immediate. */
SOFT_INLINE const soft_insn *push_quick(soft_cpu *cpu, const soft_insn *insn, uint64_t value,
                                        int bits, soft_handler slow) {
  uint64_t sp = soft_quick_sp(cpu, (unsigned)bits / 8) - (unsigned)bits / 8;
  cpu->current = insn;
  void *host = soft_quick_stack(cpu, sp, (unsigned)bits / 8, SOFT_WRITE);
  if (soft_unlikely(!host)) {
    return slow(cpu, insn, 0);
  }
  soft_poke(host, value, bits);
  soft_set_quick_stack(cpu, sp, (unsigned)bits / 8);
  SOFT_NEXT;
}

SOFT_INLINE const soft_insn *push(soft_cpu *cpu, const soft_insn *insn, int bits,
                                  soft_handler slow) {
  return insn->from_kind == SOFT_IMMEDIATE
             ? push_quick(cpu, insn, soft_trim(insn->immediate, bits), bits, slow)
             : slow(cpu, insn, 0);
}
SOFT_BY_SIZE_OR_SLOW(push)

#define PUSH_REGISTER(bits)                                                                        \
  static SOFT_HANDLER(push_register_##bits) {                                                      \
    return push_quick(cpu, insn, soft_get(cpu, insn->from, bits), bits, push_slow_##bits);         \
  }
PUSH_REGISTER(16)
PUSH_REGISTER(32)
PUSH_REGISTER(64)
const soft_handler soft_op_push_register[4] = {NULL, push_register_16, push_register_32,
                                               push_register_64};

/* An address that uses RSP sees it behind the pop. */
SOFT_INLINE const soft_insn *pop_slow(soft_cpu *cpu, const soft_insn *insn, int bits) {
  uint64_t before = cpu->r[RSP];
  cpu->current = insn;
  uint64_t value = soft_load(cpu, soft_stack(cpu, before, (unsigned)bits / 8, SOFT_READ), bits);
  soft_set_stack(cpu, before + (unsigned)bits / 8);
  if (insn->to_kind == SOFT_REGISTER) {
    soft_put(cpu, insn->to, value, bits);
    SOFT_NEXT;
  }
  uint64_t after = cpu->r[RSP], offset = soft_offset(cpu, insn);
  cpu->r[RSP] = before;
  soft_store(cpu, soft_place(cpu, insn, offset, (unsigned)bits / 8, SOFT_WRITE), value, bits);
  cpu->r[RSP] = after;
  SOFT_NEXT;
}

SOFT_INLINE const soft_insn *pop(soft_cpu *cpu, const soft_insn *insn, int bits,
                                 soft_handler slow) {
  uint64_t sp = soft_quick_sp(cpu, (unsigned)bits / 8);
  cpu->current = insn;
  const void *host = soft_quick_stack(cpu, sp, (unsigned)bits / 8, SOFT_READ);
  if (soft_unlikely(!host || insn->to_kind != SOFT_REGISTER)) {
    return slow(cpu, insn, 0);
  }
  uint64_t value = soft_peek(host, bits);
  soft_set_quick_stack(cpu, sp + (unsigned)bits / 8, (unsigned)bits / 8);
  soft_put(cpu, insn->to, value, bits);
  SOFT_NEXT;
}
SOFT_BY_SIZE_OR_SLOW(pop)

SOFT_OP(pusha) {
  uint64_t sp = cpu->r[RSP];
  cpu->current = insn;
  for (int i = RAX; i <= RDI; i++) {
    soft_push(cpu, &sp, cpu->r[i], insn->operand_size);
  }
  soft_set_stack(cpu, sp);
  SOFT_NEXT_BY_LOOP;
}

SOFT_OP(popa) {
  uint64_t sp = cpu->r[RSP], values[8];
  cpu->current = insn;
  for (int i = RDI; i >= RAX; i--) {
    values[i] = soft_pop(cpu, &sp, insn->operand_size);
  }
  for (int i = RAX; i <= RDI; i++) {
    if (i != RSP) {
      soft_set_gpr(cpu, i, values[i], insn->operand_size == 4 ? 32 : 16);
    }
  }
  soft_set_stack(cpu, sp);
  SOFT_NEXT_BY_LOOP;
}

SOFT_OP(leave) {
  uint64_t sp = cpu->r[RBP];
  cpu->current = insn;
  uint64_t value = soft_pop(cpu, &sp, insn->operand_size);
  soft_set_stack(cpu, sp);
  soft_set_gpr(cpu, RBP, value, insn->operand_size * 8);
  SOFT_NEXT_BY_LOOP;
}

/* Faults as a write at the new top of the stack would, which it does not make. */
SOFT_OP(enter) {
  unsigned size = insn->operand_size;
  uint64_t sp = cpu->r[RSP], bp = cpu->r[RBP];
  cpu->current = insn;
  soft_push(cpu, &sp, bp, size);
  uint64_t frame = sp;
  for (unsigned i = 1; i < insn->extra; i++) {
    bp -= size;
    uint64_t from = bp;
    uint64_t value = soft_pop(cpu, &from, size);
    soft_push(cpu, &sp, value, size);
  }
  if (insn->extra) {
    soft_push(cpu, &sp, frame, size);
  }
  sp -= insn->immediate & 0xffff;
  uint64_t top = soft_stack(cpu, sp, size, SOFT_WRITE);
  soft_check_alignment(cpu, top, size);
  soft_store_prepare(cpu, top, size);
  soft_set_gpr(cpu, RBP, frame, (int)size * 8);
  soft_set_stack(cpu, sp);
  SOFT_NEXT_BY_LOOP;
}

SOFT_OP(movnti) {
  soft_to(cpu, insn, soft_get(cpu, insn->from, 64), insn->size == 8 ? 64 : 32);
  SOFT_NEXT;
}

SOFT_OP(xlat) {
  uint64_t offset = soft_trim(cpu->r[RBX] + soft_gpr(cpu, RAX, 8), insn->address_size * 8);
  cpu->current = insn;
  soft_set_gpr(cpu, RAX, soft_load(cpu, soft_linear(cpu, insn->segment, offset, 1, SOFT_READ), 8),
               8);
  SOFT_NEXT;
}

SOFT_OP(cbw) {
  int bits = insn->operand_size * 8;
  soft_set_gpr(cpu, RAX, (uint64_t)soft_extend(soft_gpr(cpu, RAX, bits / 2), bits / 2), bits);
  SOFT_NEXT;
}

SOFT_OP(cwd) {
  int bits = insn->operand_size * 8;
  soft_set_gpr(cpu, RDX, (uint64_t)(soft_extend(soft_gpr(cpu, RAX, bits), bits) >> 63), bits);
  SOFT_NEXT;
}

SOFT_OP(bound) {
  int bits = insn->operand_size * 8;
  uint64_t linear = soft_address(cpu, insn, insn->operand_size * 2u, SOFT_READ);
  int64_t low = soft_extend(soft_load_slow(cpu, linear, insn->operand_size), bits);
  int64_t high =
      soft_extend(soft_load_slow(cpu, linear + insn->operand_size, insn->operand_size), bits);
  int64_t value = soft_extend(soft_get(cpu, insn->to, bits), bits);
  if (value < low || value > high) {
    soft_raise(cpu, VECTOR_BR);
  }
  SOFT_NEXT;
}

/* CLFLUSH and the like: no page has to be told, but they fault as loads do. */
SOFT_OP(flush) {
  uint64_t gpa;
  soft_page(cpu, soft_address(cpu, insn, 1, SOFT_READ), SOFT_READ, cpu->cpl == 3, &gpa);
  SOFT_NEXT;
}

SOFT_OP(nop) {
  (void)cpu; /* where handlers go on by the loop */
  SOFT_NEXT;
}
