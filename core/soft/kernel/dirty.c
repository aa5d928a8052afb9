/* SPDX-License-Identifier: MIT
 * Logs of written pages (api.rst, KVM_GET_DIRTY_LOG, KVM_CLEAR_DIRTY_LOG). What is written while a
 * log is taken is in it, or in the next: vCPUs forget which pages they may write unseen before the
 * call returns. */
#include "soft/kernel/kernel.h"

#include <errno.h>

static const soft_slot *logged(const soft_vm *vm, uint32_t id) {
  const soft_map *map = atomic_load(&vm->map);
  for (uint32_t i = 0; i < map->count; i++) {
    if (map->slots[i].id == id && map->slots[i].dirty) {
      return &map->slots[i];
    }
  }
  return NULL;
}

int soft_log_get(soft_vm *vm, struct kvm_dirty_log *log) {
  const soft_slot *slot = logged(vm, log->slot);
  if (vm->ring_entries || !slot) {
    return soft_refuse(vm->ring_entries ? ENXIO : ENOENT);
  }
  uint64_t *bitmap = log->dirty_bitmap, any = 0;
  for (uint64_t i = 0; i < (slot->size / SOFT_PAGE + 63) / 64; i++) {
    bitmap[i] =
        vm->manual_protect ? atomic_load(&slot->dirty[i]) : atomic_exchange(&slot->dirty[i], 0);
    any |= bitmap[i];
  }
  if (any && !vm->manual_protect) {
    soft_vm_settle(vm);
  }
  return 0;
}

int soft_log_clear(soft_vm *vm, const struct kvm_clear_dirty_log *log) {
  const soft_slot *slot = logged(vm, log->slot);
  if (vm->ring_entries || !slot) {
    return soft_refuse(vm->ring_entries ? ENXIO : ENOENT);
  }
  uint64_t pages = slot->size / SOFT_PAGE, end = log->first_page + log->num_pages;
  bool whole = end == pages || !(log->num_pages & 63);
  if (log->first_page & 63 || end < log->first_page || end > pages || !whole) {
    return soft_refuse(EINVAL);
  }
  const uint64_t *bitmap = log->dirty_bitmap;
  for (uint32_t i = 0; i < (log->num_pages + 63) / 64; i++) {
    atomic_fetch_and(&slot->dirty[log->first_page / 64 + i], ~bitmap[i]);
  }
  soft_vm_settle(vm);
  return 0;
}
