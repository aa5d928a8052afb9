/* SPDX-License-Identifier: MIT
 * What a debugged guest's exits mean. */
#ifndef LUNA_DEBUG_EXIT_H
#define LUNA_DEBUG_EXIT_H

#include "lunavisor.h"

/* KVM_EXIT_DEBUG: the kind, or 0 where the guest goes on. */
int luna_debug_exit(luna_vcpu *vcpu);
/* Whether the instruction that KVM could not emulate is one of our INT3: then it is a debug exit,
 * LUNA_EXIT_DEBUG; else 0. */
int luna_debug_internal(luna_vcpu *vcpu);
/* An exception has arrived at a stub of the system area, and the registers are as at the
 * instruction. LUNA_EXIT_EXCEPTION where it is the guest's own, LUNA_EXIT_DEBUG where it is ours, 0
 * where the guest goes on. */
int luna_debug_exception(luna_vcpu *vcpu, int vector);
/* The exit at a breakpoint, or behind a single step with number 0. */
int luna_debug_report(luna_vcpu *vcpu, uint32_t number, uint64_t gva, uint64_t dr6);

#endif
