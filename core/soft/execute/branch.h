/* SPDX-License-Identifier: MIT
 * How a handler of a near branch goes on: by its link where that still leads there, else through
 * the table of blocks. */
#ifndef SOFT_BRANCH_H
#define SOFT_BRANCH_H

#include "soft/execute/execute.h"

/* branch.c: checks the target, and looks for its block; what the loop runs next. */
SOFT_HANDLER(soft_branch_slow);
SOFT_HANDLER(soft_fall_slow);

/* The target was checked, and its block compared with memory, when the link was made. */
SOFT_INLINE bool soft_linked(const soft_cpu *cpu, const soft_insn *insn, uint64_t rip) {
  return soft_likely(insn->link_stamp == cpu->stamp && insn->link_rip == rip && cpu->budget > 0);
}

SOFT_INLINE const soft_insn *soft_enter(soft_cpu *cpu, const soft_block *block, uint64_t rip) {
  const soft_insn *first = block->insns;
  cpu->rip = rip;
  cpu->budget -= first->count;
  cpu->r[R_BLOCK] = rip - first->offset;
  return first;
}

/* displacement is the mask of instruction pointers. */
SOFT_INLINE uint64_t soft_target(const soft_cpu *cpu, const soft_insn *insn) {
  return (cpu->r[R_BLOCK] + insn->immediate) & (uint64_t)insn->displacement;
}

SOFT_INLINE const soft_insn *soft_branch(soft_cpu *cpu, const soft_insn *insn) {
  uint64_t target = soft_target(cpu, insn);
  if (soft_linked(cpu, insn, target)) {
    SOFT_GO(soft_enter(cpu, insn->link, target));
  }
  return soft_branch_slow(cpu, insn, 0);
}

/* The record that ends the block has the other link. */
SOFT_INLINE const soft_insn *soft_fall(soft_cpu *cpu, const soft_insn *insn) {
  uint64_t rip = soft_rip_at(cpu, insn + 1);
  if (soft_linked(cpu, insn + 1, rip)) {
    SOFT_GO(soft_enter(cpu, insn[1].link, rip));
  }
  return soft_fall_slow(cpu, insn + 1, 0);
}

#endif
