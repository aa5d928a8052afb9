/* SPDX-License-Identifier: MIT
 * The software CPU alone, by the thread's CPU time: loops in code of each width, in millions of
 * instructions a second; an exit, a vector instruction, a write beside code and a machine's life,
 * in nanoseconds. */
#include "fixture/soft_guest.h"
#include "common.h"

enum {
  SAMPLES = 3,
  LIVES = 500,
  BESIDE_CODE = 0x1800 /* in the page that the code is in, but not in its line */
};

/* Sums and a branch: 7 instructions a round. */
static const uint8_t alu_64[] = {0x48, 0x01, 0xc8, 0x48, 0x31, 0xc3, 0x48, 0x8d, 0x54,
                                 0x43, 0x05, 0x81, 0xe2, 0xff, 0xff, 0x00, 0x00, 0x48,
                                 0x01, 0xd3, 0x48, 0xff, 0xc9, 0x75, 0xe7, 0xf4};
static const uint8_t alu_32[] = {0x01, 0xc8, 0x31, 0xc3, 0x8d, 0x54, 0x43, 0x05, 0x81, 0xe2,
                                 0xff, 0xff, 0x00, 0x00, 0x01, 0xd3, 0x49, 0x75, 0xed, 0xf4};
static const uint8_t alu_16[] = {0x01, 0xc8, 0x31, 0xc3, 0x89, 0xda, 0x81, 0xe2, 0xff,
                                 0x0f, 0x01, 0xd3, 0x66, 0x49, 0x75, 0xf0, 0xf4};
/* Loads, stores, the stack, a call: 11 instructions a round, from RSI = 0x4000. */
static const uint8_t memory_64[] = {0x48, 0x8b, 0x46, 0x08, 0x48, 0x01, 0xc8, 0x48, 0x89,
                                    0x46, 0x10, 0x48, 0x01, 0x4e, 0x18, 0x50, 0x5b, 0xe8,
                                    0x06, 0x00, 0x00, 0x00, 0x48, 0xff, 0xc9, 0x75, 0xe5,
                                    0xf4, 0x48, 0x3b, 0x5e, 0x20, 0xc3};
static const uint8_t memory_32[] = {0x8b, 0x46, 0x08, 0x01, 0xc8, 0x89, 0x46, 0x10, 0x01,
                                    0x4e, 0x18, 0x50, 0x5b, 0xe8, 0x04, 0x00, 0x00, 0x00,
                                    0x49, 0x75, 0xeb, 0xf4, 0x3b, 0x5e, 0x20, 0xc3};
static const uint8_t memory_16[] = {0x8b, 0x44, 0x08, 0x01, 0xc8, 0x89, 0x44, 0x10, 0x01,
                                    0x4c, 0x18, 0x50, 0x5b, 0xe8, 0x05, 0x00, 0x66, 0x49,
                                    0x75, 0xec, 0xf4, 0x3b, 0x5c, 0x20, 0xc3};
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

static double cpu_time(void) {
  struct timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

/* Flat segments of 16 or 32 bits, without paging. */
static void legacy_mode(const soft_guest *guest, bool wide) {
  struct kvm_sregs sregs;
  check(guest_call(guest->cpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
  struct kvm_segment *all[] = {&sregs.cs, &sregs.ds, &sregs.es, &sregs.fs, &sregs.gs, &sregs.ss};
  for (int i = 0; i < 6; i++) {
    *all[i] = guest_segment(i ? 3 : 11, 0, i == 0);
    all[i]->l = 0;
    all[i]->db = wide;
    all[i]->g = wide;
    all[i]->limit = wide ? 0xffffffff : 0xffff;
  }
  sregs.cr0 = wide ? 0x11 : 0x10;
  sregs.cr4 = 0;
  sregs.efer = 0;
  check(guest_call(guest->cpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
}

/* Runs the loop so many times to its HLT, answering exits; the nanoseconds a round. */
static double time_loop(const soft_guest *guest, const void *code, size_t size, uint64_t rounds,
                        unsigned times) {
  memcpy(guest->ram + GUEST_CODE, code, size);
  double begin = cpu_time();
  for (unsigned i = 0; i < times; i++) {
    struct kvm_regs regs = {.rip = GUEST_CODE,
                            .rcx = rounds,
                            .rdx = 0x3f8,
                            .rsi = 0x4000,
                            .rdi = BESIDE_CODE,
                            .rsp = GUEST_STACK,
                            .rflags = 2};
    check(guest_call(guest->cpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
    do {
      check(guest_call(guest->cpu, KVM_RUN, NULL), "KVM_RUN");
    } while (guest->run->exit_reason == KVM_EXIT_IO);
  }
  return (cpu_time() - begin) / (double)rounds / times;
}

static void print_speed(uint32_t bits, const void *code, size_t size, double instructions) {
  soft_guest guest = guest_open(0);
  bool narrow = bits == 16;
  if (bits != 64) {
    legacy_mode(&guest, !narrow);
  }
  for (int i = 0; i < SAMPLES; i++) {
    double round = time_loop(&guest, code, size, narrow ? 60000 : 6000000, narrow ? 100 : 1);
    printf("%.6g\n", instructions * 1000 / round);
  }
  guest_close(&guest);
}

static void print_alu(uint32_t bits) {
  if (bits == 64) {
    print_speed(bits, alu_64, sizeof alu_64, 7);
  } else if (bits == 32) {
    print_speed(bits, alu_32, sizeof alu_32, 7);
  } else {
    print_speed(16, alu_16, sizeof alu_16, 7);
  }
}

static void print_memory(uint32_t bits) {
  if (bits == 64) {
    print_speed(bits, memory_64, sizeof memory_64, 11);
  } else if (bits == 32) {
    print_speed(bits, memory_32, sizeof memory_32, 11);
  } else {
    print_speed(16, memory_16, sizeof memory_16, 11);
  }
}

static void print_rounds(const void *code, size_t size, double parts) {
  soft_guest guest = guest_open(0);
  for (int i = 0; i < SAMPLES; i++) {
    printf("%.6g\n", time_loop(&guest, code, size, 1000000, 1) / parts);
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

/* A VM with its memory and a vCPU, to the first exit and its end. */
static void print_life(uint32_t unused) {
  (void)unused;
  for (int i = 0; i < SAMPLES; i++) {
    double begin = cpu_time();
    for (int k = 0; k < LIVES; k++) {
      soft_guest guest = guest_open(0);
      time_loop(&guest, "\xf4", 1, 1, 1);
      guest_close(&guest);
    }
    printf("%.6g\n", (cpu_time() - begin) / LIVES);
  }
}

int main(int argc, char **argv) {
  static const figure figures[] = {{"alu", print_alu},     {"memory", print_memory},
                                   {"out", print_out},     {"vector", print_vector},
                                   {"store", print_store}, {"life", print_life},
                                   {"live", print_live},   {"change", print_change}};
  return print_figure(argc, argv, figures, sizeof figures / sizeof *figures);
}
