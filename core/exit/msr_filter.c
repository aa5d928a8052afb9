/* SPDX-License-Identifier: MIT
 * Which MSRs leave the guest: KVM's filter, built from the traps (api.rst, KVM_X86_SET_MSR_FILTER
 * and KVM_CAP_X86_USER_SPACE_MSR). */
#include "exit/msr_filter.h"

#include "base/error.h"
#include "base/range.h"
#include "exit/claim.h"
#include "exit/trap.h"
#include "kvm/host.h"
#include "kvm/kvm.h"
#include "kvm/kvm_event.h"
#include "memory/space.h"
#include "memory/vm.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
  BITMAP_BYTES = KVM_MSR_FILTER_MAX_BITMAP_SIZE,
  RANGE_MSRS = BITMAP_BYTES * 8
};

/* api.rst: a filter has no say over the x2APIC's. Where KVM has no LAPIC it knows none of them. */
static const uint64_t x2apic_first = 0x800;
static const uint64_t x2apic_last = 0x8ff;

typedef struct filter {
  struct kvm_msr_filter kvm; /* all that no range names is allowed */
  uint32_t ranges;
  _Alignas(long) uint8_t bitmaps[KVM_MSR_FILTER_MAX_RANGES][BITMAP_BYTES]; /* 0: not allowed */
} filter;

int luna_msr_check(const luna_vm *vm, uint64_t first, uint64_t length) {
  if (!vm->host->msr_exits) {
    return luna_fail(LUNA_ERROR_UNSUPPORTED,
                     "cannot trap MSR 0x%" PRIx64 ": this host's KVM has no "
                     "KVM_CAP_X86_MSR_FILTER; use Linux 5.10 or newer",
                     first);
  }
  bool unknown = vm->irqchip == LUNA_IRQCHIP_NONE && vm->claims->unknown_msrs;
  if (first <= x2apic_last && first + length > x2apic_first && !unknown) {
    return luna_fail(LUNA_ERROR_UNSUPPORTED,
                     "cannot trap MSRs 0x%" PRIx64 "..0x%" PRIx64
                     ": KVM does not filter the x2APIC's, 0x%" PRIx64 "..0x%" PRIx64
                     "; they are exits where the VM has no LAPICs in KVM (irqchip) and its "
                     "unknown MSRs are exits (unknown_msrs)",
                     first, first + length - 1, x2apic_first, x2apic_last);
  }
  return LUNA_OK;
}

/* The range that reaches up to `msr`: the last, or a new one. NULL when there is none left. */
static struct kvm_msr_filter_range *range_for(filter *f, uint64_t msr) {
  struct kvm_msr_filter_range *last = f->ranges ? &f->kvm.ranges[f->ranges - 1] : NULL;
  if (last && msr - last->base < RANGE_MSRS) {
    return last;
  }
  if (f->ranges == KVM_MSR_FILTER_MAX_RANGES) {
    return NULL;
  }
  struct kvm_msr_filter_range *range = &f->kvm.ranges[f->ranges];
  range->flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE;
  range->base = (uint32_t)msr;
  range->bitmap = memset(f->bitmaps[f->ranges], 0xff, BITMAP_BYTES);
  f->ranges++;
  return range;
}

/* MSRs come in rising order. */
static int deny(filter *f, luna_range msrs) {
  for (uint64_t msr = msrs.first; msr <= msrs.last; msr++) {
    struct kvm_msr_filter_range *range = range_for(f, msr);
    if (!range) {
      return luna_fail(LUNA_ERROR_LIMIT,
                       "cannot trap MSR 0x%" PRIx64 ": KVM's filter has %d ranges of 0x%x MSRs, "
                       "and the traps below need them all; trap fewer, or nearer together",
                       msr, KVM_MSR_FILTER_MAX_RANGES, RANGE_MSRS);
    }
    uint32_t bit = (uint32_t)msr - range->base;
    range->bitmap[bit / 8] &= (uint8_t) ~(1u << bit % 8);
    range->nmsrs = bit + 1;
  }
  return LUNA_OK;
}

static int build(filter *f, const luna_vm *vm, const luna_trap *except) {
  const luna_range_map *traps = &vm->claims->traps.ranges[LUNA_TRAP_MSR];
  const luna_range *msrs = luna_range_from(traps, 0);
  f->kvm.flags = KVM_MSR_FILTER_DEFAULT_ALLOW;
  while (msrs) {
    int status = except && msrs == &except->range ? LUNA_OK : deny(f, *msrs);
    if (status != LUNA_OK) {
      return status;
    }
    msrs = luna_range_from(traps, msrs->last + 1);
  }
  return LUNA_OK;
}

static int enable_exits(const luna_vm *vm, luna_space *space) {
  const uint32_t unknown = KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_INVAL;
  uint32_t reasons = KVM_MSR_EXIT_REASON_FILTER | (vm->claims->unknown_msrs ? unknown : 0);
  if (!space->msr_exits) {
    if (luna_kvm_enable_cap(space->vm_fd, KVM_CAP_X86_USER_SPACE_MSR, reasons) != 0) {
      return luna_fail_errno(errno, "cannot make exits of MSRs in space %u", space->id);
    }
    space->msr_exits = true;
  }
  return LUNA_OK;
}

static int set_filter(const luna_vm *vm, luna_space *space, const filter *f) {
  int status = enable_exits(vm, space);
  if (status == LUNA_OK && luna_kvm_msr_filter(space->vm_fd, &f->kvm) != 0) {
    status = luna_fail_errno(errno, "cannot set the filter of MSRs in space %u", space->id);
  }
  if (status == LUNA_OK) {
    space->msrs_stale = false;
    atomic_store(&space->gate.closed, false);
  }
  return status;
}

static filter *make_filter(void) {
  filter *f = calloc(1, sizeof *f);
  if (!f) {
    luna_fail_errno(ENOMEM, "cannot make a filter of MSRs");
  }
  return f;
}

static int set_all(luna_vm *vm, const filter *f, const filter *before) {
  for (uint32_t i = 0; i < vm->space_count; i++) {
    int status = vm->spaces[i] ? set_filter(vm, vm->spaces[i], f) : LUNA_OK;
    if (status != LUNA_OK) {
      while (i-- > 0) {
        if (vm->spaces[i]) {
          luna_kvm_msr_filter(vm->spaces[i]->vm_fd, &before->kvm);
        }
      }
      return status;
    }
  }
  return LUNA_OK;
}

/* A filter takes KVM milliseconds, however many MSRs it has. Where no vCPU is in the guest, the
 * gates are closed instead, and whoever comes to one first sets the filter, for all the traps there
 * are by then. False if somebody is inside: nothing has changed then. */
static bool put_off(luna_vm *vm) {
  bool inside = false;
  for (uint32_t i = 0; i < vm->space_count && !inside; i++) {
    luna_space *space = vm->spaces[i];
    if (space) {
      atomic_store(&space->gate.closed, true);
      inside = luna_space_inside(space);
    }
  }
  for (uint32_t i = 0; i < vm->space_count; i++) {
    luna_space *space = vm->spaces[i];
    if (space) {
      space->msrs_stale |= !inside;
      atomic_store(&space->gate.closed, space->msrs_stale);
    }
  }
  return !inside;
}

int luna_msr_apply(luna_vm *vm, const luna_trap *added, const luna_trap *removed) {
  filter *f = make_filter();
  filter *before = make_filter();
  int status = f && before ? build(f, vm, removed) : LUNA_ERROR_MEMORY;
  if (status == LUNA_OK && !put_off(vm)) {
    status = build(before, vm, added);
    status = status == LUNA_OK ? set_all(vm, f, before) : status;
  }
  free(f);
  free(before);
  return status;
}

int luna_msr_catch_up(luna_vm *vm, luna_space *space) {
  int status = LUNA_OK;
  pthread_rwlock_rdlock(&vm->lock);
  bool stale = space->msrs_stale;
  pthread_rwlock_unlock(&vm->lock);
  if (!stale) {
    return status;
  }
  pthread_rwlock_wrlock(&vm->lock);
  if (space->msrs_stale) {
    filter *f = make_filter();
    status = f ? build(f, vm, NULL) : LUNA_ERROR_MEMORY;
    status = status == LUNA_OK ? set_filter(vm, space, f) : status;
    free(f);
  }
  pthread_rwlock_unlock(&vm->lock);
  return status;
}

int luna_msr_join(const luna_vm *vm, luna_space *space) {
  if (vm->claims->unknown_msrs && !vm->host->msr_exits) {
    return luna_fail(LUNA_ERROR_UNSUPPORTED,
                     "cannot make exits of unknown MSRs: this host's KVM has no "
                     "KVM_CAP_X86_USER_SPACE_MSR; use Linux 5.10 or newer");
  }
  bool traps = vm->claims->traps.ranges[LUNA_TRAP_MSR].items > 0;
  int status = traps || vm->claims->unknown_msrs ? enable_exits(vm, space) : LUNA_OK;
  if (status != LUNA_OK || !traps) {
    return status;
  }
  filter *f = make_filter();
  status = f ? build(f, vm, NULL) : LUNA_ERROR_MEMORY;
  status = status == LUNA_OK ? set_filter(vm, space, f) : status;
  free(f);
  return status;
}
