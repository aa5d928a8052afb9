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
/* Gives a mapping of a followed space its log. 0, or -1 without memory. */
int luna_dirty_attach(luna_mapping *mapping);
/* The mapping shows other memory from now on: nothing of it counts as written yet. */
void luna_dirty_show(luna_mapping *mapping);
/* Brings a mapping's log up to date for the pages in the range, and perhaps for more. */
int luna_dirty_collect(luna_space *space, luna_mapping *mapping, luna_range range);
/* The part of it that the guest wrote; and that which the host side wrote, for all pages. */
int luna_dirty_collect_guest(luna_space *space, luna_mapping *mapping, luna_range range);
void luna_dirty_collect_host(luna_mapping *mapping);
/* Notes that the core wrote on the guest's behalf, where KVM does not see it. Any lock. */
void luna_dirty_note(const luna_mapping *mapping, uint64_t offset, uint64_t size);
/* Takes what is known of the pages that both mappings have over to `to`, which has a new log. */
void luna_dirty_inherit(luna_mapping *to, luna_mapping *from);
/* The first run of written pages in the range (luna_dirty_flag bits), taken out of the logs. False
 * if there is none. */
bool luna_dirty_take(luna_space *space, luna_range range, uint32_t flags, luna_range *run);

#endif
