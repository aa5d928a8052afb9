/* SPDX-License-Identifier: MIT
 * String instructions that access memory. */
#ifndef HVF_STRING_H
#define HVF_STRING_H

#include "hvf/base/cpu.h"

/* Whether the repeated instruction has elements to do. */
bool hvf_string_left(hvf_vcpu *v, const hvf_port *string);
/* Takes the element that has been counted last back in the values of the registers LUNA_RAX to
 * LUNA_RFLAGS. */
void hvf_string_uncount(const hvf_port *string, uint64_t *values);
/* Finds the string instruction whose element wrote what the exit, of memory, tells. KVM has counted
 * that; it is at a repeated one, behind another. Its address is `*start`. */
bool hvf_string_writer(hvf_vcpu *v, uint64_t rip, hvf_port *string, uint64_t *start);
/* The length of a string instruction, MOVS and the like, at `rip`; 0 for any other. */
uint32_t hvf_string_length(hvf_vcpu *v, uint64_t rip);

#endif
