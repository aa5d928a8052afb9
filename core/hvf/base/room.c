/* SPDX-License-Identifier: MIT
 * Arrays that grow. */
#include "hvf/base/room.h"

#include <stdlib.h>
#include <string.h>

bool hvf_room(void **array, uint32_t *room, uint32_t index, size_t size) {
  if (index < *room) {
    return true;
  }
  uint32_t wanted = index + 8;
  void *grown = realloc(*array, wanted * size);
  if (!grown) {
    return false;
  }
  memset((char *)grown + *room * size, 0, (wanted - *room) * size);
  *array = grown;
  *room = wanted;
  return true;
}
