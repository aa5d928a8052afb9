/* SPDX-License-Identifier: MIT
 * 32-bit code whose segments are all of memory is decoded to ask for no limit: it stops being so
 * with the first segment that is not, and accesses past 4 GiB still fault. */
#include "fixture/soft_guest.h"

enum {
  GDT = 0x3000,
  WORDS = 0x2000,
  SMALL = 0x1000 /* base and size of the segment 18h */
};

/* 32-bit code without paging; 8 and 10h are flat, 18h is not. */
static soft_guest open_flat(void) {
  static const uint64_t gdt[] = {0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x0040930010000fff};
  soft_guest guest = guest_open(0);
  struct kvm_sregs sregs;
  CHECK_EQ(guest_call(guest.cpu, KVM_GET_SREGS, &sregs), 0);
  struct kvm_segment *all[] = {&sregs.cs, &sregs.ds, &sregs.es, &sregs.fs, &sregs.gs, &sregs.ss};
  for (int i = 0; i < 6; i++) {
    *all[i] = guest_segment(i ? 3 : 11, 0, i == 0);
    all[i]->l = 0;
    all[i]->db = 1;
  }
  sregs.cr0 = 0x11;
  sregs.cr4 = sregs.efer = 0;
  sregs.gdt = (struct kvm_dtable){.base = GDT, .limit = sizeof gdt - 1};
  CHECK_EQ(guest_call(guest.cpu, KVM_SET_SREGS, &sregs), 0);
  memcpy(guest.ram + GDT, gdt, sizeof gdt);
  for (uint32_t at = 0; at < 0x1000; at += 4) {
    memcpy(guest.ram + WORDS + at, &at, sizeof at);
  }
  return guest;
}

/* mov eax, [2010h]; mov edx, 18h; mov ds, edx; mov ebx, [ff0h]; push ebx; pop ecx;
 * mov edx, 10h; mov ds, edx; mov esi, [2030h]; hlt */
static const uint8_t turns[] = {0xa1, 0x10, 0x20, 0,    0,    0xba, 0x18, 0,    0,
                                0,    0x8e, 0xda, 0x8b, 0x1d, 0xf0, 0x0f, 0,    0,
                                0x53, 0x59, 0xba, 0x10, 0,    0,    0,    0x8e, 0xda,
                                0x8b, 0x35, 0x30, 0x20, 0,    0,    0xf4};

static void a_segment_that_is_not_flat_is_asked_again(void) {
  soft_guest guest = open_flat();
  uint32_t word = 0x1234;
  memcpy(guest.ram + SMALL + 0xff0, &word, sizeof word);
  for (int times = 0; times < 4; times++) {
    struct kvm_regs regs = {.rsp = GUEST_STACK, .rflags = 2};
    CHECK_EQ(guest_run(&guest, turns, sizeof turns, &regs), KVM_EXIT_HLT);
    CHECK_EQ(regs.rax, 0x10);
    CHECK_EQ(regs.rbx, word);
    CHECK_EQ(regs.rcx, word);
    CHECK_EQ(regs.rsi, 0x30);
    CHECK_EQ(regs.rsp, GUEST_STACK);
  }
  guest_close(&guest);
}

static void limits_hold_behind_flat_ones(void) {
  static const struct {
    uint8_t code[16];
    unsigned at; /* of the instruction that faults */
  } cases[] = {
      {{0xba, 0x18, 0, 0, 0, 0x8e, 0xda, 0xa1, 0xfd, 0x0f, 0, 0, 0xf4}, 7}, /* past 18h's end */
      {{0xa1, 0xfe, 0xff, 0xff, 0xff, 0xf4}, 0},                            /* past 4 GiB */
      {{0xbc, 2, 0, 0, 0, 0x50, 0xf4}, 5},                                  /* mov esp, 2; push */
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    soft_guest guest = open_flat();
    struct kvm_regs regs = {.rsp = GUEST_STACK, .rflags = 2};
    CHECK_EQ(guest_run(&guest, cases[i].code, sizeof cases[i].code, &regs), KVM_EXIT_SHUTDOWN);
    CHECK_EQ(regs.rip, GUEST_CODE + cases[i].at);
    guest_close(&guest);
  }
}

int main(void) {
  RUN(a_segment_that_is_not_flat_is_asked_again);
  RUN(limits_hold_behind_flat_ones);
  return test_end();
}
