/* SPDX-License-Identifier: MIT
 * What HV_MEMORY_MAXPROT withholds. The lock is held in all of these. */
#ifndef HVF_LIMIT_H
#define HVF_LIMIT_H

#include <Hypervisor/hv_types.h>

/* Makes sure that the next call of hvf_limit_cut and hvf_limit_add finds memory. */
hv_return_t hvf_limit_reserve(void);
void hvf_limit_cut(hv_vm_space_t space, hv_gpaddr_t gpa, size_t size);
void hvf_limit_add(hv_vm_space_t space, hv_gpaddr_t gpa, size_t size, uint32_t rights);
/* The rights, of luna_access, that all of the range may have. */
uint32_t hvf_limit_rights(hv_vm_space_t space, hv_gpaddr_t gpa, size_t size);
void hvf_limit_drop_space(hv_vm_space_t space);
void hvf_limit_drop_all(void);

#endif
