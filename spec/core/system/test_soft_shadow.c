/* SPDX-License-Identifier: MIT
 * What holds interrupts, NMIs and debug exceptions back on the software CPU, for how long, and
 * which of several comes first (SDM volume 3, 6.7.1, 6.8 and 6.9). */
#include "fixture/soft_system.h"

enum {
  DB = 1,
  NMI = 2,
  UD = 6,
  INT = 0x40,
  IRQ = 0x50,
  END = SYSTEM_END,
  DATA = SYSTEM_DATA,
  IF = 0x200,
  TF = 0x100,
  ACCESSES = 0xf0001 /* DR7: breakpoint 0 on 4 bytes of data */
};

/* Starts at the code; the caller asks for what shall come. */
static void begin(const soft_system *system, struct kvm_regs regs, const char *code, size_t size) {
  memcpy(system->guest.ram + GUEST_CODE, code, size);
  system_put(system, GUEST_CODE + size, 0xe6 | SYSTEM_AT_END << 8, 2);
  system_begin(system, &system->sregs, regs);
}

static void interrupt(const soft_system *system) {
  struct kvm_interrupt irq = {.irq = IRQ};
  CHECK_EQ(guest_call(system->guest.cpu, KVM_INTERRUPT, &irq), 0);
}

static struct kvm_vcpu_events events_of(const soft_system *system) {
  struct kvm_vcpu_events events;
  CHECK_EQ(guest_call(system->guest.cpu, KVM_GET_VCPU_EVENTS, &events), 0);
  return events;
}

static void set_events(const soft_system *system, unsigned shadow, bool nmi) {
  struct kvm_vcpu_events events = {.flags = KVM_VCPUEVENT_VALID_SHADOW |
                                            KVM_VCPUEVENT_VALID_NMI_PENDING};
  events.interrupt.shadow = (uint8_t)shadow;
  events.nmi.pending = nmi;
  CHECK_EQ(guest_call(system->guest.cpu, KVM_SET_VCPU_EVENTS, &events), 0);
}

/* ---- Interrupts ---- */

/* In 32-bit code that begins with IF clear, and an interrupt that waits: where it comes. */
static const struct {
  const char *code;
  size_t size;
  int at; /* from GUEST_CODE; -1 for never */
} rows[] = {
    {"\x90\x90", 2, -1},
    {"\xfb\x90\x90", 3, 2},  /* sti: one instruction later */
    {"\xfb\xfa\x90", 3, -1}, /* sti; cli */
    {"\xfb\xfb\x90", 3, 2},  /* the second has no shadow */
    {"\xfb\x90\xfb\x90", 4, 2},
    {"\xfb\x8e\xd0\x90\x90", 5, 4}, /* sti; mov ss, eax; nop */
    {"\xfb\x90\x8e\xd0", 4, 2},
    {"\xfb\x8e\xd8\x90", 4, 3},                 /* mov ds: none */
    {"\xfb\x50\x17\x90\x90", 5, 2},             /* sti; push */
    {"\x50\xfb\x17\x90\x90", 5, 4},             /* push; sti; pop ss; nop */
    {"\x50\xfb\x1f\x90\x90", 5, 3},             /* pop ds: none */
    {"\xfb\x0f\xb2\x27\x90\x90", 6, 4},         /* lss esp, [edi]: none */
    {"\x68\x02\x32\x00\x00\x9d\x90\x90", 8, 6}, /* popf: none */
    {"\xfb\xf4\x90", 3, 2},                     /* hlt: it is woken */
    {"\xfb\x0f\x31\x90", 4, 3},                 /* rdtsc */
    {"\xfb\xeb\x00\x90", 4, 3},                 /* jmp */
    {"\xfb\xf3\xaa\x90", 4, 1},                 /* rep stosb: within it */
};

static void interrupts_wait_for_the_shadow_s_end(void) {
  soft_system system = system_open(SYSTEM_32);
  system_put(&system, DATA, GUEST_STACK | (uint64_t)SYSTEM_DATA_0 << 32, 6);
  for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
    test_note("row %u", i);
    struct kvm_regs regs = {.rax = SYSTEM_DATA_0, .rdi = DATA, .rcx = 3};
    begin(&system, regs, rows[i].code, rows[i].size);
    interrupt(&system);
    system_end end = system_go(&system);
    CHECK_EQ(end.vector, rows[i].at < 0 ? END : IRQ);
    if (rows[i].at >= 0) {
      CHECK_EQ(end.frame[0], GUEST_CODE + rows[i].at);
      CHECK_EQ(end.regs.rflags & IF, 0);
    } else {
      CHECK_EQ(events_of(&system).interrupt.injected, 1);
    }
  }
  system_close(&system);
}

/* KVM_SET_VCPU_EVENTS says that there is a shadow. */
static void a_shadow_of_user_space(void) {
  static const unsigned shadows[] = {0, KVM_X86_SHADOW_INT_STI, KVM_X86_SHADOW_INT_MOV_SS};
  soft_system system = system_open(SYSTEM_64);
  for (unsigned i = 0; i < 3; i++) {
    for (unsigned nmi = 0; nmi < 2; nmi++) {
      test_note("shadow %u, NMI %u", shadows[i], nmi);
      begin(&system, (struct kvm_regs){.rflags = SYSTEM_ALL | IF}, "\x90\x90", 2);
      set_events(&system, shadows[i], nmi);
      if (!nmi) {
        interrupt(&system);
      }
      system_end end = system_go(&system);
      CHECK_EQ(end.vector, nmi ? NMI : IRQ);
      CHECK_EQ(end.frame[0], GUEST_CODE + (shadows[i] ? 1 : 0));
    }
  }
  system_close(&system);
}

/* ---- NMIs ---- */

/* The handler is left alone until its IRET: then the next one comes. */
static void nmis_wait_for_iret(void) {
  static const char handler[] = "\xe6\x11\x48\xff\xc3\x48\xcf"; /* out; inc rbx; iretq */
  soft_system system = system_open(SYSTEM_64);
  memcpy(system.guest.ram + system_handler(NMI), handler, sizeof handler - 1);
  begin(&system, (struct kvm_regs){.rbx = 0}, "\x90\x90", 2);
  CHECK_EQ(guest_call(system.guest.cpu, KVM_NMI, NULL), 0);
  system_end end = system_go(&system);
  SYSTEM_CHECK(end, NMI, 0);
  CHECK_EQ(end.frame[0], GUEST_CODE);
  CHECK_EQ(events_of(&system).nmi.masked, 1);
  CHECK_EQ(guest_call(system.guest.cpu, KVM_NMI, NULL), 0);
  end = system_go(&system);
  SYSTEM_CHECK(end, NMI, 0);
  CHECK_EQ(end.frame[0], GUEST_CODE);
  CHECK_EQ(end.regs.rbx, 1);
  end = system_go(&system);
  SYSTEM_CHECK(end, END, 0);
  CHECK_EQ(end.regs.rbx, 2);
  CHECK_EQ(events_of(&system).nmi.masked, 0);
  system_close(&system);
}

/* An exception's IRET within the handler ends it too. */
static void any_iret_unmasks(void) {
  static const char handler[] = "\xcd\x40\x48\xff\xc3\xe6\x11"; /* int 0x40; inc rbx; out */
  soft_system system = system_open(SYSTEM_64);
  memcpy(system.guest.ram + system_handler(NMI), handler, sizeof handler - 1);
  memcpy(system.guest.ram + system_handler(INT), "\xe6\x11\x48\xcf", 4);
  begin(&system, (struct kvm_regs){.rbx = 0}, "\x90\x90", 2);
  CHECK_EQ(guest_call(system.guest.cpu, KVM_NMI, NULL), 0);
  CHECK_EQ(system_go(&system).vector, INT);
  CHECK_EQ(guest_call(system.guest.cpu, KVM_NMI, NULL), 0);
  system_end end = system_go(&system);
  CHECK_EQ(end.vector, INT); /* of the second NMI's handler */
  CHECK_EQ(end.regs.rbx, 0);
  system_close(&system);
}

static void nmis_come_before_interrupts(void) {
  soft_system system = system_open(SYSTEM_64);
  begin(&system, (struct kvm_regs){.rflags = SYSTEM_ALL | IF}, "\x90\x90", 2);
  CHECK_EQ(guest_call(system.guest.cpu, KVM_NMI, NULL), 0);
  interrupt(&system);
  CHECK_EQ(system_go(&system).vector, NMI);
  system_close(&system);
}

/* ---- Debug exceptions behind MOV SS ---- */

/* With TF, or a breakpoint on the data or the code. */
static const struct {
  const char *code;
  size_t size;
  uint64_t flags, dr0, dr7;
  int vector;
  uint64_t rip; /* of the frame */
  uint64_t status;
} debug_rows[] = {
    /* mov ss, eax; nop; nop: no step behind the first */
    {"\x8e\xd0\x90\x90", 4, TF, 0, 0, DB, GUEST_CODE + 3, 0x4000},
    {"\x8e\xd8\x90\x90", 4, TF, 0, 0, DB, GUEST_CODE + 2, 0x4000},
    /* mov ss, eax; int 0x40: it is lost */
    {"\x8e\xd0\xcd\x40", 4, TF, 0, 0, INT, GUEST_CODE + 4, 0},
    {"\x8e\xd0\x0f\x0b", 4, TF, 0, 0, UD, GUEST_CODE + 2, 0},
    /* a breakpoint on what is in the shadow, and behind it */
    {"\x8e\xd0\x90\x90", 4, 0, GUEST_CODE + 2, 1, END, 0, 0},
    {"\x8e\xd0\x90\x90", 4, 0, GUEST_CODE + 3, 1, DB, GUEST_CODE + 3, 1},
    /* mov ss, [rdi], watched: one instruction later, in its handler if it has one */
    {"\x8e\x17\x90\x90", 4, 0, DATA, ACCESSES, DB, GUEST_CODE + 3, 1},
    {"\x8e\x17\xcd\x40", 4, 0, DATA, ACCESSES, DB, SYSTEM_HANDLERS + INT * 16, 1},
    {"\x8e\x1f\x90\x90", 4, 0, DATA, ACCESSES, DB, GUEST_CODE + 2, 1},
};

static void mov_ss_holds_debug_exceptions_back(void) {
  soft_system system = system_open(SYSTEM_64);
  for (unsigned i = 0; i < sizeof debug_rows / sizeof *debug_rows; i++) {
    test_note("row %u", i);
    struct kvm_regs regs = {
        .rax = SYSTEM_DATA_0, .rdi = DATA, .rflags = SYSTEM_ALL | debug_rows[i].flags};
    struct kvm_debugregs set = {
        .db = {debug_rows[i].dr0}, .dr6 = 0xffff0ff0, .dr7 = debug_rows[i].dr7 | 0x400};
    system_put(&system, DATA, SYSTEM_DATA_0, 2);
    begin(&system, regs, debug_rows[i].code, debug_rows[i].size);
    CHECK_EQ(guest_call(system.guest.cpu, KVM_SET_DEBUGREGS, &set), 0);
    system_end end = system_go(&system);
    CHECK_EQ(end.vector, debug_rows[i].vector);
    if (end.vector != END) {
      CHECK_EQ(end.frame[0], debug_rows[i].rip);
    }
    CHECK_EQ(guest_call(system.guest.cpu, KVM_GET_DEBUGREGS, &set), 0);
    CHECK_EQ(set.dr6 & 0xe00f, debug_rows[i].status);
  }
  system_close(&system);
}

/* A step's trap comes before an NMI that waited for the same instruction. */
static void traps_come_before_nmis(void) {
  soft_system system = system_open(SYSTEM_64);
  begin(&system, (struct kvm_regs){.rflags = SYSTEM_ALL | TF}, "\x90\x90", 2);
  set_events(&system, KVM_X86_SHADOW_INT_MOV_SS, true);
  system_end end = system_go(&system);
  CHECK_EQ(end.vector, NMI); /* which interrupts the trap's handler before its first instruction */
  CHECK_EQ(end.frame[0], system_handler(DB));
  system_close(&system);
}

int main(void) {
  RUN(interrupts_wait_for_the_shadow_s_end);
  RUN(a_shadow_of_user_space);
  RUN(nmis_wait_for_iret);
  RUN(any_iret_unmasks);
  RUN(nmis_come_before_interrupts);
  RUN(mov_ss_holds_debug_exceptions_back);
  RUN(traps_come_before_nmis);
  return test_end();
}
