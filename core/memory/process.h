/* SPDX-License-Identifier: MIT
 * VMs in a process that was forked from theirs: every call on one ends at once, with an error. */
#ifndef LUNA_PROCESS_H
#define LUNA_PROCESS_H

#include "memory/vm.h"

/* For a VM that is whole now, and for one that goes. */
void luna_process_watch(luna_vm *vm);
void luna_process_forget(luna_vm *vm);
/* _STATE, with the reason. */
int luna_process_refuse(void);

/* LUNA_OK, or that, in a child of the process that made the VM. */
static inline int luna_process_check(const luna_vm *vm) {
  return __builtin_expect(vm->foreign, false) ? luna_process_refuse() : LUNA_OK;
}

#endif
