/* SPDX-License-Identifier: MIT
 * IN, OUT, INS and OUTS as the guest's code has them (SDM Vol. 2): KVM tells port, size and
 * direction, but not the instruction's length and form. */
#include "hvf/exit/port.h"

#include <string.h>

enum {
  LONGEST = 15, /* of any instruction */
  CS_LONG = 1 << 13,
  CS_DEFAULT_32 = 1 << 14
};

/* The code around an address: `before` bytes up to it, and `after` bytes from it. */
typedef struct code {
  uint64_t base; /* linear address of offset 0 in the code segment */
  uint32_t bits; /* of the segment: 16, 32 or 64 */
  uint32_t before;
  uint32_t after;
  uint8_t bytes[2 * LONGEST]; /* the address is in the middle */
} code;

static uint32_t smaller(uint64_t a, uint64_t b) {
  return (uint32_t)(a < b ? a : b);
}

static bool copy(hvf_vcpu *v, uint64_t linear, uint8_t *bytes, uint32_t size) {
  return luna_vcpu_copy(v->vcpu, linear, bytes, size, LUNA_READ) == LUNA_OK;
}

/* Reads what it can: where the whole is not there, the parts in the address's own page. */
static bool read_code(hvf_vcpu *v, uint64_t rip, code *c) {
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
  c->before = smaller(LONGEST, rip < linear ? rip : linear);
  c->after = LONGEST;
  if (copy(v, linear - c->before, c->bytes + LONGEST - c->before, c->before + c->after)) {
    return true;
  }
  uint32_t in_page = (uint32_t)(linear % LUNA_PAGE_SIZE);
  c->before = smaller(c->before, in_page);
  c->after = smaller(c->after, LUNA_PAGE_SIZE - in_page);
  if (copy(v, linear - c->before, c->bytes + LONGEST - c->before, c->before + c->after)) {
    return true;
  }
  c->after = 0; /* an instruction that ended a page, before one that is not there */
  c->before = smaller(LONGEST, linear);
  return copy(v, linear - c->before, c->bytes + LONGEST - c->before, c->before);
}

typedef struct prefixes {
  uint32_t count;
  bool operand; /* 66 */
  bool address; /* 67 */
  bool repeat;  /* F2, F3 */
  uint8_t segment;
} prefixes;

enum {
  SEGMENT_DS = 3
};

/* The number that the VMCS has for the segment of an override prefix; -1 for another byte. */
static int override_of(uint8_t byte) {
  static const uint8_t bytes[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65};
  const uint8_t *found = memchr(bytes, byte, sizeof bytes);
  return found ? (int)(found - bytes) : -1;
}

static prefixes read_prefixes(const uint8_t *bytes, uint32_t size, uint32_t bits) {
  prefixes p = {.segment = SEGMENT_DS};
  for (; p.count < size; p.count++) {
    uint8_t byte = bytes[p.count];
    if (override_of(byte) >= 0) {
      p.segment = (uint8_t)override_of(byte);
    } else if (byte == 0x66) {
      p.operand = true;
    } else if (byte == 0x67) {
      p.address = true;
    } else if (byte == 0xf2 || byte == 0xf3) {
      p.repeat = true;
    } else {
      break;
    }
  }
  if (bits == 64 && p.count < size && (bytes[p.count] & 0xf0) == 0x40) { /* REX */
    p.count++;
  }
  return p;
}

static uint8_t address_bits(uint32_t bits, bool other) {
  switch (bits) {
    case 16:
      return other ? 32 : 16;
    case 32:
      return other ? 16 : 32;
    default:
      return other ? 32 : 64;
  }
}

/* Decodes the port instruction at the start of `bytes`; false if there is none. */
static bool decode(const uint8_t *bytes, uint32_t size, uint32_t bits, hvf_port *port) {
  prefixes p = read_prefixes(bytes, size, bits);
  if (p.count >= size) {
    return false;
  }
  uint8_t opcode = bytes[p.count];
  bool immediate = (opcode & 0xfc) == 0xe4;
  bool string = (opcode & 0xfc) == 0x6c;
  if (!immediate && !string && (opcode & 0xfc) != 0xec) {
    return false;
  }
  uint8_t wide = (bits == 16) == p.operand ? 4 : 2;
  *port = (hvf_port){
      .length = (uint8_t)(p.count + 1 + immediate),
      .size = opcode & 1 ? wide : 1,
      .in = !(opcode & 2),
      .string = string,
      .repeat = string && p.repeat,
      .immediate = immediate,
      .address_bits = address_bits(bits, p.address),
      .segment = opcode & 2 ? p.segment : 0,
  };
  return port->length <= size;
}

/* Whether it is the instruction of the exit. `bytes` begin with it. */
static bool matches(hvf_vcpu *v, const luna_exit *e, const uint8_t *bytes, const hvf_port *port) {
  uint64_t number;
  if (port->size != e->size || port->in != (e->access == LUNA_READ)) {
    return false;
  }
  if (port->immediate) {
    number = bytes[port->length - 1];
  } else if (luna_vcpu_get(v->vcpu, LUNA_RDX, &number) != LUNA_OK) {
    return false;
  }
  return (uint16_t)number == e->address;
}

static bool find_at(hvf_vcpu *v, const luna_exit *e, const code *c, hvf_port *port) {
  const uint8_t *bytes = c->bytes + LONGEST;
  return decode(bytes, c->after, c->bits, port) && matches(v, e, bytes, port);
}

/* Of the ways to read the bytes before the address, a string instruction is taken with all its
 * prefixes, any other with as few as will do: only then do the prefixes make a difference. */
static bool find_before(hvf_vcpu *v, const luna_exit *e, const code *c, hvf_port *port) {
  bool found = false;
  for (uint32_t length = 1; length <= c->before && (!found || port->string); length++) {
    const uint8_t *bytes = c->bytes + LONGEST - length;
    hvf_port one;
    if (decode(bytes, length, c->bits, &one) && one.length == length &&
        matches(v, e, bytes, &one)) {
      *port = one;
      found = true;
    }
  }
  return found;
}

bool hvf_code_before(hvf_vcpu *v, uint64_t end, uint8_t *bytes, uint32_t size) {
  code c;
  if (!read_code(v, end, &c) || c.before < size) {
    return false;
  }
  memcpy(bytes, c.bytes + LONGEST - size, size);
  return true;
}

bool hvf_port_before(hvf_vcpu *v, const luna_exit *e, uint64_t end, hvf_port *port) {
  code c;
  return read_code(v, end, &c) && find_before(v, e, &c, port);
}

static bool elements_left(hvf_vcpu *v, const hvf_port *port) {
  uint64_t count;
  return luna_vcpu_get(v->vcpu, LUNA_RCX, &count) == LUNA_OK &&
         count << (64 - port->address_bits) != 0;
}

/* KVM leaves RIP at IN and INS, and at OUTS with elements left; whether it is at or behind the last
 * OUTS and OUT depends on how KVM came to emulate it. */
hvf_place hvf_port_find(hvf_vcpu *v, const luna_exit *e, uint64_t rip, hvf_port *port) {
  code c;
  hvf_port before;
  if (!read_code(v, rip, &c)) {
    return HVF_PLACE_UNKNOWN;
  }
  bool at = find_at(v, e, &c, port);
  if (e->access == LUNA_READ) {
    return at ? HVF_PLACE_AT : HVF_PLACE_UNKNOWN;
  }
  if (at && port->string && port->repeat && elements_left(v, port)) {
    return HVF_PLACE_AT;
  }
  bool behind = find_before(v, e, &c, &before);
  if (at == behind) {
    return HVF_PLACE_UNKNOWN;
  }
  if (behind) {
    *port = before;
  }
  return at ? HVF_PLACE_AT : HVF_PLACE_BEHIND;
}

uint32_t hvf_string_length(hvf_vcpu *v, uint64_t rip) {
  code c;
  if (!read_code(v, rip, &c)) {
    return 0;
  }
  const uint8_t *bytes = c.bytes + LONGEST;
  uint32_t count = read_prefixes(bytes, c.after, c.bits).count;
  /* MOVS, CMPS: A4 to A7; STOS, LODS, SCAS: AA to AF */
  bool string = count < c.after &&
                ((bytes[count] & 0xfc) == 0xa4 || (bytes[count] >= 0xaa && bytes[count] <= 0xaf));
  return string ? count + 1 : 0;
}
