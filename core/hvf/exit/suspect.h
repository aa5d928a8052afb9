/* SPDX-License-Identifier: MIT
 * Registers that have been written so that a VM entry can fail. */
#ifndef HVF_SUSPECT_H
#define HVF_SUSPECT_H

#include "hvf/base/cpu.h"

/* A register gets a value: whether that can break a rule of the entry. */
void hvf_suspect_note(hvf_vcpu *v, int reg, uint64_t value);

#endif
