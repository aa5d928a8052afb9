/* SPDX-License-Identifier: MIT
 * Claiming ranges of ports, addresses and MSRs: for the script, for memory, or for a function; and
 * giving them back while vCPUs run. */
#include "exit/claim.h"

#include "base/error.h"
#include "base/range.h"
#include "exit/answer.h"
#include "exit/coalesced.h"
#include "exit/eventfd.h"
#include "exit/hypercall.h"
#include "exit/msr_filter.h"
#include "exit/trap.h"
#include "kvm/kick.h"
#include "memory/process.h"
#include "memory/space.h"
#include "memory/spaces.h"
#include "memory/vm.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>

void luna_claims_end(luna_claims *claims) {
  luna_eventfds_free(claims->eventfds);
  luna_traps_free(&claims->traps);
}

int luna_claims_join(const luna_vm *vm, luna_space *space) {
  int status = luna_msr_join(vm, space);
  status = status == LUNA_OK ? luna_eventfds_join(vm, space) : status;
  status = status == LUNA_OK ? luna_coalesced_join(vm, space) : status;
  return status == LUNA_OK && vm->claims->hypercalls ? luna_hypercalls_begin(space) : status;
}

/* ---- Claiming ---- */

static const char *const unit[LUNA_TRAP_KINDS] = {"port", "gpa", "MSR"};

static int check_range(const luna_vm *vm, int kind, uint64_t first, uint64_t length) {
  if (kind < 0 || kind >= LUNA_TRAP_KINDS) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "there is no trap kind %d", kind);
  }
  const char *what = unit[kind];
  if (length == 0) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "cannot trap 0 %s at %s 0x%" PRIx64,
                     kind == LUNA_TRAP_MSR ? "registers" : "bytes", what, first);
  }
  const unsigned bits[LUNA_TRAP_KINDS] = {16, vm->spaces[0]->address_bits, 32};
  uint64_t limit = (uint64_t)1 << bits[kind];
  if (first >= limit || length > limit - first) {
    return luna_fail(LUNA_ERROR_RANGE,
                     "cannot trap 0x%" PRIx64 " %s at %s 0x%" PRIx64 ": the last %s is 0x%" PRIx64,
                     length, kind == LUNA_TRAP_MSR ? "registers" : "bytes", what, first, what,
                     limit - 1);
  }
  return kind == LUNA_TRAP_MSR ? luna_msr_check(vm, first, length) : LUNA_OK;
}

/* Frees a trap that is in the map but that nobody has used yet. */
static void take_out(luna_vm *vm, luna_trap *trap) {
  luna_traps_remove(&vm->claims->traps, trap);
  luna_trap_free(trap);
}

static int claim(luna_vm *vm, int kind, luna_range range, const luna_answer *answer, uint32_t *id) {
  uint32_t number;
  int status = luna_traps_add(&vm->claims->traps, kind, range, &number);
  if (status != LUNA_OK) {
    return status;
  }
  luna_trap *trap = luna_traps_find(&vm->claims->traps, number);
  if (answer) {
    trap->answer = luna_answer_copy(answer);
    status = trap->answer ? LUNA_OK : luna_fail_errno(ENOMEM, "cannot make trap %u", number);
  }
  if (status == LUNA_OK && kind == LUNA_TRAP_MSR) {
    status = luna_msr_apply(vm, trap, NULL);
  }
  if (status != LUNA_OK) {
    take_out(vm, trap);
    return status;
  }
  *id = number;
  return LUNA_OK;
}

static int trap_with(luna_vm *vm, int kind, uint64_t first, uint64_t length,
                     const luna_answer *answer, uint32_t *trap) {
  luna_vm_change_begin(vm);
  int status = luna_process_check(vm);
  status = status == LUNA_OK ? check_range(vm, kind, first, length) : status;
  if (status == LUNA_OK) {
    status = claim(vm, kind, (luna_range){first, first + length - 1}, answer, trap);
  }
  luna_vm_change_end(vm);
  return status;
}

int luna_vm_trap(luna_vm *vm, int kind, uint64_t first, uint64_t length, uint32_t *trap) {
  return trap_with(vm, kind, first, length, NULL, trap);
}

int luna_vm_trap_function(luna_vm *vm, int kind, uint64_t first, uint64_t length,
                          luna_trap_function function, void *context, uint32_t *trap) {
  if (!function) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "cannot trap without a function to answer");
  }
  const luna_answer answer = {.function = function, .context = context};
  return trap_with(vm, kind, first, length, &answer, trap);
}

int luna_vm_trap_memory(luna_vm *vm, int kind, uint64_t first, uint64_t length, luna_buffer *buffer,
                        uint64_t offset, uint32_t *trap) {
  if (!buffer) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "cannot trap without a buffer to answer from");
  }
  uint64_t size = luna_buffer_size(buffer);
  uint64_t unit_size = kind == LUNA_TRAP_MSR ? 8 : 1;
  if (offset > size || length > (size - offset) / unit_size) {
    return luna_fail(LUNA_ERROR_RANGE,
                     "cannot answer 0x%" PRIx64 " %s from offset 0x%" PRIx64
                     " of a buffer of 0x%" PRIx64 " bytes",
                     length, kind == LUNA_TRAP_MSR ? "registers" : "bytes", offset, size);
  }
  const luna_answer answer = {.buffer = buffer, .offset = offset};
  return trap_with(vm, kind, first, length, &answer, trap);
}

/* ---- Giving back ---- */

static bool anyone_answers(const luna_vm *vm) {
  for (uint32_t i = 0; i < vm->space_count; i++) {
    const luna_space *space = vm->spaces[i];
    for (uint32_t k = 0; space && k < space->resident_count; k++) {
      const luna_kick *kick = space->residents[k] ? space->residents[k]->kick : NULL;
      if (kick && atomic_load(&kick->answering)) {
        return true;
      }
    }
  }
  return false;
}

/* Waits until no vCPU uses a trap that it found before the last change. A function may be looking
 * at the VM meanwhile, so that the lock is not kept. */
static void wait_for_answers(luna_vm *vm) {
  bool busy = true;
  while (busy) {
    pthread_rwlock_wrlock(&vm->lock);
    busy = anyone_answers(vm);
    pthread_rwlock_unlock(&vm->lock);
    if (busy) {
      sched_yield();
    }
  }
}

/* Out of the map and out of KVM; the caller frees it. */
static int release_trap(luna_vm *vm, luna_trap *trap) {
  if (trap->kind == LUNA_TRAP_MSR) {
    int status = luna_msr_apply(vm, NULL, trap);
    if (status != LUNA_OK) {
      return status;
    }
  }
  luna_coalesced_end(vm, trap);
  luna_traps_remove(&vm->claims->traps, trap);
  return LUNA_OK;
}

int luna_vm_untrap(luna_vm *vm, uint32_t id) {
  if (luna_answer_inside()) {
    return luna_fail(LUNA_ERROR_STATE,
                     "cannot take trap %u away from inside a trap's function: it would wait for "
                     "itself",
                     id);
  }
  luna_vm_change_begin(vm);
  luna_trap *trap =
      luna_process_check(vm) == LUNA_OK ? luna_traps_find(&vm->claims->traps, id) : NULL;
  int status = trap ? release_trap(vm, trap) : luna_error_status();
  luna_vm_change_end(vm);
  if (status != LUNA_OK) {
    return status;
  }
  if (trap->answer) {
    wait_for_answers(vm);
  }
  luna_trap_free(trap);
  return LUNA_OK;
}
