/* SPDX-License-Identifier: MIT
 * Port writes that signal an eventfd instead of exiting. */
#include "hvf/memory/notifier.h"

#include <Hypervisor/hv.h>

#include "hvf/base/error.h"
#include "hvf/base/process.h"
#include "hvf/base/room.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>

typedef struct notifier {
  uint16_t addr;
  size_t size;
  uint32_t value;
  mach_port_t port;
  hv_ion_flags_t flags;
} notifier;

static notifier *notifiers;
static uint32_t count;
static uint32_t room;

void hvf_notifier_drop_all(void) {
  free(notifiers);
  notifiers = NULL;
  count = room = 0;
}

static hv_return_t check(const notifier *n) {
  const hv_ion_flags_t known = HV_ION_ANY_VALUE | HV_ION_ANY_SIZE | HV_ION_EXIT_FULL;
  if (n->flags & ~known || n->port > INT_MAX ||
      (n->flags & HV_ION_ANY_SIZE && !(n->flags & HV_ION_ANY_VALUE))) {
    return hvf_fail(HV_BAD_ARGUMENT,
                    "no notifier has flags 0x%x and descriptor %d (ANY_SIZE needs ANY_VALUE)",
                    n->flags, (int)n->port);
  }
  if (n->flags & HV_ION_EXIT_FULL) {
    return hvf_fail(HV_UNSUPPORTED, "an eventfd is never full: HV_ION_EXIT_FULL has no meaning");
  }
  if (n->size != 1 && n->size != 2 && n->size != 4 && !(n->flags & HV_ION_ANY_SIZE)) {
    return hvf_fail(HV_BAD_ARGUMENT, "no port access has %zu bytes", n->size);
  }
  return HV_SUCCESS;
}

static luna_eventfd event_of(const notifier *n) {
  luna_eventfd event = {.kind = LUNA_TRAP_PIO, .address = n->addr, .fd = (int)n->port};
  if (n->flags & HV_ION_ANY_SIZE) {
    event.flags = LUNA_EVENT_ANY_SIZE;
  } else {
    event.size = (uint32_t)n->size;
  }
  if (!(n->flags & HV_ION_ANY_VALUE)) {
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

static hv_return_t add(const notifier *n) {
  for (uint32_t i = 0; i < count; i++) {
    if (notifiers[i].addr == n->addr) {
      return hvf_fail(HV_BUSY, "port 0x%x has a notifier already", n->addr);
    }
  }
  if (!hvf_room((void **)&notifiers, &room, count, sizeof *notifiers)) {
    return hvf_fail(HV_NO_RESOURCES, "no memory for a notifier");
  }
  luna_eventfd event = event_of(n);
  hv_return_t result = code_of(luna_vm_eventfd_add(hvf_the_vm.vm, &event));
  if (result == HV_SUCCESS) {
    notifiers[count++] = *n;
  }
  return result;
}

static bool same(const notifier *a, const notifier *b) {
  return a->addr == b->addr && a->size == b->size && a->value == b->value && a->port == b->port &&
         a->flags == b->flags;
}

static hv_return_t take(const notifier *n) {
  for (uint32_t i = 0; i < count; i++) {
    if (same(&notifiers[i], n)) {
      luna_eventfd event = event_of(n);
      hv_return_t result = hvf_status(luna_vm_eventfd_remove(hvf_the_vm.vm, &event));
      if (result == HV_SUCCESS) {
        notifiers[i] = notifiers[--count];
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
  const notifier n = {addr, size, value, port, flags};
  hv_return_t result = enter(&n);
  if (result == HV_SUCCESS) {
    result = add(&n);
    hvf_leave();
  }
  return result;
}

hv_return_t hv_vm_remove_pio_notifier(uint16_t addr, size_t size, uint32_t value, mach_port_t port,
                                      hv_ion_flags_t flags) {
  const notifier n = {addr, size, value, port, flags};
  hv_return_t result = enter(&n);
  if (result == HV_SUCCESS) {
    result = take(&n);
    hvf_leave();
  }
  return result;
}
