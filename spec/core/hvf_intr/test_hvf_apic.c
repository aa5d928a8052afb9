/* SPDX-License-Identifier: MIT
 * A vCPU's local APIC, as the Hypervisor framework has it. */
#include "fixture/hvf_intr_fixture.h"

static void registers_are_read_and_written(void) {
  uint32_t data;
  bool done;
  begin_halting();
  apic_write(LVT_TIMER, 0x10051);
  CHECK_EQ(apic_read(LVT_TIMER), 0x10051);
  CHECK_EQ(apic_read(0x30) & 0xff, 0x14); /* the version */
  apic_write(0x30, 0);                    /* read-only: nothing happens */
  CHECK_EQ(apic_read(0x30) & 0xff, 0x14);
  HV_IS(hv_vcpu_apic_read(vcpu, 0x400, &data), HV_BAD_ARGUMENT);
  HV_IS(hv_vcpu_apic_read(vcpu, 0x321, &data), HV_BAD_ARGUMENT);
  HV_IS(hv_vcpu_apic_read(vcpu, SVR, NULL), HV_BAD_ARGUMENT);
  HV_IS(hv_vcpu_apic_write(vcpu, 0x400, 0, &done), HV_BAD_ARGUMENT);
  HV_IS(hv_vcpu_apic_write(vcpu, 0x321, 0, &done), HV_BAD_ARGUMENT);
  HV_IS(hv_vcpu_apic_write(vcpu, SVR, 0x1ff, NULL), HV_BAD_ARGUMENT);
  end();
}

static void the_timer_entry_is_triggered(void) {
  begin_halting();
  apic_write(LVT_TIMER, 0x10055); /* masked */
  HV(hv_vcpu_apic_trigger_lvt(vcpu, HV_APIC_LVT_FLAVOR_TIMER));
  check_quiet();
  apic_write(LVT_TIMER, 0x55);
  HV(hv_vcpu_apic_trigger_lvt(vcpu, HV_APIC_LVT_FLAVOR_TIMER));
  CHECK_EQ(reported(), 0x55);
  HV_IS(hv_vcpu_apic_trigger_lvt(vcpu, 0), HV_BAD_ARGUMENT);
  HV_IS(hv_vcpu_apic_trigger_lvt(vcpu, 2), HV_BAD_ARGUMENT);
  end();
}

static void ends_of_interrupts_are_written(void) {
  hv_apic_state_ext_t state = {.version = HV_APIC_STATE_EXT_VER};
  begin_halting();
  HV(hv_vcpu_apic_get_state(vcpu, &state));
  state.state.isr[2] = 5; /* vectors 0x40 and 0x42 are in service */
  HV(hv_vcpu_apic_put_state(vcpu, &state));
  CHECK_EQ(apic_read(0x100 + 2 * 16), 5);
  apic_write(EOI, 0);
  CHECK_EQ(apic_read(0x100 + 2 * 16), 1);
  apic_write(EOI, 0);
  CHECK_EQ(apic_read(0x100 + 2 * 16), 0);
  apic_write(EOI, 0); /* there is none */
  end();
}

static void the_state_goes_both_ways(void) {
  hv_apic_state_ext_t state = {.version = HV_APIC_STATE_EXT_VER};
  begin_halting();
  apic_write(LVT_TIMER, 0x10051);
  apic_write(0x80, 0x20);
  HV(hv_vcpu_apic_get_state(vcpu, &state));
  CHECK_EQ(sizeof state.state, 240);
  CHECK_EQ(state.state.apic_gpa, 0xfee00000);
  CHECK_EQ(state.state.apic_id, 0);
  CHECK_EQ(state.state.svr, 0x1ff);
  CHECK_EQ(state.state.tpr, 0x20);
  CHECK_EQ(state.state.lvt[0], 0x10051);
  CHECK_EQ(state.state.boot_state, HV_BS_RUNNING);
  CHECK_EQ(get(HV_X86_TPR), 0x20);
  state.state.lvt[3] = 0x10700; /* LINT0 */
  state.state.tpr = 0x40;
  state.state.irr[2] = 1 << 6; /* vector 0x46 waits */
  state.state.apic_controls = HV_APIC_CTRL_IOAPIC_EOI;
  HV(hv_vcpu_apic_put_state(vcpu, &state));
  CHECK_EQ(apic_read(LINT0), 0x10700);
  check_quiet(); /* TPR holds it up */
  apic_write(0x80, 0);
  CHECK_EQ(reported(), 0x46);
  HV(hv_vcpu_apic_get_state(vcpu, &state));
  CHECK_EQ(state.state.apic_controls, HV_APIC_CTRL_IOAPIC_EOI);
  end();
}

static void states_are_checked(void) {
  hv_apic_state_ext_t state = {.version = 99};
  begin_halting();
  HV_IS(hv_vcpu_apic_get_state(vcpu, &state), HV_BAD_ARGUMENT);
  HV_IS(hv_vcpu_apic_get_state(vcpu, NULL), HV_BAD_ARGUMENT);
  HV_IS(hv_vcpu_apic_put_state(vcpu, &state), HV_BAD_ARGUMENT);
  CHECK_TEXT(hv_ext_error_message(), "has version 100, not ");
  state.version = HV_APIC_STATE_EXT_VER;
  HV(hv_vcpu_apic_get_state(vcpu, &state));
  hv_apic_state_ext_t bad = state;
  bad.state.apic_gpa = 0xfee00010;
  HV_IS(hv_vcpu_apic_put_state(vcpu, &bad), HV_BAD_ARGUMENT);
  CHECK_TEXT(hv_ext_error_message(), "gpa 0xfee00010: a multiple of 4096");
  bad = state;
  bad.state.boot_state = (enum hv_boot_state)3;
  HV_IS(hv_vcpu_apic_put_state(vcpu, &bad), HV_BAD_ARGUMENT);
  CHECK_TEXT(hv_ext_error_message(), "no boot_state 3: HV_BS_INIT");
  bad = state;
  bad.state.apic_controls = HV_APIC_CTRL_NO_TIMER;
  HV_IS(hv_vcpu_apic_put_state(vcpu, &bad), HV_BAD_ARGUMENT);
  CHECK_TEXT(hv_ext_error_message(), "no controls 0x4: 0 or HV_APIC_CTRL_IOAPIC_EOI");
  HV(hv_vcpu_apic_put_state(vcpu, &state));
  end();
}

static void controls_are_those_that_kvm_has(void) {
  begin_halting();
  HV(hv_vcpu_apic_ctrl(vcpu, HV_APIC_CTRL_IOAPIC_EOI));
  HV(hv_vcpu_apic_ctrl(vcpu, HV_APIC_CTRL_DEFAULT));
  HV_IS(hv_vcpu_apic_ctrl(vcpu, HV_APIC_CTRL_EOI_ICR_TPR), HV_UNSUPPORTED);
  HV_IS(hv_vcpu_apic_ctrl(vcpu, HV_APIC_CTRL_GUEST_IDLE), HV_UNSUPPORTED);
  HV_IS(hv_vcpu_apic_ctrl(vcpu, HV_APIC_CTRL_NO_TIMER), HV_UNSUPPORTED);
  HV_IS(hv_vcpu_apic_ctrl(vcpu, 1 << 4), HV_BAD_ARGUMENT);
  end();
}

static void the_load_store_cache_is_checked(void) {
  uint64_t pages[2] = {(uintptr_t)ram, (uintptr_t)page};
  begin_halting();
  HV(hv_vcpu_apic_lsc_enter_r32(vcpu, true, CODE, 3, 0, HV_X86_RCX, pages, 2));
  HV(hv_vcpu_apic_lsc_enter_r32(vcpu, false, CODE, 3, 0, HV_X86_R15, NULL, 0));
  HV_IS(hv_vcpu_apic_lsc_enter_r32(vcpu, true, CODE, 0, 0, HV_X86_RCX, NULL, 0), HV_BAD_ARGUMENT);
  HV_IS(hv_vcpu_apic_lsc_enter_r32(vcpu, true, CODE, 16, 0, HV_X86_RCX, NULL, 0), HV_BAD_ARGUMENT);
  HV_IS(hv_vcpu_apic_lsc_enter_r32(vcpu, true, CODE, 3, 0, HV_X86_CS, NULL, 0), HV_BAD_ARGUMENT);
  HV_IS(hv_vcpu_apic_lsc_enter_r32(vcpu, true, CODE, 3, 0, HV_X86_RCX, pages, 3), HV_BAD_ARGUMENT);
  HV_IS(hv_vcpu_apic_lsc_enter_r32(vcpu, true, CODE, 3, 0, HV_X86_RCX, NULL, 1), HV_BAD_ARGUMENT);
  HV(hv_vcpu_apic_lsc_enter_imm32(vcpu, CODE, 7, 0, 0x1ff, pages, 1));
  HV_IS(hv_vcpu_apic_lsc_enter_imm32(vcpu, CODE, 16, 0, 0x1ff, pages, 1), HV_BAD_ARGUMENT);
  HV_IS(hv_vcpu_apic_lsc_enter_imm32(vcpu, CODE, 7, 0, 0x1ff, NULL, 1), HV_BAD_ARGUMENT);
  HV(hv_vcpu_apic_lsc_invalidate(vcpu));
  end();
}

int main(void) {
  RUN_KVM(registers_are_read_and_written);
  RUN_KVM(the_timer_entry_is_triggered);
  RUN_KVM(ends_of_interrupts_are_written);
  RUN_KVM(the_state_goes_both_ways);
  RUN_KVM(states_are_checked);
  RUN_KVM(controls_are_those_that_kvm_has);
  RUN_KVM(the_load_store_cache_is_checked);
  return test_end();
}
