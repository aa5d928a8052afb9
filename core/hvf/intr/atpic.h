/* SPDX-License-Identifier: MIT
 * The PICs of a VM with HV_VM_ACCEL_APIC. The lock is held in all of these. */
#ifndef HVF_ATPIC_H
#define HVF_ATPIC_H

#include <stdbool.h>
#include <stdint.h>

void hvf_atpic_reset(void);
/* Whether the PICs request an interrupt; its vector, as it is now; and that it has been taken. */
bool hvf_atpic_raised(void);
uint8_t hvf_atpic_vector(void);
void hvf_atpic_acknowledge(void);

#endif
