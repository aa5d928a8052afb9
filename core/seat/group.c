/* SPDX-License-Identifier: MIT
 * Moving the state that has no place in the run page between two seats, a group at a time, and only
 * what differs. */
#include "base/error.h"
#include "kvm/host.h"
#include "kvm/kvm.h"
#include "seat/seat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int fetch_xsave(luna_seat *seat) {
  uint32_t size = luna_host_get()->xsave_size;
  if (!seat->held.xsave) {
    seat->held.xsave = calloc(1, size);
    if (!seat->held.xsave) {
      return luna_fail_errno(ENOMEM, "cannot read the extended state of a vCPU");
    }
  }
  return luna_kvm_get_xsave(seat->fd, seat->held.xsave, size) == 0
             ? LUNA_OK
             : luna_fail_errno(errno, "cannot read the extended state of a vCPU");
}

static int fetch_group(luna_seat *seat, luna_group group) {
  switch (group) {
    case LUNA_GROUP_XCRS:
      return luna_kvm_get_xcrs(seat->fd, &seat->held.xcrs) == 0
                 ? LUNA_OK
                 : luna_fail_errno(errno, "cannot read XCR0 of a vCPU");
    case LUNA_GROUP_XSAVE:
      return fetch_xsave(seat);
    case LUNA_GROUP_DEBUG:
      return luna_kvm_get_debugregs(seat->fd, &seat->held.debugregs) == 0
                 ? LUNA_OK
                 : luna_fail_errno(errno, "cannot read the debug registers of a vCPU");
    default:
      return luna_seat_fetch_msrs(seat);
  }
}

int luna_seat_fetch(luna_seat *seat, uint32_t groups) {
  for (uint32_t left = groups & ~seat->held.known; left; left &= left - 1) {
    luna_group group = (luna_group)__builtin_ctz(left);
    int status = fetch_group(seat, group);
    if (status != LUNA_OK) {
      return status;
    }
    seat->held.known |= 1u << group;
  }
  return LUNA_OK;
}

static int write_xcrs(luna_seat *target, const luna_held *source) {
  if (memcmp(&target->held.xcrs, &source->xcrs, sizeof target->held.xcrs) == 0) {
    return 0;
  }
  target->held.xcrs = source->xcrs;
  return luna_kvm_set_xcrs(target->fd, &target->held.xcrs);
}

static int write_xsave(luna_seat *target, const luna_held *source) {
  uint32_t size = luna_host_get()->xsave_size;
  if (memcmp(target->held.xsave, source->xsave, size) == 0) {
    return 0;
  }
  memcpy(target->held.xsave, source->xsave, size);
  return luna_kvm_set_xsave(target->fd, target->held.xsave);
}

static int write_debug(luna_seat *target, const luna_held *source) {
  if (memcmp(&target->held.debugregs, &source->debugregs, sizeof target->held.debugregs) == 0) {
    return 0;
  }
  target->held.debugregs = source->debugregs;
  return luna_kvm_set_debugregs(target->fd, &target->held.debugregs);
}

static int copy_group(luna_seat *target, const luna_held *source, luna_group group) {
  static const char *const names[] = {"XCR0", "the extended state", "the debug registers"};
  int result = 0;
  switch (group) {
    case LUNA_GROUP_XCRS:
      result = write_xcrs(target, source);
      break;
    case LUNA_GROUP_XSAVE:
      result = write_xsave(target, source);
      break;
    case LUNA_GROUP_DEBUG:
      result = write_debug(target, source);
      break;
    default:
      return luna_seat_write_msrs(target, source);
  }
  return result == 0 ? LUNA_OK : luna_fail_errno(errno, "cannot write %s of a vCPU", names[group]);
}

int luna_seat_write(luna_seat *target, const luna_held *source, uint32_t groups) {
  int status = luna_seat_fetch(target, groups);
  for (uint32_t left = groups; left && status == LUNA_OK; left &= left - 1) {
    luna_group group = (luna_group)__builtin_ctz(left);
    status = copy_group(target, source, group);
    if (status != LUNA_OK) {
      target->held.known &= ~(1u << group);
    }
  }
  return status;
}

int luna_seat_copy(luna_seat *target, const luna_seat *source, uint32_t groups) {
  int status = luna_seat_write(target, &source->held, groups);
  return status == LUNA_OK && groups >> LUNA_GROUP_MSRS & 1 ? luna_seat_copy_tsc(target, source)
                                                            : status;
}
