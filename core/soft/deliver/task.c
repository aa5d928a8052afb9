/* SPDX-License-Identifier: MIT
 * Task switches between 16- and 32-bit tasks (SDM volume 3, 7.3). */
#include "soft/deliver/deliver.h"
#include "soft/execute/control.h"
#include "soft/flags.h"
#include "soft/vmx/vmx.h"

/* Where a TSS has its fields. */
typedef struct layout {
  unsigned size; /* of a register */
  unsigned limit;
  unsigned cr3; /* 0 where there is none */
  unsigned ip;
  unsigned flags;
  unsigned registers;
  unsigned segments; /* ES, CS, SS, DS, and FS, GS of a 32-bit task */
  unsigned segment_count;
  unsigned ldt;
} layout;

static const layout wide = {4, 0x67, 0x1c, 0x20, 0x24, 0x28, 0x48, 6, 0x60};
static const layout narrow = {2, 0x2b, 0, 0x0e, 0x10, 0x12, 0x22, 4, 0x2a};

static const layout *layout_of(unsigned type) {
  return type & 8 ? &wide : &narrow;
}

static void save(soft_cpu *cpu, const layout *use, uint64_t flags, uint64_t rip) {
  uint64_t at = cpu->tr.base;
  soft_store_system(cpu, at + use->ip, rip, use->size);
  soft_store_system(cpu, at + use->flags, flags, use->size);
  for (unsigned i = 0; i < 8; i++) {
    soft_store_system(cpu, at + use->registers + i * use->size, cpu->r[i], use->size);
  }
  for (unsigned i = 0; i < use->segment_count; i++) {
    soft_store_system(cpu, at + use->segments + i * use->size, cpu->seg[i].selector, 2);
  }
}

static void set_busy(soft_cpu *cpu, soft_descriptor d, bool busy) {
  uint64_t byte = soft_load_system(cpu, d.linear + 5, 1);
  soft_store_system(cpu, d.linear + 5, busy ? byte | 2 : byte & ~UINT64_C(2), 1);
}

static void set_own_busy(soft_cpu *cpu, bool busy) {
  soft_descriptor own;
  if (soft_descriptor_find(cpu, cpu->tr.selector, &own)) {
    set_busy(cpu, own, busy);
  }
}

/* The registers of the new task; segments follow, for they may fault in it. */
static void load(soft_cpu *cpu, const layout *use, unsigned *selectors) {
  uint64_t at = cpu->tr.base;
  bool right = true;
  if (use->cr3 && cpu->cr0 & CR0_PG) {
    right = soft_set_cr3(cpu, soft_load_system(cpu, at + use->cr3, 4));
  }
  cpu->rip = soft_load_system(cpu, at + use->ip, use->size);
  soft_set_flags(cpu, soft_load_system(cpu, at + use->flags, use->size) & FLAGS_ALL);
  for (unsigned i = 0; i < 8; i++) {
    cpu->r[i] = soft_load_system(cpu, at + use->registers + i * use->size, use->size);
  }
  for (unsigned i = 0; i < 6; i++) {
    selectors[i] = i < use->segment_count
                       ? (unsigned)soft_load_system(cpu, at + use->segments + i * use->size, 2)
                       : 0;
  }
  selectors[6] = (unsigned)soft_load_system(cpu, at + use->ldt, 2);
  if (!right) { /* PAE's pointers: in the new task */
    soft_fault(cpu, VECTOR_GP, 0);
  }
}

static void load_code(soft_cpu *cpu, unsigned selector) {
  if (soft_is_null(selector)) {
    soft_fault_selector(cpu, VECTOR_TS, selector);
  }
  soft_descriptor code = soft_descriptor_need(cpu, selector, VECTOR_TS);
  unsigned rpl = selector & 3;
  bool wrong = soft_is_conforming(code) ? soft_dpl(code) > rpl : soft_dpl(code) != rpl;
  if (!soft_is_code(code) || wrong) {
    soft_fault_selector(cpu, VECTOR_TS, selector);
  }
  if (!soft_present(code)) {
    soft_fault_selector(cpu, VECTOR_NP, selector);
  }
  soft_set_accessed(cpu, code);
  soft_set_cs(cpu, selector, code, rpl, cpu->rip);
}

static void load_segments(soft_cpu *cpu, const unsigned *selectors) {
  static const uint8_t data[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
  for (int i = SEG_ES; i <= SEG_GS; i++) {
    cpu->seg[i] = soft_null_segment(cpu, i, selectors[i]);
  }
  soft_load_ldt(cpu, selectors[6], VECTOR_TS, VECTOR_TS);
  if (soft_is_vm86(cpu)) {
    for (int i = SEG_ES; i <= SEG_GS; i++) {
      soft_real_segment(cpu, i, selectors[i]);
    }
    soft_set_cpl(cpu, 3);
    soft_mode_changed(cpu);
    return;
  }
  load_code(cpu, selectors[SEG_CS]);
  cpu->seg[SEG_SS] = soft_stack_segment(cpu, selectors[SEG_SS], cpu->cpl, VECTOR_TS);
  soft_segment_changed(cpu, SEG_SS);
  for (int i = 0; i < 4; i++) {
    soft_load_data(cpu, data[i], selectors[data[i]], VECTOR_TS);
  }
}

/* SDM volume 3, 26.4.2: CALL, IRET, JMP, or a gate in the IDT. */
__attribute__((noreturn)) static void exit_task(soft_cpu *cpu, unsigned selector, soft_task_by by) {
  uint64_t source = by == SOFT_TASK_IRET ? 1 : by == SOFT_TASK_JMP ? 2 : 0;
  source = cpu->delivering >= 0 ? 3 : source;
  soft_vmx_begin(cpu, VMX_REASON_TASK, selector | source << 30);
  soft_vmx_leave(cpu);
}

void soft_task_switch(soft_cpu *cpu, unsigned selector, soft_descriptor d, soft_task_by by,
                      uint64_t rip) {
  bool busy = soft_type(d) & 2;
  if (!soft_present(d)) {
    soft_fault_selector(cpu, VECTOR_NP, selector);
  }
  if (busy != (by == SOFT_TASK_IRET)) {
    soft_fault_selector(cpu, by == SOFT_TASK_IRET ? VECTOR_TS : VECTOR_GP, selector);
  }
  const layout *use = layout_of(soft_type(d));
  struct kvm_segment next = soft_segment_from(selector, d);
  if (next.limit < use->limit) {
    soft_fault_selector(cpu, VECTOR_TS, selector);
  }
  if (soft_unlikely(cpu->controlled)) {
    exit_task(cpu, selector, by);
  }
  uint64_t flags = soft_flags(cpu);
  if (by == SOFT_TASK_IRET) {
    flags &= ~(uint64_t)FLAG_NT;
  }
  save(cpu, layout_of(cpu->tr.type), flags, rip);
  if (by != SOFT_TASK_CALL) {
    set_own_busy(cpu, false);
  } else {
    soft_store_system(cpu, next.base, cpu->tr.selector, 2);
  }
  if (by != SOFT_TASK_IRET) {
    set_busy(cpu, d, true);
  }
  unsigned selectors[7];
  cpu->tr = next;
  cpu->tr.type |= 2;
  cpu->current = NULL; /* what faults from here on faults in the new task */
  load(cpu, use, selectors);
  if (by == SOFT_TASK_CALL) {
    cpu->rflags |= FLAG_NT;
  }
  cpu->cr0 |= CR0_TS;
  cpu->vector_ready = 0;
  cpu->dr[7] &= ~UINT64_C(0x155); /* the local breakpoints */
  soft_watch_changed(cpu);
  bool traps = use == &wide && soft_load_system(cpu, next.base + 0x64, 2) & 1;
  load_segments(cpu, selectors);
  if (traps) {
    cpu->pending_debug |= DR6_BT;
  }
}

void soft_task_gate(soft_cpu *cpu, soft_descriptor gate, unsigned selector, soft_task_by by,
                    uint64_t rip) {
  if (!soft_present(gate)) {
    soft_fault_selector(cpu, VECTOR_NP, selector);
  }
  unsigned task = gate.bits >> 16 & 0xffff;
  if (task & 4) {
    soft_fault_selector(cpu, VECTOR_GP, task);
  }
  soft_descriptor d = soft_descriptor_need(cpu, task, VECTOR_GP);
  unsigned type = soft_type(d);
  if (!soft_is_system(d) || (type != SYSTEM_TSS && type != SYSTEM_TSS16)) {
    soft_fault_selector(cpu, VECTOR_GP, task);
  }
  soft_task_switch(cpu, task, d, by, rip);
}

void soft_task_return(soft_cpu *cpu, uint64_t rip) {
  unsigned selector = (unsigned)soft_load_system(cpu, cpu->tr.base, 2);
  if (selector & 4) {
    soft_fault_selector(cpu, VECTOR_TS, selector);
  }
  soft_descriptor d = soft_descriptor_need(cpu, selector, VECTOR_TS);
  unsigned type = soft_type(d);
  if (!soft_is_system(d) || (type != SYSTEM_TSS_BUSY && type != SYSTEM_TSS16_BUSY)) {
    soft_fault_selector(cpu, VECTOR_TS, selector);
  }
  soft_task_switch(cpu, selector, d, SOFT_TASK_IRET, rip);
}
