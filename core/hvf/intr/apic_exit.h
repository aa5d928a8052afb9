/* SPDX-License-Identifier: MIT
 * Accesses to the page of a vCPU's local APIC. */
#ifndef HVF_APIC_EXIT_H
#define HVF_APIC_EXIT_H

#include "hvf/base/cpu.h"

/* The offset in the page of the vCPU's local APIC that the EPT violation is at; -1 for another. */
int hvf_apic_offset(const hvf_vcpu *v, const luna_exit *e);
/* Notes that the exit is a read of that register. */
hv_return_t hvf_apic_note_read(hvf_vcpu *v, uint32_t offset);

#endif
