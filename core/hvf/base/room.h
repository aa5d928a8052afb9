/* SPDX-License-Identifier: MIT
 * Arrays that grow. */
#ifndef HVF_ROOM_H
#define HVF_ROOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Makes room for index `index` in an array of `size`-byte elements, zeroed; false without
 * memory. */
bool hvf_room(void **array, uint32_t *room, uint32_t index, size_t size);

#endif
