/* SPDX-License-Identifier: MIT
 * The time-stamp counter of a vCPU: its frequency, its distance to the host's, and all counters of
 * a VM at one moment. */
#include "vcpu/tsc.h"

#include "base/error.h"
#include "kvm/kvm.h"
#include "kvm/kvm_interrupt.h"
#include "memory/space.h"
#include "memory/vm.h"
#include "seat/group.h"
#include "seat/seat.h"
#include "seat/tsc.h"
#include "vcpu/guard.h"
#include "vcpu/msr.h"
#include "vcpu/vcpu.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

static int check(const luna_vcpu *vcpu, const char *what) {
  return atomic_load(&vcpu->running)
             ? luna_fail(LUNA_ERROR_STATE, "cannot %s of vCPU %u: it is running", what, vcpu->id)
             : LUNA_OK;
}

/* ---- Frequency ---- */

int luna_vcpu_get_tsc_frequency(luna_vcpu *vcpu, uint32_t *kilohertz) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  int status = check(vcpu, "read the TSC frequency");
  if (status != LUNA_OK) {
    return status;
  }
  int found = luna_kvm_get_tsc_khz(vcpu->fd);
  if (found < 0) {
    return luna_fail_errno(errno, "cannot read the TSC frequency of vCPU %u", vcpu->id);
  }
  *kilohertz = (uint32_t)found;
  return LUNA_OK;
}

int luna_vcpu_set_tsc_frequency(luna_vcpu *vcpu, uint32_t kilohertz) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  uint32_t now;
  int status = luna_vcpu_get_tsc_frequency(vcpu, &now);
  if (status != LUNA_OK || now == kilohertz) {
    return status;
  }
  if (kilohertz == 0) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "cannot set the TSC frequency of vCPU %u to 0", vcpu->id);
  }
  /* Without it KVM_SET_TSC_KHZ would fail, and change it. */
  if (!luna_kvm_has(vcpu->vm->host->accel, KVM_CAP_TSC_CONTROL)) {
    return luna_fail(LUNA_ERROR_UNSUPPORTED,
                     "cannot set the TSC frequency of vCPU %u from %u to %u kHz: this host's KVM "
                     "has no KVM_CAP_TSC_CONTROL",
                     vcpu->id, now, kilohertz);
  }
  if (luna_kvm_set_tsc_khz(vcpu->fd, kilohertz) != 0) {
    return luna_fail_errno(errno, "cannot set the TSC frequency of vCPU %u to %u kHz", vcpu->id,
                           kilohertz);
  }
  vcpu->tsc_khz = kilohertz;
  vcpu->seat->held.known &= ~(1u << LUNA_GROUP_COUNTERS);
  luna_msr_part_counters(vcpu);
  return LUNA_OK;
}

int luna_tsc_move(const luna_vcpu *vcpu, luna_seat *target) {
  if (!vcpu->tsc_khz || (target->tsc_set && target->owner == vcpu->serial)) {
    return LUNA_OK;
  }
  return luna_kvm_set_tsc_khz(target->fd, vcpu->tsc_khz) == 0
             ? LUNA_OK
             : luna_fail_errno(errno, "cannot move the TSC frequency of vCPU %u", vcpu->id);
}

/* ---- Offset ---- */

static int fail_offset(int number, const luna_vcpu *vcpu, const char *what) {
  if (number == ENXIO || number == ENOTTY || number == EINVAL) {
    return luna_fail(LUNA_ERROR_UNSUPPORTED,
                     "cannot %s the TSC offset of vCPU %u: this host's KVM keeps none "
                     "(KVM_VCPU_TSC_OFFSET, Linux 5.16)",
                     what, vcpu->id);
  }
  return luna_fail_errno(number, "cannot %s the TSC offset of vCPU %u", what, vcpu->id);
}

int luna_vcpu_get_tsc_offset(luna_vcpu *vcpu, int64_t *offset) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  int status = check(vcpu, "read the TSC offset");
  uint64_t found;
  if (status == LUNA_OK && luna_kvm_get_tsc_offset(vcpu->fd, &found) != 0) {
    status = fail_offset(errno, vcpu, "read");
  }
  if (status == LUNA_OK) {
    *offset = (int64_t)found;
  }
  return status;
}

int luna_vcpu_set_tsc_offset(luna_vcpu *vcpu, int64_t offset) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  int status = check(vcpu, "set the TSC offset");
  if (status == LUNA_OK && luna_seat_set_tsc_offset(vcpu->seat, (uint64_t)offset) != 0) {
    status = fail_offset(errno, vcpu, "set");
  }
  if (status == LUNA_OK) {
    luna_msr_part_counters(vcpu);
  }
  return status;
}

int luna_tsc_write(luna_vcpu *vcpu, uint64_t tsc) {
  if (luna_seat_set_tsc(vcpu->seat, tsc) == 0) {
    luna_msr_part_counters(vcpu);
    return LUNA_OK;
  }
  return errno == ENXIO
             ? luna_fail(LUNA_ERROR_UNSUPPORTED,
                         "cannot set the time-stamp counter of vCPU %u to 0x%" PRIx64
                         ": this host's KVM lets guests read the host's as it is",
                         vcpu->id, tsc)
             : luna_fail_errno(errno, "cannot set the time-stamp counter of vCPU %u", vcpu->id);
}

/* ---- All counters of a VM ---- */

static int fail_sync(int number) {
  return number == ENXIO
             ? luna_fail(LUNA_ERROR_UNSUPPORTED,
                         "cannot synchronize the TSCs: this host's KVM keeps no offset of them "
                         "(KVM_VCPU_TSC_OFFSET, Linux 5.16)")
             : luna_fail_errno(number, "cannot synchronize the TSCs");
}

/* The seats that have a vCPU now, and the offsets of their counters. */
typedef struct counter {
  luna_seat *seat;
  uint64_t offset;
} counter;

static size_t find_counters(const luna_vm *vm, counter *found) {
  size_t count = 0;
  for (uint32_t i = 0; i < vm->space_count; i++) {
    const luna_space *space = vm->spaces[i];
    for (uint32_t id = 0; space && id < space->resident_count; id++) {
      luna_seat *seat = luna_seat_at(space, id);
      if (seat && seat->resident.kick) {
        if (found) {
          found[count].seat = seat;
        }
        count++;
      }
    }
  }
  return count;
}

/* One offset for all: where the first vCPU has the value now, the others have it too. All of them,
 * or none. */
static int set_counters(counter *counters, size_t count, uint64_t tsc) {
  uint64_t first = 0;
  uint64_t ignored;
  for (size_t i = 0; i < count; i++) {
    if (luna_seat_host_counter(counters[i].seat, i == 0 ? &first : &ignored, &counters[i].offset) !=
        0) {
      return fail_sync(errno);
    }
  }
  for (size_t i = 0; i < count; i++) {
    if (luna_seat_set_tsc_offset(counters[i].seat, tsc - first) != 0) {
      int status = fail_sync(errno);
      while (i-- > 0) {
        luna_seat_set_tsc_offset(counters[i].seat, counters[i].offset);
      }
      return status;
    }
  }
  return LUNA_OK;
}

static int sync_all(const luna_vm *vm, uint64_t tsc) {
  size_t count = find_counters(vm, NULL);
  counter *counters = calloc(count + 1, sizeof *counters);
  if (!counters) {
    return luna_fail_errno(ENOMEM, "cannot synchronize the TSCs");
  }
  find_counters(vm, counters);
  int status = set_counters(counters, count, tsc);
  free(counters);
  return status;
}

static void each_space(const luna_vm *vm, void (*call)(luna_space *)) {
  for (uint32_t i = 0; i < vm->space_count; i++) {
    if (vm->spaces[i]) {
      call(vm->spaces[i]);
    }
  }
}

static void forget_empty(luna_space *space) {
  for (uint32_t i = 0; i < space->resident_count; i++) {
    luna_seat *seat = luna_seat_at(space, i);
    if (seat && !seat->resident.kick) {
      seat->tsc_set = false;
    }
  }
}

int luna_vm_sync_tsc(luna_vm *vm, uint64_t tsc) {
  pthread_rwlock_wrlock(&vm->lock);
  each_space(vm, luna_space_pause);
  int status = sync_all(vm, tsc);
  if (status == LUNA_OK) {
    each_space(vm, forget_empty);
  }
  each_space(vm, luna_space_resume);
  pthread_rwlock_unlock(&vm->lock);
  return status;
}
