/* SPDX-License-Identifier: MIT
 * Writes that make an eventfd readable instead of leaving the guest (api.rst, KVM_IOEVENTFD). */
#include "exit/eventfd.h"

#include "base/error.h"
#include "exit/claim.h"
#include "exit/lookup.h"
#include "kvm/kvm_event.h"
#include "memory/space.h"
#include "memory/vm.h"
#include "vcpu/system.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

typedef struct luna_event {
  luna_eventfd said; /* as luna_vm_eventfd_add was given it, or made it */
  int fd;            /* the VM's own descriptor, for spaces made later */
  struct luna_event *next;
} luna_event;

static int assign(const luna_space *space, const luna_event *event, bool on) {
  const luna_eventfd *said = &event->said;
  bool match = said->flags & LUNA_EVENT_MATCH;
  const struct kvm_ioeventfd request = {
      .datamatch = match ? said->value : 0,
      .addr = said->address,
      .len = said->flags & LUNA_EVENT_ANY_SIZE ? 0 : said->size,
      .fd = event->fd,
      .flags = (match ? 1u << kvm_ioeventfd_flag_nr_datamatch : 0) |
               (said->kind == LUNA_TRAP_PIO ? 1u << kvm_ioeventfd_flag_nr_pio : 0) |
               (on ? 0 : 1u << kvm_ioeventfd_flag_nr_deassign),
  };
  return luna_kvm_ioeventfd(space->vm_fd, &request);
}

static int fail(int number, const luna_space *space, const luna_eventfd *said) {
  const char *what = said->kind == LUNA_TRAP_PIO ? "port" : "gpa";
  if (number == EEXIST) {
    return luna_fail(LUNA_ERROR_OVERLAP,
                     "cannot make an eventfd of the writes to %s 0x%" PRIx64
                     ": there is one for the same writes already; close that first",
                     what, said->address);
  }
  return luna_fail_errno(number,
                         "cannot make an eventfd of the writes to %s 0x%" PRIx64 " in space %u",
                         what, said->address, space->id);
}

int luna_eventfds_join(const luna_vm *vm, const luna_space *space) {
  for (const luna_event *event = vm->claims->eventfds; event; event = event->next) {
    if (assign(space, event, true) != 0) {
      return fail(errno, space, &event->said);
    }
  }
  return LUNA_OK;
}

/* Closes what the VM has of it. */
static void forget(luna_event *event) {
  close(event->fd);
  free(event);
}

void luna_eventfds_free(luna_event *eventfds) {
  while (eventfds) {
    luna_event *event = eventfds;
    eventfds = event->next;
    forget(event);
  }
}

static int check(const luna_vm *vm, const luna_eventfd *said) {
  const uint32_t known = LUNA_EVENT_MATCH | LUNA_EVENT_ANY_SIZE;
  if (said->kind != LUNA_TRAP_PIO && said->kind != LUNA_TRAP_MMIO) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "there is no eventfd of kind %u", said->kind);
  }
  if (said->flags & ~known || said->flags == known) {
    return luna_fail(LUNA_ERROR_ARGUMENT,
                     "cannot make an eventfd with flags 0x%x: LUNA_EVENT_MATCH or "
                     "LUNA_EVENT_ANY_SIZE, not both",
                     said->flags);
  }
  bool any = said->flags & LUNA_EVENT_ANY_SIZE;
  uint32_t size = any ? 1 : said->size;
  bool pio = said->kind == LUNA_TRAP_PIO;
  if ((size != 1 && size != 2 && size != 4 && size != 8) || (pio && size == 8)) {
    return luna_fail(LUNA_ERROR_ARGUMENT,
                     "cannot make an eventfd of writes of %u bytes: 1, 2, 4%s are possible", size,
                     pio ? "" : ", 8");
  }
  uint64_t limit = (uint64_t)1 << (pio ? 16 : vm->spaces[0]->address_bits);
  if (said->address >= limit || size > limit - said->address) {
    return luna_fail(LUNA_ERROR_RANGE,
                     "cannot make an eventfd of the writes to %s 0x%" PRIx64
                     ": the last is 0x%" PRIx64,
                     pio ? "port" : "gpa", said->address, limit - 1);
  }
  if (pio && said->address == LUNA_EXCEPTION_PORT && size == 1) {
    return luna_fail(LUNA_ERROR_UNSUPPORTED,
                     "cannot make an eventfd of writes of 1 byte to port 0x%x: the exception stubs "
                     "of the modes from protected on use it; take another port or size",
                     LUNA_EXCEPTION_PORT);
  }
  if (said->flags & LUNA_EVENT_MATCH && size < 8 && said->value >> 8 * size) {
    return luna_fail(LUNA_ERROR_RANGE, "cannot match 0x%" PRIx64 ": a write has %u byte%s",
                     said->value, size, size == 1 ? "" : "s");
  }
  return LUNA_OK;
}

static int assign_all(luna_vm *vm, const luna_event *event) {
  for (uint32_t i = 0; i < vm->space_count; i++) {
    if (vm->spaces[i] && assign(vm->spaces[i], event, true) != 0) {
      int status = fail(errno, vm->spaces[i], &event->said);
      while (i-- > 0) {
        if (vm->spaces[i]) {
          assign(vm->spaces[i], event, false);
        }
      }
      return status;
    }
  }
  return LUNA_OK;
}

/* A descriptor of the VM's own: the caller's once more, or a new one. */
static int open_fd(int32_t fd) {
  int made = fd < 0 ? eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) : fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (made < 0) {
    return fd < 0 ? luna_fail_errno(errno, "cannot make an eventfd")
                  : luna_fail_errno(errno, "cannot use descriptor %d as an eventfd", fd);
  }
  return made;
}

static int add(luna_vm *vm, luna_eventfd *said) {
  luna_event *event = calloc(1, sizeof *event);
  int fd = event ? open_fd(said->fd) : luna_fail_errno(ENOMEM, "cannot make an eventfd");
  if (fd < 0) {
    free(event);
    return fd;
  }
  *event = (luna_event){.said = *said, .fd = fd, .next = vm->claims->eventfds};
  event->said.fd = said->fd < 0 ? fd : said->fd;
  int status = assign_all(vm, event);
  if (status != LUNA_OK) {
    forget(event);
    return status;
  }
  vm->claims->eventfds = event;
  said->fd = event->said.fd;
  return LUNA_OK;
}

int luna_vm_eventfd_add(luna_vm *vm, luna_eventfd *event) {
  pthread_rwlock_wrlock(&vm->lock);
  int status = check(vm, event);
  status = status == LUNA_OK ? add(vm, event) : status;
  pthread_rwlock_unlock(&vm->lock);
  return status;
}

static bool same(const luna_eventfd *a, const luna_eventfd *b) {
  bool any = a->flags & LUNA_EVENT_ANY_SIZE;
  return a->kind == b->kind && a->flags == b->flags && a->address == b->address && a->fd == b->fd &&
         (any || a->size == b->size) && (!(a->flags & LUNA_EVENT_MATCH) || a->value == b->value);
}

int luna_vm_eventfd_remove(luna_vm *vm, const luna_eventfd *event) {
  pthread_rwlock_wrlock(&vm->lock);
  luna_event **place = &vm->claims->eventfds;
  while (*place && !same(&(*place)->said, event)) {
    place = &(*place)->next;
  }
  luna_event *found = *place;
  if (found) {
    *place = found->next;
    for (uint32_t i = 0; i < vm->space_count; i++) {
      if (vm->spaces[i]) {
        assign(vm->spaces[i], found, false);
      }
    }
    forget(found);
  }
  pthread_rwlock_unlock(&vm->lock);
  return found ? LUNA_OK
               : luna_fail(LUNA_ERROR_NOT_FOUND,
                           "there is no such eventfd at 0x%" PRIx64 " with descriptor %d",
                           event->address, event->fd);
}

static bool matches(const luna_eventfd *said, const luna_exit *e) {
  bool any = said->flags & LUNA_EVENT_ANY_SIZE;
  return said->kind == (uint32_t)luna_exit_trap_kind(e) && said->address == e->address &&
         (any || said->size == e->size) &&
         (!(said->flags & LUNA_EVENT_MATCH) || said->value == e->value);
}

bool luna_eventfds_take(luna_vm *vm, const luna_exit *e) {
  if (e->access != LUNA_WRITE) {
    return false;
  }
  pthread_rwlock_rdlock(&vm->lock);
  const luna_event *event = vm->claims->eventfds;
  while (event && !matches(&event->said, e)) {
    event = event->next;
  }
  if (event) {
    luna_eventfd_write(event->fd, 1);
  }
  pthread_rwlock_unlock(&vm->lock);
  return event;
}

int luna_eventfd_read(int32_t fd, uint64_t *count) {
  ssize_t got;
  do {
    got = read(fd, count, sizeof *count);
  } while (got < 0 && errno == EINTR);
  if (got == (ssize_t)sizeof *count) {
    return LUNA_OK;
  }
  if (got < 0 && errno == EAGAIN) {
    *count = 0;
    return LUNA_OK;
  }
  return luna_fail_errno(got < 0 ? errno : EINVAL, "cannot read eventfd %d", fd);
}

int luna_eventfd_write(int32_t fd, uint64_t count) {
  ssize_t done;
  do {
    done = write(fd, &count, sizeof count);
  } while (done < 0 && errno == EINTR);
  return done == (ssize_t)sizeof count
             ? LUNA_OK
             : luna_fail_errno(done < 0 ? errno : EINVAL, "cannot add %" PRIu64 " to eventfd %d",
                               count, fd);
}
