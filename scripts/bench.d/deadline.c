/* SPDX-License-Identifier: MIT
 * How soon a run with a deadline ends, against the same with raw system calls: a timer that sends
 * its thread a signal whose handler sets immediate_exit. Prints ratios of what nine in ten take at
 * least, for the rest tells how busy the machine is. */
#include "common.h"
#include "lunavisor.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#ifndef sigev_notify_thread_id /* in glibc only since 2.38 */
#define sigev_notify_thread_id _sigev_un._tid
#endif

enum {
  CODE = 0x1000,
  MEMORY = 0x2000,
  RUNS = 200,
  SAMPLES = 3
};

static const uint64_t timeout = 1000000; /* nanoseconds */
static const uint8_t spin[] = {0xeb, 0xfe};

/* ---- The library ---- */

static luna_vcpu *library_vcpu(void) {
  const luna_vcpu_options options = {.mode = LUNA_MODE_REAL, .rip = CODE};
  luna_vm *vm;
  luna_vcpu *vcpu;
  luna_buffer *buffer;
  if (luna_vm_create(&vm) != LUNA_OK || luna_buffer_create(MEMORY, &buffer) != LUNA_OK ||
      luna_vm_map_space(vm, 0, buffer, 0, 0, MEMORY, LUNA_READ | LUNA_WRITE | LUNA_EXECUTE) < 0 ||
      luna_vcpu_create(vm, &options, &vcpu) != LUNA_OK) {
    fprintf(stderr, "deadline: %s\n", luna_error_message());
    exit(2);
  }
  memcpy((uint8_t *)luna_buffer_data(buffer) + CODE, spin, sizeof spin);
  return vcpu;
}

static double library_run(luna_vcpu *vcpu) {
  uint64_t begin = wall();
  if (luna_vcpu_run(vcpu, luna_clock() + timeout) != LUNA_EXIT_TIMEOUT) {
    die("the run of the library");
  }
  return (double)(wall() - begin);
}

/* ---- Raw system calls ---- */

typedef struct machine {
  int vcpu;
  struct kvm_run *run;
  timer_t timer;
} machine;

static struct kvm_run *volatile running;

static void on_signal(int number) {
  (void)number;
  running->immediate_exit = 1;
}

static void set_real_mode(int vcpu) {
  const struct kvm_segment data = {.limit = 0xffff, .type = 3, .present = 1, .s = 1};
  struct kvm_sregs sregs;
  struct kvm_regs regs = {.rip = CODE, .rflags = 2};
  check(ioctl(vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
  sregs.cs = sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
  sregs.cs.type = 11;
  check(ioctl(vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
  check(ioctl(vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
}

static void make_timer(machine *m) {
  struct sigaction action = {.sa_handler = on_signal};
  struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN};
  event.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
  check(sigaction(SIGRTMIN, &action, NULL), "sigaction");
  check(timer_create(CLOCK_MONOTONIC, &event, &m->timer), "timer_create");
}

static machine raw_machine(void) {
  const int size = 3 * 4096;
  machine m;
  int vm = make_vm();
  uint8_t *memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    die("mmap");
  }
  memcpy(memory + CODE, spin, sizeof spin);
  set_slot(vm, 0, 0, MEMORY, memory, 0);
  m.vcpu = check(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
  m.run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, m.vcpu, 0);
  if (m.run == MAP_FAILED) {
    die("mmap of the run page");
  }
  set_real_mode(m.vcpu);
  make_timer(&m);
  running = m.run;
  return m;
}

static double raw_run(const machine *m) {
  uint64_t begin = wall();
  uint64_t moment = begin + timeout;
  struct itimerspec when = {0};
  when.it_value.tv_sec = (time_t)(moment / 1000000000u);
  when.it_value.tv_nsec = (long)(moment % 1000000000u);
  m->run->immediate_exit = 0;
  timer_settime(m->timer, TIMER_ABSTIME, &when, NULL);
  while (wall() < moment) {
    if (ioctl(m->vcpu, KVM_RUN, 0) == 0 || errno != EINTR) {
      die("KVM_RUN");
    }
  }
  return (double)(wall() - begin);
}

/* ---- Figures ---- */

static double tenth(double *times) {
  qsort(times, RUNS, sizeof *times, compare_doubles);
  return times[RUNS / 10];
}

/* What a run takes with either, in turns. */
static void print_deadline(uint32_t number) {
  static double ours[RUNS];
  static double theirs[RUNS];
  (void)number;
  luna_vcpu *vcpu = library_vcpu();
  const machine m = raw_machine();
  for (int sample = -1; sample < SAMPLES; sample++) { /* the first warms up */
    for (int i = 0; i < RUNS; i++) {
      ours[i] = library_run(vcpu);
      theirs[i] = raw_run(&m);
    }
    if (sample >= 0) {
      printf("%.6g\n", tenth(ours) / tenth(theirs));
    }
  }
}

int main(int argc, char **argv) {
  static const figure figures[] = {{"deadline", print_deadline}};
  return print_figure(argc, argv, figures, sizeof figures / sizeof *figures);
}
