/* SPDX-License-Identifier: MIT
 * Collecting written pages: KVM's bitmap of each slot (api.rst, KVM_GET_DIRTY_LOG) and the host
 * side's epochs, into the mappings' own bitmaps. ring.c does the same for KVM's rings. */
#include "memory/dirty.h"

#include "base/error.h"
#include "base/range.h"
#include "kvm/host.h"
#include "kvm/kvm.h"
#include "memory/buffer.h"
#include "memory/ring.h"
#include "memory/slots.h"
#include "memory/space.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static size_t words(const luna_mapping *mapping) {
  return (luna_mapping_pages(mapping) + 63) / 64;
}

static void set_bit(luna_mapping *mapping, uint64_t page) {
  mapping->dirty[page / 64] |= (uint64_t)1 << page % 64;
}

static bool get_bit(const luna_mapping *mapping, uint64_t page) {
  return mapping->dirty[page / 64] >> page % 64 & 1;
}

int luna_dirty_begin(luna_space *space, uint32_t ring_entries) {
  const luna_host *host = luna_host_get();
  if (ring_entries == 0) {
    return LUNA_OK;
  }
  if (ring_entries > host->ring_max) {
    return luna_fail(LUNA_ERROR_UNSUPPORTED,
                     "cannot make dirty rings of %u entries: this host's KVM allows %u",
                     ring_entries, host->ring_max);
  }
  uint64_t bytes = ring_entries * sizeof(struct kvm_dirty_gfn);
  if (luna_kvm_enable_cap(space->vm_fd, KVM_CAP_DIRTY_LOG_RING_ACQ_REL, bytes) != 0 &&
      luna_kvm_enable_cap(space->vm_fd, KVM_CAP_DIRTY_LOG_RING, bytes) != 0) {
    return luna_fail_errno(errno, "cannot make dirty rings of %u entries in space %u", ring_entries,
                           space->id);
  }
  space->ring_entries = ring_entries;
  return LUNA_OK;
}

int luna_dirty_attach(luna_mapping *mapping) {
  if (luna_buffer_log(mapping->buffer) != 0) {
    return -1;
  }
  mapping->dirty = calloc(words(mapping), sizeof *mapping->dirty);
  if (!mapping->dirty) {
    return -1;
  }
  mapping->seen = luna_buffer_epoch(mapping->buffer);
  return 0;
}

static luna_mapping *next_mapping(const luna_space *space, uint64_t gpa) {
  return (luna_mapping *)luna_range_from(&space->regions, gpa);
}

static void detach_all(const luna_space *space) {
  for (luna_mapping *m = next_mapping(space, 0); m; m = next_mapping(space, m->range.last + 1)) {
    free(m->dirty);
    m->dirty = NULL;
    if (m->range.last == UINT64_MAX) {
      break;
    }
  }
}

static int attach_all(const luna_space *space) {
  for (luna_mapping *m = next_mapping(space, 0); m; m = next_mapping(space, m->range.last + 1)) {
    if (luna_dirty_attach(m) != 0) {
      return luna_fail_errno(ENOMEM, "cannot follow the writes to space %u", space->id);
    }
    if (m->range.last == UINT64_MAX) {
      break;
    }
  }
  return LUNA_OK;
}

int luna_dirty_start(luna_space *space) {
  if (space->logged) {
    return LUNA_OK;
  }
  /* Manual protection (flag 1): reading the log leaves the pages writable until they are
   * cleared. */
  if (!space->ring_entries && luna_host_get()->manual_protect && !space->manual_protect) {
    space->manual_protect =
        luna_kvm_enable_cap(space->vm_fd, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 1) == 0;
  }
  int status = attach_all(space);
  status = status == LUNA_OK ? luna_slots_log(space, true) : status;
  if (status != LUNA_OK) {
    detach_all(space);
    return status;
  }
  space->logged = true;
  return LUNA_OK;
}

/* Reads and clears KVM's bitmap of one slot. */
static int collect_bitmap(const luna_space *space, luna_mapping *mapping) {
  size_t count = words(mapping);
  uint64_t *bitmap = calloc(count, sizeof *bitmap);
  if (!bitmap) {
    return luna_fail_errno(ENOMEM, "cannot read the written pages of space %u", space->id);
  }
  uint32_t slot = (uint32_t)mapping->slot;
  int result = luna_kvm_get_dirty_log(space->vm_fd, slot, bitmap);
  if (result == 0) {
    uint64_t any = 0;
    for (size_t i = 0; i < count; i++) {
      mapping->dirty[i] |= bitmap[i];
      any |= bitmap[i];
    }
    if (any && space->manual_protect) {
      uint64_t pages = luna_mapping_pages(mapping);
      result = luna_kvm_clear_dirty_log(space->vm_fd, slot, pages, bitmap);
    }
  }
  int number = errno;
  free(bitmap);
  return result == 0 ? LUNA_OK
                     : luna_fail_errno(number, "cannot read the written pages of space %u, slot %u",
                                       space->id, slot);
}

void luna_dirty_collect_host(luna_mapping *mapping) {
  luna_buffer *buffer = mapping->buffer;
  uint32_t seen = mapping->seen;
  uint64_t first = mapping->offset / LUNA_PAGE_SIZE;
  mapping->seen = luna_buffer_epoch(buffer);
  for (uint64_t page = 0; page < luna_mapping_pages(mapping); page++) {
    uint32_t written = atomic_load_explicit(&buffer->written[first + page], memory_order_relaxed);
    if (written > seen) {
      set_bit(mapping, page);
    }
  }
}

int luna_dirty_collect(luna_space *space, luna_mapping *mapping) {
  int status = LUNA_OK;
  if (mapping->slot >= 0 && !luna_slot_read_only(mapping)) {
    status = space->ring_entries ? luna_ring_drain(space) : collect_bitmap(space, mapping);
  }
  if (status == LUNA_OK) {
    luna_dirty_collect_host(mapping);
  }
  return status;
}

void luna_dirty_inherit(luna_mapping *to, const luna_mapping *from) {
  uint64_t first = to->range.first > from->range.first ? to->range.first : from->range.first;
  uint64_t last = to->range.last < from->range.last ? to->range.last : from->range.last;
  for (uint64_t gpa = first; gpa < last; gpa += LUNA_PAGE_SIZE) {
    if (get_bit(from, (gpa - from->range.first) / LUNA_PAGE_SIZE)) {
      set_bit(to, (gpa - to->range.first) / LUNA_PAGE_SIZE);
    }
  }
}

/* The first written page of the mapping from `page` up to, not including, `end`; `end` if there is
 * none. */
static uint64_t next_dirty(const luna_mapping *mapping, uint64_t page, uint64_t end) {
  while (page < end) {
    uint64_t word = mapping->dirty[page / 64] >> page % 64;
    if (word) {
      page += (uint64_t)__builtin_ctzll(word);
      return page < end ? page : end;
    }
    page = (page / 64 + 1) * 64;
  }
  return end;
}

static bool take_from(luna_mapping *mapping, luna_range range, luna_range *run) {
  uint64_t base = mapping->range.first;
  uint64_t from = range.first > base ? (range.first - base) / LUNA_PAGE_SIZE : 0;
  uint64_t last = range.last < mapping->range.last ? range.last : mapping->range.last;
  uint64_t end = (last - base) / LUNA_PAGE_SIZE + 1;
  uint64_t page = next_dirty(mapping, from, end);
  if (page == end) {
    return false;
  }
  run->first = base + page * LUNA_PAGE_SIZE;
  for (; page < end && get_bit(mapping, page); page++) {
    mapping->dirty[page / 64] &= ~((uint64_t)1 << page % 64);
  }
  run->last = base + page * LUNA_PAGE_SIZE - 1;
  return true;
}

bool luna_dirty_take(luna_space *space, luna_range range, luna_range *run) {
  uint64_t gpa = range.first;
  for (luna_mapping *m = next_mapping(space, gpa); m && m->range.first <= range.last;
       m = next_mapping(space, gpa)) {
    if (take_from(m, range, run)) {
      return true;
    }
    if (m->range.last >= range.last) {
      break;
    }
    gpa = m->range.last + 1;
  }
  return false;
}
