/* SPDX-License-Identifier: MIT
 * The I/O APIC of a VM with HV_VM_ACCEL_APIC. The lock is held in all of these. */
#ifndef HVF_IOAPIC_H
#define HVF_IOAPIC_H

#include <stdint.h>

void hvf_ioapic_reset(void);
/* A level interrupt has ended. */
void hvf_ioapic_eoi(uint8_t vector);

#endif
