/* SPDX-License-Identifier: MIT
 * Two guest-physical address spaces and one vCPU, with the Hypervisor framework: the same guest
 * code reads the same address and counts in the same register, and finds other memory there.
 *   cc spaces.c $(pkg-config --cflags --libs Hypervisor) */
#include <Hypervisor/hv.h>
#include <Hypervisor/hv_vm_allocate.h>
#include <Hypervisor/hv_vmx.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  PAGE = 0x1000,
  CODE = 0x1000, /* guest-physical, the same page in both spaces */
  DATA = 0x2000  /* guest-physical, another page in each */
};

/* again: mov al, [0x2000]; inc bl; hlt; jmp again */
static const unsigned char code[] = {0xa0, 0x00, 0x20, 0xfe, 0xc3, 0xf4, 0xeb, 0xf8};

static void check(hv_return_t result, const char *what) {
  if (result != HV_SUCCESS) {
    fprintf(stderr, "spaces: %s: 0x%08x\n", what, (unsigned)result);
    exit(1);
  }
}

static char *allocate(const char *content, size_t size) {
  void *memory;
  check(hv_vm_allocate(&memory, PAGE, HV_ALLOCATE_DEFAULT), "hv_vm_allocate");
  memcpy(memory, content, size);
  return memory;
}

static void map(hv_vm_space_t space, const char *shared, const char *own) {
  const hv_memory_flags_t flags = HV_MEMORY_READ | HV_MEMORY_EXEC;
  check(hv_vm_map_space(space, shared, CODE, PAGE, flags), "hv_vm_map_space");
  check(hv_vm_map_space(space, own, DATA, PAGE, flags), "hv_vm_map_space");
}

/* From the state after RESET, which is real mode: only the code segment is elsewhere. */
static void set_up(hv_vcpuid_t vcpu) {
  check(hv_vmx_vcpu_write_vmcs(vcpu, VMCS_GUEST_CS, 0), "write_vmcs");
  check(hv_vmx_vcpu_write_vmcs(vcpu, VMCS_GUEST_CS_BASE, 0), "write_vmcs");
  check(hv_vcpu_write_register(vcpu, HV_X86_RIP, CODE), "write_register");
  check(hv_vcpu_write_register(vcpu, HV_X86_RBX, 0), "write_register");
}

/* Lets the guest look once, in that space. */
static void look(hv_vcpuid_t vcpu, hv_vm_space_t space) {
  uint64_t reason, rax, rbx, rip;
  check(hv_vcpu_set_space(vcpu, space), "hv_vcpu_set_space");
  check(hv_vcpu_run_until(vcpu, HV_DEADLINE_FOREVER), "hv_vcpu_run_until");
  check(hv_vmx_vcpu_read_vmcs(vcpu, VMCS_RO_EXIT_REASON, &reason), "read_vmcs");
  check(hv_vcpu_read_register(vcpu, HV_X86_RAX, &rax), "read_register");
  check(hv_vcpu_read_register(vcpu, HV_X86_RBX, &rbx), "read_register");
  check(hv_vcpu_read_register(vcpu, HV_X86_RIP, &rip), "read_register");
  printf("space %u: sees '%c', counts %u, exit %u\n", space, (char)rax, (unsigned)rbx & 0xff,
         (unsigned)reason);
  check(hv_vcpu_write_register(vcpu, HV_X86_RIP, rip + 1), "write_register"); /* behind the HLT */
}

int main(void) {
  hv_vm_space_t other;
  hv_vcpuid_t vcpu;

  check(hv_vm_create(HV_VM_DEFAULT), "hv_vm_create");
  check(hv_vm_space_create(&other), "hv_vm_space_create");
  char *shared = allocate((const char *)code, sizeof code);
  char *here = allocate("A", 1);
  char *there = allocate("B", 1);
  map(HV_VM_SPACE_DEFAULT, shared, here);
  map(other, shared, there);

  check(hv_vcpu_create(&vcpu, HV_VCPU_DEFAULT), "hv_vcpu_create");
  set_up(vcpu);
  for (int i = 0; i < 2; i++) {
    look(vcpu, HV_VM_SPACE_DEFAULT);
    look(vcpu, other);
  }

  printf("destroying a space in use: 0x%08x\n", (unsigned)hv_vm_space_destroy(other));
  check(hv_vcpu_set_space(vcpu, HV_VM_SPACE_DEFAULT), "hv_vcpu_set_space");
  check(hv_vm_space_destroy(other), "hv_vm_space_destroy");
  check(hv_vcpu_destroy(vcpu), "hv_vcpu_destroy");
  check(hv_vm_destroy(), "hv_vm_destroy");
  check(hv_vm_deallocate(shared, PAGE), "hv_vm_deallocate");
  check(hv_vm_deallocate(here, PAGE), "hv_vm_deallocate");
  check(hv_vm_deallocate(there, PAGE), "hv_vm_deallocate");
  return 0;
}
