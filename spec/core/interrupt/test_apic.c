/* SPDX-License-Identifier: MIT
 * The timer of a LAPIC in KVM over the fake: an interrupt that has come does not come again when
 * the LAPIC is written, moved or restored, and one that is still to come is not lost. */
#include "fixture/vcpu_fixture.h"

#include "kvm/kvm_interrupt.h"
#include "vcpu/vcpu.h"

enum {
  SVR = 0xf0,
  IRR_OF_VECTOR = 0x220,
  LVT_TIMER = 0x320,
  INITIAL = 0x380,
  CURRENT = 0x390,
  VECTOR = 0x55,
  IRR_BIT = 1 << (VECTOR - 0x40),
  COUNT = 100000,
  STATE_ROOM = 65536
};

static uint32_t view;
static uint8_t state[STATE_ROOM];

static uint32_t read_apic(uint32_t offset) {
  uint32_t value;
  CHECK_OK(luna_vcpu_read_apic(vcpu, offset, &value));
  return value;
}

static size_t taken(void) {
  const uint8_t *vectors;
  return fake_taken(&vectors);
}

/* A one-shot timer that counts. */
static void begin_timer(uint32_t entry) {
  const luna_vm_options options = {.irqchip = LUNA_IRQCHIP_SPLIT};
  fake_install(NULL);
  CHECK_OK(luna_vm_open(&options, &vm));
  CHECK_OK(luna_vm_space_create(vm, &view));
  CHECK_OK(luna_vcpu_create(vm, NULL, &vcpu));
  e = luna_vcpu_exit(vcpu);
  CHECK_OK(luna_vcpu_write_apic(vcpu, SVR, 0x1ff));
  CHECK_OK(luna_vcpu_write_apic(vcpu, LVT_TIMER, entry));
  CHECK_OK(luna_vcpu_write_apic(vcpu, INITIAL, COUNT));
  CHECK_EQ(read_apic(CURRENT), COUNT);
}

static void write_register(void) {
  CHECK_OK(luna_vcpu_write_apic(vcpu, SVR, 0x1fe));
}

static void write_page(void) {
  uint8_t page[LUNA_APIC_SIZE];
  CHECK_OK(luna_vcpu_get_apic(vcpu, page));
  CHECK_OK(luna_vcpu_set_apic(vcpu, page));
}

static void restore(void) {
  size_t size = sizeof state;
  CHECK_OK(luna_vcpu_save(vcpu, state, &size));
  CHECK_OK(luna_vcpu_restore(vcpu, state, size));
}

static void move(void) {
  CHECK_OK(luna_vcpu_set_space(vcpu, view, 0));
}

static void move_there_and_back(void) {
  move();
  CHECK_OK(luna_vcpu_set_space(vcpu, 0, 0));
}

static void (*const touches[])(void) = {write_register, write_page, restore, move,
                                        move_there_and_back};

enum {
  TOUCHES = sizeof touches / sizeof *touches
};

static void once(void) {
  for (int i = 0; i < TOUCHES; i++) {
    test_note("touch %d", i);
    begin_timer(VECTOR);
    fake_timer();
    CHECK_EQ(run(), LUNA_EXIT_HLT);
    CHECK_EQ(taken(), 1);
    for (int times = 0; times < 2; times++) {
      touches[i]();
      CHECK_EQ(read_apic(INITIAL), COUNT);
      CHECK_EQ(read_apic(CURRENT), 0);
      CHECK_EQ(read_apic(IRR_OF_VECTOR), 0);
      if (touches[i] == move) {
        break;
      }
    }
    CHECK_EQ(run(), LUNA_EXIT_HLT);
    CHECK_EQ(taken(), 1);
    end();
  }
}

/* It has run out, and the vCPU was not entered since. */
static void not_lost(void) {
  for (int i = 0; i < TOUCHES; i++) {
    test_note("touch %d", i);
    begin_timer(VECTOR);
    fake_timer();
    touches[i]();
    CHECK_EQ(read_apic(IRR_OF_VECTOR), IRR_BIT);
    CHECK_EQ(read_apic(INITIAL), COUNT);
    end();
  }
}

/* KVM cannot be entered before the answer: the interrupt may come twice then, and does come. */
static void with_an_open_exit(void) {
  begin_timer(VECTOR);
  SCRIPT({.kind = FAKE_PIO, .address = 0x10, .size = 1});
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  fake_timer();
  fake_forget();
  write_register();
  CHECK_EQ(fake_calls(KVM_RUN), 0);
  struct kvm_lapic_state page;
  CHECK_EQ(luna_kvm_get_lapic(vcpu->fd, &page), 0);
  uint32_t count;
  memcpy(&count, page.regs + CURRENT, sizeof count);
  CHECK_EQ(count, 1); /* KVM counts on from there */
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  end();
}

/* A processor loses one that is masked. */
static void masked(void) {
  begin_timer(VECTOR | 0x10000);
  fake_timer();
  fake_forget();
  CHECK_OK(luna_vcpu_write_apic(vcpu, LVT_TIMER, VECTOR));
  CHECK_EQ(fake_calls(KVM_RUN), 0);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(taken(), 0);
  end();
}

/* A KVM that cannot be entered so, or fails there. */
static void visit_fails(void) {
  begin_timer(VECTOR);
  set(LUNA_RBX, 7);
  set(LUNA_CR3, 0x3000);
  for (uint64_t k = 1; k <= 4; k++) {
    fake_timer();
    fake_fail(k, EIO);
    luna_vcpu_write_apic(vcpu, SVR, 0x1fe);
    fake_fail(0, 0);
    CHECK_EQ(get(LUNA_RBX), 7);
    CHECK_EQ(get(LUNA_CR3), 0x3000);
  }
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(fake_regs()->rbx, 7);
  CHECK_EQ(fake_sregs()->cr3, 0x3000);
  end();
}

/* Registers that wait for the next entry are as they were afterwards. */
static void keeps_registers(void) {
  begin_timer(VECTOR);
  set(LUNA_R9, 0x99);
  restore();
  fake_timer();
  set(LUNA_RBX, 7);
  set(LUNA_CR3, 0x3000);
  write_register();
  CHECK_EQ(read_apic(IRR_OF_VECTOR), IRR_BIT);
  CHECK_EQ(get(LUNA_R9), 0x99);
  CHECK_EQ(get(LUNA_RBX), 7);
  CHECK_EQ(get(LUNA_CR3), 0x3000);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(fake_regs()->r9, 0x99);
  CHECK_EQ(fake_regs()->rbx, 7);
  CHECK_EQ(fake_sregs()->cr3, 0x3000);
  end();
}

int main(void) {
  RUN(once);
  RUN(not_lost);
  RUN(with_an_open_exit);
  RUN(masked);
  RUN(visit_fails);
  RUN(keeps_registers);
  return test_end();
}
