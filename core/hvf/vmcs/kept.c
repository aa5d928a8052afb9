/* SPDX-License-Identifier: MIT
 * Fields of the VMCS that set-up code writes and that are kept here: what they ask for is off in
 * the controls, or is what KVM does by itself. */
#include "hvf/vmcs/kept.h"

#include <Hypervisor/hv_arch_vmx.h>

#include "hvf/base/error.h"
#include "hvf/base/owner.h"
#include "hvf/exit/fixed.h"
#include "hvf/exit/follow.h"

#include <inttypes.h>

enum {
  MOST_TARGETS = 4, /* of CR3 */
  BREAKPOINT = 1 << 3,
  PAGE_FAULT = 1 << 14,
  ALIGNMENT_CHECK = 1 << 17,
  MACHINE_CHECK = 1 << 18,
  PF_CODES = 0x807f /* bits that a page fault's error code can have */
};

typedef struct kept {
  uint32_t number;
  uint64_t may; /* bits that it can have */
} kept;

/* The host takes machine checks, and a guest its alignment checks: programs set both by habit. A
 * page fault's bit is looked at together with mask and match, before the guest is entered. */
static const kept fields[HVF_KEPT] = {
    [HVF_KEPT_EXCEPTIONS] = {VMCS_CTRL_EXC_BITMAP, PAGE_FAULT | ALIGNMENT_CHECK | MACHINE_CHECK},
    [HVF_KEPT_PF_MASK] = {VMCS_CTRL_PF_ERROR_MASK, UINT32_MAX},
    [HVF_KEPT_PF_MATCH] = {VMCS_CTRL_PF_ERROR_MATCH, UINT32_MAX},
    [HVF_KEPT_CR3_COUNT] = {VMCS_CTRL_CR3_COUNT, 7},
    [HVF_KEPT_TPR] = {VMCS_CTRL_TPR_THRESHOLD, 15},
    [HVF_KEPT_CR3_0] = {VMCS_CTRL_CR3_VALUE0, UINT64_MAX},
    [HVF_KEPT_CR3_1] = {VMCS_CTRL_CR3_VALUE1, UINT64_MAX},
    [HVF_KEPT_CR3_2] = {VMCS_CTRL_CR3_VALUE2, UINT64_MAX},
    [HVF_KEPT_CR3_3] = {VMCS_CTRL_CR3_VALUE3, UINT64_MAX},
    [HVF_KEPT_PDPTE_0] = {VMCS_GUEST_PDPTE0, UINT64_MAX},
    [HVF_KEPT_PDPTE_1] = {VMCS_GUEST_PDPTE1, UINT64_MAX},
    [HVF_KEPT_PDPTE_2] = {VMCS_GUEST_PDPTE2, UINT64_MAX},
    [HVF_KEPT_PDPTE_3] = {VMCS_GUEST_PDPTE3, UINT64_MAX},
    [HVF_KEPT_PLE_GAP] = {VMCS_CTRL_PLE_GAP, UINT32_MAX},
    [HVF_KEPT_PLE_WINDOW] = {VMCS_CTRL_PLE_WINDOW, UINT32_MAX},
    [HVF_KEPT_TIMER] = {VMCS_GUEST_VMX_TIMER_VALUE, UINT32_MAX},
};

int hvf_kept_find(uint32_t number) {
  for (int i = 0; i < HVF_KEPT; i++) {
    if (fields[i].number == number) {
      return i;
    }
  }
  return -1;
}

/* What guest debugging serves, for the vCPU of the thread that asks. */
static uint64_t catchable(void) {
  uint32_t vectors = 0;
  return hvf_own() && luna_vcpu_catchable(hvf_own()->vcpu, &vectors) == LUNA_OK ? vectors : 0;
}

uint64_t hvf_kept_may(int index) {
  if (index != HVF_KEPT_EXCEPTIONS) {
    return fields[index].may;
  }
  return hvf_follow_can() ? UINT32_MAX : fields[index].may | catchable();
}

/* The guest's INT3 exits where the bitmap says so, by guest debugging. */
static hv_return_t catch_breakpoints(hvf_vcpu *v, uint64_t bitmap) {
  const uint64_t changed = bitmap ^ v->kept_fields[HVF_KEPT_EXCEPTIONS];
  return changed & BREAKPOINT ? hvf_status(luna_vcpu_catch(v->vcpu, (uint32_t)bitmap & BREAKPOINT))
                              : HV_SUCCESS;
}

hv_return_t hvf_kept_set(hvf_vcpu *v, int index, uint64_t value) {
  const bool probes = index == HVF_KEPT_EXCEPTIONS && (v->followed || value & BREAKPOINT);
  const uint64_t may = probes ? hvf_kept_may(index) : fields[index].may;
  const uint64_t beyond = value & ~may;
  if (beyond && index == HVF_KEPT_EXCEPTIONS) {
    return hvf_fail(HV_UNSUPPORTED,
                    "KVM makes no exits of the exceptions 0x%" PRIx64
                    " of the bitmap: only 0x%" PRIx64 " can be set; the software CPU "
                    "(LUNA_ACCEL=soft) has all",
                    beyond, may);
  }
  if (beyond || (index == HVF_KEPT_CR3_COUNT && value > MOST_TARGETS)) {
    return hvf_fail(HV_BAD_ARGUMENT, "field 0x%x of the VMCS cannot be 0x%" PRIx64,
                    fields[index].number, value);
  }
  if (index == HVF_KEPT_EXCEPTIONS && !v->followed) {
    hv_return_t result = catch_breakpoints(v, value);
    if (result != HV_SUCCESS) {
      return result;
    }
  }
  v->kept_fields[index] = value;
  hvf_fixed_touch(v);
  v->pdptes_written |= index >= HVF_KEPT_PDPTE_0 && index <= HVF_KEPT_PDPTE_3;
  return HV_SUCCESS;
}

/* An exit if bit 14 says so of codes that match, or does not of those that do not (SDM Vol. 3,
 * 25.6.3). */
hv_return_t hvf_kept_check_faults(const hvf_vcpu *v) {
  const uint64_t mask = v->kept_fields[HVF_KEPT_PF_MASK];
  const uint64_t match = v->kept_fields[HVF_KEPT_PF_MATCH];
  const bool none_match = match & ~(mask & PF_CODES);
  const bool all_match = !(mask & PF_CODES) && match == 0;
  return (v->kept_fields[HVF_KEPT_EXCEPTIONS] & PAGE_FAULT ? none_match : all_match)
             ? HV_SUCCESS
             : hvf_fail(HV_UNSUPPORTED,
                        "KVM makes no exits of page faults, which bit 14 of the exception bitmap "
                        "0x%" PRIx64 " with mask 0x%" PRIx64 " and match 0x%" PRIx64
                        " ask for; the software CPU (LUNA_ACCEL=soft) has them",
                        v->kept_fields[HVF_KEPT_EXCEPTIONS], mask, match);
}
