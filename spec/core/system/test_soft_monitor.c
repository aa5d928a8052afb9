/* SPDX-License-Identifier: MIT
 * MONITOR and MWAIT on the software CPU, which there are where the vCPU's table says so. */
#include "fixture/soft_system.h"

#define WAIT "\x0f\x01\xc9"      /* mwait */
#define BOTH "\x0f\x01\xc8" WAIT /* monitor; mwait */

static void give_table(const soft_system *system, bool monitor, bool breaks) {
  struct kvm_cpuid2 *table = calloc(1, sizeof *table + 2 * sizeof *table->entries);
  table->nent = 2;
  table->entries[0] = (struct kvm_cpuid_entry2){.function = 1, .ecx = monitor ? 8 : 0};
  table->entries[1] = (struct kvm_cpuid_entry2){.function = 5, .ecx = breaks ? 3 : 0};
  CHECK_EQ(guest_call(system->guest.cpu, KVM_SET_CPUID2, table), 0);
  free(table);
}

static void they_are_there_where_cpuid_says_so(void) {
  static const struct {
    const char *code;
    unsigned size;
    bool monitor, breaks;
    unsigned ring;
    uint64_t rax, rcx;
    int vector;
    uint64_t error;
  } rows[] = {
      {BOTH, 6, true, false, 0, SYSTEM_DATA, 0, SYSTEM_END, 0},
      {BOTH, 6, false, false, 0, SYSTEM_DATA, 0, 6, 0},
      {BOTH, 6, true, false, 3, SYSTEM_DATA, 0, 6, 0},
      {BOTH, 6, true, false, 0, SYSTEM_DATA, 1, 13, 0},
      {BOTH, 6, true, false, 0, GUEST_SIZE, 0, 14, 0},
      {BOTH, 6, true, false, 0, UINT64_C(1) << 63, 0, 13, 0},
      {WAIT, 3, false, false, 0, 0, 0, 6, 0},
      {WAIT, 3, true, false, 3, 0, 0, 6, 0},
      {WAIT, 3, true, true, 0, 0, 1, SYSTEM_END, 0},
      {WAIT, 3, true, false, 0, 0, 1, 13, 0},
      {WAIT, 3, true, true, 0, 0, 2, 13, 0},
  };
  for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
    test_note("row %u", i);
    soft_system system = system_open(SYSTEM_64);
    give_table(&system, rows[i].monitor, rows[i].breaks);
    struct kvm_regs regs = {.rax = rows[i].rax, .rcx = rows[i].rcx};
    system_end end = system_run_in(&system, rows[i].ring, regs, rows[i].code, rows[i].size);
    SYSTEM_CHECK(end, rows[i].vector, rows[i].error);
    system_close(&system);
  }
}

/* FS is what the address is in: monitor with a prefix. */
static void the_segment_can_be_another(void) {
  soft_system system = system_open(SYSTEM_64);
  give_table(&system, true, false);
  struct kvm_sregs sregs = system.sregs;
  sregs.fs.base = 0x40000000;
  struct kvm_regs regs = {.rax = 0x123};
  system_end end = system_run(&system, &sregs, regs, "\x64\x0f\x01\xc8", 4);
  SYSTEM_CHECK(end, 14, 0);
  CHECK_EQ(end.sregs.cr2, 0x40000123);
  system_close(&system);
}

int main(void) {
  RUN(they_are_there_where_cpuid_says_so);
  RUN(the_segment_can_be_another);
  return test_end();
}
