/* SPDX-License-Identifier: MIT
 * HLT, software interrupts, far transfers, segment registers, descriptor-table registers. */
#include "soft/deliver/deliver.h"
#include "soft/execute/control.h"
#include "soft/execute/execute.h"
#include "soft/vmx/instruction.h"

/* A 16-, 32- or 64-bit source whose size is not the handler's. */
static uint64_t read_sized(soft_cpu *cpu, const soft_insn *insn, unsigned size) {
  if (insn->to_kind == SOFT_REGISTER) {
    return soft_get(cpu, insn->to, (int)size * 8);
  }
  return soft_load_slow(cpu, soft_address(cpu, insn, size, SOFT_READ), size);
}

/* 16 bits into memory, the operand size into a register. */
static void write_selector(soft_cpu *cpu, const soft_insn *insn, uint64_t value) {
  if (insn->to_kind == SOFT_MEMORY) {
    soft_store(cpu, soft_address(cpu, insn, 2, SOFT_WRITE), value, 16);
  } else {
    soft_put(cpu, insn->to, value, insn->operand_size * 8);
  }
}

SOFT_OP(ud) {
  cpu->current = insn;
  soft_raise(cpu, VECTOR_UD);
}

/* Bytes that are no instruction, or one of more than 15 bytes. */
SOFT_OP(unknown) {
  cpu->current = insn;
  if (insn->extra) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
  soft_raise(cpu, VECTOR_UD);
}

SOFT_OP(hlt) {
  soft_need_ring_0(cpu, insn);
  if (soft_asks(cpu, CPU_BASED_HLT)) {
    soft_vmx_exit(cpu, insn, VMX_REASON_HLT, 0);
  }
  cpu->rip = soft_rip_after(cpu, insn);
  cpu->halted = true;
  return NULL;
}

/* There where the vCPU's table says so, and for ring 0 alone. */
static void need_monitor(soft_cpu *cpu, const soft_insn *insn, uint32_t control, uint32_t reason) {
  cpu->current = insn;
  if (soft_asks(cpu, control) && !cpu->cpl) {
    soft_vmx_exit(cpu, insn, reason, 0);
  }
  if (!(soft_cpuid(cpu, 1, 0)->ecx & 8) || cpu->cpl) {
    soft_raise(cpu, VECTOR_UD);
  }
}

/* The byte is read for its faults alone: MWAIT waits for no store. */
SOFT_OP(monitor) {
  need_monitor(cpu, insn, CPU_BASED_MONITOR, VMX_REASON_MONITOR);
  if ((uint32_t)cpu->r[RCX]) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
  soft_load(cpu, soft_address(cpu, insn, 1, SOFT_READ), 8);
  SOFT_NEXT;
}

/* A wait that may end at any time ends at once, as with KVM. Bit 0 of ECX is there where leaf 5
 * says that masked interrupts may end it. */
SOFT_OP(mwait) {
  need_monitor(cpu, insn, CPU_BASED_MWAIT, VMX_REASON_MWAIT);
  uint32_t known = (soft_cpuid(cpu, 5, 0)->ecx & 3) == 3;
  if ((uint32_t)cpu->r[RCX] & ~known) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
  soft_look_around(cpu);
  SOFT_END;
}

SOFT_OP(pause) {
  if (soft_asks(cpu, CPU_BASED_PAUSE)) {
    soft_vmx_exit(cpu, insn, VMX_REASON_PAUSE, 0);
  }
  SOFT_NEXT;
}

/* ---- Interrupts by instructions ---- */

static const soft_insn *interrupt(soft_cpu *cpu, const soft_insn *insn, unsigned vector,
                                  soft_source source) {
  cpu->current = insn;
  soft_software_interrupt(cpu, vector, source, soft_rip_after(cpu, insn));
  return NULL;
}

SOFT_OP(int_n) {
  return interrupt(cpu, insn, (unsigned)insn->immediate, SOFT_FROM_INT);
}

/* A breakpoint of user space where it asks for them. */
SOFT_OP(int3) {
  unsigned wanted = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP;
  cpu->current = insn;
  if ((cpu->debug.control & wanted) == wanted) {
    struct kvm_run *run = cpu->run;
    run->exit_reason = KVM_EXIT_DEBUG;
    run->debug.arch.exception = VECTOR_BP;
    run->debug.arch.pc = cpu->cs_base + soft_rip_at(cpu, insn);
    run->debug.arch.dr6 = 0;
    run->debug.arch.dr7 = DR7_FIXED;
    soft_leave(cpu, SOFT_ESCAPE_EXIT);
  }
  return interrupt(cpu, insn, VECTOR_BP, SOFT_FROM_INT3);
}

SOFT_OP(into) {
  if (!soft_of(cpu)) {
    SOFT_NEXT;
  }
  return interrupt(cpu, insn, VECTOR_OF, SOFT_FROM_INT3);
}

/* A data breakpoint that a load of SS has held back is this one's. */
SOFT_OP(int1) {
  if (soft_traps(cpu, VECTOR_DB)) { /* which leaves DR7 as it is */
    return interrupt(cpu, insn, VECTOR_DB, SOFT_FROM_INT1);
  }
  cpu->pending_debug = 0;
  cpu->dr[7] &= ~(uint64_t)DR7_GD; /* as for any debug exception */
  return interrupt(cpu, insn, VECTOR_DB, SOFT_FROM_INT1);
}

SOFT_OP(iret) {
  cpu->current = insn;
  soft_iret(cpu, insn->operand_size);
  soft_nmi_ended(cpu);
  soft_look_around(cpu);
  return NULL;
}

/* ---- Far transfers ---- */

static unsigned far_pointer(soft_cpu *cpu, const soft_insn *insn, uint64_t *offset) {
  unsigned size = insn->operand_size;
  if (insn->to_kind != SOFT_MEMORY && insn->from_kind != SOFT_MEMORY) {
    *offset = insn->immediate;
    return (unsigned)insn->displacement;
  }
  uint64_t linear = soft_address(cpu, insn, size + 2, SOFT_READ);
  *offset = soft_load_slow(cpu, linear, size);
  return (unsigned)soft_load_slow(cpu, linear + size, 2);
}

SOFT_OP(jmp_far) {
  uint64_t offset;
  cpu->current = insn;
  unsigned selector = far_pointer(cpu, insn, &offset);
  soft_jump_far(cpu, selector, offset, insn->operand_size, soft_rip_after(cpu, insn));
  return NULL;
}

SOFT_OP(call_far) {
  uint64_t offset;
  cpu->current = insn;
  unsigned selector = far_pointer(cpu, insn, &offset);
  soft_call_far(cpu, selector, offset, insn->operand_size, soft_rip_after(cpu, insn));
  return NULL;
}

SOFT_OP(ret_far) {
  cpu->current = insn;
  soft_ret_far(cpu, insn->operand_size, (unsigned)insn->immediate & 0xffff);
  return NULL;
}

/* ---- Segment registers ---- */

static void shadow_stack_load(soft_cpu *cpu, const soft_insn *insn) {
  if (insn->extra == SEG_SS) {
    cpu->shadow = KVM_X86_SHADOW_INT_MOV_SS;
    soft_look_around(cpu);
  }
}

SOFT_OP(mov_to_segment) {
  cpu->current = insn;
  unsigned selector = (unsigned)read_sized(cpu, insn, 2);
  if (insn->extra == SEG_CS || insn->extra > SEG_GS) {
    soft_raise(cpu, VECTOR_UD);
  }
  soft_load_segment(cpu, insn->extra, selector);
  shadow_stack_load(cpu, insn);
  SOFT_END;
}

SOFT_OP(mov_from_segment) {
  write_selector(cpu, insn, cpu->seg[insn->extra].selector);
  SOFT_NEXT;
}

/* 32-bit pushes of a segment register write 16 bits. */
SOFT_OP(push_segment) {
  uint64_t sp = cpu->r[RSP], selector = cpu->seg[insn->extra].selector;
  cpu->current = insn;
  if (insn->operand_size == 4) {
    sp -= 4;
    soft_store(cpu, soft_stack(cpu, sp, 2, SOFT_WRITE), selector, 16);
  } else {
    soft_push(cpu, &sp, selector, insn->operand_size);
  }
  soft_set_stack(cpu, sp);
  SOFT_NEXT_BY_LOOP;
}

SOFT_OP(pop_segment) {
  uint64_t sp = cpu->r[RSP];
  cpu->current = insn;
  uint64_t selector = soft_load(cpu, soft_stack(cpu, sp, 2, SOFT_READ), 16);
  uint64_t mask = cpu->stack_mask;
  soft_load_segment(cpu, insn->extra, (unsigned)selector);
  sp += insn->operand_size;
  cpu->r[RSP] = mask == 0xffff ? (cpu->r[RSP] & ~mask) | (sp & mask) : sp & mask;
  shadow_stack_load(cpu, insn);
  SOFT_END;
}

SOFT_OP(load_far) {
  uint64_t offset;
  cpu->current = insn;
  unsigned selector = far_pointer(cpu, insn, &offset);
  soft_load_segment(cpu, insn->extra, selector);
  soft_put(cpu, insn->to, offset, insn->operand_size * 8);
  SOFT_END;
}

SOFT_OP(swapgs) {
  soft_need_ring_0(cpu, insn);
  uint64_t base = cpu->seg[SEG_GS].base;
  cpu->seg[SEG_GS].base = cpu->kernel_gs;
  cpu->kernel_gs = base;
  SOFT_NEXT;
}

static void need_fsgsbase(soft_cpu *cpu, const soft_insn *insn) {
  cpu->current = insn;
  if (!(cpu->cr4 & CR4_FSGSBASE)) {
    soft_raise(cpu, VECTOR_UD);
  }
}

SOFT_OP(rdbase) {
  need_fsgsbase(cpu, insn);
  soft_put(cpu, insn->to, cpu->seg[insn->extra].base, insn->operand_size * 8);
  SOFT_NEXT;
}

SOFT_OP(wrbase) {
  need_fsgsbase(cpu, insn);
  uint64_t base = soft_get(cpu, insn->to, insn->operand_size * 8);
  if (!soft_canonical(cpu, base)) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
  cpu->seg[insn->extra].base = base;
  SOFT_NEXT;
}

/* ---- Descriptor-table registers ---- */

static void load_table(soft_cpu *cpu, const soft_insn *insn, struct kvm_dtable *table) {
  unsigned size = soft_is_64(cpu) ? 8 : 4;
  soft_need_ring_0(cpu, insn);
  if (soft_asks_further(cpu, CPU_BASED2_DESC_TABLE)) {
    soft_vmx_exit_gdt(cpu, insn, table == &cpu->gdt ? SOFT_IS_LGDT : SOFT_IS_LIDT);
  }
  uint64_t linear = soft_address(cpu, insn, size + 2, SOFT_READ);
  uint64_t limit = soft_load(cpu, linear, 16), base = soft_load_slow(cpu, linear + 2, size);
  if (size == 4 && insn->operand_size == 2) {
    base &= 0xffffff;
  }
  if (size == 8 && !soft_canonical(cpu, base)) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
  table->base = base;
  table->limit = (uint16_t)limit;
}

/* UMIP keeps programs from what tells where the system's tables lie. */
static void need_no_umip(soft_cpu *cpu, const soft_insn *insn) {
  cpu->current = insn;
  if (cpu->cr4 & CR4_UMIP && cpu->cpl) {
    soft_fault(cpu, VECTOR_GP, 0);
  }
}

static void store_table(soft_cpu *cpu, const soft_insn *insn, const struct kvm_dtable *table) {
  unsigned size = soft_is_64(cpu) ? 8 : 4;
  need_no_umip(cpu, insn);
  if (soft_asks_further(cpu, CPU_BASED2_DESC_TABLE)) {
    soft_vmx_exit_gdt(cpu, insn, table == &cpu->gdt ? SOFT_IS_SGDT : SOFT_IS_SIDT);
  }
  uint64_t linear = soft_address(cpu, insn, size + 2, SOFT_WRITE);
  uint8_t image[10];
  soft_poke(image, table->limit, 16);
  soft_poke(image + 2, table->base, 64);
  soft_store_bytes(cpu, linear, image, size + 2);
}

SOFT_OP(lgdt) {
  load_table(cpu, insn, &cpu->gdt);
  SOFT_NEXT_BY_LOOP;
}

SOFT_OP(lidt) {
  load_table(cpu, insn, &cpu->idt);
  SOFT_NEXT_BY_LOOP;
}

SOFT_OP(sgdt) {
  store_table(cpu, insn, &cpu->gdt);
  SOFT_NEXT_BY_LOOP;
}

SOFT_OP(sidt) {
  store_table(cpu, insn, &cpu->idt);
  SOFT_NEXT_BY_LOOP;
}

static void need_protected(soft_cpu *cpu, const soft_insn *insn) {
  cpu->current = insn;
  if (soft_is_real(cpu) || soft_is_vm86(cpu)) {
    soft_raise(cpu, VECTOR_UD);
  }
}

/* Behind the faults of privilege. */
static void offer_ldt(soft_cpu *cpu, const soft_insn *insn, unsigned which) {
  if (soft_asks_further(cpu, CPU_BASED2_DESC_TABLE)) {
    soft_vmx_exit_ldt(cpu, insn, which);
  }
}

SOFT_OP(lldt) {
  need_protected(cpu, insn);
  soft_need_ring_0(cpu, insn);
  offer_ldt(cpu, insn, SOFT_IS_LLDT);
  soft_load_ldt(cpu, (unsigned)read_sized(cpu, insn, 2), VECTOR_GP, VECTOR_NP);
  SOFT_NEXT_BY_LOOP;
}

SOFT_OP(ltr) {
  need_protected(cpu, insn);
  soft_need_ring_0(cpu, insn);
  offer_ldt(cpu, insn, SOFT_IS_LTR);
  soft_load_tr(cpu, (unsigned)read_sized(cpu, insn, 2));
  SOFT_NEXT_BY_LOOP;
}

SOFT_OP(sldt) {
  need_protected(cpu, insn);
  need_no_umip(cpu, insn);
  offer_ldt(cpu, insn, SOFT_IS_SLDT);
  write_selector(cpu, insn, cpu->ldt.selector);
  SOFT_NEXT;
}

SOFT_OP(str) {
  need_protected(cpu, insn);
  need_no_umip(cpu, insn);
  offer_ldt(cpu, insn, SOFT_IS_STR);
  write_selector(cpu, insn, cpu->tr.selector);
  SOFT_NEXT;
}

SOFT_OP(smsw) {
  need_no_umip(cpu, insn);
  write_selector(cpu, insn, soft_cr0_seen(cpu));
  SOFT_NEXT;
}

/* ---- Questions about selectors ---- */

/* A descriptor that the program may know of at its and the selector's privilege. */
static bool is_visible(soft_cpu *cpu, unsigned selector, soft_descriptor *d) {
  if (soft_is_null(selector) || !soft_descriptor_find(cpu, selector, d)) {
    return false;
  }
  unsigned dpl = soft_dpl(*d);
  return soft_is_conforming(*d) || (dpl >= cpu->cpl && dpl >= (selector & 3));
}

static unsigned asked_selector(soft_cpu *cpu, const soft_insn *insn) {
  need_protected(cpu, insn);
  return (unsigned)soft_from(cpu, insn, 16);
}

/* Types of system descriptors that LAR and LSL tell of, one bit each. */
static bool is_told(const soft_cpu *cpu, soft_descriptor d, unsigned legacy, unsigned in_long) {
  unsigned types = soft_is_long(cpu) ? in_long : legacy;
  return !soft_is_system(d) || types >> soft_type(d) & 1;
}

SOFT_OP(lar) {
  unsigned selector = asked_selector(cpu, insn);
  soft_descriptor d;
  bool told = is_visible(cpu, selector, &d) && is_told(cpu, d, 0x1a3e, 0x1a04);
  if (told) {
    soft_put(cpu, insn->to, d.bits >> 32 & 0xffff00, insn->operand_size * 8);
  }
  soft_set_zf(cpu, told);
  SOFT_NEXT_BY_LOOP;
}

SOFT_OP(lsl) {
  unsigned selector = asked_selector(cpu, insn);
  soft_descriptor d;
  bool told = is_visible(cpu, selector, &d) && is_told(cpu, d, 0x0a0e, 0x0a04);
  if (told) {
    soft_put(cpu, insn->to, soft_segment_from(selector, d).limit, insn->operand_size * 8);
  }
  soft_set_zf(cpu, told);
  SOFT_NEXT_BY_LOOP;
}

SOFT_OP(verr) {
  need_protected(cpu, insn);
  soft_descriptor d;
  bool may = is_visible(cpu, (unsigned)read_sized(cpu, insn, 2), &d) && !soft_is_system(d) &&
             (!soft_is_code(d) || soft_type(d) & SEGMENT_WRITE);
  soft_set_zf(cpu, may);
  SOFT_NEXT_BY_LOOP;
}

SOFT_OP(verw) {
  need_protected(cpu, insn);
  soft_descriptor d;
  bool may = is_visible(cpu, (unsigned)read_sized(cpu, insn, 2), &d) && !soft_is_system(d) &&
             !soft_is_code(d) && soft_type(d) & SEGMENT_WRITE;
  soft_set_zf(cpu, may);
  SOFT_NEXT_BY_LOOP;
}

SOFT_OP(arpl) {
  need_protected(cpu, insn);
  uint64_t linear, selector = soft_read_to(cpu, insn, &linear, SOFT_WRITE, 16);
  uint64_t rpl = soft_get(cpu, insn->from, 16) & 3;
  bool raises = (selector & 3) < rpl;
  if (raises) {
    soft_write_to(cpu, insn, linear, (selector & ~UINT64_C(3)) | rpl, 16);
  }
  soft_set_zf(cpu, raises);
  SOFT_NEXT_BY_LOOP;
}
