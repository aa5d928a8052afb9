/* SPDX-License-Identifier: MIT
 * The guest's code around an address. */
#ifndef HVF_CODE_H
#define HVF_CODE_H

#include "hvf/base/cpu.h"

enum {
  HVF_LONGEST = 15 /* of any instruction */
};

/* `before` bytes up to an address, and `after` bytes from it. */
typedef struct hvf_code {
  uint64_t base; /* linear address of offset 0 in the code segment */
  uint32_t bits; /* of the segment: 16, 32 or 64 */
  uint32_t before;
  uint32_t after;
  uint8_t bytes[2 * HVF_LONGEST]; /* the address is in the middle */
} hvf_code;

/* Reads the code around `rip`; false if there is none. */
bool hvf_code_read(hvf_vcpu *v, uint64_t rip, hvf_code *code);

#endif
