/* SPDX-License-Identifier: MIT
 * Model-specific registers. */
#include "soft/execute/control.h"
#include "soft/execute/execute.h"
#include "soft/irqchip/irqchip.h"

enum {
  MSR_TSC = 0x10,
  MSR_APIC_BASE = 0x1b,
  MSR_TSC_ADJUST = 0x3b,
  MSR_MTRR_CAP = 0xfe,
  MSR_SYSENTER_CS = 0x174,
  MSR_MISC_ENABLE = 0x1a0,
  MSR_PAT = 0x277,
  MSR_TSC_DEADLINE = 0x6e0,
  MSR_X2APIC = 0x800,
  MSR_XSS = 0xda0,
  MSR_KVM_WALL_CLOCK_OLD = 0x11,
  MSR_KVM_SYSTEM_TIME_OLD = 0x12,
  MSR_KVM_WALL_CLOCK = 0x4b564d00,
  MSR_KVM_SYSTEM_TIME = 0x4b564d01
};
#define MSR_EFER 0xc0000080u
#define MSR_STAR 0xc0000081u
#define MSR_LSTAR 0xc0000082u
#define MSR_CSTAR 0xc0000083u
#define MSR_SFMASK 0xc0000084u
#define MSR_FS_BASE 0xc0000100u
#define MSR_GS_BASE 0xc0000101u
#define MSR_KERNEL_GS_BASE 0xc0000102u
#define MSR_TSC_AUX 0xc0000103u

/* Registers that only keep what is written: memory types, microcode, power, what AMD's Linux
 * driver asks for. */
static const uint32_t others[] = {
    0x17,       0x34,       0x3a,       0x8b,       0xce,       0x140,      0x179,      0x17a,
    0x17b,      0x1b0,      0x1c9,      0x1d9,      0x2ff,      0x200,      0x201,      0x202,
    0x203,      0x204,      0x205,      0x206,      0x207,      0x208,      0x209,      0x20a,
    0x20b,      0x20c,      0x20d,      0x20e,      0x20f,      0x250,      0x258,      0x259,
    0x268,      0x269,      0x26a,      0x26b,      0x26c,      0x26d,      0x26e,      0x26f,
    0x4b564d00, 0x4b564d02, 0x4b564d03, 0x4b564d04, 0x11,       0xc0000104, 0xc0010000, 0xc0010001,
    0xc0010002, 0xc0010003, 0xc0010004, 0xc0010005, 0xc0010006, 0xc0010007, 0xc0010010, 0xc0010015,
    0xc001001f, 0xc0010055, 0xc0010058, 0xc0010061, 0xc0010062, 0xc0010063, 0xc0010064, 0xc0010117,
    0xc0010299, 0xc0011029, 0xc001102a,
};
_Static_assert(sizeof others / sizeof *others <= SOFT_OTHER_MSRS, "other_msrs is too small");

static uint64_t *other(soft_cpu *cpu, uint32_t msr) {
  for (unsigned i = 0; i < sizeof others / sizeof *others; i++) {
    if (others[i] == msr) {
      return &cpu->other_msrs[i];
    }
  }
  return NULL;
}

/* Where the registers are that are kept as they are. */
static uint64_t *plain(soft_cpu *cpu, uint32_t msr) {
  switch (msr) {
    case MSR_STAR:
      return &cpu->star;
    case MSR_SFMASK:
      return &cpu->sfmask;
    case MSR_TSC_AUX:
      return &cpu->tsc_aux;
    case MSR_SYSENTER_CS:
      return &cpu->sysenter[0];
    case MSR_MISC_ENABLE:
      return &cpu->misc_enable;
    case MSR_TSC_ADJUST:
      return &cpu->tsc_adjust;
    default:
      return other(cpu, msr);
  }
}

/* Those that hold an address, which has to be canonical. */
static uint64_t *address(soft_cpu *cpu, uint32_t msr) {
  switch (msr) {
    case MSR_LSTAR:
      return &cpu->lstar;
    case MSR_CSTAR:
      return &cpu->cstar;
    case MSR_KERNEL_GS_BASE:
      return &cpu->kernel_gs;
    case MSR_FS_BASE:
      return (uint64_t *)&cpu->seg[SEG_FS].base;
    case MSR_GS_BASE:
      return (uint64_t *)&cpu->seg[SEG_GS].base;
    case MSR_SYSENTER_CS + 1:
      return &cpu->sysenter[1];
    case MSR_SYSENTER_CS + 2:
      return &cpu->sysenter[2];
    default:
      return NULL;
  }
}

bool soft_msr_get(soft_cpu *cpu, uint32_t msr, uint64_t *value) {
  const uint64_t *kept = address(cpu, msr);
  if (soft_chip_msr(cpu, msr, value, false)) {
    return true;
  }
  switch (msr) {
    case MSR_TSC:
      *value = soft_tsc(cpu);
      return true;
    case MSR_EFER:
      *value = cpu->efer;
      return true;
    case MSR_PAT:
      *value = cpu->pat;
      return true;
    case MSR_APIC_BASE:
      *value = cpu->apic_base;
      return true;
    case MSR_XSS: /* no component is a supervisor's */
      *value = 0;
      return true;
    case MSR_MTRR_CAP:
      *value = 0x508; /* eight variable ranges, fixed ones, write-combining */
      return true;
    case MSR_KVM_SYSTEM_TIME:
    case MSR_KVM_SYSTEM_TIME_OLD:
      *value = cpu->clock_gpa;
      return true;
    default:
      kept = kept ? kept : plain(cpu, msr);
      *value = kept ? *kept : 0;
      return kept;
  }
}

static bool pat_right(uint64_t value) {
  for (unsigned i = 0; i < 8; i++) {
    unsigned type = value >> 8 * i & 0xff;
    if (type > 7 || type == 2 || type == 3) {
      return false;
    }
  }
  return true;
}

static bool set_efer(soft_cpu *cpu, uint64_t value, bool host) {
  bool switches = (value ^ cpu->efer) & EFER_LME && cpu->cr0 & CR0_PG;
  if (value & ~(uint64_t)EFER_ALL || (!host && switches)) {
    return false;
  }
  cpu->efer = (value & ~(uint64_t)EFER_LMA) | (cpu->efer & EFER_LMA);
  soft_tlb_flush(cpu);
  soft_mode_changed(cpu);
  return true;
}

/* The guest sees it in IA32_TSC_ADJUST, and the other way round (SDM volume 3, 18.17.3). */
static void move_tsc(soft_cpu *cpu, uint64_t by) {
  cpu->tsc_offset += by;
  atomic_fetch_or(&cpu->attention, SOFT_ATTEND_CLOCK);
}

static bool set_tsc(soft_cpu *cpu, uint64_t value, bool host) {
  uint64_t by = value - soft_tsc(cpu);
  cpu->tsc_adjust += host ? 0 : by;
  move_tsc(cpu, by);
  return true;
}

static bool set_tsc_adjust(soft_cpu *cpu, uint64_t value, bool host) {
  if (!host) {
    move_tsc(cpu, value - cpu->tsc_adjust);
  }
  cpu->tsc_adjust = value;
  return true;
}

bool soft_msr_set(soft_cpu *cpu, uint32_t msr, uint64_t value, bool host) {
  uint64_t *kept = address(cpu, msr);
  if (kept) {
    if (!soft_canonical(cpu, value)) {
      return false;
    }
    *kept = value;
    return true;
  }
  if (soft_chip_msr(cpu, msr, &value, true)) {
    return true;
  }
  switch (msr) {
    case MSR_TSC:
      return set_tsc(cpu, value, host);
    case MSR_TSC_ADJUST:
      return set_tsc_adjust(cpu, value, host);
    case MSR_EFER:
      return set_efer(cpu, value, host);
    case MSR_PAT:
      if (!pat_right(value)) {
        return false;
      }
      cpu->pat = value;
      return true;
    case MSR_APIC_BASE:
      return soft_set_apic_base(cpu, value, host);
    case MSR_XSS:
      return value == 0;
    case MSR_MTRR_CAP:
      return host && value == 0x508;
    case MSR_KVM_SYSTEM_TIME:
    case MSR_KVM_SYSTEM_TIME_OLD:
      cpu->clock_gpa = value;
      soft_clock_update(cpu);
      return true;
    case MSR_KVM_WALL_CLOCK:
    case MSR_KVM_WALL_CLOCK_OLD:
      soft_wall_clock(cpu, value);
      return true;
    default:
      kept = plain(cpu, msr);
      if (kept) {
        *kept = value;
      }
      return kept;
  }
}

unsigned soft_msr_list(uint32_t *msrs, unsigned room) {
  static const uint32_t first[] = {
      MSR_TSC,
      MSR_SYSENTER_CS,
      MSR_SYSENTER_CS + 1,
      MSR_SYSENTER_CS + 2,
      MSR_MISC_ENABLE,
      MSR_PAT,
      MSR_EFER,
      MSR_STAR,
      MSR_LSTAR,
      MSR_CSTAR,
      MSR_SFMASK,
      MSR_FS_BASE,
      MSR_GS_BASE,
      MSR_KERNEL_GS_BASE,
      MSR_TSC_AUX,
      MSR_TSC_ADJUST,
      MSR_TSC_DEADLINE,
  };
  unsigned count = 0;
  for (; count < sizeof first / sizeof *first; count++) {
    if (count < room) {
      msrs[count] = first[count];
    }
  }
  return count;
}

/* ---- Instructions ---- */

/* User space is asked; its answer comes when the instruction runs again. */
static void ask(soft_cpu *cpu, uint32_t msr, uint64_t value, bool write, uint32_t reason) {
  if (!(soft_msr_exits(cpu->vm) & reason)) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
  struct kvm_run *run = cpu->run;
  run->exit_reason = write ? KVM_EXIT_X86_WRMSR : KVM_EXIT_X86_RDMSR;
  run->msr.index = msr;
  run->msr.data = value;
  run->msr.reason = reason;
  run->msr.error = 0;
  cpu->asked = write ? SOFT_ASKED_WRMSR : SOFT_ASKED_RDMSR;
  soft_leave(cpu, SOFT_ESCAPE_EXIT);
}

SOFT_OP(rdmsr) {
  soft_need_ring_0(cpu, insn);
  uint32_t msr = (uint32_t)cpu->r[RCX];
  uint64_t value = 0;
  if (cpu->answers_used < cpu->answers_made) {
    value = soft_peek(cpu->answers[cpu->answers_used++], 64);
  } else if (soft_msr_filtered(cpu, msr, false)) {
    ask(cpu, msr, 0, false, KVM_MSR_EXIT_REASON_FILTER);
  } else if (!soft_msr_get(cpu, msr, &value)) {
    ask(cpu, msr, 0, false, KVM_MSR_EXIT_REASON_UNKNOWN);
  }
  soft_set_gpr(cpu, RAX, value, 32);
  soft_set_gpr(cpu, RDX, value >> 32, 32);
  SOFT_END;
}

SOFT_OP(wrmsr) {
  soft_need_ring_0(cpu, insn);
  uint32_t msr = (uint32_t)cpu->r[RCX];
  uint64_t value = soft_gpr(cpu, RDX, 32) << 32 | soft_gpr(cpu, RAX, 32), unused;
  if (cpu->answers_used < cpu->answers_made) {
    cpu->answers_used++;
  } else if (soft_msr_filtered(cpu, msr, true)) {
    ask(cpu, msr, value, true, KVM_MSR_EXIT_REASON_FILTER);
  } else if (!soft_msr_set(cpu, msr, value, false)) {
    bool known = soft_msr_get(cpu, msr, &unused);
    ask(cpu, msr, value, true, known ? KVM_MSR_EXIT_REASON_INVAL : KVM_MSR_EXIT_REASON_UNKNOWN);
  }
  soft_look_around(cpu);
  SOFT_END;
}
