/* SPDX-License-Identifier: MIT
 * Breakpoints and single steps through KVM_SET_GUEST_DEBUG (api.rst, 4.87). The guest's own debug
 * registers stay as they are: KVM uses ours in their place while a breakpoint is set. */
#include "debug.h"

#include "error.h"
#include "system.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
  VECTOR_DB = 1,
  VECTOR_BP = 3,
  DR6_BS = 0x4000,
  DR7_FIXED = 0x400,
  RFLAGS_TF = 0x100,
  HLT = 0xf4
};

/* ---- Where the guest is ---- */

/* The linear address of the next instruction. */
static int locate(luna_vcpu *vcpu, uint64_t *gva) {
  const struct kvm_sregs *sregs = luna_state_sregs(vcpu);
  uint64_t rip;
  int status = sregs ? luna_vcpu_get(vcpu, LUNA_RIP, &rip) : LUNA_ERROR_SYSTEM;
  if (status == LUNA_OK) {
    *gva = sregs->cs.l ? rip : (uint32_t)(sregs->cs.base + rip);
  }
  return status;
}

/* Hands what waits for the next entry to KVM now: it looks at its own copy when a single step is
 * set up or an address translated, and forgets the step if RIP or RFLAGS come later. */
static int settle_registers(luna_vcpu *vcpu) {
  struct kvm_run *run = vcpu->run;
  if (run->kvm_dirty_regs & KVM_SYNC_X86_SREGS) {
    if (luna_kvm_set_sregs(vcpu->fd, &run->s.regs.sregs) != 0) {
      return errno == EINVAL
                 ? luna_state_fail(vcpu)
                 : luna_fail_errno(errno, "cannot write the system registers of vCPU %u", vcpu->id);
    }
    run->kvm_dirty_regs &= ~(uint64_t)KVM_SYNC_X86_SREGS;
  }
  if (run->kvm_dirty_regs & KVM_SYNC_X86_REGS) {
    if (luna_kvm_set_regs(vcpu->fd, &run->s.regs.regs) != 0) {
      return luna_fail_errno(errno, "cannot write the registers of vCPU %u", vcpu->id);
    }
    run->kvm_dirty_regs &= ~(uint64_t)KVM_SYNC_X86_REGS;
  }
  return LUNA_OK;
}

int luna_vcpu_place(luna_vcpu *vcpu, uint64_t *gva, uint64_t *gpa) {
  int status = locate(vcpu, gva);
  if (status == LUNA_OK && !vcpu->pending.incomplete) {
    status = luna_state_flush(vcpu);
    status = status == LUNA_OK ? settle_registers(vcpu) : status;
  }
  if (status == LUNA_OK && !luna_software_translate(vcpu, *gva, gpa)) {
    status = luna_fail(LUNA_ERROR_NOT_FOUND,
                       "gva 0x%" PRIx64 ", where vCPU %u is, leads nowhere in its page tables",
                       *gva, vcpu->id);
  }
  return status;
}

/* ---- The breakpoints ---- */

static int open_debug(luna_vcpu *vcpu) {
  if (vcpu->debug) {
    return LUNA_OK;
  }
  luna_debug *debug = calloc(1, sizeof *debug);
  if (!debug) {
    return luna_fail_errno(ENOMEM, "cannot debug vCPU %u", vcpu->id);
  }
  vcpu->debug = debug;
  if (vcpu->exits == 0 && locate(vcpu, &debug->stood) == LUNA_OK) {
    debug->standing = true;
  }
  return LUNA_OK;
}

static void attend(luna_vcpu *vcpu) {
  atomic_fetch_or(&vcpu->attention, LUNA_ATTEND_DEBUG);
}

static int check_shape(int kind, uint64_t gva, uint32_t size) {
  if (kind < LUNA_BREAK_EXECUTE || kind > LUNA_BREAK_SOFTWARE) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "there is no kind %d of breakpoint", kind);
  }
  bool data = kind == LUNA_BREAK_WRITE || kind == LUNA_BREAK_ACCESS;
  if (size > 1 && !data) {
    return luna_fail(LUNA_ERROR_RANGE,
                     "cannot set a breakpoint of %u bytes at gva 0x%" PRIx64
                     ": one on an instruction has the size 1",
                     size, gva);
  }
  if ((size != 1 && size != 2 && size != 4 && size != 8) || gva % size != 0) {
    return luna_fail(LUNA_ERROR_RANGE,
                     "cannot watch %u bytes at gva 0x%" PRIx64
                     ": the processor watches 1, 2, 4 or 8 bytes at a multiple of their number",
                     size, gva);
  }
  return LUNA_OK;
}

/* Room for one more software breakpoint and its patch. */
static int grow(luna_debug *debug) {
  if (debug->software_count < debug->software_room) {
    return LUNA_OK;
  }
  uint32_t room = debug->software_room ? 2 * debug->software_room : 8;
  luna_breakpoint **software = realloc(debug->software, room * sizeof *software);
  if (software) {
    debug->software = software;
  }
  luna_patch **patches = realloc(debug->patches, room * sizeof *patches);
  if (patches) {
    debug->patches = patches;
  }
  if (!software || !patches) {
    return luna_fail_errno(ENOMEM, "cannot set a software breakpoint");
  }
  debug->software_room = room;
  return LUNA_OK;
}

/* Where the new breakpoint goes. */
static int take_place(luna_vcpu *vcpu, int kind, luna_breakpoint ***place) {
  luna_debug *debug = vcpu->debug;
  if (kind == LUNA_BREAK_SOFTWARE) {
    int status = grow(debug);
    *place = debug->software + debug->software_count;
    return status;
  }
  for (int i = 0; i < LUNA_DEBUG_REGISTERS; i++) {
    if (!debug->points[i]) {
      *place = &debug->points[i];
      return LUNA_OK;
    }
  }
  return luna_fail(LUNA_ERROR_LIMIT,
                   "cannot set another hardware breakpoint on vCPU %u: the processor has %d, and "
                   "all are taken; close one or use a software breakpoint",
                   vcpu->id, LUNA_DEBUG_REGISTERS);
}

int luna_debug_add(luna_vcpu *vcpu, int kind, uint64_t gva, uint32_t size, uint32_t *breakpoint) {
  luna_breakpoint **place = NULL;
  int status = open_debug(vcpu);
  status = status == LUNA_OK ? take_place(vcpu, kind, &place) : status;
  if (status != LUNA_OK) {
    return status;
  }
  luna_breakpoint *made = malloc(sizeof *made);
  if (!made) {
    return luna_fail_errno(ENOMEM, "cannot set a breakpoint on vCPU %u", vcpu->id);
  }
  luna_debug *debug = vcpu->debug;
  *made = (luna_breakpoint){
      .gva = gva, .number = ++debug->last_number, .kind = (uint32_t)kind, .size = size};
  *place = made;
  debug->software_count += kind == LUNA_BREAK_SOFTWARE;
  *breakpoint = made->number;
  attend(vcpu);
  return LUNA_OK;
}

int luna_vcpu_break(luna_vcpu *vcpu, int kind, uint64_t gva, uint32_t size, uint32_t *breakpoint) {
  size = size ? size : 1;
  int status = check_shape(kind, gva, size);
  status = status == LUNA_OK ? luna_debug_check(vcpu, kind) : status;
  if (status == LUNA_OK && kind == LUNA_BREAK_SOFTWARE) {
    status = luna_software_check(vcpu, gva);
  }
  return status == LUNA_OK ? luna_debug_add(vcpu, kind, gva, size, breakpoint) : status;
}

int luna_vcpu_unbreak(luna_vcpu *vcpu, uint32_t breakpoint) {
  luna_debug *debug = vcpu->debug;
  for (int i = 0; debug && i < LUNA_DEBUG_REGISTERS; i++) {
    if (debug->points[i] && debug->points[i]->number == breakpoint) {
      free(debug->points[i]);
      debug->points[i] = NULL;
      return LUNA_OK;
    }
  }
  for (uint32_t i = 0; debug && i < debug->software_count; i++) {
    if (debug->software[i]->number == breakpoint) {
      free(debug->software[i]);
      debug->software[i] = debug->software[--debug->software_count];
      return LUNA_OK;
    }
  }
  return luna_fail(LUNA_ERROR_NOT_FOUND, "vCPU %u has no breakpoint %u", vcpu->id, breakpoint);
}

static bool breaks_before(const luna_debug *debug, uint64_t gva) {
  for (int i = 0; i < LUNA_DEBUG_REGISTERS; i++) {
    const luna_breakpoint *point = debug->points[i];
    if (point && point->kind == LUNA_BREAK_EXECUTE && point->gva == gva) {
      return true;
    }
  }
  return luna_software_at(debug, gva) != NULL;
}

/* ---- Telling KVM ---- */

/* DR7 (SDM Vol. 3, 18.2.4): a global enable bit each, R/W and LEN from bit 16 on. */
static uint64_t dr7_of(const luna_breakpoint *point, int reg) {
  static const uint8_t length[9] = {[1] = 0, [2] = 1, [4] = 3, [8] = 2};
  static const uint8_t access[] = {
      [LUNA_BREAK_EXECUTE] = 0, [LUNA_BREAK_WRITE] = 1, [LUNA_BREAK_ACCESS] = 3};
  uint64_t control = (uint64_t)access[point->kind] | (uint64_t)length[point->size] << 2;
  return control << (16 + 4 * reg) | (uint64_t)2 << (2 * reg);
}

/* `single`: one instruction is to be run; `halts`: it is a HLT. */
static struct kvm_guest_debug wanted(const luna_debug *debug, bool single, bool halts) {
  struct kvm_guest_debug want = {0};
  for (int i = 0; i < LUNA_DEBUG_REGISTERS; i++) {
    const luna_breakpoint *point = debug->points[i];
    if (point && !(single && point->kind == LUNA_BREAK_EXECUTE)) {
      want.control |= KVM_GUESTDBG_USE_HW_BP;
      want.arch.debugreg[i] = point->gva;
      want.arch.debugreg[7] |= DR7_FIXED | dr7_of(point, i);
    }
  }
  if (single) {
    want.control |= halts ? 0 : KVM_GUESTDBG_SINGLESTEP;
  } else if (debug->software_count > 0) {
    want.control |= KVM_GUESTDBG_USE_SW_BP;
  }
  want.control |= want.control ? KVM_GUESTDBG_ENABLE : 0;
  return want;
}

/* A single step is set up anew for each instruction: KVM notes where it begins. */
static int tell(luna_vcpu *vcpu, struct kvm_guest_debug want) {
  luna_seat *seat = vcpu->seat;
  if (!(want.control & KVM_GUESTDBG_SINGLESTEP) && memcmp(&want, &seat->debug, sizeof want) == 0) {
    return LUNA_OK;
  }
  if (luna_kvm_guest_debug(vcpu->fd, &want) != 0) {
    return luna_fail_errno(errno, "cannot set the breakpoints of vCPU %u", vcpu->id);
  }
  seat->debug = want;
  return LUNA_OK;
}

/* Decides whether the instruction at a breakpoint has to be got over first. */
static int aim(luna_vcpu *vcpu) {
  luna_debug *debug = vcpu->debug;
  uint64_t gva;
  int status = locate(vcpu, &gva);
  if (status != LUNA_OK) {
    return status;
  }
  bool same = debug->standing && debug->stood == gva;
  debug->over = same && !debug->step && breaks_before(debug, gva);
  debug->standing = same && (debug->step || debug->over); /* else it leaves now */
  debug->start = gva;
  return LUNA_OK;
}

static int prepare_step(luna_vcpu *vcpu) {
  uint64_t rflags;
  int status = settle_registers(vcpu);
  status = status == LUNA_OK ? luna_vcpu_get(vcpu, LUNA_RFLAGS, &rflags) : status;
  if (status == LUNA_OK) {
    vcpu->debug->guest_traps = rflags & RFLAGS_TF;
  }
  return status;
}

/* A HLT that KVM leaves the guest for: a guest that has no LAPIC in KVM. With a single step, some
 * KVMs end that instead and report the HLT an instruction later. */
static bool halts(luna_vcpu *vcpu) {
  uint8_t byte;
  struct kvm_lapic_state lapic;
  return !(vcpu->run->kvm_dirty_regs & KVM_SYNC_X86_EVENTS) &&
         luna_software_read(vcpu, vcpu->debug->start, &byte, 1) == 1 && byte == HLT &&
         luna_kvm_get_lapic(vcpu->fd, &lapic) != 0;
}

static int enter(luna_vcpu *vcpu) {
  luna_debug *debug = vcpu->debug;
  bool single = debug->step || debug->over;
  int status = LUNA_OK;
  if (single) {
    status = prepare_step(vcpu);
  } else if (debug->software_count > 0 && !vcpu->pending.incomplete) {
    status = settle_registers(vcpu);
  }
  status = status == LUNA_OK ? tell(vcpu, wanted(debug, single, single && halts(vcpu))) : status;
  if (status == LUNA_OK && !single && debug->software_count > 0) {
    status = luna_software_insert(vcpu);
  }
  if (status == LUNA_OK && !single && vcpu->seat->debug.control == 0) {
    atomic_fetch_and(&vcpu->attention, ~(unsigned)LUNA_ATTEND_DEBUG);
  }
  return status;
}

static int report(luna_vcpu *vcpu, uint32_t number, uint64_t gva, uint64_t dr6) {
  luna_debug *debug = vcpu->debug;
  luna_exit_set(vcpu, LUNA_EXIT_DEBUG);
  vcpu->exit.address = gva;
  vcpu->exit.breakpoint = number;
  vcpu->exit.dr6 = (uint32_t)dr6;
  debug->over = false;
  debug->standing = true;
  debug->stood = gva;
  return LUNA_EXIT_DEBUG;
}

/* An instruction that waits for KVM to finish its access: that is the step. */
static int finish_instruction(luna_vcpu *vcpu) {
  int kind = luna_vcpu_settle(vcpu);
  uint64_t gva;
  if (kind == 0) {
    kind = locate(vcpu, &gva);
    kind = kind == LUNA_OK ? report(vcpu, 0, gva, 0xffff0ff0 | DR6_BS) : kind;
  }
  return kind;
}

int luna_debug_entry(luna_vcpu *vcpu) {
  luna_debug *debug = vcpu->debug;
  int status = LUNA_OK;
  if (vcpu->pending.incomplete) {
    if (debug->step) {
      return finish_instruction(vcpu);
    }
    status = debug->over ? luna_vcpu_settle(vcpu) : LUNA_OK; /* or it would stop there again */
  }
  if (status == LUNA_OK && vcpu->pending.incomplete) {
    debug->standing = false;
  } else if (status == LUNA_OK) {
    status = aim(vcpu);
  }
  return status == LUNA_OK ? enter(vcpu) : status;
}

void luna_debug_leave(luna_vcpu *vcpu) {
  luna_software_remove(vcpu);
}

void luna_debug_sit(luna_vcpu *vcpu) {
  if (vcpu->debug) {
    attend(vcpu);
  }
}

void luna_debug_end(luna_vcpu *vcpu) {
  luna_debug *debug = vcpu->debug;
  if (!debug) {
    return;
  }
  for (int i = 0; i < LUNA_DEBUG_REGISTERS; i++) {
    free(debug->points[i]);
  }
  for (uint32_t i = 0; i < debug->software_count; i++) {
    free(debug->software[i]);
  }
  free(debug->software);
  free(debug->patches);
  free(debug);
  vcpu->debug = NULL;
}

/* ---- What came of it ---- */

/* A string instruction with a REP prefix, of which one element is done (SDM Vol. 2, 2.1.1). */
static bool repeats(luna_vcpu *vcpu, uint64_t gva) {
  uint8_t bytes[15];
  bool rep = false;
  size_t size = luna_software_read(vcpu, gva, bytes, sizeof bytes);
  size_t i = 0;
  while (i < size && (memchr("\xf2\xf3\x66\x67\x2e\x36\x3e\x26\x64\x65", bytes[i], 10) ||
                      (bytes[i] & 0xf0) == 0x40)) {
    rep = rep || bytes[i] == 0xf2 || bytes[i] == 0xf3;
    i++;
  }
  return rep && i < size &&
         ((bytes[i] >= 0x6c && bytes[i] <= 0x6f) || (bytes[i] >= 0xa4 && bytes[i] <= 0xa7) ||
          (bytes[i] >= 0xaa && bytes[i] <= 0xaf));
}

/* One instruction is done. The kind, or 0 where nobody asked to see it. */
static int stepped(luna_vcpu *vcpu, uint64_t dr6) {
  luna_debug *debug = vcpu->debug;
  uint64_t gva;
  int status = locate(vcpu, &gva);
  if (status != LUNA_OK) {
    return status;
  }
  if (debug->step) {
    return report(vcpu, 0, gva, dr6);
  }
  debug->over = false;
  debug->standing = gva == debug->start && repeats(vcpu, gva);
  return 0;
}

/* The breakpoint that DR6 names, of those that KVM was told. */
static const luna_breakpoint *hit(const luna_vcpu *vcpu, uint64_t dr6) {
  const struct kvm_guest_debug *told = &vcpu->seat->debug;
  for (int i = 0; i < LUNA_DEBUG_REGISTERS; i++) {
    if (dr6 >> i & 1 && told->arch.debugreg[7] >> (2 * i) & 3 && vcpu->debug->points[i]) {
      return vcpu->debug->points[i];
    }
  }
  return NULL;
}

/* An exception that the guest's own debug registers, TF or INT3 caused. */
static int give_back(luna_vcpu *vcpu, uint32_t vector, uint64_t dr6) {
  struct kvm_debugregs debugregs;
  if (vector == VECTOR_DB) {
    if (luna_kvm_get_debugregs(vcpu->fd, &debugregs) != 0) {
      return luna_fail_errno(errno, "cannot read the debug registers of vCPU %u", vcpu->id);
    }
    debugregs.dr6 = dr6;
    if (luna_kvm_set_debugregs(vcpu->fd, &debugregs) != 0) {
      return luna_fail_errno(errno, "cannot write the debug registers of vCPU %u", vcpu->id);
    }
  }
  return luna_vcpu_inject(vcpu, vector, 0, 0);
}

int luna_debug_exit(luna_vcpu *vcpu) {
  const struct kvm_debug_exit_arch arch = vcpu->run->debug.arch;
  const luna_debug *debug = vcpu->debug;
  if (!debug) {
    return luna_exit_set(vcpu, LUNA_EXIT_OTHER);
  }
  bool trap = arch.exception != VECTOR_BP;
  const luna_breakpoint *point = trap ? hit(vcpu, arch.dr6) : luna_software_at(debug, arch.pc);
  if (point) {
    return report(vcpu, point->number, arch.pc, arch.dr6);
  }
  if (trap && (debug->step || debug->over)) {
    return stepped(vcpu, arch.dr6);
  }
  if (trap && arch.dr6 & DR6_BS && vcpu->seat->debug.control & KVM_GUESTDBG_SINGLESTEP) {
    return 0; /* the end of a step that another exit has ended */
  }
  return give_back(vcpu, trap ? VECTOR_DB : VECTOR_BP, arch.dr6);
}

int luna_debug_internal(luna_vcpu *vcpu) {
  const luna_exit *e = &vcpu->exit;
  uint64_t gva;
  if (!vcpu->debug || e->suberror != KVM_INTERNAL_ERROR_EMULATION || e->instruction_size == 0 ||
      e->instruction[0] != 0xcc || locate(vcpu, &gva) != LUNA_OK) {
    return 0;
  }
  const luna_breakpoint *point = luna_software_at(vcpu->debug, gva);
  if (!point) {
    return 0;
  }
  /* KVM has queued a #UD for the guest; writing the registers makes it forget that. */
  vcpu->state.regs_whole = true;
  return report(vcpu, point->number, gva, 0);
}

/* The processor saved RFLAGS with the TF that KVM had set for the step. */
static void clean_flags(luna_vcpu *vcpu) {
  uint64_t rflags;
  if (vcpu->seat->debug.control & KVM_GUESTDBG_SINGLESTEP && !vcpu->debug->guest_traps &&
      luna_vcpu_get(vcpu, LUNA_RFLAGS, &rflags) == LUNA_OK && rflags & RFLAGS_TF) {
    luna_vcpu_set(vcpu, LUNA_RFLAGS, rflags & ~(uint64_t)RFLAGS_TF);
  }
}

int luna_debug_exception(luna_vcpu *vcpu, int vector) {
  const luna_debug *debug = vcpu->debug;
  uint64_t gva;
  if (!debug) {
    return LUNA_EXIT_EXCEPTION;
  }
  clean_flags(vcpu);
  if (vector == VECTOR_DB && (debug->step || debug->over)) {
    return stepped(vcpu, 0xffff0ff0 | DR6_BS);
  }
  if (vector != VECTOR_BP || locate(vcpu, &gva) != LUNA_OK) {
    return LUNA_EXIT_EXCEPTION;
  }
  const luna_breakpoint *point = luna_software_at(debug, gva - 1);
  if (!point) {
    return LUNA_EXIT_EXCEPTION;
  }
  uint64_t rip;
  int status = luna_vcpu_get(vcpu, LUNA_RIP, &rip);
  status = status == LUNA_OK ? luna_vcpu_set(vcpu, LUNA_RIP, rip - 1) : status;
  return status == LUNA_OK ? report(vcpu, point->number, point->gva, 0) : status;
}

/* ---- Single steps ---- */

static int step(luna_vcpu *vcpu, uint64_t deadline) {
  int kind = open_debug(vcpu);
  if (kind != LUNA_OK) {
    return kind;
  }
  vcpu->debug->step = true;
  vcpu->debug->over = false;
  attend(vcpu);
  kind = vcpu->pending.incomplete ? finish_instruction(vcpu) : luna_vcpu_enter(vcpu, deadline);
  vcpu->debug->step = false;
  return kind;
}

int luna_vcpu_step(luna_vcpu *vcpu, uint64_t deadline) {
  int kind = luna_vcpu_claim(vcpu, "step");
  if (kind == LUNA_OK) {
    kind = luna_vcpu_advance(vcpu, deadline, step);
    luna_vcpu_disclaim(vcpu);
  }
  return kind;
}
