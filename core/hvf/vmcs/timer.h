/* SPDX-License-Identifier: MIT
 * The VMX-preemption timer. */
#ifndef HVF_TIMER_H
#define HVF_TIMER_H

#include "hvf/base/cpu.h"

enum {
  HVF_TIMER_RATE = 5 /* it counts when this bit of the time-stamp counter changes */
};

/* Before an entry that is to end at the deadline: the one that comes first, this or the timer's. */
uint64_t hvf_timer_begin(hvf_vcpu *v, uint64_t deadline);
/* After an exit: what is left of it, where that is to be kept. */
void hvf_timer_end(hvf_vcpu *v);

#endif
