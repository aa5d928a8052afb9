/* SPDX-License-Identifier: MIT
 * Exits for instructions whose operands the exit tells. */
#ifndef SOFT_VMX_INSTRUCTION_H
#define SOFT_VMX_INSTRUCTION_H

#include "soft/insn.h"
#include "soft/vmx/vmx.h"

/* The instruction's identity, as the exits number them. */
enum {
  SOFT_IS_SGDT,
  SOFT_IS_SIDT,
  SOFT_IS_LGDT,
  SOFT_IS_LIDT
};
enum {
  SOFT_IS_SLDT,
  SOFT_IS_STR,
  SOFT_IS_LLDT,
  SOFT_IS_LTR
};

typedef struct soft_port_form {
  bool in;
  bool string;
} soft_port_form;

__attribute__((noreturn)) SOFT_COLD void soft_vmx_exit_gdt(soft_cpu *cpu, const soft_insn *insn,
                                                           unsigned which);
__attribute__((noreturn)) SOFT_COLD void soft_vmx_exit_ldt(soft_cpu *cpu, const soft_insn *insn,
                                                           unsigned which);
/* RDRAND, RDSEED. */
__attribute__((noreturn)) SOFT_COLD void soft_vmx_exit_random(soft_cpu *cpu, const soft_insn *insn,
                                                              uint32_t reason);
/* INVPCID and what is like it. */
__attribute__((noreturn)) SOFT_COLD void
soft_vmx_exit_invalidate(soft_cpu *cpu, const soft_insn *insn, uint32_t reason);
/* What the exit of a port tells; `linear` is the address in memory of INS and OUTS. */
void soft_vmx_tell_port(soft_cpu *cpu, const soft_insn *insn, uint16_t port, unsigned size,
                        soft_port_form form, uint64_t linear);

/* ---- shadow.c ---- */

/* VMREAD or VMWRITE of a field that the guest may reach in the shadow VMCS: done, or a fault; false
 * where it is to exit. */
SOFT_COLD bool soft_vmx_shadowed(soft_cpu *cpu, const soft_insn *insn);

/* ---- cr.c ---- */

/* What the guest reads of CR0 or CR4. */
SOFT_INLINE uint64_t soft_cr0_seen(const soft_cpu *cpu) {
  const luna_controls *c = &cpu->controls;
  return soft_likely(!cpu->controlled) ? cpu->cr0
                                       : (cpu->cr0 & ~c->cr0_mask) | (c->cr0_shadow & c->cr0_mask);
}
SOFT_INLINE uint64_t soft_cr4_seen(const soft_cpu *cpu) {
  const luna_controls *c = &cpu->controls;
  return soft_likely(!cpu->controlled) ? cpu->cr4
                                       : (cpu->cr4 & ~c->cr4_mask) | (c->cr4_shadow & c->cr4_mask);
}
/* What a MOV to a control register writes of the value; exits where a control says so. */
SOFT_COLD uint64_t soft_vmx_write_cr(soft_cpu *cpu, const soft_insn *insn, uint64_t value);
/* Before a MOV from one. */
SOFT_COLD void soft_vmx_read_cr(soft_cpu *cpu, const soft_insn *insn);
/* LMSW: the bits that it writes; `linear` is its operand's address in memory. */
SOFT_COLD uint64_t soft_vmx_lmsw(soft_cpu *cpu, const soft_insn *insn, uint64_t value,
                                 uint64_t linear);
/* Whether CLTS clears the bit. */
SOFT_COLD bool soft_vmx_clts(soft_cpu *cpu, const soft_insn *insn);
__attribute__((noreturn)) SOFT_COLD void soft_vmx_exit_dr(soft_cpu *cpu, const soft_insn *insn,
                                                          bool from);

#endif
