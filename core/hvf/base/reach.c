/* SPDX-License-Identifier: MIT
 * A list that is read without a lock: who reads it says so first, and a vCPU that was taken from it
 * goes away when nobody reads. */
#include "hvf/base/reach.h"

#include "hvf/base/error.h"

#include <sched.h>

static _Atomic(hvf_vcpu *) first;
static atomic_bool is_open;
static atomic_uint readers;

void hvf_reach_open(bool open) {
  atomic_store(&is_open, open);
}

void hvf_reach_add(hvf_vcpu *v) {
  atomic_store(&v->next, atomic_load(&first));
  atomic_store(&first, v);
}

/* Whoever begins to read after the store does not find it; the others are waited for. */
void hvf_reach_remove(hvf_vcpu *v) {
  _Atomic(hvf_vcpu *) *link = &first;
  while (atomic_load(link) != v) {
    link = &atomic_load(link)->next;
  }
  atomic_store(link, atomic_load(&v->next));
  while (atomic_load(&readers) > 0) {
    sched_yield();
  }
}

void hvf_reach_forget(void) {
  atomic_store(&first, NULL);
  atomic_store(&is_open, false);
  atomic_store(&readers, 0);
}

static hvf_vcpu *find(hv_vcpuid_t id) {
  hvf_vcpu *v = atomic_load(&first);
  while (v && v->id != id) {
    v = atomic_load(&v->next);
  }
  return v;
}

static hv_return_t interrupt(const hv_vcpuid_t *ids, unsigned int count) {
  if (!atomic_load(&is_open)) {
    return hvf_fail_no_vm();
  }
  for (unsigned int i = 0; i < count; i++) {
    if (!find(ids[i])) {
      return hvf_fail(HV_BAD_ARGUMENT, "there is no vCPU %u", ids[i]);
    }
  }
  for (unsigned int i = 0; i < count; i++) {
    hvf_vcpu *v = find(ids[i]);
    if (v) {
      atomic_store(&v->interrupted, true);
      luna_vcpu_interrupt(v->vcpu);
    }
  }
  return HV_SUCCESS;
}

hv_return_t hvf_reach_interrupt(const hv_vcpuid_t *ids, unsigned int count) {
  atomic_fetch_add(&readers, 1);
  hv_return_t result = interrupt(ids, count);
  atomic_fetch_sub(&readers, 1);
  return result;
}
