/* SPDX-License-Identifier: MIT
 * The registers in which a vCPU begins. */
#ifndef LUNA_MODE_H
#define LUNA_MODE_H

#include "lunavisor.h"

#include <linux/kvm.h>

int luna_mode_check(uint32_t mode);
/* Sets the registers of the options' mode; `area` is what the system area has, in the modes that
 * need one. */
int luna_mode_set(luna_vcpu *vcpu, const luna_vcpu_options *options, const uint8_t *area);
/* The system registers with which a processor starts at vector << 12. */
void luna_mode_sipi(struct kvm_sregs *sregs, uint8_t vector);
/* A code or data descriptor in KVM's form. */
struct kvm_segment luna_mode_segment(uint64_t descriptor, uint16_t selector);

#endif
