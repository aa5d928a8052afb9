/* SPDX-License-Identifier: MIT
 * KVM's interface on software CPUs: the machine, its descriptors and their ioctls, KVM_RUN. A
 * function returns what the ioctl does: 0 or more, or -1 with errno set. */
#ifndef SOFT_KERNEL_H
#define SOFT_KERNEL_H

#include "kvm/kvm_control.h"
#include "soft/irqchip/irqchip.h"

enum {
  SOFT_EVENTS_MAX = 1000,
  SOFT_ZONES_MAX = 100, /* KVM_COALESCED_MMIO_ZONE_MAX has about as many */
  SOFT_RING_BYTES = 1 << 20,
  SOFT_CAP_BUS_CYCLES = 237, /* KVM_CAP_X86_APIC_BUS_CYCLES_NS of Linux 6.11 */
  SOFT_BUS_CYCLE_MAX = 1000000000
};

typedef struct soft_irqfds soft_irqfds;

/* A VM. It lives as long as a descriptor of it or of one of its vCPUs. */
struct soft_vm {
  pthread_mutex_t lock; /* slots, vCPUs, capabilities */
  unsigned references;
  bool manual_protect, initially_set;
  _Atomic(soft_map *) map;
  _Atomic unsigned changes; /* of slots and their logs */
  _Atomic(soft_cpu *) cpus[SOFT_CPUS_MAX];
  bool ids[SOFT_CPUS_MAX];       /* that were given: KVM gives none twice */
  _Atomic uint64_t clock_offset; /* of kvmclock to the host's counter, in nanoseconds */
  uint32_t bus_cycle;            /* nanoseconds of a tick of the LAPICs' timers */
  uint32_t ring_entries;         /* of each vCPU's dirty ring; 0 */
  soft_chip chip;
  soft_irqfds *irqfds;

  /* What becomes of writes and MSRs before user space sees them. */
  pthread_mutex_t exits;
  _Atomic unsigned event_count;
  struct kvm_ioeventfd *events;
  _Atomic unsigned zone_count;
  struct kvm_coalesced_mmio_zone zones[SOFT_ZONES_MAX];
  struct kvm_coalesced_mmio_ring *ring;
  uint8_t *pages; /* of the vCPUs: vcpu.c */
  atomic_bool filters;
  struct kvm_msr_filter filter;
  _Atomic uint32_t msr_exits;
};

typedef enum soft_file_kind {
  SOFT_FILE_DEVICE,
  SOFT_FILE_VM,
  SOFT_FILE_VCPU
} soft_file_kind;

/* -1 with the errno. */
int soft_refuse(int number);
/* file.c: a new descriptor for the object; -1 without one. */
int soft_file_new(soft_file_kind kind, soft_vm *vm, soft_cpu *cpu);

/* device.c */
int soft_device_ioctl(unsigned long request, void *argument);
int soft_capability(long number);
/* supported.c */
int soft_supported_cpuid(struct kvm_cpuid2 *table);

/* vm.c */
int soft_vm_create(void);
int soft_vm_ioctl(soft_vm *vm, unsigned long request, void *argument);
/* One descriptor less. */
void soft_vm_release(soft_vm *vm);
/* Makes running vCPUs follow a change of `map` or of the logs before it returns. */
void soft_vm_settle(soft_vm *vm);

/* region.c */
int soft_region_set(soft_vm *vm, const struct kvm_userspace_memory_region *region);
void soft_regions_free(soft_vm *vm);
/* dirty.c */
int soft_log_get(soft_vm *vm, struct kvm_dirty_log *log);
int soft_log_clear(soft_vm *vm, const struct kvm_clear_dirty_log *log);

/* vcpu.c */
int soft_vcpu_create(soft_vm *vm, unsigned long id);
int soft_vcpu_ioctl(soft_cpu *cpu, unsigned long request, void *argument);
/* Another mapping of the run page; MAP_FAILED on error. */
void *soft_vcpu_map(const soft_cpu *cpu, size_t size, int64_t offset);
/* Frees what soft_vcpu_create made. */
void soft_vcpu_free(soft_cpu *cpu);

/* state.c */
void soft_get_regs(soft_cpu *cpu, struct kvm_regs *regs);
void soft_set_regs(soft_cpu *cpu, const struct kvm_regs *regs);
void soft_set_rip(soft_cpu *cpu, uint64_t rip);
void soft_get_sregs(const soft_cpu *cpu, struct kvm_sregs *sregs);
int soft_set_sregs(soft_cpu *cpu, const struct kvm_sregs *sregs);
void soft_get_events(const soft_cpu *cpu, struct kvm_vcpu_events *events);
int soft_set_events(soft_cpu *cpu, const struct kvm_vcpu_events *events);
int soft_state_ioctl(soft_cpu *cpu, unsigned long request, void *argument);

/* run.c */
int soft_vcpu_run(soft_cpu *cpu);
/* Takes the VM's slots and forgets what was known of older ones. */
void soft_adopt_map(soft_cpu *cpu);

/* signal.c: what the loop asks. 0 or an errno. */
int soft_poll(soft_cpu *cpu);
/* Waits for the vCPU's descriptor, a signal or the moment (0 for none). */
int soft_sleep(soft_cpu *cpu, uint64_t moment);
/* Around the loop: faults of the host in between are the guest memory's. */
void soft_guard_begin(soft_cpu *cpu);
void soft_guard_end(soft_cpu *cpu);

/* event.c: eventfds and zones of collected writes. Whether there are any, and whether one of them
 * takes the write. */
SOFT_INLINE bool soft_takes_writes(const soft_vm *vm) {
  return soft_unlikely(atomic_load_explicit(&vm->event_count, memory_order_relaxed) ||
                       atomic_load_explicit(&vm->zone_count, memory_order_relaxed));
}
bool soft_write_taken(soft_cpu *cpu, const soft_post *post);
int soft_event_set(soft_vm *vm, const struct kvm_ioeventfd *event);
/* 0, or an errno where it is no eventfd. */
int soft_check_eventfd(int fd);
int soft_zone_set(soft_vm *vm, const struct kvm_coalesced_mmio_zone *zone, bool on);

/* filter.c */
int soft_filter_set(soft_vm *vm, const struct kvm_msr_filter *filter);
void soft_filter_free(soft_vm *vm);

/* deliver/past.c: the last exceptions, the oldest first. */
void soft_past_get(const soft_cpu *cpu, luna_kvm_exceptions *given);

/* stats.c: a descriptor as KVM_GET_STATS_FD gives it; what it tells has changed. */
int soft_stats_fd(soft_cpu *cpu);
void soft_stats_update(soft_cpu *cpu);
void soft_stats_free(soft_cpu *cpu);

/* ring.c: dirty rings. */
int soft_ring_enable(soft_vm *vm, uint64_t bytes);
bool soft_ring_make(soft_cpu *cpu);
void soft_ring_free(soft_cpu *cpu);
void *soft_ring_map(const soft_cpu *cpu, size_t size);
bool soft_ring_full(const soft_cpu *cpu);
void soft_ring_push(soft_cpu *cpu, const soft_slot *slot, uint64_t page);
int soft_rings_reset(soft_vm *vm);

/* irqfd.c */
int soft_irqfd_set(soft_vm *vm, const struct kvm_irqfd *irqfd);
/* What was signalled before a vCPU enters is raised when it does. */
void soft_irqfds_poll(soft_vm *vm);
void soft_irqfds_free(soft_vm *vm);
/* The level interrupt of a line has ended; not under the lock of the controllers. */
void soft_irqfds_ended(soft_vm *vm, uint32_t line);

/* chips.c: the ioctls of interrupt controllers; ENOTTY for others. */
int soft_chip_ioctl(soft_vm *vm, unsigned long request, void *argument);
int soft_lapic_ioctl(soft_cpu *cpu, unsigned long request, void *argument);

#endif
