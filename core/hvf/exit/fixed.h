/* SPDX-License-Identifier: MIT
 * Bits of CR0 and CR4 that the program sees in another way than the guest. */
#ifndef HVF_FIXED_H
#define HVF_FIXED_H

#include "hvf/base/cpu.h"

/* The bits of CR0 (`index` 0) or CR4 (1) that are the program's where they are masked, and the
 * guest's where not. Of other masked bits KVM's register is both. */
uint64_t hvf_fixed_apart(int index);
/* The shadow of CR0 (`index` 0) or CR4 (1) as the program is to read it. */
uint64_t hvf_fixed_shadow(const hvf_vcpu *v, int index);
/* Before anything is written that depends on others: setup.c of vmcs/ looks at it all. */
void hvf_fixed_touch(hvf_vcpu *v);
/* What the program sees of a LUNA_* register that has the value in KVM. */
uint64_t hvf_fixed_seen(const hvf_vcpu *v, int reg, uint64_t value);
/* What KVM, which has `now` in the register, is to have for a value of the program's. */
uint64_t hvf_fixed_given(const hvf_vcpu *v, int reg, uint64_t value, uint64_t now);
/* Notes that the program has written the value. */
void hvf_fixed_keep(hvf_vcpu *v, int reg, uint64_t value);

#endif
