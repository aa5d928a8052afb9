/* SPDX-License-Identifier: MIT
 * The Hypervisor framework's API against lunavisor.h doing the same in a VM beside it: hvf FIGURE
 * prints ratios. */
#include "common.h"

#include <Hypervisor/Hypervisor.h>

#include "lunavisor.h"

enum {
  PAGE = LUNA_PAGE_SIZE,
  RAM = 0x10000,
  CODE = 0x1000,
  ROUND = 200,
  RWX = LUNA_READ | LUNA_WRITE | LUNA_EXECUTE /* and of the framework: the same bits */
};

static uint8_t ram[RAM] __attribute__((aligned(PAGE)));
static luna_vm *vm;
static luna_buffer *buffer;
static luna_vcpu *vcpu;
static hv_vcpuid_t id;

static void hv(hv_return_t result) {
  if (result != HV_SUCCESS) {
    fprintf(stderr, "hvf: 0x%08x: %s\n", (unsigned)result, hv_ext_error_message());
    exit(2);
  }
}

static void luna(int status) {
  if (status < 0) {
    fprintf(stderr, "hvf: %s\n", luna_error_message());
    exit(2);
  }
}

static void open_vms(void) {
  const luna_buffer_options options = {.kind = LUNA_BUFFER_POINTER, .size = RAM, .pointer = ram};
  hv(hv_vm_create(HV_VM_DEFAULT));
  luna(luna_vm_create(&vm));
  luna(luna_buffer_open(&options, &buffer));
}

/* ---- map ---- */

static void hv_map(void *context) {
  (void)context;
  for (int i = 0; i < 4; i++) {
    hv(hv_vm_map_space(HV_VM_SPACE_DEFAULT, ram, 0x100000, RAM, RWX));
    hv(hv_vm_unmap_space(HV_VM_SPACE_DEFAULT, 0x100000, RAM));
  }
}

static void luna_map(void *context) {
  (void)context;
  for (int i = 0; i < 4; i++) {
    luna(luna_vm_map_space(vm, 0, buffer, 0, 0x100000, RAM, RWX));
    luna(luna_vm_unmap_space(vm, 0, 0x100000, RAM));
  }
}

static void print_map(uint32_t number) {
  (void)number;
  open_vms();
  print_ratios(hv_map, luna_map, NULL, 80);
}

/* ---- halt, out, in: a 16-bit guest that does it for ever ---- */

static void open_guests(const void *code, size_t size) {
  const luna_vcpu_options options = {.mode = LUNA_MODE_REAL, .rip = CODE};
  open_vms();
  memcpy(ram + CODE, code, size);
  luna(luna_vm_map_space(vm, 0, buffer, 0, 0, RAM, RWX));
  luna(luna_vcpu_create(vm, &options, &vcpu));
  hv(hv_vm_map(ram, 0, RAM, RWX));
  hv(hv_vcpu_create(&id, HV_VCPU_DEFAULT));
  hv(hv_vmx_vcpu_write_vmcs(id, VMCS_GUEST_CS, 0));
  hv(hv_vmx_vcpu_write_vmcs(id, VMCS_GUEST_CS_BASE, 0));
  hv(hv_vcpu_write_register(id, HV_X86_RIP, CODE));
}

/* Up to an exit of the guest's: the host's interrupts are among those of hv_vcpu_run. */
static uint64_t run_on(void) {
  uint64_t reason;
  do {
    hv(hv_vcpu_run(id));
    hv(hv_vmx_vcpu_read_vmcs(id, VMCS_RO_EXIT_REASON, &reason));
  } while (reason == VMX_REASON_IRQ);
  return reason;
}

static void expect(uint64_t reason) {
  const uint64_t found = run_on();
  if (found != reason) {
    fprintf(stderr, "hvf: exit %u, not %u\n", (unsigned)found, (unsigned)reason);
    exit(2);
  }
}

static void step_over(void) {
  uint64_t rip, length;
  hv(hv_vcpu_read_register(id, HV_X86_RIP, &rip));
  hv(hv_vmx_vcpu_read_vmcs(id, VMCS_RO_VMEXIT_INSTR_LEN, &length));
  hv(hv_vcpu_write_register(id, HV_X86_RIP, rip + length));
}

static void hv_halt(void *context) {
  (void)context;
  for (int i = 0; i < ROUND; i++) {
    expect(VMX_REASON_HLT);
    step_over();
  }
}

static void luna_halt(void *context) {
  (void)context;
  for (int i = 0; i < ROUND; i++) {
    luna(luna_vcpu_run(vcpu, 0) == LUNA_EXIT_HLT ? LUNA_OK : LUNA_ERROR_STATE);
  }
}

static void print_halt(uint32_t number) {
  static const uint8_t code[] = {0xf4, 0xeb, 0xfd};
  (void)number;
  open_guests(code, sizeof code);
  print_ratios(hv_halt, luna_halt, NULL, 40);
}

static volatile uint64_t sum;

static void hv_port(void *context) {
  (void)context;
  for (int i = 0; i < ROUND; i++) {
    uint64_t qualification, rax;
    expect(VMX_REASON_IO);
    hv(hv_vmx_vcpu_read_vmcs(id, VMCS_RO_EXIT_QUALIFIC, &qualification));
    hv(hv_vcpu_read_register(id, HV_X86_RAX, &rax));
    if (qualification & 8) {
      hv(hv_vcpu_write_register(id, HV_X86_RAX, (rax & ~UINT64_C(0xff)) | 0x5a));
    } else {
      sum += rax & 0xff;
    }
    step_over();
  }
}

static void luna_port(void *context) {
  (void)context;
  for (int i = 0; i < ROUND; i++) {
    luna(luna_vcpu_run(vcpu, 0));
    const luna_exit *e = luna_vcpu_exit(vcpu);
    sum += e->value;
    luna(luna_vcpu_answer(vcpu, 0x5a));
  }
}

/* The registers that the program looks at there, and the segment that its code is found by. */
static void luna_registers(void *context) {
  static const int regs[] = {LUNA_RAX, LUNA_RIP, LUNA_CS_BASE};
  (void)context;
  for (int i = 0; i < ROUND; i++) {
    luna(luna_vcpu_run(vcpu, 0));
    for (size_t r = 0; r < sizeof regs / sizeof *regs; r++) {
      uint64_t value;
      luna(luna_vcpu_get(vcpu, regs[r], &value));
      sum += value;
    }
    luna(luna_vcpu_answer(vcpu, 0x5a));
  }
}

/* The same without decoding: what hv_linux.h has for it. */
static void hv_access(void *context) {
  (void)context;
  for (int i = 0; i < ROUND; i++) {
    hv_ext_access access;
    expect(VMX_REASON_IO);
    hv(hv_ext_vcpu_access(id, &access));
    sum += access.value;
    hv(hv_ext_vcpu_complete(id, 0x5a));
  }
}

/* The run alone, and what it takes to go on. */
static void hv_round(void *context) {
  (void)context;
  for (int i = 0; i < ROUND; i++) {
    run_on();
    hv(hv_ext_vcpu_complete(id, 0x5a));
  }
}

static void luna_round(void *context) {
  (void)context;
  for (int i = 0; i < ROUND; i++) {
    luna(luna_vcpu_run(vcpu, 0));
    luna(luna_vcpu_answer(vcpu, 0x5a));
  }
}

/* A violation of a write: the instruction as an emulator finds it, and stepped over; and the same
 * without. */
static void hv_decoded(void *context) {
  (void)context;
  for (int i = 0; i < ROUND; i++) {
    uint64_t qualification, gpa;
    expect(VMX_REASON_EPT_VIOLATION);
    hv(hv_vmx_vcpu_read_vmcs(id, VMCS_RO_EXIT_QUALIFIC, &qualification));
    hv(hv_vmx_vcpu_read_vmcs(id, VMCS_GUEST_PHYSICAL_ADDRESS, &gpa));
    sum += qualification + gpa;
    step_over();
  }
}

static void hv_undecoded(void *context) {
  (void)context;
  for (int i = 0; i < ROUND; i++) {
    hv_ext_access access;
    expect(VMX_REASON_EPT_VIOLATION);
    hv(hv_ext_vcpu_access(id, &access));
    sum += access.value;
    hv(hv_ext_vcpu_complete(id, 0));
  }
}

static const uint8_t out_code[] = {0xe6, 0x10, 0xeb, 0xfc};
static const uint8_t in_code[] = {0xe4, 0x10, 0xeb, 0xfc};

static void print_out(uint32_t number) {
  (void)number;
  open_guests(out_code, sizeof out_code);
  print_ratios(hv_port, luna_registers, NULL, 40);
}

static void print_in(uint32_t number) {
  (void)number;
  open_guests(in_code, sizeof in_code);
  print_ratios(hv_port, luna_registers, NULL, 40);
}

static void print_access(uint32_t number) {
  (void)number;
  open_guests(in_code, sizeof in_code);
  print_ratios(hv_access, luna_port, NULL, 40);
}

static void print_round(uint32_t number) {
  (void)number;
  open_guests(in_code, sizeof in_code);
  print_ratios(hv_round, luna_round, NULL, 40);
}

static void print_write(uint32_t number) {
  static const uint8_t code[] = {0x66, 0xa3, 0x00, 0x08, 0xeb, 0xfa}; /* mov [0x800], eax; jmp */
  (void)number;
  open_guests(code, sizeof code);
  hv(hv_vmx_vcpu_write_vmcs(id, VMCS_GUEST_DS_BASE, 0x20000));
  print_ratios(hv_decoded, hv_undecoded, NULL, 40);
}

/* An OUT on the software CPU, as a program deals with it: the run, the exit's reason and
 * qualification, the value in RAX, RIP and the instruction's length, and RIP moved on. Nothing is
 * taken off: what the software CPU does for the instruction and for the jump back counts too. */
static void hv_out(void *context) {
  (void)context;
  for (int i = 0; i < ROUND; i++) {
    uint64_t qualification, rax;
    expect(VMX_REASON_IO);
    hv(hv_vmx_vcpu_read_vmcs(id, VMCS_RO_EXIT_QUALIFIC, &qualification));
    hv(hv_vcpu_read_register(id, HV_X86_RAX, &rax));
    sum += qualification + rax;
    step_over();
  }
}

/* In nanoseconds of the process's CPU time. */
static void print_soft(uint32_t number) {
  work *const parts[] = {hv_out, yard};
  double times[MOST_ROUNDS], least[2];
  (void)number;
  setenv("LUNA_ACCEL", "soft", 1);
  open_guests(out_code, sizeof out_code);
  for (int sample = 0; sample < 3; sample++) {
    for (size_t i = 0; i < groups_of(400); i++) {
      least_times(parts, 2, NULL, now, least);
      times[i] = least[0] / slowness_of(least[1]) / ROUND;
    }
    printf("%.6g\n", median(times, groups_of(400)));
  }
}

static const figure figures[] = {
    {"round", print_round}, {"write", print_write}, {"map", print_map},       {"halt", print_halt},
    {"out", print_out},     {"in", print_in},       {"access", print_access}, {"soft", print_soft},
};

int main(int argc, char **argv) {
  return print_figure(argc, argv, figures, sizeof figures / sizeof *figures);
}
