/* SPDX-License-Identifier: MIT
 * The time-stamp counter and the clock. */
#include "base/tick.h"

#include "lunavisor.h"

#include <cpuid.h>

enum {
  TRIES = 5,
  INVARIANT = 1 << 8 /* EDX of CPUID's leaf (SDM Vol. 3, 18.17.1): */
};
static const unsigned power_leaf = 0x80000007;

/* Of a few tries the one in which least came between the two. */
luna_moment luna_tick_moment(void) {
  luna_moment best = {0};
  uint64_t least = UINT64_MAX;
  for (int i = 0; i < TRIES; i++) {
    uint64_t before = luna_tick(), ns = luna_clock(), gap = luna_tick() - before;
    if (gap < least) {
      least = gap;
      best = (luna_moment){.ticks = before + gap / 2, .ns = ns};
    }
  }
  return best;
}

bool luna_tick_is_steady(void) {
  unsigned eax, ebx, ecx, edx;
  return __get_cpuid(power_leaf, &eax, &ebx, &ecx, &edx) && edx & INVARIANT;
}
