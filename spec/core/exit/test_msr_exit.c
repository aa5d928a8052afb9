/* SPDX-License-Identifier: MIT
 * MSR exits: decoded, answered, refused and taken back; the filter in every space, whole or not at
 * all. */
#include "fixture/vcpu_fixture.h"

#include <errno.h>

static uint32_t trap_msr(uint64_t first, uint64_t length) {
  uint32_t trap = 0;
  CHECK_OK(luna_vm_trap(vm, LUNA_TRAP_MSR, first, length, &trap));
  return trap;
}

static void check_refused(uint64_t first, uint64_t length, int status, const char *part) {
  uint32_t trap = 77;
  CHECK_FAILS(luna_vm_trap(vm, LUNA_TRAP_MSR, first, length, &trap), status, part);
  CHECK_EQ(trap, 77);
}

/* ---- Exits ---- */

static void read_and_write(void) {
  begin();
  uint32_t trap = trap_msr(0x174, 3);
  SCRIPT({.kind = FAKE_MSR, .address = 0x176},
         {.kind = FAKE_MSR, .address = 0x174, .write = true, .value = UINT64_C(0x8877665544332211)},
         {.kind = FAKE_MSR, .address = 0x12345});
  uint64_t rip = get(LUNA_RIP);
  CHECK_EQ(run(), LUNA_EXIT_MSR);
  check_access(0x176, 8, LUNA_READ, 0);
  CHECK_EQ(e->trap, trap);
  CHECK_EQ(e->offset, 2);
  CHECK_EQ(run(), LUNA_EXIT_MSR); /* still open */
  CHECK_OK(luna_vcpu_answer(vcpu, UINT64_C(0x1122334455667788)));
  CHECK_EQ(run(), LUNA_EXIT_MSR);
  CHECK_EQ(get(LUNA_RAX), 0x55667788);
  CHECK_EQ(get(LUNA_RDX), 0x11223344);
  CHECK_EQ(get(LUNA_RIP), rip + FAKE_INSTRUCTION_LENGTH);
  check_access(0x174, 8, LUNA_WRITE, UINT64_C(0x8877665544332211));
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  CHECK_EQ(run(), LUNA_EXIT_MSR);
  CHECK_EQ(e->trap, 0);
  CHECK_EQ(e->address, 0x12345);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(fake_refused(), 0);
  end();
}

static void refused(void) {
  begin();
  trap_msr(0x174, 1);
  SCRIPT({.kind = FAKE_MSR, .address = 0x174},
         {.kind = FAKE_PIO, .address = 0x80, .size = 1, .write = true});
  CHECK_FAILS(luna_vcpu_refuse(vcpu), LUNA_ERROR_STATE, "no open msr exit to refuse");
  CHECK_EQ(run(), LUNA_EXIT_MSR);
  CHECK_FAILS(luna_vcpu_retry(vcpu), LUNA_ERROR_UNSUPPORTED, "cannot retry an access to an MSR");
  CHECK_OK(luna_vcpu_refuse(vcpu));
  CHECK_FAILS(luna_vcpu_refuse(vcpu), LUNA_ERROR_STATE, "no open msr exit to refuse");
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_EQ(fake_refused(), 1);
  CHECK_FAILS(luna_vcpu_refuse(vcpu), LUNA_ERROR_STATE, "no open msr exit to refuse");
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  end();
}

/* Both directions: nobody has done a WRMSR yet. */
static void taken_back(void) {
  for (int write = 0; write < 2; write++) {
    begin();
    trap_msr(0x174, 1);
    const fake_step steps[] = {{.kind = FAKE_MSR, .address = 0x174, .write = write}};
    fake_script(steps, 1);
    uint64_t rip = get(LUNA_RIP);
    set(LUNA_RAX, 0xaa);
    CHECK_EQ(run(), LUNA_EXIT_MSR);
    CHECK_OK(luna_vcpu_inject(vcpu, 6, 0, 0));
    CHECK_EQ(run(), LUNA_EXIT_HLT);
    CHECK_EQ(get(LUNA_RIP), rip);
    CHECK_EQ(get(LUNA_RAX), 0xaa);
    end();
  }
}

/* A write to RIP while KVM has the instruction under way counts as made behind it. */
static void rip_written(void) {
  begin();
  trap_msr(0x174, 1);
  SCRIPT({.kind = FAKE_MSR, .address = 0x174, .write = true});
  CHECK_EQ(run(), LUNA_EXIT_MSR);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  set(LUNA_RIP, 0x5000);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(get(LUNA_RIP), 0x5000);
  end();
}

/* ---- Traps ---- */

static void arguments(void) {
  begin();
  check_refused(0x10, 0, LUNA_ERROR_ARGUMENT, "cannot trap 0 registers at MSR 0x10");
  check_refused(UINT64_C(1) << 32, 1, LUNA_ERROR_RANGE, "the last MSR is 0xffffffff");
  check_refused(0xffffffff, 2, LUNA_ERROR_RANGE, "the last MSR is 0xffffffff");
  check_refused(0x8ff, 1, LUNA_ERROR_UNSUPPORTED, "KVM does not filter the x2APIC's");
  check_refused(0x7ff, 2, LUNA_ERROR_UNSUPPORTED, "cannot trap MSRs 0x7ff..0x800");
  CHECK_EQ(fake_calls(0), 0);
  trap_msr(0x7ff, 1);
  trap_msr(0x900, 1);
  trap_msr(0xffffffff, 1);
  check_refused(0x900, 1, LUNA_ERROR_OVERLAP, "cannot trap MSRs 0x900..0x900");
  end();
}

static void unsupported(void) {
  fake_config config = fake_defaults();
  config.msr_exits = 0;
  begin_with(&config);
  check_refused(0x10, 1, LUNA_ERROR_UNSUPPORTED, "has no KVM_CAP_X86_MSR_FILTER");
  const luna_vm_options options = {.unknown_msrs = 1};
  luna_vm *other;
  CHECK_FAILS(luna_vm_open(&options, &other), LUNA_ERROR_UNSUPPORTED,
              "has no KVM_CAP_X86_USER_SPACE_MSR");
  end();
}

/* The filter is set when a vCPU comes to the gate. */
static void enter_once(void) {
  SCRIPT({.kind = FAKE_HLT});
  CHECK_EQ(run(), LUNA_EXIT_HLT);
}

static void many_traps_are_one_filter(void) {
  begin();
  fake_forget();
  for (uint64_t i = 0; i < 100; i++) {
    trap_msr(0x1000 + 2 * i, 1);
  }
  CHECK_OK(luna_vm_untrap(vm, trap_msr(0x2000, 1)));
  CHECK_EQ(fake_calls(KVM_X86_SET_MSR_FILTER), 0);
  enter_once();
  CHECK_EQ(fake_calls(KVM_X86_SET_MSR_FILTER), 1);
  CHECK(fake_msr_exits(0x1000) && fake_msr_exits(0x10c6) && !fake_msr_exits(0x2000));
  enter_once();
  CHECK_EQ(fake_calls(KVM_X86_SET_MSR_FILTER), 1);
  end();
}

/* What KVM refuses at the gate ends the run, and is asked for again by the next. */
static void refused_at_the_gate(void) {
  begin();
  trap_msr(0x174, 1);
  for (uint64_t nth = 1; nth <= 2; nth++) {
    fake_fail(nth, ENOMEM);
    CHECK_EQ(run(), LUNA_ERROR_MEMORY);
    CHECK(fake_failed());
    CHECK_EQ(fake_msr_exits(0x174), 0);
  }
  fake_fail(0, 0);
  SCRIPT({.kind = FAKE_MSR, .address = 0x174});
  CHECK_EQ(run(), LUNA_EXIT_MSR);
  CHECK_EQ(fake_msr_exits(0x174), 1);
  end();
}

/* A change of the map does not open the gate. */
static void map_changes_while_stale(void) {
  uint8_t *data;
  begin();
  map_memory(0, UINT64_C(4) * PAGE, RWX, &data);
  trap_msr(0x174, 1);
  CHECK_OK(luna_vm_protect_space(vm, 0, PAGE, PAGE, LUNA_READ | LUNA_EXECUTE));
  enter_once();
  CHECK_EQ(fake_msr_exits(0x174), 1);
  end();
}

static void ranges(void) {
  begin();
  uint32_t near = trap_msr(0x10, 1);
  trap_msr(0x3000, 1); /* the last that shares a range of 0x3000 with 0x11 */
  enter_once();
  CHECK_EQ(fake_msr_ranges(), 1);
  CHECK(fake_msr_exits(0x10) && !fake_msr_exits(0x11) && fake_msr_exits(0x3000));
  trap_msr(0xc0000080, 5);
  enter_once();
  CHECK_EQ(fake_msr_ranges(), 2);
  CHECK(fake_msr_exits(0xc0000080) && fake_msr_exits(0xc0000084) && !fake_msr_exits(0xc0000085));
  CHECK_OK(luna_vm_untrap(vm, near));
  enter_once();
  CHECK(!fake_msr_exits(0x10) && fake_msr_exits(0x3000));
  end();
}

static void full(void) {
  begin();
  for (uint64_t i = 0; i < 16; i++) {
    trap_msr(0x100000 + i * 0x3000, 1);
  }
  enter_once();
  CHECK_EQ(fake_msr_ranges(), 16);
  check_refused(0x100000 + 16 * 0x3000, 1, LUNA_ERROR_LIMIT,
                "cannot trap MSR 0x130000: KVM's filter has 16 ranges of 0x3000 MSRs");
  CHECK_EQ(fake_msr_exits(0x100000), 1);
  CHECK_EQ(fake_msr_exits(0x100000 + 15 * 0x3000), 1);
  trap_msr(0x100001, 0x2fff);
  end();
  begin();
  trap_msr(0x100000, 16 * 0x3000);
  enter_once();
  CHECK_EQ(fake_msr_ranges(), 16);
  end();
}

static void every_space(void) {
  begin();
  uint32_t space;
  CHECK_OK(luna_vm_space_create(vm, &space));
  uint32_t trap = trap_msr(0x174, 1);
  CHECK_EQ(fake_msr_exits(0x174), 0);
  enter_once();
  CHECK_EQ(fake_msr_exits(0x174), 1);
  CHECK_OK(luna_vcpu_set_space(vcpu, space, 0));
  enter_once();
  CHECK_EQ(fake_msr_exits(0x174), 2);
  uint32_t later;
  CHECK_OK(luna_vm_space_create(vm, &later));
  CHECK_EQ(fake_msr_exits(0x174), 3);
  CHECK_OK(luna_vm_untrap(vm, trap));
  for (uint32_t i = 0; i < 3; i++) {
    CHECK_OK(luna_vcpu_set_space(vcpu, i == 0 ? 0 : i == 1 ? space : later, 0));
    enter_once();
    CHECK_EQ(fake_msr_exits(0x174), 2 - i);
  }
  end();
}

/* Where a vCPU is in the guest, the filters are set at once. Whichever call fails, they are as
 * before. */
static void change_while_inside(void *context) {
  uint32_t before = *(const uint32_t *)context;
  uint32_t trap = 0;
  for (uint64_t nth = 1;; nth++) {
    test_note("call %d", (int)nth);
    fake_fail(nth, EIO);
    int status = luna_vm_trap(vm, LUNA_TRAP_MSR, 0x174, 1, &trap);
    bool failed = fake_failed();
    fake_fail(0, 0);
    if (!failed) {
      CHECK_OK(status);
      break;
    }
    CHECK_EQ(status, LUNA_ERROR_SYSTEM);
    CHECK_EQ(fake_msr_exits(0x174), 0);
    CHECK_EQ(fake_msr_exits(0x10), 2);
    CHECK_FAILS(luna_vm_untrap(vm, before + 1), LUNA_ERROR_NOT_FOUND, "there is no trap");
  }
  CHECK_EQ(fake_msr_exits(0x174), 2);
  for (uint64_t nth = 1; nth <= 2; nth++) {
    fake_fail(nth, ENOMEM);
    CHECK_EQ(luna_vm_untrap(vm, trap), LUNA_ERROR_MEMORY);
    CHECK_EQ(fake_msr_exits(0x174), 2);
  }
  fake_fail(0, 0);
  CHECK_OK(luna_vm_untrap(vm, trap));
  CHECK_EQ(fake_msr_exits(0x174), 0);
}

static void all_or_none(void) {
  begin();
  uint32_t space;
  static uint32_t before;
  before = trap_msr(0x10, 1);
  CHECK_OK(luna_vm_space_create(vm, &space));
  enter_once();
  SCRIPT({.kind = FAKE_HLT, .hook = change_while_inside, .context = &before});
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(fake_msr_exits(0x10), 2);
  end();
}

/* A space that cannot be made like the others is not made. Calls that KVM may refuse on an older
 * kernel do not count. */
static void later_space_fails(void) {
  begin();
  trap_msr(0x174, 1);
  enter_once();
  unsigned open = fake_open();
  unsigned refused_spaces = 0;
  bool failed = true;
  for (uint64_t nth = 1; failed; nth++) {
    uint32_t space = 77;
    fake_fail(nth, EIO);
    int status = luna_vm_space_create(vm, &space);
    failed = fake_failed();
    fake_fail(0, 0);
    if (status == LUNA_OK) {
      CHECK_EQ(fake_msr_exits(0x174), 2);
      CHECK_OK(luna_vm_space_destroy(vm, space));
    } else {
      CHECK_EQ(space, 77);
      refused_spaces++;
    }
    CHECK_EQ(fake_open(), open);
  }
  CHECK(refused_spaces >= 4); /* open, version, create, enable, filter */
  end();
}

static void unknown(void) {
  const luna_vm_options wrong = {.unknown_msrs = 2};
  luna_vm *made;
  CHECK_FAILS(luna_vm_open(&wrong, &made), LUNA_ERROR_ARGUMENT, "unknown_msrs is 0 or 1, not 2");
  const luna_vm_options options = {.unknown_msrs = 1};
  CHECK_OK(luna_vm_open(&options, &made));
  uint32_t trap;
  CHECK_OK(luna_vm_trap(made, LUNA_TRAP_MSR, 0x174, 1, &trap));
  luna_vcpu *other;
  CHECK_OK(luna_vcpu_create(made, NULL, &other));
  CHECK_EQ(luna_vcpu_run(other, 0), LUNA_EXIT_HLT);
  CHECK_EQ(fake_msr_exits(0x174), 1);
  luna_vcpu_release(other);
  luna_vm_release(made);
}

int main(void) {
  RUN(read_and_write);
  RUN(refused);
  RUN(taken_back);
  RUN(rip_written);
  RUN(arguments);
  RUN(unsupported);
  RUN(many_traps_are_one_filter);
  RUN(refused_at_the_gate);
  RUN(map_changes_while_stale);
  RUN(ranges);
  RUN(full);
  RUN(every_space);
  RUN(all_or_none);
  RUN(later_space_fails);
  RUN(unknown);
  return test_end();
}
