/* SPDX-License-Identifier: MIT
 * Who may touch a vCPU while its own thread has it. */
#include "vcpu/guard.h"

#include "base/error.h"
#include "memory/process.h"
#include "vcpu/vcpu.h"

/* Of the thread that runs it; initial-exec: it is set twice an exit. */
static _Thread_local const luna_vcpu *own __attribute__((tls_model("initial-exec")));

const luna_vcpu *luna_guard_own(const luna_vcpu *vcpu) {
  const luna_vcpu *before = own;
  own = vcpu;
  return before;
}

bool luna_guard_owns(const luna_vcpu *vcpu) {
  return own == vcpu;
}

int luna_guard_refuse(const luna_vcpu *vcpu) {
  if (luna_process_check(vcpu->vm) != LUNA_OK) {
    return LUNA_ERROR_STATE;
  }
  if (luna_guard_owns(vcpu)) {
    return LUNA_OK;
  }
  return luna_fail(LUNA_ERROR_STATE,
                   "vCPU %u is started, and its thread has it: pause it or stop it first, or do "
                   "this when its exit has been taken from the queue",
                   vcpu->id);
}
