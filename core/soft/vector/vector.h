/* SPDX-License-Identifier: MIT
 * x87, MMX, SSE, AVX and AVX-512 instructions, which the host's processor executes: each is a small
 * stub with the guest's own bytes, and the guest's vector state stays in the host's registers while
 * only code runs that does not use them ("live"); before any other code it is saved ("parked"). */
#ifndef SOFT_VECTOR_H
#define SOFT_VECTOR_H

#include "soft/insn.h"

/* A stub: does the instruction and goes on with the next, as a handler does. Flags that it takes
 * are in soft_cpu.vector_flags. */
typedef const soft_insn *(*soft_vector_code)(void *memory, const soft_insn *insn, soft_cpu *cpu);

/* What has to be checked before the instruction: which of CR0, CR4 and XCR0 lets it. */
typedef enum soft_vector_kind {
  SOFT_X87,
  SOFT_MMX,
  SOFT_SSE,
  SOFT_SSE_MMX, /* SSE's that use MMX registers too */
  SOFT_AVX,
  SOFT_AVX512,
  SOFT_GENERAL /* BMI, ADX: general registers only */
} soft_vector_kind;

/* What an instruction does to FOP, FIP and FDP. */
typedef enum soft_pointers {
  SOFT_POINTERS_KEPT,
  SOFT_POINTERS_SET,
  SOFT_POINTERS_STORED, /* FNSTENV */
  SOFT_POINTERS_SAVED,  /* FNSAVE, which clears them */
  SOFT_POINTERS_LOADED, /* FLDENV, FRSTOR */
  SOFT_POINTERS_CLEARED /* FNINIT */
} soft_pointers;

typedef struct soft_vector {
  soft_vector_code code;
  soft_vector_kind kind;
  bool waits; /* takes a pending #MF first */
  bool flags_in;
  soft_pointers pointers;
  uint16_t fop;
  uint8_t access;   /* SOFT_READ and SOFT_WRITE of the memory operand */
  uint8_t align;    /* bits of its address that have to be 0 */
  uint16_t size;    /* of it, 0 for none */
  bool stores_last; /* what it raises comes before a fault of its store */
  /* Of a masked move: bytes of an element, the registers. */
  uint8_t element, mask, data;
  /* Of AVX-512's, whose `mask` is an opmask register: elements in memory, and bits of the mask. */
  uint8_t count, bits;
  bool packed; /* elements of bits that are set lie in a row */
  bool whole;  /* what the mask leaves out faults too */
} soft_vector;

/* Handlers: memory operands within a page that the TLB has, and what stubs end in. */
SOFT_HANDLER(soft_op_vector_load);
SOFT_HANDLER(soft_op_vector_store);
const soft_insn *soft_vector_flags(soft_cpu *cpu, const soft_insn *insn, uint64_t flags);
const soft_insn *soft_vector_done(soft_cpu *cpu, const soft_insn *insn, uint64_t flags);

/* Components of the state, by their bits in XCR0. */
enum {
  SOFT_LIVE_X87 = 1,
  SOFT_LIVE_SSE = 2,
  SOFT_LIVE_AVX = 4,
  SOFT_LIVE_AVX512 = 0xe0 /* which is three */
};

/* Those behind the header of XSAVE's areas, by the numbers of their bits. */
enum {
  SOFT_AREA_AVX = 2,
  SOFT_AREA_OPMASK = 5,
  SOFT_AREA_ZMM = 6,  /* bytes 32 to 63 of ZMM0 to 15 */
  SOFT_AREA_HIGH = 7, /* ZMM16 to 31 */
  SOFT_AREA_PKRU = 9,
  SOFT_COMPONENTS
};

enum {
  SOFT_XCR0_PKRU = 1 << 9 /* which the host's processor does not hold for the guest */
};

/* Loads what instructions of the kind use. */
void soft_live(soft_cpu *cpu, soft_vector_kind kind);
void soft_park(soft_cpu *cpu);
/* The same without saving it: the host's own control registers come back. */
void soft_vector_abandon(soft_cpu *cpu);
/* The same state behind the stub of the instruction on cpu->bounce, which nothing follows. */
void soft_vector_bounce(soft_cpu *cpu, const soft_vector *vector);
/* An opmask register, parked or not. */
uint64_t soft_opmask(const soft_cpu *cpu, unsigned number);
/* Of the parked state: byte `at` of vector register `number`; which components are in use. */
uint8_t *soft_vector_at(soft_cpu *cpu, unsigned number, unsigned at);
void soft_vector_used(soft_cpu *cpu, uint64_t components);
/* Clears the bytes of a vector register behind its lower 32, as AVX's instructions do. */
void soft_vector_clear_upper(soft_cpu *cpu, unsigned number);
/* Of the parked state: writes out those of the components that are in their initial state. */
void soft_settle(soft_cpu *cpu, uint64_t components);
/* Puts FOP, FIP and FDP of the last x87 instruction into the image: what the host's processor has
 * of them is about stubs. */
void soft_settle_pointers(soft_cpu *cpu);
/* They are put back behind what writes all of the image's x87 part. */
typedef struct soft_pointer_set {
  uint64_t fop, fip, fdp;
} soft_pointer_set;
soft_pointer_set soft_get_pointers(soft_cpu *cpu);
void soft_set_pointers(soft_cpu *cpu, soft_pointer_set pointers);
/* The state after reset. */
void soft_vector_reset(soft_cpu *cpu);
/* area.c: what guests may enable, XCR0's bits, and whether this one may set them so. */
uint64_t soft_xcr0_known(void);
bool soft_xcr0_right(const soft_cpu *cpu, uint64_t value);
/* area.c: whether the host's processor has AVX-512, with all that its state is moved with. */
bool soft_has_avx512(void);
/* Where the standard area, which is cpu->xsave too, has a component, and how many bytes. */
uint32_t soft_component_at(unsigned component);
uint32_t soft_component_size(unsigned component);
/* Where an area has it; a compacted one is of the components of `layout`. */
uint32_t soft_component_place(unsigned component, uint64_t layout, bool compact);
/* Bytes of an area with the components, standard or compacted. */
uint32_t soft_xsave_size(uint64_t components, bool compact);
/* image.c: the components that are not in their initial state. */
uint64_t soft_xinuse(soft_cpu *cpu);
/* Raises what the instruction may not get past; used by all that touch vector state. */
void soft_vector_check(soft_cpu *cpu, soft_vector_kind kind);

/* Whether the host's processor was within a stub. */
bool soft_in_stub(const soft_cpu *cpu, const void *code);

#endif
