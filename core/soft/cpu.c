/* SPDX-License-Identifier: MIT
 * A CPU's reset state, RFLAGS as a whole, and what follows from a change of mode. */
#include "soft/cpu.h"

#include "soft/insn.h"
#include "soft/irqchip/irqchip.h"
#include "soft/mmu/mmu.h"
#include "soft/vector/vector.h"

#include <string.h>

uint64_t soft_flags(const soft_cpu *cpu) {
  int cf = (int)(cpu->carry >> 63), of = (int)((cpu->carry ^ cpu->carry << 1) >> 63);
  int sf = (int)((cpu->result >> 63 ^ cpu->parity >> 8) & 1);
  uint32_t folded = (cpu->parity ^ cpu->parity >> 4) & 15;
  return cpu->rflags | FLAG_ONE | (cf ? FLAG_CF : 0) | (0x9669 >> folded & 1 ? FLAG_PF : 0) |
         (cpu->adjust & 8 ? FLAG_AF : 0) | (cpu->result ? 0 : FLAG_ZF) | (sf ? FLAG_SF : 0) |
         (of ? FLAG_OF : 0);
}

void soft_set_flags(soft_cpu *cpu, uint64_t flags) {
  bool zf = flags & FLAG_ZF, sf = flags & FLAG_SF, cf = flags & FLAG_CF, of = flags & FLAG_OF;
  cpu->rflags = flags & ~(uint64_t)(FLAGS_ARITHMETIC | FLAG_ONE);
  cpu->result = zf ? 0 : sf ? UINT64_C(1) << 63 : 1;
  cpu->parity = (flags & FLAG_PF ? 0 : 1) | (zf && sf ? 256 : 0);
  cpu->adjust = flags & FLAG_AF ? 8 : 0;
  cpu->carry = (uint64_t)cf << 63 | (uint64_t)(cf != of) << 62;
}

void soft_mode_changed(soft_cpu *cpu) {
  const struct kvm_segment *cs = &cpu->seg[SEG_CS];
  soft_settle_pointers(cpu); /* by the old width of instruction pointers */
  cpu->mode = soft_is_long(cpu) && cs->l ? SOFT_MODE_64 : cs->db ? SOFT_MODE_32 : SOFT_MODE_16;
  cpu->ip_mask = cpu->mode == SOFT_MODE_64   ? ~UINT64_C(0)
                 : cpu->mode == SOFT_MODE_32 ? 0xffffffff
                                             : 0xffff;
  cpu->cs_base = cpu->mode == SOFT_MODE_64 ? 0 : cs->base;
  cpu->rip_last = cpu->mode == SOFT_MODE_64 ? ~UINT64_C(0) : cs->limit;
  if (cpu->mode == SOFT_MODE_16) { /* virtual-8086 mode has less of them */
    cpu->vector_ready = 0;
  }
  soft_segments_changed(cpu);
  soft_links_select(cpu);
}

void soft_set_cpl(soft_cpu *cpu, unsigned cpl) {
  cpu->cpl = (uint8_t)cpl;
  soft_tlb_select(cpu);
  soft_links_select(cpu);
}

void soft_nmi_ended(soft_cpu *cpu) {
  if (cpu->nmi_masked && atomic_load_explicit(&cpu->nmi, memory_order_relaxed) > 1) {
    atomic_store(&cpu->nmi, 1);
  }
  cpu->nmi_masked = false;
}

static void reset_segments(soft_cpu *cpu) {
  for (int i = SEG_ES; i <= SEG_GS; i++) {
    cpu->seg[i] = (struct kvm_segment){.limit = 0xffff, .type = 3, .s = 1, .present = 1};
  }
  cpu->seg[SEG_CS].selector = 0xf000;
  cpu->seg[SEG_CS].base = 0xffff0000;
  cpu->seg[SEG_CS].type = 11;
  cpu->tr = (struct kvm_segment){.limit = 0xffff, .type = 11, .present = 1};
  cpu->ldt = (struct kvm_segment){.limit = 0xffff, .type = 2, .present = 1};
  cpu->gdt = cpu->idt = (struct kvm_dtable){.limit = 0xffff};
}

/* What INIT leaves alone (SDM volume 3, table 10-1). */
static void reset_lasting(soft_cpu *cpu) {
  cpu->star = cpu->lstar = cpu->cstar = cpu->sfmask = cpu->kernel_gs = cpu->tsc_aux = 0;
  memset(cpu->sysenter, 0, sizeof cpu->sysenter);
  memset(cpu->other_msrs, 0, sizeof cpu->other_msrs);
  cpu->tsc_adjust = 0;
  cpu->pat = UINT64_C(0x0007040600070406);
  cpu->misc_enable = 1;
  cpu->apic_base = UINT64_C(0xfee00800) | (cpu->id == 0 ? 0x100 : 0);
  cpu->xcr0 = 1;
  cpu->pkru = 0;
  cpu->clock_gpa = 0;
  soft_vector_reset(cpu);
}

void soft_cpu_reset(soft_cpu *cpu, bool init) {
  memset(cpu->r, 0, sizeof cpu->r);
  cpu->rip = 0xfff0;
  cpu->r[RDX] = 0x600;
  soft_set_flags(cpu, FLAG_ONE);
  reset_segments(cpu);
  cpu->cr0 = init ? (cpu->cr0 & (CR0_CD | CR0_NW)) | CR0_ET : CR0_CD | CR0_NW | CR0_ET;
  cpu->cr2 = cpu->cr3 = cpu->cr4 = cpu->cr8 = cpu->efer = 0;
  memset(cpu->dr, 0, sizeof cpu->dr);
  cpu->dr[6] = (uint32_t)DR6_FIXED;
  cpu->dr[7] = DR7_FIXED;
  cpu->interrupt = cpu->delivering = -1;
  cpu->injected = cpu->halted = cpu->nmi_masked = cpu->double_fault = false;
  cpu->shadow = 0;
  cpu->pending_debug = 0;
  cpu->cpl = 0;
  if (!init) {
    reset_lasting(cpu);
  }
  soft_tlb_flush(cpu);
  soft_tlb_select(cpu);
  soft_mode_changed(cpu);
  soft_watch_changed(cpu);
}
