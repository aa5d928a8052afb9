/* SPDX-License-Identifier: MIT
 * Instructions of a software CPU that follows controls: which exit each makes, and what that tells
 * (SDM volume 3, 26.1 and 28.2.1). */
#include "fixture/soft_vmx.h"

enum {
  HLT = 1 << 7,
  INVLPG = 1 << 9,
  MWAIT = 1 << 10,
  RDPMC = 1 << 11,
  RDTSC = 1 << 12,
  DR = 1 << 23,
  PORT = 1 << 24,
  MONITOR = 1 << 29,
  PAUSE = 1 << 30,
  TABLES = 1 << 2, /* from here on secondary */
  RDTSCP = 1 << 3,
  WBINVD = 1 << 6,
  RDRAND = 1 << 11,
  INVPCID = 1 << 12,
  RDSEED = 1 << 16
};

enum {
  GP = 1013, /* instead of a reason: an exception, which the bitmap asks for */
  UD = 1006,
  DISPLACED = -1, /* instead of a qualification: RIP behind the instruction and 0x40 */
  NONE = VMX_NONE,
  RBX_AT = 0x6100
};

typedef struct row {
  const char *name;
  const char *code;
  unsigned size;
  uint32_t primary, secondary;
  unsigned ring;
  uint32_t reason;
  int64_t qualification;
  uint32_t information;
} row;

#define ROW(name, code, ...)                                                                       \
  { name, code, sizeof(code) - 1, __VA_ARGS__ }

/* RBX is RBX_AT, RCX 0, RDX 0x3f8, RSI 0x6200, RDI 0x6300. */
static const row rows[] = {
    ROW("cpuid", "\x0f\xa2", 0, 0, 0, 10, 0, 0),
    ROW("cpuid in ring 3", "\x0f\xa2", 0, 0, 3, 10, 0, 0),
    ROW("hlt", "\xf4", HLT, 0, 0, 12, 0, 0),
    ROW("hlt in ring 3", "\xf4", HLT, 0, 3, GP, 0, 0),
    ROW("invd", "\x0f\x08", 0, 0, 0, 13, 0, 0),
    ROW("invd in ring 3", "\x0f\x08", 0, 0, 3, GP, 0, 0),
    ROW("wbinvd", "\x0f\x09", 0, WBINVD, 0, 54, 0, 0),
    ROW("wbinvd alone", "\x0f\x09", 0, 0, 0, NONE, 0, 0),
    ROW("invlpg [rbx]", "\x0f\x01\x3b", INVLPG, 0, 0, 14, RBX_AT, 0),
    ROW("invlpg alone", "\x0f\x01\x3b", 0, 0, 0, NONE, 0, 0),
    ROW("rdpmc", "\x0f\x33", RDPMC, 0, 0, 15, 0, 0),
    ROW("rdpmc in ring 3", "\x0f\x33", RDPMC, 0, 3, GP, 0, 0),
    ROW("rdtsc", "\x0f\x31", RDTSC, 0, 3, 16, 0, 0),
    ROW("rdtsc alone", "\x0f\x31", 0, 0, 0, NONE, 0, 0),
    ROW("rdtscp", "\x0f\x01\xf9", RDTSC, RDTSCP, 0, 51, 0, 0),
    ROW("rdtscp withheld", "\x0f\x01\xf9", RDTSC, 0, 0, UD, 0, 0),
    ROW("vmcall", "\x0f\x01\xc1", 0, 0, 0, 18, 0, 0),
    ROW("vmcall in ring 3", "\x0f\x01\xc1", 0, 0, 3, 18, 0, 0),
    ROW("vmmcall", "\x0f\x01\xd9", 0, 0, 0, UD, 0, 0),
    ROW("vmlaunch", "\x0f\x01\xc2", 0, 0, 0, 20, 0, 0),
    ROW("vmresume", "\x0f\x01\xc3", 0, 0, 0, 24, 0, 0),
    ROW("vmxoff", "\x0f\x01\xc4", 0, 0, 0, 26, 0, 0),
    ROW("vmxon [rbx + 0x40]", "\xf3\x0f\xc7\x73\x40", 0, 0, 0, 27, 0x40,
        2 << 7 | 3 << 15 | 1 << 22 | 3 << 23),
    ROW("vmclear [rbx + rsi*4]", "\x66\x0f\xc7\x34\xb3", 0, 0, 0, 19, 0,
        2 | 2 << 7 | 3 << 15 | 6 << 18 | 3 << 23),
    ROW("vmptrld [rip + 0x40]", "\x0f\xc7\x35\x40\0\0\0", 0, 0, 0, 21, DISPLACED,
        2 << 7 | 3 << 15 | 1 << 22 | 1 << 27),
    ROW("vmptrst gs:[rbx]", "\x65\x0f\xc7\x3b", 0, 0, 0, 22, 0,
        2 << 7 | 5 << 15 | 1 << 22 | 3 << 23),
    ROW("vmread rdi, rsi", "\x0f\x78\xf7", 0, 0, 0, 23, 0, 7 << 3 | 1 << 10 | 6 << 28),
    ROW("vmread [rbx - 8], rsi", "\x0f\x78\x73\xf8", 0, 0, 0, 23, -8,
        (int)(2 << 7 | 3 << 15 | 1 << 22 | 3 << 23 | 6u << 28)),
    ROW("vmwrite rdi, rsi", "\x0f\x79\xfe", 0, 0, 0, 25, 0, 6 << 3 | 1 << 10 | 7 << 28),
    ROW("invept rax, [rbx]", "\x66\x0f\x38\x80\x03", 0, 0, 0, 50, 0,
        2 << 7 | 3 << 15 | 1 << 22 | 3 << 23),
    ROW("invvpid rdi, [rbx]", "\x66\x0f\x38\x81\x3b", 0, 0, 0, 53, 0,
        2 << 7 | 3 << 15 | 1 << 22 | 3 << 23 | 7 << 28),
    ROW("invpcid rdi, [rbx]", "\x66\x0f\x38\x82\x3b", INVLPG, INVPCID, 0, 58, 0,
        2 << 7 | 3 << 15 | 1 << 22 | 3 << 23 | 7 << 28),
    ROW("invpcid withheld", "\x66\x0f\x38\x82\x3b", INVLPG, 0, 0, UD, 0, 0),
    ROW("mov dr3, rsi", "\x0f\x23\xde", DR, 0, 0, 29, 3 | 6 << 8, 0),
    ROW("mov rdi, dr7", "\x0f\x21\xff", DR, 0, 0, 29, 7 | 1 << 4 | 7 << 8, 0),
    ROW("mov dr0, rax in ring 3", "\x0f\x23\xc0", DR, 0, 3, 29, 0, 0),
    ROW("mov dr0, rax alone, in ring 3", "\x0f\x23\xc0", 0, 0, 3, GP, 0, 0),
    ROW("mwait", "\x0f\x01\xc9", MWAIT, 0, 0, 36, 0, 0),
    ROW("mwait in ring 3", "\x0f\x01\xc9", MWAIT, 0, 3, UD, 0, 0),
    ROW("monitor", "\x0f\x01\xc8", MONITOR, 0, 0, 39, 0, 0),
    ROW("pause", "\xf3\x90", PAUSE, 0, 3, 40, 0, 0),
    ROW("pause alone", "\xf3\x90", 0, 0, 0, NONE, 0, 0),
    ROW("nop", "\x90", PAUSE, 0, 0, NONE, 0, 0),
    ROW("sgdt [rbx]", "\x0f\x01\x03", 0, TABLES, 0, 46, 0,
        2 << 7 | 1 << 11 | 3 << 15 | 1 << 22 | 3 << 23),
    ROW("sidt [rbx + 1]", "\x0f\x01\x4b\x01", 0, TABLES, 3, 46, 1,
        2 << 7 | 1 << 11 | 3 << 15 | 1 << 22 | 3 << 23 | 1 << 28),
    ROW("lgdt [rbx]", "\x0f\x01\x13", 0, TABLES, 0, 46, 0,
        2 << 7 | 1 << 11 | 3 << 15 | 1 << 22 | 3 << 23 | 2 << 28),
    ROW("lidt [rbx]", "\x0f\x01\x1b", 0, TABLES, 0, 46, 0,
        2 << 7 | 1 << 11 | 3 << 15 | 1 << 22 | 3 << 23 | 3 << 28),
    ROW("lidt in ring 3", "\x0f\x01\x1b", 0, TABLES, 3, GP, 0, 0),
    ROW("sldt edi", "\x0f\x00\xc7", 0, TABLES, 0, 47, 0, 7 << 3 | 1 << 10),
    ROW("str [rbx]", "\x0f\x00\x0b", 0, TABLES, 0, 47, 0,
        2 << 7 | 3 << 15 | 1 << 22 | 3 << 23 | 1 << 28),
    ROW("lldt si", "\x0f\x00\xd6", 0, TABLES, 0, 47, 0, 6 << 3 | 1 << 10 | 2 << 28),
    ROW("ltr si", "\x0f\x00\xde", 0, TABLES, 0, 47, 0, 6 << 3 | 1 << 10 | 3 << 28),
    ROW("sgdt alone", "\x0f\x01\x03", 0, 0, 0, NONE, 0, 0),
    ROW("xsetbv", "\x0f\x01\xd1", 0, 0, 0, 55, 0, 0),
    ROW("xsetbv in ring 3", "\x0f\x01\xd1", 0, 0, 3, GP, 0, 0),
    ROW("rdrand di", "\x66\x0f\xc7\xf7", 0, RDRAND, 3, 57, 0, 7 << 3),
    ROW("rdrand r9", "\x49\x0f\xc7\xf1", 0, RDRAND, 0, 57, 0, 9 << 3 | 2 << 11),
    ROW("rdseed edi", "\x0f\xc7\xff", 0, RDSEED, 0, 61, 0, 7 << 3 | 1 << 11),
    ROW("rdseed by the other control", "\x0f\xc7\xff", 0, RDRAND, 0, NONE, 0, 0),
    ROW("in al, dx", "\xec", PORT, 0, 0, 30, 0x3f8 << 16 | 1 << 3, 0),
    ROW("in eax, 0x21", "\xe5\x21", PORT, 0, 0, 30, 0x21 << 16 | 1 << 6 | 1 << 3 | 3, 0),
    ROW("out 0x21, ax", "\x66\xe7\x21", PORT, 0, 3, 30, 0x21 << 16 | 1 << 6 | 1, 0),
    ROW("out dx, al", "\xee", PORT, 0, 0, 30, 0x3f8 << 16, 0),
    ROW("outsb", "\x6e", PORT, 0, 0, 30, 0x3f8 << 16 | 1 << 4, 2 << 7 | 3 << 15),
    ROW("insw", "\x66\x6d", PORT, 0, 0, 30, 0x3f8 << 16 | 1 << 4 | 1 << 3 | 1, 2 << 7),
    ROW("rep outsb of nothing", "\xf3\x6e", PORT, 0, 0, NONE, 0, 0),
};

static void every_instruction_exits_as_its_control_says(void) {
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    const row *r = &rows[i];
    test_note("%s", r->name);
    soft_system system = system_open(SYSTEM_64);
    struct kvm_sregs sregs = system.sregs;
    system_enter_ring(&system, &sregs, r->ring);
    vmx_set(&system, (luna_controls){.primary = r->primary,
                                     .secondary = r->secondary,
                                     .exceptions = 1 << 6 | 1 << 13});
    struct kvm_regs regs = {.rbx = RBX_AT, .rdx = 0x3f8, .rsi = 0x6200, .rdi = 0x6300};
    if (r->reason == NONE) {
      vmx_set(&system, (luna_controls){.primary = r->primary & ~(uint32_t)PORT,
                                       .secondary = r->secondary,
                                       .exceptions = 1 << 6 | 1 << 13});
    }
    vmx_end end = vmx_run(&system, &sregs, regs, r->code, r->size);
    if (r->reason == GP || r->reason == UD) {
      CHECK_EQ(end.reason, 0);
      CHECK_EQ(end.exit.interruption & 0x800007ff, 0x80000300 | (r->reason - 1000));
    } else {
      CHECK_EQ(end.reason, r->reason);
    }
    if (end.reason != NONE) {
      CHECK_EQ(end.regs.rip, GUEST_CODE);
    }
    if (end.reason != NONE && end.reason != 0) {
      int64_t displaced = GUEST_CODE + (int64_t)r->size + 0x40;
      CHECK_EQ(end.exit.length, r->size);
      CHECK_EQ(end.exit.qualification,
               r->qualification == DISPLACED ? displaced : r->qualification);
      CHECK_EQ(end.exit.instruction, r->information);
      CHECK_EQ(end.exit.vectoring, 0);
      CHECK_EQ(end.regs.rsi, 0x6200); /* nothing has changed */
      CHECK_EQ(end.regs.rdi, 0x6300);
      vmx_set(&system, (luna_controls){0});
      CHECK_EQ(vmx_skip(&system, &end).reason, NONE);
    }
    system_close(&system);
  }
}

static void strings_at_ports_tell_of_their_memory(void) {
  soft_system system = system_open(SYSTEM_64);
  struct kvm_sregs sregs = system.sregs;
  struct kvm_regs regs = {.rcx = 3, .rdx = 0x60, .rsi = 0x6200, .rdi = 0x6300};
  vmx_set(&system, (luna_controls){.primary = PORT});
  sregs.gs.base = 0x100;
  vmx_end end = vmx_run(&system, &sregs, regs, "\x65\xf3\x6e", 3); /* rep outsb, of GS */
  CHECK_EQ(end.reason, 30);
  CHECK_EQ(end.exit.qualification, 0x60 << 16 | 1 << 5 | 1 << 4);
  CHECK_EQ(end.exit.instruction, 2 << 7 | 5 << 15);
  CHECK_EQ(end.exit.linear, 0x6300);
  CHECK_EQ(end.regs.rcx, 3);
  CHECK_EQ(end.regs.rsi, 0x6200);
  end = vmx_run(&system, &sregs, regs, "\x67\xf3\x6d", 3); /* rep insd, of 32-bit addresses */
  CHECK_EQ(end.exit.qualification, 0x60 << 16 | 1 << 5 | 1 << 4 | 1 << 3 | 3);
  CHECK_EQ(end.exit.instruction, 1 << 7);
  CHECK_EQ(end.exit.linear, 0x6300);
  system_close(&system);
}

static void a_shadow_stays_over_the_exit(void) {
  soft_system system = system_open(SYSTEM_64);
  struct kvm_vcpu_events events;
  vmx_set(&system, (luna_controls){.primary = HLT});
  vmx_end end = vmx_run(&system, &system.sregs, (struct kvm_regs){.rflags = 0x3002}, "\xfb\xf4",
                        2); /* sti; hlt */
  CHECK_EQ(end.reason, 12);
  CHECK_EQ(end.regs.rip, GUEST_CODE + 1);
  CHECK_EQ(guest_call(system.guest.cpu, KVM_GET_VCPU_EVENTS, &events), 0);
  CHECK_EQ(events.interrupt.shadow, KVM_X86_SHADOW_INT_STI);
  system_close(&system);
}

static void without_controls_nothing_of_it_exits(void) {
  soft_system system = system_open(SYSTEM_64);
  vmx_set(&system, (luna_controls){.primary = UINT32_MAX, .secondary = UINT32_MAX});
  CHECK_EQ(guest_call(system.guest.cpu, LUNA_KVM_SET_CONTROLS, NULL), 0);
  vmx_end end = vmx_run(&system, &system.sregs, (struct kvm_regs){.rbx = RBX_AT},
                        "\x0f\xa2\x0f\x31\xf3\x90", 6);
  CHECK_EQ(end.reason, NONE);
  CHECK_EQ(
      guest_call(system.guest.kvm, KVM_CHECK_EXTENSION, (void *)(uintptr_t)LUNA_KVM_CAP_CONTROLS),
      1);
  system_close(&system);
}

int main(void) {
  RUN(every_instruction_exits_as_its_control_says);
  RUN(strings_at_ports_tell_of_their_memory);
  RUN(a_shadow_stays_over_the_exit);
  RUN(without_controls_nothing_of_it_exits);
  return test_end();
}
