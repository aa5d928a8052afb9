/* SPDX-License-Identifier: MIT
 * Segments, far transfers, and the way of interrupts and exceptions through the IDT (SDM volume 3,
 * chapters 5 to 8). */
#ifndef SOFT_DELIVER_H
#define SOFT_DELIVER_H

#include "soft/access.h"

/* A descriptor and where it lies. */
typedef struct soft_descriptor {
  uint64_t bits;
  uint64_t linear;
} soft_descriptor;

enum {
  SYSTEM_TSS16 = 1,
  SYSTEM_LDT = 2,
  SYSTEM_TSS16_BUSY = 3,
  SYSTEM_CALL16 = 4,
  SYSTEM_TASK_GATE = 5,
  SYSTEM_TSS = 9,
  SYSTEM_TSS_BUSY = 11,
  SYSTEM_CALL = 12,
  SEGMENT_CODE = 8,
  SEGMENT_CONFORMING = 4,
  SEGMENT_WRITE = 2, /* of code: may be read */
  SEGMENT_ACCESSED = 1
};

SOFT_INLINE unsigned soft_type(soft_descriptor d) {
  return d.bits >> 40 & 15;
}
SOFT_INLINE bool soft_is_system(soft_descriptor d) {
  return !(d.bits >> 44 & 1);
}
SOFT_INLINE unsigned soft_dpl(soft_descriptor d) {
  return d.bits >> 45 & 3;
}
SOFT_INLINE bool soft_present(soft_descriptor d) {
  return d.bits >> 47 & 1;
}
SOFT_INLINE bool soft_is_code(soft_descriptor d) {
  return !soft_is_system(d) && soft_type(d) & SEGMENT_CODE;
}
SOFT_INLINE bool soft_is_conforming(soft_descriptor d) {
  return soft_is_code(d) && soft_type(d) & SEGMENT_CONFORMING;
}
SOFT_INLINE bool soft_is_long_code(soft_descriptor d) {
  return d.bits >> 53 & 1;
}
SOFT_INLINE bool soft_is_null(unsigned selector) {
  return !(selector & ~3u);
}

/* ---- segment.c ---- */

/* A fault that names a selector; EXT is set where an event from outside is being delivered. */
__attribute__((noreturn)) void soft_fault_selector(soft_cpu *cpu, int vector, unsigned selector);
/* False where the selector lies outside its table. */
bool soft_descriptor_find(soft_cpu *cpu, unsigned selector, soft_descriptor *found);
soft_descriptor soft_descriptor_need(soft_cpu *cpu, unsigned selector, int vector);
/* Bits 63:32 of the address, from the second half that a system's descriptor has in long mode: #GP
 * unless that is there and of no type itself. */
uint64_t soft_descriptor_high(soft_cpu *cpu, unsigned selector, soft_descriptor d);
void soft_set_accessed(soft_cpu *cpu, soft_descriptor d);
struct kvm_segment soft_segment_from(unsigned selector, soft_descriptor d);
struct kvm_segment soft_null_segment(const soft_cpu *cpu, int n, unsigned selector);
/* Of real and VM86 mode. */
void soft_real_segment(soft_cpu *cpu, int n, unsigned selector);
/* As MOV and POP load data and stack segments. */
void soft_load_segment(soft_cpu *cpu, int n, unsigned selector);
/* A data segment of protected mode; `vector` is what a bad one raises. */
void soft_load_data(soft_cpu *cpu, int n, unsigned selector, int vector);
/* The stack of a privilege level; `vector` is what a bad one raises. */
struct kvm_segment soft_stack_segment(soft_cpu *cpu, unsigned selector, unsigned cpl, int vector);
/* The code segment's checks that all transfers share. */
soft_descriptor soft_code_descriptor(soft_cpu *cpu, unsigned selector);
/* Whether the segment has the offset: by its limit, or a canonical address of 64-bit code. */
bool soft_code_reaches(const soft_cpu *cpu, unsigned selector, soft_descriptor d, uint64_t offset);
/* The transfer itself. */
void soft_set_cs(soft_cpu *cpu, unsigned selector, soft_descriptor d, unsigned cpl, uint64_t rip);
/* `vector` for one that is no LDT, `absent` for one that is not present. */
void soft_load_ldt(soft_cpu *cpu, unsigned selector, int vector, int absent);
void soft_load_tr(soft_cpu *cpu, unsigned selector);
/* The stack that the TSS has for a privilege level, or long mode's IST. */
void soft_tss_stack(soft_cpu *cpu, unsigned cpl, unsigned ist, unsigned *selector, uint64_t *sp);

/* ---- frame.c: a stack that is not in use yet ---- */

typedef struct soft_frame {
  uint64_t base;
  uint64_t mask;
  uint64_t sp;
  unsigned size; /* of each element */
} soft_frame;

/* The stack in use, or what another segment would make of it. */
soft_frame soft_frame_on(const soft_cpu *cpu, const struct kvm_segment *stack, uint64_t sp,
                         unsigned size);
void soft_frame_push(soft_cpu *cpu, soft_frame *frame, uint64_t value);
/* Makes it the stack in use. */
void soft_frame_take(soft_cpu *cpu, const soft_frame *frame);
/* #SS unless `bytes` fit below the pointer. */
void soft_frame_check(soft_cpu *cpu, const struct kvm_segment *stack, uint64_t sp, unsigned bytes);

/* ---- The rest ---- */

/* interrupt.c: through the IDT; the handler returns to `rip`. Faults on the way are raised with
 * soft_cpu.delivering set. */
void soft_deliver(soft_cpu *cpu, soft_event event, uint64_t rip);
/* INT n, INT3 and INTO. */
void soft_software_interrupt(soft_cpu *cpu, unsigned vector, soft_source source, uint64_t rip);

/* past.c: the last exceptions and interrupts. Delivery of one begins; it has met another one, which
 * has made a triple fault of it; it is at its end. */
void soft_past_begin(soft_cpu *cpu, const soft_event *event, uint64_t rip);
void soft_past_met(soft_cpu *cpu, const soft_event *met);
void soft_past_shutdown(soft_cpu *cpu);

/* exception.c: delivers what soft_fault has raised, and makes double and triple faults of what
 * fails on the way. False for a triple fault. */
bool soft_take_exception(soft_cpu *cpu);

/* iret.c, far.c */
void soft_iret(soft_cpu *cpu, unsigned size);
void soft_ret_far(soft_cpu *cpu, unsigned size, unsigned extra);
/* JMP and CALL; `back` is where a call returns to, and where a task that is left goes on. */
void soft_jump_far(soft_cpu *cpu, unsigned selector, uint64_t offset, unsigned size, uint64_t back);
void soft_call_far(soft_cpu *cpu, unsigned selector, uint64_t offset, unsigned size, uint64_t back);
/* Data segments that the new privilege level may not use become null. */
void soft_drop_segments(soft_cpu *cpu);

/* task.c: 16- and 32-bit tasks. */
typedef enum soft_task_by {
  SOFT_TASK_JMP,
  SOFT_TASK_CALL, /* and interrupts through a task gate */
  SOFT_TASK_IRET
} soft_task_by;
/* `rip` goes into the old task. */
void soft_task_switch(soft_cpu *cpu, unsigned selector, soft_descriptor d, soft_task_by by,
                      uint64_t rip);
void soft_task_gate(soft_cpu *cpu, soft_descriptor gate, unsigned selector, soft_task_by by,
                    uint64_t rip);
void soft_task_return(soft_cpu *cpu, uint64_t rip);

#endif
