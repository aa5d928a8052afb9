/* SPDX-License-Identifier: MIT
 * VMs and fork(). Of the parent's threads the child has only the one that forked: a lock that
 * another held, or a vCPU that was in the guest, would be waited for without end. */
#include "memory/process.h"

#include "base/error.h"
#include "kvm/kick.h"
#include "memory/space.h"
#include "memory/vm.h"

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static luna_vm *vms;

/* With every lock held, no VM is half changed in the child. */
static void before_fork(void) {
  pthread_mutex_lock(&list_lock);
  for (luna_vm *vm = vms; vm; vm = vm->next) {
    if (!vm->foreign) {
      pthread_rwlock_wrlock(&vm->lock);
    }
  }
}

static void in_parent(void) {
  for (luna_vm *vm = vms; vm; vm = vm->next) {
    if (!vm->foreign) {
      pthread_rwlock_unlock(&vm->lock);
    }
  }
  pthread_mutex_unlock(&list_lock);
}

/* Whoever was inside is not in this process. */
static void empty(luna_space *space) {
  atomic_store(&space->gate.closed, false);
  atomic_flag_clear(&space->collector);
  for (uint32_t i = 0; i < space->resident_count; i++) {
    luna_kick *kick = space->residents[i] ? space->residents[i]->kick : NULL;
    if (kick) {
      atomic_store(&kick->thread, 0);
      atomic_store(&kick->answering, false);
      atomic_store(&kick->inside, false);
    }
  }
}

static void in_child(void) {
  for (luna_vm *vm = vms; vm; vm = vm->next) {
    vm->foreign = true;
    pthread_rwlock_init(&vm->lock, NULL);
    for (uint32_t i = 0; i < vm->space_count; i++) {
      if (vm->spaces[i]) {
        empty(vm->spaces[i]);
      }
    }
  }
  pthread_mutex_init(&list_lock, NULL);
}

/* Before any program's or other library's own: a fork takes the locks of those that are registered
 * later first, as calls do that hold one of them and come here. */
__attribute__((constructor)) static void watch(void) {
  pthread_atfork(before_fork, in_parent, in_child);
}

void luna_process_watch(luna_vm *vm) {
  pthread_mutex_lock(&list_lock);
  vm->next = vms;
  vms = vm;
  pthread_mutex_unlock(&list_lock);
}

void luna_process_forget(luna_vm *vm) {
  pthread_mutex_lock(&list_lock);
  luna_vm **link = &vms;
  while (*link && *link != vm) {
    link = &(*link)->next;
  }
  if (*link) {
    *link = vm->next;
  }
  pthread_mutex_unlock(&list_lock);
}

int luna_process_refuse(void) {
  return luna_fail(LUNA_ERROR_STATE, "cannot use a VM in this process: %s", luna_error_foreign);
}
