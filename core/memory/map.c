/* SPDX-License-Identifier: MIT
 * The public calls on the map and the memory of a space, with the checks of their arguments. */
#include "base/error.h"
#include "base/range.h"
#include "memory/buffer.h"
#include "memory/dirty.h"
#include "memory/edit.h"
#include "memory/space.h"
#include "memory/spaces.h"
#include "memory/vm.h"
#include "memory/window.h"

#include <inttypes.h>

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
    return luna_error_status();
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
  luna_vm_change_begin(vm);
  int status = update_locked(vm, space, changes, count);
  luna_vm_change_end(vm);
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
  luna_vm_change_begin(vm);
  luna_space *space = luna_vm_find_space(vm, space_id);
  luna_mapping *mapping = space ? luna_space_at(space, gpa) : NULL;
  int status = space ? LUNA_ERROR_NOT_FOUND : luna_error_status();
  if (space && (!mapping || !mapping->window || mapping->range.first != gpa)) {
    luna_fail(LUNA_ERROR_NOT_FOUND,
              "cannot remap gpa 0x%" PRIx64 " of space %u: no window begins there; map it as a "
              "window",
              gpa, space_id);
  } else if (space) {
    status = check_buffer(buffer, offset, mapping->range.last - mapping->range.first + 1);
    status = status == LUNA_OK ? luna_window_show(mapping, buffer, offset) : status;
  }
  luna_vm_change_end(vm);
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
  int status = luna_error_status();
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
    status = luna_dirty_collect(space, mapping, range);
    if (status != LUNA_OK || mapping->range.last >= range.last) {
      return status;
    }
    next = mapping->range.last + 1;
  }
}

int luna_vm_dirty_space(luna_vm *vm, uint32_t space_id, uint64_t gpa, uint64_t size) {
  pthread_rwlock_wrlock(&vm->lock);
  luna_space *space = luna_vm_find_space(vm, space_id);
  int status = space ? dirty_locked(space, gpa, size) : luna_error_status();
  pthread_rwlock_unlock(&vm->lock);
  return status;
}

int luna_vm_dirty_take(luna_vm *vm, uint32_t space_id, uint64_t gpa, uint64_t size, uint32_t flags,
                       uint64_t *first, uint64_t *length) {
  pthread_rwlock_wrlock(&vm->lock);
  luna_space *space = luna_vm_find_space(vm, space_id);
  int status = luna_error_status();
  if (space) {
    luna_range range;
    luna_range run;
    status = check_range(space, "follow", gpa, size, &range);
    if (status == LUNA_OK && space->logged && luna_dirty_take(space, range, flags, &run)) {
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
  const luna_space *space = luna_vm_find_space(vm, space_id);
  int status = space ? LUNA_ERROR_NOT_FOUND : luna_error_status();
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
