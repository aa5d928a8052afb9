/* SPDX-License-Identifier: MIT
 * An exit as the framework has it: the instruction has not begun, and the program does its work and
 * moves RIP. KVM has done part of it and wants to do the rest, so the program's view is kept beside
 * KVM's as long as that costs nothing, and otherwise KVM's work is taken back. */
#include "hvf.h"

#include <inttypes.h>
#include <string.h>

enum {
  GENERAL_COUNT = LUNA_RFLAGS + 1,
  LONGEST = 15,      /* of any instruction */
  MOST_PARTS = 8192, /* exits that one instruction can make */
  VALID_LINEAR = 3 << 7,
  EXIT_WINDOW = 7 /* KVM_EXIT_IRQ_WINDOW_OPEN */
};

static bool is_fault(const hvf_vcpu *v) {
  return v->exit.kind == LUNA_EXIT_FAULT || v->exit.kind == LUNA_EXIT_HOST_FAULT;
}

/* ---- Taking KVM's part of an instruction back ---- */

static int get_all(hvf_vcpu *v, uint64_t *values) {
  int status = LUNA_OK;
  for (int reg = 0; reg < GENERAL_COUNT && status == LUNA_OK; reg++) {
    status = luna_vcpu_get(v->vcpu, reg, &values[reg]);
  }
  return status;
}

static int set_all(hvf_vcpu *v, const uint64_t *values) {
  int status = LUNA_OK;
  for (int reg = 0; reg < GENERAL_COUNT && status == LUNA_OK; reg++) {
    status = luna_vcpu_set(v->vcpu, reg, values[reg]);
  }
  return status;
}

/* Lets KVM finish the instruction, whatever it does with zeroes. */
static int run_out(hvf_vcpu *v) {
  int kind = 1;
  for (int i = 0; i < MOST_PARTS && kind > 0; i++) {
    while (luna_vcpu_answer(v->vcpu, 0) == LUNA_OK) {
    }
    kind = luna_vcpu_finish(v->vcpu);
  }
  return kind < 0 ? kind : LUNA_OK;
}

/* `by` elements on or back in a string, in the bits that the address size leaves. */
static uint64_t stepped(uint64_t value, int64_t by, uint8_t bits) {
  uint64_t mask = UINT64_MAX >> (64 - bits);
  uint64_t moved = (value + (uint64_t)by) & mask;
  return bits == 16 ? (value & ~mask) | moved : moved;
}

/* KVM has counted the element of OUTS that it exits for. */
static void uncount(const hvf_port *port, uint64_t *values) {
  const uint64_t direction_flag = 0x400;
  int64_t step = values[LUNA_RFLAGS] & direction_flag ? -(int64_t)port->size : port->size;
  values[LUNA_RSI] = stepped(values[LUNA_RSI], -step, port->address_bits);
  if (port->repeat) {
    values[LUNA_RCX] = stepped(values[LUNA_RCX], 1, port->address_bits);
  }
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
  if (!write && (x->length == 0 || x->length > LONGEST)) { /* it repeats itself, or jumps */
    x->length = hvf_string_length(v, before);
  }
}

/* From now on the registers are those before the instruction, and KVM knows nothing of it. */
static hv_return_t take_back(hvf_vcpu *v) {
  hvf_exit *x = &v->exit;
  uint64_t values[GENERAL_COUNT];
  uint64_t end;
  int status = get_all(v, values);
  if (status != LUNA_OK) {
    return hvf_status(status);
  }
  x->seen = *x->e;
  x->e = &x->seen;
  status = run_out(v);
  status = status == LUNA_OK ? luna_vcpu_get(v->vcpu, LUNA_RIP, &end) : status;
  if (status != LUNA_OK) {
    return hvf_status(status);
  }
  place_after(v, values[LUNA_RIP], end);
  if (x->kind == LUNA_EXIT_PIO && x->port.string && !x->port.in) {
    uncount(&x->port, values);
  }
  values[LUNA_RIP] = x->start;
  x->stage = HVF_STAGE_NONE;
  return hvf_status(set_all(v, values));
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
      return take_back(v);
  }
  x->length = x->port.length;
  x->placed = true;
  return HV_SUCCESS;
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

static hv_return_t place(hvf_vcpu *v) {
  const hvf_exit *x = &v->exit;
  if (x->placed || x->stage == HVF_STAGE_NONE) {
    return HV_SUCCESS;
  }
  switch (x->kind) {
    case LUNA_EXIT_PIO:
      return place_port(v);
    case LUNA_EXIT_MSR:
      return place_msr(v);
    default:
      return place_halt(v);
  }
}

/* ---- Registers ---- */

static bool has_view(const hvf_vcpu *v) {
  return v->exit.stage == HVF_STAGE_OPEN || v->exit.stage == HVF_STAGE_BEHIND;
}

/* KVM has changed, or will change, registers that count a string's elements. */
static hv_return_t settle_string(hvf_vcpu *v) {
  hv_return_t result = place(v);
  return result == HV_SUCCESS && has_view(v) && v->exit.port.string ? take_back(v) : result;
}

static hv_return_t get_rip(hvf_vcpu *v, uint64_t *value) {
  hvf_exit *x = &v->exit;
  if (!is_fault(v)) {
    hv_return_t result = x->rip_written ? HV_SUCCESS : place(v);
    if (result != HV_SUCCESS || has_view(v)) {
      *value = x->rip_written ? x->rip : x->start;
      return result;
    }
  }
  return hvf_status(luna_vcpu_get(v->vcpu, LUNA_RIP, value));
}

hv_return_t hvf_get(hvf_vcpu *v, int reg, uint64_t *value) {
  hvf_exit *x = &v->exit;
  if (has_view(v)) {
    if (reg == LUNA_RIP) {
      return get_rip(v, value);
    }
    if ((reg == LUNA_RAX && x->rax_written) || (reg == LUNA_RDX && x->rdx_written)) {
      *value = reg == LUNA_RAX ? x->rax : x->rdx;
      return HV_SUCCESS;
    }
    bool counts = reg == LUNA_RCX || reg == LUNA_RSI || reg == LUNA_RDI;
    hv_return_t result = counts && x->kind == LUNA_EXIT_PIO ? settle_string(v) : HV_SUCCESS;
    if (result != HV_SUCCESS) {
      return result;
    }
  }
  return hvf_status(luna_vcpu_get(v->vcpu, reg, value));
}

/* Writes to a register that the program's view has a place for; false for any other. */
static bool set_in_view(hvf_vcpu *v, int reg, uint64_t value) {
  hvf_exit *x = &v->exit;
  if (reg == LUNA_RIP && !is_fault(v)) {
    x->rip = value;
    x->rip_written = true;
    return true;
  }
  bool answers = !is_fault(v) && x->stage == HVF_STAGE_OPEN && x->e->access == LUNA_READ;
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

/* The RIP that KVM shows after a write is behind the instruction: to write the same says only that
 * the write has been dealt with. */
static hv_return_t set_written_rip(hvf_vcpu *v, uint64_t value) {
  uint64_t rip;
  hv_return_t result = hvf_status(luna_vcpu_get(v->vcpu, LUNA_RIP, &rip));
  if (result == HV_SUCCESS && rip != value) {
    result = hvf_status(luna_vcpu_set(v->vcpu, LUNA_RIP, value));
  }
  v->exit.rip_written = result == HV_SUCCESS;
  return result;
}

static hv_return_t prepare_set(hvf_vcpu *v) {
  if (v->exit.kind == LUNA_EXIT_PIO) {
    return settle_string(v);
  }
  return is_fault(v) && v->exit.e->access == LUNA_READ ? take_back(v) : HV_SUCCESS;
}

hv_return_t hvf_set(hvf_vcpu *v, int reg, uint64_t value) {
  if (has_view(v)) {
    hv_return_t result = prepare_set(v);
    if (result != HV_SUCCESS) {
      return result;
    }
  }
  if (has_view(v)) {
    if (set_in_view(v, reg, value)) {
      return HV_SUCCESS;
    }
    if (reg == LUNA_RIP && v->exit.e->access == LUNA_WRITE) {
      return set_written_rip(v, value);
    }
    if (reg == LUNA_RIP) { /* there is nothing left of a fetch */
      v->exit.stage = HVF_STAGE_NONE;
    }
  }
  return hvf_status(luna_vcpu_set(v->vcpu, reg, value));
}

/* ---- What the exit fields say ---- */

hv_return_t hvf_exit_length(hvf_vcpu *v, uint64_t *value) {
  hvf_exit *x = &v->exit;
  hv_return_t result = HV_SUCCESS;
  if (!is_fault(v)) {
    result = place(v);
  } else if (x->stage == HVF_STAGE_OPEN && x->e->access == LUNA_READ) {
    result = take_back(v);
  }
  *value = x->length;
  return result;
}

static uint64_t port_qualification(const luna_exit *e, const hvf_port *port) {
  bool in = e->access == LUNA_READ;
  return (uint64_t)(e->size - 1) | (uint64_t)in << 3 | (uint64_t)port->string << 4 |
         (uint64_t)port->repeat << 5 | (uint64_t)port->immediate << 6 | e->address << 16;
}

/* The rights that the guest has where the access went. */
static uint64_t rights_at(const luna_exit *e) {
  luna_region region;
  bool mapped = luna_space_next(hvf_the_vm.vm, e->space, e->address, &region) == LUNA_OK &&
                region.gpa <= e->address;
  return mapped ? region.enforced : 0;
}

/* The linear address of the access, where it can be known; false where not. */
static bool linear_address(hvf_vcpu *v, uint64_t *linear) {
  const uint64_t paging = UINT64_C(1) << 31;
  const uint64_t long_code = UINT64_C(1) << 13;
  const luna_exit *e = v->exit.e;
  uint64_t cr0, rip, base, access;
  if (luna_vcpu_get(v->vcpu, LUNA_CR0, &cr0) != LUNA_OK) {
    return false;
  }
  *linear = e->address;
  if (!(cr0 & paging)) {
    return true;
  }
  if (e->access != LUNA_EXECUTE || luna_vcpu_get(v->vcpu, LUNA_RIP, &rip) != LUNA_OK ||
      luna_vcpu_get(v->vcpu, LUNA_CS_BASE, &base) != LUNA_OK ||
      luna_vcpu_get(v->vcpu, LUNA_CS_ACCESS, &access) != LUNA_OK) {
    return false;
  }
  *linear = access & long_code ? rip : (uint32_t)(base + rip);
  return true;
}

hv_return_t hvf_exit_qualification(hvf_vcpu *v, uint64_t *value) {
  const hvf_exit *x = &v->exit;
  uint64_t linear;
  *value = 0;
  if (x->kind == LUNA_EXIT_PIO) {
    hv_return_t result = place(v);
    *value = port_qualification(x->e, &x->port);
    return result;
  }
  if (is_fault(v)) {
    *value = x->e->access | rights_at(x->e) << 3;
    *value |= linear_address(v, &linear) ? VALID_LINEAR : 0;
  }
  return HV_SUCCESS;
}

hv_return_t hvf_exit_linear(hvf_vcpu *v, uint64_t *value) {
  if (!is_fault(v) || !linear_address(v, value)) {
    *value = 0;
  }
  return HV_SUCCESS;
}

/* Of INS and OUTS: address size and segment (SDM Vol. 3, table 28-8). */
hv_return_t hvf_exit_instruction(hvf_vcpu *v, uint64_t *value) {
  const hvf_exit *x = &v->exit;
  hv_return_t result = x->kind == LUNA_EXIT_PIO ? place(v) : HV_SUCCESS;
  const hvf_port *port = &x->port;
  *value = 0;
  if (x->kind == LUNA_EXIT_PIO && port->string) {
    uint64_t size = port->address_bits / 32; /* 16, 32, 64: 0, 1, 2 */
    *value = size << 7 | (uint64_t)port->segment << 15;
  }
  return result;
}

/* ---- Going on ---- */

/* What RAX is when KVM has put a port's answer there. */
static uint64_t merged(uint64_t rax, uint64_t answer, uint32_t size) {
  if (size == 4) {
    return (uint32_t)answer;
  }
  uint64_t mask = size == 1 ? 0xff : 0xffff;
  return (rax & ~mask) | (answer & mask);
}

/* KVM takes the program's RAX for the port's answer, and moves RIP itself. */
static int answer_in(hvf_vcpu *v) {
  const hvf_exit *x = &v->exit;
  uint64_t before;
  int status = luna_vcpu_get(v->vcpu, LUNA_RAX, &before);
  if (status != LUNA_OK) {
    return status;
  }
  uint64_t rax = x->rax_written ? x->rax : before;
  uint32_t size = x->e->size;
  status = luna_vcpu_answer(v->vcpu, rax);
  if (status == LUNA_OK && merged(before, rax, size) != rax) {
    status = luna_vcpu_set(v->vcpu, LUNA_RAX, rax);
  }
  return status;
}

/* The same for RDMSR, whose answer is in EDX and EAX. */
static int answer_rdmsr(hvf_vcpu *v) {
  const hvf_exit *x = &v->exit;
  uint64_t rax = x->rax;
  uint64_t rdx = x->rdx;
  int status = x->rax_written ? LUNA_OK : luna_vcpu_get(v->vcpu, LUNA_RAX, &rax);
  if (status == LUNA_OK && !x->rdx_written) {
    status = luna_vcpu_get(v->vcpu, LUNA_RDX, &rdx);
  }
  status = status == LUNA_OK ? luna_vcpu_answer(v->vcpu, rdx << 32 | (uint32_t)rax) : status;
  if (status == LUNA_OK && rax > UINT32_MAX) {
    status = luna_vcpu_set(v->vcpu, LUNA_RAX, rax);
  }
  if (status == LUNA_OK && rdx > UINT32_MAX) {
    status = luna_vcpu_set(v->vcpu, LUNA_RDX, rdx);
  }
  return status;
}

/* The instruction is executed again, with what the program wrote to its registers. */
static hv_return_t repeat(hvf_vcpu *v) {
  const hvf_exit *x = &v->exit;
  int status = LUNA_OK;
  hv_return_t result = take_back(v);
  if (result == HV_SUCCESS && x->rax_written) {
    status = luna_vcpu_set(v->vcpu, LUNA_RAX, x->rax);
  }
  if (result == HV_SUCCESS && status == LUNA_OK && x->rdx_written) {
    status = luna_vcpu_set(v->vcpu, LUNA_RDX, x->rdx);
  }
  return result == HV_SUCCESS ? hvf_status(status) : result;
}

static int answer_access(hvf_vcpu *v) {
  if (v->exit.e->access == LUNA_WRITE) {
    return luna_vcpu_answer(v->vcpu, 0);
  }
  return v->exit.kind == LUNA_EXIT_PIO ? answer_in(v) : answer_rdmsr(v);
}

/* Of a port or an MSR. */
static hv_return_t leave_access(hvf_vcpu *v) {
  hvf_exit *x = &v->exit;
  hv_return_t result = place(v);
  if (result != HV_SUCCESS || x->stage == HVF_STAGE_NONE) {
    return result;
  }
  if (x->port.string || (x->e->access == LUNA_READ && !x->rip_written)) {
    return repeat(v);
  }
  int status = answer_access(v);
  uint64_t rip = x->rip_written ? x->rip : x->start;
  if (status == LUNA_OK && rip != x->start + x->length) {
    status = luna_vcpu_set(v->vcpu, LUNA_RIP, rip);
  }
  return hvf_status(status);
}

/* Does the access again, where memory allows it by now; else it stays open and is the next exit. */
static hv_return_t leave_fault(hvf_vcpu *v) {
  if (v->exit.rip_written) {
    return hvf_status(luna_vcpu_answer(v->vcpu, 0));
  }
  int status = luna_vcpu_retry(v->vcpu);
  return status == LUNA_ERROR_NOT_FOUND ? HV_SUCCESS : hvf_status(status);
}

static hv_return_t leave_halt(hvf_vcpu *v) {
  hvf_exit *x = &v->exit;
  hv_return_t result = place(v);
  uint64_t rip = x->rip_written ? x->rip : x->start;
  if (result == HV_SUCCESS && rip != x->start + x->length) {
    result = hvf_status(luna_vcpu_set(v->vcpu, LUNA_RIP, rip));
  }
  return result;
}

static hv_return_t leave(hvf_vcpu *v) {
  switch (v->exit.stage) {
    case HVF_STAGE_BEHIND:
      return leave_halt(v);
    case HVF_STAGE_OPEN:
      return is_fault(v) ? leave_fault(v) : leave_access(v);
    default:
      return HV_SUCCESS;
  }
}

static uint32_t reason_of(int kind, const luna_exit *e) {
  switch (kind) {
    case LUNA_EXIT_HLT:
      return VMX_REASON_HLT;
    case LUNA_EXIT_PIO:
      return VMX_REASON_IO;
    case LUNA_EXIT_FAULT:
    case LUNA_EXIT_HOST_FAULT:
      return VMX_REASON_EPT_VIOLATION;
    case LUNA_EXIT_MSR:
      return e->access == LUNA_READ ? VMX_REASON_RDMSR : VMX_REASON_WRMSR;
    case LUNA_EXIT_SHUTDOWN:
      return VMX_REASON_TRIPLE_FAULT;
    case LUNA_EXIT_DEBUG:
      return VMX_REASON_MTF;
    case LUNA_EXIT_OTHER:
      return VMX_REASON_IRQ_WND;
    case LUNA_EXIT_TIMEOUT:
      return VMX_REASON_VMX_TIMER_EXPIRED;
    case LUNA_EXIT_FAIL_ENTRY:
      return VMX_REASON_ENTRY_FAILURE | VMX_REASON_VMENTRY_GUEST;
    default:
      return VMX_REASON_IRQ;
  }
}

static hvf_stage stage_of(int kind, const luna_exit *e) {
  switch (kind) {
    case LUNA_EXIT_HLT:
      return HVF_STAGE_BEHIND;
    case LUNA_EXIT_PIO:
    case LUNA_EXIT_MSR:
    case LUNA_EXIT_FAULT:
      return HVF_STAGE_OPEN;
    case LUNA_EXIT_HOST_FAULT:
      return e->size ? HVF_STAGE_OPEN : HVF_STAGE_NONE;
    default:
      return HVF_STAGE_NONE;
  }
}

static hv_return_t fail_exit(hvf_vcpu *v, int kind) {
  const luna_exit *e = v->exit.e;
  uint64_t rip = 0;
  luna_vcpu_get(v->vcpu, LUNA_RIP, &rip);
  if (kind == LUNA_EXIT_HOST_FAULT) {
    return hvf_fail(HV_FAULT,
                    "vCPU %u stopped at rip 0x%" PRIx64 ": the host memory behind gpa 0x%" PRIx64
                    " cannot be used",
                    v->id, rip, e->address);
  }
  return hvf_fail(HV_ERROR,
                  "vCPU %u stopped at rip 0x%" PRIx64
                  ": KVM cannot go on (exit %s, KVM's reason %u, suberror %u, code %02x %02x %02x "
                  "%02x)",
                  v->id, rip, luna_exit_name(kind), e->reason, e->suberror, e->instruction[0],
                  e->instruction[1], e->instruction[2], e->instruction[3]);
}

static hv_return_t present(hvf_vcpu *v, int kind) {
  hvf_exit *x = &v->exit;
  x->kind = kind;
  x->e = luna_vcpu_exit(v->vcpu);
  x->reason = reason_of(kind, x->e);
  x->stage = stage_of(kind, x->e);
  x->placed = x->rip_written = x->rax_written = x->rdx_written = x->port.string = false;
  x->length = 0;
  switch (kind) {
    case LUNA_EXIT_HOST_FAULT:
    case LUNA_EXIT_INTERNAL:
    case LUNA_EXIT_INSTRUCTION:
    case LUNA_EXIT_SYSTEM_EVENT:
      return fail_exit(v, kind);
    case LUNA_EXIT_OTHER:
      return x->e->reason == EXIT_WINDOW ? HV_SUCCESS : fail_exit(v, kind);
    default:
      return HV_SUCCESS;
  }
}

/* The only refusal of the system that has no errno is that of the registers. */
static hv_return_t present_failure(hvf_vcpu *v, int status) {
  if (status != LUNA_ERROR_SYSTEM || luna_error_number() != 0) {
    return hvf_status(status);
  }
  hvf_status(status); /* the sentence says which */
  return present(v, LUNA_EXIT_FAIL_ENTRY);
}

/* An exit that comes before the guest was entered: KVM still has to finish what was answered. If
 * that makes a further exit, it goes first, and the request to stop stays. */
static int finish_early(hvf_vcpu *v, int kind) {
  int further = luna_vcpu_finish(v->vcpu);
  if (further == 0) {
    return kind;
  }
  if (kind == LUNA_EXIT_INTERRUPTED) {
    luna_vcpu_interrupt(v->vcpu);
  }
  return further;
}

hv_return_t hvf_run(hvf_vcpu *v, uint64_t deadline) {
  bool was_open = v->exit.stage == HVF_STAGE_OPEN || v->exit.stage == HVF_STAGE_COMPLETED;
  hv_return_t result = leave(v);
  if (result == HV_SUCCESS && v->entry_event) {
    result = hvf_entry_inject(v);
  }
  if (result != HV_SUCCESS) {
    return result;
  }
  int kind;
  bool step = v->controls[HV_VMX_CAP_PROCBASED] & CPU_BASED_MTF;
  do {
    kind = step ? luna_vcpu_step(v->vcpu, deadline) : luna_vcpu_run(v->vcpu, deadline);
  } while (kind == LUNA_EXIT_MSR && hvf_msr_serve(v));
  if (was_open &&
      (kind == LUNA_EXIT_TIMEOUT || kind == LUNA_EXIT_INTERRUPTED || kind == LUNA_EXIT_SIGNAL)) {
    kind = finish_early(v, kind);
  }
  return kind < 0 ? present_failure(v, kind) : present(v, kind);
}

/* Bit 31 says that the processor looked at the guest's state; otherwise the entry itself failed, for
 * the reason of VMCS_RO_INSTR_ERROR (SDM Vol. 3, 31.2 and 31.4). */
uint32_t hvf_entry_error(const hvf_vcpu *v) {
  const hvf_exit *x = &v->exit;
  bool failed = x->kind == LUNA_EXIT_FAIL_ENTRY && x->e->kind == LUNA_EXIT_FAIL_ENTRY;
  return failed && !(x->e->value & VMX_REASON_ENTRY_FAILURE) ? (uint32_t)x->e->value : 0;
}

hv_return_t hv_vcpu_vmx_status(hv_vcpuid_t vcpu, uint32_t *status) {
  const uint32_t zero_flag = 0x40;
  hvf_vcpu *v;
  hv_return_t result = hvf_owned(vcpu, &v);
  if (result != HV_SUCCESS) {
    return result;
  }
  if (!status) {
    return hvf_fail(HV_BAD_ARGUMENT, "nowhere to put the status");
  }
  *status = hvf_entry_error(v) ? zero_flag : 0;
  return HV_SUCCESS;
}

/* ---- Accesses that KVM has decoded ---- */

hv_return_t hv_ext_vcpu_access(hv_vcpuid_t vcpu, hv_ext_access *access) {
  hvf_vcpu *v;
  hv_return_t result = hvf_owned(vcpu, &v);
  if (result != HV_SUCCESS) {
    return result;
  }
  if (!access) {
    return hvf_fail(HV_BAD_ARGUMENT, "nowhere to put the access");
  }
  if (v->exit.kind != LUNA_EXIT_PIO && !is_fault(v)) {
    return hvf_fail(HV_ERROR, "the last exit of vCPU %u was not for an access", vcpu);
  }
  const luna_exit *e = v->exit.e;
  *access = (hv_ext_access){.address = e->address,
                            .value = e->value,
                            .size = e->size,
                            .access = e->access,
                            .port = v->exit.kind == LUNA_EXIT_PIO,
                            .left = e->count ? e->count : 1};
  return HV_SUCCESS;
}

hv_return_t hv_ext_vcpu_complete(hv_vcpuid_t vcpu, uint64_t value) {
  hvf_vcpu *v;
  hv_return_t result = hvf_owned(vcpu, &v);
  if (result != HV_SUCCESS) {
    return result;
  }
  hvf_exit *x = &v->exit;
  if (x->stage != HVF_STAGE_OPEN || x->rip_written || x->rax_written) {
    return hvf_fail(HV_ERROR,
                    "vCPU %u has no access left to complete: the program has taken it over, or "
                    "there was none",
                    vcpu);
  }
  result = hvf_status(luna_vcpu_answer(v->vcpu, value));
  if (result == HV_SUCCESS) {
    x->stage = HVF_STAGE_COMPLETED;
  }
  return result;
}
