/* SPDX-License-Identifier: MIT
 * A guest that waits for interrupts and tells their vectors. */
#ifndef LUNA_HVF_INTR_FIXTURE_H
#define LUNA_HVF_INTR_FIXTURE_H

#include "hvf_fixture.h"

enum {
  HANDLERS = 0x2000, /* of every vector, 8 bytes each */
  REPORT = 0x80,     /* the port at which a handler tells its vector */
  EOI = 0xb0,
  SVR = 0xf0,
  ICR = 0x300,
  ICR_HIGH = 0x310,
  LVT_TIMER = 0x320,
  LINT0 = 0x350
};
#define IOAPIC_GPA UINT64_C(0xfec00000)

/* mov al, vector; out REPORT, al; iret */
__attribute__((unused)) static void set_handlers(void) {
  for (unsigned vector = 0; vector < 256; vector++) {
    uint16_t handler = (uint16_t)(HANDLERS + vector * 8);
    const uint8_t code[] = {0xb0, (uint8_t)vector, 0xe6, REPORT, 0xcf};
    memcpy(ram + handler, code, sizeof code);
    memcpy(ram + vector * 4, &handler, sizeof handler);
  }
  set_field(VMCS_GUEST_IDTR_BASE, 0);
  set_field(VMCS_GUEST_IDTR_LIMIT, 0x3ff);
}

__attribute__((unused)) static void apic_write(uint32_t offset, uint32_t data) {
  bool done = false;
  HV(hv_vcpu_apic_write(vcpu, offset, data, &done));
  CHECK(done);
}

__attribute__((unused)) static uint32_t apic_read(uint32_t offset) {
  uint32_t data;
  HV(hv_vcpu_apic_read(vcpu, offset, &data));
  return data;
}

/* sti; hlt; jmp back, with a local APIC that is enabled. */
__attribute__((unused)) static void begin_halting(void) {
  static const uint8_t code[] = {0xfb, 0xf4, 0xeb, 0xfd};
  begin_with(code, sizeof code, HV_VM_ACCEL_APIC);
  set_handlers();
  apic_write(SVR, 0x1ff);
}

/* The vector that the guest reports next, and it goes on behind that. */
__attribute__((unused)) static unsigned reported(void) {
  CHECK_EQ(run(), VMX_REASON_IO);
  CHECK_EQ(field(VMCS_RO_EXIT_QUALIFIC) >> 16, REPORT);
  unsigned vector = get(HV_X86_RAX) & 0xff;
  skip();
  return vector;
}

/* Nothing comes within a few milliseconds. */
__attribute__((unused)) static void check_quiet(void) {
  HV(hv_vcpu_run_until(vcpu, luna_clock() + 5000000));
  CHECK_EQ(field(VMCS_RO_EXIT_REASON), VMX_REASON_VMX_TIMER_EXPIRED);
}

#endif
