/* SPDX-License-Identifier: MIT
 * What an exit means: an exception of the guest's, a breakpoint, an interrupt window, a full dirty
 * ring, or what exit/ makes of KVM's run page. */
#include "run/decode.h"

#include "debug/debug_exit.h"
#include "exit/control.h"
#include "exit/exception.h"
#include "exit/exit.h"
#include "interrupt/interrupt.h"
#include "kvm/kvm_control.h"
#include "memory/spaces.h"
#include "vcpu/record.h"
#include "vcpu/state.h"
#include "vcpu/vcpu.h"

#include <string.h>

/* The guest has come to an exception stub. */
static int take_exception(luna_vcpu *vcpu, int vector) {
  vcpu->pending.incomplete = true;
  int status = luna_vcpu_settle(vcpu); /* the OUT of the stub */
  if (status != 0 && status != LUNA_EXIT_DEBUG) {
    return status;
  }
  uint32_t error_code;
  status = luna_exception_unwind(vcpu, vector, &error_code);
  if (status != LUNA_OK) {
    return status;
  }
  int kind = luna_debug_exception(vcpu, vector);
  if (kind != LUNA_EXIT_EXCEPTION) {
    return kind;
  }
  const struct kvm_sregs *sregs = luna_state_sregs(vcpu);
  luna_exit_set(vcpu, LUNA_EXIT_EXCEPTION);
  vcpu->exit.vector = (uint32_t)vector;
  vcpu->exit.error_code = error_code;
  vcpu->exit.address = sregs && vector == 14 ? sregs->cr2 : 0;
  return LUNA_EXIT_EXCEPTION;
}

static int decode_port(luna_vcpu *vcpu) {
  bool in = vcpu->run->io.direction == KVM_EXIT_IO_IN;
  int vector = in || !vcpu->system ? -1 : luna_exception_vector(vcpu);
  return vector >= 0 ? take_exception(vcpu, vector) : luna_exit_decode(vcpu);
}

/* An instruction that KVM cannot emulate: its bytes, from memory where KVM does not say them. */
static int take_instruction(luna_vcpu *vcpu) {
  const struct kvm_regs *regs = luna_state_regs(vcpu);
  luna_exit *e = &vcpu->exit;
  luna_code code;
  if (e->instruction_size == 0 && regs && luna_vcpu_code(vcpu, regs->rip, &code) == LUNA_OK) {
    e->instruction_size = code.size;
    memcpy(e->instruction, code.bytes, sizeof code.bytes);
  }
  /* KVM may have queued a #UD for the guest; writing the registers makes it forget that. */
  vcpu->state.regs_whole = true;
  e->kind = LUNA_EXIT_INSTRUCTION;
  return LUNA_EXIT_INSTRUCTION;
}

static int decode_internal(luna_vcpu *vcpu) {
  luna_exit_internal(vcpu);
  int kind = luna_debug_internal(vcpu);
  kind = kind ? kind : luna_exit_fetch(vcpu);
  if (kind == 0) {
    kind = vcpu->exit.suberror == KVM_INTERNAL_ERROR_EMULATION ? take_instruction(vcpu)
                                                               : LUNA_EXIT_INTERNAL;
  }
  return kind;
}

int luna_loop_decode(luna_vcpu *vcpu) {
  vcpu->pending = (luna_pending){0};
  switch (vcpu->run->exit_reason) {
    case KVM_EXIT_IO:
      return decode_port(vcpu);
    case LUNA_KVM_EXIT_CONTROL:
      return luna_control_decode(vcpu);
    case KVM_EXIT_INTERNAL_ERROR:
      return decode_internal(vcpu);
    case KVM_EXIT_DEBUG:
      return luna_debug_exit(vcpu);
    case KVM_EXIT_DIRTY_RING_FULL:
      return luna_vm_drain(vcpu->vm, vcpu->space);
    case KVM_EXIT_IRQ_WINDOW_OPEN:
      return luna_interrupt_window(vcpu);
    default:
      return luna_exit_decode(vcpu);
  }
}
