/* SPDX-License-Identifier: MIT
 * Debug events of the guest on the software CPU: breakpoints on code, data and ports, GD, TF, what
 * DR6 and the frame say of them, RF (SDM volume 3, chapter 18). */
#include "fixture/soft_system.h"

enum {
  DB = 1,
  END = SYSTEM_END,
  DATA = SYSTEM_DATA,
  TF = 0x100,
  RF = 0x10000,
  BD = 0x2000,
  BS = 0x4000,
  CR4_DE = 8,
  /* DR7: breakpoint 0 by its kind and length. */
  ON = 1,
  WRITES = 1 << 16,
  PORTS = 2 << 16,
  ACCESSES = 3 << 16,
  TWO = 1 << 18,
  EIGHT = 2 << 18,
  FOUR = 3 << 18
};

#define FIXED UINT64_C(0xffff0ff0) /* DR6's bits that are always set */

static struct kvm_debugregs debugregs_of(const soft_system *system) {
  struct kvm_debugregs got;
  CHECK_EQ(guest_call(system->guest.cpu, KVM_GET_DEBUGREGS, &got), 0);
  return got;
}

/* The code with DR0 and DR7 set, in ring 0 with CR4.DE. */
static system_end run(const soft_system *system, uint64_t dr0, uint64_t dr7, struct kvm_regs regs,
                      const char *code, size_t size) {
  struct kvm_sregs sregs = system->sregs;
  struct kvm_debugregs set = {.db = {dr0}, .dr6 = FIXED, .dr7 = dr7 | 0x400};
  sregs.cr4 |= CR4_DE;
  memcpy(system->guest.ram + GUEST_CODE, code, size);
  system_put(system, GUEST_CODE + size, 0xe6 | SYSTEM_AT_END << 8, 2);
  system_begin(system, &sregs, regs);
  CHECK_EQ(guest_call(system->guest.cpu, KVM_SET_DEBUGREGS, &set), 0);
  return system_go(system);
}
#define DEBUG_RUN(system, dr0, dr7, regs, code) run(system, dr0, dr7, regs, code, sizeof(code) - 1)

static void check_db(const soft_system *system, const system_end *end, uint64_t rip,
                     uint64_t status) {
  CHECK_EQ(end->vector, DB);
  CHECK_EQ(end->frame[0], rip);
  CHECK_EQ(debugregs_of(system).dr6 & 0xe00f, status);
}

/* ---- Data ---- */

/* mov [rdi], eax; mov eax, [rdi]; with 8 bytes and 1 */
static const struct {
  const char *code;
  size_t size;
  uint64_t at, dr0, dr7;
  bool meets;
} data_rows[] = {
    {"\x89\x07", 2, DATA, DATA, ON | WRITES, true},
    {"\x8b\x07", 2, DATA, DATA, ON | WRITES, false},
    {"\x8b\x07", 2, DATA, DATA, ON | ACCESSES, true},
    {"\x89\x07", 2, DATA, DATA, ON | ACCESSES, true},
    {"\x89\x07", 2, DATA, DATA + 3, ON | WRITES, true},
    {"\x89\x07", 2, DATA, DATA + 4, ON | WRITES, false},
    {"\x89\x07", 2, DATA + 4, DATA + 3, ON | WRITES, false},
    {"\x89\x07", 2, DATA + 4, DATA + 3, ON | WRITES | TWO, false},
    {"\x89\x07", 2, DATA + 4, DATA, ON | WRITES | FOUR, false},
    {"\x89\x07", 2, DATA + 4, DATA, ON | WRITES | EIGHT, true},
    {"\x89\x07", 2, DATA + 4, DATA + 7, ON | WRITES | EIGHT, true},
    {"\x88\x07", 2, DATA + 4, DATA + 4, ON | WRITES, true},
    {"\x88\x07", 2, DATA + 5, DATA + 4, ON | WRITES, false},
    {"\x88\x07", 2, DATA + 5, DATA + 4, ON | WRITES | TWO, true},
    {"\x88\x07", 2, DATA + 6, DATA + 4, ON | WRITES | FOUR, true},
    {"\x89\x07", 2, DATA, DATA, WRITES | FOUR, false},    /* not on */
    {"\x89\x07", 2, DATA, DATA, 2 | WRITES | FOUR, true}, /* by G0 */
    {"\x48\x89\x07", 3, DATA, DATA + 4, ON | WRITES | FOUR, true},
    {"\x01\x07", 2, DATA, DATA, ON | WRITES | FOUR, true},
    {"\xf0\x01\x07", 3, DATA, DATA, ON | WRITES | FOUR, true},
    {"\x39\x07", 2, DATA, DATA, ON | WRITES | FOUR, false},
    {"\x39\x07", 2, DATA, DATA, ON | ACCESSES | FOUR, true},
    {"\x0f\x11\x07", 3, DATA, DATA + 12, ON | WRITES | FOUR, true}, /* movups */
    {"\x0f\x10\x07", 3, DATA, DATA + 12, ON | ACCESSES, true},
    {"\x0f\x10\x07", 3, DATA, DATA + 16, ON | ACCESSES, false},
    {"\xaa", 1, DATA, DATA, ON | WRITES, true},                        /* stosb */
    {"\x0f\x0d\x0f", 3, DATA, DATA, ON | ACCESSES, false},             /* prefetchw */
    {"\x8d\x07", 2, DATA, DATA, ON | ACCESSES, false},                 /* lea */
    {"\xff\x37", 2, DATA, GUEST_STACK - 8, ON | WRITES | EIGHT, true}, /* push [rdi] */
    {"\xff\x37", 2, DATA, DATA, ON | ACCESSES | EIGHT, true},
};

/* A trap: behind the instruction, which is done. */
static void data_that_is_watched(void) {
  soft_system system = system_open(SYSTEM_64);
  for (unsigned i = 0; i < sizeof data_rows / sizeof *data_rows; i++) {
    test_note("row %u", i);
    struct kvm_regs regs = {.rdi = data_rows[i].at, .rax = 0x1234};
    memset(system.guest.ram + DATA, 0, 64);
    system_end end = run(&system, data_rows[i].dr0, data_rows[i].dr7, regs, data_rows[i].code,
                         data_rows[i].size);
    if (data_rows[i].meets) {
      check_db(&system, &end, GUEST_CODE + data_rows[i].size, 1);
    } else {
      SYSTEM_CHECK(end, END, 0);
    }
  }
  system_close(&system);
}

/* rep stosb: the trap comes behind the iteration, which goes on where it was. */
static void a_repetition_stops_in_the_middle(void) {
  soft_system system = system_open(SYSTEM_64);
  struct kvm_regs regs = {.rdi = DATA, .rcx = 10};
  system_end end = DEBUG_RUN(&system, DATA + 3, ON | WRITES, regs, "\xf3\xaa");
  check_db(&system, &end, GUEST_CODE, 1);
  CHECK_EQ(end.regs.rcx, 6);
  CHECK_EQ(end.regs.rdi, DATA + 4);
  system_close(&system);
}

/* An access that faults is no access: the breakpoint is not met by what comes after. */
static void a_fault_is_not_watched(void) {
  soft_system system = system_open(SYSTEM_64);
  struct kvm_regs regs = {.rdi = GUEST_SIZE - 4, .rflags = SYSTEM_ALL};
  /* mov [rdi], rax over the end of memory; the handler runs on with TF by itself */
  static const char handler[] =
      "\x68\x02\x31\x00\x00\x9d\x90\xe6\x11"; /* push 0x3102; popfq; nop */
  memcpy(system.guest.ram + system_handler(14), handler, sizeof handler - 1);
  system_end end = DEBUG_RUN(&system, GUEST_SIZE - 4, ON | WRITES, regs, "\x48\x89\x07");
  check_db(&system, &end, system_handler(14) + 7, BS);
  system_close(&system);
}

/* ---- Code ---- */

/* A fault: at the instruction, before anything of it; RF lets it run. */
static void code_that_is_watched(void) {
  static const char code[] = "\x90\x8b\x07\x90"; /* nop; mov eax, [rdi], which would fault; nop */
  soft_system system = system_open(SYSTEM_64);
  struct kvm_regs regs = {.rdi = GUEST_SIZE};
  system_end end = DEBUG_RUN(&system, GUEST_CODE + 1, ON, regs, code);
  check_db(&system, &end, GUEST_CODE + 1, 1);
  CHECK_EQ(end.frame[2] & RF, 0);
  regs.rip = GUEST_CODE + 1;
  regs.rflags = SYSTEM_ALL | RF;
  end = DEBUG_RUN(&system, GUEST_CODE + 1, ON, regs, code);
  SYSTEM_CHECK(end, 14, 0);
  CHECK_EQ(end.frame[2] & RF, RF); /* so that it is not met again */
  regs.rdi = DATA;
  end = DEBUG_RUN(&system, GUEST_CODE + 3, ON, regs, code);
  check_db(&system, &end, GUEST_CODE + 3, 1); /* RF is one instruction's */
  system_close(&system);
}

/* Neither in the middle of an instruction nor a byte before it. */
static void code_is_met_at_its_first_byte(void) {
  static const char code[] = "\x90\xb8\x00\x00\x00\x00\x90";
  soft_system system = system_open(SYSTEM_64);
  for (unsigned at = 0; at < 7; at++) {
    test_note("byte %u", at);
    system_end end = DEBUG_RUN(&system, GUEST_CODE + at, ON, ((struct kvm_regs){.rax = 0}), code);
    CHECK_EQ(end.vector, at == 0 || at == 1 || at == 6 ? DB : END);
  }
  system_close(&system);
}

/* IRETQ brings RF back, for a handler that returns. */
static void a_handler_returns_past_its_breakpoint(void) {
  static const char handler[] = "\x81\x4c\x24\x10\x00\x00\x01\x00\x48\xff\xc3\x48\xcf";
  soft_system system = system_open(SYSTEM_64);
  memcpy(system.guest.ram + system_handler(DB), handler,
         sizeof handler - 1); /* or; inc rbx; iretq */
  system_end end =
      DEBUG_RUN(&system, GUEST_CODE + 1, ON, ((struct kvm_regs){.rbx = 0}), "\x90\x90\x90");
  SYSTEM_CHECK(end, END, 0);
  CHECK_EQ(end.regs.rbx, 1);
  system_close(&system);
}

/* ---- Ports ---- */

static const struct {
  const char *code;
  size_t size;
  uint64_t dr0, dr7;
  bool meets;
} port_rows[] = {
    {"\xe6\x80", 2, 0x80, ON | PORTS, true},
    {"\xe6\x80", 2, 0x81, ON | PORTS, false},
    {"\xe7\x80", 2, 0x83, ON | PORTS, true},
    {"\xe7\x80", 2, 0x84, ON | PORTS, false},
    {"\xe6\x82", 2, 0x80, ON | PORTS | FOUR, true},
    {"\xee", 1, 0x80, ON | PORTS, true},
    {"\x6e", 1, 0x80, ON | PORTS, true},
    {"\xe6\x80", 2, 0x80, ON | WRITES, false},
    {"\xe6\x80", 2, 0x80, PORTS, false},
};

/* A trap too: user space has the write before. */
static void ports_that_are_watched(void) {
  soft_system system = system_open(SYSTEM_64);
  for (unsigned i = 0; i < sizeof port_rows / sizeof *port_rows; i++) {
    test_note("row %u", i);
    struct kvm_regs regs = {.rdx = 0x80, .rsi = DATA};
    system_end end = run(&system, port_rows[i].dr0, port_rows[i].dr7, regs, port_rows[i].code,
                         port_rows[i].size);
    CHECK_EQ(end.vector, END);
    CHECK(system.guest.run->io.port >= 0x80);
    end = system_go(&system);
    if (port_rows[i].meets) {
      check_db(&system, &end, GUEST_CODE + port_rows[i].size, 1);
    } else {
      SYSTEM_CHECK(end, END, 0);
    }
  }
  system_close(&system);
}

/* in al, 0x80: the trap comes when the answer is there. */
static void a_port_that_is_read(void) {
  soft_system system = system_open(SYSTEM_64);
  struct kvm_regs regs = {.rax = 0};
  system_end end = DEBUG_RUN(&system, 0x80, ON | PORTS, regs, "\xe4\x80");
  CHECK_EQ(system.guest.run->io.direction, KVM_EXIT_IO_IN);
  ((uint8_t *)system.guest.run)[system.guest.run->io.data_offset] = 0x5a;
  end = system_go(&system);
  check_db(&system, &end, GUEST_CODE + 2, 1);
  CHECK_EQ(end.regs.rax, 0x5a);
  system_close(&system);
}

/* Without CR4.DE there is no such kind. */
static void ports_need_cr4_de(void) {
  soft_system system = system_open(SYSTEM_64);
  struct kvm_debugregs set = {.db = {SYSTEM_AT_END}, .dr6 = FIXED, .dr7 = 0x400 | ON | PORTS};
  memcpy(system.guest.ram + GUEST_CODE, "\xe6\x80", 2);
  system_put(&system, GUEST_CODE + 2, 0xe6 | SYSTEM_AT_END << 8, 2);
  system_begin(&system, &system.sregs, (struct kvm_regs){.rax = 0});
  CHECK_EQ(guest_call(system.guest.cpu, KVM_SET_DEBUGREGS, &set), 0);
  CHECK_EQ(system_go(&system).vector, END);
  CHECK_EQ(system_go(&system).vector, END);
  CHECK_EQ(debugregs_of(&system).dr6, FIXED);
  system_close(&system);
}

/* ---- GD, and the registers themselves ---- */

static void general_detect(void) {
  static const struct {
    const char *code;
    uint64_t dr7;
    unsigned ring;
    uint64_t no_cr4;
    int vector;
  } rows[] = {
      {"\x0f\x21\xc0", 0x2000, 0, 0, DB}, /* mov rax, dr0 */
      {"\x0f\x23\xc0", 0x2000, 0, 0, DB}, /* mov dr0, rax */
      {"\x0f\x23\xf8", 0x2000, 0, 0, DB}, /* mov dr7, rax */
      {"\x0f\x21\xc0", 0x0000, 0, 0, END},
      {"\x0f\x21\xc0", 0x2000, 3, 0, 13}, /* the ring first */
      {"\x0f\x21\xe0", 0x2000, 0, 0, 6},  /* mov rax, dr4, which there is not with DE */
      {"\x0f\x21\xe0", 0x2000, 0, CR4_DE, DB},
      {"\x0f\x21\xe8", 0x0000, 0, CR4_DE, END},
      {"\x0f\x21\xe8", 0x0000, 0, 0, 6},
  };
  soft_system system = system_open(SYSTEM_64);
  for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
    test_note("row %u", i);
    struct kvm_sregs sregs = system.sregs;
    struct kvm_debugregs set = {.dr6 = FIXED, .dr7 = rows[i].dr7 | 0x400};
    system_enter_ring(&system, &sregs, rows[i].ring);
    sregs.cr4 = (sregs.cr4 | CR4_DE) & ~rows[i].no_cr4;
    memcpy(system.guest.ram + GUEST_CODE, rows[i].code, 3);
    system_put(&system, GUEST_CODE + 3, 0xe6 | SYSTEM_AT_END << 8, 2);
    system_begin(&system, &sregs, (struct kvm_regs){.rax = 0});
    CHECK_EQ(guest_call(system.guest.cpu, KVM_SET_DEBUGREGS, &set), 0);
    system_end end = system_go(&system);
    SYSTEM_CHECK(end, rows[i].vector, 0);
    if (end.vector == DB) {
      check_db(&system, &end, GUEST_CODE, BD);
    }
    bool cleared = end.vector == DB || !rows[i].dr7;
    CHECK_EQ(debugregs_of(&system).dr7, 0x400 | (cleared ? 0 : 0x2000));
  }
  system_close(&system);
}

/* Any debug exception clears GD, for its handler reads DR6. */
static void a_trap_clears_gd(void) {
  soft_system system = system_open(SYSTEM_64);
  struct kvm_regs regs = {.rflags = SYSTEM_ALL | TF};
  system_end end = DEBUG_RUN(&system, 0, 0x2000, regs, "\x90");
  check_db(&system, &end, GUEST_CODE + 1, BS);
  CHECK_EQ(debugregs_of(&system).dr7, 0x400);
  system_close(&system);
}

static void what_debug_registers_take(void) {
  static const struct {
    const char *code;
    uint64_t rax;
    int vector;
    uint64_t dr6, dr7;
  } rows[] = {
      {"\x0f\x23\xf0", 0, END, FIXED, 0x400},
      {"\x0f\x23\xf0", 0xffffffff, END, 0xffffefff, 0x400},
      {"\x0f\x23\xf0", 0x100000000, 13, FIXED, 0x400},
      {"\x0f\x23\xf8", 0x100000000, 13, FIXED, 0x400},
      {"\x0f\x23\xf8", 0xd000, END, FIXED, 0x400},
      {"\x0f\x23\xf8", 0x800, END, FIXED, 0xc00},
      {"\x0f\x23\xf8", 0xfff00000, END, FIXED, 0xfff00400},
  };
  soft_system system = system_open(SYSTEM_64);
  for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
    test_note("row %u", i);
    struct kvm_regs regs = {.rax = rows[i].rax};
    system_end end = run(&system, 0, 0, regs, rows[i].code, 3);
    SYSTEM_CHECK(end, rows[i].vector, 0);
    CHECK_EQ(debugregs_of(&system).dr6, rows[i].dr6);
    CHECK_EQ(debugregs_of(&system).dr7, rows[i].dr7);
  }
  system_close(&system);
}

/* ---- TF ---- */

/* With TF at the beginning, where the first trap comes and what it says. */
static const struct {
  const char *code;
  size_t size;
  uint64_t flags;
  uint64_t rip; /* of the frame, from GUEST_CODE; 0 for the end without a trap */
  uint64_t status;
} steps[] = {
    {"\x90\x90", 2, TF, 1, BS},
    {"\x90\x90", 2, TF | RF, 1, BS},
    {"\xeb\x01\x90\x90", 4, TF, 3, BS},             /* jmp */
    {"\x68\x02\x30\x00\x00\x9d\x90", 7, TF, 5, BS}, /* push */
    {"\x9d\x90\x90", 3, 0, 2, BS},                  /* popfq sets it: behind the next */
    {"\x0f\xa2\x90", 3, TF, 2, BS},                 /* cpuid */
    {"\xf3\xaa", 2, TF, 0x1000000, BS},             /* rep stosb, at itself */
};

static void single_steps(void) {
  soft_system system = system_open(SYSTEM_64);
  for (unsigned i = 0; i < sizeof steps / sizeof *steps; i++) {
    test_note("row %u", i);
    struct kvm_regs regs = {.rflags = SYSTEM_ALL | steps[i].flags, .rcx = 5, .rdi = DATA};
    system_put(&system, GUEST_STACK, SYSTEM_ALL | TF, 8);
    system_end end = run(&system, 0, 0, regs, steps[i].code, steps[i].size);
    check_db(&system, &end, GUEST_CODE + (steps[i].rip & 0xffffff), steps[i].status);
    CHECK_EQ(end.regs.rflags & TF, 0);
    CHECK_EQ(end.frame[2] & TF, TF);
  }
  system_close(&system);
}

/* popfq that clears TF is the last that traps. */
static void the_last_step(void) {
  soft_system system = system_open(SYSTEM_64);
  struct kvm_regs regs = {.rflags = SYSTEM_ALL | TF};
  system_put(&system, GUEST_STACK, SYSTEM_ALL, 8);
  system_end end = DEBUG_RUN(&system, 0, 0, regs, "\x9d\x90");
  check_db(&system, &end, GUEST_CODE + 1, BS);
  CHECK_EQ(end.frame[2] & TF, 0);
  system_close(&system);
}

/* INT n and faults clear TF on their way, and are no step of their own. */
static void events_are_not_stepped(void) {
  soft_system system = system_open(SYSTEM_64);
  struct kvm_regs regs = {.rflags = SYSTEM_ALL | TF};
  system_end end = DEBUG_RUN(&system, 0, 0, regs, "\xcd\x40");
  SYSTEM_CHECK(end, 0x40, 0);
  CHECK_EQ(end.frame[2] & TF, TF);
  end = DEBUG_RUN(&system, 0, 0, regs, "\x0f\x0b");
  SYSTEM_CHECK(end, 6, 0);
  CHECK_EQ(end.frame[2] & (TF | RF), TF | RF);
  CHECK_EQ(debugregs_of(&system).dr6, FIXED);
  system_close(&system);
}

/* A data breakpoint and a step are one exception. */
static void two_reasons_are_one_trap(void) {
  soft_system system = system_open(SYSTEM_64);
  struct kvm_regs regs = {.rflags = SYSTEM_ALL | TF, .rdi = DATA};
  system_end end = DEBUG_RUN(&system, DATA, ON | WRITES, regs, "\x89\x07");
  check_db(&system, &end, GUEST_CODE + 2, BS | 1);
  system_close(&system);
}

/* INT1 says nothing in DR6, and needs no DPL. */
static void int1_and_int3(void) {
  soft_system system = system_open(SYSTEM_64);
  system_end end = SYSTEM_RUN(&system, 3, ((struct kvm_regs){.rax = 0}), "\xf1");
  check_db(&system, &end, GUEST_CODE + 1, 0);
  system_interrupt_gate(&system, DB, SYSTEM_CODE_0, 0x0e, 0); /* EXT is clear for INT n alone */
  SYSTEM_CHECK(SYSTEM_RUN(&system, 3, ((struct kvm_regs){.rax = 0}), "\xf1"), 11, DB * 8 + 3);
  system_interrupt_gate(&system, DB, SYSTEM_DATA_0, 0x8e, 0);
  SYSTEM_CHECK(SYSTEM_RUN(&system, 3, ((struct kvm_regs){.rax = 0}), "\xf1"), 13,
               SYSTEM_DATA_0 + 1);
  SYSTEM_CHECK(SYSTEM_RUN(&system, 3, ((struct kvm_regs){.rax = 0}), "\xcc"), 13, 3 * 8 + 2);
  system_interrupt_gate(&system, 3, SYSTEM_CODE_0, 0xee, 0);
  end = SYSTEM_RUN(&system, 3, ((struct kvm_regs){.rax = 0}), "\xcc");
  SYSTEM_CHECK(end, 3, 0);
  CHECK_EQ(end.frame[0], GUEST_CODE + 1);
  system_close(&system);
}

int main(void) {
  RUN(data_that_is_watched);
  RUN(a_repetition_stops_in_the_middle);
  RUN(a_fault_is_not_watched);
  RUN(code_that_is_watched);
  RUN(code_is_met_at_its_first_byte);
  RUN(a_handler_returns_past_its_breakpoint);
  RUN(ports_that_are_watched);
  RUN(a_port_that_is_read);
  RUN(ports_need_cr4_de);
  RUN(general_detect);
  RUN(a_trap_clears_gd);
  RUN(what_debug_registers_take);
  RUN(single_steps);
  RUN(the_last_step);
  RUN(events_are_not_stepped);
  RUN(two_reasons_are_one_trap);
  RUN(int1_and_int3);
  return test_end();
}
