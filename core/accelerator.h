/* SPDX-License-Identifier: MIT
 * Which kernel a VM runs on: KVM, or the software CPU. */
#ifndef LUNA_ACCELERATOR_H
#define LUNA_ACCELERATOR_H

#include "kvm/host.h"

enum {
  LUNA_REASON_SIZE = 640 /* bytes of why it is that one */
};

/* Which accelerator a VM with this luna_vm_options.accel is on, and why it is that one; or a
 * negative status. */
int luna_accelerator_pick(uint32_t accel, char reason[LUNA_REASON_SIZE]);
/* Its kernel; NULL with an error recorded. Any thread, both. */
const luna_host *luna_accelerator_host(uint32_t accel, char reason[LUNA_REASON_SIZE]);

#endif
