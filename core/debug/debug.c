/* SPDX-License-Identifier: MIT
 * Breakpoints and single steps through KVM_SET_GUEST_DEBUG (api.rst, 4.87). The guest's own debug
 * registers stay as they are: KVM uses ours in their place while a breakpoint is set. */
#include "debug/debug.h"

#include "base/error.h"
#include "debug/breakpoint.h"
#include "debug/debug_exit.h"
#include "debug/software.h"
#include "debug/trap_flag.h"
#include "kvm/kvm.h"
#include "kvm/kvm_event.h"
#include "kvm/kvm_interrupt.h"
#include "seat/seat.h"
#include "vcpu/guard.h"
#include "vcpu/state.h"
#include "vcpu/vcpu.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum {
  DR7_FIXED = 0x400,
  HLT = 0xf4
};

int luna_debug_locate(luna_vcpu *vcpu, uint64_t *gva) {
  const struct kvm_sregs *sregs = luna_state_sregs(vcpu);
  uint64_t rip;
  int status = sregs ? luna_vcpu_get(vcpu, LUNA_RIP, &rip) : luna_error_status();
  if (status == LUNA_OK) {
    *gva = sregs->cs.l ? rip : (uint32_t)(sregs->cs.base + rip);
  }
  return status;
}

/* Hands what waits for the next entry to KVM now: it looks at its own copy when a single step is
 * set up, and forgets the step if RIP or RFLAGS come later. */
static int settle_registers(luna_vcpu *vcpu) {
  struct kvm_run *run = vcpu->run;
  if (run->kvm_dirty_regs & KVM_SYNC_X86_SREGS) {
    if (luna_kvm_set_sregs(vcpu->fd, &run->s.regs.sregs) != 0) {
      return errno == EINVAL
                 ? luna_state_fail(vcpu)
                 : luna_fail_errno(errno, "cannot write the system registers of vCPU %u", vcpu->id);
    }
    run->kvm_dirty_regs &= ~(uint64_t)KVM_SYNC_X86_SREGS;
  }
  if (run->kvm_dirty_regs & KVM_SYNC_X86_REGS) {
    if (luna_kvm_set_regs(vcpu->fd, &run->s.regs.regs) != 0) {
      return luna_fail_errno(errno, "cannot write the registers of vCPU %u", vcpu->id);
    }
    run->kvm_dirty_regs &= ~(uint64_t)LUNA_DIRTY_REGS;
  }
  return LUNA_OK;
}

int luna_vcpu_place(luna_vcpu *vcpu, uint64_t *gva, uint64_t *gpa) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  int status = luna_debug_locate(vcpu, gva);
  if (status != LUNA_OK || !gpa) {
    return status;
  }
  if (!luna_software_translate(vcpu, *gva, gpa)) {
    status = luna_fail(LUNA_ERROR_NOT_FOUND,
                       "gva 0x%" PRIx64 ", where vCPU %u is, leads nowhere in its page tables",
                       *gva, vcpu->id);
  }
  return status;
}

/* ---- Telling KVM ---- */

/* DR7 (SDM Vol. 3, 18.2.4): a global enable bit each, R/W and LEN from bit 16 on. */
static uint64_t dr7_of(const luna_breakpoint *point, int reg) {
  static const uint8_t length[9] = {[1] = 0, [2] = 1, [4] = 3, [8] = 2};
  static const uint8_t access[] = {
      [LUNA_BREAK_EXECUTE] = 0, [LUNA_BREAK_WRITE] = 1, [LUNA_BREAK_ACCESS] = 3};
  uint64_t control = (uint64_t)access[point->kind] | (uint64_t)length[point->size] << 2;
  return control << (16 + 4 * reg) | (uint64_t)2 << (2 * reg);
}

/* `single`: one instruction is to be run; `halts`: it is a HLT. */
static struct kvm_guest_debug wanted(const luna_debug *debug, bool single, bool halts) {
  struct kvm_guest_debug want = {0};
  for (int i = 0; i < LUNA_DEBUG_REGISTERS; i++) {
    const luna_breakpoint *point = debug->points[i];
    if (point && !(single && point->kind == LUNA_BREAK_EXECUTE)) {
      want.control |= KVM_GUESTDBG_USE_HW_BP;
      want.arch.debugreg[i] = point->gva;
      want.arch.debugreg[7] |= DR7_FIXED | dr7_of(point, i);
    }
  }
  if (single) {
    want.control |= halts ? 0 : KVM_GUESTDBG_SINGLESTEP;
  } else if (debug->software_count > 0) {
    want.control |= KVM_GUESTDBG_USE_SW_BP;
  }
  want.control |= debug->catches ? KVM_GUESTDBG_USE_SW_BP : 0;
  want.control |= want.control ? KVM_GUESTDBG_ENABLE : 0;
  return want;
}

/* A single step is set up anew for each instruction: KVM notes where it begins. */
static int tell(luna_vcpu *vcpu, struct kvm_guest_debug want) {
  luna_seat *seat = vcpu->seat;
  if (!(want.control & KVM_GUESTDBG_SINGLESTEP) && memcmp(&want, &seat->debug, sizeof want) == 0) {
    return LUNA_OK;
  }
  if (luna_kvm_guest_debug(vcpu->fd, &want) != 0) {
    return luna_fail_errno(errno, "cannot set the breakpoints of vCPU %u", vcpu->id);
  }
  seat->debug = want;
  return LUNA_OK;
}

/* Decides whether the instruction at a breakpoint has to be got over first. */
static int aim(luna_vcpu *vcpu) {
  luna_debug *debug = vcpu->debug;
  uint64_t gva;
  int status = luna_debug_locate(vcpu, &gva);
  if (status != LUNA_OK) {
    return status;
  }
  bool same = debug->standing && debug->stood == gva;
  debug->over = same && !debug->step && luna_debug_breaks_before(debug, gva);
  debug->standing = same && (debug->step || debug->over); /* else it leaves now */
  debug->start = gva;
  return LUNA_OK;
}

/* A HLT that KVM leaves the guest for: a guest that has no LAPIC in KVM. With a single step, some
 * KVMs end that instead and report the HLT an instruction later. */
static bool halts(luna_vcpu *vcpu) {
  uint8_t byte;
  struct kvm_lapic_state lapic;
  return !(vcpu->run->kvm_dirty_regs & KVM_SYNC_X86_EVENTS) &&
         luna_software_read(vcpu, vcpu->debug->start, &byte, 1) == 1 && byte == HLT &&
         luna_kvm_get_lapic(vcpu->fd, &lapic) != 0;
}

static int enter_step(luna_vcpu *vcpu) {
  int status = luna_trap_flag_begin(vcpu);
  status = status == LUNA_OK ? settle_registers(vcpu) : status;
  return status == LUNA_OK ? tell(vcpu, wanted(vcpu->debug, true, halts(vcpu))) : status;
}

/* With the end of a single step, KVM takes the guest's TF away: registers go after it. */
static int enter(luna_vcpu *vcpu) {
  luna_debug *debug = vcpu->debug;
  bool stepped = vcpu->seat->debug.control & KVM_GUESTDBG_SINGLESTEP;
  int status = tell(vcpu, wanted(debug, false, false));
  if (status == LUNA_OK && stepped) {
    status = luna_trap_flag_write(vcpu);
  }
  if (status == LUNA_OK && debug->software_count > 0) {
    status = vcpu->pending.incomplete ? LUNA_OK : settle_registers(vcpu);
    status = status == LUNA_OK ? luna_software_insert(vcpu) : status;
  }
  if (status == LUNA_OK && vcpu->seat->debug.control == 0) {
    atomic_fetch_and(&vcpu->attention, ~(unsigned)LUNA_ATTEND_DEBUG);
  }
  return status;
}

int luna_debug_finish(luna_vcpu *vcpu) {
  int kind = luna_vcpu_settle(vcpu);
  uint64_t gva;
  if (kind == 0) {
    kind = luna_trap_flag_done(vcpu);
    kind = kind == LUNA_OK ? luna_debug_locate(vcpu, &gva) : kind;
    kind = kind == LUNA_OK ? luna_debug_report(vcpu, 0, gva, LUNA_DR6_FIXED | LUNA_DR6_STEP) : kind;
  }
  return kind;
}

int luna_debug_entry(luna_vcpu *vcpu) {
  luna_debug *debug = vcpu->debug;
  int status = LUNA_OK;
  if (vcpu->pending.incomplete) {
    if (debug->step) {
      return luna_debug_finish(vcpu);
    }
    status = debug->over ? luna_vcpu_settle(vcpu) : LUNA_OK; /* or it would stop there again */
  }
  if (status == LUNA_OK && vcpu->pending.incomplete) {
    debug->standing = false;
  } else if (status == LUNA_OK) {
    status = aim(vcpu);
  }
  if (status != LUNA_OK) {
    return status;
  }
  return debug->step || debug->over ? enter_step(vcpu) : enter(vcpu);
}

void luna_debug_leave(luna_vcpu *vcpu) {
  luna_software_remove(vcpu);
}

void luna_debug_sit(luna_vcpu *vcpu) {
  if (vcpu->debug) {
    luna_debug_attend(vcpu);
  }
}
