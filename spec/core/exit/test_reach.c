/* SPDX-License-Identifier: MIT
 * luna_vcpu_check of the way from an exception to the stubs of the system area: through page tables
 * of the guest's own, and in spaces where the area is not. */
#include "fixture/mode_fixture.h"

enum {
  P = 1,
  W = 2,
  U = 4,
  TABLES = 0x10000 /* PML4, PDPT, PD and PT, a page each */
};
#define NX (UINT64_C(1) << 63)

static uint64_t system_area;

static void put(uint64_t gpa, uint64_t entry) {
  memcpy(host(gpa), &entry, sizeof entry);
}

static uint64_t table(uint64_t shift) {
  return TABLES + (39 - shift) / 9 * PAGE;
}

static void lead(uint64_t gva, uint64_t entry) {
  for (uint64_t shift = 39; shift > 12; shift -= 9) {
    put(table(shift) + (gva >> shift & 511) * 8, table(shift - 9) | P | W | U);
  }
  put(table(12) + (gva >> 12 & 511) * 8, entry);
}

/* A vCPU with tables of its own, which map its system area one to one. */
static void begin_own(void) {
  begin(LUNA_MODE_LONG64);
  map(TABLES, UINT64_C(4) * PAGE, RWX);
  system_area = luna_vcpu_system(vcpu);
  for (uint64_t offset = 0; offset < LUNA_SYSTEM_SIZE; offset += PAGE) {
    lead(system_area + offset, (system_area + offset) | P | W);
  }
  CHECK_OK(luna_vcpu_set(vcpu, LUNA_CR3, TABLES));
  CHECK_OK(luna_vcpu_check(vcpu));
}

static void check_entry(uint64_t offset, uint64_t entry, const char *text) {
  uint64_t right = (system_area + offset) | P | W;
  lead(system_area + offset, entry);
  CHECK_FAILS(luna_vcpu_check(vcpu), LUNA_ERROR_NOT_FOUND, text);
  lead(system_area + offset, right);
  CHECK_OK(luna_vcpu_check(vcpu));
}

static void pages(void) {
  begin_own();
  uint64_t code = system_area | P | W;
  check_entry(0x1000, 0,
              "no exception of vCPU 0 becomes an exit: the page tables at cr3 0x10000 do not map "
              "linear address 0xfebf1000, the IDT of its system area; map 0x10000 bytes at "
              "0xfebf0000 one to one");
  check_entry(0x1000, 0x5000 | P | W, "lead elsewhere from linear address 0xfebf1000");
  check_entry(0, 0, "do not map linear address 0xfebf0800, the code");
  check_entry(0, code | NX, "the rights it needs at linear address 0xfebf0800, the code");
  check_entry(0x2000, 0, "0xfebf2000, the TSS");
  check_entry(0x5000, 0, "0xfebf5000, the stack");
  check_entry(0x5000, (system_area + 0x5000) | P,
              "the rights it needs at linear address "
              "0xfebf5000, the stack");
  lead(system_area + 0x9000, 0); /* nothing there that an exception needs */
  CHECK_OK(luna_vcpu_check(vcpu));
  end();
}

/* Rights that depend on control registers. */
static void modes_of_protection(void) {
  begin_own();
  lead(system_area + 0x5000, (system_area + 0x5000) | P);
  CHECK_OK(luna_vcpu_set(vcpu, LUNA_CR0, get(LUNA_CR0) & ~UINT64_C(0x10000)));
  CHECK_OK(luna_vcpu_check(vcpu)); /* without WP ring 0 writes everywhere */
  CHECK_OK(luna_vcpu_set(vcpu, LUNA_CR0, get(LUNA_CR0) | 0x10000));
  lead(system_area + 0x5000, (system_area + 0x5000) | P | W);
  lead(system_area, system_area | P | W | U);
  CHECK_OK(luna_vcpu_check(vcpu));
  CHECK_OK(luna_vcpu_set(vcpu, LUNA_CR4, get(LUNA_CR4) | 0x100000));
  int status = luna_vcpu_check(vcpu); /* SMEP, if the host has it; else CR4 itself is wrong */
  CHECK(status == LUNA_ERROR_NOT_FOUND || status == LUNA_ERROR_STATE);
  end();
}

static void tables_in_no_memory(void) {
  begin_own();
  CHECK_OK(luna_vcpu_set(vcpu, LUNA_CR3, 0x40000000));
  CHECK_FAILS(luna_vcpu_check(vcpu), LUNA_ERROR_NOT_FOUND,
              "the page tables at cr3 0x40000000 do not map");
  end();
}

/* With an IDT of the guest's, exceptions are its own business. */
static void tables_of_the_guest(void) {
  begin_own();
  CHECK_OK(luna_vcpu_set(vcpu, LUNA_CR3, 0x40000000));
  CHECK_OK(luna_vcpu_set(vcpu, LUNA_IDTR_BASE, 0x3000));
  CHECK_OK(luna_vcpu_check(vcpu));
  end();
  begin_own();
  CHECK_OK(luna_vcpu_set(vcpu, LUNA_TR_BASE, 0x3000));
  lead(system_area + 0x2000, 0);
  lead(system_area + 0x5000, 0);
  CHECK_OK(luna_vcpu_check(vcpu));
  end();
}

static void spaces(void) {
  uint32_t space;
  for (uint32_t mode = LUNA_MODE_PROT32; mode <= LUNA_MODE_USER64; mode++) {
    test_note("mode %u", mode);
    begin(mode);
    CHECK_OK(luna_vm_space_create(vm, &space));
    CHECK_OK(luna_vcpu_set_space(vcpu, space, 0));
    CHECK_OK(luna_vcpu_check(vcpu)); /* the area came along */
    uint64_t area = luna_vcpu_system(vcpu);
    CHECK_OK(luna_vm_unmap_space(vm, space, area + 0x1000, PAGE));
    CHECK_FAILS(luna_vcpu_check(vcpu), LUNA_ERROR_NOT_FOUND,
                "space 1 does not have the IDT of its system area at gpa 0xfebf1000");
    luna_buffer *other;
    CHECK_OK(luna_buffer_create(PAGE, &other));
    CHECK_OK(luna_vm_map_space(vm, space, other, 0, area + 0x1000, PAGE, RWX));
    luna_buffer_release(other);
    CHECK_FAILS(luna_vcpu_check(vcpu), LUNA_ERROR_NOT_FOUND, "space 1 does not have the IDT");
    CHECK_OK(luna_vcpu_set_space(vcpu, 0, 0));
    CHECK_OK(luna_vcpu_check(vcpu));
    end();
  }
}

static void none_needed(void) {
  begin(LUNA_MODE_REAL);
  CHECK_OK(luna_vcpu_check(vcpu));
  end();
}

int main(void) {
  RUN(pages);
  RUN(modes_of_protection);
  RUN(tables_in_no_memory);
  RUN(tables_of_the_guest);
  RUN(spaces);
  RUN(none_needed);
  return test_end();
}
