/* SPDX-License-Identifier: MIT
 * VMREAD and VMWRITE of a software CPU with a shadow VMCS: what they move without an exit, and when
 * they exit or fault (SDM volume 3, 25.10, 25.11.2 and 31.3). */
#include "fixture/soft_vmx.h"

enum {
  SHADOWING = 1 << 14, /* secondary */
  VMXE = 0x2000,
  ARITHMETIC = 0x8d5, /* CF, PF, AF, ZF, SF, OF */
  AT = SYSTEM_DATA,
  FULL = 0, /* halves of a 64-bit field */
  HIGH = 1,
  READ = LUNA_READ,
  WRITE = LUNA_WRITE,
  UD = 6,
  GP = 13,
  PF = 14,
  DONE = VMX_NONE
};

enum {
  ES_16 = 0x0800, /* fields, by width */
  EFER_64 = 0x2806,
  EFER_HIGH = 0x2807,
  AR_32 = 0x4814,
  QUALIFICATION = 0x6400,
  RIP_NATURAL = 0x681e
};

static const uint64_t filled = UINT64_C(0x5a5a5a5a5a5a5a5a);
static const uint64_t known = UINT64_C(0x8877665544332211);

static luna_shadow shadow;
static soft_system sys;

static uint32_t place_of(uint32_t field) {
  uint32_t place = 0;
  CHECK(luna_shadow_place(field, &place));
  return place;
}

static uint64_t *stored(uint32_t field) {
  return &shadow.values[place_of(field)];
}

static void allow(uint32_t field, unsigned half, uint8_t access) {
  shadow.access[place_of(field)][half] = access;
}

static void open_with(system_mode mode) {
  memset(&shadow, 0, sizeof shadow);
  sys = system_open(mode);
  vmx_set(&sys, (luna_controls){.secondary = SHADOWING, .exceptions = 1 << UD | 1 << GP | 1 << PF});
  sys.sregs.cr4 |= VMXE;
  CHECK_EQ(guest_call(sys.guest.cpu, LUNA_KVM_SET_SHADOW, &shadow), 0);
}

/* The instruction, all arithmetic flags set before it. RBX is AT unless it says something else. */
static vmx_end run(const struct kvm_sregs *sregs, struct kvm_regs regs, const char *code,
                   size_t size) {
  regs.rbx = regs.rbx ? regs.rbx : AT;
  regs.rflags = SYSTEM_ALL | ARITHMETIC;
  system_put(&sys, AT, filled, 8);
  return vmx_run(&sys, sregs, regs, code, size);
}

/* ---- What they move ---- */

typedef struct move {
  const char *name;
  const char *code;
  unsigned size;
  system_mode mode;
  uint32_t field;
  uint64_t before; /* of VMREAD the field's value, of VMWRITE the operand's */
  uint64_t after;  /* the other's */
} move;

#define MOVE(name, code, ...)                                                                      \
  { name, code, sizeof(code) - 1, __VA_ARGS__ }
#define READ_EDI "\x0f\x78\xf7"    /* vmread edi, esi: the field is in ESI */
#define READ_MEMORY "\x0f\x78\x33" /* vmread [ebx], esi */
#define READ_MEMORY_16 "\x67\x0f\x78\x33"
#define WRITE_EDI "\x0f\x79\xf7"    /* vmwrite esi, edi: the same */
#define WRITE_MEMORY "\x0f\x79\x33" /* vmwrite esi, [ebx] */

/* What an operand has beyond a field is 0; 32-bit code does not see the rest of a longer one. */
static const move reads[] = {
    MOVE("16 bits", READ_EDI, SYSTEM_64, ES_16, 0x1234, 0x1234),
    MOVE("64 bits", READ_EDI, SYSTEM_64, EFER_64, known, known),
    MOVE("the upper half", READ_EDI, SYSTEM_64, EFER_HIGH, known, 0x88776655),
    MOVE("32 bits", READ_EDI, SYSTEM_64, AR_32, 0xffffffff, 0xffffffff),
    MOVE("natural width", READ_EDI, SYSTEM_64, RIP_NATURAL, known, known),
    MOVE("r9 by r10", "\x45\x0f\x78\xd1", SYSTEM_64, EFER_64, known, known),
    MOVE("64 bits, to memory", READ_MEMORY, SYSTEM_64, EFER_64, known, known),
    MOVE("16 bits, to memory", READ_MEMORY, SYSTEM_64, ES_16, 0x1234, 0x1234),
    MOVE("16 bits in 32-bit code", READ_EDI, SYSTEM_32, ES_16, 0x1234, 0x1234),
    MOVE("64 bits in 32-bit code", READ_EDI, SYSTEM_32, EFER_64, known, 0x44332211),
    MOVE("the upper half in 32-bit code", READ_EDI, SYSTEM_32, EFER_HIGH, known, 0x88776655),
    MOVE("natural width in 32-bit code", READ_EDI, SYSTEM_32, RIP_NATURAL, known, 0x44332211),
    MOVE("32-bit code, to memory", READ_MEMORY, SYSTEM_32, EFER_64, known, 0x5a5a5a5a44332211),
    MOVE("16-bit code", READ_EDI, SYSTEM_16, RIP_NATURAL, known, 0x44332211),
    MOVE("16-bit code, to memory", READ_MEMORY_16, SYSTEM_16, AR_32, 0x93, 0x5a5a5a5a00000093),
};

static void vmread_gives_a_field_by_its_width(void) {
  for (size_t i = 0; i < sizeof reads / sizeof *reads; i++) {
    const move *m = &reads[i];
    const bool memory = m->code[m->size - 1] == '\x33', extended = m->code[0] == '\x45';
    test_note("%s", m->name);
    open_with(m->mode);
    *stored(m->field) = m->before;
    allow(m->field, m->field & 1, READ);
    const struct kvm_regs regs = {.rsi = m->field, .r10 = m->field, .rdi = filled, .r9 = filled};
    vmx_end end = run(&sys.sregs, regs, m->code, m->size);
    const uint64_t in_memory = system_get(&sys, AT, 8);
    CHECK_EQ(end.reason, DONE);
    CHECK_EQ(memory ? in_memory : extended ? end.regs.r9 : end.regs.rdi, m->after);
    CHECK_EQ(memory ? end.regs.rdi : in_memory, filled);
    CHECK_EQ(end.regs.rflags & ARITHMETIC, 0);
    CHECK_EQ(*stored(m->field), m->before);
    system_close(&sys);
  }
}

/* What a field has beyond an operand becomes 0; the upper half leaves the lower one alone. */
static const move writes[] = {
    MOVE("16 bits", WRITE_EDI, SYSTEM_64, ES_16, known, 0x2211),
    MOVE("64 bits", WRITE_EDI, SYSTEM_64, EFER_64, known, known),
    MOVE("the upper half", WRITE_EDI, SYSTEM_64, EFER_HIGH, known, 0x443322115a5a5a5a),
    MOVE("32 bits", WRITE_EDI, SYSTEM_64, AR_32, known, 0x44332211),
    MOVE("natural width", WRITE_EDI, SYSTEM_64, RIP_NATURAL, known, known),
    MOVE("what tells of exits", WRITE_EDI, SYSTEM_64, QUALIFICATION, known, known),
    MOVE("from memory", WRITE_MEMORY, SYSTEM_64, EFER_64, filled, filled),
    MOVE("16 bits from memory", WRITE_MEMORY, SYSTEM_64, ES_16, filled, 0x5a5a),
    MOVE("64 bits in 32-bit code", WRITE_EDI, SYSTEM_32, EFER_64, known, 0x44332211),
    MOVE("the upper half in 32-bit code", WRITE_EDI, SYSTEM_32, EFER_HIGH, known,
         0x443322115a5a5a5a),
    MOVE("natural width in 32-bit code", WRITE_EDI, SYSTEM_32, RIP_NATURAL, known, 0x44332211),
    MOVE("from memory in 32-bit code", WRITE_MEMORY, SYSTEM_32, EFER_64, filled, 0x5a5a5a5a),
    MOVE("16-bit code", WRITE_EDI, SYSTEM_16, EFER_64, known, 0x44332211),
};

static void vmwrite_takes_a_field_by_its_width(void) {
  for (size_t i = 0; i < sizeof writes / sizeof *writes; i++) {
    const move *m = &writes[i];
    test_note("%s", m->name);
    open_with(m->mode);
    *stored(m->field) = filled;
    allow(m->field, m->field & 1, WRITE);
    const struct kvm_regs regs = {.rsi = m->field, .rdi = m->before};
    vmx_end end = run(&sys.sregs, regs, m->code, m->size);
    CHECK_EQ(end.reason, DONE);
    CHECK_EQ(*stored(m->field), m->after);
    CHECK_EQ(end.regs.rdi, m->before);
    CHECK_EQ(end.regs.rflags & ARITHMETIC, 0);
    system_close(&sys);
  }
}

/* One after the other, and back: nothing of them is lost between two instructions of a block. */
static void what_was_written_is_read(void) {
  open_with(SYSTEM_64);
  allow(EFER_64, FULL, READ | WRITE);
  const struct kvm_regs regs = {.rsi = EFER_64, .rdi = known};
  /* vmwrite rsi, rdi; jz 1f; xor edi, edi; vmread rdi, rsi; jc 1f; inc rdi; 1: */
  vmx_end end =
      run(&sys.sregs, regs, WRITE_EDI "\x74\x0a\x31\xff" READ_EDI "\x72\x03\x48\xff\xc7", 15);
  CHECK_EQ(end.reason, DONE);
  CHECK_EQ(end.regs.rdi, known + 1);
  system_close(&sys);
}

/* ---- When they do not ---- */

static void check_untouched(const vmx_end *end, uint64_t field) {
  CHECK_EQ(end->regs.rip, GUEST_CODE);
  CHECK_EQ(end->regs.rdi, known);
  CHECK_EQ(end->regs.rflags & ARITHMETIC, ARITHMETIC);
  CHECK_EQ(system_get(&sys, AT, 8), filled);
  CHECK_EQ(*stored((uint32_t)field & 0x7fff), filled);
}

typedef struct guard {
  const char *name;
  const char *code;
  system_mode mode;
  uint64_t field;    /* as the register has it */
  uint32_t with;     /* secondary controls */
  uint8_t access[2]; /* of the field and of its upper half */
  uint32_t reason;
} guard;

static const guard guards[] = {
    {"no access", READ_EDI, SYSTEM_64, EFER_64, SHADOWING, {0, READ | WRITE}, 23},
    {"no access to the upper half", READ_EDI, SYSTEM_64, EFER_HIGH, SHADOWING, {READ, WRITE}, 23},
    {"one that may be written", READ_EDI, SYSTEM_64, EFER_64, SHADOWING, {WRITE, READ}, 23},
    {"one that may be read", WRITE_EDI, SYSTEM_64, EFER_64, SHADOWING, {READ, WRITE}, 25},
    {"the control is off", READ_EDI, SYSTEM_64, EFER_64, ~(uint32_t)SHADOWING, {READ, READ}, 23},
    {"the control is off, VMWRITE", WRITE_EDI, SYSTEM_64, EFER_64, 0, {WRITE, WRITE}, 25},
    {"bit 15", READ_EDI, SYSTEM_64, 0x8000 | EFER_64, SHADOWING, {READ, READ}, 23},
    {"bit 32", READ_EDI, SYSTEM_64, EFER_64 | UINT64_C(1) << 32, SHADOWING, {READ, READ}, 23},
    {"bit 63", WRITE_EDI, SYSTEM_64, EFER_64 | UINT64_C(1) << 63, SHADOWING, {WRITE, WRITE}, 25},
    {"bit 31 in 32-bit code", READ_EDI, SYSTEM_32, 0x80000000 | EFER_64, SHADOWING, {READ}, 23},
};

static void what_is_not_allowed_exits(void) {
  for (size_t i = 0; i < sizeof guards / sizeof *guards; i++) {
    const guard *g = &guards[i];
    test_note("%s", g->name);
    open_with(g->mode);
    vmx_set(&sys, (luna_controls){.secondary = g->with});
    *stored(EFER_64) = filled;
    allow(EFER_64, FULL, g->access[0]);
    allow(EFER_64, HIGH, g->access[1]);
    vmx_end end = run(&sys.sregs, (struct kvm_regs){.rsi = g->field, .rdi = known}, g->code, 3);
    CHECK_EQ(end.reason, g->reason);
    CHECK_EQ(end.exit.length, 3);
    CHECK_EQ(end.exit.instruction, 7 << 3 | 1 << 10 | 6 << 28); /* EDI, and ESI has the field */
    check_untouched(&end, EFER_64);
    system_close(&sys);
  }
}

/* No field at all: a reserved bit, halves of fields that have none, and indices beyond Intel's. */
static void what_is_no_field_exits(void) {
  static const uint32_t none[] = {0x1000, 0x3806, 0x0801, 0x4815, 0x681f, 0x0880, 0x2bfe};
  open_with(SYSTEM_64);
  memset(shadow.access, READ | WRITE, sizeof shadow.access);
  for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
    uint32_t place;
    test_note("field 0x%x", none[i]);
    CHECK(!luna_shadow_place(none[i], &place));
    vmx_end end = run(&sys.sregs, (struct kvm_regs){.rsi = none[i]}, READ_EDI, 3);
    CHECK_EQ(end.reason, 23);
    end = run(&sys.sregs, (struct kvm_regs){.rsi = none[i]}, WRITE_EDI, 3);
    CHECK_EQ(end.reason, 25);
  }
  system_close(&sys);
}

/* Without a shadow VMCS, and after it was taken away. */
static void there_may_be_none(void) {
  open_with(SYSTEM_64);
  allow(EFER_64, FULL, READ);
  CHECK_EQ(run(&sys.sregs, (struct kvm_regs){.rsi = EFER_64}, READ_EDI, 3).reason, DONE);
  CHECK_EQ(guest_call(sys.guest.cpu, LUNA_KVM_SET_SHADOW, NULL), 0);
  CHECK_EQ(run(&sys.sregs, (struct kvm_regs){.rsi = EFER_64}, READ_EDI, 3).reason, 23);
  CHECK_EQ(
      guest_call(sys.guest.kvm, KVM_CHECK_EXTENSION, (void *)(uintptr_t)LUNA_KVM_CAP_SHADOW_VMCS),
      1);
  system_close(&sys);
}

/* ---- Faults ---- */

typedef struct fault {
  const char *name;
  const char *code;
  uint64_t rbx;
  unsigned ring;
  uint32_t vector;
  uint32_t error;
} fault;

/* Of fields that may be read and written. 4 MiB is where memory ends. */
static const fault faults[] = {
    {"vmread in ring 3", READ_EDI, AT, 3, GP, 0},
    {"vmwrite in ring 3", WRITE_EDI, AT, 3, GP, 0},
    {"vmread in ring 3 before its page", READ_MEMORY, 0x400000, 3, GP, 0},
    {"vmread to no page", READ_MEMORY, 0x400000, 0, PF, 2},
    {"vmwrite of no page", WRITE_MEMORY, 0x400000, 0, PF, 0},
    {"vmread over the end", READ_MEMORY, 0x3ffffc, 0, PF, 2},
    {"vmwrite over the end", WRITE_MEMORY, 0x3ffffc, 0, PF, 0},
    {"vmread to no address", READ_MEMORY, UINT64_C(1) << 63, 0, GP, 0},
    {"vmwrite of no address", WRITE_MEMORY, UINT64_C(1) << 63, 0, GP, 0},
};

static void check_fault(const vmx_end *end, uint32_t vector, uint32_t error) {
  CHECK_EQ(end->reason, 0);
  CHECK_EQ(end->exit.interruption & 0x800007ff, 0x80000300 | vector);
  CHECK_EQ(end->exit.interruption_error, error);
  check_untouched(end, EFER_64);
}

static void faults_come_before_anything_moves(void) {
  for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
    const fault *f = &faults[i];
    test_note("%s", f->name);
    open_with(SYSTEM_64);
    *stored(EFER_64) = filled;
    allow(EFER_64, FULL, READ | WRITE);
    system_enter_ring(&sys, &sys.sregs, f->ring);
    const struct kvm_regs regs = {.rsi = EFER_64, .rdi = known, .rbx = f->rbx};
    vmx_end end = run(&sys.sregs, regs, f->code, 3);
    check_fault(&end, f->vector, f->error);
    if (f->vector == PF) {
      CHECK_EQ(end.exit.qualification, 0x400000);
    }
    system_close(&sys);
  }
}

static void a_segment_has_to_hold_the_operand(void) {
  static const char *const codes[] = {READ_MEMORY, WRITE_MEMORY};
  for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
    open_with(SYSTEM_32);
    *stored(EFER_64) = filled;
    allow(EFER_64, FULL, READ | WRITE);
    sys.sregs.ds.limit = AT + 2; /* four bytes in 32-bit code */
    sys.sregs.ds.g = 0;
    vmx_end end = run(&sys.sregs, (struct kvm_regs){.rsi = EFER_64, .rdi = known}, codes[i], 3);
    check_fault(&end, GP, 0);
    system_close(&sys);
  }
}

/* Where there is no VMX operation: the instruction is none, whatever the field. */
static void there_are_modes_without_them(void) {
  static const char *const names[] = {"real mode", "VM86", "32-bit code of long mode", "no VMXE"};
  static const char *const codes[] = {READ_EDI, WRITE_EDI};
  for (unsigned i = 0; i < 8; i++) {
    const unsigned which = i % 4;
    test_note("%s", names[which]);
    open_with(which < 2 ? SYSTEM_16 : SYSTEM_64);
    *stored(EFER_64) = filled;
    allow(EFER_64, FULL, READ | WRITE);
    struct kvm_sregs sregs = sys.sregs;
    struct kvm_regs regs = {.rsi = EFER_64, .rdi = known, .rbx = AT};
    sregs.cr0 &= which == 0 ? ~UINT64_C(1) : ~UINT64_C(0);
    sregs.cs.l = which == 3;
    sregs.cs.db = which == 2;
    sregs.cr4 &= which == 3 ? ~(uint64_t)VMXE : ~UINT64_C(0);
    if (which == 1) {
      system_enter_ring(&sys, &sregs, 3);
      sregs.cs = sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss =
          (struct kvm_segment){.limit = 0xffff, .type = 3, .present = 1, .dpl = 3, .s = 1};
    }
    memcpy(sys.guest.ram + GUEST_CODE, codes[i / 4], 3);
    system_put(&sys, AT, filled, 8);
    regs.rflags = SYSTEM_ALL | ARITHMETIC | (which == 1 ? 1 << 17 : 0);
    system_begin(&sys, &sregs, regs);
    vmx_end end = vmx_go(&sys);
    check_fault(&end, UD, 0);
    system_close(&sys);
  }
}

int main(void) {
  RUN(vmread_gives_a_field_by_its_width);
  RUN(vmwrite_takes_a_field_by_its_width);
  RUN(what_was_written_is_read);
  RUN(what_is_not_allowed_exits);
  RUN(what_is_no_field_exits);
  RUN(there_may_be_none);
  RUN(faults_come_before_anything_moves);
  RUN(a_segment_has_to_hold_the_operand);
  RUN(there_are_modes_without_them);
  return test_end();
}
