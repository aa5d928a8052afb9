/* SPDX-License-Identifier: MIT
 * Where this host's KVM stops a guest. */
#ifndef LUNA_STOPS_H
#define LUNA_STOPS_H

#include "lunavisor.h"

typedef enum luna_stops_feature {
  LUNA_DEBUG_HARDWARE, /* breakpoints in debug registers */
  LUNA_DEBUG_WATCH,    /* watchpoints there */
  LUNA_DEBUG_SOFTWARE,
  LUNA_DEBUG_FEATURES
} luna_stops_feature;

/* A bit each. */
enum {
  LUNA_DEBUG_REAL = 1,  /* in real mode */
  LUNA_DEBUG_RING0 = 2, /* in protected and long mode outside of ring 3 */
  LUNA_DEBUG_RING3 = 4,
  LUNA_DEBUG_AREA = 8 /* shifted left by one of the above: only through the system area */
};

/* The bits, found out with a guest of the library's own, once a process for each kernel
 * (luna_accelerator). Negative on failure. */
int luna_stops_probe(uint32_t accel, luna_stops_feature feature);

#endif
