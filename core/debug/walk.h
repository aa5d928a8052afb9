/* SPDX-License-Identifier: MIT
 * A walk through the guest's page tables, for those who look at many addresses. */
#ifndef LUNA_WALK_H
#define LUNA_WALK_H

#include "lunavisor.h"
#include "memory/space.h"

typedef struct luna_walker {
  const luna_space *space;
  uint64_t root;     /* gpa of the first table */
  uint32_t paging;   /* luna_paging */
  uint32_t levels;   /* of tables */
  uint32_t index;    /* bits of a linear address that a table uses */
  uint32_t width;    /* bytes of an entry */
  uint32_t linear;   /* bits of a linear address */
  bool large;        /* level 2 may hold pages */
  bool huge;         /* level 3 may: CPUID has 1-GByte pages */
  bool pse36;        /* a 4-MByte page may lie above 4 GiB */
  bool no_execute;   /* EFER.NXE */
  unsigned physical; /* bits of a guest-physical address */
} luna_walker;

/* By the registers of now, writes that wait for the next entry included. */
int luna_walk_begin(luna_vcpu *vcpu, luna_walker *walker);
/* Where a linear address leads; _NOT_FOUND or _SYSTEM, with the reason, if that is nowhere. The
 * VM's lock is held. */
int luna_walk_find(const luna_walker *walker, uint64_t gva, uint64_t *gpa);

#endif
