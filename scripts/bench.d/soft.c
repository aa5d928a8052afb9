/* SPDX-License-Identifier: MIT
 * The software CPU alone, by the thread's CPU time and the yard: loops in code of each width, in
 * millions of instructions a second; an exit, a vector instruction, a write beside code and to it,
 * and a machine's first exit, in nanoseconds. `two` is what two threads do to
 * what one does. */
#include "soft_loops.h"

#include <pthread.h>

enum {
  SAMPLES = 3,
  LIVES = 500
};

/* out dx, al; dec ecx; jnz */
static const uint8_t out_64[] = {0xee, 0xff, 0xc9, 0x75, 0xfb, 0xf4};
/* movaps, addps, movaps, pshufb, ucomisd, cvtsi2sd; dec ecx; jnz */
static const uint8_t vector_64[] = {0x0f, 0x28, 0x06, 0x0f, 0x58, 0xc1, 0x0f, 0x29, 0x46, 0x40,
                                    0x66, 0x0f, 0x38, 0x00, 0xd0, 0x66, 0x0f, 0x2e, 0xd0, 0xf2,
                                    0x0f, 0x2a, 0xd9, 0xff, 0xc9, 0x75, 0xe5, 0xf4};
/* addps xmm0, xmm1; out dx, al; dec ecx; jnz */
static const uint8_t live_64[] = {0x0f, 0x58, 0xc1, 0xee, 0xff, 0xc9, 0x75, 0xf8, 0xf4};
/* mov [rip + 6], ecx, which is the second immediate; mov eax, 0; mov eax, N; dec ecx; jnz */
static const uint8_t change_64[] = {0x89, 0x0d, 0x06, 0x00, 0x00, 0x00, 0xb8,
                                    0x00, 0x00, 0x00, 0x00, 0xb8, 0x00, 0x00,
                                    0x00, 0x00, 0xff, 0xc9, 0x75, 0xec, 0xf4};
/* mov [rdi], ecx; dec ecx; jnz */
static const uint8_t store_64[] = {0x89, 0x0f, 0xff, 0xc9, 0x75, 0xfa, 0xf4};

/* How fast the machine is at the moment, by that of the limits (common.h). */
static double slowness(void) {
  double least = time_of(yard, NULL, now);
  for (int i = 0; i < 50; i++) {
    double time = time_of(yard, NULL, now);
    least = time < least ? time : least;
  }
  return slowness_of(least);
}

static void print_speeds(const char *name, uint32_t bits) {
  for (int i = 0; i < SAMPLES; i++) {
    double before = slowness(), speed = loop_speed(find_loop(name, bits));
    printf("%.6g\n", speed * (before + slowness()) / 2);
  }
}

static void print_alu(uint32_t bits) {
  print_speeds("alu", bits);
}

static void print_memory(uint32_t bits) {
  print_speeds("memory", bits);
}

static void print_rounds(const void *code, size_t size, double parts) {
  soft_guest guest = guest_open(0);
  for (int i = 0; i < SAMPLES; i++) {
    double before = slowness(), round = time_loop(&guest, code, size, 1000000, 1);
    printf("%.6g\n", 2 * round / parts / (before + slowness()));
  }
  guest_close(&guest);
}

static void print_out(uint32_t unused) {
  (void)unused;
  print_rounds(out_64, sizeof out_64, 1);
}

static void print_vector(uint32_t unused) {
  (void)unused;
  print_rounds(vector_64, sizeof vector_64, 6);
}

static void print_store(uint32_t unused) {
  (void)unused;
  print_rounds(store_64, sizeof store_64, 1);
}

static void print_live(uint32_t unused) {
  (void)unused;
  print_rounds(live_64, sizeof live_64, 1);
}

static void print_change(uint32_t unused) {
  (void)unused;
  print_rounds(change_64, sizeof change_64, 1);
}

/* A VM with its memory and a vCPU, to the first exit; its end is not counted. */
static void print_life(uint32_t unused) {
  (void)unused;
  for (int i = 0; i < SAMPLES; i++) {
    double before = slowness(), time = 0;
    for (int k = 0; k < LIVES; k++) {
      double begin = cpu_time();
      soft_guest guest = guest_open(0);
      time_loop(&guest, "\xf4", 1, 1, 1);
      time += cpu_time() - begin;
      guest_close(&guest);
    }
    printf("%.6g\n", 2 * time / LIVES / (before + slowness()));
  }
}

/* ---- Two CPUs ---- */

static void *run_loop(void *unused) {
  loop_speed(find_loop("alu", 64));
  return unused;
}

/* Work of the host that shares nothing. */
static void *run_host(void *unused) {
  volatile uint64_t left = 30000000;
  while (left) {
    left--;
  }
  return unused;
}

/* The wall time of one thread to that of two with twice the work, times two. */
static double gain_of_two(void *(*run)(void *)) {
  pthread_t other;
  uint64_t begin = wall();
  run(NULL);
  uint64_t middle = wall();
  pthread_create(&other, NULL, run, NULL);
  run(NULL);
  pthread_join(other, NULL);
  return 2 * (double)(middle - begin) / (double)(wall() - middle);
}

/* Of the 2 that two threads of the host have: where the second CPU is not free, both have less. */
static void print_two(uint32_t unused) {
  (void)unused;
  for (int i = 0; i < SAMPLES; i++) {
    double before = gain_of_two(run_host), gain = gain_of_two(run_loop);
    printf("%.6g\n", 4 * gain / (before + gain_of_two(run_host)));
  }
}

int main(int argc, char **argv) {
  static const figure figures[] = {
      {"alu", print_alu},       {"memory", print_memory}, {"out", print_out},
      {"vector", print_vector}, {"store", print_store},   {"life", print_life},
      {"live", print_live},     {"change", print_change}, {"two", print_two}};
  return print_figure(argc, argv, figures, sizeof figures / sizeof *figures);
}
