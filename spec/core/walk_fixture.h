/* SPDX-License-Identifier: MIT
 * What the tests of linear addresses share: a vCPU in a paging mode, over the fake, and tables for
 * it in a buffer. The guest never runs. */
#ifndef LUNA_WALK_FIXTURE_H
#define LUNA_WALK_FIXTURE_H

#include "vcpu_fixture.h"

#include <stdbool.h>

enum {
  P = 1,
  W = 2,
  U = 4,
  PS = 0x80,
  ALL = P | W | U,
  CR3 = 0x10000,
  MEMORY = 0x400000
};
#define NX (UINT64_C(1) << 63)

static uint8_t *memory;

/* ---- Modes ---- */

typedef struct mode {
  uint32_t paging; /* luna_paging */
  uint64_t cr4;
  uint64_t efer;
  uint32_t levels;
  uint32_t index;
  uint32_t width;
  uint32_t linear;
} mode;

__attribute__((unused)) static const mode none = {.paging = LUNA_PAGING_NONE};
__attribute__((unused)) static const mode legacy = {LUNA_PAGING_32, 0x10, 0, 2, 10, 4, 32};
__attribute__((unused)) static const mode pae = {LUNA_PAGING_PAE, 0x20, 0x800, 3, 9, 8, 32};
static const mode four = {LUNA_PAGING_4_LEVEL, 0x20, 0xd00, 4, 9, 8, 48};
__attribute__((unused)) static const mode five = {LUNA_PAGING_5_LEVEL, 0x1020, 0xd00, 5, 9, 8, 57};

static inline void enter(const mode *m) {
  set(LUNA_CR0, m->paging == LUNA_PAGING_NONE ? 0x11 : 0x80000011);
  set(LUNA_CR3, CR3);
  set(LUNA_CR4, m->cr4);
  set(LUNA_EFER, m->efer);
  set(LUNA_CS_BASE, 0);
  set(LUNA_CS_ACCESS, m->linear > 32 ? 0xa09b : 0xc09b);
}

static inline void begin_in(const mode *m) {
  begin();
  map_memory(0, MEMORY, RWX, &memory);
  enter(m);
}

static inline void put(uint64_t gpa, uint32_t width, uint64_t entry) {
  memcpy(memory + gpa, &entry, width);
}

static uint64_t next_table;

/* Makes gva lead to the page at gpa, with tables made as they are needed. */
static inline void install(const mode *m, uint64_t gva, uint64_t gpa) {
  uint64_t table = CR3;
  for (uint32_t level = m->levels; level > 1; level--) {
    uint64_t index = gva >> (12 + m->index * (level - 1)) & ((1u << m->index) - 1);
    uint64_t entry = 0;
    memcpy(&entry, memory + table + index * m->width, m->width);
    if (!entry) {
      entry = next_table | (level == 3 && m->paging == LUNA_PAGING_PAE ? P : ALL);
      next_table += PAGE;
      CHECK(next_table <= MEMORY);
      put(table + index * m->width, m->width, entry);
    }
    table = entry & ~UINT64_C(0xfff);
  }
  put(table + (gva >> 12 & ((1u << m->index) - 1)) * m->width, m->width, gpa | ALL);
}

#endif
