/* SPDX-License-Identifier: MIT
 * Descriptors, and what loading a segment register checks. */
#include "soft/deliver/deliver.h"

void soft_fault_selector(soft_cpu *cpu, int vector, unsigned selector) {
  bool outside = cpu->delivering >= 0 && cpu->event.source != SOFT_FROM_INT &&
                 cpu->event.source != SOFT_FROM_INT3;
  soft_fault(cpu, vector, (selector & 0xfffc) | outside);
}

bool soft_descriptor_find(soft_cpu *cpu, unsigned selector, soft_descriptor *found) {
  unsigned offset = selector & 0xfff8;
  bool local = selector & 4;
  uint64_t base = local ? cpu->ldt.base : cpu->gdt.base;
  uint64_t limit = local ? cpu->ldt.limit : cpu->gdt.limit;
  if ((local && cpu->ldt.unusable) || offset + 7 > limit) {
    return false;
  }
  found->linear = base + offset;
  if (!soft_is_long(cpu)) {
    found->linear &= 0xffffffff;
  }
  found->bits = soft_load_system(cpu, found->linear, 8);
  return true;
}

soft_descriptor soft_descriptor_need(soft_cpu *cpu, unsigned selector, int vector) {
  soft_descriptor found;
  if (!soft_descriptor_find(cpu, selector, &found)) {
    soft_fault_selector(cpu, vector, selector);
  }
  return found;
}

uint64_t soft_descriptor_high(soft_cpu *cpu, unsigned selector, soft_descriptor d) {
  if (!soft_is_long(cpu)) {
    return 0;
  }
  uint64_t limit = selector & 4 ? cpu->ldt.limit : cpu->gdt.limit;
  uint64_t upper = 0;
  bool wrong = (selector & 0xfff8) + 15 > limit;
  if (!wrong) {
    upper = soft_load_system(cpu, d.linear + 8, 8);
    wrong = upper >> 40 & 31;
  }
  if (wrong) {
    soft_fault_selector(cpu, VECTOR_GP, selector);
  }
  return upper << 32;
}

void soft_set_accessed(soft_cpu *cpu, soft_descriptor d) {
  if (!(soft_type(d) & SEGMENT_ACCESSED)) {
    soft_store_system(cpu, d.linear + 5, (d.bits >> 40 & 0xff) | SEGMENT_ACCESSED, 1);
  }
}

struct kvm_segment soft_segment_from(unsigned selector, soft_descriptor d) {
  uint32_t limit = (uint32_t)(d.bits & 0xffff) | (uint32_t)(d.bits >> 48 & 15) << 16;
  bool pages = d.bits >> 55 & 1;
  return (struct kvm_segment){
      .selector = (uint16_t)selector,
      .base = (d.bits >> 16 & 0xffffff) | (d.bits >> 56 & 0xff) << 24,
      .limit = pages ? limit << 12 | 0xfff : limit,
      .type = (uint8_t)(soft_type(d) | (soft_is_system(d) ? 0 : SEGMENT_ACCESSED)),
      .s = !soft_is_system(d),
      .dpl = (uint8_t)soft_dpl(d),
      .present = soft_present(d),
      .avl = d.bits >> 52 & 1,
      .l = d.bits >> 53 & 1,
      .db = d.bits >> 54 & 1,
      .g = pages,
  };
}

struct kvm_segment soft_null_segment(const soft_cpu *cpu, int n, unsigned selector) {
  return (struct kvm_segment){
      .selector = (uint16_t)selector, .unusable = 1, .dpl = n == SEG_SS ? cpu->cpl : 0};
}

/* Limit and rights stay in real mode, whatever they were: "unreal mode" lives on it. */
void soft_real_segment(soft_cpu *cpu, int n, unsigned selector) {
  struct kvm_segment *segment = &cpu->seg[n];
  selector &= 0xffff;
  if (soft_is_vm86(cpu)) {
    *segment = (struct kvm_segment){.limit = 0xffff, .type = 3, .s = 1, .dpl = 3, .present = 1};
  } else if (n == SEG_CS) {
    segment->present = segment->s = 1;
  }
  segment->unusable = 0;
  segment->selector = (uint16_t)selector;
  segment->base = (uint64_t)selector << 4;
  soft_segment_changed(cpu, n);
}

static void check_data(soft_cpu *cpu, soft_descriptor d, unsigned selector, int vector) {
  unsigned type = soft_type(d), rpl = selector & 3;
  bool readable = (type & (SEGMENT_CODE | SEGMENT_WRITE)) != SEGMENT_CODE;
  bool inner = !soft_is_conforming(d) && (rpl > soft_dpl(d) || cpu->cpl > soft_dpl(d));
  if (soft_is_system(d) || !readable || inner) {
    soft_fault_selector(cpu, vector, selector);
  }
  if (!soft_present(d)) {
    soft_fault_selector(cpu, VECTOR_NP, selector);
  }
}

void soft_load_data(soft_cpu *cpu, int n, unsigned selector, int vector) {
  if (soft_is_null(selector)) {
    cpu->seg[n] = soft_null_segment(cpu, n, selector);
  } else {
    soft_descriptor d = soft_descriptor_need(cpu, selector, vector);
    check_data(cpu, d, selector, vector);
    soft_set_accessed(cpu, d);
    cpu->seg[n] = soft_segment_from(selector, d);
  }
  soft_segment_changed(cpu, n);
}

struct kvm_segment soft_stack_segment(soft_cpu *cpu, unsigned selector, unsigned cpl, int vector) {
  if (soft_is_null(selector)) {
    soft_fault_selector(cpu, vector, 0);
  }
  soft_descriptor d = soft_descriptor_need(cpu, selector, vector);
  bool writable = !soft_is_system(d) && !soft_is_code(d) && soft_type(d) & SEGMENT_WRITE;
  if (!writable || (selector & 3) != cpl || soft_dpl(d) != cpl) {
    soft_fault_selector(cpu, vector, selector);
  }
  if (!soft_present(d)) {
    soft_fault_selector(cpu, VECTOR_SS, selector);
  }
  soft_set_accessed(cpu, d);
  return soft_segment_from(selector, d);
}

void soft_load_segment(soft_cpu *cpu, int n, unsigned selector) {
  if (soft_is_real(cpu) || soft_is_vm86(cpu)) {
    soft_real_segment(cpu, n, selector);
  } else if (n != SEG_SS) {
    soft_load_data(cpu, n, selector, VECTOR_GP);
  } else {
    bool null =
        soft_is_null(selector) && soft_is_64(cpu) && cpu->cpl != 3 && (selector & 3) == cpu->cpl;
    cpu->seg[n] = null ? soft_null_segment(cpu, n, selector)
                       : soft_stack_segment(cpu, selector, cpu->cpl, VECTOR_GP);
    soft_segment_changed(cpu, n);
  }
}

soft_descriptor soft_code_descriptor(soft_cpu *cpu, unsigned selector) {
  if (soft_is_null(selector)) {
    soft_fault_selector(cpu, VECTOR_GP, 0);
  }
  soft_descriptor d = soft_descriptor_need(cpu, selector, VECTOR_GP);
  bool both = soft_is_long(cpu) && soft_is_long_code(d) && d.bits >> 54 & 1;
  if (!soft_is_code(d) || both) {
    soft_fault_selector(cpu, VECTOR_GP, selector);
  }
  return d;
}

bool soft_code_reaches(const soft_cpu *cpu, unsigned selector, soft_descriptor d, uint64_t offset) {
  return soft_is_long(cpu) && soft_is_long_code(d) ? soft_canonical(cpu, offset)
                                                   : offset <= soft_segment_from(selector, d).limit;
}

void soft_set_cs(soft_cpu *cpu, unsigned selector, soft_descriptor d, unsigned cpl, uint64_t rip) {
  cpu->seg[SEG_CS] = soft_segment_from((selector & ~3u) | cpl, d);
  cpu->rip = rip;
  cpu->cpl = (uint8_t)cpl;
  soft_tlb_select(cpu);
  soft_mode_changed(cpu);
}

/* The LDT's or a TSS's, whose base long mode keeps in 64 bits. */
static struct kvm_segment system_segment(soft_cpu *cpu, unsigned selector, soft_descriptor d) {
  uint64_t high = soft_descriptor_high(cpu, selector, d);
  struct kvm_segment segment = soft_segment_from(selector, d);
  segment.base |= high;
  if (soft_is_long(cpu) && !soft_canonical(cpu, segment.base)) {
    soft_fault_selector(cpu, VECTOR_GP, selector);
  }
  return segment;
}

void soft_load_ldt(soft_cpu *cpu, unsigned selector, int vector, int absent) {
  if (soft_is_null(selector)) {
    cpu->ldt = (struct kvm_segment){.selector = (uint16_t)selector, .unusable = 1};
    return;
  }
  if (selector & 4) {
    soft_fault_selector(cpu, vector, selector);
  }
  soft_descriptor d = soft_descriptor_need(cpu, selector, vector);
  if (!soft_is_system(d) || soft_type(d) != SYSTEM_LDT) {
    soft_fault_selector(cpu, vector, selector);
  }
  if (!soft_present(d)) {
    soft_fault_selector(cpu, absent, selector);
  }
  cpu->ldt = system_segment(cpu, selector, d);
}

void soft_load_tr(soft_cpu *cpu, unsigned selector) {
  if (soft_is_null(selector) || selector & 4) {
    soft_fault_selector(cpu, VECTOR_GP, selector);
  }
  soft_descriptor d = soft_descriptor_need(cpu, selector, VECTOR_GP);
  unsigned type = soft_type(d);
  if (!soft_is_system(d) || (type != SYSTEM_TSS && (type != SYSTEM_TSS16 || soft_is_long(cpu)))) {
    soft_fault_selector(cpu, VECTOR_GP, selector);
  }
  if (!soft_present(d)) {
    soft_fault_selector(cpu, VECTOR_NP, selector);
  }
  struct kvm_segment next = system_segment(cpu, selector, d);
  soft_store_system(cpu, d.linear + 5, (d.bits >> 40 & 0xff) | 2, 1);
  cpu->tr = next;
  cpu->tr.type |= 2;
}

void soft_tss_stack(soft_cpu *cpu, unsigned cpl, unsigned ist, unsigned *selector, uint64_t *sp) {
  bool wide = cpu->tr.type & 8;
  unsigned offset, size;
  if (soft_is_long(cpu)) {
    offset = ist ? 0x24 + (ist - 1) * 8 : 4 + cpl * 8;
    size = 8;
  } else {
    offset = wide ? 4 + cpl * 8 : 2 + cpl * 4;
    size = wide ? 6 : 4;
  }
  if (offset + size - 1 > cpu->tr.limit) {
    soft_fault_selector(cpu, VECTOR_TS, cpu->tr.selector);
  }
  uint64_t at = cpu->tr.base + offset;
  if (soft_is_long(cpu)) {
    *sp = soft_load_system(cpu, at, 8);
    *selector = cpl;
  } else {
    *sp = soft_load_system(cpu, at, size - 2);
    *selector = (unsigned)soft_load_system(cpu, at + size - 2, 2);
  }
}
