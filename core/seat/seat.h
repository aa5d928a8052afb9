/* SPDX-License-Identifier: MIT
 * A seat: the KVM vCPU that a logical vCPU uses in one space, and what KVM holds for it. Seats
 * belong to the space: KVM cannot free a vCPU before its VM, so the next vCPU of the same number
 * takes it over. */
#ifndef LUNA_SEAT_H
#define LUNA_SEAT_H

#include "kvm/kvm.h"
#include "memory/space.h"

enum {
  LUNA_MSRS_MOST = 512
};

/* The groups of state that move by ioctl. General and system registers and events go through the
 * run page instead. */
typedef enum luna_group {
  LUNA_GROUP_XCRS, /* before the state it enables */
  LUNA_GROUP_XSAVE,
  LUNA_GROUP_DEBUG,
  LUNA_GROUP_MSRS,
  LUNA_GROUP_COUNT
} luna_group;

/* struct kvm_msrs, with room for its entries. */
typedef struct luna_msrs {
  uint32_t count;
  uint32_t pad;
  struct kvm_msr_entry entries[LUNA_MSRS_MOST];
} luna_msrs;

/* Beside the groups, in luna_held.known: that the system registers and events on the run page are
 * what KVM holds. */
enum {
  LUNA_HELD_SREGS = 1 << 29,
  LUNA_HELD_EVENTS = 1 << 30
};

/* What KVM holds, as far as is known: a group's bit in `known` says that its copy here is true. */
typedef struct luna_held {
  uint32_t known;
  struct kvm_xcrs xcrs;
  struct kvm_debugregs debugregs;
  luna_msrs *msrs;
  void *xsave;
} luna_held;

/* The KVM vCPU of one space, and what is known of it. */
typedef struct luna_seat {
  luna_resident resident; /* first, so that a luna_resident pointer is a seat's */
  int fd;
  int stats_fd; /* account.c: KVM_GET_STATS_FD; -1 until it is wanted, and where KVM has none */
  uint32_t id;  /* of the vCPU in its VM */
  struct kvm_run *run;
  size_t run_size;
  bool ready;                   /* made in full */
  uint64_t owner;               /* serial number of the vCPU that was here last; 0 for none */
  struct kvm_guest_debug debug; /* what KVM was last told to stop at */
  bool ran;                     /* with `cpuid`, which KVM then no longer changes */
  struct kvm_cpuid2 *cpuid;     /* what KVM has of it, or NULL */
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
struct kvm_cpuid2 *luna_seat_cpuid(uint32_t id);
/* Gives the seat the table, unless it has it. _STATE where it has run with another. */
int luna_seat_set_cpuid(luna_seat *seat, const struct kvm_cpuid2 *table);

bool luna_seat_same_cpuid(const struct kvm_cpuid2 *a, const struct kvm_cpuid2 *b);
/* A seat of a VM of its own, and freeing both. */
int luna_seat_scratch(luna_space **scratch, luna_seat **seat);
void luna_seat_scratch_free(luna_space *scratch);

/* group.c. Makes sure that the copies of these groups (bits by luna_group) are true. */
int luna_seat_fetch(luna_seat *seat, uint32_t groups);
/* Makes the target hold what the source's copies say; nothing is written that it holds already. */
int luna_seat_copy(luna_seat *target, const luna_seat *source, uint32_t groups);
/* Makes the seat hold what `wanted` says of the groups; the target's copies are true afterwards. */
int luna_seat_write(luna_seat *seat, const luna_held *wanted, uint32_t groups);
/* fresh.c. Gives a seat that a former vCPU has used the state of a fresh one. */
int luna_seat_reset(luna_seat *seat, uint32_t id);

/* seat_msrs.c: the group of MSRs, of which only those that differ are written; and the time-stamp
 * counter, by its offset to the host's, or where this KVM does not tell it, by its value. */
int luna_seat_fetch_msrs(luna_seat *seat);
int luna_seat_write_msrs(luna_seat *target, const luna_held *source);
int luna_seat_copy_tsc(luna_seat *target, const luna_seat *source);

#endif
