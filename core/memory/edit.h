/* SPDX-License-Identifier: MIT
 * An edit: the change of a space's map that one call makes. It takes the regions that the change
 * touches, works out what stands there afterwards, and commits the difference with the fewest slot
 * changes, or nothing of it. */
#ifndef LUNA_EDIT_H
#define LUNA_EDIT_H

#include "memory/slots.h"

enum {
  LUNA_EDIT_INLINE = 6
};

typedef struct luna_edit {
  luna_space *space;
  luna_mapping **old; /* sorted; what the edit replaces */
  size_t old_count;
  size_t old_capacity;
  luna_mapping *after; /* sorted; what stands there when it is committed */
  size_t after_count;
  size_t after_capacity;
  luna_window *windows; /* made for this edit, which holds a reference to each */
  luna_mapping *old_inline[LUNA_EDIT_INLINE];
  luna_mapping after_inline[LUNA_EDIT_INLINE];
} luna_edit;

void luna_edit_begin(luna_edit *edit, luna_space *space);
/* The three operations check everything against the state within the edit and record an error. A
 * mapping that is added lends its references: the edit takes its own if it is committed. */
int luna_edit_map(luna_edit *edit, const luna_mapping *mapping);
int luna_edit_unmap(luna_edit *edit, luna_range range);
int luna_edit_protect(luna_edit *edit, luna_range range, uint32_t rights, uint32_t flags);
/* Makes the edit real, or leaves everything as it was. Ends the edit either way. */
int luna_edit_commit(luna_edit *edit);
/* Ends the edit without any change. */
void luna_edit_abandon(luna_edit *edit);

#endif
