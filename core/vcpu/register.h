/* SPDX-License-Identifier: MIT
 * Where a general register is. */
#ifndef LUNA_REGISTER_H
#define LUNA_REGISTER_H

#include <linux/kvm.h>
#include <stdint.h>

uint64_t *luna_register_place(struct kvm_regs *regs, int reg);

#endif
