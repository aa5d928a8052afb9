/* SPDX-License-Identifier: MIT
 * What this host's kernels can do: whether a VM can be made at all, and their answers by name. */
#include "accelerator.h"
#include "base/error.h"
#include "kvm/host.h"
#include "kvm/kvm.h"
#include "stops.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>

/* Capabilities that Debian 12's headers (Linux 6.1) do not name. */
#ifndef KVM_CAP_MEMORY_FAULT_INFO
#define KVM_CAP_MEMORY_FAULT_INFO 232
#endif
#ifndef KVM_CAP_MEMORY_ATTRIBUTES
#define KVM_CAP_MEMORY_ATTRIBUTES 233
#endif
#ifndef KVM_CAP_GUEST_MEMFD
#define KVM_CAP_GUEST_MEMFD 234
#endif
#ifndef KVM_CAP_X86_APIC_BUS_CYCLES_NS
#define KVM_CAP_X86_APIC_BUS_CYCLES_NS 237
#endif

typedef struct feature {
  const char *name;
  long capability;
} feature;

/* Names as in api.rst, without KVM_CAP_, in lower case; behind them what no capability says: a
 * luna_stops_feature, below 0. */
static const feature features[] = {
    {"nr_memslots", KVM_CAP_NR_MEMSLOTS},
    {"max_vcpus", KVM_CAP_MAX_VCPUS},
    {"sync_regs", KVM_CAP_SYNC_REGS},
    {"immediate_exit", KVM_CAP_IMMEDIATE_EXIT},
    {"readonly_mem", KVM_CAP_READONLY_MEM},
    {"irqchip", KVM_CAP_IRQCHIP},
    {"split_irqchip", KVM_CAP_SPLIT_IRQCHIP},
    {"pit2", KVM_CAP_PIT2},
    {"x86_smm", KVM_CAP_X86_SMM},
    {"multi_address_space", KVM_CAP_MULTI_ADDRESS_SPACE},
    {"memory_attributes", KVM_CAP_MEMORY_ATTRIBUTES},
    {"memory_fault_info", KVM_CAP_MEMORY_FAULT_INFO},
    {"guest_memfd", KVM_CAP_GUEST_MEMFD},
    {"dirty_log_ring", KVM_CAP_DIRTY_LOG_RING},
    {"dirty_log_ring_acq_rel", KVM_CAP_DIRTY_LOG_RING_ACQ_REL},
    {"manual_dirty_log_protect2", KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2},
    {"coalesced_pio", KVM_CAP_COALESCED_PIO},
    {"ioeventfd", KVM_CAP_IOEVENTFD},
    {"irqfd", KVM_CAP_IRQFD},
    {"x86_user_space_msr", KVM_CAP_X86_USER_SPACE_MSR},
    {"x86_msr_filter", KVM_CAP_X86_MSR_FILTER},
    {"set_guest_debug", KVM_CAP_SET_GUEST_DEBUG},
    {"xsave2", KVM_CAP_XSAVE2},
    {"tsc_control", KVM_CAP_TSC_CONTROL},
    {"x86_apic_bus_cycles_ns", KVM_CAP_X86_APIC_BUS_CYCLES_NS},
    {"exit_hypercall", KVM_CAP_EXIT_HYPERCALL},
    {"hardware_breakpoints", -1 - LUNA_DEBUG_HARDWARE},
    {"watchpoints", -1 - LUNA_DEBUG_WATCH},
    {"software_breakpoints", -1 - LUNA_DEBUG_SOFTWARE},
};

enum {
  FEATURE_COUNT = sizeof features / sizeof *features
};

int luna_accelerator_probe(uint32_t accel) {
  char reason[LUNA_REASON_SIZE];
  int picked = luna_accelerator_pick(accel, reason);
  if (picked < 0) {
    return picked;
  }
  luna_fd fd = luna_kvm_open((uint32_t)picked);
  if (fd.number < 0) {
    return fd.number;
  }
  luna_fd vm_fd = luna_kvm_create_vm(fd);
  int number = errno;
  luna_kvm_close(fd);
  if (vm_fd.number < 0) {
    return luna_kvm_fail_create(number);
  }
  luna_kvm_close(vm_fd);
  return LUNA_OK;
}

int luna_probe(void) {
  return luna_accelerator_probe(LUNA_ACCEL_AUTO);
}

const char *luna_probe_name(int index) {
  return index >= 0 && index < FEATURE_COUNT ? features[index].name : NULL;
}

static int debug_value(uint32_t accel, luna_stops_feature what, uint64_t *value) {
  int answer = luna_stops_probe(accel, what);
  if (answer < 0) {
    return answer;
  }
  *value = (uint64_t)answer & (LUNA_DEBUG_REAL | LUNA_DEBUG_RING0 | LUNA_DEBUG_RING3);
  return LUNA_OK;
}

int luna_accelerator_value(uint32_t accel, int index, uint64_t *value) {
  if (index < 0 || index >= FEATURE_COUNT) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "there is no host feature %d", index);
  }
  char reason[LUNA_REASON_SIZE];
  int picked = luna_accelerator_pick(accel, reason);
  if (picked < 0) {
    return picked;
  }
  uint32_t kernel = (uint32_t)picked;
  if (features[index].capability < 0) {
    return debug_value(kernel, (luna_stops_feature)(-1 - features[index].capability), value);
  }
  luna_fd fd = luna_kvm_open(kernel);
  if (fd.number < 0) {
    return fd.number;
  }
  int answer = luna_kvm_check_extension(fd, features[index].capability);
  luna_kvm_close(fd);
  *value = answer > 0 ? (uint64_t)answer : 0;
  return LUNA_OK;
}

int luna_probe_value(int index, uint64_t *value) {
  return luna_accelerator_value(LUNA_ACCEL_AUTO, index, value);
}

static uint64_t spaces_max(void) {
  struct rlimit limit;
  return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? (uint64_t)limit.rlim_cur : 0;
}

int luna_accelerator_capability(uint32_t accel, const char *name, uint64_t *value) {
  char reason[LUNA_REASON_SIZE];
  const luna_host *host = luna_accelerator_host(accel, reason);
  if (!host) {
    return luna_error_status();
  }
  const struct {
    const char *name;
    uint64_t value;
  } limits[] = {
      {"vcpus_max", host->vcpus_max},     {"slots_max", host->slots_max},
      {"spaces_max", spaces_max()},       {"address_bits", host->address_bits},
      {"dirty_ring_max", host->ring_max}, {"xsave_size", host->xsave_size},
      {"controls", host->controls},       {"exceptions", host->exceptions},
      {"shadow_vmcs", host->shadow_vmcs},
  };
  for (size_t i = 0; name && i < sizeof limits / sizeof *limits; i++) {
    if (strcmp(name, limits[i].name) == 0) {
      *value = limits[i].value;
      return LUNA_OK;
    }
  }
  return luna_fail(LUNA_ERROR_ARGUMENT,
                   "there is no limit '%s': vcpus_max, slots_max, spaces_max, address_bits, "
                   "dirty_ring_max, xsave_size, controls, exceptions and shadow_vmcs are known",
                   name ? name : "(null)");
}

int luna_capability(const char *name, uint64_t *value) {
  return luna_accelerator_capability(LUNA_ACCEL_AUTO, name, value);
}
