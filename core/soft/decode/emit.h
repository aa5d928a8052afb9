/* SPDX-License-Identifier: MIT
 * Machine code of the host for a run of guest instructions, piece by piece: which of the host's
 * registers have the guest's, moves and operations on them, and the guest's memory. */
#ifndef SOFT_EMIT_H
#define SOFT_EMIT_H

#include "soft/decode/decode.h"

enum {
  SOFT_RUN_BYTES = 2048, /* the most code of a run */
  SOFT_RUN_HOSTS = 8,    /* of the guest's registers that it uses */
  SOFT_RUN_LEAVES = 96   /* places that leave it */
};

/* The host's registers by their numbers: RDI is the CPU, RSI the first instruction; these are for
 * the pieces themselves. */
enum {
  SOFT_HOST_A = 0,
  SOFT_HOST_C = 1,
  SOFT_HOST_D = 2,
  SOFT_HOST_CPU = 7
};

/* What a run is made into. A run is undone by leaving it: the guest's registers change when it
 * ends, or when it has stored to memory (soft_emit_commit), and what comes then is the first
 * instruction since, by its own handler. */
typedef struct soft_run {
  unsigned kind;     /* soft_code_kind of its block */
  unsigned used;     /* how many of the guest's registers have one of the host's */
  bool has_scratch;  /* RAX, RCX and RDX are for the pieces, not for the guest's registers */
  bool checks_stack; /* that the stack pointer is SP was made sure of */
  bool is_full;
  uint8_t guest[SOFT_RUN_HOSTS];
  uint8_t set[SOFT_RUN_HOSTS];    /* how many bytes the first with it has set; 0: it reads */
  uint8_t widest[SOFT_RUN_HOSTS]; /* the bytes that all of the run together see of it */
  bool changed[SOFT_RUN_HOSTS];   /* since the last commit */
  unsigned base;                  /* the instruction that leaving goes to */
  unsigned leaves;
  struct {
    uint16_t at; /* of the four bytes of a jump's distance */
    uint8_t to;
  } leave[SOFT_RUN_LEAVES];
  unsigned size;
  uint8_t bytes[SOFT_RUN_BYTES];
} soft_run;

/* The host's register for a guest's, of which an instruction reads or writes `size` bytes; where
 * there is none left, the run is full. */
unsigned soft_host_of(soft_run *run, unsigned guest, unsigned size, bool reads, bool writes);

void soft_emit(soft_run *run, unsigned byte);
void soft_emit_number(soft_run *run, uint64_t number, unsigned size);
/* An instruction on registers of 1, 2, 4 or 8 bytes, or on one and memory at base + displacement;
 * opcodes from 0xf00 on have two bytes. */
void soft_emit_registers(soft_run *run, unsigned size, unsigned opcode, unsigned reg, unsigned rm);
void soft_emit_memory(soft_run *run, unsigned size, unsigned opcode, unsigned reg, unsigned base,
                      int32_t displacement);
/* One of the eight operations of opcode 81h with an immediate. */
void soft_emit_immediate(soft_run *run, unsigned size, unsigned operation, unsigned rm,
                         uint64_t value);
/* LEA of the operand into a register of the host; the sum wraps at `size` bytes. */
void soft_emit_lea(soft_run *run, const soft_insn *insn, unsigned size, unsigned to);

/* The operand's place in the host, into RAX; leaves where the TLB or the segment does not serve it.
 * False where it is none that this can do. */
bool soft_emit_place(soft_run *run, const soft_insn *insn, unsigned size, soft_access access);
/* The same of the stack, `below` bytes under the stack pointer. */
bool soft_emit_stack(soft_run *run, unsigned size, unsigned below, soft_access access);
/* What has changed is the guest's; where the run leaves, it goes to this instruction. */
void soft_emit_commit(soft_run *run, unsigned next);
/* The jump behind the run, with the value of a register of the host for the next handler (RDX for
 * none), and what its leaves go to; the first handler is for the first. */
void soft_emit_end(soft_run *run, unsigned count, unsigned passed, soft_handler first);
/* What comes before it, into another buffer of that size; how much it is. */
unsigned soft_emit_begin(const soft_run *run, soft_run *begin);

#endif
