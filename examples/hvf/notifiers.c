/* SPDX-License-Identifier: MIT
 * Port writes that tell another thread instead of exiting. On Linux, the descriptor of an eventfd
 * stands for the Mach port: it becomes readable and counts the writes, and carries no message.
 *   cc notifiers.c -pthread $(pkg-config --cflags --libs Hypervisor) */
#include <Hypervisor/hv.h>
#include <Hypervisor/hv_vmx.h>

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
  MEMORY = 0x10000,
  ENTRY = 0x1000,
  COMMAND = 0x10,
  DOORBELL = 0x20
};

/* mov al, 1;  out 0x10, al;  inc ax;  out 0x10, al;  inc ax;  out 0x10, al;
 * out 0x20, ax;  out 0x20, al;  out 0x21, al;  hlt */
static const unsigned char code[] = {0xb0, 0x01, 0xe6, 0x10, 0x40, 0xe6, 0x10, 0x40, 0xe6,
                                     0x10, 0xe7, 0x20, 0xe6, 0x20, 0xe6, 0x21, 0xf4};

static void check(hv_return_t result, const char *what) {
  if (result != HV_SUCCESS) {
    fprintf(stderr, "notifiers: %s: 0x%08x\n", what, (unsigned)result);
    exit(1);
  }
}

static uint64_t read_field(hv_vcpuid_t vcpu, uint32_t field) {
  uint64_t value;
  check(hv_vmx_vcpu_read_vmcs(vcpu, field, &value), "read_vmcs");
  return value;
}

/* A descriptor, and how often it was told. */
typedef struct bell {
  int fd;
  uint64_t rung;
} bell;

/* The other thread, which waits until the bell has rung twice. */
static void *serve(void *argument) {
  bell *doorbell = argument;
  struct pollfd ready = {.fd = doorbell->fd, .events = POLLIN};
  while (doorbell->rung < 2 && poll(&ready, 1, 10000) > 0) {
    uint64_t count;
    if (read(doorbell->fd, &count, sizeof count) == (ssize_t)sizeof count) {
      doorbell->rung += count;
    }
  }
  return NULL;
}

/* Writes that nobody waits for exit as ever; how many did. */
static int run(hv_vcpuid_t vcpu) {
  for (int exits = 0;; exits++) {
    check(hv_vcpu_run_until(vcpu, HV_DEADLINE_FOREVER), "run_until");
    uint64_t reason = read_field(vcpu, VMCS_RO_EXIT_REASON);
    if (reason == VMX_REASON_HLT) {
      return exits;
    }
    if (reason != VMX_REASON_IO) {
      fprintf(stderr, "notifiers: exit 0x%llx\n", (unsigned long long)reason);
      exit(1);
    }
    printf("exit: port 0x%x\n", (unsigned)(read_field(vcpu, VMCS_RO_EXIT_QUALIFIC) >> 16));
    uint64_t next = read_field(vcpu, VMCS_GUEST_RIP) + read_field(vcpu, VMCS_RO_VMEXIT_INSTR_LEN);
    check(hv_vmx_vcpu_write_vmcs(vcpu, VMCS_GUEST_RIP, next), "write_vmcs");
  }
}

int main(void) {
  hv_vcpuid_t vcpu;
  pthread_t server;
  int command = eventfd(0, EFD_NONBLOCK);
  bell doorbell = {.fd = eventfd(0, 0)};
  unsigned char *memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
  if (memory == MAP_FAILED || command < 0 || doorbell.fd < 0) {
    perror("notifiers");
    return 1;
  }
  memcpy(memory + ENTRY, code, sizeof code);

  check(hv_vm_create(HV_VM_DEFAULT), "hv_vm_create");
  check(hv_vm_map(memory, 0, MEMORY, HV_MEMORY_READ | HV_MEMORY_WRITE | HV_MEMORY_EXEC),
        "hv_vm_map");
  check(hv_vm_add_pio_notifier(COMMAND, 1, 2, (mach_port_t)command, HV_ION_NONE), "add: 2");
  check(hv_vm_add_pio_notifier(DOORBELL, 0, 0, (mach_port_t)doorbell.fd,
                               HV_ION_ANY_VALUE | HV_ION_ANY_SIZE),
        "add: any");
  check(hv_vcpu_create(&vcpu, HV_VCPU_DEFAULT), "hv_vcpu_create");
  check(hv_vmx_vcpu_write_vmcs(vcpu, VMCS_GUEST_CS, 0), "write_vmcs"); /* real mode, as at RESET */
  check(hv_vmx_vcpu_write_vmcs(vcpu, VMCS_GUEST_CS_BASE, 0), "write_vmcs");
  check(hv_vmx_vcpu_write_vmcs(vcpu, VMCS_GUEST_RIP, ENTRY), "write_vmcs");

  pthread_create(&server, NULL, serve, &doorbell);
  int exits = run(vcpu);
  pthread_join(server, NULL);
  uint64_t commands = 0;
  if (read(command, &commands, sizeof commands) < 0) {
    perror("notifiers: command");
  }
  printf("command 2 was written %u time, the doorbell has rung %u times, %d writes exited\n",
         (unsigned)commands, (unsigned)doorbell.rung, exits);

  check(hv_vcpu_destroy(vcpu), "hv_vcpu_destroy");
  check(hv_vm_destroy(), "hv_vm_destroy");
  close(command);
  close(doorbell.fd);
  munmap(memory, MEMORY);
  return 0;
}
