/* SPDX-License-Identifier: MIT
 * What single instructions need beyond their operands. */
#include "soft/decode/decode.h"
#include "soft/vmx/instruction.h"

/* Its handler passes on what it has put into its register: all of it, but for short ones. */
static void gives(soft_insn *insn) {
  insn->gives = insn->size == 4 ? 8 : insn->size;
}

void soft_shape_alu(soft_insn *insn, const soft_parsed *parsed, soft_alu operation) {
  soft_form form =
      insn->to_kind == SOFT_MEMORY
          ? (insn->from_kind == SOFT_IMMEDIATE ? SOFT_MEMORY_IMMEDIATE : SOFT_MEMORY_REGISTER)
      : insn->from_kind == SOFT_IMMEDIATE ? SOFT_REGISTER_IMMEDIATE
      : insn->from_kind == SOFT_MEMORY    ? SOFT_REGISTER_MEMORY
                                          : SOFT_REGISTER_REGISTER;
  bool memory = insn->to_kind == SOFT_MEMORY || insn->from_kind == SOFT_MEMORY;
  const soft_handler(*of)[4][SOFT_FORMS][SOFT_TAKES] =
      memory && insn->form == SOFT_SEGMENT_16 ? soft_op_alu_short : soft_op_alu;
  insn->takes = of[operation][soft_size_index(parsed->operands[0].size)][form];
  insn->run = insn->takes[SOFT_TAKE_NONE];
  insn->chooses = true;
  if (insn->to_kind == SOFT_REGISTER && operation != SOFT_CMP && operation != SOFT_TEST) {
    gives(insn);
  }
  insn->extra = (uint8_t)operation;
  if (form == SOFT_REGISTER_REGISTER || form == SOFT_REGISTER_IMMEDIATE) {
    bool carries = operation == SOFT_ADC || operation == SOFT_SBB;
    insn->effect = operation == SOFT_MOV ? SOFT_EFFECT_NONE
                   : carries             ? SOFT_EFFECT_UNKNOWN
                                         : SOFT_EFFECT_ALL;
  }
}

static bool is_between(const ZydisDecodedOperand *operand, ZydisRegister first,
                       ZydisRegister last) {
  return operand->type == ZYDIS_OPERAND_TYPE_REGISTER && operand->reg.value >= first &&
         operand->reg.value <= last;
}

/* MOV is six instructions. Whether it ends the block. */
bool soft_shape_mov(soft_insn *insn, const soft_parsed *parsed) {
  const ZydisDecodedOperand *to = &parsed->operands[0], *from = &parsed->operands[1];
  if (is_between(from, ZYDIS_REGISTER_ES, ZYDIS_REGISTER_GS)) {
    insn->extra = soft_segment_number(from->reg.value);
    insn->run = soft_op_mov_from_segment;
    return false;
  }
  if (is_between(to, ZYDIS_REGISTER_ES, ZYDIS_REGISTER_GS)) {
    insn->extra = soft_segment_number(to->reg.value);
    insn->to_kind = insn->from_kind;
    insn->to = insn->from;
    insn->run = soft_op_mov_to_segment;
    return true;
  }
  if (is_between(from, ZYDIS_REGISTER_CR0, ZYDIS_REGISTER_DR15)) {
    bool debug = from->reg.value >= ZYDIS_REGISTER_DR0;
    insn->extra = (uint8_t)(from->reg.value - (debug ? ZYDIS_REGISTER_DR0 : ZYDIS_REGISTER_CR0));
    insn->run = debug ? soft_op_mov_from_dr : soft_op_mov_from_cr;
    return false;
  }
  if (is_between(to, ZYDIS_REGISTER_CR0, ZYDIS_REGISTER_DR15)) {
    bool debug = to->reg.value >= ZYDIS_REGISTER_DR0;
    insn->extra = (uint8_t)(to->reg.value - (debug ? ZYDIS_REGISTER_DR0 : ZYDIS_REGISTER_CR0));
    insn->run = debug ? soft_op_mov_to_dr : soft_op_mov_to_cr;
    return true;
  }
  soft_shape_alu(insn, parsed, SOFT_MOV);
  return false;
}

/* The count: extra says that it is in CL. */
void soft_shape_double_shift(soft_insn *insn, const soft_parsed *parsed) {
  const ZydisDecodedOperand *count = &parsed->operands[2];
  insn->extra = count->type == ZYDIS_OPERAND_TYPE_REGISTER;
  insn->immediate = insn->extra ? 0 : count->imm.value.u;
}

/* A register and a number that is not 0: the flags do not depend on those before. */
static bool shifts_some(const soft_insn *insn) {
  unsigned most = insn->size == 8 ? 63 : 31;
  return insn->to_kind == SOFT_REGISTER && insn->from_kind == SOFT_IMMEDIATE &&
         insn->immediate & most;
}

void soft_shape_shift(soft_insn *insn, const soft_parsed *parsed) {
  (void)parsed;
  insn->effect = shifts_some(insn) ? SOFT_EFFECT_REST : SOFT_EFFECT_UNKNOWN;
}

void soft_shape_rotate(soft_insn *insn, const soft_parsed *parsed) {
  (void)parsed;
  insn->effect = shifts_some(insn) ? SOFT_EFFECT_NONE : SOFT_EFFECT_UNKNOWN;
}

/* The only operand is a source. */
void soft_shape_one(soft_insn *insn, const soft_parsed *parsed) {
  (void)parsed;
  insn->from_kind = insn->to_kind;
  insn->from = insn->to;
}

/* extra: the second factor is the immediate. */
void soft_shape_imul(soft_insn *insn, const soft_parsed *parsed) {
  unsigned count = parsed->all.operand_count_visible;
  unsigned size = soft_size_index(parsed->operands[0].size);
  if (count == 1) {
    soft_shape_one(insn, parsed);
    insn->run = soft_op_imul[size];
    return;
  }
  insn->run = soft_op_imul_to[size];
  insn->effect = insn->from_kind == SOFT_REGISTER ? SOFT_EFFECT_REST : SOFT_EFFECT_UNKNOWN;
  if (count == 3) {
    insn->extra = 1;
    insn->immediate = parsed->operands[2].imm.value.u;
  }
}

/* The memory operand comes first. */
void soft_shape_xchg(soft_insn *insn, const soft_parsed *parsed) {
  (void)parsed;
  if (insn->from_kind == SOFT_MEMORY) {
    insn->to_kind = SOFT_MEMORY;
    insn->from_kind = SOFT_REGISTER;
    insn->from = insn->to;
  }
}

void soft_shape_movzx(soft_insn *insn, const soft_parsed *parsed) {
  unsigned to = soft_size_index(parsed->operands[0].size);
  unsigned from = parsed->operands[1].size;
  if (from > parsed->operands[0].size) { /* MOVSXD of 16 bits reads no more */
    from = parsed->operands[0].size;
  }
  if (parsed->all.mnemonic == ZYDIS_MNEMONIC_MOVZX) {
    insn->run = from == 8 ? soft_op_movzx8[to] : soft_op_movzx16[to];
  } else {
    insn->run = from == 8    ? soft_op_movsx8[to]
                : from == 16 ? soft_op_movsx16[to]
                             : soft_op_movsx32[to];
  }
  insn->effect = insn->from_kind == SOFT_REGISTER ? SOFT_EFFECT_NONE : SOFT_EFFECT_UNKNOWN;
  gives(insn);
}

void soft_shape_crc32(soft_insn *insn, const soft_parsed *parsed) {
  insn->run = soft_op_crc32[soft_size_index(parsed->operands[1].size)];
}

/* Pushes and pops of 64-bit code are of 64 bits or, with a prefix, 16. */
void soft_shape_stack(soft_insn *insn, const soft_parsed *parsed) {
  if (parsed->mode == SOFT_MODE_64 && insn->operand_size != 2) {
    insn->operand_size = 8;
  }
}

static bool shape_stack_segment(soft_insn *insn, const soft_parsed *parsed, soft_handler handler) {
  const ZydisDecodedOperand *operand = &parsed->operands[0];
  if (operand->type != ZYDIS_OPERAND_TYPE_REGISTER || soft_is_gpr(operand->reg.value)) {
    return false;
  }
  insn->extra = soft_segment_number(operand->reg.value);
  insn->run = handler;
  return true;
}

void soft_shape_push(soft_insn *insn, const soft_parsed *parsed) {
  soft_shape_stack(insn, parsed);
  if (shape_stack_segment(insn, parsed, soft_op_push_segment)) {
    return;
  }
  soft_shape_one(insn, parsed);
  if (parsed->operands[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
    insn->from_kind = SOFT_IMMEDIATE;
    insn->immediate = parsed->operands[0].imm.value.u;
  }
  unsigned size = soft_size_index(insn->operand_size * 8u);
  insn->run = insn->from_kind == SOFT_REGISTER ? soft_op_push_register[size] : soft_op_push[size];
}

void soft_shape_pop(soft_insn *insn, const soft_parsed *parsed) {
  soft_shape_stack(insn, parsed);
  if (!shape_stack_segment(insn, parsed, soft_op_pop_segment)) {
    insn->run = soft_op_pop[soft_size_index(insn->operand_size * 8u)];
  }
}

void soft_shape_enter(soft_insn *insn, const soft_parsed *parsed) {
  soft_shape_stack(insn, parsed);
  insn->immediate = parsed->operands[0].imm.value.u;
  insn->extra = (uint8_t)(parsed->operands[1].imm.value.u & 31);
}

void soft_shape_immediate(soft_insn *insn, const soft_parsed *parsed) {
  insn->immediate = parsed->operands[0].imm.value.u & 0xff;
}

static uint8_t overridden(const soft_parsed *parsed) {
  static const struct {
    ZydisInstructionAttributes attribute;
    uint8_t segment;
  } prefixes[] = {
      {ZYDIS_ATTRIB_HAS_SEGMENT_CS, SEG_CS}, {ZYDIS_ATTRIB_HAS_SEGMENT_SS, SEG_SS},
      {ZYDIS_ATTRIB_HAS_SEGMENT_ES, SEG_ES}, {ZYDIS_ATTRIB_HAS_SEGMENT_FS, SEG_FS},
      {ZYDIS_ATTRIB_HAS_SEGMENT_GS, SEG_GS},
  };
  for (unsigned i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
    if (parsed->all.attributes & prefixes[i].attribute) {
      return prefixes[i].segment;
    }
  }
  return SEG_DS;
}

void soft_shape_string(soft_insn *insn, const soft_parsed *parsed) {
  ZydisInstructionAttributes attributes = parsed->all.attributes;
  insn->repeat = attributes & ZYDIS_ATTRIB_HAS_REPNE                           ? SOFT_REPNE
                 : attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE) ? SOFT_REPE
                                                                               : SOFT_ONCE;
  insn->segment = overridden(parsed);
}

void soft_shape_outs(soft_insn *insn, const soft_parsed *parsed) {
  soft_shape_string(insn, parsed);
  const ZydisDecodedOperand *operands = parsed->operands;
  unsigned memory = operands[1].type == ZYDIS_OPERAND_TYPE_MEMORY;
  insn->run = soft_op_outs[soft_size_index(operands[memory].size)];
}

void soft_shape_out(soft_insn *insn, const soft_parsed *parsed) {
  const ZydisDecodedOperand *port = &parsed->operands[0];
  insn->from_kind = SOFT_REGISTER;
  if (port->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
    insn->from_kind = SOFT_IMMEDIATE;
    insn->immediate = port->imm.value.u;
  }
  insn->run = soft_op_out[soft_size_index(parsed->operands[1].size)];
}

static uint64_t mask_of(unsigned bytes) {
  return bytes == 8 ? ~UINT64_C(0) : (UINT64_C(1) << bytes * 8) - 1;
}

/* The target from the start of the block's page, and how wide instruction pointers are. */
void soft_shape_relative(soft_insn *insn, const soft_parsed *parsed) {
  insn->immediate = parsed->operands[0].imm.value.u + insn->offset + insn->length;
  if (parsed->mode == SOFT_MODE_64) {
    insn->operand_size = 8;
  }
  insn->displacement = (int64_t)mask_of(insn->operand_size);
}

void soft_shape_lea(soft_insn *insn, const soft_parsed *parsed) {
  insn->takes = soft_op_lea_takes[soft_size_index(parsed->operands[0].size)];
  insn->run = insn->takes[SOFT_TAKE_NONE];
  insn->chooses = true;
  insn->effect = SOFT_EFFECT_NONE;
  gives(insn);
}

/* INC and DEC. */
void soft_shape_step(soft_insn *insn, const soft_parsed *parsed) {
  if (insn->to_kind == SOFT_REGISTER) {
    insn->steps_down = parsed->all.mnemonic == ZYDIS_MNEMONIC_DEC;
    insn->effect = SOFT_EFFECT_NONE;
    gives(insn);
  }
}

static void shape_transfer(soft_insn *insn, const soft_parsed *parsed, soft_handler near,
                           soft_handler indirect, soft_handler far) {
  const ZydisDecodedOperand *target = &parsed->operands[0];
  if (target->type == ZYDIS_OPERAND_TYPE_POINTER) {
    insn->displacement = target->ptr.segment;
    insn->immediate = target->ptr.offset;
    insn->run = far;
  } else if (parsed->all.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) {
    insn->run = far;
  } else if (target->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
    soft_shape_relative(insn, parsed);
    insn->run = near;
  } else {
    if (parsed->mode == SOFT_MODE_64) {
      insn->operand_size = 8;
    }
    soft_shape_one(insn, parsed);
    insn->run = indirect;
  }
}

void soft_shape_jump(soft_insn *insn, const soft_parsed *parsed) {
  shape_transfer(insn, parsed, soft_op_jmp, soft_op_jmp_to, soft_op_jmp_far);
}

void soft_shape_call(soft_insn *insn, const soft_parsed *parsed) {
  shape_transfer(insn, parsed, soft_op_call[0], soft_op_call_to, soft_op_call_far);
  if (insn->run == soft_op_call[0]) {
    insn->run = soft_op_call[soft_size_index(insn->operand_size * 8u)];
  }
}

void soft_shape_ret(soft_insn *insn, const soft_parsed *parsed) {
  if (parsed->all.operand_count_visible) {
    insn->immediate = parsed->operands[0].imm.value.u;
  }
  if (parsed->all.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) {
    insn->run = soft_op_ret_far;
    return;
  }
  if (parsed->mode == SOFT_MODE_64) {
    insn->operand_size = 8;
  }
  insn->run = soft_op_ret[soft_size_index(insn->operand_size * 8u)];
}

/* extra: 0 LOOP, 1 LOOPE, 2 LOOPNE. */
void soft_shape_wide(soft_insn *insn, const soft_parsed *parsed) {
  soft_shape_relative(insn, parsed);
  insn->extra = parsed->all.mnemonic == ZYDIS_MNEMONIC_LOOPE    ? 1
                : parsed->all.mnemonic == ZYDIS_MNEMONIC_LOOPNE ? 2
                                                                : 0;
}

void soft_shape_jcxz(soft_insn *insn, const soft_parsed *parsed) {
  soft_shape_relative(insn, parsed);
  insn->address_size = parsed->all.mnemonic == ZYDIS_MNEMONIC_JCXZ    ? 2
                       : parsed->all.mnemonic == ZYDIS_MNEMONIC_JECXZ ? 4
                                                                      : 8;
}

void soft_shape_base(soft_insn *insn, const soft_parsed *parsed) {
  ZydisMnemonic mnemonic = parsed->all.mnemonic;
  bool fs = mnemonic == ZYDIS_MNEMONIC_RDFSBASE || mnemonic == ZYDIS_MNEMONIC_WRFSBASE;
  insn->extra = fs ? SEG_FS : SEG_GS;
  insn->operand_size = (uint8_t)(parsed->operands[0].size / 8); /* whatever its prefixes */
}

/* LDS and its relatives: the segment register that is loaded. */
void soft_shape_segment(soft_insn *insn, const soft_parsed *parsed) {
  switch (parsed->all.mnemonic) {
    case ZYDIS_MNEMONIC_LDS:
      insn->extra = SEG_DS;
      break;
    case ZYDIS_MNEMONIC_LES:
      insn->extra = SEG_ES;
      break;
    case ZYDIS_MNEMONIC_LSS:
      insn->extra = SEG_SS;
      break;
    case ZYDIS_MNEMONIC_LFS:
      insn->extra = SEG_FS;
      break;
    default:
      insn->extra = SEG_GS;
      break;
  }
}

/* A hidden memory operand: XLAT. */
void soft_shape_memory(soft_insn *insn, const soft_parsed *parsed) {
  for (unsigned i = 0; i < parsed->all.operand_count; i++) {
    if (parsed->operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY) {
      soft_set_memory(insn, parsed, &parsed->operands[i]);
    }
  }
}

/* MONITOR's is not even that: it is at RAX, in DS or what the last prefix says. */
void soft_shape_monitor(soft_insn *insn, const soft_parsed *parsed) {
  ZydisDecodedOperand at = {.mem = {.segment = ZYDIS_REGISTER_DS, .base = ZYDIS_REGISTER_RAX}};
  for (unsigned i = 0; i < parsed->all.raw.prefix_count; i++) {
    switch (parsed->bytes[i]) {
      case 0x26:
        at.mem.segment = ZYDIS_REGISTER_ES;
        break;
      case 0x2e:
        at.mem.segment = ZYDIS_REGISTER_CS;
        break;
      case 0x36:
        at.mem.segment = ZYDIS_REGISTER_SS;
        break;
      case 0x64:
        at.mem.segment = ZYDIS_REGISTER_FS;
        break;
      case 0x65:
        at.mem.segment = ZYDIS_REGISTER_GS;
        break;
      default:
        break;
    }
  }
  soft_set_memory(insn, parsed, &at);
}

/* MULX r, r, r/m: high half, low half (extra), factor. */
void soft_shape_mulx(soft_insn *insn, const soft_parsed *parsed) {
  const ZydisDecodedOperand *factor = &parsed->operands[2];
  insn->extra = insn->from;
  if (factor->type == ZYDIS_OPERAND_TYPE_MEMORY) {
    insn->from_kind = SOFT_MEMORY;
    soft_set_memory(insn, parsed, factor);
  } else {
    insn->from_kind = SOFT_REGISTER;
    insn->from = soft_register_offset(factor->reg.value);
  }
}

/* REX.W alone says how wide SYSRET and SYSEXIT return. */
void soft_shape_rex(soft_insn *insn, const soft_parsed *parsed) {
  bool wide = parsed->all.attributes & ZYDIS_ATTRIB_HAS_REX && parsed->all.raw.rex.W;
  insn->operand_size = wide ? 8 : 4;
}

/* The exit reason of an instruction for monitors. */
void soft_shape_vmx(soft_insn *insn, const soft_parsed *parsed) {
  static const struct {
    ZydisMnemonic mnemonic;
    uint8_t reason;
  } reasons[] = {
      {ZYDIS_MNEMONIC_VMCLEAR, VMX_REASON_VMCLEAR}, {ZYDIS_MNEMONIC_VMLAUNCH, VMX_REASON_VMLAUNCH},
      {ZYDIS_MNEMONIC_VMPTRLD, VMX_REASON_VMPTRLD}, {ZYDIS_MNEMONIC_VMPTRST, VMX_REASON_VMPTRST},
      {ZYDIS_MNEMONIC_VMREAD, VMX_REASON_VMREAD},   {ZYDIS_MNEMONIC_VMRESUME, VMX_REASON_VMRESUME},
      {ZYDIS_MNEMONIC_VMWRITE, VMX_REASON_VMWRITE}, {ZYDIS_MNEMONIC_VMXOFF, VMX_REASON_VMOFF},
      {ZYDIS_MNEMONIC_VMXON, VMX_REASON_VMON},      {ZYDIS_MNEMONIC_INVEPT, VMX_REASON_EPT_INVEPT},
      {ZYDIS_MNEMONIC_INVVPID, VMX_REASON_INVVPID},
  };
  for (unsigned i = 0; i < sizeof reasons / sizeof *reasons; i++) {
    if (parsed->all.mnemonic == reasons[i].mnemonic) {
      insn->extra = reasons[i].reason;
    }
  }
}
