/* SPDX-License-Identifier: MIT
 * KVM_RUN: registers from the run page, the answer to the last exit, the loop, registers back. */
#include "kvm/kvm_control.h"
#include "soft/insn.h"
#include "soft/kernel/kernel.h"
#include "soft/mmu/mmu.h"

#include <errno.h>
#include <string.h>

void soft_adopt_map(soft_cpu *cpu) {
  unsigned change = atomic_load(&cpu->vm->changes);
  if (soft_likely(atomic_load(&cpu->log_seen) == change)) {
    return;
  }
  cpu->map = atomic_load(&cpu->vm->map);
  cpu->last_slot = NULL;
  soft_tlb_flush(cpu);
  atomic_store(&cpu->log_seen, change);
}

static int take_registers(soft_cpu *cpu) {
  struct kvm_run *run = cpu->run;
  uint64_t dirty = run->kvm_dirty_regs;
  if (!dirty) {
    return 0;
  }
  if (dirty & ~(uint64_t)(KVM_SYNC_X86_VALID_FIELDS | LUNA_KVM_SYNC_RIP)) {
    return soft_refuse(EINVAL);
  }
  if (dirty & KVM_SYNC_X86_SREGS && soft_set_sregs(cpu, &run->s.regs.sregs) < 0) {
    return -1;
  }
  if (dirty & KVM_SYNC_X86_REGS) {
    if (dirty & LUNA_KVM_SYNC_RIP) {
      soft_set_rip(cpu, run->s.regs.regs.rip);
    } else {
      soft_set_regs(cpu, &run->s.regs.regs);
    }
  }
  if (dirty & KVM_SYNC_X86_EVENTS && soft_set_events(cpu, &run->s.regs.events) < 0) {
    return -1;
  }
  run->kvm_dirty_regs = 0;
  return 0;
}

static void give_registers(soft_cpu *cpu) {
  struct kvm_run *run = cpu->run;
  uint64_t valid = run->kvm_valid_regs;
  run->if_flag = (cpu->rflags & FLAG_IF) != 0;
  run->cr8 = cpu->cr8;
  run->apic_base = cpu->apic_base;
  run->ready_for_interrupt_injection = cpu->interrupt < 0 && run->if_flag && !cpu->shadow;
  if (valid & KVM_SYNC_X86_REGS) {
    soft_get_regs(cpu, &run->s.regs.regs);
  }
  if (valid & KVM_SYNC_X86_SREGS) {
    soft_get_sregs(cpu, &run->s.regs.sregs);
  }
  if (valid & KVM_SYNC_X86_EVENTS) {
    soft_get_events(cpu, &run->s.regs.events);
  }
}

static void answer(soft_cpu *cpu, const void *data) {
  cpu->answer_keys[cpu->answers_made] = cpu->asked_key;
  memcpy(cpu->answers[cpu->answers_made++], data, 8);
}

static void answer_msr(soft_cpu *cpu) {
  uint64_t value = cpu->run->msr.data;
  if (cpu->run->msr.error) {
    cpu->injected = cpu->pends = true;
    cpu->inject = (soft_event){.vector = VECTOR_GP, .has_error = true};
  } else {
    answer(cpu, &value);
  }
}

/* What user space left on the run page for the exit before. */
static void take_answer(soft_cpu *cpu) {
  soft_asked asked = cpu->asked;
  cpu->asked = SOFT_ASKED_NOTHING;
  cpu->answers_used = cpu->batch_used = 0;
  switch (asked) {
    case SOFT_ASKED_MMIO:
      if (cpu->controlled && cpu->run->mmio.len == 0) {
        cpu->answers_made = 0;
      } else {
        answer(cpu, cpu->run->mmio.data);
      }
      break;
    case SOFT_ASKED_PORT:
      memcpy(cpu->batch, (const uint8_t *)cpu->run + SOFT_RUN_PIO, cpu->asked_size);
      cpu->batch_size = cpu->asked_size;
      break;
    case SOFT_ASKED_RDMSR:
    case SOFT_ASKED_WRMSR:
      answer_msr(cpu);
      break;
    default:
      break;
  }
}

static int finish(soft_cpu *cpu, int number) {
  give_registers(cpu);
  cpu->exits++;
  if (number == EINTR) {
    cpu->run->exit_reason = KVM_EXIT_INTR;
  }
  return number ? soft_refuse(number) : 0;
}

int soft_vcpu_run(soft_cpu *cpu) {
  bool alone = cpu->vm->chip.kind == SOFT_CHIP_NONE;
  if (take_registers(cpu) < 0) {
    return -1;
  }
  if (alone) {
    cpu->cr8 = cpu->run->cr8 & 15;
  }
  take_answer(cpu);
  soft_irqfds_poll(cpu->vm);
  cpu->run->flags = 0;
  atomic_store(&cpu->running, true);
  soft_adopt_map(cpu);
  soft_guard_begin(cpu);
  int number = soft_loop(cpu);
  soft_guard_end(cpu);
  atomic_store_explicit(&cpu->running, false, memory_order_release);
  return finish(cpu, number);
}
