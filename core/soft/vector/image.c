/* SPDX-License-Identifier: MIT
 * FXSAVE, XSAVE and their counterparts: copies between memory and the parked state. */
#include "soft/execute/control.h"
#include "soft/execute/execute.h"
#include "soft/vector/vector.h"
#include "soft/vmx/vmx.h"

enum {
  FXSAVE_LEGACY = 288, /* bytes with the first eight XMM registers */
  FXSAVE_LONG = 416,
  AT_MXCSR = 24,
  AT_X87 = 32,
  AT_XMM = 160,
  AT_HEADER = 512, /* XSTATE_BV, XCOMP_BV */
  HEADER_END = 576,
  AVX_AT = 576,
  MXCSR_INITIAL = 0x1f80,
  X87 = 1,
  SSE = 2,
  AVX = 4
};
#define COMPACT (UINT64_C(1) << 63) /* in XCOMP_BV */

static uint64_t in_use(const soft_cpu *cpu) {
  return soft_peek(cpu->xsave + AT_HEADER, 64);
}

static void set_in_use(soft_cpu *cpu, uint64_t components) {
  soft_poke(cpu->xsave + AT_HEADER, components, 64);
}

void soft_vector_used(soft_cpu *cpu, uint64_t components) {
  set_in_use(cpu, in_use(cpu) | components);
}

uint8_t *soft_vector_at(soft_cpu *cpu, unsigned number, unsigned at) {
  if (number >= 16) {
    return cpu->xsave + soft_component_at(SOFT_AREA_HIGH) + (number - 16) * 64 + at;
  }
  if (at >= 32) {
    return cpu->xsave + soft_component_at(SOFT_AREA_ZMM) + number * 32 + at - 32;
  }
  return cpu->xsave + number * 16 + (at < 16 ? AT_XMM + at : AVX_AT + at - 16);
}

static void clear(uint8_t *at, unsigned size) {
  for (unsigned i = 0; i < size; i += 8) {
    soft_poke(at + i, 0, 64);
  }
}

void soft_vector_clear_upper(soft_cpu *cpu, unsigned number) {
  if (in_use(cpu) >> SOFT_AREA_ZMM & 1) {
    clear(soft_vector_at(cpu, number, 32), 32);
  }
}

void soft_settle(soft_cpu *cpu, uint64_t components) {
  components &= ~in_use(cpu);
  if (components & X87) {
    clear(cpu->xsave, AT_MXCSR);
    clear(cpu->xsave + AT_X87, AT_XMM - AT_X87);
    soft_poke(cpu->xsave, 0x37f, 16);
  }
  if (components & SSE) {
    clear(cpu->xsave + AT_XMM, FXSAVE_LONG - AT_XMM);
  }
  for (unsigned i = SOFT_AREA_AVX; i <= SOFT_AREA_HIGH; i++) {
    if (components >> i & 1) {
      clear(cpu->xsave + soft_component_at(i), soft_component_size(i));
    }
  }
}

static void check(soft_cpu *cpu, const soft_insn *insn) {
  cpu->current = insn;
  if (cpu->cr0 & (CR0_EM | CR0_TS)) {
    soft_raise(cpu, VECTOR_NM);
  }
}

/* Control and status of x87, as the processor takes them from an image: bit 6 is set, those that
 * are not defined are clear, ES and B follow from the rest. */
static void adjust_x87(soft_cpu *cpu) {
  uint64_t control = (soft_peek(cpu->xsave, 16) & 0x1f3f) | 0x40;
  uint64_t status = soft_peek(cpu->xsave + 2, 16) & 0x7f7f;
  status |= status & ~control & 0x3f ? 0x8080 : 0;
  soft_poke(cpu->xsave, control, 16);
  soft_poke(cpu->xsave + 2, status, 16);
}

static void check_mxcsr(soft_cpu *cpu, uint64_t value) {
  if (value & 0xffff0000) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
}

static uint64_t area(soft_cpu *cpu, const soft_insn *insn, unsigned size, unsigned align,
                     soft_access access) {
  uint64_t linear = soft_address(cpu, insn, size, access);
  soft_check_alignment(cpu, linear, 4); /* as Intel's processors do */
  if (linear & (align - 1)) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
  return linear;
}

SOFT_OP(fxsave) {
  check(cpu, insn);
  uint64_t linear = area(cpu, insn, 512, 16, SOFT_WRITE);
  soft_park(cpu);
  soft_settle(cpu, X87 | SSE);
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
  soft_settle(cpu, X87 | SSE);
  for (unsigned i = 0; i < size; i += 8) {
    soft_poke(cpu->xsave + i, soft_peek(image + i, 64), 64);
  }
  soft_poke(cpu->xsave + 28, 0xffff, 32);
  adjust_x87(cpu);
  set_in_use(cpu, in_use(cpu) | X87 | SSE);
  SOFT_NEXT_BY_LOOP;
}

/* ---- XSAVE's areas, standard and compacted ---- */

/* How much of a component's area code of this width reaches: 32-bit code has registers 0 to 7
 * (SDM volume 1, 13.5). */
static unsigned reach(const soft_cpu *cpu, unsigned component) {
  unsigned size = soft_component_size(component);
  return soft_is_64(cpu) || component == SOFT_AREA_OPMASK ? size
         : component == SOFT_AREA_HIGH                    ? 0
                                                          : size / 2;
}

uint64_t soft_xinuse(soft_cpu *cpu) {
  soft_park(cpu);
  uint64_t components = in_use(cpu) & ~(uint64_t)SOFT_XCR0_PKRU;
  return components | (cpu->pkru ? SOFT_XCR0_PKRU : 0);
}

/* The components that EDX:EAX asks for; `system` is for ring 0 alone. */
static uint64_t requested(soft_cpu *cpu, const soft_insn *insn, bool system) {
  cpu->current = insn;
  if (!(cpu->cr4 & CR4_OSXSAVE)) {
    soft_raise(cpu, VECTOR_UD);
  }
  if (system) {
    soft_need_ring_0(cpu, insn);
  }
  if (cpu->cr0 & CR0_TS) {
    soft_raise(cpu, VECTOR_NM);
  }
  return (soft_gpr(cpu, RDX, 32) << 32 | soft_gpr(cpu, RAX, 32)) & cpu->xcr0;
}

static void store_components(soft_cpu *cpu, uint64_t linear, uint64_t which, uint64_t layout,
                             bool compact) {
  if (which & X87) {
    soft_store_bytes(cpu, linear, cpu->xsave, AT_MXCSR);
    soft_store_bytes(cpu, linear + AT_X87, cpu->xsave + AT_X87, AT_XMM - AT_X87);
  }
  if (which & SSE) {
    soft_store_bytes(cpu, linear + AT_XMM, cpu->xsave + AT_XMM, soft_is_64(cpu) ? 256 : 128);
  }
  if (which & SSE || (which & AVX && !compact)) {
    soft_poke(cpu->xsave + 28, 0xffff, 32);
    soft_store_bytes(cpu, linear + AT_MXCSR, cpu->xsave + AT_MXCSR, 8);
  }
  for (unsigned i = SOFT_AREA_AVX; i <= SOFT_AREA_HIGH; i++) {
    if (which >> i & 1 && reach(cpu, i)) {
      uint64_t to = linear + soft_component_place(i, layout, compact);
      soft_store_bytes(cpu, to, cpu->xsave + soft_component_at(i), reach(cpu, i));
    }
  }
  if (which & SOFT_XCR0_PKRU) {
    uint32_t at = soft_component_place(SOFT_AREA_PKRU, layout, compact);
    soft_store(cpu, linear + at, cpu->pkru, 64);
  }
}

SOFT_OP(xsave) {
  uint64_t wanted = requested(cpu, insn, false);
  uint64_t linear = area(cpu, insn, HEADER_END, 64, SOFT_WRITE);
  uint64_t used = soft_xinuse(cpu);
  soft_settle(cpu, wanted);
  uint64_t header = soft_load_modify(cpu, linear + AT_HEADER, 64);
  store_components(cpu, linear, wanted, 0, false);
  soft_store(cpu, linear + AT_HEADER, (header & ~wanted) | (used & wanted), 64);
  SOFT_NEXT_BY_LOOP;
}

/* Only components in use are written; MXCSR counts as SSE's. */
static void save_compact(soft_cpu *cpu, const soft_insn *insn, bool system) {
  uint64_t wanted = requested(cpu, insn, system);
  uint64_t linear = area(cpu, insn, HEADER_END, 64, SOFT_WRITE);
  uint64_t used = soft_xinuse(cpu);
  soft_settle(cpu, SSE); /* which MXCSR alone makes one that is written */
  used |= soft_peek(cpu->xsave + AT_MXCSR, 32) == MXCSR_INITIAL ? 0 : SSE;
  store_components(cpu, linear, wanted & used, wanted, true);
  soft_store(cpu, linear + AT_HEADER, wanted & used, 64);
  soft_store(cpu, linear + AT_HEADER + 8, COMPACT | wanted, 64);
}

SOFT_OP(xsavec) {
  save_compact(cpu, insn, false);
  SOFT_NEXT_BY_LOOP;
}

/* IA32_XSS is 0: no component beside XCR0's. */
SOFT_OP(xsaves) {
  soft_need(cpu, insn, !soft_withholds(cpu, CPU_BASED2_XSAVES_XRSTORS));
  save_compact(cpu, insn, true);
  SOFT_NEXT_BY_LOOP;
}

static void load_component(soft_cpu *cpu, uint64_t linear, unsigned at, unsigned size) {
  soft_load_bytes(cpu, linear + at, cpu->xsave + at, size);
}

/* What XRSTOR refuses in the header, at `linear`. */
static void check_header(soft_cpu *cpu, uint64_t linear, uint64_t there, uint64_t layout) {
  uint64_t rest = 0;
  for (unsigned i = 16; i < (layout ? 64 : 24); i += 8) {
    rest |= soft_load(cpu, linear + i, 64);
  }
  uint64_t may = layout ? layout & ~COMPACT : cpu->xcr0;
  if (rest || there & ~may || may & ~cpu->xcr0 || (layout && !(layout & COMPACT))) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
}

/* What the area does not have gets its initial state: where code does not reach all of it, byte by
 * byte. */
static void load_upper(soft_cpu *cpu, uint64_t linear, unsigned component, bool from, bool whole) {
  unsigned size = reach(cpu, component);
  uint8_t *at = cpu->xsave + soft_component_at(component);
  if (from && size) {
    soft_load_bytes(cpu, linear, at, size);
  } else if (!whole) {
    clear(at, size);
  }
}

static void load_components(soft_cpu *cpu, uint64_t linear, uint64_t from, uint64_t wanted,
                            uint64_t layout) {
  bool whole = soft_is_64(cpu), compact = layout & COMPACT;
  if (from & X87) {
    load_component(cpu, linear, 0, AT_MXCSR);
    load_component(cpu, linear, AT_X87, AT_XMM - AT_X87);
    adjust_x87(cpu);
  }
  if (from & SSE) {
    load_component(cpu, linear, AT_XMM, whole ? 256 : 128);
  } else if (wanted & SSE && !whole) {
    clear(cpu->xsave + AT_XMM, 128);
  }
  for (unsigned i = SOFT_AREA_AVX; i <= SOFT_AREA_HIGH; i++) {
    if (wanted >> i & 1) {
      uint64_t at = linear + soft_component_place(i, layout, compact);
      load_upper(cpu, at, i, from >> i & 1, whole);
    }
  }
  uint64_t gone = whole ? wanted : wanted & (X87 | UINT64_C(1) << SOFT_AREA_OPMASK);
  set_in_use(cpu, (in_use(cpu) & ~gone) | (from & ~(uint64_t)SOFT_XCR0_PKRU));
}

/* All pages are there before anything changes. */
static void check_pages(soft_cpu *cpu, uint64_t linear, uint64_t from, uint64_t layout) {
  for (unsigned i = SOFT_AREA_AVX; i <= SOFT_AREA_HIGH; i++) {
    if (from >> i & 1 && reach(cpu, i)) {
      uint32_t at = soft_component_place(i, layout, layout & COMPACT);
      soft_load_slow(cpu, linear + at + reach(cpu, i) - 8, 8);
    }
  }
}

/* XRSTORS is for systems, and takes the compacted form alone. */
static void restore(soft_cpu *cpu, const soft_insn *insn, bool system) {
  uint64_t wanted = requested(cpu, insn, system);
  uint64_t linear = area(cpu, insn, HEADER_END, 64, SOFT_READ);
  uint64_t there = soft_load(cpu, linear + AT_HEADER, 64);
  uint64_t layout = soft_load(cpu, linear + AT_HEADER + 8, 64);
  bool compact = layout & COMPACT;
  if (system && !compact) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
  check_header(cpu, linear + AT_HEADER, there, layout);
  uint64_t from = wanted & there;
  bool controls = compact ? from & SSE : wanted & (SSE | AVX);
  uint64_t control = controls ? soft_load(cpu, linear + AT_MXCSR, 32) : MXCSR_INITIAL;
  check_mxcsr(cpu, control);
  uint32_t pkru = 0;
  if (from & SOFT_XCR0_PKRU) {
    uint32_t at = soft_component_place(SOFT_AREA_PKRU, layout, compact);
    pkru = (uint32_t)soft_load(cpu, linear + at, 32);
  }
  check_pages(cpu, linear, from, layout);
  soft_park(cpu);
  soft_settle(cpu, soft_is_64(cpu) ? 0 : wanted);
  if (controls || (compact && wanted & SSE)) {
    soft_poke(cpu->xsave + AT_MXCSR, control, 32);
  }
  load_components(cpu, linear, from, wanted, layout);
  if (wanted & SOFT_XCR0_PKRU) {
    soft_set_pkru(cpu, pkru);
  }
}

SOFT_OP(xrstor) {
  restore(cpu, insn, false);
  SOFT_END;
}

SOFT_OP(xrstors) {
  soft_need(cpu, insn, !soft_withholds(cpu, CPU_BASED2_XSAVES_XRSTORS));
  restore(cpu, insn, true);
  SOFT_END;
}
