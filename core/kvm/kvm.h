/* SPDX-License-Identifier: MIT
 * Every system call that the library makes to KVM, one typed function each, behind one table that
 * tests replace by a fake. A function returns 0 or more, or -1 with errno set. */
#ifndef LUNA_KVM_H
#define LUNA_KVM_H

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

/* Replaces the table, NULL for the real one: what was learnt of the host is forgotten. No VM may be
 * alive. */
__attribute__((visibility("default"))) void luna_kvm_replace(const luna_kvm_table *table);
/* Makes another table the real one, before a VM is there. */
void luna_kvm_set_own(const luna_kvm_table *table);
/* How often tables were replaced. */
unsigned luna_kvm_generation(void);

/* KVM_MEMORY_ATTRIBUTE_NX: proposed, and in no release yet. A set bit takes a right away. */
enum {
  LUNA_MEMORY_ATTRIBUTE_NX = 1 << 2
};

/* The path of the device: LUNA_KVM_DEVICE, or /dev/kvm. */
const char *luna_kvm_device(void);
/* Opens the device and checks the API version: the descriptor, or a negative status with its
 * message. */
int luna_kvm_open(void);
void luna_kvm_close(int fd);

int luna_kvm_check_extension(int fd, long capability);
int luna_kvm_create_vm(int kvm_fd);
/* Records why a VM could not be created, with the way out where KVM is busy. */
int luna_kvm_fail_create(int number);
int luna_kvm_set_tss_address(int vm_fd, uint64_t gpa);
int luna_kvm_set_identity_map_address(int vm_fd, uint64_t gpa);
int luna_kvm_set_region(int vm_fd, const struct kvm_userspace_memory_region *region);

/* Keeps the guest from executing [gpa, gpa + size), or lets it again. */
int luna_kvm_set_no_execute(int vm_fd, uint64_t gpa, uint64_t size, bool on);

int luna_kvm_create_vcpu(int vm_fd, uint32_t id);
/* `size` bytes of a vCPU from `offset`; NULL on error. */
void *luna_kvm_map(int vcpu_fd, size_t size, off_t offset);
void luna_kvm_unmap(void *address, size_t size);
int luna_kvm_run(int vcpu_fd);
/* NULL: the thread's own. */
int luna_kvm_set_signal_mask(int vcpu_fd, const struct kvm_signal_mask *mask);
int luna_kvm_set_cpuid(int vcpu_fd, struct kvm_cpuid2 *cpuid);
int luna_kvm_get_regs(int vcpu_fd, struct kvm_regs *regs);
int luna_kvm_set_regs(int vcpu_fd, struct kvm_regs *regs);
/* Makes system registers that a guest brought about such that KVM takes them back, and they mean
 * the same. luna_kvm_get_sregs does it. */
void luna_kvm_mend_sregs(struct kvm_sregs *sregs);
int luna_kvm_get_sregs(int vcpu_fd, struct kvm_sregs *sregs);
int luna_kvm_set_sregs(int vcpu_fd, struct kvm_sregs *sregs);
int luna_kvm_get_events(int vcpu_fd, struct kvm_vcpu_events *events);
int luna_kvm_set_events(int vcpu_fd, struct kvm_vcpu_events *events);
int luna_kvm_get_debugregs(int vcpu_fd, struct kvm_debugregs *debugregs);
int luna_kvm_set_debugregs(int vcpu_fd, struct kvm_debugregs *debugregs);
int luna_kvm_get_xcrs(int vcpu_fd, struct kvm_xcrs *xcrs);
int luna_kvm_set_xcrs(int vcpu_fd, struct kvm_xcrs *xcrs);
/* `xsave` has luna_host.xsave_size bytes. */
int luna_kvm_get_xsave(int vcpu_fd, void *xsave, uint32_t size);
int luna_kvm_set_xsave(int vcpu_fd, void *xsave);
/* How many entries were done, or -1. */
int luna_kvm_get_msrs(int vcpu_fd, void *msrs); /* struct kvm_msrs */
int luna_kvm_set_msrs(int vcpu_fd, void *msrs);
/* The distance of the guest's time-stamp counter to the host's. */
int luna_kvm_get_tsc_offset(int vcpu_fd, uint64_t *offset);
int luna_kvm_set_tsc_offset(int vcpu_fd, uint64_t offset);
/* The MSRs that hold a vCPU's state: a malloced list, NULL on error. */
struct kvm_msr_list *luna_kvm_msr_list(int kvm_fd);

int luna_kvm_enable_cap(int vm_fd, uint32_t capability, uint64_t argument);
int luna_kvm_get_dirty_log(int vm_fd, uint32_t slot, uint64_t *bitmap);
/* The bitmap is of the pages from `first`, a multiple of 64. */
int luna_kvm_clear_dirty_log(int vm_fd, uint32_t slot, uint64_t first, uint64_t pages,
                             uint64_t *bitmap);
int luna_kvm_reset_rings(int vm_fd);
int luna_kvm_translate(int vcpu_fd, struct kvm_translation *translation);

/* Any ioctl of the table, for the files that hold further typed functions. */
int luna_kvm_call(int fd, unsigned long request, const void *argument);

#endif
