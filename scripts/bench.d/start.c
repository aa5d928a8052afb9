/* SPDX-License-Identifier: MIT
 * From the start of a program to its first output, by the clock on the wall: `start FIGURE LUNA
 * LUA`, of the program luna with the Lua that it is to run on, against others that do the same. The
 * image is a multiboot kernel that writes to the serial port.
 *   loader            luna boot's microvm on KVM, to a loader of raw ioctls: their ratio
 *   loader-first      the same, to one that gives KVM the memory before the controllers
 *   emulator-kvm, -tcg   QEMU's PC to luna boot's, on KVM and on the translators of both
 *   script            a script that prints, by luna and by Lua alone: milliseconds between them
 *   least             what luna boot takes of each machine and accelerator, in milliseconds */
#include "common.h"

#include <fcntl.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/wait.h>

enum {
  LOAD_AT = 0x100000,
  MEMORY = 128 << 20, /* as luna boot has */
  SERIAL = 0x3f8,
  SAMPLES = 3,
  LIMIT_SECONDS = 120
};
#define EMULATOR "qemu-system-x86_64"

/* The header says where it lies and begins; then x and a line feed go to the serial port, and 0 to
 * the port that ends the run. */
static const uint8_t image[] = {
    0x02, 0xb0, 0xad, 0x1b, 0x00, 0x00, 0x01, 0x00, 0xfe, 0x4f, 0x51, 0xe4, 0x00, 0x00,
    0x10, 0x00, 0x00, 0x00, 0x10, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x20, 0x00, 0x10, 0x00, 0xba, 0xf8, 0x03, 0x00, 0x00, 0xb0, 0x78, 0xee, 0xb0, 0x0a,
    0xee, 0x31, 0xc0, 0xba, 0xf4, 0x00, 0x00, 0x00, 0xef, 0xf4, 0xeb, 0xfd,
};

static const char *self, *luna, *lua;
static char kernel[] = "/tmp/luna-bench-XXXXXX", script[] = "/tmp/luna-bench-XXXXXX";

static void write_file(char *path, const void *bytes, size_t size) {
  int file = check(mkstemp(path), "mkstemp");
  if (write(file, bytes, size) != (ssize_t)size || close(file) != 0) {
    die(path);
  }
}

/* ---- The loader ---- */

static struct kvm_segment flat_segment(uint16_t selector, uint8_t type) {
  return (struct kvm_segment){.limit = UINT32_MAX,
                              .selector = selector,
                              .type = type,
                              .present = 1,
                              .db = 1,
                              .s = 1,
                              .g = 1};
}

static int enter(int vm, uint32_t entry) {
  union {
    struct kvm_cpuid2 head;
    uint8_t room[sizeof(struct kvm_cpuid2) + 128 * sizeof(struct kvm_cpuid_entry2)];
  } cpuid = {.head.nent = 128};
  struct kvm_sregs system;
  int kvm = check(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
  int vcpu = check(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
  check(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid), "KVM_GET_SUPPORTED_CPUID");
  check(ioctl(vcpu, KVM_SET_CPUID2, &cpuid), "KVM_SET_CPUID2");
  check(ioctl(vcpu, KVM_GET_SREGS, &system), "KVM_GET_SREGS");
  system.cr0 |= 1;
  system.cs = flat_segment(0x08, 11);
  system.ds = system.es = system.fs = system.gs = system.ss = flat_segment(0x10, 3);
  check(ioctl(vcpu, KVM_SET_SREGS, &system), "KVM_SET_SREGS");
  struct kvm_regs registers = {.rip = entry, .rflags = 2, .rax = 0x2badb002};
  check(ioctl(vcpu, KVM_SET_REGS, &registers), "KVM_SET_REGS");
  close(kvm);
  return vcpu;
}

static void make_controllers(int vm) {
  check(ioctl(vm, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
}

/* Runs a multiboot kernel until it writes to another port than the serial one. The controllers come
 * where most programs make them, behind the VM, and since Linux 6.18 the memory then waits for a
 * grace period, 6 ms at 250 Hz; or behind the memory. */
static int load(const char *path, bool memory_first) {
  uint32_t header[8];
  int file = check(open(path, O_RDONLY | O_CLOEXEC), path);
  int vm = make_vm();
  if (!memory_first) {
    make_controllers(vm);
  }
  uint8_t *memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED || read(file, memory + LOAD_AT, MEMORY - LOAD_AT) <= 0) {
    die(path);
  }
  memcpy(header, memory + LOAD_AT, sizeof header);
  set_slot(vm, 0, 0, MEMORY, memory, 0);
  if (memory_first) {
    make_controllers(vm);
  }
  int vcpu = enter(vm, header[7]);
  struct kvm_run *run = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
  if (run == MAP_FAILED) {
    die("kvm_run");
  }
  for (;;) {
    check(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
    if (run->exit_reason != KVM_EXIT_IO || run->io.port != SERIAL) {
      return 0;
    }
    if (write(STDOUT_FILENO, (uint8_t *)run + run->io.data_offset, 1) != 1) {
      die("write");
    }
  }
}

/* ---- Programs ---- */

/* What is installed needs none of what makes a checkout usable. */
static void leave_checkout(void) {
  static const char *const names[] = {"LUA_PATH", "LUA_CPATH", "LD_LIBRARY_PATH",
                                      "LUNAVISOR_LIBRARY"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    unsetenv(names[i]);
  }
}

static void run_program(const char *const *arguments) {
  leave_checkout();
  setenv("LUNA_LUA", lua, 1);
  if (strcmp(arguments[0], EMULATOR) == 0) {
    quiet_errors();
  }
  alarm(LIMIT_SECONDS);
  execvp(arguments[0], (char *const *)(uintptr_t)arguments);
  die(arguments[0]);
}

/* Milliseconds to its first output. */
static double time_program(const char *const *arguments) {
  int ends[2], status;
  char byte;
  check(pipe(ends), "pipe");
  uint64_t begin = wall();
  pid_t child = check(fork(), "fork");
  if (child == 0) {
    dup2(ends[1], STDOUT_FILENO);
    close(ends[0]);
    close(ends[1]);
    run_program(arguments);
  }
  close(ends[1]);
  if (read(ends[0], &byte, 1) != 1) {
    errno = ENODATA;
    die(arguments[0]);
  }
  double time = (double)(wall() - begin) / 1e6;
  while (read(ends[0], &byte, 1) > 0) {
  }
  close(ends[0]);
  check(waitpid(child, &status, 0), "waitpid");
  return time;
}

/* The least times of two programs that take turns so often. */
static void time_both(const char *const *one, const char *const *other, int turns, double *least) {
  for (int i = 0; i < turns; i++) {
    double times[] = {time_program(one), time_program(other)};
    for (int k = 0; k < 2; k++) {
      if (i == 0 || times[k] < least[k]) {
        least[k] = times[k];
      }
    }
  }
}

#define BOOT(machine, accelerator)                                                                 \
  ((const char *const[]){luna, "boot", kernel, "--machine", machine, "--accel", accelerator, NULL})
#define EMULATE(accelerator)                                                                       \
  ((const char *const[]){EMULATOR, "-accel", accelerator, "-M", "pc", "-m", "128", "-nodefaults",  \
                         "-display", "none", "-no-reboot", "-serial", "stdio", "-device",          \
                         "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel", kernel, NULL})

static void print_loader(const char *verb) {
  double least[2] = {0};
  time_both(BOOT("microvm", "kvm"), (const char *const[]){self, verb, kernel, NULL}, GROUP, least);
  printf("%.6g\n", least[0] / least[1]);
}

static void print_emulator(const char *theirs, const char *ours, int turns) {
  double least[2] = {0};
  const char *const *boot = strcmp(ours, "kvm") == 0 ? BOOT("pc", "kvm") : BOOT("pc", "soft");
  const char *const *emulator = strcmp(theirs, "kvm") == 0 ? EMULATE("kvm") : EMULATE("tcg");
  time_both(boot, emulator, turns, least);
  printf("%.6g\n", least[1] / least[0]);
}

static void print_script(void) {
  double least[2] = {0};
  time_both((const char *const[]){luna, "run", script, NULL},
            (const char *const[]){lua, script, NULL}, GROUP, least);
  printf("%.6g\n", least[0] - least[1]);
}

static void print_least(void) {
  double least[2] = {0};
  time_both(BOOT("microvm", "kvm"), BOOT("microvm", "soft"), GROUP, least);
  printf("microvm kvm %.6g soft %.6g\n", least[0], least[1]);
  time_both(BOOT("pc", "kvm"), BOOT("pc", "soft"), GROUP, least);
  printf("pc kvm %.6g soft %.6g\n", least[0], least[1]);
}

static void print(const char *name) {
  if (strcmp(name, "loader") == 0) {
    print_loader("load");
  } else if (strcmp(name, "loader-first") == 0) {
    print_loader("load-first");
  } else if (strcmp(name, "emulator-kvm") == 0) {
    print_emulator("kvm", "kvm", 2); /* it takes seconds */
  } else if (strcmp(name, "emulator-tcg") == 0) {
    print_emulator("tcg", "soft", GROUP);
  } else if (strcmp(name, "script") == 0) {
    print_script();
  } else {
    errno = EINVAL;
    die(name);
  }
}

int main(int argc, char **argv) {
  static const char text[] = "print 'x'\n";
  if (argc == 3 && strncmp(argv[1], "load", 4) == 0) {
    return load(argv[2], strcmp(argv[1], "load-first") == 0);
  }
  if (argc != 4) {
    fprintf(stderr, "usage: %s FIGURE LUNA LUA\n", argv[0]);
    return 2;
  }
  self = argv[0];
  luna = argv[2];
  lua = argv[3];
  write_file(kernel, image, sizeof image);
  write_file(script, text, sizeof text - 1);
  if (strcmp(argv[1], "least") == 0) {
    print_least();
  } else {
    for (int i = 0; i < SAMPLES; i++) {
      print(argv[1]);
      fflush(stdout);
    }
  }
  unlink(kernel);
  unlink(script);
  return 0;
}
