/* SPDX-License-Identifier: MIT
 * Hardware breakpoints and single steps: what KVM is told, when, and what comes of its exits. */
#include "fixture/debug_fixture.h"

#include <errno.h>

#include "kvm/kvm.h"
#include "vcpu/vcpu.h"

static const fake_step line[] = {{.kind = FAKE_CODE, .address = CODE},
                                 {.kind = FAKE_CODE, .address = NEXT, .value = DATA},
                                 {.kind = FAKE_CODE, .address = LATER},
                                 {.kind = FAKE_HLT}};
#define LINE() fake_script(line, sizeof line / sizeof *line)

static void breakpoint(void) {
  begin_debug(NULL);
  set_break(LUNA_BREAK_EXECUTE, NEXT);
  LINE();
  CHECK_EQ(run(), LUNA_EXIT_DEBUG);
  check_debug(number, NEXT);
  CHECK_EQ(e->dr6, 0xffff0ff1);
  CHECK_EQ(e->reason, KVM_EXIT_DEBUG);
  CHECK_EQ(told(), 1);
  CHECK_EQ(control(), KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP);
  CHECK_EQ(fake_guest_debug()->arch.debugreg[0], NEXT);
  CHECK_EQ(fake_guest_debug()->arch.debugreg[7], 0x402);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(told(), 3); /* a single step, and the breakpoint again */
  CHECK_EQ(entries(), 3);
  CHECK_EQ(control(), KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP);
  end();
}

static void next_arrival_is_reported(void) {
  begin_debug(NULL);
  SCRIPT({.kind = FAKE_CODE, .address = CODE}, {.kind = FAKE_CODE, .address = CODE},
         {.kind = FAKE_CODE, .address = NEXT}, {.kind = FAKE_CODE, .address = CODE});
  set_break(LUNA_BREAK_EXECUTE, CODE);
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(run(), LUNA_EXIT_DEBUG);
    check_debug(number, CODE);
  }
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  end();
}

static void first_instruction(void) {
  begin_debug(NULL);
  luna_vcpu_release(vcpu);
  create(CODE);
  set_break(LUNA_BREAK_EXECUTE, CODE);
  LINE();
  CHECK_EQ(run(), LUNA_EXIT_HLT); /* the run began there */
  end();
}

/* The guest has gone on and may have come back: that it was seen there before says nothing. */
static void arrival_that_a_timeout_ends(void) {
  begin_debug(NULL);
  LINE();
  CHECK_EQ(step(), LUNA_EXIT_DEBUG);
  check_debug(0, NEXT);
  SCRIPT({.kind = FAKE_SPIN}, {.kind = FAKE_CODE, .address = NEXT});
  for (uint64_t before = entries(); entries() == before;) { /* the time may pass before it enters */
    CHECK_EQ(luna_vcpu_run(vcpu, luna_clock() + 20 * MILLISECOND), LUNA_EXIT_TIMEOUT);
  }
  set_break(LUNA_BREAK_EXECUTE, NEXT);
  fake_script(steps + 1, 1);
  CHECK_EQ(run(), LUNA_EXIT_DEBUG);
  check_debug(number, NEXT);
  end();
}

static void closed_breakpoint_costs_nothing(void) {
  begin_debug(NULL);
  set_break(LUNA_BREAK_EXECUTE, NEXT);
  LINE();
  CHECK_EQ(run(), LUNA_EXIT_DEBUG);
  CHECK_OK(luna_vcpu_unbreak(vcpu, number));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(told(), 2);
  CHECK_EQ(control(), 0);
  CHECK_EQ(vcpu->attention, 0);
  fake_forget();
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(fake_calls(0), 1);
  end();
}

static void watchpoint(void) {
  begin_debug(NULL);
  CHECK_OK(luna_vcpu_break(vcpu, LUNA_BREAK_WRITE, DATA, 8, &number));
  uint32_t second;
  CHECK_OK(luna_vcpu_break(vcpu, LUNA_BREAK_ACCESS, DATA + 4, 4, &second));
  CHECK_OK(luna_vcpu_unbreak(vcpu, number));
  CHECK_OK(luna_vcpu_break(vcpu, LUNA_BREAK_WRITE, DATA, 4, &number));
  LINE();
  CHECK_EQ(run(), LUNA_EXIT_DEBUG);
  check_debug(number, LATER);
  CHECK_EQ(fake_guest_debug()->arch.debugreg[0], DATA);
  CHECK_EQ(fake_guest_debug()->arch.debugreg[1], DATA + 4);
  CHECK_EQ(fake_guest_debug()->arch.debugreg[7], 0x400 | 0xa | 0xd0000 | 0xf00000);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  end();
}

static void watchpoint_while_getting_over(void) {
  begin_debug(NULL);
  set_break(LUNA_BREAK_EXECUTE, NEXT);
  uint32_t watch;
  CHECK_OK(luna_vcpu_break(vcpu, LUNA_BREAK_WRITE, DATA, 1, &watch));
  LINE();
  CHECK_EQ(run(), LUNA_EXIT_DEBUG);
  check_debug(number, NEXT);
  CHECK_EQ(run(), LUNA_EXIT_DEBUG);
  check_debug(watch, LATER);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  end();
}

static void single_step(void) {
  begin_debug(NULL);
  LINE();
  CHECK_EQ(step(), LUNA_EXIT_DEBUG);
  check_debug(0, NEXT);
  CHECK_EQ(e->dr6, 0xffff0ff0 | BS);
  CHECK_EQ(step(), LUNA_EXIT_DEBUG);
  check_debug(0, LATER);
  CHECK_EQ(told(), 2);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(control(), 0);
  CHECK_EQ(vcpu->attention, 0);
  end();
}

static void step_over_a_breakpoint(void) {
  begin_debug(NULL);
  set_break(LUNA_BREAK_EXECUTE, CODE);
  LINE();
  CHECK_EQ(step(), LUNA_EXIT_DEBUG);
  check_debug(0, NEXT);
  end();
}

/* KVM forgets a step that RIP is written after, so the registers go first. */
static void registers_before_step(bool sync) {
  fake_config config = fake_defaults();
  config.sync_regs = sync ? config.sync_regs : 0;
  begin_debug(&config);
  LINE();
  CHECK_EQ(step(), LUNA_EXIT_DEBUG);
  set(LUNA_RIP, LATER);
  set(LUNA_RAX, 0x1234);
  set(LUNA_GDTR_LIMIT, 0x77);
  fake_forget();
  CHECK_EQ(step(), LUNA_EXIT_DEBUG);
  CHECK_EQ(e->breakpoint, 0);
  CHECK_EQ(fake_calls(KVM_SET_REGS), 1);
  CHECK_EQ(fake_calls(KVM_SET_SREGS), 1);
  CHECK_EQ(fake_regs()->rax, 0x1234);
  CHECK_EQ(fake_sregs()->gdt.limit, 0x77);
  CHECK_EQ(fake_run_page()->kvm_dirty_regs, 0);
  end();
}

static void registers_before_steps(void) {
  registers_before_step(true);
  registers_before_step(false);
}

static void step_of_an_access(void) {
  begin_debug(NULL);
  SCRIPT({.kind = FAKE_PIO, .address = 0x20, .size = 1}, {.kind = FAKE_CODE, .address = NEXT});
  set(LUNA_RIP, CODE);
  CHECK_EQ(step(), LUNA_EXIT_PIO);
  CHECK_EQ(step(), LUNA_EXIT_PIO); /* open still */
  CHECK_OK(luna_vcpu_answer(vcpu, 0x42));
  CHECK_EQ(step(), LUNA_EXIT_DEBUG);
  check_debug(0, NEXT);
  CHECK_EQ(get(LUNA_RAX), 0x42);
  CHECK_EQ(step(), LUNA_EXIT_DEBUG);
  check_debug(0, LATER);
  end();
}

/* The instruction at the breakpoint exits: it is finished before the breakpoint is set again. */
static void access_at_a_breakpoint(void) {
  begin_debug(NULL);
  set_break(LUNA_BREAK_EXECUTE, CODE);
  LINE();
  CHECK_EQ(run(), LUNA_EXIT_DEBUG);
  SCRIPT({.kind = FAKE_PIO, .address = 0x20, .size = 1}, {.kind = FAKE_CODE, .address = NEXT});
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_EQ(get(LUNA_RIP), CODE);
  CHECK_OK(luna_vcpu_answer(vcpu, 0x42));
  fake_forget();
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(get(LUNA_RAX), 0x42);
  CHECK_EQ(told(), 1);
  CHECK_EQ(entries(), 2);
  CHECK_EQ(control(), KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP);
  end();
}

static void kick(void *context) {
  luna_vcpu_interrupt(context);
}

static void kick_while_getting_over(void) {
  begin_debug(NULL);
  set_break(LUNA_BREAK_EXECUTE, NEXT);
  LINE();
  CHECK_EQ(run(), LUNA_EXIT_DEBUG);
  luna_vcpu_interrupt(vcpu);
  CHECK_EQ(run(), LUNA_EXIT_INTERRUPTED);
  const fake_step spin[] = {{.kind = FAKE_SPIN, .hook = kick, .context = vcpu},
                            {.kind = FAKE_CODE, .address = NEXT},
                            {.kind = FAKE_CODE, .address = NEXT}};
  fake_script(spin, 3);
  CHECK_EQ(run(), LUNA_EXIT_INTERRUPTED);
  CHECK_EQ(luna_vcpu_run(vcpu, luna_clock() + 20 * MILLISECOND), LUNA_EXIT_TIMEOUT);
  fake_script(spin + 1, 2);
  CHECK_EQ(run(), LUNA_EXIT_DEBUG); /* the first is got over, the second is an arrival */
  check_debug(number, NEXT);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  end();
}

static void breakpoints_move(void) {
  begin_debug(NULL);
  set_break(LUNA_BREAK_EXECUTE, CODE);
  uint32_t space;
  CHECK_OK(luna_vm_space_create(vm, &space));
  SCRIPT({.kind = FAKE_CODE, .address = CODE}, {.kind = FAKE_CODE, .address = CODE});
  CHECK_EQ(run(), LUNA_EXIT_DEBUG);
  int old = fake_last_fd(KVM_SET_GUEST_DEBUG);
  CHECK_OK(luna_vcpu_set_space(vcpu, space, 0));
  CHECK_EQ(run(), LUNA_EXIT_DEBUG);
  check_debug(number, CODE);
  CHECK_EQ(e->space, space);
  CHECK(fake_last_fd(KVM_SET_GUEST_DEBUG) != old);
  CHECK_OK(luna_vcpu_unbreak(vcpu, number));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(control(), 0);
  CHECK_OK(luna_vcpu_set_space(vcpu, 0, 0));
  fake_forget();
  CHECK_EQ(run(), LUNA_EXIT_HLT); /* what it left behind there goes */
  CHECK_EQ(fake_last_fd(KVM_SET_GUEST_DEBUG), old);
  CHECK_EQ(vcpu->seat->debug.control, 0);
  CHECK_EQ(vcpu->attention, 0);
  end();
}

static void next_vcpu_has_none(void) {
  begin_debug(NULL);
  set_break(LUNA_BREAK_EXECUTE, CODE);
  LINE();
  CHECK_EQ(run(), LUNA_EXIT_DEBUG);
  luna_vcpu_release(vcpu);
  create(CODE);
  CHECK_EQ(control(), 0);
  CHECK_EQ(vcpu->attention, 0);
  end();
}

/* The guest's own debug registers while ours are set. */
static void foreign_trap(void) {
  begin_debug(NULL);
  set_break(LUNA_BREAK_EXECUTE, CODE);
  /* struct kvm_debug_exit_arch: exception, pc, dr6 */
  SCRIPT({.kind = FAKE_OTHER, .reason = KVM_EXIT_DEBUG, .words = {1, NEXT, 0xffff0ff4}});
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  struct kvm_debugregs debugregs;
  CHECK_EQ(luna_kvm_get_debugregs(vcpu->fd, &debugregs), 0);
  CHECK_EQ(debugregs.dr6, 0xffff0ff4);
  const uint8_t *vectors;
  CHECK_EQ(fake_taken(&vectors), 1);
  CHECK_EQ(vectors[0], 1);
  end();
}

static void refusals(void) {
  begin_debug(NULL);
  CHECK_FAILS(luna_vcpu_break(vcpu, 4, 0, 1, &number), LUNA_ERROR_ARGUMENT, "no kind 4");
  CHECK_FAILS(luna_vcpu_break(vcpu, LUNA_BREAK_EXECUTE, 0, 2, &number), LUNA_ERROR_RANGE,
              "has the size 1");
  CHECK_FAILS(luna_vcpu_break(vcpu, LUNA_BREAK_WRITE, 0, 3, &number), LUNA_ERROR_RANGE,
              "cannot watch 3 bytes");
  CHECK_FAILS(luna_vcpu_break(vcpu, LUNA_BREAK_WRITE, 2, 4, &number), LUNA_ERROR_RANGE,
              "cannot watch 4 bytes at gva 0x2");
  for (uint64_t i = 0; i < 4; i++) {
    set_break(LUNA_BREAK_EXECUTE, i);
    CHECK_EQ(number, i + 1);
  }
  CHECK_FAILS(luna_vcpu_break(vcpu, LUNA_BREAK_EXECUTE, 9, 1, &number), LUNA_ERROR_LIMIT,
              "all are taken");
  CHECK_FAILS(luna_vcpu_unbreak(vcpu, 5), LUNA_ERROR_NOT_FOUND, "no breakpoint 5");
  CHECK_OK(luna_vcpu_unbreak(vcpu, 2));
  set_break(LUNA_BREAK_EXECUTE, 9);
  end();
}

static void unsupported(void) {
  fake_config config = fake_defaults();
  config.stops = 0;
  begin_debug(&config);
  static const char *const names[] = {"hardware breakpoint", "watchpoint", "watchpoint",
                                      "software breakpoint"};
  for (int kind = LUNA_BREAK_EXECUTE; kind <= LUNA_BREAK_SOFTWARE; kind++) {
    CHECK_FAILS(luna_vcpu_break(vcpu, kind, CODE, 1, &number), LUNA_ERROR_UNSUPPORTED, names[kind]);
    CHECK_TEXT(luna_error_message(), "real mode");
  }
  CHECK_EQ(vcpu->attention, 0);
  end();
}

static void place(void) {
  begin_debug(NULL);
  uint64_t gva;
  uint64_t gpa;
  set(LUNA_CS_BASE, 0x10000);
  set(LUNA_RIP, 0x234);
  CHECK_OK(luna_vcpu_place(vcpu, &gva, &gpa));
  CHECK_EQ(gva, 0x10234);
  CHECK_EQ(gpa, 0x10234);
  set(LUNA_CR0, 0x80000011);
  CHECK_FAILS(luna_vcpu_place(vcpu, &gva, &gpa), LUNA_ERROR_NOT_FOUND, "leads nowhere");
  end();
}

/* Whatever KVM refuses, a second try comes to the same end. */
static void failures(void) {
  for (uint64_t nth = 1;; nth++) {
    test_note("call %" PRIu64, nth);
    begin_debug(NULL);
    set_break(LUNA_BREAK_EXECUTE, NEXT);
    LINE();
    CHECK_EQ(step(), LUNA_EXIT_DEBUG);
    set(LUNA_RIP, CODE);
    LINE();
    fake_fail(nth, ENOMEM);
    int kind = run();
    bool failed = fake_failed();
    fake_fail(0, 0);
    if (kind < 0) {
      CHECK(failed);
      kind = run();
    }
    CHECK_EQ(kind, LUNA_EXIT_DEBUG);
    check_debug(number, NEXT);
    CHECK_EQ(run(), LUNA_EXIT_HLT);
    end();
    if (!failed) {
      break;
    }
  }
}

/* A refusal while breakpoints are tried out says nothing of the host: the next try finds out. */
static void failures_of_the_trial(void) {
  static const luna_stops_feature features[] = {LUNA_DEBUG_HARDWARE, LUNA_DEBUG_WATCH,
                                                LUNA_DEBUG_SOFTWARE};
  int answers[3];
  fake_install(NULL);
  for (int i = 0; i < 3; i++) {
    answers[i] = luna_stops_probe(LUNA_ACCEL_KVM, features[i]);
    CHECK(answers[i] > 0);
  }
  for (uint64_t nth = 1;; nth++) {
    test_note("call %" PRIu64, nth);
    fake_install(NULL);
    fake_fail(nth, EPERM);
    int answer = luna_stops_probe(LUNA_ACCEL_KVM, LUNA_DEBUG_HARDWARE);
    bool failed = fake_failed();
    fake_fail(0, 0);
    CHECK(answer < 0 || answer == answers[0]);
    for (int i = 0; i < 3; i++) {
      CHECK_EQ(luna_stops_probe(LUNA_ACCEL_KVM, features[i]), answers[i]);
    }
    if (!failed) {
      break;
    }
  }
}

int main(void) {
  RUN(failures_of_the_trial);
  RUN(breakpoint);
  RUN(next_arrival_is_reported);
  RUN(first_instruction);
  RUN(arrival_that_a_timeout_ends);
  RUN(closed_breakpoint_costs_nothing);
  RUN(watchpoint);
  RUN(watchpoint_while_getting_over);
  RUN(single_step);
  RUN(step_over_a_breakpoint);
  RUN(registers_before_steps);
  RUN(step_of_an_access);
  RUN(access_at_a_breakpoint);
  RUN(kick_while_getting_over);
  RUN(breakpoints_move);
  RUN(next_vcpu_has_none);
  RUN(foreign_trap);
  RUN(refusals);
  RUN(unsupported);
  RUN(place);
  RUN(failures);
  return test_end();
}
