/* SPDX-License-Identifier: MIT
 * Control and debug registers, TLB invalidation, XCR0. */
#include "soft/execute/control.h"

#include "soft/execute/execute.h"
#include "soft/vector/vector.h"
#include "soft/vmx/instruction.h"

bool soft_set_cr0(soft_cpu *cpu, uint64_t value) {
  uint64_t known = CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW |
                   CR0_CD | CR0_PG;
  value = (value & known) | CR0_ET;
  bool pages = value & CR0_PG, paged = cpu->cr0 & CR0_PG;
  if ((pages && !(value & CR0_PE)) || (value & CR0_NW && !(value & CR0_CD))) {
    return false;
  }
  uint64_t efer = cpu->efer;
  if (pages && !paged && efer & EFER_LME) {
    if (!(cpu->cr4 & CR4_PAE) || cpu->seg[SEG_CS].l) {
      return false;
    }
    efer |= EFER_LMA;
  }
  if (!pages && paged && efer & EFER_LMA) {
    if (soft_is_64(cpu) || cpu->cr4 & CR4_PCIDE) {
      return false;
    }
    efer &= ~(uint64_t)EFER_LMA;
  }
  bool reads = pages && (value ^ cpu->cr0) & (CR0_PG | CR0_CD | CR0_NW);
  if (reads && cpu->cr4 & CR4_PAE && !(efer & EFER_LMA) && !soft_load_pdptes(cpu)) {
    return false;
  }
  bool flush = (value ^ cpu->cr0) & (CR0_PG | CR0_WP | CR0_PE);
  cpu->cr0 = value;
  cpu->vector_ready = 0;
  cpu->efer = efer;
  if (flush) {
    soft_tlb_flush(cpu);
  }
  soft_tlb_select(cpu);
  soft_mode_changed(cpu);
  return true;
}

bool soft_set_cr3(soft_cpu *cpu, uint64_t value) {
  bool keeps = cpu->cr4 & CR4_PCIDE && value >> 63;
  uint64_t old = cpu->cr3;
  value &= ~((uint64_t)keeps << 63);
  if (soft_is_long(cpu) && value >> SOFT_ADDRESS_BITS) {
    return false;
  }
  cpu->cr3 = value;
  bool pae = cpu->cr0 & CR0_PG && cpu->cr4 & CR4_PAE && !soft_is_long(cpu);
  if (pae && !soft_load_pdptes(cpu)) {
    cpu->cr3 = old;
    return false;
  }
  (void)keeps; /* entries may always be dropped, and are */
  soft_tlb_flush(cpu);
  return true;
}

void soft_cr4_changed(soft_cpu *cpu) {
  soft_tlb_flush(cpu);
  soft_tlb_select(cpu);
}

/* Bits that CPUID says there are not (as KVM has it: not all of them have a feature's bit). */
static uint64_t cr4_absent(const soft_cpu *cpu) {
  static const struct {
    uint32_t bit, leaf;
    soft_cpuid_register which;
    unsigned feature;
  } features[] = {
      {CR4_UMIP, 7, SOFT_ECX, 2},   {CR4_LA57, 7, SOFT_ECX, 16},    {CR4_FSGSBASE, 7, SOFT_EBX, 0},
      {CR4_PCIDE, 1, SOFT_ECX, 17}, {CR4_OSXSAVE, 1, SOFT_ECX, 26}, {CR4_SMEP, 7, SOFT_EBX, 7},
      {CR4_SMAP, 7, SOFT_EBX, 20},  {CR4_PKE, 7, SOFT_ECX, 3},
  };
  uint64_t absent = 0;
  for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
    if (!soft_cpuid_has(cpu, features[i].leaf, features[i].which, features[i].feature)) {
      absent |= features[i].bit;
    }
  }
  return absent;
}

bool soft_set_cr4(soft_cpu *cpu, uint64_t value) {
  uint64_t changed = value ^ cpu->cr4;
  uint64_t known = CR4_ALL | (cpu->controlled ? CR4_VMXE : 0);
  if (value & ~known || changed & value & cr4_absent(cpu) ||
      (soft_is_long(cpu) && !(value & CR4_PAE)) || (soft_is_long(cpu) && changed & CR4_LA57)) {
    return false;
  }
  if (changed & value & CR4_PCIDE && (!soft_is_long(cpu) || cpu->cr3 & 0xfff)) {
    return false;
  }
  uint64_t old = cpu->cr4;
  cpu->cr4 = value;
  cpu->vector_ready = 0;
  bool pae = cpu->cr0 & CR0_PG && value & CR4_PAE && !soft_is_long(cpu);
  if (pae && changed & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP) && !soft_load_pdptes(cpu)) {
    cpu->cr4 = old;
    return false;
  }
  soft_cr4_changed(cpu);
  return true;
}

/* Under controls the guest cannot clear what a processor wants set there (SDM volume 3, 24.8). */
static bool clears_fixed(const soft_cpu *cpu, uint64_t now, uint64_t value, uint64_t fixed) {
  return soft_unlikely(cpu->controlled) && now & ~value & fixed;
}

SOFT_OP(mov_to_cr) {
  soft_need_ring_0(cpu, insn);
  uint64_t value = soft_get(cpu, insn->from, soft_is_64(cpu) ? 64 : 32);
  if (soft_unlikely(cpu->controlled)) {
    value = soft_vmx_write_cr(cpu, insn, value);
  }
  bool right = true;
  switch (insn->extra) {
    case 0:
      right =
          !(value >> 32) && !clears_fixed(cpu, cpu->cr0, value, CR0_NE) && soft_set_cr0(cpu, value);
      break;
    case 2:
      cpu->cr2 = value;
      break;
    case 3:
      right = soft_set_cr3(cpu, value);
      break;
    case 4:
      right = !clears_fixed(cpu, cpu->cr4, value, CR4_VMXE) && soft_set_cr4(cpu, value);
      break;
    case 8:
      right = !(value & ~UINT64_C(15));
      cpu->cr8 = right ? value : cpu->cr8;
      break;
    default:
      soft_raise(cpu, VECTOR_UD);
  }
  if (!right) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
  soft_look_around(cpu);
  SOFT_END;
}

SOFT_OP(mov_from_cr) {
  soft_need_ring_0(cpu, insn);
  uint64_t value = 0;
  if (soft_unlikely(cpu->controlled)) {
    soft_vmx_read_cr(cpu, insn);
  }
  switch (insn->extra) {
    case 0:
      value = soft_cr0_seen(cpu);
      break;
    case 2:
      value = cpu->cr2;
      break;
    case 3:
      value = cpu->cr3;
      break;
    case 4:
      value = soft_cr4_seen(cpu);
      break;
    case 8:
      value = cpu->cr8;
      break;
    default:
      soft_raise(cpu, VECTOR_UD);
  }
  soft_put(cpu, insn->to, value, soft_is_64(cpu) ? 64 : 32);
  SOFT_NEXT;
}

SOFT_OP(lmsw) {
  soft_need_ring_0(cpu, insn);
  uint64_t linear = insn->to_kind == SOFT_REGISTER ? 0 : soft_address(cpu, insn, 2, SOFT_READ);
  uint64_t value =
      insn->to_kind == SOFT_REGISTER ? soft_get(cpu, insn->to, 16) : soft_load(cpu, linear, 16);
  uint64_t low = CR0_MP | CR0_EM | CR0_TS;
  if (soft_unlikely(cpu->controlled)) {
    value = soft_vmx_lmsw(cpu, insn, value, linear);
  }
  soft_set_cr0(cpu, (cpu->cr0 & ~low) | (value & (low | CR0_PE)));
  soft_look_around(cpu);
  SOFT_END;
}

SOFT_OP(clts) {
  soft_need_ring_0(cpu, insn);
  if (soft_likely(!cpu->controlled) || soft_vmx_clts(cpu, insn)) {
    cpu->cr0 &= ~(uint64_t)CR0_TS;
  }
  SOFT_NEXT;
}

/* ---- Debug registers ---- */

static unsigned debug_register(soft_cpu *cpu, const soft_insn *insn, bool from) {
  unsigned number = insn->extra;
  if (soft_asks(cpu, CPU_BASED_MOV_DR) && number <= 7) { /* before faults, as none else */
    soft_vmx_exit_dr(cpu, insn, from);
  }
  soft_need_ring_0(cpu, insn);
  if (number > 7 || ((number == 4 || number == 5) && cpu->cr4 & CR4_DE)) {
    soft_raise(cpu, VECTOR_UD);
  }
  if (cpu->dr[7] & DR7_GD) {
    soft_vmx_debug(cpu, DR6_BD);
    cpu->dr[7] &= ~(uint64_t)DR7_GD;
    cpu->dr[6] |= DR6_BD;
    soft_raise(cpu, VECTOR_DB);
  }
  return number == 4 || number == 5 ? number + 2 : number;
}

SOFT_OP(mov_to_dr) {
  unsigned number = debug_register(cpu, insn, false);
  uint64_t value = soft_get(cpu, insn->from, soft_is_64(cpu) ? 64 : 32);
  if (number >= 6 && value >> 32) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
  if (number == 6) {
    value = (value & 0xe00f) | (uint32_t)DR6_FIXED;
  } else if (number == 7) {
    value = (value & ~UINT64_C(0xd000)) | DR7_FIXED; /* bit 11 is kept, as KVM does */
  }
  cpu->dr[number] = value;
  soft_watch_changed(cpu);
  SOFT_END;
}

SOFT_OP(mov_from_dr) {
  unsigned number = debug_register(cpu, insn, true);
  soft_put(cpu, insn->to, cpu->dr[number], soft_is_64(cpu) ? 64 : 32);
  SOFT_NEXT;
}

/* ---- Caches and TLB ---- */

SOFT_OP(invlpg) {
  soft_need_ring_0(cpu, insn);
  uint64_t offset = soft_offset(cpu, insn);
  uint64_t linear = soft_is_64(cpu) ? soft_place(cpu, insn, offset, 1, SOFT_READ)
                                    : (cpu->seg[insn->segment].base + offset) & 0xffffffff;
  if (soft_asks(cpu, CPU_BASED_INVLPG)) {
    soft_vmx_exit(cpu, insn, VMX_REASON_INVLPG, linear);
  }
  soft_tlb_flush(cpu); /* a large page has many entries, and is not known by them */
  soft_look_around(cpu);
  SOFT_END;
}

/* Whatever it asks for, the whole TLB goes. */
SOFT_OP(invpcid) {
  soft_need(cpu, insn,
            cpu->controlled ? !soft_withholds(cpu, CPU_BASED2_INVPCID) : !cpu->lacks_invpcid);
  soft_need_ring_0(cpu, insn);
  if (soft_asks(cpu, CPU_BASED_INVLPG)) {
    soft_vmx_exit_invalidate(cpu, insn, VMX_REASON_INVPCID);
  }
  uint64_t type = soft_get(cpu, insn->to, soft_is_64(cpu) ? 64 : 32);
  uint64_t linear = soft_address(cpu, insn, 16, SOFT_READ);
  uint64_t pcid = soft_load(cpu, linear, 64), address = soft_load(cpu, linear + 8, 64);
  bool wrong = type > 3 || pcid >> 12 || (type == 0 && !soft_canonical(cpu, address)) ||
               (type < 2 && pcid && !(cpu->cr4 & CR4_PCIDE));
  if (wrong) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
  soft_tlb_flush(cpu);
  soft_look_around(cpu);
  SOFT_END;
}

SOFT_OP(wbinvd) {
  soft_need_ring_0(cpu, insn);
  if (soft_asks_further(cpu, CPU_BASED2_WBINVD)) {
    soft_vmx_exit(cpu, insn, VMX_REASON_WBINVD, 0);
  }
  SOFT_NEXT;
}

SOFT_OP(invd) {
  soft_need_ring_0(cpu, insn);
  if (soft_unlikely(cpu->controlled)) {
    soft_vmx_exit(cpu, insn, VMX_REASON_INVD, 0);
  }
  SOFT_NEXT;
}

/* ---- XCR0 ---- */

/* XCR0, or with ECX 1 those of its components that are in use. */
SOFT_OP(xgetbv) {
  cpu->current = insn;
  if (!(cpu->cr4 & CR4_OSXSAVE)) {
    soft_raise(cpu, VECTOR_UD);
  }
  uint32_t number = (uint32_t)cpu->r[RCX];
  if (number > 1) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
  uint64_t value = number ? cpu->xcr0 & soft_xinuse(cpu) : cpu->xcr0;
  soft_set_gpr(cpu, RAX, value, 32);
  soft_set_gpr(cpu, RDX, value >> 32, 32);
  SOFT_NEXT_BY_LOOP;
}

SOFT_OP(xsetbv) {
  cpu->current = insn;
  if (!(cpu->cr4 & CR4_OSXSAVE)) {
    soft_raise(cpu, VECTOR_UD);
  }
  soft_need_ring_0(cpu, insn);
  if (soft_unlikely(cpu->controlled)) {
    soft_vmx_exit(cpu, insn, VMX_REASON_XSETBV, 0);
  }
  uint64_t value = soft_gpr(cpu, RDX, 32) << 32 | soft_gpr(cpu, RAX, 32);
  if ((uint32_t)cpu->r[RCX] || !soft_xcr0_right(cpu, value)) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
  soft_park(cpu);
  cpu->xcr0 = value;
  cpu->vector_ready = 0;
  SOFT_END;
}

/* ---- PKRU ---- */

static void need_pke(soft_cpu *cpu, const soft_insn *insn, bool wrong) {
  cpu->current = insn;
  if (!(cpu->cr4 & CR4_PKE)) {
    soft_raise(cpu, VECTOR_UD);
  }
  if (wrong) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
}

void soft_set_pkru(soft_cpu *cpu, uint32_t value) {
  if (cpu->pkru != value) {
    cpu->pkru = value;
    soft_tlb_flush(cpu);
  }
}

SOFT_OP(rdpkru) {
  need_pke(cpu, insn, (uint32_t)cpu->r[RCX] != 0);
  soft_set_gpr(cpu, RAX, cpu->pkru, 32);
  soft_set_gpr(cpu, RDX, 0, 32);
  SOFT_NEXT;
}

SOFT_OP(wrpkru) {
  need_pke(cpu, insn, (uint32_t)cpu->r[RCX] || (uint32_t)cpu->r[RDX]);
  soft_set_pkru(cpu, (uint32_t)cpu->r[RAX]);
  SOFT_END;
}
