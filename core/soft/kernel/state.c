/* SPDX-License-Identifier: MIT
 * Registers as KVM's structures have them. */
#include "soft/access.h"
#include "soft/execute/control.h"
#include "soft/insn.h"
#include "soft/kernel/kernel.h"
#include "soft/mmu/mmu.h"
#include "soft/vector/vector.h"

#include <errno.h>
#include <string.h>

enum {
  AT_MXCSR = 24,
  AT_COMPONENTS = 512,
  HEADER_REST = 56 /* bytes behind XSTATE_BV */
};

/* Register by register: a structure made at once is made in the stack and then copied. */
void soft_get_regs(soft_cpu *cpu, struct kvm_regs *regs) {
  const uint64_t *r = cpu->r;
  regs->rax = r[RAX];
  regs->rbx = r[RBX];
  regs->rcx = r[RCX];
  regs->rdx = r[RDX];
  regs->rsi = r[RSI];
  regs->rdi = r[RDI];
  regs->rsp = r[RSP];
  regs->rbp = r[RBP];
  regs->r8 = r[8];
  regs->r9 = r[9];
  regs->r10 = r[10];
  regs->r11 = r[11];
  regs->r12 = r[12];
  regs->r13 = r[13];
  regs->r14 = r[14];
  regs->r15 = r[15];
  regs->rip = cpu->rip;
  regs->rflags = soft_flags(cpu);
}

/* An exception that waits, rather than being under way, is forgotten: as KVM does it. */
void soft_set_rip(soft_cpu *cpu, uint64_t rip) {
  cpu->rip = rip;
  cpu->injected = cpu->injected && !cpu->pends;
}

void soft_set_regs(soft_cpu *cpu, const struct kvm_regs *regs) {
  uint64_t *r = cpu->r;
  r[RAX] = regs->rax;
  r[RBX] = regs->rbx;
  r[RCX] = regs->rcx;
  r[RDX] = regs->rdx;
  r[RSI] = regs->rsi;
  r[RDI] = regs->rdi;
  r[RSP] = regs->rsp;
  r[RBP] = regs->rbp;
  r[8] = regs->r8;
  r[9] = regs->r9;
  r[10] = regs->r10;
  r[11] = regs->r11;
  r[12] = regs->r12;
  r[13] = regs->r13;
  r[14] = regs->r14;
  r[15] = regs->r15;
  soft_set_rip(cpu, regs->rip);
  uint64_t before = cpu->rflags;
  soft_set_flags(cpu, regs->rflags & FLAGS_ALL);
  uint64_t changed = before ^ cpu->rflags;
  if (changed & FLAG_VM) {
    cpu->cpl = soft_is_vm86(cpu) ? 3 : cpu->seg[SEG_SS].dpl;
    soft_mode_changed(cpu);
  }
  if (changed & (FLAG_VM | FLAG_AC)) { /* which say whose accesses are checked */
    soft_tlb_select(cpu);
  }
}

void soft_get_sregs(const soft_cpu *cpu, struct kvm_sregs *sregs) {
  *sregs = (struct kvm_sregs){.cs = cpu->seg[SEG_CS],
                              .ds = cpu->seg[SEG_DS],
                              .es = cpu->seg[SEG_ES],
                              .fs = cpu->seg[SEG_FS],
                              .gs = cpu->seg[SEG_GS],
                              .ss = cpu->seg[SEG_SS],
                              .tr = cpu->tr,
                              .ldt = cpu->ldt,
                              .gdt = cpu->gdt,
                              .idt = cpu->idt,
                              .cr0 = cpu->cr0,
                              .cr2 = cpu->cr2,
                              .cr3 = cpu->cr3,
                              .cr4 = cpu->cr4,
                              .cr8 = cpu->cr8,
                              .efer = cpu->efer,
                              .apic_base = cpu->apic_base};
  if (cpu->interrupt >= 0) {
    sregs->interrupt_bitmap[cpu->interrupt / 64] |= UINT64_C(1) << cpu->interrupt % 64;
  }
}

static bool sregs_right(const soft_cpu *cpu, const struct kvm_sregs *sregs) {
  bool pages = sregs->cr0 & CR0_PG;
  uint64_t known = CR4_ALL | (cpu->controlled ? CR4_VMXE : 0);
  if (sregs->efer & ~(uint64_t)EFER_ALL || sregs->cr4 & ~known || sregs->cr0 >> 32 ||
      sregs->cr8 > 15 || (pages && !(sregs->cr0 & CR0_PE))) {
    return false;
  }
  if (sregs->efer & EFER_LME && pages) {
    return sregs->cr4 & CR4_PAE && sregs->efer & EFER_LMA && !(sregs->cr3 >> 52);
  }
  return !(sregs->efer & EFER_LMA) && !sregs->cs.l;
}

static bool load_pdptes(soft_cpu *cpu) {
  bool pae = cpu->cr0 & CR0_PG && cpu->cr4 & CR4_PAE && !soft_is_long(cpu);
  if (!pae) {
    return true;
  }
  pthread_mutex_lock(&cpu->vm->lock);
  soft_adopt_map(cpu);
  bool right = soft_load_pdptes(cpu);
  pthread_mutex_unlock(&cpu->vm->lock);
  return right;
}

int soft_set_sregs(soft_cpu *cpu, const struct kvm_sregs *sregs) {
  if (!sregs_right(cpu, sregs) || !soft_set_apic_base(cpu, sregs->apic_base, true)) {
    return soft_refuse(EINVAL);
  }
  cpu->seg[SEG_CS] = sregs->cs;
  cpu->seg[SEG_DS] = sregs->ds;
  cpu->seg[SEG_ES] = sregs->es;
  cpu->seg[SEG_FS] = sregs->fs;
  cpu->seg[SEG_GS] = sregs->gs;
  cpu->seg[SEG_SS] = sregs->ss;
  cpu->tr = sregs->tr;
  cpu->ldt = sregs->ldt;
  cpu->gdt = sregs->gdt;
  cpu->idt = sregs->idt;
  cpu->cr0 = sregs->cr0 | CR0_ET;
  cpu->cr2 = sregs->cr2;
  cpu->cr3 = sregs->cr3;
  cpu->cr4 = sregs->cr4;
  cpu->cr8 = sregs->cr8;
  cpu->efer = sregs->efer;
  cpu->cpl = soft_is_real(cpu) ? 0 : soft_is_vm86(cpu) ? 3 : sregs->ss.dpl;
  for (int vector = 0; vector < KVM_NR_INTERRUPTS; vector++) {
    if (sregs->interrupt_bitmap[vector / 64] >> vector % 64 & 1) {
      cpu->interrupt = vector;
    }
  }
  soft_cr4_changed(cpu);
  soft_mode_changed(cpu);
  load_pdptes(cpu); /* a bad one faults when it is used */
  return 0;
}

_Static_assert(sizeof(struct kvm_vcpu_events) % 8 == 0, "it is cleared word by word");

/* Which without vector registers the compiler would make an instruction of many cycles. */
void soft_get_events(const soft_cpu *cpu, struct kvm_vcpu_events *events) {
  for (unsigned i = 0; i < sizeof *events; i += 8) {
    soft_poke((uint8_t *)events + i, 0, 64);
  }
  events->flags =
      KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SMM;
  if (cpu->injected) {
    events->exception.injected = 1;
    events->exception.nr = cpu->inject.vector;
    events->exception.has_error_code = cpu->inject.has_error;
    events->exception.error_code = cpu->inject.error;
  }
  if (cpu->interrupt >= 0) {
    events->interrupt.injected = 1;
    events->interrupt.nr = (uint8_t)cpu->interrupt;
  }
  events->interrupt.shadow = cpu->shadow;
  events->nmi.pending = (uint8_t)atomic_load_explicit(&cpu->nmi, memory_order_relaxed);
  events->nmi.masked = cpu->nmi_masked;
}

int soft_set_events(soft_cpu *cpu, const struct kvm_vcpu_events *events) {
  bool pends = events->flags & KVM_VCPUEVENT_VALID_PAYLOAD && events->exception.pending;
  bool comes = events->exception.injected || pends;
  if (comes && (events->exception.nr > 31 || events->exception.nr == VECTOR_NMI)) {
    return soft_refuse(EINVAL);
  }
  cpu->injected = comes;
  cpu->pends = comes && !events->exception.injected;
  cpu->inject = (soft_event){.vector = events->exception.nr,
                             .has_error = events->exception.has_error_code,
                             .error = events->exception.error_code};
  cpu->interrupt = events->interrupt.injected ? events->interrupt.nr : -1;
  if (events->flags & KVM_VCPUEVENT_VALID_SHADOW) {
    cpu->shadow = events->interrupt.shadow;
  }
  if (events->flags & KVM_VCPUEVENT_VALID_NMI_PENDING) {
    atomic_store(&cpu->nmi, events->nmi.pending);
  }
  cpu->nmi_masked = events->nmi.masked;
  return 0;
}

/* ---- Extended state ---- */

static int set_xsave(soft_cpu *cpu, const uint8_t *area) {
  uint64_t components;
  uint32_t mxcsr;
  memcpy(&components, area + AT_COMPONENTS, sizeof components);
  memcpy(&mxcsr, area + AT_MXCSR, sizeof mxcsr);
  if (components & ~soft_xcr0_known() || mxcsr & 0xffff0000) {
    return soft_refuse(EINVAL);
  }
  memcpy(cpu->xsave, area, SOFT_XSAVE_SIZE);
  memset(cpu->xsave + AT_COMPONENTS + sizeof components, 0, HEADER_REST);
  uint32_t pkru = 0;
  if (components & SOFT_XCR0_PKRU) {
    memcpy(&pkru, area + soft_component_at(SOFT_AREA_PKRU), sizeof pkru);
  }
  components &= ~(uint64_t)SOFT_XCR0_PKRU; /* which the host's processor may not have */
  memcpy(cpu->xsave + AT_COMPONENTS, &components, sizeof components);
  soft_set_pkru(cpu, pkru);
  return 0;
}

static int get_xsave(soft_cpu *cpu, uint8_t *area) {
  uint64_t components = soft_xinuse(cpu);
  soft_settle(cpu, soft_xcr0_known()); /* KVM's has the initial values too */
  memcpy(area, cpu->xsave, SOFT_XSAVE_SIZE);
  memcpy(area + AT_COMPONENTS, &components, sizeof components);
  memcpy(area + soft_component_at(SOFT_AREA_PKRU), &cpu->pkru, sizeof cpu->pkru);
  return 0;
}

static int set_xcrs(soft_cpu *cpu, const struct kvm_xcrs *xcrs) {
  if (xcrs->nr_xcrs > KVM_MAX_XCRS || xcrs->flags) {
    return soft_refuse(EINVAL);
  }
  for (uint32_t i = 0; i < xcrs->nr_xcrs; i++) {
    if (xcrs->xcrs[i].xcr == 0) {
      if (!soft_xcr0_right(cpu, xcrs->xcrs[i].value)) {
        return soft_refuse(EINVAL);
      }
      cpu->xcr0 = xcrs->xcrs[i].value;
    }
  }
  return 0;
}

static int get_debugregs(const soft_cpu *cpu, struct kvm_debugregs *debugregs) {
  *debugregs = (struct kvm_debugregs){.dr6 = cpu->dr[6], .dr7 = cpu->dr[7]};
  memcpy(debugregs->db, cpu->dr, sizeof debugregs->db);
  return 0;
}

static int set_debugregs(soft_cpu *cpu, const struct kvm_debugregs *debugregs) {
  if (debugregs->flags || debugregs->dr6 >> 32 || debugregs->dr7 >> 32) {
    return soft_refuse(EINVAL);
  }
  memcpy(cpu->dr, debugregs->db, sizeof debugregs->db);
  cpu->dr[6] = (debugregs->dr6 & 0xe00f) | (uint32_t)DR6_FIXED;
  cpu->dr[7] = debugregs->dr7 | DR7_FIXED;
  soft_watch_changed(cpu);
  return 0;
}

/* How many of them there are: KVM stops at the first that it does not know. */
static int access_msrs(soft_cpu *cpu, struct kvm_msrs *msrs, bool set) {
  uint32_t done = 0;
  pthread_mutex_lock(&cpu->vm->lock);
  soft_adopt_map(cpu);
  for (; done < msrs->nmsrs; done++) {
    struct kvm_msr_entry *entry = &msrs->entries[done];
    uint64_t value = entry->data;
    if (set ? !soft_msr_set(cpu, entry->index, value, true)
            : !soft_msr_get(cpu, entry->index, &value)) {
      break;
    }
    if (!set) {
      entry->data = value;
    }
  }
  pthread_mutex_unlock(&cpu->vm->lock);
  return (int)done;
}

int soft_state_ioctl(soft_cpu *cpu, unsigned long request, void *argument) {
  switch (request) {
    case KVM_GET_REGS:
      soft_get_regs(cpu, argument);
      return 0;
    case KVM_SET_REGS:
      soft_set_regs(cpu, argument);
      return 0;
    case KVM_GET_SREGS:
      soft_get_sregs(cpu, argument);
      return 0;
    case KVM_SET_SREGS:
      return soft_set_sregs(cpu, argument);
    case KVM_GET_VCPU_EVENTS:
      soft_get_events(cpu, argument);
      return 0;
    case KVM_SET_VCPU_EVENTS:
      return soft_set_events(cpu, argument);
    case KVM_GET_XSAVE:
    case KVM_GET_XSAVE2:
      return get_xsave(cpu, argument);
    case KVM_SET_XSAVE:
      return set_xsave(cpu, argument);
    case KVM_GET_XCRS:
      *(struct kvm_xcrs *)argument = (struct kvm_xcrs){.nr_xcrs = 1};
      ((struct kvm_xcrs *)argument)->xcrs[0].value = cpu->xcr0;
      return 0;
    case KVM_SET_XCRS:
      return set_xcrs(cpu, argument);
    case KVM_GET_DEBUGREGS:
      return get_debugregs(cpu, argument);
    case KVM_SET_DEBUGREGS:
      return set_debugregs(cpu, argument);
    case KVM_GET_MSRS:
    case KVM_SET_MSRS:
      return access_msrs(cpu, argument, request == KVM_SET_MSRS);
    default:
      return soft_refuse(ENOTTY);
  }
}
