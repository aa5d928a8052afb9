/* SPDX-License-Identifier: MIT
 * Saved states that were damaged, or made of nothing: luna_vcpu_restore takes a state or leaves the
 * vCPU as it was, also when KVM fails in between, and what it took it gives again. */
#include "fuzz.h"

enum {
  ROOM = 32768,
  HEADER = 24, /* magic, version, size at 12, checksum at 16 */
  SIZE_AT = 12,
  SUM_AT = 16,
  EDITS_MOST = 12
};

static luna_vm *vm;
static luna_vcpu *vcpu;
static uint8_t before[ROOM], after[ROOM];

static size_t save(uint8_t *to) {
  size_t size = ROOM;
  FUZZ_CHECK(luna_vcpu_save(vcpu, to, &size) == LUNA_OK, "%s", luna_error_message());
  return size;
}

/* ---- Damage ---- */

/* What save.c writes there, so that damage behind the header is not refused for the sum alone. */
static void mend_header(uint8_t *state, size_t size) {
  uint32_t length = (uint32_t)size;
  uint64_t sum = UINT64_C(0xcbf29ce484222325);
  for (size_t i = HEADER; i + sizeof sum <= size; i += sizeof sum) {
    uint64_t word;
    memcpy(&word, state + i, sizeof word);
    sum = (sum ^ word) * UINT64_C(0x100000001b3);
    sum ^= sum >> 29;
  }
  memcpy(state + SIZE_AT, &length, sizeof length);
  memcpy(state + SUM_AT, &sum, sizeof sum);
}

/* Where the section begins that is so many further on. */
static size_t section_at(const uint8_t *state, size_t size, unsigned further) {
  size_t at = HEADER;
  while (further-- > 0 && at + 8 <= size) {
    uint32_t length;
    memcpy(&length, state + at + 4, sizeof length);
    at += 8 + ((size_t)length + 7) / 8 * 8;
  }
  return at < size ? at : HEADER;
}

static void write_at(uint8_t *state, size_t size, size_t at, uint64_t value, size_t width) {
  if (at + width <= size) {
    memcpy(state + at, &value, width);
  }
}

/* One change; returns the new size. */
static size_t damage(uint8_t *state, size_t size) {
  size_t section = section_at(state, size, fuzz_pick(12));
  size_t at = section + (fuzz_rarely(2) ? fuzz_pick(24) : fuzz_pick(4096));
  size_t length = fuzz_pick(64) * (size_t)8;
  switch (fuzz_pick(7)) {
    case 0:
      write_at(state, size, at, fuzz_byte(), 1);
      return size;
    case 1:
      write_at(state, size, at & ~(size_t)3, fuzz_number(), 4);
      return size;
    case 2:
      write_at(state, size, at & ~(size_t)7, fuzz_number(), 8);
      return size;
    case 3:
      write_at(state, size, at & ~(size_t)7, FAKE_REFUSED, 8);
      return size;
    case 4:
      return section;
    case 5: /* left out */
      if (section + length > size) {
        return size;
      }
      memmove(state + section, state + section + length, size - section - length);
      return size - length;
    default: /* doubled */
      if (section + length > size || size + length > ROOM) {
        return size;
      }
      memmove(state + section + length, state + section, size - section);
      return size + length;
  }
}

/* A state in memory of exactly its size, so that the sanitizer knows its end. */
static uint8_t *make_state(size_t *size) {
  static uint8_t state[ROOM];
  if (fuzz_rarely(8)) {
    *size = input.left < ROOM ? input.left : ROOM;
    memcpy(state, input.next, *size);
  } else {
    *size = save(state);
    for (uint32_t edits = fuzz_pick(EDITS_MOST); edits > 0; edits--) {
      *size = damage(state, *size);
    }
    if (!fuzz_rarely(8) && *size >= HEADER) {
      mend_header(state, *size);
    }
  }
  uint8_t *exact = malloc(*size ? *size : 1);
  if (!exact) {
    abort();
  }
  memcpy(exact, state, *size);
  return exact;
}

/* ---- Restoring ---- */

static void check_restore(void) {
  size_t size;
  uint8_t *state = make_state(&size);
  size_t size_before = save(before);
  if (fuzz_rarely(3)) {
    fake_fail(1 + fuzz_pick(24), EIO);
  }
  int status = fuzz_status(luna_vcpu_restore(vcpu, state, size));
  /* Refused for what it has, and then KVM failed to take the old one back. */
  bool twice = status < 0 && fake_failed() && luna_error_number() != EIO;
  fake_fail(0, 0);
  size_t size_after = save(after);
  if (status < 0 && !twice) {
    FUZZ_CHECK(size_before == size_after && memcmp(before, after, size_after) == 0,
               "a restore that failed (%s) has changed the vCPU", luna_error_message());
  }
  if (status == LUNA_OK) { /* a state may lack what is beside the groups; a new one has it */
    FUZZ_CHECK(size_after >= size, "restored from %zu bytes, saved in %zu", size, size_after);
  }
  free(state);
}

/* A vCPU with such a state can be used. */
static void use(void) {
  fake_step steps[] = {{.kind = FAKE_PIO, .address = fuzz_byte(), .size = 1, .write = true},
                       {.kind = FAKE_HLT}};
  fake_script(steps, 2);
  int kind = fuzz_status(luna_vcpu_run(vcpu, luna_clock() + 1000000));
  if (kind == LUNA_EXIT_PIO) {
    fuzz_status(luna_vcpu_answer(vcpu, 0));
    fuzz_status(luna_vcpu_set_space(vcpu, 1, 0));
    fuzz_status(luna_vcpu_run(vcpu, luna_clock() + 1000000));
  }
  fake_script(NULL, 0);
  fuzz_status(luna_vcpu_check(vcpu));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const uint32_t sync_regs[] = {7, 7, 1, 0};
  fake_config config = fake_defaults();
  uint8_t choice = size > 0 ? data[0] : 0;
  config.sync_regs = sync_regs[choice & 3];
  config.controllers = true;
  fuzz_begin(data, size, &config);
  fuzz_byte();
  const luna_vm_options options = {.irqchip = (choice >> 2) % 3};
  const luna_vcpu_options begin = {.mode = choice & 0x40 ? LUNA_MODE_LONG64 : LUNA_MODE_REAL,
                                   .system = LUNA_SYSTEM_ALLOCATE};
  uint32_t space;
  if (luna_vm_open(&options, &vm) < 0 || luna_vcpu_create(vm, &begin, &vcpu) < 0) {
    FUZZ_FAIL("%s", luna_error_message());
  }
  if (options.irqchip != LUNA_IRQCHIP_KERNEL && luna_vm_space_create(vm, &space) < 0) {
    FUZZ_FAIL("%s", luna_error_message());
  }
  for (int i = 0; fuzz_more() && i < 8; i++) {
    check_restore();
    if (fuzz_rarely(3)) {
      use();
    }
  }
  luna_vcpu_release(vcpu);
  luna_vm_release(vm);
  fuzz_end();
  return 0;
}
