/* SPDX-License-Identifier: MIT
 * Which vCPU a thread owns: one that it made, as itself or as who it acts. */
#include "hvf/base/owner.h"

#include <Hypervisor/hv_linux.h>

#include "hvf/base/cpu.h"
#include "hvf/base/error.h"
#include "hvf/base/process.h"

/* Who this thread acts as, 0 for itself; the vCPU of that one, and its own. */
static _Thread_local uint64_t actor;
_Thread_local hvf_vcpu *hvf_own_vcpu __attribute__((tls_model("initial-exec")));
static _Thread_local hvf_vcpu *own;
static pthread_key_t thread_end; /* has `own`, for what is done when the thread ends */

hv_return_t hvf_fail_owned(hv_vcpuid_t id) {
  hv_return_t result = hvf_enter();
  if (result != HV_SUCCESS) {
    return result;
  }
  result = hvf_find(id) ? hvf_fail(HV_DENIED, "vCPU %u belongs to another thread", id)
                        : hvf_fail(HV_BAD_ARGUMENT, "there is no vCPU %u", id);
  hvf_leave();
  return result;
}

void hvf_owner_set(hvf_vcpu *v) {
  hvf_own_vcpu = v;
  if (v) {
    v->owner = actor;
  }
  if (actor == 0) {
    own = v;
    pthread_setspecific(thread_end, v);
  }
}

void hvf_owner_follow(void (*release)(void *v)) {
  pthread_key_create(&thread_end, release);
}

void hvf_owner_forget(void) {
  hvf_own_vcpu = own = NULL;
  pthread_setspecific(thread_end, NULL);
}

/* The vCPU that whoever acts as `token` owns, or NULL. The lock is held. */
static hvf_vcpu *find_of(uint64_t token) {
  for (hv_vcpuid_t id = 0; id < hvf_the_vm.vcpu_room; id++) {
    hvf_vcpu *v = hvf_find(id);
    if (v && v->owner == token) {
      return v;
    }
  }
  return NULL;
}

hv_return_t hv_ext_thread_adopt(uint64_t token) {
  pthread_mutex_lock(&hvf_the_vm.lock);
  actor = token;
  hvf_own_vcpu = token ? find_of(token) : own;
  pthread_mutex_unlock(&hvf_the_vm.lock);
  return HV_SUCCESS;
}
