/* SPDX-License-Identifier: MIT
 * Accesses that KVM has decoded, for programs that need not do that themselves. */
#include <Hypervisor/hv_linux.h>

#include "hvf/base/error.h"
#include "hvf/base/owner.h"
#include "hvf/exit/follow.h"
#include "hvf/exit/view.h"

hv_return_t hv_ext_vcpu_access(hv_vcpuid_t vcpu, hv_ext_access *access) {
  hvf_vcpu *v;
  hv_return_t result = hvf_owned(vcpu, &v);
  if (result != HV_SUCCESS) {
    return result;
  }
  if (!access) {
    return hvf_fail(HV_BAD_ARGUMENT, "nowhere to put the access");
  }
  luna_exit port;
  const bool controlled = hvf_follow_port(v, &port);
  if (!controlled && v->exit.kind != LUNA_EXIT_PIO && !hvf_is_fault(v)) {
    return hvf_fail(HV_ERROR, "the last exit of vCPU %u was not for an access", vcpu);
  }
  const luna_exit *e = controlled ? &port : v->exit.e;
  *access = (hv_ext_access){.address = e->address,
                            .value = e->value,
                            .size = e->size,
                            .access = e->access,
                            .port = controlled || v->exit.kind == LUNA_EXIT_PIO,
                            .left = e->count ? e->count : 1};
  return HV_SUCCESS;
}

hv_return_t hv_ext_vcpu_complete(hv_vcpuid_t vcpu, uint64_t value) {
  hvf_vcpu *v;
  hv_return_t result = hvf_owned(vcpu, &v);
  if (result != HV_SUCCESS) {
    return result;
  }
  hvf_exit *x = &v->exit;
  luna_exit port;
  const bool controlled = hvf_follow_port(v, &port);
  if ((!controlled && x->stage != HVF_STAGE_OPEN) || x->rip_written || x->rax_written) {
    return hvf_fail(HV_ERROR,
                    "vCPU %u has no access left to complete: the program has taken it over, or "
                    "there was none",
                    vcpu);
  }
  if (controlled) {
    return hvf_follow_complete(v, value);
  }
  result = hvf_status(luna_vcpu_answer(v->vcpu, value));
  if (result == HV_SUCCESS) {
    x->stage = HVF_STAGE_COMPLETED;
  }
  return result;
}
