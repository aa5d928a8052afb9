/* SPDX-License-Identifier: MIT
 * Through the IDT: gates of real, protected and long mode, stack switches, VM86's redirection. */
#include "soft/deliver/deliver.h"
#include "soft/flags.h"
#include "soft/vmx/vmx.h"

enum {
  GATE_INT16 = 6,
  GATE_TRAP16 = 7,
  GATE_INT = 14,
  GATE_TRAP = 15
};

/* What a gate says. */
typedef struct gate {
  unsigned type;
  unsigned dpl;
  unsigned selector;
  unsigned ist;
  uint64_t offset;
  uint64_t bits;
} gate;

static bool is_software(const soft_event *event) {
  return event->source == SOFT_FROM_INT || event->source == SOFT_FROM_INT3;
}

/* The flags that the handler's frame has: a fault's have RF, so that the instruction meets no
 * breakpoint when it runs again, or goes on (SDM volume 3, 18.3.1.1). */
static uint64_t pushed_flags(const soft_cpu *cpu, const soft_event *event) {
  uint64_t flags = soft_flags(cpu);
  bool trap =
      event->vector == VECTOR_DB || event->vector == VECTOR_BP || event->vector == VECTOR_OF;
  bool again = event->resumes || (event->source == SOFT_FROM_FAULT && !trap);
  return again ? flags | FLAG_RF : flags;
}

static void deliver_real(soft_cpu *cpu, const soft_event *event, uint64_t table, uint64_t flags,
                         uint64_t rip) {
  cpu->stage = LUNA_DELIVERY_GATE;
  uint64_t entry = soft_load_system(cpu, table + event->vector * 4u, 4), sp = cpu->r[RSP] & 0xffff;
  cpu->stage = LUNA_DELIVERY_FRAME;
  if (sp & 1 && sp < 6) { /* a word over the end of the stack's segment */
    soft_fault(cpu, VECTOR_SS, 0);
  }
  soft_frame frame = {cpu->seg[SEG_SS].base, 0xffff, cpu->r[RSP], 2};
  soft_frame_push(cpu, &frame, flags & 0xffff);
  soft_frame_push(cpu, &frame, cpu->seg[SEG_CS].selector);
  soft_frame_push(cpu, &frame, rip & 0xffff);
  cpu->r[RSP] = frame.sp;
  cpu->rip = entry & 0xffff;
  soft_real_segment(cpu, SEG_CS, (unsigned)(entry >> 16));
  soft_mode_changed(cpu);
}

/* VM86 with VME: whether the TSS sends INT n to the program's own table (SDM volume 3, 20.3.3). */
static bool is_redirected(soft_cpu *cpu, const soft_event *event) {
  if (!soft_is_vm86(cpu) || !(cpu->cr4 & CR4_VME) || event->source != SOFT_FROM_INT) {
    return false;
  }
  uint64_t map = soft_load_system(cpu, cpu->tr.base + 0x66, 2);
  uint64_t at = map - 32 + event->vector / 8u;
  if (map < 32 || at > cpu->tr.limit) {
    return false;
  }
  return !(soft_load_system(cpu, cpu->tr.base + at, 1) >> (event->vector & 7) & 1);
}

static void deliver_redirected(soft_cpu *cpu, const soft_event *event, uint64_t rip) {
  uint64_t flags = soft_flags(cpu);
  bool own = soft_iopl(cpu) == 3;
  if (!own) { /* VIF is shown as IF */
    flags = (flags & ~(uint64_t)FLAG_IF) | FLAG_IOPL | (flags & FLAG_VIF ? FLAG_IF : 0);
  }
  deliver_real(cpu, event, 0, flags, rip);
  cpu->rflags &= ~(uint64_t)(FLAG_TF | FLAG_RF | (own ? FLAG_IF : FLAG_VIF));
}

static gate read_gate(soft_cpu *cpu, const soft_event *event) {
  bool wide = soft_is_long(cpu);
  uint64_t at = cpu->idt.base + event->vector * (wide ? 16u : 8u);
  uint64_t bits = soft_load_system(cpu, at, 8);
  uint64_t high = wide ? soft_load_system(cpu, at + 8, 4) << 32 : 0;
  return (gate){.type = bits >> 40 & 31,
                .dpl = bits >> 45 & 3,
                .selector = bits >> 16 & 0xffff,
                .ist = wide ? bits >> 32 & 7 : 0,
                .offset = (bits & 0xffff) | (bits >> 48) << 16 | high,
                .bits = bits};
}

/* The error code of a fault on a gate has the IDT bit beside EXT. */
__attribute__((noreturn)) static void fault_gate(soft_cpu *cpu, int vector,
                                                 const soft_event *event) {
  soft_fault(cpu, vector, event->vector * 8u + 2 + !is_software(event));
}

static gate checked_gate(soft_cpu *cpu, const soft_event *event) {
  unsigned size = soft_is_long(cpu) ? 16 : 8;
  if (event->vector * size + size - 1 > cpu->idt.limit) {
    fault_gate(cpu, VECTOR_GP, event);
  }
  cpu->stage = LUNA_DELIVERY_GATE;
  gate found = read_gate(cpu, event);
  bool known = found.type == GATE_INT || found.type == GATE_TRAP;
  if (!soft_is_long(cpu)) {
    known |=
        found.type == GATE_INT16 || found.type == GATE_TRAP16 || found.type == SYSTEM_TASK_GATE;
  }
  if (!known || (is_software(event) && found.dpl < cpu->cpl)) {
    fault_gate(cpu, VECTOR_GP, event);
  }
  if (!(found.bits >> 47 & 1)) {
    fault_gate(cpu, VECTOR_NP, event);
  }
  if (found.type < 8) {
    found.offset &= 0xffff;
  }
  return found;
}

static soft_descriptor handler_code(soft_cpu *cpu, const gate *through) {
  if (soft_is_null(through->selector)) {
    soft_fault_selector(cpu, VECTOR_GP, 0);
  }
  soft_descriptor d = soft_descriptor_need(cpu, through->selector, VECTOR_GP);
  bool wrong = !soft_is_code(d) || soft_dpl(d) > cpu->cpl;
  if (soft_is_long(cpu)) {
    wrong |= !soft_is_long_code(d) || d.bits >> 54 & 1;
  }
  if (wrong) {
    soft_fault_selector(cpu, VECTOR_GP, through->selector);
  }
  if (!soft_present(d)) {
    soft_fault_selector(cpu, VECTOR_NP, through->selector);
  }
  return d;
}

/* The handler's stack: another one where the privilege level changes or the gate has an IST. */
static struct kvm_segment handler_stack(soft_cpu *cpu, const gate *through, unsigned cpl,
                                        uint64_t *sp) {
  bool inner = cpl < cpu->cpl;
  *sp = cpu->r[RSP];
  if (!inner && !through->ist) {
    return cpu->seg[SEG_SS];
  }
  unsigned selector;
  soft_tss_stack(cpu, cpl, through->ist, &selector, sp);
  if (!soft_is_long(cpu)) {
    return soft_stack_segment(cpu, selector, cpl, VECTOR_TS);
  }
  if (!soft_canonical(cpu, *sp)) {
    soft_fault_selector(cpu, VECTOR_SS, 0);
  }
  if (!inner) {
    return cpu->seg[SEG_SS];
  }
  return (struct kvm_segment){.selector = (uint16_t)cpl, .unusable = 1, .dpl = (uint8_t)cpl};
}

static void push_frame(soft_cpu *cpu, soft_frame *frame, const soft_event *event, bool outer,
                       uint64_t rip) {
  if (soft_is_vm86(cpu)) {
    static const uint8_t order[] = {SEG_GS, SEG_FS, SEG_DS, SEG_ES};
    for (int i = 0; i < 4; i++) {
      soft_frame_push(cpu, frame, cpu->seg[order[i]].selector);
    }
  }
  if (outer || soft_is_long(cpu)) {
    soft_frame_push(cpu, frame, cpu->seg[SEG_SS].selector);
    soft_frame_push(cpu, frame, cpu->r[RSP]);
  }
  soft_frame_push(cpu, frame, pushed_flags(cpu, event));
  soft_frame_push(cpu, frame, cpu->seg[SEG_CS].selector);
  soft_frame_push(cpu, frame, rip);
  if (event->has_error) {
    soft_frame_push(cpu, frame, event->error);
  }
}

static void deliver_protected(soft_cpu *cpu, const soft_event *event, uint64_t rip) {
  gate through = checked_gate(cpu, event);
  if (through.type == SYSTEM_TASK_GATE) {
    cpu->stage = LUNA_DELIVERY_TASK;
    soft_descriptor as_gate = {through.bits, 0};
    soft_task_gate(cpu, as_gate, event->vector * 8u, SOFT_TASK_CALL, rip);
    if (event->has_error) {
      uint64_t sp = cpu->r[RSP];
      soft_push(cpu, &sp, event->error, cpu->tr.type & 8 ? 4 : 2);
      soft_set_stack(cpu, sp);
    }
    return;
  }
  cpu->stage = LUNA_DELIVERY_CODE;
  soft_descriptor code = handler_code(cpu, &through);
  unsigned cpl = soft_is_conforming(code) ? cpu->cpl : soft_dpl(code);
  if (soft_is_vm86(cpu) && cpl) {
    soft_fault_selector(cpu, VECTOR_GP, through.selector);
  }
  cpu->stage = LUNA_DELIVERY_STACK;
  uint64_t sp;
  struct kvm_segment stack = handler_stack(cpu, &through, cpl, &sp);
  bool outer = cpl < cpu->cpl, from_vm86 = soft_is_vm86(cpu);
  soft_frame frame;
  if (soft_is_long(cpu)) {
    frame = (soft_frame){0, ~UINT64_C(0), sp & ~UINT64_C(15), 8};
  } else {
    unsigned size = through.type & 8 ? 4 : 2;
    frame = soft_frame_on(cpu, &stack, sp, size);
    soft_frame_check(cpu, &stack, sp,
                     size * (3u + (outer ? 2 : 0) + (from_vm86 ? 4 : 0) + event->has_error));
  }
  cpu->stage = LUNA_DELIVERY_CODE;
  if (!soft_code_reaches(cpu, through.selector, code, through.offset)) {
    soft_fault_selector(cpu, VECTOR_GP, 0);
  }
  cpu->stage = LUNA_DELIVERY_FRAME;
  push_frame(cpu, &frame, event, outer, rip);
  soft_set_accessed(cpu, code);
  bool masks = !(through.type & 1);
  cpu->rflags &= ~(uint64_t)(FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM | (masks ? FLAG_IF : 0));
  cpu->seg[SEG_SS] = stack;
  for (int i = SEG_ES; from_vm86 && i <= SEG_GS; i++) {
    if (i != SEG_CS && i != SEG_SS) {
      cpu->seg[i] = soft_null_segment(cpu, i, 0);
    }
  }
  soft_set_cs(cpu, through.selector, code, cpl, through.offset);
  soft_frame_take(cpu, &frame);
}

void soft_deliver(soft_cpu *cpu, soft_event event, uint64_t rip) {
  /* Its pushes may meet code or a device, and are not made again: not alone by themselves. */
  bool single = cpu->single;
  cpu->single = true;
  cpu->event = event;
  cpu->delivering = event.vector;
  soft_past_begin(cpu, &event, rip);
  if (event.source != SOFT_FROM_INT && event.source != SOFT_FROM_INT3) {
    cpu->current = NULL;
  }
  if (soft_is_real(cpu)) {
    if (event.vector * 4u + 3 > cpu->idt.limit) {
      soft_fault(cpu, VECTOR_GP, 0);
    }
    deliver_real(cpu, &event, cpu->idt.base, pushed_flags(cpu, &event), rip);
    cpu->rflags &= ~(uint64_t)(FLAG_IF | FLAG_TF | FLAG_AC | FLAG_RF);
  } else if (is_redirected(cpu, &event)) {
    deliver_redirected(cpu, &event, rip);
  } else {
    deliver_protected(cpu, &event, rip);
  }
  cpu->past[cpu->past_count % LUNA_LAST_EXCEPTIONS].stage = LUNA_DELIVERY_DONE;
  cpu->delivering = -1;
  cpu->single = single;
  cpu->trap_flag = false;
  soft_tlb_select(cpu);
}

void soft_software_interrupt(soft_cpu *cpu, unsigned vector, soft_source source, uint64_t rip) {
  soft_event event = {.vector = (uint8_t)vector, .source = source, .length = cpu->current->length};
  if (source != SOFT_FROM_INT && soft_unlikely(cpu->controlled)) {
    soft_vmx_exception(cpu, &event);
  }
  if (soft_is_vm86(cpu) && source == SOFT_FROM_INT && soft_iopl(cpu) < 3 &&
      !is_redirected(cpu, &event)) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
  soft_deliver(cpu, event, rip);
}
