/* SPDX-License-Identifier: MIT
 * What a whole block tells of its instructions. Flags that the next instruction writes anew need
 * not be told, if nothing in between can fault: nothing looks at them, for a trap or an interrupt
 * finds only the ends of blocks, and an instruction that is stepped is a block of its own. */
#include "soft/decode/decode.h"

static unsigned size_of(const soft_insn *insn) {
  return soft_size_index(insn->size * 8u);
}

static void leave_flags_out(soft_block *block) {
  bool wanted = true;
  for (unsigned i = block->count; i-- > 0;) {
    soft_insn *insn = &block->insns[i];
    if (insn->effect == SOFT_EFFECT_ALL) {
      bool immediate = insn->from_kind == SOFT_IMMEDIATE;
      soft_handler quiet = soft_op_quiet[insn->extra][size_of(insn)][immediate];
      if (!wanted && quiet) {
        insn->run = quiet;
      }
      wanted = false;
    } else if (insn->effect == SOFT_EFFECT_UNKNOWN) {
      wanted = true;
    }
  }
}

static bool pair_of(const soft_insn *insn, soft_pair *pair) {
  if (insn->effect == SOFT_EFFECT_ALL && (insn->extra == SOFT_CMP || insn->extra == SOFT_TEST)) {
    *pair = insn->extra == SOFT_CMP ? SOFT_CMP_JUMP : SOFT_TEST_JUMP;
    return true;
  }
  *pair = SOFT_DEC_JUMP;
  return insn->run == soft_op_dec[size_of(insn)] && insn->to_kind == SOFT_REGISTER;
}

static void join(soft_block *block) {
  if (block->count < 2) {
    return;
  }
  soft_insn *first = &block->insns[block->count - 2], *last = first + 1;
  soft_pair pair;
  if (last->run == soft_op_jump_if[last->condition] && pair_of(first, &pair)) {
    bool immediate = first->from_kind == SOFT_IMMEDIATE;
    soft_handler joined = soft_op_pair[pair][size_of(first)][immediate][last->condition];
    first->run = joined ? joined : first->run;
  }
}

void soft_polish(soft_block *block) {
  leave_flags_out(block);
  join(block);
}
