/* SPDX-License-Identifier: MIT
 * MSRs. The framework has it for each vCPU which of them exit; KVM's filter is for all of a VM. So
 * an MSR is let through where every vCPU may read and write it, and makes an exit otherwise, which
 * goes to the program or, for a vCPU that may access it, is served here. */
#include "hvf/state/msr.h"

#include <Hypervisor/hv.h>
#include <Hypervisor/hv_vmx.h>

#include "hvf/base/error.h"
#include "hvf/base/owner.h"
#include "hvf/base/process.h"
#include "hvf/base/room.h"

#include <stdlib.h>

/* A range that makes exits, and the core's number for it. */
typedef struct piece {
  uint32_t first;
  uint32_t last;
  uint32_t trap;
} piece;

/* What KVM's filter and the guests of this world know: the low MSRs without those of the x2APIC,
 * which KVM does not filter, Hyper-V's, KVM's, and the two ranges of AMD64's. All others are
 * unknown to KVM, and exit for that. */
static const piece everything[] = {{0x0, 0x7ff, 0},
                                   {0x900, 0x1fff, 0},
                                   {0x40000000, 0x40000fff, 0},
                                   {0x4b564d00, 0x4b564dff, 0},
                                   {0xc0000000, 0xc0001fff, 0},
                                   {0xc0010000, 0xc0011fff, 0}};

static piece *pieces;
static uint32_t count;
static uint32_t room;

/* ---- The filter. The lock is held. ---- */

static hv_return_t add(uint32_t first, uint32_t last) {
  if (!hvf_room((void **)&pieces, &room, count, sizeof *pieces)) {
    return hvf_fail(HV_NO_RESOURCES, "no memory for the filter of MSRs");
  }
  uint32_t trap;
  hv_return_t result = hvf_status(
      luna_vm_trap(hvf_the_vm.vm, LUNA_TRAP_MSR, first, (uint64_t)last - first + 1, &trap));
  if (result == HV_SUCCESS) {
    pieces[count++] = (piece){first, last, trap};
  }
  return result;
}

static hv_return_t take(uint32_t index) {
  hv_return_t result = hvf_status(luna_vm_untrap(hvf_the_vm.vm, pieces[index].trap));
  if (result == HV_SUCCESS) {
    pieces[index] = pieces[--count];
  }
  return result;
}

void hvf_msr_drop_all(void) {
  free(pieces);
  pieces = NULL;
  count = room = 0;
}

hv_return_t hvf_msr_begin(void) {
  hv_return_t result = HV_SUCCESS;
  for (size_t i = 0; i < sizeof everything / sizeof *everything && result == HV_SUCCESS; i++) {
    result = add(everything[i].first, everything[i].last);
  }
  return result;
}

/* The piece that has the MSR; `count` for none. */
static uint32_t piece_at(uint32_t msr) {
  uint32_t i = 0;
  while (i < count && (msr < pieces[i].first || msr > pieces[i].last)) {
    i++;
  }
  return i;
}

/* Lets an MSR through. */
static hv_return_t pass(uint32_t msr) {
  uint32_t index = piece_at(msr);
  if (index == count) {
    return HV_SUCCESS;
  }
  piece whole = pieces[index];
  hv_return_t result = take(index);
  if (result == HV_SUCCESS && whole.first < msr) {
    result = add(whole.first, msr - 1);
  }
  if (result == HV_SUCCESS && msr < whole.last) {
    result = add(msr + 1, whole.last);
  }
  return result;
}

static bool filtered(uint32_t msr) {
  for (size_t i = 0; i < sizeof everything / sizeof *everything; i++) {
    if (msr >= everything[i].first && msr <= everything[i].last) {
      return true;
    }
  }
  return false;
}

/* Makes exits of an MSR that was let through. */
static hv_return_t stop(uint32_t msr) {
  return piece_at(msr) == count && filtered(msr) ? add(msr, msr) : HV_SUCCESS;
}

/* ---- What each vCPU may ---- */

static hvf_msr *find(const hvf_vcpu *v, uint32_t msr) {
  for (uint32_t i = 0; i < v->msr_count; i++) {
    if (v->msrs[i].index == msr) {
      return &v->msrs[i];
    }
  }
  return NULL;
}

static hv_msr_flags_t flags_of(const hvf_vcpu *v, uint32_t msr) {
  const hvf_msr *found = find(v, msr);
  return found ? found->flags : HV_MSR_NONE;
}

/* Whether all vCPUs but `without` may do everything with the MSR. */
static bool free_for_all(uint32_t msr, const hvf_vcpu *without) {
  bool any = false;
  for (uint32_t i = 0; i < hvf_the_vm.vcpu_room; i++) {
    const hvf_vcpu *v = hvf_the_vm.vcpus[i];
    if (v && v != without) {
      any = true;
      if (flags_of(v, msr) != (HV_MSR_READ | HV_MSR_WRITE)) {
        return false;
      }
    }
  }
  return any;
}

/* Writing a filter while a guest runs may let an access through, not hold one up. */
static hv_return_t apply(uint32_t msr, const hvf_vcpu *without) {
  return free_for_all(msr, without) ? pass(msr) : stop(msr);
}

/* Every MSR that another vCPU has been let through exits again. */
hv_return_t hvf_msr_join(void) {
  hv_return_t result = HV_SUCCESS;
  for (uint32_t i = 0; i < hvf_the_vm.vcpu_room; i++) {
    const hvf_vcpu *v = hvf_the_vm.vcpus[i];
    for (uint32_t j = 0; v && j < v->msr_count && result == HV_SUCCESS; j++) {
      result = stop(v->msrs[j].index);
    }
  }
  return result;
}

/* What cannot be let through again is served here. */
void hvf_msr_leave(hvf_vcpu *v) {
  for (uint32_t i = 0; i < hvf_the_vm.vcpu_room; i++) {
    const hvf_vcpu *other = hvf_the_vm.vcpus[i];
    for (uint32_t j = 0; other && other != v && j < other->msr_count; j++) {
      apply(other->msrs[j].index, v);
    }
  }
  for (uint32_t j = 0; j < v->msr_count; j++) {
    apply(v->msrs[j].index, v);
  }
}

static hv_return_t check_known(hvf_vcpu *v, uint32_t msr) {
  uint64_t value;
  int status = luna_vcpu_get_msr(v->vcpu, msr, &value);
  return status == LUNA_ERROR_NOT_FOUND ? hvf_fail(HV_UNSUPPORTED, "%s", luna_error_message())
                                        : hvf_status(status);
}

/* Sets what the vCPU may, or with `known` false forgets the MSR. The lock is held. */
static hv_return_t change(hvf_vcpu *v, uint32_t msr, bool known, hv_msr_flags_t flags) {
  hvf_msr *entry = find(v, msr);
  if (known && !entry) {
    if (!hvf_room((void **)&v->msrs, &v->msr_room, v->msr_count, sizeof *v->msrs)) {
      return hvf_fail(HV_NO_RESOURCES, "no memory for an MSR");
    }
    entry = &v->msrs[v->msr_count++];
    *entry = (hvf_msr){.index = msr};
  }
  if (!entry) {
    return HV_SUCCESS;
  }
  entry->flags = known ? flags : HV_MSR_NONE;
  if (!known) {
    *entry = v->msrs[--v->msr_count];
  }
  return apply(msr, NULL);
}

static hv_return_t change_locked(hvf_vcpu *v, uint32_t msr, bool known, hv_msr_flags_t flags) {
  pthread_mutex_lock(&hvf_the_vm.lock);
  hv_return_t result = change(v, msr, known, flags);
  pthread_mutex_unlock(&hvf_the_vm.lock);
  return result;
}

static hv_return_t enable(hv_vcpuid_t vcpu, uint32_t msr, bool on, hv_msr_flags_t flags) {
  hvf_vcpu *v;
  hv_return_t result = hvf_owned(vcpu, &v);
  result = result == HV_SUCCESS ? check_known(v, msr) : result;
  return result == HV_SUCCESS ? change_locked(v, msr, on, flags) : result;
}

hv_return_t hv_vcpu_enable_native_msr(hv_vcpuid_t vcpu, uint32_t msr, bool enabled) {
  return enable(vcpu, msr, enabled, HV_MSR_READ | HV_MSR_WRITE);
}

hv_return_t hv_vcpu_enable_managed_msr(hv_vcpuid_t vcpu, uint32_t msr, bool enabled) {
  return enable(vcpu, msr, enabled, HV_MSR_NONE);
}

hv_return_t hv_vcpu_set_msr_access(hv_vcpuid_t vcpu, uint32_t msr, hv_msr_flags_t flags) {
  const hv_msr_flags_t known = HV_MSR_READ | HV_MSR_WRITE;
  hvf_vcpu *v;
  hv_return_t result = hvf_owned(vcpu, &v);
  if (result != HV_SUCCESS) {
    return result;
  }
  if (flags & ~known || !find(v, msr)) {
    return hvf_fail(HV_BAD_ARGUMENT,
                    "cannot give access 0x%x to MSR 0x%x: it was not enabled, or there is no such "
                    "access",
                    flags, msr);
  }
  return change_locked(v, msr, true, flags);
}

/* ---- Values ---- */

hv_return_t hv_vcpu_read_msr(hv_vcpuid_t vcpu, uint32_t msr, uint64_t *value) {
  hvf_vcpu *v;
  hv_return_t result = hvf_owned(vcpu, &v);
  if (result != HV_SUCCESS) {
    return result;
  }
  return value ? hvf_status(luna_vcpu_get_msr(v->vcpu, msr, value))
               : hvf_fail(HV_BAD_ARGUMENT, "nowhere to put MSR 0x%x", msr);
}

hv_return_t hv_vcpu_write_msr(hv_vcpuid_t vcpu, uint32_t msr, uint64_t value) {
  hvf_vcpu *v;
  hv_return_t result = hvf_owned(vcpu, &v);
  return result == HV_SUCCESS ? hvf_status(luna_vcpu_set_msr(v->vcpu, msr, value)) : result;
}

bool hvf_msr_serve(hvf_vcpu *v) {
  const luna_exit *e = luna_vcpu_exit(v->vcpu);
  bool read = e->access == LUNA_READ;
  uint32_t msr = (uint32_t)e->address;
  uint64_t value = e->value;
  if (!v->msr_count || !(flags_of(v, msr) & (read ? HV_MSR_READ : HV_MSR_WRITE))) {
    return false;
  }
  int status =
      read ? luna_vcpu_get_msr(v->vcpu, msr, &value) : luna_vcpu_set_msr(v->vcpu, msr, value);
  status = status == LUNA_OK ? luna_vcpu_answer(v->vcpu, value) : luna_vcpu_refuse(v->vcpu);
  return status == LUNA_OK;
}

/* ---- What the guest's MSRs have ---- */

enum {
  MSR_SPEC_CTRL = 0x48,
  MSR_ARCH_CAPABILITIES = 0x10a,
  MSR_PERFEVTSEL0 = 0x186,
  MSR_DEBUGCTL = 0x1d9,
  MSR_PERF_CAPABILITIES = 0x345,
  MSR_FIXED_CTR_CTRL = 0x38d,
  MSR_PERF_GLOBAL_STATUS = 0x38e,
  MSR_PERF_GLOBAL_CTRL = 0x38f,
  INFO_COUNT = HV_VMX_NEED_MSR_IA32_SPEC_CTRL + 1
};

static const uint32_t info_msrs[INFO_COUNT] = {
    [HV_VMX_INFO_MSR_IA32_ARCH_CAPABILITIES] = MSR_ARCH_CAPABILITIES,
    [HV_VMX_INFO_MSR_IA32_PERF_CAPABILITIES] = MSR_PERF_CAPABILITIES,
    [HV_VMX_VALID_MSR_IA32_PERFEVNTSEL] = MSR_PERFEVTSEL0,
    [HV_VMX_VALID_MSR_IA32_FIXED_CTR_CTRL] = MSR_FIXED_CTR_CTRL,
    [HV_VMX_VALID_MSR_IA32_PERF_GLOBAL_CTRL] = MSR_PERF_GLOBAL_CTRL,
    [HV_VMX_VALID_MSR_IA32_PERF_GLOBAL_STATUS] = MSR_PERF_GLOBAL_STATUS,
    [HV_VMX_VALID_MSR_IA32_DEBUGCTL] = MSR_DEBUGCTL,
    [HV_VMX_VALID_MSR_IA32_SPEC_CTRL] = MSR_SPEC_CTRL,
    [HV_VMX_NEED_MSR_IA32_SPEC_CTRL] = MSR_SPEC_CTRL,
};

/* The bits that KVM takes and keeps. */
static uint64_t settable(luna_vcpu *vcpu, uint32_t msr) {
  uint64_t bits = 0, value = 0;
  for (int bit = 0; bit < 64; bit++) {
    const uint64_t one = UINT64_C(1) << bit;
    if (luna_vcpu_set_msr(vcpu, msr, one) == LUNA_OK &&
        luna_vcpu_get_msr(vcpu, msr, &value) == LUNA_OK) {
      bits |= value & one;
    }
  }
  return bits;
}

static int ask(luna_vcpu *vcpu, hv_vmx_msr_info_t info, uint64_t *value) {
  int status = luna_vcpu_get_msr(vcpu, info_msrs[info], value);
  if (status != LUNA_OK || info <= HV_VMX_INFO_MSR_IA32_PERF_CAPABILITIES) {
    return status;
  }
  /* KVM needs no bit to be set by a guest. */
  *value = info == HV_VMX_NEED_MSR_IA32_SPEC_CTRL ? 0 : settable(vcpu, info_msrs[info]);
  return LUNA_OK;
}

static int ask_scratch(hv_vmx_msr_info_t info, uint64_t *value) {
  luna_vm *vm;
  luna_vcpu *vcpu;
  int status = luna_vm_create(&vm);
  if (status != LUNA_OK) {
    return status;
  }
  status = luna_vcpu_create(vm, NULL, &vcpu);
  if (status == LUNA_OK) {
    status = ask(vcpu, info, value);
    luna_vcpu_release(vcpu);
  }
  luna_vm_release(vm);
  return status;
}

hv_return_t hv_vmx_get_msr_info(hv_vmx_msr_info_t info, uint64_t *value) {
  if (info >= INFO_COUNT || !value) {
    return hvf_fail(HV_BAD_ARGUMENT, "there is no information %llu about MSRs",
                    (unsigned long long)info);
  }
  int status = ask_scratch(info, value);
  return status == LUNA_ERROR_NOT_FOUND ? hvf_fail(HV_UNSUPPORTED, "%s", luna_error_message())
                                        : hvf_status(status);
}
