/* SPDX-License-Identifier: MIT
 * Hypercalls that KVM hands on. */
#ifndef LUNA_HYPERCALL_H
#define LUNA_HYPERCALL_H

#include "memory/space.h"

/* Lets KVM hand on the hypercalls that it can, where it can. */
int luna_hypercalls_begin(const luna_space *space);

#endif
