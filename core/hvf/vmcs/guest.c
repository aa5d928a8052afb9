/* SPDX-License-Identifier: MIT
 * The checks of a VM entry (SDM Vol. 3, 27.2 and 27.3) on what the program has written since the
 * last one: a kernel that emulates enters with less, and one that does not only says that it will
 * not. CR0.NE and CR4.VMXE are not asked for, since KVM's guests have no need of them. What a field
 * cannot hold is refused when it is written. */
#include "hvf/vmcs/guest.h"

#include <Hypervisor/hv_arch_vmx.h>

#include "hvf/base/error.h"

#include <inttypes.h>

enum {
  CR0_PE = 1 << 0,
  FLAGS_IF = 1 << 9,
  BLOCKED_BY_STI = 1 << 0,
  BLOCKED_BY_SS = 1 << 1,
  TYPE_BITS = 7 << 8,
  VECTOR_BITS = 0xff,
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

/* ---- The event to inject (SDM Vol. 3, 27.2.1.3) ---- */

bool hvf_guest_check_event(const hvf_vcpu *v) {
  const uint32_t vector = v->entry_event & VECTOR_BITS;
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
  } else {
    return true;
  }
  return false;
}
