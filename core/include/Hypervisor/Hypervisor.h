/* SPDX-License-Identifier: MIT
 * All of the Hypervisor framework for x86, on Linux: link with -lHypervisor. */
#ifndef HYPERVISOR_HYPERVISOR_H
#define HYPERVISOR_HYPERVISOR_H

#include <Hypervisor/hv.h>
#include <Hypervisor/hv_arch_vmx.h>
#include <Hypervisor/hv_arch_x86.h>
#include <Hypervisor/hv_base.h>
#include <Hypervisor/hv_error.h>
#include <Hypervisor/hv_intr.h>
#include <Hypervisor/hv_linux.h>
#include <Hypervisor/hv_types.h>
#include <Hypervisor/hv_vm_allocate.h>
#include <Hypervisor/hv_vmx.h>

#endif
