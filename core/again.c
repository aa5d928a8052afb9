/* SPDX-License-Identifier: MIT
 * What exceptions a triple fault was made of. KVM says that there was one, and no more, but the
 * registers stand before its first exception: so a vCPU of the software CPU does the instruction
 * again, over the same memory without the right to write. */
#include "base/error.h"
#include "kvm/host.h"
#include "vcpu/cpuid.h"
#include "vcpu/guard.h"
#include "vcpu/vcpu.h"

enum {
  XCR0_KNOWN = 0xe7, /* x87, SSE, AVX and AVX-512: what software CPUs may have */
  NO_WRITES = LUNA_READ | LUNA_EXECUTE
};
static const uint64_t patience = 1000000000; /* nanoseconds, for one instruction */

static int map_all(const luna_vcpu *vcpu, luna_vm *twin) {
  luna_region region;
  int status = LUNA_OK;
  uint64_t gpa = 0;
  while (status == LUNA_OK && luna_space_next(vcpu->vm, vcpu->space->id, gpa, &region) == LUNA_OK) {
    uint32_t rights = region.enforced & NO_WRITES;
    if (rights & LUNA_READ) {
      status = luna_vm_map_space(twin, 0, region.buffer, region.offset, region.gpa, region.size,
                                 rights | (region.flags & LUNA_MAP_STRICT));
    }
    gpa = region.gpa + region.size;
  }
  return status;
}

/* The last of them say nothing about exceptions. */
static int copy_registers(luna_vcpu *vcpu, luna_vcpu *twin) {
  const struct kvm_cpuid_entry2 *leaf = luna_cpuid_find(twin->cpuid, 0xd, 0);
  uint64_t known = XCR0_KNOWN & (leaf ? leaf->eax : 1);
  int status = LUNA_OK;
  for (int reg = 0; reg <= LUNA_XCR0 && status == LUNA_OK; reg++) {
    uint64_t value;
    status = reg == LUNA_APIC_BASE ? LUNA_OK : luna_vcpu_get(vcpu, reg, &value);
    if (status == LUNA_OK && reg != LUNA_APIC_BASE) {
      status = luna_vcpu_set(twin, reg, reg == LUNA_XCR0 ? value & known : value);
    }
  }
  return status;
}

/* What SYSCALL and SYSENTER go by: STAR, LSTAR, SFMASK, and the three of SYSENTER. */
static int copy_msrs(luna_vcpu *vcpu, luna_vcpu *twin) {
  static const uint32_t indices[] = {0xc0000081, 0xc0000082, 0xc0000084, 0x174, 0x175, 0x176};
  int status = LUNA_OK;
  for (size_t i = 0; i < sizeof indices / sizeof *indices && status == LUNA_OK; i++) {
    uint64_t value;
    if (luna_vcpu_get_msr(vcpu, indices[i], &value) == LUNA_OK) {
      status = luna_vcpu_set_msr(twin, indices[i], value);
    }
  }
  return status;
}

static int fail_other(const luna_vcpu *vcpu, const char *what) {
  return luna_fail(LUNA_ERROR_NOT_FOUND,
                   "cannot tell the exceptions of the triple fault of vCPU %u: the instruction at "
                   "its RIP, done again on the software CPU, %s",
                   vcpu->id, what);
}

static bool is_page_fault(uint32_t vector) {
  return vector == 14;
}

/* Whether CR2 is what a page fault of the instruction has left, or another one behind it. Those
 * that it meets while it delivers something else not every KVM stores there. */
static bool is_same(const luna_last_exception *list, uint32_t count, uint64_t cr2) {
  if (list->source != LUNA_FROM_EXCEPTION || !is_page_fault(list->vector)) {
    return true;
  }
  for (uint32_t i = 0; i < count; i++) {
    if ((is_page_fault(list[i].vector) && list[i].address == cr2) ||
        (is_page_fault(list[i].met) && list[i].met_address == cr2)) {
      return true;
    }
  }
  return false;
}

/* Whether there may have been one: KVM met it, or gave an instruction up. There are some that do
 * not emulate those whose exceptions they cannot deliver. */
static bool is_possible(const luna_vcpu *vcpu) {
  uint32_t kind = vcpu->exit.kind;
  bool given_up = kind == LUNA_EXIT_INSTRUCTION || kind == LUNA_EXIT_INTERNAL;
  return kind == LUNA_EXIT_SHUTDOWN || (given_up && !vcpu->vm->host->exceptions);
}

/* It has to end with a triple fault, and with the same page fault if KVM has met it. */
static int compare(luna_vcpu *vcpu, luna_vcpu *twin) {
  int kind = luna_vcpu_step(twin, luna_clock() + patience);
  if (kind < 0) {
    return kind;
  }
  if (kind != LUNA_EXIT_SHUTDOWN) {
    return fail_other(vcpu, "leads to none: an interrupt may have, or an instruction that this one "
                            "does in another way");
  }
  luna_last_exception list[LUNA_LAST_EXCEPTIONS];
  uint32_t count;
  uint64_t cr2;
  int status = luna_vcpu_last_exceptions(twin, list, LUNA_LAST_EXCEPTIONS, &count);
  status = status == LUNA_OK ? luna_vcpu_get(vcpu, LUNA_CR2, &cr2) : status;
  if (status != LUNA_OK) {
    return status;
  }
  bool met = vcpu->exit.kind == LUNA_EXIT_SHUTDOWN;
  return count > 0 && (!met || is_same(list, count, cr2))
             ? LUNA_OK
             : fail_other(vcpu, "meets another page fault");
}

static int do_again(luna_vcpu *vcpu, luna_vm *vm, luna_last_exception *list, uint32_t most,
                    uint32_t *count) {
  const luna_vcpu_options options = {.mode = LUNA_MODE_REAL};
  luna_vcpu *twin;
  int status = map_all(vcpu, vm);
  status = status == LUNA_OK ? luna_vcpu_create(vm, &options, &twin) : status;
  if (status != LUNA_OK) {
    return status;
  }
  status = copy_registers(vcpu, twin);
  status = status == LUNA_OK ? copy_msrs(vcpu, twin) : status;
  status = status == LUNA_OK ? compare(vcpu, twin) : status;
  status = status == LUNA_OK ? luna_vcpu_last_exceptions(twin, list, most, count) : status;
  luna_vcpu_release(twin);
  return status;
}

int luna_vcpu_triple_fault(luna_vcpu *vcpu, luna_last_exception *list, uint32_t most,
                           uint32_t *count) {
  const luna_vm_options options = {.accel = LUNA_ACCEL_SOFT};
  luna_vm *vm;
  *count = 0;
  int status = luna_vcpu_guard(vcpu);
  if (status != LUNA_OK) {
    return status;
  }
  if (!is_possible(vcpu)) {
    return luna_fail(LUNA_ERROR_STATE,
                     "cannot tell the exceptions of a triple fault: the last exit of vCPU %u was "
                     "none",
                     vcpu->id);
  }
  if (vcpu->vm->host->exceptions) {
    return luna_vcpu_last_exceptions(vcpu, list, most, count);
  }
  status = luna_vm_open(&options, &vm);
  if (status == LUNA_OK) {
    status = do_again(vcpu, vm, list, most, count);
    luna_vm_release(vm);
  }
  return status;
}
