/* SPDX-License-Identifier: MIT
 * Host memory that can be mapped into guest-physical address spaces. */
#ifndef LUNA_BUFFER_H
#define LUNA_BUFFER_H

#include "base/live.h"

#include <pthread.h>

enum {
  LUNA_CHUNK_PAGES = 512
};

struct luna_buffer {
  luna_reference reference;
  luna_memory memory;
  uint64_t id;
  luna_buffer *root; /* of a view: the buffer that has the memory, else the buffer itself */
  uint64_t root_offset;
  uint32_t kind; /* luna_buffer_kind */
  uint32_t flags;
  int fd; /* -1 where nothing but this process can reach the memory */
  uint64_t fd_offset;
  uint64_t page_size; /* of the pages that were reserved for it */
  /* What the host side wrote. written[page] is the epoch of the last write to it; whoever follows
   * the writes remembers the epoch up to which it has seen them. NULL until somebody follows. */
  uint8_t logged;
  uint8_t vanishes; /* the memory can go away while it is used */
  pthread_mutex_t log_lock;
  atomic_uint *written;
  atomic_uint *chunks; /* the newest epoch of LUNA_CHUNK_PAGES pages, so that few are looked at */
  atomic_uint epoch;
};

/* From now on, writes by the host side are noted. 0, or -1 without memory. Any thread. */
int luna_buffer_log(luna_buffer *root);
/* Ends the current epoch: what is written from now on is newer than the epoch returned. */
uint32_t luna_buffer_epoch(luna_buffer *root);

/* Whether the memory can go away now, by a file that is cut short or by an unmapping. */
bool luna_buffer_can_vanish(const luna_buffer *buffer);
/* Copies between the buffer's memory and `bytes`, each byte once, without a crash where the memory
 * has gone (a truncated file). False if it has. */
bool luna_buffer_move(luna_buffer *root, uint8_t *host, void *bytes, size_t size, bool write);
/* The same for an access of the guest's: KVM, too, may ask for it because an embedder's memory has
 * gone, whatever the embedder vouched for. */
bool luna_buffer_move_for_guest(luna_buffer *root, uint8_t *host, void *bytes, size_t size,
                                bool write);

#endif
