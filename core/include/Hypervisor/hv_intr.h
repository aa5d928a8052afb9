/* SPDX-License-Identifier: MIT
 * Interrupt controllers inside the hypervisor: types and calls. */
#ifndef HYPERVISOR_HV_INTR_H
#define HYPERVISOR_HV_INTR_H

#include <Hypervisor/hv_types.h>

#endif
