/* SPDX-License-Identifier: MIT
 * The thread that runs a started vCPU. */
#ifndef LUNA_THREAD_H
#define LUNA_THREAD_H

#include "lunavisor.h"
#include "base/wait.h"
#include "run/queue.h"

#include <pthread.h>

typedef enum luna_place {
  LUNA_PLACE_OUT,    /* not started, or on its way: its thread looks what to do next */
  LUNA_PLACE_INSIDE, /* its thread runs it, or luna_vcpu_run_here */
  LUNA_PLACE_QUEUED, /* its thread waits; the exit is in the queue */
  LUNA_PLACE_TAKEN   /* the same, and luna_vm_next or luna_vcpu_run_here has given the exit out */
} luna_place;

/* In each vCPU, under the lock of the VM's queue where nothing else is said. */
typedef struct luna_thread {
  bool stopping;
  unsigned pauses;
  luna_place place;
  luna_bell turn;  /* rings when the thread has to look again */
  luna_vcpu *next; /* in the queue */
  pthread_t id;
  int kind; /* what the last run gave, with its error if that is negative */
  int error_number;
  char message[512];
} luna_thread;

/* luna_vm_next has taken it out of the queue. */
void luna_thread_taken(luna_vcpu *vcpu);
/* Its exit is dealt with: its thread runs it on. The lock is held. */
void luna_thread_let_go(luna_vcpu *vcpu);
/* Gives the vCPU that is started without a thread one. The lock is held. */
int luna_thread_spread(luna_queue *queue);
/* _STATE in a child of the process that made the VM's threads. */
int luna_thread_check_process(const luna_vm *vm);
/* How often this process was forked from one whose VMs had threads. */
unsigned luna_thread_forks(void);
/* Ends the thread of a vCPU that goes away. */
void luna_thread_end(luna_vcpu *vcpu);

#endif
