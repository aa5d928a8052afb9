/* SPDX-License-Identifier: MIT
 * Guest memory: slots, page walks, the software TLB, and accesses that it does not serve. */
#ifndef SOFT_MMU_H
#define SOFT_MMU_H

#include "soft/cpu.h"

typedef struct soft_walk {
  uint64_t gpa;
  uint32_t error; /* of the page fault */
  bool writable;  /* by this access's rights */
  bool user;
} soft_walk;

/* What a walk is for. */
typedef struct soft_rights {
  soft_access access;
  bool user;
  bool look; /* changes no accessed and dirty bits */
} soft_rights;

/* Of an access, within a page. */
typedef struct soft_spot {
  uint64_t linear;
  uint64_t gpa;
} soft_spot;

/* slots.c: where a guest-physical address is in the host, NULL where there is no slot or it may not
 * be written; marks a written page in the slot's log. Does not cross pages. */
uint8_t *soft_host(soft_cpu *cpu, uint64_t gpa, bool write);
const soft_slot *soft_slot_find(const soft_map *map, uint64_t gpa);
void soft_slot_mark(soft_cpu *cpu, const soft_slot *slot, uint64_t gpa);

/* walk.c: false for a page fault. */
bool soft_translate(soft_cpu *cpu, uint64_t linear, soft_rights rights, soft_walk *walk);
/* Reads PAE's page-directory pointers; false where a reserved bit is set. */
bool soft_load_pdptes(soft_cpu *cpu);

/* tlb.c */
void soft_tlb_flush(soft_cpu *cpu);
/* No page with bytes of this host page may be written without a look. */
void soft_tlb_drop_writes(soft_cpu *cpu, const uint8_t *host);
/* After the privilege level, RFLAGS.AC or CR4.SMAP have changed. */
void soft_tlb_select(soft_cpu *cpu);
/* The host address for a fetch, NULL where there is no memory; faults. */
const uint8_t *soft_fetch(soft_cpu *cpu, uint64_t rip, uint64_t *linear);
/* The host address of an access within one page, NULL for a device, with its address in *gpa. */
uint8_t *soft_page(soft_cpu *cpu, uint64_t linear, soft_access access, bool user, uint64_t *gpa);
/* An address that is not canonical in long mode is #GP, of the stack #SS. */
void soft_check_canonical(soft_cpu *cpu, uint64_t linear);
/* #AC where ring 3 asked for it and an operand of that size does not lie so. */
void soft_check_alignment(soft_cpu *cpu, uint64_t linear, unsigned size);
/* Faults where the access would; no page changes. */
void soft_page_check(soft_cpu *cpu, uint64_t linear, unsigned size, soft_access access);
/* Data breakpoints: CR4.DE, DR7 or what user space debugs has changed. */
void soft_watch_changed(soft_cpu *cpu);
bool soft_watches_page(const soft_cpu *cpu, uint64_t linear);
void soft_watch(soft_cpu *cpu, uint64_t linear, unsigned size, soft_access access);
void soft_watch_port(soft_cpu *cpu, uint16_t port, unsigned size);

/* access.c: what the fast path does not serve. */
uint64_t soft_load_slow(soft_cpu *cpu, uint64_t linear, unsigned size);
void soft_store_slow(soft_cpu *cpu, uint64_t linear, uint64_t value, unsigned size);
/* As a supervisor, whatever the privilege level: descriptor tables, TSS, stacks of a delivery. */
uint64_t soft_load_system(soft_cpu *cpu, uint64_t linear, unsigned size);
void soft_store_system(soft_cpu *cpu, uint64_t linear, uint64_t value, unsigned size);
/* The host address of an access, or NULL where it is not in one page of memory; faults. Code in the
 * page is seen to. */
uint8_t *soft_reach(soft_cpu *cpu, uint64_t linear, unsigned size, soft_access access);
void soft_load_bytes(soft_cpu *cpu, uint64_t linear, void *bytes, unsigned size);
/* All faults of a store are met here, before anything has changed. */
void soft_store_prepare(soft_cpu *cpu, uint64_t linear, unsigned size);
/* All or nothing. */
void soft_store_bytes(soft_cpu *cpu, uint64_t linear, const void *bytes, unsigned size);

/* segment.c: the linear address of an access, checked against the segment's rights and limit. */
uint64_t soft_linear_slow(soft_cpu *cpu, unsigned segment, uint64_t offset, unsigned size,
                          soft_access access);

/* device.c: a device's registers; the write is posted, or leaves as the read does. */
uint64_t soft_device_read(soft_cpu *cpu, soft_spot place, unsigned size);
void soft_device_write(soft_cpu *cpu, soft_spot place, uint64_t value, unsigned size);
/* Under controls: the entry of a page table where no memory can be read, at the place's gpa for its
 * linear address; and what it is with bits set, where none can be written. */
uint64_t soft_device_entry(soft_cpu *cpu, soft_spot place, unsigned size);
void soft_device_mark(soft_cpu *cpu, soft_spot place, uint64_t entry, unsigned size);

#endif
