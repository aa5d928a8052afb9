/* SPDX-License-Identifier: MIT
 * Controls of a virtual-machine monitor, where the kernel follows them. */
#include "exit/control.h"

#include "base/error.h"
#include "kvm/host.h"
#include "kvm/kvm_control.h"
#include "vcpu/guard.h"
#include "vcpu/record.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(luna_control_exit) <= sizeof((luna_exit *)0)->data, "it comes in there");

enum {
  WORDS = sizeof(luna_control_exit) / sizeof(uint64_t),
  EVENT_KNOWN = (int)0x80000fff /* bits of VM-entry interruption information */
};

/* Seats are of one kernel, which has taken controls before: it does not fail. */
void luna_control_sit(luna_vcpu *vcpu) {
  if (vcpu->controls) {
    luna_kvm_set_controls(vcpu->fd, vcpu->controls);
  }
  if (vcpu->shadow_vmcs) {
    luna_kvm_set_shadow(vcpu->fd, vcpu->shadow_vmcs);
  }
}

void luna_control_rise(luna_vcpu *vcpu) {
  if (vcpu->controls) {
    luna_kvm_set_controls(vcpu->fd, NULL);
  }
  if (vcpu->shadow_vmcs) {
    luna_kvm_set_shadow(vcpu->fd, NULL);
  }
}

static int fail_kernel(const luna_vcpu *vcpu) {
  return luna_fail(LUNA_ERROR_UNSUPPORTED,
                   "vCPU %u cannot follow controls: KVM's interface has no words for them; a VM on "
                   "the software CPU (LUNA_ACCEL=soft) has them",
                   vcpu->id);
}

static int keep(luna_vcpu *vcpu, const luna_controls *controls) {
  if (!vcpu->controls) {
    vcpu->controls = malloc(sizeof *vcpu->controls);
    if (!vcpu->controls) {
      return luna_fail_errno(ENOMEM, "cannot set the controls of vCPU %u", vcpu->id);
    }
  }
  *vcpu->controls = *controls;
  luna_control_sit(vcpu);
  return LUNA_OK;
}

int luna_vcpu_set_controls(luna_vcpu *vcpu, const luna_controls *controls) {
  int status = luna_vcpu_guard(vcpu);
  if (status != LUNA_OK) {
    return status;
  }
  if (!controls) {
    luna_control_rise(vcpu);
    free(vcpu->controls);
    vcpu->controls = NULL;
    return LUNA_OK;
  }
  return vcpu->vm->host->controls ? keep(vcpu, controls) : fail_kernel(vcpu);
}

void luna_control_tell(luna_vcpu *vcpu, uint32_t offset) {
  vcpu->exit.data_count = WORDS;
  memcpy(vcpu->exit.data, vcpu->run->padding + offset, sizeof(luna_control_exit));
}

int luna_control_decode(luna_vcpu *vcpu) {
  if (vcpu->exit.data_count == WORDS) { /* all of these are written anew */
    vcpu->exit.data_count = 0;
  }
  luna_exit_set(vcpu, LUNA_EXIT_OTHER);
  luna_control_tell(vcpu, 0);
  return LUNA_EXIT_OTHER;
}

static bool is_access(const luna_exit *exit) {
  return exit->kind == LUNA_EXIT_MMIO || exit->kind == LUNA_EXIT_FAULT;
}

int luna_exit_control(const luna_exit *exit, luna_control_exit *control) {
  bool told = exit->kind == LUNA_EXIT_OTHER ? exit->reason == LUNA_KVM_EXIT_CONTROL
                                            : is_access(exit) && exit->data_count == WORDS;
  if (!told) {
    return 0;
  }
  memcpy(control, exit->data, sizeof *control);
  return 1;
}

int luna_vcpu_deliver(luna_vcpu *vcpu, uint32_t info, uint32_t error, uint32_t length) {
  const luna_kvm_event event = {info, error, length};
  int status = luna_vcpu_guard(vcpu);
  if (status != LUNA_OK) {
    return status;
  }
  if (!vcpu->controls) {
    return luna_fail(LUNA_ERROR_STATE, "cannot deliver an event to vCPU %u: it follows no controls",
                     vcpu->id);
  }
  return info && !(info & ~(uint32_t)EVENT_KNOWN) && luna_kvm_deliver(vcpu->fd, &event) == 0
             ? LUNA_OK
             : luna_fail(LUNA_ERROR_ARGUMENT,
                         "cannot deliver 0x%08x to vCPU %u: that is no VM-entry interruption "
                         "information",
                         info, vcpu->id);
}

/* ---- The shadow VMCS ---- */

static int make_shadow(luna_vcpu *vcpu) {
  if (vcpu->shadow_vmcs) {
    return LUNA_OK;
  }
  if (!vcpu->vm->host->shadow_vmcs) {
    return luna_fail(LUNA_ERROR_UNSUPPORTED,
                     "vCPU %u cannot have a shadow VMCS: KVM's interface has no words for it; a VM "
                     "on the software CPU (LUNA_ACCEL=soft) has them",
                     vcpu->id);
  }
  vcpu->shadow_vmcs = calloc(1, sizeof *vcpu->shadow_vmcs);
  if (!vcpu->shadow_vmcs) {
    return luna_fail_errno(ENOMEM, "cannot make the shadow VMCS of vCPU %u", vcpu->id);
  }
  luna_kvm_set_shadow(vcpu->fd, vcpu->shadow_vmcs);
  return LUNA_OK;
}

static int find_field(luna_vcpu *vcpu, uint32_t field, uint32_t *place) {
  int status = luna_vcpu_guard(vcpu);
  if (status == LUNA_OK) {
    status = make_shadow(vcpu);
  }
  if (status == LUNA_OK && !luna_shadow_place(field, place)) {
    status = luna_fail(LUNA_ERROR_ARGUMENT,
                       "the shadow VMCS of vCPU %u cannot have a field 0x%x: that is no encoding "
                       "of one with an index below %d",
                       vcpu->id, field, LUNA_SHADOW_INDICES);
  }
  return status;
}

int luna_vcpu_set_shadow_access(luna_vcpu *vcpu, uint32_t field, uint32_t access) {
  uint32_t place;
  int status = find_field(vcpu, field, &place);
  if (status == LUNA_OK && access & ~(uint32_t)(LUNA_READ | LUNA_WRITE)) {
    status = luna_fail(LUNA_ERROR_ARGUMENT,
                       "the guest of vCPU %u cannot have the access 0x%x to field 0x%x of the "
                       "shadow VMCS: LUNA_READ and LUNA_WRITE are those that there are",
                       vcpu->id, access, field);
  }
  if (status == LUNA_OK) {
    vcpu->shadow_vmcs->access[place][field & 1] = (uint8_t)access;
  }
  return status;
}

int luna_vcpu_get_shadow(luna_vcpu *vcpu, uint32_t field, uint64_t *value) {
  uint32_t place;
  int status = find_field(vcpu, field, &place);
  if (status == LUNA_OK) {
    *value = luna_shadow_get(vcpu->shadow_vmcs, field, place);
  }
  return status;
}

int luna_vcpu_set_shadow(luna_vcpu *vcpu, uint32_t field, uint64_t value) {
  uint32_t place;
  int status = find_field(vcpu, field, &place);
  if (status == LUNA_OK && value > luna_shadow_widest(field)) {
    status = luna_fail(LUNA_ERROR_ARGUMENT,
                       "field 0x%x of the shadow VMCS of vCPU %u cannot hold 0x%" PRIx64
                       ": at most 0x%" PRIx64,
                       field, vcpu->id, value, luna_shadow_widest(field));
  }
  if (status == LUNA_OK) {
    luna_shadow_set(vcpu->shadow_vmcs, field, place, value);
  }
  return status;
}
