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

/* The guest's handlers end the interrupt at its local APIC themselves. */
static void set_ending_handlers(void) {
  for (unsigned vector = 0x20; vector < 0x100; vector++) {
    const uint8_t handler[] = {0x66, 0xc7,   0x06, 0xb0, 0, 0, 0, 0, 0, 0xb0, (uint8_t)vector,
                               0xe6, REPORT, 0xcf};
    const uint16_t place = (uint16_t)(0x3000 + 16 * vector);
    memcpy(ram + place, handler, sizeof handler);
    memcpy(ram + vector * 4, &place, sizeof place);
  }
  set_field(VMCS_GUEST_DS_BASE, 0xfee00000);
}

static void levels_are_sent_until_they_fall(void) {
  begin_halting();
  set_ending_handlers();
  write_pin(5, LEVEL | 0x52);
  HV(hv_vm_ioapic_assert_irq(5));
  CHECK_EQ(read_register(0x1a) & REMOTE, REMOTE);
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(reported(), 0x52); /* again and again, as the line stays high */
  }
  HV(hv_vm_ioapic_deassert_irq(5));
  uint64_t patience = luna_clock() + UINT64_C(60000000000);
  uint64_t reason;
  do { /* what was under way */
    HV(hv_vcpu_run_until(vcpu, luna_clock() + 5000000));
    reason = field(VMCS_RO_EXIT_REASON);
    if (reason == VMX_REASON_IO) {
      skip();
    }
  } while ((reason == VMX_REASON_IO || read_register(0x1a) & REMOTE) && luna_clock() < patience);
  CHECK_EQ(reason, VMX_REASON_VMX_TIMER_EXPIRED);
  CHECK_EQ(read_register(0x1a) & REMOTE, 0);
  end();
}

static void a_level_that_is_unmasked_is_sent(void) {
  begin_halting();
  set_ending_handlers();
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

/* The end may come after what the guest does next. */
static void wait_for_end(uint32_t pin) {
  for (int i = 0; i < 100 && read_register(0x10 + 2 * pin) & REMOTE; i++) {
    check_quiet();
  }
  CHECK_EQ(read_register(0x10 + 2 * pin) & REMOTE, 0);
}

/* Each has a vector of its own, and its level rises twice. */
static void every_pin_hears_of_its_end(void) {
  begin_halting();
  set_ending_handlers();
  for (uint32_t pin = 0; pin < 32; pin++) {
    write_pin(pin, LEVEL | (0x40 + pin));
  }
  for (int round = 0; round < 2; round++) {
    for (uint32_t pin = 0; pin < 32; pin++) {
      test_note("pin %u", pin);
      HV(hv_vm_ioapic_assert_irq((int)pin));
      HV(hv_vm_ioapic_deassert_irq((int)pin));
      CHECK_EQ(reported(), 0x40 + pin);
      wait_for_end(pin);
    }
  }
  end();
}

static void a_pin_that_is_masked_meanwhile_hears_of_its_end(void) {
  begin_halting();
  set_ending_handlers();
  write_pin(7, LEVEL | 0x54);
  HV(hv_vm_ioapic_assert_irq(7));
  write_register(0x1e, MASKED | LEVEL | 0x54);
  CHECK_EQ(reported(), 0x54);
  wait_for_end(7);
  write_register(0x1e, LEVEL | 0x54); /* the line is high still */
  CHECK_EQ(reported(), 0x54);
  HV(hv_vm_ioapic_deassert_irq(7));
  end();
}

/* Runs up to the exit that tells the end, and the vector's report, whichever comes first. */
static void check_end(unsigned vector) {
  uint8_t ended = 0;
  unsigned seen = 0;
  while (!ended || !seen) {
    uint64_t reason = run();
    if (reason == VMX_REASON_VIRTUALIZED_EOI) {
      HV(hv_vcpu_exit_ioapic_eoi(vcpu, &ended));
    } else {
      CHECK_EQ(reason, VMX_REASON_IO);
      seen = get(HV_X86_RAX) & 0xff;
      skip();
    }
  }
  CHECK_EQ(ended, vector);
  CHECK_EQ(seen, vector);
}

/* More messages than KVM tells the ends of, one after the other. */
static void messages_of_the_program_s_ioapic_end(void) {
  static const uint64_t to[] = {0, UINT64_C(0xff) << 56};
  begin_halting();
  set_ending_handlers();
  HV(hv_vcpu_apic_ctrl(vcpu, HV_APIC_CTRL_IOAPIC_EOI));
  for (unsigned i = 0; i < 2; i++) {
    for (unsigned vector = 0x20; vector < 0x100; vector++) {
      test_note("vector 0x%x", vector);
      HV(hv_vm_send_ioapic_intr(to[i] | LEVEL | vector));
      check_end(vector);
    }
  }
  end();
}

static void messages_to_local_apics_end(void) {
  begin_halting();
  set_ending_handlers();
  HV(hv_vcpu_apic_ctrl(vcpu, HV_APIC_CTRL_IOAPIC_EOI));
  HV(hv_vm_lapic_set_intr(vcpu, 0x71, HV_APIC_LEVEL_TRIGGER));
  check_end(0x71);
  HV(hv_vm_lapic_msi(0xfee00000, 0xc072));
  check_end(0x72);
  end();
}

static void an_end_that_kvm_could_not_tell_is_refused(void) {
  begin_halting();
  set_ending_handlers();
  unsigned vector = 0x20;
  while (vector < 0x100 && hv_vm_send_ioapic_intr(LEVEL | vector) == HV_SUCCESS) {
    vector++;
  }
  CHECK_EQ(vector, 0xff); /* 223 */
  HV_IS(hv_vm_send_ioapic_intr(LEVEL | vector), HV_NO_RESOURCES);
  HV(hv_vm_send_ioapic_intr(LEVEL | 0x20)); /* one of those */
  while (reported() != 0x20) {
  }
  HV(hv_vm_send_ioapic_intr(LEVEL | vector));
  CHECK_EQ(reported(), vector);
  end();
}

int main(void) {
  RUN_KVM(the_ioapic_has_registers);
  RUN_KVM(edges_are_sent_once);
  RUN_KVM(levels_are_sent_until_they_fall);
  RUN_KVM(a_level_that_is_unmasked_is_sent);
  RUN_KVM(every_pin_hears_of_its_end);
  RUN_KVM(a_pin_that_is_masked_meanwhile_hears_of_its_end);
  RUN_KVM(messages_of_the_program_s_ioapic_end);
  RUN_KVM(messages_to_local_apics_end);
  RUN_KVM(an_end_that_kvm_could_not_tell_is_refused);
  RUN_KVM(the_state_of_the_ioapic_goes_both_ways);
  return test_end();
}
