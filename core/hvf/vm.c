/* SPDX-License-Identifier: MIT
 * The one VM of the process, and its guest-physical address spaces. */
#include <Hypervisor/hv.h>

#include "hvf/base/error.h"
#include "hvf/base/process.h"
#include "hvf/base/reach.h"
#include "hvf/base/room.h"
#include "hvf/base/tick.h"
#include "hvf/exit/follow.h"
#include "hvf/intr/atpic.h"
#include "hvf/intr/ioapic.h"
#include "hvf/memory/limit.h"
#include "hvf/memory/notifier.h"
#include "hvf/state/msr.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const hv_vm_options_t known_options = HV_VM_SPECIFY_MITIGATIONS | HV_VM_MITIGATION_A_ENABLE |
                                             HV_VM_MITIGATION_B_ENABLE | HV_VM_MITIGATION_C_ENABLE |
                                             HV_VM_MITIGATION_D_ENABLE | HV_VM_MITIGATION_E_ENABLE |
                                             HV_VM_ACCEL_APIC | HV_VM_STRICT_EXEC;

hv_return_t hv_capability(hv_capability_t capability, uint64_t *value) {
  static const char *const names[] = {"vcpus_max", "spaces_max"};
  if (!value || capability > HV_CAP_ADDRSPACEMAX) {
    return hvf_fail(HV_BAD_ARGUMENT, "there is no capability %" PRIu64 ", or nowhere to put it",
                    capability);
  }
  return hvf_status(luna_capability(names[capability], value));
}

static void drop_all(void) {
  hvf_limit_drop_all();
  hvf_notifier_drop_all();
  hvf_msr_drop_all();
}

static void release(void) {
  hvf_reach_open(false);
  if (hvf_the_vm.vm) {
    luna_vm_release(hvf_the_vm.vm);
  }
  free(hvf_the_vm.vcpus);
  free(hvf_the_vm.spaces);
  hvf_the_vm.vm = NULL;
  hvf_the_vm.vcpus = NULL;
  hvf_the_vm.spaces = NULL;
  hvf_the_vm.vcpu_room = hvf_the_vm.space_room = 0;
  drop_all();
}

static hv_return_t create(hv_vm_options_t options) {
  if (hvf_the_vm.vm) {
    return hvf_fail(HV_BUSY, "this process has a VM already, and can have one");
  }
  const luna_vm_options luna_options = {
      .irqchip = options & HV_VM_ACCEL_APIC ? LUNA_IRQCHIP_SPLIT : LUNA_IRQCHIP_NONE,
      .unknown_msrs = 1,
  };
  hv_return_t result = hvf_status(luna_vm_open(&luna_options, &hvf_the_vm.vm));
  result = result == HV_SUCCESS ? hvf_msr_begin() : result;
  if (result != HV_SUCCESS) {
    release();
    return result;
  }
  hvf_the_vm.options = options;
  hvf_the_vm.follows = hvf_follow_find(luna_vm_accelerator(hvf_the_vm.vm));
  hvf_ioapic_reset();
  hvf_atpic_reset();
  hvf_reach_open(true);
  return HV_SUCCESS;
}

/* In a child after fork: the VM is the parent's. Its memory here is a copy that nobody uses. */
static void forget(void) {
  hvf_the_vm = (hvf_vm){.lock = PTHREAD_MUTEX_INITIALIZER};
  hvf_tick_forget();
  hvf_reach_forget();
  drop_all();
}

static void hold(void) {
  pthread_mutex_lock(&hvf_the_vm.lock);
}

static void follow_forks(void) {
  pthread_atfork(hold, hvf_leave, forget);
}

hv_return_t hv_vm_create(hv_vm_options_t flags) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  if (flags & ~known_options) {
    return hvf_fail(HV_BAD_ARGUMENT,
                    "cannot make a VM with the options 0x%" PRIx64 ": some are unknown", flags);
  }
  pthread_once(&once, follow_forks);
  pthread_mutex_lock(&hvf_the_vm.lock);
  hv_return_t result = create(flags);
  pthread_mutex_unlock(&hvf_the_vm.lock);
  return result;
}

static hv_vcpuid_t first_vcpu(void) {
  hv_vcpuid_t id = 0;
  while (!hvf_the_vm.vcpus[id]) {
    id++;
  }
  return id;
}

static hv_return_t destroy(void) {
  if (hvf_the_vm.vcpu_count > 0) {
    return hvf_fail(HV_BUSY, "cannot destroy the VM: it has vCPU %u; destroy it first",
                    first_vcpu());
  }
  release();
  return HV_SUCCESS;
}

hv_return_t hv_vm_destroy(void) {
  hv_return_t result = hvf_enter();
  if (result != HV_SUCCESS) {
    return result;
  }
  result = destroy();
  hvf_leave();
  return result;
}

static hv_return_t create_space(hv_vm_space_t *asid) {
  uint32_t made;
  hv_return_t result = hvf_status(luna_vm_space_create(hvf_the_vm.vm, &made));
  if (result != HV_SUCCESS) {
    return result;
  }
  if (!hvf_room((void **)&hvf_the_vm.spaces, &hvf_the_vm.space_room, made,
                sizeof *hvf_the_vm.spaces)) {
    luna_vm_space_destroy(hvf_the_vm.vm, made);
    return hvf_fail(HV_NO_RESOURCES, "no memory for a further space");
  }
  hvf_the_vm.spaces[made].made = true;
  *asid = made;
  return HV_SUCCESS;
}

hv_return_t hv_vm_space_create(hv_vm_space_t *asid) {
  hv_return_t result = hvf_enter();
  if (result != HV_SUCCESS) {
    return result;
  }
  result = asid ? create_space(asid)
                : hvf_fail(HV_BAD_ARGUMENT, "nowhere to put the number of the space");
  hvf_leave();
  return result;
}

static hv_return_t destroy_space(hv_vm_space_t asid) {
  if (asid == HV_VM_SPACE_DEFAULT || !hvf_has_space(asid)) {
    return hvf_fail(HV_BAD_ARGUMENT, "there is no space %u that can be destroyed", asid);
  }
  if (hvf_the_vm.spaces[asid].bound > 0) {
    return hvf_fail(HV_BUSY,
                    "cannot destroy space %u: vCPUs are bound to it, or were when they were "
                    "destroyed; set them back to space 0 first",
                    asid);
  }
  hv_return_t result = hvf_status(luna_vm_space_destroy(hvf_the_vm.vm, asid));
  if (result == HV_SUCCESS) {
    hvf_the_vm.spaces[asid].made = false;
    hvf_limit_drop_space(asid);
  }
  return result;
}

hv_return_t hv_vm_space_destroy(hv_vm_space_t asid) {
  hv_return_t result = hvf_enter();
  if (result != HV_SUCCESS) {
    return result;
  }
  result = destroy_space(asid);
  hvf_leave();
  return result;
}
