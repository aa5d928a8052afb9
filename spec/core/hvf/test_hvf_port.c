/* SPDX-License-Identifier: MIT
 * HLT and port exits as a program for the Hypervisor framework finds them, and how it goes on. */
#include "fixture/hvf_long.h"

enum {
  IO_IN = 8,
  IO_STRING = 16,
  IO_REP = 32,
  IO_IMMEDIATE = 64
};

static void check_io(uint64_t rip, uint64_t length, uint64_t qualification) {
  CHECK_EQ(run(), VMX_REASON_IO);
  CHECK_EQ(field(VMCS_RO_EXIT_QUALIFIC), qualification);
  CHECK_EQ(field(VMCS_RO_VMEXIT_INSTR_LEN), length);
  CHECK_EQ(get(HV_X86_RIP), rip);
}

static void halt_exits_with_rip_at_it(void) {
  BEGIN(0xf4, 0xf4);
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RIP), CODE);
  CHECK_EQ(field(VMCS_GUEST_RIP), CODE);
  CHECK_EQ(field(VMCS_RO_VMEXIT_INSTR_LEN), 1);
  CHECK_EQ(run(), VMX_REASON_HLT); /* it was not stepped over */
  CHECK_EQ(get(HV_X86_RIP), CODE);
  skip();
  CHECK_EQ(get(HV_X86_RIP), CODE + 1);
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RIP), CODE + 1);
  end();
}

static void halt_can_be_left_without_a_look_at_rip(void) {
  BEGIN(0xf4, 0xf4, 0xf4);
  CHECK_EQ(run(), VMX_REASON_HLT);
  set(HV_X86_RIP, CODE + 2);
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RIP), CODE + 2);
  end();
}

static void every_form_of_out_has_length_and_qualification(void) {
  /* out 0x10, al; ax; eax; mov dx, 0x3f8; out dx, al; ax; eax; hlt */
  BEGIN(0xe6, 0x10, 0xe7, 0x10, 0x66, 0xe7, 0x10, 0xba, 0xf8, 0x03, 0xee, 0xef, 0x66, 0xef, 0xf4);
  set(HV_X86_RAX, 0x1122334455667788);
  static const struct {
    uint64_t rip, length, qualification;
  } expected[] = {
      {CODE, 2, 0x100000 | IO_IMMEDIATE},
      {CODE + 2, 2, 0x100001 | IO_IMMEDIATE},
      {CODE + 4, 3, 0x100003 | IO_IMMEDIATE},
      {CODE + 10, 1, 0x3f80000},
      {CODE + 11, 1, 0x3f80001},
      {CODE + 12, 2, 0x3f80003},
  };
  for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
    check_io(expected[i].rip, expected[i].length, expected[i].qualification);
    CHECK_EQ(get(HV_X86_RAX), 0x1122334455667788);
    skip();
  }
  CHECK_EQ(run(), VMX_REASON_HLT);
  end();
}

static void neighbours_of_one_kind_are_told_apart(void) {
  BEGIN(0xee, 0xee, 0xee, 0xf4); /* out dx, al three times */
  set(HV_X86_RDX, 0x80);
  for (uint64_t i = 0; i < 3; i++) {
    check_io(CODE + i, 1, 0x800000);
    skip();
  }
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RIP), CODE + 3);
  end();
}

static void out_that_is_not_stepped_over_exits_again(void) {
  BEGIN(0xe6, 0x10, 0xf4);
  CHECK_EQ(run(), VMX_REASON_IO);
  check_io(CODE, 2, 0x100000 | IO_IMMEDIATE);
  check_io(CODE, 2, 0x100000 | IO_IMMEDIATE);
  set(HV_X86_RIP, CODE + 2);
  CHECK_EQ(run(), VMX_REASON_HLT);
  end();
}

static void in_takes_what_the_program_writes_to_rax(void) {
  BEGIN(0xe4, 0x60, 0xe5, 0x60, 0x66, 0xe5, 0x60, 0xf4); /* in al, ax, eax */
  set(HV_X86_RAX, 0xaaaaaaaaaaaaaaaa);
  check_io(CODE, 2, 0x600000 | IO_IN | IO_IMMEDIATE);
  CHECK_EQ(get(HV_X86_RAX), 0xaaaaaaaaaaaaaaaa);
  set(HV_X86_RAX, 0xaaaaaaaaaaaaaa55);
  CHECK_EQ(get(HV_X86_RAX), 0xaaaaaaaaaaaaaa55);
  skip();
  check_io(CODE + 2, 2, 0x600001 | IO_IN | IO_IMMEDIATE);
  CHECK_EQ(get(HV_X86_RAX), 0xaaaaaaaaaaaaaa55);
  set(HV_X86_RAX, 0x1234); /* all of it, which a processor would not do */
  skip();
  check_io(CODE + 4, 3, 0x600003 | IO_IN | IO_IMMEDIATE);
  CHECK_EQ(get(HV_X86_RAX), 0x1234);
  set(HV_X86_RAX, 0xfedcba9876543210);
  skip();
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RAX), 0xfedcba9876543210);
  end();
}

static void in_leaves_rax_if_the_program_does(void) {
  BEGIN(0xe4, 0x60, 0xf4);
  set(HV_X86_RAX, 0x1122334455667788);
  CHECK_EQ(run(), VMX_REASON_IO);
  skip();
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RAX), 0x1122334455667788);
  end();
}

static void in_that_is_not_stepped_over_exits_again(void) {
  BEGIN(0xe4, 0x60, 0xf4);
  set(HV_X86_RAX, 0x77);
  check_io(CODE, 2, 0x600000 | IO_IN | IO_IMMEDIATE);
  CHECK_EQ(run(), VMX_REASON_IO);
  CHECK_EQ(get(HV_X86_RAX), 0x77);
  set(HV_X86_RAX, 0x99);
  check_io(CODE, 2, 0x600000 | IO_IN | IO_IMMEDIATE);
  CHECK_EQ(get(HV_X86_RAX), 0x99);
  skip();
  CHECK_EQ(run(), VMX_REASON_HLT);
  end();
}

static void registers_can_be_written_at_a_port_exit(void) {
  BEGIN(0xe4, 0x60, 0xe6, 0x61, 0xf4);
  for (int i = 0; i < 2; i++) {
    CHECK_EQ(run(), VMX_REASON_IO);
    set(HV_X86_RBX, 0x1000 + (uint64_t)i);
    set_field(VMCS_GUEST_DS_BASE, 0x500);
    skip();
  }
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RBX), 0x1001);
  CHECK_EQ(field(VMCS_GUEST_DS_BASE), 0x500);
  end();
}

static void outs_comes_before_its_first_element(void) {
  BEGIN(0xf3, 0x6e, 0xf4); /* rep outsb */
  set(HV_X86_RDX, 0x80);
  set(HV_X86_RSI, 0x2000);
  set(HV_X86_RCX, 5);
  memcpy(ram + 0x2000, "hello", 5);
  check_io(CODE, 2, 0x800000 | IO_STRING | IO_REP);
  CHECK_EQ(get(HV_X86_RCX), 5);
  CHECK_EQ(get(HV_X86_RSI), 0x2000);
  CHECK_EQ(field(VMCS_RO_VMX_INSTR_INFO), 3 << 15); /* 16-bit addresses, DS */
  set(HV_X86_RSI, 0x2005);                          /* the program does all five */
  set(HV_X86_RCX, 0);
  skip();
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RIP), CODE + 2);
  CHECK_EQ(get(HV_X86_RSI), 0x2005);
  CHECK_EQ(get(HV_X86_RCX), 0);
  end();
}

static void outs_can_be_done_one_by_one(void) {
  char text[8] = "";
  BEGIN(0xfd, 0x26, 0xf3, 0x6e, 0xf4); /* std; rep outs dx, byte [es:si] */
  set(HV_X86_RDX, 0x80);
  set(HV_X86_RSI, 0x2004);
  set(HV_X86_RCX, 0x7000000000000005); /* the address size has the low half of it */
  memcpy(ram + 0x2000, "hello", 5);
  for (uint64_t i = 0; i < 5; i++) {
    check_io(CODE + 1, 3, 0x800000 | IO_STRING | IO_REP);
    CHECK_EQ(field(VMCS_RO_VMX_INSTR_INFO), 0);
    CHECK_EQ(get(HV_X86_RCX), 0x7000000000000005 - i);
    CHECK_EQ(get(HV_X86_RSI), 0x2004 - i);
    text[i] = (char)ram[get(HV_X86_RSI)];
    set(HV_X86_RSI, get(HV_X86_RSI) - 1);
    set(HV_X86_RCX, get(HV_X86_RCX) - 1);
  }
  CHECK(strcmp(text, "olleh") == 0);
  CHECK_EQ(run(), VMX_REASON_HLT); /* nothing is left */
  end();
}

static void outs_without_rep_counts_nothing(void) {
  BEGIN(0x6f, 0x6f, 0xf4); /* outsw twice */
  set(HV_X86_RDX, 0x80);
  set(HV_X86_RSI, 0xfffe);
  set(HV_X86_RCX, 9);
  check_io(CODE, 1, 0x800001 | IO_STRING);
  CHECK_EQ(get(HV_X86_RSI), 0xfffe);
  CHECK_EQ(get(HV_X86_RCX), 9);
  set(HV_X86_RSI, 0);
  skip();
  check_io(CODE + 1, 1, 0x800001 | IO_STRING);
  CHECK_EQ(get(HV_X86_RSI), 0);
  end();
}

static void ins_is_the_program_s_to_do(void) {
  BEGIN(0xf3, 0x6c, 0xf4); /* rep insb */
  set(HV_X86_RDX, 0x80);
  set(HV_X86_RDI, 0x3000);
  set(HV_X86_RCX, 4);
  check_io(CODE, 2, 0x800000 | IO_STRING | IO_REP | IO_IN);
  CHECK_EQ(get(HV_X86_RCX), 4);
  CHECK_EQ(get(HV_X86_RDI), 0x3000);
  memcpy(ram + 0x3000, "data", 4);
  set(HV_X86_RDI, 0x3004);
  set(HV_X86_RCX, 0);
  skip();
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK(memcmp(ram + 0x3000, "data", 5) == 0);
  CHECK_EQ(get(HV_X86_RDI), 0x3004);
  end();
}

static void a_string_that_is_not_touched_exits_again(void) {
  BEGIN(0xf3, 0x6e, 0xf4);
  set(HV_X86_RDX, 0x80);
  set(HV_X86_RSI, 0x2000);
  set(HV_X86_RCX, 2);
  CHECK_EQ(run(), VMX_REASON_IO);
  CHECK_EQ(run(), VMX_REASON_IO);
  CHECK_EQ(get(HV_X86_RSI), 0x2000);
  CHECK_EQ(get(HV_X86_RCX), 2);
  end();
}

static void ports_can_be_completed(void) {
  hv_ext_access access;
  char text[8] = "";
  BEGIN(0xe4, 0x60, 0xf3, 0x6e, 0xf4); /* in al, 0x60; rep outsb; hlt */
  set(HV_X86_RDX, 0x80);
  set(HV_X86_RSI, 0x2000);
  set(HV_X86_RCX, 3);
  memcpy(ram + 0x2000, "abc", 3);
  CHECK_EQ(run(), VMX_REASON_IO);
  HV(hv_ext_vcpu_access(vcpu, &access));
  CHECK_EQ(access.port, 1);
  CHECK_EQ(access.address, 0x60);
  HV(hv_ext_vcpu_complete(vcpu, 0x42));
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(run(), VMX_REASON_IO);
    HV(hv_ext_vcpu_access(vcpu, &access));
    text[i] = (char)access.value;
    HV(hv_ext_vcpu_complete(vcpu, 0));
  }
  CHECK(strcmp(text, "abc") == 0);
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RAX) & 0xff, 0x42);
  HV_IS(hv_ext_vcpu_access(vcpu, &access), HV_ERROR);
  HV_IS(hv_ext_vcpu_access(vcpu, NULL), HV_BAD_ARGUMENT);
  HV_IS(hv_ext_vcpu_access(vcpu + 1, &access), HV_BAD_ARGUMENT);
  HV_IS(hv_ext_vcpu_complete(vcpu + 1, 0), HV_BAD_ARGUMENT);
  end();
}

static void code_is_read_through_the_page_tables(void) {
  /* out 0x10, al; 64-bit rep outsd; in eax, 0x20; hlt */
  static const uint8_t code[] = {0xe6, 0x10, 0xf3, 0x6f, 0xe5, 0x20, 0xf4};
  begin_long(code, sizeof code);
  set(HV_X86_RDX, 0x30);
  set(HV_X86_RSI, 0x2000);
  set(HV_X86_RCX, 3);
  check_io(LINEAR, 2, 0x100000 | IO_IMMEDIATE);
  skip();
  check_io(LINEAR + 2, 2, 0x300003 | IO_STRING | IO_REP);
  CHECK_EQ(field(VMCS_RO_VMX_INSTR_INFO), 2 << 7 | 3 << 15); /* 64-bit addresses, DS */
  CHECK_EQ(get(HV_X86_RSI), 0x2000);
  CHECK_EQ(get(HV_X86_RCX), 3);
  set(HV_X86_RCX, 0);
  skip();
  check_io(LINEAR + 4, 2, 0x200003 | IO_IN | IO_IMMEDIATE);
  set(HV_X86_RAX, 0xffffffff87654321);
  skip();
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RAX), 0xffffffff87654321);
  CHECK_EQ(get(HV_X86_RIP), LINEAR + 6);
  end();
}

int main(void) {
  RUN_KVM(halt_exits_with_rip_at_it);
  RUN_KVM(halt_can_be_left_without_a_look_at_rip);
  RUN_KVM(every_form_of_out_has_length_and_qualification);
  RUN_KVM(neighbours_of_one_kind_are_told_apart);
  RUN_KVM(out_that_is_not_stepped_over_exits_again);
  RUN_KVM(in_takes_what_the_program_writes_to_rax);
  RUN_KVM(in_leaves_rax_if_the_program_does);
  RUN_KVM(in_that_is_not_stepped_over_exits_again);
  RUN_KVM(registers_can_be_written_at_a_port_exit);
  RUN_KVM(outs_comes_before_its_first_element);
  RUN_KVM(outs_can_be_done_one_by_one);
  RUN_KVM(outs_without_rep_counts_nothing);
  RUN_KVM(ins_is_the_program_s_to_do);
  RUN_KVM(a_string_that_is_not_touched_exits_again);
  RUN_KVM(ports_can_be_completed);
  RUN_KVM(code_is_read_through_the_page_tables);
  return test_end();
}
