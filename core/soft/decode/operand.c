/* SPDX-License-Identifier: MIT
 * Operands: from Zydis's registers and addresses to the fields of an instruction. */
#include "soft/decode/decode.h"

/* AH to BH are the second bytes of the first four registers. */
uint8_t soft_register_offset(ZydisRegister number) {
  static const struct {
    ZydisRegister first, last;
    uint8_t offset, step;
  } ranges[] = {
      {ZYDIS_REGISTER_AH, ZYDIS_REGISTER_BH, 1, 8},
      {ZYDIS_REGISTER_AL, ZYDIS_REGISTER_BL, 0, 8},
      {ZYDIS_REGISTER_SPL, ZYDIS_REGISTER_R15B, 32, 8},
      {ZYDIS_REGISTER_AX, ZYDIS_REGISTER_R15W, 0, 8},
      {ZYDIS_REGISTER_EAX, ZYDIS_REGISTER_R15D, 0, 8},
      {ZYDIS_REGISTER_RAX, ZYDIS_REGISTER_R15, 0, 8},
  };
  for (unsigned i = 0; i < sizeof ranges / sizeof *ranges; i++) {
    if (number >= ranges[i].first && number <= ranges[i].last) {
      return (uint8_t)(ranges[i].offset + (number - ranges[i].first) * ranges[i].step);
    }
  }
  return R_ZERO * 8;
}

bool soft_is_gpr(ZydisRegister number) {
  return number >= ZYDIS_REGISTER_AL && number <= ZYDIS_REGISTER_R15;
}

uint8_t soft_segment_number(ZydisRegister number) {
  return (uint8_t)(number - ZYDIS_REGISTER_ES);
}

unsigned soft_size_index(unsigned bits) {
  return bits == 8 ? 0 : bits == 16 ? 1 : bits == 32 ? 2 : 3;
}

/* One of those that make code flat. */
static bool is_whole(unsigned segment) {
  return segment == SEG_ES || segment == SEG_SS || segment == SEG_DS;
}

/* Without one whatever REX.B says, which Zydis 4.0 takes for R13 (SDM volume 2, table 2-3). */
static bool has_no_base(const soft_parsed *parsed, const ZydisDecodedOperand *operand) {
  const ZydisDecodedInstruction *all = &parsed->all;
  bool has_sib = all->attributes & ZYDIS_ATTRIB_HAS_SIB;
  return operand->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM && has_sib &&
         all->raw.modrm.mod == 0 && all->raw.sib.base == 5;
}

void soft_set_memory(soft_insn *insn, const soft_parsed *parsed,
                     const ZydisDecodedOperand *operand) {
  insn->base = has_no_base(parsed, operand) ? R_ZERO : soft_register_offset(operand->mem.base) / 8;
  insn->index = soft_register_offset(operand->mem.index) / 8;
  insn->displacement = operand->mem.disp.has_displacement ? operand->mem.disp.value
                       : has_no_base(parsed, operand)     ? parsed->all.raw.disp.value
                                                          : 0;
  if (operand->mem.base == ZYDIS_REGISTER_RIP || operand->mem.base == ZYDIS_REGISTER_EIP) {
    insn->base = R_BLOCK;
    insn->displacement += insn->offset + insn->length;
  }
  insn->shift = operand->mem.scale == 8 ? 3 : operand->mem.scale == 4 ? 2 : operand->mem.scale == 2;
  insn->segment = operand->mem.segment == ZYDIS_REGISTER_NONE
                      ? SEG_DS
                      : soft_segment_number(operand->mem.segment);
  insn->offset_mask = insn->address_size == 2 ? 0xffff : 0xffffffff;
  bool indexed = insn->index != R_ZERO;
  if (parsed->flat && insn->address_size == 4 && is_whole(insn->segment)) {
    insn->form = indexed ? SOFT_FLAT_32_INDEXED : SOFT_FLAT_32;
  } else if (parsed->mode != SOFT_MODE_64) {
    insn->form = insn->address_size == 2 ? SOFT_SEGMENT_16 : SOFT_SEGMENT_32;
  } else if (insn->address_size == 4) {
    insn->form = SOFT_SHORT;
  } else {
    insn->form = insn->segment >= SEG_FS ? SOFT_BASED : indexed ? SOFT_FLAT_INDEXED : SOFT_FLAT;
  }
}

/* The stack that an instruction uses without saying so: what is not canonical there is #SS. */
static void set_stack(soft_insn *insn, const soft_parsed *parsed) {
  bool shown = insn->to_kind == SOFT_MEMORY || insn->from_kind == SOFT_MEMORY;
  for (unsigned i = parsed->all.operand_count_visible; !shown && i < parsed->all.operand_count;
       i++) {
    const ZydisDecodedOperand *operand = &parsed->operands[i];
    if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY && operand->mem.segment == ZYDIS_REGISTER_SS) {
      insn->segment = SEG_SS;
    }
  }
}

void soft_set_operands(soft_insn *insn, const soft_parsed *parsed) {
  const ZydisDecodedOperand *operands = parsed->operands;
  unsigned count = parsed->all.operand_count_visible;
  for (unsigned i = 0; i < count && i < 2; i++) {
    uint8_t *kind = i ? &insn->from_kind : &insn->to_kind;
    switch (operands[i].type) {
      case ZYDIS_OPERAND_TYPE_REGISTER:
        *kind = SOFT_REGISTER;
        *(i ? &insn->from : &insn->to) = soft_register_offset(operands[i].reg.value);
        break;
      case ZYDIS_OPERAND_TYPE_MEMORY:
        *kind = SOFT_MEMORY;
        soft_set_memory(insn, parsed, &operands[i]);
        break;
      case ZYDIS_OPERAND_TYPE_IMMEDIATE:
        if (i) {
          *kind = SOFT_IMMEDIATE;
          insn->immediate = operands[i].imm.value.u;
        }
        break;
      default:
        break;
    }
  }
  set_stack(insn, parsed);
}
