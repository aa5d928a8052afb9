/* SPDX-License-Identifier: MIT
 * A KVM that can keep a range from execution by a memory attribute: rights without x are exact. */
#include "fixture/vcpu_fixture.h"

enum {
  NX = 4,
  R = LUNA_READ,
  RW_ONLY = LUNA_READ | LUNA_WRITE
};

static void begin_with_attributes(void) {
  fake_config config = fake_defaults();
  config.memory_attributes = 7;
  begin_with(&config);
}

static luna_region region_at(uint64_t gpa) {
  luna_region region = {0};
  CHECK_OK(luna_space_next(vm, 0, gpa, &region));
  return region;
}

static void check_attributes(uint64_t gpa, uint64_t size, uint64_t attributes) {
  fake_attributes last = fake_last_attributes();
  CHECK_EQ(last.address, gpa);
  CHECK_EQ(last.size, size);
  CHECK_EQ(last.attributes, attributes);
}

static void rights_without_x_are_exact(void) {
  begin_with_attributes();
  luna_buffer *buffer;
  CHECK_OK(luna_buffer_create(0x4000, &buffer));
  CHECK_OK(luna_vm_map_space(vm, 0, buffer, 0, 0x100000, 0x1000, RW_ONLY));
  check_attributes(0x100000, 0x1000, NX);
  CHECK_EQ(region_at(0x100000).enforced, RW_ONLY);
  CHECK_OK(luna_vm_map_space(vm, 0, buffer, 0x2000, 0x200000, 0x1000, R | LUNA_MAP_STRICT));
  check_attributes(0x200000, 0x1000, NX);
  CHECK_EQ(region_at(0x200000).enforced, R);
  CHECK(region_at(0x200000).slot >= 0);
  CHECK_OK(luna_vm_protect_space(vm, 0, 0x100000, 0x1000, RW_ONLY | LUNA_EXECUTE));
  check_attributes(0x100000, 0x1000, 0);
  CHECK_EQ(region_at(0x100000).enforced, RW_ONLY | LUNA_EXECUTE);
  luna_buffer_release(buffer);
  end();
}

/* Every call in turn fails: no region, no slot and no attribute stays behind. */
static void a_failed_map_leaves_nothing(void) {
  begin_with_attributes();
  luna_buffer *buffer;
  CHECK_OK(luna_buffer_create(0x1000, &buffer));
  for (uint64_t nth = 1; nth <= 2; nth++) {
    fake_fail(nth, ENOMEM);
    CHECK_EQ(luna_vm_map_space(vm, 0, buffer, 0, 0x100000, 0x1000, RW_ONLY), LUNA_ERROR_MEMORY);
    luna_region region;
    CHECK_EQ(luna_space_next(vm, 0, 0, &region), LUNA_ERROR_NOT_FOUND);
    CHECK_EQ(fake_last_attributes().attributes, 0);
  }
  fake_fail(0, 0);
  luna_buffer_release(buffer);
  end();
}

/* KVM_EXIT_MEMORY_FAULT with the execute flag: a fault, and after a change of the rights the guest
 * goes on. */
static void execution_is_a_fault(void) {
  begin_with_attributes();
  luna_buffer *buffer;
  CHECK_OK(luna_buffer_create(0x1000, &buffer));
  CHECK_OK(luna_vm_map_space(vm, 0, buffer, 0, 0x100000, 0x1000, RW_ONLY));
  SCRIPT({.kind = FAKE_ERRNO,
          .number = EFAULT,
          .reason = FAKE_EXIT_MEMORY_FAULT,
          .address = 0x100000,
          .value = LUNA_EXECUTE},
         {.kind = FAKE_HLT});
  CHECK_EQ(run(), LUNA_EXIT_FAULT);
  CHECK_EQ(luna_vcpu_exit(vcpu)->address, 0x100000);
  CHECK_EQ(luna_vcpu_exit(vcpu)->access, LUNA_EXECUTE);
  CHECK_FAILS(luna_vcpu_retry(vcpu), LUNA_ERROR_NOT_FOUND, "no region of space 0 allows it");
  CHECK_OK(luna_vm_protect_space(vm, 0, 0x100000, 0x1000, RW_ONLY | LUNA_EXECUTE));
  CHECK_OK(luna_vcpu_retry(vcpu));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  luna_buffer_release(buffer);
  end();
}

int main(void) {
  RUN(rights_without_x_are_exact);
  RUN(a_failed_map_leaves_nothing);
  RUN(execution_is_a_fault);
  return test_end();
}
