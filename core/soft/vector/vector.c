/* SPDX-License-Identifier: MIT
 * Running a vector instruction: the state in the host's registers, the checks before it, its memory
 * operand. Exceptions that the host's processor raises within a stub are the guest's:
 * kernel/signal.c. */
#include "soft/vector/vector.h"

#include "soft/execute/execute.h"

enum {
  MXCSR_MASKS = 0x1f80,
  AT_FOP = 6, /* in the image, as XSAVE lays it out */
  AT_FIP = 8,
  AT_FDP = 16,
  AT_MXCSR = 24,
  AT_XMM = 160,
  AT_COMPONENTS = 512,
  AT_UPPER = 576 /* halves of the YMM registers */
};

#define EACH(X)                                                                                    \
  X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)

/* XSAVE and XRSTOR take as long for little as for much, and three times as long as moves. */
static void load_sse(soft_cpu *cpu, bool initial) {
  uint8_t *image = cpu->xsave;
  __asm__ volatile("stmxcsr %0\n\tldmxcsr %1" : "=m"(cpu->host_mxcsr) : "m"(image[AT_MXCSR]));
#define LOAD(n) "movaps " #n "*16(%0), %%xmm" #n "\n\t"
#define CLEAR(n) "xorps %%xmm" #n ", %%xmm" #n "\n\t"
  if (initial) {
    __asm__ volatile(EACH(CLEAR)::: "memory");
  } else {
    __asm__ volatile(EACH(LOAD) : : "r"(image + AT_XMM) : "memory");
  }
}

static void save_sse(soft_cpu *cpu) {
  uint8_t *image = cpu->xsave;
#define SAVE(n) "movaps %%xmm" #n ", " #n "*16(%0)\n\t"
  __asm__ volatile(EACH(SAVE) : : "r"(image + AT_XMM) : "memory");
  __asm__ volatile("stmxcsr %0\n\tldmxcsr %1" : "=m"(image[AT_MXCSR]) : "m"(cpu->host_mxcsr));
}

static void load_avx(const soft_cpu *cpu, bool initial) {
#define LOAD_UPPER(n) "vinsertf128 $1, " #n "*16(%0), %%ymm" #n ", %%ymm" #n "\n\t"
  if (initial) {
    __asm__ volatile("vzeroupper");
  } else {
    __asm__ volatile(EACH(LOAD_UPPER) : : "r"(cpu->xsave + AT_UPPER) : "memory");
  }
}

static void save_avx(soft_cpu *cpu) {
#define SAVE_UPPER(n) "vextractf128 $1, %%ymm" #n ", " #n "*16(%0)\n\t"
  __asm__ volatile(EACH(SAVE_UPPER) "vzeroupper" : : "r"(cpu->xsave + AT_UPPER) : "memory");
}

/* clang-format off */
#define HIGH(X)                                                                                    \
  X(0, 16) X(1, 17) X(2, 18) X(3, 19) X(4, 20) X(5, 21) X(6, 22) X(7, 23)                          \
  X(8, 24) X(9, 25) X(10, 26) X(11, 27) X(12, 28) X(13, 29) X(14, 30) X(15, 31)
/* clang-format on */
#define MASKS(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)

/* The lower halves of ZMM0 to 15 are there. */
static void load_avx512(soft_cpu *cpu, bool initial) {
#define LOAD_ZMM(n) "vinserti64x4 $1, " #n "*32(%0), %%zmm" #n ", %%zmm" #n "\n\t"
#define LOAD_HIGH(n, r) "vmovdqu64 " #n "*64(%0), %%zmm" #r "\n\t"
#define LOAD_MASK(n) "kmovq " #n "*8(%0), %%k" #n "\n\t"
#define CLEAR_HIGH(n, r) "vpxord %%zmm" #r ", %%zmm" #r ", %%zmm" #r "\n\t"
#define CLEAR_MASK(n) "kxorq %%k" #n ", %%k" #n ", %%k" #n "\n\t"
  if (initial) {
    __asm__ volatile(HIGH(CLEAR_HIGH) MASKS(CLEAR_MASK)::: "memory");
    return;
  }
  soft_settle(cpu, SOFT_LIVE_AVX512);
  const uint8_t *image = cpu->xsave;
  __asm__ volatile(EACH(LOAD_ZMM) : : "r"(image + soft_component_at(SOFT_AREA_ZMM)) : "memory");
  __asm__ volatile(HIGH(LOAD_HIGH) : : "r"(image + soft_component_at(SOFT_AREA_HIGH)) : "memory");
  __asm__ volatile(MASKS(LOAD_MASK)
                   :
                   : "r"(image + soft_component_at(SOFT_AREA_OPMASK))
                   : "memory");
}

static void save_avx512(soft_cpu *cpu) {
#define SAVE_ZMM(n) "vextracti64x4 $1, %%zmm" #n ", " #n "*32(%0)\n\t"
#define SAVE_HIGH(n, r) "vmovdqu64 %%zmm" #r ", " #n "*64(%0)\n\t"
#define SAVE_MASK(n) "kmovq %%k" #n ", " #n "*8(%0)\n\t"
  uint8_t *image = cpu->xsave;
  __asm__ volatile(EACH(SAVE_ZMM) : : "r"(image + soft_component_at(SOFT_AREA_ZMM)) : "memory");
  __asm__ volatile(HIGH(SAVE_HIGH) : : "r"(image + soft_component_at(SOFT_AREA_HIGH)) : "memory");
  __asm__ volatile(MASKS(SAVE_MASK)
                   :
                   : "r"(image + soft_component_at(SOFT_AREA_OPMASK))
                   : "memory");
}

uint64_t soft_opmask(const soft_cpu *cpu, unsigned number) {
  uint64_t mask[8];
  if (cpu->vector_live & SOFT_LIVE_AVX512) {
    __asm__ volatile(MASKS(SAVE_MASK) : : "r"(mask) : "memory");
    return mask[number];
  }
  bool in_use = soft_peek(cpu->xsave + AT_COMPONENTS, 8) >> SOFT_AREA_OPMASK & 1;
  const uint8_t *at = cpu->xsave + soft_component_at(SOFT_AREA_OPMASK) + number * sizeof *mask;
  return in_use ? soft_peek(at, 64) : 0;
}

static void load_x87(soft_cpu *cpu) {
  __asm__ volatile("fnstcw %0\n\txrstor64 %1"
                   : "=m"(cpu->host_fcw)
                   : "m"(*(const uint8_t(*)[SOFT_XSAVE_SIZE])cpu->xsave), "a"(1), "d"(0)
                   : "memory");
}

static void save_x87(soft_cpu *cpu) {
  soft_pointer_set pointers = soft_get_pointers(cpu);
  __asm__ volatile("xsave64 %0\n\tfninit\n\tfldcw %1"
                   : "+m"(*(uint8_t(*)[SOFT_XSAVE_SIZE])cpu->xsave)
                   : "m"(cpu->host_fcw), "a"(1), "d"(0)
                   : "memory");
  soft_set_pointers(cpu, pointers);
}

void soft_settle_pointers(soft_cpu *cpu) {
  const soft_insn *at = cpu->x87_at;
  if (at) {
    cpu->x87_at = NULL;
    soft_poke(cpu->xsave + AT_FOP, ((const soft_vector *)at->aux)->fop, 16);
    soft_poke(cpu->xsave + AT_FIP, (cpu->x87_base + at->offset) & cpu->ip_mask, 64);
  }
}

soft_pointer_set soft_get_pointers(soft_cpu *cpu) {
  soft_settle_pointers(cpu);
  return (soft_pointer_set){soft_peek(cpu->xsave + AT_FOP, 16), soft_peek(cpu->xsave + AT_FIP, 64),
                            soft_peek(cpu->xsave + AT_FDP, 64)};
}

void soft_set_pointers(soft_cpu *cpu, soft_pointer_set pointers) {
  cpu->x87_at = NULL;
  soft_poke(cpu->xsave + AT_FOP, pointers.fop, 16);
  soft_poke(cpu->xsave + AT_FIP, pointers.fip, 64);
  soft_poke(cpu->xsave + AT_FDP, pointers.fdp, 64);
}

/* Into the registers, before an instruction that stores them from there. */
static void show_pointers(soft_cpu *cpu) {
  soft_pointer_set pointers = soft_get_pointers(cpu);
  uint32_t environment[7];
  __asm__ volatile("fnstenv %0" : "=m"(environment));
  environment[3] = (uint32_t)pointers.fip;
  environment[4] = (uint32_t)pointers.fop << 16;
  environment[5] = (uint32_t)pointers.fdp;
  environment[6] = 0;
  __asm__ volatile("fldenv %0" : : "m"(environment));
}

/* Of an environment in memory, of 16-bit code or others. */
static soft_pointer_set environment_pointers(const uint8_t *memory, unsigned size) {
  bool narrow = size == 14 || size == 94;
  if (narrow) {
    return (soft_pointer_set){0, soft_peek(memory + 6, 16), soft_peek(memory + 10, 16)};
  }
  return (soft_pointer_set){soft_peek(memory + 18, 16) & 0x7ff, soft_peek(memory + 12, 32),
                            soft_peek(memory + 20, 32)};
}

static unsigned components_of(soft_vector_kind kind) {
  static const uint8_t components[] = {[SOFT_X87] = SOFT_LIVE_X87,
                                       [SOFT_MMX] = SOFT_LIVE_X87,
                                       [SOFT_SSE] = SOFT_LIVE_SSE,
                                       [SOFT_SSE_MMX] = SOFT_LIVE_SSE | SOFT_LIVE_X87,
                                       [SOFT_AVX] = SOFT_LIVE_SSE | SOFT_LIVE_AVX,
                                       [SOFT_AVX512] =
                                           SOFT_LIVE_SSE | SOFT_LIVE_AVX | SOFT_LIVE_AVX512,
                                       [SOFT_GENERAL] = 0};
  return components[kind];
}

void soft_live(soft_cpu *cpu, soft_vector_kind kind) {
  unsigned wanted = components_of(kind) & ~(unsigned)cpu->vector_live;
  if (!wanted) {
    return;
  }
  unsigned in_use = (unsigned)soft_peek(cpu->xsave + AT_COMPONENTS, 8);
  if (wanted & SOFT_LIVE_AVX && in_use >> SOFT_AREA_ZMM & 1) { /* which AVX clears */
    wanted |= SOFT_LIVE_AVX512;
  }
  if (wanted & SOFT_LIVE_X87) {
    load_x87(cpu);
  }
  if (wanted & SOFT_LIVE_SSE) {
    load_sse(cpu, !(in_use & SOFT_LIVE_SSE));
  }
  if (wanted & SOFT_LIVE_AVX) {
    load_avx(cpu, !(in_use & SOFT_LIVE_AVX));
  }
  if (wanted & SOFT_LIVE_AVX512) {
    load_avx512(cpu, !(in_use & SOFT_LIVE_AVX512));
  }
  cpu->vector_live |= (uint8_t)wanted;
}

/* What was not loaded has not changed. */
void soft_park(soft_cpu *cpu) {
  unsigned live = cpu->vector_live;
  if (!live) {
    return;
  }
  if (live & SOFT_LIVE_X87) {
    save_x87(cpu);
  }
  if (live & SOFT_LIVE_SSE) {
    save_sse(cpu);
  }
  if (live & SOFT_LIVE_AVX512) {
    save_avx512(cpu);
  }
  if (live & SOFT_LIVE_AVX) {
    save_avx(cpu);
  }
  uint64_t in_use = soft_peek(cpu->xsave + AT_COMPONENTS, 64);
  soft_poke(cpu->xsave + AT_COMPONENTS, in_use | (live & ~(unsigned)SOFT_LIVE_X87), 64);
  cpu->vector_live = 0;
  cpu->vector_ready = 0;
}

void soft_vector_abandon(soft_cpu *cpu) {
  __asm__ volatile("fninit\n\tfldcw %0\n\tldmxcsr %1" : : "m"(cpu->host_fcw), "m"(cpu->host_mxcsr));
  if (cpu->vector_live & SOFT_LIVE_AVX) {
    __asm__ volatile("vzeroupper");
  }
  cpu->vector_live = 0;
  cpu->vector_ready = 0;
}

void soft_vector_reset(soft_cpu *cpu) {
  cpu->vector_live = 0;
  cpu->vector_ready = 0;
  cpu->x87_at = NULL;
  for (unsigned i = 0; i < SOFT_XSAVE_SIZE / 8; i++) {
    soft_poke(cpu->xsave + i * 8, 0, 64);
  }
  soft_poke(cpu->xsave, 0x37f, 16); /* FCW */
  soft_poke(cpu->xsave + 24, MXCSR_MASKS, 32);
  soft_poke(cpu->xsave + 28, 0xffff, 32); /* MXCSR_MASK */
}

/* VEX and EVEX are no prefixes there. */
static bool is_old_mode(const soft_cpu *cpu) {
  return soft_is_real(cpu) || soft_is_vm86(cpu);
}

void soft_vector_check(soft_cpu *cpu, soft_vector_kind kind) {
  bool invalid = false, absent = cpu->cr0 & CR0_TS;
  switch (kind) {
    case SOFT_X87:
      absent |= cpu->cr0 & CR0_EM;
      break;
    case SOFT_MMX:
      invalid = cpu->cr0 & CR0_EM;
      break;
    case SOFT_SSE:
    case SOFT_SSE_MMX:
      invalid = cpu->cr0 & CR0_EM || !(cpu->cr4 & CR4_OSFXSR);
      break;
    case SOFT_AVX:
      invalid = !(cpu->cr4 & CR4_OSXSAVE) || (cpu->xcr0 & 6) != 6 || is_old_mode(cpu);
      break;
    case SOFT_AVX512:
      invalid = !(cpu->cr4 & CR4_OSXSAVE) || (cpu->xcr0 & 0xe6) != 0xe6 || is_old_mode(cpu);
      break;
    default:
      absent = false;
      break;
  }
  if (soft_unlikely(invalid)) {
    soft_raise(cpu, VECTOR_UD);
  }
  if (soft_unlikely(absent)) {
    soft_raise(cpu, VECTOR_NM);
  }
}

/* The host never meets an instruction that waits with an exception pending. Without CR0.NE the
 * guest's would be an interrupt from outside, which nobody sends: it is dropped. */
static void take_pending(soft_cpu *cpu) {
  uint16_t status;
  __asm__ volatile("fnstsw %0" : "=a"(status));
  if (soft_unlikely(status & 0x80)) {
    if (cpu->cr0 & CR0_NE) {
      soft_park(cpu);
      soft_raise(cpu, VECTOR_MF);
    }
    __asm__ volatile("fnclex");
  }
}

/* Where the operand is: in one page of memory itself, or a copy. */
static void *operand(soft_cpu *cpu, const soft_insn *insn, const soft_vector *vector,
                     uint64_t *linear, bool *copied) {
  soft_access access = vector->access & SOFT_WRITE ? SOFT_WRITE : SOFT_READ;
  *linear = soft_address(cpu, insn, vector->size, access);
  if (soft_unlikely(*linear & vector->align)) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
  if (soft_unlikely(vector->stores_last)) {
    *copied = true;
    return cpu->bounce;
  }
  void *memory = soft_reach(cpu, *linear, vector->size, access);
  *copied = !memory;
  if (soft_unlikely(*copied)) {
    memory = cpu->bounce;
    if (vector->access & SOFT_WRITE) {
      soft_store_prepare(cpu, *linear, vector->size);
    }
    if (vector->access & SOFT_READ) {
      soft_load_bytes(cpu, *linear, memory, vector->size);
    }
  }
  return memory;
}

/* A sanitizer's own code may use vector registers anywhere: this file goes without the thread
 * sanitizer, and calls others with nothing live. */
SOFT_INLINE void give_way(soft_cpu *cpu) {
#ifdef SOFT_SANITIZED
  soft_park(cpu);
#else
  (void)cpu;
#endif
}

/* What stubs of instructions that write flags end in. */
const soft_insn *soft_vector_flags(soft_cpu *cpu, const soft_insn *insn, uint64_t flags) {
  give_way(cpu);
  soft_set_flags(cpu, (cpu->rflags & ~(uint64_t)FLAGS_ARITHMETIC) | (flags & FLAGS_ARITHMETIC));
  return soft_vector_done(cpu, insn, flags);
}

const soft_insn *soft_vector_done(soft_cpu *cpu, const soft_insn *insn, uint64_t flags) {
  (void)flags;
  give_way(cpu);
  SOFT_NEXT;
}

/* Where a stub goes on when its result is a copy that has to be stored. */
static SOFT_HANDLER(stop) {
  (void)cpu;
  (void)insn;
  return NULL;
}
static const soft_insn back[2] = {{.run = stop}, {.run = stop}};

void soft_vector_bounce(soft_cpu *cpu, const soft_vector *vector) {
  soft_live(cpu, vector->kind);
  vector->code(cpu->bounce, back, cpu);
}

static SOFT_COLD const soft_insn *on_copy(soft_cpu *cpu, const soft_insn *insn, uint64_t linear) {
  const soft_vector *vector = insn->aux;
  if (!(vector->access & SOFT_WRITE)) {
    return vector->code(cpu->bounce, insn, cpu);
  }
  vector->code(cpu->bounce, back, cpu);
  soft_store_bytes(cpu, linear, cpu->bounce, vector->size);
  SOFT_NEXT_BY_LOOP;
}

/* The offset of the memory operand. */
static uint64_t data_pointer(const soft_cpu *cpu, const soft_insn *insn) {
  return soft_trim(soft_offset(cpu, insn), insn->address_size * 8);
}

/* Those that do more to FOP, FIP and FDP than to set them. */
static SOFT_COLD const soft_insn *about_pointers(soft_cpu *cpu, const soft_insn *insn, void *memory,
                                                 uint64_t linear, bool copied) {
  const soft_vector *vector = insn->aux;
  soft_pointer_set after = {0, 0, 0};
  if (vector->pointers <= SOFT_POINTERS_SAVED) {
    show_pointers(cpu);
  } else if (vector->pointers == SOFT_POINTERS_LOADED) {
    after = environment_pointers(memory, vector->size);
  }
  vector->code(memory, back, cpu);
  if (copied && vector->access & SOFT_WRITE) {
    soft_store_bytes(cpu, linear, memory, vector->size);
  }
  if (vector->pointers != SOFT_POINTERS_STORED) {
    soft_set_pointers(cpu, after);
  }
  SOFT_NEXT_BY_LOOP;
}

/* Any of them; the first of a kind after the state was parked, so that stubs may then do without
 * the checks. */
SOFT_OP(vector) {
  const soft_vector *vector = insn->aux;
  void *memory = NULL;
  uint64_t linear = 0;
  bool copied = false;
  cpu->current = insn;
  soft_vector_check(cpu, vector->kind);
  if (vector->flags_in) {
    cpu->vector_flags = (soft_flags(cpu) & FLAGS_ARITHMETIC) | FLAG_ONE | FLAG_IF;
  }
  soft_live(cpu, vector->kind);
  if (vector->waits) {
    take_pending(cpu);
  }
  if (vector->size) {
    give_way(cpu);
    memory = operand(cpu, insn, vector, &linear, &copied);
    soft_live(cpu, vector->kind); /* a device may have parked it */
  }
  cpu->vector_ready |= (uint8_t)(1u << vector->kind);
  if (vector->pointers == SOFT_POINTERS_SET) {
    cpu->x87_at = insn;
    cpu->x87_base = cpu->r[R_BLOCK];
    if (vector->size) {
      soft_poke(cpu->xsave + AT_FDP, data_pointer(cpu, insn), 64);
    }
  } else if (soft_unlikely(vector->pointers)) {
    return about_pointers(cpu, insn, memory, linear, copied);
  }
  return copied ? on_copy(cpu, insn, linear) : vector->code(memory, insn, cpu);
}

SOFT_INLINE const soft_insn *in_memory(soft_cpu *cpu, const soft_insn *insn, soft_access access) {
  const soft_vector *vector = insn->aux;
  uint64_t linear;
  void *host = soft_quick_linear(cpu, insn, vector->size, access, &linear);
  bool ready = cpu->vector_ready >> vector->kind & 1;
  if (soft_unlikely(!host || !ready || linear & vector->align)) {
    return soft_op_vector(cpu, insn, 0);
  }
  return vector->code(host, insn, cpu);
}

SOFT_OP(vector_load) {
  return in_memory(cpu, insn, SOFT_READ);
}

SOFT_OP(vector_store) {
  return in_memory(cpu, insn, SOFT_WRITE);
}
