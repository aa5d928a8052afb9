/* SPDX-License-Identifier: MIT
 * Memory for hv_vm_map. Any other page-aligned memory of the process will do as well. */
#ifndef HYPERVISOR_HV_VM_ALLOCATE_H
#define HYPERVISOR_HV_VM_ALLOCATE_H

#include <Hypervisor/hv_types.h>

HV_BEGIN

/* Allocates `size` bytes, a multiple of 4096 and not 0, zeroed and readable and writable; aligned
 * to 2 MiB where it is that large, so that KVM can use huge pages. Needs no VM. HV_BAD_ARGUMENT,
 * HV_NO_RESOURCES. */
HV_API hv_return_t hv_vm_allocate(void **uvap, size_t size, hv_allocate_flags_t flags);
/* Gives back what hv_vm_allocate gave, whole, with the same size: HV_BAD_ARGUMENT otherwise. To be
 * unmapped from the guest first. Needs no VM. */
HV_API hv_return_t hv_vm_deallocate(void *uva, size_t size);

HV_END

#endif
