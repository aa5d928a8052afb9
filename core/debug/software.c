/* SPDX-License-Identifier: MIT
 * Software breakpoints: INT3 in guest memory while a vCPU that asked for it is in the guest. Two
 * vCPUs may have one at the same place, so the process has one table of them. */
#include "debug/software.h"

#include "base/error.h"
#include "debug/debug.h"
#include "debug/walk.h"
#include "memory/buffer.h"
#include "memory/space.h"
#include "vcpu/vcpu.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
  INT3 = 0xcc
};

struct luna_patch {
  luna_patch *next;
  luna_buffer *buffer; /* with a reference */
  uint8_t *place;      /* in its memory */
  uint8_t saved;
  uint32_t users; /* vCPUs that are in the guest with it */
};

static pthread_mutex_t patch_lock = PTHREAD_MUTEX_INITIALIZER;
static luna_patch **buckets; /* by place; a power of two of lists */
static size_t bucket_count;
static size_t patch_count;

bool luna_software_translate(luna_vcpu *vcpu, uint64_t gva, uint64_t *gpa) {
  luna_walker walker;
  if (luna_walk_begin(vcpu, &walker) != LUNA_OK) {
    return false;
  }
  pthread_rwlock_rdlock(&vcpu->vm->lock);
  int status = luna_walk_find(&walker, gva, gpa);
  pthread_rwlock_unlock(&vcpu->vm->lock);
  return status == LUNA_OK;
}

size_t luna_software_read(luna_vcpu *vcpu, uint64_t gva, uint8_t *bytes, size_t size) {
  uint64_t gpa;
  size_t left = LUNA_PAGE_SIZE - (size_t)(gva % LUNA_PAGE_SIZE);
  size = size < left ? size : left;
  if (!luna_software_translate(vcpu, gva, &gpa)) {
    return 0;
  }
  pthread_rwlock_rdlock(&vcpu->vm->lock);
  luna_touch touch = luna_space_copy(vcpu->space, gpa, size, false, bytes);
  pthread_rwlock_unlock(&vcpu->vm->lock);
  return touch == LUNA_TOUCH_DONE ? size : 0;
}

/* The index of the first that is at the address or above. */
static uint32_t index_of(const luna_debug *debug, uint64_t gva) {
  uint32_t low = 0;
  uint32_t high = debug->software_count;
  while (low < high) {
    uint32_t middle = low + (high - low) / 2;
    if (debug->software[middle]->gva < gva) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

const luna_breakpoint *luna_software_at(const luna_debug *debug, uint64_t gva) {
  uint32_t at = index_of(debug, gva);
  return at < debug->software_count && debug->software[at]->gva == gva ? debug->software[at] : NULL;
}

void luna_software_add(luna_debug *debug, luna_breakpoint *point) {
  uint32_t at = index_of(debug, point->gva);
  memmove(debug->software + at + 1, debug->software + at,
          (debug->software_count - at) * sizeof(luna_breakpoint *));
  debug->software[at] = point;
  debug->software_count++;
}

/* ---- Places ---- */

/* A page of guest memory: the byte of a breakpoint in it is at `data` plus its offset. Not through
 * a window, which may show other memory meanwhile. */
typedef struct code_page {
  uint64_t gva;
  luna_buffer *buffer; /* NULL where the address leads to no memory; the VM's lock holds it */
  uint8_t *data;
} code_page;

/* The VM's lock is held. */
static code_page find_page(const luna_walker *walker, uint64_t gva) {
  code_page page = {.gva = gva - gva % LUNA_PAGE_SIZE};
  uint64_t gpa;
  if (luna_walk_find(walker, page.gva, &gpa) != LUNA_OK) {
    return page;
  }
  const luna_mapping *mapping = luna_space_at(walker->space, gpa);
  if (mapping) {
    page.buffer = mapping->buffer;
    page.data = page.buffer->memory.data + mapping->offset + (gpa - mapping->range.first);
  }
  return page;
}

static int check_writable(const luna_vcpu *vcpu, const luna_buffer *buffer, uint64_t gva) {
  if (!buffer || buffer->memory.writable) {
    return LUNA_OK;
  }
  return luna_fail(LUNA_ERROR_UNSUPPORTED,
                   "cannot have a software breakpoint at gva 0x%" PRIx64
                   " of vCPU %u: it lies in buffer %" PRIu64
                   ", which this process may only read; use a hardware breakpoint",
                   gva, vcpu->id, buffer->id);
}

int luna_software_check(luna_vcpu *vcpu, uint64_t gva) {
  luna_walker walker;
  int status = luna_walk_begin(vcpu, &walker);
  if (status == LUNA_OK) {
    pthread_rwlock_rdlock(&vcpu->vm->lock);
    status = check_writable(vcpu, find_page(&walker, gva).buffer, gva);
    pthread_rwlock_unlock(&vcpu->vm->lock);
  }
  return status;
}

/* ---- Patches ---- */

static luna_patch **bucket_of(const uint8_t *place) {
  uint64_t mixed = (uintptr_t)place * UINT64_C(0x9e3779b97f4a7c15);
  return &buckets[mixed >> 32 & (bucket_count - 1)];
}

/* Keeps the lists short. Without memory they grow longer; the first are needed. */
static bool reserve(void) {
  if (patch_count < bucket_count) {
    return true;
  }
  size_t old_count = bucket_count;
  luna_patch **old = buckets;
  luna_patch **made = calloc(old_count ? 2 * old_count : 16, sizeof(luna_patch *));
  if (!made) {
    return old_count > 0;
  }
  buckets = made;
  bucket_count = old_count ? 2 * old_count : 16;
  for (size_t i = 0; i < old_count; i++) {
    while (old[i]) {
      luna_patch *patch = old[i];
      old[i] = patch->next;
      luna_patch **bucket = bucket_of(patch->place);
      patch->next = *bucket;
      *bucket = patch;
    }
  }
  free(old);
  return true;
}

static luna_patch *patch_at(const uint8_t *place) {
  luna_patch *patch = bucket_count ? *bucket_of(place) : NULL;
  while (patch && patch->place != place) {
    patch = patch->next;
  }
  return patch;
}

/* The lock is held. */
static luna_patch *make_patch(luna_buffer *buffer, uint8_t *place) {
  luna_patch *patch = reserve() ? malloc(sizeof *patch) : NULL;
  uint8_t byte = INT3;
  if (!patch) {
    luna_fail_errno(ENOMEM, "cannot insert a software breakpoint");
    return NULL;
  }
  *patch = (luna_patch){.buffer = buffer, .place = place};
  if (!luna_buffer_move(buffer, place, &patch->saved, 1, false) ||
      !luna_buffer_move(buffer, place, &byte, 1, true)) {
    luna_fail(LUNA_ERROR_STATE,
              "cannot insert a software breakpoint: the memory of buffer %" PRIu64 " is gone",
              buffer->id);
    free(patch);
    return NULL;
  }
  luna_buffer_retain(buffer);
  luna_patch **bucket = bucket_of(place);
  patch->next = *bucket;
  *bucket = patch;
  patch_count++;
  return patch;
}

static luna_patch *use_patch(luna_buffer *buffer, uint8_t *place) {
  pthread_mutex_lock(&patch_lock);
  luna_patch *patch = patch_at(place);
  patch = patch ? patch : make_patch(buffer, place);
  if (patch) {
    patch->users++;
  }
  pthread_mutex_unlock(&patch_lock);
  return patch;
}

static void unlink_patch(const luna_patch *patch) {
  luna_patch **link = bucket_of(patch->place);
  while (*link != patch) {
    link = &(*link)->next;
  }
  *link = patch->next;
  patch_count--;
}

/* In one step where that can be: another vCPU may write there. */
static void put_back(const luna_patch *patch) {
  uint8_t byte = INT3;
  if (!luna_buffer_can_vanish(patch->buffer)) {
    __atomic_compare_exchange_n(patch->place, &byte, patch->saved, false, __ATOMIC_SEQ_CST,
                                __ATOMIC_SEQ_CST);
  } else if (luna_buffer_move(patch->buffer, patch->place, &byte, 1, false) && byte == INT3) {
    byte = patch->saved;
    luna_buffer_move(patch->buffer, patch->place, &byte, 1, true);
  }
}

/* What the guest has written there in the meantime stays. */
static void drop_patch(luna_patch *patch) {
  pthread_mutex_lock(&patch_lock);
  bool last = --patch->users == 0;
  if (last) {
    unlink_patch(patch);
    put_back(patch);
  }
  pthread_mutex_unlock(&patch_lock);
  if (last) {
    luna_buffer_release(patch->buffer);
    free(patch);
  }
}

/* The VM's lock is held. Neighbours are mostly in one page, which is looked for once. */
static int insert_all(luna_vcpu *vcpu, const luna_walker *walker) {
  luna_debug *debug = vcpu->debug;
  code_page page = {.gva = 1};
  for (uint32_t i = 0; i < debug->software_count; i++) {
    uint64_t gva = debug->software[i]->gva;
    if (page.gva != gva - gva % LUNA_PAGE_SIZE) {
      page = find_page(walker, gva);
    }
    if (!page.buffer) {
      continue; /* nothing that could be executed */
    }
    int status = check_writable(vcpu, page.buffer, gva);
    if (status != LUNA_OK) {
      return status;
    }
    luna_patch *patch = use_patch(page.buffer, page.data + gva % LUNA_PAGE_SIZE);
    if (!patch) {
      return luna_error_status();
    }
    debug->patches[debug->patch_count++] = patch;
  }
  return LUNA_OK;
}

int luna_software_insert(luna_vcpu *vcpu) {
  luna_walker walker;
  int status = luna_walk_begin(vcpu, &walker);
  if (status != LUNA_OK) {
    return status;
  }
  pthread_rwlock_rdlock(&vcpu->vm->lock);
  status = insert_all(vcpu, &walker);
  pthread_rwlock_unlock(&vcpu->vm->lock);
  if (status != LUNA_OK) {
    luna_software_remove(vcpu);
  }
  return status;
}

void luna_software_remove(luna_vcpu *vcpu) {
  luna_debug *debug = vcpu->debug;
  while (debug->patch_count > 0) {
    drop_patch(debug->patches[--debug->patch_count]);
  }
}
