/* SPDX-License-Identifier: MIT
 * Registers by number: their names, where KVM keeps each, how wide it is, reading and writing. */
#include "vcpu/register.h"

#include "base/error.h"
#include "vcpu/drop.h"
#include "vcpu/extended.h"
#include "vcpu/guard.h"
#include "vcpu/state.h"
#include "vcpu/vcpu.h"

#include <inttypes.h>
#include <string.h>

/* clang-format off */
static const char *const names[LUNA_REGISTER_COUNT] = {
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15", "rip", "rflags", "cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base",
    "gdtr.base", "gdtr.limit", "idtr.base", "idtr.limit",
    "cs.selector", "cs.base", "cs.limit", "cs.access",
    "ds.selector", "ds.base", "ds.limit", "ds.access",
    "es.selector", "es.base", "es.limit", "es.access",
    "fs.selector", "fs.base", "fs.limit", "fs.access",
    "gs.selector", "gs.base", "gs.limit", "gs.access",
    "ss.selector", "ss.base", "ss.limit", "ss.access",
    "tr.selector", "tr.base", "tr.limit", "tr.access",
    "ldtr.selector", "ldtr.base", "ldtr.limit", "ldtr.access",
    "dr0", "dr1", "dr2", "dr3", "dr6", "dr7", "xcr0",
    "fcw", "fsw", "ftw", "fop", "fip", "fdp", "mxcsr",
};
/* clang-format on */

const char *luna_register_name(int reg) {
  return reg >= 0 && reg < LUNA_REGISTER_COUNT ? names[reg] : NULL;
}

/* Where each general register lives in struct kvm_regs, which orders them otherwise. */
static const uint8_t general_offset[LUNA_GENERAL_COUNT] = {
    offsetof(struct kvm_regs, rax), offsetof(struct kvm_regs, rcx),
    offsetof(struct kvm_regs, rdx), offsetof(struct kvm_regs, rbx),
    offsetof(struct kvm_regs, rsp), offsetof(struct kvm_regs, rbp),
    offsetof(struct kvm_regs, rsi), offsetof(struct kvm_regs, rdi),
    offsetof(struct kvm_regs, r8),  offsetof(struct kvm_regs, r9),
    offsetof(struct kvm_regs, r10), offsetof(struct kvm_regs, r11),
    offsetof(struct kvm_regs, r12), offsetof(struct kvm_regs, r13),
    offsetof(struct kvm_regs, r14), offsetof(struct kvm_regs, r15),
    offsetof(struct kvm_regs, rip), offsetof(struct kvm_regs, rflags),
};

uint64_t *luna_register_place(struct kvm_regs *regs, int reg) {
  return (uint64_t *)(void *)((uint8_t *)regs + general_offset[reg]);
}

static uint64_t pack_access(const struct kvm_segment *s) {
  return (uint64_t)s->type | (uint64_t)s->s << 4 | (uint64_t)s->dpl << 5 |
         (uint64_t)s->present << 7 | (uint64_t)s->avl << 12 | (uint64_t)s->l << 13 |
         (uint64_t)s->db << 14 | (uint64_t)s->g << 15 | (uint64_t)s->unusable << 16;
}

static void unpack_access(struct kvm_segment *s, uint64_t access) {
  s->type = access & 15;
  s->s = access >> 4 & 1;
  s->dpl = access >> 5 & 3;
  s->present = access >> 7 & 1;
  s->avl = access >> 12 & 1;
  s->l = access >> 13 & 1;
  s->db = access >> 14 & 1;
  s->g = access >> 15 & 1;
  s->unusable = access >> 16 & 1;
}

static uint64_t *control(struct kvm_sregs *sregs, int reg) {
  switch (reg) {
    case LUNA_CR0:
      return (uint64_t *)&sregs->cr0;
    case LUNA_CR2:
      return (uint64_t *)&sregs->cr2;
    case LUNA_CR3:
      return (uint64_t *)&sregs->cr3;
    case LUNA_CR4:
      return (uint64_t *)&sregs->cr4;
    case LUNA_CR8:
      return (uint64_t *)&sregs->cr8;
    case LUNA_EFER:
      return (uint64_t *)&sregs->efer;
    case LUNA_APIC_BASE:
      return (uint64_t *)&sregs->apic_base;
    case LUNA_GDTR_BASE:
      return (uint64_t *)&sregs->gdt.base;
    case LUNA_IDTR_BASE:
      return (uint64_t *)&sregs->idt.base;
    default:
      return NULL;
  }
}

static struct kvm_segment *segment(struct kvm_sregs *sregs, int reg) {
  switch ((reg - LUNA_CS_SELECTOR) / 4) {
    case 0:
      return &sregs->cs;
    case 1:
      return &sregs->ds;
    case 2:
      return &sregs->es;
    case 3:
      return &sregs->fs;
    case 4:
      return &sregs->gs;
    case 5:
      return &sregs->ss;
    case 6:
      return &sregs->tr;
    default:
      return &sregs->ldt;
  }
}

enum {
  FIELD_SELECTOR,
  FIELD_BASE,
  FIELD_LIMIT,
  FIELD_ACCESS
};

static uint64_t get_system(struct kvm_sregs *sregs, int reg) {
  const uint64_t *value = control(sregs, reg);
  if (value) {
    return *value;
  }
  if (reg < LUNA_CS_SELECTOR) {
    return reg == LUNA_GDTR_LIMIT ? sregs->gdt.limit : sregs->idt.limit;
  }
  const struct kvm_segment *found = segment(sregs, reg);
  switch ((reg - LUNA_CS_SELECTOR) % 4) {
    case FIELD_SELECTOR:
      return found->selector;
    case FIELD_BASE:
      return found->base;
    case FIELD_LIMIT:
      return found->limit;
    default:
      return pack_access(found);
  }
}

/* The widest value of the registers that are narrower than 64 bits. */
static uint64_t widest(int reg) {
  if (reg == LUNA_CR8) {
    return 15;
  }
  if (reg == LUNA_GDTR_LIMIT || reg == LUNA_IDTR_LIMIT) {
    return UINT16_MAX;
  }
  if (reg < LUNA_CS_SELECTOR) {
    return UINT64_MAX;
  }
  switch ((reg - LUNA_CS_SELECTOR) % 4) {
    case FIELD_SELECTOR:
      return UINT16_MAX;
    case FIELD_BASE:
      return UINT64_MAX;
    case FIELD_LIMIT:
      return UINT32_MAX;
    default:
      return 0x1ffff;
  }
}

static void set_system(struct kvm_sregs *sregs, int reg, uint64_t value) {
  uint64_t *place = control(sregs, reg);
  if (place) {
    *place = value;
    return;
  }
  if (reg < LUNA_CS_SELECTOR) {
    *(reg == LUNA_GDTR_LIMIT ? &sregs->gdt.limit : &sregs->idt.limit) = (uint16_t)value;
    return;
  }
  struct kvm_segment *found = segment(sregs, reg);
  switch ((reg - LUNA_CS_SELECTOR) % 4) {
    case FIELD_SELECTOR:
      found->selector = (uint16_t)value;
      break;
    case FIELD_BASE:
      found->base = value;
      break;
    case FIELD_LIMIT:
      found->limit = (uint32_t)value;
      break;
    default:
      unpack_access(found, value);
  }
}

static int fail_register(int reg) {
  return luna_fail(LUNA_ERROR_ARGUMENT, "there is no register %d", reg);
}

static __attribute__((noinline)) int get_further(luna_vcpu *vcpu, int reg, uint64_t *value) {
  int status = luna_vcpu_guard(vcpu);
  if (status != LUNA_OK) {
    return status;
  }
  if (reg < 0 || reg >= LUNA_REGISTER_COUNT) {
    return fail_register(reg);
  }
  if (reg < LUNA_GENERAL_COUNT) {
    const struct kvm_regs *regs = luna_state_regs(vcpu);
    if (!regs) {
      return luna_error_status();
    }
    memcpy(value, (const uint8_t *)regs + general_offset[reg], sizeof *value);
    return LUNA_OK;
  }
  if (reg >= LUNA_DR0) {
    return luna_extended_get(vcpu, reg, value);
  }
  struct kvm_sregs *sregs = luna_state_sregs(vcpu);
  if (!sregs) {
    return luna_error_status();
  }
  *value = get_system(sregs, reg);
  return LUNA_OK;
}

/* General registers that are known are read at every exit: without a call. */
int luna_vcpu_get(luna_vcpu *vcpu, int reg, uint64_t *value) {
  bool general = reg >= 0 && reg < LUNA_GENERAL_COUNT && luna_vcpu_free(vcpu);
  if (general && vcpu->state.written >> reg & 1) {
    *value = vcpu->state.values[reg];
    return LUNA_OK;
  }
  const struct kvm_regs *regs = general ? luna_state_known_regs(vcpu) : NULL;
  if (!regs) {
    return get_further(vcpu, reg, value);
  }
  memcpy(value, (const uint8_t *)regs + general_offset[reg], sizeof *value);
  return LUNA_OK;
}

/* Neither an exit is left of where it stood, nor a shadow. */
static int set_rip(luna_vcpu *vcpu, uint64_t value) {
  uint64_t now;
  uint8_t shadow = 0;
  int status = luna_vcpu_get(vcpu, LUNA_RIP, &now);
  if (status == LUNA_OK && value != now) {
    status = luna_state_leave_shadow(vcpu, &shadow);
  }
  status = status == LUNA_OK ? luna_drop_place(vcpu) : status;
  if (status != LUNA_OK && shadow) {
    luna_state_put_shadow(vcpu, shadow);
  }
  return status;
}

int luna_vcpu_set(luna_vcpu *vcpu, int reg, uint64_t value) {
  int status = luna_vcpu_guard(vcpu);
  if (status != LUNA_OK) {
    return status;
  }
  if (reg < 0 || reg >= LUNA_REGISTER_COUNT) {
    return fail_register(reg);
  }
  if (reg < LUNA_GENERAL_COUNT) {
    status = reg == LUNA_RIP ? set_rip(vcpu, value) : LUNA_OK;
    if (status == LUNA_OK) {
      vcpu->state.values[reg] = value;
      vcpu->state.written |= 1u << reg;
    }
    return status;
  }
  if (reg >= LUNA_DR0) {
    return luna_extended_set(vcpu, reg, value);
  }
  if (value > widest(reg)) {
    return luna_fail(LUNA_ERROR_RANGE,
                     "cannot set %s to 0x%" PRIx64 ": it holds at most 0x%" PRIx64, names[reg],
                     value, widest(reg));
  }
  struct kvm_sregs *sregs = luna_state_sregs(vcpu);
  if (!sregs) {
    return luna_error_status();
  }
  set_system(sregs, reg, value);
  vcpu->state.sregs_written = true;
  return LUNA_OK;
}
