/* SPDX-License-Identifier: MIT
 * Which range of ports, guest-physical addresses or MSRs belongs to which handler. The caller holds
 * the VM's lock. */
#ifndef LUNA_TRAP_H
#define LUNA_TRAP_H

#include "lunavisor.h"
#include "base/range.h"

#include <stdbool.h>

enum {
  LUNA_TRAP_KINDS = LUNA_TRAP_MSR + 1
};

typedef struct luna_answer luna_answer;

typedef struct luna_trap {
  luna_range range;
  uint32_t id;
  uint64_t serial; /* of all traps of the VM, from 1: numbers are used again */
  int kind;
  bool coalesced;      /* KVM collects the writes */
  luna_answer *answer; /* what the core answers with; NULL where the script does */
} luna_trap;

typedef struct luna_traps {
  luna_range_map ranges[LUNA_TRAP_KINDS]; /* by luna_trap_kind */
  luna_trap **by_id;                      /* by id - 1; NULL where the number is free */
  uint32_t count;
  uint64_t made;
} luna_traps;

int luna_traps_add(luna_traps *traps, int kind, luna_range range, uint32_t *id);
/* The trap of that number, NULL with an error recorded if there is none. */
luna_trap *luna_traps_find(const luna_traps *traps, uint32_t id);
/* Takes it out; the caller frees it (luna_trap_free). */
void luna_traps_remove(luna_traps *traps, luna_trap *trap);
void luna_trap_free(luna_trap *trap);
luna_trap *luna_traps_at(const luna_traps *traps, int kind, uint64_t address);
void luna_traps_free(luna_traps *traps);

#endif
