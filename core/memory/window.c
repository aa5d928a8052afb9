/* SPDX-License-Identifier: MIT
 * Making windows and changing what they show. */
#include "memory/window.h"

#include "base/error.h"
#include "memory/buffer.h"
#include "memory/dirty.h"
#include "memory/slots.h"
#include "memory/space.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/mman.h>

static int check_buffer(const luna_buffer *root) {
  if (root->fd >= 0 && !(root->flags & LUNA_BUFFER_PRIVATE)) {
    return LUNA_OK;
  }
  return luna_fail(LUNA_ERROR_UNSUPPORTED,
                   "cannot show buffer %" PRIu64
                   " in a window: only memfd and shared file buffers can be mapped a second time",
                   root->id);
}

static int show(uint8_t *place, uint64_t size, const luna_buffer *root, uint64_t offset) {
  int protection = PROT_READ | (root->memory.writable ? PROT_WRITE : 0);
  if (mmap(place, size, protection, MAP_SHARED | MAP_FIXED, root->fd,
           (off_t)(root->fd_offset + offset)) == MAP_FAILED) {
    return luna_fail_errno(errno,
                           "cannot show offset 0x%" PRIx64 " of buffer %" PRIu64 " in a window",
                           offset, root->id);
  }
  return LUNA_OK;
}

int luna_window_create(luna_mapping *mapping) {
  int status = check_buffer(mapping->buffer);
  if (status != LUNA_OK) {
    return status;
  }
  uint64_t size = mapping->range.last - mapping->range.first + 1;
  if (size / LUNA_PAGE_SIZE > LUNA_SLOT_PAGES) {
    return luna_fail(LUNA_ERROR_RANGE,
                     "cannot make a window of 0x%" PRIx64
                     " bytes: it is one memory slot, and KVM's have less than 2^31 pages",
                     size);
  }
  luna_window *window = calloc(1, sizeof *window);
  if (!window) {
    return luna_fail_errno(ENOMEM, "cannot make a window of 0x%" PRIx64 " bytes", size);
  }
  window->size = size;
  window->data = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (window->data == MAP_FAILED) {
    int number = errno;
    free(window);
    return luna_fail_errno(number, "cannot make a window of 0x%" PRIx64 " bytes", size);
  }
  atomic_init(&window->references, 1);
  status = show(window->data, size, mapping->buffer, mapping->offset);
  if (status != LUNA_OK) {
    luna_window_release(window);
    return status;
  }
  mapping->window = window;
  mapping->host = window->data;
  return LUNA_OK;
}

int luna_window_show(luna_mapping *mapping, luna_buffer *buffer, uint64_t offset) {
  luna_buffer *root = buffer->root;
  uint64_t from = buffer->root_offset + offset;
  int status = check_buffer(root);
  if (status == LUNA_OK && mapping->rights & LUNA_WRITE && !root->memory.writable) {
    status = luna_fail(
        LUNA_ERROR_ARGUMENT,
        "cannot show read-only buffer %" PRIu64 " in a window that the guest may write", root->id);
  }
  if (status == LUNA_OK && from % LUNA_PAGE_SIZE != 0) {
    status = luna_fail(LUNA_ERROR_ARGUMENT,
                       "cannot show offset 0x%" PRIx64 " of a buffer: it is not a multiple of 0x%x",
                       from, LUNA_PAGE_SIZE);
  }
  uint64_t size = mapping->range.last - mapping->range.first + 1;
  if (status == LUNA_OK && mapping->log) {
    status = luna_buffer_log(root) == 0
                 ? LUNA_OK
                 : luna_fail_errno(ENOMEM, "cannot follow the writes to buffer %" PRIu64, root->id);
  }
  status = status == LUNA_OK ? show(mapping->host, size, root, from) : status;
  if (status == LUNA_OK) {
    if (mapping->log) {
      luna_dirty_collect_host(mapping);
    }
    if (root != mapping->buffer) { /* most windows go over one buffer */
      luna_buffer_retain(root);
      luna_buffer_release(mapping->buffer);
      mapping->buffer = root;
    }
    mapping->offset = from;
    if (mapping->log) {
      luna_dirty_show(mapping);
    }
  }
  return status;
}

void luna_window_release(luna_window *window) {
  if (window && atomic_fetch_sub(&window->references, 1) == 1) {
    munmap(window->data, window->size);
    free(window);
  }
}
