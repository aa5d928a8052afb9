/* SPDX-License-Identifier: MIT
 * Protect and update: whole or nothing under failing ioctls, with the fewest slot operations, and
 * what the flags of a map do to it. */
#include "fixture/space_fixture.h"

#include "memory/buffer.h"

enum {
  FILLER = 64 /* regions */
};

static uint64_t slot_calls(void) {
  return fake_calls(KVM_SET_USER_MEMORY_REGION);
}

/* ---- Scenarios ---- */

/* Addresses, sizes and offsets in pages. The buffer is `shared` for a window, or else `buffer`. */
#define MAP(from, at, pages, access)                                                               \
  { .kind = LUNA_CHANGE_MAP, .offset = (from), .gpa = (at), .size = (pages), .rights = (access) }
#define UNMAP(at, pages)                                                                           \
  { .kind = LUNA_CHANGE_UNMAP, .gpa = (at), .size = (pages) }
#define PROTECT(at, pages, access)                                                                 \
  { .kind = LUNA_CHANGE_PROTECT, .gpa = (at), .size = (pages), .rights = (access) }

typedef struct scenario {
  const char *name;
  uint64_t operations; /* on slots; as few as possible */
  size_t count;
  luna_change changes[4];
} scenario;

static const scenario scenarios[] = {
    {"protect the middle", 4, 1, {PROTECT(13, 2, RX)}},
    {"protect a whole region", 2, 1, {PROTECT(10, 10, RX)}},
    {"protect parts of two", 4, 1, {PROTECT(18, 4, 0)}},
    {"rw- to rwx", 0, 1, {PROTECT(10, 10, RWX)}},
    {"r-x to r--", 0, 1, {PROTECT(20, 4, LUNA_READ)}},
    {"rwx to strict rwx", 0, 1, {PROTECT(10, 10, RWX | STRICT)}},
    {"rw- to strict rw-", 1, 1, {PROTECT(10, 10, RW | STRICT)}},
    {"strict r-- to rwx", 1, 1, {PROTECT(50, 2, RWX)}},
    {"strict r-- to strict rw-", 0, 1, {PROTECT(50, 2, RW | STRICT)}},
    {"unmap with split", 3, 1, {UNMAP(13, 2)}},
    {"unmap of many", 4, 1, {UNMAP(30, 4)}},
    {"protect and back", 0, 2, {PROTECT(13, 2, RX), PROTECT(13, 2, RW)}},
    {"map and unmap", 0, 2, {MAP(50, 70, 2, RW), UNMAP(70, 2)}},
    {"window and unmap", 0, 2, {MAP(0, 70, 2, RW | WINDOW), UNMAP(70, 2)}},
    {"unmap and map", 0, 2, {UNMAP(10, 10), MAP(0, 10, 10, RW)}},
    {"unmap in parts and map", 0, 3, {UNMAP(10, 4), UNMAP(14, 6), MAP(0, 10, 10, RW)}},
    {"other window", 2, 2, {UNMAP(40, 4), MAP(0, 40, 4, RW | WINDOW)}},
    {"protect in a window", 4, 1, {PROTECT(41, 1, RX)}},
    {"swap", 4, 4, {UNMAP(30, 1), UNMAP(32, 1), MAP(44, 30, 1, RW), MAP(40, 32, 1, RW)}},
    {"grow", 3, 2, {UNMAP(20, 4), MAP(10, 20, 4, RW)}},
    {"separate", 2, 2, {UNMAP(20, 4), MAP(10, 20, 4, RW | LUNA_MAP_SEPARATE)}},
    {"several", 6, 3, {UNMAP(13, 2), MAP(50, 13, 1, RX), PROTECT(20, 4, RW)}},
    {"windows and others",
     5,
     4,
     {MAP(4, 70, 2, RW | WINDOW), PROTECT(30, 1, 0), UNMAP(40, 1), MAP(50, 80, 1, RX)}},
};

enum {
  SCENARIOS = sizeof scenarios / sizeof *scenarios
};

/* Beside the regions of the scenarios, many that no change touches. */
static void lay_out(void) {
  begin_shared();
  CHECK_OK(map(0, 10, 10, RW));
  CHECK_OK(map(30, 20, 4, RX));
  for (uint64_t i = 0; i < 4; i++) {
    CHECK_OK(map(40 + i * 2, 30 + i, 1, i % 2 ? RX : RW));
  }
  CHECK_OK(luna_vm_map_space(vm, 0, shared, 0, 40 * PAGE, 4 * PAGE, RW | WINDOW));
  CHECK_OK(map(20, 50, 2, LUNA_READ | STRICT));
  for (uint64_t i = 0; i < FILLER; i++) {
    CHECK_OK(map(0, 100 + 2 * i, 1, i % 2 ? RX : RW));
  }
  fake_forget();
}

static void follow(void) {
  CHECK_OK(luna_vm_dirty_space(vm, 0, 0, 0x1000 * PAGE));
  followed = true;
  fake_forget();
}

static int apply(const scenario *s) {
  luna_change changes[4];
  for (size_t i = 0; i < s->count; i++) {
    changes[i] = s->changes[i];
    changes[i].gpa *= PAGE;
    changes[i].size *= PAGE;
    changes[i].offset *= PAGE;
    if (changes[i].kind == LUNA_CHANGE_MAP) {
      changes[i].buffer = changes[i].rights & WINDOW ? shared : buffer;
    }
  }
  if (s->count == 1 && changes[0].kind == LUNA_CHANGE_PROTECT) {
    return luna_vm_protect_space(vm, 0, changes[0].gpa, changes[0].size, changes[0].rights);
  }
  return luna_vm_update_space(vm, 0, changes, s->count);
}

/* The same but for the numbers of the slots, and for the buffers, which each lay_out makes anew. */
static bool same_shape(const picture *one, const picture *other) {
  bool same = one->region_count == other->region_count && one->slot_count == other->slot_count;
  for (size_t i = 0; same && i < one->region_count; i++) {
    const luna_region *a = &one->regions[i];
    const luna_region *b = &other->regions[i];
    same = a->gpa == b->gpa && a->size == b->size && a->offset == b->offset &&
           a->rights == b->rights && a->enforced == b->enforced && a->flags == b->flags &&
           (a->slot < 0) == (b->slot < 0);
  }
  return same;
}

static void check_scenario(const scenario *s) {
  static picture p;
  test_note("%s", s->name);
  lay_out();
  CHECK_OK(apply(s));
  CHECK_EQ(slot_calls(), s->operations);
  CHECK_EQ(fake_calls(0), s->operations);
  take_picture(&p);
  check_slots(&p);
  end_shared();
}

static void fewest_operations(void) {
  for (size_t i = 0; i < SCENARIOS; i++) {
    check_scenario(&scenarios[i]);
  }
}

/* ---- Whole or nothing ---- */

typedef struct counts {
  picture p;
  unsigned buffer_references;
  unsigned shared_references;
  unsigned maps;
  uint64_t live[LUNA_OBJECT_COUNT];
} counts;

static void count(counts *c) {
  take_picture(&c->p);
  check_slots(&c->p);
  c->buffer_references = atomic_load(&buffer->reference.count);
  c->shared_references = atomic_load(&shared->reference.count);
  c->maps = memfd_maps();
  for (int kind = 0; kind < LUNA_OBJECT_COUNT; kind++) {
    c->live[kind] = luna_live(kind);
  }
}

static void check_same(const counts *one, const counts *other) {
  CHECK(same_picture(&one->p, &other->p));
  CHECK_EQ(one->buffer_references, other->buffer_references);
  CHECK_EQ(one->shared_references, other->shared_references);
  CHECK_EQ(one->maps, other->maps);
  CHECK(memcmp(one->live, other->live, sizeof one->live) == 0);
}

/* What succeeds after a failure leads to what succeeds at once. */
static void check_success(const scenario *s, const counts *want) {
  static counts after;
  CHECK_OK(apply(s));
  count(&after);
  CHECK(same_shape(&after.p, &want->p));
  CHECK_EQ(after.buffer_references, want->buffer_references);
  CHECK_EQ(after.shared_references, want->shared_references);
  CHECK_EQ(after.maps, want->maps);
}

static void begin_scenario(bool follows) {
  lay_out();
  if (follows) {
    follow();
  }
}

/* The kth ioctl of the change fails. Whether it has as many. */
static bool check_failure(const scenario *s, bool follows, uint64_t k, int number,
                          const counts *want) {
  static counts before;
  static counts after;
  begin_scenario(follows);
  count(&before);
  fake_fail(k, number);
  int got = apply(s);
  bool failed = fake_failed();
  fake_fail(0, 0);
  if (failed) {
    CHECK_EQ(got, number == ENOMEM ? LUNA_ERROR_MEMORY : LUNA_ERROR_LIMIT);
    count(&after);
    check_same(&before, &after);
    check_success(s, want);
  } else {
    CHECK_EQ(got, LUNA_OK);
  }
  end_shared();
  return failed;
}

static void check_whole(const scenario *s, bool follows) {
  static counts want;
  begin_scenario(follows);
  CHECK_OK(apply(s));
  count(&want);
  end_shared();
  for (int i = 0; i < 2; i++) {
    int number = i ? ENOSPC : ENOMEM;
    uint64_t k = 0;
    do {
      k++;
      test_note("%s, followed %d, call %" PRIu64 ", errno %d", s->name, follows, k, number);
    } while (check_failure(s, follows, k, number, &want));
    CHECK(k > s->operations);
  }
}

static void whole_or_nothing(void) {
  for (size_t i = 0; i < SCENARIOS; i++) {
    check_whole(&scenarios[i], false);
    check_whole(&scenarios[i], true);
  }
}

/* A change that a later one of the same update refuses. */
static void errors_change_nothing(void) {
  static const struct {
    scenario s;
    int status;
    const char *part;
  } cases[] = {
      {{"kind", 0, 2, {UNMAP(10, 1), {.kind = 3}}},
       LUNA_ERROR_ARGUMENT,
       "there is no change of kind 3"},
      {{"overlap", 0, 2, {MAP(0, 70, 2, RW | WINDOW), MAP(0, 71, 1, RW)}},
       LUNA_ERROR_OVERLAP,
       "cannot map gpa 0x47000..0x47fff in space 0: 0x46000..0x47fff is mapped already"},
      {{"window", 0, 1, {MAP(0, 19, 2, RW | WINDOW)}},
       LUNA_ERROR_OVERLAP,
       "0xa000..0x13fff is mapped already"},
      {{"own hole", 0, 2, {UNMAP(12, 2), PROTECT(10, 10, RX)}},
       LUNA_ERROR_NOT_FOUND,
       "cannot protect gpa 0xa000..0x13fff of space 0: nothing is mapped at 0xc000"},
      {{"twice", 0, 2, {UNMAP(12, 2), UNMAP(13, 1)}},
       LUNA_ERROR_NOT_FOUND,
       "cannot unmap gpa 0xd000..0xdfff of space 0: nothing is mapped at 0xd000"},
      {{"hole", 0, 1, {PROTECT(33, 2, RX)}}, LUNA_ERROR_NOT_FOUND, "nothing is mapped at 0x22000"},
      {{"flag", 0, 2, {PROTECT(10, 1, RX), PROTECT(11, 1, RW | LUNA_MAP_SEPARATE)}},
       LUNA_ERROR_ARGUMENT,
       "cannot give rights 0x13: only 0xf are known here"},
      {{"execute", 0, 2, {PROTECT(10, 1, RX), PROTECT(11, 1, LUNA_EXECUTE)}},
       LUNA_ERROR_UNSUPPORTED,
       "cannot give execute without read"},
      {{"size", 0, 1, {PROTECT(10, 0, RX)}},
       LUNA_ERROR_ARGUMENT,
       "cannot protect 0x0 bytes at gpa 0xa000"},
  };
  static counts before;
  static counts after;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    test_note("%s", cases[i].s.name);
    lay_out();
    count(&before);
    CHECK_FAILS(apply(&cases[i].s), cases[i].status, cases[i].part);
    CHECK_EQ(fake_calls(0), 0);
    count(&after);
    check_same(&before, &after);
    end_shared();
  }
}

static void empty_update(void) {
  begin();
  CHECK_OK(luna_vm_update_space(vm, 0, NULL, 0));
  CHECK_FAILS(luna_vm_update_space(vm, 4, NULL, 0), LUNA_ERROR_NOT_FOUND, "there is no space 4");
  CHECK_EQ(fake_calls(KVM_SET_USER_MEMORY_REGION), 0);
  end();
}

/* An update may need more slots in between than there are: only its result counts. */
static void limit_counts_the_result(void) {
  begin_with_slots(2);
  CHECK_OK(map(0, 10, 1, RW));
  CHECK_OK(map(2, 20, 1, RW));
  const luna_change swap[] = {{.kind = LUNA_CHANGE_MAP,
                               .rights = RW,
                               .gpa = 30 * PAGE,
                               .size = PAGE,
                               .buffer = buffer,
                               .offset = 4 * PAGE},
                              {.kind = LUNA_CHANGE_UNMAP, .gpa = 20 * PAGE, .size = PAGE}};
  CHECK_FAILS(luna_vm_update_space(vm, 0, swap, 1), LUNA_ERROR_LIMIT, "all 2 of this host's KVM");
  check_now(2, 2);
  CHECK_OK(luna_vm_update_space(vm, 0, swap, 2));
  check_now(2, 2);
  CHECK_OK(protect(30, 1, RX)); /* the old slot goes first */
  check_now(2, 2);
  end();
}

/* ---- Protect ---- */

static void protect_and_back(void) {
  static picture before;
  static picture after;
  begin();
  CHECK_OK(map(5, 10, 3, RW));
  take_picture(&before);
  fake_forget();
  CHECK_OK(protect(11, 1, RX));
  CHECK_EQ(slot_calls(), 4);
  check_now(3, 3);
  check_region(10, 10, 1, 5, RW);
  check_region(11, 11, 1, 6, RX);
  check_region(12, 12, 1, 7, RW);
  fake_forget();
  CHECK_OK(protect(11, 1, RW));
  CHECK_EQ(slot_calls(), 4);
  check_now(1, 1);
  take_picture(&after);
  CHECK(same_shape(&before, &after));
  end();
}

/* What does not change keeps its slot, by number. */
static void neighbours_keep_their_slots(void) {
  static picture before;
  static picture after;
  lay_out();
  take_picture(&before);
  CHECK_OK(protect(13, 2, RX));
  take_picture(&after);
  for (size_t i = 1; i < before.region_count; i++) {
    const luna_region *same = &after.regions[i + 2];
    CHECK(memcmp(&before.regions[i], same, sizeof *same) == 0);
  }
  end_shared();
}

static void references_follow_the_regions(void) {
  begin();
  CHECK_OK(map(0, 10, 10, RW));
  CHECK_EQ(atomic_load(&buffer->reference.count), 2);
  CHECK_OK(protect(13, 2, RX));
  CHECK_EQ(atomic_load(&buffer->reference.count), 4);
  CHECK_OK(protect(12, 4, RX));
  CHECK_EQ(atomic_load(&buffer->reference.count), 4);
  CHECK_OK(protect(10, 10, RW));
  CHECK_EQ(atomic_load(&buffer->reference.count), 2);
  CHECK_OK(unmap(10, 10));
  CHECK_EQ(atomic_load(&buffer->reference.count), 1);
  end();
}

/* ---- Flags of a map ---- */

static void separate(void) {
  const uint32_t rights = RW | LUNA_MAP_SEPARATE;
  begin();
  for (uint64_t i = 0; i < 8; i++) {
    fake_forget();
    CHECK_OK(map(i, 10 + i, 1, rights));
    CHECK_EQ(slot_calls(), 1);
  }
  check_now(8, 8);
  CHECK_OK(map(8, 18, 1, RW)); /* not even with one that would join */
  CHECK_OK(map(9, 19, 1, RW));
  check_now(9, 9);
  CHECK_OK(protect(10, 8, RX));
  check_now(9, 9);
  fake_forget();
  CHECK_OK(unmap(12, 1));
  CHECK_EQ(slot_calls(), 1);
  end();
}

static void strict_rights(void) {
  static const struct {
    uint32_t rights;
    size_t slots;
  } cases[] = {{LUNA_READ, 0}, {LUNA_WRITE, 0}, {RW, 0}, {RX, 1}, {RWX, 1}, {0, 0}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    luna_region region;
    test_note("rights %u", cases[i].rights);
    begin();
    fake_forget();
    CHECK_OK(map(0, 10, 4, cases[i].rights | STRICT));
    check_now(1, cases[i].slots);
    CHECK_EQ(slot_calls(), cases[i].slots);
    CHECK_OK(luna_space_next(vm, 0, 0, &region));
    CHECK_EQ(region.enforced, cases[i].rights);
    CHECK_EQ(region.flags, STRICT);
    CHECK_OK(protect(11, 1, RW | STRICT));
    CHECK_OK(protect(10, 4, cases[i].rights | STRICT));
    check_now(1, cases[i].slots);
    CHECK_OK(protect(10, 4, cases[i].rights)); /* the flag goes */
    check_now(1, cases[i].rights != 0);
    end();
  }
}

static void strict_does_not_join(void) {
  begin();
  CHECK_OK(map(0, 10, 1, RWX));
  CHECK_OK(map(1, 11, 1, RWX | STRICT));
  check_now(2, 2);
  CHECK_OK(protect(11, 1, RWX));
  check_now(1, 1);
  end();
}

int main(void) {
  RUN(fewest_operations);
  RUN(whole_or_nothing);
  RUN(errors_change_nothing);
  RUN(empty_update);
  RUN(limit_counts_the_result);
  RUN(protect_and_back);
  RUN(neighbours_keep_their_slots);
  RUN(references_follow_the_regions);
  RUN(separate);
  RUN(strict_rights);
  RUN(strict_does_not_join);
  return test_end();
}
