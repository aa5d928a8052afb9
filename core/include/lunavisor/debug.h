/* SPDX-License-Identifier: MIT
 * Part of lunavisor.h: breakpoints, watchpoints and single steps; the last exits, and the last
 * exceptions and interrupts. Breakpoints belong to the vCPU, not to the guest: its debug registers
 * and memory do not show them, and they go along when it moves to another space. */
#ifndef LUNAVISOR_DEBUG_H
#define LUNAVISOR_DEBUG_H
#ifndef LUNA_API
#error "a part of lunavisor.h, which is to be included"
#endif

typedef enum luna_break_kind {
  LUNA_BREAK_EXECUTE = 0, /* before the instruction at a linear address: a debug register */
  LUNA_BREAK_WRITE = 1,   /* after a write to 1, 2, 4 or 8 bytes, aligned: a debug register */
  LUNA_BREAK_ACCESS = 2,  /* after a read or a write of them: a debug register */
  LUNA_BREAK_SOFTWARE = 3 /* before the instruction: INT3 in its place while the guest runs */
} luna_break_kind;

/* Sets a breakpoint and gives its number, from 1. The guest then leaves with LUNA_EXIT_DEBUG, whose
 * `breakpoint` says which. A run that begins where the vCPU was last seen to stand (a debug exit
 * there, or it has never run) executes that instruction first, without another exit for it; every
 * other arrival is reported. `size` counts for watchpoints only; 0 is 1.
 *
 * _LIMIT: all four debug registers are taken. _RANGE: a size or alignment that the processor does
 * not have. _UNSUPPORTED: this host's KVM does not stop there in the ring that the vCPU is in now
 * (luna_probe_value: "hardware_breakpoints", "watchpoints", "software_breakpoints"; bit 0 is real
 * mode, 1 ring 0 of the other modes, 2 ring 3), or a software breakpoint lies in memory that the
 * host may not write. Software breakpoints where KVM does not know of them need the system area of
 * the vCPU's mode as IDT.
 *
 * A software breakpoint is in guest memory only while the vCPU is in the guest: other vCPUs that
 * run in that time, threads that read the memory and the guest itself see it. An address whose page
 * is not present at the entry has none until the next. KVM's dirty log and luna_vm_dirty do not
 * report it. */
LUNA_API int luna_vcpu_break(luna_vcpu *vcpu, int kind, uint64_t gva, uint32_t size,
                             uint32_t *breakpoint);
/* Takes a breakpoint away. _NOT_FOUND if there is none of that number. */
LUNA_API int luna_vcpu_unbreak(luna_vcpu *vcpu, uint32_t breakpoint);
/* Which of the guest's own exceptions leave with LUNA_EXIT_EXCEPTION instead of going through its
 * IDT, a bit each: 3, #BP, whose INT3 has then not been executed; 0 for none. _UNSUPPORTED for
 * those that luna_vcpu_catchable does not give. */
LUNA_API int luna_vcpu_catch(luna_vcpu *vcpu, uint32_t vectors);
/* Those that can: bit 3 where this host's KVM stops at INT3 in every mode by itself. It is tried
 * out once, as breakpoints are. */
LUNA_API int luna_vcpu_catchable(luna_vcpu *vcpu, uint32_t *vectors);
/* Runs one instruction, breakpoints or not: LUNA_EXIT_DEBUG with breakpoint 0 (or that of a
 * watchpoint it hit), or any other exit that comes before. With an answered port or memory access
 * under way, the step finishes that instruction. A REP instruction is one step an element or as
 * many as KVM does in one go. HLT is LUNA_EXIT_HLT. In ring 3 of a KVM that gives the guest a #DB,
 * only with the system area as IDT: otherwise whatever the guest makes of that comes.
 * `deadline` as for luna_vcpu_run. */
LUNA_API int luna_vcpu_step(luna_vcpu *vcpu, uint64_t deadline);
/* The next instruction's linear address and, where `gpa` is not NULL, its guest-physical one, which
 * may take a system call. _NOT_FOUND where the guest's page tables lead nowhere; `*gva` is set all
 * the same. */
LUNA_API int luna_vcpu_place(luna_vcpu *vcpu, uint64_t *gva, uint64_t *gpa);

enum {
  LUNA_LAST_EXITS = 64, /* how many of a vCPU are kept */
  LUNA_KNOWN_RIP = 1,   /* bits of luna_last_exit.known */
  LUNA_KNOWN_VALUE = 2
};

/* One of the last exits of a vCPU, in short. */
typedef struct luna_last_exit {
  uint64_t serial;  /* which one: what luna_vcpu_exits gave with it */
  uint64_t rip;     /* as the registers had it, where `known` has LUNA_KNOWN_RIP: where somebody has
                       asked for a register since about that time, or it is the last */
  uint64_t address; /* as in luna_exit */
  uint64_t value;   /* as in luna_exit; of a read what luna_vcpu_answer gave it, where `known` has
                       LUNA_KNOWN_VALUE */
  uint32_t kind;    /* luna_exit_kind */
  uint32_t size;    /* as in luna_exit */
  uint32_t access;  /* the same */
  uint32_t known;   /* LUNA_KNOWN_* */
} luna_last_exit;

/* The last exits that luna_vcpu_run, luna_vcpu_step or the vCPU's own thread has met, up to `most`
 * of them, the oldest first, for whoever asks how the guest came to where it is; of timeouts one
 * behind the other the last. They are always kept. `*count` is how many were written to `list`.
 * _STATE while the vCPU's thread has it. */
LUNA_API int luna_vcpu_last_exits(luna_vcpu *vcpu, luna_last_exit *list, uint32_t most,
                                  uint32_t *count);

/* Keeps a copy of the general registers as they are now, in the place of the one before: from here
 * on, whoever asks what a stretch of the guest's has changed can compare. A system call where they
 * are not known. _STATE while the vCPU's thread has it. */
LUNA_API int luna_vcpu_mark(luna_vcpu *vcpu);
/* What that copy has of a register, LUNA_RAX to LUNA_RFLAGS. _ARGUMENT for another one, _NOT_FOUND
 * where nothing was kept. */
LUNA_API int luna_vcpu_marked(luna_vcpu *vcpu, int reg, uint64_t *value);

enum {
  LUNA_LAST_EXCEPTIONS = 16, /* how many of a vCPU are kept */
  /* bits of luna_last_exception.flags */
  LUNA_EXCEPTION_ERROR = 1,     /* `error` is its error code */
  LUNA_EXCEPTION_MET = 2,       /* `met` is what its delivery has met */
  LUNA_EXCEPTION_MET_ERROR = 4, /* `met_error` is the error code of that */
  LUNA_EXCEPTION_SHUTDOWN = 8   /* which made a triple fault of it */
};

typedef enum luna_exception_source {
  LUNA_FROM_EXCEPTION = 0,   /* of the processor, or injected */
  LUNA_FROM_INSTRUCTION = 1, /* INT n, INT3, INTO, INT1 */
  LUNA_FROM_INTERRUPT = 2    /* from outside, or an NMI */
} luna_exception_source;

/* How far a delivery has come (SDM Vol. 3, 6.12): to its end, or to where it met another one. */
typedef enum luna_delivery {
  LUNA_DELIVERY_DONE = 0,  /* the handler begins */
  LUNA_DELIVERY_LIMIT = 1, /* its gate has to lie within the IDT's limit */
  LUNA_DELIVERY_GATE = 2,  /* the gate is read and looked at */
  LUNA_DELIVERY_CODE = 3,  /* the handler's code segment, and the offset in it */
  LUNA_DELIVERY_STACK = 4, /* the handler's stack: the TSS, and its segment */
  LUNA_DELIVERY_FRAME = 5, /* what the handler finds on its stack is pushed */
  LUNA_DELIVERY_TASK = 6   /* a task gate: the switch to another task */
} luna_delivery;

/* One of the last exceptions and interrupts of a vCPU. */
typedef struct luna_last_exception {
  uint64_t serial;      /* which one, from 1 on */
  uint64_t rip;         /* where its handler returns to: of a fault its instruction */
  uint64_t address;     /* CR2, of a page fault; 0 */
  uint64_t met_address; /* the same of what was met */
  uint32_t error;
  uint32_t met_error;
  uint32_t vector;
  uint32_t met;    /* a vector */
  uint32_t source; /* luna_exception_source */
  uint32_t stage;  /* luna_delivery */
  uint32_t cs;     /* selector, as it was before */
  uint32_t cpl;    /* the same */
  uint32_t flags;  /* LUNA_EXCEPTION_* */
  uint32_t reserved;
} luna_last_exception;

/* The last exceptions and interrupts that the vCPU has begun to deliver to its guest, in the space
 * that it is in, up to `most` of them, the oldest first; those too whose delivery failed, down to a
 * triple fault. `*count` is how many were written to `list`. _UNSUPPORTED on an accelerator that
 * does not keep them: the software CPU does, KVM does not (luna_accelerator_capability(accel,
 * "exceptions", ...)). _STATE while the vCPU's thread has it. */
LUNA_API int luna_vcpu_last_exceptions(luna_vcpu *vcpu, luna_last_exception *list, uint32_t most,
                                       uint32_t *count);

/* The same of a vCPU whose last exit was LUNA_EXIT_SHUTDOWN, on every accelerator: the exceptions
 * that its triple fault was made of are the last of the list. On KVM, which tells none, a software
 * CPU does the instruction at RIP again, with the vCPU's registers and over the memory of its
 * space, of which nothing is changed. _STATE where the last exit was another one, or the vCPU's
 * thread has it; _UNSUPPORTED where this build has no software CPU; _NOT_FOUND where the
 * instruction leads to no triple fault there, or to one with another page fault: an interrupt from
 * outside may have led to it, and KVM on AMD's processors has reset the vCPU by then. On KVM also
 * after LUNA_EXIT_INSTRUCTION and LUNA_EXIT_INTERNAL: not every KVM makes a triple fault of an
 * instruction whose exception it cannot deliver. */
LUNA_API int luna_vcpu_triple_fault(luna_vcpu *vcpu, luna_last_exception *list, uint32_t most,
                                    uint32_t *count);

#endif
