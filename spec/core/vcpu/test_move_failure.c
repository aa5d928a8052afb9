/* SPDX-License-Identifier: MIT
 * Moves of which any ioctl fails: the vCPU stays as it is where it is, and the move can be made
 * again. */
#include "fixture/move_fixture.h"

#include <sys/wait.h>
#include <unistd.h>

/* The vCPU is in the space with its state and what the script wrote, and runs there. */
static void check_intact(uint32_t space, uint64_t base) {
  check_in(space);
  CHECK_EQ(get(LUNA_RBX), 0x77);
  CHECK_EQ(get(LUNA_CR2), 0x88);
  CHECK_EQ(get(LUNA_R15), base + PART_REGS);
  run_in(space);
  check_parts(space, ALL_PARTS, base);
  CHECK_EQ(get(LUNA_RBX), 0x77);
  CHECK_EQ(get(LUNA_CR2), 0x88);
}

/* The kth call of a move from `from` fails. Whether it has as many. */
static bool check_failed_move(uint32_t from, uint64_t k, int number) {
  uint32_t to = 1 - from;
  run_changing(ALL_PARTS, 0x100);
  set(LUNA_RBX, 0x77);
  set(LUNA_CR2, 0x88);
  fake_fail(k, number);
  int got = move_to(to);
  bool failed = fake_failed();
  fake_fail(0, 0);
  if (got == LUNA_OK) {
    check_intact(to, 0x100);
    return failed;
  }
  CHECK(failed && got < 0);
  check_intact(from, 0x100);
  CHECK_OK(move_to(to));
  check_intact(to, 0x100);
  CHECK_EQ(luna_vm_space_destroy(vm, 1), to ? LUNA_ERROR_BUSY : LUNA_OK);
  return true;
}

/* Of the first move, which makes the KVM vCPU. */
static void first_move_fails(void) {
  static const int numbers[] = {ENOMEM, EINVAL};
  for (int i = 0; i < 2 * VARIANTS; i++) {
    bool failed = true;
    for (uint64_t k = 1; failed; k++) {
      test_note("variant %d, call %" PRIu64 ", errno %d", i / 2, k, numbers[i % 2]);
      begin_variant(i / 2);
      failed = check_failed_move(0, k, numbers[i % 2]);
      CHECK(failed || k > 8);
      end();
    }
  }
}

/* Of a move to where the vCPU was before. */
static void later_move_fails(void) {
  for (int variant = 0; variant < VARIANTS; variant++) {
    bool failed = true;
    for (uint64_t k = 1; failed; k++) {
      test_note("variant %d, call %" PRIu64, variant, k);
      begin_variant(variant);
      CHECK_OK(move_to(1));
      run_in(1);
      failed = check_failed_move(1, k, ENOMEM);
      CHECK(failed || k > 6);
      end();
    }
  }
}

/* The system area of a vCPU that does not come is not left behind in the space. */
static void failed_move_leaves_no_area(void) {
  const luna_vcpu_options options = {
      .mode = LUNA_MODE_LONG64, .rip = 0x1000, .system = LUNA_SYSTEM_ALLOCATE};
  bool failed = true;
  for (uint64_t k = 1; failed; k++) {
    luna_vcpu *other;
    luna_region region;
    test_note("call %" PRIu64, k);
    begin_variant(0);
    uint32_t space;
    CHECK_OK(luna_vm_space_create(vm, &space));
    CHECK_OK(luna_vcpu_create(vm, &options, &other));
    fake_fail(k, ENOMEM);
    int got = luna_vcpu_set_space(other, space, 0);
    failed = fake_failed();
    fake_fail(0, 0);
    CHECK(got == LUNA_OK || failed);
    if (got != LUNA_OK) {
      CHECK_EQ(got, LUNA_ERROR_MEMORY);
      CHECK(luna_error_message()[0]);
      CHECK_EQ(luna_space_next(vm, space, 0, &region), LUNA_ERROR_NOT_FOUND);
      CHECK_OK(luna_vcpu_set_space(other, space, 0));
    }
    CHECK_OK(luna_space_next(vm, space, 0, &region));
    CHECK_EQ(region.gpa, luna_vcpu_system(other));
    luna_vcpu_release(other);
    CHECK_EQ(luna_space_next(vm, space, 0, &region), LUNA_ERROR_NOT_FOUND);
    end();
  }
}

/* The space of a move that failed can go. */
static void space_of_a_failed_move(void) {
  for (uint64_t k = 1; k <= 8; k++) {
    test_note("call %" PRIu64, k);
    begin_variant(0);
    run_changing(ALL_PARTS, 0x100);
    fake_fail(k, ENOMEM);
    CHECK(move_to(1) < 0);
    fake_fail(0, 0);
    CHECK_OK(luna_vm_space_destroy(vm, 1));
    run_in(0);
    check_parts(0, ALL_PARTS, 0x100);
    end();
  }
}

/* KVM_CREATE_VCPU works once for a number: what was made before a failure is to be used. */
static void unfinished_seat(void) {
  for (uint64_t k = 1; k <= 3; k++) {
    test_note("call %" PRIu64, k);
    begin_variant(0);
    fake_fail(k, ENOMEM);
    CHECK_EQ(move_to(1), LUNA_ERROR_MEMORY);
    fake_fail(0, 0);
    CHECK_OK(move_to(1));
    run_in(1);
    end();
  }
}

static void unfinished_first_seat(void) {
  for (uint64_t k = 1; k <= 5; k++) {
    test_note("call %" PRIu64, k);
    CHECK_OK(luna_vm_create(&vm));
    fake_fail(k, ENOMEM);
    CHECK_EQ(luna_vcpu_create(vm, NULL, &vcpu), LUNA_ERROR_MEMORY);
    fake_fail(0, 0);
    CHECK_OK(luna_vcpu_create(vm, NULL, &vcpu));
    CHECK_EQ(run(), LUNA_EXIT_HLT);
    end();
  }
}

static uint64_t child_k;

static void move_in_child(void) {
  begin_variant(0);
  check_failed_move(0, child_k, ENOMEM);
  end();
}

/* The first move of a process asks for the MSRs that can move. A failure for a moment is none of an
 * MSR's: it must not stay behind for ever. Each round is a process of its own. */
static void first_move_of_the_process_fails(void) {
  for (uint64_t k = 1; k <= 24; k++) {
    test_note("call %" PRIu64, k);
    child_k = k;
    fflush(stdout);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      test_body(move_in_child, test_live());
      fflush(stdout);
      _exit(test.failed != 0);
    }
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
  }
}

int main(void) {
  RUN(first_move_of_the_process_fails); /* before any other move */
  RUN(failed_move_leaves_no_area);
  RUN(first_move_fails);
  RUN(later_move_fails);
  RUN(space_of_a_failed_move);
  RUN(unfinished_seat);
  RUN(unfinished_first_seat);
  return test_end();
}
