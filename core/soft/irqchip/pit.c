/* SPDX-License-Identifier: MIT
 * The 8254: channel 0 raises line 0, channel 2 is behind port 0x61. */
#include "soft/execute/control.h"
#include "soft/irqchip/irqchip.h"
#include "soft/kernel/kernel.h"

__extension__ typedef unsigned __int128 wide;

enum {
  FREQUENCY = 1193182,
  ACCESS_LOW = 1,
  ACCESS_HIGH = 2,
  ACCESS_BOTH = 3
};

static uint64_t count_of(const soft_pit_channel *channel) {
  return channel->count ? channel->count : 65536;
}

static uint64_t ticks(const soft_pit_channel *channel) {
  return (uint64_t)((wide)(soft_now() - channel->from) * FREQUENCY / 1000000000u);
}

static bool repeats(const soft_pit_channel *channel) {
  return channel->mode == 2 || channel->mode == 3;
}

static uint16_t current(const soft_pit_channel *channel) {
  uint64_t passed = ticks(channel), count = count_of(channel);
  if (channel->mode == 3) {
    return (uint16_t)(count - passed * 2 % count);
  }
  return (uint16_t)(repeats(channel) ? count - passed % count : count - passed);
}

static bool output(const soft_pit_channel *channel) {
  uint64_t passed = ticks(channel), count = count_of(channel);
  switch (channel->mode) {
    case 0:
    case 1:
      return passed >= count;
    case 2:
      return passed % count != count - 1;
    case 3:
      return passed % count < (count + 1) / 2;
    default:
      return passed != count;
  }
}

static void load(soft_vm *vm, unsigned number, unsigned count) {
  soft_pit_channel *channel = &vm->chip.pit[number];
  channel->count = (uint16_t)count;
  channel->from = soft_now();
  channel->period = count_of(channel) * 1000000000u / FREQUENCY;
  if (number == 0) {
    channel->due = channel->from + channel->period;
    atomic_store(&vm->chip.pit_due, channel->due);
    soft_cpu *cpu = atomic_load(&vm->cpus[0]);
    if (cpu) {
      soft_wake(cpu, SOFT_ATTEND_EVENT);
    }
  }
}

static void write_count(soft_vm *vm, unsigned number, uint8_t value) {
  soft_pit_channel *channel = &vm->chip.pit[number];
  switch (channel->access) {
    case ACCESS_LOW:
      load(vm, number, value);
      break;
    case ACCESS_HIGH:
      load(vm, number, (unsigned)value << 8);
      break;
    default:
      if (channel->write_high) {
        load(vm, number, channel->low | (unsigned)value << 8);
      } else {
        channel->low = value;
      }
      channel->write_high = !channel->write_high;
      break;
  }
}

static uint8_t read_count(soft_pit_channel *channel) {
  if (channel->status_latched) {
    channel->status_latched = false;
    return channel->status;
  }
  uint16_t value = channel->latched ? channel->latch : current(channel);
  bool high =
      channel->access == ACCESS_HIGH || (channel->access == ACCESS_BOTH && channel->read_high);
  if (channel->access == ACCESS_BOTH) {
    channel->read_high = !channel->read_high;
  }
  if (channel->access != ACCESS_BOTH || !channel->read_high) {
    channel->latched = false;
  }
  return (uint8_t)(high ? value >> 8 : value);
}

static void latch(soft_pit_channel *channel) {
  if (!channel->latched) {
    channel->latch = current(channel);
    channel->latched = true;
  }
}

/* The read-back command: what its clear bits ask for, of the channels it names. */
static void read_back(soft_chip *chip, uint8_t command) {
  for (unsigned i = 0; i < 3; i++) {
    soft_pit_channel *channel = &chip->pit[i];
    if (!(command >> (i + 1) & 1)) {
      continue;
    }
    if (!(command & 0x20)) {
      latch(channel);
    }
    if (!(command & 0x10) && !channel->status_latched) {
      channel->status = (uint8_t)(output(channel) << 7 | channel->access << 4 | channel->mode << 1);
      channel->status_latched = true;
    }
  }
}

static void write_control(soft_chip *chip, uint8_t value) {
  unsigned number = value >> 6;
  if (number == 3) {
    read_back(chip, value);
    return;
  }
  soft_pit_channel *channel = &chip->pit[number];
  unsigned access = value >> 4 & 3;
  if (access == 0) {
    latch(channel);
    return;
  }
  channel->access = (uint8_t)access;
  channel->mode = value >> 1 & 7;
  if (channel->mode > 5) {
    channel->mode &= 3;
  }
  channel->write_high = channel->read_high = channel->latched = false;
  if (number == 0) {
    channel->due = 0;
    atomic_store(&chip->pit_due, 0);
  }
}

static uint8_t read_gate(const soft_chip *chip) {
  unsigned refresh = soft_now() / 15085 & 1;
  unsigned high = output(&chip->pit[2]);
  return (uint8_t)(chip->pit_gate | high << 5 | refresh << 4);
}

static void write_gate(soft_chip *chip, uint8_t value) {
  if (value & 1 && !(chip->pit_gate & 1)) {
    chip->pit[2].from = soft_now();
  }
  chip->pit_gate = value & 3;
}

bool soft_pit_port(soft_vm *vm, uint16_t port, uint8_t *value, bool write) {
  soft_chip *chip = &vm->chip;
  if (!chip->has_pit) {
    return false;
  }
  switch (port) {
    case 0x40:
    case 0x41:
    case 0x42:
      if (write) {
        write_count(vm, port & 3, *value);
      } else {
        *value = read_count(&chip->pit[port & 3]);
      }
      return true;
    case 0x43:
      if (write) {
        write_control(chip, *value);
      } else {
        *value = 0;
      }
      return true;
    case 0x61:
      if (write) {
        write_gate(chip, *value);
      } else {
        *value = read_gate(chip);
      }
      return true;
    default:
      return false;
  }
}

void soft_pit_poll(soft_vm *vm, uint64_t now) {
  soft_pit_channel *channel = &vm->chip.pit[0];
  if (!channel->due || now < channel->due) {
    return;
  }
  channel->due = repeats(channel) ? channel->due + channel->period : 0;
  if (channel->due && channel->due < now) {
    channel->due = now + channel->period;
  }
  atomic_store(&vm->chip.pit_due, channel->due);
  soft_pin_pulse(vm, 0);
}
