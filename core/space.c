/* SPDX-License-Identifier: MIT
 * Making and freeing a space; looking at its memory the way the guest would. */
#include "space.h"

#include "buffer.h"
#include "error.h"
#include "kvm.h"
#include "slots.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Where VMX without "unrestricted guest" keeps what it needs to run real mode (api.rst,
 * KVM_SET_TSS_ADDR): three pages and one, below the firmware and above the IOAPIC and LAPIC. Other
 * hosts do not use them. */
static const uint64_t identity_map = 0xfeffc000;
static const uint64_t tss_address = 0xfeffd000;

static int open_vm(void) {
  int kvm_fd = luna_kvm_open();
  if (kvm_fd < 0) {
    return kvm_fd;
  }
  int vm_fd = luna_kvm_create_vm(kvm_fd);
  int number = errno;
  luna_kvm_close(kvm_fd);
  if (vm_fd < 0) {
    return luna_kvm_fail_create(number);
  }
  luna_kvm_set_identity_map_address(vm_fd, identity_map);
  luna_kvm_set_tss_address(vm_fd, tss_address);
  return vm_fd;
}

int luna_space_create(uint32_t id, luna_space **space) {
  const luna_host *host = luna_host_get();
  if (!host) {
    return luna_kvm_open(); /* refused a moment ago: again, for its status and message */
  }
  luna_space *made = calloc(1, sizeof *made);
  if (!made) {
    return luna_fail_errno(ENOMEM, "cannot make space %u", id);
  }
  made->id = id;
  made->slots_max = host->slots_max;
  made->address_bits = host->address_bits;
  made->vm_fd = open_vm();
  if (made->vm_fd < 0) {
    int status = made->vm_fd;
    free(made);
    return status;
  }
  *space = made;
  return LUNA_OK;
}

void luna_space_free(luna_space *space) {
  luna_kvm_close(space->vm_fd);
  luna_range *range = luna_range_from(&space->regions, 0);
  while (range) {
    luna_mapping *mapping = (luna_mapping *)range;
    range = range->last == UINT64_MAX ? NULL : luna_range_from(&space->regions, range->last + 1);
    luna_buffer_release(mapping->buffer);
    free(mapping);
  }
  luna_range_free(&space->regions);
  luna_slots_free(space);
  free(space);
}

uint32_t luna_mapping_enforced(const luna_mapping *mapping) {
  if (!luna_slot_needed(mapping->rights)) {
    return 0;
  }
  bool read_only = luna_slot_flags(mapping->rights) & KVM_MEM_READONLY;
  return read_only ? LUNA_READ | LUNA_EXECUTE : LUNA_READ | LUNA_WRITE | LUNA_EXECUTE;
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
  return mapping->buffer->data + mapping->offset + (gpa - mapping->range.first);
}

/* Moves the part of an access that one region holds; how many bytes, or 0 if it does not allow
 * it. */
static uint32_t access_part(const luna_space *space, uint64_t gpa, uint32_t size, uint32_t access,
                            uint8_t *bytes, bool dry) {
  const luna_mapping *mapping = luna_space_at(space, gpa);
  if (!mapping || !(luna_mapping_enforced(mapping) & access)) {
    return 0;
  }
  uint64_t left = mapping->range.last - gpa + 1;
  uint32_t part = left < size ? (uint32_t)left : size;
  uint8_t *host = mapping->buffer->data + mapping->offset + (gpa - mapping->range.first);
  if (!dry) {
    memcpy(access == LUNA_WRITE ? host : bytes, access == LUNA_WRITE ? bytes : host, part);
  }
  return part;
}

static bool access_all(const luna_space *space, uint64_t gpa, uint32_t size, uint32_t access,
                       uint8_t *bytes, bool dry) {
  for (uint32_t done = 0; done < size;) {
    uint32_t part = access_part(space, gpa + done, size - done, access, bytes + done, dry);
    if (part == 0) {
      return false;
    }
    done += part;
  }
  return true;
}

bool luna_space_access(const luna_space *space, uint64_t gpa, uint32_t size, uint32_t access,
                       uint64_t *value) {
  uint8_t bytes[8] = {0};
  memcpy(bytes, value, sizeof bytes);
  if (!access_all(space, gpa, size, access, bytes, true)) {
    return false;
  }
  if (access == LUNA_READ) {
    memset(bytes, 0, sizeof bytes);
  }
  access_all(space, gpa, size, access, bytes, false);
  memcpy(value, bytes, sizeof bytes);
  return true;
}
