/* SPDX-License-Identifier: MIT
 * What a vCPU has beyond registers: x87, SSE and AVX state, time spent, the time-stamp counter. */
#include <Hypervisor/hv.h>

#include "hvf/base/cpu.h"
#include "hvf/base/error.h"
#include "hvf/base/owner.h"
#include "hvf/base/process.h"

#include <string.h>
#include <x86intrin.h>

enum {
  MSR_TSC = 0x10
};

/* ---- x87, SSE, AVX ---- */

/* The bytes of the buffer that count. */
static hv_return_t area(const hvf_vcpu *v, const void *buffer, size_t *size) {
  if (!buffer) {
    return hvf_fail(HV_BAD_ARGUMENT, "no buffer for the extended state");
  }
  size_t most = luna_vcpu_xsave_size(v->vcpu);
  *size = *size > most ? most : *size;
  return HV_SUCCESS;
}

hv_return_t hv_vcpu_read_fpstate(hv_vcpuid_t vcpu, void *buffer, size_t size) {
  hvf_vcpu *v;
  size_t used = size;
  hv_return_t result = hvf_owned(vcpu, &v);
  result = result == HV_SUCCESS ? area(v, buffer, &used) : result;
  result = result == HV_SUCCESS ? hvf_status(luna_vcpu_get_xsave(v->vcpu, buffer, used)) : result;
  if (result == HV_SUCCESS) {
    memset((char *)buffer + used, 0, size - used);
  }
  return result;
}

hv_return_t hv_vcpu_write_fpstate(hv_vcpuid_t vcpu, void *buffer, size_t size) {
  hvf_vcpu *v;
  hv_return_t result = hvf_owned(vcpu, &v);
  result = result == HV_SUCCESS ? area(v, buffer, &size) : result;
  return result == HV_SUCCESS ? hvf_status(luna_vcpu_set_xsave(v->vcpu, buffer, size)) : result;
}

/* ---- Time ---- */

static hv_return_t times(hv_vcpuid_t vcpu, const uint64_t *wanted, uint64_t *exec, uint64_t *idle) {
  hvf_vcpu *v;
  hv_return_t result = hvf_owned(vcpu, &v);
  if (result != HV_SUCCESS) {
    return result;
  }
  return wanted ? hvf_status(luna_vcpu_time(v->vcpu, exec, idle))
                : hvf_fail(HV_BAD_ARGUMENT, "nowhere to put the time");
}

hv_return_t hv_vcpu_get_exec_time(hv_vcpuid_t vcpu, uint64_t *time) {
  uint64_t exec, idle;
  hv_return_t result = times(vcpu, time, &exec, &idle);
  if (result == HV_SUCCESS) {
    *time = exec - idle;
  }
  return result;
}

hv_return_t hv_vcpu_get_idle_time(hv_vcpuid_t vcpu, uint64_t *time) {
  uint64_t exec, idle;
  hv_return_t result = times(vcpu, time, &exec, &idle);
  if (result == HV_SUCCESS) {
    *time = idle;
  }
  return result;
}

/* ---- The time-stamp counter ---- */

uint64_t hv_tsc_clock(void) {
  return __rdtsc();
}

/* Where KVM keeps no offset of the counters they are written, each a little later than the one
 * before and so much higher: they are some microseconds apart. The lock is held. */
static hv_return_t write_counters(uint64_t tsc) {
  const uint64_t start = hv_tsc_clock();
  hv_return_t result = HV_SUCCESS;
  uint64_t before;
  for (uint32_t id = 0; id < hvf_the_vm.vcpu_room && result == HV_SUCCESS; id++) {
    const hvf_vcpu *v = hvf_the_vm.vcpus[id]; /* a vCPU that runs is refused before others change */
    result = v ? hvf_status(luna_vcpu_get_msr(v->vcpu, MSR_TSC, &before)) : result;
  }
  for (uint32_t id = 0; id < hvf_the_vm.vcpu_room && result == HV_SUCCESS; id++) {
    const hvf_vcpu *v = hvf_the_vm.vcpus[id];
    const uint64_t now = tsc + hv_tsc_clock() - start;
    result = v ? hvf_status(luna_vcpu_set_msr(v->vcpu, MSR_TSC, now)) : result;
  }
  return result;
}

hv_return_t hv_vm_sync_tsc(uint64_t tsc) {
  hv_return_t result = hvf_enter();
  if (result != HV_SUCCESS) {
    return result;
  }
  result = hvf_status(luna_vm_sync_tsc(hvf_the_vm.vm, tsc));
  if (result == HV_UNSUPPORTED) {
    result = write_counters(tsc);
  }
  hvf_leave();
  return result;
}

hv_return_t hv_vcpu_set_tsc_relative(hv_vcpuid_t vcpu, int64_t offset) {
  hvf_vcpu *v;
  hv_return_t result = hvf_owned(vcpu, &v);
  if (result != HV_SUCCESS) {
    return result;
  }
  if (!(v->options & HV_VCPU_TSC_RELATIVE)) {
    return hvf_fail(HV_UNSUPPORTED, "vCPU %u was not made with HV_VCPU_TSC_RELATIVE", vcpu);
  }
  result = hvf_status(luna_vcpu_set_tsc_offset(v->vcpu, offset));
  return result == HV_UNSUPPORTED
             ? hvf_status(luna_vcpu_set_msr(v->vcpu, MSR_TSC, hv_tsc_clock() + (uint64_t)offset))
             : result;
}

hv_return_t hv_sme_config_get_max_svl_bytes(size_t *value) {
  (void)value;
  return hvf_fail(HV_UNSUPPORTED, "the scalable matrix extension is one of ARM processors");
}
