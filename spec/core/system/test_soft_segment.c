/* SPDX-License-Identifier: MIT
 * Loads of segment registers on the software CPU: every outcome that the manual names for MOV, POP,
 * LLDT and LTR (SDM volume 2; volume 3, 5.7 and 5.10), and what LAR, LSL, VERR and VERW say. */
#include "fixture/soft_system.h"

enum {
  GP = 13,
  NP = 11,
  SS = 12,
  OWN = SYSTEM_FREE, /* where a row's descriptor is */
  OWN_LOCAL = 0x0c,  /* or in the LDT */
  ALL_MODES = 7,     /* bits of system_mode */
  NOT_64 = 3,
  ONLY_64 = 4
};

typedef struct row {
  unsigned selector;
  unsigned access; /* byte 5 of its descriptor; 0 for none */
  unsigned modes;
  unsigned ring;
  int vector;
  unsigned error;
} row;

static void describe(const soft_system *system, const row *asked, unsigned flags) {
  if (asked->selector >> 3 == OWN >> 3 || asked->selector >> 3 == OWN_LOCAL >> 3) {
    unsigned at = asked->selector & 4 ? OWN_LOCAL : OWN;
    system_describe(system, at, 0, 0xfffff, asked->access, flags);
    system_put(system, SYSTEM_GDT + OWN + 8, 0, 8);
  }
}

/* Every row in each of its modes, by an instruction. */
static void check(const row *rows, unsigned count, const char *code, size_t size) {
  for (system_mode mode = SYSTEM_16; mode <= SYSTEM_64; mode++) {
    soft_system system = system_open(mode);
    system_conform(&system);
    for (unsigned i = 0; i < count; i++) {
      if (!(rows[i].modes >> mode & 1)) {
        continue;
      }
      test_note("row %u, mode %d, byte 0x%x", i, (int)mode, (uint8_t)code[1]);
      describe(&system, &rows[i], 0xc);
      struct kvm_regs regs = {.rax = rows[i].selector};
      system_end end = system_run_in(&system, rows[i].ring, regs, code, size);
      SYSTEM_CHECK(end, rows[i].vector, rows[i].error);
      unsigned table = rows[i].selector & 4 ? SYSTEM_LDT : SYSTEM_GDT;
      bool loads = end.vector == SYSTEM_END && rows[i].access & 0x10;
      if (loads) { /* its accessed bit */
        uint64_t now = system_get(&system, table + (rows[i].selector & 0xfff8) + 5, 1);
        CHECK_EQ(now, rows[i].access | 1);
      }
    }
    system_close(&system);
  }
}
#define EACH(rows, code) check(rows, sizeof(rows) / sizeof *(rows), code, sizeof(code) - 1)

/* ---- DS and its like ---- */

static const row data_rows[] = {
    /* Null. */
    {0, 0, ALL_MODES, 0, SYSTEM_END, 0},
    {3, 0, ALL_MODES, 0, SYSTEM_END, 0},
    {1, 0, ALL_MODES, 3, SYSTEM_END, 0},
    /* Data by DPL, RPL and CPL. */
    {OWN, 0x92, ALL_MODES, 0, SYSTEM_END, 0},
    {OWN | 1, 0x92, ALL_MODES, 0, GP, OWN},
    {OWN | 3, 0x92, ALL_MODES, 0, GP, OWN},
    {OWN | 1, 0xb2, ALL_MODES, 0, SYSTEM_END, 0},
    {OWN | 2, 0xb2, ALL_MODES, 0, GP, OWN},
    {OWN | 3, 0xf2, ALL_MODES, 0, SYSTEM_END, 0},
    {OWN, 0xf2, ALL_MODES, 0, SYSTEM_END, 0},
    {OWN, 0x92, ALL_MODES, 3, GP, OWN},
    {OWN, 0xd2, ALL_MODES, 3, GP, OWN},
    {OWN, 0xf2, ALL_MODES, 3, SYSTEM_END, 0},
    {OWN | 3, 0xf2, ALL_MODES, 3, SYSTEM_END, 0},
    /* Kinds of data: read-only, expanding down. */
    {OWN, 0xf0, ALL_MODES, 3, SYSTEM_END, 0},
    {OWN, 0xf6, ALL_MODES, 3, SYSTEM_END, 0},
    /* Code: for execution alone, readable, conforming. */
    {OWN, 0x98, ALL_MODES, 0, GP, OWN},
    {OWN, 0x9a, ALL_MODES, 0, SYSTEM_END, 0},
    {OWN | 3, 0x9a, ALL_MODES, 0, GP, OWN},
    {OWN | 3, 0x9a, ALL_MODES, 3, GP, OWN},
    {OWN, 0x9c, ALL_MODES, 0, GP, OWN},
    {OWN | 3, 0x9c, ALL_MODES, 3, GP, OWN},
    {OWN | 3, 0x9e, ALL_MODES, 0, SYSTEM_END, 0},
    {OWN | 3, 0x9e, ALL_MODES, 3, SYSTEM_END, 0},
    /* Not present, after all else. */
    {OWN, 0x12, ALL_MODES, 0, NP, OWN},
    {OWN, 0x1e, ALL_MODES, 3, NP, OWN},
    {OWN | 3, 0x12, ALL_MODES, 0, GP, OWN},
    {OWN, 0x18, ALL_MODES, 0, GP, OWN},
    {OWN, 0x02, ALL_MODES, 0, GP, OWN},
    /* Systems' own. */
    {OWN, 0x82, ALL_MODES, 0, GP, OWN},
    {OWN, 0x89, ALL_MODES, 0, GP, OWN},
    {OWN, 0x8c, ALL_MODES, 0, GP, OWN},
    {OWN, 0x8e, ALL_MODES, 0, GP, OWN},
    {OWN, 0x85, ALL_MODES, 0, GP, OWN},
    /* Outside the table. */
    {0x800, 0, ALL_MODES, 0, GP, 0x800},
    {0xfffb, 0, ALL_MODES, 0, GP, 0xfff8},
    {0x104, 0, ALL_MODES, 0, GP, 0x104},
    /* The LDT. */
    {OWN_LOCAL, 0x92, ALL_MODES, 0, SYSTEM_END, 0},
    {OWN_LOCAL | 3, 0x92, ALL_MODES, 0, GP, OWN_LOCAL},
    {OWN_LOCAL | 3, 0xf2, ALL_MODES, 3, SYSTEM_END, 0},
    {OWN_LOCAL, 0x12, ALL_MODES, 0, NP, OWN_LOCAL},
};

static void data_segments(void) {
  EACH(data_rows, "\x8e\xd8");     /* mov ds, ax */
  EACH(data_rows, "\x8e\xc0");     /* es */
  EACH(data_rows, "\x8e\xe0");     /* fs */
  EACH(data_rows, "\x50\x0f\xa9"); /* push; pop gs */
}

/* ---- SS ---- */

static const row stack_rows[] = {
    {0, 0, NOT_64, 0, GP, 0},
    {3, 0, NOT_64, 3, GP, 0},
    {0, 0, ONLY_64, 0, SYSTEM_END, 0},
    {1, 0, ONLY_64, 0, GP, 0},
    {3, 0, ONLY_64, 0, GP, 0},
    {3, 0, ONLY_64, 3, GP, 0},
    {0, 0, ONLY_64, 3, GP, 0},
    {OWN, 0x92, ALL_MODES, 0, SYSTEM_END, 0},
    {OWN, 0x96, ALL_MODES, 0, SYSTEM_END, 0},
    {OWN | 1, 0x92, ALL_MODES, 0, GP, OWN},
    {OWN | 3, 0xf2, ALL_MODES, 0, GP, OWN},
    {OWN, 0xf2, ALL_MODES, 0, GP, OWN},
    {OWN | 3, 0xf2, ALL_MODES, 3, SYSTEM_END, 0},
    {OWN, 0xf2, ALL_MODES, 3, GP, OWN},
    {OWN | 3, 0x92, ALL_MODES, 3, GP, OWN},
    {OWN, 0x90, ALL_MODES, 0, GP, OWN},
    {OWN, 0x94, ALL_MODES, 0, GP, OWN},
    {OWN, 0x98, ALL_MODES, 0, GP, OWN},
    {OWN, 0x9a, ALL_MODES, 0, GP, OWN},
    {OWN, 0x9e, ALL_MODES, 0, GP, OWN},
    {OWN, 0x12, ALL_MODES, 0, SS, OWN},
    {OWN | 3, 0x72, ALL_MODES, 3, SS, OWN},
    {OWN | 1, 0x12, ALL_MODES, 0, GP, OWN},
    {OWN, 0x72, ALL_MODES, 0, GP, OWN},
    {OWN, 0x82, ALL_MODES, 0, GP, OWN},
    {0x800, 0, ALL_MODES, 0, GP, 0x800},
    {OWN_LOCAL, 0x92, ALL_MODES, 0, SYSTEM_END, 0},
    {OWN_LOCAL, 0x12, ALL_MODES, 0, SS, OWN_LOCAL},
};

static void stack_segments(void) {
  EACH(stack_rows, "\x8e\xd0"); /* mov ss, ax */
}

/* mov ds, eax with a selector of the LDT where there is no LDT */
static void without_an_ldt_its_selectors_are_outside(void) {
  soft_system system = system_open(SYSTEM_32);
  struct kvm_sregs sregs = system.sregs;
  system_describe(&system, OWN_LOCAL, 0, 0xfffff, 0x92, 0xc);
  sregs.ldt.unusable = 1;
  struct kvm_regs regs = {.rax = OWN_LOCAL};
  SYSTEM_CHECK(system_run(&system, &sregs, regs, "\x8e\xd8", 2), GP, OWN_LOCAL);
  system_close(&system);
}

/* CS and the registers that there are not: #UD. */
static void some_registers_cannot_be_loaded(void) {
  static const char *const codes[] = {"\x8e\xc8", "\x8e\xf0", "\x8e\xf8"};
  soft_system system = system_open(SYSTEM_32);
  for (unsigned i = 0; i < 3; i++) {
    struct kvm_regs regs = {.rax = SYSTEM_DATA_0};
    SYSTEM_CHECK(system_run_in(&system, 0, regs, codes[i], 2), 6, 0);
  }
  system_close(&system);
}

/* ---- LLDT and LTR ---- */

static const row ldt_rows[] = {
    {0, 0, ALL_MODES, 0, SYSTEM_END, 0},
    {3, 0, ALL_MODES, 0, SYSTEM_END, 0},
    {OWN, 0x82, ALL_MODES, 0, SYSTEM_END, 0},
    {OWN | 3, 0x82, ALL_MODES, 0, SYSTEM_END, 0},
    {OWN, 0xe2, ALL_MODES, 0, SYSTEM_END, 0},
    {OWN, 0x82, ALL_MODES, 3, GP, 0},
    {0, 0, ALL_MODES, 3, GP, 0},
    {OWN, 0x02, ALL_MODES, 0, NP, OWN},
    {OWN, 0x89, ALL_MODES, 0, GP, OWN},
    {OWN, 0x8c, ALL_MODES, 0, GP, OWN},
    {OWN, 0x92, ALL_MODES, 0, GP, OWN},
    {OWN_LOCAL, 0x82, ALL_MODES, 0, GP, OWN_LOCAL},
    {0x800, 0, ALL_MODES, 0, GP, 0x800},
};

static const row task_rows[] = {
    {0, 0, ALL_MODES, 0, GP, 0},
    {3, 0, ALL_MODES, 0, GP, 0},
    {OWN, 0x89, ALL_MODES, 0, SYSTEM_END, 0},
    {OWN | 3, 0xe9, ALL_MODES, 0, SYSTEM_END, 0},
    {OWN, 0x81, NOT_64, 0, SYSTEM_END, 0},
    {OWN, 0x81, ONLY_64, 0, GP, OWN},
    {OWN, 0x8b, ALL_MODES, 0, GP, OWN},
    {OWN, 0x83, ALL_MODES, 0, GP, OWN},
    {OWN, 0x09, ALL_MODES, 0, NP, OWN},
    {OWN, 0x0b, ALL_MODES, 0, GP, OWN},
    {OWN, 0x82, ALL_MODES, 0, GP, OWN},
    {OWN, 0x9a, ALL_MODES, 0, GP, OWN},
    {OWN_LOCAL, 0x89, ALL_MODES, 0, GP, OWN_LOCAL},
    {0x800, 0, ALL_MODES, 0, GP, 0x800},
    {OWN, 0x89, ALL_MODES, 3, GP, 0},
};

static void ldt_and_task_registers(void) {
  EACH(ldt_rows, "\x0f\x00\xd0");  /* lldt ax */
  EACH(task_rows, "\x0f\x00\xd8"); /* ltr ax */
}

/* Descriptors of 16 bytes: bits 63:32 of the base, which has to be canonical; the type of the upper
 * half is 0. */
static void long_mode_s_system_descriptors(void) {
  static const struct {
    uint64_t high;
    int vector;
  } rows[] = {{0, SYSTEM_END},     {0x7fff, SYSTEM_END},      {0xffff8000, SYSTEM_END},
              {0x8000, GP},        {0x100000000, SYSTEM_END}, {0x10000000000, GP},
              {0x1f0000000000, GP}};
  soft_system system = system_open(SYSTEM_64);
  for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
    for (unsigned ltr = 0; ltr < 2; ltr++) {
      test_note("row %u, ltr %u", i, ltr);
      system_describe(&system, OWN, 0x1000, 0xff, ltr ? 0x89 : 0x82, 0);
      system_put(&system, SYSTEM_GDT + OWN + 8, rows[i].high, 8);
      struct kvm_regs regs = {.rax = OWN};
      system_end end = system_run_in(&system, 0, regs, ltr ? "\x0f\x00\xd8" : "\x0f\x00\xd0", 3);
      SYSTEM_CHECK(end, rows[i].vector, rows[i].vector == GP ? OWN : 0);
      if (end.vector == SYSTEM_END) {
        CHECK_EQ(ltr ? end.sregs.tr.base : end.sregs.ldt.base, (rows[i].high << 32) + 0x1000);
        CHECK_EQ(system_get(&system, SYSTEM_GDT + OWN + 5, 1), ltr ? 0x8b : 0x82);
      }
    }
  }
  system_close(&system);
}

/* A descriptor whose second half the table does not have. */
static void long_mode_s_descriptors_lie_within_the_table(void) {
  static const char *const codes[] = {"\x0f\x00\xd0", "\x0f\x00\xd8"};
  soft_system system = system_open(SYSTEM_64);
  for (unsigned ltr = 0; ltr < 2; ltr++) {
    system_describe(&system, 0x7f8, 0x1000, 0xff, ltr ? 0x89 : 0x82, 0);
    struct kvm_regs regs = {.rax = 0x7f8};
    SYSTEM_CHECK(system_run_in(&system, 0, regs, codes[ltr], 3), GP, 0x7f8);
  }
  system_close(&system);
}

/* The IDT of real mode is at SYSTEM_DATA. */
static void be_real(const soft_system *system, struct kvm_sregs *sregs) {
  struct kvm_segment *all[] = {&sregs->cs, &sregs->ds, &sregs->es,
                               &sregs->fs, &sregs->gs, &sregs->ss};
  sregs->cr0 &= ~UINT64_C(1);
  for (unsigned i = 0; i < 6; i++) {
    *all[i] = (struct kvm_segment){.limit = 0xffff, .type = 3, .s = 1, .present = 1};
  }
  sregs->idt = (struct kvm_dtable){.base = SYSTEM_DATA, .limit = 0x3ff};
  system_put(system, SYSTEM_DATA + 6 * 4, system_handler(6), 4);
}

/* LLDT, LTR, SLDT, STR, LAR and VERR: #UD in real mode and VM86. */
static void real_mode_and_vm86_have_none_of_it(void) {
  static const char *const codes[] = {"\x0f\x00\xd0", "\x0f\x00\xd8", "\x0f\x00\xc0",
                                      "\x0f\x00\xc8", "\x0f\x02\xc0", "\x0f\x00\xe0"};
  soft_system system = system_open(SYSTEM_32);
  for (unsigned i = 0; i < sizeof codes / sizeof *codes; i++) {
    for (unsigned vm86 = 0; vm86 < 2; vm86++) {
      test_note("code %u, VM86 %u", i, vm86);
      struct kvm_sregs sregs = system.sregs;
      be_real(&system, &sregs);
      if (vm86) {
        sregs.cr0 |= 1;
        sregs.idt = system.sregs.idt;
      }
      struct kvm_regs regs = {.rax = OWN, .rflags = SYSTEM_ALL | (uint64_t)vm86 << 17};
      CHECK_EQ(system_run(&system, &sregs, regs, codes[i], 3).vector, 6);
    }
  }
  system_close(&system);
}

/* ---- Questions ---- */

static void questions_of_descriptors(void) {
  static const struct {
    unsigned selector, access, ring;
    /* bits: LAR, LSL, VERR, VERW say yes; in long mode as well */
    unsigned yes, yes_64;
  } rows[] = {
      {0, 0, 0, 0, 0},          {OWN, 0x92, 0, 15, 15}, {OWN, 0x90, 0, 7, 7},
      {OWN, 0x12, 0, 15, 15}, /* present or not */
      {OWN | 3, 0x92, 0, 0, 0}, {OWN, 0x92, 3, 0, 0},   {OWN | 3, 0xf2, 3, 15, 15},
      {OWN, 0x98, 0, 3, 3},     {OWN, 0x9a, 0, 7, 7},   {OWN | 3, 0x9e, 3, 7, 7},
      {OWN | 3, 0x9c, 3, 3, 3}, {OWN, 0x80, 0, 0, 0},   {OWN, 0x81, 0, 3, 0},
      {OWN, 0x82, 0, 3, 3},     {OWN, 0x83, 0, 3, 0},   {OWN, 0x84, 0, 1, 0},
      {OWN, 0x85, 0, 1, 0},     {OWN, 0x86, 0, 0, 0},   {OWN, 0x87, 0, 0, 0},
      {OWN, 0x88, 0, 0, 0},     {OWN, 0x89, 0, 3, 3},   {OWN, 0x8a, 0, 0, 0},
      {OWN, 0x8b, 0, 3, 3},     {OWN, 0x8c, 0, 1, 1},   {OWN, 0x8d, 0, 0, 0},
      {OWN, 0x8e, 0, 0, 0},     {OWN, 0x8f, 0, 0, 0},   {OWN, 0x89, 3, 0, 0},
      {0x800, 0, 0, 0, 0},
  };
  static const char *const codes[] = {"\x0f\x02\xd8", "\x0f\x03\xd8", "\x0f\x00\xe0",
                                      "\x0f\x00\xe8"};
  for (system_mode mode = SYSTEM_32; mode <= SYSTEM_64; mode++) {
    soft_system system = system_open(mode);
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
      row as_row = {.selector = rows[i].selector, .access = rows[i].access};
      describe(&system, &as_row, 0xc);
      for (unsigned k = 0; k < 4; k++) {
        test_note("mode %d, row %u, question %u", (int)mode, i, k);
        struct kvm_regs regs = {.rax = rows[i].selector, .rbx = 77};
        system_end end = system_run_in(&system, rows[i].ring, regs, codes[k], 3);
        bool yes = (mode == SYSTEM_64 ? rows[i].yes_64 : rows[i].yes) >> k & 1;
        SYSTEM_CHECK(end, SYSTEM_END, 0);
        CHECK_EQ(end.regs.rflags >> 6 & 1, yes);
        uint64_t told = k == 0 ? rows[i].access << 8 | 0xc00000 : 0xffffffff;
        told = yes && k < 2 ? told : 77;
        CHECK_EQ(k == 0 ? end.regs.rbx & 0xfffffffffff0ffff : end.regs.rbx, told);
      }
    }
    system_close(&system);
  }
}

int main(void) {
  RUN(data_segments);
  RUN(stack_segments);
  RUN(without_an_ldt_its_selectors_are_outside);
  RUN(some_registers_cannot_be_loaded);
  RUN(ldt_and_task_registers);
  RUN(long_mode_s_system_descriptors);
  RUN(long_mode_s_descriptors_lie_within_the_table);
  RUN(real_mode_and_vm86_have_none_of_it);
  RUN(questions_of_descriptors);
  return test_end();
}
