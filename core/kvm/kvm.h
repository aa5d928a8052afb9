/* SPDX-License-Identifier: MIT
 * Every system call that the library makes to KVM, one typed function each, behind a table: KVM's
 * own, the software CPU's, or a fake that tests put in their place. A function gives 0 or more,
 * or -1 with errno set. */
#ifndef LUNA_KVM_H
#define LUNA_KVM_H

#include "lunavisor.h"

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct luna_kvm_table {
  int (*open)(const char *path);
  int (*ioctl)(int fd, unsigned long request, void *argument);
  void *(*map)(size_t size, int fd, off_t offset); /* pages of a vCPU; MAP_FAILED on error */
  int (*unmap)(void *address, size_t size);
  int (*close)(int fd);
} luna_kvm_table;

/* A descriptor with the kernel that it is of: its device, a VM or a vCPU. */
typedef struct luna_fd {
  const luna_kvm_table *table;
  int number; /* negative for none */
} luna_fd;

/* Takes the place of every kernel's table, NULL for their own again: what was learnt of the host is
 * forgotten. No VM may be alive. */
__attribute__((visibility("default"))) void luna_kvm_replace(const luna_kvm_table *table);
/* The table of a kernel (luna_accelerator) from now on, before a VM is there; NULL for none. KVM
 * has its own. */
__attribute__((visibility("default"))) void luna_kvm_set_own(uint32_t accel,
                                                             const luna_kvm_table *table);
/* Whether there is such a kernel in this build. */
bool luna_kvm_is_built(uint32_t accel);
/* How often tables were replaced. */
unsigned luna_kvm_generation(void);

/* KVM_MEMORY_ATTRIBUTE_NX: proposed, and in no release yet. A set bit takes a right away. */
enum {
  LUNA_MEMORY_ATTRIBUTE_NX = 1 << 2
};

/* The path of the device: LUNA_KVM_DEVICE, or /dev/kvm. */
const char *luna_kvm_device(void);
/* Opens the device of a kernel (luna_accelerator, not LUNA_ACCEL_AUTO) and checks the API version:
 * the descriptor, whose number is a negative status, with its message, where that fails. */
luna_fd luna_kvm_open(uint32_t accel);
void luna_kvm_close(luna_fd fd);

int luna_kvm_check_extension(luna_fd fd, long capability);
/* Both make a descriptor; its number is -1, with errno, where that fails. */
luna_fd luna_kvm_create_vm(luna_fd kvm_fd);
luna_fd luna_kvm_create_vcpu(luna_fd vm_fd, uint32_t id);
/* Records why a VM could not be created, with the way out where KVM is busy. */
int luna_kvm_fail_create(int number);
int luna_kvm_set_tss_address(luna_fd vm_fd, uint64_t gpa);
int luna_kvm_set_identity_map_address(luna_fd vm_fd, uint64_t gpa);
int luna_kvm_set_region(luna_fd vm_fd, const struct kvm_userspace_memory_region *region);

/* Keeps the guest from executing [gpa, gpa + size), or lets it again. */
int luna_kvm_set_no_execute(luna_fd vm_fd, uint64_t gpa, uint64_t size, bool on);

/* `size` bytes of a vCPU from `offset`; NULL on error. */
void *luna_kvm_map(luna_fd vcpu_fd, size_t size, off_t offset);
void luna_kvm_unmap(luna_fd vcpu_fd, void *address, size_t size);
int luna_kvm_run(luna_fd vcpu_fd);
/* NULL: the thread's own. */
int luna_kvm_set_signal_mask(luna_fd vcpu_fd, const struct kvm_signal_mask *mask);
int luna_kvm_set_cpuid(luna_fd vcpu_fd, struct kvm_cpuid2 *cpuid);
int luna_kvm_get_regs(luna_fd vcpu_fd, struct kvm_regs *regs);
int luna_kvm_set_regs(luna_fd vcpu_fd, struct kvm_regs *regs);
/* Makes system registers that a guest brought about such that KVM takes them back, and they mean
 * the same. luna_kvm_get_sregs does it. */
void luna_kvm_mend_sregs(struct kvm_sregs *sregs);
int luna_kvm_get_sregs(luna_fd vcpu_fd, struct kvm_sregs *sregs);
int luna_kvm_set_sregs(luna_fd vcpu_fd, struct kvm_sregs *sregs);
int luna_kvm_get_events(luna_fd vcpu_fd, struct kvm_vcpu_events *events);
int luna_kvm_set_events(luna_fd vcpu_fd, struct kvm_vcpu_events *events);
int luna_kvm_get_debugregs(luna_fd vcpu_fd, struct kvm_debugregs *debugregs);
int luna_kvm_set_debugregs(luna_fd vcpu_fd, struct kvm_debugregs *debugregs);
int luna_kvm_get_xcrs(luna_fd vcpu_fd, struct kvm_xcrs *xcrs);
int luna_kvm_set_xcrs(luna_fd vcpu_fd, struct kvm_xcrs *xcrs);
/* `xsave` has luna_host.xsave_size bytes. */
int luna_kvm_get_xsave(luna_fd vcpu_fd, void *xsave, uint32_t size);
int luna_kvm_set_xsave(luna_fd vcpu_fd, void *xsave);
/* How many entries were done, or -1. */
int luna_kvm_get_msrs(luna_fd vcpu_fd, void *msrs); /* struct kvm_msrs */
int luna_kvm_set_msrs(luna_fd vcpu_fd, void *msrs);
/* The distance of the guest's time-stamp counter to the host's. */
int luna_kvm_get_tsc_offset(luna_fd vcpu_fd, uint64_t *offset);
int luna_kvm_set_tsc_offset(luna_fd vcpu_fd, uint64_t offset);
/* The MSRs that hold a vCPU's state: a malloced list, NULL on error. */
struct kvm_msr_list *luna_kvm_msr_list(luna_fd kvm_fd);

int luna_kvm_enable_cap(luna_fd vm_fd, uint32_t capability, uint64_t argument);
int luna_kvm_get_dirty_log(luna_fd vm_fd, uint32_t slot, uint64_t *bitmap);
/* The bitmap is of the pages from `first`, a multiple of 64. */
int luna_kvm_clear_dirty_log(luna_fd vm_fd, uint32_t slot, uint64_t first, uint64_t pages,
                             uint64_t *bitmap);
int luna_kvm_reset_rings(luna_fd vm_fd);
int luna_kvm_translate(luna_fd vcpu_fd, struct kvm_translation *translation);

/* Any ioctl of the table, for the files that hold further typed functions. */
int luna_kvm_call(luna_fd fd, unsigned long request, const void *argument);

#endif
