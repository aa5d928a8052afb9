/* SPDX-License-Identifier: MIT
 * Interrupt controllers of a VM with HV_VM_ACCEL_APIC. The lock of the VM is held in all of these
 * but the first two. */
#ifndef HVF_INTR_H
#define HVF_INTR_H

#include "hvf/hvf.h"

/* hvf_enter, and HV_UNSUPPORTED unless the VM has local APICs in KVM. */
hv_return_t hvf_enter_accelerated(void);
/* hvf_owned, likewise. */
hv_return_t hvf_owned_accelerated(hv_vcpuid_t id, hvf_vcpu **v);

/* ioapic.c */
void hvf_ioapic_reset(void);
/* A level interrupt has ended. */
void hvf_ioapic_eoi(uint8_t vector);

/* atpic.c */
void hvf_atpic_reset(void);
/* Whether the PICs request an interrupt; its vector, as it is now; and that it has been taken. */
bool hvf_atpic_raised(void);
uint8_t hvf_atpic_vector(void);
void hvf_atpic_acknowledge(void);

/* extint.c: tells vCPU 0 that the PICs request an interrupt. */
void hvf_atpic_signal(void);

#endif
