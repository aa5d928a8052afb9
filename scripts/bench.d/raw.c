/* SPDX-License-Identifier: MIT
 * The program to compare with: the same guests as the Lua side, over raw ioctls. `raw COMMAND...`
 * runs the command on the same CPU, connected by its stdin and stdout, and answers its lines
 *   guest SIZE HEX    a new VM with SIZE bytes of memory and the code at 0x1000, in real mode
 *   run N, regs N     N exits of it; regs also reads and writes a register at each, with two ioctls
 *   blocks N          N elements of its string I/O, those of an exit at once
 *   state N           N times an exit, the vCPU's state read, an exit, the state written
 *   life N            makes the VM, runs it to its first exit and closes it, N times
 *   base N            N times the tests' fake KVM_RUN, on which the library's own cost is measured
 *   yard N            N steps of work that is always the same
 *   copy N            N times memcpy of 64 KiB from a block of malloc's into page-aligned memory
 *   string N          N times malloc of 64 KiB and memcpy from page-aligned memory, free later
 * with the nanoseconds that it took. All other lines go on to its own stdout. */
#include "fake/fake.h"
#include "common.h"
#include "kvm/kvm.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>

enum {
  CODE = 0x1000,
  DEVICE = 0x8000, /* memory ends below it */
  PORT = 0x10,
  PORTS = 0x10000,
  HUGE_PAGE = 2 << 20,
  CPUID_ENTRIES = 256,
  COPY_SIZE = 64 << 10,
  COPY_BLOCKS = 8,
  MSRS_MOST = 512,
  LINE = 4096
};

typedef struct device {
  uint64_t (*read)(uint64_t offset, uint32_t size);
  void (*write)(uint64_t offset, uint32_t size, uint64_t value);
} device;

typedef struct machine {
  int vm;
  int vcpu;
  struct kvm_run *run;
  uint8_t *memory;
} machine;

/* What every guest begins with. */
static struct {
  uint8_t code[LINE / 2];
  size_t code_size;
  size_t memory_size;
  size_t run_size;
  struct kvm_cpuid2 *cpuid;
} host;

static device ports[PORTS];
static device memory_device;
static uint64_t left;  /* exits until the round ends */
static bool as_blocks; /* string I/O */
static volatile uint64_t sink;

static uint64_t count_read(uint64_t offset, uint32_t size) {
  (void)size;
  left--;
  return offset;
}

static void count_write(uint64_t offset, uint32_t size, uint64_t value) {
  (void)offset, (void)size;
  sink = value;
  left--;
}

static uint64_t no_read(uint64_t offset, uint32_t size) {
  (void)offset, (void)size;
  return UINT64_MAX;
}

static void no_write(uint64_t offset, uint32_t size, uint64_t value) {
  (void)offset, (void)size, (void)value;
}

/* ---- Making a machine: the same calls as the library ---- */

static void learn_host(void) {
  int kvm = check(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
  host.run_size = (size_t)check(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
  host.cpuid = calloc(1, sizeof *host.cpuid + CPUID_ENTRIES * sizeof(struct kvm_cpuid_entry2));
  if (!host.cpuid) {
    die("calloc");
  }
  host.cpuid->nent = CPUID_ENTRIES;
  check(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, host.cpuid), "KVM_GET_SUPPORTED_CPUID");
  unsigned sync = (unsigned)ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_SYNC_REGS);
  if (!(sync & KVM_SYNC_X86_REGS) || !(sync & KVM_SYNC_X86_SREGS)) {
    fprintf(stderr, "raw: this KVM has no KVM_CAP_SYNC_REGS\n");
    exit(2);
  }
  close(kvm);
}

static uint8_t *map_memory(size_t size) {
  size_t slack = size >= HUGE_PAGE ? HUGE_PAGE : 0;
  uint8_t *base = mmap(NULL, size + slack, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    die("mmap");
  }
  if (slack == 0) {
    return base;
  }
  size_t before = -(uintptr_t)base & (HUGE_PAGE - 1);
  if (before > 0) {
    munmap(base, before);
  }
  if (slack > before) {
    munmap(base + before + size, slack - before);
  }
  madvise(base + before, size, MADV_HUGEPAGE);
  return base + before;
}

static void set_state(struct kvm_run *run, struct kvm_sregs *sregs, struct kvm_regs *regs) {
  struct kvm_segment segment = {.limit = 0xffff, .type = 3, .present = 1, .s = 1};
  sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = segment;
  segment.type = 11;
  sregs->cs = segment;
  regs->rip = CODE;
  regs->rflags = 2;
  run->s.regs.sregs = *sregs;
  run->s.regs.regs = *regs;
  run->kvm_dirty_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
}

static void make_vcpu(machine *m) {
  struct kvm_sregs sregs;
  struct kvm_regs regs;
  m->vcpu = check(ioctl(m->vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
  m->run = mmap(NULL, host.run_size, PROT_READ | PROT_WRITE, MAP_SHARED, m->vcpu, 0);
  if (m->run == MAP_FAILED) {
    die("mmap of the run page");
  }
  check(ioctl(m->vcpu, KVM_SET_CPUID2, host.cpuid), "KVM_SET_CPUID2");
  check(ioctl(m->vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
  check(ioctl(m->vcpu, KVM_GET_REGS, &regs), "KVM_GET_REGS");
  set_state(m->run, &sregs, &regs);
}

static machine make(void) {
  machine m = {.vm = make_vm(), .memory = map_memory(host.memory_size)};
  set_slot(m.vm, 0, 0, host.memory_size, m.memory, 0);
  memcpy(m.memory + CODE, host.code, host.code_size);
  make_vcpu(&m);
  return m;
}

static void unmake(machine *m) {
  if (m->run) {
    munmap(m->run, host.run_size);
    close(m->vcpu);
    close(m->vm);
    munmap(m->memory, host.memory_size);
  }
}

/* ---- Running it ---- */

static void serve_block(const struct kvm_run *run, uint8_t *data) {
  size_t size = (size_t)run->io.size * run->io.count;
  if (run->io.direction == KVM_EXIT_IO_OUT) {
    sink = data[size - 1];
  } else {
    memset(data, 0x78, size);
  }
  left -= run->io.count < left ? run->io.count : left;
}

static void serve_io(struct kvm_run *run) {
  const device *d = &ports[run->io.port];
  uint8_t *data = (uint8_t *)run + run->io.data_offset;
  if (as_blocks) {
    serve_block(run, data);
    return;
  }
  for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
    uint64_t value = 0;
    if (run->io.direction == KVM_EXIT_IO_OUT) {
      memcpy(&value, data, run->io.size);
      d->write(0, run->io.size, value);
    } else {
      value = d->read(0, run->io.size);
      memcpy(data, &value, run->io.size);
    }
  }
}

static void serve_mmio(struct kvm_run *run) {
  if (run->mmio.phys_addr - DEVICE >= PORTS - DEVICE) {
    die("an access outside the device");
  }
  uint64_t value = 0;
  uint64_t offset = run->mmio.phys_addr - DEVICE;
  if (run->mmio.is_write) {
    memcpy(&value, run->mmio.data, sizeof value);
    memory_device.write(offset, run->mmio.len, value);
  } else {
    value = memory_device.read(offset, run->mmio.len);
    memcpy(run->mmio.data, &value, sizeof value);
  }
}

static void add_to_register(const machine *m) {
  struct kvm_regs regs;
  check(ioctl(m->vcpu, KVM_GET_REGS, &regs), "KVM_GET_REGS");
  regs.rcx++;
  check(ioctl(m->vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
}

static void run_exits(const machine *m, uint64_t exits, bool registers) {
  left = exits;
  while (left > 0) {
    if (ioctl(m->vcpu, KVM_RUN, 0) != 0) {
      if (errno != EINTR && errno != EAGAIN) {
        die("KVM_RUN");
      }
      continue;
    }
    switch (m->run->exit_reason) {
      case KVM_EXIT_IO:
        serve_io(m->run);
        break;
      case KVM_EXIT_MMIO:
        serve_mmio(m->run);
        break;
      default:
        die("an exit that no handler takes");
    }
    if (registers) {
      add_to_register(m);
    }
  }
}

/* The whole state, in the order in which it is written. */
static struct {
  struct kvm_regs regs;
  struct kvm_sregs sregs;
  struct kvm_xcrs xcrs;
  uint8_t xsave[sizeof(struct kvm_xsave)];
  struct kvm_debugregs debugregs;
  struct { /* struct kvm_msrs */
    uint32_t count;
    uint32_t pad;
    struct kvm_msr_entry entries[MSRS_MOST];
  } msrs;
  struct kvm_vcpu_events events;
  struct kvm_clock_data clock;
} state;

/* Those that KVM lists and this vCPU has. */
static void learn_msrs(const machine *m) {
  struct { /* struct kvm_msr_list */
    uint32_t count;
    uint32_t indices[MSRS_MOST];
  } all = {.count = MSRS_MOST};
  int kvm = check(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
  check(ioctl(kvm, KVM_GET_MSR_INDEX_LIST, &all), "KVM_GET_MSR_INDEX_LIST");
  close(kvm);
  state.msrs.count = 0;
  for (uint32_t i = 0; i < all.count; i++) {
    struct { /* struct kvm_msrs */
      uint32_t count;
      uint32_t pad;
      struct kvm_msr_entry entry;
    } one = {.count = 1, .entry.index = all.indices[i]};
    if (ioctl(m->vcpu, KVM_GET_MSRS, &one) == 1 && ioctl(m->vcpu, KVM_SET_MSRS, &one) == 1) {
      state.msrs.entries[state.msrs.count++] = one.entry;
    }
  }
}

static void read_state(const machine *m) {
  check(ioctl(m->vcpu, KVM_GET_REGS, &state.regs), "KVM_GET_REGS");
  check(ioctl(m->vcpu, KVM_GET_SREGS, &state.sregs), "KVM_GET_SREGS");
  check(ioctl(m->vcpu, KVM_GET_XCRS, &state.xcrs), "KVM_GET_XCRS");
  check(ioctl(m->vcpu, KVM_GET_XSAVE, &state.xsave), "KVM_GET_XSAVE");
  check(ioctl(m->vcpu, KVM_GET_DEBUGREGS, &state.debugregs), "KVM_GET_DEBUGREGS");
  check(ioctl(m->vcpu, KVM_GET_MSRS, &state.msrs), "KVM_GET_MSRS");
  check(ioctl(m->vcpu, KVM_GET_VCPU_EVENTS, &state.events), "KVM_GET_VCPU_EVENTS");
  check(ioctl(m->vm, KVM_GET_CLOCK, &state.clock), "KVM_GET_CLOCK");
}

static void write_state(const machine *m) {
  check(ioctl(m->vcpu, KVM_SET_REGS, &state.regs), "KVM_SET_REGS");
  check(ioctl(m->vcpu, KVM_SET_SREGS, &state.sregs), "KVM_SET_SREGS");
  check(ioctl(m->vcpu, KVM_SET_XCRS, &state.xcrs), "KVM_SET_XCRS");
  check(ioctl(m->vcpu, KVM_SET_XSAVE, &state.xsave), "KVM_SET_XSAVE");
  check(ioctl(m->vcpu, KVM_SET_DEBUGREGS, &state.debugregs), "KVM_SET_DEBUGREGS");
  check(ioctl(m->vcpu, KVM_SET_MSRS, &state.msrs), "KVM_SET_MSRS");
  check(ioctl(m->vcpu, KVM_SET_VCPU_EVENTS, &state.events), "KVM_SET_VCPU_EVENTS");
  state.clock.flags = 0; /* the value alone: KVM's flags are for reading */
  check(ioctl(m->vm, KVM_SET_CLOCK, &state.clock), "KVM_SET_CLOCK");
}

static void run_states(const machine *m, uint64_t count) {
  if (state.msrs.count == 0) {
    learn_msrs(m);
  }
  while (count-- > 0) {
    run_exits(m, 1, false);
    read_state(m);
    run_exits(m, 1, false);
    write_state(m);
  }
}

static void run_lives(uint64_t count) {
  while (count-- > 0) {
    machine m = make();
    run_exits(&m, 1, false);
    unmake(&m);
  }
}

/* ---- Lines of the command ---- */

typedef struct verb {
  const char *name;
  void (*act)(machine *m, uint64_t number, const char *rest);
} verb;

static void act_guest(machine *m, uint64_t number, const char *rest) {
  unsigned byte;
  unmake(m);
  host.memory_size = number;
  host.code_size = 0;
  while (sscanf(rest, " %2x", &byte) == 1 && host.code_size < sizeof host.code) {
    host.code[host.code_size++] = (uint8_t)byte;
    rest += strspn(rest, " ") + 2;
  }
  *m = make();
}

static void act_run(machine *m, uint64_t number, const char *rest) {
  (void)rest;
  run_exits(m, number, false);
}

static void act_regs(machine *m, uint64_t number, const char *rest) {
  (void)rest;
  run_exits(m, number, true);
}

static void act_blocks(machine *m, uint64_t number, const char *rest) {
  (void)rest;
  as_blocks = true;
  run_exits(m, number, false);
  as_blocks = false;
}

static void act_state(machine *m, uint64_t number, const char *rest) {
  (void)rest;
  run_states(m, number);
}

static void act_life(machine *m, uint64_t number, const char *rest) {
  (void)m, (void)rest;
  run_lives(number);
}

/* With the registers in the run page, as the library runs it. */
static void act_base(machine *m, uint64_t number, const char *rest) {
  static luna_fd vcpu = {.number = -1};
  (void)m, (void)rest;
  if (vcpu.number < 0) {
    fake_install(NULL);
    vcpu = luna_kvm_create_vcpu(luna_kvm_create_vm(luna_kvm_open(LUNA_ACCEL_KVM)), 0);
    fake_run_page()->kvm_valid_regs = KVM_SYNC_X86_REGS;
    fake_endless_pio(PORT, 1, false);
  }
  while (number-- > 0) {
    luna_kvm_run(vcpu);
  }
}

static void act_yard(machine *m, uint64_t number, const char *rest) {
  (void)m, (void)rest;
  yard_steps(number);
}

static uint8_t *copy_memory(void) {
  static uint8_t *memory;
  if (!memory) {
    memory = map_memory(COPY_SIZE);
    memset(memory, 0x5a, COPY_SIZE);
  }
  return memory;
}

static void act_copy(machine *m, uint64_t number, const char *rest) {
  static uint8_t *block;
  (void)m, (void)rest;
  if (!block) {
    block = malloc(COPY_SIZE);
    memset(block, 0x5a, COPY_SIZE);
  }
  uint8_t *memory = copy_memory();
  while (number-- > 0) {
    memcpy(memory, block, COPY_SIZE);
    __asm__ volatile("" ::: "memory");
  }
}

/* A few blocks stay alive, as strings do until they are collected. */
static void act_string(machine *m, uint64_t number, const char *rest) {
  static uint8_t *blocks[COPY_BLOCKS];
  (void)m, (void)rest;
  uint8_t *memory = copy_memory();
  for (; number > 0; number--) {
    uint8_t **block = &blocks[number % COPY_BLOCKS];
    free(*block);
    *block = malloc(COPY_SIZE);
    memcpy(*block, memory, COPY_SIZE);
    __asm__ volatile("" ::: "memory");
  }
}

static const verb verbs[] = {{"guest", act_guest},   {"run", act_run},     {"regs", act_regs},
                             {"blocks", act_blocks}, {"state", act_state}, {"life", act_life},
                             {"base", act_base},     {"copy", act_copy},   {"string", act_string},
                             {"yard", act_yard}};

static const verb *find_verb(const char *line, size_t length) {
  for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
    if (strlen(verbs[i].name) == length && strncmp(verbs[i].name, line, length) == 0) {
      return &verbs[i];
    }
  }
  return NULL;
}

static void converse(FILE *from, FILE *to) {
  char line[LINE];
  char *rest;
  machine m = {0};
  while (fgets(line, sizeof line, from)) {
    size_t length = strcspn(line, " \n");
    const verb *v = find_verb(line, length);
    if (!v) {
      fputs(line, stdout);
      fflush(stdout);
      continue;
    }
    uint64_t number = strtoul(line + length, &rest, 0);
    uint64_t begin = now();
    v->act(&m, number, rest);
    fprintf(to, "%llu\n", (unsigned long long)(now() - begin));
    fflush(to);
  }
  unmake(&m);
}

static void stay_on_this_cpu(void) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET((size_t)check(sched_getcpu(), "sched_getcpu"), &set);
  check(sched_setaffinity(0, sizeof set, &set), "sched_setaffinity");
}

static void set_devices(void) {
  for (int port = 0; port < PORTS; port++) {
    ports[port] = (device){no_read, no_write};
  }
  ports[PORT] = memory_device = (device){count_read, count_write};
}

int main(int argc, char **argv) {
  int to_child[2], from_child[2], status;
  if (argc < 2) {
    fprintf(stderr, "usage: raw COMMAND...\n");
    return 2;
  }
  set_devices();
  learn_host();
  stay_on_this_cpu();
  check(pipe2(to_child, O_CLOEXEC), "pipe");
  check(pipe2(from_child, O_CLOEXEC), "pipe");
  pid_t child = check(fork(), "fork");
  if (child == 0) {
    dup2(to_child[0], 0);
    dup2(from_child[1], 1);
    execvp(argv[1], argv + 1);
    die(argv[1]);
  }
  close(to_child[0]);
  close(from_child[1]);
  converse(fdopen(from_child[0], "r"), fdopen(to_child[1], "w"));
  check(waitpid(child, &status, 0), "waitpid");
  return WIFEXITED(status) ? WEXITSTATUS(status) : 2;
}
