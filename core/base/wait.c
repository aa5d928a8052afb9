/* SPDX-License-Identifier: MIT
 * Bells: futexes with a stretch of looking before the sleep. Two wake-ups by the kernel cost
 * several times what an exit costs, so a wait that is usually short is not slept through. */
#include "base/wait.h"

#include "lunavisor.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
  LONGEST_LOOK = 100000,    /* nanoseconds */
  LOOKS = 4,                /* between two yields */
  SLEEP_SECONDS_MOST = 3600 /* a sleep without an end would be restarted behind a signal handler */
};

static atomic_int workers; /* threads of vCPUs that do not sleep */

void luna_wait_worker(int change) {
  atomic_fetch_add_explicit(&workers, change, memory_order_relaxed);
}

void luna_wait_forget(void) {
  atomic_store(&workers, 0);
}

unsigned luna_bell_read(luna_bell *bell) {
  return atomic_load(&bell->word);
}

/* Either the ringer sees that somebody sleeps, or the sleeper's system call sees the new word. */
void luna_bell_ring(luna_bell *bell) {
  atomic_fetch_add(&bell->word, 1);
  if (atomic_load(&bell->asleep)) {
    int saved = errno;
    syscall(SYS_futex, &bell->word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
    errno = saved;
  }
}

static int processors(void) {
  static _Thread_local int count;
  if (!count) {
    cpu_set_t set;
    count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  }
  return count;
}

/* The vCPU threads that are awake, and the one that takes their exits, each need a processor. */
static bool may_look(const luna_bell *bell) {
  return atomic_load_explicit(&bell->usual, memory_order_relaxed) < LONGEST_LOOK &&
         atomic_load_explicit(&workers, memory_order_relaxed) + 1 <= processors();
}

/* The yields let the ringer get on where it has to share this thread's processor. */
static bool look(luna_bell *bell, unsigned seen, uint64_t end) {
  do {
    for (int i = 0; i < LOOKS; i++) {
      if (atomic_load_explicit(&bell->word, memory_order_acquire) != seen) {
        return true;
      }
      __builtin_ia32_pause();
    }
    sched_yield();
  } while (luna_clock() < end);
  return false;
}

static luna_wait_result sleep_until(luna_bell *bell, unsigned seen, uint64_t deadline) {
  uint64_t longest = luna_clock() + SLEEP_SECONDS_MOST * UINT64_C(1000000000);
  uint64_t end = deadline < longest ? deadline : longest;
  const struct timespec moment = {.tv_sec = (time_t)(end / 1000000000u),
                                  .tv_nsec = (long)(end % 1000000000u)};
  luna_wait_result result = LUNA_WAIT_RUNG;
  atomic_fetch_add(&bell->asleep, 1);
  if (syscall(SYS_futex, &bell->word, FUTEX_WAIT_BITSET_PRIVATE, seen, &moment, NULL,
              FUTEX_BITSET_MATCH_ANY) != 0) {
    result = errno == ETIMEDOUT && end == deadline ? LUNA_WAIT_LATE
             : errno == EINTR                      ? LUNA_WAIT_SIGNAL
                                                   : LUNA_WAIT_RUNG;
  }
  atomic_fetch_sub(&bell->asleep, 1);
  return result;
}

luna_wait_result luna_bell_wait(luna_bell *bell, unsigned seen, uint64_t deadline, bool worker) {
  luna_wait_result result = LUNA_WAIT_RUNG;
  uint64_t begin = luna_clock();
  uint64_t most = begin + LONGEST_LOOK;
  if (!may_look(bell) || !look(bell, seen, deadline < most ? deadline : most)) {
    if (worker) {
      luna_wait_worker(-1);
    }
    result = sleep_until(bell, seen, deadline);
    if (worker) {
      luna_wait_worker(1);
    }
  }
  uint64_t took = luna_clock() - begin;
  took = took < 2 * LONGEST_LOOK ? took : 2 * LONGEST_LOOK;
  uint64_t usual = atomic_load_explicit(&bell->usual, memory_order_relaxed);
  atomic_store_explicit(&bell->usual, (3 * usual + took) / 4, memory_order_relaxed);
  return result;
}
