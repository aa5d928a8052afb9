/* SPDX-License-Identifier: MIT
 * Extended, debug and model-specific registers, events and the time-stamp counter of a fake
 * vCPU. */
#include "fake/fake_state.h"

#include "fake/fake.h"
#include "fake/fake_file.h"

#include <errno.h>
#include <string.h>

/* One more is listed than can be read, as KVM does with MSRs that its CPUID hides. */
static const uint32_t listed[] = {0x10, 0x3b, 0x174, 0xc0000081, 0xc0000102, 0x4b564d00};
static const uint32_t kept[FAKE_MSRS] = {0x10, 0x1b, 0x3b, 0x174, 0xc0000081, 0xc0000102};

void fake_state_reset(fake_state *state) {
  memset(state, 0, sizeof *state);
  state->xcrs.nr_xcrs = 1;
  state->xcrs.xcrs[0].value = 1;
  state->debugregs.dr6 = 0xffff0ff0;
  state->debugregs.dr7 = 0x400;
}

int fake_msr_list(struct kvm_msr_list *list) {
  const uint32_t count = sizeof listed / sizeof *listed;
  if (list->nmsrs < count) {
    list->nmsrs = count;
    errno = E2BIG;
    return -1;
  }
  list->nmsrs = count;
  memcpy(list->indices, listed, sizeof listed);
  return 0;
}

static uint64_t *find_msr(fake_state *state, uint32_t index) {
  for (int i = 0; i < FAKE_MSRS; i++) {
    if (kept[i] == index) {
      return &state->msrs[i];
    }
  }
  return NULL;
}

/* kvm_synchronize_tsc, the host's counter standing at 0: 0, and before Linux 6.7 what is within a
 * second, is a wish to go with the VM's other counters. */
static void write_tsc(fake_state *state, uint64_t value) {
  const uint64_t second = 2000000000;
  if (value != 0 && value - state->tsc_offset + second > 2 * second && !fake_host.host_tsc) {
    state->tsc_offset = value;
  }
}

/* Stops at the first that is not there or not taken, as KVM does. */
static int move_msrs(fake_state *state, struct kvm_msrs *msrs, int write) {
  for (uint32_t i = 0; i < msrs->nmsrs; i++) {
    uint64_t *msr = find_msr(state, msrs->entries[i].index);
    if (!msr || (write && msrs->entries[i].data == FAKE_REFUSED)) {
      return (int)i;
    }
    if (write && kept[msr - state->msrs] == 0x10) {
      write_tsc(state, msrs->entries[i].data);
    } else if (write) {
      *msr = msrs->entries[i].data;
    } else if (kept[msr - state->msrs] == 0x10) {
      msrs->entries[i].data = state->tsc_offset;
    } else {
      msrs->entries[i].data = *msr;
    }
  }
  return (int)msrs->nmsrs;
}

static int move_tsc(fake_state *state, const struct kvm_device_attr *attribute, int write) {
  void *offset = (void *)(uintptr_t)attribute->addr;
  if (fake_host.no_tsc_offset || attribute->group != KVM_VCPU_TSC_CTRL ||
      attribute->attr != KVM_VCPU_TSC_OFFSET) {
    errno = ENXIO;
    return -1;
  }
  if (!write || !fake_host.host_tsc) {
    memcpy(write ? &state->tsc_offset : offset, write ? offset : &state->tsc_offset,
           sizeof state->tsc_offset);
  }
  return 0;
}

static int give(void *to, const void *from, size_t size) {
  memcpy(to, from, size);
  return 0;
}

static int refuse(void) {
  errno = EINVAL;
  return -1;
}

static int set_xcrs(fake_state *state, const struct kvm_xcrs *xcrs) {
  return xcrs->xcrs[0].value == FAKE_REFUSED ? refuse() : give(&state->xcrs, xcrs, sizeof *xcrs);
}

static int set_debugregs(fake_state *state, const struct kvm_debugregs *debugregs) {
  return debugregs->db[3] == FAKE_REFUSED ? refuse()
                                          : give(&state->debugregs, debugregs, sizeof *debugregs);
}

/* Bytes 24 to 27 are MXCSR. */
static int set_xsave(fake_state *state, const uint8_t *xsave) {
  return xsave[26] || xsave[27] ? refuse() : give(state->xsave, xsave, sizeof state->xsave);
}

int fake_state_ioctl(fake_state *state, unsigned long request, void *argument) {
  switch (request) {
    case KVM_GET_VCPU_EVENTS:
      return give(argument, &state->events, sizeof state->events);
    case KVM_SET_VCPU_EVENTS:
      return give(&state->events, argument, sizeof state->events);
    case KVM_GET_XCRS:
      return give(argument, &state->xcrs, sizeof state->xcrs);
    case KVM_SET_XCRS:
      return set_xcrs(state, argument);
    case KVM_GET_DEBUGREGS:
      return give(argument, &state->debugregs, sizeof state->debugregs);
    case KVM_SET_DEBUGREGS:
      return set_debugregs(state, argument);
    case KVM_GET_XSAVE:
      return give(argument, &state->xsave, sizeof state->xsave);
    case KVM_SET_XSAVE:
      return set_xsave(state, argument);
    case KVM_GET_MSRS:
      return move_msrs(state, argument, 0);
    case KVM_SET_MSRS:
      return move_msrs(state, argument, 1);
    case KVM_GET_DEVICE_ATTR:
      return move_tsc(state, argument, 0);
    case KVM_SET_DEVICE_ATTR:
      return move_tsc(state, argument, 1);
    default:
      errno = ENOTTY;
      return -1;
  }
}
