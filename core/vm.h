/* SPDX-License-Identifier: MIT
 * A VM: its spaces, its traps and the lock over both. */
#ifndef LUNA_VM_H
#define LUNA_VM_H

#include "base/live.h"
#include "run/queue.h"
#include "memory/space.h"
#include "exit/trap.h"

#include <pthread.h>

struct luna_vm {
  luna_reference reference;
  pthread_rwlock_t lock;   /* exclusive to change regions and traps, shared to look them up */
  atomic_ulong generation; /* counts those changes, so that a vCPU can trust what it found before */
  luna_space **spaces;     /* by id; NULL where the id is free */
  uint32_t space_count;
  luna_traps traps;
  struct luna_event *eventfds;    /* eventfd.c: a list */
  bool coalesced;                 /* some trap's writes are, or were, collected by KVM */
  bool unknown_msrs;              /* luna_vm_options.unknown_msrs */
  bool hypercalls;                /* luna_vm_hypercalls */
  uint32_t ring_entries;          /* luna_vm_options.dirty_ring */
  uint32_t irqchip;               /* luna_irqchip */
  uint32_t pit;                   /* luna_vm_options.pit */
  uint32_t bus_cycle;             /* of the LAPIC timers, nanoseconds; 0 for KVM's own */
  struct luna_line_event *irqfds; /* eventfds that raise lines */
  uint32_t irqfd_count;
  struct kvm_irq_routing *routing; /* NULL for KVM's own */
  pthread_mutex_t moving; /* held while a LAPIC moves and while an interrupt looks for it; before
                             `lock` */
  bool *vcpu_taken;       /* by vCPU number */
  uint32_t vcpu_count;    /* of vcpu_taken */
  luna_queue queue;       /* of exits, from the threads of started vCPUs */
  unsigned threads_forks; /* thread.c: tells a child of the process that made the VM */
};

/* The lock to change regions and traps, taken and given back. */
void luna_vm_change_begin(luna_vm *vm);
void luna_vm_change_end(luna_vm *vm);

/* What an access at an address meets. */
typedef struct luna_owner {
  luna_range range;          /* the answer is the same in this whole range */
  uint64_t base;             /* the trap's first address */
  uint64_t last;             /* and its last */
  uint32_t trap;             /* 0: none */
  const luna_answer *answer; /* what the core answers with, or NULL */
} luna_owner;

/* Finds the owner of an access that no memory answered. The lock is taken inside. */
luna_owner luna_vm_owner(luna_vm *vm, const luna_space *space, int kind, uint64_t address);
/* luna_space_access, with the lock taken inside. */
luna_touch luna_vm_access(luna_vm *vm, const luna_space *space, uint64_t gpa, uint64_t size,
                          uint32_t access, void *bytes);
/* Waits until the change of a map that is under way is done. */
void luna_vm_wait(luna_vm *vm);
/* Empties the dirty rings of the space. The lock is taken inside. */
int luna_vm_drain(luna_vm *vm, luna_space *space);
/* The lowest free vCPU number, taken; and giving one back. */
int luna_vm_take_vcpu(luna_vm *vm, uint32_t *id);
void luna_vm_give_vcpu(luna_vm *vm, uint32_t id);
/* The space of that number, NULL with an error recorded if there is none. The lock is held. */
luna_space *luna_vm_find_space(const luna_vm *vm, uint32_t id);

#endif
