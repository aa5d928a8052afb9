/* SPDX-License-Identifier: MIT
 * The shadow VMCS, for guests that are hypervisors themselves: its fields, and which of them the
 * guest reaches without an exit where CPU_BASED2_VMCS_SHADOW asks for it (SDM Vol. 3, 25.10). The
 * core has it, on an accelerator that follows controls. */
#include <Hypervisor/hv_vmx.h>

#include "hvf/base/error.h"
#include "hvf/base/owner.h"
#include "hvf/vmcs/field.h"

#include <inttypes.h>

static const hv_shadow_flags_t known_flags = HV_SHADOW_VMCS_READ | HV_SHADOW_VMCS_WRITE;

/* The vCPU, if it has a shadow VMCS, and that has the field. */
static hv_return_t find(hv_vcpuid_t vcpu, uint32_t number, hvf_vcpu **v) {
  hv_return_t result = hvf_owned(vcpu, v);
  if (result != HV_SUCCESS) {
    return result;
  }
  if (!(*v)->followed) {
    return hvf_fail(HV_UNSUPPORTED,
                    "KVM keeps the VMCS of a guest's guest to itself; the software CPU "
                    "(LUNA_ACCEL=soft) has one for the program");
  }
  return hvf_field_is_shadowed(number)
             ? HV_SUCCESS
             : hvf_fail(HV_BAD_ARGUMENT, "the shadow VMCS has no field 0x%x", number);
}

hv_return_t hv_vmx_vcpu_read_shadow_vmcs(hv_vcpuid_t vcpu, uint32_t field, uint64_t *value) {
  hvf_vcpu *v;
  hv_return_t result = find(vcpu, field, &v);
  if (result != HV_SUCCESS) {
    return result;
  }
  return value ? hvf_status(luna_vcpu_get_shadow(v->vcpu, field, value))
               : hvf_fail(HV_BAD_ARGUMENT, "nowhere to put field 0x%x of the shadow VMCS", field);
}

/* Bits above the field's width are ignored, as of VMWRITE (SDM Vol. 3, 31.3). */
hv_return_t hv_vmx_vcpu_write_shadow_vmcs(hv_vcpuid_t vcpu, uint32_t field, uint64_t value) {
  hvf_vcpu *v;
  hv_return_t result = find(vcpu, field, &v);
  return result == HV_SUCCESS
             ? hvf_status(luna_vcpu_set_shadow(v->vcpu, field, value & hvf_field_widest(field)))
             : result;
}

hv_return_t hv_vmx_vcpu_set_shadow_access(hv_vcpuid_t vcpu, uint32_t field,
                                          hv_shadow_flags_t flags) {
  hvf_vcpu *v;
  hv_return_t result = find(vcpu, field, &v);
  if (result != HV_SUCCESS) {
    return result;
  }
  if (flags & ~known_flags) {
    return hvf_fail(HV_BAD_ARGUMENT,
                    "0x%" PRIx64 " is no access to field 0x%x of the shadow VMCS: "
                    "HV_SHADOW_VMCS_READ and _WRITE, or 0",
                    flags, field);
  }
  const uint32_t access = (flags & HV_SHADOW_VMCS_READ ? LUNA_READ : 0) |
                          (flags & HV_SHADOW_VMCS_WRITE ? LUNA_WRITE : 0);
  return hvf_status(luna_vcpu_set_shadow_access(v->vcpu, field, access));
}
