/* SPDX-License-Identifier: MIT
 * The prefixes of port and string instructions (SDM Vol. 2, 2.1.1). */
#include "hvf/exit/prefix.h"

#include <string.h>

enum {
  SEGMENT_DS = 3
};

/* The number that the VMCS has for the segment of an override prefix; -1 for another byte. */
static int override_of(uint8_t byte) {
  static const uint8_t bytes[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65};
  const uint8_t *found = memchr(bytes, byte, sizeof bytes);
  return found ? (int)(found - bytes) : -1;
}

hvf_prefixes hvf_prefixes_read(const uint8_t *bytes, uint32_t size, uint32_t bits) {
  hvf_prefixes p = {.segment = SEGMENT_DS};
  for (; p.count < size; p.count++) {
    uint8_t byte = bytes[p.count];
    if (override_of(byte) >= 0) {
      p.segment = (uint8_t)override_of(byte);
    } else if (byte == 0x66) {
      p.operand = true;
    } else if (byte == 0x67) {
      p.address = true;
    } else if (byte == 0xf2 || byte == 0xf3) {
      p.repeat = true;
    } else {
      break;
    }
  }
  if (bits == 64 && p.count < size && (bytes[p.count] & 0xf0) == 0x40) { /* REX */
    p.wide = bytes[p.count] & 8;
    p.count++;
  }
  return p;
}

uint8_t hvf_prefixes_address(uint32_t bits, bool other) {
  switch (bits) {
    case 16:
      return other ? 32 : 16;
    case 32:
      return other ? 16 : 32;
    default:
      return other ? 32 : 64;
  }
}
