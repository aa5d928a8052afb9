/* SPDX-License-Identifier: MIT
 * The description of the host's KVM: asked when it is first wanted, kept for the process. */
#include "kvm/host.h"

#include "base/error.h"
#include "kvm/kvm.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#ifndef KVM_CAP_MEMORY_ATTRIBUTES /* Linux 6.8 */
#define KVM_CAP_MEMORY_ATTRIBUTES 233
#endif

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static luna_host host;
static bool known;
static unsigned known_of; /* the generation of the table that was asked */

/* The list's length is not known beforehand: KVM answers E2BIG until it fits. */
static struct kvm_cpuid2 *supported_cpuid(int fd) {
  for (uint32_t entries = 128; entries <= 4096; entries *= 2) {
    struct kvm_cpuid2 *cpuid = calloc(1, sizeof *cpuid + entries * sizeof(struct kvm_cpuid_entry2));
    if (!cpuid) {
      return NULL;
    }
    cpuid->nent = entries;
    if (luna_kvm_call(fd, KVM_GET_SUPPORTED_CPUID, cpuid) == 0) {
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

static int describe(int fd) {
  int slots = luna_kvm_check_extension(fd, KVM_CAP_NR_MEMSLOTS);
  int vcpus = luna_kvm_check_extension(fd, KVM_CAP_MAX_VCPUS);
  int sync_regs = luna_kvm_check_extension(fd, KVM_CAP_SYNC_REGS);
  int run_size = luna_kvm_call(fd, KVM_GET_VCPU_MMAP_SIZE, NULL);
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
  host.no_execute = attributes > 0 && (unsigned)attributes & LUNA_MEMORY_ATTRIBUTE_NX;
  host.manual_protect = luna_kvm_check_extension(fd, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) & 1;
  int page = luna_kvm_check_extension(fd, KVM_CAP_COALESCED_MMIO);
  host.coalesced_page = page > 0 && page < run_size / LUNA_PAGE_SIZE ? (uint32_t)page : 0;
  host.coalesced_pio = luna_kvm_check_extension(fd, KVM_CAP_COALESCED_PIO) > 0;
  host.msr_exits = luna_kvm_check_extension(fd, KVM_CAP_X86_USER_SPACE_MSR) > 0 &&
                   luna_kvm_check_extension(fd, KVM_CAP_X86_MSR_FILTER) > 0;
  return LUNA_OK;
}

/* Another table of calls is another host. */
static void forget(unsigned generation) {
  if (known_of != generation) {
    free(host.cpuid);
    memset(&host, 0, sizeof host);
    known = false;
    known_of = generation;
  }
}

/* Another thread of the parent may have been asking; the child has not got it. */
static void on_fork(void) {
  pthread_mutex_init(&lock, NULL);
}

static void watch_forks(void) {
  pthread_atfork(NULL, NULL, on_fork);
}

const luna_host *luna_host_get(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, watch_forks);
  pthread_mutex_lock(&lock);
  forget(luna_kvm_generation());
  if (!known) {
    int fd = luna_kvm_open();
    if (fd >= 0) {
      known = describe(fd) == LUNA_OK;
      luna_kvm_close(fd);
    }
  }
  const luna_host *answer = known ? &host : NULL;
  pthread_mutex_unlock(&lock);
  return answer;
}
