/* SPDX-License-Identifier: MIT
 * Whether an exception of the guest becomes an exit. To the processor the IDT, the stubs and the
 * stack of the system area are linear addresses: page tables of the guest's own have to map them,
 * and the space has to have the area there (SDM Vol. 3, 6.10 to 6.14). */
#include "exit/reach.h"

#include "base/error.h"
#include "vcpu/state.h"
#include "vcpu/system.h"
#include "vcpu/vcpu.h"

#include <inttypes.h>

enum {
  CR4_SMEP = 0x100000,
  CR4_SMAP = 0x200000,
  CR0_WP = 0x10000
};

/* What the processor uses of the area on its way to a stub. */
typedef struct part {
  uint32_t offset;
  uint32_t access; /* luna_access */
  bool task;       /* only where the task register is the area's */
  const char *name;
} part;

static const part parts[] = {
    {LUNA_SYSTEM_IDT, LUNA_READ, false, "IDT"},
    {LUNA_SYSTEM_STUBS, LUNA_EXECUTE, false, "code"},
    {LUNA_SYSTEM_TSS, LUNA_READ, true, "TSS"},
    {LUNA_SYSTEM_STACK_TOP - LUNA_PAGE_SIZE, LUNA_WRITE, true, "stack"},
};

/* SDM Vol. 3, 4.6: supervisor mode; what it does here are implicit accesses. */
static bool allowed(const struct kvm_sregs *s, const luna_walk *walk, uint32_t access) {
  if (walk->user && s->cr4 & (access == LUNA_EXECUTE ? CR4_SMEP : CR4_SMAP)) {
    return false;
  }
  return walk->rights & access || (access == LUNA_WRITE && !(s->cr0 & CR0_WP));
}

static int check_tables(luna_vcpu *vcpu, const struct kvm_sregs *s, const part *p) {
  uint64_t gva = vcpu->system + p->offset;
  luna_walk walk;
  int status = luna_vcpu_translate(vcpu, gva, &walk);
  if (status != LUNA_OK && status != LUNA_ERROR_NOT_FOUND) {
    return status;
  }
  if (status == LUNA_OK && walk.present && walk.gpa == gva && allowed(s, &walk, p->access)) {
    return LUNA_OK;
  }
  bool maps = status == LUNA_OK && walk.present;
  return luna_fail(
      LUNA_ERROR_NOT_FOUND,
      "no exception of vCPU %u becomes an exit: the page tables at cr3 0x%llx %s "
      "linear address 0x%" PRIx64 ", the %s of its system area; map 0x%x bytes at 0x%" PRIx64
      " one to one, make the vCPU with its system area where they do, or point idtr to "
      "a table of the guest's",
      vcpu->id, s->cr3,
      !maps             ? "do not map"
      : walk.gpa != gva ? "lead elsewhere from"
                        : "do not give ring 0 the rights it needs at",
      gva, p->name, LUNA_SYSTEM_SIZE, vcpu->system);
}

static int check_memory(luna_vcpu *vcpu, const part *p) {
  uint64_t gpa = vcpu->system + p->offset;
  uint32_t space = luna_vcpu_space(vcpu);
  luna_region region;
  int status = luna_space_next(vcpu->vm, space, gpa, &region);
  if (status != LUNA_OK && status != LUNA_ERROR_NOT_FOUND) {
    return status;
  }
  bool ours = status == LUNA_OK && region.gpa <= gpa && region.enforced & p->access &&
              (!vcpu->system_buffer || region.buffer == vcpu->system_buffer);
  return ours
             ? LUNA_OK
             : luna_fail(LUNA_ERROR_NOT_FOUND,
                         "no exception of vCPU %u becomes an exit: space %u does not have the %s "
                         "of its system area at gpa 0x%" PRIx64 "; map its 0x%x bytes at 0x%" PRIx64
                         " there too, with all rights, or point idtr to a table of the guest's",
                         vcpu->id, space, p->name, gpa, LUNA_SYSTEM_SIZE, vcpu->system);
}

int luna_reach_check(luna_vcpu *vcpu) {
  if (vcpu->system == 0) {
    return LUNA_OK;
  }
  const struct kvm_sregs *s = luna_state_sregs(vcpu);
  if (!s) {
    return luna_error_status();
  }
  bool task = s->tr.base == vcpu->system + LUNA_SYSTEM_TSS;
  int status = LUNA_OK;
  if (s->idt.base == vcpu->system + LUNA_SYSTEM_IDT) {
    for (size_t i = 0; i < sizeof parts / sizeof *parts && status == LUNA_OK; i++) {
      if (task || !parts[i].task) {
        status = check_tables(vcpu, s, &parts[i]);
        status = status == LUNA_OK ? check_memory(vcpu, &parts[i]) : status;
      }
    }
  }
  return status;
}
