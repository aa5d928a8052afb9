/* SPDX-License-Identifier: MIT
 * A VM: its life, its ioctls, and how a change of its memory reaches vCPUs that run. */
#include "soft/execute/control.h"
#include "soft/kernel/kernel.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>

static soft_vm *make(void) {
  soft_vm *vm = calloc(1, sizeof *vm);
  soft_map *map = calloc(1, sizeof *map);
  if (!vm || !map) {
    free(vm);
    free(map);
    return NULL;
  }
  pthread_mutex_init(&vm->lock, NULL);
  pthread_mutex_init(&vm->exits, NULL);
  pthread_mutex_init(&vm->chip.lock, NULL);
  vm->references = 1;
  vm->bus_cycle = 1;
  soft_vm_set_clock(vm, 0);
  atomic_store(&vm->map, map);
  atomic_store(&vm->changes, 1);
  return vm;
}

static void destroy(soft_vm *vm) {
  soft_irqfds_free(vm);
  for (unsigned i = 0; i < SOFT_CPUS_MAX; i++) {
    soft_cpu *cpu = atomic_load(&vm->cpus[i]);
    if (cpu) {
      soft_vcpu_free(cpu);
    }
  }
  soft_regions_free(vm);
  soft_filter_free(vm);
  free(vm->events);
  free(vm->chip.routes);
  if (vm->pages) {
    munmap(vm->pages, SOFT_RUN_PAGES);
  }
  pthread_mutex_destroy(&vm->lock);
  pthread_mutex_destroy(&vm->exits);
  pthread_mutex_destroy(&vm->chip.lock);
  free(vm);
}

int soft_vm_create(void) {
  soft_vm *vm = make();
  if (!vm) {
    return soft_refuse(ENOMEM);
  }
  int fd = soft_file_new(SOFT_FILE_VM, vm, NULL);
  if (fd < 0) {
    int number = errno;
    destroy(vm);
    return soft_refuse(number);
  }
  return fd;
}

void soft_vm_release(soft_vm *vm) {
  pthread_mutex_lock(&vm->lock);
  unsigned left = --vm->references;
  pthread_mutex_unlock(&vm->lock);
  if (left == 0) {
    destroy(vm);
  }
}

/* A vCPU says that it runs before it looks for changes, and here changes are told before it is
 * looked whether it runs: one of the two sees the other. */
void soft_vm_settle(soft_vm *vm) {
  unsigned change = atomic_fetch_add(&vm->changes, 1) + 1;
  for (unsigned i = 0; i < SOFT_CPUS_MAX; i++) {
    soft_cpu *cpu = atomic_load(&vm->cpus[i]);
    if (!cpu || !atomic_load(&cpu->running)) {
      continue;
    }
    soft_wake(cpu, SOFT_ATTEND_MAP);
    while (atomic_load(&cpu->running) && atomic_load(&cpu->log_seen) != change) {
      sched_yield();
    }
  }
}

static bool has_cpus(const soft_vm *vm) {
  for (unsigned i = 0; i < SOFT_CPUS_MAX; i++) {
    if (vm->ids[i]) {
      return true;
    }
  }
  return false;
}

static int set_bus_cycle(soft_vm *vm, uint64_t nanoseconds) {
  if (vm->chip.kind == SOFT_CHIP_NONE) {
    return soft_refuse(ENXIO);
  }
  if (has_cpus(vm) || nanoseconds == 0 || nanoseconds > SOFT_BUS_CYCLE_MAX) {
    return soft_refuse(EINVAL);
  }
  vm->bus_cycle = (uint32_t)nanoseconds;
  return 0;
}

static int enable(soft_vm *vm, const struct kvm_enable_cap *capability) {
  uint64_t argument = capability->args[0];
  if (capability->flags) {
    return soft_refuse(EINVAL);
  }
  switch (capability->cap) {
    case KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2:
      if (argument & ~UINT64_C(3) || argument == KVM_DIRTY_LOG_INITIALLY_SET) {
        return soft_refuse(EINVAL);
      }
      vm->manual_protect = argument & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE;
      vm->initially_set = argument & KVM_DIRTY_LOG_INITIALLY_SET;
      return 0;
    case KVM_CAP_X86_USER_SPACE_MSR:
      if (argument & ~(uint64_t)(KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN |
                                 KVM_MSR_EXIT_REASON_FILTER)) {
        return soft_refuse(EINVAL);
      }
      atomic_store(&vm->msr_exits, (uint32_t)argument);
      return 0;
    case KVM_CAP_SPLIT_IRQCHIP:
      if (vm->chip.kind != SOFT_CHIP_NONE) {
        return soft_refuse(EEXIST);
      }
      if (argument > SOFT_ROUTES_MAX) {
        return soft_refuse(EINVAL);
      }
      vm->chip.kind = SOFT_CHIP_SPLIT;
      vm->chip.eoi_lines = (uint32_t)argument;
      return 0;
    case SOFT_CAP_BUS_CYCLES:
      return set_bus_cycle(vm, argument);
    case KVM_CAP_DIRTY_LOG_RING:
    case KVM_CAP_DIRTY_LOG_RING_ACQ_REL:
      return soft_ring_enable(vm, argument);
    default:
      return soft_refuse(EINVAL);
  }
}

static int change(soft_vm *vm, unsigned long request, void *argument) {
  switch (request) {
    case KVM_SET_USER_MEMORY_REGION:
      return soft_region_set(vm, argument);
    case KVM_GET_DIRTY_LOG:
      return soft_log_get(vm, argument);
    case KVM_CLEAR_DIRTY_LOG:
      return soft_log_clear(vm, argument);
    case KVM_ENABLE_CAP:
      return enable(vm, argument);
    case KVM_RESET_DIRTY_RINGS:
      return soft_rings_reset(vm);
    default:
      return soft_vcpu_create(vm, (unsigned long)argument);
  }
}

int soft_vm_ioctl(soft_vm *vm, unsigned long request, void *argument) {
  int result;
  switch (request) {
    case KVM_CHECK_EXTENSION:
      return soft_capability((long)argument);
    case KVM_SET_TSS_ADDR: /* for processors that cannot do without */
    case KVM_SET_IDENTITY_MAP_ADDR:
      return 0;
    case KVM_SET_USER_MEMORY_REGION:
    case KVM_GET_DIRTY_LOG:
    case KVM_CLEAR_DIRTY_LOG:
    case KVM_ENABLE_CAP:
    case KVM_RESET_DIRTY_RINGS:
    case KVM_CREATE_VCPU:
      pthread_mutex_lock(&vm->lock);
      result = change(vm, request, argument);
      pthread_mutex_unlock(&vm->lock);
      return result;
    case KVM_IOEVENTFD:
      return soft_event_set(vm, argument);
    case KVM_REGISTER_COALESCED_MMIO:
    case KVM_UNREGISTER_COALESCED_MMIO:
      return soft_zone_set(vm, argument, request == KVM_REGISTER_COALESCED_MMIO);
    case KVM_IRQFD:
      return soft_irqfd_set(vm, argument);
    case KVM_GET_CLOCK:
      *(struct kvm_clock_data *)argument =
          (struct kvm_clock_data){.clock = soft_vm_clock(vm), .flags = KVM_CLOCK_TSC_STABLE};
      return 0;
    case KVM_SET_CLOCK:
      soft_vm_set_clock(vm, ((const struct kvm_clock_data *)argument)->clock);
      return 0;
    case KVM_X86_SET_MSR_FILTER:
      return soft_filter_set(vm, argument);
    default:
      return soft_chip_ioctl(vm, request, argument);
  }
}
