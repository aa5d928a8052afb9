/* SPDX-License-Identifier: MIT
 * Reference counts, and how many objects of each kind exist. */
#ifndef LUNA_LIVE_H
#define LUNA_LIVE_H

#include "lunavisor.h"

#include <stdatomic.h>
#include <stdbool.h>

typedef struct luna_reference {
  atomic_uint count;
} luna_reference;

/* A new object of the kind, with one reference. */
void luna_reference_start(luna_reference *reference, luna_object kind);
void luna_reference_add(luna_reference *reference);
/* Drops one; true when that was the last and the caller has to free the object. */
bool luna_reference_drop(luna_reference *reference, luna_object kind);

/* Counts objects that have no references of their own. */
void luna_live_add(luna_object kind, int count);

#endif
