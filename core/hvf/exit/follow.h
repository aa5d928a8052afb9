/* SPDX-License-Identifier: MIT
 * Controls that the accelerator follows itself. */
#ifndef HVF_FOLLOW_H
#define HVF_FOLLOW_H

#include "hvf/base/cpu.h"

/* Whether the VM's accelerator follows controls, or, without a VM, that which one would get. */
bool hvf_follow_can(void);
/* Asks a luna_accelerator. */
bool hvf_follow_find(uint32_t accel);
/* A new vCPU follows what its fields say. */
hv_return_t hvf_follow_begin(hvf_vcpu *v);
/* Before an entry, where it follows some and they are stale. */
hv_return_t hvf_follow_hand_over(hvf_vcpu *v);
/* Delivers VMCS_CTRL_VMENTRY_IRQ_INFO's event. */
int hvf_follow_deliver(hvf_vcpu *v);
/* Runs for a preemption timer of 0 and an event that the guest accepts: as luna_vcpu_run, to a
 * LUNA_EXIT_TIMEOUT before the first instruction of its handler. */
int hvf_follow_deliver_alone(hvf_vcpu *v);
/* An exit field of the VMCS; false for one that the exit does not have. */
bool hvf_follow_field(const hvf_vcpu *v, uint32_t number, uint64_t *value);

/* What the accelerator tells of an access to memory, if it does. */
void hvf_follow_access(hvf_vcpu *v);

/* ---- follow_port.c ---- */

/* The port access of the last exit, of a string its first element, if it is one that a control
 * asked for. */
bool hvf_follow_port(hvf_vcpu *v, luna_exit *access);
/* Does that access, with the value that a read gives, and goes on behind it. */
hv_return_t hvf_follow_complete(hvf_vcpu *v, uint64_t value);

#endif
