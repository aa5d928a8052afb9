/* SPDX-License-Identifier: MIT
 * Exits that come seldom, and their names. */
#include "fixture/vcpu_fixture.h"

enum {
  LAST_REASON = 41, /* KVM_EXIT_ARM_SEA */
  UNHEARD_OF = 200
};

static void names_and_texts(void) {
  for (uint32_t reason = 0; reason <= LAST_REASON; reason++) {
    test_note("reason %u", reason);
    CHECK(luna_reason_name(reason) && luna_reason_text(reason));
    CHECK(strlen(luna_reason_text(reason)) > 3);
    for (uint32_t other = 0; other < reason; other++) {
      CHECK(strcmp(luna_reason_name(reason), luna_reason_name(other)) != 0);
    }
  }
  CHECK_TEXT(luna_reason_name(KVM_EXIT_IO), "io");
  CHECK_TEXT(luna_reason_name(KVM_EXIT_X86_WRMSR), "x86_wrmsr");
  CHECK_TEXT(luna_reason_name(KVM_EXIT_NOTIFY), "notify");
  CHECK_TEXT(luna_reason_name(FAKE_EXIT_MEMORY_FAULT), "memory_fault");
  CHECK(!luna_reason_name(LAST_REASON + 1) && !luna_reason_text(LAST_REASON + 1));
  CHECK(!luna_reason_name(UINT32_MAX) && !luna_reason_text(UINT32_MAX));
}

/* Whatever KVM says, the vCPU runs on. A fault that is not retried and an access that waits are
 * answered. */
static void every_reason(void) {
  /* A port write of one byte, or an access to memory of four. */
  static const uint64_t words[16] = {UINT64_C(0x100000101), 0x1000, 4};
  for (uint32_t reason = 0; reason < UNHEARD_OF; reason++) {
    if (reason == KVM_EXIT_DIRTY_RING_FULL || reason == KVM_EXIT_IRQ_WINDOW_OPEN) {
      continue; /* the core deals with them, and this VM has no ring */
    }
    begin();
    test_note("reason %u", reason);
    fake_exit(reason, words, 16);
    int kind = run();
    CHECK(kind > 0 && luna_exit_name(kind));
    CHECK_EQ(e->reason, reason);
    if (luna_vcpu_answer(vcpu, 0) != LUNA_OK) {
      CHECK_TEXT(luna_error_message(), "no open exit");
    }
    CHECK_EQ(run(), LUNA_EXIT_HLT);
    end();
  }
}

static void unknown_reason(void) {
  uint64_t words[16];
  for (int i = 0; i < 16; i++) {
    words[i] = UINT64_C(0x0101010101010101) * (uint64_t)(i + 1);
  }
  begin();
  fake_exit(UNHEARD_OF, words, 16);
  CHECK_EQ(run(), LUNA_EXIT_OTHER);
  CHECK_EQ(e->reason, UNHEARD_OF);
  CHECK_EQ(e->data_count, 16);
  CHECK(memcmp(e->data, words, sizeof words) == 0);
  check_access(0, 0, 0, 0);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(e->data_count, 0);
  CHECK_EQ(e->data[0], 0);
  CHECK_EQ(e->data[15], 0);
  end();
}

static void system_event(void) {
  begin();
  const uint64_t words[] = {KVM_SYSTEM_EVENT_CRASH | UINT64_C(2) << 32, 7, 8, 9};
  fake_exit(KVM_EXIT_SYSTEM_EVENT, words, 4);
  CHECK_EQ(run(), LUNA_EXIT_SYSTEM_EVENT);
  CHECK_EQ(e->value, KVM_SYSTEM_EVENT_CRASH);
  CHECK_EQ(e->data_count, 2);
  CHECK_EQ(e->data[0], 7);
  CHECK_EQ(e->data[1], 8);
  CHECK_EQ(e->data[2], 0);
  CHECK_EQ(luna_vcpu_answer(vcpu, 0), LUNA_ERROR_STATE);
  const uint64_t many[] = {KVM_SYSTEM_EVENT_RESET | UINT64_C(17) << 32};
  fake_exit(KVM_EXIT_SYSTEM_EVENT, many, 1);
  CHECK_EQ(run(), LUNA_EXIT_SYSTEM_EVENT);
  CHECK_EQ(e->data_count, 16);
  end();
}

static void interrupt_ends(void) {
  begin();
  const uint64_t words[] = {0xffffff21};
  fake_exit(KVM_EXIT_IOAPIC_EOI, words, 1);
  CHECK_EQ(run(), LUNA_EXIT_EOI);
  CHECK_EQ(e->vector, 0x21);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(e->vector, 0);
  end();
}

static void task_priority(void) {
  static struct kvm_sregs sregs;
  begin();
  sregs = *fake_sregs();
  sregs.cr8 = 5;
  SCRIPT({.kind = FAKE_OTHER, .reason = KVM_EXIT_SET_TPR, .sregs = &sregs},
         {.kind = FAKE_OTHER, .reason = KVM_EXIT_TPR_ACCESS, .words = {0x1234, 1}},
         {.kind = FAKE_OTHER, .reason = KVM_EXIT_TPR_ACCESS, .words = {0x5678, 0}});
  CHECK_EQ(run(), LUNA_EXIT_TPR);
  check_access(0, 0, 0, 5);
  CHECK_EQ(run(), LUNA_EXIT_TPR);
  check_access(0x1234, 0, LUNA_WRITE, 0);
  CHECK_EQ(luna_vcpu_answer(vcpu, 0), LUNA_ERROR_STATE);
  CHECK_EQ(run(), LUNA_EXIT_TPR);
  check_access(0x5678, 0, LUNA_READ, 0);
  end();
}

/* ---- Hypercalls ---- */

static const uint64_t map_gpa_range[] = {12, 0x1000, 2, 0x11, 4, 5, 6, 99, 1};

static void begin_hypercall(void) {
  begin();
  set(LUNA_RAX, 12);
  set(LUNA_RIP, 0x100);
  fake_exit(KVM_EXIT_HYPERCALL, map_gpa_range, 9);
  CHECK_EQ(run(), LUNA_EXIT_HYPERCALL);
}

static void hypercall(void) {
  begin_hypercall();
  check_access(0, 8, LUNA_READ, 12);
  CHECK_EQ(e->data_count, 7);
  CHECK(memcmp(e->data, map_gpa_range + 1, 6 * sizeof *map_gpa_range) == 0);
  CHECK_EQ(e->data[6], 1);
  CHECK_EQ(run(), LUNA_EXIT_HYPERCALL); /* it waits */
  CHECK_FAILS(luna_vcpu_retry(vcpu), LUNA_ERROR_UNSUPPORTED, "cannot retry a hypercall: answer it");
  CHECK_OK(luna_vcpu_answer(vcpu, UINT64_C(0x1122334455667788)));
  CHECK_EQ(get(LUNA_RAX), 12);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(get(LUNA_RAX), UINT64_C(0x1122334455667788));
  CHECK_EQ(get(LUNA_RIP), 0x100 + FAKE_INSTRUCTION_LENGTH);
  CHECK_EQ(e->data[0], 0);
  end();
}

/* A register that is written at the exit counts as written after the instruction. */
static void hypercall_and_registers(void) {
  begin_hypercall();
  CHECK_OK(luna_vcpu_answer(vcpu, 7));
  set(LUNA_RAX, 8);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(get(LUNA_RAX), 8);
  end();
}

static void hypercall_taken_back(void) {
  begin_hypercall();
  CHECK_OK(luna_vcpu_inject(vcpu, 13, 0, 0));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(get(LUNA_RAX), 12);
  CHECK_EQ(get(LUNA_RIP), 0x100);
  end();
}

static void hypercall_abandoned(void) {
  begin_hypercall();
  end();
}

static void hypercalls_handed_on(void) {
  uint32_t space;
  begin();
  CHECK_EQ(fake_hypercalls(), 0);
  CHECK_OK(luna_vm_hypercalls(vm));
  CHECK_EQ(fake_hypercalls(), 1 << 12);
  CHECK_OK(luna_vm_space_create(vm, &space));
  CHECK_EQ(fake_hypercalls(), 1 << 12); /* of the new space's KVM VM */
  end();
}

static void hypercalls_not_there(void) {
  fake_config config = fake_defaults();
  config.exit_hypercall = 0;
  begin_with(&config);
  CHECK_FAILS(luna_vm_hypercalls(vm), LUNA_ERROR_UNSUPPORTED, "KVM_CAP_EXIT_HYPERCALL");
  uint32_t space;
  CHECK_OK(luna_vm_space_create(vm, &space));
  CHECK_EQ(fake_hypercalls(), 0);
  end();
}

int main(void) {
  RUN(names_and_texts);
  RUN(every_reason);
  RUN(unknown_reason);
  RUN(system_event);
  RUN(interrupt_ends);
  RUN(task_priority);
  RUN(hypercall);
  RUN(hypercall_and_registers);
  RUN(hypercall_taken_back);
  RUN(hypercall_abandoned);
  RUN(hypercalls_handed_on);
  RUN(hypercalls_not_there);
  return test_end();
}
