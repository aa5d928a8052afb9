/* SPDX-License-Identifier: MIT
 * CR0.NE and CR4.VMXE, which a processor demands in VMX operation (SDM Vol. 3, 24.8), and CR0.CD,
 * NW and ET, which do nothing to a guest of KVM: programs set and mask them. On a processor the
 * guest reads instead of a masked bit its shadow (25.6.6). KVM's registers are what the guest
 * reads: they have the shadow of these bits, and VMXE, which does nothing in a guest either, only
 * if the guest has set it there itself. */
#include "hvf/exit/fixed.h"

enum {
  NONE = -1,
  CR0_ET = 1 << 4,
  CR0_NE = 1 << 5,
  CR0_CACHE = 3 << 29, /* CD and NW */
  CR4_VMXE = 1 << 13
};

/* Where the accelerator follows masks and shadows, no bit is kept apart. */
static int index_of(const hvf_vcpu *v, int reg) {
  return v->followed ? NONE : reg == LUNA_CR0 ? 0 : reg == LUNA_CR4 ? 1 : NONE;
}

uint64_t hvf_fixed_apart(int index) {
  return index == 0 ? CR0_ET | CR0_NE | CR0_CACHE : CR4_VMXE;
}

static uint64_t masked_bits(const hvf_vcpu *v, int index) {
  return v->masks[index] & hvf_fixed_apart(index);
}

/* Those that are kept here rather than in KVM's register. */
static uint64_t kept_bits(const hvf_vcpu *v, int index) {
  return index == 0 ? masked_bits(v, 0) : CR4_VMXE;
}

uint64_t hvf_fixed_seen(const hvf_vcpu *v, int reg, uint64_t value) {
  const int index = index_of(v, reg);
  if (index == NONE) {
    return value;
  }
  return (value & ~masked_bits(v, index)) | (v->kept[index] & kept_bits(v, index));
}

uint64_t hvf_fixed_given(const hvf_vcpu *v, int reg, uint64_t value, uint64_t now) {
  const int index = index_of(v, reg);
  if (index == NONE) {
    return value;
  }
  const uint64_t mask = masked_bits(v, index);
  uint64_t given = (value & ~mask) | (v->shadows[index] & mask);
  if (index == 1 && !(now & CR4_VMXE)) {
    given &= ~(uint64_t)CR4_VMXE;
  }
  return given;
}

void hvf_fixed_keep(hvf_vcpu *v, int reg, uint64_t value) {
  const int index = index_of(v, reg);
  if (index != NONE) {
    v->kept[index] = value & hvf_fixed_apart(index);
  }
}

/* Bits that KVM's guest writes itself are in the shadow what it wrote last. */
uint64_t hvf_fixed_shadow(const hvf_vcpu *v, int index) {
  const uint64_t followed = v->masks[index] & ~hvf_fixed_apart(index);
  uint64_t now;
  if (v->followed || v->unchecked || !followed ||
      luna_vcpu_get(v->vcpu, index == 0 ? LUNA_CR0 : LUNA_CR4, &now) != LUNA_OK) {
    return v->shadows[index];
  }
  return (v->shadows[index] & ~followed) | (now & followed);
}

void hvf_fixed_touch(hvf_vcpu *v) {
  for (int index = 0; index < 2; index++) {
    v->shadows[index] = hvf_fixed_shadow(v, index);
  }
  v->unchecked = v->stale = true;
}
