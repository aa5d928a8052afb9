/* SPDX-License-Identifier: MIT
 * Writes that KVM collects instead of leaving the guest (api.rst, KVM_REGISTER_COALESCED_MMIO): a
 * ring for all vCPUs of a KVM VM, mapped behind each one's run page. */
#include "exit/coalesced.h"

#include "base/error.h"
#include "exit/claim.h"
#include "exit/exit.h"
#include "exit/trap.h"
#include "kvm/host.h"
#include "kvm/kick.h"
#include "kvm/kvm_event.h"
#include "memory/space.h"
#include "memory/spaces.h"
#include "memory/vm.h"
#include "vcpu/system.h"
#include "vcpu/vcpu.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stddef.h>

typedef struct kvm_coalesced_mmio_ring ring;

enum {
  RING_ENTRIES = (LUNA_PAGE_SIZE - sizeof(ring)) / sizeof(struct kvm_coalesced_mmio)
};

static ring *ring_of(const luna_vcpu *vcpu) {
  size_t offset = (size_t)vcpu->space->coalesced_page * LUNA_PAGE_SIZE;
  return (ring *)(void *)((uint8_t *)vcpu->run + offset);
}

/* KVM writes an entry before `last`. */
static bool empty(const ring *r) {
  return __atomic_load_n(&r->first, __ATOMIC_RELAXED) ==
         __atomic_load_n(&r->last, __ATOMIC_ACQUIRE);
}

bool luna_coalesced_waiting(const luna_vcpu *vcpu) {
  return atomic_load_explicit(&vcpu->attention, memory_order_relaxed) & LUNA_ATTEND_COALESCED &&
         !empty(ring_of(vcpu));
}

/* Takes the oldest entry, which no other vCPU of the space then gets. */
static bool take(luna_vcpu *vcpu, struct kvm_coalesced_mmio *write) {
  ring *r = ring_of(vcpu);
  while (atomic_flag_test_and_set_explicit(&vcpu->space->collector, memory_order_acquire)) {
    sched_yield();
  }
  bool found = !empty(r);
  if (found) {
    uint32_t first = r->first % RING_ENTRIES;
    *write = r->coalesced_mmio[first];
    /* KVM uses the place again once it sees this. */
    __atomic_store_n(&r->first, (first + 1) % RING_ENTRIES, __ATOMIC_RELEASE);
  }
  atomic_flag_clear_explicit(&vcpu->space->collector, memory_order_release);
  return found;
}

int luna_coalesced_next(luna_vcpu *vcpu) {
  struct kvm_coalesced_mmio write;
  int kind = 0;
  while (kind == 0 && luna_coalesced_waiting(vcpu) && take(vcpu, &write)) {
    kind = luna_exit_collected(vcpu, &write);
  }
  return kind;
}

/* ---- Zones ---- */

static int register_part(const luna_space *space, bool pio, uint64_t first, uint64_t end, bool on) {
  return first < end ? luna_kvm_coalesce(space->vm_fd, pio, first, (uint32_t)(end - first), on) : 0;
}

/* The exception stubs' port stays out: what they write has to leave the guest. */
static int register_zone(const luna_space *space, const luna_trap *trap, bool on) {
  const uint64_t stubs = LUNA_EXCEPTION_PORT;
  uint64_t first = trap->range.first;
  uint64_t end = trap->range.last + 1;
  bool pio = trap->kind == LUNA_TRAP_PIO;
  if (!pio || first > stubs || end <= stubs) {
    return register_part(space, pio, first, end, on);
  }
  if (register_part(space, pio, first, stubs, on) != 0) {
    return -1;
  }
  if (register_part(space, pio, stubs + 1, end, on) != 0) {
    int number = errno;
    register_part(space, pio, first, stubs, !on);
    errno = number;
    return -1;
  }
  return 0;
}

int luna_coalesced_join(const luna_vm *vm, const luna_space *space) {
  for (uint32_t i = 0; i < vm->claims->traps.count; i++) {
    const luna_trap *trap = vm->claims->traps.by_id[i];
    if (trap && trap->coalesced && register_zone(space, trap, true) != 0) {
      return luna_fail_errno(errno, "cannot let KVM collect the writes to trap %u in space %u",
                             trap->id, space->id);
    }
  }
  return LUNA_OK;
}

void luna_coalesced_end(luna_vm *vm, const luna_trap *trap) {
  for (uint32_t i = 0; trap->coalesced && i < vm->space_count; i++) {
    if (vm->spaces[i]) {
      register_zone(vm->spaces[i], trap, false);
    }
  }
}

static int check_trap(const luna_host *host, const luna_trap *trap) {
  if (trap->kind == LUNA_TRAP_MSR) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "cannot collect the writes to trap %u: it is for MSRs",
                     trap->id);
  }
  if (trap->range.last - trap->range.first >= UINT32_MAX) {
    return luna_fail(LUNA_ERROR_RANGE,
                     "cannot collect the writes to the 0x%" PRIx64
                     " bytes of trap %u: KVM takes less than 4 GiB",
                     trap->range.last - trap->range.first + 1, trap->id);
  }
  bool pio = trap->kind == LUNA_TRAP_PIO;
  if (host->coalesced_page == 0 || (pio && !host->coalesced_pio)) {
    return luna_fail(LUNA_ERROR_UNSUPPORTED,
                     "cannot collect the writes to trap %u: this host's KVM has no "
                     "KVM_CAP_COALESCED_%s",
                     trap->id, pio ? "PIO" : "MMIO");
  }
  return LUNA_OK;
}

/* Every vCPU looks at the ring from now on. */
static void attend_all(luna_vm *vm) {
  vm->claims->coalesced = true;
  for (uint32_t i = 0; i < vm->space_count; i++) {
    const luna_space *space = vm->spaces[i];
    for (uint32_t k = 0; space && k < space->resident_count; k++) {
      luna_kick *kick = space->residents[k] ? space->residents[k]->kick : NULL;
      if (kick) {
        luna_vcpu *vcpu = (luna_vcpu *)(void *)((uint8_t *)kick - offsetof(luna_vcpu, kick));
        atomic_fetch_or(&vcpu->attention, LUNA_ATTEND_COALESCED);
      }
    }
  }
}

static int coalesce(luna_vm *vm, luna_trap *trap) {
  attend_all(vm); /* before the first write is collected */
  for (uint32_t i = 0; i < vm->space_count; i++) {
    if (vm->spaces[i] && register_zone(vm->spaces[i], trap, true) != 0) {
      int number = errno;
      while (i-- > 0) {
        if (vm->spaces[i]) {
          register_zone(vm->spaces[i], trap, false);
        }
      }
      return luna_fail_errno(number, "cannot let KVM collect the writes to trap %u", trap->id);
    }
  }
  trap->coalesced = true;
  return LUNA_OK;
}

int luna_vm_coalesce(luna_vm *vm, uint32_t id) {
  luna_vm_change_begin(vm);
  luna_trap *trap = luna_traps_find(&vm->claims->traps, id);
  int status = trap ? check_trap(vm->host, trap) : LUNA_ERROR_NOT_FOUND;
  if (status == LUNA_OK && !trap->coalesced) {
    status = coalesce(vm, trap);
  }
  luna_vm_change_end(vm);
  return status;
}
