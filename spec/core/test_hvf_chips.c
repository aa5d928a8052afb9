/* SPDX-License-Identifier: MIT
 * The I/O APIC and the PICs, as the Hypervisor framework has them. */
#include "hvf_fixture.h"

enum {
  HANDLERS = 0x2000,
  REPORT = 0x80,
  EOI = 0xb0,
  SVR = 0xf0,
  LINT0 = 0x350,
  MASKED = 1 << 16,
  LEVEL = 1 << 15,
  REMOTE = 1 << 14
};
#define PAGE_GPA UINT64_C(0xfec00000)

static void apic_write(uint32_t offset, uint32_t data) {
  bool done = false;
  HV(hv_vcpu_apic_write(vcpu, offset, data, &done));
  CHECK(done);
}

/* sti; hlt; jmp back. Each handler: mov al, vector; out REPORT, al; iret. */
static void begin_halting(void) {
  static const uint8_t code[] = {0xfb, 0xf4, 0xeb, 0xfd};
  begin_with(code, sizeof code, HV_VM_ACCEL_APIC);
  for (unsigned vector = 0; vector < 256; vector++) {
    uint16_t place = (uint16_t)(HANDLERS + vector * 8);
    const uint8_t handler[] = {0xb0, (uint8_t)vector, 0xe6, REPORT, 0xcf};
    memcpy(ram + place, handler, sizeof handler);
    memcpy(ram + vector * 4, &place, sizeof place);
  }
  set_field(VMCS_GUEST_IDTR_BASE, 0);
  set_field(VMCS_GUEST_IDTR_LIMIT, 0x3ff);
  apic_write(SVR, 0x1ff);
}

static unsigned reported(void) {
  CHECK_EQ(run(), VMX_REASON_IO);
  CHECK_EQ(field(VMCS_RO_EXIT_QUALIFIC) >> 16, REPORT);
  unsigned vector = get(HV_X86_RAX) & 0xff;
  skip();
  return vector;
}

static void check_quiet(void) {
  HV(hv_vcpu_run_until(vcpu, luna_clock() + 5000000));
  CHECK_EQ(field(VMCS_RO_EXIT_REASON), VMX_REASON_VMX_TIMER_EXPIRED);
}

/* ---- The I/O APIC ---- */

static uint32_t read_register(uint32_t number) {
  uint32_t data;
  HV(hv_vm_ioapic_write(PAGE_GPA, number));
  HV(hv_vm_ioapic_read(PAGE_GPA + 0x10, &data));
  return data;
}

static void write_register(uint32_t number, uint32_t data) {
  HV(hv_vm_ioapic_write(PAGE_GPA, number));
  HV(hv_vm_ioapic_write(PAGE_GPA + 0x10, data));
}

static void write_pin(uint32_t pin, uint64_t entry) {
  write_register(0x11 + 2 * pin, (uint32_t)(entry >> 32));
  write_register(0x10 + 2 * pin, (uint32_t)entry);
}

static void the_ioapic_has_registers(void) {
  uint32_t data;
  HV(hv_vm_create(HV_VM_ACCEL_APIC));
  write_register(0, 0xffffffff);
  CHECK_EQ(read_register(0), 0x0f000000);
  CHECK_EQ(read_register(1), 0x1f0011); /* 32 pins */
  CHECK_EQ(read_register(2), 0x0f000000);
  CHECK_EQ(read_register(0x10), MASKED);
  write_register(0x10, 0xffffffff);
  CHECK_EQ(read_register(0x10), 0x1afff); /* without what is read-only */
  write_register(0x4f, 0xffffffff);
  CHECK_EQ(read_register(0x4f), 0xff000000);
  CHECK_EQ(read_register(0x50), 0);
  HV(hv_vm_ioapic_read(PAGE_GPA, &data));
  CHECK_EQ(data, 0x50);
  HV(hv_vm_ioapic_read(PAGE_GPA + 0x20, &data));
  CHECK_EQ(data, 0);
  HV_IS(hv_vm_ioapic_read(PAGE_GPA - 4, &data), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_ioapic_read(PAGE_GPA + 4096, &data), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_ioapic_read(PAGE_GPA, NULL), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_ioapic_write(PAGE_GPA + 4096, 0), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_ioapic_assert_irq(-1), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_ioapic_assert_irq(32), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_ioapic_deassert_irq(32), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_ioapic_pulse_irq(32), HV_BAD_ARGUMENT);
  HV(hv_vm_destroy());
}

static void edges_are_sent_once(void) {
  begin_halting();
  write_pin(3, 0x41);
  HV(hv_vm_ioapic_assert_irq(3));
  CHECK_EQ(reported(), 0x41);
  apic_write(EOI, 0);
  HV(hv_vm_ioapic_assert_irq(3)); /* it is high already */
  check_quiet();
  HV(hv_vm_ioapic_deassert_irq(3));
  HV(hv_vm_ioapic_pulse_irq(3));
  CHECK_EQ(reported(), 0x41);
  apic_write(EOI, 0);
  write_pin(3, MASKED | 0x41);
  HV(hv_vm_ioapic_pulse_irq(3));
  check_quiet();
  end();
}

/* The guest's handler ends the interrupt at its local APIC itself. */
static void set_ending_handler(uint8_t vector) {
  const uint8_t handler[] = {0x66, 0xc7, 0x06, 0xb0,   0,    0,      0,
                             0,    0,    0xb0, vector, 0xe6, REPORT, 0xcf};
  const uint16_t place = 0x3000;
  memcpy(ram + place, handler, sizeof handler);
  memcpy(ram + vector * 4, &place, sizeof place);
  set_field(VMCS_GUEST_DS_BASE, 0xfee00000);
}

static void levels_are_sent_until_they_fall(void) {
  begin_halting();
  set_ending_handler(0x52);
  write_pin(5, LEVEL | 0x52);
  HV(hv_vm_ioapic_assert_irq(5));
  CHECK_EQ(read_register(0x1a) & REMOTE, REMOTE);
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(reported(), 0x52); /* again and again, as the line stays high */
  }
  HV(hv_vm_ioapic_deassert_irq(5));
  HV(hv_vcpu_run_until(vcpu, luna_clock() + 5000000)); /* what was under way */
  while (field(VMCS_RO_EXIT_REASON) == VMX_REASON_IO) {
    skip();
    HV(hv_vcpu_run_until(vcpu, luna_clock() + 5000000));
  }
  CHECK_EQ(field(VMCS_RO_EXIT_REASON), VMX_REASON_VMX_TIMER_EXPIRED);
  CHECK_EQ(read_register(0x1a) & REMOTE, 0);
  end();
}

static void a_level_that_is_unmasked_is_sent(void) {
  begin_halting();
  set_ending_handler(0x53);
  write_pin(6, MASKED | LEVEL | 0x53);
  HV(hv_vm_ioapic_assert_irq(6));
  check_quiet();
  write_register(0x1c, LEVEL | 0x53);
  CHECK_EQ(reported(), 0x53);
  HV(hv_vm_ioapic_deassert_irq(6));
  end();
}

static void the_state_of_the_ioapic_goes_both_ways(void) {
  hv_ioapic_state_ext_t state = {.version = HV_IOAPIC_STATE_EXT_VER};
  begin_halting();
  HV(hv_vm_ioapic_get_state(&state));
  CHECK_EQ(state.state.rtbl[31], MASKED);
  state.state.rtbl[7] = 0x61;
  state.state.rtbl[31] = UINT64_MAX;
  state.state.ioregsel = 0x1e;
  HV(hv_vm_ioapic_put_state(&state));
  HV(hv_vm_ioapic_get_state(&state));
  CHECK_EQ(state.state.rtbl[7], 0x61);
  CHECK_EQ(state.state.rtbl[31], 0xff0000000001ffff);
  HV(hv_vm_ioapic_pulse_irq(7));
  CHECK_EQ(reported(), 0x61);
  state.version = 99;
  HV_IS(hv_vm_ioapic_get_state(&state), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_ioapic_put_state(&state), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_ioapic_get_state(NULL), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_ioapic_put_state(NULL), HV_BAD_ARGUMENT);
  end();
}

/* ---- The PICs ---- */

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
  RUN_KVM(the_ioapic_has_registers);
  RUN_KVM(edges_are_sent_once);
  RUN_KVM(levels_are_sent_until_they_fall);
  RUN_KVM(a_level_that_is_unmasked_is_sent);
  RUN_KVM(the_state_of_the_ioapic_goes_both_ways);
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
