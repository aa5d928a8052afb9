/* SPDX-License-Identifier: MIT
 * Where the accelerator follows controls (luna_controls), the fields that ask for exits are handed
 * over before an entry, and an exit comes with all that the VMCS tells of it. */
#include "hvf/exit/follow.h"

#include <Hypervisor/hv_vmx.h>

#include "hvf/base/error.h"
#include "hvf/base/process.h"

#include <string.h>

bool hvf_follow_find(uint32_t accel) {
  uint64_t value = 0;
  return luna_accelerator_capability(accel, "controls", &value) == LUNA_OK && value;
}

bool hvf_follow_can(void) {
  return hvf_the_vm.vm ? hvf_the_vm.follows : hvf_follow_find(LUNA_ACCEL_AUTO);
}

/* With these primary controls. */
static int hand_over(hvf_vcpu *v, uint32_t primary) {
  const uint64_t *kept = v->kept_fields;
  const bool accelerated = hvf_the_vm.options & HV_VM_ACCEL_APIC; /* INIT and SIPI exit */
  const luna_controls controls = {
      .primary = primary,
      .secondary =
          v->controls[HV_VMX_CAP_PROCBASED2] | (accelerated ? CPU_BASED2_APIC_REG_VIRT : 0),
      .exceptions = (uint32_t)kept[HVF_KEPT_EXCEPTIONS],
      .fault_mask = (uint32_t)kept[HVF_KEPT_PF_MASK],
      .fault_match = (uint32_t)kept[HVF_KEPT_PF_MATCH],
      .tpr_threshold = (uint32_t)kept[HVF_KEPT_TPR],
      .cr0_mask = v->masks[0],
      .cr0_shadow = v->shadows[0],
      .cr4_mask = v->masks[1],
      .cr4_shadow = v->shadows[1],
      .cr3_targets = {kept[HVF_KEPT_CR3_0], kept[HVF_KEPT_CR3_1], kept[HVF_KEPT_CR3_2],
                      kept[HVF_KEPT_CR3_3]},
      .cr3_count = (uint32_t)kept[HVF_KEPT_CR3_COUNT],
  };
  return luna_vcpu_set_controls(v->vcpu, &controls);
}

hv_return_t hvf_follow_hand_over(hvf_vcpu *v) {
  v->stale = false;
  return hvf_status(hand_over(v, v->controls[HV_VMX_CAP_PROCBASED]));
}

hv_return_t hvf_follow_begin(hvf_vcpu *v) {
  v->followed = hvf_follow_can();
  return v->followed ? hvf_follow_hand_over(v) : HV_SUCCESS;
}

int hvf_follow_deliver(hvf_vcpu *v) {
  return luna_vcpu_deliver(v->vcpu, v->entry_event, v->entry_error, v->entry_length);
}

/* By the monitor trap flag, whose exit comes behind the delivery. */
int hvf_follow_deliver_alone(hvf_vcpu *v) {
  const uint32_t asked = v->controls[HV_VMX_CAP_PROCBASED];
  luna_control_exit x;
  v->stale = true;
  int kind = hand_over(v, asked | CPU_BASED_MTF);
  kind = kind == LUNA_OK ? luna_vcpu_run(v->vcpu, 0) : kind;
  const bool delivered =
      kind == LUNA_EXIT_OTHER && luna_exit_control(v->record, &x) && x.reason == VMX_REASON_MTF;
  return delivered && !(asked & CPU_BASED_MTF) ? LUNA_EXIT_TIMEOUT : kind;
}

/* ---- The exit ---- */

void hvf_follow_access(hvf_vcpu *v) {
  hvf_exit *x = &v->exit;
  x->told = v->followed && luna_exit_control(x->e, &x->control);
  if (x->told) {
    x->placed = x->linear_tried = x->linear_known = true;
    x->linear = x->control.linear;
    x->length = x->control.length;
  }
}

bool hvf_follow_field(const hvf_vcpu *v, uint32_t number, uint64_t *value) {
  const luna_control_exit *x = &v->exit.control;
  switch (number) {
    case VMCS_RO_EXIT_REASON:
      *value = x->reason;
      return true;
    case VMCS_RO_EXIT_QUALIFIC:
      *value = x->qualification;
      return true;
    case VMCS_RO_VMEXIT_INSTR_LEN:
      *value = x->length;
      return true;
    case VMCS_RO_VMX_INSTR_INFO:
      *value = x->instruction;
      return true;
    case VMCS_RO_GUEST_LIN_ADDR:
      *value = x->linear;
      return true;
    case VMCS_RO_VMEXIT_IRQ_INFO:
      *value = x->interruption;
      return true;
    case VMCS_RO_VMEXIT_IRQ_ERROR:
      *value = x->interruption_error;
      return true;
    case VMCS_RO_IDT_VECTOR_INFO:
      *value = x->vectoring;
      return true;
    case VMCS_RO_IDT_VECTOR_ERROR:
      *value = x->vectoring_error;
      return true;
    default:
      return false;
  }
}
