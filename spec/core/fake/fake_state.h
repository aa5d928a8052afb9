/* SPDX-License-Identifier: MIT
 * The part of a fake vCPU's state that has no place in the run page but for events: kept, and given
 * back as it was set. */
#ifndef LUNA_FAKE_STATE_H
#define LUNA_FAKE_STATE_H

#include <linux/kvm.h>
#include <stdint.h>

enum {
  FAKE_MSRS = 6
};

typedef struct fake_state {
  struct kvm_vcpu_events events;
  struct kvm_xcrs xcrs;
  struct kvm_debugregs debugregs;
  uint8_t xsave[4096]; /* struct kvm_xsave */
  uint64_t msrs[FAKE_MSRS];
  uint64_t tsc_offset;
} fake_state;

void fake_state_reset(fake_state *state);
/* The vCPU ioctls on this state: 0 or more, -1 with errno set; ENOTTY for any other. */
int fake_state_ioctl(fake_state *state, unsigned long request, void *argument);
/* KVM_GET_MSR_INDEX_LIST. */
int fake_msr_list(struct kvm_msr_list *list);

#endif
