/* SPDX-License-Identifier: MIT
 * Exceptions that arrive at the stubs of the system area. */
#include "fixture/mode_fixture.h"

#include "vcpu/mode.h"
#include "vcpu/system.h"

/* The guest's state when the stub of an exception does its OUT. */
static struct kvm_regs stub_regs;
static struct kvm_sregs stub_sregs;
static fake_step stub_step;

static void store(uint64_t gpa, uint64_t value, size_t size) {
  memcpy(host(gpa), &value, size);
}

/* Enters once, so that KVM has the first state; then the processor takes an exception.
 * `rip_offset` is where in the stub KVM says that the guest is. */
static void take_exception(int vector, uint64_t stack, uint64_t rip_offset) {
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  stub_regs = *fake_regs();
  stub_sregs = *fake_sregs();
  stub_regs.rip =
      luna_vcpu_system(vcpu) + LUNA_SYSTEM_STUBS + (uint64_t)vector * LUNA_STUB_SIZE + rip_offset;
  stub_regs.rsp = stack;
  stub_regs.rflags = 0x2;
  stub_sregs.cr2 = 0xdeadb000;
  stub_step = (fake_step){.kind = FAKE_PIO,
                          .address = LUNA_EXCEPTION_PORT,
                          .size = 1,
                          .write = true,
                          .regs = &stub_regs,
                          .sregs = &stub_sregs};
  fake_script(&stub_step, 1);
}

/* What a 64-bit processor pushes on the first interrupt stack. */
static uint64_t push_frame64(bool code, const uint64_t *words) {
  size_t count = code ? 6 : 5;
  uint64_t stack = luna_vcpu_system(vcpu) + LUNA_SYSTEM_STACK_TOP - count * 8;
  for (size_t i = 0; i < count; i++) {
    store(stack + i * 8, words[i + !code], 8);
  }
  return stack;
}

static void check_resumes(uint64_t rip, uint64_t rsp, uint64_t cs, uint64_t ss) {
  fake_script(NULL, 0);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(fake_regs()->rip, rip);
  CHECK_EQ(fake_regs()->rsp, rsp);
  CHECK_EQ(fake_sregs()->cs.selector, cs);
  CHECK_EQ(fake_sregs()->ss.selector, ss);
}

static void check_exception64(uint32_t mode, int vector, bool code, uint64_t rip_offset) {
  bool user = mode == LUNA_MODE_USER64;
  const uint64_t cs = user ? LUNA_SELECTOR_USER_CODE64 : LUNA_SELECTOR_CODE64;
  const uint64_t ss = user ? LUNA_SELECTOR_USER_DATA : LUNA_SELECTOR_DATA;
  const uint64_t words[] = {0x15, 0x401000, cs, 0x10246, 0x7ff8, ss};
  test_note("mode %u, vector %d", mode, vector);
  begin(mode);
  uint64_t stack = push_frame64(code, words);
  take_exception(vector, stack, rip_offset);
  stub_sregs.cs = luna_mode_segment(0x00af9b000000ffff, LUNA_SELECTOR_CODE64);
  stub_sregs.ss = (struct kvm_segment){.unusable = 1};
  fake_forget();
  CHECK_EQ(run(), LUNA_EXIT_EXCEPTION);
  CHECK_EQ(fake_calls(KVM_RUN), 2); /* the OUT is finished */
  CHECK_EQ(e->vector, vector);
  CHECK_EQ(e->error_code, code ? 0x15 : 0);
  CHECK_EQ(e->address, vector == 14 ? 0xdeadb000 : 0);
  CHECK_EQ(e->size | e->access | e->trap, 0);
  CHECK_EQ(get(LUNA_RIP), 0x401000);
  CHECK_EQ(get(LUNA_RSP), 0x7ff8);
  CHECK_EQ(get(LUNA_RFLAGS), 0x10246);
  check_segment(LUNA_CS_SELECTOR, cs, 0, 0xffffffff, user ? 0xa0fb : 0xa09b);
  check_segment(LUNA_SS_SELECTOR, ss, 0, 0xffffffff, user ? 0xc0f3 : 0xc093);
  CHECK_EQ(luna_vcpu_answer(vcpu, 0), LUNA_ERROR_STATE);
  check_resumes(0x401000, 0x7ff8, cs, ss);
  end();
}

static void exceptions64(void) {
  static const int with_code[] = {8, 10, 11, 12, 13, 14, 17, 21, 29, 30};
  for (int vector = 0; vector < 32; vector++) {
    bool code = false;
    for (size_t i = 0; i < sizeof with_code / sizeof *with_code; i++) {
      code = code || with_code[i] == vector;
    }
    check_exception64(LUNA_MODE_LONG64, vector, code, 0);
    check_exception64(LUNA_MODE_USER64, vector, code, 2);
  }
}

/* In 32-bit protected mode the processor pushes onto the guest's own stack. */
static void check_exception32(int vector, bool code) {
  const uint32_t words[] = {0x18, 0x5000, LUNA_SELECTOR_CODE32, 0x246};
  size_t count = code ? 4 : 3;
  test_note("vector %d", vector);
  begin(LUNA_MODE_PROT32);
  map(0x7000, PAGE, RW);
  uint64_t stack = 0x7ff0 - count * 4;
  for (size_t i = 0; i < count; i++) {
    store(stack + i * 4, words[i + !code], 4);
  }
  take_exception(vector, stack, 0);
  CHECK_EQ(run(), LUNA_EXIT_EXCEPTION);
  CHECK_EQ(e->vector, vector);
  CHECK_EQ(e->error_code, code ? 0x18 : 0);
  CHECK_EQ(get(LUNA_RIP), 0x5000);
  CHECK_EQ(get(LUNA_RSP), 0x7ff0);
  CHECK_EQ(get(LUNA_RFLAGS), 0x246);
  check_segment(LUNA_CS_SELECTOR, LUNA_SELECTOR_CODE32, 0, 0xffffffff, 0xc09b);
  check_resumes(0x5000, 0x7ff0, LUNA_SELECTOR_CODE32, LUNA_SELECTOR_DATA);
  end();
}

static void exceptions32(void) {
  check_exception32(0, false);
  check_exception32(6, false);
  check_exception32(13, true);
  check_exception32(14, true);
}

/* With paging, the stack is where the guest's tables lead: here linear 0x7000 is gpa 0x9000. */
static void exception_on_a_paged_stack(void) {
  const uint32_t words[] = {0x5000, LUNA_SELECTOR_CODE32, 0x246};
  begin(LUNA_MODE_PROT32);
  map(0x7000, UINT64_C(3) * PAGE, RW);
  map(0x20000, UINT64_C(2) * PAGE, RW);
  uint64_t large = 0xfe800000; /* of 4 MiB, with the system area in it */
  store(0x20000, 0x21003, 4);
  store(0x20000 + (large >> 22) * 4, large | 0x83, 4);
  store(0x21000 + 7 * 4, 0x9003, 4);
  for (size_t i = 0; i < 3; i++) {
    store(0x9fe0 + i * 4, words[i], 4);
  }
  take_exception(6, 0x7ee0, 0);
  stub_sregs.cr0 |= 0x80000000;
  stub_sregs.cr3 = 0x20000;
  stub_sregs.cr4 = 0x10;
  stub_sregs.ss.base = 0x100;
  CHECK_EQ(run(), LUNA_EXIT_EXCEPTION);
  CHECK_EQ(get(LUNA_RIP), 0x5000);
  CHECK_EQ(get(LUNA_RSP), 0x7eec);
  end();
}

/* The handler can put the guest elsewhere. */
static void exception_skipped(void) {
  const uint64_t words[] = {0, 0x401000, LUNA_SELECTOR_CODE64, 2, 0x7ff8, LUNA_SELECTOR_DATA};
  begin(LUNA_MODE_LONG64);
  uint64_t stack = push_frame64(false, words);
  take_exception(6, stack, 0);
  CHECK_EQ(run(), LUNA_EXIT_EXCEPTION);
  CHECK_OK(luna_vcpu_set(vcpu, LUNA_RIP, 0x401002));
  check_resumes(0x401002, 0x7ff8, LUNA_SELECTOR_CODE64, LUNA_SELECTOR_DATA);
  end();
}

/* A device may own the port of the stubs: only an OUT of one byte at a stub is an exception. */
static void port_of_the_stubs(void) {
  begin(LUNA_MODE_LONG64);
  uint32_t trap;
  CHECK_OK(luna_vm_trap(vm, LUNA_TRAP_PIO, LUNA_EXCEPTION_PORT, 1, &trap));
  take_exception(6, 0, 0);
  uint64_t stubs = luna_vcpu_system(vcpu) + LUNA_SYSTEM_STUBS;
  for (int i = 0; i < 4; i++) {
    test_note("case %d", i);
    stub_regs.rip = i == 0 ? 0x1000 : i == 1 ? stubs - 2 : stubs;
    stub_step.write = i != 2;
    stub_step.size = i == 3 ? 2 : 1;
    fake_script(&stub_step, 1);
    CHECK_EQ(run(), LUNA_EXIT_PIO);
    CHECK_EQ(e->address, LUNA_EXCEPTION_PORT);
    CHECK_EQ(e->trap, trap);
    CHECK_OK(luna_vcpu_answer(vcpu, 0));
  }
  end();
}

static void frame_out_of_reach(void) {
  begin(LUNA_MODE_LONG64);
  take_exception(13, 0x40000000, 0);
  CHECK_FAILS(run(), LUNA_ERROR_SYSTEM,
              "vCPU 0 took exception 13, but its frame at rsp 0x40000000 or the GDT at");
  end();
}

/* The frame names a selector that the GDT does not have. */
static void selector_out_of_reach(void) {
  const uint64_t words[] = {0, 0x401000, 0x1008, 2, 0x7ff8, LUNA_SELECTOR_DATA};
  begin(LUNA_MODE_LONG64);
  uint64_t stack = push_frame64(false, words);
  take_exception(6, stack, 0);
  CHECK_FAILS(run(), LUNA_ERROR_SYSTEM, "the guest has overwritten what the exception needs");
  end();
}

static void no_stubs_without_area(void) {
  begin(LUNA_MODE_REAL);
  static const struct kvm_regs regs = {.rip = LUNA_SYSTEM_STUBS, .rflags = 2};
  static const fake_step out = {
      .kind = FAKE_PIO, .address = LUNA_EXCEPTION_PORT, .size = 1, .write = true, .regs = &regs};
  fake_script(&out, 1);
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  end();
}

int main(void) {
  RUN(exceptions64);
  RUN(exceptions32);
  RUN(exception_on_a_paged_stack);
  RUN(exception_skipped);
  RUN(port_of_the_stubs);
  RUN(frame_out_of_reach);
  RUN(selector_out_of_reach);
  RUN(no_stubs_without_area);
  return test_end();
}
