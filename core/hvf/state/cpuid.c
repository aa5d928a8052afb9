/* SPDX-License-Identifier: MIT
 * What CPUID answers in the guest. On a Mac the program does, at an exit; KVM answers by a table.
 * Where the local APIC is the program's, as programs have it that came before HV_VM_ACCEL_APIC, a
 * guest that found an x2APIC, a TSC-deadline timer or KVM's own interface would use MSRs of which
 * the program knows nothing. */
#include "hvf/state/cpuid.h"

#include "hvf/base/error.h"
#include "hvf/base/process.h"

#include <stdlib.h>

enum {
  X2APIC = 1 << 21, /* of leaf 1, ECX */
  TSC_DEADLINE = 1 << 24
};

static bool is_kvms(uint32_t leaf) {
  const uint32_t first = 0x40000000;
  return leaf - first < 0x10000;
}

/* The answers without what needs KVM's local APIC; how many. */
static size_t collect(hvf_vcpu *v, luna_cpuid *answers, size_t room) {
  size_t count = 0;
  luna_cpuid answer;
  for (uint32_t i = 0; count < room && luna_vcpu_cpuid_next(v->vcpu, i, &answer) == LUNA_OK; i++) {
    if (answer.leaf == 1) {
      answer.ecx &= ~(uint32_t)(X2APIC | TSC_DEADLINE);
    }
    if (!is_kvms(answer.leaf)) {
      answers[count++] = answer;
    }
  }
  return count;
}

hv_return_t hvf_cpuid_begin(hvf_vcpu *v) {
  const size_t room = 256; /* KVM's own limit */
  if (hvf_the_vm.options & HV_VM_ACCEL_APIC) {
    return HV_SUCCESS;
  }
  luna_cpuid *answers = calloc(room, sizeof *answers);
  if (!answers) {
    return hvf_fail(HV_NO_RESOURCES, "no memory for a vCPU");
  }
  const size_t count = collect(v, answers, room);
  int status = count ? luna_vcpu_set_cpuid(v->vcpu, answers, count) : LUNA_OK;
  free(answers);
  return hvf_status(status);
}
