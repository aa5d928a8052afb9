/* SPDX-License-Identifier: MIT
 * A started vCPU that has no thread, over the fake: the caller runs it, until another is started;
 * and what other threads may do with it meanwhile. */
#include "fixture/own_calls.h"
#include "fixture/vcpu_fixture.h"

#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

enum {
  PORT = 0x10
};

static uint64_t soon(void) {
  return luna_clock() + UINT64_C(5000000000);
}

static int run_here(void) {
  return luna_vcpu_run_here(vcpu, soon());
}

static void spin(void) {
  static const fake_step steps[] = {{.kind = FAKE_SPIN}};
  fake_script_endless(steps, 1);
}

static unsigned threads(void) {
  unsigned count = 0;
  DIR *tasks = opendir("/proc/self/task");
  CHECK(tasks != NULL);
  while (readdir(tasks)) {
    count++;
  }
  closedir(tasks);
  return count;
}

static const char *const started =
    "vCPU 0 is started, and its thread has it: pause it or stop it first";

/* ---- One vCPU ---- */

static void exits_come_to_the_caller(void) {
  begin();
  fake_endless_pio(PORT, 1, true);
  unsigned before = threads();
  CHECK_EQ(luna_vcpu_here(vcpu), 0);
  CHECK_OK(luna_vcpu_start_here(vcpu));
  CHECK_EQ(luna_vcpu_here(vcpu), 1);
  CHECK_EQ(luna_vcpu_started(vcpu), 1);
  CHECK_FAILS(luna_vcpu_start_here(vcpu), LUNA_ERROR_STATE, "it is started already");
  CHECK_FAILS(run(), LUNA_ERROR_STATE, "it is started");
  for (uint64_t i = 0; i < 1000; i++) {
    CHECK_EQ(run_here(), LUNA_EXIT_PIO);
    check_access(PORT, 1, LUNA_READ, 0);
    CHECK_EQ(get(LUNA_RAX) & 0xff, i & 0xff); /* it is free now */
    CHECK_OK(luna_vcpu_answer(vcpu, (i + 1) & 0xff));
  }
  CHECK_EQ(threads(), before);
  CHECK_OK(luna_vcpu_stop(vcpu));
  CHECK_EQ(luna_vcpu_here(vcpu), 0);
  CHECK_EQ(run_here(), 0); /* not started */
  CHECK_EQ(luna_vcpu_exits(vcpu), 1000);
  end();
}

static void an_exit_without_an_answer_comes_again(void) {
  begin();
  fake_endless_pio(PORT, 1, true);
  CHECK_OK(luna_vcpu_start_here(vcpu));
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(run_here(), LUNA_EXIT_PIO);
  }
  CHECK_EQ(entries(), 1);
  CHECK_OK(luna_vcpu_stop(vcpu));
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_EQ(entries(), 1);
  end();
}

static void a_deadline_is_no_exit(void) {
  uint64_t value;
  begin();
  spin();
  CHECK_OK(luna_vcpu_start_here(vcpu));
  CHECK_FAILS(luna_vcpu_get(vcpu, LUNA_RAX, &value), LUNA_ERROR_STATE, started);
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(luna_vcpu_run_here(vcpu, luna_clock() + MILLISECOND), LUNA_EXIT_TIMEOUT);
    CHECK_FAILS(luna_vcpu_get(vcpu, LUNA_RAX, &value), LUNA_ERROR_STATE, started);
    CHECK_FAILS(luna_vcpu_go(vcpu), LUNA_ERROR_STATE, "no exit of it has been taken");
  }
  CHECK_EQ(luna_vcpu_exits(vcpu), 0);
  luna_vcpu_interrupt(vcpu);
  CHECK_EQ(run_here(), LUNA_EXIT_INTERRUPTED);
  CHECK_OK(luna_vcpu_get(vcpu, LUNA_RAX, &value));
  CHECK_EQ(luna_vcpu_exits(vcpu), 1);
  CHECK_OK(luna_vcpu_stop(vcpu));
  end();
}

static void a_failed_run_tells_why(void) {
  begin();
  SCRIPT({.kind = FAKE_ERRNO, .number = EBADF});
  CHECK_OK(luna_vcpu_start_here(vcpu));
  CHECK_FAILS(run_here(), LUNA_ERROR_SYSTEM, "cannot run vCPU 0: Bad file descriptor");
  CHECK_EQ(run_here(), LUNA_EXIT_HLT);
  end();
}

static void its_own_thread_is_refused(void) {
  uint32_t trap;
  begin();
  CHECK_OK(luna_vm_trap_function(vm, LUNA_TRAP_PIO, PORT, 1, call_on_its_own, vcpu, &trap));
  fake_endless_pio(PORT, 1, false);
  CHECK_OK(luna_vcpu_start_here(vcpu));
  CHECK_EQ(run_here(), LUNA_EXIT_PIO);
  own_calls_are_refused();
  CHECK_OK(luna_vcpu_stop(vcpu)); /* and not when it is out again */
  end();
}

/* ---- Pauses, and other threads ---- */

static void a_pause_keeps_it_out(void) {
  luna_vcpu *none;
  begin();
  fake_endless_pio(PORT, 1, false);
  CHECK_OK(luna_vcpu_start_here(vcpu));
  CHECK_EQ(run_here(), LUNA_EXIT_PIO);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  CHECK_OK(luna_vcpu_pause(vcpu));
  uint64_t before = entries();
  CHECK_EQ(run_here(), 0);
  get(LUNA_RIP); /* it can be read */
  CHECK_EQ(luna_vm_next(vm, luna_clock() + MILLISECOND, &none), 0);
  CHECK_EQ(entries(), before);
  CHECK_OK(luna_vcpu_resume(vcpu));
  CHECK_EQ(luna_vm_next(vm, LUNA_FOREVER, &none), 0); /* does not wait */
  CHECK_EQ(run_here(), LUNA_EXIT_PIO);
  end();
}

static atomic_int result;

static void *pause_and_resume(void *unused) {
  usleep(2000);
  int status = luna_vcpu_pause(vcpu);
  uint64_t value;
  status = status == LUNA_OK ? luna_vcpu_set(vcpu, LUNA_RBX, 5) : status;
  status = status == LUNA_OK ? luna_vcpu_get(vcpu, LUNA_RBX, &value) : status;
  usleep(2000);
  status = status == LUNA_OK ? luna_vcpu_resume(vcpu) : status;
  usleep(2000);
  luna_vcpu_interrupt(vcpu);
  atomic_store(&result, status);
  return unused;
}

/* What a caller does with it until there is an exit. */
static int serve_here(void) {
  int kind;
  do {
    luna_vcpu *none;
    kind = run_here();
    if (kind == 0) {
      CHECK_EQ(luna_vm_next(vm, soon(), &none), 0);
    }
  } while (kind == 0 || kind == LUNA_EXIT_SIGNAL);
  return kind;
}

static void another_thread_pauses_it(void) {
  pthread_t other;
  begin();
  spin();
  CHECK_OK(luna_vcpu_start_here(vcpu));
  for (int i = 0; i < 20; i++) {
    pthread_create(&other, NULL, pause_and_resume, NULL);
    CHECK_EQ(serve_here(), LUNA_EXIT_INTERRUPTED);
    pthread_join(other, NULL);
    CHECK_OK(atomic_load(&result));
    CHECK_EQ(get(LUNA_RBX), 5);
  }
  end();
}

/* It came out for what another thread did, or was late and did not go in. */
static void check_out(int kind) {
  CHECK(kind == LUNA_EXIT_SIGNAL || kind == 0);
}

static void *stop(void *unused) {
  usleep(2000);
  atomic_store(&result, luna_vcpu_stop(vcpu));
  return unused;
}

static void another_thread_stops_it(void) {
  pthread_t other;
  begin();
  spin();
  for (int i = 0; i < 20; i++) {
    CHECK_OK(luna_vcpu_start_here(vcpu));
    pthread_create(&other, NULL, stop, NULL);
    check_out(run_here());
    pthread_join(other, NULL);
    CHECK_OK(atomic_load(&result));
    CHECK_EQ(luna_vcpu_started(vcpu), 0);
    CHECK_EQ(run_here(), 0);
    CHECK_EQ(luna_vcpu_run(vcpu, luna_clock() + MILLISECOND), LUNA_EXIT_TIMEOUT); /* nor held */
  }
  end();
}

/* ---- Another vCPU ---- */

static luna_vcpu *second;

static void begin_two(void) {
  begin();
  CHECK_OK(luna_vcpu_create(vm, NULL, &second));
}

static void end_two(void) {
  luna_vcpu_release(second);
  end();
}

/* Exits of both, which come from the queue. */
static void check_both(void) {
  unsigned seen[2] = {0, 0};
  for (int i = 0; i < 200 || !seen[0] || !seen[1]; i++) {
    luna_vcpu *from;
    CHECK_EQ(luna_vm_next(vm, soon(), &from), LUNA_EXIT_PIO);
    seen[luna_vcpu_id(from)]++;
    CHECK_OK(luna_vcpu_answer(from, 0));
    CHECK_OK(luna_vcpu_go(from));
  }
}

static void a_second_gives_it_a_thread(void) {
  for (int here = 0; here < 2; here++) {
    begin_two();
    fake_endless_pio(PORT, 1, false);
    CHECK_OK(luna_vcpu_start_here(vcpu));
    CHECK_EQ(run_here(), LUNA_EXIT_PIO);
    unsigned before = threads();
    CHECK_OK((here ? luna_vcpu_start_here : luna_vcpu_start)(second));
    CHECK_EQ(threads(), before + 2);
    CHECK_EQ(luna_vcpu_here(vcpu), 0);
    CHECK_EQ(luna_vcpu_here(second), 0);
    CHECK_OK(luna_vcpu_answer(vcpu, 0));
    CHECK_EQ(run_here(), 0); /* its thread goes on with it */
    check_both();
    CHECK_OK(luna_vcpu_stop(second));
    CHECK_OK(luna_vcpu_stop(vcpu));
    CHECK_OK(luna_vcpu_start_here(second));
    CHECK_EQ(luna_vcpu_here(second), 1);
    end_two();
  }
}

static void *start_second(void *unused) {
  usleep(2000);
  atomic_store(&result, luna_vcpu_start(second));
  return unused;
}

/* In the middle of its run: it comes out, and its thread takes over. */
static void another_thread_starts_a_second(void) {
  for (int i = 0; i < 20; i++) {
    pthread_t other;
    luna_vcpu *from;
    begin_two();
    spin();
    CHECK_OK(luna_vcpu_start_here(vcpu));
    pthread_create(&other, NULL, start_second, NULL);
    check_out(run_here());
    pthread_join(other, NULL);
    CHECK_OK(atomic_load(&result));
    CHECK_EQ(run_here(), 0);
    luna_vcpu_interrupt(vcpu);
    CHECK_EQ(luna_vm_next(vm, soon(), &from), LUNA_EXIT_INTERRUPTED);
    CHECK(from == vcpu);
    CHECK_EQ(run_here(), 0); /* lets it go */
    luna_vcpu_interrupt(vcpu);
    CHECK_EQ(luna_vm_next(vm, soon(), &from), LUNA_EXIT_INTERRUPTED);
    end_two();
  }
}

/* Who only looks whether there is something leaves the guest to itself meanwhile. */
static void a_look_gives_it_a_thread(void) {
  luna_vcpu *from;
  begin();
  fake_endless_pio(PORT, 1, false);
  CHECK_OK(luna_vcpu_start_here(vcpu));
  CHECK_EQ(luna_vm_next(vm, soon() - UINT64_C(4999000000), &from), 0); /* nobody runs it */
  CHECK_EQ(entries(), 0);
  luna_vm_next(vm, 0, &from);
  CHECK_EQ(luna_vcpu_here(vcpu), 0);
  if (!from) {
    CHECK_EQ(luna_vm_next(vm, soon(), &from), LUNA_EXIT_PIO);
  }
  CHECK(from == vcpu);
  end();
}

/* ---- Everything at once ---- */

static atomic_bool done;
static atomic_ulong wrong;

static void try_one(luna_vcpu *one, uint64_t choice) {
  static int (*const verbs[])(luna_vcpu *) = {luna_vcpu_stop, luna_vcpu_start, luna_vcpu_start_here,
                                              luna_vcpu_pause, luna_vcpu_resume};
  const uint64_t count = sizeof verbs / sizeof *verbs;
  if (choice % (count + 1) == count) {
    luna_vcpu_interrupt(one);
    return;
  }
  int status = verbs[choice % (count + 1)](one);
  if (status != LUNA_OK && status != LUNA_ERROR_STATE) {
    atomic_fetch_add(&wrong, 1);
  }
}

static void *disturb(void *seed) {
  uint64_t state = *(uint64_t *)seed;
  while (!atomic_load(&done)) {
    uint64_t choice = test_random(&state);
    try_one(choice >> 32 & 3 ? vcpu : second, choice >> 40);
    if (choice % 4 == 0) {
      usleep(choice >> 48 & 127);
    }
  }
  return NULL;
}

static void check_kind(int kind) {
  CHECK(kind == 0 || kind == LUNA_EXIT_PIO || kind == LUNA_EXIT_INTERRUPTED ||
        kind == LUNA_EXIT_SIGNAL || kind == LUNA_EXIT_TIMEOUT);
}

/* How many exits came here, and how many from the queue. */
static void serve(uint64_t end_of_it, unsigned served[2]) {
  while (luna_clock() < end_of_it) {
    luna_vcpu *from;
    int kind = luna_vcpu_run_here(vcpu, luna_clock() + MILLISECOND);
    check_kind(kind);
    served[0] += kind == LUNA_EXIT_PIO;
    if (kind == 0) {
      kind = luna_vm_next(vm, luna_clock() + MILLISECOND / 10, &from);
      check_kind(kind);
      served[1] += kind == LUNA_EXIT_PIO;
      if (from) {
        int status = luna_vcpu_go(from);
        CHECK(status == LUNA_OK || status == LUNA_ERROR_STATE);
      }
    }
  }
}

static void everything_at_once(void) {
  pthread_t others[2];
  uint64_t seeds[2] = {test_seed(), test_seed() * 3};
  unsigned served[2] = {0, 0};
  test_note("LUNA_SEED=%" PRIu64, seeds[0]);
  begin_two();
  fake_endless_pio(PORT, 1, false);
  atomic_store(&done, false);
  for (int i = 0; i < 2; i++) {
    pthread_create(&others[i], NULL, disturb, &seeds[i]);
  }
  for (int tries = 0; tries < 40 && (served[0] <= 50 || served[1] <= 50); tries++) {
    serve(luna_clock() + 500 * MILLISECOND, served);
  }
  atomic_store(&done, true);
  for (int i = 0; i < 2; i++) {
    pthread_join(others[i], NULL);
  }
  CHECK_EQ(atomic_load(&wrong), 0);
  CHECK(served[0] > 50);
  CHECK(served[1] > 50);
  end_two();
}

int main(void) {
  RUN(exits_come_to_the_caller);
  RUN(an_exit_without_an_answer_comes_again);
  RUN(a_deadline_is_no_exit);
  RUN(a_failed_run_tells_why);
  RUN(its_own_thread_is_refused);
  RUN(a_pause_keeps_it_out);
  RUN(another_thread_pauses_it);
  RUN(another_thread_stops_it);
  RUN(a_second_gives_it_a_thread);
  RUN(another_thread_starts_a_second);
  RUN(a_look_gives_it_a_thread);
  RUN(everything_at_once);
  return test_end();
}
