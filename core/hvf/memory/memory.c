/* SPDX-License-Identifier: MIT
 * Mapping memory of the process into the guest, and memory made for that. */
#include <Hypervisor/hv.h>
#include <Hypervisor/hv_linux.h>
#include <Hypervisor/hv_vm_allocate.h>

#include "hvf/base/error.h"
#include "hvf/base/process.h"
#include "hvf/base/room.h"
#include "hvf/memory/limit.h"

#include <inttypes.h>
#include <stdlib.h>

static const hv_memory_flags_t plain_flags =
    HV_MEMORY_READ | HV_MEMORY_WRITE | HV_MEMORY_EXEC | HV_MEMORY_UEXEC;
static const hv_memory_flags_t limit_flags = HV_MEMORY_MAXPROT_READ | HV_MEMORY_MAXPROT_WRITE |
                                             HV_MEMORY_MAXPROT_EXEC | HV_MEMORY_MAXPROT_UEXEC;

enum {
  LIMIT_SHIFT = 5,   /* from the MAXPROT_* bits to the plain ones */
  MOST_CHANGES = 256 /* of one hv_vm_unmap, at a time */
};

/* EXEC and UEXEC are one right here, which luna_access has where EXEC is. */
static uint32_t rights_of(hv_memory_flags_t flags) {
  return (uint32_t)(flags & (HV_MEMORY_READ | HV_MEMORY_WRITE | HV_MEMORY_EXEC));
}

static bool limited(hv_memory_flags_t flags) {
  return flags & HV_MEMORY_MAXPROT;
}

static uint32_t limit_of(hv_memory_flags_t flags) {
  return rights_of((flags & limit_flags) >> LIMIT_SHIFT);
}

static hv_return_t check_flags(hv_memory_flags_t flags) {
  if (flags & ~(plain_flags | limit_flags | HV_MEMORY_MAXPROT) ||
      (flags & limit_flags && !limited(flags))) {
    return hvf_fail(HV_BAD_ARGUMENT,
                    "memory flags 0x%" PRIx64 ": unknown ones, or MAXPROT_* without MAXPROT",
                    flags);
  }
  if (flags & HV_MEMORY_UEXEC && !(flags & HV_MEMORY_EXEC)) {
    return hvf_fail(HV_UNSUPPORTED, "KVM does not tell user execution from EXEC: ask for both");
  }
  if (limited(flags) && rights_of(flags) & ~limit_of(flags)) {
    return hvf_fail(HV_DENIED, "memory flags 0x%" PRIx64 " ask for more than their MAXPROT allows",
                    flags);
  }
  return HV_SUCCESS;
}

static uint32_t luna_rights(hv_memory_flags_t flags) {
  uint32_t strict = hvf_the_vm.options & HV_VM_STRICT_EXEC ? LUNA_MAP_STRICT : 0;
  return rights_of(flags) | strict;
}

static hv_return_t map(hv_vm_space_t asid, luna_buffer *buffer, uint64_t offset, hv_gpaddr_t gpa,
                       size_t size, hv_memory_flags_t flags) {
  hv_return_t result = check_flags(flags);
  result = result == HV_SUCCESS && limited(flags) ? hvf_limit_reserve() : result;
  if (result != HV_SUCCESS) {
    return result;
  }
  result = hvf_status(
      luna_vm_map_space(hvf_the_vm.vm, asid, buffer, offset, gpa, size, luna_rights(flags)));
  if (result == HV_SUCCESS && limited(flags)) {
    hvf_limit_add(asid, gpa, size, limit_of(flags));
  }
  return result;
}

hv_return_t hv_ext_vm_map_buffer(hv_vm_space_t asid, luna_buffer *buffer, uint64_t offset,
                                 hv_gpaddr_t gpa, size_t size, hv_memory_flags_t flags) {
  hv_return_t result = hvf_enter();
  if (result != HV_SUCCESS) {
    return result;
  }
  result = buffer ? map(asid, buffer, offset, gpa, size, flags)
                  : hvf_fail(HV_BAD_ARGUMENT, "there is no buffer to map");
  hvf_leave();
  return result;
}

/* Programs give sizes of objects. One without whole pages around it stays, and is refused. */
static size_t in_pages(size_t size) {
  const size_t rest = LUNA_PAGE_SIZE - 1;
  return size > SIZE_MAX - rest ? size : (size + rest) & ~rest;
}

/* Mac OS takes an address for the page that it is in, and programs give it any. */
static hv_return_t map_address(hv_vm_space_t asid, hv_uvaddr_t uva, hv_gpaddr_t gpa, size_t size,
                               hv_memory_flags_t flags) {
  const uintptr_t start = (uintptr_t)uva & ~(uintptr_t)(LUNA_PAGE_SIZE - 1);
  const luna_buffer_options options = {.kind = LUNA_BUFFER_POINTER,
                                       .flags = LUNA_BUFFER_STABLE,
                                       .size = size,
                                       .pointer = (void *)start};
  luna_buffer *buffer;
  if (start > UINTPTR_MAX - size) {
    return hvf_fail(HV_BAD_ARGUMENT, "0x%zx bytes at %p go beyond the last address", size, uva);
  }
  hv_return_t result = hvf_status(luna_buffer_open(&options, &buffer));
  if (result != HV_SUCCESS) {
    return result;
  }
  result = map(asid, buffer, 0, gpa, size, flags);
  luna_buffer_release(buffer); /* the region holds it */
  return result;
}

hv_return_t hv_vm_map_space(hv_vm_space_t asid, hv_uvaddr_t uva, hv_gpaddr_t gpa, size_t size,
                            hv_memory_flags_t flags) {
  hv_return_t result = hvf_enter();
  if (result != HV_SUCCESS) {
    return result;
  }
  result = map_address(asid, uva, gpa, in_pages(size), flags);
  hvf_leave();
  return result;
}

hv_return_t hv_vm_map(hv_uvaddr_t uva, hv_gpaddr_t gpa, size_t size, hv_memory_flags_t flags) {
  return hv_vm_map_space(HV_VM_SPACE_DEFAULT, uva, gpa, size, flags);
}

/* Collects what is mapped of [gpa, end), at most MOST_CHANGES pieces; `*behind` is where to go on.
 */
static int collect(hv_vm_space_t asid, uint64_t gpa, uint64_t end, luna_change *changes,
                   size_t *count, uint64_t *behind) {
  luna_region region;
  *count = 0;
  int status = LUNA_OK;
  while (gpa < end && *count < MOST_CHANGES) {
    status = luna_space_next(hvf_the_vm.vm, asid, gpa, &region);
    if (status != LUNA_OK || region.gpa >= end) {
      gpa = end;
      break;
    }
    uint64_t first = region.gpa > gpa ? region.gpa : gpa;
    uint64_t last = region.gpa + region.size < end ? region.gpa + region.size : end;
    changes[(*count)++] =
        (luna_change){.kind = LUNA_CHANGE_UNMAP, .gpa = first, .size = last - first};
    gpa = last;
  }
  *behind = gpa;
  return status == LUNA_ERROR_NOT_FOUND ? LUNA_OK : status;
}

/* Unmaps what there is, piece by piece, where the range is not mapped as a whole. */
static int unmap_pieces(hv_vm_space_t asid, uint64_t gpa, uint64_t end) {
  luna_change changes[MOST_CHANGES];
  int status = LUNA_OK;
  while (gpa < end && status == LUNA_OK) {
    size_t count;
    status = collect(asid, gpa, end, changes, &count, &gpa);
    if (status == LUNA_OK && count > 0) {
      status = luna_vm_update_space(hvf_the_vm.vm, asid, changes, count);
    }
  }
  return status;
}

static hv_return_t unmap(hv_vm_space_t asid, hv_gpaddr_t gpa, size_t size) {
  hv_return_t result = hvf_limit_reserve();
  if (result != HV_SUCCESS) {
    return result;
  }
  if (gpa % LUNA_PAGE_SIZE != 0 || size % LUNA_PAGE_SIZE != 0 || size == 0) {
    return hvf_fail(HV_BAD_ARGUMENT,
                    "cannot unmap 0x%zx bytes at gpa 0x%" PRIx64 ": multiples of 4096 expected, "
                    "size not 0",
                    size, gpa);
  }
  int status = luna_vm_unmap_space(hvf_the_vm.vm, asid, gpa, size);
  if (status == LUNA_ERROR_NOT_FOUND && hvf_has_space(asid)) {
    status = unmap_pieces(asid, gpa, gpa + size);
  }
  result = hvf_status(status);
  if (result == HV_SUCCESS) {
    hvf_limit_cut(asid, gpa, size);
  }
  return result;
}

hv_return_t hv_vm_unmap_space(hv_vm_space_t asid, hv_gpaddr_t gpa, size_t size) {
  hv_return_t result = hvf_enter();
  if (result != HV_SUCCESS) {
    return result;
  }
  result = unmap(asid, gpa, in_pages(size));
  hvf_leave();
  return result;
}

hv_return_t hv_vm_unmap(hv_gpaddr_t gpa, size_t size) {
  return hv_vm_unmap_space(HV_VM_SPACE_DEFAULT, gpa, size);
}

static const char *rights_text(uint32_t rights) {
  static const char *const texts[] = {"---", "r--", "-w-", "rw-", "--x", "r-x", "-wx", "rwx"};
  return texts[rights & 7];
}

static hv_return_t protect(hv_vm_space_t asid, hv_gpaddr_t gpa, size_t size,
                           hv_memory_flags_t flags) {
  hv_return_t result = hvf_limit_reserve();
  if (result != HV_SUCCESS) {
    return result;
  }
  uint32_t most = hvf_limit_rights(asid, gpa, size);
  if (rights_of(flags) & ~most) {
    return hvf_fail(HV_DENIED,
                    "cannot give gpa 0x%" PRIx64
                    " the rights %s: it was mapped with a MAXPROT of %s",
                    gpa, rights_text(rights_of(flags)), rights_text(most));
  }
  result = hvf_status(luna_vm_protect_space(hvf_the_vm.vm, asid, gpa, size, luna_rights(flags)));
  if (result == HV_SUCCESS && limited(flags)) {
    hvf_limit_cut(asid, gpa, size);
    hvf_limit_add(asid, gpa, size, limit_of(flags) & most);
  }
  return result;
}

hv_return_t hv_vm_protect_space(hv_vm_space_t asid, hv_gpaddr_t gpa, size_t size,
                                hv_memory_flags_t flags) {
  hv_return_t result = hvf_enter();
  if (result != HV_SUCCESS) {
    return result;
  }
  result = check_flags(flags);
  result = result == HV_SUCCESS ? protect(asid, gpa, in_pages(size), flags) : result;
  hvf_leave();
  return result;
}

hv_return_t hv_vm_protect(hv_gpaddr_t gpa, size_t size, hv_memory_flags_t flags) {
  return hv_vm_protect_space(HV_VM_SPACE_DEFAULT, gpa, size, flags);
}

/* ---- hv_vm_allocate ---- */

static luna_buffer **allocated;
static uint32_t allocated_count;
static uint32_t allocated_room;

static hv_return_t allocate(void **uvap, size_t size) {
  if (!hvf_room((void **)&allocated, &allocated_room, allocated_count, sizeof *allocated)) {
    return hvf_fail(HV_NO_RESOURCES, "no memory to allocate any");
  }
  hv_return_t result = hvf_status(luna_buffer_create(size, &allocated[allocated_count]));
  if (result == HV_SUCCESS) {
    *uvap = luna_buffer_data(allocated[allocated_count++]);
  }
  return result;
}

hv_return_t hv_vm_allocate(void **uvap, size_t size, hv_allocate_flags_t flags) {
  if (!uvap || flags != HV_ALLOCATE_DEFAULT) {
    return hvf_fail(HV_BAD_ARGUMENT, "cannot allocate with flags 0x%" PRIx64 " to %p", flags,
                    (void *)uvap);
  }
  pthread_mutex_lock(&hvf_the_vm.lock);
  hv_return_t result = allocate(uvap, size);
  pthread_mutex_unlock(&hvf_the_vm.lock);
  return result;
}

static hv_return_t deallocate(const void *uva, size_t size) {
  for (uint32_t i = 0; i < allocated_count; i++) {
    if (luna_buffer_data(allocated[i]) == uva && luna_buffer_size(allocated[i]) == size) {
      luna_buffer_release(allocated[i]);
      allocated[i] = allocated[--allocated_count];
      return HV_SUCCESS;
    }
  }
  return hvf_fail(HV_BAD_ARGUMENT, "hv_vm_allocate did not give %zu bytes at %p", size, uva);
}

hv_return_t hv_vm_deallocate(void *uva, size_t size) {
  pthread_mutex_lock(&hvf_the_vm.lock);
  hv_return_t result = deallocate(uva, size);
  pthread_mutex_unlock(&hvf_the_vm.lock);
  return result;
}
