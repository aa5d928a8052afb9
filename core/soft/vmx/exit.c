/* SPDX-License-Identifier: MIT
 * Exits that controls ask for: what the run page says of them, and those for events. */
#include "soft/vmx/vmx.h"

#include "kvm/kvm_control.h"
#include "soft/access.h"
#include "soft/deliver/deliver.h"
#include "soft/irqchip/irqchip.h"

/* The one bit of interruption information that an enumerator cannot hold. */
static const uint32_t valid = UINT32_C(1) << 31;

static uint32_t type_of(const soft_event *event) {
  switch (event->source) {
    case SOFT_FROM_INT:
      return IRQ_INFO_SOFT_IRQ;
    case SOFT_FROM_INT3:
      return IRQ_INFO_SOFT_EXC;
    case SOFT_FROM_INT1:
      return IRQ_INFO_PRIV_SOFT_EXC;
    case SOFT_FROM_INTERRUPT:
      return event->vector == VECTOR_NMI ? IRQ_INFO_NMI : IRQ_INFO_EXT_IRQ;
    default:
      return IRQ_INFO_HARD_EXC;
  }
}

static uint32_t information(const soft_event *event) {
  return valid | (event->has_error ? IRQ_INFO_ERROR_VALID : 0) | type_of(event) | event->vector;
}

/* Of an instruction in the shadow of another, the shadow is there again. */
SOFT_INLINE void describe(soft_cpu *cpu, luna_control_exit *x, uint32_t reason,
                          uint64_t qualification) {
  x->reason = reason;
  x->length = cpu->current ? cpu->current->length : 0;
  x->qualification = qualification;
  x->linear = 0;
  x->instruction = x->interruption = x->interruption_error = 0;
  x->vectoring = x->vectoring_error = x->reserved = 0;
  if (cpu->delivering >= 0) {
    x->vectoring = information(&cpu->event);
    x->vectoring_error = cpu->event.has_error ? cpu->event.error : 0;
    x->length = cpu->event.length;
  }
  cpu->shadow |= cpu->shadow_was;
}

luna_control_exit *soft_vmx_begin(soft_cpu *cpu, uint32_t reason, uint64_t qualification) {
  luna_control_exit *x = (luna_control_exit *)(void *)cpu->run->padding;
  cpu->run->exit_reason = LUNA_KVM_EXIT_CONTROL;
  describe(cpu, x, reason, qualification);
  return x;
}

/* Of the qualification only what the access has no part in (table 28-7). */
void soft_vmx_tell_access(soft_cpu *cpu, uint64_t linear, bool walks) {
  const uint64_t valid_linear = 1 << 7, translated = 1 << 8;
  luna_control_exit *x = (luna_control_exit *)(void *)(cpu->run->padding + LUNA_KVM_ACCESS_OFFSET);
  describe(cpu, x, VMX_REASON_EPT_VIOLATION, valid_linear | (walks ? 0 : translated));
  x->linear = linear;
}

void soft_vmx_leave(soft_cpu *cpu) {
  cpu->delivering = -1;
  soft_leave(cpu, SOFT_ESCAPE_CONTROL);
}

const soft_insn *soft_vmx_return(soft_cpu *cpu) {
  cpu->rip = soft_rip_at(cpu, cpu->current);
  cpu->due |= SOFT_DUE_EXIT;
  return NULL;
}

void soft_vmx_exit(soft_cpu *cpu, const soft_insn *insn, uint32_t reason, uint64_t qualification) {
  cpu->current = insn;
  soft_vmx_begin(cpu, reason, qualification);
  soft_vmx_leave(cpu);
}

/* ---- Exceptions (SDM volume 3, 26.2 and 28.2.2) ---- */

__attribute__((noreturn)) static void exit_event(soft_cpu *cpu, const soft_event *event,
                                                 uint64_t qualification) {
  luna_control_exit *x = soft_vmx_begin(cpu, VMX_REASON_EXC_NMI, qualification);
  bool has_error = event->has_error && !soft_is_real(cpu);
  soft_event told = *event;
  told.has_error = has_error;
  x->interruption = information(&told);
  x->interruption_error = has_error ? event->error : 0;
  if (event->source == SOFT_FROM_FAULT) {
    x->length = x->vectoring ? x->length : 0;
    cpu->rflags |= event->vector == VECTOR_DB ? 0 : FLAG_RF;
  }
  if (event->vector == VECTOR_DF && event->source == SOFT_FROM_FAULT) {
    x->vectoring = x->vectoring_error = 0; /* the event has become this one */
  }
  soft_vmx_leave(cpu);
}

void soft_vmx_exception(soft_cpu *cpu, const soft_event *event) {
  if (event->vector != VECTOR_PF && soft_traps(cpu, event->vector)) {
    exit_event(cpu, event, 0);
  }
}

void soft_vmx_page_fault(soft_cpu *cpu, uint64_t linear, uint32_t error) {
  const luna_controls *controls = &cpu->controls;
  bool matches = (error & controls->fault_mask) == controls->fault_match;
  if (matches == soft_traps(cpu, VECTOR_PF)) {
    const soft_event event = {.vector = VECTOR_PF, .has_error = true, .error = error};
    exit_event(cpu, &event, linear);
  }
}

void soft_vmx_debug(soft_cpu *cpu, uint64_t dr6) {
  if (soft_traps(cpu, VECTOR_DB)) {
    exit_event(cpu, &(soft_event){.vector = VECTOR_DB}, dr6);
  }
}

/* ---- Between two instructions ---- */

static bool exit_between(soft_cpu *cpu, uint32_t reason) {
  soft_vmx_begin(cpu, reason, 0);
  return true;
}

/* Behind the instruction that has written the command register (SDM volume 3, 30.4.3.2). */
static bool exit_start(soft_cpu *cpu) {
  cpu->due &= ~(unsigned)SOFT_DUE_START;
  soft_vmx_begin(cpu, VMX_REASON_APIC_WRITE, APIC_COMMAND)->linear = cpu->started;
  return true;
}

bool soft_vmx_between(soft_cpu *cpu) {
  unsigned due = cpu->due;
  if (due & SOFT_DUE_START) {
    return exit_start(cpu);
  }
  cpu->due &= ~(unsigned)SOFT_DUE_STEP;
  if (due & SOFT_DUE_STEP && soft_asks(cpu, CPU_BASED_MTF)) {
    return exit_between(cpu, VMX_REASON_MTF);
  }
  if (due & SOFT_DUE_EVENT) {
    return false;
  }
  cpu->due = 0;
  if (due & SOFT_DUE_TPR && cpu->cr8 < (cpu->controls.tpr_threshold & 15)) {
    return exit_between(cpu, VMX_REASON_TPR_THRESHOLD);
  }
  if (soft_asks(cpu, CPU_BASED_VIRTUAL_NMI_WND) && !cpu->nmi_masked && !cpu->shadow) {
    return exit_between(cpu, VMX_REASON_VIRTUAL_NMI_WND);
  }
  return false;
}

/* ---- Events of user space (SDM volume 3, 27.6.1) ---- */

bool soft_vmx_take(soft_cpu *cpu) {
  if (!(cpu->due & SOFT_DUE_EVENT)) {
    return false;
  }
  soft_event event = cpu->entry;
  bool software = event.length > 0;
  cpu->due &= ~(unsigned)SOFT_DUE_EVENT;
  cpu->halted = false;
  cpu->shadow = 0; /* 27.7.1 */
  event.has_error &= !soft_is_real(cpu);
  if (event.source == SOFT_FROM_INTERRUPT && event.vector == VECTOR_NMI) {
    cpu->nmi_masked = true;
  }
  soft_deliver(cpu, event, software ? (cpu->rip + event.length) & cpu->ip_mask : cpu->rip);
  return true;
}
