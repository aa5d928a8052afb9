/* SPDX-License-Identifier: MIT
 * Making host memory: anonymous, memfd, file or adopted; views of it; and the log of what the host
 * side writes. */
#include "memory/buffer.h"

#include "base/error.h"
#include "base/live.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MAP_HUGE_SHIFT
#define MAP_HUGE_SHIFT 26
#endif

enum {
  HUGE_2M_BITS = 21,
  HUGE_1G_BITS = 30
};

static const uint64_t most = (uint64_t)1 << 46; /* half of a process's address space */
static atomic_ulong last_id;

/* Reserves `size` bytes of address space at a multiple of `alignment`: takes more and gives the
 * ends back. */
static uint8_t *reserve(size_t size, size_t alignment) {
  size_t slack = alignment > LUNA_PAGE_SIZE ? alignment : 0;
  uint8_t *base =
      mmap(NULL, size + slack, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    return NULL;
  }
  uint8_t *data = (uint8_t *)(((uintptr_t)base + alignment - 1) & ~(uintptr_t)(alignment - 1));
  if (data > base) {
    munmap(base, (size_t)(data - base));
  }
  if (base + size + slack > data + size) {
    munmap(data + size, (size_t)(base + size + slack - (data + size)));
  }
  return data;
}

static int map_flags(const luna_buffer *buffer) {
  if (buffer->fd < 0) {
    return MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  }
  return buffer->flags & LUNA_BUFFER_PRIVATE ? MAP_PRIVATE | MAP_NORESERVE : MAP_SHARED;
}

/* Maps the memory; `huge` is log2 of the size of reserved huge pages, 0 for none. */
static uint8_t *map_memory(const luna_buffer *buffer, size_t size, unsigned huge) {
  size_t alignment = LUNA_PAGE_SIZE;
  if (huge) {
    alignment = (size_t)1 << huge;
  } else if (size >= (size_t)1 << HUGE_2M_BITS) {
    alignment = (size_t)1 << HUGE_2M_BITS;
  }
  uint8_t *place = reserve(size, alignment);
  if (!place) {
    return NULL;
  }
  int protection = PROT_READ | (buffer->flags & LUNA_BUFFER_READ_ONLY ? 0 : PROT_WRITE);
  int flags = map_flags(buffer) | MAP_FIXED;
  if (huge && buffer->fd < 0) {
    /* Reserved at once: with MAP_NORESERVE a lack of huge pages would show as SIGBUS later. */
    flags = (flags & ~MAP_NORESERVE) | MAP_HUGETLB | (int)(huge << MAP_HUGE_SHIFT);
  }
  if (mmap(place, size, protection, flags, buffer->fd, (off_t)buffer->fd_offset) == MAP_FAILED) {
    int number = errno;
    munmap(place, size);
    errno = number;
    return NULL;
  }
  return place;
}

static int fail_make(uint64_t size, int number, const char *why) {
  return luna_fail_errno(number, "cannot make a buffer of 0x%" PRIx64 " bytes%s", size, why);
}

static int check_size(uint64_t size, uint64_t multiple) {
  if (size == 0 || size % multiple != 0) {
    return luna_fail(LUNA_ERROR_ARGUMENT,
                     "cannot make a buffer of 0x%" PRIx64 " bytes: the size must be a multiple of "
                     "0x%" PRIx64 " and not 0",
                     size, multiple);
  }
  if (size > most) {
    return luna_fail(LUNA_ERROR_RANGE,
                     "cannot make a buffer of 0x%" PRIx64 " bytes: a process has room for at most "
                     "0x%" PRIx64,
                     size, most);
  }
  return LUNA_OK;
}

static unsigned huge_bits(uint32_t flags) {
  if (flags & LUNA_BUFFER_HUGE_1G) {
    return HUGE_1G_BITS;
  }
  return flags & LUNA_BUFFER_HUGE_2M ? HUGE_2M_BITS : 0;
}

/* Maps the buffer with the huge pages that were asked for, or else with ordinary ones; page_size
 * tells which it became. */
static int map_buffer(luna_buffer *buffer, uint64_t size) {
  unsigned huge = huge_bits(buffer->flags);
  uint8_t *data = NULL;
  if (huge && buffer->fd < 0 && size % ((uint64_t)1 << huge) == 0) {
    data = map_memory(buffer, size, huge);
  }
  buffer->page_size = data ? (uint64_t)1 << huge : LUNA_PAGE_SIZE;
  if (!data) {
    data = map_memory(buffer, size, 0);
  }
  if (!data) {
    return fail_make(size, errno, "");
  }
  if (size >= (uint64_t)1 << HUGE_2M_BITS && buffer->page_size == LUNA_PAGE_SIZE) {
    madvise(data, size, MADV_HUGEPAGE); /* a wish; refused where the kernel has none */
  }
  buffer->memory.data = data;
  buffer->memory.size = size;
  return LUNA_OK;
}

static int make_memfd(luna_buffer *buffer, uint64_t size) {
  unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  buffer->fd = memfd_create("lunavisor", flags);
  if (buffer->fd < 0 || ftruncate(buffer->fd, (off_t)size) != 0) {
    return fail_make(size, errno, " in a memfd");
  }
  if (buffer->flags & LUNA_BUFFER_SEALED &&
      fcntl(buffer->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return fail_make(size, errno, ": the memfd cannot be sealed");
  }
  return LUNA_OK;
}

/* Opens the file, or takes the descriptor over by duplicating it. */
static int open_file(luna_buffer *buffer, const luna_buffer_options *options) {
  if (options->path) {
    bool writes = !(buffer->flags & (LUNA_BUFFER_READ_ONLY | LUNA_BUFFER_PRIVATE));
    buffer->fd = open(options->path, (writes ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    if (buffer->fd < 0) {
      return luna_fail_errno(errno, "cannot open '%s' for a buffer", options->path);
    }
    return LUNA_OK;
  }
  buffer->fd = fcntl(options->fd, F_DUPFD_CLOEXEC, 3);
  if (buffer->fd < 0) {
    return luna_fail_errno(errno, "cannot take over file descriptor %d for a buffer", options->fd);
  }
  return LUNA_OK;
}

/* The bytes from `offset` to the end of the file, in whole pages. */
static int file_size(const luna_buffer *buffer, uint64_t *size) {
  struct stat status;
  if (fstat(buffer->fd, &status) != 0) {
    return luna_fail_errno(errno, "cannot ask for the size of file descriptor %d", buffer->fd);
  }
  uint64_t length = (uint64_t)status.st_size;
  uint64_t left = buffer->fd_offset < length ? length - buffer->fd_offset : 0;
  uint64_t pages = (left + LUNA_PAGE_SIZE - 1) & ~(uint64_t)(LUNA_PAGE_SIZE - 1);
  if (left == 0 || *size > pages) {
    return luna_fail(LUNA_ERROR_RANGE,
                     "cannot make a buffer of 0x%" PRIx64 " bytes from offset 0x%" PRIx64
                     " of a file that has 0x%" PRIx64,
                     *size, buffer->fd_offset, length);
  }
  *size = *size ? *size : pages;
  return LUNA_OK;
}

static int make_file(luna_buffer *buffer, const luna_buffer_options *options, uint64_t *size) {
  buffer->fd_offset = options->offset;
  if (options->offset % LUNA_PAGE_SIZE != 0) {
    return luna_fail(LUNA_ERROR_ARGUMENT,
                     "cannot make a buffer from offset 0x%" PRIx64
                     " of a file: it is not a multiple of 0x%x",
                     options->offset, LUNA_PAGE_SIZE);
  }
  int status = open_file(buffer, options);
  return status == LUNA_OK ? file_size(buffer, size) : status;
}

static int adopt(luna_buffer *buffer, const luna_buffer_options *options) {
  if (!options->pointer || (uintptr_t)options->pointer % LUNA_PAGE_SIZE != 0) {
    return luna_fail(LUNA_ERROR_ARGUMENT,
                     "cannot adopt the memory at %p: it is not aligned to 0x%x", options->pointer,
                     LUNA_PAGE_SIZE);
  }
  buffer->memory.data = options->pointer;
  buffer->memory.size = options->size;
  buffer->page_size = LUNA_PAGE_SIZE;
  return LUNA_OK;
}

static int make(luna_buffer *buffer, const luna_buffer_options *options) {
  uint64_t size = options->size;
  int status = LUNA_OK;
  if (options->kind == LUNA_BUFFER_FILE) {
    status = make_file(buffer, options, &size);
  }
  status = status == LUNA_OK ? check_size(size, LUNA_PAGE_SIZE) : status;
  if (status == LUNA_OK && options->kind == LUNA_BUFFER_POINTER) {
    return adopt(buffer, options);
  }
  if (status == LUNA_OK && options->kind == LUNA_BUFFER_MEMFD) {
    status = make_memfd(buffer, size);
  }
  return status == LUNA_OK ? map_buffer(buffer, size) : status;
}

static int check_options(const luna_buffer_options *options) {
  const uint32_t known = LUNA_BUFFER_READ_ONLY | LUNA_BUFFER_PRIVATE | LUNA_BUFFER_HUGE_2M |
                         LUNA_BUFFER_HUGE_1G | LUNA_BUFFER_SEALED | LUNA_BUFFER_STABLE;
  if (options->kind > LUNA_BUFFER_POINTER) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "cannot make a buffer of kind %u: there is none",
                     options->kind);
  }
  if (options->flags & ~known) {
    return luna_fail(LUNA_ERROR_ARGUMENT,
                     "cannot make a buffer with flags 0x%x: only 0x%x are known", options->flags,
                     known);
  }
  return LUNA_OK;
}

/* Whether somebody can take the memory away: by cutting the file short, or by unmapping it. A
 * memfd is out of everybody's reach until its descriptor is asked for. */
static bool can_vanish(const luna_buffer *root) {
  return root->kind == LUNA_BUFFER_FILE ||
         (root->kind == LUNA_BUFFER_POINTER && !(root->flags & LUNA_BUFFER_STABLE));
}

static void start(luna_buffer *buffer) {
  buffer->id = atomic_fetch_add(&last_id, 1) + 1;
  buffer->memory.logged = &buffer->root->logged;
  buffer->memory.vanishes = &buffer->root->vanishes;
  buffer->memory.writable = !(buffer->flags & LUNA_BUFFER_READ_ONLY);
  pthread_mutex_init(&buffer->log_lock, NULL);
  luna_reference_start(&buffer->reference, LUNA_OBJECT_BUFFER);
}

int luna_buffer_open(const luna_buffer_options *options, luna_buffer **buffer) {
  int status = check_options(options);
  if (status != LUNA_OK) {
    return status;
  }
  luna_buffer *made = calloc(1, sizeof *made);
  if (!made) {
    return fail_make(options->size, ENOMEM, "");
  }
  made->fd = -1;
  made->root = made;
  made->kind = options->kind;
  made->flags = options->flags;
  status = make(made, options);
  if (status != LUNA_OK) {
    if (made->fd >= 0) {
      close(made->fd);
    }
    free(made);
    return status;
  }
  made->vanishes = can_vanish(made);
  start(made);
  *buffer = made;
  return LUNA_OK;
}

int luna_buffer_create(uint64_t size, luna_buffer **buffer) {
  const luna_buffer_options options = {.kind = LUNA_BUFFER_ANONYMOUS, .size = size};
  return luna_buffer_open(&options, buffer);
}

int luna_buffer_view(luna_buffer *buffer, uint64_t offset, uint64_t size, luna_buffer **view) {
  uint64_t length = buffer->memory.size;
  if (size == 0 || offset > length || size > length - offset) {
    return luna_fail(size == 0 ? LUNA_ERROR_ARGUMENT : LUNA_ERROR_RANGE,
                     "cannot make a view of 0x%" PRIx64 " bytes from offset 0x%" PRIx64
                     ": the buffer has 0x%" PRIx64,
                     size, offset, length);
  }
  luna_buffer *made = calloc(1, sizeof *made);
  if (!made) {
    return fail_make(size, ENOMEM, " as a view");
  }
  made->root = buffer->root;
  made->root_offset = buffer->root_offset + offset;
  made->kind = buffer->kind;
  made->flags = buffer->flags;
  made->fd = -1;
  made->page_size = buffer->page_size;
  made->memory.data = buffer->memory.data + offset;
  made->memory.size = size;
  luna_buffer_retain(made->root);
  start(made);
  *view = made;
  return LUNA_OK;
}

void luna_buffer_retain(luna_buffer *buffer) {
  luna_reference_add(&buffer->reference);
}

static void destroy(luna_buffer *buffer) {
  if (buffer->root != buffer) {
    luna_buffer_release(buffer->root);
  } else {
    if (buffer->kind != LUNA_BUFFER_POINTER) {
      munmap(buffer->memory.data, buffer->memory.size);
    }
    if (buffer->fd >= 0) {
      close(buffer->fd);
    }
    free(buffer->written);
  }
  pthread_mutex_destroy(&buffer->log_lock);
  free(buffer);
}

void luna_buffer_release(luna_buffer *buffer) {
  if (luna_reference_drop(&buffer->reference, LUNA_OBJECT_BUFFER)) {
    destroy(buffer);
  }
}

uint64_t luna_buffer_size(const luna_buffer *buffer) {
  return buffer->memory.size;
}

uint64_t luna_buffer_id(const luna_buffer *buffer) {
  return buffer->root->id;
}

void *luna_buffer_data(const luna_buffer *buffer) {
  return buffer->memory.data;
}

const luna_memory *luna_buffer_memory(const luna_buffer *buffer) {
  return &buffer->memory;
}

uint64_t luna_buffer_page_size(const luna_buffer *buffer) {
  return buffer->page_size;
}

int luna_buffer_fd(const luna_buffer *buffer) {
  luna_buffer *root = buffer->root;
  if (root->kind == LUNA_BUFFER_MEMFD && !(root->flags & LUNA_BUFFER_SEALED)) {
    __atomic_store_n(&root->vanishes, 1, __ATOMIC_RELEASE);
  }
  return root->fd;
}

int luna_buffer_log(luna_buffer *root) {
  pthread_mutex_lock(&root->log_lock);
  if (!root->written) {
    uint64_t pages = root->memory.size / LUNA_PAGE_SIZE;
    uint64_t chunks = pages / LUNA_CHUNK_PAGES + 1;
    root->written = calloc(chunks + pages, sizeof *root->written);
    root->chunks = root->written + pages;
    if (root->written) {
      atomic_store(&root->epoch, 1);
      __atomic_store_n(&root->logged, 1, __ATOMIC_RELEASE);
    }
  }
  int status = root->written ? 0 : -1;
  pthread_mutex_unlock(&root->log_lock);
  return status;
}

uint32_t luna_buffer_epoch(luna_buffer *root) {
  return atomic_fetch_add(&root->epoch, 1);
}

/* Never back: another thread may have noted a newer write to another page. */
static void raise_to(atomic_uint *newest, unsigned epoch) {
  unsigned now = atomic_load(newest);
  while (now < epoch && !atomic_compare_exchange_weak(newest, &now, epoch)) {
  }
}

void luna_buffer_mark(luna_buffer *buffer, uint64_t offset, uint64_t size) {
  luna_buffer *root = buffer->root;
  if (size == 0 || !__atomic_load_n(&root->logged, __ATOMIC_ACQUIRE)) {
    return;
  }
  uint64_t first = (buffer->root_offset + offset) / LUNA_PAGE_SIZE;
  uint64_t last = (buffer->root_offset + offset + size - 1) / LUNA_PAGE_SIZE;
  uint64_t pages = root->memory.size / LUNA_PAGE_SIZE;
  for (uint64_t page = first; page <= last && page < pages; page++) {
    unsigned epoch;
    do { /* again if the epoch ended meanwhile: its end may have been before this page's turn */
      epoch = atomic_load(&root->epoch);
      atomic_store(&root->written[page], epoch);
      raise_to(&root->chunks[page / LUNA_CHUNK_PAGES], epoch);
    } while (epoch != atomic_load(&root->epoch));
  }
}
