/* SPDX-License-Identifier: MIT
 * The checks of a VM entry (SDM Vol. 3, 27.2 and 27.3) on what the program has written since the
 * last one: a kernel that emulates enters with less, and one that does not only says that it will
 * not. CR0.NE and CR4.VMXE are not asked for, since KVM's guests have no need of them. What a field
 * cannot hold is refused when it is written. */
#include "hvf/vmcs/guest.h"

#include <Hypervisor/hv_arch_vmx.h>

#include "hvf/base/error.h"
#include "hvf/vmcs/timer.h"

#include <inttypes.h>

enum {
  CR0_PE = 1 << 0,
  FLAGS_IF = 1 << 9,
  BLOCKED_BY_STI = 1 << 0,
  BLOCKED_BY_SS = 1 << 1,
  TYPE_BITS = 7 << 8,
  VECTOR_BITS = 0xff,
  LONGEST = 15,      /* bytes of an instruction */
  CODED = 0x00027d00 /* the exceptions that have an error code: 8, 10 to 14, 17 */
};

static bool fails(const hvf_vcpu *v, const char *rule) {
  hvf_fail(HV_ERROR, "vCPU %u is not entered: %s", v->id, rule);
  return false;
}

/* ---- Registers ---- */

static bool check_blocking(const hvf_vcpu *v) {
  uint32_t blocking = 0;
  uint64_t flags = 0;
  luna_vcpu_get_blocking(v->vcpu, &blocking);
  luna_vcpu_get(v->vcpu, LUNA_RFLAGS, &flags);
  if (blocking & BLOCKED_BY_STI && !(flags & FLAGS_IF)) {
    return fails(v, "interruptibility bit 0 (blocking by STI) is set while rflags bit 9 (IF) is "
                    "clear");
  }
  return !(blocking & BLOCKED_BY_STI && blocking & BLOCKED_BY_SS) ||
         fails(v, "interruptibility bits 0 (blocking by STI) and 1 (by MOV SS) are both set");
}

bool hvf_guest_check(hvf_vcpu *v) {
  v->exit.qualification = 0;
  if (v->flags_wrong) {
    return fails(v, "rflags bit 1 is clear");
  }
  if (luna_vcpu_check_entry(v->vcpu, &v->exit.qualification) == LUNA_ERROR_STATE) {
    return fails(v, luna_error_message());
  }
  v->suspect = !check_blocking(v);
  return !v->suspect;
}

void hvf_guest_explain(hvf_vcpu *v) {
  const uint64_t reason = v->exit.e->value;
  const bool found = luna_vcpu_check_entry(v->vcpu, &v->exit.qualification) == LUNA_ERROR_STATE;
  hvf_fail(HV_ERROR, "vCPU %u is not entered, for the hardware's reason 0x%" PRIx64 ": %s", v->id,
           reason, found ? luna_error_message() : "its registers break no rule that is known here");
}

/* ---- Controls that go together (SDM Vol. 3, 27.2.1.1 and 27.2.1.2) ---- */

bool hvf_guest_check_controls(const hvf_vcpu *v) {
  const uint32_t pin = v->controls[HV_VMX_CAP_PINBASED];
  const uint32_t primary = v->controls[HV_VMX_CAP_PROCBASED];
  const uint32_t secondary = v->controls[HV_VMX_CAP_PROCBASED2];
  uint64_t priority = 15;
  if (primary & CPU_BASED_VIRTUAL_NMI_WND && !(pin & PIN_BASED_VIRTUAL_NMI)) {
    return fails(v, "NMI-window exiting is 1 while virtual NMIs (pin-based) is 0");
  }
  if (v->controls[HV_VMX_CAP_EXIT] & VMEXIT_SAVE_VMX_TIMER && !hvf_timer_is_on(v)) {
    return fails(v, "the VM-exit control that saves the preemption timer is 1 while the timer is "
                    "not activated (pin-based)");
  }
  if (primary & CPU_BASED_TPR_SHADOW && !(secondary & CPU_BASED2_VIRTUAL_APIC)) {
    luna_vcpu_get(v->vcpu, LUNA_CR8, &priority);
  }
  return v->kept_fields[HVF_KEPT_TPR] <= priority ||
         fails(v, "the TPR threshold is above the task priority, with TPR shadow and without "
                  "virtualized APIC accesses");
}

/* ---- The event to inject (SDM Vol. 3, 27.2.1.3) ---- */

static bool is_of_instruction(uint32_t event) {
  return (event & TYPE_BITS) >= IRQ_INFO_SOFT_IRQ && (event & TYPE_BITS) <= IRQ_INFO_SOFT_EXC;
}

bool hvf_guest_check_event(const hvf_vcpu *v) {
  const uint32_t vector = v->entry_event & VECTOR_BITS;
  const bool measured = v->followed && is_of_instruction(v->entry_event);
  const bool exception = (v->entry_event & TYPE_BITS) == IRQ_INFO_HARD_EXC;
  const bool has = v->entry_event & IRQ_INFO_ERROR_VALID;
  uint64_t cr0 = 0;
  luna_vcpu_get(v->vcpu, LUNA_CR0, &cr0);
  const bool wants = exception && cr0 & CR0_PE && CODED >> vector & 1;
  if (has != wants) {
    hvf_fail(HV_ERROR, "vCPU %u is not entered: event 0x%x is to be injected %s an error code%s",
             v->id, v->entry_event, has ? "with" : "without", cr0 & CR0_PE ? "" : ", in real mode");
  } else if (has && v->entry_error >> 16) {
    hvf_fail(HV_ERROR, "vCPU %u is not entered: the error code 0x%x has more than 16 bits", v->id,
             v->entry_error);
  } else if (measured && (v->entry_length == 0 || v->entry_length > LONGEST)) {
    hvf_fail(HV_ERROR,
             "vCPU %u is not entered: event 0x%x is of an instruction, of %u bytes and not 1 to 15",
             v->id, v->entry_event, v->entry_length);
  } else {
    return true;
  }
  return false;
}
