/* SPDX-License-Identifier: MIT
 * Types and flags of the Hypervisor framework: VMs, spaces, memory, vCPUs. */
#ifndef HYPERVISOR_HV_TYPES_H
#define HYPERVISOR_HV_TYPES_H

#include <Hypervisor/hv_error.h>

/* With HV_CDEF, what is left is for ffi.cdef of LuaJIT. */
#ifndef HV_CDEF
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#define HV_API __attribute__((visibility("default")))
#else
#define HV_API
#endif
#ifdef __cplusplus
#define HV_BEGIN extern "C" {
#define HV_END }
#else
#define HV_BEGIN
#define HV_END
#endif

/* What hv_capability tells. */
typedef uint32_t hv_capability_t;
#define HV_CAP_VCPUMAX 0      /* vCPUs of the VM */
#define HV_CAP_ADDRSPACEMAX 1 /* address spaces of the VM */

/* hv_vm_create. The mitigations are accepted and leave the host kernel's own in force. */
typedef uint64_t hv_vm_options_t;
#define HV_VM_DEFAULT (UINT64_C(0))
#define HV_VM_SPECIFY_MITIGATIONS (UINT64_C(1) << 0)
#define HV_VM_MITIGATION_A_ENABLE (UINT64_C(1) << 1)
#define HV_VM_MITIGATION_B_ENABLE (UINT64_C(1) << 2)
#define HV_VM_MITIGATION_C_ENABLE (UINT64_C(1) << 3)
#define HV_VM_MITIGATION_D_ENABLE (UINT64_C(1) << 4)
#define HV_VM_MITIGATION_E_ENABLE (UINT64_C(1) << 6)
/* Local APICs, an I/O APIC and the two PICs inside KVM: the calls of hv_intr.h. */
#define HV_VM_ACCEL_APIC (UINT64_C(1) << 10)
/* Not Apple's: memory has exactly the rights that were asked for. Without it, KVM's slots decide:
 * what is readable is executable, what is writable is readable and executable. With it, memory with
 * other rights than RWX and RX is slow as a device is, and no code runs from it. */
#define HV_VM_STRICT_EXEC (UINT64_C(1) << 32)

/* A guest-physical address space. */
typedef unsigned int hv_vm_space_t;
#define HV_VM_SPACE_DEFAULT 0

/* An address in this process, and one in the guest. */
typedef const void *hv_uvaddr_t;
typedef uint64_t hv_gpaddr_t;

/* Rights of memory. UEXEC is execution in user mode where the processor tells it from EXEC
 * (mode-based execute control). KVM does not: EXEC and UEXEC have to be asked for together, or EXEC
 * alone; UEXEC without EXEC is HV_UNSUPPORTED. With MAXPROT, the MAXPROT_* bits are the most that
 * a later hv_vm_protect of that memory can give; without it there is no such limit. */
typedef uint64_t hv_memory_flags_t;
#define HV_MEMORY_READ (UINT64_C(1) << 0)
#define HV_MEMORY_WRITE (UINT64_C(1) << 1)
#define HV_MEMORY_EXEC (UINT64_C(1) << 2)
#define HV_MEMORY_UEXEC (UINT64_C(1) << 3)
#define HV_MEMORY_MAXPROT (UINT64_C(1) << 4)
#define HV_MEMORY_MAXPROT_READ (UINT64_C(1) << 5)
#define HV_MEMORY_MAXPROT_WRITE (UINT64_C(1) << 6)
#define HV_MEMORY_MAXPROT_EXEC (UINT64_C(1) << 7)
#define HV_MEMORY_MAXPROT_UEXEC (UINT64_C(1) << 8)

/* hv_vm_allocate. */
typedef uint64_t hv_allocate_flags_t;
#define HV_ALLOCATE_DEFAULT (UINT64_C(0))

/* A vCPU; the numbers of destroyed ones are given out again. */
typedef unsigned int hv_vcpuid_t;

/* hv_vcpu_create. ACCEL_RDPMC is accepted: KVM decides by CPUID whether the guest has counters. */
typedef uint64_t hv_vcpu_options_t;
#define HV_VCPU_DEFAULT (UINT64_C(0))
#define HV_VCPU_ACCEL_RDPMC (UINT64_C(1) << 0)
#define HV_VCPU_TSC_RELATIVE (UINT64_C(1) << 1)

/* hv_vcpu_set_msr_access: what the guest may do without an exit. */
typedef uint32_t hv_msr_flags_t;
#define HV_MSR_NONE 0
#define HV_MSR_READ (1u << 0)
#define HV_MSR_WRITE (1u << 1)

/* hv_vm_add_pio_notifier. On Linux the descriptor of an eventfd stands for a Mach port: it becomes
 * readable, and counts, but carries no message. */
typedef int mach_port_t;
typedef uint32_t hv_ion_flags_t;
#define HV_ION_NONE 0
#define HV_ION_ANY_VALUE (1u << 1) /* whatever is written */
#define HV_ION_ANY_SIZE (1u << 2)  /* in whatever size; only with ANY_VALUE */
#define HV_ION_EXIT_FULL (1u << 3) /* HV_UNSUPPORTED: an eventfd is never full */

#endif
