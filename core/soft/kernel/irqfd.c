/* SPDX-License-Identifier: MIT
 * Eventfds that raise interrupt lines (api.rst, KVM_IRQFD). A thread of the VM waits for them all;
 * a line that is resampled stays up until its interrupt ends. */
#include "soft/kernel/kernel.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <signal.h>
#include <unistd.h>

enum {
  FLAGS = KVM_IRQFD_FLAG_DEASSIGN | KVM_IRQFD_FLAG_RESAMPLE,
  EVENTS_AT_ONCE = 16
};

typedef struct soft_irqfd {
  int fd; /* a duplicate: the caller may close its own */
  int key;
  uint32_t line;
  int resample; /* a duplicate; -1 */
  bool raised;
  struct soft_irqfd *next;
} soft_irqfd;

struct soft_irqfds {
  pthread_mutex_t lock;
  pthread_t thread;
  int epoll;
  int stop;
  soft_irqfd *first;
};

/* Without waiting, though the eventfd may be one that lets its readers wait. */
static bool take(int fd) {
  uint64_t count;
  struct iovec into = {&count, sizeof count};
  return preadv2(fd, &into, 1, -1, RWF_NOWAIT) == sizeof count;
}

/* Under the lock. An entry that is gone is not found. */
static void fire(soft_vm *vm, const void *which) {
  for (soft_irqfd *one = vm->irqfds->first; one; one = one->next) {
    if (one != which || !take(one->fd)) {
      continue;
    }
    soft_line_set(vm, one->line, true);
    if (one->resample < 0) {
      soft_line_set(vm, one->line, false);
    } else {
      one->raised = true;
    }
  }
}

/* False when the thread has to end. */
static bool handle(soft_vm *vm, int timeout) {
  soft_irqfds *all = vm->irqfds;
  struct epoll_event events[EVENTS_AT_ONCE];
  int count = epoll_wait(all->epoll, events, EVENTS_AT_ONCE, timeout);
  bool goes_on = true;
  for (int i = 0; i < count; i++) {
    if (!events[i].data.ptr) {
      goes_on = false;
      continue;
    }
    pthread_mutex_lock(&all->lock);
    fire(vm, events[i].data.ptr);
    pthread_mutex_unlock(&all->lock);
  }
  return goes_on;
}

static void *serve(void *context) {
  while (handle(context, -1)) {
  }
  return NULL;
}

void soft_irqfds_poll(soft_vm *vm) {
  if (vm->irqfds) {
    handle(vm, 0);
  }
}

/* The thread takes no signals: they are the program's. */
static bool start(soft_vm *vm, soft_irqfds *all) {
  sigset_t every, mine;
  struct epoll_event event = {.events = EPOLLIN};
  all->epoll = epoll_create1(EPOLL_CLOEXEC);
  all->stop = eventfd(0, EFD_CLOEXEC);
  if (all->epoll < 0 || all->stop < 0 ||
      epoll_ctl(all->epoll, EPOLL_CTL_ADD, all->stop, &event) != 0) {
    return false;
  }
  sigfillset(&every);
  pthread_sigmask(SIG_SETMASK, &every, &mine);
  vm->irqfds = all;
  int number = pthread_create(&all->thread, NULL, serve, vm);
  pthread_sigmask(SIG_SETMASK, &mine, NULL);
  if (number) {
    vm->irqfds = NULL;
  }
  return number == 0;
}

static void close_if(int fd) {
  if (fd >= 0) {
    close(fd);
  }
}

static bool begin(soft_vm *vm) {
  if (vm->irqfds) {
    return true;
  }
  soft_irqfds *all = calloc(1, sizeof *all);
  if (!all) {
    return false;
  }
  pthread_mutex_init(&all->lock, NULL);
  all->epoll = all->stop = -1;
  if (!start(vm, all)) {
    close_if(all->epoll);
    close_if(all->stop);
    pthread_mutex_destroy(&all->lock);
    free(all);
    return false;
  }
  return true;
}

static void drop(soft_irqfds *all, soft_irqfd *one) {
  epoll_ctl(all->epoll, EPOLL_CTL_DEL, one->fd, NULL);
  close(one->fd);
  close_if(one->resample);
  free(one);
}

static int assign(soft_vm *vm, const struct kvm_irqfd *irqfd) {
  bool resamples = irqfd->flags & KVM_IRQFD_FLAG_RESAMPLE;
  soft_irqfds *all = vm->irqfds;
  for (const soft_irqfd *one = all->first; one; one = one->next) {
    if (one->key == (int)irqfd->fd) {
      return EBUSY;
    }
  }
  soft_irqfd *made = calloc(1, sizeof *made);
  if (!made) {
    return ENOMEM;
  }
  made->key = (int)irqfd->fd;
  made->line = irqfd->gsi;
  made->fd = dup((int)irqfd->fd);
  made->resample = resamples ? dup((int)irqfd->resamplefd) : -1;
  struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.ptr = made};
  if (made->fd < 0 || (resamples && made->resample < 0) ||
      epoll_ctl(all->epoll, EPOLL_CTL_ADD, made->fd, &event) != 0) {
    int number = errno == EPERM ? EINVAL : errno;
    close_if(made->fd);
    close_if(made->resample);
    free(made);
    return number;
  }
  made->next = all->first;
  all->first = made;
  return 0;
}

static int deassign(soft_irqfds *all, const struct kvm_irqfd *irqfd) {
  for (soft_irqfd **at = &all->first; *at; at = &(*at)->next) {
    soft_irqfd *one = *at;
    if (one->key == (int)irqfd->fd && one->line == irqfd->gsi) {
      *at = one->next;
      drop(all, one);
      break;
    }
  }
  return 0;
}

int soft_irqfd_set(soft_vm *vm, const struct kvm_irqfd *irqfd) {
  if (irqfd->flags & ~(uint32_t)FLAGS || vm->chip.kind == SOFT_CHIP_NONE) {
    return soft_refuse(EINVAL);
  }
  bool resamples = irqfd->flags & KVM_IRQFD_FLAG_RESAMPLE;
  if (resamples && vm->chip.kind != SOFT_CHIP_KERNEL) {
    return soft_refuse(EINVAL);
  }
  int number = soft_check_eventfd((int)irqfd->fd);
  number = number || !resamples ? number : soft_check_eventfd((int)irqfd->resamplefd);
  if (number) {
    return soft_refuse(number);
  }
  pthread_mutex_lock(&vm->lock);
  bool there = begin(vm);
  pthread_mutex_unlock(&vm->lock);
  if (!there) {
    return soft_refuse(ENOMEM);
  }
  pthread_mutex_lock(&vm->irqfds->lock);
  number = irqfd->flags & KVM_IRQFD_FLAG_DEASSIGN ? deassign(vm->irqfds, irqfd) : assign(vm, irqfd);
  pthread_mutex_unlock(&vm->irqfds->lock);
  return number ? soft_refuse(number) : 0;
}

/* The interrupt of a line has ended: it goes down, and who raised it is asked again. */
void soft_irqfds_ended(soft_vm *vm, uint32_t line) {
  soft_irqfds *all = vm->irqfds;
  if (!all) {
    return;
  }
  uint64_t one_more = 1;
  bool falls = false;
  pthread_mutex_lock(&all->lock);
  for (soft_irqfd *one = all->first; one; one = one->next) {
    if (one->line == line && one->raised) {
      one->raised = false;
      falls = true;
      if (write(one->resample, &one_more, sizeof one_more) < 0) {
        continue; /* it counts no further */
      }
    }
  }
  if (falls) {
    soft_line_set(vm, line, false);
  }
  pthread_mutex_unlock(&all->lock);
}

void soft_irqfds_free(soft_vm *vm) {
  soft_irqfds *all = vm->irqfds;
  uint64_t one = 1;
  if (!all) {
    return;
  }
  if (write(all->stop, &one, sizeof one) == sizeof one) {
    pthread_join(all->thread, NULL);
  }
  while (all->first) {
    soft_irqfd *next = all->first->next;
    drop(all, all->first);
    all->first = next;
  }
  close(all->epoll);
  close(all->stop);
  pthread_mutex_destroy(&all->lock);
  free(all);
  vm->irqfds = NULL;
}
