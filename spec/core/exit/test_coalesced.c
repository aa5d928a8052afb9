/* SPDX-License-Identifier: MIT
 * Writes that KVM collects: they come in order, before the exit that ended the entry, and none is
 * lost; their zones in every space. */
#include "fixture/vcpu_fixture.h"

#define WRITE(port, byte)                                                                          \
  {                                                                                                \
    .kind = FAKE_COLLECT, .pio = true, .write = true, .address = (port), .size = 1, .data = {      \
      (byte)                                                                                       \
    }                                                                                              \
  }

static uint32_t trap_ports(uint64_t first, uint64_t length) {
  uint32_t trap;
  CHECK_OK(luna_vm_trap(vm, LUNA_TRAP_PIO, first, length, &trap));
  CHECK_OK(luna_vm_coalesce(vm, trap));
  return trap;
}

static void collected(uint64_t port, uint64_t value) {
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  check_access(port, 1, LUNA_WRITE, value);
  CHECK_EQ(e->reason, KVM_EXIT_IO);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
}

static void before_the_exit(void) {
  begin();
  uint32_t trap = trap_ports(0x90, 4);
  SCRIPT(WRITE(0x90, 1), WRITE(0x93, 2), {.kind = FAKE_HLT}, WRITE(0x91, 3),
         {.kind = FAKE_PIO, .address = 0x60, .size = 1}, {.kind = FAKE_SHUTDOWN});
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  check_access(0x90, 1, LUNA_WRITE, 1);
  CHECK_EQ(e->trap, trap);
  CHECK_EQ(e->offset, 0);
  CHECK_EQ(run(), LUNA_EXIT_PIO); /* open: again */
  check_access(0x90, 1, LUNA_WRITE, 1);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  check_access(0x93, 1, LUNA_WRITE, 2);
  CHECK_EQ(e->offset, 3);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  CHECK_EQ(entries(), 1);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(entries(), 1);
  collected(0x91, 3);
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  check_access(0x60, 1, LUNA_READ, 0);
  CHECK_OK(luna_vcpu_answer(vcpu, 0x5a));
  CHECK_EQ(run(), LUNA_EXIT_SHUTDOWN);
  CHECK_EQ(get(LUNA_RAX) & 0xff, 0x5a);
  end();
}

static void memory_writes(void) {
  begin();
  uint32_t trap;
  CHECK_OK(luna_vm_trap(vm, LUNA_TRAP_MMIO, 0xd0000000, 0x100, &trap));
  CHECK_OK(luna_vm_coalesce(vm, trap));
  CHECK_OK(luna_vm_coalesce(vm, trap));
  CHECK_EQ(fake_zones(), 1);
  SCRIPT({.kind = FAKE_COLLECT, .address = 0xd0000010, .size = 8, .data = {1, 2, 3, 4, 5, 6, 7, 8}},
         {.kind = FAKE_MMIO, .address = 0xd0000020, .size = 4});
  CHECK_EQ(run(), LUNA_EXIT_MMIO);
  check_access(0xd0000010, 8, LUNA_WRITE, UINT64_C(0x0807060504030201));
  CHECK_EQ(e->offset, 0x10);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  CHECK_EQ(run(), LUNA_EXIT_MMIO);
  check_access(0xd0000020, 4, LUNA_READ, 0);
  CHECK_OK(luna_vcpu_answer(vcpu, 7));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  end();
}

static void interrupt_now(void *context) {
  luna_vcpu_interrupt(context);
}

/* Also where KVM_RUN fails: the kick comes after the writes, and once. */
static void before_a_kick(void) {
  begin();
  trap_ports(0x90, 1);
  const fake_step steps[] = {
      WRITE(0x90, 1),
      {.kind = FAKE_SPIN, .hook = interrupt_now, .context = vcpu},
  };
  fake_script(steps, 2);
  collected(0x90, 1);
  CHECK_EQ(run(), LUNA_EXIT_INTERRUPTED);
  CHECK_EQ(luna_vcpu_run(vcpu, luna_clock() + 5 * MILLISECOND), LUNA_EXIT_TIMEOUT);
  end();
}

static void before_an_error(void) {
  begin();
  trap_ports(0x90, 1);
  SCRIPT(WRITE(0x90, 1), {.kind = FAKE_ERRNO, .number = ENXIO}, {.kind = FAKE_SHUTDOWN});
  collected(0x90, 1);
  CHECK_FAILS(run(), LUNA_ERROR_SYSTEM, "cannot run vCPU 0");
  CHECK_EQ(run(), LUNA_EXIT_SHUTDOWN);
  end();
}

/* A deadline that passes while a write is open does not lose what comes behind it. */
static void deadline(void) {
  begin();
  trap_ports(0x90, 1);
  SCRIPT(WRITE(0x90, 1), WRITE(0x90, 2), {.kind = FAKE_SHUTDOWN});
  collected(0x90, 1);
  CHECK_EQ(luna_vcpu_run(vcpu, 1), LUNA_EXIT_TIMEOUT);
  collected(0x90, 2);
  CHECK_EQ(run(), LUNA_EXIT_SHUTDOWN);
  CHECK_EQ(entries(), 1);
  end();
}

/* A full ring: KVM leaves the guest with the write that has no room. */
static void full_ring(void) {
  enum {
    WRITES = 400
  };
  static fake_step steps[WRITES];
  begin();
  trap_ports(0x90, 1);
  for (int i = 0; i < WRITES; i++) {
    steps[i] = (fake_step)WRITE(0x90, (uint8_t)i);
  }
  fake_script(steps, WRITES);
  for (int i = 0; i < WRITES; i++) {
    test_note("write %d", i);
    collected(0x90, (uint8_t)i);
  }
  CHECK_EQ(entries(), 3);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  end();
}

/* Registers that are written meanwhile, and a read under way behind the writes. */
static void registers(void) {
  begin();
  trap_ports(0x90, 1);
  SCRIPT(WRITE(0x90, 1), {.kind = FAKE_PIO, .address = 0x60, .size = 4}, {.kind = FAKE_SHUTDOWN});
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  set(LUNA_RAX, 0x1111);
  set(LUNA_RBX, 0x2222);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_OK(luna_vcpu_answer(vcpu, 0x3333));
  CHECK_EQ(run(), LUNA_EXIT_SHUTDOWN);
  CHECK_EQ(get(LUNA_RAX), 0x1111); /* as made behind the instruction */
  CHECK_EQ(get(LUNA_RBX), 0x2222);
  end();
}

/* The move waits for the writes and for the exit behind them. */
static void move(void) {
  begin();
  uint32_t space;
  CHECK_OK(luna_vm_space_create(vm, &space));
  trap_ports(0x90, 1);
  SCRIPT(WRITE(0x90, 1), WRITE(0x90, 2), {.kind = FAKE_PIO, .address = 0x60, .size = 1},
         {.kind = FAKE_SHUTDOWN});
  collected(0x90, 1);
  CHECK_OK(luna_vcpu_set_space(vcpu, space, 0)); /* 2 has not come yet */
  collected(0x90, 2);
  CHECK_EQ(e->space, 0);
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_EQ(e->space, 0);
  check_access(0x60, 1, LUNA_READ, 0);
  CHECK_OK(luna_vcpu_answer(vcpu, 0x77));
  CHECK_EQ(run(), LUNA_EXIT_SHUTDOWN);
  CHECK_EQ(e->space, space);
  CHECK_EQ(get(LUNA_RAX) & 0xff, 0x77);
  end();
}

/* An exit that is not open, and a kick, outlive a call that would move the vCPU. */
static void move_before_the_exit(void) {
  begin();
  uint32_t space;
  CHECK_OK(luna_vm_space_create(vm, &space));
  trap_ports(0x90, 1);
  const fake_step steps[] = {
      WRITE(0x90, 1),
      {.kind = FAKE_SHUTDOWN},
      WRITE(0x90, 2),
      {.kind = FAKE_SPIN, .hook = interrupt_now, .context = vcpu},
  };
  fake_script(steps, 4);
  collected(0x90, 1);
  CHECK_OK(luna_vcpu_set_space(vcpu, space, 0));
  CHECK_EQ(run(), LUNA_EXIT_SHUTDOWN);
  CHECK_EQ(e->space, 0);
  CHECK_OK(luna_vcpu_set_space(vcpu, 0, 0));
  collected(0x90, 2);
  CHECK_OK(luna_vcpu_set_space(vcpu, space, 0));
  CHECK_EQ(run(), LUNA_EXIT_INTERRUPTED);
  end();
}

/* What KVM has under way behind the writes does not fall to the next vCPU of the seat; a write that
 * nobody has taken yet does. */
static void closed_meanwhile(void) {
  begin();
  trap_ports(0x90, 1);
  SCRIPT(WRITE(0x90, 1), WRITE(0x90, 2), {.kind = FAKE_PIO, .address = 0x60, .size = 1},
         {.kind = FAKE_SHUTDOWN});
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  luna_vcpu_release(vcpu);
  CHECK_OK(luna_vcpu_create(vm, NULL, &vcpu));
  e = luna_vcpu_exit(vcpu);
  set(LUNA_RAX, 0x1234);
  collected(0x90, 2);
  CHECK_EQ(run(), LUNA_EXIT_SHUTDOWN);
  CHECK_EQ(get(LUNA_RAX), 0x1234);
  end();
}

/* The trap went while the write waited: it is nobody's, and still comes. */
static void trap_gone(void) {
  begin();
  uint32_t trap = trap_ports(0x90, 1);
  SCRIPT(WRITE(0x90, 1), WRITE(0x90, 2), {.kind = FAKE_SHUTDOWN});
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_OK(luna_vm_untrap(vm, trap));
  CHECK_EQ(fake_zones(), 0);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_EQ(e->trap, 0);
  check_access(0x90, 1, LUNA_WRITE, 2);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  CHECK_EQ(run(), LUNA_EXIT_SHUTDOWN);
  end();
}

/* ---- Zones ---- */

static void refusals(void) {
  begin();
  CHECK_FAILS(luna_vm_coalesce(vm, 1), LUNA_ERROR_NOT_FOUND, "there is no trap 1");
  uint32_t msr;
  uint32_t large;
  CHECK_OK(luna_vm_trap(vm, LUNA_TRAP_MSR, 0x174, 1, &msr));
  CHECK_FAILS(luna_vm_coalesce(vm, msr), LUNA_ERROR_ARGUMENT, "it is for MSRs");
  CHECK_OK(luna_vm_trap(vm, LUNA_TRAP_MMIO, 0, UINT64_C(1) << 32, &large));
  CHECK_FAILS(luna_vm_coalesce(vm, large), LUNA_ERROR_RANGE, "KVM takes less than 4 GiB");
  end();
}

static void unsupported(void) {
  fake_config config = fake_defaults();
  config.coalesced_pio = 0;
  begin_with(&config);
  uint32_t ports;
  uint32_t memory;
  CHECK_OK(luna_vm_trap(vm, LUNA_TRAP_PIO, 0x90, 1, &ports));
  CHECK_OK(luna_vm_trap(vm, LUNA_TRAP_MMIO, 0x90, 1, &memory));
  CHECK_FAILS(luna_vm_coalesce(vm, ports), LUNA_ERROR_UNSUPPORTED, "no KVM_CAP_COALESCED_PIO");
  CHECK_OK(luna_vm_coalesce(vm, memory));
  end();
  config.coalesced_page = 0;
  begin_with(&config);
  CHECK_OK(luna_vm_trap(vm, LUNA_TRAP_MMIO, 0x90, 1, &memory));
  CHECK_FAILS(luna_vm_coalesce(vm, memory), LUNA_ERROR_UNSUPPORTED, "no KVM_CAP_COALESCED_MMIO");
  end();
}

static void every_space(void) {
  begin();
  uint32_t space;
  CHECK_OK(luna_vm_space_create(vm, &space));
  uint32_t trap;
  CHECK_OK(luna_vm_trap(vm, LUNA_TRAP_PIO, 0x90, 1, &trap));
  for (uint64_t nth = 1; nth <= 2; nth++) {
    fake_fail(nth, ENOSPC);
    CHECK_EQ(luna_vm_coalesce(vm, trap), LUNA_ERROR_LIMIT);
    CHECK_TEXT(luna_error_message(), "cannot let KVM collect the writes to trap 1");
    CHECK_EQ(fake_zones(), 0);
  }
  fake_fail(0, 0);
  CHECK_OK(luna_vm_coalesce(vm, trap));
  CHECK_EQ(fake_zones(), 2);
  CHECK_OK(luna_vm_space_create(vm, &space));
  CHECK_EQ(fake_zones(), 3);
  CHECK_OK(luna_vm_untrap(vm, trap));
  CHECK_EQ(fake_zones(), 0);
  end();
}

/* The exception stubs' port is left out: what they write has to leave the guest. */
static void around_the_stubs(void) {
  begin();
  uint32_t trap;
  CHECK_OK(luna_vm_trap(vm, LUNA_TRAP_PIO, 0, 0x10000, &trap));
  for (uint64_t nth = 1; nth <= 2; nth++) {
    fake_fail(nth, ENOSPC);
    CHECK_EQ(luna_vm_coalesce(vm, trap), LUNA_ERROR_LIMIT);
    CHECK_EQ(fake_zones(), 0);
  }
  fake_fail(0, 0);
  CHECK_OK(luna_vm_coalesce(vm, trap));
  CHECK_EQ(fake_zones(), 2);
  CHECK_OK(luna_vm_untrap(vm, trap));
  CHECK_EQ(fake_zones(), 0);
  trap_ports(0xf4, 1);
  CHECK_EQ(fake_zones(), 0);
  end();
}

/* A vCPU that is made after the trap looks too. */
static void later_vcpu(void) {
  begin();
  trap_ports(0x90, 1);
  luna_vcpu *second;
  CHECK_OK(luna_vcpu_create(vm, NULL, &second));
  SCRIPT(WRITE(0x90, 1), {.kind = FAKE_SHUTDOWN});
  CHECK_EQ(luna_vcpu_run(second, 0), LUNA_EXIT_PIO);
  CHECK_OK(luna_vcpu_answer(second, 0));
  CHECK_EQ(luna_vcpu_run(second, 0), LUNA_EXIT_SHUTDOWN);
  luna_vcpu_release(second);
  end();
}

int main(void) {
  RUN(before_the_exit);
  RUN(memory_writes);
  RUN(before_a_kick);
  RUN(before_an_error);
  RUN(deadline);
  RUN(full_ring);
  RUN(registers);
  RUN(move);
  RUN(move_before_the_exit);
  RUN(closed_meanwhile);
  RUN(trap_gone);
  RUN(refusals);
  RUN(unsupported);
  RUN(every_space);
  RUN(around_the_stubs);
  RUN(later_vcpu);
  return test_end();
}
