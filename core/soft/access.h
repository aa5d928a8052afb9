/* SPDX-License-Identifier: MIT
 * The fast path of memory and register accesses. Sizes are constants where these are used, so that
 * each becomes one move. */
#ifndef SOFT_ACCESS_H
#define SOFT_ACCESS_H

#include "soft/insn.h"
#include "soft/mmu/mmu.h"

/* One access each: another vCPU may look at the same time. */
typedef volatile uint16_t __attribute__((may_alias, aligned(1))) soft_loose_16;
typedef volatile uint32_t __attribute__((may_alias, aligned(1))) soft_loose_32;
typedef volatile uint64_t __attribute__((may_alias, aligned(1))) soft_loose_64;

SOFT_INLINE uint64_t soft_peek(const void *host, int bits) {
  switch (bits) {
    case 8:
      return *(const volatile uint8_t *)host;
    case 16:
      return *(const soft_loose_16 *)host;
    case 32:
      return *(const soft_loose_32 *)host;
    default:
      return *(const soft_loose_64 *)host;
  }
}

SOFT_INLINE void soft_poke(void *host, uint64_t value, int bits) {
  switch (bits) {
    case 8:
      *(volatile uint8_t *)host = (uint8_t)value;
      break;
    case 16:
      *(soft_loose_16 *)host = (uint16_t)value;
      break;
    case 32:
      *(soft_loose_32 *)host = (uint32_t)value;
      break;
    default:
      *(soft_loose_64 *)host = value;
      break;
  }
}

SOFT_INLINE soft_tlb *soft_entry(const soft_cpu *cpu, uint64_t linear) {
  return &cpu->tlb[linear >> 12 & (SOFT_TLB_SIZE - 1)];
}

SOFT_INLINE void *soft_at(const soft_tlb *entry, uint64_t linear) {
  return (void *)(uintptr_t)(linear + entry->add);
}

/* The last byte's page: an access over a page's end meets another page's entry. */
SOFT_INLINE uint64_t soft_load(soft_cpu *cpu, uint64_t linear, int bits) {
  const soft_tlb *entry = soft_entry(cpu, linear);
  if (soft_likely(entry->read == ((linear + (uint64_t)(bits / 8) - 1) & ~UINT64_C(0xfff)))) {
    return soft_peek(soft_at(entry, linear), bits);
  }
  return soft_load_slow(cpu, linear, (unsigned)bits / 8);
}

/* The load of an instruction that stores to the same place: its faults are a store's. */
SOFT_INLINE uint64_t soft_load_modify(soft_cpu *cpu, uint64_t linear, int bits) {
  const soft_tlb *entry = soft_entry(cpu, linear);
  if (soft_unlikely(entry->read != ((linear + (uint64_t)(bits / 8) - 1) & ~UINT64_C(0xfff)))) {
    soft_page_check(cpu, linear, (unsigned)bits / 8, SOFT_WRITE);
  }
  return soft_load(cpu, linear, bits);
}

SOFT_INLINE void soft_store(soft_cpu *cpu, uint64_t linear, uint64_t value, int bits) {
  const soft_tlb *entry = soft_entry(cpu, linear);
  if (soft_likely(entry->write == ((linear + (uint64_t)(bits / 8) - 1) & ~UINT64_C(0xfff)))) {
    soft_poke(soft_at(entry, linear), value, bits);
  } else {
    soft_store_slow(cpu, linear, value, (unsigned)bits / 8);
  }
}

/* ---- Registers, by their byte offset ---- */

SOFT_INLINE uint64_t soft_get(const soft_cpu *cpu, unsigned offset, int bits) {
  return soft_peek((const uint8_t *)cpu->r + offset, bits);
}

/* A 32-bit result clears the upper half. */
SOFT_INLINE void soft_put(soft_cpu *cpu, unsigned offset, uint64_t value, int bits) {
  uint8_t *at = (uint8_t *)cpu->r + offset;
  if (bits == 32) {
    soft_poke(at, (uint32_t)value, 64);
  } else {
    soft_poke(at, value, bits);
  }
}

/* What the whole register is then; the upper part of one of 8 or 16 bits is anything. */
SOFT_INLINE uint64_t soft_whole(uint64_t value, int bits) {
  return bits == 32 ? (uint32_t)value : value;
}

SOFT_INLINE uint64_t soft_gpr(const soft_cpu *cpu, int number, int bits) {
  return soft_get(cpu, (unsigned)number * 8, bits);
}
SOFT_INLINE void soft_set_gpr(soft_cpu *cpu, int number, uint64_t value, int bits) {
  soft_put(cpu, (unsigned)number * 8, value, bits);
}

/* ---- Addresses ---- */

SOFT_INLINE uint64_t soft_linear(soft_cpu *cpu, unsigned segment, uint64_t offset, unsigned size,
                                 soft_access access) {
  if (soft_is_64(cpu)) {
    return segment >= SEG_FS ? cpu->seg[segment].base + offset : offset;
  }
  int64_t last = access == SOFT_WRITE ? cpu->write_to[segment] : cpu->read_to[segment];
  if (soft_likely((int64_t)(offset + size - 1) <= last)) {
    return (cpu->seg[segment].base + offset) & 0xffffffff;
  }
  return soft_linear_slow(cpu, segment, offset, size, access);
}

SOFT_INLINE uint64_t soft_offset(const soft_cpu *cpu, const soft_insn *insn) {
  return cpu->r[insn->base] + (cpu->r[insn->index] << insn->shift) + (uint64_t)insn->displacement;
}

SOFT_INLINE uint64_t soft_place(soft_cpu *cpu, const soft_insn *insn, uint64_t offset,
                                unsigned size, soft_access access) {
  switch (insn->form) {
    case SOFT_FLAT:
    case SOFT_FLAT_INDEXED:
      return offset;
    case SOFT_BASED:
      return offset + cpu->seg[insn->segment].base;
    case SOFT_SHORT:
      offset &= 0xffffffff;
      return insn->segment >= SEG_FS ? offset + cpu->seg[insn->segment].base : offset;
    case SOFT_SEGMENT_16:
      return soft_linear(cpu, insn->segment, offset & 0xffff, size, access);
    default:
      return soft_linear(cpu, insn->segment, offset & 0xffffffff, size, access);
  }
}

/* The linear address of the memory operand. From here on a fault points at the instruction. */
SOFT_INLINE uint64_t soft_address(soft_cpu *cpu, const soft_insn *insn, unsigned size,
                                  soft_access access) {
  uint64_t offset = soft_offset(cpu, insn);
  cpu->current = insn;
  if (soft_likely(insn->form <= SOFT_FLAT_INDEXED)) {
    return offset;
  }
  return soft_place(cpu, insn, offset, size, access);
}

/* Where a linear address is in the host; NULL where the TLB does not serve it. */
SOFT_INLINE void *soft_quick_at(const soft_cpu *cpu, uint64_t linear, unsigned size,
                                soft_access access) {
  const soft_tlb *entry = soft_entry(cpu, linear);
  uint64_t page = access == SOFT_WRITE ? entry->write : entry->read;
  if (soft_unlikely(page != ((linear + size - 1) & ~UINT64_C(0xfff)))) {
    return NULL;
  }
  void *host = soft_at(entry, linear);
  if (!host) { /* so that it is not asked for again */
    __builtin_unreachable();
  }
  return host;
}

/* From an offset to a linear address; false where the segment has to be looked at. */
SOFT_INLINE bool soft_quick_segment(const soft_cpu *cpu, const soft_insn *insn, unsigned size,
                                    soft_access access, uint64_t *at) {
  uint64_t base = cpu->seg[insn->segment].base;
  if (soft_likely(insn->form >= SOFT_SEGMENT_32)) {
    const int64_t *last = access == SOFT_WRITE ? cpu->write_to : cpu->read_to;
    *at &= insn->offset_mask;
    if (soft_unlikely((int64_t)(*at + size - 1) > last[insn->segment])) {
      return false;
    }
    *at = (*at + base) & 0xffffffff;
  } else if (insn->form != SOFT_FLAT_INDEXED) {
    bool based = insn->form != SOFT_FLAT_32_INDEXED && insn->segment >= SEG_FS;
    *at &= insn->form == SOFT_BASED ? ~UINT64_C(0) : 0xffffffff;
    *at += based ? base : 0;
  }
  return true;
}

/* Where the memory operand is in the host, and its linear address; NULL where the TLB or a segment
 * has to be looked at. It calls nothing, so that a handler around it saves no registers. */
SOFT_INLINE void *soft_quick_from(soft_cpu *cpu, const soft_insn *insn, uint64_t base,
                                  unsigned size, soft_access access, uint64_t *at) {
  uint64_t linear = base + (uint64_t)insn->displacement;
  cpu->current = insn;
  if (insn->form == SOFT_FLAT_32) {
    linear = (uint32_t)linear;
  } else if (insn->form != SOFT_FLAT) {
    linear += cpu->r[insn->index] << insn->shift;
    if (soft_unlikely(!soft_quick_segment(cpu, insn, size, access, &linear))) {
      return NULL;
    }
  }
  *at = linear;
  return soft_quick_at(cpu, linear, size, access);
}

SOFT_INLINE void *soft_quick_linear(soft_cpu *cpu, const soft_insn *insn, unsigned size,
                                    soft_access access, uint64_t *at) {
  return soft_quick_from(cpu, insn, cpu->r[insn->base], size, access, at);
}
SOFT_INLINE void *soft_quick(soft_cpu *cpu, const soft_insn *insn, unsigned size,
                             soft_access access) {
  uint64_t linear;
  return soft_quick_linear(cpu, insn, size, access, &linear);
}

/* The same of SOFT_SEGMENT_16. Registers are read as 16 bits: those that code of that width writes,
 * and whose store a wider load would have to wait for. */
SOFT_INLINE void *soft_quick_16(soft_cpu *cpu, const soft_insn *insn, unsigned size,
                                soft_access access) {
  uint64_t offset = soft_peek(&cpu->r[insn->base], 16) + soft_peek(&cpu->r[insn->index], 16);
  const int64_t *last = access == SOFT_WRITE ? cpu->write_to : cpu->read_to;
  offset = (offset + (uint64_t)insn->displacement) & 0xffff;
  cpu->current = insn;
  if (soft_unlikely((int64_t)(offset + size - 1) > last[insn->segment])) {
    return NULL;
  }
  uint64_t linear = (offset + cpu->seg[insn->segment].base) & 0xffffffff;
  return soft_quick_at(cpu, linear, size, access);
}

SOFT_INLINE uint64_t soft_rip_at(const soft_cpu *cpu, const soft_insn *insn) {
  return (cpu->r[R_BLOCK] + insn->offset) & cpu->ip_mask;
}
SOFT_INLINE uint64_t soft_rip_after(const soft_cpu *cpu, const soft_insn *insn) {
  return (cpu->r[R_BLOCK] + insn->offset + insn->length) & cpu->ip_mask;
}

/* ---- Operands ---- */

SOFT_INLINE uint64_t soft_from(soft_cpu *cpu, const soft_insn *insn, int bits) {
  if (insn->from_kind == SOFT_REGISTER) {
    return soft_get(cpu, insn->from, bits);
  }
  if (insn->from_kind == SOFT_IMMEDIATE) {
    return soft_peek(&insn->immediate, bits);
  }
  return soft_load(cpu, soft_address(cpu, insn, (unsigned)bits / 8, SOFT_READ), bits);
}

/* The destination, to be written back with soft_write_to. */
SOFT_INLINE uint64_t soft_read_to(soft_cpu *cpu, const soft_insn *insn, uint64_t *linear,
                                  soft_access access, int bits) {
  if (insn->to_kind == SOFT_REGISTER) {
    *linear = 0;
    return soft_get(cpu, insn->to, bits);
  }
  *linear = soft_address(cpu, insn, (unsigned)bits / 8, access);
  return soft_load_modify(cpu, *linear, bits);
}

SOFT_INLINE void soft_write_to(soft_cpu *cpu, const soft_insn *insn, uint64_t linear,
                               uint64_t value, int bits) {
  if (insn->to_kind == SOFT_REGISTER) {
    soft_put(cpu, insn->to, value, bits);
  } else {
    soft_store(cpu, linear, value, bits);
  }
}

SOFT_INLINE void soft_to(soft_cpu *cpu, const soft_insn *insn, uint64_t value, int bits) {
  if (insn->to_kind == SOFT_REGISTER) {
    soft_put(cpu, insn->to, value, bits);
  } else {
    soft_store(cpu, soft_address(cpu, insn, (unsigned)bits / 8, SOFT_WRITE), value, bits);
  }
}

/* ---- The stack ---- */

SOFT_INLINE void soft_set_stack(soft_cpu *cpu, uint64_t sp) {
  cpu->r[RSP] = (cpu->r[RSP] & cpu->stack_kept) | (sp & cpu->stack_mask);
}

SOFT_INLINE uint64_t soft_stack(soft_cpu *cpu, uint64_t sp, unsigned size, soft_access access) {
  if (soft_unlikely(!soft_is_64(cpu))) {
    return soft_linear(cpu, SEG_SS, sp & cpu->stack_mask, size, access);
  }
  if (soft_unlikely(!soft_canonical(cpu, sp))) { /* beside an operand of DS too */
    soft_fault(cpu, VECTOR_SS, 0);
  }
  return sp;
}

/* Of an instruction of that size: 16-bit code stores SP alone, for which a wider load would have to
 * wait. */
SOFT_INLINE uint64_t soft_quick_sp(const soft_cpu *cpu, unsigned size) {
  return size == 2 ? soft_peek(&cpu->r[RSP], 16) : cpu->r[RSP];
}

/* Where the stack is in the host, as soft_quick. Eight bytes are 64-bit code's, four are not, and
 * two are 16-bit code's. */
SOFT_INLINE void *soft_quick_stack(const soft_cpu *cpu, uint64_t sp, unsigned size,
                                   soft_access access) {
  if (size == 2 && soft_unlikely(cpu->stack_mask != 0xffff)) {
    return NULL;
  }
  if (size == 4 && soft_likely(cpu->flat)) {
    sp = (uint32_t)sp;
  } else if (size <= 4) {
    sp &= size == 2 ? 0xffff : cpu->stack_mask;
    int64_t last = access == SOFT_WRITE ? cpu->write_to[SEG_SS] : cpu->read_to[SEG_SS];
    if (soft_unlikely((int64_t)(sp + size - 1) > last)) {
      return NULL;
    }
    sp = (sp + cpu->seg[SEG_SS].base) & 0xffffffff;
  }
  return soft_quick_at(cpu, sp, size, access);
}

/* The stack pointer of an instruction of that size, whose access was quick. */
SOFT_INLINE void soft_set_quick_stack(soft_cpu *cpu, uint64_t sp, unsigned size) {
  if (size == 8) {
    cpu->r[RSP] = sp;
  } else if (size == 2) {
    soft_poke(&cpu->r[RSP], sp, 16);
  } else if (soft_likely(cpu->flat)) {
    cpu->r[RSP] = (uint32_t)sp;
  } else {
    soft_set_stack(cpu, sp);
  }
}

/* The registers change only when the instruction is done: *sp is a copy. */
SOFT_INLINE void soft_push(soft_cpu *cpu, uint64_t *sp, uint64_t value, unsigned size) {
  *sp -= size;
  uint64_t linear = soft_stack(cpu, *sp, size, SOFT_WRITE);
  if (size == 8) {
    soft_store(cpu, linear, value, 64);
  } else if (size == 4) {
    soft_store(cpu, linear, value, 32);
  } else {
    soft_store(cpu, linear, value, 16);
  }
}

SOFT_INLINE uint64_t soft_pop(soft_cpu *cpu, uint64_t *sp, unsigned size) {
  uint64_t linear = soft_stack(cpu, *sp, size, SOFT_READ);
  uint64_t value = size == 8   ? soft_load(cpu, linear, 64)
                   : size == 4 ? soft_load(cpu, linear, 32)
                               : soft_load(cpu, linear, 16);
  *sp += size;
  return value;
}

#endif
