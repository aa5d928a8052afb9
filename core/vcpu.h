/* SPDX-License-Identifier: MIT
 * A vCPU: its KVM vCPU, the exit it stands at, and register writes that wait for the next entry. */
#ifndef LUNA_VCPU_H
#define LUNA_VCPU_H

#include "kick.h"
#include "seat.h"
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
  bool incomplete;  /* KVM finishes the instruction when it is entered again */
  bool reads;       /* and overwrites registers when it does */
  uint8_t *data;    /* where a read's answer goes, or a write's data is; in the run page */
  uint32_t element; /* of a string I/O exit */
  uint32_t elements;
} luna_pending;

/* What a vCPU has to look after before and after it is in the guest: bits of
 * luna_vcpu.attention, so that the loop of one that has nothing of it pays one test. */
enum {
  LUNA_ATTEND_DEBUG = 1,     /* debug.c: breakpoints, single steps */
  LUNA_ATTEND_INTERRUPT = 2, /* interrupt.c: vectors that wait for the guest */
  LUNA_ATTEND_COALESCED = 4, /* coalesced.c: writes that KVM has collected */
  LUNA_ATTEND_TIME = 8,      /* account.c: time spent in the guest */
  LUNA_ATTEND_CPUID = 16     /* cpuid.c: its seat has run with another table */
};

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
  uint32_t move_flags;
  uint32_t sync_regs; /* KVM_SYNC_X86_* bits that the run page can carry */
  luna_kick kick;
  atomic_bool running;
  atomic_uint attention; /* LUNA_ATTEND_* */
  luna_state state;
  luna_pending pending;
  luna_exit exit;
  uint64_t exits;
  luna_owner owners[2]; /* by luna_trap_kind: what the last access of the kind met */
  unsigned long owner_generation;
  struct kvm_cpuid2 *cpuid;   /* what CPUID answers, in every space */
  uint64_t system;            /* gpa of the system area, 0 for none */
  luna_buffer *system_buffer; /* where the library allocated it */
};

/* state.c: registers. */
int luna_state_begin(luna_vcpu *vcpu);
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

/* exit.c: what KVM's run page says. The kind, or 0 where the core has dealt with it and the guest
 * goes on. */
int luna_exit_decode(luna_vcpu *vcpu);
/* The same for a KVM_RUN that failed with EFAULT. */
int luna_exit_host_fault(luna_vcpu *vcpu);
/* Starts a new exit record. */
int luna_exit_set(luna_vcpu *vcpu, luna_exit_kind kind);

/* mode.c: first state and system area. */
int luna_mode_set(luna_vcpu *vcpu, const luna_vcpu_options *options);
int luna_mode_follow(luna_vcpu *vcpu, uint32_t space);
void luna_mode_end(luna_vcpu *vcpu);

/* exception.c: the system area's contents, and exceptions that arrive there. */
void luna_system_write(uint8_t *area, uint64_t gpa, bool long_mode);
/* The vector if the port access that KVM reports is an exception stub's, else -1. */
int luna_exception_vector(luna_vcpu *vcpu);
/* Turns the exit into an exception at the instruction that caused it. */
int luna_exception_exit(luna_vcpu *vcpu, int vector);

/* inject.c: whether the exception pushes an error code. */
bool luna_exception_has_code(uint32_t vector);

/* move.c: the move that waits. 0, or a negative status. */
int luna_move_finish(luna_vcpu *vcpu);
void luna_move_cancel(luna_vcpu *vcpu);

/* vcpu.c: uses the seat in the space from now on. */
void luna_vcpu_sit(luna_vcpu *vcpu, luna_space *space, luna_seat *seat);
/* Finishes whatever KVM has under way, without caring for the answer. */
void luna_vcpu_abandon(luna_vcpu *vcpu);
/* Lets KVM finish the instruction under way without running the guest further. The kind of
 * a further exit that this met, 0 when it is finished, or a negative status. */
int luna_vcpu_settle(luna_vcpu *vcpu);

#endif
