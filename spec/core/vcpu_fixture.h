/* SPDX-License-Identifier: MIT
 * What the tests of vCPUs share: one VM with one vCPU on the fake, and short names for the calls
 * on it. */
#ifndef LUNA_VCPU_FIXTURE_H
#define LUNA_VCPU_FIXTURE_H

#include "test.h"

#include <errno.h>

enum {
  PAGE = LUNA_PAGE_SIZE,
  RWX = LUNA_READ | LUNA_WRITE | LUNA_EXECUTE,
  MILLISECOND = 1000000 /* of luna_clock */
};

static luna_vm *vm;
static luna_vcpu *vcpu;
static const luna_exit *e;

#define SCRIPT(...)                                                                                \
  static const fake_step steps[] = {__VA_ARGS__};                                                  \
  fake_script(steps, sizeof steps / sizeof *steps)

static inline void begin_with(const fake_config *config) {
  fake_install(config);
  CHECK_OK(luna_vm_create(&vm));
  CHECK_OK(luna_vcpu_create(vm, NULL, &vcpu));
  e = luna_vcpu_exit(vcpu);
  fake_forget();
}

static inline void begin(void) {
  begin_with(NULL);
}

static inline void begin_without_sync(void) {
  fake_config config = fake_defaults();
  config.sync_regs = 0;
  begin_with(&config);
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

static inline void set(int reg, uint64_t value) {
  CHECK_OK(luna_vcpu_set(vcpu, reg, value));
}

static inline uint64_t entries(void) {
  return fake_calls(KVM_RUN);
}

static inline void map_memory(uint64_t gpa, uint64_t size, uint32_t rights, uint8_t **data) {
  luna_buffer *buffer;
  CHECK_OK(luna_buffer_create(size, &buffer));
  CHECK_OK(luna_vm_map_space(vm, 0, buffer, 0, gpa, size, rights));
  if (data) {
    *data = luna_buffer_data(buffer);
  }
  luna_buffer_release(buffer);
}

/* The real KVM, on which the code at 0x1000 is to run: the test is skipped where there is none;
 * with LUNA_REQUIRE_KVM=1 that is a failure. */
static inline void begin_real_vm(const void *code, size_t size) {
  uint8_t *data;
  fake_remove();
  if (luna_probe() != LUNA_OK) {
    const char *required = getenv("LUNA_REQUIRE_KVM");
    CHECK(!required || strcmp(required, "1") != 0);
    test_skip(luna_error_message());
  }
  CHECK_OK(luna_vm_create(&vm));
  map_memory(0, UINT64_C(2) * PAGE, RWX, &data);
  memcpy(data + 0x1000, code, size);
}

static inline void begin_real_vcpu(uint32_t mode) {
  const luna_vcpu_options options = {.mode = mode, .rip = 0x1000, .system = LUNA_SYSTEM_ALLOCATE};
  CHECK_OK(luna_vcpu_create(vm, &options, &vcpu));
  e = luna_vcpu_exit(vcpu);
}

static inline void check_access(uint64_t address, uint32_t size, uint32_t access, uint64_t value) {
  CHECK_EQ(e->address, address);
  CHECK_EQ(e->size, size);
  CHECK_EQ(e->access, access);
  CHECK_EQ(e->value, value);
}

/* What KVM took as the answer of the last read. */
static inline void check_answer(const void *bytes, size_t size) {
  size_t got;
  const uint8_t *answer = fake_answer(&got);
  CHECK_EQ(got, size);
  CHECK(memcmp(answer, bytes, size) == 0);
}

#endif
