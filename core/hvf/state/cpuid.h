/* SPDX-License-Identifier: MIT
 * What CPUID answers in the guest. */
#ifndef HVF_CPUID_H
#define HVF_CPUID_H

#include "hvf/base/cpu.h"

/* Takes from a new vCPU what needs KVM's local APIC, if that is the program's. */
hv_return_t hvf_cpuid_begin(hvf_vcpu *v);

#endif
