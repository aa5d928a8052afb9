/* SPDX-License-Identifier: MIT
 * The run loop. Its rules are those of the KVM API document (api.rst): exit_reason means something
 * only when KVM_RUN returned 0; port and memory accesses are complete only after the next entry; a
 * signal before the entry must not be lost. */
#include "run/loop.h"

#include "base/error.h"
#include "debug/debug.h"
#include "debug/trap_flag.h"
#include "exit/coalesced.h"
#include "exit/exit.h"
#include "exit/msr_filter.h"
#include "exit/offer.h"
#include "interrupt/apic.h"
#include "interrupt/interrupt.h"
#include "kvm/kick.h"
#include "kvm/kvm.h"
#include "run/decode.h"
#include "run/move.h"
#include "run/trail.h"
#include "vcpu/account.h"
#include "vcpu/cpuid.h"
#include "vcpu/record.h"
#include "vcpu/state.h"
#include "vcpu/vcpu.h"

#include <errno.h>
#include <string.h>
#include <time.h>

/* Errors that pass: a vCPU that waits to be started, however long, and a race in the kernel's
 * recovery of executable huge pages that shows as ENOMEM for a moment (Linux 6.11 to 6.13). */
static bool passes(luna_vcpu *vcpu, int number, int *tries) {
  enum {
    MOST = 50
  };
  if (number == EAGAIN && luna_apic_waits(vcpu)) {
    *tries = 0;
  }
  if ((number != EAGAIN && number != ENOMEM) || ++*tries > MOST) {
    return false;
  }
  const struct timespec pause = {.tv_nsec = 100000};
  nanosleep(&pause, NULL);
  return true;
}

/* 0, or an errno with which the gate stays closed. */
static int pass_gate(luna_vcpu *vcpu) {
  while (!luna_gate_enter(&vcpu->space->gate, &vcpu->kick)) {
    if (luna_msr_catch_up(vcpu->vm, vcpu->space) != LUNA_OK) {
      return luna_error_number() ? luna_error_number() : EINVAL;
    }
  }
  return 0;
}

/* Enters KVM with immediate_exit set: it finishes what it has under way and comes back. 0 or an
 * errno. */
static int enter_to_finish(luna_vcpu *vcpu) {
  int closed = pass_gate(vcpu);
  if (closed) {
    return closed;
  }
  int tries = 0;
  int result;
  do {
    vcpu->run->immediate_exit = 1;
    result = luna_kvm_run(vcpu->fd);
  } while (result != 0 && passes(vcpu, errno, &tries));
  int number = result == 0 ? 0 : errno;
  vcpu->run->immediate_exit = 0;
  luna_gate_leave(&vcpu->kick);
  luna_state_entered(vcpu);
  return number;
}

static int settle(luna_vcpu *vcpu) {
  if (vcpu->leave.kept) { /* luna_vcpu_run has to give that exit first */
    return (int)vcpu->exit.kind;
  }
  luna_trail_leave(vcpu);
  while (vcpu->pending.incomplete) {
    if (vcpu->target) {
      luna_state_want_all(vcpu);
    }
    int number = enter_to_finish(vcpu);
    if (number == 0) { /* a further fragment or element of the same instruction */
      int kind = luna_loop_decode(vcpu);
      if (kind != 0) {
        return kind;
      }
    } else if (number == EINTR) {
      vcpu->pending.incomplete = false;
    } else {
      return luna_fail_errno(number, "cannot finish the instruction of vCPU %u", vcpu->id);
    }
  }
  return 0;
}

/* What a read gives that nobody answers. */
static void clear_answer(struct kvm_run *run) {
  switch (run->exit_reason) {
    case KVM_EXIT_IO:
      if (run->io.direction == KVM_EXIT_IO_IN) {
        memset((uint8_t *)run + run->io.data_offset, 0, (size_t)run->io.size * run->io.count);
      }
      break;
    case KVM_EXIT_MMIO:
      if (!run->mmio.is_write) {
        memset(run->mmio.data, 0, sizeof run->mmio.data);
      }
      break;
    case KVM_EXIT_X86_RDMSR:
    case KVM_EXIT_X86_WRMSR:
      run->msr.data = 0;
      run->msr.error = 0;
      break;
    case KVM_EXIT_HYPERCALL:
      run->hypercall.ret = 0;
      break;
    default:
      break;
  }
}

static int discard(luna_vcpu *vcpu) {
  enum {
    MOST = 4096 /* elements of a string instruction that might follow */
  };
  for (int i = 0; i < MOST && vcpu->pending.incomplete; i++) {
    clear_answer(vcpu->run);
    int number = enter_to_finish(vcpu);
    if (number == EINTR) {
      vcpu->pending.incomplete = false;
    } else if (number != 0) {
      return luna_fail_errno(number, "cannot finish the instruction of vCPU %u", vcpu->id);
    }
  }
  return vcpu->pending.incomplete
             ? luna_fail(LUNA_ERROR_LIMIT,
                         "cannot finish the instruction of vCPU %u: it has made %d exits so far",
                         vcpu->id, MOST)
             : LUNA_OK;
}

/* What KVM still has to finish for a vCPU that goes away would fall to the next one in its seat. */
static void abandon(luna_vcpu *vcpu) {
  bool unseen = vcpu->leave.kept && vcpu->leave.number == 0;
  vcpu->leave.kept = false;
  vcpu->pending = (luna_pending){.incomplete = vcpu->pending.incomplete || unseen, .dropped = true};
  discard(vcpu);
}

/* No instruction is under way. Where it does not work, what is due stays so. */
static int visit(luna_vcpu *vcpu) {
  int status = luna_kick_prepare();
  status = status == LUNA_OK ? luna_state_flush(vcpu) : status;
  if (status != LUNA_OK) {
    return status;
  }
  vcpu->run->immediate_exit = 0;
  vcpu->run->request_interrupt_window = 0; /* whoever wants it asks at each entry */
  if (pass_gate(vcpu) != 0) {
    return luna_error_status();
  }
  luna_kick_visit(vcpu->fd);
  luna_gate_leave(&vcpu->kick);
  luna_state_entered(vcpu);
  return LUNA_OK;
}

const luna_finisher luna_loop_finisher = {settle, discard, abandon, visit};

/* Finishes the instruction under way if a register write would get lost in it, then hands the
 * writes over. A kind if that met another exit. */
static int prepare(luna_vcpu *vcpu) {
  while (vcpu->target || luna_state_conflicts(vcpu)) {
    int kind = settle(vcpu);
    if (kind == 0 && vcpu->target && !vcpu->pending.incomplete) {
      kind = luna_coalesced_next(vcpu);
      kind = kind == 0 ? luna_move_finish(vcpu) : kind;
    }
    if (kind != 0) {
      return kind;
    }
  }
  return luna_state_flush(vcpu);
}

/* What stopped the vCPU without an exit of its own; 0 for nothing that concerns the caller. */
static int decode_kick(luna_vcpu *vcpu, uint64_t deadline, bool ours) {
  if (luna_kick_take(&vcpu->kick)) {
    return luna_exit_set(vcpu, LUNA_EXIT_INTERRUPTED);
  }
  if (deadline && luna_clock() >= deadline) {
    return luna_exit_set(vcpu, LUNA_EXIT_TIMEOUT);
  }
  if (luna_kick_held(&vcpu->kick)) {
    return luna_exit_set(vcpu, LUNA_EXIT_SIGNAL);
  }
  return ours ? 0 : luna_exit_set(vcpu, LUNA_EXIT_SIGNAL);
}

static int decode_failure(luna_vcpu *vcpu, int number) {
  int kind = 0;
  switch (number) {
    case EFAULT:
    case EHWPOISON:
      return luna_exit_host_fault(vcpu);
    case EINVAL:
      return luna_state_fail(vcpu);
    case EIO:
      return luna_fail(LUNA_ERROR_STATE, "cannot run vCPU %u in this process: %s", vcpu->id,
                       luna_error_foreign);
    case ENOSPC: /* of KVM's shadow page tables, of which it has none before the first slot */
      kind = luna_exit_no_memory(vcpu);
      if (kind == 0) {
        kind = luna_fail(LUNA_ERROR_LIMIT,
                         "cannot run vCPU %u: KVM has no room for page tables, which it makes by "
                         "how much memory is mapped; map some in space %u",
                         vcpu->id, vcpu->space->id);
      }
      return kind;
    default:
      return luna_fail_errno(number, "cannot run vCPU %u", vcpu->id);
  }
}

/* What a vCPU with something in luna_vcpu.attention does before it enters. 0, the kind of an exit
 * that comes instead, or a negative status. */
static int attend_entry(luna_vcpu *vcpu, unsigned attention) {
  int status = attention & LUNA_ATTEND_CPUID ? luna_cpuid_refuse(vcpu) : LUNA_OK;
  if (status == LUNA_OK && attention & LUNA_ATTEND_START) {
    status = luna_apic_enter(vcpu);
  }
  if (status == LUNA_OK && attention & LUNA_ATTEND_INTERRUPT) {
    status = luna_interrupt_enter(vcpu);
  }
  if (status == LUNA_OK && attention & LUNA_ATTEND_DEBUG) {
    status = luna_debug_entry(vcpu);
  }
  if (status == LUNA_OK && attention & LUNA_ATTEND_TIME) {
    luna_account_enter(vcpu); /* last: the time of what comes before is not the guest's */
  }
  return status;
}

/* And after it has left, before the exit is decoded. */
static void attend_leave(luna_vcpu *vcpu, unsigned attention) {
  if (attention & LUNA_ATTEND_TIME) {
    luna_account_leave(vcpu);
  }
  if (vcpu->debug) {
    luna_debug_leave(vcpu);
  }
}

/* What the entry that ended means; 0 where the guest goes on. */
static int decode_leave(luna_vcpu *vcpu, uint64_t deadline, int *tries) {
  const luna_leave *leave = &vcpu->leave;
  if (leave->number == 0) {
    int kind = luna_loop_decode(vcpu);
    return kind == LUNA_EXIT_HLT && luna_interrupt_wakes(vcpu) ? 0 : kind;
  }
  if (leave->number != EINTR) {
    return passes(vcpu, leave->number, tries) ? 0 : decode_failure(vcpu, leave->number);
  }
  int kind = decode_kick(vcpu, deadline, leave->ours);
  return kind == 0 && !leave->entered ? luna_msr_catch_up(vcpu->vm, vcpu->space) : kind;
}

/* The writes that KVM has collected come first: the guest made them before it left. */
static int finish_leave(luna_vcpu *vcpu, uint64_t deadline, int *tries) {
  int kind = luna_coalesced_next(vcpu);
  vcpu->leave.kept = kind != 0;
  return kind == 0 ? decode_leave(vcpu, deadline, tries) : kind;
}

/* Enters once, for what is then in luna_vcpu.leave. */
static void enter(luna_vcpu *vcpu, unsigned attention) {
  bool entered;
  int result = luna_kick_run(&vcpu->kick, &vcpu->space->gate, vcpu->fd, vcpu->run, &entered);
  int number = result == 0 ? 0 : errno;
  if (attention) {
    attend_leave(vcpu, attention);
  }
  if (entered) {
    luna_state_entered(vcpu);
  }
  if (vcpu->debug && entered) {
    luna_trap_flag_left(vcpu);
  }
  if (number == 0 && attention & LUNA_ATTEND_START) {
    luna_apic_left(vcpu);
  }
  bool ours = number == EINTR && (luna_kick_seen() || !entered);
  vcpu->leave = (luna_leave){.entered = entered, .ours = ours, .number = number};
}

/* Enters until there is something to report. */
static int loop(luna_vcpu *vcpu, uint64_t deadline) {
  int tries = 0;
  int kind = vcpu->leave.kept ? finish_leave(vcpu, deadline, &tries) : 0;
  while (kind == 0) {
    kind = prepare(vcpu);
    unsigned attention = atomic_load_explicit(&vcpu->attention, memory_order_relaxed);
    if (kind == 0 && attention) {
      kind = attend_entry(vcpu, attention);
    }
    if (kind == 0) {
      enter(vcpu, attention);
      /* Asked now: writes may be collected since it went in. */
      attention = atomic_load_explicit(&vcpu->attention, memory_order_relaxed);
      kind = attention & LUNA_ATTEND_COALESCED ? finish_leave(vcpu, deadline, &tries)
                                               : decode_leave(vcpu, deadline, &tries);
    }
  }
  return kind;
}

static int arm(luna_vcpu *vcpu, uint64_t deadline) {
  if (deadline == 0) {
    luna_kick_disarm();
    return 0;
  }
  if (luna_kick_armed(deadline)) {
    return 0;
  }
  if (luna_clock() >= deadline) {
    return luna_exit_set(vcpu, LUNA_EXIT_TIMEOUT);
  }
  return luna_kick_arm(deadline);
}

int luna_vcpu_enter(luna_vcpu *vcpu, uint64_t deadline) {
  int kind = luna_kick_prepare();
  if (kind == 0) {
    kind = arm(vcpu, deadline);
  }
  if (kind == 0) {
    kind = loop(vcpu, deadline);
  }
  if (!vcpu->pending.open) {
    luna_kick_disarm();
  }
  return kind;
}

/* Of a started vCPU, what gets it out for a pause or for its runner's own ends is none. */
static bool is_exit(const luna_vcpu *vcpu, int kind) {
  return (kind != LUNA_EXIT_SIGNAL && kind != LUNA_EXIT_TIMEOUT) ||
         !atomic_load_explicit(&vcpu->started, memory_order_relaxed);
}

int luna_vcpu_advance(luna_vcpu *vcpu, uint64_t deadline,
                      int (*bring)(luna_vcpu *vcpu, uint64_t deadline)) {
  luna_trail_leave(vcpu);
  int kind = vcpu->pending.open                               ? luna_exit_offer(vcpu, true)
             : vcpu->pending.untold && !luna_exit_stale(vcpu) ? (int)vcpu->exit.kind
                                                              : 0;
  vcpu->pending.untold = vcpu->pending.met = false;
  kind = kind == 0 ? bring(vcpu, deadline) : kind;
  if (is_exit(vcpu, kind)) {
    uint64_t exits = atomic_load_explicit(&vcpu->exits, memory_order_relaxed);
    atomic_store_explicit(&vcpu->exits, exits + 1, memory_order_relaxed);
    luna_trail_note(vcpu, kind, exits + 1);
  }
  return kind;
}

static int fail_claim(const luna_vcpu *vcpu, const char *done) {
  if (vcpu->vm->foreign) {
    return luna_fail(LUNA_ERROR_STATE, "cannot %s vCPU %u in this process: %s", done, vcpu->id,
                     luna_error_foreign);
  }
  return luna_fail(LUNA_ERROR_STATE, "cannot %s vCPU %u: it is running already", done, vcpu->id);
}

int luna_vcpu_claim(luna_vcpu *vcpu, const char *done) {
  if (vcpu->vm->foreign || atomic_exchange(&vcpu->running, true)) {
    return fail_claim(vcpu, done);
  }
  if (atomic_load_explicit(&vcpu->started, memory_order_acquire)) {
    luna_vcpu_disclaim(vcpu);
    return luna_fail(LUNA_ERROR_STATE,
                     "cannot %s vCPU %u: it is started, and its thread runs it; stop it first",
                     done, vcpu->id);
  }
  return LUNA_OK;
}

void luna_vcpu_disclaim(luna_vcpu *vcpu) {
  atomic_store_explicit(&vcpu->running, false, memory_order_release);
}

int luna_vcpu_run(luna_vcpu *vcpu, uint64_t deadline) {
  int kind = luna_vcpu_claim(vcpu, "run");
  if (kind == LUNA_OK) {
    kind = luna_vcpu_advance(vcpu, deadline, luna_vcpu_enter);
    luna_vcpu_disclaim(vcpu);
  }
  return kind;
}

int luna_vcpu_finish(luna_vcpu *vcpu) {
  int kind = luna_vcpu_claim(vcpu, "finish the instruction of");
  if (kind != LUNA_OK) {
    return kind;
  }
  kind =
      vcpu->pending.open
          ? luna_fail(LUNA_ERROR_STATE,
                      "cannot finish the instruction of vCPU %u: answer its exit first", vcpu->id)
          : settle(vcpu);
  luna_vcpu_disclaim(vcpu);
  return kind;
}
