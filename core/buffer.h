/* SPDX-License-Identifier: MIT
 * Host memory that can be mapped into guest-physical address spaces. */
#ifndef LUNA_BUFFER_H
#define LUNA_BUFFER_H

#include "live.h"

struct luna_buffer {
  luna_reference reference;
  uint64_t id;
  uint64_t size;
  uint8_t *data;
};

#endif
