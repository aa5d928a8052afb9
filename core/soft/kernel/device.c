/* SPDX-License-Identifier: MIT
 * What /dev/kvm answers: version, capabilities, the list of MSRs. */
#include "kvm/kvm_control.h"
#include "soft/execute/control.h"
#include "soft/kernel/kernel.h"

#include <errno.h>

enum {
  MSRS_MOST = 64
};

int soft_capability(long number) {
  switch (number) {
    case KVM_CAP_USER_MEMORY:
    case KVM_CAP_SET_TSS_ADDR:
    case KVM_CAP_EXT_CPUID:
    case KVM_CAP_DESTROY_MEMORY_REGION_WORKS:
    case KVM_CAP_JOIN_MEMORY_REGIONS_WORKS:
    case KVM_CAP_IMMEDIATE_EXIT:
    case KVM_CAP_READONLY_MEM:
    case KVM_CAP_SET_GUEST_DEBUG:
    case KVM_CAP_VCPU_EVENTS:
    case KVM_CAP_DEBUGREGS:
    case KVM_CAP_XSAVE:
    case KVM_CAP_XCRS:
    case KVM_CAP_MP_STATE:
    case KVM_CAP_COALESCED_PIO:
    case KVM_CAP_IRQCHIP:
    case KVM_CAP_SPLIT_IRQCHIP:
    case KVM_CAP_PIT2:
    case KVM_CAP_SIGNAL_MSI:
    case KVM_CAP_IRQ_ROUTING:
    case KVM_CAP_IRQ_INJECT_STATUS:
    case KVM_CAP_GET_TSC_KHZ:
    case KVM_CAP_TSC_CONTROL:
    case KVM_CAP_X86_MSR_FILTER:
    case KVM_CAP_SET_IDENTITY_MAP_ADDR:
    case KVM_CAP_USER_NMI:
    case KVM_CAP_INTERNAL_ERROR_DATA:
    case KVM_CAP_IOEVENTFD:
    case KVM_CAP_IOEVENTFD_ANY_LENGTH:
    case KVM_CAP_ENABLE_CAP_VM:
    case KVM_CAP_VCPU_ATTRIBUTES:
    case KVM_CAP_BINARY_STATS_FD:
    case KVM_CAP_IRQFD:
    case SOFT_CAP_BUS_CYCLES:
    case KVM_CAP_IRQFD_RESAMPLE:
    case LUNA_KVM_CAP_CONTROLS:
    case LUNA_KVM_CAP_SHADOW_VMCS:
      return 1;
    case LUNA_KVM_CAP_EXCEPTIONS:
      return LUNA_LAST_EXCEPTIONS;
    case KVM_CAP_SYNC_REGS:
      return KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;
    case LUNA_KVM_CAP_SYNC_RIP:
      return LUNA_KVM_SYNC_RIP;
    case KVM_CAP_X86_USER_SPACE_MSR:
      return KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_FILTER;
    case KVM_CAP_NR_MEMSLOTS:
      return SOFT_SLOTS_MAX;
    case KVM_CAP_NR_VCPUS:
    case KVM_CAP_MAX_VCPUS:
    case KVM_CAP_MAX_VCPU_ID:
      return SOFT_CPUS_MAX;
    case KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2:
      return KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET;
    case KVM_CAP_ADJUST_CLOCK:
      return KVM_CLOCK_TSC_STABLE;
    case KVM_CAP_XSAVE2:
      return SOFT_XSAVE_SIZE;
    case KVM_CAP_DIRTY_LOG_RING:
    case KVM_CAP_DIRTY_LOG_RING_ACQ_REL:
      return SOFT_RING_BYTES;
    case KVM_CAP_COALESCED_MMIO:
      return SOFT_RUN_RING / SOFT_PAGE;
    default:
      return 0;
  }
}

static int msr_list(struct kvm_msr_list *list) {
  uint32_t msrs[MSRS_MOST], room = list->nmsrs;
  list->nmsrs = soft_msr_list(msrs, MSRS_MOST);
  if (list->nmsrs > room) {
    return soft_refuse(E2BIG);
  }
  for (uint32_t i = 0; i < list->nmsrs; i++) {
    list->indices[i] = msrs[i];
  }
  return 0;
}

int soft_device_ioctl(unsigned long request, void *argument) {
  switch (request) {
    case KVM_GET_API_VERSION:
      return KVM_API_VERSION;
    case KVM_CHECK_EXTENSION:
      return soft_capability((long)argument);
    case KVM_GET_VCPU_MMAP_SIZE:
      return SOFT_RUN_SIZE;
    case KVM_CREATE_VM:
      return argument ? soft_refuse(EINVAL) : soft_vm_create();
    case KVM_GET_SUPPORTED_CPUID:
      return soft_supported_cpuid(argument);
    case KVM_GET_MSR_INDEX_LIST:
      return msr_list(argument);
    default:
      return soft_refuse(ENOTTY);
  }
}
