/* SPDX-License-Identifier: MIT
 * Accesses to control and debug registers under masks, shadows and CR3 targets (SDM volume 3,
 * 26.1.3 and 26.3, tables 28-3 and 28-4). */
#include "soft/access.h"
#include "soft/vmx/instruction.h"

enum {
  ACCESS_FROM = 1 << 4, /* of the qualification */
  ACCESS_CLTS = 2 << 4,
  ACCESS_LMSW = 3 << 4,
  LMSW_MEMORY = 1 << 6,
  LMSW_OTHERS = CR0_MP | CR0_EM | CR0_TS
};

/* The bits of the program's that the guest may write; exits where it changes one of the others. */
static uint64_t masked(soft_cpu *cpu, const soft_insn *insn, uint64_t value, uint64_t now,
                       uint64_t mask, uint64_t shadow) {
  if ((value ^ shadow) & mask) {
    soft_vmx_exit(cpu, insn, VMX_REASON_MOV_CR, insn->extra | (uint64_t)insn->from / 8 << 8);
  }
  return (value & ~mask) | (now & mask);
}

static bool is_target(const soft_cpu *cpu, uint64_t value) {
  const luna_controls *c = &cpu->controls;
  for (uint32_t i = 0; i < c->cr3_count && i < 4; i++) {
    if (c->cr3_targets[i] == value) {
      return true;
    }
  }
  return false;
}

uint64_t soft_vmx_write_cr(soft_cpu *cpu, const soft_insn *insn, uint64_t value) {
  const luna_controls *c = &cpu->controls;
  bool exits = false;
  switch (insn->extra) {
    case 0:
      return masked(cpu, insn, value, cpu->cr0, c->cr0_mask, c->cr0_shadow);
    case 3:
      exits = c->primary & CPU_BASED_CR3_LOAD && !is_target(cpu, value);
      break;
    case 4:
      return masked(cpu, insn, value, cpu->cr4, c->cr4_mask, c->cr4_shadow);
    case 8:
      exits = c->primary & CPU_BASED_CR8_LOAD;
      cpu->due |= c->primary & CPU_BASED_TPR_SHADOW ? SOFT_DUE_TPR : 0;
      break;
    default:
      break;
  }
  if (exits) {
    soft_vmx_exit(cpu, insn, VMX_REASON_MOV_CR, insn->extra | (uint64_t)insn->from / 8 << 8);
  }
  return value;
}

void soft_vmx_read_cr(soft_cpu *cpu, const soft_insn *insn) {
  uint32_t asked = insn->extra == 3   ? CPU_BASED_CR3_STORE
                   : insn->extra == 8 ? CPU_BASED_CR8_STORE
                                      : 0;
  if (cpu->controls.primary & asked) {
    soft_vmx_exit(cpu, insn, VMX_REASON_MOV_CR,
                  insn->extra | ACCESS_FROM | (uint64_t)insn->to / 8 << 8);
  }
}

/* PE can be set, and not cleared. */
uint64_t soft_vmx_lmsw(soft_cpu *cpu, const soft_insn *insn, uint64_t value, uint64_t linear) {
  const uint64_t mask = cpu->controls.cr0_mask, shadow = cpu->controls.cr0_shadow;
  bool sets = mask & value & ~shadow & CR0_PE;
  if (sets || mask & (value ^ shadow) & LMSW_OTHERS) {
    bool memory = insn->to_kind == SOFT_MEMORY;
    cpu->current = insn;
    luna_control_exit *x = soft_vmx_begin(
        cpu, VMX_REASON_MOV_CR, ACCESS_LMSW | (memory ? LMSW_MEMORY : 0) | (value & 0xffff) << 16);
    x->linear = memory ? linear : 0;
    soft_vmx_leave(cpu);
  }
  return (value & ~mask) | (cpu->cr0 & mask);
}

bool soft_vmx_clts(soft_cpu *cpu, const soft_insn *insn) {
  const luna_controls *c = &cpu->controls;
  if (!(c->cr0_mask & CR0_TS)) {
    return true;
  }
  if (c->cr0_shadow & CR0_TS) {
    soft_vmx_exit(cpu, insn, VMX_REASON_MOV_CR, ACCESS_CLTS);
  }
  return false;
}

void soft_vmx_exit_dr(soft_cpu *cpu, const soft_insn *insn, bool from) {
  uint64_t general = (from ? insn->to : insn->from) / 8u;
  soft_vmx_exit(cpu, insn, VMX_REASON_MOV_DR,
                (insn->extra & 7u) | (from ? ACCESS_FROM : 0) | general << 8);
}
