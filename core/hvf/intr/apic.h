/* SPDX-License-Identifier: MIT
 * What a vCPU's local APIC does for the program. */
#ifndef HVF_APIC_H
#define HVF_APIC_H

#include "hvf/base/cpu.h"

/* The end of a level interrupt: true if it is an exit for the program. */
bool hvf_apic_note_eoi(hvf_vcpu *v, uint8_t vector);
/* The exit is an INIT or a SIPI that the guest has sent, to the vCPUs of the bitmap. */
hv_return_t hvf_apic_note_start(hvf_vcpu *v, uint64_t targets);
/* Whether an IPI of `v`, as ICR says, goes to the vCPU of that number. */
bool hvf_apic_goes_to(const hvf_vcpu *v, uint32_t command, uint32_t target, hv_vcpuid_t id);

#endif
