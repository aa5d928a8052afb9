/* SPDX-License-Identifier: MIT
 * Windows: a region whose place in this process is its own, so that other memory can be put there
 * (mmap with MAP_FIXED) while KVM's slot stays. */
#ifndef LUNA_WINDOW_H
#define LUNA_WINDOW_H

#include "memory/space.h"

/* Makes the mapping, which is in no space yet, a window that shows its buffer. */
int luna_window_create(luna_mapping *mapping);
/* Shows other memory in the whole of the mapping. */
int luna_window_show(luna_mapping *mapping, luna_buffer *buffer, uint64_t offset);
void luna_window_release(luna_window *window); /* NULL is allowed */

#endif
