/* SPDX-License-Identifier: MIT
 * The loop of a vCPU: what is due between two instructions, then a block, until there is an
 * exit. */
#include "soft/access.h"
#include "soft/debug.h"
#include "soft/deliver/deliver.h"
#include "soft/execute/control.h"
#include "soft/irqchip/irqchip.h"
#include "soft/kernel/kernel.h"
#include "soft/vector/vector.h"
#include "soft/vmx/vmx.h"

#include <errno.h>

enum {
  SLICE = 5000,      /* instructions until signals and the clock are looked at */
  SPREAD = 64,       /* and up to so many more, lest a loop's slices all end at one block */
  COMPARE = 1 << 20, /* until blocks are compared with memory, though nobody has told of a change */
  GO_ON = -1,
  AGAIN = -2 /* from the start of the turn */
};

static void begin_epoch(soft_cpu *cpu) {
  soft_epoch_end(cpu);
  cpu->compare_at = cpu->retired + COMPARE;
}

static void refill(soft_cpu *cpu) {
  cpu->retired += cpu->slice - (uint64_t)cpu->budget;
  if (soft_unlikely(cpu->retired >= cpu->compare_at)) {
    begin_epoch(cpu);
  }
  cpu->slice = SLICE + cpu->retired % SPREAD;
  cpu->budget = (int64_t)cpu->slice;
}

/* ---- Exits ---- */

/* Gives the next posted write to user space. */
static bool give_post(soft_cpu *cpu) {
  while (cpu->posts_given < cpu->posts_made) {
    const soft_post *post = &cpu->posts[cpu->posts_given++];
    if (cpu->posts_given == cpu->posts_made) {
      cpu->posts_given = cpu->posts_made = 0;
    }
    if (soft_write_taken(cpu, post)) {
      continue;
    }
    struct kvm_run *run = cpu->run;
    if (post->port) {
      run->exit_reason = KVM_EXIT_IO;
      run->io.direction = KVM_EXIT_IO_OUT;
      run->io.size = post->size;
      run->io.port = (uint16_t)post->address;
      run->io.count = 1;
      run->io.data_offset = SOFT_RUN_PIO;
      soft_poke((uint8_t *)run + SOFT_RUN_PIO, soft_peek(post->data, 64), 64);
    } else {
      run->exit_reason = KVM_EXIT_MMIO;
      run->mmio.phys_addr = post->address;
      run->mmio.len = post->size;
      run->mmio.is_write = 1;
      soft_poke(run->mmio.data, soft_peek(post->data, 64), 64);
    }
    return true;
  }
  return false;
}

static int leave_with(soft_cpu *cpu, uint32_t reason) {
  cpu->run->exit_reason = reason;
  return 0;
}

/* ---- What is due ---- */

static void interrupt(soft_cpu *cpu, int vector) {
  cpu->halted = false;
  soft_deliver(cpu, (soft_event){.vector = (uint8_t)vector, .source = SOFT_FROM_INTERRUPT},
               cpu->rip);
}

/* An exception of user space. #BP and #OF come from an instruction, and return behind it. */
static void inject(soft_cpu *cpu) {
  soft_event event = cpu->inject;
  bool software = event.vector == VECTOR_BP || event.vector == VECTOR_OF;
  cpu->injected = false;
  cpu->halted = false;
  event.source = SOFT_FROM_FAULT;
  event.has_error &= !soft_is_real(cpu);
  soft_deliver(cpu, event, software ? (cpu->rip + 1) & cpu->ip_mask : cpu->rip);
}

static bool is_trap(const soft_event *event) {
  return event->vector == VECTOR_DB;
}

/* KVM keeps a second one of those that come at once (kvm_vcpu.nmi_pending). */
static void take_nmi(soft_cpu *cpu) {
  if (atomic_exchange(&cpu->nmi, 0) > 1) {
    atomic_fetch_add(&cpu->nmi, 1);
  }
  cpu->nmi_masked = true;
  interrupt(cpu, VECTOR_NMI);
}

/* Where a control has its exit, DR6 is as it was. */
static void trap(soft_cpu *cpu) {
  if (soft_traps(cpu, VECTOR_DB)) {
    uint32_t status = cpu->pending_debug;
    cpu->pending_debug = 0;
    soft_vmx_debug(cpu, status);
  }
  soft_queue_trap(cpu);
}

/* One event at a time, the most urgent first; whether there was one. */
static bool take_event(soft_cpu *cpu) {
  bool shadowed = cpu->shadow, open = cpu->rflags & FLAG_IF && !shadowed;
  if (soft_unlikely(cpu->due) && soft_vmx_take(cpu)) {
  } else if (cpu->injected && !(cpu->halted && soft_chip_waits(cpu) && !is_trap(&cpu->inject))) {
    inject(cpu);
  } else if (cpu->pending_debug && cpu->shadow != KVM_X86_SHADOW_INT_MOV_SS) {
    trap(cpu);
  } else if (atomic_load_explicit(&cpu->nmi, memory_order_relaxed) && !cpu->nmi_masked &&
             !shadowed) {
    take_nmi(cpu);
  } else if (cpu->interrupt >= 0 && open) {
    int vector = cpu->interrupt;
    cpu->interrupt = -1;
    interrupt(cpu, vector);
  } else {
    int vector = open ? soft_chip_take(cpu) : -1;
    if (vector < 0) {
      return false;
    }
    interrupt(cpu, vector);
  }
  return true;
}

static bool has_chips(const soft_cpu *cpu) {
  return cpu->vm->chip.kind != SOFT_CHIP_NONE;
}

/* False where there is nothing at all that take_event would look at: at most exits. */
static bool may_have_event(const soft_cpu *cpu) {
  unsigned nmi = atomic_load_explicit(&cpu->nmi, memory_order_relaxed);
  return cpu->due | cpu->injected | cpu->pending_debug | nmi | (cpu->interrupt >= 0) ||
         has_chips(cpu);
}

/* What other threads have asked for. */
static void attend(soft_cpu *cpu) {
  unsigned asked = atomic_load_explicit(&cpu->attention, memory_order_relaxed);
  if (soft_likely(!asked)) {
    return;
  }
  asked = atomic_exchange(&cpu->attention, 0);
  if (asked & SOFT_ATTEND_MAP) {
    soft_adopt_map(cpu);
  }
  if (asked & SOFT_ATTEND_CLOCK) {
    soft_clock_update(cpu);
  }
  if (asked & SOFT_ATTEND_CODE) {
    begin_epoch(cpu);
  }
}

/* Halted: inside KVM_RUN where there are interrupt controllers. */
static int wait(soft_cpu *cpu) {
  int number = soft_chip_wait(cpu);
  return number ? number : AGAIN;
}

/* GO_ON, AGAIN, or how KVM_RUN ends. */
static int between(soft_cpu *cpu) {
  if (cpu->budget <= 0) {
    refill(cpu);
    int number = soft_poll(cpu);
    if (number) {
      return number;
    }
  }
  if (cpu->run->immediate_exit) {
    return EINTR;
  }
  attend(cpu);
  if (soft_unlikely(cpu->eoi_vector)) {
    cpu->run->eoi.vector = (uint8_t)(cpu->eoi_vector - 1);
    cpu->eoi_vector = 0;
    return leave_with(cpu, KVM_EXIT_IOAPIC_EOI);
  }
  if (soft_unlikely(cpu->ring) && soft_ring_full(cpu)) {
    return leave_with(cpu, KVM_EXIT_DIRTY_RING_FULL);
  }
  if (soft_unlikely(cpu->due & SOFT_DUE_START) && soft_vmx_between(cpu)) {
    return 0;
  }
  if (has_chips(cpu) && soft_chip_idle(cpu)) {
    return wait(cpu);
  }
  if (soft_unlikely(cpu->due & SOFT_DUE_STEP) && soft_vmx_between(cpu)) {
    return 0;
  }
  while (may_have_event(cpu) && take_event(cpu)) {
    if (soft_asks(cpu, CPU_BASED_MTF) && !cpu->injected) { /* a queued trap is none yet */
      cpu->due |= SOFT_DUE_STEP;
      break;
    }
  }
  if (soft_unlikely(cpu->controlled) && soft_vmx_between(cpu)) {
    return 0;
  }
  bool open = cpu->rflags & FLAG_IF && !cpu->shadow;
  if (cpu->run->request_interrupt_window && cpu->interrupt < 0 && open) {
    return leave_with(cpu, KVM_EXIT_IRQ_WINDOW_OPEN);
  }
  if (cpu->halted) {
    if (soft_chip_waits(cpu)) {
      return wait(cpu);
    }
    cpu->halted = false;
    return leave_with(cpu, KVM_EXIT_HLT);
  }
  return GO_ON;
}

/* ---- Instructions ---- */

static void forget_answers(soft_cpu *cpu) {
  cpu->watched = 0;
  cpu->shadow_was = 0;
  cpu->single = cpu->step_once = false;
  cpu->answers_made = cpu->answers_used = 0;
  cpu->batch_size = cpu->batch_used = 0;
}

/* A handler has put an exit on the run page, and returned. */
static bool has_exit(soft_cpu *cpu) {
  if (soft_likely(!(cpu->due & SOFT_DUE_EXIT))) {
    return false;
  }
  cpu->due &= ~(unsigned)SOFT_DUE_EXIT;
  forget_answers(cpu);
  return true;
}

/* One instruction by itself: because it is stepped, in a shadow, at a breakpoint, or has to be
 * undone by nobody. */
static int step(soft_cpu *cpu) {
  const soft_block *block = soft_block_find(cpu, true);
  cpu->trap_flag = cpu->rflags & FLAG_TF;
  cpu->rflags &= ~(uint64_t)FLAG_RF;
  cpu->shadow_was = cpu->shadow;
  cpu->shadow = 0;
  cpu->single = true;
  cpu->budget--;
  cpu->retired++;
  uint64_t at = cpu->rip;
  const soft_insn *insn = block->insns[0].run(cpu, &block->insns[0], 0);
  if (has_exit(cpu)) {
    return 0;
  }
  cpu->unfinished = !insn && cpu->rip == at && block->insns[0].repeat != SOFT_ONCE;
  if (insn) { /* the record behind it, which would look for the next block */
    cpu->rip = soft_rip_at(cpu, insn);
  }
  cpu->single = cpu->step_once = false;
  cpu->shadow_was = 0;
  cpu->due |= soft_asks(cpu, CPU_BASED_MTF) ? SOFT_DUE_STEP : 0;
  cpu->answers_made = cpu->answers_used = 0;
  cpu->batch_size = cpu->batch_used = 0;
  cpu->current = NULL;
  if (cpu->posts_made && soft_debugged(cpu, KVM_GUESTDBG_SINGLESTEP)) {
    cpu->watched = 0;
    return GO_ON; /* the step's exit would hide the write's */
  }
  return soft_after_step(cpu) ? 0 : GO_ON;
}

static bool has_to_step(const soft_cpu *cpu) {
  return cpu->step_once || cpu->shadow || soft_asks(cpu, CPU_BASED_MTF) ||
         cpu->rflags & (FLAG_TF | FLAG_RF) ||
         (cpu->debug.control & KVM_GUESTDBG_ENABLE &&
          cpu->debug.control & KVM_GUESTDBG_SINGLESTEP) ||
         (cpu->no_links && soft_near_breakpoint(cpu));
}

/* The blocks at which slices end are a fair sample of those that run most. */
static void run_block(soft_cpu *cpu) {
  soft_block *block = soft_block_next(cpu);
  if (soft_unlikely(cpu->budget == (int64_t)cpu->slice)) {
    soft_block_heat(cpu, block);
  }
  const soft_insn *insn = block->insns;
  cpu->budget -= block->count;
  cpu->r[R_BLOCK] = cpu->rip - insn->offset;
  do {
    insn = insn->run(cpu, insn, cpu->passed);
  } while (insn);
}

/* On code, in the shadow of a load of SS: AMD's processors do, Intel's do not. */
static bool meets_breakpoints(const soft_cpu *cpu) {
  return cpu->is_amd || cpu->shadow != KVM_X86_SHADOW_INT_MOV_SS;
}

static int turn(soft_cpu *cpu) {
  cpu->current = NULL;
  if (!cpu->step_once) {
    if (cpu->posts_made && give_post(cpu)) {
      return 0;
    }
    int number = between(cpu);
    if (number != GO_ON) {
      return number == AGAIN ? GO_ON : number;
    }
    if (cpu->no_links && meets_breakpoints(cpu) && soft_code_breakpoint(cpu)) {
      return 0;
    }
  }
  if (has_to_step(cpu)) {
    return step(cpu);
  }
  run_block(cpu);
  return has_exit(cpu) ? 0 : GO_ON;
}

/* The host's memory is gone in the middle of a delivery: an instruction's exception comes again
 * with it, and what came from outside waits again. */
static void take_back(soft_cpu *cpu) {
  if (cpu->delivering == VECTOR_NMI && cpu->event.source == SOFT_FROM_INTERRUPT) {
    cpu->nmi_masked = false;
    atomic_fetch_add(&cpu->nmi, 1);
  } else if (cpu->delivering >= 0 && cpu->event.source == SOFT_FROM_INTERRUPT) {
    cpu->interrupt = cpu->delivering;
  }
  cpu->delivering = -1;
}

/* Not within the function that calls setjmp, where the compiler keeps everything in memory. */
static __attribute__((noinline)) int turn_on(soft_cpu *cpu) {
  int number;
  do {
    number = turn(cpu);
  } while (number == GO_ON);
  return number;
}

static int turns(soft_cpu *cpu) {
  switch ((soft_escape)setjmp(cpu->escape)) {
    case SOFT_ESCAPE_EXCEPTION:
      forget_answers(cpu);
      if (!soft_take_exception(cpu)) {
        return leave_with(cpu, KVM_EXIT_SHUTDOWN);
      }
      cpu->due |= soft_asks(cpu, CPU_BASED_MTF) ? SOFT_DUE_STEP : 0;
      break;
    case SOFT_ESCAPE_STEP:
      cpu->watched = 0;
      cpu->step_once = true;
      break;
    case SOFT_ESCAPE_EXIT:
      cpu->watched = 0;
      cpu->shadow_was = 0;
      cpu->single = cpu->step_once = false;
      return 0;
    case SOFT_ESCAPE_CONTROL:
      forget_answers(cpu);
      return 0;
    case SOFT_ESCAPE_HOST:
      forget_answers(cpu);
      take_back(cpu);
      return EFAULT;
    default:
      break;
  }
  return turn_on(cpu);
}

/* A timer that has run out counts before signals do. */
int soft_loop(soft_cpu *cpu) {
  if (has_chips(cpu)) {
    soft_chip_poll(cpu);
  }
  begin_epoch(cpu);
  cpu->due |= soft_asks(cpu, CPU_BASED_TPR_SHADOW) ? SOFT_DUE_TPR : 0;
  cpu->slice = (uint64_t)SLICE;
  cpu->budget = SLICE;
  cpu->step_once = cpu->answers_made || cpu->batch_size;
  int number = turns(cpu);
  cpu->retired += cpu->slice - (uint64_t)cpu->budget;
  soft_park(cpu);
  return number;
}
