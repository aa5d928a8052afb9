/* SPDX-License-Identifier: MIT
 * The last exits of a vCPU, which are always kept: what an exit costs for that is some stores. */
#ifndef LUNA_TRAIL_H
#define LUNA_TRAIL_H

#include "vcpu/vcpu.h"

/* In each vCPU. */
typedef struct luna_trail {
  luna_last_exit exits[LUNA_LAST_EXITS]; /* each at its number modulo that */
  uint64_t count;
  luna_last_exit *last; /* the vCPU stands at it; NULL once it has gone on */
  struct kvm_regs marked;
  bool is_marked;
} luna_trail;

static inline void luna_trail_rip(const luna_vcpu *vcpu, luna_last_exit *last) {
  const struct kvm_regs *regs =
      vcpu->sync_regs & KVM_SYNC_X86_REGS ? &vcpu->run->s.regs.regs : &vcpu->state.regs;
  last->rip = regs->rip;
  last->known |= LUNA_KNOWN_RIP;
}

/* The place of the next exit: a timeout takes that of a timeout before it, or whoever runs a vCPU a
 * slice at a time would soon have nothing else. */
static inline luna_last_exit *luna_trail_next(luna_trail *trail, int kind) {
  luna_last_exit *before = &trail->exits[(trail->count - 1) % LUNA_LAST_EXITS];
  if (kind == LUNA_EXIT_TIMEOUT && before->kind == LUNA_EXIT_TIMEOUT) {
    return before;
  }
  return &trail->exits[trail->count++ % LUNA_LAST_EXITS];
}

/* Notes an exit that somebody is given. */
static inline void luna_trail_note(luna_vcpu *vcpu, int kind, uint64_t serial) {
  luna_trail *trail = vcpu->trail;
  if (kind <= 0) {
    trail->last = NULL;
    return;
  }
  const luna_exit *e = &vcpu->exit;
  luna_last_exit *last = luna_trail_next(trail, kind);
  last->serial = serial;
  last->address = e->address;
  last->value = e->value;
  last->kind = (uint32_t)kind;
  last->size = e->size;
  last->access = e->access;
  last->known = e->access == LUNA_READ ? 0 : LUNA_KNOWN_VALUE;
  if (vcpu->state.regs_known) {
    luna_trail_rip(vcpu, last);
  }
  trail->last = last;
  vcpu->pending.answered = false;
}

/* Completes the last exit, as far as that is known by now, before the vCPU goes on. */
void luna_trail_complete(luna_vcpu *vcpu);

static inline void luna_trail_leave(luna_vcpu *vcpu) {
  luna_trail *trail = vcpu->trail;
  if (trail->last) {
    if (vcpu->pending.answered ||
        (vcpu->state.regs_known && !(trail->last->known & LUNA_KNOWN_RIP))) {
      luna_trail_complete(vcpu);
    }
    trail->last = NULL;
  }
}

#endif
