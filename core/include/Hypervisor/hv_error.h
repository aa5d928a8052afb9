/* SPDX-License-Identifier: MIT
 * What the functions of the Hypervisor framework return. */
#ifndef HYPERVISOR_HV_ERROR_H
#define HYPERVISOR_HV_ERROR_H

#include <Hypervisor/hv_base.h>

/* 0 or one of the codes below; print it as an unsigned number: HV_ERROR is 0xfae94001. */
typedef int32_t hv_return_t;

enum {
  HV_SUCCESS = 0,
  /* Any other failure; hv_ext_error_message() of hv_linux.h has the sentence. */
  HV_ERROR = -0x516bfff,
  /* Somebody has it: a second VM, a space that a vCPU is bound to, memory that is mapped. */
  HV_BUSY = -0x516bffe,
  /* A value that is never right, or that names nothing: unaligned, null, no such vCPU or space. */
  HV_BAD_ARGUMENT = -0x516bffd,
  /* ARM only; never returned here. */
  HV_ILLEGAL_GUEST_STATE = -0x516bffc,
  /* The host has no memory, slot or descriptor left for it. */
  HV_NO_RESOURCES = -0x516bffb,
  /* There is no VM in this process. */
  HV_NO_DEVICE = -0x516bffa,
  /* Not allowed: KVM to this user, a vCPU to this thread, a right to this memory. */
  HV_DENIED = -0x516bff9,
  /* The host memory behind a mapping cannot be used. */
  HV_FAULT = -0x516bff8,
  /* KVM cannot do it. */
  HV_UNSUPPORTED = -0x516bff1
};

#endif
