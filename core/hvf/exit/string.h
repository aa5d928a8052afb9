/* SPDX-License-Identifier: MIT
 * String instructions that access memory. */
#ifndef HVF_STRING_H
#define HVF_STRING_H

#include "hvf/base/cpu.h"

/* The length of a string instruction, MOVS and the like, at `rip`; 0 for any other. */
uint32_t hvf_string_length(hvf_vcpu *v, uint64_t rip);

#endif
