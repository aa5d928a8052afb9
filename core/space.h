/* SPDX-License-Identifier: MIT
 * A guest-physical address space: its regions, sorted and never overlapping, and the KVM VM whose
 * memory slots carry them. The caller holds the VM's lock: shared to look, exclusive to change. */
#ifndef LUNA_SPACE_H
#define LUNA_SPACE_H

#include "lunavisor.h"
#include "range.h"

#include <stdbool.h>

typedef struct luna_mapping {
  luna_range range; /* guest-physical; first, so that a luna_range pointer is a mapping pointer */
  luna_buffer *buffer;
  uint64_t offset; /* in the buffer, of range.first */
  uint32_t rights; /* luna_access bits that were asked for */
  int32_t slot;    /* KVM memory slot, or -1 */
  bool edited;     /* taken into the edit that is under way */
} luna_mapping;

typedef struct luna_space {
  uint32_t id;
  int vm_fd;
  luna_range_map regions;
  uint32_t *free_slots; /* numbers below next_slot that are free again */
  uint32_t free_count;
  uint32_t free_capacity;
  uint32_t next_slot;
  uint32_t slots_max;
  unsigned address_bits;
} luna_space;

int luna_space_create(uint32_t id, luna_space **space);
void luna_space_free(luna_space *space);

/* The rights that a mapping's slot really gives. */
uint32_t luna_mapping_enforced(const luna_mapping *mapping);
luna_mapping *luna_space_at(const luna_space *space, uint64_t gpa);
/* The host address of [gpa, gpa + size) where one region with `rights` covers it, else NULL. */
uint8_t *luna_space_host(const luna_space *space, uint64_t gpa, uint64_t size, uint32_t rights);
/* Does an access of up to 8 bytes that the regions allow in full; false, with nothing done,
 * otherwise. */
bool luna_space_access(const luna_space *space, uint64_t gpa, uint32_t size, uint32_t access,
                       uint64_t *value);

#endif
