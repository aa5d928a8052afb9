/* SPDX-License-Identifier: MIT
 * Machine code for the runs of a hot block: moves, sums and accesses to memory in a row. The
 * guest's registers that they use are loaded, the host's processor does the same instructions on
 * its own, and what has changed is stored behind the last: there is one handler to go to instead of
 * many, and a result is where the next one needs it. An access that the TLB does not serve undoes
 * what was done since the last store to memory, and leaves it to the handlers (emit.h). */
#include "soft/decode/emit.h"
#include "soft/vector/stub.h"

#include <string.h>

enum {
  ROOM = 300, /* bytes that one instruction takes at most */
  END = 700   /* and what is behind the last */
};

/* What an instruction is to a run. */
typedef enum native_kind {
  NATIVE_NONE,
  NATIVE_LEA,
  NATIVE_ALU, /* MOV too */
  NATIVE_EXTEND,
  NATIVE_PUSH,
  NATIVE_POP
} native_kind;

static unsigned index_of(const soft_insn *insn) {
  return soft_size_index(insn->size * 8u);
}

static bool fits(uint64_t value, unsigned size) {
  return size < 8 || (uint64_t)(int64_t)(int32_t)value == value;
}

/* Not AH to BH. */
static bool is_plain(unsigned kind, unsigned offset) {
  return kind != SOFT_REGISTER || offset % 8 == 0;
}

static bool is_lea(const soft_insn *insn) {
  return insn->takes == soft_op_lea_takes[index_of(insn)];
}

static bool has_memory(const soft_insn *insn) {
  return insn->to_kind == SOFT_MEMORY || insn->from_kind == SOFT_MEMORY;
}

static bool is_alu(const soft_insn *insn) {
  bool carries = insn->extra == SOFT_ADC || insn->extra == SOFT_SBB;
  bool compares = insn->extra == SOFT_CMP || insn->extra == SOFT_TEST;
  return !carries && !insn->locked && (!compares || has_memory(insn)) &&
         is_plain(insn->to_kind, insn->to) && is_plain(insn->from_kind, insn->from) &&
         (insn->from_kind != SOFT_IMMEDIATE || fits(insn->immediate, insn->size));
}

/* The opcode of MOVZX and its relatives, whose source it tells the size of; 0 for none. */
static unsigned extension_of(const soft_insn *insn, unsigned *size) {
  unsigned index = index_of(insn);
  const struct {
    soft_handler handler;
    unsigned opcode, size;
  } all[] = {{soft_op_movzx8[index], 0xfb6, 1},
             {soft_op_movzx16[index], 0xfb7, 2},
             {soft_op_movsx8[index], 0xfbe, 1},
             {soft_op_movsx16[index], 0xfbf, 2},
             {soft_op_movsx32[3], 0x63, 4}};
  for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
    if (insn->run == all[i].handler) {
      *size = all[i].size;
      return is_plain(insn->from_kind, insn->from) ? all[i].opcode : 0;
    }
  }
  return 0;
}

static native_kind kind_of(const soft_insn *insn) {
  unsigned size, stack = soft_size_index(insn->operand_size * 8u);
  if (insn->chooses) {
    if (is_lea(insn)) {
      bool whole = insn->address_size >= insn->size && fits((uint64_t)insn->displacement, 8);
      return whole ? NATIVE_LEA : NATIVE_NONE;
    }
    return is_alu(insn) ? NATIVE_ALU : NATIVE_NONE;
  }
  if (insn->run == soft_op_push_register[stack]) {
    return NATIVE_PUSH;
  }
  if (insn->run == soft_op_pop[stack] && insn->to_kind == SOFT_REGISTER) {
    return NATIVE_POP;
  }
  return extension_of(insn, &size) ? NATIVE_EXTEND : NATIVE_NONE;
}

static bool writes_memory(const soft_insn *insn, native_kind kind) {
  return kind == NATIVE_PUSH || (kind == NATIVE_ALU && insn->to_kind == SOFT_MEMORY &&
                                 insn->extra != SOFT_CMP && insn->extra != SOFT_TEST);
}

static bool may_leave(const soft_insn *insn, native_kind kind) {
  return kind == NATIVE_PUSH || kind == NATIVE_POP || (kind != NATIVE_LEA && has_memory(insn));
}

static bool writes_flags(const soft_insn *insn, native_kind kind) {
  return kind == NATIVE_ALU && insn->extra != SOFT_MOV;
}

/* ---- Flags ---- */

/* What the whole block tells (polish.c). */
static bool is_quiet(const soft_insn *insn) {
  bool immediate = insn->from_kind == SOFT_IMMEDIATE;
  return insn->effect == SOFT_EFFECT_ALL &&
         insn->takes == soft_op_quiet[insn->extra][index_of(insn)][immediate];
}

/* Whether something sees those of instruction `i` of a run of so many: not where others take their
 * place, and nothing in between leaves the run to anywhere but before it. */
static bool wants_flags(const soft_insn *first, unsigned i, unsigned count) {
  if (is_quiet(first + i)) {
    return false;
  }
  bool stored = writes_memory(first + i, NATIVE_ALU);
  for (unsigned k = i + 1; k < count; k++) {
    native_kind kind = kind_of(first + k);
    if (stored && may_leave(first + k, kind)) {
      return true;
    }
    if (writes_flags(first + k, kind)) {
      return false;
    }
    stored |= writes_memory(first + k, kind);
  }
  return true;
}

static void put_field(soft_run *run, unsigned size, unsigned reg, size_t offset) {
  soft_emit_memory(run, size, 0x89, reg, SOFT_HOST_CPU, (int32_t)offset);
}

/* SF, ZF and PF (soft_set_result); RAX is free. */
static void put_result(soft_run *run, unsigned size, unsigned result) {
  static const unsigned extensions[] = {0xfbe, 0xfbf, 0x63};
  unsigned wide = result;
  if (size < 8) {
    wide = SOFT_HOST_A;
    soft_emit_registers(run, 8, extensions[soft_size_index(size * 8)], wide, result);
  }
  put_field(run, 8, wide, offsetof(soft_cpu, result));
  soft_emit_registers(run, 4, 0xfb6, SOFT_HOST_A, result);
  put_field(run, 4, SOFT_HOST_A, offsetof(soft_cpu, parity));
}

static void put_zero(soft_run *run, unsigned size, size_t offset) {
  soft_emit_memory(run, size, 0xc7, 0, SOFT_HOST_CPU, (int32_t)offset);
  soft_emit_number(run, 0, 4);
}

/* An operand of an operation: a register of the host, or the instruction's immediate. */
typedef struct operand {
  bool is_immediate;
  unsigned host;
  uint64_t immediate;
} operand;

static void put_operation(soft_run *run, unsigned size, unsigned operation, unsigned to,
                          operand from) {
  if (from.is_immediate) {
    soft_emit_immediate(run, size, operation, to, from.immediate);
  } else {
    soft_emit_registers(run, size, operation * 8 | (size > 1), from.host, to);
  }
}

/* The result to memory at RAX. */
static void put_back(soft_run *run, const soft_insn *insn, unsigned result) {
  if (writes_memory(insn, NATIVE_ALU)) {
    soft_emit_memory(run, insn->size, 0x88 | (insn->size > 1), result, SOFT_HOST_A, 0);
  }
}

/* The operation and its flags. What goes into each bit of a sum or difference is the exclusive or
 * of its operands and itself; shifted right by one, with CF on top, that is what comes out of each
 * (flags.h). */
static void put_with_flags(soft_run *run, const soft_insn *insn, unsigned operation, unsigned to,
                           operand from) {
  unsigned size = insn->size;
  bool carries = operation == SOFT_ADD || operation == SOFT_SUB;
  if (carries) {
    soft_emit_registers(run, 8, 0x89, to, SOFT_HOST_C);
    put_operation(run, size == 8 ? 8 : 4, SOFT_XOR, SOFT_HOST_C, from);
  }
  put_operation(run, size, operation, to, from);
  put_back(run, insn, to);
  if (carries) {
    soft_emit_registers(run, 4, 0x19, SOFT_HOST_A, SOFT_HOST_A); /* sbb: CF is in each bit */
    soft_emit_registers(run, 8, 0x31, to, SOFT_HOST_C);
    soft_emit_registers(run, 4, 0x01, SOFT_HOST_A, SOFT_HOST_A);       /* add: is CF */
    soft_emit_registers(run, size, 0xd0 | (size > 1), 3, SOFT_HOST_C); /* rcr */
    put_field(run, 4, SOFT_HOST_C, offsetof(soft_cpu, adjust));
    if (size < 8) {
      soft_emit_registers(run, 8, 0xc1, 4, SOFT_HOST_C); /* shl */
      soft_emit(run, 64 - 8 * size);
    }
    put_field(run, 8, SOFT_HOST_C, offsetof(soft_cpu, carry));
  } else {
    put_zero(run, 8, offsetof(soft_cpu, carry));
    put_zero(run, 4, offsetof(soft_cpu, adjust));
  }
  put_result(run, size, to);
}

/* ---- Instructions ---- */

static unsigned to_host(soft_run *run, const soft_insn *insn, bool reads) {
  return soft_host_of(run, insn->to / 8, insn->size, reads, true);
}

static operand from_operand(soft_run *run, const soft_insn *insn) {
  operand from = {.is_immediate = insn->from_kind == SOFT_IMMEDIATE};
  if (from.is_immediate) {
    from.immediate = insn->immediate;
  } else {
    from.host = soft_host_of(run, insn->from / 8, insn->size, true, false);
  }
  return from;
}

/* What it reads is asked for before what it writes. */
static void put_lea(soft_run *run, const soft_insn *insn) {
  const unsigned parts[] = {insn->base, insn->index};
  for (unsigned i = 0; i < 2; i++) {
    if (parts[i] != R_ZERO) {
      soft_host_of(run, parts[i], insn->size, true, false);
    }
  }
  soft_emit_lea(run, insn, insn->size, to_host(run, insn, false));
}

/* What is read of memory at RAX, as a register. */
static void put_read(soft_run *run, unsigned size, unsigned to) {
  unsigned opcode = size == 1 ? 0xfb6 : size == 2 ? 0xfb7 : 0x8b;
  soft_emit_memory(run, size == 8 ? 8 : 4, opcode, to, SOFT_HOST_A, 0);
}

static void put_move(soft_run *run, const soft_insn *insn) {
  unsigned size = insn->size, wide = size > 1;
  if (insn->from_kind == SOFT_MEMORY) {
    soft_emit_memory(run, size, 0x8a | wide, to_host(run, insn, false), SOFT_HOST_A, 0);
    return;
  }
  operand from = from_operand(run, insn);
  bool to_memory = insn->to_kind == SOFT_MEMORY;
  unsigned to = to_memory ? SOFT_HOST_A : to_host(run, insn, false);
  unsigned opcode = from.is_immediate ? 0xc6 | wide : 0x88 | wide, reg = from.host;
  if (to_memory) {
    soft_emit_memory(run, size, opcode, reg, to, 0);
  } else {
    soft_emit_registers(run, size, opcode, reg, to);
  }
  if (from.is_immediate) {
    soft_emit_number(run, from.immediate, size < 4 ? size : 4);
  }
}

/* A comparison's difference, and what goes back to memory, are in RDX. */
static void put_alu(soft_run *run, const soft_insn *insn, bool flags) {
  bool compares = insn->extra == SOFT_CMP || insn->extra == SOFT_TEST;
  unsigned operation = insn->extra == SOFT_CMP    ? SOFT_SUB
                       : insn->extra == SOFT_TEST ? SOFT_AND
                                                  : insn->extra;
  operand from = {.host = SOFT_HOST_A};
  unsigned to = SOFT_HOST_D;
  if (insn->from_kind == SOFT_MEMORY) {
    put_read(run, insn->size, SOFT_HOST_A);
  } else {
    from = from_operand(run, insn);
  }
  if (insn->to_kind == SOFT_MEMORY) {
    put_read(run, insn->size, to);
  } else if (compares) {
    unsigned host = soft_host_of(run, insn->to / 8, insn->size, true, false);
    soft_emit_registers(run, 8, 0x89, host, to);
  } else {
    to = to_host(run, insn, true);
  }
  if (flags) {
    put_with_flags(run, insn, operation, to, from);
  } else {
    put_operation(run, insn->size, operation, to, from);
    put_back(run, insn, to);
  }
}

static void put_extension(soft_run *run, const soft_insn *insn) {
  unsigned size, opcode = extension_of(insn, &size);
  if (insn->from_kind == SOFT_MEMORY) {
    soft_emit_memory(run, insn->size, opcode, to_host(run, insn, false), SOFT_HOST_A, 0);
  } else {
    unsigned from = soft_host_of(run, insn->from / 8, size, true, false);
    soft_emit_registers(run, insn->size, opcode, to_host(run, insn, false), from);
  }
}

/* The stack pointer is changed behind the store of a push, and before the load of a pop. */
static void put_stack(soft_run *run, const soft_insn *insn, native_kind kind) {
  unsigned size = insn->operand_size;
  unsigned stack = soft_host_of(run, RSP, size, true, true);
  if (kind == NATIVE_PUSH) {
    unsigned from = soft_host_of(run, insn->from / 8, size, true, false);
    soft_emit_memory(run, size, 0x89, from, SOFT_HOST_A, 0);
    soft_emit_immediate(run, size, SOFT_SUB, stack, size);
  } else {
    soft_emit_immediate(run, size, SOFT_ADD, stack, size);
    unsigned to = soft_host_of(run, insn->to / 8, size, false, true);
    soft_emit_memory(run, size, 0x8b, to, SOFT_HOST_A, 0);
  }
}

static bool put_place(soft_run *run, const soft_insn *insn, native_kind kind) {
  unsigned size = insn->size;
  soft_access access = writes_memory(insn, kind) ? SOFT_WRITE : SOFT_READ;
  if (kind == NATIVE_PUSH || kind == NATIVE_POP) {
    size = insn->operand_size;
    return soft_emit_stack(run, size, kind == NATIVE_PUSH ? size : 0, access);
  }
  if (kind == NATIVE_EXTEND) {
    extension_of(insn, &size);
  }
  return soft_emit_place(run, insn, size, access);
}

/* Instruction `i` of a run of so many; false where it cannot be one, or there is no room. */
static bool put(soft_run *run, const soft_insn *first, unsigned i, unsigned count) {
  const soft_insn *insn = first + i;
  native_kind kind = kind_of(insn);
  bool flags = writes_flags(insn, kind) && wants_flags(first, i, count);
  bool leaves = may_leave(insn, kind);
  if (kind == NATIVE_NONE || (!run->has_scratch && (flags || leaves)) ||
      run->size + ROOM + END > SOFT_RUN_BYTES || (leaves && !put_place(run, insn, kind))) {
    return false;
  }
  switch (kind) {
    case NATIVE_LEA:
      put_lea(run, insn);
      break;
    case NATIVE_EXTEND:
      put_extension(run, insn);
      break;
    case NATIVE_ALU:
      if (insn->extra == SOFT_MOV) {
        put_move(run, insn);
      } else {
        put_alu(run, insn, flags);
      }
      break;
    default:
      put_stack(run, insn, kind);
      break;
  }
  if (writes_memory(insn, kind)) {
    soft_emit_commit(run, i + 1);
  }
  return !run->is_full;
}

/* ---- Runs ---- */

/* How many instructions there are in a row that can be a run, of `most`. */
static unsigned count_run(const soft_insn *first, unsigned most) {
  unsigned count = 0;
  while (count < most && kind_of(first + count) != NATIVE_NONE) {
    count++;
  }
  return count;
}

static bool needs_scratch(const soft_insn *first, unsigned count) {
  for (unsigned i = 0; i < count; i++) {
    native_kind kind = kind_of(first + i);
    if (may_leave(first + i, kind) ||
        (writes_flags(first + i, kind) && wants_flags(first, i, count))) {
      return true;
    }
  }
  return false;
}

/* The code of as many as there is room for. Whether flags are wanted depends on how many that is:
 * it is made again for those. */
static unsigned fill(soft_run *run, const soft_insn *first, unsigned count, unsigned kind) {
  for (;;) {
    unsigned done = 0;
    *run = (soft_run){.kind = kind, .has_scratch = needs_scratch(first, count)};
    while (done < count && put(run, first, done, count)) {
      done++;
    }
    if (done == count) {
      return count;
    }
    count = done;
  }
}

/* How many instructions from here are a run that has its code now; 1 for none. */
static unsigned make_run(soft_cpu *cpu, soft_insn *first, unsigned most, unsigned kind) {
  soft_run run, begin;
  unsigned count = count_run(first, most);
  count = fill(&run, first, count, kind);
  if (count < 2) {
    return 1;
  }
  const soft_insn *last = first + count - 1;
  unsigned passed =
      last->gives ? soft_host_of(&run, last->to / 8, last->size, true, false) : SOFT_HOST_D;
  first->usual = first->chooses ? first->takes[SOFT_TAKE_NONE] : first->run;
  soft_emit_end(&run, count, passed, first->usual);
  soft_emit_begin(&run, &begin);
  const soft_stub_part parts[] = {{begin.bytes, begin.size}, {run.bytes, run.size}};
  const uint8_t *code = soft_stub_put(cpu, parts, sizeof parts / sizeof *parts);
  if (code) {
    memcpy(&first->run, &code, sizeof code);
    first->native = true;
  }
  return count;
}

void soft_make_runs(soft_cpu *cpu, soft_block *block) {
  for (unsigned i = 0; i < block->count;) {
    i += make_run(cpu, &block->insns[i], block->count - i, block->key & 3);
  }
}
