/* SPDX-License-Identifier: MIT
 * What the tests of moves share: a VM with two spaces, guests that change their state, and looking
 * at what the KVM vCPU of each space holds. */
#ifndef LUNA_MOVE_FIXTURE_H
#define LUNA_MOVE_FIXTURE_H

#include "vcpu_fixture.h"

#include "vcpu.h"

/* A part of a vCPU's state, each with a value that tells where it comes from. */
typedef enum part {
  PART_XCRS,
  PART_XSAVE,
  PART_DEBUG,
  PART_MSRS,
  PART_SREGS,
  PART_EVENTS,
  PART_REGS,
  PARTS
} part;

enum {
  VARIANTS = 3, /* what the run page carries: everything, nothing, general registers */
  MSR_KERNEL_GS = (int)0xc0000102,
  MSR_ADJUST = 0x3b,
  ALL_PARTS = (1 << PARTS) - 1
};

static inline void begin_variant(int variant) {
  static const uint32_t sync[VARIANTS] = {KVM_SYNC_X86_VALID_FIELDS, 0, KVM_SYNC_X86_REGS};
  fake_config config = fake_defaults();
  config.sync_regs = sync[variant];
  begin_with(&config);
  uint32_t space;
  CHECK_OK(luna_vm_space_create(vm, &space));
  CHECK_EQ(space, 1);
}

static inline luna_seat *seat_in(uint32_t space) {
  const luna_space *s = vm->spaces[space];
  return s->seat_count > 0 ? s->seats[0] : NULL;
}

static inline int seat_fd(uint32_t space) {
  const luna_seat *seat = seat_in(space);
  CHECK(seat);
  return seat->fd;
}

static inline uint64_t look_msr(int fd, uint32_t index) {
  luna_msrs msrs = {.count = 1};
  msrs.entries[0].index = index;
  CHECK_EQ(luna_kvm_get_msrs(fd, &msrs), 1);
  return msrs.entries[0].data;
}

static inline void put_msr(int fd, uint32_t index, uint64_t value) {
  luna_msrs msrs = {.count = 1};
  msrs.entries[0].index = index;
  msrs.entries[0].data = value;
  CHECK_EQ(luna_kvm_set_msrs(fd, &msrs), 1);
}

/* Reads the part into `state`, which has room for any. Gives where in it the value is. */
static inline void *fetch_part(int fd, part p, uint8_t *state) {
  struct kvm_xcrs *xcrs = (void *)state;
  struct kvm_debugregs *debug = (void *)state;
  struct kvm_sregs *sregs = (void *)state;
  struct kvm_vcpu_events *events = (void *)state;
  struct kvm_regs *regs = (void *)state;
  switch (p) {
    case PART_XCRS:
      CHECK_EQ(luna_kvm_get_xcrs(fd, xcrs), 0);
      return &xcrs->xcrs[0].value;
    case PART_XSAVE:
      CHECK_EQ(luna_kvm_get_xsave(fd, state, 4096), 0);
      return state + 512;
    case PART_DEBUG:
      CHECK_EQ(luna_kvm_get_debugregs(fd, debug), 0);
      return &debug->db[0];
    case PART_SREGS:
      CHECK_EQ(luna_kvm_get_sregs(fd, sregs), 0);
      return &sregs->fs.base;
    case PART_EVENTS:
      CHECK_EQ(luna_kvm_get_events(fd, events), 0);
      return &events->exception_payload;
    default:
      CHECK_EQ(luna_kvm_get_regs(fd, regs), 0);
      return &regs->r15;
  }
}

static inline uint64_t look(int fd, part p) {
  _Alignas(16) uint8_t state[4096];
  uint64_t value;
  if (p == PART_MSRS) {
    return look_msr(fd, (uint32_t)MSR_KERNEL_GS);
  }
  memcpy(&value, fetch_part(fd, p, state), sizeof value);
  return value;
}

static inline void put(int fd, part p, uint64_t value) {
  _Alignas(16) uint8_t state[4096];
  if (p == PART_MSRS) {
    put_msr(fd, (uint32_t)MSR_KERNEL_GS, value);
    return;
  }
  memcpy(fetch_part(fd, p, state), &value, sizeof value);
  int result;
  switch (p) {
    case PART_XCRS:
      result = luna_kvm_set_xcrs(fd, (void *)state);
      break;
    case PART_XSAVE:
      result = luna_kvm_set_xsave(fd, state);
      break;
    case PART_DEBUG:
      result = luna_kvm_set_debugregs(fd, (void *)state);
      break;
    case PART_SREGS:
      result = luna_kvm_set_sregs(fd, (void *)state);
      break;
    case PART_EVENTS:
      result = luna_kvm_set_events(fd, (void *)state);
      break;
    default:
      result = luna_kvm_set_regs(fd, (void *)state);
  }
  CHECK_EQ(result, 0);
}

/* What the guest does next: changes these parts, each to `base` plus its number, and halts. */
typedef struct guest_change {
  uint32_t parts;
  uint64_t base;
} guest_change;

static guest_change change;

static inline void change_parts(void *unused) {
  (void)unused;
  for (int p = 0; p < PARTS; p++) {
    if (change.parts >> p & 1) {
      put(vcpu->fd, (part)p, change.base + (unsigned)p);
    }
  }
}

/* Runs the guest until it halts, having changed its parts. */
static inline void run_changing(uint32_t parts, uint64_t base) {
  static const fake_step step[] = {{.kind = FAKE_HLT, .hook = change_parts}};
  change = (guest_change){parts, base};
  fake_script(step, 1);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
}

static inline void check_parts(uint32_t space, uint32_t parts, uint64_t base) {
  int fd = seat_fd(space);
  for (int p = 0; p < PARTS; p++) {
    if (parts >> p & 1) {
      CHECK_EQ(look(fd, (part)p), base + (unsigned)p);
    }
  }
}

/* The vCPU is in the space, and nobody is in the other. */
static inline void check_in(uint32_t space) {
  CHECK_EQ(luna_vcpu_space(vcpu), space);
  CHECK_EQ(atomic_load(&vm->spaces[0]->vcpus), space == 0);
  CHECK_EQ(atomic_load(&vm->spaces[1]->vcpus), space == 1);
  CHECK_EQ(vcpu->fd, seat_fd(space));
}

static inline int move_to(uint32_t space) {
  return luna_vcpu_set_space(vcpu, space, 0);
}

/* Runs the guest where it is; it halts at once. */
static inline void run_in(uint32_t space) {
  fake_script(NULL, 0);
  CHECK_EQ(run(), LUNA_EXIT_HLT);
  CHECK_EQ(fake_last_fd(KVM_RUN), seat_fd(space));
}

#endif
