/* SPDX-License-Identifier: MIT
 * Buffers, regions and slots: errors with their messages, splitting and merging, whole-or-nothing
 * under failing ioctls, and random operations against a page-by-page model. */
#include "test.h"

#include <errno.h>

enum {
  PAGE = LUNA_PAGE_SIZE,
  RW = LUNA_READ | LUNA_WRITE,
  RX = LUNA_READ | LUNA_EXECUTE,
  RWX = LUNA_READ | LUNA_WRITE | LUNA_EXECUTE,
  MOST = 600 /* regions, slots */
};

static luna_vm *vm;
static luna_buffer *buffer; /* of 64 pages */

static void begin(void) {
  CHECK_OK(luna_vm_create(&vm));
  CHECK_OK(luna_buffer_create(64 * PAGE, &buffer));
}

static void end(void) {
  luna_buffer_release(buffer);
  luna_vm_release(vm);
}

static void begin_with_slots(uint32_t slots) {
  fake_config config = fake_defaults();
  config.slots_max = slots;
  fake_install(&config);
  begin();
}

static int map(uint64_t offset, uint64_t gpa, uint64_t pages, uint32_t rights) {
  return luna_vm_map_space(vm, 0, buffer, offset * PAGE, gpa * PAGE, pages * PAGE, rights);
}

static int unmap(uint64_t gpa, uint64_t pages) {
  return luna_vm_unmap_space(vm, 0, gpa * PAGE, pages * PAGE);
}

/* ---- What is there
 * ------------------------------------------------------------------------------ */

typedef struct picture {
  luna_region regions[MOST];
  size_t region_count;
  struct kvm_userspace_memory_region slots[MOST];
  size_t slot_count;
} picture;

static void take_picture(picture *p) {
  memset(p, 0, sizeof *p);
  uint64_t gpa = 0;
  while (luna_space_next(vm, 0, gpa, &p->regions[p->region_count]) == LUNA_OK) {
    const luna_region *region = &p->regions[p->region_count++];
    CHECK(region->size > 0 && region->gpa >= gpa);
    gpa = region->gpa + region->size;
    CHECK(p->region_count < MOST);
  }
  p->slot_count = fake_slots(p->slots, MOST);
}

static const struct kvm_userspace_memory_region *slot_of(const picture *p, int32_t number) {
  for (size_t i = 0; i < p->slot_count; i++) {
    if (p->slots[i].slot == (uint32_t)number) {
      return &p->slots[i];
    }
  }
  return NULL;
}

/* Each region that can be read has one slot, of the same place and memory, and no slot is left
 * over. */
static void check_slots(const picture *p) {
  size_t slots = 0;
  for (size_t i = 0; i < p->region_count; i++) {
    const luna_region *region = &p->regions[i];
    bool writes = region->rights & LUNA_WRITE;
    uint32_t enforced = region->rights == 0 ? 0u : writes ? RWX : RX;
    CHECK_EQ(region->enforced, enforced);
    if (region->rights == 0) {
      CHECK_EQ(region->slot, -1);
      continue;
    }
    const struct kvm_userspace_memory_region *slot = slot_of(p, region->slot);
    CHECK(slot);
    CHECK_EQ(slot->guest_phys_addr, region->gpa);
    CHECK_EQ(slot->memory_size, region->size);
    CHECK_EQ(slot->userspace_addr, (uintptr_t)luna_buffer_data(region->buffer) + region->offset);
    CHECK_EQ(slot->flags, writes ? 0 : KVM_MEM_READONLY);
    slots++;
  }
  CHECK_EQ(p->slot_count, slots);
}

static void check_now(size_t regions, size_t slots) {
  static picture p;
  take_picture(&p);
  check_slots(&p);
  CHECK_EQ(p.region_count, regions);
  CHECK_EQ(p.slot_count, slots);
}

static void check_region(uint64_t at, uint64_t gpa, uint64_t pages, uint64_t offset,
                         uint32_t rights) {
  luna_region region;
  CHECK_OK(luna_space_next(vm, 0, at * PAGE, &region));
  CHECK_EQ(region.gpa, gpa * PAGE);
  CHECK_EQ(region.size, pages * PAGE);
  CHECK_EQ(region.offset, offset * PAGE);
  CHECK_EQ(region.rights, rights);
  CHECK(region.buffer == buffer);
}

static bool same_picture(const picture *one, const picture *other) {
  return one->region_count == other->region_count && one->slot_count == other->slot_count &&
         memcmp(one->regions, other->regions, sizeof one->regions) == 0 &&
         memcmp(one->slots, other->slots, sizeof one->slots) == 0;
}

/* ---- Errors
 * ------------------------------------------------------------------------------------- */

static void buffer_errors(void) {
  luna_buffer *made = NULL;
  CHECK_FAILS(luna_buffer_create(0, &made), LUNA_ERROR_ARGUMENT,
              "cannot make a buffer of 0x0 bytes: the size must be a multiple of 0x1000 and not 0");
  CHECK_FAILS(luna_buffer_create(PAGE + 1, &made), LUNA_ERROR_ARGUMENT, "of 0x1001 bytes");
  CHECK_FAILS(luna_buffer_create((UINT64_C(1) << 46) + PAGE, &made), LUNA_ERROR_RANGE,
              "a process has room for at most 0x400000000000");
  CHECK_FAILS(luna_buffer_create(UINT64_MAX - PAGE + 1, &made), LUNA_ERROR_RANGE, "at most");
  CHECK(!made);
}

static void buffer_memory(void) {
  static const uint64_t sizes[] = {PAGE, 3 * PAGE, 2 << 20, (2 << 20) + PAGE, UINT64_C(1) << 34};
  uint64_t last = 0;
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    luna_buffer *made;
    CHECK_OK(luna_buffer_create(sizes[i], &made));
    CHECK_EQ(luna_buffer_size(made), sizes[i]);
    CHECK(luna_buffer_id(made) > last);
    last = luna_buffer_id(made);
    uint8_t *data = luna_buffer_data(made);
    CHECK_EQ((uintptr_t)data % (sizes[i] >= 2 << 20 ? 2u << 20 : PAGE), 0);
    CHECK_EQ(data[0] | data[sizes[i] - 1], 0);
    data[0] = data[sizes[i] - 1] = 1;
    luna_buffer_retain(made);
    luna_buffer_release(made);
    CHECK_EQ(data[0], 1);
    luna_buffer_release(made);
  }
}

static void map_errors(void) {
  begin();
  CHECK_FAILS(luna_vm_map_space(vm, 0, buffer, 0, 0x800, PAGE, RW), LUNA_ERROR_ARGUMENT,
              "cannot map gpa 0x800: it is not a multiple of the page size 0x1000");
  CHECK_FAILS(luna_vm_map_space(vm, 0, buffer, 0, 0x1000, 0, RW), LUNA_ERROR_ARGUMENT,
              "cannot map 0x0 bytes at gpa 0x1000: the size must be a multiple of 0x1000");
  CHECK_FAILS(luna_vm_map_space(vm, 0, buffer, 0, 0x1000, 0x1800, RW), LUNA_ERROR_ARGUMENT,
              "cannot map 0x1800 bytes at gpa 0x1000");
  CHECK_FAILS(luna_vm_map_space(vm, 0, buffer, 1, 0x1000, PAGE, RW), LUNA_ERROR_ARGUMENT,
              "cannot map from offset 0x1 of a buffer: it is not a multiple of the page size");
  CHECK_FAILS(luna_vm_map_space(vm, 0, NULL, 0, 0x1000, PAGE, RW), LUNA_ERROR_ARGUMENT,
              "cannot map without a buffer");
  CHECK_FAILS(map(0, 1, 1, 64), LUNA_ERROR_ARGUMENT, "cannot give rights 0x40: only 0x3f are");
  CHECK_FAILS(map(0, 1, 1, LUNA_EXECUTE), LUNA_ERROR_UNSUPPORTED,
              "cannot give execute without read");
  CHECK_FAILS(map(0, 1, 1, LUNA_WRITE | LUNA_EXECUTE), LUNA_ERROR_UNSUPPORTED,
              "cannot give execute without read");
  CHECK_FAILS(luna_vm_map_space(vm, 1, buffer, 0, 0, PAGE, RW), LUNA_ERROR_NOT_FOUND,
              "there is no space 1 in this VM");
  check_now(0, 0);
  end();
}

static void map_range_errors(void) {
  begin();
  CHECK_FAILS(map(0, 1, 65, RW), LUNA_ERROR_RANGE,
              "cannot map 0x41000 bytes from offset 0x0: the buffer has 0x40000");
  CHECK_FAILS(map(64, 1, 1, RW), LUNA_ERROR_RANGE, "from offset 0x40000");
  CHECK_FAILS(luna_vm_map_space(vm, 0, buffer, UINT64_MAX - PAGE + 1, 0, PAGE, RW),
              LUNA_ERROR_RANGE, "from offset 0xfffffffffffff000");
  const uint64_t limit = (UINT64_C(1) << 40) / PAGE;
  CHECK_FAILS(map(0, limit, 1, RW), LUNA_ERROR_RANGE,
              "cannot map 0x1000 bytes at gpa 0x10000000000: guest-physical addresses of this host "
              "have 40 bits and end at 0xffffffffff");
  CHECK_FAILS(map(0, limit - 1, 2, RW), LUNA_ERROR_RANGE, "have 40 bits");
  CHECK_FAILS(luna_vm_map_space(vm, 0, buffer, 0, UINT64_MAX - PAGE + 1, PAGE, RW),
              LUNA_ERROR_RANGE, "have 40 bits");
  CHECK_OK(map(0, limit - 1, 1, RW));
  CHECK_OK(map(63, 0, 1, RW));
  check_now(2, 2);
  end();
}

static void unmap_errors(void) {
  begin();
  CHECK_OK(map(0, 4, 4, RW));
  CHECK_OK(map(0, 9, 1, RW));
  CHECK_FAILS(luna_vm_unmap_space(vm, 0, 0x4001, PAGE), LUNA_ERROR_ARGUMENT,
              "cannot unmap gpa 0x4001: it is not a multiple");
  CHECK_FAILS(unmap(4, 0), LUNA_ERROR_ARGUMENT, "cannot unmap 0x0 bytes at gpa 0x4000");
  CHECK_FAILS(unmap(UINT64_C(1) << 28, 1), LUNA_ERROR_RANGE, "cannot unmap 0x1000 bytes");
  CHECK_FAILS(luna_vm_unmap_space(vm, 7, 0, PAGE), LUNA_ERROR_NOT_FOUND, "there is no space 7");
  CHECK_FAILS(unmap(3, 2), LUNA_ERROR_NOT_FOUND,
              "cannot unmap gpa 0x3000..0x4fff of space 0: nothing is mapped at 0x3000");
  CHECK_FAILS(unmap(7, 3), LUNA_ERROR_NOT_FOUND, "nothing is mapped at 0x8000");
  CHECK_FAILS(unmap(0, 1), LUNA_ERROR_NOT_FOUND, "nothing is mapped at 0x0");
  CHECK_FAILS(unmap(100, 1), LUNA_ERROR_NOT_FOUND, "nothing is mapped at 0x64000");
  check_now(2, 2);
  end();
}

static void overlap(void) {
  begin();
  CHECK_OK(map(0, 4, 4, RW));
  CHECK_FAILS(map(0, 7, 2, RW), LUNA_ERROR_OVERLAP,
              "cannot map gpa 0x7000..0x8fff in space 0: 0x4000..0x7fff is mapped already");
  CHECK_FAILS(map(0, 3, 2, RW), LUNA_ERROR_OVERLAP, "0x4000..0x7fff is mapped already");
  CHECK_FAILS(map(0, 5, 1, RW), LUNA_ERROR_OVERLAP, "0x4000..0x7fff is mapped already");
  CHECK_FAILS(map(0, 0, 20, 0), LUNA_ERROR_OVERLAP, "0x4000..0x7fff is mapped already");
  CHECK_OK(map(0, 3, 1, RX));
  CHECK_OK(map(0, 8, 1, 0));
  CHECK_FAILS(map(0, 8, 1, RW), LUNA_ERROR_OVERLAP, "0x8000..0x8fff is mapped already");
  check_now(3, 2);
  end();
}

static void next_errors(void) {
  begin();
  luna_region region;
  CHECK_FAILS(luna_space_next(vm, 0, 5, &region), LUNA_ERROR_NOT_FOUND,
              "nothing is mapped at or above gpa 0x5 in space 0");
  CHECK_FAILS(luna_space_next(vm, 3, 0, &region), LUNA_ERROR_NOT_FOUND, "there is no space 3");
  CHECK_OK(map(0, 4, 4, RW));
  CHECK_OK(luna_space_next(vm, 0, 0x7fff, &region));
  CHECK_EQ(region.gpa, 0x4000);
  CHECK_EQ(luna_space_next(vm, 0, 0x8000, &region), LUNA_ERROR_NOT_FOUND);
  CHECK_EQ(luna_space_next(vm, 0, UINT64_MAX, &region), LUNA_ERROR_NOT_FOUND);
  end();
}

/* ---- Splitting and merging
 * ---------------------------------------------------------------------- */

static void splitting(void) {
  begin();
  CHECK_OK(map(0, 10, 10, RW));
  CHECK_OK(unmap(13, 2));
  check_region(0, 10, 3, 0, RW);
  check_region(13, 15, 5, 5, RW);
  check_now(2, 2);
  CHECK_OK(unmap(10, 1));
  check_region(0, 11, 2, 1, RW);
  CHECK_OK(unmap(19, 1));
  check_region(15, 15, 4, 5, RW);
  check_now(2, 2);
  CHECK_OK(map(3, 13, 2, RX));
  CHECK_OK(unmap(12, 4)); /* the end of one, all of the next, the beginning of a third */
  check_region(0, 11, 1, 1, RW);
  check_region(12, 16, 3, 6, RW);
  check_now(2, 2);
  CHECK_OK(unmap(11, 1));
  CHECK_OK(unmap(16, 3));
  check_now(0, 0);
  end();
}

static void merging(void) {
  begin();
  CHECK_OK(map(0, 10, 2, RW));
  CHECK_OK(map(4, 14, 2, RW));
  check_now(2, 2);
  CHECK_OK(map(2, 12, 2, RW));
  check_now(1, 1);
  check_region(0, 10, 6, 0, RW);
  CHECK_OK(map(6, 16, 1, RX)); /* other rights */
  CHECK_OK(map(9, 9, 1, RW));  /* other memory */
  check_now(3, 3);
  CHECK_OK(unmap(12, 1));
  check_now(4, 4);
  CHECK_OK(map(2, 12, 1, RW));
  check_now(3, 3);
  check_region(10, 10, 6, 0, RW);
  end();
}

static void no_rights_need_no_slot(void) {
  begin();
  CHECK_OK(map(0, 10, 4, 0));
  CHECK_OK(map(4, 14, 4, 0));
  check_now(1, 0);
  check_region(0, 10, 8, 0, 0);
  CHECK_OK(unmap(12, 1));
  check_now(2, 0);
  CHECK_EQ(fake_calls(KVM_SET_USER_MEMORY_REGION), 0);
  end();
}

/* A neighbour that stays as it is keeps its slot; a change makes no more calls than it has to. */
static void fewest_calls(void) {
  begin();
  CHECK_OK(map(0, 10, 2, RW));
  CHECK_OK(map(20, 12, 2, RX));
  CHECK_EQ(fake_calls(KVM_SET_USER_MEMORY_REGION), 2);
  fake_forget();
  CHECK_OK(unmap(12, 2));
  CHECK_EQ(fake_calls(KVM_SET_USER_MEMORY_REGION), 1);
  fake_forget();
  CHECK_OK(unmap(10, 1)); /* KVM cannot shrink a slot */
  CHECK_EQ(fake_calls(KVM_SET_USER_MEMORY_REGION), 2);
  end();
}

static void slots_are_used_again(void) {
  begin_with_slots(5);
  for (uint64_t round = 0; round < 50; round++) {
    for (uint64_t i = 0; i < 5; i++) {
      CHECK_OK(map(i, i * 2, 1, RW));
    }
    check_now(5, 5);
    for (uint64_t i = 0; i < 5; i++) {
      CHECK_OK(unmap((i + round) % 5 * 2, 1));
    }
    check_now(0, 0);
  }
  end();
}

static void slot_limit(void) {
  begin_with_slots(3);
  CHECK_OK(map(0, 0, 4, RW));
  CHECK_OK(map(0, 10, 1, RW));
  CHECK_OK(map(0, 20, 1, RW));
  CHECK_FAILS(map(0, 30, 1, RW), LUNA_ERROR_LIMIT,
              "cannot give gpa 0x1e000..0x1efff in space 0 a memory slot: all 3 of this host's KVM "
              "are taken; map fewer, larger ranges");
  CHECK_EQ(unmap(1, 1), LUNA_ERROR_LIMIT); /* the split needs one more */
  check_now(3, 3);
  CHECK_OK(map(0, 30, 1, 0));
  CHECK_OK(map(4, 4, 1, RW)); /* merges */
  CHECK_OK(unmap(20, 1));
  CHECK_OK(unmap(1, 1));
  check_now(4, 3);
  end();
}

/* Where KVM does not say how many slots it has, there are 32. */
static void no_slot_capability(void) {
  begin_with_slots(0);
  for (uint64_t i = 0; i < 32; i++) {
    CHECK_OK(map(i, i * 2, 1, RW));
  }
  CHECK_FAILS(map(32, 64, 1, RW), LUNA_ERROR_LIMIT, "all 32 of this host");
  check_now(32, 32);
  end();
}

/* ---- Whole or nothing
 * --------------------------------------------------------------------------- */

typedef struct change {
  const char *name;
  bool maps;
  uint64_t offset;
  uint64_t gpa;
  uint64_t pages;
  uint32_t rights;
} change;

static int apply(const change *c) {
  return c->maps ? map(c->offset, c->gpa, c->pages, c->rights) : unmap(c->gpa, c->pages);
}

/* Regions at 10..13 and 20..23, which a map between can join to, and single ones at 30 to 33. */
static void lay_out(void) {
  CHECK_OK(map(0, 10, 4, RW));
  CHECK_OK(map(10, 20, 4, RW));
  for (uint64_t i = 0; i < 4; i++) {
    CHECK_OK(map(40 + i * 2, 30 + i, 1, i % 2 ? RX : RW));
  }
}

/* For each k: the k-th ioctl of the change fails, and nothing has changed. */
static void check_whole(const change *c, int number, int status) {
  static picture before;
  static picture after;
  for (uint64_t k = 1;; k++) {
    test_note("%s, call %" PRIu64 ", errno %d", c->name, k, number);
    begin();
    lay_out();
    take_picture(&before);
    fake_fail(k, number);
    int got = apply(c);
    bool failed = fake_failed();
    fake_fail(0, 0);
    take_picture(&after);
    check_slots(&after);
    if (!failed) {
      CHECK_EQ(got, LUNA_OK);
      CHECK(!same_picture(&before, &after));
      CHECK(k > 1);
      end();
      break;
    }
    CHECK_EQ(got, status);
    CHECK(same_picture(&before, &after));
    CHECK_OK(apply(c)); /* and it can be done afterwards */
    end();
  }
}

static void whole_or_nothing(void) {
  static const change changes[] = {
      {"map", true, 20, 50, 2, RW},          {"map that merges", true, 4, 14, 6, RW},
      {"unmap", false, 0, 10, 4, 0},         {"unmap that splits", false, 0, 11, 2, 0},
      {"unmap of many", false, 0, 30, 4, 0}, {"unmap of an end", false, 0, 13, 1, 0},
  };
  for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
    check_whole(&changes[i], ENOMEM, LUNA_ERROR_MEMORY);
    check_whole(&changes[i], ENOSPC, LUNA_ERROR_LIMIT);
    check_whole(&changes[i], EINVAL, LUNA_ERROR_SYSTEM);
  }
}

static void refusal_message(void) {
  begin();
  fake_fail(1, ENOMEM);
  CHECK_FAILS(map(0, 16, 2, RW), LUNA_ERROR_MEMORY,
              "cannot map gpa 0x10000..0x11fff in space 0: KVM refused the memory slot: Cannot "
              "allocate memory");
  CHECK_EQ(luna_error_number(), ENOMEM);
  CHECK_OK(map(0, 16, 2, RW));
  fake_fail(1, EINVAL);
  CHECK_FAILS(unmap(16, 2), LUNA_ERROR_SYSTEM,
              "cannot unmap gpa 0x10000..0x11fff in space 0: KVM refused the memory slot");
  end();
}

/* ---- Lifetimes
 * ---------------------------------------------------------------------------------- */

static void buffer_lives_while_mapped(void) {
  begin();
  uint64_t live = luna_live(LUNA_OBJECT_BUFFER);
  luna_buffer *made;
  CHECK_OK(luna_buffer_create(4 * PAGE, &made));
  uint8_t *data = luna_buffer_data(made);
  CHECK_OK(luna_vm_map_space(vm, 0, made, 0, 0x100000, 4 * PAGE, RW));
  luna_buffer_release(made);
  CHECK_EQ(luna_live(LUNA_OBJECT_BUFFER), live + 1);
  data[4 * PAGE - 1] = 1;
  CHECK_OK(luna_vm_unmap_space(vm, 0, 0x101000, PAGE)); /* two pieces hold it now */
  CHECK_OK(luna_vm_unmap_space(vm, 0, 0x100000, PAGE));
  CHECK_EQ(luna_live(LUNA_OBJECT_BUFFER), live + 1);
  CHECK_EQ(data[4 * PAGE - 1], 1);
  CHECK_OK(luna_vm_unmap_space(vm, 0, 0x102000, 2 * PAGE));
  CHECK_EQ(luna_live(LUNA_OBJECT_BUFFER), live);
  end();
}

static void buffer_goes_with_the_vm(void) {
  begin();
  uint64_t live = luna_live(LUNA_OBJECT_BUFFER);
  luna_buffer_release(buffer);
  CHECK_EQ(luna_live(LUNA_OBJECT_BUFFER), live - 1);
  CHECK_OK(luna_buffer_create(64 * PAGE, &buffer));
  for (uint64_t i = 0; i < 32; i++) {
    CHECK_OK(map(i, i * 2, 1, i % 3 ? RW : 0));
  }
  luna_buffer_release(buffer);
  CHECK_EQ(luna_live(LUNA_OBJECT_BUFFER), live);
  luna_vm_retain(vm);
  luna_vm_release(vm);
  CHECK_EQ(luna_live(LUNA_OBJECT_BUFFER), live);
  luna_vm_release(vm);
  CHECK_EQ(luna_live(LUNA_OBJECT_BUFFER), live - 1);
}

/* ---- Against a model
 * ---------------------------------------------------------------------------- */

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
  RUN(buffer_errors);
  RUN(buffer_memory);
  RUN(map_errors);
  RUN(map_range_errors);
  RUN(unmap_errors);
  RUN(overlap);
  RUN(next_errors);
  RUN(splitting);
  RUN(merging);
  RUN(no_rights_need_no_slot);
  RUN(fewest_calls);
  RUN(slots_are_used_again);
  RUN(slot_limit);
  RUN(no_slot_capability);
  RUN(whole_or_nothing);
  RUN(refusal_message);
  RUN(buffer_lives_while_mapped);
  RUN(buffer_goes_with_the_vm);
  RUN(random_operations);
  return test_end();
}
