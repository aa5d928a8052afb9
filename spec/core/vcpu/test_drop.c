/* SPDX-License-Identifier: MIT
 * Exits that are dropped: by a call, by putting the vCPU elsewhere. */
#include "fixture/move_fixture.h"

#include "kvm/kvm.h"

enum {
  START = 0x100,
  ELSEWHERE = 0x200
};

/* Stands at the script's exit, with the registers that the instruction may change. */
static void begin_at(int variant, int kind, const fake_step *steps, size_t count) {
  begin_variant(variant);
  fake_script(steps, count);
  set(LUNA_RIP, START);
  set(LUNA_RAX, 0x1122334455667788);
  set(LUNA_RDX, 0x99);
  CHECK_EQ(run(), kind);
  CHECK_EQ(luna_vcpu_open(vcpu), 1);
}

static void check_registers(uint64_t rip) {
  CHECK_EQ(luna_vcpu_open(vcpu), 0);
  CHECK_EQ(get(LUNA_RIP), rip);
  CHECK_EQ(get(LUNA_RAX), 0x1122334455667788);
  CHECK_EQ(get(LUNA_RDX), 0x99);
  CHECK_EQ(get(LUNA_RBX), 7);
}

static const fake_step reads[][2] = {
    {{.kind = FAKE_PIO, .address = 0x60, .size = 4}},
    {{.kind = FAKE_MMIO, .address = 0x5000, .size = 8}},
    {{.kind = FAKE_MSR, .address = 0x10}},
    {{.kind = FAKE_MSR, .address = 0x10, .write = true, .value = 5}},
    {{.kind = FAKE_OTHER, .reason = KVM_EXIT_HYPERCALL, .words = {12}}},
    {{.kind = FAKE_MMIO, .address = 0x5ffc, .size = 4, .continues = true},
     {.kind = FAKE_MMIO, .address = 0x6000, .size = 4}},
    /* an instruction that reads, and writes what comes of it */
    {{.kind = FAKE_MMIO, .address = 0x5000, .size = 4, .continues = true},
     {.kind = FAKE_MMIO, .address = 0x5000, .size = 4, .write = true}}};
static const int kinds[] = {LUNA_EXIT_PIO,       LUNA_EXIT_FAULT, LUNA_EXIT_MSR,  LUNA_EXIT_MSR,
                            LUNA_EXIT_HYPERCALL, LUNA_EXIT_FAULT, LUNA_EXIT_FAULT};

enum {
  READS = sizeof kinds / sizeof *kinds
};

/* The guest is as before the instruction, or with that where it was put; KVM was not told a
 * value. */
static void reads_are_taken_back(void) {
  for (int i = 0; i < VARIANTS * READS * 2; i++) {
    const int variant = i / 2 / READS;
    const int read = i / 2 % READS;
    test_note("variant %d, read %d, set rip %d", variant, read, i % 2);
    begin_at(variant, kinds[read], reads[read], read >= 5 ? 2 : 1);
    set(LUNA_RBX, 7);
    if (i % 2) {
      set(LUNA_RIP, ELSEWHERE);
    } else {
      CHECK_OK(luna_vcpu_drop(vcpu));
    }
    check_registers(i % 2 ? ELSEWHERE : START);
    CHECK_FAILS(luna_vcpu_drop(vcpu), LUNA_ERROR_STATE, "vCPU 0 has no open exit to drop");
    CHECK_EQ(luna_vcpu_answer(vcpu, 1), LUNA_ERROR_STATE);
    fake_forget();
    CHECK_EQ(run(), LUNA_EXIT_HLT);
    CHECK_EQ(entries(), 1);
    check_registers(i % 2 ? ELSEWHERE : START);
    CHECK_EQ(fake_refused(), 0);
    end();
  }
}

static void writes_are_lost(void) {
  static const fake_step writes[][3] = {
      {{.kind = FAKE_PIO, .address = 0x60, .size = 4, .write = true, .count = 2}},
      {{.kind = FAKE_MMIO, .address = 0x5000, .size = 8, .write = true}}};
  for (int i = 0; i < VARIANTS * 4; i++) {
    test_note("variant %d, write %d, set rip %d", i / 4, i / 2 % 2, i % 2);
    begin_at(i / 4, i / 2 % 2 ? LUNA_EXIT_FAULT : LUNA_EXIT_PIO, writes[i / 2 % 2], 1);
    set(LUNA_RBX, 7);
    if (i % 2) {
      set(LUNA_RIP, ELSEWHERE);
    } else {
      CHECK_OK(luna_vcpu_drop(vcpu));
    }
    check_registers(i % 2 ? ELSEWHERE : START + FAKE_INSTRUCTION_LENGTH);
    CHECK_EQ(run(), LUNA_EXIT_HLT);
    check_registers(i % 2 ? ELSEWHERE : START + FAKE_INSTRUCTION_LENGTH);
    end();
  }
}

static void fetch(void) {
  begin();
  SCRIPT({.kind = FAKE_INTERNAL, .suberror = KVM_INTERNAL_ERROR_EMULATION}, {.kind = FAKE_HLT});
  CHECK_EQ(run(), LUNA_EXIT_FAULT);
  fake_forget();
  CHECK_OK(luna_vcpu_drop(vcpu));
  CHECK_EQ(fake_calls(0), 0);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  end();
}

/* What KVM makes of the instruction is nobody's access. */
static int never(void *context, uint64_t offset, uint32_t size, uint32_t access, uint64_t *value) {
  (void)context, (void)offset, (void)size, (void)access, (void)value;
  CHECK(false);
  return 0;
}

static void nobody_hears_of_it(void) {
  begin();
  uint32_t trap;
  uint8_t *data;
  CHECK_OK(luna_vm_trap_function(vm, LUNA_TRAP_MMIO, 0x5000, 4, never, NULL, &trap));
  map_memory(0x8000, PAGE, RWX, &data);
  SCRIPT({.kind = FAKE_MMIO, .address = 0x4000, .size = 4, .continues = true},
         {.kind = FAKE_MMIO, .address = 0x5000, .size = 4, .write = true, .continues = true},
         {.kind = FAKE_MMIO, .address = 0x8000, .size = 1, .write = true, .data = {9}});
  CHECK_EQ(run(), LUNA_EXIT_FAULT);
  set(LUNA_RIP, ELSEWHERE);
  CHECK_EQ(data[0], 0);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(luna_vcpu_exits(vcpu), 2);
  end();
}

/* The exit behind collected writes, which nobody has seen, belongs to the place that is left. */
static void behind_collected_writes(void) {
  static const fake_step script[] = {
      {.kind = FAKE_COLLECT, .address = 0x10, .size = 1, .pio = true, .write = true, .data = {4}},
      {.kind = FAKE_PIO, .address = 0x60, .size = 4}};
  begin();
  uint32_t trap;
  CHECK_OK(luna_vm_trap(vm, LUNA_TRAP_PIO, 0x10, 1, &trap));
  CHECK_OK(luna_vm_coalesce(vm, trap));
  set(LUNA_RAX, 5);
  fake_script(script, 2);
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_EQ(e->address, 0x10);
  CHECK_OK(luna_vcpu_drop(vcpu)); /* the write alone */
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_EQ(e->address, 0x60);
  CHECK_OK(luna_vcpu_drop(vcpu));
  fake_script(script, 2);
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_EQ(e->address, 0x10);
  set(LUNA_RIP, ELSEWHERE);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(get(LUNA_RIP), ELSEWHERE);
  CHECK_EQ(get(LUNA_RAX), 5);
  end();
}

/* The instruction at rip is the one that a step runs. */
static void steps_at_the_new_place(void) {
  begin();
  SCRIPT({.kind = FAKE_PIO, .address = 0x60, .size = 4}, {.kind = FAKE_CODE, .address = ELSEWHERE});
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  set(LUNA_RIP, ELSEWHERE);
  fake_forget();
  CHECK_EQ(luna_vcpu_step(vcpu, 0), LUNA_EXIT_DEBUG);
  CHECK_EQ(entries(), 1);
  end();
}

/* Where KVM does not finish the instruction, the exit is as open as before. */
static void drop_fails(void) {
  for (int variant = 0; variant < VARIANTS; variant++) {
    bool failed = true;
    for (uint64_t k = 1; failed; k++) {
      test_note("variant %d, call %" PRIu64, variant, k);
      begin_at(variant, LUNA_EXIT_PIO, reads[0], 1);
      fake_fail(k, EIO);
      int got = luna_vcpu_set(vcpu, LUNA_RIP, ELSEWHERE);
      failed = fake_failed();
      fake_fail(0, 0);
      CHECK_EQ(got, failed ? LUNA_ERROR_SYSTEM : LUNA_OK);
      CHECK_EQ(run(), failed ? LUNA_EXIT_PIO : LUNA_EXIT_HLT);
      CHECK_EQ(get(LUNA_RIP), failed ? START : ELSEWHERE);
      CHECK(failed || k > 1);
      end();
    }
  }
}

/* An exit that waits in the queue, or of a thread that has ended. */
static void unseen(void) {
  static const fake_step steps[] = {{.kind = FAKE_PIO, .address = 0x60, .size = 4},
                                    {.kind = FAKE_SHUTDOWN}};
  for (int i = 0; i < 4; i++) {
    test_note("exit %d, paused %d", i % 2, i / 2);
    luna_vcpu *from;
    begin();
    fake_script(steps + i % 2, (size_t)(2 - i % 2));
    luna_vm_fd(vm);
    CHECK_OK(luna_vcpu_start(vcpu));
    while (luna_vcpu_exits(vcpu) < 1) {
    }
    CHECK_OK(i / 2 ? luna_vcpu_pause(vcpu) : luna_vcpu_stop(vcpu));
    set(LUNA_RIP, ELSEWHERE);
    CHECK_OK(i / 2 ? luna_vcpu_resume(vcpu) : luna_vcpu_start(vcpu));
    CHECK_EQ(luna_vm_next(vm, LUNA_FOREVER, &from), i % 2 ? LUNA_EXIT_HLT : LUNA_EXIT_SHUTDOWN);
    CHECK_OK(luna_vcpu_stop(vcpu));
    end();
  }
}

/* The same for one that was answered before anybody was given it; a request to stop stays. */
static void answered_unseen(void) {
  luna_vcpu *from;
  begin();
  SCRIPT({.kind = FAKE_PIO, .address = 0x60, .size = 4}, {.kind = FAKE_SPIN});
  CHECK_OK(luna_vcpu_start(vcpu));
  while (luna_vcpu_exits(vcpu) < 1) {
  }
  CHECK_OK(luna_vcpu_stop(vcpu));
  CHECK_OK(luna_vcpu_answer(vcpu, 5));
  CHECK_OK(luna_vcpu_start(vcpu));
  luna_vcpu_interrupt(vcpu);
  while (luna_vcpu_exits(vcpu) < 2) {
  }
  CHECK_OK(luna_vcpu_pause(vcpu));
  set(LUNA_RIP, ELSEWHERE);
  CHECK_OK(luna_vcpu_resume(vcpu));
  CHECK_EQ(luna_vm_next(vm, LUNA_FOREVER, &from), LUNA_EXIT_INTERRUPTED);
  CHECK_OK(luna_vcpu_stop(vcpu));
  end();
}

int main(void) {
  RUN(reads_are_taken_back);
  RUN(writes_are_lost);
  RUN(fetch);
  RUN(nobody_hears_of_it);
  RUN(behind_collected_writes);
  RUN(steps_at_the_new_place);
  RUN(drop_fails);
  RUN(unseen);
  RUN(answered_unseen);
  return test_end();
}
