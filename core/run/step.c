/* SPDX-License-Identifier: MIT
 * Running one instruction. */
#include "debug/breakpoint.h"
#include "debug/debug.h"
#include "run/loop.h"
#include "vcpu/vcpu.h"

static int step(luna_vcpu *vcpu, uint64_t deadline) {
  int kind = luna_debug_open(vcpu);
  if (kind != LUNA_OK) {
    return kind;
  }
  vcpu->debug->step = true;
  vcpu->debug->over = false;
  luna_debug_attend(vcpu);
  kind = vcpu->pending.incomplete ? luna_debug_finish(vcpu) : luna_vcpu_enter(vcpu, deadline);
  vcpu->debug->step = false;
  return kind;
}

int luna_vcpu_step(luna_vcpu *vcpu, uint64_t deadline) {
  int kind = luna_vcpu_claim(vcpu, "step");
  if (kind == LUNA_OK) {
    kind = luna_vcpu_advance(vcpu, deadline, step);
    luna_vcpu_disclaim(vcpu);
  }
  return kind;
}
