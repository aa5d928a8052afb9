/* SPDX-License-Identifier: MIT
 * Which pages a guest writes, as emulators for the Hypervisor framework log them: memory is mapped
 * without the right to write, the first write to a page is an EPT violation, the page is noted and
 * made writable, and the instruction runs again. For the next round the pages are protected anew.
 *   cc dirty.c $(pkg-config --cflags --libs Hypervisor) */
#include <Hypervisor/hv.h>
#include <Hypervisor/hv_vmx.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
  PAGE = 0x1000,
  PAGES = 16,
  ENTRY = 0x1000,
  WRITE = 2 /* of the qualification of an EPT violation */
};

static const hv_memory_flags_t clean = HV_MEMORY_READ | HV_MEMORY_EXEC;
static const hv_memory_flags_t writable = HV_MEMORY_READ | HV_MEMORY_EXEC | HV_MEMORY_WRITE;

/* mov byte [0x3008], 1      mov di, 0x7ffe      hlt
 * add word [0x5ffe], 2      cld                 inc byte [0x5000]
 * mov cx, 3                 rep stosw           hlt */
static const unsigned char code[] = {0xc6, 0x06, 0x08, 0x30, 0x01, 0x83, 0x06, 0xfe, 0x5f,
                                     0x02, 0xb9, 0x03, 0x00, 0xbf, 0xfe, 0x7f, 0xfc, 0xf3,
                                     0xab, 0xf4, 0xfe, 0x06, 0x00, 0x50, 0xf4};

static bool dirty[PAGES];

static void check(hv_return_t result, const char *what) {
  if (result != HV_SUCCESS) {
    fprintf(stderr, "dirty: %s: 0x%08x\n", what, (unsigned)result);
    exit(1);
  }
}

static uint64_t read_field(hv_vcpuid_t vcpu, uint32_t field) {
  uint64_t value;
  check(hv_vmx_vcpu_read_vmcs(vcpu, field, &value), "read_vmcs");
  return value;
}

static void note_write(hv_vcpuid_t vcpu) {
  uint64_t page = read_field(vcpu, VMCS_GUEST_PHYSICAL_ADDRESS) / PAGE;
  if (!(read_field(vcpu, VMCS_RO_EXIT_QUALIFIC) & WRITE) || page >= PAGES) {
    fprintf(stderr, "dirty: the guest uses page %llu\n", (unsigned long long)page);
    exit(1);
  }
  dirty[page] = true;
  check(hv_vm_protect(page * PAGE, PAGE, writable), "hv_vm_protect");
}

static void run_to_halt(hv_vcpuid_t vcpu) {
  for (;;) {
    check(hv_vcpu_run_until(vcpu, HV_DEADLINE_FOREVER), "run_until");
    uint64_t reason = read_field(vcpu, VMCS_RO_EXIT_REASON);
    switch (reason & 0xffff) {
      case VMX_REASON_HLT: {
        uint64_t next = read_field(vcpu, VMCS_GUEST_RIP);
        next += read_field(vcpu, VMCS_RO_VMEXIT_INSTR_LEN);
        check(hv_vmx_vcpu_write_vmcs(vcpu, VMCS_GUEST_RIP, next), "write_vmcs");
        return;
      }
      case VMX_REASON_EPT_VIOLATION:
        note_write(vcpu);
        break;
      case VMX_REASON_IRQ:
        break;
      default:
        fprintf(stderr, "dirty: exit 0x%llx\n", (unsigned long long)reason);
        exit(1);
    }
  }
}

static void print_round(int number) {
  printf("round %d: pages", number);
  for (int i = 0; i < PAGES; i++) {
    if (dirty[i]) {
      printf(" %d", i);
    }
  }
  printf("\n");
}

int main(void) {
  hv_vcpuid_t vcpu;
  unsigned char *memory =
      mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
  if (memory == MAP_FAILED) {
    perror("dirty: mmap");
    return 1;
  }
  memcpy(memory + ENTRY, code, sizeof code);

  check(hv_vm_create(HV_VM_DEFAULT), "hv_vm_create");
  check(hv_vm_map(memory, 0, PAGES * PAGE, clean), "hv_vm_map");
  check(hv_vcpu_create(&vcpu, HV_VCPU_DEFAULT), "hv_vcpu_create");
  check(hv_vmx_vcpu_write_vmcs(vcpu, VMCS_GUEST_CS, 0), "write_vmcs"); /* real mode, as at RESET */
  check(hv_vmx_vcpu_write_vmcs(vcpu, VMCS_GUEST_CS_BASE, 0), "write_vmcs");
  check(hv_vmx_vcpu_write_vmcs(vcpu, VMCS_GUEST_RIP, ENTRY), "write_vmcs");

  for (int round = 1; round <= 2; round++) {
    run_to_halt(vcpu);
    print_round(round);
    memset(dirty, 0, sizeof dirty);
    check(hv_vm_protect(0, PAGES * PAGE, clean), "hv_vm_protect");
  }
  printf("0x3008: %d, 0x5ffe: %d, 0x5000: %d\n", memory[0x3008], memory[0x5ffe], memory[0x5000]);

  check(hv_vcpu_destroy(vcpu), "hv_vcpu_destroy");
  check(hv_vm_destroy(), "hv_vm_destroy");
  munmap(memory, PAGES * PAGE);
  return 0;
}
