/* SPDX-License-Identifier: MIT
 * The kinds of fields that the VMCS has here. */
#ifndef HVF_KIND_H
#define HVF_KIND_H

#include <stdint.h>

typedef enum hvf_field_kind {
  HVF_FIELD_NONE,     /* no field has that number */
  HVF_FIELD_ABSENT,   /* KVM has nothing like it */
  HVF_FIELD_EXIT,     /* tells of the exit; read-only */
  HVF_FIELD_REGISTER, /* `number` is a luna_register */
  HVF_FIELD_CONTROL,  /* `number` is an hv_vmx_capability_t */
  HVF_FIELD_CONSTANT, /* always `value`: nothing else can be written */
  HVF_FIELD_MASK,     /* of CR0, 0, or CR4, 1: bits that the host owns */
  HVF_FIELD_SHADOW,   /* what the guest reads of those */
  HVF_FIELD_KEPT,     /* `number` is an hvf_kept, `value` has the bits that it can have */
  HVF_FIELD_EVENT,    /* VMCS_CTRL_VMENTRY_* */
  HVF_FIELD_MSR,      /* `number` is that of an MSR */
  HVF_FIELD_STATE     /* of the vCPU, by a call of its own: state_get, state_set */
} hvf_field_kind;

typedef struct hvf_field {
  hvf_field_kind kind;
  int number;
  uint64_t value;
} hvf_field;

#endif
