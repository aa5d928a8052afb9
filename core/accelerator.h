/* SPDX-License-Identifier: MIT
 * Which kernel the process's VMs run on: KVM, or the software CPU. */
#ifndef LUNA_ACCELERATOR_H
#define LUNA_ACCELERATOR_H

/* Decides it, once, before anything asks the kernel: LUNA_ACCEL is kvm, soft, or auto, which is KVM
 * where its device can be opened. LUNA_KVM_DEVICE means KVM too. 0, or a negative status: the
 * variable has another value, or this build has no software CPU. Any thread. */
int luna_accelerator_choose(void);

#endif
