/* SPDX-License-Identifier: MIT
 * The range map against a plain sorted array: random operations with many chunks, ranges at both
 * ends of the address space, and what luna_range_reserve promises. */
#include "fixture/test.h"

#include "base/range.h"

enum {
  OPERATIONS = 80000,
  MODEL_MAX = 3000
};

typedef struct model {
  luna_range *items[MODEL_MAX]; /* sorted; owned */
  size_t count;
} model;

static model naive;
static luna_range_map map;

static luna_range *naive_from(uint64_t address) {
  for (size_t i = 0; i < naive.count; i++) {
    if (naive.items[i]->last >= address) {
      return naive.items[i];
    }
  }
  return NULL;
}

static luna_range *naive_at(uint64_t address) {
  luna_range *range = naive_from(address);
  return range && range->first <= address ? range : NULL;
}

static void naive_insert(luna_range *range) {
  size_t at = naive.count++;
  while (at > 0 && naive.items[at - 1]->first > range->first) {
    naive.items[at] = naive.items[at - 1];
    at--;
  }
  naive.items[at] = range;
}

static void naive_remove(const luna_range *range) {
  size_t kept = 0;
  for (size_t i = 0; i < naive.count; i++) {
    if (naive.items[i] != range) {
      naive.items[kept++] = naive.items[i];
    }
  }
  naive.count = kept;
}

static luna_range *new_range(uint64_t first, uint64_t last) {
  luna_range *range = malloc(sizeof *range);
  CHECK(range);
  *range = (luna_range){first, last};
  return range;
}

static void add(uint64_t first, uint64_t last) {
  luna_range *range = new_range(first, last);
  CHECK_EQ(luna_range_insert(&map, range), 0);
  naive_insert(range);
}

static void drop(luna_range *range) {
  luna_range_remove(&map, range);
  naive_remove(range);
  free(range);
}

/* The map's own order and its index, and the same ranges in the same order as the array. */
static void check_all(void) {
  size_t at = 0;
  CHECK_EQ(map.items, naive.count);
  for (size_t i = 0; i < map.count; i++) {
    const luna_range_chunk *chunk = map.chunks[i];
    CHECK(chunk->count > 0 && chunk->count <= LUNA_RANGE_CHUNK);
    CHECK_EQ(map.firsts[i], chunk->first[0]);
    for (size_t j = 0; j < chunk->count; j++, at++) {
      CHECK(at < naive.count);
      CHECK(chunk->item[j] == naive.items[at]);
      CHECK_EQ(chunk->first[j], naive.items[at]->first);
    }
  }
  CHECK_EQ(at, naive.count);
}

static void check_address(uint64_t address) {
  CHECK(luna_range_at(&map, address) == naive_at(address));
  CHECK(luna_range_from(&map, address) == naive_from(address));
}

static void empty(void) {
  while (naive.count) {
    drop(naive.items[naive.count - 1]);
  }
  CHECK_EQ(map.items, 0);
  CHECK_EQ(map.count, 0);
  luna_range_free(&map);
}

static void empty_map(void) {
  check_address(0);
  check_address(UINT64_MAX);
  luna_range absent = {5, 6};
  luna_range_remove(&map, &absent);
  CHECK_EQ(map.items, 0);
  luna_range_free(&map);
}

static void ends_of_the_address_space(void) {
  add(UINT64_MAX, UINT64_MAX);
  add(0, 0);
  add(UINT64_MAX - 0x1000, UINT64_MAX - 1);
  add(1, 0x10);
  check_all();
  const uint64_t addresses[] = {
      0, 1, 0x10, 0x11, UINT64_MAX - 0x1001, UINT64_MAX - 0x1000, UINT64_MAX - 1, UINT64_MAX};
  for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++) {
    check_address(addresses[i]);
  }
  empty();
  add(0, UINT64_MAX);
  check_address(0);
  check_address(UINT64_MAX);
  empty();
}

/* Ascending, descending and from the middle: each splits chunks elsewhere. */
static void splits(void) {
  enum {
    COUNT = LUNA_RANGE_CHUNK * 10
  };
  for (int order = 0; order < 3; order++) {
    test_note("order %d", order);
    for (uint64_t i = 0; i < COUNT; i++) {
      uint64_t middle = i % 2 ? COUNT / 2 + i / 2 : COUNT / 2 - 1 - i / 2;
      uint64_t place = order == 0 ? i : order == 1 ? COUNT - 1 - i : middle;
      add(place * 16, place * 16 + 7);
    }
    CHECK(map.count >= 10);
    check_all();
    for (uint64_t address = 0; address < COUNT * 16; address += 4) {
      check_address(address);
    }
    for (uint64_t i = 0; i < COUNT; i += 2) {
      drop(naive_at(i * 16));
    }
    check_all();
    empty();
  }
}

/* A range near `address` that fits between its neighbours, one time in four up to the end. */
static void random_insert(uint64_t *seed, uint64_t address) {
  const luna_range *next = naive_from(address);
  if (naive.count == MODEL_MAX || (next && next->first <= address)) {
    return;
  }
  uint64_t room = (next ? next->first - 1 : UINT64_MAX) - address;
  uint64_t extra = test_random(seed) % 4 == 0 ? room : test_random(seed) % 64;
  add(address, address + (extra < room ? extra : room));
}

/* Phases of growth and of shrinking, so that chunks split, empty and go. */
static void random_operations(void) {
  uint64_t start = test_seed();
  uint64_t seed = start;
  size_t most = 0;
  for (int i = 0; i < OPERATIONS; i++) {
    test_note("LUNA_SEED=%" PRIu64 ", operation %d", start, i);
    bool grows = i / 10000 % 2 == 0;
    uint64_t address = test_random(&seed) % 2 ? test_random(&seed) % 100000 * 64
                                              : UINT64_MAX - test_random(&seed) % 100000 * 64;
    uint64_t choice = test_random(&seed) % 10;
    if (choice < (grows ? 7u : 2u)) {
      random_insert(&seed, address);
    } else if (choice < 9 && naive.count) {
      drop(naive.items[test_random(&seed) % naive.count]);
    }
    check_address(address);
    check_address(test_random(&seed));
    most = naive.count > most ? naive.count : most;
    if (i % 500 == 0) {
      check_all();
    }
  }
  check_all();
  CHECK(most > 8 * LUNA_RANGE_CHUNK);
  empty();
}

/* After a reserve, chunks come from those that are there: their sum stays, and the index stays
 * put. */
static void reserve_covers(size_t present, size_t insertions, uint64_t stride) {
  for (uint64_t i = 0; i < present; i++) {
    add(i << 20, i << 20);
  }
  CHECK_EQ(luna_range_reserve(&map, insertions), 0);
  size_t chunks = map.count + map.spares;
  luna_range_chunk **const index = map.chunks;
  const uint64_t *const firsts = map.firsts;
  for (uint64_t i = 0; i < insertions; i++) {
    uint64_t address = 1 + (i + 1) * stride;
    add(address, address);
    CHECK_EQ(map.count + map.spares, chunks);
    CHECK(map.chunks == index && map.firsts == firsts);
  }
  check_all();
  empty();
}

static void reserve(void) {
  static const uint64_t strides[] = {1, 1 << 10, 1 << 20};
  for (size_t i = 0; i < sizeof strides / sizeof *strides; i++) {
    for (size_t present = 0; present <= 1200; present += 300) {
      for (size_t insertions = 1; insertions <= 1000; insertions = insertions * 3 + 1) {
        test_note("%zu present, %zu insertions, stride %" PRIu64, present, insertions, strides[i]);
        reserve_covers(present, insertions, strides[i]);
      }
    }
  }
}

int main(void) {
  RUN(empty_map);
  RUN(ends_of_the_address_space);
  RUN(splits);
  RUN(random_operations);
  RUN(reserve);
  return test_end();
}
