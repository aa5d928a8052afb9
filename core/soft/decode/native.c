/* SPDX-License-Identifier: MIT
 * Machine code for the runs of a hot block: moves, sums and accesses to memory in a row. The
 * guest's registers that they use are loaded, the host's processor does the same instructions on
 * its own, and what has changed is stored behind the last: there is one handler to go to instead of
 * many, and a result is where the next one needs it. An access that the TLB does not serve undoes
 * what was done since the last store to memory, and leaves it to the handlers (emit.h). */
#include "soft/decode/native.h"
#include "soft/vector/stub.h"

#include <string.h>

enum {
  ROOM = 300, /* bytes that one instruction takes at most */
  END = 700   /* and what is behind the last */
};

static bool fits(uint64_t value, unsigned size) {
  return size < 8 || (uint64_t)(int64_t)(int32_t)value == value;
}

/* Not AH to BH. */
static bool is_plain(unsigned kind, unsigned offset) {
  return kind != SOFT_REGISTER || offset % 8 == 0;
}

static bool is_lea(const soft_insn *insn) {
  return insn->takes == soft_op_lea_takes[soft_size_index(insn->size * 8u)];
}

/* Of registers or with an immediate, and not one handler with the jump behind it. */
static bool is_comparison(const soft_insn *insn) {
  return insn[1].run != soft_op_jump_if[insn[1].condition];
}

static bool is_alu(const soft_insn *insn) {
  bool carries = insn->extra == SOFT_ADC || insn->extra == SOFT_SBB;
  bool compares = insn->extra == SOFT_CMP || insn->extra == SOFT_TEST;
  return !carries && !insn->locked &&
         (!compares || soft_native_memory(insn) || is_comparison(insn)) &&
         is_plain(insn->to_kind, insn->to) && is_plain(insn->from_kind, insn->from) &&
         (insn->from_kind != SOFT_IMMEDIATE || fits(insn->immediate, insn->size));
}

static bool is_shift(const soft_insn *insn) {
  unsigned opcode = soft_native_shift(insn), bits = insn->size * 8u;
  unsigned count = (unsigned)insn->immediate & (bits == 64 ? 63 : 31);
  return opcode && insn->to_kind == SOFT_REGISTER && insn->to % 8 == 0 &&
         insn->from_kind == SOFT_IMMEDIATE && count && count < bits;
}

static bool is_step(const soft_insn *insn) {
  unsigned index = soft_size_index(insn->size * 8u);
  return insn->to_kind == SOFT_REGISTER && insn->to % 8 == 0 &&
         (insn->run == soft_op_inc[index] || insn->run == soft_op_dec[index]);
}

/* Of those with handlers of their own, by which they are known. */
static native_kind other_kind_of(const soft_insn *insn) {
  unsigned size, index = soft_size_index(insn->size * 8u);
  unsigned stack = soft_size_index(insn->operand_size * 8u);
  if (insn->run == soft_op_push_register[stack]) {
    return NATIVE_PUSH;
  }
  if (insn->run == soft_op_pop[stack] && insn->to_kind == SOFT_REGISTER) {
    return NATIVE_POP;
  }
  if (insn->run == soft_op_imul_to[index]) {
    bool whole = !insn->extra || fits(insn->immediate, insn->size);
    return whole ? NATIVE_MULTIPLY : NATIVE_NONE;
  }
  if (soft_native_extension(insn, &size)) {
    return is_plain(insn->from_kind, insn->from) ? NATIVE_EXTEND : NATIVE_NONE;
  }
  return is_shift(insn) ? NATIVE_SHIFT : is_step(insn) ? NATIVE_STEP : NATIVE_NONE;
}

static native_kind kind_of(const soft_insn *insn) {
  if (!insn->chooses) {
    return other_kind_of(insn);
  }
  if (is_lea(insn)) {
    bool whole = insn->address_size >= insn->size && fits((uint64_t)insn->displacement, 8);
    return whole ? NATIVE_LEA : NATIVE_NONE;
  }
  return is_alu(insn) ? NATIVE_ALU : NATIVE_NONE;
}

static bool may_leave(const soft_insn *insn, native_kind kind) {
  return kind == NATIVE_PUSH || kind == NATIVE_POP ||
         (kind != NATIVE_LEA && soft_native_memory(insn));
}

static bool writes_flags(const soft_insn *insn, native_kind kind) {
  return kind == NATIVE_SHIFT || kind == NATIVE_MULTIPLY || kind == NATIVE_STEP ||
         (kind == NATIVE_ALU && insn->extra != SOFT_MOV);
}

/* Steps and rotations leave some as they were. */
static bool writes_all_flags(const soft_insn *insn, native_kind kind) {
  return kind == NATIVE_SHIFT ? insn->effect == SOFT_EFFECT_REST
                              : kind != NATIVE_STEP && writes_flags(insn, kind);
}

/* Whether something sees those of instruction `i` of a run of so many: not where others take their
 * place, and nothing in between leaves the run to anywhere but before it. */
static bool wants_flags(const soft_insn *first, unsigned i, unsigned count) {
  if (first[i].silent) { /* by the whole block: polish.c */
    return false;
  }
  bool stored = soft_native_stores(first + i, kind_of(first + i));
  for (unsigned k = i + 1; k < count; k++) {
    native_kind kind = kind_of(first + k);
    if (stored && may_leave(first + k, kind)) {
      return true;
    }
    if (writes_all_flags(first + k, kind)) {
      return false;
    }
    stored |= soft_native_stores(first + k, kind);
  }
  return true;
}

/* Instruction `i` of a run of so many; false where it cannot be one, or there is no room. The flags
 * of a step are those before it, too: they are not worked out here. */
static bool put(soft_run *run, const soft_insn *first, unsigned i, unsigned count) {
  const soft_insn *insn = first + i;
  native_kind kind = kind_of(insn);
  bool flags = writes_flags(insn, kind) && wants_flags(first, i, count);
  bool leaves = may_leave(insn, kind);
  if (kind == NATIVE_NONE || (kind == NATIVE_STEP && flags) ||
      (!run->has_scratch && (flags || leaves)) || run->size + ROOM + END > SOFT_RUN_BYTES) {
    return false;
  }
  if ((leaves && !soft_native_place(run, insn, kind))) {
    return false;
  }
  soft_native_put(run, insn, kind, flags);
  if (soft_native_stores(insn, kind)) {
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
