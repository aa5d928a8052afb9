/* SPDX-License-Identifier: MIT
 * Where instruction and data breakpoints, TF and single steps lead (SDM volume 3, chapter 18;
 * api.rst, KVM_SET_GUEST_DEBUG). */
#include "soft/debug.h"

#include "soft/deliver/deliver.h"
#include "soft/vmx/vmx.h"

enum {
  BLOCK_REACH = SOFT_BLOCK_BYTES + 15 /* no instruction of a block begins further on */
};

bool soft_debugged(const soft_cpu *cpu, uint32_t how) {
  uint32_t wanted = KVM_GUESTDBG_ENABLE | how;
  return (cpu->debug.control & wanted) == wanted;
}

void soft_debug_exit(soft_cpu *cpu, uint32_t dr6) {
  struct kvm_run *run = cpu->run;
  run->exit_reason = KVM_EXIT_DEBUG;
  run->debug.arch.exception = VECTOR_DB;
  run->debug.arch.pc = cpu->cs_base + cpu->rip;
  run->debug.arch.dr6 = (uint32_t)DR6_FIXED | dr6;
  run->debug.arch.dr7 =
      soft_debugged(cpu, KVM_GUESTDBG_USE_HW_BP) ? cpu->debug.arch.debugreg[7] : cpu->dr[7];
}

/* The instruction breakpoints in [from, from + size), as DR6 bits. */
static uint32_t breakpoints(const soft_cpu *cpu, uint64_t from, uint64_t size) {
  bool by_user_space = soft_debugged(cpu, KVM_GUESTDBG_USE_HW_BP);
  uint64_t dr7 = by_user_space ? cpu->debug.arch.debugreg[7] : cpu->dr[7];
  uint32_t met = 0;
  for (unsigned i = 0; i < 4; i++) {
    uint64_t at = by_user_space ? cpu->debug.arch.debugreg[i] : cpu->dr[i];
    if (dr7 >> 2 * i & 3 && !(dr7 >> (16 + 4 * i) & 3) && at - from < size) {
      met |= 1u << i;
    }
  }
  return met;
}

static uint64_t linear_rip(const soft_cpu *cpu) {
  uint64_t linear = cpu->cs_base + cpu->rip;
  return soft_is_64(cpu) ? linear : linear & 0xffffffff;
}

bool soft_near_breakpoint(const soft_cpu *cpu) {
  return breakpoints(cpu, linear_rip(cpu), BLOCK_REACH);
}

/* What the handler reads, which GD is cleared for. */
static void report(soft_cpu *cpu, uint32_t status) {
  cpu->dr[6] = (cpu->dr[6] & ~UINT64_C(15)) | status;
  cpu->dr[7] &= ~(uint64_t)DR7_GD;
}

bool soft_code_breakpoint(soft_cpu *cpu) {
  uint32_t met = breakpoints(cpu, linear_rip(cpu), 1);
  if (!met) {
    return false;
  }
  if (soft_debugged(cpu, KVM_GUESTDBG_USE_HW_BP)) {
    soft_debug_exit(cpu, met);
    return true;
  }
  if (!(cpu->rflags & FLAG_RF)) {
    soft_vmx_debug(cpu, met);
    report(cpu, met);
    soft_raise(cpu, VECTOR_DB);
  }
  return false;
}

bool soft_after_step(soft_cpu *cpu) {
  if (cpu->watched && soft_debugged(cpu, KVM_GUESTDBG_USE_HW_BP)) {
    soft_debug_exit(cpu, cpu->watched);
    cpu->watched = 0;
    return true;
  }
  if (soft_debugged(cpu, KVM_GUESTDBG_SINGLESTEP)) {
    cpu->halted = false; /* the step's trap ends a HLT at once */
    soft_debug_exit(cpu, DR6_BS);
    return true;
  }
  bool shadow = cpu->shadow == KVM_X86_SHADOW_INT_MOV_SS; /* which a step's trap does not outlive */
  cpu->pending_debug |= cpu->watched | (cpu->trap_flag && !shadow ? DR6_BS : 0);
  if (cpu->pending_debug && !shadow && !cpu->controlled) { /* else when it is taken */
    soft_queue_trap(cpu);
  }
  cpu->watched = 0;
  cpu->trap_flag = false;
  return false;
}

void soft_queue_trap(soft_cpu *cpu) {
  report(cpu, cpu->pending_debug);
  cpu->pending_debug = 0;
  cpu->injected = true;
  cpu->pends = false;
  cpu->inject = (soft_event){.vector = VECTOR_DB, .resumes = cpu->unfinished};
}
