/* SPDX-License-Identifier: MIT
 * Making KVM forget what it remembers of the guest's page tables. It has no call for that, but it
 * does so when a memory slot goes. */
#include <Hypervisor/hv.h>

#include "hvf/base/cpu.h"
#include "hvf/base/error.h"
#include "hvf/base/owner.h"
#include "hvf/base/process.h"

static uint8_t page[LUNA_PAGE_SIZE] __attribute__((aligned(LUNA_PAGE_SIZE)));

/* The highest page of the space that is free. */
static hv_return_t free_page(hv_vm_space_t asid, uint64_t *gpa) {
  uint64_t bits;
  luna_region region;
  int status =
      luna_accelerator_capability(luna_vm_accelerator(hvf_the_vm.vm), "address_bits", &bits);
  if (status != LUNA_OK) {
    return hvf_status(status);
  }
  *gpa = UINT64_C(1) << bits;
  do {
    *gpa -= LUNA_PAGE_SIZE;
    status = luna_space_next(hvf_the_vm.vm, asid, *gpa, &region);
    if (status == LUNA_ERROR_NOT_FOUND || (status == LUNA_OK && region.gpa > *gpa)) {
      return HV_SUCCESS;
    }
    if (status != LUNA_OK) {
      return hvf_status(status);
    }
    *gpa = region.gpa;
  } while (*gpa > 0);
  return hvf_fail(HV_NO_RESOURCES, "space %u has no free page", asid);
}

static hv_return_t flush(hv_vm_space_t asid) {
  uint64_t gpa = 0;
  hv_return_t result = free_page(asid, &gpa);
  if (result != HV_SUCCESS) {
    return result;
  }
  result = hv_vm_map_space(asid, page, gpa, sizeof page, HV_MEMORY_READ | HV_MEMORY_EXEC);
  return result == HV_SUCCESS ? hv_vm_unmap_space(asid, gpa, sizeof page) : result;
}

hv_return_t hv_vcpu_invalidate_tlb(hv_vcpuid_t vcpu) {
  hvf_vcpu *v;
  hv_return_t result = hvf_owned(vcpu, &v);
  return result == HV_SUCCESS ? flush(v->space) : result;
}
