/* SPDX-License-Identifier: MIT
 * General and system registers and events, between the script and KVM: read when first asked for
 * after an exit, written at the next entry. */
#ifndef LUNA_STATE_H
#define LUNA_STATE_H

#include "kvm/kvm_control.h"
#include "seat/seat.h"
#include "vcpu/vcpu.h"

int luna_state_begin(luna_vcpu *vcpu);
/* Writes registers now: KVM does not look at the run page of a vCPU that waits. */
int luna_state_commit(luna_vcpu *vcpu);
/* The same for those that wait to be written, and no others. */
int luna_state_push(luna_vcpu *vcpu);
/* Reads again what KVM may have changed without an entry, unless writes wait for the next one. */
int luna_state_reload(luna_vcpu *vcpu);
/* Whether RFLAGS.IF will be set at the next entry, as far as that is known without a call. */
bool luna_state_interruptible(const luna_vcpu *vcpu);
/* The general registers as KVM has them, without the writes that wait; NULL with an error. */
const struct kvm_regs *luna_state_regs(luna_vcpu *vcpu);

/* Of kvm_dirty_regs: the general registers, whether RIP alone or all. */
enum {
  LUNA_DIRTY_REGS = KVM_SYNC_X86_REGS | LUNA_KVM_SYNC_RIP
};

/* Bringing the registers at every exit costs every exit a little, reading them by ioctl costs much:
 * a vCPU whose registers were asked for gets them with its next exits. */
enum {
  LUNA_REGS_DEMAND = 16
};

/* The same where they are known; else NULL. */
static inline const struct kvm_regs *luna_state_known_regs(luna_vcpu *vcpu) {
  luna_state *state = &vcpu->state;
  state->regs_demand = LUNA_REGS_DEMAND;
  const struct kvm_regs *regs =
      vcpu->sync_regs & KVM_SYNC_X86_REGS ? &vcpu->run->s.regs.regs : &state->regs;
  return state->regs_known ? regs : NULL;
}

/* The same with the writes that wait. */
int luna_state_general(luna_vcpu *vcpu, struct kvm_regs *regs);
struct kvm_sregs *luna_state_sregs(luna_vcpu *vcpu);
struct kvm_vcpu_events *luna_state_events(luna_vcpu *vcpu);
/* RIP is to be set to another instruction: none is in the interrupt shadow any more. `*was` is the
 * shadow that was there, to be put back where that fails after all. */
int luna_state_leave_shadow(luna_vcpu *vcpu, uint8_t *was);
void luna_state_put_shadow(luna_vcpu *vcpu, uint8_t shadow);
/* Takes the registers over to another seat: what differs there is written at the next entry. */
int luna_state_move(luna_vcpu *vcpu, luna_seat *target);
/* From now on every exit brings system registers and events too, where the run page can. */
void luna_state_want_all(luna_vcpu *vcpu);
/* Whether writes wait that KVM would spoil when it finishes the instruction under way. */
bool luna_state_conflicts(const luna_vcpu *vcpu);
/* The groups of LUNA_GROUPS_PAGE, with the writes that wait. */
int luna_state_read(luna_vcpu *vcpu, luna_held *state);
/* From now on these are those groups, whatever KVM has. No instruction is under way. */
void luna_state_adopt(luna_vcpu *vcpu, const luna_held *state);
/* Hands the waiting writes to KVM for the next entry. */
int luna_state_flush(luna_vcpu *vcpu);
/* After an entry: what was read before is old. */
void luna_state_entered(luna_vcpu *vcpu);
/* Explains an entry that KVM refused with EINVAL. */
int luna_state_fail(luna_vcpu *vcpu);

#endif
