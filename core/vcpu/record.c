/* SPDX-License-Identifier: MIT
 * The record of an exit: beginning one, and the names of its kinds. */
#include "vcpu/record.h"

#include "vcpu/vcpu.h"

#include <string.h>

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
  const uint32_t words = vcpu->exit.data_count;
  if (vcpu->exit.instruction_size) {
    memset(vcpu->exit.instruction, 0, sizeof vcpu->exit.instruction);
  }
  memset(&vcpu->exit, 0, offsetof(luna_exit, instruction));
  if (words) {
    memset(vcpu->exit.data, 0, words * sizeof *vcpu->exit.data);
  }
  vcpu->exit.kind = kind;
  vcpu->exit.reason = reason;
  vcpu->exit.space = vcpu->space->id;
  vcpu->pending.dropped = false;
  return (int)kind;
}
