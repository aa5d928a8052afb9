/* SPDX-License-Identifier: MIT
 * Steps and breakpoints of a KVM that gives the guest their exceptions: they arrive at the stubs of
 * the system area. */
#include "fixture/mode_fixture.h"

#include "stops.h"
#include "vcpu/mode.h"
#include "vcpu/system.h"

enum {
  CODE = 0x401000,
  TF = 0x100,
  FLAGS = 0x246
};

static struct kvm_regs stub_regs;
static struct kvm_sregs stub_sregs;
static fake_step steps[2];

/* The guest enters and takes an exception at `rip`, with these flags on the stack. */
static void take(int vector, uint64_t rip, uint64_t rflags) {
  const uint64_t words[] = {rip, LUNA_SELECTOR_USER_CODE64, rflags, 0x7ff8,
                            LUNA_SELECTOR_USER_DATA};
  uint64_t stack = luna_vcpu_system(vcpu) + LUNA_SYSTEM_STACK_TOP - sizeof words;
  memcpy(host(stack), words, sizeof words);
  stub_regs = *fake_regs();
  stub_sregs = *fake_sregs();
  stub_regs.rip = luna_vcpu_system(vcpu) + LUNA_SYSTEM_STUBS + (uint64_t)vector * LUNA_STUB_SIZE;
  stub_regs.rsp = stack;
  stub_regs.rflags = 2;
  stub_sregs.cs = luna_mode_segment(0x00af9b000000ffff, LUNA_SELECTOR_CODE64);
  steps[0] = (fake_step){.kind = FAKE_PIO,
                         .address = LUNA_EXCEPTION_PORT,
                         .size = 1,
                         .write = true,
                         .regs = &stub_regs,
                         .sregs = &stub_sregs};
  steps[1] = (fake_step){.kind = FAKE_HLT};
  fake_script(steps, 2);
}

/* In ring 3, at CODE, with the state in KVM. */
static void begin_user(void) {
  CHECK(luna_stops_probe(LUNA_ACCEL_KVM, LUNA_DEBUG_SOFTWARE) >= 0);
  begin(LUNA_MODE_USER64);
  map(CODE, PAGE, RWX);
  CHECK_OK(luna_vcpu_set(vcpu, LUNA_RIP, CODE));
  CHECK_OK(luna_vcpu_set(vcpu, LUNA_RFLAGS, FLAGS));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
}

static void trap_ends_a_step(void) {
  begin_user();
  take(1, CODE + 1, FLAGS | TF);
  CHECK_EQ(luna_vcpu_step(vcpu, 0), LUNA_EXIT_DEBUG);
  CHECK_EQ(e->breakpoint, 0);
  CHECK_EQ(e->address, CODE + 1);
  CHECK_EQ(get(LUNA_RIP), CODE + 1);
  CHECK_EQ(get(LUNA_RFLAGS), FLAGS);
  CHECK_EQ(get(LUNA_RSP), 0x7ff8);
  end();
}

static void other_exceptions_lose_the_trap_flag(void) {
  begin_user();
  take(6, CODE, FLAGS | TF);
  CHECK_EQ(luna_vcpu_step(vcpu, 0), LUNA_EXIT_EXCEPTION);
  CHECK_EQ(e->vector, 6);
  CHECK_EQ(get(LUNA_RFLAGS), FLAGS);
  end();
}

static void the_guests_own_trap_flag_stays(void) {
  begin_user();
  CHECK_OK(luna_vcpu_set(vcpu, LUNA_RFLAGS, FLAGS | TF));
  take(6, CODE, FLAGS | TF);
  CHECK_EQ(luna_vcpu_step(vcpu, 0), LUNA_EXIT_EXCEPTION);
  CHECK_EQ(get(LUNA_RFLAGS), FLAGS | TF);
  end();
}

static void trap_without_a_step_is_the_guests(void) {
  begin_user();
  take(1, CODE + 1, FLAGS | TF);
  CHECK_EQ(run(), LUNA_EXIT_EXCEPTION);
  CHECK_EQ(e->vector, 1);
  CHECK_EQ(get(LUNA_RFLAGS), FLAGS | TF);
  end();
}

static void int3_is_a_breakpoint(void) {
  uint32_t number;
  begin_user();
  CHECK_OK(luna_vcpu_break(vcpu, LUNA_BREAK_SOFTWARE, CODE + 4, 1, &number));
  take(3, CODE + 5, FLAGS);
  CHECK_EQ(run(), LUNA_EXIT_DEBUG);
  CHECK_EQ(e->breakpoint, number);
  CHECK_EQ(e->address, CODE + 4);
  CHECK_EQ(get(LUNA_RIP), CODE + 4);
  take(1, CODE + 5, FLAGS | TF); /* got over by a step that ends the same way */
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(fake_regs()->rip, CODE + 5);
  CHECK_EQ(fake_regs()->rflags, FLAGS);
  take(3, CODE + 9, FLAGS);
  CHECK_EQ(run(), LUNA_EXIT_EXCEPTION); /* not one of ours */
  CHECK_EQ(e->vector, 3);
  CHECK_EQ(get(LUNA_RIP), CODE + 9);
  end();
}

int main(void) {
  RUN(trap_ends_a_step);
  RUN(other_exceptions_lose_the_trap_flag);
  RUN(the_guests_own_trap_flag_stays);
  RUN(trap_without_a_step_is_the_guests);
  RUN(int3_is_a_breakpoint);
  return test_end();
}
