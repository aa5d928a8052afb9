/* SPDX-License-Identifier: MIT
 * What KVM's interface has no words for: calls and an exit of the software CPU's own beside KVM's,
 * with numbers that KVM does not use. A kernel says by the capabilities whether it has them. */
#ifndef LUNA_KVM_CONTROL_H
#define LUNA_KVM_CONTROL_H

#include "kvm/kvm.h"
#include "kvm/shadow.h"

#include <linux/ioctl.h>

enum {
  LUNA_KVM_CAP_CONTROLS = 0x4c56,
  LUNA_KVM_CAP_EXCEPTIONS = 0x4c57,  /* how many of the last ones are kept */
  LUNA_KVM_CAP_SYNC_RIP = 0x4c58,    /* LUNA_KVM_SYNC_RIP */
  LUNA_KVM_CAP_SHADOW_VMCS = 0x4c59, /* LUNA_KVM_SET_SHADOW */
  LUNA_KVM_EXIT_CONTROL = 0x4c56,    /* the run page's union is a luna_control_exit */
  /* Of a vCPU with controls, KVM_EXIT_MMIO comes before its instruction, writes too, and has a
   * luna_control_exit at this offset of the union. An entry with length 0 there drops it: the
   * instruction has not begun. */
  LUNA_KVM_ACCESS_OFFSET = 64,
  /* Of kvm_dirty_regs, beside KVM_SYNC_X86_REGS: of those RIP alone is another than the vCPU's. */
  LUNA_KVM_SYNC_RIP = 1 << 16
};

/* VM-entry interruption information, and what goes with it. All 0 takes back what has not been
 * delivered: 1, or 0 for nothing. */
typedef struct luna_kvm_event {
  uint32_t info;
  uint32_t error;
  uint32_t length;
} luna_kvm_event;

/* The last exceptions, the oldest first. */
typedef struct luna_kvm_exceptions {
  uint32_t count;
  uint32_t reserved;
  luna_last_exception list[LUNA_LAST_EXCEPTIONS];
} luna_kvm_exceptions;

/* luna_controls are copied; NULL for none. */
#define LUNA_KVM_SET_CONTROLS _IOW(0x4c, 0x56, luna_controls)
#define LUNA_KVM_DELIVER _IOW(0x4c, 0x57, luna_kvm_event)
#define LUNA_KVM_GET_EXCEPTIONS _IOR(0x4c, 0x58, luna_kvm_exceptions)
/* Not copied: it has to stay until there is another, or NULL for none. */
#define LUNA_KVM_SET_SHADOW _IOW(0x4c, 0x59, luna_shadow *)

int luna_kvm_set_controls(luna_fd vcpu_fd, const luna_controls *controls);
int luna_kvm_deliver(luna_fd vcpu_fd, const luna_kvm_event *event);
int luna_kvm_get_exceptions(luna_fd vcpu_fd, luna_kvm_exceptions *exceptions);
int luna_kvm_set_shadow(luna_fd vcpu_fd, luna_shadow *shadow);

#endif
