/* SPDX-License-Identifier: MIT
 * The time that a vCPU spends in the guest, and halted in it. */
#include "fixture/vcpu_fixture.h"

#include "kvm/kvm_interrupt.h"
#include "memory/vm.h"

#include <unistd.h>

static uint64_t exec_time(void) {
  uint64_t exec;
  uint64_t idle;
  CHECK_OK(luna_vcpu_time(vcpu, &exec, &idle));
  return exec;
}

static uint64_t idle_time(void) {
  uint64_t exec;
  uint64_t idle;
  CHECK_OK(luna_vcpu_time(vcpu, &exec, &idle));
  return idle;
}

static void off(void) {
  begin();
  SCRIPT({.kind = FAKE_SPIN, .limit = 2 * MILLISECOND});
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  fake_halted(1, 2, 3);
  CHECK_EQ(exec_time(), 0);
  CHECK_EQ(idle_time(), 0);
  CHECK_EQ(fake_calls(KVM_GET_STATS_FD), 0);
  end();
}

/* All of the guest's time and none of the time between the runs. */
static void time_in_the_guest(void) {
  begin();
  SCRIPT({.kind = FAKE_SPIN, .limit = 5 * MILLISECOND}, {.kind = FAKE_PIO, .size = 1},
         {.kind = FAKE_SPIN, .limit = 5 * MILLISECOND});
  CHECK_OK(luna_vcpu_account(vcpu, 1));
  uint64_t start = luna_clock();
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  uint64_t first = exec_time();
  CHECK(first >= 5 * MILLISECOND && first <= luna_clock() - start);
  uint64_t end_of_pause = luna_clock() + 20 * MILLISECOND;
  while (luna_clock() < end_of_pause) {
  }
  CHECK_EQ(exec_time(), first);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  start = luna_clock();
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK(exec_time() >= first + 5 * MILLISECOND && exec_time() <= first + luna_clock() - start);
  end();
}

static void begin_and_end(void) {
  begin();
  SCRIPT({.kind = FAKE_SPIN, .limit = MILLISECOND}, {.kind = FAKE_HLT}, {.kind = FAKE_HLT});
  CHECK_OK(luna_vcpu_account(vcpu, 1));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  fake_halted(0, 0, 50);
  CHECK_OK(luna_vcpu_account(vcpu, 0));
  uint64_t counted = exec_time();
  CHECK(counted >= MILLISECOND);
  fake_halted(0, 0, 70);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_OK(luna_vcpu_account(vcpu, 0));
  CHECK_EQ(exec_time(), counted);
  CHECK_EQ(idle_time(), 50);
  CHECK_OK(luna_vcpu_account(vcpu, 1));
  CHECK_EQ(exec_time(), 0);
  CHECK_EQ(idle_time(), 0);
  end();
}

static void halted_time(void) {
  begin();
  fake_halted(1000, 2000, 3000);
  CHECK_OK(luna_vcpu_account(vcpu, 1));
  CHECK_EQ(idle_time(), 0);
  fake_halted(1001, 2020, 3300);
  CHECK_EQ(idle_time(), 321);
  end();
}

/* Each seat has statistics of its own. */
static void moves(void) {
  uint32_t space;
  begin();
  CHECK_OK(luna_vm_space_create(vm, &space));
  CHECK_OK(luna_vcpu_account(vcpu, 1));
  fake_halted(0, 0, 500);
  CHECK_OK(luna_vcpu_set_space(vcpu, space, 0));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(luna_vcpu_space(vcpu), space);
  CHECK_EQ(idle_time(), 500);
  fake_halted(0, 0, 30); /* the new seat's: it is the youngest */
  CHECK_EQ(idle_time(), 530);
  CHECK_OK(luna_vcpu_set_space(vcpu, 0, 0));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(idle_time(), 530);
  CHECK_OK(luna_vcpu_set_space(vcpu, space, 0));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(idle_time(), 530);
  end();
}

static int lowest_free_descriptor(void) {
  int fd = dup(STDIN_FILENO);
  close(fd);
  return fd;
}

/* KVM gives the descriptor only while the vCPU is out of the guest: it is kept. */
static void one_descriptor_a_seat(void) {
  uint32_t space;
  int before = lowest_free_descriptor();
  begin();
  CHECK_OK(luna_vm_space_create(vm, &space));
  for (uint32_t i = 0; i < 5; i++) {
    CHECK_OK(luna_vcpu_account(vcpu, 1));
    CHECK_OK(luna_vcpu_set_space(vcpu, i % 2 ? 0 : space, 0));
    CHECK_EQ(run(), LUNA_EXIT_HLT);
    CHECK_EQ(idle_time(), 0);
    CHECK_OK(luna_vcpu_account(vcpu, 0));
  }
  CHECK_EQ(fake_calls(KVM_GET_STATS_FD), 2);
  CHECK(lowest_free_descriptor() != before);
  end();
  CHECK_EQ(lowest_free_descriptor(), before);
}

static void no_statistics(void) {
  fake_config config = fake_defaults();
  config.no_stats = true;
  begin_with(&config);
  CHECK_OK(luna_vcpu_account(vcpu, 1));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK(exec_time() > 0);
  CHECK_EQ(idle_time(), 0);
  end();
}

static void account_in_the_run(void *unused) {
  (void)unused;
  CHECK_FAILS(luna_vcpu_account(vcpu, 1), LUNA_ERROR_STATE, "vCPU 0: it runs");
}

static void not_while_it_runs(void) {
  begin();
  SCRIPT({.kind = FAKE_HLT, .hook = account_in_the_run});
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_OK(luna_vcpu_account(vcpu, 1));
  end();
}

/* With a LAPIC in the kernel a halted vCPU waits there, and KVM says how long. */
static void halted_in_kvm(void) {
  begin_real_vm("\xf4\xeb\xfd", 3); /* hlt, again and again */
  if (luna_kvm_create_irqchip(vm->spaces[0]->vm_fd) != 0) {
    luna_vm_release(vm);
    test_skip("this KVM has no interrupt controllers");
  }
  begin_real_vcpu(LUNA_MODE_REAL);
  CHECK_OK(luna_vcpu_account(vcpu, 1));
  const uint64_t begin = luna_clock();
  uint64_t guest = 0, halted = 0;
  for (int i = 0; i < 100 && (guest < 45 * MILLISECOND || halted < 40 * MILLISECOND); i++) {
    uint64_t exec = exec_time(), idle = idle_time(); /* others may have the time before it begins */
    CHECK_EQ(luna_vcpu_run(vcpu, luna_clock() + 50 * MILLISECOND), LUNA_EXIT_TIMEOUT);
    CHECK(idle_time() <= exec_time() && exec_time() <= luna_clock() - begin);
    guest = exec_time() - exec;
    halted = idle_time() - idle;
    if (guest > 40 * MILLISECOND && idle_time() == 0) {
      end();
      test_skip("this KVM keeps no statistics");
    }
  }
  CHECK(guest >= 45 * MILLISECOND);
  CHECK(halted >= 40 * MILLISECOND);
  end();
}

int main(void) {
  RUN(off);
  RUN(time_in_the_guest);
  RUN(begin_and_end);
  RUN(halted_time);
  RUN(moves);
  RUN(one_descriptor_a_seat);
  RUN(no_statistics);
  RUN(not_while_it_runs);
  RUN(halted_in_kvm);
  return test_end();
}
