/* SPDX-License-Identifier: MIT
 * KVM_CAP_EXIT_HYPERCALL: hypercalls that KVM hands on instead of answering them. */
#include "exit/hypercall.h"

#include "base/error.h"
#include "exit/claim.h"
#include "kvm/kvm.h"
#include "memory/space.h"
#include "memory/spaces.h"
#include "memory/vm.h"

#include <errno.h>
#include <linux/kvm_para.h>

int luna_hypercalls_begin(const luna_space *space) {
  const uint64_t handed_on = UINT64_C(1) << KVM_HC_MAP_GPA_RANGE;
  if (luna_kvm_enable_cap(space->vm_fd, KVM_CAP_EXIT_HYPERCALL, handed_on) == 0) {
    return LUNA_OK;
  }
  if (errno == EINVAL) {
    return luna_fail(LUNA_ERROR_UNSUPPORTED,
                     "cannot hand on hypercalls: this kernel's KVM has no KVM_CAP_EXIT_HYPERCALL; "
                     "use Linux 5.14 or newer");
  }
  return luna_fail_errno(errno, "cannot hand on hypercalls of space %u", space->id);
}

int luna_vm_hypercalls(luna_vm *vm) {
  int status = LUNA_OK;
  luna_vm_change_begin(vm);
  for (uint32_t id = 0; id < vm->space_count && status == LUNA_OK; id++) {
    status = vm->spaces[id] ? luna_hypercalls_begin(vm->spaces[id]) : LUNA_OK;
  }
  vm->claims->hypercalls = vm->claims->hypercalls || status == LUNA_OK;
  luna_vm_change_end(vm);
  return status;
}
