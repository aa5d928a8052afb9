/* SPDX-License-Identifier: MIT
 * The last exceptions and interrupts of a vCPU, where its kernel keeps them. */
#include "base/error.h"
#include "kvm/host.h"
#include "kvm/kvm_control.h"
#include "vcpu/guard.h"

#include <errno.h>

int luna_vcpu_last_exceptions(luna_vcpu *vcpu, luna_last_exception *list, uint32_t most,
                              uint32_t *count) {
  *count = 0;
  int status = luna_vcpu_guard(vcpu);
  if (status != LUNA_OK) {
    return status;
  }
  if (!vcpu->vm->host->exceptions) {
    return luna_fail(LUNA_ERROR_UNSUPPORTED,
                     "cannot tell the last exceptions of vCPU %u: KVM does not keep them; a VM on "
                     "the software CPU (LUNA_ACCEL=soft) does",
                     vcpu->id);
  }
  luna_kvm_exceptions all;
  if (luna_kvm_get_exceptions(vcpu->fd, &all) != 0) {
    return luna_fail_errno(errno, "cannot ask for the last exceptions of vCPU %u", vcpu->id);
  }
  for (uint32_t i = all.count > most ? all.count - most : 0; i < all.count; i++) {
    list[(*count)++] = all.list[i];
  }
  return LUNA_OK;
}
