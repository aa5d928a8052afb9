/* SPDX-License-Identifier: MIT
 * EPT violations as a program for the Hypervisor framework finds them, and how it goes on; and
 * exits that leave nothing to do. */
#include "fixture/hvf_long.h"

enum {
  HOLE = 0x20000
};

/* mov eax, [0x800]; inc ebx; hlt, with DS at HOLE */
#define READ_HOLE 0x66, 0xa1, 0x00, 0x08, 0x66, 0x43, 0xf4
/* mov [0x800], eax; inc ebx; hlt */
#define WRITE_HOLE 0x66, 0xa3, 0x00, 0x08, 0x66, 0x43, 0xf4

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
  set(HV_X86_RCX, 0);
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

static void system_registers_are_taken_back(void) {
  BEGIN_HOLE(0x8e, 0x1e, 0x00, 0x08, 0xf4); /* mov ds, [0x800]; hlt */
  set(HV_X86_DS, 0x1234);
  check_violation(1, HOLE + 0x800);
  CHECK_EQ(field(VMCS_RO_VMEXIT_INSTR_LEN), 4);
  CHECK_EQ(get(HV_X86_DS), 0x1234);
  CHECK_EQ(field(VMCS_GUEST_DS_BASE), HOLE);
  HV(hv_vm_map(page, HOLE, sizeof page, RWX));
  page[0x801] = 0x20;
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_DS), 0x2000);
  CHECK_EQ(field(VMCS_GUEST_DS_BASE), 0x20000);
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
  CHECK_EQ(field(VMCS_RO_VMEXIT_INSTR_LEN), 4);
  CHECK_EQ(get(HV_X86_RIP), CODE);
  set(HV_X86_RAX, 0); /* which the write does not depend on any more */
  CHECK_EQ(get(HV_X86_RIP), CODE);
  skip();
  CHECK_EQ(get(HV_X86_RIP), CODE + 4);
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RBX), 1);
  end();
}

static void a_write_violation_comes_again_where_rip_stays(void) {
  BEGIN_HOLE(WRITE_HOLE);
  for (int i = 0; i < 3; i++) {
    check_violation(2, HOLE + 0x800);
    CHECK_EQ(get(HV_X86_RIP), CODE);
    if (i == 1) {
      set(HV_X86_RIP, CODE);
    }
  }
  HV(hv_vm_map(page, HOLE, sizeof page, RWX));
  set(HV_X86_RIP, CODE);
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK(memcmp(page + 0x800, "\x55\x55\x55\x55", 4) == 0);
  CHECK_EQ(get(HV_X86_RBX), 1);
  end();
}

static void a_write_violation_is_not_done_twice(void) {
  BEGIN_HOLE(WRITE_HOLE);
  check_violation(2, HOLE + 0x800);
  HV(hv_vm_map(page, HOLE, sizeof page, RWX)); /* for the accesses behind it */
  memcpy(page + 0x800, "\x11\x11\x11\x11", 4);
  skip();
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK(memcmp(page + 0x800, "\x11\x11\x11\x11", 4) == 0);
  end();
}

/* What comes to something else a second time, or has changed registers, stays behind RIP, but where
 * the exit comes before the instruction. */
static void a_write_that_cannot_be_done_again_stays_done(void) {
  static const uint8_t codes[][4] = {
      {0x86, 0x06, 0x00, 0x08}, /* xchg [0x800], al */
      {0x10, 0x06, 0x00, 0x08}, /* adc [0x800], al */
  };
  for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
    begin_hole(codes[i], sizeof codes[i]);
    ram[CODE + 4] = 0xf4;
    HV(hv_vm_map(page, HOLE, sizeof page, RX));
    CHECK_EQ(run(), VMX_REASON_EPT_VIOLATION);
    CHECK_EQ(get(HV_X86_RIP), follows() ? CODE : CODE + 4);
    CHECK_EQ(field(VMCS_RO_VMEXIT_INSTR_LEN), follows() ? 4 : 0);
    skip();
    CHECK_EQ(run(), VMX_REASON_HLT);
    end();
  }
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

/* KVM has no page tables to enter with then. */
static void without_any_memory_the_first_fetch_is_a_violation(void) {
  HV(hv_vm_create(HV_VM_DEFAULT));
  HV(hv_vcpu_create(&vcpu, HV_VCPU_DEFAULT));
  for (int i = 0; i < 2; i++) {
    CHECK_EQ(run(), VMX_REASON_EPT_VIOLATION);
    CHECK_EQ(field(VMCS_GUEST_PHYSICAL_ADDRESS), 0xfffffff0);
    CHECK_EQ(field(VMCS_RO_EXIT_QUALIFIC) & 7, 4);
  }
  memset(page, 0xf4, sizeof page);
  HV(hv_vm_map(page, 0xfffff000, sizeof page, RX));
  CHECK_EQ(run(), VMX_REASON_HLT);
  end();
}

static void linear_addresses_are_told_with_paging(void) {
  /* mov eax, [0x200000]; jmp to the page behind */
  static const uint8_t code[] = {0x8b, 0x04, 0x25, 0x00, 0x00, 0x20,
                                 0x00, 0xe9, 0xf4, 0x0f, 0x00, 0x00};
  begin_long(code, sizeof code);
  store(0xd008, 0x300003);
  CHECK_EQ(run(), VMX_REASON_EPT_VIOLATION);
  CHECK_EQ(field(VMCS_RO_EXIT_QUALIFIC), 1 | 3 << 7);
  CHECK_EQ(field(VMCS_GUEST_PHYSICAL_ADDRESS), 0x200000);
  CHECK_EQ(field(VMCS_RO_GUEST_LIN_ADDR), 0x200000);
  CHECK_EQ(field(VMCS_RO_VMEXIT_INSTR_LEN), 7);
  skip();
  CHECK_EQ(run(), VMX_REASON_EPT_VIOLATION);
  CHECK_EQ(field(VMCS_RO_EXIT_QUALIFIC), 4 | 3 << 7);
  CHECK_EQ(field(VMCS_GUEST_PHYSICAL_ADDRESS), 0x300000);
  CHECK_EQ(field(VMCS_RO_GUEST_LIN_ADDR), LINEAR + 0x1000);
  CHECK_EQ(get(HV_X86_RIP), LINEAR + 0x1000);
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

/* A write to the page at 0x4000 by an instruction that cannot be gone back to. */
static void writes_at(const uint8_t *code, size_t size, uint64_t gpa) {
  begin_long(code, size);
  set(HV_X86_RSP, 0x4800);
  set(HV_X86_RDI, 0x4010);
  set(HV_X86_RAX, 0x10);
  HV(hv_vm_protect(0x4000, 0x1000, HV_MEMORY_READ | HV_MEMORY_EXEC));
  CHECK_EQ(run(), VMX_REASON_EPT_VIOLATION);
  CHECK_EQ(field(VMCS_GUEST_PHYSICAL_ADDRESS), gpa);
  CHECK_EQ(field(VMCS_RO_GUEST_LIN_ADDR), gpa);
  CHECK_EQ(field(VMCS_RO_EXIT_QUALIFIC) & 0x187, 0x182);
  HV(hv_vm_protect(0x4000, 0x1000, RWX));
  CHECK_EQ(run(), VMX_REASON_HLT);
  end();
}

static void writes_that_are_not_found_have_a_linear_address(void) {
  static const uint8_t push[] = {0x50, 0xf4};
  static const uint8_t call[] = {0xe8, 0x00, 0x00, 0x00, 0x00, 0xf4};
  static const uint8_t xadd[] = {0xf0, 0x0f, 0xc1, 0x07, 0xf4}; /* lock xadd [rdi], eax */
  static const uint8_t adc[] = {0x11, 0x47, 0x10, 0xf4};        /* adc [rdi + 16], eax */
  static const uint8_t stos[] = {0xaa, 0xf4};
  static const uint8_t back[] = {0xfd, 0xab, 0xf4}; /* std; stosd */
  writes_at(push, sizeof push, 0x47f8);
  writes_at(call, sizeof call, 0x47f8);
  writes_at(xadd, sizeof xadd, 0x4010);
  writes_at(adc, sizeof adc, 0x4020);
  writes_at(stos, sizeof stos, 0x4010);
  writes_at(back, sizeof back, 0x4010);
}

/* The accessed bit of a descriptor, on processors that exit for it. */
static void what_the_processor_writes_has_a_linear_address(void) {
  static const uint8_t code[] = {0x8e, 0xd8, 0xf4}; /* mov ds, eax; hlt */
  begin_long(code, sizeof code);
  store(0x4110, 0x00cf92000000ffff);
  set_field(VMCS_GUEST_GDTR_BASE, 0x4100);
  set_field(VMCS_GUEST_GDTR_LIMIT, 0x17);
  set(HV_X86_RAX, 0x10);
  HV(hv_vm_protect(0x4000, 0x1000, HV_MEMORY_READ | HV_MEMORY_EXEC));
  /* Others try it again and again, until the time is up. */
  HV(hv_vcpu_run_until(vcpu, luna_clock() + UINT64_C(2000000000)));
  if (field(VMCS_RO_EXIT_REASON) == VMX_REASON_EPT_VIOLATION) {
    CHECK_EQ(field(VMCS_GUEST_PHYSICAL_ADDRESS) & ~UINT64_C(7), 0x4110);
    CHECK_EQ(field(VMCS_RO_GUEST_LIN_ADDR), field(VMCS_GUEST_PHYSICAL_ADDRESS));
    CHECK_EQ(field(VMCS_RO_EXIT_QUALIFIC) & 0x187, 0x182);
    HV(hv_vm_protect(0x4000, 0x1000, RWX));
    CHECK_EQ(run(), VMX_REASON_HLT);
    CHECK_EQ(get(HV_X86_DS), 0x10);
  }
  end();
}

int main(void) {
  RUN_KVM(a_read_violation_can_be_emulated);
  RUN_KVM(a_read_violation_is_retried_when_memory_is_there);
  RUN_KVM(a_read_violation_can_be_completed);
  RUN_KVM(an_instruction_that_was_taken_back_cannot_be_completed);
  RUN_KVM(read_and_write_in_one_can_be_emulated);
  RUN_KVM(system_registers_are_taken_back);
  RUN_KVM(a_copy_out_of_a_hole_can_be_emulated);
  RUN_KVM(a_write_violation_can_be_stepped_over);
  RUN_KVM(a_write_violation_comes_again_where_rip_stays);
  RUN_KVM(a_write_violation_is_not_done_twice);
  RUN_KVM(a_write_that_cannot_be_done_again_stays_done);
  RUN_KVM(a_write_violation_is_retried_when_memory_allows_it);
  RUN_KVM(a_write_violation_can_be_completed);
  RUN_KVM(a_violation_is_retried_in_the_space_that_the_vcpu_moved_to);
  RUN_KVM(a_fetch_violation_is_retried);
  RUN_KVM(a_fetch_violation_can_be_left_by_rip);
  RUN_KVM(without_any_memory_the_first_fetch_is_a_violation);
  RUN_KVM(linear_addresses_are_told_with_paging);
  RUN_KVM(a_triple_fault_is_one);
  RUN_KVM(registers_that_are_refused_are_an_entry_failure);
  RUN_KVM(an_interrupt_before_the_instruction_is_done_shows_it_done);
  RUN_KVM(writes_that_are_not_found_have_a_linear_address);
  RUN_KVM(what_the_processor_writes_has_a_linear_address);
  return test_end();
}
