/* SPDX-License-Identifier: MIT
 * What the files of runs share: the kinds of instructions that can be one of a run, and what each
 * becomes. */
#ifndef SOFT_NATIVE_H
#define SOFT_NATIVE_H

#include "soft/decode/emit.h"

typedef enum native_kind {
  NATIVE_NONE,
  NATIVE_LEA,
  NATIVE_ALU, /* MOV too */
  NATIVE_EXTEND,
  NATIVE_SHIFT, /* a register by a number; rotations too */
  NATIVE_MULTIPLY,
  NATIVE_STEP, /* INC and DEC */
  NATIVE_PUSH,
  NATIVE_POP
} native_kind;

static inline bool soft_native_memory(const soft_insn *insn) {
  return insn->to_kind == SOFT_MEMORY || insn->from_kind == SOFT_MEMORY;
}

/* Whether it writes to memory. */
static inline bool soft_native_stores(const soft_insn *insn, native_kind kind) {
  return kind == NATIVE_PUSH || (kind == NATIVE_ALU && insn->to_kind == SOFT_MEMORY &&
                                 insn->extra != SOFT_CMP && insn->extra != SOFT_TEST);
}

/* translate.c: the opcode of MOVZX or a relative, and the bytes of its source; 0 for none. */
unsigned soft_native_extension(const soft_insn *insn, unsigned *size);
/* The operation of a shift or rotation in its opcode; 0 for none. */
unsigned soft_native_shift(const soft_insn *insn);
/* The place of the instruction's access to memory into RAX; false where it is none that this can
 * do. Then the instruction, with its flags or without. */
bool soft_native_place(soft_run *run, const soft_insn *insn, native_kind kind);
void soft_native_put(soft_run *run, const soft_insn *insn, native_kind kind, bool flags);

#endif
