/* SPDX-License-Identifier: MIT
 * What the libFuzzer targets share: an input that is read as numbers, and what has to hold after
 * each call and at the end. All over the fake KVM. One that finds something ends by abort(). */
#ifndef LUNA_FUZZ_H
#define LUNA_FUZZ_H

#include "fake/fake.h"
#include "lunavisor.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Says what went wrong. A macro, so that the compiler checks the format. */
#define FUZZ_FAIL(...)                                                                             \
  (fprintf(stderr, "%s:%d: ", __FILE__, __LINE__), fprintf(stderr, __VA_ARGS__),                   \
   fputc('\n', stderr), abort())
#define FUZZ_CHECK(cond, ...) ((cond) ? (void)0 : FUZZ_FAIL(__VA_ARGS__))

/* ---- The input; behind its end everything is 0 ---- */

typedef struct fuzz_input {
  const uint8_t *next;
  size_t left;
} fuzz_input;

static fuzz_input input;

static inline bool fuzz_more(void) {
  return input.left > 0;
}

static inline uint64_t fuzz_bytes(unsigned count) {
  uint64_t value = 0;
  for (unsigned i = 0; i < count && input.left > 0; i++, input.left--) {
    value |= (uint64_t)*input.next++ << (8 * i);
  }
  return value;
}

static inline uint8_t fuzz_byte(void) {
  return (uint8_t)fuzz_bytes(1);
}

/* From 0 to limit - 1. */
static inline uint32_t fuzz_pick(uint32_t limit) {
  return (uint32_t)(fuzz_bytes(limit > 256 ? 2 : 1) % limit);
}

/* Once in so many. */
static inline bool fuzz_rarely(uint32_t times) {
  return fuzz_pick(times) == times - 1;
}

/* A number at which something often changes, beside one, or any. */
static inline uint64_t fuzz_number(void) {
  static const uint64_t edges[] = {0,
                                   1,
                                   0xfff,
                                   0x1000,
                                   0xffff,
                                   0x10000,
                                   INT32_MAX,
                                   UINT32_MAX,
                                   0xfec00000,
                                   0xfee00000,
                                   UINT64_C(0x7fffffffffff),
                                   UINT64_C(0x1000000000000),
                                   UINT64_C(0x10000000000000),
                                   INT64_MAX,
                                   UINT64_C(0xffff800000000000),
                                   UINT64_C(0xfffffffffffff000),
                                   UINT64_MAX};
  uint8_t kind = fuzz_byte();
  switch (kind % 5) {
    case 0:
      return kind / 5;
    case 1:
      return edges[kind / 5 % (sizeof edges / sizeof *edges)];
    case 2:
      return edges[fuzz_byte() % (sizeof edges / sizeof *edges)] + (uint64_t)(int8_t)fuzz_byte();
    case 3:
      return fuzz_bytes(2) << fuzz_byte() % 64;
    default:
      return fuzz_bytes(8);
  }
}

static inline void fuzz_fill(void *to, size_t size) {
  uint8_t *bytes = to;
  size_t count = fuzz_pick(64);
  for (size_t i = 0; i < count && size > 0; i++) {
    bytes[fuzz_bytes(2) % size] = fuzz_byte();
  }
}

/* ---- What has to hold ---- */

/* A call that fails says so by a status that has a name, and a message. Returns the status. */
static inline int fuzz_status(int status) {
  if (status < 0) {
    FUZZ_CHECK(luna_status_name(status), "status %d has no name", status);
    FUZZ_CHECK(luna_error_message()[0], "%s without a message", luna_status_name(status));
  }
  return status;
}

static inline void fuzz_begin(const uint8_t *data, size_t size, const fake_config *config) {
  input = (fuzz_input){data, size};
  fake_install(config);
}

static inline void fuzz_end(void) {
  fake_fail(0, 0);
  for (int kind = 0; kind < LUNA_OBJECT_COUNT; kind++) {
    FUZZ_CHECK(luna_live(kind) == 0, "%" PRIu64 " objects of kind %d are left", luna_live(kind),
               kind);
  }
  FUZZ_CHECK(fake_open() == 0, "%u descriptors or run pages are open", fake_open());
  FUZZ_CHECK(fake_mistakes() == 0, "%u mistakes", fake_mistakes());
}

#endif
