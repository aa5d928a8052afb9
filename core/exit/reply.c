/* SPDX-License-Identifier: MIT
 * Answering the exits that wait for it: with a value, as a block, by a retry or a refusal. */
#include "exit/reply.h"

#include "base/error.h"
#include "exit/answer.h"
#include "exit/lookup.h"
#include "exit/offer.h"
#include "memory/space.h"
#include "vcpu/drop.h"
#include "vcpu/guard.h"
#include "vcpu/vcpu.h"

#include <inttypes.h>
#include <string.h>

const luna_exit *luna_vcpu_exit(const luna_vcpu *vcpu) {
  return &vcpu->exit;
}

static int check_open(const luna_vcpu *vcpu) {
  int status = luna_vcpu_guard(vcpu);
  if (status != LUNA_OK) {
    return status;
  }
  return vcpu->pending.open
             ? LUNA_OK
             : luna_fail(LUNA_ERROR_STATE,
                         "vCPU %u has no open exit to answer: answer a pio, mmio, msr or "
                         "fault exit once, before the next run",
                         vcpu->id);
}

/* Moves on to the next part of the element, or to the next element. False at the end. */
static bool move_on(luna_pending *pending, luna_exit *e) {
  bool within = pending->part + e->size < pending->size;
  if (!within && pending->element + 1 >= pending->elements) {
    return false;
  }
  pending->data += e->size;
  pending->part += e->size;
  pending->asked = 0;
  e->address += e->size;
  if (!within) {
    e->address -= pending->size;
    pending->part = 0;
    pending->element++;
    e->count--;
  }
  return true;
}

void luna_exit_next(luna_vcpu *vcpu) {
  luna_exit *e = &vcpu->exit;
  if (!move_on(&vcpu->pending, e)) {
    vcpu->pending.open = false;
    return;
  }
  luna_exit_own(vcpu, luna_exit_trap_kind(e)); /* the handler may have closed the trap */
}

/* The same, and lets the core answer what it can of the rest. */
static void close_part(luna_vcpu *vcpu) {
  int kind = luna_exit_trap_kind(&vcpu->exit);
  luna_exit_next(vcpu);
  if (vcpu->pending.open && vcpu->lookup->owners[kind].answer) {
    luna_answer_exit(vcpu, kind);
  }
}

int luna_vcpu_answer(luna_vcpu *vcpu, uint64_t value) {
  int status = check_open(vcpu);
  if (status != LUNA_OK) {
    return status;
  }
  const luna_exit *e = &vcpu->exit;
  if (e->access == LUNA_EXECUTE) {
    return luna_fail(LUNA_ERROR_UNSUPPORTED,
                     "cannot answer the fetch at gpa 0x%" PRIx64
                     " with a value: map memory there and retry, or set rip",
                     e->address);
  }
  if (e->access == LUNA_READ) {
    memcpy(vcpu->pending.data, &value, e->size);
    vcpu->pending.answered = true;
    vcpu->pending.answer = value;
  }
  close_part(vcpu);
  return LUNA_OK;
}

int luna_vcpu_retry(luna_vcpu *vcpu) {
  int status = check_open(vcpu);
  if (status != LUNA_OK) {
    return status;
  }
  const luna_exit *e = &vcpu->exit;
  if (e->kind == LUNA_EXIT_PIO || e->kind == LUNA_EXIT_MSR || e->kind == LUNA_EXIT_HYPERCALL) {
    return luna_fail(LUNA_ERROR_UNSUPPORTED, "cannot retry %s: answer it",
                     e->kind == LUNA_EXIT_PIO   ? "a port access"
                     : e->kind == LUNA_EXIT_MSR ? "an access to an MSR"
                                                : "a hypercall");
  }
  if (vcpu->controls && e->access != LUNA_EXECUTE) { /* it has not begun, and begins again */
    return luna_drop_exit(vcpu);
  }
  if (luna_exit_touch(vcpu) != LUNA_TOUCH_DONE) {
    return luna_fail(LUNA_ERROR_NOT_FOUND,
                     "cannot retry the access to gpa 0x%" PRIx64
                     ": no region of space %u allows it; map memory there first",
                     e->address, luna_vcpu_space(vcpu));
  }
  close_part(vcpu);
  return LUNA_OK;
}

int luna_vcpu_refuse(luna_vcpu *vcpu) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  if (!vcpu->pending.open || vcpu->exit.kind != LUNA_EXIT_MSR) {
    return luna_fail(LUNA_ERROR_STATE, "vCPU %u has no open msr exit to refuse", vcpu->id);
  }
  vcpu->run->msr.error = 1;
  vcpu->pending.open = false;
  return LUNA_OK;
}

uint32_t luna_vcpu_block(luna_vcpu *vcpu, uint8_t **data) {
  const luna_pending *pending = &vcpu->pending;
  if (luna_vcpu_guard(vcpu) || !pending->open || vcpu->exit.kind != LUNA_EXIT_PIO ||
      vcpu->exit.size != pending->size) {
    return 0;
  }
  *data = pending->data;
  return vcpu->exit.size * (pending->elements - pending->element);
}

int luna_vcpu_answer_block(luna_vcpu *vcpu) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  uint8_t *data;
  if (luna_vcpu_block(vcpu, &data) == 0) {
    return luna_fail(LUNA_ERROR_STATE, "vCPU %u has no open port access to answer as a block",
                     vcpu->id);
  }
  vcpu->pending.open = false;
  return LUNA_OK;
}
