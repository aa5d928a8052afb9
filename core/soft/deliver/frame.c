/* SPDX-License-Identifier: MIT
 * A stack that is written to before it is in use: nothing of the CPU changes until all is there. */
#include "soft/deliver/deliver.h"

soft_frame soft_frame_on(const soft_cpu *cpu, const struct kvm_segment *stack, uint64_t sp,
                         unsigned size) {
  if (soft_is_long(cpu)) {
    bool flat = soft_is_64(cpu) || size == 8;
    return (soft_frame){flat ? 0 : stack->base,
                        flat        ? ~UINT64_C(0)
                        : stack->db ? 0xffffffff
                                    : 0xffff,
                        sp, size};
  }
  return (soft_frame){stack->base, stack->db ? 0xffffffff : 0xffff, sp, size};
}

void soft_frame_push(soft_cpu *cpu, soft_frame *frame, uint64_t value) {
  frame->sp = (frame->sp & ~frame->mask) | ((frame->sp - frame->size) & frame->mask);
  uint64_t linear = frame->base + (frame->sp & frame->mask);
  if (frame->mask != ~UINT64_C(0)) {
    linear &= 0xffffffff;
  }
  /* The rights are those of the privilege level that the stack is for. */
  soft_store_system(cpu, linear, value, frame->size);
}

void soft_frame_take(soft_cpu *cpu, const soft_frame *frame) {
  cpu->r[RSP] = frame->mask == 0xffffffff ? frame->sp & frame->mask : frame->sp;
}

void soft_frame_check(soft_cpu *cpu, const struct kvm_segment *stack, uint64_t sp, unsigned bytes) {
  uint64_t mask = stack->db ? 0xffffffff : 0xffff;
  uint64_t low = (sp - bytes) & mask, high = low + bytes - 1;
  bool down = (stack->type & 12) == 4;
  if (down ? low <= stack->limit || high > mask : high > stack->limit) {
    soft_fault_selector(cpu, VECTOR_SS, cpu->cpl == stack->dpl ? 0 : stack->selector);
  }
}
