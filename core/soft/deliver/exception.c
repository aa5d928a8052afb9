/* SPDX-License-Identifier: MIT
 * Faults leave the handler; here they are delivered, and what fails on the way becomes a double or
 * a triple fault (SDM volume 3, table 6-5). */
#include "soft/deliver/deliver.h"
#include "soft/vmx/vmx.h"

void soft_leave(soft_cpu *cpu, soft_escape why) {
  if (cpu->current) {
    cpu->rip = soft_rip_at(cpu, cpu->current);
  }
  longjmp(cpu->escape, (int)why);
}

/* The event that was on its way, and the new one. */
typedef enum severity {
  BENIGN,
  CONTRIBUTORY,
  PAGE_FAULT
} severity;

static severity severity_of(unsigned vector) {
  if (vector == VECTOR_PF) {
    return PAGE_FAULT;
  }
  return vector == VECTOR_DE || (vector >= VECTOR_TS && vector <= VECTOR_GP) ? CONTRIBUTORY
                                                                             : BENIGN;
}

static bool makes_double(const soft_cpu *cpu, unsigned vector) {
  if (cpu->delivering < 0 || cpu->event.source != SOFT_FROM_FAULT) {
    return false;
  }
  severity first = severity_of((unsigned)cpu->delivering), second = severity_of(vector);
  return (first == CONTRIBUTORY && second == CONTRIBUTORY) ||
         (first == PAGE_FAULT && second != BENIGN);
}

__attribute__((noreturn)) static void throw_event(soft_cpu *cpu, soft_event event) {
  if (cpu->delivering >= 0) {
    soft_past_met(cpu, &event);
  }
  if (soft_unlikely(cpu->controlled)) {
    soft_vmx_exception(cpu, &event);
  }
  if (cpu->delivering == VECTOR_DF && cpu->event.source == SOFT_FROM_FAULT) {
    cpu->double_fault = true; /* a third one */
    soft_past_shutdown(cpu);
  } else if (makes_double(cpu, event.vector)) {
    event = (soft_event){.vector = VECTOR_DF, .has_error = true};
    if (soft_unlikely(cpu->controlled)) {
      soft_vmx_exception(cpu, &event);
    }
  }
  cpu->event = event;
  cpu->delivering = -1;
  cpu->single = false;
  soft_leave(cpu, SOFT_ESCAPE_EXCEPTION);
}

void soft_fault(soft_cpu *cpu, int vector, uint32_t error) {
  throw_event(cpu, (soft_event){.vector = (uint8_t)vector, .has_error = true, .error = error});
}

void soft_raise(soft_cpu *cpu, int vector) {
  throw_event(cpu, (soft_event){.vector = (uint8_t)vector});
}

bool soft_take_exception(soft_cpu *cpu) {
  if (cpu->double_fault) {
    cpu->double_fault = false;
    return false;
  }
  cpu->current = NULL;
  soft_event event = cpu->event;
  event.has_error &= !soft_is_real(cpu);
  if (event.vector != VECTOR_DB) { /* seen where the delivery fails, as on processors */
    cpu->rflags |= FLAG_RF;
  }
  soft_deliver(cpu, event, cpu->rip);
  return true;
}
