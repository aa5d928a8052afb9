/* SPDX-License-Identifier: MIT
 * Many threads that map, unmap, protect, remap, move, kick, start, stop and close at random, while
 * the main thread answers the exits of vCPUs that run all the time: over the fake and on the real
 * KVM. For the sanitizers most of all. LUNA_STORM_CALLS (1500) says how many calls a thread makes,
 * LUNA_SEED repeats them. */
#include "fixture/test.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
  PAGE = LUNA_PAGE_SIZE,
  RUNNERS = 2, /* vCPUs that the main thread answers, from the beginning to the end */
  WORKERS = 4,
  CODE = 0x1000,
  PORT = 0x10,
  AREA = 8, /* the first page that workers change; the guests write there */
  AREA_PAGES = 32,
  RAM_PAGES = AREA + AREA_PAGES,
  WINDOW_PAGE = 64,
  WINDOW_PAGES = 4,
  RWX = LUNA_READ | LUNA_WRITE | LUNA_EXECUTE
};

/* mov bx, 0x8000; again: mov [bx], ax; add bx, 0x100; out 0x10, al; jmp again */
static const uint8_t code[] = {0xbb, 0x00, 0x80, 0x89, 0x07, 0x81, 0xc3,
                               0x00, 0x01, 0xe6, 0x10, 0xeb, 0xf6};

#ifdef __SANITIZE_THREAD__
/* Guests that write to one page at once are no race of the library's, though the core does it for
 * them where an access comes to it. */
FAKE_API const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void) {
  return "race:luna_buffer_move\n";
}
#endif

typedef struct worker {
  pthread_t thread;
  uint64_t seed;
  uint32_t calls;
  luna_vcpu *vcpu; /* its own */
  bool started;
  uint32_t space; /* its own, 0 for none */
  uint32_t trap;  /* its own, 0 for none */
  int event;
  uint32_t done;
  int bad; /* a status without a name or a message */
} worker;

static luna_vm *vm;
static luna_buffer *ram, *shared;
static luna_vcpu *runners[RUNNERS];
static uint32_t second; /* a space that all use */
static atomic_uint busy;
/* An exit that the main thread has taken is its to answer: no worker may stop that vCPU. */
static pthread_mutex_t taken = PTHREAD_MUTEX_INITIALIZER;

static uint32_t pick(worker *w, uint32_t limit) {
  return (uint32_t)(test_random(&w->seed) >> 16) % limit;
}

static void note(worker *w, int status) {
  w->done++;
  if (status < 0 && (!luna_status_name(status) || !luna_error_message()[0])) {
    w->bad = status;
  }
}

/* ---- What a worker does ---- */

static uint32_t a_space(worker *w) {
  uint32_t which = pick(w, 4);
  return which == 0 ? second : which == 1 ? w->space : 0;
}

static uint64_t an_address(worker *w) {
  return (AREA + pick(w, AREA_PAGES)) * (uint64_t)PAGE;
}

static uint32_t some_rights(worker *w) {
  static const uint32_t rights[] = {RWX,
                                    RWX,
                                    LUNA_READ | LUNA_EXECUTE,
                                    LUNA_READ | LUNA_MAP_STRICT,
                                    LUNA_READ | LUNA_WRITE | LUNA_MAP_STRICT,
                                    0};
  return rights[pick(w, sizeof rights / sizeof *rights)];
}

static void do_map(worker *w) {
  uint64_t gpa = an_address(w);
  note(w, luna_vm_map_space(vm, a_space(w), ram, gpa, gpa, (1 + pick(w, 3)) * (uint64_t)PAGE,
                            some_rights(w)));
}

static void do_unmap(worker *w) {
  note(w, luna_vm_unmap_space(vm, a_space(w), an_address(w), PAGE));
}

static void do_protect(worker *w) {
  note(w, luna_vm_protect_space(vm, a_space(w), an_address(w), PAGE, some_rights(w)));
}

static void do_update(worker *w) {
  uint64_t gpa = an_address(w);
  const luna_change changes[] = {
      {.kind = LUNA_CHANGE_UNMAP, .gpa = gpa, .size = PAGE},
      {.kind = LUNA_CHANGE_MAP, .rights = RWX, .gpa = gpa, .size = PAGE, .buffer = ram}};
  note(w, luna_vm_update_space(vm, a_space(w), changes, 2));
}

static void do_remap(worker *w) {
  note(w, luna_vm_remap_space(vm, 0, WINDOW_PAGE * PAGE, shared,
                              pick(w, 3) * (uint64_t)WINDOW_PAGES * PAGE));
}

static void do_follow(worker *w) {
  uint64_t first, length;
  uint32_t space = a_space(w);
  note(w, luna_vm_dirty_space(vm, space, 0, RAM_PAGES * PAGE));
  for (int i = 0; i < RAM_PAGES; i++) {
    if (luna_vm_dirty_take(vm, space, 0, RAM_PAGES * PAGE, 0, &first, &length) != 1) {
      break;
    }
  }
}

static void do_copy(worker *w) {
  uint8_t bytes[64] = {0};
  note(w, luna_vm_copy_space(vm, a_space(w), an_address(w) + pick(w, PAGE), bytes, sizeof bytes,
                             LUNA_READ));
  luna_buffer_mark(ram, an_address(w), sizeof bytes);
}

static void do_look(worker *w) {
  luna_region region;
  uint64_t gpa = 0;
  while (luna_space_next(vm, 0, gpa, &region) == LUNA_OK) {
    gpa = region.gpa + region.size;
    w->done++;
  }
}

static int answer(void *context, uint64_t offset, uint32_t size, uint32_t access, uint64_t *value) {
  (void)context, (void)size, (void)access;
  *value = offset;
  return 1;
}

static void do_trap(worker *w) {
  uint64_t port = 0x100 + pick(w, 64);
  if (w->trap) {
    note(w, luna_vm_untrap(vm, w->trap));
    w->trap = 0;
  } else {
    int status = pick(w, 2)
                     ? luna_vm_trap(vm, LUNA_TRAP_PIO, port, 1 + pick(w, 3), &w->trap)
                     : luna_vm_trap_function(vm, LUNA_TRAP_PIO, port, 1, answer, NULL, &w->trap);
    note(w, status);
    w->trap = status == LUNA_OK ? w->trap : 0;
  }
}

static void do_event(worker *w) {
  luna_eventfd event = {
      .kind = LUNA_TRAP_PIO, .address = 0x300 + pick(w, 8), .size = 1, .fd = w->event};
  int status = luna_vm_eventfd_add(vm, &event);
  note(w, status);
  if (status == LUNA_OK) {
    note(w, luna_vm_eventfd_remove(vm, &event));
  }
}

static void do_space(worker *w) {
  if (w->space) {
    if (luna_vm_space_destroy(vm, w->space) == LUNA_OK) {
      w->space = 0;
    }
  } else if (luna_vm_space_create(vm, &w->space) == LUNA_OK) {
    note(w, luna_vm_map_space(vm, w->space, ram, 0, 0, RAM_PAGES * PAGE, RWX));
  } else {
    w->space = 0;
  }
  w->done++;
}

static void do_buffer(worker *w) {
  luna_buffer *buffer, *view;
  uint64_t gpa = (128 + (uint64_t)(w->event % 16) * 8) * PAGE;
  if (luna_buffer_create(4 * PAGE, &buffer) != LUNA_OK) {
    return;
  }
  note(w, luna_vm_map_space(vm, 0, buffer, 0, gpa, 4 * PAGE, RWX));
  if (luna_buffer_view(buffer, PAGE, PAGE, &view) == LUNA_OK) {
    luna_buffer_release(view);
  }
  luna_buffer_release(buffer);
  note(w, luna_vm_unmap_space(vm, 0, gpa, 4 * PAGE));
}

/* Kicks of vCPUs that others run. */
static void do_kick(worker *w) {
  luna_vcpu *vcpu = runners[pick(w, RUNNERS)];
  switch (pick(w, 4)) {
    case 0:
      luna_vcpu_interrupt(vcpu);
      break;
    case 1:
      note(w, luna_vcpu_interrupt_vector(vcpu, 0x20));
      break;
    case 2:
      luna_vm_wake(vm);
      note(w, luna_vm_alarm(vm, luna_clock() + pick(w, 100000)));
      break;
    default:
      note(w, luna_vcpu_pause(vcpu));
      note(w, luna_vcpu_resume(vcpu));
      break;
  }
  w->done++;
}

/* ---- Its own vCPU ---- */

static void stop_own(worker *w) {
  if (w->started) {
    pthread_mutex_lock(&taken);
    note(w, luna_vcpu_stop(w->vcpu));
    pthread_mutex_unlock(&taken);
    w->started = false;
  }
}

static void do_vcpu(worker *w) {
  const luna_vcpu_options options = {.mode = LUNA_MODE_REAL, .rip = CODE, .rsp = 0x7000};
  if (w->vcpu) {
    stop_own(w);
    luna_vcpu_release(w->vcpu);
    w->vcpu = NULL;
  } else if (luna_vcpu_create(vm, &options, &w->vcpu) != LUNA_OK) {
    w->vcpu = NULL;
  }
  w->done++;
}

static void do_run(worker *w) {
  if (!w->vcpu || w->started) {
    return;
  }
  int kind = luna_vcpu_run(w->vcpu, luna_clock() + 200000);
  note(w, kind);
  if (kind == LUNA_EXIT_PIO || kind == LUNA_EXIT_MMIO) {
    note(w, luna_vcpu_answer(w->vcpu, 1));
  } else if (kind == LUNA_EXIT_FAULT && luna_vcpu_retry(w->vcpu) < 0) {
    note(w, luna_vcpu_answer(w->vcpu, 0));
  }
}

static void do_move(worker *w) {
  if (w->vcpu && !w->started) {
    note(w, luna_vcpu_set_space(w->vcpu, a_space(w), pick(w, 4)));
    note(w, luna_vcpu_set(w->vcpu, LUNA_RIP, CODE));
  }
}

static void do_start(worker *w) {
  if (w->vcpu && !w->started) {
    int status = luna_vcpu_start(w->vcpu);
    note(w, status);
    w->started = status == LUNA_OK;
  } else {
    stop_own(w);
  }
}

static void clean_up(worker *w) {
  stop_own(w);
  if (w->vcpu) {
    luna_vcpu_release(w->vcpu);
  }
  if (w->trap) {
    note(w, luna_vm_untrap(vm, w->trap));
  }
}

static void *work(void *argument) {
  static void (*const acts[])(worker *) = {
      do_map,    do_map,  do_unmap, do_unmap, do_protect, do_update, do_remap,
      do_follow, do_copy, do_look,  do_trap,  do_event,   do_space,  do_buffer,
      do_kick,   do_kick, do_vcpu,  do_run,   do_run,     do_move,   do_start};
  worker *w = argument;
  for (uint32_t i = 0; i < w->calls; i++) {
    acts[pick(w, sizeof acts / sizeof *acts)](w);
  }
  clean_up(w);
  atomic_fetch_sub(&busy, 1);
  luna_vm_wake(vm);
  return NULL;
}

/* ---- The main thread ---- */

static void give_answer(luna_vcpu *vcpu, int kind) {
  if (kind == LUNA_EXIT_PIO || kind == LUNA_EXIT_MMIO) {
    luna_vcpu_answer(vcpu, 1);
  } else if (kind == LUNA_EXIT_FAULT && luna_vcpu_retry(vcpu) < 0) {
    luna_vcpu_answer(vcpu, 0);
  }
}

/* Answers until the workers are done; how many exits there were. */
static unsigned serve(void) {
  unsigned exits = 0;
  while (atomic_load(&busy) > 0) {
    luna_vcpu *from = NULL;
    pthread_mutex_lock(&taken);
    int kind = luna_vm_next(vm, luna_clock() + 1000000, &from);
    if (kind > 0) {
      give_answer(from, kind);
      luna_vcpu_go(from);
      exits++;
    } else if (from) {
      luna_vcpu_stop(from); /* it failed: KVM did not go on */
      luna_vcpu_start(from);
    }
    pthread_mutex_unlock(&taken);
  }
  return exits;
}

static void begin(void) {
  const luna_buffer_options memfd = {.kind = LUNA_BUFFER_MEMFD, .size = 16 * PAGE};
  const luna_vcpu_options options = {.mode = LUNA_MODE_REAL, .rip = CODE, .rsp = 0x7000};
  CHECK_OK(luna_vm_create(&vm));
  CHECK_OK(luna_buffer_create(RAM_PAGES * PAGE, &ram));
  CHECK_OK(luna_buffer_open(&memfd, &shared));
  memcpy((uint8_t *)luna_buffer_data(ram) + CODE, code, sizeof code);
  CHECK_OK(luna_vm_space_create(vm, &second));
  CHECK_OK(luna_vm_map_space(vm, 0, ram, 0, 0, RAM_PAGES * PAGE, RWX));
  CHECK_OK(luna_vm_map_space(vm, second, ram, 0, 0, RAM_PAGES * PAGE, RWX));
  CHECK_OK(luna_vm_map_space(vm, 0, shared, 0, WINDOW_PAGE * PAGE, WINDOW_PAGES * PAGE,
                             RWX | LUNA_MAP_WINDOW));
  for (int i = 0; i < RUNNERS; i++) {
    CHECK_OK(luna_vcpu_create(vm, &options, &runners[i]));
    CHECK_OK(luna_vcpu_start(runners[i]));
  }
}

static void end(void) {
  for (int i = 0; i < RUNNERS; i++) {
    luna_vcpu_stop(runners[i]);
    luna_vcpu_release(runners[i]);
  }
  luna_vm_release(vm);
  luna_buffer_release(ram);
  luna_buffer_release(shared);
}

static void storm(void) {
  static worker workers[WORKERS];
  const char *calls = getenv("LUNA_STORM_CALLS");
  uint64_t seed = test_seed();
  test_note("LUNA_SEED=%" PRIu64, seed);
  begin();
  atomic_store(&busy, WORKERS);
  for (unsigned i = 0; i < WORKERS; i++) {
    workers[i] = (worker){.seed = seed + i * UINT64_C(0x9e3779b97f4a7c15) + 1,
                          .calls = calls && *calls ? (uint32_t)strtoul(calls, NULL, 0) : 1500,
                          .event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    pthread_create(&workers[i].thread, NULL, work, &workers[i]);
  }
  unsigned exits = serve();
  for (int i = 0; i < WORKERS; i++) {
    pthread_join(workers[i].thread, NULL);
    close(workers[i].event);
  }
  end();
  for (int i = 0; i < WORKERS; i++) {
    CHECK_EQ(workers[i].bad, 0);
    CHECK(workers[i].done > workers[i].calls / 2);
  }
  CHECK(exits > 0);
}

static void many_threads_over_the_fake(void) {
  static const fake_step steps[] = {
      {.kind = FAKE_PIO, .address = PORT, .size = 1, .write = true},
      {.kind = FAKE_MMIO, .address = AREA * PAGE, .size = 2, .write = true},
      {.kind = FAKE_MMIO, .address = (AREA + 3) * PAGE, .size = 2},
      {.kind = FAKE_SPIN, .limit = 50000}};
  fake_script_endless(steps, sizeof steps / sizeof *steps);
  storm();
}

static void many_threads_on_kvm(void) {
  fake_remove();
  if (luna_probe() != LUNA_OK && !getenv("LUNA_REQUIRE_KVM")) {
    test_skip(luna_error_message());
  }
  storm();
}

int main(void) {
  RUN(many_threads_over_the_fake);
  RUN(many_threads_on_kvm);
  return test_end();
}
