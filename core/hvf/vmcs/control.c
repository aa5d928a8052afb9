/* SPDX-License-Identifier: MIT
 * The VMCS's controls: what KVM does anyway must be 1, what it cannot do must be 0, and between the
 * two there is little (SDM Vol. 3, 25.6 to 25.8 and appendix A). */
#include "hvf/vmcs/control.h"

#include "hvf/base/error.h"
#include "hvf/base/process.h"
#include "hvf/exit/follow.h"
#include "hvf/exit/view.h"
#include "hvf/vmcs/timer.h"

#include <cpuid.h>
#include <inttypes.h>

typedef struct control {
  uint32_t must;
  uint32_t may; /* on top of those */
} control;

/* The bits that Intel has reserved as 1, and: */
static const control controls[HVF_CONTROLS] = {
    /* External interrupts and NMIs are the host's. */
    [HV_VMX_CAP_PINBASED] = {0x16 | PIN_BASED_INTR | PIN_BASED_NMI, PIN_BASED_VIRTUAL_NMI},
    /* Without a local APIC in KVM, HLT exits; every port does. KVM tells of moves to CR8 that lower
     * it; MONITOR and MWAIT are not among what a guest's CPUID has. */
    [HV_VMX_CAP_PROCBASED] = {0x04006172 | CPU_BASED_HLT | CPU_BASED_UNCOND_IO |
                                  CPU_BASED_MSR_BITMAPS | CPU_BASED_SECONDARY_CTLS |
                                  CPU_BASED_TSC_OFFSET,
                              CPU_BASED_IRQ_WND | CPU_BASED_VIRTUAL_NMI_WND | CPU_BASED_MTF |
                                  CPU_BASED_MWAIT | CPU_BASED_MONITOR | CPU_BASED_CR8_LOAD |
                                  CPU_BASED_CR8_STORE},
    /* The guest has these instructions where CPUID says so; the local APIC's page exits once it has
     * an address, whether that is asked for here or not. */
    [HV_VMX_CAP_PROCBASED2] = {CPU_BASED2_EPT | CPU_BASED2_UNRESTRICTED | CPU_BASED2_RDTSCP,
                               CPU_BASED2_VIRTUAL_APIC | CPU_BASED2_VPID | CPU_BASED2_INVPCID |
                                   CPU_BASED2_XSAVES_XRSTORS},
    /* EFER is among the guest's registers, and IA-32e mode is its LMA. */
    [HV_VMX_CAP_ENTRY] = {0x11fb | VMENTRY_LOAD_EFER,
                          VMENTRY_LOAD_DBG_CONTROLS | VMENTRY_GUEST_IA32E | VMENTRY_LOAD_IA32_PAT},
    [HV_VMX_CAP_EXIT] = {0x36dfb | VMEXIT_HOST_IA32E | VMEXIT_LOAD_EFER,
                         VMEXIT_SAVE_DBG_CONTROLS | VMEXIT_SAVE_EFER | VMEXIT_ACK_INTR |
                             VMEXIT_SAVE_IA32_PAT | VMEXIT_LOAD_IA32_PAT},
};

enum {
  MISC_VMWRITE_ALL = 1 << 29, /* a guest's VMWRITE, to exit fields of its shadow VMCS too */
  EFER_LMA = 1 << 10,
  CR4_VMXE = 1 << 13
};

/* What an accelerator that follows controls may have on top of those. */
static const uint32_t followed[HVF_CONTROLS] = {
    [HV_VMX_CAP_PINBASED] = PIN_BASED_PREEMPTION_TIMER,
    [HV_VMX_CAP_EXIT] = VMEXIT_SAVE_VMX_TIMER,
    [HV_VMX_CAP_PROCBASED] = CPU_BASED_INVLPG | CPU_BASED_RDPMC | CPU_BASED_RDTSC |
                             CPU_BASED_CR3_LOAD | CPU_BASED_CR3_STORE | CPU_BASED_TPR_SHADOW |
                             CPU_BASED_VIRTUAL_NMI_WND | CPU_BASED_MOV_DR | CPU_BASED_PAUSE,
    [HV_VMX_CAP_PROCBASED2] = CPU_BASED2_DESC_TABLE | CPU_BASED2_WBINVD | CPU_BASED2_RDRAND |
                              CPU_BASED2_RDSEED | CPU_BASED2_VMCS_SHADOW,
};

void hvf_control_bits(hv_vmx_capability_t kind, uint32_t *must, uint32_t *may) {
  *must = controls[kind].must;
  *may = controls[kind].must | controls[kind].may | (hvf_follow_can() ? followed[kind] : 0);
  if (kind == HV_VMX_CAP_PROCBASED && hvf_the_vm.vm && hvf_the_vm.options & HV_VM_ACCEL_APIC) {
    const uint32_t halts = CPU_BASED_HLT;
    const uint32_t waits = CPU_BASED_IRQ_WND;
    *must &= ~halts;
    *may &= ~(halts | waits);
  }
}

void hvf_control_reset(hvf_vcpu *v) {
  for (int kind = 0; kind < HVF_CONTROLS; kind++) {
    uint32_t may;
    hvf_control_bits((hv_vmx_capability_t)kind, &v->controls[kind], &may);
  }
}

hv_return_t hvf_control_get(hvf_vcpu *v, hv_vmx_capability_t kind, uint64_t *value) {
  uint64_t efer = 0;
  hv_return_t result = HV_SUCCESS;
  if (kind == HV_VMX_CAP_ENTRY) {
    result = hvf_get(v, LUNA_EFER, &efer);
  }
  *value = v->controls[kind] | (efer & EFER_LMA ? VMENTRY_GUEST_IA32E : 0);
  return result;
}

static hv_return_t set_long_mode(hvf_vcpu *v, bool on) {
  uint64_t efer;
  hv_return_t result = hvf_get(v, LUNA_EFER, &efer);
  if (result == HV_SUCCESS && on != !!(efer & EFER_LMA)) {
    result = hvf_set(v, LUNA_EFER, efer ^ EFER_LMA);
  }
  return result;
}

hv_return_t hvf_control_set(hvf_vcpu *v, hv_vmx_capability_t kind, uint64_t value) {
  uint32_t must, may;
  hvf_control_bits(kind, &must, &may);
  if (value & ~(uint64_t)may || must & ~value) {
    const bool elsewhere = value & ~(uint64_t)may & followed[kind];
    return hvf_fail(HV_BAD_ARGUMENT,
                    "controls 0x%" PRIx64 " are outside the capability: 0x%08x must be 1, 0x%08x "
                    "may be%s",
                    value, must, may,
                    elsewhere ? "; the software CPU (LUNA_ACCEL=soft) has more" : "");
  }
  hv_return_t result = HV_SUCCESS;
  if (kind == HV_VMX_CAP_ENTRY) {
    result = set_long_mode(v, value & VMENTRY_GUEST_IA32E);
    value &= ~(uint64_t)VMENTRY_GUEST_IA32E; /* the register has it */
  }
  if (result == HV_SUCCESS) {
    v->controls[kind] = (uint32_t)value;
    v->stale = true;
  }
  if (result == HV_SUCCESS && kind == HV_VMX_CAP_PROCBASED) {
    result = hvf_status(luna_vcpu_window(v->vcpu, !!(value & CPU_BASED_IRQ_WND)));
  }
  return result;
}

/* The bits of CR4 that this host's processor has, and VMXE. */
static uint64_t possible_cr4(void) {
  const struct {
    uint32_t leaf, word, bit, cr4;
  } features[] = {{1, 2, 26, 18}, {1, 2, 17, 17}, {7, 1, 0, 16},  {7, 1, 7, 20}, {7, 1, 20, 21},
                  {7, 2, 2, 11},  {7, 2, 3, 22},  {7, 2, 16, 12}, {7, 2, 7, 23}};
  uint64_t found = 0x7ff | CR4_VMXE; /* VME to OSXMMEXCPT */
  for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
    uint32_t words[4];
    if (__get_cpuid_count(features[i].leaf, 0, &words[0], &words[1], &words[2], &words[3]) &&
        words[features[i].word] >> features[i].bit & 1) {
      found |= UINT64_C(1) << features[i].cr4;
    }
  }
  return found;
}

/* As an Intel processor's in VMX operation, though KVM's guests enter without CR0.NE and CR4.VMXE.
 * PE and PG need not be 1, since guests are unrestricted. */
static hv_return_t fixed(hv_vmx_capability_t field, uint64_t *value) {
  switch (field) {
    case HV_VMX_CAP_CR0_FIXED0:
      *value = 0x80000021; /* PG NE PE */
      return HV_SUCCESS;
    case HV_VMX_CAP_CR0_FIXED1:
      *value = UINT32_MAX;
      return HV_SUCCESS;
    case HV_VMX_CAP_CR4_FIXED0:
      *value = CR4_VMXE;
      return HV_SUCCESS;
    case HV_VMX_CAP_CR4_FIXED1:
      *value = possible_cr4();
      return HV_SUCCESS;
    case HV_VMX_CAP_MISC: /* four CR3-target values; the rate of the timer, where there is one */
      *value = 4 << 16 | (hvf_follow_can() ? HVF_TIMER_RATE | MISC_VMWRITE_ALL : 0);
      return HV_SUCCESS;
    case HV_VMX_CAP_VMCS_ENUM: /* the highest index of a field: VMCS_CTRL_ENCLV_EXITING_BITMAP's */
      *value = VMCS_CTRL_ENCLV_EXITING_BITMAP & 0x3fe;
      return HV_SUCCESS;
    case HV_VMX_CAP_EPT_VPID_CAP: /* no memory that can only be executed, no accessed bits */
      *value = 0;
      return HV_SUCCESS;
    default:
      return hvf_fail(HV_BAD_ARGUMENT, "there is no capability %u", (unsigned)field);
  }
}

hv_return_t hv_vmx_read_capability(hv_vmx_capability_t field, uint64_t *value) {
  if (!value) {
    return hvf_fail(HV_BAD_ARGUMENT, "nowhere to put capability %u", (unsigned)field);
  }
  unsigned kind = (unsigned)field;
  if (kind >= HV_VMX_CAP_TRUE_PINBASED && kind <= HV_VMX_CAP_TRUE_EXIT) {
    static const uint8_t plain[] = {HV_VMX_CAP_PINBASED, HV_VMX_CAP_PROCBASED, HV_VMX_CAP_ENTRY,
                                    HV_VMX_CAP_EXIT};
    kind = plain[kind - HV_VMX_CAP_TRUE_PINBASED];
  }
  if (kind < HVF_CONTROLS) {
    uint32_t must, may;
    hvf_control_bits((hv_vmx_capability_t)kind, &must, &may);
    *value = (uint64_t)may << 32 | must;
    return HV_SUCCESS;
  }
  switch (kind) {
    case HV_VMX_CAP_BASIC:
      *value = VMX_BASIC_TRUE_CTLS | UINT64_C(1) << 54; /* and INS and OUTS are described */
      return HV_SUCCESS;
    case HV_VMX_CAP_PREEMPTION_TIMER: /* of hv_vcpu_run_until: in nanoseconds */
      *value = 1;
      return HV_SUCCESS;
    default:
      return kind <= HV_VMX_CAP_EPT_VPID_CAP
                 ? fixed(field, value)
                 : hvf_fail(HV_BAD_ARGUMENT, "there is no capability %u", kind);
  }
}
