/* SPDX-License-Identifier: MIT
 * Loops of guests, which end in HLT when ECX is 0, and a software CPU that runs them. */
#ifndef LUNA_BENCH_SOFT_LOOPS_H
#define LUNA_BENCH_SOFT_LOOPS_H

#include "common.h"
#include "fixture/soft_guest.h"

enum {
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
typedef struct soft_loop {
  const char *name;
  uint32_t bits;
  unsigned instructions; /* a round */
  const void *code;
  size_t size;
} soft_loop;

static const soft_loop soft_loops[] = {{"alu", 64, 7, alu_64, sizeof alu_64},
                                       {"alu", 32, 7, alu_32, sizeof alu_32},
                                       {"alu", 16, 7, alu_16, sizeof alu_16},
                                       {"memory", 64, 11, memory_64, sizeof memory_64},
                                       {"memory", 32, 11, memory_32, sizeof memory_32},
                                       {"memory", 16, 11, memory_16, sizeof memory_16}};

static inline const soft_loop *find_loop(const char *name, uint32_t bits) {
  for (size_t i = 0; i < sizeof soft_loops / sizeof *soft_loops; i++) {
    if (strcmp(soft_loops[i].name, name) == 0 && soft_loops[i].bits == bits) {
      return &soft_loops[i];
    }
  }
  errno = EINVAL;
  die("no such loop");
  return NULL;
}

static inline double cpu_time(void) {
  return (double)nanoseconds(CLOCK_THREAD_CPUTIME_ID);
}

/* Flat segments of 16 or 32 bits, without paging. */
static inline void legacy_mode(const soft_guest *guest, bool wide) {
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
static inline double time_loop(const soft_guest *guest, const void *code, size_t size,
                               uint64_t rounds, unsigned times) {
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

/* Millions of instructions a second. */
static inline double loop_speed(const soft_loop *loop) {
  soft_guest guest = guest_open(0);
  bool narrow = loop->bits == 16;
  if (loop->bits != 64) {
    legacy_mode(&guest, !narrow);
  }
  double round =
      time_loop(&guest, loop->code, loop->size, narrow ? 60000 : 6000000, narrow ? 100 : 1);
  guest_close(&guest);
  return loop->instructions * 1000 / round;
}

#endif
