/* SPDX-License-Identifier: MIT
 * Port accesses that a control exits for, done for programs that decode nothing: what the exit
 * tells is enough (SDM Vol. 3, tables 28-5 and 28-8). */
#include "hvf/exit/follow.h"

#include <Hypervisor/hv_arch_vmx.h>

#include "hvf/base/error.h"

enum {
  IN = 1 << 3, /* of the qualification */
  STRING = 1 << 4,
  REPEAT = 1 << 5,
  DIRECTION = 0x400 /* of RFLAGS */
};

static uint64_t mask_of(uint32_t bits) {
  return UINT64_MAX >> (64 - bits);
}

static uint32_t address_bits(const luna_control_exit *x) {
  return 16u << (x->instruction >> 7 & 3);
}

static uint64_t read(hvf_vcpu *v, int reg) {
  uint64_t value = 0;
  luna_vcpu_get(v->vcpu, reg, &value);
  return value;
}

/* A write of fewer than 32 bits leaves the rest of the register. */
static int write(hvf_vcpu *v, int reg, uint64_t value, uint32_t bits) {
  const uint64_t kept = bits >= 32 ? 0 : read(v, reg) & ~mask_of(bits);
  return luna_vcpu_set(v->vcpu, reg, kept | (value & mask_of(bits)));
}

bool hvf_follow_port(hvf_vcpu *v, luna_exit *access) {
  const luna_control_exit *x = &v->exit.control;
  if (!v->exit.controlled || x->reason != VMX_REASON_IO) {
    return false;
  }
  const uint32_t size = (uint32_t)(x->qualification & 7) + 1;
  *access = (luna_exit){.address = x->qualification >> 16 & 0xffff,
                        .size = size,
                        .access = x->qualification & IN ? LUNA_READ : LUNA_WRITE,
                        .count = 1};
  if (x->qualification & REPEAT) {
    access->count = (uint32_t)(read(v, LUNA_RCX) & mask_of(address_bits(x)));
  }
  if (access->access == LUNA_WRITE && x->qualification & STRING) {
    return luna_vcpu_copy(v->vcpu, x->linear, &access->value, size, LUNA_READ) == LUNA_OK;
  }
  access->value = access->access == LUNA_WRITE ? read(v, LUNA_RAX) & mask_of(8 * size) : 0;
  return true;
}

/* Whether the instruction has further elements is in *more. */
static int advance(hvf_vcpu *v, const luna_exit *access, bool *more) {
  const luna_control_exit *x = &v->exit.control;
  const uint32_t bits = address_bits(x);
  const int reg = access->access == LUNA_READ ? LUNA_RDI : LUNA_RSI;
  const uint64_t by = access->size;
  const uint64_t step = read(v, LUNA_RFLAGS) & DIRECTION ? -by : by;
  int status = write(v, reg, read(v, reg) + step, bits);
  if (status == LUNA_OK && x->qualification & REPEAT) {
    status = write(v, LUNA_RCX, read(v, LUNA_RCX) - 1, bits);
    *more = access->count > 1;
  }
  return status;
}

static int put(hvf_vcpu *v, const luna_exit *access, uint64_t value) {
  const luna_control_exit *x = &v->exit.control;
  if (access->access != LUNA_READ) {
    return LUNA_OK;
  }
  return x->qualification & STRING
             ? luna_vcpu_copy(v->vcpu, x->linear, &value, access->size, LUNA_WRITE)
             : write(v, LUNA_RAX, value, 8 * access->size);
}

hv_return_t hvf_follow_complete(hvf_vcpu *v, uint64_t value) {
  hvf_exit *x = &v->exit;
  luna_exit access = {0};
  bool more = false;
  hvf_follow_port(v, &access);
  int status = put(v, &access, value);
  if (status == LUNA_OK && x->control.qualification & STRING) {
    status = advance(v, &access, &more);
  }
  if (status == LUNA_OK && !more) {
    status = luna_vcpu_set(v->vcpu, LUNA_RIP, read(v, LUNA_RIP) + x->control.length);
  }
  x->controlled = status != LUNA_OK;
  return hvf_status(status);
}
