/* SPDX-License-Identifier: MIT
 * MOVS, STOS and their kind as the guest's code has them (SDM Vol. 2). */
#include "hvf/exit/string.h"

#include "hvf/exit/code.h"
#include "hvf/exit/prefix.h"

uint32_t hvf_string_length(hvf_vcpu *v, uint64_t rip) {
  hvf_code c;
  if (!hvf_code_read(v, rip, &c)) {
    return 0;
  }
  const uint8_t *bytes = c.bytes + HVF_LONGEST;
  uint32_t count = hvf_prefixes_read(bytes, c.after, c.bits).count;
  /* MOVS, CMPS: A4 to A7; STOS, LODS, SCAS: AA to AF */
  bool string = count < c.after &&
                ((bytes[count] & 0xfc) == 0xa4 || (bytes[count] >= 0xaa && bytes[count] <= 0xaf));
  return string ? count + 1 : 0;
}
