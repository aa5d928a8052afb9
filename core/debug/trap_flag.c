/* SPDX-License-Identifier: MIT
 * The guest's own RFLAGS.TF (SDM Vol. 3, 18.3.1.4) under single steps of the library's. KVM sets TF
 * for those and hides it, so that PUSHF saves the wrong one, and what POPF and IRET load cannot be
 * read: their images on the stack tell. */
#include "debug/trap_flag.h"

#include "base/error.h"
#include "debug/debug.h"
#include "debug/software.h"
#include "kvm/kvm.h"
#include "seat/seat.h"
#include "vcpu/state.h"
#include "vcpu/vcpu.h"

#include <errno.h>
#include <string.h>

enum {
  VECTOR_DB = 1,
  RFLAGS_TF = 0x100,
  PUSHF = 0x9c,
  POPF = 0x9d,
  IRET = 0xcf,
  LONGEST = 15 /* bytes of an instruction */
};

/* ---- The instruction ---- */

/* Its opcode if it is one of the three, else 0; how wide the words on the stack are. */
static uint8_t decode(luna_vcpu *vcpu, const struct kvm_sregs *sregs, uint32_t *width) {
  uint8_t bytes[LONGEST];
  size_t size = luna_software_read(vcpu, vcpu->debug->start, bytes, sizeof bytes);
  bool half = false;
  uint8_t rex = 0;
  size_t i = 0;
  while (i < size && (memchr("\x66\x67\x2e\x36\x3e\x26\x64\x65\xf2\xf3", bytes[i], 10) ||
                      (sregs->cs.l && (bytes[i] & 0xf0) == 0x40))) {
    half = half || bytes[i] == 0x66;
    rex = bytes[i] & 0x40 && (bytes[i] & 0xf0) == 0x40 ? bytes[i] : 0;
    i++;
  }
  uint8_t opcode = i < size ? bytes[i] : 0;
  if (sregs->cs.l) { /* PUSHF and POPF have 64 bits there, IRET 32 */
    *width = rex & 8 ? 8 : half ? 2 : opcode == IRET ? 4 : 8;
  } else {
    *width = (sregs->cs.db != 0) != half ? 4 : 2;
  }
  return opcode == PUSHF || opcode == POPF || opcode == IRET ? opcode : 0;
}

static uint64_t on_stack(const struct kvm_sregs *sregs, uint64_t rsp, uint64_t offset) {
  if (sregs->cs.l) {
    return rsp + offset;
  }
  uint32_t mask = sregs->ss.db ? UINT32_MAX : UINT16_MAX;
  return (uint32_t)(sregs->ss.base + ((rsp + offset) & mask));
}

/* TF is bit 0 of the second byte of flags. */
static bool read_image(luna_vcpu *vcpu, const struct kvm_sregs *sregs, uint64_t offset) {
  uint64_t rsp;
  uint8_t byte;
  return luna_vcpu_get(vcpu, LUNA_RSP, &rsp) == LUNA_OK &&
         luna_vcpu_copy(vcpu, on_stack(sregs, rsp, offset + 1), &byte, 1, LUNA_READ) == LUNA_OK &&
         byte & 1;
}

/* Flags that were saved with the TF that KVM had set. */
static void mend_image(luna_vcpu *vcpu, uint64_t gva) {
  uint8_t byte;
  if (luna_vcpu_copy(vcpu, gva + 1, &byte, 1, LUNA_READ) == LUNA_OK) {
    byte = (uint8_t)((byte & ~1u) | vcpu->debug->guest_traps);
    luna_vcpu_copy(vcpu, gva + 1, &byte, 1, LUNA_WRITE);
  }
}

static void mend_pushed(luna_vcpu *vcpu) {
  const struct kvm_sregs *sregs = luna_state_sregs(vcpu);
  uint64_t rsp;
  if (sregs && luna_vcpu_get(vcpu, LUNA_RSP, &rsp) == LUNA_OK) {
    mend_image(vcpu, on_stack(sregs, rsp, 0));
  }
}

int luna_trap_flag_begin(luna_vcpu *vcpu) {
  luna_debug *debug = vcpu->debug;
  const struct kvm_sregs *sregs = luna_state_sregs(vcpu);
  uint64_t rflags;
  uint32_t width;
  int status = sregs ? luna_vcpu_get(vcpu, LUNA_RFLAGS, &rflags) : luna_error_status();
  if (status != LUNA_OK) {
    return status;
  }
  uint8_t opcode = decode(vcpu, sregs, &width);
  debug->guest_traps = debug->next_traps = rflags & RFLAGS_TF;
  debug->pushes = opcode == PUSHF;
  if (opcode == POPF || opcode == IRET) {
    debug->next_traps = read_image(vcpu, sregs, opcode == IRET ? 2 * width : 0);
  }
  const struct kvm_vcpu_events *events = &vcpu->state.events;
  debug->delivers = vcpu->vm->irqchip ||
                    (vcpu->state.events_known && (events->exception.injected | events->nmi.pending |
                                                  events->interrupt.injected));
  debug->start_cs = sregs->cs.selector;
  return luna_vcpu_get(vcpu, LUNA_RIP, &debug->start_rip);
}

/* ---- Afterwards ---- */

static bool is_told(const luna_vcpu *vcpu) {
  return vcpu->seat->debug.control & KVM_GUESTDBG_SINGLESTEP;
}

static void set_flag(luna_vcpu *vcpu, bool on) {
  uint64_t rflags;
  if (luna_vcpu_get(vcpu, LUNA_RFLAGS, &rflags) == LUNA_OK && !(rflags & RFLAGS_TF) == on) {
    luna_vcpu_set(vcpu, LUNA_RFLAGS, rflags ^ RFLAGS_TF);
  }
}

/* The words of a frame, RIP, CS and RFLAGS, are those of the instruction under way. */
static bool is_frame(luna_vcpu *vcpu, uint64_t gva, uint32_t width) {
  uint8_t bytes[16];
  uint64_t rip = 0;
  uint16_t cs;
  if (luna_vcpu_copy(vcpu, gva, bytes, 2 * width, LUNA_READ) != LUNA_OK) {
    return false;
  }
  memcpy(&rip, bytes, width);
  memcpy(&cs, bytes + width, sizeof cs);
  return rip == vcpu->debug->start_rip && cs == vcpu->debug->start_cs;
}

/* Where the handler of an exception or interrupt that came before the instruction finds the
 * guest's flags: it has run one instruction at most, so that they are near. */
static bool find_frame(luna_vcpu *vcpu, uint64_t *flags) {
  enum {
    NEAR = 8 /* words */
  };
  const struct kvm_sregs *sregs = luna_state_sregs(vcpu);
  uint64_t rsp;
  if (!sregs || luna_vcpu_get(vcpu, LUNA_RSP, &rsp) != LUNA_OK) {
    return false;
  }
  uint32_t width = sregs->cs.l ? 8 : sregs->cr0 & 1 ? 4 : 2;
  for (uint32_t i = 0; i < NEAR; i++) {
    uint64_t gva = on_stack(sregs, rsp, (uint64_t)i * width);
    if (is_frame(vcpu, gva, width)) {
      *flags = gva + UINT64_C(2) * width;
      return true;
    }
  }
  return false;
}

/* Such a handler has been entered, and has not come back by IRET already. */
static bool is_away(luna_vcpu *vcpu, uint64_t *flags) {
  const luna_debug *debug = vcpu->debug;
  uint64_t gva;
  return debug->delivers && luna_debug_locate(vcpu, &gva) == LUNA_OK &&
         gva - debug->start > LONGEST && find_frame(vcpu, flags);
}

/* A handler begins without TF. */
void luna_trap_flag_left(luna_vcpu *vcpu) {
  luna_debug *debug = vcpu->debug;
  uint64_t flags;
  if (!is_told(vcpu)) {
    return;
  }
  if (is_away(vcpu, &flags)) {
    mend_image(vcpu, flags);
    debug->guest_traps = debug->next_traps = debug->pushes = debug->delivers = false;
  } else if (debug->guest_traps) {
    set_flag(vcpu, true);
  }
}

int luna_trap_flag_give(luna_vcpu *vcpu, uint32_t vector, uint64_t dr6) {
  struct kvm_debugregs debugregs;
  if (vector == VECTOR_DB) {
    if (luna_kvm_get_debugregs(vcpu->fd, &debugregs) != 0) {
      return luna_fail_errno(errno, "cannot read the debug registers of vCPU %u", vcpu->id);
    }
    debugregs.dr6 = dr6;
    if (luna_kvm_set_debugregs(vcpu->fd, &debugregs) != 0) {
      return luna_fail_errno(errno, "cannot write the debug registers of vCPU %u", vcpu->id);
    }
    vcpu->seat->held.known &= ~(1u << LUNA_GROUP_DEBUG);
  }
  return luna_vcpu_inject(vcpu, vector, 0, 0);
}

int luna_trap_flag_done(luna_vcpu *vcpu) {
  luna_debug *debug = vcpu->debug;
  bool traps = debug->guest_traps;
  if (debug->pushes) {
    mend_pushed(vcpu);
  }
  set_flag(vcpu, debug->next_traps);
  debug->guest_traps = debug->next_traps;
  debug->pushes = debug->delivers = false;
  return traps ? luna_trap_flag_give(vcpu, VECTOR_DB, LUNA_DR6_FIXED | LUNA_DR6_STEP) : LUNA_OK;
}

int luna_trap_flag_write(luna_vcpu *vcpu) {
  uint64_t rflags;
  int status = luna_vcpu_get(vcpu, LUNA_RFLAGS, &rflags);
  if (status != LUNA_OK || !(rflags & RFLAGS_TF) || vcpu->run->kvm_dirty_regs & KVM_SYNC_X86_REGS) {
    return status;
  }
  status = luna_vcpu_set(vcpu, LUNA_RFLAGS, rflags);
  return status == LUNA_OK ? luna_state_flush(vcpu) : status;
}
