/* SPDX-License-Identifier: MIT
 * Written pages: by the guest, from the fake's logs, and by the host side; over changes of the
 * map and failing ioctls. */
#include "fixture/dirty_fixture.h"

static void begin_manual(bool manual) {
  fake_config config = fake_defaults();
  config.manual_protect = manual;
  fake_install(&config);
  begin();
}

/* All runs of the whole space, collected now. */
static const char *runs(void) {
  static char text[1024];
  CHECK_OK(collect(0, ALL));
  text[0] = '\0';
  for (const char *run = take(0, ALL); *run; run = take(0, ALL)) {
    CHECK(strlen(text) + strlen(run) + 2 < sizeof text);
    strcat(text, text[0] ? " " : "");
    strcat(text, run);
  }
  return text;
}

static void check_runs(const char *want) {
  const char *got = runs();
  if (strcmp(got, want) != 0) {
    test_fail(__FILE__, __LINE__, "written are '%s', not '%s'", got, want);
  }
}

static void guest_writes(uint64_t page) {
  CHECK(fake_write(page * PAGE + 8));
}

static void host_writes(uint64_t page) {
  luna_buffer_mark(buffer, page * PAGE + 8, 1);
}

/* ---- The guest's writes ---- */

static void guest(void) {
  for (int manual = 0; manual < 2; manual++) {
    test_note("manual %d", manual);
    begin_manual(manual);
    CHECK_OK(map(0, 10, 20, RW));
    CHECK_OK(map(30, 40, 4, RX));
    guest_writes(11); /* before anybody follows */
    follow();
    check_runs("");
    guest_writes(10);
    guest_writes(13);
    guest_writes(14);
    guest_writes(29);
    check_runs("10+1 13+2 29+1");
    check_runs("");
    guest_writes(13);
    check_runs("13+1");
    CHECK(!fake_write(40 * PAGE)); /* cannot be written */
    check_now(2, 2);
    end();
  }
}

/* The log of a slot is cleared where it says something, and nobody asks for one of a slot that
 * cannot be written. */
static void calls(void) {
  begin_manual(true);
  CHECK_OK(map(0, 10, 20, RW));
  CHECK_OK(map(30, 40, 4, RX));
  CHECK_OK(map(30, 50, 4, 0));
  fake_forget();
  follow();
  CHECK_EQ(fake_calls(KVM_ENABLE_CAP), 1);
  CHECK_EQ(fake_calls(KVM_SET_USER_MEMORY_REGION), 1);
  CHECK_EQ(fake_calls(0), 2);
  fake_forget();
  check_runs("");
  CHECK_EQ(fake_calls(KVM_GET_DIRTY_LOG), 1);
  CHECK_EQ(fake_calls(0), 1);
  guest_writes(12);
  check_runs("12+1");
  CHECK_EQ(fake_calls(KVM_CLEAR_DIRTY_LOG), 1);
  CHECK_EQ(fake_calls(0), 3);
  end();
}

static void ranges(void) {
  begin();
  CHECK_OK(map(0, 10, 10, RW));
  CHECK_OK(map(20, 20, 10, RW));
  follow();
  for (uint64_t page = 12; page < 26; page++) {
    guest_writes(page);
  }
  fake_forget();
  CHECK_OK(collect(10, 5)); /* one region */
  CHECK_EQ(fake_calls(KVM_GET_DIRTY_LOG), 1);
  CHECK_TEXT(take(10, 3), "12+1");
  CHECK_TEXT(take(14, 2), "14+2");
  CHECK_EQ(*take(14, 2), '\0');
  CHECK_TEXT(take(0, ALL), "13+1");
  CHECK_TEXT(take(0, ALL), "16+4");
  CHECK_EQ(*take(0, ALL), '\0');
  check_runs("20+6");
  end();
}

static void large_region(void) {
  luna_buffer *large;
  begin();
  CHECK_OK(luna_buffer_create(1000 * PAGE, &large));
  CHECK_OK(luna_vm_map_space(vm, 0, large, 0, PAGE, 1000 * PAGE, RW));
  luna_buffer_release(large);
  follow();
  for (uint64_t page = 60; page < 200; page++) {
    guest_writes(page);
  }
  guest_writes(1);
  guest_writes(1000);
  check_runs("1+1 60+140 1000+1");
  end();
}

static void dirty_errors(void) {
  begin();
  uint64_t first;
  uint64_t length;
  CHECK_FAILS(luna_vm_dirty_space(vm, 0, 1, PAGE), LUNA_ERROR_ARGUMENT, "cannot follow gpa 0x1");
  CHECK_FAILS(collect(0, 0), LUNA_ERROR_ARGUMENT, "cannot follow 0x0 bytes");
  CHECK_FAILS(luna_vm_dirty_space(vm, 3, 0, PAGE), LUNA_ERROR_NOT_FOUND, "there is no space 3");
  CHECK_EQ(luna_vm_dirty_take(vm, 3, 0, PAGE, 0, &first, &length), LUNA_ERROR_NOT_FOUND);
  CHECK_EQ(luna_vm_dirty_take(vm, 0, 1, PAGE, 0, &first, &length), LUNA_ERROR_ARGUMENT);
  CHECK_EQ(luna_vm_dirty_take(vm, 0, 0, PAGE, 0, &first, &length), 0); /* not followed */
  end();
}

/* ---- The host side's writes ---- */

static void host(void) {
  begin();
  CHECK_OK(map(8, 10, 4, RW));
  CHECK_OK(map(10, 20, 4, RX)); /* memory of the first, too */
  CHECK_EQ(*luna_buffer_memory(buffer)->logged, 0);
  host_writes(9);
  follow();
  CHECK_EQ(*luna_buffer_memory(buffer)->logged, 1);
  check_runs("");
  host_writes(9);
  host_writes(11);
  host_writes(20); /* mapped nowhere */
  check_runs("11+1 13+1 21+1");
  check_runs("");
  luna_buffer_mark(buffer, 9 * PAGE - 1, 2);
  check_runs("10+2");
  luna_buffer_mark(buffer, 9 * PAGE, 0);
  luna_buffer_mark(buffer, 63 * PAGE, 100 * PAGE); /* past the end */
  check_runs("");
  const uint8_t bytes[2] = {1, 2};
  CHECK_OK(luna_vm_copy_space(vm, 0, 12 * PAGE - 1, (void *)(uintptr_t)bytes, 2, LUNA_WRITE));
  check_runs("11+2 20+1");
  end();
}

static void host_through_a_view(void) {
  luna_buffer *view;
  begin();
  CHECK_OK(luna_buffer_view(buffer, 3 * PAGE - 4, 2 * PAGE, &view));
  CHECK_OK(luna_vm_map_space(vm, 0, buffer, 0, 10 * PAGE, 8 * PAGE, RW));
  follow();
  CHECK_EQ(*luna_buffer_memory(view)->logged, 1);
  luna_buffer_mark(view, 0, 4);
  check_runs("12+1");
  luna_buffer_mark(view, 4, 1);
  check_runs("13+1");
  luna_buffer_mark(view, 0, 2 * PAGE);
  check_runs("12+3");
  luna_buffer_release(view);
  end();
}

/* Each space has its own account of the same memory. */
static void two_spaces(void) {
  uint32_t space;
  uint64_t first;
  uint64_t length;
  begin();
  CHECK_OK(luna_vm_space_create(vm, &space));
  CHECK_OK(map(0, 10, 4, RX));
  CHECK_OK(luna_vm_map_space(vm, space, buffer, 0, 0, 4 * PAGE, RX));
  follow();
  CHECK_OK(luna_vm_dirty_space(vm, space, 0, ALL * PAGE));
  host_writes(2);
  check_runs("12+1");
  host_writes(1);
  CHECK_OK(luna_vm_dirty_space(vm, space, 0, ALL * PAGE));
  CHECK_EQ(luna_vm_dirty_take(vm, space, 0, ALL * PAGE, 0, &first, &length), 1);
  CHECK_EQ(first, PAGE);
  CHECK_EQ(length, 2 * PAGE);
  check_runs("11+1");
  end();
}

/* What a window showed before counts, what it shows now was not written by that. */
static void window(void) {
  const luna_buffer_options options = {.kind = LUNA_BUFFER_MEMFD, .size = 16 * PAGE};
  luna_buffer *one;
  luna_buffer *other;
  begin();
  CHECK_OK(luna_buffer_open(&options, &one));
  CHECK_OK(luna_buffer_open(&options, &other));
  CHECK_OK(luna_vm_map_space(vm, 0, one, 0, 10 * PAGE, 4 * PAGE, RW | LUNA_MAP_WINDOW));
  follow();
  luna_buffer_mark(one, PAGE, 1);
  luna_buffer_mark(other, 2 * PAGE, 1);
  guest_writes(13);
  CHECK_OK(luna_vm_remap_space(vm, 0, 10 * PAGE, other, 0));
  check_runs("11+1 13+1");
  luna_buffer_mark(one, PAGE, 1);
  luna_buffer_mark(other, 2 * PAGE, 1);
  check_runs("12+1");
  luna_buffer_release(one);
  luna_buffer_release(other);
  end();
}

/* ---- Changes of the map ---- */

/* Pages 11, 15 by the guest and 13, 17 by the host side, not collected yet. */
static void begin_written(void) {
  begin_manual(true);
  CHECK_OK(map(0, 10, 10, RW));
  CHECK_OK(map(40, 40, 4, RW));
  follow();
  guest_writes(11);
  guest_writes(15);
  host_writes(3);
  host_writes(7);
}

static void protect_keeps(void) {
  begin_written();
  CHECK_OK(protect(14, 3, RX));
  check_now(4, 4);
  guest_writes(18);
  CHECK(!fake_write(14 * PAGE));
  check_runs("11+1 13+1 15+1 17+2");
  host_writes(4);
  guest_writes(10);
  CHECK_OK(protect(14, 3, RW)); /* joins */
  check_now(2, 2);
  guest_writes(19);
  check_runs("10+1 14+1 19+1");
  end();
}

static void protect_of_all_keeps(void) {
  static const uint32_t rights[] = {RWX, RX, 0, RW | LUNA_MAP_STRICT, LUNA_READ};
  for (size_t i = 0; i < sizeof rights / sizeof *rights; i++) {
    test_note("rights %u", rights[i]);
    begin_written();
    CHECK_OK(protect(10, 10, rights[i]));
    host_writes(9);
    check_runs("11+1 13+1 15+1 17+1 19+1");
    CHECK_OK(protect(10, 10, RW));
    guest_writes(12);
    check_runs("12+1");
    end();
  }
}

static void unmap_keeps_the_rest(void) {
  begin_written();
  CHECK_OK(unmap(13, 3));
  check_runs("11+1 17+1");
  CHECK_OK(map(3, 13, 3, RW));
  check_now(2, 2);
  check_runs(""); /* new there, and not written since */
  guest_writes(13);
  guest_writes(10);
  check_runs("10+1 13+1");
  end();
}

/* Taken out before the change, or collected but not taken. */
static void collected_bits_stay(void) {
  begin_written();
  CHECK_OK(collect(0, ALL));
  CHECK_TEXT(take(0, ALL), "11+1");
  CHECK_OK(unmap(18, 1));
  check_runs("13+1 15+1 17+1");
  end();
}

static void new_regions_are_followed(void) {
  begin_written();
  host_writes(50); /* before the map */
  CHECK_OK(map(50, 50, 4, RW));
  CHECK_OK(map(54, 60, 4, LUNA_READ | LUNA_MAP_STRICT));
  check_now(4, 3);
  guest_writes(51);
  host_writes(56);
  check_runs("11+1 13+1 15+1 17+1 51+1 62+1");
  end();
}

static int change_in_parts(void) {
  const luna_change changes[] = {
      {.kind = LUNA_CHANGE_PROTECT, .gpa = 12 * PAGE, .size = 2 * PAGE, .rights = RX},
      {.kind = LUNA_CHANGE_UNMAP, .gpa = 19 * PAGE, .size = PAGE},
      {.kind = LUNA_CHANGE_PROTECT, .gpa = 40 * PAGE, .size = PAGE, .rights = 0}};
  return luna_vm_update_space(vm, 0, changes, 3);
}

/* Whichever call of a change fails, no written page is forgotten. */
static void failed_changes_keep(void) {
  bool failed = true;
  for (uint64_t k = 1; failed; k++) {
    test_note("call %" PRIu64, k);
    begin_written();
    guest_writes(42);
    fake_fail(k, ENOMEM);
    int got = change_in_parts();
    failed = fake_failed();
    fake_fail(0, 0);
    CHECK_EQ(got, failed ? LUNA_ERROR_MEMORY : LUNA_OK);
    guest_writes(16);
    check_runs("11+1 13+1 15+3 42+1");
    CHECK(failed || k > 8);
    end();
  }
}

/* ---- Failures ---- */

/* Nobody follows if one of the slots cannot be logged. */
static void follow_fails(void) {
  bool failed = true;
  for (uint64_t k = 1; failed; k++) {
    test_note("call %" PRIu64, k);
    begin_manual(true);
    for (uint64_t i = 0; i < 4; i++) {
      CHECK_OK(map(i * 4, i * 8, 4, i == 2 ? RX : RW));
    }
    fake_fail(k, ENOMEM);
    int got = collect(0, ALL);
    failed = fake_failed();
    fake_fail(0, 0);
    followed = got == LUNA_OK;
    CHECK(failed || followed);
    if (!followed) {
      CHECK_EQ(got, LUNA_ERROR_MEMORY);
      CHECK_TEXT(luna_error_message(), "cannot log the writes to space 0");
    }
    check_now(4, 4); /* with the flags of their logs */
    if (!followed) {
      guest_writes(1);
      follow();
      check_runs("");
    }
    guest_writes(2);
    guest_writes(25);
    check_runs("2+1 25+1");
    CHECK(failed || k == 5);
    end();
  }
}

/* What a failed collection has read is not lost. */
static void collect_fails(void) {
  for (int manual = 0; manual < 2; manual++) {
    bool failed = true;
    for (uint64_t k = 1; failed; k++) {
      test_note("manual %d, call %" PRIu64, manual, k);
      begin_manual(manual);
      CHECK_OK(map(0, 10, 10, RW));
      CHECK_OK(map(40, 40, 4, RW));
      follow();
      guest_writes(11);
      guest_writes(41);
      host_writes(7);
      fake_fail(k, ENOMEM);
      int got = collect(0, ALL);
      failed = fake_failed();
      fake_fail(0, 0);
      CHECK_EQ(got, failed ? LUNA_ERROR_MEMORY : LUNA_OK);
      if (failed) {
        CHECK_TEXT(luna_error_message(), "cannot read the written pages of space 0, slot");
      }
      check_runs("11+1 17+1 41+1");
      CHECK(failed || k == (manual ? 5 : 3));
      end();
    }
  }
}

int main(void) {
  RUN(guest);
  RUN(calls);
  RUN(ranges);
  RUN(large_region);
  RUN(dirty_errors);
  RUN(host);
  RUN(host_through_a_view);
  RUN(two_spaces);
  RUN(window);
  RUN(protect_keeps);
  RUN(protect_of_all_keeps);
  RUN(unmap_keeps_the_rest);
  RUN(collected_bits_stay);
  RUN(new_regions_are_followed);
  RUN(failed_changes_keep);
  RUN(follow_fails);
  RUN(collect_fails);
  return test_end();
}
