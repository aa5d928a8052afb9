/* SPDX-License-Identifier: MIT
 * The fake's interrupt controllers and interrupts: KVM's rules on when they can be made, what a
 * guest takes at the entry, and state that is kept and given back. */
#include "fake/fake_file.h"

#include "memory/vm.h"
#include "vcpu/vcpu.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

enum {
  FAKE_CAP_BUS_CYCLES = 237,
  RFLAGS_IF = 1 << 9,
  TAKEN_MOST = 64
};

static uint8_t taken[TAKEN_MOST];
static atomic_size_t taken_count; /* beyond TAKEN_MOST, they are not noted */

void fake_interrupt_install(void) {
  atomic_store(&taken_count, 0);
}

int fake_interrupt_extension(long capability) {
  switch (capability) {
    case KVM_CAP_SPLIT_IRQCHIP:
    case KVM_CAP_IRQCHIP:
      return fake_host.controllers;
    case KVM_CAP_PIT2:
      return fake_host.pit;
    case KVM_CAP_X86_SMM:
      return fake_host.smm;
    case KVM_CAP_TSC_CONTROL:
      return fake_host.tsc_control;
    case FAKE_CAP_BUS_CYCLES:
      return fake_host.bus_cycles;
    default:
      return 0;
  }
}

/* ---- VM ---- */

static int create_chip(fake_file *vm, uint32_t kind) {
  if (!fake_host.controllers || vm->vcpus) {
    return fake_refuse(EINVAL);
  }
  if (vm->irqchip) {
    return fake_refuse(EEXIST);
  }
  vm->irqchip = kind;
  return 0;
}

int fake_interrupt_enable(fake_file *vm, const struct kvm_enable_cap *capability) {
  if (capability->cap == KVM_CAP_SPLIT_IRQCHIP) {
    vm->ending = (uint8_t)capability->args[0]; /* as KVM keeps it */
    return capability->args[0] <= 4096 ? create_chip(vm, 1) : fake_refuse(EINVAL);
  }
  if (capability->cap == FAKE_CAP_BUS_CYCLES) {
    if (!vm->irqchip) {
      return fake_refuse(ENXIO);
    }
    if (vm->vcpus || capability->args[0] == 0) {
      return fake_refuse(EINVAL);
    }
    vm->bus_cycle = capability->args[0];
  }
  return 0;
}

static int set_routing(fake_file *vm, const struct kvm_irq_routing *routing) {
  for (uint32_t i = 0; i < routing->nr; i++) {
    if (routing->entries[i].type == KVM_IRQ_ROUTING_IRQCHIP && vm->irqchip != 2) {
      return fake_refuse(EINVAL);
    }
  }
  vm->routes = routing->nr;
  return 0;
}

static int signal_msi(fake_file *vm, const struct kvm_msi *msi) {
  vm->messages++;
  return msi->address_lo >> 12 == 0xfee00 ? 1 : fake_refuse(EPERM);
}

static int move_chip(fake_file *vm, struct kvm_irqchip *chip, bool write) {
  if (vm->irqchip != 2) {
    return fake_refuse(ENXIO);
  }
  char *kept = vm->chips[chip->chip_id % 3];
  memcpy(write ? kept : chip->chip.dummy, write ? chip->chip.dummy : kept, sizeof vm->chips[0]);
  return 0;
}

int fake_interrupt_vm_ioctl(fake_file *vm, unsigned long request, void *argument) {
  switch (request) {
    case KVM_CREATE_IRQCHIP:
      return create_chip(vm, 2);
    case KVM_CREATE_PIT2:
      return vm->irqchip == 2 && fake_host.pit ? 0 : fake_refuse(EINVAL);
    case KVM_GET_IRQCHIP:
      return move_chip(vm, argument, false);
    case KVM_SET_IRQCHIP:
      return move_chip(vm, argument, true);
    case KVM_IRQ_LINE:
    case KVM_IRQFD:
      return vm->irqchip ? 0 : fake_refuse(ENXIO);
    case KVM_SIGNAL_MSI:
      return vm->irqchip ? signal_msi(vm, argument) : fake_refuse(EINVAL);
    case KVM_SET_GSI_ROUTING:
      return set_routing(vm, argument);
    default:
      fake_mistake();
      return fake_refuse(ENOTTY);
  }
}

/* ---- vCPU ---- */

void fake_interrupt_reset(fake_file *vcpu, const fake_file *vm, uint32_t id) {
  vcpu->irqchip = vm->irqchip;
  vcpu->mp_state = vm->irqchip && id > 0 ? KVM_MP_STATE_UNINITIALIZED : KVM_MP_STATE_RUNNABLE;
  vcpu->tsc_khz = 2000000;
  memset(vcpu->lapic.regs, 0, sizeof vcpu->lapic.regs);
  const uint32_t number = id << 24;
  memcpy(vcpu->lapic.regs + 0x20, &number, sizeof number);
}

static int move_mp(fake_file *vcpu, struct kvm_mp_state *state, bool write) {
  if (write && !vcpu->irqchip && state->mp_state != KVM_MP_STATE_RUNNABLE) {
    return fake_refuse(EINVAL);
  }
  uint32_t *from = write ? &state->mp_state : &vcpu->mp_state;
  *(write ? &vcpu->mp_state : &state->mp_state) = *from;
  return 0;
}

static uint32_t word(const struct kvm_lapic_state *lapic, uint32_t offset) {
  uint32_t value;
  memcpy(&value, lapic->regs + offset, sizeof value);
  return value;
}

static int move_lapic(fake_file *vcpu, struct kvm_lapic_state *lapic, bool write) {
  if (!vcpu->irqchip) {
    return fake_refuse(EINVAL);
  }
  if (write) { /* __start_apic_timer, from the current count: one that has run out fires at once */
    vcpu->timer_due = word(lapic, 0x380) && !word(lapic, 0x390) && !(word(lapic, 0x320) & 0x60000);
  }
  *(write ? &vcpu->lapic : lapic) = write ? *lapic : vcpu->lapic;
  return 0;
}

/* kvm_vcpu_ioctl_interrupt, with a LAPIC in KVM. */
static int queue_extint(fake_file *vcpu, const struct kvm_interrupt *interrupt) {
  if (vcpu->irqchip != 1) {
    return fake_refuse(ENXIO);
  }
  if (vcpu->extint) {
    return fake_refuse(EEXIST);
  }
  vcpu->extint = (int)interrupt->irq + 1;
  return 0;
}

int fake_interrupt_vcpu_ioctl(fake_file *vcpu, unsigned long request, void *argument) {
  switch (request) {
    case KVM_GET_LAPIC:
      return move_lapic(vcpu, argument, false);
    case KVM_SET_LAPIC:
      return move_lapic(vcpu, argument, true);
    case KVM_GET_MP_STATE:
      return move_mp(vcpu, argument, false);
    case KVM_SET_MP_STATE:
      return move_mp(vcpu, argument, true);
    case KVM_INTERRUPT:
      return queue_extint(vcpu, argument);
    case KVM_GET_TSC_KHZ:
      return vcpu->tsc_khz;
    case KVM_SET_TSC_KHZ: /* KVM takes the number even where it cannot scale */
      vcpu->tsc_khz = (int)(intptr_t)argument;
      return fake_host.tsc_control ? 0 : fake_refuse(EINVAL);
    default:
      return fake_state_ioctl(&vcpu->state, request, argument);
  }
}

static void take(uint8_t vector) {
  size_t place = atomic_fetch_add(&taken_count, 1);
  if (place < TAKEN_MOST) {
    taken[place] = vector;
  }
}

/* The guest takes what was injected, and its handlers return at once. True for an exit because the
 * interrupt window is open. */
bool fake_interrupt_enter(fake_file *vcpu) {
  struct kvm_vcpu_events *events = &vcpu->state.events;
  if (events->exception.injected) {
    events->exception.injected = 0;
    take(events->exception.nr);
  }
  if (events->nmi.pending) {
    events->nmi.pending = 0;
    take(2);
  }
  if (events->interrupt.injected) {
    events->interrupt.injected = 0;
    take(events->interrupt.nr);
  }
  if (vcpu->timer_due) {
    take((uint8_t)word(&vcpu->lapic, 0x320));
    vcpu->timer_due = false;
  }
  if (vcpu->extint && vcpu->regs.rflags & RFLAGS_IF) {
    take((uint8_t)(vcpu->extint - 1));
    vcpu->extint = 0;
  }
  if (vcpu->run->request_interrupt_window && vcpu->regs.rflags & RFLAGS_IF) {
    vcpu->run->exit_reason = KVM_EXIT_IRQ_WINDOW_OPEN;
    return true;
  }
  return false;
}

void fake_interrupt_visit(fake_file *vcpu) {
  uint32_t vector = word(&vcpu->lapic, 0x320) & 0xff;
  if (vcpu->timer_due) {
    vcpu->lapic.regs[0x200 + vector / 32 * 0x10 + vector % 32 / 8] |= (char)(1u << vector % 8);
    vcpu->timer_due = false;
  }
}

/* post_kvm_run_save */
void fake_interrupt_leave(const fake_file *vcpu) {
  const struct kvm_vcpu_events *events = &vcpu->state.events;
  vcpu->run->if_flag = (vcpu->regs.rflags & RFLAGS_IF) != 0;
  vcpu->run->ready_for_interrupt_injection = vcpu->run->if_flag && !events->interrupt.injected &&
                                             !events->interrupt.shadow &&
                                             !events->exception.injected;
}

/* ---- For the tests ---- */

size_t fake_taken(const uint8_t **vectors) {
  *vectors = taken;
  size_t count = atomic_load(&taken_count);
  return count < TAKEN_MOST ? count : TAKEN_MOST;
}

void fake_timer(void) {
  fake_file *vcpu = fake_file_youngest(FAKE_FILE_VCPU);
  memset(vcpu->lapic.regs + 0x390, 0, sizeof(uint32_t));
  vcpu->timer_due = true;
}

uint64_t fake_messages(void) {
  const fake_file *vm = fake_file_youngest(FAKE_FILE_VM);
  return vm ? vm->messages : 0;
}

uint32_t fake_ending(void) {
  const fake_file *vm = fake_file_youngest(FAKE_FILE_VM);
  return vm ? vm->ending : 0;
}

uint32_t fake_routes(void) {
  const fake_file *vm = fake_file_youngest(FAKE_FILE_VM);
  return vm ? vm->routes : 0;
}
