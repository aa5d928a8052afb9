/* SPDX-License-Identifier: MIT
 * Kicks from another thread over the real KVM, at random moments before, during and after the
 * entry: none is lost, none is seen twice. A kick that comes before the last one was seen is the
 * same kick, so that each waits for the one before. */
#include "fixture/vcpu_fixture.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

enum {
  KICKS = 10000,
  LEAST_KICKS = 100 /* on a machine that is busy with other things */
};

static const uint64_t longest = UINT64_C(40000) * MILLISECOND;

#if defined(__SANITIZE_THREAD__)
static const bool signals_wait = true;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
static const bool signals_wait = true;
#else
static const bool signals_wait = false;
#endif
#else
static const bool signals_wait = false;
#endif

static const uint64_t patience = UINT64_C(20000) * MILLISECOND;

typedef struct kicker {
  uint64_t seed;
  unsigned count; /* of the kicks that were seen */
  const char *problem;
} kicker;

static atomic_uint seen;
static atomic_bool stop;

/* From none to some hundred microseconds: more than an entry and its exit take together. */
static void wait_a_while(uint64_t *seed) {
  uint64_t end = luna_clock() + test_random(seed) % 100000;
  while (test_random(seed) % 4 && luna_clock() < end) {
    sched_yield();
  }
}

static void *kick(void *argument) {
  kicker *k = argument;
  uint64_t last = luna_clock() + longest;
  for (unsigned i = 1; i <= KICKS && !k->problem && !atomic_load(&stop); i++) {
    if (luna_clock() >= last && i > LEAST_KICKS) {
      break;
    }
    wait_a_while(&k->seed);
    luna_vcpu_interrupt(vcpu);
    uint64_t end = luna_clock() + patience;
    while (atomic_load(&seen) < i && luna_clock() < end && !atomic_load(&stop)) {
      sched_yield();
    }
    k->count = i;
    if (atomic_load(&seen) != i) {
      k->problem = atomic_load(&seen) < i ? "a kick was lost" : "a kick was seen twice";
    }
  }
  atomic_store(&stop, true);
  luna_vcpu_interrupt(vcpu);
  return NULL;
}

/* Runs until the kicker is done; every so often it stays away from the guest for a moment. */
static void run_until_stopped(uint64_t seed) {
  while (!atomic_load(&stop)) {
    int kind = luna_vcpu_run(vcpu, luna_clock() + 2 * patience);
    if (kind == LUNA_EXIT_INTERRUPTED) {
      atomic_fetch_add(&seen, 1);
      wait_a_while(&seed);
    } else if (kind == LUNA_EXIT_PIO) {
      luna_vcpu_answer(vcpu, 0);
    } else if (kind != LUNA_EXIT_SIGNAL) {
      test_note("exit %d: %s", kind, kind < 0 ? luna_error_message() : luna_exit_name(kind));
      atomic_store(&stop, true);
    }
  }
}

static void storm(const char *code, size_t size, uint32_t mode) {
  uint64_t seed = test_seed();
  kicker k = {.seed = seed};
  pthread_t thread;
  if (signals_wait) {
    test_skip("the thread sanitizer keeps signals back, also those that come just before KVM_RUN");
  }
  begin_real_vm(code, size);
  begin_real_vcpu(mode);
  test_note("LUNA_SEED=%" PRIu64, seed);
  atomic_store(&seen, 0);
  atomic_store(&stop, false);
  CHECK_EQ(pthread_create(&thread, NULL, kick, &k), 0);
  run_until_stopped(~seed);
  pthread_join(thread, NULL);
  if (k.problem) {
    test_fail(__FILE__, __LINE__, "%s, after %u", k.problem, atomic_load(&seen));
  }
  /* The last one only ends the run; it may have been seen there or not yet. */
  unsigned count = atomic_load(&seen);
  CHECK(count == k.count || count == k.count + 1);
  if (count == k.count) {
    CHECK_EQ(luna_vcpu_run(vcpu, luna_clock() + patience), LUNA_EXIT_INTERRUPTED);
  }
  CHECK_EQ(luna_vcpu_run(vcpu, luna_clock() + MILLISECOND) != LUNA_EXIT_INTERRUPTED, 1);
  end();
}

static void kicks_of_a_spinning_guest(void) {
  static const char spin[] = "\xeb\xfe";
  storm(spin, sizeof spin, LUNA_MODE_USER64);
}

static void kicks_among_exits(void) {
  static const char send[] = "\xe6\x10\xe4\x10\xeb\xfa"; /* out 0x10, al; in al, 0x10; again */
  storm(send, sizeof send, LUNA_MODE_REAL);
}

int main(void) {
  RUN(kicks_of_a_spinning_guest);
  RUN(kicks_among_exits);
  return test_end();
}
