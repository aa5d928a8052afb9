/* SPDX-License-Identifier: MIT
 * Protection keys on the software CPU: what PKRU denies, and whom (SDM volume 3, 4.6.2); how it is
 * set, and told of by CPUID. */
#include "fixture/soft_system.h"

enum {
  KEYED = 2 << 20, /* the page of 2 MiB with key 1 */
  CR4_PKE = 1 << 22,
  CR0_WP = 1 << 16,
  ACCESS = 4, /* PKRU: key 1's bits */
  WRITES = 8
};

static soft_system begin(void) {
  soft_system system = system_open(SYSTEM_64);
  uint64_t *directory = (uint64_t *)(void *)(system.guest.ram + GUEST_TABLES + 0x2000);
  directory[1] |= UINT64_C(1) << 59;
  system_put(&system, KEYED, 0xe6 | SYSTEM_AT_END << 8, 2);
  system.sregs.cr4 |= CR4_PKE;
  return system;
}

/* wrpkru, then mov eax, [rdi]; mov [rdi], eax; jmp rdi */
static const char reads[] = "\x0f\x01\xef\x8b\x07";
static const char writes[] = "\x0f\x01\xef\x89\x07";
static const char jumps[] = "\x0f\x01\xef\xff\xe7";

static void pkru_denies_data_of_user_pages_and_no_fetch(void) {
  static const struct {
    const char *code;
    uint64_t pkru;
    bool protects; /* CR0.WP */
    int error[2];  /* in ring 0 and 3; 0 for none */
  } rows[] = {
      {reads, 0, false, {0, 0}},
      {reads, ACCESS, false, {0x21, 0x25}},
      {writes, ACCESS, false, {0x23, 0x27}},
      {reads, WRITES, true, {0, 0}},
      {writes, WRITES, false, {0, 0x27}},
      {writes, WRITES, true, {0x23, 0x27}},
      {jumps, ACCESS | WRITES, true, {0, 0}},
      {reads, ~(uint64_t)(ACCESS | WRITES) & 0xffffffcc, true, {0, 0}},
  };
  soft_system system = begin();
  for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
    for (unsigned ring = 0; ring <= 3; ring += 3) {
      test_note("row %u, ring %u", i, ring);
      struct kvm_sregs sregs = system.sregs;
      system_enter_ring(&system, &sregs, ring);
      sregs.cr0 |= rows[i].protects ? CR0_WP : 0;
      struct kvm_regs regs = {.rax = rows[i].pkru, .rdi = KEYED};
      system_put(&system, KEYED, 0xe6 | SYSTEM_AT_END << 8, 2);
      system_end end = system_run(&system, &sregs, regs, rows[i].code, 5);
      int error = rows[i].error[ring == 3];
      SYSTEM_CHECK(end, error ? 14 : SYSTEM_END, error);
      CHECK_EQ(end.sregs.cr2, error ? KEYED : 0);
    }
  }
  system_close(&system);
}

/* What the TLB had of a page before is not what it lets after. */
static void wrpkru_counts_at_once(void) {
  /* mov eax, [rdi]; mov eax, 4; wrpkru; mov eax, [rdi] */
  static const char code[] = "\x8b\x07\xb8\x04\x00\x00\x00\x0f\x01\xef\x8b\x07";
  soft_system system = begin();
  system_end end = SYSTEM_RUN(&system, 3, ((struct kvm_regs){.rdi = KEYED}), code);
  SYSTEM_CHECK(end, 14, 0x25);
  CHECK_EQ(end.frame[0], GUEST_CODE + 10);
  system_close(&system);
}

static void wrpkru_and_rdpkru_have_their_conditions(void) {
  static const struct {
    const char *code;
    uint64_t rcx, rdx;
    uint64_t off; /* of CR4 */
    int vector;
  } rows[] = {
      {"\x0f\x01\xef", 0, 0, 0, SYSTEM_END},
      {"\x0f\x01\xef", 1, 0, 0, 13},
      {"\x0f\x01\xef", 0, 1, 0, 13},
      {"\x0f\x01\xef", UINT64_C(1) << 32, UINT64_C(1) << 32, 0, SYSTEM_END},
      {"\x0f\x01\xef", 1, 0, CR4_PKE, 6},
      {"\x0f\x01\xee", 0, 5, 0, SYSTEM_END},
      {"\x0f\x01\xee", 1, 0, 0, 13},
      {"\x0f\x01\xee", 1, 0, CR4_PKE, 6},
  };
  soft_system system = begin();
  for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
    test_note("row %u", i);
    struct kvm_sregs sregs = system.sregs;
    sregs.cr4 &= ~rows[i].off;
    struct kvm_regs regs = {.rcx = rows[i].rcx, .rdx = rows[i].rdx};
    SYSTEM_CHECK(system_run(&system, &sregs, regs, rows[i].code, 3), rows[i].vector, 0);
  }
  system_close(&system);
}

/* mov eax, 0x1234; wrpkru; xor eax, eax; mov rdx, -1; rdpkru */
static void rdpkru_reads_what_wrpkru_wrote(void) {
  static const char code[] = "\xb8\x34\x12\x00\x00\x0f\x01\xef\x31\xc0"
                             "\x48\xc7\xc2\xff\xff\xff\xff\x0f\x01\xee";
  soft_system system = begin();
  system_end end = SYSTEM_RUN(&system, 3, ((struct kvm_regs){.rax = 0}), code);
  SYSTEM_CHECK(end, SYSTEM_END, 0);
  CHECK_EQ(end.regs.rax, 0x1234);
  CHECK_EQ(end.regs.rdx, 0);
  system_close(&system);
}

static void give_supported_cpuid(const soft_system *system, struct kvm_cpuid2 *table) {
  table->nent = 64;
  CHECK_EQ(guest_call(system->guest.kvm, KVM_GET_SUPPORTED_CPUID, table), 0);
  CHECK_EQ(guest_call(system->guest.cpu, KVM_SET_CPUID2, table), 0);
}

/* mov eax, 7; xor ecx, ecx; cpuid: PKU is there, and OSPKE follows CR4. */
static void cpuid_tells_of_pku_and_cr4(void) {
  static const char code[] = "\xb8\x07\x00\x00\x00\x31\xc9\x0f\xa2";
  soft_system system = begin();
  struct kvm_cpuid2 *table = calloc(1, sizeof *table + 64 * sizeof *table->entries);
  give_supported_cpuid(&system, table);
  for (unsigned on = 0; on < 2; on++) {
    struct kvm_sregs sregs = system.sregs;
    sregs.cr4 = on ? sregs.cr4 | CR4_PKE : sregs.cr4 & ~(uint64_t)CR4_PKE;
    system_end end =
        system_run(&system, &sregs, (struct kvm_regs){.rax = 0}, code, sizeof code - 1);
    SYSTEM_CHECK(end, SYSTEM_END, 0);
    CHECK_EQ(end.regs.rcx >> 3 & 3, on ? 3 : 1);
  }
  free(table);
  system_close(&system);
}

int main(void) {
  RUN(pkru_denies_data_of_user_pages_and_no_fetch);
  RUN(wrpkru_counts_at_once);
  RUN(wrpkru_and_rdpkru_have_their_conditions);
  RUN(rdpkru_reads_what_wrpkru_wrote);
  RUN(cpuid_tells_of_pku_and_cr4);
  return test_end();
}
