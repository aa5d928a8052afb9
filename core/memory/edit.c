/* SPDX-License-Identifier: MIT
 * Working out and committing the change of a space's map. */
#include "memory/edit.h"

#include "base/error.h"
#include "base/range.h"
#include "memory/buffer.h"
#include "memory/dirty.h"
#include "memory/slots.h"
#include "memory/space.h"
#include "memory/window.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

void luna_edit_begin(luna_edit *edit, luna_space *space) {
  edit->space = space;
  edit->old = edit->old_inline;
  edit->old_count = 0;
  edit->old_capacity = LUNA_EDIT_INLINE;
  edit->after = edit->after_inline;
  edit->after_count = 0;
  edit->after_capacity = LUNA_EDIT_INLINE;
  edit->windows = NULL;
}

static void end(luna_edit *edit) {
  for (size_t i = 0; i < edit->old_count; i++) {
    edit->old[i]->edited = false;
  }
  while (edit->windows) {
    luna_window *window = edit->windows;
    edit->windows = window->next;
    luna_window_release(window);
  }
  if (edit->old != edit->old_inline) {
    free(edit->old);
  }
  if (edit->after != edit->after_inline) {
    free(edit->after);
  }
}

void luna_edit_abandon(luna_edit *edit) {
  end(edit);
}

static int fail_memory(const luna_edit *edit) {
  return luna_fail_errno(ENOMEM, "cannot change the map of space %u", edit->space->id);
}

/* Makes room for one more element in a growing array that began inside the edit. */
static void *grow(void *array, const void *inline_array, size_t *capacity, size_t size) {
  size_t larger = *capacity * 2;
  void *made = realloc(array == inline_array ? NULL : array, larger * size);
  if (made) {
    if (array == inline_array) {
      memcpy(made, inline_array, *capacity * size);
    }
    *capacity = larger;
  }
  return made;
}

/* The index of the first mapping of `after` that ends at or above `gpa`. */
static size_t after_from(const luna_edit *edit, uint64_t gpa) {
  size_t low = 0;
  size_t high = edit->after_count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (edit->after[middle].range.last < gpa) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

static int after_insert(luna_edit *edit, const luna_mapping *mapping) {
  if (edit->after_count == edit->after_capacity) {
    void *made = grow(edit->after, edit->after_inline, &edit->after_capacity, sizeof *edit->after);
    if (!made) {
      return fail_memory(edit);
    }
    edit->after = made;
  }
  size_t at = after_from(edit, mapping->range.first);
  memmove(edit->after + at + 1, edit->after + at, (edit->after_count - at) * sizeof *edit->after);
  edit->after[at] = *mapping;
  edit->after_count++;
  return LUNA_OK;
}

static void after_remove(luna_edit *edit, size_t at) {
  edit->after_count--;
  memmove(edit->after + at, edit->after + at + 1, (edit->after_count - at) * sizeof *edit->after);
}

static int old_insert(luna_edit *edit, luna_mapping *mapping) {
  if (edit->old_count == edit->old_capacity) {
    luna_mapping **made =
        grow(edit->old, edit->old_inline, &edit->old_capacity, sizeof(luna_mapping *));
    if (!made) {
      return fail_memory(edit);
    }
    edit->old = made;
  }
  size_t at = edit->old_count;
  while (at > 0 && edit->old[at - 1]->range.first > mapping->range.first) {
    edit->old[at] = edit->old[at - 1];
    at--;
  }
  edit->old[at] = mapping;
  edit->old_count++;
  mapping->edited = true;
  return LUNA_OK;
}

/* Takes the space's regions in `range` into the edit, and those that touch its ends: they may
 * merge. */
static int take(luna_edit *edit, luna_range range) {
  uint64_t from = range.first ? range.first - 1 : 0;
  uint64_t to = range.last == UINT64_MAX ? range.last : range.last + 1;
  while (from <= to) {
    luna_mapping *mapping = (luna_mapping *)luna_range_from(&edit->space->regions, from);
    if (!mapping || mapping->range.first > to) {
      break;
    }
    if (!mapping->edited) {
      int status = old_insert(edit, mapping);
      status = status == LUNA_OK ? after_insert(edit, mapping) : status;
      if (status != LUNA_OK) {
        return status;
      }
    }
    if (mapping->range.last >= to) {
      break;
    }
    from = mapping->range.last + 1;
  }
  return LUNA_OK;
}

/* Cuts the mapping that holds both gpa - 1 and gpa in two. */
static int cut(luna_edit *edit, uint64_t gpa) {
  size_t at = after_from(edit, gpa);
  if (at == edit->after_count || edit->after[at].range.first >= gpa) {
    return LUNA_OK;
  }
  luna_mapping upper = edit->after[at];
  upper.offset += gpa - upper.range.first;
  upper.host += gpa - upper.range.first;
  upper.range.first = gpa;
  uint64_t last = edit->after[at].range.last;
  edit->after[at].range.last = gpa - 1;
  int status = after_insert(edit, &upper);
  if (status != LUNA_OK) {
    edit->after[at].range.last = last;
  }
  return status;
}

/* Into parts that each are a slot. */
static int cut_to_slots(luna_edit *edit, luna_range range) {
  uint64_t most = luna_slot_most(edit->space);
  int status = LUNA_OK;
  for (uint64_t part = range.first / most + 1; part <= range.last / most && status == LUNA_OK;
       part++) {
    status = cut(edit, part * most);
  }
  return status;
}

int luna_edit_map(luna_edit *edit, const luna_mapping *mapping) {
  luna_range range = mapping->range;
  int status = take(edit, range);
  if (status != LUNA_OK) {
    return status;
  }
  size_t at = after_from(edit, range.first);
  if (at < edit->after_count && edit->after[at].range.first <= range.last) {
    const luna_range *other = &edit->after[at].range;
    return luna_fail(LUNA_ERROR_OVERLAP,
                     "cannot map gpa 0x%" PRIx64 "..0x%" PRIx64 " in space %u: 0x%" PRIx64
                     "..0x%" PRIx64 " is mapped already; unmap it first",
                     range.first, range.last, edit->space->id, other->first, other->last);
  }
  luna_mapping chosen = *mapping;
  luna_slot_choose(edit->space, &chosen);
  status = after_insert(edit, &chosen);
  return status == LUNA_OK && !mapping->window ? cut_to_slots(edit, range) : status;
}

/* Checks that every page of the range is mapped. */
static int check_covered(const luna_edit *edit, luna_range range, const char *verb) {
  uint64_t next = range.first;
  for (size_t at = after_from(edit, range.first); at < edit->after_count; at++) {
    const luna_range *found = &edit->after[at].range;
    if (found->first > next) {
      break;
    }
    if (found->last >= range.last) {
      return LUNA_OK;
    }
    next = found->last + 1;
  }
  return luna_fail(LUNA_ERROR_NOT_FOUND,
                   "cannot %s gpa 0x%" PRIx64 "..0x%" PRIx64 " of space %u: nothing is mapped at "
                   "0x%" PRIx64,
                   verb, range.first, range.last, edit->space->id, next);
}

/* Takes the range into the edit, checks that it is mapped and cuts what sticks out at its ends. */
static int carve(luna_edit *edit, luna_range range, const char *verb) {
  int status = take(edit, range);
  status = status == LUNA_OK ? check_covered(edit, range, verb) : status;
  status = status == LUNA_OK ? cut(edit, range.first) : status;
  if (status == LUNA_OK && range.last != UINT64_MAX) {
    status = cut(edit, range.last + 1);
  }
  return status;
}

int luna_edit_unmap(luna_edit *edit, luna_range range) {
  int status = carve(edit, range, "unmap");
  if (status != LUNA_OK) {
    return status;
  }
  size_t at = after_from(edit, range.first);
  while (at < edit->after_count && edit->after[at].range.first <= range.last) {
    after_remove(edit, at);
  }
  return LUNA_OK;
}

/* Whether the buffer can be written where the rights say so. */
static int check_writable(const luna_mapping *mapping, uint32_t rights, uint32_t space) {
  if (!(rights & LUNA_WRITE) || mapping->buffer->memory.writable) {
    return LUNA_OK;
  }
  return luna_fail(LUNA_ERROR_ARGUMENT,
                   "cannot give write to gpa 0x%" PRIx64 "..0x%" PRIx64
                   " in space %u: its buffer is read-only",
                   mapping->range.first, mapping->range.last, space);
}

int luna_edit_protect(luna_edit *edit, luna_range range, uint32_t rights, uint32_t flags) {
  int status = carve(edit, range, "protect");
  if (status != LUNA_OK) {
    return status;
  }
  size_t at = after_from(edit, range.first);
  for (; at < edit->after_count && edit->after[at].range.first <= range.last; at++) {
    luna_mapping *mapping = &edit->after[at];
    status = check_writable(mapping, rights, edit->space->id);
    if (status != LUNA_OK) {
      return status;
    }
    mapping->rights = rights;
    mapping->flags = (mapping->flags & ~(uint32_t)LUNA_MAP_STRICT) | flags;
    luna_slot_choose(edit->space, mapping);
  }
  return LUNA_OK;
}

static bool joins(const luna_space *space, const luna_mapping *lower, const luna_mapping *upper) {
  uint64_t size = upper->range.first - lower->range.first;
  bool apart = !upper->window && upper->range.first % luna_slot_most(space) == 0;
  return !apart && lower->range.last + 1 == upper->range.first && lower->buffer == upper->buffer &&
         lower->window == upper->window && lower->offset + size == upper->offset &&
         lower->host + size == upper->host && lower->rights == upper->rights &&
         lower->flags == upper->flags && !(lower->flags & LUNA_MAP_SEPARATE);
}

/* Neighbours that continue each other become one mapping. */
static void merge(luna_edit *edit) {
  size_t kept = 0;
  for (size_t i = 0; i < edit->after_count; i++) {
    if (kept > 0 && joins(edit->space, &edit->after[kept - 1], &edit->after[i])) {
      edit->after[kept - 1].range.last = edit->after[i].range.last;
    } else {
      edit->after[kept++] = edit->after[i];
    }
  }
  edit->after_count = kept;
}

/* What a commit needs: which old mappings stay, objects for the new ones, the slot changes. */
typedef struct commit {
  luna_mapping **fresh; /* one a mapping of `after`; NULL where an old one stays */
  luna_mapping **kept;  /* the old one that stays there, or NULL */
  luna_slot_change *changes;
  size_t change_count;
  void *memory;
} commit;

static int allocate(const luna_edit *edit, commit *plan) {
  size_t pointers = 2 * edit->after_count * sizeof(luna_mapping *);
  size_t changes = (edit->old_count + edit->after_count) * sizeof *plan->changes;
  plan->memory = calloc(1, pointers + changes + 1);
  if (!plan->memory) {
    return fail_memory(edit);
  }
  plan->fresh = plan->memory;
  plan->kept = plan->fresh + edit->after_count;
  plan->changes = (luna_slot_change *)(plan->kept + edit->after_count);
  plan->change_count = 0;
  return LUNA_OK;
}

static void add_change(commit *plan, luna_mapping *mapping, bool add) {
  if (luna_slot_needed(mapping)) {
    plan->changes[plan->change_count++] = (luna_slot_change){mapping, add};
  }
}

/* Pairs each old mapping with an equal new one. What finds no partner loses its slot; deletions go
 * first, since KVM refuses a slot that overlaps one. `old` then holds only what goes. */
static void pair(luna_edit *edit, commit *plan) {
  size_t at = 0;
  size_t going = 0;
  for (size_t i = 0; i < edit->old_count; i++) {
    luna_mapping *old = edit->old[i];
    while (at < edit->after_count && edit->after[at].range.first < old->range.first) {
      at++;
    }
    if (at < edit->after_count && luna_slot_same(&edit->after[at], old)) {
      plan->kept[at] = old;
      old->edited = false;
    } else {
      edit->old[going++] = old;
      add_change(plan, old, false);
    }
  }
  edit->old_count = going;
}

static luna_mapping *new_mapping(const luna_edit *edit, const luna_mapping *like) {
  luna_mapping *mapping = malloc(sizeof *mapping);
  if (!mapping) {
    return NULL;
  }
  *mapping = *like;
  mapping->slot = -1;
  mapping->edited = false;
  mapping->log = NULL;
  if (edit->space->logged && luna_dirty_attach(mapping) != 0) {
    free(mapping);
    return NULL;
  }
  return mapping;
}

static int make_fresh(luna_edit *edit, commit *plan) {
  size_t made = 0;
  for (size_t i = 0; i < edit->after_count; i++) {
    if (plan->kept[i]) {
      continue;
    }
    luna_mapping *mapping = new_mapping(edit, &edit->after[i]);
    if (!mapping) {
      return fail_memory(edit);
    }
    plan->fresh[i] = mapping;
    add_change(plan, mapping, true);
    made++;
  }
  if (luna_range_reserve(&edit->space->regions, made) != 0) {
    return fail_memory(edit);
  }
  return LUNA_OK;
}

/* What is known to be written stays known, whatever becomes of the slots. */
static int save_dirty(luna_edit *edit, const commit *plan) {
  if (!edit->space->logged) {
    return LUNA_OK;
  }
  for (size_t i = 0; i < edit->old_count; i++) {
    int status = luna_dirty_collect_guest(edit->space, edit->old[i], edit->old[i]->range);
    if (status != LUNA_OK) {
      return status;
    }
  }
  size_t from = 0; /* both lists are sorted */
  for (size_t i = 0; i < edit->after_count; i++) {
    const luna_range *range = &edit->after[i].range;
    while (from < edit->old_count && edit->old[from]->range.last < range->first) {
      from++;
    }
    for (size_t j = from;
         plan->fresh[i] && j < edit->old_count && edit->old[j]->range.first <= range->last; j++) {
      luna_dirty_inherit(plan->fresh[i], edit->old[j]);
    }
  }
  return LUNA_OK;
}

/* Nothing here can fail. */
static void install(luna_edit *edit, commit *plan) {
  luna_range_map *regions = &edit->space->regions;
  for (size_t i = 0; i < edit->after_count; i++) {
    if (plan->kept[i]) {
      plan->kept[i]->rights = edit->after[i].rights;
      plan->kept[i]->flags = edit->after[i].flags;
    } else {
      luna_mapping_retain(plan->fresh[i]);
    }
  }
  for (size_t i = 0; i < edit->old_count; i++) {
    luna_range_remove(regions, &edit->old[i]->range);
    luna_mapping_release(edit->old[i]);
    free(edit->old[i]->log);
    free(edit->old[i]);
  }
  edit->old_count = 0;
  for (size_t i = 0; i < edit->after_count; i++) {
    if (plan->fresh[i]) {
      luna_range_insert(regions, &plan->fresh[i]->range);
    }
  }
}

static void drop_fresh(const luna_edit *edit, const commit *plan) {
  for (size_t i = 0; i < edit->after_count; i++) {
    if (plan->fresh[i]) {
      free(plan->fresh[i]->log);
      free(plan->fresh[i]);
    }
  }
}

/* Whether slots go and others come: then memory that stays would be missing in between. */
static bool replaces(const commit *plan) {
  bool adds = false;
  bool deletes = false;
  for (size_t i = 0; i < plan->change_count; i++) {
    adds |= plan->changes[i].add;
    deletes |= !plan->changes[i].add;
  }
  return adds && deletes;
}

static int carry_out(luna_edit *edit, commit *plan) {
  bool pause = replaces(plan);
  if (pause) {
    luna_space_pause(edit->space);
  }
  int status = save_dirty(edit, plan);
  if (status == LUNA_OK) {
    status = luna_slots_apply(edit->space, plan->changes, plan->change_count);
  }
  if (pause) {
    luna_space_resume(edit->space);
  }
  return status;
}

int luna_edit_commit(luna_edit *edit) {
  merge(edit);
  commit plan = {0};
  int status = allocate(edit, &plan);
  if (status != LUNA_OK) {
    end(edit);
    return status;
  }
  pair(edit, &plan);
  status = make_fresh(edit, &plan);
  status = status == LUNA_OK ? carry_out(edit, &plan) : status;
  if (status == LUNA_OK) {
    install(edit, &plan);
  } else {
    drop_fresh(edit, &plan);
  }
  free(plan.memory);
  end(edit);
  return status;
}
