/* SPDX-License-Identifier: MIT
 * Slot numbers and slot changes. KVM can add, delete and move a slot and toggle its log, but not
 * resize it, re-back it or toggle its read-only flag (api.rst, KVM_SET_USER_MEMORY_REGION), so
 * every change of a map is adds and deletes. */
#include "memory/slots.h"

#include "base/error.h"
#include "kvm/kvm.h"
#include "memory/space.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const uint32_t rwx = LUNA_READ | LUNA_WRITE | LUNA_EXECUTE;
static const uint32_t rx = LUNA_READ | LUNA_EXECUTE;

/* KVM takes less than 2^31 pages in a slot. Replacing one takes KVM a millisecond and more for each
 * GiB of it, reading its log time by its size: where there are plenty of slots, smaller ones. */
uint64_t luna_slot_most(const luna_space *space) {
  const uint32_t plenty = 4096;
  return space->slots_max >= plenty ? UINT64_C(4) << 30 : UINT64_C(4) << 40;
}

/* A strict mapping has a slot only where KVM's slots have exactly its rights. */
bool luna_slot_needed(const luna_mapping *mapping) {
  if (mapping->flags & LUNA_MAP_STRICT) {
    return mapping->rights == rwx || mapping->rights == rx || mapping->no_execute;
  }
  return mapping->rights != 0;
}

void luna_slot_choose(const luna_space *space, luna_mapping *mapping) {
  mapping->no_execute =
      space->no_execute && mapping->rights & LUNA_READ && !(mapping->rights & LUNA_EXECUTE);
}

bool luna_slot_read_only(const luna_mapping *mapping) {
  return !(mapping->rights & LUNA_WRITE);
}

bool luna_slot_same(const luna_mapping *one, const luna_mapping *other) {
  return one->range.first == other->range.first && one->range.last == other->range.last &&
         one->host == other->host && one->buffer == other->buffer &&
         luna_slot_needed(one) == luna_slot_needed(other) && one->no_execute == other->no_execute &&
         luna_slot_read_only(one) == luna_slot_read_only(other);
}

/* Makes room for every slot number that could be in use or come back, so that using one and giving
 * one back cannot fail. */
static int reserve_numbers(luna_space *space, size_t adds) {
  size_t most = space->next_slot + adds;
  if (most > space->slots_max) {
    most = space->slots_max;
  }
  if (most <= space->slot_capacity) {
    return 0;
  }
  uint32_t capacity = (uint32_t)most * 2 + 8;
  uint32_t *numbers = realloc(space->free_slots, capacity * sizeof *numbers);
  if (!numbers) {
    return -1;
  }
  space->free_slots = numbers;
  luna_mapping **by_slot = realloc(space->by_slot, capacity * sizeof(luna_mapping *));
  if (!by_slot) {
    return -1;
  }
  space->by_slot = by_slot;
  space->slot_capacity = capacity;
  return 0;
}

static int take_number(luna_space *space) {
  if (space->free_count > 0) {
    return (int)space->free_slots[--space->free_count];
  }
  return space->next_slot < space->slots_max ? (int)space->next_slot++ : -1;
}

static void give_number(luna_space *space, int32_t slot) {
  space->by_slot[slot] = NULL;
  space->free_slots[space->free_count++] = (uint32_t)slot;
}

static int set_slot(const luna_space *space, const luna_mapping *mapping, bool present, bool log) {
  uint32_t flags = luna_slot_read_only(mapping) ? KVM_MEM_READONLY : 0;
  if (flags == 0 && log) {
    flags = KVM_MEM_LOG_DIRTY_PAGES;
  }
  struct kvm_userspace_memory_region region = {
      .slot = (uint32_t)mapping->slot,
      .flags = present ? flags : 0,
      .guest_phys_addr = mapping->range.first,
      .memory_size = present ? mapping->range.last - mapping->range.first + 1 : 0,
      .userspace_addr = (uintptr_t)mapping->host,
  };
  return luna_kvm_set_region(space->vm_fd, &region);
}

static int set_no_execute(const luna_space *space, const luna_mapping *mapping, bool on) {
  uint64_t size = mapping->range.last - mapping->range.first + 1;
  return luna_kvm_set_no_execute(space->vm_fd, mapping->range.first, size, on);
}

static int add_slot(luna_space *space, luna_mapping *mapping) {
  int slot = take_number(space);
  if (slot < 0) {
    errno = ENOSPC;
    return -1;
  }
  mapping->slot = slot;
  if ((mapping->no_execute && set_no_execute(space, mapping, true) != 0) ||
      set_slot(space, mapping, true, space->logged) != 0) {
    int number = errno;
    if (mapping->no_execute) {
      set_no_execute(space, mapping, false);
    }
    give_number(space, slot);
    mapping->slot = -1;
    errno = number;
    return -1;
  }
  space->by_slot[slot] = mapping;
  return 0;
}

static int delete_slot(luna_space *space, luna_mapping *mapping) {
  if (set_slot(space, mapping, false, false) != 0) {
    return -1;
  }
  if (mapping->no_execute) { /* nothing is mapped there now: should it fail, the next map says so */
    set_no_execute(space, mapping, false);
  }
  give_number(space, mapping->slot);
  mapping->slot = -1;
  return 0;
}

static int change_slot(luna_space *space, luna_mapping *mapping, bool add) {
  return add ? add_slot(space, mapping) : delete_slot(space, mapping);
}

static int fail_change(const luna_space *space, const luna_slot_change *change, int number) {
  const char *verb = change->add ? "map" : "unmap";
  uint64_t first = change->mapping->range.first;
  uint64_t last = change->mapping->range.last;
  if (number == ENOSPC) {
    return luna_fail(LUNA_ERROR_LIMIT,
                     "cannot give gpa 0x%" PRIx64 "..0x%" PRIx64 " in space %u a memory slot: all "
                     "%u of this host's KVM are taken; map fewer, larger ranges",
                     first, last, space->id, space->slots_max);
  }
  return luna_fail_errno(number,
                         "cannot %s gpa 0x%" PRIx64 "..0x%" PRIx64 " in space %u: KVM refused the "
                         "memory slot",
                         verb, first, last, space->id);
}

/* Takes back the first `done` changes. KVM gave these slots a moment ago; should it refuse one now
 * for want of memory, asking again is all that can be done. */
static void undo(luna_space *space, luna_slot_change *changes, size_t done) {
  enum {
    TRIES = 100
  };
  while (done-- > 0) {
    for (int i = 0; i < TRIES; i++) {
      if (change_slot(space, changes[done].mapping, !changes[done].add) == 0) {
        break;
      }
    }
  }
}

int luna_slots_apply(luna_space *space, luna_slot_change *changes, size_t count) {
  if (reserve_numbers(space, count) != 0) {
    return luna_fail_errno(ENOMEM, "cannot change the memory slots of space %u", space->id);
  }
  for (size_t i = 0; i < count; i++) {
    if (change_slot(space, changes[i].mapping, changes[i].add) != 0) {
      int number = errno;
      undo(space, changes, i);
      return fail_change(space, &changes[i], number);
    }
  }
  return LUNA_OK;
}

int luna_slots_log(luna_space *space, bool on) {
  for (uint32_t slot = 0; slot < space->next_slot; slot++) {
    const luna_mapping *mapping = space->by_slot[slot];
    if (mapping && !luna_slot_read_only(mapping) && set_slot(space, mapping, true, on) != 0) {
      int number = errno;
      while (on && slot-- > 0) {
        mapping = space->by_slot[slot];
        if (mapping && !luna_slot_read_only(mapping)) {
          set_slot(space, mapping, true, false);
        }
      }
      return luna_fail_errno(number, "cannot log the writes to space %u", space->id);
    }
  }
  return LUNA_OK;
}

void luna_slots_free(luna_space *space) {
  free(space->free_slots);
  free(space->by_slot);
}
