/* SPDX-License-Identifier: MIT
 * The numbers of a VM's vCPUs. */
#ifndef LUNA_TOP_VM_H
#define LUNA_TOP_VM_H

#include "lunavisor.h"

/* The lowest free vCPU number, taken; and giving one back. */
int luna_vm_take_vcpu(luna_vm *vm, uint32_t *id);
void luna_vm_give_vcpu(luna_vm *vm, uint32_t id);

#endif
