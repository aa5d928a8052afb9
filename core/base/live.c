/* SPDX-License-Identifier: MIT
 * Reference counts and live counters. */
#include "base/live.h"

#include "lunavisor.h"

#include <time.h>

static atomic_long live[LUNA_OBJECT_COUNT];

void luna_live_add(luna_object kind, int count) {
  atomic_fetch_add(&live[kind], count);
}

void luna_reference_start(luna_reference *reference, luna_object kind) {
  atomic_init(&reference->count, 1);
  atomic_fetch_add(&live[kind], 1);
}

void luna_reference_add(luna_reference *reference) {
  atomic_fetch_add_explicit(&reference->count, 1, memory_order_relaxed);
}

bool luna_reference_drop(luna_reference *reference, luna_object kind) {
  /* Acquire and release: whoever frees sees what every other holder wrote. */
  if (atomic_fetch_sub_explicit(&reference->count, 1, memory_order_acq_rel) != 1) {
    return false;
  }
  atomic_fetch_sub(&live[kind], 1);
  return true;
}

uint64_t luna_live(int object) {
  return object >= 0 && object < LUNA_OBJECT_COUNT ? (uint64_t)atomic_load(&live[object]) : 0;
}

uint64_t luna_clock(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

const char *luna_version(void) {
  return "0.1.0";
}
