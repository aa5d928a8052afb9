/* SPDX-License-Identifier: MIT
 * Control registers, EFER and INVPCID on the software CPU: what they take, and that the TLB forgets
 * what it has to (SDM volume 3, 2.5, 4.4.1 and 4.10). */
#include "fixture/soft_system.h"

enum {
  UD = 6,
  GP = 13,
  PF = 14,
  END = SYSTEM_END,
  POINTERS = GUEST_TABLES + 0x5000, /* PAE's */
  PAGE = 2 << 20,                   /* the page that a test changes */
  ENTRY = GUEST_TABLES + 0x2008,    /* its entry */
  PAE = 1 << 5,
  PGE = 1 << 7,
  LA57 = 1 << 12,
  PCIDE = 1 << 17,
  OSXSAVE = 1 << 18,
  SMEP = 1 << 20,
  SMAP = 1 << 21,
  PKE = 1 << 22,
  WP = 1 << 16,
  CD = 1 << 30,
  FLAG_AC = 1 << 18
};
#define BIT(number) (UINT64_C(1) << (number))
#define PG BIT(31)

/* ---- What each takes ---- */

/* mov crN, rax; the bits are toggled in what the register has. */
static const struct {
  uint64_t toggles;
  uint64_t cr3, cr4; /* set before */
  uint8_t number;
  bool compatible; /* the code is of compatibility mode */
  int vector;
} registers[] = {
    {0, 0, 0, 0, false, END},
    {BIT(32), 0, 0, 0, false, GP},
    {BIT(0), 0, 0, 0, false, GP}, /* PE off, PG on */
    {PG, 0, 0, 0, false, GP},     /* PG off in 64-bit code */
    {PG, 0, 0, 0, true, END},
    {PG, 0, PCIDE, 0, true, GP},
    {BIT(29), 0, 0, 0, false, GP}, /* NW without CD */
    {BIT(29) | CD, 0, 0, 0, false, END},
    {CD | WP | BIT(18), 0, 0, 0, false, END},
    {BIT(48), 0, 0, 3, false, GP},
    {BIT(51), 0, 0, 3, false, GP},
    {BIT(52), 0, 0, 3, false, GP},
    {BIT(63), 0, 0, 3, false, GP},
    {BIT(63), 0, PCIDE, 3, false, END},
    {BIT(63) | 5, 0, PCIDE, 3, false, END},
    {BIT(62), 0, PCIDE, 3, false, GP},
    {0x18, 0, 0, 3, false, END}, /* PCD, PWT */
    {BIT(32), 0, 0, 4, false, GP},
    {BIT(63), 0, 0, 4, false, GP},
    {BIT(13), 0, 0, 4, false, GP}, /* VMXE */
    {BIT(14), 0, 0, 4, false, GP}, /* SMXE */
    {BIT(15), 0, 0, 4, false, GP},
    {BIT(19), 0, 0, 4, false, GP},
    {BIT(23), 0, 0, 4, false, GP}, /* CET */
    {BIT(31), 0, 0, 4, false, GP},
    {PAE, 0, 0, 4, false, GP},
    {LA57, 0, 0, 4, false, GP},
    {PCIDE, 0, 0, 4, false, END},
    {PCIDE, 0x18, 0, 4, false, GP}, /* with bits where the PCID is */
    {PCIDE, 0x18, PCIDE, 4, false, END},
    {PGE | SMAP | PKE, 0, 0, 4, false, END},
    {15, 0, 0, 8, false, END},
    {16, 0, 0, 8, false, GP},
    {0, 0, 0, 1, false, UD},
    {0, 0, 0, 5, false, UD},
    {0, 0, 0, 7, false, UD},
};

static uint64_t value_of(const struct kvm_sregs *sregs, unsigned number) {
  return number == 0   ? sregs->cr0
         : number == 3 ? sregs->cr3
         : number == 4 ? sregs->cr4
                       : sregs->cr8;
}

/* One that is refused changes nothing. */
static void what_control_registers_take(void) {
  soft_system system = system_open(SYSTEM_64);
  for (unsigned i = 0; i < sizeof registers / sizeof *registers; i++) {
    test_note("row %u, CR%u", i, registers[i].number);
    struct kvm_sregs sregs = system.sregs;
    unsigned number = registers[i].number;
    sregs.cr3 |= registers[i].cr3;
    sregs.cr4 |= registers[i].cr4;
    if (registers[i].compatible) {
      sregs.cs.l = 0;
      sregs.cs.db = 1;
    }
    uint64_t before = value_of(&sregs, number), after = before ^ registers[i].toggles;
    uint8_t code[] = {0x44, 0x0f, 0x22, (uint8_t)(0xc0 | (number & 7) << 3)};
    bool high = number == 8;
    struct kvm_regs regs = {.rax = after};
    system_end end = system_run(&system, &sregs, regs, code + !high, high ? 4 : 3);
    CHECK_EQ(end.vector, registers[i].vector);
    if (number == 0 || number == 3 || number == 4 || number == 8) {
      uint64_t want = end.vector == GP ? before : after & ~(number == 3 ? BIT(63) : 0);
      CHECK_EQ(value_of(&end.sregs, number), want);
    }
  }
  system_close(&system);
}

/* Bits of CR4 that the vCPU's table does not tell of are reserved. */
static void cr4_follows_cpuid(void) {
  static const struct {
    uint64_t bit;
    uint32_t leaf, ebx, ecx;
  } rows[] = {
      {PCIDE, 1, 0, 1 << 17}, {OSXSAVE, 1, 0, 1 << 26}, {BIT(16), 7, 1, 0}, {SMEP, 7, 1 << 7, 0},
      {SMAP, 7, 1 << 20, 0},  {BIT(11), 7, 0, 4},       {PKE, 7, 0, 8},
  };
  for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
    for (unsigned there = 0; there < 2; there++) {
      test_note("row %u, told of %u", i, there);
      soft_system system = system_open(SYSTEM_64);
      struct kvm_cpuid2 *table = calloc(1, sizeof *table + sizeof *table->entries);
      table->nent = 1;
      table->entries[0] = (struct kvm_cpuid_entry2){.function = rows[i].leaf,
                                                    .ebx = there ? rows[i].ebx : ~rows[i].ebx,
                                                    .ecx = there ? rows[i].ecx : ~rows[i].ecx};
      CHECK_EQ(guest_call(system.guest.cpu, KVM_SET_CPUID2, table), 0);
      free(table);
      struct kvm_sregs sregs = system.sregs;
      sregs.cr4 = PAE;
      uint64_t *directory = (uint64_t *)(void *)(system.guest.ram + GUEST_TABLES + 0x2000);
      directory[0] &= ~UINT64_C(4); /* a system's page, for SMEP */
      struct kvm_regs regs = {.rax = PAE | rows[i].bit};
      SYSTEM_CHECK(system_run(&system, &sregs, regs, "\x0f\x22\xe0", 3), there ? END : GP, 0);
      system_close(&system);
    }
  }
}

static void what_efer_takes(void) {
  static const struct {
    uint64_t toggles;
    int vector;
  } rows[] = {{0, END}, {1, END},     {BIT(11), END}, {BIT(8), GP},  {BIT(10), END},
              {2, GP},  {BIT(9), GP}, {BIT(12), GP},  {BIT(16), GP}, {BIT(63), GP}};
  soft_system system = system_open(SYSTEM_64);
  for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
    test_note("row %u", i);
    uint64_t value = system.sregs.efer ^ rows[i].toggles;
    struct kvm_regs regs = {.rcx = 0xc0000080, .rax = (uint32_t)value, .rdx = value >> 32};
    system_end end = SYSTEM_RUN(&system, 0, regs, "\x0f\x30");
    SYSTEM_CHECK(end, rows[i].vector, 0);
    CHECK_EQ(end.sregs.efer & BIT(10), BIT(10)); /* LMA is nobody's to write */
  }
  system_close(&system);
}

/* ---- INVPCID ---- */

static const struct {
  uint64_t type, pcid, address;
  bool enabled; /* CR4.PCIDE */
  unsigned ring;
  int vector;
} invpcid_rows[] = {
    {0, 0, 0, false, 0, END},      {0, 5, 0, true, 0, END},       {0, 5, 0, false, 0, GP},
    {1, 5, 0, true, 0, END},       {1, 5, 0, false, 0, GP},       {1, 0, 0, false, 0, END},
    {2, 5, 0, false, 0, END},      {3, 5, 0, false, 0, END},      {4, 0, 0, true, 0, GP},
    {BIT(32), 0, 0, true, 0, GP},  {0, 0x1000, 0, true, 0, GP},   {1, 0x1000, 0, true, 0, GP},
    {2, 0x1000, 0, true, 0, GP},   {3, BIT(63), 0, true, 0, GP},  {0, 0, BIT(47), true, 0, GP},
    {1, 0, BIT(47), true, 0, END}, {2, 0, BIT(47), true, 0, END}, {0, 0, 0, true, 3, GP},
    {2, 0, 0, true, 3, GP},
};

static void each_invpcid(void) {
  soft_system system = system_open(SYSTEM_64);
  for (unsigned i = 0; i < sizeof invpcid_rows / sizeof *invpcid_rows; i++) {
    test_note("row %u", i);
    struct kvm_sregs sregs = system.sregs;
    system_enter_ring(&system, &sregs, invpcid_rows[i].ring);
    sregs.cr4 |= invpcid_rows[i].enabled ? PCIDE : 0;
    system_put(&system, SYSTEM_DATA, invpcid_rows[i].pcid, 8);
    system_put(&system, SYSTEM_DATA + 8, invpcid_rows[i].address, 8);
    struct kvm_regs regs = {.rdi = SYSTEM_DATA, .rax = invpcid_rows[i].type};
    system_end end = system_run(&system, &sregs, regs, "\x66\x0f\x38\x82\x07", 5);
    SYSTEM_CHECK(end, invpcid_rows[i].vector, 0);
  }
  struct kvm_regs regs = {.rdi = GUEST_SIZE, .rax = 2};
  SYSTEM_CHECK(SYSTEM_RUN(&system, 0, regs, "\x66\x0f\x38\x82\x07"), PF, 0);
  system_close(&system);
}

/* ---- What the TLB forgets ---- */

/* mov eax, [rsi]; mov [rdi], rbx, which is the page's entry; something; mov ecx, [rsi] */
static const struct {
  const char *code;
  size_t size;
  bool global;
  uint64_t rdx;
} forgetters[] = {
    {"\x0f\x01\x3e", 3, false, 0}, /* invlpg [rsi] */
    {"\x0f\x01\x3e", 3, true, 0},
    {"\x0f\x22\xda", 3, false, GUEST_TABLES},  /* mov cr3, rdx */
    {"\x66\x0f\x38\x82\x55\x00", 6, false, 0}, /* invpcid rdx, [rbp] */
    {"\x66\x0f\x38\x82\x55\x00", 6, true, 0},
    {"\x66\x0f\x38\x82\x55\x00", 6, false, 1},
    {"\x66\x0f\x38\x82\x55\x00", 6, true, 2},
    {"\x66\x0f\x38\x82\x55\x00", 6, false, 3},
    {"\x0f\x22\xe2", 3, true, PAE}, /* mov cr4, rdx: PGE goes */
};

static void what_is_invalidated_is_walked_again(void) {
  soft_system system = system_open(SYSTEM_64);
  for (unsigned i = 0; i < sizeof forgetters / sizeof *forgetters; i++) {
    test_note("row %u", i);
    uint8_t code[32] = "\x8b\x06\x48\x89\x1f";
    memcpy(code + 5, forgetters[i].code, forgetters[i].size);
    memcpy(code + 5 + forgetters[i].size, "\x8b\x0e", 2);
    unsigned global = forgetters[i].global ? 0x100 : 0;
    struct kvm_sregs sregs = system.sregs;
    sregs.cr4 |= PGE;
    system_put(&system, ENTRY, PAGE | 0x87 | global, 8);
    system_put(&system, PAGE + 0x123, 0x2222, 4);
    system_put(&system, 0x123, 0x1111, 4);
    system_put(&system, SYSTEM_DATA, 0, 8);
    system_put(&system, SYSTEM_DATA + 8, PAGE + 0x123, 8);
    struct kvm_regs regs = {.rsi = PAGE + 0x123,
                            .rdi = ENTRY,
                            .rbx = 0x87 | global,
                            .rdx = forgetters[i].rdx,
                            .rbp = SYSTEM_DATA};
    system_end end = system_run(&system, &sregs, regs, code, forgetters[i].size + 7);
    SYSTEM_CHECK(end, END, 0);
    CHECK_EQ(end.regs.rax, 0x2222);
    CHECK_EQ(end.regs.rcx, 0x1111);
  }
  system_close(&system);
}

/* Two address spaces by their PCIDs, there and back, with bit 63 or without. */
static void pcids_are_apart(void) {
  /* mov eax, [rsi]; mov cr3, rdx; mov ecx, [rsi]; mov cr3, rbx; mov edi, [rsi] */
  static const char code[] = "\x8b\x06\x0f\x22\xda\x8b\x0e\x0f\x22\xdb\x8b\x3e";
  enum {
    OTHER = GUEST_TABLES + 0x8000
  };
  soft_system system = system_open(SYSTEM_64);
  memcpy(system.guest.ram + OTHER, system.guest.ram + GUEST_TABLES, 0x3000);
  system_put(&system, OTHER, (OTHER + 0x1000) | 7, 8);
  system_put(&system, OTHER + 0x1000, (OTHER + 0x2000) | 7, 8);
  system_put(&system, OTHER + 0x2008, 0x87, 8);
  system_put(&system, PAGE + 0x123, 0x2222, 4);
  system_put(&system, 0x123, 0x1111, 4);
  for (unsigned keeps = 0; keeps < 2; keeps++) {
    struct kvm_sregs sregs = system.sregs;
    uint64_t bit = (uint64_t)keeps << 63;
    sregs.cr4 |= PCIDE;
    struct kvm_regs regs = {.rsi = PAGE + 0x123, .rdx = OTHER | 1 | bit, .rbx = GUEST_TABLES | bit};
    system_end end = system_run(&system, &sregs, regs, code, sizeof code - 1);
    SYSTEM_CHECK(end, END, 0);
    CHECK_EQ(end.regs.rax, 0x2222);
    CHECK_EQ(end.regs.rcx, 0x1111);
    CHECK_EQ(end.regs.rdi, 0x2222);
    CHECK_EQ(end.sregs.cr3, GUEST_TABLES);
  }
  system_close(&system);
}

/* ---- PAE's pointers ---- */

static soft_system begin_pae(void) {
  soft_system system = system_open(SYSTEM_32);
  system_put(&system, POINTERS, (GUEST_TABLES + 0x2000) | 1, 8);
  system.sregs.cr0 |= PG;
  system.sregs.cr4 |= PAE;
  system.sregs.cr3 = POINTERS;
  return system;
}

/* In memory they count for nothing until a register is written that reads them. */
static void pae_pointers_are_read_with_their_registers(void) {
  static const struct {
    const char *code; /* behind mov [edi], ebx */
    size_t size;
    uint64_t eax;
    int vector;
  } rows[] = {
      {"\x90", 1, 0, END},
      {"\x0f\x01\x3e", 3, 0, END},               /* invlpg [esi] */
      {"\x0f\x22\xd8", 3, POINTERS, GP},         /* mov cr3, eax */
      {"\x0f\x22\xd8", 3, POINTERS + 0x18, GP},  /* PCD, PWT: no part of the address */
      {"\x0f\x22\xd8", 3, POINTERS + 0x20, END}, /* others, which are not present */
      {"\x0f\x22\xe0", 3, PAE | PGE, GP},        /* mov cr4, eax */
      {"\x0f\x22\xe0", 3, PAE | 0x10, GP},       /* PSE */
      {"\x0f\x22\xe0", 3, PAE | SMEP, GP},
      {"\x0f\x22\xe0", 3, PAE | 4, END},       /* TSD, which has nothing to do with it */
      {"\x0f\x22\xc0", 3, PG | 0x31 | CD, GP}, /* mov cr0, eax */
      {"\x0f\x22\xc0", 3, PG | 0x31 | WP, END},
  };
  soft_system system = begin_pae();
  for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
    test_note("row %u", i);
    uint8_t code[8] = "\x89\x1f";
    memcpy(code + 2, rows[i].code, rows[i].size);
    system_put(&system, POINTERS + 8, 0, 8);
    system_put(&system, POINTERS + 0x20, i == 4 ? (GUEST_TABLES + 0x2000) | 1 : 0, 8);
    struct kvm_sregs sregs = system.sregs;
    sregs.cr4 = PAE;
    struct kvm_regs regs = {.rdi = POINTERS + 8, .rbx = 3, .rax = rows[i].eax, .rsi = PAGE};
    system_end end = system_run(&system, &sregs, regs, code, rows[i].size + 2);
    SYSTEM_CHECK(end, rows[i].vector, 0);
    if (end.vector == GP) {
      CHECK_EQ(end.sregs.cr0, sregs.cr0);
      CHECK_EQ(end.sregs.cr3, sregs.cr3);
      CHECK_EQ(end.sregs.cr4, sregs.cr4);
    }
  }
  system_close(&system);
}

static void paging_begins_with_right_pointers(void) {
  soft_system system = begin_pae();
  for (unsigned bad = 0; bad < 2; bad++) {
    struct kvm_sregs sregs = system.sregs;
    sregs.cr0 &= ~PG;
    system_put(&system, POINTERS + 24, bad ? 0x1e1 : 0, 8);
    struct kvm_regs regs = {.rax = PG | 0x31};
    system_end end = system_run(&system, &sregs, regs, "\x0f\x22\xc0", 3);
    SYSTEM_CHECK(end, bad ? GP : END, 0);
    CHECK_EQ(end.sregs.cr0 & PG, bad ? 0 : PG);
  }
  system_close(&system);
}

/* ---- Rights that change ---- */

/* With the page of a user at RSI, which is in the TLB from the first instruction on. */
static const struct {
  const char *code;
  size_t size;
  unsigned entry; /* the page's rights */
  uint64_t rax;
  int vector;
  unsigned error;
} rights[] = {
    {"\x8b\x0e\x0f\x22\xe0\x8b\x0e", 7, 0x87, PAE | SMAP, PF, 1},               /* mov cr4 */
    {"\x8b\x0e\x0f\x22\xe0\x0f\x01\xcb\x8b\x0e", 10, 0x87, PAE | SMAP, END, 0}, /* and stac */
    {"\x8b\x0e\x0f\x22\xe0\x0f\x01\xcb\x8b\x0e\x0f\x01\xca\x8b\x0e", 15, 0x87, PAE | SMAP, PF, 1},
    {"\x8b\x0e\x0f\x22\xe0\x89\x0e", 7, 0x87, PAE | SMAP, PF, 3},
    {"\x8b\x0e\x0f\x22\xe0\x8b\x0e", 7, 0x83, PAE | SMAP, END, 0},
    {"\x89\x0e\x0f\x22\xc0\x89\x0e", 7, 0x85, PG | 0x31 | WP, PF, 3}, /* mov cr0 */
    {"\x89\x0e\x0f\x22\xc0\x8b\x0e", 7, 0x85, PG | 0x31 | WP, END, 0},
    {"\x8b\x0e\x0f\x22\xe0\xff\xe6", 7, 0x87, PAE | SMEP, PF, 0x11},
    {"\x8b\x0e\x0f\x22\xe0\xff\xe6", 7, 0x83, PAE | SMEP, END, 0},
};

static void rights_count_at_once(void) {
  soft_system system = system_open(SYSTEM_64);
  system_put(&system, GUEST_TABLES + 0x2000, 0x83, 8);
  for (unsigned i = 0; i < sizeof rights / sizeof *rights; i++) {
    test_note("row %u", i);
    system_put(&system, ENTRY, PAGE | rights[i].entry, 8);
    system_put(&system, PAGE, 0xe6 | SYSTEM_AT_END << 8, 2);
    struct kvm_sregs sregs = system.sregs;
    sregs.cr4 = PAE;
    struct kvm_regs regs = {.rsi = PAGE, .rax = rights[i].rax, .rcx = 0x10e6};
    system_end end = system_run(&system, &sregs, regs, rights[i].code, rights[i].size);
    SYSTEM_CHECK(end, rights[i].vector, rights[i].error);
  }
  system_close(&system);
}

int main(void) {
  RUN(what_control_registers_take);
  RUN(cr4_follows_cpuid);
  RUN(what_efer_takes);
  RUN(each_invpcid);
  RUN(what_is_invalidated_is_walked_again);
  RUN(pcids_are_apart);
  RUN(pae_pointers_are_read_with_their_registers);
  RUN(paging_begins_with_right_pointers);
  RUN(rights_count_at_once);
  return test_end();
}
