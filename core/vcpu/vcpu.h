/* SPDX-License-Identifier: MIT
 * A vCPU: its KVM vCPU, the exit it stands at, and register writes that wait for the next entry. */
#ifndef LUNA_VCPU_H
#define LUNA_VCPU_H

#include "kvm/kick.h"
#include "seat/seat.h"
#include "run/thread.h"
#include "vm.h"

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
} luna_state;

/* The exit that the script has to answer, or what is left of it inside KVM. */
typedef struct luna_pending {
  bool open;        /* waits for luna_vcpu_answer or luna_vcpu_retry */
  bool untold;      /* of a stopped thread: nobody has been given it */
  bool incomplete;  /* KVM finishes the instruction when it is entered again */
  bool reads;       /* and overwrites registers when it does */
  uint8_t *data;    /* where a read's answer goes, or a write's data is; in the run page */
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
  LUNA_ATTEND_DEBUG = 1,     /* debug.c: breakpoints, single steps */
  LUNA_ATTEND_INTERRUPT = 2, /* interrupt.c: vectors that wait for the guest */
  LUNA_ATTEND_COALESCED = 4, /* coalesced.c: writes that KVM has collected */
  LUNA_ATTEND_TIME = 8,      /* account.c: time spent in the guest */
  LUNA_ATTEND_CPUID = 16     /* cpuid.c: its seat has run with another table */
};

/* Time spent in the guest, in nanoseconds of luna_clock. */
typedef struct luna_account {
  uint64_t entered;          /* when the entry under way began */
  atomic_ulong exec;         /* of the entries that have ended */
  atomic_ulong idle;         /* of that halted inside KVM, on seats that were left */
  atomic_int fd;             /* the present seat's statistics, for any thread to read; or -1 */
  atomic_ulong halted_since; /* what KVM said of it when it was taken */
} luna_account;
typedef struct luna_debug luna_debug;

struct luna_vcpu {
  luna_reference reference;
  luna_vm *vm;
  uint32_t id;
  uint64_t serial; /* of all vCPUs of the process, from 1 */
  luna_space *space;
  luna_seat *seat; /* in that space */
  int fd;          /* the seat's */
  struct kvm_run *run;
  luna_space *target; /* where it moves when the instruction under way is finished, or NULL */
  atomic_uint place;  /* the number of the space in which it is, or to which it moves */
  uint32_t move_flags;
  uint32_t sync_regs; /* KVM_SYNC_X86_* bits that the run page can carry */
  luna_kick kick;
  atomic_bool running; /* by luna_vcpu_run */
  luna_thread thread;
  atomic_uint attention;    /* LUNA_ATTEND_* */
  atomic_ullong waiting[4]; /* bit n: vector n, for the guest without a LAPIC */
  atomic_uint posted;       /* interrupt.c: NMI and SMI */
  bool window;              /* luna_vcpu_window */
  uint32_t tsc_khz;         /* set by the script, or 0 */
  luna_state state;
  luna_pending pending;
  luna_debug *debug; /* NULL until something is debugged */
  luna_exit exit;
  luna_account account;
  _Atomic uint64_t exits; /* written by one thread at a time */
  luna_leave leave;
  uint8_t collected[8];               /* the data of a collected write that is open */
  luna_owner owners[LUNA_TRAP_KINDS]; /* what the last access of the kind met */
  unsigned long owner_generation;
  struct kvm_cpuid2 *cpuid;   /* what CPUID answers, in every space */
  uint64_t system;            /* gpa of the system area, 0 for none */
  luna_buffer *system_buffer; /* where the library allocated it */
};

/* state.c: registers. */
int luna_state_begin(luna_vcpu *vcpu);
/* Writes registers now: KVM does not look at the run page of a vCPU that waits. */
int luna_state_commit(luna_vcpu *vcpu);
/* Reads again what KVM may have changed without an entry, unless writes wait for the next one. */
int luna_state_reload(luna_vcpu *vcpu);
/* Whether RFLAGS.IF will be set at the next entry, as far as that is known without a call. */
bool luna_state_interruptible(const luna_vcpu *vcpu);
/* The general registers as KVM has them, without the writes that wait; NULL with an error. */
const struct kvm_regs *luna_state_regs(luna_vcpu *vcpu);
/* The same with the writes that wait. */
int luna_state_general(luna_vcpu *vcpu, struct kvm_regs *regs);
struct kvm_sregs *luna_state_sregs(luna_vcpu *vcpu);
struct kvm_vcpu_events *luna_state_events(luna_vcpu *vcpu);
/* Takes the registers over to another seat: what differs there is written at the next entry. */
int luna_state_move(luna_vcpu *vcpu, luna_seat *target);
/* From now on every exit brings system registers and events too, where the run page can. */
void luna_state_want_all(luna_vcpu *vcpu);
/* Whether writes wait that KVM would spoil when it finishes the instruction under way. */
bool luna_state_conflicts(const luna_vcpu *vcpu);
/* From now on these are the registers, whatever KVM has. No instruction is under way. */
void luna_state_adopt(luna_vcpu *vcpu, const struct kvm_regs *regs, const struct kvm_sregs *sregs,
                      const struct kvm_vcpu_events *events);
/* Hands the waiting writes to KVM for the next entry. */
int luna_state_flush(luna_vcpu *vcpu);
/* After an entry: what was read before is old. */
void luna_state_entered(luna_vcpu *vcpu);
/* Explains an entry that KVM refused with EINVAL. */
int luna_state_fail(luna_vcpu *vcpu);

/* register.c: where a general register is. */
uint64_t *luna_register_place(struct kvm_regs *regs, int reg);

/* exit.c: what KVM's run page says. The kind, or 0 where the core has dealt with it and the guest
 * goes on. */
int luna_exit_decode(luna_vcpu *vcpu);
/* The same for a KVM_RUN that failed with EFAULT. */
int luna_exit_host_fault(luna_vcpu *vcpu);
/* rare.c: the same for exits that come seldom. */
int luna_exit_rare(luna_vcpu *vcpu);
/* Starts a new exit record. */
int luna_exit_set(luna_vcpu *vcpu, luna_exit_kind kind);
/* An open exit for a write that KVM has collected; 0 where the core has answered it. */
int luna_exit_collected(luna_vcpu *vcpu, const struct kvm_coalesced_mmio *write);
/* Finds the trap of the exit's address, without the lock where it is the same as last time. */
void luna_exit_own(luna_vcpu *vcpu, int kind);
/* Goes on to the next element of a string I/O exit, or closes the exit. */
void luna_exit_next(luna_vcpu *vcpu);
/* The next access is looked up again. */
void luna_vcpu_forget_owners(luna_vcpu *vcpu);

/* answer.c: answers what is left of the open exit, which a trap of the kind owns, as far as the
 * core can. 0 when that was all, else the exit's kind. */
int luna_answer_exit(luna_vcpu *vcpu, int kind);

/* coalesced.c: the next write that KVM has collected, as an open exit; 0 if there is none. */
int luna_coalesced_next(luna_vcpu *vcpu);
/* Whether there are any. */
bool luna_coalesced_waiting(const luna_vcpu *vcpu);

/* mode.c: first state and system area. */
int luna_mode_set(luna_vcpu *vcpu, const luna_vcpu_options *options);
int luna_mode_follow(luna_vcpu *vcpu, uint32_t space);
void luna_mode_end(luna_vcpu *vcpu);
/* The system registers with which a processor starts at vector << 12. */
void luna_mode_sipi(struct kvm_sregs *sregs, uint8_t vector);

/* exception.c: the system area's contents, and exceptions that arrive there. */
void luna_system_write(uint8_t *area, uint64_t gpa, bool long_mode);
/* The vector if the port access that KVM reports is an exception stub's, else -1. */
int luna_exception_vector(luna_vcpu *vcpu);
/* Turns the exit into an exception at the instruction that caused it. */
int luna_exception_exit(luna_vcpu *vcpu, int vector);

/* inject.c: whether the exception pushes an error code. */
bool luna_exception_has_code(uint32_t vector);

/* account.c: the time in the guest. Before and after each entry, and before the vCPU leaves its
 * seat for another or has come to one. */
void luna_account_enter(luna_vcpu *vcpu);
void luna_account_leave(luna_vcpu *vcpu);
void luna_account_rise(luna_vcpu *vcpu);
void luna_account_sit(luna_vcpu *vcpu);
/* interrupt.c: hands what waits to KVM, as far as the guest takes it now. 0, or a negative status.
 */
int luna_interrupt_enter(luna_vcpu *vcpu);
/* What the exit means that KVM makes when the guest accepts an interrupt: the kind, or 0. */
int luna_interrupt_window(luna_vcpu *vcpu);
/* Whether something waits that ends the HLT at which the vCPU stands. */
bool luna_interrupt_wakes(const luna_vcpu *vcpu);

/* apic.c: whether the vCPU waits to be started or woken, without being in the guest. */
bool luna_apic_waits(const luna_vcpu *vcpu);
/* The state in which a vCPU begins: runnable, or waiting. */
int luna_apic_begin(luna_vcpu *vcpu, const luna_vcpu_options *options);
/* Makes the LAPIC and MP state of a seat those of a fresh vCPU. */
int luna_apic_reset(const luna_vcpu *vcpu);
/* Lets KVM act on INIT and SIPI that have come: they change registers. */
int luna_apic_settle(luna_vcpu *vcpu);
/* Takes LAPIC and MP state over to another seat. */
int luna_apic_move(luna_vcpu *vcpu, luna_seat *target);

/* tsc.c: gives another seat the frequency that the script has set. */
int luna_tsc_move(const luna_vcpu *vcpu, luna_seat *target);

/* move.c: the move that waits. 0, or a negative status. */
int luna_move_finish(luna_vcpu *vcpu);
void luna_move_cancel(luna_vcpu *vcpu);

/* For every public call on a vCPU: LUNA_OK unless its thread has it, and with _STATE then. */
static inline int luna_vcpu_guard(const luna_vcpu *which) {
  bool held = atomic_load_explicit(&which->thread.held, memory_order_acquire);
  return __builtin_expect(held, false) ? luna_thread_refuse(which) : LUNA_OK;
}

/* vcpu.c: uses the seat in the space from now on. */
void luna_vcpu_sit(luna_vcpu *vcpu, luna_space *space, luna_seat *seat);
/* Makes the calling thread the one that runs the vCPU, or fails with _STATE and says that it cannot
 * be `done` ("run"); and ends that. */
int luna_vcpu_claim(luna_vcpu *vcpu, const char *done);
void luna_vcpu_disclaim(luna_vcpu *vcpu);
/* The next exit, for whoever runs the vCPU: one that nobody has been given or that is open, or what
 * `bring` gives. */
int luna_vcpu_advance(luna_vcpu *vcpu, uint64_t deadline,
                      int (*bring)(luna_vcpu *vcpu, uint64_t deadline));
/* Enters the guest until something happens. */
int luna_vcpu_enter(luna_vcpu *vcpu, uint64_t deadline);
/* Finishes whatever KVM has under way, without caring for the answer. */
void luna_vcpu_abandon(luna_vcpu *vcpu);
/* Lets KVM finish the instruction under way without running the guest further. The kind of
 * a further exit that this met, 0 when it is finished, or a negative status. */
int luna_vcpu_settle(luna_vcpu *vcpu);

#endif
