/* SPDX-License-Identifier: MIT
 * Walks through the page tables of every paging mode. */
#include "fixture/walk_fixture.h"

static luna_walk walk;

static void walk_to(uint64_t gva) {
  CHECK_OK(luna_vcpu_translate(vcpu, gva, &walk));
}

static void check_page(uint64_t gva, uint64_t gpa, uint64_t size, uint32_t rights, bool user) {
  test_note("gva 0x%" PRIx64, gva);
  walk_to(gva);
  CHECK_EQ(walk.present, 1);
  CHECK_EQ(walk.gpa, gpa);
  CHECK_EQ(walk.page_size, size);
  CHECK_EQ(walk.rights, rights);
  CHECK_EQ(walk.user, user);
  CHECK_EQ(walk.missing, 0);
  CHECK_EQ(walk.reserved, 0);
}

static void check_missing(uint64_t gva, uint32_t level, bool reserved) {
  test_note("gva 0x%" PRIx64, gva);
  walk_to(gva);
  CHECK_EQ(walk.present, 0);
  CHECK_EQ(walk.missing, level);
  CHECK_EQ(walk.reserved, reserved);
  CHECK_EQ(walk.rights, 0);
  CHECK_EQ(walk.user, 0);
  CHECK_EQ(walk.gpa, 0);
}

/* What no table can lead anywhere: no error, but for who wants its memory. */
static void check_no_address(uint64_t gva, const char *why) {
  uint8_t byte;
  check_missing(gva, 0, false);
  CHECK_EQ(walk.entry_count, 0);
  CHECK_EQ(walk.page_size, 0);
  CHECK_FAILS(luna_vcpu_copy(vcpu, gva, &byte, 1, LUNA_READ), LUNA_ERROR_NOT_FOUND, why);
}

static void check_entry(uint32_t at, uint64_t gpa, uint64_t value) {
  CHECK(at < walk.entry_count);
  CHECK_EQ(walk.entry_gpas[at], gpa);
  CHECK_EQ(walk.entries[at], value);
}

/* ---- Without paging ---- */

static void no_paging(void) {
  begin_in(&none);
  check_page(0, 0, UINT64_C(1) << 32, RWX, true);
  check_page(0xfffffff0, 0xfffffff0, UINT64_C(1) << 32, RWX, true);
  CHECK_EQ(walk.paging, LUNA_PAGING_NONE);
  CHECK_EQ(walk.entry_count, 0);
  check_no_address(UINT64_C(1) << 32, "linear address 0x100000000 is above 4 GiB");
  end();
}

/* ---- 32-bit paging ---- */

static void small_pages_in_32(void) {
  begin_in(&legacy);
  put(CR3 + 4 * 0x300, 4, 0x11000 | ALL);
  put(0x11000 + 4 * 0x3ff, 4, 0xabcde000 | ALL);
  put(0x11000 + 4 * 1, 4, 0x5000 | P | W);
  put(0x11000 + 4 * 2, 4, 0x6000 | P | U | PS); /* bit 7 is PAT here */
  put(0x11000 + 4 * 3, 4, 0x7000 | W | U);
  check_page(0xc03ff123, 0xabcde123, PAGE, RWX, true);
  CHECK_EQ(walk.paging, LUNA_PAGING_32);
  CHECK_EQ(walk.entry_count, 2);
  check_entry(0, CR3 + 4 * 0x300, 0x11000 | ALL);
  check_entry(1, 0x11000 + 4 * 0x3ff, 0xabcde000 | ALL);
  check_page(0xc0001fff, 0x5fff, PAGE, RWX, false);
  check_page(0xc0002000, 0x6000, PAGE, LUNA_READ | LUNA_EXECUTE, true);
  check_missing(0xc0003000, 1, false);
  check_entry(1, 0x11000 + 4 * 3, 0x7000 | W | U);
  check_missing(0, 2, false);
  CHECK_EQ(walk.entry_count, 1);
  check_no_address(UINT64_C(1) << 32, "above 4 GiB");
  end();
}

static void large_pages_in_32(void) {
  begin_in(&legacy);
  put(CR3 + 4 * 1, 4, 0x12c00000 | ALL | PS);
  put(CR3 + 4 * 2, 4, 0x00400000 | ALL | PS | 0x1e000); /* PSE-36: address bits 35:32 */
  put(CR3 + 4 * 3, 4, 0x00400000 | ALL | PS | 1 << 21);
  check_page(0x4abcde, 0x12c00000 + 0xabcde, 0x400000, RWX, true);
  CHECK_EQ(walk.entry_count, 1);
  check_page(0x800010, UINT64_C(0xf00400010), 0x400000, RWX, true);
  check_missing(0xc00000, 2, true);
  set(LUNA_CR4, 0); /* without PSE, bit 7 is ignored: a table, in memory that is not there */
  CHECK_FAILS(luna_vcpu_translate(vcpu, 0x4abcde, &walk), LUNA_ERROR_NOT_FOUND,
              "level 1 table entry, at gpa 0x12c002ac of space 0");
  end();
}

/* A processor with fewer address bits has fewer of PSE-36. */
static void narrow_pages_in_32(void) {
  fake_config config = fake_defaults();
  config.address_bits = 36;
  begin_with(&config);
  map_memory(0, MEMORY, RWX, &memory);
  enter(&legacy);
  put(CR3, 4, ALL | PS | 0x1e000);
  put(CR3 + 4, 4, ALL | PS | 0x20000);
  check_page(0x123, UINT64_C(0xf00000123), 0x400000, RWX, true);
  check_missing(0x400000, 2, true);
  end();
}

/* ---- PAE ---- */

static void pages_in_pae(void) {
  begin_in(&pae);
  const uint64_t pdpt = CR3 + 0x20; /* 32-byte aligned */
  set(LUNA_CR3, pdpt | 0x18);       /* PWT and PCD are no part of the address */
  put(pdpt + 8 * 3, 8, 0x11000 | P);
  put(0x11000 + 8 * 0x1ff, 8, 0x12000 | ALL);
  put(0x12000 + 8 * 0x1fe, 8, UINT64_C(0x912345000) | ALL | NX);
  put(0x11000 + 8 * 1, 8, UINT64_C(0x900200000) | P | U | PS);
  put(0x11000 + 8 * 2, 8, 0x200000 | ALL | PS | 0x2000);
  check_page(0xffffe678, UINT64_C(0x912345678), PAGE, LUNA_READ | LUNA_WRITE, true);
  CHECK_EQ(walk.paging, LUNA_PAGING_PAE);
  CHECK_EQ(walk.entry_count, 3);
  check_entry(0, pdpt + 8 * 3, 0x11000 | P);
  check_page(0xc0212345, UINT64_C(0x900212345), 0x200000, LUNA_READ | LUNA_EXECUTE, true);
  check_missing(0xc0400000, 2, true); /* an address bit below 2 MiB */
  check_missing(0, 3, false);
  set(LUNA_EFER, 0); /* without NXE, bit 63 is reserved */
  check_missing(0xffffe678, 1, true);
  end();
}

/* SDM Vol. 3, table "Format of a PAE Page-Directory-Pointer-Table Entry". */
static void reserved_in_pae_pointers(void) {
  static const uint64_t wrong[] = {W, U, 0x20, PS, 0x100, NX, UINT64_C(1) << 62, UINT64_C(1) << 52};
  static const uint64_t right[] = {8, 0x10, 0x200, 0x800};
  begin_in(&pae);
  put(0x11000, 8, 0x200000 | ALL | PS);
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    put(CR3, 8, 0x11000 | P | wrong[i]);
    check_missing(0, 3, true);
  }
  for (size_t i = 0; i < sizeof right / sizeof *right; i++) {
    put(CR3, 8, 0x11000 | P | right[i]);
    check_page(0, 0x200000, 0x200000, RWX, true);
  }
  put(CR3, 8, 0x11000 | P);
  put(0x11000, 8, ALL | PS | UINT64_C(1) << 52); /* ignored in long mode, reserved here */
  check_missing(0, 2, true);
  end();
}

/* ---- Long mode ---- */

static void pages_in_4_levels(void) {
  begin_in(&four);
  set(LUNA_CR3, CR3 | 0xfff); /* PCID */
  put(CR3 + 8 * 0x1ff, 8, 0x11000 | ALL | UINT64_C(0x7ff) << 52);
  put(0x11000 + 8 * 0x1fe, 8, 0x12000 | ALL);
  put(0x11000 + 8 * 0x1ff, 8, UINT64_C(0x1240000000) | ALL | PS | 0x1000);
  put(0x12000 + 8 * 0, 8, UINT64_C(0x800000) | ALL | PS | NX);
  put(0x12000 + 8 * 1, 8, 0x13000 | P | W);
  put(0x13000 + 8 * 0x1ff, 8, 0x77000 | ALL | PS);
  check_page(UINT64_C(0xffffffff803fff12), 0x77f12, PAGE, RWX, false);
  CHECK_EQ(walk.paging, LUNA_PAGING_4_LEVEL);
  CHECK_EQ(walk.entry_count, 4);
  check_entry(0, CR3 + 8 * 0x1ff, 0x11000 | ALL | UINT64_C(0x7ff) << 52);
  check_entry(3, 0x13000 + 8 * 0x1ff, 0x77000 | ALL | PS);
  check_page(UINT64_C(0xffffffff801abcde), 0x9abcde, 0x200000, LUNA_READ | LUNA_WRITE, true);
  CHECK_EQ(walk.entry_count, 3);
  check_page(UINT64_C(0xffffffffc0000000) + 0x12345678, UINT64_C(0x1240000000) + 0x12345678,
             0x40000000, RWX, true);
  CHECK_EQ(walk.entry_count, 2);
  check_missing(UINT64_C(0xffffffff803fe000), 1, false);
  check_missing(UINT64_C(0xffffffff80400000), 2, false);
  check_missing(UINT64_C(0xffffff8000000000), 3, false);
  check_missing(0, 4, false);
  end();
}

/* Each level takes rights away, none gives them back. */
static void rights_of_all_levels(void) {
  begin_in(&four);
  uint64_t tables[4];
  for (uint64_t i = 0; i < 4; i++) {
    tables[i] = CR3 + i * PAGE;
  }
  for (uint64_t flags = 0; flags < 4096; flags++) { /* W, U, NX in each of the four levels */
    uint64_t left = ALL;
    bool no_execute = false;
    for (uint64_t i = 0; i < 4; i++) {
      uint64_t mine = flags >> i * 3;
      uint64_t next = i == 3 ? 0x5000 : tables[i + 1];
      put(tables[i], 8, next | P | (mine & 1 ? W : 0) | (mine & 2 ? U : 0) | (mine & 4 ? NX : 0));
      left &= P | (mine & 1 ? W : 0) | (mine & 2 ? U : 0);
      no_execute |= mine & 4;
    }
    uint32_t rights = LUNA_READ | (left & W ? LUNA_WRITE : 0) | (no_execute ? 0 : LUNA_EXECUTE);
    check_page(0x123, 0x5123, PAGE, rights, left & U);
  }
  end();
}

static void reserved_in_long_mode(void) {
  fake_config config = fake_defaults();
  config.address_bits = 40;
  begin_with(&config);
  map_memory(0, MEMORY, RWX, &memory);
  enter(&five);
  const struct {
    uint32_t level;
    uint64_t bit;
  } wrong[] = {{5, PS}, {4, PS}, {5, UINT64_C(1) << 40}, {1, UINT64_C(1) << 51}};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    for (uint64_t level = 5; level >= 1; level--) {
      uint64_t next = level == 1 ? 0x5000 : CR3 + (6 - level) * PAGE;
      put(CR3 + (5 - level) * PAGE, 8, next | ALL | (level == wrong[i].level ? wrong[i].bit : 0));
    }
    check_missing(0, wrong[i].level, true);
    CHECK_EQ(walk.entry_count, 6 - wrong[i].level);
  }
  put(CR3, 8, (CR3 + PAGE) | ALL);
  put(CR3 + PAGE, 8, (CR3 + 2 * PAGE) | ALL);
  put(CR3 + 2 * PAGE, 8, ALL | PS | 1 << 29);
  check_missing(0, 3, true);
  put(CR3 + 2 * PAGE, 8, ALL | PS | 1 << 12); /* PAT */
  check_page(0x3fffffff, 0x3fffffff, 0x40000000, RWX, true);
  end();
}

/* Bits that are an address by one CPUID are reserved by another. */
static void by_the_cpuid_of_the_vcpu(void) {
  luna_cpuid answers[] = {{.leaf = 1, .edx = 1 << 17},
                          {.leaf = 0x80000001, .edx = 1 << 26},
                          {.leaf = 0x80000008, .eax = 0x3024}};
  begin_in(&four);
  put(CR3, 8, (CR3 + PAGE) | ALL);
  put(CR3 + PAGE, 8, (CR3 + 2 * PAGE) | ALL);
  put(CR3 + PAGE + 8, 8, ALL | PS);
  put(CR3 + 2 * PAGE, 8, ALL | PS | UINT64_C(1) << 35);
  put(CR3 + 2 * PAGE + 8, 8, ALL | PS | UINT64_C(1) << 36);
  check_page(0x200000, UINT64_C(1) << 36, 0x200000, RWX, true);
  CHECK_OK(luna_vcpu_set_cpuid(vcpu, answers, 3));
  check_page(0, UINT64_C(1) << 35, 0x200000, RWX, true);
  check_missing(0x200000, 2, true);
  check_page(0x40000000, 0, 0x40000000, RWX, true);
  answers[1].edx = 0;
  CHECK_OK(luna_vcpu_set_cpuid(vcpu, answers, 3));
  check_missing(0x40000000, 3, true);
  answers[2].eax = 64; /* more than the host has: the host's */
  CHECK_OK(luna_vcpu_set_cpuid(vcpu, answers, 3));
  check_page(0x200000, UINT64_C(1) << 36, 0x200000, RWX, true);
  enter(&legacy);
  put(CR3, 4, ALL | PS | 1 << 13);
  check_page(0, UINT64_C(1) << 32, 0x400000, RWX, true);
  answers[0].edx = 0;
  CHECK_OK(luna_vcpu_set_cpuid(vcpu, answers, 3));
  check_missing(0, 2, true);
  end();
}

static void canonical(void) {
  begin_in(&four);
  static const uint64_t good[] = {UINT64_C(0x7fffffffffff), UINT64_C(0xffff800000000000)};
  static const uint64_t bad[] = {UINT64_C(0x800000000000), UINT64_C(0xffff7fffffffffff),
                                 UINT64_C(0x8000000000000000)};
  for (size_t i = 0; i < 3; i++) {
    check_no_address(bad[i], "is not canonical: bits 63 to 47 are not equal");
  }
  check_missing(good[0], 4, false);
  check_missing(good[1], 4, false);
  enter(&five);
  check_missing(bad[0], 5, false);
  check_missing(bad[1], 5, false);
  check_missing(UINT64_C(0xff00000000000000), 5, false);
  check_no_address(UINT64_C(0x100000000000000), "bits 63 to 56 are not equal");
  end();
}

/* ---- Every mode ---- */

/* Random addresses lead to the pages that they were given, and their neighbours nowhere. */
static void random_pages(void) {
  static const mode *const modes[] = {&legacy, &pae, &four, &five};
  uint64_t seed = test_seed();
  const uint64_t first = seed;
  for (size_t i = 0; i < 4; i++) {
    const mode *m = modes[i];
    begin_in(m);
    next_table = CR3 + PAGE;
    uint64_t gva[100];
    for (uint64_t n = 0; n < 100; n++) {
      uint64_t random = test_random(&seed) & ~UINT64_C(0x1fff); /* even pages */
      gva[n] = m->linear == 32
                   ? (uint32_t)random
                   : (uint64_t)((int64_t)(random << (64 - m->linear)) >> (64 - m->linear)) &
                         ~UINT64_C(0x1fff);
      install(m, gva[n], n << 12);
    }
    for (uint64_t n = 0; n < 100; n++) {
      uint64_t offset = test_random(&seed) & 0xfff;
      test_note("mode %zu, seed 0x%" PRIx64, i, first);
      walk_to(gva[n] + offset);
      CHECK_EQ(walk.entry_count, m->levels);
      CHECK_EQ(walk.gpa & 0xfff, offset);
      CHECK_EQ(gva[walk.gpa >> 12], gva[n]); /* the last of equal addresses counts */
      walk_to(gva[n] + PAGE + offset);
      CHECK_EQ(walk.missing, 1);
    }
    end();
  }
}

static void tables_in_unmapped_memory(void) {
  begin_in(&four);
  const luna_walk before = walk;
  put(CR3, 8, 0x400000 | ALL);
  CHECK_FAILS(luna_vcpu_translate(vcpu, 0x1000, &walk), LUNA_ERROR_NOT_FOUND,
              "its level 3 table entry, at gpa 0x400000 of space 0, lies where nothing is mapped");
  CHECK(memcmp(&before, &walk, sizeof walk) == 0);
  set(LUNA_CR3, 0x800000); /* waits for the next entry, and counts */
  CHECK_FAILS(luna_vcpu_translate(vcpu, 0x1000, &walk), LUNA_ERROR_NOT_FOUND,
              "level 4 table entry, at gpa 0x800000");
  CHECK_EQ(entries(), 0);
  end();
}

int main(void) {
  RUN(no_paging);
  RUN(small_pages_in_32);
  RUN(large_pages_in_32);
  RUN(narrow_pages_in_32);
  RUN(pages_in_pae);
  RUN(reserved_in_pae_pointers);
  RUN(pages_in_4_levels);
  RUN(rights_of_all_levels);
  RUN(reserved_in_long_mode);
  RUN(by_the_cpuid_of_the_vcpu);
  RUN(canonical);
  RUN(random_pages);
  RUN(tables_in_unmapped_memory);
  return test_end();
}
