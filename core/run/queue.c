/* SPDX-License-Identifier: MIT
 * The queue of exits, its descriptor for event loops, and taking an exit out. */
#include "run/queue.h"

#include "base/error.h"
#include "base/wait.h"
#include "exit/offer.h"
#include "memory/vm.h"
#include "run/thread.h"
#include "vcpu/vcpu.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

void luna_queue_begin(luna_queue *queue) {
  pthread_mutex_init(&queue->lock, NULL);
  pthread_cond_init(&queue->out, NULL);
  queue->poll_fd = queue->event_fd = queue->timer_fd = -1;
  queue->forks = luna_thread_forks();
}

static void close_descriptors(luna_queue *queue) {
  int *const fds[] = {&queue->poll_fd, &queue->event_fd, &queue->timer_fd};
  for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
    if (*fds[i] >= 0) {
      close(*fds[i]);
      *fds[i] = -1;
    }
  }
}

void luna_queue_end(luna_queue *queue) {
  close_descriptors(queue);
  pthread_cond_destroy(&queue->out);
  pthread_mutex_destroy(&queue->lock);
}

/* ---- Its contents ---- */

static void set_readable(const luna_queue *queue, bool readable) {
  uint64_t count = 1;
  if (queue->event_fd < 0) {
    return;
  }
  ssize_t done = readable ? write(queue->event_fd, &count, sizeof count)
                          : read(queue->event_fd, &count, sizeof count);
  (void)done; /* it cannot be full, and nobody else reads it */
}

void luna_queue_put(luna_queue *queue, luna_vcpu *vcpu) {
  vcpu->thread->next = NULL;
  if (queue->last) {
    queue->last->thread->next = vcpu;
  } else {
    queue->first = vcpu;
    set_readable(queue, true);
  }
  queue->last = vcpu;
  luna_bell_ring(&queue->bell);
}

void luna_queue_remove(luna_queue *queue, luna_vcpu *vcpu) {
  luna_vcpu *before = NULL;
  for (luna_vcpu *v = queue->first; v != vcpu; v = v->thread->next) {
    before = v;
  }
  if (before) {
    before->thread->next = vcpu->thread->next;
  } else {
    queue->first = vcpu->thread->next;
  }
  if (queue->last == vcpu) {
    queue->last = before;
  }
  if (!queue->first) {
    set_readable(queue, false);
  }
}

/* The kind that its thread's run gave, with the error if it failed. */
static int result_of(const luna_vcpu *vcpu) {
  const luna_thread *thread = vcpu->thread;
  if (thread->kind < 0) {
    luna_error_repeat(thread->kind, thread->error_number, thread->message);
  }
  return thread->kind;
}

/* While the exit waited, memory may have come, or a device, or an NMI to a vCPU that halts; or
 * somebody has paused the vCPU and dealt with it. False where it goes on. */
static bool is_left(luna_vcpu *vcpu) {
  luna_thread *thread = vcpu->thread;
  if (thread->kind > 0 && vcpu->pending.open) {
    thread->kind = luna_exit_offer(vcpu, false);
  } else if (thread->kind > 0 && luna_exit_stale(vcpu)) {
    thread->kind = 0;
  } else if (thread->kind == LUNA_EXIT_HLT && atomic_load(&vcpu->posted)) {
    thread->kind = 0;
  }
  return thread->kind != 0;
}

/* The result is read with the lock: another thread may stop the vCPU and start it anew. */
static luna_vcpu *take(luna_queue *queue, int *result) {
  pthread_mutex_lock(&queue->lock);
  luna_vcpu *vcpu = queue->first;
  while (vcpu) {
    luna_queue_remove(queue, vcpu);
    if (is_left(vcpu)) {
      luna_thread_taken(vcpu);
      *result = result_of(vcpu);
      if (*result == LUNA_EXIT_INTERRUPTED) {
        luna_kick_take(&vcpu->kick); /* asked for again before anybody was told: the same one */
      }
      break;
    }
    luna_thread_let_go(vcpu);
    vcpu = queue->first;
  }
  pthread_mutex_unlock(&queue->lock);
  return vcpu;
}

/* Who does not wait has other things to do than to run a vCPU. */
static int spread(luna_queue *queue) {
  pthread_mutex_lock(&queue->lock);
  int status = luna_thread_spread(queue);
  pthread_mutex_unlock(&queue->lock);
  return status;
}

int luna_vm_next(luna_vm *vm, uint64_t deadline, luna_vcpu **vcpu) {
  luna_queue *queue = vm->queue;
  luna_wait_result waited = deadline ? LUNA_WAIT_RUNG : LUNA_WAIT_LATE;
  *vcpu = NULL;
  int status = luna_thread_check_process(vm);
  if (status == LUNA_OK && !deadline) {
    status = spread(queue);
  }
  if (status != LUNA_OK) {
    return status;
  }
  for (;;) {
    unsigned seen = luna_bell_read(&queue->bell);
    *vcpu = take(queue, &status);
    if (*vcpu) {
      return status;
    }
    if (waited != LUNA_WAIT_RUNG || atomic_exchange(&queue->woken, false)) {
      return 0;
    }
    waited = luna_bell_wait(&queue->bell, seen, deadline, false);
  }
}

void luna_vm_wake(luna_vm *vm) {
  atomic_store(&vm->queue->woken, true);
  luna_bell_ring(&vm->queue->bell);
}

/* ---- For event loops ---- */

static int add(int poll_fd, int fd) {
  struct epoll_event event = {.events = EPOLLIN};
  return epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event);
}

static int make_descriptors(luna_queue *queue) {
  queue->poll_fd = epoll_create1(EPOLL_CLOEXEC);
  queue->event_fd = eventfd(queue->first ? 1 : 0, EFD_CLOEXEC | EFD_NONBLOCK);
  queue->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  if (queue->poll_fd >= 0 && queue->event_fd >= 0 && queue->timer_fd >= 0 &&
      add(queue->poll_fd, queue->event_fd) == 0 && add(queue->poll_fd, queue->timer_fd) == 0) {
    return LUNA_OK;
  }
  int status = luna_fail_errno(errno, "cannot make the descriptor of a VM's queue of exits");
  close_descriptors(queue);
  return status;
}

int luna_vm_fd(luna_vm *vm) {
  luna_queue *queue = vm->queue;
  pthread_mutex_lock(&queue->lock);
  int status = queue->poll_fd < 0 ? make_descriptors(queue) : LUNA_OK;
  int fd = queue->poll_fd;
  pthread_mutex_unlock(&queue->lock);
  return status == LUNA_OK ? fd : status;
}

int luna_vm_alarm(luna_vm *vm, uint64_t moment) {
  int status = luna_vm_fd(vm);
  if (status < 0) {
    return status;
  }
  struct itimerspec when;
  memset(&when, 0, sizeof when);
  when.it_value.tv_sec = (time_t)(moment / 1000000000u);
  when.it_value.tv_nsec = (long)(moment % 1000000000u);
  if (timerfd_settime(vm->queue->timer_fd, TFD_TIMER_ABSTIME, &when, NULL) != 0) {
    return luna_fail_errno(errno, "cannot set a VM's alarm to %llu ns", (unsigned long long)moment);
  }
  return LUNA_OK;
}
