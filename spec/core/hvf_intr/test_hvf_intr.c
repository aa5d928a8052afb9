/* SPDX-License-Identifier: MIT
 * Interrupts, and exits that have to do with interrupt controllers, as the Hypervisor framework has
 * them. */
#include "fixture/hvf_intr_fixture.h"

/* ---- Who may call ---- */

static void check_vm_calls(hv_return_t want) {
  hv_ioapic_state_ext_t ioapic = {.version = HV_IOAPIC_STATE_EXT_VER};
  hv_atpic_state_ext_t atpic = {.version = HV_ATPIC_STATE_EXT_VER};
  uint32_t data;
  uint8_t byte;
  HV_IS(hv_vm_lapic_set_intr(0, 0x40, HV_APIC_EDGE_TRIGGER), want);
  HV_IS(hv_vm_lapic_msi(0xfee00000, 0x40), want);
  HV_IS(hv_vm_send_ioapic_intr(0x40), want);
  HV_IS(hv_vm_set_apic_bus_freq(100000000), want);
  HV_IS(hv_vm_ioapic_assert_irq(1), want);
  HV_IS(hv_vm_ioapic_deassert_irq(1), want);
  HV_IS(hv_vm_ioapic_pulse_irq(1), want);
  HV_IS(hv_vm_ioapic_read(IOAPIC_GPA, &data), want);
  HV_IS(hv_vm_ioapic_write(IOAPIC_GPA, 0), want);
  HV_IS(hv_vm_ioapic_get_state(&ioapic), want);
  HV_IS(hv_vm_ioapic_put_state(&ioapic), want);
  HV_IS(hv_vm_atpic_assert_irq(1), want);
  HV_IS(hv_vm_atpic_deassert_irq(1), want);
  HV_IS(hv_vm_atpic_port_read(0x20, &byte), want);
  HV_IS(hv_vm_atpic_port_write(0x21, 0), want);
  HV_IS(hv_vm_atpic_get_state(&atpic, true), want);
  HV_IS(hv_vm_atpic_put_state(&atpic, true), want);
}

static void check_vcpu_calls(hv_vcpuid_t id, hv_return_t want) {
  hv_apic_state_ext_t state = {.version = HV_APIC_STATE_EXT_VER};
  bool flag, active[1];
  uint8_t byte;
  uint32_t data;
  uint64_t rip;
  HV_IS(hv_vcpu_inject_extint(id), want);
  HV_IS(hv_vcpu_apic_read(id, SVR, &data), want);
  HV_IS(hv_vcpu_apic_write(id, SVR, 0, &flag), want);
  HV_IS(hv_vcpu_apic_get_state(id, &state), want);
  HV_IS(hv_vcpu_apic_put_state(id, &state), want);
  HV_IS(hv_vcpu_apic_trigger_lvt(id, HV_APIC_LVT_FLAVOR_TIMER), want);
  HV_IS(hv_vcpu_apic_ctrl(id, HV_APIC_CTRL_DEFAULT), want);
  HV_IS(hv_vcpu_apic_lsc_enter_r32(id, true, 0, 3, 0, HV_X86_RAX, NULL, 0), want);
  HV_IS(hv_vcpu_apic_lsc_enter_imm32(id, 0, 7, 0, 0, NULL, 0), want);
  HV_IS(hv_vcpu_apic_lsc_invalidate(id), want);
  HV_IS(hv_vcpu_exit_init_ap(id, active, 1), want);
  HV_IS(hv_vcpu_exit_startup_ap(id, active, 1, &rip), want);
  HV_IS(hv_vcpu_exit_ioapic_eoi(id, &byte), want);
  HV_IS(hv_vcpu_exit_apic_access_read(id, &data), want);
  HV_IS(hv_vcpu_exit_inject_excp(id, &byte, &flag, &data, &flag), want);
}

/* Those that every VM has. */
static void check_plain_calls(hv_vcpuid_t id, hv_return_t want) {
  hv_vm_exitinfo_t info;
  HV_IS(hv_vcpu_exit_info(id, &info), want);
  HV_IS(hv_vmx_vcpu_set_apic_address(id, 0xfee00000), want);
  HV_IS(hv_vmx_vcpu_set_apic_address_space(id, 0, 0xfee00000), want);
}

static void check_denied(void) {
  check_vcpu_calls(vcpu, HV_DENIED);
  check_plain_calls(vcpu, HV_DENIED);
}

static void calls_need_a_vm_with_controllers(void) {
  check_vm_calls(HV_NO_DEVICE);
  check_vcpu_calls(0, HV_NO_DEVICE);
  check_plain_calls(0, HV_NO_DEVICE);
  BEGIN(0xf4);
  check_vm_calls(HV_UNSUPPORTED);
  check_vcpu_calls(vcpu, HV_UNSUPPORTED);
  end();
  begin_halting();
  CHECK(passes_elsewhere(check_denied));
  check_vcpu_calls(vcpu + 1, HV_BAD_ARGUMENT);
  check_plain_calls(vcpu + 1, HV_BAD_ARGUMENT);
  end();
}

/* ---- Interrupts ---- */

static void a_halted_guest_waits_for_an_interrupt(void) {
  uint64_t idle;
  begin_halting();
  check_quiet();
  HV(hv_vcpu_get_idle_time(vcpu, &idle)); /* 0 where KVM keeps no statistics */
  CHECK(idle < 1000000000);
  HV(hv_vm_lapic_set_intr(vcpu, 0x40, HV_APIC_EDGE_TRIGGER));
  CHECK_EQ(reported(), 0x40);
  apic_write(EOI, 0);
  HV(hv_vm_lapic_set_intr(vcpu, 0x51, HV_APIC_LEVEL_TRIGGER));
  CHECK_EQ(reported(), 0x51);
  CHECK_EQ(apic_read(0x180 + 2 * 16) & 1 << 17, 1 << 17); /* TMR */
  apic_write(EOI, 0);
  HV(hv_vm_lapic_msi(0xfee00000, 0x62));
  CHECK_EQ(reported(), 0x62);
  apic_write(EOI, 0);
  HV(hv_vm_lapic_msi(0xfee01000, 0x63)); /* nobody's */
  check_quiet();
  HV_IS(hv_vm_lapic_set_intr(vcpu, 15, HV_APIC_EDGE_TRIGGER), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_lapic_set_intr(vcpu, 0x40, 3), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_lapic_set_intr(vcpu + 1, 0x40, HV_APIC_EDGE_TRIGGER), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_lapic_set_intr(vcpu, 0x40, HV_APIC_EDGE_TRIGGER_AEOI), HV_UNSUPPORTED);
  end();
}

static void *send_soon(void *unused) {
  (void)unused;
  usleep(20000);
  return (void *)(intptr_t)hv_vm_lapic_set_intr(vcpu, 0x70, HV_APIC_EDGE_TRIGGER);
}

static void any_thread_sends(void) {
  pthread_t thread;
  void *result;
  begin_halting();
  CHECK_EQ(pthread_create(&thread, NULL, send_soon, NULL), 0);
  CHECK_EQ(reported(), 0x70);
  CHECK_EQ(pthread_join(thread, &result), 0);
  HV((hv_return_t)(intptr_t)result);
  end();
}

static void redirection_entries_are_sent(void) {
  begin_halting();
  HV(hv_vm_send_ioapic_intr(0x44)); /* fixed, edge, to APIC 0 */
  CHECK_EQ(reported(), 0x44);
  apic_write(EOI, 0);
  HV(hv_vm_send_ioapic_intr(UINT64_C(0xff) << 56 | 0x45)); /* to all */
  CHECK_EQ(reported(), 0x45);
  end();
}

static void timers_have_a_frequency(void) {
  HV(hv_vm_create(HV_VM_ACCEL_APIC));
  HV_IS(hv_vm_set_apic_bus_freq(0), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_set_apic_bus_freq(UINT64_MAX), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_set_apic_bus_freq(15999999), HV_BAD_ARGUMENT);
  HV_IS(hv_vm_set_apic_bus_freq(2000000001), HV_BAD_ARGUMENT);
  hv_return_t result = hv_vm_set_apic_bus_freq(100000000);
  CHECK(result == HV_SUCCESS || result == HV_UNSUPPORTED);
  HV(hv_vcpu_create(&vcpu, HV_VCPU_DEFAULT));
  HV_IS(hv_vm_set_apic_bus_freq(100000000), HV_BUSY);
  end();
}

/* ---- What is left of an exit for the program ---- */

static void ordinary_exits_have_no_details(void) {
  uint8_t byte;
  uint32_t word;
  uint64_t rip;
  bool flag, active[1];
  begin_halting();
  HV(hv_vm_lapic_set_intr(vcpu, 0x40, HV_APIC_EDGE_TRIGGER));
  CHECK_EQ(reported(), 0x40);
  CHECK_EQ(info(), HV_VM_EXITINFO_VMX);
  HV_IS(hv_vcpu_exit_info(vcpu, NULL), HV_BAD_ARGUMENT);
  HV_IS(hv_vcpu_exit_init_ap(vcpu, active, 1), HV_ERROR);
  HV_IS(hv_vcpu_exit_startup_ap(vcpu, active, 1, &rip), HV_ERROR);
  HV_IS(hv_vcpu_exit_ioapic_eoi(vcpu, &byte), HV_ERROR);
  HV_IS(hv_vcpu_exit_apic_access_read(vcpu, &word), HV_ERROR);
  HV_IS(hv_vcpu_exit_inject_excp(vcpu, &byte, &flag, &word, &flag), HV_ERROR);
  HV_IS(hv_vcpu_exit_init_ap(vcpu, NULL, 1), HV_BAD_ARGUMENT);
  HV_IS(hv_vcpu_exit_startup_ap(vcpu, active, 1, NULL), HV_BAD_ARGUMENT);
  HV_IS(hv_vcpu_exit_ioapic_eoi(vcpu, NULL), HV_BAD_ARGUMENT);
  HV_IS(hv_vcpu_exit_apic_access_read(vcpu, NULL), HV_BAD_ARGUMENT);
  HV_IS(hv_vcpu_exit_inject_excp(vcpu, &byte, NULL, &word, &flag), HV_BAD_ARGUMENT);
  end();
}

static void before_the_first_run_there_is_no_exit(void) {
  BEGIN(0xf4);
  CHECK_EQ(info(), 0);
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(info(), HV_VM_EXITINFO_VMX);
  end();
}

static void interrupts_between_processors_are_sent(void) {
  begin_halting();
  apic_write(ICR, 1 << 18 | 0x66); /* to itself */
  CHECK_EQ(reported(), 0x66);
  apic_write(EOI, 0);
  apic_write(ICR, 2 << 18 | 0x67); /* to all */
  CHECK_EQ(reported(), 0x67);
  apic_write(EOI, 0);
  apic_write(ICR, 3 << 18 | 0x68); /* to all others: none */
  check_quiet();
  apic_write(ICR_HIGH, 0);
  apic_write(ICR, 0x69); /* to APIC 0 */
  CHECK_EQ(reported(), 0x69);
  apic_write(EOI, 0);
  apic_write(0x3f0, 0x6a); /* SELF IPI */
  CHECK_EQ(reported(), 0x6a);
  end();
}

/* The guest ends a level interrupt: mov dword [0xb0], 0, with DS at the local APIC. */
static void the_end_of_a_level_interrupt_is_an_exit(void) {
  uint8_t vector = 0;
  begin_halting();
  static const uint8_t handler[] = {0x66, 0xc7, 0x06, 0xb0, 0, 0, 0, 0, 0, 0xe6, REPORT, 0xcf};
  memcpy(ram + 0x3000, handler, sizeof handler);
  memcpy(ram + 0x48 * 4, "\x00\x30", 2);
  set_field(VMCS_GUEST_DS_BASE, 0xfee00000);
  HV(hv_vcpu_apic_ctrl(vcpu, HV_APIC_CTRL_IOAPIC_EOI));
  HV(hv_vm_send_ioapic_intr(0x8048)); /* level, vector 0x48 */
  bool ended = false;
  for (int exits = 0; exits < 3 && !ended; exits++) {
    uint64_t reason = run();
    ended = info() == HV_VM_EXITINFO_IOAPIC_EOI;
    if (ended) {
      CHECK_EQ(reason, VMX_REASON_VIRTUALIZED_EOI);
      HV(hv_vcpu_exit_ioapic_eoi(vcpu, &vector));
    } else {
      CHECK_EQ(reason, VMX_REASON_IO);
      skip();
    }
  }
  CHECK(ended);
  CHECK_EQ(vector, 0x48);
  end();
}

/* mov eax, [0x20]; mov [0x80], eax; hlt, with DS at a page that is the local APIC's. */
static const uint8_t at_page[] = {0x66, 0xa1, 0x20, 0x00, 0x66, 0xa3, 0x80, 0x00, 0xe6, REPORT};

static void check_access(hv_vm_exitinfo_t code, uint64_t qualification) {
  CHECK_EQ(run(), VMX_REASON_APIC_ACCESS);
  CHECK_EQ(info(), code);
  CHECK_EQ(field(VMCS_RO_EXIT_QUALIFIC), qualification);
}

static void the_local_apic_can_be_at_another_page(void) {
  BEGIN(0xf4);
  memcpy(ram + CODE, at_page, sizeof at_page);
  set_field(VMCS_CTRL_CPU_BASED2, field(VMCS_CTRL_CPU_BASED2) | CPU_BASED2_VIRTUAL_APIC);
  HV(hv_vmx_vcpu_set_apic_address(vcpu, 0x30000));
  HV(hv_vmx_vcpu_set_apic_address(vcpu, 0x40000));
  set_field(VMCS_GUEST_DS_BASE, 0x40000);
  check_access(HV_VM_EXITINFO_VMX, 0x20); /* the program has the registers */
  set(HV_X86_RAX, 0x1234);
  skip();
  check_access(HV_VM_EXITINFO_VMX, 0x80 | 1 << 12);
  hv_ext_access access;
  HV(hv_ext_vcpu_access(vcpu, &access));
  CHECK_EQ(access.value, 0x1234);
  skip();
  CHECK_EQ(run(), VMX_REASON_IO);
  HV_IS(hv_vmx_vcpu_set_apic_address(vcpu, 0x40010), HV_BAD_ARGUMENT);
  HV_IS(hv_vmx_vcpu_set_apic_address_space(vcpu, 7, 0x40000), HV_BAD_ARGUMENT);
  end();
}

static void reads_of_another_page_tell_the_register(void) {
  hv_vm_space_t space;
  uint32_t value = 0;
  bool done;
  begin_halting();
  memcpy(ram + CODE, at_page, sizeof at_page);
  HV(hv_vm_space_create(&space));
  HV(hv_vm_map_space(space, ram, 0, RAM_SIZE, RWX));
  HV(hv_vcpu_set_space(vcpu, space));
  HV(hv_vmx_vcpu_set_apic_address_space(vcpu, space, 0x40000));
  set_field(VMCS_GUEST_DS_BASE, 0x40000);
  ram[CODE + 2] = 0xf0; /* SVR */
  check_access(HV_VM_EXITINFO_APIC_ACCESS_READ, 0xf0);
  HV(hv_vcpu_exit_apic_access_read(vcpu, &value));
  CHECK_EQ(value, 0x1ff);
  set(HV_X86_RAX, 0x30);
  skip();
  check_access(HV_VM_EXITINFO_VMX, 0x80 | 1 << 12);
  HV(hv_vcpu_apic_write(vcpu, 0x80, 0x30, &done));
  skip();
  CHECK_EQ(run(), VMX_REASON_IO);
  CHECK_EQ(get(HV_X86_TPR), 0x30);
  HV(hv_vcpu_set_space(vcpu, HV_VM_SPACE_DEFAULT));
  end();
}

static void kvm_has_the_local_apic_where_it_is_set(void) {
  begin_halting();
  memcpy(ram + CODE, at_page, sizeof at_page);
  ram[CODE + 2] = 0xf0;
  HV(hv_vmx_vcpu_set_apic_address(vcpu, 0xfee00000));
  set_field(VMCS_GUEST_DS_BASE, 0xfee00000);
  CHECK_EQ(run(), VMX_REASON_IO); /* neither access exits */
  CHECK_EQ(get(HV_X86_RAX), 0x1ff);
  end();
}

static void an_access_that_a_mode_lacks_is_an_exception(void) {
  uint8_t vector = 0;
  uint32_t code = 1;
  bool done = true, valid = false, restart = false;
  uint64_t base;
  begin_halting();
  HV(hv_vcpu_read_msr(vcpu, 0x1b, &base));
  hv_return_t result = hv_vcpu_write_msr(vcpu, 0x1b, base | 1 << 10); /* x2APIC mode */
  if (result != HV_SUCCESS || hv_vcpu_apic_write(vcpu, 0x30, 0, &done) != HV_SUCCESS) {
    end();
    test_skip("KVM has no x2APIC mode here");
  }
  CHECK(!done);
  CHECK_EQ(info(), HV_VM_EXITINFO_INJECT_EXCP);
  HV(hv_vcpu_exit_inject_excp(vcpu, &vector, &valid, &code, &restart));
  CHECK_EQ(vector, 13);
  CHECK(valid && restart);
  CHECK_EQ(code, 0);
  end();
}

int main(void) {
  RUN_KVM(calls_need_a_vm_with_controllers);
  RUN_KVM(a_halted_guest_waits_for_an_interrupt);
  RUN_KVM(any_thread_sends);
  RUN_KVM(redirection_entries_are_sent);
  RUN_KVM(timers_have_a_frequency);
  RUN_KVM(ordinary_exits_have_no_details);
  RUN_KVM(before_the_first_run_there_is_no_exit);
  RUN_KVM(interrupts_between_processors_are_sent);
  RUN_KVM(the_end_of_a_level_interrupt_is_an_exit);
  RUN_KVM(the_local_apic_can_be_at_another_page);
  RUN_KVM(reads_of_another_page_tell_the_register);
  RUN_KVM(kvm_has_the_local_apic_where_it_is_set);
  RUN_KVM(an_access_that_a_mode_lacks_is_an_exception);
  return test_end();
}
