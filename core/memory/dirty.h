/* SPDX-License-Identifier: MIT
 * Which pages were written: by the guest, from KVM's bitmap or ring, and by the host side, from the
 * buffers' epochs. Both end up in each mapping's own bitmap until somebody asks. The caller holds
 * the VM's lock, exclusively but for luna_dirty_begin. */
#ifndef LUNA_DIRTY_H
#define LUNA_DIRTY_H

#include "memory/space.h"

/* Prepares a new space: with a ring of so many entries for each vCPU, or 0 for the bitmap. */
int luna_dirty_begin(luna_space *space, uint32_t ring_entries);
/* Begins to follow the writes to everything in the space. */
int luna_dirty_start(luna_space *space);
/* Gives a mapping of a followed space its bitmap. 0, or -1 without memory. */
int luna_dirty_attach(luna_mapping *mapping);
/* Brings a mapping's bitmap up to date. */
int luna_dirty_collect(luna_space *space, luna_mapping *mapping);
/* The part of it that the host side wrote. */
void luna_dirty_collect_host(luna_mapping *mapping);
/* Takes the bits of the pages that both mappings have over to `to`. */
void luna_dirty_inherit(luna_mapping *to, const luna_mapping *from);
/* The first run of written pages in the range, taken out of the bitmaps. False if there is none. */
bool luna_dirty_take(luna_space *space, luna_range range, luna_range *run);

#endif
