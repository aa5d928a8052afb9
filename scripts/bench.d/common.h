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
  MOST_ROUNDS = 1000
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

static inline uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
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

static inline double time_of(work *part, void *context) {
  uint64_t begin = now();
  part(context);
  return (double)(now() - begin);
}

/* The median of the ratios of `ours` to `theirs`, which take turns at being first. */
static inline double ratio(work *ours, work *theirs, void *context, size_t rounds) {
  double ratios[MOST_ROUNDS];
  for (size_t i = 0; i < rounds; i++) {
    double a = i % 2 ? 0 : time_of(ours, context);
    double b = time_of(theirs, context);
    ratios[i] = (i % 2 ? time_of(ours, context) : a) / b;
  }
  return median(ratios, rounds);
}

/* The median of the difference of two times, in nanoseconds. */
static inline double difference(work *more, work *less, void *context, size_t rounds) {
  double differences[MOST_ROUNDS];
  for (size_t i = 0; i < rounds; i++) {
    differences[i] = time_of(more, context) - time_of(less, context);
  }
  return median(differences, rounds);
}

/* Warms up, then prints three samples. */
static inline void print_ratios(work *ours, work *theirs, void *context, size_t rounds) {
  ratio(ours, theirs, context, 4);
  for (int i = 0; i < 3; i++) {
    printf("%.6g\n", ratio(ours, theirs, context, rounds));
  }
}

/* The same for a difference, divided by how often the part does its work. */
static inline void print_differences(work *more, work *less, void *context, size_t rounds,
                                     double times) {
  difference(more, less, context, 4);
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
