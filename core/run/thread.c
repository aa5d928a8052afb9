/* SPDX-License-Identifier: MIT
 * vCPUs on threads of their own. A thread runs its vCPU, puts the exit into the VM's queue, and
 * waits for its turn. The kick protocol (kick.c) gets it out of the guest for a pause or a stop. */
#include "run/thread.h"

#include "base/error.h"
#include "base/wait.h"
#include "exit/offer.h"
#include "kvm/kick.h"
#include "memory/vm.h"
#include "run/loop.h"
#include "run/queue.h"
#include "vcpu/guard.h"
#include "vcpu/vcpu.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

/* How often this process was forked from one that used threads: 0 in the first. */
static unsigned forks;

static void on_fork(void) {
  forks++;
  luna_wait_forget();
}

static void watch_forks(void) {
  pthread_atfork(NULL, NULL, on_fork);
}

unsigned luna_thread_forks(void) {
  return forks;
}

int luna_thread_check_process(const luna_vm *vm) {
  if (vm->queue->forks != forks) {
    return luna_fail(LUNA_ERROR_STATE,
                     "cannot use the threads of a VM that another process made: they are in that "
                     "process, and this one was forked from it; make a VM of its own here");
  }
  return LUNA_OK;
}

/* ---- Who may touch the vCPU ---- */

/* Nobody but the thread touches it, unless it is kept out of the guest and known to be. */
static void hold(luna_vcpu *vcpu) {
  const luna_thread *t = vcpu->thread;
  bool out = t->place == LUNA_PLACE_TAKEN || (t->pauses && t->place != LUNA_PLACE_INSIDE);
  atomic_store_explicit(&vcpu->held, atomic_load(&vcpu->started) && !out, memory_order_release);
}

void luna_thread_taken(luna_vcpu *vcpu) {
  vcpu->thread->place = LUNA_PLACE_TAKEN;
  hold(vcpu);
}

static bool is_here(const luna_vcpu *vcpu) {
  return vcpu->vm->queue->here == vcpu;
}

/* Whoever runs it looks what to do next. */
static void call_runner(luna_vcpu *vcpu) {
  if (is_here(vcpu)) {
    luna_vm_wake(vcpu->vm);
  } else {
    luna_bell_ring(&vcpu->thread->turn);
  }
}

void luna_thread_let_go(luna_vcpu *vcpu) {
  vcpu->thread->place = LUNA_PLACE_OUT;
  hold(vcpu);
  call_runner(vcpu);
}

/* ---- The thread ---- */

static void lock(luna_vcpu *vcpu) {
  pthread_mutex_lock(&vcpu->vm->queue->lock);
}

static void unlock(luna_vcpu *vcpu) {
  pthread_mutex_unlock(&vcpu->vm->queue->lock);
}

static void wait_for_turn(luna_vcpu *vcpu) {
  unsigned seen = luna_bell_read(&vcpu->thread->turn);
  unlock(vcpu);
  luna_bell_wait(&vcpu->thread->turn, seen, LUNA_FOREVER, true);
  lock(vcpu);
}

/* It has come out of the guest. A signal is only a reason to look what is wanted. */
static void come_out(luna_vcpu *vcpu, int kind) {
  luna_thread *t = vcpu->thread;
  t->place = LUNA_PLACE_OUT;
  if (kind != LUNA_EXIT_SIGNAL) {
    t->place = LUNA_PLACE_QUEUED;
    t->kind = kind;
    if (kind < 0) {
      t->error_number = luna_error_number();
      strncpy(t->message, luna_error_message(), sizeof t->message - 1);
    }
    luna_queue_put(vcpu->vm->queue, vcpu);
  }
  if (t->pauses) {
    pthread_cond_broadcast(&vcpu->vm->queue->out);
  }
}

static void *thread_main(void *argument) {
  luna_vcpu *vcpu = argument;
  luna_thread *t = vcpu->thread;
  luna_guard_own(vcpu);
  lock(vcpu);
  while (!t->stopping) {
    if (t->pauses || t->place != LUNA_PLACE_OUT) {
      wait_for_turn(vcpu);
      continue;
    }
    t->place = LUNA_PLACE_INSIDE;
    unlock(vcpu);
    int kind = luna_vcpu_advance(vcpu, 0, luna_vcpu_enter);
    lock(vcpu);
    come_out(vcpu, kind);
  }
  unlock(vcpu);
  luna_wait_worker(-1);
  return NULL;
}

/* All signals but the library's own, which luna_kick_prepare lets in, go to other threads. */
static int make_thread(luna_vcpu *vcpu) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  luna_wait_worker(1);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int number = pthread_create(&vcpu->thread->id, NULL, thread_main, vcpu);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (number != 0) {
    luna_wait_worker(-1);
    return luna_fail_errno(number, "cannot make a thread for vCPU %u", vcpu->id);
  }
  return LUNA_OK;
}

/* Not of one that is being stopped: it goes away. */
int luna_thread_spread(luna_queue *queue) {
  luna_vcpu *here = queue->here;
  if (!here || here->thread->stopping) {
    return LUNA_OK;
  }
  int status = make_thread(here);
  if (status == LUNA_OK) {
    queue->here = NULL;
    if (here->thread->place == LUNA_PLACE_INSIDE) {
      luna_kick_hold(&here->kick, true); /* until luna_vcpu_run_here has left it */
      luna_kick_nudge(&here->kick);
    }
  }
  return status;
}

/* ---- Starting and stopping ---- */

static int check_idle(luna_vcpu *vcpu) {
  if (atomic_load(&vcpu->started)) {
    return luna_fail(LUNA_ERROR_STATE, "cannot start vCPU %u: it is started already", vcpu->id);
  }
  /* luna_vcpu_run says that it runs before it looks whether the vCPU is started. */
  atomic_store(&vcpu->started, true);
  if (atomic_load(&vcpu->running)) {
    atomic_store(&vcpu->started, false);
    return luna_fail(LUNA_ERROR_STATE, "cannot start vCPU %u: another thread is running it",
                     vcpu->id);
  }
  return LUNA_OK;
}

static int start(luna_vcpu *vcpu, bool here) {
  luna_thread *t = vcpu->thread;
  luna_queue *queue = vcpu->vm->queue;
  int status = check_idle(vcpu);
  if (status != LUNA_OK) {
    return status;
  }
  t->place = LUNA_PLACE_OUT;
  t->turn.usual = 0;
  hold(vcpu);
  if (here && queue->started == 0) {
    queue->here = vcpu;
  } else {
    status = luna_thread_spread(queue);
    status = status == LUNA_OK ? make_thread(vcpu) : status;
  }
  if (status != LUNA_OK) {
    atomic_store(&vcpu->started, false);
    hold(vcpu);
    return status;
  }
  queue->started++;
  return LUNA_OK;
}

static int start_checked(luna_vcpu *vcpu, bool here) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, watch_forks);
  int status = luna_thread_check_process(vcpu->vm);
  if (status == LUNA_OK) {
    lock(vcpu);
    status = start(vcpu, here);
    unlock(vcpu);
  }
  return status;
}

int luna_vcpu_start(luna_vcpu *vcpu) {
  return start_checked(vcpu, false);
}

int luna_vcpu_start_here(luna_vcpu *vcpu) {
  return start_checked(vcpu, true);
}

static int check_started(const luna_vcpu *vcpu, const char *what) {
  const luna_thread *t = vcpu->thread;
  if (luna_guard_owns(vcpu)) {
    return luna_fail(LUNA_ERROR_STATE,
                     "cannot %s vCPU %u from a trap's function that its own thread calls: do it "
                     "from another thread, or interrupt it",
                     what, vcpu->id);
  }
  if (!atomic_load(&vcpu->started) || t->stopping) {
    return luna_fail(LUNA_ERROR_STATE, "cannot %s vCPU %u: it is not started", what, vcpu->id);
  }
  return LUNA_OK;
}

/* Makes the thread come out of the guest, or not go in, and look what is wanted. */
static void call(luna_vcpu *vcpu) {
  luna_kick_hold(&vcpu->kick, true);
  luna_kick_nudge(&vcpu->kick);
  luna_bell_ring(&vcpu->thread->turn);
}

/* For one that luna_vcpu_run_here runs; its own thread is out before it ends. */
static void wait_until_out(luna_vcpu *vcpu) {
  while (vcpu->thread->place == LUNA_PLACE_INSIDE) {
    pthread_cond_wait(&vcpu->vm->queue->out, &vcpu->vm->queue->lock);
  }
}

static void end_thread(luna_vcpu *vcpu) {
  luna_queue *queue = vcpu->vm->queue;
  if (is_here(vcpu)) {
    wait_until_out(vcpu);
    queue->here = NULL;
    return;
  }
  unlock(vcpu);
  pthread_join(vcpu->thread->id, NULL);
  lock(vcpu);
  wait_until_out(vcpu);
}

/* An exit that nobody took is the vCPU's last exit; the next run or start gives it again. */
static void finish_stop(luna_vcpu *vcpu) {
  luna_thread *t = vcpu->thread;
  if (t->place == LUNA_PLACE_QUEUED) {
    luna_queue_remove(vcpu->vm->queue, vcpu);
    vcpu->pending.untold = t->kind > 0 && !luna_exit_stale(vcpu);
  }
  t->place = LUNA_PLACE_OUT;
  t->stopping = false;
  t->pauses = 0;
  luna_kick_hold(&vcpu->kick, false);
  atomic_store(&vcpu->started, false);
  vcpu->vm->queue->started--;
  hold(vcpu);
}

int luna_vcpu_stop(luna_vcpu *vcpu) {
  int status = luna_thread_check_process(vcpu->vm);
  if (status != LUNA_OK) {
    return status;
  }
  lock(vcpu);
  status = check_started(vcpu, "stop");
  if (status == LUNA_OK) {
    vcpu->thread->stopping = true;
    call(vcpu);
    end_thread(vcpu);
    pthread_cond_broadcast(&vcpu->vm->queue->out);
    finish_stop(vcpu);
  }
  unlock(vcpu);
  return status;
}

void luna_thread_end(luna_vcpu *vcpu) {
  if (atomic_load(&vcpu->started) && vcpu->vm->queue->forks == forks) {
    luna_vcpu_stop(vcpu);
  }
}

uint32_t luna_vcpu_started(const luna_vcpu *vcpu) {
  return atomic_load(&vcpu->started);
}

/* ---- Pauses ---- */

int luna_vcpu_pause(luna_vcpu *vcpu) {
  luna_thread *t = vcpu->thread;
  int status = luna_thread_check_process(vcpu->vm);
  if (status != LUNA_OK) {
    return status;
  }
  lock(vcpu);
  status = check_started(vcpu, "pause");
  if (status == LUNA_OK) {
    t->pauses++;
    call(vcpu);
    while (t->pauses && t->place == LUNA_PLACE_INSIDE) {
      pthread_cond_wait(&vcpu->vm->queue->out, &vcpu->vm->queue->lock);
    }
    status = t->pauses ? LUNA_OK : check_started(vcpu, "pause");
    hold(vcpu);
  }
  unlock(vcpu);
  return status;
}

static int resume(luna_vcpu *vcpu) {
  luna_thread *t = vcpu->thread;
  if (!t->pauses) {
    return luna_fail(LUNA_ERROR_STATE, "cannot resume vCPU %u: it is not paused", vcpu->id);
  }
  if (--t->pauses == 0) {
    luna_kick_hold(&vcpu->kick, false);
    hold(vcpu);
    call_runner(vcpu);
  }
  return LUNA_OK;
}

int luna_vcpu_resume(luna_vcpu *vcpu) {
  int status = luna_thread_check_process(vcpu->vm);
  if (status != LUNA_OK) {
    return status;
  }
  lock(vcpu);
  status = check_started(vcpu, "resume");
  status = status == LUNA_OK ? resume(vcpu) : status;
  unlock(vcpu);
  return status;
}

int luna_vcpu_go(luna_vcpu *vcpu) {
  luna_thread *t = vcpu->thread;
  int status = luna_thread_check_process(vcpu->vm);
  if (status != LUNA_OK) {
    return status;
  }
  lock(vcpu);
  status = check_started(vcpu, "let go");
  if (status == LUNA_OK && t->place != LUNA_PLACE_TAKEN) {
    status =
        luna_fail(LUNA_ERROR_STATE,
                  "cannot let vCPU %u go: no exit of it has been taken from the queue", vcpu->id);
  }
  if (status == LUNA_OK) {
    luna_thread_let_go(vcpu);
  }
  unlock(vcpu);
  return status;
}

/* ---- Without a thread ---- */

uint32_t luna_vcpu_here(const luna_vcpu *vcpu) {
  luna_queue *queue = vcpu->vm->queue;
  pthread_mutex_lock(&queue->lock);
  bool here = is_here(vcpu) && !vcpu->thread->stopping;
  pthread_mutex_unlock(&queue->lock);
  return here;
}

/* What luna_vcpu_go does, and whether the caller is to run it then. The lock is held. */
static bool go_in(luna_vcpu *vcpu) {
  luna_thread *t = vcpu->thread;
  bool free = t->place == LUNA_PLACE_OUT || t->place == LUNA_PLACE_TAKEN;
  if (!atomic_load_explicit(&vcpu->started, memory_order_relaxed) || t->stopping || !free) {
    return false;
  }
  if (!is_here(vcpu)) {
    if (t->place == LUNA_PLACE_TAKEN) {
      luna_thread_let_go(vcpu);
    }
    return false;
  }
  t->place = t->pauses ? LUNA_PLACE_OUT : LUNA_PLACE_INSIDE;
  hold(vcpu);
  return !t->pauses;
}

/* It has come out of the guest, and may have got a thread meanwhile. The lock is held. */
static void leave(luna_vcpu *vcpu, int kind) {
  luna_thread *t = vcpu->thread;
  bool exits = kind != LUNA_EXIT_SIGNAL && kind != LUNA_EXIT_TIMEOUT;
  t->place = exits ? LUNA_PLACE_TAKEN : LUNA_PLACE_OUT;
  hold(vcpu);
  if (!is_here(vcpu)) {
    if (!t->pauses && !t->stopping) {
      luna_kick_hold(&vcpu->kick, false);
    }
    luna_bell_ring(&t->turn);
  }
  if (t->pauses || t->stopping) {
    pthread_cond_broadcast(&vcpu->vm->queue->out);
  }
}

int luna_vcpu_run_here(luna_vcpu *vcpu, uint64_t deadline) {
  int kind = luna_thread_check_process(vcpu->vm);
  if (kind != LUNA_OK) {
    return kind;
  }
  lock(vcpu);
  if (go_in(vcpu)) {
    unlock(vcpu);
    const luna_vcpu *before = luna_guard_own(vcpu);
    kind = luna_vcpu_advance(vcpu, deadline, luna_vcpu_enter);
    luna_guard_own(before);
    lock(vcpu);
    leave(vcpu, kind);
  }
  unlock(vcpu);
  return kind;
}
