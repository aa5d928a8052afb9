/* SPDX-License-Identifier: MIT
 * The one VM of the process, and its lock. */
#include "hvf/base/process.h"

#include "hvf/base/error.h"

hvf_vm hvf_the_vm = {.lock = PTHREAD_MUTEX_INITIALIZER};

hv_return_t hvf_enter(void) {
  pthread_mutex_lock(&hvf_the_vm.lock);
  if (hvf_the_vm.vm) {
    return HV_SUCCESS;
  }
  pthread_mutex_unlock(&hvf_the_vm.lock);
  return hvf_fail_no_vm();
}

void hvf_leave(void) {
  pthread_mutex_unlock(&hvf_the_vm.lock);
}

bool hvf_has_space(hv_vm_space_t asid) {
  return asid == HV_VM_SPACE_DEFAULT ||
         (asid < hvf_the_vm.space_room && hvf_the_vm.spaces[asid].made);
}

hvf_vcpu *hvf_find(hv_vcpuid_t id) {
  return id < hvf_the_vm.vcpu_room ? hvf_the_vm.vcpus[id] : NULL;
}
