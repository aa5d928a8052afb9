/* SPDX-License-Identifier: MIT
 * The 82093AA. */
#include "soft/irqchip/irqchip.h"
#include "soft/kernel/kernel.h"

enum {
  REDIRECTION_LOGICAL = 1 << 11,
  REDIRECTION_REMOTE = 1 << 14, /* a level interrupt that has not ended */
  REDIRECTION_LEVEL = 1 << 15,
  REDIRECTION_MASKED = 1 << 16,
  REDIRECTION_READ_ONLY = REDIRECTION_REMOTE | 1 << 12,
  SELECT = 0,
  WINDOW = 0x10,
  FIRST_ENTRY = 0x10
};

void soft_ioapic_reset(soft_ioapic *ioapic) {
  *ioapic = (soft_ioapic){0};
  for (unsigned i = 0; i < SOFT_PINS; i++) {
    ioapic->redirection[i] = REDIRECTION_MASKED;
  }
}

static bool fire(soft_vm *vm, unsigned pin) {
  soft_ioapic *ioapic = &vm->chip.ioapic;
  uint64_t entry = ioapic->redirection[pin];
  bool level = entry & REDIRECTION_LEVEL;
  if (entry & REDIRECTION_MASKED || (level && entry & REDIRECTION_REMOTE)) {
    return false;
  }
  soft_message message = {.destination = (uint32_t)(entry >> 56),
                          .vector = (uint8_t)entry,
                          .delivery = entry >> 8 & 7,
                          .logical = entry & REDIRECTION_LOGICAL,
                          .level = level};
  unsigned taken = soft_message_send(vm, message);
  if (level && taken) {
    ioapic->redirection[pin] |= REDIRECTION_REMOTE;
  }
  return taken > 0;
}

bool soft_ioapic_line(soft_vm *vm, unsigned pin, bool level) {
  soft_ioapic *ioapic = &vm->chip.ioapic;
  uint32_t bit = 1u << pin, old = ioapic->lines;
  ioapic->lines = level ? old | bit : old & ~bit;
  bool rises = level && (!(old & bit) || ioapic->redirection[pin] & REDIRECTION_LEVEL);
  return !rises || fire(vm, pin);
}

uint32_t soft_ioapic_eoi(soft_vm *vm, unsigned vector) {
  soft_ioapic *ioapic = &vm->chip.ioapic;
  uint32_t ended = 0;
  for (unsigned pin = 0; pin < SOFT_PINS; pin++) {
    uint64_t *entry = &ioapic->redirection[pin];
    if ((*entry & 0xff) == vector && *entry & REDIRECTION_LEVEL) {
      *entry &= ~(uint64_t)REDIRECTION_REMOTE;
      ended |= 1u << pin;
      if (ioapic->lines >> pin & 1) {
        fire(vm, pin);
      }
    }
  }
  return ended;
}

uint32_t soft_ioapic_read(const soft_ioapic *ioapic, unsigned offset) {
  if (offset == SELECT) {
    return ioapic->select;
  }
  unsigned number = ioapic->select;
  if (offset != WINDOW) {
    return 0;
  }
  if (number >= FIRST_ENTRY && number < FIRST_ENTRY + 2 * SOFT_PINS) {
    uint64_t entry = ioapic->redirection[(number - FIRST_ENTRY) / 2];
    return (uint32_t)(number & 1 ? entry >> 32 : entry);
  }
  switch (number) {
    case 0:
    case 2:
      return ioapic->id;
    case 1:
      return (SOFT_PINS - 1) << 16 | 0x11;
    default:
      return 0;
  }
}

static void write_entry(soft_vm *vm, unsigned pin, bool high, uint32_t value) {
  soft_ioapic *ioapic = &vm->chip.ioapic;
  uint64_t *entry = &ioapic->redirection[pin];
  if (high) {
    *entry = (*entry & 0xffffffff) | (uint64_t)value << 32;
  } else {
    *entry = (*entry & (~UINT64_C(0xffffffff) | REDIRECTION_READ_ONLY)) |
             (value & 0x1ffff & ~(uint32_t)REDIRECTION_READ_ONLY);
    if (!(value & REDIRECTION_LEVEL)) {
      *entry &= ~(uint64_t)REDIRECTION_REMOTE;
    }
  }
  if (*entry & REDIRECTION_LEVEL && ioapic->lines >> pin & 1) {
    fire(vm, pin);
  }
}

void soft_ioapic_write(soft_vm *vm, unsigned offset, uint32_t value) {
  soft_ioapic *ioapic = &vm->chip.ioapic;
  if (offset == SELECT) {
    ioapic->select = (uint8_t)value;
    return;
  }
  unsigned number = ioapic->select;
  if (offset != WINDOW) {
    return;
  }
  if (number == 0) {
    ioapic->id = value & 0x0f000000;
  } else if (number >= FIRST_ENTRY && number < FIRST_ENTRY + 2 * SOFT_PINS) {
    write_entry(vm, (number - FIRST_ENTRY) / 2, number & 1, value);
  }
}
