/* SPDX-License-Identifier: MIT
 * What CPUID answers in the guest. The table belongs to the vCPU: each of its seats gets the same.
 * KVM takes no other once a seat has run (Linux 5.17), so a seat that is used again may refuse. */
#include "vcpu/cpuid.h"

#include "base/error.h"
#include "kvm/host.h"
#include "memory/space.h"
#include "seat/seat.h"
#include "vcpu/guard.h"
#include "vcpu/vcpu.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
  ANSWERS_MOST = 256 /* KVM_MAX_CPUID_ENTRIES */
};

const struct kvm_cpuid_entry2 *luna_cpuid_find(const struct kvm_cpuid2 *table, uint32_t leaf,
                                               uint32_t subleaf) {
  for (uint32_t i = 0; i < table->nent; i++) {
    const struct kvm_cpuid_entry2 *entry = &table->entries[i];
    bool indexed = entry->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    if (entry->function == leaf && (!indexed || entry->index == subleaf)) {
      return entry;
    }
  }
  return NULL;
}

unsigned luna_cpuid_address_bits(const luna_vcpu *vcpu) {
  const struct kvm_cpuid_entry2 *entry = luna_cpuid_find(vcpu->cpuid, 0x80000008, 0);
  unsigned mine = entry ? entry->eax & 0xff : 0;
  unsigned host = vcpu->vm->host->address_bits;
  return mine > host || mine == 0 ? host : mine;
}

/* Remembers that the vCPU may not run before it has the table that its seat has run with. */
static void mark(luna_vcpu *vcpu, bool refused) {
  if (refused) {
    atomic_fetch_or(&vcpu->attention, LUNA_ATTEND_CPUID);
  } else {
    atomic_fetch_and(&vcpu->attention, ~(unsigned)LUNA_ATTEND_CPUID);
  }
}

int luna_cpuid_refuse(const luna_vcpu *vcpu) {
  return luna_fail(LUNA_ERROR_STATE,
                   "cannot run vCPU %u with this CPUID: a former vCPU of that number has run with "
                   "another, which KVM does not change any more; give it the same leaves, or make "
                   "it in a new VM",
                   vcpu->id);
}

int luna_cpuid_begin(luna_vcpu *vcpu) {
  vcpu->cpuid = luna_seat_cpuid(vcpu->vm->host, vcpu->id);
  if (!vcpu->cpuid) {
    return luna_fail_errno(ENOMEM, "cannot make the CPUID leaves of vCPU %u", vcpu->id);
  }
  int status = luna_seat_set_cpuid(vcpu->seat, vcpu->cpuid);
  mark(vcpu, status == LUNA_ERROR_STATE);
  return status == LUNA_ERROR_STATE ? LUNA_OK : status;
}

int luna_cpuid_follow(luna_vcpu *vcpu, luna_seat *seat) {
  int status = luna_seat_set_cpuid(seat, vcpu->cpuid);
  return status == LUNA_ERROR_STATE ? luna_cpuid_refuse(vcpu) : status;
}

void luna_cpuid_end(luna_vcpu *vcpu) {
  free(vcpu->cpuid);
}

int luna_vcpu_cpuid_next(luna_vcpu *vcpu, uint32_t index, luna_cpuid *answer) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  const struct kvm_cpuid2 *table = vcpu->cpuid;
  if (index >= table->nent) {
    return luna_fail(LUNA_ERROR_NOT_FOUND, "vCPU %u has %u CPUID answers, none of index %u",
                     vcpu->id, table->nent, index);
  }
  const struct kvm_cpuid_entry2 *entry = &table->entries[index];
  *answer = (luna_cpuid){
      .leaf = entry->function,
      .subleaf = entry->index,
      .indexed = entry->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
      .eax = entry->eax,
      .ebx = entry->ebx,
      .ecx = entry->ecx,
      .edx = entry->edx,
  };
  return LUNA_OK;
}

static struct kvm_cpuid2 *make_table(const luna_cpuid *answers, size_t count) {
  struct kvm_cpuid2 *table = calloc(1, sizeof *table + count * sizeof(struct kvm_cpuid_entry2));
  for (size_t i = 0; table && i < count; i++) {
    const luna_cpuid *answer = &answers[i];
    table->entries[i] = (struct kvm_cpuid_entry2){
        .function = answer->leaf,
        .index = answer->indexed ? answer->subleaf : 0,
        .flags = answer->indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
        .eax = answer->eax,
        .ebx = answer->ebx,
        .ecx = answer->ecx,
        .edx = answer->edx,
    };
    table->nent++;
  }
  return table;
}

/* The seats that the vCPU had in other spaces before its first run have the old table. */
static int follow_all(luna_vcpu *vcpu) {
  int status = LUNA_OK;
  pthread_rwlock_rdlock(&vcpu->vm->lock);
  for (uint32_t i = 0; i < vcpu->vm->space_count && status == LUNA_OK; i++) {
    const luna_space *space = vcpu->vm->spaces[i];
    luna_seat *seat = space ? luna_seat_at(space, vcpu->id) : NULL;
    if (seat && seat->ready && seat->owner == vcpu->serial) {
      status = luna_cpuid_follow(vcpu, seat);
    }
  }
  pthread_rwlock_unlock(&vcpu->vm->lock);
  return status;
}

static int check_change(const luna_vcpu *vcpu, size_t count) {
  if (vcpu->exits > 0 && !(atomic_load(&vcpu->attention) & LUNA_ATTEND_CPUID)) {
    return luna_fail(LUNA_ERROR_STATE,
                     "cannot change the CPUID of vCPU %u: it has run, and KVM takes no other then; "
                     "set it before the first run",
                     vcpu->id);
  }
  if (count > ANSWERS_MOST) {
    return luna_fail(LUNA_ERROR_ARGUMENT,
                     "cannot give vCPU %u %zu CPUID answers: KVM takes at most %d", vcpu->id, count,
                     ANSWERS_MOST);
  }
  return LUNA_OK;
}

int luna_vcpu_set_cpuid(luna_vcpu *vcpu, const luna_cpuid *answers, size_t count) {
  if (luna_vcpu_guard(vcpu)) {
    return LUNA_ERROR_STATE;
  }
  int status = check_change(vcpu, count);
  if (status != LUNA_OK) {
    return status;
  }
  struct kvm_cpuid2 *table = make_table(answers, count);
  if (!table) {
    return luna_fail_errno(ENOMEM, "cannot make the CPUID leaves of vCPU %u", vcpu->id);
  }
  struct kvm_cpuid2 *before = vcpu->cpuid;
  vcpu->cpuid = table;
  status = follow_all(vcpu);
  if (status != LUNA_OK) {
    luna_failure failure = luna_failure_take();
    vcpu->cpuid = before;
    follow_all(vcpu); /* back; where the seat refuses, it has not been changed */
    luna_failure_put(&failure);
    free(table);
    return status;
  }
  free(before);
  mark(vcpu, false);
  return LUNA_OK;
}
