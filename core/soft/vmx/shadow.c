/* SPDX-License-Identifier: MIT
 * VMREAD and VMWRITE of fields in a shadow VMCS, which do not exit (SDM volume 3, 25.10 and 31.3).
 * Only fields that there are can be reached, those that tell of exits are written as others are,
 * and the link pointer is valid: neither instruction fails by its flags. */
#include "kvm/kvm_control.h"

#include "soft/access.h"
#include "soft/flags.h"
#include "soft/vmx/instruction.h"

/* Operands are as wide as the mode: of CS.D they know nothing. */
static int width(const soft_cpu *cpu) {
  return soft_is_64(cpu) ? 64 : 32;
}

/* VMsucceed: CF, PF, AF, ZF, SF and OF are 0. */
static void succeed(soft_cpu *cpu) {
  soft_set_result(cpu, 1, 0, 64);
}

bool soft_vmx_shadowed(soft_cpu *cpu, const soft_insn *insn) {
  luna_shadow *shadow = cpu->shadow_vmcs;
  const bool reads = insn->extra == VMX_REASON_VMREAD;
  uint32_t place;
  if (!shadow || (!reads && insn->extra != VMX_REASON_VMWRITE)) {
    return false;
  }
  const uint64_t field = soft_get(cpu, reads ? insn->from : insn->to, width(cpu));
  if (!luna_shadow_place(field, &place) ||
      !(shadow->access[place][field & 1] & (reads ? LUNA_READ : LUNA_WRITE))) {
    return false;
  }
  if (!(cpu->cr4 & CR4_VMXE)) { /* outside VMX operation */
    soft_raise(cpu, VECTOR_UD);
  }
  if (cpu->cpl) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
  if (reads) {
    soft_to(cpu, insn, luna_shadow_get(shadow, (uint32_t)field, place), width(cpu));
  } else {
    luna_shadow_set(shadow, (uint32_t)field, place, soft_from(cpu, insn, width(cpu)));
  }
  succeed(cpu);
  return true;
}
