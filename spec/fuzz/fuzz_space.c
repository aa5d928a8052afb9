/* SPDX-License-Identifier: MIT
 * Random maps, unmaps, changes of rights and lists of changes, with and without failing ioctls,
 * against a model that knows each page: a call does all or nothing, and what the model says. */
#include "fuzz.h"

enum {
  PAGE = LUNA_PAGE_SIZE,
  PAGES = 64, /* of the space that the model knows, from gpa 0 */
  BUFFERS = 2,
  CHANGES_MOST = 4,
  CALLS_MOST = 200,
  ACCESS = LUNA_READ | LUNA_WRITE | LUNA_EXECUTE
};

typedef struct cell {
  bool mapped;
  uint32_t buffer;
  uint64_t offset; /* pages */
  uint32_t rights;
} cell;

static luna_vm *vm;
static luna_buffer *buffers[BUFFERS];
static cell cells[PAGES];
static uint32_t space;

/* ---- Calls and what the model makes of them ---- */

static uint32_t random_rights(void) {
  static const uint32_t rights[] = {
      7, 7, 5, 3, 1, 0, 2, 1 | LUNA_MAP_STRICT, 3 | LUNA_MAP_STRICT, 7 | LUNA_MAP_STRICT};
  return rights[fuzz_pick(sizeof rights / sizeof *rights)];
}

/* Pages of the model; now and then what no call takes. */
static luna_change random_change(void) {
  luna_change change = {.kind = fuzz_pick(3), .rights = random_rights()};
  uint64_t first = fuzz_pick(PAGES);
  uint64_t pages = 1 + fuzz_pick(8);
  uint32_t which = fuzz_pick(BUFFERS);
  change.gpa = first * PAGE;
  change.size = (first + pages > PAGES ? PAGES - first : pages) * PAGE;
  change.buffer = buffers[which];
  change.offset = (fuzz_rarely(2) ? fuzz_pick(PAGES) : first) * PAGE;
  if (fuzz_rarely(16)) {
    uint64_t odd = 1 + fuzz_pick(PAGE - 1);
    *(fuzz_rarely(2) ? &change.gpa : &change.size) += odd;
  }
  return change;
}

static uint32_t number_of(const luna_buffer *buffer) {
  return buffer == buffers[1];
}

/* Does one change to the cells; whether it can be done. */
static bool model_change(cell *to, const luna_change *change) {
  if (change->gpa % PAGE || change->size % PAGE) {
    return false;
  }
  uint64_t first = change->gpa / PAGE;
  uint64_t pages = change->size / PAGE;
  bool map = change->kind == LUNA_CHANGE_MAP;
  if (map && change->offset / PAGE + pages > PAGES) {
    return false;
  }
  for (uint64_t i = 0; i < pages; i++) {
    cell *c = &to[first + i];
    if (c->mapped == map) {
      return false;
    }
    if (map) {
      *c = (cell){true, number_of(change->buffer), change->offset / PAGE + i, change->rights};
    }
    c->mapped = change->kind != LUNA_CHANGE_UNMAP;
    c->rights = change->rights;
  }
  return true;
}

static int call(const luna_change *changes, size_t count, bool alone) {
  const luna_change *one = changes;
  if (!alone) {
    return luna_vm_update_space(vm, space, changes, count);
  }
  switch (one->kind) {
    case LUNA_CHANGE_MAP:
      return luna_vm_map_space(vm, space, one->buffer, one->offset, one->gpa, one->size,
                               one->rights);
    case LUNA_CHANGE_UNMAP:
      return luna_vm_unmap_space(vm, space, one->gpa, one->size);
    default:
      return luna_vm_protect_space(vm, space, one->gpa, one->size, one->rights);
  }
}

/* ---- What is there ---- */

static void check_region(const luna_region *region) {
  for (uint64_t at = 0; at < region->size; at += PAGE) {
    uint64_t page = (region->gpa + at) / PAGE;
    FUZZ_CHECK(page < PAGES, "page %" PRIu64 " is mapped", page);
    const cell *c = &cells[page];
    FUZZ_CHECK(c->mapped, "page %" PRIu64 " should not be mapped", page);
    FUZZ_CHECK(region->buffer == buffers[c->buffer] && region->offset + at == c->offset * PAGE,
               "page %" PRIu64 " shows the wrong memory", page);
    FUZZ_CHECK(region->rights == (c->rights & ACCESS), "page %" PRIu64 " has rights %u, not %u",
               page, region->rights, c->rights & ACCESS);
    FUZZ_CHECK((region->rights & ~region->enforced) == 0, "page %" PRIu64 " lacks rights", page);
  }
}

static void check_map(void) {
  uint64_t pages = 0;
  uint64_t gpa = 0;
  luna_region region;
  while (luna_space_next(vm, space, gpa, &region) == LUNA_OK) {
    FUZZ_CHECK(region.size > 0 && region.gpa >= gpa, "regions out of order");
    check_region(&region);
    pages += region.size / PAGE;
    gpa = region.gpa + region.size;
  }
  for (int i = 0; i < PAGES; i++) {
    pages -= cells[i].mapped;
  }
  FUZZ_CHECK(pages == 0, "%" PRId64 " pages too many are mapped", (int64_t)pages);
}

/* Reads across pages what the buffers hold, or nothing. */
static void check_copy(void) {
  static uint8_t got[3 * PAGE];
  uint64_t gpa = fuzz_pick(PAGES * 16) * (PAGE / 16);
  uint64_t size = fuzz_pick(2 * PAGE);
  memset(got, 0xee, sizeof got);
  int status = fuzz_status(luna_vm_copy_space(vm, space, gpa, got, size, LUNA_READ));
  for (uint64_t i = 0; i < size; i++) {
    uint64_t page = (gpa + i) / PAGE;
    const cell *c = page < PAGES && cells[page].mapped ? &cells[page] : NULL;
    if (!c) {
      FUZZ_CHECK(status == LUNA_ERROR_NOT_FOUND, "a copy from where nothing is: %d", status);
      return;
    }
    const uint8_t *data = luna_buffer_data(buffers[c->buffer]);
    FUZZ_CHECK(status != LUNA_OK || got[i] == data[c->offset * PAGE + (gpa + i) % PAGE],
               "a copy of the wrong bytes at 0x%" PRIx64, gpa + i);
  }
  FUZZ_CHECK(status == LUNA_OK, "a copy from what is mapped: %s", luna_error_message());
}

/* ---- Rounds ---- */

static void random_call(void) {
  luna_change changes[CHANGES_MOST];
  cell after[PAGES];
  size_t count = 1 + fuzz_pick(CHANGES_MOST);
  bool alone = fuzz_rarely(2);
  bool possible = true;
  count = alone ? 1 : count;
  memcpy(after, cells, sizeof after);
  for (size_t i = 0; i < count; i++) {
    changes[i] = random_change();
    possible = possible && model_change(after, &changes[i]);
  }
  if (fuzz_rarely(4)) {
    fake_fail(1 + fuzz_pick(6), ENOMEM);
  }
  int status = fuzz_status(call(changes, count, alone));
  bool failed = fake_failed();
  fake_fail(0, 0);
  FUZZ_CHECK(status != LUNA_OK || possible, "what cannot be done was done");
  FUZZ_CHECK(status == LUNA_OK || !possible || failed || status == LUNA_ERROR_LIMIT,
             "what can be done was refused: %s", luna_error_message());
  if (status == LUNA_OK) {
    memcpy(cells, after, sizeof cells);
  }
  check_map();
}

static void follow(void) {
  uint64_t first, length;
  uint64_t gpa = fuzz_pick(PAGES) * (uint64_t)PAGE;
  if (fuzz_status(luna_vm_dirty_space(vm, space, 0, PAGES * PAGE)) < 0) {
    return;
  }
  luna_buffer_mark(buffers[0], fuzz_number(), fuzz_number());
  fake_write(gpa);
  fuzz_status(luna_vm_dirty_space(vm, space, 0, PAGES * PAGE));
  while (luna_vm_dirty_take(vm, space, 0, PAGES * PAGE, 0, &first, &length) == 1) {
    for (uint64_t at = first; at < first + length; at += PAGE) {
      FUZZ_CHECK(at / PAGE < PAGES && cells[at / PAGE].mapped, "a page was written that is none");
    }
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fake_config config = fake_defaults();
  uint8_t choice = size > 0 ? data[0] : 0;
  config.slots_max = choice & 1 ? 12 : config.slots_max;
  config.memory_attributes = choice & 2 ? 7 : 0;
  fuzz_begin(data, size, &config);
  fuzz_byte();
  memset(cells, 0, sizeof cells);
  space = 0;
  if (fuzz_status(luna_vm_create(&vm)) < 0) {
    abort();
  }
  for (uint32_t i = 0; i < BUFFERS; i++) {
    if (fuzz_status(luna_buffer_create(PAGES * PAGE, &buffers[i])) < 0) {
      abort();
    }
    for (uint32_t page = 0; page < PAGES; page++) {
      memset((uint8_t *)luna_buffer_data(buffers[i]) + page * PAGE, (int)(i * PAGES + page), 32);
    }
  }
  if (choice & 4 && fuzz_status(luna_vm_space_create(vm, &space)) < 0) {
    abort();
  }
  for (int calls = 0; fuzz_more() && calls < CALLS_MOST; calls++) {
    random_call();
    if (fuzz_rarely(4)) {
      check_copy();
    }
    if (fuzz_rarely(8)) {
      follow();
    }
  }
  luna_vm_release(vm);
  for (int i = 0; i < BUFFERS; i++) {
    luna_buffer_release(buffers[i]);
  }
  fuzz_end();
  return 0;
}
