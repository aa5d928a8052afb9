/* SPDX-License-Identifier: MIT
 * IN, OUT, INS and OUTS as the guest's code has them (SDM Vol. 2): KVM tells port, size and
 * direction, but not the instruction's length and form. */
#include "hvf/exit/port.h"

#include "hvf/exit/code.h"

#include <string.h>

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

static bool find_at(hvf_vcpu *v, const luna_exit *e, const hvf_code *c, hvf_port *port) {
  const uint8_t *bytes = c->bytes + HVF_LONGEST;
  return decode(bytes, c->after, c->bits, port) && matches(v, e, bytes, port);
}

/* Of the ways to read the bytes before the address, a string instruction is taken with all its
 * prefixes, any other with as few as will do: only then do the prefixes make a difference. */
static bool find_before(hvf_vcpu *v, const luna_exit *e, const hvf_code *c, hvf_port *port) {
  bool found = false;
  for (uint32_t length = 1; length <= c->before && (!found || port->string); length++) {
    const uint8_t *bytes = c->bytes + HVF_LONGEST - length;
    hvf_port one;
    if (decode(bytes, length, c->bits, &one) && one.length == length &&
        matches(v, e, bytes, &one)) {
      *port = one;
      found = true;
    }
  }
  return found;
}

bool hvf_port_before(hvf_vcpu *v, const luna_exit *e, uint64_t end, hvf_port *port) {
  hvf_code c;
  return hvf_code_read(v, end, &c) && find_before(v, e, &c, port);
}

static bool elements_left(hvf_vcpu *v, const hvf_port *port) {
  uint64_t count;
  return luna_vcpu_get(v->vcpu, LUNA_RCX, &count) == LUNA_OK &&
         count << (64 - port->address_bits) != 0;
}

/* KVM leaves RIP at IN and INS, and at OUTS with elements left; whether it is at or behind the last
 * OUTS and OUT depends on how KVM came to emulate it. */
hvf_place hvf_port_find(hvf_vcpu *v, const luna_exit *e, uint64_t rip, hvf_port *port) {
  hvf_code c;
  hvf_port before;
  if (!hvf_code_read(v, rip, &c)) {
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
  hvf_code c;
  if (!hvf_code_read(v, rip, &c)) {
    return 0;
  }
  const uint8_t *bytes = c.bytes + HVF_LONGEST;
  uint32_t count = read_prefixes(bytes, c.after, c.bits).count;
  /* MOVS, CMPS: A4 to A7; STOS, LODS, SCAS: AA to AF */
  bool string = count < c.after &&
                ((bytes[count] & 0xfc) == 0xa4 || (bytes[count] >= 0xaa && bytes[count] <= 0xaf));
  return string ? count + 1 : 0;
}
