/* SPDX-License-Identifier: MIT
 * Guests as the test suite of Apple's framework has them: each mode from set-up code to a last
 * word, memory that comes page by page, registers to and fro, several vCPUs, processes that are
 * killed while their vCPUs run. HLT stands for VMCALL, which KVM keeps to itself. */
#include "fixture/hvf_long.h"

#include <signal.h>
#include <sys/wait.h>

enum {
  ALL = 8, /* vCPUs */
  HIGH_GPA = 0x40000000,
  LARGE = 0x200000
};

/* ---- Modes ---- */

/* 32-bit segments without paging. */
static void go_flat(void) {
  set_field(VMCS_GUEST_CR0, 0x31);
  set_field(VMCS_GUEST_CR4, 0x2000);
  for (uint32_t i = 0; i < 6; i++) { /* ES, CS, SS, DS, FS, GS */
    set_field(VMCS_GUEST_ES + 2 * i, i == 1 ? 8 : 16);
    set_field(VMCS_GUEST_ES_BASE + 2 * i, 0);
    set_field(VMCS_GUEST_ES_LIMIT + 2 * i, 0xffffffff);
    set_field(VMCS_GUEST_ES_AR + 2 * i, i == 1 ? 0xc09b : 0xc093);
  }
}

static void real_mode_speaks(void) {
  BEGIN(0x66, 0xb8, 0x56, 0x34, 0x02, 0x00, 0xf4); /* mov eax, 0x23456; hlt */
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RAX), 0x23456);
  end();
}

/* In memory of its own, far from the rest, that a large page can back. */
static void protected_mode_speaks_from_a_large_page(void) {
  static const uint8_t code[] = {0xb8, 0x56, 0x34, 0x02, 0x00, 0xf4}; /* mov eax, 0x23456; hlt */
  void *memory;
  BEGIN(0xf4);
  HV(hv_vm_allocate(&memory, LARGE, HV_ALLOCATE_DEFAULT));
  memcpy((char *)memory + LARGE - 0x1000, code, sizeof code);
  HV(hv_vm_map(memory, HIGH_GPA, LARGE, RX));
  go_flat();
  set(HV_X86_RIP, HIGH_GPA + LARGE - 0x1000);
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RAX), 0x23456);
  CHECK_EQ(get(HV_X86_RIP), HIGH_GPA + LARGE - 0x1000 + 5);
  end();
  HV(hv_vm_deallocate(memory, LARGE));
}

/*  mov ecx, 0xc0000080        mov ecx, cr0            loop64: mov ecx, 0x4000
 *  rdmsr                      or ecx, 0x80000000      next:   mov ebp, 1
 *  or eax, 0x100              mov cr0, ecx                    dec ecx
 *  wrmsr                      jmp 0x10:loop64                 jnz next
 *  hlt                                                        mov rax, 0x123456789; hlt */
static const uint8_t to_long_mode[] = {
    0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f, 0x32, 0x0d, 0x00, 0x01, 0x00, 0x00, 0x0f, 0x30, 0xf4,
    0x0f, 0x20, 0xc1, 0x81, 0xc9, 0x00, 0x00, 0x00, 0x80, 0x0f, 0x22, 0xc1, 0xea, 0x22, 0x10,
    0x00, 0x00, 0x10, 0x00, 0xb9, 0x00, 0x40, 0x00, 0x00, 0xbd, 0x01, 0x00, 0x00, 0x00, 0xff,
    0xc9, 0x75, 0xf7, 0x48, 0xb8, 0x89, 0x67, 0x45, 0x23, 0x01, 0x00, 0x00, 0x00, 0xf4};

/* The program keeps EFER: the guest's accesses exit, and long mode follows from paging. */
static void a_guest_goes_to_long_mode_and_stays(void) {
  begin_with(to_long_mode, sizeof to_long_mode, HV_VM_DEFAULT);
  write_tables();
  store(0xe010, 0x00af9b000000ffff); /* descriptor 0x10: 64-bit code */
  go_flat();
  set_field(VMCS_GUEST_GDTR_BASE, 0xe000);
  set_field(VMCS_GUEST_GDTR_LIMIT, 0x17);
  set_field(VMCS_GUEST_CR3, 0x9000);
  set_field(VMCS_GUEST_CR4, 0x2020);
  CHECK_EQ(run(), VMX_REASON_RDMSR);
  CHECK_EQ(get(HV_X86_RCX), 0xc0000080);
  set(HV_X86_RAX, field(VMCS_GUEST_IA32_EFER));
  set(HV_X86_RDX, 0);
  skip();
  CHECK_EQ(run(), VMX_REASON_WRMSR);
  CHECK_EQ(get(HV_X86_RDX), 0);
  CHECK_EQ(get(HV_X86_RAX), 0x100);
  set_field(VMCS_GUEST_IA32_EFER, 0x100);
  skip();
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(field(VMCS_CTRL_VMENTRY_CONTROLS) & VMENTRY_GUEST_IA32E, 0);
  skip();
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RAX), 0x123456789);
  CHECK_EQ(field(VMCS_GUEST_IA32_EFER), 0x500);
  CHECK_EQ(field(VMCS_CTRL_VMENTRY_CONTROLS) & VMENTRY_GUEST_IA32E, VMENTRY_GUEST_IA32E);
  CHECK_EQ(field(VMCS_GUEST_CS), 0x10);
  end();
}

/*  mov edi, 0x4000
 *  next: add dword [rdi], 1; add edi, 0x1000; cmp edi, 0x8000; jne next
 *  hlt */
static const uint8_t touch_pages[] = {0xbf, 0x00, 0x40, 0x00, 0x00, 0x83, 0x07, 0x01,
                                      0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, 0x81, 0xff,
                                      0x00, 0x80, 0x00, 0x00, 0x75, 0xef, 0xf4};

/* Pages without rights get those that the qualification asks for. */
static void memory_comes_page_by_page(void) {
  unsigned fetches = 0, reads = 0, writes = 0;
  begin_long(touch_pages, sizeof touch_pages);
  HV(hv_vm_protect(CODE, 0x1000, 0));
  HV(hv_vm_protect(0x4000, 0x4000, 0));
  while (run() == VMX_REASON_EPT_VIOLATION && fetches + reads + writes < 20) {
    uint64_t asked = field(VMCS_RO_EXIT_QUALIFIC);
    uint64_t gpa = field(VMCS_GUEST_PHYSICAL_ADDRESS) & ~UINT64_C(0xfff);
    uint64_t linear = field(VMCS_RO_GUEST_LIN_ADDR) & ~UINT64_C(0xfff);
    CHECK_EQ(asked & 0x180, 0x180); /* the linear address is there, and not of a walk */
    CHECK_EQ(linear, asked & 4 ? LINEAR : gpa);
    fetches += asked & 4 ? 1 : 0;
    writes += asked & 2 ? 1 : 0;
    reads += asked & 7 && !(asked & 6) ? 1 : 0;
    HV(hv_vm_protect(gpa, 0x1000, asked & 4 ? RX : asked & 2 ? RWX : HV_MEMORY_READ));
  }
  CHECK_EQ(field(VMCS_RO_EXIT_REASON), VMX_REASON_HLT);
  CHECK_EQ(fetches, 1);
  CHECK(writes >= 1 && writes <= 4 && reads + writes <= 8 && reads + writes >= 4);
  for (unsigned i = 4; i < 8; i++) {
    CHECK_EQ(ram[i * 0x1000], 1); /* each once */
  }
  end();
}

/* ---- Registers ---- */

/* again: not rax; not rbx; ...; not r15; push rax; hlt; jmp again. RSP is not among them. */
static const uint8_t invert[] = {0x48, 0xf7, 0xd0, 0x48, 0xf7, 0xd3, 0x48, 0xf7, 0xd1, 0x48,
                                 0xf7, 0xd2, 0x48, 0xf7, 0xd6, 0x48, 0xf7, 0xd7, 0x48, 0xf7,
                                 0xd5, 0x49, 0xf7, 0xd0, 0x49, 0xf7, 0xd1, 0x49, 0xf7, 0xd2,
                                 0x49, 0xf7, 0xd3, 0x49, 0xf7, 0xd4, 0x49, 0xf7, 0xd5, 0x49,
                                 0xf7, 0xd6, 0x49, 0xf7, 0xd7, 0x50, 0xf4, 0xeb, 0xcf};

static uint64_t general_value(hv_x86_reg_t reg) {
  return UINT64_C(0x0101010101010101) * (uint64_t)(reg - HV_X86_RAX + 1);
}

static void general_registers_go_to_and_fro(void) {
  begin_long(invert, sizeof invert);
  for (hv_x86_reg_t reg = HV_X86_RAX; reg <= HV_X86_R15; reg++) {
    if (reg != HV_X86_RSP) {
      set(reg, general_value(reg));
    }
  }
  for (unsigned pass = 1; pass <= 2; pass++) {
    uint64_t pushed;
    CHECK_EQ(run(), VMX_REASON_HLT);
    for (hv_x86_reg_t reg = HV_X86_RAX; reg <= HV_X86_R15; reg++) {
      test_note("register %d, pass %u", reg, pass);
      if (reg != HV_X86_RSP) {
        CHECK_EQ(get(reg), pass == 1 ? ~general_value(reg) : general_value(reg));
      }
    }
    CHECK_EQ(get(HV_X86_RSP), 0x8000 - 8 * pass);
    memcpy(&pushed, ram + 0x8000 - 8 * pass, sizeof pushed);
    CHECK_EQ(pushed, get(HV_X86_RAX));
    skip();
  }
  end();
}

/* mov eax, ds; mov ebx, es; mov ecx, fs; mov edx, gs; and null selectors with RPL 1, 2, 3, 1 to
 * them; hlt */
static const uint8_t segments[] = {0x8c, 0xd8, 0x8c, 0xc3, 0x8c, 0xe1, 0x8c, 0xea, 0xbe, 0x01, 0x00,
                                   0x00, 0x00, 0x8e, 0xde, 0xff, 0xc6, 0x8e, 0xc6, 0xff, 0xc6, 0x8e,
                                   0xe6, 0xbe, 0x01, 0x00, 0x00, 0x00, 0x8e, 0xee, 0xf4};

static void segment_registers_go_to_and_fro(void) {
  static const hv_x86_reg_t regs[] = {HV_X86_DS, HV_X86_ES, HV_X86_FS, HV_X86_GS};
  static const hv_x86_reg_t copies[] = {HV_X86_RAX, HV_X86_RBX, HV_X86_RCX, HV_X86_RDX};
  static const unsigned loaded[] = {1, 2, 3, 1};
  begin_long(segments, sizeof segments);
  for (unsigned i = 0; i < 4; i++) {
    set(regs[i], 0x1010 * (i + 1));
  }
  CHECK_EQ(run(), VMX_REASON_HLT);
  for (unsigned i = 0; i < 4; i++) {
    test_note("segment %u", i);
    CHECK_EQ(get(copies[i]) & 0xffff, 0x1010 * (i + 1));
    CHECK_EQ(get(regs[i]), loaded[i]);
  }
  end();
}

/* mov rax, dr0; ...; mov rdi, dr7; not rax; mov dr0, rax; ...; not rdx; mov dr3, rdx; hlt */
static const uint8_t debug[] = {0x0f, 0x21, 0xc0, 0x0f, 0x21, 0xcb, 0x0f, 0x21, 0xd1, 0x0f, 0x21,
                                0xda, 0x0f, 0x21, 0xf6, 0x0f, 0x21, 0xff, 0x48, 0xf7, 0xd0, 0x0f,
                                0x23, 0xc0, 0x48, 0xf7, 0xd3, 0x0f, 0x23, 0xcb, 0x48, 0xf7, 0xd1,
                                0x0f, 0x23, 0xd1, 0x48, 0xf7, 0xd2, 0x0f, 0x23, 0xda, 0xf4};

static void debug_registers_go_to_and_fro(void) {
  static const hv_x86_reg_t copies[] = {HV_X86_RAX, HV_X86_RBX, HV_X86_RCX, HV_X86_RDX};
  begin_long(debug, sizeof debug);
  for (unsigned i = 0; i < 4; i++) {
    set(HV_X86_DR0 + (hv_x86_reg_t)i, UINT64_C(0x111111111111) * (i + 1));
  }
  set(HV_X86_DR6, 0xffff4ff0);
  set(HV_X86_DR7, 0x400);
  CHECK_EQ(run(), VMX_REASON_HLT);
  for (unsigned i = 0; i < 4; i++) {
    test_note("DR%u", i);
    CHECK_EQ(get(copies[i]), ~(UINT64_C(0x111111111111) * (i + 1)));
    CHECK_EQ(get(HV_X86_DR0 + (hv_x86_reg_t)i), ~(UINT64_C(0x111111111111) * (i + 1)));
  }
  CHECK_EQ(get(HV_X86_RSI), 0xffff4ff0);
  CHECK_EQ(get(HV_X86_RDI), 0x400);
  CHECK_EQ(get(HV_X86_DR6), 0xffff4ff0);
  CHECK_EQ(get(HV_X86_DR7), 0x400);
  end();
}

/* next: mov ecx, [rsi]; mov eax, [rsi + 8]; mov edx, [rsi + 12]; wrmsr; add rsi, 16; dec edi;
 * jnz next; hlt */
static const uint8_t write_msrs[] = {0x8b, 0x0e, 0x8b, 0x46, 0x08, 0x8b, 0x56, 0x0c, 0x0f, 0x30,
                                     0x48, 0x83, 0xc6, 0x10, 0xff, 0xcf, 0x75, 0xee, 0xf4};

/* What the guest writes to them is neither an exit nor seen by the host, which goes on. */
static void native_msrs_are_the_guest_s(void) {
  static const struct {
    uint32_t msr;
    uint64_t value;
  } msrs[] = {
      {0xc0000081, 0x123456789abcdef0}, /* STAR, LSTAR, CSTAR, FMASK */
      {0xc0000082, 0x123456789abc},
      {0xc0000083, 0x123456789abc},
      {0xc0000084, 0x47700},
      {0xc0000103, 0x123}, /* TSC_AUX */
      {0x174, 0xffff},     /* SYSENTER_CS, _ESP, _EIP */
      {0x175, 0x123456789abc},
      {0x176, 0x123456789abc},
      {0xc0000100, 0x123456789abc}, /* FS_BASE, GS_BASE, KERNEL_GS_BASE */
      {0xc0000101, 0x123456789abc},
      {0xc0000102, 0x123456789abc},
  };
  const unsigned count = sizeof msrs / sizeof *msrs;
  begin_long(write_msrs, sizeof write_msrs);
  for (unsigned i = 0; i < count; i++) {
    HV(hv_vcpu_enable_native_msr(vcpu, msrs[i].msr, true));
    store(0x4000 + 16 * i, msrs[i].msr);
    store(0x4008 + 16 * i, msrs[i].value);
  }
  set(HV_X86_RSI, 0x4000);
  set(HV_X86_RDI, count);
  CHECK_EQ(run(), VMX_REASON_HLT);
  for (unsigned i = 0; i < count; i++) {
    uint64_t value;
    test_note("MSR 0x%x", msrs[i].msr);
    HV(hv_vcpu_read_msr(vcpu, msrs[i].msr, &value));
    CHECK_EQ(value, msrs[i].value);
  }
  CHECK_EQ(field(VMCS_GUEST_FS_BASE), 0x123456789abc);
  CHECK_EQ(field(VMCS_GUEST_SYSENTER_EIP), 0x123456789abc);
  end();
}

/* ---- Several vCPUs ---- */

/* mov cx, 1000; next: lock inc dword [0x2000]; loop next; hlt */
static const uint8_t count_up[] = {0xb9, 0xe8, 0x03, 0xf0, 0x66, 0xff,
                                   0x06, 0x00, 0x20, 0xe2, 0xf8, 0xf4};

static hv_return_t start_real(hv_vcpuid_t *id) {
  hv_return_t result = hv_vcpu_create(id, HV_VCPU_DEFAULT);
  result = result ? result : hv_vmx_vcpu_write_vmcs(*id, VMCS_GUEST_CS, 0);
  result = result ? result : hv_vmx_vcpu_write_vmcs(*id, VMCS_GUEST_CS_BASE, 0);
  return result ? result : hv_vcpu_write_register(*id, HV_X86_RIP, CODE);
}

/* NULL if the guest came to its HLT. */
static void *count_on_thread(void *id) {
  uint64_t reason = VMX_REASON_IRQ;
  hv_return_t result = start_real(id);
  while (result == HV_SUCCESS && reason == VMX_REASON_IRQ) {
    result = hv_vcpu_run_until(*(hv_vcpuid_t *)id, HV_DEADLINE_FOREVER);
    result =
        result ? result : hv_vmx_vcpu_read_vmcs(*(hv_vcpuid_t *)id, VMCS_RO_EXIT_REASON, &reason);
  }
  hv_return_t destroyed = hv_vcpu_destroy(*(hv_vcpuid_t *)id);
  return result || destroyed || reason != VMX_REASON_HLT ? id : NULL;
}

static void vcpus_share_memory(void) {
  pthread_t threads[ALL];
  hv_vcpuid_t ids[ALL];
  uint32_t count;
  begin_with(count_up, sizeof count_up, HV_VM_DEFAULT);
  for (unsigned i = 0; i < ALL; i++) {
    CHECK_EQ(pthread_create(&threads[i], NULL, count_on_thread, &ids[i]), 0);
  }
  for (unsigned i = 0; i < ALL; i++) {
    void *failed;
    CHECK_EQ(pthread_join(threads[i], &failed), 0);
    CHECK(failed == NULL);
  }
  memcpy(&count, ram + 0x2000, sizeof count);
  CHECK_EQ(count, ALL * 1000);
  end();
}

static int told[2]; /* a pipe */

static void *run_for_ever(void *unused) {
  (void)unused;
  hv_vcpuid_t id;
  hv_return_t result = start_real(&id);
  if (write(told[1], "", 1) != 1 || result != HV_SUCCESS) {
    _exit(1);
  }
  while (hv_vcpu_run_until(id, HV_DEADLINE_FOREVER) == HV_SUCCESS) {
  }
  return NULL;
}

static void be_killed(void) {
  ram[CODE] = 0xeb; /* jmp to itself */
  ram[CODE + 1] = 0xfe;
  if (hv_vm_create(HV_VM_DEFAULT) || hv_vm_map(ram, 0, RAM_SIZE, RWX)) {
    _exit(2);
  }
  for (unsigned i = 0; i < ALL; i++) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, run_for_ever, NULL)) {
      _exit(3);
    }
  }
  for (;;) {
    pause();
  }
}

static void processes_are_killed_while_their_vcpus_run(void) {
  static const int signals[] = {SIGTERM, SIGKILL, SIGTERM};
  for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
    char byte;
    int status;
    CHECK_EQ(pipe(told), 0);
    pid_t child = fork();
    if (child == 0) {
      be_killed();
    }
    for (unsigned vcpus = 0; vcpus < ALL; vcpus++) {
      CHECK_EQ(read(told[0], &byte, 1), 1);
    }
    CHECK_EQ(kill(child, signals[i]), 0);
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFSIGNALED(status));
    close(told[0]);
    close(told[1]);
  }
}

static void mitigations_can_be_asked_for(void) {
  HV(hv_vm_create(HV_VM_SPECIFY_MITIGATIONS | HV_VM_MITIGATION_A_ENABLE |
                  HV_VM_MITIGATION_B_ENABLE | HV_VM_MITIGATION_C_ENABLE |
                  HV_VM_MITIGATION_D_ENABLE | HV_VM_MITIGATION_E_ENABLE));
  HV(hv_vm_destroy());
}

int main(void) {
  RUN_KVM(real_mode_speaks);
  RUN_KVM(protected_mode_speaks_from_a_large_page);
  RUN_KVM(a_guest_goes_to_long_mode_and_stays);
  RUN_KVM(memory_comes_page_by_page);
  RUN_KVM(general_registers_go_to_and_fro);
  RUN_KVM(segment_registers_go_to_and_fro);
  RUN_KVM(debug_registers_go_to_and_fro);
  RUN_KVM(native_msrs_are_the_guest_s);
  RUN_KVM(vcpus_share_memory);
  RUN_KVM(processes_are_killed_while_their_vcpus_run);
  RUN_KVM(mitigations_can_be_asked_for);
  return test_end();
}
