/* SPDX-License-Identifier: MIT
 * Reading and writing the fields of the VMCS. */
#include <Hypervisor/hv_vmx.h>

#include "hvf/base/error.h"
#include "hvf/base/owner.h"
#include "hvf/base/process.h"
#include "hvf/exit/fields.h"
#include "hvf/exit/fixed.h"
#include "hvf/exit/follow.h"
#include "hvf/exit/view.h"
#include "hvf/vmcs/control.h"
#include "hvf/vmcs/entry.h"
#include "hvf/vmcs/field.h"
#include "hvf/vmcs/kept.h"
#include "hvf/vmcs/setup.h"

#include <inttypes.h>

/* They have the address of a page in the host's own memory, which no program knows. */
static bool is_bitmap(uint32_t number) {
  return number == VMCS_CTRL_IO_BITMAP_A || number == VMCS_CTRL_IO_BITMAP_B ||
         number == VMCS_CTRL_MSR_BITMAPS || number == VMCS_CTRL_VMREAD_BITMAP_ADDR ||
         number == VMCS_CTRL_VMWRITE_BITMAP_ADDR;
}

static hv_return_t fail_field(uint32_t number, hvf_field_kind kind) {
  if (is_bitmap(number)) {
    return hvf_fail(HV_UNSUPPORTED,
                    "field 0x%x of the VMCS is the host-physical address of a bitmap, which is not "
                    "the program's: all ports exit, hv_vcpu_enable_native_msr chooses MSRs, and "
                    "hv_vmx_vcpu_set_shadow_access fields for VMREAD and VMWRITE",
                    number);
  }
  if (number == VMCS_CTRL_EPTP) {
    return hvf_fail(HV_BAD_ARGUMENT,
                    "field 0x%x of the VMCS is that of the space: "
                    "hv_vcpu_set_space sets it",
                    number);
  }
  return kind == HVF_FIELD_NONE
             ? hvf_fail(HV_BAD_ARGUMENT, "the VMCS has no field 0x%x", number)
             : hvf_fail(HV_UNSUPPORTED, "KVM has nothing like field 0x%x of the VMCS", number);
}

/* ---- Reading ---- */

static hv_return_t read_exit(hvf_vcpu *v, uint32_t number, uint64_t *value) {
  *value = 0;
  if (v->exit.kind == 0 || v->exit.controlled) {
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
    case VMCS_RO_VMEXIT_IRQ_INFO:
      if (v->exit.kind == LUNA_EXIT_EXCEPTION) {
        *value = IRQ_INFO_VALID | IRQ_INFO_SOFT_EXC | v->exit.e->vector;
      }
      return HV_SUCCESS;
    case VMCS_RO_IDT_VECTOR_INFO:
    case VMCS_RO_IDT_VECTOR_ERROR:
      if (v->exit.told) {
        hvf_follow_field(v, number, value);
      }
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
  hvf_field found = hvf_field_find(number);
  switch (found.kind) {
    case HVF_FIELD_EXIT:
      return read_exit(v, number, value);
    case HVF_FIELD_REGISTER:
      return hvf_get(v, found.number, value);
    case HVF_FIELD_CONTROL:
      return hvf_control_get(v, (hv_vmx_capability_t)found.number, value);
    case HVF_FIELD_CONSTANT:
      *value = found.value;
      return HV_SUCCESS;
    case HVF_FIELD_MASK:
      *value = v->masks[found.number];
      return HV_SUCCESS;
    case HVF_FIELD_SHADOW:
      *value = hvf_fixed_shadow(v, found.number);
      return HV_SUCCESS;
    case HVF_FIELD_KEPT:
      *value = found.number >= HVF_KEPT_PDPTE_0 && found.number <= HVF_KEPT_PDPTE_3
                   ? hvf_setup_pdpte(v, found.number)
                   : v->kept_fields[found.number];
      return HV_SUCCESS;
    case HVF_FIELD_EVENT:
      return read_event(v, number, value);
    case HVF_FIELD_MSR:
      return hvf_status(luna_vcpu_get_msr(v->vcpu, (uint32_t)found.number, value));
    case HVF_FIELD_STATE:
      return read_state(v, number, value);
    default:
      return fail_field(number, found.kind);
  }
}

static __attribute__((noinline)) hv_return_t read_further(hv_vcpuid_t vcpu, uint32_t field,
                                                          uint64_t *value) {
  hvf_vcpu *v;
  hv_return_t result = hvf_owned(vcpu, &v);
  if (result != HV_SUCCESS) {
    return result;
  }
  return value ? read_field(v, field, value)
               : hvf_fail(HV_BAD_ARGUMENT, "nowhere to put field 0x%x", field);
}

/* What a control's exit tells is read at every one of them: first, and with nothing around it. */
hv_return_t hv_vmx_vcpu_read_vmcs(hv_vcpuid_t vcpu, uint32_t field, uint64_t *value) {
  const hvf_vcpu *v = hvf_own();
  return v && v->id == vcpu && value && v->exit.controlled && hvf_follow_field(v, field, value)
             ? HV_SUCCESS
             : read_further(vcpu, field, value);
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
      v->suspect = true;
      return hvf_status(luna_vcpu_set_blocking(v->vcpu, (uint32_t)value));
    default:
      return write_activity(v, value);
  }
}

/* An address of SYSENTER that is canonical, a PAT of memory types (SDM Vol. 3, 12.12.2). */
static bool is_msr_value(uint32_t number, uint64_t value) {
  const uint8_t types = 0xf3; /* all below 8 but 2 and 3 */
  bool valid = true;
  switch (number) {
    case VMCS_GUEST_SYSENTER_ESP:
    case VMCS_GUEST_SYSENTER_EIP:
      return (uint64_t)((int64_t)(value << 7) >> 7) == value;
    case VMCS_GUEST_IA32_PAT:
      for (; value && valid; value >>= 8) {
        valid = (value & 0xff) < 8 && types >> (value & 0xff) & 1;
      }
      return valid;
    default:
      return true;
  }
}

/* Not every KVM refuses what no entry would take. */
static hv_return_t write_msr(hvf_vcpu *v, uint32_t number, uint32_t msr, uint64_t value) {
  return is_msr_value(number, value)
             ? hvf_status(luna_vcpu_set_msr(v->vcpu, msr, value))
             : hvf_fail(HV_BAD_ARGUMENT,
                        "field 0x%x, MSR 0x%x, cannot be 0x%" PRIx64 ": an address has to be "
                        "canonical, and the PAT of memory types",
                        number, msr, value);
}

/* Sets a mask or shadow; the guest's view of the register follows. */
static hv_return_t change_view(hvf_vcpu *v, int index, uint64_t *word, uint64_t value) {
  const int reg = index == 0 ? LUNA_CR0 : LUNA_CR4;
  hvf_fixed_touch(v);
  const uint64_t before = *word;
  if (v->followed) {
    *word = value;
    return HV_SUCCESS;
  }
  const bool shadow = word == &v->shadows[index];
  const uint64_t apart = hvf_fixed_apart(index) & (shadow ? v->masks[index] : UINT64_MAX);
  uint64_t seen;
  if (!((value ^ before) & apart)) {
    *word = value;
    return HV_SUCCESS;
  }
  hv_return_t result = hvf_get(v, reg, &seen);
  if (result != HV_SUCCESS) {
    return result;
  }
  *word = value;
  result = hvf_set(v, reg, seen);
  if (result != HV_SUCCESS) {
    *word = before;
  }
  return result;
}

/* Bits above the field's width are ignored, as of VMWRITE (SDM Vol. 3, 31.3): a program's 1 << 31
 * comes with its sign in them. */
static hv_return_t write_field(hvf_vcpu *v, uint32_t number, uint64_t value) {
  hvf_field found = hvf_field_find(number);
  value &= hvf_field_widest(number);
  switch (found.kind) {
    case HVF_FIELD_EXIT:
      return hvf_fail(HV_DENIED, "field 0x%x of the VMCS is read-only", number);
    case HVF_FIELD_REGISTER:
      return hvf_set(v, found.number, value);
    case HVF_FIELD_CONTROL:
      return hvf_control_set(v, (hv_vmx_capability_t)found.number, value);
    case HVF_FIELD_CONSTANT:
      return value == found.value
                 ? HV_SUCCESS
                 : hvf_fail(HV_UNSUPPORTED,
                            "KVM cannot follow 0x%" PRIx64 " in field 0x%x: only 0x%" PRIx64, value,
                            number, found.value);
    case HVF_FIELD_MASK:
      return change_view(v, found.number, &v->masks[found.number], value);
    case HVF_FIELD_SHADOW:
      return change_view(v, found.number, &v->shadows[found.number], value);
    case HVF_FIELD_KEPT:
      return hvf_kept_set(v, found.number, value);
    case HVF_FIELD_EVENT:
      return write_event(v, number, value);
    case HVF_FIELD_MSR:
      return write_msr(v, number, (uint32_t)found.number, value);
    case HVF_FIELD_STATE:
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

/* The bits of a field that is no control, as far as that is a matter of bits. */
static uint64_t possible(uint32_t number) {
  const uint64_t table_limits = 0xffff, access_rights = 0x1f0ff, blocking = 0xb;
  if (number >= VMCS_GUEST_ES_AR && number <= VMCS_GUEST_TR_AR) {
    return access_rights;
  }
  switch (number) {
    case VMCS_GUEST_GDTR_LIMIT:
    case VMCS_GUEST_IDTR_LIMIT:
      return table_limits;
    case VMCS_GUEST_INTERRUPTIBILITY:
      return blocking;
    case VMCS_GUEST_ACTIVITY_STATE:
      return hvf_the_vm.options & HV_VM_ACCEL_APIC ? 3 : 0;
    case VMCS_GUEST_IA32_PAT:
      return UINT64_C(0x0707070707070707);
    case VMCS_GUEST_DR7:
      return UINT32_MAX;
    case VMCS_CTRL_VMENTRY_IRQ_INFO:
      return IRQ_INFO_VALID | IRQ_INFO_ERROR_VALID | IRQ_INFO_TYPE_MASK | 0xff;
    default:
      return hvf_field_widest(number);
  }
}

static hv_return_t allowed(uint32_t number, uint64_t *must, uint64_t *may) {
  hvf_field found = hvf_field_find(number);
  uint32_t bits[2];
  switch (found.kind) {
    case HVF_FIELD_CONTROL:
      hvf_control_bits((hv_vmx_capability_t)found.number, &bits[0], &bits[1]);
      *must = bits[0];
      *may = bits[1];
      return HV_SUCCESS;
    case HVF_FIELD_CONSTANT:
      *must = *may = found.value;
      return HV_SUCCESS;
    case HVF_FIELD_KEPT:
      *must = 0;
      *may = found.value;
      return HV_SUCCESS;
    case HVF_FIELD_MASK:
    case HVF_FIELD_REGISTER:
    case HVF_FIELD_SHADOW:
    case HVF_FIELD_EVENT:
    case HVF_FIELD_MSR:
    case HVF_FIELD_STATE:
      *must = 0;
      *may = possible(number);
      return HV_SUCCESS;
    case HVF_FIELD_EXIT:
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
