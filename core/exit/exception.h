/* SPDX-License-Identifier: MIT
 * Exceptions that have arrived at a stub of the system area. */
#ifndef LUNA_EXCEPTION_H
#define LUNA_EXCEPTION_H

#include "lunavisor.h"

/* The vector if the port access that KVM reports is an exception stub's, else -1. */
int luna_exception_vector(luna_vcpu *vcpu);
/* Undoes what the processor did on its way to the stub: the registers are as at the instruction.
 * _SYSTEM where the frame or the GDT is gone, which is the doing of the guest. */
int luna_exception_unwind(luna_vcpu *vcpu, int vector, uint32_t *error_code);

#endif
