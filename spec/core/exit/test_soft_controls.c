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

static void make_vcpu(uint32_t mode) {
  const luna_vcpu_options options = {.mode = mode, .rip = CODE, .system = LUNA_SYSTEM_ALLOCATE};
  CHECK_OK(luna_vcpu_create(vm, &options, &vcpu));
}

static void begin_in(uint32_t mode, const void *code, size_t size) {
  const luna_vm_options options = {.accel = LUNA_ACCEL_SOFT};
  fake_remove();
  CHECK_OK(luna_vm_open(&options, &vm));
  CHECK_OK(luna_buffer_create(0x10000, &ram));
  memcpy((uint8_t *)luna_buffer_data(ram) + CODE, code, size);
  CHECK_OK(luna_vm_map_space(vm, 0, ram, 0, 0, 0x10000, LUNA_READ | LUNA_WRITE | LUNA_EXECUTE));
  make_vcpu(mode);
}

static void begin(const void *code, size_t size) {
  begin_in(LUNA_MODE_REAL, code, size);
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
  CHECK_FAILS(luna_vcpu_deliver(vcpu, 0, 0, 0), LUNA_ERROR_ARGUMENT, "no VM-entry");
  CHECK_EQ(luna_vcpu_withdraw(vcpu, 0x80000421), 0);
  CHECK_OK(luna_vcpu_deliver(vcpu, 0x80000422, 0, 2));
  CHECK_EQ(luna_vcpu_withdraw(vcpu, 0x80000422), 1);
  CHECK_EQ(luna_vcpu_withdraw(vcpu, 0x80000422), 0);
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

/* ---- The shadow VMCS ---- */

static void fields_keep_what_they_can_hold(void) {
  static const struct {
    uint32_t field;
    uint64_t widest;
  } all[] = {
      {0x0800, UINT16_MAX}, {0x2806, UINT64_MAX}, {0x4814, UINT32_MAX}, {0x681e, UINT64_MAX}};
  uint64_t value = 1;
  begin("\xf4", 1);
  CHECK_OK(luna_accelerator_capability(LUNA_ACCEL_SOFT, "shadow_vmcs", &value));
  CHECK_EQ(value, 1);
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    CHECK_OK(luna_vcpu_get_shadow(vcpu, all[i].field, &value));
    CHECK_EQ(value, 0);
    CHECK_OK(luna_vcpu_set_shadow(vcpu, all[i].field, all[i].widest));
    if (all[i].widest != UINT64_MAX) {
      CHECK_FAILS(luna_vcpu_set_shadow(vcpu, all[i].field, all[i].widest + 1), LUNA_ERROR_ARGUMENT,
                  "cannot hold");
    }
    CHECK_OK(luna_vcpu_get_shadow(vcpu, all[i].field, &value));
    CHECK_EQ(value, all[i].widest);
  }
  CHECK_OK(luna_vcpu_set_shadow(vcpu, 0x2807, 0x1234)); /* the upper half of 0x2806 */
  CHECK_FAILS(luna_vcpu_set_shadow(vcpu, 0x2807, UINT64_C(1) << 32), LUNA_ERROR_ARGUMENT,
              "at most 0xffffffff");
  CHECK_OK(luna_vcpu_get_shadow(vcpu, 0x2806, &value));
  CHECK_EQ(value, UINT64_C(0x1234ffffffff));
  CHECK_OK(luna_vcpu_get_shadow(vcpu, 0x2807, &value));
  CHECK_EQ(value, 0x1234);
  CHECK_OK(luna_vcpu_set_shadow(vcpu, 0x2806, 5));
  CHECK_OK(luna_vcpu_get_shadow(vcpu, 0x2807, &value));
  CHECK_EQ(value, 0);
  end();
}

static void what_is_no_field_is_refused(void) {
  static const uint32_t none[] = {0x0801, 0x1000, 0x0880, 0x8800, 0x10800, UINT32_MAX};
  uint64_t value;
  begin("\xf4", 1);
  for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
    test_note("field 0x%x", none[i]);
    CHECK_FAILS(luna_vcpu_get_shadow(vcpu, none[i], &value), LUNA_ERROR_ARGUMENT, "no encoding");
    CHECK_FAILS(luna_vcpu_set_shadow(vcpu, none[i], 0), LUNA_ERROR_ARGUMENT, "no encoding");
    CHECK_FAILS(luna_vcpu_set_shadow_access(vcpu, none[i], 0), LUNA_ERROR_ARGUMENT, "no encoding");
  }
  CHECK_FAILS(luna_vcpu_set_shadow_access(vcpu, 0x800, LUNA_EXECUTE), LUNA_ERROR_ARGUMENT,
              "LUNA_READ and LUNA_WRITE");
  end();
}

static void a_shadow_is_not_for_others_while_the_guest_runs(void) {
  uint64_t value;
  begin("\xeb\xfe", 2); /* jmp to itself */
  CHECK_OK(luna_vcpu_start(vcpu));
  CHECK_FAILS(luna_vcpu_get_shadow(vcpu, 0x800, &value), LUNA_ERROR_STATE, "vCPU 0");
  CHECK_FAILS(luna_vcpu_set_shadow(vcpu, 0x800, 0), LUNA_ERROR_STATE, "vCPU 0");
  CHECK_FAILS(luna_vcpu_set_shadow_access(vcpu, 0x800, 0), LUNA_ERROR_STATE, "vCPU 0");
  CHECK_OK(luna_vcpu_stop(vcpu));
  CHECK_OK(luna_vcpu_get_shadow(vcpu, 0x800, &value));
  end();
}

/* What it is asked for next, ESI having the field; CPUID is behind it. */
static uint32_t run_shadowing(uint32_t field) {
  const luna_controls controls = {.secondary = 1 << 14}; /* VMCS shadowing */
  luna_control_exit exit;
  CHECK_OK(luna_vcpu_set_controls(vcpu, &controls));
  CHECK_OK(luna_vcpu_set(vcpu, LUNA_CR4, CR4_VMXE));
  CHECK_OK(luna_vcpu_set(vcpu, LUNA_RSI, field));
  CHECK_OK(luna_vcpu_set(vcpu, LUNA_RIP, CODE));
  CHECK_EQ(run(), LUNA_EXIT_OTHER);
  CHECK_EQ(luna_exit_control(luna_vcpu_exit(vcpu), &exit), 1);
  return exit.reason;
}

/* The same fields before and after it. */
static void a_shadow_goes_along_into_another_space(void) {
  uint64_t value;
  uint32_t space;
  begin_in(LUNA_MODE_PROT32, "\x0f\x78\xf7\x0f\x79\xf2\x0f\xa2", 8);
  CHECK_OK(luna_vm_space_create(vm, &space)); /* vmread edi, esi; vmwrite esi, edx; cpuid */
  CHECK_OK(luna_vm_map_space(vm, space, ram, 0, 0, 0x10000, LUNA_READ | LUNA_WRITE | LUNA_EXECUTE));
  CHECK_OK(luna_vcpu_set_shadow_access(vcpu, 0x4814, LUNA_READ | LUNA_WRITE));
  CHECK_OK(luna_vcpu_set_shadow(vcpu, 0x4814, 0x93));
  for (uint64_t round = 0; round < 3; round++) {
    CHECK_OK(luna_vcpu_set_space(vcpu, round % 2 ? space : 0, 0));
    CHECK_OK(luna_vcpu_set(vcpu, LUNA_RDX, 0x94 + round));
    CHECK_EQ(run_shadowing(0x4814), 10);
    CHECK_EQ(get(LUNA_RDI), 0x93 + round);
    CHECK_OK(luna_vcpu_get_shadow(vcpu, 0x4814, &value));
    CHECK_EQ(value, 0x94 + round);
  }
  CHECK_OK(luna_vcpu_set_shadow_access(vcpu, 0x4814, LUNA_READ));
  CHECK_EQ(run_shadowing(0x4814), 25);
  end();
}

/* Which may be the same one of the kernel's. */
static void the_next_vcpu_has_nothing_of_it(void) {
  begin_in(LUNA_MODE_PROT32, "\x0f\x78\xf7\x0f\xa2", 5); /* vmread edi, esi; cpuid */
  CHECK_OK(luna_vcpu_set_shadow_access(vcpu, 0x4814, LUNA_READ));
  CHECK_EQ(run_shadowing(0x4814), 10);
  luna_vcpu_release(vcpu);
  make_vcpu(LUNA_MODE_PROT32);
  CHECK_EQ(run_shadowing(0x4814), 23);
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
  CHECK_OK(luna_capability("shadow_vmcs", &value));
  CHECK_EQ(value, 0);
  CHECK_FAILS(luna_vcpu_get_shadow(vcpu, 0x800, &value), LUNA_ERROR_UNSUPPORTED, "LUNA_ACCEL=soft");
  CHECK_FAILS(luna_vcpu_set_shadow(vcpu, 0x800, 0), LUNA_ERROR_UNSUPPORTED, "LUNA_ACCEL=soft");
  CHECK_FAILS(luna_vcpu_set_shadow_access(vcpu, 0x800, 0), LUNA_ERROR_UNSUPPORTED,
              "LUNA_ACCEL=soft");
  luna_vcpu_release(vcpu);
  luna_vm_release(vm);
}

int main(void) {
  RUN(an_exit_tells_what_it_is_for);
  RUN(they_go_along_into_another_space);
  RUN(an_event_is_delivered_before_the_next_instruction);
  RUN(fields_keep_what_they_can_hold);
  RUN(what_is_no_field_is_refused);
  RUN(a_shadow_is_not_for_others_while_the_guest_runs);
  RUN(a_shadow_goes_along_into_another_space);
  RUN(the_next_vcpu_has_nothing_of_it);
  RUN(kvm_has_no_words_for_it);
  return test_end();
}
