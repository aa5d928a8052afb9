/* SPDX-License-Identifier: MIT
 * The state of a software CPU and of the machine that it belongs to. Everything here is of one
 * vCPU's thread, but for what says that other threads use it. */
#ifndef SOFT_CPU_H
#define SOFT_CPU_H

#include "lunavisor.h"
#include "soft/x86.h"

#include <linux/kvm.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SOFT_INLINE static inline __attribute__((always_inline))
#define SOFT_COLD __attribute__((noinline, cold))
#define soft_likely(x) __builtin_expect(!!(x), 1)
#define soft_unlikely(x) __builtin_expect(!!(x), 0)

enum {
  SOFT_PAGE = 4096,
  SOFT_CPUS_MAX = 64,
  SOFT_SLOTS_MAX = 32764,
  SOFT_RUN_PIO = SOFT_PAGE,      /* where the run page has the data of a port access */
  SOFT_RUN_RING = 2 * SOFT_PAGE, /* and the ring of collected writes */
  SOFT_RUN_SIZE = 3 * SOFT_PAGE,
  SOFT_RUN_PAGES = (2 * SOFT_CPUS_MAX + 1) * SOFT_PAGE, /* of all CPUs of a VM */
  SOFT_XSAVE_SIZE = 4096,
  SOFT_TLB_SIZE = 2048, /* entries of each set */
  SOFT_MARKS = 1 << 16, /* pages by the low bits of their host address */
  SOFT_BLOCK_HASH = 1 << 16,
  SOFT_ARENA_SIZE = 64 << 20,
  SOFT_JUMPS = 4096,
  SOFT_WORLDS = 16,
  SOFT_STUB_BUCKETS = 1024,
  SOFT_POSTS_MAX = 64,
  SOFT_ANSWERS_MAX = 320, /* accesses of an instruction: XSAVE has 304 */
  SOFT_BATCH_MAX = 1024   /* bytes of a port that REP INS asks for at once */
};

typedef struct soft_cpu soft_cpu;
typedef struct soft_vm soft_vm;
typedef struct soft_insn soft_insn;
typedef struct soft_block soft_block;
typedef struct soft_stats soft_stats;
typedef struct soft_stub soft_stub;

/* Where a handler goes on: an instruction, or NULL for the loop, with soft_cpu.rip set. What is
 * passed is what the instruction before has put into its register: soft_take. */
typedef const soft_insn *(*soft_handler)(soft_cpu *cpu, const soft_insn *insn, uint64_t passed);
#define SOFT_HANDLER(name)                                                                         \
  const soft_insn *name(soft_cpu *cpu, const soft_insn *insn,                                      \
                        __attribute__((unused)) uint64_t passed)

/* Why a handler or what it calls has left by soft_leave. */
typedef enum soft_escape {
  SOFT_ESCAPE_EXCEPTION = 1,
  SOFT_ESCAPE_STEP,    /* the instruction has to run again, alone */
  SOFT_ESCAPE_EXIT,    /* the run page has an exit */
  SOFT_ESCAPE_CONTROL, /* the same, and nothing of the instruction was done */
  SOFT_ESCAPE_HOST     /* the host's memory is gone: KVM_RUN fails with EFAULT */
} soft_escape;

/* What other threads ask of a vCPU that runs: soft_cpu.attention. */
enum {
  SOFT_ATTEND_EVENT = 1, /* an interrupt, NMI, INIT or SIPI may be due */
  SOFT_ATTEND_MAP = 2,   /* the slots or their logs have changed */
  SOFT_ATTEND_CODE = 4,  /* code may have been written: compare blocks with memory again */
  SOFT_ATTEND_CLOCK = 8  /* kvmclock or the TSC was set */
};

/* ---- Memory ---- */

typedef struct soft_slot {
  uint64_t gpa;
  uint64_t size;
  uint8_t *hva;
  uint32_t flags; /* KVM_MEM_* */
  uint32_t id;
  _Atomic uint64_t *dirty; /* one bit a page; NULL without KVM_MEM_LOG_DIRTY_PAGES */
} soft_slot;

/* Sorted by address, and never changed: a change of the slots makes another one. */
typedef struct soft_map {
  uint64_t generation;
  uint32_t count;
  soft_slot slots[];
} soft_map;

/* Pages (linear) that may be read, written and fetched from without a walk; `add` makes a linear
 * address a host address. SOFT_NO_PAGE where there is none. A page to write to that code was made
 * of has SOFT_CODE_PAGE added, so that the fast path leaves it alone. */
typedef struct soft_tlb {
  uint64_t read;
  uint64_t write;
  uint64_t fetch;
  uint64_t add;
} soft_tlb;

#define SOFT_NO_PAGE (~UINT64_C(0))
#define SOFT_CODE_PAGE UINT64_C(1)

/* Whose rights a set of the TLB has: soft_tlb_select. */
enum {
  SOFT_AS_SUPERVISOR,
  SOFT_AS_USER,
  SOFT_AS_SMAP,    /* a supervisor kept from user pages */
  SOFT_AS_CHECKED, /* a user whose accesses have to be aligned */
  SOFT_TLB_SETS
};

/* A block that a branch has led to: an entry of the jump cache. */
typedef struct soft_jump {
  uint64_t linear;
  uint64_t stamp;
  uint64_t generation;
  soft_block *block;
} soft_jump;

/* What has to be as it was when a link was made, and a number for all of it: a link is asked for
 * that number alone. */
typedef struct soft_world {
  uint64_t generation;
  uint64_t epoch;
  uint64_t cs_base;
  uint64_t rip_last;
  uint64_t stamp;
} soft_world;

/* ---- Exits ---- */

/* A write to a device, given to user space when its instruction is done. */
typedef struct soft_post {
  uint64_t address;
  bool port;
  uint8_t size;
  uint8_t data[8];
} soft_post;

/* What the run page waits for. */
typedef enum soft_asked {
  SOFT_ASKED_NOTHING,
  SOFT_ASKED_MMIO,
  SOFT_ASKED_PORT,
  SOFT_ASKED_RDMSR,
  SOFT_ASKED_WRMSR
} soft_asked;

/* An exception, interrupt or trap on its way through the IDT. */
typedef enum soft_source {
  SOFT_FROM_FAULT,    /* an exception of the processor */
  SOFT_FROM_INT,      /* INT n */
  SOFT_FROM_INT3,     /* INT3 and INTO */
  SOFT_FROM_INT1,     /* INT1, which checks no privilege */
  SOFT_FROM_INTERRUPT /* an external interrupt or NMI */
} soft_source;

typedef struct soft_event {
  uint8_t vector;
  bool has_error;
  uint32_t error;
  soft_source source;
  uint8_t length; /* of the instruction that it is of; 0 */
  bool resumes;   /* a trap between two iterations of REP */
} soft_event;

/* ---- Descriptor-table registers with their hidden parts are KVM's own structures ---- */

struct soft_cpu {
  /* The hot part. */
  uint64_t r[SOFT_REGISTERS]; /* 0 to 15, then what RIP-relative and absent registers are */
  uint64_t rip;
  /* Arithmetic flags, as what they follow from: flags.h. */
  uint64_t result;
  uint64_t carry;
  uint32_t parity;
  uint32_t adjust;
  uint64_t rflags;  /* the other flags */
  uint64_t passed;  /* by the last handler, where they go on by the loop */
  soft_tlb *tlb;    /* the set in use */
  int64_t budget;   /* instructions until the loop looks around */
  uint64_t stamp;   /* of the world as it is: links and the jump cache */
  uint64_t cs_base; /* 0 in 64-bit code */
  uint64_t ip_mask;
  uint64_t rip_last;        /* the limit of code; all addresses with 64 bits */
  const soft_insn *current; /* what a fault would point at; NULL where rip says it */
  soft_mode mode;
  uint8_t cpl;
  bool single;          /* one instruction runs alone */
  uint8_t vector_live;  /* SOFT_LIVE_*: what is in the host's registers of the guest's state */
  uint8_t vector_ready; /* bits of soft_vector_kind whose instructions need no check */
  uint8_t shadow;       /* KVM_X86_SHADOW_* */
  bool flat;            /* SOFT_CODE_FLAT */
  bool no_links;        /* breakpoints are set: every block is looked at */
  struct kvm_segment seg[6];
  int64_t read_to[6]; /* the last offset that may be read; -1 where seg has to be looked at */
  int64_t write_to[6];
  uint64_t stack_mask;        /* of the part of RSP that is the stack pointer */
  uint64_t stack_kept;        /* and of what a change of it leaves alone */
  _Atomic unsigned attention; /* SOFT_ATTEND_*; any thread */

  /* System state. */
  struct kvm_segment tr;
  struct kvm_segment ldt;
  struct kvm_dtable gdt;
  struct kvm_dtable idt;
  uint64_t cr0, cr2, cr3, cr4, cr8, efer, xcr0;
  uint64_t apic_base;
  uint64_t pdpte[4]; /* PAE paging reads them when CR3 is loaded */
  uint64_t dr[8];
  uint64_t star, lstar, cstar, sfmask, kernel_gs, tsc_aux;
  uint64_t sysenter[3];
  uint64_t tsc_offset, tsc_adjust;
  uint32_t tsc_khz;   /* of the guest's counter */
  uint64_t tsc_ratio; /* to the host's, times 2^32 */
  uint32_t pkru;
  uint64_t pat, misc_enable;
  uint64_t other_msrs[SOFT_OTHER_MSRS];
  uint64_t clock_gpa; /* kvmclock's page, with its enable bit */
  struct kvm_cpuid2 *cpuid;
  bool lacks_rdtscp, lacks_rdpid, lacks_invpcid; /* by that table */
  bool is_amd;

  /* Events. */
  soft_event event;    /* being delivered, or raised by soft_fault */
  int delivering;      /* its vector; -1 for none */
  luna_delivery stage; /* how far that is */
  bool double_fault;
  bool injected; /* user space wants `inject` delivered */
  bool pends;    /* but not yet for the processor: KVM_SET_REGS takes it back, as KVM does */
  soft_event inject;
  int interrupt; /* a vector that waits for delivery; -1 */
  bool nmi_masked;
  _Atomic unsigned nmi; /* how many wait; any thread */
  atomic_bool kicked;   /* a hypercall ends its HLT; any thread */
  bool halted;
  uint32_t pending_debug; /* DR6 bits of a trap that is due */
  uint32_t watched;       /* DR6 bits of data breakpoints that the instruction met */
  bool trap_flag;         /* TF as the instruction found it */
  bool unfinished;        /* the last step was an iteration of REP that was not the last */
  bool step_once;
  struct kvm_guest_debug debug;

  /* Controls: vmx/. */
  bool controlled;
  uint8_t shadow_was; /* of the instruction that runs alone */
  unsigned due;       /* SOFT_DUE_* */
  soft_event entry;   /* that user space wants delivered */
  luna_controls controls;
  struct luna_shadow *shadow_vmcs; /* user space's; NULL for none */

  /* Exits. */
  struct kvm_run *run;
  soft_asked asked;
  uint32_t asked_size;
  uint64_t asked_key; /* of an access to memory: device.c */
  soft_post posts[SOFT_POSTS_MAX];
  unsigned posts_made, posts_given;
  uint8_t answers[SOFT_ANSWERS_MAX][8];
  uint64_t answer_keys[SOFT_ANSWERS_MAX];
  unsigned answers_made, answers_used;
  uint8_t batch[SOFT_BATCH_MAX]; /* what REP INS was given */
  unsigned batch_size, batch_used;
  uint8_t fetched[16]; /* of an instruction whose rest cannot be fetched */
  unsigned fetched_size;

  /* The machine and the host. */
  soft_vm *vm;
  int id;
  int fd; /* of the vCPU, an eventfd: it wakes one that is halted */
  soft_map *map;
  const soft_slot *last_slot;
  atomic_bool running;       /* in KVM_RUN */
  atomic_bool waiting;       /* halted there: an event writes to fd */
  _Atomic uint64_t map_seen; /* generation of `map` */
  _Atomic unsigned log_seen; /* soft_vm.log_changes that it has followed */
  bool ran;
  uint64_t retired; /* instructions */
  uint64_t slice;   /* what budget began with */
  uint64_t exits, halted_ns;
  soft_stats *stats;          /* NULL until user space asks for them */
  struct kvm_dirty_gfn *ring; /* NULL without dirty rings */
  uint32_t ring_made;         /* entries so far */
  _Atomic uint32_t ring_reset;
  uint64_t poll_at; /* of `retired`: signals and the clock are looked at */
  bool signals_held;
  jmp_buf escape;

  /* Blocks. */
  uint64_t epoch;      /* blocks are compared with memory once in each */
  uint64_t compare_at; /* of `retired`: this one ends */
  uint64_t flushes;
  uint64_t generation; /* of translations: flushes, the mode and the privilege level */
  uint64_t stamps;     /* given to worlds so far */
  soft_world worlds[SOFT_WORLDS];
  soft_world *world; /* the present one */
  soft_block **hash;
  uint8_t *arena;
  size_t arena_used; /* by blocks, from the start */
  size_t arena_end;  /* what stubs leave, from the end */
  uint64_t drops;    /* of all blocks */
  uint64_t *marks;   /* by host page, one bit for each 64 bytes that blocks were made of */
  uint64_t coded[SOFT_MARKS / 64]; /* pages whose writes are looked at: all that have marks */
  unsigned unmarked_writes;        /* to those that have none any more */

  /* Vectors. */
  uint8_t *xsave;
  uint8_t *stubs; /* their code, and the same memory to write to; NULL until there is one */
  uint8_t *stubs_writable;
  size_t stubs_used;
  soft_stub *stub_table[SOFT_STUB_BUCKETS];
  uint64_t vector_flags;   /* that a stub takes */
  const soft_insn *x87_at; /* the last x87 instruction, and its R_BLOCK; NULL: the image has them */
  uint64_t x87_base;
  uint32_t host_mxcsr;
  uint16_t host_fcw;
  _Alignas(64) uint8_t bounce[128];

  /* The last exceptions and interrupts: deliver/past.c. */
  luna_last_exception past[LUNA_LAST_EXCEPTIONS]; /* an event's place is by its number */
  uint64_t past_count;

  /* The LAPIC, its page as xAPIC lays it out; bits of IRR by any thread. */
  _Alignas(16) uint8_t apic[1024];
  uint64_t timer_at, timer_from, timer_period, deadline; /* nanoseconds of the host's clock */
  _Atomic uint32_t mp_state;
  _Atomic bool init;
  _Atomic int sipi; /* the vector plus 256; 0 for none */
  int eoi_vector;   /* of KVM_EXIT_IOAPIC_EOI that is due, plus 1 */
  uint64_t started; /* SOFT_DUE_START: the CPUs, by number */

  uint64_t tlb_used[SOFT_TLB_SETS]; /* a bit for each 64th of the set */
  /* From here on the next CPU finds what this one leaves: room.c. */
  _Alignas(64) soft_tlb tlbs[SOFT_TLB_SETS][SOFT_TLB_SIZE];
  soft_jump jumps[SOFT_JUMPS];
};

/* Two instructions of a program: leave the handler. */
__attribute__((noreturn)) void soft_leave(soft_cpu *cpu, soft_escape why);
__attribute__((noreturn)) void soft_fault(soft_cpu *cpu, int vector, uint32_t error);
/* An exception without an error code. */
__attribute__((noreturn)) void soft_raise(soft_cpu *cpu, int vector);

/* room.c: a CPU in its reset state, NULL without memory. */
soft_cpu *soft_cpu_new(soft_vm *vm, int id, struct kvm_run *run);
void soft_cpu_free(soft_cpu *cpu);
/* cpu.c: as INIT does it, or power-on. */
void soft_cpu_reset(soft_cpu *cpu, bool init);
uint64_t soft_flags(const soft_cpu *cpu);
void soft_set_flags(soft_cpu *cpu, uint64_t flags);
/* After CR0, EFER, RFLAGS.VM, CS or the privilege level have changed. */
void soft_mode_changed(soft_cpu *cpu);
void soft_set_cpl(soft_cpu *cpu, unsigned cpl);
/* At an IRET. Of the NMIs that came meanwhile one is kept, as a processor's latch does. */
void soft_nmi_ended(soft_cpu *cpu);
/* After seg[n] was written, or all and the mode. */
void soft_segment_changed(soft_cpu *cpu, int n);
void soft_segments_changed(soft_cpu *cpu);

/* loop.c: runs until there is an exit. 0 with the run page filled, or an errno. */
int soft_loop(soft_cpu *cpu);

/* Makes the loop look around before the next block. */
SOFT_INLINE void soft_look_around(soft_cpu *cpu) {
  if (cpu->budget > 0) {
    cpu->slice -= (uint64_t)cpu->budget;
    cpu->budget = 0;
  }
}

SOFT_INLINE bool soft_is_long(const soft_cpu *cpu) {
  return cpu->efer & EFER_LMA;
}
SOFT_INLINE bool soft_is_64(const soft_cpu *cpu) {
  return cpu->mode == SOFT_MODE_64;
}
SOFT_INLINE bool soft_is_real(const soft_cpu *cpu) {
  return !(cpu->cr0 & CR0_PE);
}
SOFT_INLINE bool soft_is_vm86(const soft_cpu *cpu) {
  return cpu->rflags & FLAG_VM;
}
SOFT_INLINE unsigned soft_iopl(const soft_cpu *cpu) {
  return (unsigned)(cpu->rflags >> 12 & 3);
}
SOFT_INLINE bool soft_canonical(const soft_cpu *cpu, uint64_t linear) {
  unsigned unused = cpu->cr4 & CR4_LA57 ? 7 : 16;
  return (uint64_t)((int64_t)(linear << unused) >> unused) == linear;
}

#endif
