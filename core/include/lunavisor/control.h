/* SPDX-License-Identifier: MIT
 * Part of lunavisor.h: the controls of a virtual-machine monitor as Intel's processors have them
 * (SDM Vol. 3, chapters 25 to 28), for an accelerator that follows them: the software CPU does,
 * KVM's interface has no words for it. luna_accelerator_capability(accel, "controls", ...) says. */
#ifndef LUNAVISOR_CONTROL_H
#define LUNAVISOR_CONTROL_H
#ifndef LUNA_API
#error "a part of lunavisor.h, which is to be included"
#endif

/* What a vCPU exits for, and what it reads instead of what there is. Bits are those of the fields
 * of the VMCS (lunavisor/vmx.h); those that have nothing to do with the guest's instructions are
 * ignored. CPU_BASED2_APIC_REG_VIRT counts for INIT and SIPI alone, where the accelerator has the
 * local APICs: it delivers those that the guest's ICR sends, and behind the instruction exits as
 * VMX_REASON_APIC_WRITE with qualification 0x300. A SIPI that starts none does not exit. */
typedef struct luna_controls {
  uint32_t primary; /* processor-based */
  uint32_t secondary;
  uint32_t exceptions; /* bitmap by vector */
  uint32_t fault_mask; /* of page faults' error codes, and what the masked ones are compared with */
  uint32_t fault_match;
  uint32_t tpr_threshold;
  uint64_t cr0_mask; /* bits that the guest does not own */
  uint64_t cr0_shadow;
  uint64_t cr4_mask;
  uint64_t cr4_shadow;
  uint64_t cr3_targets[4];
  uint32_t cr3_count;
  uint32_t reserved; /* 0 */
} luna_controls;

/* What the VMCS tells of the exit. The vCPU is as before the instruction, or the event, that it is
 * for; the next run begins with what its registers say then. */
typedef struct luna_control_exit {
  uint32_t reason; /* basic exit reason: VMX_REASON_* of lunavisor/vmx.h */
  uint32_t length; /* of the instruction; 0 where it is for none */
  uint64_t qualification;
  uint64_t linear;      /* guest-linear address; of an ICR the vCPUs reached, by bit; else 0 */
  uint32_t instruction; /* VM-exit instruction information */
  uint32_t interruption;
  uint32_t interruption_error;
  uint32_t vectoring; /* IDT-vectoring information: the event that was being delivered */
  uint32_t vectoring_error;
  uint32_t reserved;
} luna_control_exit;

/* The vCPU follows the controls from its next entry on, in whatever space it is; NULL for none, as
 * it begins. CR0.NE and CR4.VMXE can be set in its registers then, and the guest cannot clear them.
 * An exit that they ask for is LUNA_EXIT_OTHER. _UNSUPPORTED where the accelerator has nothing like
 * it, _STATE while the vCPU runs on another thread. */
LUNA_API int luna_vcpu_set_controls(luna_vcpu *vcpu, const luna_controls *controls);
/* 1 with what the exit tells, if it is one of a control, or of an access to memory by a vCPU that
 * follows controls; else 0. Such an access comes before its instruction, a write too: the vCPU is
 * as before it, and the instruction runs once it is answered; luna_vcpu_retry lets it begin again,
 * whatever memory there is by then. */
LUNA_API int luna_exit_control(const luna_exit *exit, luna_control_exit *control);
/* Delivers an event at the vCPU's next entry, before its next instruction: `info` as VM-entry
 * interruption information has it, with the error code and, of a software interrupt or exception,
 * the length of its instruction. The vCPU has to follow controls (_STATE). _ARGUMENT for what is no
 * such information. */
LUNA_API int luna_vcpu_deliver(luna_vcpu *vcpu, uint32_t info, uint32_t error, uint32_t length);
/* Takes back the event `info` of luna_vcpu_deliver, luna_vcpu_interrupt_vector (without a
 * controller in KVM), luna_vcpu_nmi or luna_vcpu_inject that the guest has not begun to take, since
 * it was not entered or does not accept it: 1; 0 if it has. On any accelerator. _STATE while the
 * vCPU runs on another thread. */
LUNA_API int luna_vcpu_withdraw(luna_vcpu *vcpu, uint32_t info);
/* The vCPU's shadow VMCS (SDM Vol. 3, 25.10): where CPU_BASED2_VMCS_SHADOW is among its controls,
 * the guest's VMREAD reads, and its VMWRITE writes, a field of it without an exit if the field's
 * access (LUNA_READ, LUNA_WRITE) says so. It goes along into other spaces, and as the controls it
 * is no part of luna_vcpu_save. `field` is an encoding of 25.11.2, with an index below 64; an odd
 * one is the upper half of a 64-bit field, and has an access of its own. _ARGUMENT for another,
 * and for a value that the field cannot hold; _UNSUPPORTED where
 * luna_accelerator_capability(accel, "shadow_vmcs", ...) is 0; _STATE while the vCPU runs on
 * another thread. To begin with each field has no access, and is 0. */
LUNA_API int luna_vcpu_set_shadow_access(luna_vcpu *vcpu, uint32_t field, uint32_t access);
LUNA_API int luna_vcpu_get_shadow(luna_vcpu *vcpu, uint32_t field, uint64_t *value);
LUNA_API int luna_vcpu_set_shadow(luna_vcpu *vcpu, uint32_t field, uint64_t value);
/* Whether a VM entry would take the vCPU's registers, as the first part of luna_vcpu_check: _STATE,
 * and the message names the rule that they break. `*qualification` is that of the entry which fails
 * for it (SDM Vol. 3, 27.8): 2 for PDPTEs, else 0. On any accelerator. */
LUNA_API int luna_vcpu_check_entry(luna_vcpu *vcpu, uint64_t *qualification);

#endif
