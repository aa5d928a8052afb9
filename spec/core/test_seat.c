/* SPDX-License-Identifier: MIT
 * Moves around an instruction under way, injected exceptions among them; and seats that the next
 * vCPU of the same number takes over. */
#include "move_fixture.h"

#include <pthread.h>
#include <stdatomic.h>

/* ---- An exit is open ---- */

static void move_waits_for_the_answer(void) {
  for (int variant = 0; variant < VARIANTS; variant++) {
    test_note("variant %d", variant);
    begin_variant(variant);
    SCRIPT({.kind = FAKE_PIO, .address = 0x60, .size = 4}, {.kind = FAKE_HLT});
    set(LUNA_RIP, 0x100);
    CHECK_EQ(run(), LUNA_EXIT_PIO);
    fake_forget();
    CHECK_OK(move_to(1));
    CHECK_EQ(fake_calls(0), 0);
    CHECK_EQ(luna_vcpu_space(vcpu), 1);
    CHECK_EQ(run(), LUNA_EXIT_PIO);
    CHECK_EQ(luna_vm_space_destroy(vm, 1), LUNA_ERROR_BUSY);
    set(LUNA_RBX, 0x77);
    CHECK_OK(luna_vcpu_answer(vcpu, 0x12345678));
    CHECK_EQ(run(), LUNA_EXIT_HLT);
    check_in(1);
    CHECK_EQ(entries(), 2); /* one to finish in the old space, one in the new */
    CHECK_EQ(fake_last_fd(KVM_RUN), seat_fd(1));
    CHECK_EQ(fake_regs()->rax, 0x12345678);
    CHECK_EQ(fake_regs()->rbx, 0x77);
    CHECK_EQ(fake_regs()->rip, 0x102);
    end();
  }
}

/* Answered, but KVM has not finished it: the move does that first, and runs no further. */
static void move_after_the_answer(void) {
  for (int variant = 0; variant < VARIANTS; variant++) {
    test_note("variant %d", variant);
    begin_variant(variant);
    SCRIPT({.kind = FAKE_MMIO, .address = 0x5000, .size = 4}, {.kind = FAKE_HLT});
    set(LUNA_RIP, 0x100);
    CHECK_EQ(run(), LUNA_EXIT_FAULT);
    CHECK_OK(luna_vcpu_answer(vcpu, 0x12345678));
    CHECK_OK(move_to(1));
    check_in(1);
    CHECK_EQ(get(LUNA_RAX), 0x12345678);
    CHECK_EQ(get(LUNA_RIP), 0x102);
    CHECK_EQ(run(), LUNA_EXIT_HLT);
    CHECK_EQ(fake_last_fd(KVM_RUN), seat_fd(1));
    CHECK_EQ(fake_regs()->rax, 0x12345678);
    end();
  }
}

static void move_is_taken_back(void) {
  begin_variant(0);
  SCRIPT({.kind = FAKE_PIO, .address = 0x60, .size = 4}, {.kind = FAKE_HLT});
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_OK(move_to(1));
  CHECK_OK(move_to(0));
  check_in(0);
  CHECK_OK(luna_vm_space_destroy(vm, 1));
  CHECK_OK(luna_vcpu_answer(vcpu, 5));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(fake_last_fd(KVM_RUN), seat_fd(0));
  end();
}

static void move_goes_with_the_vcpu(void) {
  begin_variant(0);
  SCRIPT({.kind = FAKE_PIO, .address = 0x60, .size = 4});
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_OK(move_to(1));
  luna_vcpu_release(vcpu);
  CHECK_OK(luna_vm_space_destroy(vm, 1));
  luna_vm_release(vm);
}

/* Of a string instruction, all elements arrive in the old space. */
static void move_within_a_string(void) {
  begin_variant(0);
  SCRIPT({.kind = FAKE_PIO, .address = 0x60, .size = 1, .count = 3}, {.kind = FAKE_HLT});
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_OK(luna_vcpu_answer(vcpu, 1));
  CHECK_OK(move_to(1));
  for (uint64_t i = 2; i <= 3; i++) {
    CHECK_EQ(run(), LUNA_EXIT_PIO);
    CHECK_EQ(e->space, 0);
    CHECK_OK(luna_vcpu_answer(vcpu, i));
  }
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  check_answer("\1\2\3", 3);
  check_in(1);
  end();
}

static const fake_step two_halves[] = {
    {.kind = FAKE_MMIO, .address = 0x5ffc, .size = 4, .continues = true},
    {.kind = FAKE_MMIO, .address = 0x6000, .size = 4},
    {.kind = FAKE_HLT}};

/* Finishing the first half opens the second: that is the old space's, too. */
static void second_half_is_the_old_spaces(void) {
  begin_variant(0);
  fake_script(two_halves, 3);
  set(LUNA_RIP, 0x100);
  CHECK_EQ(run(), LUNA_EXIT_FAULT);
  CHECK_OK(luna_vcpu_answer(vcpu, 1));
  CHECK_OK(move_to(1));
  CHECK_EQ(luna_vcpu_space(vcpu), 1);
  CHECK_EQ(run(), LUNA_EXIT_FAULT);
  check_access(0x6000, 4, LUNA_READ, 0);
  CHECK_EQ(e->space, 0);
  CHECK_OK(luna_vcpu_answer(vcpu, 2));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  check_in(1);
  CHECK_EQ(fake_regs()->rax, 2);
  CHECK_EQ(fake_regs()->rip, 0x102);
  end();
}

/* The second half is in memory, which the core answers by itself: still before the move. */
static void second_half_in_memory(void) {
  for (int pending = 0; pending < 2; pending++) {
    test_note("pending %d", pending);
    begin_variant(0);
    uint8_t *data;
    map_memory(0x6000, PAGE, LUNA_READ, &data);
    data[0] = 7;
    fake_script(two_halves, 3);
    set(LUNA_RIP, 0x100);
    CHECK_EQ(run(), LUNA_EXIT_FAULT);
    if (pending) {
      CHECK_OK(move_to(1));
      CHECK_OK(luna_vcpu_answer(vcpu, 1));
    } else {
      CHECK_OK(luna_vcpu_answer(vcpu, 1));
      CHECK_OK(move_to(1));
    }
    CHECK_EQ(run(), LUNA_EXIT_HLT);
    check_in(1);
    CHECK_EQ(fake_regs()->rax, 7);
    CHECK_EQ(fake_regs()->rip, 0x102);
    end();
  }
}

/* A fault that was opened in one space is done in the other. */
static void retry_in_the_new_space(void) {
  begin_variant(0);
  luna_buffer *buffer;
  CHECK_OK(luna_buffer_create(PAGE, &buffer));
  memcpy((uint8_t *)luna_buffer_data(buffer) + 0x10, "\4\3\2\1", 4);
  CHECK_OK(luna_vm_map_space(vm, 1, buffer, 0, 0x5000, PAGE, RWX));
  luna_buffer_release(buffer);
  SCRIPT({.kind = FAKE_MMIO, .address = 0x5010, .size = 4}, {.kind = FAKE_HLT});
  CHECK_EQ(run(), LUNA_EXIT_FAULT);
  CHECK_EQ(luna_vcpu_retry(vcpu), LUNA_ERROR_NOT_FOUND);
  CHECK_OK(move_to(1));
  CHECK_OK(luna_vcpu_retry(vcpu));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  check_in(1);
  CHECK_EQ(fake_regs()->rax, 0x01020304);
  end();
}

/* A move that fails changes nothing: nor does a later run move the vCPU after all. */
static void failing_to_finish(void) {
  begin_variant(0);
  SCRIPT({.kind = FAKE_PIO, .address = 0x60, .size = 4}, {.kind = FAKE_HLT});
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_OK(luna_vcpu_answer(vcpu, 5));
  fake_fail(1, EIO);
  CHECK_FAILS(move_to(1), LUNA_ERROR_SYSTEM, "cannot finish the instruction of vCPU 0");
  CHECK_EQ(luna_vcpu_space(vcpu), 0);
  CHECK_EQ(atomic_load(&vm->spaces[1]->vcpus), 0);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  check_in(0);
  CHECK_EQ(fake_regs()->rax, 5);
  end();
}

/* The kth call of the run that makes a pending move. Whether there is one. */
static bool check_pending(uint64_t k) {
  begin_variant(0);
  CHECK_OK(move_to(1));
  CHECK_OK(move_to(0));
  SCRIPT({.kind = FAKE_PIO, .address = 0x60, .size = 4}, {.kind = FAKE_HLT}, {.kind = FAKE_HLT});
  set(LUNA_RBX, 0x77);
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_OK(move_to(1));
  CHECK_OK(luna_vcpu_answer(vcpu, 5));
  fake_fail(k, EIO);
  int kind = run();
  bool failed = fake_failed();
  fake_fail(0, 0);
  if (kind < 0) {
    CHECK(failed);
    uint32_t space = luna_vcpu_space(vcpu); /* it may move still, if the move is not begun */
    CHECK_EQ(run(), LUNA_EXIT_HLT);
    check_in(space);
  }
  CHECK_EQ(get(LUNA_RAX), 5);
  CHECK_EQ(get(LUNA_RBX), 0x77);
  struct kvm_regs regs;
  CHECK_EQ(luna_kvm_get_regs(seat_fd(luna_vcpu_space(vcpu)), &regs), 0);
  CHECK_EQ(regs.rax, 5);
  CHECK_EQ(regs.rbx, 0x77);
  end();
  return failed;
}

static void pending_move_fails(void) {
  bool failed = true;
  for (uint64_t k = 1; failed; k++) {
    test_note("call %" PRIu64, k);
    failed = check_pending(k);
    CHECK(failed || k > 6);
  }
}

/* ---- Injected exceptions ---- */

enum {
  VECTOR_UD = 6,
  VECTOR_PF = 14
};

static struct kvm_vcpu_events events_of(int fd) {
  struct kvm_vcpu_events events;
  CHECK_EQ(luna_kvm_get_events(fd, &events), 0);
  return events;
}

static void check_exception(int fd, uint8_t vector, uint8_t has_code, uint32_t code) {
  struct kvm_vcpu_events events = events_of(fd);
  CHECK_EQ(events.exception.injected, 1);
  CHECK_EQ(events.exception.nr, vector);
  CHECK_EQ(events.exception.has_error_code, has_code);
  CHECK_EQ(events.exception.error_code, code);
}

/* The guest is as before the read: registers, RIP, and the exception there. */
static void inject_takes_a_read_back(void) {
  static const fake_step reads[][2] = {
      {{.kind = FAKE_PIO, .address = 0x60, .size = 4}, {.kind = FAKE_HLT}},
      {{.kind = FAKE_MMIO, .address = 0x5000, .size = 8}, {.kind = FAKE_HLT}}};
  for (int i = 0; i < 2 * VARIANTS; i++) {
    test_note("variant %d, read %d", i / 2, i % 2);
    begin_variant(i / 2);
    fake_script(reads[i % 2], 2);
    set(LUNA_RIP, 0x100);
    set(LUNA_RAX, 0x1122334455667788);
    CHECK(run() > 0);
    set(LUNA_RCX, 0x99);
    CHECK_OK(luna_vcpu_inject(vcpu, VECTOR_PF, 2, 0x5000));
    CHECK_FAILS(luna_vcpu_answer(vcpu, 5), LUNA_ERROR_STATE, "no open exit");
    CHECK_EQ(run(), LUNA_EXIT_HLT);
    CHECK_EQ(entries(), 3);
    CHECK_EQ(fake_regs()->rip, 0x100);
    CHECK_EQ(fake_regs()->rax, 0x1122334455667788);
    CHECK_EQ(fake_regs()->rcx, 0x99);
    CHECK_EQ(fake_sregs()->cr2, 0x5000);
    check_exception(seat_fd(0), VECTOR_PF, 1, 2);
    end();
  }
}

static void inject_behind_a_write(void) {
  static const fake_step writes[][2] = {
      {{.kind = FAKE_PIO, .address = 0x60, .size = 4, .write = true}, {.kind = FAKE_HLT}},
      {{.kind = FAKE_MMIO, .address = 0x5000, .size = 8, .write = true}, {.kind = FAKE_HLT}}};
  for (int i = 0; i < 2 * VARIANTS; i++) {
    test_note("variant %d, write %d", i / 2, i % 2);
    begin_variant(i / 2);
    fake_script(writes[i % 2], 2);
    set(LUNA_RIP, 0x100);
    CHECK(run() > 0);
    CHECK_OK(luna_vcpu_inject(vcpu, VECTOR_UD, 0, 0));
    CHECK_EQ(run(), LUNA_EXIT_HLT);
    CHECK_EQ(fake_regs()->rip, 0x102);
    CHECK_EQ(fake_sregs()->cr2, 0);
    check_exception(seat_fd(0), VECTOR_UD, 0, 0);
    end();
  }
}

static void inject_moves(void) {
  for (int variant = 0; variant < VARIANTS; variant++) {
    test_note("variant %d", variant);
    begin_variant(variant);
    SCRIPT({.kind = FAKE_PIO, .address = 0x60, .size = 4}, {.kind = FAKE_HLT});
    set(LUNA_RIP, 0x100);
    set(LUNA_RAX, 0x99);
    CHECK_EQ(run(), LUNA_EXIT_PIO);
    CHECK_OK(luna_vcpu_inject(vcpu, VECTOR_PF, 2, 0x5000));
    CHECK_OK(move_to(1));
    check_in(1);
    CHECK_EQ(run(), LUNA_EXIT_HLT);
    CHECK_EQ(fake_regs()->rip, 0x100);
    CHECK_EQ(fake_regs()->rax, 0x99);
    CHECK_EQ(fake_sregs()->cr2, 0x5000);
    check_exception(seat_fd(1), VECTOR_PF, 1, 2);
    CHECK_EQ(events_of(seat_fd(0)).exception.injected, 0);
    end();
  }
}

static void inject_errors(void) {
  begin_variant(0);
  CHECK_FAILS(luna_vcpu_inject(vcpu, 32, 0, 0), LUNA_ERROR_ARGUMENT,
              "cannot inject vector 32 as an exception: exceptions are 0 to 31 without 2");
  CHECK_FAILS(luna_vcpu_inject(vcpu, 2, 0, 0), LUNA_ERROR_ARGUMENT, "vector 2");
  end();
}

/* Each call fails once: the exit is still open, and nothing is injected. */
static void inject_fails(void) {
  for (int variant = 0; variant < VARIANTS; variant++) {
    for (uint64_t k = 1;; k++) {
      test_note("variant %d, call %" PRIu64, variant, k);
      begin_variant(variant);
      SCRIPT({.kind = FAKE_PIO, .address = 0x60, .size = 4}, {.kind = FAKE_HLT});
      CHECK_EQ(run(), LUNA_EXIT_PIO);
      fake_fail(k, EIO);
      int got = luna_vcpu_inject(vcpu, VECTOR_PF, 2, 0x5000);
      bool failed = fake_failed();
      fake_fail(0, 0);
      CHECK_EQ(got, failed ? LUNA_ERROR_SYSTEM : LUNA_OK);
      if (failed) {
        CHECK_EQ(run(), LUNA_EXIT_PIO);
        CHECK_OK(luna_vcpu_answer(vcpu, 0x42));
        CHECK_EQ(run(), LUNA_EXIT_HLT);
        CHECK_EQ(fake_regs()->rax, 0x42);
        CHECK_EQ(fake_sregs()->cr2, 0);
        CHECK_EQ(events_of(seat_fd(0)).exception.injected, 0);
      }
      end();
      if (!failed) {
        CHECK(k > 1);
        break;
      }
    }
  }
}

/* ---- Seats that are used again ---- */

static void next_vcpu(void) {
  luna_vcpu_release(vcpu);
  CHECK_OK(luna_vcpu_create(vm, NULL, &vcpu));
  CHECK_EQ(luna_vcpu_id(vcpu), 0);
  e = luna_vcpu_exit(vcpu);
}

/* What a fresh vCPU of the fake has. */
static uint64_t fresh[PARTS];

static void note_fresh(uint32_t space) {
  for (int p = 0; p < PARTS; p++) {
    fresh[p] = look(seat_fd(space), (part)p);
  }
}

static void check_fresh(uint32_t space) {
  for (int p = 0; p < PARTS; p++) {
    CHECK_EQ(look(seat_fd(space), (part)p), fresh[p]);
  }
}

static void seat_starts_fresh(void) {
  for (int variant = 0; variant < VARIANTS; variant++) {
    test_note("variant %d", variant);
    begin_variant(variant);
    note_fresh(0);
    struct kvm_sregs sregs;
    CHECK_EQ(luna_kvm_get_sregs(seat_fd(0), &sregs), 0);
    run_changing(ALL_PARTS, 0x100);
    set(LUNA_RBX, 0x77);
    set(LUNA_CR8, 5);
    run_in(0);
    put_msr(seat_fd(0), MSR_ADJUST, 0x5000);
    set(LUNA_RBX, 0x78); /* does not come any more */
    set(LUNA_CR2, 0x88);
    next_vcpu();
    check_fresh(0);
    CHECK_EQ(look_msr(seat_fd(0), MSR_ADJUST), 0);
    run_in(0);
    check_fresh(0);
    CHECK_EQ(fake_regs()->rbx, 0);
    CHECK_EQ(fake_regs()->rip, 0xfff0);
    CHECK(memcmp(fake_sregs(), &sregs, sizeof sregs) == 0);
    end();
  }
}

/* Also where it takes the seat over by a move, whatever the move leaves behind. */
static void seat_of_another_space_starts_fresh(void) {
  for (int variant = 0; variant < VARIANTS; variant++) {
    test_note("variant %d", variant);
    begin_variant(variant);
    note_fresh(0);
    CHECK_OK(move_to(1));
    run_changing(ALL_PARTS, 0x100);
    next_vcpu();
    run_in(0);
    check_fresh(0);
    CHECK_OK(luna_vcpu_set_space(vcpu, 1, LUNA_MOVE_NO_FPU | LUNA_MOVE_NO_MSRS));
    run_in(1);
    check_fresh(1);
    end();
  }
}

/* An access that the former vCPU left open is not the next one's. */
static void access_goes_with_its_vcpu(void) {
  begin_variant(0);
  SCRIPT({.kind = FAKE_PIO, .address = 0x60, .size = 4}, {.kind = FAKE_HLT});
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  next_vcpu();
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(fake_regs()->rax, 0);
  CHECK_EQ(fake_regs()->rip, 0xfff0);
  end();
}

/* Each call of making the next vCPU fails once; then it is made, and fresh. */
static void next_vcpu_fails(void) {
  bool failed = true;
  for (uint64_t k = 1; failed; k++) {
    test_note("call %" PRIu64, k);
    begin_variant(0);
    note_fresh(0);
    run_changing(ALL_PARTS, 0x100);
    luna_vcpu_release(vcpu);
    fake_fail(k, EIO);
    int got = luna_vcpu_create(vm, NULL, &vcpu);
    failed = fake_failed();
    fake_fail(0, 0);
    if (got != LUNA_OK) {
      CHECK(failed);
      CHECK_EQ(atomic_load(&vm->spaces[0]->vcpus), 0);
      CHECK_OK(luna_vcpu_create(vm, NULL, &vcpu));
    }
    run_in(0);
    check_fresh(0);
    CHECK(failed || k > 8);
    end();
  }
}

/* ---- System areas ---- */

static void begin_with_area(void) {
  const luna_vcpu_options options = {
      .mode = LUNA_MODE_LONG64, .rip = 0x1000, .system = LUNA_SYSTEM_ALLOCATE};
  begin_variant(0);
  luna_vcpu_release(vcpu);
  CHECK_OK(luna_vcpu_create(vm, &options, &vcpu));
}

static bool area_in(uint32_t space) {
  uint64_t gpa = luna_vcpu_system(vcpu);
  luna_region region;
  return luna_space_next(vm, space, gpa, &region) == LUNA_OK && region.gpa == gpa &&
         region.size == LUNA_SYSTEM_SIZE;
}

static void area_follows(void) {
  bool failed = true;
  for (uint64_t k = 1; failed; k++) {
    test_note("call %" PRIu64, k);
    begin_with_area();
    CHECK(area_in(0) && !area_in(1));
    fake_fail(k, EIO);
    int got = move_to(1);
    failed = fake_failed();
    fake_fail(0, 0);
    if (got != LUNA_OK) {
      check_in(0);
      CHECK_OK(move_to(1));
    }
    CHECK(area_in(1));
    run_in(1);
    luna_vcpu_release(vcpu);
    luna_region region;
    CHECK_EQ(luna_space_next(vm, 0, 0, &region), LUNA_ERROR_NOT_FOUND);
    CHECK_EQ(luna_space_next(vm, 1, 0, &region), LUNA_ERROR_NOT_FOUND);
    luna_vm_release(vm);
  }
}

/* The next vCPU's own area goes where the former one's was. */
static void area_of_the_next_vcpu_follows(void) {
  const luna_vcpu_options options = {
      .mode = LUNA_MODE_LONG64, .rip = 0x1000, .system = LUNA_SYSTEM_ALLOCATE};
  begin_with_area();
  CHECK_OK(move_to(1));
  luna_vcpu_release(vcpu);
  CHECK_OK(luna_vcpu_create(vm, &options, &vcpu));
  CHECK(!area_in(1));
  CHECK_OK(move_to(1));
  CHECK(area_in(1));
  end();
}

/* ---- Threads ---- */

enum {
  NEW_SPACES = 100
};

static atomic_bool done;

static void *make_spaces(void *unused) {
  (void)unused;
  for (int i = 0; i < NEW_SPACES; i++) {
    uint32_t space;
    if (luna_vm_space_create(vm, &space) != LUNA_OK) {
      abort();
    }
  }
  atomic_store(&done, true);
  return NULL;
}

/* Calls on the VM that look at its spaces; the first status that is none of success. */
static int look_at_spaces(void) {
  const luna_vcpu_options options = {
      .mode = LUNA_MODE_LONG64, .rip = 0x1000, .system = LUNA_SYSTEM_ALLOCATE};
  luna_vcpu *second;
  uint32_t trap;
  int status = luna_vcpu_create(vm, &options, &second);
  if (status == LUNA_OK) {
    luna_vcpu_release(second);
    status = luna_vm_trap(vm, LUNA_TRAP_MMIO, 0xd0000000, 0x100, &trap);
  }
  if (status == LUNA_OK) {
    status = luna_vm_untrap(vm, trap);
  }
  return status;
}

/* The calls on one VM may come from any thread: here the list of spaces grows under those that
 * read it. */
static void spaces_come(void) {
  for (int round = 0; round < 5; round++) {
    begin_variant(0);
    fake_script(NULL, 0);
    atomic_store(&done, false);
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, make_spaces, NULL), 0);
    int status = LUNA_OK;
    while (!atomic_load(&done) && status == LUNA_OK) {
      status = look_at_spaces();
    }
    pthread_join(thread, NULL);
    CHECK_EQ(status, LUNA_OK);
    end();
  }
}

int main(void) {
  RUN(move_waits_for_the_answer);
  RUN(move_after_the_answer);
  RUN(move_is_taken_back);
  RUN(move_goes_with_the_vcpu);
  RUN(move_within_a_string);
  RUN(second_half_is_the_old_spaces);
  RUN(second_half_in_memory);
  RUN(retry_in_the_new_space);
  RUN(failing_to_finish);
  RUN(pending_move_fails);
  RUN(inject_takes_a_read_back);
  RUN(inject_behind_a_write);
  RUN(inject_moves);
  RUN(inject_errors);
  RUN(inject_fails);
  RUN(seat_starts_fresh);
  RUN(seat_of_another_space_starts_fresh);
  RUN(access_goes_with_its_vcpu);
  RUN(next_vcpu_fails);
  RUN(area_follows);
  RUN(area_of_the_next_vcpu_follows);
  RUN(spaces_come);
  return test_end();
}
