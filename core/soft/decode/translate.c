/* SPDX-License-Identifier: MIT
 * What each instruction of a run becomes. RAX has the place of its access to memory; RAX, RCX and
 * RDX are free behind that. */
#include "soft/decode/native.h"

#include <string.h>

/* In the opcodes of shifts; ROL's is 0, and 0 is none. */
enum {
  SHIFT_ROL = 8,
  SHIFT_ROR = 1,
  SHIFT_SHL = 4,
  SHIFT_SHR = 5,
  SHIFT_SAR = 7
};

/* ---- Flags ---- */

static void put_field(soft_run *run, unsigned size, unsigned reg, size_t offset) {
  soft_emit_memory(run, size, 0x89, reg, SOFT_HOST_CPU, (int32_t)offset);
}

/* SF, ZF and PF (soft_set_result); RAX is free. */
static void put_result(soft_run *run, unsigned size, unsigned result) {
  static const unsigned extensions[] = {0xfbe, 0xfbf, 0x63};
  unsigned wide = result;
  if (size < 8) {
    wide = SOFT_HOST_A;
    soft_emit_registers(run, 8, extensions[soft_size_index(size * 8)], wide, result);
  }
  put_field(run, 8, wide, offsetof(soft_cpu, result));
  soft_emit_registers(run, 4, 0xfb6, SOFT_HOST_A, result);
  put_field(run, 4, SOFT_HOST_A, offsetof(soft_cpu, parity));
}

static void put_zero(soft_run *run, unsigned size, size_t offset) {
  soft_emit_memory(run, size, 0xc7, 0, SOFT_HOST_CPU, (int32_t)offset);
  soft_emit_number(run, 0, 4);
}

/* An operand of an operation: a register of the host, or the instruction's immediate. */
typedef struct operand {
  bool is_immediate;
  unsigned host;
  uint64_t immediate;
} operand;

static void put_operation(soft_run *run, unsigned size, unsigned operation, unsigned to,
                          operand from) {
  if (from.is_immediate) {
    soft_emit_immediate(run, size, operation, to, from.immediate);
  } else {
    soft_emit_registers(run, size, operation * 8 | (size > 1), from.host, to);
  }
}

/* The result to memory at RAX. */
static void put_back(soft_run *run, const soft_insn *insn, unsigned result) {
  if (soft_native_stores(insn, NATIVE_ALU)) {
    soft_emit_memory(run, insn->size, 0x88 | (insn->size > 1), result, SOFT_HOST_A, 0);
  }
}

/* The operation and its flags. What goes into each bit of a sum or difference is the exclusive or
 * of its operands and itself; shifted right by one, with CF on top, that is what comes out of each
 * (flags.h). */
static void put_with_flags(soft_run *run, const soft_insn *insn, unsigned operation, unsigned to,
                           operand from) {
  unsigned size = insn->size;
  bool carries = operation == SOFT_ADD || operation == SOFT_SUB;
  if (carries) {
    soft_emit_registers(run, 8, 0x89, to, SOFT_HOST_C);
    put_operation(run, size == 8 ? 8 : 4, SOFT_XOR, SOFT_HOST_C, from);
  }
  put_operation(run, size, operation, to, from);
  put_back(run, insn, to);
  if (carries) {
    soft_emit_registers(run, 4, 0x19, SOFT_HOST_A, SOFT_HOST_A); /* sbb: CF is in each bit */
    soft_emit_registers(run, 8, 0x31, to, SOFT_HOST_C);
    soft_emit_registers(run, 4, 0x01, SOFT_HOST_A, SOFT_HOST_A);       /* add: is CF */
    soft_emit_registers(run, size, 0xd0 | (size > 1), 3, SOFT_HOST_C); /* rcr */
    put_field(run, 4, SOFT_HOST_C, offsetof(soft_cpu, adjust));
    if (size < 8) {
      soft_emit_registers(run, 8, 0xc1, 4, SOFT_HOST_C); /* shl */
      soft_emit(run, 64 - 8 * size);
    }
    put_field(run, 8, SOFT_HOST_C, offsetof(soft_cpu, carry));
  } else {
    put_zero(run, 8, offsetof(soft_cpu, carry));
    put_zero(run, 4, offsetof(soft_cpu, adjust));
  }
  put_result(run, size, to);
}

/* ---- Instructions ---- */

unsigned soft_native_extension(const soft_insn *insn, unsigned *size) {
  unsigned index = soft_size_index(insn->size * 8u);
  const struct {
    soft_handler handler;
    unsigned opcode, size;
  } all[] = {{soft_op_movzx8[index], 0xfb6, 1},
             {soft_op_movzx16[index], 0xfb7, 2},
             {soft_op_movsx8[index], 0xfbe, 1},
             {soft_op_movsx16[index], 0xfbf, 2},
             {soft_op_movsx32[3], 0x63, 4}};
  for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
    if (insn->run == all[i].handler) {
      *size = all[i].size;
      return all[i].opcode;
    }
  }
  return 0;
}

static unsigned to_host(soft_run *run, const soft_insn *insn, bool reads) {
  return soft_host_of(run, insn->to / 8, insn->size, reads, true);
}

static operand from_operand(soft_run *run, const soft_insn *insn) {
  operand from = {.is_immediate = insn->from_kind == SOFT_IMMEDIATE};
  if (from.is_immediate) {
    from.immediate = insn->immediate;
  } else {
    from.host = soft_host_of(run, insn->from / 8, insn->size, true, false);
  }
  return from;
}

/* What it reads is asked for before what it writes. */
static void put_lea(soft_run *run, const soft_insn *insn) {
  const unsigned parts[] = {insn->base, insn->index};
  for (unsigned i = 0; i < 2; i++) {
    if (parts[i] != R_ZERO) {
      soft_host_of(run, parts[i], insn->size, true, false);
    }
  }
  soft_emit_lea(run, insn, insn->size, to_host(run, insn, false));
}

/* What is read of memory at RAX, as a register. */
static void put_read(soft_run *run, unsigned size, unsigned to) {
  unsigned opcode = size == 1 ? 0xfb6 : size == 2 ? 0xfb7 : 0x8b;
  soft_emit_memory(run, size == 8 ? 8 : 4, opcode, to, SOFT_HOST_A, 0);
}

static void put_move(soft_run *run, const soft_insn *insn) {
  unsigned size = insn->size, wide = size > 1;
  if (insn->from_kind == SOFT_MEMORY) {
    soft_emit_memory(run, size, 0x8a | wide, to_host(run, insn, false), SOFT_HOST_A, 0);
    return;
  }
  operand from = from_operand(run, insn);
  bool to_memory = insn->to_kind == SOFT_MEMORY;
  unsigned to = to_memory ? SOFT_HOST_A : to_host(run, insn, false);
  unsigned opcode = from.is_immediate ? 0xc6 | wide : 0x88 | wide, reg = from.host;
  if (to_memory) {
    soft_emit_memory(run, size, opcode, reg, to, 0);
  } else {
    soft_emit_registers(run, size, opcode, reg, to);
  }
  if (from.is_immediate) {
    soft_emit_number(run, from.immediate, size < 4 ? size : 4);
  }
}

/* A comparison's difference, and what goes back to memory, are in RDX. */
static void put_alu(soft_run *run, const soft_insn *insn, bool flags) {
  bool compares = insn->extra == SOFT_CMP || insn->extra == SOFT_TEST;
  unsigned operation = insn->extra == SOFT_CMP    ? SOFT_SUB
                       : insn->extra == SOFT_TEST ? SOFT_AND
                                                  : insn->extra;
  operand from = {.host = SOFT_HOST_A};
  unsigned to = SOFT_HOST_D;
  if (compares && !flags && !soft_native_memory(insn)) {
    return;
  }
  if (insn->from_kind == SOFT_MEMORY) {
    put_read(run, insn->size, SOFT_HOST_A);
  } else {
    from = from_operand(run, insn);
  }
  if (insn->to_kind == SOFT_MEMORY) {
    put_read(run, insn->size, to);
  } else if (compares) {
    unsigned host = soft_host_of(run, insn->to / 8, insn->size, true, false);
    soft_emit_registers(run, 8, 0x89, host, to);
  } else {
    to = to_host(run, insn, true);
  }
  if (flags) {
    put_with_flags(run, insn, operation, to, from);
  } else {
    put_operation(run, insn->size, operation, to, from);
    put_back(run, insn, to);
  }
}

static void put_extension(soft_run *run, const soft_insn *insn) {
  unsigned size, opcode = soft_native_extension(insn, &size);
  if (insn->from_kind == SOFT_MEMORY) {
    soft_emit_memory(run, insn->size, opcode, to_host(run, insn, false), SOFT_HOST_A, 0);
  } else {
    unsigned from = soft_host_of(run, insn->from / 8, size, true, false);
    soft_emit_registers(run, insn->size, opcode, to_host(run, insn, false), from);
  }
}

/* The stack pointer is changed behind the store of a push, and before the load of a pop. */
static void put_stack(soft_run *run, const soft_insn *insn, native_kind kind) {
  unsigned size = insn->operand_size;
  unsigned stack = soft_host_of(run, RSP, size, true, true);
  if (kind == NATIVE_PUSH) {
    unsigned from = soft_host_of(run, insn->from / 8, size, true, false);
    soft_emit_memory(run, size, 0x89, from, SOFT_HOST_A, 0);
    soft_emit_immediate(run, size, SOFT_SUB, stack, size);
  } else {
    soft_emit_immediate(run, size, SOFT_ADD, stack, size);
    unsigned to = soft_host_of(run, insn->to / 8, size, false, true);
    soft_emit_memory(run, size, 0x8b, to, SOFT_HOST_A, 0);
  }
}

bool soft_native_place(soft_run *run, const soft_insn *insn, native_kind kind) {
  unsigned size = insn->size;
  soft_access access = soft_native_stores(insn, kind) ? SOFT_WRITE : SOFT_READ;
  if (kind == NATIVE_PUSH || kind == NATIVE_POP) {
    size = insn->operand_size;
    return soft_emit_stack(run, size, kind == NATIVE_PUSH ? size : 0, access);
  }
  if (kind == NATIVE_EXTEND) {
    soft_native_extension(insn, &size);
  }
  return soft_emit_place(run, insn, size, access);
}

/* ---- Shifts and products ---- */

/* ROL is 8 here, for 0 is none: the opcode has the lowest three bits. */
unsigned soft_native_shift(const soft_insn *insn) {
  unsigned index = soft_size_index(insn->size * 8u);
  const struct {
    soft_handler handler;
    unsigned operation;
  } all[] = {{soft_op_rol[index], SHIFT_ROL},
             {soft_op_ror[index], SHIFT_ROR},
             {soft_op_shl[index], SHIFT_SHL},
             {soft_op_shr[index], SHIFT_SHR},
             {soft_op_sar[index], SHIFT_SAR}};
  for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
    if (insn->run == all[i].handler) {
      return all[i].operation;
    }
  }
  return 0;
}

/* RCX to bit 63 on. */
static void put_to_top(soft_run *run, unsigned reg, unsigned size) {
  if (size < 8) {
    soft_emit_registers(run, 8, 0xc1, 4, reg); /* shl */
    soft_emit(run, 64 - 8 * size);
  }
}

/* CF and OF as execute/shift.c has them: OF of SHR is the sign there was, in RDX; of SAR it is 0;
 * of the others CF is not the sign there is, or of ROR the bit below it is not. */
static void put_shift_carry(soft_run *run, unsigned size, unsigned operation, unsigned result) {
  if (operation == SHIFT_SAR || operation == SHIFT_SHR) {
    soft_emit_registers(run, 8, 0x19, SOFT_HOST_C, SOFT_HOST_C); /* sbb */
    if (operation == SHIFT_SHR) {
      put_to_top(run, SOFT_HOST_D, size);
      soft_emit_registers(run, 8, 0xd1, 5, SOFT_HOST_D); /* shr */
      soft_emit_registers(run, 8, 0x31, SOFT_HOST_D, SOFT_HOST_C);
    }
  } else {
    soft_emit_registers(run, 8, 0x89, result, SOFT_HOST_C);
    if (operation != SHIFT_ROR) {
      soft_emit_registers(run, size, 0xd0 | (size > 1), 3, SOFT_HOST_C); /* rcr */
    }
    put_to_top(run, SOFT_HOST_C, size);
  }
  put_field(run, 8, SOFT_HOST_C, offsetof(soft_cpu, carry));
}

static void put_shift(soft_run *run, const soft_insn *insn, bool flags) {
  unsigned size = insn->size, operation = soft_native_shift(insn);
  unsigned to = to_host(run, insn, true);
  if (flags && operation == SHIFT_SHR) {
    soft_emit_registers(run, 8, 0x89, to, SOFT_HOST_D);
  }
  soft_emit_registers(run, size, 0xc0 | (size > 1), operation & 7, to);
  soft_emit(run, (unsigned)insn->immediate & (size == 8 ? 63 : 31));
  if (flags) {
    put_shift_carry(run, size, operation, to);
    if (operation != SHIFT_ROL && operation != SHIFT_ROR) {
      put_zero(run, 4, offsetof(soft_cpu, adjust));
      put_result(run, size, to);
    }
  }
}

/* CF and OF are one. */
static void put_product(soft_run *run, const soft_insn *insn, bool flags) {
  unsigned size = insn->size, opcode = insn->extra ? 0x69 : 0xfaf;
  bool loads = insn->from_kind == SOFT_MEMORY;
  unsigned from = loads ? SOFT_HOST_A : soft_host_of(run, insn->from / 8, size, true, false);
  unsigned to = to_host(run, insn, !insn->extra);
  if (loads) {
    soft_emit_memory(run, size, opcode, to, from, 0);
  } else {
    soft_emit_registers(run, size, opcode, to, from);
  }
  if (insn->extra) {
    soft_emit_number(run, insn->immediate, size < 4 ? size : 4);
  }
  if (flags) {
    soft_emit_registers(run, 8, 0x19, SOFT_HOST_C, SOFT_HOST_C); /* sbb */
    soft_emit_registers(run, 8, 0xc1, 4, SOFT_HOST_C);           /* shl */
    soft_emit(run, 63);
    put_field(run, 8, SOFT_HOST_C, offsetof(soft_cpu, carry));
    put_zero(run, 4, offsetof(soft_cpu, adjust));
    put_result(run, size, to);
  }
}

static void put_step(soft_run *run, const soft_insn *insn) {
  bool down = insn->run == soft_op_dec[soft_size_index(insn->size * 8u)];
  unsigned wide = insn->size > 1;
  soft_emit_registers(run, insn->size, 0xfe | wide, down, to_host(run, insn, true));
}

void soft_native_put(soft_run *run, const soft_insn *insn, native_kind kind, bool flags) {
  switch (kind) {
    case NATIVE_LEA:
      put_lea(run, insn);
      break;
    case NATIVE_EXTEND:
      put_extension(run, insn);
      break;
    case NATIVE_SHIFT:
      put_shift(run, insn, flags);
      break;
    case NATIVE_MULTIPLY:
      put_product(run, insn, flags);
      break;
    case NATIVE_STEP:
      put_step(run, insn);
      break;
    case NATIVE_ALU:
      if (insn->extra == SOFT_MOV) {
        put_move(run, insn);
      } else {
        put_alu(run, insn, flags);
      }
      break;
    default:
      put_stack(run, insn, kind);
      break;
  }
}
