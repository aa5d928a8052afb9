/* SPDX-License-Identifier: MIT
 * The last exceptions and interrupts that were delivered, or whose delivery failed: what is noted
 * of each, and giving them out. */
#include "soft/deliver/deliver.h"
#include "soft/kernel/kernel.h"

static luna_last_exception *latest(soft_cpu *cpu) {
  return &cpu->past[cpu->past_count % LUNA_LAST_EXCEPTIONS];
}

static uint32_t source_of(const soft_event *event) {
  return event->source == SOFT_FROM_FAULT       ? LUNA_FROM_EXCEPTION
         : event->source == SOFT_FROM_INTERRUPT ? LUNA_FROM_INTERRUPT
                                                : LUNA_FROM_INSTRUCTION;
}

void soft_past_begin(soft_cpu *cpu, const soft_event *event, uint64_t rip) {
  cpu->stage = LUNA_DELIVERY_LIMIT;
  cpu->past_count++;
  luna_last_exception *one = latest(cpu);
  one->serial = cpu->past_count;
  one->rip = rip;
  one->address = event->vector == VECTOR_PF && event->source == SOFT_FROM_FAULT ? cpu->cr2 : 0;
  one->met_address = 0;
  one->error = event->error;
  one->met_error = 0;
  one->vector = event->vector;
  one->met = 0;
  one->source = source_of(event);
  one->stage = LUNA_DELIVERY_LIMIT;
  one->cs = cpu->seg[SEG_CS].selector;
  one->cpl = cpu->cpl;
  one->flags = event->has_error ? LUNA_EXCEPTION_ERROR : 0;
}

void soft_past_met(soft_cpu *cpu, const soft_event *met) {
  luna_last_exception *one = latest(cpu);
  one->stage = cpu->stage;
  one->met = met->vector;
  one->met_error = met->error;
  one->met_address = met->vector == VECTOR_PF ? cpu->cr2 : 0;
  one->flags |= LUNA_EXCEPTION_MET;
  one->flags |= met->has_error && !soft_is_real(cpu) ? LUNA_EXCEPTION_MET_ERROR : 0;
}

void soft_past_shutdown(soft_cpu *cpu) {
  latest(cpu)->flags |= LUNA_EXCEPTION_SHUTDOWN;
}

void soft_past_get(const soft_cpu *cpu, luna_kvm_exceptions *given) {
  uint64_t end = cpu->past_count;
  uint64_t first = end > LUNA_LAST_EXCEPTIONS ? end - LUNA_LAST_EXCEPTIONS + 1 : 1;
  given->count = 0;
  given->reserved = 0;
  for (uint64_t serial = first; serial <= end; serial++) {
    given->list[given->count++] = cpu->past[serial % LUNA_LAST_EXCEPTIONS];
  }
}
