/* SPDX-License-Identifier: MIT
 * What the parts of the fake share: its files, the host that it plays and the lock over both. */
#ifndef LUNA_FAKE_FILE_H
#define LUNA_FAKE_FILE_H

#include "fake/fake.h"
#include "fake/fake_state.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
  FAKE_PAGE = 4096,
  FAKE_RUN_SIZE = 3 * FAKE_PAGE,
  FAKE_VCPU_IDS = 4096,
  FAKE_HALTED = 3 /* statistics of a vCPU that is halted */
};

typedef enum fake_file_kind {
  FAKE_FILE_KVM,
  FAKE_FILE_VM,
  FAKE_FILE_VCPU
} fake_file_kind;

/* An access that KVM has reported and finishes at the next KVM_RUN. */
typedef struct fake_access {
  bool active;
  bool mmio;
  bool hypercall;
  bool write;
  bool continues;
  bool msr;
  uint32_t size;
  uint32_t count;
  uint64_t rip; /* of the instruction */
} fake_access;

typedef struct fake_slot {
  struct kvm_userspace_memory_region region;
  uint64_t *log; /* one bit a page that was written; NULL without KVM_MEM_LOG_DIRTY_PAGES */
} fake_slot;

typedef struct fake_file {
  fake_file_kind kind;
  int fd;
  uint64_t serial; /* the higher, the younger */
  /* A VM's. */
  fake_slot *slots;
  uint32_t slots_max; /* as the host was when it was made */
  unsigned vcpus;
  bool *vcpu_ids; /* a vCPU stays until its VM goes, though its file is closed */
  bool manual_protect;
  fake_attributes attributes;
  uint64_t hypercalls;
  struct fake_events *events; /* NULL until there are any */
  uint32_t irqchip;           /* 0 none, 1 split, 2 KVM's; a vCPU's too */
  int extint;                 /* vCPU: the vector of KVM_INTERRUPT that waits, plus 1 */
  uint32_t routes;
  uint64_t messages;
  uint64_t bus_cycle;
  uint64_t clock; /* kvmclock, which stands still */
  uint8_t ending; /* lines of which the end of a level interrupt is told */
  char chips[3][512];
  /* A vCPU's. */
  struct kvm_run *run;
  bool mapped;
  bool has_cpuid;
  uint64_t cpuid_sum; /* of the table that was set */
  bool ran;
  atomic_bool inside; /* in KVM_RUN: another call on it would wait for its end */
  struct kvm_regs regs;
  struct kvm_sregs sregs;
  fake_state state;
  uint64_t halted[FAKE_HALTED];
  int stats_fd; /* what its statistics are read from; 0 for none */
  fake_access access;
  const struct fake_file *vm;
  struct kvm_guest_debug debug;
  uint64_t step_rip; /* where the guest was when a single step was asked for */
  bool steps;        /* and it is not forgotten */
  struct kvm_lapic_state lapic;
  bool timer_due;   /* the one-shot timer has run out, and KVM has not looked since */
  bool signal_mask; /* KVM_SET_SIGNAL_MASK: KVM_RUN finds a signal that waits */
  uint32_t mp_state;
  int tsc_khz;
} fake_file;

extern pthread_mutex_t fake_lock;
extern fake_config fake_host;

/* -1 with the errno. */
int fake_refuse(int number);
void fake_mistake(void);
/* A new file, or NULL. */
fake_file *fake_file_add(fake_file_kind kind);
/* The youngest open file of the kind, or NULL. */
fake_file *fake_file_youngest(fake_file_kind kind);

/* fake_vm.c: the device and its VMs. */
int fake_device_ioctl(unsigned long request, void *argument);
int fake_vm_ioctl(fake_file *vm, unsigned long request, void *argument);
void fake_vm_free(fake_file *vm);
uint32_t fake_slots_max(void);

/* fake_event.c: eventfds, collected writes, filters of MSRs. */
int fake_event_ioctl(fake_file *vm, unsigned long request, void *argument);
int fake_event_enable(fake_file *vm, const struct kvm_enable_cap *capability);
void fake_event_free(fake_file *vm);
/* Puts a write into the ring of the vCPU; false where it is full. */
bool fake_collect(const fake_file *vcpu, const fake_step *step);
/* fake.c: the files, of which some may be NULL. */
fake_file **fake_files(size_t *count);
/* fake_interrupt.c: controllers, and what guests take. */
void fake_interrupt_install(void);
int fake_interrupt_extension(long capability);
int fake_interrupt_enable(fake_file *vm, const struct kvm_enable_cap *capability);
int fake_interrupt_vm_ioctl(fake_file *vm, unsigned long request, void *argument);
void fake_interrupt_reset(fake_file *vcpu, const fake_file *vm, uint32_t id);
int fake_interrupt_vcpu_ioctl(fake_file *vcpu, unsigned long request, void *argument);
bool fake_interrupt_enter(fake_file *vcpu);
/* What KVM does of what is due before it looks at signals. */
void fake_interrupt_visit(fake_file *vcpu);
void fake_interrupt_leave(const fake_file *vcpu);

/* fake_vcpu.c: registers and KVM_RUN, which comes without the lock: a vCPU has one thread at
 * a time. */
void fake_vcpu_reset(fake_file *vcpu);
int fake_vcpu_ioctl(fake_file *vcpu, unsigned long request, void *argument);
int fake_vcpu_run(fake_file *vcpu);
/* fake_access.c: finishes the access that the last exit was for; makes the exit of a step; and
 * forgets what was answered. */
void fake_access_finish(fake_file *vcpu);
int fake_access_report(fake_file *vcpu, const fake_step *step);
void fake_access_forget(void);
/* fake_stats.c: a descriptor of the vCPU's statistics. */
int fake_stats_fd(fake_file *vcpu);
/* When what they tell has changed; when the vCPU goes. */
void fake_stats_update(const fake_file *vcpu);
void fake_stats_free(const fake_file *vcpu);
/* fake_debug.c. KVM_SET_GUEST_DEBUG; registers that came with KVM_RUN; one instruction: whether it
 * ended in an exit, and whether it is done; what a guest without a script meets. */
uint64_t fake_debug_flags(const fake_file *vcpu);
void fake_debug_set(fake_file *vcpu, const struct kvm_guest_debug *debug);
void fake_debug_taken(fake_file *vcpu);
bool fake_debug_code(fake_file *vcpu, const fake_step *step, bool *done);
bool fake_debug_fall(fake_file *vcpu);
/* Whether every KVM_RUN gives one and the same exit, and how many there were: without the lock. */
extern atomic_bool fake_endless;
extern atomic_ulong fake_endless_runs;

#endif
