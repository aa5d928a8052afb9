/* SPDX-License-Identifier: MIT
 * What calls for interrupt controllers begin with: the VM has local APICs in KVM. */
#include "hvf/intr/accelerated.h"

#include "hvf/base/cpu.h"
#include "hvf/base/error.h"
#include "hvf/base/owner.h"
#include "hvf/base/process.h"

hv_return_t hvf_enter_accelerated(void) {
  hv_return_t result = hvf_enter();
  if (result == HV_SUCCESS && !(hvf_the_vm.options & HV_VM_ACCEL_APIC)) {
    hvf_leave();
    return hvf_fail(HV_UNSUPPORTED, "the VM was made without HV_VM_ACCEL_APIC: its interrupt "
                                    "controllers are the program's");
  }
  return result;
}

hv_return_t hvf_owned_accelerated(hv_vcpuid_t id, hvf_vcpu **v) {
  hv_return_t result = hvf_owned(id, v);
  if (result == HV_SUCCESS && !(hvf_the_vm.options & HV_VM_ACCEL_APIC)) {
    return hvf_fail(HV_UNSUPPORTED,
                    "vCPU %u has no local APIC in KVM: the VM was made without "
                    "HV_VM_ACCEL_APIC",
                    id);
  }
  return result;
}

void hvf_signal_first(void) {
  const hvf_vcpu *first = hvf_find(0);
  if (first) {
    luna_vcpu_interrupt(first->vcpu);
  }
}

hv_return_t hvf_check_version(const char *whose, const uint32_t *version, uint32_t expected) {
  if (!version) {
    return hvf_fail(HV_BAD_ARGUMENT, "no state of %s", whose);
  }
  return *version == expected ? HV_SUCCESS
                              : hvf_fail(HV_BAD_ARGUMENT,
                                         "a state of %s has version %u, not %u; it is set before "
                                         "the state is read, too",
                                         whose, expected, *version);
}
