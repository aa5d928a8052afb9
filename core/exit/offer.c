/* SPDX-License-Identifier: MIT
 * The open exit, and whoever owns its access by now: memory, an eventfd, a trap. What the core
 * answers of it is no exit any more. */
#include "exit/offer.h"

#include "exit/answer.h"
#include "exit/eventfd.h"
#include "exit/lookup.h"
#include "exit/reply.h"
#include "memory/space.h"
#include "memory/spaces.h"
#include "vcpu/vcpu.h"

bool luna_exit_stale(const luna_vcpu *vcpu) {
  const luna_exit *e = &vcpu->exit;
  bool waits = luna_exit_trap_kind(e) >= 0 || e->kind == LUNA_EXIT_HYPERCALL ||
               (e->kind == LUNA_EXIT_HOST_FAULT && e->size);
  return vcpu->pending.dropped || (waits && !vcpu->pending.open);
}

luna_touch luna_exit_touch(luna_vcpu *vcpu) {
  const luna_exit *e = &vcpu->exit;
  const luna_space *space = vcpu->target ? vcpu->target : vcpu->space;
  bool fetch = e->access == LUNA_EXECUTE;
  uint8_t byte;
  return luna_vm_access(vcpu->vm, space, e->address, fetch ? 1 : e->size, e->access,
                        fetch ? &byte : vcpu->pending.data);
}

/* Whether memory has done the access; else its exit is of the kind that it would have now. */
static bool in_memory(luna_vcpu *vcpu) {
  luna_exit *e = &vcpu->exit;
  if (e->kind != LUNA_EXIT_FAULT && e->kind != LUNA_EXIT_MMIO && e->kind != LUNA_EXIT_HOST_FAULT) {
    return false;
  }
  luna_touch touch = luna_exit_touch(vcpu);
  e->kind = touch == LUNA_TOUCH_GONE ? LUNA_EXIT_HOST_FAULT : LUNA_EXIT_FAULT;
  return touch == LUNA_TOUCH_DONE;
}

int luna_exit_offer(luna_vcpu *vcpu, bool answer) {
  const luna_exit *e = &vcpu->exit;
  while (vcpu->pending.open) {
    if (in_memory(vcpu) || luna_eventfds_take(vcpu->vm, e)) {
      luna_exit_next(vcpu);
      continue;
    }
    int kind = e->access == LUNA_EXECUTE ? -1 : luna_exit_trap_kind(e);
    if (kind < 0) {
      return (int)e->kind;
    }
    luna_exit_own(vcpu, kind);
    const luna_owner *owner = &vcpu->lookup->owners[kind];
    if (!owner->answer || owner->serial == vcpu->pending.asked) {
      return (int)e->kind;
    }
    if (!answer) {
      return 0;
    }
    kind = luna_answer_exit(vcpu, kind);
    if (kind != 0) {
      return kind;
    }
  }
  return 0;
}
