/* SPDX-License-Identifier: MIT
 * Extended state, MSRs, time and port notifiers, as the Hypervisor framework has them. */
#include "fixture/hvf_fixture.h"

enum {
  EFER = (int)0xc0000080,
  LSTAR = (int)0xc0000082,
  TSC = 0x10,
  SYSENTER_ESP = 0x175
};

/* ---- x87, SSE, AVX ---- */

static void fpstate_is_that_of_xsave(void) {
  uint8_t area[512];
  BEGIN(0xdb, 0xe3, 0xf4); /* fninit; hlt */
  CHECK_EQ(run(), VMX_REASON_HLT);
  HV(hv_vcpu_read_fpstate(vcpu, area, sizeof area));
  CHECK_EQ(area[0] | area[1] << 8, 0x37f);
  end();
}

static void fpstate_goes_both_ways(void) {
  uint8_t area[16384];
  BEGIN(0xf4);
  memset(area, 0xee, sizeof area);
  HV(hv_vcpu_read_fpstate(vcpu, area, sizeof area));
  CHECK_EQ(area[sizeof area - 1], 0);         /* behind what there is */
  memcpy(area + 160, "sixteen bytes of", 16); /* XMM0 */
  area[512] |= 2;                             /* XSTATE_BV: SSE is there */
  HV(hv_vcpu_write_fpstate(vcpu, area, sizeof area));
  memset(area, 0, sizeof area);
  HV(hv_vcpu_read_fpstate(vcpu, area, 576));
  CHECK(memcmp(area + 160, "sixteen bytes of", 16) == 0);
  HV_IS(hv_vcpu_read_fpstate(vcpu, area, 100), HV_BAD_ARGUMENT);
  HV_IS(hv_vcpu_write_fpstate(vcpu, area, 100), HV_BAD_ARGUMENT);
  HV_IS(hv_vcpu_read_fpstate(vcpu, NULL, 512), HV_BAD_ARGUMENT);
  HV_IS(hv_vcpu_write_fpstate(vcpu, NULL, 512), HV_BAD_ARGUMENT);
  end();
}

/* ---- MSRs ---- */

/* mov ecx, LSTAR; rdmsr; wrmsr; hlt */
#define ACCESS_LSTAR 0x66, 0xb9, 0x82, 0x00, 0x00, 0xc0, 0x0f, 0x32, 0x0f, 0x30, 0xf4

static void check_msr(uint64_t reason, uint64_t rip) {
  CHECK_EQ(run(), reason);
  CHECK_EQ(get(HV_X86_RIP), rip);
  CHECK_EQ(field(VMCS_RO_VMEXIT_INSTR_LEN), 2);
  CHECK_EQ(field(VMCS_RO_EXIT_QUALIFIC), 0);
  CHECK_EQ(get(HV_X86_RCX), 0xc0000082);
}

static void msrs_exit_and_the_program_answers(void) {
  BEGIN(ACCESS_LSTAR);
  set(HV_X86_RAX, 0x1111111122222222);
  set(HV_X86_RDX, 0x3333333344444444);
  check_msr(VMX_REASON_RDMSR, CODE + 6);
  CHECK_EQ(get(HV_X86_RAX), 0x1111111122222222);
  set(HV_X86_RAX, 0x55667788);
  set(HV_X86_RDX, 0x11223344);
  CHECK_EQ(get(HV_X86_RAX), 0x55667788);
  CHECK_EQ(get(HV_X86_RDX), 0x11223344);
  skip();
  check_msr(VMX_REASON_WRMSR, CODE + 8);
  CHECK_EQ(get(HV_X86_RAX), 0x55667788);
  CHECK_EQ(get(HV_X86_RDX), 0x11223344);
  skip();
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RIP), CODE + 10);
  uint64_t value;
  HV(hv_vcpu_read_msr(vcpu, (uint32_t)LSTAR, &value));
  CHECK_EQ(value, 0); /* the program let it be */
  end();
}

static void rdmsr_leaves_all_of_rax_and_rdx_to_the_program(void) {
  BEGIN(ACCESS_LSTAR);
  set(HV_X86_RAX, 0x1111111122222222);
  set(HV_X86_RDX, 0x3333333344444444);
  CHECK_EQ(run(), VMX_REASON_RDMSR);
  skip();
  check_msr(VMX_REASON_WRMSR, CODE + 8);
  CHECK_EQ(get(HV_X86_RAX), 0x1111111122222222);
  CHECK_EQ(get(HV_X86_RDX), 0x3333333344444444);
  end();
}

static void msr_exits_come_again_until_they_are_stepped_over(void) {
  BEGIN(ACCESS_LSTAR);
  set(HV_X86_RAX, 0x77);
  check_msr(VMX_REASON_RDMSR, CODE + 6);
  check_msr(VMX_REASON_RDMSR, CODE + 6);
  CHECK_EQ(get(HV_X86_RAX), 0x77);
  set(HV_X86_RDX, 0x88);
  check_msr(VMX_REASON_RDMSR, CODE + 6);
  CHECK_EQ(get(HV_X86_RDX), 0x88);
  skip();
  check_msr(VMX_REASON_WRMSR, CODE + 8);
  check_msr(VMX_REASON_WRMSR, CODE + 8);
  skip();
  CHECK_EQ(run(), VMX_REASON_HLT);
  end();
}

static void a_fault_can_answer_an_msr(void) {
  BEGIN(ACCESS_LSTAR);
  set_field(VMCS_GUEST_IDTR_BASE, 0);
  set_field(VMCS_GUEST_IDTR_LIMIT, 0x3ff);
  memcpy(ram + 13 * 4, "\x00\x20\x00\x00", 4); /* #GP to 0:2000 */
  ram[0x2000] = 0xf4;
  set(HV_X86_RAX, 0x1234);
  CHECK_EQ(run(), VMX_REASON_RDMSR);
  set_field(VMCS_CTRL_VMENTRY_IRQ_INFO, IRQ_INFO_VALID | IRQ_INFO_HARD_EXC | 13);
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RIP), 0x2000);
  CHECK_EQ(get(HV_X86_RAX), 0x1234);
  CHECK_EQ(ram[get(HV_X86_RSP)] | ram[get(HV_X86_RSP) + 1] << 8, CODE + 6); /* at the RDMSR */
  end();
}

static void native_msrs_do_not_exit(void) {
  uint64_t value;
  BEGIN(ACCESS_LSTAR);
  HV(hv_vcpu_enable_native_msr(vcpu, (uint32_t)LSTAR, true));
  HV(hv_vcpu_write_msr(vcpu, (uint32_t)LSTAR, 0x7777888812345678 & 0x7fffffffffff));
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RAX), 0x12345678);
  CHECK_EQ(get(HV_X86_RDX), 0x7777888812345678 >> 32 & 0x7fff);
  HV(hv_vcpu_enable_native_msr(vcpu, (uint32_t)LSTAR, false));
  set(HV_X86_RIP, CODE);
  check_msr(VMX_REASON_RDMSR, CODE + 6);
  HV(hv_vcpu_read_msr(vcpu, (uint32_t)LSTAR, &value));
  CHECK_EQ(value & 0xffffffff, 0x12345678);
  end();
}

static void managed_msrs_exit_as_their_access_says(void) {
  BEGIN(ACCESS_LSTAR);
  HV_IS(hv_vcpu_set_msr_access(vcpu, (uint32_t)LSTAR, HV_MSR_READ), HV_BAD_ARGUMENT);
  HV(hv_vcpu_enable_managed_msr(vcpu, (uint32_t)LSTAR, true));
  HV_IS(hv_vcpu_set_msr_access(vcpu, (uint32_t)LSTAR, 4), HV_BAD_ARGUMENT);
  HV(hv_vcpu_write_msr(vcpu, (uint32_t)LSTAR, 0x4321));
  check_msr(VMX_REASON_RDMSR, CODE + 6);
  HV(hv_vcpu_set_msr_access(vcpu, (uint32_t)LSTAR, HV_MSR_READ));
  check_msr(VMX_REASON_WRMSR, CODE + 8); /* the read was served */
  CHECK_EQ(get(HV_X86_RAX), 0x4321);
  HV(hv_vcpu_set_msr_access(vcpu, (uint32_t)LSTAR, HV_MSR_WRITE));
  set(HV_X86_RIP, CODE);
  check_msr(VMX_REASON_RDMSR, CODE + 6);
  set(HV_X86_RAX, 0x99);
  set(HV_X86_RDX, 0);
  skip();
  CHECK_EQ(run(), VMX_REASON_HLT);
  uint64_t value;
  HV(hv_vcpu_read_msr(vcpu, (uint32_t)LSTAR, &value));
  CHECK_EQ(value, 0x99);
  HV(hv_vcpu_enable_managed_msr(vcpu, (uint32_t)LSTAR, false));
  HV_IS(hv_vcpu_set_msr_access(vcpu, (uint32_t)LSTAR, HV_MSR_READ), HV_BAD_ARGUMENT);
  end();
}

static pthread_barrier_t made;

/* A second vCPU, that may access nothing. */
static void *second(void *result) {
  hv_vcpuid_t id;
  *(hv_return_t *)result = hv_vcpu_create(&id, HV_VCPU_DEFAULT);
  pthread_barrier_wait(&made);
  pthread_barrier_wait(&made);
  hv_vcpu_destroy(id);
  return NULL;
}

static void what_one_vcpu_may_another_may_not(void) {
  pthread_t thread;
  hv_return_t result;
  BEGIN(ACCESS_LSTAR);
  HV(hv_vcpu_enable_native_msr(vcpu, (uint32_t)LSTAR, true));
  pthread_barrier_init(&made, NULL, 2);
  CHECK_EQ(pthread_create(&thread, NULL, second, &result), 0);
  pthread_barrier_wait(&made); /* from now on KVM makes exits, which are served */
  hv_return_t first = hv_vcpu_write_msr(vcpu, (uint32_t)LSTAR, 0x5678);
  uint64_t reason = first == HV_SUCCESS ? run() : UINT64_MAX;
  pthread_barrier_wait(&made);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  pthread_barrier_destroy(&made);
  HV(result);
  CHECK_EQ(reason, VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RAX), 0x5678);
  set(HV_X86_RIP, CODE);
  CHECK_EQ(run(), VMX_REASON_HLT); /* and without the other too */
  end();
}

static void msrs_are_checked(void) {
  uint64_t value;
  BEGIN(0xf4);
  HV_IS(hv_vcpu_read_msr(vcpu, TSC, NULL), HV_BAD_ARGUMENT);
  HV_IS(hv_vcpu_read_msr(vcpu, 0xdeadbeef, &value), HV_BAD_ARGUMENT);
  HV_IS(hv_vcpu_write_msr(vcpu, 0xdeadbeef, 0), HV_BAD_ARGUMENT);
  HV_IS(hv_vcpu_write_msr(vcpu, (uint32_t)EFER, UINT64_MAX), HV_BAD_ARGUMENT);
  HV_IS(hv_vcpu_enable_native_msr(vcpu, 0xdeadbeef, true), HV_UNSUPPORTED);
  HV_IS(hv_vcpu_enable_managed_msr(vcpu, 0xdeadbeef, true), HV_UNSUPPORTED);
  end();
}

static void some_fields_are_msrs(void) {
  uint64_t value;
  static const struct {
    uint32_t field, msr;
    uint64_t value;
  } pairs[] = {{VMCS_GUEST_IA32_SYSENTER_CS, 0x174, 8},
               {VMCS_GUEST_SYSENTER_ESP, SYSENTER_ESP, 0x8000},
               {VMCS_GUEST_SYSENTER_EIP, 0x176, 0x9000},
               {VMCS_GUEST_IA32_PAT, 0x277, 0x0007040600070406},
               {VMCS_GUEST_IA32_EFER, 0xc0000080, 1}};
  BEGIN(0xf4);
  for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
    test_note("MSR 0x%x", pairs[i].msr);
    set_field(pairs[i].field, pairs[i].value);
    HV(hv_vcpu_read_msr(vcpu, pairs[i].msr, &value));
    CHECK_EQ(value, pairs[i].value);
    HV(hv_vcpu_write_msr(vcpu, pairs[i].msr, 0));
    CHECK_EQ(field(pairs[i].field), 0);
  }
  CHECK_EQ(field(VMCS_GUEST_IA32_DEBUGCTL), 0);
  end();
}

static void msr_information_is_told(void) {
  uint64_t value = 1;
  HV_IS(hv_vmx_get_msr_info(9, &value), HV_BAD_ARGUMENT);
  HV_IS(hv_vmx_get_msr_info(0, NULL), HV_BAD_ARGUMENT);
  for (hv_vmx_msr_info_t info = 0; info <= HV_VMX_NEED_MSR_IA32_SPEC_CTRL; info++) {
    test_note("information %d", (int)info);
    hv_return_t result = hv_vmx_get_msr_info(info, &value);
    CHECK(result == HV_SUCCESS || result == HV_UNSUPPORTED);
    if (info == HV_VMX_NEED_MSR_IA32_SPEC_CTRL && result == HV_SUCCESS) {
      CHECK_EQ(value, 0);
    }
  }
}

/* ---- Time ---- */

/* What this thread has had of a processor, a guest in it too: a deadline may pass without any. */
static uint64_t thread_time(void) {
  struct timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static void execution_takes_time(void) {
  uint64_t exec, idle;
  BEGIN(0xeb, 0xfe);
  HV(hv_vcpu_get_exec_time(vcpu, &exec));
  CHECK_EQ(exec, 0);
  uint64_t start = luna_clock(), busy = thread_time();
  for (int run = 0; run < 2 || thread_time() - busy < 10000000; run++) {
    HV(hv_vcpu_run_until(vcpu, luna_clock() + 10000000));
    uint64_t before = exec;
    HV(hv_vcpu_get_exec_time(vcpu, &exec));
    CHECK(exec >= before && exec <= luna_clock() - start);
  }
  CHECK(exec >= (thread_time() - busy) / 2);
  HV(hv_vcpu_get_idle_time(vcpu, &idle));
  CHECK_EQ(idle, 0);
  HV_IS(hv_vcpu_get_exec_time(vcpu, NULL), HV_BAD_ARGUMENT);
  HV_IS(hv_vcpu_get_idle_time(vcpu, NULL), HV_BAD_ARGUMENT);
  end();
}

/* Whether KVM keeps an offset of the counter; then it is set to `offset`. */
static bool has_offset(int64_t offset) {
  hv_return_t result = hv_vcpu_set_tsc_relative(vcpu, offset);
  CHECK(result == HV_SUCCESS || result == HV_UNSUPPORTED);
  return result == HV_SUCCESS;
}

static void the_counter_is_relative_to_the_clock(void) {
  uint64_t value;
  HV(hv_vm_create(HV_VM_DEFAULT));
  HV(hv_vcpu_create(&vcpu, HV_VCPU_TSC_RELATIVE));
  uint64_t now = hv_tsc_clock();
  CHECK(hv_tsc_clock() > now);
  if (!has_offset(-(int64_t)now)) {
    end();
    test_skip("KVM keeps no TSC offset");
  }
  CHECK_EQ(field(VMCS_CTRL_TSC_OFFSET), -now);
  HV(hv_vcpu_read_msr(vcpu, TSC, &value));
  CHECK(value < UINT64_C(100000000000));
  set_field(VMCS_CTRL_TSC_OFFSET, 0);
  HV(hv_vcpu_read_msr(vcpu, TSC, &value));
  CHECK(value >= now);
  end();
}

static void counters_are_set_for_all(void) {
  uint64_t value;
  HV_IS(hv_vm_sync_tsc(0), HV_NO_DEVICE);
  BEGIN(0xf4);
  HV_IS(hv_vcpu_set_tsc_relative(vcpu, 0), HV_UNSUPPORTED); /* made without the option */
  hv_return_t result = hv_vm_sync_tsc(UINT64_C(1) << 60);
  CHECK(result == HV_SUCCESS || result == HV_UNSUPPORTED);
  if (result == HV_SUCCESS) {
    HV(hv_vcpu_read_msr(vcpu, TSC, &value));
    CHECK_EQ(value >> 40, 1 << 20);
  }
  end();
}

static void arm_s_matrix_extension_is_not_here(void) {
  size_t value;
  HV_IS(hv_sme_config_get_max_svl_bytes(&value), HV_UNSUPPORTED);
}

/* mov eax, 1; cpuid; mov esi, ecx; mov eax, 0x40000000; cpuid; hlt */
static const uint8_t ask_cpuid[] = {0x66, 0xb8, 0x01, 0x00, 0x00, 0x00, 0x0f, 0xa2, 0x66, 0x89,
                                    0xce, 0x66, 0xb8, 0x00, 0x00, 0x00, 0x40, 0x0f, 0xa2, 0xf4};

/* An x2APIC, a TSC-deadline timer and KVM's interface have MSRs that only KVM knows. */
static void cpuid_has_no_apic_of_kvm_s_where_it_is_the_program_s(void) {
  const uint64_t apic = 1 << 21 | 1 << 24;
  begin_with(ask_cpuid, sizeof ask_cpuid, HV_VM_DEFAULT);
  uint64_t reason = run();
  if (reason == VMX_REASON_CPUID) { /* an accelerator that lets the program answer */
    end();
    return;
  }
  CHECK_EQ(reason, VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RSI) & apic, 0);
  CHECK(get(HV_X86_RSI) & 1); /* SSE3 is there all the same */
  CHECK((uint32_t)get(HV_X86_RBX) != 0x4b4d564b);
  end();
}

int main(void) {
  RUN_KVM(fpstate_is_that_of_xsave);
  RUN_KVM(fpstate_goes_both_ways);
  RUN_KVM(msrs_exit_and_the_program_answers);
  RUN_KVM(rdmsr_leaves_all_of_rax_and_rdx_to_the_program);
  RUN_KVM(msr_exits_come_again_until_they_are_stepped_over);
  RUN_KVM(a_fault_can_answer_an_msr);
  RUN_KVM(native_msrs_do_not_exit);
  RUN_KVM(managed_msrs_exit_as_their_access_says);
  RUN_KVM(what_one_vcpu_may_another_may_not);
  RUN_KVM(msrs_are_checked);
  RUN_KVM(some_fields_are_msrs);
  RUN_KVM(msr_information_is_told);
  RUN_KVM(execution_takes_time);
  RUN_KVM(the_counter_is_relative_to_the_clock);
  RUN_KVM(counters_are_set_for_all);
  RUN_KVM(arm_s_matrix_extension_is_not_here);
  RUN_KVM(cpuid_has_no_apic_of_kvm_s_where_it_is_the_program_s);
  return test_end();
}
