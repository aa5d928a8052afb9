/* SPDX-License-Identifier: MIT
 * The numbers of the VMCS's fields: which register, control or exit each is. */
#include "hvf/vmcs/field.h"

#include <Hypervisor/hv_vmx.h>

#include "hvf/vmcs/kept.h"

#include "lunavisor.h"

enum {
  SEGMENT_COUNT = 8,
  WIDTH_BITS = 3 << 13,
  WIDTH_16 = 0 << 13,
  WIDTH_64 = 1 << 13,
  WIDTH_32 = 2 << 13
};

/* In the order of the VMCS: ES, CS, SS, DS, FS, GS, LDTR, TR. Selector, base, limit and access
 * rights of each follow another, as in luna_register. */
static const int segments[SEGMENT_COUNT] = {LUNA_ES_SELECTOR,   LUNA_CS_SELECTOR, LUNA_SS_SELECTOR,
                                            LUNA_DS_SELECTOR,   LUNA_FS_SELECTOR, LUNA_GS_SELECTOR,
                                            LUNA_LDTR_SELECTOR, LUNA_TR_SELECTOR};

enum {
  OF_SELECTOR,
  OF_BASE,
  OF_LIMIT,
  OF_ACCESS
};

/* Whether the field is one of a row of eight, for the segments; then what it is. */
static bool segment_field(uint32_t number, hvf_field *found) {
  static const struct {
    uint32_t first;
    int part;
  } rows[] = {{VMCS_GUEST_ES, OF_SELECTOR},
              {VMCS_GUEST_ES_BASE, OF_BASE},
              {VMCS_GUEST_ES_LIMIT, OF_LIMIT},
              {VMCS_GUEST_ES_AR, OF_ACCESS}};
  for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
    uint32_t index = (number - rows[i].first) / 2;
    if (number >= rows[i].first && index < SEGMENT_COUNT && number % 2 == 0) {
      *found = (hvf_field){.kind = HVF_FIELD_REGISTER, .number = segments[index] + rows[i].part};
      return true;
    }
  }
  return false;
}

static hvf_field register_field(uint32_t number) {
  hvf_field found = {.kind = HVF_FIELD_REGISTER};
  switch (number) {
    case VMCS_GUEST_CR0:
      found.number = LUNA_CR0;
      break;
    case VMCS_GUEST_CR3:
      found.number = LUNA_CR3;
      break;
    case VMCS_GUEST_CR4:
      found.number = LUNA_CR4;
      break;
    case VMCS_GUEST_RSP:
      found.number = LUNA_RSP;
      break;
    case VMCS_GUEST_RIP:
      found.number = LUNA_RIP;
      break;
    case VMCS_GUEST_RFLAGS:
      found.number = LUNA_RFLAGS;
      break;
    case VMCS_GUEST_IA32_EFER:
      found.number = LUNA_EFER;
      break;
    case VMCS_GUEST_GDTR_BASE:
      found.number = LUNA_GDTR_BASE;
      break;
    case VMCS_GUEST_GDTR_LIMIT:
      found.number = LUNA_GDTR_LIMIT;
      break;
    case VMCS_GUEST_IDTR_BASE:
      found.number = LUNA_IDTR_BASE;
      break;
    case VMCS_GUEST_IDTR_LIMIT:
      found.number = LUNA_IDTR_LIMIT;
      break;
    case VMCS_GUEST_DR7:
      found.number = LUNA_DR7;
      break;
    default:
      if (!segment_field(number, &found)) {
        found.kind = HVF_FIELD_NONE;
      }
  }
  return found;
}

static hvf_field kept_field(uint32_t number) {
  int index = hvf_kept_find(number);
  return index < 0
             ? (hvf_field){.kind = HVF_FIELD_NONE}
             : (hvf_field){.kind = HVF_FIELD_KEPT, .number = index, .value = hvf_kept_may(index)};
}

static hvf_field control_field(uint32_t number) {
  switch (number) {
    case VMCS_CTRL_PIN_BASED:
      return (hvf_field){.kind = HVF_FIELD_CONTROL, .number = HV_VMX_CAP_PINBASED};
    case VMCS_CTRL_CPU_BASED:
      return (hvf_field){.kind = HVF_FIELD_CONTROL, .number = HV_VMX_CAP_PROCBASED};
    case VMCS_CTRL_CPU_BASED2:
      return (hvf_field){.kind = HVF_FIELD_CONTROL, .number = HV_VMX_CAP_PROCBASED2};
    case VMCS_CTRL_VMENTRY_CONTROLS:
      return (hvf_field){.kind = HVF_FIELD_CONTROL, .number = HV_VMX_CAP_ENTRY};
    case VMCS_CTRL_VMEXIT_CONTROLS:
      return (hvf_field){.kind = HVF_FIELD_CONTROL, .number = HV_VMX_CAP_EXIT};
    case VMCS_CTRL_CR0_MASK:
      return (hvf_field){.kind = HVF_FIELD_MASK, .number = 0};
    case VMCS_CTRL_CR4_MASK:
      return (hvf_field){.kind = HVF_FIELD_MASK, .number = 1};
    case VMCS_CTRL_CR0_SHADOW:
      return (hvf_field){.kind = HVF_FIELD_SHADOW, .number = 0};
    case VMCS_CTRL_CR4_SHADOW:
      return (hvf_field){.kind = HVF_FIELD_SHADOW, .number = 1};
    case VMCS_CTRL_VMENTRY_IRQ_INFO:
    case VMCS_CTRL_VMENTRY_EXC_ERROR:
    case VMCS_CTRL_VMENTRY_INSTR_LEN:
      return (hvf_field){.kind = HVF_FIELD_EVENT};
    case VMCS_GUEST_LINK_POINTER:
      return (hvf_field){.kind = HVF_FIELD_CONSTANT, .value = UINT64_MAX};
    /* Nothing of the kind is stored or loaded, or waits. */
    case VMCS_CTRL_VMEXIT_MSR_STORE_COUNT:
    case VMCS_CTRL_VMEXIT_MSR_LOAD_COUNT:
    case VMCS_CTRL_VMENTRY_MSR_LOAD_COUNT:
    case VMCS_CTRL_XSS_EXITING_BITMAP:
    case VMCS_GUEST_DEBUG_EXC:
      return (hvf_field){.kind = HVF_FIELD_CONSTANT, .value = 0};
    default:
      return kept_field(number);
  }
}

/* The fields of the guest's state that are neither registers nor controls. */
static hvf_field state_field(uint32_t number) {
  switch (number) {
    case VMCS_GUEST_IA32_SYSENTER_CS:
      return (hvf_field){.kind = HVF_FIELD_MSR, .number = 0x174};
    case VMCS_GUEST_SYSENTER_ESP:
      return (hvf_field){.kind = HVF_FIELD_MSR, .number = 0x175};
    case VMCS_GUEST_SYSENTER_EIP:
      return (hvf_field){.kind = HVF_FIELD_MSR, .number = 0x176};
    case VMCS_GUEST_IA32_DEBUGCTL:
      return (hvf_field){.kind = HVF_FIELD_MSR, .number = 0x1d9};
    case VMCS_GUEST_IA32_PAT:
      return (hvf_field){.kind = HVF_FIELD_MSR, .number = 0x277};
    case VMCS_CTRL_TSC_OFFSET:
    case VMCS_GUEST_INTERRUPTIBILITY:
    case VMCS_GUEST_ACTIVITY_STATE:
      return (hvf_field){.kind = HVF_FIELD_STATE};
    default:
      return (hvf_field){.kind = HVF_FIELD_ABSENT};
  }
}

/* Whether Intel has a field of that number: of each width (16, 64, 32 bits, natural) and type
 * (control, exit, guest, host), up to the last that the framework names. There is no 16-bit exit
 * field. */
static bool named(uint32_t number) {
  static const uint16_t last[4][4] = {
      {VMCS_CTRL_EPTP_INDEX, 0x3fe, VMCS_GUESTPML_INDEX, VMCS_HOST_TR},
      {VMCS_CTRL_ENCLV_EXITING_BITMAP, VMCS_GUEST_PHYSICAL_ADDRESS, VMCS_GUEST_IA32_PKRS,
       VMCS_HOST_IA32_PKRS},
      {VMCS_CTRL_PLE_WINDOW, VMCS_RO_VMX_INSTR_INFO, VMCS_GUEST_VMX_TIMER_VALUE,
       VMCS_HOST_IA32_SYSENTER_CS},
      {VMCS_CTRL_CR3_VALUE3, VMCS_RO_GUEST_LIN_ADDR, VMCS_GUEST_IA32_INTR_SSP_TABLE_ADDR,
       VMCS_HOST_IA32_INTR_SSP_TABLE_ADDR}};
  if (number >= VMCS_MAX || number & 0x1001) {
    return false;
  }
  return number <= last[number >> 13][number >> 10 & 3];
}

static bool is_exit(uint32_t number) {
  return (number & 0xc00) == 0x400;
}

hvf_field hvf_field_find(uint32_t number) {
  if (!named(number)) {
    return (hvf_field){.kind = HVF_FIELD_NONE};
  }
  if (is_exit(number)) {
    return (hvf_field){.kind = HVF_FIELD_EXIT};
  }
  hvf_field found = register_field(number);
  if (found.kind == HVF_FIELD_NONE) {
    found = control_field(number);
  }
  return found.kind == HVF_FIELD_NONE ? state_field(number) : found;
}

bool hvf_field_is_shadowed(uint32_t number) {
  return named((number & WIDTH_BITS) == WIDTH_64 ? number & ~UINT32_C(1) : number);
}

uint64_t hvf_field_widest(uint32_t number) {
  if (number & 1) {
    return UINT32_MAX;
  }
  switch (number & WIDTH_BITS) {
    case WIDTH_16:
      return UINT16_MAX;
    case WIDTH_32:
      return UINT32_MAX;
    default:
      return UINT64_MAX;
  }
}
