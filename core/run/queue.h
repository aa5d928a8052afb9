/* SPDX-License-Identifier: MIT
 * A VM's queue of vCPUs whose threads wait with an exit for luna_vm_next. */
#ifndef LUNA_QUEUE_H
#define LUNA_QUEUE_H

#include "lunavisor.h"
#include "base/wait.h"

#include <pthread.h>

typedef struct luna_queue {
  pthread_mutex_t lock; /* over all here, and over luna_vcpu.thread of the VM's vCPUs */
  pthread_cond_t out;   /* a thread has left the guest that somebody waits for */
  luna_vcpu *first;
  luna_vcpu *last;
  unsigned started; /* vCPUs that are */
  luna_vcpu *here;  /* the one of them that has no thread, or NULL */
  luna_bell bell;   /* rings when a vCPU is put into the queue, and for luna_vm_wake */
  atomic_bool woken;
  int poll_fd;    /* luna_vm_fd: an epoll of the other two; -1 until somebody asks */
  int event_fd;   /* readable while the queue is not empty */
  unsigned forks; /* luna_thread_forks of the process that made it */
  int timer_fd;   /* readable when the moment of luna_vm_alarm has come */
} luna_queue;

void luna_queue_begin(luna_queue *queue);
void luna_queue_end(luna_queue *queue);
/* Puts a vCPU at the end; takes one out wherever it is. The lock is held. */
void luna_queue_put(luna_queue *queue, luna_vcpu *vcpu);
void luna_queue_remove(luna_queue *queue, luna_vcpu *vcpu);

#endif
