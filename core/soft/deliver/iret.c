/* SPDX-License-Identifier: MIT
 * IRET in all its forms: real and VM86 mode, to the same and an outer privilege level, to VM86, out
 * of a nested task, long mode. */
#include "soft/deliver/deliver.h"
#include "soft/flags.h"

/* What an IRET takes from the stack. */
typedef struct back {
  uint64_t rip;
  unsigned cs;
  uint64_t flags;
} back;

static back pop_back(soft_cpu *cpu, uint64_t *sp, unsigned size) {
  back to;
  to.rip = soft_pop(cpu, sp, size);
  to.cs = (unsigned)soft_pop(cpu, sp, size) & 0xffff;
  to.flags = soft_pop(cpu, sp, size);
  return to;
}

static void to_real(soft_cpu *cpu, back to, uint64_t sp, uint64_t keep, unsigned size) {
  uint64_t old = soft_flags(cpu);
  if (to.rip > cpu->seg[SEG_CS].limit) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
  keep |= size == 2 ? ~UINT64_C(0xffff) : 0;
  soft_set_stack(cpu, sp);
  soft_set_flags(cpu, (to.flags & ~keep & FLAGS_ALL) | (old & keep));
  cpu->rip = to.rip & 0xffff;
  soft_real_segment(cpu, SEG_CS, to.cs);
  soft_mode_changed(cpu);
}

/* With IOPL 3, or VME, which turns IF into VIF. */
static void iret_vm86(soft_cpu *cpu, unsigned size) {
  uint64_t sp = cpu->r[RSP], old = soft_flags(cpu);
  bool own = soft_iopl(cpu) == 3;
  if (!own && (!(cpu->cr4 & CR4_VME) || size != 2)) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
  back to = pop_back(cpu, &sp, size);
  uint64_t keep = FLAG_VM | FLAG_IOPL | FLAG_VIF | FLAG_VIP;
  if (!own) {
    if (to.flags & FLAG_TF || (to.flags & FLAG_IF && old & FLAG_VIP)) {
      soft_fault(cpu, VECTOR_GP, 0);
    }
    keep |= FLAG_IF;
  }
  to_real(cpu, to, sp, keep, size);
  if (!own) {
    cpu->rflags = (cpu->rflags & ~(uint64_t)FLAG_VIF) | (to.flags & FLAG_IF ? FLAG_VIF : 0);
  }
}

static void iret_to_vm86(soft_cpu *cpu, back to, uint64_t sp) {
  uint64_t esp = soft_pop(cpu, &sp, 4);
  unsigned selectors[5];
  for (int i = 0; i < 5; i++) {
    selectors[i] = (unsigned)soft_pop(cpu, &sp, 4) & 0xffff;
  }
  if (to.rip > 0xffff) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
  static const uint8_t order[] = {SEG_SS, SEG_ES, SEG_DS, SEG_FS, SEG_GS};
  soft_set_flags(cpu, to.flags & FLAGS_ALL);
  for (int i = 0; i < 5; i++) {
    soft_real_segment(cpu, order[i], selectors[i]);
  }
  soft_real_segment(cpu, SEG_CS, to.cs);
  cpu->r[RSP] = esp;
  cpu->rip = to.rip & 0xffff;
  soft_set_cpl(cpu, 3);
  soft_mode_changed(cpu);
}

void soft_drop_segments(soft_cpu *cpu) {
  for (int i = SEG_ES; i <= SEG_GS; i++) {
    const struct kvm_segment *segment = &cpu->seg[i];
    bool conforming = segment->type & SEGMENT_CODE && segment->type & SEGMENT_CONFORMING;
    if (i != SEG_CS && i != SEG_SS && !segment->unusable && segment->dpl < cpu->cpl &&
        !conforming) {
      uint64_t base = segment->base; /* stays: in 64-bit mode FS and GS go on with theirs */
      cpu->seg[i] = soft_null_segment(cpu, i, 0);
      cpu->seg[i].base = base;
      soft_segment_changed(cpu, i);
    }
  }
}

/* The stack that an IRET to 64-bit code below ring 3 may leave null. */
static struct kvm_segment outer_stack(soft_cpu *cpu, unsigned selector, unsigned cpl, bool to_64) {
  if (soft_is_null(selector) && to_64 && cpl != 3) {
    return (struct kvm_segment){.selector = (uint16_t)selector, .unusable = 1, .dpl = (uint8_t)cpl};
  }
  return soft_stack_segment(cpu, selector, cpl, VECTOR_GP);
}

static uint64_t returned_flags(const soft_cpu *cpu, uint64_t flags, unsigned size) {
  uint64_t old = soft_flags(cpu);
  uint64_t may = FLAGS_ARITHMETIC | FLAG_TF | FLAG_DF | FLAG_NT | FLAG_RF | FLAG_AC | FLAG_ID;
  may |= cpu->cpl <= soft_iopl(cpu) ? FLAG_IF : 0;
  may |= cpu->cpl == 0 ? FLAG_IOPL | FLAG_VIF | FLAG_VIP : 0;
  may &= size == 2 ? 0xffff : ~UINT64_C(0);
  return (old & ~may) | (flags & may);
}

static void iret_protected(soft_cpu *cpu, unsigned size) {
  uint64_t sp = cpu->r[RSP];
  back to = pop_back(cpu, &sp, size);
  if (size == 4 && to.flags & FLAG_VM && cpu->cpl == 0 && !soft_is_long(cpu)) {
    iret_to_vm86(cpu, to, sp);
    return;
  }
  soft_descriptor code = soft_code_descriptor(cpu, to.cs);
  unsigned rpl = to.cs & 3;
  bool wrong = soft_is_conforming(code) ? soft_dpl(code) > rpl : soft_dpl(code) != rpl;
  if (rpl < cpu->cpl || wrong) {
    soft_fault_selector(cpu, VECTOR_GP, to.cs);
  }
  if (!soft_present(code)) {
    soft_fault_selector(cpu, VECTOR_NP, to.cs);
  }
  bool outer = rpl > cpu->cpl, pops_stack = outer || soft_is_64(cpu);
  bool to_64 = soft_is_long(cpu) && soft_is_long_code(code);
  struct kvm_segment stack = cpu->seg[SEG_SS];
  uint64_t new_sp = 0;
  if (pops_stack) {
    new_sp = soft_pop(cpu, &sp, size);
    unsigned selector = (unsigned)soft_pop(cpu, &sp, size) & 0xffff;
    stack = outer_stack(cpu, selector, rpl, to_64);
  }
  if (to_64 ? !soft_canonical(cpu, to.rip)
            : (uint32_t)to.rip > soft_segment_from(to.cs, code).limit) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
  soft_set_accessed(cpu, code);
  soft_set_flags(cpu, returned_flags(cpu, to.flags, size));
  cpu->seg[SEG_SS] = stack;
  soft_set_cs(cpu, to.cs, code, rpl, soft_trim(to.rip, (int)size * 8));
  if (!pops_stack) {
    soft_set_stack(cpu, sp);
  } else if (soft_is_64(cpu)) {
    cpu->r[RSP] = new_sp;
  } else {
    soft_set_stack(cpu, new_sp);
  }
  if (outer) {
    soft_drop_segments(cpu);
  }
}

void soft_iret(soft_cpu *cpu, unsigned size) {
  if (soft_is_real(cpu)) {
    uint64_t sp = cpu->r[RSP];
    back to = pop_back(cpu, &sp, size);
    to_real(cpu, to, sp, FLAG_VM | FLAG_VIF | FLAG_VIP, size);
  } else if (soft_is_vm86(cpu)) {
    iret_vm86(cpu, size);
  } else if (!(cpu->rflags & FLAG_NT)) {
    iret_protected(cpu, size);
  } else if (soft_is_long(cpu)) {
    soft_fault(cpu, VECTOR_GP, 0);
  } else {
    soft_task_return(cpu, soft_rip_after(cpu, cpu->current));
  }
  soft_tlb_select(cpu);
}
