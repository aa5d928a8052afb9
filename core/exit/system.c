/* SPDX-License-Identifier: MIT
 * The system area of a vCPU: GDT, IDT, TSS, page tables and one stub a vector in guest memory. A
 * stub is an OUT, so that an exception in the guest becomes an exit. Its place, and its life. */
#include "exit/system.h"

#include "base/error.h"
#include "base/range.h"
#include "exit/claim.h"
#include "memory/space.h"
#include "memory/vm.h"
#include "vcpu/system.h"
#include "vcpu/vcpu.h"

#include <inttypes.h>
#include <string.h>

/* ---- What is in it ---- */

static void put(uint8_t *area, uint32_t offset, uint64_t value) {
  memcpy(area + offset, &value, sizeof value);
}

/* Flat code and data descriptors and the 64-bit TSS (SDM Vol. 3, 3.4.5 and 8.2.3). */
static void write_gdt(uint8_t *area, uint64_t gpa) {
  static const struct {
    uint32_t selector;
    uint64_t descriptor;
  } flat[] = {
      {LUNA_SELECTOR_CODE64, 0x00af9b000000ffff},
      {LUNA_SELECTOR_DATA, 0x00cf93000000ffff},
      {LUNA_SELECTOR_USER_DATA, 0x00cff3000000ffff},
      {LUNA_SELECTOR_USER_CODE64, 0x00affb000000ffff},
      {LUNA_SELECTOR_CODE32, 0x00cf9b000000ffff},
  };
  for (size_t i = 0; i < sizeof flat / sizeof *flat; i++) {
    put(area, LUNA_SYSTEM_GDT + (flat[i].selector & ~3u), flat[i].descriptor);
  }
  uint64_t base = gpa + LUNA_SYSTEM_TSS;
  uint64_t low =
      LUNA_TSS_LIMIT | (base & 0xffffff) << 16 | (uint64_t)0x8b << 40 | (base >> 24 & 0xff) << 56;
  put(area, LUNA_SYSTEM_GDT + LUNA_SELECTOR_TSS, low);
  put(area, LUNA_SYSTEM_GDT + LUNA_SELECTOR_TSS + 8, base >> 32);
}

static void write_stubs(uint8_t *area) {
  for (uint32_t vector = 0; vector < 256; vector++) {
    /* out PORT, al; then, should anybody come back here: hlt; jmp to the hlt */
    static const uint8_t stub[LUNA_STUB_SIZE] = {
        0xe6, LUNA_EXCEPTION_PORT, 0xf4, 0xeb, 0xfd, 0x90, 0x90, 0x90};
    memcpy(area + LUNA_SYSTEM_STUBS + vector * LUNA_STUB_SIZE, stub, sizeof stub);
  }
}

/* Interrupt gates. In long mode all switch to the first stack of the TSS's interrupt stack table,
 * so that a frame can be pushed whatever RSP holds. INT3 and INTO may come from ring 3. */
static void write_idt(uint8_t *area, uint64_t gpa, bool long_mode) {
  for (uint32_t vector = 0; vector < 256; vector++) {
    uint64_t stub = gpa + LUNA_SYSTEM_STUBS + vector * LUNA_STUB_SIZE;
    uint64_t type = vector == 3 || vector == 4 ? 0xee : 0x8e;
    uint64_t selector = long_mode ? LUNA_SELECTOR_CODE64 : LUNA_SELECTOR_CODE32;
    uint64_t stack = long_mode ? 1 : 0;
    uint64_t low =
        (stub & 0xffff) | selector << 16 | stack << 32 | type << 40 | (stub >> 16 & 0xffff) << 48;
    if (long_mode) {
      put(area, LUNA_SYSTEM_IDT + vector * 16, low);
      put(area, LUNA_SYSTEM_IDT + vector * 16 + 8, stub >> 32);
    } else {
      put(area, LUNA_SYSTEM_IDT + vector * 8, low);
    }
  }
}

/* A 64-bit TSS (SDM Vol. 3, 8.7): RSP0, IST1 and an I/O bitmap that allows every port. */
static void write_tss(uint8_t *area, uint64_t gpa) {
  uint64_t stack = gpa + LUNA_SYSTEM_STACK_TOP;
  uint16_t bitmap = LUNA_TSS_SIZE;
  put(area, LUNA_SYSTEM_TSS + 4, stack);
  put(area, LUNA_SYSTEM_TSS + 36, stack);
  memcpy(area + LUNA_SYSTEM_TSS + 102, &bitmap, sizeof bitmap);
  area[LUNA_SYSTEM_TSS + LUNA_TSS_LIMIT] = 0xff;
}

/* Four-level tables that map the first 4 GiB one to one: 2 MiB pages that ring 3 may use, but for
 * the system area, which only ring 0 may (SDM Vol. 3, 4.5). */
static void write_page_tables(uint8_t *area, uint64_t gpa) {
  enum {
    PRESENT = 1,
    WRITABLE = 2,
    USER = 4,
    LARGE = 0x80
  };
  const uint64_t all = PRESENT | WRITABLE | USER;
  put(area, LUNA_SYSTEM_PML4, (gpa + LUNA_SYSTEM_PDPT) | all);
  for (uint64_t i = 0; i < 4; i++) {
    put(area, LUNA_SYSTEM_PDPT + (uint32_t)i * 8, (gpa + LUNA_SYSTEM_PD + i * 4096) | all);
  }
  for (uint64_t i = 0; i < 2048; i++) {
    put(area, LUNA_SYSTEM_PD + (uint32_t)i * 8, i << 21 | all | LARGE);
  }
  uint64_t large = gpa >> 21;
  put(area, LUNA_SYSTEM_PD + (uint32_t)large * 8, (gpa + LUNA_SYSTEM_PT) | all);
  for (uint64_t i = 0; i < 512; i++) {
    uint64_t page = large << 21 | i << 12;
    bool ours = page >= gpa && page < gpa + LUNA_SYSTEM_SIZE;
    put(area, LUNA_SYSTEM_PT + (uint32_t)i * 8, page | (ours ? all & ~(uint64_t)USER : all));
  }
}

static void fill(uint8_t *area, uint64_t gpa, bool long_mode) {
  memset(area, 0, LUNA_SYSTEM_SIZE);
  write_gdt(area, gpa);
  write_stubs(area);
  write_idt(area, gpa, long_mode);
  write_tss(area, gpa);
  write_page_tables(area, gpa);
}

/* ---- Where it is ---- */

/* Below the IOAPIC at 0xfec00000 and the LAPIC at 0xfee00000. */
static const uint64_t system_ceiling = 0xfec00000;

/* The first address that something takes of [gpa, gpa + LUNA_SYSTEM_SIZE); UINT64_MAX if it is
 * free. */
static uint64_t taken(luna_vm *vm, const luna_space *space, uint64_t gpa) {
  uint64_t first = UINT64_MAX;
  pthread_rwlock_rdlock(&vm->lock);
  const luna_range *found[] = {luna_range_from(&space->regions, gpa),
                               luna_range_from(&vm->claims->traps.ranges[LUNA_TRAP_MMIO], gpa)};
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

static int allocate(luna_vcpu *vcpu, uint64_t *gpa) {
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
static int find(luna_vcpu *vcpu, uint64_t named, uint8_t **area) {
  uint64_t gpa = named;
  int status = named == LUNA_SYSTEM_ALLOCATE ? allocate(vcpu, &gpa) : check_named(named);
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

int luna_system_begin(luna_vcpu *vcpu, const luna_vcpu_options *options, const uint8_t **area) {
  uint8_t *found = NULL;
  int status = LUNA_OK;
  if (options->mode >= LUNA_MODE_PROT32) {
    status = find(vcpu, options->system, &found);
  }
  if (status == LUNA_OK && found) {
    fill(found, vcpu->system, options->mode != LUNA_MODE_PROT32);
  }
  *area = found;
  return status;
}

int luna_system_follow(luna_vcpu *vcpu, uint32_t space, bool *mapped) {
  luna_region region;
  *mapped = false;
  if (!vcpu->system_buffer || (luna_space_next(vcpu->vm, space, vcpu->system, &region) == LUNA_OK &&
                               region.gpa < vcpu->system + LUNA_SYSTEM_SIZE)) {
    return LUNA_OK;
  }
  int status = luna_vm_map_space(vcpu->vm, space, vcpu->system_buffer, 0, vcpu->system,
                                 LUNA_SYSTEM_SIZE, LUNA_READ | LUNA_WRITE | LUNA_EXECUTE);
  *mapped = status == LUNA_OK;
  return status;
}

void luna_system_leave(luna_vcpu *vcpu, uint32_t space) {
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
void luna_system_end(luna_vcpu *vcpu) {
  luna_buffer *buffer = vcpu->system_buffer;
  if (!buffer) {
    return;
  }
  pthread_rwlock_rdlock(&vcpu->vm->lock);
  uint32_t count = vcpu->vm->space_count;
  pthread_rwlock_unlock(&vcpu->vm->lock);
  for (uint32_t space = 0; space < count; space++) {
    luna_system_leave(vcpu, space);
  }
  luna_buffer_release(buffer);
}
