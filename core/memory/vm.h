/* SPDX-License-Identifier: MIT
 * A VM as every floor sees it: its spaces under their lock, and behind pointers what the floors
 * above keep for it. */
#ifndef LUNA_VM_H
#define LUNA_VM_H

#include "base/live.h"
#include "memory/space.h"

#include <pthread.h>

struct luna_vm {
  luna_reference reference;
  const luna_host *host;   /* the kernel that it is on */
  pthread_rwlock_t lock;   /* exclusive to change regions and traps, shared to look them up */
  atomic_ulong generation; /* counts those changes, so that a vCPU can trust what it found before */
  luna_space **spaces;     /* by id; NULL where the id is free */
  uint32_t space_count;
  uint32_t ring_entries;                /* luna_vm_options.dirty_ring */
  uint32_t irqchip;                     /* luna_irqchip: whether the vCPUs have LAPICs in KVM */
  bool *vcpu_taken;                     /* by vCPU number */
  uint32_t vcpu_count;                  /* of vcpu_taken */
  const char *reason;                   /* why it is on that kernel */
  struct luna_controllers *controllers; /* interrupt/ */
  struct luna_claims *claims;           /* exit/ */
  struct luna_queue *queue;             /* run/ */
  bool foreign;                         /* this process was forked from the one that made it */
  luna_vm *next;                        /* process.c: the list of all */
};

#endif
