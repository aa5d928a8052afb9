/* SPDX-License-Identifier: MIT
 * Far jumps, calls and returns: segments, call gates, tasks. */
#include "soft/deliver/deliver.h"
#include "soft/flags.h"

static void check_real(soft_cpu *cpu, uint64_t offset, unsigned size) {
  if (soft_trim(offset, (int)size * 8) > cpu->seg[SEG_CS].limit) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
}

static void transfer_real(soft_cpu *cpu, unsigned selector, uint64_t offset, unsigned size) {
  cpu->rip = size == 2 ? offset & 0xffff : offset & 0xffffffff;
  soft_real_segment(cpu, SEG_CS, selector);
  soft_mode_changed(cpu);
}

static void check_code(soft_cpu *cpu, unsigned selector, soft_descriptor d) {
  unsigned dpl = soft_dpl(d);
  bool wrong =
      soft_is_conforming(d) ? dpl > cpu->cpl : dpl != cpu->cpl || (selector & 3) > cpu->cpl;
  if (!soft_is_code(d) || wrong ||
      (soft_is_long(cpu) && soft_is_long_code(d) && d.bits >> 54 & 1)) {
    soft_fault_selector(cpu, VECTOR_GP, selector);
  }
  if (!soft_present(d)) {
    soft_fault_selector(cpu, VECTOR_NP, selector);
  }
}

static void check_offset(soft_cpu *cpu, unsigned selector, soft_descriptor d, uint64_t offset) {
  if (!soft_code_reaches(cpu, selector, d, offset)) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
}

static void push_two(soft_cpu *cpu, uint64_t *sp, uint64_t back, unsigned size) {
  soft_push(cpu, sp, cpu->seg[SEG_CS].selector, size);
  soft_push(cpu, sp, back, size);
}

/* Up to 31 words go from the caller's stack to the handler's. */
static void copy_parameters(soft_cpu *cpu, soft_frame *frame, unsigned count) {
  for (unsigned i = count; i-- > 0;) {
    uint64_t from = cpu->r[RSP] + i * frame->size;
    soft_frame_push(cpu, frame, soft_pop(cpu, &from, frame->size));
  }
}

static void call_inner(soft_cpu *cpu, soft_descriptor gate, unsigned selector, soft_descriptor code,
                       uint64_t offset, unsigned size, uint64_t back) {
  unsigned cpl = soft_dpl(code), stack_selector;
  uint64_t sp;
  soft_tss_stack(cpu, cpl, 0, &stack_selector, &sp);
  struct kvm_segment stack =
      soft_is_long(cpu)
          ? (struct kvm_segment){.selector = (uint16_t)cpl, .unusable = 1, .dpl = (uint8_t)cpl}
          : soft_stack_segment(cpu, stack_selector, cpl, VECTOR_TS);
  soft_frame frame = soft_frame_on(cpu, &stack, sp, size);
  unsigned parameters = soft_is_long(cpu) ? 0 : gate.bits >> 32 & 31;
  if (soft_is_long(cpu)) {
    if (!soft_canonical(cpu, sp)) {
      soft_fault(cpu, VECTOR_SS, 0);
    }
    frame.base = 0;
    frame.mask = ~UINT64_C(0);
  } else {
    soft_frame_check(cpu, &stack, sp, size * (4 + parameters));
  }
  soft_frame_push(cpu, &frame, cpu->seg[SEG_SS].selector);
  soft_frame_push(cpu, &frame, cpu->r[RSP]);
  copy_parameters(cpu, &frame, parameters);
  soft_frame_push(cpu, &frame, cpu->seg[SEG_CS].selector);
  soft_frame_push(cpu, &frame, back);
  soft_set_accessed(cpu, code);
  cpu->seg[SEG_SS] = stack;
  soft_set_cs(cpu, selector, code, cpl, offset);
  soft_frame_take(cpu, &frame);
}

/* Through a call gate. */
static void transfer_gate(soft_cpu *cpu, soft_descriptor gate, unsigned gate_selector, bool call,
                          uint64_t back) {
  bool wide = soft_type(gate) == SYSTEM_CALL;
  unsigned size = soft_is_long(cpu) ? 8 : wide ? 4 : 2;
  if (!soft_present(gate)) {
    soft_fault_selector(cpu, VECTOR_NP, gate_selector);
  }
  unsigned selector = gate.bits >> 16 & 0xffff;
  uint64_t offset = (gate.bits & 0xffff) | (wide ? (gate.bits >> 48) << 16 : 0) |
                    soft_descriptor_high(cpu, gate_selector, gate);
  soft_descriptor code = soft_code_descriptor(cpu, selector);
  unsigned dpl = soft_dpl(code);
  bool inner = call && !soft_is_conforming(code) && dpl < cpu->cpl;
  bool wrong = dpl > cpu->cpl || (!call && !soft_is_conforming(code) && dpl != cpu->cpl) ||
               (soft_is_long(cpu) && !soft_is_long_code(code));
  if (wrong) {
    soft_fault_selector(cpu, VECTOR_GP, selector);
  }
  if (!soft_present(code)) {
    soft_fault_selector(cpu, VECTOR_NP, selector);
  }
  check_offset(cpu, selector, code, offset);
  if (inner) {
    call_inner(cpu, gate, selector, code, offset, size, back);
    return;
  }
  uint64_t sp = cpu->r[RSP];
  if (call) {
    push_two(cpu, &sp, back, size);
  }
  soft_set_accessed(cpu, code);
  soft_set_cs(cpu, selector, code, cpu->cpl, offset);
  if (call) {
    soft_set_stack(cpu, sp);
  }
}

static void transfer_system(soft_cpu *cpu, soft_descriptor d, unsigned selector, bool call,
                            uint64_t back) {
  unsigned type = soft_type(d);
  soft_task_by by = call ? SOFT_TASK_CALL : SOFT_TASK_JMP;
  if (soft_dpl(d) < cpu->cpl || soft_dpl(d) < (selector & 3)) {
    soft_fault_selector(cpu, VECTOR_GP, selector);
  }
  if (type == SYSTEM_CALL || (type == SYSTEM_CALL16 && !soft_is_long(cpu))) {
    transfer_gate(cpu, d, selector, call, back);
  } else if (soft_is_long(cpu)) {
    soft_fault_selector(cpu, VECTOR_GP, selector);
  } else if (type == SYSTEM_TASK_GATE) {
    soft_task_gate(cpu, d, selector, by, back);
  } else if ((type == SYSTEM_TSS || type == SYSTEM_TSS16) && !(selector & 4)) {
    soft_task_switch(cpu, selector, d, by, back);
  } else {
    soft_fault_selector(cpu, VECTOR_GP, selector);
  }
}

static void transfer(soft_cpu *cpu, unsigned selector, uint64_t offset, unsigned size, bool call,
                     uint64_t back) {
  uint64_t sp = cpu->r[RSP];
  selector &= 0xffff;
  if (soft_is_real(cpu) || soft_is_vm86(cpu)) {
    check_real(cpu, offset, size);
    if (call) {
      push_two(cpu, &sp, back, size);
      soft_set_stack(cpu, sp);
    }
    transfer_real(cpu, selector, offset, size);
    return;
  }
  if (soft_is_null(selector)) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
  soft_descriptor d = soft_descriptor_need(cpu, selector, VECTOR_GP);
  if (soft_is_system(d)) {
    transfer_system(cpu, d, selector, call, back);
    return;
  }
  check_code(cpu, selector, d);
  offset = soft_trim(offset, (int)size * 8);
  check_offset(cpu, selector, d, offset);
  if (call) {
    push_two(cpu, &sp, back, size);
  }
  soft_set_accessed(cpu, d);
  unsigned cpl = cpu->cpl;
  if (call) {
    soft_set_stack(cpu, sp);
  }
  soft_set_cs(cpu, selector, d, cpl, offset);
}

void soft_jump_far(soft_cpu *cpu, unsigned selector, uint64_t offset, unsigned size,
                   uint64_t back) {
  transfer(cpu, selector, offset, size, false, back);
}

void soft_call_far(soft_cpu *cpu, unsigned selector, uint64_t offset, unsigned size,
                   uint64_t back) {
  transfer(cpu, selector, offset, size, true, back);
}

void soft_ret_far(soft_cpu *cpu, unsigned size, unsigned extra) {
  uint64_t sp = cpu->r[RSP];
  uint64_t rip = soft_pop(cpu, &sp, size);
  unsigned selector = (unsigned)soft_pop(cpu, &sp, size) & 0xffff;
  sp += extra;
  if (soft_is_real(cpu) || soft_is_vm86(cpu)) {
    check_real(cpu, rip, size);
    soft_set_stack(cpu, sp);
    transfer_real(cpu, selector, rip, size);
    return;
  }
  soft_descriptor code = soft_code_descriptor(cpu, selector);
  unsigned rpl = selector & 3;
  bool wrong = soft_is_conforming(code) ? soft_dpl(code) > rpl : soft_dpl(code) != rpl;
  if (rpl < cpu->cpl || wrong) {
    soft_fault_selector(cpu, VECTOR_GP, selector);
  }
  if (!soft_present(code)) {
    soft_fault_selector(cpu, VECTOR_NP, selector);
  }
  check_offset(cpu, selector, code, rip);
  if (rpl == cpu->cpl) {
    soft_set_accessed(cpu, code);
    soft_set_stack(cpu, sp);
    soft_set_cs(cpu, selector, code, rpl, rip);
    return;
  }
  uint64_t new_sp = soft_pop(cpu, &sp, size);
  unsigned stack_selector = (unsigned)soft_pop(cpu, &sp, size) & 0xffff;
  bool to_64 = soft_is_long(cpu) && soft_is_long_code(code);
  struct kvm_segment stack = {
      .selector = (uint16_t)stack_selector, .unusable = 1, .dpl = (uint8_t)rpl};
  if (!soft_is_null(stack_selector) || !to_64 || rpl == 3) {
    stack = soft_stack_segment(cpu, stack_selector, rpl, VECTOR_GP);
  }
  soft_set_accessed(cpu, code);
  cpu->seg[SEG_SS] = stack;
  soft_set_cs(cpu, selector, code, rpl, rip);
  if (soft_is_64(cpu)) {
    cpu->r[RSP] = new_sp + extra;
  } else {
    soft_set_stack(cpu, new_sp + extra);
  }
  soft_drop_segments(cpu);
}
