/* SPDX-License-Identifier: MIT
 * Loads and stores that the TLB does not serve: the first to a page, over the end of a page, to
 * devices, to pages with code. Nothing has changed when one faults or leaves. */
#include "soft/access.h"

static uint64_t peek(const uint8_t *host, unsigned size) {
  uint64_t value = 0;
  switch (size) {
    case 1:
    case 2:
    case 4:
    case 8:
      return soft_peek(host, (int)size * 8);
    default:
      for (unsigned i = 0; i < size; i++) {
        value |= (uint64_t)host[i] << 8 * i;
      }
      return value;
  }
}

static void poke(uint8_t *host, uint64_t value, unsigned size) {
  switch (size) {
    case 1:
    case 2:
    case 4:
    case 8:
      soft_poke(host, value, (int)size * 8);
      break;
    default:
      for (unsigned i = 0; i < size; i++) {
        host[i] = (uint8_t)(value >> 8 * i);
      }
      break;
  }
}

static unsigned until_page_end(uint64_t linear) {
  return SOFT_PAGE - (unsigned)(linear & (SOFT_PAGE - 1));
}

/* x87's environments, with the registers or without, which go word by word. */
static bool is_environment(unsigned size) {
  return size == 14 || size == 28 || size == 94 || size == 108;
}

/* All of an operand is at canonical addresses before a page of it is looked for. */
static void check_end(soft_cpu *cpu, uint64_t linear, unsigned size) {
  if (soft_unlikely(until_page_end(linear) < size && !is_environment(size))) {
    soft_check_canonical(cpu, linear);
    soft_check_canonical(cpu, linear + size - 1);
  }
}

static uint64_t load_part(soft_cpu *cpu, const uint8_t *host, soft_spot place, unsigned size) {
  return host ? peek(host, size) : soft_device_read(cpu, place, size);
}

static uint64_t load_as(soft_cpu *cpu, uint64_t linear, unsigned size, bool user) {
  uint64_t gpa, gpa_2;
  if (cpu->no_links) {
    soft_watch(cpu, linear, size, SOFT_READ);
  }
  unsigned first = until_page_end(linear);
  if (first >= size) {
    const uint8_t *host = soft_page(cpu, linear, SOFT_READ, user, &gpa);
    return load_part(cpu, host, (soft_spot){linear, gpa}, size);
  }
  check_end(cpu, linear, size);
  const uint8_t *low = soft_page(cpu, linear, SOFT_READ, user, &gpa);
  const uint8_t *high = soft_page(cpu, linear + first, SOFT_READ, user, &gpa_2);
  uint64_t value = load_part(cpu, low, (soft_spot){linear, gpa}, first);
  soft_spot next = {linear + first, gpa_2};
  return value | load_part(cpu, high, next, size - first) << 8 * first;
}

/* The bits of the lines of 64 bytes that an access within a page touches. */
static uint64_t lines(const uint8_t *host, unsigned size) {
  unsigned first = (unsigned)((uintptr_t)host >> 6 & 63);
  unsigned last = (unsigned)(((uintptr_t)host + size - 1) >> 6 & 63);
  return UINT64_C(1) << first | UINT64_C(1) << last;
}

static void store_part(soft_cpu *cpu, uint8_t *host, soft_spot place, uint64_t value,
                       unsigned size) {
  if (!host) {
    soft_device_write(cpu, place, value, size);
  } else if (soft_unlikely(*soft_mark(cpu, host) & lines(host, size))) {
    poke(host, value, size);
    soft_code_written(cpu, host, size);
  } else {
    poke(host, value, size);
  }
}

/* Code is written, or a device, by an instruction that runs alone: what follows in its block may
 * not be true any more, and an exit comes behind it. */
static void need_single(soft_cpu *cpu, uint8_t *host, unsigned size) {
  if (!cpu->single && (!host || *soft_mark(cpu, host) & lines(host, size))) {
    soft_leave(cpu, SOFT_ESCAPE_STEP);
  }
}

static void store_as(soft_cpu *cpu, uint64_t linear, uint64_t value, unsigned size, bool user) {
  uint64_t gpa, gpa_2 = 0;
  if (cpu->no_links) {
    soft_watch(cpu, linear, size, SOFT_WRITE);
  }
  unsigned first = until_page_end(linear);
  if (first >= size) {
    uint8_t *host = soft_page(cpu, linear, SOFT_WRITE, user, &gpa);
    need_single(cpu, host, size);
    store_part(cpu, host, (soft_spot){linear, gpa}, value, size);
    return;
  }
  check_end(cpu, linear, size);
  uint8_t *low = soft_page(cpu, linear, SOFT_WRITE, user, &gpa);
  uint8_t *high = soft_page(cpu, linear + first, SOFT_WRITE, user, &gpa_2);
  need_single(cpu, low, first);
  need_single(cpu, high, size - first);
  soft_spot place = {linear, gpa}, next = {linear + first, gpa_2};
  if (low && !high) { /* memory last: the other part may leave */
    store_part(cpu, high, next, value >> 8 * first, size - first);
    store_part(cpu, low, place, value, first);
    return;
  }
  store_part(cpu, low, place, value, first);
  store_part(cpu, high, next, value >> 8 * first, size - first);
}

/* Of an operand of that size (SDM volume 3, 6.15, table "Alignment Requirements by Data Type"):
 * x87's of 80 bits and its environments have their own, wider ones of vectors none. */
static unsigned alignment(unsigned size) {
  switch (size) {
    case 2:
    case 4:
    case 8:
      return size;
    case 10:
      return 8;
    case 28:
    case 108:
      return 4;
    case 14:
    case 94:
      return 2;
    default:
      return 1;
  }
}

/* Ring 3 with CR0.AM and RFLAGS.AC: all its accesses come here (SDM volume 3, 6.15). An address
 * that is not canonical comes first, a page that is not there later. */
void soft_check_alignment(soft_cpu *cpu, uint64_t linear, unsigned size) {
  bool checked = cpu->tlb == cpu->tlbs[SOFT_AS_CHECKED];
  if (soft_unlikely(checked && linear & (alignment(size) - 1) && soft_canonical(cpu, linear))) {
    soft_fault(cpu, VECTOR_AC, 0);
  }
}

uint64_t soft_load_slow(soft_cpu *cpu, uint64_t linear, unsigned size) {
  soft_check_alignment(cpu, linear, size);
  return load_as(cpu, linear, size, cpu->cpl == 3);
}

/* A page of code that nobody has made blocks of for a while is a page of data again. */
static void settle(soft_cpu *cpu, soft_tlb *entry, const uint8_t *host) {
  if (++cpu->unmarked_writes % 64 == 0) {
    soft_set_coded(cpu, host, false);
    entry->write &= ~SOFT_CODE_PAGE;
  }
}

void soft_store_slow(soft_cpu *cpu, uint64_t linear, uint64_t value, unsigned size) {
  soft_check_alignment(cpu, linear, size);
  soft_tlb *entry = soft_entry(cpu, linear);
  uint64_t page = (linear + size - 1) & ~UINT64_C(0xfff);
  if (entry->write == (page | SOFT_CODE_PAGE)) {
    uint8_t *host = soft_at(entry, linear);
    uint64_t marks = *soft_mark(cpu, host);
    if (!(marks & lines(host, size))) {
      poke(host, value, size);
      if (!marks) {
        settle(cpu, entry, host);
      }
      return;
    }
  }
  store_as(cpu, linear, value, size, cpu->cpl == 3);
}

/* Implicit accesses of a supervisor that SMAP minds whatever RFLAGS.AC says (SDM, 4.6.1) are to
 * tables that no system gives to user space. */
uint64_t soft_load_system(soft_cpu *cpu, uint64_t linear, unsigned size) {
  return load_as(cpu, linear, size, false);
}

void soft_store_system(soft_cpu *cpu, uint64_t linear, uint64_t value, unsigned size) {
  store_as(cpu, linear, value, size, false);
}

uint8_t *soft_reach(soft_cpu *cpu, uint64_t linear, unsigned size, soft_access access) {
  uint64_t gpa;
  soft_check_alignment(cpu, linear, size);
  if (until_page_end(linear) < size) {
    return NULL;
  }
  const soft_tlb *entry = soft_entry(cpu, linear);
  uint64_t page = linear & ~UINT64_C(0xfff);
  if (access == SOFT_WRITE ? entry->write == page : entry->read == page) {
    return soft_at(entry, linear);
  }
  uint8_t *known = soft_at(entry, linear);
  if (access == SOFT_WRITE && entry->write == (page | SOFT_CODE_PAGE) &&
      !(*soft_mark(cpu, known) & lines(known, size))) {
    return known;
  }
  if (cpu->no_links) {
    soft_watch(cpu, linear, size, access);
  }
  uint8_t *host = soft_page(cpu, linear, access, cpu->cpl == 3, &gpa);
  if (host && access == SOFT_WRITE && *soft_mark(cpu, host) & lines(host, size)) {
    need_single(cpu, host, size);
    soft_code_written(cpu, host, size);
  }
  return host;
}

static unsigned piece(unsigned left) {
  return left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

void soft_load_bytes(soft_cpu *cpu, uint64_t linear, void *bytes, unsigned size) {
  check_end(cpu, linear, size);
  for (unsigned done = 0, part; done < size; done += part) {
    part = piece(size - done);
    poke((uint8_t *)bytes + done, load_as(cpu, linear + done, part, cpu->cpl == 3), part);
  }
}

void soft_store_prepare(soft_cpu *cpu, uint64_t linear, unsigned size) {
  uint64_t gpa;
  check_end(cpu, linear, size);
  uint8_t *low = soft_page(cpu, linear, SOFT_WRITE, cpu->cpl == 3, &gpa);
  uint8_t *high = low;
  if (until_page_end(linear) < size) {
    uint64_t last = (linear + size - 1) & ~UINT64_C(0xfff);
    high = soft_page(cpu, last, SOFT_WRITE, cpu->cpl == 3, &gpa);
  }
  if (!low || !high || *soft_mark(cpu, low) || *soft_mark(cpu, high)) {
    need_single(cpu, NULL, size);
  }
}

void soft_store_bytes(soft_cpu *cpu, uint64_t linear, const void *bytes, unsigned size) {
  soft_store_prepare(cpu, linear, size);
  for (unsigned done = 0, part; done < size; done += part) {
    part = piece(size - done);
    store_as(cpu, linear + done, peek((const uint8_t *)bytes + done, part), part, cpu->cpl == 3);
  }
}
