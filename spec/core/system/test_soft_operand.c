/* SPDX-License-Identifier: MIT
 * Operands of ring 3 in 64-bit code: which fault comes first, what it tells of where, and encodings
 * that are read in one way only. All as KVM has them on a processor (soft/test_soft_ring3.c). */
#include "fixture/soft_system.h"

enum {
  UD = 6,
  SS = 12,
  GP = 13,
  PF = 14,
  AC = 17,
  END = SYSTEM_END,
  READ = 4, /* error codes, of a user's access to where nothing is */
  WRITE = 6,
  FLAG_TF = 1 << 8,
  FLAG_RF = 1 << 16,
  FLAG_AC = 1 << 18,
  CR0_AM = 1 << 18
};

#define LAST UINT64_C(0x7fffffffffff) /* canonical address of the lower half */
#define HOLE UINT64_C(0x800000000000)

typedef struct row {
  const char *what;
  const char *code;
  size_t size;
  struct kvm_regs regs;
  int vector;
  uint64_t error, cr2;
} row;
#define CODE(bytes) bytes, sizeof(bytes) - 1

static system_end try(const soft_system *system, const row *of) {
  struct kvm_sregs sregs = system->sregs;
  system_enter_ring(system, &sregs, 3);
  sregs.cr0 |= CR0_AM;
  test_note("%s", of->what);
  return system_run(system, &sregs, of->regs, of->code, of->size);
}

static void check_rows(const row *rows, size_t count) {
  soft_system system = system_open(SYSTEM_64);
  for (size_t i = 0; i < count; i++) {
    system_end end = try(&system, &rows[i]);
    SYSTEM_CHECK(end, rows[i].vector, rows[i].error);
    if (rows[i].vector == PF) {
      CHECK_EQ(end.sregs.cr2, rows[i].cr2);
    }
    if (rows[i].vector != END) {
      CHECK_EQ(end.frame[0], GUEST_CODE);
    }
  }
  system_close(&system);
}
#define CHECK_ROWS(rows) check_rows(rows, sizeof(rows) / sizeof *(rows))

/* SDM volume 3, 6.9: an operand is canonical as a whole before one of its pages is looked for. */
static void addresses_are_checked_before_pages(void) {
  static const row rows[] = {
      {"mov eax, [rdi]", CODE("\x8b\x07"), {.rdi = LAST - 2}, GP, 0, 0},
      {"mov eax, [rdi], canonical", CODE("\x8b\x07"), {.rdi = LAST - 3}, PF, READ, LAST - 3},
      {"mov [rdi], eax", CODE("\x89\x07"), {.rdi = LAST - 2}, GP, 0, 0},
      {"add [rdi], eax", CODE("\x01\x07"), {.rdi = LAST - 2}, GP, 0, 0},
      {"add [rbp], eax", CODE("\x01\x45\x00"), {.rbp = LAST - 2}, SS, 0, 0},
      {"movups xmm0, [rdi]", CODE("\x0f\x10\x07"), {.rdi = LAST - 2}, GP, 0, 0},
      {"movups [rdi], xmm0", CODE("\x0f\x11\x07"), {.rdi = LAST - 2}, GP, 0, 0},
      {"fldenv [rdi], word by word", CODE("\xd9\x27"), {.rdi = LAST - 12}, PF, READ, LAST - 12},
      {"mov eax, [rdi], beyond", CODE("\x8b\x07"), {.rdi = HOLE}, GP, 0, 0},
  };
  CHECK_ROWS(rows);
}

/* #AC comes behind an address that is not canonical, and before a page. */
static void alignment_is_checked_between(void) {
  const uint64_t flags = SYSTEM_ALL | FLAG_AC, data = SYSTEM_DATA;
#define ROW(what, code, at, ...)                                                                   \
  { what, CODE(code), {.rdi = (at), .rsp = GUEST_STACK, .rflags = flags}, __VA_ARGS__ }
  const row rows[] = {
      ROW("mov eax, [rdi]", "\x8b\x07", GUEST_SIZE + 1, AC, 0, 0),
      ROW("mov [rdi], eax", "\x89\x07", GUEST_SIZE + 1, AC, 0, 0),
      ROW("add [rdi], eax", "\x01\x07", GUEST_SIZE + 1, AC, 0, 0),
      ROW("xchg [rdi], eax", "\x87\x07", GUEST_SIZE + 1, AC, 0, 0),
      ROW("over the end of a page", "\x01\x07", GUEST_SIZE - 1, AC, 0, 0),
      ROW("over the last address", "\x8b\x07", LAST - 2, AC, 0, 0),
      ROW("not canonical", "\x8b\x07", HOLE + 1, GP, 0, 0),
      ROW("not there", "\x8b\x07", GUEST_SIZE, PF, READ, GUEST_SIZE),
      ROW("fld tbyte [rdi]", "\xdb\x2f", data + 4, AC, 0, 0),
      ROW("fld tbyte [rdi], aligned", "\xdb\x2f", data + 8, END, 0, 0),
      ROW("fnstenv [rdi]", "\xd9\x37", data + 2, AC, 0, 0),
      ROW("fnstenv [rdi], aligned", "\xd9\x37", data + 4, END, 0, 0),
      ROW("fnstenv [rdi], 14 bytes", "\x66\xd9\x37", data + 2, END, 0, 0),
      ROW("fxsave [rdi], not even a word", "\x0f\xae\x07", data + 2, AC, 0, 0),
      ROW("fxsave [rdi]", "\x0f\xae\x07", data + 4, GP, 0, 0),
      ROW("movups xmm0, [rdi]", "\x0f\x10\x07", data + 1, END, 0, 0),
      ROW("vmaskmovps xmm0, xmm0, [rdi]", "\xc4\xe2\x79\x2c\x07", data + 1, END, 0, 0),
      ROW("movsxd ax, word [rdi]", "\x66\x63\x07", data + 2, END, 0, 0),
  };
#undef ROW
  CHECK_ROWS(rows);
}

static void writes_are_what_a_fault_tells_of(void) {
  static const row rows[] = {
      {"movups [rdi], xmm0: the other page",
       CODE("\x0f\x11\x07"),
       {.rdi = GUEST_SIZE - 4},
       PF,
       WRITE,
       GUEST_SIZE},
      {"cmpxchg [rdi], ecx", CODE("\x0f\xb1\x0f"), {.rdi = GUEST_SIZE - 2}, PF, WRITE, GUEST_SIZE},
      {"xchg [rdi], ecx", CODE("\x87\x0f"), {.rdi = GUEST_SIZE - 2}, PF, WRITE, GUEST_SIZE},
      {"xsave [rdi]", CODE("\x0f\xae\x27"), {.rdi = GUEST_SIZE}, PF, WRITE, GUEST_SIZE + 512},
      {"enter 0x1000, 0", CODE("\xc8\x00\x10\x00"), {.rsp = GUEST_SIZE + 8}, PF, WRITE, GUEST_SIZE},
      {"enter, by its last word",
       CODE("\xc8\xff\xff\x00"),
       {.rsp = 0x8000},
       PF,
       WRITE,
       UINT64_C(0xffffffffffff7ff9)},
      {"clflush [rdi]", CODE("\x0f\xae\x3f"), {.rdi = GUEST_SIZE}, PF, READ, GUEST_SIZE},
      {"clflush [rdi], there", CODE("\x0f\xae\x3f"), {.rdi = SYSTEM_DATA}, END, 0, 0},
      {"prefetcht0 [rdi]", CODE("\x0f\x18\x0f"), {.rdi = GUEST_SIZE}, END, 0, 0},
  };
  CHECK_ROWS(rows);
}

/* CALL pushes before it looks where it goes; what is wrong with the stack is #SS. */
static void stacks_come_first(void) {
  static const row rows[] = {
      {"call rdi", CODE("\xff\xd7"), {.rdi = HOLE}, GP, 0, 0},
      {"call rdi, no stack",
       CODE("\xff\xd7"),
       {.rdi = HOLE, .rsp = GUEST_SIZE + 8},
       PF,
       WRITE,
       GUEST_SIZE},
      {"call [rdi], no address", CODE("\xff\x17"), {.rdi = SYSTEM_DATA, .rsp = HOLE + 8}, SS, 0, 0},
      {"push [rdi], no address", CODE("\xff\x37"), {.rdi = SYSTEM_DATA, .rsp = HOLE + 8}, SS, 0, 0},
      {"pop [rdi], no address", CODE("\x8f\x07"), {.rdi = SYSTEM_DATA, .rsp = HOLE}, SS, 0, 0},
  };
  CHECK_ROWS(rows);
}

/* Without MPX and CET, with other processors' extensions unknown before their operands are. */
static void encodings_are_what_cpuid_says(void) {
  static const row rows[] = {
      {"bndmk bnd0, [rdi]", CODE("\xf3\x0f\x1b\x07"), {.rdi = GUEST_SIZE}, END, 0, 0},
      {"bndstx [rdi], bnd0", CODE("\x0f\x1b\x07"), {.rdi = GUEST_SIZE}, END, 0, 0},
      {"rdsspq rax", CODE("\xf3\x48\x0f\x1e\xc8"), {.rdi = 0}, END, 0, 0},
      {"vpdpbusd xmm0, xmm0, [rdi]", CODE("\xc4\xe2\x79\x50\x07"), {.rdi = GUEST_SIZE}, UD, 0, 0},
      {"vpermil2ps", CODE("\xc4\xe3\x79\x48\x07\x00"), {.rdi = GUEST_SIZE}, UD, 0, 0},
      {"vprefetch1 [rdi]", CODE("\xc5\xf8\x18\x17"), {.rdi = GUEST_SIZE}, UD, 0, 0},
      {"rep insb, none", CODE("\xf3\x6c"), {.rflags = 2}, GP, 0, 0},
      {"rep outsb, none", CODE("\xf3\x6e"), {.rflags = 2}, GP, 0, 0},
  };
  CHECK_ROWS(rows);
}

static struct kvm_regs after(const soft_system *system, struct kvm_regs regs, const char *code,
                             size_t size) {
  system_end end = system_run_in(system, 3, regs, code, size);
  SYSTEM_CHECK(end, END, 0);
  return end.regs;
}

/* A base of 5 with MOD 0 is none, REX.B or not; a REX that another prefix follows is none. */
static void prefixes_count_where_they_stand(void) {
  static const char base[] = "\x67\x43\x8b\x04\xed\x00\x60\x00\x00"; /* mov eax, [r13d*8+0x6000] */
  static const char rex[] = "\x66\x4c\x26\x0f\x6f\xd1"               /* movdqa xmm2, xmm1 */
                            "\x66\x0f\x7e\xd0";                      /* movd eax, xmm2 */
  static const char gs[] = "\x66\xf3\x0f\xae\xc0";                   /* rdfsbase eax */
  uint8_t xsave[4096] = {0x7f, 3};
  soft_system system = system_open(SYSTEM_64);
  system_put(&system, SYSTEM_DATA + 16, 0x12345678, 4);
  CHECK_EQ(after(&system, (struct kvm_regs){.r13 = 2}, CODE(base)).rax, 0x12345678);
  xsave[25] = 0x1f;
  xsave[24] = 0x80;
  xsave[160 + 16] = 0x77; /* xmm1 */
  xsave[512] = 3;
  CHECK_EQ(guest_call(system.guest.cpu, KVM_SET_XSAVE, xsave), 0);
  CHECK_EQ(after(&system, (struct kvm_regs){.rax = 1}, CODE(rex)).rax, 0x77);
  system.sregs.cr4 |= 1 << 16; /* FSGSBASE */
  CHECK_EQ(after(&system, (struct kvm_regs){.rax = UINT64_MAX}, CODE(gs)).rax, 0);
  system_close(&system);
}

/* TF between two iterations: the frame has RF, and RIP at the instruction (SDM, 18.3.1.1). */
static void repetitions_go_on_behind_a_trap(void) {
  soft_system system = system_open(SYSTEM_64);
  struct kvm_regs regs = {
      .rdi = SYSTEM_DATA, .rcx = 2, .rflags = SYSTEM_ALL | FLAG_TF, .rsp = GUEST_STACK};
  system_end end = SYSTEM_RUN(&system, 3, regs, "\xf3\xaa"); /* rep stosb */
  CHECK_EQ(end.vector, 1);
  CHECK_EQ(end.frame[0], GUEST_CODE);
  CHECK_EQ(end.frame[2] & FLAG_RF, FLAG_RF);
  regs.rcx = 1;
  end = SYSTEM_RUN(&system, 3, regs, "\xf3\xaa");
  CHECK_EQ(end.frame[0], GUEST_CODE + 2);
  CHECK_EQ(end.frame[2] & FLAG_RF, 0);
  system_close(&system);
}

/* VCVTPS2PH has its result, and what that raises, before it looks where it goes. */
static void a_result_comes_before_its_store(void) {
  static const char code[] = "\xc4\xe3\x79\x1d\x07\x00"; /* vcvtps2ph [rdi], xmm0, 0 */
  if (!__builtin_cpu_supports("avx2")) {                 /* with which F16C came */
    test_skip("this host has no F16C");
  }
  soft_system system = system_open(SYSTEM_64);
  for (unsigned masked = 0; masked < 2; masked++) {
    uint8_t xsave[4096] = {0x7f, 3};
    uint32_t mxcsr = masked ? 0x1f80 : 0x1f80 & ~(1u << 12); /* the inexact result */
    uint32_t third = 0x3eaaaaab;
    test_note("masked %u", masked);
    memcpy(xsave + 24, &mxcsr, sizeof mxcsr);
    memcpy(xsave + 160, &third, sizeof third);
    xsave[512] = 3;
    CHECK_EQ(guest_call(system.guest.cpu, KVM_SET_XSAVE, xsave), 0);
    struct kvm_regs regs = {.rdi = GUEST_SIZE};
    system_end end = SYSTEM_RUN(&system, 3, regs, code);
    SYSTEM_CHECK(end, masked ? PF : 19, masked ? WRITE : 0);
    CHECK_EQ(guest_call(system.guest.cpu, KVM_GET_XSAVE, xsave), 0);
    CHECK_EQ(xsave[24] & 0x3f, 0x20);
  }
  system_close(&system);
}

/* FXRSTOR takes of control and status what the processor would. */
static void images_are_adjusted(void) {
  soft_system system = system_open(SYSTEM_64);
  memset(system.guest.ram + SYSTEM_DATA, 0, 1024);
  system_put(&system, SYSTEM_DATA, 0x8001e0be, 4);
  struct kvm_regs regs = {.rdi = SYSTEM_DATA, .rsi = SYSTEM_DATA + 512};
  after(&system, regs, CODE("\x0f\xae\x0f\x0f\xae\x06")); /* fxrstor [rdi]; fxsave [rsi] */
  CHECK_EQ(system_get(&system, SYSTEM_DATA + 512, 2), 0x7e);
  CHECK_EQ(system_get(&system, SYSTEM_DATA + 514, 2), 0x8081);
  system_close(&system);
}

int main(void) {
  RUN(addresses_are_checked_before_pages);
  RUN(alignment_is_checked_between);
  RUN(writes_are_what_a_fault_tells_of);
  RUN(stacks_come_first);
  RUN(encodings_are_what_cpuid_says);
  RUN(prefixes_count_where_they_stand);
  RUN(repetitions_go_on_behind_a_trap);
  RUN(a_result_comes_before_its_store);
  RUN(images_are_adjusted);
  return test_end();
}
