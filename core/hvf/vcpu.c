/* SPDX-License-Identifier: MIT
 * vCPUs: who owns them, the space they are bound to, running and interrupting them. */
#include "hvf/hvf.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const hv_vcpu_options_t known_options = HV_VCPU_ACCEL_RDPMC | HV_VCPU_TSC_RELATIVE;

/* Who this thread acts as, 0 for itself, and the vCPU of that one; the thread's own is the value of
 * `thread_end`. */
static _Thread_local uint64_t actor;
static _Thread_local hvf_vcpu *self __attribute__((tls_model("initial-exec")));
static pthread_key_t thread_end;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* The vCPU of that number, or NULL. The lock is held. */
static hvf_vcpu *find(hv_vcpuid_t id) {
  return id < hvf_the_vm.vcpu_room ? hvf_the_vm.vcpus[id] : NULL;
}

static hv_return_t fail_missing(hv_vcpuid_t id) {
  return hvf_fail(HV_BAD_ARGUMENT, "there is no vCPU %u", id);
}

static hv_return_t fail_owned(hv_vcpuid_t id) {
  hv_return_t result = hvf_enter();
  if (result != HV_SUCCESS) {
    return result;
  }
  result =
      find(id) ? hvf_fail(HV_DENIED, "vCPU %u belongs to another thread", id) : fail_missing(id);
  hvf_leave();
  return result;
}

hv_return_t hvf_owned(hv_vcpuid_t id, hvf_vcpu **v) {
  *v = self;
  return self && self->id == id ? HV_SUCCESS : fail_owned(id);
}

/* A vCPU that was bound stays counted where it was. The lock is held. */
static void release(hvf_vcpu *v) {
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

/* In a child after fork the vCPUs are the parent's. */
static void forget(void) {
  self = NULL;
  pthread_setspecific(thread_end, NULL);
}

static void follow_threads(void) {
  pthread_key_create(&thread_end, on_thread_end);
  pthread_atfork(NULL, NULL, forget);
}

static void own(hvf_vcpu *v) {
  self = v;
  if (actor == 0) {
    pthread_setspecific(thread_end, v);
  }
}

/* The vCPU that whoever acts as `token` owns, or NULL. The lock is held. */
static hvf_vcpu *find_of(uint64_t token) {
  for (uint32_t id = 0; id < hvf_the_vm.vcpu_room; id++) {
    if (hvf_the_vm.vcpus[id] && hvf_the_vm.vcpus[id]->owner == token) {
      return hvf_the_vm.vcpus[id];
    }
  }
  return NULL;
}

hv_return_t hv_ext_thread_adopt(uint64_t token) {
  pthread_once(&once, follow_threads);
  pthread_mutex_lock(&hvf_the_vm.lock);
  actor = token;
  self = token ? find_of(token) : pthread_getspecific(thread_end);
  pthread_mutex_unlock(&hvf_the_vm.lock);
  return HV_SUCCESS;
}

static hv_return_t make(hvf_vcpu *v) {
  hv_return_t result = hvf_status(luna_vcpu_create(hvf_the_vm.vm, NULL, &v->vcpu));
  if (result != HV_SUCCESS) {
    return result;
  }
  v->id = luna_vcpu_id(v->vcpu);
  result = hvf_room((void **)&hvf_the_vm.vcpus, &hvf_the_vm.vcpu_room, v->id, sizeof(hvf_vcpu *))
               ? hvf_status(luna_vcpu_account(v->vcpu, 1))
               : hvf_fail(HV_NO_RESOURCES, "no memory for a vCPU");
  result = result == HV_SUCCESS ? hvf_msr_join() : result;
  if (result != HV_SUCCESS) {
    luna_vcpu_release(v->vcpu);
    return result;
  }
  hvf_control_reset(v);
  hvf_the_vm.vcpus[v->id] = v;
  hvf_the_vm.vcpu_count++;
  own(v);
  return HV_SUCCESS;
}

static hv_return_t create(hv_vcpuid_t *id, hv_vcpu_options_t options) {
  if (self) {
    return hvf_fail(HV_BUSY, "this thread owns vCPU %u already, and can own one", self->id);
  }
  hvf_vcpu *v = calloc(1, sizeof *v);
  if (!v) {
    return hvf_fail(HV_NO_RESOURCES, "no memory for a vCPU");
  }
  v->options = options;
  v->owner = actor;
  hv_return_t result = make(v);
  if (result != HV_SUCCESS) {
    free(v);
    return result;
  }
  *id = v->id;
  return HV_SUCCESS;
}

hv_return_t hv_vcpu_create(hv_vcpuid_t *vcpu, hv_vcpu_options_t flags) {
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
  own(NULL);
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

hv_return_t hv_vcpu_run(hv_vcpuid_t vcpu) {
  return hv_vcpu_run_until(vcpu, HV_DEADLINE_FOREVER);
}

hv_return_t hv_vcpu_run_until(hv_vcpuid_t vcpu, uint64_t deadline) {
  hvf_vcpu *v;
  hv_return_t result = hvf_owned(vcpu, &v);
  if (result != HV_SUCCESS) {
    return result;
  }
  if (deadline == HV_DEADLINE_FOREVER) {
    deadline = 0; /* which the core takes for none */
  } else if (deadline == 0) {
    deadline = 1;
  }
  return hvf_run(v, deadline);
}

static hv_return_t interrupt(const hv_vcpuid_t *ids, unsigned int count) {
  for (unsigned int i = 0; i < count; i++) {
    if (!find(ids[i])) {
      return fail_missing(ids[i]);
    }
  }
  for (unsigned int i = 0; i < count; i++) {
    hvf_vcpu *v = hvf_the_vm.vcpus[ids[i]];
    atomic_store(&v->interrupted, true);
    luna_vcpu_interrupt(v->vcpu);
  }
  return HV_SUCCESS;
}

hv_return_t hv_vcpu_interrupt(hv_vcpuid_t *vcpus, unsigned int vcpu_count) {
  hv_return_t result = hvf_enter();
  if (result != HV_SUCCESS) {
    return result;
  }
  result = vcpus || vcpu_count == 0 ? interrupt(vcpus, vcpu_count)
                                    : hvf_fail(HV_BAD_ARGUMENT, "no list of vCPUs");
  hvf_leave();
  return result;
}
