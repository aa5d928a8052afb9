/* SPDX-License-Identifier: MIT
 * What a CPU asks of the interrupt controllers, and how it waits while it is halted. */
#include "soft/irqchip/irqchip.h"

#include "soft/execute/control.h"
#include "soft/insn.h"
#include "soft/kernel/kernel.h"
#include "soft/mmu/mmu.h"
#include "soft/vector/vector.h"

#include <errno.h>

enum {
  IOAPIC_PAGE = 0xfec00
};
#define MSR_TSC_DEADLINE 0x6e0u

static bool in_lapic(const soft_cpu *cpu, uint64_t gpa) {
  uint64_t modes = cpu->apic_base & (APIC_BASE_ON | APIC_BASE_X2);
  return cpu->vm->chip.kind != SOFT_CHIP_NONE && modes == APIC_BASE_ON &&
         gpa >> 12 == (cpu->apic_base & UINT64_C(0xfffffffff000)) >> 12;
}

static bool in_ioapic(const soft_cpu *cpu, uint64_t gpa) {
  return cpu->vm->chip.kind == SOFT_CHIP_KERNEL && gpa >> 12 == IOAPIC_PAGE;
}

bool soft_chip_read(soft_cpu *cpu, uint64_t gpa, unsigned size, uint64_t *value) {
  (void)size;
  if (in_lapic(cpu, gpa)) {
    soft_park(cpu);
    *value = (uint64_t)soft_lapic_read(cpu, gpa & 0xff0) >> 8 * (gpa & 3);
    return true;
  }
  if (in_ioapic(cpu, gpa)) {
    soft_chip *chip = &cpu->vm->chip;
    soft_park(cpu);
    pthread_mutex_lock(&chip->lock);
    *value = soft_ioapic_read(&chip->ioapic, gpa & 0xff);
    pthread_mutex_unlock(&chip->lock);
    return true;
  }
  return false;
}

bool soft_chip_write(soft_cpu *cpu, uint64_t gpa, unsigned size, uint64_t value) {
  (void)size;
  if (in_lapic(cpu, gpa)) {
    soft_park(cpu);
    if (!(gpa & 15)) {
      soft_lapic_write(cpu, gpa & 0xff0, (uint32_t)value);
    }
    return true;
  }
  if (in_ioapic(cpu, gpa)) {
    soft_chip *chip = &cpu->vm->chip;
    soft_park(cpu);
    pthread_mutex_lock(&chip->lock);
    soft_ioapic_write(cpu->vm, gpa & 0xff, (uint32_t)value);
    pthread_mutex_unlock(&chip->lock);
    return true;
  }
  return false;
}

static bool is_port(const soft_chip *chip, uint16_t port) {
  bool pic = (port & ~0x81u) == 0x20 || port == 0x4d0 || port == 0x4d1;
  bool pit = chip->has_pit && ((port >= 0x40 && port <= 0x43) || port == 0x61);
  return chip->kind == SOFT_CHIP_KERNEL && (pic || pit);
}

static bool access_port(soft_cpu *cpu, uint16_t port, uint8_t *value, bool write) {
  soft_chip *chip = &cpu->vm->chip;
  if (!is_port(chip, port)) {
    return false;
  }
  soft_park(cpu);
  pthread_mutex_lock(&chip->lock);
  bool done =
      soft_pic_port(cpu->vm, port, value, write) || soft_pit_port(cpu->vm, port, value, write);
  pthread_mutex_unlock(&chip->lock);
  return done;
}

bool soft_chip_in(soft_cpu *cpu, uint16_t port, unsigned size, uint64_t *value) {
  uint8_t byte = 0;
  bool done = size == 1 && access_port(cpu, port, &byte, false);
  *value = byte;
  return done;
}

bool soft_chip_out(soft_cpu *cpu, uint16_t port, unsigned size, uint64_t value) {
  uint8_t byte = (uint8_t)value;
  return size == 1 && access_port(cpu, port, &byte, true);
}

bool soft_chip_msr(soft_cpu *cpu, uint32_t msr, uint64_t *value, bool write) {
  if (cpu->vm->chip.kind == SOFT_CHIP_NONE) {
    return false;
  }
  if (msr >= 0x800 && msr < 0x840) {
    soft_park(cpu);
    return soft_lapic_msr(cpu, msr, value, write);
  }
  if (msr == MSR_TSC_DEADLINE) {
    soft_park(cpu);
    if (write) {
      soft_timer_deadline(cpu, *value);
    } else {
      *value = cpu->deadline;
    }
    return true;
  }
  return false;
}

/* Whether the 8259s reach this CPU: by LINT0 as ExtINT, with the LAPIC off, or through the
 * IOAPIC. */
static bool takes_external(const soft_cpu *cpu) {
  const soft_chip *chip = &cpu->vm->chip;
  if (cpu->id != 0 || chip->kind != SOFT_CHIP_KERNEL) {
    return false;
  }
  if (!soft_lapic_on(cpu)) {
    return true;
  }
  uint32_t ext = DELIVER_EXTINT << 8, mask = APIC_MASKED | 0x700;
  if ((*soft_lapic_register(cpu, APIC_LINT0) & mask) == ext) {
    return true;
  }
  for (unsigned pin = 0; pin < SOFT_PINS; pin++) {
    if ((chip->ioapic.redirection[pin] & mask) == ext) {
      return true;
    }
  }
  return false;
}

int soft_chip_take(soft_cpu *cpu) {
  soft_chip *chip = &cpu->vm->chip;
  if (chip->kind == SOFT_CHIP_NONE) {
    return -1;
  }
  if (soft_pic_asks(chip) && takes_external(cpu)) {
    soft_park(cpu);
    pthread_mutex_lock(&chip->lock);
    int vector = soft_pic_acknowledge(cpu->vm);
    pthread_mutex_unlock(&chip->lock);
    return vector;
  }
  int vector = soft_lapic_pending(cpu);
  if (vector >= 0) {
    soft_lapic_acknowledge(cpu, vector);
  }
  return vector;
}

/* ---- INIT and SIPI ---- */

static void take_init(soft_cpu *cpu) {
  soft_park(cpu);
  soft_cpu_reset(cpu, true);
  soft_lapic_reset(cpu);
  atomic_store(&cpu->mp_state, cpu->id == 0 ? KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_INIT_RECEIVED);
}

static void take_sipi(soft_cpu *cpu, unsigned vector) {
  cpu->seg[SEG_CS].selector = (uint16_t)(vector << 8);
  cpu->seg[SEG_CS].base = (uint64_t)vector << 12;
  cpu->rip = 0;
  soft_mode_changed(cpu);
  atomic_store(&cpu->mp_state, KVM_MP_STATE_RUNNABLE);
}

/* Both are remembered: they may come before the thread has looked. */
bool soft_chip_idle(soft_cpu *cpu) {
  if (cpu->vm->chip.kind == SOFT_CHIP_NONE) {
    return false;
  }
  if (atomic_load_explicit(&cpu->init, memory_order_relaxed)) {
    atomic_store(&cpu->init, false);
    take_init(cpu);
  }
  int sipi = atomic_load_explicit(&cpu->sipi, memory_order_relaxed);
  if (sipi) {
    atomic_store(&cpu->sipi, 0);
    if (atomic_load(&cpu->mp_state) == KVM_MP_STATE_INIT_RECEIVED) {
      take_sipi(cpu, (unsigned)sipi & 0xff);
    }
  }
  uint32_t state = atomic_load_explicit(&cpu->mp_state, memory_order_relaxed);
  if (state == KVM_MP_STATE_HALTED) {
    atomic_store(&cpu->mp_state, KVM_MP_STATE_RUNNABLE);
    cpu->halted = true;
  }
  return state == KVM_MP_STATE_UNINITIALIZED || state == KVM_MP_STATE_INIT_RECEIVED;
}

/* ---- Waiting ---- */

bool soft_chip_waits(const soft_cpu *cpu) {
  return cpu->vm->chip.kind != SOFT_CHIP_NONE;
}

void soft_chip_poll(soft_cpu *cpu) {
  soft_chip *chip = &cpu->vm->chip;
  if (chip->kind == SOFT_CHIP_NONE) {
    return;
  }
  uint64_t now = soft_now(), due = atomic_load_explicit(&chip->pit_due, memory_order_relaxed);
  soft_timer_poll(cpu, now);
  if (due && now >= due && cpu->id == 0) {
    pthread_mutex_lock(&chip->lock);
    soft_pit_poll(cpu->vm, now);
    pthread_mutex_unlock(&chip->lock);
  }
}

/* Whether a halted CPU has something to do. */
static bool is_woken(soft_cpu *cpu) {
  if (atomic_exchange(&cpu->kicked, false)) {
    cpu->halted = false;
    return true;
  }
  if (cpu->halted) {
    bool open = cpu->rflags & FLAG_IF;
    const soft_chip *chip = &cpu->vm->chip;
    bool asked = cpu->interrupt >= 0 || soft_lapic_pending(cpu) >= 0 ||
                 (soft_pic_asks(chip) && takes_external(cpu));
    if ((atomic_load(&cpu->nmi) && !cpu->nmi_masked) || (open && asked)) {
      return true;
    }
  }
  return atomic_load(&cpu->init) || atomic_load(&cpu->sipi) ||
         atomic_load(&cpu->attention) & (SOFT_ATTEND_MAP | SOFT_ATTEND_CODE);
}

static uint64_t next_moment(const soft_cpu *cpu) {
  uint64_t moment = cpu->timer_at;
  uint64_t pit = cpu->id == 0 ? atomic_load(&cpu->vm->chip.pit_due) : 0;
  return pit && (!moment || pit < moment) ? pit : moment;
}

/* Says that it waits before it looks for the last time: who wakes it sets the event first. */
int soft_chip_wait(soft_cpu *cpu) {
  soft_park(cpu);
  atomic_fetch_and(&cpu->attention, ~(unsigned)SOFT_ATTEND_EVENT);
  atomic_store(&cpu->waiting, true);
  soft_chip_poll(cpu);
  uint64_t from = soft_now();
  int number = is_woken(cpu) ? 0 : soft_sleep(cpu, next_moment(cpu));
  atomic_store(&cpu->waiting, false);
  cpu->halted_ns += cpu->halted ? soft_now() - from : 0;
  soft_stats_update(cpu);
  soft_chip_poll(cpu);
  return number;
}
