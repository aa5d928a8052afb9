/* SPDX-License-Identifier: MIT
 * The ioctls of interrupt controllers and of what a vCPU's LAPIC holds. */
#include "soft/kernel/kernel.h"

#include <errno.h>
#include <string.h>

static int create(soft_vm *vm) {
  pthread_mutex_lock(&vm->lock);
  int number = vm->chip.kind != SOFT_CHIP_NONE ? EEXIST : 0;
  for (unsigned i = 0; !number && i < SOFT_CPUS_MAX; i++) {
    number = atomic_load(&vm->cpus[i]) ? EINVAL : 0;
  }
  if (!number && !soft_routes_default(&vm->chip)) {
    number = ENOMEM;
  }
  if (!number) {
    soft_ioapic_reset(&vm->chip.ioapic);
    soft_pics_reset(&vm->chip);
    vm->chip.kind = SOFT_CHIP_KERNEL;
  }
  pthread_mutex_unlock(&vm->lock);
  return number ? soft_refuse(number) : 0;
}

static int create_pit(soft_vm *vm) {
  if (vm->chip.kind != SOFT_CHIP_KERNEL) {
    return soft_refuse(ENOENT);
  }
  if (vm->chip.has_pit) {
    return soft_refuse(EEXIST);
  }
  vm->chip.has_pit = true;
  return 0;
}

/* ---- State of the controllers ---- */

static void get_pic(const soft_pic *pic, struct kvm_pic_state *state) {
  *state = (struct kvm_pic_state){.last_irr = pic->last,
                                  .irr = pic->irr,
                                  .imr = pic->imr,
                                  .isr = pic->isr,
                                  .priority_add = (uint8_t)((pic->lowest + 1) & 7),
                                  .irq_base = pic->base,
                                  .read_reg_select = pic->read_isr,
                                  .poll = pic->poll,
                                  .special_mask = pic->special_mask,
                                  .init_state = pic->init ? (uint8_t)(pic->init - 1) : 0,
                                  .auto_eoi = pic->auto_eoi,
                                  .rotate_on_auto_eoi = pic->rotates,
                                  .init4 = pic->needs_word_4,
                                  .elcr = pic->elcr};
}

static void set_pic(soft_pic *pic, const struct kvm_pic_state *state) {
  *pic = (soft_pic){.last = state->last_irr,
                    .irr = state->irr,
                    .imr = state->imr,
                    .isr = state->isr,
                    .lowest = (uint8_t)((state->priority_add + 7) & 7),
                    .base = state->irq_base,
                    .read_isr = state->read_reg_select,
                    .poll = state->poll,
                    .special_mask = state->special_mask,
                    .init = state->init_state ? (uint8_t)(state->init_state + 1) : 0,
                    .auto_eoi = state->auto_eoi,
                    .rotates = state->rotate_on_auto_eoi,
                    .needs_word_4 = state->init4,
                    .elcr = state->elcr};
}

static void get_ioapic(const soft_ioapic *ioapic, struct kvm_ioapic_state *state) {
  memset(state, 0, sizeof *state);
  state->base_address = 0xfec00000;
  state->ioregsel = ioapic->select;
  state->id = ioapic->id >> 24;
  state->irr = ioapic->lines;
  for (unsigned i = 0; i < SOFT_PINS; i++) {
    state->redirtbl[i].bits = ioapic->redirection[i];
  }
}

static void set_ioapic(soft_ioapic *ioapic, const struct kvm_ioapic_state *state) {
  ioapic->select = (uint8_t)state->ioregsel;
  ioapic->id = state->id << 24;
  ioapic->lines = state->irr & ((1u << SOFT_PINS) - 1);
  for (unsigned i = 0; i < SOFT_PINS; i++) {
    ioapic->redirection[i] = state->redirtbl[i].bits;
  }
}

static int access_chip(soft_vm *vm, struct kvm_irqchip *state, bool set) {
  soft_chip *chip = &vm->chip;
  if (chip->kind != SOFT_CHIP_KERNEL) {
    return soft_refuse(ENXIO);
  }
  if (state->chip_id > KVM_IRQCHIP_IOAPIC) {
    return soft_refuse(EINVAL);
  }
  pthread_mutex_lock(&chip->lock);
  if (state->chip_id == KVM_IRQCHIP_IOAPIC) {
    if (set) {
      set_ioapic(&chip->ioapic, &state->chip.ioapic);
    } else {
      get_ioapic(&chip->ioapic, &state->chip.ioapic);
    }
  } else if (set) {
    set_pic(&chip->pics[state->chip_id], &state->chip.pic);
  } else {
    get_pic(&chip->pics[state->chip_id], &state->chip.pic);
  }
  pthread_mutex_unlock(&chip->lock);
  return 0;
}

static int send_msi(soft_vm *vm, const struct kvm_msi *msi) {
  if (vm->chip.kind == SOFT_CHIP_NONE || msi->flags) {
    return soft_refuse(EINVAL);
  }
  return soft_msi(vm, (uint64_t)msi->address_hi << 32 | msi->address_lo, msi->data);
}

int soft_chip_ioctl(soft_vm *vm, unsigned long request, void *argument) {
  switch (request) {
    case KVM_CREATE_IRQCHIP:
      return create(vm);
    case KVM_CREATE_PIT2:
      return create_pit(vm);
    case KVM_IRQ_LINE:
    case KVM_IRQ_LINE_STATUS: {
      struct kvm_irq_level *line = argument;
      int taken = soft_line_set(vm, line->irq, line->level);
      if (taken >= 0 && request == KVM_IRQ_LINE_STATUS) {
        line->status = taken;
      }
      return taken < 0 ? taken : 0;
    }
    case KVM_SIGNAL_MSI:
      return send_msi(vm, argument);
    case KVM_SET_GSI_ROUTING:
      return soft_routes_set(vm, argument);
    case KVM_GET_IRQCHIP:
    case KVM_SET_IRQCHIP:
      return access_chip(vm, argument, request == KVM_SET_IRQCHIP);
    default:
      return soft_refuse(ENOTTY);
  }
}

/* ---- LAPIC ---- */

static int set_mp_state(soft_cpu *cpu, uint32_t state) {
  bool chip = cpu->vm->chip.kind != SOFT_CHIP_NONE;
  bool known =
      state == KVM_MP_STATE_RUNNABLE || state == KVM_MP_STATE_HALTED ||
      (chip && (state == KVM_MP_STATE_UNINITIALIZED || state == KVM_MP_STATE_INIT_RECEIVED ||
                state == KVM_MP_STATE_SIPI_RECEIVED));
  if (!known) {
    return soft_refuse(EINVAL);
  }
  atomic_store(&cpu->mp_state, state);
  cpu->halted = false;
  return 0;
}

static void set_lapic(soft_cpu *cpu, const struct kvm_lapic_state *lapic) {
  memcpy(cpu->apic, lapic->regs, sizeof cpu->apic);
  cpu->cr8 = *soft_lapic_register(cpu, APIC_TPR) >> 4 & 15;
  soft_timer_restore(cpu);
}

static void get_lapic(soft_cpu *cpu, struct kvm_lapic_state *lapic) {
  memset(lapic, 0, sizeof *lapic);
  memcpy(lapic->regs, cpu->apic, sizeof cpu->apic);
  uint32_t task = (uint32_t)cpu->cr8 << 4, current = soft_timer_current(cpu);
  memcpy(lapic->regs + APIC_TPR, &task, sizeof task);
  memcpy(lapic->regs + APIC_TIMER_CURRENT, &current, sizeof current);
}

int soft_lapic_ioctl(soft_cpu *cpu, unsigned long request, void *argument) {
  bool chip = cpu->vm->chip.kind != SOFT_CHIP_NONE;
  switch (request) {
    case KVM_GET_MP_STATE: /* what INIT and SIPI ask is done first, as KVM does */
      soft_chip_idle(cpu);
      *(struct kvm_mp_state *)argument = (struct kvm_mp_state){
          cpu->halted && chip ? KVM_MP_STATE_HALTED : atomic_load(&cpu->mp_state)};
      return 0;
    case KVM_SET_MP_STATE:
      return set_mp_state(cpu, ((const struct kvm_mp_state *)argument)->mp_state);
    case KVM_GET_LAPIC:
      if (!chip) {
        return soft_refuse(EINVAL);
      }
      get_lapic(cpu, argument);
      return 0;
    default:
      if (!chip) {
        return soft_refuse(EINVAL);
      }
      set_lapic(cpu, argument);
      return 0;
  }
}
