/* SPDX-License-Identifier: MIT
 * The type of a vCPU, and of the exit that the program deals with. */
#ifndef HVF_CPU_H
#define HVF_CPU_H

#include <Hypervisor/hv_intr.h>
#include <Hypervisor/hv_types.h>

#include "hvf/base/machine.h"

#include <stdatomic.h>

/* An MSR that was announced. */
typedef struct hvf_msr {
  uint32_t index;
  hv_msr_flags_t flags;
} hvf_msr;

/* A port instruction, or a string instruction that writes, as its code has it. */
typedef struct hvf_port {
  uint8_t length; /* bytes of it; 0: it is not known */
  uint8_t size;   /* of one element */
  bool in;
  bool string;
  bool repeat;
  bool loads;           /* string: RSI counts */
  bool stores;          /* string: RDI does */
  bool immediate;       /* the port's number is in the instruction */
  uint8_t address_bits; /* string: 16, 32 or 64 */
  uint8_t segment;      /* string: as the VMCS numbers them, ES 0 to GS 5 */
} hvf_port;

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
  bool wide;         /* a write of a vector, which comes in parts */
  bool linear_tried; /* of memory: `linear` is known, or cannot be */
  bool linear_known;
  uint64_t linear;
  uint8_t general;        /* VMX_REASON_MOV_CR: number of the general register */
  uint32_t apic_offset;   /* VMX_REASON_APIC_ACCESS */
  uint64_t qualification; /* of an entry that failed */
  hvf_port port;
  luna_exit seen;
  bool controlled; /* one that a control asked for: follow.c */
  bool told;       /* one of an access to memory, of which `control` tells */
  luna_control_exit control;
} hvf_exit;

enum {
  HVF_CONTROLS = 5
};

/* Fields of the VMCS that are kept as they are written: vmcs/kept.c. */
typedef enum hvf_kept {
  HVF_KEPT_EXCEPTIONS,
  HVF_KEPT_PF_MASK,
  HVF_KEPT_PF_MATCH,
  HVF_KEPT_CR3_COUNT,
  HVF_KEPT_TPR,
  HVF_KEPT_CR3_0,
  HVF_KEPT_CR3_1,
  HVF_KEPT_CR3_2,
  HVF_KEPT_CR3_3,
  HVF_KEPT_PDPTE_0,
  HVF_KEPT_PDPTE_1,
  HVF_KEPT_PDPTE_2,
  HVF_KEPT_PDPTE_3,
  HVF_KEPT_PLE_GAP,
  HVF_KEPT_PLE_WINDOW,
  HVF_KEPT_TIMER,
  HVF_KEPT /* how many there are */
} hvf_kept;

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
  uint32_t value;   /* APIC_ACCESS_READ */
  bool told;        /* the accelerator has told which vCPUs are meant: */
  uint64_t targets; /* by number */
} hvf_info;

struct hvf_vcpu {
  luna_vcpu *vcpu;
  _Atomic(hvf_vcpu *) next; /* of those that can be interrupted: reach.c */
  const luna_exit *record;  /* of its last exit in the core */
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
  uint64_t masks[2];   /* of CR0 and CR4, here and below: bits that the host owns */
  uint64_t shadows[2]; /* what the guest reads of those */
  uint64_t kept[2];    /* what the program has written to bits that KVM has not */
  uint64_t kept_fields[HVF_KEPT];
  uint64_t timer_at;   /* of the host's time-stamp counter: vmcs/timer.c */
  bool unchecked;      /* fields were written that depend on others: setup.c */
  bool pdptes_written; /* since the last entry */
  bool followed;       /* the accelerator follows controls: follow.c */
  bool stale;          /* some were written that it does not have yet */
  bool suspect;        /* registers were written that an entry can fail for: suspect.c, guest.c */
  bool flags_wrong;    /* RFLAGS was written without the bit that is always 1 */
  hvf_info info;
  hv_apic_ctrl_t apic_ctrl;
  hvf_apic_page *apic_pages;
  uint32_t apic_page_count;
  uint32_t apic_page_room;
  atomic_bool interrupted; /* hv_vcpu_interrupt */
  atomic_bool ticking;     /* it is in hv_vcpu_run: tick.c */
  atomic_bool ticked;
  bool extint; /* the program asks for an interrupt of the PICs */
};

#endif
