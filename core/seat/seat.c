/* SPDX-License-Identifier: MIT
 * Making KVM vCPUs and their CPUID tables, and freeing them. */
#include "seat/seat.h"

#include "base/error.h"
#include "kvm/host.h"
#include "kvm/kvm.h"
#include "memory/ring.h"
#include "memory/space.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void close_seat(luna_space *space, luna_seat *seat) {
  luna_ring_unmap(space, &seat->resident.ring, seat->fd);
  if (seat->run) {
    luna_kvm_unmap(seat->fd, seat->run, seat->run_size);
  }
  if (seat->stats_fd >= 0) {
    close(seat->stats_fd);
  }
  if (seat->fd.number >= 0) {
    luna_kvm_close(seat->fd);
  }
  free(seat->held.msrs);
  free(seat->held.xsave);
  free(seat->cpuid);
  free(seat);
}

void luna_seats_free(luna_space *space) {
  for (uint32_t i = 0; i < space->resident_count; i++) {
    if (space->residents[i]) {
      close_seat(space, luna_seat_at(space, i));
    }
  }
  free(space->residents);
  space->residents = NULL;
  space->resident_count = 0;
}

static int reserve_seat(luna_space *space, uint32_t id) {
  if (id < space->resident_count) {
    return LUNA_OK;
  }
  luna_resident **residents = realloc(space->residents, (id + 1) * sizeof *residents);
  if (!residents) {
    return luna_fail_errno(ENOMEM, "cannot create vCPU %u in space %u", id, space->id);
  }
  for (uint32_t i = space->resident_count; i <= id; i++) {
    residents[i] = NULL;
  }
  space->residents = residents;
  space->resident_count = id + 1;
  return LUNA_OK;
}

static int create(luna_space *space, uint32_t id, luna_seat *seat) {
  const luna_host *host = space->host;
  if (id >= host->vcpus_max) {
    return luna_fail(LUNA_ERROR_LIMIT, "cannot create vCPU %u: this host's KVM allows %u in a VM",
                     id, host->vcpus_max);
  }
  seat->fd = luna_kvm_create_vcpu(space->vm_fd, id);
  return seat->fd.number >= 0
             ? LUNA_OK
             : luna_fail_errno(errno, "cannot create vCPU %u in space %u", id, space->id);
}

/* Goes on where it failed the last time: KVM does not create a vCPU of the same number again. */
static int open_seat(luna_space *space, uint32_t id, luna_seat *seat) {
  size_t run_size = space->host->run_size;
  int status = seat->fd.number < 0 ? create(space, id, seat) : LUNA_OK;
  if (status != LUNA_OK) {
    return status;
  }
  if (!seat->run) {
    seat->run_size = run_size;
    seat->run = luna_kvm_map(seat->fd, run_size, 0);
    if (!seat->run) {
      return luna_fail_errno(errno, "cannot map the run page of vCPU %u", id);
    }
  }
  status = luna_ring_map(space, &seat->resident.ring, seat->fd);
  seat->ready = status == LUNA_OK;
  return status;
}

/* ---- CPUID ---- */

static size_t cpuid_size(const struct kvm_cpuid2 *table) {
  return sizeof *table + table->nent * sizeof *table->entries;
}

static struct kvm_cpuid2 *copy_cpuid(const struct kvm_cpuid2 *table) {
  struct kvm_cpuid2 *copy = malloc(cpuid_size(table));
  return copy ? memcpy(copy, table, cpuid_size(table)) : NULL;
}

bool luna_seat_same_cpuid(const struct kvm_cpuid2 *a, const struct kvm_cpuid2 *b) {
  return a->nent == b->nent && memcmp(a->entries, b->entries, a->nent * sizeof *a->entries) == 0;
}

/* KVM fills in the APIC ID of whatever processor it is asked on; the vCPU's is its number. */
struct kvm_cpuid2 *luna_seat_cpuid(const luna_host *host, uint32_t id) {
  struct kvm_cpuid2 *table = copy_cpuid(host->cpuid);
  for (uint32_t i = 0; table && i < table->nent; i++) {
    struct kvm_cpuid_entry2 *entry = &table->entries[i];
    if (entry->function == 1) {
      entry->ebx = (entry->ebx & 0xffffff) | id << 24;
    } else if (entry->function == 0xb || entry->function == 0x1f) {
      entry->edx = id;
    } else if (entry->function == 0x8000001e) {
      entry->eax = id;
    }
  }
  return table;
}

static int fail_cpuid(const luna_seat *seat, int number) {
  if (number != EINVAL) {
    return luna_fail_errno(number, "cannot set the CPUID leaves of vCPU %u", seat->id);
  }
  return seat->ran
             ? luna_fail(LUNA_ERROR_STATE, "cannot change the CPUID leaves of vCPU %u: it has run",
                         seat->id)
             : luna_fail(LUNA_ERROR_ARGUMENT,
                         "cannot set the CPUID leaves of vCPU %u: KVM refuses these", seat->id);
}

int luna_seat_set_cpuid(luna_seat *seat, const struct kvm_cpuid2 *table) {
  if (seat->cpuid && luna_seat_same_cpuid(seat->cpuid, table)) {
    return LUNA_OK;
  }
  struct kvm_cpuid2 *copy = copy_cpuid(table);
  if (!copy || luna_kvm_set_cpuid(seat->fd, copy) != 0) {
    int number = copy ? errno : ENOMEM;
    free(copy);
    return fail_cpuid(seat, number);
  }
  free(seat->cpuid);
  seat->cpuid = copy;
  free(seat->held.msrs);
  seat->held.msrs = NULL; /* CPUID says which there are */
  seat->held.known = 0;
  return LUNA_OK;
}

int luna_seat_take(luna_space *space, uint32_t id, luna_seat **seat) {
  int status = reserve_seat(space, id);
  if (status != LUNA_OK) {
    return status;
  }
  luna_seat *found = luna_seat_at(space, id);
  if (!found) {
    found = calloc(1, sizeof *found);
    if (!found) {
      return luna_fail_errno(ENOMEM, "cannot create vCPU %u in space %u", id, space->id);
    }
    found->host = space->host;
    found->fd.number = found->stats_fd = -1;
    found->id = id;
    space->residents[id] = &found->resident;
  }
  if (!found->ready) {
    status = open_seat(space, id, found);
  }
  if (status == LUNA_OK) {
    *seat = found;
  }
  return status;
}

/* A seat of a VM of its own, as KVM makes it. Its number is 1: vCPU 0 is the bootstrap processor,
 * and its APIC base says so. */
int luna_seat_scratch(const luna_host *host, luna_space **scratch, luna_seat **seat) {
  int status = luna_space_create(host, 0, 0, scratch);
  if (status != LUNA_OK) {
    return status;
  }
  status = luna_seat_take(*scratch, 1, seat);
  struct kvm_cpuid2 *cpuid = status == LUNA_OK ? luna_seat_cpuid(host, 1) : NULL;
  if (status == LUNA_OK) {
    status = cpuid ? luna_seat_set_cpuid(*seat, cpuid)
                   : luna_fail_errno(ENOMEM, "cannot make the CPUID leaves of a vCPU");
  }
  free(cpuid);
  if (status != LUNA_OK) {
    luna_seat_scratch_free(*scratch);
  }
  return status;
}

void luna_seat_scratch_free(luna_space *scratch) {
  luna_seats_free(scratch);
  luna_space_free(scratch);
}
