/* SPDX-License-Identifier: MIT
 * Stopping a guest in a process that has handlers for all signals, as the runtimes of some
 * languages do: the library shares one with them. */
#include "fixture/vcpu_fixture.h"

#include <signal.h>
#include <unistd.h>

static volatile sig_atomic_t came[32];

static void count(int number) {
  came[number]++;
}

static void count_info(int number, siginfo_t *info, void *context) {
  (void)context;
  came[number] += info->si_signo == number ? 1 : 100;
}

static void handle_all(void) {
  const struct sigaction plain = {.sa_handler = count};
  const struct sigaction informed = {.sa_sigaction = count_info, .sa_flags = SA_SIGINFO};
  CHECK_EQ(sigaction(SIGSTKFLT, &informed, NULL), 0);
  CHECK_EQ(sigaction(SIGPWR, &plain, NULL), 0);
  CHECK_EQ(sigaction(SIGURG, &plain, NULL), 0);
}

static void stop(void *unused) {
  (void)unused;
  luna_vcpu_interrupt(vcpu);
}

static void a_guest_is_stopped(void) {
  handle_all();
  begin();
  SCRIPT({.kind = FAKE_SPIN, .hook = stop, .limit = 20000 * (uint64_t)MILLISECOND},
         {.kind = FAKE_SPIN, .limit = 20000 * (uint64_t)MILLISECOND}, {.kind = FAKE_HLT});
  CHECK_EQ(run(), LUNA_EXIT_INTERRUPTED);
  CHECK_EQ(luna_vcpu_run(vcpu, luna_clock() + 5 * MILLISECOND), LUNA_EXIT_TIMEOUT);
  end();
  CHECK_EQ(came[SIGSTKFLT] + came[SIGPWR] + came[SIGURG], 0); /* what is ours is not theirs */
}

static void what_is_theirs_is_passed_on(void) {
  const int numbers[] = {SIGSTKFLT, SIGPWR, SIGURG};
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    CHECK_EQ(kill(getpid(), numbers[i]), 0);
    CHECK_EQ(came[numbers[i]], 1);
  }
}

int main(void) {
  RUN(a_guest_is_stopped);
  RUN(what_is_theirs_is_passed_on);
  return test_end();
}
