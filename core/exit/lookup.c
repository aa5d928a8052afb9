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

#include <string.h>

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
  const luna_range_map *ranges = &vm->claims->traps.ranges[kind];
  const luna_trap *trap = luna_traps_at(&vm->claims->traps, kind, address);
  if (trap) {
    owner = (luna_owner){.range = trap->range,
                         .base = trap->range.first,
                         .last = trap->range.last,
                         .trap = trap->id,
                         .serial = trap->serial,
                         .answer = trap->answer};
    if (kind == LUNA_TRAP_MMIO) {
      narrow(&owner, space, address);
    }
  }
  const luna_range *next = luna_range_from(ranges, trap ? trap->range.last + 1 : address);
  owner.clear = next ? next->first - 1 : UINT64_MAX;
  pthread_rwlock_unlock(&vm->lock);
  return owner;
}

void luna_lookup_forget(luna_vcpu *vcpu) {
  for (int kind = 0; kind < LUNA_TRAP_KINDS; kind++) {
    vcpu->lookup->owners[kind].range = (luna_range){1, 0};
  }
}

int luna_exit_trap_kind(const luna_exit *e) {
  switch (e->kind) {
    case LUNA_EXIT_PIO:
      return LUNA_TRAP_PIO;
    case LUNA_EXIT_MMIO:
    case LUNA_EXIT_FAULT:
      return LUNA_TRAP_MMIO;
    case LUNA_EXIT_MSR:
      return LUNA_TRAP_MSR;
    default:
      return -1;
  }
}

/* How much of `left` bytes at the address goes to the owner. An access in which another trap begins
 * is split as by a bus that is too narrow for it: where owners change, and in aligned parts. */
static uint32_t part_of(const luna_owner *owner, uint64_t address, uint32_t left, bool first) {
  if (first && owner->clear >= address + left - 1) {
    return left;
  }
  const uint64_t last = owner->trap ? owner->last : owner->clear;
  uint32_t size = 8;
  while (size > left || address % size != 0 || size - 1 > last - address) {
    size /= 2;
  }
  return size;
}

uint64_t luna_exit_value(const luna_vcpu *vcpu) {
  uint64_t value = 0;
  if (vcpu->exit.access == LUNA_WRITE) {
    memcpy(&value, vcpu->pending.data, vcpu->exit.size);
  }
  return value;
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
  if (kind == LUNA_TRAP_MMIO) {
    e->kind = e->trap ? LUNA_EXIT_MMIO : LUNA_EXIT_FAULT;
  }
  if (kind != LUNA_TRAP_MSR) {
    const luna_pending *pending = &vcpu->pending;
    e->size = part_of(owner, e->address, pending->size - pending->part, pending->part == 0);
  }
  e->value = luna_exit_value(vcpu);
}

bool luna_lookup_knows(const luna_vcpu *vcpu, int kind, uint64_t address) {
  const luna_owner *owner = &vcpu->lookup->owners[kind];
  return vcpu->lookup->generation ==
             atomic_load_explicit(&vcpu->vm->generation, memory_order_acquire) &&
         address >= owner->range.first && address <= owner->range.last;
}
