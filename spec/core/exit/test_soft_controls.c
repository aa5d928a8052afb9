/* SPDX-License-Identifier: MIT
 * luna_vcpu_set_controls and what goes with it: on the software CPU, and refused elsewhere. */
#include "fixture/test.h"

enum {
  CODE = 0x1000,
  CONTROL = 0x4c56, /* the exit's own number */
  CR4_VMXE = 0x2000
};

static luna_vm *vm;
static luna_vcpu *vcpu;
static luna_buffer *ram;

static void begin(const void *code, size_t size) {
  const luna_vm_options options = {.accel = LUNA_ACCEL_SOFT};
  const luna_vcpu_options real = {.mode = LUNA_MODE_REAL, .rip = CODE};
  fake_remove();
  CHECK_OK(luna_vm_open(&options, &vm));
  CHECK_OK(luna_buffer_create(0x10000, &ram));
  memcpy((uint8_t *)luna_buffer_data(ram) + CODE, code, size);
  CHECK_OK(luna_vm_map_space(vm, 0, ram, 0, 0, 0x10000, LUNA_READ | LUNA_WRITE | LUNA_EXECUTE));
  CHECK_OK(luna_vcpu_create(vm, &real, &vcpu));
}

static void end(void) {
  luna_vcpu_release(vcpu);
  luna_vm_release(vm);
  luna_buffer_release(ram);
}

static uint64_t get(int reg) {
  uint64_t value;
  CHECK_OK(luna_vcpu_get(vcpu, reg, &value));
  return value;
}

static int run(void) {
  return luna_vcpu_run(vcpu, luna_clock() + UINT64_C(10000000000));
}

static void an_exit_tells_what_it_is_for(void) {
  const luna_controls controls = {.primary = 1 << 7}; /* HLT */
  luna_control_exit exit;
  uint64_t value;
  begin("\x0f\xa2\xf4", 3); /* cpuid; hlt */
  CHECK_OK(luna_accelerator_capability(LUNA_ACCEL_SOFT, "controls", &value));
  CHECK_EQ(value, 1);
  CHECK_OK(luna_vcpu_set_controls(vcpu, &controls));
  CHECK_EQ(run(), LUNA_EXIT_OTHER);
  CHECK_EQ(luna_vcpu_exit(vcpu)->reason, CONTROL);
  CHECK_TEXT(luna_reason_name(CONTROL), "control");
  CHECK_TEXT(luna_reason_text(CONTROL), "asks for");
  CHECK_EQ(luna_exit_control(luna_vcpu_exit(vcpu), &exit), 1);
  CHECK_EQ(exit.reason, 10);
  CHECK_EQ(exit.length, 2);
  CHECK_EQ(get(LUNA_RIP), CODE);
  CHECK_OK(luna_vcpu_set(vcpu, LUNA_RIP, CODE + 2));
  CHECK_EQ(run(), LUNA_EXIT_OTHER);
  CHECK_EQ(luna_exit_control(luna_vcpu_exit(vcpu), &exit), 1);
  CHECK_EQ(exit.reason, 12);
  CHECK_OK(luna_vcpu_set_controls(vcpu, NULL));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(luna_exit_control(luna_vcpu_exit(vcpu), &exit), 0);
  end();
}

static void they_go_along_into_another_space(void) {
  const luna_controls controls = {.primary = 1 << 7};
  luna_control_exit exit;
  uint32_t space;
  begin("\x0f\xa2\x0f\xa2", 4);
  CHECK_OK(luna_vm_space_create(vm, &space));
  CHECK_OK(luna_vm_map_space(vm, space, ram, 0, 0, 0x10000, LUNA_READ | LUNA_WRITE | LUNA_EXECUTE));
  CHECK_OK(luna_vcpu_set_controls(vcpu, &controls));
  CHECK_OK(luna_vcpu_set(vcpu, LUNA_CR4, CR4_VMXE)); /* as a monitor's guest can have it */
  CHECK_OK(luna_vcpu_set_space(vcpu, space, 0));
  CHECK_EQ(run(), LUNA_EXIT_OTHER);
  CHECK_EQ(luna_exit_control(luna_vcpu_exit(vcpu), &exit), 1);
  CHECK_EQ(exit.reason, 10);
  CHECK_EQ(get(LUNA_CR4) & CR4_VMXE, CR4_VMXE);
  CHECK_OK(luna_vcpu_set_space(vcpu, 0, 0));
  CHECK_EQ(run(), LUNA_EXIT_OTHER);
  end();
}

static void an_event_is_delivered_before_the_next_instruction(void) {
  const luna_controls controls = {.primary = 1 << 7};
  luna_control_exit exit;
  begin("\x90\x90\xf4", 3);
  uint8_t *bytes = luna_buffer_data(ram);
  memcpy(bytes + 0x21 * 4, "\x00\x20\x00\x00", 4); /* vector 0x21: 0:0x2000 */
  bytes[0x2000] = 0xf4;
  CHECK_FAILS(luna_vcpu_deliver(vcpu, 0x80000421, 0, 2), LUNA_ERROR_STATE, "follows no controls");
  CHECK_OK(luna_vcpu_set_controls(vcpu, &controls));
  CHECK_FAILS(luna_vcpu_deliver(vcpu, 0x421, 0, 2), LUNA_ERROR_ARGUMENT, "no VM-entry");
  CHECK_FAILS(luna_vcpu_deliver(vcpu, 0x80000421, 0, 0), LUNA_ERROR_ARGUMENT, "no VM-entry");
  CHECK_FAILS(luna_vcpu_deliver(vcpu, 0x80000121, 0, 0), LUNA_ERROR_ARGUMENT, "no VM-entry");
  CHECK_FAILS(luna_vcpu_deliver(vcpu, 0x90000421, 0, 2), LUNA_ERROR_ARGUMENT, "no VM-entry");
  CHECK_FAILS(luna_vcpu_deliver(vcpu, 0x80000320, 0, 2), LUNA_ERROR_ARGUMENT, "no VM-entry");
  CHECK_OK(luna_vcpu_deliver(vcpu, 0x80000421, 0, 2)); /* INT 0x21, as one of two bytes */
  CHECK_EQ(run(), LUNA_EXIT_OTHER);
  CHECK_EQ(luna_exit_control(luna_vcpu_exit(vcpu), &exit), 1);
  CHECK_EQ(exit.reason, 12);
  CHECK_EQ(get(LUNA_RIP), 0x2000);
  uint16_t back;
  memcpy(&back, bytes + (get(LUNA_RSP) & 0xffff), sizeof back);
  CHECK_EQ(back, CODE + 2);
  end();
}

static void kvm_has_no_words_for_it(void) {
  const luna_controls controls = {0};
  uint64_t value;
  fake_install(NULL);
  CHECK_OK(luna_vm_create(&vm));
  CHECK_OK(luna_vcpu_create(vm, NULL, &vcpu));
  CHECK_OK(luna_capability("controls", &value));
  CHECK_EQ(value, 0);
  CHECK_FAILS(luna_vcpu_set_controls(vcpu, &controls), LUNA_ERROR_UNSUPPORTED, "LUNA_ACCEL=soft");
  CHECK_OK(luna_vcpu_set_controls(vcpu, NULL));
  luna_vcpu_release(vcpu);
  luna_vm_release(vm);
}

int main(void) {
  RUN(an_exit_tells_what_it_is_for);
  RUN(they_go_along_into_another_space);
  RUN(an_event_is_delivered_before_the_next_instruction);
  RUN(kvm_has_no_words_for_it);
  return test_end();
}
