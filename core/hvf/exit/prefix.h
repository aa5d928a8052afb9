/* SPDX-License-Identifier: MIT
 * The prefixes of port and string instructions. */
#ifndef HVF_PREFIX_H
#define HVF_PREFIX_H

#include <stdbool.h>
#include <stdint.h>

typedef struct hvf_prefixes {
  uint32_t count;  /* bytes of them, with REX */
  bool operand;    /* 66 */
  bool address;    /* 67 */
  bool repeat;     /* F2, F3 */
  bool wide;       /* REX.W */
  uint8_t segment; /* as the VMCS numbers them */
} hvf_prefixes;

/* Those that the `size` bytes begin with, in a code segment of 16, 32 or 64 `bits`. */
hvf_prefixes hvf_prefixes_read(const uint8_t *bytes, uint32_t size, uint32_t bits);
/* The address size in bits; `other` than the code segment's own, if 67 says so. */
uint8_t hvf_prefixes_address(uint32_t bits, bool other);

#endif
