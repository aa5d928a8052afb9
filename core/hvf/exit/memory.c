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
  const uint64_t value = e->size < 8 ? o->value & ((UINT64_C(1) << 8 * e->size) - 1) : o->value;
  return o->store && (o->size == 0 || o->size == e->size) && (!o->known || value == e->value) &&
         leads_to(v, o->linear[0], e->address);
}

/* Of a vector, the prefixes say which one it is and how much of it is written, of which KVM tells
 * the first part alone: the longest, then. */
static uint32_t prefixed_writer(hvf_vcpu *v, uint64_t end, const hvf_code *code, uint32_t length) {
  for (uint32_t longer = length + 1; longer <= code->before; longer++) {
    const uint8_t byte = code->bytes[HVF_LONGEST - longer];
    const bool mandatory = byte == 0x66 || byte == 0xf2 || byte == 0xf3;
    hvf_operand operand;
    if ((!mandatory && (byte & 0xf0) != 0x40) ||
        !hvf_operand_read(v, end - longer, code->bits, code->bytes + HVF_LONGEST - longer, longer,
                          &operand) ||
        operand.length != longer || !is_writer(v, &operand)) {
      break;
    }
    length = longer;
  }
  return length;
}

/* Otherwise the shortest will do: a prefix more makes no other write of it. */
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
      return v->exit.wide ? prefixed_writer(v, end, &code, length) : length;
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

static bool at_register(hvf_vcpu *v, uint32_t bits, int base, int offset, int64_t by,
                        uint64_t *linear) {
  uint64_t start = 0, at = 0, stack = 0;
  luna_vcpu_get(v->vcpu, offset, &at);
  luna_vcpu_get(v->vcpu, LUNA_SS_ACCESS, &stack);
  if (bits != 64) {
    const bool wide = offset == LUNA_RSP ? stack & (1 << 14) : bits == 32;
    at = wide ? at : at & 0xffff;
    luna_vcpu_get(v->vcpu, base, &start);
  }
  *linear = start + at + (uint64_t)by;
  *linear = bits == 64 ? *linear : (uint32_t)*linear;
  return leads_to(v, *linear, v->exit.e->address);
}

/* Of a write whose instruction cannot be gone back to. By one that ends at RIP and has an operand
 * there, by what has been pushed, by a string that has moved on. */
static bool address_behind(hvf_vcpu *v, uint64_t rip, uint64_t *linear) {
  const int64_t size = v->exit.e->size;
  hvf_code code;
  hvf_operand operand;
  if (!hvf_code_read(v, rip, &code)) {
    return false;
  }
  for (uint32_t length = 2; length <= code.before; length++) {
    if (hvf_operand_read(v, rip - length, code.bits, code.bytes + HVF_LONGEST - length, length,
                         &operand) &&
        operand.length == length && at_operand(v, &operand, linear)) {
      return true;
    }
  }
  return at_register(v, code.bits, LUNA_SS_BASE, LUNA_RSP, 0, linear) ||
         at_register(v, code.bits, LUNA_ES_BASE, LUNA_RDI, -size, linear) ||
         at_register(v, code.bits, LUNA_ES_BASE, LUNA_RDI, size, linear);
}

/* By the instruction that ends at RIP, or begins there. */
static bool data_address(hvf_vcpu *v, uint64_t rip, uint64_t *linear) {
  const bool write = v->exit.e->access == LUNA_WRITE;
  const bool open = v->exit.stage == HVF_STAGE_OPEN;
  const uint32_t length = write && open ? hvf_memory_writer(v, rip) : 0;
  hvf_code code;
  hvf_operand operand;
  if (write && !length) {
    return open && address_behind(v, rip, linear);
  }
  return hvf_code_read(v, rip - length, &code) &&
         hvf_operand_read(v, rip - length, code.bits, code.bytes + HVF_LONGEST, code.after,
                          &operand) &&
         at_operand(v, &operand, linear);
}

/* What the processor reads and writes by itself, such as the accessed bit of a descriptor. */
static bool table_address(hvf_vcpu *v, uint64_t *linear) {
  static const int tables[][2] = {{LUNA_GDTR_BASE, LUNA_GDTR_LIMIT},
                                  {LUNA_LDTR_BASE, LUNA_LDTR_LIMIT},
                                  {LUNA_IDTR_BASE, LUNA_IDTR_LIMIT},
                                  {LUNA_TR_BASE, LUNA_TR_LIMIT}};
  const uint64_t page = LUNA_PAGE_SIZE, offset = v->exit.e->address % page;
  for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
    uint64_t base = 0, limit = 0;
    luna_vcpu_get(v->vcpu, tables[i][0], &base);
    luna_vcpu_get(v->vcpu, tables[i][1], &limit);
    uint64_t at = base - base % page + offset;
    for (at += at < base ? page : 0; at - base <= (limit & 0xffff); at += page) {
      if (leads_to(v, at, v->exit.e->address)) {
        *linear = at;
        return true;
      }
    }
  }
  return false;
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
  return e->access == LUNA_EXECUTE ? code_address(v, rip, linear)
                                   : data_address(v, rip, linear) || table_address(v, linear);
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
