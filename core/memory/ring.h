/* SPDX-License-Identifier: MIT
 * A KVM vCPU's dirty ring: mapped when the KVM vCPU is made, drained into the bitmaps of the
 * mappings. */
#ifndef LUNA_RING_H
#define LUNA_RING_H

#include "kvm/kvm.h"

typedef struct luna_ring {
  struct kvm_dirty_gfn *entries; /* NULL where there is none */
  uint32_t next;
} luna_ring;

typedef struct luna_space luna_space;

int luna_ring_map(const luna_space *space, luna_ring *ring, luna_fd vcpu_fd);
void luna_ring_unmap(const luna_space *space, luna_ring *ring, luna_fd vcpu_fd);
/* Drains all rings of the space. The VM's lock is held exclusively. */
int luna_ring_drain(luna_space *space);

#endif
