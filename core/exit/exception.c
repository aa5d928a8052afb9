/* SPDX-License-Identifier: MIT
 * The system area: GDT, IDT, TSS, page tables and one stub a vector in guest memory. A stub is an
 * OUT, so that an exception in the guest becomes an exit; the core then takes the processor's frame
 * off the stack and puts the vCPU back to the instruction that failed. */
#include "vcpu/system.h"

#include "debug/debug.h"
#include "base/error.h"

#include <string.h>

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

void luna_system_write(uint8_t *area, uint64_t gpa, bool long_mode) {
  memset(area, 0, LUNA_SYSTEM_SIZE);
  write_gdt(area, gpa);
  write_stubs(area);
  write_idt(area, gpa, long_mode);
  write_tss(area, gpa);
  write_page_tables(area, gpa);
}

int luna_exception_vector(luna_vcpu *vcpu) {
  if (vcpu->run->io.port != LUNA_EXCEPTION_PORT || vcpu->run->io.size != 1) {
    return -1;
  }
  const struct kvm_regs *regs = luna_state_regs(vcpu);
  uint64_t stubs = vcpu->system + LUNA_SYSTEM_STUBS;
  if (!regs || regs->rip < stubs || regs->rip >= stubs + 256 * LUNA_STUB_SIZE) {
    return -1;
  }
  return (int)((regs->rip - stubs) / LUNA_STUB_SIZE);
}

/* Loads a segment register from the guest's GDT, as the processor would. False if the table or the
 * memory behind it is not there. */
static bool load_segment(luna_vcpu *vcpu, struct kvm_sregs *sregs, struct kvm_segment *segment,
                         uint16_t selector) {
  uint64_t low = 0;
  uint32_t offset = selector & 0xfff8u;
  if (offset == 0 || offset + 7 > sregs->gdt.limit ||
      luna_vm_access(vcpu->vm, vcpu->space, sregs->gdt.base + offset, 8, LUNA_READ, &low) !=
          LUNA_TOUCH_DONE) {
    return false;
  }
  *segment = luna_system_segment(low, selector);
  return true;
}

typedef struct frame {
  uint64_t words[6]; /* error code where there is one, RIP, CS, RFLAGS, RSP, SS */
  uint64_t stack;    /* where the first word is */
  uint32_t count;
  uint32_t width;
} frame;

static bool read_frame(luna_vcpu *vcpu, const struct kvm_sregs *sregs, uint64_t rsp, bool code,
                       frame *f) {
  bool long_mode = sregs->cs.l;
  f->width = long_mode ? 8 : 4;
  f->count = (long_mode ? 5u : 3u) + code;
  f->stack = long_mode ? rsp : (uint32_t)rsp;
  for (uint32_t i = 0; i < f->count; i++) {
    f->words[i] = 0;
    if (luna_vm_access(vcpu->vm, vcpu->space, f->stack + i * f->width, f->width, LUNA_READ,
                       &f->words[i]) != LUNA_TOUCH_DONE) {
      return false;
    }
  }
  return true;
}

/* Undoes what the processor did on its way to the stub. In protected mode the stack did not
 * switch. */
static bool unwind(luna_vcpu *vcpu, struct kvm_sregs *sregs, const frame *f, bool code) {
  const uint64_t *words = f->words + (code ? 1 : 0);
  struct kvm_segment cs;
  struct kvm_segment ss = sregs->ss;
  if (!load_segment(vcpu, sregs, &cs, (uint16_t)words[1])) {
    return false;
  }
  uint64_t rsp = f->stack + f->count * f->width;
  if (f->width == 8) {
    rsp = words[3];
    if ((words[4] & 0xfffc) && !load_segment(vcpu, sregs, &ss, (uint16_t)words[4])) {
      return false;
    }
  }
  sregs->cs = cs;
  sregs->ss = ss;
  vcpu->state.sregs_written = true;
  luna_vcpu_set(vcpu, LUNA_RIP, words[0]);
  luna_vcpu_set(vcpu, LUNA_RFLAGS, words[2]);
  luna_vcpu_set(vcpu, LUNA_RSP, rsp);
  return true;
}

int luna_exception_exit(luna_vcpu *vcpu, int vector) {
  int status = luna_vcpu_settle(vcpu); /* the OUT of the stub */
  if (status != 0 && status != LUNA_EXIT_DEBUG) {
    return status;
  }
  const struct kvm_regs *regs = luna_state_regs(vcpu);
  struct kvm_sregs *sregs = luna_state_sregs(vcpu);
  bool code = luna_exception_has_code((uint32_t)vector);
  frame f;
  if (!regs || !sregs) {
    return luna_error_status();
  }
  if (!read_frame(vcpu, sregs, regs->rsp, code, &f) || !unwind(vcpu, sregs, &f, code)) {
    return luna_fail(LUNA_ERROR_STATE,
                     "vCPU %u took exception %d, but its frame at rsp 0x%llx or the GDT at 0x%llx "
                     "cannot be read: the guest has overwritten what the exception needs",
                     vcpu->id, vector, regs->rsp, sregs->gdt.base);
  }
  int kind = luna_debug_exception(vcpu, vector);
  if (kind != LUNA_EXIT_EXCEPTION) {
    return kind;
  }
  luna_exit_set(vcpu, LUNA_EXIT_EXCEPTION);
  vcpu->exit.vector = (uint32_t)vector;
  vcpu->exit.error_code = code ? (uint32_t)f.words[0] : 0;
  vcpu->exit.address = vector == 14 ? sregs->cr2 : 0;
  return LUNA_EXIT_EXCEPTION;
}
