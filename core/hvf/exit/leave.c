/* SPDX-License-Identifier: MIT
 * Going on from an exit: what the program has written becomes KVM's answer where that comes to the
 * same, which costs nothing, and otherwise registers. */
#include "hvf/exit/leave.h"

#include "hvf/base/error.h"
#include "hvf/exit/view.h"

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
  hv_return_t result = hvf_view_take_back(v);
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
  hv_return_t result = hvf_view_place(v);
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
  if (v->exit.rip_written) { /* where it was set to elsewhere, that has dropped the write */
    if (!luna_vcpu_open(v->vcpu)) {
      return HV_SUCCESS;
    }
    return hvf_status(v->exit.placed && v->exit.wide ? hvf_view_run_out(v)
                                                     : luna_vcpu_answer(v->vcpu, 0));
  }
  int status = luna_vcpu_retry(v->vcpu);
  return status == LUNA_ERROR_NOT_FOUND ? HV_SUCCESS : hvf_status(status);
}

static hv_return_t leave_halt(hvf_vcpu *v) {
  hvf_exit *x = &v->exit;
  hv_return_t result = hvf_view_place(v);
  uint64_t rip = x->rip_written ? x->rip : x->start;
  if (result == HV_SUCCESS && rip != x->start + x->length) {
    result = hvf_status(luna_vcpu_set(v->vcpu, LUNA_RIP, rip));
  }
  return result;
}

hv_return_t hvf_leave_exit(hvf_vcpu *v) {
  switch (v->exit.stage) {
    case HVF_STAGE_BEHIND:
      return leave_halt(v);
    case HVF_STAGE_OPEN:
      return hvf_is_fault(v) ? leave_fault(v) : leave_access(v);
    default:
      return HV_SUCCESS;
  }
}
