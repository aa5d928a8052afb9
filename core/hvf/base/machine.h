/* SPDX-License-Identifier: MIT
 * The type of the VM of the process. */
#ifndef HVF_MACHINE_H
#define HVF_MACHINE_H

#include <Hypervisor/hv_types.h>

#include "lunavisor.h"

#include <pthread.h>

typedef struct hvf_vcpu hvf_vcpu;

typedef struct hvf_space {
  bool made;
  uint32_t bound; /* vCPUs that are bound to it, and those that were when they were destroyed */
} hvf_space;

typedef struct hvf_vm {
  pthread_mutex_t lock; /* over everything here; never held while a guest runs */
  luna_vm *vm;          /* NULL: there is none */
  hv_vm_options_t options;
  bool follows;     /* its accelerator follows controls */
  hvf_vcpu **vcpus; /* by id; NULL where it is free */
  uint32_t vcpu_room;
  uint32_t vcpu_count;
  hvf_space *spaces; /* by number, without the default one */
  uint32_t space_room;
} hvf_vm;

#endif
