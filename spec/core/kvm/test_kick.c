/* SPDX-License-Identifier: MIT
 * Stopping a guest: kicks at every moment, deadlines, foreign signals; and two threads on one VM,
 * or on two. */
#include "fixture/vcpu_fixture.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <time.h>

enum {
  KICKS = 10000
};

#define MINUTE (60 * UINT64_C(1000000000))
/* A deadline that does not pass before the guest is entered, also on a loaded machine. */
#define FAR (500 * UINT64_C(1000000))

/* ---- Kicks, deadlines, signals
 * ------------------------------------------------------------------ */

static void kick(void *unused) {
  (void)unused;
  luna_vcpu_interrupt(vcpu);
}

static void kick_before_entry(void) {
  begin();
  luna_vcpu_interrupt(vcpu);
  luna_vcpu_interrupt(vcpu); /* two before anybody looks are one */
  CHECK_EQ(run(), LUNA_EXIT_INTERRUPTED);
  CHECK_EQ(e->kind, LUNA_EXIT_INTERRUPTED);
  CHECK_EQ(entries(), 0);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  end();
}

/* The signal finds the thread on its way into KVM, and KVM finds only what its handler left. */
static void kick_on_the_way_in(void) {
  begin();
  SCRIPT({.kind = FAKE_SPIN, .hook = kick, .early = true, .limit = FAR}, {.kind = FAKE_HLT});
  CHECK_EQ(run(), LUNA_EXIT_INTERRUPTED);
  CHECK_EQ(entries(), 1);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  end();
}

static void kick_during_entry(void) {
  begin();
  SCRIPT({.kind = FAKE_SPIN, .hook = kick, .limit = MINUTE}, {.kind = FAKE_HLT});
  CHECK_EQ(run(), LUNA_EXIT_INTERRUPTED);
  CHECK_EQ(entries(), 1);
  luna_vcpu_interrupt(vcpu); /* the guest still spins */
  CHECK_EQ(run(), LUNA_EXIT_INTERRUPTED);
  CHECK_EQ(entries(), 1);
  end();
}

/* The guest exits by itself as the kick comes: the exit first, the kick with the next run. */
static void kick_at_an_exit(void) {
  begin();
  SCRIPT({.kind = FAKE_PIO, .address = 5, .size = 1, .hook = kick}, {.kind = FAKE_HLT});
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_OK(luna_vcpu_answer(vcpu, 0x42));
  CHECK_EQ(run(), LUNA_EXIT_INTERRUPTED);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(get(LUNA_RAX), 0x42);
  end();
}

static void *run_late(void *unused) {
  (void)unused;
  int kind = luna_vcpu_run(vcpu, luna_clock() + MINUTE);
  bool said = strstr(luna_error_message(), "raise RLIMIT_SIGPENDING");
  return (void *)(intptr_t)(kind == LUNA_ERROR_LIMIT && said);
}

/* Where no signal can be queued any more, kicks arrive; a thread's first deadline is an error. */
static void no_room_for_signals(void) {
  struct rlimit old;
  pthread_t thread;
  void *said;
  begin();
  CHECK_EQ(getrlimit(RLIMIT_SIGPENDING, &old), 0);
  const struct rlimit none = {.rlim_cur = 0, .rlim_max = old.rlim_max};
  SCRIPT({.kind = FAKE_SPIN, .hook = kick, .limit = MINUTE}, {.kind = FAKE_HLT});
  CHECK_EQ(setrlimit(RLIMIT_SIGPENDING, &none), 0);
  int kind = run();
  pthread_create(&thread, NULL, run_late, NULL);
  pthread_join(thread, &said);
  CHECK_EQ(setrlimit(RLIMIT_SIGPENDING, &old), 0);
  CHECK_EQ(kind, LUNA_EXIT_INTERRUPTED);
  CHECK(said);
  end();
}

/* KVM_RUN with EINTR leaves the last exit_reason in the page: it must not be read again. */
static void interruption_replays_nothing(void) {
  begin();
  SCRIPT({.kind = FAKE_PIO, .address = 5, .size = 1},
         {.kind = FAKE_ERRNO, .number = EINTR, .reason = KVM_EXIT_IO}, {.kind = FAKE_HLT});
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_OK(luna_vcpu_answer(vcpu, 0x42));
  CHECK_EQ(run(), LUNA_EXIT_SIGNAL);
  check_access(0, 0, 0, 0);
  CHECK_EQ(luna_vcpu_answer(vcpu, 1), LUNA_ERROR_STATE);
  CHECK_EQ(get(LUNA_RAX), 0x42);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(get(LUNA_RAX), 0x42);
  end();
}

static atomic_uint interruptions;
static atomic_bool stop;

typedef struct kicker {
  uint64_t seed;
  const char *problem;
} kicker;

static void wait_a_while(uint64_t *seed) {
  uint64_t turns = test_random(seed) % 4000;
  for (uint64_t i = 0; i < turns; i++) {
    atomic_signal_fence(memory_order_seq_cst);
  }
  if (test_random(seed) % 64 == 0) {
    const struct timespec pause = {.tv_nsec = (long)(test_random(seed) % 200000)};
    nanosleep(&pause, NULL);
  }
}

/* One kick, then until it was seen: two before anybody looks would be one. */
static void *kick_at_random(void *argument) {
  kicker *k = argument;
  for (unsigned i = 1; i <= KICKS && !k->problem && !atomic_load(&stop); i++) {
    wait_a_while(&k->seed);
    luna_vcpu_interrupt(vcpu);
    uint64_t patience = luna_clock() + MINUTE / 2;
    while (atomic_load(&interruptions) < i && luna_clock() < patience && !atomic_load(&stop)) {
      sched_yield();
    }
    if (atomic_load(&interruptions) != i) {
      k->problem = atomic_load(&interruptions) < i ? "a kick was lost" : "a kick was seen twice";
    }
  }
  atomic_store(&stop, true);
  luna_vcpu_interrupt(vcpu);
  return NULL;
}

/* Runs until the kicker is done, or until the guest halts, which it does only if a kick is lost. */
static unsigned run_until_stopped(uint64_t patience) {
  unsigned timeouts = 0;
  while (!atomic_load(&stop)) {
    int kind = luna_vcpu_run(vcpu, patience ? luna_clock() + patience : 0);
    if (kind == LUNA_EXIT_INTERRUPTED) {
      atomic_fetch_add(&interruptions, 1);
    } else if (kind == LUNA_EXIT_PIO) {
      luna_vcpu_answer(vcpu, 0);
    } else if (kind == LUNA_EXIT_TIMEOUT) {
      timeouts++;
    } else {
      atomic_store(&stop, true);
    }
  }
  return timeouts;
}

static unsigned kick_storm(const fake_step *steps, size_t count, uint64_t patience) {
  uint64_t seed = test_seed();
  kicker k = {.seed = seed};
  pthread_t thread;
  begin();
  fake_script_endless(steps, count);
  atomic_store(&interruptions, 0);
  atomic_store(&stop, false);
  CHECK_EQ(pthread_create(&thread, NULL, kick_at_random, &k), 0);
  unsigned timeouts = run_until_stopped(patience);
  pthread_join(thread, NULL);
  test_note("LUNA_SEED=%" PRIu64 ": %s", seed, k.problem ? k.problem : "the guest halted");
  CHECK(!k.problem);
  CHECK(atomic_load(&interruptions) >= KICKS);
  end();
  return timeouts;
}

static void kicks_while_spinning(void) {
  static const fake_step spin[] = {{.kind = FAKE_SPIN, .limit = MINUTE}, {.kind = FAKE_HLT}};
  CHECK_EQ(kick_storm(spin, 2, 0), 0);
}

static void kicks_among_exits(void) {
  static const fake_step busy[] = {{.kind = FAKE_PIO, .address = 5, .size = 1, .write = true},
                                   {.kind = FAKE_PIO, .address = 5, .size = 1},
                                   {.kind = FAKE_SPIN, .limit = 1}};
  CHECK_EQ(kick_storm(busy, 3, 0), 0);
}

static void kicks_among_deadlines(void) {
  static const fake_step spin[] = {{.kind = FAKE_SPIN, .limit = MINUTE}, {.kind = FAKE_HLT}};
  CHECK(kick_storm(spin, 2, 30000) > 0);
}

/* The last kick of a storm can be left over: it belongs to this vCPU and to no other of the
 * thread. */
static void kick_of_another_vcpu(void) {
  begin();
  luna_vcpu *other;
  CHECK_OK(luna_vcpu_create(vm, NULL, &other));
  CHECK_EQ(luna_vcpu_id(other), 1);
  luna_vcpu_interrupt(vcpu);
  CHECK_EQ(luna_vcpu_run(other, 0), LUNA_EXIT_HLT);
  CHECK_EQ(run(), LUNA_EXIT_INTERRUPTED);
  luna_vcpu_release(other);
  end();
}

static void deadline_in_spin(void) {
  begin();
  SCRIPT({.kind = FAKE_SPIN, .limit = MINUTE}, {.kind = FAKE_HLT});
  for (int i = 0; i < 3; i++) {
    uint64_t deadline = luna_clock() + 20 * MILLISECOND;
    CHECK_EQ(luna_vcpu_run(vcpu, deadline), LUNA_EXIT_TIMEOUT);
    CHECK(luna_clock() >= deadline);
    CHECK(luna_clock() < deadline + MINUTE / 2);
    CHECK_EQ(entries(), i + 1);
    check_access(0, 0, 0, 0);
  }
  end();
}

static void deadline_in_the_past(void) {
  begin();
  CHECK_EQ(luna_vcpu_run(vcpu, 1), LUNA_EXIT_TIMEOUT);
  CHECK_EQ(luna_vcpu_run(vcpu, luna_clock()), LUNA_EXIT_TIMEOUT);
  CHECK_EQ(entries(), 0);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(luna_vcpu_run(vcpu, UINT64_MAX), LUNA_EXIT_HLT);
  end();
}

static void wait_until(uint64_t moment) {
  while (luna_clock() <= moment) {
    sched_yield();
  }
}

/* The timer fires between the answer of an exit and the entry. */
static void deadline_before_entry(void) {
  begin();
  SCRIPT({.kind = FAKE_PIO, .size = 1}, {.kind = FAKE_HLT});
  uint64_t deadline = luna_clock() + FAR;
  CHECK_EQ(luna_vcpu_run(vcpu, deadline), LUNA_EXIT_PIO);
  wait_until(deadline + MILLISECOND);
  CHECK_EQ(luna_vcpu_run(vcpu, deadline), LUNA_EXIT_PIO);
  CHECK_OK(luna_vcpu_answer(vcpu, 0x42));
  CHECK_EQ(luna_vcpu_run(vcpu, deadline), LUNA_EXIT_TIMEOUT);
  CHECK_EQ(entries(), 1);
  CHECK_EQ(luna_vcpu_run(vcpu, deadline), LUNA_EXIT_TIMEOUT);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(get(LUNA_RAX), 0x42);
  end();
}

/* A timer that was left armed at an open exit stops nobody else. */
static void deadline_left_behind(void) {
  begin();
  SCRIPT({.kind = FAKE_PIO, .size = 1}, {.kind = FAKE_SPIN, .limit = FAR},
         {.kind = FAKE_PIO, .size = 1}, {.kind = FAKE_HLT});
  uint64_t deadline = luna_clock() + FAR;
  CHECK_EQ(luna_vcpu_run(vcpu, deadline), LUNA_EXIT_PIO);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  CHECK_EQ(run(), LUNA_EXIT_PIO); /* without a deadline */
  CHECK(luna_clock() > deadline);
  CHECK_EQ(entries(), 2);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  CHECK_EQ(luna_vcpu_run(vcpu, luna_clock() + MINUTE), LUNA_EXIT_HLT);
  end();
}

static void disarm(void) {
  begin();
  SCRIPT({.kind = FAKE_PIO, .size = 1}, {.kind = FAKE_PIO, .size = 1}, {.kind = FAKE_HLT});
  uint64_t deadline = luna_clock() + FAR;
  CHECK_EQ(luna_vcpu_run(vcpu, deadline), LUNA_EXIT_PIO);
  luna_vcpu_disarm(vcpu);
  wait_until(deadline + MILLISECOND);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  CHECK_EQ(luna_vcpu_run(vcpu, deadline), LUNA_EXIT_TIMEOUT);
  end();
}

static volatile sig_atomic_t signals_seen;

static void on_user_signal(int number) {
  (void)number;
  signals_seen = signals_seen + 1;
}

static void raise_user_signal(void *unused) {
  (void)unused;
  raise(SIGUSR1);
}

static void foreign_signal(void) {
  begin();
  struct sigaction action = {.sa_handler = on_user_signal, .sa_flags = SA_RESTART};
  struct sigaction old;
  sigaction(SIGUSR1, &action, &old);
  SCRIPT({.kind = FAKE_SPIN, .hook = raise_user_signal, .limit = 50 * MILLISECOND},
         {.kind = FAKE_HLT});
  signals_seen = 0;
  CHECK_EQ(run(), LUNA_EXIT_SIGNAL);
  CHECK_EQ(signals_seen, 1);
  check_access(0, 0, 0, 0);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  sigaction(SIGUSR1, &old, NULL);
  end();
}

static atomic_int nested;

static void run_again(void *unused) {
  (void)unused;
  atomic_store(&nested, run());
}

static void running_already(void) {
  begin();
  SCRIPT({.kind = FAKE_HLT, .hook = run_again});
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(atomic_load(&nested), LUNA_ERROR_STATE);
  CHECK_TEXT(luna_error_message(), "cannot run vCPU 0: it is running already");
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  end();
}

/* ---- Two threads
 * -------------------------------------------------------------------------------- */

/* Maps, traps and looks while the vCPU runs into the same addresses. */
static void *change_the_map(void *unused) {
  (void)unused;
  luna_buffer *buffer;
  const char *problem = luna_buffer_create(PAGE, &buffer) == LUNA_OK ? NULL : "no buffer";
  for (int i = 0; i < 2000 && !problem; i++) {
    uint32_t trap;
    luna_region region;
    bool ok = luna_vm_map_space(vm, 0, buffer, 0, 0xd0000000, PAGE, RWX) == LUNA_OK &&
              luna_space_next(vm, 0, 0, &region) == LUNA_OK &&
              luna_vm_unmap_space(vm, 0, 0xd0000000, PAGE) == LUNA_OK &&
              luna_vm_trap(vm, LUNA_TRAP_MMIO, 0xd0000000, PAGE, &trap) == LUNA_OK &&
              luna_vm_untrap(vm, trap) == LUNA_OK;
    problem = ok ? NULL : "a change was refused";
  }
  luna_buffer_release(buffer);
  atomic_store(&stop, true);
  luna_vcpu_interrupt(vcpu);
  return (void *)(uintptr_t)problem;
}

static void map_changes_while_running(void) {
  pthread_t thread;
  void *problem;
  begin();
  atomic_store(&stop, false);
  fake_endless_mmio(0xd0000040, 4, false);
  CHECK_EQ(pthread_create(&thread, NULL, change_the_map, NULL), 0);
  while (!atomic_load(&stop)) {
    int kind = run();
    CHECK(kind == LUNA_EXIT_MMIO || kind == LUNA_EXIT_FAULT || kind == LUNA_EXIT_INTERRUPTED);
    CHECK_EQ(e->trap != 0, kind == LUNA_EXIT_MMIO);
    if (kind != LUNA_EXIT_INTERRUPTED) {
      CHECK_OK(luna_vcpu_answer(vcpu, 0));
    }
  }
  pthread_join(thread, &problem);
  CHECK(!problem);
  end();
}

static void *make_and_release(void *problem) {
  for (int i = 0; i < 200; i++) {
    luna_vm *made;
    luna_vcpu *cpu;
    if (luna_vm_create(&made) != LUNA_OK || luna_vcpu_create(made, NULL, &cpu) != LUNA_OK ||
        luna_vcpu_run(cpu, luna_clock() + MINUTE) != LUNA_EXIT_HLT) {
      atomic_store((atomic_bool *)problem, true);
      break;
    }
    luna_vcpu_release(cpu);
    luna_vm_release(made);
  }
  return NULL;
}

/* VMs are independent; what they share, the description of the host, is asked for by the first. */
static void vms_in_two_threads(void) {
  pthread_t threads[2];
  atomic_bool problem = false;
  for (int i = 0; i < 2; i++) {
    CHECK_EQ(pthread_create(&threads[i], NULL, make_and_release, &problem), 0);
  }
  pthread_join(threads[0], NULL);
  pthread_join(threads[1], NULL);
  CHECK(!atomic_load(&problem));
}

int main(void) {
  RUN(kick_before_entry);
  RUN(kick_on_the_way_in);
  RUN(kick_during_entry);
  RUN(kick_at_an_exit);
  RUN(no_room_for_signals);
  RUN(interruption_replays_nothing);
  RUN(kicks_while_spinning);
  RUN(kicks_among_exits);
  RUN(kicks_among_deadlines);
  RUN(kick_of_another_vcpu);
  RUN(deadline_in_spin);
  RUN(deadline_in_the_past);
  RUN(deadline_before_entry);
  RUN(deadline_left_behind);
  RUN(disarm);
  RUN(foreign_signal);
  RUN(running_already);
  RUN(map_changes_while_running);
  RUN(vms_in_two_threads);
  return test_end();
}
