/* SPDX-License-Identifier: MIT
 * A vCPU's statistics (api.rst, KVM_GET_STATS_FD): how often it left, and how long it was halted
 * inside KVM_RUN. The descriptor is a memfd, whose memory the vCPU's thread writes. */
#include "soft/kernel/kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
  NAME_SIZE = 48,
  STATISTICS = 4
};

/* A descriptor with its name, which in the header is an array without a size. */
typedef struct statistic {
  uint32_t flags;
  int16_t exponent;
  uint16_t size;
  uint32_t offset;
  uint32_t bucket_size;
  char name[NAME_SIZE];
} statistic;

typedef struct contents {
  struct kvm_stats_header header;
  char id[NAME_SIZE];
  statistic statistics[STATISTICS];
  uint64_t data[STATISTICS];
} contents;

/* A halted vCPU waits at once. */
static const char *const names[STATISTICS] = {"exits", "halt_poll_success_ns", "halt_poll_fail_ns",
                                              "halt_wait_ns"};

struct soft_stats {
  int fd;
  contents *shown;
};

static void describe(contents *shown) {
  *shown = (contents){.header = {.name_size = NAME_SIZE,
                                 .num_desc = STATISTICS,
                                 .id_offset = offsetof(contents, id),
                                 .desc_offset = offsetof(contents, statistics),
                                 .data_offset = offsetof(contents, data)},
                      .id = "soft-vcpu"};
  for (uint32_t i = 0; i < STATISTICS; i++) {
    statistic *one = &shown->statistics[i];
    bool time = i > 0;
    one->flags = KVM_STATS_TYPE_CUMULATIVE | KVM_STATS_BASE_POW10 |
                 (time ? KVM_STATS_UNIT_SECONDS : KVM_STATS_UNIT_NONE);
    one->exponent = time ? -9 : 0;
    one->size = 1;
    one->offset = i * (uint32_t)sizeof *shown->data;
    strcpy(one->name, names[i]);
  }
}

static bool make(soft_stats *stats) {
  stats->fd = memfd_create("soft-stats", MFD_CLOEXEC);
  if (stats->fd < 0) {
    return false;
  }
  void *pages = MAP_FAILED;
  if (ftruncate(stats->fd, sizeof(contents)) == 0) {
    pages = mmap(NULL, sizeof(contents), PROT_READ | PROT_WRITE, MAP_SHARED, stats->fd, 0);
  }
  if (pages == MAP_FAILED) {
    close(stats->fd);
    return false;
  }
  stats->shown = pages;
  describe(stats->shown);
  return true;
}

int soft_stats_fd(soft_cpu *cpu) {
  if (!cpu->stats) {
    soft_stats *stats = malloc(sizeof *stats);
    if (!stats || !make(stats)) {
      free(stats);
      return soft_refuse(ENOMEM);
    }
    cpu->stats = stats;
    soft_stats_update(cpu);
  }
  return fcntl(cpu->stats->fd, F_DUPFD_CLOEXEC, 0);
}

void soft_stats_update(soft_cpu *cpu) {
  if (cpu->stats) {
    uint64_t *data = cpu->stats->shown->data;
    __atomic_store_n(&data[0], cpu->exits, __ATOMIC_RELAXED);
    __atomic_store_n(&data[STATISTICS - 1], cpu->halted_ns, __ATOMIC_RELAXED);
  }
}

void soft_stats_free(soft_cpu *cpu) {
  if (cpu->stats) {
    munmap(cpu->stats->shown, sizeof(contents));
    close(cpu->stats->fd);
    free(cpu->stats);
  }
}
