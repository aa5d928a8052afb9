/* SPDX-License-Identifier: MIT
 * Near jumps, calls and returns. Targets that change are looked for in the jump cache. */
#include "soft/execute/branch.h"

static bool may_chain(const soft_cpu *cpu) {
  return cpu->budget > 0 && !cpu->no_links && !cpu->single;
}

/* A block over a page's end is looked at each time. Where all blocks were dropped, this instruction
 * was too. */
static const soft_insn *chain(soft_cpu *cpu, const soft_insn *from, uint64_t rip) {
  soft_insn *insn = (soft_insn *)(uintptr_t)from;
  cpu->rip = rip;
  if (!may_chain(cpu)) {
    return NULL;
  }
  uint64_t drops = cpu->drops;
  soft_block *block = soft_block_next(cpu);
  if (!(block->key & SOFT_BLOCK_CROSSES) && cpu->drops == drops) {
    insn->link = block;
    insn->link_stamp = cpu->stamp;
    insn->link_rip = rip;
  }
  return soft_enter(cpu, block, rip);
}

SOFT_INLINE bool is_target(const soft_cpu *cpu, uint64_t target) {
  return soft_likely(target <= cpu->rip_last && (!soft_is_64(cpu) || soft_canonical(cpu, target)));
}

SOFT_INLINE void check_target(soft_cpu *cpu, const soft_insn *insn, uint64_t target) {
  cpu->current = insn;
  if (!is_target(cpu, target)) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
}

/* Of a call: its push faults first. */
SOFT_INLINE void check_called(soft_cpu *cpu, const soft_insn *insn, uint64_t target) {
  cpu->current = insn;
  if (!is_target(cpu, target)) {
    unsigned size = insn->operand_size;
    uint64_t linear = soft_stack(cpu, cpu->r[RSP] - size, size, SOFT_WRITE);
    soft_check_alignment(cpu, linear, size);
    soft_store_prepare(cpu, linear, size);
    soft_fault(cpu, VECTOR_GP, 0);
  }
}

SOFT_COLD SOFT_HANDLER(soft_branch_slow) {
  uint64_t target = soft_target(cpu, insn);
  check_target(cpu, insn, target);
  return chain(cpu, insn, target);
}

SOFT_COLD SOFT_HANDLER(soft_fall_slow) {
  return chain(cpu, insn, soft_rip_at(cpu, insn));
}

SOFT_INLINE uint64_t indirect(soft_cpu *cpu, const soft_insn *insn) {
  return insn->operand_size == 8   ? soft_from(cpu, insn, 64)
         : insn->operand_size == 4 ? soft_from(cpu, insn, 32)
                                   : soft_from(cpu, insn, 16);
}

static void push_return(soft_cpu *cpu, const soft_insn *insn) {
  uint64_t sp = cpu->r[RSP];
  soft_push(cpu, &sp, soft_rip_after(cpu, insn), insn->operand_size);
  soft_set_stack(cpu, sp);
}

/* The block of a target that changes: known to the jump cache, and compared in this epoch. */
SOFT_INLINE const soft_block *cached(const soft_cpu *cpu, uint64_t rip) {
  uint64_t linear = cpu->cs_base + rip;
  const soft_jump *jump = soft_jump_of(cpu, linear);
  return soft_likely(jump->linear == linear && jump->stamp == cpu->stamp && cpu->budget > 0)
             ? jump->block
             : NULL;
}

static SOFT_COLD const soft_insn *jump_slow(soft_cpu *cpu, uint64_t rip) {
  cpu->rip = rip;
  return may_chain(cpu) ? soft_enter(cpu, soft_block_next(cpu), rip) : NULL;
}

SOFT_INLINE const soft_insn *chain_to(soft_cpu *cpu, uint64_t rip) {
  const soft_block *block = cached(cpu, rip);
  if (block) {
    SOFT_GO(soft_enter(cpu, block, rip));
  }
  return jump_slow(cpu, rip);
}

SOFT_OP(end) {
  uint64_t rip = soft_rip_at(cpu, insn);
  if (soft_linked(cpu, insn, rip)) {
    SOFT_GO(soft_enter(cpu, insn->link, rip));
  }
  return soft_fall_slow(cpu, insn, 0);
}

#define JUMP_IF(condition)                                                                         \
  static SOFT_HANDLER(jump_if_##condition) {                                                       \
    return soft_condition(cpu, condition) ? soft_branch(cpu, insn) : soft_fall(cpu, insn);         \
  }
JUMP_IF(0)
JUMP_IF(1)
JUMP_IF(2)
JUMP_IF(3)
JUMP_IF(4)
JUMP_IF(5)
JUMP_IF(6)
JUMP_IF(7)
JUMP_IF(8)
JUMP_IF(9)
JUMP_IF(10)
JUMP_IF(11)
JUMP_IF(12)
JUMP_IF(13)
JUMP_IF(14)
JUMP_IF(15)

const soft_handler soft_op_jump_if[16] = {
    jump_if_0, jump_if_1, jump_if_2,  jump_if_3,  jump_if_4,  jump_if_5,  jump_if_6,  jump_if_7,
    jump_if_8, jump_if_9, jump_if_10, jump_if_11, jump_if_12, jump_if_13, jump_if_14, jump_if_15};

SOFT_OP(jmp) {
  return soft_branch(cpu, insn);
}

SOFT_INLINE const soft_insn *call_slow(soft_cpu *cpu, const soft_insn *insn, int bits) {
  uint64_t target = soft_target(cpu, insn);
  (void)bits;
  check_called(cpu, insn, target);
  push_return(cpu, insn);
  return chain(cpu, insn, target);
}

SOFT_INLINE const soft_insn *call(soft_cpu *cpu, const soft_insn *insn, int bits,
                                  soft_handler slow) {
  uint64_t target = soft_target(cpu, insn);
  uint64_t sp = soft_quick_sp(cpu, (unsigned)bits / 8) - (unsigned)bits / 8;
  cpu->current = insn;
  void *host = soft_quick_stack(cpu, sp, (unsigned)bits / 8, SOFT_WRITE);
  if (soft_unlikely(!host) || !soft_linked(cpu, insn, target)) {
    return slow(cpu, insn, 0);
  }
  soft_poke(host, soft_rip_after(cpu, insn), bits);
  soft_set_quick_stack(cpu, sp, (unsigned)bits / 8);
  SOFT_GO(soft_enter(cpu, insn->link, target));
}
SOFT_BY_SIZE_OR_SLOW(call)

SOFT_OP(jmp_to) {
  uint64_t target = indirect(cpu, insn);
  check_target(cpu, insn, target);
  return chain_to(cpu, target);
}

SOFT_OP(call_to) {
  uint64_t target = indirect(cpu, insn);
  check_called(cpu, insn, target);
  push_return(cpu, insn);
  return jump_slow(cpu, target);
}

SOFT_INLINE const soft_insn *ret_slow(soft_cpu *cpu, const soft_insn *insn, int bits) {
  uint64_t sp = cpu->r[RSP];
  cpu->current = insn;
  uint64_t target = soft_pop(cpu, &sp, (unsigned)bits / 8);
  check_target(cpu, insn, target);
  soft_set_stack(cpu, sp + insn->immediate);
  return jump_slow(cpu, target);
}

SOFT_INLINE const soft_insn *ret(soft_cpu *cpu, const soft_insn *insn, int bits,
                                 soft_handler slow) {
  uint64_t sp = soft_quick_sp(cpu, (unsigned)bits / 8);
  cpu->current = insn;
  const void *host = soft_quick_stack(cpu, sp, (unsigned)bits / 8, SOFT_READ);
  if (soft_unlikely(!host)) {
    return slow(cpu, insn, 0);
  }
  uint64_t target = soft_peek(host, bits);
  const soft_block *block = cached(cpu, target);
  if (soft_unlikely(!block)) {
    return slow(cpu, insn, 0);
  }
  soft_set_quick_stack(cpu, sp + (unsigned)bits / 8 + insn->immediate, (unsigned)bits / 8);
  SOFT_GO(soft_enter(cpu, block, target));
}
SOFT_BY_SIZE_OR_SLOW(ret)

SOFT_OP(loop) {
  int bits = insn->address_size * 8;
  uint64_t count = soft_trim(cpu->r[RCX] - 1, bits);
  bool taken = count && (insn->extra == 0 || soft_zf(cpu) == (insn->extra == 1));
  if (taken) {
    check_target(cpu, insn, soft_target(cpu, insn));
  }
  soft_set_gpr(cpu, RCX, count, bits);
  return taken ? soft_branch(cpu, insn) : soft_fall(cpu, insn);
}

SOFT_OP(jcxz) {
  bool taken = soft_trim(cpu->r[RCX], insn->address_size * 8) == 0;
  return taken ? soft_branch(cpu, insn) : soft_fall(cpu, insn);
}
