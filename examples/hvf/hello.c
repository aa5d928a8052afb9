/* SPDX-License-Identifier: MIT
 * A program in the idiom of Apple's Hypervisor framework: a 16-bit guest reads a name from port
 * 0x60 byte by byte, says hello on port 0x3f8, and halts. Nothing in it is of Linux.
 *   cc hello.c $(pkg-config --cflags --libs Hypervisor) */
#include <Hypervisor/hv.h>
#include <Hypervisor/hv_vmx.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
  MEMORY = 0x10000,
  ENTRY = 0x1000,
  KEYBOARD = 0x60,
  SERIAL = 0x3f8
};

/*        mov si, greeting        read:  in al, 0x60      done:      hlt
 * greet: lodsb                          test al, al      greeting:  "hello, ", 0
 *        test al, al                    jz done
 *        jz read                        mov dx, 0x3f8
 *        mov dx, 0x3f8                  out dx, al
 *        out dx, al                     jmp read
 *        jmp greet */
static const unsigned char code[] = "\xbe\x1b\x10\xac\x84\xc0\x74\x06\xba\xf8\x03\xee\xeb\xf5"
                                    "\xe4\x60\x84\xc0\x74\x06\xba\xf8\x03\xee\xeb\xf4\xf4"
                                    "hello, ";

static void check(hv_return_t result, const char *what) {
  if (result != HV_SUCCESS) {
    fprintf(stderr, "hello: %s: 0x%08x\n", what, (unsigned)result);
    exit(1);
  }
}

static uint64_t read_field(hv_vcpuid_t vcpu, uint32_t field) {
  uint64_t value;
  check(hv_vmx_vcpu_read_vmcs(vcpu, field, &value), "read_vmcs");
  return value;
}

static void write_field(hv_vcpuid_t vcpu, uint32_t field, uint64_t value) {
  check(hv_vmx_vcpu_write_vmcs(vcpu, field, value), "write_vmcs");
}

static uint64_t read_register(hv_vcpuid_t vcpu, hv_x86_reg_t reg) {
  uint64_t value;
  check(hv_vcpu_read_register(vcpu, reg, &value), "read_register");
  return value;
}

/* The controls that are wanted, made to fit what there is. */
static void write_control(hv_vcpuid_t vcpu, uint32_t field, hv_vmx_capability_t capability,
                          uint64_t wanted) {
  uint64_t allowed;
  check(hv_vmx_read_capability(capability, &allowed), "read_capability");
  write_field(vcpu, field, (wanted | (allowed & 0xffffffff)) & (allowed >> 32));
}

static void write_segment(hv_vcpuid_t vcpu, uint32_t index, uint64_t access) {
  write_field(vcpu, VMCS_GUEST_ES + 2 * index, 0);
  write_field(vcpu, VMCS_GUEST_ES_BASE + 2 * index, 0);
  write_field(vcpu, VMCS_GUEST_ES_LIMIT + 2 * index, 0xffff);
  write_field(vcpu, VMCS_GUEST_ES_AR + 2 * index, access);
}

/* Real mode with all segments at 0. In the order of the VMCS: ES, CS, SS, DS, FS, GS, LDTR, TR. */
static void set_up(hv_vcpuid_t vcpu) {
  write_control(vcpu, VMCS_CTRL_PIN_BASED, HV_VMX_CAP_PINBASED, 0);
  write_control(vcpu, VMCS_CTRL_CPU_BASED, HV_VMX_CAP_PROCBASED, CPU_BASED_HLT);
  write_control(vcpu, VMCS_CTRL_CPU_BASED2, HV_VMX_CAP_PROCBASED2, 0);
  write_control(vcpu, VMCS_CTRL_VMENTRY_CONTROLS, HV_VMX_CAP_ENTRY, 0);
  write_field(vcpu, VMCS_CTRL_EXC_BITMAP, 0);
  for (uint32_t i = 0; i < 6; i++) {
    write_segment(vcpu, i, i == 1 ? 0x9b : 0x93);
  }
  write_segment(vcpu, 6, 0x82);
  write_segment(vcpu, 7, 0x8b);
  write_field(vcpu, VMCS_GUEST_CR0, 0x30);
  write_field(vcpu, VMCS_GUEST_CR3, 0);
  write_field(vcpu, VMCS_GUEST_CR4, 0);
  check(hv_vcpu_write_register(vcpu, HV_X86_RIP, ENTRY), "write_register");
  check(hv_vcpu_write_register(vcpu, HV_X86_RFLAGS, 2), "write_register");
  check(hv_vcpu_write_register(vcpu, HV_X86_RSP, 0x8000), "write_register");
}

/* Does the work of an IN or OUT (SDM Vol. 3, table 28-5), and steps over it. */
static void handle_port(hv_vcpuid_t vcpu, const char **keys) {
  uint64_t qualification = read_field(vcpu, VMCS_RO_EXIT_QUALIFIC);
  uint64_t port = qualification >> 16;
  uint64_t rax = read_register(vcpu, HV_X86_RAX);
  if (qualification & 8) {
    unsigned char key = port == KEYBOARD ? (unsigned char)*(*keys)++ : 0xff;
    check(hv_vcpu_write_register(vcpu, HV_X86_RAX, (rax & ~0xffull) | key), "write_register");
  } else if (port == SERIAL) {
    putchar((int)(rax & 0xff));
  }
  uint64_t rip = read_register(vcpu, HV_X86_RIP);
  uint64_t next = rip + read_field(vcpu, VMCS_RO_VMEXIT_INSTR_LEN);
  check(hv_vcpu_write_register(vcpu, HV_X86_RIP, next), "write_register");
}

static int run(hv_vcpuid_t vcpu, const char *keys) {
  for (int exits = 1;; exits++) {
    check(hv_vcpu_run_until(vcpu, HV_DEADLINE_FOREVER), "run_until");
    uint64_t reason = read_field(vcpu, VMCS_RO_EXIT_REASON);
    switch (reason & 0xffff) {
      case VMX_REASON_HLT:
        return exits;
      case VMX_REASON_IO:
        handle_port(vcpu, &keys);
        break;
      case VMX_REASON_IRQ:
        break;
      default:
        fprintf(stderr, "hello: exit 0x%llx at rip 0x%llx\n", (unsigned long long)reason,
                (unsigned long long)read_register(vcpu, HV_X86_RIP));
        exit(1);
    }
  }
}

int main(int argc, char **argv) {
  hv_vcpuid_t vcpu;
  unsigned char *memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
  if (memory == MAP_FAILED) {
    perror("hello: mmap");
    return 1;
  }
  memcpy(memory + ENTRY, code, sizeof code);

  check(hv_vm_create(HV_VM_DEFAULT), "hv_vm_create");
  check(hv_vm_map(memory, 0, MEMORY, HV_MEMORY_READ | HV_MEMORY_WRITE | HV_MEMORY_EXEC),
        "hv_vm_map");
  check(hv_vcpu_create(&vcpu, HV_VCPU_DEFAULT), "hv_vcpu_create");
  set_up(vcpu);
  int exits = run(vcpu, argc > 1 ? argv[1] : "framework\n");
  printf("%d exits, halted at rip 0x%llx\n", exits,
         (unsigned long long)read_register(vcpu, HV_X86_RIP));

  check(hv_vcpu_destroy(vcpu), "hv_vcpu_destroy");
  check(hv_vm_unmap(0, MEMORY), "hv_vm_unmap");
  check(hv_vm_destroy(), "hv_vm_destroy");
  munmap(memory, MEMORY);
  return 0;
}
