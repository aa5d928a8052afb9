/* SPDX-License-Identifier: MIT
 * Going on from an exit. */
#ifndef HVF_LEAVE_H
#define HVF_LEAVE_H

#include "hvf/base/cpu.h"

/* Before the next entry, makes KVM go on from what the program sees. */
hv_return_t hvf_leave_exit(hvf_vcpu *v);

#endif
