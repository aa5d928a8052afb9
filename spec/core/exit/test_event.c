/* SPDX-License-Identifier: MIT
 * What never reaches the script: eventfds in every space, and traps that the core answers, also
 * while another thread takes them away. */
#include "fixture/vcpu_fixture.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* ---- Eventfds ---- */

static luna_eventfd doorbell(void) {
  return (luna_eventfd){.kind = LUNA_TRAP_PIO, .address = 0x80, .size = 2, .fd = -1};
}

static void check_refused(luna_eventfd event, int status, const char *part) {
  const luna_eventfd before = event;
  CHECK_FAILS(luna_vm_eventfd_add(vm, &event), status, part);
  CHECK_EQ(event.fd, before.fd);
  CHECK_EQ(fake_eventfds(), 0);
}

static void eventfd_arguments(void) {
  begin();
  luna_eventfd event = doorbell();
  event.kind = LUNA_TRAP_MSR;
  check_refused(event, LUNA_ERROR_ARGUMENT, "there is no eventfd of kind 2");
  event = doorbell();
  event.flags = LUNA_EVENT_MATCH | LUNA_EVENT_ANY_SIZE;
  check_refused(event, LUNA_ERROR_ARGUMENT, "with flags 0x3");
  event.flags = 4;
  check_refused(event, LUNA_ERROR_ARGUMENT, "with flags 0x4");
  event = doorbell();
  event.size = 8;
  check_refused(event, LUNA_ERROR_ARGUMENT, "writes of 8 bytes: 1, 2, 4 are possible");
  event.kind = LUNA_TRAP_MMIO;
  event.size = 3;
  check_refused(event, LUNA_ERROR_ARGUMENT, "writes of 3 bytes: 1, 2, 4, 8 are possible");
  event = doorbell();
  event.address = 0xffff;
  check_refused(event, LUNA_ERROR_RANGE, "port 0xffff: the last is 0xffff");
  event = doorbell();
  event.flags = LUNA_EVENT_MATCH;
  event.value = 0x10000;
  check_refused(event, LUNA_ERROR_RANGE, "cannot match 0x10000: a write has 2 bytes");
  event = doorbell();
  event.address = 0xf4;
  event.size = 1;
  check_refused(event, LUNA_ERROR_UNSUPPORTED, "the exception stubs");
  event = doorbell();
  event.fd = 12345;
  check_refused(event, LUNA_ERROR_SYSTEM, "cannot use descriptor 12345 as an eventfd");
  end();
}

static void eventfd_life(void) {
  begin();
  uint32_t space;
  CHECK_OK(luna_vm_space_create(vm, &space));
  luna_eventfd event = doorbell();
  CHECK_OK(luna_vm_eventfd_add(vm, &event));
  CHECK(event.fd >= 0);
  CHECK_EQ(fake_eventfds(), 2);
  CHECK_OK(luna_vm_space_create(vm, &space));
  CHECK_EQ(fake_eventfds(), 3);
  luna_eventfd again = doorbell();
  CHECK_FAILS(luna_vm_eventfd_add(vm, &again), LUNA_ERROR_OVERLAP,
              "cannot make an eventfd of the writes to port 0x80: there is one");
  CHECK_EQ(fake_eventfds(), 3);
  uint64_t count = 99;
  CHECK_OK(luna_eventfd_read(event.fd, &count));
  CHECK_EQ(count, 0);
  CHECK_EQ(eventfd_write(event.fd, 3), 0);
  CHECK_OK(luna_eventfd_read(event.fd, &count));
  CHECK_EQ(count, 3);
  luna_eventfd other = event;
  other.address = 0x81;
  CHECK_FAILS(luna_vm_eventfd_remove(vm, &other), LUNA_ERROR_NOT_FOUND, "no such eventfd at 0x81");
  CHECK_OK(luna_vm_eventfd_remove(vm, &event));
  CHECK_EQ(fake_eventfds(), 0);
  CHECK_FAILS(luna_eventfd_read(event.fd, &count), LUNA_ERROR_SYSTEM, "cannot read eventfd");
  CHECK_FAILS(luna_vm_eventfd_remove(vm, &event), LUNA_ERROR_NOT_FOUND, "there is no such eventfd");
  end();
}

/* With the VM goes what the VM made, and nothing else. */
static void eventfd_descriptors(void) {
  begin();
  int mine = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  CHECK(mine >= 0);
  luna_eventfd given = doorbell();
  given.fd = mine;
  CHECK_OK(luna_vm_eventfd_add(vm, &given));
  CHECK_EQ(given.fd, mine);
  luna_eventfd made = doorbell();
  made.address = 0x100;
  CHECK_OK(luna_vm_eventfd_add(vm, &made));
  end();
  uint64_t count;
  CHECK_OK(luna_eventfd_read(mine, &count));
  CHECK_FAILS(luna_eventfd_read(made.fd, &count), LUNA_ERROR_SYSTEM, "cannot read eventfd");
  close(mine);
}

static void eventfd_all_or_none(void) {
  begin();
  uint32_t space;
  CHECK_OK(luna_vm_space_create(vm, &space));
  for (uint64_t nth = 1; nth <= 2; nth++) {
    luna_eventfd event = doorbell();
    fake_fail(nth, ENOSPC);
    CHECK_EQ(luna_vm_eventfd_add(vm, &event), LUNA_ERROR_LIMIT);
    CHECK_TEXT(luna_error_message(), "the writes to port 0x80 in space");
    CHECK_EQ(event.fd, -1);
    CHECK_EQ(fake_eventfds(), 0);
  }
  fake_fail(0, 0);
  end();
}

/* ---- Memory that answers ---- */

static luna_buffer *registers;
static uint8_t *bytes;

static uint32_t trap_registers(int kind, uint64_t first, uint64_t length, uint64_t offset) {
  uint32_t trap;
  CHECK_OK(luna_vm_trap_memory(vm, kind, first, length, registers, offset, &trap));
  return trap;
}

static void begin_registers(void) {
  begin();
  CHECK_OK(luna_buffer_create(PAGE, &registers));
  bytes = luna_buffer_data(registers);
}

static void end_registers(void) {
  luna_buffer_release(registers);
  end();
}

static void memory_answers(void) {
  begin_registers();
  trap_registers(LUNA_TRAP_PIO, 0xa0, 4, 16);
  trap_registers(LUNA_TRAP_MMIO, 0xd0000000, 0x100, 0x200);
  trap_registers(LUNA_TRAP_MSR, 0x174, 2, 0x800);
  bytes[17] = 0x5a;
  SCRIPT(
      {.kind = FAKE_PIO, .address = 0xa1, .size = 1},
      {.kind = FAKE_PIO, .address = 0xa2, .size = 2, .write = true, .data = {1, 2}},
      {.kind = FAKE_PIO, .address = 0xa0, .size = 1, .count = 3, .write = true, .data = {7, 8, 9}},
      {.kind = FAKE_MMIO, .address = 0xd0000011, .size = 4, .write = true, .data = {4, 3, 2, 1}},
      {.kind = FAKE_MMIO, .address = 0xd0000010, .size = 8},
      {.kind = FAKE_MSR, .address = 0x175, .write = true, .value = UINT64_C(0x1122334455667788)},
      {.kind = FAKE_SHUTDOWN});
  CHECK_EQ(run(), LUNA_EXIT_SHUTDOWN);
  CHECK_EQ(luna_vcpu_exits(vcpu), 1);
  CHECK_EQ(bytes[18], 1);
  CHECK_EQ(bytes[19], 2);
  CHECK_EQ(bytes[16], 9); /* the last element */
  const uint8_t answer[8] = {0, 4, 3, 2, 1};
  check_answer(answer, 8);
  CHECK_EQ(*(uint64_t *)(void *)(bytes + 0x808), UINT64_C(0x1122334455667788));
  end_registers();
}

/* What is not the trap's alone, or cannot be written, comes to the script. */
static void memory_leaves(void) {
  begin_registers();
  uint32_t trap = trap_registers(LUNA_TRAP_PIO, 0xa0, 4, 0);
  static _Alignas(4096) uint8_t page[4096];
  const luna_buffer_options options = {
      .kind = LUNA_BUFFER_POINTER, .flags = LUNA_BUFFER_READ_ONLY, .size = PAGE, .pointer = page};
  luna_buffer *rom;
  uint32_t rom_trap;
  CHECK_OK(luna_buffer_open(&options, &rom));
  CHECK_OK(luna_vm_trap_memory(vm, LUNA_TRAP_PIO, 0xb0, 4, rom, 0, &rom_trap));
  luna_buffer_release(rom);
  SCRIPT({.kind = FAKE_PIO, .address = 0xa2, .size = 4, .write = true, .data = {1, 2, 3, 4}},
         {.kind = FAKE_PIO, .address = 0xb0, .size = 1},
         {.kind = FAKE_PIO, .address = 0xb0, .size = 1, .write = true, .data = {5}});
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  check_access(0xa2, 4, LUNA_WRITE, 0x04030201);
  CHECK_EQ(e->trap, trap);
  CHECK_EQ(bytes[2], 0);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  CHECK_EQ(run(), LUNA_EXIT_PIO);
  check_access(0xb0, 1, LUNA_WRITE, 5);
  CHECK_EQ(e->trap, rom_trap);
  CHECK_OK(luna_vcpu_answer(vcpu, 0));
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  end_registers();
}

static void memory_arguments(void) {
  begin_registers();
  uint32_t trap = 77;
  CHECK_FAILS(luna_vm_trap_memory(vm, LUNA_TRAP_PIO, 0, 1, NULL, 0, &trap), LUNA_ERROR_ARGUMENT,
              "without a buffer");
  CHECK_FAILS(luna_vm_trap_memory(vm, LUNA_TRAP_PIO, 0, 2, registers, PAGE - 1, &trap),
              LUNA_ERROR_RANGE, "cannot answer 0x2 bytes from offset 0xfff of a buffer of 0x1000");
  CHECK_FAILS(luna_vm_trap_memory(vm, LUNA_TRAP_PIO, 0, 1, registers, UINT64_MAX, &trap),
              LUNA_ERROR_RANGE, "from offset 0xffffffffffffffff");
  CHECK_FAILS(luna_vm_trap_memory(vm, LUNA_TRAP_MSR, 0x174, 2, registers, PAGE - 15, &trap),
              LUNA_ERROR_RANGE, "cannot answer 0x2 registers");
  CHECK_FAILS(luna_vm_trap_memory(vm, LUNA_TRAP_PIO, 0x10000, 1, registers, 0, &trap),
              LUNA_ERROR_RANGE, "the last port is 0xffff");
  CHECK_FAILS(luna_vm_trap_function(vm, LUNA_TRAP_PIO, 0, 1, NULL, NULL, &trap),
              LUNA_ERROR_ARGUMENT, "without a function");
  CHECK_EQ(trap, 77);
  end_registers();
}

/* The trap keeps its memory; the guest's writes are marked. */
static void memory_is_kept_and_marked(void) {
  begin_registers();
  CHECK_OK(luna_vm_map_space(vm, 0, registers, 0, 0x10000, PAGE, LUNA_READ));
  CHECK_OK(luna_vm_dirty_space(vm, 0, 0x10000, PAGE));
  uint32_t trap = trap_registers(LUNA_TRAP_PIO, 0xa0, 4, 0);
  luna_buffer_release(registers);
  SCRIPT({.kind = FAKE_PIO, .address = 0xa0, .size = 1}, {.kind = FAKE_SHUTDOWN},
         {.kind = FAKE_PIO, .address = 0xa0, .size = 1, .write = true, .data = {5}});
  uint64_t first;
  uint64_t length;
  CHECK_EQ(run(), LUNA_EXIT_SHUTDOWN);
  CHECK_OK(luna_vm_dirty_space(vm, 0, 0x10000, PAGE));
  CHECK_EQ(luna_vm_dirty_take(vm, 0, 0x10000, PAGE, 0, &first, &length), 0);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_OK(luna_vm_dirty_space(vm, 0, 0x10000, PAGE));
  CHECK_EQ(luna_vm_dirty_take(vm, 0, 0x10000, PAGE, 0, &first, &length), 1);
  CHECK_OK(luna_vm_unmap_space(vm, 0, 0x10000, PAGE));
  CHECK_EQ(luna_live(LUNA_OBJECT_BUFFER), 1);
  CHECK_OK(luna_vm_untrap(vm, trap));
  CHECK_EQ(luna_live(LUNA_OBJECT_BUFFER), 0);
  end();
}

/* ---- Functions that answer ---- */

typedef struct counter {
  uint64_t sum;
  unsigned calls;
  uint64_t leave_at; /* the value that it does not answer */
} counter;

static int count(void *context, uint64_t offset, uint32_t size, uint32_t access, uint64_t *value) {
  counter *c = context;
  CHECK_EQ(offset, 1);
  CHECK_EQ(size, 1);
  c->calls++;
  if (access == LUNA_READ) {
    *value = c->sum;
    return 0;
  }
  if (*value == c->leave_at) {
    return 1;
  }
  c->sum += *value;
  return 0;
}

static void function_answers(void) {
  begin();
  counter c = {.leave_at = 3};
  uint32_t trap;
  CHECK_OK(luna_vm_trap_function(vm, LUNA_TRAP_PIO, 0xa0, 4, count, &c, &trap));
  SCRIPT({.kind = FAKE_PIO,
          .address = 0xa1,
          .size = 1,
          .count = 5,
          .write = true,
          .data = {1, 2, 3, 4, 5}},
         {.kind = FAKE_PIO, .address = 0xa1, .size = 1});
  CHECK_EQ(run(), LUNA_EXIT_PIO); /* the third element */
  check_access(0xa1, 1, LUNA_WRITE, 3);
  CHECK_EQ(e->trap, trap);
  CHECK_EQ(c.calls, 3);
  CHECK_OK(luna_vcpu_answer(vcpu, 0)); /* and the function goes on */
  CHECK_EQ(c.calls, 5);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(c.sum, 12);
  check_answer(&(uint8_t){12}, 1);
  CHECK_EQ(luna_vcpu_exits(vcpu), 2);
  end();
}

static int untrap_itself(void *context, uint64_t offset, uint32_t size, uint32_t access,
                         uint64_t *value) {
  (void)offset;
  (void)size;
  (void)access;
  (void)value;
  *(int *)context = luna_vm_untrap(vm, 1);
  return 0;
}

static void function_may_not_untrap(void) {
  begin();
  int status = 0;
  uint32_t trap;
  CHECK_OK(luna_vm_trap_function(vm, LUNA_TRAP_PIO, 0xa0, 1, untrap_itself, &status, &trap));
  SCRIPT({.kind = FAKE_PIO, .address = 0xa0, .size = 1});
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(status, LUNA_ERROR_STATE);
  CHECK_OK(luna_vm_untrap(vm, trap));
  end();
}

/* ---- Taking traps away meanwhile ---- */

typedef struct owner {
  luna_vm *of;
  atomic_bool alive; /* what the function may use */
  atomic_uint used;
} owner;

static int use(void *context, uint64_t offset, uint32_t size, uint32_t access, uint64_t *value) {
  owner *o = context;
  (void)offset;
  (void)size;
  (void)access;
  *value = 1;
  luna_region region;
  luna_space_next(o->of, 0, 0, &region); /* looking at the VM is allowed */
  if (!atomic_load(&o->alive)) {
    abort();
  }
  atomic_fetch_add(&o->used, 1);
  return 0;
}

static atomic_bool stop;

static void *run_until_stopped(void *context) {
  while (!atomic_load(&stop)) {
    int kind = luna_vcpu_run(context, luna_clock() + MILLISECOND);
    if (kind == LUNA_EXIT_PIO) {
      luna_vcpu_answer(context, 0);
    } else if (kind != LUNA_EXIT_TIMEOUT) {
      return "an exit that is not the port's";
    }
  }
  return NULL;
}

/* When luna_vm_untrap returns, no vCPU is inside the trap any more. */
static void untrap_while_running(void) {
  enum {
    ROUNDS = 400
  };
  begin();
  luna_vcpu *second;
  CHECK_OK(luna_vcpu_create(vm, NULL, &second));
  fake_endless_pio(0xa0, 4, false);
  atomic_store(&stop, false);
  pthread_t threads[2];
  CHECK_EQ(pthread_create(&threads[0], NULL, run_until_stopped, vcpu), 0);
  CHECK_EQ(pthread_create(&threads[1], NULL, run_until_stopped, second), 0);
  unsigned used = 0;
  for (int i = 0; i < ROUNDS; i++) {
    uint32_t trap;
    if (i % 2) {
      owner *o = calloc(1, sizeof *o);
      o->of = vm;
      atomic_store(&o->alive, true);
      CHECK_OK(luna_vm_trap_function(vm, LUNA_TRAP_PIO, 0xa0, 4, use, o, &trap));
      for (int tries = 0; tries < 1000 && !atomic_load(&o->used); tries++) {
        sched_yield();
      }
      CHECK_OK(luna_vm_untrap(vm, trap));
      used += atomic_load(&o->used) > 0;
      atomic_store(&o->alive, false);
      free(o);
    } else {
      luna_buffer *memory;
      CHECK_OK(luna_buffer_create(PAGE, &memory));
      CHECK_OK(luna_vm_trap_memory(vm, LUNA_TRAP_PIO, 0xa0, 4, memory, 0, &trap));
      luna_buffer_release(memory);
      sched_yield();
      CHECK_OK(luna_vm_untrap(vm, trap));
    }
  }
  atomic_store(&stop, true);
  for (int i = 0; i < 2; i++) {
    void *problem;
    pthread_join(threads[i], &problem);
    CHECK(!problem);
  }
  CHECK(used > ROUNDS / 8);
  fake_endless_pio(0, 0, false);
  luna_vcpu_release(second);
  end();
}

int main(void) {
  RUN(eventfd_arguments);
  RUN(eventfd_life);
  RUN(eventfd_descriptors);
  RUN(eventfd_all_or_none);
  RUN(memory_answers);
  RUN(memory_leaves);
  RUN(memory_arguments);
  RUN(memory_is_kept_and_marked);
  RUN(function_answers);
  RUN(function_may_not_untrap);
  RUN(untrap_while_running);
  return test_end();
}
