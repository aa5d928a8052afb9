/* SPDX-License-Identifier: MIT
 * The clock that KVM gives guests: it begins at 0 with each VM of KVM's, and a guest that changes
 * its space, or comes from another VM, must not see it go back. */
#include "memory/clock.h"

#include "base/error.h"
#include "kvm/kvm_event.h"
#include "memory/space.h"
#include "memory/vm.h"

#include <errno.h>

/* The moment is before the reading, so that a clock that is set by it is not behind. */
int luna_clock_read(const luna_space *space, luna_clock_reading *reading) {
  *reading = (luna_clock_reading){.moment = luna_clock()};
  if (luna_kvm_get_clock(space->vm_fd, &reading->value) == 0 || errno == ENOTTY) {
    return LUNA_OK;
  }
  return luna_fail_errno(errno, "cannot read the clock of space %u", space->id);
}

int luna_clock_reach(const luna_space *space, const luna_clock_reading *other) {
  luna_clock_reading now;
  int status = luna_clock_read(space, &now);
  uint64_t wanted = other->value + (now.moment - other->moment);
  if (status != LUNA_OK || now.value >= wanted || other->value == 0) {
    return status;
  }
  wanted = other->value + (luna_clock() - other->moment);
  return luna_kvm_set_clock(space->vm_fd, wanted) == 0
             ? LUNA_OK
             : luna_fail_errno(errno, "cannot set the clock of space %u", space->id);
}

int luna_clock_join(const luna_vm *vm, const luna_space *space) {
  const luna_space *first = vm->space_count > 0 ? vm->spaces[0] : NULL;
  luna_clock_reading reading;
  if (!first) {
    return LUNA_OK;
  }
  int status = luna_clock_read(first, &reading);
  return status == LUNA_OK ? luna_clock_reach(space, &reading) : status;
}
