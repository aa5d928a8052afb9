/* SPDX-License-Identifier: MIT
 * The state in which a new vCPU begins: the registers of each mode. */
#include "vcpu/mode.h"

#include "base/error.h"
#include "vcpu/state.h"
#include "vcpu/system.h"
#include "vcpu/vcpu.h"

#include <inttypes.h>
#include <string.h>

enum {
  CR0_PE = 1,
  CR0_MP = 2,
  CR0_ET = 0x10,
  CR0_NE = 0x20,
  CR0_WP = 0x10000,
  CR0_NW = 0x20000000,
  CR0_CD = 0x40000000,
  CR4_PAE = 0x20,
  CR4_OSFXSR = 0x200,
  CR4_OSXMMEXCPT = 0x400,
  EFER_LME = 0x100,
  EFER_LMA = 0x400,
  EFER_NX = 0x800
};
static const uint64_t cr0_pg = 0x80000000;

struct kvm_segment luna_mode_segment(uint64_t descriptor, uint16_t selector) {
  uint32_t limit = (uint32_t)((descriptor & 0xffff) | (descriptor >> 32 & 0xf0000));
  struct kvm_segment segment = {
      .base = (descriptor >> 16 & 0xffffff) | (descriptor >> 56 & 0xff) << 24,
      .selector = selector,
      .type = descriptor >> 40 & 15,
      .s = descriptor >> 44 & 1,
      .dpl = descriptor >> 45 & 3,
      .present = descriptor >> 47 & 1,
      .avl = descriptor >> 52 & 1,
      .l = descriptor >> 53 & 1,
      .db = descriptor >> 54 & 1,
      .g = descriptor >> 55 & 1,
  };
  segment.limit = segment.g ? limit << 12 | 0xfff : limit;
  return segment;
}

static struct kvm_segment from_gdt(const uint8_t *area, uint16_t selector) {
  uint64_t descriptor;
  memcpy(&descriptor, area + LUNA_SYSTEM_GDT + (selector & ~3u), sizeof descriptor);
  return luna_mode_segment(descriptor, selector);
}

static void set_data_segments(struct kvm_sregs *sregs, struct kvm_segment data) {
  sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = data;
}

static void set_real(struct kvm_sregs *sregs) {
  struct kvm_segment segment = {.limit = 0xffff, .type = 3, .present = 1, .s = 1};
  set_data_segments(sregs, segment);
  segment.type = 11;
  sregs->cs = segment;
}

/* The rest as after INIT (SDM Vol. 3, table 10-1). */
void luna_mode_sipi(struct kvm_sregs *sregs, uint8_t vector) {
  set_real(sregs);
  sregs->cs.selector = (uint16_t)(vector << 8);
  sregs->cs.base = (uint64_t)vector << 12;
  sregs->gdt = sregs->idt = (struct kvm_dtable){.limit = 0xffff};
  sregs->ldt = (struct kvm_segment){.limit = 0xffff, .type = 2, .present = 1};
  sregs->tr = (struct kvm_segment){.limit = 0xffff, .type = 11, .present = 1};
  sregs->cr0 = CR0_CD | CR0_NW | CR0_ET;
  sregs->cr2 = sregs->cr3 = sregs->cr4 = sregs->cr8 = sregs->efer = 0;
}

static void set_tables(struct kvm_sregs *sregs, uint64_t gpa) {
  sregs->gdt.base = gpa + LUNA_SYSTEM_GDT;
  sregs->gdt.limit = LUNA_GDT_LIMIT;
  sregs->idt.base = gpa + LUNA_SYSTEM_IDT;
  sregs->idt.limit = 0xfff;
}

static void set_prot32(struct kvm_sregs *sregs, const uint8_t *area, uint64_t gpa) {
  set_tables(sregs, gpa);
  sregs->idt.limit = 0x7ff;
  sregs->cs = from_gdt(area, LUNA_SELECTOR_CODE32);
  set_data_segments(sregs, from_gdt(area, LUNA_SELECTOR_DATA));
  sregs->cr0 = CR0_PE | CR0_ET | CR0_NE;
}

/* SCE stays clear: a SYSCALL raises #UD, an exit that a handler can answer. */
static void set_long(struct kvm_sregs *sregs, const uint8_t *area, uint64_t gpa, bool user) {
  set_tables(sregs, gpa);
  sregs->cs = from_gdt(area, user ? LUNA_SELECTOR_USER_CODE64 : LUNA_SELECTOR_CODE64);
  set_data_segments(sregs, from_gdt(area, user ? LUNA_SELECTOR_USER_DATA : LUNA_SELECTOR_DATA));
  sregs->tr = (struct kvm_segment){.base = gpa + LUNA_SYSTEM_TSS,
                                   .limit = LUNA_TSS_LIMIT,
                                   .selector = LUNA_SELECTOR_TSS,
                                   .type = 11,
                                   .present = 1};
  sregs->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | cr0_pg;
  sregs->cr3 = gpa + LUNA_SYSTEM_PML4;
  sregs->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT;
  sregs->efer = EFER_LME | EFER_LMA | EFER_NX;
}

int luna_mode_check(uint32_t mode) {
  return mode <= LUNA_MODE_USER64
             ? LUNA_OK
             : luna_fail(LUNA_ERROR_ARGUMENT, "cannot make a vCPU in mode %u: there is none", mode);
}

int luna_mode_set(luna_vcpu *vcpu, const luna_vcpu_options *options, const uint8_t *area) {
  if (options->mode == LUNA_MODE_RESET) {
    return LUNA_OK;
  }
  struct kvm_sregs *sregs = luna_state_sregs(vcpu);
  if (!sregs) {
    return luna_error_status();
  }
  if (options->mode == LUNA_MODE_REAL) {
    set_real(sregs);
  } else if (options->mode == LUNA_MODE_PROT32) {
    set_prot32(sregs, area, vcpu->system);
  } else {
    set_long(sregs, area, vcpu->system, options->mode == LUNA_MODE_USER64);
  }
  vcpu->state.sregs_written = true;
  luna_vcpu_set(vcpu, LUNA_RIP, options->rip);
  luna_vcpu_set(vcpu, LUNA_RSP, options->rsp);
  luna_vcpu_set(vcpu, LUNA_RFLAGS, 2);
  return LUNA_OK;
}
