/* SPDX-License-Identifier: MIT
 * The local APIC: its registers as xAPIC and x2APIC, and the vectors that wait in it (SDM volume 3,
 * chapter 11). */
#include "soft/irqchip/irqchip.h"

#include "soft/execute/control.h"
#include "soft/kernel/kernel.h"

#include <string.h>

uint32_t *soft_lapic_register(const soft_cpu *cpu, unsigned offset) {
  return (uint32_t *)(void *)(uintptr_t)(cpu->apic + offset);
}

static uint32_t get(const soft_cpu *cpu, unsigned offset) {
  return __atomic_load_n(soft_lapic_register(cpu, offset), __ATOMIC_RELAXED);
}

static void set(soft_cpu *cpu, unsigned offset, uint32_t value) {
  __atomic_store_n(soft_lapic_register(cpu, offset), value, __ATOMIC_RELAXED);
}

/* The bit of a vector in ISR, TMR or IRR. */
static uint32_t *word_of(const soft_cpu *cpu, unsigned base, unsigned vector) {
  return soft_lapic_register(cpu, base + vector / 32 * 16);
}

static void set_bit(soft_cpu *cpu, unsigned base, unsigned vector) {
  __atomic_fetch_or(word_of(cpu, base, vector), 1u << vector % 32, __ATOMIC_SEQ_CST);
}

static void clear_bit(soft_cpu *cpu, unsigned base, unsigned vector) {
  __atomic_fetch_and(word_of(cpu, base, vector), ~(1u << vector % 32), __ATOMIC_SEQ_CST);
}

static bool has_bit(const soft_cpu *cpu, unsigned base, unsigned vector) {
  return *word_of(cpu, base, vector) >> vector % 32 & 1;
}

static int highest(const soft_cpu *cpu, unsigned base) {
  for (int i = 7; i >= 0; i--) {
    uint32_t word = get(cpu, base + (unsigned)i * 16);
    if (word) {
      return i * 32 + 31 - __builtin_clz(word);
    }
  }
  return -1;
}

static bool is_x2(const soft_cpu *cpu) {
  return cpu->apic_base & APIC_BASE_X2;
}

bool soft_lapic_on(const soft_cpu *cpu) {
  return cpu->apic_base & APIC_BASE_ON && get(cpu, APIC_SPURIOUS) & APIC_ENABLED;
}

void soft_lapic_reset(soft_cpu *cpu) {
  memset(cpu->apic, 0, sizeof cpu->apic);
  set(cpu, APIC_ID, is_x2(cpu) ? (uint32_t)cpu->id : (uint32_t)cpu->id << 24);
  set(cpu, APIC_VERSION, 0x50014);
  set(cpu, APIC_DFR, ~0u);
  set(cpu, APIC_SPURIOUS, 0xff);
  for (unsigned offset = APIC_TIMER; offset <= APIC_LVT_ERROR; offset += 16) {
    set(cpu, offset, APIC_MASKED);
  }
  if (cpu->id == 0) { /* as firmware leaves it: KVM's quirk KVM_X86_QUIRK_LINT0_REENABLED */
    set(cpu, APIC_LINT0, DELIVER_EXTINT << 8);
  }
  soft_timer_stop(cpu);
}

/* ---- Vectors ---- */

static unsigned priority(const soft_cpu *cpu) {
  int serving = highest(cpu, APIC_ISR);
  unsigned task = (unsigned)cpu->cr8 << 4;
  unsigned service = serving < 0 ? 0 : (unsigned)serving & 0xf0;
  return service > task ? service : task;
}

int soft_lapic_pending(const soft_cpu *cpu) {
  int vector = soft_lapic_on(cpu) ? highest(cpu, APIC_IRR) : -1;
  return vector >= 0 && ((unsigned)vector & 0xf0) > priority(cpu) ? vector : -1;
}

void soft_lapic_acknowledge(soft_cpu *cpu, int vector) {
  clear_bit(cpu, APIC_IRR, (unsigned)vector);
  set_bit(cpu, APIC_ISR, (unsigned)vector);
}

bool soft_lapic_accept(soft_cpu *cpu, unsigned vector, bool level) {
  if (!soft_lapic_on(cpu) || vector < 16) {
    return false;
  }
  if (level) {
    set_bit(cpu, APIC_TMR, vector);
  } else {
    clear_bit(cpu, APIC_TMR, vector);
  }
  set_bit(cpu, APIC_IRR, vector);
  soft_wake(cpu, SOFT_ATTEND_EVENT);
  return true;
}

/* The end of what is being served. A level interrupt's goes to the IOAPIC, or to user space that
 * has it. */
static void end(soft_cpu *cpu) {
  int vector = highest(cpu, APIC_ISR);
  if (vector < 0) {
    return;
  }
  clear_bit(cpu, APIC_ISR, (unsigned)vector);
  soft_look_around(cpu);
  soft_chip *chip = &cpu->vm->chip;
  if (!has_bit(cpu, APIC_TMR, (unsigned)vector)) {
    return;
  }
  if (chip->kind == SOFT_CHIP_KERNEL) {
    pthread_mutex_lock(&chip->lock);
    uint32_t ended = soft_ioapic_eoi(cpu->vm, (unsigned)vector);
    pthread_mutex_unlock(&chip->lock);
    for (uint32_t pin = 0; ended >> pin; pin++) {
      if (ended >> pin & 1) {
        soft_irqfds_ended(cpu->vm, pin);
      }
    }
  } else if (soft_eoi_leaves(cpu->vm, cpu, (unsigned)vector)) {
    cpu->eoi_vector = vector + 1;
  }
}

/* ---- Registers ---- */

static uint32_t logical_x2(const soft_cpu *cpu) {
  return (uint32_t)(cpu->id >> 4) << 16 | 1u << (cpu->id & 15);
}

uint32_t soft_lapic_read(soft_cpu *cpu, unsigned offset) {
  switch (offset) {
    case APIC_TPR:
      return (uint32_t)cpu->cr8 << 4;
    case APIC_PPR:
      return priority(cpu);
    case APIC_TIMER_CURRENT:
      return soft_timer_current(cpu);
    case APIC_ID:
      return is_x2(cpu) ? (uint32_t)cpu->id : get(cpu, APIC_ID);
    case APIC_LDR:
      return is_x2(cpu) ? logical_x2(cpu) : get(cpu, APIC_LDR);
    default:
      return offset < sizeof cpu->apic ? get(cpu, offset) : 0;
  }
}

/* An entry of the local vector table; all are masked while the LAPIC is off. */
static void set_entry(soft_cpu *cpu, unsigned offset, uint32_t value) {
  static const uint32_t valid[] = {0x710ff, 0x117ff, 0x117ff, 0x1f7ff, 0x1f7ff, 0x110ff};
  if (!(get(cpu, APIC_SPURIOUS) & APIC_ENABLED)) {
    value |= APIC_MASKED;
  }
  value &= valid[(offset - APIC_TIMER) / 16];
  bool by_deadline = value & APIC_TIMER_DEADLINE;
  if (offset == APIC_TIMER && by_deadline != !!(get(cpu, offset) & APIC_TIMER_DEADLINE)) {
    soft_timer_stop(cpu);
    set(cpu, APIC_TIMER_INITIAL, 0);
  }
  set(cpu, offset, value);
}

static void set_spurious(soft_cpu *cpu, uint32_t value) {
  set(cpu, APIC_SPURIOUS, value & 0x3ff);
  for (unsigned offset = APIC_TIMER; !(value & APIC_ENABLED) && offset <= APIC_LVT_ERROR;
       offset += 16) {
    set(cpu, offset, get(cpu, offset) | APIC_MASKED);
  }
}

void soft_lapic_write(soft_cpu *cpu, unsigned offset, uint32_t value) {
  switch (offset) {
    case APIC_TPR:
      cpu->cr8 = value >> 4 & 15;
      soft_look_around(cpu);
      break;
    case APIC_EOI:
      end(cpu);
      break;
    case APIC_ID:
      if (!is_x2(cpu)) {
        set(cpu, offset, value & 0xff000000);
      }
      break;
    case APIC_LDR:
      if (!is_x2(cpu)) {
        set(cpu, offset, value & 0xff000000);
      }
      break;
    case APIC_DFR:
      if (!is_x2(cpu)) {
        set(cpu, offset, value | 0x0fffffff);
      }
      break;
    case APIC_SPURIOUS:
      set_spurious(cpu, value);
      break;
    case APIC_ERROR:
      set(cpu, offset, 0);
      break;
    case APIC_COMMAND:
      set(cpu, offset, value & ~0x1000u);
      soft_message_command(cpu, get(cpu, APIC_COMMAND_HIGH) >> 24, value, false);
      break;
    case APIC_COMMAND_HIGH:
      set(cpu, offset, value & 0xff000000);
      break;
    case APIC_TIMER_INITIAL:
      if ((get(cpu, APIC_TIMER) >> 17 & 3) != 2) { /* not by deadline */
        set(cpu, offset, value);
        soft_timer_start(cpu);
      }
      break;
    case APIC_TIMER_DIVIDE:
      set(cpu, offset, value & 11);
      break;
    case APIC_SELF:
      if (is_x2(cpu)) {
        soft_lapic_accept(cpu, value & 0xff, false);
      }
      break;
    default:
      if (offset >= APIC_TIMER && offset <= APIC_LVT_ERROR) {
        set_entry(cpu, offset, value);
      }
      break;
  }
}

static bool is_entry(unsigned offset) {
  return offset >= APIC_TIMER && offset <= APIC_LVT_ERROR;
}

/* Registers of the x2APIC that may be written; reserved bits make #GP. */
static bool write_x2(soft_cpu *cpu, unsigned offset, uint64_t value) {
  if (offset == APIC_COMMAND) {
    set(cpu, APIC_COMMAND, (uint32_t)value);
    set(cpu, APIC_COMMAND_HIGH, (uint32_t)(value >> 32));
    soft_message_command(cpu, (uint32_t)(value >> 32), (uint32_t)value, true);
    return true;
  }
  bool may = offset == APIC_TPR || offset == APIC_SPURIOUS || offset == APIC_TIMER_INITIAL ||
             offset == APIC_TIMER_DIVIDE || is_entry(offset) || offset == APIC_SELF ||
             ((offset == APIC_EOI || offset == APIC_ERROR) && !value);
  bool is_byte = offset == APIC_TPR || offset == APIC_SELF;
  if (!may || value >> 32 || (is_byte && value >> 8)) {
    return false;
  }
  soft_lapic_write(cpu, offset, (uint32_t)value);
  return true;
}

/* SDM volume 3, table 11-6: the others make #GP. */
static bool reads_x2(unsigned offset) {
  switch (offset) {
    case APIC_ID:
    case APIC_VERSION:
    case APIC_TPR:
    case APIC_PPR:
    case APIC_LDR:
    case APIC_SPURIOUS:
    case APIC_ERROR:
    case APIC_TIMER_INITIAL:
    case APIC_TIMER_CURRENT:
    case APIC_TIMER_DIVIDE:
      return true;
    default:
      return is_entry(offset) || (offset >= APIC_ISR && offset < APIC_ERROR);
  }
}

static bool read_x2(soft_cpu *cpu, unsigned offset, uint64_t *value) {
  if (offset == APIC_COMMAND) {
    *value = (uint64_t)get(cpu, APIC_COMMAND_HIGH) << 32 | get(cpu, APIC_COMMAND);
    return true;
  }
  if (!reads_x2(offset)) {
    return false;
  }
  *value = soft_lapic_read(cpu, offset);
  return true;
}

bool soft_lapic_msr(soft_cpu *cpu, uint32_t msr, uint64_t *value, bool write) {
  unsigned offset = (msr - 0x800) << 4;
  if (!is_x2(cpu)) {
    return false;
  }
  return write ? write_x2(cpu, offset, *value) : read_x2(cpu, offset, value);
}

/* Off, xAPIC, x2APIC: not every change is one step (SDM volume 3, figure 11-27). */
bool soft_set_apic_base(soft_cpu *cpu, uint64_t value, bool host) {
  uint64_t modes = APIC_BASE_ON | APIC_BASE_X2, old = cpu->apic_base & modes;
  uint64_t known = modes | APIC_BASE_BSP | UINT64_C(0xfffffffff000);
  bool lacks_x2 = value & APIC_BASE_X2 && !soft_cpuid_has(cpu, 1, SOFT_ECX, 21);
  if (value & ~known || (value & modes) == APIC_BASE_X2 || lacks_x2) {
    return false;
  }
  bool leaves_x2 = old == modes && (value & modes) == APIC_BASE_ON;
  bool skips = old == 0 && (value & modes) == modes;
  if (!host && (leaves_x2 || skips)) {
    return false;
  }
  bool changed = (value & modes) != old;
  cpu->apic_base = value;
  if (changed && cpu->vm->chip.kind != SOFT_CHIP_NONE) {
    if ((value & modes) == modes) {
      set(cpu, APIC_ID, (uint32_t)cpu->id);
    } else {
      soft_lapic_reset(cpu);
    }
  }
  return true;
}
