/* SPDX-License-Identifier: MIT
 * Stubs: the code of vector instructions, in the vCPU's memory, as long as its blocks live. */
#ifndef SOFT_STUB_H
#define SOFT_STUB_H

#include "soft/decode/decode.h"
#include "soft/vector/vector.h"

enum {
  SOFT_STUB_POOL = 16 << 20,
  SOFT_STUB_KEPT = 2 << 20, /* of it, for what cannot do without */
  SOFT_STUB_MOST = 128,     /* bytes */
  SOFT_STUB_ALIGN = 32
};

/* What a stub is made of. */
typedef struct soft_stub_key {
  uint8_t bytes[32]; /* the instruction */
  uint8_t size;
  int8_t gpr[3]; /* guest registers for rax, rcx, rdx; -1 */
  bool written[3];
  soft_vector_kind kind;
  bool alone; /* without a memory operand and flags: it may be a handler itself */
  bool waits;
  bool points; /* sets FOP and FIP */
  bool flags_in;
  bool flags_out;
} soft_stub_key;

typedef struct soft_stub_code {
  uint8_t bytes[SOFT_STUB_MOST];
  uint8_t size;
  uint8_t entry; /* where soft_vector_code begins; a handler begins at 0 */
} soft_stub_code;

/* assemble.c */
void soft_stub_assemble(soft_stub_code *code, const soft_stub_key *key);
/* pool.c: where the code is, put there where it is not yet; NULL without memory. */
const uint8_t *soft_stub_find(soft_cpu *cpu, const soft_stub_code *code);
/* Code of another kind, in parts; NULL without memory. */
typedef struct soft_stub_part {
  const uint8_t *bytes;
  size_t size;
} soft_stub_part;
const uint8_t *soft_stub_put(soft_cpu *cpu, const soft_stub_part *parts, unsigned count);
/* Whether a block's worth of them fits. */
bool soft_stubs_have_room(const soft_cpu *cpu);
void soft_stubs_drop(soft_cpu *cpu);
void soft_stubs_free(soft_cpu *cpu);

/* Masked moves leave `run` to what knows which elements are wanted. */
void soft_decode_masked(soft_insn *insn, soft_vector *vector, const soft_parsed *parsed);
/* evex.c: the same for an opmask. */
void soft_decode_evex(soft_insn *insn, soft_vector *vector, const soft_parsed *parsed,
                      const ZydisDecodedOperand *memory);

#endif
