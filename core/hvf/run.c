/* SPDX-License-Identifier: MIT
 * Running a vCPU, and interrupting it; what its exits become. */
#include <Hypervisor/hv.h>
#include <Hypervisor/hv_vmx.h>

#include "hvf/base/cpu.h"
#include "hvf/base/error.h"
#include "hvf/base/owner.h"
#include "hvf/base/process.h"
#include "hvf/base/reach.h"
#include "hvf/base/tick.h"
#include "hvf/exit/fields.h"
#include "hvf/exit/follow.h"
#include "hvf/exit/leave.h"
#include "hvf/intr/apic.h"
#include "hvf/intr/apic_exit.h"
#include "hvf/intr/extint.h"
#include "hvf/memory/notifier.h"
#include "hvf/state/msr.h"
#include "hvf/vmcs/entry.h"
#include "hvf/vmcs/guest.h"
#include "hvf/vmcs/setup.h"
#include "hvf/vmcs/timer.h"

#include <inttypes.h>

enum {
  EXIT_WINDOW = 7,    /* KVM_EXIT_IRQ_WINDOW_OPEN */
  NMI_WINDOW = 256,   /* beside luna_exit_kind: CPU_BASED_VIRTUAL_NMI_WND */
  STEP_PENDING = 257, /* that the monitor trap flag's exit was injected */
  ENTRY_CONTROLS = 7  /* VM entry with invalid control fields (SDM Vol. 3, 31.4) */
};

/* Reads what a control's exit tells, and lets a notifier have a port write. */
static bool take_controlled(hvf_vcpu *v) {
  hvf_exit *x = &v->exit;
  luna_exit port;
  x->controlled = luna_exit_control(v->record, &x->control);
  return hvf_notifier_watches && hvf_follow_port(v, &port) && port.access == LUNA_WRITE &&
         hvf_notifier_take((uint16_t)port.address, port.size, port.value) &&
         hvf_follow_complete(v, 0) == HV_SUCCESS;
}

/* Whether the core was stopped for hv_vcpu_interrupt, or for a tick while those are for it; one
 * that came too late for that is none. */
static bool is_interrupted(hvf_vcpu *v) {
  const bool ticked =
      atomic_exchange(&v->ticked, false) && atomic_load_explicit(&v->ticking, memory_order_relaxed);
  return atomic_exchange(&v->interrupted, false) || ticked;
}

/* An exit that is for the program, rather than for something here to deal with. */
static bool is_for_program(hvf_vcpu *v, int kind) {
  switch (kind) {
    case LUNA_EXIT_MSR:
      return !hvf_msr_serve(v);
    case LUNA_EXIT_EOI:
      return hvf_apic_note_eoi(v, (uint8_t)v->record->vector);
    case LUNA_EXIT_TPR:
      return v->controls[HV_VMX_CAP_PROCBASED] & CPU_BASED_CR8_LOAD;
    case LUNA_EXIT_OTHER:
      return !v->followed || !take_controlled(v);
    case LUNA_EXIT_INTERRUPTED:
      return is_interrupted(v);
    default:
      return true;
  }
}

/* An access to the page of the local APIC is no ordinary EPT violation. */
static hv_return_t note_apic_access(hvf_vcpu *v) {
  hvf_exit *x = &v->exit;
  int offset = hvf_apic_offset(v, x->e);
  if (offset < 0) {
    return HV_SUCCESS;
  }
  x->reason = VMX_REASON_APIC_ACCESS;
  x->apic_offset = (uint32_t)offset;
  return hvf_the_vm.options & HV_VM_ACCEL_APIC && x->e->access == LUNA_READ
             ? hvf_apic_note_read(v, x->apic_offset)
             : HV_SUCCESS;
}

static uint32_t reason_of(int kind, const luna_exit *e) {
  switch (kind) {
    case LUNA_EXIT_HLT:
      return VMX_REASON_HLT;
    case LUNA_EXIT_PIO:
      return VMX_REASON_IO;
    case LUNA_EXIT_FAULT:
    case LUNA_EXIT_HOST_FAULT:
      return VMX_REASON_EPT_VIOLATION;
    case LUNA_EXIT_MSR:
      return e->access == LUNA_READ ? VMX_REASON_RDMSR : VMX_REASON_WRMSR;
    case LUNA_EXIT_SHUTDOWN:
      return VMX_REASON_TRIPLE_FAULT;
    case LUNA_EXIT_TPR:
      return VMX_REASON_MOV_CR;
    case LUNA_EXIT_DEBUG:
    case STEP_PENDING:
      return VMX_REASON_MTF;
    case LUNA_EXIT_EXCEPTION:
      return VMX_REASON_EXC_NMI;
    case LUNA_EXIT_OTHER:
      return VMX_REASON_IRQ_WND;
    case NMI_WINDOW:
      return VMX_REASON_VIRTUAL_NMI_WND;
    case LUNA_EXIT_EOI:
      return VMX_REASON_VIRTUALIZED_EOI;
    case LUNA_EXIT_TIMEOUT:
      return VMX_REASON_VMX_TIMER_EXPIRED;
    case LUNA_EXIT_FAIL_ENTRY:
      return VMX_REASON_ENTRY_FAILURE | VMX_REASON_VMENTRY_GUEST;
    default:
      return VMX_REASON_IRQ;
  }
}

static hvf_stage stage_of(int kind, const luna_exit *e) {
  switch (kind) {
    case LUNA_EXIT_HLT:
    case LUNA_EXIT_TPR:
      return HVF_STAGE_BEHIND;
    case LUNA_EXIT_PIO:
    case LUNA_EXIT_MSR:
    case LUNA_EXIT_FAULT:
      return HVF_STAGE_OPEN;
    case LUNA_EXIT_HOST_FAULT:
      return e->size ? HVF_STAGE_OPEN : HVF_STAGE_NONE;
    default:
      return HVF_STAGE_NONE;
  }
}

static hv_return_t fail_exit(hvf_vcpu *v, int kind) {
  const luna_exit *e = v->exit.e;
  uint64_t rip = 0;
  luna_vcpu_get(v->vcpu, LUNA_RIP, &rip);
  if (kind == LUNA_EXIT_HOST_FAULT) {
    return hvf_fail(HV_FAULT,
                    "vCPU %u stopped at rip 0x%" PRIx64 ": the host memory behind gpa 0x%" PRIx64
                    " cannot be used",
                    v->id, rip, e->address);
  }
  return hvf_fail(HV_ERROR,
                  "vCPU %u stopped at rip 0x%" PRIx64
                  ": KVM cannot go on (exit %s, KVM's reason %u, suberror %u, code %02x %02x %02x "
                  "%02x)",
                  v->id, rip, luna_exit_name(kind), e->reason, e->suberror, e->instruction[0],
                  e->instruction[1], e->instruction[2], e->instruction[3]);
}

static hv_return_t present(hvf_vcpu *v, int kind) {
  hvf_exit *x = &v->exit;
  x->kind = kind;
  x->e = v->record;
  x->placed = x->rip_written = x->rax_written = x->rdx_written = x->port.string = false;
  x->linear_tried = x->wide = x->told = false;
  x->length = 0;
  x->controlled = x->controlled && kind == LUNA_EXIT_OTHER;
  if (x->controlled) {
    x->reason = x->control.reason;
    x->stage = HVF_STAGE_NONE;
    return x->reason == VMX_REASON_APIC_WRITE ? hvf_apic_note_start(v, x->control.linear)
                                              : HV_SUCCESS;
  }
  x->reason = reason_of(kind, x->e);
  x->stage = stage_of(kind, x->e);
  switch (kind) {
    case LUNA_EXIT_HOST_FAULT:
    case LUNA_EXIT_INTERNAL:
    case LUNA_EXIT_INSTRUCTION:
    case LUNA_EXIT_SYSTEM_EVENT:
      return fail_exit(v, kind);
    case LUNA_EXIT_OTHER:
      return x->e->reason == EXIT_WINDOW ? HV_SUCCESS : fail_exit(v, kind);
    case LUNA_EXIT_EXCEPTION: /* of INT3 */
      x->length = 1;
      return HV_SUCCESS;
    case LUNA_EXIT_FAULT:
      hvf_follow_access(v);
      return v->apic_page_count ? note_apic_access(v) : HV_SUCCESS;
    default:
      return HV_SUCCESS;
  }
}

/* The only refusal of the system that has no errno is that of the registers. */
static hv_return_t present_failure(hvf_vcpu *v, int status) {
  if (status != LUNA_ERROR_SYSTEM || luna_error_number() != 0) {
    return hvf_status(status);
  }
  hvf_status(status); /* the sentence says which */
  return present(v, LUNA_EXIT_FAIL_ENTRY);
}

/* The entry fails, and what was answered is done without it; hv_ext_error_message says why. If that
 * makes a further exit, it goes first, and the next entry fails. With what is to be controlled, the
 * processor does not come as far as the registers: `error` has the number of the failed VMLAUNCH
 * then, else 0. */
static hv_return_t refuse(hvf_vcpu *v, uint32_t error) {
  hvf_exit *x = &v->exit;
  int further = luna_vcpu_finish(v->vcpu);
  if (further > 0) {
    return present(v, further);
  }
  present(v, LUNA_EXIT_FAIL_ENTRY);
  x->seen = (luna_exit){.kind = error ? LUNA_EXIT_FAIL_ENTRY : 0, .value = error};
  x->e = &x->seen;
  return HV_SUCCESS;
}

/* An exit that comes before the guest was entered: KVM still has to finish what was answered. If
 * that makes a further exit, it goes first, and the request to stop stays. */
static int finish_early(hvf_vcpu *v, int kind) {
  int further = luna_vcpu_finish(v->vcpu);
  if (further == 0) {
    return kind;
  }
  if (kind == LUNA_EXIT_INTERRUPTED) {
    atomic_store(&v->interrupted, true);
    luna_vcpu_interrupt(v->vcpu);
  }
  return further;
}

static bool takes_nmis(const hvf_vcpu *v) {
  const uint32_t none = 0xa; /* blocking by MOV SS, by NMI (SDM Vol. 3, table 25-3) */
  uint32_t blocking = 0;
  return luna_vcpu_get_blocking(v->vcpu, &blocking) == LUNA_OK && !(blocking & none);
}

/* An interrupt that the guest does not accept now would wait. */
static bool accepts(const hvf_vcpu *v, uint32_t event) {
  const uint32_t interrupts = 0xb, flag = 1 << 9; /* all kinds of blocking; RFLAGS.IF */
  const uint32_t type = event & IRQ_INFO_TYPE_MASK;
  uint32_t blocking = 0;
  uint64_t flags = 0;
  luna_vcpu_get_blocking(v->vcpu, &blocking);
  luna_vcpu_get(v->vcpu, LUNA_RFLAGS, &flags);
  return type == IRQ_INFO_EXT_IRQ ? flags & flag && !(blocking & 3)
                                  : type != IRQ_INFO_NMI || !(blocking & interrupts);
}

/* The window for NMIs is open before each instruction that nothing blocks them at. KVM tells
 * nothing of it, so the guest goes there step by step; an event to inject comes first. */
static int enter(hvf_vcpu *v, uint64_t deadline, uint32_t event) {
  const uint32_t controls = v->controls[HV_VMX_CAP_PROCBASED];
  int kind = LUNA_EXIT_DEBUG;
  if (event && v->followed && hvf_timer_is_over(v) && accepts(v, event)) {
    return hvf_follow_deliver_alone(v);
  }
  if (v->followed || !(controls & (CPU_BASED_MTF | CPU_BASED_VIRTUAL_NMI_WND))) {
    return luna_vcpu_run(v->vcpu, deadline);
  }
  do {
    if (controls & CPU_BASED_VIRTUAL_NMI_WND && !event && takes_nmis(v)) {
      return NMI_WINDOW;
    }
    kind = luna_vcpu_step(v->vcpu, deadline);
    event = 0;
  } while (kind == LUNA_EXIT_DEBUG && !(controls & CPU_BASED_MTF));
  return kind;
}

/* Whether a control is on that goes together with others only. */
static bool is_combined(const hvf_vcpu *v) {
  return v->controls[HV_VMX_CAP_PROCBASED] & (CPU_BASED_VIRTUAL_NMI_WND | CPU_BASED_TPR_SHADOW) ||
         v->controls[HV_VMX_CAP_EXIT] & VMEXIT_SAVE_VMX_TIMER;
}

/* `deadline` as luna_vcpu_run has it. */
static hv_return_t run(hvf_vcpu *v, uint64_t deadline) {
  const uint32_t event = v->entry_event;
  const bool accelerated = hvf_the_vm.options & HV_VM_ACCEL_APIC;
  bool was_open = v->exit.stage == HVF_STAGE_OPEN || v->exit.stage == HVF_STAGE_COMPLETED;
  hv_return_t result = v->unchecked ? hvf_setup_check(v) : HV_SUCCESS;
  if (result == HV_SUCCESS && v->exit.stage != HVF_STAGE_NONE) {
    result = hvf_leave_exit(v);
  }
  if (result == HV_SUCCESS && v->followed && v->stale) {
    result = hvf_follow_hand_over(v);
  }
  if (result != HV_SUCCESS) {
    return result;
  }
  v->info = (hvf_info){.code = HV_VM_EXITINFO_VMX};
  if ((is_combined(v) && !hvf_guest_check_controls(v)) || (event && !hvf_guest_check_event(v))) {
    return refuse(v, ENTRY_CONTROLS);
  }
  if (v->suspect && !hvf_guest_check(v)) {
    return refuse(v, 0);
  }
  result = event ? hvf_entry_inject(v) : HV_SUCCESS;
  if (result != HV_SUCCESS) {
    return result;
  }
  int kind = 0;
  if (hvf_timer_is_on(v)) {
    deadline = hvf_timer_begin(v, deadline);
  }
  do {
    result = accelerated ? hvf_extint_offer(v) : HV_SUCCESS;
    if (result != HV_SUCCESS) {
      return result;
    }
    kind = event && hvf_entry_is_step(event) ? STEP_PENDING : enter(v, deadline, event);
  } while (!is_for_program(v, kind));
  if (event) {
    hvf_entry_take_back(v, event);
  }
  if (was_open && (kind == LUNA_EXIT_TIMEOUT || kind == LUNA_EXIT_INTERRUPTED ||
                   kind == LUNA_EXIT_SIGNAL || kind == NMI_WINDOW || kind == STEP_PENDING)) {
    kind = finish_early(v, kind);
  }
  if (kind < 0) {
    return present_failure(v, kind);
  }
  if (hvf_timer_is_on(v)) {
    hvf_timer_end(v);
  }
  result = present(v, kind);
  if (kind == LUNA_EXIT_FAIL_ENTRY) {
    hvf_guest_explain(v);
  }
  return result;
}

/* ---- The framework's ---- */

/* With local APICs of KVM a guest halts there, where no interrupt of the host is to wake it. */
hv_return_t hv_vcpu_run(hv_vcpuid_t vcpu) {
  hvf_vcpu *v;
  hv_return_t result = hvf_owned(vcpu, &v);
  if (result != HV_SUCCESS || hvf_the_vm.options & HV_VM_ACCEL_APIC) {
    return result == HV_SUCCESS ? run(v, 0) : result;
  }
  result = hvf_tick_begin(v);
  result = result == HV_SUCCESS ? run(v, 0) : result;
  hvf_tick_end(v);
  return result;
}

hv_return_t hv_vcpu_run_until(hv_vcpuid_t vcpu, uint64_t deadline) {
  hvf_vcpu *v;
  hv_return_t result = hvf_owned(vcpu, &v);
  if (result != HV_SUCCESS) {
    return result;
  }
  if (deadline == HV_DEADLINE_FOREVER) {
    deadline = 0; /* which the core takes for none */
  } else if (deadline == 0) {
    deadline = 1;
  }
  return run(v, deadline);
}

hv_return_t hv_vcpu_interrupt(hv_vcpuid_t *vcpus, unsigned int vcpu_count) {
  return vcpus || vcpu_count == 0 ? hvf_reach_interrupt(vcpus, vcpu_count)
                                  : hvf_fail(HV_BAD_ARGUMENT, "no list of vCPUs");
}

hv_return_t hv_vcpu_vmx_status(hv_vcpuid_t vcpu, uint32_t *status) {
  const uint32_t zero_flag = 0x40;
  hvf_vcpu *v;
  hv_return_t result = hvf_owned(vcpu, &v);
  if (result != HV_SUCCESS) {
    return result;
  }
  if (!status) {
    return hvf_fail(HV_BAD_ARGUMENT, "nowhere to put the status");
  }
  *status = hvf_entry_error(v) ? zero_flag : 0;
  return HV_SUCCESS;
}
