/* SPDX-License-Identifier: MIT
 * Control registers under masks, shadows and CR3 targets (SDM volume 3, 26.1.3 and 26.3). */
#include "fixture/soft_vmx.h"

enum {
  CR3_LOAD = 1 << 15,
  CR3_STORE = 1 << 16,
  CR8_LOAD = 1 << 19,
  CR8_STORE = 1 << 20,
  TS = 8,
  VMXE = 0x2000,
  FROM = 1 << 4,
  NONE = VMX_NONE
};

typedef struct row {
  const char *name;
  const char *code;
  unsigned size;
  luna_controls controls;
  uint64_t rax;
  uint32_t reason;
  uint64_t qualification;
  uint64_t after; /* of RAX */
} row;

#define ROW(name, code, ...)                                                                       \
  { name, code, sizeof(code) - 1, __VA_ARGS__ }
#define OF_0(mask, shadow)                                                                         \
  { .cr0_mask = (mask), .cr0_shadow = (shadow) }
#define OF_4(mask, shadow)                                                                         \
  { .cr4_mask = (mask), .cr4_shadow = (shadow) }

/* CR0 is 0x80000031, CR3 GUEST_TABLES, CR4 0x42620. */
static const row rows[] = {
    ROW("mov cr0, rax as it is", "\x0f\x22\xc0", OF_0(~0u, 0x80000031), 0x80000031, NONE, 0,
        0x80000031),
    ROW("mov cr0, rax of a masked bit", "\x0f\x22\xc0", OF_0(TS, 0), 0x80000039, 28, 0, 0x80000039),
    ROW("mov cr0, rax of another", "\x0f\x22\xc0\x0f\x20\xc0", OF_0(2, 0), 0x80000039, NONE, 0,
        0x80000039),
    ROW("mov rax, cr0 with a shadow", "\x0f\x20\xc0", OF_0(TS | 1, TS), 0, NONE, 0, 0x80000038),
    ROW("smsw eax", "\x0f\x01\xe0", OF_0(TS | 1, TS), 0, NONE, 0, 0x80000038),
    ROW("clearing NE", "\x0f\x22\xc0", OF_0(0, 0), 0x80000011, 0, 0, 0x80000011),
    ROW("clts, the guest's own", "\x0f\x06", OF_0(0, 0), 0, NONE, 0, 0),
    ROW("clts of a clear shadow", "\x0f\x06", OF_0(TS, 0), 0, NONE, 0, 0),
    ROW("clts of a set shadow", "\x0f\x06", OF_0(TS, TS), 0, 28, 2 << 4, 0),
    ROW("lmsw ax", "\x0f\x01\xf0", OF_0(TS, 0), 0x49, 28, 3 << 4 | 0x49 << 16, 0x49),
    ROW("lmsw ax of bits that are the guest's", "\x0f\x01\xf0", OF_0(TS, TS), 0x49, NONE, 0, 0x49),
    ROW("lmsw [rbx]", "\x0f\x01\x33", OF_0(TS, 0), 0, 28, 3 << 4 | 1 << 6 | 0x1008 << 16, 0),
    ROW("mov cr4, rax", "\x0f\x22\xe0", OF_4(VMXE, 0), 0x42620, 28, 4, 0x42620),
    ROW("mov cr4, rax with the shadow's bit", "\x0f\x22\xe0\x0f\x20\xe0", OF_4(VMXE, 0), 0x40628,
        NONE, 0, 0x40628),
    ROW("clearing VMXE", "\x0f\x22\xe0", OF_4(0, 0), 0x40620, 0, 0, 0x40620),
    ROW("mov rax, cr4", "\x0f\x20\xe0", OF_4(VMXE, 0), 0, NONE, 0, 0x40620),
    ROW("mov cr3, rax", "\x0f\x22\xd8", {.primary = CR3_LOAD}, GUEST_TABLES, 28, 3, GUEST_TABLES),
    ROW("mov cr3, rax without the control", "\x0f\x22\xd8", {0}, GUEST_TABLES, NONE, 0,
        GUEST_TABLES),
    ROW("mov cr3, rax of a target", "\x0f\x22\xd8",
        {.primary = CR3_LOAD, .cr3_count = 2, .cr3_targets = {0, GUEST_TABLES}}, GUEST_TABLES, NONE,
        0, GUEST_TABLES),
    ROW("mov cr3, rax of a target too many", "\x0f\x22\xd8",
        {.primary = CR3_LOAD, .cr3_count = 1, .cr3_targets = {0, GUEST_TABLES}}, GUEST_TABLES, 28,
        3, GUEST_TABLES),
    ROW("mov rdi, cr3", "\x0f\x20\xdf", {.primary = CR3_STORE}, 0, 28, 3 | FROM | 7 << 8, 0),
    ROW("mov cr8, r9", "\x45\x0f\x22\xc1", {.primary = CR8_LOAD}, 0, 28, 8 | 9 << 8, 0),
    ROW("mov rsi, cr8", "\x44\x0f\x20\xc6", {.primary = CR8_STORE}, 0, 28, 8 | FROM | 6 << 8, 0),
    ROW("mov cr2, rax", "\x0f\x22\xd0", OF_0(~0u, 0), 5, NONE, 0, 5),
};

static void registers_go_by_masks_shadows_and_targets(void) {
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    const row *r = &rows[i];
    luna_controls controls = r->controls;
    test_note("%s", r->name);
    soft_system system = system_open(SYSTEM_64);
    struct kvm_sregs sregs = system.sregs;
    controls.exceptions = 1 << 13;
    vmx_set(&system, controls);
    sregs.cr4 |= VMXE;
    system_put(&system, SYSTEM_DATA, 0x1008, 2);
    struct kvm_regs regs = {.rax = r->rax, .rbx = SYSTEM_DATA};
    vmx_end end = vmx_run(&system, &sregs, regs, r->code, r->size);
    CHECK_EQ(end.reason, r->reason);
    CHECK_EQ(end.regs.rax, r->after);
    if (r->reason == NONE) {
      CHECK_EQ(end.sregs.cr4 & VMXE, VMXE);
    } else {
      CHECK_EQ(end.exit.qualification, r->qualification);
      CHECK_EQ(end.regs.rip, GUEST_CODE);
      CHECK_EQ(end.sregs.cr0, sregs.cr0);
    }
    if (r->reason == 28) {
      CHECK_EQ(end.exit.length, r->size);
      CHECK_EQ(end.exit.linear, r->qualification & 1 << 6 ? SYSTEM_DATA : 0);
    }
    system_close(&system);
  }
}

static void masked_bits_stay_when_others_are_written(void) {
  soft_system system = system_open(SYSTEM_64);
  struct kvm_sregs sregs = system.sregs;
  sregs.cr0 |= 2; /* MP, which the guest sees clear */
  vmx_set(&system, (luna_controls){.cr0_mask = 2});
  vmx_end end = vmx_run(&system, &sregs, (struct kvm_regs){.rax = 0x80000039}, "\x0f\x22\xc0", 3);
  CHECK_EQ(end.reason, NONE);
  CHECK_EQ(end.sregs.cr0, 0x8000003b);
  system_close(&system);
}

int main(void) {
  RUN(registers_go_by_masks_shadows_and_targets);
  RUN(masked_bits_stay_when_others_are_written);
  return test_end();
}
