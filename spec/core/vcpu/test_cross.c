/* SPDX-License-Identifier: MIT
 * Where subjects meet, over the fake: what a started vCPU's thread keeps the other calls from. */
#include "fixture/vcpu_fixture.h"

#include <unistd.h>

enum {
  PORT = 0x10
};

static union {
  uint64_t number;
  uint32_t small;
  int64_t offset;
  uint8_t *data;
  size_t size;
  luna_walk walk;
  luna_code code;
  luna_instruction instruction;
  luna_cpuid answer;
  uint8_t bytes[16384];
} out;

/* ---- Every call on a vCPU that touches its state ---- */

#define CALL(name, ...)                                                                            \
  static int call_##name(void) {                                                                   \
    return luna_vcpu_##name(__VA_ARGS__);                                                          \
  }

CALL(set_space, vcpu, 0, 0)
CALL(run, vcpu, 0)
CALL(step, vcpu, 0)
CALL(answer, vcpu, 0)
CALL(retry, vcpu)
CALL(refuse, vcpu)
CALL(answer_block, vcpu)
CALL(inject, vcpu, 6, 0, 0)
CALL(get, vcpu, LUNA_RAX, &out.number)
CALL(set, vcpu, LUNA_RAX, 1)
CALL(get_vector, vcpu, LUNA_VECTOR_XMM, 0, out.bytes, 16)
CALL(set_vector, vcpu, LUNA_VECTOR_XMM, 0, out.bytes, 16)
CALL(get_xsave, vcpu, out.bytes, sizeof out.bytes)
CALL(set_xsave, vcpu, out.bytes, 576)
CALL(get_msr, vcpu, 0x10, &out.number)
CALL(set_msr, vcpu, 0x10, 0)
CALL(cpuid_next, vcpu, 0, &out.answer)
CALL(set_cpuid, vcpu, &out.answer, 0)
CALL(save, vcpu, NULL, &out.size)
CALL(restore, vcpu, out.bytes, 64)
CALL(check, vcpu)
CALL(translate, vcpu, 0, &out.walk)
CALL(copy, vcpu, 0, out.bytes, 1, LUNA_READ)
CALL(code, vcpu, 0, &out.code)
CALL(instruction, vcpu, &out.instruction)
CALL(break, vcpu, LUNA_BREAK_EXECUTE, 0x1000, 1, &out.small)
CALL(unbreak, vcpu, 1)
CALL(place, vcpu, &out.number, NULL)
CALL(account, vcpu, 1)
CALL(get_apic, vcpu, out.bytes)
CALL(set_apic, vcpu, out.bytes)
CALL(read_apic, vcpu, 0x80, &out.small)
CALL(write_apic, vcpu, 0x80, 0)
CALL(fire_timer, vcpu)
CALL(get_mp_state, vcpu, &out.small)
CALL(set_mp_state, vcpu, LUNA_MP_RUNNABLE)
CALL(sipi, vcpu, 9)
CALL(get_tsc_frequency, vcpu, &out.small)
CALL(set_tsc_frequency, vcpu, 1000)
CALL(get_tsc_offset, vcpu, &out.offset)
CALL(set_tsc_offset, vcpu, 0)

#define NAME(name)                                                                                 \
  { #name, call_##name }

static const struct {
  const char *name;
  int (*call)(void);
} calls[] = {
    NAME(set_space),
    NAME(answer),
    NAME(retry),
    NAME(refuse),
    NAME(answer_block),
    NAME(inject),
    NAME(get),
    NAME(set),
    NAME(get_vector),
    NAME(set_vector),
    NAME(get_xsave),
    NAME(set_xsave),
    NAME(get_msr),
    NAME(set_msr),
    NAME(cpuid_next),
    NAME(set_cpuid),
    NAME(save),
    NAME(restore),
    NAME(check),
    NAME(translate),
    NAME(copy),
    NAME(code),
    NAME(instruction),
    NAME(break),
    NAME(unbreak),
    NAME(place),
    NAME(account),
    NAME(get_apic),
    NAME(set_apic),
    NAME(read_apic),
    NAME(write_apic),
    NAME(fire_timer),
    NAME(get_mp_state),
    NAME(set_mp_state),
    NAME(sipi),
    NAME(get_tsc_frequency),
    NAME(set_tsc_frequency),
    NAME(get_tsc_offset),
    NAME(set_tsc_offset),
    NAME(run), /* from here on: refused as long as it is started */
    NAME(step),
};

enum {
  CALLS = sizeof calls / sizeof *calls,
  RUNS = 2
};

static const char *const refusal = "is started, and its thread";

static bool is_refused(uint32_t i) {
  return calls[i].call() == LUNA_ERROR_STATE && strstr(luna_error_message(), refusal);
}

static void check_calls(uint32_t first, uint32_t end, bool refused) {
  for (uint32_t i = first; i < end; i++) {
    test_note("luna_vcpu_%s", calls[i].name);
    CHECK_EQ(is_refused(i), refused);
  }
  test_note(" ");
}

static void spin(void) {
  static const fake_step steps[] = {{.kind = FAKE_SPIN}};
  fake_script_endless(steps, 1);
}

static void begin_controllers(void) {
  fake_config config = fake_defaults();
  config.controllers = config.tsc_control = true;
  fake_install(&config);
  const luna_vm_options options = {.irqchip = LUNA_IRQCHIP_SPLIT};
  CHECK_OK(luna_vm_open(&options, &vm));
  CHECK_OK(luna_vcpu_create(vm, NULL, &vcpu));
  e = luna_vcpu_exit(vcpu);
}

static void a_started_vcpu_refuses_every_call(void) {
  begin_controllers();
  spin();
  CHECK_OK(luna_vcpu_start(vcpu));
  check_calls(0, CALLS, true);
  CHECK_OK(luna_vcpu_pause(vcpu));
  check_calls(0, CALLS - RUNS, false);
  check_calls(CALLS - RUNS, CALLS, true);
  CHECK_OK(luna_vcpu_resume(vcpu));
  check_calls(0, CALLS, true);
  CHECK_OK(luna_vcpu_stop(vcpu));
  check_calls(0, CALLS - RUNS, false);
  end();
}

static void a_taken_exit_lets_every_call_in(void) {
  luna_vcpu *from;
  begin_controllers();
  fake_endless_pio(PORT, 1, false);
  CHECK_OK(luna_vcpu_start(vcpu));
  while (luna_vm_next(vm, LUNA_FOREVER, &from) == 0) {
  }
  check_calls(0, CALLS - RUNS, false);
  check_calls(CALLS - RUNS, CALLS, true);
  CHECK_OK(luna_vcpu_stop(vcpu));
  end();
}

/* What may be asked and told at any time. */
static void the_others_go_on(void) {
  uint64_t exec;
  uint64_t idle;
  begin();
  spin();
  CHECK_OK(luna_vcpu_account(vcpu, 1));
  CHECK_OK(luna_vcpu_start(vcpu));
  for (int i = 0; i < 200; i++) {
    CHECK_EQ(luna_vcpu_id(vcpu), 0);
    CHECK_EQ(luna_vcpu_space(vcpu), 0);
    CHECK_EQ(luna_vcpu_system(vcpu), 0);
    CHECK_EQ(luna_vcpu_exits(vcpu), 0);
    CHECK_OK(luna_vcpu_time(vcpu, &exec, &idle));
    CHECK(luna_vcpu_interrupt_vector(vcpu, 0x20) >= 0);
    CHECK_EQ(luna_vcpu_interrupt_waiting(vcpu), 0x20);
    CHECK_OK(luna_vcpu_nmi(vcpu));
  }
  CHECK_OK(luna_vcpu_stop(vcpu));
  end();
}

/* While its thread moves the vCPU, as its exit's answer makes it do. */
static void others_ask_where_it_is(void) {
  luna_vcpu *from;
  uint32_t spaces[2] = {0};
  uint64_t exec;
  uint64_t idle;
  begin();
  CHECK_OK(luna_vm_space_create(vm, &spaces[1]));
  CHECK_OK(luna_vcpu_account(vcpu, 1));
  fake_endless_pio(PORT, 1, false);
  CHECK_OK(luna_vcpu_start(vcpu));
  for (int i = 0; i < 200; i++) {
    do {
      CHECK(luna_vcpu_space(vcpu) < 2);
      CHECK_OK(luna_vcpu_time(vcpu, &exec, &idle));
      CHECK(luna_vm_next(vm, 0, &from) >= 0);
    } while (!from);
    CHECK_OK(luna_vcpu_set_space(vcpu, spaces[i % 2], 0));
    CHECK_EQ(luna_vcpu_space(vcpu), spaces[i % 2]);
    CHECK_OK(luna_vcpu_answer(vcpu, 0));
    CHECK_OK(luna_vcpu_go(vcpu));
  }
  CHECK_OK(luna_vcpu_stop(vcpu));
  end();
}

/* ---- Writes that are collected from now on, with the guest under way ---- */

static uint32_t bell; /* a trap */

static void collect(void *context) {
  (void)context;
  if (luna_vm_coalesce(vm, bell) != LUNA_OK) {
    abort();
  }
}

static void a_vcpu_in_the_guest_hears_of_collected_writes(void) {
  begin();
  SCRIPT(
      {.kind = FAKE_SPIN, .limit = 1000, .hook = collect},
      {.kind = FAKE_COLLECT, .pio = true, .address = PORT, .size = 1, .write = true, .data = {7}},
      {.kind = FAKE_PIO, .address = PORT + 1, .size = 1, .write = true, .data = {8}});
  CHECK_OK(luna_vm_trap(vm, LUNA_TRAP_PIO, PORT, 1, &bell));
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  check_access(PORT, 1, LUNA_WRITE, 7);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  check_access(PORT + 1, 1, LUNA_WRITE, 8);
  end();
}

/* ---- Everything at once ---- */

enum {
  VCPUS = 3,
  ROUNDS = 3000
};

static luna_vcpu *cpus[VCPUS];
static uint32_t places[2];

/* With the vCPU out of the guest. */
static void change_paused(luna_vcpu *which, uint64_t number) {
  static uint8_t state[32768];
  size_t size = sizeof state;
  uint32_t point;
  CHECK_OK(luna_vcpu_pause(which));
  switch (number % 5) {
    case 0:
      CHECK_OK(luna_vcpu_set(which, LUNA_RBX, number));
      break;
    case 1: /* _STATE with an exit open */
      if (luna_vcpu_save(which, state, &size) == LUNA_OK) {
        CHECK_OK(luna_vcpu_restore(which, state, size));
      }
      break;
    case 2:
      CHECK_OK(luna_vcpu_set_space(which, places[number / 5 % 2], 0));
      break;
    case 3:
      if (luna_vcpu_break(which, LUNA_BREAK_EXECUTE, 0x5000, 1, &point) == LUNA_OK) {
        CHECK_OK(luna_vcpu_unbreak(which, point));
      }
      break;
    default:
      CHECK_OK(luna_vcpu_account(which, number / 5 % 2));
      break;
  }
  CHECK_OK(luna_vcpu_resume(which));
}

/* While they are wherever they are. */
static void change_running(luna_vcpu *which, uint64_t number) {
  uint32_t trap;
  switch (number % 6) {
    case 0:
      luna_vcpu_interrupt(which);
      break;
    case 1:
      CHECK(luna_vcpu_interrupt_vector(which, 32 + (uint32_t)(number / 6 % 200)) >= 0);
      CHECK(luna_vcpu_interrupt_waiting(which) >= -1);
      break;
    case 2:
      CHECK_OK(luna_vcpu_nmi(which));
      break;
    case 3:
      CHECK_OK(luna_vm_trap(vm, LUNA_TRAP_PIO, PORT, 1, &trap));
      CHECK_OK(luna_vm_coalesce(vm, trap));
      CHECK_OK(luna_vm_untrap(vm, trap));
      break;
    case 4: {
      luna_buffer *buffer;
      CHECK_OK(luna_buffer_create(PAGE, &buffer));
      CHECK_OK(luna_vm_map_space(vm, places[number / 6 % 2], buffer, 0, 0x100000, PAGE, RWX));
      CHECK_OK(luna_vm_unmap_space(vm, places[number / 6 % 2], 0x100000, PAGE));
      luna_buffer_release(buffer);
      break;
    }
    default:
      if (luna_vcpu_started(which)) {
        CHECK_OK(luna_vcpu_stop(which));
      }
      CHECK_OK(luna_vcpu_start(which));
      break;
  }
}

static void answer_one(void) {
  luna_vcpu *from;
  int kind = luna_vm_next(vm, 0, &from);
  if (!from) {
    return;
  }
  CHECK(kind > 0);
  if (kind == LUNA_EXIT_PIO) {
    CHECK_OK(luna_vcpu_answer(from, 0));
  }
  CHECK_OK(luna_vcpu_go(from));
}

static void everything_at_once(void) {
  uint64_t seed = test_seed();
  begin();
  test_note("LUNA_SEED=%" PRIu64, seed);
  CHECK_OK(luna_vm_space_create(vm, &places[1]));
  cpus[0] = vcpu;
  fake_endless_pio(PORT, 1, false);
  for (int i = 0; i < VCPUS; i++) {
    if (i > 0) {
      CHECK_OK(luna_vcpu_create(vm, NULL, &cpus[i]));
    }
    CHECK_OK(luna_vcpu_start(cpus[i]));
  }
  for (int i = 0; i < ROUNDS; i++) {
    uint64_t number = test_random(&seed) >> 8;
    luna_vcpu *which = cpus[number % VCPUS];
    (number / VCPUS % 2 ? change_paused : change_running)(which, number / VCPUS / 2);
    answer_one();
  }
  for (int i = 1; i < VCPUS; i++) {
    luna_vcpu_release(cpus[i]);
  }
  end();
}

/* ---- Errors that pass ---- */

/* With collected writes to look for, an error that does not pass ends the run as ever. */
static void lasting_errors_end_where_writes_are_collected(void) {
  uint32_t trap;
  static const fake_step steps[] = {{.kind = FAKE_ERRNO, .number = ENOMEM}};
  begin();
  CHECK_OK(luna_vm_trap(vm, LUNA_TRAP_PIO, PORT, 1, &trap));
  CHECK_OK(luna_vm_coalesce(vm, trap));
  fake_script_endless(steps, 1);
  CHECK_FAILS(luna_vcpu_run(vcpu, luna_clock() + 1000 * UINT64_C(1000000)), LUNA_ERROR_MEMORY,
              "cannot run vCPU 0: Cannot allocate memory");
  CHECK(entries() < 1000);
  end();
}

int main(void) {
  RUN(a_started_vcpu_refuses_every_call);
  RUN(a_taken_exit_lets_every_call_in);
  RUN(the_others_go_on);
  RUN(others_ask_where_it_is);
  RUN(a_vcpu_in_the_guest_hears_of_collected_writes);
  RUN(everything_at_once);
  RUN(lasting_errors_end_where_writes_are_collected);
  return test_end();
}
