/* SPDX-License-Identifier: MIT
 * A guest that starts its further processors itself, by INIT and SIPI of its local APIC, and wakes
 * them from their halt by an NMI: each is a vCPU on a thread, and waits in hv_vcpu_run until then.
 *   cc processors.c -pthread $(pkg-config --cflags --libs Hypervisor) */
#include <Hypervisor/hv.h>
#include <Hypervisor/hv_intr.h>
#include <Hypervisor/hv_vmx.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
  MEMORY = 0x10000,
  FIRST = 0x1000, /* where the first processor begins */
  HANDLER = 0x2000,
  OTHERS = 0x8000, /* and the others: SIPI's vector, 8 */
  COUNT = 2,
  DONE = 0x10, /* ports that tell */
  STARTED = 0x11,
  WOKEN = 0x12
};

/* DS is the local APIC's page. */
static const unsigned char first[] = {
    0x66, 0xc7, 0x06, 0x00, 0x03, 0x00,  0x45, 0x0c, 0x00, /* mov dword [0x300], 0xc4500: INIT */
    0x66, 0xc7, 0x06, 0x00, 0x03, 0x08,  0x46, 0x0c, 0x00, /* mov dword [0x300], 0xc4608: SIPI */
    0x26, 0x83, 0x3e, 0x00, 0x30, COUNT,                   /* again: cmp word [es:0x3000], 2 */
    0x72, 0xf8,                                            /* jb again */
    0x66, 0xc7, 0x06, 0x00, 0x03, 0x00,  0x44, 0x0c, 0x00, /* mov dword [0x300], 0xc4400: NMI */
    0xe6, DONE,                                            /* out 0x10, al */
    0xf4                                                   /* hlt */
};
static const unsigned char others[] = {
    0xe6, STARTED,                   /* out 0x11, al */
    0xf0, 0xff,    0x06, 0x00, 0x30, /* lock inc word [0x3000] */
    0xf4                             /* hlt */
};
static const unsigned char handler[] = {0xe6, WOKEN}; /* out 0x12, al */

typedef struct processor {
  pthread_t thread;
  hv_vcpuid_t vcpu;
  uint64_t began; /* the base of its code */
  uint64_t woke;  /* at its handler */
} processor;

static pthread_barrier_t made;

static void check(hv_return_t result, const char *what) {
  if (result != HV_SUCCESS) {
    fprintf(stderr, "processors: %s: 0x%08x\n", what, (unsigned)result);
    exit(1);
  }
}

static uint64_t read_field(hv_vcpuid_t vcpu, uint32_t field) {
  uint64_t value;
  check(hv_vmx_vcpu_read_vmcs(vcpu, field, &value), "read_vmcs");
  return value;
}

/* Runs up to a port write, and goes on behind it; where the instruction was. INIT and SIPI may be
 * exits too (hv_vcpu_exit_info): they have been done. */
static uint64_t run_to(hv_vcpuid_t vcpu, unsigned port) {
  hv_vm_exitinfo_t info;
  do {
    check(hv_vcpu_run_until(vcpu, HV_DEADLINE_FOREVER), "run_until");
    check(hv_vcpu_exit_info(vcpu, &info), "exit_info");
  } while (info != HV_VM_EXITINFO_VMX || read_field(vcpu, VMCS_RO_EXIT_REASON) == VMX_REASON_IRQ);
  uint64_t rip;
  check(hv_vcpu_read_register(vcpu, HV_X86_RIP, &rip), "read_register");
  if (read_field(vcpu, VMCS_RO_EXIT_REASON) != VMX_REASON_IO ||
      read_field(vcpu, VMCS_RO_EXIT_QUALIFIC) >> 16 != port) {
    fprintf(stderr, "processors: vCPU %u left at rip 0x%llx\n", vcpu, (unsigned long long)rip);
    exit(1);
  }
  uint64_t length = read_field(vcpu, VMCS_RO_VMEXIT_INSTR_LEN);
  check(hv_vcpu_write_register(vcpu, HV_X86_RIP, rip + length), "write_register");
  return read_field(vcpu, VMCS_GUEST_CS_BASE) + rip;
}

static void *run_other(void *argument) {
  processor *p = argument;
  hv_apic_state_ext_t apic = {.version = HV_APIC_STATE_EXT_VER};
  check(hv_vcpu_create(&p->vcpu, HV_VCPU_DEFAULT), "hv_vcpu_create");
  check(hv_vcpu_apic_get_state(p->vcpu, &apic), "apic_get_state");
  apic.state.boot_state = HV_BS_INIT; /* else it would run at once */
  check(hv_vcpu_apic_put_state(p->vcpu, &apic), "apic_put_state");
  pthread_barrier_wait(&made);
  p->began = run_to(p->vcpu, STARTED);
  p->woke = run_to(p->vcpu, WOKEN);
  check(hv_vcpu_destroy(p->vcpu), "hv_vcpu_destroy");
  return NULL;
}

/* vCPU 0, the one that an INIT would not make wait. */
static void run_first(hv_vcpuid_t vcpu) {
  check(hv_vmx_vcpu_write_vmcs(vcpu, VMCS_GUEST_CS, 0), "write_vmcs");
  check(hv_vmx_vcpu_write_vmcs(vcpu, VMCS_GUEST_CS_BASE, 0), "write_vmcs");
  check(hv_vmx_vcpu_write_vmcs(vcpu, VMCS_GUEST_DS_BASE, 0xfee00000), "write_vmcs");
  check(hv_vcpu_write_register(vcpu, HV_X86_RIP, FIRST), "write_register");
  pthread_barrier_wait(&made);
  run_to(vcpu, DONE);
  check(hv_vcpu_destroy(vcpu), "hv_vcpu_destroy");
}

int main(void) {
  processor processors[COUNT];
  hv_vcpuid_t vcpu;
  unsigned char *memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANON, -1, 0);
  if (memory == MAP_FAILED) {
    perror("processors: mmap");
    return 1;
  }
  memcpy(memory + FIRST, first, sizeof first);
  memcpy(memory + OTHERS, others, sizeof others);
  memcpy(memory + HANDLER, handler, sizeof handler);
  memcpy(memory + 4 * 2, (uint16_t[]){HANDLER, 0}, 4); /* the vector of NMIs */
  check(hv_vm_create(HV_VM_ACCEL_APIC), "hv_vm_create");
  check(hv_vm_map(memory, 0, MEMORY, HV_MEMORY_READ | HV_MEMORY_WRITE | HV_MEMORY_EXEC),
        "hv_vm_map");

  check(hv_vcpu_create(&vcpu, HV_VCPU_DEFAULT), "hv_vcpu_create");
  pthread_barrier_init(&made, NULL, COUNT + 1);
  for (int i = 0; i < COUNT; i++) {
    pthread_create(&processors[i].thread, NULL, run_other, &processors[i]);
  }
  run_first(vcpu);
  for (int i = 0; i < COUNT; i++) {
    pthread_join(processors[i].thread, NULL);
    printf("processor %d: started at 0x%llx, woken at 0x%llx\n", i + 1,
           (unsigned long long)processors[i].began, (unsigned long long)processors[i].woke);
  }
  pthread_barrier_destroy(&made);
  check(hv_vm_destroy(), "hv_vm_destroy");
  munmap(memory, MEMORY);
  return 0;
}
