/* SPDX-License-Identifier: MIT
 * What the C programs of the benchmarks share: errors that end them, the clock, rounds in turns,
 * and a VM by raw ioctls. */
#ifndef LUNA_BENCH_COMMON_H
#define LUNA_BENCH_COMMON_H

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum {
  MOST_ROUNDS = 1000,
  GROUP = 10 /* of rounds: the least time of a group is the one that nothing disturbed */
};

static inline void die(const char *what) {
  fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
  exit(2);
}

static inline int check(int result, const char *what) {
  if (result < 0) {
    die(what);
  }
  return result;
}

static inline uint64_t nanoseconds(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* What this process has had of the processors: others on the machine slow it little. */
static inline uint64_t now(void) {
  return nanoseconds(CLOCK_PROCESS_CPUTIME_ID);
}

/* For what is about waiting. */
static inline uint64_t wall(void) {
  return nanoseconds(CLOCK_MONOTONIC);
}

/* In a child that runs another's program, which warns of what this host does not have. */
static inline void quiet_errors(void) {
  dup2(check(open("/dev/null", O_WRONLY | O_CLOEXEC), "/dev/null"), STDERR_FILENO);
}

/* The same calls as the library. */
static inline int make_vm(void) {
  uint64_t identity_map = 0xfeffc000;
  int kvm = check(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
  if (ioctl(kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION) {
    die("KVM_GET_API_VERSION");
  }
  int vm = check(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
  close(kvm);
  ioctl(vm, KVM_SET_IDENTITY_MAP_ADDR, &identity_map);
  ioctl(vm, KVM_SET_TSS_ADDR, 0xfeffd000);
  return vm;
}

/* Size 0 deletes the slot. */
static inline void set_slot(int vm, uint32_t slot, uint64_t gpa, uint64_t size, const void *host,
                            uint32_t flags) {
  struct kvm_userspace_memory_region region = {.slot = slot,
                                               .flags = flags,
                                               .guest_phys_addr = gpa,
                                               .memory_size = size,
                                               .userspace_addr = (uintptr_t)host};
  check(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
}

/* ---- Rounds ---- */

static inline int compare_doubles(const void *one, const void *other) {
  double a = *(const double *)one;
  double b = *(const double *)other;
  return (a > b) - (a < b);
}

static inline double median(double *values, size_t count) {
  qsort(values, count, sizeof *values, compare_doubles);
  return (values[(count - 1) / 2] + values[count / 2]) / 2;
}

/* A part of a figure; the context is the figure's. */
typedef void work(void *context);
typedef uint64_t clock_now(void);

static inline double time_of(work *part, void *context, clock_now *clock) {
  uint64_t begin = clock();
  part(context);
  return (double)(clock() - begin);
}

enum {
  YARD_WORDS = 64,
  YARD_STEPS = 2000,
  YARD_STEP_NS = 25 /* of a step on the machine that the limits are from */
};

typedef uint64_t yard_call(uint64_t a, uint64_t b);

static inline uint64_t yard_add(uint64_t a, uint64_t b) {
  return a * 3 + b;
}

static inline uint64_t yard_mix(uint64_t a, uint64_t b) {
  return b < a ? a ^ (b >> 3) : b - a;
}

/* Work that is always the same, to know how fast the processor is at the moment: calls, loads and
 * stores, which a neighbour on the same core slows down as it does the library's. */
static inline void yard_steps(uint64_t steps) {
  static yard_call *volatile calls[] = {yard_add, yard_mix};
  static volatile uint64_t words[YARD_WORDS];
  uint64_t values[4] = {1, 2, 3, 4};
  while (steps-- > 0) {
    for (unsigned i = 0; i < 4; i++) {
      values[i] = calls[(steps + i) % 2](values[i], words[(steps * 4 + i) % YARD_WORDS]);
    }
    for (unsigned i = 0; i < 8; i++) {
      words[(steps + i) % YARD_WORDS] = values[i % 4] + i;
    }
  }
}

static inline void yard(void *context) {
  (void)context;
  yard_steps(YARD_STEPS);
}

/* By how much the machine is slower at the moment than that of the limits, by what the yard takes.
 * Not less than 1: the yard is simple, and newer processors gain more there than elsewhere. */
static inline double slowness_of(double yard_ns) {
  double slowness = yard_ns / (YARD_STEPS * (double)YARD_STEP_NS);
  return slowness > 1 ? slowness : 1;
}

/* The least time of each part in a group of rounds, in which they take turns at being first. */
static inline void least_times(work *const *parts, int count, void *context, clock_now *clock,
                               double *least) {
  for (int round = 0; round < GROUP; round++) {
    for (int i = 0; i < count; i++) {
      int which = (round + i) % count;
      double time = time_of(parts[which], context, clock);
      if (round == 0 || time < least[which]) {
        least[which] = time;
      }
    }
  }
}

static inline size_t groups_of(size_t rounds) {
  return (rounds + GROUP - 1) / GROUP;
}

/* The median over groups of the ratio of `ours` to `theirs`. */
static inline double ratio_by(clock_now *clock, work *ours, work *theirs, void *context,
                              size_t rounds) {
  work *const parts[] = {ours, theirs};
  double ratios[MOST_ROUNDS];
  double least[2] = {0};
  for (size_t i = 0; i < groups_of(rounds); i++) {
    least_times(parts, 2, context, clock, least);
    ratios[i] = least[0] / least[1];
  }
  return median(ratios, groups_of(rounds));
}

/* The same of the difference of two times, in nanoseconds by the yard. */
static inline double difference(work *more, work *less, void *context, size_t rounds) {
  work *const parts[] = {more, less, yard};
  double differences[MOST_ROUNDS];
  double least[3] = {0};
  for (size_t i = 0; i < groups_of(rounds); i++) {
    least_times(parts, 3, context, now, least);
    differences[i] = (least[0] - least[1]) / slowness_of(least[2]);
  }
  return median(differences, groups_of(rounds));
}

/* Warms up, then prints three samples. */
static inline void print_ratios_by(clock_now *clock, work *ours, work *theirs, void *context,
                                   size_t rounds) {
  ratio_by(clock, ours, theirs, context, 1);
  for (int i = 0; i < 3; i++) {
    printf("%.6g\n", ratio_by(clock, ours, theirs, context, rounds));
  }
}

static inline void print_ratios(work *ours, work *theirs, void *context, size_t rounds) {
  print_ratios_by(now, ours, theirs, context, rounds);
}

/* The same for a difference, divided by how often the part does its work. */
static inline void print_differences(work *more, work *less, void *context, size_t rounds,
                                     double times) {
  difference(more, less, context, 1);
  for (int i = 0; i < 3; i++) {
    printf("%.6g\n", difference(more, less, context, rounds) / times);
  }
}

/* ---- Figures ---- */

typedef struct figure {
  const char *name;
  void (*print)(uint32_t number);
} figure;

/* Prints the samples of the figure that the command line names: NAME [NUMBER]. */
static inline int print_figure(int argc, char **argv, const figure *figures, size_t count) {
  for (size_t i = 0; argc > 1 && i < count; i++) {
    if (strcmp(argv[1], figures[i].name) == 0) {
      figures[i].print(argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 0) : 0);
      return 0;
    }
  }
  fprintf(stderr, "usage: %s FIGURE [NUMBER]\n", argv[0]);
  return 2;
}

#endif
