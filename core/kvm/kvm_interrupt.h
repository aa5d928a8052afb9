/* SPDX-License-Identifier: MIT
 * Typed calls to KVM, as in kvm.h, for controllers, interrupts and the time-stamp counter's
 * frequency. */
#ifndef LUNA_KVM_INTERRUPT_H
#define LUNA_KVM_INTERRUPT_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>

int luna_kvm_create_irqchip(int vm_fd);
int luna_kvm_create_pit(int vm_fd);
int luna_kvm_irq_line(int vm_fd, uint32_t line, uint32_t level);
int luna_kvm_interrupt(int vcpu_fd, uint32_t vector);
int luna_kvm_signal_msi(int vm_fd, uint64_t address, uint32_t data);
int luna_kvm_set_routing(int vm_fd, const struct kvm_irq_routing *routing);
int luna_kvm_irqfd(int vm_fd, const struct kvm_irqfd *irqfd);
int luna_kvm_get_irqchip(int vm_fd, struct kvm_irqchip *chip);
int luna_kvm_set_irqchip(int vm_fd, const struct kvm_irqchip *chip);
int luna_kvm_get_lapic(int vcpu_fd, struct kvm_lapic_state *lapic);
int luna_kvm_set_lapic(int vcpu_fd, const struct kvm_lapic_state *lapic);
int luna_kvm_get_mp_state(int vcpu_fd, uint32_t *state);
int luna_kvm_set_mp_state(int vcpu_fd, uint32_t state);
/* Whether the host has a capability that is asked for seldom. */
bool luna_kvm_has(long capability);
/* kHz, or -1. */
int luna_kvm_get_tsc_khz(int vcpu_fd);
int luna_kvm_set_tsc_khz(int vcpu_fd, uint32_t kilohertz);

#endif
