/* SPDX-License-Identifier: MIT
 * Linear addresses: a walk through the guest's own page tables in every paging mode (SDM Vol. 3,
 * chapter 4), and copies to and from the memory that it leads to. */
#include "debug/walk.h"

#include "base/error.h"
#include "memory/buffer.h"
#include "memory/space.h"
#include "vcpu/cpuid.h"
#include "vcpu/guard.h"
#include "vcpu/state.h"
#include "vcpu/vcpu.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
  CR4_PSE = 0x10,
  CR4_PAE = 0x20,
  CR4_LA57 = 0x1000,
  EFER_LMA = 0x400,
  EFER_NXE = 0x800,
  ENTRY_PRESENT = 1,
  ENTRY_WRITABLE = 2,
  ENTRY_USER = 4,
  ENTRY_LARGE = 0x80,
  LONGEST_INSTRUCTION = 15
};
static const uint64_t cr0_pg = 0x80000000;
static const uint64_t entry_no_execute = UINT64_C(1) << 63;

/* Bits `low` to `high`. */
static uint64_t bits(unsigned high, unsigned low) {
  return low > high ? 0 : (UINT64_MAX >> (63 - high)) & (UINT64_MAX << low);
}

/* ---- The walk ---- */

static void choose_format(luna_walker *w, const struct kvm_sregs *sregs) {
  if (!(sregs->cr0 & cr0_pg)) {
    *w = (luna_walker){.paging = LUNA_PAGING_NONE, .linear = 32};
  } else if (sregs->efer & EFER_LMA) {
    bool five = sregs->cr4 & CR4_LA57;
    *w = (luna_walker){.paging = five ? LUNA_PAGING_5_LEVEL : LUNA_PAGING_4_LEVEL,
                       .levels = five ? 5 : 4,
                       .index = 9,
                       .width = 8,
                       .linear = five ? 57 : 48,
                       .large = true,
                       .root = sregs->cr3 & bits(51, 12)};
  } else if (sregs->cr4 & CR4_PAE) {
    *w = (luna_walker){.paging = LUNA_PAGING_PAE,
                       .levels = 3,
                       .index = 9,
                       .width = 8,
                       .linear = 32,
                       .large = true,
                       .root = sregs->cr3 & bits(31, 5)};
  } else {
    *w = (luna_walker){.paging = LUNA_PAGING_32,
                       .levels = 2,
                       .index = 10,
                       .width = 4,
                       .linear = 32,
                       .large = sregs->cr4 & CR4_PSE,
                       .root = sregs->cr3 & bits(31, 12)};
  }
  w->no_execute = sregs->efer & EFER_NXE;
}

/* EDX of a leaf of the vCPU's CPUID. */
static uint32_t features(const luna_vcpu *vcpu, uint32_t leaf) {
  const struct kvm_cpuid_entry2 *entry = luna_cpuid_find(vcpu->cpuid, leaf, 0);
  return entry ? entry->edx : 0;
}

int luna_walk_begin(luna_vcpu *vcpu, luna_walker *w) {
  const struct kvm_sregs *sregs = luna_state_sregs(vcpu);
  if (!sregs) {
    return luna_error_status();
  }
  unsigned width = luna_cpuid_address_bits(vcpu);
  choose_format(w, sregs);
  w->space = vcpu->target ? vcpu->target : vcpu->space;
  w->physical = width < 52 ? width : 52;
  w->huge = features(vcpu, 0x80000001) & 1u << 26;
  w->pse36 = features(vcpu, 1) & 1u << 17;
  return LUNA_OK;
}

/* In long mode the bits above the highest that is translated equal it (SDM Vol. 1, 3.3.7.1);
 * elsewhere there are none above bit 31. */
static bool is_linear(const luna_walker *w, uint64_t gva) {
  if (w->linear == 32) {
    return gva >> 32 == 0;
  }
  uint64_t above = gva >> (w->linear - 1);
  return above == 0 || above == UINT64_MAX >> (w->linear - 1);
}

static bool leads_to_page(const luna_walker *w, uint32_t level, uint64_t entry) {
  bool may = level == 2 ? w->large : level == 3 && w->huge; /* else the bit is reserved */
  return level == 1 || (may && entry & ENTRY_LARGE);
}

/* SDM Vol. 3, 4.3: a 4-MByte page has address bits 39:32 in bits 20:13, as far as the processor has
 * them, and none without PSE-36. */
static uint64_t reserved_in_32(const luna_walker *w, bool large) {
  unsigned highest = !w->pse36 ? 32 : w->physical < 40 ? w->physical : 40;
  return large ? bits(21, highest - 19) : 0;
}

/* The bits that must be 0 in a present entry (SDM Vol. 3, 4.4.2 and 4.5.4). */
static uint64_t reserved_bits(const luna_walker *w, uint32_t level, uint64_t entry) {
  bool page = leads_to_page(w, level, entry);
  if (w->paging == LUNA_PAGING_32) {
    return reserved_in_32(w, page && level == 2);
  }
  bool pae = w->paging == LUNA_PAGING_PAE;
  uint64_t reserved = bits(pae ? 62 : 51, w->physical);
  if (!w->no_execute) {
    reserved |= entry_no_execute;
  }
  if (pae && level == 3) {
    return reserved | entry_no_execute | bits(2, 1) | bits(8, 5);
  }
  if (level > 3 || (level == 3 && !w->huge)) {
    reserved |= ENTRY_LARGE;
  }
  return page && level > 1 ? reserved | bits(12 + 9 * (level - 1) - 1, 13) : reserved;
}

static void add_rights(const luna_walker *w, uint32_t level, uint64_t entry, luna_walk *walk) {
  if (w->paging == LUNA_PAGING_PAE && level == 3) {
    return; /* a pointer-table entry has no rights */
  }
  if (!(entry & ENTRY_WRITABLE)) {
    walk->rights &= ~(uint32_t)LUNA_WRITE;
  }
  if (entry & entry_no_execute) {
    walk->rights &= ~(uint32_t)LUNA_EXECUTE;
  }
  walk->user &= (entry & ENTRY_USER) != 0;
}

static void reach(const luna_walker *w, unsigned shift, uint64_t entry, uint64_t gva,
                  luna_walk *walk) {
  uint64_t base = entry & bits(51, shift);
  if (w->paging == LUNA_PAGING_32 && shift == 22) {
    base |= (entry & bits(20, 13)) << 19;
  }
  walk->page_size = UINT64_C(1) << shift;
  walk->gpa = base | (gva & (walk->page_size - 1));
  walk->present = 1;
}

static int read_entry(const luna_walker *w, uint32_t level, uint64_t gva, uint64_t gpa,
                      uint64_t *entry) {
  *entry = 0;
  luna_touch touch = luna_space_copy(w->space, gpa, w->width, false, entry);
  if (touch == LUNA_TOUCH_DONE) {
    return LUNA_OK;
  }
  return luna_fail(touch == LUNA_TOUCH_GONE ? LUNA_ERROR_SYSTEM : LUNA_ERROR_NOT_FOUND,
                   "cannot translate linear address 0x%" PRIx64
                   ": its level %u table entry, at gpa 0x%" PRIx64 " of space %u, %s",
                   gva, level, gpa, w->space->id,
                   touch == LUNA_TOUCH_GONE ? "lies in host memory that is gone"
                                            : "lies where nothing is mapped");
}

/* The VM's lock is held. */
static int walk_tables(const luna_walker *w, uint64_t gva, luna_walk *walk) {
  *walk =
      (luna_walk){.paging = w->paging, .rights = LUNA_READ | LUNA_WRITE | LUNA_EXECUTE, .user = 1};
  int status = LUNA_OK;
  if (!is_linear(w, gva)) {
    walk->rights = walk->user = 0;
    return status;
  }
  if (w->paging == LUNA_PAGING_NONE) {
    reach(w, 32, 0, gva, walk);
  }
  uint64_t table = w->root;
  for (uint32_t level = w->levels; status == LUNA_OK && level > 0; level--) {
    unsigned shift = 12 + w->index * (level - 1);
    uint64_t gpa = table + (gva >> shift & bits(w->index - 1, 0)) * w->width;
    uint64_t entry;
    status = read_entry(w, level, gva, gpa, &entry);
    if (status != LUNA_OK) {
      break;
    }
    walk->entry_gpas[walk->entry_count] = gpa;
    walk->entries[walk->entry_count++] = entry;
    walk->reserved = entry & ENTRY_PRESENT && entry & reserved_bits(w, level, entry);
    if (!(entry & ENTRY_PRESENT) || walk->reserved) {
      walk->missing = level;
      walk->rights = walk->user = 0;
      break;
    }
    add_rights(w, level, entry, walk);
    if (leads_to_page(w, level, entry)) {
      reach(w, shift, entry, gva, walk);
      break;
    }
    table = entry & bits(51, 12);
  }
  return status;
}

int luna_vcpu_translate(luna_vcpu *vcpu, uint64_t gva, luna_walk *walk) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  luna_walker w;
  int status = luna_walk_begin(vcpu, &w);
  if (status != LUNA_OK) {
    return status;
  }
  pthread_rwlock_rdlock(&vcpu->vm->lock);
  luna_walk found;
  status = walk_tables(&w, gva, &found);
  pthread_rwlock_unlock(&vcpu->vm->lock);
  if (status == LUNA_OK) {
    *walk = found;
  }
  return status;
}

/* ---- Copies ---- */

/* Where a linear address leads, and how many of `size` bytes from there on are in its page and in
 * one region. */
typedef struct part {
  uint64_t gpa;
  uint64_t size;
} part;

static int fail_absent(const luna_walker *w, uint64_t gva, const luna_walk *walk) {
  if (walk->entry_count == 0 && w->linear == 32) {
    return luna_fail(LUNA_ERROR_NOT_FOUND,
                     "linear address 0x%" PRIx64 " is above 4 GiB, which is the end outside of "
                     "long mode",
                     gva);
  }
  if (walk->entry_count == 0) {
    return luna_fail(LUNA_ERROR_NOT_FOUND,
                     "linear address 0x%" PRIx64 " is not canonical: bits 63 to %u are not equal",
                     gva, w->linear - 1);
  }
  return luna_fail(LUNA_ERROR_NOT_FOUND,
                   "linear address 0x%" PRIx64 " leads nowhere: the level %u entry 0x%" PRIx64
                   " of the guest's page tables, at gpa 0x%" PRIx64 ", %s",
                   gva, walk->missing, walk->entries[walk->entry_count - 1],
                   walk->entry_gpas[walk->entry_count - 1],
                   walk->reserved ? "has a reserved bit set" : "is not present");
}

int luna_walk_find(const luna_walker *w, uint64_t gva, uint64_t *gpa) {
  luna_walk walk;
  int status = walk_tables(w, gva, &walk);
  if (status == LUNA_OK && !walk.present) {
    status = fail_absent(w, gva, &walk);
  }
  *gpa = status == LUNA_OK ? walk.gpa : 0;
  return status;
}

static int find_part(const luna_walker *w, uint64_t gva, uint64_t size, bool write, part *found) {
  luna_walk walk;
  int status = walk_tables(w, gva, &walk);
  if (status != LUNA_OK) {
    return status;
  }
  if (!walk.present) {
    return fail_absent(w, gva, &walk);
  }
  const luna_mapping *mapping = luna_space_at(w->space, walk.gpa);
  if (!mapping) {
    return luna_fail(LUNA_ERROR_NOT_FOUND,
                     "linear address 0x%" PRIx64 " leads to gpa 0x%" PRIx64
                     ", where space %u has nothing mapped",
                     gva, walk.gpa, w->space->id);
  }
  if (write && !mapping->buffer->memory.writable) {
    return luna_fail(LUNA_ERROR_SYSTEM,
                     "linear address 0x%" PRIx64 " leads to gpa 0x%" PRIx64
                     ", whose host memory is read-only",
                     gva, walk.gpa);
  }
  uint64_t in_page = walk.page_size - (walk.gpa & (walk.page_size - 1));
  uint64_t in_region = mapping->range.last - walk.gpa + 1;
  found->gpa = walk.gpa;
  found->size = in_page < in_region ? in_page : in_region;
  found->size = found->size < size ? found->size : size;
  return LUNA_OK;
}

/* The whole of a range. It is found before anything is copied: what is written may be the tables
 * that lead there, and the guest may change them meanwhile. */
typedef struct parts {
  part *list; /* `few`, or from malloc */
  size_t count;
  size_t room;
  part few[16];
} parts;

static part *add_part(parts *all) {
  if (all->count == all->room) {
    size_t room = all->room * 2;
    part *list = realloc(all->list == all->few ? NULL : all->list, room * sizeof *list);
    if (!list) {
      return NULL;
    }
    if (all->list == all->few) {
      memcpy(list, all->few, sizeof all->few);
    }
    all->list = list;
    all->room = room;
  }
  return &all->list[all->count++];
}

static int find_parts(const luna_walker *w, uint64_t gva, uint64_t size, bool write, parts *all) {
  part found;
  for (uint64_t done = 0; done < size; done += found.size) {
    int status = find_part(w, gva + done, size - done, write, &found);
    if (status != LUNA_OK) {
      return status;
    }
    part *last = all->count ? &all->list[all->count - 1] : NULL;
    if (last && last->gpa + last->size == found.gpa) {
      last->size += found.size;
      continue;
    }
    part *next = add_part(all);
    if (!next) {
      return luna_fail_errno(ENOMEM, "cannot copy 0x%" PRIx64 " bytes at linear address 0x%" PRIx64,
                             size, gva);
    }
    *next = found;
  }
  return LUNA_OK;
}

static int copy_parts(const luna_walker *w, const parts *all, uint8_t *bytes, bool write) {
  for (size_t i = 0; i < all->count; i++) {
    const part *p = &all->list[i];
    if (luna_space_copy(w->space, p->gpa, p->size, write, bytes) != LUNA_TOUCH_DONE) {
      return luna_fail(LUNA_ERROR_SYSTEM,
                       "cannot access 0x%" PRIx64 " bytes at gpa 0x%" PRIx64
                       ": the host memory behind it is gone (a file cut short?)",
                       p->size, p->gpa);
    }
    bytes += p->size;
  }
  return LUNA_OK;
}

/* The VM's lock is held. */
static int copy_locked(const luna_walker *w, uint64_t gva, void *bytes, uint64_t size, bool write) {
  parts all = {.room = sizeof all.few / sizeof *all.few};
  all.list = all.few;
  int status = find_parts(w, gva, size, write, &all);
  if (status == LUNA_OK) {
    status = copy_parts(w, &all, bytes, write);
  }
  if (all.list != all.few) {
    free(all.list);
  }
  return status;
}

int luna_vcpu_copy(luna_vcpu *vcpu, uint64_t gva, void *bytes, uint64_t size, uint32_t access) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  if (access != LUNA_READ && access != LUNA_WRITE) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "cannot copy with access %u: LUNA_READ or LUNA_WRITE",
                     access);
  }
  if (size > 0 && gva + (size - 1) < gva) {
    return luna_fail(LUNA_ERROR_RANGE,
                     "0x%" PRIx64 " bytes at linear address 0x%" PRIx64
                     " go beyond the last address",
                     size, gva);
  }
  luna_walker w;
  int status = luna_walk_begin(vcpu, &w);
  if (status != LUNA_OK) {
    return status;
  }
  pthread_rwlock_rdlock(&vcpu->vm->lock);
  status = copy_locked(&w, gva, bytes, size, access == LUNA_WRITE);
  pthread_rwlock_unlock(&vcpu->vm->lock);
  return status;
}

/* ---- Code ---- */

/* In 64-bit mode CS has no base; elsewhere linear addresses wrap at 4 GiB. */
static uint64_t code_address(const struct kvm_sregs *sregs, uint64_t rip) {
  return sregs->cs.l ? rip : (uint32_t)(sregs->cs.base + rip);
}

int luna_vcpu_code(luna_vcpu *vcpu, uint64_t rip, luna_code *code) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  luna_walker w;
  int status = luna_walk_begin(vcpu, &w);
  if (status != LUNA_OK) {
    return status;
  }
  const struct kvm_sregs *sregs = &vcpu->state.sregs;
  luna_code found = {.bits = sregs->cs.l ? 64 : sregs->cs.db ? 32 : 16};
  part next;
  pthread_rwlock_rdlock(&vcpu->vm->lock);
  while (status == LUNA_OK && found.size < LONGEST_INSTRUCTION) {
    uint64_t gva = code_address(sregs, rip + found.size);
    status = find_part(&w, gva, LONGEST_INSTRUCTION - found.size, false, &next);
    if (status == LUNA_OK) {
      const parts one = {.list = &next, .count = 1};
      status = copy_parts(&w, &one, found.bytes + found.size, false);
    }
    found.size += status == LUNA_OK ? (uint32_t)next.size : 0;
  }
  pthread_rwlock_unlock(&vcpu->vm->lock);
  if (found.size == 0) {
    return status;
  }
  *code = found;
  return LUNA_OK;
}

int luna_vcpu_instruction(luna_vcpu *vcpu, luna_instruction *instruction) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  uint64_t rip;
  luna_code code;
  int status = luna_vcpu_get(vcpu, LUNA_RIP, &rip);
  if (status == LUNA_OK) {
    status = luna_vcpu_code(vcpu, rip, &code);
  }
  return status == LUNA_OK ? luna_disassemble(code.bytes, code.size, rip, code.bits, instruction)
                           : status;
}
