/* SPDX-License-Identifier: MIT
 * From KVM's run page to a luna_exit; answering the exits that wait for an answer. */
#include "vcpu/vcpu.h"

#include "debug/debug.h"
#include "base/error.h"

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

static const char *const names[] = {
    "hlt",        "pio",        "mmio",        "fault",        "exception", "shutdown", "internal",
    "fail_entry", "host_fault", "timeout",     "interrupted",  "signal",    "other",    "debug",
    "msr",        "hypercall",  "instruction", "system_event", "eoi",       "tpr",
};

const char *luna_exit_name(int kind) {
  int count = (int)(sizeof names / sizeof *names);
  return kind >= 1 && kind <= count ? names[kind - 1] : NULL;
}

int luna_exit_set(luna_vcpu *vcpu, luna_exit_kind kind) {
  uint32_t reason = vcpu->run->exit_reason;
  bool long_record = vcpu->exit.instruction_size | vcpu->exit.data_count;
  memset(&vcpu->exit, 0, long_record ? sizeof vcpu->exit : offsetof(luna_exit, instruction));
  vcpu->exit.kind = kind;
  vcpu->exit.reason = reason;
  vcpu->exit.space = vcpu->space->id;
  return (int)kind;
}

static uint64_t load(const uint8_t *data, uint32_t size) {
  uint64_t value = 0;
  memcpy(&value, data, size);
  return value;
}

void luna_vcpu_forget_owners(luna_vcpu *vcpu) {
  for (int kind = 0; kind < LUNA_TRAP_KINDS; kind++) {
    vcpu->owners[kind].range = (luna_range){1, 0};
  }
}

void luna_exit_own(luna_vcpu *vcpu, int kind) {
  luna_exit *e = &vcpu->exit;
  unsigned long generation = atomic_load_explicit(&vcpu->vm->generation, memory_order_acquire);
  if (generation != vcpu->owner_generation) {
    luna_vcpu_forget_owners(vcpu);
    vcpu->owner_generation = generation;
  }
  luna_owner *owner = &vcpu->owners[kind];
  if (e->address < owner->range.first || e->address > owner->range.last) {
    *owner = luna_vm_owner(vcpu->vm, vcpu->space, kind, e->address);
  }
  e->trap = owner->trap;
  e->offset = owner->trap ? e->address - owner->base : 0;
}

static bool known_owner(const luna_vcpu *vcpu, int kind, uint64_t address) {
  const luna_owner *owner = &vcpu->owners[kind];
  return vcpu->owner_generation ==
             atomic_load_explicit(&vcpu->vm->generation, memory_order_acquire) &&
         address >= owner->range.first && address <= owner->range.last;
}

static int open_exit(luna_vcpu *vcpu, luna_exit_kind kind, uint8_t *data) {
  luna_exit *e = &vcpu->exit;
  vcpu->pending.open = true;
  vcpu->pending.data = data;
  e->kind = kind;
  e->value = e->access == LUNA_WRITE ? load(data, e->size) : 0;
  return (int)kind;
}

/* The same, unless a trap owns it that the core answers. */
static int serve_exit(luna_vcpu *vcpu, luna_exit_kind kind, int trap_kind, uint8_t *data) {
  open_exit(vcpu, kind, data);
  return vcpu->owners[trap_kind].answer ? luna_answer_exit(vcpu, trap_kind) : (int)kind;
}

static int decode_pio(luna_vcpu *vcpu) {
  struct kvm_run *run = vcpu->run;
  bool in = run->io.direction == KVM_EXIT_IO_IN;
  vcpu->pending.incomplete = true;
  vcpu->pending.reads = in;
  if (!in && vcpu->system) {
    int vector = luna_exception_vector(vcpu);
    if (vector >= 0) {
      return luna_exception_exit(vcpu, vector);
    }
  }
  luna_exit_set(vcpu, LUNA_EXIT_PIO);
  vcpu->exit.address = run->io.port;
  vcpu->exit.size = run->io.size;
  vcpu->exit.access = in ? LUNA_READ : LUNA_WRITE;
  vcpu->exit.count = run->io.count;
  vcpu->pending.element = 0;
  vcpu->pending.elements = run->io.count;
  luna_exit_own(vcpu, LUNA_TRAP_PIO);
  return serve_exit(vcpu, LUNA_EXIT_PIO, LUNA_TRAP_PIO, (uint8_t *)run + run->io.data_offset);
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
  luna_exit_own(vcpu, LUNA_TRAP_MSR);
  return serve_exit(vcpu, LUNA_EXIT_MSR, LUNA_TRAP_MSR, (uint8_t *)&run->msr.data);
}

int luna_exit_collected(luna_vcpu *vcpu, const struct kvm_coalesced_mmio *write) {
  int trap_kind = write->pio ? LUNA_TRAP_PIO : LUNA_TRAP_MMIO;
  luna_exit_kind kind = write->pio ? LUNA_EXIT_PIO : LUNA_EXIT_MMIO;
  luna_exit_set(vcpu, kind);
  vcpu->pending = (luna_pending){.elements = 1};
  vcpu->exit.reason = write->pio ? KVM_EXIT_IO : KVM_EXIT_MMIO;
  vcpu->exit.address = write->phys_addr;
  vcpu->exit.size = write->len;
  vcpu->exit.access = LUNA_WRITE;
  memcpy(vcpu->collected, write->data, sizeof vcpu->collected);
  luna_exit_own(vcpu, trap_kind);
  return serve_exit(vcpu, kind, trap_kind, vcpu->collected);
}

/* An exit for the memory access on the run page, that waits for an answer. */
static int access_exit(luna_vcpu *vcpu, luna_exit_kind kind, uint32_t access) {
  struct kvm_run *run = vcpu->run;
  luna_exit_set(vcpu, kind);
  vcpu->exit.address = run->mmio.phys_addr;
  vcpu->exit.size = run->mmio.len;
  vcpu->exit.access = access;
  vcpu->pending.element = 0;
  vcpu->pending.elements = 1;
  if (kind == LUNA_EXIT_MMIO) {
    luna_exit_own(vcpu, LUNA_TRAP_MMIO);
    if (vcpu->exit.trap) {
      return serve_exit(vcpu, LUNA_EXIT_MMIO, LUNA_TRAP_MMIO, run->mmio.data);
    }
    kind = LUNA_EXIT_FAULT;
  }
  return open_exit(vcpu, kind, run->mmio.data);
}

static int decode_mmio(luna_vcpu *vcpu) {
  struct kvm_run *run = vcpu->run;
  uint32_t access = run->mmio.is_write ? LUNA_WRITE : LUNA_READ;
  uint64_t gpa = run->mmio.phys_addr;
  vcpu->pending.incomplete = true;
  vcpu->pending.reads = !run->mmio.is_write;
  /* A region may allow it: one without a slot, or half of the access is in memory. */
  if (!known_owner(vcpu, LUNA_TRAP_MMIO, gpa)) {
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

/* KVM has no exit for a fetch that no region allows: its emulator gives up with the bytes it got.
 * The exit, or 0 if the memory is there. */
static int decode_fetch(luna_vcpu *vcpu) {
  uint64_t gpa;
  uint8_t byte;
  if (vcpu->exit.suberror != KVM_INTERNAL_ERROR_EMULATION ||
      !fetch_address(vcpu, vcpu->exit.instruction_size, &gpa)) {
    return 0;
  }
  /* KVM may have queued a #UD for the guest; writing the registers makes it forget that. */
  vcpu->state.regs_whole = true;
  switch (luna_vm_access(vcpu->vm, vcpu->space, gpa, 1, LUNA_EXECUTE, &byte)) {
    case LUNA_TOUCH_DENIED:
      return fetch_exit(vcpu, LUNA_EXIT_FAULT, gpa);
    case LUNA_TOUCH_GONE:
      return fetch_exit(vcpu, LUNA_EXIT_HOST_FAULT, gpa);
    default:
      return 0;
  }
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

/* An instruction that KVM cannot emulate: its bytes, from memory where KVM does not say them. */
static int instruction_exit(luna_vcpu *vcpu) {
  const struct kvm_regs *regs = luna_state_regs(vcpu);
  luna_exit *e = &vcpu->exit;
  luna_code code;
  if (e->instruction_size == 0 && regs && luna_vcpu_code(vcpu, regs->rip, &code) == LUNA_OK) {
    e->instruction_size = code.size;
    memcpy(e->instruction, code.bytes, sizeof code.bytes);
  }
  /* KVM may have queued a #UD for the guest; writing the registers makes it forget that. */
  vcpu->state.regs_whole = true;
  e->kind = LUNA_EXIT_INSTRUCTION;
  return LUNA_EXIT_INSTRUCTION;
}

static int decode_internal(luna_vcpu *vcpu) {
  const struct kvm_run *run = vcpu->run;
  luna_exit_set(vcpu, LUNA_EXIT_INTERNAL);
  luna_exit *e = &vcpu->exit;
  e->suberror = run->internal.suberror;
  e->data_count = run->internal.ndata < 16 ? run->internal.ndata : 16;
  memcpy(e->data, run->internal.data, e->data_count * sizeof *e->data);
  copy_instruction(vcpu);
  int kind = luna_debug_internal(vcpu);
  kind = kind ? kind : decode_fetch(vcpu);
  if (kind) {
    return kind;
  }
  return e->suberror == KVM_INTERNAL_ERROR_EMULATION ? instruction_exit(vcpu) : LUNA_EXIT_INTERNAL;
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
  vcpu->pending = (luna_pending){0};
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
    case KVM_EXIT_INTERNAL_ERROR:
      return decode_internal(vcpu);
    case KVM_EXIT_FAIL_ENTRY:
      luna_exit_set(vcpu, LUNA_EXIT_FAIL_ENTRY);
      vcpu->exit.value = vcpu->run->fail_entry.hardware_entry_failure_reason;
      return LUNA_EXIT_FAIL_ENTRY;
    case KVM_EXIT_DEBUG:
      return luna_debug_exit(vcpu);
    case KVM_EXIT_DIRTY_RING_FULL:
      return luna_vm_drain(vcpu->vm, vcpu->space);
    case KVM_EXIT_IRQ_WINDOW_OPEN:
      return luna_interrupt_window(vcpu);
    case KVM_EXIT_INTR:
      return luna_exit_set(vcpu, LUNA_EXIT_SIGNAL);
    default:
      return luna_exit_rare(vcpu);
  }
}

const luna_exit *luna_vcpu_exit(const luna_vcpu *vcpu) {
  return &vcpu->exit;
}

static int check_open(const luna_vcpu *vcpu) {
  int status = luna_vcpu_guard(vcpu);
  if (status != LUNA_OK) {
    return status;
  }
  return vcpu->pending.open
             ? LUNA_OK
             : luna_fail(LUNA_ERROR_STATE,
                         "vCPU %u has no open exit to answer: answer a pio, mmio, msr or "
                         "fault exit once, before the next run",
                         vcpu->id);
}

void luna_exit_next(luna_vcpu *vcpu) {
  luna_pending *pending = &vcpu->pending;
  luna_exit *e = &vcpu->exit;
  if (++pending->element == pending->elements) {
    pending->open = false;
    return;
  }
  pending->data += e->size;
  e->count--;
  e->value = e->access == LUNA_WRITE ? load(pending->data, e->size) : 0;
  luna_exit_own(vcpu, LUNA_TRAP_PIO); /* the handler may have closed the trap */
}

int luna_vcpu_answer(luna_vcpu *vcpu, uint64_t value) {
  int status = check_open(vcpu);
  if (status != LUNA_OK) {
    return status;
  }
  const luna_exit *e = &vcpu->exit;
  if (e->access == LUNA_EXECUTE) {
    return luna_fail(LUNA_ERROR_UNSUPPORTED,
                     "cannot answer the fetch at gpa 0x%" PRIx64
                     " with a value: map memory there and retry, or set rip",
                     e->address);
  }
  if (e->access == LUNA_READ) {
    memcpy(vcpu->pending.data, &value, e->size);
  }
  luna_exit_next(vcpu);
  if (vcpu->pending.open && vcpu->owners[LUNA_TRAP_PIO].answer) {
    luna_answer_exit(vcpu, LUNA_TRAP_PIO);
  }
  return LUNA_OK;
}

int luna_vcpu_retry(luna_vcpu *vcpu) {
  int status = check_open(vcpu);
  if (status != LUNA_OK) {
    return status;
  }
  const luna_exit *e = &vcpu->exit;
  if (e->kind == LUNA_EXIT_PIO || e->kind == LUNA_EXIT_MSR || e->kind == LUNA_EXIT_HYPERCALL) {
    return luna_fail(LUNA_ERROR_UNSUPPORTED, "cannot retry %s: answer it",
                     e->kind == LUNA_EXIT_PIO   ? "a port access"
                     : e->kind == LUNA_EXIT_MSR ? "an access to an MSR"
                                                : "a hypercall");
  }
  uint8_t byte;
  const luna_space *space = vcpu->target ? vcpu->target : vcpu->space;
  bool fetch = e->access == LUNA_EXECUTE;
  void *bytes = fetch ? &byte : vcpu->pending.data;
  if (luna_vm_access(vcpu->vm, space, e->address, fetch ? 1 : e->size, e->access, bytes) !=
      LUNA_TOUCH_DONE) {
    return luna_fail(LUNA_ERROR_NOT_FOUND,
                     "cannot retry the access to gpa 0x%" PRIx64
                     ": no region of space %u allows it; map memory there first",
                     e->address, space->id);
  }
  vcpu->pending.open = false;
  return LUNA_OK;
}

int luna_vcpu_refuse(luna_vcpu *vcpu) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  if (!vcpu->pending.open || vcpu->exit.kind != LUNA_EXIT_MSR) {
    return luna_fail(LUNA_ERROR_STATE, "vCPU %u has no open msr exit to refuse", vcpu->id);
  }
  vcpu->run->msr.error = 1;
  vcpu->pending.open = false;
  return LUNA_OK;
}

uint32_t luna_vcpu_block(luna_vcpu *vcpu, uint8_t **data) {
  const luna_pending *pending = &vcpu->pending;
  if (luna_vcpu_guard(vcpu) || !pending->open || vcpu->exit.kind != LUNA_EXIT_PIO) {
    return 0;
  }
  *data = pending->data;
  return vcpu->exit.size * (pending->elements - pending->element);
}

int luna_vcpu_answer_block(luna_vcpu *vcpu) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  uint8_t *data;
  if (luna_vcpu_block(vcpu, &data) == 0) {
    return luna_fail(LUNA_ERROR_STATE, "vCPU %u has no open port access to answer as a block",
                     vcpu->id);
  }
  vcpu->pending.open = false;
  return LUNA_OK;
}
