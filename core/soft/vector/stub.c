/* SPDX-License-Identifier: MIT
 * Decoding vector instructions: what a stub has to have, which is the guest's bytes with the memory
 * operand made [rdi] and general registers made rax, rcx and rdx, by patching ModRM, REX, VEX,
 * EVEX. */
#include "soft/decode/decode.h"
#include "soft/vector/stub.h"

#include <string.h>

enum {
  EVEX_SIZE = 4,
  /* Fields of the encoding that hold a general register. */
  FIX_REG = 1,
  FIX_RM = 2,
  FIX_VVVV = 4
};

/* ---- The bytes ---- */

static bool is_environment(ZydisMnemonic mnemonic) {
  return mnemonic == ZYDIS_MNEMONIC_FNSTENV || mnemonic == ZYDIS_MNEMONIC_FNSAVE ||
         mnemonic == ZYDIS_MNEMONIC_FLDENV || mnemonic == ZYDIS_MNEMONIC_FRSTOR;
}

static soft_pointers pointers_of(const soft_parsed *parsed, soft_vector_kind kind) {
  uint8_t opcode = parsed->all.opcode;
  switch (parsed->all.mnemonic) {
    case ZYDIS_MNEMONIC_FNSTENV:
      return SOFT_POINTERS_STORED;
    case ZYDIS_MNEMONIC_FNSAVE:
      return SOFT_POINTERS_SAVED;
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FRSTOR:
      return SOFT_POINTERS_LOADED;
    case ZYDIS_MNEMONIC_FNINIT:
      return SOFT_POINTERS_CLEARED;
    case ZYDIS_MNEMONIC_FLDCW: /* the others that are about control */
    case ZYDIS_MNEMONIC_FNSTCW:
    case ZYDIS_MNEMONIC_FNSTSW:
    case ZYDIS_MNEMONIC_FNCLEX:
      return SOFT_POINTERS_KEPT;
    default:
      return kind == SOFT_X87 && opcode >= 0xd8 && opcode <= 0xdf ? SOFT_POINTERS_SET
                                                                  : SOFT_POINTERS_KEPT;
  }
}

/* Legacy prefixes without those of addresses and locks; REX apart. */
static unsigned copy_prefixes(soft_stub_key *key, const soft_parsed *parsed, uint8_t *rex) {
  const ZydisDecodedInstruction *all = &parsed->all;
  bool environment = is_environment(all->mnemonic), sized = false;
  unsigned at = 0;
  for (; at < all->raw.prefix_count; at++) {
    uint8_t byte = parsed->bytes[at];
    if (parsed->mode == SOFT_MODE_64 && (byte & 0xf0) == 0x40) {
      *rex = byte;
      continue;
    }
    *rex = 0; /* it is none where a prefix follows */
    sized |= byte == 0x66;
    if (memchr("\x26\x2e\x36\x3e\x64\x65\x67\xf0", byte, 8) || (byte == 0x66 && environment)) {
      continue;
    }
    key->bytes[key->size++] = byte;
  }
  if (environment && (parsed->mode == SOFT_MODE_16) != sized) {
    key->bytes[key->size++] = 0x66; /* the 16-bit image */
  }
  return at;
}

/* In 32-bit code, where it stands for a general register of 64 bits in place of memory too. */
static bool ignores_w(ZydisMnemonic mnemonic) {
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_VCVTSI2SS:
    case ZYDIS_MNEMONIC_VCVTSI2SD:
    case ZYDIS_MNEMONIC_VCVTSI2SH:
    case ZYDIS_MNEMONIC_VCVTUSI2SS:
    case ZYDIS_MNEMONIC_VCVTUSI2SD:
    case ZYDIS_MNEMONIC_VCVTUSI2SH:
    case ZYDIS_MNEMONIC_VMOVD:
    case ZYDIS_MNEMONIC_VPEXTRD:
    case ZYDIS_MNEMONIC_VPINSRD:
      return true;
    default:
      return false;
  }
}

/* R, X, B and vvvv are stored inverted. */
static unsigned copy_vex(soft_stub_key *key, const soft_parsed *parsed, unsigned fix, bool memory) {
  unsigned size = parsed->all.raw.vex.size;
  uint8_t *vex = &key->bytes[key->size];
  memcpy(vex, parsed->bytes + parsed->all.raw.vex.offset, size);
  key->size = (uint8_t)(key->size + size);
  bool legacy = parsed->mode != SOFT_MODE_64;
  if (size == 3 && (memory || fix & FIX_RM || legacy)) {
    vex[1] |= 0x60;
  }
  if (fix & FIX_REG) {
    vex[1] |= 0x80;
  }
  uint8_t *last = &vex[size - 1];
  if (fix & FIX_VVVV) {
    *last = (uint8_t)((*last & 0x87) | (~2 & 15) << 3);
  } else if (legacy) {
    *last |= 0x40; /* the registers 8 to 15 are not there */
  }
  if (legacy && size == 3 && (fix || ignores_w(parsed->all.mnemonic))) {
    *last &= 0x7f; /* nor are 64-bit operands */
  }
  return parsed->all.raw.vex.offset + size;
}

/* The upper bits of registers are stored inverted here too. */
static unsigned copy_evex(soft_stub_key *key, const soft_parsed *parsed, unsigned fix,
                          bool memory) {
  uint8_t *evex = &key->bytes[key->size];
  memcpy(evex, parsed->bytes + parsed->all.raw.evex.offset, EVEX_SIZE);
  key->size = (uint8_t)(key->size + EVEX_SIZE);
  if (memory || fix & FIX_RM) {
    evex[1] |= 0x60;
  }
  if (fix & FIX_REG) {
    evex[1] |= 0x80;
  }
  if (parsed->mode != SOFT_MODE_64) { /* the registers 8 to 31 are not there */
    evex[1] |= 0xf0;
    evex[2] |= 0x40;
    evex[3] |= 0x08;
    if (fix || ignores_w(parsed->all.mnemonic)) {
      evex[2] &= 0x7f; /* nor are 64-bit operands */
    }
  }
  return parsed->all.raw.evex.offset + EVEX_SIZE;
}

static void copy_rex(soft_stub_key *key, uint8_t rex, unsigned fix, bool memory) {
  if (rex) {
    rex &= memory || fix & FIX_RM ? 0xfc : 0xff;
    rex &= fix & FIX_REG ? 0xfb : 0xff;
    key->bytes[key->size++] = rex;
  }
}

/* A register in the upper half of the immediate. */
static bool has_immediate_register(const soft_parsed *parsed) {
  for (unsigned i = 0; i < parsed->all.operand_count_visible; i++) {
    if (parsed->operands[i].encoding == ZYDIS_OPERAND_ENCODING_IS4) {
      return true;
    }
  }
  return false;
}

/* In 32-bit code VZEROUPPER and VZEROALL are about the first eight registers: VMOVAPS of each to
 * itself, or VXORPS. */
static void put_clear(soft_stub_key *key, bool all) {
  for (unsigned i = 0; i < 8; i++) {
    uint8_t *at = &key->bytes[key->size];
    at[0] = 0xc5;
    at[1] = (uint8_t)(0x80 | (all ? ~i & 15 : 15u) << 3);
    at[2] = all ? 0x57 : 0x28;
    at[3] = (uint8_t)(0xc0 | i << 3 | i);
    key->size = (uint8_t)(key->size + 4);
  }
}

static void copy_bytes(soft_stub_key *key, const soft_parsed *parsed, unsigned fix) {
  const ZydisDecodedInstruction *all = &parsed->all;
  bool clears =
      all->mnemonic == ZYDIS_MNEMONIC_VZEROUPPER || all->mnemonic == ZYDIS_MNEMONIC_VZEROALL;
  if (clears && parsed->mode != SOFT_MODE_64) {
    put_clear(key, all->mnemonic == ZYDIS_MNEMONIC_VZEROALL);
    return;
  }
  bool modrm = all->attributes & ZYDIS_ATTRIB_HAS_MODRM;
  bool memory = modrm && all->raw.modrm.mod != 3;
  uint8_t rex = 0;
  unsigned at = copy_prefixes(key, parsed, &rex);
  if (all->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) {
    at = copy_vex(key, parsed, fix, memory);
  } else if (all->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX) {
    at = copy_evex(key, parsed, fix, memory);
  } else {
    copy_rex(key, rex, fix, memory);
  }
  unsigned until = modrm ? all->raw.modrm.offset : all->length;
  while (at < until) {
    key->bytes[key->size++] = parsed->bytes[at++];
  }
  if (!modrm) {
    return;
  }
  uint8_t byte = parsed->bytes[until];
  byte &= fix & FIX_REG ? (uint8_t)~0x38 : 0xff;
  if (memory) {
    byte = (uint8_t)((byte & 0x38) | RDI);
  } else if (fix & FIX_RM) {
    byte = (uint8_t)((byte & ~7) | RCX);
  }
  key->bytes[key->size++] = byte;
  at = until + 1;
  if (memory) {
    at += all->attributes & ZYDIS_ATTRIB_HAS_SIB ? 1 : 0;
    at += all->raw.disp.size / 8u;
  }
  while (at < all->length) {
    key->bytes[key->size++] = parsed->bytes[at++];
  }
  if (parsed->mode != SOFT_MODE_64 && has_immediate_register(parsed)) {
    key->bytes[key->size - 1] &= 0x7f;
  }
}

/* ---- What the instruction needs ---- */

static bool is_register(const ZydisDecodedOperand *operand, ZydisRegister first,
                        ZydisRegister last) {
  return operand->type == ZYDIS_OPERAND_TYPE_REGISTER && operand->reg.value >= first &&
         operand->reg.value <= last;
}

static void place(soft_stub_key *key, unsigned where, int number,
                  const ZydisDecodedOperand *operand) {
  key->gpr[where] = (int8_t)number;
  key->written[where] |= (operand->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
}

/* General registers by the field that holds them; hidden ones are rax, rcx and rdx themselves. */
static unsigned place_registers(soft_stub_key *key, const soft_parsed *parsed) {
  unsigned fix = 0;
  for (unsigned i = 0; i < parsed->all.operand_count; i++) {
    const ZydisDecodedOperand *operand = &parsed->operands[i];
    if (!is_register(operand, ZYDIS_REGISTER_AL, ZYDIS_REGISTER_R15)) {
      continue;
    }
    int number = ZydisRegisterGetId(operand->reg.value);
    switch (operand->encoding) {
      case ZYDIS_OPERAND_ENCODING_MODRM_REG:
        place(key, 0, number, operand);
        fix |= FIX_REG;
        break;
      case ZYDIS_OPERAND_ENCODING_MODRM_RM:
        place(key, 1, number, operand);
        fix |= FIX_RM;
        break;
      case ZYDIS_OPERAND_ENCODING_NDSNDD:
        place(key, 2, number, operand);
        fix |= FIX_VVVV;
        break;
      default:
        if (number <= RDX) {
          place(key, (unsigned)number, number, operand);
        }
        break;
    }
  }
  return fix;
}

static bool uses(const soft_parsed *parsed, ZydisRegister first, ZydisRegister last) {
  for (unsigned i = 0; i < parsed->all.operand_count; i++) {
    if (is_register(&parsed->operands[i], first, last)) {
      return true;
    }
  }
  return false;
}

/* These go by MXCSR even where they name no XMM register. */
static bool converts_to_mmx(ZydisMnemonic mnemonic) {
  return mnemonic == ZYDIS_MNEMONIC_CVTPS2PI || mnemonic == ZYDIS_MNEMONIC_CVTTPS2PI ||
         mnemonic == ZYDIS_MNEMONIC_CVTPD2PI || mnemonic == ZYDIS_MNEMONIC_CVTTPD2PI;
}

static soft_vector_kind kind_of(const soft_parsed *parsed) {
  const ZydisDecodedInstruction *all = &parsed->all;
  bool sse =
      uses(parsed, ZYDIS_REGISTER_XMM0, ZYDIS_REGISTER_YMM31) || converts_to_mmx(all->mnemonic);
  bool mmx = uses(parsed, ZYDIS_REGISTER_MM0, ZYDIS_REGISTER_MM7);
  if (all->meta.isa_ext == ZYDIS_ISA_EXT_X87 || all->mnemonic == ZYDIS_MNEMONIC_FISTTP) {
    return SOFT_X87;
  }
  if (all->meta.isa_ext == ZYDIS_ISA_EXT_AVX512EVEX ||
      all->meta.isa_ext == ZYDIS_ISA_EXT_AVX512VEX) {
    return SOFT_AVX512;
  }
  if (all->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) {
    bool avx =
        sse || all->meta.isa_ext == ZYDIS_ISA_EXT_AVX || all->meta.isa_ext == ZYDIS_ISA_EXT_AVX2;
    return avx ? SOFT_AVX : SOFT_GENERAL;
  }
  if (all->mnemonic == ZYDIS_MNEMONIC_EMMS || (mmx && !sse)) {
    return SOFT_MMX;
  }
  if (all->mnemonic == ZYDIS_MNEMONIC_ADCX || all->mnemonic == ZYDIS_MNEMONIC_ADOX) {
    return SOFT_GENERAL;
  }
  return mmx ? SOFT_SSE_MMX : SOFT_SSE;
}

/* Those that do not look whether an exception is pending. */
static bool waits(const soft_parsed *parsed, soft_vector_kind kind) {
  switch (parsed->all.mnemonic) {
    case ZYDIS_MNEMONIC_FNINIT:
    case ZYDIS_MNEMONIC_FNCLEX:
    case ZYDIS_MNEMONIC_FNSTCW:
    case ZYDIS_MNEMONIC_FNSTSW:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FNSAVE:
      return false;
    default:
      return kind == SOFT_X87 || kind == SOFT_MMX ||
             uses(parsed, ZYDIS_REGISTER_MM0, ZYDIS_REGISTER_MM7);
  }
}

/* Operands of 16 bytes are aligned with legacy encodings, but for these. */
static bool is_unaligned(ZydisMnemonic mnemonic) {
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_PCMPISTRM:
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_SHA1MSG1: /* processors differ; these do not mind */
    case ZYDIS_MNEMONIC_SHA1MSG2:
    case ZYDIS_MNEMONIC_SHA1NEXTE:
    case ZYDIS_MNEMONIC_SHA1RNDS4:
    case ZYDIS_MNEMONIC_SHA256MSG1:
    case ZYDIS_MNEMONIC_SHA256MSG2:
    case ZYDIS_MNEMONIC_SHA256RNDS2:
      return true;
    default:
      return false;
  }
}

/* With VEX and EVEX, only these are. */
static bool is_aligned_vex(ZydisMnemonic mnemonic) {
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_VMOVAPS:
    case ZYDIS_MNEMONIC_VMOVAPD:
    case ZYDIS_MNEMONIC_VMOVDQA:
    case ZYDIS_MNEMONIC_VMOVDQA32:
    case ZYDIS_MNEMONIC_VMOVDQA64:
    case ZYDIS_MNEMONIC_VMOVNTPS:
    case ZYDIS_MNEMONIC_VMOVNTPD:
    case ZYDIS_MNEMONIC_VMOVNTDQ:
    case ZYDIS_MNEMONIC_VMOVNTDQA:
      return true;
    default:
      return false;
  }
}

static const ZydisDecodedOperand *memory_of(const soft_parsed *parsed) {
  for (unsigned i = 0; i < parsed->all.operand_count; i++) {
    const ZydisDecodedOperand *operand = &parsed->operands[i];
    if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY && operand->mem.type != ZYDIS_MEMOP_TYPE_AGEN) {
      return operand;
    }
  }
  return NULL;
}

static void place_memory(soft_vector *vector, const soft_parsed *parsed,
                         const ZydisDecodedOperand *memory) {
  bool vex = parsed->all.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY;
  vector->size = memory->size / 8;
  vector->access = (uint8_t)((memory->actions & ZYDIS_OPERAND_ACTION_MASK_READ ? SOFT_READ : 0) |
                             (memory->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE ? SOFT_WRITE : 0));
  if (vex ? is_aligned_vex(parsed->all.mnemonic)
          : vector->size == 16 && !is_unaligned(parsed->all.mnemonic)) {
    vector->align = (uint8_t)(vector->size - 1);
  }
}

/* Instructions that the guest's bytes do not do: a partial store needs its old bytes, a hidden
 * address is not [rdi]. */
static void adapt(soft_vector *vector, const soft_parsed *parsed) {
  switch (parsed->all.mnemonic) {
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
      vector->access |= SOFT_READ;
      break;
    case ZYDIS_MNEMONIC_VCVTPS2PH:
      vector->stores_last = vector->access & SOFT_WRITE;
      break;
    default:
      break;
  }
}

/* What CPUID never shows; and AMD's own, of which the host is asked before an operand is looked
 * for. */
static bool is_shown(ZydisISAExt extension) {
  uint32_t eax = 0x80000001, ebx, ecx = 0, edx;
  switch (extension) {
    case ZYDIS_ISA_EXT_XOP:
    case ZYDIS_ISA_EXT_KNC:
    case ZYDIS_ISA_EXT_KNCE:
    case ZYDIS_ISA_EXT_KNCV:
    case ZYDIS_ISA_EXT_AVX_VNNI:
    case ZYDIS_ISA_EXT_KEYLOCKER:
    case ZYDIS_ISA_EXT_KEYLOCKER_WIDE:
      return false;
    case ZYDIS_ISA_EXT_AVX512EVEX:
    case ZYDIS_ISA_EXT_AVX512VEX:
      return soft_has_avx512();
    case ZYDIS_ISA_EXT_SSE4A:
    case ZYDIS_ISA_EXT_FMA4:
      __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
      return ecx >> (extension == ZYDIS_ISA_EXT_SSE4A ? 6 : 16) & 1;
    default:
      return true;
  }
}

static bool is_known(const soft_parsed *parsed, const ZydisDecodedOperand *memory) {
  ZydisInstructionEncoding encoding = parsed->all.encoding;
  return is_shown(parsed->all.meta.isa_ext) &&
         (encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY ||
          encoding == ZYDIS_INSTRUCTION_ENCODING_VEX ||
          encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX) &&
         !(memory && (memory->mem.type == ZYDIS_MEMOP_TYPE_VSIB || memory->size > 128 * 8));
}

static void set_flags(soft_stub_key *key, const ZydisAccessedFlags *flags) {
  if (!flags) {
    return;
  }
  uint32_t written = flags->modified | flags->set_0 | flags->set_1;
  key->flags_out = written;
  key->flags_in = flags->tested || (written && (written & FLAGS_ARITHMETIC) != FLAGS_ARITHMETIC);
}

void soft_decode_vector(soft_cpu *cpu, soft_insn *insn, const soft_parsed *parsed) {
  const ZydisDecodedOperand *memory = memory_of(parsed);
  insn->run = soft_op_ud;
  if (soft_decode_gather(cpu, insn, parsed) || !is_known(parsed, memory)) {
    return;
  }
  soft_stub_key key = {.gpr = {-1, -1, -1}};
  unsigned fix = place_registers(&key, parsed);
  soft_vector *vector = soft_arena_take(cpu, sizeof *vector);
  memset(vector, 0, sizeof *vector);
  key.kind = vector->kind = kind_of(parsed);
  key.waits = vector->waits = waits(parsed, vector->kind);
  vector->pointers = pointers_of(parsed, vector->kind);
  key.points = vector->pointers == SOFT_POINTERS_SET;
  if (key.points) {
    vector->fop =
        (uint16_t)((parsed->all.opcode & 7) << 8 | parsed->bytes[parsed->all.raw.modrm.offset]);
  }
  if (memory) {
    place_memory(vector, parsed, memory);
  }
  adapt(vector, parsed);
  set_flags(&key, parsed->all.cpu_flags);
  vector->flags_in = key.flags_in;
  key.alone = !vector->size && !key.flags_in && vector->pointers <= SOFT_POINTERS_SET;
  copy_bytes(&key, parsed, fix);
  soft_stub_code code;
  soft_stub_assemble(&code, &key);
  const uint8_t *stub = soft_stub_find(cpu, &code);
  if (!stub) {
    return;
  }
  const uint8_t *entry = stub + code.entry;
  memcpy(&vector->code, &entry, sizeof entry);
  insn->aux = vector;
  insn->run = soft_op_vector;
  if (key.alone) {
    memcpy(&insn->run, &stub, sizeof stub);
  } else if (vector->size && !vector->waits && !vector->flags_in && !vector->pointers) {
    insn->run = vector->access & SOFT_WRITE ? soft_op_vector_store : soft_op_vector_load;
    soft_decode_masked(insn, vector, parsed);
    soft_decode_evex(insn, vector, parsed, memory);
  }
}
