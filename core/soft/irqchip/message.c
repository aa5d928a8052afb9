/* SPDX-License-Identifier: MIT
 * Interrupts between LAPICs, and to them. */
#include "soft/irqchip/irqchip.h"
#include "soft/kernel/kernel.h"
#include "soft/vmx/vmx.h"

#include <unistd.h>

enum {
  SHORTHAND_NONE,
  SHORTHAND_SELF,
  SHORTHAND_ALL,
  SHORTHAND_OTHERS
};

/* A vCPU that is halted waits for its descriptor. */
void soft_wake(soft_cpu *cpu, unsigned attention) {
  uint64_t one = 1;
  atomic_fetch_or(&cpu->attention, attention);
  if (atomic_load(&cpu->waiting) && write(cpu->fd, &one, sizeof one) < 0) {
    return; /* it has been woken as often as an eventfd counts */
  }
}

bool soft_message_matches(const soft_cpu *cpu, const soft_message *message) {
  bool x2 = cpu->apic_base & APIC_BASE_X2;
  uint32_t destination = message->destination, id = (uint32_t)cpu->id;
  if (!message->logical) {
    if (message->wide) {
      return destination == ~0u || destination == id;
    }
    destination &= 0xff;
    return destination == 0xff ||
           destination == (x2 ? id : *soft_lapic_register(cpu, APIC_ID) >> 24);
  }
  if (x2) {
    return destination >> 16 == id >> 4 && destination >> (id & 15) & 1;
  }
  uint32_t logical = *soft_lapic_register(cpu, APIC_LDR) >> 24;
  if (message->wide && destination > 0xff) {
    return false;
  }
  if (*soft_lapic_register(cpu, APIC_DFR) >> 28 == 15) {
    return destination & logical;
  }
  return (destination & 0xf0) == (logical & 0xf0) && destination & logical & 15;
}

/* The target looks for changed code too: that is what one processor asks another for by an
 * interrupt. */
static bool deliver(soft_cpu *cpu, const soft_message *message) {
  unsigned attention = SOFT_ATTEND_EVENT | SOFT_ATTEND_CODE;
  switch (message->delivery) {
    case DELIVER_FIXED:
    case DELIVER_LOWEST:
      if (!soft_lapic_accept(cpu, message->vector, message->level)) {
        return false;
      }
      break;
    case DELIVER_NMI:
      atomic_fetch_add(&cpu->nmi, 1);
      break;
    case DELIVER_INIT:
      atomic_store(&cpu->init, true);
      break;
    case DELIVER_STARTUP:
      atomic_store(&cpu->sipi, message->vector | 0x100);
      break;
    default:
      return false;
  }
  soft_wake(cpu, attention);
  return true;
}

unsigned soft_message_send(soft_vm *vm, soft_message message) {
  unsigned taken = 0;
  for (unsigned i = 0; i < SOFT_CPUS_MAX; i++) {
    soft_cpu *cpu = atomic_load(&vm->cpus[i]);
    if (cpu && soft_message_matches(cpu, &message) && deliver(cpu, &message)) {
      taken++;
      if (message.delivery == DELIVER_LOWEST) {
        break;
      }
    }
  }
  return taken;
}

/* ---- The command register ---- */

/* Whether a SIPI would start it: it waits for one, or will once it has looked at its INIT. */
static bool waits_for_start(const soft_cpu *cpu) {
  bool waits = atomic_load(&cpu->mp_state) == KVM_MP_STATE_INIT_RECEIVED ||
               (atomic_load(&cpu->init) && cpu->id != 0);
  return waits && !atomic_load(&cpu->sipi);
}

static bool is_meant(const soft_cpu *from, const soft_cpu *cpu, const soft_message *message,
                     unsigned shorthand) {
  switch (shorthand) {
    case SHORTHAND_NONE:
      return soft_message_matches(cpu, message);
    case SHORTHAND_SELF:
      return cpu == from;
    default:
      return cpu != from || shorthand == SHORTHAND_ALL;
  }
}

/* Of INIT and SIPI a control may have an exit, with those that it stops or starts. */
static void start(soft_cpu *from, const soft_message *message, unsigned shorthand) {
  uint64_t targets = 0;
  for (unsigned i = 0; i < SOFT_CPUS_MAX; i++) {
    soft_cpu *cpu = atomic_load(&from->vm->cpus[i]);
    if (cpu && is_meant(from, cpu, message, shorthand)) {
      bool changes = message->delivery == DELIVER_INIT || waits_for_start(cpu);
      targets |= (uint64_t)changes << i;
      deliver(cpu, message);
    }
  }
  if (targets && soft_asks_further(from, CPU_BASED2_APIC_REG_VIRT)) {
    from->started = targets;
    from->due |= SOFT_DUE_START;
  }
}

void soft_message_command(soft_cpu *from, uint32_t destination, uint32_t command, bool wide) {
  soft_message message = {.destination = destination,
                          .vector = (uint8_t)command,
                          .delivery = command >> 8 & 7,
                          .logical = command >> 11 & 1,
                          .wide = wide};
  unsigned shorthand = command >> 18 & 3;
  bool asserts = command >> 14 & 1, level = command >> 15 & 1;
  if (message.delivery == DELIVER_INIT && level && !asserts) {
    return; /* the end of an INIT, which nothing waits for */
  }
  if (message.delivery == DELIVER_INIT || message.delivery == DELIVER_STARTUP) {
    start(from, &message, shorthand);
    return;
  }
  if (shorthand == SHORTHAND_NONE) {
    soft_message_send(from->vm, message);
    return;
  }
  for (unsigned i = 0; i < SOFT_CPUS_MAX; i++) {
    soft_cpu *cpu = atomic_load(&from->vm->cpus[i]);
    if (cpu && is_meant(from, cpu, &message, shorthand)) {
      deliver(cpu, &message);
    }
  }
}
