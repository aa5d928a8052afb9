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

int main(void) {
  RUN_KVM(accesses_have_their_instruction_and_linear_address);
  RUN_KVM(accesses_by_stack_and_strings_have_a_linear_address);
  RUN_KVM(an_operand_can_be_relative_to_rip);
  return test_end();
}
