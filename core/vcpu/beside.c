/* SPDX-License-Identifier: MIT
 * What a saved state has beside the groups: an NMI, an SMI and vectors that are given to KVM with
 * the next entry, and the clock of the KVM VM (kvmclock). */
#include "vcpu/beside.h"

#include "base/error.h"
#include "kvm/kvm_interrupt.h"
#include "memory/clock.h"
#include "memory/space.h"
#include "vcpu/vcpu.h"

#include <stddef.h>

void *luna_beside_bytes(luna_beside *beside, uint32_t tag, size_t *size) {
  switch (tag) {
    case LUNA_BESIDE_WAITING:
      *size = sizeof beside->waiting;
      return &beside->waiting;
    case LUNA_BESIDE_CLOCK:
      *size = sizeof beside->clock;
      return &beside->clock;
    default:
      return NULL;
  }
}

int luna_beside_read(luna_vcpu *vcpu, luna_beside *beside, bool again) {
  luna_clock_reading reading = {.value = vcpu->seat->clock_then};
  int status = again ? LUNA_OK : luna_clock_read(vcpu->space, &reading);
  if (status != LUNA_OK) {
    return status;
  }
  vcpu->seat->clock_then = reading.value;
  *beside = (luna_beside){.clock = reading.value, .waiting.posted = atomic_load(&vcpu->posted)};
  for (int word = 0; word < 4; word++) {
    beside->waiting.vectors[word] = atomic_load(&vcpu->waiting[word]);
  }
  return LUNA_OK;
}

#define FAIL(...) luna_fail(LUNA_ERROR_ARGUMENT, "not the state of a vCPU: " __VA_ARGS__)

int luna_beside_check(const luna_vcpu *vcpu, const luna_beside *beside) {
  const uint32_t known = LUNA_POSTED_NMI | LUNA_POSTED_SMI;
  const luna_waiting *w = &beside->waiting;
  if (w->posted & ~known) {
    return FAIL("it has interrupts 0x%x that wait", w->posted);
  }
  if (vcpu->vm->irqchip && (w->vectors[0] | w->vectors[1] | w->vectors[2] | w->vectors[3])) {
    return FAIL("it has vectors that wait without a LAPIC, and is of a VM with one");
  }
  return w->posted & LUNA_POSTED_SMI && !luna_kvm_has(vcpu->vm->host->accel, KVM_CAP_X86_SMM)
             ? luna_fail(LUNA_ERROR_ARGUMENT,
                         "this state is of another kind of host: an SMI waits in it, and this "
                         "host's KVM has no KVM_CAP_X86_SMM")
             : LUNA_OK;
}

int luna_beside_write_clock(luna_vcpu *vcpu, const luna_beside *beside) {
  const luna_clock_reading wanted = {.value = beside->clock, .moment = luna_clock()};
  int status = LUNA_OK;
  pthread_rwlock_rdlock(&vcpu->vm->lock);
  for (uint32_t i = 0; i < vcpu->vm->space_count && beside->clock && status == LUNA_OK; i++) {
    const luna_space *space = vcpu->vm->spaces[i];
    status = space ? luna_clock_reach(space, &wanted) : LUNA_OK;
  }
  pthread_rwlock_unlock(&vcpu->vm->lock);
  if (status == LUNA_OK) {
    vcpu->seat->clock_then = beside->clock;
  }
  return status;
}

/* What waited before is dropped: it came after the state. */
void luna_beside_write_waiting(luna_vcpu *vcpu, const luna_beside *beside) {
  for (int word = 0; word < 4; word++) {
    atomic_store(&vcpu->waiting[word], beside->waiting.vectors[word]);
  }
  atomic_store(&vcpu->posted, beside->waiting.posted);
  atomic_fetch_or(&vcpu->attention, LUNA_ATTEND_INTERRUPT); /* to see what there is */
}
