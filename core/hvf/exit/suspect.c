/* SPDX-License-Identifier: MIT
 * Which writes of registers can make a VM entry fail: programs move RIP at each exit, and that a
 * canonical one breaks a rule is left to the processor. */
#include "hvf/exit/suspect.h"

enum {
  FLAGS_ONE = 1 << 1, /* the bit that is always 1 */
  FLAGS_VM = 1 << 17
};

static const uint64_t flags_none = ~UINT64_C(0x3f7fd7); /* bits that are always 0 */

static bool can_break(int reg, uint64_t value) {
  switch (reg) {
    case LUNA_RIP:
      return (uint64_t)((int64_t)(value << 16) >> 16) != value;
    case LUNA_RFLAGS:
      return value & (flags_none | FLAGS_VM) || !(value & FLAGS_ONE);
    case LUNA_CR2:
    case LUNA_CR8:
      return false;
    default:
      return reg > LUNA_RFLAGS && reg <= LUNA_LDTR_ACCESS;
  }
}

void hvf_suspect_note(hvf_vcpu *v, int reg, uint64_t value) {
  v->suspect |= can_break(reg, value);
  if (reg == LUNA_RFLAGS) {
    v->flags_wrong = !(value & FLAGS_ONE); /* which KVM sets */
  }
}
