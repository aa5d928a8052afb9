/* SPDX-License-Identifier: MIT
 * From guest-physical to host addresses, through the map of slots that the vCPU has adopted. */
#include "soft/mmu/mmu.h"

#include "soft/kernel/kernel.h"

const soft_slot *soft_slot_find(const soft_map *map, uint64_t gpa) {
  uint32_t low = 0, high = map->count;
  while (low < high) {
    uint32_t middle = (low + high) / 2;
    if (map->slots[middle].gpa <= gpa) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low == 0) {
    return NULL;
  }
  const soft_slot *slot = &map->slots[low - 1];
  return gpa - slot->gpa < slot->size ? slot : NULL;
}

void soft_slot_mark(soft_cpu *cpu, const soft_slot *slot, uint64_t gpa) {
  if (!slot->dirty) {
    return;
  }
  uint64_t page = (gpa - slot->gpa) / SOFT_PAGE, bit = UINT64_C(1) << page % 64;
  uint64_t old = atomic_fetch_or(&slot->dirty[page / 64], bit);
  if (cpu->ring && !(old & bit)) {
    soft_ring_push(cpu, slot, page);
  }
}

uint8_t *soft_host(soft_cpu *cpu, uint64_t gpa, bool write) {
  const soft_slot *slot = cpu->last_slot;
  if (!slot || gpa - slot->gpa >= slot->size) {
    slot = soft_slot_find(cpu->map, gpa);
    if (!slot) {
      return NULL;
    }
    cpu->last_slot = slot;
  }
  if (write) {
    if (slot->flags & KVM_MEM_READONLY) {
      return NULL;
    }
    soft_slot_mark(cpu, slot, gpa);
  }
  return slot->hva + (gpa - slot->gpa);
}
