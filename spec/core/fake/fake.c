/* SPDX-License-Identifier: MIT
 * The fake's files, the table of calls with what each test asks of it: counts and failures. */
#include "fake/fake.h"
#include "fake/fake_file.h"

#include "kvm/kvm.h"
#include "memory/vm.h"
#include "vcpu/vcpu.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
  FIRST_FD = 1 << 20, /* far from the process's own */
  FILES = 4096,
  COUNTERS = 512
};

typedef struct counter {
  unsigned long request;
  int fd;
  uint64_t count;
  uint64_t serial;
} counter;

pthread_mutex_t fake_lock = PTHREAD_MUTEX_INITIALIZER;
fake_config fake_host;
static fake_file *files[FILES];
static uint64_t next_serial;
static unsigned mistakes;
static char last_path[4096];
static counter counters[COUNTERS];
static size_t counter_count;
static uint64_t call_serial;
static uint64_t fail_nth;
static int fail_number;
static bool fail_done;

int fake_refuse(int number) {
  errno = number;
  return -1;
}

void fake_mistake(void) {
  mistakes++;
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

/* ---- Files ---- */

static fake_file *file_at(int fd) {
  int index = fd - FIRST_FD;
  return index >= 0 && index < FILES ? files[index] : NULL;
}

/* Numbers go round, so that a stale one does not meet a new file soon. */
fake_file *fake_file_add(fake_file_kind kind) {
  for (int tries = 0; tries < FILES; tries++) {
    int index = (int)(next_serial++ % FILES);
    if (!files[index]) {
      fake_file *made = calloc(1, sizeof *made);
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

static void file_free(fake_file *f) {
  if (f->run && !f->mapped) {
    munmap(f->run, FAKE_RUN_SIZE);
  }
  fake_vm_free(f);
  fake_stats_free(f);
  free(f);
}

fake_file **fake_files(size_t *count) {
  *count = FILES;
  return files;
}

fake_file *fake_file_youngest(fake_file_kind kind) {
  fake_file *found = NULL;
  for (size_t i = 0; i < FILES; i++) {
    if (files[i] && files[i]->kind == kind && (!found || files[i]->serial > found->serial)) {
      found = files[i];
    }
  }
  return found;
}

/* ---- The table ---- */

static int fake_open_path(const char *path) {
  pthread_mutex_lock(&fake_lock);
  size_t length = strnlen(path, sizeof last_path - 1);
  memcpy(last_path, path, length);
  last_path[length] = '\0';
  int result = -1;
  if (fake_host.open_error || chosen()) {
    errno = fake_host.open_error ? fake_host.open_error : fail_number;
  } else {
    const fake_file *made = fake_file_add(FAKE_FILE_KVM);
    result = made ? made->fd : fake_refuse(EMFILE);
  }
  pthread_mutex_unlock(&fake_lock);
  return result;
}

static int dispatch(fake_file *f, unsigned long request, void *argument) {
  switch (f->kind) {
    case FAKE_FILE_KVM:
      return fake_device_ioctl(request, argument);
    case FAKE_FILE_VM:
      return fake_vm_ioctl(f, request, argument);
    default:
      if (atomic_load(&f->inside)) {
        fake_mistake();
      }
      return fake_vcpu_ioctl(f, request, argument);
  }
}

static int run_vcpu(fake_file *vcpu) {
  if (atomic_exchange(&vcpu->inside, true)) {
    pthread_mutex_lock(&fake_lock);
    fake_mistake();
    pthread_mutex_unlock(&fake_lock);
  }
  int result = fake_vcpu_run(vcpu);
  atomic_store(&vcpu->inside, false);
  return result;
}

static int fake_ioctl(int fd, unsigned long request, void *argument) {
  if (request == KVM_RUN && atomic_load_explicit(&fake_endless, memory_order_relaxed)) {
    atomic_fetch_add_explicit(&fake_endless_runs, 1, memory_order_relaxed);
    return run_vcpu(file_at(fd));
  }
  pthread_mutex_lock(&fake_lock);
  count_call(request, fd);
  fake_file *f = file_at(fd);
  int result;
  bool run = false;
  if (chosen()) {
    result = fake_refuse(fail_number);
  } else if (!f) {
    fake_mistake();
    result = fake_refuse(EBADF);
  } else if (request == KVM_RUN && f->kind == FAKE_FILE_VCPU) {
    run = true;
    result = 0;
  } else {
    result = dispatch(f, request, argument);
  }
  pthread_mutex_unlock(&fake_lock);
  return run ? run_vcpu(f) : result;
}

static void *map_run(size_t size, int fd) {
  fake_file *f = file_at(fd);
  if (chosen()) {
    errno = fail_number;
    return MAP_FAILED;
  }
  if (!f || f->kind != FAKE_FILE_VCPU || f->mapped || size != FAKE_RUN_SIZE) {
    fake_mistake();
    errno = EINVAL;
    return MAP_FAILED;
  }
  f->mapped = true;
  return f->run;
}

static void *fake_map(size_t size, int fd, off_t offset) {
  pthread_mutex_lock(&fake_lock);
  void *run = map_run(offset == 0 ? size : 0, fd);
  pthread_mutex_unlock(&fake_lock);
  return run;
}

static int unmap_run(const void *address, size_t size) {
  for (size_t i = 0; i < FILES; i++) {
    if (files[i] && files[i]->mapped && files[i]->run == address && size == FAKE_RUN_SIZE) {
      files[i]->mapped = false;
      return 0;
    }
  }
  fake_mistake();
  return fake_refuse(EINVAL);
}

static int fake_unmap(void *address, size_t size) {
  pthread_mutex_lock(&fake_lock);
  int result = unmap_run(address, size);
  pthread_mutex_unlock(&fake_lock);
  return result;
}

/* Closing a vCPU whose run page is mapped loses the page: a mistake here, though not for KVM. */
static int fake_close(int fd) {
  pthread_mutex_lock(&fake_lock);
  fake_file *f = file_at(fd);
  int result = 0;
  if (f) {
    mistakes += f->mapped;
    files[fd - FIRST_FD] = NULL;
    file_free(f);
  } else {
    fake_mistake();
    result = fake_refuse(EBADF);
  }
  pthread_mutex_unlock(&fake_lock);
  return result;
}

static const luna_kvm_table table = {fake_open_path, fake_ioctl, fake_map, fake_unmap, fake_close};

/* ---- For the tests ---- */

fake_config fake_defaults(void) {
  return (fake_config){
      .api_version = KVM_API_VERSION,
      .slots_max = 509,
      .vcpus_max = 64,
      .sync_regs = KVM_SYNC_X86_VALID_FIELDS,
      .immediate_exit = 1,
      .address_bits = 40,
      .coalesced_page = 2,
      .coalesced_pio = 1,
      .msr_exits = 1,
      .cpuid_entries = 40,
      .exit_hypercall = 1u << 12,
      .stops = FAKE_STOP_HARDWARE | FAKE_STOP_WATCH | FAKE_STOP_INT3,
      .controllers = true,
      .pit = true,
      .bus_cycles = true,
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
  pthread_mutex_lock(&fake_lock);
  fake_host = wanted ? *wanted : fake_defaults();
  forget_files();
  mistakes = 0;
  fake_interrupt_install();
  last_path[0] = '\0';
  pthread_mutex_unlock(&fake_lock);
  fake_forget();
  fake_fail(0, 0);
  fake_script(NULL, 0);
  luna_kvm_replace(&table);
}

const luna_kvm_table *fake_table(void) {
  return &table;
}

void fake_remove(void) {
  fake_script(NULL, 0);
  luna_kvm_replace(NULL);
}

void fake_fail(uint64_t nth, int number) {
  pthread_mutex_lock(&fake_lock);
  fail_nth = nth;
  fail_number = number;
  fail_done = false;
  pthread_mutex_unlock(&fake_lock);
}

bool fake_failed(void) {
  pthread_mutex_lock(&fake_lock);
  bool done = fail_done;
  pthread_mutex_unlock(&fake_lock);
  return done;
}

uint64_t fake_calls(unsigned long request) {
  pthread_mutex_lock(&fake_lock);
  uint64_t sum = request == 0 || request == KVM_RUN ? atomic_load(&fake_endless_runs) : 0;
  for (size_t i = 0; i < counter_count; i++) {
    if (request == 0 || counters[i].request == request) {
      sum += counters[i].count;
    }
  }
  pthread_mutex_unlock(&fake_lock);
  return sum;
}

void fake_forget(void) {
  pthread_mutex_lock(&fake_lock);
  counter_count = 0;
  atomic_store(&fake_endless_runs, 0);
  pthread_mutex_unlock(&fake_lock);
}

int fake_last_fd(unsigned long request) {
  pthread_mutex_lock(&fake_lock);
  const counter *last = NULL;
  for (size_t i = 0; i < counter_count; i++) {
    if (counters[i].request == request && (!last || counters[i].serial > last->serial)) {
      last = &counters[i];
    }
  }
  int fd = last ? last->fd : -1;
  pthread_mutex_unlock(&fake_lock);
  return fd;
}

unsigned fake_open(void) {
  unsigned count = 0;
  pthread_mutex_lock(&fake_lock);
  for (size_t i = 0; i < FILES; i++) {
    count += files[i] ? 1u + files[i]->mapped : 0;
  }
  pthread_mutex_unlock(&fake_lock);
  return count;
}

unsigned fake_mistakes(void) {
  pthread_mutex_lock(&fake_lock);
  unsigned count = mistakes;
  pthread_mutex_unlock(&fake_lock);
  return count;
}

const char *fake_path(void) {
  return last_path;
}

fake_attributes fake_last_attributes(void) {
  pthread_mutex_lock(&fake_lock);
  const fake_file *vm = fake_file_youngest(FAKE_FILE_VM);
  fake_attributes attributes = vm ? vm->attributes : (fake_attributes){0};
  pthread_mutex_unlock(&fake_lock);
  return attributes;
}

uint64_t fake_hypercalls(void) {
  pthread_mutex_lock(&fake_lock);
  const fake_file *vm = fake_file_youngest(FAKE_FILE_VM);
  uint64_t hypercalls = vm ? vm->hypercalls : 0;
  pthread_mutex_unlock(&fake_lock);
  return hypercalls;
}

size_t fake_slots(struct kvm_userspace_memory_region *slots, size_t room) {
  size_t count = 0;
  pthread_mutex_lock(&fake_lock);
  const fake_file *vm = fake_file_youngest(FAKE_FILE_VM);
  for (uint32_t i = 0; vm && i < vm->slots_max; i++) {
    if (vm->slots[i].region.memory_size) {
      if (count < room) {
        slots[count] = vm->slots[i].region;
      }
      count++;
    }
  }
  pthread_mutex_unlock(&fake_lock);
  return count;
}

static fake_file *youngest_vcpu(void) {
  pthread_mutex_lock(&fake_lock);
  fake_file *vcpu = fake_file_youngest(FAKE_FILE_VCPU);
  pthread_mutex_unlock(&fake_lock);
  return vcpu;
}

void fake_halted(uint64_t poll_success, uint64_t poll_fail, uint64_t wait) {
  fake_file *vcpu = youngest_vcpu();
  if (vcpu) {
    vcpu->halted[0] = poll_success;
    vcpu->halted[1] = poll_fail;
    vcpu->halted[2] = wait;
    fake_stats_update(vcpu);
  }
}

struct kvm_regs *fake_regs(void) {
  fake_file *vcpu = youngest_vcpu();
  return vcpu ? &vcpu->regs : NULL;
}

struct kvm_sregs *fake_sregs(void) {
  fake_file *vcpu = youngest_vcpu();
  return vcpu ? &vcpu->sregs : NULL;
}

struct kvm_run *fake_run_page(void) {
  const fake_file *vcpu = youngest_vcpu();
  return vcpu ? vcpu->run : NULL;
}
