/* SPDX-License-Identifier: MIT
 * Part of lunavisor.h: the state of a vCPU beyond its numbered registers. None of the calls on a
 * vCPU may be made while it runs; LUNA_ERROR_STATE where it is started and its thread has it. */
#ifndef LUNAVISOR_STATE_H
#define LUNAVISOR_STATE_H
#ifndef LUNA_API
#error "a part of lunavisor.h, which is to be included"
#endif

typedef enum luna_vector {
  LUNA_VECTOR_ST = 0,  /* 0 to 7, by their place in the file, not on the stack: 10 bytes */
  LUNA_VECTOR_XMM = 1, /* 0 to 15, with AVX-512 to 31: 16 bytes */
  LUNA_VECTOR_YMM = 2, /* the same: 32 bytes */
  LUNA_VECTOR_ZMM = 3, /* 0 to 31: 64 bytes */
  LUNA_VECTOR_K = 4    /* 0 to 7: 8 bytes */
} luna_vector;

/* Reads register `index` of a kind (luna_vector) into `bytes`, of the kind's size. _ARGUMENT for a
 * kind, index or size that is none, _UNSUPPORTED where this host's processor does not have it. A
 * write between an exit that is open and its answer is before the instruction that exited: one that
 * loads the register from a device overwrites it. */
LUNA_API int luna_vcpu_get_vector(luna_vcpu *vcpu, int kind, uint32_t index, void *bytes,
                                  size_t size);
LUNA_API int luna_vcpu_set_vector(luna_vcpu *vcpu, int kind, uint32_t index, const void *bytes,
                                  size_t size);
/* The whole x87, SSE and AVX state in the standard form of XSAVE (SDM Vol. 1, 13.4), which has
 * luna_vcpu_xsave_size bytes. A shorter `size`, 512 or from 576 on: only that part. With
 * 512, x87 and SSE count as written. */
LUNA_API uint32_t luna_vcpu_xsave_size(const luna_vcpu *vcpu);
LUNA_API int luna_vcpu_get_xsave(luna_vcpu *vcpu, void *area, size_t size);
LUNA_API int luna_vcpu_set_xsave(luna_vcpu *vcpu, const void *area, size_t size);

/* A model-specific register by its number. _NOT_FOUND where KVM has none of that number for this
 * vCPU, _RANGE where it refuses the value, _UNSUPPORTED for the time-stamp counter where guests
 * read the host's. EFER, APIC_BASE, FS_BASE and GS_BASE are the registers LUNA_EFER,
 * LUNA_APIC_BASE, LUNA_FS_BASE and LUNA_GS_BASE by another name. */
LUNA_API int luna_vcpu_get_msr(luna_vcpu *vcpu, uint32_t index, uint64_t *value);
LUNA_API int luna_vcpu_set_msr(luna_vcpu *vcpu, uint32_t index, uint64_t value);

/* The SDM's name of an MSR ("IA32_EFER"; Vol. 4, chapter 2), or NULL. */
LUNA_API const char *luna_msr_name(uint32_t index);
/* The MSR of that name, in any case, with or without "IA32_" or "MSR_". _NOT_FOUND without one. */
LUNA_API int luna_msr_find(const char *name, uint32_t *index);

/* What CPUID answers to one leaf. */
typedef struct luna_cpuid {
  uint32_t leaf;    /* EAX of the question */
  uint32_t subleaf; /* ECX of the question, where `indexed` */
  uint32_t indexed; /* 1: the leaf has subleaves */
  uint32_t eax;
  uint32_t ebx;
  uint32_t ecx;
  uint32_t edx;
} luna_cpuid;

/* The `index`th answer of the vCPU's CPUID table, from 0; _NOT_FOUND behind the last. A new vCPU
 * has what this host's KVM supports (KVM_GET_SUPPORTED_CPUID), with its own number as APIC ID. */
LUNA_API int luna_vcpu_cpuid_next(luna_vcpu *vcpu, uint32_t index, luna_cpuid *answer);
/* Replaces the whole table. Before the vCPU's first run: KVM takes no other table later (_STATE).
 */
LUNA_API int luna_vcpu_set_cpuid(luna_vcpu *vcpu, const luna_cpuid *answers, size_t count);

/* The whole state of the vCPU as bytes with a version: registers, system registers, events, XCR0,
 * extended state, debug registers, MSRs with the time-stamp counter and, with a LAPIC in KVM, that
 * and the MP state; what waits for the next entry: an NMI, an SMI, vectors without a LAPIC; and
 * KVM's clock for guests, which a restored state sets forward for the whole VM, but never back. Not
 * memory, CPUID, the LAPIC's number and whether it is the bootstrap processor's; nor breakpoints,
 * which are the library's. The same bytes again until something changes: what counts time is that
 * of the first time since the vCPU ran. `*size` is the room on entry and the length on return;
 * `state` NULL only asks for the length, and _RANGE says that the room does not hold it. _STATE
 * while an exit is open: answer it first. Where the instruction whose exit was answered makes a
 * further access, the state is that before it, and the access is the vCPU's next exit. */
LUNA_API int luna_vcpu_save(luna_vcpu *vcpu, void *state, size_t *size);
/* Puts a state back that luna_vcpu_save gave, in this or another process with the same kind of
 * host. _ARGUMENT for bytes that are no state, of another version or of another kind of host: then
 * nothing is changed. An open exit is dropped, and what waited for the next entry. Where KVM
 * refuses a part (_STATE, or the errno's status), what was written before is put back. */
LUNA_API int luna_vcpu_restore(luna_vcpu *vcpu, const void *state, size_t size);

/* Looks for what the processor would refuse in the system registers (SDM Vol. 3, 27.3.1, "Checks on
 * the Guest State Area", and the rules for MOV to CRn and WRMSR of EFER). _STATE, and the message
 * names the register, the bit and the rule. Then, for vCPUs that have a system area and its IDT,
 * whether an exception would become a LUNA_EXIT_EXCEPTION: _NOT_FOUND where the guest's page tables
 * do not map the area one to one, or its space does not have it; the guest would get a triple fault
 * instead. LUNA_OK if nothing is found. */
LUNA_API int luna_vcpu_check(luna_vcpu *vcpu);

#endif
