/* SPDX-License-Identifier: MIT
 * Interrupts for one vCPU, from any thread: vectors that wait until the guest accepts one (api.rst,
 * KVM_INTERRUPT), NMI and SMI. They are given to KVM with the vCPU's events, so that they move with
 * it and no call is needed where the run page carries those. */
#include "interrupt/interrupt.h"

#include "base/error.h"
#include "kvm/kick.h"
#include "kvm/kvm_control.h"
#include "kvm/kvm_interrupt.h"
#include "lunavisor/vmx.h"
#include "vcpu/guard.h"
#include "vcpu/record.h"
#include "vcpu/state.h"
#include "vcpu/vcpu.h"

#include <errno.h>
#include <stddef.h>

enum {
  FIRST_VECTOR = 16,
  VECTORS = 256
};

/* ---- Any thread ---- */

static void call_attention(luna_vcpu *vcpu) {
  atomic_fetch_or(&vcpu->attention, LUNA_ATTEND_INTERRUPT);
  luna_kick_attend(&vcpu->kick);
}

/* A fixed, edge-triggered message to the LAPIC with the vCPU's number (SDM Vol. 3, 11.11). */
static int send(luna_vcpu *vcpu, uint32_t vector) {
  if (vcpu->id > 254) {
    return luna_fail(LUNA_ERROR_UNSUPPORTED,
                     "cannot interrupt vCPU %u: a message reaches APIC IDs up to 254", vcpu->id);
  }
  return luna_vm_msi(vcpu->vm, 0xfee00000 | (uint64_t)vcpu->id << 12, vector);
}

int luna_vcpu_interrupt_vector(luna_vcpu *vcpu, uint32_t vector) {
  uint32_t first = vcpu->vm->irqchip ? FIRST_VECTOR : 0; /* a PIC has any */
  if (vector < first || vector >= VECTORS) {
    return luna_fail(LUNA_ERROR_RANGE, "cannot interrupt vCPU %u with vector %u: they are %u to %d",
                     vcpu->id, vector, first, VECTORS - 1);
  }
  if (vcpu->vm->irqchip) {
    return send(vcpu, vector);
  }
  const uint64_t bit = UINT64_C(1) << vector % 64;
  bool new = !(atomic_fetch_or(&vcpu->waiting[vector / 64], bit) & bit);
  call_attention(vcpu);
  return new;
}

int luna_vcpu_interrupt_waiting(luna_vcpu *vcpu) {
  for (int word = 3; word >= 0; word--) {
    uint64_t bits = atomic_load(&vcpu->waiting[word]);
    if (bits) {
      return word * 64 + 63 - __builtin_clzll(bits);
    }
  }
  return -1;
}

int luna_vcpu_nmi(luna_vcpu *vcpu) {
  atomic_fetch_or(&vcpu->posted, LUNA_POSTED_NMI);
  call_attention(vcpu);
  return LUNA_OK;
}

int luna_vcpu_smi(luna_vcpu *vcpu) {
  if (!luna_kvm_has(vcpu->vm->host->accel, KVM_CAP_X86_SMM)) {
    return luna_fail(LUNA_ERROR_UNSUPPORTED,
                     "cannot send vCPU %u an SMI: this host's KVM has no KVM_CAP_X86_SMM",
                     vcpu->id);
  }
  atomic_fetch_or(&vcpu->posted, LUNA_POSTED_SMI);
  call_attention(vcpu);
  return LUNA_OK;
}

/* ---- The vCPU's thread ---- */

bool luna_interrupt_wakes(const luna_vcpu *vcpu) {
  if (!(atomic_load(&vcpu->attention) & LUNA_ATTEND_INTERRUPT)) {
    return false;
  }
  bool vector = false;
  for (int word = 0; word < 4; word++) {
    vector |= atomic_load(&vcpu->waiting[word]) != 0;
  }
  return atomic_load(&vcpu->posted) != 0 || (vector && vcpu->run->if_flag);
}

static bool is_free(const struct kvm_vcpu_events *e) {
  return !(e->exception.injected | e->exception.pending | e->nmi.injected | e->nmi.pending |
           e->interrupt.injected | e->interrupt.shadow);
}

/* Whether the guest takes an interrupt before its next instruction. What the run page says is as
 * old as the last exit: registers and events that were written since count, and where registers
 * are known anyway, no window has to be waited for. */
static bool accepts(luna_vcpu *vcpu) {
  const luna_state *state = &vcpu->state;
  bool ready = vcpu->run->ready_for_interrupt_injection;
  if (!luna_state_interruptible(vcpu) || (!ready && !state->regs_known)) {
    return false;
  }
  const struct kvm_vcpu_events *events =
      ready && !state->events_known ? NULL : luna_state_events(vcpu);
  return events ? is_free(events) : ready;
}

/* The events, to be written with the entry; from now on the run page brings them. */
static struct kvm_vcpu_events *change_events(luna_vcpu *vcpu) {
  struct kvm_vcpu_events *events = luna_state_events(vcpu);
  if (events) {
    vcpu->run->kvm_valid_regs |= vcpu->sync_regs & KVM_SYNC_X86_EVENTS;
    vcpu->state.events_written = true;
  }
  return events;
}

static int take_posted(luna_vcpu *vcpu) {
  if (atomic_load(&vcpu->posted) == 0) {
    return LUNA_OK;
  }
  struct kvm_vcpu_events *events = change_events(vcpu);
  if (!events) {
    return luna_error_status();
  }
  unsigned posted = atomic_exchange(&vcpu->posted, 0);
  if (posted & LUNA_POSTED_NMI) {
    events->nmi.pending = 1;
    events->flags |= KVM_VCPUEVENT_VALID_NMI_PENDING;
  }
  if (posted & LUNA_POSTED_SMI) {
    events->smi.pending = 1;
    events->flags |= KVM_VCPUEVENT_VALID_SMM;
  }
  return LUNA_OK;
}

/* Gives KVM the highest vector that waits, or asks for an exit when the guest can take one. */
static int take_vector(luna_vcpu *vcpu) {
  int vector = luna_vcpu_interrupt_waiting(vcpu);
  if (vector >= 0 && accepts(vcpu)) {
    struct kvm_vcpu_events *events = change_events(vcpu);
    if (!events) {
      return luna_error_status();
    }
    atomic_fetch_and(&vcpu->waiting[vector / 64], ~(UINT64_C(1) << vector % 64));
    events->interrupt.injected = 1;
    events->interrupt.nr = (uint8_t)vector;
    events->interrupt.soft = 0;
    vector = luna_vcpu_interrupt_waiting(vcpu);
  }
  vcpu->run->request_interrupt_window = vector >= 0 || vcpu->window;
  return LUNA_OK;
}

/* KVM may not have been entered: what the run page says of its last exit is not of this one. */
static int window_exit(luna_vcpu *vcpu) {
  luna_exit_set(vcpu, LUNA_EXIT_OTHER);
  vcpu->exit.reason = KVM_EXIT_IRQ_WINDOW_OPEN;
  return LUNA_EXIT_OTHER;
}

/* With the guest behind the instruction whose exit was answered: a further exit that this makes
 * goes first. 0 if the guest accepts none any more. */
static int open_window(luna_vcpu *vcpu) {
  int kind = luna_vcpu_settle(vcpu);
  return kind == 0 && accepts(vcpu) ? window_exit(vcpu) : kind;
}

int luna_interrupt_enter(luna_vcpu *vcpu) {
  if (!(atomic_load(&vcpu->attention) & LUNA_ATTEND_INTERRUPT)) {
    return LUNA_OK;
  }
  luna_kick_attended(&vcpu->kick);
  /* Who posts something now sets the bit again. */
  atomic_fetch_and(&vcpu->attention, ~(unsigned)LUNA_ATTEND_INTERRUPT);
  int status = take_posted(vcpu);
  status = status == LUNA_OK ? take_vector(vcpu) : status;
  if (status != LUNA_OK || vcpu->window || luna_vcpu_interrupt_waiting(vcpu) >= 0) {
    atomic_fetch_or(&vcpu->attention, LUNA_ATTEND_INTERRUPT);
  }
  if (status == LUNA_OK && vcpu->window && accepts(vcpu)) {
    status = open_window(vcpu);
  }
  return status == LUNA_OK && vcpu->state.events_written ? luna_state_flush(vcpu) : status;
}

/* ---- What has not reached the guest ---- */

static bool take_posted_back(luna_vcpu *vcpu, uint32_t info) {
  const uint64_t bit = UINT64_C(1) << info % 64;
  const luna_kvm_event none = {0};
  switch (info & IRQ_INFO_TYPE_MASK) {
    case IRQ_INFO_EXT_IRQ:
      return atomic_fetch_and(&vcpu->waiting[(info & 0xff) / 64], ~bit) & bit;
    case IRQ_INFO_NMI:
      return atomic_fetch_and(&vcpu->posted, ~(unsigned)LUNA_POSTED_NMI) & LUNA_POSTED_NMI;
    default:
      return vcpu->controls && luna_kvm_deliver(vcpu->fd, &none) > 0;
  }
}

/* Whether KVM has it, and would deliver it at the next entry. */
static bool is_given(const struct kvm_vcpu_events *e, uint32_t info) {
  const uint32_t vector = info & 0xff;
  switch (info & IRQ_INFO_TYPE_MASK) {
    case IRQ_INFO_EXT_IRQ:
      return e->interrupt.injected && e->interrupt.nr == vector;
    case IRQ_INFO_NMI:
      return e->nmi.injected | e->nmi.pending;
    default:
      return (e->exception.injected | e->exception.pending) && e->exception.nr == vector;
  }
}

static void forget(struct kvm_vcpu_events *e, uint32_t info) {
  switch (info & IRQ_INFO_TYPE_MASK) {
    case IRQ_INFO_EXT_IRQ:
      e->interrupt.injected = 0;
      break;
    case IRQ_INFO_NMI:
      e->nmi.injected = e->nmi.pending = 0;
      e->flags |= KVM_VCPUEVENT_VALID_NMI_PENDING;
      break;
    default:
      e->exception.injected = e->exception.pending = 0;
  }
}

int luna_vcpu_withdraw(luna_vcpu *vcpu, uint32_t info) {
  int status = luna_vcpu_guard(vcpu);
  if (status != LUNA_OK) {
    return status;
  }
  if (take_posted_back(vcpu, info)) {
    return 1;
  }
  const struct kvm_vcpu_events *events = luna_state_events(vcpu);
  if (!events) {
    return luna_error_status();
  }
  if (!is_given(events, info)) {
    return 0;
  }
  forget(change_events(vcpu), info);
  return 1;
}

int luna_interrupt_window(luna_vcpu *vcpu) {
  return vcpu->window ? window_exit(vcpu) : 0;
}

/* ---- For a controller of the embedder's ---- */

int luna_vcpu_window(luna_vcpu *vcpu, uint32_t on) {
  int status = luna_vcpu_guard(vcpu);
  if (status != LUNA_OK) {
    return status;
  }
  vcpu->window = on != 0;
  atomic_fetch_or(&vcpu->attention, LUNA_ATTEND_INTERRUPT);
  return LUNA_OK;
}

int luna_vcpu_extint(luna_vcpu *vcpu, uint32_t vector) {
  if (vector >= VECTORS) {
    return luna_fail(LUNA_ERROR_RANGE, "cannot interrupt vCPU %u with vector %u: the last is %d",
                     vcpu->id, vector, VECTORS - 1);
  }
  if (vcpu->vm->irqchip != LUNA_IRQCHIP_SPLIT || atomic_load(&vcpu->running)) {
    return luna_fail(LUNA_ERROR_STATE,
                     "cannot hand vCPU %u a PIC's vector: that needs irqchip 'split', and a vCPU "
                     "that does not run",
                     vcpu->id);
  }
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  if (luna_kvm_interrupt(vcpu->fd, vector) == 0) {
    return LUNA_OK;
  }
  return errno == EEXIST
             ? luna_fail(LUNA_ERROR_BUSY, "vCPU %u has a PIC's vector waiting already", vcpu->id)
             : luna_fail_errno(errno, "cannot hand vCPU %u vector %u", vcpu->id, vector);
}

enum {
  BLOCKING_STI = 1,
  BLOCKING_MOV_SS = 2,
  BLOCKING_NMI = 8
};

int luna_vcpu_get_blocking(luna_vcpu *vcpu, uint32_t *blocking) {
  int status = luna_vcpu_guard(vcpu);
  const struct kvm_vcpu_events *events = status == LUNA_OK ? luna_state_events(vcpu) : NULL;
  if (!events) {
    return luna_error_status();
  }
  uint8_t shadow = events->interrupt.shadow;
  *blocking = (shadow & KVM_X86_SHADOW_INT_STI ? BLOCKING_STI : 0) |
              (shadow & KVM_X86_SHADOW_INT_MOV_SS ? BLOCKING_MOV_SS : 0) |
              (events->nmi.masked ? BLOCKING_NMI : 0);
  return LUNA_OK;
}

int luna_vcpu_set_blocking(luna_vcpu *vcpu, uint32_t blocking) {
  const uint32_t known = BLOCKING_STI | BLOCKING_MOV_SS | BLOCKING_NMI;
  if (blocking & ~known) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "cannot set blocking 0x%x of vCPU %u: 0x%x are known",
                     blocking, vcpu->id, known);
  }
  int status = luna_vcpu_guard(vcpu);
  struct kvm_vcpu_events *events = status == LUNA_OK ? change_events(vcpu) : NULL;
  if (!events) {
    return luna_error_status();
  }
  events->interrupt.shadow = (blocking & BLOCKING_STI ? KVM_X86_SHADOW_INT_STI : 0) |
                             (blocking & BLOCKING_MOV_SS ? KVM_X86_SHADOW_INT_MOV_SS : 0);
  events->nmi.masked = (blocking & BLOCKING_NMI) != 0;
  events->flags |= KVM_VCPUEVENT_VALID_SHADOW;
  vcpu->state.shadow_set = true;
  return LUNA_OK;
}
