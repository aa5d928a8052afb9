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
  atomic_uint next_vcpu;
};

/* What an access at an address meets. */
typedef struct luna_owner {
  luna_range range; /* the answer is the same in this whole range */
  uint64_t base;    /* the trap's first address */
  uint32_t trap;    /* 0: none */
} luna_owner;

/* Finds the owner of an access that no memory answered. The lock is taken inside. */
luna_owner luna_vm_owner(luna_vm *vm, const luna_space *space, int kind, uint64_t address);
/* Does the access in memory if the regions of the space allow it. The lock is taken inside. */
bool luna_vm_access(luna_vm *vm, const luna_space *space, uint64_t gpa, uint32_t size,
                    uint32_t access, uint64_t *value);

#endif
