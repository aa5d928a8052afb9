/* SPDX-License-Identifier: MIT
 * Written pages that other threads mark while they are collected: none is lost. */
#include "fixture/dirty_fixture.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

enum {
  WRITERS = 3,
  WRITES = 20000,
  HANDSHAKE_NANOSECONDS = 300000000,
  LEAST_MARKS = 10
};

static atomic_uint stamps[PAGES]; /* what is "written" to each page */
static unsigned seen[PAGES];
static atomic_uint writing;

static void *write_and_mark(void *argument) {
  uint64_t seed = (uintptr_t)argument;
  for (int i = 0; i < WRITES; i++) {
    uint64_t first = test_random(&seed) % PAGES;
    uint64_t count = 1 + test_random(&seed) % 3;
    for (uint64_t page = first; page < first + count && page < PAGES; page++) {
      atomic_fetch_add(&stamps[page], 1);
    }
    luna_buffer_mark(buffer, first * PAGE, count * PAGE);
  }
  atomic_fetch_sub(&writing, 1);
  return NULL;
}

/* Notes the newest write that a reported page can be for. */
static unsigned collect_stamps(void) {
  unsigned reported = 0;
  uint64_t first;
  uint64_t length;
  CHECK_OK(collect(0, PAGES));
  while (luna_vm_dirty_take(vm, 0, 0, PAGES * PAGE, 0, &first, &length) == 1) {
    for (uint64_t page = first / PAGE; page < (first + length) / PAGE; page++) {
      seen[page] = atomic_load(&stamps[page]);
      reported++;
    }
  }
  return reported;
}

/* The region is cut and joined meanwhile, so that bits are inherited, too. */
static void marks_while_collecting(void) {
  pthread_t threads[WRITERS];
  begin();
  CHECK_OK(map(0, 0, PAGES, RW));
  follow();
  memset(seen, 0, sizeof seen);
  for (int page = 0; page < PAGES; page++) {
    atomic_store(&stamps[page], 0);
  }
  atomic_store(&writing, WRITERS);
  for (uintptr_t i = 0; i < WRITERS; i++) {
    CHECK_EQ(pthread_create(&threads[i], NULL, write_and_mark, (void *)(i + 1)), 0);
  }
  unsigned reported = 0;
  uint64_t round = 0;
  for (; atomic_load(&writing) > 0; round++) {
    reported += collect_stamps();
    CHECK_OK(protect(round % PAGES, 1, round % 3 ? RX : RW));
  }
  for (int i = 0; i < WRITERS; i++) {
    pthread_join(threads[i], NULL);
  }
  reported += collect_stamps();
  for (int page = 0; page < PAGES; page++) {
    test_note("page %d, %u reports", page, reported);
    CHECK_EQ(seen[page], atomic_load(&stamps[page]));
  }
  CHECK(reported >= PAGES);
  CHECK_EQ(collect_stamps(), 0);
  end();
}

static atomic_uint stamp; /* the write to the one page that the region has */
static atomic_uint seen_stamp;
static atomic_uint rounds; /* collections that are done */

/* After a mark, the first collection that begins has to report it. How many were lost. On a machine
 * that is busy with other things it takes longer. */
static void *mark_and_wait(void *argument) {
  unsigned *lost = argument;
  uint64_t end_of_test = luna_clock() + HANDSHAKE_NANOSECONDS;
  while (luna_clock() < end_of_test || atomic_load(&stamp) <= LEAST_MARKS) {
    unsigned mine = atomic_fetch_add(&stamp, 1) + 1;
    luna_buffer_mark(buffer, 0, 1);
    unsigned round = atomic_load(&rounds);
    while (atomic_load(&rounds) - round < 2) {
      sched_yield();
    }
    *lost += atomic_load(&seen_stamp) < mine;
  }
  atomic_store(&writing, 0);
  return NULL;
}

static void each_mark_is_reported_next(void) {
  pthread_t thread;
  unsigned lost = 0;
  begin();
  CHECK_OK(map(0, 0, 1, RW));
  follow();
  atomic_store(&stamp, 0);
  atomic_store(&seen_stamp, 0);
  atomic_store(&writing, 1);
  CHECK_EQ(pthread_create(&thread, NULL, mark_and_wait, &lost), 0);
  while (atomic_load(&writing)) {
    CHECK_OK(collect(0, 1));
    if (*take(0, 1)) {
      atomic_store(&seen_stamp, atomic_load(&stamp));
    }
    atomic_fetch_add(&rounds, 1);
  }
  pthread_join(thread, NULL);
  test_note("of %u", atomic_load(&stamp));
  CHECK_EQ(lost, 0);
  end();
}

int main(void) {
  RUN(marks_while_collecting);
  RUN(each_mark_is_reported_next);
  return test_end();
}
