/* SPDX-License-Identifier: MIT
 * Typed calls to KVM, as in kvm.h, for what it does without leaving the guest, and what makes it
 * leave. */
#ifndef LUNA_KVM_EVENT_H
#define LUNA_KVM_EVENT_H

#include "kvm/kvm.h"

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>

int luna_kvm_ioeventfd(luna_fd vm_fd, const struct kvm_ioeventfd *event);
int luna_kvm_coalesce(luna_fd vm_fd, bool pio, uint64_t first, uint32_t size, bool on);
int luna_kvm_msr_filter(luna_fd vm_fd, const struct kvm_msr_filter *filter);
int luna_kvm_guest_debug(luna_fd vcpu_fd, const struct kvm_guest_debug *debug);
/* A descriptor of the vCPU's statistics. */
int luna_kvm_stats_fd(luna_fd vcpu_fd);

/* What KVM's clock for guests shows, in nanoseconds. */
int luna_kvm_get_clock(luna_fd vm_fd, uint64_t *nanoseconds);
int luna_kvm_set_clock(luna_fd vm_fd, uint64_t nanoseconds);

#endif
