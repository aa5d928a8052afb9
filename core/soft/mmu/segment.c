/* SPDX-License-Identifier: MIT
 * What a segment lets an access do (SDM volume 3, 5.3 and 5.4). */
#include "soft/insn.h"
#include "soft/mmu/mmu.h"

static bool has_rights(const soft_cpu *cpu, const struct kvm_segment *segment, soft_access access) {
  if (segment->unusable) {
    return false;
  }
  if (soft_is_real(cpu) || soft_is_vm86(cpu)) {
    return true;
  }
  bool code = segment->type & 8, second = segment->type & 2;
  return access == SOFT_WRITE ? !code && second : !code || second;
}

static bool expands_down(const struct kvm_segment *segment) {
  return (segment->type & 12) == 4;
}

static void set_reach(soft_cpu *cpu, int n) {
  const struct kvm_segment *segment = &cpu->seg[n];
  bool plain = !expands_down(segment);
  cpu->read_to[n] = plain && has_rights(cpu, segment, SOFT_READ) ? (int64_t)segment->limit : -1;
  cpu->write_to[n] = plain && has_rights(cpu, segment, SOFT_WRITE) ? (int64_t)segment->limit : -1;
}

static void set_stack(soft_cpu *cpu) {
  bool narrow = !soft_is_64(cpu) && !cpu->seg[SEG_SS].db;
  cpu->stack_mask = soft_is_64(cpu) ? ~UINT64_C(0) : narrow ? 0xffff : 0xffffffff;
  cpu->stack_kept = narrow ? ~UINT64_C(0xffff) : 0;
}

static bool is_whole(const soft_cpu *cpu, int n) {
  return cpu->write_to[n] == 0xffffffff && cpu->read_to[n] == 0xffffffff && !cpu->seg[n].base;
}

static bool is_flat(const soft_cpu *cpu) {
  return cpu->mode == SOFT_MODE_32 && cpu->seg[SEG_SS].db && is_whole(cpu, SEG_DS) &&
         is_whole(cpu, SEG_SS) && is_whole(cpu, SEG_ES);
}

void soft_segments_changed(soft_cpu *cpu) {
  for (int i = SEG_ES; i <= SEG_GS; i++) {
    set_reach(cpu, i);
  }
  set_stack(cpu);
  cpu->flat = is_flat(cpu);
}

/* The instruction that does it ends its block, for the next ones may be decoded otherwise. */
void soft_segment_changed(soft_cpu *cpu, int n) {
  set_reach(cpu, n);
  set_stack(cpu);
  if (cpu->flat != is_flat(cpu)) {
    cpu->flat = !cpu->flat;
    soft_links_select(cpu);
  }
}

uint64_t soft_linear_slow(soft_cpu *cpu, unsigned number, uint64_t offset, unsigned size,
                          soft_access access) {
  const struct kvm_segment *segment = &cpu->seg[number];
  uint64_t last = offset + size - 1;
  bool inside = expands_down(segment)
                    ? offset > segment->limit && last <= (segment->db ? 0xffffffff : 0xffff)
                    : last <= segment->limit;
  if (!inside || !has_rights(cpu, segment, access)) {
    soft_fault(cpu, number == SEG_SS ? VECTOR_SS : VECTOR_GP, 0);
  }
  return (segment->base + offset) & 0xffffffff;
}
