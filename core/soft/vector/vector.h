/* SPDX-License-Identifier: MIT
 * x87, MMX, SSE and AVX instructions, which the host's processor executes: each is a small stub
 * with the guest's own bytes, and the guest's vector state stays in the host's registers while only
 * code runs that does not use them ("live"); before any other code it is saved ("parked"). */
#ifndef SOFT_VECTOR_H
#define SOFT_VECTOR_H

#include "soft/insn.h"

/* What a stub takes and gives beside vector registers. */
typedef struct soft_vector_io {
  uint64_t rax;
  uint64_t flags;
  uint64_t rcx;
  uint64_t rdx;
} soft_vector_io;

typedef void (*soft_vector_code)(void *memory, soft_vector_io *io);

/* What has to be checked before the instruction: which of CR0, CR4 and XCR0 lets it. */
typedef enum soft_vector_kind {
  SOFT_X87,
  SOFT_MMX,
  SOFT_SSE,
  SOFT_AVX,
  SOFT_GENERAL /* BMI, ADX: general registers only */
} soft_vector_kind;

typedef struct soft_vector {
  soft_vector_code code;
  soft_vector_kind kind;
  bool waits; /* takes a pending #MF first */
  bool flags_out;
  bool flags_in;
  uint8_t access; /* SOFT_READ and SOFT_WRITE of the memory operand */
  uint8_t align;  /* bits of its address that have to be 0 */
  uint16_t size;  /* of it, 0 for none */
  int8_t gpr[3];  /* guest registers for rax, rcx, rdx; -1 */
  bool written[3];

} soft_vector;

void soft_live(soft_cpu *cpu);
void soft_park(soft_cpu *cpu);
/* The state after reset. */
void soft_vector_reset(soft_cpu *cpu);
/* What the guest may enable: XCR0's bits. */
uint64_t soft_xcr0_known(void);
bool soft_xcr0_right(const soft_cpu *cpu, uint64_t value);
/* Raises what the instruction may not get past; used by all that touch vector state. */
void soft_vector_check(soft_cpu *cpu, soft_vector_kind kind);

/* Whether the host's processor was within a stub. */
bool soft_in_stub(const soft_cpu *cpu, const void *code);

#endif
