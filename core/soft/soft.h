/* SPDX-License-Identifier: MIT
 * The software CPU as the rest of the library sees it: a second kernel behind luna_kvm_table, which
 * speaks KVM's interface without /dev/kvm. */
#ifndef LUNA_SOFT_H
#define LUNA_SOFT_H

#include "kvm/kvm.h"

/* Any thread. Its descriptors are the process's own, and mean nothing to the real KVM. */
extern const luna_kvm_table luna_soft_table;

#endif
