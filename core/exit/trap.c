/* SPDX-License-Identifier: MIT
 * The traps of a VM: sorted by address to find an access's owner, numbered for the handler's
 * table. */
#include "exit/trap.h"

#include "base/error.h"
#include "base/range.h"
#include "exit/answer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

static const char *const unit[] = {"ports", "gpa", "MSRs"};

/* The index of a free number, at the end where there is none. */
static uint32_t free_index(const luna_traps *traps) {
  uint32_t i = 0;
  while (i < traps->count && traps->by_id[i]) {
    i++;
  }
  return i;
}

static int check_overlap(const luna_traps *traps, int kind, luna_range range) {
  const luna_range *other = luna_range_from(&traps->ranges[kind], range.first);
  if (!other || other->first > range.last) {
    return LUNA_OK;
  }
  return luna_fail(LUNA_ERROR_OVERLAP,
                   "cannot trap %s 0x%" PRIx64 "..0x%" PRIx64 ": 0x%" PRIx64 "..0x%" PRIx64
                   " is trapped already (trap %u); close that trap first",
                   unit[kind], range.first, range.last, other->first, other->last,
                   ((const luna_trap *)other)->id);
}

static int fail_memory(int kind, luna_range range) {
  return luna_fail_errno(ENOMEM, "cannot trap %s 0x%" PRIx64 "..0x%" PRIx64, unit[kind],
                         range.first, range.last);
}

int luna_traps_add(luna_traps *traps, int kind, luna_range range, uint32_t *id) {
  int status = check_overlap(traps, kind, range);
  if (status != LUNA_OK) {
    return status;
  }
  uint32_t index = free_index(traps);
  if (index == traps->count) {
    luna_trap **by_id = realloc(traps->by_id, (index + 1) * sizeof(luna_trap *));
    if (!by_id) {
      return fail_memory(kind, range);
    }
    by_id[index] = NULL;
    traps->by_id = by_id;
    traps->count++;
  }
  luna_trap *trap = malloc(sizeof *trap);
  if (!trap) {
    return fail_memory(kind, range);
  }
  *trap = (luna_trap){.range = range, .id = index + 1, .serial = ++traps->made, .kind = kind};
  if (luna_range_insert(&traps->ranges[kind], &trap->range) != 0) {
    free(trap);
    return fail_memory(kind, range);
  }
  traps->by_id[index] = trap;
  *id = trap->id;
  return LUNA_OK;
}

luna_trap *luna_traps_find(const luna_traps *traps, uint32_t id) {
  luna_trap *trap = id >= 1 && id <= traps->count ? traps->by_id[id - 1] : NULL;
  if (!trap) {
    luna_fail(LUNA_ERROR_NOT_FOUND, "there is no trap %u", id);
  }
  return trap;
}

void luna_traps_remove(luna_traps *traps, luna_trap *trap) {
  luna_range_remove(&traps->ranges[trap->kind], &trap->range);
  traps->by_id[trap->id - 1] = NULL;
}

void luna_trap_free(luna_trap *trap) {
  if (trap) {
    luna_answer_free(trap->answer);
    free(trap);
  }
}

luna_trap *luna_traps_at(const luna_traps *traps, int kind, uint64_t address) {
  return (luna_trap *)luna_range_at(&traps->ranges[kind], address);
}

void luna_traps_free(luna_traps *traps) {
  for (uint32_t i = 0; i < traps->count; i++) {
    luna_trap_free(traps->by_id[i]);
  }
  free(traps->by_id);
  for (int kind = 0; kind < LUNA_TRAP_KINDS; kind++) {
    luna_range_free(&traps->ranges[kind]);
  }
}
