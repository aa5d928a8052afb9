/* SPDX-License-Identifier: MIT
 * CR0.NE and CR4.VMXE, which a processor demands in VMX operation (SDM Vol. 3, 24.8), and programs
 * set. On one, the guest has them, and reads instead of a masked bit its shadow (25.6.6). KVM's
 * registers are what the guest reads: they have the shadow of a masked bit, and VMXE, which does
 * nothing in a guest, only if the guest has set it there itself. */
#include "hvf/exit/fixed.h"

enum {
  NONE = -1,
  CR0_NE = 1 << 5,
  CR4_VMXE = 1 << 13
};

static int index_of(int reg) {
  return reg == LUNA_CR0 ? 0 : reg == LUNA_CR4 ? 1 : NONE;
}

uint64_t hvf_fixed_bits(int index) {
  return index == 0 ? CR0_NE : CR4_VMXE;
}

/* Those that are kept here rather than in KVM's register. */
static uint64_t kept_bits(const hvf_vcpu *v, int index) {
  return index == 0 ? v->masks[0] : CR4_VMXE;
}

uint64_t hvf_fixed_seen(const hvf_vcpu *v, int reg, uint64_t value) {
  const int index = index_of(reg);
  if (index == NONE) {
    return value;
  }
  return (value & ~v->masks[index]) | (v->kept[index] & kept_bits(v, index));
}

uint64_t hvf_fixed_given(const hvf_vcpu *v, int reg, uint64_t value, uint64_t now) {
  const int index = index_of(reg);
  if (index == NONE) {
    return value;
  }
  const uint64_t mask = v->masks[index];
  uint64_t given = (value & ~mask) | (v->shadows[index] & mask);
  if (index == 1 && !(now & CR4_VMXE)) {
    given &= ~(uint64_t)CR4_VMXE;
  }
  return given;
}

void hvf_fixed_keep(hvf_vcpu *v, int reg, uint64_t value) {
  const int index = index_of(reg);
  if (index != NONE) {
    v->kept[index] = value & hvf_fixed_bits(index);
  }
}
