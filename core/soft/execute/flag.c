/* SPDX-License-Identifier: MIT
 * Instructions on flags, and decimal arithmetic, which depends on AF. */
#include "soft/execute/execute.h"

SOFT_OP(clc) {
  soft_set_cf(cpu, 0);
  SOFT_NEXT;
}

SOFT_OP(stc) {
  soft_set_cf(cpu, 1);
  SOFT_NEXT;
}

SOFT_OP(cmc) {
  soft_set_cf(cpu, !soft_cf(cpu));
  SOFT_NEXT;
}

SOFT_OP(cld) {
  cpu->rflags &= ~(uint64_t)FLAG_DF;
  SOFT_NEXT;
}

SOFT_OP(std) {
  cpu->rflags |= FLAG_DF;
  SOFT_NEXT;
}

/* CLI and STI of VME and PVI change VIF where IOPL does not let them change IF (SDM volume 3,
 * 20.3). Whether that is so. */
static bool virtual_flag(soft_cpu *cpu) {
  if (soft_is_real(cpu) || cpu->cpl <= soft_iopl(cpu)) {
    return false;
  }
  bool may = soft_is_vm86(cpu) ? cpu->cr4 & CR4_VME : cpu->cpl == 3 && cpu->cr4 & CR4_PVI;
  if (!may) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
  return true;
}

SOFT_OP(cli) {
  cpu->current = insn;
  cpu->rflags &= virtual_flag(cpu) ? ~(uint64_t)FLAG_VIF : ~(uint64_t)FLAG_IF;
  SOFT_NEXT;
}

SOFT_OP(sti) {
  cpu->current = insn;
  if (virtual_flag(cpu)) {
    if (cpu->rflags & FLAG_VIP) {
      soft_fault(cpu, VECTOR_GP, 0);
    }
    cpu->rflags |= FLAG_VIF;
  } else {
    if (!(cpu->rflags & FLAG_IF)) {
      cpu->shadow = KVM_X86_SHADOW_INT_STI;
    }
    cpu->rflags |= FLAG_IF;
  }
  soft_look_around(cpu);
  SOFT_END;
}

SOFT_OP(clac) {
  soft_need_ring_0(cpu, insn);
  cpu->rflags &= ~(uint64_t)FLAG_AC;
  soft_tlb_select(cpu);
  SOFT_NEXT;
}

SOFT_OP(stac) {
  soft_need_ring_0(cpu, insn);
  cpu->rflags |= FLAG_AC;
  soft_tlb_select(cpu);
  SOFT_NEXT;
}

SOFT_OP(lahf) {
  soft_put(cpu, 1, soft_flags(cpu) & 0xff, 8);
  SOFT_NEXT;
}

SOFT_OP(sahf) {
  uint64_t from = FLAG_SF | FLAG_ZF | FLAG_AF | FLAG_PF | FLAG_CF;
  soft_set_flags(cpu, (soft_flags(cpu) & ~from) | (soft_get(cpu, 1, 8) & from));
  SOFT_NEXT;
}

SOFT_OP(salc) {
  soft_set_gpr(cpu, RAX, soft_cf(cpu) ? 0xff : 0, 8);
  SOFT_NEXT;
}

SOFT_OP(pushf) {
  uint64_t sp = cpu->r[RSP], flags = soft_flags(cpu) & ~(uint64_t)(FLAG_RF | FLAG_VM);
  cpu->current = insn;
  if (soft_is_vm86(cpu) && soft_iopl(cpu) < 3) {
    if (!(cpu->cr4 & CR4_VME) || insn->operand_size != 2) {
      soft_fault(cpu, VECTOR_GP, 0);
    }
    flags = (flags & ~(uint64_t)FLAG_IF) | FLAG_IOPL | (cpu->rflags & FLAG_VIF ? FLAG_IF : 0);
  }
  soft_push(cpu, &sp, flags, insn->operand_size);
  soft_set_stack(cpu, sp);
  SOFT_NEXT_BY_LOOP;
}

/* POPF of VME with IOPL below 3: IF goes to VIF. */
static uint64_t popped_virtual(soft_cpu *cpu, uint64_t flags, uint64_t old) {
  if (flags & FLAG_TF || (flags & FLAG_IF && old & FLAG_VIP)) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
  uint64_t keep = FLAG_IF | FLAG_IOPL | ~UINT64_C(0xffff);
  flags = (flags & ~keep) | (old & keep & ~(uint64_t)FLAG_VIF);
  return flags;
}

SOFT_OP(popf) {
  uint64_t sp = cpu->r[RSP], old = soft_flags(cpu);
  cpu->current = insn;
  bool through_vme = soft_is_vm86(cpu) && soft_iopl(cpu) < 3;
  if (through_vme && (!(cpu->cr4 & CR4_VME) || insn->operand_size != 2)) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
  uint64_t flags = soft_pop(cpu, &sp, insn->operand_size);
  if (through_vme) {
    bool on = flags & FLAG_IF;
    flags = popped_virtual(cpu, flags, old) | (on ? FLAG_VIF : 0);
  } else {
    uint64_t may = FLAGS_ARITHMETIC | FLAG_TF | FLAG_DF | FLAG_NT | FLAG_AC | FLAG_ID;
    may |= soft_is_real(cpu) || cpu->cpl == 0 ? FLAG_IOPL : 0;
    may |= soft_is_real(cpu) || cpu->cpl <= soft_iopl(cpu) ? FLAG_IF : 0;
    may &= insn->operand_size == 2 ? 0xffff : ~UINT64_C(0);
    flags = (old & ~may) | (flags & may);
  }
  soft_set_stack(cpu, sp);
  soft_set_flags(cpu, flags & ~(uint64_t)FLAG_RF);
  soft_tlb_select(cpu);
  soft_look_around(cpu);
  SOFT_END;
}

/* ---- Decimal ---- */

static void set_decimal(soft_cpu *cpu, uint64_t result, bool cf, bool af) {
  soft_set_result(cpu, result, 0, 8);
  cpu->adjust = af ? 8 : 0;
  soft_set_cf_of(cpu, cf, 0);
}

/* DAA adds, DAS subtracts. */
static void adjust_packed(soft_cpu *cpu, uint64_t sign) {
  uint64_t al = soft_gpr(cpu, RAX, 8), result = al;
  bool cf = false, af = (al & 15) > 9 || soft_af(cpu);
  if (af) {
    cf = soft_cf(cpu) || (sign == 1 ? al > 0xf9 : al < 6);
    result += sign * 6;
  }
  if (al > 0x99 || soft_cf(cpu)) {
    result += sign * 0x60;
    cf = true;
  }
  soft_set_gpr(cpu, RAX, result, 8);
  set_decimal(cpu, result & 0xff, cf, af);
}

SOFT_OP(daa) {
  adjust_packed(cpu, 1);
  SOFT_NEXT;
}

SOFT_OP(das) {
  adjust_packed(cpu, ~UINT64_C(0));
  SOFT_NEXT;
}

static void adjust_unpacked(soft_cpu *cpu, uint64_t by) {
  bool adjusts = (soft_gpr(cpu, RAX, 8) & 15) > 9 || soft_af(cpu);
  if (adjusts) {
    soft_set_gpr(cpu, RAX, cpu->r[RAX] + by, 16);
  }
  uint64_t al = soft_gpr(cpu, RAX, 8) & 15;
  soft_set_gpr(cpu, RAX, al, 8);
  set_decimal(cpu, al, adjusts, adjusts);
}

SOFT_OP(aaa) {
  adjust_unpacked(cpu, 0x106);
  SOFT_NEXT;
}

SOFT_OP(aas) {
  adjust_unpacked(cpu, -(uint64_t)0x106);
  SOFT_NEXT;
}

SOFT_OP(aam) {
  uint64_t al = soft_gpr(cpu, RAX, 8);
  if (!insn->immediate) {
    cpu->current = insn;
    soft_raise(cpu, VECTOR_DE);
  }
  uint64_t rest = al % insn->immediate;
  soft_set_gpr(cpu, RAX, al / insn->immediate << 8 | rest, 16);
  set_decimal(cpu, rest, false, false);
  SOFT_NEXT;
}

SOFT_OP(aad) {
  uint64_t al = (soft_gpr(cpu, RAX, 8) + soft_get(cpu, 1, 8) * insn->immediate) & 0xff;
  soft_set_gpr(cpu, RAX, al, 16);
  set_decimal(cpu, al, false, false);
  SOFT_NEXT;
}
