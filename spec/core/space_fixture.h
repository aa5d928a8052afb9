/* SPDX-License-Identifier: MIT
 * What the tests of maps share: a VM with a buffer, and pictures of its regions and slots. */
#ifndef LUNA_SPACE_FIXTURE_H
#define LUNA_SPACE_FIXTURE_H

#include "test.h"

#include <errno.h>

enum {
  PAGE = LUNA_PAGE_SIZE,
  RW = LUNA_READ | LUNA_WRITE,
  RX = LUNA_READ | LUNA_EXECUTE,
  RWX = LUNA_READ | LUNA_WRITE | LUNA_EXECUTE,
  STRICT = LUNA_MAP_STRICT,
  WINDOW = LUNA_MAP_WINDOW,
  MOST = 600 /* regions, slots */
};

static luna_vm *vm;
static luna_buffer *buffer; /* of 64 pages */
static luna_buffer *shared; /* a memfd of 16 pages, for windows */
static bool followed;       /* the test has asked for written pages */

static inline void begin(void) {
  CHECK_OK(luna_vm_create(&vm));
  CHECK_OK(luna_buffer_create(64 * PAGE, &buffer));
  followed = false;
}

static inline void end(void) {
  luna_buffer_release(buffer);
  luna_vm_release(vm);
}

static inline void begin_with_slots(uint32_t slots) {
  fake_config config = fake_defaults();
  config.slots_max = slots;
  fake_install(&config);
  begin();
}

static inline int map(uint64_t offset, uint64_t gpa, uint64_t pages, uint32_t rights) {
  return luna_vm_map_space(vm, 0, buffer, offset * PAGE, gpa * PAGE, pages * PAGE, rights);
}

static inline int unmap(uint64_t gpa, uint64_t pages) {
  return luna_vm_unmap_space(vm, 0, gpa * PAGE, pages * PAGE);
}

static inline int protect(uint64_t gpa, uint64_t pages, uint32_t rights) {
  return luna_vm_protect_space(vm, 0, gpa * PAGE, pages * PAGE, rights);
}

static inline void begin_shared(void) {
  const luna_buffer_options options = {.kind = LUNA_BUFFER_MEMFD, .size = 16 * PAGE};
  begin();
  CHECK_OK(luna_buffer_open(&options, &shared));
}

static inline void end_shared(void) {
  luna_buffer_release(shared);
  end();
}

/* How many mappings of memfds this process has. */
static inline unsigned memfd_maps(void) {
  FILE *file = fopen("/proc/self/maps", "r");
  CHECK(file);
  char line[4096];
  unsigned count = 0;
  while (fgets(line, sizeof line, file)) {
    count += strstr(line, "memfd:lunavisor") != NULL;
  }
  fclose(file);
  return count;
}

/* ---- What is there ---- */

typedef struct picture {
  luna_region regions[MOST];
  size_t region_count;
  struct kvm_userspace_memory_region slots[MOST];
  size_t slot_count;
} picture;

static inline void take_picture(picture *p) {
  memset(p, 0, sizeof *p);
  uint64_t gpa = 0;
  while (luna_space_next(vm, 0, gpa, &p->regions[p->region_count]) == LUNA_OK) {
    const luna_region *region = &p->regions[p->region_count++];
    CHECK(region->size > 0 && region->gpa >= gpa);
    gpa = region->gpa + region->size;
    CHECK(p->region_count < MOST);
  }
  p->slot_count = fake_slots(p->slots, MOST);
}

static inline const struct kvm_userspace_memory_region *slot_of(const picture *p, int32_t number) {
  for (size_t i = 0; i < p->slot_count; i++) {
    if (p->slots[i].slot == (uint32_t)number) {
      return &p->slots[i];
    }
  }
  return NULL;
}

/* The rights that the guest has, where no memory attribute helps. */
static inline uint32_t enforced_rights(uint32_t rights, bool strict) {
  if (strict || rights == 0) {
    return rights;
  }
  return rights & LUNA_WRITE ? RWX : RX;
}

static inline void check_slot(const luna_region *region,
                              const struct kvm_userspace_memory_region *slot) {
  CHECK(slot);
  CHECK_EQ(slot->guest_phys_addr, region->gpa);
  CHECK_EQ(slot->memory_size, region->size);
  uint32_t writable = followed ? KVM_MEM_LOG_DIRTY_PAGES : 0;
  CHECK_EQ(slot->flags, region->rights & LUNA_WRITE ? writable : KVM_MEM_READONLY);
  if (!(region->flags & LUNA_MAP_WINDOW)) {
    CHECK_EQ(slot->userspace_addr, (uintptr_t)luna_buffer_data(region->buffer) + region->offset);
  }
}

/* Each region has one slot, of the same place and memory, but for those without rights or with
 * rights that no slot has; and no slot is left over. */
static inline void check_slots(const picture *p) {
  size_t slots = 0;
  for (size_t i = 0; i < p->region_count; i++) {
    const luna_region *region = &p->regions[i];
    bool strict = region->flags & LUNA_MAP_STRICT;
    CHECK_EQ(region->enforced, enforced_rights(region->rights, strict));
    if (region->rights == 0 || (strict && region->rights != RWX && region->rights != RX)) {
      CHECK_EQ(region->slot, -1);
    } else {
      check_slot(region, slot_of(p, region->slot));
      slots++;
    }
  }
  CHECK_EQ(p->slot_count, slots);
}

static inline void check_now(size_t regions, size_t slots) {
  static picture p;
  take_picture(&p);
  check_slots(&p);
  CHECK_EQ(p.region_count, regions);
  CHECK_EQ(p.slot_count, slots);
}

static inline void check_region(uint64_t at, uint64_t gpa, uint64_t pages, uint64_t offset,
                                uint32_t rights) {
  luna_region region;
  CHECK_OK(luna_space_next(vm, 0, at * PAGE, &region));
  CHECK_EQ(region.gpa, gpa * PAGE);
  CHECK_EQ(region.size, pages * PAGE);
  CHECK_EQ(region.offset, offset * PAGE);
  CHECK_EQ(region.rights, rights);
  CHECK(region.buffer == buffer);
}

static inline bool same_picture(const picture *one, const picture *other) {
  return one->region_count == other->region_count && one->slot_count == other->slot_count &&
         memcmp(one->regions, other->regions, sizeof one->regions) == 0 &&
         memcmp(one->slots, other->slots, sizeof one->slots) == 0;
}

#endif
