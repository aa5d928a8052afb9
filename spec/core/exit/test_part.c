/* SPDX-License-Identifier: MIT
 * Accesses that are wider than what one trap owns: each part goes to its owner, as a bus would
 * have it. */
#include "fixture/vcpu_fixture.h"

static uint32_t trap(int kind, uint64_t first, uint64_t length) {
  uint32_t id = 0;
  CHECK_OK(luna_vm_trap(vm, kind, first, length, &id));
  return id;
}

static void check_part(int kind, uint32_t owner, uint64_t address, uint32_t size, uint64_t value) {
  CHECK_EQ(run(), kind);
  CHECK_EQ(e->kind, kind);
  CHECK_EQ(e->trap, owner);
  CHECK_EQ(e->address, address);
  CHECK_EQ(e->size, size);
  CHECK_EQ(e->value, value);
}

/* Two traps and a port that nobody owns. */
static void write_to_three(void) {
  begin();
  uint32_t one = trap(LUNA_TRAP_PIO, 0x0f, 2);
  uint32_t two = trap(LUNA_TRAP_PIO, 0x12, 1);
  SCRIPT({.kind = FAKE_PIO, .address = 0x10, .size = 4, .write = true, .data = {1, 2, 3, 4}});
  check_part(LUNA_EXIT_PIO, one, 0x10, 1, 1);
  CHECK_EQ(e->offset, 1);
  CHECK_EQ(e->count, 1);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  check_part(LUNA_EXIT_PIO, 0, 0x11, 1, 2);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  check_part(LUNA_EXIT_PIO, two, 0x12, 1, 3);
  CHECK_EQ(e->offset, 0);
  check_part(LUNA_EXIT_PIO, two, 0x12, 1, 3); /* without an answer it comes again */
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  check_part(LUNA_EXIT_PIO, 0, 0x13, 1, 4);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  CHECK_EQ(luna_vcpu_answer(vcpu, 0), LUNA_ERROR_STATE);
  CHECK_EQ(entries(), 1);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  end();
}

/* Aligned parts, as wide as they can be; the answers are put together. */
static void read_from_two(void) {
  begin();
  uint32_t two = trap(LUNA_TRAP_PIO, 0x62, 8);
  SCRIPT({.kind = FAKE_PIO, .address = 0x60, .size = 4},
         {.kind = FAKE_PIO, .address = 0x61, .size = 4});
  check_part(LUNA_EXIT_PIO, 0, 0x60, 2, 0);
  CHECK_OK(luna_vcpu_answer(vcpu, 0xffff2211));
  check_part(LUNA_EXIT_PIO, two, 0x62, 2, 0);
  CHECK_OK(luna_vcpu_answer(vcpu, 0x4433));
  check_part(LUNA_EXIT_PIO, 0, 0x61, 1, 0);
  CHECK_EQ(get(LUNA_RAX), 0x44332211);
  CHECK_OK(luna_vcpu_answer(vcpu, 0x55));
  check_part(LUNA_EXIT_PIO, two, 0x62, 2, 0);
  CHECK_OK(luna_vcpu_answer(vcpu, 0x7766));
  check_part(LUNA_EXIT_PIO, two, 0x64, 1, 0);
  CHECK_OK(luna_vcpu_answer(vcpu, 0x88));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(get(LUNA_RAX), 0x88776655);
  end();
}

/* A device is asked for more than it has where nobody else is concerned. */
static void one_owner(void) {
  begin();
  uint32_t one = trap(LUNA_TRAP_PIO, 0x10, 1);
  uint32_t two = trap(LUNA_TRAP_PIO, 0x20, 4);
  trap(LUNA_TRAP_PIO, 0x14, 1);
  SCRIPT({.kind = FAKE_PIO, .address = 0x10, .size = 4, .write = true, .data = {1, 2, 3, 4}},
         {.kind = FAKE_PIO, .address = 0x20, .size = 4, .write = true, .data = {5, 6, 7, 8}});
  check_part(LUNA_EXIT_PIO, one, 0x10, 4, 0x04030201);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  check_part(LUNA_EXIT_PIO, two, 0x20, 4, 0x08070605);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  end();
}

/* Element after element, each in its parts, and not as a block. */
static void string(void) {
  begin();
  uint32_t one = trap(LUNA_TRAP_PIO, 0x10, 1);
  uint32_t two = trap(LUNA_TRAP_PIO, 0x11, 1);
  SCRIPT({.kind = FAKE_PIO, .address = 0x10, .size = 2, .count = 3});
  for (uint32_t i = 0; i < 3; i++) {
    uint8_t *data;
    check_part(LUNA_EXIT_PIO, one, 0x10, 1, 0);
    CHECK_EQ(e->count, 3 - i);
    CHECK_EQ(luna_vcpu_block(vcpu, &data), 0);
    CHECK_EQ(luna_vcpu_answer_block(vcpu), LUNA_ERROR_STATE);
    CHECK_OK(luna_vcpu_answer(vcpu, 0x10 + i));
    check_part(LUNA_EXIT_PIO, two, 0x11, 1, 0);
    CHECK_EQ(e->count, 3 - i);
    CHECK_OK(luna_vcpu_answer(vcpu, 0x20 + i));
  }
  CHECK_EQ(entries(), 1);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  size_t size;
  CHECK(memcmp(fake_answer(&size), "\x10\x20\x11\x21\x12\x22", 6) == 0);
  CHECK_EQ(size, 6);
  end();
}

static int count_writes(void *context, uint64_t offset, uint32_t size, uint32_t access,
                        uint64_t *value) {
  uint64_t *seen = context;
  seen[offset] = *value;
  return size == 1 && access == LUNA_WRITE ? 0 : -1;
}

/* What the core answers of it is no exit. */
static void answered_in_the_core(void) {
  begin();
  luna_buffer *buffer;
  CHECK_OK(luna_buffer_create(PAGE, &buffer));
  const uint8_t *bytes = luna_buffer_data(buffer);
  uint64_t seen[2] = {0};
  uint32_t id;
  CHECK_OK(luna_vm_trap_memory(vm, LUNA_TRAP_PIO, 0x10, 2, buffer, 8, &id));
  CHECK_OK(luna_vm_trap_function(vm, LUNA_TRAP_PIO, 0x13, 2, count_writes, seen, &id));
  SCRIPT({.kind = FAKE_PIO, .address = 0x10, .size = 4, .write = true, .data = {1, 2, 3, 4}},
         {.kind = FAKE_PIO, .address = 0x10, .size = 1, .write = true, .data = {9}});
  check_part(LUNA_EXIT_PIO, 0, 0x12, 1, 3);
  CHECK_EQ(bytes[8] | bytes[9] << 8, 0x201);
  CHECK_EQ(seen[0], 0);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  CHECK_EQ(seen[0], 4);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(bytes[8], 9);
  luna_buffer_release(buffer);
  end();
}

/* The same for addresses; what nobody owns of it is a fault. */
static void memory_mapped(void) {
  begin();
  uint32_t one = trap(LUNA_TRAP_MMIO, 0xd0000000, 4);
  uint32_t two = trap(LUNA_TRAP_MMIO, 0xd0000006, 2);
  SCRIPT({.kind = FAKE_MMIO,
          .address = 0xd0000000,
          .size = 8,
          .write = true,
          .data = {1, 2, 3, 4, 5, 6, 7, 8}});
  check_part(LUNA_EXIT_MMIO, one, 0xd0000000, 4, 0x04030201);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  check_part(LUNA_EXIT_FAULT, 0, 0xd0000004, 2, 0x0605);
  CHECK_EQ(luna_vcpu_retry(vcpu), LUNA_ERROR_NOT_FOUND);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  check_part(LUNA_EXIT_MMIO, two, 0xd0000006, 2, 0x0807);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  end();
}

int main(void) {
  RUN(write_to_three);
  RUN(read_from_two);
  RUN(one_owner);
  RUN(string);
  RUN(answered_in_the_core);
  RUN(memory_mapped);
  return test_end();
}
