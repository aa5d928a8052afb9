/* SPDX-License-Identifier: MIT
 * The VM handle: life, and the public calls on spaces and traps with their argument checks. */
#include "vm.h"

#include "buffer.h"
#include "dirty.h"
#include "edit.h"
#include "error.h"
#include "kvm.h"
#include "window.h"

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
  status = made && spaces ? luna_space_create(0, options->dirty_ring, &spaces[0])
                          : luna_fail_errno(ENOMEM, "cannot make a VM");
  if (status != LUNA_OK) {
    free(made);
    free(spaces);
    return status;
  }
  made->spaces = spaces;
  made->space_count = 1;
  made->ring_entries = options->dirty_ring;
  pthread_rwlock_init(&made->lock, NULL);
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
  luna_traps_free(&vm->traps);
  pthread_rwlock_destroy(&vm->lock);
  free(vm->vcpu_taken);
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
  change_begin(vm);
  uint32_t id = 0;
  int status = free_space_id(vm, &id);
  if (status == LUNA_OK) {
    status = luna_space_create(id, vm->ring_entries, &vm->spaces[id]);
  }
  if (status == LUNA_OK) {
    *space = id;
  }
  change_end(vm);
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
  change_begin(vm);
  int status = check_destroy(vm, id);
  if (status == LUNA_OK) {
    luna_space_free(vm->spaces[id]);
    vm->spaces[id] = NULL;
  }
  change_end(vm);
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

/* ---- Maps ---- */

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

static int check_rights(uint32_t rights, uint32_t flags, uint32_t known) {
  const uint32_t all = LUNA_READ | LUNA_WRITE | LUNA_EXECUTE;
  if ((rights & ~all) || (flags & ~known)) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "cannot give rights 0x%x: only 0x%x are known here",
                     rights | flags, all | known);
  }
  if (rights & LUNA_EXECUTE && !(rights & LUNA_READ)) {
    return luna_fail(LUNA_ERROR_UNSUPPORTED,
                     "cannot give execute without read: KVM's memory slots always allow reads, and "
                     "memory without a slot cannot run code; add read");
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

enum {
  MAP_FLAGS = LUNA_MAP_STRICT | LUNA_MAP_SEPARATE | LUNA_MAP_WINDOW
};

static int edit_map(luna_edit *edit, const luna_change *change) {
  luna_mapping mapping = {.slot = -1,
                          .rights = change->rights & ~(uint32_t)MAP_FLAGS,
                          .flags = change->rights & MAP_FLAGS};
  uint64_t offset = change->offset;
  int status = check_range(edit->space, "map", change->gpa, change->size, &mapping.range);
  status = status == LUNA_OK ? check_buffer(change->buffer, offset, change->size) : status;
  status = status == LUNA_OK ? check_rights(mapping.rights, mapping.flags, MAP_FLAGS) : status;
  if (status != LUNA_OK) {
    return status;
  }
  luna_buffer *buffer = change->buffer;
  if (mapping.rights & LUNA_WRITE && !buffer->memory.writable) {
    return luna_fail(LUNA_ERROR_ARGUMENT,
                     "cannot map gpa 0x%" PRIx64 " in space %u with write: the buffer is read-only",
                     change->gpa, edit->space->id);
  }
  mapping.host = buffer->memory.data + offset;
  mapping.offset = buffer->root_offset + offset;
  mapping.buffer = buffer->root;
  if (mapping.offset % LUNA_PAGE_SIZE != 0) {
    return luna_fail(LUNA_ERROR_ARGUMENT,
                     "cannot map offset 0x%" PRIx64 " of a view that begins at 0x%" PRIx64
                     " of its buffer: together they are not a multiple of the page size 0x%x",
                     offset, buffer->root_offset, LUNA_PAGE_SIZE);
  }
  if (mapping.flags & LUNA_MAP_WINDOW) {
    status = luna_window_create(&mapping);
    if (status != LUNA_OK) {
      return status;
    }
    mapping.window->next = edit->windows;
    edit->windows = mapping.window;
  }
  return luna_edit_map(edit, &mapping);
}

static int edit_one(luna_edit *edit, const luna_change *change) {
  luna_range range;
  uint32_t strict = change->rights & LUNA_MAP_STRICT;
  uint32_t rights = change->rights & ~(uint32_t)LUNA_MAP_STRICT;
  int status;
  switch (change->kind) {
    case LUNA_CHANGE_MAP:
      return edit_map(edit, change);
    case LUNA_CHANGE_UNMAP:
      status = check_range(edit->space, "unmap", change->gpa, change->size, &range);
      return status == LUNA_OK ? luna_edit_unmap(edit, range) : status;
    case LUNA_CHANGE_PROTECT:
      status = check_range(edit->space, "protect", change->gpa, change->size, &range);
      status = status == LUNA_OK ? check_rights(rights, strict, LUNA_MAP_STRICT) : status;
      return status == LUNA_OK ? luna_edit_protect(edit, range, rights, strict) : status;
    default:
      return luna_fail(LUNA_ERROR_ARGUMENT, "there is no change of kind %u", change->kind);
  }
}

static int update_locked(luna_vm *vm, uint32_t space_id, const luna_change *changes, size_t count) {
  luna_space *space = luna_vm_find_space(vm, space_id);
  if (!space) {
    return LUNA_ERROR_NOT_FOUND;
  }
  luna_edit edit;
  luna_edit_begin(&edit, space);
  for (size_t i = 0; i < count; i++) {
    int status = edit_one(&edit, &changes[i]);
    if (status != LUNA_OK) {
      luna_edit_abandon(&edit);
      return status;
    }
  }
  return luna_edit_commit(&edit);
}

int luna_vm_update_space(luna_vm *vm, uint32_t space, const luna_change *changes, size_t count) {
  change_begin(vm);
  int status = update_locked(vm, space, changes, count);
  change_end(vm);
  return status;
}

int luna_vm_map_space(luna_vm *vm, uint32_t space, luna_buffer *buffer, uint64_t offset,
                      uint64_t gpa, uint64_t size, uint32_t rights) {
  const luna_change change = {.kind = LUNA_CHANGE_MAP,
                              .rights = rights,
                              .gpa = gpa,
                              .size = size,
                              .buffer = buffer,
                              .offset = offset};
  return luna_vm_update_space(vm, space, &change, 1);
}

int luna_vm_unmap_space(luna_vm *vm, uint32_t space, uint64_t gpa, uint64_t size) {
  const luna_change change = {.kind = LUNA_CHANGE_UNMAP, .gpa = gpa, .size = size};
  return luna_vm_update_space(vm, space, &change, 1);
}

int luna_vm_protect_space(luna_vm *vm, uint32_t space, uint64_t gpa, uint64_t size,
                          uint32_t rights) {
  const luna_change change = {
      .kind = LUNA_CHANGE_PROTECT, .rights = rights, .gpa = gpa, .size = size};
  return luna_vm_update_space(vm, space, &change, 1);
}

int luna_vm_remap_space(luna_vm *vm, uint32_t space_id, uint64_t gpa, luna_buffer *buffer,
                        uint64_t offset) {
  change_begin(vm);
  luna_space *space = luna_vm_find_space(vm, space_id);
  luna_mapping *mapping = space ? luna_space_at(space, gpa) : NULL;
  int status = LUNA_ERROR_NOT_FOUND;
  if (space && (!mapping || !mapping->window || mapping->range.first != gpa)) {
    luna_fail(LUNA_ERROR_NOT_FOUND,
              "cannot remap gpa 0x%" PRIx64 " of space %u: no window begins there (map it with "
              "LUNA_MAP_WINDOW)",
              gpa, space_id);
  } else if (space) {
    status = check_buffer(buffer, offset, mapping->range.last - mapping->range.first + 1);
    status = status == LUNA_OK ? luna_window_show(mapping, buffer, offset) : status;
  }
  change_end(vm);
  return status;
}

static int fail_copy(const luna_space *space, uint64_t gpa, uint64_t size) {
  uint64_t hole = gpa;
  const luna_mapping *mapping = luna_space_at(space, hole);
  while (mapping && mapping->range.last - gpa < size - 1) {
    hole = mapping->range.last + 1;
    mapping = luna_space_at(space, hole);
  }
  return luna_fail(LUNA_ERROR_NOT_FOUND,
                   "cannot access 0x%" PRIx64 " bytes at gpa 0x%" PRIx64
                   " of space %u: nothing is mapped at 0x%" PRIx64,
                   size, gpa, space->id, hole);
}

int luna_vm_copy_space(luna_vm *vm, uint32_t space_id, uint64_t gpa, void *bytes, uint64_t size,
                       uint32_t access) {
  pthread_rwlock_rdlock(&vm->lock);
  const luna_space *space = luna_vm_find_space(vm, space_id);
  int status = LUNA_ERROR_NOT_FOUND;
  if (space) {
    luna_touch touch = luna_space_copy(space, gpa, size, access == LUNA_WRITE, bytes);
    status = LUNA_OK;
    if (touch == LUNA_TOUCH_DENIED) {
      status = fail_copy(space, gpa, size);
    } else if (touch == LUNA_TOUCH_GONE) {
      status = luna_fail(LUNA_ERROR_SYSTEM,
                         "cannot access 0x%" PRIx64 " bytes at gpa 0x%" PRIx64
                         " of space %u: the host memory behind it is gone (a file cut short?) or "
                         "read-only",
                         size, gpa, space_id);
    }
  }
  pthread_rwlock_unlock(&vm->lock);
  return status;
}

/* ---- Written pages ---- */

static int dirty_locked(luna_space *space, uint64_t gpa, uint64_t size) {
  luna_range range;
  int status = check_range(space, "follow", gpa, size, &range);
  if (status != LUNA_OK || !space->logged) {
    return status == LUNA_OK ? luna_dirty_start(space) : status;
  }
  uint64_t next = range.first;
  for (;;) {
    luna_mapping *mapping = (luna_mapping *)luna_range_from(&space->regions, next);
    if (!mapping || mapping->range.first > range.last) {
      return LUNA_OK;
    }
    status = luna_dirty_collect(space, mapping);
    if (status != LUNA_OK || mapping->range.last >= range.last) {
      return status;
    }
    next = mapping->range.last + 1;
  }
}

int luna_vm_dirty_space(luna_vm *vm, uint32_t space_id, uint64_t gpa, uint64_t size) {
  pthread_rwlock_wrlock(&vm->lock);
  luna_space *space = luna_vm_find_space(vm, space_id);
  int status = space ? dirty_locked(space, gpa, size) : LUNA_ERROR_NOT_FOUND;
  pthread_rwlock_unlock(&vm->lock);
  return status;
}

int luna_vm_dirty_take(luna_vm *vm, uint32_t space_id, uint64_t gpa, uint64_t size, uint64_t *first,
                       uint64_t *length) {
  pthread_rwlock_wrlock(&vm->lock);
  luna_space *space = luna_vm_find_space(vm, space_id);
  int status = LUNA_ERROR_NOT_FOUND;
  if (space) {
    luna_range range;
    luna_range run;
    status = check_range(space, "follow", gpa, size, &range);
    if (status == LUNA_OK && space->logged && luna_dirty_take(space, range, &run)) {
      *first = run.first;
      *length = run.last - run.first + 1;
      status = 1;
    }
  }
  pthread_rwlock_unlock(&vm->lock);
  return status;
}

int luna_space_next(luna_vm *vm, uint32_t space_id, uint64_t gpa, luna_region *region) {
  pthread_rwlock_rdlock(&vm->lock);
  int status = LUNA_ERROR_NOT_FOUND;
  const luna_space *space = luna_vm_find_space(vm, space_id);
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
        .flags = mapping->flags,
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
    owner = (luna_owner){trap->range, trap->range.first, trap->id};
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
