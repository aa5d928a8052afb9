/* SPDX-License-Identifier: MIT
 * The instruction whose access to memory exited. */
#ifndef HVF_MEMORY_ACCESS_H
#define HVF_MEMORY_ACCESS_H

#include "hvf/base/cpu.h"

/* Finds the instruction that wrote, of which KVM has done all but the write and which ends at
 * `end`: its length; 0 if it is none that is certain and would do the same again. */
uint32_t hvf_memory_writer(hvf_vcpu *v, uint64_t end);
/* The linear address of the access of the last exit; false if it cannot be known. What it is found
 * by may change afterwards. */
bool hvf_memory_linear(hvf_vcpu *v, uint64_t *linear);

#endif
