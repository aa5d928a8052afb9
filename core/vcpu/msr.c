/* SPDX-License-Identifier: MIT
 * Model-specific registers by number. Four of them are also system registers, which may wait for
 * the next entry: they go there, so that there is one truth. */
#include "vcpu/msr.h"

#include "base/error.h"
#include "kvm/kvm.h"
#include "memory/space.h"
#include "seat/group.h"
#include "seat/seat.h"
#include "vcpu/check.h"
#include "vcpu/extended.h"
#include "vcpu/guard.h"
#include "vcpu/state.h"
#include "vcpu/tsc.h"
#include "vcpu/vcpu.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
  MSR_TSC = 0x10,
  MSR_APIC_BASE = 0x1b,
  MSR_TSC_ADJUST = 0x3b,
  MSR_X2APIC_FIRST = 0x800,
  MSR_X2APIC_LAST = 0x8ff
};
static const uint32_t msr_efer = 0xc0000080;
static const uint32_t msr_fs_base = 0xc0000100;
static const uint32_t msr_gs_base = 0xc0000101;

/* The register that the MSR is, or -1. */
static int register_of(uint32_t index) {
  if (index == MSR_APIC_BASE) {
    return LUNA_APIC_BASE;
  }
  if (index == msr_efer) {
    return LUNA_EFER;
  }
  if (index == msr_fs_base) {
    return LUNA_FS_BASE;
  }
  return index == msr_gs_base ? LUNA_GS_BASE : -1;
}

typedef struct msr_text {
  char text[64];
} msr_text;

/* "MSR 0xc0000082 (IA32_LSTAR)" */
static msr_text describe(uint32_t index) {
  msr_text made;
  const char *name = luna_msr_name(index);
  snprintf(made.text, sizeof made.text, "MSR 0x%x%s%s%s", index, name ? " (" : "", name ? name : "",
           name ? ")" : "");
  return made;
}

/* The x2APIC registers are there when APIC_BASE says so, which may wait still. */
static int commit(luna_vcpu *vcpu, uint32_t index) {
  if (index < MSR_X2APIC_FIRST || index > MSR_X2APIC_LAST || !vcpu->state.sregs_written) {
    return LUNA_OK;
  }
  int status = luna_extended_settle(vcpu);
  if (status != LUNA_OK) {
    return status;
  }
  if (luna_kvm_set_sregs(vcpu->fd, &vcpu->state.sregs) != 0) {
    return errno == EINVAL
               ? luna_state_fail(vcpu)
               : luna_fail_errno(errno, "cannot write the system registers of vCPU %u", vcpu->id);
  }
  vcpu->run->kvm_dirty_regs &= ~(uint64_t)KVM_SYNC_X86_SREGS;
  vcpu->run->cr8 = vcpu->state.sregs.cr8;
  vcpu->state.sregs_written = false;
  return LUNA_OK;
}

static int fail_unknown(const luna_vcpu *vcpu, uint32_t index) {
  return luna_fail(LUNA_ERROR_NOT_FOUND, "vCPU %u has no %s: this host's KVM does not know it",
                   vcpu->id, describe(index).text);
}

/* 1, or 0 where KVM has no such MSR, or a negative status. */
static int read_msr(const luna_vcpu *vcpu, uint32_t index, uint64_t *value) {
  luna_msrs one;
  one.count = 1;
  one.pad = 0;
  one.entries[0] = (struct kvm_msr_entry){.index = index};
  int done = luna_kvm_get_msrs(vcpu->fd, &one);
  if (done < 0) {
    return luna_fail_errno(errno, "cannot read %s of vCPU %u", describe(index).text, vcpu->id);
  }
  *value = one.entries[0].data;
  return done;
}

int luna_vcpu_get_msr(luna_vcpu *vcpu, uint32_t index, uint64_t *value) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  int reg = register_of(index);
  if (reg >= 0) {
    return luna_vcpu_get(vcpu, reg, value);
  }
  uint64_t read = 0;
  int status = commit(vcpu, index);
  int done = status == LUNA_OK ? read_msr(vcpu, index, &read) : status;
  if (done <= 0) {
    return done < 0 ? done : fail_unknown(vcpu, index);
  }
  *value = read;
  return LUNA_OK;
}

/* KVM would refuse these only when it is entered, and without saying why. */
static int set_register(luna_vcpu *vcpu, uint32_t index, int reg, uint64_t value) {
  char rule[256];
  if (reg == LUNA_EFER && luna_check_efer(vcpu, value, rule, sizeof rule)) {
    return luna_fail(LUNA_ERROR_RANGE, "cannot write 0x%" PRIx64 " to %s: %s", value,
                     describe(index).text, rule);
  }
  if (reg != LUNA_EFER && reg != LUNA_APIC_BASE && !luna_check_canonical(vcpu, value)) {
    return luna_fail(LUNA_ERROR_RANGE, "cannot write 0x%" PRIx64 " to %s: it is not canonical",
                     value, describe(index).text);
  }
  return luna_vcpu_set(vcpu, reg, value);
}

/* The counters of the vCPU's seats in other spaces went with this one; now they do not. */
void luna_msr_part_counters(luna_vcpu *vcpu) {
  pthread_rwlock_rdlock(&vcpu->vm->lock);
  for (uint32_t i = 0; i < vcpu->vm->space_count; i++) {
    const luna_space *space = vcpu->vm->spaces[i];
    luna_seat *seat = space ? luna_seat_at(space, vcpu->id) : NULL;
    if (seat && seat != vcpu->seat) {
      seat->tsc_set = false;
    }
  }
  pthread_rwlock_unlock(&vcpu->vm->lock);
}

static int write_msr(luna_vcpu *vcpu, uint32_t index, uint64_t value) {
  luna_msrs one;
  one.count = 1;
  one.pad = 0;
  one.entries[0] = (struct kvm_msr_entry){.index = index, .data = value};
  int done = luna_kvm_set_msrs(vcpu->fd, &one);
  if (done < 0) {
    return luna_fail_errno(errno, "cannot write %s of vCPU %u", describe(index).text, vcpu->id);
  }
  if (done == 0) {
    uint64_t now;
    done = read_msr(vcpu, index, &now);
    if (done <= 0) {
      return done < 0 ? done : fail_unknown(vcpu, index);
    }
    return luna_fail(LUNA_ERROR_RANGE,
                     "cannot write 0x%" PRIx64 " to %s of vCPU %u: KVM refuses the value; it is "
                     "0x%" PRIx64,
                     value, describe(index).text, vcpu->id, now);
  }
  return LUNA_OK;
}

int luna_vcpu_set_msr(luna_vcpu *vcpu, uint32_t index, uint64_t value) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  int reg = register_of(index);
  if (reg >= 0) {
    return set_register(vcpu, index, reg, value);
  }
  int status = luna_extended_settle(vcpu);
  status = status == LUNA_OK ? commit(vcpu, index) : status;
  if (status == LUNA_OK) {
    status = index == MSR_TSC ? luna_tsc_write(vcpu, value) : write_msr(vcpu, index, value);
  }
  if (status == LUNA_OK) {
    vcpu->seat->held.known &= ~(1u << LUNA_GROUP_MSRS | 1u << LUNA_GROUP_COUNTERS);
    if (index == MSR_TSC_ADJUST) {
      luna_msr_part_counters(vcpu);
    }
  }
  return status;
}

/* ---- Those of a state ---- */

/* Takes what the state has of the MSR out of its list: false if there is nothing. */
static bool take_msr(luna_msrs *wanted, uint32_t index, struct kvm_msr_entry *entry) {
  for (uint32_t i = 0; i < wanted->count; i++) {
    if (wanted->entries[i].index == index) {
      *entry = wanted->entries[i];
      wanted->count--;
      memmove(&wanted->entries[i], &wanted->entries[i + 1],
              (wanted->count - i) * sizeof *wanted->entries);
      return true;
    }
  }
  return false;
}

/* Whether an MSR tells what the processor is: a guest cannot write it, and another kernel says its
 * own (KVM_GET_MSR_FEATURE_INDEX_LIST). */
static bool is_feature(uint32_t index) {
  enum {
    BIOS_SIGN_ID = 0x8b, /* of the microcode: a write loads, and does not store */
    PLATFORM_INFO = 0xce,
    CORE_CAPABILITIES = 0xcf,
    ARCH_CAPABILITIES = 0x10a,
    PERF_CAPABILITIES = 0x345,
    VMX_BASIC = 0x480,
    VMX_LAST = 0x491,
    AMD_DE_CFG = 0x11029 /* behind 0xc0000000 */
  };
  return index == BIOS_SIGN_ID || index == PLATFORM_INFO || index == CORE_CAPABILITIES ||
         index == ARCH_CAPABILITIES || index == PERF_CAPABILITIES ||
         (index >= VMX_BASIC && index <= VMX_LAST) || index - 0xc0000000 == AMD_DE_CFG;
}

/* Whether an MSR holds what it has after a reset, where another kernel may lack it: KVM's
 * MSR_KVM_POLL_CONTROL is 1 then. */
static bool is_fresh(const struct kvm_msr_entry *entry) {
  enum {
    POLL_CONTROL = 0x4b564d05
  };
  return entry->data == 0 || is_feature(entry->index) ||
         (entry->index == POLL_CONTROL && entry->data == 1);
}

int luna_msrs_match(luna_msrs *wanted, const luna_msrs *here) {
  luna_msrs sorted = {0};
  for (uint32_t i = 0; i < here->count; i++) {
    sorted.count += take_msr(wanted, here->entries[i].index, &sorted.entries[sorted.count]);
  }
  for (uint32_t i = 0; i < wanted->count; i++) {
    if (!is_fresh(&wanted->entries[i])) {
      return luna_fail(LUNA_ERROR_ARGUMENT,
                       "this state is of another kind of host or CPUID: MSR 0x%x is in it, which "
                       "this vCPU does not have",
                       wanted->entries[i].index);
    }
  }
  *wanted = sorted;
  return LUNA_OK;
}
