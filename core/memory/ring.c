/* SPDX-License-Identifier: MIT
 * KVM's dirty rings (api.rst, KVM_CAP_DIRTY_LOG_RING): one a vCPU, each entry a slot and a page in
 * it. */
#include "memory/ring.h"

#include "base/error.h"
#include "kvm/kvm.h"
#include "memory/space.h"

#include <errno.h>

static size_t ring_bytes(const luna_space *space) {
  return space->ring_entries * sizeof(struct kvm_dirty_gfn);
}

int luna_ring_map(const luna_space *space, luna_ring *ring, luna_fd vcpu_fd) {
  if (!space->ring_entries) {
    return LUNA_OK;
  }
  off_t offset = (off_t)KVM_DIRTY_LOG_PAGE_OFFSET * LUNA_PAGE_SIZE;
  ring->entries = luna_kvm_map(vcpu_fd, ring_bytes(space), offset);
  return ring->entries
             ? LUNA_OK
             : luna_fail_errno(errno, "cannot map the dirty ring of a vCPU in space %u", space->id);
}

void luna_ring_unmap(const luna_space *space, luna_ring *ring, luna_fd vcpu_fd) {
  if (ring->entries) {
    luna_kvm_unmap(vcpu_fd, ring->entries, ring_bytes(space));
  }
}

static void note(const luna_space *space, uint32_t slot, uint64_t page) {
  slot &= 0xffff; /* bits 16 and up are KVM's address space, 0 here */
  luna_mapping *mapping = slot < space->next_slot ? space->by_slot[slot] : NULL;
  if (mapping && mapping->log && page < luna_mapping_pages(mapping)) {
    mapping->log->guest[page / 64] |= (uint64_t)1 << page % 64;
  }
}

static uint32_t drain(const luna_space *space, luna_ring *ring) {
  uint32_t drained = 0;
  for (;;) {
    struct kvm_dirty_gfn *entry = &ring->entries[ring->next % space->ring_entries];
    /* The vCPU may be running: it publishes an entry by its flags. */
    if (!(__atomic_load_n(&entry->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_DIRTY)) {
      return drained;
    }
    note(space, __atomic_load_n(&entry->slot, __ATOMIC_RELAXED),
         __atomic_load_n(&entry->offset, __ATOMIC_RELAXED));
    __atomic_store_n(&entry->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
    ring->next++;
    drained++;
  }
}

int luna_ring_drain(luna_space *space) {
  uint32_t drained = 0;
  for (uint32_t i = 0; i < space->resident_count; i++) {
    if (space->residents[i] && space->residents[i]->ring.entries) {
      drained += drain(space, &space->residents[i]->ring);
    }
  }
  if (drained && luna_kvm_reset_rings(space->vm_fd) < 0) {
    return luna_fail_errno(errno, "cannot reset the dirty rings of space %u", space->id);
  }
  return LUNA_OK;
}
