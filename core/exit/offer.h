/* SPDX-License-Identifier: MIT
 * The open exit, and whoever owns its access by now. */
#ifndef LUNA_OFFER_H
#define LUNA_OFFER_H

#include "lunavisor.h"
#include "memory/spaces.h"

#include <stdbool.h>

/* Whether an exit that nobody has been given is none any more: it was answered, or dropped. */
bool luna_exit_stale(const luna_vcpu *vcpu);
/* Does the access of the open exit in the memory of the space that the vCPU is in, or moves to. */
luna_touch luna_exit_touch(luna_vcpu *vcpu);
/* Asks anew who owns the access, since an exit stays open while the script maps memory and makes
 * devices. The kind of the exit that is left, or 0 where none is. Without `answer` traps that the
 * core answers are left alone, and 0 says that there is one. */
int luna_exit_offer(luna_vcpu *vcpu, bool answer);

#endif
