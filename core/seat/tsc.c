/* SPDX-License-Identifier: MIT
 * The time-stamp counter of a seat. A written value KVM may take for a wish to go with the VM's
 * other counters: 0 always, and before Linux 6.7 what is within a second of the counter. Its offset
 * to the host's is taken as it is. */
#include "seat/tsc.h"

#include "base/error.h"
#include "kvm/host.h"
#include "kvm/kvm.h"
#include "seat/group.h"
#include "seat/seat.h"

#include <errno.h>

enum {
  MSR_TSC = 0x10
};

typedef struct one_msr {
  uint32_t count;
  uint32_t pad;
  struct kvm_msr_entry entry;
} one_msr;

static int get_tsc(const luna_seat *seat, uint64_t *tsc) {
  one_msr msr = {.count = 1, .entry = {.index = MSR_TSC}};
  int done = luna_kvm_get_msrs(seat->fd, &msr);
  *tsc = msr.entry.data;
  errno = done == 0 ? ENXIO : errno;
  return done == 1 ? 0 : -1;
}

static int put_tsc(const luna_seat *seat, uint64_t tsc) {
  one_msr msr = {.count = 1, .entry = {.index = MSR_TSC, .data = tsc}};
  int done = luna_kvm_set_msrs(seat->fd, &msr);
  errno = done == 0 ? EINVAL : errno;
  return done == 1 ? 0 : -1;
}

static bool is_unknown(int number) {
  return number == ENXIO || number == ENOTTY || number == EINVAL;
}

static int get_offset(const luna_seat *seat, uint64_t *offset) {
  int result = luna_kvm_get_tsc_offset(seat->fd, offset);
  errno = result != 0 && is_unknown(errno) ? ENXIO : errno;
  return result;
}

int luna_seat_host_counter(const luna_seat *seat, uint64_t *counter, uint64_t *offset) {
  uint64_t tsc;
  if (get_offset(seat, offset) != 0 || get_tsc(seat, &tsc) != 0) {
    return -1;
  }
  *counter = tsc - *offset;
  return 0;
}

/* A KVM that lets guests read the host's counter takes an offset and forgets it. Which kind this
 * host's is shows the first time: the hosts of which it is known, by luna_host.serial. */
static _Atomic uint64_t keeps[LUNA_ACCEL_COUNT];
static _Atomic uint64_t forgets[LUNA_ACCEL_COUNT];

static int change_offset(const luna_seat *seat, uint64_t offset) {
  const uint32_t accel = seat->host->accel;
  const uint64_t host = seat->host->serial;
  uint64_t now;
  if (luna_kvm_set_tsc_offset(seat->fd, offset) != 0) {
    errno = is_unknown(errno) ? ENXIO : errno;
    return -1;
  }
  if (atomic_load(&keeps[accel]) == host) {
    return 0;
  }
  if (get_offset(seat, &now) != 0) {
    return -1;
  }
  atomic_store(now == offset ? &keeps[accel] : &forgets[accel], host);
  errno = ENXIO;
  return now == offset ? 0 : -1;
}

/* Of an offset that is there already nothing would show. */
static int replace_offset(luna_seat *seat, uint64_t before, uint64_t offset) {
  if (offset == before) {
    return 0;
  }
  atomic_fetch_or(&seat->stale, 1u << LUNA_GROUP_COUNTERS);
  int result = change_offset(seat, offset);
  if (result != 0) {
    int number = errno;
    luna_kvm_set_tsc_offset(seat->fd, before);
    errno = number;
  }
  return result;
}

int luna_seat_set_tsc_offset(luna_seat *seat, uint64_t offset) {
  uint64_t before;
  return get_offset(seat, &before) == 0 ? replace_offset(seat, before, offset) : -1;
}

/* Without an offset: far away first, so that it is not within a second, and 1 for 0. A KVM that
 * takes no value leaves the host's, which can be anywhere: only what the time since the write
 * explains is the written one. */
static int set_by_value(const luna_seat *seat, uint64_t tsc) {
  const uint64_t far = UINT64_C(1) << 62;
  const uint64_t per_ns = 16; /* ticks, more than any processor counts */
  const uint64_t begin = luna_clock();
  uint64_t now;
  tsc = tsc ? tsc : 1;
  luna_counters both = {
      .count = 2,
      .entries = {{.index = MSR_TSC, .data = tsc ^ far}, {.index = MSR_TSC, .data = tsc}}};
  int done = luna_kvm_set_msrs(seat->fd, &both);
  errno = done == 0 || done == 1 ? EINVAL : errno;
  if (done != 2 || get_tsc(seat, &now) != 0) {
    return -1;
  }
  errno = ENXIO;
  return now - tsc <= (luna_clock() - begin) * per_ns ? 0 : -1;
}

int luna_seat_set_tsc(luna_seat *seat, uint64_t tsc) {
  uint64_t counter;
  uint64_t offset;
  if (atomic_load(&forgets[seat->host->accel]) == seat->host->serial) {
    return set_by_value(seat, tsc);
  }
  int result = luna_seat_host_counter(seat, &counter, &offset);
  if (result == 0) {
    result = replace_offset(seat, offset, tsc - counter);
  }
  return result != 0 && errno == ENXIO ? set_by_value(seat, tsc) : result;
}

static int copy_tsc(luna_seat *target, const luna_seat *source) {
  uint64_t value;
  if (luna_kvm_get_tsc_offset(source->fd, &value) == 0 &&
      luna_kvm_set_tsc_offset(target->fd, value) == 0) {
    target->tsc_set = true;
    return LUNA_OK;
  }
  return get_tsc(source, &value) == 0 && put_tsc(target, value) == 0
             ? LUNA_OK
             : luna_fail_errno(errno, "cannot move the time-stamp counter of a vCPU");
}

/* What the source says of its counters, the target says too. */
int luna_seat_copy_tsc(luna_seat *target, luna_seat *source) {
  const uint32_t counters = 1 << LUNA_GROUP_COUNTERS;
  if (target == source) {
    return LUNA_OK;
  }
  int status = target->tsc_set ? LUNA_OK : copy_tsc(target, source);
  bool known = luna_seat_knows(source, LUNA_GROUP_COUNTERS);
  target->held.known = (target->held.known & ~counters) | (known ? counters : 0);
  target->held.counters = source->held.counters;
  target->count_then = source->count_then;
  target->clock_then = source->clock_then;
  return status;
}
