/* SPDX-License-Identifier: MIT
 * The system calls to KVM that have to do with interrupts and time. */
#include "kvm/kvm_interrupt.h"

#include "kvm/kvm.h"

int luna_kvm_create_irqchip(luna_fd vm_fd) {
  return luna_kvm_call(vm_fd, KVM_CREATE_IRQCHIP, NULL);
}

int luna_kvm_create_pit(luna_fd vm_fd) {
  /* Port 0x61 is the PIT's too: KVM api, KVM_CREATE_PIT2. */
  struct kvm_pit_config config = {.flags = KVM_PIT_SPEAKER_DUMMY};
  return luna_kvm_call(vm_fd, KVM_CREATE_PIT2, &config);
}

int luna_kvm_irq_line(luna_fd vm_fd, uint32_t line, uint32_t level) {
  struct kvm_irq_level change = {.irq = line, .level = level};
  return luna_kvm_call(vm_fd, KVM_IRQ_LINE, &change);
}

int luna_kvm_interrupt(luna_fd vcpu_fd, uint32_t vector) {
  struct kvm_interrupt interrupt = {.irq = vector};
  return luna_kvm_call(vcpu_fd, KVM_INTERRUPT, &interrupt);
}

int luna_kvm_signal_msi(luna_fd vm_fd, uint64_t address, uint32_t data) {
  struct kvm_msi msi = {
      .address_lo = (uint32_t)address, .address_hi = (uint32_t)(address >> 32), .data = data};
  return luna_kvm_call(vm_fd, KVM_SIGNAL_MSI, &msi);
}

int luna_kvm_set_routing(luna_fd vm_fd, const struct kvm_irq_routing *routing) {
  return luna_kvm_call(vm_fd, KVM_SET_GSI_ROUTING, routing);
}

int luna_kvm_irqfd(luna_fd vm_fd, const struct kvm_irqfd *irqfd) {
  return luna_kvm_call(vm_fd, KVM_IRQFD, irqfd);
}

int luna_kvm_get_irqchip(luna_fd vm_fd, struct kvm_irqchip *chip) {
  return luna_kvm_call(vm_fd, KVM_GET_IRQCHIP, chip);
}

int luna_kvm_set_irqchip(luna_fd vm_fd, const struct kvm_irqchip *chip) {
  return luna_kvm_call(vm_fd, KVM_SET_IRQCHIP, chip);
}

int luna_kvm_get_lapic(luna_fd vcpu_fd, struct kvm_lapic_state *lapic) {
  return luna_kvm_call(vcpu_fd, KVM_GET_LAPIC, lapic);
}

int luna_kvm_set_lapic(luna_fd vcpu_fd, const struct kvm_lapic_state *lapic) {
  return luna_kvm_call(vcpu_fd, KVM_SET_LAPIC, lapic);
}

int luna_kvm_get_mp_state(luna_fd vcpu_fd, uint32_t *state) {
  struct kvm_mp_state mp = {0};
  int result = luna_kvm_call(vcpu_fd, KVM_GET_MP_STATE, &mp);
  *state = mp.mp_state;
  return result;
}

int luna_kvm_set_mp_state(luna_fd vcpu_fd, uint32_t state) {
  struct kvm_mp_state mp = {.mp_state = state};
  return luna_kvm_call(vcpu_fd, KVM_SET_MP_STATE, &mp);
}

int luna_kvm_get_tsc_khz(luna_fd vcpu_fd) {
  return luna_kvm_call(vcpu_fd, KVM_GET_TSC_KHZ, NULL);
}

int luna_kvm_set_tsc_khz(luna_fd vcpu_fd, uint32_t kilohertz) {
  return luna_kvm_call(vcpu_fd, KVM_SET_TSC_KHZ, (void *)(uintptr_t)kilohertz);
}

bool luna_kvm_has(uint32_t accel, long capability) {
  luna_fd fd = luna_kvm_open(accel);
  if (fd.number < 0) {
    return false;
  }
  int answer = luna_kvm_check_extension(fd, capability);
  luna_kvm_close(fd);
  return answer > 0;
}
