/* SPDX-License-Identifier: MIT
 * Software breakpoints: INT3 in guest memory while a vCPU that asked for it is in the guest. Two
 * vCPUs may have one at the same place, so there is one list of them in the process. */
#include "debug/software.h"

#include "base/error.h"
#include "debug/debug.h"
#include "kvm/kvm.h"
#include "memory/buffer.h"
#include "memory/space.h"
#include "vcpu/state.h"
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
static luna_patch *patches;

bool luna_software_translate(luna_vcpu *vcpu, uint64_t gva, uint64_t *gpa) {
  const struct kvm_sregs *sregs = luna_state_sregs(vcpu);
  if (!sregs) {
    return false;
  }
  if (!(sregs->cr0 & 1u << 31)) { /* CR0.PG: no paging */
    *gpa = gva;
    return true;
  }
  struct kvm_translation translation = {.linear_address = gva};
  if (luna_kvm_translate(vcpu->fd, &translation) != 0 || !translation.valid) {
    return false;
  }
  *gpa = translation.physical_address;
  return true;
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

const luna_breakpoint *luna_software_at(const luna_debug *debug, uint64_t gva) {
  for (uint32_t i = 0; i < debug->software_count; i++) {
    if (debug->software[i]->gva == gva) {
      return debug->software[i];
    }
  }
  return NULL;
}

/* The buffer, with a reference, and the byte in it that the guest would execute; NULL where the
 * address leads to no memory. Not through a window, which may show other memory meanwhile. */
static luna_buffer *find(luna_vcpu *vcpu, uint64_t gva, uint8_t **place) {
  uint64_t gpa;
  luna_buffer *buffer = NULL;
  if (!luna_software_translate(vcpu, gva, &gpa)) {
    return NULL;
  }
  pthread_rwlock_rdlock(&vcpu->vm->lock);
  const luna_mapping *mapping = luna_space_at(vcpu->space, gpa);
  if (mapping) {
    buffer = mapping->buffer;
    *place = buffer->memory.data + mapping->offset + (gpa - mapping->range.first);
    luna_buffer_retain(buffer);
  }
  pthread_rwlock_unlock(&vcpu->vm->lock);
  return buffer;
}

static int check_writable(const luna_vcpu *vcpu, const luna_buffer *buffer, uint64_t gva) {
  if (buffer->memory.writable) {
    return LUNA_OK;
  }
  return luna_fail(LUNA_ERROR_UNSUPPORTED,
                   "cannot have a software breakpoint at gva 0x%" PRIx64
                   " of vCPU %u: it lies in buffer %" PRIu64
                   ", which this process may only read; use a hardware breakpoint",
                   gva, vcpu->id, buffer->id);
}

int luna_software_check(luna_vcpu *vcpu, uint64_t gva) {
  uint8_t *place;
  luna_buffer *buffer = find(vcpu, gva, &place);
  if (!buffer) {
    return LUNA_OK;
  }
  int status = check_writable(vcpu, buffer, gva);
  luna_buffer_release(buffer);
  return status;
}

static luna_patch *patch_at(const uint8_t *place) {
  luna_patch *patch = patches;
  while (patch && patch->place != place) {
    patch = patch->next;
  }
  return patch;
}

/* Takes the reference to the buffer over. The lock is held. */
static luna_patch *make_patch(luna_buffer *buffer, uint8_t *place) {
  luna_patch *patch = malloc(sizeof *patch);
  uint8_t byte = INT3;
  if (!patch) {
    luna_fail_errno(ENOMEM, "cannot insert a software breakpoint");
    return NULL;
  }
  *patch = (luna_patch){.next = patches, .buffer = buffer, .place = place};
  if (!luna_buffer_move(buffer, place, &patch->saved, 1, false) ||
      !luna_buffer_move(buffer, place, &byte, 1, true)) {
    luna_fail(LUNA_ERROR_STATE,
              "cannot insert a software breakpoint: the memory of buffer %" PRIu64 " is gone",
              buffer->id);
    free(patch);
    return NULL;
  }
  patches = patch;
  return patch;
}

static luna_patch *use_patch(luna_buffer *buffer, uint8_t *place) {
  pthread_mutex_lock(&patch_lock);
  luna_patch *patch = patch_at(place);
  bool found = patch != NULL;
  patch = found ? patch : make_patch(buffer, place);
  if (patch) {
    patch->users++;
  }
  pthread_mutex_unlock(&patch_lock);
  if (found || !patch) {
    luna_buffer_release(buffer);
  }
  return patch;
}

static void unlink_patch(const luna_patch *patch) {
  luna_patch **link = &patches;
  while (*link != patch) {
    link = &(*link)->next;
  }
  *link = patch->next;
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

static int insert(luna_vcpu *vcpu, uint64_t gva) {
  luna_debug *debug = vcpu->debug;
  uint8_t *place;
  luna_buffer *buffer = find(vcpu, gva, &place);
  if (!buffer) {
    return LUNA_OK; /* nothing that could be executed */
  }
  int status = check_writable(vcpu, buffer, gva);
  if (status != LUNA_OK) {
    luna_buffer_release(buffer);
    return status;
  }
  luna_patch *patch = use_patch(buffer, place);
  if (!patch) {
    return luna_error_status();
  }
  debug->patches[debug->patch_count++] = patch;
  return LUNA_OK;
}

int luna_software_insert(luna_vcpu *vcpu) {
  const luna_debug *debug = vcpu->debug;
  for (uint32_t i = 0; i < debug->software_count; i++) {
    int status = insert(vcpu, debug->software[i]->gva);
    if (status != LUNA_OK) {
      luna_software_remove(vcpu);
      return status;
    }
  }
  return LUNA_OK;
}

void luna_software_remove(luna_vcpu *vcpu) {
  luna_debug *debug = vcpu->debug;
  while (debug->patch_count > 0) {
    drop_patch(debug->patches[--debug->patch_count]);
  }
}
