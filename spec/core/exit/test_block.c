/* SPDX-License-Identifier: MIT
 * String I/O as blocks. */
#include "fixture/vcpu_fixture.h"

static const uint8_t text[] = "abcdefgh";

static uint32_t block(const uint8_t **data) {
  uint8_t *bytes = NULL;
  uint32_t size = luna_vcpu_block(vcpu, &bytes);
  *data = bytes;
  return size;
}

static void write_block(void) {
  const uint8_t *data;
  begin();
  SCRIPT({.kind = FAKE_PIO,
          .address = 0x10,
          .size = 2,
          .count = 4,
          .write = true,
          .data = {'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'}});
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_EQ(e->count, 4);
  CHECK_EQ(block(&data), 8);
  CHECK(memcmp(data, text, 8) == 0);
  CHECK_EQ(run(), LUNA_EXIT_PIO); /* it waits, whole */
  CHECK_EQ(block(&data), 8);
  CHECK_OK(luna_vcpu_answer_block(vcpu));
  CHECK_EQ(block(&data), 0);
  CHECK_FAILS(luna_vcpu_answer_block(vcpu), LUNA_ERROR_STATE, "no open port access");
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(entries(), 2);
  CHECK_EQ(e->count, 0);
  end();
}

static void read_block(void) {
  uint8_t *data;
  begin();
  SCRIPT({.kind = FAKE_PIO, .address = 0x10, .size = 1, .count = 8});
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_EQ(e->count, 8);
  CHECK_EQ(luna_vcpu_block(vcpu, &data), 8);
  memcpy(data, text, 8);
  CHECK_OK(luna_vcpu_answer_block(vcpu));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  check_answer(text, 8);
  end();
}

/* Elements first, then the rest as a block. */
static void rest_as_a_block(void) {
  const uint8_t *data;
  begin();
  SCRIPT({.kind = FAKE_PIO,
          .address = 0x10,
          .size = 2,
          .count = 4,
          .write = true,
          .data = {'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'}});
  for (uint32_t i = 0; i < 2; i++) {
    CHECK_EQ(run(), LUNA_EXIT_PIO);
    CHECK_EQ(e->count, 4 - i);
    CHECK_EQ(e->value, text[2 * i] | text[2 * i + 1] << 8);
    CHECK_OK(luna_vcpu_answer(vcpu, 0));
  }
  CHECK_EQ(block(&data), 4);
  CHECK(memcmp(data, text + 4, 4) == 0);
  CHECK_OK(luna_vcpu_answer_block(vcpu));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(entries(), 2);
  end();
}

static void single_element(void) {
  const uint8_t *data;
  begin();
  SCRIPT({.kind = FAKE_PIO, .size = 4, .write = true, .data = {1, 2, 3, 4}});
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK_EQ(e->count, 1);
  CHECK_EQ(block(&data), 4);
  CHECK_OK(luna_vcpu_answer_block(vcpu));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  end();
}

static void no_port_access(void) {
  const uint8_t *data;
  begin();
  SCRIPT({.kind = FAKE_MMIO, .address = 0xd0000000, .size = 4});
  CHECK_EQ(block(&data), 0);
  CHECK_EQ(run(), LUNA_EXIT_FAULT);
  CHECK_EQ(block(&data), 0);
  CHECK_FAILS(luna_vcpu_answer_block(vcpu), LUNA_ERROR_STATE, "no open port access");
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  end();
}

int main(void) {
  RUN(write_block);
  RUN(read_block);
  RUN(rest_as_a_block);
  RUN(single_element);
  RUN(no_port_access);
  return test_end();
}
