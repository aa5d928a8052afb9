/* SPDX-License-Identifier: MIT
 * The LAPIC timer of a vCPU that does not run. What it does when it runs out, KVM does only when
 * the vCPU is entered next; until then nothing shows whether a count of 0 is an interrupt to come
 * or one that has been. */
#include "vcpu/timer.h"

#include "seat/group.h"
#include "seat/lapic.h"
#include "vcpu/extended.h"
#include "vcpu/vcpu.h"

static int fetch(luna_vcpu *vcpu) {
  return luna_seat_fetch(vcpu->seat, 1 << LUNA_GROUP_LAPIC);
}

/* With the guest behind the instruction whose exit was answered. False where it is not. */
static bool is_free(const luna_vcpu *vcpu) {
  return !vcpu->pending.open && !vcpu->pending.incomplete && !vcpu->leave.kept;
}

int luna_timer_fetch(luna_vcpu *vcpu) {
  int status = fetch(vcpu);
  if (status != LUNA_OK || !luna_lapic_may_be_due(vcpu->seat, &vcpu->seat->held.lapic)) {
    return status;
  }
  status = luna_extended_settle(vcpu);
  if (status == LUNA_OK && is_free(vcpu)) {
    status = vcpu->finisher->visit(vcpu);
    return status == LUNA_OK ? fetch(vcpu) : status;
  }
  luna_lapic_set(&vcpu->seat->held.lapic, LUNA_LAPIC_CURRENT_COUNT, 1);
  return status;
}
