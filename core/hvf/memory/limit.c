/* SPDX-License-Identifier: MIT
 * Ranges of memory that were mapped with HV_MEMORY_MAXPROT, and the rights that they may ever
 * have. */
#include "hvf/memory/limit.h"

#include "hvf/base/error.h"
#include "hvf/base/room.h"
#include "lunavisor.h"

#include <stdlib.h>

typedef struct limit {
  hv_vm_space_t space;
  uint32_t rights;
  uint64_t first;
  uint64_t end; /* the address behind it */
} limit;

static limit *limits;
static uint32_t count;
static uint32_t room;

enum {
  AT_ONCE = 2 /* a cut can make two of one, and a range can be added; one of them is replaced */
};

hv_return_t hvf_limit_reserve(void) {
  return hvf_room((void **)&limits, &room, count + AT_ONCE, sizeof *limits)
             ? HV_SUCCESS
             : hvf_fail(HV_NO_RESOURCES, "no memory for a change of the map");
}

static void remove_at(uint32_t index) {
  limits[index] = limits[--count];
}

void hvf_limit_cut(hv_vm_space_t space, hv_gpaddr_t gpa, size_t size) {
  const uint64_t end = gpa + size;
  for (uint32_t i = count; i-- > 0;) {
    limit whole = limits[i];
    if (whole.space != space || whole.end <= gpa || whole.first >= end) {
      continue;
    }
    remove_at(i);
    if (whole.first < gpa) {
      limits[count++] = (limit){space, whole.rights, whole.first, gpa};
    }
    if (whole.end > end) {
      limits[count++] = (limit){space, whole.rights, end, whole.end};
    }
  }
}

void hvf_limit_add(hv_vm_space_t space, hv_gpaddr_t gpa, size_t size, uint32_t rights) {
  limits[count++] = (limit){space, rights, gpa, gpa + size};
}

uint32_t hvf_limit_rights(hv_vm_space_t space, hv_gpaddr_t gpa, size_t size) {
  uint32_t rights = LUNA_READ | LUNA_WRITE | LUNA_EXECUTE;
  for (uint32_t i = 0; i < count; i++) {
    if (limits[i].space == space && limits[i].end > gpa && limits[i].first < gpa + size) {
      rights &= limits[i].rights;
    }
  }
  return rights;
}

void hvf_limit_drop_space(hv_vm_space_t space) {
  for (uint32_t i = count; i-- > 0;) {
    if (limits[i].space == space) {
      remove_at(i);
    }
  }
}

void hvf_limit_drop_all(void) {
  free(limits);
  limits = NULL;
  count = room = 0;
}
