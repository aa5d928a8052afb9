/* SPDX-License-Identifier: MIT
 * Typed calls to KVM, as in kvm.h, for controllers, interrupts and the time-stamp counter's
 * frequency. */
#ifndef LUNA_KVM_INTERRUPT_H
#define LUNA_KVM_INTERRUPT_H

#include "kvm/kvm.h"

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>

int luna_kvm_create_irqchip(luna_fd vm_fd);
int luna_kvm_create_pit(luna_fd vm_fd);
int luna_kvm_irq_line(luna_fd vm_fd, uint32_t line, uint32_t level);
int luna_kvm_interrupt(luna_fd vcpu_fd, uint32_t vector);
int luna_kvm_signal_msi(luna_fd vm_fd, uint64_t address, uint32_t data);
int luna_kvm_set_routing(luna_fd vm_fd, const struct kvm_irq_routing *routing);
int luna_kvm_irqfd(luna_fd vm_fd, const struct kvm_irqfd *irqfd);
int luna_kvm_get_irqchip(luna_fd vm_fd, struct kvm_irqchip *chip);
int luna_kvm_set_irqchip(luna_fd vm_fd, const struct kvm_irqchip *chip);
int luna_kvm_get_lapic(luna_fd vcpu_fd, struct kvm_lapic_state *lapic);
int luna_kvm_set_lapic(luna_fd vcpu_fd, const struct kvm_lapic_state *lapic);
int luna_kvm_get_mp_state(luna_fd vcpu_fd, uint32_t *state);
int luna_kvm_set_mp_state(luna_fd vcpu_fd, uint32_t state);
/* Whether the host has a capability that is asked for seldom. */
bool luna_kvm_has(uint32_t accel, long capability);
/* kHz, or -1. */
int luna_kvm_get_tsc_khz(luna_fd vcpu_fd);
int luna_kvm_set_tsc_khz(luna_fd vcpu_fd, uint32_t kilohertz);

#endif
