/* SPDX-License-Identifier: MIT
 * What a saved state has beside the registers: interrupts that wait in the library, the VM's clock,
 * and the LAPIC. */
#include "fixture/save_fixture.h"

#include "kvm/kvm_event.h"
#include "kvm/kvm_interrupt.h"

/* ---- Interrupts that wait ---- */

static void check_taken(const char *expected) {
  const uint8_t *vectors;
  size_t count = fake_taken(&vectors);
  CHECK_EQ(count, strlen(expected));
  CHECK(memcmp(vectors, expected, count) == 0);
}

static void interrupts_that_wait(void) {
  static const struct kvm_regs open_regs = {.rflags = 0x202, .rip = 0x1000};
  begin_variant(0);
  SCRIPT({.kind = FAKE_HLT, .regs = &open_regs});
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  luna_vcpu_interrupt_vector(vcpu, 0xf1);
  luna_vcpu_interrupt_vector(vcpu, 0x41);
  CHECK_OK(luna_vcpu_nmi(vcpu));
  save();
  luna_vcpu_interrupt_vector(vcpu, 0x99);
  CHECK_OK(restore());
  halt();
  check_taken("\x02\xf1\x41");
  CHECK_OK(restore());
  CHECK_EQ(luna_vcpu_interrupt_waiting(vcpu), 0xf1);
  halt();
  check_taken("\x02\xf1\x41\x02\xf1\x41");
  end();
}

/* A restore that fails drops nothing; a state of an older library, which has none, drops all. */
static void interrupts_are_dropped(void) {
  begin_variant(0);
  save();
  luna_vcpu_interrupt_vector(vcpu, 0x55);
  fake_fail(1, EIO);
  CHECK(restore() < 0);
  CHECK_EQ(luna_vcpu_interrupt_waiting(vcpu), 0x55);
  state_size = (size_t)((uint8_t *)find_section(11) - state);
  mend_checksum();
  CHECK_OK(restore());
  CHECK_EQ(luna_vcpu_interrupt_waiting(vcpu), -1);
  end();
}

static void forged_interrupts(void) {
  static const struct {
    int word;
    uint32_t value;
    const char *part;
  } cases[] = {{1, 32, "section 11 has 32 bytes"},
               {10, 4, "interrupts 0x4 that wait"},
               {10, 2, "no KVM_CAP_X86_SMM"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    test_note("case %zu", i);
    begin_variant(0);
    save();
    uint32_t *head = find_section(11);
    CHECK(head);
    head[cases[i].word] = cases[i].value;
    mend_checksum();
    CHECK_FAILS(restore(), LUNA_ERROR_ARGUMENT, cases[i].part);
    end();
  }
}

/* ---- The clock ---- */

static uint64_t clock_of(uint32_t space) {
  uint64_t now;
  CHECK_EQ(luna_kvm_get_clock(vm->spaces[space]->vm_fd, &now), 0);
  return now;
}

/* It is the VM's: a state sets it forward in every space, and never back. */
static void clock_goes_on(void) {
  const uint64_t hour = UINT64_C(3600000000000);
  begin_variant(0);
  CHECK_EQ(luna_kvm_set_clock(vm->spaces[0]->vm_fd, hour), 0);
  uint32_t space;
  CHECK_OK(luna_vm_space_create(vm, &space));
  CHECK(clock_of(space) >= hour && clock_of(space) < 2 * hour);
  CHECK_EQ(clock_of(1), 0);
  save();
  CHECK_EQ(*(uint64_t *)(void *)(find_section(12) + 2), hour);
  CHECK_EQ(luna_kvm_set_clock(vm->spaces[0]->vm_fd, 2 * hour), 0);
  CHECK_OK(restore());
  CHECK_EQ(clock_of(0), 2 * hour);
  CHECK(clock_of(1) >= hour && clock_of(1) < 2 * hour);
  end();
}

static void save_with(uint64_t base, uint64_t clock) {
  put_all(base);
  save();
  *(uint64_t *)(void *)(find_section(12) + 2) = clock;
  mend_checksum();
}

/* A restore that fails at any call, the one that sets the clock too, leaves the state as it was:
 * that of a restored vCPU has the clock of its state, however far KVM's is by then. */
static void clock_that_fails(void) {
  static uint8_t before[ROOM], after[ROOM];
  const uint64_t hour = UINT64_C(3600000000000);
  bool failed = true;
  begin_variant(0);
  save_with(0x100, hour);
  CHECK_OK(restore());
  size_t size_before = sizeof before;
  CHECK_OK(luna_vcpu_save(vcpu, before, &size_before));
  save_with(0x500, 2 * hour);
  for (uint64_t k = 1; failed; k++) {
    test_note("call %" PRIu64, k);
    CHECK_OK(luna_vcpu_restore(vcpu, before, size_before));
    fake_fail(k, EIO);
    int status = restore();
    failed = fake_failed();
    fake_fail(0, 0);
    CHECK_EQ(status < 0, failed);
    if (failed) {
      size_t size_after = sizeof after;
      CHECK_OK(luna_vcpu_save(vcpu, after, &size_after));
      CHECK_EQ(size_after, size_before);
      CHECK(memcmp(after, before, size_after) == 0);
      check_all(0x100);
    }
  }
  CHECK(clock_of(0) >= 2 * hour);
  check_all(0x500);
  end();
}

/* ---- The LAPIC ---- */

static void begin_again(uint32_t irqchip) {
  const luna_vm_options options = {.irqchip = irqchip};
  end();
  CHECK_OK(luna_vm_open(&options, &vm));
  CHECK_OK(luna_vcpu_create(vm, NULL, &vcpu));
}

/* With a LAPIC in KVM, that and the MP state are a part. */
static void lapic(void) {
  begin_variant(0);
  save();
  begin_again(LUNA_IRQCHIP_SPLIT);
  CHECK_FAILS(restore(), LUNA_ERROR_ARGUMENT, "section 9 is missing");
  struct kvm_lapic_state one = {.regs = {[0x80] = 0x20}};
  CHECK_EQ(luna_kvm_set_lapic(vcpu->fd, &one), 0);
  CHECK_EQ(luna_kvm_set_mp_state(vcpu->fd, KVM_MP_STATE_HALTED), 0);
  save();
  find_section(11)[2] = 1;
  mend_checksum();
  CHECK_FAILS(restore(), LUNA_ERROR_ARGUMENT, "vectors that wait without a LAPIC");
  find_section(11)[2] = 0;
  mend_checksum();
  one.regs[0x80] = 0x30;
  CHECK_EQ(luna_kvm_set_lapic(vcpu->fd, &one), 0);
  CHECK_EQ(luna_kvm_set_mp_state(vcpu->fd, KVM_MP_STATE_RUNNABLE), 0);
  bool failed = true;
  for (uint64_t k = 1; failed; k++) {
    test_note("call %" PRIu64, k);
    fake_fail(k, EIO);
    int status = restore();
    failed = fake_failed();
    fake_fail(0, 0);
    CHECK_EQ(status < 0, failed);
    uint32_t mp;
    CHECK_EQ(luna_kvm_get_lapic(vcpu->fd, &one), 0);
    CHECK_EQ(luna_kvm_get_mp_state(vcpu->fd, &mp), 0);
    CHECK_EQ(one.regs[0x80], failed ? 0x30 : 0x20);
    CHECK_EQ(mp, failed ? KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_HALTED);
  }
  begin_again(LUNA_IRQCHIP_NONE);
  CHECK_FAILS(restore(), LUNA_ERROR_ARGUMENT, "section 9 is too much");
  end();
}

int main(void) {
  RUN(clock_goes_on);
  RUN(clock_that_fails);
  RUN(interrupts_that_wait);
  RUN(interrupts_are_dropped);
  RUN(forged_interrupts);
  RUN(lapic);
  return test_end();
}
