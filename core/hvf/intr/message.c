/* SPDX-License-Identifier: MIT
 * Interrupts from the program to local APICs in KVM. */
#include <Hypervisor/hv_intr.h>

#include "hvf/base/error.h"
#include "hvf/base/process.h"
#include "hvf/intr/accelerated.h"
#include "hvf/intr/ioapic.h"

#include <inttypes.h>

enum {
  FIRST_VECTOR = 16,
  LEVEL_ASSERTED = 1 << 15 | 1 << 14 /* of a message's data */
};
static const uint64_t messages = 0xfee00000;

/* The lock is held. */
static hv_return_t send(uint64_t address, uint32_t data) {
  const uint32_t trigger_mode_vector = 0x87ff; /* SDM Vol. 3, 11.11.2 */
  uint64_t rte =
      (address >> 12 & 0xff) << 56 | (address >> 2 & 1) << 11 | (data & trigger_mode_vector);
  hv_return_t result = hvf_ioapic_expect(rte);
  return result == HV_SUCCESS ? hvf_status(luna_vm_msi(hvf_the_vm.vm, address, data)) : result;
}

static hv_return_t set_intr(hv_vcpuid_t vcpu, uint8_t vector, hv_apic_intr_trigger_t trig) {
  if (!hvf_find(vcpu)) {
    return hvf_fail(HV_BAD_ARGUMENT, "there is no vCPU %u", vcpu);
  }
  if (vector < FIRST_VECTOR || trig > HV_APIC_LEVEL_TRIGGER) {
    return hvf_fail(HV_BAD_ARGUMENT, "no interrupt has vector %u and trigger %u", vector, trig);
  }
  if (trig == HV_APIC_EDGE_TRIGGER_AEOI) {
    return hvf_fail(HV_UNSUPPORTED, "KVM's local APICs do not end interrupts by themselves");
  }
  uint32_t data = vector | (trig == HV_APIC_LEVEL_TRIGGER ? LEVEL_ASSERTED : 0u);
  return send(messages | (uint64_t)vcpu << 12, data);
}

hv_return_t hv_vm_lapic_set_intr(hv_vcpuid_t vcpu, uint8_t vector, hv_apic_intr_trigger_t trig) {
  hv_return_t result = hvf_enter_accelerated();
  if (result != HV_SUCCESS) {
    return result;
  }
  result = set_intr(vcpu, vector, trig);
  hvf_leave();
  return result;
}

hv_return_t hv_vm_lapic_msi(uint64_t addr, uint64_t data) {
  hv_return_t result = hvf_enter_accelerated();
  if (result != HV_SUCCESS) {
    return result;
  }
  result =
      (uint32_t)(addr >> 20) == messages >> 20 && data <= UINT32_MAX
          ? send(addr, (uint32_t)data)
          : hvf_fail(HV_BAD_ARGUMENT, "0x%" PRIx64 " to 0x%" PRIx64 " is no message", data, addr);
  hvf_leave();
  return result;
}

hv_return_t hv_vm_set_apic_bus_freq(uint64_t hz) {
  hv_return_t result = hvf_enter_accelerated();
  if (result != HV_SUCCESS) {
    return result;
  }
  result =
      hvf_the_vm.vcpu_count > 0
          ? hvf_fail(HV_BUSY, "the VM has vCPUs already: the timers' frequency is set before that")
          : hvf_status(luna_vm_set_apic_frequency(hvf_the_vm.vm, hz));
  hvf_leave();
  return result;
}
