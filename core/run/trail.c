/* SPDX-License-Identifier: MIT
 * Completing the last exits, and giving them out; registers that are kept to be compared. */
#include "run/trail.h"

#include "base/error.h"
#include "vcpu/guard.h"
#include "vcpu/register.h"
#include "vcpu/state.h"

void luna_trail_complete(luna_vcpu *vcpu) {
  luna_last_exit *last = vcpu->trail->last;
  const luna_pending *pending = &vcpu->pending;
  if (last->access == LUNA_READ && pending->answered) {
    uint64_t mask = last->size >= 8 ? UINT64_MAX : (UINT64_C(1) << 8 * last->size) - 1;
    last->value = pending->answer & mask;
    last->known |= LUNA_KNOWN_VALUE;
  }
  /* Where the registers are not known it would be a system call. */
  if (vcpu->state.regs_known && !(last->known & LUNA_KNOWN_RIP)) {
    luna_trail_rip(vcpu, last);
  }
}

int luna_vcpu_last_exits(luna_vcpu *vcpu, luna_last_exit *list, uint32_t most, uint32_t *count) {
  *count = 0;
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  luna_trail *trail = vcpu->trail;
  if (trail->last) {
    if (!luna_state_regs(vcpu)) {
      return LUNA_ERROR_SYSTEM;
    }
    luna_trail_complete(vcpu);
  }
  uint64_t kept = trail->count < LUNA_LAST_EXITS ? trail->count : LUNA_LAST_EXITS;
  uint64_t first = trail->count - (kept < most ? kept : most);
  for (uint64_t i = first; i < trail->count; i++) {
    list[(*count)++] = trail->exits[i % LUNA_LAST_EXITS];
  }
  return LUNA_OK;
}

int luna_vcpu_mark(luna_vcpu *vcpu) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  luna_trail *trail = vcpu->trail;
  int status = luna_state_general(vcpu, &trail->marked);
  trail->is_marked = status == LUNA_OK;
  return status;
}

int luna_vcpu_marked(luna_vcpu *vcpu, int reg, uint64_t *value) {
  if (reg < LUNA_RAX || reg > LUNA_RFLAGS) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "register %d is no general one", reg);
  }
  if (!vcpu->trail->is_marked) {
    return luna_fail(LUNA_ERROR_NOT_FOUND, "no registers of vCPU %u were kept", vcpu->id);
  }
  *value = *luna_register_place(&vcpu->trail->marked, reg);
  return LUNA_OK;
}
