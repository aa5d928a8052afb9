/* SPDX-License-Identifier: MIT
 * Debug registers, XCR0 and the control registers of x87 and SSE by number. A write goes to KVM at
 * once, so that it says at once whether it takes the value. */
#include "vcpu/extended.h"

#include "base/error.h"
#include "kvm/kvm.h"
#include "seat/group.h"
#include "vcpu/cpuid.h"
#include "vcpu/vcpu.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* Where a register is in the copy of its group (SDM Vol. 1, table 10-2, for the x87 ones). */
typedef struct place {
  luna_group group;
  uint32_t offset;
  uint32_t size;
  uint64_t widest;
} place;

#define IN_DEBUG(field, most)                                                                      \
  { LUNA_GROUP_DEBUG, offsetof(struct kvm_debugregs, field), 8, most }
#define IN_XSAVE(offset, size, most)                                                               \
  { LUNA_GROUP_XSAVE, offset, size, most }

static const place places[] = {
    IN_DEBUG(db[0], UINT64_MAX),
    IN_DEBUG(db[1], UINT64_MAX),
    IN_DEBUG(db[2], UINT64_MAX),
    IN_DEBUG(db[3], UINT64_MAX),
    IN_DEBUG(dr6, UINT32_MAX),
    IN_DEBUG(dr7, UINT32_MAX),
    {LUNA_GROUP_XCRS, offsetof(struct kvm_xcrs, xcrs[0].value), 8, UINT64_MAX},
    IN_XSAVE(0, 2, UINT16_MAX),
    IN_XSAVE(2, 2, UINT16_MAX),
    IN_XSAVE(4, 1, UINT8_MAX),
    IN_XSAVE(6, 2, 0x7ff),
    IN_XSAVE(8, 8, UINT64_MAX),
    IN_XSAVE(16, 8, UINT64_MAX),
    IN_XSAVE(24, 4, UINT32_MAX),
};

enum {
  X87_AND_SSE = 3,            /* XSTATE_BV */
  MXCSR_MASK = 28,            /* where the area has it */
  MXCSR_MASK_DEFAULT = 0xffbf /* SDM Vol. 1, 11.6.6 */
};

int luna_extended_settle(luna_vcpu *vcpu) {
  if (!vcpu->pending.incomplete || vcpu->pending.open) {
    return LUNA_OK;
  }
  int kind = luna_vcpu_settle(vcpu);
  return kind < 0 ? kind : LUNA_OK;
}

static uint8_t *copy_of(luna_vcpu *vcpu, luna_group group) {
  luna_held *held = &vcpu->seat->held;
  if (luna_seat_fetch(vcpu->seat, 1u << group) != LUNA_OK) {
    return NULL;
  }
  switch (group) {
    case LUNA_GROUP_XCRS:
      return (uint8_t *)&held->xcrs;
    case LUNA_GROUP_XSAVE:
      return held->xsave;
    default:
      return (uint8_t *)&held->debugregs;
  }
}

uint8_t *luna_extended_area(luna_vcpu *vcpu) {
  return copy_of(vcpu, LUNA_GROUP_XSAVE);
}

int luna_extended_write(luna_vcpu *vcpu, uint64_t components) {
  uint8_t *area = vcpu->seat->held.xsave;
  uint64_t used;
  memcpy(&used, area + 512, sizeof used);
  used |= components;
  memcpy(area + 512, &used, sizeof used);
  if (luna_kvm_set_xsave(vcpu->fd, area) == 0) {
    return LUNA_OK;
  }
  int number = errno;
  vcpu->seat->held.known &= ~(1u << LUNA_GROUP_XSAVE);
  if (number == EINVAL) {
    return luna_fail(
        LUNA_ERROR_RANGE,
        "cannot write the extended state of vCPU %u: KVM refuses it; a reserved bit of "
        "MXCSR or XSTATE_BV is set, or one that the vCPU's CPUID does not offer",
        vcpu->id);
  }
  return luna_fail_errno(number, "cannot write the extended state of vCPU %u", vcpu->id);
}

int luna_extended_get(luna_vcpu *vcpu, int reg, uint64_t *value) {
  const place *p = &places[reg - LUNA_DR0];
  const uint8_t *copy = copy_of(vcpu, p->group);
  if (!copy) {
    return luna_error_status();
  }
  *value = 0;
  memcpy(value, copy + p->offset, p->size);
  return LUNA_OK;
}

/* SDM Vol. 1, 13.3. */
static const char *xcr0_rule(uint64_t value, uint64_t offered) {
  const uint64_t avx = 4;
  const uint64_t mpx = 0x18;
  const uint64_t avx512 = 0xe0;
  const uint64_t amx = 0x60000;
  if (!(value & 1)) {
    return "bit 0 (x87) must be set";
  }
  if (value & avx && !(value & 2)) {
    return "bit 2 (AVX) needs bit 1 (SSE)";
  }
  if (value & avx512 && ((value & avx512) != avx512 || !(value & avx))) {
    return "bits 5 to 7 (AVX-512) go together and need bit 2 (AVX)";
  }
  if ((value & mpx) != 0 && (value & mpx) != mpx) {
    return "bits 3 and 4 (MPX) go together";
  }
  if ((value & amx) != 0 && (value & amx) != amx) {
    return "bits 17 and 18 (AMX) go together";
  }
  return value & ~offered ? "a bit is set that CPUID leaf 0xd does not offer" : "KVM refuses it";
}

static int fail_xcr0(const luna_vcpu *vcpu, uint64_t value) {
  const struct kvm_cpuid_entry2 *leaf = luna_cpuid_find(vcpu->cpuid, 0xd, 0);
  uint64_t offered = leaf ? leaf->eax | (uint64_t)leaf->edx << 32 : 3;
  return luna_fail(LUNA_ERROR_RANGE,
                   "cannot set xcr0 to 0x%" PRIx64 ": %s (offered: 0x%" PRIx64 ")", value,
                   xcr0_rule(value, offered), offered);
}

static int set_xcr0(luna_vcpu *vcpu, uint64_t value) {
  struct kvm_xcrs xcrs = vcpu->seat->held.xcrs;
  xcrs.xcrs[0].value = value;
  if (luna_kvm_set_xcrs(vcpu->fd, &xcrs) != 0) {
    return errno == EINVAL ? fail_xcr0(vcpu, value)
                           : luna_fail_errno(errno, "cannot write XCR0 of vCPU %u", vcpu->id);
  }
  vcpu->seat->held.xcrs = xcrs;
  return LUNA_OK;
}

static int set_debug(luna_vcpu *vcpu, const place *p, uint64_t value) {
  struct kvm_debugregs debugregs = vcpu->seat->held.debugregs;
  memcpy((uint8_t *)&debugregs + p->offset, &value, sizeof value);
  if (luna_kvm_set_debugregs(vcpu->fd, &debugregs) != 0) {
    return luna_fail_errno(errno, "cannot write the debug registers of vCPU %u", vcpu->id);
  }
  vcpu->seat->held.debugregs = debugregs;
  return LUNA_OK;
}

static int check_mxcsr(const uint8_t *area, uint64_t value) {
  uint32_t mask;
  memcpy(&mask, area + MXCSR_MASK, sizeof mask);
  uint64_t reserved = value & ~(uint64_t)(mask ? mask : MXCSR_MASK_DEFAULT);
  if (reserved) {
    return luna_fail(LUNA_ERROR_RANGE,
                     "cannot set mxcsr to 0x%" PRIx64 ": bit %d is reserved on this host", value,
                     __builtin_ctzll(reserved));
  }
  return LUNA_OK;
}

static int set_control(luna_vcpu *vcpu, const place *p, int reg, uint64_t value) {
  uint8_t *area = vcpu->seat->held.xsave;
  int status = reg == LUNA_MXCSR ? check_mxcsr(area, value) : LUNA_OK;
  if (status != LUNA_OK) {
    return status;
  }
  memcpy(area + p->offset, &value, p->size);
  return luna_extended_write(vcpu, X87_AND_SSE);
}

int luna_extended_set(luna_vcpu *vcpu, int reg, uint64_t value) {
  const place *p = &places[reg - LUNA_DR0];
  if (value > p->widest) {
    return luna_fail(LUNA_ERROR_RANGE,
                     "cannot set %s to 0x%" PRIx64 ": it holds at most 0x%" PRIx64,
                     luna_register_name(reg), value, p->widest);
  }
  int status = luna_extended_settle(vcpu);
  if (status != LUNA_OK) {
    return status;
  }
  if (!copy_of(vcpu, p->group)) {
    return luna_error_status();
  }
  switch (p->group) {
    case LUNA_GROUP_XCRS:
      return set_xcr0(vcpu, value);
    case LUNA_GROUP_DEBUG:
      return set_debug(vcpu, p, value);
    default:
      return set_control(vcpu, p, reg, value);
  }
}
