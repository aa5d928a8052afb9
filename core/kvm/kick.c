/* SPDX-License-Identifier: MIT
 * The signal, the per-thread timer and the order of stores that loses no kick. */
#include "kvm/kick.h"

#include "base/error.h"
#include "kvm/kvm.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef sigev_notify_thread_id /* in glibc only since 2.38 */
#define sigev_notify_thread_id _sigev_un._tid
#endif

_Thread_local luna_kick_thread luna_kick_self __attribute__((tls_model("initial-exec")));

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t thread_end;
static int signal_number;
static struct sigaction before; /* what the process did with it */

/* Sent by this library: by luna_kick_nudge, or by a timer. */
static bool is_ours(const siginfo_t *info) {
  return info->si_code == SI_TIMER || (info->si_code == SI_TKILL && info->si_pid == getpid());
}

static void pass_on(int number, siginfo_t *info, void *context) {
  if (before.sa_flags & SA_SIGINFO) {
    before.sa_sigaction(number, info, context);
  } else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
    before.sa_handler(number);
  }
}

static void on_signal(int number, siginfo_t *info, void *context) {
  struct kvm_run *run = luna_kick_self.running;
  luna_kick_self.seen = 1;
  if (run) {
    run->immediate_exit = 1;
  }
  if (!is_ours(info)) {
    pass_on(number, info, context);
  }
}

static void on_thread_end(void *unused) {
  (void)unused;
  if (luna_kick_self.has_timer) {
    timer_delete(luna_kick_self.timer);
    luna_kick_self.has_timer = false;
  }
}

/* A child has neither its parent's timers nor its thread id. */
static void on_fork(void) {
  memset(&luna_kick_self, 0, sizeof luna_kick_self);
}

/* The first of these that the process has no use for, or else the first of all: a runtime that
 * handles every signal expects nothing of that one, and gets what is not the library's. None is a
 * real-time signal: those take a place in the queue of the process's owner, and tgkill refuses one
 * when that is full (EAGAIN, RLIMIT_SIGPENDING); a standard signal always arrives. */
static int choose(void) {
  static const int unused[] = {SIGSTKFLT, SIGPWR, SIGURG};
  for (size_t i = 0; i < sizeof unused / sizeof *unused; i++) {
    struct sigaction action;
    if (sigaction(unused[i], NULL, &action) == 0 && action.sa_handler == SIG_DFL) {
      return unused[i];
    }
  }
  return unused[0];
}

/* On the alternate stack if the thread has one: such a runtime's own stacks are small. */
static void install(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  pthread_key_create(&thread_end, on_thread_end);
  pthread_atfork(NULL, NULL, on_fork);
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  signal_number = choose();
  sigaction(signal_number, &action, &before);
}

int luna_kick_begin(void) {
  pthread_once(&once, install);
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, signal_number);
  pthread_sigmask(SIG_UNBLOCK, &mask, NULL);
  pthread_setspecific(thread_end, &luna_kick_self);
  luna_kick_self.id = (pid_t)syscall(SYS_gettid);
  return LUNA_OK;
}

static int make_timer(void) {
  struct sigevent event;
  memset(&event, 0, sizeof event);
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = signal_number;
  event.sigev_notify_thread_id = luna_kick_self.id;
  if (timer_create(CLOCK_MONOTONIC, &event, &luna_kick_self.timer) != 0) {
    /* The kernel keeps a place in the queue for it from now on, so that only this can fail. */
    if (errno == EAGAIN) {
      return luna_fail(LUNA_ERROR_LIMIT,
                       "cannot make the timer for a deadline: the user of this process has as many "
                       "signals and timers as allowed; raise RLIMIT_SIGPENDING (ulimit -i), or run "
                       "without a timeout");
    }
    return luna_fail_errno(errno, "cannot make the timer for a deadline");
  }
  luna_kick_self.has_timer = true;
  return LUNA_OK;
}

static void set_timer(uint64_t moment) {
  struct itimerspec when;
  memset(&when, 0, sizeof when);
  when.it_value.tv_sec = (time_t)(moment / 1000000000u);
  when.it_value.tv_nsec = (long)(moment % 1000000000u);
  timer_settime(luna_kick_self.timer, TIMER_ABSTIME, &when, NULL);
  luna_kick_self.armed = moment;
}

int luna_kick_arm(uint64_t deadline) {
  if (luna_kick_self.armed == deadline) {
    return LUNA_OK;
  }
  int status = luna_kick_self.has_timer ? LUNA_OK : make_timer();
  if (status == LUNA_OK) {
    set_timer(deadline);
  }
  return status;
}

void luna_kick_stop_timer(void) {
  set_timer(0);
}

int luna_kick_run(luna_kick *kick, const luna_gate *gate, luna_fd vcpu_fd, struct kvm_run *run,
                  bool *entered) {
  run->immediate_exit = 0;
  luna_kick_self.running = run;
  /* Either the kicker sees this thread's id and sends the signal, or this thread sees the request:
   * both sides store first and load then. The gate's locked instruction is between the two here
   * (SDM Vol. 3, 9.2.3.9). */
  atomic_store_explicit(&kick->thread, luna_kick_self.id, memory_order_release);
  int result = -1;
  bool open = luna_gate_enter(gate, kick);
  *entered = open && !luna_kick_self.seen && !atomic_load(&kick->requested);
  if (!*entered) {
    errno = EINTR;
  } else {
    result = luna_kvm_run(vcpu_fd);
  }
  if (open) {
    luna_gate_leave(kick);
  }
  atomic_store_explicit(&kick->thread, 0, memory_order_release);
  luna_kick_self.running = NULL;
  return result;
}

/* KVM_SET_SIGNAL_MASK (api.rst): what is blocked inside KVM_RUN, a bit a signal; the kernel's
 * sigset_t is shorter than the C library's. */
static int open_signal(luna_fd vcpu_fd) {
  struct {
    uint32_t size;
    uint8_t blocked[8];
  } mask = {.size = sizeof mask.blocked};
  memset(mask.blocked, 0xff, sizeof mask.blocked);
  mask.blocked[(signal_number - 1) / 8] &= (uint8_t) ~(1u << (signal_number - 1) % 8);
  return luna_kvm_set_signal_mask(vcpu_fd, (const struct kvm_signal_mask *)(const void *)&mask);
}

/* Afterwards the handler has it, as any that may have come meanwhile. */
int luna_kick_visit(luna_fd vcpu_fd) {
  sigset_t ours;
  sigset_t mask;
  sigemptyset(&ours);
  sigaddset(&ours, signal_number);
  pthread_sigmask(SIG_BLOCK, &ours, &mask);
  int result = open_signal(vcpu_fd);
  if (result == 0) {
    syscall(SYS_tgkill, getpid(), luna_kick_self.id, signal_number);
    result = luna_kvm_run(vcpu_fd);
    int number = errno;
    luna_kvm_set_signal_mask(vcpu_fd, NULL);
    errno = number;
  }
  int number = errno;
  pthread_sigmask(SIG_SETMASK, &mask, NULL);
  errno = number;
  return result;
}

bool luna_kick_seen(void) {
  bool seen = luna_kick_self.seen;
  luna_kick_self.seen = 0;
  return seen;
}

/* Whoever closes the gate looks at `inside` afterwards, whoever enters looks at `closed`
 * afterwards: one of the two sees the other. Of each vCPU a flag, rather than a count of all: to
 * leave is a plain store then. */
bool luna_gate_enter(const luna_gate *gate, luna_kick *kick) {
  atomic_store(&kick->inside, true);
  if (!atomic_load(&gate->closed)) {
    return true;
  }
  luna_gate_leave(kick);
  return false;
}

void luna_gate_leave(luna_kick *kick) {
  atomic_store_explicit(&kick->inside, false, memory_order_release);
}

void luna_kick_request(luna_kick *kick) {
  atomic_fetch_or(&kick->requested, LUNA_KICK_REQUEST);
  luna_kick_nudge(kick);
}

void luna_kick_attend(luna_kick *kick) {
  atomic_fetch_or(&kick->requested, LUNA_KICK_ATTEND);
  luna_kick_nudge(kick);
}

void luna_kick_attended(luna_kick *kick) {
  atomic_fetch_and(&kick->requested, ~(unsigned)LUNA_KICK_ATTEND);
}

void luna_kick_nudge(const luna_kick *kick) {
  int thread = atomic_load(&kick->thread);
  if (thread) {
    int saved = errno;
    syscall(SYS_tgkill, getpid(), thread, signal_number);
    errno = saved;
  }
}

bool luna_kick_take(luna_kick *kick) {
  return atomic_load(&kick->requested) & LUNA_KICK_REQUEST &&
         atomic_fetch_and(&kick->requested, ~(unsigned)LUNA_KICK_REQUEST) & LUNA_KICK_REQUEST;
}

void luna_kick_hold(luna_kick *kick, bool on) {
  if (on) {
    atomic_fetch_or(&kick->requested, LUNA_KICK_HOLD);
  } else {
    atomic_fetch_and(&kick->requested, ~(unsigned)LUNA_KICK_HOLD);
  }
}

bool luna_kick_held(luna_kick *kick) {
  return atomic_load(&kick->requested) & LUNA_KICK_HOLD;
}
