/* SPDX-License-Identifier: MIT
 * Part of lunavisor.h: buffers, which are host memory. */
#ifndef LUNAVISOR_BUFFER_H
#define LUNAVISOR_BUFFER_H
#ifndef LUNA_API
#error "a part of lunavisor.h, which is to be included"
#endif

typedef struct luna_buffer luna_buffer;

enum {
  LUNA_PAGE_SIZE = 4096
};

/* Allocates zeroed host memory of `size` bytes, a multiple of LUNA_PAGE_SIZE; page aligned, and
 * aligned to 2 MiB where it is that large, so that KVM can map it with huge pages. The memory is
 * reserved, not touched. */
LUNA_API int luna_buffer_create(uint64_t size, luna_buffer **buffer);

typedef enum luna_buffer_kind {
  LUNA_BUFFER_ANONYMOUS = 0, /* zeroed memory of this process */
  LUNA_BUFFER_MEMFD = 1,     /* zeroed memory behind a descriptor that other processes can map */
  LUNA_BUFFER_FILE = 2,      /* a file by path, or what an open descriptor refers to */
  LUNA_BUFFER_POINTER = 3    /* memory of the embedder, who keeps it alive */
} luna_buffer_kind;

typedef enum luna_buffer_flag {
  LUNA_BUFFER_READ_ONLY = 1, /* the memory cannot be written, by the host or by a guest */
  LUNA_BUFFER_PRIVATE = 2,   /* file: writes stay in this process (copy-on-write) */
  LUNA_BUFFER_HUGE_2M = 4,   /* from the reserved 2 MiB pages, or else ordinary memory */
  LUNA_BUFFER_HUGE_1G = 8,   /* from the reserved 1 GiB pages, or else ordinary memory */
  LUNA_BUFFER_SEALED = 16,   /* memfd: nobody can change its size any more */
  /* pointer: the embedder vouches for the memory, so that the library uses it as its own, except
   * where it does an access for a guest. Without it, memory that is gone is an error instead of a
   * SIGSEGV or SIGBUS, and each access by the library costs a system call. */
  LUNA_BUFFER_STABLE = 32
} luna_buffer_flag;

typedef struct luna_buffer_options {
  uint32_t kind;    /* luna_buffer_kind */
  uint32_t flags;   /* luna_buffer_flag bits */
  uint64_t size;    /* bytes, a multiple of LUNA_PAGE_SIZE; file: 0 for up to its end */
  uint64_t offset;  /* file: where the buffer begins in it, a multiple of LUNA_PAGE_SIZE */
  const char *path; /* file: its name, or NULL to use `fd` */
  void *pointer;    /* pointer: page-aligned memory */
  int32_t fd;       /* file without a path: a descriptor; it is duplicated */
  int32_t reserved;
} luna_buffer_options;

/* Makes a buffer of any kind. Where huge pages are asked for and the host has none reserved, the
 * size is no multiple of them, or the memory is not anonymous, the buffer is made of ordinary
 * pages: luna_buffer_page_size tells. A file whose length is no multiple of the page size reads as
 * zeroes up to the next one. A file that is cut short later makes the guest's access a
 * LUNA_EXIT_HOST_FAULT, and the library's own an error. */
LUNA_API int luna_buffer_open(const luna_buffer_options *options, luna_buffer **buffer);
/* A buffer that is `size` bytes of another from `offset`, at any byte, and keeps that alive.
 * Mapped, it counts as the other buffer. */
LUNA_API int luna_buffer_view(luna_buffer *buffer, uint64_t offset, uint64_t size,
                              luna_buffer **view);
LUNA_API void luna_buffer_retain(luna_buffer *buffer);
/* Drops a reference; the memory goes with the last one. A mapped region holds one. */
LUNA_API void luna_buffer_release(luna_buffer *buffer);
LUNA_API uint64_t luna_buffer_size(const luna_buffer *buffer);
/* A number that no other buffer of this process has had, from 1; a view has its buffer's. */
LUNA_API uint64_t luna_buffer_id(const luna_buffer *buffer);
/* The address of the first byte in this process; stays valid while a reference is held. */
LUNA_API void *luna_buffer_data(const luna_buffer *buffer);
/* The size of the pages that were reserved: 4096, 2 MiB or 1 GiB. */
LUNA_API uint64_t luna_buffer_page_size(const luna_buffer *buffer);
/* The descriptor behind a memfd or file buffer, the buffer's own, or -1. An unsealed memfd counts
 * as memory that may go away from now on: whoever has the descriptor can cut it short. */
LUNA_API int luna_buffer_fd(const luna_buffer *buffer);

/* What a binding needs for its own bounds-checked access; as long-lived as the buffer. */
typedef struct luna_memory {
  uint8_t *data;
  uint64_t size;
  const uint8_t *logged;   /* not 0: writes have to be told to luna_buffer_mark */
  const uint8_t *vanishes; /* not 0: the memory may go away at any time, and touching it then is a
                              SIGBUS; the calls of lunavisor/memory.h make an error of that */
  uint8_t writable;
} luna_memory;

LUNA_API const luna_memory *luna_buffer_memory(const luna_buffer *buffer);
/* Says that the host side wrote `size` bytes at `offset`, so that luna_vm_dirty reports the pages.
 * To be called after the write; cheap where nobody follows. Any thread. */
LUNA_API void luna_buffer_mark(luna_buffer *buffer, uint64_t offset, uint64_t size);

#endif
