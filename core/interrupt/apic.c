/* SPDX-License-Identifier: MIT
 * A vCPU's LAPIC inside KVM (SDM Vol. 3, chapter 11): its registers, its timer, and whether the
 * processor runs or waits to be started. */
#include "interrupt/apic.h"

#include "base/error.h"
#include "interrupt/controllers.h"
#include "kvm/kvm.h"
#include "kvm/kvm_interrupt.h"
#include "seat/group.h"
#include "seat/lapic.h"
#include "seat/seat.h"
#include "vcpu/guard.h"
#include "vcpu/mode.h"
#include "vcpu/state.h"
#include "vcpu/timer.h"
#include "vcpu/vcpu.h"

#include <errno.h>
#include <string.h>

enum {
  STRIDE = 0x10, /* of the registers in the page */
  LINT0_EXTINT = 0x700,
  MSR_APIC_BASE = 0x1b,
  MSR_TSC_DEADLINE = 0x6e0
};

/* ---- Registers ---- */

static int check(const luna_vcpu *vcpu, const char *what) {
  if (atomic_load(&vcpu->running)) {
    return luna_fail(LUNA_ERROR_STATE, "cannot %s of vCPU %u: it is running", what, vcpu->id);
  }
  return luna_controllers_needed(vcpu->vm, what);
}

/* CR8 is the upper half of TPR: one that was written and waits for the entry counts. */
static void put_priority(const luna_vcpu *vcpu, struct kvm_lapic_state *lapic) {
  if (vcpu->state.sregs_written) {
    uint32_t cr8 = (uint32_t)vcpu->state.sregs.cr8;
    uint32_t tpr = luna_lapic_get(lapic, LUNA_LAPIC_TPR);
    luna_lapic_set(lapic, LUNA_LAPIC_TPR, cr8 == tpr >> 4 ? tpr : cr8 << 4);
  }
}

/* `whole`: to be written back, with what is due. */
static int read_page(luna_vcpu *vcpu, struct kvm_lapic_state *lapic, bool whole) {
  int status = whole ? luna_timer_fetch(vcpu) : luna_seat_fetch(vcpu->seat, 1 << LUNA_GROUP_LAPIC);
  if (status == LUNA_OK) {
    *lapic = vcpu->seat->held.lapic;
    put_priority(vcpu, lapic);
  }
  return status;
}

static int write_page(luna_vcpu *vcpu, const struct kvm_lapic_state *lapic) {
  struct kvm_sregs *sregs = luna_state_sregs(vcpu);
  if (!sregs) {
    return luna_error_status();
  }
  if (luna_lapic_write(vcpu->seat, lapic) != 0) {
    return luna_fail_errno(errno, "cannot write the LAPIC of vCPU %u", vcpu->id);
  }
  sregs->cr8 = luna_lapic_get(lapic, LUNA_LAPIC_TPR) >> 4 & 15;
  vcpu->state.sregs_written |= (vcpu->run->kvm_dirty_regs & KVM_SYNC_X86_SREGS) != 0;
  return LUNA_OK;
}

int luna_vcpu_get_apic(luna_vcpu *vcpu, void *registers) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  int status = check(vcpu, "read the LAPIC");
  struct kvm_lapic_state lapic;
  status = status == LUNA_OK ? read_page(vcpu, &lapic, true) : status;
  if (status == LUNA_OK) {
    memcpy(registers, &lapic, sizeof lapic);
  }
  return status;
}

int luna_vcpu_set_apic(luna_vcpu *vcpu, const void *registers) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  struct kvm_lapic_state lapic;
  memcpy(&lapic, registers, sizeof lapic);
  int status = check(vcpu, "write the LAPIC");
  return status == LUNA_OK ? write_page(vcpu, &lapic) : status;
}

static int check_offset(uint32_t offset) {
  return offset < LUNA_APIC_SIZE && offset % STRIDE == 0
             ? LUNA_OK
             : luna_fail(LUNA_ERROR_ARGUMENT,
                         "a LAPIC has no register at offset 0x%x: they are 0x%x apart, below 0x%x",
                         offset, STRIDE, LUNA_APIC_SIZE);
}

int luna_vcpu_read_apic(luna_vcpu *vcpu, uint32_t offset, uint32_t *value) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  struct kvm_lapic_state lapic;
  int status = check_offset(offset);
  status = status == LUNA_OK ? check(vcpu, "read the LAPIC") : status;
  status = status == LUNA_OK ? read_page(vcpu, &lapic, false) : status;
  if (status == LUNA_OK) {
    *value = luna_lapic_get(&lapic, offset);
  }
  return status;
}

int luna_vcpu_write_apic(luna_vcpu *vcpu, uint32_t offset, uint32_t value) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  struct kvm_lapic_state lapic;
  int status = check_offset(offset);
  status = status == LUNA_OK ? luna_vcpu_get_apic(vcpu, &lapic) : status;
  if (status != LUNA_OK) {
    return status;
  }
  luna_lapic_set(&lapic, offset, value);
  if (offset == LUNA_LAPIC_INITIAL_COUNT) {
    luna_lapic_set(&lapic, LUNA_LAPIC_CURRENT_COUNT, value); /* as the processor does */
  }
  return write_page(vcpu, &lapic);
}

/* KVM has no call for it; a message with the entry's vector does the same. */
int luna_vcpu_fire_timer(luna_vcpu *vcpu) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  uint32_t entry;
  int status = luna_vcpu_read_apic(vcpu, LUNA_LAPIC_LVT_TIMER, &entry);
  if (status != LUNA_OK || entry & LUNA_LVT_MASKED) {
    return status;
  }
  status = luna_vcpu_interrupt_vector(vcpu, entry & 0xff);
  return status < 0 ? status : 1;
}

/* ---- Running or waiting ---- */

static void note_wait(luna_vcpu *vcpu, bool waits) {
  if (waits) {
    atomic_fetch_or(&vcpu->attention, LUNA_ATTEND_START);
  } else {
    atomic_fetch_and(&vcpu->attention, ~(unsigned)LUNA_ATTEND_START);
  }
}

static int set_mp_state(luna_vcpu *vcpu, uint32_t state) {
  if (luna_kvm_set_mp_state(vcpu->fd, state) != 0) {
    return luna_fail_errno(errno, "cannot set the MP state of vCPU %u to %u", vcpu->id, state);
  }
  note_wait(vcpu, state == LUNA_MP_UNINITIALIZED);
  return LUNA_OK;
}

/* KVM_RUN of a vCPU that waits for INIT takes INIT and SIPI and comes back (EAGAIN) before it looks
 * at the run page: registers that wait there would overwrite those of the reset. */
int luna_apic_enter(luna_vcpu *vcpu) {
  return luna_state_push(vcpu);
}

/* KVM_RUN with an exit: it did not wait any more. */
void luna_apic_left(luna_vcpu *vcpu) {
  note_wait(vcpu, false);
}

/* KVM first does what INIT and SIPI ask. */
static int ask_mp_state(luna_vcpu *vcpu, uint32_t *state) {
  bool waits = atomic_load(&vcpu->attention) & LUNA_ATTEND_START;
  int status = waits ? luna_state_push(vcpu) : LUNA_OK;
  if (status == LUNA_OK && luna_kvm_get_mp_state(vcpu->fd, state) != 0) {
    status = luna_fail_errno(errno, "cannot read the MP state of vCPU %u", vcpu->id);
  }
  return status == LUNA_OK ? luna_state_reload(vcpu) : status;
}

int luna_vcpu_get_mp_state(luna_vcpu *vcpu, uint32_t *state) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  if (!vcpu->vm->irqchip) {
    *state = LUNA_MP_RUNNABLE;
    return LUNA_OK;
  }
  int status = check(vcpu, "read the MP state");
  return status == LUNA_OK ? ask_mp_state(vcpu, state) : status;
}

int luna_vcpu_set_mp_state(luna_vcpu *vcpu, uint32_t state) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  if (state > LUNA_MP_SIPI_RECEIVED) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "there is no MP state %u", state);
  }
  if (!vcpu->vm->irqchip && state == LUNA_MP_RUNNABLE) {
    return LUNA_OK;
  }
  int status = check(vcpu, "set the MP state");
  return status == LUNA_OK ? set_mp_state(vcpu, state) : status;
}

bool luna_apic_waits(luna_vcpu *vcpu) {
  uint32_t state;
  return vcpu->vm->irqchip && ask_mp_state(vcpu, &state) == LUNA_OK && state != LUNA_MP_RUNNABLE;
}

/* KVM's map of APIC IDs misses a LAPIC that was made after the map, until one is written. */
static int enter_map(const luna_vcpu *vcpu) {
  struct kvm_lapic_state lapic;
  if (luna_kvm_get_lapic(vcpu->fd, &lapic) != 0 || luna_kvm_set_lapic(vcpu->fd, &lapic) != 0) {
    return luna_fail_errno(errno, "cannot set up the LAPIC of vCPU %u", vcpu->id);
  }
  return LUNA_OK;
}

/* KVM lets vCPU 0 run and all others wait. */
static int begin_mp_state(luna_vcpu *vcpu, const luna_vcpu_options *options) {
  bool waits = vcpu->id > 0;
  bool shall = options->wait || (waits && options->mode == LUNA_MODE_RESET);
  uint32_t state = shall ? LUNA_MP_UNINITIALIZED : LUNA_MP_RUNNABLE;
  note_wait(vcpu, shall);
  int status = shall ? luna_state_push(vcpu) : LUNA_OK;
  return status == LUNA_OK && waits != shall ? set_mp_state(vcpu, state) : status;
}

int luna_apic_begin(luna_vcpu *vcpu, const luna_vcpu_options *options) {
  if (options->wait > 1) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "cannot make a vCPU with wait %u: 0 or 1 is meant",
                     options->wait);
  }
  if (!vcpu->vm->irqchip) {
    return options->wait
               ? luna_controllers_needed(vcpu->vm, "make a vCPU that waits for INIT and SIPI")
               : LUNA_OK;
  }
  int status = enter_map(vcpu);
  return status == LUNA_OK ? begin_mp_state(vcpu, options) : status;
}

/* SDM Vol. 3, 9.4.1 and table 10-1: the state after INIT, with CS:IP where SIPI puts it. */
int luna_vcpu_sipi(luna_vcpu *vcpu, uint32_t vector) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  if (vector > 0xff) {
    return luna_fail(LUNA_ERROR_RANGE, "cannot start vCPU %u at vector 0x%x: the last is 0xff",
                     vcpu->id, vector);
  }
  if (atomic_load(&vcpu->running) || vcpu->pending.open) {
    return luna_fail(LUNA_ERROR_STATE, "cannot start vCPU %u: it %s", vcpu->id,
                     vcpu->pending.open ? "has an open exit; answer that first" : "is running");
  }
  struct kvm_sregs *sregs = luna_state_sregs(vcpu);
  int status = sregs ? luna_vcpu_set_mp_state(vcpu, LUNA_MP_RUNNABLE) : luna_error_status();
  if (status != LUNA_OK) {
    return status;
  }
  luna_mode_sipi(sregs, (uint8_t)vector);
  vcpu->state.sregs_written = true;
  for (int reg = 0; reg < LUNA_RIP; reg++) {
    luna_vcpu_set(vcpu, reg, 0);
  }
  luna_vcpu_set(vcpu, LUNA_RIP, 0);
  return luna_vcpu_set(vcpu, LUNA_RFLAGS, 2);
}

/* ---- Seats ---- */

/* SDM Vol. 3, 11.4.7.1. Firmware leaves LINT0 of the bootstrap processor open for the PIC, and so
 * does KVM. */
int luna_apic_reset(const luna_vcpu *vcpu) {
  struct kvm_lapic_state now;
  struct kvm_lapic_state fresh = {0};
  if (luna_kvm_get_lapic(vcpu->fd, &now) != 0) {
    return luna_fail_errno(errno, "cannot read the LAPIC of vCPU %u", vcpu->id);
  }
  luna_lapic_set(&fresh, LUNA_LAPIC_ID, vcpu->id << 24);
  luna_lapic_set(&fresh, LUNA_LAPIC_VERSION, luna_lapic_get(&now, LUNA_LAPIC_VERSION));
  luna_lapic_set(&fresh, LUNA_LAPIC_DFR, UINT32_MAX);
  luna_lapic_set(&fresh, LUNA_LAPIC_SVR, 0xff);
  for (uint32_t lvt = LUNA_LAPIC_LVT_TIMER; lvt <= LUNA_LAPIC_LVT_ERROR; lvt += STRIDE) {
    luna_lapic_set(&fresh, lvt, LUNA_LVT_MASKED);
  }
  luna_lapic_set(&fresh, LUNA_LAPIC_LVT_CMCI,
                 luna_lapic_get(&now, LUNA_LAPIC_LVT_CMCI) ? LUNA_LVT_MASKED : 0);
  luna_lapic_set(&fresh, LUNA_LAPIC_LVT_LINT0, vcpu->id == 0 ? LINT0_EXTINT : LUNA_LVT_MASKED);
  uint32_t state = vcpu->id == 0 ? LUNA_MP_RUNNABLE : LUNA_MP_UNINITIALIZED;
  if (luna_lapic_write(vcpu->seat, &fresh) != 0 || luna_kvm_set_mp_state(vcpu->fd, state) != 0) {
    return luna_fail_errno(errno, "cannot reset the LAPIC of vCPU %u", vcpu->id);
  }
  return LUNA_OK;
}

/* Asking for the MP state makes KVM do it. The LAPIC as it is now is in the seat's copy. */
int luna_apic_settle(luna_vcpu *vcpu) {
  uint32_t state;
  int status = ask_mp_state(vcpu, &state);
  return status == LUNA_OK ? luna_timer_fetch(vcpu) : status;
}

typedef struct one_msr {
  uint32_t count;
  uint32_t pad;
  struct kvm_msr_entry entry;
} one_msr;

static int write_msr(const luna_seat *seat, uint32_t index, uint64_t value) {
  one_msr msr = {.count = 1, .entry = {.index = index, .data = value}};
  int done = luna_kvm_set_msrs(seat->fd, &msr);
  if (done < 0) {
    return -1;
  }
  errno = EINVAL;
  return done == 1 ? 0 : -1;
}

/* The moment of a timer in TSC-deadline mode: 0 if it has passed. */
static int move_deadline(const luna_vcpu *vcpu, const luna_seat *target,
                         const struct kvm_lapic_state *lapic) {
  one_msr deadline = {.count = 1, .entry = {.index = MSR_TSC_DEADLINE}};
  if (!(luna_lapic_get(lapic, LUNA_LAPIC_LVT_TIMER) & LUNA_LVT_DEADLINE)) {
    return 0;
  }
  errno = EINVAL;
  return luna_kvm_get_msrs(vcpu->fd, &deadline) == 1
             ? write_msr(target, MSR_TSC_DEADLINE, deadline.entry.data)
             : -1;
}

/* APIC base first: the mode in it says what the page means. The deadline last: it counts on the
 * time-stamp counter. */
int luna_apic_move(luna_vcpu *vcpu, luna_seat *target) {
  const struct kvm_sregs *sregs = luna_state_sregs(vcpu);
  if (!sregs) {
    return luna_error_status();
  }
  int status = luna_seat_fetch(vcpu->seat, 1 << LUNA_GROUP_MP);
  luna_held *held = &vcpu->seat->held;
  const struct kvm_lapic_state before = held->lapic; /* as luna_apic_settle found it */
  status = status == LUNA_OK ? read_page(vcpu, &held->lapic, false) : status;
  if (status == LUNA_OK) {
    luna_lapic_keep_due(&held->lapic, &before);
  }
  if (status == LUNA_OK && write_msr(target, MSR_APIC_BASE, sregs->apic_base) != 0) {
    status = luna_fail_errno(errno, "cannot move the LAPIC of vCPU %u", vcpu->id);
  }
  status = status == LUNA_OK ? luna_seat_write(target, held, LUNA_GROUPS_LAPIC) : status;
  if (status == LUNA_OK && move_deadline(vcpu, target, &held->lapic) != 0) {
    status = luna_fail_errno(errno, "cannot move the LAPIC timer of vCPU %u", vcpu->id);
  }
  return status;
}
