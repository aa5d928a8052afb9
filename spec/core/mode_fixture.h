/* SPDX-License-Identifier: MIT
 * What the tests of modes and exceptions share: a vCPU in a mode, and looking at its segments and
 * its memory. */
#ifndef LUNA_MODE_FIXTURE_H
#define LUNA_MODE_FIXTURE_H

#include "test.h"

#include "system.h"

#include <errno.h>

enum {
  PAGE = LUNA_PAGE_SIZE,
  RW = LUNA_READ | LUNA_WRITE,
  RWX = LUNA_READ | LUNA_WRITE | LUNA_EXECUTE
};
/* Where the first system area goes. */
#define TOP (UINT64_C(0xfec00000) - LUNA_SYSTEM_SIZE)

static luna_vm *vm;
static luna_vcpu *vcpu;
static const luna_exit *e;

static inline int create(uint32_t mode, uint64_t system) {
  const luna_vcpu_options options = {.mode = mode, .rip = 0x1234, .rsp = 0x8000, .system = system};
  return luna_vcpu_create(vm, &options, &vcpu);
}

static inline void begin(uint32_t mode) {
  CHECK_OK(luna_vm_create(&vm));
  CHECK_OK(create(mode, LUNA_SYSTEM_ALLOCATE));
  e = luna_vcpu_exit(vcpu);
}

static inline void end(void) {
  luna_vcpu_release(vcpu);
  luna_vm_release(vm);
}

static inline int run(void) {
  return luna_vcpu_run(vcpu, 0);
}

static inline uint64_t get(int reg) {
  uint64_t value;
  CHECK_OK(luna_vcpu_get(vcpu, reg, &value));
  return value;
}

static inline void map(uint64_t gpa, uint64_t size, uint32_t rights) {
  luna_buffer *buffer;
  CHECK_OK(luna_buffer_create(size, &buffer));
  CHECK_OK(luna_vm_map_space(vm, 0, buffer, 0, gpa, size, rights));
  luna_buffer_release(buffer);
}

/* The host address of a mapped gpa. */
static inline uint8_t *host(uint64_t gpa) {
  luna_region region;
  CHECK_OK(luna_space_next(vm, 0, gpa, &region));
  CHECK(region.gpa <= gpa);
  return (uint8_t *)luna_buffer_data(region.buffer) + region.offset + (gpa - region.gpa);
}

static inline uint64_t word(uint64_t gpa) {
  uint64_t value;
  memcpy(&value, host(gpa), sizeof value);
  return value;
}

static inline bool mapped(uint64_t gpa) {
  luna_region region;
  return luna_space_next(vm, 0, gpa, &region) == LUNA_OK && region.gpa <= gpa;
}

static inline void check_segment(int selector_reg, uint64_t selector, uint64_t base, uint64_t limit,
                                 uint64_t access) {
  test_note("%s", luna_register_name(selector_reg));
  CHECK_EQ(get(selector_reg), selector);
  CHECK_EQ(get(selector_reg + 1), base);
  CHECK_EQ(get(selector_reg + 2), limit);
  CHECK_EQ(get(selector_reg + 3), access);
}

#endif
