/* SPDX-License-Identifier: MIT
 * Which MSRs user space wants to answer (api.rst, KVM_X86_SET_MSR_FILTER). */
#include "soft/execute/control.h"
#include "soft/kernel/kernel.h"
#include "soft/vector/vector.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
  RANGE_FLAGS = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE
};

static size_t bitmap_size(const struct kvm_msr_filter_range *range) {
  return (range->nmsrs + 7) / 8;
}

static void clear(struct kvm_msr_filter *filter) {
  for (unsigned i = 0; i < KVM_MSR_FILTER_MAX_RANGES; i++) {
    free(filter->ranges[i].bitmap);
    filter->ranges[i].bitmap = NULL;
  }
}

static int copy(struct kvm_msr_filter *to, const struct kvm_msr_filter *from) {
  memset(to, 0, sizeof *to);
  to->flags = from->flags;
  for (unsigned i = 0; i < KVM_MSR_FILTER_MAX_RANGES; i++) {
    const struct kvm_msr_filter_range *range = &from->ranges[i];
    if (!range->nmsrs) {
      continue;
    }
    size_t size = bitmap_size(range);
    if (range->flags & ~(uint32_t)RANGE_FLAGS || !range->flags || !range->bitmap ||
        size > KVM_MSR_FILTER_MAX_BITMAP_SIZE) {
      return EINVAL;
    }
    to->ranges[i] = *range;
    to->ranges[i].bitmap = malloc(size);
    if (!to->ranges[i].bitmap) {
      return ENOMEM;
    }
    memcpy(to->ranges[i].bitmap, range->bitmap, size);
  }
  return 0;
}

int soft_filter_set(soft_vm *vm, const struct kvm_msr_filter *filter) {
  struct kvm_msr_filter made;
  if (filter->flags & ~(uint32_t)KVM_MSR_FILTER_DEFAULT_DENY) {
    return soft_refuse(EINVAL);
  }
  int number = copy(&made, filter);
  bool any = made.flags & KVM_MSR_FILTER_DEFAULT_DENY;
  for (unsigned i = 0; i < KVM_MSR_FILTER_MAX_RANGES; i++) {
    any |= made.ranges[i].nmsrs != 0;
  }
  if (number) {
    clear(&made);
    return soft_refuse(number);
  }
  pthread_mutex_lock(&vm->exits);
  struct kvm_msr_filter old = vm->filter;
  vm->filter = made;
  atomic_store(&vm->filters, any);
  pthread_mutex_unlock(&vm->exits);
  clear(&old);
  return 0;
}

void soft_filter_free(soft_vm *vm) {
  clear(&vm->filter);
}

static bool denies(const struct kvm_msr_filter *filter, uint32_t msr, bool write) {
  uint32_t kind = write ? KVM_MSR_FILTER_WRITE : KVM_MSR_FILTER_READ;
  for (unsigned i = 0; i < KVM_MSR_FILTER_MAX_RANGES; i++) {
    const struct kvm_msr_filter_range *range = &filter->ranges[i];
    if (range->flags & kind && msr - range->base < range->nmsrs) {
      unsigned at = msr - range->base;
      return !(range->bitmap[at / 8] >> at % 8 & 1);
    }
  }
  return filter->flags & KVM_MSR_FILTER_DEFAULT_DENY;
}

/* x2APIC's registers are never filtered. */
bool soft_msr_filtered(soft_cpu *cpu, uint32_t msr, bool write) {
  soft_vm *vm = cpu->vm;
  if (!atomic_load_explicit(&vm->filters, memory_order_relaxed) || (msr >= 0x800 && msr <= 0x8ff)) {
    return false;
  }
  soft_park(cpu);
  pthread_mutex_lock(&vm->exits);
  bool filtered = denies(&vm->filter, msr, write);
  pthread_mutex_unlock(&vm->exits);
  return filtered;
}

uint32_t soft_msr_exits(soft_vm *vm) {
  return atomic_load(&vm->msr_exits);
}
