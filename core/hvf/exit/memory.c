/* SPDX-License-Identifier: MIT
 * The instruction whose access to memory exited: KVM tells the guest-physical address, and of a
 * write only when it is past the instruction. What the code around RIP accesses tells the rest. */
#include "hvf/exit/memory.h"

#include "hvf/exit/code.h"
#include "hvf/exit/operand.h"

static const uint64_t paging = UINT64_C(1) << 31;

static bool leads_to(hvf_vcpu *v, uint64_t linear, uint64_t gpa) {
  luna_walk walk;
  return luna_vcpu_translate(v->vcpu, linear, &walk) == LUNA_OK && walk.present && walk.gpa == gpa;
}

/* ---- Writes ---- */

static bool is_writer(hvf_vcpu *v, const hvf_operand *o) {
  const luna_exit *e = v->exit.e;
  return o->store && (o->size == 0 || o->size == e->size) && (!o->known || o->value == e->value) &&
         leads_to(v, o->linear[0], e->address);
}

/* The shortest will do: a prefix more makes no other write of it. */
uint32_t hvf_memory_writer(hvf_vcpu *v, uint64_t end) {
  hvf_code code;
  if (!hvf_code_read(v, end, &code)) {
    return 0;
  }
  for (uint32_t length = 1; length <= code.before; length++) {
    hvf_operand operand;
    if (hvf_operand_read(v, end - length, code.bits, code.bytes + HVF_LONGEST - length, length,
                         &operand) &&
        operand.length == length && is_writer(v, &operand)) {
      v->exit.wide = operand.size == 0;
      return length;
    }
  }
  return 0;
}

/* ---- Linear addresses ---- */

static bool at_operand(hvf_vcpu *v, const hvf_operand *o, uint64_t *linear) {
  const uint64_t gpa = v->exit.e->address;
  for (uint32_t i = 0; i < o->count; i++) {
    if (leads_to(v, o->linear[i], gpa)) {
      *linear = o->linear[i];
      return true;
    }
    const uint64_t next_page = (o->linear[i] & ~(uint64_t)(LUNA_PAGE_SIZE - 1)) + LUNA_PAGE_SIZE;
    if (gpa % LUNA_PAGE_SIZE == 0 && leads_to(v, next_page, gpa)) { /* the rest of an operand */
      *linear = next_page;
      return true;
    }
  }
  return false;
}

/* By the instruction that ends at RIP, or begins there. */
static bool data_address(hvf_vcpu *v, uint64_t rip, uint64_t *linear) {
  const bool write = v->exit.e->access == LUNA_WRITE;
  const uint32_t length = write && v->exit.stage == HVF_STAGE_OPEN ? hvf_memory_writer(v, rip) : 0;
  hvf_code code;
  hvf_operand operand;
  return (!write || length) && hvf_code_read(v, rip - length, &code) &&
         hvf_operand_read(v, rip - length, code.bits, code.bytes + HVF_LONGEST, code.after,
                          &operand) &&
         at_operand(v, &operand, linear);
}

static bool code_address(hvf_vcpu *v, uint64_t rip, uint64_t *linear) {
  const uint64_t long_code = UINT64_C(1) << 13;
  uint64_t base, access;
  if (luna_vcpu_get(v->vcpu, LUNA_CS_BASE, &base) != LUNA_OK ||
      luna_vcpu_get(v->vcpu, LUNA_CS_ACCESS, &access) != LUNA_OK) {
    return false;
  }
  *linear = access & long_code ? rip : (uint32_t)(base + rip);
  return true;
}

static bool find_linear(hvf_vcpu *v, uint64_t *linear) {
  const luna_exit *e = v->exit.e;
  uint64_t cr0, rip;
  if (luna_vcpu_get(v->vcpu, LUNA_CR0, &cr0) != LUNA_OK ||
      luna_vcpu_get(v->vcpu, LUNA_RIP, &rip) != LUNA_OK) {
    return false;
  }
  *linear = e->address;
  if (!(cr0 & paging)) {
    return true;
  }
  return e->access == LUNA_EXECUTE ? code_address(v, rip, linear) : data_address(v, rip, linear);
}

bool hvf_memory_linear(hvf_vcpu *v, uint64_t *linear) {
  hvf_exit *x = &v->exit;
  if (!x->linear_tried) {
    x->linear_known = find_linear(v, &x->linear);
    x->linear_tried = true;
  }
  *linear = x->linear;
  return x->linear_known;
}
