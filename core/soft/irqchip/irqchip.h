/* SPDX-License-Identifier: MIT
 * Interrupt controllers: a LAPIC in each CPU, and an IOAPIC, two 8259s and an 8254 in the machine.
 * Lines and the machine's controllers change under soft_chip.lock; bits of a LAPIC's IRR by atomic
 * operations of any thread. A vCPU's thread parks its vector state before it comes here. */
#ifndef SOFT_IRQCHIP_H
#define SOFT_IRQCHIP_H

#include "soft/cpu.h"

typedef enum soft_chip_kind {
  SOFT_CHIP_NONE,
  SOFT_CHIP_SPLIT, /* only the LAPICs */
  SOFT_CHIP_KERNEL
} soft_chip_kind;

enum {
  SOFT_PINS = 24,
  SOFT_ROUTES_MAX = 4096
};

/* Registers of a LAPIC, by their offset in its page. */
enum {
  APIC_ID = 0x20,
  APIC_VERSION = 0x30,
  APIC_TPR = 0x80,
  APIC_PPR = 0xa0,
  APIC_EOI = 0xb0,
  APIC_LDR = 0xd0,
  APIC_DFR = 0xe0,
  APIC_SPURIOUS = 0xf0,
  APIC_ISR = 0x100,
  APIC_TMR = 0x180,
  APIC_IRR = 0x200,
  APIC_ERROR = 0x280,
  APIC_COMMAND = 0x300,
  APIC_COMMAND_HIGH = 0x310,
  APIC_TIMER = 0x320,
  APIC_LINT0 = 0x350,
  APIC_LVT_ERROR = 0x370,
  APIC_TIMER_INITIAL = 0x380,
  APIC_TIMER_CURRENT = 0x390,
  APIC_TIMER_DIVIDE = 0x3e0,
  APIC_SELF = 0x3f0,
  APIC_ENABLED = 1 << 8, /* in the spurious vector's register */
  APIC_MASKED = 1 << 16, /* in entries of the local vector table */
  APIC_TIMER_DEADLINE = 1 << 18,
  APIC_BASE_BSP = 1 << 8,
  APIC_BASE_X2 = 1 << 10,
  APIC_BASE_ON = 1 << 11
};

/* How an interrupt is delivered. */
enum {
  DELIVER_FIXED,
  DELIVER_LOWEST,
  DELIVER_SMI,
  DELIVER_NMI = 4,
  DELIVER_INIT,
  DELIVER_STARTUP,
  DELIVER_EXTINT
};

/* An interrupt on its way to LAPICs. */
typedef struct soft_message {
  uint32_t destination;
  uint8_t vector;
  uint8_t delivery;
  bool logical;
  bool level;
  bool wide; /* 32 bits of destination, as x2APIC has them */
} soft_message;

typedef struct soft_pic {
  uint8_t irr, imr, isr, base;
  uint8_t last;   /* levels of the lines */
  uint8_t elcr;   /* lines that are level-triggered */
  uint8_t lowest; /* the line of least priority */
  uint8_t init;   /* initialization words that are still to come: 0, or the next one's number */
  bool needs_word_4, auto_eoi, read_isr, special_mask, poll, rotates;
} soft_pic;

typedef struct soft_pit_channel {
  uint16_t count, latch;
  uint8_t mode, access;
  bool write_high, read_high, latched, status_latched;
  uint8_t low, status;
  uint64_t from; /* when the count was loaded, in nanoseconds */
  uint64_t due;
  uint64_t period;
} soft_pit_channel;

typedef struct soft_ioapic {
  uint64_t redirection[SOFT_PINS];
  uint32_t lines;
  uint32_t id;
  uint8_t select;
} soft_ioapic;

typedef struct soft_chip {
  pthread_mutex_t lock;
  soft_chip_kind kind;
  uint32_t eoi_lines; /* split: lines below it whose ends may go to user space */
  soft_pic pics[2];
  soft_ioapic ioapic;
  bool has_pit;
  uint8_t pit_gate; /* port 0x61's low bits */
  _Atomic uint64_t pit_due;
  soft_pit_channel pit[3];
  struct kvm_irq_routing_entry *routes;
  uint32_t route_count;
} soft_chip;

/* ---- chip.c: what the CPU asks ---- */

/* An access to the LAPIC's or IOAPIC's page, to a port or an MSR: false where it is none. */
bool soft_chip_read(soft_cpu *cpu, uint64_t gpa, unsigned size, uint64_t *value);
bool soft_chip_write(soft_cpu *cpu, uint64_t gpa, unsigned size, uint64_t value);
bool soft_chip_in(soft_cpu *cpu, uint16_t port, unsigned size, uint64_t *value);
bool soft_chip_out(soft_cpu *cpu, uint16_t port, unsigned size, uint64_t value);
bool soft_chip_msr(soft_cpu *cpu, uint32_t msr, uint64_t *value, bool write);
bool soft_set_apic_base(soft_cpu *cpu, uint64_t value, bool host);
/* Takes the vector that is to be delivered now, or -1. */
int soft_chip_take(soft_cpu *cpu);
/* Does what INIT and SIPI ask; whether the CPU then has nothing to run. */
bool soft_chip_idle(soft_cpu *cpu);
/* Whether a halted CPU waits inside KVM_RUN. */
bool soft_chip_waits(const soft_cpu *cpu);
/* Waits for an event: 0 when there may be one, or an errno. */
int soft_chip_wait(soft_cpu *cpu);
/* What is due by the clock. */
void soft_chip_poll(soft_cpu *cpu);

/* ---- lapic.c ---- */

void soft_lapic_reset(soft_cpu *cpu);
bool soft_lapic_on(const soft_cpu *cpu);
uint32_t soft_lapic_read(soft_cpu *cpu, unsigned offset);
void soft_lapic_write(soft_cpu *cpu, unsigned offset, uint32_t value);
bool soft_lapic_msr(soft_cpu *cpu, uint32_t msr, uint64_t *value, bool write);
/* The highest vector above the processor's priority, -1 for none. */
int soft_lapic_pending(const soft_cpu *cpu);
void soft_lapic_acknowledge(soft_cpu *cpu, int vector);
/* Any thread: sets a vector; false where the LAPIC is off. */
bool soft_lapic_accept(soft_cpu *cpu, unsigned vector, bool level);
uint32_t *soft_lapic_register(const soft_cpu *cpu, unsigned offset);

/* timer.c */
void soft_timer_start(soft_cpu *cpu);
void soft_timer_stop(soft_cpu *cpu);
/* After the registers were written from outside. */
void soft_timer_restore(soft_cpu *cpu);
void soft_timer_deadline(soft_cpu *cpu, uint64_t tsc);
uint32_t soft_timer_current(const soft_cpu *cpu);
/* Fires what is due. */
void soft_timer_poll(soft_cpu *cpu, uint64_t now);

/* ---- message.c: any thread ---- */

/* How many LAPICs took it. `from`, or NULL, for shorthands. */
unsigned soft_message_send(soft_vm *vm, soft_message message);
void soft_message_command(soft_cpu *from, uint32_t destination, uint32_t command, bool wide);
bool soft_message_matches(const soft_cpu *cpu, const soft_message *message);
/* Makes the vCPU look at its events. */
void soft_wake(soft_cpu *cpu, unsigned attention);

/* ---- ioapic.c, pic.c, pit.c: under the lock ---- */

void soft_ioapic_reset(soft_ioapic *ioapic);
uint32_t soft_ioapic_read(const soft_ioapic *ioapic, unsigned offset);
void soft_ioapic_write(soft_vm *vm, unsigned offset, uint32_t value);
/* Whether the line's change was taken. */
bool soft_ioapic_line(soft_vm *vm, unsigned pin, bool level);
/* The pins whose interrupt has ended, one bit each. */
uint32_t soft_ioapic_eoi(soft_vm *vm, unsigned vector);

void soft_pics_reset(soft_chip *chip);
void soft_pic_line(soft_vm *vm, unsigned pin, bool level);
bool soft_pic_port(soft_vm *vm, uint16_t port, uint8_t *value, bool write);
/* Whether the pair asks for an interrupt; and its vector, acknowledged. */
bool soft_pic_asks(const soft_chip *chip);
int soft_pic_acknowledge(soft_vm *vm);

bool soft_pit_port(soft_vm *vm, uint16_t port, uint8_t *value, bool write);
void soft_pit_poll(soft_vm *vm, uint64_t now);

/* ---- route.c ---- */

/* KVM_IRQ_LINE: how many took it. */
int soft_line_set(soft_vm *vm, uint32_t line, bool level);
/* Under the lock. */
void soft_pin_pulse(soft_vm *vm, uint32_t line);
bool soft_routes_default(soft_chip *chip);
int soft_routes_set(soft_vm *vm, const struct kvm_irq_routing *routing);
int soft_msi(soft_vm *vm, uint64_t address, uint32_t data);
/* Whether the end of a level interrupt with the vector goes to user space (split). */
bool soft_eoi_leaves(soft_vm *vm, const soft_cpu *cpu, unsigned vector);

#endif
