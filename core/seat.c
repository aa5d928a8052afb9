/* SPDX-License-Identifier: MIT
 * Making KVM vCPUs, and moving the state that has no place in the run page between two of them. */
#include "seat.h"

#include "dirty.h"
#include "error.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* IA32_TIME_STAMP_COUNTER moves as an offset, not as a value that is old when it arrives. */
enum {
  MSR_TSC = 0x10,
  MSR_TSC_ADJUST = 0x3b,
  MSR_TSC_DEADLINE = 0x6e0
};

static pthread_mutex_t msr_lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t movable[LUNA_MSRS_MOST]; /* indices that can be read and written back */
static uint32_t movable_count;
static uint64_t movable_host; /* which host they were found on */

static void close_seat(luna_space *space, luna_seat *seat) {
  luna_ring_unmap(space, seat);
  if (seat->run) {
    luna_kvm_unmap(seat->run, seat->run_size);
  }
  if (seat->fd >= 0) {
    luna_kvm_close(seat->fd);
  }
  free(seat->held.msrs);
  free(seat->held.xsave);
  free(seat->cpuid);
  free(seat);
}

void luna_seats_free(luna_space *space) {
  for (uint32_t i = 0; i < space->seat_count; i++) {
    if (space->seats[i]) {
      close_seat(space, space->seats[i]);
    }
  }
  free(space->seats);
}

static int reserve_seat(luna_space *space, uint32_t id) {
  if (id < space->seat_count) {
    return LUNA_OK;
  }
  luna_seat **seats = realloc(space->seats, (id + 1) * sizeof(luna_seat *));
  if (!seats) {
    return luna_fail_errno(ENOMEM, "cannot create vCPU %u in space %u", id, space->id);
  }
  memset(seats + space->seat_count, 0, (id + 1 - space->seat_count) * sizeof(luna_seat *));
  space->seats = seats;
  space->seat_count = id + 1;
  return LUNA_OK;
}

static int create(luna_space *space, uint32_t id, luna_seat *seat, const luna_host *host) {
  if (id >= host->vcpus_max) {
    return luna_fail(LUNA_ERROR_LIMIT, "cannot create vCPU %u: this host's KVM allows %u in a VM",
                     id, host->vcpus_max);
  }
  seat->fd = luna_kvm_create_vcpu(space->vm_fd, id);
  return seat->fd >= 0 ? LUNA_OK
                       : luna_fail_errno(errno, "cannot create vCPU %u in space %u", id, space->id);
}

/* Goes on where it failed the last time: KVM does not create a vCPU of the same number again. */
static int open_seat(luna_space *space, uint32_t id, luna_seat *seat) {
  const luna_host *host = luna_host_get();
  int status = seat->fd < 0 ? create(space, id, seat, host) : LUNA_OK;
  if (status != LUNA_OK) {
    return status;
  }
  if (!seat->run) {
    seat->run_size = host->run_size;
    seat->run = luna_kvm_map(seat->fd, host->run_size, 0);
    if (!seat->run) {
      return luna_fail_errno(errno, "cannot map the run page of vCPU %u", id);
    }
  }
  status = luna_ring_map(space, seat);
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

static bool same_cpuid(const struct kvm_cpuid2 *a, const struct kvm_cpuid2 *b) {
  return a->nent == b->nent && memcmp(a->entries, b->entries, a->nent * sizeof *a->entries) == 0;
}

/* KVM fills in the APIC ID of whatever processor it is asked on; the vCPU's is its number. */
struct kvm_cpuid2 *luna_seat_cpuid(uint32_t id) {
  struct kvm_cpuid2 *table = copy_cpuid(luna_host_get()->cpuid);
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
  if (seat->cpuid && same_cpuid(seat->cpuid, table)) {
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
  if (!space->seats[id]) {
    luna_seat *made = calloc(1, sizeof *made);
    if (!made) {
      return luna_fail_errno(ENOMEM, "cannot create vCPU %u in space %u", id, space->id);
    }
    made->fd = -1;
    made->id = id;
    space->seats[id] = made;
  }
  if (!space->seats[id]->ready) {
    status = open_seat(space, id, space->seats[id]);
  }
  if (status == LUNA_OK) {
    *seat = space->seats[id];
  }
  return status;
}

/* ---- MSRs ---- */

/* 1 if an MSR can be read with this CPUID and written back, 0 if not, or a negative status. Those
 * of Hyper-V, which no CPUID here offers, hold clocks of their own. */
static int is_movable(const luna_seat *seat, uint32_t index) {
  luna_msrs one = {.count = 1};
  one.entries[0].index = index;
  bool hyper_v = index >= 0x40000000 && index < 0x40001000;
  if (hyper_v || index == MSR_TSC || index == MSR_TSC_DEADLINE) {
    return 0;
  }
  int done = luna_kvm_get_msrs(seat->fd, &one);
  done = done == 1 ? luna_kvm_set_msrs(seat->fd, &one) : done;
  return done >= 0 ? done : luna_fail_errno(errno, "cannot try MSR 0x%x of a vCPU", index);
}

static int add_movable(const luna_seat *seat, uint32_t index) {
  for (uint32_t i = 0; i < movable_count; i++) {
    if (movable[i] == index) {
      return LUNA_OK;
    }
  }
  int found = movable_count < LUNA_MSRS_MOST ? is_movable(seat, index) : 0;
  if (found > 0) {
    movable[movable_count++] = index;
  }
  return found < 0 ? found : LUNA_OK;
}

static int add_range(const luna_seat *seat, uint32_t first, uint32_t last) {
  int status = LUNA_OK;
  for (uint32_t index = first; index <= last && status == LUNA_OK; index++) {
    status = add_movable(seat, index);
  }
  return status;
}

/* The memory type range registers (SDM Vol. 3, 12.11), which KVM keeps but does not list. */
static int add_mtrrs(const luna_seat *seat) {
  static const uint32_t ranges[][2] = {
      {0x200, 0x20f}, {0x250, 0x250}, {0x258, 0x259}, {0x268, 0x26f}, {0x2ff, 0x2ff}};
  int status = LUNA_OK;
  for (size_t i = 0; i < sizeof ranges / sizeof *ranges && status == LUNA_OK; i++) {
    status = add_range(seat, ranges[i][0], ranges[i][1]);
  }
  return status;
}

/* A seat of a VM of its own, as KVM makes it. Its number is 1: vCPU 0 is the bootstrap processor,
 * and its APIC base says so. */
static int open_scratch(luna_space **scratch, luna_seat **seat) {
  int status = luna_space_create(0, 0, scratch);
  if (status != LUNA_OK) {
    return status;
  }
  status = luna_seat_take(*scratch, 1, seat);
  struct kvm_cpuid2 *cpuid = status == LUNA_OK ? luna_seat_cpuid(1) : NULL;
  if (status == LUNA_OK) {
    status = cpuid ? luna_seat_set_cpuid(*seat, cpuid)
                   : luna_fail_errno(ENOMEM, "cannot make the CPUID leaves of a vCPU");
  }
  free(cpuid);
  if (status != LUNA_OK) {
    luna_space_free(*scratch);
  }
  return status;
}

static int try_movable(const luna_seat *seat) {
  int kvm_fd = luna_kvm_open();
  if (kvm_fd < 0) {
    return kvm_fd;
  }
  struct kvm_msr_list *list = luna_kvm_msr_list(kvm_fd);
  luna_kvm_close(kvm_fd);
  if (!list) {
    return luna_fail_errno(errno, "cannot ask KVM for its list of MSRs");
  }
  movable_count = 0;
  int status = LUNA_OK;
  for (uint32_t i = 0; i < list->nmsrs && status == LUNA_OK; i++) {
    status = add_movable(seat, list->indices[i]);
  }
  free(list);
  status = status == LUNA_OK ? add_mtrrs(seat) : status;
  if (status != LUNA_OK) {
    movable_count = 0; /* half a list would leave state behind unseen */
  }
  return status;
}

/* On a vCPU with everything that CPUID can offer here. */
static int find_movable(void) {
  luna_space *scratch;
  luna_seat *seat;
  int status = open_scratch(&scratch, &seat);
  if (status == LUNA_OK) {
    status = try_movable(seat);
    luna_space_free(scratch);
  }
  return status;
}

/* On this vCPU, if it has everything that CPUID can offer here, or on one of its own. */
static int find_movable_with(const luna_seat *seat) {
  struct kvm_cpuid2 *all = luna_seat_cpuid(seat->id);
  bool has_all = all && seat->cpuid && same_cpuid(seat->cpuid, all);
  free(all);
  return has_all ? try_movable(seat) : find_movable();
}

static int know_movable(const luna_seat *seat) {
  const luna_host *host = luna_host_get();
  pthread_mutex_lock(&msr_lock);
  int status = LUNA_OK;
  if (movable_host != host->serial || movable_count == 0) {
    status = find_movable_with(seat);
    movable_host = host->serial;
  }
  pthread_mutex_unlock(&msr_lock);
  return status;
}

/* Leaves out those that this vCPU's CPUID hides. */
static int read_msrs(luna_seat *seat) {
  luna_msrs *msrs = seat->held.msrs;
  for (;;) {
    int done = luna_kvm_get_msrs(seat->fd, msrs);
    if (done < 0) {
      return luna_fail_errno(errno, "cannot read the MSRs of a vCPU");
    }
    if (done == (int)msrs->count) {
      return LUNA_OK;
    }
    msrs->count--;
    memmove(&msrs->entries[done], &msrs->entries[done + 1],
            (msrs->count - (uint32_t)done) * sizeof *msrs->entries);
  }
}

static int fetch_msrs(luna_seat *seat) {
  luna_held *held = &seat->held;
  int status = know_movable(seat);
  if (status != LUNA_OK) {
    return status;
  }
  if (!held->msrs) {
    held->msrs = calloc(1, sizeof *held->msrs);
    if (!held->msrs) {
      return luna_fail_errno(ENOMEM, "cannot read the MSRs of a vCPU");
    }
    held->msrs->count = movable_count;
    for (uint32_t i = 0; i < movable_count; i++) {
      held->msrs->entries[i].index = movable[i];
    }
  }
  return read_msrs(seat);
}

/* Writes the MSRs that differ. Both lists have the same order; one may lack some that its CPUID
 * hides. */
static int copy_msrs(luna_seat *target, const luna_held *source) {
  const luna_msrs *wanted = source->msrs;
  luna_msrs *now = target->held.msrs;
  luna_msrs change = {0};
  uint32_t places[LUNA_MSRS_MOST];
  for (uint32_t i = 0, at = 0; i < wanted->count && at < now->count; i++) {
    const struct kvm_msr_entry *entry = &wanted->entries[i];
    uint32_t place = at;
    while (place < now->count && now->entries[place].index != entry->index) {
      place++;
    }
    if (place == now->count) {
      continue;
    }
    at = place + 1;
    if (now->entries[place].data != entry->data) {
      places[change.count] = place;
      change.entries[change.count++] = *entry;
      /* KVM notes there what the guest adds to its time-stamp counter. */
      target->tsc_set = target->tsc_set && entry->index != MSR_TSC_ADJUST;
    }
  }
  if (change.count == 0) {
    return LUNA_OK;
  }
  int done = luna_kvm_set_msrs(target->fd, &change);
  if (done != (int)change.count) {
    const struct kvm_msr_entry *entry = &change.entries[done < 0 ? 0 : done];
    return luna_fail_errno(done < 0 ? errno : EINVAL, "cannot write 0x%llx to MSR 0x%x of a vCPU",
                           entry->data, entry->index);
  }
  for (uint32_t i = 0; i < change.count; i++) {
    now->entries[places[i]].data = change.entries[i].data;
  }
  return LUNA_OK;
}

/* The offset of the counter to the host's, or where this KVM does not tell it, the counter
 * itself. */
static int copy_tsc(luna_seat *target, const luna_seat *source) {
  uint64_t offset;
  if (target->tsc_set || target == source) {
    return LUNA_OK;
  }
  if (luna_kvm_get_tsc_offset(source->fd, &offset) == 0 &&
      luna_kvm_set_tsc_offset(target->fd, offset) == 0) {
    target->tsc_set = true;
    return LUNA_OK;
  }
  luna_msrs tsc = {.count = 1};
  tsc.entries[0].index = MSR_TSC;
  if (luna_kvm_get_msrs(source->fd, &tsc) == 1 && luna_kvm_set_msrs(target->fd, &tsc) == 1) {
    return LUNA_OK;
  }
  return luna_fail_errno(errno, "cannot move the time-stamp counter of a vCPU");
}

/* ---- Groups ---- */

static int fetch_xsave(luna_seat *seat) {
  uint32_t size = luna_host_get()->xsave_size;
  if (!seat->held.xsave) {
    seat->held.xsave = calloc(1, size);
    if (!seat->held.xsave) {
      return luna_fail_errno(ENOMEM, "cannot read the extended state of a vCPU");
    }
  }
  return luna_kvm_get_xsave(seat->fd, seat->held.xsave, size) == 0
             ? LUNA_OK
             : luna_fail_errno(errno, "cannot read the extended state of a vCPU");
}

static int fetch_group(luna_seat *seat, luna_group group) {
  switch (group) {
    case LUNA_GROUP_XCRS:
      return luna_kvm_get_xcrs(seat->fd, &seat->held.xcrs) == 0
                 ? LUNA_OK
                 : luna_fail_errno(errno, "cannot read XCR0 of a vCPU");
    case LUNA_GROUP_XSAVE:
      return fetch_xsave(seat);
    case LUNA_GROUP_DEBUG:
      return luna_kvm_get_debugregs(seat->fd, &seat->held.debugregs) == 0
                 ? LUNA_OK
                 : luna_fail_errno(errno, "cannot read the debug registers of a vCPU");
    default:
      return fetch_msrs(seat);
  }
}

int luna_seat_fetch(luna_seat *seat, uint32_t groups) {
  for (uint32_t left = groups & ~seat->held.known; left; left &= left - 1) {
    luna_group group = (luna_group)__builtin_ctz(left);
    int status = fetch_group(seat, group);
    if (status != LUNA_OK) {
      return status;
    }
    seat->held.known |= 1u << group;
  }
  return LUNA_OK;
}

static int write_xcrs(luna_seat *target, const luna_held *source) {
  if (memcmp(&target->held.xcrs, &source->xcrs, sizeof target->held.xcrs) == 0) {
    return 0;
  }
  target->held.xcrs = source->xcrs;
  return luna_kvm_set_xcrs(target->fd, &target->held.xcrs);
}

static int write_xsave(luna_seat *target, const luna_held *source) {
  uint32_t size = luna_host_get()->xsave_size;
  if (memcmp(target->held.xsave, source->xsave, size) == 0) {
    return 0;
  }
  memcpy(target->held.xsave, source->xsave, size);
  return luna_kvm_set_xsave(target->fd, target->held.xsave);
}

static int write_debug(luna_seat *target, const luna_held *source) {
  if (memcmp(&target->held.debugregs, &source->debugregs, sizeof target->held.debugregs) == 0) {
    return 0;
  }
  target->held.debugregs = source->debugregs;
  return luna_kvm_set_debugregs(target->fd, &target->held.debugregs);
}

static int copy_group(luna_seat *target, const luna_held *source, luna_group group) {
  static const char *const names[] = {"XCR0", "the extended state", "the debug registers"};
  int result = 0;
  switch (group) {
    case LUNA_GROUP_XCRS:
      result = write_xcrs(target, source);
      break;
    case LUNA_GROUP_XSAVE:
      result = write_xsave(target, source);
      break;
    case LUNA_GROUP_DEBUG:
      result = write_debug(target, source);
      break;
    default:
      return copy_msrs(target, source);
  }
  return result == 0 ? LUNA_OK : luna_fail_errno(errno, "cannot write %s of a vCPU", names[group]);
}

int luna_seat_write(luna_seat *target, const luna_held *source, uint32_t groups) {
  int status = luna_seat_fetch(target, groups);
  for (uint32_t left = groups; left && status == LUNA_OK; left &= left - 1) {
    luna_group group = (luna_group)__builtin_ctz(left);
    status = copy_group(target, source, group);
    if (status != LUNA_OK) {
      target->held.known &= ~(1u << group);
    }
  }
  return status;
}

int luna_seat_copy(luna_seat *target, const luna_seat *source, uint32_t groups) {
  int status = luna_seat_write(target, &source->held, groups);
  return status == LUNA_OK && groups >> LUNA_GROUP_MSRS & 1 ? copy_tsc(target, source) : status;
}

/* ---- Reset ---- */

typedef struct fresh_state {
  uint64_t host;  /* on which it was read */
  luna_seat seat; /* only its copies are used */
  struct kvm_regs regs;
  struct kvm_sregs sregs;
  struct kvm_vcpu_events events;
} fresh_state;

static pthread_mutex_t fresh_lock = PTHREAD_MUTEX_INITIALIZER;
static fresh_state fresh;

static int read_fresh(luna_seat *seat) {
  const uint32_t all = (1u << LUNA_GROUP_COUNT) - 1;
  if (luna_kvm_get_regs(seat->fd, &fresh.regs) != 0 ||
      luna_kvm_get_sregs(seat->fd, &fresh.sregs) != 0 ||
      luna_kvm_get_events(seat->fd, &fresh.events) != 0) {
    return luna_fail_errno(errno, "cannot read the state of a fresh vCPU");
  }
  int status = luna_seat_fetch(seat, all);
  if (status == LUNA_OK) {
    free(fresh.seat.held.msrs);
    free(fresh.seat.held.xsave);
    fresh.seat.held = seat->held;
    seat->held = (luna_held){0};
    fresh.host = luna_host_get()->serial;
  }
  return status;
}

/* Reads a fresh vCPU's state, once, in a VM made for it. */
static int know_fresh(void) {
  if (fresh.host == luna_host_get()->serial) {
    return LUNA_OK;
  }
  luna_space *scratch;
  luna_seat *seat;
  int status = open_scratch(&scratch, &seat);
  if (status == LUNA_OK) {
    status = read_fresh(seat);
    luna_space_free(scratch);
  }
  return status;
}

/* The last vCPU's breakpoints. */
static int end_debug(luna_seat *seat, uint32_t id) {
  const struct kvm_guest_debug none = {0};
  if (seat->debug.control == 0) {
    return LUNA_OK;
  }
  if (luna_kvm_guest_debug(seat->fd, &none) != 0) {
    return luna_fail_errno(errno, "cannot take the breakpoints of vCPU %u away", id);
  }
  seat->debug = none;
  return LUNA_OK;
}

static int write_fresh(luna_seat *seat, uint32_t id) {
  const uint64_t bootstrap = 0x100; /* IA32_APIC_BASE.BSP */
  struct kvm_sregs sregs = fresh.sregs;
  sregs.apic_base = id == 0 ? sregs.apic_base | bootstrap : sregs.apic_base & ~bootstrap;
  seat->held.known = 0;
  seat->run->kvm_dirty_regs = 0;
  seat->run->ready_for_interrupt_injection = 0;
  seat->run->request_interrupt_window = 0;
  int status = end_debug(seat, id);
  if (status != LUNA_OK) {
    return status;
  }
  if (luna_kvm_set_regs(seat->fd, &fresh.regs) != 0 || luna_kvm_set_sregs(seat->fd, &sregs) != 0 ||
      luna_kvm_set_events(seat->fd, &fresh.events) != 0) {
    return luna_fail_errno(errno, "cannot reset vCPU %u", id);
  }
  const uint32_t all = (1u << LUNA_GROUP_COUNT) - 1;
  status = luna_seat_write(seat, &fresh.seat.held, all);
  seat->tsc_set = true; /* a counter of its own: there is nothing to take over */
  return status;
}

int luna_seat_reset(luna_seat *seat, uint32_t id) {
  pthread_mutex_lock(&fresh_lock);
  int status = know_fresh();
  status = status == LUNA_OK ? write_fresh(seat, id) : status;
  pthread_mutex_unlock(&fresh_lock);
  return status;
}
