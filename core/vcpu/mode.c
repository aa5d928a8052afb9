/* SPDX-License-Identifier: MIT
 * The state in which a new vCPU begins, and the place of its system area. */
#include "vcpu/system.h"

#include "memory/buffer.h"
#include "base/error.h"

#include <inttypes.h>
#include <string.h>

/* Below the IOAPIC at 0xfec00000 and the LAPIC at 0xfee00000. */
static const uint64_t system_ceiling = 0xfec00000;

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

struct kvm_segment luna_system_segment(uint64_t descriptor, uint16_t selector) {
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
  return luna_system_segment(descriptor, selector);
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

/* The first address that something takes of [gpa, gpa + LUNA_SYSTEM_SIZE); UINT64_MAX if it is
 * free. */
static uint64_t taken(luna_vm *vm, const luna_space *space, uint64_t gpa) {
  uint64_t first = UINT64_MAX;
  pthread_rwlock_rdlock(&vm->lock);
  const luna_range *found[] = {luna_range_from(&space->regions, gpa),
                               luna_range_from(&vm->traps.ranges[LUNA_TRAP_MMIO], gpa)};
  for (int i = 0; i < 2; i++) {
    if (found[i] && found[i]->first < gpa + LUNA_SYSTEM_SIZE && found[i]->first < first) {
      first = found[i]->first;
    }
  }
  pthread_rwlock_unlock(&vm->lock);
  return first;
}

/* The highest free place for the system area in the space, or 0. */
static uint64_t free_place(luna_vm *vm, const luna_space *space) {
  uint64_t gpa = system_ceiling - LUNA_SYSTEM_SIZE;
  for (;;) {
    uint64_t first = taken(vm, space, gpa);
    if (first == UINT64_MAX || gpa == 0) {
      return gpa;
    }
    gpa = first < LUNA_SYSTEM_SIZE ? 0
                                   : (first - LUNA_SYSTEM_SIZE) & ~(uint64_t)(LUNA_SYSTEM_SIZE - 1);
  }
}

static int allocate_system(luna_vcpu *vcpu, uint64_t *gpa) {
  *gpa = free_place(vcpu->vm, vcpu->space);
  if (*gpa == 0) {
    return luna_fail(LUNA_ERROR_LIMIT,
                     "cannot place the system area of vCPU %u: no 0x%x free bytes below 0x%" PRIx64
                     " in space %u; name a mapped place for it",
                     vcpu->id, LUNA_SYSTEM_SIZE, system_ceiling, vcpu->space->id);
  }
  int status = luna_buffer_create(LUNA_SYSTEM_SIZE, &vcpu->system_buffer);
  if (status != LUNA_OK) {
    return status;
  }
  status = luna_vm_map_space(vcpu->vm, vcpu->space->id, vcpu->system_buffer, 0, *gpa,
                             LUNA_SYSTEM_SIZE, LUNA_READ | LUNA_WRITE | LUNA_EXECUTE);
  if (status != LUNA_OK) {
    luna_buffer_release(vcpu->system_buffer);
    vcpu->system_buffer = NULL;
  }
  return status;
}

static int check_named(uint64_t gpa) {
  if (gpa == 0 || gpa % LUNA_SYSTEM_SIZE != 0 || gpa > (uint64_t)UINT32_MAX) {
    return luna_fail(LUNA_ERROR_ARGUMENT,
                     "cannot put a system area at gpa 0x%" PRIx64
                     ": it must be a multiple of 0x%x, above 0 and below 4 GiB",
                     gpa, LUNA_SYSTEM_SIZE);
  }
  return LUNA_OK;
}

/* The system area of the options: its gpa in the vCPU, its host address in `*area`. */
static int find_system(luna_vcpu *vcpu, uint64_t named, uint8_t **area) {
  uint64_t gpa = named;
  int status = named == LUNA_SYSTEM_ALLOCATE ? allocate_system(vcpu, &gpa) : check_named(named);
  if (status != LUNA_OK) {
    return status;
  }
  pthread_rwlock_rdlock(&vcpu->vm->lock);
  *area = luna_space_host(vcpu->space, gpa, LUNA_SYSTEM_SIZE, LUNA_READ | LUNA_WRITE);
  pthread_rwlock_unlock(&vcpu->vm->lock);
  if (!*area) {
    return luna_fail(LUNA_ERROR_NOT_FOUND,
                     "cannot put a system area at gpa 0x%" PRIx64
                     ": its 0x%x bytes must lie in one writable region of space %u",
                     gpa, LUNA_SYSTEM_SIZE, vcpu->space->id);
  }
  vcpu->system = gpa;
  return LUNA_OK;
}

static int set_protected(luna_vcpu *vcpu, const luna_vcpu_options *options,
                         struct kvm_sregs *sregs) {
  uint8_t *area;
  int status = find_system(vcpu, options->system, &area);
  if (status != LUNA_OK) {
    return status;
  }
  luna_system_write(area, vcpu->system, options->mode != LUNA_MODE_PROT32);
  if (options->mode == LUNA_MODE_PROT32) {
    set_prot32(sregs, area, vcpu->system);
  } else {
    set_long(sregs, area, vcpu->system, options->mode == LUNA_MODE_USER64);
  }
  return LUNA_OK;
}

int luna_mode_set(luna_vcpu *vcpu, const luna_vcpu_options *options) {
  if (options->mode > LUNA_MODE_USER64) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "cannot make a vCPU in mode %u: there is none",
                     options->mode);
  }
  if (options->mode == LUNA_MODE_RESET) {
    return LUNA_OK;
  }
  struct kvm_sregs *sregs = luna_state_sregs(vcpu);
  if (!sregs) {
    return luna_error_status();
  }
  if (options->mode == LUNA_MODE_REAL) {
    set_real(sregs);
  } else {
    int status = set_protected(vcpu, options, sregs);
    if (status != LUNA_OK) {
      return status;
    }
  }
  vcpu->state.sregs_written = true;
  luna_vcpu_set(vcpu, LUNA_RIP, options->rip);
  luna_vcpu_set(vcpu, LUNA_RSP, options->rsp);
  luna_vcpu_set(vcpu, LUNA_RFLAGS, 2);
  return LUNA_OK;
}

/* Maps the area that the library allocated in another space too, where nothing is in its place. */
int luna_mode_follow(luna_vcpu *vcpu, uint32_t space) {
  luna_region region;
  if (!vcpu->system_buffer || (luna_space_next(vcpu->vm, space, vcpu->system, &region) == LUNA_OK &&
                               region.gpa < vcpu->system + LUNA_SYSTEM_SIZE)) {
    return LUNA_OK;
  }
  return luna_vm_map_space(vcpu->vm, space, vcpu->system_buffer, 0, vcpu->system, LUNA_SYSTEM_SIZE,
                           LUNA_READ | LUNA_WRITE | LUNA_EXECUTE);
}

static void unmap_area(luna_vcpu *vcpu, uint32_t space) {
  uint64_t end = vcpu->system + LUNA_SYSTEM_SIZE;
  luna_region region;
  for (uint64_t gpa = vcpu->system;
       luna_space_next(vcpu->vm, space, gpa, &region) == LUNA_OK && region.gpa < end;
       gpa = region.gpa + region.size) {
    if (region.buffer == vcpu->system_buffer) {
      luna_vm_unmap_space(vcpu->vm, space, region.gpa, region.size);
    }
  }
}

/* Unmaps what is left of the area in each space, unless the script has put something else there. */
void luna_mode_end(luna_vcpu *vcpu) {
  luna_buffer *buffer = vcpu->system_buffer;
  if (!buffer) {
    return;
  }
  pthread_rwlock_rdlock(&vcpu->vm->lock);
  uint32_t count = vcpu->vm->space_count;
  pthread_rwlock_unlock(&vcpu->vm->lock);
  for (uint32_t space = 0; space < count; space++) {
    unmap_area(vcpu, space);
  }
  luna_buffer_release(buffer);
}
