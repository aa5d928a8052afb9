/* SPDX-License-Identifier: MIT
 * Inside the Hypervisor framework's API: the VM of the process, its vCPUs, and the state that an
 * exit is in while the program deals with it. Built on lunavisor.h alone. */
#ifndef HVF_H
#define HVF_H

#include <Hypervisor/Hypervisor.h>

#include "lunavisor.h"

#include <pthread.h>
#include <stdatomic.h>

/* ---- error.c ---- */

/* Records the sentence for hv_ext_error_message; returns `code`. */
__attribute__((format(printf, 2, 3))) hv_return_t hvf_fail(hv_return_t code, const char *format,
                                                           ...);
/* The code for a luna_status, with its message; HV_SUCCESS for one that is no failure. */
hv_return_t hvf_status(int status);

/* ---- vm.c: the VM of the process ---- */

typedef struct hvf_vcpu hvf_vcpu;

typedef struct hvf_space {
  bool made;
  uint32_t bound; /* vCPUs that are bound to it, and those that were when they were destroyed */
} hvf_space;

typedef struct hvf_vm {
  pthread_mutex_t lock; /* over everything here; never held while a guest runs */
  luna_vm *vm;          /* NULL: there is none */
  hv_vm_options_t options;
  hvf_vcpu **vcpus; /* by id; NULL where it is free */
  uint32_t vcpu_room;
  uint32_t vcpu_count;
  hvf_space *spaces; /* by number, without the default one */
  uint32_t space_room;
} hvf_vm;

extern hvf_vm hvf_the_vm;

/* Takes the lock if there is a VM; HV_NO_DEVICE otherwise, without the lock. */
hv_return_t hvf_enter(void);
void hvf_leave(void);
/* Whether the space exists. The lock is held. */
bool hvf_has_space(hv_vm_space_t asid);
/* Makes room for index `index` in an array of `size`-byte elements, zeroed; false without
 * memory. */
bool hvf_room(void **array, uint32_t *room, uint32_t index, size_t size);

/* ---- limit.c: what HV_MEMORY_MAXPROT withholds. The lock is held. ---- */

/* Makes sure that the next call of hvf_limit_cut and hvf_limit_add finds memory. */
hv_return_t hvf_limit_reserve(void);
void hvf_limit_cut(hv_vm_space_t space, hv_gpaddr_t gpa, size_t size);
void hvf_limit_add(hv_vm_space_t space, hv_gpaddr_t gpa, size_t size, uint32_t rights);
/* The rights, of luna_access, that all of the range may have. */
uint32_t hvf_limit_rights(hv_vm_space_t space, hv_gpaddr_t gpa, size_t size);
void hvf_limit_drop_space(hv_vm_space_t space);
void hvf_limit_drop_all(void);

/* ---- notifier.c ---- */

void hvf_notifier_drop_all(void);

/* ---- msr.c: which MSRs the guest may access ---- */

typedef struct hvf_msr {
  uint32_t index;
  hv_msr_flags_t flags;
} hvf_msr;

/* Makes all MSRs exit, when the VM is made. The lock is held. */
hv_return_t hvf_msr_begin(void);
void hvf_msr_drop_all(void);
/* A vCPU comes, which may access none, or goes. The lock is held. */
hv_return_t hvf_msr_join(void);
void hvf_msr_leave(hvf_vcpu *v);
/* Does the access of the open MSR exit if the vCPU may; false if it is the program's. */
bool hvf_msr_serve(hvf_vcpu *v);

/* ---- port.c: the port instruction that exited, as its code has it ---- */

typedef struct hvf_port {
  uint8_t length; /* bytes of it; 0: it is not known */
  uint8_t size;   /* of one element */
  bool in;
  bool string;
  bool repeat;
  bool immediate;       /* the port's number is in the instruction */
  uint8_t address_bits; /* string: 16, 32 or 64 */
  uint8_t segment;      /* string: as the VMCS numbers them, ES 0 to GS 5 */
} hvf_port;

/* Where RIP stands at a port exit. */
typedef enum hvf_place {
  HVF_PLACE_UNKNOWN,
  HVF_PLACE_AT,    /* at the instruction */
  HVF_PLACE_BEHIND /* behind it */
} hvf_place;

/* Finds the port instruction of the exit around `rip`. */
hvf_place hvf_port_find(hvf_vcpu *v, const luna_exit *e, uint64_t rip, hvf_port *port);
/* The same where it is known to end at `end`; false if there is none. */
bool hvf_port_before(hvf_vcpu *v, const luna_exit *e, uint64_t end, hvf_port *port);
/* The length of a string instruction, MOVS and the like, at `rip`; 0 for any other. */
uint32_t hvf_string_length(hvf_vcpu *v, uint64_t rip);

/* ---- vcpu.c ---- */

/* What is left to do of the exit that the program looks at. */
typedef enum hvf_stage {
  HVF_STAGE_NONE,     /* nothing: registers are as the program sees them */
  HVF_STAGE_BEHIND,   /* the instruction is done but the program sees RIP at it */
  HVF_STAGE_OPEN,     /* it waits for an answer */
  HVF_STAGE_COMPLETED /* hv_ext_vcpu_complete has answered it */
} hvf_stage;

typedef struct hvf_exit {
  int kind; /* luna_exit_kind; 0: it has not run */
  uint32_t reason;
  hvf_stage stage;
  const luna_exit *e; /* of the core, or `seen` when the core has gone on */
  bool placed;        /* start, length and port are known */
  bool rip_written;
  bool rax_written;
  bool rdx_written;
  uint64_t start;  /* of the instruction */
  uint64_t length; /* of it, as the program sees it */
  uint64_t rip;    /* that the program wrote */
  uint64_t rax;
  uint64_t rdx;
  uint32_t apic_offset; /* VMX_REASON_APIC_ACCESS */
  hvf_port port;
  luna_exit seen;
} hvf_exit;

enum {
  HVF_CONTROLS = 5
};

/* Where a space has the vCPU's local APIC, if not where KVM has it. */
typedef struct hvf_apic_page {
  hv_vm_space_t space;
  uint64_t gpa;
} hvf_apic_page;

/* What hv_vcpu_exit_info tells of. */
typedef struct hvf_info {
  hv_vm_exitinfo_t code;
  uint8_t vector;   /* IOAPIC_EOI, INJECT_EXCP */
  uint32_t command; /* INIT_AP, STARTUP_AP: ICR */
  uint32_t target;
  uint32_t value; /* APIC_ACCESS_READ */
} hvf_info;

struct hvf_vcpu {
  luna_vcpu *vcpu;
  hv_vcpuid_t id;
  uint64_t owner; /* the token of hv_ext_thread_adopt, 0 of a thread of the system */
  hv_vm_space_t space;
  hv_vcpu_options_t options;
  hvf_exit exit;
  hvf_msr *msrs; /* that were announced */
  uint32_t msr_count;
  uint32_t msr_room;
  uint32_t controls[HVF_CONTROLS]; /* by hv_vmx_capability_t */
  uint32_t entry_event;            /* VMCS_CTRL_VMENTRY_IRQ_INFO */
  uint32_t entry_error;
  uint32_t entry_length;
  uint64_t shadows[2]; /* of CR0 and CR4 */
  hvf_info info;
  hv_apic_ctrl_t apic_ctrl;
  hvf_apic_page *apic_pages;
  uint32_t apic_page_count;
  uint32_t apic_page_room;
  atomic_bool interrupted; /* hv_vcpu_interrupt */
  bool extint;             /* the program asks for an interrupt of the PICs */
};

/* The vCPU, if the calling thread owns it. */
hv_return_t hvf_owned(hv_vcpuid_t id, hvf_vcpu **v);

/* ---- exit.c: registers as the program sees them, and going on ---- */

/* LUNA_* registers. A write to a general register may take the instruction back first. */
hv_return_t hvf_get(hvf_vcpu *v, int reg, uint64_t *value);
hv_return_t hvf_set(hvf_vcpu *v, int reg, uint64_t value);
/* What the exit fields of the VMCS say. */
hv_return_t hvf_exit_qualification(hvf_vcpu *v, uint64_t *value);
hv_return_t hvf_exit_length(hvf_vcpu *v, uint64_t *value);
hv_return_t hvf_exit_linear(hvf_vcpu *v, uint64_t *value);
hv_return_t hvf_exit_instruction(hvf_vcpu *v, uint64_t *value);
/* Why VMLAUNCH failed, as VMCS_RO_INSTR_ERROR has it; 0 if it did not. */
uint32_t hvf_entry_error(const hvf_vcpu *v);
/* Runs the vCPU; `deadline` as luna_vcpu_run has it. */
hv_return_t hvf_run(hvf_vcpu *v, uint64_t deadline);

/* ---- control.c ---- */

/* The bits that must be 1, and those that may be, of one of the five kinds of controls. */
void hvf_control_bits(hv_vmx_capability_t kind, uint32_t *must, uint32_t *may);
void hvf_control_reset(hvf_vcpu *v);
hv_return_t hvf_control_get(hvf_vcpu *v, hv_vmx_capability_t kind, uint64_t *value);
hv_return_t hvf_control_set(hvf_vcpu *v, hv_vmx_capability_t kind, uint64_t value);

/* ---- apic.c ---- */

/* The offset in the page of the vCPU's local APIC that the EPT violation is at; -1 for another. */
int hvf_apic_offset(const hvf_vcpu *v, const luna_exit *e);
/* Notes that the exit is a read of that register. */
hv_return_t hvf_apic_note_read(hvf_vcpu *v, uint32_t offset);
/* The end of a level interrupt: true if it is an exit for the program. */
bool hvf_apic_note_eoi(hvf_vcpu *v, uint8_t vector);

/* ---- extint.c ---- */

/* Before the vCPU is entered: gives it the interrupt that the PICs request, if it takes one. */
hv_return_t hvf_extint_offer(hvf_vcpu *v);

/* ---- intr.h ---- */

/* A VM with local APICs in KVM begins. The lock is held. */
void hvf_intr_begin(void);

/* ---- entry.c: events that the program injects ---- */

hv_return_t hvf_entry_check(uint64_t info);
/* Hands the event of VMCS_CTRL_VMENTRY_IRQ_INFO to the core. */
hv_return_t hvf_entry_inject(hvf_vcpu *v);

#endif
