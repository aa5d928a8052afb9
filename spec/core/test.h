/* SPDX-License-Identifier: MIT
 * A small test harness. RUN calls a test; a check that fails leaves it at once. One line a test
 * and one of counts at the end, which scripts/test reads. */
#ifndef LUNA_TEST_H
#define LUNA_TEST_H

#include "fake.h"
#include "lunavisor.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct test_state {
  const char *name;
  unsigned passed;
  unsigned failed;
  unsigned skipped;
  char note[160]; /* printed with a failure: a seed, a round */
  jmp_buf out;
} test_state;

static test_state test;

__attribute__((format(printf, 3, 4), noreturn)) static inline void
test_fail(const char *file, int line, const char *format, ...) {
  printf("not ok %s: %s:%d: ", test.name, file, line);
  va_list arguments;
  va_start(arguments, format);
  vprintf(format, arguments);
  va_end(arguments);
  printf("%s%s\n", test.note[0] ? "; " : "", test.note);
  test.failed++;
  longjmp(test.out, 1);
}

__attribute__((noreturn)) static inline void test_skip(const char *why) {
  printf("skip %s: %s\n", test.name, why);
  test.skipped++;
  longjmp(test.out, 1);
}

/* Says what a failure that follows belongs to. */
__attribute__((format(printf, 1, 2))) static inline void test_note(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(test.note, sizeof test.note, format, arguments);
  va_end(arguments);
}

static inline void test_equal(const char *file, int line, const char *what, uint64_t got,
                              uint64_t want) {
  if (got != want) {
    test_fail(file, line, "%s is %" PRId64 " (0x%" PRIx64 "), not %" PRId64 " (0x%" PRIx64 ")",
              what, (int64_t)got, got, (int64_t)want, want);
  }
}

static inline void test_text(const char *file, int line, const char *text, const char *part) {
  if (!strstr(text, part)) {
    test_fail(file, line, "'%s' does not have '%s'", text, part);
  }
}

static inline void test_status(const char *file, int line, const char *what, int got) {
  if (got != LUNA_OK) {
    test_fail(file, line, "%s is %d: %s", what, got, luna_error_message());
  }
}

#define CHECK(cond) ((cond) ? (void)0 : test_fail(__FILE__, __LINE__, "%s", #cond))
#define CHECK_EQ(got, want) test_equal(__FILE__, __LINE__, #got, (uint64_t)(got), (uint64_t)(want))
#define CHECK_TEXT(text, part) test_text(__FILE__, __LINE__, (text), (part))
#define CHECK_OK(call) test_status(__FILE__, __LINE__, #call, (call))
/* A call that has to fail with a status and a message that has the part. */
#define CHECK_FAILS(call, status, part)                                                            \
  (CHECK_EQ(call, status), CHECK_TEXT(luna_error_message(), part))

/* Objects that are alive; each test has to end with as many as it began with. */
static inline uint64_t test_live(void) {
  uint64_t sum = 0;
  for (int kind = 0; kind < LUNA_OBJECT_COUNT; kind++) {
    sum += luna_live(kind);
  }
  return sum;
}

static inline void test_check_leaks(uint64_t live) {
  CHECK_EQ(test_live(), live);
  CHECK_EQ(fake_open(), 0);
  CHECK_EQ(fake_mistakes(), 0);
}

/* Apart from test_run and never inlined: nothing here changes between setjmp and longjmp. */
__attribute__((noinline, unused)) static void test_body(void (*function)(void), uint64_t live) {
  if (setjmp(test.out) == 0) {
    function();
    test_check_leaks(live);
  }
}

static inline void test_run(const char *name, void (*function)(void)) {
  unsigned before = test.failed + test.skipped;
  test.name = name;
  test.note[0] = '\0';
  fake_install(NULL);
  test_body(function, test_live());
  if (test.failed + test.skipped == before) {
    test.passed++;
    printf("ok %s\n", name);
  }
  fflush(stdout);
}

#define RUN(function) test_run(#function, function)

static inline int test_end(void) {
  printf("%u passed, %u failed, %u skipped\n", test.passed, test.failed, test.skipped);
  return test.failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* xorshift64*: random numbers that a seed repeats. */
static inline uint64_t test_random(uint64_t *state) {
  *state ^= *state >> 12;
  *state ^= *state << 25;
  *state ^= *state >> 27;
  return *state * UINT64_C(0x2545f4914f6cdd1d);
}

/* The seed: LUNA_SEED, or one from the clock. */
static inline uint64_t test_seed(void) {
  const char *text = getenv("LUNA_SEED");
  uint64_t seed = text && *text ? strtoull(text, NULL, 0) : luna_clock();
  return seed ? seed : 1;
}

#endif
