/* SPDX-License-Identifier: MIT
 * The shadow VMCS of the Hypervisor framework, on the software CPU: what the program and its guest,
 * which is a hypervisor, have of each other's fields. */
#include "fixture/hvf_long.h"

enum {
  VMXE = 0x2000,
  VMWRITE_ALL = 1 << 29, /* of IA32_VMX_MISC */
  READ = HV_SHADOW_VMCS_READ,
  WRITE = HV_SHADOW_VMCS_WRITE
};

static const uint32_t shared[] = {VMCS_GUEST_ES, VMCS_RO_EXIT_QUALIFIC, VMCS_RO_IO_RCX};

static uint64_t shadow(uint32_t number) {
  uint64_t value = ~UINT64_C(0);
  HV(hv_vmx_vcpu_read_shadow_vmcs(vcpu, number, &value));
  return value;
}

static void set_shadow(uint32_t number, uint64_t value) {
  HV(hv_vmx_vcpu_write_shadow_vmcs(vcpu, number, value));
}

static void allow(uint32_t number, hv_shadow_flags_t flags) {
  HV(hv_vmx_vcpu_set_shadow_access(vcpu, number, flags));
}

/* In long mode, with the control. */
static void begin_shadowing(const void *code, size_t size) {
  begin_long(code, size);
  set_field(VMCS_GUEST_CR4, VMXE | 0x20);
  set_field(VMCS_CTRL_CPU_BASED2, field(VMCS_CTRL_CPU_BASED2) | CPU_BASED2_VMCS_SHADOW);
}

#define BEGIN_SHADOWING(...)                                                                       \
  begin_shadowing((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void capabilities_have_it(void) {
  uint64_t value, must, may;
  HV(hv_vmx_read_capability(HV_VMX_CAP_PROCBASED2, &value));
  CHECK_EQ(value >> 32 & CPU_BASED2_VMCS_SHADOW, CPU_BASED2_VMCS_SHADOW);
  CHECK_EQ(value & CPU_BASED2_VMCS_SHADOW, 0);
  HV(hv_vmx_read_capability(HV_VMX_CAP_MISC, &value));
  CHECK_EQ(value & VMWRITE_ALL, VMWRITE_ALL);
  BEGIN_SHADOWING(0xf4);
  HV(hv_vmx_vcpu_get_cap_write_vmcs(vcpu, VMCS_CTRL_CPU_BASED2, &must, &may));
  CHECK_EQ(may & CPU_BASED2_VMCS_SHADOW, CPU_BASED2_VMCS_SHADOW);
  CHECK_EQ(field(VMCS_CTRL_CPU_BASED2) & CPU_BASED2_VMCS_SHADOW, CPU_BASED2_VMCS_SHADOW);
  end();
}

/* Fields that tell of exits too, which a write of the program's own VMCS does not take. */
static void guest_and_program_share_fields(void) {
  /* again: vmread rax, rsi; vmwrite rsi, rdi; vmcall; jmp again */
  BEGIN_SHADOWING(0x0f, 0x78, 0xf0, 0x0f, 0x79, 0xf7, 0x0f, 0x01, 0xc1, 0xeb, 0xf5);
  for (size_t i = 0; i < sizeof shared / sizeof *shared; i++) {
    test_note("field 0x%x", shared[i]);
    allow(shared[i], READ | WRITE);
    set_shadow(shared[i], 0x1234 + i);
    set(HV_X86_RSI, shared[i]);
    set(HV_X86_RDI, 0x9191 + i);
    CHECK_EQ(run(), VMX_REASON_VMCALL);
    CHECK_EQ(get(HV_X86_RAX), 0x1234 + i);
    CHECK_EQ(shadow(shared[i]), 0x9191 + i);
    skip();
  }
  for (size_t i = 0; i < sizeof shared / sizeof *shared; i++) {
    CHECK_EQ(shadow(shared[i]), 0x9191 + i);
  }
  end();
}

/* The vCPU has its own: neither is the other's. */
static void the_program_keeps_its_own_vmcs(void) {
  uint64_t value;
  BEGIN_SHADOWING(0x0f, 0x79, 0xf7, 0xf4); /* vmwrite rsi, rdi; hlt */
  set_field(VMCS_GUEST_ES, 0x20);
  allow(VMCS_GUEST_ES, READ | WRITE);
  CHECK_EQ(shadow(VMCS_GUEST_ES), 0);
  set(HV_X86_RSI, VMCS_GUEST_ES);
  set(HV_X86_RDI, 0x30);
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(shadow(VMCS_GUEST_ES), 0x30);
  CHECK_EQ(field(VMCS_GUEST_ES), 0x20);
  set_shadow(VMCS_RO_EXIT_REASON, 0x99);
  CHECK_EQ(field(VMCS_RO_EXIT_REASON), VMX_REASON_HLT);
  HV_IS(hv_vmx_vcpu_write_vmcs(vcpu, VMCS_RO_EXIT_REASON, 0), HV_DENIED);
  allow(VMCS_CTRL_EPTP, READ | WRITE);
  set_shadow(VMCS_CTRL_EPTP, 0x1234501e);
  CHECK_EQ(shadow(VMCS_CTRL_EPTP), 0x1234501e);
  HV_IS(hv_vmx_vcpu_read_vmcs(vcpu, VMCS_CTRL_EPTP, &value), HV_BAD_ARGUMENT);
  HV_IS(hv_vmx_vcpu_read_vmcs(vcpu, VMCS_CTRL_VMREAD_BITMAP_ADDR, &value), HV_UNSUPPORTED);
  CHECK(strstr(hv_ext_error_message(), "hv_vmx_vcpu_set_shadow_access"));
  end();
}

static void what_is_not_shared_exits(void) {
  BEGIN_SHADOWING(0x0f, 0x78, 0xf0, 0x0f, 0x79, 0xf7, 0xf4); /* vmread rax, rsi; vmwrite rsi, rdi */
  set(HV_X86_RSI, VMCS_GUEST_ES);
  allow(VMCS_GUEST_CS, READ | WRITE);
  CHECK_EQ(run(), VMX_REASON_VMREAD);
  CHECK_EQ(field(VMCS_RO_VMX_INSTR_INFO), 1 << 10 | 6 << 28);
  CHECK_EQ(field(VMCS_RO_VMEXIT_INSTR_LEN), 3);
  allow(VMCS_GUEST_ES, READ);
  set_shadow(VMCS_GUEST_ES, 0x77);
  CHECK_EQ(run(), VMX_REASON_VMWRITE);
  CHECK_EQ(get(HV_X86_RAX), 0x77);
  allow(VMCS_GUEST_ES, HV_SHADOW_VMCS_NONE);
  set(HV_X86_RIP, LINEAR);
  CHECK_EQ(run(), VMX_REASON_VMREAD);
  allow(VMCS_GUEST_ES, READ | WRITE);
  set_field(VMCS_CTRL_CPU_BASED2, field(VMCS_CTRL_CPU_BASED2) & ~(uint64_t)CPU_BASED2_VMCS_SHADOW);
  CHECK_EQ(run(), VMX_REASON_VMREAD);
  set_field(VMCS_CTRL_CPU_BASED2, field(VMCS_CTRL_CPU_BASED2) | CPU_BASED2_VMCS_SHADOW);
  CHECK_EQ(run(), VMX_REASON_HLT);
  end();
}

/* An operand in memory that is not there: the exit comes first, and nothing of it is done. */
static void an_operand_can_be_a_violation(void) {
  /* vmread [rdi], rsi; vmwrite rsi, [rbx]; hlt */
  BEGIN_SHADOWING(0x0f, 0x78, 0x37, 0x0f, 0x79, 0x33, 0xf4);
  allow(VMCS_GUEST_RIP, READ | WRITE);
  set_shadow(VMCS_GUEST_RIP, UINT64_C(0x1122334455667788));
  set(HV_X86_RSI, VMCS_GUEST_RIP);
  set(HV_X86_RDI, 0x4010);
  set(HV_X86_RBX, 0x14018);
  HV(hv_vm_protect(0x4000, 0x1000, HV_MEMORY_READ));
  CHECK_EQ(run(), VMX_REASON_EPT_VIOLATION);
  CHECK_EQ(field(VMCS_GUEST_PHYSICAL_ADDRESS), 0x4010);
  CHECK_EQ(field(VMCS_RO_VMEXIT_INSTR_LEN), 3);
  CHECK_EQ(get(HV_X86_RIP), LINEAR);
  CHECK_EQ(ram[0x4010], 0);
  HV(hv_vm_protect(0x4000, 0x1000, RWX));
  CHECK_EQ(run(), VMX_REASON_EPT_VIOLATION);
  CHECK_EQ(field(VMCS_GUEST_PHYSICAL_ADDRESS), 0x14018);
  CHECK_EQ(get(HV_X86_RIP), LINEAR + 3);
  CHECK_EQ(memcmp(ram + 0x4010, "\x88\x77\x66\x55\x44\x33\x22\x11", 8), 0);
  CHECK_EQ(shadow(VMCS_GUEST_RIP), UINT64_C(0x1122334455667788));
  page[0x18] = 0x55;
  HV(hv_vm_map(page, 0x14000, sizeof page, RWX));
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(shadow(VMCS_GUEST_RIP), 0x55);
  end();
}

/* Every field that Intel has, with the width that its number says; no others. */
static void fields_are_those_of_the_vmcs(void) {
  static const uint32_t none[] = {0x0801, 0x0c0e, 0x1000, 0x4829, 0x6c21, 0x7000, UINT32_MAX};
  static const struct {
    uint32_t number;
    uint64_t widest;
  } all[] = {{VMCS_VPID, UINT16_MAX},
             {VMCS_HOST_TR, UINT16_MAX},
             {VMCS_CTRL_VMREAD_BITMAP_ADDR, UINT64_MAX},
             {VMCS_GUEST_LINK_POINTER, UINT64_MAX},
             {VMCS_GUEST_LINK_POINTER + 1, UINT32_MAX},
             {VMCS_HOST_IA32_EFER, UINT64_MAX},
             {VMCS_RO_INSTR_ERROR, UINT32_MAX},
             {VMCS_CTRL_PIN_BASED, UINT32_MAX},
             {VMCS_RO_GUEST_LIN_ADDR, UINT64_MAX},
             {VMCS_HOST_RIP, UINT64_MAX}};
  uint64_t value;
  BEGIN(0xf4);
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    test_note("field 0x%x", all[i].number);
    set_shadow(all[i].number, all[i].widest);
    CHECK_EQ(shadow(all[i].number), all[i].widest);
    allow(all[i].number, READ);
    set_shadow(all[i].number, UINT64_MAX - 4); /* as of VMWRITE, what is above is ignored */
    CHECK_EQ(shadow(all[i].number), all[i].widest - 4);
  }
  for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
    test_note("field 0x%x", none[i]);
    HV_IS(hv_vmx_vcpu_read_shadow_vmcs(vcpu, none[i], &value), HV_BAD_ARGUMENT);
    HV_IS(hv_vmx_vcpu_write_shadow_vmcs(vcpu, none[i], 0), HV_BAD_ARGUMENT);
    HV_IS(hv_vmx_vcpu_set_shadow_access(vcpu, none[i], READ), HV_BAD_ARGUMENT);
  }
  HV_IS(hv_vmx_vcpu_set_shadow_access(vcpu, VMCS_GUEST_ES, 4), HV_BAD_ARGUMENT);
  HV_IS(hv_vmx_vcpu_read_shadow_vmcs(vcpu, VMCS_GUEST_ES, NULL), HV_BAD_ARGUMENT);
  end();
}

static void another_vcpu_has_another(void) {
  BEGIN(0xf4);
  set_shadow(VMCS_GUEST_RSP, 0x1234);
  HV(hv_vcpu_destroy(vcpu));
  HV(hv_vcpu_create(&vcpu, HV_VCPU_DEFAULT));
  CHECK_EQ(shadow(VMCS_GUEST_RSP), 0);
  end();
}

int main(void) {
  setenv("LUNA_ACCEL", "soft", 1);
  RUN_KVM(capabilities_have_it);
  RUN_KVM(guest_and_program_share_fields);
  RUN_KVM(the_program_keeps_its_own_vmcs);
  RUN_KVM(what_is_not_shared_exits);
  RUN_KVM(an_operand_can_be_a_violation);
  RUN_KVM(fields_are_those_of_the_vmcs);
  RUN_KVM(another_vcpu_has_another);
  return test_end();
}
