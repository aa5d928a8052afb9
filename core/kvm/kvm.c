/* SPDX-License-Identifier: MIT
 * The table of system calls, and the typed functions over it. */
#include "kvm/kvm.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/* KVM_SET_MEMORY_ATTRIBUTES is of Linux 6.8; the attributes for read, write and execute are
 * proposed and in no release yet. Where a kernel offers them, this is their form. */
typedef struct memory_attributes {
  uint64_t address;
  uint64_t size;
  uint64_t attributes;
  uint64_t flags;
} memory_attributes;
static const unsigned long set_memory_attributes = _IOW(KVMIO, 0xd2, memory_attributes);

static int real_open(const char *path) {
  return open(path, O_RDWR | O_CLOEXEC);
}

static int real_ioctl(int fd, unsigned long request, void *argument) {
  return ioctl(fd, request, argument);
}

static void *real_map(size_t size, int fd, off_t offset) {
  return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);
}

static const luna_kvm_table real_table = {real_open, real_ioctl, real_map, munmap, close};
static const luna_kvm_table *own[LUNA_ACCEL_COUNT] = {[LUNA_ACCEL_KVM] = &real_table};
static const luna_kvm_table *replaced; /* in the place of each, or NULL */

static atomic_uint tables; /* that have been in use */

void luna_kvm_replace(const luna_kvm_table *table) {
  replaced = table;
  atomic_fetch_add(&tables, 1);
}

void luna_kvm_set_own(uint32_t accel, const luna_kvm_table *table) {
  own[accel] = table;
  atomic_fetch_add(&tables, 1);
}

bool luna_kvm_is_built(uint32_t accel) {
  return own[accel] != NULL;
}

unsigned luna_kvm_generation(void) {
  return atomic_load(&tables);
}

int luna_kvm_call(luna_fd fd, unsigned long request, const void *argument) {
  return fd.table->ioctl(fd.number, request, (void *)(uintptr_t)argument);
}

static int call(luna_fd fd, unsigned long request, const void *argument) {
  return luna_kvm_call(fd, request, argument);
}

static int call_number(luna_fd fd, unsigned long request, unsigned long number) {
  return fd.table->ioctl(fd.number, request, (void *)(uintptr_t)number);
}

const char *luna_kvm_device(void) {
  const char *path = getenv("LUNA_KVM_DEVICE");
  return path && *path ? path : "/dev/kvm";
}

static int fail_open(const char *path, int number) {
  switch (number) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
      return luna_fail(LUNA_ERROR_NO_KVM,
                       "cannot open %s: it is missing (%s); load KVM with 'modprobe kvm_intel' or "
                       "'modprobe kvm_amd', after switching on virtualization in the firmware "
                       "(in a virtual machine: nested virtualization in its host)",
                       path, strerror(number));
    case EACCES:
    case EPERM:
      return luna_fail(LUNA_ERROR_ACCESS,
                       "cannot open %s: no permission (%s); join its group with "
                       "'sudo usermod -aG kvm $USER' and log in again",
                       path, strerror(number));
    case EBUSY:
      return luna_fail(LUNA_ERROR_BUSY,
                       "cannot open %s: it is busy (%s); another hypervisor holds the processor's "
                       "virtualization: find it with 'lsmod | grep -e vbox -e vmmon' and unload it",
                       path, strerror(number));
    default:
      return luna_fail_errno(number, "cannot open %s", path);
  }
}

luna_fd luna_kvm_open(uint32_t accel) {
  const char *path = luna_kvm_device();
  luna_fd fd = {replaced ? replaced : own[accel], -1};
  if (!fd.table) {
    fd.number = luna_fail(LUNA_ERROR_UNSUPPORTED,
                          "there is no software CPU in this build of the library: it was made "
                          "without Zydis (Debian: libzydis-dev)");
    return fd;
  }
  fd.number = fd.table->open(path);
  if (fd.number < 0) {
    fd.number = fail_open(path, errno);
    return fd;
  }
  int version = call_number(fd, KVM_GET_API_VERSION, 0);
  if (version != KVM_API_VERSION) {
    luna_kvm_close(fd);
    fd.number =
        luna_fail(LUNA_ERROR_NO_KVM, "%s is not a KVM device: its API version is %d, not %d", path,
                  version, KVM_API_VERSION);
  }
  return fd;
}

void luna_kvm_close(luna_fd fd) {
  fd.table->close(fd.number);
}

int luna_kvm_check_extension(luna_fd fd, long capability) {
  return call_number(fd, KVM_CHECK_EXTENSION, (unsigned long)capability);
}

luna_fd luna_kvm_create_vm(luna_fd kvm_fd) {
  luna_error_watch_fork();
  luna_fd fd = {kvm_fd.table, -1};
  do { /* a signal can interrupt the allocations inside */
    fd.number = call_number(kvm_fd, KVM_CREATE_VM, 0);
  } while (fd.number < 0 && errno == EINTR);
  return fd;
}

int luna_kvm_fail_create(int number) {
  if (number == EBUSY) {
    return luna_fail(LUNA_ERROR_BUSY,
                     "cannot create a VM: KVM is busy (%s); another hypervisor holds the "
                     "processor's virtualization: find it with 'lsmod | grep -e vbox -e vmmon' and "
                     "unload it",
                     strerror(number));
  }
  return luna_fail_errno(number, "cannot create a VM");
}

int luna_kvm_set_tss_address(luna_fd vm_fd, uint64_t gpa) {
  return call_number(vm_fd, KVM_SET_TSS_ADDR, gpa);
}

int luna_kvm_set_identity_map_address(luna_fd vm_fd, uint64_t gpa) {
  return call(vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &gpa);
}

int luna_kvm_set_region(luna_fd vm_fd, const struct kvm_userspace_memory_region *region) {
  return call(vm_fd, KVM_SET_USER_MEMORY_REGION, region);
}

int luna_kvm_set_no_execute(luna_fd vm_fd, uint64_t gpa, uint64_t size, bool on) {
  const memory_attributes change = {
      .address = gpa, .size = size, .attributes = on ? LUNA_MEMORY_ATTRIBUTE_NX : 0};
  return call(vm_fd, set_memory_attributes, &change);
}

luna_fd luna_kvm_create_vcpu(luna_fd vm_fd, uint32_t id) {
  return (luna_fd){vm_fd.table, call_number(vm_fd, KVM_CREATE_VCPU, id)};
}

void *luna_kvm_map(luna_fd vcpu_fd, size_t size, off_t offset) {
  void *address = vcpu_fd.table->map(size, vcpu_fd.number, offset);
  return address == MAP_FAILED ? NULL : address;
}

void luna_kvm_unmap(luna_fd vcpu_fd, void *address, size_t size) {
  vcpu_fd.table->unmap(address, size);
}

int luna_kvm_run(luna_fd vcpu_fd) {
  return call_number(vcpu_fd, KVM_RUN, 0);
}

int luna_kvm_set_signal_mask(luna_fd vcpu_fd, const struct kvm_signal_mask *mask) {
  return call(vcpu_fd, KVM_SET_SIGNAL_MASK, mask);
}

int luna_kvm_set_cpuid(luna_fd vcpu_fd, struct kvm_cpuid2 *cpuid) {
  return call(vcpu_fd, KVM_SET_CPUID2, cpuid);
}

int luna_kvm_get_regs(luna_fd vcpu_fd, struct kvm_regs *regs) {
  return call(vcpu_fd, KVM_GET_REGS, regs);
}

int luna_kvm_set_regs(luna_fd vcpu_fd, struct kvm_regs *regs) {
  return call(vcpu_fd, KVM_SET_REGS, regs);
}

/* A processor ignores L outside of long mode (SDM Vol. 3, 5.2.1), and a guest may have loaded a
 * descriptor with it. KVM says so, and refuses to take it back. */
void luna_kvm_mend_sregs(struct kvm_sregs *sregs) {
  const uint64_t lma = 0x400;
  sregs->cs.l = sregs->efer & lma ? sregs->cs.l : 0;
}

int luna_kvm_get_sregs(luna_fd vcpu_fd, struct kvm_sregs *sregs) {
  int result = call(vcpu_fd, KVM_GET_SREGS, sregs);
  if (result == 0) {
    luna_kvm_mend_sregs(sregs);
  }
  return result;
}

int luna_kvm_set_sregs(luna_fd vcpu_fd, struct kvm_sregs *sregs) {
  return call(vcpu_fd, KVM_SET_SREGS, sregs);
}

int luna_kvm_translate(luna_fd vcpu_fd, struct kvm_translation *translation) {
  return call(vcpu_fd, KVM_TRANSLATE, translation);
}

int luna_kvm_get_events(luna_fd vcpu_fd, struct kvm_vcpu_events *events) {
  return call(vcpu_fd, KVM_GET_VCPU_EVENTS, events);
}

int luna_kvm_set_events(luna_fd vcpu_fd, struct kvm_vcpu_events *events) {
  return call(vcpu_fd, KVM_SET_VCPU_EVENTS, events);
}

int luna_kvm_get_debugregs(luna_fd vcpu_fd, struct kvm_debugregs *debugregs) {
  return call(vcpu_fd, KVM_GET_DEBUGREGS, debugregs);
}

int luna_kvm_set_debugregs(luna_fd vcpu_fd, struct kvm_debugregs *debugregs) {
  return call(vcpu_fd, KVM_SET_DEBUGREGS, debugregs);
}

int luna_kvm_get_xcrs(luna_fd vcpu_fd, struct kvm_xcrs *xcrs) {
  return call(vcpu_fd, KVM_GET_XCRS, xcrs);
}

int luna_kvm_set_xcrs(luna_fd vcpu_fd, struct kvm_xcrs *xcrs) {
  return call(vcpu_fd, KVM_SET_XCRS, xcrs);
}

int luna_kvm_get_xsave(luna_fd vcpu_fd, void *xsave, uint32_t size) {
  bool large = size > sizeof(struct kvm_xsave);
  return call(vcpu_fd, large ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, xsave);
}

int luna_kvm_set_xsave(luna_fd vcpu_fd, void *xsave) {
  return call(vcpu_fd, KVM_SET_XSAVE, xsave);
}

int luna_kvm_get_msrs(luna_fd vcpu_fd, void *msrs) {
  return call(vcpu_fd, KVM_GET_MSRS, msrs);
}

int luna_kvm_set_msrs(luna_fd vcpu_fd, void *msrs) {
  return call(vcpu_fd, KVM_SET_MSRS, msrs);
}

static struct kvm_device_attr tsc_attribute(uint64_t *offset) {
  return (struct kvm_device_attr){
      .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)offset};
}

int luna_kvm_get_tsc_offset(luna_fd vcpu_fd, uint64_t *offset) {
  struct kvm_device_attr attribute = tsc_attribute(offset);
  return call(vcpu_fd, KVM_GET_DEVICE_ATTR, &attribute);
}

int luna_kvm_set_tsc_offset(luna_fd vcpu_fd, uint64_t offset) {
  struct kvm_device_attr attribute = tsc_attribute(&offset);
  return call(vcpu_fd, KVM_SET_DEVICE_ATTR, &attribute);
}

struct kvm_msr_list *luna_kvm_msr_list(luna_fd kvm_fd) {
  struct kvm_msr_list head = {0};
  call(kvm_fd, KVM_GET_MSR_INDEX_LIST, &head); /* E2BIG: `nmsrs` then says how many there are */
  struct kvm_msr_list *list = calloc(1, sizeof *list + head.nmsrs * sizeof *list->indices);
  if (list) {
    list->nmsrs = head.nmsrs;
    if (call(kvm_fd, KVM_GET_MSR_INDEX_LIST, list) != 0) {
      free(list);
      list = NULL;
    }
  }
  return list;
}

int luna_kvm_enable_cap(luna_fd vm_fd, uint32_t capability, uint64_t argument) {
  struct kvm_enable_cap enable = {.cap = capability, .args = {argument, 0, 0, 0}};
  return call(vm_fd, KVM_ENABLE_CAP, &enable);
}

int luna_kvm_get_dirty_log(luna_fd vm_fd, uint32_t slot, uint64_t *bitmap) {
  struct kvm_dirty_log log = {.slot = slot, .dirty_bitmap = bitmap};
  return call(vm_fd, KVM_GET_DIRTY_LOG, &log);
}

int luna_kvm_clear_dirty_log(luna_fd vm_fd, uint32_t slot, uint64_t first, uint64_t pages,
                             uint64_t *bitmap) {
  struct kvm_clear_dirty_log log = {
      .slot = slot, .num_pages = (uint32_t)pages, .first_page = first, .dirty_bitmap = bitmap};
  return call(vm_fd, KVM_CLEAR_DIRTY_LOG, &log);
}

int luna_kvm_reset_rings(luna_fd vm_fd) {
  return call_number(vm_fd, KVM_RESET_DIRTY_RINGS, 0);
}
