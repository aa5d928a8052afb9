/* SPDX-License-Identifier: MIT
 * The table of state groups, and walking it: reading them from a KVM vCPU, and writing to one what
 * it does not hold already. */
#include "seat/group.h"

#include "base/error.h"
#include "kvm/host.h"
#include "kvm/kvm.h"
#include "seat/lapic.h"
#include "seat/msrs.h"
#include "seat/seat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A group with `get` and `set` is one structure of KVM's, read and written by these requests. */
typedef struct rule {
  const char *name;
  size_t offset; /* of the copy in luna_held */
  size_t size;
  unsigned long get;
  unsigned long set;
  int (*fetch)(luna_seat *seat); /* otherwise: 0, or a negative status */
  int (*write)(luna_seat *seat, const luna_held *wanted);
  bool restless; /* changes without luna_seat_write, so that no copy stays true */
} rule;

static int fetch_xsave(luna_seat *seat);
static int write_xsave(luna_seat *seat, const luna_held *wanted);

#define COPY(field) .offset = offsetof(luna_held, field), .size = sizeof(((luna_held *)NULL)->field)

static const rule rules[LUNA_GROUP_COUNT] = {
    [LUNA_GROUP_MP] = {.name = "the MP state",
                       COPY(mp),
                       .get = KVM_GET_MP_STATE,
                       .set = KVM_SET_MP_STATE,
                       .restless = true},
    [LUNA_GROUP_SREGS] = {.name = "the system registers",
                          COPY(sregs),
                          .get = KVM_GET_SREGS,
                          .set = KVM_SET_SREGS,
                          .restless = true},
    [LUNA_GROUP_XCRS] = {.name = "XCR0", COPY(xcrs), .get = KVM_GET_XCRS, .set = KVM_SET_XCRS},
    [LUNA_GROUP_XSAVE] = {.name = "the extended state",
                          COPY(xsave),
                          .fetch = fetch_xsave,
                          .write = write_xsave},
    [LUNA_GROUP_DEBUG] = {.name = "the debug registers",
                          COPY(debugregs),
                          .get = KVM_GET_DEBUGREGS,
                          .set = KVM_SET_DEBUGREGS},
    [LUNA_GROUP_MSRS] = {.name = "the MSRs",
                         COPY(msrs),
                         .fetch = luna_seat_fetch_msrs,
                         .write = luna_seat_write_msrs},
    [LUNA_GROUP_LAPIC] = {.name = "the LAPIC",
                          COPY(lapic),
                          .fetch = luna_seat_fetch_lapic,
                          .write = luna_seat_write_lapic,
                          .restless = true},
    [LUNA_GROUP_COUNTERS] = {.name = "the time-stamp counter",
                             COPY(counters),
                             .fetch = luna_seat_fetch_counters,
                             .write = luna_seat_write_counters},
    [LUNA_GROUP_REGS] = {.name = "the registers",
                         COPY(regs),
                         .get = KVM_GET_REGS,
                         .set = KVM_SET_REGS,
                         .restless = true},
    [LUNA_GROUP_EVENTS] = {.name = "the events",
                           COPY(events),
                           .get = KVM_GET_VCPU_EVENTS,
                           .set = KVM_SET_VCPU_EVENTS,
                           .restless = true},
};

static void *copy_of(luna_held *held, const rule *r) {
  return (uint8_t *)held + r->offset;
}

void *luna_group_bytes(luna_held *held, luna_group group, size_t *size) {
  *size = rules[group].size;
  switch (group) {
    case LUNA_GROUP_XSAVE:
      *size = held->xsave_size;
      return held->xsave;
    case LUNA_GROUP_MSRS:
      *size = held->msrs->count * sizeof *held->msrs->entries;
      return held->msrs->entries;
    case LUNA_GROUP_COUNTERS:
      *size = held->counters.count * sizeof *held->counters.entries;
      return held->counters.entries;
    default:
      return copy_of(held, &rules[group]);
  }
}

/* The copy is true now, if it was read or written and stays so. */
static void note(luna_seat *seat, int group, int status) {
  if (status == LUNA_OK && !rules[group].restless) {
    seat->held.known |= 1u << group;
  } else {
    seat->held.known &= ~(1u << group);
  }
}

/* ---- Reading ---- */

static int fetch_xsave(luna_seat *seat) {
  uint32_t size = seat->host->xsave_size;
  if (!seat->held.xsave) {
    seat->held.xsave = calloc(1, size);
    if (!seat->held.xsave) {
      return luna_fail_errno(ENOMEM, "cannot read the extended state of vCPU %u", seat->id);
    }
    seat->held.xsave_size = size;
  }
  return luna_kvm_get_xsave(seat->fd, seat->held.xsave, size) == 0
             ? LUNA_OK
             : luna_fail_errno(errno, "cannot read the extended state of vCPU %u", seat->id);
}

static int fetch(luna_seat *seat, const rule *r) {
  if (r->fetch) {
    return r->fetch(seat);
  }
  return luna_kvm_call(seat->fd, r->get, copy_of(&seat->held, r)) == 0
             ? LUNA_OK
             : luna_fail_errno(errno, "cannot read %s of vCPU %u", r->name, seat->id);
}

bool luna_seat_knows(luna_seat *seat, luna_group group) {
  seat->held.known &= ~atomic_exchange(&seat->stale, 0);
  return seat->held.known >> group & 1;
}

int luna_seat_fetch(luna_seat *seat, uint32_t groups) {
  seat->held.known &= ~atomic_exchange(&seat->stale, 0);
  for (uint32_t left = groups & ~seat->held.known; left; left &= left - 1) {
    int group = __builtin_ctz(left);
    int status = fetch(seat, &rules[group]);
    note(seat, group, status);
    if (status != LUNA_OK) {
      return status;
    }
  }
  return LUNA_OK;
}

/* ---- Writing ---- */

static int write_xsave(luna_seat *seat, const luna_held *wanted) {
  uint32_t size = seat->host->xsave_size;
  if (memcmp(seat->held.xsave, wanted->xsave, size) == 0) {
    return LUNA_OK;
  }
  memcpy(seat->held.xsave, wanted->xsave, size);
  return luna_kvm_set_xsave(seat->fd, seat->held.xsave) == 0
             ? LUNA_OK
             : luna_fail_errno(errno, "cannot write the extended state of vCPU %u", seat->id);
}

static int write_copy(luna_seat *seat, const luna_held *wanted, luna_group group) {
  const rule *r = &rules[group];
  uint8_t *copy = copy_of(&seat->held, r);
  const uint8_t *from = (const uint8_t *)wanted + r->offset;
  if (seat->held.known >> group & 1 && memcmp(copy, from, r->size) == 0) {
    return LUNA_OK;
  }
  memcpy(copy, from, r->size);
  return luna_kvm_call(seat->fd, r->set, copy) == 0
             ? LUNA_OK
             : luna_fail_errno(errno, "cannot write %s of vCPU %u", r->name, seat->id);
}

int luna_seat_write(luna_seat *seat, const luna_held *wanted, uint32_t groups) {
  int status = luna_seat_fetch(seat, groups & (LUNA_GROUPS_FPU | LUNA_GROUPS_MSRS));
  for (uint32_t left = groups; left && status == LUNA_OK; left &= left - 1) {
    luna_group group = (luna_group)__builtin_ctz(left);
    const rule *r = &rules[group];
    status = r->write ? r->write(seat, wanted) : write_copy(seat, wanted, group);
    note(seat, (int)group, status);
  }
  return status;
}
