/* SPDX-License-Identifier: MIT
 * Part of lunavisor.h: what runs vCPUs, KVM or the software CPU. */
#ifndef LUNAVISOR_ACCELERATOR_H
#define LUNAVISOR_ACCELERATOR_H
#ifndef LUNA_API
#error "a part of lunavisor.h, which is to be included"
#endif

typedef enum luna_accelerator {
  LUNA_ACCEL_AUTO = 0, /* what LUNA_ACCEL says; without a word KVM where it can be opened */
  LUNA_ACCEL_KVM = 1,
  LUNA_ACCEL_SOFT = 2, /* the software CPU, where the library was built with it */
  LUNA_ACCEL_COUNT = 3
} luna_accelerator;

/* "auto", "kvm" or "soft", the values of the environment variable LUNA_ACCEL; NULL for a number
 * that is none. */
LUNA_API const char *luna_accelerator_name(int accel);
/* Which accelerator a VM gets that is made with luna_vm_options.accel as given, and why that one:
 * at most `size` bytes with the final zero, 640 are enough. LUNA_ACCEL_AUTO asks the environment:
 * the variable LUNA_ACCEL, "kvm", "soft" or "auto"; and then whether KVM's device can be opened,
 * instead of which the software CPU serves where it is there, unless LUNA_KVM_DEVICE names a
 * device. A negative status where it cannot be had: LUNA_ERROR_NO_KVM, _ACCESS or _BUSY of KVM,
 * _UNSUPPORTED without a software CPU in this build, _ARGUMENT for another number, or value of
 * LUNA_ACCEL. Any thread. */
LUNA_API int luna_accelerator_choose(uint32_t accel, char *reason, size_t size);

/* As luna_probe, luna_probe_value and luna_capability, of the accelerator that a VM with this
 * luna_vm_options.accel gets. Any thread. */
LUNA_API int luna_accelerator_probe(uint32_t accel);
LUNA_API int luna_accelerator_value(uint32_t accel, int index, uint64_t *value);
LUNA_API int luna_accelerator_capability(uint32_t accel, const char *name, uint64_t *value);

/* What runs the vCPUs of the VM, LUNA_ACCEL_KVM or LUNA_ACCEL_SOFT; and why, a phrase that lives as
 * long as the VM. VMs on different accelerators are independent of one another: what one cannot do
 * is refused, as by a host whose KVM cannot. A state that luna_vcpu_save made on one can be
 * restored on the other, if that has all that is in it. Any thread. */
LUNA_API uint32_t luna_vm_accelerator(const luna_vm *vm);
LUNA_API const char *luna_vm_accelerator_reason(const luna_vm *vm);

#endif
