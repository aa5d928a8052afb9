/* SPDX-License-Identifier: MIT
 * AVX-512's instructions with an opmask and a memory operand that is not whole in memory: element
 * by element, for those that the mask leaves out are not looked at (SDM volume 2, 2.8, "fault
 * suppression"). The stub works on a copy. */
#include "soft/execute/execute.h"
#include "soft/vector/stub.h"

static uint64_t lowest(unsigned bits) {
  return bits < 64 ? (UINT64_C(1) << bits) - 1 : ~UINT64_C(0);
}

/* The elements in memory that the mask wants; one that many take where any of them does. */
static uint64_t wanted_of(const soft_cpu *cpu, const soft_vector *vector) {
  uint64_t mask = soft_opmask(cpu, vector->mask) & lowest(vector->bits), wanted = 0;
  if (vector->packed) {
    unsigned count = 0;
    for (; mask; mask &= mask - 1) {
      count++;
    }
    return lowest(count);
  }
  for (unsigned i = 0; i < vector->bits; i += vector->count) {
    wanted |= mask >> i;
  }
  return wanted & lowest(vector->count);
}

static soft_access access_of(const soft_vector *vector) {
  return vector->access & SOFT_WRITE ? SOFT_WRITE : SOFT_READ;
}

/* Where an element is; not every element of an operand need be in its segment. */
static uint64_t element_at(soft_cpu *cpu, const soft_insn *insn, unsigned which) {
  const soft_vector *vector = insn->aux;
  uint64_t offset = soft_offset(cpu, insn) + which * vector->element;
  uint64_t linear = soft_place(cpu, insn, offset, vector->element, access_of(vector));
  soft_check_canonical(cpu, linear);
  soft_check_canonical(cpu, linear + vector->element - 1);
  return linear;
}

/* Whether a page is in memory and lets the access: then the operand in it needs no copy. */
static bool is_there(soft_cpu *cpu, uint64_t linear, soft_access access) {
  soft_rights rights = {access, cpu->cpl == 3, true};
  soft_walk walk;
  return soft_canonical(cpu, linear) && soft_translate(cpu, linear, rights, &walk) &&
         soft_host(cpu, walk.gpa, access == SOFT_WRITE);
}

/* The whole operand's linear address; false where it is not all in its segment. */
static bool is_placed(soft_cpu *cpu, const soft_insn *insn, uint64_t *linear) {
  const soft_vector *vector = insn->aux;
  *linear = soft_offset(cpu, insn);
  return insn->form == SOFT_FLAT ||
         soft_quick_segment(cpu, insn, vector->size, access_of(vector), linear);
}

#define EACH_WANTED(vector, wanted, i)                                                             \
  for (unsigned i = 0; i < (vector)->count; i++)                                                   \
    if ((wanted) >> i & 1)

static void prepare(soft_cpu *cpu, const soft_insn *insn, uint64_t wanted) {
  const soft_vector *vector = insn->aux;
  EACH_WANTED(vector, wanted, i) {
    soft_store_prepare(cpu, element_at(cpu, insn, i), vector->element);
  }
}

static SOFT_COLD void store(soft_cpu *cpu, const soft_insn *insn) {
  const soft_vector *vector = insn->aux;
  uint64_t wanted = wanted_of(cpu, vector);
  if (!vector->stores_last) {
    prepare(cpu, insn, vector->whole ? lowest(vector->count) : wanted);
  }
  soft_vector_bounce(cpu, vector);
  if (vector->stores_last) {
    prepare(cpu, insn, wanted);
  }
  EACH_WANTED(vector, wanted, i) {
    soft_store_bytes(cpu, element_at(cpu, insn, i), cpu->bounce + i * vector->element,
                     vector->element);
  }
}

static SOFT_COLD void load(soft_cpu *cpu, const soft_insn *insn) {
  const soft_vector *vector = insn->aux;
  uint64_t wanted = wanted_of(cpu, vector);
  EACH_WANTED(vector, wanted, i) {
    element_at(cpu, insn, i);
  }
  EACH_WANTED(vector, wanted, i) {
    soft_load_bytes(cpu, element_at(cpu, insn, i), cpu->bounce + i * vector->element,
                    vector->element);
  }
  soft_vector_bounce(cpu, vector);
}

/* What a copy is made for begins here. */
static SOFT_COLD const soft_insn *in_pieces(soft_cpu *cpu, const soft_insn *insn) {
  const soft_vector *vector = insn->aux;
  bool writes = vector->access & SOFT_WRITE;
  cpu->current = insn;
  soft_vector_check(cpu, vector->kind);
  uint64_t linear;
  bool placed = is_placed(cpu, insn, &linear);
  if (placed && linear & vector->align && wanted_of(cpu, vector)) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
  bool apart = linear & vector->align || linear >> 12 != (linear + vector->size - 1) >> 12;
  if (placed && !apart && !vector->stores_last && is_there(cpu, linear, access_of(vector))) {
    return soft_op_vector(cpu, insn, 0);
  }
  if (writes) {
    store(cpu, insn);
  } else {
    load(cpu, insn);
  }
  SOFT_NEXT_BY_LOOP;
}

static SOFT_HANDLER(masked) {
  const soft_vector *vector = insn->aux;
  uint64_t linear;
  void *host = soft_quick_linear(cpu, insn, vector->size, access_of(vector), &linear);
  bool ready = cpu->vector_ready >> vector->kind & 1;
  if (soft_unlikely(!host || !ready || linear & vector->align)) {
    return in_pieces(cpu, insn);
  }
  return vector->code(host, insn, cpu);
}

/* ---- Decoding ---- */

/* Those classes of exceptions suppress no faults (SDM volume 2, 2.8); Zydis has some in others. */
static bool is_whole(const ZydisDecodedInstruction *all) {
  switch (all->mnemonic) {
    case ZYDIS_MNEMONIC_VGF2P8AFFINEQB:
    case ZYDIS_MNEMONIC_VGF2P8AFFINEINVQB:
    case ZYDIS_MNEMONIC_VCVTNE2PS2BF16:
    case ZYDIS_MNEMONIC_VDBPSADBW:
      return true;
    default:
      break;
  }
  switch (all->meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_E1NF:
    case ZYDIS_EXCEPTION_CLASS_E2NF:
    case ZYDIS_EXCEPTION_CLASS_E3NF:
    case ZYDIS_EXCEPTION_CLASS_E4NF:
    case ZYDIS_EXCEPTION_CLASS_E5NF:
    case ZYDIS_EXCEPTION_CLASS_E6NF:
    case ZYDIS_EXCEPTION_CLASS_E9NF:
    case ZYDIS_EXCEPTION_CLASS_E10NF:
    case ZYDIS_EXCEPTION_CLASS_E11NF:
      return true;
    default:
      return false;
  }
}

static bool is_packed(ZydisMnemonic mnemonic) {
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_VCOMPRESSPS:
    case ZYDIS_MNEMONIC_VCOMPRESSPD:
    case ZYDIS_MNEMONIC_VPCOMPRESSB:
    case ZYDIS_MNEMONIC_VPCOMPRESSW:
    case ZYDIS_MNEMONIC_VPCOMPRESSD:
    case ZYDIS_MNEMONIC_VPCOMPRESSQ:
    case ZYDIS_MNEMONIC_VEXPANDPS:
    case ZYDIS_MNEMONIC_VEXPANDPD:
    case ZYDIS_MNEMONIC_VPEXPANDB:
    case ZYDIS_MNEMONIC_VPEXPANDW:
    case ZYDIS_MNEMONIC_VPEXPANDD:
    case ZYDIS_MNEMONIC_VPEXPANDQ:
      return true;
    default:
      return false;
  }
}

/* Elements of the destination, where that is a vector; else there are as many as a vector has. */
static unsigned results_of(const soft_parsed *parsed, unsigned others) {
  const ZydisDecodedOperand *first = &parsed->operands[0];
  bool vector = first->type == ZYDIS_OPERAND_TYPE_REGISTER &&
                first->reg.value >= ZYDIS_REGISTER_XMM0 && first->reg.value <= ZYDIS_REGISTER_ZMM31;
  return vector ? first->element_count : others;
}

/* An element in memory is what one bit of the mask is about; or one of a broadcast, several. A
 * conversion to narrower elements leaves some of the destination's without a source. */
static void place_mask(soft_vector *vector, const soft_parsed *parsed,
                       const ZydisDecodedOperand *memory) {
  unsigned count = memory->element_count, bits = count;
  if (parsed->all.avx.broadcast.mode != ZYDIS_BROADCAST_MODE_INVALID) {
    unsigned sources = parsed->all.avx.vector_length / memory->element_size;
    unsigned results = results_of(parsed, sources);
    bits = results < sources ? results : sources;
  } else if (count > 1) {
    unsigned results = results_of(parsed, count);
    bits = count = results < count ? results : count;
  }
  vector->count = (uint8_t)count;
  vector->bits = (uint8_t)bits;
  vector->element = (uint8_t)(vector->size / count);
}

void soft_decode_evex(soft_insn *insn, soft_vector *vector, const soft_parsed *parsed,
                      const ZydisDecodedOperand *memory) {
  unsigned mask = (unsigned)(parsed->all.avx.mask.reg - ZYDIS_REGISTER_K0);
  bool masks = parsed->all.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX && mask >= 1 && mask <= 7;
  vector->whole = is_whole(&parsed->all);
  if (!masks || (vector->whole && !(vector->access & SOFT_WRITE))) {
    return;
  }
  vector->mask = (uint8_t)mask;
  vector->packed = is_packed(parsed->all.mnemonic);
  place_mask(vector, parsed, memory);
  insn->run = masked;
}
