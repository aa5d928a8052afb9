/* SPDX-License-Identifier: MIT
 * The guest's own RFLAGS.TF under single steps of the library's. */
#ifndef LUNA_TRAP_FLAG_H
#define LUNA_TRAP_FLAG_H

#include "lunavisor.h"

/* Before an entry with a single step: notes what the guest's TF is, and becomes by the instruction
 * at luna_debug.start. */
int luna_trap_flag_begin(luna_vcpu *vcpu);
/* After one, whatever ended it: puts the guest's TF back, which KVM does not show and takes away
 * with its own. */
void luna_trap_flag_left(luna_vcpu *vcpu);
/* The instruction is done: TF is what it made of it, and where the guest traps, it gets its #DB. */
int luna_trap_flag_done(luna_vcpu *vcpu);
/* The library's steps have ended: writes the guest's TF, if KVM has been given it before that. */
int luna_trap_flag_write(luna_vcpu *vcpu);
/* An exception that the guest's own debug registers, TF or INT3 caused, and its DR6. */
int luna_trap_flag_give(luna_vcpu *vcpu, uint32_t vector, uint64_t dr6);

#endif
