/* SPDX-License-Identifier: MIT
 * Walks through random page tables in every paging mode against a second walk, which is written
 * from SDM Vol. 3, 4.3 to 4.5; copies at linear addresses against the walk, byte by byte. */
#include "fuzz.h"

enum {
  MEMORY = 0x40000, /* at gpa 0; entries that lead elsewhere lead to nothing */
  P = 1,
  W = 2,
  U = 4,
  PS = 0x80,
  LEVELS_MOST = 5,
  WALKS = 6,
  COPY_MOST = 0x2100
};

typedef struct mode {
  uint32_t paging; /* luna_paging */
  uint64_t cr4;
  uint64_t efer;
  uint32_t levels;
  uint32_t index_bits;
  uint32_t width;
  uint32_t linear_bits;
} mode;

static const mode modes[] = {{LUNA_PAGING_NONE, 0, 0, 0, 0, 0, 32},
                             {LUNA_PAGING_32, 0, 0, 2, 10, 4, 32},
                             {LUNA_PAGING_32, 0x10, 0, 2, 10, 4, 32},
                             {LUNA_PAGING_PAE, 0x20, 0, 3, 9, 8, 32},
                             {LUNA_PAGING_PAE, 0x20, 0x800, 3, 9, 8, 32},
                             {LUNA_PAGING_4_LEVEL, 0x20, 0x500, 4, 9, 8, 48},
                             {LUNA_PAGING_4_LEVEL, 0x20, 0xd00, 4, 9, 8, 48},
                             {LUNA_PAGING_5_LEVEL, 0x1020, 0xd00, 5, 9, 8, 57}};

static luna_vm *vm;
static luna_vcpu *vcpu;
static luna_buffer *buffer;
static uint8_t *memory;
static const mode *now;
static uint64_t cr3;

/* ---- The second walk ---- */

/* What it cannot know: a table outside of memory, an address that is none, a feature of the CPU. */
typedef enum outcome {
  WALKED,
  NO_TABLE,
  UNKNOWN
} outcome;

static uint64_t bits(unsigned from, unsigned to) {
  return (to < 63 ? (UINT64_C(1) << (to + 1)) - 1 : UINT64_MAX) & ~((UINT64_C(1) << from) - 1);
}

static bool is_canonical(uint64_t gva) {
  uint64_t above = gva & bits(now->linear_bits == 32 ? 32 : now->linear_bits - 1, 63);
  return above == 0 || (now->linear_bits > 32 && above == bits(now->linear_bits - 1, 63));
}

static bool is_pae_root(uint32_t level) {
  return now->paging == LUNA_PAGING_PAE && level == 3;
}

static bool is_leaf(uint32_t level, uint64_t entry) {
  if (level == 1) {
    return true;
  }
  if (now->paging == LUNA_PAGING_32) {
    return entry & PS && now->cr4 & 0x10;
  }
  return entry & PS && (level == 2 || (level == 3 && !is_pae_root(level)));
}

static uint64_t reserved_bits(uint32_t level, bool leaf) {
  if (now->paging == LUNA_PAGING_32) {
    return leaf && level == 2 ? bits(21, 21) : 0;
  }
  uint64_t reserved = now->efer & 0x800 ? 0 : bits(63, 63);
  if (is_pae_root(level)) {
    return reserved | bits(63, 63) | bits(52, 62) | bits(1, 2) | bits(5, 8);
  }
  reserved |= now->paging == LUNA_PAGING_PAE ? bits(52, 62) : 0;
  reserved |= level >= 4 ? PS : 0;
  return reserved | (leaf && level == 2 ? bits(13, 20) : 0);
}

static uint64_t page_address(uint32_t level, uint64_t entry) {
  if (now->paging == LUNA_PAGING_32 && level == 2) {
    return (entry & bits(22, 31)) | (entry & bits(13, 20)) << 19;
  }
  return entry & bits(12 + now->index_bits * (level - 1), now->width == 4 ? 31 : 51);
}

static uint64_t table_address(uint32_t level) {
  return cr3 & (is_pae_root(level) ? bits(5, 31) : bits(12, now->width == 4 ? 31 : 51));
}

static outcome end_walk(luna_walk *walk, uint32_t level, bool reserved) {
  walk->missing = level;
  walk->reserved = reserved;
  walk->rights = walk->user = 0;
  return WALKED;
}

static outcome follow(uint64_t gva, luna_walk *walk) {
  uint64_t table = table_address(now->levels);
  for (uint32_t level = now->levels; level > 0; level--) {
    uint32_t shift = 12 + now->index_bits * (level - 1);
    uint64_t index = gva >> shift & (is_pae_root(level) ? 3 : (1u << now->index_bits) - 1);
    uint64_t at = table + index * now->width;
    uint64_t entry = 0;
    if (at > MEMORY - now->width) {
      return NO_TABLE;
    }
    memcpy(&entry, memory + at, now->width);
    walk->entry_gpas[walk->entry_count] = at;
    walk->entries[walk->entry_count++] = entry;
    if (!(entry & P)) {
      return end_walk(walk, level, false);
    }
    bool leaf = is_leaf(level, entry);
    if (leaf && level == 3) {
      return UNKNOWN; /* CPUID.80000001H:EDX.Page1GB */
    }
    if (entry & reserved_bits(level, leaf)) {
      return end_walk(walk, level, true);
    }
    if (!is_pae_root(level)) {
      walk->rights &= entry & W ? 7 : ~(uint32_t)LUNA_WRITE;
      walk->rights &= now->width == 8 && entry >> 63 ? ~(uint32_t)LUNA_EXECUTE : 7;
      walk->user = walk->user && entry & U;
    }
    if (leaf) {
      walk->present = 1;
      walk->page_size = UINT64_C(1) << shift;
      walk->gpa = page_address(level, entry) | (gva & (walk->page_size - 1));
      return WALKED;
    }
    table = entry & bits(12, now->width == 4 ? 31 : 51);
  }
  abort();
}

static outcome model(uint64_t gva, luna_walk *walk) {
  *walk = (luna_walk){.paging = now->paging, .rights = 7, .user = 1};
  if (!is_canonical(gva)) {
    return UNKNOWN;
  }
  if (now->paging == LUNA_PAGING_NONE) {
    walk->present = 1;
    walk->gpa = gva;
    walk->page_size = UINT64_C(1) << 32;
    return WALKED;
  }
  return follow(gva, walk);
}

/* ---- Random tables ---- */

/* Mostly tables and pages in memory; address bits stay below those that CPUID decides about. */
static uint64_t random_entry(void) {
  uint8_t kind = fuzz_byte();
  uint64_t entry = (uint64_t)(kind % 64) << 12 | fuzz_byte();
  entry |= kind & 0x40 ? P | W | U : 0;
  if (kind & 0x80) {
    entry |= (fuzz_bytes(2) & 0x8fff) << 48 & bits(52, 63);
    entry |= fuzz_bytes(3) << 12;
  }
  return entry;
}

static void put(uint64_t at, uint64_t entry) {
  if (at <= MEMORY - sizeof entry) {
    memcpy(memory + at, &entry, now->width ? now->width : sizeof entry);
  }
}

/* Entries on the way of one address, so that walks come far. */
static void lead(uint64_t gva) {
  uint64_t table = table_address(now->levels);
  for (uint32_t level = now->levels; level > 0; level--) {
    uint32_t shift = 12 + now->index_bits * (level - 1);
    uint64_t index = gva >> shift & (is_pae_root(level) ? 3 : (1u << now->index_bits) - 1);
    uint64_t entry = random_entry();
    if (is_pae_root(level) && !fuzz_rarely(4)) {
      entry &= ~(bits(1, 2) | bits(5, 8) | bits(52, 63));
    }
    put(table + index * now->width, entry);
    table = entry & bits(12, now->width == 4 ? 31 : 51);
  }
}

static void set(int reg, uint64_t value) {
  FUZZ_CHECK(luna_vcpu_set(vcpu, reg, value) == LUNA_OK, "%s", luna_error_message());
}

static void enter_mode(void) {
  now = &modes[fuzz_pick(sizeof modes / sizeof *modes)];
  cr3 = (uint64_t)fuzz_pick(64) << 12 | (now->paging == LUNA_PAGING_PAE ? fuzz_pick(128) * 32u : 0);
  set(LUNA_CR0, now->paging == LUNA_PAGING_NONE ? 0x11 : 0x80000011);
  set(LUNA_CR4, now->cr4);
  set(LUNA_EFER, now->efer);
  set(LUNA_CR3, cr3);
  set(LUNA_CS_ACCESS, now->linear_bits > 32 ? 0xa09b : 0xc09b);
}

/* ---- Checks ---- */

static void check_walk(uint64_t gva) {
  luna_walk got = {0};
  luna_walk want;
  outcome known = model(gva, &want);
  int status = fuzz_status(luna_vcpu_translate(vcpu, gva, &got));
  if (known == NO_TABLE) {
    FUZZ_CHECK(status < 0, "a walk over tables outside of memory to 0x%" PRIx64, gva);
  }
  if (known != WALKED) {
    return;
  }
  FUZZ_CHECK(status == LUNA_OK, "gva 0x%" PRIx64 ": %s", gva, luna_error_message());
  FUZZ_CHECK(got.present == want.present && got.gpa == want.gpa && got.rights == want.rights &&
                 got.user == want.user && got.page_size == want.page_size &&
                 got.missing == want.missing && got.reserved == want.reserved &&
                 got.paging == want.paging && got.entry_count == want.entry_count,
             "gva 0x%" PRIx64 " in mode %d: present %u, gpa 0x%" PRIx64 ", rights %u, user %u, "
             "missing %u, reserved %u; not %u, 0x%" PRIx64 ", %u, %u, %u, %u",
             gva, (int)(now - modes), got.present, got.gpa, got.rights, got.user, got.missing,
             got.reserved, want.present, want.gpa, want.rights, want.user, want.missing,
             want.reserved);
  FUZZ_CHECK(memcmp(got.entries, want.entries, sizeof got.entries) == 0 &&
                 memcmp(got.entry_gpas, want.entry_gpas, sizeof got.entry_gpas) == 0,
             "gva 0x%" PRIx64 ": other entries", gva);
}

/* The bytes that a copy has to give; false where one of them is not there or not known. */
static bool expect(uint64_t gva, uint64_t size, uint8_t *bytes, bool *known) {
  luna_walk walk;
  for (uint64_t i = 0; i < size; i++) {
    outcome found = gva + i < gva ? UNKNOWN : model(gva + i, &walk);
    *known = found != UNKNOWN;
    if (found != WALKED || !walk.present || walk.gpa >= MEMORY) {
      return false;
    }
    bytes[i] = memory[walk.gpa];
  }
  return true;
}

static void check_copy(uint64_t gva) {
  uint64_t size = fuzz_pick(COPY_MOST);
  uint8_t *got = malloc(size + 1); /* of their size, so that the sanitizer knows their end */
  uint8_t *want = malloc(size + 1);
  bool known = true;
  if (!got || !want) {
    abort();
  }
  memset(got, 0x5a, size + 1);
  bool there = expect(gva, size, want, &known);
  int status = fuzz_status(luna_vcpu_copy(vcpu, gva, got, size, LUNA_READ));
  if (known && size > 0) {
    FUZZ_CHECK((status == LUNA_OK) == there, "a copy of %" PRIu64 " bytes at 0x%" PRIx64 ": %d",
               size, gva, status);
  }
  for (uint64_t i = 0; i < size; i++) {
    if (known) {
      FUZZ_CHECK(got[i] == (there ? want[i] : 0x5a), "a copy of the wrong bytes at 0x%" PRIx64,
                 gva + i);
    }
  }
  free(got);
  free(want);
}

static void look_at_code(uint64_t gva) {
  luna_code code;
  luna_instruction instruction;
  uint64_t linear, gpa;
  luna_vcpu_set(vcpu, LUNA_RIP, gva);
  if (fuzz_status(luna_vcpu_code(vcpu, gva, &code)) == LUNA_OK) {
    FUZZ_CHECK(code.size >= 1 && code.size <= 15, "code of %u bytes", code.size);
  }
  if (fuzz_status(luna_vcpu_instruction(vcpu, &instruction)) == LUNA_OK) {
    FUZZ_CHECK(instruction.size >= 1 && instruction.size <= 15 &&
                   memchr(instruction.text, 0, sizeof instruction.text),
               "an instruction of %u bytes", instruction.size);
  }
  fuzz_status(luna_vcpu_place(vcpu, &linear, &gpa));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fuzz_begin(data, size, NULL);
  if (luna_vm_create(&vm) < 0 || luna_vcpu_create(vm, NULL, &vcpu) < 0 ||
      luna_buffer_create(MEMORY, &buffer) < 0 ||
      luna_vm_map_space(vm, 0, buffer, 0, 0, MEMORY, LUNA_READ | LUNA_WRITE) < 0) {
    FUZZ_FAIL("%s", luna_error_message());
  }
  memory = luna_buffer_data(buffer);
  enter_mode();
  uint64_t gva = fuzz_number();
  lead(gva);
  for (uint32_t more = fuzz_pick(32); more > 0; more--) {
    put(fuzz_pick(MEMORY / 8) * UINT64_C(8), random_entry());
  }
  for (int i = 0; i < WALKS; i++) {
    check_walk(gva);
    check_copy(gva);
    look_at_code(gva);
    gva = fuzz_rarely(2) ? fuzz_number() : gva + ((uint64_t)(int8_t)fuzz_byte() << fuzz_pick(48));
  }
  luna_buffer_release(buffer);
  luna_vcpu_release(vcpu);
  luna_vm_release(vm);
  fuzz_end();
  return 0;
}
