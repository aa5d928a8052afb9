/* SPDX-License-Identifier: MIT
 * Page walks of the software CPU against a little model of the manual's rules: every mode, with
 * random entries and control bits, for each kind of access. LUNA_SEED is where it begins. */
#include "fixture/test.h"
#include "soft/kernel/kernel.h"
#include "soft/mmu/mmu.h"

#include <sys/mman.h>

enum {
  RAM = 64 << 10,
  ROUNDS = 400000,
  P = 1,
  W = 2,
  U = 4,
  A = 32,
  D = 64,
  PS = 128
};
#define NX (UINT64_C(1) << 63)

/* How a mode walks. */
typedef struct scheme {
  const char *name;
  int levels;
  unsigned entry; /* bytes */
  uint64_t cr4;
  bool is_long;
} scheme;

static const scheme schemes[] = {
    {"32-bit", 2, 4, CR4_PSE, false},
    {"32-bit without PSE", 2, 4, 0, false},
    {"PAE", 2, 8, CR4_PAE, false},
    {"4 levels", 4, 8, CR4_PAE, true},
    {"5 levels", 5, 8, CR4_PAE | CR4_LA57, true},
};

static uint8_t *ram;
static soft_cpu *cpu;
static uint64_t state;

static uint64_t pick(uint64_t below) {
  return test_random(&state) % below;
}

/* What came out: the error code, or -1 where the access may be made. */
typedef struct outcome {
  int64_t error;
  uint64_t gpa;
  uint64_t entries[5]; /* afterwards */
} outcome;

typedef struct question {
  const scheme *use;
  uint64_t linear;
  uint64_t entries[5]; /* from the root */
  soft_access access;
  bool user;
} question;

static int shift_of(const scheme *use, int level) {
  return 12 + (use->entry == 8 ? 9 : 10) * (use->levels - 1 - level);
}

static bool is_leaf(const question *asked, int level) {
  const scheme *use = asked->use;
  uint64_t entry = asked->entries[level];
  int left = use->levels - 1 - level;
  bool may = left == 1 ? use->entry == 8 || use->cr4 & CR4_PSE : left == 2 && use->is_long;
  return left == 0 || (may && entry & PS);
}

static bool has_reserved(const question *asked, int level) {
  const scheme *use = asked->use;
  uint64_t entry = asked->entries[level];
  int left = use->levels - 1 - level;
  if (use->entry == 4) {
    return is_leaf(asked, level) && left && entry >> 21 & 1;
  }
  bool wrong = (entry & NX && !(cpu->efer & EFER_NXE)) || entry >> 48 & 15;
  wrong |= !use->is_long && entry >> 52 & 0x7ff;
  wrong |= left > 2 && entry & PS;
  if (is_leaf(asked, level) && left) {
    for (int bit = 13; bit < shift_of(use, level); bit++) {
      wrong |= entry >> bit & 1;
    }
  }
  return wrong;
}

static int64_t rights_error(const question *asked, uint64_t both, bool no_execute, uint64_t leaf) {
  bool writes = asked->access == SOFT_WRITE, fetches = asked->access == SOFT_FETCH;
  bool user_page = both & U, protects = cpu->cr0 & CR0_WP;
  bool wrong = fetches && no_execute;
  if (asked->user) {
    wrong |= !user_page || (writes && !(both & W));
  } else {
    wrong |= writes && !(both & W) && protects;
    wrong |= fetches && user_page && cpu->cr4 & CR4_SMEP;
    wrong |= !fetches && user_page && cpu->cr4 & CR4_SMAP && !(cpu->rflags & FLAG_AC);
  }
  uint32_t key = cpu->pkru >> 2 * (leaf >> 59 & 15) & 3;
  bool keeps = cpu->cr4 & CR4_PKE && asked->use->is_long && user_page && !fetches &&
               (key & 1 || (key & 2 && writes && (asked->user || protects)));
  return wrong || keeps ? 1 | (keeps ? 32 : 0) : -1;
}

static outcome model(const question *asked) {
  const scheme *use = asked->use;
  outcome out = {.error = -1};
  memcpy(out.entries, asked->entries, sizeof out.entries);
  bool tells_fetch = (cpu->efer & EFER_NXE && use->entry == 8) || cpu->cr4 & CR4_SMEP;
  int64_t base = (asked->access == SOFT_WRITE ? 2 : 0) | (asked->user ? 4 : 0) |
                 (asked->access == SOFT_FETCH && tells_fetch ? 16 : 0);
  uint64_t both = W | U;
  bool no_execute = false;
  int level = 0;
  for (;; level++) {
    uint64_t entry = asked->entries[level];
    if (!(entry & P)) {
      out.error = base;
      return out;
    }
    if (has_reserved(asked, level)) {
      out.error = base | 9;
      return out;
    }
    both &= entry;
    no_execute |= use->entry == 8 && entry & NX;
    if (is_leaf(asked, level)) {
      break;
    }
  }
  int64_t error = rights_error(asked, both, no_execute, asked->entries[level]);
  if (error >= 0) {
    out.error = base | error;
    return out;
  }
  for (int i = 0; i <= level; i++) {
    out.entries[i] |= A;
  }
  out.entries[level] |= asked->access == SOFT_WRITE ? D : 0;
  uint64_t inside = (UINT64_C(1) << shift_of(use, level)) - 1;
  uint64_t leaf = asked->entries[level];
  out.gpa = (leaf & UINT64_C(0xfffffffff000) & ~inside) | (asked->linear & inside);
  if (use->entry == 4) {
    out.gpa = (leaf & 0xfffff000 & ~inside) | (asked->linear & inside);
    out.gpa |= level == 0 ? (leaf >> 13 & 0xff) << 32 : 0;
  }
  return out;
}

/* ---- The question, in the guest's memory ---- */

static uint8_t *place_of(const question *asked, int level) {
  int shift = shift_of(asked->use, level);
  uint64_t index = asked->linear >> shift & (asked->use->entry == 8 ? 511 : 1023);
  return ram + (level + 1) * 4096 + index * asked->use->entry;
}

static uint64_t random_entry(const scheme *use, int level) {
  uint64_t entry = P | W | U | (uint64_t)(level + 2) << 12;
  entry ^= pick(6) == 0 ? (uint64_t)1 << pick(3) : 0;
  entry |= pick(2) ? A : 0;
  entry |= pick(2) ? D : 0;
  entry |= pick(4) == 0 ? PS : 0;
  if (use->entry == 8) {
    entry |= pick(8) == 0 ? NX : 0;
    entry |= pick(40) == 0 ? (uint64_t)1 << (48 + pick(4)) : 0;
    entry |= use->is_long ? pick(16) << 59 : pick(40) == 0 ? (uint64_t)1 << 55 : 0;
  } else {
    entry &= 0xffffffff;
  }
  return entry;
}

static question make_question(void) {
  static const soft_access kinds[] = {SOFT_READ, SOFT_WRITE, SOFT_FETCH};
  question asked = {.use = &schemes[pick(sizeof schemes / sizeof *schemes)]};
  const scheme *use = asked.use;
  asked.linear = test_random(&state) & (use->is_long ? UINT64_C(0x7fffffffffff) : 0xffffffff);
  asked.access = kinds[pick(3)];
  asked.user = pick(2);
  uint64_t random = test_random(&state);
  cpu->cr0 = CR0_PE | CR0_PG | (random & 1 ? CR0_WP : 0);
  cpu->cr4 = use->cr4 | (random & 2 ? CR4_SMEP : 0) | (random & 4 ? CR4_SMAP : 0) |
             (random & 8 ? CR4_PKE : 0);
  cpu->efer = (use->is_long ? EFER_LME | EFER_LMA : 0) | (random & 16 ? EFER_NXE : 0);
  cpu->rflags = random & 32 ? FLAG_AC : 0;
  cpu->pkru = random & 64 ? (uint32_t)test_random(&state) : 0;
  cpu->cr3 = 4096;
  for (int i = 0; i < 4; i++) {
    cpu->pdpte[i] = 4096 | P;
  }
  for (int level = 0; level < use->levels; level++) {
    asked.entries[level] = random_entry(use, level);
    bool large = level < use->levels - 1 && is_leaf(&asked, level);
    asked.entries[level] |= large && use->entry == 4 && pick(8) == 0 ? 1 << 21 : 0;
    if (large && pick(8)) { /* aligned, as a rule */
      asked.entries[level] = (asked.entries[level] & ~UINT64_C(0xff000)) | (uint64_t)pick(3) << 30;
    }
    memcpy(place_of(&asked, level), &asked.entries[level], use->entry);
  }
  return asked;
}

static void compare(const question *asked, uint64_t round) {
  outcome want = model(asked);
  soft_walk walk;
  bool found =
      soft_translate(cpu, asked->linear, (soft_rights){asked->access, asked->user, false}, &walk);
  test_note("%s, round %" PRIu64 ", linear 0x%" PRIx64 ", access %d, user %d", asked->use->name,
            round, asked->linear, asked->access, asked->user);
  CHECK_EQ(found, want.error < 0);
  if (found) {
    CHECK_EQ(walk.gpa, want.gpa);
  } else {
    CHECK_EQ(walk.error, want.error);
  }
  for (int level = 0; level < asked->use->levels; level++) {
    uint64_t entry = 0;
    memcpy(&entry, place_of(asked, level), asked->use->entry);
    CHECK_EQ(entry, want.entries[level]);
    memset(place_of(asked, level), 0, asked->use->entry);
  }
}

static void every_walk_ends_as_the_manual_says(void) {
  uint64_t seed = test_seed(), faults[64] = {0};
  unsigned kinds = 0;
  state = seed;
  for (uint64_t round = 0; round < ROUNDS; round++) {
    question asked = make_question();
    int64_t error = model(&asked).error;
    kinds += error >= 0 && faults[error]++ == 0;
    compare(&asked, round);
  }
  /* Six kinds of access, each not present, reserved or denied; keys deny four of them. */
  CHECK_EQ(kinds, 22);
}

/* A PDPTE with a reserved bit does not let CR3 be loaded, and changes nothing. */
static void reserved_bits_of_pdptes_are_refused(void) {
  cpu->cr3 = 4096;
  cpu->efer = 0;
  for (unsigned bit = 0; bit < 64; bit++) {
    uint64_t pdpte = P | UINT64_C(1) << bit;
    bool reserved = (bit >= 1 && bit <= 2) || (bit >= 5 && bit <= 8) || bit >= 48;
    memcpy(ram + 4096, &pdpte, sizeof pdpte);
    cpu->pdpte[0] = 77;
    CHECK_EQ(soft_load_pdptes(cpu), !reserved);
    CHECK_EQ(cpu->pdpte[0], reserved ? 77 : pdpte);
  }
  memset(ram + 4096, 0, 8);
}

int main(void) {
  static soft_vm vm;
  static struct kvm_run run;
  ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  soft_map *map = calloc(1, sizeof *map + sizeof *map->slots);
  map->count = 1;
  map->slots[0] = (soft_slot){.size = RAM, .hva = ram};
  cpu = soft_cpu_new(&vm, 0, &run);
  cpu->map = map;
  RUN(every_walk_ends_as_the_manual_says);
  RUN(reserved_bits_of_pdptes_are_refused);
  soft_cpu_free(cpu);
  free(map);
  munmap(ram, RAM);
  return test_end();
}
