/* SPDX-License-Identifier: MIT
 * Types and flags of the Hypervisor framework: VMs, spaces, memory, vCPUs. */
#ifndef HYPERVISOR_HV_TYPES_H
#define HYPERVISOR_HV_TYPES_H

#include <Hypervisor/hv_base.h>
#include <Hypervisor/hv_error.h>

/* What hv_capability tells. */
typedef uint64_t hv_capability_t;
enum {
  HV_CAP_VCPUMAX = 0,     /* vCPUs of the VM */
  HV_CAP_ADDRSPACEMAX = 1 /* address spaces of the VM */
};

/* hv_vm_create. The mitigations are accepted and leave the host kernel's own in force. */
typedef uint64_t hv_vm_options_t;
enum {
  HV_VM_DEFAULT = 0,
  HV_VM_SPECIFY_MITIGATIONS = 1 << 0,
  HV_VM_MITIGATION_A_ENABLE = 1 << 1,
  HV_VM_MITIGATION_B_ENABLE = 1 << 2,
  HV_VM_MITIGATION_C_ENABLE = 1 << 3,
  HV_VM_MITIGATION_D_ENABLE = 1 << 4,
  HV_VM_MITIGATION_E_ENABLE = 1 << 6,
  /* Local APICs, an I/O APIC and the two PICs inside KVM: the calls of hv_intr.h. */
  HV_VM_ACCEL_APIC = 1 << 10
};
/* Not Apple's: memory has exactly the rights that were asked for. Without it, KVM's slots decide:
 * what is readable is executable, what is writable is readable and executable. With it, memory with
 * other rights than RWX and RX is slow as a device is, and no code runs from it. */
HV_WIDE enum { HV_VM_STRICT_EXEC = 1ull << 32 };

/* A guest-physical address space. */
typedef unsigned int hv_vm_space_t;
enum {
  HV_VM_SPACE_DEFAULT = 0
};

/* An address in this process, and one in the guest. */
typedef const void *hv_uvaddr_t;
typedef uint64_t hv_gpaddr_t;

/* Rights of memory. UEXEC is execution in user mode where the processor tells it from EXEC
 * (mode-based execute control). KVM does not: EXEC and UEXEC have to be asked for together, or EXEC
 * alone; UEXEC without EXEC is HV_UNSUPPORTED. With MAXPROT, the MAXPROT_* bits are the most that
 * a later hv_vm_protect of that memory can give; without it there is no such limit. */
typedef uint64_t hv_memory_flags_t;
enum {
  HV_MEMORY_READ = 1 << 0,
  HV_MEMORY_WRITE = 1 << 1,
  HV_MEMORY_EXEC = 1 << 2,
  HV_MEMORY_UEXEC = 1 << 3,
  HV_MEMORY_MAXPROT = 1 << 4,
  HV_MEMORY_MAXPROT_READ = 1 << 5,
  HV_MEMORY_MAXPROT_WRITE = 1 << 6,
  HV_MEMORY_MAXPROT_EXEC = 1 << 7,
  HV_MEMORY_MAXPROT_UEXEC = 1 << 8
};

/* hv_vm_allocate. */
typedef uint64_t hv_allocate_flags_t;
enum {
  HV_ALLOCATE_DEFAULT = 0
};

/* A vCPU; the numbers of destroyed ones are given out again. */
typedef unsigned int hv_vcpuid_t;

/* hv_vcpu_create. ACCEL_RDPMC is accepted: KVM decides by CPUID whether the guest has counters. */
typedef uint64_t hv_vcpu_options_t;
enum {
  HV_VCPU_DEFAULT = 0,
  HV_VCPU_ACCEL_RDPMC = 1 << 0,
  HV_VCPU_TSC_RELATIVE = 1 << 1
};

/* hv_vcpu_set_msr_access: what the guest may do without an exit. */
typedef uint32_t hv_msr_flags_t;
enum {
  HV_MSR_NONE = 0,
  HV_MSR_READ = 1 << 0,
  HV_MSR_WRITE = 1 << 1
};

/* hv_vm_add_pio_notifier. On Linux the descriptor of an eventfd stands for a Mach port: it becomes
 * readable, and counts, but carries no message. A program that has Mach's types of its own defines
 * what Mach's headers define. */
#ifndef _MACH_PORT_T
#define _MACH_PORT_T
typedef unsigned int mach_port_t;
#endif
#ifndef _MACH_MESSAGE_H_
typedef struct {
  uint32_t msgh_bits;
  uint32_t msgh_size;
  mach_port_t msgh_remote_port;
  mach_port_t msgh_local_port;
  uint32_t msgh_voucher_port;
  int32_t msgh_id;
} mach_msg_header_t;
typedef struct {
  uint32_t msgh_trailer_type;
  uint32_t msgh_trailer_size;
} mach_msg_trailer_t;
#endif

/* What a Mach port would receive of a notifier. */
typedef struct {
  mach_msg_header_t header;
  uint64_t addr;
  uint64_t size;
  uint64_t value;
  mach_msg_trailer_t trailer;
} hv_ion_message_t;

typedef uint32_t hv_ion_flags_t;
enum {
  HV_ION_NONE = 0,
  HV_ION_ANY_VALUE = 1 << 1, /* whatever is written */
  HV_ION_ANY_SIZE = 1 << 2,  /* in whatever size */
  HV_ION_EXIT_FULL = 1 << 3  /* exit if the counter cannot go on */
};

#endif
