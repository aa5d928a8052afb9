/* SPDX-License-Identifier: MIT
 * A decoded instruction, the block that it is part of, and the handlers that decoding chooses
 * from. */
#ifndef SOFT_INSN_H
#define SOFT_INSN_H

#include "soft/cpu.h"

/* Of an operand. */
enum {
  SOFT_NO_OPERAND,
  SOFT_REGISTER,
  SOFT_MEMORY,
  SOFT_IMMEDIATE
};

/* How an address is made. */
enum {
  SOFT_FLAT, /* 64-bit code, no base */
  SOFT_FLAT_INDEXED,
  SOFT_FLAT_32, /* code of flat segments */
  SOFT_FLAT_32_INDEXED,
  SOFT_BASED,      /* 64-bit code, FS or GS */
  SOFT_SHORT,      /* 64-bit code, 32-bit address */
  SOFT_SEGMENT_32, /* a segment with its limit */
  SOFT_SEGMENT_16
};

/* What code is decoded for: a soft_mode, or 32-bit code whose data and stack segments are all of
 * memory. */
enum {
  SOFT_CODE_FLAT = 3
};

/* Prefixes of a string instruction. */
enum {
  SOFT_ONCE,
  SOFT_REPE, /* REP too */
  SOFT_REPNE
};

struct soft_insn {
  soft_handler run;
  uint8_t length;
  uint8_t size; /* bytes of the first operand */
  uint8_t to_kind;
  uint8_t from_kind;
  uint8_t to; /* registers: byte offsets into soft_cpu.r */
  uint8_t from;
  uint8_t base; /* register numbers */
  uint8_t index;
  uint8_t shift;
  uint8_t segment;
  uint8_t form; /* SOFT_FLAT and so on */
  uint8_t condition;
  uint8_t repeat;
  uint8_t operand_size; /* bytes */
  uint8_t address_size;
  uint8_t extra; /* a register number, or what the handler says */
  bool locked;
  uint8_t effect;       /* decode/polish.c: on flags */
  uint8_t gives;        /* bytes of `to` that are its value to the next one's handler */
  bool steps_down;      /* DEC of a register */
  bool chooses;         /* takes is set */
  bool forgets;         /* the first of a block that writes all flags before anything sees them */
  bool silent;          /* nobody sees its flags */
  bool native;          /* the first of a run: decode/native.c */
  uint32_t offset_mask; /* of SOFT_SEGMENT_16 and _32 */
  uint16_t offset;      /* in its page */
  uint16_t count;       /* instructions of its block */
  int64_t displacement;
  uint64_t immediate;
  union {
    soft_block *link;          /* where a branch went last: link_rip */
    const soft_handler *takes; /* its handlers, by soft_take; NULL where there is but one */
    const void *aux;           /* vector/: the stub */
  };
  union {
    uint64_t link_stamp; /* of the world that link is valid in */
    soft_handler usual;  /* of the first of a run */
  };
  uint64_t link_rip;
};

/* Instructions in a row within one page of memory, then one that ends it. */
struct soft_block {
  const uint8_t *host; /* of its first byte */
  uint32_t key;        /* soft_code_kind and SOFT_BLOCK_* */
  uint16_t bytes;
  uint16_t count;
  uint8_t heat;      /* how often it was found at work */
  uint64_t verified; /* the epoch in which it was compared with memory */
  uint64_t lines;    /* bits of its in the mark of its host page */
  soft_block *next;
  uint8_t copy[64];
  soft_insn insns[];
};

enum {
  SOFT_BLOCK_SINGLE = 4,  /* one instruction */
  SOFT_BLOCK_CROSSES = 8, /* the same, over the end of its page */
  SOFT_BLOCK_HOT = 2,     /* its heat when it is worth machine code */
  SOFT_BLOCK_INSNS = 24,
  SOFT_BLOCK_BYTES = 48 /* further instructions begin below this */
};

/* clang-format off */
/* Handlers by the size of the operand: 8, 16, 32, 64 bits. */
#define SOFT_SIZED(X)                                                                              \
  X(inc) X(dec) X(neg) X(not) X(shl) X(shr) X(sar) X(rol) X(ror) X(rcl) X(rcr) X(shld) X(shrd)     \
  X(mul) X(imul) X(imul_to) X(div) X(idiv) X(xchg) X(cmpxchg) X(xadd) X(movzx8) X(movzx16)         \
  X(movsx8) X(movsx16) X(movsx32) X(cmov) X(bt) X(bts) X(btr) X(btc) X(bsf) X(bsr) X(tzcnt)        \
  X(lzcnt) X(popcnt) X(bswap) X(movbe) X(push) X(push_register) X(pop) X(movs) X(cmps) X(stos)     \
  X(lods) X(scas) X(call) X(ret) X(ins) X(outs) X(in) X(out) X(crc32) X(mulx)

/* Handlers that know their size. */
#define SOFT_PLAIN(X)                                                                              \
  X(setcc) X(jmp) X(jmp_to) X(call_to) X(loop) X(jcxz) X(end) X(nop) X(flush)        \
  X(pusha) X(popa) X(pushf) X(popf) X(leave) X(enter) X(cbw) X(cwd) X(clc) X(stc) X(cmc) X(cld)    \
  X(std) X(cli) X(sti) X(lahf) X(sahf) X(daa) X(das) X(aaa) X(aas) X(aam) X(aad) X(xlat)           \
  X(salc) X(hlt) X(mov_from_cr) X(mov_to_cr) X(mov_from_dr) X(mov_to_dr) X(lgdt) X(lidt)           \
  X(sgdt) X(sidt) X(lldt) X(ltr) X(sldt) X(str) X(lmsw) X(smsw) X(clts) X(invlpg) X(invpcid)       \
  X(wbinvd) X(rdmsr) X(wrmsr) X(cpuid) X(rdtsc) X(rdtscp) X(rdpid) X(rdpmc) X(syscall)             \
  X(sysret) X(sysenter) X(sysexit) X(swapgs) X(rdbase) X(wrbase) X(xgetbv) X(xsetbv) X(lar)        \
  X(lsl) X(verr) X(verw) X(load_far) X(jmp_far) X(call_far) X(ret_far) X(iret) X(int_n) X(int3)    \
  X(into) X(int1) X(ud) X(unknown) X(vmcall) X(clac) X(stac) X(cmpxchg8b) X(cmpxchg16b)            \
  X(bound) X(mov_to_segment) X(mov_from_segment) X(push_segment) X(pop_segment) X(rdrand)          \
  X(arpl) X(movnti) X(monitor) X(mwait) X(pause) X(invd) X(rdseed) X(vmx) X(vmmcall)               \
  X(vector) X(fxsave) X(fxrstor) X(xsave) X(xrstor) X(xsavec) X(xsaves) \
  X(xrstors) X(rdpkru) X(wrpkru) X(gather)

/* clang-format on */

#define SOFT_DECLARE_SIZED(name) extern const soft_handler soft_op_##name[4];
SOFT_SIZED(SOFT_DECLARE_SIZED)
#undef SOFT_DECLARE_SIZED

#define SOFT_DECLARE_PLAIN(name) SOFT_HANDLER(soft_op_##name);
SOFT_PLAIN(SOFT_DECLARE_PLAIN)
#undef SOFT_DECLARE_PLAIN

/* Operations with two operands that most code is made of: one handler for each form. */
typedef enum soft_alu {
  SOFT_ADD,
  SOFT_OR,
  SOFT_ADC,
  SOFT_SBB,
  SOFT_AND,
  SOFT_SUB,
  SOFT_XOR,
  SOFT_CMP,
  SOFT_TEST,
  SOFT_MOV,
  SOFT_ALUS
} soft_alu;

typedef enum soft_form {
  SOFT_REGISTER_REGISTER,
  SOFT_REGISTER_IMMEDIATE,
  SOFT_REGISTER_MEMORY,
  SOFT_MEMORY_REGISTER,
  SOFT_MEMORY_IMMEDIATE,
  SOFT_FORMS
} soft_form;

/* What a handler takes from the one before instead of loading it: a value that has just been stored
 * to a register comes back from the host's memory some eight cycles later, and most instructions
 * are about the result of the one before. */
typedef enum soft_take {
  SOFT_TAKE_NONE,
  SOFT_TAKE_TO,
  SOFT_TAKE_FROM,
  SOFT_TAKE_BASE,
  SOFT_TAKE_INDEX,
  SOFT_TAKES
} soft_take;

/* Here and below NULL is where there is none. */
extern const soft_handler soft_op_alu[SOFT_ALUS][4][SOFT_FORMS][SOFT_TAKES];
/* The forms with memory for SOFT_SEGMENT_16. */
extern const soft_handler soft_op_alu_short[SOFT_ALUS][4][SOFT_FORMS][SOFT_TAKES];
/* The first two forms without flags. */
extern const soft_handler soft_op_quiet[SOFT_ALUS][4][2][SOFT_TAKES];
extern const soft_handler soft_op_lea_takes[4][SOFT_TAKES];
extern const soft_handler soft_op_jump_if[16];
/* CMP, TEST or DEC of registers (or with an immediate) and the conditional jump behind it. */
typedef enum soft_pair {
  SOFT_CMP_JUMP,
  SOFT_TEST_JUMP,
  SOFT_DEC_JUMP,
  SOFT_PAIRS
} soft_pair;
extern const soft_handler soft_op_pair[SOFT_PAIRS][4][2][16];

/* decode/decode.c: makes instructions of the bytes, up to `most`, into the block. False where the
 * bytes end within the first. Vector state has to be parked. */
bool soft_decode(soft_cpu *cpu, soft_block *block, const uint8_t *bytes, size_t size, unsigned most,
                 unsigned page_offset);

/* The same for a block whose bytes have changed within one instruction, which is as long as it was;
 * false, and nothing has changed, where that is not so. */
bool soft_decode_change(soft_cpu *cpu, soft_block *block, const uint8_t *bytes);

/* decode/block.c: the block at rip, made where there is none. Faults as a fetch does. */
soft_block *soft_block_find(soft_cpu *cpu, bool single);
/* The same, but for one instruction alone, by the jump cache. */
soft_block *soft_block_next(soft_cpu *cpu);
/* The block was found at work: where that is so again, its runs become machine code. */
void soft_block_heat(soft_cpu *cpu, soft_block *block);
/* `size` bytes, aligned, that live as long as the block that is being made. */
void *soft_arena_take(soft_cpu *cpu, size_t size);
/* Forgets every block. */
void soft_blocks_drop(soft_cpu *cpu);
/* The same at the end of a CPU: leaves nothing in its tables. */
void soft_blocks_clear(soft_cpu *cpu);
/* A write to memory that the mark of its line says is code: after it, blocks are compared again. */
void soft_code_written(soft_cpu *cpu, const uint8_t *host, size_t size);
/* Links and the jump cache end; and again for this mode, privilege level and code segment. */
void soft_links_drop(soft_cpu *cpu);
void soft_links_select(soft_cpu *cpu);
/* Code may have changed. */
void soft_epoch_end(soft_cpu *cpu);

SOFT_INLINE unsigned soft_code_kind(const soft_cpu *cpu) {
  return cpu->flat ? SOFT_CODE_FLAT : (unsigned)cpu->mode;
}

SOFT_INLINE soft_jump *soft_jump_of(const soft_cpu *cpu, uint64_t linear) {
  return (soft_jump *)(uintptr_t)&cpu->jumps[(linear ^ linear >> 12) & (SOFT_JUMPS - 1)];
}

SOFT_INLINE unsigned soft_mark_number(const uint8_t *host) {
  return (unsigned)((uintptr_t)host >> 12 & (SOFT_MARKS - 1));
}
SOFT_INLINE uint64_t *soft_mark(const soft_cpu *cpu, const uint8_t *host) {
  return &cpu->marks[soft_mark_number(host)];
}
SOFT_INLINE bool soft_coded(const soft_cpu *cpu, const uint8_t *host) {
  unsigned number = soft_mark_number(host);
  return cpu->coded[number / 64] >> number % 64 & 1;
}
SOFT_INLINE void soft_set_coded(soft_cpu *cpu, const uint8_t *host, bool coded) {
  unsigned number = soft_mark_number(host);
  uint64_t bit = UINT64_C(1) << number % 64, *word = &cpu->coded[number / 64];
  *word = coded ? *word | bit : *word & ~bit;
}

#endif
