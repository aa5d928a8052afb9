/* SPDX-License-Identifier: MIT
 * Getting a vCPU out of KVM_RUN: a deadline timer per thread and kicks from other threads. Both are
 * one signal whose handler sets immediate_exit on the run page of the vCPU that its
 * thread runs, so that a signal that comes just before KVM_RUN is not lost (api.rst,
 * "immediate_exit"). */
#ifndef LUNA_KICK_H
#define LUNA_KICK_H

#include "kvm/kvm.h"

#include <signal.h>
#include <stdatomic.h>
#include <time.h>

/* Why a vCPU has to come out of the guest, or stay out. */
enum {
  LUNA_KICK_REQUEST = 1, /* luna_vcpu_interrupt was called and not yet delivered */
  LUNA_KICK_ATTEND = 2,  /* luna_vcpu.attention has something new, to be seen before the entry */
  LUNA_KICK_HOLD = 4     /* its thread is to be paused or stopped */
};

/* In each vCPU. */
typedef struct luna_kick {
  atomic_int thread;     /* id of the thread that is in KVM_RUN or about to be, else 0 */
  atomic_uint requested; /* luna_kick_reason bits */
  atomic_bool answering; /* it uses a trap that the core answers: answer.c */
  atomic_bool inside;    /* it has gone in by its space's gate */
} luna_kick;

/* In each space: whether another thread wants no vCPU to be in KVM_RUN there. */
typedef struct luna_gate {
  atomic_bool closed;
} luna_gate;

/* Goes in; false, and nothing was done, if the gate is closed. */
bool luna_gate_enter(const luna_gate *gate, luna_kick *kick);
void luna_gate_leave(luna_kick *kick);

/* Of each thread. */
typedef struct luna_kick_thread {
  struct kvm_run *volatile running; /* what the signal handler stops */
  volatile sig_atomic_t seen;       /* the signal came */
  pid_t id;                         /* 0 until luna_kick_prepare */
  bool has_timer;
  timer_t timer;
  uint64_t armed; /* the moment the timer is set to, 0 for none */
} luna_kick_thread;

/* initial-exec: the signal handler may touch it, and must not allocate. */
extern _Thread_local luna_kick_thread luna_kick_self __attribute__((tls_model("initial-exec")));

int luna_kick_begin(void);
void luna_kick_stop_timer(void);

/* Makes this thread able to run vCPUs. 0, or a negative status. */
static inline int luna_kick_prepare(void) {
  return luna_kick_self.id ? LUNA_OK : luna_kick_begin();
}

/* Arms this thread's timer for a moment of luna_clock(); nothing to do if it is armed for it
 * already. */
int luna_kick_arm(uint64_t deadline);

static inline bool luna_kick_armed(uint64_t deadline) {
  return luna_kick_self.armed == deadline;
}

static inline void luna_kick_disarm(void) {
  if (luna_kick_self.armed) {
    luna_kick_stop_timer();
  }
}

/* Runs the vCPU once. As luna_kvm_run, but -1 with EINTR if a kick is due or the gate is closed,
 * and then *entered says that KVM was not called. */
int luna_kick_run(luna_kick *kick, const luna_gate *gate, luna_fd vcpu_fd, struct kvm_run *run,
                  bool *entered);
/* Enters KVM with the signal waiting, so that it does what is due before it looks at that, and
 * comes back without having run the guest. -1 with errno, EINTR when all went well. */
int luna_kick_visit(luna_fd vcpu_fd);
/* Whether the signal came since the last call of this function. */
bool luna_kick_seen(void);

/* Any thread, and signal handlers. */
void luna_kick_request(luna_kick *kick);
/* Makes the vCPU look at its attention before it is in the guest again; and it has looked. */
void luna_kick_attend(luna_kick *kick);
void luna_kick_attended(luna_kick *kick);
/* Gets the vCPU out of KVM_RUN for a moment: no request, it goes back in by itself. */
void luna_kick_nudge(const luna_kick *kick);
/* Keeps the vCPU from entering, or no longer; luna_kick_nudge gets it out. */
void luna_kick_hold(luna_kick *kick, bool on);
bool luna_kick_held(luna_kick *kick);
/* Takes a request away: whether there was one. */
bool luna_kick_take(luna_kick *kick);

#endif
