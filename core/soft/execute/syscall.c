/* SPDX-License-Identifier: MIT
 * SYSCALL, SYSENTER and their returns, as they set flat segments. */
#include "soft/execute/execute.h"

static void set_flat(soft_cpu *cpu, uint64_t selector, unsigned cpl, bool wide) {
  struct kvm_segment flat = {.limit = 0xffffffff,
                             .type = 11,
                             .s = 1,
                             .dpl = (uint8_t)cpl,
                             .present = 1,
                             .g = 1,
                             .db = !wide,
                             .l = wide};
  flat.selector = (uint16_t)((selector & 0xfffc) | cpl);
  cpu->seg[SEG_CS] = flat;
  cpu->cpl = (uint8_t)cpl;
}

static void set_flat_stack(soft_cpu *cpu, uint64_t selector, unsigned cpl) {
  cpu->seg[SEG_SS] = (struct kvm_segment){.selector = (uint16_t)((selector & 0xfffc) | cpl),
                                          .limit = 0xffffffff,
                                          .type = 3,
                                          .s = 1,
                                          .dpl = (uint8_t)cpl,
                                          .present = 1,
                                          .g = 1,
                                          .db = 1};
}

/* TF counts as the instruction leaves it, not as it found it (SDM volume 2, SYSRET). */
static void trap_at_end(soft_cpu *cpu) {
  bool traps = cpu->rflags & FLAG_TF;
  if (cpu->single) {
    cpu->trap_flag = traps;
  } else if (traps) {
    cpu->pending_debug |= DR6_BS;
  }
}

static const soft_insn *arrive(soft_cpu *cpu) {
  soft_tlb_select(cpu);
  soft_mode_changed(cpu);
  soft_look_around(cpu);
  return NULL;
}

SOFT_OP(syscall) {
  cpu->current = insn;
  if (!(cpu->efer & EFER_SCE) || soft_is_real(cpu)) {
    soft_raise(cpu, VECTOR_UD);
  }
  uint64_t flags = soft_flags(cpu), selector = cpu->star >> 32;
  if (soft_is_long(cpu)) {
    cpu->r[RCX] = soft_rip_after(cpu, insn);
    cpu->r[R11] = flags & ~(uint64_t)FLAG_RF;
    cpu->rip = soft_is_64(cpu) ? cpu->lstar : cpu->cstar;
    soft_set_flags(cpu, flags & ~cpu->sfmask & ~(uint64_t)FLAG_RF);
  } else {
    cpu->r[RCX] = (uint32_t)soft_rip_after(cpu, insn);
    cpu->rip = (uint32_t)cpu->star;
    soft_set_flags(cpu, flags & ~(uint64_t)(FLAG_VM | FLAG_IF | FLAG_RF));
  }
  set_flat(cpu, selector, 0, soft_is_long(cpu));
  set_flat_stack(cpu, (selector & 0xfffc) + 8, 0);
  trap_at_end(cpu);
  return arrive(cpu);
}

/* The privilege level of the segments' selectors is 3 whatever STAR has. */
SOFT_OP(sysret) {
  cpu->current = insn;
  if (!(cpu->efer & EFER_SCE) || soft_is_real(cpu)) {
    soft_raise(cpu, VECTOR_UD);
  }
  soft_need_ring_0(cpu, insn);
  uint64_t selector = cpu->star >> 48;
  bool wide = insn->operand_size == 8;
  if (soft_is_long(cpu)) {
    if (wide && !soft_canonical(cpu, cpu->r[RCX])) {
      soft_fault(cpu, VECTOR_GP, 0);
    }
    cpu->rip = wide ? cpu->r[RCX] : (uint32_t)cpu->r[RCX];
    soft_set_flags(cpu, cpu->r[R11] & (FLAGS_ALL & ~(uint64_t)(FLAG_RF | FLAG_VM)));
    set_flat(cpu, wide ? selector + 16 : selector, 3, wide);
  } else {
    cpu->rip = (uint32_t)cpu->r[RCX];
    cpu->rflags |= FLAG_IF;
    set_flat(cpu, selector, 3, false);
  }
  set_flat_stack(cpu, (selector & 0xfffc) + 8, 3);
  trap_at_end(cpu);
  return arrive(cpu);
}

static uint64_t sysenter_selector(soft_cpu *cpu, const soft_insn *insn) {
  cpu->current = insn;
  if (soft_is_real(cpu) || !(cpu->sysenter[0] & 0xfffc)) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
  return cpu->sysenter[0] & 0xfffc;
}

SOFT_OP(sysenter) {
  uint64_t selector = sysenter_selector(cpu, insn);
  bool wide = soft_is_long(cpu);
  cpu->rflags &= ~(uint64_t)(FLAG_VM | FLAG_IF | FLAG_RF);
  cpu->r[RSP] = wide ? cpu->sysenter[1] : (uint32_t)cpu->sysenter[1];
  cpu->rip = wide ? cpu->sysenter[2] : (uint32_t)cpu->sysenter[2];
  set_flat(cpu, selector, 0, wide);
  set_flat_stack(cpu, selector + 8, 0);
  return arrive(cpu);
}

SOFT_OP(sysexit) {
  uint64_t selector = sysenter_selector(cpu, insn);
  bool wide = insn->operand_size == 8;
  soft_need_ring_0(cpu, insn);
  if (wide && (!soft_canonical(cpu, cpu->r[RCX]) || !soft_canonical(cpu, cpu->r[RDX]))) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
  cpu->rip = wide ? cpu->r[RDX] : (uint32_t)cpu->r[RDX];
  cpu->r[RSP] = wide ? cpu->r[RCX] : (uint32_t)cpu->r[RCX];
  set_flat(cpu, selector + (wide ? 32 : 16), 3, wide);
  set_flat_stack(cpu, selector + (wide ? 40 : 24), 3);
  return arrive(cpu);
}
