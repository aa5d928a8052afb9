/* SPDX-License-Identifier: MIT
 * Writes that no exit is made of: they signal an eventfd (api.rst, KVM_IOEVENTFD), or are collected
 * in a ring (KVM_REGISTER_COALESCED_MMIO). */
#include "soft/kernel/kernel.h"
#include "soft/vector/vector.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
  EVENT_FLAGS = KVM_IOEVENTFD_FLAG_DATAMATCH | KVM_IOEVENTFD_FLAG_PIO | KVM_IOEVENTFD_FLAG_DEASSIGN,
  RING_SIZE = (SOFT_PAGE - (int)sizeof(struct kvm_coalesced_mmio_ring)) /
              (int)sizeof(struct kvm_coalesced_mmio)
};

/* ---- Eventfds ---- */

static bool is_pio(const struct kvm_ioeventfd *event) {
  return event->flags & KVM_IOEVENTFD_FLAG_PIO;
}

static bool matches(const struct kvm_ioeventfd *event, const soft_post *post, uint64_t data) {
  return is_pio(event) == post->port && event->addr == post->address &&
         (!event->len || event->len == post->size) &&
         (!(event->flags & KVM_IOEVENTFD_FLAG_DATAMATCH) || event->datamatch == data);
}

/* Whether both take some write. */
static bool collide(const struct kvm_ioeventfd *a, const struct kvm_ioeventfd *b) {
  bool chooses = a->flags & KVM_IOEVENTFD_FLAG_DATAMATCH && b->flags & KVM_IOEVENTFD_FLAG_DATAMATCH;
  return is_pio(a) == is_pio(b) && a->addr == b->addr && (!a->len || !b->len || a->len == b->len) &&
         (!chooses || a->datamatch == b->datamatch);
}

static bool is_same(const struct kvm_ioeventfd *a, const struct kvm_ioeventfd *b) {
  uint32_t kind = KVM_IOEVENTFD_FLAG_PIO | KVM_IOEVENTFD_FLAG_DATAMATCH;
  return a->fd == b->fd && a->addr == b->addr && a->len == b->len &&
         !((a->flags ^ b->flags) & kind) && a->datamatch == b->datamatch;
}

/* EBADF or EINVAL where it is none. */
int soft_check_eventfd(int fd) {
  char path[64], target[64] = {0};
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  if (readlink(path, target, sizeof target - 1) < 0) {
    return EBADF;
  }
  return strstr(target, "[eventfd]") ? 0 : EINVAL;
}

static int add_event(soft_vm *vm, const struct kvm_ioeventfd *event) {
  unsigned count = atomic_load(&vm->event_count);
  for (unsigned i = 0; i < count; i++) {
    if (collide(&vm->events[i], event)) {
      return soft_refuse(EEXIST);
    }
  }
  if (count == SOFT_EVENTS_MAX) {
    return soft_refuse(ENOSPC);
  }
  struct kvm_ioeventfd *events = realloc(vm->events, (count + 1) * sizeof *events);
  if (!events) {
    return soft_refuse(ENOMEM);
  }
  events[count] = *event;
  vm->events = events;
  atomic_store(&vm->event_count, count + 1);
  return 0;
}

static int remove_event(soft_vm *vm, const struct kvm_ioeventfd *event) {
  unsigned count = atomic_load(&vm->event_count);
  for (unsigned i = 0; i < count; i++) {
    if (is_same(&vm->events[i], event)) {
      vm->events[i] = vm->events[count - 1];
      atomic_store(&vm->event_count, count - 1);
      return 0;
    }
  }
  return soft_refuse(ENOENT);
}

int soft_event_set(soft_vm *vm, const struct kvm_ioeventfd *event) {
  uint32_t len = event->len;
  bool sized = len == 1 || len == 2 || len == 4 || len == 8;
  bool matched = event->flags & KVM_IOEVENTFD_FLAG_DATAMATCH;
  if (event->flags & ~(uint32_t)EVENT_FLAGS || (len && !sized) || (!len && matched) ||
      event->addr + len < event->addr) {
    return soft_refuse(EINVAL);
  }
  int number = soft_check_eventfd(event->fd);
  if (number) {
    return soft_refuse(number);
  }
  pthread_mutex_lock(&vm->exits);
  int result =
      event->flags & KVM_IOEVENTFD_FLAG_DEASSIGN ? remove_event(vm, event) : add_event(vm, event);
  pthread_mutex_unlock(&vm->exits);
  return result;
}

/* ---- Zones ---- */

int soft_zone_set(soft_vm *vm, const struct kvm_coalesced_mmio_zone *zone, bool on) {
  if (zone->pio > 1) {
    return soft_refuse(EINVAL);
  }
  pthread_mutex_lock(&vm->exits);
  unsigned count = atomic_load(&vm->zone_count);
  int result = 0;
  if (on && count == SOFT_ZONES_MAX) {
    result = soft_refuse(ENOSPC);
  } else if (on) {
    vm->zones[count++] = *zone;
  }
  for (unsigned i = 0; !on && i < count; i++) {
    const struct kvm_coalesced_mmio_zone *one = &vm->zones[i];
    if (one->pio == zone->pio && one->addr >= zone->addr &&
        one->addr + one->size <= zone->addr + zone->size) {
      vm->zones[i--] = vm->zones[--count];
    }
  }
  atomic_store(&vm->zone_count, count);
  pthread_mutex_unlock(&vm->exits);
  return result;
}

static bool in_zone(const soft_vm *vm, const soft_post *post) {
  for (unsigned i = 0; i < atomic_load(&vm->zone_count); i++) {
    const struct kvm_coalesced_mmio_zone *zone = &vm->zones[i];
    if ((zone->pio != 0) == post->port && post->address >= zone->addr &&
        post->address + post->size <= zone->addr + zone->size) {
      return true;
    }
  }
  return false;
}

/* False where the ring is full: then the write is an exit. */
static bool collect(soft_vm *vm, const soft_post *post) {
  struct kvm_coalesced_mmio_ring *ring = vm->ring;
  uint32_t last = ring->last, next = (last + 1) % RING_SIZE;
  if (last >= RING_SIZE || next == __atomic_load_n(&ring->first, __ATOMIC_ACQUIRE)) {
    return false;
  }
  struct kvm_coalesced_mmio *entry = &ring->coalesced_mmio[last];
  entry->phys_addr = post->address;
  entry->len = post->size;
  entry->pio = post->port;
  memcpy(entry->data, post->data, sizeof entry->data);
  __atomic_store_n(&ring->last, next, __ATOMIC_RELEASE);
  return true;
}

static bool signal_event(const soft_vm *vm, const soft_post *post) {
  uint64_t data = 0, one = 1;
  memcpy(&data, post->data, post->size);
  for (unsigned i = 0; i < atomic_load(&vm->event_count); i++) {
    if (matches(&vm->events[i], post, data)) {
      return write(vm->events[i].fd, &one, sizeof one) == sizeof one || errno == EAGAIN;
    }
  }
  return false;
}

bool soft_write_taken(soft_cpu *cpu, const soft_post *post) {
  soft_vm *vm = cpu->vm;
  if (!soft_takes_writes(vm)) {
    return false;
  }
  soft_park(cpu);
  pthread_mutex_lock(&vm->exits);
  bool taken = signal_event(vm, post) || (in_zone(vm, post) && collect(vm, post));
  pthread_mutex_unlock(&vm->exits);
  return taken;
}
