/* SPDX-License-Identifier: MIT
 * Stubs: the code of vector instructions, in the vCPU's memory, as long as its blocks live. */
#ifndef SOFT_STUB_H
#define SOFT_STUB_H

#include "soft/vector/vector.h"

enum {
  SOFT_STUB_POOL = 4 << 20,
  SOFT_STUB_MOST = 64 /* bytes */
};

/* What tells stubs apart. */
typedef struct soft_stub_key {
  uint8_t bytes[16];
  uint8_t size;
  uint8_t registers; /* 1 rax, 2 rcx, 4 rdx */
  uint8_t flags_in;
  uint8_t flags_out;
} soft_stub_key;

/* pool.c: the stub, made where there is none yet; NULL without memory. */
soft_vector_code soft_stub_find(soft_cpu *cpu, const soft_stub_key *key);
/* Whether a block's worth of them fits. */
bool soft_stubs_have_room(const soft_cpu *cpu);
void soft_stubs_drop(soft_cpu *cpu);
void soft_stubs_free(soft_cpu *cpu);

#endif
