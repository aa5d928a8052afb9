/* SPDX-License-Identifier: MIT
 * Traps: argument errors with their messages, overlap, numbers that are used again. */
#include "fixture/test.h"

#include "exit/lookup.h"
#include "memory/vm.h"

static luna_vm *vm;

static uint32_t trap(int kind, uint64_t first, uint64_t length) {
  uint32_t id = 0;
  CHECK_OK(luna_vm_trap(vm, kind, first, length, &id));
  return id;
}

static void check_refused(int kind, uint64_t first, uint64_t length, int status, const char *part) {
  uint32_t id = 77;
  CHECK_FAILS(luna_vm_trap(vm, kind, first, length, &id), status, part);
  CHECK_EQ(id, 77);
  CHECK_EQ(luna_error_number(), 0);
}

static void begin(void) {
  CHECK_OK(luna_vm_create(&vm));
}

static void end(void) {
  luna_vm_release(vm);
}

static void argument_errors(void) {
  begin();
  check_refused(3, 0, 1, LUNA_ERROR_ARGUMENT, "there is no trap kind 3");
  check_refused(-1, 0, 1, LUNA_ERROR_ARGUMENT, "there is no trap kind -1");
  check_refused(LUNA_TRAP_PIO, 0x10, 0, LUNA_ERROR_ARGUMENT, "cannot trap 0 bytes at port 0x10");
  check_refused(LUNA_TRAP_MMIO, 0x10, 0, LUNA_ERROR_ARGUMENT, "cannot trap 0 bytes at gpa 0x10");
  end();
}

static void port_range(void) {
  begin();
  check_refused(LUNA_TRAP_PIO, 0x10000, 1, LUNA_ERROR_RANGE, "the last port is 0xffff");
  check_refused(LUNA_TRAP_PIO, 0xffff, 2, LUNA_ERROR_RANGE, "the last port is 0xffff");
  check_refused(LUNA_TRAP_PIO, 1, UINT64_MAX, LUNA_ERROR_RANGE, "the last port is 0xffff");
  CHECK_EQ(trap(LUNA_TRAP_PIO, 0xffff, 1), 1);
  CHECK_EQ(trap(LUNA_TRAP_PIO, 0, 0xffff), 2);
  end();
}

static void address_range(void) {
  begin();
  check_refused(LUNA_TRAP_MMIO, UINT64_C(1) << 40, 1, LUNA_ERROR_RANGE,
                "the last gpa is 0xffffffffff");
  check_refused(LUNA_TRAP_MMIO, (UINT64_C(1) << 40) - 4, 5, LUNA_ERROR_RANGE,
                "cannot trap 0x5 bytes at gpa 0xfffffffffc");
  check_refused(LUNA_TRAP_MMIO, UINT64_MAX, UINT64_MAX, LUNA_ERROR_RANGE, "the last gpa is");
  CHECK_EQ(trap(LUNA_TRAP_MMIO, (UINT64_C(1) << 40) - 4, 4), 1);
  CHECK_EQ(trap(LUNA_TRAP_MMIO, 0, (UINT64_C(1) << 40) - 4), 2);
  end();
}

static void overlap(void) {
  begin();
  trap(LUNA_TRAP_PIO, 0x60, 1);
  trap(LUNA_TRAP_PIO, 0x100, 0x10);
  check_refused(LUNA_TRAP_PIO, 0x10f, 1, LUNA_ERROR_OVERLAP,
                "cannot trap ports 0x10f..0x10f: 0x100..0x10f is trapped already (trap 2)");
  check_refused(LUNA_TRAP_PIO, 0xf8, 9, LUNA_ERROR_OVERLAP, "(trap 2)");
  check_refused(LUNA_TRAP_PIO, 0x104, 4, LUNA_ERROR_OVERLAP, "(trap 2)");
  check_refused(LUNA_TRAP_PIO, 0, 0x10000, LUNA_ERROR_OVERLAP, "(trap 1)");
  CHECK_EQ(trap(LUNA_TRAP_PIO, 0xf8, 8), 3);
  CHECK_EQ(trap(LUNA_TRAP_PIO, 0x110, 1), 4);
  CHECK_EQ(trap(LUNA_TRAP_MMIO, 0x100, 0x10), 5);
  check_refused(LUNA_TRAP_MMIO, 0, 0x101, LUNA_ERROR_OVERLAP,
                "cannot trap gpa 0x0..0x100: 0x100..0x10f is trapped already (trap 5)");
  end();
}

static void numbers_are_used_again(void) {
  begin();
  for (uint32_t i = 1; i <= 300; i++) {
    CHECK_EQ(trap(LUNA_TRAP_PIO, i * 4, 4), i);
  }
  CHECK_OK(luna_vm_untrap(vm, 7));
  CHECK_OK(luna_vm_untrap(vm, 200));
  CHECK_FAILS(luna_vm_untrap(vm, 7), LUNA_ERROR_NOT_FOUND, "there is no trap 7");
  CHECK_EQ(trap(LUNA_TRAP_MMIO, 0x1000, 1), 7);
  CHECK_EQ(trap(LUNA_TRAP_PIO, 200 * 4, 4), 200);
  CHECK_EQ(trap(LUNA_TRAP_PIO, 7 * 4, 4), 301);
  end();
}

static void untrap_errors(void) {
  begin();
  CHECK_FAILS(luna_vm_untrap(vm, 0), LUNA_ERROR_NOT_FOUND, "there is no trap 0");
  CHECK_FAILS(luna_vm_untrap(vm, 1), LUNA_ERROR_NOT_FOUND, "there is no trap 1");
  trap(LUNA_TRAP_PIO, 0, 1);
  CHECK_FAILS(luna_vm_untrap(vm, 2), LUNA_ERROR_NOT_FOUND, "there is no trap 2");
  CHECK_FAILS(luna_vm_untrap(vm, UINT32_MAX), LUNA_ERROR_NOT_FOUND, "there is no trap 4294967295");
  end();
}

/* The owner of a gpa, and how far the same answer holds: a vCPU goes by it without the lock. */
static void owners(void) {
  begin();
  luna_buffer *buffer;
  CHECK_OK(luna_buffer_create(0x1000, &buffer));
  uint32_t id = trap(LUNA_TRAP_MMIO, 0x1800, 0x3000);
  CHECK_OK(luna_vm_map_space(vm, 0, buffer, 0, 0x3000, 0x1000, LUNA_READ));
  luna_owner owner = luna_lookup_find(vm, vm->spaces[0], LUNA_TRAP_MMIO, 0x2000);
  CHECK_EQ(owner.trap, id);
  CHECK_EQ(owner.base, 0x1800);
  CHECK_EQ(owner.range.first, 0x2000);
  CHECK_EQ(owner.range.last, 0x2fff);
  owner = luna_lookup_find(vm, vm->spaces[0], LUNA_TRAP_MMIO, 0x3010);
  CHECK_EQ(owner.trap, id);
  CHECK(owner.range.first > owner.range.last);
  owner = luna_lookup_find(vm, vm->spaces[0], LUNA_TRAP_MMIO, 0x4800);
  CHECK_EQ(owner.trap, 0);
  owner = luna_lookup_find(vm, vm->spaces[0], LUNA_TRAP_MMIO, 0x47ff);
  CHECK_EQ(owner.trap, id);
  CHECK_EQ(owner.range.last, 0x47ff);
  luna_buffer_release(buffer);
  end();
}

int main(void) {
  RUN(argument_errors);
  RUN(port_range);
  RUN(address_range);
  RUN(overlap);
  RUN(numbers_are_used_again);
  RUN(untrap_errors);
  RUN(owners);
  return test_end();
}
