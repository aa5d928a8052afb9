/* SPDX-License-Identifier: MIT
 * The PICs' interrupts on their way to a vCPU: through LINT0 of vCPU 0's local APIC, or because the
 * program says so. KVM keeps one until the guest accepts it. */
#include "hvf/intr/extint.h"

#include <Hypervisor/hv_intr.h>

#include "hvf/base/error.h"
#include "hvf/base/process.h"
#include "hvf/intr/accelerated.h"
#include "hvf/intr/atpic.h"

enum {
  APIC_LVT_LINT0 = 0x350,
  LVT_MASKED = 1 << 16,
  LVT_MODE = 7 << 8 /* ExtINT */
};

/* Whether LINT0 is open for the PICs. */
static bool connected(hvf_vcpu *v) {
  uint32_t entry;
  return v->id == 0 && luna_vcpu_read_apic(v->vcpu, APIC_LVT_LINT0, &entry) == LUNA_OK &&
         !(entry & LVT_MASKED) && (entry & LVT_MODE) == LVT_MODE;
}

/* The lock is held. */
static int offer(hvf_vcpu *v) {
  int status = luna_vcpu_extint(v->vcpu, hvf_atpic_vector());
  if (status == LUNA_OK) {
    hvf_atpic_acknowledge();
  }
  return status;
}

hv_return_t hvf_extint_offer(hvf_vcpu *v) {
  int status = LUNA_OK;
  if (v->id != 0 && !v->extint) {
    return HV_SUCCESS;
  }
  pthread_mutex_lock(&hvf_the_vm.lock);
  if (hvf_atpic_raised() && (v->extint || connected(v))) {
    status = offer(v);
    v->extint = status == LUNA_ERROR_BUSY && v->extint;
  }
  pthread_mutex_unlock(&hvf_the_vm.lock);
  return status == LUNA_ERROR_BUSY ? HV_SUCCESS : hvf_status(status);
}

hv_return_t hv_vcpu_inject_extint(hv_vcpuid_t vcpu) {
  hvf_vcpu *v;
  hv_return_t result = hvf_owned_accelerated(vcpu, &v);
  if (result != HV_SUCCESS) {
    return result;
  }
  if (v->extint) {
    return hvf_fail(HV_BUSY, "vCPU %u has an interrupt of the PICs queued already", vcpu);
  }
  v->extint = true;
  return HV_SUCCESS;
}
