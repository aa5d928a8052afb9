/* SPDX-License-Identifier: MIT
 * Moves around an instruction under way, and exceptions injected in its place. */
#include "fixture/move_fixture.h"

#include "kvm/kvm.h"
#include "memory/vm.h"

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
    CHECK_EQ(fake_last_fd(KVM_RUN), seat_fd(1).number);
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
    CHECK_EQ(fake_last_fd(KVM_RUN), seat_fd(1).number);
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
  CHECK_EQ(fake_last_fd(KVM_RUN), seat_fd(0).number);
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

static struct kvm_vcpu_events events_of(luna_fd fd) {
  struct kvm_vcpu_events events;
  CHECK_EQ(luna_kvm_get_events(fd, &events), 0);
  return events;
}

static void check_exception(luna_fd fd, uint8_t vector, uint8_t has_code, uint32_t code) {
  struct kvm_vcpu_events events = events_of(fd);
  const uint8_t *vectors;
  CHECK_EQ(fake_taken(&vectors), 1);
  CHECK_EQ(vectors[0], vector);
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
    CHECK_EQ(events_of(seat_fd(0)).exception.nr, 0);
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
        const uint8_t *vectors;
        CHECK_EQ(fake_taken(&vectors), 0);
      }
      end();
      if (!failed) {
        CHECK(k > 1);
        break;
      }
    }
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
  return test_end();
}
