/* SPDX-License-Identifier: MIT
 * The VMX-preemption timer (SDM Vol. 3, 26.5.1 and 28.2): from an entry on it counts down from its
 * field's value, and 0 is an exit, at the entry itself before anything of the guest. */
#include "hvf/vmcs/timer.h"

#include <Hypervisor/hv.h>
#include <Hypervisor/hv_vmx.h>

static uint64_t to_ns(hvf_vcpu *v, uint64_t ticks) {
  uint32_t kilohertz = 0;
  if (luna_vcpu_get_tsc_frequency(v->vcpu, &kilohertz) != LUNA_OK || kilohertz == 0) {
    return 0;
  }
  return ticks / kilohertz * 1000000 + ticks % kilohertz * 1000000 / kilohertz;
}

uint64_t hvf_timer_begin(hvf_vcpu *v, uint64_t deadline) {
  const uint64_t ticks = v->kept_fields[HVF_KEPT_TIMER] << HVF_TIMER_RATE;
  v->timer_at = hv_tsc_clock() + ticks;
  const uint64_t at = ticks ? luna_clock() + to_ns(v, ticks) : 1; /* which has passed */
  return deadline && deadline < at ? deadline : at;
}

void hvf_timer_end(hvf_vcpu *v) {
  if (v->controls[HV_VMX_CAP_EXIT] & VMEXIT_SAVE_VMX_TIMER) {
    const uint64_t now = hv_tsc_clock();
    v->kept_fields[HVF_KEPT_TIMER] = v->timer_at > now ? (v->timer_at - now) >> HVF_TIMER_RATE : 0;
  }
}
