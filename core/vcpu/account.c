/* SPDX-License-Identifier: MIT
 * How long a vCPU was in the guest, by the clock around KVM_RUN, and how long of that it was
 * halted inside KVM, by KVM's own statistics (api.rst, KVM_GET_STATS_FD). */
#include "vcpu/account.h"

#include "base/error.h"
#include "kvm/kvm_event.h"
#include "seat/seat.h"
#include "vcpu/guard.h"
#include "vcpu/vcpu.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A halted vCPU polls for a while before it waits. */
static const char *const halted_names[] = {"halt_poll_success_ns", "halt_poll_fail_ns",
                                           "halt_wait_ns"};

static bool is_halted(const char *name) {
  for (size_t i = 0; i < sizeof halted_names / sizeof *halted_names; i++) {
    if (strcmp(name, halted_names[i]) == 0) {
      return true;
    }
  }
  return false;
}

static bool read_at(int fd, void *bytes, size_t size, uint64_t offset) {
  return pread(fd, bytes, size, (off_t)offset) == (ssize_t)size;
}

/* The sum of what the descriptors, `stride` bytes each, name as halted. */
static uint64_t sum_halted(int fd, const struct kvm_stats_header *header, uint8_t *descriptors,
                           size_t stride) {
  uint64_t sum = 0;
  for (uint32_t i = 0; i < header->num_desc; i++) {
    const struct kvm_stats_desc *one = (const void *)(descriptors + i * stride);
    uint64_t value;
    descriptors[(i + 1) * stride - 1] = 0; /* the end of its name, whatever was read */
    if (is_halted(one->name) &&
        read_at(fd, &value, sizeof value, (uint64_t)header->data_offset + one->offset)) {
      sum += value;
    }
  }
  return sum;
}

/* Nanoseconds that the KVM vCPU has been halted since it was made, by the descriptor of its
 * statistics; 0 for -1, where KVM does not say. */
static uint64_t halted(int fd) {
  struct kvm_stats_header header;
  uint64_t sum = 0;
  if (fd >= 0 && read_at(fd, &header, sizeof header, 0)) {
    size_t stride = sizeof(struct kvm_stats_desc) + header.name_size;
    size_t size = stride * header.num_desc;
    uint8_t *descriptors = malloc(size);
    if (descriptors && read_at(fd, descriptors, size, header.desc_offset)) {
      sum = sum_halted(fd, &header, descriptors, stride);
    }
    free(descriptors);
  }
  return sum;
}

static bool counts(const luna_vcpu *vcpu) {
  return atomic_load_explicit(&vcpu->attention, memory_order_relaxed) & LUNA_ATTEND_TIME;
}

static uint64_t ticks(const luna_account *account) {
  return account->by_clock ? luna_clock() : luna_tick();
}

static luna_moment moment(const luna_account *account) {
  const uint64_t now = luna_clock();
  return account->by_clock ? (luna_moment){now, now} : luna_tick_moment();
}

void luna_account_enter(luna_vcpu *vcpu) {
  vcpu->account.entered = ticks(&vcpu->account);
}

/* Counters of different processors may be some ticks apart. */
void luna_account_leave(luna_vcpu *vcpu) {
  luna_account *account = &vcpu->account;
  const uint64_t now = ticks(account);
  const uint64_t before = atomic_load_explicit(&account->exec, memory_order_relaxed);
  atomic_store_explicit(&account->exec,
                        before + (now > account->entered ? now - account->entered : 0),
                        memory_order_relaxed);
}

/* What has come since the last answer counts by what a tick has been so far; of two threads that
 * ask at once, one adds it. */
static uint64_t exec_ns(luna_account *account) {
  const unsigned long exec = atomic_load_explicit(&account->exec, memory_order_relaxed);
  unsigned long told = atomic_load(&account->told);
  if (exec > told && atomic_compare_exchange_strong(&account->told, &told, exec)) {
    const luna_moment now = moment(account), since = account->since;
    const double tick = (double)(now.ns - since.ns) / (double)(now.ticks - since.ticks);
    atomic_fetch_add(&account->told_ns, (unsigned long)((double)(exec - told) * tick));
  }
  return atomic_load(&account->told_ns);
}

/* Since the seat with that descriptor was taken; 0 for -1, between two seats. */
static uint64_t halted_here(const luna_vcpu *vcpu, int fd) {
  uint64_t since = atomic_load(&vcpu->account.halted_since);
  uint64_t now = halted(fd);
  return now > since ? now - since : 0;
}

void luna_account_rise(luna_vcpu *vcpu) {
  if (vcpu->seat && counts(vcpu)) {
    int fd = atomic_exchange(&vcpu->account.fd, -1);
    atomic_fetch_add(&vcpu->account.idle, halted_here(vcpu, fd));
  }
}

/* The seat keeps the descriptor: KVM gives one only while the vCPU is out of the guest, and reads
 * from it at any time. */
void luna_account_sit(luna_vcpu *vcpu) {
  if (counts(vcpu)) {
    luna_seat *seat = vcpu->seat;
    if (seat->stats_fd < 0) {
      seat->stats_fd = luna_kvm_stats_fd(seat->fd);
    }
    atomic_store(&vcpu->account.halted_since, halted(seat->stats_fd));
    atomic_store(&vcpu->account.fd, seat->stats_fd);
  }
}

int luna_vcpu_account(luna_vcpu *vcpu, uint32_t on) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  if (atomic_load(&vcpu->running)) {
    return luna_fail(LUNA_ERROR_STATE, "cannot begin or end to count the time of vCPU %u: it runs",
                     vcpu->id);
  }
  if (!on) {
    luna_account_rise(vcpu);
    atomic_fetch_and(&vcpu->attention, ~(unsigned)LUNA_ATTEND_TIME);
    return LUNA_OK;
  }
  luna_account *account = &vcpu->account;
  account->by_clock = !luna_tick_is_steady();
  account->since = moment(account);
  atomic_store(&account->exec, 0);
  atomic_store(&account->told, 0);
  atomic_store(&account->told_ns, 0);
  atomic_store(&account->idle, 0);
  atomic_fetch_or(&vcpu->attention, LUNA_ATTEND_TIME);
  luna_account_sit(vcpu);
  return LUNA_OK;
}

int luna_vcpu_time(luna_vcpu *vcpu, uint64_t *exec_time, uint64_t *idle_time) {
  *exec_time = exec_ns(&vcpu->account);
  *idle_time = atomic_load(&vcpu->account.idle) +
               (counts(vcpu) ? halted_here(vcpu, atomic_load(&vcpu->account.fd)) : 0);
  return LUNA_OK;
}
