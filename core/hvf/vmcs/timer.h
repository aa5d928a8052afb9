/* SPDX-License-Identifier: MIT
 * The VMX-preemption timer. */
#ifndef HVF_TIMER_H
#define HVF_TIMER_H

#include <Hypervisor/hv_vmx.h>

#include "hvf/base/cpu.h"

enum {
  HVF_TIMER_RATE = 5 /* it counts when this bit of the time-stamp counter changes */
};

static inline bool hvf_timer_is_on(const hvf_vcpu *v) {
  return v->controls[HV_VMX_CAP_PINBASED] & PIN_BASED_PREEMPTION_TIMER;
}

/* Whether it ends the run at the entry, which an event that is injected comes before. */
static inline bool hvf_timer_is_over(const hvf_vcpu *v) {
  return hvf_timer_is_on(v) && v->kept_fields[HVF_KEPT_TIMER] == 0;
}
/* Where it is on: before an entry that is to end at the deadline, the one that comes first, this or
 * the timer's. */
uint64_t hvf_timer_begin(hvf_vcpu *v, uint64_t deadline);
/* And after an exit: keeps what is left of it where that is asked for. */
void hvf_timer_end(hvf_vcpu *v);

#endif
