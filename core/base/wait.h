/* SPDX-License-Identifier: MIT
 * Waiting for another thread to change a word: first by looking at it again and again, where such
 * waits have been short and a processor is free for that, then asleep. */
#ifndef LUNA_WAIT_H
#define LUNA_WAIT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* A word that changes when its waiter has something to look at. Begins as all zero. */
typedef struct luna_bell {
  atomic_uint word;
  atomic_uint asleep;     /* how many threads sleep on it */
  _Atomic uint64_t usual; /* how long the last waits took, in nanoseconds */
} luna_bell;

typedef enum luna_wait_result {
  LUNA_WAIT_RUNG,
  LUNA_WAIT_LATE,  /* the deadline passed */
  LUNA_WAIT_SIGNAL /* a signal handler ran */
} luna_wait_result;

unsigned luna_bell_read(luna_bell *bell);
/* Any thread, and signal handlers. */
void luna_bell_ring(luna_bell *bell);
/* Waits until the bell rings after `seen` was read. `worker` says that the thread is one of those
 * that luna_wait_worker counts. */
luna_wait_result luna_bell_wait(luna_bell *bell, unsigned seen, uint64_t deadline, bool worker);

/* A thread that runs a vCPU begins (1) or ends (-1): as many processors are not free. */
void luna_wait_worker(int change);
/* In the child of a fork, which has none of them. */
void luna_wait_forget(void);

#endif
