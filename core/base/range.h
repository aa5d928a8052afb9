/* SPDX-License-Identifier: MIT
 * An ordered map from disjoint ranges of addresses to pointers: the regions of a space, the traps
 * of a VM. Sorted chunks under a sorted index, so that a look-up touches few cache lines and an
 * insertion moves a few kilobytes at most. Not locked. */
#ifndef LUNA_RANGE_H
#define LUNA_RANGE_H

#include <stddef.h>
#include <stdint.h>

enum {
  LUNA_RANGE_CHUNK = 128
};

/* The first member of whatever is kept in a map. */
typedef struct luna_range {
  uint64_t first;
  uint64_t last; /* inclusive, so that a range may end at the top of the address space */
} luna_range;

typedef struct luna_range_chunk {
  uint64_t first[LUNA_RANGE_CHUNK];
  luna_range *item[LUNA_RANGE_CHUNK];
  size_t count;
  struct luna_range_chunk *next_spare;
} luna_range_chunk;

typedef struct luna_range_map {
  luna_range_chunk **chunks;
  uint64_t *firsts; /* of each chunk's first range */
  size_t count;
  size_t capacity;
  size_t items;
  luna_range_chunk *spare; /* allocated ahead by luna_range_reserve */
  size_t spares;
} luna_range_map;

void luna_range_free(luna_range_map *map); /* the map's own memory, not the items */

/* The range that holds `address`, or the first one above it; NULL past the last. */
luna_range *luna_range_from(const luna_range_map *map, uint64_t address);
/* The range that holds `address`, or NULL. */
luna_range *luna_range_at(const luna_range_map *map, uint64_t address);

/* Makes sure that the next `insertions` insertions need no memory: 0, or -1 without memory. */
int luna_range_reserve(luna_range_map *map, size_t insertions);
/* Adds a range that overlaps none. 0, or -1 without memory (never after luna_range_reserve). */
int luna_range_insert(luna_range_map *map, luna_range *range);
void luna_range_remove(luna_range_map *map, luna_range *range);

#endif
