/* SPDX-License-Identifier: MIT
 * Instructions of many forms whose operand is in a hole: where a program for the Hypervisor
 * framework finds them, and the linear address of their access. */
#include "fixture/hvf_long.h"

enum {
  HOLE = 0x200000, /* linear and guest-physical */
  MOST_BYTES = 15
};

typedef struct form {
  const char *text;
  uint8_t length;
  uint8_t code[MOST_BYTES];
  uint64_t offset; /* of the access in the hole */
  uint64_t access;
} form;

static const form forms[] = {
    {"mov eax, [rsi]", 2, {0x8b, 0x06}, 0x100, HV_MEMORY_READ},
    {"mov al, [rsi+0x10]", 3, {0x8a, 0x46, 0x10}, 0x110, HV_MEMORY_READ},
    {"mov rax, [rsi-0x10]", 4, {0x48, 0x8b, 0x46, 0xf0}, 0xf0, HV_MEMORY_READ},
    {"movzx eax, byte ptr [rsi+0x1000]",
     7,
     {0x0f, 0xb6, 0x86, 0x00, 0x10, 0x00, 0x00},
     0x1100,
     HV_MEMORY_READ},
    {"mov eax, [rsi+rdi*4]", 3, {0x8b, 0x04, 0xbe}, 0x900, HV_MEMORY_READ},
    {"mov eax, [rdi*8+0x200000]",
     7,
     {0x8b, 0x04, 0xfd, 0x00, 0x00, 0x20, 0x00},
     0x1000,
     HV_MEMORY_READ},
    {"mov eax, [r13]", 4, {0x41, 0x8b, 0x45, 0x00}, 0x300, HV_MEMORY_READ},
    {"mov eax, [r12+r9*2+1]", 5, {0x43, 0x8b, 0x44, 0x4c, 0x01}, 0x601, HV_MEMORY_READ},
    {"mov eax, [0x200040]", 7, {0x8b, 0x04, 0x25, 0x40, 0x00, 0x20, 0x00}, 0x40, HV_MEMORY_READ},
    {"movabs al, [0x200048]",
     9,
     {0xa0, 0x48, 0x00, 0x20, 0x00, 0x00, 0x00, 0x00, 0x00},
     0x48,
     HV_MEMORY_READ},
    {"cmp dword ptr [rsi], 0x12345678",
     6,
     {0x81, 0x3e, 0x78, 0x56, 0x34, 0x12},
     0x100,
     HV_MEMORY_READ},
    {"test byte ptr [rsi+1], 1", 4, {0xf6, 0x46, 0x01, 0x01}, 0x101, HV_MEMORY_READ},
    {"imul eax, [rsi], 0x12345678", 6, {0x69, 0x06, 0x78, 0x56, 0x34, 0x12}, 0x100, HV_MEMORY_READ},
    {"bt dword ptr [rsi], 3", 4, {0x0f, 0xba, 0x26, 0x03}, 0x100, HV_MEMORY_READ},
    {"mov eax, fs:[0x20]",
     8,
     {0x64, 0x8b, 0x04, 0x25, 0x20, 0x00, 0x00, 0x00},
     0x1020,
     HV_MEMORY_READ},
    {"mov eax, [ebx]", 3, {0x67, 0x8b, 0x03}, 0x400, HV_MEMORY_READ},
    {"mov [rsi], eax", 2, {0x89, 0x06}, 0x100, HV_MEMORY_WRITE},
    {"mov [rsi], al", 2, {0x88, 0x06}, 0x100, HV_MEMORY_WRITE},
    {"mov [rsi], ah", 2, {0x88, 0x26}, 0x100, HV_MEMORY_WRITE},
    {"mov [rsi], sil", 3, {0x40, 0x88, 0x36}, 0x100, HV_MEMORY_WRITE},
    {"mov [rsi], r8w", 4, {0x66, 0x44, 0x89, 0x06}, 0x100, HV_MEMORY_WRITE},
    {"mov [rsi+rdi*4], r15", 4, {0x4c, 0x89, 0x3c, 0xbe}, 0x900, HV_MEMORY_WRITE},
    {"mov byte ptr [rsi], 0x7f", 3, {0xc6, 0x06, 0x7f}, 0x100, HV_MEMORY_WRITE},
    {"mov dword ptr [r13+0x12345], 0x12345678",
     11,
     {0x41, 0xc7, 0x85, 0x45, 0x23, 0x01, 0x00, 0x78, 0x56, 0x34, 0x12},
     0x12645,
     HV_MEMORY_WRITE},
    {"mov qword ptr [rsi], -2",
     7,
     {0x48, 0xc7, 0x06, 0xfe, 0xff, 0xff, 0xff},
     0x100,
     HV_MEMORY_WRITE},
    {"mov word ptr [rsi], 0x1234", 5, {0x66, 0xc7, 0x06, 0x34, 0x12}, 0x100, HV_MEMORY_WRITE},
    {"mov dword ptr fs:[0x20], 5",
     12,
     {0x64, 0xc7, 0x04, 0x25, 0x20, 0x00, 0x00, 0x00, 0x05, 0x00, 0x00, 0x00},
     0x1020,
     HV_MEMORY_WRITE},
    {"movabs [0x200050], eax",
     9,
     {0xa3, 0x50, 0x00, 0x20, 0x00, 0x00, 0x00, 0x00, 0x00},
     0x50,
     HV_MEMORY_WRITE},
    {"movnti [rsi], eax", 3, {0x0f, 0xc3, 0x06}, 0x100, HV_MEMORY_WRITE},
    {"movups [rsi], xmm0", 3, {0x0f, 0x11, 0x06}, 0x100, HV_MEMORY_WRITE},
    {"setc [rsi]", 3, {0x0f, 0x92, 0x06}, 0x100, HV_MEMORY_WRITE},
    {"mov [rsi], ds", 2, {0x8c, 0x1e}, 0x100, HV_MEMORY_WRITE},
};

/* The instruction is behind one that ends in a byte which could be a prefix of it. */
static void begin_form(const form *f, uint8_t before) {
  uint8_t code[2 + MOST_BYTES + 1] = {0xb0, before}; /* mov al, before */
  memcpy(code + 2, f->code, f->length);
  code[2 + f->length] = 0xf4;
  begin_long(code, sizeof code);
  set_field(VMCS_GUEST_CR4, 0x620); /* OSFXSR */
  set_field(VMCS_GUEST_FS_BASE, HOLE + 0x1000);
  set_field(VMCS_GUEST_DS, 0x10);
  set(HV_X86_RAX, 0x0102030405060708);
  set(HV_X86_RBX, 0xffffffff00200400);
  set(HV_X86_RSI, HOLE + 0x100);
  set(HV_X86_RDI, 0x200);
  set(HV_X86_R8, 0x1122334455667788);
  set(HV_X86_R9, 0x100);
  set(HV_X86_R12, HOLE + 0x400);
  set(HV_X86_R13, HOLE + 0x300);
  set(HV_X86_R15, 0x99aabbccddeeff00);
}

static void accesses_have_their_instruction_and_linear_address(void) {
  static const uint8_t before[] = {0x00, 0x66, 0x67, 0x48, 0x44, 0xf3, 0x64, 0x0f};
  for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
    const form *f = &forms[i];
    for (size_t j = 0; j < (i % 4 ? 1 : sizeof before); j++) {
      test_note("%s behind 0x%02x", f->text, before[j]);
      begin_form(f, before[j]);
      CHECK_EQ(run(), VMX_REASON_EPT_VIOLATION);
      CHECK_EQ(field(VMCS_RO_EXIT_QUALIFIC), f->access | 3 << 7);
      CHECK_EQ(field(VMCS_GUEST_PHYSICAL_ADDRESS), HOLE + f->offset);
      CHECK_EQ(field(VMCS_RO_GUEST_LIN_ADDR), HOLE + f->offset);
      CHECK_EQ(get(HV_X86_RIP), LINEAR + 2);
      CHECK_EQ(field(VMCS_RO_VMEXIT_INSTR_LEN), f->length);
      set(HV_X86_RSI, 0);
      set(HV_X86_R13, 0);
      CHECK_EQ(field(VMCS_RO_GUEST_LIN_ADDR),
               HOLE + f->offset); /* as long as it is the last exit */
      skip();
      CHECK_EQ(run(), VMX_REASON_HLT);
      CHECK_EQ(get(HV_X86_RIP), LINEAR + 2 + f->length);
      end();
    }
  }
}

static void accesses_by_stack_and_strings_have_a_linear_address(void) {
  static const struct {
    uint8_t code[3];
    uint64_t offset;
    uint64_t access;
  } others[] = {
      {{0x58, 0xf4}, 0x800, 1},       /* pop rax */
      {{0xa4, 0xf4}, 0x100, 1},       /* movsb */
      {{0xac, 0xf4}, 0x100, 1},       /* lodsb */
      {{0x0f, 0xc7, 0x0e}, 0x100, 1}, /* cmpxchg8b [rsi] */
  };
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
    test_note("case %zu", i);
    begin_long(others[i].code, sizeof others[i].code);
    set(HV_X86_RSP, HOLE + 0x800);
    set(HV_X86_RSI, HOLE + 0x100);
    set(HV_X86_RDI, 0x3000);
    CHECK_EQ(run(), VMX_REASON_EPT_VIOLATION);
    CHECK_EQ(field(VMCS_RO_EXIT_QUALIFIC), others[i].access | 3 << 7);
    CHECK_EQ(field(VMCS_RO_GUEST_LIN_ADDR), HOLE + others[i].offset);
    end();
  }
}

/* Of memory that can be read. Registers that REX makes others of are told by what is written. */
static const form writers[] = {
    {"add [rsi], eax", 2, {0x01, 0x06}, 0x100, HV_MEMORY_WRITE},
    {"add [rsi], r8d", 3, {0x44, 0x01, 0x06}, 0x100, HV_MEMORY_WRITE},
    {"sub [rsi], r15", 3, {0x4c, 0x29, 0x3e}, 0x100, HV_MEMORY_WRITE},
    {"or [rsi], ah", 2, {0x08, 0x26}, 0x100, HV_MEMORY_WRITE},
    {"and [rsi], r8b", 3, {0x44, 0x20, 0x06}, 0x100, HV_MEMORY_WRITE},
    {"xor [rsi], r8w", 4, {0x66, 0x44, 0x31, 0x06}, 0x100, HV_MEMORY_WRITE},
    {"movups [rsi], xmm1", 3, {0x0f, 0x11, 0x0e}, 0x100, HV_MEMORY_WRITE},
    {"movups [rsi], xmm9", 4, {0x44, 0x0f, 0x11, 0x0e}, 0x100, HV_MEMORY_WRITE},
    {"movaps [rsi], xmm9", 4, {0x44, 0x0f, 0x29, 0x0e}, 0x100, HV_MEMORY_WRITE},
    {"movq [rsi], mm1", 3, {0x0f, 0x7f, 0x0e}, 0x100, HV_MEMORY_WRITE},
    {"movdqa [rsi], xmm1", 4, {0x66, 0x0f, 0x7f, 0x0e}, 0x100, HV_MEMORY_WRITE},
    {"movdqu [rsi], xmm9", 5, {0xf3, 0x44, 0x0f, 0x7f, 0x0e}, 0x100, HV_MEMORY_WRITE},
};

/* MM0 to MM7 and XMM0 to XMM15 have their numbers in each byte, with 0x10 and 0x20. */
static void set_vectors(void) {
  uint8_t area[512];
  HV(hv_vcpu_read_fpstate(vcpu, area, sizeof area));
  for (unsigned i = 0; i < 16; i++) {
    memset(area + 160 + 16 * i, (int)(0x20 + i), 16);
    memset(area + 32 + 16 * (i % 8), (int)(0x10 + i % 8), 8);
  }
  HV(hv_vcpu_write_fpstate(vcpu, area, sizeof area));
}

static void writers_are_found_with_the_prefixes_that_count(void) {
  static const uint8_t before[] = {0x00, 0x44, 0x66, 0x41};
  for (size_t i = 0; i < sizeof writers / sizeof *writers * sizeof before; i++) {
    const form *f = &writers[i / sizeof before];
    const uint8_t byte = before[i % sizeof before];
    const bool mmx = strncmp(f->text, "movq", 4) == 0;
    if ((byte == 0x66 && f->text[0] == 'm') || (byte == 0x44 && mmx)) {
      continue; /* it counts, and makes the same of it, or another vector */
    }
    test_note("%s behind 0x%02x", f->text, byte);
    begin_form(f, byte);
    set_vectors();
    set(HV_X86_RAX, 0x0102030405060708);
    set(HV_X86_R14, HOLE); /* where REX.B leads RSI */
    memset(page, 0x5a, sizeof page);
    HV(hv_vm_map(page, HOLE, sizeof page, RX));
    CHECK_EQ(run(), VMX_REASON_EPT_VIOLATION);
    CHECK_EQ(field(VMCS_GUEST_PHYSICAL_ADDRESS), HOLE + f->offset);
    CHECK_EQ(get(HV_X86_RIP), LINEAR + 2);
    CHECK_EQ(field(VMCS_RO_VMEXIT_INSTR_LEN), f->length);
    skip();
    CHECK_EQ(run(), VMX_REASON_HLT);
    CHECK_EQ(get(HV_X86_RIP), LINEAR + 2 + f->length);
    CHECK_EQ(page[f->offset], 0x5a);
    end();
  }
}

/* [rip + 0x1ffff6], in the page that LINEAR + 0x200000 leads to. */
static void an_operand_can_be_relative_to_rip(void) {
  static const uint8_t code[] = {0xc7, 0x05, 0xf6, 0xff, 0x1f, 0x00, 0x05, 0x00, 0x00, 0x00, 0xf4};
  begin_long(code, sizeof code);
  store(0xc008, 0x200083);
  CHECK_EQ(run(), VMX_REASON_EPT_VIOLATION);
  CHECK_EQ(field(VMCS_RO_EXIT_QUALIFIC), 2 | 3 << 7);
  CHECK_EQ(field(VMCS_RO_GUEST_LIN_ADDR), LINEAR + 0x200000);
  CHECK_EQ(get(HV_X86_RIP), LINEAR);
  CHECK_EQ(field(VMCS_RO_VMEXIT_INSTR_LEN), 10);
  end();
}

/* ---- Strings that write, of which there is an exit for each element ---- */

typedef struct string {
  uint8_t code[8];
  uint32_t length;
  uint32_t size; /* of an element */
  uint64_t count;
  bool moves; /* from DS:ESI */
  bool down;
} string;

/* The last instruction that goes on is HLT. */
static const string strings[] = {
    {{0xf3, 0xaa, 0xf4}, 2, 1, 3, false, false},             /* rep stosb */
    {{0xf3, 0xab, 0xf4}, 2, 2, 2, false, true},              /* rep stosw, down */
    {{0x66, 0xf3, 0xab, 0xf4}, 3, 4, 2, false, false},       /* rep stosd */
    {{0xf3, 0xab, 0xf4}, 2, 2, 1, false, false},             /* the last element at once */
    {{0xaa, 0xf4}, 1, 1, 0, false, false},                   /* stosb */
    {{0xf3, 0xa4, 0xf4}, 2, 1, 2, true, false},              /* rep movsb */
    {{0x66, 0xa5, 0xf4}, 2, 4, 0, true, true},               /* movsd, down */
    {{0x2e, 0xf3, 0xa5, 0xf4}, 3, 2, 3, true, false},        /* rep movsw from CS */
    {{0x67, 0x66, 0xf3, 0xab, 0xf4}, 4, 4, 2, false, false}, /* by ECX and EDI */
};

static void begin_string(const string *s) {
  begin_with(s->code, sizeof s->code, HV_VM_DEFAULT);
  set_field(VMCS_GUEST_ES_BASE, HOLE);
  set(HV_X86_RAX, 0xaaaaaaaa44332211);
  set(HV_X86_RCX, s->count);
  set(HV_X86_RSI, 0x2000);
  set(HV_X86_RDI, 0x800);
  set(HV_X86_RFLAGS, s->down ? 0x402 : 2);
  memcpy(ram + 0x2000 - 8, "ABCDEFGHIJKLMNOP", 16);
}

static void check_string(const string *s) {
  CHECK_EQ(get(HV_X86_RIP), CODE);
  CHECK_EQ(field(VMCS_RO_VMEXIT_INSTR_LEN), s->length);
  CHECK_EQ(get(HV_X86_RCX), s->count);
  CHECK_EQ(get(HV_X86_RSI), 0x2000);
  CHECK_EQ(get(HV_X86_RDI), 0x800);
}

/* An emulator does all the elements, or the first one; the guest goes on with the others. */
static void writes_of_strings_can_be_emulated(void) {
  for (size_t i = 0; i < sizeof strings / sizeof *strings; i++) {
    const string *s = &strings[i];
    const int64_t step = s->down ? -(int64_t)s->size : s->size;
    test_note("string %zu", i);
    begin_string(s);
    check_violation(2, HOLE + 0x800);
    check_string(s);
    if (s->count > 1) {
      set(HV_X86_RCX, s->count - 1);
      set(HV_X86_RDI, (uint64_t)(0x800 + step));
      set(HV_X86_RSI, (uint64_t)(0x2000 + (s->moves ? step : 0)));
      check_violation(2, (uint64_t)(HOLE + 0x800 + step));
      CHECK_EQ(get(HV_X86_RCX), s->count - 1);
      CHECK_EQ(get(HV_X86_RDI), (uint64_t)(0x800 + step));
    }
    set(HV_X86_RCX, 0);
    skip();
    CHECK_EQ(run(), VMX_REASON_HLT);
    CHECK_EQ(get(HV_X86_RIP), CODE + s->length);
    CHECK_EQ(get(HV_X86_RCX), 0);
    end();
  }
}

static void writes_of_strings_are_done_again_where_memory_allows_it(void) {
  for (size_t i = 0; i < 3 * (sizeof strings / sizeof *strings); i++) {
    const string *s = &strings[i / 3];
    const uint64_t elements = s->count ? s->count : 1;
    const int64_t step = s->down ? -(int64_t)s->size : s->size;
    test_note("string %zu, way %zu", i / 3, i % 3);
    begin_string(s);
    check_violation(2, HOLE + 0x800);
    if (i % 3 == 1) { /* looked at or not, or only where it is */
      check_string(s);
      check_violation(2, HOLE + 0x800);
    } else if (i % 3 == 2) {
      CHECK_EQ(get(HV_X86_RIP), CODE);
    }
    HV(hv_vm_map(page, HOLE, sizeof page, RWX));
    CHECK_EQ(run(), VMX_REASON_HLT);
    for (uint64_t n = 0; n < elements; n++) {
      const int64_t at = step * (int64_t)n;
      const void *want = s->moves ? (const void *)(ram + 0x2000 + at) : "\x11\x22\x33\x44";
      CHECK(memcmp(page + 0x800 + at, want, s->size) == 0);
    }
    CHECK_EQ(get(HV_X86_RCX), 0);
    CHECK_EQ(get(HV_X86_RDI), (uint64_t)(0x800 + step * (int64_t)elements));
    end();
  }
}

static void a_write_of_a_string_can_be_completed(void) {
  begin_string(&strings[0]);
  for (uint64_t i = 0; i < 3; i++) {
    hv_ext_access access;
    check_violation(2, HOLE + 0x800 + i);
    CHECK_EQ(get(HV_X86_RIP), CODE);
    HV(hv_ext_vcpu_access(vcpu, &access));
    CHECK_EQ(access.value, 0x11);
    HV(hv_ext_vcpu_complete(vcpu, 0));
  }
  CHECK_EQ(run(), VMX_REASON_HLT);
  CHECK_EQ(get(HV_X86_RDI), 0x803);
  end();
}

/* With paging, in 8 bytes, and with a segment that has a base in 64-bit mode. */
static void strings_of_64_bit_code_are_found(void) {
  static const uint8_t stos[] = {0xf3, 0x48, 0xab, 0xf4};
  static const uint8_t movs[] = {0x65, 0x48, 0xa5, 0xf4}; /* from GS */
  for (int i = 0; i < 2; i++) {
    begin_long(i == 0 ? stos : movs, sizeof stos);
    set_field(VMCS_GUEST_GS_BASE, 0x3000);
    store(0x3100, 0x8877665544332211);
    set(HV_X86_RAX, 0x123456789abcdef0);
    set(HV_X86_RCX, 3);
    set(HV_X86_RSI, 0x100);
    set(HV_X86_RDI, 0x4010);
    HV(hv_vm_protect(0x4000, 0x1000, RX));
    CHECK_EQ(run(), VMX_REASON_EPT_VIOLATION);
    CHECK_EQ(field(VMCS_GUEST_PHYSICAL_ADDRESS), 0x4010);
    CHECK_EQ(get(HV_X86_RDI), 0x4010);
    CHECK_EQ(get(HV_X86_RSI), 0x100);
    CHECK_EQ(get(HV_X86_RCX), 3);
    CHECK_EQ(get(HV_X86_RIP), LINEAR);
    CHECK_EQ(field(VMCS_RO_VMEXIT_INSTR_LEN), 3);
    CHECK_EQ(field(VMCS_RO_GUEST_LIN_ADDR), 0x4010);
    CHECK_EQ(field(VMCS_RO_EXIT_QUALIFIC) & 0x187, 0x182);
    HV(hv_vm_protect(0x4000, 0x1000, RWX));
    CHECK_EQ(run(), VMX_REASON_HLT);
    CHECK_EQ(get(HV_X86_RDI), i == 0 ? 0x4028 : 0x4018);
    CHECK_EQ(get(HV_X86_RCX), i == 0 ? 0 : 3);
    CHECK(memcmp(ram + 0x4010,
                 i == 0 ? "\xf0\xde\xbc\x9a\x78\x56\x34\x12" : "\x11\x22\x33\x44\x55\x66\x77\x88",
                 8) == 0);
    end();
  }
}

int main(void) {
  RUN_KVM(accesses_have_their_instruction_and_linear_address);
  RUN_KVM(accesses_by_stack_and_strings_have_a_linear_address);
  RUN_KVM(writers_are_found_with_the_prefixes_that_count);
  RUN_KVM(an_operand_can_be_relative_to_rip);
  RUN_KVM(writes_of_strings_can_be_emulated);
  RUN_KVM(writes_of_strings_are_done_again_where_memory_allows_it);
  RUN_KVM(a_write_of_a_string_can_be_completed);
  RUN_KVM(strings_of_64_bit_code_are_found);
  return test_end();
}
