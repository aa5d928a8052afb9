/* SPDX-License-Identifier: MIT
 * Where an instruction's memory operands are, by its code and the registers (SDM Vol. 2, chapter 2
 * and appendix A), and which instructions write what the registers still have. */
#include "hvf/exit/operand.h"

#include "lunavisor.h"

#include <string.h>

enum {
  LEGACY_AREA = 512, /* of XSAVE: x87 and SSE (SDM Vol. 1, table 10-2) */
  MMX_AREA = 32,
  XMM_AREA = 160,
  NO_SEGMENT = -1,
  MAP_1 = 0, /* one-byte opcodes, and those behind 0F, 0F 38, 0F 3A */
  MAP_0F,
  MAP_38,
  MAP_3A,
  REX_W = 8,
  REX_R = 4,
  REX_X = 2,
  REX_B = 1
};

typedef struct reader {
  hvf_vcpu *v;
  uint64_t rip;
  const uint8_t *code;
  uint32_t size;
  uint32_t at;
  uint32_t bits;    /* of the code segment */
  uint32_t address; /* bits of addresses */
  uint32_t operand; /* bytes of operands that are not of one byte */
  uint8_t rex;
  bool has_rex;
  bool vector_prefix; /* VEX */
  uint8_t repeat;     /* F2 or F3 */
  bool operand_prefix;
  int segment; /* luna_register of its base; NO_SEGMENT */
  int map;
  uint8_t opcode;
  uint8_t modrm;
  bool short_of_code;
} reader;

static uint64_t reg(reader *r, int number) {
  static const int numbers[] = {LUNA_RAX, LUNA_RCX, LUNA_RDX, LUNA_RBX, LUNA_RSP, LUNA_RBP,
                                LUNA_RSI, LUNA_RDI, LUNA_R8,  LUNA_R9,  LUNA_R10, LUNA_R11,
                                LUNA_R12, LUNA_R13, LUNA_R14, LUNA_R15};
  uint64_t value = 0;
  luna_vcpu_get(r->v->vcpu, numbers[number], &value);
  return value;
}

static uint8_t next(reader *r) {
  if (r->at >= r->size) {
    r->short_of_code = true;
    return 0;
  }
  return r->code[r->at++];
}

/* `bytes` of a little-endian number, with its sign. */
static uint64_t number(reader *r, uint32_t bytes) {
  uint64_t value = 0;
  for (uint32_t i = 0; i < bytes; i++) {
    value |= (uint64_t)next(r) << 8 * i;
  }
  return bytes == 1   ? (uint64_t)(int8_t)value
         : bytes == 2 ? (uint64_t)(int16_t)value
         : bytes == 4 ? (uint64_t)(int32_t)value
                      : value;
}

/* ---- Prefixes and opcode ---- */

/* Whether the byte is a prefix other than REX and VEX; notes it. */
static bool note_prefix(reader *r, uint8_t byte) {
  switch (byte) {
    case 0x26:
      r->segment = LUNA_ES_BASE;
      return true;
    case 0x2e:
      r->segment = LUNA_CS_BASE;
      return true;
    case 0x36:
      r->segment = LUNA_SS_BASE;
      return true;
    case 0x3e:
      r->segment = LUNA_DS_BASE;
      return true;
    case 0x64:
      r->segment = LUNA_FS_BASE;
      return true;
    case 0x65:
      r->segment = LUNA_GS_BASE;
      return true;
    case 0x66:
      r->operand_prefix = true;
      return true;
    case 0x67:
      r->address = r->bits == 32 ? 16 : 32;
      return true;
    case 0xf2:
    case 0xf3:
      r->repeat = byte;
      return true;
    default:
      return byte == 0xf0;
  }
}

/* C5 and C4, where they are no LDS and LES. */
static bool read_vex(reader *r, uint8_t byte) {
  bool vex = (byte & 0xfe) == 0xc4 && r->at < r->size &&
             (r->bits == 64 || (r->code[r->at] & 0xc0) == 0xc0);
  if (!vex) {
    return false;
  }
  uint8_t first = next(r);
  uint8_t last = byte == 0xc5 ? first : next(r);
  r->rex =
      (uint8_t)(byte == 0xc5 ? (~first >> 5 & REX_R) : (~first >> 5 & 7) | (last >> 4 & REX_W));
  r->map = byte == 0xc5 ? MAP_0F : first & 0x1f;
  r->operand_prefix = (last & 3) == 1;
  r->repeat = (last & 3) == 2 ? 0xf3 : (last & 3) == 3 ? 0xf2 : 0;
  r->vector_prefix = true;
  r->opcode = next(r);
  return true;
}

static void read_opcode(reader *r) {
  uint8_t byte = next(r);
  while (!r->short_of_code && note_prefix(r, byte)) {
    byte = next(r);
  }
  if (r->bits == 64 && (byte & 0xf0) == 0x40) {
    r->rex = byte;
    r->has_rex = true;
    byte = next(r);
  }
  if (read_vex(r, byte)) {
    return;
  }
  if (byte == 0x0f) {
    r->map = MAP_0F;
    byte = next(r);
    if (byte == 0x38 || byte == 0x3a) {
      r->map = byte == 0x38 ? MAP_38 : MAP_3A;
      byte = next(r);
    }
  }
  r->opcode = byte;
}

static bool has_modrm(const reader *r) {
  const uint8_t op = r->opcode;
  switch (r->map) {
    case MAP_1:
      return (op < 0x40 && (op & 7) < 4) || op == 0x63 || op == 0x69 || op == 0x6b ||
             (op >= 0x80 && op <= 0x8f) || (op & 0xfe) == 0xc0 || (op >= 0xc4 && op <= 0xc7) ||
             (op & 0xfc) == 0xd0 || (op & 0xf8) == 0xd8 || (op & 0xf6) == 0xf6;
    case MAP_0F:
      return !((op >= 0x05 && op <= 0x0b) || op == 0x0e || (op & 0xf8) == 0x30 || op == 0x77 ||
               (op & 0xf0) == 0x80 || (op & 0xf6) == 0xa0 || op == 0xa2 || op == 0xaa ||
               (op & 0xf8) == 0xc8);
    default:
      return r->map == MAP_38 || r->map == MAP_3A;
  }
}

static uint32_t immediate_size(const reader *r) {
  const uint8_t op = r->opcode;
  const uint8_t extension = r->modrm >> 3 & 7;
  const uint32_t wide = r->operand == 2 ? 2 : 4;
  switch (r->map) {
    case MAP_1:
      if (op == 0x69 || op == 0x81 || op == 0xc7 || (op == 0xf7 && extension < 2)) {
        return wide;
      }
      return op == 0x6b || op == 0x80 || op == 0x82 || op == 0x83 || (op & 0xfe) == 0xc0 ||
             op == 0xc6 || (op == 0xf6 && extension < 2);
    case MAP_0F:
      return (op >= 0x70 && op <= 0x73) || op == 0xa4 || op == 0xac || op == 0xba || op == 0xc2 ||
             (op >= 0xc4 && op <= 0xc6);
    default:
      return r->map == MAP_3A;
  }
}

/* ---- Addresses ---- */

static uint64_t in_segment(reader *r, int segment, uint64_t offset) {
  const int used = r->segment == NO_SEGMENT ? segment : r->segment;
  uint64_t base = 0;
  if (r->bits != 64 || used == LUNA_FS_BASE || used == LUNA_GS_BASE) {
    luna_vcpu_get(r->v->vcpu, used, &base);
  }
  offset = r->address == 64 ? offset : r->address == 32 ? (uint32_t)offset : (uint16_t)offset;
  return r->bits == 64 ? base + offset : (uint32_t)(base + offset);
}

static uint64_t address_16(reader *r) {
  static const int8_t registers[8][2] = {{3, 6},  {3, 7},  {5, 6},  {5, 7},
                                         {6, -1}, {7, -1}, {5, -1}, {3, -1}};
  const uint8_t mod = r->modrm >> 6;
  const uint8_t rm = r->modrm & 7;
  if (mod == 0 && rm == 6) {
    return in_segment(r, LUNA_DS_BASE, number(r, 2));
  }
  uint64_t offset = reg(r, registers[rm][0]);
  if (registers[rm][1] >= 0) {
    offset += reg(r, registers[rm][1]);
  }
  if (mod) {
    offset += number(r, mod);
  }
  return in_segment(r, registers[rm][0] == 5 ? LUNA_SS_BASE : LUNA_DS_BASE, offset);
}

/* With a byte of scale, index and base. */
static uint64_t scaled(reader *r, int *base) {
  const uint8_t sib = next(r);
  const int index = (sib >> 3 & 7) | (r->rex & REX_X ? 8 : 0);
  *base = sib & 7;
  return index == 4 ? 0 : reg(r, index) << (sib >> 6);
}

static uint64_t address_32(reader *r) {
  const uint8_t mod = r->modrm >> 6;
  int base = r->modrm & 7;
  const bool has_sib = base == 4;
  uint64_t offset = has_sib ? scaled(r, &base) : 0;
  if (mod == 0 && base == 5) {
    offset += number(r, 4);
    if (!has_sib && r->bits == 64) { /* from the next instruction on */
      offset += r->rip + r->at + immediate_size(r);
    }
    return in_segment(r, LUNA_DS_BASE, offset);
  }
  const bool stack = base == 4 || base == 5;
  offset += reg(r, base | (r->rex & REX_B ? 8 : 0));
  if (mod) {
    offset += number(r, mod == 1 ? 1 : 4);
  }
  return in_segment(r, stack && !(r->rex & REX_B) ? LUNA_SS_BASE : LUNA_DS_BASE, offset);
}

/* ---- Stores ---- */

/* The general register of ModRM, as the first `size` bytes of memory would have it. */
static uint64_t register_value(reader *r, uint32_t size) {
  const int index = (r->modrm >> 3 & 7) | (r->rex & REX_R ? 8 : 0);
  const bool high = size == 1 && !r->has_rex && index >= 4;
  uint64_t value = high ? reg(r, index - 4) >> 8 : reg(r, index);
  return size == 8 ? value : value & ((UINT64_C(1) << 8 * size) - 1);
}

static void stores(hvf_operand *o, uint32_t size) {
  o->store = true;
  o->size = size;
}

static void stores_value(hvf_operand *o, uint32_t size, uint64_t value) {
  stores(o, size);
  o->known = true;
  o->value = size == 8 ? value : value & ((UINT64_C(1) << 8 * size) - 1);
}

/* What ADD, OR, AND, SUB or XOR make of memory, which is as before: the write has not been let. Not
 * where it cannot be read. The register tells a prefix of theirs from a byte before them. */
static void stores_result(reader *r, uint32_t size, hvf_operand *o) {
  const uint64_t by = register_value(r, size);
  uint64_t old = 0;
  if (luna_vcpu_copy(r->v->vcpu, o->linear[0], &old, size, LUNA_READ) != LUNA_OK) {
    stores(o, size);
    return;
  }
  switch (r->opcode >> 3 & 7) {
    case 0:
      stores_value(o, size, old + by);
      break;
    case 1:
      stores_value(o, size, old | by);
      break;
    case 4:
      stores_value(o, size, old & by);
      break;
    case 5:
      stores_value(o, size, old - by);
      break;
    default:
      stores_value(o, size, old ^ by);
  }
}

/* Of a vector, with the low 8 bytes of its register, where they are those that memory has first. */
static void stores_vector(reader *r, hvf_operand *o) {
  const uint8_t op = r->opcode;
  const bool mmx = (op == 0x7e || op == 0x7f || op == 0xe7) && !r->operand_prefix && !r->repeat &&
                   !r->vector_prefix;
  const size_t index = (r->modrm >> 3 & 7) | (r->rex & REX_R && !mmx ? 8 : 0);
  uint8_t area[LEGACY_AREA];
  stores(o, 0);
  if (op != 0x17 && luna_vcpu_get_xsave(r->v->vcpu, area, sizeof area) == LUNA_OK) {
    o->known = true;
    memcpy(&o->value, area + (mmx ? MMX_AREA : XMM_AREA) + 16 * index, sizeof o->value);
  }
}

/* Those that take the flags in, ADC, SBB, RCL and RCR, come to something else a second time; as do
 * those that change a register. */
static void note_store(reader *r, uint64_t immediate, hvf_operand *o) {
  const uint8_t op = r->opcode;
  const uint8_t extension = r->modrm >> 3 & 7;
  const uint32_t size = op & 1 ? r->operand : 1;
  if ((op & 0xfe) == 0x88) {
    stores_value(o, size, register_value(r, size));
  } else if ((op & 0xfe) == 0xc6 && extension == 0) {
    stores_value(o, size, immediate);
  } else if (op == 0x8c) {
    stores(o, 2);
  } else if (op < 0x38 && (op & 6) == 0) {
    if ((op & 0x38) != 0x10 && (op & 0x38) != 0x18) {
      stores_result(r, size, o);
    }
  } else if (op >= 0x80 && op <= 0x83) {
    o->store = extension != 2 && extension != 3 && extension != 7;
  } else if ((op & 0xfe) == 0xc0 || (op & 0xfc) == 0xd0) {
    o->store = extension != 2 && extension != 3;
  } else if ((op & 0xfe) == 0xf6) {
    o->store = extension == 2 || extension == 3;
  } else if ((op & 0xfe) == 0xfe) {
    o->store = extension < 2;
  }
  o->size = o->size ? o->size : size;
}

static void note_store_0f(reader *r, hvf_operand *o) {
  const uint8_t op = r->opcode;
  const bool load = op == 0x7e && r->repeat == 0xf3;
  if (op == 0xc3 && !r->vector_prefix) {
    stores_value(o, r->operand, register_value(r, r->operand));
  } else if ((op & 0xf0) == 0x90 && !r->vector_prefix) {
    stores(o, 1);
  } else if (!load && (op == 0x11 || op == 0x13 || op == 0x17 || op == 0x29 || op == 0x2b ||
                       op == 0x7e || op == 0x7f || op == 0xd6 || op == 0xe7)) {
    stores_vector(r, o);
  }
}

/* ---- Kinds of instructions ---- */

static void read_modrm(reader *r, hvf_operand *o) {
  r->modrm = next(r);
  if (r->modrm >> 6 == 3) {
    return;
  }
  o->linear[o->count++] = r->address == 16 ? address_16(r) : address_32(r);
  const uint64_t immediate = number(r, immediate_size(r));
  if (r->map == MAP_1) {
    note_store(r, immediate, o);
  } else if (r->map == MAP_0F) {
    note_store_0f(r, o);
  }
}

/* MOV between the accumulator and an address in the code. */
static void read_direct(reader *r, hvf_operand *o) {
  const uint32_t size = r->opcode & 1 ? r->operand : 1;
  o->linear[o->count++] = in_segment(r, LUNA_DS_BASE, number(r, r->address / 8));
  if (r->opcode & 2) {
    stores_value(o, size, reg(r, 0));
  }
}

static void read_string(reader *r, hvf_operand *o) {
  const uint8_t op = r->opcode;
  if (op < 0xa8 || (op & 0xfe) == 0xac) {
    o->linear[o->count++] = in_segment(r, LUNA_DS_BASE, reg(r, 6));
  }
  if ((op & 0xfe) != 0xac) {
    r->segment = NO_SEGMENT; /* of ES:RDI there is no other */
    o->linear[o->count++] = in_segment(r, LUNA_ES_BASE, reg(r, 7));
  }
}

/* POP and RET; what pushes is told when RSP has changed. */
static bool pops(const reader *r) {
  const uint8_t op = r->opcode;
  return r->map == MAP_1 && ((op & 0xf8) == 0x58 || op == 0x8f || (op & 0xfe) == 0xc2 ||
                             op == 0x9d || op == 0x07 || op == 0x17 || op == 0x1f || op == 0xcf);
}

static void read_stack(reader *r, hvf_operand *o) {
  uint64_t access = 0;
  luna_vcpu_get(r->v->vcpu, LUNA_SS_ACCESS, &access);
  r->address = r->bits == 64 ? 64 : access & (1 << 14) ? 32 : 16;
  r->segment = NO_SEGMENT;
  o->linear[o->count++] = in_segment(r, LUNA_SS_BASE, reg(r, 4));
}

bool hvf_operand_read(hvf_vcpu *v, uint64_t rip, uint32_t bits, const uint8_t *code, uint32_t size,
                      hvf_operand *operand) {
  reader r = {.v = v,
              .rip = rip,
              .code = code,
              .size = size,
              .bits = bits,
              .address = bits,
              .segment = NO_SEGMENT};
  *operand = (hvf_operand){0};
  read_opcode(&r);
  r.operand = r.rex & REX_W ? 8 : (bits == 16) == r.operand_prefix ? 4 : 2;
  const bool one_byte = r.map == MAP_1 && !r.vector_prefix;
  if (has_modrm(&r)) {
    read_modrm(&r, operand);
  } else if (one_byte && (r.opcode & 0xfc) == 0xa0) {
    read_direct(&r, operand);
  } else if (one_byte && ((r.opcode & 0xfc) == 0xa4 || (r.opcode & 0xfe) == 0xaa ||
                          (r.opcode & 0xfc) == 0xac)) {
    read_string(&r, operand);
  }
  operand->length = r.at;
  if (one_byte && pops(&r) && operand->count < HVF_OPERANDS) {
    read_stack(&r, operand);
  }
  return !r.short_of_code && operand->count > 0;
}
