/* SPDX-License-Identifier: MIT
 * IN, OUT, INS and OUTS as the guest's code has them (SDM Vol. 2): KVM tells port, size and
 * direction, but not the instruction's length and form. */
#include "hvf/exit/port.h"

#include "hvf/exit/code.h"
#include "hvf/exit/prefix.h"
#include "hvf/exit/string.h"

/* Decodes the port instruction at the start of `bytes`; false if there is none. */
static bool decode(const uint8_t *bytes, uint32_t size, uint32_t bits, hvf_port *port) {
  hvf_prefixes p = hvf_prefixes_read(bytes, size, bits);
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
      .loads = string && opcode & 2,
      .stores = string && !(opcode & 2),
      .immediate = immediate,
      .address_bits = hvf_prefixes_address(bits, p.address),
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
  if (at && port->string && port->repeat && hvf_string_left(v, port)) {
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
