/* SPDX-License-Identifier: MIT
 * Machine code of the host, piece by piece. REX is always there: with it the numbers of registers
 * of a byte are those of the others. */
#include "soft/decode/emit.h"

#include <string.h>

enum {
  FREE_HOSTS = 4, /* of `hosts`, that handlers may change; the others are saved */
  OPCODE_ADD = 0x03,
  OPCODE_CMP = 0x3b,
  OPCODE_STORE = 0x88,
  OPCODE_LOAD = 0x8b,
  OPCODE_MOVZX = 0xfb6,
  OPERATION_AND = 4,
  JUMP_NOT_EQUAL = 0x85,
  JUMP_GREATER = 0x8f,
  TLB_SHIFT = 5 /* of sizeof(soft_tlb) */
};

_Static_assert(sizeof(soft_tlb) == 1 << TLB_SHIFT, "as the code has it");

/* RBX, RBP, R12 and R13 belong to the loop's caller. Where the pieces need none, all are free. */
static const uint8_t hosts[SOFT_RUN_HOSTS] = {8, 9, 10, 11, 3, 5, 12, 13};
static const uint8_t plain_hosts[] = {0, 1, 2, 8, 9, 10, 11};

static const uint8_t *hosts_of(const soft_run *run) {
  return run->has_scratch ? hosts : plain_hosts;
}

unsigned soft_host_of(soft_run *run, unsigned guest, unsigned size, bool reads, bool writes) {
  unsigned i = 0, whole = size < 4 ? size : 8; /* a result of 4 bytes clears the others */
  while (i < run->used && run->guest[i] != guest) {
    i++;
  }
  if (i == (run->has_scratch ? sizeof hosts : sizeof plain_hosts)) {
    run->is_full = true;
    return hosts_of(run)[0];
  }
  if (i == run->used) {
    run->guest[i] = (uint8_t)guest;
    run->set[i] = (uint8_t)(reads ? 0 : whole);
    run->widest[i] = 0;
    run->changed[i] = false;
    run->used++;
  }
  run->widest[i] = (uint8_t)(whole > run->widest[i] ? whole : run->widest[i]);
  run->changed[i] |= writes;
  return hosts_of(run)[i];
}

void soft_emit(soft_run *run, unsigned byte) {
  run->bytes[run->size++] = (uint8_t)byte;
}

void soft_emit_number(soft_run *run, uint64_t number, unsigned size) {
  memcpy(run->bytes + run->size, &number, size);
  run->size += size;
}

static void put_opcode(soft_run *run, unsigned size, unsigned opcode, unsigned reg, unsigned index,
                       unsigned base) {
  if (size == 2) {
    soft_emit(run, 0x66);
  }
  soft_emit(run, 0x40 | (size == 8 ? 8u : 0) | reg >> 3 << 2 | index >> 3 << 1 | base >> 3);
  if (opcode >> 8) {
    soft_emit(run, opcode >> 8);
  }
  soft_emit(run, opcode);
}

void soft_emit_registers(soft_run *run, unsigned size, unsigned opcode, unsigned reg, unsigned rm) {
  put_opcode(run, size, opcode, reg, 0, rm);
  soft_emit(run, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

void soft_emit_memory(soft_run *run, unsigned size, unsigned opcode, unsigned reg, unsigned base,
                      int32_t displacement) {
  bool near = displacement == (int8_t)displacement;
  put_opcode(run, size, opcode, reg, 0, base);
  soft_emit(run, (near ? 0x40u : 0x80) | (reg & 7) << 3 | (base & 7));
  soft_emit_number(run, (uint64_t)displacement, near ? 1 : 4);
}

void soft_emit_immediate(soft_run *run, unsigned size, unsigned operation, unsigned rm,
                         uint64_t value) {
  soft_emit_registers(run, size, 0x80 | (size > 1), operation, rm);
  soft_emit_number(run, value, size < 4 ? size : 4);
}

void soft_emit_lea(soft_run *run, const soft_insn *insn, unsigned size, unsigned to) {
  bool has_base = insn->base != R_ZERO, has_index = insn->index != R_ZERO;
  unsigned reads = size < insn->address_size ? size : insn->address_size;
  unsigned base = has_base ? soft_host_of(run, insn->base, reads, true, false) : 5;
  unsigned index = has_index ? soft_host_of(run, insn->index, reads, true, false) : 4;
  put_opcode(run, size, 0x8d, to, index, base);
  soft_emit(run, (has_base ? 0x84u : 4) | (to & 7) << 3);
  soft_emit(run, (unsigned)insn->shift << 6 | (index & 7) << 3 | (base & 7));
  soft_emit_number(run, (uint64_t)insn->displacement, 4);
}

/* ---- The guest's memory ---- */

static void put_leave(soft_run *run, unsigned condition) {
  soft_emit(run, 0x0f);
  soft_emit(run, condition);
  run->leave[run->leaves].at = (uint16_t)run->size;
  run->leave[run->leaves++].to = (uint8_t)run->base;
  soft_emit_number(run, 0, 4);
}

/* RDX is the last byte's address. */
static void put_last(soft_run *run, unsigned size) {
  soft_emit_memory(run, 8, 0x8d, SOFT_HOST_D, SOFT_HOST_A, (int32_t)size - 1);
}

/* RAX, an offset, becomes the linear address. */
static void put_segment(soft_run *run, unsigned segment, unsigned size, soft_access access) {
  size_t last = access == SOFT_WRITE ? offsetof(soft_cpu, write_to) : offsetof(soft_cpu, read_to);
  size_t base = offsetof(soft_cpu, seg) + segment * sizeof(struct kvm_segment) +
                offsetof(struct kvm_segment, base);
  put_last(run, size);
  soft_emit_memory(run, 8, OPCODE_CMP, SOFT_HOST_D, SOFT_HOST_CPU,
                   (int32_t)(last + segment * sizeof(int64_t)));
  put_leave(run, JUMP_GREATER);
  soft_emit_memory(run, 4, OPCODE_ADD, SOFT_HOST_A, SOFT_HOST_CPU, (int32_t)base);
}

/* RAX, a linear address, becomes the host's (soft_quick_at). */
static void put_tlb(soft_run *run, unsigned size, soft_access access) {
  size_t page = access == SOFT_WRITE ? offsetof(soft_tlb, write) : offsetof(soft_tlb, read);
  soft_emit_registers(run, 4, OPCODE_STORE | 1, SOFT_HOST_A, SOFT_HOST_C);
  soft_emit_registers(run, 4, 0xc1, 5, SOFT_HOST_C); /* shr */
  soft_emit(run, 12 - TLB_SHIFT);
  soft_emit_immediate(run, 4, OPERATION_AND, SOFT_HOST_C, (SOFT_TLB_SIZE - 1) << TLB_SHIFT);
  soft_emit_memory(run, 8, OPCODE_ADD, SOFT_HOST_C, SOFT_HOST_CPU,
                   (int32_t)offsetof(soft_cpu, tlb));
  put_last(run, size);
  soft_emit_immediate(run, 8, OPERATION_AND, SOFT_HOST_D, ~UINT64_C(0xfff));
  soft_emit_memory(run, 8, OPCODE_CMP, SOFT_HOST_D, SOFT_HOST_C, (int32_t)page);
  put_leave(run, JUMP_NOT_EQUAL);
  soft_emit_memory(run, 8, OPCODE_ADD, SOFT_HOST_A, SOFT_HOST_C, (int32_t)offsetof(soft_tlb, add));
}

bool soft_emit_place(soft_run *run, const soft_insn *insn, unsigned size, soft_access access) {
  bool wide = insn->form == SOFT_FLAT || insn->form == SOFT_FLAT_INDEXED;
  if (insn->form == SOFT_SHORT || insn->displacement != (int64_t)(int32_t)insn->displacement) {
    return false;
  }
  bool based = insn->form == SOFT_BASED;
  soft_emit_lea(run, insn, wide || based ? 8 : 4, SOFT_HOST_A);
  if (based) {
    size_t base = offsetof(soft_cpu, seg) + insn->segment * sizeof(struct kvm_segment) +
                  offsetof(struct kvm_segment, base);
    soft_emit_memory(run, 8, OPCODE_ADD, SOFT_HOST_A, SOFT_HOST_CPU, (int32_t)base);
  } else if (insn->form == SOFT_SEGMENT_16) {
    soft_emit_registers(run, 4, OPCODE_MOVZX | 1, SOFT_HOST_A, SOFT_HOST_A);
  }
  if (insn->form >= SOFT_SEGMENT_32) {
    put_segment(run, insn->segment, size, access);
  }
  put_tlb(run, size, access);
  return true;
}

/* Leaves where the stack pointer of 16-bit code is not SP. */
static void put_stack_check(soft_run *run) {
  if (!run->checks_stack) {
    soft_emit_memory(run, 8, 0x81, 7, SOFT_HOST_CPU, (int32_t)offsetof(soft_cpu, stack_mask));
    soft_emit_number(run, 0xffff, 4);
    put_leave(run, JUMP_NOT_EQUAL);
    run->checks_stack = true;
  }
}

bool soft_emit_stack(soft_run *run, unsigned size, unsigned below, soft_access access) {
  bool narrow = run->kind == SOFT_MODE_16 && size == 2;
  bool flat = run->kind == SOFT_CODE_FLAT && size == 4;
  if (!narrow && !flat && (run->kind != SOFT_MODE_64 || size != 8)) {
    return false;
  }
  unsigned stack = soft_host_of(run, RSP, size, true, false);
  if (narrow) {
    put_stack_check(run);
  }
  soft_emit_registers(run, run->kind == SOFT_MODE_64 ? 8 : 4, 0x8d, SOFT_HOST_A, stack);
  run->bytes[run->size - 1] = (uint8_t)(0x84 | SOFT_HOST_A << 3); /* with SIB and displacement */
  soft_emit(run, 4 << 3 | (stack & 7));
  soft_emit_number(run, (uint64_t)0 - below, 4);
  if (narrow) {
    soft_emit_registers(run, 4, OPCODE_MOVZX | 1, SOFT_HOST_A, SOFT_HOST_A);
    put_segment(run, SEG_SS, size, access);
  }
  put_tlb(run, size, access);
  return true;
}

/* ---- The guest's registers ---- */

/* No more bytes than the run sees: those that short instructions have stored come to a load from
 * the host's store buffer only if it asks for no others. */
static void put_load(soft_run *code, unsigned size, unsigned host, unsigned guest) {
  unsigned opcode = size == 8 ? OPCODE_LOAD : size == 1 ? OPCODE_MOVZX : OPCODE_MOVZX | 1;
  soft_emit_memory(code, size == 8 ? 8 : 4, opcode, host, SOFT_HOST_CPU, (int32_t)guest * 8);
}

static void put_registers(soft_run *run) {
  for (unsigned i = 0; i < run->used; i++) {
    if (run->changed[i]) {
      unsigned size = run->widest[i];
      soft_emit_memory(run, size, OPCODE_STORE | (size > 1), hosts_of(run)[i], SOFT_HOST_CPU,
                       run->guest[i] * 8);
      run->changed[i] = false;
    }
  }
}

/* RSI or RAX is the instruction `count` behind the first. */
static void put_instruction(soft_run *run, unsigned reg, unsigned count) {
  put_opcode(run, 8, 0x8d, reg, 0, RSI);
  soft_emit(run, 0x80 | reg << 3 | RSI);
  soft_emit_number(run, count * sizeof(soft_insn), 4);
}

void soft_emit_commit(soft_run *run, unsigned next) {
  put_registers(run);
  put_instruction(run, SOFT_HOST_A, next);
  soft_emit_memory(run, 8, OPCODE_STORE | 1, SOFT_HOST_A, SOFT_HOST_CPU,
                   (int32_t)offsetof(soft_cpu, current));
  run->base = next;
}

static unsigned saved(const soft_run *run) {
  return run->has_scratch && run->used > FREE_HOSTS ? run->used - FREE_HOSTS : 0;
}

static void put_restore(soft_run *run) {
  for (unsigned i = saved(run); i-- > 0;) {
    unsigned host = hosts[FREE_HOSTS + i];
    soft_emit(run, 0x40 | host >> 3);
    soft_emit(run, 0x58 | (host & 7));
  }
}

static void put_jump(soft_run *run) {
  soft_emit(run, 0xff); /* jmp [rsi] */
  soft_emit(run, 0x26);
}

static void put_leaves(soft_run *run, soft_handler first) {
  for (unsigned i = 0; i < run->leaves;) {
    unsigned to = run->leave[i].to, here = run->size;
    for (; i < run->leaves && run->leave[i].to == to; i++) {
      uint32_t distance = here - run->leave[i].at - 4u;
      memcpy(run->bytes + run->leave[i].at, &distance, sizeof distance);
    }
    put_restore(run);
    if (to) {
      put_instruction(run, RSI, to);
      put_jump(run);
    } else { /* its record leads to this run */
      uint64_t handler;
      memcpy(&handler, &first, sizeof handler);
      soft_emit(run, 0x48); /* mov rax, handler; jmp rax */
      soft_emit(run, 0xb8);
      soft_emit_number(run, handler, 8);
      soft_emit(run, 0xff);
      soft_emit(run, 0xe0);
    }
  }
}

void soft_emit_end(soft_run *run, unsigned count, unsigned passed, soft_handler first) {
  put_registers(run);
  if (passed != SOFT_HOST_D) {
    soft_emit_registers(run, 8, OPCODE_STORE | 1, passed, SOFT_HOST_D);
  }
  put_restore(run);
  put_instruction(run, RSI, count);
  put_jump(run);
  put_leaves(run, first);
}

unsigned soft_emit_begin(const soft_run *run, soft_run *begin) {
  begin->size = 0;
  for (unsigned i = 0; i < saved(run); i++) {
    unsigned host = hosts[FREE_HOSTS + i];
    soft_emit(begin, 0x40 | host >> 3);
    soft_emit(begin, 0x50 | (host & 7));
  }
  if (run->leaves) {
    soft_emit_memory(begin, 8, OPCODE_STORE | 1, RSI, SOFT_HOST_CPU,
                     (int32_t)offsetof(soft_cpu, current));
  }
  for (unsigned i = 0; i < run->used; i++) {
    if (run->widest[i] > run->set[i]) {
      put_load(begin, run->widest[i], hosts_of(run)[i], run->guest[i]);
    }
  }
  return begin->size;
}
