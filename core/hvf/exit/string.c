/* SPDX-License-Identifier: MIT
 * MOVS, STOS and their kind as the guest's code has them (SDM Vol. 2). */
#include "hvf/exit/string.h"

#include "hvf/exit/code.h"
#include "hvf/exit/prefix.h"

/* ---- Counting ---- */

bool hvf_string_left(hvf_vcpu *v, const hvf_port *string) {
  uint64_t count;
  return luna_vcpu_get(v->vcpu, LUNA_RCX, &count) == LUNA_OK &&
         count << (64 - string->address_bits) != 0;
}

/* `by` elements on or back in a string, in the bits that the address size leaves. */
static uint64_t stepped(uint64_t value, int64_t by, uint8_t bits) {
  uint64_t mask = UINT64_MAX >> (64 - bits);
  uint64_t moved = (value + (uint64_t)by) & mask;
  return bits == 16 ? (value & ~mask) | moved : moved;
}

void hvf_string_uncount(const hvf_port *string, uint64_t *values) {
  const uint64_t direction_flag = 0x400;
  const int64_t step = values[LUNA_RFLAGS] & direction_flag ? -(int64_t)string->size : string->size;
  if (string->loads) {
    values[LUNA_RSI] = stepped(values[LUNA_RSI], -step, string->address_bits);
  }
  if (string->stores) {
    values[LUNA_RDI] = stepped(values[LUNA_RDI], -step, string->address_bits);
  }
  if (string->repeat) {
    values[LUNA_RCX] = stepped(values[LUNA_RCX], 1, string->address_bits);
  }
}

/* ---- Finding ---- */

/* MOVS or STOS at the start of `bytes`; false if there is none. */
static bool decode(const uint8_t *bytes, uint32_t size, uint32_t bits, hvf_port *string) {
  const hvf_prefixes p = hvf_prefixes_read(bytes, size, bits);
  const uint8_t opcode = p.count < size ? bytes[p.count] : 0;
  const bool moves = (opcode & 0xfe) == 0xa4;
  if (!moves && (opcode & 0xfe) != 0xaa) {
    return false;
  }
  const uint8_t wide = p.wide ? 8 : (bits == 16) == p.operand ? 4 : 2;
  *string = (hvf_port){
      .length = (uint8_t)(p.count + 1),
      .size = opcode & 1 ? wide : 1,
      .string = true,
      .repeat = p.repeat,
      .loads = moves,
      .stores = true,
      .address_bits = hvf_prefixes_address(bits, p.address),
      .segment = p.segment,
  };
  return true;
}

/* By the segment as the VMCS numbers them. */
static uint64_t linear_at(hvf_vcpu *v, const hvf_code *c, int segment, uint64_t offset,
                          uint8_t address_bits) {
  static const int bases[] = {LUNA_ES_BASE, LUNA_CS_BASE, LUNA_SS_BASE,
                              LUNA_DS_BASE, LUNA_FS_BASE, LUNA_GS_BASE};
  const int fs = 4;
  uint64_t base = 0;
  if (c->bits != 64 || segment >= fs) {
    luna_vcpu_get(v->vcpu, bases[segment], &base);
  }
  base += offset & UINT64_MAX >> (64 - address_bits);
  return c->bits == 64 ? base : (uint32_t)base;
}

/* Whether the element before those that the registers are at is that of the exit. */
static bool wrote(hvf_vcpu *v, const hvf_code *c, const hvf_port *string) {
  const luna_exit *e = v->exit.e;
  uint64_t values[LUNA_RFLAGS + 1];
  luna_walk walk;
  for (int reg = 0; reg <= LUNA_RFLAGS; reg++) {
    if (luna_vcpu_get(v->vcpu, reg, &values[reg]) != LUNA_OK) {
      return false;
    }
  }
  hvf_string_uncount(string, values);
  const uint64_t to = linear_at(v, c, 0, values[LUNA_RDI], string->address_bits);
  if (string->size != e->size || luna_vcpu_translate(v->vcpu, to, &walk) != LUNA_OK ||
      !walk.present || walk.gpa != e->address) {
    return false;
  }
  uint64_t value = values[LUNA_RAX];
  if (string->loads) {
    const uint64_t from = linear_at(v, c, string->segment, values[LUNA_RSI], string->address_bits);
    if (luna_vcpu_copy(v->vcpu, from, &value, string->size, LUNA_READ) != LUNA_OK) {
      return false;
    }
  }
  return !((value ^ e->value) << (64 - 8 * string->size));
}

/* Bytes before it that are no prefixes of it but might be do no harm: with them it is the same
 * element. So it is taken with all of them. */
bool hvf_string_writer(hvf_vcpu *v, uint64_t rip, hvf_port *string, uint64_t *start) {
  hvf_code c;
  hvf_port one;
  if (!hvf_code_read(v, rip, &c)) {
    return false;
  }
  if (decode(c.bytes + HVF_LONGEST, c.after, c.bits, string) && string->repeat &&
      wrote(v, &c, string)) {
    *start = rip;
    return true;
  }
  bool found = false;
  for (uint32_t length = 1; length <= c.before; length++) {
    if (decode(c.bytes + HVF_LONGEST - length, length, c.bits, &one) && one.length == length &&
        !(one.repeat && hvf_string_left(v, &one)) && wrote(v, &c, &one)) {
      *string = one;
      *start = rip - length;
      found = true;
    }
  }
  return found;
}

uint32_t hvf_string_length(hvf_vcpu *v, uint64_t rip) {
  hvf_code c;
  if (!hvf_code_read(v, rip, &c)) {
    return 0;
  }
  const uint8_t *bytes = c.bytes + HVF_LONGEST;
  uint32_t count = hvf_prefixes_read(bytes, c.after, c.bits).count;
  /* MOVS, CMPS: A4 to A7; STOS, LODS, SCAS: AA to AF */
  bool string = count < c.after &&
                ((bytes[count] & 0xfc) == 0xa4 || (bytes[count] >= 0xaa && bytes[count] <= 0xaf));
  return string ? count + 1 : 0;
}
