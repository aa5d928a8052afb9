/* SPDX-License-Identifier: MIT
 * The system calls to KVM for what it answers without leaving the guest, its clock among that, and
 * for what makes it leave. */
#include "kvm/kvm_event.h"

#include "kvm/kvm.h"

int luna_kvm_ioeventfd(luna_fd vm_fd, const struct kvm_ioeventfd *event) {
  return luna_kvm_call(vm_fd, KVM_IOEVENTFD, event);
}

int luna_kvm_coalesce(luna_fd vm_fd, bool pio, uint64_t first, uint32_t size, bool on) {
  struct kvm_coalesced_mmio_zone zone = {.addr = first, .size = size, .pio = pio};
  return luna_kvm_call(vm_fd, on ? KVM_REGISTER_COALESCED_MMIO : KVM_UNREGISTER_COALESCED_MMIO,
                       &zone);
}

int luna_kvm_msr_filter(luna_fd vm_fd, const struct kvm_msr_filter *filter) {
  return luna_kvm_call(vm_fd, KVM_X86_SET_MSR_FILTER, filter);
}

int luna_kvm_guest_debug(luna_fd vcpu_fd, const struct kvm_guest_debug *debug) {
  return luna_kvm_call(vcpu_fd, KVM_SET_GUEST_DEBUG, debug);
}

int luna_kvm_stats_fd(luna_fd vcpu_fd) {
  return luna_kvm_call(vcpu_fd, KVM_GET_STATS_FD, NULL);
}

int luna_kvm_get_clock(luna_fd vm_fd, uint64_t *nanoseconds) {
  struct kvm_clock_data data = {0};
  int result = luna_kvm_call(vm_fd, KVM_GET_CLOCK, &data);
  *nanoseconds = data.clock;
  return result;
}

int luna_kvm_set_clock(luna_fd vm_fd, uint64_t nanoseconds) {
  struct kvm_clock_data data = {.clock = nanoseconds};
  return luna_kvm_call(vm_fd, KVM_SET_CLOCK, &data);
}
