/* SPDX-License-Identifier: MIT
 * Exits for instructions whose operands the exit tells (SDM volume 3, 28.2.1 and 28.2.5), and the
 * instructions that are for virtual-machine monitors alone. */
#include "soft/vmx/instruction.h"

#include "soft/execute/execute.h"

enum {
  IN_REGISTER = 1 << 10, /* of the instruction information */
  NO_INDEX = 1 << 22,
  NO_BASE = 1 << 27
};

static uint32_t width_code(unsigned bytes) {
  return bytes == 8 ? 2 : bytes == 4 ? 1 : 0;
}

static uint32_t memory_information(const soft_insn *insn) {
  uint32_t told = width_code(insn->address_size) << 7 | (uint32_t)insn->segment << 15;
  told |= insn->index < R_ZERO ? (uint32_t)insn->shift | (uint32_t)insn->index << 18 : NO_INDEX;
  return told |
         (insn->base < R_ZERO && insn->base != R_BLOCK ? (uint32_t)insn->base << 23 : NO_BASE);
}

static uint32_t register_information(unsigned offset) {
  return offset / 8 << 3 | IN_REGISTER;
}

/* Of an address that follows RIP the whole of it. */
static uint64_t displacement(const soft_cpu *cpu, const soft_insn *insn) {
  return insn->base == R_BLOCK ? cpu->r[R_BLOCK] + (uint64_t)insn->displacement
                               : (uint64_t)insn->displacement;
}

/* The operand is memory, or the register at the offset. */
__attribute__((noreturn)) static void exit_operand(soft_cpu *cpu, const soft_insn *insn,
                                                   uint32_t reason, bool memory, unsigned offset,
                                                   uint32_t further) {
  cpu->current = insn;
  luna_control_exit *x = soft_vmx_begin(cpu, reason, memory ? displacement(cpu, insn) : 0);
  x->instruction = further | (memory ? memory_information(insn) : register_information(offset));
  soft_vmx_leave(cpu);
}

void soft_vmx_exit_gdt(soft_cpu *cpu, const soft_insn *insn, unsigned which) {
  uint32_t wide = insn->operand_size == 2 ? 0 : 1 << 11;
  exit_operand(cpu, insn, VMX_REASON_GDTR_IDTR, true, 0, wide | which << 28);
}

void soft_vmx_exit_ldt(soft_cpu *cpu, const soft_insn *insn, unsigned which) {
  exit_operand(cpu, insn, VMX_REASON_LDTR_TR, insn->to_kind == SOFT_MEMORY, insn->to, which << 28);
}

void soft_vmx_exit_random(soft_cpu *cpu, const soft_insn *insn, uint32_t reason) {
  cpu->current = insn;
  luna_control_exit *x = soft_vmx_begin(cpu, reason, 0);
  x->instruction = (uint32_t)insn->to / 8 << 3 | width_code(insn->operand_size) << 11;
  soft_vmx_leave(cpu);
}

/* Register and memory, always: INVPCID, INVEPT, INVVPID. */
void soft_vmx_exit_invalidate(soft_cpu *cpu, const soft_insn *insn, uint32_t reason) {
  exit_operand(cpu, insn, reason, true, 0, (uint32_t)insn->to / 8 << 28);
}

/* ---- Ports (SDM volume 3, table 28-5) ---- */

void soft_vmx_tell_port(soft_cpu *cpu, const soft_insn *insn, uint16_t port, unsigned size,
                        soft_port_form form, uint64_t linear) {
  bool string = form.string, immediate = !string && insn->from_kind == SOFT_IMMEDIATE;
  uint64_t qualification = (size - 1) | (uint64_t)form.in << 3 | (uint64_t)string << 4 |
                           (uint64_t)(insn->repeat != SOFT_ONCE && string) << 5 |
                           (uint64_t)immediate << 6 | (uint64_t)port << 16;
  cpu->current = insn;
  luna_control_exit *x = soft_vmx_begin(cpu, VMX_REASON_IO, qualification);
  x->linear = linear;
  if (string) {
    uint32_t segment = form.in ? SEG_ES : insn->segment;
    x->instruction = width_code(insn->address_size) << 7 | segment << 15;
  }
}

/* ---- Instructions of monitors ---- */

/* Which are none in real and VM86 mode, and in 32-bit code of long mode. */
static bool is_none_here(const soft_cpu *cpu) {
  return soft_is_real(cpu) || soft_is_vm86(cpu) || (soft_is_long(cpu) && !soft_is_64(cpu));
}

SOFT_OP(vmx) {
  cpu->current = insn;
  if (!cpu->controlled || is_none_here(cpu)) {
    soft_raise(cpu, VECTOR_UD);
  }
  uint32_t reason = insn->extra;
  if (soft_asks_further(cpu, CPU_BASED2_VMCS_SHADOW) && soft_vmx_shadowed(cpu, insn)) {
    SOFT_NEXT;
  }
  bool to_memory = insn->to_kind == SOFT_MEMORY, from_memory = insn->from_kind == SOFT_MEMORY;
  switch (reason) {
    case VMX_REASON_VMCLEAR:
    case VMX_REASON_VMPTRLD:
    case VMX_REASON_VMPTRST:
    case VMX_REASON_VMON:
      exit_operand(cpu, insn, reason, true, 0, 0);
    case VMX_REASON_VMREAD: /* to memory or a register what the other register numbers */
      exit_operand(cpu, insn, reason, to_memory, insn->to, (uint32_t)insn->from / 8 << 28);
    case VMX_REASON_VMWRITE:
      exit_operand(cpu, insn, reason, from_memory, insn->from, (uint32_t)insn->to / 8 << 28);
    case VMX_REASON_EPT_INVEPT:
    case VMX_REASON_INVVPID:
      soft_vmx_exit_invalidate(cpu, insn, reason);
    default:
      soft_vmx_exit(cpu, insn, reason, 0);
  }
}
