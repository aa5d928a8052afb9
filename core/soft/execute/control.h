/* SPDX-License-Identifier: MIT
 * Control registers and MSRs as instructions and ioctls set them: false where a value is refused,
 * and then nothing has changed. */
#ifndef SOFT_CONTROL_H
#define SOFT_CONTROL_H

#include "soft/cpu.h"

bool soft_set_cr0(soft_cpu *cpu, uint64_t value);
bool soft_set_cr3(soft_cpu *cpu, uint64_t value);
bool soft_set_cr4(soft_cpu *cpu, uint64_t value);
void soft_set_pkru(soft_cpu *cpu, uint32_t value);
/* What depends on CR4, after it was set. */
void soft_cr4_changed(soft_cpu *cpu);

/* identify.c: the leaf of the table that the vCPU was given; zeroes where it does not have it. */
const struct kvm_cpuid_entry2 *soft_cpuid(const soft_cpu *cpu, uint32_t leaf, uint32_t index);
/* Whether it shows a feature; all are there without a table. */
typedef enum soft_cpuid_register {
  SOFT_EBX,
  SOFT_ECX,
  SOFT_EDX
} soft_cpuid_register;
bool soft_cpuid_has(const soft_cpu *cpu, uint32_t leaf, soft_cpuid_register which, unsigned bit);
/* After there is another table. */
void soft_cpuid_changed(soft_cpu *cpu);

/* msr.c. False for an MSR that there is not; `host` sets what a guest may not. */
bool soft_msr_get(soft_cpu *cpu, uint32_t msr, uint64_t *value);
bool soft_msr_set(soft_cpu *cpu, uint32_t msr, uint64_t value, bool host);
/* The MSRs that hold state, for KVM_GET_MSR_INDEX_LIST: how many. */
unsigned soft_msr_list(uint32_t *msrs, unsigned room);

/* kernel/filter.c: whether user space wants to answer the access instead. */
bool soft_msr_filtered(soft_cpu *cpu, uint32_t msr, bool write);
/* The reasons (KVM_MSR_EXIT_REASON_*) that it wants exits for. */
uint32_t soft_msr_exits(soft_vm *vm);

/* clock.c */
uint64_t soft_tsc(const soft_cpu *cpu);
/* From here on the guest's counter has that frequency, which changes its value; false where the
 * ratio to the host's is out of reach. */
bool soft_tsc_scale(soft_cpu *cpu, uint32_t kilohertz);
/* Of the host, in kHz. */
uint32_t soft_tsc_khz(void);
/* Nanoseconds of CLOCK_MONOTONIC. */
uint64_t soft_now(void);
/* Of ticks of the guest's. */
uint64_t soft_tsc_to_ns(const soft_cpu *cpu, uint64_t ticks);
/* kvmclock: nanoseconds since the VM was made, or what was set. */
uint64_t soft_vm_clock(soft_vm *vm);
void soft_vm_set_clock(soft_vm *vm, uint64_t nanoseconds);
/* Writes the page that the MSR names. */
void soft_clock_update(soft_cpu *cpu);
void soft_wall_clock(soft_cpu *cpu, uint64_t gpa);

#endif
