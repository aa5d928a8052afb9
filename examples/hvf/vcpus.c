/* SPDX-License-Identifier: MIT
 * Several vCPUs, each owned by a thread, counting in memory that they share until the first thread
 * calls them off: an interrupt reaches a vCPU while it runs, and one that does not run yet as soon
 * as it does.
 *   cc vcpus.c -pthread $(pkg-config --cflags --libs Hypervisor) */
#include <Hypervisor/hv.h>
#include <Hypervisor/hv_vmx.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
  MEMORY = 0x10000,
  ENTRY = 0x1000,
  COUNTERS = 0x2000,
  VCPUS = 3,
  ENOUGH = 1000
};

/* again: inc dword [bx]; jmp again */
static const unsigned char code[] = {0x66, 0xff, 0x07, 0xeb, 0xfb};

/* A thread and its vCPU. */
typedef struct worker {
  pthread_t thread;
  hv_vcpuid_t vcpu;
  uint64_t counter; /* where it counts in the guest's memory */
  uint64_t time;    /* nanoseconds in the guest */
  bool stopped;     /* by an interrupt, when it was to stop */
} worker;

static worker workers[VCPUS];
static pthread_barrier_t made;
static atomic_bool stopping;

static void check(hv_return_t result, const char *what) {
  if (result != HV_SUCCESS) {
    fprintf(stderr, "vcpus: %s: 0x%08x\n", what, (unsigned)result);
    exit(1);
  }
}

static void set_up(const worker *w) { /* real mode, as at RESET */
  check(hv_vmx_vcpu_write_vmcs(w->vcpu, VMCS_GUEST_CS, 0), "write_vmcs");
  check(hv_vmx_vcpu_write_vmcs(w->vcpu, VMCS_GUEST_CS_BASE, 0), "write_vmcs");
  check(hv_vcpu_write_register(w->vcpu, HV_X86_RIP, ENTRY), "write_register");
  check(hv_vcpu_write_register(w->vcpu, HV_X86_RBX, w->counter), "write_register");
}

/* An exit for an interrupt says nothing of whose it was: the program has a flag of its own. */
static void *work(void *argument) {
  worker *w = argument;
  uint64_t reason = VMX_REASON_IRQ;
  check(hv_vcpu_create(&w->vcpu, HV_VCPU_DEFAULT), "hv_vcpu_create");
  set_up(w);
  pthread_barrier_wait(&made);
  while (reason == VMX_REASON_IRQ && !atomic_load(&stopping)) {
    check(hv_vcpu_run_until(w->vcpu, HV_DEADLINE_FOREVER), "run_until");
    check(hv_vmx_vcpu_read_vmcs(w->vcpu, VMCS_RO_EXIT_REASON, &reason), "read_vmcs");
  }
  w->stopped = reason == VMX_REASON_IRQ;
  check(hv_vcpu_get_exec_time(w->vcpu, &w->time), "get_exec_time");
  check(hv_vcpu_destroy(w->vcpu), "hv_vcpu_destroy"); /* only the owner can */
  return NULL;
}

static bool all_counted(const unsigned char *memory) {
  bool all = true;
  for (int i = 0; i < VCPUS; i++) {
    uint32_t count;
    memcpy(&count, memory + workers[i].counter, sizeof count);
    all &= count >= ENOUGH;
  }
  return all;
}

int main(void) {
  hv_vcpuid_t vcpus[VCPUS];
  unsigned char *memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANON, -1, 0);
  if (memory == MAP_FAILED) {
    perror("vcpus: mmap");
    return 1;
  }
  memcpy(memory + ENTRY, code, sizeof code);
  check(hv_vm_create(HV_VM_DEFAULT), "hv_vm_create");
  check(hv_vm_map(memory, 0, MEMORY, HV_MEMORY_READ | HV_MEMORY_WRITE | HV_MEMORY_EXEC),
        "hv_vm_map");

  pthread_barrier_init(&made, NULL, VCPUS + 1);
  for (unsigned i = 0; i < VCPUS; i++) {
    workers[i].counter = COUNTERS + 4 * i;
    pthread_create(&workers[i].thread, NULL, work, &workers[i]);
  }
  pthread_barrier_wait(&made);
  while (!all_counted(memory)) {
    sched_yield();
  }
  for (int i = 0; i < VCPUS; i++) {
    vcpus[i] = workers[i].vcpu;
  }
  atomic_store(&stopping, true);
  check(hv_vcpu_interrupt(vcpus, VCPUS), "hv_vcpu_interrupt");

  for (int i = 0; i < VCPUS; i++) {
    pthread_join(workers[i].thread, NULL);
    printf("vCPU %d has counted to %d and more: %s\n", i, ENOUGH,
           workers[i].stopped && workers[i].time > 0 ? "interrupted" : "ended by itself");
  }
  pthread_barrier_destroy(&made);
  check(hv_vm_destroy(), "hv_vm_destroy");
  munmap(memory, MEMORY);
  return 0;
}
