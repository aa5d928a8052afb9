/* SPDX-License-Identifier: MIT
 * The memory operands of instructions. */
#ifndef HVF_OPERAND_H
#define HVF_OPERAND_H

#include "hvf/base/cpu.h"

enum {
  HVF_OPERANDS = 2
};

/* An instruction that accesses memory. */
typedef struct hvf_operand {
  uint32_t length; /* bytes of it; 0 where that is not known: its only operand is not in the code */
  uint32_t count;
  uint64_t linear[HVF_OPERANDS]; /* where its operands are */
  bool store;                    /* writes the first, and does the same when it is done again */
  uint32_t size;                 /* store: bytes; 0 of a vector */
  bool known;                    /* store: what it writes is `value` */
  uint64_t value;
} hvf_operand;

/* Reads the instruction at `rip` in a code segment of 16, 32 or 64 `bits`, from its `size` bytes of
 * code and the registers as they are now. False if it accesses no memory, or is of a kind that is
 * not known. */
bool hvf_operand_read(hvf_vcpu *v, uint64_t rip, uint32_t bits, const uint8_t *code, uint32_t size,
                      hvf_operand *operand);

#endif
