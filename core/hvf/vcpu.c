/* SPDX-License-Identifier: MIT
 * vCPUs: making and destroying them, and the space they are bound to. */
#include <Hypervisor/hv.h>

#include "hvf/base/cpu.h"
#include "hvf/base/error.h"
#include "hvf/base/owner.h"
#include "hvf/base/process.h"
#include "hvf/base/reach.h"
#include "hvf/base/room.h"
#include "hvf/exit/follow.h"
#include "hvf/state/cpuid.h"
#include "hvf/state/msr.h"
#include "hvf/vmcs/control.h"

#include <inttypes.h>
#include <stdlib.h>

static const hv_vcpu_options_t known_options = HV_VCPU_ACCEL_RDPMC | HV_VCPU_TSC_RELATIVE;

/* A vCPU that was bound stays counted where it was. The lock is held. */
static void release(hvf_vcpu *v) {
  hvf_reach_remove(v);
  hvf_the_vm.vcpus[v->id] = NULL;
  hvf_the_vm.vcpu_count--;
  hvf_msr_leave(v);
  luna_vcpu_release(v->vcpu);
  free(v->msrs);
  free(v->apic_pages);
  free(v);
}

static void on_thread_end(void *v) {
  pthread_mutex_lock(&hvf_the_vm.lock);
  if (hvf_the_vm.vm) {
    release(v);
  }
  pthread_mutex_unlock(&hvf_the_vm.lock);
}

static void follow_threads(void) {
  hvf_owner_follow(on_thread_end);
  pthread_atfork(NULL, NULL, hvf_owner_forget);
}

/* Each vCPU runs from the registers that the program gives it. KVM would have those with a local
 * APIC, but for number 0, wait for INIT and SIPI. */
static hv_return_t begin_running(hvf_vcpu *v) {
  return hvf_the_vm.options & HV_VM_ACCEL_APIC
             ? hvf_status(luna_vcpu_set_mp_state(v->vcpu, LUNA_MP_RUNNABLE))
             : HV_SUCCESS;
}

static hv_return_t make(hvf_vcpu *v) {
  hv_return_t result = hvf_status(luna_vcpu_create(hvf_the_vm.vm, NULL, &v->vcpu));
  if (result != HV_SUCCESS) {
    return result;
  }
  v->id = luna_vcpu_id(v->vcpu);
  v->record = luna_vcpu_exit(v->vcpu);
  result = hvf_room((void **)&hvf_the_vm.vcpus, &hvf_the_vm.vcpu_room, v->id, sizeof(hvf_vcpu *))
               ? hvf_status(luna_vcpu_account(v->vcpu, 1))
               : hvf_fail(HV_NO_RESOURCES, "no memory for a vCPU");
  result = result == HV_SUCCESS ? begin_running(v) : result;
  result = result == HV_SUCCESS ? hvf_cpuid_begin(v) : result;
  result = result == HV_SUCCESS ? hvf_msr_join() : result;
  hvf_control_reset(v);
  result = result == HV_SUCCESS ? hvf_follow_begin(v) : result;
  if (result != HV_SUCCESS) {
    luna_vcpu_release(v->vcpu);
    return result;
  }
  hvf_the_vm.vcpus[v->id] = v;
  hvf_the_vm.vcpu_count++;
  hvf_reach_add(v);
  hvf_owner_set(v);
  return HV_SUCCESS;
}

static hv_return_t create(hv_vcpuid_t *id, hv_vcpu_options_t options) {
  if (hvf_own()) {
    return hvf_fail(HV_BUSY, "this thread owns vCPU %u already, and can own one", hvf_own()->id);
  }
  hvf_vcpu *v = calloc(1, sizeof *v);
  if (!v) {
    return hvf_fail(HV_NO_RESOURCES, "no memory for a vCPU");
  }
  v->options = options;
  hv_return_t result = make(v);
  if (result != HV_SUCCESS) {
    free(v);
    return result;
  }
  *id = v->id;
  return HV_SUCCESS;
}

hv_return_t hv_vcpu_create(hv_vcpuid_t *vcpu, hv_vcpu_options_t flags) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, follow_threads);
  hv_return_t result = hvf_enter();
  if (result != HV_SUCCESS) {
    return result;
  }
  result = !vcpu || flags & ~known_options
               ? hvf_fail(HV_BAD_ARGUMENT,
                          "cannot make a vCPU with the options 0x%" PRIx64 ", its number at %p",
                          flags, (void *)vcpu)
               : create(vcpu, flags);
  hvf_leave();
  return result;
}

hv_return_t hv_vcpu_destroy(hv_vcpuid_t vcpu) {
  hvf_vcpu *v;
  hv_return_t result = hvf_owned(vcpu, &v);
  if (result != HV_SUCCESS) {
    return result;
  }
  pthread_mutex_lock(&hvf_the_vm.lock);
  hvf_owner_set(NULL);
  release(v);
  pthread_mutex_unlock(&hvf_the_vm.lock);
  return HV_SUCCESS;
}

/* The lock is held. */
static hv_return_t bind_to(hvf_vcpu *v, hv_vm_space_t asid) {
  if (!hvf_has_space(asid)) {
    return hvf_fail(HV_BAD_ARGUMENT, "there is no space %u", asid);
  }
  hv_return_t result = hvf_status(luna_vcpu_set_space(v->vcpu, asid, 0));
  if (result != HV_SUCCESS) {
    return result;
  }
  if (v->space != HV_VM_SPACE_DEFAULT) {
    hvf_the_vm.spaces[v->space].bound--;
  }
  if (asid != HV_VM_SPACE_DEFAULT) {
    hvf_the_vm.spaces[asid].bound++;
  }
  v->space = asid;
  return HV_SUCCESS;
}

hv_return_t hv_vcpu_set_space(hv_vcpuid_t vcpu, hv_vm_space_t asid) {
  hvf_vcpu *v;
  hv_return_t result = hvf_owned(vcpu, &v);
  if (result != HV_SUCCESS) {
    return result;
  }
  pthread_mutex_lock(&hvf_the_vm.lock);
  result = bind_to(v, asid);
  pthread_mutex_unlock(&hvf_the_vm.lock);
  return result;
}

hv_return_t hv_vcpu_flush(hv_vcpuid_t vcpu) {
  (void)vcpu;
  return hvf_fail(HV_UNSUPPORTED, "hv_vcpu_flush is obsolete and does nothing");
}
