/* SPDX-License-Identifier: MIT
 * The fields of the VMCS: which register, control or exit each is. */
#include <Hypervisor/hv_vmx.h>

#include "hvf/base/error.h"
#include "hvf/base/owner.h"
#include "hvf/base/process.h"
#include "hvf/exit/fields.h"
#include "hvf/exit/view.h"
#include "hvf/vmcs/control.h"
#include "hvf/vmcs/entry.h"

#include <inttypes.h>

typedef enum field_kind {
  FIELD_NONE,     /* no field has that number */
  FIELD_ABSENT,   /* KVM has nothing like it */
  FIELD_EXIT,     /* tells of the exit; read-only */
  FIELD_REGISTER, /* `number` is a luna_register */
  FIELD_CONTROL,  /* `number` is an hv_vmx_capability_t */
  FIELD_CONSTANT, /* always `value`: nothing else can be written */
  FIELD_SHADOW,   /* of CR0 or CR4: free, as no bit is masked */
  FIELD_EVENT,    /* VMCS_CTRL_VMENTRY_* */
  FIELD_MSR,      /* `number` is that of an MSR */
  FIELD_STATE     /* of the vCPU, by a call of its own: state_get, state_set */
} field_kind;

typedef struct vmcs_field {
  field_kind kind;
  int number;
  uint64_t value;
} vmcs_field;

enum {
  SEGMENT_COUNT = 8,
  WIDTH_BITS = 3 << 13,
  WIDTH_16 = 0 << 13,
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
static bool segment_field(uint32_t number, vmcs_field *found) {
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
      *found = (vmcs_field){.kind = FIELD_REGISTER, .number = segments[index] + rows[i].part};
      return true;
    }
  }
  return false;
}

static vmcs_field register_field(uint32_t number) {
  vmcs_field found = {.kind = FIELD_REGISTER};
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
        found.kind = FIELD_NONE;
      }
  }
  return found;
}

static vmcs_field control_field(uint32_t number) {
  switch (number) {
    case VMCS_CTRL_PIN_BASED:
      return (vmcs_field){.kind = FIELD_CONTROL, .number = HV_VMX_CAP_PINBASED};
    case VMCS_CTRL_CPU_BASED:
      return (vmcs_field){.kind = FIELD_CONTROL, .number = HV_VMX_CAP_PROCBASED};
    case VMCS_CTRL_CPU_BASED2:
      return (vmcs_field){.kind = FIELD_CONTROL, .number = HV_VMX_CAP_PROCBASED2};
    case VMCS_CTRL_VMENTRY_CONTROLS:
      return (vmcs_field){.kind = FIELD_CONTROL, .number = HV_VMX_CAP_ENTRY};
    case VMCS_CTRL_VMEXIT_CONTROLS:
      return (vmcs_field){.kind = FIELD_CONTROL, .number = HV_VMX_CAP_EXIT};
    case VMCS_CTRL_CR0_SHADOW:
      return (vmcs_field){.kind = FIELD_SHADOW, .number = 0};
    case VMCS_CTRL_CR4_SHADOW:
      return (vmcs_field){.kind = FIELD_SHADOW, .number = 1};
    case VMCS_CTRL_VMENTRY_IRQ_INFO:
    case VMCS_CTRL_VMENTRY_EXC_ERROR:
    case VMCS_CTRL_VMENTRY_INSTR_LEN:
      return (vmcs_field){.kind = FIELD_EVENT};
    case VMCS_GUEST_LINK_POINTER:
      return (vmcs_field){.kind = FIELD_CONSTANT, .value = UINT64_MAX};
    case VMCS_CTRL_EXC_BITMAP:
    case VMCS_CTRL_PF_ERROR_MASK:
    case VMCS_CTRL_PF_ERROR_MATCH:
    case VMCS_CTRL_CR0_MASK:
    case VMCS_CTRL_CR4_MASK:
    case VMCS_CTRL_CR3_COUNT:
    case VMCS_CTRL_TPR_THRESHOLD:
      return (vmcs_field){.kind = FIELD_CONSTANT, .value = 0};
    default:
      return (vmcs_field){.kind = FIELD_NONE};
  }
}

/* The fields of the guest's state that are neither registers nor controls. */
static vmcs_field state_field(uint32_t number) {
  switch (number) {
    case VMCS_GUEST_IA32_SYSENTER_CS:
      return (vmcs_field){.kind = FIELD_MSR, .number = 0x174};
    case VMCS_GUEST_SYSENTER_ESP:
      return (vmcs_field){.kind = FIELD_MSR, .number = 0x175};
    case VMCS_GUEST_SYSENTER_EIP:
      return (vmcs_field){.kind = FIELD_MSR, .number = 0x176};
    case VMCS_GUEST_IA32_DEBUGCTL:
      return (vmcs_field){.kind = FIELD_MSR, .number = 0x1d9};
    case VMCS_GUEST_IA32_PAT:
      return (vmcs_field){.kind = FIELD_MSR, .number = 0x277};
    case VMCS_CTRL_TSC_OFFSET:
    case VMCS_GUEST_INTERRUPTIBILITY:
    case VMCS_GUEST_ACTIVITY_STATE:
      return (vmcs_field){.kind = FIELD_STATE};
    default:
      return (vmcs_field){.kind = FIELD_ABSENT};
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

static vmcs_field find(uint32_t number) {
  if (!named(number)) {
    return (vmcs_field){.kind = FIELD_NONE};
  }
  if (is_exit(number)) {
    return (vmcs_field){.kind = FIELD_EXIT};
  }
  vmcs_field found = register_field(number);
  if (found.kind == FIELD_NONE) {
    found = control_field(number);
  }
  return found.kind == FIELD_NONE ? state_field(number) : found;
}

static hv_return_t fail_field(uint32_t number, field_kind kind) {
  return kind == FIELD_NONE
             ? hvf_fail(HV_BAD_ARGUMENT, "the VMCS has no field 0x%x", number)
             : hvf_fail(HV_UNSUPPORTED, "KVM has nothing like field 0x%x of the VMCS", number);
}

/* ---- Reading ---- */

static hv_return_t read_exit(hvf_vcpu *v, uint32_t number, uint64_t *value) {
  *value = 0;
  if (v->exit.kind == 0) {
    return HV_SUCCESS;
  }
  switch (number) {
    case VMCS_RO_EXIT_REASON:
      *value = v->exit.reason;
      return HV_SUCCESS;
    case VMCS_RO_EXIT_QUALIFIC:
      return hvf_exit_qualification(v, value);
    case VMCS_RO_VMEXIT_INSTR_LEN:
      return hvf_exit_length(v, value);
    case VMCS_RO_VMX_INSTR_INFO:
      return hvf_exit_instruction(v, value);
    case VMCS_RO_GUEST_LIN_ADDR:
      return hvf_exit_linear(v, value);
    case VMCS_RO_INSTR_ERROR:
      *value = hvf_entry_error(v);
      return HV_SUCCESS;
    case VMCS_GUEST_PHYSICAL_ADDRESS:
      *value = v->exit.reason == VMX_REASON_EPT_VIOLATION ? v->exit.e->address : 0;
      return HV_SUCCESS;
    default: /* events and errors of which KVM makes no exit */
      return HV_SUCCESS;
  }
}

static hv_return_t read_event(const hvf_vcpu *v, uint32_t number, uint64_t *value) {
  switch (number) {
    case VMCS_CTRL_VMENTRY_IRQ_INFO:
      *value = v->entry_event;
      break;
    case VMCS_CTRL_VMENTRY_EXC_ERROR:
      *value = v->entry_error;
      break;
    default:
      *value = v->entry_length;
  }
  return HV_SUCCESS;
}

/* The activity states of the VMCS (SDM Vol. 3, 25.4.2), by luna_mp_state. There is no halted or
 * waiting vCPU without a local APIC in KVM. */
static const uint8_t activities[] = {
    [LUNA_MP_RUNNABLE] = 0,      [LUNA_MP_UNINITIALIZED] = 3, [LUNA_MP_INIT_RECEIVED] = 3,
    [LUNA_MP_SIPI_RECEIVED] = 3, [LUNA_MP_HALTED] = 1,
};

static hv_return_t read_state(hvf_vcpu *v, uint32_t number, uint64_t *value) {
  uint32_t found = 0;
  int64_t offset;
  int status;
  switch (number) {
    case VMCS_CTRL_TSC_OFFSET:
      status = luna_vcpu_get_tsc_offset(v->vcpu, &offset);
      *value = status == LUNA_OK ? (uint64_t)offset : 0;
      return hvf_status(status);
    case VMCS_GUEST_INTERRUPTIBILITY:
      status = luna_vcpu_get_blocking(v->vcpu, &found);
      *value = found;
      return hvf_status(status);
    default:
      status = luna_vcpu_get_mp_state(v->vcpu, &found);
      *value = status == LUNA_OK ? activities[found] : 0;
      return hvf_status(status);
  }
}

static hv_return_t read_field(hvf_vcpu *v, uint32_t number, uint64_t *value) {
  vmcs_field found = find(number);
  switch (found.kind) {
    case FIELD_EXIT:
      return read_exit(v, number, value);
    case FIELD_REGISTER:
      return hvf_get(v, found.number, value);
    case FIELD_CONTROL:
      return hvf_control_get(v, (hv_vmx_capability_t)found.number, value);
    case FIELD_CONSTANT:
      *value = found.value;
      return HV_SUCCESS;
    case FIELD_SHADOW:
      *value = v->shadows[found.number];
      return HV_SUCCESS;
    case FIELD_EVENT:
      return read_event(v, number, value);
    case FIELD_MSR:
      return hvf_status(luna_vcpu_get_msr(v->vcpu, (uint32_t)found.number, value));
    case FIELD_STATE:
      return read_state(v, number, value);
    default:
      return fail_field(number, found.kind);
  }
}

hv_return_t hv_vmx_vcpu_read_vmcs(hv_vcpuid_t vcpu, uint32_t field, uint64_t *value) {
  hvf_vcpu *v;
  hv_return_t result = hvf_owned(vcpu, &v);
  if (result != HV_SUCCESS) {
    return result;
  }
  return value ? read_field(v, field, value)
               : hvf_fail(HV_BAD_ARGUMENT, "nowhere to put field 0x%x", field);
}

/* ---- Writing ---- */

static hv_return_t write_event(hvf_vcpu *v, uint32_t number, uint64_t value) {
  hv_return_t result = HV_SUCCESS;
  switch (number) {
    case VMCS_CTRL_VMENTRY_IRQ_INFO:
      result = hvf_entry_check(value);
      if (result == HV_SUCCESS) {
        v->entry_event = value & IRQ_INFO_VALID ? (uint32_t)value : 0;
      }
      return result;
    case VMCS_CTRL_VMENTRY_EXC_ERROR:
      v->entry_error = (uint32_t)value;
      return result;
    default:
      v->entry_length = (uint32_t)value;
      return result;
  }
}

static hv_return_t write_activity(hvf_vcpu *v, uint64_t value) {
  const bool accelerated = hvf_the_vm.options & HV_VM_ACCEL_APIC;
  switch (value) {
    case 0:
      return hvf_status(luna_vcpu_set_mp_state(v->vcpu, LUNA_MP_RUNNABLE));
    case 1:
    case 3:
      if (accelerated) {
        return hvf_status(
            luna_vcpu_set_mp_state(v->vcpu, value == 1 ? LUNA_MP_HALTED : LUNA_MP_INIT_RECEIVED));
      }
      break;
    default:
      break;
  }
  return hvf_fail(HV_UNSUPPORTED,
                  "KVM has no activity state 0x%" PRIx64 " (halted and waiting: with "
                  "HV_VM_ACCEL_APIC)",
                  value);
}

static hv_return_t write_state(hvf_vcpu *v, uint32_t number, uint64_t value) {
  switch (number) {
    case VMCS_CTRL_TSC_OFFSET:
      return hvf_status(luna_vcpu_set_tsc_offset(v->vcpu, (int64_t)value));
    case VMCS_GUEST_INTERRUPTIBILITY:
      return hvf_status(luna_vcpu_set_blocking(v->vcpu, (uint32_t)value));
    default:
      return write_activity(v, value);
  }
}

static uint64_t widest(uint32_t number) {
  switch (number & WIDTH_BITS) {
    case WIDTH_16:
      return UINT16_MAX;
    case WIDTH_32:
      return UINT32_MAX;
    default:
      return UINT64_MAX;
  }
}

static hv_return_t write_field(hvf_vcpu *v, uint32_t number, uint64_t value) {
  vmcs_field found = find(number);
  if (found.kind != FIELD_NONE && value > widest(number)) {
    return hvf_fail(HV_BAD_ARGUMENT, "field 0x%x cannot hold 0x%" PRIx64, number, value);
  }
  switch (found.kind) {
    case FIELD_EXIT:
      return hvf_fail(HV_DENIED, "field 0x%x of the VMCS is read-only", number);
    case FIELD_REGISTER:
      return hvf_set(v, found.number, value);
    case FIELD_CONTROL:
      return hvf_control_set(v, (hv_vmx_capability_t)found.number, value);
    case FIELD_CONSTANT:
      return value == found.value
                 ? HV_SUCCESS
                 : hvf_fail(HV_UNSUPPORTED,
                            "KVM cannot follow 0x%" PRIx64 " in field 0x%x: only 0x%" PRIx64, value,
                            number, found.value);
    case FIELD_SHADOW:
      v->shadows[found.number] = value;
      return HV_SUCCESS;
    case FIELD_EVENT:
      return write_event(v, number, value);
    case FIELD_MSR:
      return hvf_status(luna_vcpu_set_msr(v->vcpu, (uint32_t)found.number, value));
    case FIELD_STATE:
      return write_state(v, number, value);
    default:
      return fail_field(number, found.kind);
  }
}

hv_return_t hv_vmx_vcpu_write_vmcs(hv_vcpuid_t vcpu, uint32_t field, uint64_t value) {
  hvf_vcpu *v;
  hv_return_t result = hvf_owned(vcpu, &v);
  return result == HV_SUCCESS ? write_field(v, field, value) : result;
}

static hv_return_t allowed(uint32_t number, uint64_t *must, uint64_t *may) {
  vmcs_field found = find(number);
  uint32_t bits[2];
  switch (found.kind) {
    case FIELD_CONTROL:
      hvf_control_bits((hv_vmx_capability_t)found.number, &bits[0], &bits[1]);
      *must = bits[0];
      *may = bits[1];
      return HV_SUCCESS;
    case FIELD_CONSTANT:
      *must = *may = found.value;
      return HV_SUCCESS;
    case FIELD_REGISTER:
    case FIELD_SHADOW:
    case FIELD_EVENT:
    case FIELD_MSR:
    case FIELD_STATE:
      *must = 0;
      *may = widest(number);
      return HV_SUCCESS;
    case FIELD_EXIT:
      return hvf_fail(HV_UNSUPPORTED, "field 0x%x of the VMCS is read-only", number);
    default:
      return fail_field(number, found.kind);
  }
}

hv_return_t hv_vmx_vcpu_get_cap_write_vmcs(hv_vcpuid_t vcpu, uint32_t field, uint64_t *allowed_0,
                                           uint64_t *allowed_1) {
  hvf_vcpu *v;
  hv_return_t result = hvf_owned(vcpu, &v);
  if (result != HV_SUCCESS) {
    return result;
  }
  return allowed_0 && allowed_1
             ? allowed(field, allowed_0, allowed_1)
             : hvf_fail(HV_BAD_ARGUMENT, "nowhere to put what field 0x%x accepts", field);
}

/* ---- Shadow VMCS ---- */

static hv_return_t fail_shadow(hv_vcpuid_t vcpu) {
  hvf_vcpu *v;
  hv_return_t result = hvf_owned(vcpu, &v);
  return result == HV_SUCCESS
             ? hvf_fail(HV_UNSUPPORTED, "KVM keeps the VMCS of a guest's guest to itself")
             : result;
}

hv_return_t hv_vmx_vcpu_read_shadow_vmcs(hv_vcpuid_t vcpu, uint32_t field, uint64_t *value) {
  (void)field;
  (void)value;
  return fail_shadow(vcpu);
}

hv_return_t hv_vmx_vcpu_write_shadow_vmcs(hv_vcpuid_t vcpu, uint32_t field, uint64_t value) {
  (void)field;
  (void)value;
  return fail_shadow(vcpu);
}

hv_return_t hv_vmx_vcpu_set_shadow_access(hv_vcpuid_t vcpu, uint32_t field,
                                          hv_shadow_flags_t flags) {
  (void)field;
  (void)flags;
  return fail_shadow(vcpu);
}
