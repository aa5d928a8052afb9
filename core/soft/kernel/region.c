/* SPDX-License-Identifier: MIT
 * KVM_SET_USER_MEMORY_REGION. A map of slots never changes: another one takes its place, and the
 * old one goes when no vCPU uses it any more. */
#include "soft/kernel/kernel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
  FLAGS = KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY
};

static size_t log_words(uint64_t size) {
  return (size_t)(size / SOFT_PAGE + 63) / 64;
}

static _Atomic uint64_t *make_log(const soft_vm *vm, uint64_t size) {
  size_t words = log_words(size);
  _Atomic uint64_t *log = calloc(words, sizeof *log);
  for (uint64_t page = 0; log && vm->initially_set && page < size / SOFT_PAGE; page++) {
    log[page / 64] |= UINT64_C(1) << page % 64;
  }
  return log;
}

static bool is_valid(const struct kvm_userspace_memory_region *region) {
  uint64_t end = region->guest_phys_addr + region->memory_size;
  uint64_t aligned = region->guest_phys_addr | region->memory_size | region->userspace_addr;
  return !(aligned & (SOFT_PAGE - 1)) && region->slot < SOFT_SLOTS_MAX &&
         !(region->flags & ~(uint32_t)FLAGS) && end >= region->guest_phys_addr;
}

static const soft_slot *by_id(const soft_map *map, uint32_t id) {
  for (uint32_t i = 0; i < map->count; i++) {
    if (map->slots[i].id == id) {
      return &map->slots[i];
    }
  }
  return NULL;
}

static bool overlaps(const soft_map *map, const struct kvm_userspace_memory_region *region) {
  for (uint32_t i = 0; i < map->count; i++) {
    const soft_slot *slot = &map->slots[i];
    if (slot->id != region->slot && region->guest_phys_addr < slot->gpa + slot->size &&
        slot->gpa < region->guest_phys_addr + region->memory_size) {
      return true;
    }
  }
  return false;
}

/* The map without the slot, and with the new one where there is one. */
static soft_map *remade(const soft_map *old, uint32_t without, const soft_slot *with) {
  soft_map *made = malloc(sizeof *made + (old->count + 1) * sizeof(soft_slot));
  if (!made) {
    return NULL;
  }
  made->generation = old->generation + 1;
  made->count = 0;
  for (uint32_t i = 0; i < old->count; i++) {
    const soft_slot *slot = &old->slots[i];
    if (with && with->gpa < slot->gpa) {
      made->slots[made->count++] = *with;
      with = NULL;
    }
    if (slot->id != without) {
      made->slots[made->count++] = *slot;
    }
  }
  if (with) {
    made->slots[made->count++] = *with;
  }
  return made;
}

static int replace(soft_vm *vm, uint32_t without, const soft_slot *with, void *old_log) {
  soft_map *old = atomic_load(&vm->map);
  soft_map *made = remade(old, without, with);
  if (!made) {
    return soft_refuse(ENOMEM);
  }
  atomic_store(&vm->map, made);
  soft_vm_settle(vm);
  free(old);
  free(old_log);
  return 0;
}

static int delete_slot(soft_vm *vm, const soft_slot *slot) {
  return slot ? replace(vm, slot->id, NULL, (void *)slot->dirty) : soft_refuse(EINVAL);
}

/* Of a slot that is there only its address and its log may change. */
static bool may_become(const soft_slot *slot, const struct kvm_userspace_memory_region *region) {
  return slot->size == region->memory_size &&
         slot->hva == (const uint8_t *)(uintptr_t)region->userspace_addr &&
         !((slot->flags ^ region->flags) & KVM_MEM_READONLY);
}

int soft_region_set(soft_vm *vm, const struct kvm_userspace_memory_region *region) {
  if (!is_valid(region)) {
    return soft_refuse(EINVAL);
  }
  const soft_map *map = atomic_load(&vm->map);
  const soft_slot *slot = by_id(map, region->slot);
  if (!region->memory_size) {
    return delete_slot(vm, slot);
  }
  if (slot && !may_become(slot, region)) {
    return soft_refuse(EINVAL);
  }
  if (overlaps(map, region)) {
    return soft_refuse(EEXIST);
  }
  bool logs = region->flags & KVM_MEM_LOG_DIRTY_PAGES;
  _Atomic uint64_t *old_log = slot ? slot->dirty : NULL;
  _Atomic uint64_t *log = !logs ? NULL : old_log ? old_log : make_log(vm, region->memory_size);
  if (logs && !log) {
    return soft_refuse(ENOMEM);
  }
  soft_slot made = {.gpa = region->guest_phys_addr,
                    .size = region->memory_size,
                    .hva = (uint8_t *)(uintptr_t)region->userspace_addr,
                    .flags = region->flags,
                    .id = region->slot,
                    .dirty = log};
  int result = replace(vm, region->slot, &made, log == old_log ? NULL : (void *)old_log);
  if (result < 0 && log != old_log) {
    free((void *)log);
  }
  return result;
}

void soft_regions_free(soft_vm *vm) {
  soft_map *map = atomic_load(&vm->map);
  for (uint32_t i = 0; i < map->count; i++) {
    free((void *)map->slots[i].dirty);
  }
  free(map);
}
