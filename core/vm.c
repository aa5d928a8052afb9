/* SPDX-License-Identifier: MIT
 * The VM handle: its life, its spaces and its vCPUs' numbers. */
#include "vm.h"

#include "accelerator.h"
#include "base/error.h"
#include "base/live.h"
#include "exit/claim.h"
#include "interrupt/controllers.h"
#include "memory/clock.h"
#include "memory/process.h"
#include "memory/space.h"
#include "memory/spaces.h"
#include "memory/vm.h"
#include "run/queue.h"
#include "seat/seat.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static int check_vm_options(const luna_vm_options *options) {
  uint32_t ring = options->dirty_ring;
  if (ring & (ring - 1)) {
    return luna_fail(LUNA_ERROR_ARGUMENT,
                     "cannot make a VM with dirty rings of %u entries: a power of two is needed",
                     ring);
  }
  if (options->unknown_msrs > 1) {
    return luna_fail(LUNA_ERROR_ARGUMENT, "cannot make a VM: unknown_msrs is 0 or 1, not %u",
                     options->unknown_msrs);
  }
  return luna_controllers_check(options);
}

static void free_space(luna_space *space) {
  luna_seats_free(space);
  luna_space_free(space);
}

/* A space with all that the spaces of the VM have in common. */
static int create_space(luna_vm *vm, uint32_t id, luna_space **space) {
  luna_space *made;
  int status = luna_space_create(vm->host, id, vm->ring_entries, &made);
  if (status != LUNA_OK) {
    return status;
  }
  status = luna_clock_join(vm, made);
  status = status == LUNA_OK ? luna_controllers_join(vm, made) : status;
  status = status == LUNA_OK ? luna_claims_join(vm, made) : status;
  if (status != LUNA_OK) {
    free_space(made);
    return status;
  }
  *space = made;
  return LUNA_OK;
}

/* A VM with the parts that the floors keep of it, in one piece. */
typedef struct whole {
  luna_vm vm;
  luna_controllers controllers;
  luna_claims claims;
  luna_queue queue;
  char reason[LUNA_REASON_SIZE];
} whole;

static luna_vm *assemble(const luna_vm_options *options, const luna_host *host,
                         const char *reason) {
  whole *made = calloc(1, sizeof *made);
  if (!made) {
    return NULL;
  }
  luna_vm *vm = &made->vm;
  vm->host = host;
  vm->reason = memcpy(made->reason, reason, sizeof made->reason);
  vm->ring_entries = options->dirty_ring;
  vm->irqchip = options->irqchip;
  pthread_rwlock_init(&vm->lock, NULL);
  vm->controllers = &made->controllers;
  vm->claims = &made->claims;
  vm->queue = &made->queue;
  luna_controllers_begin(vm->controllers, options);
  vm->claims->unknown_msrs = options->unknown_msrs != 0;
  luna_queue_begin(vm->queue);
  return vm;
}

static void take_apart(luna_vm *vm) {
  luna_claims_end(vm->claims);
  luna_controllers_end(vm->controllers);
  luna_queue_end(vm->queue);
  pthread_rwlock_destroy(&vm->lock);
  free(vm->vcpu_taken);
  free(vm->spaces);
  free(vm);
}

int luna_vm_open(const luna_vm_options *options, luna_vm **vm) {
  const luna_vm_options none = {0};
  options = options ? options : &none;
  int status = check_vm_options(options);
  if (status != LUNA_OK) {
    return status;
  }
  char reason[LUNA_REASON_SIZE] = "";
  const luna_host *host = luna_accelerator_host(options->accel, reason);
  if (!host) {
    return luna_error_status();
  }
  luna_vm *made = assemble(options, host, reason);
  if (!made) {
    return luna_fail_errno(ENOMEM, "cannot make a VM");
  }
  made->spaces = calloc(1, sizeof(luna_space *));
  status = made->spaces ? create_space(made, 0, &made->spaces[0])
                        : luna_fail_errno(ENOMEM, "cannot make a VM");
  if (status != LUNA_OK) {
    take_apart(made);
    return status;
  }
  made->space_count = 1;
  luna_reference_start(&made->reference, LUNA_OBJECT_VM);
  luna_process_watch(made);
  *vm = made;
  return LUNA_OK;
}

int luna_vm_create(luna_vm **vm) {
  return luna_vm_open(NULL, vm);
}

void luna_vm_retain(luna_vm *vm) {
  luna_reference_add(&vm->reference);
}

void luna_vm_release(luna_vm *vm) {
  if (!luna_reference_drop(&vm->reference, LUNA_OBJECT_VM)) {
    return;
  }
  luna_process_forget(vm);
  luna_controllers_leave(vm);
  for (uint32_t i = 0; i < vm->space_count; i++) {
    if (vm->spaces[i]) {
      free_space(vm->spaces[i]);
    }
  }
  take_apart(vm);
}

/* ---- Spaces ---- */

/* The lowest free id, with room for it in the list. */
static int free_space_id(luna_vm *vm, uint32_t *id) {
  uint32_t i = 0;
  while (i < vm->space_count && vm->spaces[i]) {
    i++;
  }
  if (i == vm->space_count) {
    luna_space **spaces = realloc(vm->spaces, (i + 1) * sizeof(luna_space *));
    if (!spaces) {
      return luna_fail_errno(ENOMEM, "cannot make space %u", i);
    }
    spaces[i] = NULL;
    vm->spaces = spaces;
    vm->space_count++;
  }
  *id = i;
  return LUNA_OK;
}

int luna_vm_space_create(luna_vm *vm, uint32_t *space) {
  luna_vm_change_begin(vm);
  uint32_t id = 0;
  int status = luna_process_check(vm);
  status = status == LUNA_OK ? luna_controllers_check_space(vm) : status;
  status = status == LUNA_OK ? free_space_id(vm, &id) : status;
  status = status == LUNA_OK ? create_space(vm, id, &vm->spaces[id]) : status;
  if (status == LUNA_OK) {
    *space = id;
  }
  luna_vm_change_end(vm);
  return status;
}

static int check_destroy(const luna_vm *vm, uint32_t id) {
  if (id == 0) {
    return luna_fail(LUNA_ERROR_ARGUMENT,
                     "cannot destroy space 0: it is the VM's default space and goes with the VM");
  }
  const luna_space *space = luna_vm_find_space(vm, id);
  if (!space) {
    return luna_error_status();
  }
  unsigned vcpus = atomic_load(&space->vcpus);
  if (vcpus) {
    return luna_fail(LUNA_ERROR_BUSY,
                     "cannot destroy space %u: %u vCPU%s in it; move %s to another space first", id,
                     vcpus, vcpus == 1 ? " is" : "s are", vcpus == 1 ? "it" : "them");
  }
  return LUNA_OK;
}

int luna_vm_space_destroy(luna_vm *vm, uint32_t id) {
  luna_vm_change_begin(vm);
  int status = check_destroy(vm, id);
  if (status == LUNA_OK) {
    free_space(vm->spaces[id]);
    vm->spaces[id] = NULL;
  }
  luna_vm_change_end(vm);
  return status;
}

/* ---- vCPU numbers ---- */

int luna_vm_take_vcpu(luna_vm *vm, uint32_t *id) {
  int status = luna_process_check(vm);
  if (status != LUNA_OK) {
    return status;
  }
  pthread_rwlock_wrlock(&vm->lock);
  uint32_t i = 0;
  while (i < vm->vcpu_count && vm->vcpu_taken[i]) {
    i++;
  }
  if (i == vm->vcpu_count) {
    bool *taken = realloc(vm->vcpu_taken, (i + 1) * sizeof *taken);
    if (taken) {
      vm->vcpu_taken = taken;
      vm->vcpu_count++;
    } else {
      status = luna_fail_errno(ENOMEM, "cannot make vCPU %u", i);
    }
  }
  if (status == LUNA_OK) {
    vm->vcpu_taken[i] = true;
    *id = i;
  }
  pthread_rwlock_unlock(&vm->lock);
  return status;
}

void luna_vm_give_vcpu(luna_vm *vm, uint32_t id) {
  pthread_rwlock_wrlock(&vm->lock);
  vm->vcpu_taken[id] = false;
  pthread_rwlock_unlock(&vm->lock);
}
