/* SPDX-License-Identifier: MIT
 * The processor's time-stamp counter, of which a reading costs a third of one of the clock. */
#ifndef LUNA_TICK_H
#define LUNA_TICK_H

#include <stdbool.h>
#include <stdint.h>

/* The counter and luna_clock at one time. */
typedef struct luna_moment {
  uint64_t ticks;
  uint64_t ns;
} luna_moment;

static inline uint64_t luna_tick(void) {
  uint32_t low, high;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
  return (uint64_t)high << 32 | low;
}

luna_moment luna_tick_moment(void);
/* Whether the counter always has one frequency, whatever the processor does. */
bool luna_tick_is_steady(void);

#endif
