/* SPDX-License-Identifier: MIT
 * Running a vector instruction: the state in the host's registers, the checks before it, its memory
 * operand. Exceptions that the host's processor raises within a stub are the guest's:
 * kernel/signal.c. */
#include "soft/vector/vector.h"

#include "soft/execute/execute.h"

enum {
  COMPONENTS = 0xe7, /* x87, SSE, AVX, AVX-512 */
  MXCSR_MASKS = 0x1f80
};

static void save(uint8_t *area) {
  __asm__ volatile("xsave64 %0"
                   : "+m"(*(uint8_t(*)[SOFT_XSAVE_SIZE])area)
                   : "a"(COMPONENTS), "d"(0)
                   : "memory");
}

static void restore(const uint8_t *area) {
  __asm__ volatile("xrstor64 %0"
                   :
                   : "m"(*(const uint8_t(*)[SOFT_XSAVE_SIZE])area), "a"(COMPONENTS), "d"(0)
                   : "memory");
}

void soft_live(soft_cpu *cpu) {
  if (cpu->vector_live) {
    return;
  }
  __asm__ volatile("stmxcsr %0\n\tfnstcw %1" : "=m"(cpu->host_mxcsr), "=m"(cpu->host_fcw));
  restore(cpu->xsave);
  cpu->vector_live = true;
}

void soft_park(soft_cpu *cpu) {
  if (!cpu->vector_live) {
    return;
  }
  save(cpu->xsave);
  cpu->vector_live = false;
  cpu->vector_ready = 0;
  __asm__ volatile("fninit\n\tfldcw %1\n\tldmxcsr %0\n\tvzeroupper"
                   :
                   : "m"(cpu->host_mxcsr), "m"(cpu->host_fcw)
                   : "memory");
}

void soft_vector_reset(soft_cpu *cpu) {
  cpu->vector_live = false;
  cpu->vector_ready = 0;
  for (unsigned i = 0; i < SOFT_XSAVE_SIZE / 8; i++) {
    soft_poke(cpu->xsave + i * 8, 0, 64);
  }
  soft_poke(cpu->xsave, 0x37f, 16); /* FCW */
  soft_poke(cpu->xsave + 24, MXCSR_MASKS, 32);
  soft_poke(cpu->xsave + 28, 0xffff, 32); /* MXCSR_MASK */
}

uint64_t soft_xcr0_known(void) {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low & 7;
}

bool soft_xcr0_right(const soft_cpu *cpu, uint64_t value) {
  (void)cpu;
  return value & 1 && !(value & ~soft_xcr0_known()) && (value & 6) != 4;
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
      invalid = cpu->cr0 & CR0_EM || !(cpu->cr4 & CR4_OSFXSR);
      break;
    case SOFT_AVX:
      invalid = !(cpu->cr4 & CR4_OSXSAVE) || (cpu->xcr0 & 6) != 6;
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

/* What stubs of instructions that write flags end in. */
const soft_insn *soft_vector_flags(soft_cpu *cpu, const soft_insn *insn, uint64_t flags) {
  soft_set_flags(cpu, (cpu->rflags & ~(uint64_t)FLAGS_ARITHMETIC) | (flags & FLAGS_ARITHMETIC));
  return soft_vector_done(cpu, insn, flags);
}

const soft_insn *soft_vector_done(soft_cpu *cpu, const soft_insn *insn, uint64_t flags) {
  (void)flags;
#ifdef SOFT_SANITIZED
  soft_park(cpu); /* a sanitizer's own code may use vector registers anywhere */
#else
  (void)cpu;
#endif
  SOFT_NEXT;
}

/* Where a stub goes on when its result is a copy that has to be stored. */
static const soft_insn *stop(soft_cpu *cpu, const soft_insn *insn) {
  (void)cpu;
  (void)insn;
  return NULL;
}
static const soft_insn back[2] = {{.run = stop}, {.run = stop}};

static SOFT_COLD const soft_insn *on_copy(soft_cpu *cpu, const soft_insn *insn, uint64_t linear) {
  const soft_vector *vector = insn->aux;
  if (!(vector->access & SOFT_WRITE)) {
    return vector->code(cpu->bounce, insn, cpu);
  }
  vector->code(cpu->bounce, back, cpu);
  soft_store_bytes(cpu, linear, cpu->bounce, vector->size);
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
  soft_live(cpu);
  if (vector->waits) {
    take_pending(cpu);
  }
  if (vector->size) {
    memory = operand(cpu, insn, vector, &linear, &copied);
    soft_live(cpu); /* a device may have parked it */
  }
  if (vector->flags_in) {
    cpu->vector_flags = (soft_flags(cpu) & FLAGS_ARITHMETIC) | FLAG_ONE | FLAG_IF;
  }
  cpu->vector_ready |= (uint8_t)(1u << vector->kind);
  return copied ? on_copy(cpu, insn, linear) : vector->code(memory, insn, cpu);
}

SOFT_INLINE const soft_insn *in_memory(soft_cpu *cpu, const soft_insn *insn, soft_access access) {
  const soft_vector *vector = insn->aux;
  uint64_t linear;
  void *host = soft_quick_linear(cpu, insn, vector->size, access, &linear);
  bool ready = cpu->vector_ready >> vector->kind & 1;
  if (soft_unlikely(!host || !ready || linear & vector->align)) {
    return soft_op_vector(cpu, insn);
  }
  return vector->code(host, insn, cpu);
}

SOFT_OP(vector_load) {
  return in_memory(cpu, insn, SOFT_READ);
}

SOFT_OP(vector_store) {
  return in_memory(cpu, insn, SOFT_WRITE);
}
