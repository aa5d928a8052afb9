/* SPDX-License-Identifier: MIT
 * What a vCPU has beside general and system registers: groups that KVM moves by ioctl, whose copies
 * the seat holds (seat.h) until the guest is entered. */
#ifndef LUNA_EXTENDED_H
#define LUNA_EXTENDED_H

#include "vcpu/vcpu.h"

/* extended.c: debug registers, XCR0, and the control registers of x87 and SSE. */
int luna_extended_get(luna_vcpu *vcpu, int reg, uint64_t *value);
int luna_extended_set(luna_vcpu *vcpu, int reg, uint64_t value);
/* Before a write: finishes the instruction of an answered exit, which might change the same. */
int luna_extended_settle(luna_vcpu *vcpu);
/* The copy of the extended state, or NULL with an error. */
uint8_t *luna_extended_area(luna_vcpu *vcpu);
/* Hands the copy to KVM, `components` of it (XSTATE_BV bits) being in use from now on. Forgets the
 * copy if that fails. */
int luna_extended_write(luna_vcpu *vcpu, uint64_t components);

/* msr.c: after a write to the time-stamp counter. */
void luna_msr_part_counters(luna_vcpu *vcpu);

/* cpuid.c: the table. Finds the answer to a leaf; NULL where there is none. */
const struct kvm_cpuid_entry2 *luna_cpuid_find(const struct kvm_cpuid2 *table, uint32_t leaf,
                                               uint32_t subleaf);
/* Gives a new vCPU its table and its seat there. */
int luna_cpuid_begin(luna_vcpu *vcpu);
/* Gives a further seat the vCPU's table. */
int luna_cpuid_follow(luna_vcpu *vcpu, luna_seat *seat);
void luna_cpuid_end(luna_vcpu *vcpu);
/* For LUNA_ATTEND_CPUID: why the vCPU cannot run. */
int luna_cpuid_refuse(const luna_vcpu *vcpu);

/* check.c: the first rule of the processor that the registers break, as a sentence in `text`.
 * `strict`: a feature counts as there if the vCPU's CPUID has it, else also if the host's has.
 * 1 if there is one, 0 if not, or a negative status. */
int luna_check_find(luna_vcpu *vcpu, bool strict, char *text, size_t room);
/* The same, strictly, for registers that the vCPU does not have yet. */
bool luna_check_registers(luna_vcpu *vcpu, const struct kvm_regs *regs,
                          const struct kvm_sregs *sregs, char *text, size_t room);
/* The same for one register that is about to be written. */
bool luna_check_efer(luna_vcpu *vcpu, uint64_t efer, char *text, size_t room);
bool luna_check_canonical(luna_vcpu *vcpu, uint64_t address);

#endif
