/* SPDX-License-Identifier: MIT
 * The PICs, as the Hypervisor framework has them. */
#include "fixture/hvf_intr_fixture.h"

static void out(int port, uint8_t value) {
  HV(hv_vm_atpic_port_write(port, value));
}

static uint8_t in(int port) {
  uint8_t value;
  HV(hv_vm_atpic_port_read(port, &value));
  return value;
}

/* As firmware does it: vectors from 8 and 0x70, all lines open. `last` is ICW4. */
static void set_up_pics(uint8_t last) {
  static const int commands[] = {0x20, 0xa0};
  static const uint8_t bases[] = {0x08, 0x70}, places[] = {4, 2};
  for (int i = 0; i < 2; i++) {
    out(commands[i], 0x11);
    out(commands[i] + 1, bases[i]);
    out(commands[i] + 1, places[i]);
    out(commands[i] + 1, last);
    out(commands[i] + 1, 0);
  }
}

static void end_of_interrupt(unsigned vector) {
  if (vector >= 0x70) {
    out(0xa0, 0x20);
  }
  out(0x20, 0x20);
}

static void lines_lead_to_vcpu_0(void) {
  begin_halting();
  set_up_pics(1);
  HV(hv_vm_atpic_assert_irq(1));
  CHECK_EQ(reported(), 9);
  CHECK_EQ(in(0x20), 0); /* IRR */
  out(0x20, 0x0b);
  CHECK_EQ(in(0x20), 2); /* ISR */
  end_of_interrupt(9);
  CHECK_EQ(in(0x20), 0);
  check_quiet(); /* an edge */
  HV(hv_vm_atpic_deassert_irq(1));
  HV(hv_vm_atpic_assert_irq(12));
  CHECK_EQ(reported(), 0x74);
  end_of_interrupt(0x74);
  check_quiet();
  HV_IS(hv_vm_atpic_assert_irq(2), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_atpic_assert_irq(-1), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_atpic_assert_irq(16), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_atpic_deassert_irq(16), HV_BAD_ARGUMENT);
  end();
}

static void *pulse_soon(void *unused) {
  (void)unused;
  usleep(20000);
  hv_return_t result = hv_vm_atpic_assert_irq(4);
  return (void *)(intptr_t)(result == HV_SUCCESS ? hv_vm_atpic_deassert_irq(4) : result);
}

static void a_line_wakes_a_vcpu_that_runs(void) {
  pthread_t thread;
  void *result;
  begin_halting();
  set_up_pics(1);
  CHECK_EQ(pthread_create(&thread, NULL, pulse_soon, NULL), 0);
  CHECK_EQ(reported(), 12);
  CHECK_EQ(pthread_join(thread, &result), 0);
  HV((hv_return_t)(intptr_t)result);
  end();
}

static void lines_have_priorities(void) {
  begin_halting();
  set_up_pics(1);
  HV(hv_vm_atpic_assert_irq(5));
  CHECK_EQ(reported(), 13);
  HV(hv_vm_atpic_assert_irq(6)); /* below the one in service */
  HV(hv_vm_atpic_assert_irq(0)); /* above it */
  HV(hv_vm_atpic_assert_irq(8)); /* the second chip's: at line 2 */
  CHECK_EQ(reported(), 8);
  end_of_interrupt(8);
  CHECK_EQ(reported(), 0x70);
  end_of_interrupt(0x70);
  check_quiet();
  end_of_interrupt(13);
  CHECK_EQ(reported(), 14);
  end();
}

static void masks_hold_lines_up(void) {
  begin_halting();
  set_up_pics(1);
  out(0x21, 0xff);
  CHECK_EQ(in(0x21), 0xff);
  HV(hv_vm_atpic_assert_irq(3));
  HV(hv_vm_atpic_deassert_irq(3)); /* the edge is kept */
  check_quiet();
  CHECK_EQ(in(0x20), 8);
  out(0x21, 0xf7);
  CHECK_EQ(reported(), 11);
  end();
}

static void levels_come_again(void) {
  begin_halting();
  set_up_pics(1);
  out(0x4d0, 0xff);
  out(0x4d1, 0xff);
  CHECK_EQ(in(0x4d0), 0xf8); /* 0 to 2, 8 and 13 are edges */
  CHECK_EQ(in(0x4d1), 0xde);
  HV(hv_vm_atpic_assert_irq(10));
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(reported(), 0x72);
    end_of_interrupt(0x72);
  }
  HV(hv_vm_atpic_deassert_irq(10));
  unsigned left = 0; /* one may be on its way to the guest */
  HV(hv_vcpu_run_until(vcpu, luna_clock() + 5000000));
  while (field(VMCS_RO_EXIT_REASON) == VMX_REASON_IO && left++ < 2) {
    skip();
    end_of_interrupt(0x72);
    HV(hv_vcpu_run_until(vcpu, luna_clock() + 5000000));
  }
  CHECK(left < 2);
  end();
}

static void interrupts_can_end_by_themselves(void) {
  begin_halting();
  set_up_pics(3); /* AEOI */
  for (int i = 0; i < 2; i++) {
    HV(hv_vm_atpic_assert_irq(4));
    HV(hv_vm_atpic_deassert_irq(4));
    CHECK_EQ(reported(), 12);
  }
  out(0x20, 0x0b);
  CHECK_EQ(in(0x20), 0);
  end();
}

static void priorities_rotate(void) {
  begin_halting();
  set_up_pics(1);
  out(0x20, 0xc3); /* line 3 is the lowest: 4 the highest */
  HV(hv_vm_atpic_assert_irq(3));
  HV(hv_vm_atpic_assert_irq(4));
  CHECK_EQ(reported(), 12);
  out(0x20, 0xa0); /* ends it, and makes it the lowest */
  CHECK_EQ(reported(), 11);
  out(0x20, 0x63); /* ends line 3 by its number */
  HV(hv_vm_atpic_deassert_irq(4));
  HV(hv_vm_atpic_assert_irq(4));
  HV(hv_vm_atpic_assert_irq(5));
  CHECK_EQ(reported(), 13); /* behind the lowest is the highest */
  end();
}

static void lines_can_be_polled(void) {
  HV(hv_vm_create(HV_VM_ACCEL_APIC)); /* without a vCPU */
  set_up_pics(1);
  out(0x20, 0x0c);
  CHECK_EQ(in(0x20), 0); /* nothing is there */
  HV(hv_vm_atpic_assert_irq(6));
  out(0x20, 0x0c);
  CHECK_EQ(in(0x20), 0x86);
  out(0x20, 0x0b);
  CHECK_EQ(in(0x20), 0x40); /* it is in service */
  HV(hv_vm_destroy());
}

static void special_masks_let_lower_lines_through(void) {
  begin_halting();
  set_up_pics(1);
  HV(hv_vm_atpic_assert_irq(1));
  CHECK_EQ(reported(), 9);
  HV(hv_vm_atpic_assert_irq(7));
  check_quiet();
  out(0x21, 0x02);
  out(0x20, 0x68); /* special mask mode */
  CHECK_EQ(reported(), 15);
  end();
}

static void the_program_injects_what_the_pics_request(void) {
  begin_halting();
  set_up_pics(1);
  apic_write(LINT0, 0x10700); /* masked */
  HV(hv_vm_atpic_assert_irq(1));
  check_quiet();
  apic_write(LINT0, 0x700);
  CHECK_EQ(reported(), 9);
  end_of_interrupt(9);
  HV(hv_vcpu_inject_extint(vcpu));
  HV_IS(hv_vcpu_inject_extint(vcpu), HV_BUSY);
  check_quiet(); /* nothing is requested yet */
  HV(hv_vm_atpic_assert_irq(5));
  CHECK_EQ(reported(), 13);
  HV(hv_vcpu_inject_extint(vcpu)); /* it was used up */
  end();
}

static void the_state_of_a_pic_goes_both_ways(void) {
  hv_atpic_state_ext_t state = {.version = HV_ATPIC_STATE_EXT_VER};
  begin_halting();
  set_up_pics(1);
  out(0x21, 0xfd);
  HV(hv_vm_atpic_get_state(&state, true));
  CHECK_EQ(state.state.ready, true);
  CHECK_EQ(state.state.irq_base, 8);
  CHECK_EQ(state.state.mask, 0xfd);
  CHECK_EQ(state.state.icw_num, 1);
  CHECK_EQ(state.state.lowprio, 7);
  HV(hv_vm_atpic_assert_irq(3));
  CHECK_EQ(in(0x20), 8);
  HV(hv_vm_atpic_put_state(&state, true));
  CHECK_EQ(in(0x20), 0);
  HV(hv_vm_atpic_get_state(&state, false));
  CHECK_EQ(state.state.irq_base, 0x70);
  state.state.irq_base = 0x50;
  HV(hv_vm_atpic_put_state(&state, false));
  out(0x21, 0xfb);
  HV(hv_vm_atpic_assert_irq(9));
  CHECK_EQ(reported(), 0x51);
  state.state.lowprio = 8;
  HV_IS(hv_vm_atpic_put_state(&state, false), HV_BAD_ARGUMENT);
  state.state.lowprio = 7;
  state.state.icw_num = 5;
  HV_IS(hv_vm_atpic_put_state(&state, false), HV_BAD_ARGUMENT);
  state.version = 99;
  HV_IS(hv_vm_atpic_get_state(&state, false), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_atpic_put_state(&state, false), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_atpic_get_state(NULL, true), HV_BAD_ARGUMENT);
  end();
}

static void ports_are_checked(void) {
  uint8_t value;
  HV(hv_vm_create(HV_VM_ACCEL_APIC));
  static const int ports[] = {0, 0x22, 0x1f, 0xa2, 0x4d2, -1};
  for (size_t i = 0; i < sizeof ports / sizeof *ports; i++) {
    HV_IS(hv_vm_atpic_port_read(ports[i], &value), HV_BAD_ARGUMENT);
    HV_IS(hv_vm_atpic_port_write(ports[i], 0), HV_BAD_ARGUMENT);
  }
  HV_IS(hv_vm_atpic_port_read(0x20, NULL), HV_BAD_ARGUMENT);
  HV(hv_vm_destroy());
}

int main(void) {
  RUN_KVM(lines_lead_to_vcpu_0);
  RUN_KVM(a_line_wakes_a_vcpu_that_runs);
  RUN_KVM(lines_have_priorities);
  RUN_KVM(masks_hold_lines_up);
  RUN_KVM(levels_come_again);
  RUN_KVM(interrupts_can_end_by_themselves);
  RUN_KVM(priorities_rotate);
  RUN_KVM(lines_can_be_polled);
  RUN_KVM(special_masks_let_lower_lines_through);
  RUN_KVM(the_program_injects_what_the_pics_request);
  RUN_KVM(the_state_of_a_pic_goes_both_ways);
  RUN_KVM(ports_are_checked);
  return test_end();
}
