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
    insn->silent = !wanted;
    if (insn->effect == SOFT_EFFECT_ALL) {
      bool immediate = insn->from_kind == SOFT_IMMEDIATE;
      const soft_handler *quiet = soft_op_quiet[insn->extra][size_of(insn)][immediate];
      if (!wanted && quiet[SOFT_TAKE_NONE]) {
        insn->takes = quiet;
        insn->run = quiet[SOFT_TAKE_NONE];
      }
    }
    wanted = insn->effect == SOFT_EFFECT_UNKNOWN || (insn->effect == SOFT_EFFECT_NONE && wanted);
  }
  block->insns[0].forgets = !wanted;
}

/* The value of `from` is in a register of the host when `insn` begins: what it can be there. */
static soft_take take_of(const soft_insn *from, const soft_insn *insn) {
  bool wide = from->gives == 8;
  if (!from->gives || !insn->chooses) {
    return SOFT_TAKE_NONE;
  }
  if (insn->to_kind == SOFT_REGISTER && insn->to == from->to && insn->size <= from->gives &&
      insn->takes[SOFT_TAKE_TO]) {
    return SOFT_TAKE_TO;
  }
  if (insn->from_kind == SOFT_REGISTER && insn->from == from->to && insn->size <= from->gives &&
      insn->takes[SOFT_TAKE_FROM]) {
    return SOFT_TAKE_FROM;
  }
  if (wide && insn->base * 8 == from->to && insn->takes[SOFT_TAKE_BASE]) {
    return SOFT_TAKE_BASE;
  }
  if (wide && insn->index * 8 == from->to && insn->takes[SOFT_TAKE_INDEX]) {
    return SOFT_TAKE_INDEX;
  }
  return SOFT_TAKE_NONE;
}

static void pass_values(soft_block *block) {
  for (unsigned i = 1; i < block->count; i++) {
    soft_insn *insn = &block->insns[i];
    soft_take take = take_of(insn - 1, insn);
    if (take != SOFT_TAKE_NONE) {
      insn->run = insn->takes[take];
    }
  }
}

static bool pair_of(const soft_insn *insn, soft_pair *pair) {
  if (insn->effect == SOFT_EFFECT_ALL && (insn->extra == SOFT_CMP || insn->extra == SOFT_TEST)) {
    *pair = insn->extra == SOFT_CMP ? SOFT_CMP_JUMP : SOFT_TEST_JUMP;
    return true;
  }
  *pair = SOFT_DEC_JUMP;
  return insn->steps_down;
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
  pass_values(block);
  join(block);
}

void soft_unpolish(soft_block *block) {
  block->heat = 0;
  for (unsigned i = 0; i < block->count; i++) {
    soft_insn *insn = &block->insns[i];
    insn->run = insn->native ? insn->usual : insn->run;
    insn->native = false;
    if (insn->effect == SOFT_EFFECT_ALL) {
      bool immediate = insn->from_kind == SOFT_IMMEDIATE;
      soft_form form = immediate ? SOFT_REGISTER_IMMEDIATE : SOFT_REGISTER_REGISTER;
      insn->takes = soft_op_alu[insn->extra][size_of(insn)][form];
    }
    if (insn->chooses) {
      insn->run = insn->takes[SOFT_TAKE_NONE];
    } else if (insn->steps_down) {
      insn->run = soft_op_dec[size_of(insn)];
    }
  }
}
