/* SPDX-License-Identifier: MIT
 * What a controller of the embedder's needs: the moment when the guest accepts an interrupt, what
 * keeps it from that, a PIC's vector for a LAPIC in KVM; and finishing an instruction without
 * running on. */
#include "fixture/vcpu_fixture.h"

static const struct kvm_regs open_regs = {.rflags = 0x202, .rip = 0x1000};
static const struct kvm_regs closed_regs = {.rflags = 2, .rip = 0x1000};

/* ---- Windows ---- */

static void check_window(void) {
  CHECK_EQ(run(), LUNA_EXIT_OTHER);
  CHECK_EQ(e->reason, KVM_EXIT_IRQ_WINDOW_OPEN);
}

static void windows(void) {
  for (int sync = 0; sync < 2; sync++) {
    begin_synced(sync);
    SCRIPT({.kind = FAKE_PIO, .address = 1, .size = 1, .write = true, .regs = &closed_regs},
           {.kind = FAKE_PIO, .address = 2, .size = 1, .write = true, .regs = &open_regs},
           {.kind = FAKE_HLT}, {.kind = FAKE_HLT});
    CHECK_EQ(run(), LUNA_EXIT_PIO);
    CHECK_OK(luna_vcpu_window(vcpu, 1));
    CHECK_OK(luna_vcpu_answer(vcpu, 0));
    CHECK_EQ(run(), LUNA_EXIT_PIO); /* up to here it does not accept any */
    CHECK_OK(luna_vcpu_answer(vcpu, 0));
    check_window();
    check_window(); /* it does still */
    CHECK_OK(luna_vcpu_window(vcpu, 0));
    CHECK_EQ(run(), LUNA_EXIT_HLT);
    CHECK_EQ(fake_run_page()->request_interrupt_window, 0);
    end();
  }
}

static void windows_behind_an_answer(void) {
  static const struct kvm_regs regs = {.rflags = 0x202, .rip = 0x1000, .rax = 0x11};
  begin();
  SCRIPT({.kind = FAKE_PIO, .address = 1, .size = 1, .regs = &regs}, {.kind = FAKE_HLT});
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_OK(luna_vcpu_window(vcpu, 1));
  CHECK_OK(luna_vcpu_answer(vcpu, 0x22));
  check_window();
  CHECK_EQ(get(LUNA_RIP), 0x1000 + FAKE_INSTRUCTION_LENGTH);
  CHECK_EQ(get(LUNA_RAX), 0x22);
  CHECK_OK(luna_vcpu_window(vcpu, 0));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  end();
}

static void windows_wait_for_the_rest_of_an_access(void) {
  begin();
  SCRIPT({.kind = FAKE_MMIO, .address = 0x1000, .size = 8, .continues = true, .regs = &open_regs},
         {.kind = FAKE_MMIO, .address = 0x1008, .size = 8}, {.kind = FAKE_HLT});
  CHECK_EQ(run(), LUNA_EXIT_FAULT);
  CHECK_OK(luna_vcpu_window(vcpu, 1));
  CHECK_OK(luna_vcpu_answer(vcpu, 1));
  CHECK_EQ(run(), LUNA_EXIT_FAULT);
  CHECK_EQ(e->address, 0x1008);
  CHECK_OK(luna_vcpu_answer(vcpu, 2));
  check_window();
  end();
}

static void windows_shut_in_another_space(void) {
  uint32_t space;
  begin();
  CHECK_OK(luna_vm_space_create(vm, &space));
  SCRIPT({.kind = FAKE_HLT, .regs = &open_regs}, {.kind = FAKE_HLT}, {.kind = FAKE_HLT});
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_OK(luna_vcpu_window(vcpu, 1));
  check_window();
  CHECK_OK(luna_vcpu_set_space(vcpu, space, 0));
  CHECK_OK(luna_vcpu_window(vcpu, 0));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_OK(luna_vcpu_set_space(vcpu, 0, 0));
  CHECK_EQ(run(), LUNA_EXIT_HLT); /* nothing there still asks for the window */
  CHECK_EQ(fake_run_page()->request_interrupt_window, 0);
  end();
}

/* ---- Blocking ---- */

static void blocking(void) {
  uint32_t found = 1;
  begin();
  CHECK_OK(luna_vcpu_get_blocking(vcpu, &found));
  CHECK_EQ(found, 0);
  for (uint32_t bits = 0; bits < 16; bits++) {
    if (bits & 4) {
      CHECK_FAILS(luna_vcpu_set_blocking(vcpu, bits), LUNA_ERROR_ARGUMENT, "0xb are known");
      continue;
    }
    CHECK_OK(luna_vcpu_set_blocking(vcpu, bits));
    CHECK_OK(luna_vcpu_get_blocking(vcpu, &found));
    CHECK_EQ(found, bits);
    CHECK_EQ(run(), LUNA_EXIT_HLT);
    CHECK_OK(luna_vcpu_get_blocking(vcpu, &found));
    CHECK_EQ(found, bits); /* KVM has it */
  }
  end();
}

static void blocking_fails(void) {
  uint32_t found;
  begin_without_sync();
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  fake_fail(1, ENOMEM);
  CHECK_FAILS(luna_vcpu_get_blocking(vcpu, &found), LUNA_ERROR_MEMORY, "the events of vCPU 0");
  fake_fail(1, ENOMEM);
  CHECK_FAILS(luna_vcpu_set_blocking(vcpu, 1), LUNA_ERROR_MEMORY, "the events of vCPU 0");
  end();
}

/* ---- A PIC's vector ---- */

static void extint(void) {
  const luna_vm_options options = {.irqchip = LUNA_IRQCHIP_SPLIT};
  begin();
  CHECK_FAILS(luna_vcpu_extint(vcpu, 8), LUNA_ERROR_STATE, "irqchip 'split'");
  end();
  CHECK_OK(luna_vm_open(&options, &vm));
  CHECK_OK(luna_vcpu_create(vm, NULL, &vcpu));
  CHECK_FAILS(luna_vcpu_extint(vcpu, 256), LUNA_ERROR_RANGE, "the last is 255");
  CHECK_OK(luna_vcpu_extint(vcpu, 8));
  CHECK_FAILS(luna_vcpu_extint(vcpu, 9), LUNA_ERROR_BUSY, "waiting already");
  fake_fail(1, ENOMEM);
  CHECK_FAILS(luna_vcpu_extint(vcpu, 9), LUNA_ERROR_MEMORY, "vector 9");
  SCRIPT({.kind = FAKE_HLT, .regs = &open_regs}, {.kind = FAKE_HLT});
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(run(), LUNA_EXIT_HLT);      /* now it is taken, */
  CHECK_OK(luna_vcpu_extint(vcpu, 9)); /* and there is room for another */
  static const fake_step spin[] = {{.kind = FAKE_SPIN}};
  fake_script_endless(spin, 1);
  CHECK_OK(luna_vcpu_start(vcpu));
  CHECK_FAILS(luna_vcpu_extint(vcpu, 8), LUNA_ERROR_STATE, "its thread has it");
  CHECK_OK(luna_vcpu_stop(vcpu));
  end();
}

/* ---- Finishing ---- */

static void finish(void) {
  static const struct kvm_regs regs = {.rip = 0x1000, .rax = 0x11};
  begin();
  SCRIPT({.kind = FAKE_PIO, .address = 1, .size = 1, .regs = &regs}, {.kind = FAKE_HLT});
  CHECK_OK(luna_vcpu_finish(vcpu)); /* nothing is under way */
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_EQ(get(LUNA_RIP), 0x1000);
  CHECK_FAILS(luna_vcpu_finish(vcpu), LUNA_ERROR_STATE, "answer its exit first");
  CHECK_OK(luna_vcpu_answer(vcpu, 0x22));
  fake_forget();
  CHECK_OK(luna_vcpu_finish(vcpu));
  CHECK_EQ(entries(), 1);
  CHECK_EQ(get(LUNA_RIP), 0x1000 + FAKE_INSTRUCTION_LENGTH);
  CHECK_OK(luna_vcpu_finish(vcpu));
  CHECK_EQ(entries(), 1);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  end();
}

static void finish_in_parts(void) {
  begin();
  SCRIPT({.kind = FAKE_MMIO, .address = 0x1000, .size = 8, .continues = true},
         {.kind = FAKE_MMIO, .address = 0x1008, .size = 8}, {.kind = FAKE_HLT});
  CHECK_EQ(run(), LUNA_EXIT_FAULT);
  CHECK_OK(luna_vcpu_answer(vcpu, 1));
  CHECK_EQ(luna_vcpu_finish(vcpu), LUNA_EXIT_FAULT);
  CHECK_EQ(e->address, 0x1008);
  CHECK_OK(luna_vcpu_answer(vcpu, 2));
  CHECK_OK(luna_vcpu_finish(vcpu));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  end();
}

static void finish_fails(void) {
  begin();
  SCRIPT({.kind = FAKE_PIO, .address = 1, .size = 1}, {.kind = FAKE_HLT});
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  fake_fail(1, EIO);
  CHECK_FAILS(luna_vcpu_finish(vcpu), LUNA_ERROR_SYSTEM, "cannot finish the instruction of vCPU 0");
  CHECK_OK(luna_vcpu_finish(vcpu));
  end();
}

int main(void) {
  RUN(windows);
  RUN(windows_behind_an_answer);
  RUN(windows_wait_for_the_rest_of_an_access);
  RUN(windows_shut_in_another_space);
  RUN(blocking);
  RUN(blocking_fails);
  RUN(extint);
  RUN(finish);
  RUN(finish_in_parts);
  RUN(finish_fails);
  return test_end();
}
