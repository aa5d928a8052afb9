/* SPDX-License-Identifier: MIT
 * The I/O APIC, as the Hypervisor framework has it. */
#include "fixture/hvf_intr_fixture.h"

enum {
  MASKED = 1 << 16,
  LEVEL = 1 << 15,
  REMOTE = 1 << 14
};

static uint32_t read_register(uint32_t number) {
  uint32_t data;
  HV(hv_vm_ioapic_write(IOAPIC_GPA, number));
  HV(hv_vm_ioapic_read(IOAPIC_GPA + 0x10, &data));
  return data;
}

static void write_register(uint32_t number, uint32_t data) {
  HV(hv_vm_ioapic_write(IOAPIC_GPA, number));
  HV(hv_vm_ioapic_write(IOAPIC_GPA + 0x10, data));
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
  HV(hv_vm_ioapic_read(IOAPIC_GPA, &data));
  CHECK_EQ(data, 0x50);
  HV(hv_vm_ioapic_read(IOAPIC_GPA + 0x20, &data));
  CHECK_EQ(data, 0);
  HV_IS(hv_vm_ioapic_read(IOAPIC_GPA - 4, &data), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_ioapic_read(IOAPIC_GPA + 4096, &data), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_ioapic_read(IOAPIC_GPA, NULL), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_ioapic_write(IOAPIC_GPA + 4096, 0), HV_BAD_ARGUMENT);
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

int main(void) {
  RUN_KVM(the_ioapic_has_registers);
  RUN_KVM(edges_are_sent_once);
  RUN_KVM(levels_are_sent_until_they_fall);
  RUN_KVM(a_level_that_is_unmasked_is_sent);
  RUN_KVM(the_state_of_the_ioapic_goes_both_ways);
  return test_end();
}
