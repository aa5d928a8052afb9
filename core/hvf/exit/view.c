/* SPDX-License-Identifier: MIT
 * The vCPU as the program sees it at an exit: the instruction has not begun, and the program does
 * its work and moves RIP. KVM has done part of it and wants to do the rest, so the program's view
 * is kept beside KVM's as long as that costs nothing, and otherwise KVM's work is taken back. */
#include "hvf/exit/view.h"

#include "hvf/base/error.h"
#include "hvf/exit/code.h"
#include "hvf/exit/fixed.h"
#include "hvf/exit/memory.h"
#include "hvf/exit/port.h"
#include "hvf/exit/string.h"
#include "hvf/exit/suspect.h"

#include <inttypes.h>

enum {
  GENERAL_COUNT = LUNA_RFLAGS + 1,
  REGISTERS = LUNA_LDTR_ACCESS + 1, /* those and the system registers */
  CR8_MOVE = 4,                     /* bytes of MOV to CR8 */
  MOST_PARTS = 8192                 /* exits that one instruction can make */
};

/* ---- Taking KVM's part of an instruction back ---- */

/* All that an instruction may change which reads memory or a port, but for vector registers, which
 * it overwrites when it is done in earnest. */
static int get_all(hvf_vcpu *v, uint64_t *values) {
  int status = LUNA_OK;
  for (int reg = 0; reg < REGISTERS && status == LUNA_OK; reg++) {
    status = luna_vcpu_get(v->vcpu, reg, &values[reg]);
  }
  return status;
}

/* General registers are written in any case: KVM forgets an exception that it has queued then. */
static int set_all(hvf_vcpu *v, const uint64_t *values) {
  int status = LUNA_OK;
  for (int reg = 0; reg < REGISTERS && status == LUNA_OK; reg++) {
    uint64_t now = ~values[reg];
    if (reg >= GENERAL_COUNT) {
      status = luna_vcpu_get(v->vcpu, reg, &now);
    }
    if (status == LUNA_OK && now != values[reg]) {
      status = luna_vcpu_set(v->vcpu, reg, values[reg]);
    }
  }
  return status;
}

/* In the core, blocking by STI or MOV SS ends with a RIP that is written, or an instruction that is
 * finished. For a processor, no field follows from another. */
static int block_again(hvf_vcpu *v, uint32_t blocking) {
  const uint32_t next = 3;
  return blocking & next ? luna_vcpu_set_blocking(v->vcpu, blocking) : LUNA_OK;
}

int hvf_view_run_out(hvf_vcpu *v) {
  int kind = 1;
  for (int i = 0; i < MOST_PARTS && kind > 0; i++) {
    while (luna_vcpu_answer(v->vcpu, 0) == LUNA_OK) {
    }
    kind = luna_vcpu_finish(v->vcpu);
  }
  return kind < 0 ? kind : LUNA_OK;
}

/* Where the instruction is, now that KVM has finished it and RIP is `end`. */
static void place_after(hvf_vcpu *v, uint64_t before, uint64_t end) {
  hvf_exit *x = &v->exit;
  if (x->placed) {
    return;
  }
  x->placed = true;
  if (x->kind == LUNA_EXIT_PIO && hvf_port_before(v, x->e, end, &x->port)) {
    x->length = x->port.length;
    x->start = end - x->length;
    return;
  }
  bool write = x->e->access == LUNA_WRITE;
  x->start = write ? end : before;
  x->length = end - x->start;
  if (!write && (x->length == 0 || x->length > HVF_LONGEST)) { /* it repeats itself, or jumps */
    x->length = hvf_string_length(v, before);
  }
}

/* Of an access that comes before its instruction nothing has been done. */
static hv_return_t drop(hvf_vcpu *v) {
  hvf_exit *x = &v->exit;
  x->seen = *x->e;
  x->e = &x->seen;
  x->stage = HVF_STAGE_NONE;
  return hvf_status(luna_vcpu_drop(v->vcpu));
}

hv_return_t hvf_view_take_back(hvf_vcpu *v) {
  hvf_exit *x = &v->exit;
  if (x->told) {
    return drop(v);
  }
  uint64_t values[REGISTERS];
  uint64_t end;
  uint32_t blocking;
  int status = get_all(v, values);
  status = status == LUNA_OK ? luna_vcpu_get_blocking(v->vcpu, &blocking) : status;
  if (status != LUNA_OK) {
    return hvf_status(status);
  }
  x->seen = *x->e;
  x->e = &x->seen;
  status = hvf_view_run_out(v);
  status = status == LUNA_OK ? luna_vcpu_get(v->vcpu, LUNA_RIP, &end) : status;
  if (status != LUNA_OK) {
    return hvf_status(status);
  }
  place_after(v, values[LUNA_RIP], end);
  if (x->port.string && !x->port.in) { /* KVM has counted the element that it exits for */
    hvf_string_uncount(&x->port, values);
  }
  values[LUNA_RIP] = x->start;
  x->stage = HVF_STAGE_NONE;
  status = set_all(v, values);
  return hvf_status(status == LUNA_OK ? block_again(v, blocking) : status);
}

/* ---- Where the instruction is ---- */

static hv_return_t place_port(hvf_vcpu *v) {
  hvf_exit *x = &v->exit;
  uint64_t rip;
  hv_return_t result = hvf_status(luna_vcpu_get(v->vcpu, LUNA_RIP, &rip));
  if (result != HV_SUCCESS) {
    return result;
  }
  switch (hvf_port_find(v, x->e, rip, &x->port)) {
    case HVF_PLACE_AT:
      x->start = rip;
      break;
    case HVF_PLACE_BEHIND:
      x->start = rip - x->port.length;
      break;
    default:
      x->port = (hvf_port){0};
      return hvf_view_take_back(v);
  }
  x->length = x->port.length;
  x->placed = true;
  return HV_SUCCESS;
}

/* KVM has done all of it but the write. What cannot be found stays behind RIP, with length 0. */
static hv_return_t place_write(hvf_vcpu *v) {
  hvf_exit *x = &v->exit;
  uint64_t rip;
  hv_return_t result = hvf_status(luna_vcpu_get(v->vcpu, LUNA_RIP, &rip));
  if (result == HV_SUCCESS && hvf_string_writer(v, rip, &x->port, &x->start)) {
    x->length = x->port.length;
  } else if (result == HV_SUCCESS) {
    x->port.string = false;
    x->length = hvf_memory_writer(v, rip);
    x->start = rip - x->length;
  }
  x->placed = result == HV_SUCCESS;
  return result;
}

/* MOV to CR8 is 4 bytes, with REX.R in front (SDM Vol. 2): what lowers the task priority is done
 * when KVM tells. */
static hv_return_t place_cr8(hvf_vcpu *v) {
  hvf_exit *x = &v->exit;
  hvf_code c;
  hv_return_t result = hvf_status(luna_vcpu_get(v->vcpu, LUNA_RIP, &x->start));
  const uint8_t *code = c.bytes + HVF_LONGEST - CR8_MOVE;
  if (result == HV_SUCCESS && hvf_code_read(v, x->start, &c) && c.before >= CR8_MOVE &&
      (code[0] & 0xf4) == 0x44 && code[1] == 0x0f && code[2] == 0x22 && (code[3] & 0x38) == 0) {
    x->start -= CR8_MOVE;
    x->length = CR8_MOVE;
    x->general = (uint8_t)((code[0] & 1) << 3 | (code[3] & 7));
  }
  x->placed = result == HV_SUCCESS;
  return result;
}

static hv_return_t place_halt(hvf_vcpu *v) {
  hvf_exit *x = &v->exit;
  hv_return_t result = hvf_status(luna_vcpu_get(v->vcpu, LUNA_RIP, &x->start));
  x->start--;
  x->length = 1;
  x->placed = result == HV_SUCCESS;
  return result;
}

/* KVM leaves RIP at RDMSR and WRMSR until they are done. */
static hv_return_t place_msr(hvf_vcpu *v) {
  hvf_exit *x = &v->exit;
  hv_return_t result = hvf_status(luna_vcpu_get(v->vcpu, LUNA_RIP, &x->start));
  x->length = 2;
  x->placed = result == HV_SUCCESS;
  return result;
}

hv_return_t hvf_view_place(hvf_vcpu *v) {
  const hvf_exit *x = &v->exit;
  if (x->placed || x->stage == HVF_STAGE_NONE) {
    return HV_SUCCESS;
  }
  switch (x->kind) {
    case LUNA_EXIT_PIO:
      return place_port(v);
    case LUNA_EXIT_MSR:
      return place_msr(v);
    case LUNA_EXIT_TPR:
      return place_cr8(v);
    case LUNA_EXIT_FAULT:
    case LUNA_EXIT_HOST_FAULT:
      return hvf_is_done(v) ? place_write(v) : HV_SUCCESS;
    default:
      return place_halt(v);
  }
}

/* ---- Registers ---- */

/* KVM has changed, or will change, registers that count a string's elements. */
static hv_return_t settle_string(hvf_vcpu *v) {
  uint64_t linear;
  if (hvf_is_fault(v)) {
    hvf_memory_linear(v, &linear); /* by registers as they are now */
  }
  hv_return_t result = hvf_view_place(v);
  return result == HV_SUCCESS && hvf_has_view(v) && v->exit.port.string ? hvf_view_take_back(v)
                                                                        : result;
}

/* Once it has been written, RIP is KVM's also of a write that exited. */
static hv_return_t get_rip(hvf_vcpu *v, uint64_t *value) {
  hvf_exit *x = &v->exit;
  if (!hvf_is_fault(v) || (hvf_is_done(v) && !x->rip_written)) {
    hv_return_t result = x->rip_written ? HV_SUCCESS : hvf_view_place(v);
    if (result != HV_SUCCESS || hvf_has_view(v)) {
      *value = x->rip_written ? x->rip : x->start;
      return result;
    }
  }
  return hvf_status(luna_vcpu_get(v->vcpu, LUNA_RIP, value));
}

static hv_return_t get_now(hvf_vcpu *v, int reg, uint64_t *value) {
  hv_return_t result = hvf_status(luna_vcpu_get(v->vcpu, reg, value));
  if (reg == LUNA_CR0 || reg == LUNA_CR4) {
    *value = hvf_fixed_seen(v, reg, *value);
  }
  return result;
}

static hv_return_t get_in_view(hvf_vcpu *v, int reg, uint64_t *value) {
  hvf_exit *x = &v->exit;
  if (reg == LUNA_RIP) {
    return get_rip(v, value);
  }
  if ((reg == LUNA_RAX && x->rax_written) || (reg == LUNA_RDX && x->rdx_written)) {
    *value = reg == LUNA_RAX ? x->rax : x->rdx;
    return HV_SUCCESS;
  }
  bool counts = reg == LUNA_RCX || reg == LUNA_RSI || reg == LUNA_RDI;
  counts = counts && (x->kind == LUNA_EXIT_PIO || hvf_is_done(v));
  hv_return_t result = counts ? settle_string(v) : HV_SUCCESS;
  return result == HV_SUCCESS ? get_now(v, reg, value) : result;
}

hv_return_t hvf_get(hvf_vcpu *v, int reg, uint64_t *value) {
  if (hvf_has_view(v)) {
    return get_in_view(v, reg, value);
  }
  return reg < GENERAL_COUNT ? hvf_status(luna_vcpu_get(v->vcpu, reg, value))
                             : get_now(v, reg, value);
}

/* Bits of a usable segment's access rights that KVM has no place for; an entry would fail. */
static bool is_no_access(int reg, uint64_t value) {
  const uint64_t reserved = 0xf00;
  const uint64_t unusable = 1 << 16;
  return reg >= LUNA_CS_SELECTOR && reg <= LUNA_LDTR_ACCESS &&
         (reg - LUNA_CS_SELECTOR) % 4 == LUNA_CS_ACCESS - LUNA_CS_SELECTOR && value & reserved &&
         !(value & unusable);
}

static hv_return_t set_system(hvf_vcpu *v, int reg, uint64_t value) {
  uint64_t now = 0;
  if (is_no_access(reg, value)) {
    return hvf_fail(HV_BAD_ARGUMENT, "%s cannot be 0x%" PRIx64 ": bits 8 to 11 are reserved",
                    luna_register_name(reg), value);
  }
  if (reg == LUNA_CR0 || reg == LUNA_CR4) {
    hvf_fixed_touch(v);
  }
  int status = reg == LUNA_CR4 ? luna_vcpu_get(v->vcpu, reg, &now) : LUNA_OK;
  if (status == LUNA_OK) {
    status = luna_vcpu_set(v->vcpu, reg, hvf_fixed_given(v, reg, value, now));
  }
  if (status == LUNA_OK) {
    hvf_fixed_keep(v, reg, value);
    hvf_suspect_note(v, reg, value);
  }
  return hvf_status(status);
}

static int set_rip(hvf_vcpu *v, uint64_t value) {
  uint32_t blocking;
  int status = luna_vcpu_get_blocking(v->vcpu, &blocking);
  status = status == LUNA_OK ? luna_vcpu_set(v->vcpu, LUNA_RIP, value) : status;
  return status == LUNA_OK ? block_again(v, blocking) : status;
}

static hv_return_t set_now(hvf_vcpu *v, int reg, uint64_t value) {
  if (reg >= GENERAL_COUNT) {
    return set_system(v, reg, value);
  }
  hvf_suspect_note(v, reg, value);
  if (reg == LUNA_RIP) {
    return hvf_status(set_rip(v, value));
  }
  return hvf_status(luna_vcpu_set(v->vcpu, reg, value));
}

/* Writes to a register that the program's view has a place for; false for any other. */
static bool set_in_view(hvf_vcpu *v, int reg, uint64_t value) {
  hvf_exit *x = &v->exit;
  if (reg == LUNA_RIP && !hvf_is_fault(v)) {
    x->rip = value;
    x->rip_written = true;
    hvf_suspect_note(v, reg, value);
    return true;
  }
  bool answers = !hvf_is_fault(v) && x->stage == HVF_STAGE_OPEN && x->e->access == LUNA_READ;
  if (reg == LUNA_RAX && answers) {
    x->rax = value;
    x->rax_written = true;
    return true;
  }
  if (reg == LUNA_RDX && answers && x->kind == LUNA_EXIT_MSR) {
    x->rdx = value;
    x->rdx_written = true;
    return true;
  }
  return false;
}

/* The RIP that KVM has after a write is behind the instruction: to write the same says only that
 * the write has been dealt with. */
static hv_return_t set_written_rip(hvf_vcpu *v, uint64_t value) {
  uint64_t rip;
  hv_return_t result = hvf_status(luna_vcpu_get(v->vcpu, LUNA_RIP, &rip));
  if (result == HV_SUCCESS && rip != value) {
    result = hvf_status(luna_vcpu_set(v->vcpu, LUNA_RIP, value));
  }
  v->exit.rip_written = result == HV_SUCCESS;
  hvf_suspect_note(v, LUNA_RIP, value);
  return result;
}

static hv_return_t prepare_set(hvf_vcpu *v) {
  if (v->exit.kind == LUNA_EXIT_PIO || hvf_is_done(v)) {
    return settle_string(v);
  }
  uint64_t linear;
  if (!hvf_is_fault(v)) {
    return HV_SUCCESS;
  }
  hvf_memory_linear(v, &linear); /* by registers as they are now */
  return v->exit.e->access == LUNA_EXECUTE ? hvf_view_place(v) : hvf_view_take_back(v);
}

static hv_return_t set_seen(hvf_vcpu *v, int reg, uint64_t value) {
  hv_return_t result = prepare_set(v);
  if (result != HV_SUCCESS) {
    return result;
  }
  if (hvf_has_view(v)) {
    if (set_in_view(v, reg, value)) {
      return HV_SUCCESS;
    }
    if (reg == LUNA_RIP && hvf_is_done(v)) {
      return set_written_rip(v, value);
    }
    if (reg == LUNA_RIP) { /* there is nothing left of a fetch */
      v->exit.stage = HVF_STAGE_NONE;
    }
  }
  return set_now(v, reg, value);
}

hv_return_t hvf_set(hvf_vcpu *v, int reg, uint64_t value) {
  if (v->exit.controlled) { /* the access is the program's from now on */
    v->exit.rip_written |= reg == LUNA_RIP;
    v->exit.rax_written |= reg == LUNA_RAX;
  }
  return hvf_has_view(v) ? set_seen(v, reg, value) : set_now(v, reg, value);
}
