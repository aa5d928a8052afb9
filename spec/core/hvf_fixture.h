/* SPDX-License-Identifier: MIT
 * Tests of the Hypervisor framework's API, on this host's KVM: a VM with a 16-bit guest. Without
 * KVM they are left out, or fail with LUNA_REQUIRE_KVM=1. */
#ifndef LUNA_HVF_FIXTURE_H
#define LUNA_HVF_FIXTURE_H

#include "test.h"

#include <Hypervisor/Hypervisor.h>
#include <pthread.h>
#include <unistd.h>

enum {
  RAM_SIZE = 0x10000,
  CODE = 0x1000,
  RWX = HV_MEMORY_READ | HV_MEMORY_WRITE | HV_MEMORY_EXEC,
  RX = HV_MEMORY_READ | HV_MEMORY_EXEC
};

static uint8_t ram[RAM_SIZE] __attribute__((aligned(4096)));
static uint8_t page[4096] __attribute__((aligned(4096)));
static hv_vcpuid_t vcpu;

static inline void hvf_expect(const char *file, int line, const char *call, hv_return_t got,
                              hv_return_t want) {
  if (got != want) {
    test_fail(file, line, "%s is 0x%08x, not 0x%08x: %s", call, (unsigned)got, (unsigned)want,
              hv_ext_error_message());
  }
}

#define HV(call) hvf_expect(__FILE__, __LINE__, #call, (call), HV_SUCCESS)
#define HV_IS(call, code) hvf_expect(__FILE__, __LINE__, #call, (call), (code))

static inline void run_kvm(const char *name, void (*function)(void)) {
  unsigned before = test.failed + test.skipped;
  test.name = name;
  test.note[0] = '\0';
  if (luna_probe() != LUNA_OK) {
    const char *required = getenv("LUNA_REQUIRE_KVM");
    bool fail = required && strcmp(required, "1") == 0;
    printf("%s %s: %s\n", fail ? "not ok" : "skip", name, luna_error_message());
    *(fail ? &test.failed : &test.skipped) += 1;
    return;
  }
  alarm(60); /* a guest that hangs ends the program, which counts as a failure */
  test_body(function, test_live());
  alarm(0);
  hv_vcpu_destroy(vcpu); /* after a failure */
  hv_vm_destroy();
  if (test.failed + test.skipped == before) {
    test.passed++;
    printf("ok %s\n", name);
  }
  fflush(stdout);
}

#define RUN_KVM(function) run_kvm(#function, function)

__attribute__((unused)) static uint64_t get(hv_x86_reg_t reg) {
  uint64_t value;
  HV(hv_vcpu_read_register(vcpu, reg, &value));
  return value;
}

__attribute__((unused)) static void set(hv_x86_reg_t reg, uint64_t value) {
  HV(hv_vcpu_write_register(vcpu, reg, value));
}

__attribute__((unused)) static uint64_t field(uint32_t number) {
  uint64_t value;
  HV(hv_vmx_vcpu_read_vmcs(vcpu, number, &value));
  return value;
}

__attribute__((unused)) static void set_field(uint32_t number, uint64_t value) {
  HV(hv_vmx_vcpu_write_vmcs(vcpu, number, value));
}

/* Runs, for ten seconds at most; the reason. */
__attribute__((unused)) static uint64_t run(void) {
  HV(hv_vcpu_run_until(vcpu, luna_clock() + UINT64_C(10000000000)));
  return field(VMCS_RO_EXIT_REASON);
}

/* What a program does behind an instruction whose work it did. */
__attribute__((unused)) static void skip(void) {
  set(HV_X86_RIP, get(HV_X86_RIP) + field(VMCS_RO_VMEXIT_INSTR_LEN));
}

/* A VM with memory from 0 and a vCPU in real mode at CODE. */
__attribute__((unused)) static void begin_with(const void *code, size_t size,
                                               hv_vm_options_t options) {
  memset(ram, 0, sizeof ram);
  memset(page, 0, sizeof page);
  memcpy(ram + CODE, code, size);
  HV(hv_vm_create(options));
  HV(hv_vm_map(ram, 0, RAM_SIZE, RWX));
  HV(hv_vcpu_create(&vcpu, HV_VCPU_DEFAULT));
  set_field(VMCS_GUEST_CS, 0);
  set_field(VMCS_GUEST_CS_BASE, 0);
  set(HV_X86_RIP, CODE);
  set(HV_X86_RSP, 0x8000);
}

#define BEGIN(...)                                                                                 \
  begin_with((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), HV_VM_DEFAULT)

__attribute__((unused)) static void end(void) {
  HV(hv_vcpu_destroy(vcpu));
  HV(hv_vm_destroy());
}

/* Calls the function on a thread of its own and waits for it. Checks do not work there. */
__attribute__((unused)) static hv_return_t on_thread(void *(*function)(void *), void *argument) {
  pthread_t thread;
  void *result;
  CHECK_EQ(pthread_create(&thread, NULL, function, argument), 0);
  CHECK_EQ(pthread_join(thread, &result), 0);
  return (hv_return_t)(intptr_t)result;
}

#endif
