/* SPDX-License-Identifier: MIT
 * The descriptors and the table of calls. A descriptor is an eventfd of the process, so that it
 * counts, closes at exec and is told apart like any other; what it means here is in a table. */
#include "soft/kernel/kernel.h"
#include "soft/soft.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
  FILES = 1 << 16
};

typedef struct soft_file {
  soft_file_kind kind;
  unsigned process; /* forks that came before it */
  soft_vm *vm;
  soft_cpu *cpu;
} soft_file;

static _Atomic(soft_file *) files[FILES];
static unsigned process; /* changes in a child */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void on_fork(void) {
  process++;
}

static void watch_fork(void) {
  pthread_atfork(NULL, NULL, on_fork);
}

int soft_refuse(int number) {
  errno = number;
  return -1;
}

int soft_file_new(soft_file_kind kind, soft_vm *vm, soft_cpu *cpu) {
  pthread_once(&once, watch_fork);
  soft_file *file = malloc(sizeof *file);
  if (!file) {
    return soft_refuse(ENOMEM);
  }
  *file = (soft_file){kind, process, vm, cpu};
  int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd >= FILES) {
    close(fd);
    errno = EMFILE;
    fd = -1;
  }
  if (fd < 0) {
    free(file);
    return -1;
  }
  if (cpu) {
    cpu->fd = fd;
  }
  atomic_store(&files[fd], file);
  return fd;
}

static soft_file *file_of(int fd) {
  return fd >= 0 && fd < FILES ? atomic_load_explicit(&files[fd], memory_order_acquire) : NULL;
}

static int soft_open(const char *path) {
  (void)path; /* there is no device */
  return soft_file_new(SOFT_FILE_DEVICE, NULL, NULL);
}

/* A child has its parent's memory, but not its machines: as with KVM. */
static int soft_ioctl(int fd, unsigned long request, void *argument) {
  const soft_file *file = file_of(fd);
  if (!file) {
    return soft_refuse(EBADF);
  }
  if (file->kind == SOFT_FILE_DEVICE) {
    return soft_device_ioctl(request, argument);
  }
  if (file->process != process) {
    return soft_refuse(EIO);
  }
  return file->kind == SOFT_FILE_VCPU ? soft_vcpu_ioctl(file->cpu, request, argument)
                                      : soft_vm_ioctl(file->vm, request, argument);
}

static void *soft_map_pages(size_t size, int fd, off_t offset) {
  const soft_file *file = file_of(fd);
  if (!file || file->kind != SOFT_FILE_VCPU) {
    errno = file ? EINVAL : EBADF;
    return MAP_FAILED;
  }
  return soft_vcpu_map(file->cpu, size, offset);
}

static int soft_close(int fd) {
  soft_file *file = file_of(fd);
  if (file) {
    atomic_store(&files[fd], NULL);
    if (file->vm && file->process == process) {
      soft_vm_release(file->vm);
    }
    free(file);
  }
  return close(fd);
}

const luna_kvm_table luna_soft_table = {soft_open, soft_ioctl, soft_map_pages, munmap, soft_close};
