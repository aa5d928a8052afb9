/* SPDX-License-Identifier: MIT
 * What Apple's framework does not have: reasons in words, accesses that KVM has decoded, memory of
 * lunavisor.h, and threads that are not the system's. */
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

/* hv_vm_map_space of `size` bytes of a buffer of lunavisor.h from `offset`, a multiple of 4096:
 * memory that lives until it is unmapped, even if the program releases it. HV_BAD_ARGUMENT also for
 * what is outside the buffer. */
struct luna_buffer;
HV_API hv_return_t hv_ext_vm_map_buffer(hv_vm_space_t asid, struct luna_buffer *buffer,
                                        uint64_t offset, hv_gpaddr_t gpa, size_t size,
                                        hv_memory_flags_t flags);

/* The calling thread acts as another one from now on, until the next such call: it owns the vCPU
 * that was made by whoever acted as `token`, and not its own. 0 is the thread itself. For programs
 * whose threads are not the system's (coroutines, fibres), each of which has a token, any number
 * that is one in the process. A vCPU that was made with a token is not destroyed when a thread of
 * the system ends, and no two threads may act as the same at a time. Needs no VM. Always
 * HV_SUCCESS. */
HV_API hv_return_t hv_ext_thread_adopt(uint64_t token);

HV_END

#endif
