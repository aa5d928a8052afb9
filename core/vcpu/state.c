/* SPDX-License-Identifier: MIT
 * General and system registers: through the shared run page where KVM can (KVM_CAP_SYNC_REGS), by
 * ioctl where not. Writes wait in the vCPU until the next entry. */
#include "vcpu/state.h"

#include "base/error.h"
#include "kvm/kvm.h"
#include "kvm/kvm_control.h"
#include "seat/group.h"
#include "seat/seat.h"
#include "vcpu/check.h"
#include "vcpu/register.h"
#include "vcpu/vcpu.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static bool page_has_regs(const luna_vcpu *vcpu) {
  return vcpu->sync_regs & KVM_SYNC_X86_REGS;
}

int luna_state_begin(luna_vcpu *vcpu) {
  luna_state *state = &vcpu->state;
  if (luna_kvm_get_sregs(vcpu->fd, &state->sregs) != 0) {
    return luna_fail_errno(errno, "cannot read the system registers of vCPU %u", vcpu->id);
  }
  state->sregs_known = true;
  struct kvm_regs *regs = page_has_regs(vcpu) ? &vcpu->run->s.regs.regs : &state->regs;
  if (luna_kvm_get_regs(vcpu->fd, regs) != 0) {
    return luna_fail_errno(errno, "cannot read the registers of vCPU %u", vcpu->id);
  }
  state->regs_known = true;
  vcpu->run->kvm_valid_regs = 0;
  vcpu->run->cr8 = state->sregs.cr8; /* a seat that another vCPU had keeps its own */
  return LUNA_OK;
}

int luna_state_reload(luna_vcpu *vcpu) {
  luna_state *state = &vcpu->state;
  if (state->sregs_written || state->events_written || state->regs_whole ||
      vcpu->run->kvm_dirty_regs) {
    return LUNA_OK;
  }
  state->events_known = false;
  return luna_state_begin(vcpu);
}

int luna_state_commit(luna_vcpu *vcpu) {
  luna_state *state = &vcpu->state;
  int status = luna_state_flush(vcpu);
  if (status != LUNA_OK) {
    return status;
  }
  struct kvm_regs *regs = page_has_regs(vcpu) ? &vcpu->run->s.regs.regs : &state->regs;
  if ((state->regs_known && luna_kvm_set_regs(vcpu->fd, regs) != 0) ||
      (state->sregs_known && luna_kvm_set_sregs(vcpu->fd, &state->sregs) != 0)) {
    return errno == EINVAL
               ? luna_state_fail(vcpu)
               : luna_fail_errno(errno, "cannot write the registers of vCPU %u", vcpu->id);
  }
  vcpu->run->kvm_dirty_regs &= ~(uint64_t)(LUNA_DIRTY_REGS | KVM_SYNC_X86_SREGS);
  return LUNA_OK;
}

int luna_state_push(luna_vcpu *vcpu) {
  struct kvm_run *run = vcpu->run;
  int status = luna_state_flush(vcpu);
  if (status != LUNA_OK || !run->kvm_dirty_regs) {
    return status;
  }
  if ((run->kvm_dirty_regs & KVM_SYNC_X86_REGS &&
       luna_kvm_set_regs(vcpu->fd, &run->s.regs.regs) != 0) ||
      (run->kvm_dirty_regs & KVM_SYNC_X86_SREGS &&
       luna_kvm_set_sregs(vcpu->fd, &run->s.regs.sregs) != 0) ||
      (run->kvm_dirty_regs & KVM_SYNC_X86_EVENTS &&
       luna_kvm_set_events(vcpu->fd, &run->s.regs.events) != 0)) {
    return errno == EINVAL
               ? luna_state_fail(vcpu)
               : luna_fail_errno(errno, "cannot write the registers of vCPU %u", vcpu->id);
  }
  run->kvm_dirty_regs = 0;
  return LUNA_OK;
}

bool luna_state_interruptible(const luna_vcpu *vcpu) {
  const uint64_t rflags_if = 1 << 9;
  const struct kvm_regs *regs = page_has_regs(vcpu) ? &vcpu->run->s.regs.regs : &vcpu->state.regs;
  return vcpu->state.regs_known ? regs->rflags & rflags_if : vcpu->run->if_flag;
}

const struct kvm_regs *luna_state_regs(luna_vcpu *vcpu) {
  luna_state *state = &vcpu->state;
  struct kvm_regs *regs = page_has_regs(vcpu) ? &vcpu->run->s.regs.regs : &state->regs;
  if (!state->regs_known) {
    if (luna_kvm_get_regs(vcpu->fd, regs) != 0) {
      luna_fail_errno(errno, "cannot read the registers of vCPU %u", vcpu->id);
      return NULL;
    }
    state->regs_known = true;
  }
  return luna_state_known_regs(vcpu);
}

int luna_state_general(luna_vcpu *vcpu, struct kvm_regs *regs) {
  const struct kvm_regs *held = luna_state_regs(vcpu);
  if (!held) {
    return luna_error_status();
  }
  *regs = *held;
  for (uint32_t left = vcpu->state.written; left; left &= left - 1) {
    int reg = __builtin_ctz(left);
    *luna_register_place(regs, reg) = vcpu->state.values[reg];
  }
  return LUNA_OK;
}

static void ask_for_regs(luna_vcpu *vcpu) {
  if (vcpu->state.regs_demand > 0) {
    vcpu->state.regs_demand--;
    vcpu->run->kvm_valid_regs |= vcpu->sync_regs & KVM_SYNC_X86_REGS;
  } else {
    vcpu->run->kvm_valid_regs &= ~(uint64_t)KVM_SYNC_X86_REGS;
  }
}

/* A vCPU whose system registers are asked for once will be asked again: from then on the run page
 * brings them. */
struct kvm_sregs *luna_state_sregs(luna_vcpu *vcpu) {
  luna_state *state = &vcpu->state;
  if (state->sregs_known) {
    return &state->sregs;
  }
  if (vcpu->run->kvm_valid_regs & KVM_SYNC_X86_SREGS) {
    state->sregs = vcpu->run->s.regs.sregs;
    luna_kvm_mend_sregs(&state->sregs);
  } else if (luna_kvm_get_sregs(vcpu->fd, &state->sregs) != 0) {
    luna_fail_errno(errno, "cannot read the system registers of vCPU %u", vcpu->id);
    return NULL;
  }
  vcpu->run->kvm_valid_regs |= vcpu->sync_regs & KVM_SYNC_X86_SREGS;
  state->sregs_known = true;
  return &state->sregs;
}

struct kvm_vcpu_events *luna_state_events(luna_vcpu *vcpu) {
  luna_state *state = &vcpu->state;
  if (state->events_known) {
    return &state->events;
  }
  if (vcpu->run->kvm_valid_regs & KVM_SYNC_X86_EVENTS) {
    state->events = vcpu->run->s.regs.events;
  } else if (luna_kvm_get_events(vcpu->fd, &state->events) != 0) {
    luna_fail_errno(errno, "cannot read the events of vCPU %u", vcpu->id);
    return NULL;
  }
  state->events_known = true;
  return &state->events;
}

/* The shadow of STI and of a load of SS is over the instruction that comes next. */
int luna_state_leave_shadow(luna_vcpu *vcpu, uint8_t *was) {
  *was = 0;
  bool fresh = atomic_load(&vcpu->exits) == 0 && !vcpu->state.events_known;
  if (vcpu->state.shadow_set || fresh) {
    return LUNA_OK;
  }
  bool on_page = !vcpu->state.events_known && vcpu->run->kvm_valid_regs & KVM_SYNC_X86_EVENTS;
  if (on_page && !vcpu->run->s.regs.events.interrupt.shadow) {
    return LUNA_OK;
  }
  struct kvm_vcpu_events *events = luna_state_events(vcpu);
  if (!events) {
    return luna_error_status();
  }
  vcpu->run->kvm_valid_regs |= vcpu->sync_regs & KVM_SYNC_X86_EVENTS; /* it will do so again */
  *was = events->interrupt.shadow;
  luna_state_put_shadow(vcpu, 0);
  return LUNA_OK;
}

void luna_state_put_shadow(luna_vcpu *vcpu, uint8_t shadow) {
  struct kvm_vcpu_events *events = &vcpu->state.events;
  if (events->interrupt.shadow != shadow) {
    events->interrupt.shadow = shadow;
    events->flags |= KVM_VCPUEVENT_VALID_SHADOW;
    vcpu->state.events_written = true;
  }
}

int luna_state_read(luna_vcpu *vcpu, luna_held *state) {
  int status = luna_state_general(vcpu, &state->regs);
  const struct kvm_sregs *sregs = status == LUNA_OK ? luna_state_sregs(vcpu) : NULL;
  const struct kvm_vcpu_events *events = sregs ? luna_state_events(vcpu) : NULL;
  if (!events) {
    return luna_error_status();
  }
  state->sregs = *sregs;
  state->events = *events;
  luna_state_want_all(vcpu); /* not before: the page has what the last entry was asked for */
  return LUNA_OK;
}

void luna_state_want_all(luna_vcpu *vcpu) {
  vcpu->run->kvm_valid_regs = vcpu->sync_regs & KVM_SYNC_X86_VALID_FIELDS;
}

/* All general registers are to be taken from the run page, though it may have been RIP alone. */
static void take_whole(struct kvm_run *run) {
  run->kvm_dirty_regs &= ~(uint64_t)LUNA_KVM_SYNC_RIP;
  run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
}

/* Notes in the seat that the vCPU leaves what KVM holds there. */
static void leave(luna_vcpu *vcpu) {
  const luna_state *state = &vcpu->state;
  luna_held *held = &vcpu->seat->held;
  if (!state->sregs_written) {
    held->sregs = state->sregs;
    held->known |= 1u << LUNA_GROUP_SREGS;
  }
  if (!state->events_written) {
    held->events = state->events;
    held->known |= 1u << LUNA_GROUP_EVENTS;
  }
}

/* Whether the seat holds these bytes as the group. */
static bool holds(luna_seat *seat, luna_group group, const void *bytes) {
  size_t size;
  const void *copy = luna_group_bytes(&seat->held, group, &size);
  return seat->held.known >> group & 1 && memcmp(copy, bytes, size) == 0;
}

int luna_state_move(luna_vcpu *vcpu, luna_seat *target) {
  luna_state *state = &vcpu->state;
  const struct kvm_regs *regs = luna_state_regs(vcpu);
  const struct kvm_sregs *sregs = luna_state_sregs(vcpu);
  const struct kvm_vcpu_events *events = luna_state_events(vcpu);
  if (!regs || !sregs || !events) {
    return luna_error_status();
  }
  leave(vcpu);
  state->sregs_written |= !holds(target, LUNA_GROUP_SREGS, sregs);
  state->events_written |= !holds(target, LUNA_GROUP_EVENTS, events);
  target->run->cr8 = sregs->cr8;
  target->run->ready_for_interrupt_injection = vcpu->run->ready_for_interrupt_injection;
  target->run->if_flag = vcpu->run->if_flag;
  if (page_has_regs(vcpu)) {
    target->run->s.regs.regs = *regs;
    take_whole(target->run);
  } else {
    state->regs_whole = true;
  }
  return LUNA_OK;
}

bool luna_state_conflicts(const luna_vcpu *vcpu) {
  const luna_state *state = &vcpu->state;
  if (!vcpu->pending.incomplete) {
    return false;
  }
  return state->sregs_written || state->events_written || (state->written && vcpu->pending.reads) ||
         state->written >> LUNA_RIP & 1;
}

void luna_state_adopt(luna_vcpu *vcpu, const luna_held *held) {
  luna_state *state = &vcpu->state;
  *(page_has_regs(vcpu) ? &vcpu->run->s.regs.regs : &state->regs) = held->regs;
  state->regs_known = state->regs_whole = true;
  state->written = 0;
  state->sregs = held->sregs;
  state->sregs_known = state->sregs_written = true;
  state->events = held->events;
  state->events_known = state->events_written = true;
}

/* What programs write at most exits, where that can be told. */
static bool flush_rip(luna_vcpu *vcpu) {
  luna_state *state = &vcpu->state;
  bool alone = state->written == 1u << LUNA_RIP && !state->regs_whole && state->regs_known;
  if (!alone || !(vcpu->sync_regs & LUNA_KVM_SYNC_RIP)) {
    return false;
  }
  vcpu->run->s.regs.regs.rip = state->values[LUNA_RIP];
  vcpu->run->kvm_dirty_regs |= vcpu->run->kvm_dirty_regs & KVM_SYNC_X86_REGS ? 0 : LUNA_DIRTY_REGS;
  state->written = 0;
  return true;
}

static int flush_general(luna_vcpu *vcpu) {
  luna_state *state = &vcpu->state;
  if (flush_rip(vcpu)) {
    return LUNA_OK;
  }
  if (!luna_state_regs(vcpu)) {
    return luna_error_status();
  }
  struct kvm_regs *regs = page_has_regs(vcpu) ? &vcpu->run->s.regs.regs : &state->regs;
  for (uint32_t left = state->written; left; left &= left - 1) {
    int reg = __builtin_ctz(left);
    *luna_register_place(regs, reg) = state->values[reg];
  }
  if (page_has_regs(vcpu)) {
    take_whole(vcpu->run);
  } else if (luna_kvm_set_regs(vcpu->fd, regs) != 0) {
    return luna_fail_errno(errno, "cannot write the registers of vCPU %u", vcpu->id);
  }
  state->written = 0;
  state->regs_whole = false;
  return LUNA_OK;
}

/* Without an in-kernel LAPIC, KVM takes CR8 from the run page at every entry; with one, from the
 * system registers. */
static int flush_system(luna_vcpu *vcpu) {
  luna_state *state = &vcpu->state;
  vcpu->run->cr8 = state->sregs.cr8;
  if (vcpu->sync_regs & KVM_SYNC_X86_SREGS) {
    vcpu->run->s.regs.sregs = state->sregs;
    vcpu->run->kvm_dirty_regs |= KVM_SYNC_X86_SREGS;
  } else if (luna_kvm_set_sregs(vcpu->fd, &state->sregs) != 0) {
    return errno == EINVAL
               ? luna_state_fail(vcpu)
               : luna_fail_errno(errno, "cannot write the system registers of vCPU %u", vcpu->id);
  }
  state->sregs_written = false;
  return LUNA_OK;
}

/* After the general registers: writing those makes KVM forget a pending exception. */
static int flush_events(luna_vcpu *vcpu) {
  luna_state *state = &vcpu->state;
  if (vcpu->sync_regs & KVM_SYNC_X86_EVENTS) {
    vcpu->run->s.regs.events = state->events;
    vcpu->run->kvm_dirty_regs |= KVM_SYNC_X86_EVENTS;
  } else if (luna_kvm_set_events(vcpu->fd, &state->events) != 0) {
    return luna_fail_errno(errno, "cannot write the events of vCPU %u", vcpu->id);
  }
  state->events_written = false;
  return LUNA_OK;
}

int luna_state_flush(luna_vcpu *vcpu) {
  bool general = vcpu->state.written || vcpu->state.regs_whole;
  int status = general ? flush_general(vcpu) : LUNA_OK;
  if (status == LUNA_OK && vcpu->state.sregs_written) {
    status = flush_system(vcpu);
  }
  if (status == LUNA_OK && vcpu->state.events_written) {
    status = flush_events(vcpu);
  }
  ask_for_regs(vcpu);
  return status;
}

/* Registers that wait to be written, and those that a failed entry left dirty on the run page, stay
 * true. */
void luna_state_entered(luna_vcpu *vcpu) {
  luna_state *state = &vcpu->state;
  uint64_t dirty = vcpu->run->kvm_dirty_regs;
  state->regs_known = (vcpu->run->kvm_valid_regs | dirty) & KVM_SYNC_X86_REGS;
  state->sregs_known = state->sregs_written || dirty & KVM_SYNC_X86_SREGS;
  state->events_known = state->events_written || dirty & KVM_SYNC_X86_EVENTS;
  state->shadow_set = false;
  vcpu->seat->held.known = 0;
  vcpu->seat->timer_count = 0; /* the guest may have written its own, 0 too */
}

/* Registers that KVM did not take stay as they were written, to be mended. */
int luna_state_fail(luna_vcpu *vcpu) {
  if (vcpu->run->kvm_dirty_regs & KVM_SYNC_X86_SREGS) {
    vcpu->state.sregs_written = true;
  }
  const struct kvm_sregs *s = luna_state_sregs(vcpu);
  if (!s) {
    return luna_error_status();
  }
  char rule[256] = "";
  int found = luna_check_find(vcpu, false, rule, sizeof rule);
  if (found == 0) { /* then it is a feature that KVM keeps from this vCPU */
    found = luna_check_find(vcpu, true, rule, sizeof rule);
  }
  return luna_fail(LUNA_ERROR_SYSTEM,
                   "cannot run vCPU %u: KVM refuses its system registers (cr0=0x%llx cr3=0x%llx "
                   "cr4=0x%llx efer=0x%llx apic_base=0x%llx cs=0x%x): %s%s",
                   vcpu->id, s->cr0, s->cr3, s->cr4, s->efer, s->apic_base, s->cs.selector, rule,
                   found > 0 ? "" : "see SDM Vol. 3, 27.3.1, 'Checks on the Guest State Area'");
}
