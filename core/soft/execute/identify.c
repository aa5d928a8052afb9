/* SPDX-License-Identifier: MIT
 * CPUID, time, random numbers, performance counters. */
#include "soft/execute/control.h"
#include "soft/execute/execute.h"
#include "soft/irqchip/irqchip.h"
#include "soft/vector/vector.h"
#include "soft/vmx/instruction.h"

/* What the table's bits for OSXSAVE and OSPKE and the sizes of XSAVE's areas are now. */
static void adjust(const soft_cpu *cpu, uint32_t leaf, uint32_t index, uint32_t *ebx,
                   uint32_t *ecx) {
  if (leaf == 1) {
    *ecx = (*ecx & ~(1u << 27)) | (cpu->cr4 & CR4_OSXSAVE ? 1u << 27 : 0);
  } else if (leaf == 7 && index == 0) {
    *ecx = (*ecx & ~(1u << 4)) | (cpu->cr4 & CR4_PKE ? 1u << 4 : 0);
  } else if (leaf == 0xd && index < 2 && *ebx) {
    *ebx = soft_xsave_size(cpu->xcr0, index);
  }
}

const struct kvm_cpuid_entry2 *soft_cpuid(const soft_cpu *cpu, uint32_t leaf, uint32_t index) {
  static const struct kvm_cpuid_entry2 none;
  for (uint32_t i = 0; cpu->cpuid && i < cpu->cpuid->nent; i++) {
    const struct kvm_cpuid_entry2 *entry = &cpu->cpuid->entries[i];
    bool by_index = entry->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    if (entry->function == leaf && (!by_index || entry->index == index)) {
      return entry;
    }
  }
  return &none;
}

bool soft_cpuid_has(const soft_cpu *cpu, uint32_t leaf, soft_cpuid_register which, unsigned bit) {
  const struct kvm_cpuid_entry2 *entry = soft_cpuid(cpu, leaf, 0);
  uint32_t value = which == SOFT_EBX ? entry->ebx : which == SOFT_ECX ? entry->ecx : entry->edx;
  return !cpu->cpuid || value >> bit & 1;
}

void soft_cpuid_changed(soft_cpu *cpu) {
  cpu->is_amd = soft_cpuid(cpu, 0, 0)->ebx == 0x68747541; /* "Auth" of AuthenticAMD */
  cpu->lacks_rdtscp = !soft_cpuid_has(cpu, 0x80000001, SOFT_EDX, 27);
  cpu->lacks_rdpid = !soft_cpuid_has(cpu, 7, SOFT_ECX, 22);
  cpu->lacks_invpcid = !soft_cpuid_has(cpu, 7, SOFT_EBX, 10);
}

SOFT_OP(cpuid) {
  if (soft_unlikely(cpu->controlled)) {
    soft_vmx_exit(cpu, insn, VMX_REASON_CPUID, 0);
  }
  uint32_t leaf = (uint32_t)cpu->r[RAX], index = (uint32_t)cpu->r[RCX];
  const struct kvm_cpuid_entry2 *entry = soft_cpuid(cpu, leaf, index);
  uint32_t ebx = entry->ebx, ecx = entry->ecx, edx = entry->edx;
  adjust(cpu, leaf, index, &ebx, &ecx);
  if (leaf == 1 && !(cpu->apic_base & APIC_BASE_ON)) {
    edx &= ~(1u << 9); /* a LAPIC that is off is not there */
  }
  soft_set_gpr(cpu, RAX, entry->eax, 32);
  soft_set_gpr(cpu, RBX, ebx, 32);
  soft_set_gpr(cpu, RCX, ecx, 32);
  soft_set_gpr(cpu, RDX, edx, 32);
  SOFT_END;
}

static void read_tsc(soft_cpu *cpu, const soft_insn *insn, uint32_t reason) {
  cpu->current = insn;
  if (cpu->cr4 & CR4_TSD && cpu->cpl) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
  if (soft_asks(cpu, CPU_BASED_RDTSC)) {
    soft_vmx_exit(cpu, insn, reason, 0);
  }
  uint64_t value = soft_tsc(cpu);
  soft_set_gpr(cpu, RAX, value, 32);
  soft_set_gpr(cpu, RDX, value >> 32, 32);
}

SOFT_OP(rdtsc) {
  read_tsc(cpu, insn, VMX_REASON_RDTSC);
  SOFT_NEXT;
}

SOFT_OP(rdtscp) {
  soft_need(cpu, insn,
            cpu->controlled ? !soft_withholds(cpu, CPU_BASED2_RDTSCP) : !cpu->lacks_rdtscp);
  read_tsc(cpu, insn, VMX_REASON_RDTSCP);
  soft_set_gpr(cpu, RCX, cpu->tsc_aux, 32);
  SOFT_NEXT;
}

SOFT_OP(rdpid) {
  soft_need(cpu, insn, !cpu->lacks_rdpid);
  soft_put(cpu, insn->to, cpu->tsc_aux, 64);
  SOFT_NEXT;
}

/* Counters that count nothing. */
SOFT_OP(rdpmc) {
  cpu->current = insn;
  bool kept_out = cpu->cpl && !(cpu->cr4 & CR4_PCE);
  if (soft_asks(cpu, CPU_BASED_RDPMC) && !kept_out) {
    soft_vmx_exit(cpu, insn, VMX_REASON_RDPMC, 0);
  }
  if (kept_out || (cpu->r[RCX] & 0x3fffffff) > 5) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
  soft_set_gpr(cpu, RAX, 0, 32);
  soft_set_gpr(cpu, RDX, 0, 32);
  SOFT_NEXT;
}

/* The host's RDRAND, or RDSEED where that is what it is: both are random. CF says that there was a
 * number. */
static const soft_insn *random_number(soft_cpu *cpu, const soft_insn *insn) {
  uint64_t value;
  bool there;
  __asm__ volatile("rdrand %0" : "=r"(value), "=@ccc"(there) : : "cc");
  soft_put(cpu, insn->to, there ? value : 0, insn->operand_size * 8);
  soft_set_result(cpu, 1, 0, 64);
  soft_set_cf_of(cpu, there, 0);
  SOFT_NEXT;
}

SOFT_OP(rdrand) {
  if (soft_asks_further(cpu, CPU_BASED2_RDRAND)) {
    soft_vmx_exit_random(cpu, insn, VMX_REASON_RDRAND);
  }
  return random_number(cpu, insn);
}

SOFT_OP(rdseed) {
  if (soft_asks_further(cpu, CPU_BASED2_RDSEED)) {
    soft_vmx_exit_random(cpu, insn, VMX_REASON_RDSEED);
  }
  return random_number(cpu, insn);
}
