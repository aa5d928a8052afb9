/* SPDX-License-Identifier: MIT
 * Exits as a program for the Hypervisor framework finds them, and how it goes on. */
#include "hvf_fixture.h"

enum {
  IO_IN = 8,
  IO_STRING = 16,
  IO_REP = 32,
  IO_IMMEDIATE = 64,
  HOLE = 0x20000
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

/* ---- EPT violations ---- */

/* mov eax, [0x800]; inc ebx; hlt, with DS at HOLE */
#define READ_HOLE 0x66, 0xa1, 0x00, 0x08, 0x66, 0x43, 0xf4
/* mov [0x800], eax; inc ebx; hlt */
#define WRITE_HOLE 0x66, 0xa3, 0x00, 0x08, 0x66, 0x43, 0xf4

static void check_violation(uint64_t access, uint64_t gpa) {
  CHECK_EQ(run(), VMX_REASON_EPT_VIOLATION);
  CHECK_EQ(field(VMCS_RO_EXIT_QUALIFIC), access | 3 << 7);
  CHECK_EQ(field(VMCS_GUEST_PHYSICAL_ADDRESS), gpa);
  CHECK_EQ(field(VMCS_RO_GUEST_LIN_ADDR), gpa);
}

static void begin_hole(const void *code, size_t size) {
  begin_with(code, size, HV_VM_DEFAULT);
  set_field(VMCS_GUEST_DS_BASE, HOLE);
  set(HV_X86_RAX, 0xaaaaaaaa55555555);
  set(HV_X86_RBX, 0);
}

#define BEGIN_HOLE(...)                                                                            \
  begin_hole((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void a_read_violation_can_be_emulated(void) {
  BEGIN_HOLE(READ_HOLE);
  check_violation(1, HOLE + 0x800);
  CHECK_EQ(get(HV_X86_RIP), CODE);
  CHECK_EQ(field(VMCS_RO_VMEXIT_INSTR_LEN), 4);
  CHECK_EQ(get(HV_X86_RAX), 0xaaaaaaaa55555555);
  set(HV_X86_RAX, 0x12345678);
  skip();
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RAX), 0x12345678);
  CHECK_EQ(get(HV_X86_RBX), 1);
  end();
}

static void a_read_violation_is_retried_when_memory_is_there(void) {
  for (int look = 0; look < 2; look++) { /* with and without the instruction taken back */
    BEGIN_HOLE(READ_HOLE);
    memcpy(page + 0x800, "\x44\x33\x22\x11", 4);
    check_violation(1, HOLE + 0x800);
    if (look) {
      CHECK_EQ(field(VMCS_RO_VMEXIT_INSTR_LEN), 4);
    }
    check_violation(1, HOLE + 0x800); /* nothing has changed */
    HV(hv_vm_map(page, HOLE, sizeof page, RWX));
    CHECK_EQ(run(), VMX_REASON_HLT);
    CHECK_EQ(get(HV_X86_RAX), 0x11223344);
    CHECK_EQ(get(HV_X86_RBX), 1);
    end();
  }
}

static void a_read_violation_can_be_completed(void) {
  hv_ext_access access;
  BEGIN_HOLE(READ_HOLE);
  check_violation(1, HOLE + 0x800);
  HV(hv_ext_vcpu_access(vcpu, &access));
  CHECK_EQ(access.address, HOLE + 0x800);
  CHECK_EQ(access.size, 4);
  CHECK_EQ(access.access, HV_MEMORY_READ);
  CHECK_EQ(access.port, 0);
  CHECK_EQ(access.value, 0);
  HV(hv_ext_vcpu_complete(vcpu, 0xdeadbeef));
  HV_IS(hv_ext_vcpu_complete(vcpu, 0), HV_ERROR);
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RAX), 0xdeadbeef);
  CHECK_EQ(get(HV_X86_RBX), 1);
  end();
}

static void an_instruction_that_was_taken_back_cannot_be_completed(void) {
  BEGIN_HOLE(READ_HOLE);
  HV_IS(hv_ext_vcpu_complete(vcpu, 0), HV_ERROR);
  check_violation(1, HOLE + 0x800);
  CHECK_EQ(field(VMCS_RO_VMEXIT_INSTR_LEN), 4);
  HV_IS(hv_ext_vcpu_complete(vcpu, 0), HV_ERROR);
  end();
}

static void read_and_write_in_one_can_be_emulated(void) {
  BEGIN_HOLE(0x66, 0x01, 0x06, 0x00, 0x08, 0x66, 0x43, 0xf4); /* add [0x800], eax; inc ebx; hlt */
  set(HV_X86_RFLAGS, 2);
  check_violation(1, HOLE + 0x800);
  CHECK_EQ(field(VMCS_RO_VMEXIT_INSTR_LEN), 5);
  CHECK_EQ(get(HV_X86_RFLAGS), 2);
  skip();
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RBX), 1);
  end();
}

static void a_copy_out_of_a_hole_can_be_emulated(void) {
  BEGIN_HOLE(0xf3, 0xa4, 0xf4); /* rep movsb from HOLE to ES:DI */
  set(HV_X86_RSI, 0x800);
  set(HV_X86_RDI, 0x3000);
  set(HV_X86_RCX, 3);
  for (uint64_t i = 0; i < 3; i++) {
    check_violation(1, HOLE + 0x800 + i);
    CHECK_EQ(field(VMCS_RO_VMEXIT_INSTR_LEN), 2);
    CHECK_EQ(get(HV_X86_RSI), 0x800 + i);
    CHECK_EQ(get(HV_X86_RDI), 0x3000 + i);
    CHECK_EQ(get(HV_X86_RCX), 3 - i);
    ram[0x3000 + i] = (uint8_t) "abc"[i];
    set(HV_X86_RSI, 0x801 + i);
    set(HV_X86_RDI, 0x3001 + i);
    set(HV_X86_RCX, 2 - i);
  }
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK(memcmp(ram + 0x3000, "abc", 4) == 0);
  end();
}

static void a_write_violation_can_be_stepped_over(void) {
  hv_ext_access access;
  BEGIN_HOLE(WRITE_HOLE);
  check_violation(2, HOLE + 0x800);
  HV(hv_ext_vcpu_access(vcpu, &access));
  CHECK_EQ(access.value, 0x55555555);
  CHECK_EQ(access.access, HV_MEMORY_WRITE);
  CHECK_EQ(field(VMCS_RO_VMEXIT_INSTR_LEN), 0);
  CHECK_EQ(get(HV_X86_RIP), CODE + 4);
  skip();
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RBX), 1);
  end();
}

static void a_write_violation_is_retried_when_memory_allows_it(void) {
  BEGIN_HOLE(WRITE_HOLE);
  HV(hv_vm_map(page, HOLE, sizeof page, RX));
  check_violation(2 | 5 << 3, HOLE + 0x800); /* the page can be read and executed */
  check_violation(2 | 5 << 3, HOLE + 0x800);
  HV(hv_vm_protect(HOLE, sizeof page, RWX));
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK(memcmp(page + 0x800, "\x55\x55\x55\x55", 4) == 0);
  CHECK_EQ(get(HV_X86_RBX), 1);
  end();
}

static void a_write_violation_can_be_completed(void) {
  BEGIN_HOLE(WRITE_HOLE);
  check_violation(2, HOLE + 0x800);
  HV(hv_ext_vcpu_complete(vcpu, 0));
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RBX), 1);
  end();
}

static void a_violation_is_retried_in_the_space_that_the_vcpu_moved_to(void) {
  hv_vm_space_t other;
  BEGIN_HOLE(READ_HOLE);
  HV(hv_vm_space_create(&other));
  HV(hv_vm_map_space(other, ram, 0, RAM_SIZE, RWX));
  HV(hv_vm_map_space(other, page, HOLE, sizeof page, RWX));
  memcpy(page + 0x800, "\x78\x56\x34\x12", 4);
  check_violation(1, HOLE + 0x800);
  HV(hv_vcpu_set_space(vcpu, other));
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RAX), 0x12345678);
  HV(hv_vcpu_set_space(vcpu, HV_VM_SPACE_DEFAULT));
  end();
}

static void a_fetch_violation_is_retried(void) {
  BEGIN(0xf4);
  set_field(VMCS_GUEST_CS_BASE, HOLE);
  set(HV_X86_RIP, 0x10);
  check_violation(4, HOLE + 0x10);
  CHECK_EQ(get(HV_X86_RIP), 0x10);
  HV_IS(hv_ext_vcpu_complete(vcpu, 0), HV_UNSUPPORTED);
  check_violation(4, HOLE + 0x10);
  page[0x10] = 0xf4;
  HV(hv_vm_map(page, HOLE, sizeof page, RWX));
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RIP), 0x10);
  end();
}

static void a_fetch_violation_can_be_left_by_rip(void) {
  BEGIN(0xf4);
  set_field(VMCS_GUEST_CS_BASE, HOLE);
  CHECK_EQ(run(), VMX_REASON_EPT_VIOLATION);
  set(HV_X86_RIP, CODE);
  set_field(VMCS_GUEST_CS_BASE, 0);
  CHECK_EQ(run(), VMX_REASON_HLT);
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

/* ---- Others ---- */

static void a_triple_fault_is_one(void) {
  BEGIN(0x0f, 0x0b); /* ud2, in protected mode without a table of vectors */
  set_field(VMCS_GUEST_CR0, 0x31);
  set_field(VMCS_GUEST_CS, 8);
  set_field(VMCS_GUEST_CS_LIMIT, 0xffffffff);
  set_field(VMCS_GUEST_CS_AR, 0xc09b);
  set_field(VMCS_GUEST_IDTR_LIMIT, 0);
  CHECK_EQ(run(), VMX_REASON_TRIPLE_FAULT);
  end();
}

static void registers_that_are_refused_are_an_entry_failure(void) {
  BEGIN(0xf4);
  uint64_t cr0 = field(VMCS_GUEST_CR0);
  set_field(VMCS_GUEST_CR0, 0x80000000); /* paging without protection */
  CHECK_EQ(run(), VMX_REASON_ENTRY_FAILURE | VMX_REASON_VMENTRY_GUEST);
  set_field(VMCS_GUEST_CR0, cr0);
  CHECK_EQ(run(), VMX_REASON_HLT);
  end();
}

static void an_interrupt_before_the_instruction_is_done_shows_it_done(void) {
  BEGIN(0xe4, 0x60, 0xe6, 0x61, 0xf4);
  for (uint64_t i = 0; i < 2; i++) { /* IN, then OUT */
    CHECK_EQ(run(), VMX_REASON_IO);
    set(HV_X86_RAX, 0x33 + i);
    skip();
    HV(hv_vcpu_interrupt(&vcpu, 1));
    CHECK_EQ(run(), VMX_REASON_IRQ);
    CHECK_EQ(get(HV_X86_RIP), CODE + 2 + 2 * i);
    CHECK_EQ(get(HV_X86_RAX) & 0xff, 0x33 + i);
  }
  CHECK_EQ(run(), VMX_REASON_HLT);
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
  RUN_KVM(a_read_violation_can_be_emulated);
  RUN_KVM(a_read_violation_is_retried_when_memory_is_there);
  RUN_KVM(a_read_violation_can_be_completed);
  RUN_KVM(an_instruction_that_was_taken_back_cannot_be_completed);
  RUN_KVM(read_and_write_in_one_can_be_emulated);
  RUN_KVM(a_copy_out_of_a_hole_can_be_emulated);
  RUN_KVM(a_write_violation_can_be_stepped_over);
  RUN_KVM(a_write_violation_is_retried_when_memory_allows_it);
  RUN_KVM(a_write_violation_can_be_completed);
  RUN_KVM(a_violation_is_retried_in_the_space_that_the_vcpu_moved_to);
  RUN_KVM(a_fetch_violation_is_retried);
  RUN_KVM(a_fetch_violation_can_be_left_by_rip);
  RUN_KVM(ports_can_be_completed);
  RUN_KVM(a_triple_fault_is_one);
  RUN_KVM(registers_that_are_refused_are_an_entry_failure);
  RUN_KVM(an_interrupt_before_the_instruction_is_done_shows_it_done);
  return test_end();
}
