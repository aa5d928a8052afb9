/* SPDX-License-Identifier: MIT
 * Near jumps, calls and returns, and how blocks follow one another: by the link of the branch that
 * ended the last one, by the jump cache, or through the table of blocks. */
#include "soft/execute/execute.h"

static bool may_chain(const soft_cpu *cpu) {
  return cpu->budget > 0 && !cpu->no_links && !cpu->single;
}

/* A block over a page's end is looked at each time. Where all blocks were dropped, this instruction
 * was too. */
const soft_insn *soft_chain_slow(soft_cpu *cpu, const soft_insn *from) {
  soft_insn *insn = (soft_insn *)(uintptr_t)from;
  if (!may_chain(cpu)) {
    return NULL;
  }
  uint64_t drops = cpu->drops;
  soft_block *block = soft_block_find(cpu, false);
  if (!(block->key & SOFT_BLOCK_CROSSES) && cpu->drops == drops) {
    insn->link = block;
    insn->link_generation = cpu->generation;
    insn->link_linear = cpu->cs_base + cpu->rip;
  }
  cpu->budget -= block->count;
  return block->insns;
}

/* A target that changes. */
SOFT_INLINE const soft_insn *chain_to(soft_cpu *cpu, uint64_t rip) {
  uint64_t linear = cpu->cs_base + rip;
  unsigned at = (unsigned)(linear ^ linear >> 10) & (SOFT_JUMPS - 1);
  cpu->rip = rip;
  if (soft_likely(cpu->jumps[at].linear == linear && cpu->jumps[at].generation == cpu->generation &&
                  cpu->budget > 0)) {
    const soft_insn *first = cpu->jumps[at].block->insns;
    cpu->budget -= first->count;
    cpu->r[R_BLOCK] = rip - first->offset;
    return first;
  }
  return NULL;
}

SOFT_INLINE uint64_t target_of(const soft_cpu *cpu, const soft_insn *insn) {
  return soft_trim(cpu->r[R_BLOCK] + insn->immediate, insn->operand_size * 8);
}

SOFT_INLINE void check_target(soft_cpu *cpu, const soft_insn *insn, uint64_t target) {
  cpu->current = insn;
  bool outside = soft_is_64(cpu) ? !soft_canonical(cpu, target) : target > cpu->seg[SEG_CS].limit;
  if (soft_unlikely(outside)) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
}

SOFT_INLINE uint64_t indirect(soft_cpu *cpu, const soft_insn *insn) {
  return insn->operand_size == 8   ? soft_from(cpu, insn, 64)
         : insn->operand_size == 4 ? soft_from(cpu, insn, 32)
                                   : soft_from(cpu, insn, 16);
}

SOFT_INLINE void push_return(soft_cpu *cpu, const soft_insn *insn) {
  uint64_t sp = cpu->r[RSP], back = soft_rip_after(cpu, insn);
  unsigned size = insn->operand_size;
  if (soft_likely(size == 8)) {
    soft_store(cpu, sp - 8, back, 64);
    cpu->r[RSP] = sp - 8;
    return;
  }
  sp -= size;
  uint64_t linear = soft_stack(cpu, sp, size, SOFT_WRITE);
  if (size == 4) {
    soft_store(cpu, linear, back, 32);
  } else {
    soft_store(cpu, linear, back, 16);
  }
  soft_set_stack(cpu, sp);
}

/* Falling through: the record that ends the block has the other link. */
SOFT_INLINE const soft_insn *fall(soft_cpu *cpu, const soft_insn *insn) {
  return soft_chain(cpu, insn + 1, soft_rip_after(cpu, insn));
}

SOFT_OP(end) {
  SOFT_GO(soft_chain(cpu, insn, soft_rip_at(cpu, insn)));
}

SOFT_OP(jcc) {
  if (soft_condition(cpu, insn->condition)) {
    uint64_t target = target_of(cpu, insn);
    check_target(cpu, insn, target);
    SOFT_GO(soft_chain(cpu, insn, target));
  }
  SOFT_GO(fall(cpu, insn));
}

SOFT_OP(jmp) {
  uint64_t target = target_of(cpu, insn);
  check_target(cpu, insn, target);
  SOFT_GO(soft_chain(cpu, insn, target));
}

SOFT_OP(jmp_to) {
  uint64_t target = indirect(cpu, insn);
  check_target(cpu, insn, target);
  SOFT_GO(chain_to(cpu, target));
}

SOFT_OP(call) {
  uint64_t target = target_of(cpu, insn);
  check_target(cpu, insn, target);
  push_return(cpu, insn);
  SOFT_GO(soft_chain(cpu, insn, target));
}

SOFT_OP(call_to) {
  uint64_t target = indirect(cpu, insn);
  check_target(cpu, insn, target);
  push_return(cpu, insn);
  SOFT_GO(chain_to(cpu, target));
}

SOFT_OP(ret) {
  uint64_t sp = cpu->r[RSP], target;
  unsigned size = insn->operand_size;
  cpu->current = insn;
  if (soft_likely(size == 8)) {
    target = soft_load(cpu, sp, 64);
    check_target(cpu, insn, target);
    cpu->r[RSP] = sp + 8 + insn->immediate;
    SOFT_GO(chain_to(cpu, target));
  }
  uint64_t linear = soft_stack(cpu, sp, size, SOFT_READ);
  target = size == 4 ? soft_load(cpu, linear, 32) : soft_load(cpu, linear, 16);
  check_target(cpu, insn, target);
  soft_set_stack(cpu, sp + size + insn->immediate);
  SOFT_GO(chain_to(cpu, target));
}

SOFT_OP(loop) {
  int bits = insn->address_size * 8;
  uint64_t count = soft_trim(cpu->r[RCX] - 1, bits);
  bool taken = count && (insn->extra == 0 || soft_zf(cpu) == (insn->extra == 1));
  uint64_t target = target_of(cpu, insn);
  if (taken) {
    check_target(cpu, insn, target);
  }
  soft_set_gpr(cpu, RCX, count, bits);
  if (taken) {
    SOFT_GO(soft_chain(cpu, insn, target));
  }
  SOFT_GO(fall(cpu, insn));
}

SOFT_OP(jcxz) {
  if (soft_trim(cpu->r[RCX], insn->address_size * 8) == 0) {
    uint64_t target = target_of(cpu, insn);
    check_target(cpu, insn, target);
    SOFT_GO(soft_chain(cpu, insn, target));
  }
  SOFT_GO(fall(cpu, insn));
}
