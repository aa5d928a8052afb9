/* SPDX-License-Identifier: MIT
 * The calls that a kernel has beside KVM's. */
#include "kvm/kvm_control.h"

int luna_kvm_set_controls(luna_fd vcpu_fd, const luna_controls *controls) {
  return luna_kvm_call(vcpu_fd, LUNA_KVM_SET_CONTROLS, controls);
}

int luna_kvm_deliver(luna_fd vcpu_fd, const luna_kvm_event *event) {
  return luna_kvm_call(vcpu_fd, LUNA_KVM_DELIVER, event);
}

int luna_kvm_get_exceptions(luna_fd vcpu_fd, luna_kvm_exceptions *exceptions) {
  return luna_kvm_call(vcpu_fd, LUNA_KVM_GET_EXCEPTIONS, exceptions);
}

int luna_kvm_set_shadow(luna_fd vcpu_fd, luna_shadow *shadow) {
  return luna_kvm_call(vcpu_fd, LUNA_KVM_SET_SHADOW, shadow);
}
