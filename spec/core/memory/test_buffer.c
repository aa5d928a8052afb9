/* SPDX-License-Identifier: MIT
 * Host memory of every kind, with the errors of making it; views. */
#include "fixture/test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
  PAGE = LUNA_PAGE_SIZE,
  HUGE_2M = 2 << 20,
  HUGETLBFS = (int)0x958458f6 /* statfs.f_type */
};

static luna_buffer *made;
static char path[64]; /* of a file of 2 pages and 5 bytes; byte n of it is n */

static int open_with(luna_buffer_options options) {
  made = NULL;
  return luna_buffer_open(&options, &made);
}

#define OPEN(...) open_with((luna_buffer_options){__VA_ARGS__})

static uint8_t *data(void) {
  return luna_buffer_data(made);
}

static void make_file(void) {
  uint8_t bytes[2 * PAGE + 5];
  snprintf(path, sizeof path, "/tmp/luna_test_buffer_XXXXXX");
  int fd = mkstemp(path);
  CHECK(fd >= 0);
  for (size_t i = 0; i < sizeof bytes; i++) {
    bytes[i] = (uint8_t)i;
  }
  CHECK_EQ(write(fd, bytes, sizeof bytes), sizeof bytes);
  close(fd);
}

static uint8_t file_byte(long offset) {
  FILE *file = fopen(path, "rb");
  CHECK(file);
  CHECK_EQ(fseek(file, offset, SEEK_SET), 0);
  int byte = fgetc(file);
  fclose(file);
  return (uint8_t)byte;
}

/* How many descriptors this process has open. */
static int descriptors(void) {
  int count = 0;
  for (int fd = 0; fd < 1024; fd++) {
    count += fcntl(fd, F_GETFD) >= 0;
  }
  return count;
}

/* ---- Kinds ---- */

static void anonymous(void) {
  CHECK_OK(OPEN(.size = 3 * PAGE));
  CHECK_EQ(luna_buffer_size(made), 3 * PAGE);
  CHECK_EQ(luna_buffer_page_size(made), PAGE);
  CHECK_EQ(luna_buffer_fd(made), -1);
  const luna_memory *memory = luna_buffer_memory(made);
  CHECK(memory->data == data());
  CHECK_EQ(memory->size, 3 * PAGE);
  CHECK_EQ(memory->writable, 1);
  CHECK_EQ(*memory->logged, 0);
  CHECK_EQ(data()[3 * PAGE - 1], 0);
  data()[3 * PAGE - 1] = 1;
  luna_buffer_release(made);
}

static void anonymous_read_only(void) {
  CHECK_OK(OPEN(.size = PAGE, .flags = LUNA_BUFFER_READ_ONLY));
  CHECK_EQ(luna_buffer_memory(made)->writable, 0);
  CHECK_EQ(data()[0], 0);
  luna_buffer_release(made);
}

static void memfd(void) {
  int before = descriptors();
  CHECK_OK(OPEN(.kind = LUNA_BUFFER_MEMFD, .size = 2 * PAGE));
  int fd = luna_buffer_fd(made);
  CHECK(fd >= 0);
  uint8_t *other = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  CHECK(other != MAP_FAILED);
  data()[PAGE] = 7;
  CHECK_EQ(other[PAGE], 7);
  other[1] = 8;
  CHECK_EQ(data()[1], 8);
  munmap(other, 2 * PAGE);
  CHECK_EQ(ftruncate(fd, 4 * PAGE), 0);
  luna_buffer_release(made);
  CHECK_EQ(descriptors(), before);
}

static void memfd_sealed(void) {
  CHECK_OK(OPEN(.kind = LUNA_BUFFER_MEMFD, .size = 2 * PAGE, .flags = LUNA_BUFFER_SEALED));
  int fd = luna_buffer_fd(made);
  CHECK_EQ(ftruncate(fd, PAGE), -1);
  CHECK_EQ(errno, EPERM);
  CHECK_EQ(ftruncate(fd, 4 * PAGE), -1);
  CHECK_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
  data()[PAGE] = 1;
  luna_buffer_release(made);
}

static void file_by_path(void) {
  make_file();
  int before = descriptors();
  CHECK_OK(OPEN(.kind = LUNA_BUFFER_FILE, .path = path));
  CHECK_EQ(luna_buffer_size(made), 3 * PAGE);
  CHECK_EQ(data()[PAGE + 3], 3);
  CHECK_EQ(data()[2 * PAGE + 4], 4);
  CHECK_EQ(data()[2 * PAGE + 5], 0); /* behind the end */
  CHECK_EQ(data()[3 * PAGE - 1], 0);
  data()[PAGE + 3] = 99;
  CHECK_EQ(file_byte(PAGE + 3), 99);
  CHECK(luna_buffer_fd(made) >= 0);
  luna_buffer_release(made);
  CHECK_EQ(descriptors(), before);
  unlink(path);
}

static void file_in_part(void) {
  make_file();
  CHECK_OK(OPEN(.kind = LUNA_BUFFER_FILE, .path = path, .offset = PAGE, .size = PAGE));
  CHECK_EQ(luna_buffer_size(made), PAGE);
  data()[2] = 99;
  luna_buffer_release(made);
  CHECK_EQ(file_byte(PAGE + 2), 99);
  CHECK_OK(OPEN(.kind = LUNA_BUFFER_FILE, .path = path, .offset = 2 * PAGE));
  CHECK_EQ(luna_buffer_size(made), PAGE);
  CHECK_EQ(data()[4], 4);
  luna_buffer_release(made);
  unlink(path);
}

static void file_private_and_read_only(void) {
  make_file();
  CHECK_EQ(chmod(path, 0444), 0);
  CHECK_OK(OPEN(.kind = LUNA_BUFFER_FILE, .path = path, .flags = LUNA_BUFFER_PRIVATE));
  CHECK_EQ(luna_buffer_memory(made)->writable, 1);
  data()[3] = 99;
  CHECK_EQ(file_byte(3), 3);
  luna_buffer_release(made);
  CHECK_OK(OPEN(.kind = LUNA_BUFFER_FILE, .path = path, .flags = LUNA_BUFFER_READ_ONLY));
  CHECK_EQ(luna_buffer_memory(made)->writable, 0);
  CHECK_EQ(data()[3], 3);
  luna_buffer_release(made);
  unlink(path);
}

/* The buffer has a descriptor of its own. */
static void file_by_descriptor(void) {
  make_file();
  int fd = open(path, O_RDWR | O_CLOEXEC);
  CHECK_OK(OPEN(.kind = LUNA_BUFFER_FILE, .fd = fd));
  CHECK(luna_buffer_fd(made) != fd);
  CHECK(fcntl(luna_buffer_fd(made), F_GETFD) & FD_CLOEXEC);
  close(fd);
  data()[3] = 99;
  CHECK_EQ(file_byte(3), 99);
  luna_buffer_release(made);
  unlink(path);
}

static void pointer(void) {
  uint8_t *memory = aligned_alloc(PAGE, 2 * PAGE);
  CHECK(memory);
  memory[0] = 5;
  CHECK_OK(OPEN(.kind = LUNA_BUFFER_POINTER, .size = 2 * PAGE, .pointer = memory));
  CHECK(data() == memory);
  CHECK_EQ(luna_buffer_page_size(made), PAGE);
  CHECK_EQ(luna_buffer_fd(made), -1);
  data()[PAGE] = 6;
  luna_buffer_release(made);
  CHECK_EQ(memory[0] + memory[PAGE], 11); /* still there */
  free(memory);
}

/* ---- Huge pages ---- */

/* Whether all of the buffer can be touched; else the process would get a SIGBUS. */
static bool can_be_touched(void) {
  fflush(stdout);
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    signal(SIGBUS, SIG_DFL);
    for (uint64_t i = 0; i < luna_buffer_size(made); i += PAGE) {
      data()[i] = 1;
    }
    _exit(0);
  }
  int status;
  CHECK_EQ(waitpid(child, &status, 0), child);
  return status == 0;
}

/* The size of the pages that a buffer of this size says, which has to be true. */
static uint64_t huge_size(uint32_t kind, uint32_t flags, uint64_t size) {
  test_note("kind %u, flags %u, size 0x%" PRIx64, kind, flags, size);
  CHECK_OK(OPEN(.kind = kind, .flags = flags, .size = size));
  uint64_t page = luna_buffer_page_size(made);
  CHECK_EQ(luna_buffer_size(made), size);
  CHECK_EQ((uintptr_t)data() % page, 0);
  CHECK(size > HUGE_2M || can_be_touched());
  if (kind == LUNA_BUFFER_MEMFD) {
    struct statfs status;
    CHECK_EQ(fstatfs(luna_buffer_fd(made), &status), 0);
    bool huge = (int)status.f_type == HUGETLBFS;
    CHECK_EQ(page, huge ? (uint64_t)status.f_bsize : PAGE);
  }
  luna_buffer_release(made);
  return page;
}

static void huge_pages_or_ordinary_ones(void) {
  uint64_t page = huge_size(LUNA_BUFFER_ANONYMOUS, LUNA_BUFFER_HUGE_2M, HUGE_2M);
  CHECK(page == PAGE || page == HUGE_2M);
  CHECK_EQ(huge_size(LUNA_BUFFER_ANONYMOUS, LUNA_BUFFER_HUGE_2M, HUGE_2M + PAGE), PAGE);
  page = huge_size(LUNA_BUFFER_ANONYMOUS, LUNA_BUFFER_HUGE_1G, UINT64_C(1) << 30);
  CHECK(page == PAGE || page == UINT64_C(1) << 30);
  CHECK_EQ(huge_size(LUNA_BUFFER_ANONYMOUS, 0, HUGE_2M), PAGE);
}

/* What is said of a memfd is true as well. */
static void huge_memfd(void) {
  huge_size(LUNA_BUFFER_MEMFD, LUNA_BUFFER_HUGE_2M, HUGE_2M);
  huge_size(LUNA_BUFFER_MEMFD, LUNA_BUFFER_HUGE_2M, HUGE_2M + PAGE);
  huge_size(LUNA_BUFFER_MEMFD, LUNA_BUFFER_HUGE_1G, UINT64_C(1) << 30);
  huge_size(LUNA_BUFFER_MEMFD, 0, HUGE_2M);
}

static void huge_file(void) {
  make_file();
  CHECK_EQ(truncate(path, HUGE_2M), 0);
  CHECK_OK(OPEN(.kind = LUNA_BUFFER_FILE, .path = path, .flags = LUNA_BUFFER_HUGE_2M));
  CHECK_EQ(luna_buffer_page_size(made), PAGE); /* /tmp has no reserved huge pages */
  luna_buffer_release(made);
  unlink(path);
}

/* ---- Errors ---- */

static void option_errors(void) {
  CHECK_FAILS(OPEN(.kind = 4, .size = PAGE), LUNA_ERROR_ARGUMENT,
              "cannot make a buffer of kind 4: there is none");
  CHECK_FAILS(OPEN(.flags = 64, .size = PAGE), LUNA_ERROR_ARGUMENT,
              "cannot make a buffer with flags 0x40: only 0x3f are known");
  for (uint32_t kind = 0; kind <= LUNA_BUFFER_POINTER; kind++) {
    if (kind == LUNA_BUFFER_FILE) {
      continue;
    }
    CHECK_FAILS(OPEN(.kind = kind), LUNA_ERROR_ARGUMENT,
                "of 0x0 bytes: the size must be a multiple of 0x1000 and not 0");
    CHECK_FAILS(OPEN(.kind = kind, .size = PAGE - 1), LUNA_ERROR_ARGUMENT, "of 0xfff bytes");
    CHECK_FAILS(OPEN(.kind = kind, .size = (UINT64_C(1) << 46) + PAGE), LUNA_ERROR_RANGE,
                "a process has room for at most 0x400000000000");
  }
  CHECK(!made);
}

static void pointer_errors(void) {
  static _Alignas(PAGE) uint8_t memory[2 * PAGE];
  CHECK_FAILS(OPEN(.kind = LUNA_BUFFER_POINTER, .size = PAGE), LUNA_ERROR_ARGUMENT,
              "cannot adopt the memory at (nil): it is not aligned to 0x1000");
  CHECK_FAILS(OPEN(.kind = LUNA_BUFFER_POINTER, .size = PAGE, .pointer = memory + 8),
              LUNA_ERROR_ARGUMENT, "it is not aligned to 0x1000");
}

static void file_errors(void) {
  make_file();
  int before = descriptors();
  CHECK_FAILS(OPEN(.kind = LUNA_BUFFER_FILE, .path = "/nonexistent/file"), LUNA_ERROR_SYSTEM,
              "cannot open '/nonexistent/file' for a buffer: No such file or directory");
  CHECK_EQ(luna_error_number(), ENOENT);
  CHECK_FAILS(OPEN(.kind = LUNA_BUFFER_FILE, .path = "/tmp"), LUNA_ERROR_SYSTEM,
              "cannot open '/tmp' for a buffer: Is a directory");
  CHECK_FAILS(OPEN(.kind = LUNA_BUFFER_FILE, .fd = -1), LUNA_ERROR_SYSTEM,
              "cannot take over file descriptor -1 for a buffer: Bad file descriptor");
  CHECK_FAILS(OPEN(.kind = LUNA_BUFFER_FILE, .path = path, .offset = 0x800), LUNA_ERROR_ARGUMENT,
              "cannot make a buffer from offset 0x800 of a file: it is not a multiple of 0x1000");
  CHECK_FAILS(OPEN(.kind = LUNA_BUFFER_FILE, .path = path, .size = 4 * PAGE), LUNA_ERROR_RANGE,
              "cannot make a buffer of 0x4000 bytes from offset 0x0 of a file that has 0x2005");
  CHECK_FAILS(OPEN(.kind = LUNA_BUFFER_FILE, .path = path, .offset = 2 * PAGE, .size = 2 * PAGE),
              LUNA_ERROR_RANGE, "from offset 0x2000 of a file that has 0x2005");
  CHECK_FAILS(OPEN(.kind = LUNA_BUFFER_FILE, .path = path, .offset = 3 * PAGE), LUNA_ERROR_RANGE,
              "from offset 0x3000");
  CHECK_FAILS(OPEN(.kind = LUNA_BUFFER_FILE, .path = path, .size = PAGE + 1), LUNA_ERROR_ARGUMENT,
              "of 0x1001 bytes");
  CHECK_EQ(descriptors(), before);
  unlink(path);
}

/* A descriptor that can only be read gives no memory to write. */
static void read_only_descriptor(void) {
  make_file();
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  int before = descriptors();
  CHECK_FAILS(OPEN(.kind = LUNA_BUFFER_FILE, .fd = fd), LUNA_ERROR_ACCESS,
              "cannot make a buffer of 0x3000 bytes: Permission denied");
  CHECK_EQ(descriptors(), before);
  CHECK_OK(OPEN(.kind = LUNA_BUFFER_FILE, .fd = fd, .flags = LUNA_BUFFER_READ_ONLY));
  luna_buffer_release(made);
  CHECK_OK(OPEN(.kind = LUNA_BUFFER_FILE, .fd = fd, .flags = LUNA_BUFFER_PRIVATE));
  data()[0] = 1;
  luna_buffer_release(made);
  close(fd);
  unlink(path);
}

static void empty_file(void) {
  make_file();
  CHECK_EQ(truncate(path, 0), 0);
  CHECK_FAILS(OPEN(.kind = LUNA_BUFFER_FILE, .path = path), LUNA_ERROR_RANGE,
              "cannot make a buffer of 0x0 bytes from offset 0x0 of a file that has 0x0");
  unlink(path);
}

/* ---- Views ---- */

static void views(void) {
  luna_buffer *view;
  luna_buffer *inner;
  CHECK_OK(OPEN(.kind = LUNA_BUFFER_MEMFD, .size = 4 * PAGE));
  uint64_t live = luna_live(LUNA_OBJECT_BUFFER);
  CHECK_OK(luna_buffer_view(made, 3, 2 * PAGE, &view));
  CHECK_OK(luna_buffer_view(view, PAGE, PAGE, &inner));
  CHECK_EQ(luna_live(LUNA_OBJECT_BUFFER), live + 2);
  CHECK(luna_buffer_data(view) == data() + 3);
  CHECK(luna_buffer_data(inner) == data() + 3 + PAGE);
  CHECK_EQ(luna_buffer_size(inner), PAGE);
  CHECK_EQ(luna_buffer_id(inner), luna_buffer_id(made));
  CHECK_EQ(luna_buffer_fd(inner), luna_buffer_fd(made));
  CHECK_EQ(luna_buffer_page_size(inner), luna_buffer_page_size(made));
  CHECK_EQ(luna_buffer_memory(inner)->writable, 1);
  CHECK(luna_buffer_memory(inner)->logged == luna_buffer_memory(made)->logged);
  uint8_t *byte = data() + 2 * PAGE;
  *byte = 5;
  luna_buffer_release(made); /* what keeps the memory is the views */
  luna_buffer_release(view);
  CHECK_EQ(*byte, 5);
  CHECK_EQ(((uint8_t *)luna_buffer_data(inner))[PAGE - 3], 5);
  luna_buffer_release(inner);
}

static void view_errors(void) {
  luna_buffer *view = NULL;
  luna_buffer *half;
  CHECK_OK(OPEN(.size = 4 * PAGE));
  CHECK_FAILS(luna_buffer_view(made, 0, 0, &view), LUNA_ERROR_ARGUMENT,
              "cannot make a view of 0x0 bytes from offset 0x0: the buffer has 0x4000");
  CHECK_FAILS(luna_buffer_view(made, 1, 4 * PAGE, &view), LUNA_ERROR_RANGE,
              "cannot make a view of 0x4000 bytes from offset 0x1: the buffer has 0x4000");
  CHECK_EQ(luna_buffer_view(made, 4 * PAGE, 1, &view), LUNA_ERROR_RANGE);
  CHECK_EQ(luna_buffer_view(made, UINT64_MAX, 2, &view), LUNA_ERROR_RANGE);
  CHECK_EQ(luna_buffer_view(made, 2, UINT64_MAX, &view), LUNA_ERROR_RANGE);
  CHECK_OK(luna_buffer_view(made, 0, 2 * PAGE, &half));
  CHECK_FAILS(luna_buffer_view(half, PAGE, 2 * PAGE, &view), LUNA_ERROR_RANGE,
              "the buffer has 0x2000");
  CHECK(!view);
  luna_buffer_release(half);
  luna_buffer_release(made);
}

static void numbers(void) {
  luna_buffer *first;
  CHECK_OK(OPEN(.size = PAGE));
  first = made;
  uint64_t id = luna_buffer_id(first);
  CHECK_OK(OPEN(.size = PAGE));
  CHECK(luna_buffer_id(made) > id);
  luna_buffer_release(made);
  luna_buffer_release(first);
}

int main(void) {
  RUN(anonymous);
  RUN(anonymous_read_only);
  RUN(memfd);
  RUN(memfd_sealed);
  RUN(file_by_path);
  RUN(file_in_part);
  RUN(file_private_and_read_only);
  RUN(file_by_descriptor);
  RUN(pointer);
  RUN(huge_pages_or_ordinary_ones);
  RUN(huge_memfd);
  RUN(huge_file);
  RUN(option_errors);
  RUN(pointer_errors);
  RUN(file_errors);
  RUN(read_only_descriptor);
  RUN(empty_file);
  RUN(views);
  RUN(view_errors);
  RUN(numbers);
  return test_end();
}
