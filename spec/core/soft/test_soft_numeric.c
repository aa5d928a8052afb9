/* SPDX-License-Identifier: MIT
 * Numeric exceptions of the software CPU: #MF of x87, which waits for the next instruction, and #XM
 * of SSE; and the pointers of the last x87 instruction, which say nothing of the host. */
#include "fixture/soft_system.h"

enum {
  UD = 6,
  NM = 7,
  PF = 14,
  MF = 16,
  XM = 19,
  END = SYSTEM_END,
  DATA = SYSTEM_DATA,
  EM = 4,
  NE = 0x20,
  CR0_TS = 8,
  OSXMMEXCPT = 1 << 10
};

/* fldcw [rdi]; fld1; fldz; fdivp: a division by zero that is not masked */
#define DIVIDE "\xd9\x2f\xd9\xe8\xd9\xee\xde\xf9"

static const struct {
  const char *code; /* behind it */
  size_t size;
  uint64_t ne;
  int vector;
  unsigned at; /* from the code's begin behind DIVIDE */
} waiting[] = {
    {"\x90", 1, NE, END, 0},
    {"\x9b", 1, NE, MF, 0},              /* fwait */
    {"\xd9\xe8", 2, NE, MF, 0},          /* fld1 */
    {"\x90\xd9\xd0", 3, NE, MF, 1},      /* nop; fnop */
    {"\x0f\x77", 2, NE, MF, 0},          /* emms */
    {"\x0f\x6f\xc1", 3, NE, MF, 0},      /* movq mm0, mm1 */
    {"\x0f\x28\xc1", 3, NE, END, 0},     /* movaps */
    {"\xdf\xe0", 2, NE, END, 0},         /* fnstsw ax */
    {"\xdb\xe2\x9b", 3, NE, END, 0},     /* fnclex; fwait */
    {"\xdb\xe3\x9b", 3, NE, END, 0},     /* fninit; fwait */
    {"\xd9\x7f\x10\x9b", 4, NE, MF, 3},  /* fnstcw [rdi + 16]; fwait */
    {"\xdd\x77\x10\x9b", 4, NE, END, 0}, /* fnsave, which begins anew */
    {"\xd9\x77\x10\x9b", 4, NE, END, 0}, /* fnstenv, which masks all */
    {"\x9b", 1, 0, END, 0},              /* FERR# goes nowhere */
};

static void x87_exceptions_wait(void) {
  soft_system system = system_open(SYSTEM_64);
  for (unsigned i = 0; i < sizeof waiting / sizeof *waiting; i++) {
    test_note("row %u", i);
    uint8_t code[32] = DIVIDE;
    struct kvm_sregs sregs = system.sregs;
    sregs.cr0 = (sregs.cr0 & ~(uint64_t)NE) | waiting[i].ne;
    memcpy(code + 8, waiting[i].code, waiting[i].size);
    system_put(&system, DATA, 0x37b, 2);
    SYSTEM_RUN(&system, 0, ((struct kvm_regs){.rdi = DATA}), "\xdb\xe3");
    struct kvm_regs regs = {.rdi = DATA};
    system_end end = system_run(&system, &sregs, regs, code, 8 + waiting[i].size);
    SYSTEM_CHECK(end, waiting[i].vector, 0);
    if (end.vector == MF) {
      CHECK_EQ(end.frame[0], GUEST_CODE + 8 + waiting[i].at);
    }
  }
  system_close(&system);
}

/* ldmxcsr [rdi]; divps xmm0, xmm1 (zeros), or from memory */
static const struct {
  const char *code;
  size_t size;
  uint32_t mxcsr;
  uint64_t cr0, no_cr4;
  int vector;
  uint32_t flags; /* MXCSR's afterwards */
} dividing[] = {
    {"\x0f\x5e\xc1", 3, 0x1f80, 0, 0, END, 4},
    {"\x0f\x5e\xc1", 3, 0x1d80, 0, 0, XM, 4},
    {"\x0f\x5e\xc1", 3, 0x1d80, 0, OSXMMEXCPT, UD, 4},
    {"\xc5\xf8\x5e\xc1", 4, 0x1d80, 0, 0, XM, 4}, /* vdivps */
    {"\x0f\x5e\x46\x10", 4, 0x1d80, 0, 0, XM, 4}, /* divps xmm0, [rsi + 16] */
    {"\x0f\x5e\x06", 3, 0x1d80, CR0_TS, 0, NM, 0},
    {"\x0f\x5e\x03", 3, 0x1d80, 0, 0, PF, 0},  /* [rbx] */
    {"\x0f\x51\xc0", 3, 0x1f80, 0, 0, END, 0}, /* sqrtps of 1 */
};

static void sse_exceptions_come_at_once(void) {
  uint8_t xsave[4096];
  soft_system system = system_open(SYSTEM_64);
  for (unsigned i = 0; i < sizeof dividing / sizeof *dividing; i++) {
    test_note("row %u", i);
    struct kvm_sregs sregs = system.sregs;
    uint32_t one = 0x3f800000, mxcsr = dividing[i].mxcsr;
    sregs.cr0 |= dividing[i].cr0;
    sregs.cr4 &= ~dividing[i].no_cr4;
    memset(xsave, 0, sizeof xsave);
    xsave[0] = 0x7f;
    xsave[1] = 3;
    memcpy(xsave + 24, &mxcsr, sizeof mxcsr);
    for (unsigned k = 0; k < 4; k++) {
      memcpy(xsave + 160 + k * 4, &one, sizeof one);
    }
    xsave[512] = 3;
    memset(system.guest.ram + DATA, 0, 64);
    CHECK_EQ(guest_call(system.guest.cpu, KVM_SET_XSAVE, xsave), 0);
    struct kvm_regs regs = {.rsi = DATA, .rbx = GUEST_SIZE};
    system_end end = system_run(&system, &sregs, regs, dividing[i].code, dividing[i].size);
    SYSTEM_CHECK(end, dividing[i].vector, 0);
    CHECK_EQ(guest_call(system.guest.cpu, KVM_GET_XSAVE, xsave), 0);
    CHECK_EQ(xsave[24] & 0x3f, dividing[i].flags);
    if (end.vector != END) { /* the destination is as it was */
      CHECK_EQ(end.frame[0], GUEST_CODE);
      CHECK_EQ(memcmp(xsave + 160, &one, sizeof one), 0);
    }
  }
  system_close(&system);
}

/* fld dword [rsi], fmul st0, st0 where it says so, and a store of the state behind it: FIP at 12,
 * FOP at 18, FDP at 20 of the environment; FOP at 6, 64-bit FIP at 8, FDP at 16 of the image. */
static void the_pointers_are_the_guest_s(void) {
  static const struct {
    const char *code;
    unsigned fop, at; /* of the instruction from the first */
    bool image;
  } rows[] = {
      {"\xd9\x06\xd9\x37", 0x106, 0, false},                         /* fnstenv */
      {"\xd9\x06\xdd\x37", 0x106, 0, false},                         /* fnsave */
      {"\xd9\x06\x48\x0f\xae\x07", 0x106, 0, true},                  /* fxsave64 */
      {"\xd9\x06\x48\x0f\xae\x27", 0x106, 0, true},                  /* xsave64 */
      {"\xd9\x06\xd8\xc8\x9b\xd9\x37", 0xc8, 2, false},              /* fmul, fstenv */
      {"\xd9\x06\xd8\xc8\x48\x0f\xae\x07", 0xc8, 2, true},           /* fmul, fxsave64 */
      {"\xd9\x06\xd9\x37\xdb\xe3\xd9\x27\xd9\x37", 0x106, 0, false}, /* fninit, fldenv */
      {"\xd9\x06\xdd\x37\xdd\x27\xdd\x37", 0x106, 0, false},         /* fnsave, frstor, fnsave */
      {"\xd9\x06\xdb\xe3\xd9\x37", 0, 0, false},                     /* fninit clears them */
      {"\xd9\x06\xdd\x37\xd9\x37", 0, 0, false},                     /* as fnsave does */
  };
  soft_system system = system_open(SYSTEM_64);
  for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
    test_note("row %u", i);
    const uint8_t *data = system.guest.ram + DATA;
    memset(system.guest.ram + DATA, 0, 1024);
    struct kvm_regs regs = {.rdi = DATA, .rsi = DATA + 1024, .rax = 7};
    system_end end = system_run_in(&system, 3, regs, rows[i].code, strlen(rows[i].code));
    SYSTEM_CHECK(end, END, 0);
    uint64_t fip = 0, fdp = 0;
    uint16_t fop;
    memcpy(&fop, data + (rows[i].image ? 6 : 18), sizeof fop);
    memcpy(&fip, data + (rows[i].image ? 8 : 12), rows[i].image ? 8 : 4);
    memcpy(&fdp, data + (rows[i].image ? 16 : 20), rows[i].image ? 8 : 4);
    CHECK_EQ(fop & 0x7ff, rows[i].fop);
    CHECK_EQ(fip, rows[i].fop ? GUEST_CODE + rows[i].at : 0);
    CHECK_EQ(fdp, rows[i].fop ? DATA + 1024 : 0);
  }
  system_close(&system);
}

int main(void) {
  RUN(x87_exceptions_wait);
  RUN(sse_exceptions_come_at_once);
  RUN(the_pointers_are_the_guest_s);
  return test_end();
}
