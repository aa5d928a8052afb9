/* SPDX-License-Identifier: MIT
 * Two vCPUs at once on threads of their own. `threads strict` prints samples of the exits per
 * second that the library reaches, as a ratio to two threads of a raw loop that does the same:
 * accesses to memory without a slot, which the core answers from the buffer, and now and then an
 * OUT, which the thread hands to the main one and waits until that lets it go on. `threads free
 * COMMAND...` runs the command on all CPUs, where raw.c has bound its child to one. */
#include "common.h"
#include "lunavisor.h"

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <sys/mman.h>

enum {
  VCPUS = 2,
  CODE = 0x1000,
  MEMORY = 0x8000, /* with a slot; strict memory of the same size is above it */
  ROUND = 4,       /* OUTs of each vCPU */
  ROUNDS = 16,
  CODE_SIZE = 16
};

/* mov cx, 500; again: mov [bx], ax; loop again; out 0x10, al; jmp to the start */
static const uint8_t code[CODE_SIZE] = {0xb9, 0xf4, 0x01, 0x89, 0x07, 0xe2,
                                        0xfc, 0xe6, 0x10, 0xeb, 0xf5};

static uint64_t data_of(unsigned vcpu) {
  return MEMORY + 0x1000 * (vcpu + 1);
}

static void use_all_cpus(void) {
  cpu_set_t set;
  memset(&set, 0xff, sizeof set);
  check(sched_setaffinity(0, sizeof set, &set), "sched_setaffinity");
}

/* ---- The raw loop ---- */

typedef struct raw_vcpu {
  pthread_t thread;
  int fd;
  struct kvm_run *run;
  bool waits; /* at an OUT */
  bool ends;
  pthread_cond_t turn;
} raw_vcpu;

static raw_vcpu raw[VCPUS];
static pthread_mutex_t raw_lock = PTHREAD_MUTEX_INITIALIZER; /* of what is about OUTs */
static pthread_cond_t raw_came = PTHREAD_COND_INITIALIZER;
static uint8_t *strict_memory;

static uint8_t *raw_memory(void) {
  uint8_t *memory =
      mmap(NULL, 2 * MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    die("mmap");
  }
  return memory;
}

static void raw_registers(int fd, unsigned number) {
  struct kvm_sregs sregs;
  struct kvm_regs regs = {.rip = CODE, .rflags = 2, .rbx = data_of(number)};
  check(ioctl(fd, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
  sregs.cs.base = sregs.cs.selector = 0;
  check(ioctl(fd, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
  check(ioctl(fd, KVM_SET_REGS, &regs), "KVM_SET_REGS");
}

static void make_raw(void) {
  int vm = make_vm();
  uint8_t *memory = raw_memory();
  strict_memory = memory + MEMORY;
  memcpy(memory + CODE, code, sizeof code);
  set_slot(vm, 0, 0, MEMORY, memory, 0);
  int kvm = check(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
  size_t size = (size_t)check(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
  close(kvm);
  for (unsigned i = 0; i < VCPUS; i++) {
    raw[i].fd = check(ioctl(vm, KVM_CREATE_VCPU, i), "KVM_CREATE_VCPU");
    raw[i].run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, raw[i].fd, 0);
    if (raw[i].run == MAP_FAILED) {
      die("mmap of the run page");
    }
    pthread_cond_init(&raw[i].turn, NULL);
    raw_registers(raw[i].fd, i);
  }
}

/* Until the main thread has dealt with it; whether to go on. */
static bool hand_over(raw_vcpu *vcpu) {
  pthread_mutex_lock(&raw_lock);
  vcpu->waits = true;
  pthread_cond_signal(&raw_came);
  while (vcpu->waits) {
    pthread_cond_wait(&vcpu->turn, &raw_lock);
  }
  bool ends = vcpu->ends;
  pthread_mutex_unlock(&raw_lock);
  return !ends;
}

static void *run_raw(void *argument) {
  raw_vcpu *vcpu = argument;
  struct kvm_run *run = vcpu->run;
  for (bool more = true; more;) {
    if (ioctl(vcpu->fd, KVM_RUN, 0) != 0) {
      if (errno != EINTR && errno != EAGAIN) {
        die("KVM_RUN");
      }
    } else if (run->exit_reason == KVM_EXIT_IO) {
      more = hand_over(vcpu);
    } else if (run->exit_reason == KVM_EXIT_MMIO && run->mmio.phys_addr - MEMORY < MEMORY) {
      memcpy(strict_memory + (run->mmio.phys_addr - MEMORY), run->mmio.data, run->mmio.len);
    } else {
      die("an exit that nobody expects");
    }
  }
  return NULL;
}

static raw_vcpu *raw_next(void) {
  for (;;) {
    for (unsigned i = 0; i < VCPUS; i++) {
      if (raw[i].waits) {
        return &raw[i];
      }
    }
    pthread_cond_wait(&raw_came, &raw_lock);
  }
}

static void raw_round(void *context) {
  unsigned left[VCPUS] = {ROUND, ROUND};
  (void)context;
  for (unsigned i = 0; i < VCPUS; i++) {
    pthread_create(&raw[i].thread, NULL, run_raw, &raw[i]);
  }
  pthread_mutex_lock(&raw_lock);
  while (left[0] || left[1]) {
    raw_vcpu *from = raw_next();
    from->ends = --left[from - raw] == 0;
    from->waits = false;
    pthread_cond_signal(&from->turn);
  }
  pthread_mutex_unlock(&raw_lock);
  for (unsigned i = 0; i < VCPUS; i++) {
    pthread_join(raw[i].thread, NULL);
  }
}

/* ---- The library ---- */

static luna_vm *vm;
static luna_vcpu *vcpus[VCPUS];

static void luna(int status) {
  if (status < 0) {
    fprintf(stderr, "threads: %s\n", luna_error_message());
    exit(2);
  }
}

static void make_luna(void) {
  luna_buffer *buffer;
  luna_vcpu_options options = {.mode = LUNA_MODE_REAL, .rip = CODE};
  const uint32_t rights = LUNA_READ | LUNA_WRITE | LUNA_EXECUTE;
  luna(luna_vm_create(&vm));
  luna(luna_buffer_create((uint64_t)2 * MEMORY, &buffer));
  memcpy((uint8_t *)luna_buffer_data(buffer) + CODE, code, sizeof code);
  luna(luna_vm_map_space(vm, 0, buffer, 0, 0, MEMORY, rights));
  luna(luna_vm_map_space(vm, 0, buffer, MEMORY, MEMORY, MEMORY,
                         LUNA_READ | LUNA_WRITE | LUNA_MAP_STRICT));
  for (unsigned i = 0; i < VCPUS; i++) {
    luna(luna_vcpu_create(vm, &options, &vcpus[i]));
    luna(luna_vcpu_set(vcpus[i], LUNA_RBX, data_of(i)));
  }
}

static void luna_round(void *context) {
  unsigned left[VCPUS] = {ROUND, ROUND};
  (void)context;
  for (unsigned i = 0; i < VCPUS; i++) {
    luna(luna_vcpu_start(vcpus[i]));
  }
  while (left[0] || left[1]) {
    luna_vcpu *from;
    int kind = luna_vm_next(vm, LUNA_FOREVER, &from);
    luna(kind);
    if (kind != LUNA_EXIT_PIO) {
      continue;
    }
    luna(luna_vcpu_answer(from, 0));
    luna(--left[luna_vcpu_id(from)] ? luna_vcpu_go(from) : luna_vcpu_stop(from));
  }
}

static void print_strict(void) {
  use_all_cpus();
  make_raw();
  make_luna();
  print_ratios_by(wall, raw_round, luna_round, NULL, ROUNDS);
}

int main(int argc, char **argv) {
  if (argc == 2 && strcmp(argv[1], "strict") == 0) {
    print_strict();
    return 0;
  }
  if (argc > 2 && strcmp(argv[1], "free") == 0) {
    use_all_cpus();
    execvp(argv[2], argv + 2);
    die(argv[2]);
  }
  fprintf(stderr, "usage: threads strict | threads free COMMAND...\n");
  return 2;
}
