/* SPDX-License-Identifier: MIT
 * A vCPU: its KVM vCPU, the exit it stands at, and register writes that wait for the next entry;
 * behind pointers what the floors above keep for it. */
#ifndef LUNA_VCPU_H
#define LUNA_VCPU_H

#include "base/tick.h"
#include "kvm/shadow.h"
#include "memory/vm.h"
#include "seat/seat.h"

enum {
  LUNA_GENERAL_COUNT = LUNA_RFLAGS + 1
};

/* General registers: `written` ones are in `values` until the next entry. System registers: read
 * when first asked for after an exit, written back at the next entry. */
typedef struct luna_state {
  uint32_t written; /* bit n: general register n */
  uint64_t values[LUNA_GENERAL_COUNT];
  struct kvm_regs regs; /* where the run page carries none */
  bool regs_known;
  uint8_t regs_demand; /* at how many further exits the run page shall bring them */
  bool regs_whole;     /* all are to be written, also those that nobody changed */
  struct kvm_sregs sregs;
  bool sregs_known;
  bool sregs_written;
  struct kvm_vcpu_events events;
  bool events_known;
  bool events_written;
  bool shadow_set; /* the interrupt shadow was set by the script: a write of RIP leaves it */
} luna_state;

/* The exit that the script has to answer, or what is left of it inside KVM. */
typedef struct luna_pending {
  bool open;       /* waits for luna_vcpu_answer or luna_vcpu_retry */
  bool untold;     /* of a stopped thread: nobody has been given it */
  bool met;        /* when a state was taken: nobody has been given it either */
  bool dropped;    /* the vCPU was put elsewhere since */
  bool incomplete; /* KVM finishes the instruction when it is entered again */
  bool reads;      /* and overwrites registers when it does */
  uint8_t *data;   /* where a read's answer goes, or a write's data is; in the run page */
  uint32_t size;   /* of an element, which may come in parts to several traps */
  uint32_t part;   /* how much of that comes before the part that the exit is for */
  bool answered;   /* with this value, by luna_vcpu_answer; not reset before the next exit */
  uint64_t answer;
  uint64_t asked;   /* the trap whose function did not want it: luna_trap.serial */
  uint32_t element; /* of a string I/O exit */
  uint32_t elements;
} luna_pending;

/* How an entry ended. It is kept while the writes that KVM has collected go before it. */
typedef struct luna_leave {
  bool kept;
  bool entered; /* KVM was called */
  bool ours;    /* the signal was the library's, or none was needed */
  int number;   /* errno, 0 for an exit */
} luna_leave;

/* What a vCPU has to look after before and after it is in the guest: bits of
 * luna_vcpu.attention, so that the loop of one that has nothing of it pays one test. */
enum {
  LUNA_ATTEND_DEBUG = 1,     /* debug/: breakpoints, single steps */
  LUNA_ATTEND_INTERRUPT = 2, /* interrupt/: vectors that wait for the guest */
  LUNA_ATTEND_COALESCED = 4, /* exit/: writes that KVM has collected */
  LUNA_ATTEND_TIME = 8,      /* account.c: time spent in the guest */
  LUNA_ATTEND_CPUID = 16,    /* cpuid.c: its seat has run with another table */
  LUNA_ATTEND_START = 32     /* interrupt/: it waits for INIT */
};

/* What waits to be given to KVM with the next entry. These numbers are in saved states. */
enum {
  LUNA_POSTED_NMI = 1,
  LUNA_POSTED_SMI = 2
};

/* Time spent in the guest. Ticks are of the time-stamp counter, or nanoseconds of luna_clock. */
typedef struct luna_account {
  bool by_clock;
  luna_moment since; /* counting began */
  uint64_t entered;  /* ticks when the entry under way began */
  atomic_ulong exec; /* ticks of the entries that have ended; written by one thread */
  atomic_ulong told; /* of these, those that are in told_ns */
  atomic_ulong told_ns;
  atomic_ulong idle;         /* nanoseconds halted inside KVM, on seats that were left */
  atomic_int fd;             /* the present seat's statistics, for any thread to read; or -1 */
  atomic_ulong halted_since; /* what KVM said of it when it was taken */
} luna_account;

/* What these floors ask of the loop, which runs KVM and decodes what it meets (run/loop.c). */
typedef struct luna_finisher {
  int (*settle)(luna_vcpu *vcpu);
  int (*discard)(luna_vcpu *vcpu);
  void (*abandon)(luna_vcpu *vcpu);
  int (*visit)(luna_vcpu *vcpu); /* lets KVM do what is due, without running the guest */
} luna_finisher;

struct luna_vcpu {
  luna_reference reference;
  luna_vm *vm;
  uint32_t id;
  uint64_t serial; /* of all vCPUs of the process, from 1 */
  luna_space *space;
  luna_seat *seat; /* in that space */
  luna_fd fd;      /* the seat's */
  struct kvm_run *run;
  luna_space *target; /* where it moves when the instruction under way is finished, or NULL */
  atomic_uint place;  /* the number of the space in which it is, or to which it moves */
  uint32_t move_flags;
  uint32_t sync_regs; /* KVM_SYNC_X86_* bits that the run page can carry */
  luna_kick kick;
  atomic_bool running;      /* by luna_vcpu_run */
  atomic_bool started;      /* a thread of its own runs it */
  atomic_bool held;         /* and has it: other calls are refused; not written by that thread */
  atomic_uint attention;    /* LUNA_ATTEND_* */
  atomic_ullong waiting[4]; /* bit n: vector n, for the guest without a LAPIC */
  atomic_uint posted;       /* LUNA_POSTED_* */
  bool window;              /* luna_vcpu_window */
  uint32_t tsc_khz;         /* set by the script, or 0 */
  luna_state state;
  luna_pending pending;
  struct kvm_regs before; /* while pending.met: those before the instruction went on */
  luna_exit exit;
  luna_account account;
  _Atomic uint64_t exits; /* written by one thread at a time */
  luna_leave leave;
  luna_controls *controls;    /* exit/; NULL until there are some */
  luna_shadow *shadow_vmcs;   /* exit/; NULL until it is used */
  struct kvm_cpuid2 *cpuid;   /* what CPUID answers, in every space */
  uint64_t system;            /* gpa of the system area, 0 for none */
  luna_buffer *system_buffer; /* where the library allocated it */
  const luna_finisher *finisher;
  struct luna_lookup *lookup; /* exit/ */
  struct luna_debug *debug;   /* debug/; NULL until something is debugged */
  struct luna_thread *thread; /* run/ */
  struct luna_trail *trail;   /* run/ */
};

/* Lets KVM finish the instruction under way without running the guest further. The kind of another
 * exit that this met, 0 when it is finished, or a negative status. */
static inline int luna_vcpu_settle(luna_vcpu *which) {
  return which->finisher->settle(which);
}

/* Lets KVM finish the instruction under way, reads with zeroes; further exits that this makes are
 * none. 0 or a negative status. */
static inline int luna_vcpu_discard(luna_vcpu *which) {
  return which->finisher->discard(which);
}

/* Finishes whatever KVM has under way, without caring for the answer. */
static inline void luna_vcpu_abandon(luna_vcpu *which) {
  which->finisher->abandon(which);
}

#endif
