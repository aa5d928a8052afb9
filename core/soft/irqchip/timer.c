/* SPDX-License-Identifier: MIT
 * The LAPIC's timer: a tick is a nanosecond unless user space says otherwise, as with KVM. */
#include "soft/execute/control.h"
#include "soft/irqchip/irqchip.h"
#include "soft/kernel/kernel.h"

enum {
  MODE_PERIODIC = 1,
  MODE_DEADLINE = 2
};

static unsigned mode_of(const soft_cpu *cpu) {
  return *soft_lapic_register(cpu, APIC_TIMER) >> 17 & 3;
}

static uint64_t period_of(const soft_cpu *cpu) {
  uint32_t divide = *soft_lapic_register(cpu, APIC_TIMER_DIVIDE);
  unsigned shift = ((divide & 3) | (divide >> 1 & 4)) + 1;
  return (uint64_t)*soft_lapic_register(cpu, APIC_TIMER_INITIAL) * cpu->vm->bus_cycle
         << (shift & 7);
}

void soft_timer_stop(soft_cpu *cpu) {
  cpu->timer_at = 0;
  cpu->deadline = 0;
}

void soft_timer_start(soft_cpu *cpu) {
  cpu->timer_period = period_of(cpu);
  cpu->timer_from = soft_now();
  cpu->timer_at = cpu->timer_period ? cpu->timer_from + cpu->timer_period : 0;
}

/* From the current count: from 0 it runs out at once, as KVM does it. */
void soft_timer_restore(soft_cpu *cpu) {
  uint64_t initial = *soft_lapic_register(cpu, APIC_TIMER_INITIAL);
  uint64_t current = *soft_lapic_register(cpu, APIC_TIMER_CURRENT);
  if (mode_of(cpu) == MODE_DEADLINE) {
    return; /* it follows its MSR */
  }
  soft_timer_stop(cpu);
  if (initial) {
    cpu->timer_period = period_of(cpu);
    cpu->timer_from = soft_now();
    cpu->timer_at = cpu->timer_from + cpu->timer_period / initial * current;
  }
}

void soft_timer_deadline(soft_cpu *cpu, uint64_t tsc) {
  if (mode_of(cpu) != MODE_DEADLINE) {
    return;
  }
  uint64_t now = soft_tsc(cpu), moment = soft_now();
  cpu->deadline = tsc;
  cpu->timer_from = moment;
  cpu->timer_at = tsc == 0 ? 0 : moment + (tsc > now ? soft_tsc_to_ns(cpu, tsc - now) : 0);
  soft_look_around(cpu);
}

uint32_t soft_timer_current(const soft_cpu *cpu) {
  uint64_t now = soft_now();
  if (!cpu->timer_at || cpu->timer_at <= now || mode_of(cpu) == MODE_DEADLINE) {
    return 0;
  }
  uint64_t initial = *soft_lapic_register(cpu, APIC_TIMER_INITIAL);
  uint64_t per_tick = initial ? cpu->timer_period / initial : 1;
  return (uint32_t)((cpu->timer_at - now) / (per_tick ? per_tick : 1));
}

/* A period that was missed is not made up for. */
void soft_timer_poll(soft_cpu *cpu, uint64_t now) {
  if (!cpu->timer_at || now < cpu->timer_at) {
    return;
  }
  uint32_t entry = *soft_lapic_register(cpu, APIC_TIMER);
  if (mode_of(cpu) == MODE_PERIODIC && cpu->timer_period) {
    cpu->timer_at += cpu->timer_period;
    if (cpu->timer_at < now) {
      cpu->timer_at = now + cpu->timer_period;
    }
  } else {
    soft_timer_stop(cpu);
  }
  if (!(entry & APIC_MASKED)) {
    soft_lapic_accept(cpu, entry & 0xff, false);
  }
}
