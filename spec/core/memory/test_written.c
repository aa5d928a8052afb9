/* SPDX-License-Identifier: MIT
 * Written pages against a model that has one flag a page: in regions of many chunks, which are cut,
 * joined, unmapped and mapped again, asked for in part and without the host side's writes. */
#include "fixture/space_fixture.h"

#include "memory/buffer.h"

enum {
  BIG = 5 * LUNA_CHUNK_PAGES + 77, /* pages of the buffer */
  FIRST = 100,                     /* page of the space where it begins */
  STEPS = 4000
};

typedef struct page_state {
  bool mapped;
  bool writable;
  bool guest;
  bool host;
} page_state;

static luna_buffer *big;
static page_state model[BIG];
static uint64_t seed;

static uint64_t below(uint64_t limit) {
  return test_random(&seed) % limit;
}

/* A range of pages, often a short one. */
static void choose(uint64_t *first, uint64_t *count) {
  *first = below(BIG);
  *count = 1 + below(below(2) ? 8 : BIG);
  *count = *count < BIG - *first ? *count : BIG - *first;
}

/* From the chosen page to the first that is not mapped as wanted. */
static bool choose_mapped(uint64_t *first, uint64_t *count, bool mapped) {
  choose(first, count);
  uint64_t same = 0;
  while (same < *count && model[*first + same].mapped == mapped) {
    same++;
  }
  *count = same;
  return same > 0;
}

static void write_by_guest(void) {
  for (uint64_t i = below(6); i > 0; i--) {
    uint64_t page = below(BIG);
    bool written = fake_write((FIRST + page) * PAGE + below(PAGE));
    CHECK_EQ(written, model[page].mapped && model[page].writable);
    model[page].guest |= written;
  }
}

static void write_by_host(void) {
  uint64_t first;
  uint64_t count;
  choose(&first, &count);
  luna_buffer_mark(big, first * PAGE + below(PAGE), (count - 1) * PAGE + 1);
  for (uint64_t i = first; i < first + count; i++) {
    model[i].host |= model[i].mapped;
  }
  if (count > 1 && first + count < BIG) { /* the last page perhaps: by the offset in the first */
    luna_buffer_mark(big, (first + count) * PAGE, 1);
    model[first + count].host |= model[first + count].mapped;
  }
}

static void change_rights(void) {
  uint64_t first;
  uint64_t count;
  if (!choose_mapped(&first, &count, true)) {
    return;
  }
  bool writable = below(2);
  CHECK_OK(luna_vm_protect_space(vm, 0, (FIRST + first) * PAGE, count * PAGE, writable ? RWX : RX));
  for (uint64_t i = first; i < first + count; i++) {
    model[i].writable = writable;
  }
}

static void change_map(void) {
  uint64_t first;
  uint64_t count;
  bool mapped = below(2);
  if (!choose_mapped(&first, &count, mapped)) {
    return;
  }
  if (mapped) {
    CHECK_OK(luna_vm_unmap_space(vm, 0, (FIRST + first) * PAGE, count * PAGE));
  } else {
    CHECK_OK(
        luna_vm_map_space(vm, 0, big, first * PAGE, (FIRST + first) * PAGE, count * PAGE, RWX));
  }
  for (uint64_t i = first; i < first + count; i++) {
    model[i] = (page_state){.mapped = !mapped, .writable = !mapped};
  }
}

static bool expected(uint64_t page, uint32_t flags) {
  return model[page].guest || (model[page].host && (flags & LUNA_DIRTY_GUEST) == 0);
}

/* Takes what there is in a range, or gives up on the way. */
static void take_some(void) {
  uint64_t first;
  uint64_t count;
  uint64_t at;
  uint64_t size;
  uint32_t flags = (uint32_t)below(4);
  choose(&first, &count);
  CHECK_OK(luna_vm_dirty_space(vm, 0, (FIRST + first) * PAGE, count * PAGE));
  uint64_t next = first;
  while (below(20)) {
    int got = luna_vm_dirty_take(vm, 0, (FIRST + first) * PAGE, count * PAGE, flags, &at, &size);
    while (next < first + count && !expected(next, flags)) {
      next++;
    }
    CHECK_EQ(got, next < first + count);
    if (!got) {
      break;
    }
    CHECK_EQ(at, (FIRST + next) * PAGE);
    CHECK((flags & LUNA_DIRTY_PAGE) == 0 || size == PAGE);
    for (uint64_t i = 0; i < size / PAGE; i++, next++) {
      CHECK(next < first + count && expected(next, flags));
      model[next].guest = model[next].host = false;
    }
  }
}

static void random_writes_and_changes(void) {
  uint64_t start = test_seed();
  for (int manual = 0; manual < 2; manual++) {
    fake_config config = fake_defaults();
    config.manual_protect = manual != 0;
    fake_install(&config);
    begin();
    CHECK_OK(luna_buffer_create(BIG * PAGE, &big));
    CHECK_OK(luna_vm_map_space(vm, 0, big, 0, FIRST * PAGE, BIG * PAGE, RWX));
    CHECK_OK(luna_vm_dirty_space(vm, 0, 0, PAGE));
    for (uint64_t i = 0; i < BIG; i++) {
      model[i] = (page_state){.mapped = true, .writable = true};
    }
    seed = start;
    for (int step = 0; step < STEPS; step++) {
      static void (*const steps[])(void) = {write_by_guest, write_by_guest, write_by_host,
                                            change_rights,  change_map,     take_some,
                                            take_some};
      test_note("LUNA_SEED=%" PRIu64 ", manual %d, step %d", start, manual, step);
      steps[below(sizeof steps / sizeof *steps)]();
    }
    luna_buffer_release(big);
    end();
  }
}

int main(void) {
  RUN(random_writes_and_changes);
  return test_end();
}
