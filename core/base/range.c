/* SPDX-License-Identifier: MIT
 * The two-level sorted array behind regions and traps. */
#include "base/range.h"

#include <stdlib.h>
#include <string.h>

/* How many of `count` sorted numbers are at most `address`. Without a branch on the comparison: the
 * probes of a search for a random address are not predictable. */
static size_t count_up_to(const uint64_t *sorted, size_t count, uint64_t address) {
  if (count == 0) {
    return 0;
  }
  const uint64_t *base = sorted;
  while (count > 1) {
    size_t half = count / 2;
    const uint64_t *upper = base + half; /* a form that gcc turns into a conditional move */
    base = upper[-1] <= address ? upper : base;
    count -= half;
  }
  return (size_t)(base - sorted) + (*base <= address);
}

/* Finds the last range that begins at or below `address`: its chunk and index. False if there is
 * none. */
static int find(const luna_range_map *map, uint64_t address, size_t *chunk, size_t *index) {
  size_t chunks = count_up_to(map->firsts, map->count, address);
  if (chunks == 0) {
    return 0;
  }
  *chunk = chunks - 1;
  const luna_range_chunk *found = map->chunks[*chunk];
  *index = count_up_to(found->first, found->count, address) - 1;
  return 1;
}

luna_range *luna_range_at(const luna_range_map *map, uint64_t address) {
  size_t chunk;
  size_t index;
  if (!find(map, address, &chunk, &index)) {
    return NULL;
  }
  luna_range *range = map->chunks[chunk]->item[index];
  return range->last >= address ? range : NULL;
}

luna_range *luna_range_from(const luna_range_map *map, uint64_t address) {
  size_t chunk;
  size_t index;
  if (!find(map, address, &chunk, &index)) {
    return map->count ? map->chunks[0]->item[0] : NULL;
  }
  luna_range *range = map->chunks[chunk]->item[index];
  if (range->last >= address) {
    return range;
  }
  if (index + 1 < map->chunks[chunk]->count) {
    return map->chunks[chunk]->item[index + 1];
  }
  return chunk + 1 < map->count ? map->chunks[chunk + 1]->item[0] : NULL;
}

void luna_range_free(luna_range_map *map) {
  for (size_t i = 0; i < map->count; i++) {
    free(map->chunks[i]);
  }
  while (map->spare) {
    luna_range_chunk *chunk = map->spare;
    map->spare = chunk->next_spare;
    free(chunk);
  }
  free(map->chunks);
  free(map->firsts);
  memset(map, 0, sizeof *map);
}

static int reserve_index(luna_range_map *map, size_t chunks) {
  if (chunks <= map->capacity) {
    return 0;
  }
  size_t capacity = chunks * 2 + 2;
  luna_range_chunk **items = realloc(map->chunks, capacity * sizeof(luna_range_chunk *));
  if (!items) {
    return -1;
  }
  map->chunks = items;
  uint64_t *firsts = realloc(map->firsts, capacity * sizeof *firsts);
  if (!firsts) {
    return -1;
  }
  map->firsts = firsts;
  map->capacity = capacity;
  return 0;
}

int luna_range_reserve(luna_range_map *map, size_t insertions) {
  /* Each split needs a full chunk: one that is there, or one that the insertions fill. */
  size_t splits = map->count + insertions / (LUNA_RANGE_CHUNK / 2) + 1;
  size_t needed = insertions < splits ? insertions : splits;
  if (reserve_index(map, map->count + needed) != 0) {
    return -1;
  }
  while (map->spares < needed) {
    luna_range_chunk *chunk = malloc(sizeof *chunk);
    if (!chunk) {
      return -1;
    }
    chunk->next_spare = map->spare;
    map->spare = chunk;
    map->spares++;
  }
  return 0;
}

/* Puts an empty chunk at index `at` of the map, from those that were allocated ahead. */
static luna_range_chunk *add_chunk(luna_range_map *map, size_t at) {
  luna_range_chunk *chunk = map->spare;
  map->spare = chunk->next_spare;
  map->spares--;
  chunk->count = 0;
  chunk->first[0] = 0;
  memmove(map->chunks + at + 1, map->chunks + at, (map->count - at) * sizeof(luna_range_chunk *));
  memmove(map->firsts + at + 1, map->firsts + at, (map->count - at) * sizeof *map->firsts);
  map->chunks[at] = chunk;
  map->firsts[at] = 0;
  map->count++;
  return chunk;
}

static void split(luna_range_map *map, size_t at) {
  luna_range_chunk *lower = map->chunks[at];
  luna_range_chunk *upper = add_chunk(map, at + 1);
  size_t keep = lower->count / 2;
  upper->count = lower->count - keep;
  memcpy(upper->first, lower->first + keep, upper->count * sizeof *upper->first);
  memcpy(upper->item, lower->item + keep, upper->count * sizeof(luna_range *));
  lower->count = keep;
  map->firsts[at + 1] = upper->first[0];
}

static void insert_into(luna_range_map *map, size_t at, size_t index, luna_range *range) {
  luna_range_chunk *chunk = map->chunks[at];
  size_t behind = chunk->count - index;
  memmove(chunk->first + index + 1, chunk->first + index, behind * sizeof *chunk->first);
  memmove(chunk->item + index + 1, chunk->item + index, behind * sizeof(luna_range *));
  chunk->first[index] = range->first;
  chunk->item[index] = range;
  chunk->count++;
  map->firsts[at] = chunk->first[0];
  map->items++;
}

/* A chunk for the next split, where none was allocated ahead. */
static int need_chunk(luna_range_map *map) {
  return map->spares > 0 && map->count < map->capacity ? 0 : luna_range_reserve(map, 1);
}

int luna_range_insert(luna_range_map *map, luna_range *range) {
  if (map->count == 0) {
    if (need_chunk(map) != 0) {
      return -1;
    }
    add_chunk(map, 0);
  }
  size_t chunks = count_up_to(map->firsts, map->count, range->first);
  size_t at = chunks ? chunks - 1 : 0;
  if (map->chunks[at]->count == LUNA_RANGE_CHUNK) {
    if (need_chunk(map) != 0) {
      return -1;
    }
    split(map, at);
    at += range->first >= map->firsts[at + 1];
  }
  size_t index = count_up_to(map->chunks[at]->first, map->chunks[at]->count, range->first);
  insert_into(map, at, index, range);
  return 0;
}

static void remove_chunk(luna_range_map *map, size_t at) {
  free(map->chunks[at]);
  map->count--;
  memmove(map->chunks + at, map->chunks + at + 1, (map->count - at) * sizeof(luna_range_chunk *));
  memmove(map->firsts + at, map->firsts + at + 1, (map->count - at) * sizeof *map->firsts);
}

void luna_range_remove(luna_range_map *map, luna_range *range) {
  size_t at;
  size_t index;
  if (!find(map, range->first, &at, &index)) {
    return;
  }
  luna_range_chunk *chunk = map->chunks[at];
  size_t behind = chunk->count - index - 1;
  memmove(chunk->first + index, chunk->first + index + 1, behind * sizeof *chunk->first);
  memmove(chunk->item + index, chunk->item + index + 1, behind * sizeof(luna_range *));
  chunk->count--;
  map->items--;
  if (chunk->count == 0) {
    remove_chunk(map, at);
  } else {
    map->firsts[at] = chunk->first[0];
  }
}
