/* SPDX-License-Identifier: MIT
 * Moving a vCPU to another space: its whole state goes to its KVM vCPU there, group by group, and
 * only what that does not hold already is written. */
#include "run/move.h"

#include "base/error.h"
#include "debug/debug.h"
#include "exit/claim.h"
#include "exit/coalesced.h"
#include "exit/control.h"
#include "exit/lookup.h"
#include "exit/system.h"
#include "interrupt/apic.h"
#include "interrupt/controllers.h"
#include "memory/space.h"
#include "memory/spaces.h"
#include "seat/group.h"
#include "seat/seat.h"
#include "seat/tsc.h"
#include "vcpu/account.h"
#include "vcpu/cpuid.h"
#include "vcpu/guard.h"
#include "vcpu/state.h"
#include "vcpu/tsc.h"
#include "vcpu/vcpu.h"

#include <string.h>

/* ---- Seats ---- */

/* The VM's lock is held. */
static void rise(luna_vcpu *vcpu) {
  if (vcpu->seat) {
    vcpu->seat->resident.kick = NULL;
    vcpu->seat->ran |= vcpu->exits > 0;
    luna_control_rise(vcpu);
    atomic_fetch_sub(&vcpu->space->vcpus, 1);
    vcpu->seat = NULL;
  }
}

void luna_move_sit(luna_vcpu *vcpu, luna_space *space, luna_seat *seat) {
  luna_account_rise(vcpu);
  pthread_rwlock_rdlock(&vcpu->vm->lock);
  rise(vcpu);
  seat->resident.kick = &vcpu->kick;
  atomic_fetch_add(&space->vcpus, 1);
  if (vcpu->vm->claims->coalesced) {
    atomic_fetch_or(&vcpu->attention, LUNA_ATTEND_COALESCED);
  }
  pthread_rwlock_unlock(&vcpu->vm->lock);
  vcpu->space = space;
  atomic_store(&vcpu->place, space->id);
  vcpu->seat = seat;
  vcpu->fd = seat->fd;
  vcpu->run = seat->run;
  vcpu->run->request_interrupt_window = 0; /* whoever still wants it asks again */
  luna_account_sit(vcpu);
  luna_control_sit(vcpu);
  luna_debug_sit(vcpu);
}

void luna_move_rise(luna_vcpu *vcpu) {
  pthread_rwlock_rdlock(&vcpu->vm->lock);
  rise(vcpu);
  pthread_rwlock_unlock(&vcpu->vm->lock);
}

/* ---- What goes along ---- */

static uint32_t groups_of(uint32_t flags) {
  uint32_t groups = LUNA_GROUPS_FPU | LUNA_GROUPS_MSRS;
  groups &= flags & LUNA_MOVE_NO_FPU ? ~(uint32_t)LUNA_GROUPS_FPU : groups;
  return flags & LUNA_MOVE_NO_MSRS ? groups & ~(uint32_t)LUNA_GROUPS_MSRS : groups;
}

/* *mapped: the vCPU's system area was not in the target before. */
static int take_seat(luna_vcpu *vcpu, luna_seat **seat, bool *mapped) {
  *mapped = false;
  pthread_rwlock_rdlock(&vcpu->vm->lock);
  const luna_space *target = vcpu->target;
  *seat = luna_seat_at(target, vcpu->id);
  pthread_rwlock_unlock(&vcpu->vm->lock);
  if (*seat && (*seat)->owner == vcpu->serial) {
    return LUNA_OK;
  }
  pthread_rwlock_wrlock(&vcpu->vm->lock);
  int status = luna_seat_take(vcpu->target, vcpu->id, seat);
  pthread_rwlock_unlock(&vcpu->vm->lock);
  status = status == LUNA_OK ? luna_cpuid_follow(vcpu, *seat) : status;
  return status == LUNA_OK ? luna_system_follow(vcpu, vcpu->target->id, mapped) : status;
}

static int move_state(luna_vcpu *vcpu, luna_seat *seat) {
  uint32_t groups = groups_of(vcpu->move_flags);
  if (seat->owner != vcpu->serial) { /* what is there is not this vCPU's to keep */
    groups = groups_of(0);
  }
  int status = vcpu->vm->irqchip ? luna_apic_settle(vcpu) : LUNA_OK;
  status = status == LUNA_OK ? luna_tsc_move(vcpu, seat) : status;
  status = status == LUNA_OK ? luna_seat_fetch(vcpu->seat, groups) : status;
  status = status == LUNA_OK ? luna_seat_write(seat, &vcpu->seat->held, groups) : status;
  if (status == LUNA_OK && groups >> LUNA_GROUP_MSRS & 1) {
    status = luna_seat_copy_tsc(seat, vcpu->seat);
  }
  return status == LUNA_OK ? luna_state_move(vcpu, seat) : status;
}

/* No interrupt is sent to a LAPIC that is on its way. */
static int move_apic(luna_vcpu *vcpu, luna_seat *seat) {
  pthread_mutex_t *moving = vcpu->vm->irqchip ? &vcpu->vm->controllers->moving : NULL;
  int status = LUNA_OK;
  if (moving) {
    pthread_mutex_lock(moving);
    status = luna_apic_move(vcpu, seat);
  }
  if (status == LUNA_OK) {
    seat->owner = vcpu->serial;
    luna_move_sit(vcpu, vcpu->target, seat);
    if (luna_apic_waits(vcpu)) {
      luna_state_commit(vcpu); /* where that fails, they stay on the run page */
    }
  }
  if (moving) {
    pthread_mutex_unlock(moving);
  }
  return status;
}

int luna_move_finish(luna_vcpu *vcpu) {
  luna_seat *seat;
  bool mapped;
  int status = take_seat(vcpu, &seat, &mapped);
  status = status == LUNA_OK ? move_state(vcpu, seat) : status;
  status = status == LUNA_OK ? move_apic(vcpu, seat) : status;
  if (status != LUNA_OK) {
    luna_failure why = luna_failure_take();
    if (mapped) {
      luna_system_leave(vcpu, vcpu->target->id);
    }
    luna_move_cancel(vcpu);
    luna_failure_put(&why);
    return status;
  }
  luna_move_cancel(vcpu); /* it is there: the count for being about to come goes */
  luna_lookup_forget(vcpu);
  luna_state_want_all(vcpu);
  return LUNA_OK;
}

void luna_move_cancel(luna_vcpu *vcpu) {
  if (vcpu->target) {
    atomic_fetch_sub(&vcpu->target->vcpus, 1);
    vcpu->target = NULL;
    atomic_store(&vcpu->place, vcpu->space->id);
  }
}

/* The target counts the vCPU from now on, so that nobody destroys it meanwhile. */
static int choose(luna_vcpu *vcpu, uint32_t id, uint32_t flags) {
  pthread_rwlock_rdlock(&vcpu->vm->lock);
  luna_space *space = luna_vm_find_space(vcpu->vm, id);
  if (space) {
    luna_move_cancel(vcpu);
    if (space != vcpu->space) {
      atomic_fetch_add(&space->vcpus, 1);
      vcpu->target = space;
      atomic_store(&vcpu->place, id);
      vcpu->move_flags = flags;
    }
  }
  pthread_rwlock_unlock(&vcpu->vm->lock);
  return space ? LUNA_OK : luna_error_status();
}

/* Moves now unless an exit is open, or opens while KVM finishes the instruction. */
static int move(luna_vcpu *vcpu) {
  if (!vcpu->target || vcpu->pending.open) {
    return LUNA_OK;
  }
  int kind = luna_vcpu_settle(vcpu);
  if (kind < 0) {
    luna_move_cancel(vcpu);
    return kind;
  }
  /* What KVM has collected here is for the next run to give, before it moves. */
  return kind == 0 && !luna_coalesced_waiting(vcpu) ? luna_move_finish(vcpu) : LUNA_OK;
}

int luna_vcpu_set_space(luna_vcpu *vcpu, uint32_t space, uint32_t flags) {
  int status = luna_vcpu_guard(vcpu);
  if (status != LUNA_OK) {
    return status;
  }
  const uint32_t known = LUNA_MOVE_NO_FPU | LUNA_MOVE_NO_MSRS;
  if (flags & ~known) {
    return luna_fail(LUNA_ERROR_ARGUMENT,
                     "cannot move vCPU %u with flags 0x%x: only 0x%x are known", vcpu->id, flags,
                     known);
  }
  if (atomic_exchange_explicit(&vcpu->running, true, memory_order_acquire)) {
    return luna_fail(LUNA_ERROR_STATE, "cannot move vCPU %u: it is running", vcpu->id);
  }
  status = choose(vcpu, space, flags);
  status = status == LUNA_OK ? move(vcpu) : status;
  atomic_store_explicit(&vcpu->running, false, memory_order_release);
  return status;
}

uint32_t luna_vcpu_space(const luna_vcpu *vcpu) {
  return atomic_load(&vcpu->place);
}
