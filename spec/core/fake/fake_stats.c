/* SPDX-License-Identifier: MIT
 * The statistics of a fake vCPU, in the form of api.rst, KVM_GET_STATS_FD: header, identity,
 * descriptors with their names, data. */
#include "fake/fake_file.h"

#include "vcpu/vcpu.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
  NAME_SIZE = 48,
  STATISTICS = FAKE_HALTED + 1
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

/* The first is none of a halt. */
static const char *const names[STATISTICS] = {"exits", "halt_poll_success_ns", "halt_poll_fail_ns",
                                              "halt_wait_ns"};

static contents contents_of(const fake_file *vcpu) {
  contents made = {.header = {.name_size = NAME_SIZE,
                              .num_desc = STATISTICS,
                              .id_offset = offsetof(contents, id),
                              .desc_offset = offsetof(contents, statistics),
                              .data_offset = offsetof(contents, data)},
                   .id = "kvm-1/vcpu-0",
                   .data = {12345}};
  for (uint32_t i = 0; i < STATISTICS; i++) {
    made.statistics[i].size = 1;
    made.statistics[i].offset = i * (uint32_t)sizeof *made.data;
    memcpy(made.statistics[i].name, names[i], strlen(names[i]));
  }
  memcpy(made.data + 1, vcpu->halted, sizeof vcpu->halted);
  return made;
}

void fake_stats_update(const fake_file *vcpu) {
  const contents made = contents_of(vcpu);
  if (vcpu->stats_fd > 0 && pwrite(vcpu->stats_fd, &made, sizeof made, 0) != sizeof made) {
    abort();
  }
}

/* A real descriptor, which the library reads and closes by itself: it shows what is so when it is
 * read. */
int fake_stats_fd(fake_file *vcpu) {
  if (fake_host.no_stats) {
    return fake_refuse(ENOTTY);
  }
  if (vcpu->stats_fd == 0) {
    vcpu->stats_fd = memfd_create("stats", MFD_CLOEXEC);
    fake_stats_update(vcpu);
  }
  return fcntl(vcpu->stats_fd, F_DUPFD_CLOEXEC, 0);
}

void fake_stats_free(const fake_file *vcpu) {
  if (vcpu->stats_fd > 0) {
    close(vcpu->stats_fd);
  }
}
