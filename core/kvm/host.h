/* SPDX-License-Identifier: MIT
 * What a kernel offers, this host's KVM or the software CPU: asked once a process. */
#ifndef LUNA_HOST_H
#define LUNA_HOST_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct luna_host {
  uint32_t accel;  /* luna_accelerator: which kernel it is; what is learnt later is kept by it */
  uint64_t serial; /* another one after luna_kvm_replace; from 1 */
  uint32_t slots_max;
  uint32_t vcpus_max;
  uint32_t sync_regs; /* KVM_SYNC_X86_* bits, 0 where the run page carries no registers */
  bool immediate_exit;
  size_t run_size;           /* bytes of the shared run page */
  unsigned address_bits;     /* width of a guest-physical address */
  uint32_t xsave_size;       /* of the whole extended state */
  uint32_t ring_max;         /* entries of the largest dirty ring; 0 where there is none */
  bool no_execute;           /* KVM_MEMORY_ATTRIBUTE_NX: a range can be kept from execution */
  bool manual_protect;       /* KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 */
  uint32_t coalesced_page;   /* KVM_CAP_COALESCED_MMIO: of the run page's mapping; 0 for none */
  bool coalesced_pio;        /* KVM_CAP_COALESCED_PIO */
  bool msr_exits;            /* KVM_CAP_X86_USER_SPACE_MSR and KVM_CAP_X86_MSR_FILTER */
  bool irqchip;              /* KVM_CAP_IRQCHIP */
  bool pit;                  /* KVM_CAP_PIT2 */
  bool controls;             /* LUNA_KVM_CAP_CONTROLS */
  uint32_t exceptions;       /* LUNA_KVM_CAP_EXCEPTIONS */
  bool shadow_vmcs;          /* LUNA_KVM_CAP_SHADOW_VMCS */
  struct kvm_cpuid2 *cpuid;  /* KVM_GET_SUPPORTED_CPUID, for the life of the process */
  struct kvm_msr_list *msrs; /* KVM_GET_MSR_INDEX_LIST, the same */
} luna_host;

/* The features of a kernel (luna_accelerator, not LUNA_ACCEL_AUTO); NULL, with the error recorded
 * (luna_error_status), if it cannot be asked. It stays where it is for the process's life. */
const luna_host *luna_host_get(uint32_t accel);
/* Whether it has been asked, and so can be opened. */
bool luna_host_is_known(uint32_t accel);

#endif
