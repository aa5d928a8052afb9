/* SPDX-License-Identifier: MIT
 * The spaces of a VM under its lock: changing them, finding one, and what every thread may ask. */
#ifndef LUNA_SPACES_H
#define LUNA_SPACES_H

#include "memory/space.h"

/* The lock to change regions and traps, taken and given back. */
void luna_vm_change_begin(luna_vm *vm);
void luna_vm_change_end(luna_vm *vm);
/* The space of that number; NULL with an error recorded (luna_error_status) if there is none, or if
 * the VM is another process's. The lock is held. */
luna_space *luna_vm_find_space(const luna_vm *vm, uint32_t id);
/* luna_space_access, with the lock taken inside. */
luna_touch luna_vm_access(luna_vm *vm, const luna_space *space, uint64_t gpa, uint64_t size,
                          uint32_t access, void *bytes);
/* Empties the dirty rings of the space. The lock is taken inside. */
int luna_vm_drain(luna_vm *vm, luna_space *space);

#endif
