/* SPDX-License-Identifier: MIT
 * Part of lunavisor.h: access to buffers that holds whatever happens to the memory meanwhile. Each
 * byte of it is read once, so that a guest that writes it changes what is found and nothing else;
 * and where it is gone (a file cut short, see luna_memory.vanishes) the result is _SYSTEM, and part
 * of the call's work may be done. _RANGE for what is not in the buffer. Any thread. */
#ifndef LUNAVISOR_MEMORY_H
#define LUNAVISOR_MEMORY_H
#ifndef LUNA_API
#error "a part of lunavisor.h, which is to be included"
#endif

/* Copies between `bytes` and the buffer from `offset` (`access`: LUNA_READ or LUNA_WRITE).
 * _ARGUMENT for a write to a read-only buffer, as with the two calls that follow. What is written
 * is marked (luna_buffer_mark). */
LUNA_API int luna_buffer_copy(luna_buffer *buffer, uint64_t offset, void *bytes, uint64_t size,
                              uint32_t access);
/* Sets the bytes from `offset`. */
LUNA_API int luna_buffer_fill(luna_buffer *buffer, uint64_t offset, uint64_t size, uint8_t byte);
/* Copies `size` bytes of `source` from `from` to `offset` of `target`; the ranges may overlap. */
LUNA_API int luna_buffer_transfer(luna_buffer *target, uint64_t offset, luna_buffer *source,
                                  uint64_t from, uint64_t size);
/* Compares `size` bytes: 0 where they are equal, 1 with the distance of the first difference. */
LUNA_API int luna_buffer_compare(luna_buffer *buffer, uint64_t offset, luna_buffer *other,
                                 uint64_t from, uint64_t size, uint64_t *at);
/* Looks for `length` bytes in [offset, offset + size): 1 with the distance of the first place from
 * `offset`, 0 where there is none. */
LUNA_API int luna_buffer_find(luna_buffer *buffer, uint64_t offset, uint64_t size,
                              const void *pattern, size_t length, uint64_t *at);

#endif
