/* SPDX-License-Identifier: MIT
 * Page tables that the guest's processor cannot read, or not write, on the software CPU: an EPT
 * violation of the entry, before the instruction that is translated for (SDM Vol. 3, 29.3.3.2 and
 * table 28-7). */
#include "fixture/hvf_long.h"

enum {
  HOLE = 0x300000,      /* guest-physical */
  DATA = 0x40200000,    /* linear, by the table that entry 0xc008 has */
  LINEAR_ONLY = 1 << 7, /* the linear address is valid, and not what the access was for */
  TABLES = 0x9000,      /* four levels, five pages: fixture/hvf_long.h */
  TABLES_SIZE = 0x5000
};

static void begin_load(uint8_t opcode) {
  const uint8_t code[] = {opcode, 0x03, 0xf4}; /* mov eax, [rbx], or back; hlt */
  begin_long(code, sizeof code);
  set(HV_X86_RAX, 0x5a);
}

static void check_walk(uint64_t gpa, uint64_t linear, uint64_t qualification) {
  CHECK_EQ(run(), VMX_REASON_EPT_VIOLATION);
  CHECK_EQ(field(VMCS_GUEST_PHYSICAL_ADDRESS), gpa);
  CHECK_EQ(field(VMCS_RO_GUEST_LIN_ADDR), linear);
  CHECK_EQ(field(VMCS_RO_EXIT_QUALIFIC), qualification);
  CHECK_EQ(get(HV_X86_RAX), 0x5a);
}

static void a_table_that_is_not_there_is_a_violation(void) {
  static const uint8_t opcodes[] = {0x8b, 0x89};
  for (size_t i = 0; i < sizeof opcodes; i++) {
    begin_load(opcodes[i]);
    store(0xc008, HOLE | 3);
    set(HV_X86_RBX, DATA + 0x5008);
    check_walk(HOLE + 5 * 8, DATA + 0x5008, LINEAR_ONLY | 1);
    CHECK_EQ(get(HV_X86_RIP), LINEAR);
    check_walk(HOLE + 5 * 8, DATA + 0x5008, LINEAR_ONLY | 1);
    store(0xe028, 0x3003);
    HV(hv_vm_map(ram + 0xe000, HOLE, 0x1000, RWX));
    store(0x3008, 0x5a);
    CHECK_EQ(run(), VMX_REASON_HLT);
    CHECK_EQ(get(HV_X86_RAX), 0x5a);
    CHECK_EQ(ram[0xe028] & 0x60, opcodes[i] == 0x89 ? 0x60 : 0x20);
    end();
  }
}

static void fetches_are_translated_too(void) {
  begin_load(0x8b);
  store(0xc008, HOLE | 3);
  set(HV_X86_RIP, DATA);
  check_walk(HOLE, DATA, LINEAR_ONLY | 1);
  CHECK_EQ(get(HV_X86_RIP), DATA);
  store(0xe000, CODE | 3);
  HV(hv_vm_map(ram + 0xe000, HOLE, 0x1000, RWX));
  set(HV_X86_RBX, 0x3000);
  CHECK_EQ(run(), VMX_REASON_HLT);
  end();
}

/* Programs that log writes by protection learn of the tables that way. */
static void accessed_and_dirty_bits_are_writes(void) {
  begin_load(0x89);
  set(HV_X86_RBX, 0x3000);
  HV(hv_vm_protect(TABLES, TABLES_SIZE, RX));
  check_walk(0x9000, LINEAR, LINEAR_ONLY | 2 | 5 << 3);
  CHECK_EQ(ram[0x9000], 3);
  HV(hv_vm_protect(TABLES, 0x1000, RWX));
  check_walk(0xa008, LINEAR, LINEAR_ONLY | 2 | 5 << 3);
  CHECK_EQ(ram[0x9000], 0x23);
  HV(hv_vm_protect(TABLES, TABLES_SIZE, RWX));
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(ram[0x3000], 0x5a);
  CHECK_EQ(ram[0xd000] & 0xff, 0x23);
  CHECK_EQ(ram[0xb000], 0xe3);
  end();
}

static void bits_that_are_set_are_not_written(void) {
  begin_load(0x89);
  set(HV_X86_RBX, 0x3000);
  store(0x9000, 0xa023);
  store(0xa000, 0xb023);
  store(0xa008, 0xc023);
  store(0xb000, 0xa3); /* accessed, not dirty */
  store(0xc000, 0xd023);
  store(0xd000, CODE | 0x23);
  HV(hv_vm_protect(TABLES, TABLES_SIZE, RX));
  check_walk(0xb000, 0x3000, LINEAR_ONLY | 2 | 5 << 3);
  CHECK_EQ(get(HV_X86_RIP), LINEAR);
  CHECK_EQ(ram[0x3000], 0);
  HV(hv_vm_protect(TABLES, TABLES_SIZE, RWX));
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(ram[0x3000], 0x5a);
  CHECK_EQ(ram[0xb000], 0xe3);
  end();
}

/* By programs that decode nothing: an entry, and a bit that is taken as set. */
static void entries_can_be_answered(void) {
  begin_load(0x89);
  store(0xc008, HOLE | 3);
  set(HV_X86_RBX, DATA);
  check_walk(HOLE, DATA, LINEAR_ONLY | 1);
  HV(hv_ext_vcpu_complete(vcpu, 0x3003));
  check_walk(HOLE, DATA, LINEAR_ONLY | 2);
  HV(hv_ext_vcpu_complete(vcpu, 0));
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(ram[0x3000], 0x5a);
  end();
}

int main(void) {
  setenv("LUNA_ACCEL", "soft", 1);
  RUN_KVM(a_table_that_is_not_there_is_a_violation);
  RUN_KVM(fetches_are_translated_too);
  RUN_KVM(accessed_and_dirty_bits_are_writes);
  RUN_KVM(bits_that_are_set_are_not_written);
  RUN_KVM(entries_can_be_answered);
  return test_end();
}
