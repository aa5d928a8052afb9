/* SPDX-License-Identifier: MIT
 * Breakpoints and single steps of a vCPU: what the script asked for, and where the guest stands. */
#ifndef LUNA_DEBUG_H
#define LUNA_DEBUG_H

#include "lunavisor.h"

#include <stdbool.h>

enum {
  LUNA_DEBUG_REGISTERS = 4,
  LUNA_DR6_STEP = 0x4000
};
#define LUNA_DR6_FIXED UINT64_C(0xffff0ff0)

typedef struct luna_breakpoint {
  uint64_t gva;
  uint32_t number;
  uint32_t kind; /* luna_break_kind */
  uint32_t size;
} luna_breakpoint;

typedef struct luna_patch luna_patch;

typedef struct luna_debug {
  luna_breakpoint *points[LUNA_DEBUG_REGISTERS]; /* by debug register; NULL where it is free */
  luna_breakpoint **software;                    /* by gva */
  luna_patch **patches;                          /* what is in guest memory while the guest runs */
  uint32_t software_count;
  uint32_t software_room; /* of software and patches */
  uint32_t patch_count;
  uint32_t last_number;
  bool catches;      /* the guest's own INT3 is an exit */
  bool step;         /* one instruction is to be run */
  bool over;         /* the one at a breakpoint is run first, which nobody gets to see */
  bool standing;     /* the guest stands at `stood`, and the script has been told */
  bool guest_traps;  /* the guest itself has RFLAGS.TF set, before the step under way */
  bool next_traps;   /* and behind it */
  bool pushes;       /* the step is a PUSHF */
  bool delivers;     /* an exception or interrupt may go before it */
  uint16_t start_cs; /* where the step under way begins */
  uint64_t start_rip;
  uint64_t stood;
  uint64_t start; /* of the step under way */
} luna_debug;

/* For a vCPU with LUNA_ATTEND_DEBUG. Before the entry: 0, the kind of an exit that comes instead,
 * or a negative status. */
int luna_debug_entry(luna_vcpu *vcpu);
void luna_debug_leave(luna_vcpu *vcpu);
/* It has another seat, which has not been told, or still has what an earlier stay left. */
void luna_debug_sit(luna_vcpu *vcpu);
/* An instruction that waits for KVM to finish its access: that is the step. As luna_debug_entry. */
int luna_debug_finish(luna_vcpu *vcpu);
/* The linear address of the next instruction. */
int luna_debug_locate(luna_vcpu *vcpu, uint64_t *gva);

#endif
