/* SPDX-License-Identifier: MIT
 * A guest-physical address space: its regions, sorted and never overlapping, and the KVM VM whose
 * memory slots carry them. The caller holds the VM's lock: shared to look, exclusive to change. */
#ifndef LUNA_SPACE_H
#define LUNA_SPACE_H

#include "kvm/host.h"
#include "kvm/kick.h"
#include "base/live.h"
#include "base/range.h"
#include "memory/ring.h"

#include <stdbool.h>

/* Address space of the process that a window shows memory in: what lies there changes, the slot
 * not. */
typedef struct luna_window {
  atomic_uint references;
  uint8_t *data;
  uint64_t size;
  struct luna_window *next; /* in the edit that makes it */
} luna_window;

/* What is known to be written in a mapping and not yet reported: one bit a page, by who wrote it;
 * and the buffer's epoch up to which the host side's writes are in it, one a chunk of the buffer's
 * pages. */
typedef struct luna_log {
  uint64_t *guest;
  uint64_t *host;
  uint32_t *seen;
} luna_log;

typedef struct luna_mapping {
  luna_range range; /* guest-physical; first, so that a luna_range pointer is a mapping pointer */
  luna_buffer *buffer; /* never a view */
  uint64_t offset;     /* in the buffer, of range.first */
  uint8_t *host;       /* where range.first is in this process */
  luna_window *window; /* NULL where host is in the buffer's own memory */
  uint32_t rights;     /* luna_access bits that were asked for */
  uint32_t flags;      /* luna_map_flag bits */
  int32_t slot;        /* KVM memory slot, or -1 */
  bool no_execute;     /* its slot is kept from execution by a memory attribute */
  bool edited;         /* taken into the edit that is under way */
  luna_log *log;       /* NULL where nobody follows */
} luna_mapping;

/* What a space has to know of each KVM vCPU in it. */
typedef struct luna_resident {
  luna_kick *kick; /* of the vCPU that uses it now, or NULL; changes under the VM's lock */
  luna_ring ring;  /* where the space has dirty rings */
} luna_resident;

typedef struct luna_space {
  uint32_t id;
  const luna_host *host; /* the kernel that it is on */
  luna_fd vm_fd;
  luna_range_map regions;
  luna_mapping **by_slot; /* by slot number; NULL where it is free */
  uint32_t *free_slots;   /* numbers below next_slot that are free again */
  uint32_t free_count;
  uint32_t slot_capacity; /* of by_slot and free_slots */
  uint32_t next_slot;
  uint32_t slots_max;
  unsigned address_bits;
  bool no_execute;         /* this KVM can keep a range from execution */
  bool msrs_stale;         /* KVM's filter of MSRs is not what the traps want; the gate is closed */
  bool msr_exits;          /* KVM_CAP_X86_USER_SPACE_MSR is on */
  uint32_t coalesced_page; /* luna_host.coalesced_page */
  atomic_flag collector;   /* held by the vCPU that takes a collected write: coalesced.c */
  bool logged;             /* KVM notes the pages that the guest writes */
  bool manual_protect;     /* KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 is on */
  uint32_t ring_entries;   /* of each vCPU's dirty ring; 0 for the bitmap */
  uint64_t *reading;       /* room to read KVM's bitmaps: dirty.c */
  uint64_t reading_words;
  luna_resident **residents; /* by vCPU number; each the beginning of a luna_seat */
  uint32_t resident_count;
  atomic_uint vcpus; /* how many vCPUs are in this space now */
  luna_gate gate;
} luna_space;

int luna_space_create(const luna_host *host, uint32_t id, uint32_t ring_entries,
                      luna_space **space);
/* Its seats are freed already. */
void luna_space_free(luna_space *space);

/* Whether a vCPU is in KVM_RUN there, or about to be. Whoever asks has closed the gate. */
bool luna_space_inside(const luna_space *space);
/* Gets every vCPU of the space out of the guest and keeps it out, while slots that it uses are
 * replaced; lets them in again. */
void luna_space_pause(luna_space *space);
void luna_space_resume(luna_space *space);

/* A copy of a mapping's references to what it holds, and dropping them. */
void luna_mapping_retain(const luna_mapping *mapping);
void luna_mapping_release(const luna_mapping *mapping);
uint64_t luna_mapping_pages(const luna_mapping *mapping);
/* The rights that the guest really has there. */
uint32_t luna_mapping_enforced(const luna_mapping *mapping);

luna_mapping *luna_space_at(const luna_space *space, uint64_t gpa);
/* The host address of [gpa, gpa + size) where one region with `rights` covers it, else NULL. */
uint8_t *luna_space_host(const luna_space *space, uint64_t gpa, uint64_t size, uint32_t rights);

typedef enum luna_touch {
  LUNA_TOUCH_DENIED, /* no region allows it, and nothing was done */
  LUNA_TOUCH_DONE,
  LUNA_TOUCH_GONE /* a region allows it, but its host memory cannot be used */
} luna_touch;

/* Does an access that the regions allow in full. */
luna_touch luna_space_access(const luna_space *space, uint64_t gpa, uint64_t size, uint32_t access,
                             void *bytes);

/* Copies memory of the space whatever the rights are; all of it must be mapped. Without `bytes`
 * it only looks whether that is so. */
luna_touch luna_space_copy(const luna_space *space, uint64_t gpa, uint64_t size, bool write,
                           void *bytes);

#endif
