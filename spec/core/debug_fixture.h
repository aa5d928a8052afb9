/* SPDX-License-Identifier: MIT
 * What the tests of breakpoints share: a vCPU at CODE in real mode with memory, on a host whose
 * ways of stopping have been found out already. */
#ifndef LUNA_DEBUG_FIXTURE_H
#define LUNA_DEBUG_FIXTURE_H

#include "vcpu_fixture.h"

#include "debug.h"

enum {
  CODE = 0x1000,
  NEXT = CODE + FAKE_INSTRUCTION_LENGTH,
  LATER = NEXT + FAKE_INSTRUCTION_LENGTH,
  DATA = 0x2000,
  SIZE = 0x10000,
  BS = 0x4000,
  INT3 = 0xcc
};

static uint8_t *memory;
static uint32_t number;

static inline void create(uint64_t rip) {
  const luna_vcpu_options options = {.mode = LUNA_MODE_REAL, .rip = rip, .rsp = 0x8000};
  CHECK_OK(luna_vcpu_create(vm, &options, &vcpu));
  e = luna_vcpu_exit(vcpu);
}

static inline void begin_debug(const fake_config *config) {
  fake_install(config);
  CHECK(luna_debug_probe(LUNA_DEBUG_HARDWARE) >= 0);
  CHECK_OK(luna_vm_create(&vm));
  map_memory(0, SIZE, RWX, &memory);
  create(0x900);
  fake_forget();
}

static inline void set_break(int kind, uint64_t gva) {
  CHECK_OK(luna_vcpu_break(vcpu, kind, gva, 1, &number));
}

static inline int step(void) {
  return luna_vcpu_step(vcpu, 0);
}

static inline uint64_t told(void) {
  return fake_calls(KVM_SET_GUEST_DEBUG);
}

static inline uint32_t control(void) {
  return fake_guest_debug()->control;
}

static inline void check_debug(uint32_t breakpoint, uint64_t address) {
  CHECK_EQ(e->kind, LUNA_EXIT_DEBUG);
  CHECK_EQ(e->breakpoint, breakpoint);
  CHECK_EQ(e->address, address);
  CHECK_EQ(get(LUNA_RIP), address);
}

#endif
