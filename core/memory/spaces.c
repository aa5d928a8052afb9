/* SPDX-License-Identifier: MIT
 * The spaces of a VM under its lock. */
#include "memory/spaces.h"

#include "base/error.h"
#include "memory/process.h"
#include "memory/ring.h"
#include "memory/space.h"
#include "memory/vm.h"

void luna_vm_change_begin(luna_vm *vm) {
  pthread_rwlock_wrlock(&vm->lock);
}

void luna_vm_change_end(luna_vm *vm) {
  atomic_fetch_add(&vm->generation, 1);
  pthread_rwlock_unlock(&vm->lock);
}

luna_space *luna_vm_find_space(const luna_vm *vm, uint32_t id) {
  if (luna_process_check(vm) != LUNA_OK) {
    return NULL;
  }
  luna_space *space = id < vm->space_count ? vm->spaces[id] : NULL;
  if (!space) {
    luna_fail(LUNA_ERROR_NOT_FOUND, "there is no space %u in this VM", id);
  }
  return space;
}

int luna_vm_drain(luna_vm *vm, luna_space *space) {
  pthread_rwlock_wrlock(&vm->lock);
  int status = luna_ring_drain(space);
  pthread_rwlock_unlock(&vm->lock);
  return status;
}

luna_touch luna_vm_access(luna_vm *vm, const luna_space *space, uint64_t gpa, uint64_t size,
                          uint32_t access, void *bytes) {
  pthread_rwlock_rdlock(&vm->lock);
  luna_touch touch = luna_space_access(space, gpa, size, access, bytes);
  pthread_rwlock_unlock(&vm->lock);
  return touch;
}
