/* SPDX-License-Identifier: MIT
 * From bytes to instructions, by Zydis. */
#include "soft/decode/decode.h"

#include <string.h>

enum {
  LONGEST = 15 /* bytes of an instruction */
};

static ZydisDecoder decoders[3];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_decoders(void) {
  ZydisDecoderInit(&decoders[SOFT_MODE_16], ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
  ZydisDecoderInit(&decoders[SOFT_MODE_32], ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
  ZydisDecoderInit(&decoders[SOFT_MODE_64], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  for (unsigned mode = 0; mode < sizeof decoders / sizeof *decoders; mode++) { /* NOPs without it */
    ZydisDecoderEnableMode(&decoders[mode], ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
    ZydisDecoderEnableMode(&decoders[mode], ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
  }
}

static bool has_vector_operand(const soft_parsed *parsed) {
  for (unsigned i = 0; i < parsed->all.operand_count_visible; i++) {
    const ZydisDecodedOperand *operand = &parsed->operands[i];
    if (operand->type == ZYDIS_OPERAND_TYPE_REGISTER && operand->reg.value >= ZYDIS_REGISTER_ST0 &&
        operand->reg.value <= ZYDIS_REGISTER_ZMM31) {
      return true;
    }
  }
  return false;
}

/* Conversions to general registers show no vector register where their source is memory. */
static bool is_vector_extension(ZydisISAExt extension) {
  switch (extension) {
    case ZYDIS_ISA_EXT_X87:
    case ZYDIS_ISA_EXT_MMX:
    case ZYDIS_ISA_EXT_SSE:
    case ZYDIS_ISA_EXT_SSE2:
    case ZYDIS_ISA_EXT_SSE3:
    case ZYDIS_ISA_EXT_SSE4:
      return true;
    default:
      return false;
  }
}

/* What the host's processor does: x87, MMX, SSE, AVX, and BMI's and ADX's work on general
 * registers. */
static bool is_vector(const soft_parsed *parsed) {
  const ZydisDecodedInstruction *all = &parsed->all;
  switch (all->mnemonic) {
    case ZYDIS_MNEMONIC_MULX:
      return false;
    case ZYDIS_MNEMONIC_ADCX:
    case ZYDIS_MNEMONIC_ADOX:
      return true;
    default:
      return all->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY || has_vector_operand(parsed) ||
             (is_vector_extension(all->meta.isa_ext) && !soft_row_of(all->mnemonic));
  }
}

static bool alu_of(ZydisMnemonic mnemonic, soft_alu *operation) {
  static const ZydisMnemonic names[] = {
      ZYDIS_MNEMONIC_ADD, ZYDIS_MNEMONIC_OR,  ZYDIS_MNEMONIC_ADC,
      ZYDIS_MNEMONIC_SBB, ZYDIS_MNEMONIC_AND, ZYDIS_MNEMONIC_SUB,
      ZYDIS_MNEMONIC_XOR, ZYDIS_MNEMONIC_CMP, ZYDIS_MNEMONIC_TEST,
  };
  for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
    if (names[i] == mnemonic) {
      *operation = (soft_alu)i;
      return true;
    }
  }
  return false;
}

/* Jcc, SETcc, CMOVcc. Whether the block ends. */
static bool shape_conditional(soft_insn *insn, const soft_parsed *parsed, int condition) {
  insn->condition = (uint8_t)condition;
  if (parsed->all.meta.category == ZYDIS_CATEGORY_COND_BR) {
    soft_shape_relative(insn, parsed);
    insn->run = soft_op_jump_if[condition];
    return true;
  }
  insn->run = parsed->all.meta.category == ZYDIS_CATEGORY_CMOV
                  ? soft_op_cmov[soft_size_index(parsed->operands[0].size)]
                  : soft_op_setcc;
  return false;
}

/* Sets the instruction's fields; true where the block ends with it. */
static bool shape(soft_cpu *cpu, soft_insn *insn, const soft_parsed *parsed) {
  const ZydisDecodedInstruction *all = &parsed->all;
  insn->length = all->length;
  insn->operand_size = (uint8_t)(all->operand_width / 8);
  insn->address_size = (uint8_t)(all->address_width / 8);
  insn->size = all->operand_count_visible ? (uint8_t)(parsed->operands[0].size / 8) : 0;
  insn->segment = SEG_DS;
  insn->base = insn->index = R_ZERO;
  insn->locked = all->attributes & ZYDIS_ATTRIB_HAS_LOCK;
  if (is_vector(parsed)) {
    soft_shape_memory(insn, parsed);
    soft_decode_vector(cpu, insn, parsed);
    return false;
  }
  soft_set_operands(insn, parsed);
  soft_alu operation;
  if (alu_of(all->mnemonic, &operation)) {
    soft_shape_alu(insn, parsed, operation);
    return false;
  }
  if (all->mnemonic == ZYDIS_MNEMONIC_MOV) {
    return soft_shape_mov(insn, parsed);
  }
  int condition = soft_condition_of(all->mnemonic);
  if (condition >= 0) {
    return shape_conditional(insn, parsed, condition);
  }
  const soft_row *row = soft_row_of(all->mnemonic);
  if (!row) {
    insn->run = soft_op_ud;
    return false;
  }
  insn->run = row->sized ? row->sized[soft_size_index(parsed->operands[0].size)] : row->plain;
  if (row->shape) {
    row->shape(insn, parsed);
  }
  return row->ends;
}

/* One instruction; false where the bytes end within it. */
static bool decode_one(soft_cpu *cpu, soft_insn *insn, unsigned kind, const uint8_t *bytes,
                       size_t size, unsigned page_offset, bool *ends) {
  soft_parsed parsed;
  ZydisDecoderContext context;
  memset(insn, 0, sizeof *insn);
  parsed.flat = kind == SOFT_CODE_FLAT;
  parsed.mode = parsed.flat ? SOFT_MODE_32 : (soft_mode)kind;
  const ZydisDecoder *decoder = &decoders[parsed.mode];
  parsed.bytes = bytes;
  ZyanStatus status = ZydisDecoderDecodeInstruction(decoder, &context, bytes, size, &parsed.all);
  bool too_long = status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG;
  if (status == ZYDIS_STATUS_NO_MORE_DATA || (too_long && size < ZYDIS_MAX_INSTRUCTION_LENGTH)) {
    return false;
  }
  insn->offset = (uint16_t)page_offset;
  if (!ZYAN_SUCCESS(status)) {
    insn->run = soft_op_unknown;
    insn->extra = too_long;
    insn->length = 1;
    *ends = true;
    return true;
  }
  ZydisDecoderDecodeOperands(decoder, &context, &parsed.all, parsed.operands,
                             parsed.all.operand_count);
  *ends = shape(cpu, insn, &parsed);
  return true;
}

/* The instruction that all bytes which have changed are of; NULL where there is none. */
static soft_insn *changed(soft_block *block, const uint8_t *bytes) {
  unsigned first = 0, last = block->bytes, at = 0;
  while (first < last && block->copy[first] == bytes[first]) {
    first++;
  }
  while (last > first && block->copy[last - 1] == bytes[last - 1]) {
    last--;
  }
  for (unsigned i = 0; i < block->count; i++) {
    if (at + block->insns[i].length >= last) {
      return at <= first ? &block->insns[i] : NULL;
    }
    at += block->insns[i].length;
  }
  return NULL;
}

bool soft_decode_change(soft_cpu *cpu, soft_block *block, const uint8_t *bytes) {
  soft_insn *old = changed(block, bytes), now;
  unsigned at = old ? (unsigned)old->offset - block->insns[0].offset : 0;
  bool ends, last = old == &block->insns[block->count - 1];
  if (!old ||
      !decode_one(cpu, &now, block->key & 3, bytes + at, block->bytes - at, old->offset, &ends)) {
    return false;
  }
  if (now.length != old->length || now.run == soft_op_unknown || (ends && !last)) {
    return false;
  }
  now.count = block->count;
  soft_unpolish(block);
  *old = now;
  memcpy(block->copy, bytes, block->bytes);
  soft_polish(block);
  return true;
}

bool soft_decode(soft_cpu *cpu, soft_block *block, const uint8_t *bytes, size_t size, unsigned most,
                 unsigned page_offset) {
  size_t at = 0, seen = 0;
  bool ends = false;
  pthread_once(&once, make_decoders);
  block->count = 0;
  while (!ends && block->count < most && at < size && at < SOFT_BLOCK_BYTES) {
    soft_insn *insn = &block->insns[block->count];
    if (!decode_one(cpu, insn, block->key & 3, bytes + at, size - at, page_offset + (unsigned)at,
                    &ends)) {
      if (block->count) {
        break;
      }
      return false;
    }
    if (insn->run == soft_op_unknown) { /* any of its bytes may have made it so */
      seen = at + (size - at < LONGEST ? size - at : LONGEST);
    }
    block->count++;
    at += insn->length;
  }
  soft_insn *end = &block->insns[block->count];
  memset(end, 0, sizeof *end);
  end->run = soft_op_end;
  end->offset = (uint16_t)(page_offset + at);
  block->bytes = (uint16_t)(seen > at ? seen : at);
  memcpy(block->copy, bytes, block->bytes);
  for (unsigned i = 0; i <= block->count; i++) {
    block->insns[i].count = block->count;
  }
  soft_polish(block);
  return true;
}
