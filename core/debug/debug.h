/* SPDX-License-Identifier: MIT
 * Breakpoints and single steps of a vCPU: what the script asked for, and where the guest stands. */
#ifndef LUNA_DEBUG_H
#define LUNA_DEBUG_H

#include "vcpu/vcpu.h"

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
  luna_breakpoint **software;
  luna_patch **patches; /* what is in guest memory while the guest runs */
  uint32_t software_count;
  uint32_t software_room; /* of software and patches */
  uint32_t patch_count;
  uint32_t last_number;
  bool step;        /* one instruction is to be run */
  bool over;        /* the one at a breakpoint is run first, which nobody gets to see */
  bool standing;    /* the guest stands at `stood`, and the script has been told */
  bool guest_traps; /* the guest itself has RFLAGS.TF set */
  uint64_t stood;
  uint64_t start; /* of the step under way */
} luna_debug;

/* debug.c: vcpu.c's hooks, for a vCPU with LUNA_ATTEND_DEBUG. Before the entry: 0, the kind of an
 * exit that comes instead, or a negative status. */
int luna_debug_entry(luna_vcpu *vcpu);
void luna_debug_leave(luna_vcpu *vcpu);
/* It has another seat, which has not been told, or still has what an earlier stay left. */
void luna_debug_sit(luna_vcpu *vcpu);

/* debug_exit.c, for exit.c. KVM_EXIT_DEBUG: the kind, or 0 where the guest goes on. */
int luna_debug_exit(luna_vcpu *vcpu);
/* Whether the instruction that KVM could not emulate is one of our INT3: then it is a debug exit,
 * LUNA_EXIT_DEBUG; else 0. */
int luna_debug_internal(luna_vcpu *vcpu);
/* For exception.c: an exception has arrived at a stub of the system area, and the registers are as
 * at the instruction. LUNA_EXIT_EXCEPTION where it is the guest's own, LUNA_EXIT_DEBUG where it is
 * ours, 0 where the guest goes on. */
int luna_debug_exception(luna_vcpu *vcpu, int vector);

/* debug.c: the linear address of the next instruction. */
int luna_debug_locate(luna_vcpu *vcpu, uint64_t *gva);
/* debug_exit.c: the exit at a breakpoint, or behind a single step with number 0. */
int luna_debug_report(luna_vcpu *vcpu, uint32_t number, uint64_t gva, uint64_t dr6);

/* breakpoint.c. Makes vcpu->debug, if there is none. */
int luna_debug_open(luna_vcpu *vcpu);
/* Makes the next entries ask for luna_debug_entry. */
void luna_debug_attend(luna_vcpu *vcpu);
/* Whether a breakpoint is on the instruction at the address. */
bool luna_debug_breaks_before(const luna_debug *debug, uint64_t gva);
void luna_debug_end(luna_vcpu *vcpu);
/* Sets a breakpoint without asking whether the guest would stop there. */
int luna_debug_add(luna_vcpu *vcpu, int kind, uint64_t gva, uint32_t size, uint32_t *breakpoint);

/* software.c: INT3 in guest memory. All of a vCPU's, before it enters and after it has left. */
int luna_software_insert(luna_vcpu *vcpu);
void luna_software_remove(luna_vcpu *vcpu);
/* The breakpoint at the address, or NULL. */
const luna_breakpoint *luna_software_at(const luna_debug *debug, uint64_t gva);
/* _UNSUPPORTED if the address leads to memory that nothing may be written to. */
int luna_software_check(luna_vcpu *vcpu, uint64_t gva);
/* The guest-physical address that code at a linear address is read from, as KVM's registers say;
 * false if it leads nowhere. */
bool luna_software_translate(luna_vcpu *vcpu, uint64_t gva, uint64_t *gpa);
/* Reads guest memory at a linear address, up to the end of its page: how many bytes. */
size_t luna_software_read(luna_vcpu *vcpu, uint64_t gva, uint8_t *bytes, size_t size);

/* debug_probe.c: where this host's KVM stops a guest. */
typedef enum luna_debug_feature {
  LUNA_DEBUG_HARDWARE, /* breakpoints in debug registers */
  LUNA_DEBUG_WATCH,    /* watchpoints there */
  LUNA_DEBUG_SOFTWARE,
  LUNA_DEBUG_FEATURES
} luna_debug_feature;

/* A bit each. */
enum {
  LUNA_DEBUG_REAL = 1,  /* in real mode */
  LUNA_DEBUG_RING0 = 2, /* in protected and long mode outside of ring 3 */
  LUNA_DEBUG_RING3 = 4,
  LUNA_DEBUG_AREA = 8 /* shifted left by one of the above: only through the system area */
};

/* The bits, found out with a guest of the library's own, once a process. Negative on failure. */
int luna_debug_probe(luna_debug_feature feature);
/* Refuses a kind of breakpoint at which the vCPU, as it is now, would not stop. */
int luna_debug_check(luna_vcpu *vcpu, int kind);

#endif
