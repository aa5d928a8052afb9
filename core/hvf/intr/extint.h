/* SPDX-License-Identifier: MIT
 * The PICs' interrupts on their way to a vCPU. */
#ifndef HVF_EXTINT_H
#define HVF_EXTINT_H

#include "hvf/base/cpu.h"

/* Before the vCPU is entered: gives it the interrupt that the PICs request, if it takes one. */
hv_return_t hvf_extint_offer(hvf_vcpu *v);

#endif
