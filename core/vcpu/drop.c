/* SPDX-License-Identifier: MIT
 * Dropping the exit at which a vCPU stands. KVM finishes the instruction whatever happens, a read
 * with zeroes; what that changes is put back, so that the instruction has not been. */
#include "vcpu/drop.h"

#include "base/error.h"
#include "vcpu/guard.h"
#include "vcpu/register.h"
#include "vcpu/state.h"
#include "vcpu/vcpu.h"

#include <string.h>

/* The registers are to be written as they were. KVM then forgets an exception that it has
 * queued. */
static void put_back(luna_vcpu *vcpu, struct kvm_regs *regs, const struct kvm_sregs *sregs) {
  luna_state *state = &vcpu->state;
  for (int reg = 0; reg < LUNA_GENERAL_COUNT; reg++) {
    state->values[reg] = *luna_register_place(regs, reg);
  }
  state->written = (1u << LUNA_GENERAL_COUNT) - 1;
  bool on_page = vcpu->run->kvm_valid_regs & KVM_SYNC_X86_SREGS; /* else asking is a call */
  const struct kvm_sregs *now = on_page ? luna_state_sregs(vcpu) : NULL;
  if (!now || memcmp(now, sregs, sizeof *sregs) != 0) {
    state->sregs = *sregs;
    state->sregs_known = state->sregs_written = true;
  }
}

static int take_back(luna_vcpu *vcpu) {
  struct kvm_regs regs;
  struct kvm_sregs sregs;
  int status = luna_state_general(vcpu, &regs);
  const struct kvm_sregs *held = status == LUNA_OK ? luna_state_sregs(vcpu) : NULL;
  if (!held) {
    return luna_error_status();
  }
  sregs = *held;
  status = luna_vcpu_discard(vcpu);
  if (status == LUNA_OK) {
    put_back(vcpu, &regs, &sregs);
  }
  return status;
}

int luna_drop_exit(luna_vcpu *vcpu) {
  const luna_pending *pending = &vcpu->pending;
  if (vcpu->controls && pending->incomplete && vcpu->run->exit_reason == KVM_EXIT_MMIO) {
    vcpu->run->mmio.len = 0; /* nothing has been done: kvm_control.h */
    vcpu->pending = (luna_pending){0};
    return LUNA_OK;
  }
  /* A WRMSR too: nobody has done it yet. */
  bool back = pending->incomplete && (pending->reads || vcpu->exit.kind == LUNA_EXIT_MSR);
  int status = back ? take_back(vcpu) : luna_vcpu_discard(vcpu);
  if (status == LUNA_OK) {
    vcpu->pending = (luna_pending){0};
  }
  return status;
}

/* An exit that nobody has seen, as the writes before it that KVM has collected go first. */
static int drop_kept(luna_vcpu *vcpu) {
  const luna_pending before = vcpu->pending;
  vcpu->pending = (luna_pending){.incomplete = true};
  int status = take_back(vcpu);
  vcpu->leave.kept = status != LUNA_OK;
  if (status != LUNA_OK) {
    vcpu->pending = before;
  }
  return status;
}

/* Those say nothing of where it stands. */
static bool is_anywhere(uint32_t kind) {
  return kind == LUNA_EXIT_TIMEOUT || kind == LUNA_EXIT_INTERRUPTED || kind == LUNA_EXIT_SIGNAL;
}

int luna_drop_place(luna_vcpu *vcpu) {
  int status = vcpu->pending.open ? luna_drop_exit(vcpu) : LUNA_OK;
  if (status == LUNA_OK && vcpu->leave.kept && vcpu->leave.number == 0) {
    status = drop_kept(vcpu);
  }
  if (status == LUNA_OK) {
    vcpu->pending.dropped = !is_anywhere(vcpu->exit.kind);
  }
  return status;
}

int luna_vcpu_drop(luna_vcpu *vcpu) {
  int status = luna_vcpu_guard(vcpu);
  if (status == LUNA_OK && !vcpu->pending.open) {
    status = luna_fail(LUNA_ERROR_STATE, "vCPU %u has no open exit to drop", vcpu->id);
  }
  return status == LUNA_OK ? luna_drop_exit(vcpu) : status;
}

uint32_t luna_vcpu_open(const luna_vcpu *vcpu) {
  return vcpu->pending.open;
}
