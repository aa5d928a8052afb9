/* SPDX-License-Identifier: MIT
 * The fake's files, slots, registers and script. What it does on KVM_RUN follows
 * kvm_arch_vcpu_ioctl_run: take dirty registers, finish the pending access, look at
 * immediate_exit, run. */
#include "fake.h"

#include "fake_state.h"

#include "kvm.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum {
  PAGE = 4096,
  FIRST_FD = 1 << 20, /* far from the process's own */
  FILES = 4096,
  RUN_SIZE = 3 * PAGE,
  DATA_OFFSET = PAGE,
  COUNTERS = 512,
  SPIN_NANOSECONDS = 1000000
};

typedef enum file_kind {
  FILE_KVM,
  FILE_VM,
  FILE_VCPU
} file_kind;

/* An access that KVM has reported and finishes at the next KVM_RUN. */
typedef struct access_under_way {
  bool active;
  bool mmio;
  bool write;
  bool continues;
  uint32_t size;
  uint32_t count;
  uint64_t rip; /* of the instruction */
} access_under_way;

enum {
  FAKE_CAP_MEMORY_ATTRIBUTES = 233
};
#define FAKE_SET_MEMORY_ATTRIBUTES _IOW(KVMIO, 0xd2, fake_attributes)

typedef struct file {
  file_kind kind;
  int fd;
  uint64_t serial; /* the higher, the younger */
  struct file *vm; /* a vCPU's; only compared */
  struct kvm_userspace_memory_region *slots;
  unsigned vcpus;
  fake_attributes attributes;
  struct kvm_run *run;
  bool mapped;
  bool has_cpuid;
  struct kvm_regs regs;
  struct kvm_sregs sregs;
  fake_state state;
  access_under_way access;
} file;

typedef struct counter {
  unsigned long request;
  int fd;
  uint64_t count;
  uint64_t serial;
} counter;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static fake_config config;
static file *files[FILES];
static uint64_t next_serial;
static unsigned mistakes;
static char last_path[4096];
static counter counters[COUNTERS];
static size_t counter_count;
static uint64_t call_serial;
static uint64_t fail_nth;
static int fail_number;
static bool fail_done;

static const fake_step *script;
static size_t script_count;
static size_t script_at;
static bool script_loops;
static bool hook_called; /* of the step at script_at */

static uint8_t answer[FAKE_DATA_SIZE];
static size_t answer_size;

/* Read without the lock: set before the vCPUs run. */
static atomic_bool endless;
static fake_step endless_step;
static atomic_ulong endless_runs;

static int fail(int number) {
  errno = number;
  return -1;
}

/* Whether this call is the one that fake_fail chose. Under the lock. */
static bool chosen(void) {
  if (fail_nth == 0 || --fail_nth > 0) {
    return false;
  }
  fail_done = true;
  return true;
}

static void count_call(unsigned long request, int fd) {
  call_serial++;
  for (size_t i = 0; i < counter_count; i++) {
    if (counters[i].request == request && counters[i].fd == fd) {
      counters[i].count++;
      counters[i].serial = call_serial;
      return;
    }
  }
  if (counter_count < COUNTERS) {
    counters[counter_count++] = (counter){request, fd, 1, call_serial};
  }
}

/* api.rst: 32 where the capability is unknown. */
static uint32_t slots_max(void) {
  return config.slots_max ? config.slots_max : 32;
}

/* ---- Files
 * -------------------------------------------------------------------------------------- */

static file *file_at(int fd) {
  int index = fd - FIRST_FD;
  return index >= 0 && index < FILES ? files[index] : NULL;
}

/* Numbers go round, so that a stale one does not meet a new file soon. */
static file *file_add(file_kind kind) {
  for (int tries = 0; tries < FILES; tries++) {
    int index = (int)(next_serial++ % FILES);
    if (!files[index]) {
      file *made = calloc(1, sizeof *made);
      if (!made) {
        return NULL;
      }
      made->kind = kind;
      made->fd = FIRST_FD + index;
      made->serial = next_serial;
      files[index] = made;
      return made;
    }
  }
  return NULL;
}

static void file_free(file *f) {
  if (f->run && !f->mapped) {
    munmap(f->run, RUN_SIZE);
  }
  free(f->slots);
  free(f);
}

static file *youngest(file_kind kind) {
  file *found = NULL;
  for (size_t i = 0; i < FILES; i++) {
    if (files[i] && files[i]->kind == kind && (!found || files[i]->serial > found->serial)) {
      found = files[i];
    }
  }
  return found;
}

/* ---- The device
 * --------------------------------------------------------------------------------- */

static int check_extension(long capability) {
  switch (capability) {
    case KVM_CAP_NR_MEMSLOTS:
      return (int)config.slots_max;
    case KVM_CAP_MAX_VCPUS:
      return (int)config.vcpus_max;
    case KVM_CAP_SYNC_REGS:
      return (int)config.sync_regs;
    case KVM_CAP_IMMEDIATE_EXIT:
      return (int)config.immediate_exit;
    case FAKE_CAP_MEMORY_ATTRIBUTES:
      return (int)config.memory_attributes;
    case KVM_CAP_READONLY_MEM:
    case KVM_CAP_USER_MEMORY:
      return 1;
    default:
      return 0;
  }
}

/* The leaf with the address width is the last one. */
static int get_cpuid(struct kvm_cpuid2 *cpuid) {
  uint32_t entries = config.cpuid_entries;
  if (cpuid->nent < entries) {
    return fail(E2BIG);
  }
  for (uint32_t i = 0; i < entries; i++) {
    cpuid->entries[i] = (struct kvm_cpuid_entry2){.function = i, .eax = 1, .ebx = i};
  }
  if (entries > 0) {
    cpuid->entries[entries - 1] =
        (struct kvm_cpuid_entry2){.function = 0x80000008, .eax = 0x3000 | config.address_bits};
  }
  cpuid->nent = entries;
  return 0;
}

static int create_vm(void) {
  if (config.create_error) {
    return fail(config.create_error);
  }
  struct kvm_userspace_memory_region *slots = calloc(slots_max(), sizeof *slots);
  file *vm = slots ? file_add(FILE_VM) : NULL;
  if (!vm) {
    free(slots);
    return fail(ENOMEM);
  }
  vm->slots = slots;
  return vm->fd;
}

static int device_ioctl(unsigned long request, void *argument) {
  switch (request) {
    case KVM_GET_API_VERSION:
      return config.api_version;
    case KVM_CHECK_EXTENSION:
      return check_extension((long)(intptr_t)argument);
    case KVM_GET_VCPU_MMAP_SIZE:
      return RUN_SIZE;
    case KVM_GET_SUPPORTED_CPUID:
      return get_cpuid(argument);
    case KVM_GET_MSR_INDEX_LIST:
      return fake_msr_list(argument);
    case KVM_CREATE_VM:
      return argument ? fail(EINVAL) : create_vm();
    default:
      mistakes++;
      return fail(ENOTTY);
  }
}

/* ---- Memory slots
 * ------------------------------------------------------------------------------- */

static bool well_formed(const struct kvm_userspace_memory_region *region) {
  const uint64_t pages_max = (UINT64_C(1) << 31) - 1; /* KVM_MEM_MAX_NR_PAGES */
  return region->slot < slots_max() && region->memory_size % PAGE == 0 &&
         region->guest_phys_addr % PAGE == 0 && region->userspace_addr % PAGE == 0 &&
         region->userspace_addr < UINT64_C(1) << 47 && region->memory_size / PAGE <= pages_max &&
         region->guest_phys_addr + region->memory_size >= region->guest_phys_addr &&
         !(region->flags & ~(uint32_t)(KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY));
}

static bool overlaps(const file *vm, const struct kvm_userspace_memory_region *region) {
  for (uint32_t i = 0; i < slots_max(); i++) {
    const struct kvm_userspace_memory_region *other = &vm->slots[i];
    if (other->memory_size && i != region->slot &&
        other->guest_phys_addr < region->guest_phys_addr + region->memory_size &&
        region->guest_phys_addr < other->guest_phys_addr + other->memory_size) {
      return true;
    }
  }
  return false;
}

/* As __kvm_set_memory_region: create, delete, move or change flags. */
static int set_region(file *vm, const struct kvm_userspace_memory_region *region) {
  if (!well_formed(region)) {
    return fail(EINVAL);
  }
  struct kvm_userspace_memory_region *slot = &vm->slots[region->slot];
  if (region->memory_size == 0) {
    if (slot->memory_size == 0) {
      return fail(EINVAL);
    }
    memset(slot, 0, sizeof *slot);
    return 0;
  }
  if (slot->memory_size &&
      (slot->memory_size != region->memory_size || slot->userspace_addr != region->userspace_addr ||
       (slot->flags ^ region->flags) & KVM_MEM_READONLY)) {
    return fail(EINVAL);
  }
  if (overlaps(vm, region)) {
    return fail(EEXIST);
  }
  *slot = *region;
  return 0;
}

/* ---- VM and vCPU
 * -------------------------------------------------------------------------------- */

static struct kvm_segment reset_segment(uint8_t type, uint8_t s) {
  return (struct kvm_segment){.limit = 0xffff, .type = type, .present = 1, .s = s};
}

/* SDM Vol. 3, 10.1.1. */
static void reset_registers(file *vcpu) {
  vcpu->regs = (struct kvm_regs){.rip = 0xfff0, .rflags = 2, .rdx = 0x600};
  struct kvm_sregs *sregs = &vcpu->sregs;
  sregs->cs = reset_segment(11, 1);
  sregs->cs.selector = 0xf000;
  sregs->cs.base = 0xffff0000;
  sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = reset_segment(3, 1);
  sregs->tr = reset_segment(11, 0);
  sregs->ldt = reset_segment(2, 0);
  sregs->gdt.limit = sregs->idt.limit = 0xffff;
  sregs->cr0 = 0x60000010;
  sregs->apic_base = 0xfee00900;
}

static int create_vcpu(file *vm, unsigned long id) {
  if (id >= 4096 || vm->vcpus >= config.vcpus_max) {
    return fail(EINVAL);
  }
  void *run = mmap(NULL, RUN_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  file *vcpu = run == MAP_FAILED ? NULL : file_add(FILE_VCPU);
  if (!vcpu) {
    return fail(ENOMEM);
  }
  vcpu->vm = vm;
  vcpu->run = run;
  vm->vcpus++;
  fake_state_reset(&vcpu->state);
  reset_registers(vcpu);
  return vcpu->fd;
}

/* One range is remembered: the last that was kept from execution. */
static int set_attributes(file *vm, const fake_attributes *change) {
  if (!config.memory_attributes || change->attributes & ~config.memory_attributes) {
    return fail(EINVAL);
  }
  vm->attributes = *change;
  return 0;
}

static int vm_ioctl(file *vm, unsigned long request, void *argument) {
  switch (request) {
    case KVM_SET_USER_MEMORY_REGION:
      return set_region(vm, argument);
    case KVM_CREATE_VCPU:
      return create_vcpu(vm, (unsigned long)(uintptr_t)argument);
    case KVM_SET_IDENTITY_MAP_ADDR:
      return vm->vcpus ? fail(EINVAL) : 0;
    case KVM_SET_TSS_ADDR:
      return 0;
    case KVM_ENABLE_CAP:
      return 0;
    case FAKE_SET_MEMORY_ATTRIBUTES:
      return set_attributes(vm, argument);
    case KVM_GET_DIRTY_LOG:
    case KVM_CLEAR_DIRTY_LOG: /* the guest has no memory to write to */
      return 0;
    default:
      mistakes++;
      return fail(ENOTTY);
  }
}

/* Part of kvm_is_valid_sregs. */
static bool valid_sregs(const struct kvm_sregs *s) {
  const uint64_t pe = 1;
  const uint64_t pg = UINT64_C(1) << 31;
  const uint64_t pae = 0x20;
  const uint64_t lme = 0x100;
  const uint64_t lma = 0x400;
  if (s->cr0 >> 32 || s->cr4 >> 32 || (s->cr0 & pg && !(s->cr0 & pe))) {
    return false;
  }
  if (s->efer & lme && s->cr0 & pg) {
    return s->cr4 & pae && s->efer & lma;
  }
  return !(s->efer & lma) && !s->cs.l;
}

static int set_sregs(file *vcpu, const struct kvm_sregs *sregs) {
  if (!valid_sregs(sregs)) {
    return fail(EINVAL);
  }
  vcpu->sregs = *sregs;
  return 0;
}

static int translate(struct kvm_translation *translation) {
  translation->valid = !config.translate_fails;
  translation->physical_address = translation->linear_address + config.translate_offset;
  return 0;
}

static int vcpu_ioctl(file *vcpu, unsigned long request, void *argument) {
  switch (request) {
    case KVM_SET_CPUID2:
      vcpu->has_cpuid = true;
      return 0;
    case KVM_GET_REGS:
      memcpy(argument, &vcpu->regs, sizeof vcpu->regs);
      return 0;
    case KVM_SET_REGS:
      memcpy(&vcpu->regs, argument, sizeof vcpu->regs);
      return 0;
    case KVM_GET_SREGS:
      memcpy(argument, &vcpu->sregs, sizeof vcpu->sregs);
      return 0;
    case KVM_SET_SREGS:
      return set_sregs(vcpu, argument);
    case KVM_TRANSLATE:
      return translate(argument);
    default:
      return fake_state_ioctl(&vcpu->state, request, argument);
  }
}

/* ---- KVM_RUN
 * ------------------------------------------------------------------------------------ */

/* sync_regs: a group that was taken is no longer dirty. There is no interrupt controller in the
 * kernel, so that CR8 is the run page's. */
static int take_registers(file *vcpu) {
  struct kvm_run *run = vcpu->run;
  if ((run->kvm_valid_regs | run->kvm_dirty_regs) & ~(uint64_t)config.sync_regs) {
    return fail(EINVAL);
  }
  if (run->kvm_dirty_regs & KVM_SYNC_X86_REGS) {
    vcpu->regs = run->s.regs.regs;
    run->kvm_dirty_regs &= ~(uint64_t)KVM_SYNC_X86_REGS;
  }
  if (run->kvm_dirty_regs & KVM_SYNC_X86_SREGS) {
    if (set_sregs(vcpu, &run->s.regs.sregs) != 0) {
      return -1;
    }
    run->kvm_dirty_regs &= ~(uint64_t)KVM_SYNC_X86_SREGS;
  }
  if (run->kvm_dirty_regs & KVM_SYNC_X86_EVENTS) {
    vcpu->state.events = run->s.regs.events;
    run->kvm_dirty_regs &= ~(uint64_t)KVM_SYNC_X86_EVENTS;
  }
  if (run->cr8 > 15) {
    return fail(EINVAL);
  }
  vcpu->sregs.cr8 = run->cr8;
  return 0;
}

static void store_registers(const file *vcpu) {
  struct kvm_run *run = vcpu->run;
  if (run->kvm_valid_regs & KVM_SYNC_X86_REGS) {
    run->s.regs.regs = vcpu->regs;
  }
  if (run->kvm_valid_regs & KVM_SYNC_X86_SREGS) {
    run->s.regs.sregs = vcpu->sregs;
  }
  if (run->kvm_valid_regs & KVM_SYNC_X86_EVENTS) {
    run->s.regs.events = vcpu->state.events;
  }
  run->cr8 = vcpu->sregs.cr8;
  run->apic_base = vcpu->sregs.apic_base;
}

static uint8_t *access_data(const file *vcpu) {
  return vcpu->access.mmio ? vcpu->run->mmio.data : (uint8_t *)vcpu->run + DATA_OFFSET;
}

/* A read of one element goes to RAX: 4 bytes clear the upper half, fewer keep the rest. */
static void finish_read(file *vcpu) {
  const access_under_way *access = &vcpu->access;
  const uint8_t *data = access_data(vcpu);
  answer_size = (size_t)access->size * access->count;
  memcpy(answer, data, answer_size);
  if (access->count == 1) {
    uint64_t rax = access->size >= 4 ? 0 : vcpu->regs.rax;
    memcpy(&rax, data, access->size);
    vcpu->regs.rax = rax;
  }
}

/* A write by MMIO has moved RIP before its exit; the others do now, unless RIP was set to
 * elsewhere. */
static void finish_access(file *vcpu) {
  const access_under_way *access = &vcpu->access;
  if (!access->write) {
    finish_read(vcpu);
  }
  if (!(access->mmio && access->write) && !access->continues && vcpu->regs.rip == access->rip) {
    vcpu->regs.rip += FAKE_INSTRUCTION_LENGTH;
  }
  vcpu->access.active = false;
}

static void begin_access(file *vcpu, const fake_step *step) {
  vcpu->access = (access_under_way){
      .active = true,
      .mmio = step->kind == FAKE_MMIO,
      .write = step->write,
      .continues = step->continues,
      .size = step->size,
      .count = step->count ? step->count : 1,
      .rip = vcpu->regs.rip,
  };
  if (step->kind == FAKE_MMIO && step->write && !step->continues) {
    vcpu->regs.rip += FAKE_INSTRUCTION_LENGTH;
  }
}

static void report_pio(file *vcpu, const fake_step *step) {
  struct kvm_run *run = vcpu->run;
  begin_access(vcpu, step);
  run->exit_reason = KVM_EXIT_IO;
  run->io.direction = step->write ? KVM_EXIT_IO_OUT : KVM_EXIT_IO_IN;
  run->io.size = (uint8_t)step->size;
  run->io.port = (uint16_t)step->address;
  run->io.count = vcpu->access.count;
  run->io.data_offset = DATA_OFFSET;
  if (step->write) {
    memcpy(access_data(vcpu), step->data, (size_t)step->size * vcpu->access.count);
  }
}

static void report_mmio(file *vcpu, const fake_step *step) {
  struct kvm_run *run = vcpu->run;
  begin_access(vcpu, step);
  run->exit_reason = KVM_EXIT_MMIO;
  run->mmio.phys_addr = step->address;
  run->mmio.len = step->size;
  run->mmio.is_write = step->write;
  memset(run->mmio.data, 0, sizeof run->mmio.data);
  if (step->write) {
    memcpy(run->mmio.data, step->data, step->size);
  }
}

static void report_internal(struct kvm_run *run, const fake_step *step) {
  run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
  run->internal.suberror = step->suberror;
  run->internal.ndata = step->ndata;
  memcpy(run->internal.data, step->words, sizeof run->internal.data);
  if (step->instruction_size) {
    run->emulation_failure.insn_size = step->instruction_size;
    memcpy(run->emulation_failure.insn_bytes, step->instruction, sizeof step->instruction);
  }
}

static int report_errno(struct kvm_run *run, const fake_step *step) {
  run->exit_reason = step->reason;
  if (step->reason == FAKE_EXIT_MEMORY_FAULT) {
    const uint64_t fault[3] = {step->value, step->address, PAGE};
    memcpy(&run->hw, fault, sizeof fault); /* the start of the union */
  }
  return fail(step->number);
}

static int report(file *vcpu, const fake_step *step) {
  struct kvm_run *run = vcpu->run;
  switch (step->kind) {
    case FAKE_PIO:
      report_pio(vcpu, step);
      return 0;
    case FAKE_MMIO:
      report_mmio(vcpu, step);
      return 0;
    case FAKE_SHUTDOWN:
      run->exit_reason = KVM_EXIT_SHUTDOWN;
      return 0;
    case FAKE_INTERNAL:
      report_internal(run, step);
      return 0;
    case FAKE_FAIL_ENTRY:
      run->exit_reason = KVM_EXIT_FAIL_ENTRY;
      run->fail_entry.hardware_entry_failure_reason = step->value;
      return 0;
    case FAKE_OTHER:
      run->exit_reason = step->reason;
      return 0;
    case FAKE_ERRNO:
      return report_errno(run, step);
    default:
      run->exit_reason = KVM_EXIT_HLT;
      return 0;
  }
}

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* The guest loops. Signals are blocked but inside ppoll, so that, as with KVM, one that comes at
 * any moment ends the call. 1 if the guest goes on behind the loop. Without the lock. */
static int spin(file *vcpu, const fake_step *step, bool first) {
  if (first && step->hook && step->early) {
    step->hook(step->context);
  }
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  if (first && step->hook && !step->early) {
    step->hook(step->context);
  }
  uint64_t end = now() + step->limit;
  int result = -1;
  while (result < 0) {
    const struct timespec pause = {.tv_nsec = SPIN_NANOSECONDS};
    if (*(volatile uint8_t *)&vcpu->run->immediate_exit || ppoll(NULL, 0, &pause, &before) < 0) {
      result = 0;
    } else if (step->limit && now() >= end) {
      result = 1;
    }
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (result == 0) {
    vcpu->run->exit_reason = KVM_EXIT_INTR;
    errno = EINTR;
  }
  return result;
}

/* The step that the guest is at: NULL behind the last. */
static const fake_step *step_now(bool *first) {
  pthread_mutex_lock(&lock);
  if (script_loops && script_at == script_count) {
    script_at = 0;
  }
  const fake_step *step = script_at < script_count ? &script[script_at] : NULL;
  *first = !hook_called;
  hook_called = true;
  pthread_mutex_unlock(&lock);
  return step;
}

static void step_over(void) {
  pthread_mutex_lock(&lock);
  script_at++;
  hook_called = false;
  pthread_mutex_unlock(&lock);
}

static void load_state(file *vcpu, const fake_step *step) {
  if (step->regs) {
    vcpu->regs = *step->regs;
  }
  if (step->sregs) {
    vcpu->sregs = *step->sregs;
  }
}

static int follow_script(file *vcpu) {
  static const fake_step halt = {.kind = FAKE_HLT};
  for (;;) {
    bool first;
    const fake_step *step = step_now(&first);
    if (!step) {
      return report(vcpu, &halt);
    }
    if (first) {
      load_state(vcpu, step);
    }
    if (step->kind != FAKE_SPIN) {
      if (first && step->hook) {
        step->hook(step->context);
      }
      step_over();
      return report(vcpu, step);
    }
    if (spin(vcpu, step, first) == 0) {
      return fail(EINTR);
    }
    step_over();
  }
}

static int enter(file *vcpu) {
  if (vcpu->access.active) {
    bool continues = vcpu->access.continues;
    finish_access(vcpu);
    if (continues) {
      return follow_script(vcpu);
    }
  }
  if (*(volatile uint8_t *)&vcpu->run->immediate_exit) {
    return fail(EINTR);
  }
  vcpu->run->exit_reason = KVM_EXIT_UNKNOWN;
  if (atomic_load_explicit(&endless, memory_order_acquire)) {
    return report(vcpu, &endless_step);
  }
  return follow_script(vcpu);
}

/* Not under the lock: a vCPU has one thread at a time. */
static int run_vcpu(file *vcpu) {
  int result = take_registers(vcpu);
  if (result == 0) {
    result = enter(vcpu);
  }
  int number = errno;
  store_registers(vcpu);
  errno = number;
  return result;
}

/* ---- The table
 * ---------------------------------------------------------------------------------- */

static int fake_open_path(const char *path) {
  pthread_mutex_lock(&lock);
  size_t length = strnlen(path, sizeof last_path - 1);
  memcpy(last_path, path, length);
  last_path[length] = '\0';
  int result = -1;
  if (config.open_error || chosen()) {
    errno = config.open_error ? config.open_error : fail_number;
  } else {
    const file *made = file_add(FILE_KVM);
    result = made ? made->fd : fail(EMFILE);
  }
  pthread_mutex_unlock(&lock);
  return result;
}

static int dispatch(file *f, unsigned long request, void *argument) {
  switch (f->kind) {
    case FILE_KVM:
      return device_ioctl(request, argument);
    case FILE_VM:
      return vm_ioctl(f, request, argument);
    default:
      return vcpu_ioctl(f, request, argument);
  }
}

static int fake_ioctl(int fd, unsigned long request, void *argument) {
  if (request == KVM_RUN && atomic_load_explicit(&endless, memory_order_relaxed)) {
    atomic_fetch_add_explicit(&endless_runs, 1, memory_order_relaxed);
    return run_vcpu(file_at(fd));
  }
  pthread_mutex_lock(&lock);
  count_call(request, fd);
  file *f = file_at(fd);
  int result;
  bool run = false;
  if (chosen()) {
    result = fail(fail_number);
  } else if (!f) {
    mistakes++;
    result = fail(EBADF);
  } else if (request == KVM_RUN && f->kind == FILE_VCPU) {
    run = true;
    result = 0;
  } else {
    result = dispatch(f, request, argument);
  }
  pthread_mutex_unlock(&lock);
  return run ? run_vcpu(f) : result;
}

static void *map_run(size_t size, int fd) {
  file *f = file_at(fd);
  if (chosen()) {
    errno = fail_number;
    return MAP_FAILED;
  }
  if (!f || f->kind != FILE_VCPU || f->mapped || size != RUN_SIZE) {
    mistakes++;
    errno = EINVAL;
    return MAP_FAILED;
  }
  f->mapped = true;
  return f->run;
}

static void *fake_map(size_t size, int fd, off_t offset) {
  pthread_mutex_lock(&lock);
  void *run = map_run(offset == 0 ? size : 0, fd);
  pthread_mutex_unlock(&lock);
  return run;
}

static int unmap_run(const void *address, size_t size) {
  for (size_t i = 0; i < FILES; i++) {
    if (files[i] && files[i]->mapped && files[i]->run == address && size == RUN_SIZE) {
      files[i]->mapped = false;
      return 0;
    }
  }
  mistakes++;
  return fail(EINVAL);
}

static int fake_unmap(void *address, size_t size) {
  pthread_mutex_lock(&lock);
  int result = unmap_run(address, size);
  pthread_mutex_unlock(&lock);
  return result;
}

/* Closing a vCPU whose run page is mapped loses the page: a mistake here, though not for KVM. */
static int fake_close(int fd) {
  pthread_mutex_lock(&lock);
  file *f = file_at(fd);
  int result = 0;
  if (f) {
    mistakes += f->mapped;
    files[fd - FIRST_FD] = NULL;
    file_free(f);
  } else {
    mistakes++;
    result = fail(EBADF);
  }
  pthread_mutex_unlock(&lock);
  return result;
}

static const luna_kvm_table table = {fake_open_path, fake_ioctl, fake_map, fake_unmap, fake_close};

/* ---- For the tests
 * ------------------------------------------------------------------------------ */

fake_config fake_defaults(void) {
  return (fake_config){
      .api_version = KVM_API_VERSION,
      .slots_max = 509,
      .vcpus_max = 64,
      .sync_regs = KVM_SYNC_X86_VALID_FIELDS,
      .immediate_exit = 1,
      .address_bits = 40,
      .cpuid_entries = 40,
  };
}

static void forget_files(void) {
  for (size_t i = 0; i < FILES; i++) {
    if (files[i]) {
      files[i]->mapped = false;
      file_free(files[i]);
      files[i] = NULL;
    }
  }
}

void fake_install(const fake_config *wanted) {
  pthread_mutex_lock(&lock);
  config = wanted ? *wanted : fake_defaults();
  forget_files();
  mistakes = 0;
  answer_size = 0;
  last_path[0] = '\0';
  pthread_mutex_unlock(&lock);
  fake_forget();
  fake_fail(0, 0);
  fake_script(NULL, 0);
  luna_kvm_replace(&table);
}

void fake_remove(void) {
  fake_script(NULL, 0);
  luna_kvm_replace(NULL);
}

static void set_script(const fake_step *steps, size_t count, bool loops) {
  pthread_mutex_lock(&lock);
  atomic_store_explicit(&endless, false, memory_order_release);
  script = steps;
  script_count = count;
  script_at = 0;
  script_loops = loops;
  hook_called = false;
  pthread_mutex_unlock(&lock);
}

void fake_script(const fake_step *steps, size_t count) {
  set_script(steps, count, false);
}

void fake_script_endless(const fake_step *steps, size_t count) {
  set_script(steps, count, true);
}

static void set_endless(fake_step step) {
  pthread_mutex_lock(&lock);
  endless_step = step;
  atomic_store_explicit(&endless, step.size > 0, memory_order_release);
  pthread_mutex_unlock(&lock);
}

void fake_endless_pio(uint16_t port, uint32_t size, bool in) {
  set_endless((fake_step){
      .kind = FAKE_PIO, .address = port, .size = size, .count = 1, .write = !in, .data = {0x5a}});
}

void fake_endless_mmio(uint64_t gpa, uint32_t size, bool write) {
  set_endless(
      (fake_step){.kind = FAKE_MMIO, .address = gpa, .size = size, .write = write, .data = {0x5a}});
}

void fake_fail(uint64_t nth, int number) {
  pthread_mutex_lock(&lock);
  fail_nth = nth;
  fail_number = number;
  fail_done = false;
  pthread_mutex_unlock(&lock);
}

bool fake_failed(void) {
  pthread_mutex_lock(&lock);
  bool done = fail_done;
  pthread_mutex_unlock(&lock);
  return done;
}

uint64_t fake_calls(unsigned long request) {
  pthread_mutex_lock(&lock);
  uint64_t sum = request == 0 || request == KVM_RUN ? atomic_load(&endless_runs) : 0;
  for (size_t i = 0; i < counter_count; i++) {
    if (request == 0 || counters[i].request == request) {
      sum += counters[i].count;
    }
  }
  pthread_mutex_unlock(&lock);
  return sum;
}

void fake_forget(void) {
  pthread_mutex_lock(&lock);
  counter_count = 0;
  atomic_store(&endless_runs, 0);
  pthread_mutex_unlock(&lock);
}

int fake_last_fd(unsigned long request) {
  pthread_mutex_lock(&lock);
  const counter *last = NULL;
  for (size_t i = 0; i < counter_count; i++) {
    if (counters[i].request == request && (!last || counters[i].serial > last->serial)) {
      last = &counters[i];
    }
  }
  int fd = last ? last->fd : -1;
  pthread_mutex_unlock(&lock);
  return fd;
}

unsigned fake_open(void) {
  unsigned count = 0;
  pthread_mutex_lock(&lock);
  for (size_t i = 0; i < FILES; i++) {
    count += files[i] ? 1u + files[i]->mapped : 0;
  }
  pthread_mutex_unlock(&lock);
  return count;
}

unsigned fake_mistakes(void) {
  pthread_mutex_lock(&lock);
  unsigned count = mistakes;
  pthread_mutex_unlock(&lock);
  return count;
}

const char *fake_path(void) {
  return last_path;
}

fake_attributes fake_last_attributes(void) {
  pthread_mutex_lock(&lock);
  const file *vm = youngest(FILE_VM);
  fake_attributes attributes = vm ? vm->attributes : (fake_attributes){0};
  pthread_mutex_unlock(&lock);
  return attributes;
}

size_t fake_slots(struct kvm_userspace_memory_region *slots, size_t room) {
  size_t count = 0;
  pthread_mutex_lock(&lock);
  const file *vm = youngest(FILE_VM);
  for (uint32_t i = 0; vm && i < slots_max(); i++) {
    if (vm->slots[i].memory_size) {
      if (count < room) {
        slots[count] = vm->slots[i];
      }
      count++;
    }
  }
  pthread_mutex_unlock(&lock);
  return count;
}

static file *youngest_vcpu(void) {
  pthread_mutex_lock(&lock);
  file *vcpu = youngest(FILE_VCPU);
  pthread_mutex_unlock(&lock);
  return vcpu;
}

struct kvm_regs *fake_regs(void) {
  file *vcpu = youngest_vcpu();
  return vcpu ? &vcpu->regs : NULL;
}

struct kvm_sregs *fake_sregs(void) {
  file *vcpu = youngest_vcpu();
  return vcpu ? &vcpu->sregs : NULL;
}

struct kvm_run *fake_run_page(void) {
  const file *vcpu = youngest_vcpu();
  return vcpu ? vcpu->run : NULL;
}

const uint8_t *fake_answer(size_t *size) {
  *size = answer_size;
  return answer;
}
