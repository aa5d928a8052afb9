/* SPDX-License-Identifier: MIT
 * What a debugged guest's exits mean: a breakpoint, the end of a step, or an exception of the
 * guest's own. */
#include "debug/debug_exit.h"

#include "base/error.h"
#include "debug/debug.h"
#include "debug/software.h"
#include "debug/trap_flag.h"
#include "kvm/kvm.h"
#include "vcpu/record.h"
#include "vcpu/vcpu.h"

#include <errno.h>
#include <string.h>

enum {
  VECTOR_DB = 1,
  VECTOR_BP = 3,
  RFLAGS_TF = 0x100
};

int luna_debug_report(luna_vcpu *vcpu, uint32_t number, uint64_t gva, uint64_t dr6) {
  luna_debug *debug = vcpu->debug;
  luna_exit_set(vcpu, LUNA_EXIT_DEBUG);
  vcpu->exit.address = gva;
  vcpu->exit.breakpoint = number;
  vcpu->exit.dr6 = (uint32_t)dr6;
  debug->over = false;
  debug->standing = true;
  debug->stood = gva;
  return LUNA_EXIT_DEBUG;
}

/* A string instruction with a REP prefix, of which one element is done (SDM Vol. 2, 2.1.1). */
static bool repeats(luna_vcpu *vcpu, uint64_t gva) {
  uint8_t bytes[15];
  bool rep = false;
  size_t size = luna_software_read(vcpu, gva, bytes, sizeof bytes);
  size_t i = 0;
  while (i < size && (memchr("\xf2\xf3\x66\x67\x2e\x36\x3e\x26\x64\x65", bytes[i], 10) ||
                      (bytes[i] & 0xf0) == 0x40)) {
    rep = rep || bytes[i] == 0xf2 || bytes[i] == 0xf3;
    i++;
  }
  return rep && i < size &&
         ((bytes[i] >= 0x6c && bytes[i] <= 0x6f) || (bytes[i] >= 0xa4 && bytes[i] <= 0xa7) ||
          (bytes[i] >= 0xaa && bytes[i] <= 0xaf));
}

/* One instruction is done. The kind, or 0 where nobody asked to see it. */
static int stepped(luna_vcpu *vcpu, uint64_t dr6) {
  luna_debug *debug = vcpu->debug;
  uint64_t gva;
  int status = luna_debug_locate(vcpu, &gva);
  status = status == LUNA_OK ? luna_trap_flag_done(vcpu) : status;
  if (status != LUNA_OK) {
    return status;
  }
  if (debug->step) {
    return luna_debug_report(vcpu, 0, gva, dr6);
  }
  debug->over = false;
  debug->standing = gva == debug->start && repeats(vcpu, gva);
  return 0;
}

/* The breakpoint that DR6 names, of those that KVM was told. */
static const luna_breakpoint *hit(const luna_vcpu *vcpu, uint64_t dr6) {
  const struct kvm_guest_debug *told = &vcpu->seat->debug;
  for (int i = 0; i < LUNA_DEBUG_REGISTERS; i++) {
    if (dr6 >> i & 1 && told->arch.debugreg[7] >> (2 * i) & 3 && vcpu->debug->points[i]) {
      return vcpu->debug->points[i];
    }
  }
  return NULL;
}

/* A watchpoint and the guest's own TF at one instruction. */
static int own_trap(luna_vcpu *vcpu, uint64_t dr6) {
  if (!(dr6 & LUNA_DR6_STEP)) {
    return LUNA_OK;
  }
  return vcpu->seat->debug.control & KVM_GUESTDBG_SINGLESTEP
             ? luna_trap_flag_done(vcpu)
             : luna_trap_flag_give(vcpu, VECTOR_DB, LUNA_DR6_FIXED | LUNA_DR6_STEP);
}

/* INT3 that nobody but the guest has put there; nothing of it has been done. */
static int caught(luna_vcpu *vcpu) {
  luna_exit_set(vcpu, LUNA_EXIT_EXCEPTION);
  vcpu->exit.vector = VECTOR_BP;
  return LUNA_EXIT_EXCEPTION;
}

int luna_debug_exit(luna_vcpu *vcpu) {
  const struct kvm_debug_exit_arch arch = vcpu->run->debug.arch;
  const luna_debug *debug = vcpu->debug;
  if (!debug) {
    return luna_exit_set(vcpu, LUNA_EXIT_OTHER);
  }
  bool trap = arch.exception != VECTOR_BP;
  const luna_breakpoint *point = trap ? hit(vcpu, arch.dr6) : luna_software_at(debug, arch.pc);
  if (point) {
    int status = trap ? own_trap(vcpu, arch.dr6) : LUNA_OK;
    return status == LUNA_OK ? luna_debug_report(vcpu, point->number, arch.pc, arch.dr6) : status;
  }
  if (trap && (debug->step || debug->over)) {
    return stepped(vcpu, arch.dr6);
  }
  if (trap && arch.dr6 & LUNA_DR6_STEP && vcpu->seat->debug.control & KVM_GUESTDBG_SINGLESTEP) {
    return 0; /* the end of a step that another exit has ended */
  }
  if (!trap && debug->catches) {
    return caught(vcpu);
  }
  return luna_trap_flag_give(vcpu, trap ? VECTOR_DB : VECTOR_BP, arch.dr6);
}

int luna_debug_internal(luna_vcpu *vcpu) {
  const luna_exit *e = &vcpu->exit;
  uint64_t gva;
  if (!vcpu->debug || e->suberror != KVM_INTERNAL_ERROR_EMULATION || e->instruction_size == 0 ||
      e->instruction[0] != 0xcc || luna_debug_locate(vcpu, &gva) != LUNA_OK) {
    return 0;
  }
  const luna_breakpoint *point = luna_software_at(vcpu->debug, gva);
  if (!point && !vcpu->debug->catches) {
    return 0;
  }
  /* KVM has queued a #UD for the guest; writing the registers makes it forget that. */
  vcpu->state.regs_whole = true;
  return point ? luna_debug_report(vcpu, point->number, gva, 0) : caught(vcpu);
}

/* The processor saved RFLAGS with the TF that KVM had set for the step. */
static void clean_flags(luna_vcpu *vcpu) {
  uint64_t rflags;
  if (vcpu->seat->debug.control & KVM_GUESTDBG_SINGLESTEP && !vcpu->debug->guest_traps &&
      luna_vcpu_get(vcpu, LUNA_RFLAGS, &rflags) == LUNA_OK && rflags & RFLAGS_TF) {
    luna_vcpu_set(vcpu, LUNA_RFLAGS, rflags & ~(uint64_t)RFLAGS_TF);
  }
}

int luna_debug_exception(luna_vcpu *vcpu, int vector) {
  const luna_debug *debug = vcpu->debug;
  uint64_t gva;
  if (!debug) {
    return LUNA_EXIT_EXCEPTION;
  }
  clean_flags(vcpu);
  if (vector == VECTOR_DB && (debug->step || debug->over)) {
    return stepped(vcpu, LUNA_DR6_FIXED | LUNA_DR6_STEP);
  }
  if (vector != VECTOR_BP || luna_debug_locate(vcpu, &gva) != LUNA_OK) {
    return LUNA_EXIT_EXCEPTION;
  }
  const luna_breakpoint *point = luna_software_at(debug, gva - 1);
  if (!point) {
    return LUNA_EXIT_EXCEPTION;
  }
  uint64_t rip;
  int status = luna_vcpu_get(vcpu, LUNA_RIP, &rip);
  status = status == LUNA_OK ? luna_vcpu_set(vcpu, LUNA_RIP, rip - 1) : status;
  return status == LUNA_OK ? luna_debug_report(vcpu, point->number, point->gva, 0) : status;
}
