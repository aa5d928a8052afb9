/* SPDX-License-Identifier: MIT
 * The VM handle: its life, its spaces, vCPU numbers, and what an access meets. */
#include "vm.h"

#include "memory/dirty.h"
#include "base/error.h"
#include "exit/event.h"
#include "interrupt/irqchip.h"
#include "run/thread.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

static int check_vm_options(const luna_vm_options *options) {
  uint32_t ring = options->dirty_ring;
  if (ring & (ring - 1)) {
    return luna_fail(LUNA_ERROR_ARGUMENT,
                     "cannot make a VM with dirty rings of %u entries: a power of two is needed",
                     ring);
  }
  if (options->unknown_msrs > 1) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "cannot make a VM: unknown_msrs is 0 or 1, not %u",
                     options->unknown_msrs);
  }
  return luna_irqchip_check(options);
}

/* A space with all that the spaces of the VM have in common. */
static int create_space(luna_vm *vm, uint32_t id, luna_space **space) {
  luna_space *made;
  int status = luna_space_create(id, vm->ring_entries, &made);
  if (status != LUNA_OK) {
    return status;
  }
  status = luna_irqchip_begin(vm, made);
  status = status == LUNA_OK ? luna_event_join(vm, made) : status;
  status = status == LUNA_OK && vm->hypercalls ? luna_hypercalls_begin(made) : status;
  if (status != LUNA_OK) {
    luna_space_free(made);
    return status;
  }
  *space = made;
  return LUNA_OK;
}

int luna_vm_open(const luna_vm_options *options, luna_vm **vm) {
  const luna_vm_options none = {0};
  options = options ? options : &none;
  int status = check_vm_options(options);
  if (status != LUNA_OK) {
    return status;
  }
  luna_vm *made = calloc(1, sizeof *made);
  luna_space **spaces = calloc(1, sizeof(luna_space *));
  if (made) {
    made->ring_entries = options->dirty_ring;
    made->irqchip = options->irqchip;
    made->pit = options->pit;
    made->unknown_msrs = options->unknown_msrs != 0;
  }
  status = made && spaces ? create_space(made, 0, &spaces[0])
                          : luna_fail_errno(ENOMEM, "cannot make a VM");
  if (status != LUNA_OK) {
    free(made);
    free(spaces);
    return status;
  }
  made->spaces = spaces;
  made->space_count = 1;
  pthread_rwlock_init(&made->lock, NULL);
  pthread_mutex_init(&made->moving, NULL);
  luna_queue_begin(&made->queue);
  made->threads_forks = luna_thread_forks();
  luna_reference_start(&made->reference, LUNA_OBJECT_VM);
  *vm = made;
  return LUNA_OK;
}

int luna_vm_create(luna_vm **vm) {
  return luna_vm_open(NULL, vm);
}

void luna_vm_retain(luna_vm *vm) {
  luna_reference_add(&vm->reference);
}

void luna_vm_release(luna_vm *vm) {
  if (!luna_reference_drop(&vm->reference, LUNA_OBJECT_VM)) {
    return;
  }
  for (uint32_t i = 0; i < vm->space_count; i++) {
    if (vm->spaces[i]) {
      luna_space_free(vm->spaces[i]);
    }
  }
  luna_eventfds_free(vm);
  luna_traps_free(&vm->traps);
  luna_queue_end(&vm->queue);
  pthread_rwlock_destroy(&vm->lock);
  pthread_mutex_destroy(&vm->moving);
  free(vm->routing);
  free(vm->irqfds);
  free(vm->vcpu_taken);
  free(vm->spaces);
  free(vm);
}

void luna_vm_change_begin(luna_vm *vm) {
  pthread_rwlock_wrlock(&vm->lock);
}

void luna_vm_change_end(luna_vm *vm) {
  atomic_fetch_add(&vm->generation, 1);
  pthread_rwlock_unlock(&vm->lock);
}

luna_space *luna_vm_find_space(const luna_vm *vm, uint32_t id) {
  luna_space *space = id < vm->space_count ? vm->spaces[id] : NULL;
  if (!space) {
    luna_fail(LUNA_ERROR_NOT_FOUND, "there is no space %u in this VM", id);
  }
  return space;
}

/* ---- Spaces ---- */

/* The lowest free id, with room for it in the list. */
static int free_space_id(luna_vm *vm, uint32_t *id) {
  uint32_t i = 0;
  while (i < vm->space_count && vm->spaces[i]) {
    i++;
  }
  if (i == vm->space_count) {
    luna_space **spaces = realloc(vm->spaces, (i + 1) * sizeof(luna_space *));
    if (!spaces) {
      return luna_fail_errno(ENOMEM, "cannot make space %u", i);
    }
    spaces[i] = NULL;
    vm->spaces = spaces;
    vm->space_count++;
  }
  *id = i;
  return LUNA_OK;
}

int luna_vm_space_create(luna_vm *vm, uint32_t *space) {
  luna_vm_change_begin(vm);
  uint32_t id = 0;
  int status = luna_irqchip_check_space(vm);
  status = status == LUNA_OK ? free_space_id(vm, &id) : status;
  status = status == LUNA_OK ? create_space(vm, id, &vm->spaces[id]) : status;
  if (status == LUNA_OK) {
    *space = id;
  }
  luna_vm_change_end(vm);
  return status;
}

static int check_destroy(const luna_vm *vm, uint32_t id) {
  if (id == 0) {
    return luna_fail(LUNA_ERROR_ARGUMENT,
                     "cannot destroy space 0: it is the VM's default space and goes with the VM");
  }
  const luna_space *space = luna_vm_find_space(vm, id);
  if (!space) {
    return LUNA_ERROR_NOT_FOUND;
  }
  unsigned vcpus = atomic_load(&space->vcpus);
  if (vcpus) {
    return luna_fail(LUNA_ERROR_BUSY,
                     "cannot destroy space %u: %u vCPU%s in it; move %s to another space first", id,
                     vcpus, vcpus == 1 ? " is" : "s are", vcpus == 1 ? "it" : "them");
  }
  return LUNA_OK;
}

int luna_vm_space_destroy(luna_vm *vm, uint32_t id) {
  luna_vm_change_begin(vm);
  int status = check_destroy(vm, id);
  if (status == LUNA_OK) {
    luna_space_free(vm->spaces[id]);
    vm->spaces[id] = NULL;
  }
  luna_vm_change_end(vm);
  return status;
}

/* ---- vCPU numbers ---- */

int luna_vm_take_vcpu(luna_vm *vm, uint32_t *id) {
  int status = LUNA_OK;
  pthread_rwlock_wrlock(&vm->lock);
  uint32_t i = 0;
  while (i < vm->vcpu_count && vm->vcpu_taken[i]) {
    i++;
  }
  if (i == vm->vcpu_count) {
    bool *taken = realloc(vm->vcpu_taken, (i + 1) * sizeof *taken);
    if (taken) {
      vm->vcpu_taken = taken;
      vm->vcpu_count++;
    } else {
      status = luna_fail_errno(ENOMEM, "cannot make vCPU %u", i);
    }
  }
  if (status == LUNA_OK) {
    vm->vcpu_taken[i] = true;
    *id = i;
  }
  pthread_rwlock_unlock(&vm->lock);
  return status;
}

void luna_vm_give_vcpu(luna_vm *vm, uint32_t id) {
  pthread_rwlock_wrlock(&vm->lock);
  vm->vcpu_taken[id] = false;
  pthread_rwlock_unlock(&vm->lock);
}

/* ---- What an access meets ---- */

void luna_vm_wait(luna_vm *vm) {
  pthread_rwlock_rdlock(&vm->lock);
  pthread_rwlock_unlock(&vm->lock);
}

int luna_vm_drain(luna_vm *vm, luna_space *space) {
  pthread_rwlock_wrlock(&vm->lock);
  int status = luna_ring_drain(space);
  pthread_rwlock_unlock(&vm->lock);
  return status;
}

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

luna_owner luna_vm_owner(luna_vm *vm, const luna_space *space, int kind, uint64_t address) {
  luna_owner owner = {.range = {1, 0}};
  pthread_rwlock_rdlock(&vm->lock);
  const luna_trap *trap = luna_traps_at(&vm->traps, kind, address);
  if (trap) {
    owner = (luna_owner){trap->range, trap->range.first, trap->range.last, trap->id, trap->answer};
    if (kind == LUNA_TRAP_MMIO) {
      narrow(&owner, space, address);
    }
  }
  pthread_rwlock_unlock(&vm->lock);
  return owner;
}

luna_touch luna_vm_access(luna_vm *vm, const luna_space *space, uint64_t gpa, uint64_t size,
                          uint32_t access, void *bytes) {
  pthread_rwlock_rdlock(&vm->lock);
  luna_touch touch = luna_space_access(space, gpa, size, access, bytes);
  pthread_rwlock_unlock(&vm->lock);
  return touch;
}
