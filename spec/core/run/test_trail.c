/* SPDX-License-Identifier: MIT
 * The last exits of a vCPU. */
#include "fixture/vcpu_fixture.h"

static luna_last_exit list[LUNA_LAST_EXITS + 1];
static uint32_t count;

static void look(uint32_t most) {
  memset(list, 0xa5, sizeof list);
  CHECK_OK(luna_vcpu_last_exits(vcpu, list, most, &count));
}

static void check_one(uint32_t at, uint64_t serial, uint32_t kind, uint64_t address,
                      uint32_t access) {
  CHECK_EQ(list[at].serial, serial);
  CHECK_EQ(list[at].kind, kind);
  CHECK_EQ(list[at].address, address);
  CHECK_EQ(list[at].access, access);
}

static void none(void) {
  begin();
  look(LUNA_LAST_EXITS);
  CHECK_EQ(count, 0);
  end();
}

static void kinds_and_values(void) {
  begin();
  SCRIPT({.kind = FAKE_PIO, .address = 0x60, .size = 2},
         {.kind = FAKE_PIO, .address = 0x80, .size = 1, .write = true, .data = {7}},
         {.kind = FAKE_MMIO, .address = 0xd0000000, .size = 8},
         {.kind = FAKE_MMIO, .address = 0xd0000008, .size = 4}, {.kind = FAKE_HLT});
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  look(8);
  CHECK_EQ(count, 1);
  check_one(0, 1, LUNA_EXIT_PIO, 0x60, LUNA_READ);
  CHECK_EQ(list[0].known, LUNA_KNOWN_RIP); /* it stands there, and nobody has answered */
  CHECK_OK(luna_vcpu_answer(vcpu, 0xfff1234));
  look(8);
  CHECK_EQ(list[0].known, LUNA_KNOWN_RIP | LUNA_KNOWN_VALUE);
  CHECK_EQ(list[0].value, 0x1234);
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  CHECK_EQ(run(), LUNA_EXIT_FAULT);
  CHECK_OK(luna_vcpu_answer(vcpu, UINT64_MAX));
  CHECK_EQ(run(), LUNA_EXIT_FAULT);
  luna_vcpu_set(vcpu, LUNA_RIP, 0x2000); /* drops it: nobody has answered */
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  look(8);
  CHECK_EQ(count, 5);
  CHECK_EQ(list[0].value, 0x1234);
  check_one(1, 2, LUNA_EXIT_PIO, 0x80, LUNA_WRITE);
  CHECK_EQ(list[1].value, 7);
  check_one(2, 3, LUNA_EXIT_FAULT, 0xd0000000, LUNA_READ);
  CHECK_EQ(list[2].value, UINT64_MAX);
  CHECK_EQ(list[2].size, 8);
  check_one(3, 4, LUNA_EXIT_FAULT, 0xd0000008, LUNA_READ);
  CHECK_EQ(list[3].known & LUNA_KNOWN_VALUE, 0);
  check_one(4, 5, LUNA_EXIT_HLT, 0, 0);
  end();
}

/* RIP costs a call: it is there where somebody has asked for registers. */
static void rip(void) {
  begin_without_sync();
  SCRIPT({.kind = FAKE_HLT}, {.kind = FAKE_HLT}, {.kind = FAKE_HLT});
  set(LUNA_RIP, 0x1000);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  uint64_t first = get(LUNA_RIP);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  fake_forget();
  look(8);
  CHECK_EQ(fake_calls(KVM_GET_REGS), 1);
  CHECK_EQ(count, 3);
  CHECK_EQ(list[0].known & LUNA_KNOWN_RIP, LUNA_KNOWN_RIP);
  CHECK_EQ(list[0].rip, first);
  CHECK_EQ(list[1].known & LUNA_KNOWN_RIP, 0);
  CHECK_EQ(list[2].rip, get(LUNA_RIP));
  end();
}

static void the_last_alone(void) {
  enum {
    MANY = 3 * LUNA_LAST_EXITS + 5
  };
  begin();
  fake_endless_pio(0x10, 1, true);
  for (uint32_t i = 1; i <= MANY; i++) {
    CHECK_EQ(run(), LUNA_EXIT_PIO);
    CHECK_OK(luna_vcpu_answer(vcpu, i & 0xff));
  }
  look(LUNA_LAST_EXITS + 1);
  CHECK_EQ(count, LUNA_LAST_EXITS);
  for (uint32_t i = 0; i < count; i++) {
    CHECK_EQ(list[i].serial, MANY - LUNA_LAST_EXITS + 1 + i);
    CHECK_EQ(list[i].value, list[i].serial & 0xff);
  }
  look(3);
  CHECK_EQ(count, 3);
  CHECK_EQ(list[2].serial, MANY);
  look(0);
  CHECK_EQ(count, 0);
  end();
}

static void failed_runs(void) {
  begin();
  SCRIPT({.kind = FAKE_HLT}, {.kind = FAKE_ERRNO, .number = EBADF}, {.kind = FAKE_SHUTDOWN});
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK(run() < 0);
  look(8);
  CHECK_EQ(count, 1);
  CHECK_EQ(run(), LUNA_EXIT_SHUTDOWN);
  look(8);
  CHECK_EQ(count, 2);
  check_one(0, 1, LUNA_EXIT_HLT, 0, 0);
  check_one(1, 3, LUNA_EXIT_SHUTDOWN, 0, 0);
  end();
}

static void each_element(void) {
  begin();
  SCRIPT({.kind = FAKE_PIO, .address = 0x10, .size = 1, .count = 3}, {.kind = FAKE_HLT});
  for (uint64_t i = 0; i < 3; i++) {
    CHECK_EQ(run(), LUNA_EXIT_PIO);
    CHECK_OK(luna_vcpu_answer(vcpu, 5 + i));
  }
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  look(8);
  CHECK_EQ(count, 4);
  for (uint64_t i = 0; i < 3; i++) {
    CHECK_EQ(list[i].value, 5 + i);
  }
  end();
}

static void started(void) {
  begin();
  fake_endless_pio(0x10, 1, true);
  CHECK_OK(luna_vcpu_start(vcpu));
  luna_vcpu *from;
  CHECK_EQ(luna_vm_next(vm, LUNA_FOREVER, &from), LUNA_EXIT_PIO);
  look(8); /* the vCPU waits for us */
  CHECK_EQ(count, 1);
  CHECK_OK(luna_vcpu_answer(vcpu, 1));
  CHECK_OK(luna_vcpu_go(vcpu));
  CHECK_FAILS(luna_vcpu_last_exits(vcpu, list, 8, &count), LUNA_ERROR_STATE, "vCPU 0");
  CHECK_EQ(count, 0);
  CHECK_FAILS(luna_vcpu_mark(vcpu), LUNA_ERROR_STATE, "vCPU 0");
  CHECK_OK(luna_vcpu_stop(vcpu));
  look(8);
  CHECK(count >= 1);
  end();
}

static void marked_registers(void) {
  uint64_t value = 1;
  begin();
  SCRIPT({.kind = FAKE_HLT});
  CHECK_FAILS(luna_vcpu_marked(vcpu, LUNA_RAX, &value), LUNA_ERROR_NOT_FOUND,
              "no registers of vCPU 0 were kept");
  CHECK_OK(luna_vcpu_set(vcpu, LUNA_RAX, 5)); /* waits for the entry */
  CHECK_OK(luna_vcpu_mark(vcpu));
  CHECK_OK(luna_vcpu_set(vcpu, LUNA_RAX, 6));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_OK(luna_vcpu_marked(vcpu, LUNA_RAX, &value));
  CHECK_EQ(value, 5);
  CHECK_OK(luna_vcpu_mark(vcpu));
  CHECK_OK(luna_vcpu_marked(vcpu, LUNA_RAX, &value));
  CHECK_EQ(value, 6);
  CHECK_FAILS(luna_vcpu_marked(vcpu, LUNA_CR0, &value), LUNA_ERROR_ARGUMENT, "is no general one");
  CHECK_FAILS(luna_vcpu_marked(vcpu, -1, &value), LUNA_ERROR_ARGUMENT, "is no general one");
  end();
}

int main(void) {
  RUN(none);
  RUN(marked_registers);
  RUN(kinds_and_values);
  RUN(rip);
  RUN(the_last_alone);
  RUN(failed_runs);
  RUN(each_element);
  RUN(started);
  return test_end();
}
