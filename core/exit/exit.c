/* SPDX-License-Identifier: MIT
 * From KVM's run page to a luna_exit. */
#include "exit/exit.h"

#include "exit/answer.h"
#include "exit/control.h"
#include "exit/lookup.h"
#include "exit/rare.h"
#include "kvm/kvm.h"
#include "kvm/kvm_control.h"
#include "memory/space.h"
#include "memory/spaces.h"
#include "vcpu/record.h"
#include "vcpu/state.h"
#include "vcpu/vcpu.h"

#include <inttypes.h>
#include <string.h>

#ifndef KVM_EXIT_MEMORY_FAULT /* Linux 6.8 */
#define KVM_EXIT_MEMORY_FAULT 39
#endif

/* struct kvm_run.memory_fault, which older headers do not have. */
typedef struct memory_fault {
  uint64_t flags;
  uint64_t gpa;
  uint64_t size;
} memory_fault;

/* Opens the exit, unless a trap owns it that the core answers. */
static int open_exit(luna_vcpu *vcpu, int trap_kind, uint8_t *data) {
  vcpu->pending.open = true;
  vcpu->pending.data = data;
  luna_exit_own(vcpu, trap_kind);
  return vcpu->lookup->owners[trap_kind].answer ? luna_answer_exit(vcpu, trap_kind)
                                                : (int)vcpu->exit.kind;
}

static int decode_pio(luna_vcpu *vcpu) {
  struct kvm_run *run = vcpu->run;
  bool in = run->io.direction == KVM_EXIT_IO_IN;
  vcpu->pending.incomplete = true;
  vcpu->pending.reads = in;
  luna_exit_set(vcpu, LUNA_EXIT_PIO);
  vcpu->exit.address = run->io.port;
  vcpu->exit.size = run->io.size;
  vcpu->exit.access = in ? LUNA_READ : LUNA_WRITE;
  vcpu->exit.count = run->io.count;
  vcpu->pending.size = run->io.size;
  vcpu->pending.elements = run->io.count;
  return open_exit(vcpu, LUNA_TRAP_PIO, (uint8_t *)run + run->io.data_offset);
}

/* KVM_EXIT_X86_RDMSR and KVM_EXIT_X86_WRMSR. With `error` set, KVM gives the guest a #GP. */
static int decode_msr(luna_vcpu *vcpu) {
  struct kvm_run *run = vcpu->run;
  bool read = run->exit_reason == KVM_EXIT_X86_RDMSR;
  vcpu->pending.incomplete = true;
  vcpu->pending.reads = read;
  vcpu->pending.elements = 1;
  luna_exit_set(vcpu, LUNA_EXIT_MSR);
  vcpu->exit.address = run->msr.index;
  vcpu->exit.size = sizeof run->msr.data;
  vcpu->exit.access = read ? LUNA_READ : LUNA_WRITE;
  run->msr.error = 0;
  return open_exit(vcpu, LUNA_TRAP_MSR, (uint8_t *)&run->msr.data);
}

int luna_exit_collected(luna_vcpu *vcpu, const struct kvm_coalesced_mmio *write) {
  int trap_kind = write->pio ? LUNA_TRAP_PIO : LUNA_TRAP_MMIO;
  luna_exit_set(vcpu, write->pio ? LUNA_EXIT_PIO : LUNA_EXIT_MMIO);
  vcpu->pending = (luna_pending){.size = write->len, .elements = 1};
  vcpu->exit.reason = write->pio ? KVM_EXIT_IO : KVM_EXIT_MMIO;
  vcpu->exit.address = write->phys_addr;
  vcpu->exit.size = write->len;
  vcpu->exit.access = LUNA_WRITE;
  memcpy(vcpu->lookup->collected, write->data, sizeof vcpu->lookup->collected);
  return open_exit(vcpu, trap_kind, vcpu->lookup->collected);
}

/* An exit for the memory access on the run page, that waits for an answer. */
static int access_exit(luna_vcpu *vcpu, luna_exit_kind kind, uint32_t access) {
  struct kvm_run *run = vcpu->run;
  luna_exit_set(vcpu, kind);
  if (vcpu->controls) {
    luna_control_tell(vcpu, LUNA_KVM_ACCESS_OFFSET);
  }
  vcpu->exit.address = run->mmio.phys_addr;
  vcpu->exit.size = run->mmio.len;
  vcpu->exit.access = access;
  vcpu->pending.size = run->mmio.len;
  vcpu->pending.elements = 1;
  if (kind == LUNA_EXIT_MMIO) {
    return open_exit(vcpu, LUNA_TRAP_MMIO, run->mmio.data);
  }
  vcpu->pending.open = true;
  vcpu->pending.data = run->mmio.data;
  vcpu->exit.value = luna_exit_value(vcpu);
  return (int)kind;
}

static int decode_mmio(luna_vcpu *vcpu) {
  struct kvm_run *run = vcpu->run;
  uint32_t access = run->mmio.is_write ? LUNA_WRITE : LUNA_READ;
  uint64_t gpa = run->mmio.phys_addr;
  vcpu->pending.incomplete = true;
  vcpu->pending.reads = !run->mmio.is_write || vcpu->controls; /* registers change afterwards */
  /* A region may allow it: one without a slot, or half of the access is in memory. */
  if (!luna_lookup_knows(vcpu, LUNA_TRAP_MMIO, gpa)) {
    switch (luna_vm_access(vcpu->vm, vcpu->space, gpa, run->mmio.len, access, run->mmio.data)) {
      case LUNA_TOUCH_DONE:
        return 0;
      case LUNA_TOUCH_GONE:
        return access_exit(vcpu, LUNA_EXIT_HOST_FAULT, access);
      default:
        break;
    }
  }
  return access_exit(vcpu, LUNA_EXIT_MMIO, access);
}

/* The guest-physical address of what the next instruction has `ahead` bytes from its start; false
 * if the guest's page tables have none. */
static bool fetch_address(luna_vcpu *vcpu, uint32_t ahead, uint64_t *gpa) {
  const struct kvm_regs *regs = luna_state_regs(vcpu);
  const struct kvm_sregs *sregs = luna_state_sregs(vcpu);
  if (!regs || !sregs) {
    return false;
  }
  uint64_t offset = regs->rip + ahead;
  uint64_t linear = sregs->cs.l ? offset : (uint32_t)(sregs->cs.base + offset);
  if (ahead && linear % LUNA_PAGE_SIZE != 0) {
    return false; /* KVM read less than the instruction only where its page ends */
  }
  if (!(sregs->cr0 & 1u << 31)) { /* CR0.PG: no paging */
    *gpa = linear;
    return true;
  }
  struct kvm_translation translation = {.linear_address = linear};
  if (luna_kvm_translate(vcpu->fd, &translation) != 0 || !translation.valid) {
    return false;
  }
  *gpa = translation.physical_address;
  return true;
}

static int fetch_exit(luna_vcpu *vcpu, luna_exit_kind kind, uint64_t gpa) {
  luna_exit_set(vcpu, kind);
  vcpu->exit.address = gpa;
  vcpu->exit.access = LUNA_EXECUTE;
  vcpu->pending = (luna_pending){.open = true, .elements = 1};
  return (int)kind;
}

/* struct kvm_run.emulation_failure: flags bit 0 says that the instruction bytes are there. */
static void copy_instruction(luna_vcpu *vcpu) {
  const struct kvm_run *run = vcpu->run;
  luna_exit *e = &vcpu->exit;
  if (e->suberror != KVM_INTERNAL_ERROR_EMULATION || run->internal.ndata < 3 ||
      !(run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES)) {
    return;
  }
  uint32_t size = run->emulation_failure.insn_size;
  e->instruction_size = size < sizeof e->instruction ? size : sizeof e->instruction;
  memcpy(e->instruction, run->emulation_failure.insn_bytes,
         sizeof run->emulation_failure.insn_bytes);
}

void luna_exit_internal(luna_vcpu *vcpu) {
  const struct kvm_run *run = vcpu->run;
  luna_exit_set(vcpu, LUNA_EXIT_INTERNAL);
  luna_exit *e = &vcpu->exit;
  e->suberror = run->internal.suberror;
  e->data_count = run->internal.ndata < 16 ? run->internal.ndata : 16;
  memcpy(e->data, run->internal.data, e->data_count * sizeof *e->data);
  copy_instruction(vcpu);
}

/* The kind of the exit if no region, or no host memory, lets the guest fetch there; else 0. */
static int fetch_fault(luna_vcpu *vcpu, uint64_t gpa) {
  uint8_t byte;
  switch (luna_vm_access(vcpu->vm, vcpu->space, gpa, 1, LUNA_EXECUTE, &byte)) {
    case LUNA_TOUCH_DENIED:
      return fetch_exit(vcpu, LUNA_EXIT_FAULT, gpa);
    case LUNA_TOUCH_GONE:
      return fetch_exit(vcpu, LUNA_EXIT_HOST_FAULT, gpa);
    default:
      return 0;
  }
}

/* KVM has no exit for that: its emulator gives up with the bytes it got. */
int luna_exit_fetch(luna_vcpu *vcpu) {
  uint64_t gpa;
  if (vcpu->exit.suberror != KVM_INTERNAL_ERROR_EMULATION ||
      !fetch_address(vcpu, vcpu->exit.instruction_size, &gpa)) {
    return 0;
  }
  /* KVM may have queued a #UD for the guest; writing the registers makes it forget that. */
  vcpu->state.regs_whole = true;
  return fetch_fault(vcpu, gpa);
}

int luna_exit_no_memory(luna_vcpu *vcpu) {
  uint64_t gpa;
  return fetch_address(vcpu, 0, &gpa) ? fetch_fault(vcpu, gpa) : 0;
}

/* KVM_EXIT_MEMORY_FAULT: bits 0 to 2 of the flags say which right was missing, where memory
 * attributes took it away; otherwise KVM could not use the host memory. The instruction is not
 * decoded. */
int luna_exit_host_fault(luna_vcpu *vcpu) {
  if (vcpu->run->exit_reason != KVM_EXIT_MEMORY_FAULT) {
    return luna_exit_set(vcpu, LUNA_EXIT_HOST_FAULT);
  }
  memory_fault fault;
  memcpy(&fault, &vcpu->run->hw, sizeof fault); /* the start of the union */
  if (fault.flags & LUNA_EXECUTE) {
    return fetch_exit(vcpu, LUNA_EXIT_FAULT, fault.gpa);
  }
  luna_exit_set(vcpu, LUNA_EXIT_HOST_FAULT);
  vcpu->exit.address = fault.gpa;
  return LUNA_EXIT_HOST_FAULT;
}

int luna_exit_decode(luna_vcpu *vcpu) {
  switch (vcpu->run->exit_reason) {
    case KVM_EXIT_IO:
      return decode_pio(vcpu);
    case KVM_EXIT_MMIO:
      return decode_mmio(vcpu);
    case KVM_EXIT_X86_RDMSR:
    case KVM_EXIT_X86_WRMSR:
      return decode_msr(vcpu);
    case KVM_EXIT_HLT:
      return luna_exit_set(vcpu, LUNA_EXIT_HLT);
    case KVM_EXIT_SHUTDOWN:
      return luna_exit_set(vcpu, LUNA_EXIT_SHUTDOWN);
    case KVM_EXIT_FAIL_ENTRY:
      luna_exit_set(vcpu, LUNA_EXIT_FAIL_ENTRY);
      vcpu->exit.value = vcpu->run->fail_entry.hardware_entry_failure_reason;
      return LUNA_EXIT_FAIL_ENTRY;
    case KVM_EXIT_INTR:
      return luna_exit_set(vcpu, LUNA_EXIT_SIGNAL);
    default:
      return luna_exit_rare(vcpu);
  }
}
