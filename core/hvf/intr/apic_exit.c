/* SPDX-License-Identifier: MIT
 * Where a vCPU's local APIC is, and what there is to know of an exit that has to do with it. */
#include "hvf/intr/apic_exit.h"

#include <Hypervisor/hv_intr.h>
#include <Hypervisor/hv_vmx.h>

#include "hvf/base/error.h"
#include "hvf/base/owner.h"
#include "hvf/base/process.h"
#include "hvf/base/room.h"
#include "hvf/intr/accelerated.h"
#include "hvf/intr/apic.h"
#include "hvf/intr/registers.h"

#include <inttypes.h>

/* ---- Where it is ---- */

static const hvf_apic_page *page_of(const hvf_vcpu *v, hv_vm_space_t space) {
  for (uint32_t i = 0; i < v->apic_page_count; i++) {
    if (v->apic_pages[i].space == space) {
      return &v->apic_pages[i];
    }
  }
  return NULL;
}

int hvf_apic_offset(const hvf_vcpu *v, const luna_exit *e) {
  const hvf_apic_page *page = v->apic_page_count ? page_of(v, e->space) : NULL;
  return page && e->address >= page->gpa && e->address - page->gpa < LUNA_PAGE_SIZE
             ? (int)(e->address - page->gpa)
             : -1;
}

/* A register is the first word of its 16 bytes. */
hv_return_t hvf_apic_note_read(hvf_vcpu *v, uint32_t offset) {
  uint32_t value = 0;
  int status = offset < LUNA_APIC_SIZE
                   ? luna_vcpu_read_apic(v->vcpu, offset & ~(uint32_t)(STRIDE - 1), &value)
                   : LUNA_OK;
  v->info = (hvf_info){.code = HV_VM_EXITINFO_APIC_ACCESS_READ, .value = value};
  return hvf_status(status);
}

static hv_return_t set_page(hvf_vcpu *v, hv_vm_space_t asid, uint64_t gpa) {
  hvf_apic_page *page = (hvf_apic_page *)page_of(v, asid);
  if (!page) {
    if (!hvf_room((void **)&v->apic_pages, &v->apic_page_room, v->apic_page_count,
                  sizeof *v->apic_pages)) {
      return hvf_fail(HV_NO_RESOURCES, "no memory for the place of a local APIC");
    }
    page = &v->apic_pages[v->apic_page_count++];
  }
  *page = (hvf_apic_page){asid, gpa};
  return HV_SUCCESS;
}

static hv_return_t set_base(hvf_vcpu *v, uint64_t gpa) {
  uint64_t base;
  hv_return_t result = hvf_status(luna_vcpu_get(v->vcpu, LUNA_APIC_BASE, &base));
  return result == HV_SUCCESS
             ? hvf_status(luna_vcpu_set(v->vcpu, LUNA_APIC_BASE, (base & ~HVF_APIC_ADDRESS) | gpa))
             : result;
}

static bool has_space(hv_vm_space_t asid) {
  pthread_mutex_lock(&hvf_the_vm.lock);
  bool has = hvf_has_space(asid);
  pthread_mutex_unlock(&hvf_the_vm.lock);
  return has;
}

hv_return_t hv_vmx_vcpu_set_apic_address_space(hv_vcpuid_t vcpu, hv_vm_space_t asid,
                                               hv_gpaddr_t gpa) {
  hvf_vcpu *v;
  hv_return_t result = hvf_owned(vcpu, &v);
  if (result != HV_SUCCESS) {
    return result;
  }
  if (!has_space(asid)) {
    return hvf_fail(HV_BAD_ARGUMENT, "there is no space %u", asid);
  }
  if (gpa & ~HVF_APIC_ADDRESS) {
    return hvf_fail(HV_BAD_ARGUMENT,
                    "no local APIC is at gpa 0x%" PRIx64 ": a multiple of 4096 below 2^52 expected",
                    gpa);
  }
  bool kvm = hvf_the_vm.options & HV_VM_ACCEL_APIC && asid == HV_VM_SPACE_DEFAULT;
  return kvm ? set_base(v, gpa) : set_page(v, asid, gpa);
}

hv_return_t hv_vmx_vcpu_set_apic_address(hv_vcpuid_t vcpu, hv_gpaddr_t gpa) {
  return hv_vmx_vcpu_set_apic_address_space(vcpu, HV_VM_SPACE_DEFAULT, gpa);
}

/* ---- What there is to know of the last exit ---- */

hv_return_t hv_vcpu_exit_info(hv_vcpuid_t vcpu, hv_vm_exitinfo_t *code) {
  hvf_vcpu *v;
  hv_return_t result = hvf_owned(vcpu, &v);
  if (result != HV_SUCCESS) {
    return result;
  }
  if (!code) {
    return hvf_fail(HV_BAD_ARGUMENT, "nowhere to put the kind of exit");
  }
  *code = v->info.code;
  return HV_SUCCESS;
}

/* The vCPU, if its last exit was of the kind and there is a place for the details. */
static hv_return_t check_info(hv_vcpuid_t vcpu, hv_vm_exitinfo_t code, bool place, hvf_vcpu **v) {
  hv_return_t result = hvf_owned_accelerated(vcpu, v);
  if (result != HV_SUCCESS) {
    return result;
  }
  if (!place) {
    return hvf_fail(HV_BAD_ARGUMENT, "nowhere to put the details of the exit");
  }
  return (*v)->info.code == code
             ? HV_SUCCESS
             : hvf_fail(HV_ERROR,
                        "there is no such information about the last exit or APIC write of vCPU "
                        "%u: it is of kind %u, not %u",
                        vcpu, (*v)->info.code, code);
}

static void fill_targets(const hvf_vcpu *v, bool *is_actv, unsigned int count) {
  pthread_mutex_lock(&hvf_the_vm.lock);
  for (unsigned int id = 0; id < count; id++) {
    bool exists = id < hvf_the_vm.vcpu_room && hvf_the_vm.vcpus[id];
    is_actv[id] =
        exists && (v->info.told ? id < 64 && v->info.targets >> id & 1
                                : hvf_apic_goes_to(v, v->info.command, v->info.target, id));
  }
  pthread_mutex_unlock(&hvf_the_vm.lock);
}

hv_return_t hv_vcpu_exit_init_ap(hv_vcpuid_t vcpu, bool is_actv[], unsigned int count) {
  hvf_vcpu *v;
  hv_return_t result = check_info(vcpu, HV_VM_EXITINFO_INIT_AP, is_actv, &v);
  if (result == HV_SUCCESS) {
    fill_targets(v, is_actv, count);
  }
  return result;
}

hv_return_t hv_vcpu_exit_startup_ap(hv_vcpuid_t vcpu, bool is_actv[], unsigned int count,
                                    uint64_t *ap_rip) {
  hvf_vcpu *v;
  hv_return_t result = check_info(vcpu, HV_VM_EXITINFO_STARTUP_AP, is_actv && ap_rip, &v);
  if (result == HV_SUCCESS) {
    fill_targets(v, is_actv, count);
    *ap_rip = (uint64_t)(v->info.command & 0xff) << 12;
  }
  return result;
}

hv_return_t hv_vcpu_exit_ioapic_eoi(hv_vcpuid_t vcpu, uint8_t *vec) {
  hvf_vcpu *v;
  hv_return_t result = check_info(vcpu, HV_VM_EXITINFO_IOAPIC_EOI, vec, &v);
  if (result == HV_SUCCESS) {
    *vec = v->info.vector;
  }
  return result;
}

hv_return_t hv_vcpu_exit_apic_access_read(hv_vcpuid_t vcpu, uint32_t *value) {
  hvf_vcpu *v;
  hv_return_t result = check_info(vcpu, HV_VM_EXITINFO_APIC_ACCESS_READ, value, &v);
  if (result == HV_SUCCESS) {
    *value = v->info.value;
  }
  return result;
}

hv_return_t hv_vcpu_exit_inject_excp(hv_vcpuid_t vcpu, uint8_t *vec, bool *valid, uint32_t *code,
                                     bool *restart) {
  hvf_vcpu *v;
  hv_return_t result =
      check_info(vcpu, HV_VM_EXITINFO_INJECT_EXCP, vec && valid && code && restart, &v);
  if (result == HV_SUCCESS) {
    *vec = v->info.vector;
    *valid = true; /* #GP with error code 0, at the instruction */
    *code = 0;
    *restart = true;
  }
  return result;
}
