/* SPDX-License-Identifier: MIT
 * The groups that a vCPU's state is moved in, as one table: where a copy is kept, which ioctls read
 * and write it, in which order KVM wants them. Save, restore, move and the fresh state walk it. */
#ifndef LUNA_GROUP_H
#define LUNA_GROUP_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* In the order in which they are written: XCR0 before the state that it enables, the LAPIC behind
 * the system registers, whose APIC base says what its page means, the counters behind the LAPIC,
 * whose timer counts on them; events behind the general registers, with which KVM forgets a pending
 * exception. */
typedef enum luna_group {
  LUNA_GROUP_MP,
  LUNA_GROUP_SREGS,
  LUNA_GROUP_XCRS,
  LUNA_GROUP_XSAVE,
  LUNA_GROUP_DEBUG,
  LUNA_GROUP_MSRS,
  LUNA_GROUP_LAPIC,
  LUNA_GROUP_COUNTERS,
  LUNA_GROUP_REGS,
  LUNA_GROUP_EVENTS,
  LUNA_GROUP_COUNT
} luna_group;

/* Sets of groups, a bit each. */
enum {
  LUNA_GROUPS_FPU = 1 << LUNA_GROUP_XCRS | 1 << LUNA_GROUP_XSAVE,
  LUNA_GROUPS_MSRS = 1 << LUNA_GROUP_DEBUG | 1 << LUNA_GROUP_MSRS,
  LUNA_GROUPS_LAPIC = 1 << LUNA_GROUP_MP | 1 << LUNA_GROUP_LAPIC,
  /* Those that a vCPU keeps to itself between exits, and hands over by the run page (state.c). */
  LUNA_GROUPS_PAGE = 1 << LUNA_GROUP_SREGS | 1 << LUNA_GROUP_REGS | 1 << LUNA_GROUP_EVENTS,
  LUNA_GROUPS_ALL = (1 << LUNA_GROUP_COUNT) - 1
};

enum {
  LUNA_MSRS_MOST = 512,
  LUNA_COUNTERS_MOST = 2
};

/* struct kvm_msrs, with room for its entries. */
typedef struct luna_msrs {
  uint32_t count;
  uint32_t pad;
  struct kvm_msr_entry entries[LUNA_MSRS_MOST];
} luna_msrs;

/* The same for the MSRs that go by themselves: the time-stamp counter and its deadline. */
typedef struct luna_counters {
  uint32_t count;
  uint32_t pad;
  struct kvm_msr_entry entries[LUNA_COUNTERS_MOST];
} luna_counters;

/* A state. What a seat holds of it is what KVM holds, as far as is known: a group's bit in `known`
 * says that its copy here is true. The counters run on; their copy is of the moment when it was
 * made, and stays for a vCPU that does not run, until somebody sets them. */
typedef struct luna_held {
  uint32_t known;
  uint32_t mp;
  struct kvm_regs regs;
  struct kvm_sregs sregs;
  struct kvm_vcpu_events events;
  struct kvm_xcrs xcrs;
  struct kvm_debugregs debugregs;
  struct kvm_lapic_state lapic;
  luna_counters counters;
  luna_msrs *msrs;
  void *xsave;
  uint32_t xsave_size; /* luna_host.xsave_size */
} luna_held;

struct luna_seat;

/* What a group's copy has, to be written elsewhere or read from there, and its bytes. */
void *luna_group_bytes(luna_held *held, luna_group group, size_t *size);

/* Whether the seat's copy of the group is true, and no other thread has changed the group since. */
bool luna_seat_knows(struct luna_seat *seat, luna_group group);
/* Makes sure that the copies of these groups are true. */
int luna_seat_fetch(struct luna_seat *seat, uint32_t groups);
/* Makes the seat hold what `wanted` says of the groups; nothing is written that it holds already.
 * The seat's copies are true afterwards. */
int luna_seat_write(struct luna_seat *seat, const luna_held *wanted, uint32_t groups);

#endif
