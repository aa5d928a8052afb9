/* SPDX-License-Identifier: MIT
 * FXSAVE, XSAVE and their counterparts: copies between memory and the parked state. */
#include "soft/execute/execute.h"
#include "soft/vector/vector.h"

enum {
  FXSAVE_LEGACY = 288, /* bytes with the first eight XMM registers */
  FXSAVE_LONG = 416,
  AT_MXCSR = 24,
  AT_X87 = 32,
  AT_XMM = 160,
  AT_HEADER = 512, /* XSTATE_BV, XCOMP_BV */
  HEADER_END = 576,
  AVX_AT = 576,
  AVX_SIZE = 256,
  X87 = 1,
  SSE = 2,
  AVX = 4
};

static uint64_t in_use(const soft_cpu *cpu) {
  return soft_peek(cpu->xsave + AT_HEADER, 64);
}

static void set_in_use(soft_cpu *cpu, uint64_t components) {
  soft_poke(cpu->xsave + AT_HEADER, components, 64);
}

/* Initial state of components that XSAVE did not write. */
static void settle(soft_cpu *cpu) {
  uint64_t components = in_use(cpu);
  if (!(components & X87)) {
    for (unsigned i = 0; i < AT_XMM; i += 8) {
      if (i != AT_MXCSR) {
        soft_poke(cpu->xsave + i, 0, 64);
      }
    }
    soft_poke(cpu->xsave, 0x37f, 16);
  }
  for (unsigned i = AT_XMM; !(components & SSE) && i < FXSAVE_LONG; i += 8) {
    soft_poke(cpu->xsave + i, 0, 64);
  }
  for (unsigned i = AVX_AT; !(components & AVX) && i < AVX_AT + AVX_SIZE; i += 8) {
    soft_poke(cpu->xsave + i, 0, 64);
  }
}

static void check(soft_cpu *cpu, const soft_insn *insn) {
  cpu->current = insn;
  if (cpu->cr0 & (CR0_EM | CR0_TS)) {
    soft_raise(cpu, VECTOR_NM);
  }
}

static void check_mxcsr(soft_cpu *cpu, uint64_t value) {
  if (value & 0xffff0000) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
}

static uint64_t area(soft_cpu *cpu, const soft_insn *insn, unsigned size, unsigned align,
                     soft_access access) {
  uint64_t linear = soft_address(cpu, insn, size, access);
  if (linear & (align - 1)) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
  return linear;
}

SOFT_OP(fxsave) {
  check(cpu, insn);
  uint64_t linear = area(cpu, insn, 512, 16, SOFT_WRITE);
  soft_park(cpu);
  settle(cpu);
  soft_poke(cpu->xsave + 28, 0xffff, 32);
  soft_store_bytes(cpu, linear, cpu->xsave, soft_is_64(cpu) ? FXSAVE_LONG : FXSAVE_LEGACY);
  SOFT_NEXT_BY_LOOP;
}

SOFT_OP(fxrstor) {
  uint8_t image[FXSAVE_LONG];
  unsigned size = soft_is_64(cpu) ? FXSAVE_LONG : FXSAVE_LEGACY;
  check(cpu, insn);
  uint64_t linear = area(cpu, insn, 512, 16, SOFT_READ);
  soft_load_bytes(cpu, linear, image, size);
  check_mxcsr(cpu, soft_peek(image + AT_MXCSR, 32));
  soft_park(cpu);
  settle(cpu);
  for (unsigned i = 0; i < size; i += 8) {
    soft_poke(cpu->xsave + i, soft_peek(image + i, 64), 64);
  }
  soft_poke(cpu->xsave + 28, 0xffff, 32);
  set_in_use(cpu, in_use(cpu) | X87 | SSE);
  SOFT_NEXT_BY_LOOP;
}

static uint64_t requested(soft_cpu *cpu, const soft_insn *insn) {
  cpu->current = insn;
  if (!(cpu->cr4 & CR4_OSXSAVE)) {
    soft_raise(cpu, VECTOR_UD);
  }
  if (cpu->cr0 & CR0_TS) {
    soft_raise(cpu, VECTOR_NM);
  }
  return (soft_gpr(cpu, RDX, 32) << 32 | soft_gpr(cpu, RAX, 32)) & cpu->xcr0;
}

SOFT_OP(xsave) {
  uint64_t wanted = requested(cpu, insn);
  uint64_t linear = area(cpu, insn, HEADER_END, 64, SOFT_WRITE);
  soft_park(cpu);
  settle(cpu);
  uint64_t header = soft_load(cpu, linear + AT_HEADER, 64);
  if (wanted & X87) {
    soft_store_bytes(cpu, linear, cpu->xsave, AT_MXCSR);
    soft_store_bytes(cpu, linear + AT_X87, cpu->xsave + AT_X87, AT_XMM - AT_X87);
  }
  if (wanted & (SSE | AVX)) {
    soft_poke(cpu->xsave + 28, 0xffff, 32);
    soft_store_bytes(cpu, linear + AT_MXCSR, cpu->xsave + AT_MXCSR, 8);
  }
  if (wanted & SSE) {
    soft_store_bytes(cpu, linear + AT_XMM, cpu->xsave + AT_XMM, soft_is_64(cpu) ? 256 : 128);
  }
  if (wanted & AVX) {
    soft_store_bytes(cpu, linear + AVX_AT, cpu->xsave + AVX_AT, AVX_SIZE);
  }
  soft_store(cpu, linear + AT_HEADER, (header & ~wanted) | (in_use(cpu) & wanted), 64);
  SOFT_NEXT_BY_LOOP;
}

static void load_component(soft_cpu *cpu, uint64_t linear, unsigned at, unsigned size) {
  soft_load_bytes(cpu, linear + at, cpu->xsave + at, size);
}

SOFT_OP(xrstor) {
  uint64_t wanted = requested(cpu, insn);
  uint64_t linear = area(cpu, insn, HEADER_END, 64, SOFT_READ);
  uint64_t there = soft_load(cpu, linear + AT_HEADER, 64);
  if (there & ~cpu->xcr0 || soft_load(cpu, linear + AT_HEADER + 8, 64) ||
      soft_load(cpu, linear + AT_HEADER + 16, 64)) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
  uint64_t control = wanted & (SSE | AVX) ? soft_load(cpu, linear + AT_MXCSR, 32) : 0;
  check_mxcsr(cpu, control);
  uint64_t from = wanted & there;
  if (from & AVX) { /* all pages are there before anything changes */
    soft_load_slow(cpu, linear + AVX_AT + AVX_SIZE - 8, 8);
  }
  soft_park(cpu);
  settle(cpu);
  if (wanted & (SSE | AVX)) {
    soft_poke(cpu->xsave + AT_MXCSR, control, 32);
  }
  if (from & X87) {
    load_component(cpu, linear, 0, AT_MXCSR);
    load_component(cpu, linear, AT_X87, AT_XMM - AT_X87);
  }
  if (from & SSE) {
    load_component(cpu, linear, AT_XMM, soft_is_64(cpu) ? 256 : 128);
  }
  if (from & AVX) {
    load_component(cpu, linear, AVX_AT, AVX_SIZE);
  }
  set_in_use(cpu, (in_use(cpu) & ~wanted) | from);
  SOFT_NEXT_BY_LOOP;
}
