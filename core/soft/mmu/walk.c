/* SPDX-License-Identifier: MIT
 * Page walks in all modes: none, 32-bit with 4-MiB pages, PAE, four and five levels (SDM volume 3,
 * chapter 4). */
#include "soft/access.h"

enum {
  PAGE_PRESENT = 1 << 0,
  PAGE_WRITE = 1 << 1,
  PAGE_USER = 1 << 2,
  PAGE_ACCESSED = 1 << 5,
  PAGE_DIRTY = 1 << 6,
  PAGE_LARGE = 1 << 7,
  ERROR_PRESENT = 1 << 0,
  ERROR_WRITE = 1 << 1,
  ERROR_USER = 1 << 2,
  ERROR_RESERVED = 1 << 3,
  ERROR_FETCH = 1 << 4,
  ERROR_KEY = 1 << 5
};
#define ADDRESS_MASK (((UINT64_C(1) << SOFT_ADDRESS_BITS) - 1) & ~UINT64_C(0xfff))
#define RESERVED_HIGH (UINT64_C(0x000fffffffffffff) & ~((UINT64_C(1) << SOFT_ADDRESS_BITS) - 1))
#define NO_EXECUTE (UINT64_C(1) << 63)

/* What paging is in use. */
typedef struct scheme {
  int levels;
  int bits;       /* of the index at each level */
  unsigned entry; /* bytes */
  uint64_t root;
} scheme;

static scheme scheme_of(const soft_cpu *cpu) {
  if (soft_is_long(cpu)) {
    return (scheme){cpu->cr4 & CR4_LA57 ? 5 : 4, 9, 8, cpu->cr3 & ADDRESS_MASK};
  }
  if (cpu->cr4 & CR4_PAE) {
    return (scheme){2, 9, 8, 0};
  }
  return (scheme){2, 10, 4, cpu->cr3 & 0xfffff000};
}

/* An entry of a table. Where there is no memory it is not present, as to KVM; under controls it is
 * an exit. */
static uint64_t load_entry(soft_cpu *cpu, soft_spot place, unsigned size, bool look) {
  const uint8_t *host = soft_host(cpu, place.gpa, false);
  if (soft_unlikely(!host && cpu->controlled && !look)) {
    return soft_device_entry(cpu, place, size);
  }
  return host ? soft_peek(host, size == 8 ? 64 : 32) : 0;
}

/* In memory that cannot be written they stay as they are; under controls that is an exit, too. */
static void set_bits(soft_cpu *cpu, soft_spot place, uint64_t entry, uint32_t bits, unsigned size) {
  uint32_t *host = (uint32_t *)(void *)soft_host(cpu, place.gpa, true);
  if (host) {
    __atomic_fetch_or(host, bits, __ATOMIC_SEQ_CST);
  } else if (cpu->controlled) {
    soft_device_mark(cpu, place, entry | bits, size);
  }
}

/* Whether the entry has bits that are reserved at its level; `large` maps a page above the last. */
static bool reserved(const soft_cpu *cpu, uint64_t entry, int level, bool large, unsigned size) {
  if (size == 4) {
    return large && entry & 1 << 21;
  }
  if (entry & RESERVED_HIGH || (entry & NO_EXECUTE && !(cpu->efer & EFER_NXE))) {
    return true;
  }
  if (!soft_is_long(cpu) && entry & UINT64_C(0x7ff0000000000000)) {
    return true;
  }
  if (level > 3 && entry & PAGE_LARGE) {
    return true;
  }
  uint64_t inside = (UINT64_C(1) << (12 + 9 * (level - 1))) - 1;
  return large && entry & inside & ADDRESS_MASK & ~UINT64_C(0x1000);
}

static bool is_large(const soft_cpu *cpu, uint64_t entry, int level, unsigned size) {
  if (!(entry & PAGE_LARGE) || level == 1) {
    return false;
  }
  if (size == 4) {
    return cpu->cr4 & CR4_PSE;
  }
  return level == 2 || (level == 3 && soft_is_long(cpu));
}

bool soft_load_pdptes(soft_cpu *cpu) {
  uint64_t at = cpu->cr3 & 0xffffffe0, loaded[4];
  for (unsigned i = 0; i < 4; i++) {
    loaded[i] = load_entry(cpu, (soft_spot){.gpa = at + i * 8}, 8, true);
    if (loaded[i] & PAGE_PRESENT && loaded[i] & (RESERVED_HIGH | UINT64_C(0xfff00000000001e6))) {
      return false;
    }
  }
  for (unsigned i = 0; i < 4; i++) {
    cpu->pdpte[i] = loaded[i];
  }
  return true;
}

/* Whether what all levels let, together, lets the access. */
static bool allowed(const soft_cpu *cpu, uint64_t both, bool no_execute, soft_rights rights) {
  bool user_page = both & PAGE_USER, may_write = both & PAGE_WRITE;
  if (rights.user) {
    return user_page && (rights.access != SOFT_WRITE || may_write) &&
           (rights.access != SOFT_FETCH || !no_execute);
  }
  if (rights.access == SOFT_WRITE && !may_write && cpu->cr0 & CR0_WP) {
    return false;
  }
  if (rights.access == SOFT_FETCH) {
    return !no_execute && !(user_page && cpu->cr4 & CR4_SMEP);
  }
  return !(user_page && cpu->cr4 & CR4_SMAP && !(cpu->rflags & FLAG_AC));
}

/* Whether the protection key of a user page keeps the access out (SDM volume 3, 4.6.2). */
static bool key_denies(const soft_cpu *cpu, uint64_t entry, uint64_t both, soft_rights rights) {
  if (!(cpu->cr4 & CR4_PKE) || !soft_is_long(cpu) || !(both & PAGE_USER) ||
      rights.access == SOFT_FETCH) {
    return false;
  }
  unsigned denied = cpu->pkru >> (entry >> 59 & 15) * 2;
  bool minds = rights.user || cpu->cr0 & CR0_WP;
  return denied & 1 || (denied & 2 && rights.access == SOFT_WRITE && minds);
}

static uint32_t error_of(const soft_cpu *cpu, soft_rights rights) {
  bool fetches = rights.access == SOFT_FETCH &&
                 ((cpu->efer & EFER_NXE && cpu->cr4 & CR4_PAE) || cpu->cr4 & CR4_SMEP);
  return (rights.access == SOFT_WRITE ? ERROR_WRITE : 0) | (rights.user ? ERROR_USER : 0) |
         (fetches ? ERROR_FETCH : 0);
}

/* Accessed bits of all levels, and the last one's dirty bit for a write. */
static void mark(soft_cpu *cpu, const soft_spot *where, const uint64_t *entries, int count,
                 soft_access access, unsigned size) {
  for (int i = 0; i < count; i++) {
    uint32_t want = PAGE_ACCESSED;
    if (i == count - 1 && access == SOFT_WRITE) {
      want |= PAGE_DIRTY;
    }
    if ((entries[i] & want) != want) {
      set_bits(cpu, where[i], entries[i], want, size);
    }
  }
}

static uint64_t page_address(uint64_t entry, uint64_t linear, bool large, int shift,
                             unsigned size) {
  uint64_t inside = (UINT64_C(1) << shift) - 1;
  if (large && size == 4) { /* PSE-36: address bits 39:32 at 20:13 */
    return (entry & 0xffc00000) | (entry >> 13 & 0xff) << 32 | (linear & inside);
  }
  return (entry & (size == 4 ? 0xfffff000 : ADDRESS_MASK) & ~inside) | (linear & inside);
}

bool soft_translate(soft_cpu *cpu, uint64_t linear, soft_rights rights, soft_walk *walk) {
  *walk = (soft_walk){.gpa = linear & 0xffffffff, .writable = true, .user = true};
  if (!(cpu->cr0 & CR0_PG)) {
    return true;
  }
  walk->error = error_of(cpu, rights);
  scheme use = scheme_of(cpu);
  uint64_t table = use.root, entries[5], both = ~UINT64_C(0);
  soft_spot where[5];
  bool no_execute = false, large = false;
  if (use.levels == 2 && use.entry == 8) {
    uint64_t pdpte = cpu->pdpte[linear >> 30 & 3];
    if (!(pdpte & PAGE_PRESENT)) {
      return false;
    }
    table = pdpte & ADDRESS_MASK;
  }
  int count = 0, level = use.levels;
  for (;; level--) {
    int shift = 12 + use.bits * (level - 1);
    uint64_t index = linear >> shift & ((UINT64_C(1) << use.bits) - 1);
    where[count] = (soft_spot){linear, table + index * use.entry};
    uint64_t entry = load_entry(cpu, where[count], use.entry, rights.look);
    if (!(entry & PAGE_PRESENT)) {
      return false;
    }
    large = is_large(cpu, entry, level, use.entry);
    if (reserved(cpu, entry, level, large, use.entry)) {
      walk->error |= ERROR_PRESENT | ERROR_RESERVED;
      return false;
    }
    entries[count++] = entry;
    both &= entry;
    no_execute |= use.entry == 8 && entry & NO_EXECUTE;
    if (large || level == 1) {
      walk->gpa = page_address(entry, linear, large, shift, use.entry);
      break;
    }
    table = entry & (use.entry == 8 ? ADDRESS_MASK : 0xfffff000);
  }
  walk->error |= ERROR_PRESENT;
  walk->writable = both & PAGE_WRITE;
  walk->user = both & PAGE_USER;
  bool denied = key_denies(cpu, entries[count - 1], both, rights);
  walk->error |= denied ? ERROR_KEY : 0;
  if (denied || !allowed(cpu, both, no_execute, rights)) {
    return false;
  }
  if (!rights.look) {
    mark(cpu, where, entries, count, rights.access, use.entry);
  }
  return true;
}
