/* SPDX-License-Identifier: MIT
 * Making and freeing a space; looking at its memory the way the guest would. */
#include "memory/space.h"

#include "base/error.h"
#include "base/live.h"
#include "base/range.h"
#include "kvm/host.h"
#include "kvm/kick.h"
#include "kvm/kvm.h"
#include "memory/buffer.h"
#include "memory/dirty.h"
#include "memory/slots.h"
#include "memory/window.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

/* Where VMX without "unrestricted guest" keeps what it needs to run real mode (api.rst,
 * KVM_SET_TSS_ADDR): three pages and one, below the firmware and above the IOAPIC and LAPIC. Other
 * hosts do not use them. */
static const uint64_t identity_map = 0xfeffc000;
static const uint64_t tss_address = 0xfeffd000;

static int open_vm(luna_space *space) {
  luna_fd kvm_fd = luna_kvm_open(space->host->accel);
  if (kvm_fd.number < 0) {
    return kvm_fd.number;
  }
  luna_fd vm_fd = luna_kvm_create_vm(kvm_fd);
  int number = errno;
  luna_kvm_close(kvm_fd);
  if (vm_fd.number < 0) {
    return luna_kvm_fail_create(number);
  }
  luna_kvm_set_identity_map_address(vm_fd, identity_map);
  luna_kvm_set_tss_address(vm_fd, tss_address);
  /* Without it a fetch from a hole in ring 3 is a #UD for the guest. Kernels before 5.14 lack
   * it. */
  luna_kvm_enable_cap(vm_fd, KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1);
  space->vm_fd = vm_fd;
  return LUNA_OK;
}

int luna_space_create(const luna_host *host, uint32_t id, uint32_t ring_entries,
                      luna_space **space) {
  luna_space *made = calloc(1, sizeof *made);
  if (!made) {
    return luna_fail_errno(ENOMEM, "cannot make space %u", id);
  }
  made->id = id;
  made->host = host;
  made->slots_max = host->slots_max;
  made->address_bits = host->address_bits;
  made->no_execute = host->no_execute;
  made->coalesced_page = host->coalesced_page;
  int status = open_vm(made);
  if (status != LUNA_OK) {
    free(made);
    return status;
  }
  status = luna_dirty_begin(made, ring_entries);
  if (status != LUNA_OK) {
    luna_kvm_close(made->vm_fd);
    free(made);
    return status;
  }
  luna_live_add(LUNA_OBJECT_SPACE, 1);
  *space = made;
  return LUNA_OK;
}

void luna_space_free(luna_space *space) {
  luna_kvm_close(space->vm_fd);
  luna_range *range = luna_range_from(&space->regions, 0);
  while (range) {
    luna_mapping *mapping = (luna_mapping *)range;
    range = range->last == UINT64_MAX ? NULL : luna_range_from(&space->regions, range->last + 1);
    luna_mapping_release(mapping);
    free(mapping->log);
    free(mapping);
  }
  luna_range_free(&space->regions);
  luna_slots_free(space);
  free(space->reading);
  free(space);
  luna_live_add(LUNA_OBJECT_SPACE, -1);
}

bool luna_space_inside(const luna_space *space) {
  bool inside = false;
  for (uint32_t i = 0; i < space->resident_count && !inside; i++) {
    const luna_kick *kick = space->residents[i] ? space->residents[i]->kick : NULL;
    inside = kick && atomic_load(&kick->inside);
  }
  return inside;
}

/* KVM cannot replace a slot in one step. A guest that ran between the two would miss memory that
 * nobody took away, its page tables perhaps. */
void luna_space_pause(luna_space *space) {
  atomic_store(&space->gate.closed, true);
  /* Once each: whoever is inside has told its thread before it went in, and who comes now finds the
   * gate closed. A thread that gets signals without end would not get on. */
  for (uint32_t i = 0; i < space->resident_count; i++) {
    const luna_kick *kick = space->residents[i] ? space->residents[i]->kick : NULL;
    if (kick) {
      luna_kick_nudge(kick);
    }
  }
  while (luna_space_inside(space)) {
    sched_yield();
  }
}

void luna_space_resume(luna_space *space) {
  atomic_store(&space->gate.closed, space->msrs_stale);
}

void luna_mapping_retain(const luna_mapping *mapping) {
  luna_buffer_retain(mapping->buffer);
  if (mapping->window) {
    atomic_fetch_add(&mapping->window->references, 1);
  }
}

void luna_mapping_release(const luna_mapping *mapping) {
  luna_window_release(mapping->window);
  luna_buffer_release(mapping->buffer);
}

uint64_t luna_mapping_pages(const luna_mapping *mapping) {
  return (mapping->range.last - mapping->range.first + 1) / LUNA_PAGE_SIZE;
}

uint32_t luna_mapping_enforced(const luna_mapping *mapping) {
  if (!luna_slot_needed(mapping)) {
    return mapping->rights; /* none, or strict: what the core allows */
  }
  uint32_t enforced = LUNA_READ;
  enforced |= luna_slot_read_only(mapping) ? 0 : LUNA_WRITE;
  return mapping->no_execute ? enforced : enforced | LUNA_EXECUTE;
}

luna_mapping *luna_space_at(const luna_space *space, uint64_t gpa) {
  return (luna_mapping *)luna_range_at(&space->regions, gpa);
}

uint8_t *luna_space_host(const luna_space *space, uint64_t gpa, uint64_t size, uint32_t rights) {
  const luna_mapping *mapping = luna_space_at(space, gpa);
  if (!mapping || mapping->range.last - gpa < size - 1 ||
      (luna_mapping_enforced(mapping) & rights) != rights) {
    return NULL;
  }
  return mapping->host + (gpa - mapping->range.first);
}

/* How many bytes of an access one region holds and allows; 0 for none. */
static uint64_t allowed(const luna_mapping *mapping, uint64_t gpa, uint64_t size, uint32_t access) {
  if (!mapping || !(luna_mapping_enforced(mapping) & access)) {
    return 0;
  }
  uint64_t left = mapping->range.last - gpa + 1;
  return left < size ? left : size;
}

/* On behalf of the guest, or else of the host side. */
static bool move_part(const luna_mapping *mapping, uint64_t gpa, void *bytes, uint64_t size,
                      bool write, bool guest) {
  uint64_t inside = gpa - mapping->range.first;
  uint8_t *host = mapping->host + inside;
  if (!(guest ? luna_buffer_move_for_guest(mapping->buffer, host, bytes, size, write)
              : luna_buffer_move(mapping->buffer, host, bytes, size, write))) {
    return false;
  }
  if (write) {
    luna_buffer_mark(mapping->buffer, mapping->offset + inside, size);
    if (guest) {
      luna_dirty_note(mapping, inside, size);
    }
  }
  return true;
}

static luna_touch move_all(const luna_space *space, uint64_t gpa, uint64_t size, bool write,
                           bool guest, void *bytes) {
  for (uint64_t done = 0; done < size;) {
    const luna_mapping *mapping = luna_space_at(space, gpa + done);
    uint64_t left = mapping->range.last - (gpa + done) + 1;
    uint64_t part = left < size - done ? left : size - done;
    if (!move_part(mapping, gpa + done, (uint8_t *)bytes + done, part, write, guest)) {
      return LUNA_TOUCH_GONE;
    }
    done += part;
  }
  return LUNA_TOUCH_DONE;
}

luna_touch luna_space_access(const luna_space *space, uint64_t gpa, uint64_t size, uint32_t access,
                             void *bytes) {
  uint64_t part;
  for (uint64_t done = 0; done < size; done += part) {
    part = allowed(luna_space_at(space, gpa + done), gpa + done, size - done, access);
    if (part == 0) {
      return LUNA_TOUCH_DENIED;
    }
  }
  return move_all(space, gpa, size, access == LUNA_WRITE, true, bytes);
}

luna_touch luna_space_copy(const luna_space *space, uint64_t gpa, uint64_t size, bool write,
                           void *bytes) {
  for (uint64_t done = 0; done < size;) {
    const luna_mapping *mapping = luna_space_at(space, gpa + done);
    if (!mapping) {
      return LUNA_TOUCH_DENIED;
    }
    if (write && !mapping->buffer->memory.writable) {
      return LUNA_TOUCH_GONE;
    }
    uint64_t left = mapping->range.last - (gpa + done) + 1;
    done += left < size - done ? left : size - done;
  }
  return bytes ? move_all(space, gpa, size, write, false, bytes) : LUNA_TOUCH_DONE;
}
