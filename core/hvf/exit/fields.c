/* SPDX-License-Identifier: MIT
 * What the exit fields of the VMCS say (SDM Vol. 3, 28.2). */
#include "hvf/exit/fields.h"

#include <Hypervisor/hv_arch_vmx.h>

#include "hvf/base/process.h"
#include "hvf/exit/memory.h"
#include "hvf/exit/view.h"

enum {
  VALID_LINEAR = 3 << 7 /* of an EPT violation's qualification */
};

hv_return_t hvf_exit_length(hvf_vcpu *v, uint64_t *value) {
  hvf_exit *x = &v->exit;
  hv_return_t result = HV_SUCCESS;
  if (x->told) {
    result = HV_SUCCESS;
  } else if (!hvf_is_fault(v) || x->e->access == LUNA_WRITE) {
    result = hvf_view_place(v);
  } else if (x->stage == HVF_STAGE_OPEN && x->e->access == LUNA_READ) {
    result = hvf_view_take_back(v);
  }
  *value = x->length;
  return result;
}

static uint64_t port_qualification(const luna_exit *e, const hvf_port *port) {
  bool in = e->access == LUNA_READ;
  return (uint64_t)(e->size - 1) | (uint64_t)in << 3 | (uint64_t)port->string << 4 |
         (uint64_t)port->repeat << 5 | (uint64_t)port->immediate << 6 | e->address << 16;
}

/* The rights that the guest has where the access went. */
static uint64_t rights_at(const luna_exit *e) {
  luna_region region;
  bool mapped = luna_space_next(hvf_the_vm.vm, e->space, e->address, &region) == LUNA_OK &&
                region.gpa <= e->address;
  return mapped ? region.enforced : 0;
}

/* Linear accesses: a read 0, a write 1, a fetch 2 (SDM Vol. 3, table 28-6). */
static uint64_t apic_access_type(uint32_t access) {
  return access == LUNA_WRITE ? 1 : access == LUNA_EXECUTE ? 2 : 0;
}

hv_return_t hvf_exit_qualification(hvf_vcpu *v, uint64_t *value) {
  const hvf_exit *x = &v->exit;
  uint64_t linear;
  *value = x->kind == LUNA_EXIT_FAIL_ENTRY ? x->qualification : 0;
  if (x->kind == LUNA_EXIT_PIO) {
    hv_return_t result = hvf_view_place(v);
    *value = port_qualification(x->e, &x->port);
    return result;
  }
  if (x->kind == LUNA_EXIT_TPR) { /* MOV to CR8 */
    hv_return_t result = hvf_view_place(v);
    *value = 8 | (uint64_t)x->general << 8;
    return result;
  }
  if (x->reason == VMX_REASON_APIC_ACCESS) {
    *value = x->apic_offset | apic_access_type(x->e->access) << 12;
    return HV_SUCCESS;
  }
  if (hvf_is_fault(v)) {
    *value = x->e->access | rights_at(x->e) << 3;
    if (x->told) {
      *value |= x->control.qualification;
    } else if (hvf_memory_linear(v, &linear)) {
      *value |= VALID_LINEAR;
    }
  }
  return HV_SUCCESS;
}

hv_return_t hvf_exit_linear(hvf_vcpu *v, uint64_t *value) {
  if (!hvf_is_fault(v) || !hvf_memory_linear(v, value)) {
    *value = 0;
  }
  return HV_SUCCESS;
}

/* Of INS and OUTS: address size and segment (SDM Vol. 3, table 28-8). */
hv_return_t hvf_exit_instruction(hvf_vcpu *v, uint64_t *value) {
  const hvf_exit *x = &v->exit;
  hv_return_t result = x->kind == LUNA_EXIT_PIO ? hvf_view_place(v) : HV_SUCCESS;
  const hvf_port *port = &x->port;
  *value = 0;
  if (x->kind == LUNA_EXIT_PIO && port->string) {
    uint64_t size = port->address_bits / 32; /* 16, 32, 64: 0, 1, 2 */
    *value = size << 7 | (uint64_t)port->segment << 15;
  }
  return result;
}

/* Bit 31 says that the processor looked at the guest's state; otherwise the entry itself failed,
 * for the reason of VMCS_RO_INSTR_ERROR (SDM Vol. 3, 31.2 and 31.4). */
uint32_t hvf_entry_error(const hvf_vcpu *v) {
  const hvf_exit *x = &v->exit;
  bool failed = x->kind == LUNA_EXIT_FAIL_ENTRY && x->e->kind == LUNA_EXIT_FAIL_ENTRY;
  return failed && !(x->e->value & VMX_REASON_ENTRY_FAILURE) ? (uint32_t)x->e->value : 0;
}
