/* SPDX-License-Identifier: MIT
 * The host side's access to buffers. A guest may write the memory meanwhile, and somebody may take
 * it away: what is looked at is copied first, once, and only the copy is looked at. */
#include "base/error.h"
#include "memory/buffer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
  BLOCK = 4096,
  SEARCH_BLOCK = 65536,
  MOST_AT_ONCE = 1 << 30 /* the kernel copies less than 2 GiB in a call */
};

bool luna_buffer_can_vanish(const luna_buffer *buffer) {
  return __atomic_load_n(&buffer->root->vanishes, __ATOMIC_ACQUIRE);
}

/* Through the kernel, so that memory that is gone is an error and not a SIGBUS. */
static bool move_by_kernel(uint8_t *host, uint8_t *bytes, size_t size, bool write) {
  while (size > 0) {
    size_t part = size < MOST_AT_ONCE ? size : MOST_AT_ONCE;
    struct iovec ours = {bytes, part};
    struct iovec theirs = {host, part};
    ssize_t moved = write ? process_vm_writev(getpid(), &ours, 1, &theirs, 1, 0)
                          : process_vm_readv(getpid(), &ours, 1, &theirs, 1, 0);
    if (moved < 0 && (errno == EPERM || errno == ENOSYS)) { /* kept from us, by seccomp perhaps */
      memcpy(write ? host : bytes, write ? bytes : host, part);
    } else if (moved != (ssize_t)part) {
      return false;
    }
    host += part;
    bytes += part;
    size -= part;
  }
  return true;
}

bool luna_buffer_move_for_guest(luna_buffer *root, uint8_t *host, void *bytes, size_t size,
                                bool write) {
  return root->root->kind == LUNA_BUFFER_POINTER ? move_by_kernel(host, bytes, size, write)
                                                 : luna_buffer_move(root, host, bytes, size, write);
}

bool luna_buffer_move(luna_buffer *root, uint8_t *host, void *bytes, size_t size, bool write) {
  if (luna_buffer_can_vanish(root)) {
    return move_by_kernel(host, bytes, size, write);
  }
  memcpy(write ? host : bytes, write ? bytes : host, size);
  return true;
}

/* ---- The public calls ---- */

static int check_inside(const luna_buffer *buffer, uint64_t offset, uint64_t size) {
  uint64_t length = buffer->memory.size;
  if (offset <= length && size <= length - offset) {
    return LUNA_OK;
  }
  return luna_fail(LUNA_ERROR_RANGE,
                   "cannot access 0x%" PRIx64 " bytes at offset 0x%" PRIx64
                   " of a buffer, which has 0x%" PRIx64,
                   size, offset, length);
}

static int check_writable(const luna_buffer *buffer) {
  return buffer->memory.writable
             ? LUNA_OK
             : luna_fail(LUNA_ERROR_ARGUMENT, "cannot write to buffer %" PRIu64 ": it is read-only",
                         buffer->root->id);
}

static int fail_gone(const luna_buffer *buffer, uint64_t offset, uint64_t size) {
  return luna_fail(LUNA_ERROR_SYSTEM,
                   "cannot access 0x%" PRIx64 " bytes at offset 0x%" PRIx64 " of buffer %" PRIu64
                   ": its memory is gone (a file cut short?)",
                   size, offset, buffer->root->id);
}

/* Inside of the buffer. */
static int move(luna_buffer *buffer, uint64_t offset, void *bytes, size_t size, bool write) {
  return luna_buffer_move(buffer->root, buffer->memory.data + offset, bytes, size, write)
             ? LUNA_OK
             : fail_gone(buffer, offset, size);
}

int luna_buffer_copy(luna_buffer *buffer, uint64_t offset, void *bytes, uint64_t size,
                     uint32_t access) {
  bool write = access == LUNA_WRITE;
  int status = check_inside(buffer, offset, size);
  status = status == LUNA_OK && write ? check_writable(buffer) : status;
  if (status != LUNA_OK) {
    return status;
  }
  status = move(buffer, offset, bytes, size, write);
  if (write) {
    luna_buffer_mark(buffer, offset, size);
  }
  return status;
}

int luna_buffer_fill(luna_buffer *buffer, uint64_t offset, uint64_t size, uint8_t byte) {
  int status = check_inside(buffer, offset, size);
  status = status == LUNA_OK ? check_writable(buffer) : status;
  if (status != LUNA_OK) {
    return status;
  }
  if (!luna_buffer_can_vanish(buffer)) {
    memset(buffer->memory.data + offset, byte, size);
  } else {
    uint8_t block[BLOCK];
    memset(block, byte, sizeof block);
    for (uint64_t done = 0; done < size && status == LUNA_OK; done += BLOCK) {
      uint64_t part = size - done < BLOCK ? size - done : BLOCK;
      status = move(buffer, offset + done, block, part, true);
    }
  }
  luna_buffer_mark(buffer, offset, size);
  return status;
}

/* In blocks, from the end where the target lies behind the source in the same memory. */
static int transfer_by_blocks(luna_buffer *target, uint64_t offset, luna_buffer *source,
                              uint64_t from, uint64_t size) {
  uint8_t block[BLOCK];
  bool backwards = target->memory.data + offset > source->memory.data + from;
  int status = LUNA_OK;
  for (uint64_t done = 0; done < size && status == LUNA_OK;) {
    uint64_t part = size - done < BLOCK ? size - done : BLOCK;
    uint64_t at = backwards ? size - done - part : done;
    status = move(source, from + at, block, part, false);
    status = status == LUNA_OK ? move(target, offset + at, block, part, true) : status;
    done += part;
  }
  return status;
}

int luna_buffer_transfer(luna_buffer *target, uint64_t offset, luna_buffer *source, uint64_t from,
                         uint64_t size) {
  int status = check_inside(source, from, size);
  status = status == LUNA_OK ? check_inside(target, offset, size) : status;
  status = status == LUNA_OK ? check_writable(target) : status;
  if (status != LUNA_OK) {
    return status;
  }
  if (luna_buffer_can_vanish(target) || luna_buffer_can_vanish(source)) {
    status = transfer_by_blocks(target, offset, source, from, size);
  } else {
    memmove(target->memory.data + offset, source->memory.data + from, size);
  }
  luna_buffer_mark(target, offset, size);
  return status;
}

/* Whether `size` bytes are seen to be equal where they are; false where they have to be copied. */
static bool equal_in_place(const luna_buffer *buffer, uint64_t offset, const luna_buffer *other,
                           uint64_t from, size_t size) {
  return !luna_buffer_can_vanish(buffer) && !luna_buffer_can_vanish(other) &&
         memcmp(buffer->memory.data + offset, other->memory.data + from, size) == 0;
}

int luna_buffer_compare(luna_buffer *buffer, uint64_t offset, luna_buffer *other, uint64_t from,
                        uint64_t size, uint64_t *at) {
  uint8_t ours[BLOCK];
  uint8_t theirs[BLOCK];
  int status = check_inside(buffer, offset, size);
  status = status == LUNA_OK ? check_inside(other, from, size) : status;
  for (uint64_t done = 0; done < size && status == LUNA_OK; done += BLOCK) {
    size_t part = size - done < BLOCK ? size - done : BLOCK;
    if (equal_in_place(buffer, offset + done, other, from + done, part)) {
      continue;
    }
    status = move(buffer, offset + done, ours, part, false);
    status = status == LUNA_OK ? move(other, from + done, theirs, part, false) : status;
    if (status == LUNA_OK && memcmp(ours, theirs, part) != 0) {
      size_t i = 0;
      while (ours[i] == theirs[i]) {
        i++;
      }
      *at = done + i;
      return 1;
    }
  }
  return status;
}

/* `block` has room for the pattern and more: a place over the end of one is at the beginning of the
 * next. */
static int find_by_blocks(luna_buffer *buffer, uint64_t offset, uint64_t size, const void *pattern,
                          size_t length, uint8_t *block, size_t room, uint64_t *at) {
  for (uint64_t done = 0; size - done >= length; done += room - length + 1) {
    size_t part = size - done < room ? size - done : room;
    int status = move(buffer, offset + done, block, part, false);
    if (status != LUNA_OK) {
      return status;
    }
    const uint8_t *found = memmem(block, part, pattern, length);
    if (found) {
      *at = done + (uint64_t)(found - block);
      return 1;
    }
    if (part == size - done) {
      break;
    }
  }
  return 0;
}

int luna_buffer_find(luna_buffer *buffer, uint64_t offset, uint64_t size, const void *pattern,
                     size_t length, uint64_t *at) {
  int status = check_inside(buffer, offset, size);
  if (status != LUNA_OK || length > size) {
    return status;
  }
  uint64_t room = (uint64_t)length + SEARCH_BLOCK;
  room = room < size ? room : size;
  uint8_t *block = malloc(room + 1);
  if (!block) {
    return luna_fail_errno(ENOMEM, "cannot search 0x%" PRIx64 " bytes of a buffer", size);
  }
  status = find_by_blocks(buffer, offset, size, pattern, length, block, room, at);
  free(block);
  return status;
}
