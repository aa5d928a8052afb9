/* SPDX-License-Identifier: MIT
 * The host's timer interrupts, as hv_vcpu_run shows them. */
#ifndef HVF_TICK_H
#define HVF_TICK_H

#include "hvf/base/cpu.h"

/* No vCPU has been ticked for a while, and none will be before it is woken. */
extern atomic_bool hvf_tick_asleep;

/* What hvf_tick_begin does first. HV_NO_RESOURCES if the system has no thread left. */
hv_return_t hvf_tick_wake(void);
/* In a child after fork, which has not its parent's threads. */
void hvf_tick_forget(void);

/* From here on a tick interrupts the vCPU, up to hvf_tick_end. Its owner. */
static inline hv_return_t hvf_tick_begin(hvf_vcpu *v) {
  atomic_store_explicit(&v->ticking, true, memory_order_relaxed);
  return atomic_load_explicit(&hvf_tick_asleep, memory_order_relaxed) ? hvf_tick_wake()
                                                                      : HV_SUCCESS;
}

static inline void hvf_tick_end(hvf_vcpu *v) {
  atomic_store_explicit(&v->ticking, false, memory_order_relaxed);
}

#endif
