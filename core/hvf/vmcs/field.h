/* SPDX-License-Identifier: MIT
 * Which field of the VMCS a number is. */
#ifndef HVF_FIELD_H
#define HVF_FIELD_H

#include "hvf/vmcs/kind.h"

#include <stdbool.h>

hvf_field hvf_field_find(uint32_t number);
/* Whether a shadow VMCS has it: all that Intel has, and the upper halves of those of 64 bits. */
bool hvf_field_is_shadowed(uint32_t number);
/* The largest value that it can hold; of an odd number, its upper half. */
uint64_t hvf_field_widest(uint32_t number);

#endif
