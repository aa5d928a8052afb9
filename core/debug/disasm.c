/* SPDX-License-Identifier: MIT
 * Machine code as text, by Zydis. The text is what nasm, and so luna.asm, reads: operands are put
 * together here, all the rest is Zydis's own Intel style. */
#include "base/error.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#ifdef LUNA_ZYDIS

#include <Zydis/Zydis.h>
#include <pthread.h>

enum {
  WIDTHS = 3 /* 16, 32 and 64 bits, the number of bits / 32 */
};

static ZydisDecoder decoders[WIDTHS];
static ZydisFormatter formatter; /* nothing of these changes: any thread */
static ZydisFormatterDecoratorFunc default_decorator;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* ---- Pieces of an operand ---- */

static ZyanStatus put(ZydisFormatterBuffer *buffer, const char *text) {
  ZyanString *string;
  ZYAN_CHECK(ZydisFormatterBufferGetString(buffer, &string));
  ZyanStringView view;
  ZYAN_CHECK(ZyanStringViewInsideBuffer(&view, text));
  return ZyanStringAppend(string, &view);
}

/* Decimal below 10. */
static ZyanStatus put_number(ZydisFormatterBuffer *buffer, uint64_t number) {
  char text[24];
  snprintf(text, sizeof text, number < 10 ? "%" PRIu64 : "0x%" PRIx64, number);
  return put(buffer, text);
}

static uint64_t size_of_negative(int64_t number) {
  return UINT64_C(0) - (uint64_t)number;
}

static const char *size_name(unsigned bits) {
  switch (bits) {
    case 8:
      return "byte ";
    case 16:
      return "word ";
    case 32:
      return "dword ";
    case 64:
      return "qword ";
    case 80:
      return "tword ";
    case 128:
      return "oword ";
    case 256:
      return "yword ";
    case 512:
      return "zword ";
    default:
      return "";
  }
}

static unsigned code_bits(const ZydisDecodedInstruction *all) {
  return all->machine_mode == ZYDIS_MACHINE_MODE_LONG_64     ? 64
         : all->machine_mode == ZYDIS_MACHINE_MODE_LEGACY_32 ? 32
                                                             : 16;
}

/* ---- Memory ---- */

/* Whether a register beside the memory says how large that is. */
static bool is_told(const ZydisFormatterContext *context) {
  const ZydisDecodedInstruction *all = context->instruction;
  if (all->mnemonic == ZYDIS_MNEMONIC_CRC32 || all->mnemonic == ZYDIS_MNEMONIC_MOVSX ||
      all->mnemonic == ZYDIS_MNEMONIC_MOVZX || all->meta.category == ZYDIS_CATEGORY_CONVERT) {
    return false;
  }
  for (unsigned i = 0; i < all->operand_count_visible; i++) {
    const ZydisDecodedOperand *one = &context->operands[i];
    if (one->type == ZYDIS_OPERAND_TYPE_REGISTER && one->size == context->operand->size) {
      return true;
    }
  }
  return false;
}

/* What has one size alone, and often none that nasm has a word for. */
static bool has_no_size(const ZydisDecodedInstruction *all) {
  switch (all->meta.category) {
    case ZYDIS_CATEGORY_PREFETCH:
    case ZYDIS_CATEGORY_VTX:
    case ZYDIS_CATEGORY_SEGOP: /* LDS and the like */
      return true;
    default:
      break;
  }
  switch (all->mnemonic) {
    case ZYDIS_MNEMONIC_BOUND:
    case ZYDIS_MNEMONIC_CLDEMOTE:
    case ZYDIS_MNEMONIC_CLFLUSH:
    case ZYDIS_MNEMONIC_CLFLUSHOPT:
    case ZYDIS_MNEMONIC_CLWB:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_INVLPG:
    case ZYDIS_MNEMONIC_INVPCID:
    case ZYDIS_MNEMONIC_LGDT:
    case ZYDIS_MNEMONIC_LIDT:
    case ZYDIS_MNEMONIC_SGDT:
    case ZYDIS_MNEMONIC_SIDT:
      return true;
    default:
      return false;
  }
}

/* A far pointer has the size of its offset. */
static ZyanStatus put_size(ZydisFormatterBuffer *buffer, const ZydisFormatterContext *context) {
  const ZydisDecodedInstruction *all = context->instruction;
  const ZydisDecodedOperand *operand = context->operand;
  if (all->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) {
    ZYAN_CHECK(put(buffer, size_name(all->operand_width)));
    return put(buffer, "far ");
  }
  if (is_told(context) || has_no_size(all)) {
    return ZYAN_STATUS_SUCCESS;
  }
  bool broadcasts = all->avx.broadcast.mode != ZYDIS_BROADCAST_MODE_INVALID;
  return put(buffer, size_name(broadcasts && !all->avx.broadcast.is_static ? operand->element_size
                                                                           : operand->size));
}

/* With 64 bits most are of no effect. */
static bool segment_counts(const ZydisDecodedInstruction *all, ZydisRegister segment) {
  return code_bits(all) < 64 || segment == ZYDIS_REGISTER_FS || segment == ZYDIS_REGISTER_GS;
}

static ZyanStatus put_segment(ZydisFormatterBuffer *buffer, const ZydisDecodedInstruction *all,
                              ZydisRegister segment) {
  if (!(all->attributes & ZYDIS_ATTRIB_HAS_SEGMENT) || !segment_counts(all, segment)) {
    return ZYAN_STATUS_SUCCESS;
  }
  ZYAN_CHECK(put(buffer, ZydisRegisterGetString(segment)));
  return put(buffer, ":");
}

static ZyanStatus put_displacement(ZydisFormatterBuffer *buffer, int64_t displacement) {
  bool negative = displacement < 0;
  ZYAN_CHECK(put(buffer, negative ? " - " : " + "));
  return put_number(buffer, negative ? size_of_negative(displacement) : (uint64_t)displacement);
}

/* An address without registers, as wide as addresses of the instruction are. */
static ZyanStatus put_absolute(ZydisFormatterBuffer *buffer, const ZydisDecodedInstruction *all,
                               const ZydisDecodedOperand *operand) {
  uint64_t address = (uint64_t)operand->mem.disp.value;
  if (all->address_width != code_bits(all) || all->raw.disp.size == 64) {
    ZYAN_CHECK(put(buffer, size_name(all->address_width)));
  }
  if (all->address_width < 64) {
    address &= (UINT64_C(1) << all->address_width) - 1;
  }
  return put_number(buffer, address);
}

static ZyanStatus put_registers(ZydisFormatterBuffer *buffer, const ZydisDecodedOperand *operand) {
  bool base = operand->mem.base != ZYDIS_REGISTER_NONE;
  if (base) {
    ZYAN_CHECK(put(buffer, ZydisRegisterGetString(operand->mem.base)));
  }
  if (operand->mem.index != ZYDIS_REGISTER_NONE) {
    ZYAN_CHECK(put(buffer, base ? " + " : ""));
    ZYAN_CHECK(put(buffer, ZydisRegisterGetString(operand->mem.index)));
    if (operand->mem.scale > 1) {
      ZYAN_CHECK(put(buffer, "*"));
      ZYAN_CHECK(put_number(buffer, operand->mem.scale));
    }
  }
  return ZYAN_STATUS_SUCCESS;
}

static ZyanStatus put_address(ZydisFormatterBuffer *buffer, const ZydisFormatterContext *context) {
  const ZydisDecodedInstruction *all = context->instruction;
  const ZydisDecodedOperand *operand = context->operand;
  bool relative =
      operand->mem.base == ZYDIS_REGISTER_RIP || operand->mem.base == ZYDIS_REGISTER_EIP;
  uint64_t target;
  if (relative) {
    ZYAN_CHECK(ZydisCalcAbsoluteAddress(all, operand, context->runtime_address, &target));
    ZYAN_CHECK(put(buffer, "rel "));
    return put_number(buffer, target);
  }
  if (operand->mem.base == ZYDIS_REGISTER_NONE && operand->mem.index == ZYDIS_REGISTER_NONE) {
    return put_absolute(buffer, all, operand);
  }
  ZYAN_CHECK(put_registers(buffer, operand));
  return operand->mem.disp.has_displacement && operand->mem.disp.value
             ? put_displacement(buffer, operand->mem.disp.value)
             : ZYAN_STATUS_SUCCESS;
}

static ZyanStatus format_memory(const ZydisFormatter *own, ZydisFormatterBuffer *buffer,
                                ZydisFormatterContext *context) {
  (void)own;
  const ZydisDecodedOperand *operand = context->operand;
  if (operand->mem.type != ZYDIS_MEMOP_TYPE_AGEN) {
    ZYAN_CHECK(put_size(buffer, context));
  }
  ZYAN_CHECK(put(buffer, "["));
  ZYAN_CHECK(put_segment(buffer, context->instruction, operand->mem.segment));
  ZYAN_CHECK(put_address(buffer, context));
  return put(buffer, "]");
}

/* ---- Numbers ---- */

static ZyanStatus format_immediate(const ZydisFormatter *own, ZydisFormatterBuffer *buffer,
                                   ZydisFormatterContext *context) {
  (void)own;
  const ZydisDecodedInstruction *all = context->instruction;
  const ZydisDecodedOperand *operand = context->operand;
  uint64_t value = operand->imm.value.u;
  if (all->mnemonic == ZYDIS_MNEMONIC_PUSH && all->operand_width != code_bits(all)) {
    ZYAN_CHECK(put(buffer, size_name(all->operand_width)));
  }
  if (operand->imm.is_relative) {
    ZYAN_CHECK(ZydisCalcAbsoluteAddress(all, operand, context->runtime_address, &value));
  } else if (operand->imm.is_signed && operand->imm.value.s < 0) {
    ZYAN_CHECK(put(buffer, "-"));
    value = size_of_negative(operand->imm.value.s);
  }
  return put_number(buffer, value);
}

static ZyanStatus format_pointer(const ZydisFormatter *own, ZydisFormatterBuffer *buffer,
                                 ZydisFormatterContext *context) {
  (void)own;
  const ZydisDecodedInstruction *all = context->instruction;
  if (all->operand_width != code_bits(all)) {
    ZYAN_CHECK(put(buffer, size_name(all->operand_width)));
  }
  ZYAN_CHECK(put_number(buffer, context->operand->ptr.segment));
  ZYAN_CHECK(put(buffer, ":"));
  return put_number(buffer, context->operand->ptr.offset);
}

/* ---- What no operand tells ---- */

static bool is_string(const ZydisDecodedInstruction *all) {
  return all->meta.category == ZYDIS_CATEGORY_STRINGOP ||
         all->meta.category == ZYDIS_CATEGORY_IOSTRINGOP || all->mnemonic == ZYDIS_MNEMONIC_XLAT;
}

/* The size of addresses or of the counter, and the segment, of operands that are not shown. */
static ZyanStatus put_hidden(ZydisFormatterBuffer *buffer, const ZydisDecodedInstruction *all) {
  static const struct {
    ZydisInstructionAttributes attribute;
    ZydisRegister segment;
  } prefixes[] = {
      {ZYDIS_ATTRIB_HAS_SEGMENT_CS, ZYDIS_REGISTER_CS},
      {ZYDIS_ATTRIB_HAS_SEGMENT_SS, ZYDIS_REGISTER_SS},
      {ZYDIS_ATTRIB_HAS_SEGMENT_DS, ZYDIS_REGISTER_DS},
      {ZYDIS_ATTRIB_HAS_SEGMENT_ES, ZYDIS_REGISTER_ES},
      {ZYDIS_ATTRIB_HAS_SEGMENT_FS, ZYDIS_REGISTER_FS},
      {ZYDIS_ATTRIB_HAS_SEGMENT_GS, ZYDIS_REGISTER_GS},
  };
  bool loops = all->mnemonic == ZYDIS_MNEMONIC_LOOP || all->mnemonic == ZYDIS_MNEMONIC_LOOPE ||
               all->mnemonic == ZYDIS_MNEMONIC_LOOPNE;
  if ((is_string(all) || loops) && all->address_width != code_bits(all)) {
    ZYAN_CHECK(put(buffer, all->address_width == 16 ? "a16 " : "a32 "));
  }
  for (size_t i = 0; is_string(all) && i < sizeof prefixes / sizeof *prefixes; i++) {
    if (all->attributes & prefixes[i].attribute && segment_counts(all, prefixes[i].segment)) {
      ZYAN_CHECK(put(buffer, ZydisRegisterGetString(prefixes[i].segment)));
      ZYAN_CHECK(put(buffer, " "));
    }
  }
  return ZYAN_STATUS_SUCCESS;
}

/* The size of an operation on the stack, of RIP or of a descriptor table, where it is not that of
 * the code. */
static ZyanStatus put_width(ZydisFormatterBuffer *buffer, const ZydisDecodedInstruction *all) {
  switch (all->mnemonic) {
    case ZYDIS_MNEMONIC_SYSEXIT:
    case ZYDIS_MNEMONIC_SYSRET:
      return put(buffer, all->raw.rex.W ? "o64 " : "");
    case ZYDIS_MNEMONIC_ENTER:
    case ZYDIS_MNEMONIC_LEAVE:
    case ZYDIS_MNEMONIC_LGDT:
    case ZYDIS_MNEMONIC_LIDT:
      break;
    case ZYDIS_MNEMONIC_RET:
      if (code_bits(all) == 64 && all->operand_width == 32) {
        return ZYAN_STATUS_SUCCESS; /* of RETF */
      }
      break;
    default:
      if (!(all->attributes & ZYDIS_ATTRIB_IS_RELATIVE) ||
          all->meta.branch_type == ZYDIS_BRANCH_TYPE_NONE) {
        return ZYAN_STATUS_SUCCESS;
      }
      break;
  }
  if (all->operand_width == code_bits(all)) {
    return ZYAN_STATUS_SUCCESS;
  }
  return put(buffer, all->operand_width == 16   ? "o16 "
                     : all->operand_width == 32 ? "o32 "
                                                : "o64 ");
}

static ZyanStatus print_mnemonic(const ZydisFormatter *own, ZydisFormatterBuffer *buffer,
                                 ZydisFormatterContext *context) {
  (void)own;
  const ZydisDecodedInstruction *all = context->instruction;
  ZYAN_CHECK(put_hidden(buffer, all));
  ZYAN_CHECK(put_width(buffer, all));
  if (all->mnemonic == ZYDIS_MNEMONIC_RET && all->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) {
    return put(buffer, "retf");
  }
  return put(buffer, all->mnemonic == ZYDIS_MNEMONIC_XLAT ? "xlatb"
                                                          : ZydisMnemonicGetString(all->mnemonic));
}

/* A comma before how it rounds, which nasm has among the operands. */
static ZyanStatus print_decorator(const ZydisFormatter *own, ZydisFormatterBuffer *buffer,
                                  ZydisFormatterContext *context, ZydisDecorator decorator) {
  const ZydisDecodedInstructionAvx *avx = &context->instruction->avx;
  bool rounds = avx->rounding.mode != ZYDIS_ROUNDING_MODE_INVALID;
  bool quiet = avx->has_sae && !rounds;
  if (decorator == ZYDIS_DECORATOR_RC ? rounds : decorator == ZYDIS_DECORATOR_SAE && quiet) {
    ZYAN_CHECK(put(buffer, ","));
  }
  return default_decorator(own, buffer, context, decorator);
}

/* ---- Instructions ---- */

/* The function becomes the one that was there. ISO C has no cast from it to an object. */
static void hook(ZydisFormatterFunction type, void *function, size_t size) {
  const void *pointer;
  memcpy(&pointer, function, size);
  ZydisFormatterSetHook(&formatter, type, &pointer);
  memcpy(function, &pointer, size);
}

static void make(void) {
  ZydisDecoderInit(&decoders[0], ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
  ZydisDecoderInit(&decoders[1], ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
  ZydisDecoderInit(&decoders[2], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
  ZydisFormatterFunc operands[] = {format_memory, format_immediate, format_pointer};
  ZydisFormatterFunc mnemonic = print_mnemonic;
  default_decorator = print_decorator;
  hook(ZYDIS_FORMATTER_FUNC_FORMAT_OPERAND_MEM, &operands[0], sizeof operands[0]);
  hook(ZYDIS_FORMATTER_FUNC_FORMAT_OPERAND_IMM, &operands[1], sizeof operands[1]);
  hook(ZYDIS_FORMATTER_FUNC_FORMAT_OPERAND_PTR, &operands[2], sizeof operands[2]);
  hook(ZYDIS_FORMATTER_FUNC_PRINT_MNEMONIC, &mnemonic, sizeof mnemonic);
  hook(ZYDIS_FORMATTER_FUNC_PRINT_DECORATOR, &default_decorator, sizeof default_decorator);
}

static const char *missing(void) {
  return NULL;
}

/* Zydis knows those of the Xeon Phi of 2012 too, which no processor with KVM has. */
static bool is_foreign(const ZydisDecodedInstruction *all) {
  return all->encoding == ZYDIS_INSTRUCTION_ENCODING_MVEX ||
         all->meta.isa_ext == ZYDIS_ISA_EXT_KNC || all->meta.isa_ext == ZYDIS_ISA_EXT_KNCE ||
         all->meta.isa_ext == ZYDIS_ISA_EXT_KNCV;
}

/* Whether the bytes begin with an instruction. */
static bool disassemble(const void *bytes, size_t size, uint64_t address, uint32_t bits,
                        luna_instruction *instruction) {
  ZydisDecodedInstruction all;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
  pthread_once(&once, make);
  if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoders[bits / 32], bytes, size, &all, operands)) ||
      is_foreign(&all)) {
    return false;
  }
  *instruction = (luna_instruction){.address = address, .size = all.length};
  memcpy(instruction->bytes, bytes, all.length);
  return ZYAN_SUCCESS(ZydisFormatterFormatInstruction(&formatter, &all, operands,
                                                      all.operand_count_visible, instruction->text,
                                                      sizeof instruction->text, address, NULL));
}

#else

static const char *missing(void) {
  return "this build of the library has neither a disassembler nor a software CPU: it was made "
         "without Zydis (Debian: libzydis-dev)";
}

static bool disassemble(const void *bytes, size_t size, uint64_t address, uint32_t bits,
                        luna_instruction *instruction) {
  (void)bytes, (void)size, (void)address, (void)bits, (void)instruction;
  return false;
}

#endif

int luna_disassemble(const void *bytes, size_t size, uint64_t address, uint32_t bits,
                     luna_instruction *instruction) {
  if (bits != 16 && bits != 32 && bits != 64) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "cannot disassemble code of %u bits: 16, 32 or 64", bits);
  }
  const char *why = missing();
  if (why) {
    return luna_fail(LUNA_ERROR_UNSUPPORTED, "cannot disassemble: %s", why);
  }
  if (!disassemble(bytes, size, address, bits, instruction)) {
    return luna_fail(LUNA_ERROR_NOT_FOUND,
                     "the bytes at 0x%" PRIx64 " are no instruction of %u-bit code", address, bits);
  }
  return LUNA_OK;
}
