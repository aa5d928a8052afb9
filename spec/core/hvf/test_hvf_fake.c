/* SPDX-License-Identifier: MIT
 * The Hypervisor framework's API over a KVM that leaves RIP at OUT, as the fast path of a real one
 * does, that makes exits which this host's does not make, and that fails. */
#include "fixture/hvf_fixture.h"

#include <errno.h>

enum {
  STEPS = 8
};

static fake_step steps[STEPS];

/* The guest is at CODE with that code; then it makes these exits. */
static void begin_steps(const uint8_t *code, size_t size, size_t count) {
  begin_with(code, size, HV_VM_DEFAULT);
  fake_script(steps, count);
}

static void step_pio(int i, uint16_t port, uint32_t size, bool write) {
  steps[i] = (fake_step){.kind = FAKE_PIO, .address = port, .size = size, .write = write};
}

static uint64_t exit_of(void) {
  HV(hv_vcpu_run_until(vcpu, HV_DEADLINE_FOREVER));
  return field(VMCS_RO_EXIT_REASON);
}

/* ---- Counters ---- */

static uint64_t counter(void) {
  uint64_t value;
  HV(hv_vcpu_read_msr(vcpu, 0x10, &value));
  return value;
}

static void begin_counters(bool host_tsc) {
  fake_config config = fake_defaults();
  config.no_tsc_offset = true;
  config.host_tsc = host_tsc;
  fake_install(&config);
  HV(hv_vm_create(HV_VM_DEFAULT));
  HV(hv_vcpu_create(&vcpu, HV_VCPU_TSC_RELATIVE));
}

static void counters_are_written_where_kvm_keeps_no_offset(void) {
  const uint64_t slack = UINT64_C(1) << 40;
  begin_counters(false);
  HV(hv_vm_sync_tsc(UINT64_C(1) << 60));
  CHECK(counter() - (UINT64_C(1) << 60) < slack);
  HV(hv_vcpu_set_tsc_relative(vcpu, INT64_C(1) << 61));
  CHECK(counter() - (UINT64_C(1) << 61) - hv_tsc_clock() + slack < 2 * slack);
  end();
}

static void counters_of_the_host_stay(void) {
  begin_counters(true);
  HV_IS(hv_vcpu_set_tsc_relative(vcpu, INT64_C(1) << 61), HV_UNSUPPORTED);
  HV_IS(hv_vm_sync_tsc(UINT64_C(1) << 60), HV_UNSUPPORTED);
  CHECK_EQ(counter(), 0);
  end();
}

/* ---- Where RIP is ---- */

static void out_is_placed_where_kvm_leaves_rip_at_it(void) {
  static const uint8_t code[] = {0xe6, 0x10, 0xf4};
  step_pio(0, 0x10, 1, true);
  begin_steps(code, sizeof code, 1);
  CHECK_EQ(exit_of(), VMX_REASON_IO);
  CHECK_EQ(get(HV_X86_RIP), CODE);
  CHECK_EQ(field(VMCS_RO_VMEXIT_INSTR_LEN), 2);
  skip();
  fake_forget();
  CHECK_EQ(exit_of(), VMX_REASON_HLT);
  CHECK_EQ(fake_calls(KVM_RUN), 1); /* KVM steps over it by itself */
  CHECK_EQ(fake_regs()->rip, CODE + 2);
  end();
}

/* KVM tells of moves to CR8 that lower it, when they are done. */
static void moves_to_cr8_exit_where_they_are_asked_for(void) {
  static const uint8_t code[] = {0x45, 0x0f, 0x22, 0xc1, 0xf4}; /* mov cr8, r9; hlt */
  for (int asked = 0; asked < 2; asked++) {
    steps[0] = (fake_step){.kind = FAKE_OTHER, .reason = KVM_EXIT_SET_TPR};
    begin_steps(code, sizeof code, 1);
    set(HV_X86_RIP, CODE + 4);
    if (asked) {
      set_field(VMCS_CTRL_CPU_BASED, field(VMCS_CTRL_CPU_BASED) | CPU_BASED_CR8_LOAD);
      CHECK_EQ(exit_of(), VMX_REASON_MOV_CR);
      CHECK_EQ(field(VMCS_RO_EXIT_QUALIFIC), 8 | 9 << 8);
      CHECK_EQ(get(HV_X86_RIP), CODE);
      CHECK_EQ(field(VMCS_RO_VMEXIT_INSTR_LEN), 4);
      skip();
    }
    CHECK_EQ(exit_of(), VMX_REASON_HLT);
    CHECK_EQ(fake_regs()->rip, CODE + 4);
    end();
  }
}

static void out_goes_elsewhere_if_the_program_says_so(void) {
  static const uint8_t code[] = {0xe6, 0x10, 0xf4};
  step_pio(0, 0x10, 1, true);
  begin_steps(code, sizeof code, 1);
  CHECK_EQ(exit_of(), VMX_REASON_IO);
  set(HV_X86_RIP, 0x2000);
  CHECK_EQ(exit_of(), VMX_REASON_HLT);
  CHECK_EQ(fake_regs()->rip, 0x2000);
  end();
}

static void out_that_stays_is_executed_again(void) {
  static const uint8_t code[] = {0xe6, 0x10, 0xf4};
  step_pio(0, 0x10, 1, true);
  step_pio(1, 0x10, 1, true);
  begin_steps(code, sizeof code, 2);
  CHECK_EQ(exit_of(), VMX_REASON_IO);
  CHECK_EQ(exit_of(), VMX_REASON_IO);
  CHECK_EQ(fake_regs()->rip, CODE);
  end();
}

/* The code before RIP and that at RIP are the same instruction: KVM has to finish it first. */
static void out_between_two_of_its_kind_is_finished_first(void) {
  static const uint8_t code[] = {0xe6, 0x10, 0xe6, 0x10, 0xf4};
  step_pio(0, 0x10, 1, true);
  begin_steps(code, sizeof code, 1);
  set(HV_X86_RIP, CODE + 2);
  CHECK_EQ(exit_of(), VMX_REASON_IO);
  CHECK_EQ(field(VMCS_RO_EXIT_QUALIFIC), 0x100040);
  CHECK_EQ(get(HV_X86_RIP), CODE + 2);
  CHECK_EQ(field(VMCS_RO_VMEXIT_INSTR_LEN), 2);
  skip();
  CHECK_EQ(exit_of(), VMX_REASON_HLT);
  CHECK_EQ(fake_regs()->rip, CODE + 4);
  end();
}

static void code_that_is_not_there_is_gone_around(void) {
  static const uint8_t code[] = {0xf4};
  step_pio(0, 0x10, 1, false);
  step_pio(1, 0x10, 1, true);
  begin_steps(code, sizeof code, 2);
  set(HV_X86_RIP, 0x80000);
  set(HV_X86_RAX, 0x1234);
  CHECK_EQ(exit_of(), VMX_REASON_IO); /* IN */
  CHECK_EQ(field(VMCS_RO_EXIT_QUALIFIC), 0x100008);
  CHECK_EQ(get(HV_X86_RIP), 0x80000);
  CHECK_EQ(get(HV_X86_RAX), 0x1234);
  CHECK_EQ(field(VMCS_RO_VMEXIT_INSTR_LEN), 2);
  set(HV_X86_RAX, 0x5678);
  skip();
  CHECK_EQ(exit_of(), VMX_REASON_IO); /* OUT: only its end is known */
  CHECK_EQ(get(HV_X86_RAX), 0x5678);
  CHECK_EQ(field(VMCS_RO_VMEXIT_INSTR_LEN), 0);
  CHECK_EQ(get(HV_X86_RIP), 0x80004);
  skip();
  CHECK_EQ(exit_of(), VMX_REASON_HLT);
  CHECK_EQ(fake_regs()->rip, 0x80004);
  end();
}

static void all_elements_of_ins_are_taken_back(void) {
  static const uint8_t code[] = {0xf3, 0x6c, 0xf4};
  step_pio(0, 0x10, 1, false);
  steps[0].count = 100;
  begin_steps(code, sizeof code, 1);
  set(HV_X86_RDX, 0x10);
  set(HV_X86_RCX, 100);
  CHECK_EQ(exit_of(), VMX_REASON_IO);
  CHECK_EQ(field(VMCS_RO_EXIT_QUALIFIC), 0x100038);
  hv_ext_access access;
  HV(hv_ext_vcpu_access(vcpu, &access));
  CHECK_EQ(access.left, 100);
  CHECK_EQ(get(HV_X86_RCX), 100);
  set(HV_X86_RCX, 0);
  skip();
  CHECK_EQ(exit_of(), VMX_REASON_HLT);
  CHECK_EQ(fake_regs()->rip, CODE + 2);
  CHECK_EQ(fake_regs()->rcx, 0);
  end();
}

/* ---- Accesses in parts ---- */

static void step_mmio(int i, uint64_t gpa, bool write, bool continues) {
  steps[i] = (fake_step){.kind = FAKE_MMIO,
                         .address = gpa,
                         .size = 8,
                         .write = write,
                         .continues = continues,
                         .data = {1, 2, 3, 4, 5, 6, 7, 8}};
}

/* KVM has the second part before it looks at what is wrong with the entry. */
static void an_entry_that_fails_drops_no_part(void) {
  static const uint8_t code[] = {0xf4};
  step_mmio(0, 0x20000, false, true);
  step_mmio(1, 0x20008, false, false);
  begin_steps(code, sizeof code, 2);
  CHECK_EQ(exit_of(), VMX_REASON_EPT_VIOLATION);
  HV(hv_ext_vcpu_complete(vcpu, 0x11));
  set_field(VMCS_CTRL_VMENTRY_IRQ_INFO, IRQ_INFO_VALID | IRQ_INFO_HARD_EXC | IRQ_INFO_ERROR_VALID);
  CHECK_EQ(exit_of(), VMX_REASON_EPT_VIOLATION);
  CHECK_EQ(field(VMCS_GUEST_PHYSICAL_ADDRESS), 0x20008);
  HV(hv_ext_vcpu_complete(vcpu, 0x22));
  CHECK_EQ(exit_of(), VMX_REASON_ENTRY_FAILURE | VMX_REASON_VMENTRY_GUEST);
  set_field(VMCS_CTRL_VMENTRY_IRQ_INFO, 0);
  CHECK_EQ(exit_of(), VMX_REASON_HLT);
  end();
}

static void both_parts_of_a_read_are_taken_back(void) {
  static const uint8_t code[] = {0xf4};
  step_mmio(0, 0x20000, false, true);
  step_mmio(1, 0x20008, false, false);
  begin_steps(code, sizeof code, 2);
  CHECK_EQ(exit_of(), VMX_REASON_EPT_VIOLATION);
  CHECK_EQ(field(VMCS_RO_VMEXIT_INSTR_LEN), 2);
  CHECK_EQ(field(VMCS_GUEST_PHYSICAL_ADDRESS), 0x20000);
  CHECK_EQ(get(HV_X86_RIP), CODE);
  skip();
  CHECK_EQ(exit_of(), VMX_REASON_HLT);
  CHECK_EQ(fake_regs()->rip, CODE + 2);
  end();
}

static void each_part_of_a_write_is_a_violation(void) {
  static const uint8_t code[] = {0xf4};
  hv_ext_access access;
  step_mmio(0, 0x20000, true, true);
  step_mmio(1, 0x20008, true, false);
  begin_steps(code, sizeof code, 2);
  for (uint64_t gpa = 0x20000; gpa <= 0x20008; gpa += 8) {
    CHECK_EQ(exit_of(), VMX_REASON_EPT_VIOLATION);
    HV(hv_ext_vcpu_access(vcpu, &access));
    CHECK_EQ(access.address, gpa);
    CHECK_EQ(access.value, 0x0807060504030201);
    HV(hv_ext_vcpu_complete(vcpu, 0));
  }
  CHECK_EQ(exit_of(), VMX_REASON_HLT);
  end();
}

/* ---- Exits that end badly ---- */

static void gone_memory_is_a_fault(void) {
  static const uint8_t code[] = {0xf4};
  steps[0] = (fake_step){.kind = FAKE_ERRNO, .number = EFAULT};
  begin_steps(code, sizeof code, 1);
  HV_IS(hv_vcpu_run_until(vcpu, HV_DEADLINE_FOREVER), HV_FAULT);
  CHECK_TEXT(hv_ext_error_message(), "host memory");
  CHECK_EQ(exit_of(), VMX_REASON_HLT);
  end();
}

static void what_kvm_cannot_emulate_is_an_error(void) {
  static const uint8_t code[] = {0xf4};
  steps[0] = (fake_step){.kind = FAKE_INTERNAL, .suberror = 3};
  steps[1] = (fake_step){.kind = FAKE_OTHER, .reason = 99};
  begin_steps(code, sizeof code, 2);
  HV_IS(hv_vcpu_run_until(vcpu, HV_DEADLINE_FOREVER), HV_ERROR);
  CHECK_TEXT(hv_ext_error_message(), "suberror 3");
  HV_IS(hv_vcpu_run_until(vcpu, HV_DEADLINE_FOREVER), HV_ERROR);
  CHECK_TEXT(hv_ext_error_message(), "KVM's reason 99");
  end();
}

static void entries_fail_in_two_ways(void) {
  static const uint8_t code[] = {0xf4};
  uint32_t status = 0;
  steps[0] = (fake_step){.kind = FAKE_FAIL_ENTRY, .value = 0x80000021};
  steps[1] = (fake_step){.kind = FAKE_FAIL_ENTRY, .value = 7};
  begin_steps(code, sizeof code, 2);
  CHECK_EQ(exit_of(), VMX_REASON_ENTRY_FAILURE | VMX_REASON_VMENTRY_GUEST);
  CHECK_TEXT(hv_ext_error_message(), "0x80000021: its registers break no rule");
  HV(hv_vcpu_vmx_status(vcpu, &status));
  CHECK_EQ(status, 0);
  CHECK_EQ(field(VMCS_RO_INSTR_ERROR), 0);
  CHECK_EQ(exit_of(), VMX_REASON_ENTRY_FAILURE | VMX_REASON_VMENTRY_GUEST);
  HV(hv_vcpu_vmx_status(vcpu, &status));
  CHECK_EQ(status, 0x40); /* ZF */
  CHECK_EQ(field(VMCS_RO_INSTR_ERROR), 7);
  end();
}

static void a_kernel_error_is_an_error(void) {
  static const uint8_t code[] = {0xf4};
  steps[0] = (fake_step){.kind = FAKE_ERRNO, .number = ENODEV};
  begin_steps(code, sizeof code, 1);
  HV_IS(hv_vcpu_run_until(vcpu, HV_DEADLINE_FOREVER), HV_ERROR);
  CHECK_EQ(exit_of(), VMX_REASON_HLT);
  end();
}

/* ---- Breakpoints of the guest's ---- */

static void begin_int3(uint32_t stops) {
  static const uint8_t code[] = {0xcc, 0xf4};
  fake_config config = fake_defaults();
  config.stops = stops;
  fake_install(&config);
  steps[0] = (fake_step){.kind = FAKE_CODE, .address = CODE};
  steps[1] = steps[0];
  begin_steps(code, sizeof code, 2);
}

static void int3_exits_where_the_bitmap_has_it(void) {
  uint64_t must, may;
  begin_int3(FAKE_STOP_INT3);
  HV(hv_vmx_vcpu_get_cap_write_vmcs(vcpu, VMCS_CTRL_EXC_BITMAP, &must, &may));
  CHECK_EQ(may & 8, 8);
  set_field(VMCS_CTRL_EXC_BITMAP, 1 << 18 | 8);
  fake_script(steps, 2);
  for (int i = 0; i < 2; i++) { /* it has not been executed */
    CHECK_EQ(exit_of(), VMX_REASON_EXC_NMI);
    CHECK_EQ(field(VMCS_RO_VMEXIT_IRQ_INFO), IRQ_INFO_VALID | IRQ_INFO_SOFT_EXC | 3);
    CHECK_EQ(field(VMCS_RO_EXIT_QUALIFIC), 0);
    CHECK_EQ(get(HV_X86_RIP), CODE);
    CHECK_EQ(field(VMCS_RO_VMEXIT_INSTR_LEN), 1);
  }
  fake_script(steps, 0);
  skip();
  set_field(VMCS_CTRL_VMENTRY_IRQ_INFO, IRQ_INFO_VALID | IRQ_INFO_SOFT_EXC | 3);
  CHECK_EQ(exit_of(), VMX_REASON_HLT);
  CHECK_EQ(field(VMCS_CTRL_VMENTRY_IRQ_INFO), 0);
  set_field(VMCS_CTRL_EXC_BITMAP, 1 << 18);
  CHECK_EQ(exit_of(), VMX_REASON_HLT);
  CHECK_EQ(fake_guest_debug()->control, 0);
  end();
  fake_install(NULL);
}

static void int3_cannot_exit_where_kvm_does_not_stop(void) {
  begin_int3(FAKE_STOP_HARDWARE);
  HV_IS(hv_vmx_vcpu_write_vmcs(vcpu, VMCS_CTRL_EXC_BITMAP, 8), HV_UNSUPPORTED);
  CHECK_TEXT(hv_ext_error_message(), "exceptions 0x8 ");
  CHECK_EQ(field(VMCS_CTRL_EXC_BITMAP), 0);
  end();
  fake_install(NULL);
}

/* ---- A host that refuses ---- */

static void check_host(int open_error, int create_error, hv_return_t want) {
  fake_config config = fake_defaults();
  uint64_t value;
  config.open_error = open_error;
  config.create_error = create_error;
  fake_install(&config);
  HV_IS(hv_vm_create(HV_VM_DEFAULT), want);
  HV_IS(hv_vm_destroy(), HV_NO_DEVICE);
  if (open_error) {
    HV_IS(hv_capability(HV_CAP_VCPUMAX, &value), want);
  }
}

static void hosts_refuse_with_a_code_each(void) {
  check_host(ENOENT, 0, HV_UNSUPPORTED);
  check_host(EACCES, 0, HV_DENIED);
  check_host(0, ENOMEM, HV_NO_RESOURCES);
  check_host(0, EBUSY, HV_BUSY);
}

static void slots_run_out(void) {
  fake_config config = fake_defaults();
  config.slots_max = 2;
  fake_install(&config);
  HV(hv_vm_create(HV_VM_DEFAULT));
  HV(hv_vm_map(ram, 0, 0x1000, RWX));
  HV(hv_vm_map(ram, 0x2000, 0x1000, RWX));
  HV_IS(hv_vm_map(ram, 0x4000, 0x1000, RWX), HV_NO_RESOURCES);
  HV(hv_vm_unmap(0, 0x1000));
  HV(hv_vm_map(ram, 0x4000, 0x1000, RWX));
  HV(hv_vm_destroy());
}

static void a_host_without_msr_exits_is_refused(void) {
  fake_config config = fake_defaults();
  config.msr_exits = 0;
  fake_install(&config);
  HV_IS(hv_vm_create(HV_VM_DEFAULT), HV_UNSUPPORTED);
  CHECK_TEXT(hv_ext_error_message(), "Linux 5.10");
}

/* What a whole program does, up to the first error. */
static hv_return_t whole_program(void) {
  hv_vm_space_t space = 0;
  uint64_t value;
  vcpu = 0;
  hv_return_t result = hv_vm_create(HV_VM_DEFAULT);
  result = result == HV_SUCCESS ? hv_vm_map(ram, 0, RAM_SIZE, RWX) : result;
  result = result == HV_SUCCESS ? hv_vm_space_create(&space) : result;
  result = result == HV_SUCCESS ? hv_vm_map_space(space, ram, 0, RAM_SIZE, RX) : result;
  result = result == HV_SUCCESS ? hv_vcpu_create(&vcpu, HV_VCPU_DEFAULT) : result;
  result = result == HV_SUCCESS ? hv_vcpu_enable_native_msr(vcpu, 0x174, true) : result;
  result = result == HV_SUCCESS ? hv_vmx_vcpu_write_vmcs(vcpu, VMCS_GUEST_CS_BASE, 0) : result;
  result = result == HV_SUCCESS ? hv_vcpu_write_register(vcpu, HV_X86_RIP, CODE) : result;
  result = result == HV_SUCCESS ? hv_vcpu_run_until(vcpu, HV_DEADLINE_FOREVER) : result;
  result = result == HV_SUCCESS ? hv_vcpu_read_register(vcpu, HV_X86_RIP, &value) : result;
  result = result == HV_SUCCESS ? hv_vcpu_set_space(vcpu, space) : result;
  result = result == HV_SUCCESS ? hv_vcpu_run_until(vcpu, HV_DEADLINE_FOREVER) : result;
  result = result == HV_SUCCESS ? hv_vcpu_set_space(vcpu, 0) : result;
  return result;
}

/* Every call to the kernel fails in turn: the program is told, and nothing leaks. */
static void every_call_may_fail(void) {
  static const uint8_t code[] = {0xe4, 0x10, 0xf4};
  unsigned failures = 0;
  memcpy(ram + CODE, code, sizeof code);
  for (uint64_t nth = 1;; nth++) {
    fake_install(NULL);
    step_pio(0, 0x10, 1, false);
    fake_script(steps, 1);
    test_note("call %d", (int)nth);
    fake_fail(nth, ENOMEM);
    hv_return_t result = whole_program();
    bool failed = fake_failed();
    fake_fail(0, 0);
    hv_vcpu_destroy(vcpu);
    hv_vm_destroy();
    CHECK_EQ(fake_open(), 0);
    failures += result != HV_SUCCESS;
    if (!failed) {
      HV(result);
      break;
    }
  }
  CHECK(failures > 20);
}

int main(void) {
  RUN(out_is_placed_where_kvm_leaves_rip_at_it);
  RUN(counters_are_written_where_kvm_keeps_no_offset);
  RUN(counters_of_the_host_stay);
  RUN(moves_to_cr8_exit_where_they_are_asked_for);
  RUN(out_goes_elsewhere_if_the_program_says_so);
  RUN(out_that_stays_is_executed_again);
  RUN(out_between_two_of_its_kind_is_finished_first);
  RUN(code_that_is_not_there_is_gone_around);
  RUN(all_elements_of_ins_are_taken_back);
  RUN(an_entry_that_fails_drops_no_part);
  RUN(both_parts_of_a_read_are_taken_back);
  RUN(each_part_of_a_write_is_a_violation);
  RUN(gone_memory_is_a_fault);
  RUN(what_kvm_cannot_emulate_is_an_error);
  RUN(entries_fail_in_two_ways);
  RUN(a_kernel_error_is_an_error);
  RUN(int3_exits_where_the_bitmap_has_it);
  RUN(int3_cannot_exit_where_kvm_does_not_stop);
  RUN(hosts_refuse_with_a_code_each);
  RUN(slots_run_out);
  RUN(a_host_without_msr_exits_is_refused);
  RUN(every_call_may_fail);
  return test_end();
}
