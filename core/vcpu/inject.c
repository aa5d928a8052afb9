/* SPDX-License-Identifier: MIT
 * Letting the guest take an exception (SDM Vol. 3, 6.15), in place of the access that it exited
 * for. */
#include "vcpu/inject.h"

#include "base/error.h"
#include "vcpu/drop.h"
#include "vcpu/guard.h"
#include "vcpu/state.h"
#include "vcpu/vcpu.h"

enum {
  VECTOR_NMI = 2,
  VECTOR_PAGE_FAULT = 14
};

/* Vectors that push an error code (SDM Vol. 3, 6.13). */
bool luna_exception_has_code(uint32_t vector) {
  const uint32_t vectors = 1u << 8 | 0x1fu << 10 | 1u << 17 | 1u << 21 | 1u << 29 | 1u << 30;
  return vector < 32 && vectors >> vector & 1;
}

/* A read and an access to an MSR are dropped; KVM has finished a write, whatever becomes of it. */
static int close_exit(luna_vcpu *vcpu) {
  luna_pending *pending = &vcpu->pending;
  if (pending->open && (pending->reads || vcpu->exit.kind == LUNA_EXIT_MSR)) {
    return luna_drop_exit(vcpu);
  }
  pending->open = false;
  return LUNA_OK;
}

int luna_vcpu_inject(luna_vcpu *vcpu, uint32_t vector, uint32_t error_code, uint64_t address) {
  int status = luna_vcpu_guard(vcpu);
  if (status != LUNA_OK) {
    return status;
  }
  if (vector > 31 || vector == VECTOR_NMI) {
    return luna_fail(LUNA_ERROR_ARGUMENT,
                     "cannot inject vector %u as an exception: exceptions are 0 to 31 without 2",
                     vector);
  }
  /* Read before the exit is dropped, which makes KVM change them, and leaves nothing to fail. */
  const struct kvm_vcpu_events *held = luna_state_events(vcpu);
  struct kvm_sregs *sregs = held ? luna_state_sregs(vcpu) : NULL;
  if (!sregs) {
    return luna_error_status();
  }
  struct kvm_vcpu_events events = *held;
  status = close_exit(vcpu);
  if (status != LUNA_OK) {
    return status;
  }
  events.exception.injected = 1;
  events.exception.nr = (uint8_t)vector;
  events.exception.has_error_code = luna_exception_has_code(vector);
  events.exception.error_code = error_code;
  vcpu->state.events = events;
  vcpu->state.events_known = vcpu->state.events_written = true;
  if (vector == VECTOR_PAGE_FAULT) {
    sregs->cr2 = address;
    vcpu->state.sregs_written = true;
  }
  return LUNA_OK;
}
