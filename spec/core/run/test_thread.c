/* SPDX-License-Identifier: MIT
 * vCPUs on threads of their own, over the fake: the queue, pauses and stops at any moment, errors,
 * and what may be called when. */
#include "fixture/own_calls.h"
#include "fixture/vcpu_fixture.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
  PORT = 0x10,
  VCPUS = 4
};

static uint64_t soon(void) {
  return luna_clock() + UINT64_C(60000000000);
}

/* The next exit, which has to be this vCPU's. */
static int next(void) {
  luna_vcpu *from;
  int kind = luna_vm_next(vm, soon(), &from);
  CHECK(from == vcpu);
  return kind;
}

static void spin(void) {
  static const fake_step steps[] = {{.kind = FAKE_SPIN}};
  fake_script_endless(steps, 1);
}

static void exits_pass_through_the_queue(void) {
  begin();
  fake_endless_pio(PORT, 1, false);
  CHECK_EQ(luna_vcpu_started(vcpu), 0);
  CHECK_OK(luna_vcpu_start(vcpu));
  CHECK_EQ(luna_vcpu_started(vcpu), 1);
  for (int i = 0; i < 1000; i++) {
    CHECK_EQ(next(), LUNA_EXIT_PIO);
    check_access(PORT, 1, LUNA_WRITE, 0x5a);
    CHECK_OK(luna_vcpu_answer(vcpu, 0));
    CHECK_OK(luna_vcpu_go(vcpu));
  }
  CHECK_OK(luna_vcpu_stop(vcpu));
  CHECK_EQ(luna_vcpu_started(vcpu), 0);
  CHECK(luna_vcpu_exits(vcpu) - 1000 <= 1);
  end();
}

static void a_held_vcpu_refuses(void) {
  uint64_t value;
  begin();
  spin();
  CHECK_OK(luna_vcpu_start(vcpu));
  const char *why = "vCPU 0 is started, and its thread has it: pause it or stop it first";
  CHECK_FAILS(luna_vcpu_get(vcpu, LUNA_RAX, &value), LUNA_ERROR_STATE, why);
  CHECK_FAILS(luna_vcpu_set(vcpu, LUNA_RAX, 1), LUNA_ERROR_STATE, why);
  CHECK_FAILS(luna_vcpu_answer(vcpu, 1), LUNA_ERROR_STATE, why);
  CHECK_FAILS(luna_vcpu_retry(vcpu), LUNA_ERROR_STATE, why);
  CHECK_FAILS(luna_vcpu_inject(vcpu, 13, 0, 0), LUNA_ERROR_STATE, why);
  CHECK_FAILS(luna_vcpu_set_space(vcpu, 0, 0), LUNA_ERROR_STATE, why);
  CHECK_FAILS(run(), LUNA_ERROR_STATE, "it is started, and its thread runs it; stop it first");
  CHECK_FAILS(luna_vcpu_start(vcpu), LUNA_ERROR_STATE, "it is started already");
  CHECK_FAILS(luna_vcpu_go(vcpu), LUNA_ERROR_STATE, "no exit of it has been taken");
  CHECK_FAILS(luna_vcpu_resume(vcpu), LUNA_ERROR_STATE, "it is not paused");
  CHECK_OK(luna_vcpu_stop(vcpu));
  CHECK_FAILS(luna_vcpu_stop(vcpu), LUNA_ERROR_STATE, "cannot stop vCPU 0: it is not started");
  CHECK_FAILS(luna_vcpu_pause(vcpu), LUNA_ERROR_STATE, "cannot pause vCPU 0: it is not started");
  CHECK_FAILS(luna_vcpu_go(vcpu), LUNA_ERROR_STATE, "cannot let go vCPU 0: it is not started");
  set(LUNA_RAX, 7);
  CHECK_EQ(get(LUNA_RAX), 7);
  end();
}

static void a_taken_exit_frees_the_vcpu(void) {
  begin();
  fake_endless_pio(PORT, 1, true);
  CHECK_OK(luna_vcpu_start(vcpu));
  for (uint64_t i = 0; i < 10; i++) {
    CHECK_EQ(next(), LUNA_EXIT_PIO);
    CHECK_EQ(get(LUNA_RAX) & 0xff, i);
    CHECK_OK(luna_vcpu_answer(vcpu, i + 1));
    CHECK_OK(luna_vcpu_go(vcpu));
  }
  CHECK_OK(luna_vcpu_stop(vcpu));
  end();
}

static void pauses_count(void) {
  begin();
  spin();
  CHECK_OK(luna_vcpu_start(vcpu));
  CHECK_OK(luna_vcpu_pause(vcpu));
  CHECK_OK(luna_vcpu_pause(vcpu));
  set(LUNA_RBX, 3);
  CHECK_OK(luna_vcpu_resume(vcpu));
  uint64_t before = entries();
  CHECK_EQ(get(LUNA_RBX), 3);
  usleep(2000);
  CHECK_EQ(entries(), before);
  CHECK_OK(luna_vcpu_resume(vcpu));
  uint64_t value;
  CHECK_FAILS(luna_vcpu_get(vcpu, LUNA_RBX, &value), LUNA_ERROR_STATE, "is started");
  CHECK_OK(luna_vcpu_pause(vcpu));
  CHECK_OK(luna_vcpu_stop(vcpu)); /* from a pause too */
  CHECK_EQ(get(LUNA_RBX), 3);
  end();
}

/* A pause or a stop makes no exit, and takes no interrupt away. */
static void interrupts_are_exits(void) {
  luna_vcpu *none;
  begin();
  spin();
  CHECK_OK(luna_vcpu_start(vcpu));
  for (int i = 0; i < 100; i++) {
    CHECK_OK(luna_vcpu_pause(vcpu));
    luna_vcpu_interrupt(vcpu);
    CHECK_OK(luna_vcpu_resume(vcpu));
    CHECK_EQ(next(), LUNA_EXIT_INTERRUPTED);
    CHECK_OK(luna_vcpu_go(vcpu));
  }
  CHECK_OK(luna_vcpu_pause(vcpu));
  CHECK_EQ(luna_vm_next(vm, 0, &none), 0);
  luna_vcpu_interrupt(vcpu);
  CHECK_OK(luna_vcpu_stop(vcpu));
  CHECK_EQ(run(), LUNA_EXIT_INTERRUPTED);
  end();
}

static void a_failed_run_tells_why(void) {
  begin();
  SCRIPT({.kind = FAKE_ERRNO, .number = EBADF});
  CHECK_OK(luna_vcpu_start(vcpu));
  CHECK_EQ(next(), LUNA_ERROR_SYSTEM);
  CHECK_TEXT(luna_error_message(), "cannot run vCPU 0: Bad file descriptor");
  CHECK_EQ(luna_error_number(), EBADF);
  CHECK_OK(luna_vcpu_go(vcpu));
  CHECK_EQ(next(), LUNA_EXIT_HLT);
  end();
}

static void wait_queued(void) {
  struct pollfd wait = {.fd = luna_vm_fd(vm), .events = POLLIN};
  CHECK(wait.fd >= 0);
  CHECK_EQ(poll(&wait, 1, 60000), 1);
}

/* However late the second is asked for: until the first has been given out it is the same. */
static void an_interrupt_that_waits_takes_more_in(void) {
  begin();
  spin();
  CHECK_OK(luna_vcpu_start(vcpu));
  luna_vcpu_interrupt(vcpu);
  wait_queued();
  luna_vcpu_interrupt(vcpu);
  CHECK_EQ(next(), LUNA_EXIT_INTERRUPTED);
  CHECK_OK(luna_vcpu_stop(vcpu));
  CHECK_EQ(luna_vcpu_run(vcpu, luna_clock() + 1000000), LUNA_EXIT_TIMEOUT);
  end();
}

/* An NMI ends HLT, also one that comes while the exit waits to be taken. */
static void an_nmi_wakes_what_halts(void) {
  static const fake_step steps[] = {{.kind = FAKE_HLT}, {.kind = FAKE_SPIN}};
  luna_vcpu *none;
  begin();
  fake_script(steps, 2);
  CHECK_OK(luna_vcpu_start(vcpu));
  wait_queued();
  CHECK_OK(luna_vcpu_nmi(vcpu));
  CHECK_EQ(luna_vm_next(vm, luna_clock() + 20000000, &none), 0);
  luna_vcpu_interrupt(vcpu);
  CHECK_EQ(next(), LUNA_EXIT_INTERRUPTED);
  CHECK_OK(luna_vcpu_stop(vcpu));
  end();
}

static void a_stop_keeps_the_exit(void) {
  luna_vcpu *none;
  begin();
  SCRIPT({.kind = FAKE_HLT}, {.kind = FAKE_PIO, .address = PORT, .size = 1});
  CHECK_OK(luna_vcpu_start(vcpu));
  wait_queued();
  CHECK_OK(luna_vcpu_stop(vcpu));
  CHECK_EQ(luna_vm_next(vm, 0, &none), 0);
  CHECK_EQ(run(), LUNA_EXIT_HLT); /* nobody has seen it yet */
  CHECK_OK(luna_vcpu_start(vcpu));
  wait_queued();
  CHECK_OK(luna_vcpu_stop(vcpu));
  CHECK_OK(luna_vcpu_start(vcpu)); /* the open exit at once */
  CHECK_EQ(next(), LUNA_EXIT_PIO);
  CHECK_OK(luna_vcpu_stop(vcpu));
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_OK(luna_vcpu_answer(vcpu, 1));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  end();
}

static void destroyed(bool take) {
  begin();
  CHECK_OK(luna_vcpu_start(vcpu));
  if (take) {
    CHECK(next() > 0);
  }
  end();
}

static void a_started_vcpu_goes_away(void) {
  for (int i = 0; i < 50; i++) {
    spin();
    destroyed(false);
    fake_endless_pio(PORT, 1, false);
    destroyed(false);
    fake_endless_pio(PORT, 1, false);
    destroyed(true);
  }
}

/* It would wait for itself. */
static void its_own_thread_is_refused(void) {
  begin();
  uint32_t trap;
  CHECK_OK(luna_vm_trap_function(vm, LUNA_TRAP_PIO, PORT, 1, call_on_its_own, vcpu, &trap));
  fake_endless_pio(PORT, 1, false);
  CHECK_OK(luna_vcpu_start(vcpu));
  CHECK_EQ(next(), LUNA_EXIT_PIO);
  own_calls_are_refused();
  CHECK_OK(luna_vcpu_stop(vcpu));
  end();
}

static void waiting_ends(void) {
  luna_vcpu *none = vcpu;
  begin();
  spin();
  CHECK_OK(luna_vcpu_start(vcpu));
  uint64_t begun = luna_clock();
  CHECK_EQ(luna_vm_next(vm, begun + 3 * MILLISECOND, &none), 0);
  CHECK(!none);
  CHECK(luna_clock() - begun >= 3 * MILLISECOND);
  luna_vm_wake(vm);
  CHECK_EQ(luna_vm_next(vm, LUNA_FOREVER, &none), 0);
  end();
}

static short readable(int fd) {
  struct pollfd now = {.fd = fd, .events = POLLIN};
  CHECK(poll(&now, 1, 0) >= 0);
  return now.revents;
}

static void the_descriptor_tells(void) {
  begin();
  int fd = luna_vm_fd(vm);
  CHECK(fd >= 0);
  CHECK_EQ(luna_vm_fd(vm), fd);
  CHECK_EQ(readable(fd), 0);
  SCRIPT({.kind = FAKE_HLT}, {.kind = FAKE_SPIN});
  CHECK_OK(luna_vcpu_start(vcpu));
  wait_queued();
  CHECK_EQ(next(), LUNA_EXIT_HLT);
  CHECK_EQ(readable(fd), 0);
  CHECK_OK(luna_vm_alarm(vm, luna_clock() + 2 * MILLISECOND));
  wait_queued();
  CHECK_OK(luna_vm_alarm(vm, 0));
  CHECK_EQ(readable(fd), 0);
  end();
  CHECK_EQ(readable(fd), POLLNVAL);
}

static void a_child_is_told(void) {
  begin();
  spin();
  CHECK_OK(luna_vcpu_start(vcpu));
  pid_t child = fork();
  if (child == 0) {
    luna_vcpu *none;
    bool told = luna_vm_next(vm, LUNA_FOREVER, &none) == LUNA_ERROR_STATE &&
                strstr(luna_error_message(), "this one was forked from it") &&
                luna_vcpu_pause(vcpu) == LUNA_ERROR_STATE &&
                luna_vcpu_stop(vcpu) == LUNA_ERROR_STATE;
    luna_vcpu_release(vcpu); /* and does not wait for a thread that is not there */
    _exit(told ? 0 : 1);
  }
  int status = -1;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(status, 0);
  end();
}

/* ---- Everything at once ---- */

static luna_vcpu *all[VCPUS];
static atomic_bool done;
static atomic_ulong wrong;

static void try_one(luna_vcpu *one, uint64_t choice) {
  int status = LUNA_OK;
  switch (choice % 5) {
    case 0:
      status = luna_vcpu_stop(one);
      break;
    case 1:
      status = luna_vcpu_start(one);
      break;
    case 2:
      status = luna_vcpu_pause(one);
      break;
    case 3:
      status = luna_vcpu_resume(one);
      break;
    default:
      luna_vcpu_interrupt(one);
  }
  if (status != LUNA_OK && status != LUNA_ERROR_STATE) {
    atomic_fetch_add(&wrong, 1);
  }
}

static void *disturb(void *seed) {
  uint64_t state = *(uint64_t *)seed;
  while (!atomic_load(&done)) {
    uint64_t choice = test_random(&state);
    try_one(all[choice >> 32 & (VCPUS - 1)], choice >> 40);
    if (choice % 8 == 0) {
      usleep(choice >> 48 & 63);
    }
  }
  return NULL;
}

/* Whoever stops a vCPU may do so while its exit is dealt with: then answer and go fail. */
static unsigned serve(uint64_t end) {
  unsigned served = 0;
  while (luna_clock() < end) {
    luna_vcpu *from;
    int kind = luna_vm_next(vm, luna_clock() + MILLISECOND, &from);
    CHECK(kind == 0 || kind == LUNA_EXIT_PIO || kind == LUNA_EXIT_INTERRUPTED);
    if (from) {
      int status = luna_vcpu_go(from); /* the open exit comes again */
      CHECK(status == LUNA_OK || status == LUNA_ERROR_STATE);
      served++;
    }
  }
  return served;
}

static void everything_at_once(void) {
  pthread_t threads[2];
  uint64_t seeds[2] = {test_seed(), test_seed() * 3};
  test_note("LUNA_SEED=%" PRIu64, seeds[0]);
  begin();
  all[0] = vcpu;
  fake_endless_pio(PORT, 1, false);
  for (int i = 1; i < VCPUS; i++) {
    CHECK_OK(luna_vcpu_create(vm, NULL, &all[i]));
  }
  atomic_store(&done, false);
  for (int i = 0; i < 2; i++) {
    pthread_create(&threads[i], NULL, disturb, &seeds[i]);
  }
  unsigned served = 0;
  for (int tries = 0; tries < 40 && served <= 100; tries++) {
    served += serve(luna_clock() + 500 * MILLISECOND);
  }
  atomic_store(&done, true);
  for (int i = 0; i < 2; i++) {
    pthread_join(threads[i], NULL);
  }
  for (int i = 1; i < VCPUS; i++) {
    luna_vcpu_release(all[i]);
  }
  CHECK_EQ(atomic_load(&wrong), 0);
  CHECK(served > 100);
  end();
}

int main(void) {
  RUN(exits_pass_through_the_queue);
  RUN(a_held_vcpu_refuses);
  RUN(a_taken_exit_frees_the_vcpu);
  RUN(pauses_count);
  RUN(interrupts_are_exits);
  RUN(an_interrupt_that_waits_takes_more_in);
  RUN(a_failed_run_tells_why);
  RUN(an_nmi_wakes_what_halts);
  RUN(a_stop_keeps_the_exit);
  RUN(a_started_vcpu_goes_away);
  RUN(its_own_thread_is_refused);
  RUN(waiting_ends);
  RUN(the_descriptor_tells);
  RUN(a_child_is_told);
  RUN(everything_at_once);
  return test_end();
}
