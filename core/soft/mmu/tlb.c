/* SPDX-License-Identifier: MIT
 * The software TLB: filled by walks, emptied when paging or slots change, and kept free of pages
 * whose accesses have to be looked at: those with code (writes) and with data breakpoints. */
#include "soft/access.h"
#include "soft/vmx/vmx.h"

static const soft_tlb no_entry = {SOFT_NO_PAGE, SOFT_NO_PAGE, SOFT_NO_PAGE, 0};

enum {
  GROUPS = 64, /* of a set's entries: those in use are known by a bit of soft_cpu.tlb_used */
  GROUP = SOFT_TLB_SIZE / GROUPS
};

/* The first entry and the last. A set is all zeroes until it is used, and zero is a page: that of
 * the first entry, and of the end of an access that the last one is asked for. */
#define ENDS (UINT64_C(1) | UINT64_C(1) << (GROUPS - 1))

/* The next group in use, from 0 on; GROUPS where there is no other. */
static int next_group(const soft_cpu *cpu, int set, int group) {
  uint64_t left = group < GROUPS ? cpu->tlb_used[set] >> group : 0;
  return left ? group + __builtin_ctzll(left) : GROUPS;
}

static void clear(soft_tlb *entries) {
  for (int i = 0; i < GROUP; i++) {
    entries[i] = no_entry;
  }
}

void soft_tlb_flush(soft_cpu *cpu) {
  for (int i = 0; i < SOFT_TLB_SETS; i++) {
    for (int k = next_group(cpu, i, 0); k < GROUPS; k = next_group(cpu, i, k + 1)) {
      clear(&cpu->tlbs[i][k * GROUP]);
    }
    cpu->tlb_used[i] = cpu->tlbs[i] == cpu->tlb ? ENDS : 0;
  }
  soft_links_drop(cpu);
}

void soft_tlb_select(soft_cpu *cpu) {
  bool checked = cpu->cr0 & CR0_AM && cpu->rflags & FLAG_AC;
  int set = cpu->cpl == 3 ? checked ? SOFT_AS_CHECKED : SOFT_AS_USER
            : cpu->cr4 & CR4_SMAP && !(cpu->rflags & FLAG_AC) ? SOFT_AS_SMAP
                                                              : SOFT_AS_SUPERVISOR;
  cpu->tlb = cpu->tlbs[set];
  if (!cpu->tlb_used[set]) {
    cpu->tlb[0] = cpu->tlb[SOFT_TLB_SIZE - 1] = no_entry;
    cpu->tlb_used[set] = ENDS;
  }
}

static void drop_write(soft_tlb *entry, uint64_t page) {
  if (entry->write != SOFT_NO_PAGE &&
      ((entry->write + entry->add) >> 12 & (SOFT_MARKS - 1)) == page) {
    entry->write |= SOFT_CODE_PAGE;
  }
}

void soft_tlb_drop_writes(soft_cpu *cpu, const uint8_t *host) {
  uint64_t page = (uint64_t)(uintptr_t)host >> 12 & (SOFT_MARKS - 1);
  for (int i = 0; i < SOFT_TLB_SETS; i++) {
    for (int k = next_group(cpu, i, 0); k < GROUPS; k = next_group(cpu, i, k + 1)) {
      for (int n = 0; n < GROUP; n++) {
        drop_write(&cpu->tlbs[i][k * GROUP + n], page);
      }
    }
  }
}

static void fill(soft_cpu *cpu, uint64_t linear, const uint8_t *host, soft_access access) {
  uint64_t page = linear & ~UINT64_C(0xfff);
  uint64_t add = (uint64_t)(uintptr_t)host - linear;
  soft_tlb *entry = soft_entry(cpu, linear);
  size_t set = (size_t)(cpu->tlb - cpu->tlbs[0]) / SOFT_TLB_SIZE;
  cpu->tlb_used[set] |= UINT64_C(1) << (linear >> 12 & (SOFT_TLB_SIZE - 1)) / GROUP;
  bool written = (entry->write & ~SOFT_CODE_PAGE) == page;
  if (entry->add != add || (entry->read != page && !written && entry->fetch != page)) {
    *entry = no_entry;
    entry->add = add;
  }
  if (access != SOFT_FETCH && cpu->tlb == cpu->tlbs[SOFT_AS_CHECKED]) {
    return;
  }
  switch (access) {
    case SOFT_READ:
      entry->read = page;
      break;
    case SOFT_WRITE:
      entry->write = page | (soft_coded(cpu, host) ? SOFT_CODE_PAGE : 0);
      break;
    default:
      entry->fetch = page;
      break;
  }
}

__attribute__((noreturn)) static void page_fault(soft_cpu *cpu, uint64_t linear, uint32_t error) {
  if (soft_unlikely(cpu->controlled)) {
    soft_vmx_page_fault(cpu, linear, error);
  }
  cpu->cr2 = linear;
  soft_fault(cpu, VECTOR_PF, error);
}

void soft_check_canonical(soft_cpu *cpu, uint64_t linear) {
  if (soft_is_long(cpu) && !soft_canonical(cpu, linear)) {
    bool stack = cpu->current && cpu->current->segment == SEG_SS;
    soft_fault(cpu, stack ? VECTOR_SS : VECTOR_GP, 0);
  }
}

static uint64_t walk_to(soft_cpu *cpu, uint64_t linear, soft_rights rights) {
  soft_check_canonical(cpu, linear);
  if (!soft_is_long(cpu)) {
    linear &= 0xffffffff;
  }
  soft_walk walk;
  if (!soft_translate(cpu, linear, rights, &walk)) {
    page_fault(cpu, linear, walk.error);
  }
  return walk.gpa;
}

void soft_page_check(soft_cpu *cpu, uint64_t linear, unsigned size, soft_access access) {
  soft_rights rights = {access, cpu->cpl == 3, true};
  uint64_t last = linear + size - 1;
  soft_check_alignment(cpu, linear, size);
  soft_check_canonical(cpu, linear);
  soft_check_canonical(cpu, last);
  walk_to(cpu, linear, rights);
  if ((linear ^ last) & ~UINT64_C(0xfff)) {
    walk_to(cpu, last & ~UINT64_C(0xfff), rights);
  }
}

uint8_t *soft_page(soft_cpu *cpu, uint64_t linear, soft_access access, bool user, uint64_t *gpa) {
  if (!soft_is_long(cpu)) {
    linear &= 0xffffffff;
  }
  *gpa = walk_to(cpu, linear, (soft_rights){access, user, false});
  uint8_t *host = soft_host(cpu, *gpa, access == SOFT_WRITE);
  if (host && user == (cpu->cpl == 3) && !soft_watches_page(cpu, linear)) {
    fill(cpu, linear, host, access);
  }
  return host;
}

/* An instruction where there is no memory: KVM cannot emulate it either (api.rst,
 * KVM_EXIT_INTERNAL_ERROR). */
__attribute__((noreturn)) static void no_code(soft_cpu *cpu) {
  struct kvm_run *run = cpu->run;
  run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
  run->emulation_failure.suberror = KVM_INTERNAL_ERROR_EMULATION;
  run->emulation_failure.ndata = 3;
  run->emulation_failure.flags = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
  run->emulation_failure.insn_size = (uint8_t)cpu->fetched_size;
  for (unsigned i = 0; i < cpu->fetched_size; i++) {
    run->emulation_failure.insn_bytes[i] = cpu->fetched[i];
  }
  soft_leave(cpu, SOFT_ESCAPE_EXIT);
}

const uint8_t *soft_fetch(soft_cpu *cpu, uint64_t rip, uint64_t *linear) {
  if (soft_is_64(cpu)) {
    *linear = rip;
    if (!soft_canonical(cpu, rip)) {
      soft_fault(cpu, VECTOR_GP, 0);
    }
  } else {
    *linear = (cpu->cs_base + rip) & 0xffffffff;
    if (rip > cpu->seg[SEG_CS].limit) {
      soft_fault(cpu, VECTOR_GP, 0);
    }
  }
  const soft_tlb *entry = soft_entry(cpu, *linear);
  if (soft_likely(entry->fetch == (*linear & ~UINT64_C(0xfff)))) {
    return soft_at(entry, *linear);
  }
  soft_walk walk;
  if (!soft_translate(cpu, *linear, (soft_rights){SOFT_FETCH, cpu->cpl == 3, false}, &walk)) {
    page_fault(cpu, *linear, walk.error);
  }
  const uint8_t *host = soft_host(cpu, walk.gpa, false);
  if (!host) {
    no_code(cpu);
  }
  fill(cpu, *linear, host, SOFT_FETCH);
  return host;
}

/* ---- Data breakpoints ---- */

typedef struct watch {
  uint64_t linear;
  uint64_t size;
  unsigned kind; /* R/W of DR7: 1 writes, 2 ports, 3 reads and writes */
} watch;

/* Those that user space debugs with come before the guest's own, as with KVM. */
static const uint64_t *debug_registers(const soft_cpu *cpu, uint64_t *dr7) {
  if (cpu->debug.control & KVM_GUESTDBG_ENABLE && cpu->debug.control & KVM_GUESTDBG_USE_HW_BP) {
    *dr7 = cpu->debug.arch.debugreg[7];
    return (const uint64_t *)cpu->debug.arch.debugreg;
  }
  *dr7 = cpu->dr[7];
  return cpu->dr;
}

static bool watch_of(const soft_cpu *cpu, unsigned number, watch *found) {
  static const uint8_t sizes[] = {1, 2, 8, 4};
  uint64_t dr7;
  const uint64_t *registers = debug_registers(cpu, &dr7);
  unsigned control = (unsigned)(dr7 >> (16 + 4 * number) & 15);
  if (!(dr7 >> 2 * number & 3) || !(control & 3)) {
    return false;
  }
  uint64_t size = sizes[control >> 2];
  *found = (watch){registers[number] & ~(size - 1), size, control & 3};
  return true;
}

void soft_watch_changed(soft_cpu *cpu) {
  uint64_t dr7;
  debug_registers(cpu, &dr7);
  bool any = dr7 & 0xff;
  if (any || cpu->no_links) {
    cpu->no_links = any;
    soft_tlb_flush(cpu);
    soft_look_around(cpu);
  }
}

bool soft_watches_page(const soft_cpu *cpu, uint64_t linear) {
  watch found;
  for (unsigned i = 0; cpu->no_links && i < 4; i++) {
    bool data = watch_of(cpu, i, &found) && found.kind & 1;
    if (data && found.linear >> 12 == linear >> 12) {
      return true;
    }
  }
  return false;
}

/* The breakpoints of the kinds (one bit each) that the access meets. */
static void meet(soft_cpu *cpu, uint64_t at, unsigned size, unsigned kinds) {
  watch found;
  for (unsigned i = 0; cpu->no_links && i < 4; i++) {
    if (watch_of(cpu, i, &found) && kinds >> found.kind & 1 && at < found.linear + found.size &&
        found.linear < at + size) {
      if (!cpu->single) { /* the trap comes behind this very instruction */
        soft_leave(cpu, SOFT_ESCAPE_STEP);
      }
      cpu->watched |= 1u << i;
    }
  }
}

void soft_watch(soft_cpu *cpu, uint64_t linear, unsigned size, soft_access access) {
  meet(cpu, linear, size, access == SOFT_WRITE ? 1u << 1 | 1u << 3 : 1u << 3);
}

void soft_watch_port(soft_cpu *cpu, uint16_t port, unsigned size) {
  if (cpu->cr4 & CR4_DE) {
    meet(cpu, port, size, 1u << 2);
  }
}
