/* SPDX-License-Identifier: MIT
 * A seat: the KVM vCPU that a logical vCPU uses in one space, and what KVM holds for it. Seats
 * belong to the space: KVM cannot free a vCPU before its VM, so the next vCPU of the same number
 * takes it over. */
#ifndef LUNA_SEAT_H
#define LUNA_SEAT_H

#include "kvm/kvm.h"
#include "memory/space.h"
#include "seat/group.h"

/* The KVM vCPU of one space, and what is known of it. */
typedef struct luna_seat {
  luna_resident resident; /* first, so that a luna_resident pointer is a seat's */
  const luna_host *host;  /* the kernel that its space is on */
  luna_fd fd;
  int stats_fd; /* account.c: KVM_GET_STATS_FD; -1 until it is wanted, and where KVM has none */
  uint32_t id;  /* of the vCPU in its VM */
  struct kvm_run *run;
  size_t run_size;
  bool ready;                   /* made in full */
  uint64_t owner;               /* serial number of the vCPU that was here last; 0 for none */
  struct kvm_guest_debug debug; /* what KVM was last told to stop at */
  bool ran;                     /* with `cpuid`, which KVM then no longer changes */
  struct kvm_cpuid2 *cpuid;     /* what KVM has of it, or NULL */
  uint32_t timer_count;         /* LAPIC: the initial count that KVM was not told; 0 for none */
  uint32_t count_then;          /* LAPIC: the current count at the moment of held.counters */
  uint64_t clock_then;          /* the space's clock (memory/clock.h) at that moment */
  atomic_uint stale;            /* groups that another thread has changed: no copy of it is true */
  bool tsc_set;                 /* its time-stamp counter goes with the vCPU's others */
  luna_held held;
} luna_seat;

/* The seat of vCPU `id` in the space, made or not quite yet; NULL if there is none. */
static inline luna_seat *luna_seat_at(const luna_space *space, uint32_t id) {
  return id < space->resident_count ? (luna_seat *)(void *)space->residents[id] : NULL;
}

/* The seat of vCPU `id` in the space, made if there is none. The VM's lock is held exclusively. */
int luna_seat_take(luna_space *space, uint32_t id, luna_seat **seat);
void luna_seats_free(luna_space *space);

/* A new table of what CPUID answers to vCPU `id` where nobody says otherwise; NULL without
 * memory. */
struct kvm_cpuid2 *luna_seat_cpuid(const luna_host *host, uint32_t id);
/* Gives the seat the table, unless it has it. _STATE where it has run with another. */
int luna_seat_set_cpuid(luna_seat *seat, const struct kvm_cpuid2 *table);

bool luna_seat_same_cpuid(const struct kvm_cpuid2 *a, const struct kvm_cpuid2 *b);
/* A seat of a VM of its own on that kernel, and freeing both. */
int luna_seat_scratch(const luna_host *host, luna_space **scratch, luna_seat **seat);
void luna_seat_scratch_free(luna_space *scratch);

#endif
