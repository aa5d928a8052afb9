/* SPDX-License-Identifier: MIT
 * Port writes that signal an eventfd instead of exiting. KVM does that by itself where a write has
 * one that it can be for; where it can have several, or is to exit when all are full, it comes here
 * on the vCPU's thread. */
#include "hvf/memory/notifier.h"

#include <Hypervisor/hv.h>

#include "hvf/base/error.h"
#include "hvf/base/process.h"
#include "hvf/base/room.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
  MOST_BYTES = 4, /* of a write */
  WHATEVER = HV_ION_ANY_VALUE | HV_ION_ANY_SIZE
};

typedef struct notifier {
  uint16_t addr;
  size_t size;
  uint32_t value;
  mach_port_t port;
  hv_ion_flags_t flags;
  int fd; /* our own of the port's, where the write comes here; else -1 */
} notifier;

/* A port whose writes come here. */
typedef struct watch {
  uint16_t addr;
  uint32_t length; /* of the range of ports */
  uint32_t trap;
} watch;

/* Over the notifiers while guests run. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static notifier *notifiers;
static uint32_t count;
static uint32_t room;
static watch *watches;
_Atomic uint32_t hvf_notifier_watches;
static uint32_t watch_room;

void hvf_notifier_drop_all(void) {
  for (uint32_t i = 0; i < count; i++) {
    if (notifiers[i].fd >= 0) {
      close(notifiers[i].fd);
    }
  }
  free(notifiers);
  free(watches);
  lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER; /* nobody has it, but maybe before a fork */
  notifiers = NULL;
  watches = NULL;
  hvf_notifier_watches = 0;
  count = room = watch_room = 0;
}

/* ---- What is asked for ---- */

static bool has(const notifier *n, hv_ion_flags_t flag) {
  return n->flags & flag;
}

static hv_return_t check(const notifier *n) {
  const hv_ion_flags_t known = HV_ION_ANY_VALUE | HV_ION_ANY_SIZE | HV_ION_EXIT_FULL;
  if (n->flags & ~known || n->port > INT_MAX) {
    return hvf_fail(HV_BAD_ARGUMENT, "no notifier has flags 0x%x and descriptor %d", n->flags,
                    (int)n->port);
  }
  if (n->size != 1 && n->size != 2 && n->size != 4 && !has(n, HV_ION_ANY_SIZE)) {
    return hvf_fail(HV_BAD_ARGUMENT, "no port access has %zu bytes", n->size);
  }
  if (!has(n, WHATEVER) && n->size < MOST_BYTES && n->value >> 8 * n->size) {
    return hvf_fail(HV_BAD_ARGUMENT, "no write of %zu byte%s has the value 0x%x", n->size,
                    n->size == 1 ? "" : "s", n->value);
  }
  return HV_SUCCESS;
}

/* The caller's descriptor once more, if it is of an eventfd; -1 if not. */
static int open_event(int fd) {
  char path[64], text[64] = "";
  snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
  FILE *file = fopen(path, "re");
  bool event = false;
  while (file && !event && fgets(text, sizeof text, file)) {
    event = strncmp(text, "eventfd-count:", 14) == 0;
  }
  if (file) {
    fclose(file);
  }
  return event ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
}

static bool same(const notifier *a, const notifier *b) {
  return a->addr == b->addr && a->size == b->size && a->value == b->value && a->port == b->port &&
         a->flags == b->flags;
}

/* Whether a write can be for both. */
static bool meet(const notifier *a, const notifier *b) {
  return a->addr == b->addr &&
         (has(a, HV_ION_ANY_SIZE) || has(b, HV_ION_ANY_SIZE) || a->size == b->size) &&
         (has(a, HV_ION_ANY_VALUE) || has(b, HV_ION_ANY_VALUE) || a->value == b->value);
}

/* Whether KVM can follow it; it cannot match values of any size, nor sees whether there is room. */
static bool for_kvm(const notifier *n) {
  return !has(n, HV_ION_EXIT_FULL) && (!has(n, HV_ION_ANY_SIZE) || has(n, HV_ION_ANY_VALUE));
}

/* ---- Writes that come here ---- */

static bool matches(const notifier *n, uint32_t size, uint64_t value) {
  return (has(n, HV_ION_ANY_SIZE) || n->size == size) &&
         (has(n, HV_ION_ANY_VALUE) || n->value == value);
}

static bool has_room(const notifier *n) {
  struct pollfd poll_fd = {.fd = n->fd, .events = POLLOUT};
  return poll(&poll_fd, 1, 0) == 1 && poll_fd.revents & POLLOUT;
}

/* Signals those that the write is for, the newest first, as Mac OS does: a full one that is to exit
 * then ends it. It exits if it is for none, too. */
static int serve(void *context, uint64_t offset, uint32_t size, uint32_t access, uint64_t *value) {
  const uint16_t addr = (uint16_t)(uintptr_t)context;
  bool any = false;
  bool exits = false;
  if (access != LUNA_WRITE || offset != 0) {
    return 1;
  }
  pthread_mutex_lock(&lock);
  for (uint32_t i = count; i-- > 0 && !exits;) {
    const notifier *n = &notifiers[i];
    if (n->addr != addr || n->fd < 0 || !matches(n, size, *value)) {
      continue;
    }
    any = true;
    if (has_room(n)) {
      luna_eventfd_write(n->fd, 1);
    } else {
      exits = has(n, HV_ION_EXIT_FULL);
    }
  }
  pthread_mutex_unlock(&lock);
  return any && !exits ? 0 : 1;
}

bool hvf_notifier_take(uint16_t addr, uint32_t size, uint64_t value) {
  return serve((void *)(uintptr_t)addr, 0, size, LUNA_WRITE, &value) == 0;
}

static bool is_watched(uint16_t addr) {
  for (uint32_t i = 0; i < hvf_notifier_watches; i++) {
    if (watches[i].addr == addr) {
      return true;
    }
  }
  return false;
}

static int trap(uint16_t addr, uint32_t length, uint32_t *number) {
  return luna_vm_trap_function(hvf_the_vm.vm, LUNA_TRAP_PIO, addr, length, serve,
                               (void *)(uintptr_t)addr, number);
}

/* All bytes of a write have to be in the range to come here whole: it leads up to the next port
 * that is watched, and one that is there already gets shorter. */
static int make_room(uint16_t addr, uint32_t *length) {
  *length = MOST_BYTES;
  for (uint32_t i = 0; i < hvf_notifier_watches; i++) {
    watch *w = &watches[i];
    const uint32_t distance = w->addr > addr ? w->addr - addr : addr - w->addr;
    if (w->addr > addr && distance < *length) {
      *length = distance;
    } else if (w->addr < addr && distance < w->length) {
      luna_vm_untrap(hvf_the_vm.vm, w->trap);
      w->length = distance;
      int status = trap(w->addr, distance, &w->trap);
      if (status != LUNA_OK) {
        return status;
      }
    }
  }
  return LUNA_OK;
}

static hv_return_t begin_watch(uint16_t addr) {
  watch made = {.addr = addr};
  if (!hvf_room((void **)&watches, &watch_room, hvf_notifier_watches, sizeof *watches)) {
    return hvf_fail(HV_NO_RESOURCES, "no memory for a notifier");
  }
  int status = make_room(addr, &made.length);
  if (made.length > 0x10000u - addr) {
    made.length = 0x10000u - addr;
  }
  status = status == LUNA_OK ? trap(addr, made.length, &made.trap) : status;
  if (status == LUNA_OK) {
    watches[hvf_notifier_watches++] = made;
  }
  return hvf_status(status);
}

/* If nothing of the port comes here any more. */
static void end_watch(uint16_t addr) {
  for (uint32_t i = 0; i < count; i++) {
    if (notifiers[i].addr == addr && notifiers[i].fd >= 0) {
      return;
    }
  }
  for (uint32_t i = 0; i < hvf_notifier_watches; i++) {
    if (watches[i].addr == addr) {
      luna_vm_untrap(hvf_the_vm.vm, watches[i].trap);
      watches[i] = watches[--hvf_notifier_watches];
      return;
    }
  }
}

/* ---- Adding and taking away ---- */

static luna_eventfd event_of(const notifier *n) {
  luna_eventfd event = {.kind = LUNA_TRAP_PIO, .address = n->addr, .fd = (int)n->port};
  if (has(n, HV_ION_ANY_SIZE)) {
    event.flags = LUNA_EVENT_ANY_SIZE;
  } else {
    event.size = (uint32_t)n->size;
  }
  if (!has(n, HV_ION_ANY_VALUE)) {
    event.flags |= LUNA_EVENT_MATCH;
    event.value = n->value;
  }
  return event;
}

/* What is no eventfd is refused by the kernel. */
static hv_return_t code_of(int status) {
  return status == LUNA_ERROR_SYSTEM ? hvf_fail(HV_BAD_ARGUMENT, "%s", luna_error_message())
                                     : hvf_status(status);
}

/* The notifiers that KVM has of a port come here from now on. */
static hv_return_t take_over(uint16_t addr) {
  for (uint32_t i = 0; i < count; i++) {
    notifier *n = &notifiers[i];
    if (n->addr != addr || n->fd >= 0) {
      continue;
    }
    const luna_eventfd event = event_of(n);
    const int fd = open_event((int)n->port);
    if (fd < 0) {
      return hvf_fail(HV_NO_RESOURCES, "no descriptor for the notifier of port 0x%x", addr);
    }
    pthread_mutex_lock(&lock);
    n->fd = fd;
    pthread_mutex_unlock(&lock);
    luna_vm_eventfd_remove(hvf_the_vm.vm, &event);
  }
  return HV_SUCCESS;
}

static hv_return_t add_here(notifier *n) {
  n->fd = open_event((int)n->port);
  if (n->fd < 0) {
    return hvf_fail(HV_BAD_ARGUMENT, "descriptor %d is of no eventfd", (int)n->port);
  }
  hv_return_t result = is_watched(n->addr) ? HV_SUCCESS : begin_watch(n->addr);
  result = result == HV_SUCCESS ? take_over(n->addr) : result;
  if (result != HV_SUCCESS) {
    close(n->fd);
    end_watch(n->addr);
  }
  return result;
}

static hv_return_t add_to_kvm(notifier *n) {
  luna_eventfd event = event_of(n);
  n->fd = -1;
  return code_of(luna_vm_eventfd_add(hvf_the_vm.vm, &event));
}

static hv_return_t add(notifier *n) {
  bool here = !for_kvm(n) || is_watched(n->addr);
  for (uint32_t i = 0; i < count; i++) {
    if (same(&notifiers[i], n)) {
      return hvf_fail(HV_BUSY, "port 0x%x has that notifier already", n->addr);
    }
    here |= meet(&notifiers[i], n);
  }
  pthread_mutex_lock(&lock);
  bool has_space = hvf_room((void **)&notifiers, &room, count, sizeof *notifiers);
  pthread_mutex_unlock(&lock);
  if (!has_space) {
    return hvf_fail(HV_NO_RESOURCES, "no memory for a notifier");
  }
  hv_return_t result = here ? add_here(n) : add_to_kvm(n);
  if (result == HV_SUCCESS) {
    pthread_mutex_lock(&lock);
    notifiers[count++] = *n;
    pthread_mutex_unlock(&lock);
  }
  return result;
}

static void take_at(uint32_t index) {
  const notifier n = notifiers[index];
  pthread_mutex_lock(&lock);
  count--;
  memmove(&notifiers[index], &notifiers[index + 1], (count - index) * sizeof *notifiers);
  pthread_mutex_unlock(&lock);
  if (n.fd >= 0) {
    close(n.fd);
    end_watch(n.addr);
  }
}

static hv_return_t take(const notifier *n) {
  for (uint32_t i = 0; i < count; i++) {
    if (same(&notifiers[i], n)) {
      const luna_eventfd event = event_of(n);
      hv_return_t result = notifiers[i].fd >= 0
                               ? HV_SUCCESS
                               : hvf_status(luna_vm_eventfd_remove(hvf_the_vm.vm, &event));
      if (result == HV_SUCCESS) {
        take_at(i);
      }
      return result;
    }
  }
  return hvf_fail(HV_BAD_ARGUMENT, "port 0x%x has no such notifier", n->addr);
}

static hv_return_t enter(const notifier *n) {
  hv_return_t result = hvf_enter();
  if (result != HV_SUCCESS) {
    return result;
  }
  result = check(n);
  if (result != HV_SUCCESS) {
    hvf_leave();
  }
  return result;
}

hv_return_t hv_vm_add_pio_notifier(uint16_t addr, size_t size, uint32_t value, mach_port_t port,
                                   hv_ion_flags_t flags) {
  notifier n = {addr, size, value, port, flags, -1};
  hv_return_t result = enter(&n);
  if (result == HV_SUCCESS) {
    result = add(&n);
    hvf_leave();
  }
  return result;
}

hv_return_t hv_vm_remove_pio_notifier(uint16_t addr, size_t size, uint32_t value, mach_port_t port,
                                      hv_ion_flags_t flags) {
  const notifier n = {addr, size, value, port, flags, -1};
  hv_return_t result = enter(&n);
  if (result == HV_SUCCESS) {
    result = take(&n);
    hvf_leave();
  }
  return result;
}
