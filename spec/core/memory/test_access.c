/* SPDX-License-Identifier: MIT
 * The host side's access to buffers: what is found, in memory that is written meanwhile, and in
 * memory that has gone. */
#include "fixture/test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

enum {
  PAGE = LUNA_PAGE_SIZE,
  SIZE = 64 * PAGE,
  ROUNDS = 3000
};

static luna_buffer *one;
static luna_buffer *two;
static char path[64];

static uint8_t *data(luna_buffer *buffer) {
  return luna_buffer_data(buffer);
}

static luna_buffer *file_of(uint64_t size) {
  snprintf(path, sizeof path, "/tmp/luna_test_access_XXXXXX");
  int fd = mkstemp(path);
  CHECK(fd >= 0);
  CHECK_EQ(ftruncate(fd, (off_t)size), 0);
  close(fd);
  const luna_buffer_options options = {.kind = LUNA_BUFFER_FILE, .path = path};
  luna_buffer *made;
  CHECK_OK(luna_buffer_open(&options, &made));
  return made;
}

static void begin(bool file) {
  CHECK_OK(luna_buffer_create(SIZE, &one));
  if (file) {
    two = file_of(SIZE);
  } else {
    CHECK_OK(luna_buffer_create(SIZE, &two));
  }
  for (size_t i = 0; i < SIZE; i++) {
    data(one)[i] = data(two)[i] = (uint8_t)(i * 7 + i / 251);
  }
}

static void end(void) {
  luna_buffer_release(one);
  luna_buffer_release(two);
  unlink(path);
}

static void compares(void) {
  for (int file = 0; file < 2; file++) {
    uint64_t at = 99;
    begin(file);
    CHECK_EQ(luna_buffer_compare(one, 0, two, 0, SIZE, &at), 0);
    CHECK_EQ(at, 99);
    static const uint64_t places[] = {SIZE - 1, PAGE, PAGE - 1, 5, 0};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
      data(two)[places[i]] ^= 0x80;
      CHECK_EQ(luna_buffer_compare(one, 0, two, 0, SIZE, &at), 1);
      CHECK_EQ(at, places[i]);
    }
    CHECK_EQ(luna_buffer_compare(one, PAGE + 1, two, PAGE + 1, SIZE - PAGE - 2, &at), 0);
    CHECK_EQ(luna_buffer_compare(one, PAGE + 1, two, PAGE + 1, SIZE - PAGE - 1, &at), 1);
    CHECK_EQ(at, SIZE - PAGE - 2);
    end();
  }
}

static void finds(void) {
  uint64_t at = 99;
  for (int file = 0; file < 2; file++) {
    begin(file);
    CHECK_EQ(luna_buffer_find(two, 0, SIZE, "needle", 6, &at), 0);
    CHECK_OK(luna_buffer_fill(two, 0, SIZE, 'n'));
    /* Over the end of a block, and at the end of the range. */
    CHECK_OK(luna_buffer_copy(two, 65536 + 3, "needle", 6, LUNA_WRITE));
    CHECK_EQ(luna_buffer_find(two, 0, SIZE, "needle", 6, &at), 1);
    CHECK_EQ(at, 65536 + 3);
    CHECK_EQ(luna_buffer_find(two, 9, 65536, "needle", 6, &at), 1);
    CHECK_EQ(at, 65536 - 6);
    CHECK_EQ(luna_buffer_find(two, 9, 65536 - 1, "needle", 6, &at), 0);
    CHECK_EQ(luna_buffer_find(two, 10, 3, "", 0, &at), 1);
    CHECK_EQ(at, 0);
    CHECK_EQ(luna_buffer_find(two, 0, SIZE, data(one), SIZE, &at), 0);
    CHECK_OK(luna_buffer_transfer(two, 0, one, 0, SIZE));
    CHECK_EQ(luna_buffer_find(two, 0, SIZE, data(one), SIZE, &at), 1);
    CHECK_EQ(at, 0);
    end();
  }
}

static void transfers_that_overlap(void) {
  static const uint64_t from[] = {3, 2 * PAGE + 3, 100};
  static const uint64_t to[] = {2 * PAGE, 1, 100};
  static uint8_t want[SIZE];
  for (int file = 0; file < 2; file++) {
    for (size_t i = 0; i < sizeof from / sizeof *from; i++) {
      begin(file);
      memcpy(want, data(two), SIZE);
      memmove(want + to[i], want + from[i], 20 * PAGE);
      CHECK_OK(luna_buffer_transfer(two, to[i], two, from[i], 20 * PAGE));
      CHECK(memcmp(want, data(two), SIZE) == 0);
      end();
    }
  }
}

static void outside(void) {
  uint64_t at;
  uint8_t byte = 0;
  begin(false);
  CHECK_FAILS(luna_buffer_copy(one, SIZE, &byte, 1, LUNA_READ), LUNA_ERROR_RANGE,
              "cannot access 0x1 bytes at offset 0x40000 of a buffer, which has 0x40000");
  CHECK_FAILS(luna_buffer_copy(one, UINT64_MAX, &byte, 1, LUNA_READ), LUNA_ERROR_RANGE, "0x40000");
  CHECK_FAILS(luna_buffer_fill(one, 1, SIZE, 0), LUNA_ERROR_RANGE, "0x40000 bytes at offset 0x1");
  CHECK_FAILS(luna_buffer_transfer(one, 1, two, 0, SIZE), LUNA_ERROR_RANGE, "at offset 0x1");
  CHECK_FAILS(luna_buffer_transfer(one, 0, two, 1, SIZE), LUNA_ERROR_RANGE, "at offset 0x1");
  CHECK_FAILS(luna_buffer_compare(one, 1, two, 0, SIZE, &at), LUNA_ERROR_RANGE, "at offset 0x1");
  CHECK_FAILS(luna_buffer_compare(one, 0, two, 1, SIZE, &at), LUNA_ERROR_RANGE, "at offset 0x1");
  CHECK_FAILS(luna_buffer_find(one, 1, UINT64_MAX, "x", 1, &at), LUNA_ERROR_RANGE, "offset 0x1");
  CHECK_OK(luna_buffer_copy(one, SIZE, &byte, 0, LUNA_READ));
  end();
}

static void read_only(void) {
  uint8_t byte = 0;
  begin(true);
  const luna_buffer_options options = {
      .kind = LUNA_BUFFER_FILE, .path = path, .flags = LUNA_BUFFER_READ_ONLY};
  luna_buffer *rom;
  CHECK_OK(luna_buffer_open(&options, &rom));
  CHECK_OK(luna_buffer_copy(rom, 1, &byte, 1, LUNA_READ));
  CHECK_EQ(byte, 7);
  CHECK_FAILS(luna_buffer_copy(rom, 1, &byte, 1, LUNA_WRITE), LUNA_ERROR_ARGUMENT, "is read-only");
  CHECK_FAILS(luna_buffer_fill(rom, 0, 1, 1), LUNA_ERROR_ARGUMENT, "it is read-only");
  CHECK_FAILS(luna_buffer_transfer(rom, 0, one, 0, 1), LUNA_ERROR_ARGUMENT, "it is read-only");
  luna_buffer_release(rom);
  end();
}

/* The file is cut to one page: what lies behind is an error and no signal, whoever touches it. */
static void cut_short(void) {
  static uint8_t bytes[SIZE];
  uint64_t at = 99;
  luna_buffer *view;
  begin(true);
  CHECK_OK(luna_buffer_view(two, 1, SIZE - 1, &view));
  CHECK(*luna_buffer_memory(two)->vanishes && *luna_buffer_memory(view)->vanishes);
  CHECK_EQ(truncate(path, PAGE), 0);
  const char *gone = "its memory is gone (a file cut short?)";
  CHECK_OK(luna_buffer_copy(two, 0, bytes, PAGE, LUNA_READ));
  CHECK_FAILS(luna_buffer_copy(two, 0, bytes, PAGE + 1, LUNA_READ), LUNA_ERROR_SYSTEM, gone);
  CHECK_FAILS(luna_buffer_copy(two, PAGE, bytes, 1, LUNA_WRITE), LUNA_ERROR_SYSTEM, gone);
  CHECK_FAILS(luna_buffer_copy(view, PAGE, bytes, 1, LUNA_READ), LUNA_ERROR_SYSTEM, gone);
  CHECK_FAILS(luna_buffer_fill(two, 0, SIZE, 1), LUNA_ERROR_SYSTEM, gone);
  CHECK_FAILS(luna_buffer_transfer(one, 0, two, PAGE, 1), LUNA_ERROR_SYSTEM, gone);
  CHECK_FAILS(luna_buffer_transfer(two, PAGE, one, 0, 1), LUNA_ERROR_SYSTEM, gone);
  CHECK_OK(luna_buffer_transfer(one, 0, two, 0, PAGE));
  CHECK_FAILS(luna_buffer_compare(one, 0, two, 0, SIZE, &at), LUNA_ERROR_SYSTEM, gone);
  CHECK_FAILS(luna_buffer_find(two, 0, SIZE, "nowhere", 7, &at), LUNA_ERROR_SYSTEM, gone);
  CHECK_EQ(at, 99);
  luna_buffer_release(view);
  end();
}

/* An unsealed memfd can be cut short by whoever has its descriptor. */
static void memfd(void) {
  for (uint32_t flags = 0; flags <= LUNA_BUFFER_SEALED; flags += LUNA_BUFFER_SEALED) {
    const luna_buffer_options options = {.kind = LUNA_BUFFER_MEMFD, .size = PAGE, .flags = flags};
    uint8_t byte;
    luna_buffer *made;
    CHECK_OK(luna_buffer_open(&options, &made));
    CHECK(!*luna_buffer_memory(made)->vanishes);
    int fd = luna_buffer_fd(made);
    CHECK_EQ(*luna_buffer_memory(made)->vanishes, flags ? 0 : 1);
    int status = ftruncate(fd, 0);
    CHECK_EQ(status, flags ? -1 : 0);
    status = luna_buffer_copy(made, 0, &byte, 1, LUNA_READ);
    CHECK_EQ(status, flags ? LUNA_OK : LUNA_ERROR_SYSTEM);
    luna_buffer_release(made);
  }
}

static atomic_bool stop;

static void *flip_the_last_byte(void *unused) {
  (void)unused;
  volatile uint8_t *last = data(one) + SIZE - 1;
  while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
    *last = *last ^ 1;
  }
  return NULL;
}

static void written_meanwhile(void) {
#ifdef __SANITIZE_THREAD__
  test_skip("the thread sanitizer takes a guest's write for a data race, as it is one");
#endif
  pthread_t thread;
  uint64_t at;
  unsigned seen[2] = {0};
  begin(false);
  atomic_store(&stop, false);
  CHECK_EQ(pthread_create(&thread, NULL, flip_the_last_byte, NULL), 0);
  const char *problem = NULL;
  for (int i = 0; i < ROUNDS && !problem; i++) {
    int found = luna_buffer_compare(one, SIZE - PAGE, two, SIZE - PAGE, PAGE, &at);
    problem = found == 1 && at != PAGE - 1 ? "a difference where none can be" : problem;
    seen[found == 1]++;
    uint8_t value = data(two)[SIZE - 1];
    found = luna_buffer_find(one, SIZE - 1, 1, &value, 1, &at);
    problem = found == 1 && at != 0 ? "a byte found where none can be" : problem;
  }
  atomic_store(&stop, true);
  pthread_join(thread, NULL);
  test_note("%s", problem ? problem : "");
  CHECK(!problem);
  CHECK_EQ(seen[0] + seen[1], ROUNDS);
  end();
}

int main(void) {
  RUN(compares);
  RUN(finds);
  RUN(transfers_that_overlap);
  RUN(outside);
  RUN(read_only);
  RUN(cut_short);
  RUN(memfd);
  RUN(written_meanwhile);
  return test_end();
}
