/* SPDX-License-Identifier: MIT
 * Interrupt controllers inside KVM: each space's KVM VM has those of the luna_vm. */
#ifndef LUNA_IRQCHIP_H
#define LUNA_IRQCHIP_H

#include "vm.h"

int luna_irqchip_check(const luna_vm_options *options);
/* Makes the controllers of a new space, before it has vCPUs. */
int luna_irqchip_begin(const luna_vm *vm, const luna_space *space);
/* Whether the VM can have a further space. The VM's lock is held. */
int luna_irqchip_check_space(const luna_vm *vm);
/* Fails unless the VM has LAPICs in KVM; `what` is what was to be done. */
int luna_irqchip_needed(const luna_vm *vm, const char *what);

#endif
