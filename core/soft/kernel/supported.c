/* SPDX-License-Identifier: MIT
 * KVM_GET_SUPPORTED_CPUID: what the host's processor has and the software CPU does, and what the
 * software CPU has by itself. */
#include "soft/kernel/kernel.h"
#include "soft/vector/vector.h"

#include <errno.h>
#include <string.h>

#define BIT(number) (1u << (number))

enum {
  /* Leaf 1, ECX: that the host has to have, for the host does it. */
  HOST_1_ECX = BIT(0) | BIT(1) | BIT(9) | BIT(12) | BIT(13) | BIT(19) | BIT(20) | BIT(25) |
               BIT(26) | BIT(28) | BIT(29) | BIT(30),
  /* PCID, x2APIC, MOVBE, POPCNT, the TSC deadline. */
  OWN_1_ECX = BIT(17) | BIT(21) | BIT(22) | BIT(23) | BIT(24),
  HYPERVISOR = (int)BIT(31),
  /* Leaf 1, EDX: all from FPU to SSE2 but PSN, DS, ACPI; HTT as the host. */
  LEAF_1_EDX = 0x178bfbff,
  /* Leaf 7, EBX: BMI1, AVX2, BMI2, ADX, SHA and what caches do. */
  HOST_7_EBX = BIT(3) | BIT(5) | BIT(8) | BIT(18) | BIT(19) | BIT(23) | BIT(24) | BIT(29),
  /* AVX-512's, where the host has all that goes with them: F, DQ, IFMA, CD, BW, VL; VBMI, VBMI2,
   * VNNI, BITALG, VPOPCNTDQ; FP16; and of the next index BF16. */
  AVX512_7_EBX = (int)(BIT(16) | BIT(17) | BIT(21) | BIT(28) | BIT(30) | BIT(31)),
  AVX512_7_ECX = BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14),
  AVX512_7_EDX = BIT(23),
  AVX512_71_EAX = BIT(5),
  /* FSGSBASE, TSC_ADJUST, SMEP, ERMS, INVPCID, SMAP. */
  OWN_7_EBX = BIT(0) | BIT(1) | BIT(7) | BIT(9) | BIT(10) | BIT(20),
  /* GFNI, VAES, VPCLMULQDQ. */
  HOST_7_ECX = BIT(8) | BIT(9) | BIT(10),
  /* UMIP, PKU, RDPID. */
  OWN_7_ECX = BIT(2) | BIT(3) | BIT(22),
  /* Leaf 0x80000001, ECX: LAHF, LZCNT, SSE4A, misaligned SSE, PREFETCHW. */
  HOST_81_ECX = BIT(6) | BIT(7),
  OWN_81_ECX = BIT(0) | BIT(5) | BIT(8),
  /* EDX: SYSCALL, NX, 1-GiB pages, RDTSCP, long mode. */
  OWN_81_EDX = BIT(11) | BIT(20) | BIT(26) | BIT(27) | BIT(29),
  HOST_81_EDX = 0x0183f3ff | BIT(22),
  /* kvmclock, old and new, stable; port 0x80 is not waited for; the hypercalls of
   * irqchip/hypercall.c: asm/kvm_para.h. */
  KVM_FEATURES = BIT(0) | BIT(1) | BIT(3) | BIT(7) | BIT(11) | BIT(13) | BIT(24),
  ADDRESS_SIZES = 48 << 8 | SOFT_ADDRESS_BITS
};

/* Which leaves there are, and with how many indices. */
static const struct {
  uint32_t leaf;
  uint32_t indices;
} leaves[] = {
    {0, 1},          {1, 1},          {2, 1},          {4, 5},          {5, 1},
    {6, 1},          {7, 2},          {0xb, 2},        {0xd, 10},       {0x40000000, 1},
    {0x40000001, 1}, {0x80000000, 1}, {0x80000001, 1}, {0x80000002, 1}, {0x80000003, 1},
    {0x80000004, 1}, {0x80000005, 1}, {0x80000006, 1}, {0x80000007, 1}, {0x80000008, 1},
};

static void ask_host(struct kvm_cpuid_entry2 *entry) {
  __asm__ volatile("cpuid"
                   : "=a"(entry->eax), "=b"(entry->ebx), "=c"(entry->ecx), "=d"(entry->edx)
                   : "a"(entry->function), "c"(entry->index));
}

static void clear(struct kvm_cpuid_entry2 *entry) {
  entry->eax = entry->ebx = entry->ecx = entry->edx = 0;
}

/* XSAVE's areas: x87, SSE, AVX, AVX-512 and PKRU. */
static void set_xsave(struct kvm_cpuid_entry2 *entry) {
  uint32_t known = (uint32_t)soft_xcr0_known(), index = entry->index;
  if (index == 0) {
    entry->eax = known;
    entry->ebx = entry->ecx = soft_xsave_size(known, false);
    entry->edx = 0;
  } else if (index == 1) {
    clear(entry);
    entry->eax = 15; /* XSAVEOPT, XSAVEC, XGETBV with ECX 1, XSAVES */
    entry->ebx = soft_xsave_size(known, true);
  } else if (index == 9) {
    entry->eax = 8;
    entry->ebx = soft_component_at(SOFT_AREA_PKRU);
    entry->ecx = entry->edx = 0;
  } else if (!(known >> index & 1)) {
    clear(entry);
  } else {
    entry->ecx = entry->edx = 0; /* XCR0's, and as they come in compacted areas */
  }
}

static void set_topology(struct kvm_cpuid_entry2 *entry) {
  uint32_t level = entry->index;
  clear(entry);
  entry->eax = level ? 6 : 0;
  entry->ebx = 1;
  entry->ecx = level | (level + 1) << 8;
}

/* Leaf 7. */
static void set_extended(struct kvm_cpuid_entry2 *entry) {
  uint32_t wide = soft_has_avx512() ? ~0u : 0;
  if (entry->index) {
    entry->eax &= AVX512_71_EAX & wide;
    entry->ebx = entry->ecx = entry->edx = 0;
    return;
  }
  entry->eax = 1; /* the last index */
  entry->ebx = (entry->ebx & (HOST_7_EBX | ((uint32_t)AVX512_7_EBX & wide))) | OWN_7_EBX;
  entry->ecx = (entry->ecx & (HOST_7_ECX | (AVX512_7_ECX & wide))) | OWN_7_ECX;
  entry->edx &= AVX512_7_EDX & wide;
}

static void set_features(struct kvm_cpuid_entry2 *entry) {
  switch (entry->function) {
    case 0:
      entry->eax = 0xd;
      break;
    case 1:
      entry->ebx &= 0xff00; /* CLFLUSH's line; the rest says which processor it is */
      entry->ecx = (entry->ecx & HOST_1_ECX) | OWN_1_ECX | (uint32_t)HYPERVISOR;
      entry->edx &= LEAF_1_EDX & ~BIT(28);
      break;
    case 7:
      set_extended(entry);
      break;
    case 0x80000001:
      entry->ecx = (entry->ecx & HOST_81_ECX) | OWN_81_ECX;
      entry->edx = (entry->edx & HOST_81_EDX) | OWN_81_EDX;
      break;
    default:
      break;
  }
}

static void set_other(struct kvm_cpuid_entry2 *entry) {
  switch (entry->function) {
    case 5:
      clear(entry);
      break;
    case 6:
      clear(entry);
      entry->eax = BIT(2); /* the LAPIC's timer never stops */
      break;
    case 0xb:
      set_topology(entry);
      break;
    case 0xd:
      set_xsave(entry);
      break;
    case 0x40000000:
      entry->eax = 0x40000001;
      memcpy(&entry->ebx, "KVMKVMKVM\0\0", 12);
      break;
    case 0x40000001:
      clear(entry);
      entry->eax = KVM_FEATURES;
      break;
    case 0x80000000:
      entry->eax = 0x80000008;
      break;
    case 0x80000007:
      clear(entry);
      entry->edx = BIT(8); /* the TSC never stops */
      break;
    case 0x80000008:
      clear(entry);
      entry->eax = ADDRESS_SIZES;
      break;
    default:
      break;
  }
}

static bool has_indices(uint32_t leaf) {
  return leaf == 4 || leaf == 7 || leaf == 0xb || leaf == 0xd;
}

int soft_supported_cpuid(struct kvm_cpuid2 *table) {
  uint32_t count = 0;
  for (size_t i = 0; i < sizeof leaves / sizeof *leaves; i++) {
    for (uint32_t index = 0; index < leaves[i].indices; index++) {
      if (count == table->nent) {
        return soft_refuse(E2BIG);
      }
      struct kvm_cpuid_entry2 *entry = &table->entries[count++];
      *entry = (struct kvm_cpuid_entry2){
          .function = leaves[i].leaf,
          .index = index,
          .flags = has_indices(leaves[i].leaf) ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0};
      ask_host(entry);
      set_features(entry);
      set_other(entry);
    }
  }
  table->nent = count;
  return 0;
}
