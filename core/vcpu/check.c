/* SPDX-License-Identifier: MIT
 * Which rule of the processor a vCPU's registers break: SDM Vol. 3, 27.3.1, "Checks on the Guest
 * State Area", as it is for guests that may be in real mode (unrestricted guests), which KVM's are;
 * and the rules for MOV to control registers (Vol. 3, 2.5) and WRMSR of EFER. KVM only says EINVAL,
 * or the processor fails the entry. */
#include "vcpu/check.h"

#include "base/error.h"
#include "vcpu/cpuid.h"
#include "vcpu/state.h"
#include "vcpu/vcpu.h"

#include <cpuid.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

typedef struct check {
  luna_vcpu *vcpu;
  bool strict;
  char *text;
  size_t room;
  struct kvm_regs regs;
  struct kvm_sregs sregs;
} check;

#define BIT(n) (UINT64_C(1) << (n))

static const uint64_t cr0_pe = BIT(0);
static const uint64_t cr0_wp = BIT(16);
static const uint64_t cr0_nw = BIT(29);
static const uint64_t cr0_cd = BIT(30);
static const uint64_t cr0_pg = BIT(31);
static const uint64_t cr4_pae = BIT(5);
static const uint64_t cr4_la57 = BIT(12);
static const uint64_t cr4_pcide = BIT(17);
static const uint64_t cr4_cet = BIT(23);
static const uint64_t efer_lme = BIT(8);
static const uint64_t efer_lma = BIT(10);
static const uint64_t rflags_vm = BIT(17);

/* True, with the sentence. */
__attribute__((format(printf, 2, 3))) static bool broken(const check *c, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(c->text, c->room, format, arguments);
  va_end(arguments);
  return true;
}

/* ---- Bits that a feature gives ---- */

typedef enum cpuid_register {
  EAX,
  EBX,
  ECX,
  EDX
} cpuid_register;

/* A bit of a control register, and the CPUID bit that says whether it is there. Leaf 0: always. */
typedef struct feature_bit {
  unsigned bit;
  const char *name;
  uint32_t leaf;
  cpuid_register place;
  unsigned feature;
} feature_bit;

enum {
  VMXE = 13 /* its place here too */
};

static const feature_bit cr4_bits[] = {
    {0, "VME", 1, EDX, 1},       {1, "PVI", 1, EDX, 1},          {2, "TSD", 1, EDX, 4},
    {3, "DE", 1, EDX, 2},        {4, "PSE", 1, EDX, 3},          {5, "PAE", 1, EDX, 6},
    {6, "MCE", 1, EDX, 7},       {7, "PGE", 1, EDX, 13},         {8, "PCE", 0, EAX, 0},
    {9, "OSFXSR", 1, EDX, 24},   {10, "OSXMMEXCPT", 1, EDX, 25}, {11, "UMIP", 7, ECX, 2},
    {12, "LA57", 7, ECX, 16},    {13, "VMXE", 1, ECX, 5},        {14, "SMXE", 1, ECX, 6},
    {16, "FSGSBASE", 7, EBX, 0}, {17, "PCIDE", 1, ECX, 17},      {18, "OSXSAVE", 1, ECX, 26},
    {20, "SMEP", 7, EBX, 7},     {21, "SMAP", 7, EBX, 20},       {22, "PKE", 7, ECX, 3},
    {23, "CET", 7, ECX, 7},      {24, "PKS", 7, ECX, 31},        {25, "UINTR", 7, EDX, 5},
};

static const feature_bit efer_bits[] = {
    {0, "SCE", 0, EAX, 0},
    {8, "LME", 0x80000001, EDX, 29},
    {10, "LMA", 0x80000001, EDX, 29},
    {11, "NXE", 0x80000001, EDX, 20},
    {12, "SVME", 0x80000001, ECX, 2},
    {13, "LMSLE", 0x80000001, ECX, 2},
    {14, "FFXSR", 0x80000001, EDX, 25},
    {15, "TCE", 0x80000001, ECX, 17},
    {17, "MCOMMIT", 0x80000008, EBX, 8},
    {18, "INTWB", 0x80000008, EBX, 13},
    {20, "UAIE", 0x80000021, EAX, 7},
    {21, "AIBRSE", 0x80000021, EAX, 8},
};

static bool host_has(const feature_bit *b) {
  uint32_t r[4] = {0};
  return __get_cpuid_count(b->leaf, 0, &r[EAX], &r[EBX], &r[ECX], &r[EDX]) &&
         r[b->place] >> b->feature & 1;
}

/* CR4.VMXE is what a vCPU that follows controls has. */
static bool offered(const check *c, const feature_bit *b) {
  if (b->leaf == 0 || (c->vcpu->controls && b == &cr4_bits[VMXE])) {
    return true;
  }
  const struct kvm_cpuid_entry2 *entry = luna_cpuid_find(c->vcpu->cpuid, b->leaf, 0);
  if (entry) {
    const uint32_t r[4] = {entry->eax, entry->ebx, entry->ecx, entry->edx};
    if (r[b->place] >> b->feature & 1) {
      return true;
    }
  }
  return !c->strict && host_has(b);
}

static bool check_bits(const check *c, const char *name, uint64_t value, const feature_bit *bits,
                       size_t count) {
  static const char *const places[] = {"EAX", "EBX", "ECX", "EDX"};
  for (; value; value &= value - 1) {
    unsigned bit = (unsigned)__builtin_ctzll(value);
    const feature_bit *found = NULL;
    for (size_t i = 0; i < count; i++) {
      found = bits[i].bit == bit ? &bits[i] : found;
    }
    if (!found) {
      return broken(c, "%s bit %u is reserved", name, bit);
    }
    if (!offered(c, found)) {
      return broken(c, "%s bit %u (%s) is not offered by this %s's CPUID (leaf 0x%x, %s bit %u)",
                    name, bit, found->name, c->strict ? "vCPU" : "host", found->leaf,
                    places[found->place], found->feature);
    }
  }
  return false;
}

#define CHECK_BITS(c, name, value, bits)                                                           \
  check_bits(c, name, value, bits, sizeof(bits) / sizeof *(bits))

/* ---- Control registers ---- */

static bool check_cr0(const check *c) {
  uint64_t cr0 = c->sregs.cr0;
  if (cr0 >> 32) {
    return broken(c, "cr0 bit %d is reserved: bits 63 to 32 must be 0",
                  32 + __builtin_ctzll(cr0 >> 32));
  }
  if (cr0 & cr0_pg && !(cr0 & cr0_pe)) {
    return broken(c, "cr0 bit 31 (PG) is set while bit 0 (PE) is clear: paging needs protected "
                     "mode");
  }
  if (cr0 & cr0_nw && !(cr0 & cr0_cd)) {
    return broken(c, "cr0 bit 29 (NW) is set while bit 30 (CD) is clear");
  }
  return false;
}

/* What the modes ask of CR0, CR4 and EFER together. */
static bool check_mode(const check *c) {
  const struct kvm_sregs *s = &c->sregs;
  bool paging = s->cr0 & cr0_pg;
  bool lma = s->efer & efer_lma;
  if (paging && s->efer & efer_lme) {
    if (!(s->cr4 & cr4_pae)) {
      return broken(c, "cr4 bit 5 (PAE) is clear while cr0.PG and efer.LME are set: long mode "
                       "needs it");
    }
    if (!lma) {
      return broken(c, "efer bit 10 (LMA) is clear while cr0.PG and efer.LME are set");
    }
  } else if (lma) {
    return broken(c, "efer bit 10 (LMA) is set while %s is clear",
                  paging ? "efer bit 8 (LME)" : "cr0 bit 31 (PG)");
  }
  if (s->cr4 & cr4_pcide && !lma) {
    return broken(c, "cr4 bit 17 (PCIDE) is set outside of long mode (efer.LMA)");
  }
  if (s->cr4 & cr4_cet && !(s->cr0 & cr0_wp)) {
    return broken(c, "cr4 bit 23 (CET) is set while cr0 bit 16 (WP) is clear");
  }
  return false;
}

static bool check_cr3(const check *c) {
  unsigned width = luna_cpuid_address_bits(c->vcpu);
  uint64_t high = c->sregs.cr3 >> width;
  if (high) {
    return broken(c, "cr3 bit %u is set: this processor's physical addresses have %u bits",
                  width + (unsigned)__builtin_ctzll(high), width);
  }
  return false;
}

/* The page-directory-pointer-table entries are loaded with CR3 (SDM Vol. 3, 4.4.1). */
static bool check_pdptes(const check *c) {
  const struct kvm_sregs *s = &c->sregs;
  uint64_t entries[4];
  uint64_t table = s->cr3 & 0xffffffe0;
  if (!(s->cr0 & cr0_pg) || !(s->cr4 & cr4_pae) || s->efer & efer_lma) {
    return false;
  }
  if (luna_vm_copy_space(c->vcpu->vm, c->vcpu->space->id, table, entries, sizeof entries,
                         LUNA_READ) != LUNA_OK) {
    return broken(c, "cr3 points to 0x%" PRIx64 ", where no memory is for the four PDPTEs", table);
  }
  uint64_t reserved = 0x1e6 | (UINT64_MAX << luna_cpuid_address_bits(c->vcpu));
  for (unsigned i = 0; i < 4; i++) {
    if (entries[i] & 1 && entries[i] & reserved) {
      return broken(c, "PDPTE %u at 0x%" PRIx64 " has reserved bit %d set", i, table + 8 * i,
                    __builtin_ctzll(entries[i] & reserved));
    }
  }
  return false;
}

static bool check_apic_base(const check *c) {
  uint64_t base = c->sregs.apic_base;
  uint64_t reserved = base & (0x2ff | UINT64_MAX << luna_cpuid_address_bits(c->vcpu));
  if (reserved) {
    return broken(c, "apic_base bit %d is reserved", __builtin_ctzll(reserved));
  }
  if ((base & 0xc00) == 0x400) {
    return broken(c, "apic_base bit 10 (EXTD) is set while bit 11 (EN) is clear");
  }
  return false;
}

/* ---- Segments ---- */

static bool is_canonical(const check *c, uint64_t address) {
  unsigned shift = c->sregs.cr4 & cr4_la57 ? 64 - 57 : 64 - 48;
  return (uint64_t)((int64_t)(address << shift) >> shift) == address;
}

typedef struct named_segment {
  const char *name;
  const struct kvm_segment *s;
} named_segment;

static bool check_common(const check *c, named_segment n, bool system) {
  const struct kvm_segment *s = n.s;
  if (s->s == system) {
    return broken(c, "%s.access bit 4 (S) must be %d", n.name, !system);
  }
  if (!s->present) {
    return broken(c, "%s.access bit 7 (P) is clear in a usable segment", n.name);
  }
  if ((s->limit & 0xfff) != 0xfff && s->g) {
    return broken(c, "%s.access bit 15 (G) is set, but bits 11 to 0 of %s.limit 0x%x are not all 1",
                  n.name, n.name, s->limit);
  }
  if (s->limit >> 20 && !s->g) {
    return broken(c, "%s.access bit 15 (G) is clear, but %s.limit 0x%x has more than 20 bits",
                  n.name, n.name, s->limit);
  }
  return false;
}

/* Virtual-8086 mode: everything follows from the selector. */
static bool check_v86(const check *c, named_segment n) {
  const struct kvm_segment *s = n.s;
  if (s->base != (uint64_t)s->selector << 4 || s->limit != 0xffff) {
    return broken(c, "%s must have base selector * 16 and limit 0xffff with rflags.VM", n.name);
  }
  if (s->type != 3 || !s->s || s->dpl != 3 || !s->present || s->l || s->db || s->g) {
    return broken(c, "%s.access must be 0xf3 with rflags.VM", n.name);
  }
  return false;
}

static bool check_cs(const check *c, bool protected_mode) {
  const struct kvm_sregs *s = &c->sregs;
  bool lma = s->efer & efer_lma;
  bool data = s->cs.type == 3; /* of real mode, until the first far jump behind it */
  if (!(s->cs.type & 8 && s->cs.type & 1) && !data) {
    return broken(c, "cs.access type %u is no accessed code segment (9, 11, 13 or 15), nor 3",
                  s->cs.type);
  }
  if (data && s->cs.dpl) {
    return broken(c, "cs.access DPL %u is not 0, as type 3 has it", s->cs.dpl);
  }
  if (s->cs.l && !lma) {
    return broken(c, "cs.access bit 13 (L) is set outside of long mode (efer.LMA)");
  }
  if (s->cs.l && s->cs.db) {
    return broken(c, "cs.access bits 13 (L) and 14 (D) are both set");
  }
  if (protected_mode && !data && !s->ss.unusable &&
      (s->cs.type & 4 ? s->cs.dpl > s->ss.dpl : s->cs.dpl != s->ss.dpl)) {
    return broken(c, "cs.access DPL %u does not go with ss.access DPL %u", s->cs.dpl, s->ss.dpl);
  }
  return check_common(c, (named_segment){"cs", &s->cs}, false);
}

static bool check_ss(const check *c, bool protected_mode) {
  const struct kvm_segment *s = &c->sregs.ss;
  bool data = c->sregs.cs.type == 3;
  if (s->unusable) {
    return false;
  }
  if (s->type != 3 && s->type != 7) {
    return broken(c, "ss.access type %u is no accessed writable data segment (3 or 7)", s->type);
  }
  if (s->dpl && (data || !protected_mode)) {
    return broken(c, "ss.access DPL %u is not 0 %s", s->dpl,
                  data ? "while cs.access has type 3" : "outside of protected mode (cr0.PE)");
  }
  return check_common(c, (named_segment){"ss", s}, false);
}

static bool check_data(const check *c, named_segment n) {
  const struct kvm_segment *s = n.s;
  if (s->unusable) {
    return false;
  }
  if (!(s->type & 1)) {
    return broken(c, "%s.access type %u: bit 0 (accessed) is clear", n.name, s->type);
  }
  if (s->type & 8 && !(s->type & 2)) {
    return broken(c, "%s.access type %u is code that cannot be read", n.name, s->type);
  }
  return check_common(c, n, false);
}

static bool check_tr(const check *c) {
  const struct kvm_segment *s = &c->sregs.tr;
  bool lma = c->sregs.efer & efer_lma;
  if (s->unusable) {
    return broken(c, "tr.access bit 16 (unusable) is set: there must be a task register");
  }
  if (s->type != 11 && (s->type != 3 || lma)) {
    return broken(c, "tr.access type %u is no busy TSS (11%s)", s->type, lma ? "" : " or 3");
  }
  if (s->selector & 4) {
    return broken(c, "tr.selector 0x%x bit 2 (TI) is set: a TSS is in the GDT", s->selector);
  }
  return check_common(c, (named_segment){"tr", s}, true);
}

static bool check_ldtr(const check *c) {
  const struct kvm_segment *s = &c->sregs.ldt;
  if (s->unusable) {
    return false;
  }
  if (s->type != 2) {
    return broken(c, "ldtr.access type %u is no LDT (2)", s->type);
  }
  if (s->selector & 4) {
    return broken(c, "ldtr.selector 0x%x bit 2 (TI) is set: an LDT is in the GDT", s->selector);
  }
  return check_common(c, (named_segment){"ldtr", s}, true);
}

/* FS, GS, TR and LDTR have 64-bit bases, the others 32-bit ones. */
static bool check_bases(const check *c) {
  const struct kvm_sregs *s = &c->sregs;
  const named_segment wide[] = {{"fs", &s->fs}, {"gs", &s->gs}, {"tr", &s->tr}, {"ldtr", &s->ldt}};
  const named_segment narrow[] = {{"cs", &s->cs}, {"ss", &s->ss}, {"ds", &s->ds}, {"es", &s->es}};
  for (int i = 0; i < 4; i++) {
    const struct kvm_segment *w = wide[i].s;
    if (!is_canonical(c, w->base)) {
      return broken(c, "%s.base 0x%llx is not canonical", wide[i].name, w->base);
    }
    const struct kvm_segment *n = narrow[i].s;
    if (n->base >> 32 && (i == 0 || !n->unusable)) {
      return broken(c, "%s.base 0x%llx has more than 32 bits", narrow[i].name, n->base);
    }
  }
  if (!is_canonical(c, s->gdt.base)) {
    return broken(c, "gdtr.base 0x%llx is not canonical", s->gdt.base);
  }
  return !is_canonical(c, s->idt.base) &&
         broken(c, "idtr.base 0x%llx is not canonical", s->idt.base);
}

static bool check_segments(const check *c) {
  const struct kvm_sregs *s = &c->sregs;
  const named_segment data[] = {{"ds", &s->ds}, {"es", &s->es}, {"fs", &s->fs}, {"gs", &s->gs}};
  bool protected_mode = s->cr0 & cr0_pe;
  bool found = false;
  if (c->regs.rflags & rflags_vm) {
    found =
        check_v86(c, (named_segment){"cs", &s->cs}) || check_v86(c, (named_segment){"ss", &s->ss});
    for (int i = 0; i < 4 && !found; i++) {
      found = check_v86(c, data[i]);
    }
  } else {
    found = check_cs(c, protected_mode) || check_ss(c, protected_mode);
    for (int i = 0; i < 4 && !found; i++) {
      found = check_data(c, data[i]);
    }
  }
  return found || check_tr(c) || check_ldtr(c) || check_bases(c);
}

/* ---- RIP and RFLAGS ---- */

static bool check_flags(const check *c) {
  uint64_t rflags = c->regs.rflags;
  uint64_t reserved = rflags & (UINT64_MAX << 22 | BIT(15) | BIT(5) | BIT(3));
  if (reserved) {
    return broken(c, "rflags bit %d is reserved", __builtin_ctzll(reserved));
  }
  if (rflags & rflags_vm && (c->sregs.efer & efer_lma || !(c->sregs.cr0 & cr0_pe))) {
    return broken(c, "rflags bit 17 (VM) is set %s",
                  c->sregs.efer & efer_lma ? "in long mode (efer.LMA)"
                                           : "outside of protected mode (cr0.PE)");
  }
  return false;
}

static bool check_rip(const check *c) {
  uint64_t rip = c->regs.rip;
  if (c->sregs.efer & efer_lma && c->sregs.cs.l) {
    return !is_canonical(c, rip) && broken(c, "rip 0x%" PRIx64 " is not canonical", rip);
  }
  return rip >> 32 &&
         broken(c, "rip 0x%" PRIx64 " has more than 32 bits outside of 64-bit code", rip);
}

/* ---- All of it ---- */

static bool check_registers(const check *c) {
  return check_cr0(c) || CHECK_BITS(c, "cr4", c->sregs.cr4, cr4_bits) ||
         CHECK_BITS(c, "efer", c->sregs.efer, efer_bits) || check_mode(c) || check_cr3(c) ||
         check_apic_base(c) || check_flags(c) || check_segments(c) || check_rip(c);
}

static int run_checks(const check *c) {
  return check_registers(c) ? LUNA_CHECK_REGISTERS : check_pdptes(c) ? LUNA_CHECK_PDPTES : 0;
}

static int begin(check *c, luna_vcpu *vcpu) {
  const struct kvm_sregs *sregs = luna_state_sregs(vcpu);
  int status = sregs ? luna_state_general(vcpu, &c->regs) : luna_error_status();
  if (status == LUNA_OK) {
    c->sregs = *sregs;
  }
  return status;
}

int luna_check_find(luna_vcpu *vcpu, bool strict, char *text, size_t room) {
  check c = {.vcpu = vcpu, .strict = strict, .text = text, .room = room};
  int status = begin(&c, vcpu);
  return status == LUNA_OK ? run_checks(&c) : status;
}

bool luna_check_registers(luna_vcpu *vcpu, const struct kvm_regs *regs,
                          const struct kvm_sregs *sregs, char *text, size_t room) {
  const check c = {
      .vcpu = vcpu, .strict = true, .text = text, .room = room, .regs = *regs, .sregs = *sregs};
  return run_checks(&c);
}

bool luna_check_efer(luna_vcpu *vcpu, uint64_t efer, char *text, size_t room) {
  const check c = {.vcpu = vcpu, .text = text, .room = room};
  return CHECK_BITS(&c, "efer", efer, efer_bits);
}

bool luna_check_canonical(luna_vcpu *vcpu, uint64_t address) {
  const struct kvm_sregs *sregs = luna_state_sregs(vcpu);
  const check c = {.sregs.cr4 = sregs ? sregs->cr4 : 0};
  return is_canonical(&c, address);
}
