/* SPDX-License-Identifier: MIT
 * Software breakpoints: INT3 is in guest memory while the guest runs, and only then. */
#include "fixture/debug_fixture.h"

#include "kvm/kvm.h"
#include "vcpu/vcpu.h"

#include <unistd.h>

static uint8_t seen[4]; /* of the memory, while the guest runs */

static void look(void *context) {
  (void)context;
  memcpy(seen, memory + CODE, sizeof seen);
}

static void begin_software(uint32_t stops) {
  fake_config config = fake_defaults();
  config.stops = stops;
  begin_debug(&config);
  memset(memory + CODE, 0x90, 16);
}

static void inserted_and_removed(void) {
  begin_software(FAKE_STOP_INT3);
  SCRIPT({.kind = FAKE_CODE, .address = CODE, .hook = look}, {.kind = FAKE_CODE, .address = NEXT});
  const fake_step first = {.kind = FAKE_PIO, .address = 1, .size = 1, .write = true, .hook = look};
  fake_script(&first, 1);
  set_break(LUNA_BREAK_SOFTWARE, CODE);
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  CHECK(memcmp(seen, "\xcc\x90\x90\x90", 4) == 0);
  CHECK_EQ(memory[CODE], 0x90);
  CHECK_EQ(control(), KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  fake_script(steps, 2);
  CHECK_EQ(run(), LUNA_EXIT_DEBUG);
  check_debug(number, CODE);
  CHECK_EQ(memory[CODE], 0x90);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(told(), 3);
  end();
}

static void failed_emulation(void) {
  begin_software(FAKE_FAIL_INT3);
  SCRIPT({.kind = FAKE_CODE, .address = CODE}, {.kind = FAKE_HLT});
  set_break(LUNA_BREAK_SOFTWARE, CODE);
  CHECK_EQ(run(), LUNA_EXIT_DEBUG);
  check_debug(number, CODE);
  CHECK_EQ(memory[CODE], 0x90);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  end();
}

static void guests_own(void) {
  begin_software(FAKE_FAIL_INT3);
  set_break(LUNA_BREAK_SOFTWARE, CODE);
  memory[NEXT] = INT3;
  SCRIPT({.kind = FAKE_CODE, .address = NEXT});
  CHECK_EQ(run(), LUNA_EXIT_INSTRUCTION);
  CHECK_EQ(memory[NEXT], INT3);
  end();
  begin_software(FAKE_STOP_INT3);
  set_break(LUNA_BREAK_SOFTWARE, CODE);
  /* struct kvm_debug_exit_arch: exception, pc */
  static const fake_step own[] = {
      {.kind = FAKE_OTHER, .reason = KVM_EXIT_DEBUG, .words = {3, NEXT}}, {.kind = FAKE_HLT}};
  fake_script(own, 2);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  const uint8_t *vectors;
  CHECK_EQ(fake_taken(&vectors), 1);
  CHECK_EQ(vectors[0], 3);
  end();
}

static void overwrite(void *context) {
  (void)context;
  memory[CODE] = 0xf4;
}

static void what_the_guest_writes_stays(void) {
  begin_software(FAKE_STOP_INT3);
  set_break(LUNA_BREAK_SOFTWARE, CODE);
  SCRIPT({.kind = FAKE_HLT, .hook = overwrite});
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(memory[CODE], 0xf4);
  end();
}

/* A second vCPU runs with the same breakpoint while the first is in the guest. */
static luna_vcpu *second;

static void run_second(void *context) {
  (void)context;
  static const fake_step halt[] = {{.kind = FAKE_HLT, .hook = look}, {.kind = FAKE_HLT}};
  fake_script(halt, 2);
  CHECK_EQ(luna_vcpu_run(second, 0), LUNA_EXIT_HLT);
  CHECK_EQ(memory[CODE], INT3);
}

static void two_vcpus(void) {
  begin_software(FAKE_STOP_INT3);
  CHECK_OK(luna_vcpu_create(vm, NULL, &second));
  set_break(LUNA_BREAK_SOFTWARE, CODE);
  CHECK_OK(luna_vcpu_break(second, LUNA_BREAK_SOFTWARE, CODE, 1, &number));
  SCRIPT({.kind = FAKE_HLT, .hook = run_second});
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(memory[CODE], 0x90);
  CHECK_EQ(seen[0], INT3);
  luna_vcpu_release(second);
  end();
}

static void not_mapped_or_not_writable(void) {
  begin_software(FAKE_STOP_INT3);
  set_break(LUNA_BREAK_SOFTWARE, 0x100000);
  SCRIPT({.kind = FAKE_HLT});
  CHECK_EQ(run(), LUNA_EXIT_HLT); /* there is nothing to execute */
  char path[] = "/tmp/lunavisor-test-XXXXXX";
  int fd = mkstemp(path);
  CHECK(fd >= 0);
  CHECK_EQ(ftruncate(fd, PAGE), 0);
  const luna_buffer_options options = {
      .kind = LUNA_BUFFER_FILE, .path = path, .flags = LUNA_BUFFER_READ_ONLY};
  luna_buffer *buffer;
  int status = luna_buffer_open(&options, &buffer);
  unlink(path);
  close(fd);
  CHECK_OK(status);
  CHECK_OK(luna_vm_map_space(vm, 0, buffer, 0, 0x100000, PAGE, LUNA_READ | LUNA_EXECUTE));
  CHECK_FAILS(luna_vcpu_break(vcpu, LUNA_BREAK_SOFTWARE, 0x100001, 1, &number),
              LUNA_ERROR_UNSUPPORTED, "which this process may only read");
  CHECK_FAILS(run(), LUNA_ERROR_UNSUPPORTED, "gva 0x100000"); /* that was set before */
  luna_buffer_release(buffer);
  end();
}

static void many(void) {
  begin_software(FAKE_STOP_INT3);
  uint32_t numbers[20];
  for (uint32_t i = 0; i < 20; i++) {
    CHECK_OK(luna_vcpu_break(vcpu, LUNA_BREAK_SOFTWARE, CODE + i, 1, &numbers[i]));
  }
  SCRIPT({.kind = FAKE_HLT, .hook = look});
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK(memcmp(seen, "\xcc\xcc\xcc\xcc", 4) == 0);
  for (uint32_t i = 0; i < 20; i += 2) {
    CHECK_OK(luna_vcpu_unbreak(vcpu, numbers[i]));
  }
  fake_script(steps, 1);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK(memcmp(seen, "\x90\xcc\x90\xcc", 4) == 0);
  CHECK(memcmp(memory + CODE, "\x90\x90\x90\x90", 4) == 0);
  end();
}

static void kicks(void *context) {
  luna_vcpu_interrupt(context);
}

static void removed_after_a_kick(void) {
  begin_software(FAKE_STOP_INT3);
  set_break(LUNA_BREAK_SOFTWARE, CODE);
  const fake_step spin = {.kind = FAKE_SPIN, .hook = kicks, .context = vcpu};
  fake_script(&spin, 1);
  CHECK_EQ(run(), LUNA_EXIT_INTERRUPTED);
  CHECK_EQ(memory[CODE], 0x90);
  luna_vcpu_interrupt(vcpu);
  CHECK_EQ(run(), LUNA_EXIT_INTERRUPTED); /* without an entry */
  CHECK_EQ(memory[CODE], 0x90);
  end();
}

/* ---- Many ---- */

enum {
  MANY = 3000,
  FIRST = 0x3000
};

static uint32_t numbers[MANY];
static unsigned inserted;

static uint64_t place_of(uint32_t i) {
  return FIRST + (i * UINT64_C(1237)) % MANY * 3;
}

static void count_inserted(void *context) {
  (void)context;
  inserted = 0;
  for (uint32_t i = 0; i < MANY * 3; i++) {
    inserted += memory[FIRST + i] == INT3;
  }
}

/* All are there while the guest runs, whatever the order they were set in, without asking KVM where
 * each of them is; those that are closed are not. */
static void thousands(void) {
  begin_software(FAKE_STOP_INT3);
  memset(memory + FIRST, 0x90, MANY * 3);
  for (uint32_t i = 0; i < MANY; i++) {
    set_break(LUNA_BREAK_SOFTWARE, place_of(i));
    numbers[i] = number;
  }
  fake_forget();
  for (unsigned left = MANY; left >= MANY / 2; left -= MANY / 2) {
    const fake_step ask = {
        .kind = FAKE_PIO, .address = 1, .size = 1, .write = true, .hook = count_inserted};
    fake_script(&ask, 1);
    CHECK_EQ(run(), LUNA_EXIT_PIO);
    CHECK_EQ(inserted, left);
    count_inserted(NULL);
    CHECK_EQ(inserted, 0);
    CHECK_OK(luna_vcpu_answer(vcpu, 0));
    for (uint32_t i = 0; i < MANY && left == MANY; i += 2) {
      CHECK_OK(luna_vcpu_unbreak(vcpu, numbers[i]));
    }
  }
  CHECK_EQ(fake_calls(KVM_TRANSLATE), 0);
  const fake_step hit = {.kind = FAKE_CODE, .address = place_of(1)};
  fake_script(&hit, 1);
  CHECK_EQ(run(), LUNA_EXIT_DEBUG);
  check_debug(numbers[1], place_of(1));
  end();
}

/* INT3 of the guest's own, whether KVM stops at it or cannot emulate it. */
static void the_guests_own_is_caught(void) {
  static const uint32_t stops[] = {FAKE_STOP_INT3, FAKE_FAIL_INT3};
  for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) {
    uint32_t vectors = 0;
    begin_software(stops[i]);
    memory[CODE] = 0xcc;
    SCRIPT({.kind = FAKE_CODE, .address = CODE});
    CHECK_OK(luna_vcpu_catchable(vcpu, &vectors));
    CHECK_EQ(vectors, 8);
    CHECK_FAILS(luna_vcpu_catch(vcpu, 2), LUNA_ERROR_UNSUPPORTED, "tells of 0x8");
    CHECK_OK(luna_vcpu_catch(vcpu, vectors));
    CHECK_EQ(run(), LUNA_EXIT_EXCEPTION);
    CHECK_EQ(luna_vcpu_exit(vcpu)->vector, 3);
    CHECK_EQ(get(LUNA_RIP), CODE);
    CHECK_OK(luna_vcpu_catch(vcpu, 0));
    memory[CODE] = 0x90;
    CHECK_EQ(run(), LUNA_EXIT_HLT);
    CHECK_EQ(control(), 0);
    end();
  }
}

static void nothing_is_caught_where_kvm_does_not_stop(void) {
  uint32_t vectors = 8;
  begin_software(0);
  CHECK_OK(luna_vcpu_catchable(vcpu, &vectors));
  CHECK_EQ(vectors, 0);
  CHECK_FAILS(luna_vcpu_catch(vcpu, 8), LUNA_ERROR_UNSUPPORTED, "in every mode");
  CHECK_EQ(vcpu->attention, 0);
  end();
}

int main(void) {
  RUN(thousands);
  RUN(inserted_and_removed);
  RUN(failed_emulation);
  RUN(guests_own);
  RUN(what_the_guest_writes_stays);
  RUN(two_vcpus);
  RUN(not_mapped_or_not_writable);
  RUN(many);
  RUN(removed_after_a_kick);
  RUN(the_guests_own_is_caught);
  RUN(nothing_is_caught_where_kvm_does_not_stop);
  return test_end();
}
