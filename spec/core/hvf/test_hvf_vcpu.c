/* SPDX-License-Identifier: MIT
 * vCPUs as the Hypervisor framework has them: owners, running and interrupting. */
#include "fixture/hvf_fixture.h"

#include <signal.h>
#include <stdatomic.h>
#include <sys/time.h>
#include <sys/wait.h>

/* Every call of the owner's, on the vCPU `id`; all of them have to give the same. */
static void check_all(hv_vcpuid_t id, hv_return_t want) {
  uint64_t value, other;
  uint32_t status;
  hv_ext_access access;
  HV_IS(hv_vcpu_destroy(id), want);
  HV_IS(hv_vcpu_set_space(id, 0), want);
  HV_IS(hv_vcpu_read_register(id, HV_X86_RAX, &value), want);
  HV_IS(hv_vcpu_write_register(id, HV_X86_RAX, 0), want);
  HV_IS(hv_vcpu_invalidate_tlb(id), want);
  HV_IS(hv_vcpu_run(id), want);
  HV_IS(hv_vcpu_run_until(id, 0), want);
  HV_IS(hv_vmx_vcpu_read_vmcs(id, VMCS_GUEST_RIP, &value), want);
  HV_IS(hv_vmx_vcpu_write_vmcs(id, VMCS_GUEST_RIP, 0), want);
  HV_IS(hv_vmx_vcpu_get_cap_write_vmcs(id, VMCS_GUEST_RIP, &value, &other), want);
  HV_IS(hv_vmx_vcpu_read_shadow_vmcs(id, VMCS_GUEST_RIP, &value), want);
  HV_IS(hv_vmx_vcpu_write_shadow_vmcs(id, VMCS_GUEST_RIP, 0), want);
  HV_IS(hv_vmx_vcpu_set_shadow_access(id, VMCS_GUEST_RIP, HV_SHADOW_VMCS_READ), want);
  HV_IS(hv_ext_vcpu_access(id, &access), want);
  HV_IS(hv_ext_vcpu_complete(id, 0), want);
  HV_IS(hv_vcpu_read_fpstate(id, page, 512), want);
  HV_IS(hv_vcpu_write_fpstate(id, page, 512), want);
  HV_IS(hv_vcpu_enable_native_msr(id, 0x10, true), want);
  HV_IS(hv_vcpu_enable_managed_msr(id, 0x10, true), want);
  HV_IS(hv_vcpu_set_msr_access(id, 0x10, HV_MSR_READ), want);
  HV_IS(hv_vcpu_read_msr(id, 0x10, &value), want);
  HV_IS(hv_vcpu_write_msr(id, 0x10, 0), want);
  HV_IS(hv_vcpu_get_exec_time(id, &value), want);
  HV_IS(hv_vcpu_get_idle_time(id, &value), want);
  HV_IS(hv_vcpu_set_tsc_relative(id, 0), want);
  HV_IS(hv_vcpu_vmx_status(id, &status), want);
  HV_IS(hv_vcpu_flush(id), HV_UNSUPPORTED);
}

static void check_denied(void) {
  check_all(vcpu, HV_DENIED);
}

static void calls_are_for_the_owner(void) {
  check_all(0, HV_NO_DEVICE);
  BEGIN(0xf4);
  CHECK(passes_elsewhere(check_denied));
  check_all(vcpu + 1, HV_BAD_ARGUMENT);
  end();
  check_all(vcpu, HV_NO_DEVICE);
}

static void *make_one(void *id) {
  return (void *)(intptr_t)hv_vcpu_create(id, HV_VCPU_DEFAULT);
}

static void a_thread_owns_one_vcpu(void) {
  hv_vcpuid_t second, third;
  BEGIN(0xf4);
  CHECK_EQ(vcpu, 0);
  HV_IS(hv_vcpu_create(&second, HV_VCPU_DEFAULT), HV_BUSY);
  HV_IS(on_thread(make_one, &second), HV_SUCCESS);
  CHECK_EQ(second, 1);
  HV_IS(on_thread(make_one, &third), HV_SUCCESS);
  CHECK_EQ(third, 1); /* the thread ended, and its vCPU with it */
  HV_IS(hv_vcpu_interrupt(&third, 1), HV_BAD_ARGUMENT);
  end();
}

static void a_thread_acts_as_another(void) {
  hv_vcpuid_t other, third;
  uint64_t value;
  HV(hv_ext_thread_adopt(7)); /* needs no VM */
  HV(hv_ext_thread_adopt(0));
  BEGIN(0xf4);
  HV(hv_ext_thread_adopt(7));
  HV_IS(hv_vcpu_read_register(vcpu, HV_X86_RIP, &value), HV_DENIED);
  HV(hv_vcpu_create(&other, HV_VCPU_DEFAULT));
  HV_IS(hv_vcpu_create(&third, HV_VCPU_DEFAULT), HV_BUSY);
  HV(hv_vcpu_write_register(other, HV_X86_RAX, 0x77));
  HV(hv_ext_thread_adopt(8));
  HV_IS(hv_vcpu_read_register(other, HV_X86_RAX, &value), HV_DENIED);
  HV(hv_vcpu_create(&third, HV_VCPU_DEFAULT));
  HV(hv_vcpu_destroy(third));
  HV(hv_ext_thread_adopt(0));
  HV_IS(hv_vcpu_destroy(other), HV_DENIED);
  HV(hv_vcpu_read_register(vcpu, HV_X86_RIP, &value));
  CHECK_EQ(run(), VMX_REASON_HLT);
  HV(hv_ext_thread_adopt(7));
  HV(hv_vcpu_read_register(other, HV_X86_RAX, &value));
  CHECK_EQ(value, 0x77);
  HV(hv_vcpu_destroy(other));
  HV_IS(hv_vcpu_destroy(other), HV_BAD_ARGUMENT);
  HV(hv_ext_thread_adopt(0));
  end();
}

static void *make_as_nine(void *id) {
  hv_ext_thread_adopt(9);
  return (void *)(intptr_t)hv_vcpu_create(id, HV_VCPU_DEFAULT);
}

static void a_vcpu_of_a_token_outlives_the_thread(void) {
  hv_vcpuid_t id = 5;
  HV(hv_vm_create(HV_VM_DEFAULT));
  HV_IS(on_thread(make_as_nine, &id), HV_SUCCESS);
  HV_IS(hv_vm_destroy(), HV_BUSY);
  HV_IS(hv_vcpu_destroy(id), HV_DENIED);
  HV(hv_ext_thread_adopt(9));
  HV(hv_vcpu_destroy(id));
  HV(hv_ext_thread_adopt(0));
  HV(hv_vm_destroy());
}

static void vcpu_numbers_are_given_out_again(void) {
  hv_vcpuid_t first = 9, again = 8;
  HV(hv_vm_create(HV_VM_DEFAULT));
  HV_IS(hv_vcpu_create(NULL, HV_VCPU_DEFAULT), HV_BAD_ARGUMENT);
  HV_IS(hv_vcpu_create(&first, UINT64_C(1) << 9), HV_BAD_ARGUMENT);
  HV(hv_vcpu_create(&first, HV_VCPU_ACCEL_RDPMC));
  HV(hv_vcpu_destroy(first));
  HV_IS(hv_vcpu_destroy(first), HV_BAD_ARGUMENT);
  HV(hv_vcpu_create(&again, HV_VCPU_DEFAULT));
  CHECK_EQ(again, first);
  HV(hv_vcpu_destroy(again));
  HV(hv_vm_destroy());
}

/* ---- Running ---- */

static void exit_fields_are_zero_before_the_first_run(void) {
  BEGIN(0xf4);
  for (uint32_t number = VMCS_RO_INSTR_ERROR; number <= VMCS_RO_VMX_INSTR_INFO; number += 2) {
    CHECK_EQ(field(number), 0);
  }
  CHECK_EQ(field(VMCS_RO_EXIT_QUALIFIC), 0);
  CHECK_EQ(field(VMCS_GUEST_PHYSICAL_ADDRESS), 0);
  end();
}

static void a_deadline_ends_the_run(void) {
  BEGIN(0xeb, 0xfe); /* for ever */
  uint64_t before = luna_clock();
  HV(hv_vcpu_run_until(vcpu, before + 20000000));
  CHECK_EQ(field(VMCS_RO_EXIT_REASON), VMX_REASON_VMX_TIMER_EXPIRED);
  CHECK(luna_clock() - before >= 20000000);
  CHECK_EQ(field(VMCS_RO_VMEXIT_INSTR_LEN), 0);
  CHECK_EQ(get(HV_X86_RIP), CODE);
  end();
}

static void a_deadline_in_the_past_lets_the_guest_do_nothing(void) {
  BEGIN(0x43, 0xf4); /* inc bx; hlt */
  set(HV_X86_RBX, 1);
  for (uint64_t deadline = 0; deadline < 2; deadline++) {
    HV(hv_vcpu_run_until(vcpu, deadline));
    CHECK_EQ(field(VMCS_RO_EXIT_REASON), VMX_REASON_VMX_TIMER_EXPIRED);
    CHECK_EQ(get(HV_X86_RIP), CODE);
    CHECK_EQ(get(HV_X86_RBX), 1);
  }
  HV(hv_vcpu_run_until(vcpu, HV_DEADLINE_FOREVER));
  CHECK_EQ(field(VMCS_RO_EXIT_REASON), VMX_REASON_HLT);
  end();
}

static void *interrupt_soon(void *unused) {
  (void)unused;
  usleep(20000);
  return (void *)(intptr_t)hv_vcpu_interrupt(&vcpu, 1);
}

static void any_thread_interrupts_a_run(void) {
  pthread_t thread;
  void *result;
  BEGIN(0xeb, 0xfe);
  CHECK_EQ(pthread_create(&thread, NULL, interrupt_soon, NULL), 0);
  CHECK_EQ(run(), VMX_REASON_IRQ);
  CHECK_EQ(pthread_join(thread, &result), 0);
  HV_IS((hv_return_t)(intptr_t)result, HV_SUCCESS);
  CHECK_EQ(get(HV_X86_RIP), CODE);
  end();
}

static void an_interrupt_outside_of_a_run_ends_the_next_one(void) {
  BEGIN(0xf4);
  HV(hv_vcpu_interrupt(&vcpu, 1));
  HV(hv_vcpu_interrupt(&vcpu, 1));
  CHECK_EQ(run(), VMX_REASON_IRQ);
  CHECK_EQ(run(), VMX_REASON_HLT);
  end();
}

/* ---- The host's timer interrupts ---- */

static uint64_t run_once(void) {
  HV(hv_vcpu_run(vcpu));
  return field(VMCS_RO_EXIT_REASON);
}

static void interrupts_of_the_host_end_hv_vcpu_run(void) {
  BEGIN(0xeb, 0xfe); /* for ever */
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(run_once(), VMX_REASON_IRQ);
    CHECK_EQ(field(VMCS_RO_VMEXIT_INSTR_LEN), 0);
    CHECK_EQ(field(VMCS_RO_VMEXIT_IRQ_INFO), 0);
    CHECK_EQ(get(HV_X86_RIP), CODE);
  }
  usleep(100000); /* there is nothing to interrupt for a while */
  CHECK_EQ(run_once(), VMX_REASON_IRQ);
  end();
}

static void hv_vcpu_run_until_is_not_ended_by_them(void) {
  BEGIN(0xeb, 0xfe);
  CHECK_EQ(run_once(), VMX_REASON_IRQ);
  HV(hv_vcpu_run_until(vcpu, luna_clock() + 50000000));
  CHECK_EQ(field(VMCS_RO_EXIT_REASON), VMX_REASON_VMX_TIMER_EXPIRED);
  end();
}

static void a_guest_goes_on_behind_them(void) {
  uint64_t reason = VMX_REASON_IRQ;
  unsigned ended = 0;
  /* mov cx, 40000; mov dx, 0; a: inc dx; loop a; hlt */
  BEGIN(0xb9, 0x40, 0x9c, 0xba, 0x00, 0x00, 0x42, 0xe2, 0xfd, 0xf4);
  for (unsigned pass = 0; pass < 1000 && !ended; pass++) {
    set(HV_X86_RIP, CODE);
    for (reason = run_once(); reason == VMX_REASON_IRQ; reason = run_once()) {
      ended++;
    }
    CHECK_EQ(reason, VMX_REASON_HLT);
    CHECK_EQ(get(HV_X86_RDX) & 0xffff, 40000);
  }
  CHECK(ended > 0);
  end();
}

/* KVM has the guest's halts there. */
static void they_do_not_wake_a_halted_guest(void) {
  pthread_t thread;
  void *result;
  begin_with((const uint8_t[]){0xf4, 0xeb, 0xfd}, 3, HV_VM_ACCEL_APIC);
  uint64_t before = luna_clock();
  CHECK_EQ(pthread_create(&thread, NULL, interrupt_soon, NULL), 0);
  CHECK_EQ(run_once(), VMX_REASON_IRQ);
  CHECK(luna_clock() - before >= 15000000);
  CHECK_EQ(pthread_join(thread, &result), 0);
  end();
}

static void a_child_has_its_own_interrupts(void) {
#ifdef __SANITIZE_THREAD__
  test_skip("the thread sanitizer lets no child of a process with threads make one");
#endif
  int status = 0;
  BEGIN(0xeb, 0xfe);
  CHECK_EQ(run_once(), VMX_REASON_IRQ);
  pid_t child = fork();
  if (child == 0) {
    uint64_t reason = 0;
    bool good = hv_vm_create(HV_VM_DEFAULT) == HV_SUCCESS &&
                hv_vm_map(ram, 0, RAM_SIZE, RWX) == HV_SUCCESS &&
                hv_vcpu_create(&vcpu, HV_VCPU_DEFAULT) == HV_SUCCESS &&
                hv_vmx_vcpu_write_vmcs(vcpu, VMCS_GUEST_CS_BASE, 0) == HV_SUCCESS &&
                hv_vcpu_write_register(vcpu, HV_X86_RIP, CODE) == HV_SUCCESS &&
                hv_vcpu_run(vcpu) == HV_SUCCESS &&
                hv_vmx_vcpu_read_vmcs(vcpu, VMCS_RO_EXIT_REASON, &reason) == HV_SUCCESS;
    _exit(good && reason == VMX_REASON_IRQ ? 0 : 1);
  }
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(status, 0);
  CHECK_EQ(run_once(), VMX_REASON_IRQ);
  end();
}

/* A vCPU on a thread of its own, that runs until it is interrupted. */
static pthread_barrier_t made;

static void *spin(void *id) {
  uint64_t reason = 0;
  hv_return_t result = hv_vcpu_create(id, HV_VCPU_DEFAULT);
  pthread_barrier_wait(&made);
  hv_vcpuid_t own = *(hv_vcpuid_t *)id;
  hv_vmx_vcpu_write_vmcs(own, VMCS_GUEST_CS, 0);
  hv_vmx_vcpu_write_vmcs(own, VMCS_GUEST_CS_BASE, 0);
  hv_vcpu_write_register(own, HV_X86_RIP, CODE);
  result = result == HV_SUCCESS ? hv_vcpu_run_until(own, luna_clock() + 60000000000u) : result;
  hv_vmx_vcpu_read_vmcs(own, VMCS_RO_EXIT_REASON, &reason);
  hv_vcpu_destroy(own);
  return (void *)(intptr_t)(result == HV_SUCCESS && reason == VMX_REASON_IRQ);
}

static void several_are_interrupted_at_once(void) {
  hv_vcpuid_t ids[3] = {77, 77, 77};
  pthread_t threads[2];
  BEGIN(0xeb, 0xfe);
  HV_IS(hv_vcpu_interrupt(NULL, 1), HV_BAD_ARGUMENT);
  HV(hv_vcpu_interrupt(NULL, 0));
  ids[2] = vcpu;
  HV_IS(hv_vcpu_interrupt(ids, 3), HV_BAD_ARGUMENT); /* and none of them is */
  HV(hv_vcpu_run_until(vcpu, luna_clock() + 5000000));
  CHECK_EQ(field(VMCS_RO_EXIT_REASON), VMX_REASON_VMX_TIMER_EXPIRED);
  pthread_barrier_init(&made, NULL, 3);
  for (int i = 0; i < 2; i++) {
    CHECK_EQ(pthread_create(&threads[i], NULL, spin, &ids[i]), 0);
  }
  pthread_barrier_wait(&made);
  usleep(20000);
  HV(hv_vcpu_interrupt(ids, 3));
  for (int i = 0; i < 2; i++) {
    void *good;
    CHECK_EQ(pthread_join(threads[i], &good), 0);
    CHECK(good != NULL);
  }
  CHECK_EQ(run(), VMX_REASON_IRQ);
  pthread_barrier_destroy(&made);
  end();
}

static void interrupt_it(int number) {
  (void)number;
  hv_vcpu_interrupt(&vcpu, 1);
}

/* The signal comes to the vCPU's own thread, in the middle of calls that have locks. */
static void a_signal_s_handler_interrupts(void) {
  const struct itimerval often = {{0, 100}, {0, 100}}, never = {{0, 0}, {0, 0}};
  struct sigaction action = {.sa_handler = interrupt_it}, before;
  BEGIN(0xeb, 0xfe);
  CHECK_EQ(sigaction(SIGPROF, &action, &before), 0);
  const uint64_t end_of_it = luna_clock() + UINT64_C(1000000000);
  CHECK_EQ(setitimer(ITIMER_PROF, &often, NULL), 0);
  while (luna_clock() < end_of_it) {
    HV(hv_vm_map(page, 0x100000, sizeof page, RWX));
    HV(hv_vm_unmap(0x100000, sizeof page));
  }
  CHECK_EQ(run(), VMX_REASON_IRQ);
  CHECK_EQ(run(), VMX_REASON_IRQ); /* the next signal, in the guest */
  CHECK_EQ(setitimer(ITIMER_PROF, &never, NULL), 0);
  CHECK_EQ(sigaction(SIGPROF, &before, NULL), 0);
  end();
}

static atomic_bool over;

static void *interrupt_always(void *unused) {
  (void)unused;
  hv_vcpuid_t id = 1;
  while (!over) {
    hv_return_t result = hv_vcpu_interrupt(&id, 1);
    if (result != HV_SUCCESS && result != HV_BAD_ARGUMENT) {
      return (void *)(intptr_t)result;
    }
  }
  return NULL;
}

static void *come_and_go(void *unused) {
  (void)unused;
  hv_return_t result = HV_SUCCESS;
  for (int i = 0; i < 200 && result == HV_SUCCESS; i++) {
    hv_vcpuid_t id;
    result = hv_vcpu_create(&id, HV_VCPU_DEFAULT);
    result = result == HV_SUCCESS ? hv_vcpu_destroy(id) : result;
  }
  return (void *)(intptr_t)result;
}

static void one_that_goes_away_is_interrupted(void) {
  pthread_t thread;
  void *result;
  BEGIN(0xf4);
  over = false;
  CHECK_EQ(pthread_create(&thread, NULL, interrupt_always, NULL), 0);
  HV((hv_return_t)on_thread(come_and_go, NULL));
  over = true;
  CHECK_EQ(pthread_join(thread, &result), 0);
  HV((hv_return_t)(intptr_t)result);
  CHECK_EQ(run(), VMX_REASON_HLT);
  end();
}

static void the_tlb_can_be_invalidated(void) {
  BEGIN(0xf4, 0xf4);
  CHECK_EQ(run(), VMX_REASON_HLT);
  skip();
  HV(hv_vcpu_invalidate_tlb(vcpu));
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RIP), CODE + 1);
  HV_IS(hv_vm_map(page, 0, sizeof page, RWX), HV_BUSY); /* the map is as it was */
  end();
}

static void the_tlb_can_be_invalidated_where_the_last_page_is_taken(void) {
  uint64_t bits;
  BEGIN(0xf4);
  CHECK_EQ(luna_capability("address_bits", &bits), LUNA_OK);
  const uint64_t limit = UINT64_C(1) << bits;
  HV(hv_vm_map(page, limit - sizeof page, sizeof page, RWX));
  HV(hv_vcpu_invalidate_tlb(vcpu));
  HV(hv_vm_map(page, limit - 2 * sizeof page, sizeof page, RWX)); /* it was free, and is again */
  HV(hv_vcpu_invalidate_tlb(vcpu));
  HV_IS(hv_vm_map(page, limit - sizeof page, sizeof page, RWX), HV_BUSY);
  end();
}

static void entries_do_not_fail_before_the_guest_s_state(void) {
  uint32_t status = 1;
  BEGIN(0xf4);
  HV_IS(hv_vcpu_vmx_status(vcpu, NULL), HV_BAD_ARGUMENT);
  CHECK_EQ(run(), VMX_REASON_HLT);
  HV(hv_vcpu_vmx_status(vcpu, &status));
  CHECK_EQ(status, 0);
  CHECK_EQ(field(VMCS_RO_INSTR_ERROR), 0);
  end();
}

int main(void) {
  RUN_KVM(calls_are_for_the_owner);
  RUN_KVM(a_thread_owns_one_vcpu);
  RUN_KVM(a_thread_acts_as_another);
  RUN_KVM(a_vcpu_of_a_token_outlives_the_thread);
  RUN_KVM(vcpu_numbers_are_given_out_again);
  RUN_KVM(exit_fields_are_zero_before_the_first_run);
  RUN_KVM(a_deadline_ends_the_run);
  RUN_KVM(a_deadline_in_the_past_lets_the_guest_do_nothing);
  RUN_KVM(any_thread_interrupts_a_run);
  RUN_KVM(an_interrupt_outside_of_a_run_ends_the_next_one);
  RUN_KVM(interrupts_of_the_host_end_hv_vcpu_run);
  RUN_KVM(hv_vcpu_run_until_is_not_ended_by_them);
  RUN_KVM(a_guest_goes_on_behind_them);
  RUN_KVM(they_do_not_wake_a_halted_guest);
  RUN_KVM(a_child_has_its_own_interrupts);
  RUN_KVM(several_are_interrupted_at_once);
  RUN_KVM(a_signal_s_handler_interrupts);
  RUN_KVM(one_that_goes_away_is_interrupted);
  RUN_KVM(the_tlb_can_be_invalidated);
  RUN_KVM(the_tlb_can_be_invalidated_where_the_last_page_is_taken);
  RUN_KVM(entries_do_not_fail_before_the_guest_s_state);
  return test_end();
}
