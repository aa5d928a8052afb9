/* SPDX-License-Identifier: MIT
 * The I/O APIC of a VM with HV_VM_ACCEL_APIC. The lock is held in all of these. */
#ifndef HVF_IOAPIC_H
#define HVF_IOAPIC_H

#include <Hypervisor/hv_error.h>
#include <stdint.h>

void hvf_ioapic_reset(void);
/* Before the program sends what the redirection entry says: lets KVM tell its end, if that is a
 * level interrupt, and notes it as the latest. HV_NO_RESOURCES where too many have not ended. */
hv_return_t hvf_ioapic_expect(uint64_t rte);
/* A level interrupt has ended. */
void hvf_ioapic_eoi(uint8_t vector);

#endif
