/* SPDX-License-Identifier: MIT
 * From interrupt lines to pins and messages (api.rst, KVM_SET_GSI_ROUTING, KVM_IRQ_LINE,
 * KVM_SIGNAL_MSI). */
#include "soft/irqchip/irqchip.h"
#include "soft/kernel/kernel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The lines of a PC: 0 to 15 to the 8259s, all to the IOAPIC. */
bool soft_routes_default(soft_chip *chip) {
  struct kvm_irq_routing_entry *routes = calloc(16 + SOFT_PINS, sizeof *routes);
  if (!routes) {
    return false;
  }
  uint32_t count = 0;
  for (uint32_t line = 0; line < SOFT_PINS; line++) {
    routes[count++] =
        (struct kvm_irq_routing_entry){.gsi = line,
                                       .type = KVM_IRQ_ROUTING_IRQCHIP,
                                       .u.irqchip = {.irqchip = KVM_IRQCHIP_IOAPIC, .pin = line}};
    if (line < 16) {
      routes[count++] = (struct kvm_irq_routing_entry){
          .gsi = line,
          .type = KVM_IRQ_ROUTING_IRQCHIP,
          .u.irqchip = {.irqchip = line < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE,
                        .pin = line & 7}};
    }
  }
  free(chip->routes);
  chip->routes = routes;
  chip->route_count = count;
  return true;
}

static bool is_route(const soft_chip *chip, const struct kvm_irq_routing_entry *route) {
  if (route->gsi >= SOFT_ROUTES_MAX || route->flags & ~(uint32_t)KVM_MSI_VALID_DEVID) {
    return false;
  }
  if (route->type == KVM_IRQ_ROUTING_MSI) {
    return true;
  }
  if (route->type != KVM_IRQ_ROUTING_IRQCHIP || chip->kind != SOFT_CHIP_KERNEL) {
    return false;
  }
  uint32_t pins = route->u.irqchip.irqchip == KVM_IRQCHIP_IOAPIC ? SOFT_PINS : 8;
  return route->u.irqchip.irqchip <= KVM_IRQCHIP_IOAPIC && route->u.irqchip.pin < pins;
}

int soft_routes_set(soft_vm *vm, const struct kvm_irq_routing *routing) {
  soft_chip *chip = &vm->chip;
  if (chip->kind == SOFT_CHIP_NONE || routing->flags || routing->nr > SOFT_ROUTES_MAX) {
    return soft_refuse(EINVAL);
  }
  for (uint32_t i = 0; i < routing->nr; i++) {
    if (!is_route(chip, &routing->entries[i])) {
      return soft_refuse(EINVAL);
    }
  }
  struct kvm_irq_routing_entry *routes = calloc(routing->nr + 1u, sizeof *routes);
  if (!routes) {
    return soft_refuse(ENOMEM);
  }
  memcpy(routes, routing->entries, routing->nr * sizeof *routes);
  pthread_mutex_lock(&chip->lock);
  free(chip->routes);
  chip->routes = routes;
  chip->route_count = routing->nr;
  pthread_mutex_unlock(&chip->lock);
  return 0;
}

int soft_msi(soft_vm *vm, uint64_t address, uint32_t data) {
  soft_message message = {.destination = address >> 12 & 0xff,
                          .vector = (uint8_t)data,
                          .delivery = data >> 8 & 7,
                          .logical = address >> 2 & 1,
                          .level = data >> 15 & 1};
  return (int)soft_message_send(vm, message);
}

static int set_pin(soft_vm *vm, const struct kvm_irq_routing_entry *route, bool level) {
  unsigned pin = route->u.irqchip.pin;
  if (route->u.irqchip.irqchip == KVM_IRQCHIP_IOAPIC) {
    return soft_ioapic_line(vm, pin, level);
  }
  soft_pic_line(vm, route->u.irqchip.irqchip == KVM_IRQCHIP_PIC_SLAVE ? pin + 8 : pin, level);
  return 1;
}

/* Under the lock. */
static int set_line(soft_vm *vm, uint32_t line, bool level) {
  soft_chip *chip = &vm->chip;
  int taken = 0;
  for (uint32_t i = 0; i < chip->route_count; i++) {
    const struct kvm_irq_routing_entry *route = &chip->routes[i];
    if (route->gsi != line) {
      continue;
    }
    if (route->type == KVM_IRQ_ROUTING_IRQCHIP) {
      taken += set_pin(vm, route, level);
    } else if (level) {
      taken += soft_msi(vm, (uint64_t)route->u.msi.address_hi << 32 | route->u.msi.address_lo,
                        route->u.msi.data);
    }
  }
  return taken;
}

int soft_line_set(soft_vm *vm, uint32_t line, bool level) {
  soft_chip *chip = &vm->chip;
  if (chip->kind == SOFT_CHIP_NONE) {
    return soft_refuse(ENXIO);
  }
  pthread_mutex_lock(&chip->lock);
  int taken = set_line(vm, line, level);
  pthread_mutex_unlock(&chip->lock);
  return taken;
}

/* Up and down, under the lock: the timer's line. */
void soft_pin_pulse(soft_vm *vm, uint32_t line) {
  set_line(vm, line, true);
  set_line(vm, line, false);
}

bool soft_eoi_leaves(soft_vm *vm, const soft_cpu *cpu, unsigned vector) {
  soft_chip *chip = &vm->chip;
  bool leaves = false;
  pthread_mutex_lock(&chip->lock);
  for (uint32_t i = 0; i < chip->route_count && !leaves; i++) {
    const struct kvm_irq_routing_entry *route = &chip->routes[i];
    if (route->type == KVM_IRQ_ROUTING_MSI && route->gsi < chip->eoi_lines) {
      soft_message message = {.destination = route->u.msi.address_lo >> 12 & 0xff,
                              .logical = route->u.msi.address_lo >> 2 & 1};
      leaves = (route->u.msi.data & 0xff) == vector && route->u.msi.data >> 15 & 1 &&
               soft_message_matches(cpu, &message);
    }
  }
  pthread_mutex_unlock(&chip->lock);
  return leaves;
}
