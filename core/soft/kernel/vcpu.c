/* SPDX-License-Identifier: MIT
 * A vCPU: its life, its run page, and the ioctls that are not its registers. */
#include "kvm/kvm_control.h"
#include "soft/execute/control.h"
#include "soft/insn.h"
#include "soft/kernel/kernel.h"
#include "soft/vmx/vmx.h"
#include "soft/mmu/mmu.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
  CPUID_MOST = 256
};

static void *shared_pages(size_t size) {
  void *pages = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  return pages == MAP_FAILED ? NULL : pages;
}

/* Maps the same pages once more. Of size 0, mremap leaves the old mapping there. */
static bool again(void *pages, size_t size, void *at) {
  return mremap(pages, 0, size, MREMAP_MAYMOVE | MREMAP_FIXED, at) == at;
}

/* The pages of all vCPUs of a VM: the first one's run page, the data of its ports, the ring that
 * all share; and two pages for each of the others. */
static struct kvm_run *make_run(soft_vm *vm, unsigned long id) {
  if (!vm->pages) {
    vm->pages = shared_pages(SOFT_RUN_PAGES);
    if (!vm->pages) {
      return NULL;
    }
    vm->ring = (void *)(vm->pages + SOFT_RUN_RING);
  }
  return (struct kvm_run *)(void *)(vm->pages + (id ? 2 * id + 1 : 0) * SOFT_PAGE);
}

void *soft_vcpu_map(const soft_cpu *cpu, size_t size, int64_t offset) {
  if (offset == (int64_t)KVM_DIRTY_LOG_PAGE_OFFSET * SOFT_PAGE) {
    return soft_ring_map(cpu, size);
  }
  if (offset != 0 || size == 0 || size > SOFT_RUN_SIZE || size % SOFT_PAGE) {
    errno = EINVAL;
    return MAP_FAILED;
  }
  if (cpu->id == 0) {
    return mremap(cpu->run, 0, size, MREMAP_MAYMOVE);
  }
  uint8_t *to = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (to == MAP_FAILED) {
    return MAP_FAILED;
  }
  size_t own = size < SOFT_RUN_RING ? size : SOFT_RUN_RING;
  if (!again(cpu->run, own, to) ||
      (size > own && !again(cpu->vm->ring, SOFT_PAGE, to + SOFT_RUN_RING))) {
    munmap(to, size);
    return MAP_FAILED;
  }
  return to;
}

void soft_vcpu_free(soft_cpu *cpu) {
  soft_ring_free(cpu);
  soft_stats_free(cpu);
  soft_cpu_free(cpu);
}

int soft_vcpu_create(soft_vm *vm, unsigned long id) {
  if (id >= SOFT_CPUS_MAX) {
    return soft_refuse(EINVAL);
  }
  if (vm->ids[id]) {
    return soft_refuse(EEXIST);
  }
  struct kvm_run *run = make_run(vm, id);
  if (!run) {
    return soft_refuse(ENOMEM);
  }
  soft_cpu *cpu = soft_cpu_new(vm, (int)id, run);
  if (!cpu) {
    return soft_refuse(ENOMEM);
  }
  errno = ENOMEM;
  int fd = soft_ring_make(cpu) ? soft_file_new(SOFT_FILE_VCPU, vm, cpu) : -1;
  if (fd < 0) {
    int number = errno;
    soft_vcpu_free(cpu);
    return soft_refuse(number);
  }
  if (vm->chip.kind != SOFT_CHIP_NONE) {
    soft_lapic_reset(cpu);
    atomic_store(&cpu->mp_state, id ? KVM_MP_STATE_UNINITIALIZED : KVM_MP_STATE_RUNNABLE);
  }
  vm->ids[id] = true;
  vm->references++;
  atomic_store(&vm->cpus[id], cpu);
  return fd;
}

static int set_cpuid(soft_cpu *cpu, const struct kvm_cpuid2 *table) {
  if (table->nent > CPUID_MOST) {
    return soft_refuse(E2BIG);
  }
  size_t size = sizeof *table + table->nent * sizeof *table->entries;
  if (cpu->ran) { /* the same again may be set */
    bool same = cpu->cpuid && cpu->cpuid->nent == table->nent &&
                memcmp(cpu->cpuid->entries, table->entries, size - sizeof *table) == 0;
    return same ? 0 : soft_refuse(EINVAL);
  }
  struct kvm_cpuid2 *copy = malloc(size);
  if (!copy) {
    return soft_refuse(ENOMEM);
  }
  memcpy(copy, table, size);
  free(cpu->cpuid);
  cpu->cpuid = copy;
  soft_cpuid_changed(cpu);
  return 0;
}

static int set_debug(soft_cpu *cpu, const struct kvm_guest_debug *debug) {
  cpu->debug = *debug;
  if (!(debug->control & KVM_GUESTDBG_ENABLE)) {
    cpu->debug.control = 0;
  }
  soft_watch_changed(cpu);
  return 0;
}

static int translate(soft_cpu *cpu, struct kvm_translation *translation) {
  soft_walk walk;
  pthread_mutex_lock(&cpu->vm->lock);
  soft_adopt_map(cpu);
  bool valid = soft_translate(cpu, translation->linear_address,
                              (soft_rights){SOFT_READ, false, true}, &walk);
  pthread_mutex_unlock(&cpu->vm->lock);
  translation->valid = valid;
  translation->physical_address = valid ? walk.gpa : ~UINT64_C(0);
  translation->writeable = 1; /* as KVM says of all */
  translation->usermode = 0;
  return 0;
}

static int interrupt(soft_cpu *cpu, const struct kvm_interrupt *interrupt) {
  if (interrupt->irq > 255) {
    return soft_refuse(EINVAL);
  }
  if (cpu->vm->chip.kind == SOFT_CHIP_KERNEL) {
    return soft_refuse(ENXIO);
  }
  if (cpu->interrupt >= 0) {
    return soft_refuse(EEXIST);
  }
  cpu->interrupt = (int)interrupt->irq;
  soft_wake(cpu, SOFT_ATTEND_EVENT);
  return 0;
}

static int attribute(soft_cpu *cpu, const struct kvm_device_attr *attribute, bool set) {
  if (attribute->group != KVM_VCPU_TSC_CTRL || attribute->attr != KVM_VCPU_TSC_OFFSET) {
    return soft_refuse(ENXIO);
  }
  uint64_t *offset = (uint64_t *)(uintptr_t)attribute->addr;
  if (set) {
    cpu->tsc_offset = *offset;
    atomic_fetch_or(&cpu->attention, SOFT_ATTEND_CLOCK);
  } else {
    *offset = cpu->tsc_offset;
  }
  return 0;
}

/* 0 is the host's. */
static int set_tsc_khz(soft_cpu *cpu, unsigned long khz) {
  return soft_tsc_scale(cpu, khz ? (uint32_t)khz : soft_tsc_khz()) ? 0 : soft_refuse(EINVAL);
}

int soft_vcpu_ioctl(soft_cpu *cpu, unsigned long request, void *argument) {
  if (soft_likely(request == KVM_RUN)) {
    return argument ? soft_refuse(EINVAL) : soft_vcpu_run(cpu);
  }
  switch (request) {
    case KVM_CHECK_EXTENSION:
      return soft_capability((long)argument);
    case KVM_SET_CPUID2:
      return set_cpuid(cpu, argument);
    case KVM_SET_GUEST_DEBUG:
      return set_debug(cpu, argument);
    case KVM_TRANSLATE:
      return translate(cpu, argument);
    case KVM_INTERRUPT:
      return interrupt(cpu, argument);
    case KVM_NMI:
      atomic_fetch_add(&cpu->nmi, 1);
      soft_wake(cpu, SOFT_ATTEND_EVENT);
      return 0;
    case KVM_GET_TSC_KHZ:
      return (int)cpu->tsc_khz;
    case KVM_SET_TSC_KHZ:
      return set_tsc_khz(cpu, (unsigned long)argument);
    case KVM_HAS_DEVICE_ATTR: {
      const struct kvm_device_attr *asked = argument;
      bool known = asked->group == KVM_VCPU_TSC_CTRL && asked->attr == KVM_VCPU_TSC_OFFSET;
      return known ? 0 : soft_refuse(ENXIO);
    }
    case KVM_GET_DEVICE_ATTR:
    case KVM_SET_DEVICE_ATTR:
      return attribute(cpu, argument, request == KVM_SET_DEVICE_ATTR);
    case KVM_GET_STATS_FD:
      return soft_stats_fd(cpu);
    case LUNA_KVM_SET_CONTROLS:
      soft_controls_set(cpu, argument);
      return 0;
    case LUNA_KVM_SET_SHADOW:
      cpu->shadow_vmcs = argument;
      return 0;
    case LUNA_KVM_DELIVER: {
      const luna_kvm_event *event = argument;
      return soft_deliver_next(cpu, event->info, event->error, event->length);
    }
    case LUNA_KVM_GET_EXCEPTIONS:
      soft_past_get(cpu, argument);
      return 0;
    case KVM_GET_LAPIC:
    case KVM_SET_LAPIC:
    case KVM_GET_MP_STATE:
    case KVM_SET_MP_STATE:
      return soft_lapic_ioctl(cpu, request, argument);
    default:
      return soft_state_ioctl(cpu, request, argument);
  }
}
