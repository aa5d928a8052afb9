/* SPDX-License-Identifier: MIT
 * Allocating host memory with the alignment that lets KVM use huge pages. */
#include "buffer.h"

#include "error.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/mman.h>

enum {
  HUGE_PAGE = 2 << 20
};

static atomic_ulong last_id;

/* Reserves `size` bytes at a multiple of `alignment`: maps more and gives the ends back. */
static uint8_t *map_aligned(size_t size, size_t alignment) {
  size_t slack = alignment > LUNA_PAGE_SIZE ? alignment : 0;
  uint8_t *base = mmap(NULL, size + slack, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    return NULL;
  }
  if (slack == 0) {
    return base;
  }
  uint8_t *data = (uint8_t *)(((uintptr_t)base + alignment - 1) & ~(uintptr_t)(alignment - 1));
  if (data > base) {
    munmap(base, (size_t)(data - base));
  }
  uint8_t *end = base + size + slack;
  if (end > data + size) {
    munmap(data + size, (size_t)(end - (data + size)));
  }
  return data;
}

static int check_size(uint64_t size) {
  if (size == 0 || size % LUNA_PAGE_SIZE != 0) {
    return luna_fail(LUNA_ERROR_ARGUMENT,
                     "cannot make a buffer of 0x%" PRIx64 " bytes: the size must be a multiple of "
                     "0x%x and not 0",
                     size, LUNA_PAGE_SIZE);
  }
  if (size > (uint64_t)1 << 46) {
    return luna_fail(LUNA_ERROR_RANGE,
                     "cannot make a buffer of 0x%" PRIx64 " bytes: a process has room for at most "
                     "0x%" PRIx64,
                     size, (uint64_t)1 << 46);
  }
  return LUNA_OK;
}

int luna_buffer_create(uint64_t size, luna_buffer **buffer) {
  int status = check_size(size);
  if (status != LUNA_OK) {
    return status;
  }
  luna_buffer *made = calloc(1, sizeof *made);
  if (!made) {
    return luna_fail_errno(ENOMEM, "cannot make a buffer of 0x%" PRIx64 " bytes", size);
  }
  made->id = atomic_fetch_add(&last_id, 1) + 1;
  made->size = size;
  made->data = map_aligned(size, size >= HUGE_PAGE ? HUGE_PAGE : LUNA_PAGE_SIZE);
  if (!made->data) {
    int number = errno;
    free(made);
    return luna_fail_errno(number, "cannot make a buffer of 0x%" PRIx64 " bytes", size);
  }
  if (size >= HUGE_PAGE) {
    madvise(made->data, size, MADV_HUGEPAGE); /* a wish; refused where the kernel has none */
  }
  luna_reference_start(&made->reference, LUNA_OBJECT_BUFFER);
  *buffer = made;
  return LUNA_OK;
}

void luna_buffer_retain(luna_buffer *buffer) {
  luna_reference_add(&buffer->reference);
}

void luna_buffer_release(luna_buffer *buffer) {
  if (luna_reference_drop(&buffer->reference, LUNA_OBJECT_BUFFER)) {
    munmap(buffer->data, buffer->size);
    free(buffer);
  }
}

uint64_t luna_buffer_size(const luna_buffer *buffer) {
  return buffer->size;
}

uint64_t luna_buffer_id(const luna_buffer *buffer) {
  return buffer->id;
}

void *luna_buffer_data(const luna_buffer *buffer) {
  return buffer->data;
}
