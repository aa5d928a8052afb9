/* SPDX-License-Identifier: MIT
 * The event that the program wants the guest to take at its next entry (SDM Vol. 3, 25.8.3). */
#include "hvf.h"

#include <inttypes.h>

enum {
  TYPE_BITS = 7 << 8,
  VECTOR_BITS = 0xff
};

hv_return_t hvf_entry_check(uint64_t info) {
  const uint64_t known = IRQ_INFO_VALID | IRQ_INFO_ERROR_VALID | TYPE_BITS | VECTOR_BITS;
  if (info & ~known) {
    return hvf_fail(HV_BAD_ARGUMENT, "0x%" PRIx64 " is no interruption information", info);
  }
  if (!(info & IRQ_INFO_VALID)) {
    return HV_SUCCESS;
  }
  switch (info & TYPE_BITS) {
    case IRQ_INFO_HARD_EXC:
      return (info & VECTOR_BITS) < 32 && (info & VECTOR_BITS) != 2
                 ? HV_SUCCESS
                 : hvf_fail(HV_BAD_ARGUMENT, "vector %u is no exception",
                            (unsigned)(info & VECTOR_BITS));
    default:
      return hvf_fail(HV_UNSUPPORTED, "KVM cannot inject an event of type %u",
                      (unsigned)(info & TYPE_BITS) >> 8);
  }
}

hv_return_t hvf_entry_inject(hvf_vcpu *v) {
  uint64_t cr2;
  hv_return_t result = hvf_status(luna_vcpu_get(v->vcpu, LUNA_CR2, &cr2));
  if (result == HV_SUCCESS) {
    result =
        hvf_status(luna_vcpu_inject(v->vcpu, v->entry_event & VECTOR_BITS, v->entry_error, cr2));
  }
  if (result == HV_SUCCESS) {
    v->entry_event = 0;
  }
  return result;
}
