/* SPDX-License-Identifier: MIT
 * The processor's rules for its registers. */
#ifndef LUNA_CHECK_H
#define LUNA_CHECK_H

#include "lunavisor.h"

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>

/* What breaks a rule. */
enum {
  LUNA_CHECK_REGISTERS = 1,
  LUNA_CHECK_PDPTES = 2 /* which they point to */
};

/* The first rule of the processor that the registers break, as a sentence in `text`.
 * `strict`: a feature counts as there if the vCPU's CPUID has it, else also if the host's has.
 * A LUNA_CHECK_* if there is one, 0 if not, or a negative status. */
int luna_check_find(luna_vcpu *vcpu, bool strict, char *text, size_t room);
/* The same, strictly, for registers that the vCPU does not have yet. */
bool luna_check_registers(luna_vcpu *vcpu, const struct kvm_regs *regs,
                          const struct kvm_sregs *sregs, char *text, size_t room);
/* The same for one register that is about to be written. */
bool luna_check_efer(luna_vcpu *vcpu, uint64_t efer, char *text, size_t room);
bool luna_check_canonical(luna_vcpu *vcpu, uint64_t address);

#endif
