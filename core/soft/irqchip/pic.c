/* SPDX-License-Identifier: MIT
 * Two 8259As, the second behind line 2 of the first. */
#include "soft/irqchip/irqchip.h"
#include "soft/kernel/kernel.h"

enum {
  CASCADE = 2,
  COMMAND_INIT = 0x10,
  COMMAND_READ = 0x08
};

/* The line that is served next, -1 for none: none below what is in service. */
static int next(const soft_pic *pic) {
  unsigned asked = pic->irr & ~pic->imr & 0xffu;
  for (unsigned i = 0; asked && i < 8; i++) {
    unsigned line = (i + pic->lowest + 1) & 7;
    if (pic->isr >> line & 1 && !pic->special_mask) {
      return -1;
    }
    if (asked >> line & 1 && !(pic->isr >> line & 1)) {
      return (int)line;
    }
  }
  return -1;
}

static void update(soft_vm *vm) {
  soft_pic *first = &vm->chip.pics[0], *second = &vm->chip.pics[1];
  if (next(second) >= 0) {
    first->irr |= 1 << CASCADE;
  } else {
    first->irr &= (uint8_t) ~(1 << CASCADE);
  }
  soft_cpu *cpu = atomic_load(&vm->cpus[0]);
  if (next(first) >= 0 && cpu) {
    soft_wake(cpu, SOFT_ATTEND_EVENT);
  }
}

void soft_pics_reset(soft_chip *chip) {
  chip->pics[0] = chip->pics[1] = (soft_pic){.lowest = 7};
}

bool soft_pic_asks(const soft_chip *chip) {
  return next(&chip->pics[0]) >= 0;
}

static void serve(soft_pic *pic, int line) {
  uint8_t bit = (uint8_t)(1 << line);
  if (!(pic->elcr & bit)) {
    pic->irr &= (uint8_t)~bit;
  }
  if (!pic->auto_eoi) {
    pic->isr |= bit;
  } else if (pic->rotates) {
    pic->lowest = (uint8_t)line;
  }
}

/* Line 7 where the one that asked is gone. */
int soft_pic_acknowledge(soft_vm *vm) {
  soft_pic *first = &vm->chip.pics[0], *second = &vm->chip.pics[1];
  int line = next(first);
  if (line < 0) {
    return first->base + 7;
  }
  int vector = first->base + line;
  serve(first, line);
  if (line == CASCADE) {
    int inner = next(second);
    if (inner >= 0) {
      serve(second, inner);
    }
    vector = second->base + (inner < 0 ? 7 : inner);
  }
  update(vm);
  return vector;
}

void soft_pic_line(soft_vm *vm, unsigned pin, bool level) {
  soft_pic *pic = &vm->chip.pics[pin >> 3 & 1];
  uint8_t bit = (uint8_t)(1 << (pin & 7));
  bool rises = level && !(pic->last & bit);
  pic->last = level ? pic->last | bit : pic->last & (uint8_t)~bit;
  if (pic->elcr & bit ? level : rises) {
    pic->irr |= bit;
  } else if (pic->elcr & bit) { /* an edge is remembered */
    pic->irr &= (uint8_t)~bit;
  }
  update(vm);
}

static void end_of_interrupt(soft_pic *pic, unsigned command) {
  unsigned kind = command >> 5, line = command & 7;
  if (kind == 1 || kind == 5) { /* of the highest in service */
    for (unsigned i = 0; i < 8; i++) {
      line = (i + pic->lowest + 1) & 7;
      if (pic->isr >> line & 1) {
        pic->isr &= (uint8_t) ~(1 << line);
        pic->lowest = kind == 5 ? (uint8_t)line : pic->lowest;
        break;
      }
    }
  } else if (kind == 3 || kind == 7) {
    pic->isr &= (uint8_t) ~(1 << line);
    pic->lowest = kind == 7 ? (uint8_t)line : pic->lowest;
  } else if (kind == 6) {
    pic->lowest = (uint8_t)line;
  } else if (kind != 2) { /* 8259A, "OPERATION COMMAND WORD 2": no operation */
    pic->rotates = kind == 4;
  }
}

static void write_command(soft_pic *pic, uint8_t value) {
  if (value & COMMAND_INIT) {
    uint8_t elcr = pic->elcr, last = pic->last;
    *pic = (soft_pic){.lowest = 7, .init = 2, .needs_word_4 = value & 1, .elcr = elcr};
    pic->last = last;
  } else if (value & COMMAND_READ) {
    pic->poll = value & 4;
    if (value & 2) {
      pic->read_isr = value & 1;
    }
    if (value & 0x40) {
      pic->special_mask = value >> 5 & 1;
    }
  } else {
    end_of_interrupt(pic, value);
  }
}

static void write_data(soft_pic *pic, uint8_t value) {
  switch (pic->init) {
    case 2:
      pic->base = value & 0xf8;
      pic->init = 3;
      break;
    case 3:
      pic->init = pic->needs_word_4 ? 4 : 0;
      break;
    case 4:
      pic->auto_eoi = value >> 1 & 1;
      pic->init = 0;
      break;
    default:
      pic->imr = value;
      break;
  }
}

/* Behind a poll command the next read is an acknowledge, at either port (8259A, "POLL COMMAND"). */
static uint8_t read_port(soft_pic *pic, bool data) {
  if (pic->poll) {
    int line = next(pic);
    pic->poll = false;
    if (line >= 0) {
      serve(pic, line);
      return (uint8_t)(0x80 | line);
    }
    return 0;
  }
  return data ? pic->imr : pic->read_isr ? pic->isr : pic->irr;
}

bool soft_pic_port(soft_vm *vm, uint16_t port, uint8_t *value, bool write) {
  if (port == 0x4d0 || port == 0x4d1) {
    soft_pic *pic = &vm->chip.pics[port & 1];
    if (write) {
      pic->elcr = *value & (port & 1 ? 0xde : 0xf8);
    } else {
      *value = pic->elcr;
    }
    return true;
  }
  if ((port & ~0x81u) != 0x20) {
    return false;
  }
  soft_pic *pic = &vm->chip.pics[port >> 7];
  if (!write) {
    *value = read_port(pic, port & 1);
  } else if (port & 1) {
    write_data(pic, *value);
  } else {
    write_command(pic, *value);
  }
  update(vm);
  return true;
}
