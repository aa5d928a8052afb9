/* SPDX-License-Identifier: MIT
 * Moves between spaces: what goes along, what is written, what is left behind, and misuse. */
#include "fixture/move_fixture.h"

#include "kvm/kvm.h"
#include "vcpu/vcpu.h"

/* ---- State ---- */

static void everything_moves(void) {
  for (int variant = 0; variant < VARIANTS; variant++) {
    test_note("variant %d", variant);
    begin_variant(variant);
    run_changing(ALL_PARTS, 0x100);
    CHECK_OK(move_to(1));
    check_in(1);
    CHECK_EQ(get(LUNA_R15), 0x100 + PART_REGS);
    CHECK_EQ(get(LUNA_FS_BASE), 0x100 + PART_SREGS);
    run_in(1);
    check_parts(1, ALL_PARTS, 0x100);
    run_changing(ALL_PARTS, 0x200);
    CHECK_OK(move_to(0));
    check_in(0);
    run_in(0);
    check_parts(0, ALL_PARTS, 0x200);
    end();
  }
}

/* What the script wrote and KVM does not have yet. */
static void writes_go_along(void) {
  for (int variant = 0; variant < VARIANTS; variant++) {
    for (int runs = 0; runs < 2; runs++) {
      test_note("variant %d, runs %d", variant, runs);
      begin_variant(variant);
      if (runs) {
        run_changing(ALL_PARTS, 0x100);
      }
      set(LUNA_RBX, 0x77);
      set(LUNA_CR2, 0x88);
      set(LUNA_CR8, 9);
      CHECK_OK(move_to(1));
      set(LUNA_RCX, 0x99);
      CHECK_EQ(get(LUNA_RBX), 0x77);
      CHECK_EQ(get(LUNA_CR2), 0x88);
      run_in(1);
      CHECK_EQ(fake_regs()->rbx, 0x77);
      CHECK_EQ(fake_regs()->rcx, 0x99);
      CHECK_EQ(fake_sregs()->cr2, 0x88);
      CHECK_EQ(fake_sregs()->cr8, 9);
      check_parts(1, runs ? ALL_PARTS : 0, 0x100);
      end();
    }
  }
}

/* Written, handed to KVM's run page, and kicked before KVM saw it. */
static void writes_of_a_kicked_entry_go_along(void) {
  for (int variant = 0; variant < VARIANTS; variant++) {
    test_note("variant %d", variant);
    begin_variant(variant);
    CHECK_OK(move_to(1));
    CHECK_OK(move_to(0));
    set(LUNA_RBX, 0x77);
    set(LUNA_CR2, 0x88);
    luna_vcpu_interrupt(vcpu);
    CHECK_EQ(run(), LUNA_EXIT_INTERRUPTED);
    CHECK_OK(move_to(1));
    run_in(1);
    CHECK_EQ(fake_regs()->rbx, 0x77);
    CHECK_EQ(fake_sregs()->cr2, 0x88);
    set(LUNA_RBX, 0x78);
    set(LUNA_CR2, 0x89);
    CHECK_OK(move_to(0));
    run_in(0);
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    CHECK_EQ(luna_kvm_get_regs(seat_fd(0), &regs), 0);
    CHECK_EQ(luna_kvm_get_sregs(seat_fd(0), &sregs), 0);
    CHECK_EQ(regs.rbx, 0x78);
    CHECK_EQ(sregs.cr2, 0x89);
    end();
  }
}

/* ---- Only what differs is written ---- */

static const unsigned long set_calls[PARTS] = {
    [PART_XCRS] = KVM_SET_XCRS, [PART_XSAVE] = KVM_SET_XSAVE, [PART_DEBUG] = KVM_SET_DEBUGREGS,
    [PART_MSRS] = KVM_SET_MSRS, [PART_SREGS] = KVM_SET_SREGS, [PART_EVENTS] = KVM_SET_VCPU_EVENTS,
    [PART_REGS] = KVM_SET_REGS,
};

/* Without the general registers, which each entry after a move writes. */
static uint64_t written(void) {
  uint64_t sum = fake_calls(KVM_SET_DEVICE_ATTR);
  for (int p = 0; p < PART_REGS; p++) {
    sum += fake_calls(set_calls[p]);
  }
  return sum;
}

static void nothing_changed(void) {
  for (int variant = 0; variant < VARIANTS; variant++) {
    test_note("variant %d", variant);
    begin_variant(variant);
    run_changing(ALL_PARTS, 0x100);
    CHECK_OK(move_to(1));
    CHECK_EQ(fake_calls(KVM_SET_DEVICE_ATTR), 1);
    run_in(1);
    CHECK_OK(move_to(0));
    run_in(0);
    fake_forget();
    for (uint32_t i = 1; i <= 6; i++) {
      CHECK_OK(move_to(i % 2));
      run_in(i % 2);
    }
    CHECK_EQ(written(), 0);
    CHECK_EQ(fake_calls(KVM_SET_REGS), variant == 1 ? 6 : 0);
    end();
  }
}

/* Without an entry in between, both sides are known: no call at all. */
static void moves_without_entries(void) {
  for (int variant = 0; variant < VARIANTS; variant++) {
    test_note("variant %d", variant);
    begin_variant(variant);
    run_changing(ALL_PARTS, 0x100);
    CHECK_OK(move_to(1));
    run_in(1);
    CHECK_OK(move_to(0));
    fake_forget();
    for (uint32_t i = 1; i <= 6; i++) {
      CHECK_OK(move_to(i % 2));
    }
    CHECK_EQ(fake_calls(0), 0);
    run_in(0);
    CHECK_EQ(written(), 0);
    check_parts(0, ALL_PARTS, 0x100);
    end();
  }
}

static bool by_ioctl(int variant, part p) {
  return p < PART_SREGS || (variant != 0 && p < PART_REGS) || variant == 1;
}

static void check_one_change(int variant, part p) {
  test_note("variant %d, part %d", variant, p);
  begin_variant(variant);
  CHECK_OK(move_to(1));
  run_in(1);
  CHECK_OK(move_to(0));
  run_in(0);
  run_changing(1u << p, 0x300);
  fake_forget();
  CHECK_OK(move_to(1));
  CHECK_EQ(vcpu->state.sregs_written, p == PART_SREGS);
  CHECK_EQ(vcpu->state.events_written, p == PART_EVENTS);
  run_in(1);
  CHECK_EQ(written(), p < PART_REGS && by_ioctl(variant, p));
  CHECK_EQ(fake_calls(set_calls[p]), by_ioctl(variant, p));
  check_parts(1, 1u << p, 0x300);
  fake_forget();
  CHECK_OK(move_to(0));
  run_in(0);
  CHECK_EQ(written(), 0);
  end();
}

static void one_part_changed(void) {
  for (int variant = 0; variant < VARIANTS; variant++) {
    for (int p = 0; p < PARTS; p++) {
      check_one_change(variant, (part)p);
    }
  }
}

/* Of the MSRs, the one that differs: another, changed behind the library's back, stays so. */
static void one_msr_changed(void) {
  begin_variant(0);
  CHECK_OK(move_to(1));
  run_in(1);
  CHECK_OK(move_to(0));
  put_msr(seat_fd(1), 0x174, 0xdead);
  run_changing(1u << PART_MSRS, 0x300);
  CHECK_OK(move_to(1));
  run_in(1);
  CHECK_EQ(look_msr(seat_fd(1), 0x174), 0xdead);
  CHECK_EQ(look_msr(seat_fd(1), (uint32_t)MSR_KERNEL_GS), 0x300 + PART_MSRS);
  end();
}

/* A guest that sets its time-stamp counter does so in both spaces. */
static void adjusted_counter(void) {
  begin_variant(0);
  CHECK_OK(move_to(1));
  run_in(1);
  fake_forget();
  put_msr(seat_fd(1), MSR_ADJUST, 0x5000);
  CHECK_OK(move_to(0));
  CHECK_EQ(fake_calls(KVM_SET_DEVICE_ATTR), 1);
  CHECK_EQ(look_msr(seat_fd(0), MSR_ADJUST), 0x5000);
  end();
}

/* Another host may have other MSRs: what was learnt of the last one is not to be used. */
static void msrs_of_another_host(void) {
  for (int i = 0; i < 2; i++) {
    begin_variant(0); /* a new host each time */
    CHECK_OK(move_to(1));
    CHECK(fake_calls(KVM_SET_MSRS) > 2); /* they are tried again */
    end();
  }
}

/* ---- What is left behind ---- */

enum {
  FPU_PARTS = 1 << PART_XCRS | 1 << PART_XSAVE,
  MSR_PARTS = 1 << PART_DEBUG | 1 << PART_MSRS
};

static void check_left(uint32_t flags, uint32_t left) {
  for (int variant = 0; variant < VARIANTS; variant++) {
    test_note("variant %d, flags %u", variant, flags);
    begin_variant(variant);
    run_changing(ALL_PARTS, 0x100);
    CHECK_OK(luna_vcpu_set_space(vcpu, 1, flags)); /* the first time, everything goes */
    run_in(1);
    check_parts(1, ALL_PARTS, 0x100);
    run_changing(ALL_PARTS, 0x200);
    CHECK_OK(luna_vcpu_set_space(vcpu, 0, flags));
    run_in(0);
    check_parts(0, ALL_PARTS & ~left, 0x200);
    check_parts(0, left, 0x100);
    run_changing(ALL_PARTS, 0x300);
    CHECK_OK(luna_vcpu_set_space(vcpu, 1, flags));
    run_in(1);
    check_parts(1, ALL_PARTS & ~left, 0x300);
    check_parts(1, left, 0x200);
    CHECK_OK(move_to(0));
    run_in(0);
    check_parts(0, ALL_PARTS & ~left, 0x300);
    check_parts(0, left, 0x200);
    end();
  }
}

static void left_behind(void) {
  check_left(LUNA_MOVE_NO_FPU, FPU_PARTS);
  check_left(LUNA_MOVE_NO_MSRS, MSR_PARTS);
  check_left(LUNA_MOVE_NO_FPU | LUNA_MOVE_NO_MSRS, FPU_PARTS | MSR_PARTS);
}

/* ---- Errors and counts ---- */

static int moved_inside;

static void move_inside(void *unused) {
  (void)unused;
  moved_inside = move_to(1);
}

static void move_errors(void) {
  begin_variant(0);
  CHECK_FAILS(luna_vcpu_set_space(vcpu, 1, 4), LUNA_ERROR_ARGUMENT,
              "cannot move vCPU 0 with flags 0x4: only 0x3 are known");
  CHECK_FAILS(move_to(2), LUNA_ERROR_NOT_FOUND, "there is no space 2 in this VM");
  SCRIPT({.kind = FAKE_HLT, .hook = move_inside});
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(moved_inside, LUNA_ERROR_STATE);
  CHECK_TEXT(luna_error_message(), "cannot move vCPU 0: it is running");
  check_in(0);
  fake_forget();
  CHECK_OK(move_to(0));
  CHECK_EQ(fake_calls(0), 0);
  check_in(0);
  end();
}

static void spaces_count_their_vcpus(void) {
  begin_variant(0);
  luna_vcpu *second;
  CHECK_OK(luna_vcpu_create(vm, NULL, &second));
  CHECK_OK(move_to(1));
  CHECK_OK(luna_vcpu_set_space(second, 1, 0));
  CHECK_FAILS(luna_vm_space_destroy(vm, 1), LUNA_ERROR_BUSY,
              "cannot destroy space 1: 2 vCPUs are in it; move them to another space first");
  CHECK_OK(move_to(0));
  CHECK_FAILS(luna_vm_space_destroy(vm, 1), LUNA_ERROR_BUSY, "1 vCPU is in it; move it to");
  luna_vcpu_release(second);
  CHECK_OK(luna_vm_space_destroy(vm, 1));
  CHECK_EQ(luna_vm_space_destroy(vm, 1), LUNA_ERROR_NOT_FOUND);
  run_in(0);
  uint32_t space;
  CHECK_OK(luna_vm_space_create(vm, &space));
  run_changing(ALL_PARTS, 0x100);
  CHECK_OK(move_to(1)); /* a new space of that number: everything goes there */
  run_in(1);
  check_parts(1, ALL_PARTS, 0x100);
  end();
}

int main(void) {
  RUN(everything_moves);
  RUN(writes_go_along);
  RUN(writes_of_a_kicked_entry_go_along);
  RUN(nothing_changed);
  RUN(moves_without_entries);
  RUN(one_part_changed);
  RUN(one_msr_changed);
  RUN(adjusted_counter);
  RUN(left_behind);
  RUN(msrs_of_another_host);
  RUN(move_errors);
  RUN(spaces_count_their_vcpus);
  return test_end();
}
