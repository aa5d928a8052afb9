/* SPDX-License-Identifier: MIT
 * A VM: its spaces, its traps and the lock over both. */
#ifndef LUNA_VM_H
#define LUNA_VM_H

#include "live.h"
#include "space.h"
#include "trap.h"

#include <pthread.h>

struct luna_vm {
  luna_reference reference;
  pthread_rwlock_t lock;   /* exclusive to change regions and traps, shared to look them up */
  atomic_ulong generation; /* counts those changes, so that a vCPU can trust what it found before */
  luna_space **spaces;     /* by id; NULL where the id is free */
  uint32_t space_count;
  luna_traps traps;
  uint32_t ring_entries; /* luna_vm_options.dirty_ring */
  uint32_t irqchip;      /* luna_irqchip */
  bool *vcpu_taken;      /* by vCPU number */
  uint32_t vcpu_count;   /* of vcpu_taken */
};

/* The lock to change regions and traps, taken and given back. */
void luna_vm_change_begin(luna_vm *vm);
void luna_vm_change_end(luna_vm *vm);

/* What an access at an address meets. */
typedef struct luna_owner {
  luna_range range; /* the answer is the same in this whole range */
  uint64_t base;    /* the trap's first address */
  uint32_t trap;    /* 0: none */
} luna_owner;

/* Finds the owner of an access that no memory answered. The lock is taken inside. */
luna_owner luna_vm_owner(luna_vm *vm, const luna_space *space, int kind, uint64_t address);
/* luna_space_access, with the lock taken inside. */
luna_touch luna_vm_access(luna_vm *vm, const luna_space *space, uint64_t gpa, uint64_t size,
                          uint32_t access, void *bytes);
/* Waits until the change of a map that is under way is done. */
void luna_vm_wait(luna_vm *vm);
/* Empties the dirty rings of the space. The lock is taken inside. */
int luna_vm_drain(luna_vm *vm, luna_space *space);
/* The lowest free vCPU number, taken; and giving one back. */
int luna_vm_take_vcpu(luna_vm *vm, uint32_t *id);
void luna_vm_give_vcpu(luna_vm *vm, uint32_t id);
/* The space of that number, NULL with an error recorded if there is none. The lock is held. */
luna_space *luna_vm_find_space(const luna_vm *vm, uint32_t id);

#endif
