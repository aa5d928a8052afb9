/* SPDX-License-Identifier: MIT
 * What the program has written to the VMCS, looked at as a whole before the guest is entered:
 * fields depend on each other, and come in any order. What the guest would see otherwise than on a
 * processor is refused. */
#include "hvf/vmcs/setup.h"

#include "hvf/base/error.h"
#include "hvf/base/process.h"
#include "hvf/exit/fixed.h"
#include "hvf/vmcs/kept.h"

#include <inttypes.h>

enum {
  PDPTES = 4
};

static const uint64_t paging = UINT64_C(1) << 31;
static const uint64_t extended = 1 << 5; /* CR4.PAE */
static const uint64_t active = 1 << 10;  /* EFER.LMA */

/* The masked bits of CR0 and CR4 that KVM has a say in are those that the guest reads. */
static hv_return_t check_view(const hvf_vcpu *v, int index) {
  const uint64_t masked = v->masks[index] & ~hvf_fixed_apart(index);
  uint64_t now;
  if (!masked) {
    return HV_SUCCESS;
  }
  int status = luna_vcpu_get(v->vcpu, index == 0 ? LUNA_CR0 : LUNA_CR4, &now);
  const uint64_t differ = status == LUNA_OK ? (now ^ v->shadows[index]) & masked : 0;
  return differ ? hvf_fail(HV_UNSUPPORTED,
                           "KVM's guest reads the bits 0x%" PRIx64
                           " of CR%d as they are: the mask 0x%" PRIx64
                           " has them, but the shadow 0x%" PRIx64
                           " is not the register; the software CPU (LUNA_ACCEL=soft) follows both",
                           differ, index == 0 ? 0 : 4, v->masks[index], v->shadows[index])
                : hvf_status(status);
}

/* Whether the guest translates by PDPTEs; then those in memory at CR3, as KVM loads them. */
static bool read_pdptes(const hvf_vcpu *v, uint64_t *values) {
  uint64_t cr0, cr3, cr4, efer;
  if (luna_vcpu_get(v->vcpu, LUNA_CR0, &cr0) != LUNA_OK || !(cr0 & paging) ||
      luna_vcpu_get(v->vcpu, LUNA_CR4, &cr4) != LUNA_OK || !(cr4 & extended) ||
      luna_vcpu_get(v->vcpu, LUNA_EFER, &efer) != LUNA_OK || efer & active ||
      luna_vcpu_get(v->vcpu, LUNA_CR3, &cr3) != LUNA_OK) {
    return false;
  }
  return luna_vm_copy_space(hvf_the_vm.vm, v->space, cr3 & 0xffffffe0, values,
                            PDPTES * sizeof *values, LUNA_READ) == LUNA_OK;
}

static hv_return_t check_pdptes(const hvf_vcpu *v) {
  const uint64_t *kept = &v->kept_fields[HVF_KEPT_PDPTE_0];
  uint64_t found[PDPTES];
  if (!v->pdptes_written || !read_pdptes(v, found)) {
    return HV_SUCCESS;
  }
  for (int i = 0; i < PDPTES; i++) {
    if (kept[i] != found[i]) {
      return hvf_fail(HV_UNSUPPORTED,
                      "KVM loads PDPTEs from memory at CR3: PDPTE%d is 0x%" PRIx64
                      " there, not 0x%" PRIx64,
                      i, found[i], kept[i]);
    }
  }
  return HV_SUCCESS;
}

hv_return_t hvf_setup_check(hvf_vcpu *v) {
  hv_return_t result = v->followed ? HV_SUCCESS : hvf_kept_check_faults(v);
  for (int index = 0; index < 2 && !v->followed && result == HV_SUCCESS; index++) {
    result = check_view(v, index);
  }
  result = result == HV_SUCCESS ? check_pdptes(v) : result;
  if (result == HV_SUCCESS) {
    v->unchecked = v->pdptes_written = false;
  }
  return result;
}

uint64_t hvf_setup_pdpte(const hvf_vcpu *v, int index) {
  uint64_t found[PDPTES];
  return !v->pdptes_written && read_pdptes(v, found) ? found[index - HVF_KEPT_PDPTE_0]
                                                     : v->kept_fields[index];
}
