/* SPDX-License-Identifier: MIT
 * Whose an access is that no memory answered: the trap at its address, looked up under the lock
 * when the last answer no longer holds. */
#include "exit/lookup.h"

#include "base/range.h"
#include "exit/claim.h"
#include "exit/trap.h"
#include "memory/space.h"
#include "memory/vm.h"
#include "vcpu/vcpu.h"

/* Narrows the owner's range to where no region is, so that a later access there has the same
 * owner. */
static void narrow(luna_owner *owner, const luna_space *space, uint64_t gpa) {
  const luna_range *region = luna_range_from(&space->regions, gpa);
  if (region && region->first <= gpa) {
    owner->range = (luna_range){1, 0}; /* a read-only region: it may answer the next access */
    return;
  }
  if (region && region->first <= owner->range.last) {
    owner->range.last = region->first - 1;
  }
  owner->range.first = gpa;
}

luna_owner luna_lookup_find(luna_vm *vm, const luna_space *space, int kind, uint64_t address) {
  luna_owner owner = {.range = {1, 0}};
  pthread_rwlock_rdlock(&vm->lock);
  const luna_trap *trap = luna_traps_at(&vm->claims->traps, kind, address);
  if (trap) {
    owner = (luna_owner){trap->range, trap->range.first, trap->range.last, trap->id, trap->answer};
    if (kind == LUNA_TRAP_MMIO) {
      narrow(&owner, space, address);
    }
  }
  pthread_rwlock_unlock(&vm->lock);
  return owner;
}

void luna_lookup_forget(luna_vcpu *vcpu) {
  for (int kind = 0; kind < LUNA_TRAP_KINDS; kind++) {
    vcpu->lookup->owners[kind].range = (luna_range){1, 0};
  }
}

void luna_exit_own(luna_vcpu *vcpu, int kind) {
  luna_exit *e = &vcpu->exit;
  unsigned long generation = atomic_load_explicit(&vcpu->vm->generation, memory_order_acquire);
  if (generation != vcpu->lookup->generation) {
    luna_lookup_forget(vcpu);
    vcpu->lookup->generation = generation;
  }
  luna_owner *owner = &vcpu->lookup->owners[kind];
  if (e->address < owner->range.first || e->address > owner->range.last) {
    *owner = luna_lookup_find(vcpu->vm, vcpu->space, kind, e->address);
  }
  e->trap = owner->trap;
  e->offset = owner->trap ? e->address - owner->base : 0;
}

bool luna_lookup_knows(const luna_vcpu *vcpu, int kind, uint64_t address) {
  const luna_owner *owner = &vcpu->lookup->owners[kind];
  return vcpu->lookup->generation ==
             atomic_load_explicit(&vcpu->vm->generation, memory_order_acquire) &&
         address >= owner->range.first && address <= owner->range.last;
}
