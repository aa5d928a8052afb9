/* SPDX-License-Identifier: MIT
 * The last exceptions of a vCPU: on the software CPU, and refused elsewhere. */
#include "fixture/test.h"

enum {
  CODE = 0x1000
};

static luna_last_exception list[LUNA_LAST_EXCEPTIONS];
static uint32_t count;

/* INT 0x21, and then UD2 with an IDT that has no place for its vector. */
static void of_the_software_cpu(void) {
  const luna_vm_options options = {.accel = LUNA_ACCEL_SOFT};
  const luna_vcpu_options real = {.mode = LUNA_MODE_REAL, .rip = CODE, .rsp = 0x8000};
  luna_vm *vm;
  luna_vcpu *vcpu;
  luna_buffer *ram;
  uint64_t kept;
  fake_remove();
  CHECK_OK(luna_accelerator_capability(LUNA_ACCEL_SOFT, "exceptions", &kept));
  CHECK_EQ(kept, LUNA_LAST_EXCEPTIONS);
  CHECK_OK(luna_vm_open(&options, &vm));
  CHECK_OK(luna_buffer_create(0x10000, &ram));
  uint8_t *bytes = luna_buffer_data(ram);
  memcpy(bytes + CODE, "\xcd\x21", 2);
  memcpy(bytes + 0x2000, "\x0f\x0b", 2);
  memcpy(bytes + 0x21 * 4, "\x00\x20\x00\x00", 4);
  CHECK_OK(luna_vm_map_space(vm, 0, ram, 0, 0, 0x10000, LUNA_READ | LUNA_WRITE | LUNA_EXECUTE));
  CHECK_OK(luna_vcpu_create(vm, &real, &vcpu));
  CHECK_FAILS(luna_vcpu_triple_fault(vcpu, list, 8, &count), LUNA_ERROR_STATE, "vCPU 0");
  CHECK_EQ(luna_vcpu_step(vcpu, 0), LUNA_EXIT_DEBUG);
  CHECK_OK(luna_vcpu_set(vcpu, LUNA_IDTR_LIMIT, 3));
  CHECK_EQ(luna_vcpu_run(vcpu, luna_clock() + UINT64_C(10000000000)), LUNA_EXIT_SHUTDOWN);
  CHECK_OK(luna_vcpu_last_exceptions(vcpu, list, LUNA_LAST_EXCEPTIONS, &count));
  CHECK_EQ(count, 4);
  CHECK_EQ(list[0].vector, 0x21);
  CHECK_EQ(list[0].source, LUNA_FROM_INSTRUCTION);
  CHECK_EQ(list[0].stage, LUNA_DELIVERY_DONE);
  CHECK_EQ(list[0].rip, CODE + 2);
  CHECK_EQ(list[0].flags, 0);
  CHECK_EQ(list[1].vector, 6);
  CHECK_EQ(list[1].serial, 2);
  CHECK_EQ(list[1].rip, 0x2000);
  CHECK_EQ(list[1].stage, LUNA_DELIVERY_LIMIT);
  CHECK_EQ(list[1].met, 13);
  CHECK_EQ(list[1].flags, LUNA_EXCEPTION_MET);
  CHECK_EQ(list[3].vector, 8);
  CHECK_EQ(list[3].flags, LUNA_EXCEPTION_MET | LUNA_EXCEPTION_SHUTDOWN);
  CHECK_OK(luna_vcpu_triple_fault(vcpu, list, 1, &count));
  CHECK_EQ(count, 1);
  CHECK_EQ(list[0].serial, 4);
  luna_vcpu_release(vcpu);
  luna_vm_release(vm);
  luna_buffer_release(ram);
}

static void kvm_keeps_none(void) {
  luna_vm *vm;
  luna_vcpu *vcpu;
  uint64_t kept;
  fake_install(NULL);
  CHECK_OK(luna_vm_create(&vm));
  CHECK_OK(luna_vcpu_create(vm, NULL, &vcpu));
  CHECK_OK(luna_capability("exceptions", &kept));
  CHECK_EQ(kept, 0);
  count = 1;
  CHECK_FAILS(luna_vcpu_last_exceptions(vcpu, list, 8, &count), LUNA_ERROR_UNSUPPORTED,
              "LUNA_ACCEL=soft");
  CHECK_EQ(count, 0);
  luna_vcpu_release(vcpu);
  luna_vm_release(vm);
}

int main(void) {
  RUN(of_the_software_cpu);
  RUN(kvm_keeps_none);
  return test_end();
}
