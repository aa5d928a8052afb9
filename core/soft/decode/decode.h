/* SPDX-License-Identifier: MIT
 * What the files of the decoder share: an instruction as Zydis tells it, and the table from
 * mnemonics to handlers. */
#ifndef SOFT_DECODE_H
#define SOFT_DECODE_H

#include "soft/insn.h"

#include <Zydis/Zydis.h>

/* One instruction. */
typedef struct soft_parsed {
  ZydisDecodedInstruction all;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
  const uint8_t *bytes;
  soft_mode mode;
  bool flat; /* SOFT_CODE_FLAT */
} soft_parsed;

/* How the fields of an instruction come from its operands: fields.c. */
typedef void (*soft_shape)(soft_insn *insn, const soft_parsed *parsed);

typedef struct soft_row {
  const soft_handler *sized; /* by the size of the first operand */
  soft_handler plain;
  soft_shape shape; /* after the operands are set; NULL for nothing more */
  bool ends;        /* the block */
} soft_row;

/* table.c: NULL for a mnemonic that the CPU does not have. */
const soft_row *soft_row_of(ZydisMnemonic mnemonic);
/* -1, or the condition of Jcc, SETcc and CMOVcc. */
int soft_condition_of(ZydisMnemonic mnemonic);

/* operand.c */
uint8_t soft_register_offset(ZydisRegister number);
bool soft_is_gpr(ZydisRegister number);
unsigned soft_size_index(unsigned bits);
void soft_set_memory(soft_insn *insn, const soft_parsed *parsed,
                     const ZydisDecodedOperand *operand);
/* The first two operands that the text shows. */
void soft_set_operands(soft_insn *insn, const soft_parsed *parsed);
uint8_t soft_segment_number(ZydisRegister number);

/* shape.c: what single instructions need further. */
void soft_shape_alu(soft_insn *insn, const soft_parsed *parsed, soft_alu operation);
bool soft_shape_mov(soft_insn *insn, const soft_parsed *parsed);
void soft_shape_double_shift(soft_insn *insn, const soft_parsed *parsed);
void soft_shape_step(soft_insn *insn, const soft_parsed *parsed);
void soft_shape_shift(soft_insn *insn, const soft_parsed *parsed);
void soft_shape_rotate(soft_insn *insn, const soft_parsed *parsed);
void soft_shape_lea(soft_insn *insn, const soft_parsed *parsed);
void soft_shape_one(soft_insn *insn, const soft_parsed *parsed);
void soft_shape_imul(soft_insn *insn, const soft_parsed *parsed);
void soft_shape_xchg(soft_insn *insn, const soft_parsed *parsed);
void soft_shape_movzx(soft_insn *insn, const soft_parsed *parsed);
void soft_shape_crc32(soft_insn *insn, const soft_parsed *parsed);
void soft_shape_push(soft_insn *insn, const soft_parsed *parsed);
void soft_shape_pop(soft_insn *insn, const soft_parsed *parsed);
void soft_shape_stack(soft_insn *insn, const soft_parsed *parsed);
void soft_shape_enter(soft_insn *insn, const soft_parsed *parsed);
void soft_shape_immediate(soft_insn *insn, const soft_parsed *parsed);
void soft_shape_string(soft_insn *insn, const soft_parsed *parsed);
void soft_shape_outs(soft_insn *insn, const soft_parsed *parsed);
void soft_shape_out(soft_insn *insn, const soft_parsed *parsed);
void soft_shape_jump(soft_insn *insn, const soft_parsed *parsed);
void soft_shape_call(soft_insn *insn, const soft_parsed *parsed);
void soft_shape_ret(soft_insn *insn, const soft_parsed *parsed);
void soft_shape_relative(soft_insn *insn, const soft_parsed *parsed);
void soft_shape_jcxz(soft_insn *insn, const soft_parsed *parsed);
void soft_shape_wide(soft_insn *insn, const soft_parsed *parsed);
void soft_shape_base(soft_insn *insn, const soft_parsed *parsed);
void soft_shape_segment(soft_insn *insn, const soft_parsed *parsed);
void soft_shape_memory(soft_insn *insn, const soft_parsed *parsed);
void soft_shape_monitor(soft_insn *insn, const soft_parsed *parsed);
void soft_shape_mulx(soft_insn *insn, const soft_parsed *parsed);
void soft_shape_vmx(soft_insn *insn, const soft_parsed *parsed);
void soft_shape_rex(soft_insn *insn, const soft_parsed *parsed);

/* What an instruction of general registers, which cannot fault, does to arithmetic flags. */
enum {
  SOFT_EFFECT_UNKNOWN,
  SOFT_EFFECT_NONE, /* none, or on some, of which it leaves or passes on the others */
  SOFT_EFFECT_REST, /* reads none and writes all, but is not of soft_op_quiet */
  SOFT_EFFECT_ALL   /* reads none and writes all; soft_insn.extra is the soft_alu */
};

/* polish.c: leaves out flags that nothing reads, and makes pairs one; and undoes that. */
void soft_polish(soft_block *block);
void soft_unpolish(soft_block *block);

/* native.c: machine code for the block's runs; there has to be room for stubs, and vector state has
 * to be parked. */
void soft_make_runs(soft_cpu *cpu, soft_block *block);

/* vector/stub.c: makes a vector instruction of it; the stub goes into the arena. */
void soft_decode_vector(soft_cpu *cpu, soft_insn *insn, const soft_parsed *parsed);
/* vector/gather.c: false for what is none, or none that may be executed. */
bool soft_decode_gather(soft_cpu *cpu, soft_insn *insn, const soft_parsed *parsed);

#endif
