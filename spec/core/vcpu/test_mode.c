/* SPDX-License-Identifier: MIT
 * How a vCPU begins in each mode, where its system area goes and what is in it. */
#include "fixture/mode_fixture.h"

#include "vcpu/system.h"

/* ---- What each mode writes ---- */

static void check_data_segments(uint64_t selector, uint64_t limit, uint64_t access) {
  static const int registers[] = {LUNA_DS_SELECTOR, LUNA_ES_SELECTOR, LUNA_FS_SELECTOR,
                                  LUNA_GS_SELECTOR, LUNA_SS_SELECTOR};
  for (size_t i = 0; i < sizeof registers / sizeof *registers; i++) {
    check_segment(registers[i], selector, 0, limit, access);
  }
}

/* After the first entry, so that KVM has taken the state and found it valid. */
static void check_general(uint64_t rip, uint64_t rsp) {
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(fake_regs()->rip, rip);
  CHECK_EQ(fake_regs()->rsp, rsp);
  CHECK_EQ(fake_regs()->rflags, 2);
}

static void mode_reset(void) {
  begin(LUNA_MODE_RESET);
  CHECK_EQ(luna_vcpu_system(vcpu), 0);
  CHECK_EQ(fake_run_page()->kvm_dirty_regs, 0);
  check_general(0xfff0, 0);
  check_segment(LUNA_CS_SELECTOR, 0xf000, 0xffff0000, 0xffff, 0x9b);
  CHECK_EQ(get(LUNA_CR0), 0x60000010);
  CHECK(!mapped(TOP));
  end();
}

static void no_options(void) {
  CHECK_OK(luna_vm_create(&vm));
  CHECK_OK(luna_vcpu_create(vm, NULL, &vcpu));
  check_general(0xfff0, 0);
  end();
}

static void mode_real(void) {
  begin(LUNA_MODE_REAL);
  CHECK_EQ(luna_vcpu_system(vcpu), 0);
  check_general(0x1234, 0x8000);
  check_segment(LUNA_CS_SELECTOR, 0, 0, 0xffff, 0x9b);
  check_data_segments(0, 0xffff, 0x93);
  CHECK_EQ(get(LUNA_CR0) & 1, 0);
  CHECK(!mapped(TOP));
  end();
}

static void mode_prot32(void) {
  begin(LUNA_MODE_PROT32);
  uint64_t system = luna_vcpu_system(vcpu);
  CHECK_EQ(system, TOP);
  check_general(0x1234, 0x8000);
  check_segment(LUNA_CS_SELECTOR, LUNA_SELECTOR_CODE32, 0, 0xffffffff, 0xc09b);
  check_data_segments(LUNA_SELECTOR_DATA, 0xffffffff, 0xc093);
  CHECK_EQ(get(LUNA_CR0), 0x31);
  CHECK_EQ(get(LUNA_CR4), 0);
  CHECK_EQ(get(LUNA_EFER), 0);
  CHECK_EQ(get(LUNA_GDTR_BASE), system + LUNA_SYSTEM_GDT);
  CHECK_EQ(get(LUNA_GDTR_LIMIT), LUNA_GDT_LIMIT);
  CHECK_EQ(get(LUNA_IDTR_BASE), system + LUNA_SYSTEM_IDT);
  CHECK_EQ(get(LUNA_IDTR_LIMIT), 256 * 8 - 1);
  end();
}

static void check_long(uint64_t code, uint64_t code_access, uint64_t data, uint64_t data_access) {
  uint64_t system = luna_vcpu_system(vcpu);
  CHECK_EQ(system, TOP);
  check_general(0x1234, 0x8000);
  check_segment(LUNA_CS_SELECTOR, code, 0, 0xffffffff, code_access);
  check_data_segments(data, 0xffffffff, data_access);
  check_segment(LUNA_TR_SELECTOR, LUNA_SELECTOR_TSS, system + LUNA_SYSTEM_TSS, LUNA_TSS_LIMIT,
                0x8b);
  CHECK_EQ(get(LUNA_CR0), 0x80010033);
  CHECK_EQ(get(LUNA_CR3), system + LUNA_SYSTEM_PML4);
  CHECK_EQ(get(LUNA_CR4), 0x620);
  CHECK_EQ(get(LUNA_EFER), 0xd00);
  CHECK_EQ(get(LUNA_GDTR_BASE), system + LUNA_SYSTEM_GDT);
  CHECK_EQ(get(LUNA_IDTR_BASE), system + LUNA_SYSTEM_IDT);
  CHECK_EQ(get(LUNA_IDTR_LIMIT), 256 * 16 - 1);
}

static void mode_long64(void) {
  begin(LUNA_MODE_LONG64);
  check_long(LUNA_SELECTOR_CODE64, 0xa09b, LUNA_SELECTOR_DATA, 0xc093);
  end();
}

static void mode_user64(void) {
  begin(LUNA_MODE_USER64);
  check_long(LUNA_SELECTOR_USER_CODE64, 0xa0fb, LUNA_SELECTOR_USER_DATA, 0xc0f3);
  end();
}

static void mode_errors(void) {
  CHECK_OK(luna_vm_create(&vm));
  vcpu = NULL;
  CHECK_FAILS(create(5, 0), LUNA_ERROR_ARGUMENT, "cannot make a vCPU in mode 5: there is none");
  CHECK_FAILS(create(UINT32_MAX, 0), LUNA_ERROR_ARGUMENT, "in mode 4294967295");
  CHECK(!vcpu);
  luna_vm_release(vm);
}

/* ---- What is in the area ---- */

/* Walks the four levels as the processor does: the physical address, and the AND of the user
 * bits. */
static uint64_t walk(uint64_t root, uint64_t linear, bool *user) {
  uint64_t table = root;
  *user = true;
  for (unsigned shift = 39;; shift -= 9) {
    uint64_t entry = word(table + (linear >> shift & 511) * 8);
    CHECK(entry & 1);
    CHECK(entry & 2);
    *user = *user && entry & 4;
    uint64_t frame = entry & UINT64_C(0xffffffffff000);
    if (shift == 12 || entry & 0x80) {
      uint64_t inside = (UINT64_C(1) << shift) - 1;
      CHECK_EQ(frame & inside, 0);
      return frame | (linear & inside);
    }
    table = frame;
  }
}

static void page_tables(void) {
  begin(LUNA_MODE_USER64);
  uint64_t system = luna_vcpu_system(vcpu);
  uint64_t root = get(LUNA_CR3);
  for (uint64_t linear = 0; linear < UINT64_C(1) << 32; linear += 0x1ff000) {
    bool user;
    test_note("linear 0x%" PRIx64, linear);
    CHECK_EQ(walk(root, linear | 0x123, &user), linear | 0x123);
    CHECK_EQ(user, linear < system || linear >= system + LUNA_SYSTEM_SIZE);
  }
  for (uint64_t page = system - 8 * PAGE; page < system + LUNA_SYSTEM_SIZE + 8 * PAGE;
       page += PAGE) {
    bool user;
    test_note("page 0x%" PRIx64, page);
    CHECK_EQ(walk(root, page, &user), page);
    CHECK_EQ(user, page < system || page >= system + LUNA_SYSTEM_SIZE);
  }
  CHECK_EQ(word(root + 8) & 1, 0); /* nothing behind the first 512 GiB */
  end();
}

/* Each gate leads to the stub of its vector, which is an OUT to the port of the stubs. */
static void gates(void) {
  for (uint32_t mode = LUNA_MODE_PROT32; mode <= LUNA_MODE_LONG64; mode++) {
    bool wide = mode == LUNA_MODE_LONG64;
    begin(mode);
    uint64_t system = luna_vcpu_system(vcpu);
    for (uint64_t vector = 0; vector < 256; vector++) {
      test_note("mode %u, vector %" PRIu64, mode, vector);
      uint64_t gate = get(LUNA_IDTR_BASE) + vector * (wide ? 16 : 8);
      uint64_t low = word(gate);
      uint64_t stub = (low & 0xffff) | (low >> 48 << 16) | (wide ? word(gate + 8) << 32 : 0);
      CHECK_EQ(stub, system + LUNA_SYSTEM_STUBS + vector * LUNA_STUB_SIZE);
      CHECK_EQ(low >> 16 & 0xffff, wide ? LUNA_SELECTOR_CODE64 : LUNA_SELECTOR_CODE32);
      CHECK_EQ(low >> 40 & 0x9f, 0x8e); /* present interrupt gate */
      CHECK_EQ(low >> 45 & 3, vector == 3 || vector == 4 ? 3 : 0);
      CHECK_EQ(low >> 32 & 7, wide ? 1 : 0); /* interrupt stack */
      CHECK(memcmp(host(stub), "\xe6\xf4", 2) == 0);
    }
    end();
  }
}

/* The I/O bitmap is within the limit, allows every port and ends in ones. */
static void task_state(void) {
  begin(LUNA_MODE_USER64);
  uint64_t tss = get(LUNA_TR_BASE);
  uint64_t limit = get(LUNA_TR_LIMIT);
  uint64_t bitmap = word(tss + 102) & 0xffff;
  CHECK(bitmap >= 104);
  CHECK_EQ(bitmap + 0x10000 / 8, limit);
  for (uint64_t i = 0; i < 0x10000 / 8; i++) {
    CHECK_EQ(*host(tss + bitmap + i), 0);
  }
  CHECK_EQ(*host(tss + limit), 0xff);
  uint64_t system = luna_vcpu_system(vcpu);
  CHECK_EQ(word(tss + 4), system + LUNA_SYSTEM_STACK_TOP);  /* RSP0 */
  CHECK_EQ(word(tss + 36), system + LUNA_SYSTEM_STACK_TOP); /* IST1 */
  CHECK(tss + limit < system + LUNA_SYSTEM_STACK_TOP - 0x400);
  uint64_t low = word(get(LUNA_GDTR_BASE) + LUNA_SELECTOR_TSS);
  uint64_t base = (low >> 16 & 0xffffff) | (low >> 56 << 24) |
                  word(get(LUNA_GDTR_BASE) + LUNA_SELECTOR_TSS + 8) << 32;
  CHECK_EQ(base, tss);
  CHECK_EQ((low & 0xffff) | (low >> 32 & 0xf0000), limit);
  end();
}

/* ---- Where the area goes ---- */

static void check_place(uint64_t want) {
  CHECK_OK(create(LUNA_MODE_PROT32, LUNA_SYSTEM_ALLOCATE));
  CHECK_EQ(luna_vcpu_system(vcpu), want);
  CHECK(mapped(want) && mapped(want + LUNA_SYSTEM_SIZE - 1));
  luna_vcpu_release(vcpu);
}

static void place_of_each_vcpu(void) {
  luna_vcpu *cpus[3];
  CHECK_OK(luna_vm_create(&vm));
  for (uint64_t i = 0; i < 3; i++) {
    CHECK_OK(create(LUNA_MODE_LONG64, LUNA_SYSTEM_ALLOCATE));
    cpus[i] = vcpu;
    CHECK_EQ(luna_vcpu_system(vcpu), TOP - i * LUNA_SYSTEM_SIZE);
  }
  luna_vcpu_release(cpus[1]);
  CHECK(!mapped(TOP - LUNA_SYSTEM_SIZE));
  check_place(TOP - LUNA_SYSTEM_SIZE);
  luna_vcpu_release(cpus[0]);
  luna_vcpu_release(cpus[2]);
  luna_region region;
  CHECK_EQ(luna_space_next(vm, 0, 0, &region), LUNA_ERROR_NOT_FOUND);
  luna_vm_release(vm);
}

static void place_avoids_regions(void) {
  CHECK_OK(luna_vm_create(&vm));
  map(TOP + 0xf000, PAGE, 0); /* a region without rights is one, too */
  check_place(TOP - LUNA_SYSTEM_SIZE);
  map(TOP - 0x21000, 2 * PAGE, RW);
  CHECK_OK(luna_vm_unmap_space(vm, 0, TOP + 0xf000, PAGE));
  check_place(TOP);
  map(TOP - 0x10000, 0x20000, RW);
  check_place(TOP - 0x40000); /* below the one that the first step came to */
  luna_vm_release(vm);
}

static void place_avoids_traps(void) {
  uint32_t trap;
  CHECK_OK(luna_vm_create(&vm));
  CHECK_OK(luna_vm_trap(vm, LUNA_TRAP_PIO, 0, 0x10000, &trap));
  check_place(TOP);
  CHECK_OK(luna_vm_trap(vm, LUNA_TRAP_MMIO, 0xfebf8000, 0x100, &trap));
  check_place(TOP - LUNA_SYSTEM_SIZE);
  CHECK_OK(luna_vm_trap(vm, LUNA_TRAP_MMIO, 0xe0000000, TOP - 0xe0000000, &trap));
  check_place(0xe0000000 - LUNA_SYSTEM_SIZE);
  luna_vm_release(vm);
}

/* A trap need not begin where a page does. */
static void place_avoids_small_traps(void) {
  uint32_t trap;
  CHECK_OK(luna_vm_create(&vm));
  CHECK_OK(luna_vm_trap(vm, LUNA_TRAP_MMIO, 0xfebf8010, 4, &trap));
  check_place(TOP - LUNA_SYSTEM_SIZE);
  luna_vm_release(vm);
}

static void no_place(void) {
  CHECK_OK(luna_vm_create(&vm));
  map(0x8000, TOP - 0x8000 + LUNA_SYSTEM_SIZE, LUNA_READ);
  CHECK_FAILS(create(LUNA_MODE_LONG64, LUNA_SYSTEM_ALLOCATE), LUNA_ERROR_LIMIT,
              "cannot place the system area of vCPU 0: no 0x10000 free bytes below 0xfec00000 in "
              "space 0; name a mapped place for it");
  luna_vm_release(vm);
}

/* The script took the area away, or put something else there: that stays. */
static void area_that_was_unmapped(void) {
  begin(LUNA_MODE_LONG64);
  CHECK_OK(luna_vm_unmap_space(vm, 0, TOP, LUNA_SYSTEM_SIZE));
  map(TOP, LUNA_SYSTEM_SIZE, RW);
  luna_vcpu_release(vcpu);
  CHECK(mapped(TOP));
  CHECK_OK(create(LUNA_MODE_LONG64, LUNA_SYSTEM_ALLOCATE));
  CHECK_OK(luna_vm_unmap_space(vm, 0, luna_vcpu_system(vcpu), LUNA_SYSTEM_SIZE));
  end();
}

/* Of an area that the script cut into pieces, all go with the vCPU. */
static void area_in_pieces(void) {
  begin(LUNA_MODE_LONG64);
  CHECK_OK(luna_vm_unmap_space(vm, 0, TOP + 4 * PAGE, PAGE));
  luna_vcpu_release(vcpu);
  bool first = mapped(TOP);
  bool second = mapped(TOP + 8 * PAGE);
  luna_vm_release(vm);
  CHECK(!first);
  CHECK(!second);
}

static void named_area_errors(void) {
  static const uint64_t places[] = {0, PAGE, 0x18000, UINT64_C(1) << 32, UINT64_MAX - 0xffff};
  CHECK_OK(luna_vm_create(&vm));
  for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
    CHECK_FAILS(create(LUNA_MODE_LONG64, places[i]), LUNA_ERROR_ARGUMENT,
                "it must be a multiple of 0x10000, above 0 and below 4 GiB");
  }
  const char *part = "cannot put a system area at gpa 0x20000: its 0x10000 bytes must lie in one "
                     "writable region of space 0";
  CHECK_FAILS(create(LUNA_MODE_LONG64, 0x20000), LUNA_ERROR_NOT_FOUND, part);
  map(0x20000, 0xf000, RW); /* a page short */
  CHECK_FAILS(create(LUNA_MODE_LONG64, 0x20000), LUNA_ERROR_NOT_FOUND, part);
  map(0x2f000, PAGE, RW); /* two regions */
  CHECK_FAILS(create(LUNA_MODE_LONG64, 0x20000), LUNA_ERROR_NOT_FOUND, part);
  CHECK_OK(luna_vm_unmap_space(vm, 0, 0x20000, 0x10000));
  map(0x20000, 0x10000, LUNA_READ | LUNA_EXECUTE);
  CHECK_FAILS(create(LUNA_MODE_LONG64, 0x20000), LUNA_ERROR_NOT_FOUND, part);
  luna_vm_release(vm);
}

static void named_area(void) {
  static const uint64_t places[] = {0x10000, 0x7fff0000, 0xffff0000};
  for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
    CHECK_OK(luna_vm_create(&vm));
    map(places[i] - 0x8000, 0x18000, RWX);
    memset(host(places[i]), 0xcc, LUNA_SYSTEM_SIZE);
    *host(places[i] - 1) = 0xcc;
    CHECK_OK(create(LUNA_MODE_LONG64, places[i]));
    CHECK_EQ(luna_vcpu_system(vcpu), places[i]);
    CHECK_EQ(word(places[i] + LUNA_SELECTOR_CODE64), UINT64_C(0x00af9b000000ffff));
    CHECK_EQ(*host(places[i] - 1), 0xcc);
    bool user;
    CHECK_EQ(walk(get(LUNA_CR3), places[i], &user), places[i]);
    CHECK(!user);
    CHECK_EQ(run(), LUNA_EXIT_HLT);
    luna_vcpu_release(vcpu);
    CHECK(mapped(places[i]));
    luna_vm_release(vm);
  }
}

int main(void) {
  RUN(mode_reset);
  RUN(no_options);
  RUN(mode_real);
  RUN(mode_prot32);
  RUN(mode_long64);
  RUN(mode_user64);
  RUN(mode_errors);
  RUN(page_tables);
  RUN(gates);
  RUN(task_state);
  RUN(place_of_each_vcpu);
  RUN(place_avoids_regions);
  RUN(place_avoids_traps);
  RUN(place_avoids_small_traps);
  RUN(no_place);
  RUN(area_that_was_unmapped);
  RUN(area_in_pieces);
  RUN(named_area_errors);
  RUN(named_area);
  return test_end();
}
