/* SPDX-License-Identifier: MIT
 * KVM_SET_GUEST_DEBUG of the fake: debug registers, INT3 in memory and single steps, at the
 * instructions that a script names. As in KVM, a single step that was set up before RIP is written
 * is forgotten. Linear addresses are physical ones. */
#include "fake/fake_file.h"

#include "memory/vm.h"
#include "vcpu/vcpu.h"

#include <string.h>

enum {
  INT3 = 0xcc,
  DR6_FIXED = (int)0xffff0ff0,
  DR6_BS = 0x4000,
  FALL = 16 /* how many bytes a guest without a script runs */
};

/* kvm_get_rflags: what KVM shows, and writes back with the end of a single step. */
uint64_t fake_debug_flags(const fake_file *vcpu) {
  const uint64_t tf = 0x100;
  bool hidden = vcpu->debug.control & KVM_GUESTDBG_SINGLESTEP;
  return hidden ? vcpu->regs.rflags & ~tf : vcpu->regs.rflags;
}

void fake_debug_set(fake_file *vcpu, const struct kvm_guest_debug *debug) {
  vcpu->regs.rflags = fake_debug_flags(vcpu);
  vcpu->debug = *debug;
  vcpu->step_rip = vcpu->regs.rip;
  vcpu->steps = debug->control & KVM_GUESTDBG_SINGLESTEP;
}

void fake_debug_taken(fake_file *vcpu) {
  vcpu->steps = vcpu->steps && vcpu->regs.rip == vcpu->step_rip;
}

static bool report(const fake_file *vcpu, uint32_t exception, uint64_t pc, uint64_t dr6) {
  struct kvm_run *run = vcpu->run;
  run->exit_reason = KVM_EXIT_DEBUG;
  run->debug.arch = (struct kvm_debug_exit_arch){.exception = exception,
                                                 .pc = pc,
                                                 .dr6 = (uint32_t)DR6_FIXED | dr6,
                                                 .dr7 = vcpu->debug.arch.debugreg[7]};
  return true;
}

/* The debug registers that an access meets, as bits; `data` for other than execution. */
static uint64_t met(const fake_file *vcpu, uint64_t address, bool data) {
  const struct kvm_guest_debug *debug = &vcpu->debug;
  uint32_t needed = data ? FAKE_STOP_WATCH : FAKE_STOP_HARDWARE;
  uint64_t bits = 0;
  for (int i = 0; i < 4; i++) {
    static const uint64_t sizes[] = {1, 2, 8, 4};
    uint64_t dr7 = debug->arch.debugreg[7];
    uint64_t size = sizes[dr7 >> (18 + 4 * i) & 3];
    bool on = dr7 >> (2 * i) & 3 && ((dr7 >> (16 + 4 * i) & 3) != 0) == data;
    if (on && address >= debug->arch.debugreg[i] && address - debug->arch.debugreg[i] < size) {
      bits |= UINT64_C(1) << i;
    }
  }
  return debug->control & KVM_GUESTDBG_USE_HW_BP && fake_host.stops & needed ? bits : 0;
}

static uint8_t byte_at(const fake_file *vcpu, uint64_t gpa) {
  for (uint32_t i = 0; i < vcpu->vm->slots_max; i++) {
    const struct kvm_userspace_memory_region *region = &vcpu->vm->slots[i].region;
    if (gpa >= region->guest_phys_addr && gpa - region->guest_phys_addr < region->memory_size) {
      const uint8_t *host = (const uint8_t *)(uintptr_t)region->userspace_addr;
      return host[gpa - region->guest_phys_addr];
    }
  }
  return 0;
}

static bool fail(const fake_file *vcpu) {
  struct kvm_run *run = vcpu->run;
  run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
  run->internal.suberror = KVM_INTERNAL_ERROR_EMULATION;
  run->internal.ndata = 3;
  run->emulation_failure.flags = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
  run->emulation_failure.insn_size = 1;
  run->emulation_failure.insn_bytes[0] = INT3;
  return true;
}

/* What comes before the instruction at the address is executed. */
static bool arrive(fake_file *vcpu, uint64_t address) {
  vcpu->regs.rip = address - vcpu->sregs.cs.base;
  uint64_t bits = met(vcpu, address, false);
  if (bits) {
    return report(vcpu, 1, address, bits);
  }
  if (byte_at(vcpu, address) != INT3) {
    return false;
  }
  if (vcpu->debug.control & KVM_GUESTDBG_USE_SW_BP && fake_host.stops & FAKE_STOP_INT3) {
    return report(vcpu, 3, address, 0);
  }
  return fake_host.stops & FAKE_FAIL_INT3 && fail(vcpu);
}

bool fake_debug_code(fake_file *vcpu, const fake_step *step, bool *done) {
  *done = false;
  if (arrive(vcpu, step->address)) {
    return true;
  }
  *done = true;
  vcpu->regs.rip += FAKE_INSTRUCTION_LENGTH;
  uint64_t bits = step->value ? met(vcpu, step->value, true) : 0;
  bits |= vcpu->steps ? DR6_BS : 0;
  return bits && report(vcpu, 1, step->address + FAKE_INSTRUCTION_LENGTH, bits);
}

bool fake_debug_fall(fake_file *vcpu) {
  uint64_t from = vcpu->sregs.cs.base + vcpu->regs.rip;
  for (uint64_t i = 0; vcpu->debug.control && i < FALL; i++) {
    if (arrive(vcpu, from + i)) {
      return true;
    }
  }
  for (int i = 0; i < 4; i++) {
    uint64_t address = vcpu->debug.arch.debugreg[i];
    uint64_t bits = address ? met(vcpu, address, true) : 0;
    if (bits) {
      return report(vcpu, 1, from, bits);
    }
  }
  return false;
}

const struct kvm_guest_debug *fake_guest_debug(void) {
  pthread_mutex_lock(&fake_lock);
  const fake_file *vcpu = fake_file_youngest(FAKE_FILE_VCPU);
  pthread_mutex_unlock(&fake_lock);
  return vcpu ? &vcpu->debug : NULL;
}
