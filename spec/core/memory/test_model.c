/* SPDX-License-Identifier: MIT
 * Random maps and unmaps, with and without failing ioctls, against a page-by-page model. */
#include "fixture/space_fixture.h"

enum {
  MODEL_PAGES = 96,
  MODEL_BASE = 0x300, /* pages */
  MODEL_BUFFERS = 3,
  MODEL_SLOTS = 14,
  MODEL_OPERATIONS = 40000
};

typedef struct cell {
  bool mapped;
  int buffer;
  uint64_t offset; /* pages */
  uint32_t rights;
} cell;

static cell cells[MODEL_PAGES];
static luna_buffer *buffers[MODEL_BUFFERS];

static bool continues(const cell *one, const cell *next) {
  return next->mapped && one->buffer == next->buffer && one->rights == next->rights &&
         one->offset + 1 == next->offset;
}

/* What the regions have to be: the longest runs of cells that continue each other. */
static size_t expected(const cell *from, luna_region *regions, size_t *slots) {
  size_t count = 0;
  *slots = 0;
  for (size_t i = 0; i < MODEL_PAGES; i++) {
    if (!from[i].mapped) {
      continue;
    }
    if (i > 0 && from[i - 1].mapped && continues(&from[i - 1], &from[i])) {
      regions[count - 1].size += PAGE;
      continue;
    }
    regions[count++] = (luna_region){.gpa = (MODEL_BASE + i) * PAGE,
                                     .size = PAGE,
                                     .buffer = buffers[from[i].buffer],
                                     .offset = from[i].offset * PAGE,
                                     .rights = from[i].rights};
    *slots += from[i].rights != 0;
  }
  return count;
}

static void check_model(void) {
  static picture p;
  luna_region want[MODEL_PAGES];
  size_t slots;
  size_t count = expected(cells, want, &slots);
  take_picture(&p);
  check_slots(&p);
  CHECK_EQ(p.region_count, count);
  CHECK_EQ(p.slot_count, slots);
  for (size_t i = 0; i < count; i++) {
    CHECK_EQ(p.regions[i].gpa, want[i].gpa);
    CHECK_EQ(p.regions[i].size, want[i].size);
    CHECK(p.regions[i].buffer == want[i].buffer);
    CHECK_EQ(p.regions[i].offset, want[i].offset);
    CHECK_EQ(p.regions[i].rights, want[i].rights);
  }
}

typedef struct operation {
  bool maps;
  size_t first;
  size_t pages;
  cell begin; /* of the first page, for a map */
} operation;

/* Often the memory that continues a neighbour, so that regions merge. */
static operation random_operation(uint64_t *seed) {
  static const uint32_t rights[] = {RW, RW, RW, RX, 0, RWX, LUNA_READ};
  operation op;
  op.maps = test_random(seed) % 2;
  op.first = test_random(seed) % MODEL_PAGES;
  op.pages = 1 + test_random(seed) % (test_random(seed) % 4 ? 6 : 24);
  if (op.first + op.pages > MODEL_PAGES) {
    op.pages = MODEL_PAGES - op.first;
  }
  op.begin = (cell){true, (int)(test_random(seed) % MODEL_BUFFERS), test_random(seed) % MODEL_PAGES,
                    rights[test_random(seed) % 7]};
  if (test_random(seed) % 4) {
    op.begin.offset = op.first;
    op.begin.rights = RW;
    op.begin.buffer = 0;
  }
  return op;
}

static int call(const operation *op) {
  uint64_t gpa = (MODEL_BASE + op->first) * PAGE;
  if (!op->maps) {
    return luna_vm_unmap_space(vm, 0, gpa, op->pages * PAGE);
  }
  return luna_vm_map_space(vm, 0, buffers[op->begin.buffer], op->begin.offset * PAGE, gpa,
                           op->pages * PAGE, op->begin.rights);
}

/* Does it to the model: the status that the call must have. `cells` changes only with LUNA_OK. */
static int model(const operation *op) {
  cell after[MODEL_PAGES];
  luna_region regions[MODEL_PAGES];
  size_t slots;
  if (op->maps && op->begin.offset + op->pages > MODEL_PAGES) {
    return LUNA_ERROR_RANGE;
  }
  memcpy(after, cells, sizeof after);
  for (size_t i = 0; i < op->pages; i++) {
    cell *c = &after[op->first + i];
    if (c->mapped == op->maps) {
      return op->maps ? LUNA_ERROR_OVERLAP : LUNA_ERROR_NOT_FOUND;
    }
    *c = op->begin;
    c->mapped = op->maps;
    c->offset += i;
  }
  expected(after, regions, &slots);
  if (slots > MODEL_SLOTS) {
    return LUNA_ERROR_LIMIT;
  }
  memcpy(cells, after, sizeof after);
  return LUNA_OK;
}

/* One in three operations has a failing ioctl somewhere. */
static void random_step(uint64_t *seed, unsigned *counts) {
  operation op = random_operation(seed);
  cell before[MODEL_PAGES];
  memcpy(before, cells, sizeof before);
  int want = model(&op);
  if (test_random(seed) % 3 == 0) {
    fake_fail(1 + test_random(seed) % 5, ENOMEM);
  }
  int got = call(&op);
  if (fake_failed()) {
    CHECK(want == LUNA_OK || want == LUNA_ERROR_LIMIT);
    CHECK(got == LUNA_ERROR_MEMORY || got == want);
    CHECK(got != LUNA_OK);
    memcpy(cells, before, sizeof before);
  } else {
    CHECK_EQ(got, want);
  }
  fake_fail(0, 0);
  counts[-got]++;
  check_model();
}

static void random_operations(void) {
  uint64_t start = test_seed();
  uint64_t seed = start;
  unsigned counts[-LUNA_ERROR_SYSTEM + 1] = {0};
  memset(cells, 0, sizeof cells);
  begin_with_slots(MODEL_SLOTS);
  for (int i = 0; i < MODEL_BUFFERS; i++) {
    CHECK_OK(luna_buffer_create(MODEL_PAGES * PAGE, &buffers[i]));
  }
  for (int i = 0; i < MODEL_OPERATIONS; i++) {
    test_note("LUNA_SEED=%" PRIu64 ", operation %d", start, i);
    random_step(&seed, counts);
  }
  test_note("LUNA_SEED=%" PRIu64, start);
  CHECK(counts[0] > 1000);
  CHECK(counts[-LUNA_ERROR_LIMIT] > 20);
  CHECK(counts[-LUNA_ERROR_MEMORY] > 100);
  for (int i = 0; i < MODEL_BUFFERS; i++) {
    luna_buffer_release(buffers[i]);
  }
  end();
}

int main(void) {
  RUN(random_operations);
  return test_end();
}
