/* SPDX-License-Identifier: MIT
 * Machine code for the runs of a hot block: instructions of general registers in a row, which
 * neither fault nor tell flags. The guest's registers that they use are loaded, the host's
 * processor does the same instructions on its own, and what has changed is stored behind the last:
 * there is one handler to go to instead of many, and a result is where the next one needs it. */
#include "soft/decode/decode.h"
#include "soft/vector/stub.h"

#include <string.h>

enum {
  HOSTS = 7,
  LONGEST = 9, /* instruction */
  MOVES = 10,  /* bytes of a load and a store */
  END = 16     /* and of what else there is behind the run */
};

/* The host's registers that a handler may change; RDI is the CPU, RSI the instruction. */
static const uint8_t hosts[HOSTS] = {0, 1, 2, 8, 9, 10, 11};

typedef struct native_run {
  uint8_t guest[HOSTS]; /* which register of the guest is there */
  uint8_t set[HOSTS]; /* how many of its bytes the first instruction with it has set; 0: it reads */
  uint8_t widest[HOSTS]; /* the bytes that all of the run together see of it */
  bool stored[HOSTS];
  unsigned used;
  uint8_t bytes[SOFT_STUB_MOST];
  unsigned size;
} native_run;

static void put(native_run *run, unsigned byte) {
  run->bytes[run->size++] = (uint8_t)byte;
}

static void put_number(native_run *run, uint64_t number, unsigned size) {
  memcpy(run->bytes + run->size, &number, size);
  run->size += size;
}

/* The host's register for a guest's, of which an instruction reads or writes `size` bytes. */
static unsigned host_of(native_run *run, unsigned guest, unsigned size, bool reads, bool writes) {
  unsigned i = 0, whole = size < 4 ? size : 8; /* a result of 4 bytes clears the others */
  while (i < run->used && run->guest[i] != guest) {
    i++;
  }
  if (i == run->used) {
    run->guest[i] = (uint8_t)guest;
    run->set[i] = (uint8_t)(reads ? 0 : whole);
    run->widest[i] = 0;
    run->stored[i] = false;
    run->used++;
  }
  run->widest[i] = (uint8_t)(whole > run->widest[i] ? whole : run->widest[i]);
  run->stored[i] |= writes;
  return hosts[i];
}

/* An instruction on registers of 1, 2, 4 or 8 bytes; `opcode` is that for bytes. */
static void put_registers(native_run *run, unsigned size, unsigned opcode, unsigned reg,
                          unsigned rm) {
  unsigned rex = (size == 8 ? 8u : 0) | reg >> 3 << 2 | rm >> 3;
  if (size == 2) {
    put(run, 0x66);
  }
  if (rex || size == 1) {
    put(run, 0x40 | rex);
  }
  put(run, opcode | (size > 1));
  put(run, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

static bool fits(uint64_t value, unsigned size) {
  return size < 8 || (uint64_t)(int64_t)(int32_t)value == value;
}

static void put_alu(native_run *run, const soft_insn *insn) {
  bool moves = insn->extra == SOFT_MOV;
  if (insn->from_kind == SOFT_REGISTER) {
    unsigned from = host_of(run, insn->from / 8, insn->size, true, false);
    unsigned to = host_of(run, insn->to / 8, insn->size, !moves, true);
    put_registers(run, insn->size, moves ? 0x88 : insn->extra * 8u, from, to);
    return;
  }
  unsigned to = host_of(run, insn->to / 8, insn->size, !moves, true);
  put_registers(run, insn->size, moves ? 0xc6 : 0x80, moves ? 0 : insn->extra, to);
  put_number(run, insn->immediate, insn->size < 4 ? insn->size : 4);
}

static void put_lea(native_run *run, const soft_insn *insn) {
  bool has_base = insn->base != R_ZERO, has_index = insn->index != R_ZERO;
  unsigned base = has_base ? host_of(run, insn->base, insn->size, true, false) : 5;
  unsigned index = has_index ? host_of(run, insn->index, insn->size, true, false) : 4;
  unsigned to = host_of(run, insn->to / 8, insn->size, false, true);
  if (insn->size == 2) {
    put(run, 0x66);
  }
  put(run, 0x40 | (insn->size == 8 ? 8u : 0) | to >> 3 << 2 | index >> 3 << 1 | base >> 3);
  put(run, 0x8d);
  put(run, (has_base ? 0x84u : 4) | (to & 7) << 3);
  put(run, (unsigned)insn->shift << 6 | (index & 7) << 3 | (base & 7));
  put_number(run, (uint64_t)insn->displacement, 4);
}

/* Whether it can be one of a run. Not with AH to BH. */
static bool is_alu(const soft_insn *insn) {
  if (!insn->chooses || insn->to_kind != SOFT_REGISTER || insn->to % 8) {
    return false;
  }
  bool immediate = insn->from_kind == SOFT_IMMEDIATE;
  if (immediate ? !fits(insn->immediate, insn->size)
                : insn->from_kind != SOFT_REGISTER || insn->from % 8) {
    return false;
  }
  unsigned size = soft_size_index(insn->size * 8u);
  bool moves = insn->extra == SOFT_MOV && insn->effect == SOFT_EFFECT_NONE;
  return moves || (insn->effect == SOFT_EFFECT_ALL &&
                   insn->takes == soft_op_quiet[insn->extra][size][immediate]);
}

static bool is_lea(const soft_insn *insn) {
  return insn->chooses && insn->takes == soft_op_lea_takes[soft_size_index(insn->size * 8u)] &&
         insn->address_size >= insn->size && fits((uint64_t)insn->displacement, 8);
}

/* Adds it to the run; false where it cannot be, or there is no room. */
static bool add(native_run *run, const soft_insn *insn) {
  unsigned used = run->used + 3;
  if (used > HOSTS || run->size + LONGEST + used * MOVES + END > SOFT_STUB_MOST) {
    return false;
  }
  if (is_lea(insn)) {
    put_lea(run, insn);
  } else if (is_alu(insn)) {
    put_alu(run, insn);
  } else {
    return false;
  }
  return true;
}

/* The operands of a move between a register of the host and the guest's behind RDI. */
static void put_place(native_run *code, unsigned host, unsigned guest) {
  bool near = guest < 16;
  put(code, (near ? 0x47u : 0x87u) | (host & 7) << 3);
  put_number(code, guest * 8, near ? 1 : 4);
}

/* No more bytes than the run sees: those that short instructions have stored come to a load from
 * the host's store buffer only if it asks for no others. */
static void put_load(native_run *code, unsigned size, unsigned host, unsigned guest) {
  put(code, (size == 8 ? 0x48u : 0x40) | host >> 3 << 2);
  if (size == 8) {
    put(code, 0x8b);
  } else { /* movzx */
    put(code, 0x0f);
    put(code, size == 1 ? 0xb6 : 0xb7);
  }
  put_place(code, host, guest);
}

static void put_store(native_run *code, unsigned size, unsigned host, unsigned guest) {
  if (size == 2) {
    put(code, 0x66);
  }
  put(code, (size == 8 ? 0x48u : 0x40) | host >> 3 << 2);
  put(code, size == 1 ? 0x88 : 0x89);
  put_place(code, host, guest);
}

/* The loads, the run, the stores, and the jump to the handler of the instruction behind it, with
 * the last result in RDX. */
static void finish(soft_stub_code *stub, const native_run *run, const soft_insn *last,
                   unsigned count) {
  native_run code = {.size = 0};
  for (unsigned i = 0; i < run->used; i++) {
    if (run->widest[i] > run->set[i]) {
      put_load(&code, run->widest[i], hosts[i], run->guest[i]);
    }
  }
  memcpy(code.bytes + code.size, run->bytes, run->size);
  code.size += run->size;
  for (unsigned i = 0; i < run->used; i++) {
    if (run->stored[i]) {
      put_store(&code, run->widest[i], hosts[i], run->guest[i]);
    }
  }
  native_run copy = *run;
  put_registers(&code, 8, 0x88, host_of(&copy, last->to / 8, last->size, true, false), RDX);
  put(&code, 0x48); /* add rsi, count insns; jmp [rsi] */
  put(&code, 0x81);
  put(&code, 0xc6);
  put_number(&code, count * sizeof(soft_insn), 4);
  put(&code, 0xff);
  put(&code, 0x26);
  memcpy(stub->bytes, code.bytes, code.size);
  stub->size = (uint8_t)code.size;
}

/* How many instructions from here are a run that has a stub now; 1 for none. */
static unsigned make_run(soft_cpu *cpu, soft_insn *first, unsigned most) {
  native_run run = {.used = 0};
  unsigned count = 0;
  while (count < most && add(&run, first + count)) {
    count++;
  }
  if (count < 2) {
    return 1;
  }
  soft_stub_code stub;
  finish(&stub, &run, first + count - 1, count);
  const uint8_t *code = soft_stub_find(cpu, &stub);
  if (code) {
    memcpy(&first->run, &code, sizeof code);
  }
  return count;
}

void soft_make_runs(soft_cpu *cpu, soft_block *block) {
  for (unsigned i = 0; i < block->count;) {
    i += make_run(cpu, &block->insns[i], block->count - i);
  }
}
