/* SPDX-License-Identifier: MIT
 * A shadow VMCS: the fields that a guest's VMREAD and VMWRITE reach without an exit, in memory that
 * the vCPU and its kernel share, as a processor finds them behind the VMCS link pointer. */
#ifndef LUNA_KVM_SHADOW_H
#define LUNA_KVM_SHADOW_H

#include "lunavisor.h"

#include <stdbool.h>

enum {
  LUNA_SHADOW_INDICES = 64,     /* of each width and type: Intel has given less than fifty */
  LUNA_SHADOW_FIELDS = 16 * 64, /* for four widths and four types */
  LUNA_SHADOW_RESERVED = 1 << 12
};

/* By place: luna_shadow_place. */
typedef struct luna_shadow {
  uint64_t values[LUNA_SHADOW_FIELDS];
  uint8_t access[LUNA_SHADOW_FIELDS][2]; /* LUNA_READ, LUNA_WRITE; in [1] of the upper half */
} luna_shadow;

/* Whether an encoding is of a field that there can be (SDM Vol. 3, 25.11.2), and where that is. Bit
 * 0 is for the upper half of 64-bit fields, which it has the place of. */
static inline bool luna_shadow_place(uint64_t field, uint32_t *place) {
  const uint64_t index = field >> 1 & 0x1ff;
  const bool wide = (field >> 13 & 3) == 1;
  if (field >> 15 || field & LUNA_SHADOW_RESERVED || index >= LUNA_SHADOW_INDICES ||
      (field & 1 && !wide)) {
    return false;
  }
  *place = (uint32_t)((field >> 13 & 3) << 8 | (field >> 10 & 3) << 6 | index);
  return true;
}

/* The bits that it has; natural width is 64. */
static inline uint64_t luna_shadow_widest(uint32_t field) {
  static const uint64_t widest[] = {UINT16_MAX, UINT64_MAX, UINT32_MAX, UINT64_MAX};
  return field & 1 ? UINT32_MAX : widest[field >> 13 & 3];
}

static inline uint64_t luna_shadow_get(const luna_shadow *shadow, uint32_t field, uint32_t place) {
  return field & 1 ? shadow->values[place] >> 32 : shadow->values[place];
}

/* Bits that it has not are dropped. */
static inline void luna_shadow_set(luna_shadow *shadow, uint32_t field, uint32_t place,
                                   uint64_t value) {
  value &= luna_shadow_widest(field);
  shadow->values[place] = field & 1 ? (uint32_t)shadow->values[place] | value << 32 : value;
}

#endif
