/* SPDX-License-Identifier: MIT
 * Numbers of the processor's manual: registers, flags, control bits, vectors. */
#ifndef SOFT_X86_H
#define SOFT_X86_H

#include <stdint.h>

enum {
  RAX,
  RCX,
  RDX,
  RBX,
  RSP,
  RBP,
  RSI,
  RDI,
  R8,
  R11 = 11,
  R15 = 15,
  R_ZERO = 16,  /* the base or index that an address does not have */
  R_BLOCK = 17, /* linear RIP of the start of the page that the block is in, as RIP counts */
  SOFT_REGISTERS
};

enum {
  SEG_ES,
  SEG_CS,
  SEG_SS,
  SEG_DS,
  SEG_FS,
  SEG_GS
};

enum {
  FLAG_CF = 1 << 0,
  FLAG_ONE = 1 << 1,
  FLAG_PF = 1 << 2,
  FLAG_AF = 1 << 4,
  FLAG_ZF = 1 << 6,
  FLAG_SF = 1 << 7,
  FLAG_TF = 1 << 8,
  FLAG_IF = 1 << 9,
  FLAG_DF = 1 << 10,
  FLAG_OF = 1 << 11,
  FLAG_IOPL = 3 << 12,
  FLAG_NT = 1 << 14,
  FLAG_RF = 1 << 16,
  FLAG_VM = 1 << 17,
  FLAG_AC = 1 << 18,
  FLAG_VIF = 1 << 19,
  FLAG_VIP = 1 << 20,
  FLAG_ID = 1 << 21,
  FLAGS_ARITHMETIC = FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF,
  FLAGS_ALL = 0x3f7fd7
};

enum {
  CR0_PE = 1 << 0,
  CR0_MP = 1 << 1,
  CR0_EM = 1 << 2,
  CR0_TS = 1 << 3,
  CR0_ET = 1 << 4,
  CR0_NE = 1 << 5,
  CR0_WP = 1 << 16,
  CR0_AM = 1 << 18,
  CR0_NW = 1 << 29,
  CR0_CD = 1 << 30,
  CR4_VME = 1 << 0,
  CR4_PVI = 1 << 1,
  CR4_TSD = 1 << 2,
  CR4_DE = 1 << 3,
  CR4_PSE = 1 << 4,
  CR4_PAE = 1 << 5,
  CR4_MCE = 1 << 6,
  CR4_PGE = 1 << 7,
  CR4_PCE = 1 << 8,
  CR4_OSFXSR = 1 << 9,
  CR4_OSXMMEXCPT = 1 << 10,
  CR4_UMIP = 1 << 11,
  CR4_LA57 = 1 << 12,
  CR4_VMXE = 1 << 13,
  CR4_FSGSBASE = 1 << 16,
  CR4_PCIDE = 1 << 17,
  CR4_OSXSAVE = 1 << 18,
  CR4_SMEP = 1 << 20,
  CR4_SMAP = 1 << 21,
  CR4_PKE = 1 << 22,
  CR4_ALL = CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE |
            CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_UMIP | CR4_LA57 | CR4_FSGSBASE | CR4_PCIDE |
            CR4_OSXSAVE | CR4_SMEP | CR4_SMAP | CR4_PKE,
  EFER_SCE = 1 << 0,
  EFER_LME = 1 << 8,
  EFER_LMA = 1 << 10,
  EFER_NXE = 1 << 11,
  EFER_FFXSR = 1 << 14,
  EFER_ALL = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE | EFER_FFXSR
};
#define CR0_PG UINT64_C(0x80000000)

enum {
  VECTOR_DE,
  VECTOR_DB,
  VECTOR_NMI,
  VECTOR_BP,
  VECTOR_OF,
  VECTOR_BR,
  VECTOR_UD,
  VECTOR_NM,
  VECTOR_DF,
  VECTOR_TS = 10,
  VECTOR_NP,
  VECTOR_SS,
  VECTOR_GP,
  VECTOR_PF,
  VECTOR_MF = 16,
  VECTOR_AC,
  VECTOR_MC,
  VECTOR_XM
};

enum {
  DR6_FIXED = (int)0xffff0ff0,
  DR6_BD = 1 << 13,
  DR6_BS = 1 << 14,
  DR6_BT = 1 << 15,
  DR7_FIXED = 0x400,
  DR7_GD = 1 << 13
};

/* The width of code. */
typedef enum soft_mode {
  SOFT_MODE_16,
  SOFT_MODE_32,
  SOFT_MODE_64
} soft_mode;

/* What an access does. */
typedef enum soft_access {
  SOFT_READ = 1,
  SOFT_WRITE = 2,
  SOFT_FETCH = 4
} soft_access;

enum {
  SOFT_OTHER_MSRS = 96,
  SOFT_ADDRESS_BITS = 48 /* physical, as CPUID leaf 0x80000008 has them */
};

#endif
