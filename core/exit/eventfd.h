/* SPDX-License-Identifier: MIT
 * Eventfds that KVM counts up in the guest's stead. The VM's lock is held. */
#ifndef LUNA_EVENTFD_H
#define LUNA_EVENTFD_H

#include "memory/space.h"

#include <stdbool.h>

struct luna_event;

int luna_eventfds_join(const luna_vm *vm, const luna_space *space);
/* Counts the open write up by the eventfd that KVM would give it to by now, if there is one. The
 * lock is taken inside. */
bool luna_eventfds_take(luna_vm *vm, const luna_exit *e);
/* Closes those of a VM that goes away. */
void luna_eventfds_free(struct luna_event *eventfds);

#endif
