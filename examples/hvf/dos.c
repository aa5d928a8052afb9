/* SPDX-License-Identifier: MIT
 * Runs a .com program as DOS does, in a guest that has no DOS: there is no interrupt table, so INT
 * 21h fails, and the exception bitmap makes an exit of the failure that tells which interrupt it
 * was. KVM makes no exits of exceptions; the software CPU does. With the name of a .com file as
 * argument it runs that; it knows few services.
 *   cc dos.c $(pkg-config --cflags --libs Hypervisor) */
#include <Hypervisor/hv.h>
#include <Hypervisor/hv_vmx.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
  MEMORY = 0x100000,
  SEGMENT = 0x1000, /* of the program, whose prefix is before it */
  BASE = SEGMENT << 4,
  PREFIX = 0x100,
  STACK = 0xfffe,
  GENERAL_PROTECTION = 13
};

/*        mov ah, 9          mov cx, 5     again: mov ah, 2       mov ax, 0x4c07
 *        mov dx, text       mov dl, '1'          int 0x21        int 0x21
 *        int 0x21                                inc dl     text: "...$"
 *                                                loop again */
static const unsigned char program[] = "\xb4\x09\xba\x19\x01\xcd\x21\xb9\x05\x00\xb2\x31\xb4\x02"
                                       "\xcd\x21\xfe\xc2\xe2\xf8\xb8\x07\x4c\xcd\x21"
                                       "hello from a .com program\r\n$";

static unsigned char *memory;

static void check(hv_return_t result, const char *what) {
  if (result != HV_SUCCESS) {
    fprintf(stderr, "dos: %s: 0x%08x\n", what, (unsigned)result);
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

/* The program of the file, or the one above. */
static void load(const char *path) {
  FILE *file = path ? fopen(path, "rb") : NULL;
  if (path && !file) {
    perror(path);
    exit(1);
  }
  if (file) {
    size_t size = fread(memory + BASE + PREFIX, 1, STACK - PREFIX, file);
    fclose(file);
    if (size) {
      return;
    }
  }
  memcpy(memory + BASE + PREFIX, program, sizeof program);
}

/* Real mode, all segments at the program's. In the order of the VMCS: ES, CS, SS, DS, FS, GS. */
static void set_up(hv_vcpuid_t vcpu) {
  for (uint32_t i = 0; i < 6; i++) {
    write_field(vcpu, VMCS_GUEST_ES + 2 * i, SEGMENT);
    write_field(vcpu, VMCS_GUEST_ES_BASE + 2 * i, BASE);
  }
  write_field(vcpu, VMCS_CTRL_EXC_BITMAP, 0xffffffff);
  write_field(vcpu, VMCS_GUEST_IDTR_LIMIT, 0);
  write_register(vcpu, HV_X86_RIP, PREFIX);
  write_register(vcpu, HV_X86_RSP, STACK);
  write_register(vcpu, HV_X86_RFLAGS, 0x202);
}

/* The interrupt that has failed; -1 for another exit. */
static int interrupt_of(hv_vcpuid_t vcpu) {
  uint64_t exception = read_field(vcpu, VMCS_RO_VMEXIT_IRQ_INFO);
  uint64_t event = read_field(vcpu, VMCS_RO_IDT_VECTOR_INFO);
  bool failed = read_field(vcpu, VMCS_RO_EXIT_REASON) == VMX_REASON_EXC_NMI &&
                (exception & 0xff) == GENERAL_PROTECTION;
  bool software = event & IRQ_INFO_VALID && (event & IRQ_INFO_TYPE_MASK) == IRQ_INFO_SOFT_IRQ;
  return failed && software ? (int)(event & 0xff) : -1;
}

/* A service of INT 21h; false when the program ends, with *code. */
static bool serve(hv_vcpuid_t vcpu, int *code) {
  uint64_t ax = read_register(vcpu, HV_X86_RAX);
  uint16_t dx = (uint16_t)read_register(vcpu, HV_X86_RDX);
  int c;
  switch (ax >> 8 & 0xff) {
    case 0x01: /* read a character, and show it */
      c = getchar();
      write_register(vcpu, HV_X86_RAX, (ax & ~0xffull) | (c == EOF ? 0x1a : (uint64_t)c));
      return true;
    case 0x02:
      putchar(dx & 0xff);
      return true;
    case 0x09: /* up to '$' */
      for (; memory[BASE + dx] != '$'; dx++) {
        if (memory[BASE + dx] != '\r') {
          putchar(memory[BASE + dx]);
        }
      }
      return true;
    case 0x30: /* the version: 5.0 */
      write_register(vcpu, HV_X86_RAX, (ax & ~0xffffull) | 0x0005);
      return true;
    case 0x4c:
      *code = (int)(ax & 0xff);
      return false;
    default:
      fprintf(stderr, "dos: there is no service 0x%02x\n", (unsigned)(ax >> 8 & 0xff));
      exit(1);
  }
}

static int run(hv_vcpuid_t vcpu, unsigned *calls) {
  for (int code = 0;; ++*calls) {
    check(hv_vcpu_run_until(vcpu, HV_DEADLINE_FOREVER), "run");
    int vector = interrupt_of(vcpu);
    if (vector == 0x20 || (vector == 0x21 && !serve(vcpu, &code))) {
      ++*calls;
      return code;
    }
    if (vector != 0x21) {
      fprintf(stderr, "dos: exit %d at %04x:%04x\n", (int)read_field(vcpu, VMCS_RO_EXIT_REASON),
              SEGMENT, (unsigned)read_register(vcpu, HV_X86_RIP));
      exit(1);
    }
    write_register(vcpu, HV_X86_RIP,
                   read_register(vcpu, HV_X86_RIP) + read_field(vcpu, VMCS_RO_VMEXIT_INSTR_LEN));
  }
}

int main(int argc, char **argv) {
  hv_vcpuid_t vcpu;
  unsigned calls = 0;
  setenv("LUNA_ACCEL", "soft", 1);
  memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
  if (memory == MAP_FAILED) {
    return 1;
  }
  load(argc > 1 ? argv[1] : NULL);
  check(hv_vm_create(HV_VM_DEFAULT), "hv_vm_create");
  check(hv_vm_map(memory, 0, MEMORY, HV_MEMORY_READ | HV_MEMORY_WRITE | HV_MEMORY_EXEC), "map");
  check(hv_vcpu_create(&vcpu, HV_VCPU_DEFAULT), "hv_vcpu_create");
  set_up(vcpu);
  int code = run(vcpu, &calls);
  printf("\nit ended with code %d, after %u calls of DOS\n", code, calls);
  check(hv_vcpu_destroy(vcpu), "hv_vcpu_destroy");
  check(hv_vm_destroy(), "hv_vm_destroy");
  return 0;
}
