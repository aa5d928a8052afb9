/* SPDX-License-Identifier: MIT
 * Opmasks on the software CPU: what they keep from faulting, rights and devices, gathers and
 * scatters that fault, exceptions of SSE. */
#include "fixture/soft_component.h"

#define GATHER "\x62\xf2\x7d\x49\x90\x04\x8f"   /* vpgatherdd zmm0 {k1}, [rdi + zmm1 * 4] */
#define SCATTER "\x62\xf2\x7d\x49\xa0\x04\x8f"  /* vpscatterdd [rdi + zmm1 * 4] {k1}, zmm0 */
#define LOAD "\x62\xf1\x7e\xc9\x6f\x07"         /* vmovdqu32 zmm0 {k1} {z}, [rdi] */
#define STORE "\x62\xf1\x7e\x49\x7f\x07"        /* vmovdqu32 [rdi] {k1}, zmm0 */
#define COMPRESS "\x62\xf2\x7d\x49\x8b\x07"     /* vpcompressd [rdi] {k1}, zmm0 */
#define EXPAND "\x62\xf2\x7d\xc9\x89\x07"       /* vpexpandd zmm0 {k1} {z}, [rdi] */
#define BROADCAST "\x62\xf1\x75\x59\xfe\x07"    /* vpaddd zmm0 {k1}, zmm1, [rdi] {1to16} */
#define ALIGNED "\x62\xf1\x7d\x49\x6f\x07"      /* vmovdqa32 zmm0 {k1}, [rdi] */
#define DIVIDE "\x62\xf1\x74\x49\x5e\xc2"       /* vdivps zmm0 {k1}, zmm1, zmm2 */
#define TRUNCATE_SAE "\x62\xf1\x7e\x19\x5b\xc1" /* vcvttps2dq zmm0 {k1}, zmm1, {sae} */
#define TRUNCATE "\x62\xf1\x7e\x49\x5b\xc1"     /* vcvttps2dq zmm0 {k1}, zmm1 */

/* At the end of memory: the first half of the operand is there. */
static void masks_say_what_may_fault(void) {
  static const struct {
    const char *code;
    uint64_t k1;
    unsigned before; /* bytes up to the end of memory */
    int vector;
    uint64_t error;
  } rows[] = {
      {LOAD, 0x00ff, 32, SYSTEM_END, 0},
      {LOAD, 0x0100, 32, PF, 4},
      {LOAD, 0, 0, SYSTEM_END, 0},
      {STORE, 0x00ff, 32, SYSTEM_END, 0},
      {STORE, 0x8001, 32, PF, 6},
      {STORE, 0, 0, SYSTEM_END, 0},
      {COMPRESS, 0xff00, 32, SYSTEM_END, 0}, /* eight in a row */
      {COMPRESS, 0x01ff, 32, PF, 6},
      {EXPAND, 0xff00, 32, SYSTEM_END, 0},
      {EXPAND, 0x10ff, 32, PF, 4},
      {BROADCAST, 0x8000, 4, SYSTEM_END, 0},
      {BROADCAST, 0x8000, 0, PF, 4},
      {BROADCAST, 0x10000, 0, SYSTEM_END, 0}, /* there is no such element */
      {ALIGNED, 1, 100, GP, 0},
      {ALIGNED, 0, 100, SYSTEM_END, 0},
  };
  soft_system system = begin(SYSTEM_64);
  for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
    test_note("row %u", i);
    image before = state_of(rows[i].k1);
    set_state(&system, &before);
    memset(system.guest.ram + GUEST_SIZE - 64, 0xaa, 64);
    struct kvm_regs regs = {.rdi = GUEST_SIZE - rows[i].before};
    SYSTEM_CHECK(system_run_in(&system, 3, regs, rows[i].code, 6), rows[i].vector, rows[i].error);
    if (rows[i].vector != SYSTEM_END) {
      image after = get_state(&system);
      CHECK_EQ(element(&after, 0, 0), 0x22222222);
      CHECK_EQ(system_get(&system, GUEST_SIZE - 32, 8), UINT64_C(0xaaaaaaaaaaaaaaaa));
    }
  }
  system_close(&system);
}

/* A store that the mask leaves nothing of may be to where nobody may write. */
static void masks_and_rights(void) {
  soft_system system = begin(SYSTEM_64);
  uint64_t *directory = (uint64_t *)(void *)(system.guest.ram + GUEST_TABLES + 0x2000);
  directory[1] &= ~UINT64_C(2); /* from 2 MiB on, to be read alone */
  for (unsigned i = 0; i < 2; i++) {
    image before = state_of(i);
    set_state(&system, &before);
    struct kvm_regs regs = {.rdi = 2 << 20};
    SYSTEM_CHECK(SYSTEM_RUN(&system, 3, regs, STORE), i ? PF : SYSTEM_END, i ? 7 : 0);
  }
  system_close(&system);
}

/* Of a device, only the elements that are wanted are asked for, or given. */
static void masks_and_devices(void) {
  soft_system system = begin(SYSTEM_64);
  struct kvm_run *run = system.guest.run;
  uint64_t *directory = (uint64_t *)(void *)(system.guest.ram + GUEST_TABLES + 0x2000);
  directory[2] = GUEST_SIZE | 0x87; /* where no memory is */
  for (unsigned writes = 0; writes < 2; writes++) {
    image before = state_of(0x0105);
    set_state(&system, &before);
    memcpy(system.guest.ram + GUEST_CODE, writes ? STORE : LOAD, 6);
    system_put(&system, GUEST_CODE + 6, 0xe6 | SYSTEM_AT_END << 8, 2);
    system_begin(&system, &system.sregs, (struct kvm_regs){.rdi = GUEST_SIZE});
    static const unsigned wanted[] = {0, 2, 8};
    for (unsigned i = 0; i < 3; i++) {
      CHECK_EQ(guest_call(system.guest.cpu, KVM_RUN, NULL), 0);
      CHECK_EQ(run->exit_reason, KVM_EXIT_MMIO);
      CHECK_EQ(run->mmio.phys_addr, GUEST_SIZE + wanted[i] * 4);
      CHECK_EQ(run->mmio.len, 4);
      CHECK_EQ(run->mmio.is_write, writes);
      if (writes) {
        CHECK_EQ(run->mmio.data[0], wanted[i] == 8 ? 0x66 : 0x22);
      } else {
        memset(run->mmio.data, (int)(0x11 * (i + 1)), 4);
      }
    }
    SYSTEM_CHECK(system_go(&system), SYSTEM_END, 0);
    image after = get_state(&system);
    CHECK_EQ(element(&after, 0, 2), 0x22222222);
    CHECK_EQ(element(&after, 0, 8), writes ? 0x66666666 : 0x33333333);
    CHECK_EQ(element(&after, 0, 1), writes ? 0x22222222 : 0);
  }
  system_close(&system);
}

/* ---- Gathers and scatters ---- */

/* The third element that is wanted is where no page is: two are done, and their bits are gone. */
static void a_fault_in_the_middle_keeps_what_is_done(void) {
  static const uint32_t at[] = {0, 1, 2, 3, 40, 5};
  soft_system system = begin(SYSTEM_64);
  for (unsigned scatters = 0; scatters < 2; scatters++) {
    image before = state_of(0x3a); /* 1, 3, 4, 5 */
    for (unsigned i = 0; i < 6; i++) {
      set_element(&before, 1, i, at[i]);
      set_element(&before, 0, i, 0x100 + i);
      system_put(&system, GUEST_SIZE - 64 + i * 4, 0x200 + i, 4);
    }
    set_state(&system, &before);
    struct kvm_regs regs = {.rdi = GUEST_SIZE - 64};
    system_end end = system_run_in(&system, 3, regs, scatters ? SCATTER : GATHER, 7);
    SYSTEM_CHECK(end, PF, scatters ? 6 : 4);
    CHECK_EQ(end.sregs.cr2, GUEST_SIZE - 64 + 160);
    CHECK_EQ(end.frame[0], GUEST_CODE);
    image after = get_state(&system);
    CHECK_EQ(k_of(&after, 1), 0x30);
    for (unsigned i = 0; i < 6; i++) {
      bool done = i == 1 || i == 3;
      CHECK_EQ(element(&after, 0, i), done && !scatters ? 0x200 + i : 0x100 + i);
      CHECK_EQ(system_get(&system, GUEST_SIZE - 64 + i * 4, 4),
               done && scatters ? 0x100 + i : 0x200 + i);
    }
  }
  system_close(&system);
}

/* ---- Exceptions of SSE ---- */

static void masks_and_rounding_say_what_is_raised(void) {
  static const struct {
    const char *code;
    uint64_t k1;
    uint64_t no_cr4;
    int vector;
  } rows[] = {
      {DIVIDE, 0x0002, 0, XM},
      {DIVIDE, 0x0001, 0, SYSTEM_END}, /* only the second divides by zero */
      {DIVIDE, 0x0002, OSXMMEXCPT, UD},
      {TRUNCATE, 0x0001, 0, XM},
      {TRUNCATE, 0x0002, 0, SYSTEM_END},
      {TRUNCATE_SAE, 0x0001, 0, SYSTEM_END},
  };
  soft_system system = begin(SYSTEM_64);
  for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
    test_note("row %u", i);
    struct kvm_sregs sregs = system.sregs;
    image before = state_of(rows[i].k1);
    set_element(&before, 1, 0, 0x7f7fffff); /* which no integer is */
    set_element(&before, 2, 0, 0x3f800000);
    set_element(&before, 1, 1, 0x3f800000);
    set_element(&before, 2, 1, 0);
    memset(before.bytes + 24, 0, 4); /* MXCSR: all are raised */
    set_state(&system, &before);
    sregs.cr4 &= ~rows[i].no_cr4;
    struct kvm_regs regs = {.rdi = SYSTEM_DATA};
    system_end end = system_run(&system, &sregs, regs, rows[i].code, 6);
    SYSTEM_CHECK(end, rows[i].vector, 0);
    image after = get_state(&system);
    if (rows[i].vector != SYSTEM_END) {
      CHECK_EQ(element(&after, 0, 0), 0x22222222);
      CHECK_EQ(element(&after, 0, 1), 0x22222222);
    }
  }
  system_close(&system);
}

int main(void) {
  if (!evex_begin()) {
    printf("0 passed, 0 failed, 1 skipped\n");
    return EXIT_SUCCESS;
  }
  RUN(masks_say_what_may_fault);
  RUN(masks_and_rights);
  RUN(masks_and_devices);
  RUN(a_fault_in_the_middle_keeps_what_is_done);
  RUN(masks_and_rounding_say_what_is_raised);
  return test_end();
}
