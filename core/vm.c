/* SPDX-License-Identifier: MIT
 * The VM handle: life, and the public calls on spaces and traps with their argument checks. */
#include "vm.h"

#include "edit.h"
#include "error.h"
#include "kvm.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

int luna_vm_create(luna_vm **vm) {
  luna_vm *made = calloc(1, sizeof *made);
  luna_space **spaces = calloc(1, sizeof(luna_space *));
  if (!made || !spaces) {
    free(made);
    free(spaces);
    return luna_fail_errno(ENOMEM, "cannot make a VM");
  }
  int status = luna_space_create(0, &spaces[0]);
  if (status != LUNA_OK) {
    free(made);
    free(spaces);
    return status;
  }
  made->spaces = spaces;
  made->space_count = 1;
  pthread_rwlock_init(&made->lock, NULL);
  luna_reference_start(&made->reference, LUNA_OBJECT_VM);
  *vm = made;
  return LUNA_OK;
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
  luna_traps_free(&vm->traps);
  pthread_rwlock_destroy(&vm->lock);
  free(vm->spaces);
  free(vm);
}

static void change_begin(luna_vm *vm) {
  pthread_rwlock_wrlock(&vm->lock);
}

static void change_end(luna_vm *vm) {
  atomic_fetch_add(&vm->generation, 1);
  pthread_rwlock_unlock(&vm->lock);
}

static luna_space *find_space(const luna_vm *vm, uint32_t id) {
  luna_space *space = id < vm->space_count ? vm->spaces[id] : NULL;
  if (!space) {
    luna_fail(LUNA_ERROR_NOT_FOUND, "there is no space %u in this VM", id);
  }
  return space;
}

/* Checks gpa and size of a call on a range and gives the range. */
static int check_range(const luna_space *space, const char *verb, uint64_t gpa, uint64_t size,
                       luna_range *range) {
  if (gpa % LUNA_PAGE_SIZE != 0) {
    return luna_fail(LUNA_ERROR_ARGUMENT,
                     "cannot %s gpa 0x%" PRIx64 ": it is not a multiple of the page size 0x%x",
                     verb, gpa, LUNA_PAGE_SIZE);
  }
  if (size == 0 || size % LUNA_PAGE_SIZE != 0) {
    return luna_fail(LUNA_ERROR_ARGUMENT,
                     "cannot %s 0x%" PRIx64 " bytes at gpa 0x%" PRIx64
                     ": the size must be a multiple of 0x%x and not 0",
                     verb, size, gpa, LUNA_PAGE_SIZE);
  }
  uint64_t limit = space->address_bits < 64 ? (uint64_t)1 << space->address_bits : UINT64_MAX;
  if (gpa >= limit || size > limit - gpa) {
    return luna_fail(LUNA_ERROR_RANGE,
                     "cannot %s 0x%" PRIx64 " bytes at gpa 0x%" PRIx64
                     ": guest-physical addresses of this host have %u bits and end at 0x%" PRIx64,
                     verb, size, gpa, space->address_bits, limit - 1);
  }
  *range = (luna_range){gpa, gpa + size - 1};
  return LUNA_OK;
}

static int check_rights(uint32_t rights) {
  const uint32_t all = LUNA_READ | LUNA_WRITE | LUNA_EXECUTE;
  if (rights & ~all) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "cannot map with rights 0x%x: only 0x%x are known",
                     rights, all);
  }
  if (rights != 0 && !(rights & LUNA_READ)) {
    return luna_fail(LUNA_ERROR_UNSUPPORTED,
                     "cannot map with rights %s%s but no read: KVM's memory slots always allow "
                     "reads; add read, or map with no rights and answer the faults",
                     rights & LUNA_WRITE ? "write" : "",
                     rights & LUNA_EXECUTE ? (rights & LUNA_WRITE ? "+execute" : "execute") : "");
  }
  return LUNA_OK;
}

static int check_buffer(const luna_buffer *buffer, uint64_t offset, uint64_t size) {
  if (!buffer) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "cannot map without a buffer");
  }
  if (offset % LUNA_PAGE_SIZE != 0) {
    return luna_fail(LUNA_ERROR_ARGUMENT,
                     "cannot map from offset 0x%" PRIx64
                     " of a buffer: it is not a multiple of the page size 0x%x",
                     offset, LUNA_PAGE_SIZE);
  }
  uint64_t length = luna_buffer_size(buffer);
  if (offset > length || size > length - offset) {
    return luna_fail(LUNA_ERROR_RANGE,
                     "cannot map 0x%" PRIx64 " bytes from offset 0x%" PRIx64
                     ": the buffer has 0x%" PRIx64,
                     size, offset, length);
  }
  return LUNA_OK;
}

static int map_locked(luna_vm *vm, uint32_t space_id, luna_buffer *buffer, uint64_t offset,
                      uint64_t gpa, uint64_t size, uint32_t rights) {
  luna_space *space = find_space(vm, space_id);
  if (!space) {
    return LUNA_ERROR_NOT_FOUND;
  }
  luna_range range;
  int status = check_range(space, "map", gpa, size, &range);
  status = status == LUNA_OK ? check_buffer(buffer, offset, size) : status;
  status = status == LUNA_OK ? check_rights(rights) : status;
  if (status != LUNA_OK) {
    return status;
  }
  luna_edit edit;
  luna_edit_begin(&edit, space);
  status = luna_edit_map(&edit, buffer, offset, range, rights);
  if (status != LUNA_OK) {
    luna_edit_abandon(&edit);
    return status;
  }
  return luna_edit_commit(&edit);
}

int luna_vm_map_space(luna_vm *vm, uint32_t space, luna_buffer *buffer, uint64_t offset,
                      uint64_t gpa, uint64_t size, uint32_t rights) {
  change_begin(vm);
  int status = map_locked(vm, space, buffer, offset, gpa, size, rights);
  change_end(vm);
  return status;
}

static int unmap_locked(luna_vm *vm, uint32_t space_id, uint64_t gpa, uint64_t size) {
  luna_space *space = find_space(vm, space_id);
  if (!space) {
    return LUNA_ERROR_NOT_FOUND;
  }
  luna_range range;
  int status = check_range(space, "unmap", gpa, size, &range);
  if (status != LUNA_OK) {
    return status;
  }
  luna_edit edit;
  luna_edit_begin(&edit, space);
  status = luna_edit_unmap(&edit, range);
  if (status != LUNA_OK) {
    luna_edit_abandon(&edit);
    return status;
  }
  return luna_edit_commit(&edit);
}

int luna_vm_unmap_space(luna_vm *vm, uint32_t space, uint64_t gpa, uint64_t size) {
  change_begin(vm);
  int status = unmap_locked(vm, space, gpa, size);
  change_end(vm);
  return status;
}

int luna_space_next(luna_vm *vm, uint32_t space_id, uint64_t gpa, luna_region *region) {
  pthread_rwlock_rdlock(&vm->lock);
  int status = LUNA_ERROR_NOT_FOUND;
  const luna_space *space = find_space(vm, space_id);
  const luna_mapping *mapping =
      space ? (const luna_mapping *)luna_range_from(&space->regions, gpa) : NULL;
  if (mapping) {
    *region = (luna_region){
        .gpa = mapping->range.first,
        .size = mapping->range.last - mapping->range.first + 1,
        .buffer = mapping->buffer,
        .offset = mapping->offset,
        .rights = mapping->rights,
        .enforced = luna_mapping_enforced(mapping),
        .slot = mapping->slot,
    };
    status = LUNA_OK;
  } else if (space) {
    luna_fail(LUNA_ERROR_NOT_FOUND, "nothing is mapped at or above gpa 0x%" PRIx64 " in space %u",
              gpa, space_id);
  }
  pthread_rwlock_unlock(&vm->lock);
  return status;
}

static int check_trap(const luna_vm *vm, int kind, uint64_t first, uint64_t length) {
  if (kind != LUNA_TRAP_PIO && kind != LUNA_TRAP_MMIO) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "there is no trap kind %d", kind);
  }
  const char *what = kind == LUNA_TRAP_PIO ? "port" : "gpa";
  if (length == 0) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "cannot trap 0 bytes at %s 0x%" PRIx64, what, first);
  }
  unsigned bits = kind == LUNA_TRAP_PIO ? 16 : vm->spaces[0]->address_bits;
  uint64_t limit = (uint64_t)1 << bits;
  if (first >= limit || length > limit - first) {
    return luna_fail(LUNA_ERROR_RANGE,
                     "cannot trap 0x%" PRIx64 " bytes at %s 0x%" PRIx64
                     ": the last %s is 0x%" PRIx64,
                     length, what, first, what, limit - 1);
  }
  return LUNA_OK;
}

int luna_vm_trap(luna_vm *vm, int kind, uint64_t first, uint64_t length, uint32_t *trap) {
  int status = check_trap(vm, kind, first, length);
  if (status != LUNA_OK) {
    return status;
  }
  change_begin(vm);
  status = luna_traps_add(&vm->traps, kind, (luna_range){first, first + length - 1}, trap);
  change_end(vm);
  return status;
}

int luna_vm_untrap(luna_vm *vm, uint32_t trap) {
  change_begin(vm);
  int status = luna_traps_remove(&vm->traps, trap);
  change_end(vm);
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
    owner = (luna_owner){trap->range, trap->range.first, trap->id};
    if (kind == LUNA_TRAP_MMIO) {
      narrow(&owner, space, address);
    }
  }
  pthread_rwlock_unlock(&vm->lock);
  return owner;
}

bool luna_vm_access(luna_vm *vm, const luna_space *space, uint64_t gpa, uint32_t size,
                    uint32_t access, uint64_t *value) {
  pthread_rwlock_rdlock(&vm->lock);
  bool done = luna_space_access(space, gpa, size, access, value);
  pthread_rwlock_unlock(&vm->lock);
  return done;
}
