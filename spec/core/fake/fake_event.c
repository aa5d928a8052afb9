/* SPDX-License-Identifier: MIT
 * What the fake's VMs do without leaving the guest, and for which MSRs they leave it. */
#include "fake/fake_file.h"

#include "memory/vm.h"
#include "vcpu/vcpu.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

enum {
  MOST = 64
};

typedef struct fake_events {
  struct kvm_ioeventfd eventfds[MOST];
  unsigned eventfd_count;
  struct kvm_coalesced_mmio_zone zones[MOST];
  unsigned zone_count;
  uint64_t msr_reasons;
  unsigned ranges;
  struct kvm_msr_filter filter;
  uint8_t bitmaps[KVM_MSR_FILTER_MAX_RANGES][KVM_MSR_FILTER_MAX_BITMAP_SIZE];
} fake_events;

static fake_events *events_of(fake_file *vm) {
  if (!vm->events) {
    vm->events = calloc(1, sizeof *vm->events);
  }
  return vm->events;
}

void fake_event_free(fake_file *vm) {
  free(vm->events);
}

/* ---- Eventfds ---- */

static bool same_place(const struct kvm_ioeventfd *a, const struct kvm_ioeventfd *b) {
  const uint32_t pio = KVM_IOEVENTFD_FLAG_PIO;
  return a->addr == b->addr && (a->flags & pio) == (b->flags & pio);
}

/* ioeventfd_check_collision: a write must not have two. */
static bool collides(const struct kvm_ioeventfd *a, const struct kvm_ioeventfd *b) {
  const uint32_t match = KVM_IOEVENTFD_FLAG_DATAMATCH;
  return same_place(a, b) && (!a->len || !b->len ||
                              (a->len == b->len && (!(a->flags & match) || !(b->flags & match) ||
                                                    a->datamatch == b->datamatch)));
}

static int add_eventfd(fake_events *e, const struct kvm_ioeventfd *wanted) {
  if (fcntl(wanted->fd, F_GETFD) < 0) {
    return fake_refuse(EBADF);
  }
  for (unsigned i = 0; i < e->eventfd_count; i++) {
    if (collides(&e->eventfds[i], wanted)) {
      return fake_refuse(EEXIST);
    }
  }
  e->eventfds[e->eventfd_count++] = *wanted;
  return 0;
}

static int remove_eventfd(fake_events *e, const struct kvm_ioeventfd *wanted) {
  for (unsigned i = 0; i < e->eventfd_count; i++) {
    const struct kvm_ioeventfd *at = &e->eventfds[i];
    if (same_place(at, wanted) && at->len == wanted->len && at->fd == wanted->fd &&
        at->datamatch == wanted->datamatch) {
      e->eventfds[i] = e->eventfds[--e->eventfd_count];
      return 0;
    }
  }
  fake_mistake();
  return fake_refuse(ENOENT);
}

static int set_eventfd(fake_events *e, const struct kvm_ioeventfd *wanted) {
  const uint32_t sizes = 1u << 0 | 1u << 1 | 1u << 2 | 1u << 4 | 1u << 8;
  if (wanted->len > 8 || !(sizes >> wanted->len & 1) ||
      (!wanted->len && wanted->flags & KVM_IOEVENTFD_FLAG_DATAMATCH)) {
    fake_mistake();
    return fake_refuse(EINVAL);
  }
  return wanted->flags & KVM_IOEVENTFD_FLAG_DEASSIGN ? remove_eventfd(e, wanted)
                                                     : add_eventfd(e, wanted);
}

/* ---- Collected writes ---- */

static int set_zone(fake_events *e, const struct kvm_coalesced_mmio_zone *zone, bool on) {
  for (unsigned i = 0; i < e->zone_count && !on; i++) {
    const struct kvm_coalesced_mmio_zone *at = &e->zones[i];
    if (at->addr == zone->addr && at->size == zone->size && at->pio == zone->pio) {
      e->zones[i] = e->zones[--e->zone_count];
      return 0;
    }
  }
  if (!on || !fake_host.coalesced_page || (zone->pio && !fake_host.coalesced_pio)) {
    fake_mistake();
    return fake_refuse(EINVAL);
  }
  e->zones[e->zone_count++] = *zone;
  return 0;
}

/* As coalesced_mmio_write; here each vCPU has a ring of its own. */
bool fake_collect(const fake_file *vcpu, const fake_step *step) {
  struct kvm_coalesced_mmio_ring *ring =
      (void *)((uint8_t *)vcpu->run + fake_host.coalesced_page * FAKE_PAGE);
  const uint32_t entries = (FAKE_PAGE - sizeof *ring) / sizeof *ring->coalesced_mmio;
  uint32_t last = ring->last;
  if ((last + 1) % entries == __atomic_load_n(&ring->first, __ATOMIC_ACQUIRE)) {
    return false;
  }
  struct kvm_coalesced_mmio *entry = &ring->coalesced_mmio[last];
  entry->phys_addr = step->address;
  entry->len = step->size;
  entry->pio = step->pio;
  memcpy(entry->data, step->data, sizeof entry->data);
  __atomic_store_n(&ring->last, (last + 1) % entries, __ATOMIC_RELEASE);
  return true;
}

/* ---- MSRs ---- */

int fake_event_enable(fake_file *vm, const struct kvm_enable_cap *capability) {
  if (capability->cap == KVM_CAP_X86_USER_SPACE_MSR) {
    if (!fake_host.msr_exits || !events_of(vm)) {
      return fake_refuse(EINVAL);
    }
    vm->events->msr_reasons = capability->args[0];
  }
  return 0;
}

/* Copies the filter with its bitmaps; 0 or -1. */
static int set_filter(fake_events *e, const struct kvm_msr_filter *filter) {
  e->filter = *filter;
  e->ranges = 0;
  for (int i = 0; i < KVM_MSR_FILTER_MAX_RANGES && filter->ranges[i].nmsrs; i++) {
    const struct kvm_msr_filter_range *range = &filter->ranges[i];
    size_t bytes = (range->nmsrs + 63) / 64 * 8;
    if (bytes > KVM_MSR_FILTER_MAX_BITMAP_SIZE || !range->flags) {
      fake_mistake();
      return fake_refuse(EINVAL);
    }
    memcpy(e->bitmaps[i], range->bitmap, bytes);
    e->ranges++;
  }
  return 0;
}

static bool leaves(const fake_events *e, uint32_t msr) {
  for (unsigned i = 0; i < e->ranges; i++) {
    uint32_t bit = msr - e->filter.ranges[i].base;
    if (msr >= e->filter.ranges[i].base && bit < e->filter.ranges[i].nmsrs) {
      return e->msr_reasons & KVM_MSR_EXIT_REASON_FILTER &&
             !(e->bitmaps[i][bit / 8] >> bit % 8 & 1);
    }
  }
  return false;
}

/* ---- The table and the tests ---- */

int fake_event_ioctl(fake_file *vm, unsigned long request, void *argument) {
  fake_events *e = events_of(vm);
  if (!e) {
    return fake_refuse(ENOMEM);
  }
  switch (request) {
    case KVM_IOEVENTFD:
      return set_eventfd(e, argument);
    case KVM_REGISTER_COALESCED_MMIO:
      return set_zone(e, argument, true);
    case KVM_UNREGISTER_COALESCED_MMIO:
      return set_zone(e, argument, false);
    case KVM_X86_SET_MSR_FILTER:
      return set_filter(e, argument);
    default:
      fake_mistake();
      return fake_refuse(ENOTTY);
  }
}

static unsigned sum(unsigned (*of)(const fake_events *e, uint32_t what), uint32_t what) {
  unsigned total = 0;
  pthread_mutex_lock(&fake_lock);
  size_t count;
  fake_file **files = fake_files(&count);
  for (size_t i = 0; i < count; i++) {
    total += files[i] && files[i]->events ? of(files[i]->events, what) : 0;
  }
  pthread_mutex_unlock(&fake_lock);
  return total;
}

static unsigned eventfds_of(const fake_events *e, uint32_t what) {
  (void)what;
  return e->eventfd_count;
}

static unsigned zones_of(const fake_events *e, uint32_t what) {
  (void)what;
  return e->zone_count;
}

static unsigned leaves_of(const fake_events *e, uint32_t msr) {
  return leaves(e, msr);
}

unsigned fake_eventfds(void) {
  return sum(eventfds_of, 0);
}

unsigned fake_zones(void) {
  return sum(zones_of, 0);
}

unsigned fake_msr_exits(uint32_t msr) {
  return sum(leaves_of, msr);
}

unsigned fake_msr_ranges(void) {
  pthread_mutex_lock(&fake_lock);
  const fake_file *vm = fake_file_youngest(FAKE_FILE_VM);
  unsigned ranges = vm && vm->events ? vm->events->ranges : 0;
  pthread_mutex_unlock(&fake_lock);
  return ranges;
}
