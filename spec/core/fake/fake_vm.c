/* SPDX-License-Identifier: MIT
 * The fake's device and VMs: what KVM offers, memory slots with their logs, making vCPUs. */
#include "fake/fake_file.h"

#include "memory/vm.h"
#include "vcpu/vcpu.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
  FAKE_CAP_MEMORY_ATTRIBUTES = 233
};
#define FAKE_SET_MEMORY_ATTRIBUTES _IOW(KVMIO, 0xd2, fake_attributes)

/* api.rst: 32 where the capability is unknown. */
uint32_t fake_slots_max(void) {
  return fake_host.slots_max ? fake_host.slots_max : 32;
}

/* ---- The device ---- */

static int check_extension(long capability) {
  switch (capability) {
    case KVM_CAP_NR_MEMSLOTS:
      return (int)fake_host.slots_max;
    case KVM_CAP_MAX_VCPUS:
      return (int)fake_host.vcpus_max;
    case KVM_CAP_SYNC_REGS:
      return (int)fake_host.sync_regs;
    case KVM_CAP_IMMEDIATE_EXIT:
      return (int)fake_host.immediate_exit;
    case FAKE_CAP_MEMORY_ATTRIBUTES:
      return (int)fake_host.memory_attributes;
    case KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2:
      return (int)fake_host.manual_protect;
    case KVM_CAP_COALESCED_MMIO:
      return (int)fake_host.coalesced_page;
    case KVM_CAP_COALESCED_PIO:
      return (int)fake_host.coalesced_pio;
    case KVM_CAP_X86_USER_SPACE_MSR:
    case KVM_CAP_X86_MSR_FILTER:
      return (int)fake_host.msr_exits;
    case KVM_CAP_READONLY_MEM:
    case KVM_CAP_USER_MEMORY:
      return 1;
    default:
      return fake_interrupt_extension(capability);
  }
}

/* The leaf with the address width is the last one. */
enum {
  FAKE_CPUID_FEATURES = 8
};

/* What else the fake's processor has; the first leaves count up. */
static const struct kvm_cpuid_entry2 features[FAKE_CPUID_FEATURES] = {
    {.function = 0, .eax = 0x1f},
    {.function = 1, .ebx = 0x5a000800, .edx = 0x078bfbff},
    {.function = 0xd, .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX, .eax = 0xe7, .ebx = 2432},
    {.function = 0xd, .index = 2, .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX, .eax = 256, .ebx = 576},
    {.function = 0xd, .index = 5, .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX, .eax = 64, .ebx = 832},
    {.function = 0xd, .index = 6, .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX, .eax = 512, .ebx = 896},
    {.function = 0xd,
     .index = 7,
     .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
     .eax = 1024,
     .ebx = 1408},
    {.function = 0x80000001, .edx = 0x24100800},
};

static int get_cpuid(struct kvm_cpuid2 *cpuid) {
  uint32_t entries = fake_host.cpuid_entries;
  if (cpuid->nent < entries) {
    return fake_refuse(E2BIG);
  }
  for (uint32_t i = 0; i < entries; i++) {
    cpuid->entries[i] = (struct kvm_cpuid_entry2){.function = 0x100 + i, .eax = 1, .ebx = i};
  }
  for (uint32_t i = 0; entries > FAKE_CPUID_FEATURES && i < FAKE_CPUID_FEATURES; i++) {
    cpuid->entries[i] = features[i];
  }
  if (entries > 0) {
    cpuid->entries[entries - 1] =
        (struct kvm_cpuid_entry2){.function = 0x80000008, .eax = 0x3000 | fake_host.address_bits};
  }
  cpuid->nent = entries;
  return 0;
}

static int create_vm(void) {
  if (fake_host.create_error) {
    return fake_refuse(fake_host.create_error);
  }
  fake_slot *slots = calloc(fake_slots_max(), sizeof *slots);
  bool *ids = calloc(FAKE_VCPU_IDS, sizeof *ids);
  fake_file *vm = slots && ids ? fake_file_add(FAKE_FILE_VM) : NULL;
  if (!vm) {
    free(slots);
    free(ids);
    return fake_refuse(ENOMEM);
  }
  vm->slots = slots;
  vm->slots_max = fake_slots_max();
  vm->vcpu_ids = ids;
  return vm->fd;
}

void fake_vm_free(fake_file *vm) {
  for (uint32_t i = 0; i < vm->slots_max; i++) {
    free(vm->slots[i].log);
  }
  free(vm->slots);
  free(vm->vcpu_ids);
  fake_event_free(vm);
}

int fake_device_ioctl(unsigned long request, void *argument) {
  switch (request) {
    case KVM_GET_API_VERSION:
      return fake_host.api_version;
    case KVM_CHECK_EXTENSION:
      return check_extension((long)(intptr_t)argument);
    case KVM_GET_VCPU_MMAP_SIZE:
      return FAKE_RUN_SIZE;
    case KVM_GET_SUPPORTED_CPUID:
      return get_cpuid(argument);
    case KVM_GET_MSR_INDEX_LIST:
      return fake_msr_list(argument);
    case KVM_CREATE_VM:
      return argument ? fake_refuse(EINVAL) : create_vm();
    default:
      fake_mistake();
      return fake_refuse(ENOTTY);
  }
}

/* ---- Memory slots ---- */

static bool well_formed(const fake_file *vm, const struct kvm_userspace_memory_region *region) {
  const uint64_t pages_max = (UINT64_C(1) << 31) - 1; /* KVM_MEM_MAX_NR_PAGES */
  return region->slot < vm->slots_max && region->memory_size % FAKE_PAGE == 0 &&
         region->guest_phys_addr % FAKE_PAGE == 0 && region->userspace_addr % FAKE_PAGE == 0 &&
         region->userspace_addr < UINT64_C(1) << 47 &&
         region->memory_size / FAKE_PAGE <= pages_max &&
         region->guest_phys_addr + region->memory_size >= region->guest_phys_addr &&
         !(region->flags & ~(uint32_t)(KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY));
}

static bool overlaps(const fake_file *vm, const struct kvm_userspace_memory_region *region) {
  for (uint32_t i = 0; i < vm->slots_max; i++) {
    const struct kvm_userspace_memory_region *other = &vm->slots[i].region;
    if (other->memory_size && i != region->slot &&
        other->guest_phys_addr < region->guest_phys_addr + region->memory_size &&
        region->guest_phys_addr < other->guest_phys_addr + other->memory_size) {
      return true;
    }
  }
  return false;
}

static size_t log_words(const fake_slot *slot) {
  return (slot->region.memory_size / FAKE_PAGE + 63) / 64;
}

/* A log comes empty with its flag and goes with it. */
static int set_log(fake_slot *slot, bool on) {
  if (!on) {
    free(slot->log);
    slot->log = NULL;
  } else if (!slot->log) {
    slot->log = calloc(log_words(slot), sizeof *slot->log);
  }
  return on && !slot->log ? fake_refuse(ENOMEM) : 0;
}

static int delete_slot(fake_slot *slot) {
  if (slot->region.memory_size == 0) {
    return fake_refuse(EINVAL);
  }
  free(slot->log);
  *slot = (fake_slot){0};
  return 0;
}

/* As __kvm_set_memory_region: create, delete, move or change flags. */
static int set_region(fake_file *vm, const struct kvm_userspace_memory_region *region) {
  if (!well_formed(vm, region)) {
    return fake_refuse(EINVAL);
  }
  fake_slot *slot = &vm->slots[region->slot];
  const struct kvm_userspace_memory_region *old = &slot->region;
  if (region->memory_size == 0) {
    return delete_slot(slot);
  }
  if (old->memory_size &&
      (old->memory_size != region->memory_size || old->userspace_addr != region->userspace_addr ||
       (old->flags ^ region->flags) & KVM_MEM_READONLY)) {
    return fake_refuse(EINVAL);
  }
  if (overlaps(vm, region)) {
    return fake_refuse(EEXIST);
  }
  slot->region = *region;
  return set_log(slot, region->flags & KVM_MEM_LOG_DIRTY_PAGES);
}

static fake_slot *logged_slot(fake_file *vm, uint32_t number) {
  fake_slot *slot = number < vm->slots_max ? &vm->slots[number] : NULL;
  return slot && slot->log ? slot : NULL;
}

/* Gives the log away, unless its user clears it himself. */
static int get_log(fake_file *vm, const struct kvm_dirty_log *log) {
  fake_slot *slot = logged_slot(vm, log->slot);
  if (!slot) {
    return fake_refuse(ENOENT);
  }
  size_t size = log_words(slot) * sizeof *slot->log;
  memcpy(log->dirty_bitmap, slot->log, size);
  if (!vm->manual_protect) {
    memset(slot->log, 0, size);
  }
  return 0;
}

/* api.rst: pages from the slot's first on, in multiples of 64 or up to its end. */
static int clear_log(fake_file *vm, const struct kvm_clear_dirty_log *log) {
  fake_slot *slot = logged_slot(vm, log->slot);
  if (!slot) {
    return fake_refuse(ENOENT);
  }
  uint64_t pages = slot->region.memory_size / FAKE_PAGE;
  if (!vm->manual_protect || log->first_page % 64 || log->first_page > pages ||
      log->num_pages > pages - log->first_page ||
      (log->num_pages < pages - log->first_page && log->num_pages % 64)) {
    return fake_refuse(EINVAL);
  }
  const uint64_t *bitmap = log->dirty_bitmap;
  for (size_t i = 0; i < (log->num_pages + 63) / 64; i++) {
    slot->log[log->first_page / 64 + i] &= ~bitmap[i];
  }
  return 0;
}

bool fake_write(uint64_t gpa) {
  bool written = false;
  pthread_mutex_lock(&fake_lock);
  const fake_file *vm = fake_file_youngest(FAKE_FILE_VM);
  for (uint32_t i = 0; vm && i < vm->slots_max; i++) {
    const fake_slot *slot = &vm->slots[i];
    const struct kvm_userspace_memory_region *region = &slot->region;
    if (gpa >= region->guest_phys_addr && gpa - region->guest_phys_addr < region->memory_size &&
        !(region->flags & KVM_MEM_READONLY)) {
      uint64_t page = (gpa - region->guest_phys_addr) / FAKE_PAGE;
      if (slot->log) {
        slot->log[page / 64] |= UINT64_C(1) << page % 64;
      }
      written = true;
    }
  }
  pthread_mutex_unlock(&fake_lock);
  return written;
}

/* ---- VM and vCPU ---- */

static int create_vcpu(fake_file *vm, unsigned long id) {
  if (id >= FAKE_VCPU_IDS || vm->vcpus >= fake_host.vcpus_max) {
    return fake_refuse(EINVAL);
  }
  if (vm->vcpu_ids[id]) {
    return fake_refuse(EEXIST);
  }
  void *run = mmap(NULL, FAKE_RUN_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  fake_file *vcpu = run == MAP_FAILED ? NULL : fake_file_add(FAKE_FILE_VCPU);
  if (!vcpu) {
    return fake_refuse(ENOMEM);
  }
  vcpu->run = run;
  vcpu->vm = vm;
  vm->vcpus++;
  vm->vcpu_ids[id] = true;
  fake_vcpu_reset(vcpu);
  fake_interrupt_reset(vcpu, vm, (uint32_t)id);
  return vcpu->fd;
}

/* One range is remembered: the last that was kept from execution. */
static int set_attributes(fake_file *vm, const fake_attributes *change) {
  if (!fake_host.memory_attributes || change->attributes & ~fake_host.memory_attributes) {
    return fake_refuse(EINVAL);
  }
  vm->attributes = *change;
  return 0;
}

static int enable(fake_file *vm, const struct kvm_enable_cap *capability) {
  if (capability->cap == KVM_CAP_EXIT_HYPERCALL) {
    if (capability->args[0] & ~fake_host.exit_hypercall) {
      return fake_refuse(EINVAL);
    }
    vm->hypercalls = capability->args[0];
  }
  vm->manual_protect |= capability->cap == KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2;
  return capability->cap == KVM_CAP_X86_USER_SPACE_MSR ? fake_event_enable(vm, capability)
                                                       : fake_interrupt_enable(vm, capability);
}

int fake_vm_ioctl(fake_file *vm, unsigned long request, void *argument) {
  switch (request) {
    case KVM_SET_USER_MEMORY_REGION:
      return set_region(vm, argument);
    case KVM_CREATE_VCPU:
      return create_vcpu(vm, (unsigned long)(uintptr_t)argument);
    case KVM_SET_IDENTITY_MAP_ADDR:
      return vm->vcpus ? fake_refuse(EINVAL) : 0;
    case KVM_SET_TSS_ADDR:
      return 0;
    case KVM_GET_CLOCK:
      *(struct kvm_clock_data *)argument = (struct kvm_clock_data){.clock = vm->clock};
      return 0;
    case KVM_SET_CLOCK:
      vm->clock = ((const struct kvm_clock_data *)argument)->clock;
      return 0;
    case KVM_ENABLE_CAP:
      return enable(vm, argument);
    case FAKE_SET_MEMORY_ATTRIBUTES:
      return set_attributes(vm, argument);
    case KVM_GET_DIRTY_LOG:
      return get_log(vm, argument);
    case KVM_CLEAR_DIRTY_LOG:
      return clear_log(vm, argument);
    case KVM_IOEVENTFD:
    case KVM_REGISTER_COALESCED_MMIO:
    case KVM_UNREGISTER_COALESCED_MMIO:
    case KVM_X86_SET_MSR_FILTER:
      return fake_event_ioctl(vm, request, argument);
    default:
      return fake_interrupt_vm_ioctl(vm, request, argument);
  }
}
