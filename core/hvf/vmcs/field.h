/* SPDX-License-Identifier: MIT
 * Which field of the VMCS a number is. */
#ifndef HVF_FIELD_H
#define HVF_FIELD_H

#include "hvf/vmcs/kind.h"

hvf_field hvf_field_find(uint32_t number);
/* The largest value that it can hold. */
uint64_t hvf_field_widest(uint32_t number);

#endif
