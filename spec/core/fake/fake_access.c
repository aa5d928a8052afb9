/* SPDX-License-Identifier: MIT
 * The exits that the fake's vCPUs make, and what becomes of the accesses among them when the vCPU
 * is entered again. */
#include "fake/fake_file.h"

#include "vcpu/vcpu.h"

#include <errno.h>
#include <string.h>

enum {
  DATA_OFFSET = FAKE_PAGE
};

static unsigned refused;                         /* accesses to MSRs */
static _Thread_local uint8_t answer[FAKE_BATCH]; /* of the last read on this thread */
static _Thread_local size_t answer_size;

static uint8_t *access_data(const fake_file *vcpu) {
  if (vcpu->access.hypercall) {
    return (uint8_t *)&vcpu->run->hypercall.ret;
  }
  return vcpu->access.mmio ? vcpu->run->mmio.data : (uint8_t *)vcpu->run + DATA_OFFSET;
}

/* A read of one element goes to RAX: 4 bytes clear the upper half, fewer keep the rest. */
static void finish_read(fake_file *vcpu) {
  const fake_access *access = &vcpu->access;
  const uint8_t *data = access_data(vcpu);
  answer_size = (size_t)access->size * access->count;
  memcpy(answer, data, answer_size);
  if (access->count == 1) {
    uint64_t rax = access->size >= 4 ? 0 : vcpu->regs.rax;
    memcpy(&rax, data, access->size);
    vcpu->regs.rax = rax;
  }
}

/* Unlike a port access, it moves RIP whatever that is by now. */
static void finish_msr(fake_file *vcpu) {
  const struct kvm_run *run = vcpu->run;
  vcpu->access.active = false;
  if (run->msr.error) {
    refused++;
    return;
  }
  if (!vcpu->access.write) {
    vcpu->regs.rax = (uint32_t)run->msr.data;
    vcpu->regs.rdx = run->msr.data >> 32;
  }
  vcpu->regs.rip += FAKE_INSTRUCTION_LENGTH;
}

/* A write by MMIO has moved RIP before its exit; the others do now, unless RIP was set to
 * elsewhere. */
void fake_access_finish(fake_file *vcpu) {
  const fake_access *access = &vcpu->access;
  if (access->msr) {
    finish_msr(vcpu);
    return;
  }
  if (!access->write) {
    finish_read(vcpu);
  }
  if (!(access->mmio && access->write) && !access->continues && vcpu->regs.rip == access->rip) {
    vcpu->regs.rip += FAKE_INSTRUCTION_LENGTH;
  }
  vcpu->access.active = false;
}

static void begin_access(fake_file *vcpu, const fake_step *step) {
  vcpu->access = (fake_access){
      .active = true,
      .mmio = step->kind == FAKE_MMIO || (step->kind == FAKE_COLLECT && !step->pio),
      .write = step->write,
      .continues = step->continues,
      .size = step->size,
      .count = step->count ? step->count : 1,
      .rip = vcpu->regs.rip,
  };
  if (step->kind == FAKE_MMIO && step->write && !step->continues) {
    vcpu->regs.rip += FAKE_INSTRUCTION_LENGTH;
  }
}

static void report_pio(fake_file *vcpu, const fake_step *step) {
  struct kvm_run *run = vcpu->run;
  begin_access(vcpu, step);
  run->exit_reason = KVM_EXIT_IO;
  run->io.direction = step->write ? KVM_EXIT_IO_OUT : KVM_EXIT_IO_IN;
  run->io.size = (uint8_t)step->size;
  run->io.port = (uint16_t)step->address;
  run->io.count = vcpu->access.count;
  run->io.data_offset = DATA_OFFSET;
  if (step->write) {
    memcpy(access_data(vcpu), step->data, (size_t)step->size * vcpu->access.count);
  }
}

static void report_mmio(fake_file *vcpu, const fake_step *step) {
  struct kvm_run *run = vcpu->run;
  begin_access(vcpu, step);
  run->exit_reason = KVM_EXIT_MMIO;
  run->mmio.phys_addr = step->address;
  run->mmio.len = step->size;
  run->mmio.is_write = step->write;
  memset(run->mmio.data, 0, sizeof run->mmio.data);
  if (step->write) {
    memcpy(run->mmio.data, step->data, step->size);
  }
}

static void report_msr(fake_file *vcpu, const fake_step *step) {
  struct kvm_run *run = vcpu->run;
  vcpu->access =
      (fake_access){.active = true, .msr = true, .write = step->write, .rip = vcpu->regs.rip};
  run->exit_reason = step->write ? KVM_EXIT_X86_WRMSR : KVM_EXIT_X86_RDMSR;
  run->msr.error = 1; /* what the library must not rely on */
  run->msr.reason = KVM_MSR_EXIT_REASON_FILTER;
  run->msr.index = (uint32_t)step->address;
  run->msr.data = step->write ? step->value : 0;
}

static void report_internal(struct kvm_run *run, const fake_step *step) {
  run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
  run->internal.suberror = step->suberror;
  run->internal.ndata = step->ndata;
  memcpy(run->internal.data, step->words, sizeof run->internal.data);
  if (step->instruction_size) {
    run->emulation_failure.insn_size = step->instruction_size;
    memcpy(run->emulation_failure.insn_bytes, step->instruction, sizeof step->instruction);
  }
}

/* Of those that wait for user space, a hypercall: its result goes to RAX at the next entry. */
static void report_other(fake_file *vcpu, const fake_step *step) {
  struct kvm_run *run = vcpu->run;
  run->exit_reason = step->reason;
  memcpy(run->padding, step->words, sizeof step->words);
  if (step->reason == KVM_EXIT_HYPERCALL) {
    vcpu->access = (fake_access){.active = true,
                                 .hypercall = true,
                                 .size = sizeof run->hypercall.ret,
                                 .count = 1,
                                 .rip = vcpu->regs.rip};
  }
}

static int report_errno(struct kvm_run *run, const fake_step *step) {
  run->exit_reason = step->reason;
  if (step->reason == FAKE_EXIT_MEMORY_FAULT) {
    const uint64_t fault[3] = {step->value, step->address, FAKE_PAGE};
    memcpy(&run->hw, fault, sizeof fault); /* the start of the union */
  }
  return fake_refuse(step->number);
}

int fake_access_report(fake_file *vcpu, const fake_step *step) {
  struct kvm_run *run = vcpu->run;
  switch (step->kind) {
    case FAKE_PIO:
      report_pio(vcpu, step);
      return 0;
    case FAKE_MMIO:
      report_mmio(vcpu, step);
      return 0;
    case FAKE_COLLECT: /* without room in the ring */
      if (step->pio) {
        report_pio(vcpu, step);
      } else {
        report_mmio(vcpu, step);
      }
      return 0;
    case FAKE_MSR:
      report_msr(vcpu, step);
      return 0;
    case FAKE_SHUTDOWN:
      run->exit_reason = KVM_EXIT_SHUTDOWN;
      return 0;
    case FAKE_INTERNAL:
      report_internal(run, step);
      return 0;
    case FAKE_FAIL_ENTRY:
      run->exit_reason = KVM_EXIT_FAIL_ENTRY;
      run->fail_entry.hardware_entry_failure_reason = step->value;
      return 0;
    case FAKE_OTHER:
      report_other(vcpu, step);
      return 0;
    case FAKE_ERRNO:
      return report_errno(run, step);
    default:
      run->exit_reason = KVM_EXIT_HLT;
      return 0;
  }
}

void fake_access_forget(void) {
  answer_size = 0;
  refused = 0;
}

unsigned fake_refused(void) {
  return refused;
}

const uint8_t *fake_answer(size_t *size) {
  *size = answer_size;
  return answer;
}
