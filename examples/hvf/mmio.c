/* SPDX-License-Identifier: MIT
 * Devices in memory, as emulators for the Hypervisor framework have them: the guest's access to a
 * page without memory is an EPT violation, the program decodes the instruction at RIP, does its
 * work, and goes on behind it. Here the page of a local APIC, and a 16550 UART.
 *   cc mmio.c $(pkg-config --cflags --libs Hypervisor) */
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
  PAGE = 0x1000,
  APIC_VERSION = 0x30,
  APIC_EOI = 0xb0,
  APIC_SPURIOUS = 0xf0,
  UART_DATA = 0,
  UART_LINE_STATUS = 5,
  UART_CAN_SEND = 0x60
};

static const uint64_t apic = 0xfee00000;
static const uint64_t uart = 0xfe000000;

/* mov ebx, 0xfee00000            next: movzx edx, byte [edi + 5]  done: mov dword [ebx + 0xb0], 0
 * mov dword [ebx + 0xf0], 0x1ff        test dl, 0x20                    hlt
 * mov ecx, [ebx + 0x30]                jz next                    text: "hello from a 16550\n"
 * mov edi, 0xfe000000                  mov al, [esi]
 * mov esi, text                        inc esi
 *                                      test al, al
 *                                      jz done
 *                                      mov [edi], al
 *                                      jmp next */
static const unsigned char code[] = "\xbb\x00\x00\xe0\xfe\xc7\x83\xf0\x00\x00\x00\xff\x01\x00\x00"
                                    "\x8b\x4b\x30\xbf\x00\x00\x00\xfe\xbe\x3b\x10\x00\x00\x0f\xb6"
                                    "\x57\x05\xf6\xc2\x20\x74\xf7\x8a\x06\x46\x84\xc0\x74\x04\x88"
                                    "\x07\xeb\xec\xc7\x83\xb0\x00\x00\x00\x00\x00\x00\x00\xf4"
                                    "hello from a 16550\n";

static unsigned char *memory;
static uint32_t spurious;
static unsigned violations;

static void check(hv_return_t result, const char *what) {
  if (result != HV_SUCCESS) {
    fprintf(stderr, "mmio: %s: 0x%08x\n", what, (unsigned)result);
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

/* ---- The devices ---- */

static uint32_t read_device(uint64_t gpa) {
  if (gpa == apic + APIC_VERSION) {
    return 0x50014;
  }
  return gpa == uart + UART_LINE_STATUS ? UART_CAN_SEND : 0;
}

static void write_device(uint64_t gpa, uint32_t value) {
  if (gpa == apic + APIC_SPURIOUS) {
    spurious = value;
  } else if (gpa == uart + UART_DATA) {
    putchar((int)value);
  }
}

/* ---- Instructions ---- */

/* One that moves between memory and a register, or an immediate value to memory. */
typedef struct move {
  bool store;
  bool immediate;
  bool extend; /* MOVZX: the whole register is written */
  unsigned size;
  unsigned reg;
} move;

static bool decode(const unsigned char *at, move *m) {
  memset(m, 0, sizeof *m);
  m->extend = *at == 0x0f;
  at += m->extend;
  m->size = *at & 1 ? 4 : 1;
  m->reg = at[1] >> 3 & 7;
  switch (*at) {
    case 0x88: /* MOV to memory */
    case 0x89:
      m->store = true;
      return !m->extend;
    case 0x8a: /* MOV from memory */
    case 0x8b:
      return !m->extend;
    case 0xb6: /* MOVZX */
      return m->extend;
    case 0xc7: /* MOV of 32 bits */
      m->store = m->immediate = true;
      return !m->extend;
    default:
      return false;
  }
}

/* The general registers as instructions number them; a byte is one of AL, CL, DL and BL. */
static const hv_x86_reg_t registers[] = {HV_X86_RAX, HV_X86_RCX, HV_X86_RDX, HV_X86_RBX,
                                         HV_X86_RSP, HV_X86_RBP, HV_X86_RSI, HV_X86_RDI};

static void load(hv_vcpuid_t vcpu, const move *m, uint32_t value) {
  uint64_t now;
  check(hv_vcpu_read_register(vcpu, registers[m->reg], &now), "read_register");
  if (m->size == 1 && !m->extend) {
    value = ((uint32_t)now & 0xffffff00) | (value & 0xff);
  } else if (m->size == 1) {
    value &= 0xff;
  }
  check(hv_vcpu_write_register(vcpu, registers[m->reg], value), "write_register");
}

static void store(hv_vcpuid_t vcpu, const move *m, uint64_t gpa, const unsigned char *end) {
  uint32_t immediate;
  uint64_t value;
  if (m->immediate) {
    memcpy(&immediate, end - sizeof immediate, sizeof immediate);
    value = immediate;
  } else {
    check(hv_vcpu_read_register(vcpu, registers[m->reg], &value), "read_register");
    value = m->size == 1 ? value & 0xff : (uint32_t)value;
  }
  write_device(gpa, (uint32_t)value);
}

static void handle_violation(hv_vcpuid_t vcpu) {
  uint64_t rip = read_field(vcpu, VMCS_GUEST_RIP);
  uint64_t length = read_field(vcpu, VMCS_RO_VMEXIT_INSTR_LEN);
  uint64_t gpa = read_field(vcpu, VMCS_GUEST_PHYSICAL_ADDRESS);
  bool write = read_field(vcpu, VMCS_RO_EXIT_QUALIFIC) & 2;
  move m;
  if (rip + length > MEMORY || !decode(memory + rip, &m) || m.store != write) {
    fprintf(stderr, "mmio: no instruction for gpa 0x%llx at rip 0x%llx\n", (unsigned long long)gpa,
            (unsigned long long)rip);
    exit(1);
  }
  if (m.store) {
    store(vcpu, &m, gpa, memory + rip + length);
  } else {
    load(vcpu, &m, read_device(gpa));
  }
  write_field(vcpu, VMCS_GUEST_RIP, rip + length);
  violations++;
}

/* ---- The machine ---- */

/* Protected mode without paging, all segments flat, from the state after RESET. */
static void set_up(hv_vcpuid_t vcpu) {
  for (uint32_t i = 0; i < 6; i++) { /* in the order of the VMCS: ES, CS, SS, DS, FS, GS */
    write_field(vcpu, VMCS_GUEST_ES + 2 * i, i == 1 ? 8 : 16);
    write_field(vcpu, VMCS_GUEST_ES_BASE + 2 * i, 0);
    write_field(vcpu, VMCS_GUEST_ES_LIMIT + 2 * i, 0xffffffff);
    write_field(vcpu, VMCS_GUEST_ES_AR + 2 * i, i == 1 ? 0xc09b : 0xc093);
  }
  write_field(vcpu, VMCS_GUEST_CR0, 0x31);
  write_field(vcpu, VMCS_GUEST_CR4, 0x2000);
  write_field(vcpu, VMCS_CTRL_CR4_MASK, 0x2000);
  write_field(vcpu, VMCS_GUEST_RFLAGS, 2);
  write_field(vcpu, VMCS_GUEST_RIP, ENTRY);
}

static void run(hv_vcpuid_t vcpu) {
  for (;;) {
    check(hv_vcpu_run_until(vcpu, HV_DEADLINE_FOREVER), "run_until");
    uint64_t reason = read_field(vcpu, VMCS_RO_EXIT_REASON);
    switch (reason & 0xffff) {
      case VMX_REASON_HLT:
        return;
      case VMX_REASON_EPT_VIOLATION:
        handle_violation(vcpu);
        break;
      case VMX_REASON_IRQ:
        break;
      default:
        fprintf(stderr, "mmio: exit 0x%llx\n", (unsigned long long)reason);
        exit(1);
    }
  }
}

int main(void) {
  hv_vcpuid_t vcpu;
  uint64_t version;
  memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
  if (memory == MAP_FAILED) {
    perror("mmio: mmap");
    return 1;
  }
  memcpy(memory + ENTRY, code, sizeof code);

  check(hv_vm_create(HV_VM_DEFAULT), "hv_vm_create");
  check(hv_vm_map(memory, 0, MEMORY, HV_MEMORY_READ | HV_MEMORY_WRITE | HV_MEMORY_EXEC),
        "hv_vm_map");
  check(hv_vcpu_create(&vcpu, HV_VCPU_DEFAULT), "hv_vcpu_create");
  set_up(vcpu);
  run(vcpu);
  check(hv_vcpu_read_register(vcpu, HV_X86_RCX, &version), "read_register");
  printf("%u violations decoded; APIC version 0x%x, spurious vector 0x%x\n", violations,
         (unsigned)version, (unsigned)spurious);

  check(hv_vcpu_destroy(vcpu), "hv_vcpu_destroy");
  check(hv_vm_destroy(), "hv_vm_destroy");
  munmap(memory, MEMORY);
  return 0;
}
