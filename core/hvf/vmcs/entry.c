/* SPDX-License-Identifier: MIT
 * The event that the program wants the guest to take at its next entry (SDM Vol. 3, 25.8.3). */
#include "hvf/vmcs/entry.h"

#include <Hypervisor/hv_arch_vmx.h>

#include "hvf/base/error.h"
#include "hvf/base/process.h"
#include "hvf/exit/follow.h"

#include <inttypes.h>

enum {
  TYPE_BITS = 7 << 8,
  VECTOR_BITS = 0xff,
  OTHER_EVENT = 7 << 8, /* with vector 0: the monitor trap flag's exit */
  BREAKPOINT = 3        /* which KVM delivers from behind INT3 */
};

bool hvf_entry_is_step(uint32_t info) {
  return info == (IRQ_INFO_VALID | OTHER_EVENT);
}

hv_return_t hvf_entry_check(uint64_t info) {
  const uint64_t known = IRQ_INFO_VALID | IRQ_INFO_ERROR_VALID | TYPE_BITS | VECTOR_BITS;
  if (info & ~known) {
    return hvf_fail(HV_BAD_ARGUMENT, "0x%" PRIx64 " is no interruption information", info);
  }
  if (!(info & IRQ_INFO_VALID)) {
    return HV_SUCCESS;
  }
  const bool exception =
      (info & TYPE_BITS) == IRQ_INFO_PRIV_SOFT_EXC || (info & TYPE_BITS) == IRQ_INFO_SOFT_EXC;
  if (exception && (info & VECTOR_BITS) > 31) {
    return hvf_fail(HV_BAD_ARGUMENT, "vector %u is no exception", (unsigned)(info & VECTOR_BITS));
  }
  switch (info & TYPE_BITS) {
    case IRQ_INFO_NMI:
      return (info & VECTOR_BITS) == 2 ? HV_SUCCESS
                                       : hvf_fail(HV_BAD_ARGUMENT, "an NMI has vector 2");
    case IRQ_INFO_EXT_IRQ:
      return hvf_the_vm.options & HV_VM_ACCEL_APIC
                 ? hvf_fail(HV_UNSUPPORTED, "the local APIC in KVM injects interrupts: send one")
                 : HV_SUCCESS;
    case IRQ_INFO_HARD_EXC:
      return (info & VECTOR_BITS) < 32 && (info & VECTOR_BITS) != 2
                 ? HV_SUCCESS
                 : hvf_fail(HV_BAD_ARGUMENT, "vector %u is no exception",
                            (unsigned)(info & VECTOR_BITS));
    case OTHER_EVENT:
      return info == (IRQ_INFO_VALID | OTHER_EVENT)
                 ? HV_SUCCESS
                 : hvf_fail(HV_BAD_ARGUMENT, "an event of type 7 has vector 0 and no error code");
    case IRQ_INFO_SOFT_IRQ:
    case IRQ_INFO_PRIV_SOFT_EXC:
    case IRQ_INFO_SOFT_EXC:
      if (hvf_follow_can() || info == (IRQ_INFO_VALID | IRQ_INFO_SOFT_EXC | BREAKPOINT)) {
        return HV_SUCCESS;
      }
      break;
    default:
      return hvf_fail(HV_BAD_ARGUMENT, "type 1 of an event is reserved");
  }
  return hvf_fail(HV_UNSUPPORTED,
                  "KVM cannot inject an event of type %u; the software CPU (LUNA_ACCEL=soft) can "
                  "do those of instructions, 4 to 6",
                  (unsigned)(info & TYPE_BITS) >> 8);
}

static int inject_exception(hvf_vcpu *v) {
  uint64_t cr2;
  int status = luna_vcpu_get(v->vcpu, LUNA_CR2, &cr2);
  return status == LUNA_OK
             ? luna_vcpu_inject(v->vcpu, v->entry_event & VECTOR_BITS, v->entry_error, cr2)
             : status;
}

/* An interrupt that the guest does not accept now waits until it does, in the field if there is an
 * exit before; a processor would refuse to enter. */
hv_return_t hvf_entry_inject(hvf_vcpu *v) {
  int status;
  switch (v->entry_event & TYPE_BITS) {
    case IRQ_INFO_NMI:
      status = luna_vcpu_nmi(v->vcpu);
      break;
    case IRQ_INFO_EXT_IRQ:
      status = luna_vcpu_interrupt_vector(v->vcpu, v->entry_event & VECTOR_BITS);
      break;
    case OTHER_EVENT: /* the run ends with it */
      status = LUNA_OK;
      break;
    default:
      status = v->followed ? hvf_follow_deliver(v) : inject_exception(v);
  }
  if (status >= 0) {
    v->entry_event = 0;
  }
  return hvf_status(status);
}

void hvf_entry_take_back(hvf_vcpu *v, uint32_t event) {
  if (luna_vcpu_withdraw(v->vcpu, event) > 0) {
    v->entry_event = event;
  }
}
