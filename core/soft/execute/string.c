/* SPDX-License-Identifier: MIT
 * String instructions. Each iteration is finished before the next begins, so that a fault, an exit
 * or an interrupt finds the registers as if it came between two instructions. */
#include "soft/execute/execute.h"

SOFT_INLINE uint64_t source(soft_cpu *cpu, const soft_insn *insn, int bits) {
  cpu->current = insn;
  return soft_linear(cpu, insn->segment, soft_trim(cpu->r[RSI], insn->address_size * 8),
                     (unsigned)bits / 8, SOFT_READ);
}

SOFT_INLINE uint64_t target(soft_cpu *cpu, const soft_insn *insn, soft_access access, int bits) {
  cpu->current = insn;
  return soft_linear(cpu, SEG_ES, soft_trim(cpu->r[RDI], insn->address_size * 8),
                     (unsigned)bits / 8, access);
}

SOFT_INLINE void advance(soft_cpu *cpu, const soft_insn *insn, int number, int bits) {
  uint64_t by = (uint64_t)(bits / 8);
  soft_set_gpr(cpu, number, cpu->r[number] + (cpu->rflags & FLAG_DF ? -by : by),
               insn->address_size * 8);
}

/* A comparison, as CMP. */
SOFT_INLINE void compare(soft_cpu *cpu, uint64_t a, uint64_t b, int bits) {
  uint64_t result = a - b;
  soft_set_result(cpu, result, (~a & b) | (~(a ^ b) & result), bits);
}

typedef enum string_kind {
  STRING_MOVS,
  STRING_STOS,
  STRING_LODS,
  STRING_CMPS,
  STRING_SCAS
} string_kind;

SOFT_INLINE void once(soft_cpu *cpu, const soft_insn *insn, string_kind kind, int bits) {
  uint64_t value, other;
  switch (kind) {
    case STRING_MOVS:
      value = soft_load(cpu, source(cpu, insn, bits), bits);
      soft_store(cpu, target(cpu, insn, SOFT_WRITE, bits), value, bits);
      advance(cpu, insn, RSI, bits);
      advance(cpu, insn, RDI, bits);
      break;
    case STRING_STOS:
      soft_store(cpu, target(cpu, insn, SOFT_WRITE, bits), soft_gpr(cpu, RAX, bits), bits);
      advance(cpu, insn, RDI, bits);
      break;
    case STRING_LODS:
      value = soft_load(cpu, source(cpu, insn, bits), bits);
      soft_set_gpr(cpu, RAX, value, bits);
      advance(cpu, insn, RSI, bits);
      break;
    case STRING_CMPS:
      value = soft_load(cpu, source(cpu, insn, bits), bits);
      other = soft_load(cpu, target(cpu, insn, SOFT_READ, bits), bits);
      compare(cpu, value, other, bits);
      advance(cpu, insn, RSI, bits);
      advance(cpu, insn, RDI, bits);
      break;
    default:
      other = soft_load(cpu, target(cpu, insn, SOFT_READ, bits), bits);
      compare(cpu, soft_gpr(cpu, RAX, bits), other, bits);
      advance(cpu, insn, RDI, bits);
      break;
  }
}

/* Whether the loop has to come back from here: something is due, or the iteration ran alone. */
SOFT_INLINE bool breaks(soft_cpu *cpu) {
  return cpu->single || --cpu->budget <= 0;
}

/* ---- Whole pages at a time: REP MOVS and REP STOS upwards within pages of plain memory ---- */

/* How many elements lie before the ends of both pages, and of the budget. */
static uint64_t run_length(uint64_t count, uint64_t a, uint64_t b, unsigned size) {
  uint64_t room_a = (SOFT_PAGE - (a & (SOFT_PAGE - 1))) / size;
  uint64_t room_b = (SOFT_PAGE - (b & (SOFT_PAGE - 1))) / size;
  uint64_t room = room_a < room_b ? room_a : room_b;
  return count < room ? count : room;
}

static bool whole(const soft_cpu *cpu, const soft_insn *insn) {
  return insn->form == SOFT_FLAT && insn->address_size == 8 && insn->segment < SEG_FS &&
         !(cpu->rflags & FLAG_DF) && !cpu->single && !cpu->no_links && soft_is_64(cpu);
}

static void finish_run(soft_cpu *cpu, uint64_t done, unsigned size, bool source_too) {
  cpu->r[RDI] += done * size;
  if (source_too) {
    cpu->r[RSI] += done * size;
  }
  cpu->r[RCX] -= done;
  cpu->budget -= (int64_t)(done / 8);
}

static bool overlaps_upwards(const uint8_t *to, const uint8_t *from, uint64_t bytes) {
  return to > from && (uint64_t)(to - from) < bytes;
}

/* How many elements it has moved; 0 where they have to go one by one. */
static uint64_t move_run(soft_cpu *cpu, const soft_insn *insn, unsigned size) {
  if (!whole(cpu, insn)) {
    return 0;
  }
  uint64_t from = cpu->r[RSI], to = cpu->r[RDI];
  const soft_tlb *read = soft_entry(cpu, from), *write = soft_entry(cpu, to);
  if (read->read != (from & ~UINT64_C(0xfff)) || write->write != (to & ~UINT64_C(0xfff))) {
    return 0;
  }
  uint64_t done = run_length(cpu->r[RCX], from, to, size);
  uint8_t *host_to = soft_at(write, to);
  const uint8_t *host_from = soft_at(read, from);
  if (overlaps_upwards(host_to, host_from, done * size)) {
    return 0;
  }
  uint64_t left = done * size;
  void *d = host_to;
  const void *s = host_from;
  cpu->current = insn;
  __asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(left) : : "memory");
  finish_run(cpu, done, size, true);
  return done;
}

static uint64_t fill_run(soft_cpu *cpu, const soft_insn *insn, unsigned size) {
  if (!whole(cpu, insn)) {
    return 0;
  }
  uint64_t to = cpu->r[RDI];
  const soft_tlb *write = soft_entry(cpu, to);
  if (write->write != (to & ~UINT64_C(0xfff))) {
    return 0;
  }
  uint64_t done = run_length(cpu->r[RCX], to, to, size), left = done;
  void *d = soft_at(write, to);
  cpu->current = insn;
  switch (size) {
    case 1:
      __asm__ volatile("rep stosb" : "+D"(d), "+c"(left) : "a"(cpu->r[RAX]) : "memory");
      break;
    case 2:
      __asm__ volatile("rep stosw" : "+D"(d), "+c"(left) : "a"(cpu->r[RAX]) : "memory");
      break;
    case 4:
      __asm__ volatile("rep stosl" : "+D"(d), "+c"(left) : "a"(cpu->r[RAX]) : "memory");
      break;
    default:
      __asm__ volatile("rep stosq" : "+D"(d), "+c"(left) : "a"(cpu->r[RAX]) : "memory");
      break;
  }
  finish_run(cpu, done, size, false);
  return done;
}

SOFT_INLINE const soft_insn *string(soft_cpu *cpu, const soft_insn *insn, string_kind kind,
                                    int bits) {
  if (insn->repeat == SOFT_ONCE) {
    once(cpu, insn, kind, bits);
    SOFT_NEXT;
  }
  int width = insn->address_size * 8;
  bool compares = kind == STRING_CMPS || kind == STRING_SCAS;
  while (soft_gpr(cpu, RCX, width)) {
    if (kind == STRING_MOVS && move_run(cpu, insn, (unsigned)bits / 8)) {
    } else if (kind == STRING_STOS && fill_run(cpu, insn, (unsigned)bits / 8)) {
    } else {
      once(cpu, insn, kind, bits);
      soft_set_gpr(cpu, RCX, cpu->r[RCX] - 1, width);
    }
    if (compares && soft_zf(cpu) != (insn->repeat == SOFT_REPE)) {
      break;
    }
    if (soft_unlikely(breaks(cpu))) {
      if (!soft_gpr(cpu, RCX, width)) {
        break;
      }
      cpu->rip = soft_rip_at(cpu, insn);
      return NULL;
    }
  }
  SOFT_NEXT;
}

#define STRING(name, kind)                                                                         \
  SOFT_INLINE const soft_insn *name(soft_cpu *cpu, const soft_insn *insn, int bits) {              \
    return string(cpu, insn, kind, bits);                                                          \
  }                                                                                                \
  SOFT_BY_SIZE(name)

STRING(movs, STRING_MOVS)
STRING(stos, STRING_STOS)
STRING(lods, STRING_LODS)
STRING(cmps, STRING_CMPS)
STRING(scas, STRING_SCAS)
