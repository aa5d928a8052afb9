/* SPDX-License-Identifier: MIT
 * The state of a vCPU as KVM makes it, which a seat gets before another vCPU takes it over. */
#include "seat/fresh.h"

#include "base/error.h"
#include "kvm/host.h"
#include "kvm/kvm_event.h"
#include "memory/space.h"
#include "seat/group.h"
#include "seat/seat.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* What a seat without a LAPIC has; that of a LAPIC is apic.c's. The counter goes on. */
enum {
  FRESH = LUNA_GROUPS_ALL & ~(LUNA_GROUPS_LAPIC | 1 << LUNA_GROUP_COUNTERS)
};

static pthread_mutex_t fresh_lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
  luna_held state;
  uint64_t host; /* on which it was read */
} fresh_of[LUNA_ACCEL_COUNT];

static int read_fresh(luna_seat *seat) {
  int status = luna_seat_fetch(seat, FRESH);
  if (status == LUNA_OK) {
    luna_held *fresh = &fresh_of[seat->host->accel].state;
    free(fresh->msrs);
    free(fresh->xsave);
    *fresh = seat->held;
    seat->held = (luna_held){0};
    fresh_of[seat->host->accel].host = seat->host->serial;
  }
  return status;
}

static bool is_known(const luna_host *host) {
  return fresh_of[host->accel].host == host->serial;
}

/* Reads a fresh vCPU's state, once, in a VM made for it. */
static int know_fresh(const luna_host *host) {
  if (is_known(host)) {
    return LUNA_OK;
  }
  luna_space *scratch;
  luna_seat *seat;
  int status = luna_seat_scratch(host, &scratch, &seat);
  if (status == LUNA_OK) {
    status = read_fresh(seat);
    luna_seat_scratch_free(scratch);
  }
  return status;
}

/* Whether a VM and a vCPU could still be made. */
static bool has_descriptors(void) {
  enum {
    NEEDED = 3
  };
  int fds[NEEDED];
  int count = 0;
  while (count < NEEDED && (fds[count] = eventfd(0, EFD_CLOEXEC)) >= 0) {
    count++;
  }
  for (int i = 0; i < count; i++) {
    close(fds[i]);
  }
  return count == NEEDED;
}

void luna_seat_note_fresh(luna_seat *seat) {
  pthread_mutex_lock(&fresh_lock);
  if (!is_known(seat->host) && !has_descriptors()) {
    read_fresh(seat); /* where that fails, a VM is made for it after all */
  }
  pthread_mutex_unlock(&fresh_lock);
}

/* The last vCPU's breakpoints. */
static int end_debug(luna_seat *seat, uint32_t id) {
  const struct kvm_guest_debug none = {0};
  if (seat->debug.control == 0) {
    return LUNA_OK;
  }
  if (luna_kvm_guest_debug(seat->fd, &none) != 0) {
    return luna_fail_errno(errno, "cannot take the breakpoints of vCPU %u away", id);
  }
  seat->debug = none;
  return LUNA_OK;
}

static int write_fresh(luna_seat *seat, uint32_t id) {
  const uint64_t bootstrap = 0x100; /* IA32_APIC_BASE.BSP */
  luna_held wanted = fresh_of[seat->host->accel].state;
  uint64_t base = wanted.sregs.apic_base;
  wanted.sregs.apic_base = id == 0 ? base | bootstrap : base & ~bootstrap;
  seat->held.known = 0;
  seat->run->kvm_dirty_regs = 0;
  seat->run->ready_for_interrupt_injection = 0;
  seat->run->request_interrupt_window = 0;
  int status = end_debug(seat, id);
  status = status == LUNA_OK ? luna_seat_write(seat, &wanted, FRESH) : status;
  seat->tsc_set = true; /* a counter of its own: there is nothing to take over */
  return status;
}

int luna_seat_reset(luna_seat *seat, uint32_t id) {
  pthread_mutex_lock(&fresh_lock);
  int status = know_fresh(seat->host);
  status = status == LUNA_OK ? write_fresh(seat, id) : status;
  pthread_mutex_unlock(&fresh_lock);
  return status;
}
