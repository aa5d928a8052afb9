/* SPDX-License-Identifier: MIT
 * Seats that the next vCPU of the same number takes over, system areas that follow their vCPU, and
 * spaces that come meanwhile. */
#include "fixture/move_fixture.h"

#include "kvm/kvm.h"
#include "memory/vm.h"

#include <pthread.h>
#include <stdatomic.h>

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

/* What a run page still says of the former vCPU is not what KVM holds. */
static void stale_run_page(void) {
  const uint32_t sregs = 1u << PART_SREGS;
  begin_variant(1);
  CHECK_OK(move_to(1));
  run_changing(sregs, 0x100);
  CHECK_OK(move_to(0)); /* the page of the seat that it leaves notes 0x100 */
  run_changing(sregs, 0x200);
  CHECK_OK(move_to(1));
  run_in(1);
  next_vcpu();
  run_changing(sregs, 0x100);
  CHECK_OK(move_to(1));
  run_in(1);
  check_parts(1, sregs, 0x100);
  end();
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

/* What a fresh vCPU is like is asked once, and anew of another host. */
static void fresh_of_another_host(void) {
  for (int i = 0; i < 2; i++) {
    begin_variant(0);
    fake_forget();
    next_vcpu();
    CHECK_EQ(fake_calls(KVM_CREATE_VM), 1);
    next_vcpu();
    CHECK_EQ(fake_calls(KVM_CREATE_VM), 1);
    end();
  }
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
  NEW_SPACES = 1000
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
  for (int i = 0; status == LUNA_OK && i < 100; i++) { /* a refusal looks at them, too */
    if (luna_vm_trap(vm, LUNA_TRAP_MMIO, UINT64_C(1) << 40, 1, &trap) != LUNA_ERROR_RANGE) {
      status = LUNA_ERROR_STATE;
    }
  }
  return status;
}

/* The calls on one VM may come from any thread: here the list of spaces grows under those that
 * read it. */
static void spaces_come(void) {
  for (int round = 0; round < 3; round++) {
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
  RUN(seat_starts_fresh);
  RUN(seat_of_another_space_starts_fresh);
  RUN(stale_run_page);
  RUN(access_goes_with_its_vcpu);
  RUN(fresh_of_another_host);
  RUN(next_vcpu_fails);
  RUN(area_follows);
  RUN(area_of_the_next_vcpu_follows);
  RUN(spaces_come);
  return test_end();
}
