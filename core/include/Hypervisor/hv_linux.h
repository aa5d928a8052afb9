/* SPDX-License-Identifier: MIT
 * What Apple's framework does not have: reasons in words, and accesses that KVM has decoded. */
#ifndef HYPERVISOR_HV_LINUX_H
#define HYPERVISOR_HV_LINUX_H

#include <Hypervisor/hv_types.h>

HV_BEGIN

/* What was wrong with the calling thread's last call that failed: a sentence with what was tried,
 * with which values, why it failed and what to do. Never null; valid until its next failure. */
HV_API const char *hv_ext_error_message(void);

/* The access that the last exit was for. */
typedef struct hv_ext_access {
  uint64_t address; /* a port, or a guest-physical address */
  uint64_t value;   /* what is written, zero extended; 0 for a read */
  uint32_t size;    /* bytes, 1 to 8; 0 for a fetch */
  uint32_t access;  /* HV_MEMORY_READ, HV_MEMORY_WRITE or HV_MEMORY_EXEC */
  uint32_t port;    /* 1: of I/O ports; 0: of memory */
  uint32_t left;    /* elements that a string port instruction is known to have left, with this */
} hv_ext_access;

/* Tells what an IO or EPT violation exit wants. Owner. HV_ERROR if the last exit was neither. */
HV_API hv_return_t hv_ext_vcpu_access(hv_vcpuid_t vcpu, hv_ext_access *access);
/* Finishes that access: a read gets the low bytes of `value`, a write is taken as done. KVM does
 * the rest of the instruction when the vCPU is run again; RIP has not to be moved, and registers
 * are as at the exit until then. String instructions come element by element this way. To be called
 * before VMCS_RO_VMEXIT_INSTR_LEN is read or a register written (for a string instruction: RCX, RSI
 * or RDI read), which takes the instruction back for the program to do: then it is HV_ERROR.
 * HV_UNSUPPORTED for a fetch. Owner. */
HV_API hv_return_t hv_ext_vcpu_complete(hv_vcpuid_t vcpu, uint64_t value);

HV_END

#endif
