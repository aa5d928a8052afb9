/* SPDX-License-Identifier: MIT
 * Which range of ports or guest-physical addresses belongs to which handler. The caller holds the
 * VM's lock. */
#ifndef LUNA_TRAP_H
#define LUNA_TRAP_H

#include "lunavisor.h"
#include "range.h"

typedef struct luna_trap {
  luna_range range;
  uint32_t id;
  int kind;
} luna_trap;

typedef struct luna_traps {
  luna_range_map ranges[2]; /* by luna_trap_kind */
  luna_trap **by_id;        /* by id - 1; NULL where the number is free */
  uint32_t count;
} luna_traps;

int luna_traps_add(luna_traps *traps, int kind, luna_range range, uint32_t *id);
int luna_traps_remove(luna_traps *traps, uint32_t id);
luna_trap *luna_traps_at(const luna_traps *traps, int kind, uint64_t address);
void luna_traps_free(luna_traps *traps);

#endif
