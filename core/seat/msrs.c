/* SPDX-License-Identifier: MIT
 * Which MSRs hold a vCPU's state on this host, and moving those and the time-stamp counter from one
 * seat to another. */
#include "seat/msrs.h"

#include "base/error.h"
#include "kvm/host.h"
#include "kvm/kvm.h"
#include "memory/space.h"
#include "seat/group.h"
#include "seat/seat.h"
#include "seat/tsc.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* IA32_TIME_STAMP_COUNTER moves as an offset, not as a value that is old when it arrives. */
enum {
  MSR_TSC = 0x10,
  MSR_TSC_ADJUST = 0x3b,
  MSR_TSC_DEADLINE = 0x6e0
};

static pthread_mutex_t msr_lock = PTHREAD_MUTEX_INITIALIZER;
/* The MSRs that can be read and written back. */
typedef struct luna_movable {
  uint32_t indices[LUNA_MSRS_MOST];
  uint32_t count;
  uint64_t host; /* which host they were found on */
} luna_movable;
static luna_movable movable_of[LUNA_ACCEL_COUNT];

/* 1 if an MSR can be read with this CPUID and written back, 0 if not, or a negative status. Those
 * of Hyper-V, which no CPUID here offers, hold clocks of their own. */
static int is_movable(const luna_seat *seat, uint32_t index) {
  luna_msrs one = {.count = 1};
  one.entries[0].index = index;
  bool hyper_v = index >= 0x40000000 && index < 0x40001000;
  if (hyper_v || index == MSR_TSC || index == MSR_TSC_DEADLINE) {
    return 0;
  }
  int done = luna_kvm_get_msrs(seat->fd, &one);
  done = done == 1 ? luna_kvm_set_msrs(seat->fd, &one) : done;
  return done >= 0 ? done : luna_fail_errno(errno, "cannot try MSR 0x%x of a vCPU", index);
}

static int add_movable(const luna_seat *seat, uint32_t index) {
  luna_movable *movable = &movable_of[seat->host->accel];
  for (uint32_t i = 0; i < movable->count; i++) {
    if (movable->indices[i] == index) {
      return LUNA_OK;
    }
  }
  int found = movable->count < LUNA_MSRS_MOST ? is_movable(seat, index) : 0;
  if (found > 0) {
    movable->indices[movable->count++] = index;
  }
  return found < 0 ? found : LUNA_OK;
}

static int add_range(const luna_seat *seat, uint32_t first, uint32_t last) {
  int status = LUNA_OK;
  for (uint32_t index = first; index <= last && status == LUNA_OK; index++) {
    status = add_movable(seat, index);
  }
  return status;
}

/* The memory type range registers (SDM Vol. 3, 12.11), which KVM keeps but does not list. */
static int add_mtrrs(const luna_seat *seat) {
  static const uint32_t ranges[][2] = {
      {0x200, 0x20f}, {0x250, 0x250}, {0x258, 0x259}, {0x268, 0x26f}, {0x2ff, 0x2ff}};
  int status = LUNA_OK;
  for (size_t i = 0; i < sizeof ranges / sizeof *ranges && status == LUNA_OK; i++) {
    status = add_range(seat, ranges[i][0], ranges[i][1]);
  }
  return status;
}

static int try_movable(const luna_seat *seat) {
  const struct kvm_msr_list *list = seat->host->msrs;
  luna_movable *movable = &movable_of[seat->host->accel];
  movable->count = 0;
  int status = LUNA_OK;
  for (uint32_t i = 0; i < list->nmsrs && status == LUNA_OK; i++) {
    status = add_movable(seat, list->indices[i]);
  }
  status = status == LUNA_OK ? add_mtrrs(seat) : status;
  if (status != LUNA_OK) {
    movable->count = 0; /* half a list would leave state behind unseen */
  }
  return status;
}

/* On a vCPU with everything that CPUID can offer here. */
static int find_movable(const luna_host *host) {
  luna_space *scratch;
  luna_seat *seat;
  int status = luna_seat_scratch(host, &scratch, &seat);
  if (status == LUNA_OK) {
    status = try_movable(seat);
    luna_seat_scratch_free(scratch);
  }
  return status;
}

/* On this vCPU, if it has everything that CPUID can offer here, or on one of its own; where there
 * is no descriptor for that, on this one nevertheless, which then holds for it alone. */
static int find_movable_with(const luna_seat *seat, bool *for_all) {
  struct kvm_cpuid2 *all = luna_seat_cpuid(seat->host, seat->id);
  bool has_all = all && seat->cpuid && luna_seat_same_cpuid(seat->cpuid, all);
  free(all);
  int status = has_all ? try_movable(seat) : find_movable(seat->host);
  *for_all = status != LUNA_ERROR_LIMIT;
  return *for_all ? status : try_movable(seat);
}

static int know_movable(const luna_seat *seat) {
  luna_movable *movable = &movable_of[seat->host->accel];
  const uint64_t host = seat->host->serial;
  pthread_mutex_lock(&msr_lock);
  int status = LUNA_OK;
  if (movable->host != host || movable->count == 0) {
    bool for_all;
    status = find_movable_with(seat, &for_all);
    movable->host = for_all ? host : 0;
  }
  pthread_mutex_unlock(&msr_lock);
  return status;
}

/* Leaves out those that this vCPU's CPUID hides. */
static int read_msrs(luna_seat *seat) {
  luna_msrs *msrs = seat->held.msrs;
  for (;;) {
    int done = luna_kvm_get_msrs(seat->fd, msrs);
    if (done < 0) {
      return luna_fail_errno(errno, "cannot read the MSRs of a vCPU");
    }
    if (done == (int)msrs->count) {
      return LUNA_OK;
    }
    msrs->count--;
    memmove(&msrs->entries[done], &msrs->entries[done + 1],
            (msrs->count - (uint32_t)done) * sizeof *msrs->entries);
  }
}

int luna_seat_fetch_msrs(luna_seat *seat) {
  luna_held *held = &seat->held;
  int status = know_movable(seat);
  if (status != LUNA_OK) {
    return status;
  }
  if (!held->msrs) {
    held->msrs = calloc(1, sizeof *held->msrs);
    if (!held->msrs) {
      return luna_fail_errno(ENOMEM, "cannot read the MSRs of a vCPU");
    }
    const luna_movable *movable = &movable_of[seat->host->accel];
    held->msrs->count = movable->count;
    for (uint32_t i = 0; i < movable->count; i++) {
      held->msrs->entries[i].index = movable->indices[i];
    }
  }
  return read_msrs(seat);
}

/* Writes the MSRs that differ. Both lists have the same order; one may lack some that its CPUID
 * hides. */
int luna_seat_write_msrs(luna_seat *seat, const luna_held *from) {
  const luna_msrs *wanted = from->msrs;
  luna_msrs *now = seat->held.msrs;
  luna_msrs change = {0};
  uint32_t places[LUNA_MSRS_MOST];
  for (uint32_t i = 0, at = 0; i < wanted->count && at < now->count; i++) {
    const struct kvm_msr_entry *entry = &wanted->entries[i];
    uint32_t place = at;
    while (place < now->count && now->entries[place].index != entry->index) {
      place++;
    }
    if (place == now->count) {
      continue;
    }
    at = place + 1;
    if (now->entries[place].data != entry->data) {
      places[change.count] = place;
      change.entries[change.count++] = *entry;
      /* KVM notes there what the guest adds to its time-stamp counter. */
      seat->tsc_set = seat->tsc_set && entry->index != MSR_TSC_ADJUST;
    }
  }
  if (change.count == 0) {
    return LUNA_OK;
  }
  int done = luna_kvm_set_msrs(seat->fd, &change);
  if (done != (int)change.count) {
    const struct kvm_msr_entry *entry = &change.entries[done < 0 ? 0 : done];
    return luna_fail_errno(done < 0 ? errno : EINVAL, "cannot write 0x%llx to MSR 0x%x of a vCPU",
                           entry->data, entry->index);
  }
  for (uint32_t i = 0; i < change.count; i++) {
    now->entries[places[i]].data = change.entries[i].data;
  }
  return LUNA_OK;
}

/* Without the deadline where this vCPU has none. */
int luna_seat_fetch_counters(luna_seat *seat) {
  luna_counters *counters = &seat->held.counters;
  *counters = (luna_counters){.count = LUNA_COUNTERS_MOST,
                              .entries = {{.index = MSR_TSC}, {.index = MSR_TSC_DEADLINE}}};
  int done = luna_kvm_get_msrs(seat->fd, counters);
  if (done < 1) {
    return luna_fail_errno(done < 0 ? errno : EIO, "cannot read the time-stamp counter of vCPU %u",
                           seat->id);
  }
  counters->count = (uint32_t)done;
  return LUNA_OK;
}

/* Where this KVM lets guests read the host's counter, there is none to set; and without a deadline
 * that runs, none is missed where this vCPU has none. */
static int write_counter(luna_seat *seat, const struct kvm_msr_entry *entry) {
  if (entry->index == MSR_TSC) {
    return luna_seat_set_tsc(seat, entry->data) == 0 || errno == ENXIO ? 1 : -1;
  }
  luna_counters one = {.count = 1, .entries = {*entry}};
  int done = luna_kvm_set_msrs(seat->fd, &one);
  return done == 0 && entry->data == 0 ? 1 : done;
}

int luna_seat_write_counters(luna_seat *seat, const luna_held *wanted) {
  const luna_counters *counters = &wanted->counters;
  for (uint32_t i = 0; i < counters->count; i++) {
    int done = write_counter(seat, &counters->entries[i]);
    if (done != 1) {
      return luna_fail_errno(done < 0 ? errno : EINVAL,
                             "cannot write the time-stamp counter of vCPU %u", seat->id);
    }
  }
  seat->held.counters = *counters;
  atomic_fetch_and(&seat->stale, ~(1u << LUNA_GROUP_COUNTERS));
  return LUNA_OK;
}
