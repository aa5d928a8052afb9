/* SPDX-License-Identifier: MIT
 * A guest in long mode whose code is at another linear address than in memory. */
#ifndef LUNA_HVF_LONG_H
#define LUNA_HVF_LONG_H

#include "hvf_fixture.h"

enum {
  LINEAR = 0x40000000
};

static void store(uint32_t gpa, uint64_t value) {
  memcpy(ram + gpa, &value, sizeof value);
}

/* Linear 0 to 4 MiB leads to the same gpa, LINEAR to CODE. */
static void write_tables(void) {
  store(0x9000, 0xa003);
  store(0xa000, 0xb003);
  store(0xa008, 0xc003);
  store(0xb000, 0x83);
  store(0xb008, 0x200083);
  store(0xc000, 0xd003);
  store(0xd000, CODE | 3);
}

static void begin_long(const void *code, size_t size) {
  begin_with(code, size, HV_VM_DEFAULT);
  write_tables();
  set_field(VMCS_CTRL_VMENTRY_CONTROLS, field(VMCS_CTRL_VMENTRY_CONTROLS) | VMENTRY_GUEST_IA32E);
  set_field(VMCS_GUEST_IA32_EFER, 0x500);
  set_field(VMCS_GUEST_CR0, 0x80000031);
  set_field(VMCS_GUEST_CR3, 0x9000);
  set_field(VMCS_GUEST_CR4, 0x20);
  set_field(VMCS_GUEST_CS, 8);
  set_field(VMCS_GUEST_CS_LIMIT, 0xffffffff);
  set_field(VMCS_GUEST_CS_AR, 0xa09b);
  set_field(VMCS_GUEST_SS, 16);
  set_field(VMCS_GUEST_SS_LIMIT, 0xffffffff);
  set_field(VMCS_GUEST_SS_AR, 0xc093);
  set_field(VMCS_GUEST_TR_AR, 0x8b);
  set(HV_X86_RIP, LINEAR);
  set(HV_X86_RFLAGS, 2);
}

#endif
