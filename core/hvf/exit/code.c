/* SPDX-License-Identifier: MIT
 * The guest's code around an address, through its page tables. */
#include "hvf/exit/code.h"

enum {
  CS_LONG = 1 << 13,
  CS_DEFAULT_32 = 1 << 14
};

static uint32_t smaller(uint64_t a, uint64_t b) {
  return (uint32_t)(a < b ? a : b);
}

static bool copy(hvf_vcpu *v, uint64_t linear, uint8_t *bytes, uint32_t size) {
  return luna_vcpu_copy(v->vcpu, linear, bytes, size, LUNA_READ) == LUNA_OK;
}

/* Reads what it can: where the whole is not there, the parts in the address's own page. */
bool hvf_code_read(hvf_vcpu *v, uint64_t rip, hvf_code *c) {
  uint64_t access;
  if (luna_vcpu_get(v->vcpu, LUNA_CS_ACCESS, &access) != LUNA_OK ||
      luna_vcpu_get(v->vcpu, LUNA_CS_BASE, &c->base) != LUNA_OK) {
    return false;
  }
  c->bits = access & CS_DEFAULT_32 ? 32 : 16;
  uint64_t linear = (uint32_t)(c->base + rip);
  if (access & CS_LONG) {
    c->bits = 64;
    linear = rip;
  }
  c->before = smaller(HVF_LONGEST, rip < linear ? rip : linear);
  c->after = HVF_LONGEST;
  if (copy(v, linear - c->before, c->bytes + HVF_LONGEST - c->before, c->before + c->after)) {
    return true;
  }
  uint32_t in_page = (uint32_t)(linear % LUNA_PAGE_SIZE);
  c->before = smaller(c->before, in_page);
  c->after = smaller(c->after, LUNA_PAGE_SIZE - in_page);
  if (copy(v, linear - c->before, c->bytes + HVF_LONGEST - c->before, c->before + c->after)) {
    return true;
  }
  c->after = 0; /* an instruction that ended a page, before one that is not there */
  c->before = smaller(HVF_LONGEST, linear);
  return copy(v, linear - c->before, c->bytes + HVF_LONGEST - c->before, c->before);
}
