/* SPDX-License-Identifier: MIT
 * Where the components of vector state are in XSAVE's areas (SDM volume 1, 13.4), and which of them
 * a guest may have. The host's processor is asked once: CPUID is an exit under a hypervisor. */
#include "soft/execute/control.h"
#include "soft/vector/vector.h"

#include <stdatomic.h>

enum {
  AREA_BEGIN = 576, /* behind the header */
  AVX_AT = 576,     /* on all processors */
  BEHIND_ALL = 2688,
  BEHIND_AVX = 832,
  F = 1 << 16, /* leaf 7, EBX: what moves of its state are made of */
  BW = 1 << 30,
  UNKNOWN = 0,
  ABSENT = 1,
  PRESENT = 2
};

static const uint16_t sizes[SOFT_COMPONENTS] = {[SOFT_AREA_AVX] = 256,
                                                [SOFT_AREA_OPMASK] = 64,
                                                [SOFT_AREA_ZMM] = 512,
                                                [SOFT_AREA_HIGH] = 1024,
                                                [SOFT_AREA_PKRU] = 8};
static _Atomic uint32_t places[SOFT_COMPONENTS];
static _Atomic unsigned avx512;

static uint32_t host_leaf(uint32_t leaf, uint32_t index) {
  uint32_t eax = leaf, ebx, ecx = index, edx;
  __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
  return ebx;
}

static uint32_t host_xcr0(void) {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

bool soft_has_avx512(void) {
  unsigned known = atomic_load_explicit(&avx512, memory_order_relaxed);
  if (soft_unlikely(known == UNKNOWN)) {
    bool enabled = (host_xcr0() & (6 | SOFT_LIVE_AVX512)) == (6 | SOFT_LIVE_AVX512);
    bool present = enabled && (host_leaf(7, 0) & (F | BW)) == (F | BW);
    known = present ? PRESENT : ABSENT;
    atomic_store_explicit(&avx512, known, memory_order_relaxed);
  }
  return known == PRESENT;
}

/* The host's places, so that states fit there. */
static uint32_t place_of(unsigned component) {
  uint32_t at = component == SOFT_AREA_AVX ? AVX_AT : host_leaf(0xd, component);
  return at                            ? at
         : component == SOFT_AREA_PKRU ? BEHIND_ALL
                                       : BEHIND_AVX; /* and nobody asks for the rest */
}

uint32_t soft_component_at(unsigned component) {
  uint32_t at = atomic_load_explicit(&places[component], memory_order_relaxed);
  if (soft_unlikely(!at)) {
    at = place_of(component);
    atomic_store_explicit(&places[component], at, memory_order_relaxed);
  }
  return at;
}

uint32_t soft_component_size(unsigned component) {
  return sizes[component];
}

uint32_t soft_component_place(unsigned component, uint64_t layout, bool compact) {
  if (!compact) {
    return soft_component_at(component);
  }
  uint32_t at = AREA_BEGIN;
  for (unsigned i = SOFT_AREA_AVX; i < component; i++) {
    at += layout >> i & 1 ? sizes[i] : 0;
  }
  return at;
}

uint32_t soft_xsave_size(uint64_t components, bool compact) {
  uint32_t size = AREA_BEGIN;
  for (unsigned i = SOFT_AREA_AVX; i < SOFT_COMPONENTS; i++) {
    if (components >> i & 1 && sizes[i]) {
      uint32_t end = soft_component_place(i, components, compact) + sizes[i];
      size = end > size ? end : size;
    }
  }
  return size;
}

uint64_t soft_xcr0_known(void) {
  return (host_xcr0() & 7) | (soft_has_avx512() ? SOFT_LIVE_AVX512 : 0) | SOFT_XCR0_PKRU;
}

/* What the vCPU's table offers, where it has one (SDM volume 1, 13.3). */
bool soft_xcr0_right(const soft_cpu *cpu, uint64_t value) {
  uint64_t offered = soft_xcr0_known();
  if (cpu->cpuid) {
    offered &= soft_cpuid(cpu, 0xd, 0)->eax | 1;
  }
  uint64_t wide = value & SOFT_LIVE_AVX512;
  return value & 1 && !(value & ~offered) && (value & 6) != 4 &&
         (!wide || (wide == SOFT_LIVE_AVX512 && value & SOFT_LIVE_AVX));
}
