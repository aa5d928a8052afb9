/* SPDX-License-Identifier: MIT
 * A debugger: the monitor trap flag makes an exit behind each instruction of a 16-bit guest, which
 * sees nothing of it. It shows the instruction's bytes, and the registers that it has changed; a
 * watchpoint is a look at memory behind each step. KVM steps by the guest's own trap flag; the
 * software CPU has the real thing.
 *   cc steps.c $(pkg-config --cflags --libs Hypervisor) */
#include <Hypervisor/hv.h>
#include <Hypervisor/hv_vmx.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
  MEMORY = 0x10000,
  ENTRY = 0x1000,
  WATCHED = 0x2000,
  SHOWN = 6, /* registers */
  MOST_BYTES = 5
};

/*        mov cx, 2       again: add ax, cx      mov [0x2000], ax
 *        xor ax, ax             loop again      int 0x40
 *                                               hlt
 * The handler of INT 40h, at 0x1100, is IRET. */
static const unsigned char code[] = "\xb9\x02\x00\x31\xc0\x01\xc8\xe2\xfc\xa3\x00\x20\xcd\x40\xf4";

static const struct {
  const char *name;
  hv_x86_reg_t number;
} shown[SHOWN] = {{"ax", HV_X86_RAX}, {"bx", HV_X86_RBX}, {"cx", HV_X86_RCX},
                  {"dx", HV_X86_RDX}, {"sp", HV_X86_RSP}, {"flags", HV_X86_RFLAGS}};

static unsigned char *memory;

static void check(hv_return_t result, const char *what) {
  if (result != HV_SUCCESS) {
    fprintf(stderr, "steps: %s: 0x%08x\n", what, (unsigned)result);
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

static void write_register(hv_vcpuid_t vcpu, hv_x86_reg_t reg, uint64_t value) {
  check(hv_vcpu_write_register(vcpu, reg, value), "write_register");
}

static void set_up(hv_vcpuid_t vcpu) {
  memcpy(memory + ENTRY, code, sizeof code);
  memcpy(memory + 0x40 * 4, "\x00\x11\x00\x00", 4);
  memory[0x1100] = 0xcf;
  write_field(vcpu, VMCS_GUEST_CS, 0); /* real mode, as at RESET */
  write_field(vcpu, VMCS_GUEST_CS_BASE, 0);
  write_field(vcpu, VMCS_CTRL_CPU_BASED, read_field(vcpu, VMCS_CTRL_CPU_BASED) | CPU_BASED_MTF);
  write_register(vcpu, HV_X86_RIP, ENTRY);
  write_register(vcpu, HV_X86_RSP, 0x8000);
  write_register(vcpu, HV_X86_RFLAGS, 2);
}

/* The bytes from `rip` up to the next instruction, where it goes on behind this one. */
static void show_bytes(uint64_t rip, uint64_t next) {
  uint64_t size = next > rip && next - rip <= MOST_BYTES ? next - rip : 2;
  printf("0x%04x ", (unsigned)rip);
  for (uint64_t i = 0; i < MOST_BYTES; i++) {
    if (i < size) {
      printf(" %02x", memory[rip + i]);
    } else {
      printf("   ");
    }
  }
}

static void show_changes(hv_vcpuid_t vcpu, uint64_t *values) {
  for (int i = 0; i < SHOWN; i++) {
    uint64_t now = read_register(vcpu, shown[i].number) & 0xffff;
    if (now != values[i]) {
      printf("  %s 0x%x -> 0x%x", shown[i].name, (unsigned)values[i], (unsigned)now);
      values[i] = now;
    }
  }
}

/* Whether there is a further instruction. */
static bool step(hv_vcpuid_t vcpu, uint64_t *values) {
  uint64_t rip = read_register(vcpu, HV_X86_RIP);
  unsigned char before = memory[WATCHED];
  check(hv_vcpu_run_until(vcpu, HV_DEADLINE_FOREVER), "run");
  if (read_field(vcpu, VMCS_RO_EXIT_REASON) != VMX_REASON_MTF) {
    return false;
  }
  show_bytes(rip, read_register(vcpu, HV_X86_RIP));
  show_changes(vcpu, values);
  if (memory[WATCHED] != before) {
    printf("  [0x%x] %u -> %u", WATCHED, before, memory[WATCHED]);
  }
  printf("\n");
  return true;
}

int main(void) {
  hv_vcpuid_t vcpu;
  uint64_t values[SHOWN];
  int steps = 0;
  setenv("LUNA_ACCEL", "soft", 1);
  memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
  if (memory == MAP_FAILED) {
    return 1;
  }
  check(hv_vm_create(HV_VM_DEFAULT), "hv_vm_create");
  check(hv_vm_map(memory, 0, MEMORY, HV_MEMORY_READ | HV_MEMORY_WRITE | HV_MEMORY_EXEC), "map");
  check(hv_vcpu_create(&vcpu, HV_VCPU_DEFAULT), "hv_vcpu_create");
  set_up(vcpu);
  for (int i = 0; i < SHOWN; i++) {
    values[i] = read_register(vcpu, shown[i].number) & 0xffff;
  }
  while (step(vcpu, values)) {
    steps++;
  }
  printf("%d steps, then exit %d at 0x%04x\n", steps, (int)read_field(vcpu, VMCS_RO_EXIT_REASON),
         (unsigned)read_register(vcpu, HV_X86_RIP));
  check(hv_vcpu_destroy(vcpu), "hv_vcpu_destroy");
  check(hv_vm_destroy(), "hv_vm_destroy");
  return 0;
}
