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

static uint64_t words(const luna_mapping *mapping) {
  return (luna_mapping_pages(mapping) + 63) / 64;
}

/* The page's number in the mapping's buffer. */
static uint64_t in_buffer(const luna_mapping *mapping, uint64_t page) {
  return mapping->offset / LUNA_PAGE_SIZE + page;
}

/* The chunk of the buffer that holds the page, counted from that of the mapping's first page. */
static uint64_t chunk_of(const luna_mapping *mapping, uint64_t page) {
  return in_buffer(mapping, page) / LUNA_CHUNK_PAGES - in_buffer(mapping, 0) / LUNA_CHUNK_PAGES;
}

static void set_bit(uint64_t *bits, uint64_t page) {
  bits[page / 64] |= (uint64_t)1 << page % 64;
}

int luna_dirty_begin(luna_space *space, uint32_t ring_entries) {
  if (ring_entries == 0) {
    return LUNA_OK;
  }
  if (ring_entries > space->host->ring_max) {
    return luna_fail(LUNA_ERROR_UNSUPPORTED,
                     "cannot make dirty rings of %u entries: this host's KVM allows %u",
                     ring_entries, space->host->ring_max);
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

void luna_dirty_show(luna_mapping *mapping) {
  uint32_t epoch = luna_buffer_epoch(mapping->buffer);
  uint64_t chunks = chunk_of(mapping, luna_mapping_pages(mapping) - 1) + 1;
  for (uint64_t chunk = 0; chunk < chunks; chunk++) {
    mapping->log->seen[chunk] = epoch;
  }
}

int luna_dirty_attach(luna_mapping *mapping) {
  if (luna_buffer_log(mapping->buffer) != 0) {
    return -1;
  }
  uint64_t bitmap = words(mapping);
  uint64_t chunks = luna_mapping_pages(mapping) / LUNA_CHUNK_PAGES + 2; /* at any offset */
  luna_log *log =
      calloc(1, sizeof *log + 2 * bitmap * sizeof *log->guest + chunks * sizeof *log->seen);
  if (!log) {
    return -1;
  }
  log->guest = (uint64_t *)(log + 1);
  log->host = log->guest + bitmap;
  log->seen = (uint32_t *)(log->host + bitmap);
  mapping->log = log;
  luna_dirty_show(mapping);
  return 0;
}

static luna_mapping *next_mapping(const luna_space *space, uint64_t gpa) {
  return (luna_mapping *)luna_range_from(&space->regions, gpa);
}

static void detach_all(const luna_space *space) {
  for (luna_mapping *m = next_mapping(space, 0); m; m = next_mapping(space, m->range.last + 1)) {
    free(m->log);
    m->log = NULL;
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
  if (!space->ring_entries && space->host->manual_protect && !space->manual_protect) {
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

/* Room for KVM's bitmap of a slot, which is read whole; kept from one call to the next. */
static uint64_t *reading_room(luna_space *space, uint64_t count) {
  if (space->reading_words < count) {
    free(space->reading);
    space->reading = malloc(count * sizeof *space->reading);
    space->reading_words = space->reading ? count : 0;
  }
  return space->reading;
}

/* What KVM noted of words [first, end) moves over to the log. */
static int take_words(luna_space *space, luna_mapping *mapping, uint64_t first, uint64_t end) {
  uint64_t any = 0;
  for (uint64_t i = first; i < end; i++) {
    mapping->log->guest[i] |= space->reading[i];
    any |= space->reading[i];
  }
  if (!any || !space->manual_protect) {
    return 0;
  }
  uint64_t pages = luna_mapping_pages(mapping);
  uint64_t last = end * 64 < pages ? end * 64 : pages;
  return luna_kvm_clear_dirty_log(space->vm_fd, (uint32_t)mapping->slot, first * 64,
                                  last - first * 64, space->reading + first);
}

/* Reads KVM's bitmap of one slot, and clears of it what holds the pages [page, end): with manual
 * protection only these, else reading has cleared all. */
static int collect_bitmap(luna_space *space, luna_mapping *mapping, uint64_t page, uint64_t end) {
  uint64_t count = words(mapping);
  if (!reading_room(space, count)) {
    return luna_fail_errno(ENOMEM, "cannot read the written pages of space %u", space->id);
  }
  uint32_t slot = (uint32_t)mapping->slot;
  int result = luna_kvm_get_dirty_log(space->vm_fd, slot, space->reading);
  if (result == 0) {
    bool all = !space->manual_protect;
    result = take_words(space, mapping, all ? 0 : page / 64, all ? count : (end + 63) / 64);
  }
  return result == 0 ? LUNA_OK
                     : luna_fail_errno(errno, "cannot read the written pages of space %u, slot %u",
                                       space->id, slot);
}

/* The pages [page, end), which are in one chunk. */
static void collect_chunk(luna_mapping *mapping, uint64_t page, uint64_t end, uint32_t seen) {
  const luna_buffer *buffer = mapping->buffer;
  uint64_t first = in_buffer(mapping, 0);
  for (; page < end; page++) {
    uint32_t written = atomic_load_explicit(&buffer->written[first + page], memory_order_relaxed);
    if (written > seen) {
      set_bit(mapping->log->host, page);
    }
  }
}

/* Whole chunks: `seen` is of all their pages. */
static void collect_host(luna_mapping *mapping, uint64_t page, uint64_t end) {
  const luna_buffer *buffer = mapping->buffer;
  uint32_t epoch = luna_buffer_epoch(mapping->buffer);
  uint64_t pages = luna_mapping_pages(mapping);
  uint64_t ahead = in_buffer(mapping, page) % LUNA_CHUNK_PAGES;
  page -= ahead < page ? ahead : page;
  while (page < end) {
    uint64_t chunk = in_buffer(mapping, page) / LUNA_CHUNK_PAGES;
    uint64_t next = page + LUNA_CHUNK_PAGES - in_buffer(mapping, page) % LUNA_CHUNK_PAGES;
    uint32_t *seen = &mapping->log->seen[chunk_of(mapping, page)];
    if (atomic_load_explicit(&buffer->chunks[chunk], memory_order_relaxed) > *seen) {
      collect_chunk(mapping, page, next < pages ? next : pages, *seen);
    }
    *seen = epoch;
    page = next;
  }
}

void luna_dirty_collect_host(luna_mapping *mapping) {
  collect_host(mapping, 0, luna_mapping_pages(mapping));
}

/* The pages of the mapping that are in the range: [*page, *end). */
static void pages_in(const luna_mapping *mapping, luna_range range, uint64_t *page, uint64_t *end) {
  uint64_t base = mapping->range.first;
  uint64_t last = range.last < mapping->range.last ? range.last : mapping->range.last;
  *page = range.first > base ? (range.first - base) / LUNA_PAGE_SIZE : 0;
  *end = (last - base) / LUNA_PAGE_SIZE + 1;
}

int luna_dirty_collect_guest(luna_space *space, luna_mapping *mapping, luna_range range) {
  uint64_t page;
  uint64_t end;
  pages_in(mapping, range, &page, &end);
  if (mapping->slot < 0 || luna_slot_read_only(mapping)) {
    return LUNA_OK;
  }
  return space->ring_entries ? luna_ring_drain(space) : collect_bitmap(space, mapping, page, end);
}

int luna_dirty_collect(luna_space *space, luna_mapping *mapping, luna_range range) {
  int status = luna_dirty_collect_guest(space, mapping, range);
  if (status == LUNA_OK) {
    uint64_t page;
    uint64_t end;
    pages_in(mapping, range, &page, &end);
    collect_host(mapping, page, end);
  }
  return status;
}

void luna_dirty_note(const luna_mapping *mapping, uint64_t offset, uint64_t size) {
  if (!mapping->log || size == 0) {
    return;
  }
  uint64_t last = (offset + size - 1) / LUNA_PAGE_SIZE;
  for (uint64_t page = offset / LUNA_PAGE_SIZE; page <= last; page++) {
    __atomic_fetch_or(&mapping->log->guest[page / 64], (uint64_t)1 << page % 64, __ATOMIC_RELAXED);
  }
}

/* Adds `count` bits of `from` from bit `at` on to those of `to` from bit `where` on. */
static void add_bits(uint64_t *to, uint64_t where, const uint64_t *from, uint64_t at,
                     uint64_t count) {
  while (count > 0) {
    uint64_t part = 64 - at % 64 < count ? 64 - at % 64 : count;
    uint64_t mask = part == 64 ? UINT64_MAX : ((uint64_t)1 << part) - 1;
    uint64_t bits = from[at / 64] >> at % 64 & mask;
    if (bits) {
      to[where / 64] |= bits << where % 64;
      if (where % 64 + part > 64) {
        to[where / 64 + 1] |= bits >> (64 - where % 64);
      }
    }
    at += part;
    where += part;
    count -= part;
  }
}

/* Both show the same pages of the same buffer: what was seen of a chunk that is whole in both
 * stays seen, so that only the chunks at the ends are looked at. */
static void inherit_seen(luna_mapping *to, luna_mapping *from, uint64_t where, uint64_t at,
                         uint64_t count) {
  uint64_t first = in_buffer(from, at);
  uint64_t whole = (first + LUNA_CHUNK_PAGES - 1) / LUNA_CHUNK_PAGES;
  uint64_t behind = (first + count) / LUNA_CHUNK_PAGES;
  if (whole >= behind) {
    collect_host(from, at, at + count);
    return;
  }
  if (first % LUNA_CHUNK_PAGES) {
    collect_host(from, at, at + 1);
  }
  if ((first + count) % LUNA_CHUNK_PAGES) {
    collect_host(from, at + count - 1, at + count);
  }
  uint64_t skip = whole * LUNA_CHUNK_PAGES - first;
  memcpy(to->log->seen + chunk_of(to, where + skip), from->log->seen + chunk_of(from, at + skip),
         (behind - whole) * sizeof *to->log->seen);
}

void luna_dirty_inherit(luna_mapping *to, luna_mapping *from) {
  uint64_t first = to->range.first > from->range.first ? to->range.first : from->range.first;
  uint64_t last = to->range.last < from->range.last ? to->range.last : from->range.last;
  if (first > last) {
    return;
  }
  uint64_t where = (first - to->range.first) / LUNA_PAGE_SIZE;
  uint64_t at = (first - from->range.first) / LUNA_PAGE_SIZE;
  uint64_t count = (last - first) / LUNA_PAGE_SIZE + 1;
  if (to->buffer == from->buffer && in_buffer(to, where) == in_buffer(from, at)) {
    inherit_seen(to, from, where, at, count);
  } else {
    collect_host(from, at, at + count);
  }
  add_bits(to->log->guest, where, from->log->guest, at, count);
  add_bits(to->log->host, where, from->log->host, at, count);
}

static uint64_t word_of(const luna_log *log, uint64_t index, uint32_t flags) {
  return log->guest[index] | (flags & LUNA_DIRTY_GUEST ? 0 : log->host[index]);
}

/* The first written page of the mapping from `page` up to, not including, `end`; `end` if there is
 * none. */
static uint64_t next_dirty(const luna_mapping *mapping, uint64_t page, uint64_t end,
                           uint32_t flags) {
  while (page < end) {
    uint64_t word = word_of(mapping->log, page / 64, flags) >> page % 64;
    if (word) {
      page += (uint64_t)__builtin_ctzll(word);
      return page < end ? page : end;
    }
    page = (page / 64 + 1) * 64;
  }
  return end;
}

static bool take_from(luna_mapping *mapping, luna_range range, uint32_t flags, luna_range *run) {
  luna_log *log = mapping->log;
  uint64_t base = mapping->range.first;
  uint64_t page;
  uint64_t end;
  pages_in(mapping, range, &page, &end);
  page = next_dirty(mapping, page, end, flags);
  if (page == end) {
    return false;
  }
  run->first = base + page * LUNA_PAGE_SIZE;
  end = flags & LUNA_DIRTY_PAGE ? page + 1 : end;
  for (; page < end && word_of(log, page / 64, flags) >> page % 64 & 1; page++) {
    log->guest[page / 64] &= ~((uint64_t)1 << page % 64);
    log->host[page / 64] &= ~((uint64_t)1 << page % 64);
  }
  run->last = base + page * LUNA_PAGE_SIZE - 1;
  return true;
}

bool luna_dirty_take(luna_space *space, luna_range range, uint32_t flags, luna_range *run) {
  uint64_t gpa = range.first;
  for (luna_mapping *m = next_mapping(space, gpa); m && m->range.first <= range.last;
       m = next_mapping(space, gpa)) {
    if (take_from(m, range, flags, run)) {
      return true;
    }
    if (m->range.last >= range.last) {
      break;
    }
    gpa = m->range.last + 1;
  }
  return false;
}
