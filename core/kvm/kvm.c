/* SPDX-License-Identifier: MIT
 * The table of system calls, the typed functions over it and the description of the host. */
#include "kvm/kvm.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/* KVM_SET_MEMORY_ATTRIBUTES is of Linux 6.8; the attributes for read, write and execute are
 * proposed and in no release yet. Where a kernel offers them, this is their form: a set bit takes a
 * right away. */
#ifndef KVM_CAP_MEMORY_ATTRIBUTES
#define KVM_CAP_MEMORY_ATTRIBUTES 233
#endif
typedef struct memory_attributes {
  uint64_t address;
  uint64_t size;
  uint64_t attributes;
  uint64_t flags;
} memory_attributes;
static const unsigned long set_memory_attributes = _IOW(KVMIO, 0xd2, memory_attributes);
static const uint64_t attribute_nx = 1 << 2;

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
static const luna_kvm_table *kvm = &real_table;

static pthread_mutex_t host_lock = PTHREAD_MUTEX_INITIALIZER;
static luna_host host;
static bool host_known;

void luna_kvm_replace(const luna_kvm_table *table) {
  pthread_mutex_lock(&host_lock);
  kvm = table ? table : &real_table;
  free(host.cpuid);
  memset(&host, 0, sizeof host);
  host_known = false;
  pthread_mutex_unlock(&host_lock);
}

int luna_kvm_call(int fd, unsigned long request, const void *argument) {
  return kvm->ioctl(fd, request, (void *)(uintptr_t)argument);
}

static int call(int fd, unsigned long request, const void *argument) {
  return luna_kvm_call(fd, request, argument);
}

static int call_number(int fd, unsigned long request, unsigned long number) {
  return kvm->ioctl(fd, request, (void *)(uintptr_t)number);
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

int luna_kvm_open(void) {
  const char *path = luna_kvm_device();
  int fd = kvm->open(path);
  if (fd < 0) {
    return fail_open(path, errno);
  }
  int version = call_number(fd, KVM_GET_API_VERSION, 0);
  if (version != KVM_API_VERSION) {
    kvm->close(fd);
    return luna_fail(LUNA_ERROR_NO_KVM, "%s is not a KVM device: its API version is %d, not %d",
                     path, version, KVM_API_VERSION);
  }
  return fd;
}

void luna_kvm_close(int fd) {
  kvm->close(fd);
}

/* The list's length is not known beforehand: KVM answers E2BIG until it fits. */
static struct kvm_cpuid2 *supported_cpuid(int fd) {
  for (uint32_t entries = 128; entries <= 4096; entries *= 2) {
    struct kvm_cpuid2 *cpuid = calloc(1, sizeof *cpuid + entries * sizeof(struct kvm_cpuid_entry2));
    if (!cpuid) {
      return NULL;
    }
    cpuid->nent = entries;
    if (call(fd, KVM_GET_SUPPORTED_CPUID, cpuid) == 0) {
      return cpuid;
    }
    int number = errno;
    free(cpuid);
    if (number != E2BIG) {
      errno = number;
      return NULL;
    }
  }
  return NULL;
}

/* CPUID leaf 0x80000008: EAX bits 7:0 are the physical address width, bits 23:16, where not 0, the
 * guest's. */
static unsigned address_bits(const struct kvm_cpuid2 *cpuid) {
  for (uint32_t i = 0; i < cpuid->nent; i++) {
    if (cpuid->entries[i].function == 0x80000008) {
      uint32_t eax = cpuid->entries[i].eax;
      unsigned guest = eax >> 16 & 0xff;
      return guest ? guest : eax & 0xff;
    }
  }
  return 36;
}

/* The capability gives bytes. The second name is of kernels before Linux 6.1; on x86 it is the
 * same. */
static uint32_t ring_max(int fd) {
  int bytes = luna_kvm_check_extension(fd, KVM_CAP_DIRTY_LOG_RING_ACQ_REL);
  if (bytes <= 0) {
    bytes = luna_kvm_check_extension(fd, KVM_CAP_DIRTY_LOG_RING);
  }
  return bytes > 0 ? (uint32_t)bytes / sizeof(struct kvm_dirty_gfn) : 0;
}

static int describe_host(int fd) {
  int slots = luna_kvm_check_extension(fd, KVM_CAP_NR_MEMSLOTS);
  int vcpus = luna_kvm_check_extension(fd, KVM_CAP_MAX_VCPUS);
  int sync_regs = luna_kvm_check_extension(fd, KVM_CAP_SYNC_REGS);
  int run_size = call_number(fd, KVM_GET_VCPU_MMAP_SIZE, 0);
  if (run_size < (int)sizeof(struct kvm_run)) {
    return luna_fail_errno(errno, "cannot ask KVM for the size of its run page");
  }
  host.cpuid = supported_cpuid(fd);
  if (!host.cpuid) {
    return luna_fail_errno(errno, "cannot ask KVM for the CPUID leaves it supports");
  }
  static uint64_t last_serial;
  host.serial = ++last_serial;
  host.slots_max =
      slots > 0 ? (uint32_t)slots : 32; /* api.rst: 32 where the capability is unknown */
  host.vcpus_max = vcpus > 0 ? (uint32_t)vcpus : 4; /* api.rst: assume 4 */
  host.sync_regs = sync_regs > 0 ? (uint32_t)sync_regs : 0;
  host.immediate_exit = luna_kvm_check_extension(fd, KVM_CAP_IMMEDIATE_EXIT) > 0;
  host.run_size = (size_t)run_size;
  host.address_bits = address_bits(host.cpuid);
  int xsave = luna_kvm_check_extension(fd, KVM_CAP_XSAVE2);
  host.xsave_size =
      xsave > (int)sizeof(struct kvm_xsave) ? (uint32_t)xsave : sizeof(struct kvm_xsave);
  host.ring_max = ring_max(fd);
  int attributes = luna_kvm_check_extension(fd, KVM_CAP_MEMORY_ATTRIBUTES);
  host.no_execute = attributes > 0 && (uint64_t)attributes & attribute_nx;
  host.manual_protect = luna_kvm_check_extension(fd, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) & 1;
  int page = luna_kvm_check_extension(fd, KVM_CAP_COALESCED_MMIO);
  host.coalesced_page = page > 0 && page < run_size / LUNA_PAGE_SIZE ? (uint32_t)page : 0;
  host.coalesced_pio = luna_kvm_check_extension(fd, KVM_CAP_COALESCED_PIO) > 0;
  host.msr_exits = luna_kvm_check_extension(fd, KVM_CAP_X86_USER_SPACE_MSR) > 0 &&
                   luna_kvm_check_extension(fd, KVM_CAP_X86_MSR_FILTER) > 0;
  return LUNA_OK;
}

const luna_host *luna_host_get(void) {
  pthread_mutex_lock(&host_lock);
  if (!host_known) {
    int fd = luna_kvm_open();
    if (fd >= 0) {
      host_known = describe_host(fd) == LUNA_OK;
      kvm->close(fd);
    }
  }
  const luna_host *known = host_known ? &host : NULL;
  pthread_mutex_unlock(&host_lock);
  return known;
}

int luna_kvm_check_extension(int fd, long capability) {
  return call_number(fd, KVM_CHECK_EXTENSION, (unsigned long)capability);
}

int luna_kvm_create_vm(int kvm_fd) {
  luna_error_watch_fork();
  int fd;
  do { /* a signal can interrupt the allocations inside */
    fd = call_number(kvm_fd, KVM_CREATE_VM, 0);
  } while (fd < 0 && errno == EINTR);
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

int luna_kvm_set_tss_address(int vm_fd, uint64_t gpa) {
  return call_number(vm_fd, KVM_SET_TSS_ADDR, gpa);
}

int luna_kvm_set_identity_map_address(int vm_fd, uint64_t gpa) {
  return call(vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &gpa);
}

int luna_kvm_set_region(int vm_fd, const struct kvm_userspace_memory_region *region) {
  return call(vm_fd, KVM_SET_USER_MEMORY_REGION, region);
}

int luna_kvm_set_no_execute(int vm_fd, uint64_t gpa, uint64_t size, bool on) {
  const memory_attributes change = {
      .address = gpa, .size = size, .attributes = on ? attribute_nx : 0};
  return call(vm_fd, set_memory_attributes, &change);
}

int luna_kvm_create_vcpu(int vm_fd, uint32_t id) {
  return call_number(vm_fd, KVM_CREATE_VCPU, id);
}

void *luna_kvm_map(int vcpu_fd, size_t size, off_t offset) {
  void *address = kvm->map(size, vcpu_fd, offset);
  return address == MAP_FAILED ? NULL : address;
}

void luna_kvm_unmap(void *address, size_t size) {
  kvm->unmap(address, size);
}

int luna_kvm_run(int vcpu_fd) {
  return call_number(vcpu_fd, KVM_RUN, 0);
}

int luna_kvm_set_cpuid(int vcpu_fd, struct kvm_cpuid2 *cpuid) {
  return call(vcpu_fd, KVM_SET_CPUID2, cpuid);
}

int luna_kvm_get_regs(int vcpu_fd, struct kvm_regs *regs) {
  return call(vcpu_fd, KVM_GET_REGS, regs);
}

int luna_kvm_set_regs(int vcpu_fd, struct kvm_regs *regs) {
  return call(vcpu_fd, KVM_SET_REGS, regs);
}

int luna_kvm_get_sregs(int vcpu_fd, struct kvm_sregs *sregs) {
  return call(vcpu_fd, KVM_GET_SREGS, sregs);
}

int luna_kvm_set_sregs(int vcpu_fd, struct kvm_sregs *sregs) {
  return call(vcpu_fd, KVM_SET_SREGS, sregs);
}

int luna_kvm_translate(int vcpu_fd, struct kvm_translation *translation) {
  return call(vcpu_fd, KVM_TRANSLATE, translation);
}

int luna_kvm_get_events(int vcpu_fd, struct kvm_vcpu_events *events) {
  return call(vcpu_fd, KVM_GET_VCPU_EVENTS, events);
}

int luna_kvm_set_events(int vcpu_fd, struct kvm_vcpu_events *events) {
  return call(vcpu_fd, KVM_SET_VCPU_EVENTS, events);
}

int luna_kvm_get_debugregs(int vcpu_fd, struct kvm_debugregs *debugregs) {
  return call(vcpu_fd, KVM_GET_DEBUGREGS, debugregs);
}

int luna_kvm_set_debugregs(int vcpu_fd, struct kvm_debugregs *debugregs) {
  return call(vcpu_fd, KVM_SET_DEBUGREGS, debugregs);
}

int luna_kvm_get_xcrs(int vcpu_fd, struct kvm_xcrs *xcrs) {
  return call(vcpu_fd, KVM_GET_XCRS, xcrs);
}

int luna_kvm_set_xcrs(int vcpu_fd, struct kvm_xcrs *xcrs) {
  return call(vcpu_fd, KVM_SET_XCRS, xcrs);
}

int luna_kvm_get_xsave(int vcpu_fd, void *xsave, uint32_t size) {
  bool large = size > sizeof(struct kvm_xsave);
  return call(vcpu_fd, large ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, xsave);
}

int luna_kvm_set_xsave(int vcpu_fd, void *xsave) {
  return call(vcpu_fd, KVM_SET_XSAVE, xsave);
}

int luna_kvm_get_msrs(int vcpu_fd, void *msrs) {
  return call(vcpu_fd, KVM_GET_MSRS, msrs);
}

int luna_kvm_set_msrs(int vcpu_fd, void *msrs) {
  return call(vcpu_fd, KVM_SET_MSRS, msrs);
}

static struct kvm_device_attr tsc_attribute(uint64_t *offset) {
  return (struct kvm_device_attr){
      .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)offset};
}

int luna_kvm_get_tsc_offset(int vcpu_fd, uint64_t *offset) {
  struct kvm_device_attr attribute = tsc_attribute(offset);
  return call(vcpu_fd, KVM_GET_DEVICE_ATTR, &attribute);
}

int luna_kvm_set_tsc_offset(int vcpu_fd, uint64_t offset) {
  struct kvm_device_attr attribute = tsc_attribute(&offset);
  return call(vcpu_fd, KVM_SET_DEVICE_ATTR, &attribute);
}

struct kvm_msr_list *luna_kvm_msr_list(int kvm_fd) {
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

int luna_kvm_enable_cap(int vm_fd, uint32_t capability, uint64_t argument) {
  struct kvm_enable_cap enable = {.cap = capability, .args = {argument, 0, 0, 0}};
  return call(vm_fd, KVM_ENABLE_CAP, &enable);
}

int luna_kvm_get_dirty_log(int vm_fd, uint32_t slot, uint64_t *bitmap) {
  struct kvm_dirty_log log = {.slot = slot, .dirty_bitmap = bitmap};
  return call(vm_fd, KVM_GET_DIRTY_LOG, &log);
}

int luna_kvm_clear_dirty_log(int vm_fd, uint32_t slot, uint64_t pages, uint64_t *bitmap) {
  struct kvm_clear_dirty_log log = {
      .slot = slot, .num_pages = (uint32_t)pages, .dirty_bitmap = bitmap};
  return call(vm_fd, KVM_CLEAR_DIRTY_LOG, &log);
}

int luna_kvm_reset_rings(int vm_fd) {
  return call_number(vm_fd, KVM_RESET_DIRTY_RINGS, 0);
}
