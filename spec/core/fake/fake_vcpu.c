/* SPDX-License-Identifier: MIT
 * The fake's vCPUs. What they do on KVM_RUN follows kvm_arch_vcpu_ioctl_run: take dirty registers,
 * finish the pending access, look at immediate_exit, run the script. */
#include "fake/fake_file.h"

#include "vcpu/vcpu.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <time.h>

enum {
  SPIN_NANOSECONDS = 1000000
};

static const fake_step *script;
static size_t script_count;
static size_t script_at;
static bool script_loops;
static bool hook_called; /* of the step at script_at */

/* Read without the lock: set before the vCPUs run. */
atomic_bool fake_endless;
atomic_ulong fake_endless_runs;
static fake_step endless_step;

/* ---- Registers ---- */

static struct kvm_segment reset_segment(uint8_t type, uint8_t s) {
  return (struct kvm_segment){.limit = 0xffff, .type = type, .present = 1, .s = s};
}

/* SDM Vol. 3, 10.1.1. */
void fake_vcpu_reset(fake_file *vcpu) {
  fake_state_reset(&vcpu->state);
  vcpu->regs = (struct kvm_regs){.rip = 0xfff0, .rflags = 2, .rdx = 0x600};
  struct kvm_sregs *sregs = &vcpu->sregs;
  sregs->cs = reset_segment(11, 1);
  sregs->cs.selector = 0xf000;
  sregs->cs.base = 0xffff0000;
  sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = reset_segment(3, 1);
  sregs->tr = reset_segment(11, 0);
  sregs->ldt = reset_segment(2, 0);
  sregs->gdt.limit = sregs->idt.limit = 0xffff;
  sregs->cr0 = 0x60000010;
  sregs->apic_base = 0xfee00900;
}

/* Part of kvm_is_valid_sregs. */
static bool valid_sregs(const struct kvm_sregs *s) {
  const uint64_t pe = 1;
  const uint64_t pg = UINT64_C(1) << 31;
  const uint64_t pae = 0x20;
  const uint64_t lme = 0x100;
  const uint64_t lma = 0x400;
  if (s->cr0 >> 32 || s->cr4 >> 32 || (s->cr0 & pg && !(s->cr0 & pe))) {
    return false;
  }
  if (s->efer & lme && s->cr0 & pg) {
    return s->cr4 & pae && s->efer & lma;
  }
  return !(s->efer & lma) && !s->cs.l;
}

static int set_sregs(fake_file *vcpu, const struct kvm_sregs *sregs) {
  if (!valid_sregs(sregs)) {
    return fake_refuse(EINVAL);
  }
  vcpu->sregs = *sregs;
  vcpu->lapic.regs[0x80] = (char)(sregs->cr8 << 4); /* TPR */
  return 0;
}

/* Since Linux 5.17, a vCPU that has run takes no other table. */
static int set_cpuid(fake_file *vcpu, const struct kvm_cpuid2 *cpuid) {
  uint64_t sum = cpuid->nent;
  const uint8_t *bytes = (const uint8_t *)cpuid->entries;
  for (size_t i = 0; i < cpuid->nent * sizeof *cpuid->entries; i++) {
    sum = (sum ^ bytes[i]) * UINT64_C(0x100000001b3);
  }
  if ((vcpu->ran && vcpu->has_cpuid && sum != vcpu->cpuid_sum) || cpuid->nent > 256) {
    return fake_refuse(EINVAL);
  }
  vcpu->has_cpuid = true;
  vcpu->cpuid_sum = sum;
  return 0;
}

static int translate(struct kvm_translation *translation) {
  translation->valid = !fake_host.translate_fails;
  translation->physical_address = translation->linear_address + fake_host.translate_offset;
  return 0;
}

int fake_vcpu_ioctl(fake_file *vcpu, unsigned long request, void *argument) {
  switch (request) {
    case KVM_SET_CPUID2:
      return set_cpuid(vcpu, argument);
    case KVM_GET_REGS:
      memcpy(argument, &vcpu->regs, sizeof vcpu->regs);
      ((struct kvm_regs *)argument)->rflags = fake_debug_flags(vcpu);
      return 0;
    case KVM_SET_REGS:
      memcpy(&vcpu->regs, argument, sizeof vcpu->regs);
      fake_debug_taken(vcpu);
      return 0;
    case KVM_GET_SREGS:
      vcpu->sregs.cr8 = vcpu->irqchip ? (uint8_t)vcpu->lapic.regs[0x80] >> 4 : vcpu->sregs.cr8;
      memcpy(argument, &vcpu->sregs, sizeof vcpu->sregs);
      return 0;
    case KVM_SET_SREGS:
      return set_sregs(vcpu, argument);
    case KVM_GET_STATS_FD:
      return fake_stats_fd(vcpu);
    case KVM_SET_GUEST_DEBUG:
      fake_debug_set(vcpu, argument);
      return 0;
    case KVM_TRANSLATE:
      return translate(argument);
    case KVM_SET_SIGNAL_MASK:
      vcpu->signal_mask = argument != NULL;
      return 0;
    default:
      return fake_interrupt_vcpu_ioctl(vcpu, request, argument);
  }
}

/* ---- KVM_RUN ---- */

/* sync_regs: a group that was taken is no longer dirty. Without a LAPIC in KVM, CR8 is the run
 * page's. */
static int take_registers(fake_file *vcpu) {
  struct kvm_run *run = vcpu->run;
  if ((run->kvm_valid_regs | run->kvm_dirty_regs) & ~(uint64_t)fake_host.sync_regs) {
    return fake_refuse(EINVAL);
  }
  if (run->kvm_dirty_regs & KVM_SYNC_X86_REGS) {
    vcpu->regs = run->s.regs.regs;
    fake_debug_taken(vcpu);
    run->kvm_dirty_regs &= ~(uint64_t)KVM_SYNC_X86_REGS;
  }
  if (run->kvm_dirty_regs & KVM_SYNC_X86_SREGS) {
    if (set_sregs(vcpu, &run->s.regs.sregs) != 0) {
      return -1;
    }
    run->kvm_dirty_regs &= ~(uint64_t)KVM_SYNC_X86_SREGS;
  }
  if (run->kvm_dirty_regs & KVM_SYNC_X86_EVENTS) {
    vcpu->state.events = run->s.regs.events;
    run->kvm_dirty_regs &= ~(uint64_t)KVM_SYNC_X86_EVENTS;
  }
  if (run->cr8 > 15) {
    return fake_refuse(EINVAL);
  }
  if (!vcpu->irqchip) {
    vcpu->sregs.cr8 = run->cr8;
  }
  return 0;
}

static void store_registers(const fake_file *vcpu) {
  struct kvm_run *run = vcpu->run;
  if (run->kvm_valid_regs & KVM_SYNC_X86_REGS) {
    run->s.regs.regs = vcpu->regs;
    run->s.regs.regs.rflags = fake_debug_flags(vcpu);
  }
  if (run->kvm_valid_regs & KVM_SYNC_X86_SREGS) {
    run->s.regs.sregs = vcpu->sregs;
  }
  if (run->kvm_valid_regs & KVM_SYNC_X86_EVENTS) {
    run->s.regs.events = vcpu->state.events;
  }
  fake_interrupt_leave(vcpu);
  run->cr8 = vcpu->sregs.cr8;
  run->apic_base = vcpu->sregs.apic_base;
}

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* The guest loops. Signals are blocked but inside ppoll, so that, as with KVM, one that comes at
 * any moment ends the call. 1 if the guest goes on behind the loop. Without the lock. */
static int spin(fake_file *vcpu, const fake_step *step, bool first) {
  if (first && step->hook && step->early) {
    step->hook(step->context);
  }
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  if (first && step->hook && !step->early) {
    step->hook(step->context);
  }
  uint64_t end = now() + step->limit;
  int result = -1;
  while (result < 0) {
    const struct timespec pause = {.tv_nsec = SPIN_NANOSECONDS};
    if (*(volatile uint8_t *)&vcpu->run->immediate_exit || ppoll(NULL, 0, &pause, &before) < 0) {
      result = 0;
    } else if (step->limit && now() >= end) {
      result = 1;
    }
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (result == 0) {
    vcpu->run->exit_reason = KVM_EXIT_INTR;
    errno = EINTR;
  }
  return result;
}

/* The step that the guest is at: NULL behind the last. */
static const fake_step *step_now(bool *first) {
  pthread_mutex_lock(&fake_lock);
  if (script_loops && script_at == script_count) {
    script_at = 0;
  }
  const fake_step *step = script_at < script_count ? &script[script_at] : NULL;
  *first = !hook_called;
  hook_called = true;
  pthread_mutex_unlock(&fake_lock);
  return step;
}

static void step_over(void) {
  pthread_mutex_lock(&fake_lock);
  script_at++;
  hook_called = false;
  pthread_mutex_unlock(&fake_lock);
}

static void load_state(fake_file *vcpu, const fake_step *step) {
  if (step->regs) {
    vcpu->regs = *step->regs;
  }
  if (step->sregs) {
    vcpu->sregs = *step->sregs;
  }
}

static int follow_script(fake_file *vcpu) {
  static const fake_step halt = {.kind = FAKE_HLT};
  for (;;) {
    bool first;
    const fake_step *step = step_now(&first);
    if (!step) {
      return fake_debug_fall(vcpu) ? 0 : fake_access_report(vcpu, &halt);
    }
    if (first) {
      load_state(vcpu, step);
    }
    if (step->kind == FAKE_CODE) {
      bool done;
      bool stopped = fake_debug_code(vcpu, step, &done);
      if (done) {
        step_over();
      }
      if (stopped) {
        return 0;
      }
      continue;
    }
    if (step->kind != FAKE_SPIN) {
      if (first && step->hook) {
        atomic_store(&vcpu->inside, false); /* what the hook does to the vCPU, the guest does */
        step->hook(step->context);
        atomic_store(&vcpu->inside, true);
      }
      step_over();
      if (step->kind == FAKE_COLLECT && fake_collect(vcpu, step)) {
        continue;
      }
      return fake_access_report(vcpu, step);
    }
    if (spin(vcpu, step, first) == 0) {
      return fake_refuse(EINTR);
    }
    step_over();
  }
}

static int enter(fake_file *vcpu) {
  if (vcpu->access.active) {
    bool continues = vcpu->access.continues;
    fake_access_finish(vcpu);
    if (continues) {
      return follow_script(vcpu);
    }
  }
  if (*(volatile uint8_t *)&vcpu->run->immediate_exit) {
    return fake_refuse(EINTR);
  }
  if (vcpu->signal_mask) {
    fake_interrupt_visit(vcpu);
    return fake_refuse(EINTR);
  }
  vcpu->ran = true;
  vcpu->run->exit_reason = KVM_EXIT_UNKNOWN;
  if (fake_interrupt_enter(vcpu)) {
    return 0;
  }
  if (atomic_load_explicit(&fake_endless, memory_order_acquire)) {
    return fake_access_report(vcpu, &endless_step);
  }
  return follow_script(vcpu);
}

/* Not under the lock: a vCPU has one thread at a time. */
int fake_vcpu_run(fake_file *vcpu) {
  int result = take_registers(vcpu);
  if (result == 0) {
    result = enter(vcpu);
  }
  int number = errno;
  store_registers(vcpu);
  errno = number;
  return result;
}

/* ---- For the tests ---- */

static void set_script(const fake_step *steps, size_t count, bool loops) {
  pthread_mutex_lock(&fake_lock);
  atomic_store_explicit(&fake_endless, false, memory_order_release);
  script = steps;
  script_count = count;
  script_at = 0;
  script_loops = loops;
  hook_called = false;
  fake_access_forget();
  pthread_mutex_unlock(&fake_lock);
}

void fake_script(const fake_step *steps, size_t count) {
  set_script(steps, count, false);
}

void fake_script_endless(const fake_step *steps, size_t count) {
  set_script(steps, count, true);
}

void fake_exit(uint32_t reason, const uint64_t *words, size_t count) {
  static fake_step step;
  step = (fake_step){.kind = FAKE_OTHER, .reason = reason};
  memcpy(step.words, words, count * sizeof *words);
  set_script(&step, 1, false);
}

static void set_endless(fake_step step) {
  pthread_mutex_lock(&fake_lock);
  endless_step = step;
  atomic_store_explicit(&fake_endless, step.size > 0, memory_order_release);
  pthread_mutex_unlock(&fake_lock);
}

void fake_endless_pio(uint16_t port, uint32_t size, bool in) {
  set_endless((fake_step){
      .kind = FAKE_PIO, .address = port, .size = size, .count = 1, .write = !in, .data = {0x5a}});
}

void fake_endless_batch(uint16_t port, uint32_t count) {
  set_endless((fake_step){.kind = FAKE_PIO, .address = port, .size = 1, .count = count});
}

void fake_endless_mmio(uint64_t gpa, uint32_t size, bool write) {
  set_endless(
      (fake_step){.kind = FAKE_MMIO, .address = gpa, .size = size, .write = write, .data = {0x5a}});
}
