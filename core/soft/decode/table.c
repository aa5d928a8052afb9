/* SPDX-License-Identifier: MIT
 * From mnemonics to handlers. */
#include "soft/decode/decode.h"

#define SIZED(name, handler, shape)                                                                \
  [ZYDIS_MNEMONIC_##name] = {soft_op_##handler, NULL, shape, false}
#define PLAIN(name, handler, shape)                                                                \
  [ZYDIS_MNEMONIC_##name] = {NULL, soft_op_##handler, shape, false}
/* The block ends behind it. */
#define SIZED_END(name, handler, shape)                                                            \
  [ZYDIS_MNEMONIC_##name] = {soft_op_##handler, NULL, shape, true}
#define PLAIN_END(name, handler, shape)                                                            \
  [ZYDIS_MNEMONIC_##name] = {NULL, soft_op_##handler, shape, true}

/* clang-format off */
static const soft_row rows[ZYDIS_MNEMONIC_MAX_VALUE + 1] = {
    /* Arithmetic. */
    SIZED(INC, inc, soft_shape_step), SIZED(DEC, dec, soft_shape_step), SIZED(NEG, neg, NULL),
    SIZED(NOT, not, NULL),
    SIZED(SHL, shl, soft_shape_shift), SIZED(SHR, shr, soft_shape_shift),
    SIZED(SAR, sar, soft_shape_shift), SIZED(ROL, rol, soft_shape_rotate),
    SIZED(ROR, ror, soft_shape_rotate), SIZED(RCL, rcl, NULL), SIZED(RCR, rcr, NULL),
    SIZED(SHLD, shld, soft_shape_double_shift), SIZED(SHRD, shrd, soft_shape_double_shift),
    SIZED(MUL, mul, soft_shape_one), SIZED(DIV, div, soft_shape_one),
    SIZED(IDIV, idiv, soft_shape_one), SIZED(IMUL, imul, soft_shape_imul),
    SIZED(XCHG, xchg, soft_shape_xchg), SIZED(CMPXCHG, cmpxchg, NULL), SIZED(XADD, xadd, NULL),
    PLAIN(CMPXCHG8B, cmpxchg8b, NULL), PLAIN(CMPXCHG16B, cmpxchg16b, NULL),
    SIZED(BT, bt, NULL), SIZED(BTS, bts, NULL), SIZED(BTR, btr, NULL), SIZED(BTC, btc, NULL),
    SIZED(BSF, bsf, NULL), SIZED(BSR, bsr, NULL), SIZED(TZCNT, tzcnt, NULL),
    SIZED(LZCNT, lzcnt, NULL), SIZED(POPCNT, popcnt, NULL), SIZED(BSWAP, bswap, NULL),
    SIZED(MOVBE, movbe, NULL), SIZED(CRC32, crc32, soft_shape_crc32),
    SIZED(MULX, mulx, soft_shape_mulx),
    PLAIN(CBW, cbw, NULL), PLAIN(CWDE, cbw, NULL), PLAIN(CDQE, cbw, NULL),
    PLAIN(CWD, cwd, NULL), PLAIN(CDQ, cwd, NULL), PLAIN(CQO, cwd, NULL),
    PLAIN(DAA, daa, NULL), PLAIN(DAS, das, NULL), PLAIN(AAA, aaa, NULL), PLAIN(AAS, aas, NULL),
    PLAIN(AAM, aam, soft_shape_immediate), PLAIN(AAD, aad, soft_shape_immediate),
    /* Flags. */
    PLAIN(CLC, clc, NULL), PLAIN(STC, stc, NULL), PLAIN(CMC, cmc, NULL), PLAIN(CLD, cld, NULL),
    PLAIN(STD, std, NULL), PLAIN(CLI, cli, NULL), PLAIN_END(STI, sti, NULL),
    PLAIN(LAHF, lahf, NULL), PLAIN(SAHF, sahf, NULL), PLAIN(SALC, salc, NULL),
    PLAIN(CLAC, clac, NULL), PLAIN(STAC, stac, NULL),
    /* Moves and the stack. */
    PLAIN(LEA, nop, soft_shape_lea), SIZED(MOVZX, movzx8, soft_shape_movzx),
    SIZED(MOVSX, movsx8, soft_shape_movzx), SIZED(MOVSXD, movsx32, soft_shape_movzx),
    SIZED(PUSH, push, soft_shape_push), SIZED(POP, pop, soft_shape_pop),
    PLAIN(PUSHA, pusha, NULL), PLAIN(PUSHAD, pusha, NULL), PLAIN(POPA, popa, NULL),
    PLAIN(POPAD, popa, NULL), PLAIN(PUSHF, pushf, soft_shape_stack),
    PLAIN(PUSHFD, pushf, soft_shape_stack), PLAIN(PUSHFQ, pushf, soft_shape_stack),
    PLAIN_END(POPF, popf, soft_shape_stack), PLAIN_END(POPFD, popf, soft_shape_stack),
    PLAIN_END(POPFQ, popf, soft_shape_stack), PLAIN(LEAVE, leave, soft_shape_stack),
    PLAIN(ENTER, enter, soft_shape_enter), PLAIN(XLAT, xlat, soft_shape_memory),
    PLAIN(MOVNTI, movnti, NULL), PLAIN(BOUND, bound, NULL),
    /* Strings and ports. */
    SIZED(MOVSB, movs, soft_shape_string), SIZED(MOVSW, movs, soft_shape_string),
    SIZED(MOVSD, movs, soft_shape_string), SIZED(MOVSQ, movs, soft_shape_string),
    SIZED(CMPSB, cmps, soft_shape_string), SIZED(CMPSW, cmps, soft_shape_string),
    SIZED(CMPSD, cmps, soft_shape_string), SIZED(CMPSQ, cmps, soft_shape_string),
    SIZED(STOSB, stos, soft_shape_string), SIZED(STOSW, stos, soft_shape_string),
    SIZED(STOSD, stos, soft_shape_string), SIZED(STOSQ, stos, soft_shape_string),
    SIZED(LODSB, lods, soft_shape_string), SIZED(LODSW, lods, soft_shape_string),
    SIZED(LODSD, lods, soft_shape_string), SIZED(LODSQ, lods, soft_shape_string),
    SIZED(SCASB, scas, soft_shape_string), SIZED(SCASW, scas, soft_shape_string),
    SIZED(SCASD, scas, soft_shape_string), SIZED(SCASQ, scas, soft_shape_string),
    SIZED(INSB, ins, soft_shape_string), SIZED(INSW, ins, soft_shape_string),
    SIZED(INSD, ins, soft_shape_string), SIZED(OUTSB, outs, soft_shape_outs),
    SIZED(OUTSW, outs, soft_shape_outs), SIZED(OUTSD, outs, soft_shape_outs),
    SIZED(IN, in, NULL), SIZED_END(OUT, out, soft_shape_out),
    /* Transfers. */
    PLAIN_END(JMP, jmp, soft_shape_jump), SIZED_END(CALL, call, soft_shape_call),
    SIZED_END(RET, ret, soft_shape_ret), PLAIN_END(LOOP, loop, soft_shape_wide),
    PLAIN_END(LOOPE, loop, soft_shape_wide), PLAIN_END(LOOPNE, loop, soft_shape_wide),
    PLAIN_END(JCXZ, jcxz, soft_shape_jcxz), PLAIN_END(JECXZ, jcxz, soft_shape_jcxz),
    PLAIN_END(JRCXZ, jcxz, soft_shape_jcxz), PLAIN_END(IRET, iret, NULL),
    PLAIN_END(IRETD, iret, NULL), PLAIN_END(IRETQ, iret, NULL),
    PLAIN_END(INT, int_n, soft_shape_immediate), PLAIN_END(INT3, int3, NULL),
    PLAIN_END(INTO, into, NULL), PLAIN_END(INT1, int1, NULL), PLAIN_END(SYSCALL, syscall, NULL),
    PLAIN_END(SYSRET, sysret, soft_shape_rex), PLAIN_END(SYSENTER, sysenter, NULL),
    PLAIN_END(SYSEXIT, sysexit, soft_shape_rex),
    /* System. */
    PLAIN_END(HLT, hlt, NULL), PLAIN(NOP, nop, NULL), PLAIN(PAUSE, pause, NULL),
    PLAIN(LFENCE, nop, NULL), PLAIN(MFENCE, nop, NULL), PLAIN(SFENCE, nop, NULL),
    PLAIN(ENDBR64, nop, NULL), PLAIN(ENDBR32, nop, NULL), PLAIN(CLFLUSH, flush, NULL),
    PLAIN(CLFLUSHOPT, flush, NULL), PLAIN(CLWB, flush, NULL), PLAIN(CLDEMOTE, nop, NULL),
    PLAIN(PREFETCHNTA, nop, NULL), PLAIN(PREFETCHT0, nop, NULL), PLAIN(PREFETCHT1, nop, NULL),
    PLAIN(PREFETCHT2, nop, NULL), PLAIN(PREFETCHW, nop, NULL), PLAIN(PREFETCH, nop, NULL),
    PLAIN(PREFETCHWT1, nop, NULL), PLAIN(LGDT, lgdt, NULL), PLAIN(LIDT, lidt, NULL),
    PLAIN(SGDT, sgdt, NULL), PLAIN(SIDT, sidt, NULL), PLAIN(LLDT, lldt, NULL),
    PLAIN(LTR, ltr, NULL), PLAIN(SLDT, sldt, NULL), PLAIN(STR, str, NULL),
    PLAIN_END(LMSW, lmsw, NULL), PLAIN(SMSW, smsw, NULL), PLAIN(CLTS, clts, NULL),
    PLAIN_END(INVLPG, invlpg, NULL), PLAIN_END(INVPCID, invpcid, NULL),
    PLAIN(WBINVD, wbinvd, NULL), PLAIN(INVD, invd, NULL),
    PLAIN_END(RDMSR, rdmsr, NULL), PLAIN_END(WRMSR, wrmsr, NULL), PLAIN_END(CPUID, cpuid, NULL),
    PLAIN(RDTSC, rdtsc, NULL), PLAIN(RDTSCP, rdtscp, NULL), PLAIN(RDPID, rdpid, NULL),
    PLAIN(RDPMC, rdpmc, NULL), PLAIN(SWAPGS, swapgs, NULL),
    PLAIN(RDFSBASE, rdbase, soft_shape_base),
    PLAIN(RDGSBASE, rdbase, soft_shape_base), PLAIN(WRFSBASE, wrbase, soft_shape_base),
    PLAIN(WRGSBASE, wrbase, soft_shape_base), PLAIN(XGETBV, xgetbv, NULL),
    PLAIN_END(XSETBV, xsetbv, NULL), PLAIN(LAR, lar, NULL), PLAIN(LSL, lsl, NULL),
    PLAIN(VERR, verr, NULL), PLAIN(VERW, verw, NULL), PLAIN(ARPL, arpl, NULL),
    PLAIN_END(LDS, load_far, soft_shape_segment), PLAIN_END(LES, load_far, soft_shape_segment),
    PLAIN_END(LSS, load_far, soft_shape_segment), PLAIN_END(LFS, load_far, soft_shape_segment),
    PLAIN_END(LGS, load_far, soft_shape_segment), PLAIN(UD0, ud, NULL), PLAIN(UD1, ud, NULL),
    PLAIN(UD2, ud, NULL), PLAIN(VMCALL, vmcall, NULL),
    PLAIN(VMMCALL, vmmcall, NULL), PLAIN(VMCLEAR, vmx, soft_shape_vmx),
    PLAIN(VMLAUNCH, vmx, soft_shape_vmx), PLAIN(VMPTRLD, vmx, soft_shape_vmx),
    PLAIN(VMPTRST, vmx, soft_shape_vmx), PLAIN(VMREAD, vmx, soft_shape_vmx),
    PLAIN(VMRESUME, vmx, soft_shape_vmx), PLAIN(VMWRITE, vmx, soft_shape_vmx),
    PLAIN(VMXOFF, vmx, soft_shape_vmx), PLAIN(VMXON, vmx, soft_shape_vmx),
    PLAIN(INVEPT, vmx, soft_shape_vmx), PLAIN(INVVPID, vmx, soft_shape_vmx),
    PLAIN(RDRAND, rdrand, NULL), PLAIN(RDSEED, rdseed, NULL),
    PLAIN(MONITOR, monitor, soft_shape_monitor), PLAIN_END(MWAIT, mwait, NULL),
    /* Vector state. */
    PLAIN(FXSAVE, fxsave, NULL), PLAIN(FXSAVE64, fxsave, NULL), PLAIN(FXRSTOR, fxrstor, NULL),
    PLAIN(FXRSTOR64, fxrstor, NULL), PLAIN(XSAVE, xsave, NULL), PLAIN(XSAVE64, xsave, NULL),
    PLAIN(XSAVEOPT, xsave, NULL), PLAIN(XSAVEOPT64, xsave, NULL), PLAIN(XRSTOR, xrstor, NULL),
    PLAIN(XRSTOR64, xrstor, NULL), PLAIN(XSAVEC, xsavec, NULL), PLAIN(XSAVEC64, xsavec, NULL),
    PLAIN(XSAVES, xsaves, NULL), PLAIN(XSAVES64, xsaves, NULL), PLAIN(XRSTORS, xrstors, NULL),
    PLAIN(XRSTORS64, xrstors, NULL), PLAIN(RDPKRU, rdpkru, NULL),
    PLAIN_END(WRPKRU, wrpkru, NULL),
};
/* clang-format on */

const soft_row *soft_row_of(ZydisMnemonic mnemonic) {
  const soft_row *row = &rows[mnemonic];
  return row->sized || row->plain ? row : NULL;
}

int soft_condition_of(ZydisMnemonic mnemonic) {
#define SUFFIX(number, suffix)                                                                     \
  case ZYDIS_MNEMONIC_J##suffix:                                                                   \
  case ZYDIS_MNEMONIC_SET##suffix:                                                                 \
  case ZYDIS_MNEMONIC_CMOV##suffix:                                                                \
    return number;
  switch (mnemonic) {
    SUFFIX(0, O)
    SUFFIX(1, NO)
    SUFFIX(2, B)
    SUFFIX(3, NB)
    SUFFIX(4, Z)
    SUFFIX(5, NZ)
    SUFFIX(6, BE)
    SUFFIX(7, NBE)
    SUFFIX(8, S)
    SUFFIX(9, NS)
    SUFFIX(10, P)
    SUFFIX(11, NP)
    SUFFIX(12, L)
    SUFFIX(13, NL)
    SUFFIX(14, LE)
    SUFFIX(15, NLE)
    default:
      return -1;
  }
#undef SUFFIX
}
