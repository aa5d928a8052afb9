/* SPDX-License-Identifier: MIT
 * The description of each kernel here: asked when it is first wanted, kept for the process. */
#include "kvm/host.h"

#include "base/error.h"
#include "kvm/kvm.h"
#include "kvm/kvm_control.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#ifndef KVM_CAP_MEMORY_ATTRIBUTES /* Linux 6.8 */
#define KVM_CAP_MEMORY_ATTRIBUTES 233
#endif

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static luna_host hosts[LUNA_ACCEL_COUNT];
static bool known[LUNA_ACCEL_COUNT];
static unsigned known_of; /* the generation of the tables that were asked */

/* The list's length is not known beforehand: KVM answers E2BIG until it fits. */
static struct kvm_cpuid2 *supported_cpuid(luna_fd fd) {
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

static int refused; /* errno of a question that KVM did not answer; 0 for none */

/* What KVM says of a capability, 0 for no. */
static int ask(luna_fd fd, long capability) {
  int answer = luna_kvm_check_extension(fd, capability);
  if (answer < 0) {
    refused = errno;
  }
  return answer > 0 ? answer : 0;
}

/* The capability gives bytes. The second name is of kernels before Linux 6.1; on x86 it is the
 * same. */
static uint32_t ring_max(luna_fd fd) {
  int bytes = ask(fd, KVM_CAP_DIRTY_LOG_RING_ACQ_REL);
  bytes = bytes ? bytes : ask(fd, KVM_CAP_DIRTY_LOG_RING);
  return (uint32_t)bytes / sizeof(struct kvm_dirty_gfn);
}

static void describe_capabilities(luna_host *host, luna_fd fd) {
  int slots = ask(fd, KVM_CAP_NR_MEMSLOTS);
  int vcpus = ask(fd, KVM_CAP_MAX_VCPUS);
  host->slots_max = slots ? (uint32_t)slots : 32; /* api.rst: 32 where the capability is unknown */
  host->vcpus_max = vcpus ? (uint32_t)vcpus : 4;  /* api.rst: assume 4 */
  host->sync_regs = (uint32_t)(ask(fd, KVM_CAP_SYNC_REGS) | ask(fd, LUNA_KVM_CAP_SYNC_RIP));
  host->immediate_exit = ask(fd, KVM_CAP_IMMEDIATE_EXIT) > 0;
  int xsave = ask(fd, KVM_CAP_XSAVE2);
  host->xsave_size =
      xsave > (int)sizeof(struct kvm_xsave) ? (uint32_t)xsave : sizeof(struct kvm_xsave);
  host->ring_max = ring_max(fd);
  host->no_execute = (unsigned)ask(fd, KVM_CAP_MEMORY_ATTRIBUTES) & LUNA_MEMORY_ATTRIBUTE_NX;
  host->manual_protect = ask(fd, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) & 1;
  uint32_t page = (uint32_t)ask(fd, KVM_CAP_COALESCED_MMIO);
  host->coalesced_page = page < host->run_size / LUNA_PAGE_SIZE ? page : 0;
  host->coalesced_pio = ask(fd, KVM_CAP_COALESCED_PIO) > 0;
  host->msr_exits = ask(fd, KVM_CAP_X86_USER_SPACE_MSR) > 0 && ask(fd, KVM_CAP_X86_MSR_FILTER) > 0;
  host->irqchip = ask(fd, KVM_CAP_IRQCHIP) > 0;
  host->pit = ask(fd, KVM_CAP_PIT2) > 0;
  host->controls = ask(fd, LUNA_KVM_CAP_CONTROLS) > 0;
  host->exceptions = (uint32_t)ask(fd, LUNA_KVM_CAP_EXCEPTIONS);
  host->shadow_vmcs = ask(fd, LUNA_KVM_CAP_SHADOW_VMCS) > 0;
}

/* Whole, or nothing of it is kept: one call that fails is no answer for the process's life. */
static int describe(luna_host *host, luna_fd fd) {
  int run_size = luna_kvm_call(fd, KVM_GET_VCPU_MMAP_SIZE, NULL);
  if (run_size < (int)sizeof(struct kvm_run)) {
    return luna_fail_errno(errno, "cannot ask KVM for the size of its run page");
  }
  host->run_size = (size_t)run_size;
  refused = 0;
  describe_capabilities(host, fd);
  if (refused) {
    return luna_fail_errno(refused, "cannot ask KVM what it can do");
  }
  free(host->msrs);
  host->msrs = luna_kvm_msr_list(fd);
  if (!host->msrs) {
    return luna_fail_errno(errno, "cannot ask KVM for its list of MSRs");
  }
  host->cpuid = supported_cpuid(fd);
  if (!host->cpuid) {
    return luna_fail_errno(errno, "cannot ask KVM for the CPUID leaves it supports");
  }
  host->address_bits = address_bits(host->cpuid);
  static uint64_t last_serial;
  host->serial = ++last_serial;
  return LUNA_OK;
}

/* Other tables of calls are other hosts. */
static void forget(unsigned generation) {
  if (known_of == generation) {
    return;
  }
  for (uint32_t accel = 0; accel < LUNA_ACCEL_COUNT; accel++) {
    free(hosts[accel].cpuid);
    free(hosts[accel].msrs);
    memset(&hosts[accel], 0, sizeof hosts[accel]);
    known[accel] = false;
  }
  known_of = generation;
}

/* Another thread of the parent may have been asking; the child has not got it. */
static void on_fork(void) {
  pthread_mutex_init(&lock, NULL);
}

static void watch_forks(void) {
  pthread_atfork(NULL, NULL, on_fork);
}

bool luna_host_is_known(uint32_t accel) {
  pthread_mutex_lock(&lock);
  forget(luna_kvm_generation());
  bool answer = known[accel];
  pthread_mutex_unlock(&lock);
  return answer;
}

const luna_host *luna_host_get(uint32_t accel) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, watch_forks);
  pthread_mutex_lock(&lock);
  forget(luna_kvm_generation());
  if (!known[accel]) {
    luna_fd fd = luna_kvm_open(accel);
    if (fd.number >= 0) {
      hosts[accel].accel = accel;
      known[accel] = describe(&hosts[accel], fd) == LUNA_OK;
      luna_kvm_close(fd);
    }
  }
  const luna_host *answer = known[accel] ? &hosts[accel] : NULL;
  pthread_mutex_unlock(&lock);
  return answer;
}
