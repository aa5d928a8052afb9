/* SPDX-License-Identifier: MIT
 * Part of lunavisor.h: guest-linear addresses (gva), the guest's own page tables, and its code as
 * text. Segment bases are not applied: the linear address of code in real mode is CS.base + RIP. */
#ifndef LUNAVISOR_LINEAR_H
#define LUNAVISOR_LINEAR_H
#ifndef LUNA_API
#error "a part of lunavisor.h, which is to be included"
#endif

typedef enum luna_paging {
  LUNA_PAGING_NONE = 0,
  LUNA_PAGING_32 = 1,
  LUNA_PAGING_PAE = 2,
  LUNA_PAGING_4_LEVEL = 3,
  LUNA_PAGING_5_LEVEL = 4
} luna_paging;

/* One walk through the guest's page tables (SDM Vol. 3, 4.3 to 4.5). The rights are what the
 * entries give: CR0.WP, CR4.SMEP and CR4.SMAP are not applied. */
typedef struct luna_walk {
  uint64_t gpa;           /* where the address leads, if `present` */
  uint64_t page_size;     /* of the page it is in (4 GiB without paging), if `present` */
  uint64_t entries[5];    /* the paging-structure entries met, from the root on */
  uint64_t entry_gpas[5]; /* where they are */
  uint32_t entry_count;   /* 0 without paging */
  uint32_t paging;        /* luna_paging */
  uint32_t present;       /* 1: the walk came to a page */
  uint32_t rights;        /* luna_access bits that the entries give, to supervisor mode */
  uint32_t user;          /* 1: they are given to user mode too */
  uint32_t reserved;      /* 1: it ended at an entry with a reserved bit set */
  uint32_t missing;       /* the level of the entry that the walk ended at, 1 for a page table's;
                              0 if `present`, and if no table is looked at: the address is not
                              canonical, or above 4 GiB outside of long mode */
} luna_walk;

/* Translates a linear address by what CR0, CR3, CR4 and EFER say now, writes that wait for the next
 * entry included, and by the vCPU's own CPUID: the width of a physical address (leaf 0x80000008),
 * 1-GByte pages (0x80000001), PSE-36 (1). An address that leads nowhere is no error: `present` is
 * 0. The four entries of PAE's page-directory-pointer table are those in memory at CR3; a processor
 * uses the ones that it loaded with CR3. _NOT_FOUND where a table lies in unmapped memory. */
LUNA_API int luna_vcpu_translate(luna_vcpu *vcpu, uint64_t gva, luna_walk *walk);
/* Copies between `bytes` and guest memory at a linear address, across pages (`access`: LUNA_READ or
 * LUNA_WRITE), whatever rights the guest has. _NOT_FOUND names the first address that leads
 * nowhere, and nothing was copied. */
LUNA_API int luna_vcpu_copy(luna_vcpu *vcpu, uint64_t gva, void *bytes, uint64_t size,
                            uint32_t access);

/* Bytes of code, with what it takes to read them as instructions. */
typedef struct luna_code {
  uint32_t size; /* bytes that can be read, 1 to 15 */
  uint32_t bits; /* of the code segment: 16, 32 or 64 */
  uint8_t bytes[16];
} luna_code;

/* The code at an offset in the code segment, such as rip or a return address: as much of the
 * longest instruction as the guest's page tables lead to. _NOT_FOUND where that is nothing. */
LUNA_API int luna_vcpu_code(luna_vcpu *vcpu, uint64_t rip, luna_code *code);

typedef struct luna_instruction {
  uint64_t address;
  uint32_t size; /* bytes of it */
  uint32_t reserved;
  uint8_t bytes[16];
  char text[192]; /* "mov eax, [rbx]", as nasm reads it */
} luna_instruction;

/* Disassembles the first instruction in `size` bytes, which lie at `address` in code of 16, 32 or
 * 64 `bits`. _UNSUPPORTED in a build without Zydis, _NOT_FOUND where the bytes are no instruction.
 * Any thread. */
LUNA_API int luna_disassemble(const void *bytes, size_t size, uint64_t address, uint32_t bits,
                              luna_instruction *instruction);
/* The instruction at the vCPU's rip, which is its `address`. */
LUNA_API int luna_vcpu_instruction(luna_vcpu *vcpu, luna_instruction *instruction);

#endif
