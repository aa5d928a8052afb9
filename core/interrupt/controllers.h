/* SPDX-License-Identifier: MIT
 * Interrupt controllers inside KVM: each space's KVM VM has those of the luna_vm. */
#ifndef LUNA_CONTROLLERS_H
#define LUNA_CONTROLLERS_H

#include "memory/space.h"

#include <pthread.h>
#include <stdatomic.h>

/* In each VM, under its lock. */
typedef struct luna_controllers {
  uint32_t pit;                   /* luna_vm_options.pit */
  atomic_bool made;               /* whether KVM has them */
  uint32_t bus_cycle;             /* of the LAPIC timers, nanoseconds; 0 for KVM's own */
  struct luna_line_event *irqfds; /* eventfds that raise lines */
  uint32_t irqfd_count;
  struct kvm_irq_routing *routing; /* NULL for KVM's own */
  pthread_mutex_t moving; /* held while a LAPIC moves and while an interrupt looks for it; before
                             the VM's lock */
} luna_controllers;

int luna_controllers_check(const luna_vm_options *options);
void luna_controllers_begin(luna_controllers *controllers, const luna_vm_options *options);
void luna_controllers_end(luna_controllers *controllers);
/* Makes the controllers of a new space, or sees that they can be made later. */
int luna_controllers_join(const luna_vm *vm, const luna_space *space);
/* Makes those that join has left for later, before the VM has vCPUs; nothing where there are none.
 * The VM's lock is not held. */
int luna_controllers_make(luna_vm *vm);
/* Before the VM is closed: takes part of its memory away where that spares it a wait. */
void luna_controllers_leave(const luna_vm *vm);
/* Whether the VM can have a further space. The VM's lock is held. */
int luna_controllers_check_space(const luna_vm *vm);
/* Fails unless the VM has LAPICs in KVM, and makes what is left for later; `what` is what was to be
 * done. */
int luna_controllers_needed(luna_vm *vm, const char *what);

#endif
