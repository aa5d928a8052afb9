/* SPDX-License-Identifier: MIT
 * Exceptions that have arrived at a stub of the system area: taking the processor's frame off the
 * stack, and putting the vCPU back to the instruction that failed. */
#include "exit/exception.h"

#include "base/error.h"
#include "vcpu/inject.h"
#include "vcpu/mode.h"
#include "vcpu/state.h"
#include "vcpu/system.h"
#include "vcpu/vcpu.h"

#include <string.h>

int luna_exception_vector(luna_vcpu *vcpu) {
  if (vcpu->run->io.port != LUNA_EXCEPTION_PORT || vcpu->run->io.size != 1) {
    return -1;
  }
  const struct kvm_regs *regs = luna_state_regs(vcpu);
  uint64_t stubs = vcpu->system + LUNA_SYSTEM_STUBS;
  if (!regs || regs->rip < stubs || regs->rip >= stubs + 256 * LUNA_STUB_SIZE) {
    return -1;
  }
  return (int)((regs->rip - stubs) / LUNA_STUB_SIZE);
}

/* Loads a segment register from the guest's GDT, as the processor would. False if the table or the
 * memory behind it is not there. */
static bool load_segment(luna_vcpu *vcpu, struct kvm_sregs *sregs, struct kvm_segment *segment,
                         uint16_t selector) {
  uint64_t low = 0;
  uint32_t offset = selector & 0xfff8u;
  if (offset == 0 || offset + 7 > sregs->gdt.limit ||
      luna_vcpu_copy(vcpu, sregs->gdt.base + offset, &low, sizeof low, LUNA_READ) != LUNA_OK) {
    return false;
  }
  *segment = luna_mode_segment(low, selector);
  return true;
}

typedef struct frame {
  uint64_t words[6]; /* error code where there is one, RIP, CS, RFLAGS, RSP, SS */
  uint64_t stack;    /* where the first word is */
  uint32_t count;
  uint32_t width;
} frame;

/* The stack and the GDT are where the guest's page tables lead. */
static bool read_frame(luna_vcpu *vcpu, const struct kvm_sregs *sregs, uint64_t rsp, bool code,
                       frame *f) {
  bool long_mode = sregs->cs.l;
  f->width = long_mode ? 8 : 4;
  f->count = (long_mode ? 5u : 3u) + code;
  f->stack = long_mode ? rsp : (uint32_t)rsp;
  uint8_t bytes[sizeof f->words];
  uint64_t gva = long_mode ? rsp : (uint32_t)(sregs->ss.base + rsp);
  if (luna_vcpu_copy(vcpu, gva, bytes, f->count * f->width, LUNA_READ) != LUNA_OK) {
    return false;
  }
  for (uint32_t i = 0; i < f->count; i++) {
    f->words[i] = 0;
    memcpy(&f->words[i], bytes + i * f->width, f->width);
  }
  return true;
}

/* Undoes what the processor did on its way to the stub. In protected mode the stack did not
 * switch. */
static bool unwind(luna_vcpu *vcpu, struct kvm_sregs *sregs, const frame *f, bool code) {
  const uint64_t *words = f->words + (code ? 1 : 0);
  struct kvm_segment cs;
  struct kvm_segment ss = sregs->ss;
  if (!load_segment(vcpu, sregs, &cs, (uint16_t)words[1])) {
    return false;
  }
  uint64_t rsp = f->stack + f->count * f->width;
  if (f->width == 8) {
    rsp = words[3];
    if ((words[4] & 0xfffc) && !load_segment(vcpu, sregs, &ss, (uint16_t)words[4])) {
      return false;
    }
  }
  sregs->cs = cs;
  sregs->ss = ss;
  vcpu->state.sregs_written = true;
  luna_vcpu_set(vcpu, LUNA_RIP, words[0]);
  luna_vcpu_set(vcpu, LUNA_RFLAGS, words[2]);
  luna_vcpu_set(vcpu, LUNA_RSP, rsp);
  return true;
}

int luna_exception_unwind(luna_vcpu *vcpu, int vector, uint32_t *error_code) {
  const struct kvm_regs *regs = luna_state_regs(vcpu);
  struct kvm_sregs *sregs = luna_state_sregs(vcpu);
  bool code = luna_exception_has_code((uint32_t)vector);
  frame f;
  if (!regs || !sregs) {
    return luna_error_status();
  }
  if (!read_frame(vcpu, sregs, regs->rsp, code, &f) || !unwind(vcpu, sregs, &f, code)) {
    return luna_fail(LUNA_ERROR_SYSTEM,
                     "vCPU %u took exception %d, but its frame at rsp 0x%llx or the GDT at 0x%llx "
                     "cannot be read: the guest has overwritten what the exception needs",
                     vcpu->id, vector, regs->rsp, sregs->gdt.base);
  }
  *error_code = code ? (uint32_t)f.words[0] : 0;
  return LUNA_OK;
}
