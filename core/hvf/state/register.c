/* SPDX-License-Identifier: MIT
 * The framework's numbers of registers. */
#include <Hypervisor/hv.h>

#include "hvf/base/error.h"
#include "hvf/base/owner.h"
#include "hvf/exit/view.h"

enum {
  NOT_HERE = -1
};

/* clang-format off */
static const int8_t numbers[HV_X86_REGISTERS_MAX] = {
    [HV_X86_RIP] = LUNA_RIP, [HV_X86_RFLAGS] = LUNA_RFLAGS,
    [HV_X86_RAX] = LUNA_RAX, [HV_X86_RCX] = LUNA_RCX, [HV_X86_RDX] = LUNA_RDX,
    [HV_X86_RBX] = LUNA_RBX, [HV_X86_RSI] = LUNA_RSI, [HV_X86_RDI] = LUNA_RDI,
    [HV_X86_RSP] = LUNA_RSP, [HV_X86_RBP] = LUNA_RBP,
    [HV_X86_R8] = LUNA_R8, [HV_X86_R9] = LUNA_R9, [HV_X86_R10] = LUNA_R10,
    [HV_X86_R11] = LUNA_R11, [HV_X86_R12] = LUNA_R12, [HV_X86_R13] = LUNA_R13,
    [HV_X86_R14] = LUNA_R14, [HV_X86_R15] = LUNA_R15,
    [HV_X86_CS] = LUNA_CS_SELECTOR, [HV_X86_SS] = LUNA_SS_SELECTOR,
    [HV_X86_DS] = LUNA_DS_SELECTOR, [HV_X86_ES] = LUNA_ES_SELECTOR,
    [HV_X86_FS] = LUNA_FS_SELECTOR, [HV_X86_GS] = LUNA_GS_SELECTOR,
    [HV_X86_IDT_BASE] = LUNA_IDTR_BASE, [HV_X86_IDT_LIMIT] = LUNA_IDTR_LIMIT,
    [HV_X86_GDT_BASE] = LUNA_GDTR_BASE, [HV_X86_GDT_LIMIT] = LUNA_GDTR_LIMIT,
    [HV_X86_LDTR] = LUNA_LDTR_SELECTOR, [HV_X86_LDT_BASE] = LUNA_LDTR_BASE,
    [HV_X86_LDT_LIMIT] = LUNA_LDTR_LIMIT, [HV_X86_LDT_AR] = LUNA_LDTR_ACCESS,
    [HV_X86_TR] = LUNA_TR_SELECTOR, [HV_X86_TSS_BASE] = LUNA_TR_BASE,
    [HV_X86_TSS_LIMIT] = LUNA_TR_LIMIT, [HV_X86_TSS_AR] = LUNA_TR_ACCESS,
    [HV_X86_CR0] = LUNA_CR0, [HV_X86_CR1] = NOT_HERE, [HV_X86_CR2] = LUNA_CR2,
    [HV_X86_CR3] = LUNA_CR3, [HV_X86_CR4] = LUNA_CR4,
    [HV_X86_DR0] = LUNA_DR0, [HV_X86_DR1] = LUNA_DR1, [HV_X86_DR2] = LUNA_DR2,
    [HV_X86_DR3] = LUNA_DR3, [HV_X86_DR4] = LUNA_DR6, [HV_X86_DR5] = LUNA_DR7,
    [HV_X86_DR6] = LUNA_DR6, [HV_X86_DR7] = LUNA_DR7,
    [HV_X86_TPR] = LUNA_CR8, [HV_X86_XCR0] = LUNA_XCR0,
};
/* clang-format on */

static hv_return_t find(hv_vcpuid_t vcpu, hv_x86_reg_t reg, hvf_vcpu **v, int *number) {
  hv_return_t result = hvf_owned(vcpu, v);
  if (result != HV_SUCCESS) {
    return result;
  }
  if ((unsigned)reg >= HV_X86_REGISTERS_MAX) {
    return hvf_fail(HV_BAD_ARGUMENT, "there is no register %u", (unsigned)reg);
  }
  *number = numbers[reg];
  return *number != NOT_HERE
             ? HV_SUCCESS
             : hvf_fail(HV_UNSUPPORTED, "a processor has no register %u", (unsigned)reg);
}

static __attribute__((noinline)) hv_return_t read_further(hv_vcpuid_t vcpu, hv_x86_reg_t reg,
                                                          uint64_t *value) {
  hvf_vcpu *v;
  int number = NOT_HERE;
  hv_return_t result = find(vcpu, reg, &v, &number);
  if (result != HV_SUCCESS) {
    return result;
  }
  if (!value) {
    return hvf_fail(HV_BAD_ARGUMENT, "nowhere to put the value of register %u", (unsigned)reg);
  }
  result = hvf_get(v, number, value);
  if (reg == HV_X86_TPR && result == HV_SUCCESS) {
    *value <<= 4;
  }
  return result;
}

static __attribute__((noinline)) hv_return_t write_further(hv_vcpuid_t vcpu, hv_x86_reg_t reg,
                                                           uint64_t value) {
  hvf_vcpu *v;
  int number = NOT_HERE;
  hv_return_t result = find(vcpu, reg, &v, &number);
  if (result != HV_SUCCESS) {
    return result;
  }
  if (reg == HV_X86_TPR) {
    if (value & 15) {
      return hvf_fail(HV_BAD_ARGUMENT, "the task priority has no bits 0 to 3: it is CR8 << 4");
    }
    value >>= 4;
  }
  return hvf_set(v, number, value);
}

/* ---- The framework's: general registers first, which programs deal with at every exit ---- */

static bool is_general(const hvf_vcpu *v, hv_vcpuid_t vcpu, hv_x86_reg_t reg) {
  return v && v->id == vcpu && (unsigned)reg <= HV_X86_R15;
}

hv_return_t hv_vcpu_read_register(hv_vcpuid_t vcpu, hv_x86_reg_t reg, uint64_t *value) {
  hvf_vcpu *v = hvf_own();
  return is_general(v, vcpu, reg) && value ? hvf_get(v, numbers[reg], value)
                                           : read_further(vcpu, reg, value);
}

hv_return_t hv_vcpu_write_register(hv_vcpuid_t vcpu, hv_x86_reg_t reg, uint64_t value) {
  hvf_vcpu *v = hvf_own();
  return is_general(v, vcpu, reg) ? hvf_set(v, numbers[reg], value)
                                  : write_further(vcpu, reg, value);
}
