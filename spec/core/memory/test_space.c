/* SPDX-License-Identifier: MIT
 * Buffers, regions and slots: errors with their messages, splitting and merging, whole-or-nothing
 * under failing ioctls. */
#include "fixture/space_fixture.h"

/* ---- Errors ---- */

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

/* ---- Splitting and merging ---- */

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

/* ---- Whole or nothing ---- */

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

/* ---- Lifetimes ---- */

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

/* ---- Large regions ---- */

static void check_pieces(uint64_t first, uint64_t size, uint64_t most) {
  static picture p;
  take_picture(&p);
  check_slots(&p);
  uint64_t gpa = first;
  for (size_t i = 0; i < p.region_count; i++) {
    CHECK_EQ(p.regions[i].gpa, gpa);
    CHECK_EQ(p.regions[i].offset, gpa - first);
    gpa += p.regions[i].size;
    CHECK(gpa % most == 0 || gpa == first + size);
  }
  CHECK_EQ(gpa, first + size);
  CHECK_EQ(p.region_count, (first + size - 1) / most - first / most + 1);
}

/* It leaves no room for buffers of terabytes. */
static void without_thread_sanitizer(void) {
#ifdef __SANITIZE_THREAD__
  test_skip("the thread sanitizer has most of the address space");
#endif
}

/* More pages than KVM takes in a slot, on a host with few slots and on one with many. */
static void more_than_a_slot_holds(void) {
  without_thread_sanitizer();
  static const struct {
    uint32_t slots;
    uint64_t most;
    uint64_t size;
  } hosts[] = {{509, UINT64_C(4) << 40, UINT64_C(1) << 44},
               {4096, UINT64_C(4) << 30, UINT64_C(1) << 40}};
  for (size_t i = 0; i < 2; i++) {
    const uint64_t first = hosts[i].most - 3 * PAGE;
    const uint64_t size = hosts[i].size;
    luna_buffer *large;
    fake_config config = fake_defaults();
    config.address_bits = 46;
    config.slots_max = hosts[i].slots;
    fake_install(&config);
    begin();
    CHECK_OK(luna_buffer_create(size, &large));
    CHECK_OK(luna_vm_map_space(vm, 0, large, 0, first, size, RWX));
    check_pieces(first, size, hosts[i].most);
    /* A change takes only the slot that it is in, and leaves no trace when it is undone. */
    fake_forget();
    CHECK_OK(luna_vm_protect_space(vm, 0, first + size / 2, PAGE, RX));
    CHECK_EQ(fake_calls(KVM_SET_USER_MEMORY_REGION), 4);
    CHECK_OK(luna_vm_protect_space(vm, 0, first, size, RX));
    CHECK_OK(luna_vm_protect_space(vm, 0, first, size, RWX));
    check_pieces(first, size, hosts[i].most);
    CHECK_OK(luna_vm_unmap_space(vm, 0, first, size));
    check_now(0, 0);
    luna_buffer_release(large);
    end();
  }
}

/* A window is one slot, whatever KVM takes. */
static void window_larger_than_a_slot(void) {
  without_thread_sanitizer();
  const luna_buffer_options options = {.kind = LUNA_BUFFER_MEMFD, .size = UINT64_C(1) << 43};
  luna_buffer *large;
  fake_config config = fake_defaults();
  config.address_bits = 46;
  fake_install(&config);
  begin();
  CHECK_OK(luna_buffer_open(&options, &large));
  CHECK_FAILS(luna_vm_map_space(vm, 0, large, 0, 0, UINT64_C(1) << 43, RW | WINDOW),
              LUNA_ERROR_RANGE, "it is one memory slot, and KVM's have less than 2^31 pages");
  CHECK_OK(luna_vm_map_space(vm, 0, large, 0, 3 * PAGE, UINT64_C(8) << 30, RW | WINDOW));
  check_now(1, 1);
  CHECK_OK(luna_vm_protect_space(vm, 0, 4 * PAGE, PAGE, LUNA_READ));
  CHECK_OK(luna_vm_protect_space(vm, 0, 4 * PAGE, PAGE, RW));
  check_now(1, 1);
  luna_buffer_release(large);
  end();
}

int main(void) {
  RUN(more_than_a_slot_holds);
  RUN(window_larger_than_a_slot);
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
  return test_end();
}
