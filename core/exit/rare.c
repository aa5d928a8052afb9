/* SPDX-License-Identifier: MIT
 * Exits that come seldom: system events, hypercalls, ends of interrupts, task priorities, and those
 * that have no kind of their own, with the first words of the run page's union. */
#include "exit/rare.h"

#include "vcpu/record.h"
#include "vcpu/vcpu.h"

#include <string.h>

enum {
  WORDS = 16, /* of luna_exit.data */
  ARGUMENTS = 6
};

static int system_event_exit(luna_vcpu *vcpu) {
  const struct kvm_run *run = vcpu->run;
  luna_exit_set(vcpu, LUNA_EXIT_SYSTEM_EVENT);
  luna_exit *e = &vcpu->exit;
  e->value = run->system_event.type;
  e->data_count = run->system_event.ndata < WORDS ? run->system_event.ndata : WORDS;
  memcpy(e->data, run->system_event.data, e->data_count * sizeof *e->data);
  return LUNA_EXIT_SYSTEM_EVENT;
}

/* KVM takes the result from the run page at the next entry and writes it to RAX. */
static int hypercall_exit(luna_vcpu *vcpu) {
  struct kvm_run *run = vcpu->run;
  luna_exit_set(vcpu, LUNA_EXIT_HYPERCALL);
  luna_exit *e = &vcpu->exit;
  e->access = LUNA_READ;
  e->size = sizeof run->hypercall.ret;
  e->value = run->hypercall.nr;
  e->data_count = ARGUMENTS + 1;
  memcpy(e->data, run->hypercall.args, sizeof run->hypercall.args);
  e->data[ARGUMENTS] = run->hypercall.longmode != 0;
  vcpu->pending = (luna_pending){.open = true,
                                 .incomplete = true,
                                 .reads = true,
                                 .data = (uint8_t *)&run->hypercall.ret,
                                 .elements = 1};
  return LUNA_EXIT_HYPERCALL;
}

static int eoi_exit(luna_vcpu *vcpu) {
  luna_exit_set(vcpu, LUNA_EXIT_EOI);
  vcpu->exit.vector = vcpu->run->eoi.vector;
  return LUNA_EXIT_EOI;
}

static int tpr_exit(luna_vcpu *vcpu) {
  const struct kvm_run *run = vcpu->run;
  luna_exit_set(vcpu, LUNA_EXIT_TPR);
  if (run->exit_reason == KVM_EXIT_SET_TPR) {
    vcpu->exit.value = run->cr8;
  } else {
    vcpu->exit.address = run->tpr_access.rip;
    vcpu->exit.access = run->tpr_access.is_write ? LUNA_WRITE : LUNA_READ;
  }
  return LUNA_EXIT_TPR;
}

/* Whatever it is: its number and what the run page says of it. Those that api.rst lists as complete
 * only after the next entry write RAX then. */
static int other_exit(luna_vcpu *vcpu) {
  const struct kvm_run *run = vcpu->run;
  luna_exit_set(vcpu, LUNA_EXIT_OTHER);
  vcpu->exit.data_count = WORDS;
  memcpy(vcpu->exit.data, run->padding, sizeof vcpu->exit.data);
  vcpu->pending.incomplete = vcpu->pending.reads =
      run->exit_reason == KVM_EXIT_XEN || run->exit_reason == KVM_EXIT_HYPERV;
  return LUNA_EXIT_OTHER;
}

int luna_exit_rare(luna_vcpu *vcpu) {
  switch (vcpu->run->exit_reason) {
    case KVM_EXIT_SYSTEM_EVENT:
      return system_event_exit(vcpu);
    case KVM_EXIT_HYPERCALL:
      return hypercall_exit(vcpu);
    case KVM_EXIT_IOAPIC_EOI:
      return eoi_exit(vcpu);
    case KVM_EXIT_SET_TPR:
    case KVM_EXIT_TPR_ACCESS:
      return tpr_exit(vcpu);
    default:
      return other_exit(vcpu);
  }
}
