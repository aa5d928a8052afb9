/* SPDX-License-Identifier: MIT
 * What the functions of the Hypervisor framework return. */
#ifndef HYPERVISOR_HV_ERROR_H
#define HYPERVISOR_HV_ERROR_H

#ifndef HV_CDEF
#include <stdint.h>
#endif

/* 0 or one of the codes below; print it as an unsigned number. */
typedef int32_t hv_return_t;

#define HV_SUCCESS ((hv_return_t)0)
/* Any other failure; hv_ext_error_message() of hv_linux.h has the sentence. */
#define HV_ERROR ((hv_return_t)0xfae94001)
/* Somebody has it: a second VM, a space that a vCPU is bound to, memory that is mapped. */
#define HV_BUSY ((hv_return_t)0xfae94002)
/* A value that is never right, or that names nothing: unaligned, null, no such vCPU or space. */
#define HV_BAD_ARGUMENT ((hv_return_t)0xfae94003)
/* ARM only; never returned here. */
#define HV_ILLEGAL_GUEST_STATE ((hv_return_t)0xfae94004)
/* The host has no memory, slot or descriptor left for it. */
#define HV_NO_RESOURCES ((hv_return_t)0xfae94005)
/* There is no VM in this process. */
#define HV_NO_DEVICE ((hv_return_t)0xfae94006)
/* Not allowed: KVM to this user, a vCPU to this thread, a right to this memory. */
#define HV_DENIED ((hv_return_t)0xfae94007)
/* The host memory behind a mapping cannot be used. */
#define HV_FAULT ((hv_return_t)0xfae94008)
/* KVM cannot do it. */
#define HV_UNSUPPORTED ((hv_return_t)0xfae9400f)

#endif
