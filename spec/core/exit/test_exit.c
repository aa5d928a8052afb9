/* SPDX-License-Identifier: MIT
 * Exits: each kind decoded, answered and retried. */
#include "fixture/vcpu_fixture.h"

/* ---- Exits ---- */

static void halt(void) {
  begin();
  SCRIPT({.kind = FAKE_HLT}, {.kind = FAKE_SHUTDOWN});
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(e->kind, LUNA_EXIT_HLT);
  CHECK_EQ(e->reason, KVM_EXIT_HLT);
  check_access(0, 0, 0, 0);
  CHECK_FAILS(luna_vcpu_answer(vcpu, 0), LUNA_ERROR_STATE, "vCPU 0 has no open exit to answer");
  CHECK_FAILS(luna_vcpu_retry(vcpu), LUNA_ERROR_STATE, "has no open exit to answer");
  CHECK_EQ(run(), LUNA_EXIT_SHUTDOWN);
  CHECK_EQ(e->reason, KVM_EXIT_SHUTDOWN);
  CHECK_EQ(luna_vcpu_exits(vcpu), 2);
  CHECK_EQ(entries(), 2);
  end();
}

static void port_write(void) {
  begin();
  SCRIPT({.kind = FAKE_PIO, .address = 0x3f8, .size = 1, .write = true, .data = {0x41, 0xff}},
         {.kind = FAKE_PIO, .address = 0x80, .size = 2, .write = true, .data = {1, 2, 3}},
         {.kind = FAKE_PIO, .address = 0xcf8, .size = 4, .write = true, .data = {1, 2, 3, 0x80}});
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  check_access(0x3f8, 1, LUNA_WRITE, 0x41);
  CHECK_EQ(e->trap, 0);
  CHECK_EQ(e->reason, KVM_EXIT_IO);
  CHECK_OK(luna_vcpu_answer(vcpu, 99));
  CHECK_EQ(luna_vcpu_answer(vcpu, 99), LUNA_ERROR_STATE);
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  check_access(0x80, 2, LUNA_WRITE, 0x201);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  check_access(0xcf8, 4, LUNA_WRITE, 0x80030201);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(entries(), 4);
  end();
}

static void port_read(void) {
  begin();
  SCRIPT({.kind = FAKE_PIO, .address = 0x60, .size = 1}, {.kind = FAKE_PIO, .size = 2},
         {.kind = FAKE_PIO, .size = 4});
  set(LUNA_RAX, UINT64_C(0x1122334455667788));
  const uint64_t results[] = {UINT64_C(0x11223344556677ef), UINT64_C(0x112233445566cdef),
                              0x89abcdef};
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(run(), LUNA_EXIT_PIO);
    check_access(i ? 0 : 0x60, 1u << i, LUNA_READ, 0);
    CHECK_EQ(get(LUNA_RAX), i ? results[i - 1] : UINT64_C(0x1122334455667788));
    const uint64_t value = UINT64_C(0xffff89abcdef);
    CHECK_OK(luna_vcpu_answer(vcpu, value));
    fake_forget();
  }
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(get(LUNA_RAX), results[2]);
  CHECK_EQ(fake_calls(0), 1);
  end();
}

static void memory_mapped(void) {
  begin();
  uint32_t trap;
  CHECK_OK(luna_vm_trap(vm, LUNA_TRAP_MMIO, 0xd0000000, 0x100, &trap));
  SCRIPT({.kind = FAKE_MMIO,
          .address = 0xd0000010,
          .size = 8,
          .write = true,
          .data = {1, 2, 3, 4, 5, 6, 7, 8}},
         {.kind = FAKE_MMIO, .address = 0xd00000ff, .size = 4},
         {.kind = FAKE_MMIO, .address = 0xd0000100, .size = 2, .write = true, .data = {7, 8, 9}});
  CHECK_EQ(run(), LUNA_EXIT_MMIO);
  check_access(0xd0000010, 8, LUNA_WRITE, UINT64_C(0x0807060504030201));
  CHECK_EQ(e->trap, trap);
  CHECK_EQ(e->offset, 0x10);
  CHECK_EQ(e->reason, KVM_EXIT_MMIO);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  CHECK_EQ(run(), LUNA_EXIT_MMIO);
  check_access(0xd00000ff, 4, LUNA_READ, 0);
  CHECK_EQ(e->offset, 0xff);
  CHECK_OK(luna_vcpu_answer(vcpu, 0xfedcba98));
  CHECK_EQ(run(), LUNA_EXIT_FAULT);
  check_access(0xd0000100, 2, LUNA_WRITE, 0x807);
  CHECK_EQ(e->trap, 0);
  CHECK_EQ(e->offset, 0);
  CHECK_EQ(get(LUNA_RAX), 0xfedcba98);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(entries(), 4);
  end();
}

/* The answer is in the run page when KVM is entered, in the size of the access. */
static void answer_is_in_the_run_page(void) {
  begin();
  SCRIPT({.kind = FAKE_PIO, .address = 1, .size = 2}, {.kind = FAKE_MMIO, .size = 3});
  const uint8_t bytes[] = {0x34, 0x12, 0xff};
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_OK(luna_vcpu_answer(vcpu, 0xffff1234));
  const struct kvm_run *page = fake_run_page();
  CHECK(memcmp((const uint8_t *)page + page->io.data_offset, bytes, 2) == 0);
  CHECK_EQ(((const uint8_t *)page)[page->io.data_offset + 2], 0);
  CHECK_EQ(run(), LUNA_EXIT_FAULT);
  check_answer(bytes, 2);
  CHECK_OK(luna_vcpu_answer(vcpu, 0xeeff1234));
  CHECK(memcmp(page->mmio.data, bytes, 3) == 0);
  CHECK_EQ(page->mmio.data[3], 0);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  check_answer(bytes, 3);
  end();
}

static void internal_error(void) {
  begin();
  uint8_t *memory;
  map_memory(0xffff0000, 0x10000, RWX, &memory); /* the code can be fetched */
  memcpy(memory + 0xfff0, "\x0f\x0b", 2);
  SCRIPT({.kind = FAKE_INTERNAL,
          .suberror = KVM_INTERNAL_ERROR_EMULATION,
          .ndata = 4,
          .words = {1},
          .instruction = {0x0f, 0x01, 0xc8},
          .instruction_size = 3},
         {.kind = FAKE_INTERNAL, .suberror = KVM_INTERNAL_ERROR_EMULATION},
         {.kind = FAKE_INTERNAL,
          .suberror = KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON,
          .ndata = 99,
          .words = {48, 5}});
  CHECK_EQ(run(), LUNA_EXIT_INSTRUCTION);
  CHECK_EQ(e->reason, KVM_EXIT_INTERNAL_ERROR);
  CHECK_EQ(e->suberror, KVM_INTERNAL_ERROR_EMULATION);
  CHECK_EQ(e->data_count, 4);
  CHECK_EQ(e->instruction_size, 3);
  const uint8_t bytes[16] = {0x0f, 0x01, 0xc8};
  CHECK(memcmp(e->instruction, bytes, sizeof bytes) == 0);
  CHECK_EQ(run(), LUNA_EXIT_INSTRUCTION); /* KVM does not say the bytes: those in memory */
  CHECK_EQ(e->data_count, 0);
  CHECK_EQ(e->instruction_size, 15);
  CHECK_EQ(e->instruction[0], 0x0f);
  CHECK_EQ(e->instruction[1], 0x0b);
  CHECK_EQ(e->instruction[2], 0);
  CHECK_EQ(run(), LUNA_EXIT_INTERNAL);
  CHECK_EQ(e->suberror, KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON);
  CHECK_EQ(e->data_count, 16);
  CHECK_EQ(e->data[0], 48);
  CHECK_EQ(e->data[1], 5);
  end();
}

/* "Fields that a kind does not name are 0." */
static void other_fields_are_zero(void) {
  static const luna_exit zero;
  begin();
  map_memory(0xffff0000, 0x10000, RWX, NULL);
  SCRIPT({.kind = FAKE_INTERNAL,
          .suberror = KVM_INTERNAL_ERROR_EMULATION,
          .ndata = 4,
          .words = {1},
          .instruction = {0x0f, 0x01, 0xc8},
          .instruction_size = 3},
         {.kind = FAKE_HLT});
  CHECK_EQ(run(), LUNA_EXIT_INSTRUCTION);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(e->suberror, 0);
  CHECK_EQ(e->instruction_size, 0);
  CHECK_EQ(e->data_count, 0);
  CHECK(memcmp(e->instruction, zero.instruction, sizeof zero.instruction) == 0);
  CHECK(memcmp(e->data, zero.data, sizeof zero.data) == 0);
  end();
}

static void other_exits(void) {
  begin();
  SCRIPT({.kind = FAKE_FAIL_ENTRY, .value = 0x80000021},
         {.kind = FAKE_OTHER, .reason = KVM_EXIT_DEBUG},
         {.kind = FAKE_OTHER, .reason = KVM_EXIT_INTR});
  CHECK_EQ(run(), LUNA_EXIT_FAIL_ENTRY);
  CHECK_EQ(e->value, 0x80000021);
  CHECK_EQ(e->reason, KVM_EXIT_FAIL_ENTRY);
  CHECK_EQ(run(), LUNA_EXIT_OTHER);
  CHECK_EQ(e->reason, KVM_EXIT_DEBUG);
  CHECK_EQ(e->value, 0);
  CHECK_EQ(run(), LUNA_EXIT_SIGNAL);
  end();
}

static void open_exit_comes_again(void) {
  begin();
  SCRIPT({.kind = FAKE_PIO, .address = 0x60, .size = 1}, {.kind = FAKE_MMIO, .size = 4});
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(run(), LUNA_EXIT_PIO);
    check_access(0x60, 1, LUNA_READ, 0);
  }
  CHECK_EQ(entries(), 1);
  CHECK_EQ(luna_vcpu_exits(vcpu), 3);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(luna_vcpu_run(vcpu, 1), i ? LUNA_EXIT_FAULT : LUNA_EXIT_TIMEOUT);
    if (i == 0) {
      CHECK_EQ(run(), LUNA_EXIT_FAULT);
    }
  }
  CHECK_EQ(entries(), 2);
  end();
}

static void string_write(uint32_t size, const fake_step *step) {
  begin();
  uint32_t trap;
  CHECK_OK(luna_vm_trap(vm, LUNA_TRAP_PIO, step->address - 1, 8, &trap));
  fake_script(step, 1);
  for (uint32_t i = 0; i < step->count; i++) {
    test_note("size %u, element %u", size, i);
    CHECK_EQ(run(), LUNA_EXIT_PIO);
    uint64_t value = 0;
    memcpy(&value, step->data + i * size, size);
    check_access(step->address, size, LUNA_WRITE, value);
    CHECK_EQ(e->trap, trap);
    CHECK_EQ(e->offset, 1);
    CHECK_EQ(entries(), 1);
    CHECK_OK(luna_vcpu_answer(vcpu, 0));
  }
  CHECK_EQ(luna_vcpu_answer(vcpu, 0), LUNA_ERROR_STATE);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(entries(), 2);
  end();
}

static void string_read(uint32_t size, const fake_step *step) {
  begin();
  fake_script(step, 1);
  for (uint32_t i = 0; i < step->count; i++) {
    test_note("size %u, element %u", size, i);
    CHECK_EQ(run(), LUNA_EXIT_PIO);
    check_access(step->address, size, LUNA_READ, 0);
    uint64_t value = 0;
    memcpy(&value, step->data + i * size, size);
    CHECK_OK(luna_vcpu_answer(vcpu, value));
    CHECK_EQ(entries(), 1);
  }
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(entries(), 2);
  check_answer(step->data, (size_t)size * step->count);
  end();
}

static void string_io(void) {
  for (uint32_t size = 1; size <= 4; size *= 2) {
    fake_step step = {.kind = FAKE_PIO, .address = 0x1f0, .size = size, .count = 5, .write = true};
    for (uint8_t i = 0; i < FAKE_DATA_SIZE; i++) {
      step.data[i] = (uint8_t)(0xf0 - i * 3);
    }
    string_write(size, &step);
    step.write = false;
    string_read(size, &step);
  }
}

static void trap_closed_between_elements(void) {
  begin();
  uint32_t trap;
  CHECK_OK(luna_vm_trap(vm, LUNA_TRAP_PIO, 0x1f0, 8, &trap));
  SCRIPT({.kind = FAKE_PIO, .address = 0x1f2, .size = 1, .count = 2, .write = true});
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_EQ(e->trap, trap);
  CHECK_OK(luna_vm_untrap(vm, trap));
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_EQ(e->trap, 0);
  CHECK_EQ(e->offset, 0);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  end();
}

/* A trap that closes, another that takes its place: the vCPU must not go by what it found
 * before. */
static void traps_change(void) {
  begin();
  uint32_t traps[2];
  fake_endless_mmio(0xd0000040, 4, false);
  CHECK_OK(luna_vm_trap(vm, LUNA_TRAP_MMIO, 0xd0000000, 0x100, &traps[0]));
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(run(), LUNA_EXIT_MMIO);
    CHECK_EQ(e->trap, traps[0]);
    CHECK_EQ(e->offset, 0x40);
    CHECK_OK(luna_vcpu_answer(vcpu, 0));
  }
  CHECK_OK(luna_vm_untrap(vm, traps[0]));
  CHECK_EQ(run(), LUNA_EXIT_FAULT);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  CHECK_OK(luna_vm_trap(vm, LUNA_TRAP_PIO, 0, 1, &traps[0]));
  CHECK_OK(luna_vm_trap(vm, LUNA_TRAP_MMIO, 0xd0000040, 4, &traps[1]));
  CHECK_EQ(run(), LUNA_EXIT_MMIO);
  CHECK_EQ(e->trap, traps[1]);
  CHECK_EQ(e->offset, 0);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  end();
}

/* ---- Memory that is there after all ---- */

static void spurious_access(void) {
  begin();
  uint8_t *data;
  map_memory(0x100000, 2 * PAGE, RWX, &data);
  memcpy(data + 0xffe, "\x11\x22\x33\x44", 4);
  SCRIPT({.kind = FAKE_MMIO, .address = 0x100ffe, .size = 4},
         {.kind = FAKE_MMIO,
          .address = 0x101ff8,
          .size = 8,
          .write = true,
          .data = {1, 2, 3, 4, 5, 6, 7, 8}},
         {.kind = FAKE_HLT});
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(luna_vcpu_exits(vcpu), 1);
  CHECK_EQ(entries(), 3);
  CHECK_EQ(get(LUNA_RAX), 0x44332211);
  CHECK(memcmp(data + 0x1ff8, "\1\2\3\4\5\6\7\10", 8) == 0);
  end();
}

/* Half in memory, half in a hole; a write to memory that can only be read: both are the
 * script's. */
static void partial_access(void) {
  begin();
  uint8_t *data;
  map_memory(0x100000, PAGE, LUNA_READ, &data);
  SCRIPT({.kind = FAKE_MMIO, .address = 0x100ffe, .size = 4},
         {.kind = FAKE_MMIO, .address = 0x100010, .size = 4, .write = true, .data = {9, 9, 9, 9}},
         {.kind = FAKE_MMIO, .address = 0xffffe, .size = 4});
  CHECK_EQ(run(), LUNA_EXIT_FAULT);
  check_access(0x100ffe, 4, LUNA_READ, 0);
  CHECK_OK(luna_vcpu_answer(vcpu, 1));
  CHECK_EQ(run(), LUNA_EXIT_FAULT);
  check_access(0x100010, 4, LUNA_WRITE, 0x09090909);
  CHECK_FAILS(luna_vcpu_retry(vcpu), LUNA_ERROR_NOT_FOUND, "no region of space 0 allows it");
  CHECK_OK(luna_vcpu_answer(vcpu, 1));
  CHECK_EQ(run(), LUNA_EXIT_FAULT);
  check_access(0xffffe, 4, LUNA_READ, 0);
  CHECK_OK(luna_vcpu_answer(vcpu, 1));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(data[0x10], 0);
  end();
}

static void fault_retry(void) {
  begin();
  SCRIPT({.kind = FAKE_MMIO, .address = 0x200010, .size = 4},
         {.kind = FAKE_MMIO, .address = 0x300010, .size = 2, .write = true, .data = {0xcd, 0xab}});
  CHECK_EQ(run(), LUNA_EXIT_FAULT);
  CHECK_FAILS(luna_vcpu_retry(vcpu), LUNA_ERROR_NOT_FOUND,
              "cannot retry the access to gpa 0x200010: no region of space 0 allows it");
  CHECK_EQ(run(), LUNA_EXIT_FAULT);
  uint8_t *data;
  map_memory(0x200000, PAGE, LUNA_READ, &data);
  memcpy(data + 0x10, "\4\3\2\1", 4);
  CHECK_OK(luna_vcpu_retry(vcpu));
  CHECK_EQ(luna_vcpu_retry(vcpu), LUNA_ERROR_STATE);
  CHECK_EQ(run(), LUNA_EXIT_FAULT);
  CHECK_EQ(get(LUNA_RAX), 0x01020304);
  check_access(0x300010, 2, LUNA_WRITE, 0xabcd);
  map_memory(0x300000, PAGE, RWX, &data);
  CHECK_OK(luna_vcpu_retry(vcpu));
  CHECK_EQ(data[0x10] | data[0x11] << 8, 0xabcd);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(entries(), 3);
  end();
}

static void port_is_not_retried(void) {
  begin();
  SCRIPT({.kind = FAKE_PIO, .address = 0x60, .size = 1});
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_FAILS(luna_vcpu_retry(vcpu), LUNA_ERROR_UNSUPPORTED, "cannot retry a port access");
  CHECK_OK(luna_vcpu_answer(vcpu, 1));
  end();
}

static void fetch_fault(void) {
  begin();
  SCRIPT({.kind = FAKE_INTERNAL, .suberror = KVM_INTERNAL_ERROR_EMULATION}, {.kind = FAKE_HLT});
  for (int i = 0; i < 2; i++) {
    CHECK_EQ(run(), LUNA_EXIT_FAULT);
    check_access(0xfffffff0, 0, LUNA_EXECUTE, 0);
    CHECK_FAILS(luna_vcpu_answer(vcpu, 0x90), LUNA_ERROR_UNSUPPORTED,
                "cannot answer the fetch at gpa 0xfffffff0 with a value");
    CHECK_FAILS(luna_vcpu_retry(vcpu), LUNA_ERROR_NOT_FOUND, "gpa 0xfffffff0");
  }
  CHECK_EQ(entries(), 1);
  map_memory(0xffff0000, 0x10000, RWX, NULL);
  CHECK_OK(luna_vcpu_retry(vcpu));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(entries(), 2);
  end();
}

/* The other way out that the message of a fetch fault names. */
static void fetch_fault_rip_set(void) {
  begin();
  SCRIPT({.kind = FAKE_INTERNAL, .suberror = KVM_INTERNAL_ERROR_EMULATION}, {.kind = FAKE_HLT});
  CHECK_EQ(run(), LUNA_EXIT_FAULT);
  CHECK_FAILS(luna_vcpu_answer(vcpu, 0), LUNA_ERROR_UNSUPPORTED, "or set rip");
  set(LUNA_RIP, 0x1000);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(fake_regs()->rip, 0x1000);
  end();
}

/* With paging, KVM translates; where it cannot, the failure is not a fetch's. */
static void fetch_fault_paging(void) {
  static const struct kvm_sregs paging = {
      .cs = {.l = 1}, .cr0 = 0x80000001, .cr4 = 0x20, .efer = 0x500};
  static const struct kvm_regs regs = {.rip = 0x5000};
  static const fake_step steps[] = {{.kind = FAKE_INTERNAL,
                                     .suberror = KVM_INTERNAL_ERROR_EMULATION,
                                     .regs = &regs,
                                     .sregs = &paging}};
  fake_config config = fake_defaults();
  config.translate_offset = 0x100000;
  begin_with(&config);
  fake_script(steps, 1);
  CHECK_EQ(run(), LUNA_EXIT_FAULT);
  check_access(0x105000, 0, LUNA_EXECUTE, 0);
  end();
  config.translate_fails = true;
  config.sync_regs = 0;
  begin_with(&config);
  fake_script(steps, 1);
  CHECK_EQ(run(), LUNA_EXIT_INSTRUCTION);
  CHECK_EQ(e->instruction_size, 0); /* no memory is there to read it from */
  CHECK_EQ(fake_calls(KVM_SET_REGS), 0);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(fake_calls(KVM_SET_REGS), 1); /* so that KVM forgets a #UD that it has queued */
  end();
}

int main(void) {
  RUN(halt);
  RUN(port_write);
  RUN(port_read);
  RUN(memory_mapped);
  RUN(answer_is_in_the_run_page);
  RUN(internal_error);
  RUN(other_fields_are_zero);
  RUN(other_exits);
  RUN(open_exit_comes_again);
  RUN(string_io);
  RUN(trap_closed_between_elements);
  RUN(traps_change);
  RUN(spurious_access);
  RUN(partial_access);
  RUN(fault_retry);
  RUN(port_is_not_retried);
  RUN(fetch_fault);
  RUN(fetch_fault_rip_set);
  RUN(fetch_fault_paging);
  return test_end();
}
