/* SPDX-License-Identifier: MIT
 * x87, SSE, AVX and AVX-512 registers, which lie in pieces in the standard form of XSAVE (SDM
 * Vol. 1, 13.4), and that area as a whole. */
#include "base/error.h"
#include "kvm/host.h"
#include "vcpu/cpuid.h"
#include "vcpu/extended.h"
#include "vcpu/guard.h"

#include <inttypes.h>
#include <string.h>

/* State components (SDM Vol. 1, 13.1). */
enum {
  X87 = 0,
  SSE = 1,
  AVX = 2,
  OPMASK = 5,
  ZMM_HIGH = 6, /* bytes 32 to 63 of ZMM0 to 15 */
  ZMM_MORE = 7  /* ZMM16 to 31 */
};

enum {
  LEGACY_SIZE = 512,
  HEADER_END = 576,
  ST_OFFSET = 32,
  XMM_OFFSET = 160,
  KINDS = LUNA_VECTOR_K + 1,
  PIECES_MOST = 3
};

static const uint32_t sizes[KINDS] = {10, 16, 32, 64, 8};
static const char *const kinds[KINDS] = {"st", "xmm", "ymm", "zmm", "k"};

typedef struct piece {
  unsigned component;
  uint32_t offset; /* in the area */
  uint32_t size;
} piece;

/* Where the component begins in the area, 0 where this host does not have it. */
static uint32_t component_offset(const luna_host *host, unsigned component) {
  if (component <= SSE) {
    return component == X87 ? ST_OFFSET : XMM_OFFSET;
  }
  const struct kvm_cpuid_entry2 *leaf = luna_cpuid_find(host->cpuid, 0xd, component);
  return leaf && leaf->eax > 0 && leaf->ebx + leaf->eax <= host->xsave_size ? leaf->ebx : 0;
}

/* The pieces of a register in the order of its bytes; ends with one of size 0. */
static void find_pieces(int kind, uint32_t index, piece pieces[PIECES_MOST + 1]) {
  memset(pieces, 0, (PIECES_MOST + 1) * sizeof *pieces);
  if (kind == LUNA_VECTOR_ST) {
    pieces[0] = (piece){X87, index * 16, sizes[kind]};
  } else if (kind == LUNA_VECTOR_K) {
    pieces[0] = (piece){OPMASK, index * 8, sizes[kind]};
  } else if (index >= 16) {
    pieces[0] = (piece){ZMM_MORE, (index - 16) * 64, sizes[kind]};
  } else {
    pieces[0] = (piece){SSE, index * 16, 16};
    pieces[1] = (piece){AVX, index * 16, kind >= LUNA_VECTOR_YMM ? 16 : 0};
    pieces[2] = (piece){ZMM_HIGH, index * 32, kind == LUNA_VECTOR_ZMM ? 32 : 0};
  }
}

static int fail_index(int kind, uint32_t index, uint32_t count) {
  return luna_fail(LUNA_ERROR_ARGUMENT, "there is no register %s%u: %s has 0 to %u", kinds[kind],
                   index, kinds[kind], count - 1);
}

static int place_pieces(const luna_host *host, int kind, uint32_t index, size_t size,
                        piece pieces[PIECES_MOST + 1]) {
  if (kind < 0 || kind >= KINDS) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "there is no kind of vector registers %d", kind);
  }
  bool few = kind == LUNA_VECTOR_ST || kind == LUNA_VECTOR_K;
  uint32_t count = few ? 8 : 32;
  if (index >= count) {
    return fail_index(kind, index, count);
  }
  if (size != sizes[kind]) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "%s%u has %u bytes, not %zu", kinds[kind], index,
                     sizes[kind], size);
  }
  find_pieces(kind, index, pieces);
  for (piece *p = pieces; p->size > 0; p++) {
    uint32_t begin = component_offset(host, p->component);
    if (begin == 0) {
      return luna_fail(LUNA_ERROR_UNSUPPORTED,
                       "this host has no register %s%u: CPUID leaf 0xd does not offer state "
                       "component %u",
                       kinds[kind], index, p->component);
    }
    p->offset += begin;
  }
  return LUNA_OK;
}

int luna_vcpu_get_vector(luna_vcpu *vcpu, int kind, uint32_t index, void *bytes, size_t size) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  piece pieces[PIECES_MOST + 1];
  int status = place_pieces(vcpu->vm->host, kind, index, size, pieces);
  if (status != LUNA_OK) {
    return status;
  }
  const uint8_t *area = luna_extended_area(vcpu);
  if (!area) {
    return luna_error_status();
  }
  uint8_t *to = bytes;
  for (const piece *p = pieces; p->size > 0; to += p->size, p++) {
    memcpy(to, area + p->offset, p->size);
  }
  return LUNA_OK;
}

int luna_vcpu_set_vector(luna_vcpu *vcpu, int kind, uint32_t index, const void *bytes,
                         size_t size) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  piece pieces[PIECES_MOST + 1];
  int status = place_pieces(vcpu->vm->host, kind, index, size, pieces);
  status = status == LUNA_OK ? luna_extended_settle(vcpu) : status;
  if (status != LUNA_OK) {
    return status;
  }
  uint8_t *area = luna_extended_area(vcpu);
  if (!area) {
    return luna_error_status();
  }
  uint64_t components = 0;
  const uint8_t *from = bytes;
  for (const piece *p = pieces; p->size > 0; from += p->size, p++) {
    memcpy(area + p->offset, from, p->size);
    components |= UINT64_C(1) << p->component;
  }
  return luna_extended_write(vcpu, components);
}

/* ---- The whole area ---- */

static int check_size(const luna_vcpu *vcpu, size_t size) {
  uint32_t whole = vcpu->vm->host->xsave_size;
  if (size != LEGACY_SIZE && (size < HEADER_END || size > whole)) {
    return luna_fail(LUNA_ERROR_ARGUMENT,
                     "an XSAVE area of %zu bytes: %d, or %d to %u bytes expected", size,
                     LEGACY_SIZE, HEADER_END, whole);
  }
  return LUNA_OK;
}

uint32_t luna_vcpu_xsave_size(const luna_vcpu *vcpu) {
  return vcpu->vm->host->xsave_size;
}

int luna_vcpu_get_xsave(luna_vcpu *vcpu, void *area, size_t size) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  int status = check_size(vcpu, size);
  if (status != LUNA_OK) {
    return status;
  }
  const uint8_t *copy = luna_extended_area(vcpu);
  if (!copy) {
    return luna_error_status();
  }
  memcpy(area, copy, size);
  return LUNA_OK;
}

int luna_vcpu_set_xsave(luna_vcpu *vcpu, const void *area, size_t size) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  int status = check_size(vcpu, size);
  status = status == LUNA_OK ? luna_extended_settle(vcpu) : status;
  if (status != LUNA_OK) {
    return status;
  }
  uint8_t *copy = luna_extended_area(vcpu);
  if (!copy) {
    return luna_error_status();
  }
  memcpy(copy, area, size);
  return luna_extended_write(vcpu, size == LEGACY_SIZE ? 3 : 0);
}
